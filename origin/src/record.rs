//! One record per stream, whatever its end: a line of the log, and the figures.

use std::{str::FromStr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    metrics::{Metrics, OfModel},
    problem::Kind,
    stream::{Finish, Log, Start, Timing, Usage},
};

/// What is known of a stream; written when it is dropped, so that no end goes without.
pub(crate) struct Record {
    log: Arc<Log>,
    prompt: String,
    /// The variables as JSON, only where they are to be logged.
    variables: Option<String>,
    /// The one that answers, else the last that was asked.
    model: Option<String>,
    trace: Option<TraceParent>,
    metrics: Arc<Metrics>,
    /// The figures of the model, once it answers, and when it was called.
    of_model: Option<(OfModel, Instant)>,
    started: Instant,
    first_token: Option<Duration>,
    last_token: Duration,
    chunks: u64,
    outcome: &'static str,
    usage: Option<Usage>,
}

/// What the figures call the model of a stream that none has answered.
const NO_MODEL: &str = "none";

/// The caller's place in a distributed trace: the header `traceparent`, W3C Trace Context section 3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(String);

/// The header isn't as the specification says, and is to be ignored.
#[derive(Debug, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceParent;

impl Record {
    /// The record of a stream that starts now.
    pub(crate) fn new(log: Arc<Log>, start: Start, metrics: Arc<Metrics>) -> Self {
        metrics.started();
        Self {
            log,
            prompt: start.name,
            variables: start.variables,
            model: None,
            trace: start.trace,
            metrics,
            of_model: None,
            started: Instant::now(),
            first_token: None,
            last_token: Duration::ZERO,
            chunks: 0,
            // What a generation ends as that doesn't come to its end.
            outcome: Kind::Internal.name(),
            usage: None,
        }
    }

    /// This model gave no first token.
    pub(crate) fn passed_over(&mut self, model: &str, kind: Kind) {
        self.metrics.passed_over(model, kind);
        self.model = Some(model.to_owned());
    }

    /// This model answers; it was called then.
    pub(crate) fn answered_by(&mut self, model: &str, called: Instant) {
        self.model = Some(model.to_owned());
        self.of_model = Some((self.metrics.of(model), called));
    }

    /// A piece of text came.
    pub(crate) fn token(&mut self) {
        let now = self.elapsed();
        let first = self.first_token.is_none();
        self.first_token.get_or_insert(now);
        match &self.of_model {
            Some((figures, called)) if first => figures.first_chunk(called.elapsed()),
            Some((figures, _)) => figures.next_chunk(now - self.last_token),
            None => {}
        }
        self.last_token = now;
        self.chunks += 1;
    }

    /// The stream ended well.
    pub(crate) fn finished(&mut self, finish: Finish, usage: Option<Usage>) {
        self.outcome = finish.name();
        self.usage = usage;
    }

    /// The stream ended as failed.
    pub(crate) fn failed(&mut self, kind: Kind) {
        self.outcome = kind.name();
    }

    /// The times so far, as they are told.
    pub(crate) fn timing(&self) -> Timing {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Timing { first_token_ms: self.first_token.map(millis), total_ms: millis(self.elapsed()) }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.ended(self.model.as_deref().unwrap_or(NO_MODEL), self.outcome, self.elapsed(), self.usage);
        let audience = self.log.audience().borrow();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        tracing::info!(
            stream = %self.log.id(),
            prompt = self.prompt,
            variables = self.variables,
            model = self.model,
            outcome = self.outcome,
            chunks = self.chunks,
            input_tokens = self.usage.map(|usage| usage.input_tokens),
            output_tokens = self.usage.map(|usage| usage.output_tokens),
            first_token_ms = self.first_token.map(millis),
            total_ms = millis(self.elapsed()),
            readers = audience.attached,
            resumes = audience.resumed,
            traceparent = self.trace.as_ref().map(|trace| &trace.0),
            "stream ended"
        );
    }
}

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        // Version, trace, span, flags. A later version may have more behind them.
        const LENGTHS: [usize; 4] = [2, 32, 16, 2];
        let parts: Vec<&str> = text.split('-').collect();
        let hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let zero = |part: &str| part.bytes().all(|b| b == b'0');
        match parts[..] {
            ["ff", ..] => Err(NotATraceParent),
            [version, trace, span, flags, ..]
                if [version, trace, span, flags].map(str::len) == LENGTHS
                    && [version, trace, span, flags].into_iter().all(hex)
                    && !zero(trace)
                    && !zero(span)
                    && (version != "00" || parts.len() == LENGTHS.len()) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(NotATraceParent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_as_the_specification_says_or_ignored() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let accepted = |text: &str| text.parse::<TraceParent>().is_ok();
        assert!(accepted(&format!("00-{TRACE}-00f067aa0ba902b7-01")));
        assert!(accepted(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes-later")));
        for wrong in [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-00f067aa0ba902b7"),
            format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
        ] {
            assert!(!accepted(&wrong), "{wrong}");
        }
    }
}
