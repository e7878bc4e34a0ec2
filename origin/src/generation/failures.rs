//! Failures of the journal: a problem for the reader, a log line and a metric for the operator.

use std::{sync::Arc, time::Duration};

use headwater_protocol::Problem;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{journal::JournalError, telemetry::metrics::Metrics};

/// The least time between two log lines: a journal that is away fails each request.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// How long one failure makes the origin unhealthy: without new starts no success would end that.
const FAILING_FOR: Duration = Duration::from_secs(30);

pub(super) struct JournalFailures {
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    logged: Option<Instant>,
    /// Failures since the last line of the log.
    unlogged: u64,
}

impl JournalFailures {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, state: Mutex::default() }
    }

    /// The problem that a reader gets. Counts the failure, and logs it unless another was logged just before.
    pub(super) fn problem(&self, operation: &'static str, error: &JournalError) -> Problem {
        self.metrics.journal_failed(operation);
        let now = Instant::now();
        let mut state = self.state.lock();
        // A stream that can't be read or is lost says nothing of other streams.
        if matches!(error, JournalError::Unavailable(_)) {
            state.last = Some(now);
        }
        if state.logged.is_none_or(|at| at + LOG_INTERVAL <= now) {
            tracing::error!(operation, %error, unlogged = state.unlogged, "the journal failed");
            (state.logged, state.unlogged) = (Some(now), 0);
        } else {
            state.unlogged += 1;
        }
        Problem::journal()
    }

    /// The journal has opened a stream, or looked a key up.
    pub(super) fn clear(&self) {
        self.state.lock().last = None;
    }

    /// Whether the journal was unavailable lately, and has answered no start since.
    pub(super) fn are_recent(&self) -> bool {
        self.state.lock().last.is_some_and(|at| at.elapsed() < FAILING_FOR)
    }
}
