//! One stream's frames: appended once, read by any number of readers from any place.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
    Open(Vec<u8>),
    Sealed(Bytes),
}

/// Events as a journal keeps them: frames, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index of the first of them.
    pub first: u64,
    /// Their bytes.
    pub frames: Bytes,
    /// How the stream ended, where the last of them is the terminal event.
    pub ending: Option<Ending>,
}

/// How and when a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// The time from its opening to its terminal event.
    pub after: Duration,
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
        let frames = Frames { bytes: Storage::Open(Vec::new()), ends: Vec::new(), ending: None };
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

    /// These events as the next entry, none of them behind a terminal event.
    pub fn entry(&self, events: &[Event]) -> Entry {
        let first = self.len();
        let mut frames = String::new();
        let mut ending = None;
        for (index, event) in (first..).zip(events) {
            wire::frame(&mut frames, &self.id, index, event);
            if event.is_terminal() {
                let failed = if let Event::Failed(problem) = event { Some(problem.clone()) } else { None };
                ending = Some(Ending { after: self.age(), failed });
                break;
            }
        }
        Entry { first, frames: frames.into(), ending }
    }

    /// Appends an entry and wakes the readers; the memory that it took, bytes. One that isn't the next, or is behind
    /// a terminal event, changes nothing.
    pub fn append(&self, entry: &Entry) -> usize {
        let mut frames = self.lock();
        let Frames { bytes: Storage::Open(bytes), ends, ending } = &mut *frames else { return 0 };
        if entry.first != ends.len() as u64 {
            return 0;
        }
        let (size, count) = (bytes.len(), ends.len());
        bytes.extend_from_slice(&entry.frames);
        // Data is JSON, so an empty line is the end of a frame and nothing else. The hub keeps streams below 4 GiB.
        let frame_ends = entry.frames.windows(2).enumerate().filter(|(_, pair)| pair == b"\n\n");
        ends.extend(frame_ends.map(|(at, _)| u32::try_from(size + at + 2).unwrap_or(u32::MAX)));
        let taken = entry.frames.len() + (ends.len() - count) * size_of::<u32>();
        if entry.ending.is_some() {
            ending.clone_from(&entry.ending);
            ends.shrink_to_fit();
            let whole = std::mem::take(bytes).into_boxed_slice();
            frames.bytes = Storage::Sealed(whole.into());
        }
        drop(frames);
        self.grown.notify_waiters();
        taken
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
            Storage::Open(bytes) => Bytes::copy_from_slice(&bytes[range]),
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

    /// The failure that came in place of a first token, where it can be told as a status: it is one that can be an
    /// answer, and came within `gate` of the opening.
    pub fn refused(&self, gate: Duration) -> Option<Problem> {
        let frames = self.lock();
        let early = |ending: &&Ending| frames.ends.len() == 1 && ending.after <= gate;
        frames.ending.as_ref().filter(early)?.failed.clone().filter(Problem::can_answer)
    }

    /// The time since its opening.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Waits for the first event.
    pub async fn begun(&self) {
        self.until(|log| !log.is_empty()).await;
    }

    /// Waits until the stream has ended.
    pub async fn ended(&self) {
        self.until(|log| log.ending().is_some()).await;
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let grown = self.grown();
            if holds(self) {
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
