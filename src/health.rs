//! How the edge and its origins are: one JSON document, from what each origin says of itself.

use crate::config::{Config, RateLimit};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::time::Duration;

/// How long an origin may take to say how it is: whoever asks wants to know now.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// How long a report is told again.
const KEPT: Duration = Duration::from_secs(1);

/// A question that has been open for longer has been left by who asked it. (It takes [`DEADLINE`] and a little.)
const LEFT_AFTER: Duration = Duration::from_secs(3);

/// Between two looks of who waits for an instance's first report.
pub const WAIT: Duration = Duration::from_millis(50);

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
    /// A setting is wrong, and nothing starts.
    Misconfigured,
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
    /// The names of the settings that are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    wrong_settings: Vec<&'static str>,
}

impl<'a> Health<'a> {
    /// Sums up: as well as the best of the origins, if the settings allow that anything starts. An edge whose origins are
    /// foreign servers can only say that it runs.
    pub fn of(config: &Config, origins: Vec<(&'a str, Status)>) -> Self {
        let any = |status| origins.iter().any(|(_, known)| *known == status);
        let nothing_starts = config.origins.is_empty() || config.rate_limit == RateLimit::Broken;
        let status = if nothing_starts {
            Status::Misconfigured
        } else if origins.is_empty() || any(Status::Ok) {
            Status::Ok
        } else if any(Status::Draining) {
            Status::Draining
        } else {
            Status::Down
        };
        Self { status, origins, wrong_settings: config.slips.iter().map(|slip| slip.setting).collect() }
    }

    /// The answer.
    pub fn report(&self) -> Report {
        Report {
            // 200 where a stream can start.
            status_code: if self.status == Status::Ok { 200 } else { 503 },
            // Names and words: JSON can hold them.
            document: serde_json::to_string(self).unwrap_or_default(),
        }
    }
}

/// An answer that was made, and can be told again.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// 200 or 503.
    pub status_code: u16,
    /// One JSON object.
    pub document: String,
}

/// What one instance of the edge knows of its origins. Anyone may look, as often as he likes; so one question at a time is
/// put to the origins, at most one a second, and the last report is told meanwhile.
#[derive(Debug, Default)]
pub struct Looks {
    asked_ms: f64,
    is_open: bool,
    report: Option<Report>,
    made_ms: f64,
}

/// What somebody who looks is to do.
#[derive(Debug, PartialEq)]
pub enum Look {
    /// Tell this report.
    Tell(Report),
    /// Ask the origins.
    Ask,
    /// Look again after [`WAIT`]: another asks, and there is no report yet.
    Wait,
}

impl Looks {
    /// A look at `now_ms`, on a clock in milliseconds. A clock that was set back ends what was open or fresh.
    pub fn look(&mut self, now_ms: f64) -> Look {
        let is_within =
            |limit: Duration, since_ms: f64| (0.0..limit.as_secs_f64() * 1_000.0).contains(&(now_ms - since_ms));
        let is_open = self.is_open && is_within(LEFT_AFTER, self.asked_ms);
        match &self.report {
            Some(report) if is_open || is_within(KEPT, self.made_ms) => Look::Tell(report.clone()),
            None if is_open => Look::Wait,
            _ => {
                self.asked_ms = now_ms;
                self.is_open = true;
                Look::Ask
            }
        }
    }

    /// Keeps what the origins said by `now_ms`.
    pub fn keep(&mut self, report: Report, now_ms: f64) {
        self.is_open = false;
        self.report = Some(report);
        self.made_ms = now_ms;
    }
}

fn by_name<S: Serializer>(origins: &[(&str, Status)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(origins.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

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
            let report = Health::of(&config(&[]), origins.to_vec()).report();
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
    fn a_wrong_setting_is_named_and_tells_only_where_nothing_starts() {
        let report = |setting| {
            let config = config(&[(setting, "wrong")]);
            let report = Health::of(&config, vec![("a", Status::Ok)]).report();
            (report.status_code, report.document)
        };
        assert_eq!(
            report("ALLOWED_ORIGINS"),
            (200, r#"{"status":"ok","origins":{"a":"ok"},"wrong_settings":["ALLOWED_ORIGINS"]}"#.into())
        );
        for setting in ["ORIGINS", "EDGE_SECRET", "RATE_LIMIT"] {
            let (status, document) = report(setting);
            assert_eq!(status, 503);
            assert!(document.contains("\"misconfigured\"") && document.contains(setting), "{document}");
        }
    }

    #[test]
    fn one_question_is_open_at_a_time_and_the_last_report_is_told_meanwhile() {
        let report = |document: &str| Report { status_code: 200, document: document.into() };
        let mut looks = Looks::default();
        assert_eq!(looks.look(10_000.0), Look::Ask);
        assert_eq!(looks.look(11_900.0), Look::Wait, "there is no report yet");
        looks.keep(report("first"), 12_000.0);
        assert_eq!(looks.look(12_999.0), Look::Tell(report("first")));
        assert_eq!(looks.look(13_000.0), Look::Ask);
        assert_eq!(looks.look(13_000.0), Look::Tell(report("first")));
        assert_eq!(looks.look(14_999.0), Look::Tell(report("first")));
        looks.keep(report("second"), 15_000.0);
        assert_eq!(looks.look(15_500.0), Look::Tell(report("second")));
        assert_eq!(looks.look(16_000.0), Look::Ask);
        // Who asked has left: nobody answers his question.
        assert_eq!(looks.look(19_000.0), Look::Ask);
        assert_eq!(looks.look(9_000.0), Look::Ask, "the clock was set back");
    }
}
