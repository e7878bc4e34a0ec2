//! One record per stream, whatever its end: a line of the log, and metrics.

use std::{str::FromStr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::metrics::{Metrics, OfModel, Tokens};

/// The facts about one stream. Dropping it writes the record, so that no end goes without.
pub(crate) struct Record {
    id: String,
    asked: Asked,
    /// The model that answers, else the last one that was called.
    model: Option<String>,
    metrics: Arc<Metrics>,
    /// The model's histograms, once it answers, and when it was called.
    of_model: Option<(OfModel, Instant)>,
    started: Instant,
    first_token: Option<Duration>,
    last_token: Duration,
    chunks: u64,
    outcome: &'static str,
    tokens: Option<Tokens>,
    readers: u64,
    resumes: u64,
}

/// The part of a start that the record holds.
#[derive(Debug, Default)]
pub struct Asked {
    /// The prompt's name.
    pub prompt: String,
    /// The variables as JSON, only where they are to be logged.
    pub variables: Option<String>,
    /// The trace that the start belongs to.
    pub trace: Option<TraceParent>,
}

/// The outcome where none is recorded: the generation panicked or was dropped.
const NO_OUTCOME: &str = "internal";

/// The metrics' name of the model of a stream that none has answered.
const NO_MODEL: &str = "none";

/// The length of the parts that this origin knows: version, trace, span, flags, and the hyphens between them.
const TRACE_PARENT_BYTES: usize = 55;

/// The caller's span in a distributed trace: the header `traceparent`, W3C Trace Context section 3.2.
///
/// A later version may be longer. What is behind the known parts is dropped: the header comes from a browser, and can
/// be as long as a header may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(String);

/// The header isn't as the specification says, and is to be ignored.
#[derive(Debug, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceParent;

impl Record {
    /// The record of the stream `id`, which starts now.
    pub(crate) fn new(id: String, asked: Asked, metrics: Arc<Metrics>) -> Self {
        metrics.started();
        Self {
            id,
            asked,
            model: None,
            metrics,
            of_model: None,
            started: Instant::now(),
            first_token: None,
            last_token: Duration::ZERO,
            chunks: 0,
            outcome: NO_OUTCOME,
            tokens: None,
            readers: 0,
            resumes: 0,
        }
    }

    /// This model gave no first token, because of this problem.
    pub(crate) fn passed_over(&mut self, model: &str, problem: &'static str) {
        self.metrics.passed_over(model, problem);
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

    /// The stream ended: its finish, or the problem's name.
    pub(crate) fn ended(&mut self, outcome: &'static str, tokens: Option<Tokens>) {
        self.outcome = outcome;
        self.tokens = tokens;
    }

    /// Counts the readers of the stream, and those of them that followed it instead of starting it.
    pub(crate) fn read_by(&mut self, readers: u64, resumes: u64) {
        self.readers = readers;
        self.resumes = resumes;
    }

    /// The time to the first piece of text.
    pub(crate) fn first_token(&self) -> Option<Duration> {
        self.first_token
    }

    /// The time so far.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.metrics.ended(self.model.as_deref().unwrap_or(NO_MODEL), self.outcome, self.elapsed(), self.tokens);
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        tracing::info!(
            stream = self.id,
            prompt = self.asked.prompt,
            variables = self.asked.variables,
            model = self.model,
            outcome = self.outcome,
            chunks = self.chunks,
            input_tokens = self.tokens.map(|tokens| tokens.input),
            output_tokens = self.tokens.map(|tokens| tokens.output),
            first_token_ms = self.first_token.map(millis),
            total_ms = millis(self.elapsed()),
            readers = self.readers,
            resumes = self.resumes,
            traceparent = self.asked.trace.as_ref().map(|trace| &trace.0),
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
                Ok(Self(text[..TRACE_PARENT_BYTES].to_owned()))
            }
            _ => Err(NotATraceParent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_later_versions_traceparent_only_the_known_parts_are_kept() {
        let known = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for more in [String::new(), "-".to_owned(), "-what-comes-later".to_owned(), format!("-{}", "x".repeat(60_000))]
        {
            let trace: TraceParent = format!("{known}{more}").parse().expect("a traceparent");
            assert_eq!(trace.0, known);
        }
    }

    #[test]
    fn a_traceparent_is_as_the_specification_says_or_ignored() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let accepted = |text: &str| text.parse::<TraceParent>().is_ok();
        assert!(accepted(&format!("00-{TRACE}-00f067aa0ba902b7-01")));
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
