//! The task that fills a stream: it asks the model, appends what comes, and writes the one terminal event.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    Done, Event, Finish, JournalError, Limits, Log, Usage, Writer,
    audience::{EarlyEnd, early_end},
    limits::Slot,
};
use crate::{
    model::{ModelError, Token, fallback::Fallback},
    problem::{Kind, Problem},
    record::Record,
    wire,
};

/// The most tokens that are appended together. Those come together that the model gave while earlier ones were on
/// their way into the journal.
const TOGETHER: usize = 32;

/// One stream's generation.
pub(crate) struct Generation {
    pub(crate) models: Arc<Fallback>,
    pub(crate) prompt: String,
    pub(crate) log: Arc<Log>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) record: Record,
}

/// How an answer ended.
enum End {
    Finished(Finish, Option<Usage>),
    Failed(Problem),
}

impl Generation {
    /// Runs to the terminal event. The answer comes into being as fast as the model gives it, whoever reads.
    pub(crate) async fn run(mut self, slot: Slot) {
        let kept = match self.answer(slot).await {
            Ok(end) => self.close(end).await,
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            // It has ended, if not by the writer then by another origin.
            tracing::error!(stream = %self.log.id(), %error, "the stream could not be kept");
            if let Some(problem) = self.log.ending().and_then(|ending| ending.failed) {
                self.record.failed(problem.kind());
            }
        }
    }

    /// Appends the answer as it comes. When it returns the model's stream is dropped, and with that cancelled.
    async fn answer(&mut self, slot: Slot) -> Result<End, JournalError> {
        let mut early = pin!(early_end(self.log.clone(), self.limits.linger));
        let _permit = match unless(&mut early, slot.acquire()).await {
            Ok(permit) => permit,
            Err(end) => return Ok(end.into()),
        };
        let mut early = pin!(within(self.limits.total_timeout, early));
        let stream = self.log.id();
        let record = &mut self.record;
        let failed = |model: &str, error: &ModelError| {
            tracing::warn!(%stream, model, %error, "the model gave no first token");
            record.passed_over(model, Problem::from(error).kind());
        };
        let mut answer = match unless(&mut early, self.models.begin(&self.prompt, failed)).await {
            Err(end) => return Ok(end.into()),
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(End::Failed(Problem::from(&error))),
        };
        self.record.answered_by(answer.model(), answer.called());
        loop {
            let ready = match unless(&mut early, timeout(self.limits.idle_timeout, answer.ready(TOGETHER))).await {
                Err(end) => return Ok(end.into()),
                Ok(Ok(ready)) => ready,
                Ok(Err(_)) => return Ok(End::Failed(idle())),
            };
            let (events, end) = self.take(ready, answer.model());
            if !events.is_empty() {
                self.writer.append(&events).await?;
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }

    /// What the model has given, as events, and the end of its answer where that is among it.
    fn take(&mut self, ready: Vec<Result<Token, ModelError>>, model: &str) -> (Vec<Event>, Option<End>) {
        let (mut events, mut size, first) = (Vec::with_capacity(ready.len()), self.log.size(), self.log.len());
        for token in ready {
            let end = match token {
                Ok(Token::Text(text)) => {
                    let before = events.len();
                    let whole = wire::pieces(&text).all(|piece| {
                        size += wire::chunk_frame_bytes(self.log.id(), first + events.len() as u64, piece);
                        let fits = size <= self.limits.stream_bytes;
                        if fits {
                            events.push(Event::Chunk(piece.to_owned()));
                        }
                        fits
                    });
                    if events.len() > before {
                        self.record.token();
                    }
                    if whole {
                        continue;
                    }
                    End::Finished(Finish::Length, None)
                }
                Ok(Token::End { finish, usage }) => End::Finished(finish, usage),
                Err(error) => {
                    tracing::warn!(stream = %self.log.id(), model, %error, "the model failed");
                    End::Failed(Problem::from(&error))
                }
            };
            return (events, Some(end));
        }
        (events, None)
    }

    /// Appends the terminal event.
    async fn close(&mut self, end: End) -> Result<(), JournalError> {
        let event = match end {
            End::Finished(finish, usage) => {
                self.record.finished(finish, usage);
                Event::Done(Done { finish, usage, timing: self.record.timing() })
            }
            End::Failed(problem) => {
                self.record.failed(problem.kind());
                Event::Failed(problem)
            }
        };
        self.writer.append(&[event]).await
    }
}

impl From<EarlyEnd> for End {
    fn from(end: EarlyEnd) -> Self {
        match end {
            EarlyEnd::Stopped => Self::Finished(Finish::Stopped, None),
            EarlyEnd::OutOfTime => Self::Finished(Finish::Length, None),
            EarlyEnd::Abandoned => Self::Failed(Problem::abandoned()),
            EarlyEnd::Interrupted => Self::Failed(Problem::interrupted()),
        }
    }
}

/// What is waited for, unless the early end comes first.
async fn unless<T>(
    early: &mut Pin<&mut impl Future<Output = EarlyEnd>>,
    wanted: impl Future<Output = T>,
) -> Result<T, EarlyEnd> {
    tokio::select! {
        biased;
        end = early => Err(end),
        wanted = wanted => Ok(wanted),
    }
}

/// The early end, at the latest when the time is over that there is for the whole answer.
async fn within(total: Option<Duration>, early: Pin<&mut impl Future<Output = EarlyEnd>>) -> EarlyEnd {
    match total {
        Some(total) => timeout(total, early).await.unwrap_or(EarlyEnd::OutOfTime),
        None => early.await,
    }
}

fn idle() -> Problem {
    Problem::new(Kind::IdleTimeout, "the model was silent for too long; try again")
}
