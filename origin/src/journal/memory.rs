//! The journal in this process's memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use headwater_protocol::{IdempotencyKey, Problem, StreamId};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use super::{Claimed, Idempotency, Journal, JournalError, OVERHEAD, Opened, Writer};
use crate::stream::{Append, Buffer, Event, Opening, Stream};

/// Streams in memory. Finished ones are kept for a time, within a budget; running ones always.
///
/// A stream that goes while it is read is in memory until its readers have read it, and counts until then.
#[derive(Clone)]
pub struct MemoryJournal(Arc<Inner>);

struct Inner {
    retention: Duration,
    budget: usize,
    /// Bytes of all buffers, those of evicted streams that are still read among them, and of orphans.
    used: Arc<AtomicUsize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    streams: HashMap<StreamId, Entry>,
    keys: HashMap<IdempotencyKey, Claim>,
    /// Finished streams, oldest first.
    finished: VecDeque<(Instant, StreamId)>,
    /// The keys of evicted streams, oldest first: a key lives as long as the retention all the same.
    orphans: VecDeque<(Instant, IdempotencyKey)>,
}

struct Entry {
    stream: Arc<Stream>,
    key: Option<IdempotencyKey>,
}

/// The start that has taken a key.
struct Claim {
    fingerprint: [u8; 32],
    id: StreamId,
}

struct MemoryWriter {
    journal: MemoryJournal,
    stream: Arc<Stream>,
}

impl MemoryJournal {
    /// A journal that keeps finished streams for `retention`, and of all streams `budget` bytes: over it the
    /// oldest finished ones go first.
    pub fn new(retention: Duration, budget: usize) -> Self {
        Self(Arc::new(Inner { retention, budget, used: Arc::default(), state: Mutex::default() }))
    }

    fn open_now(
        &self,
        id: StreamId,
        opening: Opening,
        idempotency: Option<Idempotency>,
    ) -> Result<Opened, JournalError> {
        let mut state = self.swept();
        if idempotency.as_ref().is_some_and(|idempotency| state.keys.contains_key(&idempotency.key)) {
            return Ok(Opened::Taken);
        }
        if state.orphans.len() * OVERHEAD > self.0.budget {
            return Err(JournalError::Unavailable(
                "the keys of streams that it no longer holds fill its memory".into(),
            ));
        }
        let stream = Arc::new(Stream::with(id.clone(), opening, Buffer::counted(OVERHEAD, self.0.used.clone())));
        let key = idempotency.map(|Idempotency { key, fingerprint }| {
            state.keys.insert(key.clone(), Claim { fingerprint, id: id.clone() });
            key
        });
        state.streams.insert(id, Entry { stream: stream.clone(), key });
        self.evict(&mut state);
        let writer = MemoryWriter { journal: self.clone(), stream: stream.clone() };
        Ok(Opened::New(stream, Box::new(writer)))
    }

    /// The stream has ended: from now on it may expire and be evicted.
    fn finish(&self, id: &StreamId) {
        let mut state = self.swept();
        // Else discarded while it ran.
        if state.streams.contains_key(id) {
            state.finished.push_back((Instant::now(), id.clone()));
            self.evict(&mut state);
        }
    }

    fn is_over_budget(&self) -> bool {
        self.bytes() > self.0.budget
    }

    /// While the journal is over its budget the oldest finished streams go. Their keys stay.
    fn evict(&self, state: &mut State) {
        while self.is_over_budget()
            && let Some((at, id)) = state.finished.pop_front()
        {
            if let Some(key) = state.remove(&id) {
                state.orphans.push_back((at, key));
                self.0.used.fetch_add(OVERHEAD, Relaxed);
            }
        }
    }

    /// The state without what has expired by now.
    fn swept(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock();
        let now = Instant::now();
        let expired = |at: &Instant| *at + self.0.retention <= now;
        while let Some((_, key)) = state.orphans.pop_front_if(|(at, _)| expired(at)) {
            state.keys.remove(&key);
            self.0.used.fetch_sub(OVERHEAD, Relaxed);
        }
        while let Some((_, id)) = state.finished.pop_front_if(|(at, _)| expired(at)) {
            if let Some(key) = state.remove(&id) {
                state.keys.remove(&key);
            }
        }
        state
    }
}

impl State {
    /// Removes a stream; the caller gets its key.
    fn remove(&mut self, id: &StreamId) -> Option<IdempotencyKey> {
        self.streams.remove(id)?.key
    }

    fn lookup(&self, Idempotency { key, fingerprint }: &Idempotency) -> Option<Claimed> {
        let claim = self.keys.get(key)?;
        if claim.fingerprint != *fingerprint {
            return Some(Claimed::ByAnother);
        }
        let kept = self.streams.get(&claim.id);
        Some(kept.map_or(Claimed::Expired, |entry| Claimed::Stream(entry.stream.clone())))
    }
}

impl Journal for MemoryJournal {
    fn open(
        &self,
        id: StreamId,
        opening: Opening,
        idempotency: Option<Idempotency>,
    ) -> BoxFuture<'_, Result<Opened, JournalError>> {
        async { self.open_now(id, opening, idempotency) }.boxed()
    }

    fn lookup<'a>(&'a self, idempotency: &'a Idempotency) -> BoxFuture<'a, Result<Option<Claimed>, JournalError>> {
        async { Ok(self.swept().lookup(idempotency)) }.boxed()
    }

    fn find<'a>(&'a self, id: &'a StreamId) -> BoxFuture<'a, Result<Option<Arc<Stream>>, JournalError>> {
        async { Ok(self.swept().streams.get(id).map(|entry| entry.stream.clone())) }.boxed()
    }

    fn discard<'a>(
        &'a self,
        id: &'a StreamId,
        key: Option<&'a IdempotencyKey>,
    ) -> BoxFuture<'a, Result<(), JournalError>> {
        async move {
            let mut state = self.swept();
            // From the back: it has only just finished.
            if let Some(at) = state.finished.iter().rposition(|(_, finished)| finished == id) {
                state.finished.remove(at);
            }
            state.remove(id);
            let Some(key) = key.filter(|key| state.keys.get(key).is_some_and(|claim| claim.id == *id)) else {
                return Ok(());
            };
            state.keys.remove(key);
            // Where it was evicted as soon as it had finished, because running streams fill the journal.
            if let Some(at) = state.orphans.iter().rposition(|(_, orphan)| orphan == key) {
                state.orphans.remove(at);
                self.0.used.fetch_sub(OVERHEAD, Relaxed);
            }
            Ok(())
        }
        .boxed()
    }

    /// No other process writes here: whoever stops a stream has cancelled it already.
    fn stop<'a>(&'a self, _: &'a Arc<Stream>) -> BoxFuture<'a, Result<(), JournalError>> {
        async { Ok(()) }.boxed()
    }

    /// Drops what has expired, now and from time to time.
    fn run(&self) -> BoxFuture<'_, ()> {
        async {
            loop {
                drop(self.swept());
                sleep(self.0.retention.min(Duration::from_secs(60))).await;
            }
        }
        .boxed()
    }

    fn is_healthy(&self) -> bool {
        true
    }

    fn bytes(&self) -> usize {
        self.0.used.load(Relaxed)
    }
}

impl MemoryWriter {
    fn append_now(&mut self, events: &[Event]) {
        let entry = self.stream.next_entry(events);
        if self.stream.buffer.append(&entry) != Append::Next {
            return;
        }
        if entry.terminal.is_some() {
            self.journal.finish(self.stream.id());
        } else if self.journal.is_over_budget() {
            self.journal.evict(&mut self.journal.0.state.lock());
        }
    }
}

impl Writer for MemoryWriter {
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>> {
        self.append_now(events);
        async { Ok(()) }.boxed()
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        if !self.stream.buffer.has_ended() {
            self.append_now(&[Event::Failed(Problem::internal())]);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::stream::Read;

    const CHUNK: usize = 1000;
    /// For two streams of a chunk, not for three.
    const BUDGET: usize = 5 * CHUNK;

    /// A stream of one chunk, finished.
    fn finished(journal: &MemoryJournal, name: &str) -> Arc<Stream> {
        let id = StreamId::new(&name.parse().unwrap(), "0123456789abcdefghijkl".chars());
        let Ok(Opened::New(stream, mut writer)) = journal.open_now(id, Opening::default(), None) else {
            panic!("it is new")
        };
        let events = [Event::Chunk("x".repeat(CHUNK)), Event::Failed(Problem::abandoned())];
        writer.append(&events).now_or_never().unwrap().unwrap();
        stream
    }

    #[test]
    fn an_evicted_stream_counts_until_its_last_reader_has_let_go_of_its_last_byte() {
        let journal = MemoryJournal::new(Duration::from_secs(60), BUDGET);
        let read = finished(&journal, "a");
        let one = journal.bytes();
        for name in ["b", "c", "d"] {
            finished(&journal, name);
        }
        let kept: Vec<_> = journal.0.state.lock().streams.keys().map(|id| id.origin().to_string()).collect();
        assert_eq!((kept, journal.bytes()), (vec!["d".to_owned()], 2 * one));

        let Read::Frames { bytes, .. } = read.buffer.read(0, 1, false) else { panic!("there is a frame") };
        drop(read);
        assert_eq!(journal.bytes(), 2 * one, "a slice of it is still to be written");
        drop(bytes);
        assert_eq!(journal.bytes(), one);
    }
}
