//! One stream's frames in memory: appended once, read by any number of readers, each from its own cursor on.

use std::{
    cmp::Ordering,
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use headwater_protocol::Problem;
use memchr::memmem;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::Notified},
    time::timeout,
};

use super::Terminal;

/// The frames of one stream, encoded once and contiguous.
///
/// While the stream runs a reader copies out the few bytes that are new to it; once it has ended all readers
/// share one allocation.
#[derive(Debug, Default)]
pub struct Buffer {
    frames: Mutex<Frames>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct Frames {
    bytes: Storage,
    /// The end of each frame in `bytes`.
    ends: Vec<u32>,
    terminal: Option<Terminal>,
    answer: Answer,
    /// Goes into [`Sealed`] with the bytes.
    share: Share,
}

/// What the starts of this process are answered with: decided once, so that no key is freed under a reader of the stream.
/// At another origin a start whose own window is over is answered with the stream, whatever the owner decides later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Answer {
    #[default]
    Undecided,
    /// The stream.
    Stream,
    /// The failure that the journal is taking, in place of the first token.
    Refusal,
}

#[derive(Debug)]
enum Storage {
    Open(Vec<u8>),
    /// A [`Sealed`].
    Sealed(Bytes),
}

/// A finished stream's frames. What is read are slices of it, and the last of them may outlive the stream.
struct Sealed {
    frames: Box<[u8]>,
    _share: Share,
}

impl AsRef<[u8]> for Sealed {
    fn as_ref(&self) -> &[u8] {
        &self.frames
    }
}

/// What one buffer adds to the memory of many, bytes: from its first byte to drop.
#[derive(Debug, Default)]
struct Share {
    own: usize,
    total: Arc<AtomicUsize>,
}

impl Share {
    fn grow(&mut self, by: usize) {
        self.own += by;
        self.total.fetch_add(by, Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.total.fetch_sub(self.own, Relaxed);
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::Open(Vec::new())
    }
}

/// Events as a journal keeps them: frames, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The index of the first of them.
    pub first: u64,
    /// Their bytes.
    pub frames: Bytes,
    /// How the stream ended, where the last of them is the terminal event.
    pub terminal: Option<Terminal>,
}

/// The outcome of [`Buffer::append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Append {
    /// It was the next one.
    Next,
    /// Its first event is in the buffer already.
    Repeated,
    /// Events between the last one and this one are missing.
    Gap,
    /// The stream has ended.
    Closed,
}

/// What a reader finds at its cursor.
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
    /// Frames, which are held until more are there or their time has come.
    Held,
    /// None yet; there will be.
    Pending,
    /// The cursor is behind the terminal event.
    Ended,
}

impl Buffer {
    /// An empty buffer, which takes `own` bytes by itself. `total` has its memory until it is dropped, and all that was
    /// read of it.
    pub fn counted(own: usize, total: Arc<AtomicUsize>) -> Self {
        let mut share = Share { own: 0, total };
        share.grow(own);
        Self { frames: Mutex::new(Frames { share, ..Frames::default() }), grown: Notify::new() }
    }

    /// Appends the next entry and wakes the readers. Any other changes nothing.
    pub fn append(&self, entry: &Entry) -> Append {
        let mut frames = self.frames.lock();
        let Frames { bytes: Storage::Open(bytes), ends, terminal, share, .. } = &mut *frames else {
            return Append::Closed;
        };
        match entry.first.cmp(&(ends.len() as u64)) {
            Ordering::Less => return Append::Repeated,
            Ordering::Greater => return Append::Gap,
            Ordering::Equal => {}
        }
        let (size, count) = (bytes.len(), ends.len());
        bytes.extend_from_slice(&entry.frames);
        // Data is JSON, so an empty line is the end of a frame and nothing else. The hub keeps streams below 4 GiB.
        let frame_ends = memmem::find_iter(&entry.frames, b"\n\n");
        ends.extend(frame_ends.map(|at| u32::try_from(size + at + 2).unwrap_or(u32::MAX)));
        share.grow(entry.frames.len() + (ends.len() - count) * size_of::<u32>());
        if entry.terminal.is_some() {
            terminal.clone_from(&entry.terminal);
            ends.shrink_to_fit();
            let sealed = Sealed { frames: mem::take(bytes).into_boxed_slice(), _share: mem::take(share) };
            frames.bytes = Storage::Sealed(Bytes::from_owner(sealed));
        }
        drop(frames);
        self.grown.notify_waiters();
        Append::Next
    }

    /// The frames from number `from` on, whole ones, `most` bytes of them or, where it is larger, one. To `hold`
    /// is to wait for more of them, as long as there may be more.
    pub fn read(&self, from: u64, most: usize, hold: bool) -> Read {
        let frames = self.frames.lock();
        let count = frames.ends.len();
        let first = usize::try_from(from).unwrap_or(usize::MAX);
        if first >= count {
            return if frames.terminal.is_some() { Read::Ended } else { Read::Pending };
        }
        let start = first.checked_sub(1).map_or(0, |before| frames.ends[before]) as usize;
        let fitting = frames.ends[first..].partition_point(|&end| end as usize <= start.saturating_add(most));
        let next = first + fitting.max(1);
        if hold && next == count && frames.terminal.is_none() {
            return Read::Held;
        }
        let range = start..frames.ends[next - 1] as usize;
        let bytes = match &frames.bytes {
            Storage::Open(bytes) => Bytes::copy_from_slice(&bytes[range]),
            Storage::Sealed(bytes) => bytes.slice(range),
        };
        Read::Frames { bytes, next: next as u64, terminal: next == count && frames.terminal.is_some() }
    }

    /// Resolves at the next append after this call, polled or not.
    pub fn grown(&self) -> Notified<'_> {
        self.grown.notified()
    }

    /// Whether the terminal event is there.
    pub fn has_ended(&self) -> bool {
        self.frames.lock().terminal.is_some()
    }

    /// How the stream ended, where it has.
    pub fn terminal(&self) -> Option<Terminal> {
        self.frames.lock().terminal.clone()
    }

    /// Answers a start: with the stream at its first event, at the latest after `window`.
    ///
    /// # Errors
    /// The failure that came in place of the first token, before any start was answered with the stream.
    pub async fn answer(&self, window: Duration) -> Result<(), Problem> {
        let _ = timeout(window, self.begun()).await;
        self.until(Self::answer_now).await
    }

    /// Answers a start whose response is one value: with the stream at its end, at the latest after `window`.
    ///
    /// # Errors
    /// The failure that it ended with by then, and whether the stream can be forgotten: no start was answered with it.
    pub async fn answer_whole(&self, window: Duration) -> Result<(), (Problem, bool)> {
        let _ = timeout(window, self.ended()).await;
        let mut frames = self.frames.lock();
        match &frames.terminal {
            Some(Terminal { failed: Some(problem), .. }) => Err((problem.clone(), frames.answer != Answer::Stream)),
            _ => {
                frames.answer = Answer::Stream;
                Ok(())
            }
        }
    }

    /// `None` while the journal is taking the failure.
    fn answer_now(&self) -> Option<Result<(), Problem>> {
        let mut frames = self.frames.lock();
        match (frames.answer, &frames.terminal) {
            (Answer::Undecided | Answer::Refusal, Some(Terminal { failed: Some(problem), refused: true, .. })) => {
                Some(Err(problem.clone()))
            }
            (Answer::Refusal, None) => None,
            _ => {
                frames.answer = Answer::Stream;
                Some(Ok(()))
            }
        }
    }

    /// Decides that starts are answered with a failure, unless one was answered with the stream. Returns whether they are.
    pub(super) fn refuse(&self) -> bool {
        let mut frames = self.frames.lock();
        if frames.answer == Answer::Undecided {
            frames.answer = Answer::Refusal;
        }
        frames.answer == Answer::Refusal
    }

    /// Waits for the first event.
    pub async fn begun(&self) {
        self.until(|buffer| (!buffer.is_empty()).then_some(())).await;
    }

    /// Waits until the stream has ended.
    pub async fn ended(&self) {
        self.until(|buffer| buffer.has_ended().then_some(())).await;
    }

    /// Waits until `found` returns something: looks now, and at each append.
    async fn until<T>(&self, found: impl Fn(&Self) -> Option<T>) -> T {
        loop {
            let grown = self.grown();
            if let Some(found) = found(self) {
                return found;
            }
            grown.await;
        }
    }

    /// How many events there are.
    pub fn len(&self) -> u64 {
        self.frames.lock().ends.len() as u64
    }

    /// Whether there is no event yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the frames.
    pub fn size(&self) -> usize {
        self.frames.lock().ends.last().map_or(0, |&end| end as usize)
    }
}
