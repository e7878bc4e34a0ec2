//! One stream's frames: appended once, read by any number of readers from any place.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, futures::Notified, watch},
    time::Instant,
};

use super::{Event, StreamId, audience::Audience};
use crate::{problem::Problem, wire};

/// The frames of one stream in memory, encoded once and contiguous.
///
/// While the stream runs a reader copies out the few bytes that are new to it; once it has ended all readers
/// share one allocation.
#[derive(Debug)]
pub struct Log {
    id: StreamId,
    opened: Instant,
    frames: Mutex<Frames>,
    grown: Notify,
    /// Who reads it here. It is a part of the log, so that no reader of a log goes uncounted.
    audience: watch::Sender<Audience>,
}

#[derive(Debug)]
struct Frames {
    bytes: Storage,
    /// The end of each frame in `bytes`.
    ends: Vec<u32>,
    ending: Option<Ending>,
}

#[derive(Debug)]
enum Storage {
    Open(String),
    Sealed(Bytes),
}

/// How and when a stream ended.
#[derive(Clone, Debug)]
pub struct Ending {
    /// When the terminal event was appended.
    pub at: Instant,
    /// What the terminal event told, where it was `failed`.
    pub failed: Option<Problem>,
}

/// What a reader finds at its place.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Whole frames.
    Frames {
        /// Their bytes.
        bytes: Bytes,
        /// The index behind the last of them.
        next: u64,
        /// Whether the last of them is the terminal event.
        terminal: bool,
    },
    /// Nothing to be written yet; there will be.
    Pending,
    /// The place is behind the terminal event.
    Ended,
}

impl Log {
    /// An empty log of the stream `id`.
    pub fn new(id: StreamId) -> Self {
        let frames = Frames { bytes: Storage::Open(String::new()), ends: Vec::new(), ending: None };
        Self {
            id,
            opened: Instant::now(),
            frames: Mutex::new(frames),
            grown: Notify::new(),
            audience: watch::Sender::default(),
        }
    }

    /// The stream.
    pub fn id(&self) -> &StreamId {
        &self.id
    }

    pub(crate) fn audience(&self) -> &watch::Sender<Audience> {
        &self.audience
    }

    /// Appends an event and wakes the readers; the memory that it took, bytes. Behind a terminal event
    /// nothing is appended.
    pub fn append(&self, event: &Event) -> usize {
        let mut frames = self.lock();
        let Storage::Open(text) = &mut frames.bytes else { return 0 };
        let before = text.len();
        let mut text = std::mem::take(text);
        wire::frame(&mut text, &self.id, frames.ends.len() as u64, event);
        let after = text.len();
        // The hub keeps streams below 4 GiB.
        frames.ends.push(u32::try_from(after).unwrap_or(u32::MAX));
        frames.bytes = if event.is_terminal() {
            frames.ends.shrink_to_fit();
            let failed = if let Event::Failed(problem) = event { Some(problem.clone()) } else { None };
            frames.ending = Some(Ending { at: Instant::now(), failed });
            Storage::Sealed(Bytes::from(text.into_boxed_str().into_boxed_bytes()))
        } else {
            Storage::Open(text)
        };
        drop(frames);
        self.grown.notify_waiters();
        after - before + size_of::<u32>()
    }

    /// The frames from number `from` on, whole ones, `most` bytes of them or, where it is larger, one. To `hold`
    /// is to wait for more of them, as long as there may be more.
    pub fn read(&self, from: u64, most: usize, hold: bool) -> Read {
        let frames = self.lock();
        let count = frames.ends.len();
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        if first >= count {
            return if frames.ending.is_some() { Read::Ended } else { Read::Pending };
        }
        let start = first.checked_sub(1).map_or(0, |before| frames.ends[before]) as usize;
        let fitting = frames.ends[first..].partition_point(|&end| end as usize <= start.saturating_add(most));
        let next = first + fitting.max(1);
        if hold && next == count && frames.ending.is_none() {
            return Read::Pending;
        }
        let range = start..frames.ends[next - 1] as usize;
        let bytes = match &frames.bytes {
            Storage::Open(text) => Bytes::copy_from_slice(&text.as_bytes()[range]),
            Storage::Sealed(bytes) => bytes.slice(range),
        };
        Read::Frames { bytes, next: next as u64, terminal: next == count && frames.ending.is_some() }
    }

    /// Resolves at the next append after this call, polled or not.
    pub fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// How the stream ended, where it has.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().ending.clone()
    }

    /// The failure that came in place of a first token, and early enough to be told as a status: within `gate`
    /// of the opening.
    pub fn refused(&self, gate: Duration) -> Option<Problem> {
        let frames = self.lock();
        let early = |ending: &&Ending| frames.ends.len() == 1 && ending.at <= self.opened + gate;
        frames.ending.as_ref().filter(early).and_then(|ending| ending.failed.clone())
    }

    /// Waits until the stream has ended.
    pub async fn ended(&self) -> Ending {
        loop {
            let grown = self.grown();
            if let Some(ending) = self.ending() {
                return ending;
            }
            grown.await;
        }
    }

    /// Waits for the first event.
    pub async fn opened(&self) {
        loop {
            let grown = self.grown();
            if !self.is_empty() {
                return;
            }
            grown.await;
        }
    }

    /// How many events there are.
    pub fn len(&self) -> u64 {
        self.lock().ends.len() as u64
    }

    /// Whether there is no event yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the frames.
    pub fn size(&self) -> usize {
        self.lock().ends.last().map_or(0, |&end| end as usize)
    }

    /// Nothing panics while the lock is held, so a poisoned one holds whole frames all the same.
    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
