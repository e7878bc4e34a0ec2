//! What one connection gets of a stream: frames from its place on, comments in silence, and writes that carry
//! all that is ready.

use std::{io, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::time::{Instant, timeout_at};

use super::{Cursor, Log, audience::Presence, log::Read};
use crate::{metrics::Counted, wire};

/// The most that one write carries, bytes: a replay in few writes, a slow reader with bounded memory.
const WRITE_BYTES: usize = 64 * 1024;

/// How a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// An opening event, ids, comments, and a terminal event.
    Framed,
    /// Only data; a failure breaks the connection off, so that it never looks complete.
    Bare,
}

/// When a reader writes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The least time between two writes of tokens.
    pub write_interval: Duration,
    /// The silence after which a comment is sent.
    pub heartbeat: Duration,
}

/// A reader of one stream.
pub struct Reader {
    /// Counts this reader in the stream's audience.
    presence: Presence,
    /// Counts it in the figures.
    _counted: Counted,
    framing: Framing,
    pace: Pace,
    /// The next event.
    next: u64,
    /// The opening event, until it is written.
    opening: Option<String>,
    last_tokens: Option<Instant>,
    silent_since: Instant,
    ended: bool,
}

/// The error that breaks a bare response off.
#[derive(Debug, thiserror::Error)]
#[error("the stream failed")]
struct BrokenOff;

impl Reader {
    pub(crate) fn new(presence: Presence, next: u64, framing: Framing, pace: Pace, counted: Counted) -> Self {
        let cursor = Cursor { id: presence.log().id().clone(), next };
        let opening = (framing == Framing::Framed).then(|| wire::opening(&cursor));
        let silent_since = Instant::now();
        Self {
            presence,
            _counted: counted,
            framing,
            pace,
            next,
            opening,
            last_tokens: None,
            silent_since,
            ended: false,
        }
    }

    /// The log that is read.
    pub fn log(&self) -> &Log {
        self.presence.log()
    }

    /// How the response is framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// The response's body: each item is one write. It ends behind the terminal event, or with an error where
    /// it must not look complete.
    pub fn into_body(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, |mut reader| async move { Some((reader.write().await?, reader)) })
    }

    /// The next write; waits for it.
    async fn write(&mut self) -> Option<io::Result<Bytes>> {
        let log = self.presence.log().clone();
        while !self.ended {
            let grown = log.grown();
            let now = Instant::now();
            let due = self.last_tokens.map_or(now, |at| at + self.pace.write_interval);
            match log.read(self.next, WRITE_BYTES, now < due) {
                Read::Frames { bytes, next, terminal } => {
                    self.next = next;
                    (self.last_tokens, self.silent_since) = (Some(now), now);
                    // A bare stream tells of a failure by breaking off, behind its last chunk.
                    let failed = terminal && log.ending().is_some_and(|ending| ending.failed.is_some());
                    self.ended = terminal && !(failed && self.framing == Framing::Bare);
                    let bytes = self.framed(bytes);
                    if !bytes.is_empty() {
                        return Some(Ok(bytes));
                    }
                }
                Read::Pending => {
                    if let Some(opening) = self.opening.take() {
                        self.silent_since = now;
                        return Some(Ok(opening.into()));
                    }
                    let beat = (self.framing == Framing::Framed).then(|| self.silent_since + self.pace.heartbeat);
                    if beat.is_some_and(|at| at <= now) {
                        self.silent_since = now;
                        return Some(Ok(Bytes::from_static(wire::HEARTBEAT.as_bytes())));
                    }
                    match if now < due { Some(due) } else { beat } {
                        Some(at) => drop(timeout_at(at, grown).await),
                        None => grown.await,
                    }
                }
                // Behind a failure that a bare stream has to tell, or a cursor that was ahead and past the end.
                Read::Ended => {
                    drop(grown);
                    self.ended = true;
                    // Once, so that the server may flush the last chunk: the error drops what it still holds.
                    tokio::task::yield_now().await;
                    return Some(Err(io::Error::other(BrokenOff)));
                }
            }
        }
        None
    }

    fn framed(&mut self, bytes: Bytes) -> Bytes {
        match (self.framing, self.opening.take()) {
            (Framing::Framed, None) => bytes,
            (Framing::Framed, Some(opening)) => [opening.as_bytes(), &bytes].concat().into(),
            (Framing::Bare, _) => wire::bare(&bytes).into(),
        }
    }
}
