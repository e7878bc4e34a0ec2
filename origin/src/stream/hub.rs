//! Every stream's life: started, attached to, stopped, left to linger, drained.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::{
    Claim, Cursor, Event, Framing, Journal, Opened, OriginName, Reader, StreamId,
    generation::{Audience, EarlyEnd, Generation},
    reader::{Pace, Presence},
};
use crate::{model::Model, problem::Problem, record::Record};

/// The streams of this origin.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    name: OriginName,
    model: Arc<dyn Model>,
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    running: Mutex<HashMap<StreamId, Arc<watch::Sender<Audience>>>>,
    /// Told whenever a stream leaves `running`.
    left: Notify,
    started: AtomicU64,
    draining: AtomicBool,
}

/// Times and sizes of a stream's life.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a start waits for its first event before the response begins without.
    pub gate: Duration,
    /// From the call of the model to its first token.
    pub first_token_timeout: Duration,
    /// From one token to the next.
    pub idle_timeout: Duration,
    /// How long a generation goes on without a reader, once a framed one has attached.
    pub linger: Duration,
    /// The bytes of one stream's frames; beyond it the answer ends with finish `length`.
    pub stream_bytes: usize,
    /// Generations at once; the model's own limit counts too.
    pub generations: usize,
    /// Generations that may wait for a place.
    pub queue: usize,
    /// When readers write.
    pub pace: Pace,
}

/// A request for a new stream.
pub struct Start {
    /// The prompt's name, for the record.
    pub name: String,
    /// The prompt.
    pub prompt: String,
    /// The variables as JSON, where they are to be logged.
    pub variables: Option<String>,
    /// The idempotency key, where there is one.
    pub claim: Option<Claim>,
    /// How its first reader reads.
    pub framing: Framing,
}

/// The result of [`Hub::attach`].
pub enum Attached {
    /// A reader at the cursor.
    Reader(Reader),
    /// The cursor is at the terminal event: there is nothing more to read, ever.
    AtEnd,
}

/// A place among the running generations, or in the queue for one.
pub(crate) enum Slot {
    Held(OwnedSemaphorePermit),
    Queued { slots: Arc<Semaphore>, place: OwnedSemaphorePermit },
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
    /// A hub of the origin `name`, whose streams `model` answers and `journal` keeps.
    pub fn new(name: OriginName, model: Arc<dyn Model>, journal: Arc<dyn Journal>, limits: Limits) -> Self {
        let generations = limits.generations.min(model.concurrency().unwrap_or(usize::MAX));
        Self(Arc::new(Inner {
            name,
            model,
            journal,
            slots: Arc::new(Semaphore::new(generations.min(Semaphore::MAX_PERMITS))),
            queue: Arc::new(Semaphore::new(limits.queue.min(Semaphore::MAX_PERMITS))),
            limits: Arc::new(limits),
            running: Mutex::default(),
            left: Notify::new(),
            started: AtomicU64::new(0),
            draining: AtomicBool::new(false),
        }))
    }

    /// Starts a stream, or attaches to the one that the same claim has started. Waits for the first event, at
    /// most for the gate.
    ///
    /// # Errors
    /// The failure that came instead of a first token; no room; a key of another start, or of a stream that is
    /// no longer kept; the journal.
    pub async fn start(&self, start: Start) -> Result<Reader, Problem> {
        let hub = &self.0;
        let framing = start.framing;
        let (log, presence) = match hub.journal.open(StreamId::random(&hub.name), start.claim.clone()).await? {
            Opened::KeyReused => return Err(Problem::key_reused()),
            Opened::Expired => return Err(Problem::expired()),
            Opened::Existing(log) => {
                let presence = self.presence(log.id(), framing, false);
                (log, presence)
            }
            Opened::New(log, mut writer) => match self.reserve() {
                Err(problem) => {
                    writer.append(&[Event::Failed(problem)]).await?;
                    (log, None)
                }
                Ok(slot) => {
                    let audience = Arc::new(watch::Sender::new(Audience::default()));
                    let presence = Presence::new(audience.clone(), framing, false);
                    let record = Record::new(log.id().clone(), start.name, start.variables, hub.model.name());
                    let generation = Generation {
                        model: hub.model.clone(),
                        prompt: start.prompt,
                        log: log.clone(),
                        writer,
                        audience: audience.subscribe(),
                        limits: hub.limits.clone(),
                        record,
                    };
                    self.run(generation, audience, slot);
                    (log, Some(presence))
                }
            },
        };
        let _ = timeout(hub.limits.gate, log.opened()).await;
        match log.refused() {
            Some(problem) => {
                hub.journal.discard(log.id()).await?;
                Err(problem)
            }
            None => Ok(Reader::new(log, 0, framing, hub.limits.pace, presence)),
        }
    }

    /// Attaches a framed reader at the cursor.
    ///
    /// # Errors
    /// The stream is unknown or no longer kept; the cursor is past its end; the journal.
    pub async fn attach(&self, cursor: &Cursor) -> Result<Attached, Problem> {
        let hub = &self.0;
        let log = hub.journal.find(&cursor.id).await?.ok_or_else(Problem::no_such_stream)?;
        if log.ending().is_some() {
            match cursor.next.cmp(&log.len()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(Attached::AtEnd),
                std::cmp::Ordering::Greater => return Err(Problem::cursor_past_end()),
            }
        }
        let presence = self.presence(&cursor.id, Framing::Framed, true);
        Ok(Attached::Reader(Reader::new(log, cursor.next, Framing::Framed, hub.limits.pace, presence)))
    }

    /// Ends a stream now, and returns when it has ended. One that has ended already stays as it is.
    ///
    /// # Errors
    /// The stream is unknown or no longer kept; the journal.
    pub async fn stop(&self, id: &StreamId) -> Result<(), Problem> {
        let log = self.0.journal.find(id).await?.ok_or_else(Problem::no_such_stream)?;
        if let Some(audience) = self.audience(id) {
            ask(&audience, EarlyEnd::Stopped);
            log.ended().await;
        }
        Ok(())
    }

    /// Starts nothing from now on, waits until no stream runs, and at `deadline` ends those that still do.
    pub async fn drain(&self, deadline: Duration) {
        self.0.draining.store(true, Ordering::Relaxed);
        if timeout(deadline, self.idle()).await.is_err() {
            self.running().values().for_each(|audience| ask(audience, EarlyEnd::Interrupted));
            self.idle().await;
        }
    }

    /// Whether [`Hub::drain`] was called.
    pub fn draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// How many streams there are.
    pub fn status(&self) -> Status {
        Status {
            started: self.0.started.load(Ordering::Relaxed),
            running: self.running().len(),
            queued: self.0.limits.queue.saturating_sub(self.0.queue.available_permits()),
        }
    }

    fn run(&self, generation: Generation, audience: Arc<watch::Sender<Audience>>, slot: Slot) {
        let running = Running { hub: self.clone(), id: generation.log.id().clone() };
        self.running().insert(running.id.clone(), audience);
        self.0.started.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            let _running = running;
            generation.run(slot).await;
        });
    }

    /// A place for one more generation.
    fn reserve(&self) -> Result<Slot, Problem> {
        if self.draining() {
            return Err(Problem::draining());
        }
        let slots = self.0.slots.clone();
        if let Ok(permit) = slots.clone().try_acquire_owned() {
            return Ok(Slot::Held(permit));
        }
        let place = self.0.queue.clone().try_acquire_owned().map_err(|_| Problem::overloaded())?;
        Ok(Slot::Queued { slots, place })
    }

    fn presence(&self, id: &StreamId, framing: Framing, resumed: bool) -> Option<Presence> {
        self.audience(id).map(|audience| Presence::new(audience, framing, resumed))
    }

    fn audience(&self, id: &StreamId) -> Option<Arc<watch::Sender<Audience>>> {
        self.running().get(id).cloned()
    }

    async fn idle(&self) {
        loop {
            let left = self.0.left.notified();
            if self.running().is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Nothing panics while the lock is held.
    fn running(&self) -> MutexGuard<'_, HashMap<StreamId, Arc<watch::Sender<Audience>>>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Waits for the place; it is free again when the permit is dropped. `None` only where places are no
    /// longer given out, which this hub never does.
    pub(crate) async fn acquire(self) -> Option<OwnedSemaphorePermit> {
        match self {
            Self::Held(permit) => Some(permit),
            Self::Queued { slots, place } => {
                let permit = slots.acquire_owned().await.ok();
                drop(place);
                permit
            }
        }
    }
}

/// The first to ask has its way.
fn ask(audience: &watch::Sender<Audience>, end: EarlyEnd) {
    audience.send_modify(|audience| {
        audience.asked.get_or_insert(end);
    });
}

/// A stream's entry among the running ones, for as long as its task lives.
struct Running {
    hub: Hub,
    id: StreamId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.hub.running().remove(&self.id);
        self.hub.0.left.notify_waiters();
    }
}
