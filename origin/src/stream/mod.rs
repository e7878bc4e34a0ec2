//! Streams: what is known of one in this process. Data only: no tasks, no I/O.
//!
//! # Layout
//! - [`end`]: every way a stream ends.
//! - [`event`]: chunks, then one terminal event.
//! - [`frame`]: events as bytes.
//! - [`buffer`]: one stream's frames in memory, and the wait for more.
//! - `readers`: who reads the stream here, and requests for its early end.

pub mod buffer;
pub mod end;
pub mod event;
pub mod frame;
mod readers;

use std::{sync::Arc, time::Duration};

use headwater_protocol::{Problem, StreamId};
use tokio::time::Instant;

pub use buffer::{Append, Buffer, Entry, Read};
pub use end::{Cancel, Finish, Terminal};
pub use event::{Done, Event, Timing, Usage};
pub use frame::Framing;
pub(crate) use readers::Readers;

/// The longest time from an attempt to append an entry until the journal's answer.
pub(crate) const MAX_APPEND: Duration = Duration::from_secs(1);

/// A stream in this process: its events so far, and who reads them here.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    opened: Instant,
    /// Another process writes it, or has written it.
    elsewhere: bool,
    /// Its events.
    pub buffer: Buffer,
    pub(crate) readers: Readers,
}

/// One reader of a stream: counted from here to drop.
#[derive(Debug)]
pub struct ReaderGuard(Arc<Stream>);

impl Stream {
    /// A stream without events, opened now.
    pub fn new(id: StreamId) -> Self {
        Self { id, opened: Instant::now(), elsewhere: false, buffer: Buffer::default(), readers: Readers::default() }
    }

    /// A stream that another process has opened.
    pub fn elsewhere(id: StreamId) -> Self {
        Self { elsewhere: true, ..Self::new(id) }
    }

    /// The stream's id.
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    /// The time since its opening.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// These events as the next entry, none of them behind a terminal event.
    pub fn entry(&self, events: &[Event]) -> Entry {
        let first = self.buffer.len();
        let mut frames = String::new();
        let mut terminal = None;
        for (index, event) in (first..).zip(events) {
            frame::frame(&mut frames, &self.id, index, event);
            if event.is_terminal() {
                let failed = if let Event::Failed(problem) = event { Some(problem.clone()) } else { None };
                terminal = Some(Terminal { after: self.age(), failed });
                break;
            }
        }
        Entry { first, frames: frames.into(), terminal }
    }

    /// Ends the stream for the readers of this process alone: the journal can't be asked what it holds of it.
    pub fn fail_locally(&self) {
        // Where the buffer has grown meanwhile, it has ended, or its writer ends it.
        let _ = self.buffer.append(&self.entry(&[Event::Failed(Problem::journal())]));
    }

    /// Answers a start with the stream, at the end of its start window.
    ///
    /// # Errors
    /// The failure in place of a first token. It came within the window, and no start was answered with the stream.
    pub fn answer(&self, window: Duration) -> Result<(), Problem> {
        // The process that writes the stream dates its end before the journal keeps it. Its own start may have been
        // answered in between.
        let window = if self.elsewhere { window.saturating_sub(MAX_APPEND) } else { window };
        self.buffer.answer(window)
    }

    /// One more reader. `may_return`: after a cut it can resume, so the generation waits for it; `resumed`: it follows
    /// a stream that it didn't start.
    pub fn attach(self: &Arc<Self>, may_return: bool, resumed: bool) -> ReaderGuard {
        self.readers.attach(may_return, resumed);
        ReaderGuard(self.clone())
    }
}

impl ReaderGuard {
    /// The stream that is read.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.0
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.0.readers.leave();
    }
}
