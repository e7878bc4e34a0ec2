//! Counts the readers of a stream, and wakes its generation when the last one has left or an early end is requested.

use std::time::Duration;

use tokio::{
    sync::watch::{Receiver, Sender},
    time::timeout,
};

use super::Cancel;

/// The readers of one stream in this process, and the request for its early end.
#[derive(Debug, Default)]
pub(crate) struct Readers(Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// Attached readers.
    now: usize,
    /// Whether a reader has ever attached that may return after a cut: without one there is no linger.
    may_return: bool,
    counts: Counts,
    /// The first request for an early end.
    cancel: Option<Cancel>,
}

/// Readers since the stream was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All of them.
    pub(crate) attached: u64,
    /// Those that followed the stream instead of starting it.
    pub(crate) resumed: u64,
}

impl Readers {
    /// One more reader. [`super::ReaderGuard`] alone calls this, and [`Self::leave`] when it is dropped.
    pub(super) fn attach(&self, may_return: bool, resumed: bool) {
        self.0.send_modify(|state| {
            state.now += 1;
            state.may_return |= may_return;
            state.counts.attached += 1;
            state.counts.resumed += u64::from(resumed);
        });
    }

    /// One fewer. `may_return`: its start will be repeated.
    pub(super) fn leave(&self, may_return: bool) {
        self.0.send_modify(|state| {
            state.now -= 1;
            state.may_return |= may_return;
        });
    }

    /// Requests an early end. Only the first request counts.
    pub(crate) fn cancel(&self, cancel: Cancel) {
        self.0.send_modify(|state| {
            state.cancel.get_or_insert(cancel);
        });
    }

    /// Resolves when an early end was requested, or when nobody has read for the linger.
    pub(crate) async fn cancelled(&self, linger: Duration) -> Cancel {
        let mut requests = self.0.subscribe();
        tokio::select! {
            // `self` keeps the sender, so the wait can't fail.
            state = requests.wait_for(|state| state.cancel.is_some()) => {
                state.ok().and_then(|state| state.cancel).unwrap_or(Cancel::Interrupted)
            }
            () = abandoned(self.0.subscribe(), linger) => Cancel::Abandoned,
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.0.borrow().counts
    }
}

async fn abandoned(mut readers: Receiver<State>, linger: Duration) {
    loop {
        let Ok(may_return) = readers.wait_for(|state| state.now == 0).await.map(|state| state.may_return) else {
            return;
        };
        let linger = if may_return { linger } else { Duration::ZERO };
        if timeout(linger, readers.wait_for(|state| state.now > 0)).await.is_err() {
            return;
        }
    }
}
