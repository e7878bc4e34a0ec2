//! Where streams are kept: the trait that every journal implements.
//!
//! # Layout
//! - [`memory`]: in this process, for one origin.
//! - [`redis`]: what is asked of Redis, for several origins.
//! - [`shared`]: what several origins do with one journal, whatever the server.

pub mod memory;
pub mod redis;
pub mod shared;

use std::sync::Arc;

use futures::future::BoxFuture;
use headwater_protocol::{IdempotencyKey, StreamId};

pub use memory::MemoryJournal;
pub use redis::RedisJournal;

use crate::stream::{Event, Opening, Stream};

/// The memory of a stream or a key beside its frames, bytes: ids, maps, the buffer itself. It is counted, so that a flood
/// of empty streams is bounded too.
const OVERHEAD: usize = 512;

/// Keeps streams: one writer each, any number of readers.
///
/// A stream may have more readers than the journal knows of: it hands out the [`Stream`], which counts them.
pub trait Journal: Send + Sync + 'static {
    /// Opens a new stream, unless the key was taken before: [`Journal::lookup`] tells by whom.
    ///
    /// # Errors
    /// [`JournalError::Unavailable`]; the same for all its methods.
    fn open(
        &self,
        id: StreamId,
        opening: Opening,
        idempotency: Option<Idempotency>,
    ) -> BoxFuture<'_, Result<Opened, JournalError>>;

    /// What a start with this key has opened; `None` if there was none. Opens nothing.
    fn lookup<'a>(&'a self, idempotency: &'a Idempotency) -> BoxFuture<'a, Result<Option<Claimed>, JournalError>>;

    /// The stream; `None` where it is unknown or no longer kept.
    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Stream>>, JournalError>>;

    /// Drops the stream, and frees the key if it is still this stream's: a start with it was answered with a problem.
    fn discard<'a>(
        &'a self,
        id: &'a StreamId,
        key: Option<&'a IdempotencyKey>,
    ) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Asks the process that writes the stream to end it, where that is another one. The stream shows when it has.
    fn stop<'a>(&'a self, stream: &'a Arc<Stream>) -> BoxFuture<'a, Result<(), JournalError>>;

    /// What has to be done from time to time, for ever; polled as long as the journal is used.
    fn run(&self) -> BoxFuture<'_, ()>;

    /// Whether the last regular look at where it keeps its streams went well.
    fn is_healthy(&self) -> bool;

    /// The memory of this process that streams take now, bytes.
    fn bytes(&self) -> usize;
}

/// The one who appends to a stream. Dropped before a terminal event it ends the stream as failed, whatever
/// the reason: no stream stays open without a writer.
pub trait Writer: Send {
    /// Appends events in order; they reach readers once they are kept.
    ///
    /// # Errors
    /// The stream has ended, whatever the error.
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>>;
}

/// The result of [`Journal::open`].
pub enum Opened {
    /// A new stream.
    New(Arc<Stream>, Box<dyn Writer>),
    /// The key was taken before.
    Taken,
}

/// What a key was taken with.
pub enum Claimed {
    /// The same start, which has opened this stream.
    Stream(Arc<Stream>),
    /// The same start, whose stream is no longer kept.
    Expired,
    /// Another start.
    ByAnother,
}

/// An idempotency key and what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: IdempotencyKey,
    /// A digest of what was asked.
    pub fingerprint: [u8; 32],
}

/// Why a journal did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It can't be reached, refuses, or is full.
    #[error(transparent)]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// It has no time for a load now. It works, and running streams go on.
    #[error("too many streams are being loaded")]
    Busy,
    /// No origin of this version has written what it holds of the stream.
    #[error("what the journal holds of the stream can't be read")]
    Unreadable,
    /// It no longer holds the stream that is written.
    #[error("the journal has lost the stream")]
    Lost,
    /// Another origin has ended the stream that is written: it took this one for dead.
    #[error("another origin has ended the stream")]
    Fenced,
}
