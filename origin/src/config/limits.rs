//! Limits of a stream's life.

use std::time::Duration;

/// Times and sizes of a stream's life.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long a start waits for its first event before the response begins without.
    pub start_window: Duration,
    /// The longest time from one token to the next.
    pub idle_timeout: Duration,
    /// The longest time of a whole answer, without the wait in the queue; beyond it the answer ends with finish `length`.
    pub total_timeout: Option<Duration>,
    /// How long a generation goes on without a reader, once a framed one has attached.
    pub linger: Duration,
    /// The bytes of one stream's frames; beyond it the answer ends with finish `length`.
    pub stream_bytes: usize,
    /// The most generations at once. A model may allow fewer.
    pub generations: usize,
    /// The most generations that wait for a slot.
    pub queue: usize,
    /// When readers write.
    pub pace: Pace,
}

/// When readers write.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two writes of tokens.
    pub write_interval: Duration,
    /// The silence after which a comment is sent, where any is.
    pub heartbeat: Option<Duration>,
}
