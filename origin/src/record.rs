//! One record per stream, whatever its end: a line of the log.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    problem::Kind,
    stream::{Finish, Log, Usage},
};

/// What is known of a stream; written when it is dropped, so that no end goes without.
pub(crate) struct Record {
    log: Arc<Log>,
    prompt: String,
    /// The variables as JSON, only where they are to be logged.
    variables: Option<String>,
    model: String,
    started: Instant,
    first_token: Option<Duration>,
    chunks: u64,
    outcome: &'static str,
    usage: Option<Usage>,
}

impl Record {
    /// The record of a stream that starts now.
    pub(crate) fn new(log: Arc<Log>, prompt: String, variables: Option<String>, model: &str) -> Self {
        Self {
            log,
            prompt,
            variables,
            model: model.to_owned(),
            started: Instant::now(),
            first_token: None,
            chunks: 0,
            // What a generation ends as that doesn't come to its end.
            outcome: Kind::Internal.name(),
            usage: None,
        }
    }

    /// A piece of text came.
    pub(crate) fn token(&mut self) {
        self.chunks += 1;
        if self.first_token.is_none() {
            self.first_token = Some(self.elapsed());
        }
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

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the first token came.
    pub(crate) fn first_token(&self) -> Option<Duration> {
        self.first_token
    }
}

impl Drop for Record {
    fn drop(&mut self) {
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
            "stream ended"
        );
    }
}
