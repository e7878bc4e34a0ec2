//! The journal in Redis: any origin serves and stops any stream.
//!
//! The owner of a stream adds its entries to a Redis stream, under ids that follow from the events' indices: who
//! adds an entry under an id that is taken learns that another was first. Other origins follow.
//!
//! # Layout
//! - `owner`: appends a stream's events, or learns that another has ended it.
//! - `follower`: what other origins write.
//! - `lease`: leases, and who reads elsewhere.
//! - `registry`: the streams that this process writes or reads.

mod follower;
mod lease;
mod owner;
mod registry;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use headwater_protocol::{Problem, StreamId};
use tokio::time::Instant;

use self::{owner::Owner, registry::Registry};
use super::{
    Idempotency, Journal, JournalError, Opened,
    redis::{
        server::Server,
        store::{Added, Message, Store},
    },
};
use crate::{
    config::redis::Address,
    stream::{Append, Event, Stream},
};

/// How long an owner that isn't heard of keeps its streams, and how long Redis may be away before streams end.
pub const LEASE: Duration = Duration::from_secs(15);

/// Streams in Redis, shared by all origins that use the same server.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>);

struct Inner {
    store: Store,
    registry: Registry,
    lease: Duration,
    /// The lease task's last commands went well.
    healthy: AtomicBool,
}

impl RedisJournal {
    /// A journal at `address` that keeps finished streams for `retention`, and whose origins hold their streams by
    /// a `lease`, [`LEASE`] unless a test is in a hurry.
    ///
    /// # Errors
    /// The server can't be reached, or refuses.
    pub async fn connect(address: &Address, retention: Duration, lease: Duration) -> Result<Self, JournalError> {
        let store = Store::connect(address, retention, lease).await?;
        match store.info().await {
            Ok(info) => Server::of(&info).check().map_err(|error| JournalError(error.into()))?,
            Err(error) => tracing::warn!(%error, "redis doesn't tell its version, its mode and its maxmemory-policy"),
        }
        Ok(Self(Arc::new(Inner { store, registry: Registry::default(), lease, healthy: AtomicBool::new(true) })))
    }
}

impl Journal for RedisJournal {
    fn open(&self, id: StreamId, idempotency: Option<Idempotency>) -> BoxFuture<'_, Result<Opened, JournalError>> {
        self.0.open(id, idempotency).boxed()
    }

    fn lookup<'a>(&'a self, idempotency: &'a Idempotency) -> BoxFuture<'a, Result<Option<Opened>, JournalError>> {
        async {
            match self.0.store.claimed(&idempotency.key).await? {
                Some(claimed) => Ok(Some(self.0.existing(idempotency, claimed).await?)),
                None => Ok(None),
            }
        }
        .boxed()
    }

    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Stream>>, JournalError>> {
        self.0.find(id).boxed()
    }

    fn discard<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(), JournalError>> {
        async { Ok(self.0.store.discard(id, self.0.registry.key(id).as_ref()).await?) }.boxed()
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
        futures::future::join(self.0.keep(), self.0.follow()).map(|((), ())| ()).boxed()
    }
}

impl Inner {
    async fn open(self: &Arc<Self>, id: StreamId, idempotency: Option<Idempotency>) -> Result<Opened, JournalError> {
        let stream = Arc::new(Stream::new(id));
        // Known before Redis has it, so that a start with the same key finds it here as soon as it can. Where the
        // answer is lost, or nobody waits for it any more, dropping the writer forgets the stream that there may be.
        let key = idempotency.as_ref().map(|idempotency| idempotency.key.clone());
        let mut writer = Owner::opening(self.clone(), stream.clone(), key);
        let claimed = self.store.open(stream.id(), idempotency.as_ref()).await?;
        let Some((idempotency, claimed)) = idempotency.zip(claimed) else {
            writer.opened();
            return Ok(Opened::New(stream, Box::new(writer)));
        };
        writer.not_opened();
        drop(writer);
        self.existing(&idempotency, claimed).await
    }

    /// The stream that the key was claimed with before.
    async fn existing(
        self: &Arc<Self>,
        Idempotency { key, fingerprint }: &Idempotency,
        (claimed_with, id): (Bytes, StreamId),
    ) -> Result<Opened, JournalError> {
        if *claimed_with != fingerprint[..] {
            return Ok(Opened::KeyReused);
        }
        Ok(match self.find(&id).await? {
            Some(stream) => {
                self.registry.claimed(&id, key.clone());
                Opened::Existing(stream)
            }
            None => Opened::Expired,
        })
    }

    async fn find(&self, id: &StreamId) -> Result<Option<Arc<Stream>>, JournalError> {
        if let Some(stream) = self.registry.find(id) {
            return Ok(Some(stream));
        }
        let Some(kept) = self.store.load(id, 0).await? else { return Ok(None) };
        let stream = Arc::new(Stream::elsewhere(id.clone()));
        for entry in &kept.entries {
            if !matches!(stream.buffer.append(entry), Append::Next(_)) {
                return Err(JournalError("redis holds a stream with a gap".into()));
            }
        }
        let stream = self.registry.read(stream);
        if !stream.buffer.has_ended() {
            self.store.read_here(id).await?;
            match kept.owner {
                Some(owner) => self.store.tell(&owner, Message::Reader, id).await?,
                None => self.interrupt(&stream).await?,
            }
            // From now on the tail reads it; this ends the read that has begun without.
            self.store.tell(self.store.instance(), Message::Wake, id).await?;
        }
        Ok(Some(stream))
    }

    async fn stop(&self, stream: &Arc<Stream>) -> Result<(), JournalError> {
        if self.registry.writes(stream.id()) || stream.buffer.has_ended() {
            return Ok(());
        }
        match self.store.owner(stream.id()).await? {
            Some(owner) => Ok(self.store.tell(&owner, Message::Stop, stream.id()).await?),
            None => self.interrupt(stream).await,
        }
    }

    /// Ends a stream whose owner is gone. Whoever is first has ended it, and the tail brings what that one wrote.
    async fn interrupt(&self, stream: &Stream) -> Result<(), JournalError> {
        let entry = stream.entry(&[Event::Failed(Problem::interrupted())]);
        // Checked after the entry has its index: behind an end there is none.
        if !stream.buffer.has_ended() && self.store.add(stream.id(), &entry).await? == Added::Gone {
            stream.fail_locally();
        }
        Ok(())
    }

    /// When what fails now is given up.
    fn patience(&self) -> Instant {
        Instant::now() + self.lease
    }
}
