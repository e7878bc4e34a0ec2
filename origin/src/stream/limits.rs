//! Per-stream limits, and admission: a running slot or a place in the queue.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Times and sizes of a stream's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a start waits for its first event before the response begins without.
    pub gate: Duration,
    /// From one token to the next.
    pub idle_timeout: Duration,
    /// For a whole answer, queueing apart; beyond it the answer ends with finish `length`.
    pub total_timeout: Option<Duration>,
    /// How long a generation goes on without a reader, once a framed one has attached.
    pub linger: Duration,
    /// The bytes of one stream's frames; beyond it the answer ends with finish `length`.
    pub stream_bytes: usize,
    /// Generations at once; the model's own limit counts too.
    pub generations: usize,
    /// Generations that may wait for a place.
    pub queue: usize,
    /// When readers write.
    pub pace: Pace,
}

/// When readers write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two writes of tokens.
    pub write_interval: Duration,
    /// The silence after which a comment is sent.
    pub heartbeat: Duration,
}

/// A place among the running generations, or in the queue for one.
pub(crate) enum Slot {
    Held(OwnedSemaphorePermit),
    Queued { slots: Arc<Semaphore>, place: OwnedSemaphorePermit },
}

impl Slot {
    /// Waits for the place; it is free again when the permit is dropped. `None` only where places are no
    /// longer given out, which this hub never does.
    pub(crate) async fn acquire(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Held(permit) => Some(permit),
            Self::Queued { slots, place } => {
                let permit = slots.acquire_owned().await.ok();
                drop(place);
                permit
            }
        }
    }
}
