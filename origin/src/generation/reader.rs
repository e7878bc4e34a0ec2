//! The reader of one connection: frames from its cursor on, in its dialect, heartbeats in silence. Each write carries all frames that
//! are ready.

use std::{io, mem, pin::Pin};

use bytes::Bytes;
use futures::stream;
use headwater_protocol::{Cursor, Problem};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    config::limits::Pace,
    dialect::{Dialect, Writer},
    stream::{Event, Read, ReaderGuard, Stream},
    telemetry::metrics::Counted,
};

/// The most bytes of one write: large, so that a replay takes few writes; bounded, so that a slow reader takes little memory.
const WRITE_BYTES: usize = 64 * 1024;
/// The same where a frame of one token becomes four times as long, and more where its model has a long name.
const FOREIGN_BYTES: usize = WRITE_BYTES / 4;

/// A reader of one stream.
pub struct Reader {
    guard: ReaderGuard,
    /// Counts this reader in the metrics.
    _counted: Counted,
    dialect: Dialect,
    writer: Box<dyn Writer>,
    pace: Pace,
    /// The index of the next event to write.
    next: u64,
    /// The response has been opened.
    opened: bool,
    last_tokens: Option<Instant>,
    silent_since: Instant,
    /// Fires at the next heartbeat or before. It is set anew only where it has fired: tokens put heartbeats off all the time.
    timer: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// Breaks the response off where the stream runs at another origin: there it can be resumed.
    draining: CancellationToken,
}

/// The error that breaks a response off.
#[derive(Debug, thiserror::Error)]
#[error("the stream failed, or goes on elsewhere")]
struct BrokenOff;

impl Reader {
    pub(crate) fn new(
        guard: ReaderGuard,
        next: u64,
        dialect: Dialect,
        pace: Pace,
        counted: Counted,
        draining: CancellationToken,
    ) -> Self {
        let cursor = Cursor { id: guard.stream().id().clone(), next };
        let writer = dialect.writer(&cursor, guard.stream().opening());
        let silent_since = Instant::now();
        Self {
            guard,
            _counted: counted,
            dialect,
            writer,
            pace,
            next,
            opened: false,
            last_tokens: None,
            silent_since,
            timer: None,
            ended: false,
            draining,
        }
    }

    /// The stream that is read.
    pub fn stream(&self) -> &Stream {
        self.guard.stream()
    }

    /// How the response is written.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The response's body: each item is one write. It ends behind the terminal event, or with an error where
    /// it must not look complete.
    pub fn into_body(self) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold(self, |mut reader| async move { Some((reader.write().await?, reader)) })
    }

    /// The next write; waits for it.
    async fn write(&mut self) -> Option<io::Result<Bytes>> {
        let stream = self.guard.stream().clone();
        let most = if self.dialect.is_foreign() { FOREIGN_BYTES } else { WRITE_BYTES };
        while !self.ended {
            let grown = stream.buffer.grown();
            let now = Instant::now();
            let due = self.last_tokens.map_or(now, |at| at + self.pace.write_interval);
            // One value can only be right once the end is known.
            let waits = self.dialect.is_whole() && !stream.buffer.has_ended();
            let read = if waits { Read::Pending } else { stream.buffer.read(self.next, most, now < due) };
            match read {
                Read::Frames { bytes, next, terminal } => {
                    self.next = next;
                    // Those who aren't told of a failure are broken off, behind what came before it.
                    let failed = terminal && stream.buffer.terminal().is_some_and(|terminal| terminal.failed.is_some());
                    self.ended = terminal && !(failed && self.dialect.breaks_off());
                    let bytes = self.written(bytes);
                    if !bytes.is_empty() {
                        (self.last_tokens, self.silent_since) = (Some(now), now);
                        return Some(Ok(bytes));
                    }
                }
                // More of them, the terminal event above all, may come before.
                Read::Held => drop(timeout_at(due, grown).await),
                Read::Pending => {
                    if !self.opened {
                        let opening = self.written(Bytes::new());
                        if !opening.is_empty() {
                            self.silent_since = now;
                            return Some(Ok(opening));
                        }
                    }
                    let heartbeat = self.pace.heartbeat.zip(self.dialect.heartbeat());
                    let beat = heartbeat.map(|(after, _)| self.silent_since + after);
                    if let Some((_, heartbeat)) = heartbeat.filter(|(after, _)| self.silent_since + *after <= now) {
                        self.silent_since = now;
                        return Some(Ok(Bytes::from_static(heartbeat)));
                    }
                    let news = wait(&mut self.timer, beat, grown);
                    tokio::select! {
                        () = news => {}
                        () = self.draining.cancelled(), if stream.runs_elsewhere() => return Some(self.drained(&stream).await),
                    }
                }
                // The stream has failed, and its reader isn't told; or the cursor is past the last event.
                Read::Ended => return Some(self.broken_off().await),
            }
        }
        None
    }

    /// The end of a response whose stream goes on elsewhere. Whoever has no cursor to go on with is told.
    async fn drained(&mut self, stream: &Stream) -> io::Result<Bytes> {
        if !self.dialect.is_foreign() || self.dialect.breaks_off() {
            return self.broken_off().await;
        }
        self.ended = true;
        Ok(self.written(stream.entry(&[Event::Failed(Problem::interrupted())]).frames))
    }

    /// The error that ends the body, so that it looks cut.
    async fn broken_off(&mut self) -> io::Result<Bytes> {
        self.ended = true;
        // Once, so that the server may flush the last chunk: the error drops what it still holds.
        tokio::task::yield_now().await;
        Err(io::Error::other(BrokenOff))
    }

    /// These frames in the reader's dialect, behind what opens the response.
    fn written(&mut self, frames: Bytes) -> Bytes {
        let opening = if mem::replace(&mut self.opened, true) { Bytes::new() } else { self.writer.open() };
        let written = if frames.is_empty() { frames } else { self.writer.write(frames) };
        match (opening.is_empty(), written.is_empty()) {
            (true, _) => written,
            (_, true) => opening,
            (false, false) => [opening, written].concat().into(),
        }
    }
}

/// Waits for `news`, at the latest until `at`, or until the timer fires that was set before.
async fn wait(timer: &mut Option<Pin<Box<Sleep>>>, at: Option<Instant>, news: impl Future<Output = ()>) {
    let Some(at) = at else { return news.await };
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.is_elapsed() || timer.deadline() > at {
        timer.as_mut().reset(at);
    }
    tokio::select! {
        biased;
        () = news => {}
        () = timer => {}
    }
}
