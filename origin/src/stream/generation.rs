//! The task that fills a stream: it asks the model, appends what comes, and writes the one terminal event.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::time::timeout;

use super::{
    Done, Event, Finish, JournalError, Limits, Log, Timing, Usage, Writer,
    audience::{EarlyEnd, early_end},
    limits::Slot,
};
use crate::{
    model::{Model, ModelError, Token, fallback::Fallback},
    problem::{Kind, Problem},
    record::Record,
    wire,
};

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
            // The writer ends the stream as failed when it is dropped.
            tracing::error!(stream = %self.log.id(), %error, "the stream could not be kept");
        }
    }

    /// Appends the answer as it comes. When it returns the model's stream is dropped, and with that cancelled.
    async fn answer(&mut self, slot: Slot) -> Result<End, JournalError> {
        let mut early = pin!(early_end(self.log.clone(), self.limits.linger));
        let _permit = tokio::select! {
            biased;
            end = &mut early => return Ok(end.into()),
            permit = slot.acquire() => permit,
        };
        let stream = self.log.id();
        let failed = |model: &dyn Model, error: &ModelError| {
            tracing::warn!(%stream, model = model.name(), %error, "the model gave no first token");
        };
        let mut answer = match next(&mut early, self.models.begin(&self.prompt, failed)).await {
            Next::Early(end) => return Ok(end.into()),
            Next::Token(Ok(answer)) => answer,
            Next::Token(Err(error)) => return Ok(End::Failed(Problem::from(&error))),
        };
        self.record.answered_by(answer.model());
        loop {
            let token = match next(&mut early, timeout(self.limits.idle_timeout, answer.next())).await {
                Next::Early(end) => return Ok(end.into()),
                Next::Token(Ok(token)) => token,
                Next::Token(Err(_)) => return Ok(End::Failed(idle())),
            };
            match token {
                Ok(Token::Text(text)) => {
                    if self.log.size() + wire::frame_bound(text.len()) > self.limits.stream_bytes {
                        return Ok(End::Finished(Finish::Length, None));
                    }
                    self.record.token();
                    self.writer.append(&[Event::Chunk(text)]).await?;
                }
                Ok(Token::End { finish, usage }) => return Ok(End::Finished(finish, usage)),
                Err(error) => {
                    tracing::warn!(stream = %self.log.id(), model = answer.model(), %error, "the model failed");
                    return Ok(End::Failed(Problem::from(&error)));
                }
            }
        }
    }

    /// Appends the terminal event.
    async fn close(&mut self, end: End) -> Result<(), JournalError> {
        let event = match end {
            End::Finished(finish, usage) => {
                self.record.finished(finish, usage);
                let timing = Timing::new(self.record.first_token(), self.record.elapsed());
                Event::Done(Done { finish, usage, timing })
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
            EarlyEnd::Abandoned => Self::Failed(Problem::abandoned()),
            EarlyEnd::Interrupted => Self::Failed(Problem::interrupted()),
        }
    }
}

/// What comes first: the early end, or what is waited for.
enum Next<T> {
    Early(EarlyEnd),
    Token(T),
}

async fn next<T>(early: &mut Pin<&mut impl Future<Output = EarlyEnd>>, token: impl Future<Output = T>) -> Next<T> {
    tokio::select! {
        biased;
        end = early => Next::Early(end),
        token = token => Next::Token(token),
    }
}

fn idle() -> Problem {
    Problem::new(Kind::IdleTimeout, "the model was silent for too long; try again")
}
