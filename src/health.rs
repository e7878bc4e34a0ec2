//! How the edge and its origins are: one JSON document, from what each origin says of itself.

use serde::{Serialize, Serializer};
use serde_json::Value;
use std::time::Duration;

/// How long an origin may take to say how it is: whoever asks wants to know now.
pub const DEADLINE: Duration = Duration::from_secs(2);

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

    /// 200 where a stream can start, else 503.
    pub fn status_code(&self) -> u16 {
        if self.status == Status::Ok { 200 } else { 503 }
    }

    /// One JSON object.
    pub fn document(&self) -> String {
        // Names and words: there is nothing here that JSON can't hold.
        serde_json::to_string(self).unwrap_or_default()
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
            let health = Health::of(origins.to_vec());
            (health.status_code(), health.document())
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
}
