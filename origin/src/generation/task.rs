//! The task that fills a stream: it calls the models, appends their tokens, and appends the one terminal event.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use headwater_protocol::{Kind, Problem};
use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{admission::Slot, failures::JournalFailures};
use crate::{
    config::limits::Limits,
    journal::{JournalError, Writer},
    model::{
        ModelError, Request, Token,
        fallback::{Fallback, Passed},
    },
    stream::{Cancel, Done, Event, Finish, Stream, Timing, Usage, frame},
    telemetry::{metrics::Tokens, record::Record},
};

/// The most tokens of one append. An append carries the tokens that came while the one before was on its way into the
/// journal.
const MAX_BATCH: usize = 32;

/// One stream's generation.
pub(crate) struct Generation {
    pub(crate) models: Arc<Fallback>,
    /// Empty once a model answers: a conversation may be large, and an answer long.
    pub(crate) request: Option<Request>,
    pub(crate) stream: Arc<Stream>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) record: Record,
    pub(crate) failures: Arc<JournalFailures>,
    /// The drain is over: what runs ends now.
    pub(crate) interrupted: CancellationToken,
}

impl Generation {
    /// Runs to the terminal event, as fast as the model answers: readers don't slow it down.
    pub(crate) async fn run(mut self, slot: Slot) {
        let appended = match self.answer(slot).await {
            Ok(terminal) => self.writer.append(&[terminal]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = appended {
            // The stream has ended, though not with the event above.
            match error {
                JournalError::Fenced => {
                    tracing::warn!("another origin has ended the stream");
                }
                error => drop(self.failures.problem("append", &error)),
            }
            if let Some(problem) = self.stream.buffer.terminal().and_then(|terminal| terminal.failed) {
                self.record.ended(problem.kind().name(), None);
            }
        }
    }

    /// Appends the answer's tokens as they come, and returns the terminal event. By then the model's token stream is
    /// dropped, which cancels the model.
    async fn answer(&mut self, slot: Slot) -> Result<Event, JournalError> {
        let stream = self.stream.clone();
        let requested = cancelled(stream.clone(), self.limits.linger, self.interrupted.clone());
        let mut cancelled = pin!(requested);
        let _permit = match unless(&mut cancelled, slot.acquire()).await {
            Ok(permit) => permit,
            Err(cancel) => return Ok(self.cancelled(cancel)),
        };
        // The same future, still waiting, but no longer than the total timeout, which counts from here.
        let mut cancelled = pin!(within(self.limits.total_timeout, cancelled));
        let record = &mut self.record;
        let passed = |model: &str, passed: Passed<'_>| match passed {
            Passed::Failed(error) => {
                tracing::warn!(model, %error, "the model gave no first token");
                record.passed_over(model, error.problem().kind().name());
            }
            Passed::Full => record.passed_over(model, Kind::Overloaded.name()),
        };
        // Boxed: what a call of a model takes until its first token is not kept for the rest of the answer.
        let Some(request) = self.request.take() else { return Ok(self.failed(Problem::internal())) };
        let models = self.models.clone();
        let begun = Box::pin(async move { models.begin(&request, passed).await });
        let mut answer = match unless(&mut cancelled, begun).await {
            Err(cancel) => return Ok(self.cancelled(cancel)),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(self.failed(error.problem())),
        };
        self.record.answered_by(answer.model(), answer.called());
        let mut silence = Silence::new(self.limits.idle_timeout);
        loop {
            let ready = match unless(&mut cancelled, silence.bound(answer.ready(MAX_BATCH))).await {
                Err(cancel) => return Ok(self.cancelled(cancel)),
                Ok(Some(ready)) => ready,
                Ok(None) => return Ok(self.failed(Problem::idle_timeout())),
            };
            let (events, terminal) = self.take(ready, answer.model());
            if !events.is_empty() {
                self.writer.append(&events).await?;
            }
            if let Some(terminal) = terminal {
                return Ok(terminal);
            }
        }
    }

    /// The model's tokens as events, and the terminal event where the answer ends with them.
    fn take(&mut self, ready: Vec<Result<Token, ModelError>>, model: &str) -> (Vec<Event>, Option<Event>) {
        let mut events = Vec::with_capacity(ready.len());
        let mut size = self.stream.buffer.size();
        for token in ready {
            let fits = match token {
                Ok(Token::Text(text)) => {
                    let before = events.len();
                    let fits = self.take_text(&text, Event::Chunk, 0, &mut events, &mut size);
                    if events.len() > before {
                        self.record.token();
                    }
                    fits
                }
                Ok(Token::Reasoning(text)) => {
                    self.take_text(&text, Event::Reasoning, frame::REASONING_BYTES, &mut events, &mut size)
                }
                Ok(Token::Alive | Token::Connected) => true,
                Ok(Token::End { finish, usage }) => return (events, Some(self.finished(finish, usage))),
                Err(error) => {
                    tracing::warn!(model, %error, "the model failed");
                    return (events, Some(self.failed(error.problem())));
                }
            };
            if !fits {
                return (events, Some(self.finished(Finish::Length, None)));
            }
        }
        (events, None)
    }

    /// Takes a text as events, whose frames have `more` bytes than a chunk's. Returns whether the stream may hold all of it.
    fn take_text(
        &self,
        text: &str,
        event: fn(String) -> Event,
        more: usize,
        events: &mut Vec<Event>,
        size: &mut usize,
    ) -> bool {
        let first = self.stream.buffer.len();
        frame::pieces(text).all(|piece| {
            *size += frame::chunk_frame_bytes(self.stream.id(), first + events.len() as u64, piece) + more;
            let fits = *size <= self.limits.stream_bytes;
            if fits {
                events.push(event(piece.to_owned()));
            }
            fits
        })
    }

    fn cancelled(&mut self, cancel: Cancel) -> Event {
        match cancel {
            Cancel::Stopped => self.finished(Finish::Stopped, None),
            Cancel::OutOfTime => self.finished(Finish::Length, None),
            Cancel::Abandoned => self.failed(Problem::abandoned()),
            Cancel::Interrupted => self.failed(Problem::interrupted()),
        }
    }

    fn finished(&mut self, finish: Finish, usage: Option<Usage>) -> Event {
        let tokens = usage.map(|usage| Tokens { input: usage.input_tokens, output: usage.output_tokens });
        self.record.ended(finish.name(), tokens);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timing =
            Timing { first_token_ms: self.record.first_token().map(millis), total_ms: millis(self.record.elapsed()) };
        Event::Done(Done { finish, usage, timing })
    }

    fn failed(&mut self, problem: Problem) -> Event {
        self.record.ended(problem.kind().name(), None);
        Event::Failed(problem)
    }
}

/// Bounds each of many waits by the same time. The timer is set anew where it has fired, not for each wait.
struct Silence {
    longest: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Silence {
    fn new(longest: Duration) -> Self {
        Self { longest, timer: Box::pin(sleep(longest)) }
    }

    /// What is waited for; `None` where it doesn't come in time.
    async fn bound<T>(&mut self, wanted: impl Future<Output = T>) -> Option<T> {
        let (mut wanted, until) = (pin!(wanted), Instant::now() + self.longest);
        loop {
            tokio::select! {
                biased;
                came = &mut wanted => return Some(came),
                // A flood of tokens uses the task's budget up, without which a timer never fires.
                () = unconstrained(&mut self.timer) => {}
            }
            if Instant::now() >= until {
                return None;
            }
            self.timer.as_mut().reset(until);
        }
    }
}

/// However a generation ends, its record counts the readers.
impl Drop for Generation {
    fn drop(&mut self) {
        let readers = self.stream.readers.counts();
        self.record.read_by(readers.attached, readers.resumed);
    }
}

/// Resolves when the stream is to end before its answer does: at a reader's request, when nobody reads, or when the
/// drain is over.
async fn cancelled(stream: Arc<Stream>, linger: Duration, interrupted: CancellationToken) -> Cancel {
    tokio::select! {
        cancel = stream.readers.cancelled(linger) => cancel,
        () = interrupted.cancelled() => Cancel::Interrupted,
    }
}

/// Waits for `wanted`, unless the generation is cancelled first.
async fn unless<T>(
    cancelled: &mut Pin<&mut impl Future<Output = Cancel>>,
    wanted: impl Future<Output = T>,
) -> Result<T, Cancel> {
    tokio::select! {
        biased;
        cancel = cancelled => Err(cancel),
        wanted = wanted => Ok(wanted),
    }
}

/// The cancellation, at the latest when the time for the whole answer is over.
async fn within(total: Option<Duration>, cancelled: Pin<&mut impl Future<Output = Cancel>>) -> Cancel {
    match total {
        Some(total) => timeout(total, cancelled).await.unwrap_or(Cancel::OutOfTime),
        None => cancelled.await,
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use headwater_protocol::Kind;
    use tokio::time::sleep;

    use super::*;
    use crate::{
        config::limits::Pace,
        generation::{Hub, Start},
        journal::MemoryJournal,
        model::{Model, Tokens as Answer},
        prompt::{Conversation, Options},
    };

    const EVERY: Duration = Duration::from_millis(500);
    const TIMEOUT: Duration = Duration::from_secs(3);

    /// Says these things, each a while after the one before.
    struct Says(Vec<Token>);

    impl Model for Says {
        fn name(&self) -> &'static str {
            "says"
        }

        fn generate(&self, _: &Conversation, _: &Options) -> Answer {
            let each = stream::iter(self.0.clone()).then(async |token| {
                sleep(EVERY).await;
                Ok(token)
            });
            each.chain(stream::pending()).boxed()
        }
    }

    /// How a stream of this answer ends.
    async fn ends(tokens: Vec<Token>) -> Option<Kind> {
        let pace = Pace { write_interval: Duration::ZERO, heartbeat: None };
        let limits = Limits {
            start_window: EVERY,
            idle_timeout: TIMEOUT,
            total_timeout: None,
            linger: TIMEOUT,
            stream_bytes: 1 << 20,
            generations: 1,
            queue: 0,
            pace,
        };
        let models = Fallback::new(vec![Arc::new(Says(tokens))], TIMEOUT);
        let journal = Arc::new(MemoryJournal::new(TIMEOUT, 1 << 20));
        let hub = Hub::new("a".parse().unwrap(), models, journal, limits);
        let reader = hub.start(Start::prompt("")).await.unwrap();
        reader.stream().buffer.ended().await;
        reader.stream().buffer.terminal().unwrap().failed.map(|problem| problem.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_keep_both_timeouts_away_and_silence_does_not() {
        let (text, end) = (|| Token::Text("a".into()), Token::End { finish: Finish::Stop, usage: None });
        let thoughts = || vec![Token::Alive; 20];
        let whole = [thoughts(), vec![text()], thoughts(), vec![text(), end]].concat();
        assert_eq!(ends(whole).await, None);
        assert_eq!(ends([thoughts(), vec![text()], thoughts()].concat()).await, Some(Kind::IdleTimeout));
        assert_eq!(ends(thoughts()).await, Some(Kind::FirstTokenTimeout));
    }
}
