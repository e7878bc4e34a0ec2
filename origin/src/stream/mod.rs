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

pub use event::{Done, Event, Finish, Timing, Usage};
pub use hub::{Attached, Hub, Start};
pub use id::{Cursor, OriginName, StreamId};
pub use journal::{Claim, Journal, JournalError, Opened, Place, Writer};
pub use limits::Limits;
pub use log::Log;
pub use memory::MemoryJournal;
pub use reader::{Framing, Reader};
pub use redis::RedisJournal;
