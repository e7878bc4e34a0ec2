//! Every stream's life: started, attached to, stopped, left to linger, drained.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use headwater_protocol::{Cursor, OriginName, Problem, StreamId};
use rand::{RngExt, distr::Alphanumeric};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};
use tracing::Instrument;

use super::{Reader, admission::Slot, failures::JournalFailures, task::Generation};
use crate::{
    config::limits::Limits,
    dialect::Dialect,
    journal::{Claimed, Idempotency, Journal, Opened, Writer},
    model::{Request, fallback::Fallback, names::DEFAULT},
    stream::{Cancel, Opening, ReaderGuard, Stream},
    telemetry::{
        metrics::{Attachment, Metrics},
        record::{Asked, Record},
    },
};

/// How long a start waits for its answer's end, where the response is one value: a failure until then is a status, which
/// clients know how to repeat. The edge waits 10 s for a response's headers.
const WHOLE_WINDOW: Duration = Duration::from_secs(8);

/// The streams of this origin.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    name: OriginName,
    models: Arc<Fallback>,
    journal: Arc<dyn Journal>,
    limits: Arc<Limits>,
    metrics: Arc<Metrics>,
    failures: Arc<JournalFailures>,
    slots: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    started: AtomicU64,
    /// The generations that run or wait for a slot, from admission on.
    running: TaskTracker,
    /// Nothing starts any more, and what runs at other origins isn't followed here.
    draining: CancellationToken,
    /// What still runs ends now.
    interrupted: CancellationToken,
}

/// A request for a new stream.
pub struct Start {
    /// What is asked of the models.
    pub request: Request,
    /// What its readers are told of it.
    pub opening: Opening,
    /// The idempotency key, where there is one.
    pub idempotency: Option<Idempotency>,
    /// How the first reader reads.
    pub dialect: Dialect,
    /// Whether that reader can come back after a cut: then the generation waits for it. Else it stops when the reader leaves.
    pub may_return: bool,
    /// What the record tells of it.
    pub asked: Asked,
}

impl Start {
    /// A start of all models, without a key, by a reader in this project's own dialect.
    pub fn prompt(text: impl Into<String>) -> Self {
        let (request, opening) = (Request::prompt(text), Opening::now(DEFAULT.to_owned(), None));
        Self { request, opening, idempotency: None, dialect: Dialect::Own, may_return: true, asked: Asked::default() }
    }
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
    /// Of these, those that wait for a slot.
    pub queued: usize,
}

impl Hub {
    /// A hub of the origin `name`, whose streams `models` answer and `journal` keeps.
    pub fn new(name: OriginName, models: Fallback, journal: Arc<dyn Journal>, limits: Limits) -> Self {
        let generations = limits.generations.min(models.concurrency().unwrap_or(usize::MAX));
        let limits = Limits {
            // What their types hold: offsets in a buffer are 32 bits.
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
            failures: Arc::new(JournalFailures::new(metrics.clone())),
            metrics,
            started: AtomicU64::new(0),
            running: TaskTracker::new(),
            draining: CancellationToken::new(),
            interrupted: CancellationToken::new(),
        }))
    }

    /// Starts a stream, or attaches to the one that the same key has started. Waits for the first event, at
    /// most for the start window; in a dialect whose response is one value for the end, at most for 8 s.
    ///
    /// # Errors
    /// The failure that came instead of a first token; no room; a key of another start, or of a stream that is
    /// no longer kept; the journal.
    pub async fn start(&self, start: Start) -> Result<Reader, Problem> {
        let hub = &self.0;
        let began = Instant::now();
        let (dialect, may_return) = (start.dialect, start.may_return);
        let key = start.idempotency.as_ref().map(|idempotency| idempotency.key.clone());
        // A slot first, then the journal: a refusal costs it nothing.
        let mut guard = match self.admit() {
            Ok(admission) => self.open(admission, start).await?,
            Err(refusal) => self.attach_to_key(start.idempotency, may_return, refusal).await?,
        };
        let stream = guard.stream().clone();
        let answer = if dialect.is_whole() {
            let left = WHOLE_WINDOW.saturating_sub(began.elapsed());
            // Where another origin writes it, its own starts may have been answered with it.
            let forgets = |(problem, forgotten)| (problem, forgotten && !stream.is_elsewhere());
            stream.buffer.answer_whole(left).await.map_err(forgets)
        } else {
            stream.buffer.answer(hub.limits.start_window).await.map_err(|problem| (problem, true))
        };
        guard.answered();
        match answer {
            Ok(()) => Ok(hub.reader(guard, 0, dialect, Attachment::Start)),
            Err((problem, forgotten)) => {
                if forgotten && let Err(error) = hub.journal.discard(stream.id(), key.as_ref()).await {
                    // The key stays until it expires.
                    hub.failures.problem("discard", &error);
                }
                Err(problem)
            }
        }
    }

    /// Attaches a reader at the cursor, who reads this project's own dialect.
    ///
    /// # Errors
    /// The stream is unknown, no longer kept or another caller's; the cursor is past its end; the journal.
    pub async fn attach(&self, cursor: &Cursor, caller: Option<&str>) -> Result<Attached, Problem> {
        let hub = &self.0;
        let stream = hub.find(&cursor.id, caller).await?;
        hub.may_follow(&stream)?;
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
        Ok(Attached::Reader(hub.reader(guard, cursor.next, Dialect::Own, attachment)))
    }

    /// Ends a stream now, and returns when it has ended. One that has ended already stays as it is.
    ///
    /// # Errors
    /// The stream is unknown, no longer kept or another caller's; the journal.
    pub async fn stop(&self, id: &StreamId, caller: Option<&str>) -> Result<(), Problem> {
        let stream = self.0.find(id, caller).await?;
        // Where the generation runs here this ends it; where it runs elsewhere nobody here looks at it.
        stream.readers.cancel(Cancel::Stopped);
        let asked = self.0.journal.stop(&stream).await;
        asked.map_err(|error| self.0.failures.problem("stop", &error))?;
        stream.buffer.ended().await;
        Ok(())
    }

    /// Starts nothing and follows nothing of other origins from now on, and waits until no stream runs: at `ending` it
    /// ends those that still do, and at `deadline` it waits no longer.
    pub async fn drain(&self, ending: Instant, deadline: Instant) {
        let Inner { draining, running, interrupted, .. } = &*self.0;
        running.close();
        draining.cancel();
        if timeout_at(ending, running.wait()).await.is_err() {
            interrupted.cancel();
            // A journal that is away takes no end. What doesn't end here now ends with its writer.
            if timeout_at(deadline, running.wait()).await.is_err() {
                tracing::warn!(running = running.len(), "some streams could not be ended");
            }
        }
    }

    /// Whether the journal can be used, as far as the last operations tell.
    pub fn journal_is_healthy(&self) -> bool {
        self.0.journal.is_healthy() && !self.0.failures.are_recent()
    }

    /// Whether [`Hub::drain`] was called.
    pub fn draining(&self) -> bool {
        self.0.draining.is_cancelled()
    }

    /// How many streams there are.
    pub fn status(&self) -> Status {
        let Inner { started, running, limits, queue, .. } = &*self.0;
        Status {
            started: started.load(Ordering::Relaxed),
            running: running.len(),
            queued: limits.queue.saturating_sub(queue.available_permits()),
        }
    }

    /// Of the options of a request, those that a model which may answer it can do nothing with.
    pub fn ignored(&self, request: &Request) -> Vec<&'static str> {
        self.0.models.ignored(request)
    }

    /// The metrics so far, as Prometheus reads them.
    pub fn metrics(&self) -> String {
        let Status { running, queued, .. } = self.status();
        self.0.metrics.text(running, queued, self.0.journal.bytes(), self.0.models.cooling_down())
    }

    /// Admits one more generation, if there is a slot or a place in the queue.
    fn admit(&self) -> Result<Admission, Problem> {
        let Inner { slots, queue, running, .. } = &*self.0;
        // Counted before the look at the drain, so that a drain waits for all that it doesn't refuse.
        let running_token = running.token();
        if running.is_closed() {
            return Err(Problem::draining());
        }
        let slot = match slots.clone().try_acquire_owned() {
            Ok(permit) => Slot::Held(permit),
            Err(_) => match queue.clone().try_acquire_owned() {
                Ok(place) => Slot::Queued { slots: slots.clone(), place },
                Err(_) => return Err(Problem::overloaded()),
            },
        };
        Ok(Admission { slot, running: running_token })
    }

    /// Opens a stream for an admitted start, or attaches to the one that its key has opened.
    async fn open(&self, admission: Admission, start: Start) -> Result<ReaderGuard, Problem> {
        let hub = &self.0;
        let Start { request, opening, idempotency, may_return, asked, .. } = start;
        let opened = hub.journal.open(new_id(&hub.name), opening, idempotency.clone()).await;
        let opened = opened.map_err(|error| hub.failures.problem("open", &error))?;
        hub.failures.clear();
        match opened {
            Opened::New(stream, writer) => {
                let guard = stream.attach_start(may_return, idempotency.is_some());
                hub.generate(admission, request, asked, stream, writer);
                Ok(guard)
            }
            Opened::Taken => {
                // Its slot is free while the stream is looked for.
                drop(admission);
                // Where the key was freed meanwhile the start can be repeated.
                self.attach_to_key(idempotency, may_return, Problem::overloaded()).await
            }
        }
    }

    /// Attaches a start to the stream that its key has opened, which needs no slot. Without such a stream it is refused.
    async fn attach_to_key(
        &self,
        idempotency: Option<Idempotency>,
        may_return: bool,
        refusal: Problem,
    ) -> Result<ReaderGuard, Problem> {
        let hub = &self.0;
        let claimed = match &idempotency {
            Some(idempotency) => {
                let claimed = hub.journal.lookup(idempotency).await;
                let claimed = claimed.map_err(|error| hub.failures.problem("lookup", &error))?;
                hub.failures.clear();
                claimed
            }
            None => None,
        };
        match claimed {
            Some(claimed) => hub.attach_to(claimed, may_return),
            None => {
                hub.metrics.refused(refusal.kind().name());
                Err(refusal)
            }
        }
    }
}

impl Inner {
    /// Another caller's stream is none.
    async fn find(&self, id: &StreamId, caller: Option<&str>) -> Result<Arc<Stream>, Problem> {
        let found = self.journal.find(id).await.map_err(|error| self.failures.problem("find", &error))?;
        found.filter(|stream| stream.is_open_to(caller)).ok_or_else(Problem::no_such_stream)
    }

    /// Refuses what would be broken off at once: in a drain other origins serve what runs at other origins.
    fn may_follow(&self, stream: &Stream) -> Result<(), Problem> {
        if self.draining.is_cancelled() && stream.runs_elsewhere() { Err(Problem::draining()) } else { Ok(()) }
    }

    fn attach_to(&self, claimed: Claimed, may_return: bool) -> Result<ReaderGuard, Problem> {
        match claimed {
            Claimed::ByAnother => Err(Problem::key_reused()),
            Claimed::Expired => Err(Problem::expired()),
            Claimed::Stream(stream) => {
                self.may_follow(&stream)?;
                Ok(stream.attach_start(may_return, true))
            }
        }
    }

    /// Runs the generation of a new stream, in a task of its own.
    fn generate(
        &self,
        Admission { slot, running }: Admission,
        request: Request,
        asked: Asked,
        stream: Arc<Stream>,
        writer: Box<dyn Writer>,
    ) {
        self.started.fetch_add(1, Ordering::Relaxed);
        let record = Record::new(stream.id().to_string(), asked, self.metrics.clone());
        let (models, limits, failures) = (self.models.clone(), self.limits.clone(), self.failures.clone());
        let interrupted = self.interrupted.clone();
        // Every line that is logged meanwhile names the stream.
        let span = tracing::info_span!("generation", stream = %stream.id());
        let generation =
            Generation { models, request: Some(request), stream, writer, limits, record, failures, interrupted };
        let run = async move {
            generation.run(slot).await;
            drop(running);
        };
        tokio::spawn(run.instrument(span));
    }

    fn reader(&self, guard: ReaderGuard, next: u64, dialect: Dialect, attachment: Attachment) -> Reader {
        let counted = self.metrics.attached(attachment);
        Reader::new(guard, next, dialect, self.limits.pace, counted, self.draining.clone())
    }
}

/// A generation that may run.
struct Admission {
    slot: Slot,
    /// Counts it among the running until its task has ended.
    running: TaskTrackerToken,
}

/// A new stream's id at the origin `name`.
pub fn new_id(name: &OriginName) -> StreamId {
    StreamId::new(name, rand::rng().sample_iter(Alphanumeric).map(char::from))
}
