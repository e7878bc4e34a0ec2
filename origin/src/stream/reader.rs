//! What one connection gets of a stream: frames from its place on, comments in silence, and writes that carry
//! all that is ready.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, stream};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{Cursor, Log, generation::Audience, log::Read};
use crate::wire;

/// The most that one write carries, bytes: a replay in few writes, a slow reader with bounded memory.
const WRITE_BYTES: usize = 64 * 1024;

/// How a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Ids, comments, and a terminal event.
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
    log: Arc<Log>,
    framing: Framing,
    pace: Pace,
    /// Counts this reader among the stream's while it runs.
    _presence: Option<Presence>,
    /// The next event.
    next: u64,
    /// What the response begins with, until it is written.
    preamble: Option<String>,
    last_write: Option<Instant>,
    ended: bool,
}

/// A reader's part in the audience: from here to drop.
pub(crate) struct Presence(Arc<watch::Sender<Audience>>);

/// The error that breaks a bare response off.
#[derive(Debug, thiserror::Error)]
#[error("the stream failed")]
struct BrokenOff;

impl Reader {
    pub(crate) fn new(log: Arc<Log>, next: u64, framing: Framing, pace: Pace, presence: Option<Presence>) -> Self {
        let cursor = Cursor { id: log.id().clone(), next };
        let preamble = (framing == Framing::Framed).then(|| wire::preamble(&cursor));
        Self { log, framing, pace, _presence: presence, next, preamble, last_write: None, ended: false }
    }

    /// The log that is read.
    pub fn log(&self) -> &Log {
        &self.log
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
        while !self.ended {
            let grown = self.log.grown();
            let now = Instant::now();
            let due = self.last_write.map_or(now, |at| at + self.pace.write_interval);
            match self.log.read(self.next, WRITE_BYTES, now < due) {
                Read::Frames { bytes, next, terminal } => {
                    drop(grown);
                    self.next = next;
                    self.last_write = Some(now);
                    self.ended = terminal;
                    return self.frames(bytes);
                }
                Read::Pending => {
                    if let Some(preamble) = self.preamble.take() {
                        return Some(Ok(preamble.into()));
                    }
                    if now < due {
                        let _ = timeout_at(due, grown).await;
                    } else if timeout(self.pace.heartbeat, grown).await.is_err() && self.framing == Framing::Framed {
                        return Some(Ok(Bytes::from_static(wire::HEARTBEAT.as_bytes())));
                    }
                }
                // A bare failure told apart from its chunks, or a cursor that was ahead and past the end.
                Read::Ended => {
                    drop(grown);
                    // What is written is dropped with the connection, unless the server may flush it first.
                    tokio::task::yield_now().await;
                    return Some(self.broken_off());
                }
            }
        }
        None
    }

    fn frames(&mut self, bytes: Bytes) -> Option<io::Result<Bytes>> {
        match (self.framing, self.preamble.take()) {
            (Framing::Framed, None) => Some(Ok(bytes)),
            (Framing::Framed, Some(preamble)) => Some(Ok([preamble.as_bytes(), &bytes].concat().into())),
            (Framing::Bare, _) => match wire::bare(&bytes) {
                chunks if !chunks.is_empty() => {
                    // A failure that comes with chunks is told by the next write.
                    self.ended &= !self.failed();
                    Some(Ok(chunks.into()))
                }
                _ if self.failed() => Some(self.broken_off()),
                _ => None,
            },
        }
    }

    fn failed(&self) -> bool {
        self.log.ending().is_some_and(|ending| ending.failed.is_some())
    }

    fn broken_off(&mut self) -> io::Result<Bytes> {
        self.ended = true;
        Err(io::Error::other(BrokenOff))
    }
}

impl Presence {
    pub(crate) fn new(audience: Arc<watch::Sender<Audience>>, framing: Framing, resumed: bool) -> Self {
        audience.send_modify(|audience| {
            audience.readers += 1;
            audience.attached += 1;
            audience.framed |= framing == Framing::Framed;
            audience.resumed += u64::from(resumed);
        });
        Self(audience)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.send_modify(|audience| audience.readers -= 1);
    }
}
