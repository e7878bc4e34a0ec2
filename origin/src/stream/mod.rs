//! The life of a stream: a generation writes each event once into a journal, and every connection is a
//! reader of the journal. Resume, replay, a second tab and a retried request are all a reader with a cursor.
//!
//! # Layout
//! - [`id`]: a stream's id, a cursor into it.
//! - [`event`]: chunks, then one terminal event.
//! - [`log`]: one stream's frames in memory, and waiting for more.
//! - [`journal`]: where streams are kept: the trait.
//! - [`memory`]: the journal in this process's memory.
//! - [`redis`]: the journal in Redis, for several origins.
//! - [`hub`]: start, attach, stop, linger, drain.
//! - [`generation`]: the task that fills a stream.
//! - [`reader`]: what one connection gets of a stream.
//! - [`limits`]: its limits, and a place among the running.
//! - `audience`: who reads a stream, and when nobody does.

mod audience;
pub mod event;
pub mod generation;
pub mod hub;
pub mod id;
pub mod journal;
pub mod limits;
pub mod log;
pub mod memory;
pub mod reader;
pub mod redis;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use event::{Done, Event, Finish, Timing, Usage};
pub use hub::{Attached, Hub, Start};
pub use id::{Cursor, OriginName, StreamId};
pub use journal::{Idempotency, Journal, JournalError, Opened, Writer};
pub use limits::{Limits, Pace};
pub use log::Buffer;
pub use memory::MemoryJournal;
pub use reader::Reader;
pub use redis::RedisJournal;

pub(crate) use audience::{Cancel, Readers};

use crate::{problem::Problem, wire};
use log::{Ending, Entry};

/// A stream in this process: its events so far, and who reads them here.
#[derive(Debug)]
pub struct Stream {
    id: StreamId,
    opened: Instant,
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
        Self { id, opened: Instant::now(), buffer: Buffer::default(), readers: Readers::default() }
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
        let mut ending = None;
        for (index, event) in (first..).zip(events) {
            wire::frame(&mut frames, &self.id, index, event);
            if event.is_terminal() {
                let failed = if let Event::Failed(problem) = event { Some(problem.clone()) } else { None };
                ending = Some(Ending { after: self.age(), failed });
                break;
            }
        }
        Entry { first, frames: frames.into(), ending }
    }

    /// Bytes of the frames, with these events behind them.
    pub fn size_with(&self, events: &[Event]) -> usize {
        self.buffer.size() + self.entry(events).frames.len()
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
