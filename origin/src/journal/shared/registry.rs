//! The streams that are written or read here, as long as they are, and the keys of starts that were never answered.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use headwater_protocol::{IdempotencyKey, StreamId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::stream::{ReaderGuard, Stream};

/// The most unanswered starts that are remembered. Beyond it a key stays taken until it expires. Starts at once are fewer,
/// but a server that hangs may carry out later what it was sent meanwhile.
const MAX_UNCONFIRMED: usize = 1024;

/// The registry holds no stream, but for a reader elsewhere: one that nobody else holds any more is dropped at once.
#[derive(Default)]
pub(super) struct Registry {
    streams: Mutex<HashMap<StreamId, Entry>>,
    /// Keys, each with a stream that the server may have opened for it: its answer was lost, or nobody waited for it.
    unconfirmed: Mutex<Vec<(IdempotencyKey, StreamId)>>,
}

struct Entry {
    stream: Weak<Stream>,
    /// The key that it was started with, where it is written here.
    key: Option<IdempotencyKey>,
    role: Role,
}

enum Role {
    /// Written here. All readers at other origins count as one; the time is when that one was last reported.
    Owner { elsewhere: Option<(Instant, ReaderGuard)> },
    /// Read here.
    Follower,
}

impl Registry {
    /// A stream that is written here.
    pub(super) fn write(&self, stream: &Arc<Stream>) {
        let role = Role::Owner { elsewhere: None };
        self.streams.lock().insert(stream.id().clone(), Entry { stream: Arc::downgrade(stream), key: None, role });
    }

    /// A stream that is read here. Returns the one that is registered already, where there is one.
    pub(super) fn read(&self, stream: Arc<Stream>) -> Arc<Stream> {
        let mut streams = self.streams.lock();
        if let Some(known) = streams.get(stream.id()).and_then(|entry| entry.stream.upgrade()) {
            return known;
        }
        streams.insert(stream.id().clone(), Entry { stream: Arc::downgrade(&stream), key: None, role: Role::Follower });
        stream
    }

    pub(super) fn find(&self, id: &StreamId) -> Option<Arc<Stream>> {
        self.streams.lock().get(id)?.stream.upgrade()
    }

    /// Whether the stream is written here.
    pub(super) fn writes(&self, id: &StreamId) -> bool {
        self.streams.lock().get(id).is_some_and(|entry| matches!(entry.role, Role::Owner { .. }))
    }

    /// The stream was started with this key.
    pub(super) fn claimed(&self, id: &StreamId, key: IdempotencyKey) {
        if let Some(entry) = self.streams.lock().get_mut(id) {
            entry.key = Some(key);
        }
    }

    /// The stream is not written here any more.
    pub(super) fn unwrite(&self, id: &StreamId) {
        if let Some(entry) = self.streams.lock().get_mut(id) {
            entry.role = Role::Follower;
        }
    }

    /// Updates whether other origins read a stream that is written here. `asked` is when the server was asked; a reader
    /// that was reported later than that stays.
    pub(super) fn read_elsewhere(&self, id: &StreamId, read: bool, asked: Instant) {
        let mut streams = self.streams.lock();
        let Some(Entry { stream, role: Role::Owner { elsewhere }, .. }) = streams.get_mut(id) else { return };
        match elsewhere {
            None if read => {
                *elsewhere = stream.upgrade().map(|stream| (Instant::now(), stream.attach(true, true)));
            }
            Some((since, _)) if read => *since = asked.max(*since),
            Some((since, _)) if *since < asked => *elsewhere = None,
            _ => {}
        }
    }

    /// The streams that are written here, with their keys.
    pub(super) fn written(&self) -> Vec<(StreamId, Option<IdempotencyKey>)> {
        let mut streams = self.streams.lock();
        streams.retain(|_, entry| entry.stream.strong_count() > 0);
        let written = streams.iter().filter(|(_, entry)| matches!(entry.role, Role::Owner { .. }));
        written.map(|(id, entry)| (id.clone(), entry.key.clone())).collect()
    }

    /// The running streams that are read here and written elsewhere.
    pub(super) fn followed(&self) -> Vec<Arc<Stream>> {
        let streams = self.streams.lock();
        let read = streams.values().filter(|entry| matches!(entry.role, Role::Follower));
        read.filter_map(|entry| entry.stream.upgrade()).filter(|stream| !stream.buffer.has_ended()).collect()
    }

    /// The memory of all streams here, bytes.
    pub(super) fn bytes(&self) -> usize {
        self.streams.lock().values().filter_map(|entry| entry.stream.upgrade()).map(|stream| stream.buffer.size()).sum()
    }

    /// The server may have opened the stream for a start with this key that was never answered.
    pub(super) fn unconfirm(&self, key: IdempotencyKey, id: StreamId) {
        let mut unconfirmed = self.unconfirmed.lock();
        if unconfirmed.len() < MAX_UNCONFIRMED {
            unconfirmed.push((key, id));
        }
    }

    /// The streams that the server may have opened for unanswered starts with this key.
    pub(super) fn unconfirmed(&self, key: &IdempotencyKey) -> Vec<StreamId> {
        let unconfirmed = self.unconfirmed.lock();
        unconfirmed.iter().filter(|(taken, _)| taken == key).map(|(_, id)| id.clone()).collect()
    }

    /// The keys of all unanswered starts.
    pub(super) fn unconfirmed_keys(&self) -> Vec<IdempotencyKey> {
        self.unconfirmed.lock().iter().map(|(key, _)| key.clone()).collect()
    }

    /// The server has discarded the stream.
    pub(super) fn confirm(&self, key: &IdempotencyKey, id: &StreamId) {
        self.unconfirmed.lock().retain(|(taken, opened)| (taken, opened) != (key, id));
    }
}
