//! The streams that this process writes or reads, as long as it does: the rest is in Redis alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use headwater_protocol::{IdempotencyKey, StreamId};
use tokio::time::Instant;

use crate::stream::{ReaderGuard, Stream};

/// The streams known here. A stream that nobody holds any more is let go at once.
#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<StreamId, Entry>>);

struct Entry {
    stream: Weak<Stream>,
    key: Option<IdempotencyKey>,
    part: Part,
}

enum Part {
    /// Written here; all readers elsewhere count as one, since then.
    Writes { elsewhere: Option<(Instant, ReaderGuard)> },
    /// Read here.
    Reads,
}

impl Registry {
    /// A stream that is written here.
    pub(super) fn write(&self, stream: &Arc<Stream>) {
        let part = Part::Writes { elsewhere: None };
        self.lock().insert(stream.id().clone(), Entry { stream: Arc::downgrade(stream), key: None, part });
    }

    /// A stream that is read here: in this one, or in the one that is known already.
    pub(super) fn read(&self, stream: Arc<Stream>) -> Arc<Stream> {
        let mut streams = self.lock();
        if let Some(known) = streams.get(stream.id()).and_then(|entry| entry.stream.upgrade()) {
            return known;
        }
        streams.insert(stream.id().clone(), Entry { stream: Arc::downgrade(&stream), key: None, part: Part::Reads });
        stream
    }

    pub(super) fn find(&self, id: &StreamId) -> Option<Arc<Stream>> {
        self.lock().get(id)?.stream.upgrade()
    }

    /// Whether the stream is written here.
    pub(super) fn writes(&self, id: &StreamId) -> bool {
        self.lock().get(id).is_some_and(|entry| matches!(entry.part, Part::Writes { .. }))
    }

    /// The key that has started the stream, where a start with it came here.
    pub(super) fn key(&self, id: &StreamId) -> Option<IdempotencyKey> {
        self.lock().get(id)?.key.clone()
    }

    /// This key has started the stream.
    pub(super) fn claimed(&self, id: &StreamId, key: IdempotencyKey) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.key = Some(key);
        }
    }

    /// The stream is not written here any more.
    pub(super) fn written(&self, id: &StreamId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.part = Part::Reads;
        }
    }

    /// Whether a stream that is written here has readers elsewhere, as was `asked` then: who came since stays.
    pub(super) fn elsewhere(&self, id: &StreamId, read: bool, asked: Instant) {
        let mut streams = self.lock();
        let Some(Entry { stream, part: Part::Writes { elsewhere }, .. }) = streams.get_mut(id) else { return };
        match elsewhere {
            None if read => {
                *elsewhere = stream.upgrade().map(|stream| (Instant::now(), stream.attach(true, true)));
            }
            Some((since, _)) if read => *since = asked.max(*since),
            Some((since, _)) if *since < asked => *elsewhere = None,
            _ => {}
        }
    }

    /// What is written here, and under which keys.
    pub(super) fn all_written(&self) -> Vec<(StreamId, Option<IdempotencyKey>)> {
        let mut streams = self.lock();
        streams.retain(|_, entry| entry.stream.strong_count() > 0);
        let written = streams.iter().filter(|(_, entry)| matches!(entry.part, Part::Writes { .. }));
        written.map(|(id, entry)| (id.clone(), entry.key.clone())).collect()
    }

    /// What is written elsewhere, read here, and goes on.
    pub(super) fn all_followed(&self) -> Vec<Arc<Stream>> {
        let streams = self.lock();
        let read = streams.values().filter(|entry| matches!(entry.part, Part::Reads));
        read.filter_map(|entry| entry.stream.upgrade()).filter(|stream| !stream.buffer.has_ended()).collect()
    }

    /// The memory that all of them take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.lock().values().filter_map(|entry| entry.stream.upgrade()).map(|stream| stream.buffer.size()).sum()
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
