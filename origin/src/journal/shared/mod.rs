//! A journal that several origins share: any of them serves and stops any stream.
//!
//! One origin owns a stream and appends to it. The index of each entry's first event is its id on the server: whoever
//! appends an entry whose index is taken learns that another was first. Other origins follow the stream.
//!
//! # Layout
//! - [`backend`]: what is needed of the server.
//! - `owner`: appends a stream's events, or learns that another origin has ended it.
//! - `follower`: reads what other origins append, and this origin's inbox.
//! - `lease`: renews leases, and ends streams whose owner is gone.
//! - `replays`: finished streams at hand, and the turns of those who load one.
//! - `registry`: the streams that are written or read here.

pub mod backend;
mod follower;
mod lease;
mod owner;
mod registry;
mod replays;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use headwater_protocol::{IdempotencyKey, Problem, StreamId};
use tokio::time::Instant;

use self::{
    backend::{Appended, Backend, Message},
    owner::Owner,
    registry::Registry,
    replays::{Replays, Turn},
};
use super::{Claimed, Idempotency, Journal, JournalError, Opened};
use crate::stream::{Append, Event, Opening, Stream};

/// How long an owner that has renewed nothing keeps its streams, and how long the server may be away before streams end.
pub const LEASE: Duration = Duration::from_secs(15);

/// Streams on a server that several origins use.
pub struct SharedJournal<B>(Arc<Inner<B>>);

struct Inner<B> {
    backend: B,
    registry: Registry,
    replays: Replays,
    lease: Duration,
    /// The lease task's last commands were answered.
    healthy: AtomicBool,
}

impl<B: Backend> SharedJournal<B> {
    /// A journal whose origins hold their streams by a `lease`, [`LEASE`] unless a test is in a hurry, and which keeps
    /// finished streams that were asked for at hand, `replay_bytes` of them at most.
    pub fn new(backend: B, lease: Duration, replay_bytes: usize) -> Self {
        let (registry, replays) = (Registry::default(), Replays::new(replay_bytes));
        Self(Arc::new(Inner { backend, registry, replays, lease, healthy: AtomicBool::new(true) }))
    }
}

impl<B: Backend> Journal for SharedJournal<B> {
    fn open(
        &self,
        id: StreamId,
        opening: Opening,
        idempotency: Option<Idempotency>,
    ) -> BoxFuture<'_, Result<Opened, JournalError>> {
        self.0.open(id, opening, idempotency).boxed()
    }

    fn lookup<'a>(&'a self, idempotency: &'a Idempotency) -> BoxFuture<'a, Result<Option<Claimed>, JournalError>> {
        self.0.lookup(idempotency).boxed()
    }

    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Stream>>, JournalError>> {
        self.0.find(id).boxed()
    }

    fn discard<'a>(
        &'a self,
        id: &'a StreamId,
        key: Option<&'a IdempotencyKey>,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        self.0.discard(id, key).boxed()
    }

    fn stop<'a>(&'a self, stream: &'a Arc<Stream>) -> BoxFuture<'a, Result<(), JournalError>> {
        self.0.stop(stream).boxed()
    }

    fn is_healthy(&self) -> bool {
        self.0.healthy.load(Ordering::Relaxed)
    }

    fn bytes(&self) -> usize {
        self.0.registry.bytes()
    }

    fn run(&self) -> BoxFuture<'_, ()> {
        async {
            tokio::join!(self.0.hold_leases(), self.0.follow(), self.0.free_keys());
        }
        .boxed()
    }
}

impl<B: Backend> Inner<B> {
    async fn open(
        self: &Arc<Self>,
        id: StreamId,
        opening: Opening,
        idempotency: Option<Idempotency>,
    ) -> Result<Opened, JournalError> {
        let key = idempotency.as_ref().map(|idempotency| idempotency.key.clone());
        if let Some(key) = &key {
            self.free(key).await?;
        }
        let stream = Arc::new(Stream::new(id, opening));
        // Registered before the server has it, so that a start with the same key finds it here as soon as it can. Where
        // the answer is lost, or nobody waits for it any more, dropping the owner discards the stream that there may be.
        let mut owner = Owner::opening(self.clone(), stream.clone(), key);
        if self.backend.open(stream.id(), stream.opening(), idempotency.as_ref()).await? {
            owner.opened();
            Ok(Opened::New(stream, Box::new(owner)))
        } else {
            owner.not_opened();
            Ok(Opened::Taken)
        }
    }

    async fn lookup(self: &Arc<Self>, idempotency: &Idempotency) -> Result<Option<Claimed>, JournalError> {
        self.free(&idempotency.key).await?;
        let Some(claim) = self.backend.claim(&idempotency.key).await? else { return Ok(None) };
        if *claim.fingerprint != idempotency.fingerprint[..] {
            return Ok(Some(Claimed::ByAnother));
        }
        Ok(Some(self.find(&claim.id).await?.map_or(Claimed::Expired, Claimed::Stream)))
    }

    /// Discards the streams that earlier starts with this key may have opened without learning of it.
    async fn free(&self, key: &IdempotencyKey) -> Result<(), JournalError> {
        for id in self.registry.unconfirmed(key) {
            self.backend.discard(&id, Some(key)).await?;
            self.registry.confirm(key, &id);
        }
        Ok(())
    }

    async fn find(self: &Arc<Self>, id: &StreamId) -> Result<Option<Arc<Stream>>, JournalError> {
        if let Some(stream) = self.registry.find(id) {
            self.replays.used(id);
            return Ok(Some(stream));
        }
        // A task of its own: where its reader leaves the server sends the stream all the same, and another reader may wait
        // for it.
        let load = tokio::spawn(self.clone().load(id.clone()));
        load.await.unwrap_or_else(|error| Err(JournalError::Unavailable(error.into())))
    }

    /// Takes a stream that isn't here from the server, and follows it where it runs.
    async fn load(self: Arc<Self>, id: StreamId) -> Result<Option<Arc<Stream>>, JournalError> {
        let Some(stored) = self.backend.look(&id).await? else { return Ok(None) };
        let placeholder = match self.replays.turn(&id).await? {
            Turn::Found(stream) => return Ok(Some(stream)),
            Turn::Load(placeholder) => placeholder,
        };
        // Loaded by another while this one waited for its turn.
        if let Some(stream) = self.registry.find(&id) {
            return Ok(Some(stream));
        }
        // What runs is resumed or stopped, and doesn't wait behind replays.
        let _permit = if stored.owner.is_none() { Some(self.replays.permit().await?) } else { None };
        let stream = Arc::new(Stream::elsewhere(id.clone(), stored.opening));
        for entry in self.backend.load(&id, 0).await? {
            if stream.buffer.append(&entry) != Append::Next {
                return Err(JournalError::Unreadable);
            }
        }
        let stream = self.registry.read(stream);
        if stream.buffer.has_ended() {
            placeholder.keep(&stream, stored.expires);
            return Ok(Some(stream));
        }
        self.backend.mark_read(std::slice::from_ref(&id)).await?;
        match stored.owner {
            Some(owner) => self.backend.send(&owner, Message::Reader, &id).await?,
            None => self.interrupt(&stream).await?,
        }
        // From now on the follower reads it; this ends a wait that began without it.
        self.backend.send(self.backend.instance(), Message::Wake, &id).await?;
        Ok(Some(stream))
    }

    async fn discard(&self, id: &StreamId, key: Option<&IdempotencyKey>) -> Result<(), JournalError> {
        self.replays.discard(id);
        self.backend.discard(id, key).await
    }

    async fn stop(&self, stream: &Arc<Stream>) -> Result<(), JournalError> {
        if self.registry.writes(stream.id()) || stream.buffer.has_ended() {
            return Ok(());
        }
        match self.backend.look(stream.id()).await?.and_then(|stored| stored.owner) {
            Some(owner) => self.backend.send(&owner, Message::Stop, stream.id()).await,
            None => self.interrupt(stream).await,
        }
    }

    /// Ends a stream whose owner is gone. Where another was first, the follower brings the end that it wrote.
    async fn interrupt(&self, stream: &Stream) -> Result<(), JournalError> {
        let entry = stream.entry(&[Event::Failed(Problem::interrupted())]);
        // Checked after the entry has its index: behind an end there is none.
        if !stream.buffer.has_ended() && self.backend.append(stream.id(), &entry).await? == Appended::Missing {
            stream.fail_locally();
        }
        Ok(())
    }

    /// When what fails now is given up.
    fn patience(&self) -> Instant {
        Instant::now() + self.lease
    }

    /// Ends the followed streams for their readers here, once patience has ended.
    fn fail_followed_after(&self, patience: Instant) {
        if Instant::now() >= patience {
            self.registry.followed().iter().for_each(|stream| stream.fail_locally());
        }
    }
}
