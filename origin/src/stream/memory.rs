//! The journal in this process's memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::Instant;

use super::{Claim, Event, Journal, JournalError, Log, Opened, StreamId, Writer, journal::IdempotencyKey};
use crate::problem::Problem;

/// What a stream costs beside its frames, bytes: ids, maps, the log itself. Counted, so that a flood of empty
/// streams is bounded too.
const OVERHEAD: usize = 512;

/// Streams in memory. Finished ones are kept for a time, within a budget; running ones always.
#[derive(Clone)]
pub struct MemoryJournal(Arc<Inner>);

struct Inner {
    retention: Duration,
    budget: usize,
    /// Bytes of all logs.
    used: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: HashMap<StreamId, Entry>,
    keys: HashMap<IdempotencyKey, Owner>,
    /// Finished streams, oldest first; a key lives as long, even when its log was evicted.
    finished: VecDeque<(Instant, StreamId)>,
    /// How many of `finished`, from the front, have been evicted.
    evicted: usize,
}

struct Entry {
    /// `None` once evicted.
    log: Option<Arc<Log>>,
    /// Bytes, once it has finished; a running stream's writer counts them.
    finished: Option<usize>,
    key: Option<IdempotencyKey>,
}

struct Owner {
    fingerprint: [u8; 32],
    id: StreamId,
}

struct MemoryWriter {
    journal: MemoryJournal,
    log: Arc<Log>,
    size: usize,
    ended: bool,
}

impl MemoryJournal {
    /// A journal that keeps finished streams for `retention`, and of all streams `budget` bytes: over it the
    /// oldest finished ones go first.
    pub fn new(retention: Duration, budget: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self(Arc::new(Inner { retention, budget, used, state: Mutex::default() }))
    }

    /// The memory that streams take now, bytes.
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    fn open_now(&self, id: StreamId, claim: Option<Claim>) -> Opened {
        let mut state = self.swept();
        if let Some(claim) = &claim
            && let Some(owner) = state.keys.get(&claim.key)
        {
            if owner.fingerprint != claim.fingerprint {
                return Opened::KeyReused;
            }
            let log = state.streams.get(&owner.id).and_then(|entry| entry.log.clone());
            return log.map_or(Opened::Expired, Opened::Existing);
        }
        let log = Arc::new(Log::new(id.clone()));
        let key = claim.map(|Claim { key, fingerprint }| {
            state.keys.insert(key.clone(), Owner { fingerprint, id: id.clone() });
            key
        });
        state.streams.insert(id, Entry { log: Some(log.clone()), finished: None, key });
        drop(state);
        self.grow(OVERHEAD);
        let writer = MemoryWriter { journal: self.clone(), log: log.clone(), size: OVERHEAD, ended: false };
        Opened::New(log, Box::new(writer))
    }

    /// The stream has ended: from now on it may expire and be evicted.
    fn finish(&self, id: &StreamId, size: usize) {
        let mut state = self.swept();
        if let Some(entry) = state.streams.get_mut(id) {
            entry.finished = Some(size);
            state.finished.push_back((Instant::now(), id.clone()));
        } else {
            // Discarded while it ran.
            self.shrink(size);
        }
    }

    fn grow(&self, by: usize) {
        let used = self.0.used.fetch_add(by, Ordering::Relaxed) + by;
        if used > self.0.budget {
            let mut state = self.lock();
            while self.used() > self.0.budget && self.evict_oldest(&mut state) {}
        }
    }

    fn shrink(&self, by: usize) {
        self.0.used.fetch_sub(by, Ordering::Relaxed);
    }

    /// Drops the log of the oldest finished stream that still has one; `false` where none has.
    fn evict_oldest(&self, state: &mut State) -> bool {
        let Some((_, id)) = state.finished.get(state.evicted) else { return false };
        state.evicted += 1;
        if let Some(entry) = state.streams.get_mut(id) {
            entry.log = None;
            self.shrink(entry.finished.take().unwrap_or(0));
        }
        true
    }

    /// The state without what has expired by now.
    fn swept(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some((_, id)) = state.finished.pop_front_if(|(at, _)| *at + self.0.retention <= now) {
            state.evicted = state.evicted.saturating_sub(1);
            self.remove(&mut state, &id);
        }
        state
    }

    fn remove(&self, state: &mut State, id: &StreamId) {
        if let Some(entry) = state.streams.remove(id) {
            if let Some(key) = entry.key {
                state.keys.remove(&key);
            }
            self.shrink(entry.finished.unwrap_or(0));
        }
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for MemoryJournal {
    fn open(&self, id: StreamId, claim: Option<Claim>) -> BoxFuture<'_, Result<Opened, JournalError>> {
        async { Ok(self.open_now(id, claim)) }.boxed()
    }

    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Log>>, JournalError>> {
        async { Ok(self.swept().streams.get(id).and_then(|entry| entry.log.clone())) }.boxed()
    }

    fn discard<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            let mut state = self.swept();
            if let Some(place) = state.finished.iter().position(|(_, finished)| finished == id) {
                state.finished.remove(place);
                if place < state.evicted {
                    state.evicted -= 1;
                }
            }
            self.remove(&mut state, id);
            Ok(())
        }
        .boxed()
    }
}

impl MemoryWriter {
    fn append_now(&mut self, event: &Event) {
        let taken = self.log.append(event);
        self.size += taken;
        self.journal.grow(taken);
        if event.is_terminal() && !self.ended {
            self.ended = true;
            self.journal.finish(self.log.id(), self.size);
        }
    }
}

impl Writer for MemoryWriter {
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>> {
        events.iter().for_each(|event| self.append_now(event));
        async { Ok(()) }.boxed()
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.append_now(&Event::Failed(Problem::internal()));
        }
    }
}
