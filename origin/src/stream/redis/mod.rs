//! The journal in Redis: any origin serves and stops any stream.
//!
//! The owner of a stream adds its entries to a Redis stream, under ids that follow from the events' indices: who
//! adds an entry under an id that is taken learns that another was first. Other origins follow.
//!
//! # Layout
//! - [`address`]: where the server is.
//! - `store`: what is kept there, and every command.
//! - `writer`: appends a stream's events, or learns that another has ended it.
//! - `known`: the streams that this process writes or reads.
//! - `keeper`: leases, and who reads elsewhere.
//! - `tail`: what other origins write.

pub mod address;
mod keeper;
mod known;
mod store;
mod tail;
mod writer;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

pub use self::address::Address;
use self::{
    known::Known,
    store::{Added, Store},
    tail::Message,
    writer::RedisWriter,
};
use super::{
    Claim, Event, Journal, JournalError, Log, Opened, StreamId,
    audience::{EarlyEnd, ask},
};
use crate::problem::Problem;

/// How long an owner that isn't heard of keeps its streams, and how long Redis may be away before streams end.
pub const LEASE: Duration = Duration::from_secs(15);

/// Streams in Redis, shared by all origins that use the same server.
#[derive(Clone)]
pub struct RedisJournal(Arc<Inner>);

struct Inner {
    store: Store,
    known: Known,
    lease: Duration,
}

impl RedisJournal {
    /// A journal at `address` that keeps finished streams for `retention`, and whose origins hold their streams by
    /// a `lease`, [`LEASE`] unless a test is in a hurry.
    ///
    /// # Errors
    /// The server can't be reached, or refuses.
    pub async fn connect(address: &Address, retention: Duration, lease: Duration) -> Result<Self, JournalError> {
        let store = Store::connect(address, retention, lease).await?;
        Ok(Self(Arc::new(Inner { store, known: Known::default(), lease })))
    }
}

impl Journal for RedisJournal {
    fn open(&self, id: StreamId, claim: Option<Claim>) -> BoxFuture<'_, Result<Opened, JournalError>> {
        self.0.open(id, claim).boxed()
    }

    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Log>>, JournalError>> {
        self.0.find(id).boxed()
    }

    fn discard<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(), JournalError>> {
        async { Ok(self.0.store.discard(id, self.0.known.key(id).as_ref()).await?) }.boxed()
    }

    fn stop<'a>(&'a self, log: &'a Arc<Log>) -> BoxFuture<'a, Result<(), JournalError>> {
        self.0.stop(log).boxed()
    }

    fn bytes(&self) -> usize {
        self.0.known.bytes()
    }

    fn run(&self) -> BoxFuture<'_, ()> {
        futures::future::join(self.0.keep(), self.0.follow()).map(|((), ())| ()).boxed()
    }
}

impl Inner {
    async fn open(self: &Arc<Self>, id: StreamId, claim: Option<Claim>) -> Result<Opened, JournalError> {
        let log = Arc::new(Log::new(id));
        // Known before Redis has it, so that a start with the same key finds it here as soon as it can. Where the
        // answer is lost, or nobody waits for it any more, dropping the writer forgets the stream that there may be.
        let key = claim.as_ref().map(|claim| claim.key.clone());
        let mut writer = RedisWriter::opening(self.clone(), log.clone(), key);
        let Some((fingerprint, earlier)) = self.store.open(log.id(), claim.as_ref()).await? else {
            writer.opened();
            return Ok(Opened::New(log, Box::new(writer)));
        };
        writer.not_opened();
        drop(writer);
        let Some(claim) = claim.filter(|claim| claim.fingerprint == *fingerprint) else {
            return Ok(Opened::KeyReused);
        };
        Ok(match self.find(&earlier).await? {
            Some(log) => {
                self.known.claimed(&earlier, claim.key);
                Opened::Existing(log)
            }
            None => Opened::Expired,
        })
    }

    async fn find(&self, id: &StreamId) -> Result<Option<Arc<Log>>, JournalError> {
        if let Some(log) = self.known.find(id) {
            return Ok(Some(log));
        }
        let Some(kept) = self.store.load(id, 0).await? else { return Ok(None) };
        let log = Arc::new(Log::new(id.clone()));
        for entry in &kept.entries {
            log.append(entry);
        }
        let log = self.known.read(log);
        if log.ending().is_none() {
            self.store.read_here(id).await?;
            match kept.owner {
                Some(owner) => self.store.tell(&owner, Message::Reader, id).await?,
                None => self.interrupt(&log).await?,
            }
            // From now on the tail reads it; this ends the read that has begun without.
            self.store.tell(self.store.instance(), Message::Wake, id).await?;
        }
        Ok(Some(log))
    }

    async fn stop(&self, log: &Arc<Log>) -> Result<(), JournalError> {
        if self.known.writes(log.id()) {
            ask(log, EarlyEnd::Stopped);
        } else if log.ending().is_none() {
            match self.store.owner(log.id()).await? {
                Some(owner) => self.store.tell(&owner, Message::Stop, log.id()).await?,
                None => self.interrupt(log).await?,
            }
        }
        Ok(())
    }

    /// Ends a stream whose owner is gone. Whoever is first has ended it, and the tail brings what that one wrote.
    async fn interrupt(&self, log: &Log) -> Result<(), JournalError> {
        let entry = log.entry(&[Event::Failed(Problem::interrupted())]);
        // Looked at after the entry has its place: behind an end there is none.
        if log.ending().is_none() && self.store.add(log.id(), &entry).await? == Added::Gone {
            lost(log);
        }
        Ok(())
    }

    /// When what fails now is given up.
    fn patience(&self) -> Instant {
        Instant::now() + self.lease
    }
}

/// Ends a log here alone: what Redis holds of the stream can't be told any more.
fn lost(log: &Log) {
    log.append(&log.entry(&[Event::Failed(Problem::journal())]));
}
