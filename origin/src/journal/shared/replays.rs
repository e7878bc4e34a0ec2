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

use super::super::{JournalError, OVERHEAD};
use crate::stream::Stream;

/// Loads at once: enough to keep the connection busy, few enough for their bytes in memory.
const LOADS: usize = 16;
/// How long a load waits for others: as long as the edge waits for an answer.
const WAIT: Duration = Duration::from_secs(10);
/// Replays for which the cache makes room at first; it grows.
const EXPECTED: usize = 128;

/// How long a replay is kept at most: a clock can't be set to just any time.
const MAX_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) struct Replays {
    /// The registry finds streams; the cache keeps them from being dropped.
    cache: Cache<StreamId, Replay, Weight>,
    loads: Semaphore,
}

#[derive(Clone)]
struct Replay {
    stream: Arc<Stream>,
    /// When the server drops it.
    expires: Instant,
}

/// A replay's weight is its memory, bytes.
#[derive(Clone)]
struct Weight;

impl Weighter<StreamId, Replay> for Weight {
    fn weight(&self, _: &StreamId, replay: &Replay) -> u64 {
        (replay.stream.buffer.size() + OVERHEAD) as u64
    }
}

/// What one of those who ask for a stream gets.
pub(super) enum Turn<'a> {
    /// Another one has loaded it.
    Found(Arc<Stream>),
    /// The right to load it. The others wait until this is dropped.
    Load(Placeholder<'a>),
}

/// Stands for a replay in the cache while it is loaded.
pub(super) struct Placeholder<'a>(
    PlaceholderGuard<'a, StreamId, Replay, Weight, DefaultHashBuilder, DefaultLifecycle<StreamId, Replay>>,
);

impl Replays {
    /// Keeps up to `bytes` of replays.
    pub(super) fn new(bytes: usize) -> Self {
        let mut options = OptionsBuilder::new();
        // One shard: an item must fit into its shard.
        options.shards(1).estimated_items_capacity(EXPECTED).weight_capacity(bytes as u64);
        let options = options.build().expect("what is required is set");
        let cache = Cache::with_options(options, Weight, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { cache, loads: Semaphore::new(LOADS) }
    }

    /// Waits until no other one loads the stream.
    ///
    /// # Errors
    /// The wait is too long.
    pub(super) async fn turn(&self, id: &StreamId) -> Result<Turn<'_>, JournalError> {
        match timeout(WAIT, self.cache.get_value_or_guard_async(id)).await {
            Ok(Ok(replay)) => Ok(Turn::Found(replay.stream)),
            Ok(Err(guard)) => Ok(Turn::Load(Placeholder(guard))),
            Err(_) => Err(JournalError::Busy),
        }
    }

    /// Waits until fewer than [`LOADS`] streams are being loaded.
    ///
    /// # Errors
    /// The wait is too long.
    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>, JournalError> {
        timeout(WAIT, self.loads.acquire()).await.ok().and_then(Result::ok).ok_or(JournalError::Busy)
    }

    /// One more reader has found the stream: replays that are read often stay longest.
    pub(super) fn used(&self, id: &StreamId) {
        drop(self.cache.get(id));
    }

    pub(super) fn discard(&self, id: &StreamId) {
        self.cache.remove(id);
    }

    /// Drops the replays that the server has dropped.
    pub(super) fn expire(&self) {
        let now = Instant::now();
        self.cache.retain(|_, replay| replay.expires > now);
    }
}

impl Placeholder<'_> {
    /// Keeps the stream, which has ended, until it `expires`.
    pub(super) fn keep(self, stream: &Arc<Stream>, expires: Duration) {
        let expires = Instant::now() + expires.min(MAX_KEPT);
        // Fails where the replay was discarded meanwhile.
        let _ = self.0.insert(Replay { stream: stream.clone(), expires });
    }
}
