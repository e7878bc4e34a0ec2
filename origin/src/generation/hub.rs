//! Every stream's life: started, attached to, stopped, left to linger, drained.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headwater_protocol::{Cursor, OriginName, Problem, StreamId};
use rand::{RngExt, distr::Alphanumeric};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::{Reader, admission::Slot, failures::JournalFailures, task::Generation};
use crate::{
    config::limits::Limits,
    journal::{Idempotency, Journal, Opened},
    model::fallback::Fallback,
    stream::{Cancel, Framing, ReaderGuard, Stream},
    telemetry::{
        metrics::{Attachment, Metrics},
        record::{Asked, Record},
    },
};

/// The streams of this origin.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    name: OriginName,
    models: Arc<Fallback>,
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    failures: JournalFailures,
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    running: Mutex<Running>,
    /// Told whenever a stream leaves `running`.
    left: Notify,
}

/// The generations that run or wait for a slot.
#[derive(Default)]
struct Running {
    /// Their streams; `None` while the journal opens one.
    streams: HashMap<StreamId, Option<Arc<Stream>>>,
    started: u64,
    draining: bool,
    /// The drain has interrupted what ran.
    interrupted: bool,
}

/// A request for a new stream.
pub struct Start {
    /// The prompt.
    pub prompt: String,
    /// The idempotency key, where there is one.
    pub idempotency: Option<Idempotency>,
    /// How its first reader reads.
    pub framing: Framing,
    /// What the record tells of it.
    pub asked: Asked,
}

/// The result of [`Hub::attach`].
pub enum Attached {
    /// A reader at the cursor.
    Reader(Reader),
    /// The cursor is at the terminal event: there is nothing more to read, ever.
    AtEnd,
}

/// How many streams there are.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Status {
    /// Generations since the start of the process.
    pub started: u64,
    /// Generations that run or wait.
    pub running: usize,
    /// Of these, those that wait for a place.
    pub queued: usize,
}

impl Hub {
    /// A hub of the origin `name`, whose streams `models` answer and `journal` keeps.
    pub fn new(name: OriginName, models: Fallback, journal: Arc<dyn Journal>, limits: Limits) -> Self {
        let generations = limits.generations.min(models.concurrency().unwrap_or(usize::MAX));
        let limits = Limits {
            // What their types hold: offsets in a log are 32 bits.
            stream_bytes: limits.stream_bytes.min(u32::MAX as usize),
            queue: limits.queue.min(Semaphore::MAX_PERMITS),
            ..limits
        };
        let metrics: Arc<Metrics> = Arc::default();
        Self(Arc::new(Inner {
            name,
            models: Arc::new(models),
            journal,
            slots: Arc::new(Semaphore::new(generations.min(Semaphore::MAX_PERMITS))),
            queue: Arc::new(Semaphore::new(limits.queue)),
            limits: Arc::new(limits),
            failures: JournalFailures::new(metrics.clone()),
            metrics,
            running: Mutex::default(),
            left: Notify::new(),
        }))
    }

    /// Starts a stream, or attaches to the one that the same key has started. Waits for the first event, at
    /// most for the start window.
    ///
    /// # Errors
    /// The failure that came instead of a first token; no room; a key of another start, or of a stream that is
    /// no longer kept; the journal.
    pub async fn start(&self, start: Start) -> Result<Reader, Problem> {
        let hub = &self.0;
        let Start { prompt, idempotency, framing, asked } = start;
        let attach = |stream: &Arc<Stream>| stream.attach(framing == Framing::Framed, false);
        // Before the journal is asked: a refusal costs it nothing.
        let (opened, admission) = match self.admit() {
            Ok(admission) => {
                let opened = hub.journal.open(admission.entry.id.clone(), idempotency).await;
                let opened = opened.map_err(|error| hub.failures.problem("open", &error))?;
                hub.failures.clear();
                (opened, Some(admission))
            }
            Err(refusal) => {
                // A repeated start needs no slot: its generation has one already.
                let opened = match &idempotency {
                    Some(idempotency) => {
                        let opened = hub.journal.lookup(idempotency).await;
                        opened.map_err(|error| hub.failures.problem("lookup", &error))?
                    }
                    None => None,
                };
                let refused = || {
                    hub.metrics.refused(refusal.kind().name());
                    refusal
                };
                (opened.ok_or_else(refused)?, None)
            }
        };
        let guard = match (opened, admission) {
            (Opened::KeyReused, _) => return Err(Problem::key_reused()),
            (Opened::Expired, _) => return Err(Problem::expired()),
            (Opened::Existing(stream), _) => attach(&stream),
            (Opened::New(stream, writer), Some(Admission { slot, entry })) => {
                let guard = attach(&stream);
                entry.opened(&stream);
                let record = Record::new(stream.id().to_string(), asked, hub.metrics.clone());
                let (models, limits) = (hub.models.clone(), hub.limits.clone());
                let generation = Generation { models, prompt, stream, writer, limits, record };
                tokio::spawn(async move {
                    let _entry = entry;
                    generation.run(slot).await;
                });
                guard
            }
            // A lookup opens nothing.
            (Opened::New(..), None) => return Err(Problem::internal()),
        };
        let stream = guard.stream();
        let _ = timeout(hub.limits.start_window, stream.buffer.begun()).await;
        match stream.answer(hub.limits.start_window) {
            Err(problem) => {
                // Where it fails the key stays until it expires.
                let discarded = hub.journal.discard(stream.id()).await;
                discarded.map_err(|error| hub.failures.problem("discard", &error))?;
                Err(problem)
            }
            Ok(()) => Ok(hub.reader(guard, 0, framing, Attachment::Start)),
        }
    }

    /// Attaches a framed reader at the cursor.
    ///
    /// # Errors
    /// The stream is unknown or no longer kept; the cursor is past its end; the journal.
    pub async fn attach(&self, cursor: &Cursor) -> Result<Attached, Problem> {
        let hub = &self.0;
        let stream = hub.find(&cursor.id).await?;
        let ended = stream.buffer.has_ended();
        if ended {
            match cursor.next.cmp(&stream.buffer.len()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Attached::AtEnd),
                std::cmp::Ordering::Greater => return Err(Problem::cursor_past_end()),
            }
        }
        let guard = stream.attach(true, true);
        let attachment = if ended { Attachment::Replay } else { Attachment::Resume };
        Ok(Attached::Reader(hub.reader(guard, cursor.next, Framing::Framed, attachment)))
    }

    /// Ends a stream now, and returns when it has ended. One that has ended already stays as it is.
    ///
    /// # Errors
    /// The stream is unknown or no longer kept; the journal.
    pub async fn stop(&self, id: &StreamId) -> Result<(), Problem> {
        let stream = self.0.find(id).await?;
        // Where the generation runs here this ends it; where it runs elsewhere nobody here looks at it.
        stream.readers.cancel(Cancel::Stopped);
        let asked = self.0.journal.stop(&stream).await;
        asked.map_err(|error| self.0.failures.problem("stop", &error))?;
        stream.buffer.ended().await;
        Ok(())
    }

    /// Starts nothing from now on, and waits until no stream runs: at `ending` it ends those that still do, and at
    /// `deadline` it waits no longer.
    pub async fn drain(&self, ending: Instant, deadline: Instant) {
        self.running().draining = true;
        if timeout_at(ending, self.idle()).await.is_err() {
            {
                let mut running = self.running();
                running.interrupted = true;
                running.streams.values().flatten().for_each(|stream| stream.readers.cancel(Cancel::Interrupted));
            }
            // A journal that is away takes no end. What doesn't end here now ends with its writer.
            if timeout_at(deadline, self.idle()).await.is_err() {
                tracing::warn!(running = self.status().running, "some streams could not be ended");
            }
        }
    }

    /// Whether the journal can be used, as far as the last operations tell.
    pub fn journal_is_healthy(&self) -> bool {
        self.0.journal.is_healthy() && !self.0.failures.are_recent()
    }

    /// Whether [`Hub::drain`] was called.
    pub fn draining(&self) -> bool {
        self.running().draining
    }

    /// How many streams there are.
    pub fn status(&self) -> Status {
        let running = self.running();
        Status {
            started: running.started,
            running: running.streams.values().flatten().count(),
            queued: self.0.limits.queue.saturating_sub(self.0.queue.available_permits()),
        }
    }

    /// The figures so far, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let Status { running, queued, .. } = self.status();
        self.0.metrics.text(running, queued, self.0.journal.bytes())
    }

    /// Admits one more generation, if there is a slot or a place in the queue.
    fn admit(&self) -> Result<Admission, Problem> {
        // Under one lock, so that nothing is admitted behind the begin of a drain.
        let mut running = self.running();
        if running.draining {
            return Err(Problem::draining());
        }
        let slots = self.0.slots.clone();
        let slot = match slots.clone().try_acquire_owned() {
            Ok(permit) => Slot::Held(permit),
            Err(_) => match self.0.queue.clone().try_acquire_owned() {
                Ok(place) => Slot::Queued { slots, place },
                Err(_) => return Err(Problem::overloaded()),
            },
        };
        let id = new_id(&self.0.name);
        running.streams.insert(id.clone(), None);
        Ok(Admission { slot, entry: Entry { hub: self.clone(), id } })
    }

    async fn idle(&self) {
        loop {
            let left = self.0.left.notified();
            if self.running().streams.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Nothing panics while the lock is held.
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn find(&self, id: &StreamId) -> Result<Arc<Stream>, Problem> {
        let found = self.journal.find(id).await.map_err(|error| self.failures.problem("find", &error))?;
        found.ok_or_else(Problem::no_such_stream)
    }

    fn reader(&self, guard: ReaderGuard, next: u64, framing: Framing, attachment: Attachment) -> Reader {
        Reader::new(guard, next, framing, self.limits.pace, self.metrics.attached(attachment))
    }
}

/// A generation that may run.
struct Admission {
    slot: Slot,
    entry: Entry,
}

/// A stream's entry among the running: from its admission until its task has ended.
struct Entry {
    hub: Hub,
    id: StreamId,
}

impl Entry {
    /// The journal has opened the stream.
    fn opened(&self, stream: &Arc<Stream>) {
        let mut running = self.hub.running();
        running.started += 1;
        running.streams.insert(self.id.clone(), Some(stream.clone()));
        // Opened while the drain interrupted the others.
        if running.interrupted {
            stream.readers.cancel(Cancel::Interrupted);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub.running().streams.remove(&self.id);
        self.hub.0.left.notify_waiters();
    }
}

/// A new stream's id at the origin `name`.
pub fn new_id(name: &OriginName) -> StreamId {
    StreamId::new(name, rand::rng().sample_iter(Alphanumeric).map(char::from))
}
