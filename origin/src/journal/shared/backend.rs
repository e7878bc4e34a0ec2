//! What a shared journal needs of the server that keeps it.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use headwater_protocol::{IdempotencyKey, StreamId};

use super::super::{Idempotency, JournalError};
use crate::stream::{Entry, Opening};

/// A server that several origins use: it keeps each stream's entries, a lease on each stream that is written,
/// idempotency keys, and an inbox for each instance.
///
/// An instance is a process, under a random name: an origin that was restarted under its name is another instance.
///
/// # Errors
/// Every method returns [`JournalError::Unavailable`] within a few seconds where the server can't be reached or refuses,
/// and [`JournalError::Unreadable`] where no origin has written what it holds.
pub trait Backend: Send + Sync + 'static {
    /// What [`Backend::subscribe`] returns.
    type Subscription: Subscription;

    /// The name of this process.
    fn instance(&self) -> &str;

    /// Asks for an answer, and for nothing else.
    fn ping(&self) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Opens a stream, and takes its lease and its key. Where the key was taken before it opens nothing. Returns whether
    /// it has opened the stream.
    fn open(
        &self,
        id: &StreamId,
        opening: &Opening,
        idempotency: Option<&Idempotency>,
    ) -> impl Future<Output = Result<bool, JournalError>> + Send;

    /// The start that has taken the key.
    fn claim(&self, key: &IdempotencyKey) -> impl Future<Output = Result<Option<Claim>, JournalError>> + Send;

    /// Appends an entry, unless another one has its index. Whoever appends first has decided, whatever its lease.
    fn append(&self, id: &StreamId, entry: &Entry) -> impl Future<Output = Result<Appended, JournalError>> + Send;

    /// The stream has ended: drops its lease, and keeps its entries and its key for the retention.
    fn finish(
        &self,
        id: &StreamId,
        key: Option<&IdempotencyKey>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Whether there is such a stream, who holds its lease, and how long it is kept.
    fn look(&self, id: &StreamId) -> impl Future<Output = Result<Option<Stored>, JournalError>> + Send;

    /// The stream's entries, in order, from event `first` on. Takes as long as the bytes take, and holds up no other
    /// command.
    fn load(&self, id: &StreamId, first: u64) -> impl Future<Output = Result<Vec<Entry>, JournalError>> + Send;

    /// Frees the key, where it is still this stream's, and drops the lease. The entries stay for a few seconds, for
    /// those who are reading them.
    fn discard(
        &self,
        id: &StreamId,
        key: Option<&IdempotencyKey>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Puts a message about the stream into an instance's inbox.
    fn send(
        &self,
        instance: &str,
        message: Message,
        id: &StreamId,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Renews the leases of streams that this instance writes, and their keys. Returns for each whether another instance
    /// reads it.
    fn renew(
        &self,
        written: &[(StreamId, Option<IdempotencyKey>)],
    ) -> impl Future<Output = Result<Vec<bool>, JournalError>> + Send;

    /// Marks streams as read by this instance. Returns for each whether it is there, and an instance holds its lease.
    fn mark_read(&self, followed: &[StreamId]) -> impl Future<Output = Result<Vec<bool>, JournalError>> + Send;

    /// Connects once more, to wait for entries and messages: a wait on the other connection would hold up everyone.
    fn subscribe(&self) -> impl Future<Output = Result<Self::Subscription, JournalError>> + Send;
}

/// The entries of followed streams and the messages to this instance, as they come.
pub trait Subscription: Send {
    /// What is new, in order: messages, and of each followed stream the entries from the event with this index on.
    /// Returns nothing after a second without news, so that its caller knows that the server is there.
    ///
    /// Messages that came while there was no subscription are there, and some may come twice.
    ///
    /// # Errors
    /// The connection is lost; subscribe again.
    fn next(
        &mut self,
        followed: Vec<(StreamId, u64)>,
    ) -> impl Future<Output = Result<Vec<Update>, JournalError>> + Send;
}

/// One thing that is new.
#[derive(Debug)]
pub enum Update {
    /// A followed stream has one more entry.
    Entry(StreamId, Entry),
    /// A followed stream has an entry that no origin has written.
    Unreadable(StreamId),
    /// A message about a stream.
    Message(Message, StreamId),
}

/// What one instance sends to another about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender reads it.
    Reader,
    /// Stop it.
    Stop,
    /// To itself: it follows one more stream, so a wait that began without that stream must end.
    Wake,
}

/// The outcome of [`Backend::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The server holds the entry.
    Done,
    /// Another entry has this index.
    Conflict,
    /// There is no such stream.
    Missing,
}

/// The start that has taken a key.
#[derive(Debug)]
pub struct Claim {
    /// [`Idempotency::fingerprint`] of that start.
    pub fingerprint: Bytes,
    /// The stream that it opened.
    pub id: StreamId,
}

/// A stream on the server, without its entries.
#[derive(Debug)]
pub struct Stored {
    /// What is known of it from its opening on.
    pub opening: Opening,
    /// The instance that holds its lease.
    pub owner: Option<String>,
    /// How long it is still kept, unless that is renewed.
    pub expires: Duration,
}
