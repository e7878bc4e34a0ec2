//! Where streams are kept: the trait that every journal implements.

use std::{iter, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use sha2::{Digest, Sha256};

use super::{
    Event, Log, StreamId,
    audience::{EarlyEnd, ask},
    redis::address::{Address, NoAddress},
};
use crate::{problem::Problem, prompt::Variables};

/// Keeps streams: one writer each, any number of readers.
///
/// A log may have more readers than the journal knows of: it hands out the log, the log does the rest.
pub trait Journal: Send + Sync + 'static {
    /// Opens a new stream, or finds the one that the same claim has opened.
    ///
    /// # Errors
    /// The journal can't be reached; the same for all its methods.
    fn open(&self, id: StreamId, claim: Option<Claim>) -> BoxFuture<'_, Result<Opened, JournalError>>;

    /// The stream's log; `None` where it is unknown or no longer kept.
    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Log>>, JournalError>>;

    /// Forgets the stream and frees its key: its start was answered with a problem.
    fn discard<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(), JournalError>>;

    /// Asks the stream's writer to end it, wherever that is. Whether and when it does is seen in the log.
    fn stop<'a>(&'a self, log: &'a Arc<Log>) -> BoxFuture<'a, Result<(), JournalError>> {
        ask(log, EarlyEnd::Stopped);
        async { Ok(()) }.boxed()
    }

    /// What has to be done from time to time, for ever; polled as long as the journal is used.
    fn run(&self) -> BoxFuture<'_, ()>;

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
    New(Arc<Log>, Box<dyn Writer>),
    /// The stream that this claim has opened before.
    Existing(Arc<Log>),
    /// The claim's key belongs to another start.
    KeyReused,
    /// The claim has opened a stream that is no longer kept.
    Expired,
}

/// An idempotency key and what it was sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The key.
    pub key: IdempotencyKey,
    /// A digest of the prompt and its variables.
    pub fingerprint: [u8; 32],
}

/// 16 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// The journal can't be reached, or doesn't take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("the journal: {0}")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where a journal keeps its streams.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this process.
    Memory,
    /// In Redis, for several origins.
    Redis(Address),
}

impl Claim {
    /// The claim of `key` for the prompt named `name` with these variables.
    pub fn new(key: IdempotencyKey, name: &str, variables: &Variables) -> Self {
        let mut digest = Sha256::new();
        // Each with its length, so that no two lists of texts run together alike.
        for text in iter::once(name).chain(variables.iter().flat_map(|(name, value)| [name.as_str(), value])) {
            digest.update(text.len().to_le_bytes());
            digest.update(text);
        }
        Self { key, fingerprint: digest.finalize().into() }
    }
}

impl IdempotencyKey {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Place {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if text == "memory" { Ok(Self::Memory) } else { text.parse().map(Self::Redis) }
    }
}

impl std::str::FromStr for IdempotencyKey {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if (16..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(Problem::bad_request("an idempotency key is 16 to 128 visible ASCII characters, such as a UUID"))
        }
    }
}

impl From<JournalError> for Problem {
    fn from(_: JournalError) -> Self {
        Self::journal()
    }
}
