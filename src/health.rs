//! How the edge and its origins are: one JSON document, from what each origin says of itself.

use serde::{Serialize, Serializer};
use serde_json::Value;
use std::time::Duration;

/// How long an origin may take to say how it is: whoever asks wants to know now.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// How long an answer is given again: whoever asks more often than that asks this edge, not its origins.
const KEPT_MS: f64 = 1_000.0;

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It starts streams.
    Ok,
    /// It serves what runs, and starts nothing.
    Draining,
    /// It does not answer, or not as it should.
    Down,
}

impl Status {
    /// Reads an origin's own document: `{"status":"ok"}`, or `draining`, and whatever else it has to say.
    pub fn of_origin(status_code: u16, document: &[u8]) -> Self {
        let said = serde_json::from_slice::<Value>(document).unwrap_or_default();
        match said["status"].as_str() {
            Some("ok") if status_code == 200 => Self::Ok,
            Some("draining") => Self::Draining,
            _ => Self::Down,
        }
    }
}

/// The answer of `/healthz`.
#[derive(Debug, Serialize)]
pub struct Health<'a> {
    status: Status,
    #[serde(serialize_with = "by_name")]
    origins: Vec<(&'a str, Status)>,
}

impl<'a> Health<'a> {
    /// Sums up: as well as the best of the origins. An edge with none of its own kind can only say that it runs.
    pub fn of(origins: Vec<(&'a str, Status)>) -> Self {
        let any = |status| origins.iter().any(|(_, known)| *known == status);
        let status = if origins.is_empty() || any(Status::Ok) {
            Status::Ok
        } else if any(Status::Draining) {
            Status::Draining
        } else {
            Status::Down
        };
        Self { status, origins }
    }

    /// The answer, as of `now_ms` on a clock in milliseconds.
    pub fn report(&self, now_ms: f64) -> Report {
        Report {
            // 200 where a stream can start.
            status_code: if self.status == Status::Ok { 200 } else { 503 },
            // Names and words: there is nothing here that JSON can't hold.
            document: serde_json::to_string(self).unwrap_or_default(),
            made_ms: now_ms,
        }
    }
}

/// An answer that was made, and can be given again.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// 200 or 503.
    pub status_code: u16,
    /// One JSON object.
    pub document: String,
    made_ms: f64,
}

impl Report {
    /// It is not too old to be given again. A clock that was set back makes it too old.
    pub fn is_fresh(&self, now_ms: f64) -> bool {
        (0.0..KEPT_MS).contains(&(now_ms - self.made_ms))
    }
}

fn by_name<S: Serializer>(origins: &[(&str, Status)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(origins.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_it_says_it_is() {
        let ok = br#"{"status":"ok","model":"embedded"}"#;
        assert_eq!(Status::of_origin(200, ok), Status::Ok);
        assert_eq!(Status::of_origin(500, ok), Status::Down);
        let draining = br#"{"status":"draining"}"#;
        assert_eq!(Status::of_origin(200, draining), Status::Draining);
        assert_eq!(Status::of_origin(503, draining), Status::Draining);
        assert_eq!(Status::of_origin(200, b"<html>"), Status::Down);
    }

    #[test]
    fn an_edge_is_as_well_as_the_best_of_its_origins() {
        let sum = |origins: &[(&'static str, Status)]| {
            let report = Health::of(origins.to_vec()).report(0.0);
            (report.status_code, report.document)
        };
        assert_eq!(
            sum(&[("a", Status::Down), ("b", Status::Ok)]),
            (200, r#"{"status":"ok","origins":{"a":"down","b":"ok"}}"#.into())
        );
        assert_eq!(
            sum(&[("a", Status::Draining)]),
            (503, r#"{"status":"draining","origins":{"a":"draining"}}"#.into())
        );
        assert_eq!(sum(&[]).0, 200);
    }

    #[test]
    fn an_answer_is_given_again_for_a_second() {
        let report = Health::of(Vec::new()).report(5_000.0);
        assert!(report.is_fresh(5_000.0) && report.is_fresh(5_999.0));
        assert!(!report.is_fresh(6_000.0) && !report.is_fresh(4_999.0));
    }
}
