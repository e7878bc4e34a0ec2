//! Streams, as one process holds them. Data only: no tasks, no I/O.
//!
//! # Layout
//! - [`end`]: every way a stream ends.
//! - [`event`]: chunks and thoughts, then one terminal event.
//! - [`opening`]: what is known from the beginning on.
//! - [`frame`]: events as bytes.
//! - [`buffer`]: one stream's frames in memory, and the wait for more.
//! - `readers`: who reads the stream here, and requests for its early end.

pub mod buffer;
pub mod end;
pub mod event;
pub mod frame;
pub mod opening;
mod readers;

use std::{sync::Arc, time::Duration};

use headwater_protocol::{Problem, StreamId};
use tokio::time::Instant;

pub use buffer::{Append, Buffer, Entry, Read};
pub use end::{Cancel, Finish, Terminal};
pub use event::{Done, Event, Timing, Usage};
pub use opening::Opening;
pub(crate) use readers::Readers;

/// A stream in this process: its events so far, and who reads them here.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    opening: Opening,
    opened: Instant,
    /// Whether another process writes it, or has written it.
    is_elsewhere: bool,
    /// Its events.
    pub buffer: Buffer,
    pub(crate) readers: Readers,
}

/// One reader of a stream: counted from here to drop.
#[derive(Debug)]
pub struct ReaderGuard {
    stream: Arc<Stream>,
    /// Its start has a key and no answer yet: whoever leaves now repeats it.
    will_repeat: bool,
}

impl Stream {
    /// A stream without events.
    pub fn new(id: StreamId, opening: Opening) -> Self {
        Self::with(id, opening, Buffer::default())
    }

    /// A stream with this buffer.
    pub fn with(id: StreamId, opening: Opening, buffer: Buffer) -> Self {
        Self { id, opening, opened: Instant::now(), is_elsewhere: false, buffer, readers: Readers::default() }
    }

    /// A stream that another process has opened.
    pub fn elsewhere(id: StreamId, opening: Opening) -> Self {
        Self { is_elsewhere: true, ..Self::new(id, opening) }
    }

    /// The stream's id.
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    /// What is known of it from its opening on.
    pub fn opening(&self) -> &Opening {
        &self.opening
    }

    /// Whether this caller may read and stop it.
    pub fn is_open_to(&self, caller: Option<&str>) -> bool {
        self.opening.caller.is_none() || self.opening.caller.as_deref() == caller
    }

    /// Whether another process writes it, or has written it.
    pub fn is_elsewhere(&self) -> bool {
        self.is_elsewhere
    }

    /// Whether it still runs, in another process.
    pub fn runs_elsewhere(&self) -> bool {
        self.is_elsewhere && !self.buffer.has_ended()
    }

    /// The time since its opening.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// These events as the next entry, none of them behind a terminal event. Its writer calls this, and then appends it:
    /// from a failure in place of the first token on, starts wait for the entry.
    pub fn next_entry(&self, events: &[Event]) -> Entry {
        let mut entry = self.entry(events);
        if let Some(Terminal { failed: Some(problem), refused, .. }) = &mut entry.terminal
            && entry.first == 0
            && events.first().is_some_and(Event::is_terminal)
        {
            *refused = problem.can_answer() && self.buffer.refuse();
        }
        entry
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
                terminal = Some(Terminal { after: self.age(), failed, refused: false });
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

    /// One more reader. `may_return`: after a cut it can resume, so the generation waits for it; `resumed`: it follows
    /// a stream that it didn't start.
    pub fn attach(self: &Arc<Self>, may_return: bool, resumed: bool) -> ReaderGuard {
        self.readers.attach(may_return, resumed);
        ReaderGuard { stream: self.clone(), will_repeat: false }
    }

    /// One more reader, who starts it. Until [`ReaderGuard::answered`] one whose start has a key is expected to repeat it, as
    /// an edge does whose connection broke.
    pub fn attach_start(self: &Arc<Self>, may_return: bool, has_key: bool) -> ReaderGuard {
        let mut guard = self.attach(may_return, false);
        guard.will_repeat = has_key;
        guard
    }
}

impl ReaderGuard {
    /// The stream that is read.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// The start has its answer.
    pub fn answered(&mut self) {
        self.will_repeat = false;
    }
}

impl Drop for ReaderGuard {
    fn drop(&mut self) {
        self.stream.readers.leave(self.will_repeat);
    }
}
