//! The streams that this process writes or reads, as long as it does: the rest is in Redis alone.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::time::Instant;

use super::super::{Framing, Log, StreamId, audience::Presence, journal::IdempotencyKey};

/// The streams known here. A log that nobody holds any more is let go at once.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<StreamId, Stream>>);

struct Stream {
    log: Weak<Log>,
    key: Option<IdempotencyKey>,
    part: Part,
}

enum Part {
    /// Written here; all readers elsewhere are one in its audience, since then.
    Writes { elsewhere: Option<(Instant, Presence)> },
    /// Read here.
    Reads,
}

impl Known {
    /// A stream that is written here.
    pub(super) fn write(&self, log: &Arc<Log>) {
        let part = Part::Writes { elsewhere: None };
        self.lock().insert(log.id().clone(), Stream { log: Arc::downgrade(log), key: None, part });
    }

    /// A stream that is read here: in this log, or in the one that is known already.
    pub(super) fn read(&self, log: Arc<Log>) -> Arc<Log> {
        let mut streams = self.lock();
        if let Some(known) = streams.get(log.id()).and_then(|stream| stream.log.upgrade()) {
            return known;
        }
        streams.insert(log.id().clone(), Stream { log: Arc::downgrade(&log), key: None, part: Part::Reads });
        log
    }

    pub(super) fn find(&self, id: &StreamId) -> Option<Arc<Log>> {
        self.lock().get(id)?.log.upgrade()
    }

    /// Whether the stream is written here.
    pub(super) fn writes(&self, id: &StreamId) -> bool {
        self.lock().get(id).is_some_and(|stream| matches!(stream.part, Part::Writes { .. }))
    }

    /// The key that has started the stream, where a start with it came here.
    pub(super) fn key(&self, id: &StreamId) -> Option<IdempotencyKey> {
        self.lock().get(id)?.key.clone()
    }

    /// This key has started the stream.
    pub(super) fn claimed(&self, id: &StreamId, key: IdempotencyKey) {
        if let Some(stream) = self.lock().get_mut(id) {
            stream.key = Some(key);
        }
    }

    /// The stream is not written here any more.
    pub(super) fn written(&self, id: &StreamId) {
        if let Some(stream) = self.lock().get_mut(id) {
            stream.part = Part::Reads;
        }
    }

    /// Whether a stream that is written here has readers elsewhere, as was `asked` then: who came since stays.
    pub(super) fn elsewhere(&self, id: &StreamId, read: bool, asked: Instant) {
        let mut streams = self.lock();
        let Some(Stream { log, part: Part::Writes { elsewhere }, .. }) = streams.get_mut(id) else { return };
        match elsewhere {
            None if read => {
                *elsewhere = log.upgrade().map(|log| (Instant::now(), Presence::new(&log, Framing::Framed, true)));
            }
            Some((since, _)) if read => *since = asked.max(*since),
            Some((since, _)) if *since < asked => *elsewhere = None,
            _ => {}
        }
    }

    /// What is written here, and under which keys.
    pub(super) fn all_written(&self) -> Vec<(StreamId, Option<IdempotencyKey>)> {
        let mut streams = self.lock();
        streams.retain(|_, stream| stream.log.strong_count() > 0);
        let written = streams.iter().filter(|(_, stream)| matches!(stream.part, Part::Writes { .. }));
        written.map(|(id, stream)| (id.clone(), stream.key.clone())).collect()
    }

    /// What is written elsewhere, read here, and goes on.
    pub(super) fn all_followed(&self) -> Vec<Arc<Log>> {
        let streams = self.lock();
        let read = streams.values().filter(|stream| matches!(stream.part, Part::Reads));
        read.filter_map(|stream| stream.log.upgrade()).filter(|log| log.ending().is_none()).collect()
    }

    /// The memory that all of them take, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.lock().values().filter_map(|stream| stream.log.upgrade()).map(|log| log.size()).sum()
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
