//! Finished streams at hand for the next reader, and the turns of those who load one.
//!
//! A replay that is loaded is read from memory by all who ask for it meanwhile. Without that, each reader would have the
//! server send the whole stream.

use std::{sync::Arc, time::Duration};

use headwater_protocol::StreamId;
use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle, PlaceholderGuard},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::super::JournalError;
use crate::stream::Stream;

/// Loads at once: enough to keep the connection busy, few enough for their bytes in memory.
const LOADS: usize = 16;
/// How long a reader waits for its turn: as long as the edge waits for an answer.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// What a replay costs beside its frames, bytes.
const OVERHEAD: usize = 512;
/// Replays for which the cache makes room at first; it grows.
const EXPECTED: usize = 128;

/// How long a replay is kept at most: a clock can't be set to just any time.
const MAX_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) struct Replays {
    /// The registry finds streams; the cache keeps them from being dropped.
    cache: Cache<StreamId, Replay, Bytes>,
    loads: Semaphore,
}

#[derive(Clone)]
struct Replay {
    stream: Arc<Stream>,
    /// When the server drops it.
    expires: Instant,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<StreamId, Replay> for Bytes {
    fn weight(&self, _: &StreamId, replay: &Replay) -> u64 {
        (replay.stream.buffer.size() + OVERHEAD) as u64
    }
}

/// A place for a replay in the cache, while it is loaded.
type Slot<'a> = PlaceholderGuard<'a, StreamId, Replay, Bytes, DefaultHashBuilder, DefaultLifecycle<StreamId, Replay>>;

/// The right to load one stream. Others who want it wait until this is dropped.
pub(super) struct Turn<'a> {
    slot: Option<Slot<'a>>,
    _permit: SemaphorePermit<'a>,
}

#[derive(Debug, thiserror::Error)]
#[error("too many streams are being loaded")]
struct Busy;

impl Replays {
    /// Keeps up to `bytes` of replays.
    pub(super) fn new(bytes: usize) -> Self {
        let mut options = OptionsBuilder::new();
        // One shard: an item must fit into its shard.
        options.shards(1).estimated_items_capacity(EXPECTED).weight_capacity(bytes as u64);
        let options = options.build().expect("what is required is set");
        let cache = Cache::with_options(options, Bytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { cache, loads: Semaphore::new(LOADS) }
    }

    /// Waits for the turn to load a stream: behind all who load the same one, and behind some of the others.
    ///
    /// # Errors
    /// The turn did not come in time.
    pub(super) async fn turn(&self, id: &StreamId) -> Result<Turn<'_>, JournalError> {
        let turn = async {
            let slot = self.cache.get_value_or_guard_async(id).await.err();
            let permit = self.loads.acquire().await.ok()?;
            Some(Turn { slot, _permit: permit })
        };
        let turn = timeout(TURN_TIMEOUT, turn).await.ok().flatten();
        turn.ok_or_else(|| JournalError::Unavailable(Busy.into()))
    }

    /// One more reader has found the stream: what is read often stays longest.
    pub(super) fn used(&self, id: &StreamId) {
        drop(self.cache.get(id));
    }

    pub(super) fn discard(&self, id: &StreamId) {
        self.cache.remove(id);
    }

    /// Drops what the server has dropped.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        self.cache.retain(|_, replay| replay.expires > now);
    }
}

impl Turn<'_> {
    /// Keeps the stream, which has ended, until it `expires`.
    pub(super) fn keep(self, stream: &Arc<Stream>, expires: Duration) {
        let expires = Instant::now() + expires.min(MAX_KEPT);
        if let Some(slot) = self.slot {
            // Fails where it was discarded meanwhile.
            let _ = slot.insert(Replay { stream: stream.clone(), expires });
        }
    }
}
