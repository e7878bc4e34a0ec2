//! Where streams are kept: the trait that every journal implements.

pub mod memory;
mod redis;
pub mod shared;

use std::sync::Arc;

use futures::future::BoxFuture;
use headwater_protocol::{IdempotencyKey, StreamId};

pub use memory::MemoryJournal;
pub use shared::RedisJournal;

use crate::stream::{Event, Stream};

/// Keeps streams: one writer each, any number of readers.
///
/// A stream may have more readers than the journal knows of: it hands out the [`Stream`], which counts them.
pub trait Journal: Send + Sync + 'static {
    /// Opens a new stream, or finds the one that a start with the same key has opened.
    ///
    /// # Errors
    /// The journal can't be reached; the same for all its methods.
    fn open(&self, id: StreamId, idempotency: Option<Idempotency>) -> BoxFuture<'_, Result<Opened, JournalError>>;

    /// What a start with this key has opened; `None` if there was none. Opens nothing.
    fn lookup<'a>(&'a self, idempotency: &'a Idempotency) -> BoxFuture<'a, Result<Option<Opened>, JournalError>>;

    /// The stream; `None` where it is unknown or no longer kept.
    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Stream>>, JournalError>>;

    /// Forgets the stream and frees its key: its start was answered with a problem.
    fn discard<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(), JournalError>>;

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
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>>;
}

/// The result of [`Journal::open`].
pub enum Opened {
    /// A new stream.
    New(Arc<Stream>, Box<dyn Writer>),
    /// The stream that an earlier start with this key has opened.
    Existing(Arc<Stream>),
    /// The key belongs to another start.
    KeyReused,
    /// A start with this key has opened a stream that is no longer kept.
    Expired,
}

/// An idempotency key and what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: IdempotencyKey,
    /// A digest of what was asked.
    pub fingerprint: [u8; 32],
}

/// The journal can't be reached, or doesn't take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
