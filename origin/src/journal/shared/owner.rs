//! Appends a stream's events: Redis holds them before a reader gets them.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use headwater_protocol::{IdempotencyKey, Problem};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{
    super::{JournalError, Writer, redis::store::Added},
    Inner,
};
use crate::stream::{Entry, Event, Stream};

/// From a failed attempt to the next.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Owner {
    journal: Arc<Inner>,
    stream: Arc<Stream>,
    key: Option<IdempotencyKey>,
    state: State,
}

/// What there is in Redis, and so what is to be done when the writer is dropped before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Perhaps a stream, which nobody was told of: it is forgotten, and its key is free.
    Opening,
    /// A stream: it ends as failed.
    Open,
    /// No stream, or one that is being ended.
    Nothing,
}

/// Why a stream ended without its writer's doing.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("another origin has ended the stream")]
    Elsewhere,
    #[error("redis has lost the stream")]
    Lost,
}

impl Owner {
    /// The writer of a stream that Redis is being asked to open.
    pub(super) fn opening(journal: Arc<Inner>, stream: Arc<Stream>, key: Option<IdempotencyKey>) -> Self {
        journal.registry.write(&stream);
        Self { journal, stream, key, state: State::Opening }
    }

    /// Redis has opened the stream.
    pub(super) fn opened(&mut self) {
        self.state = State::Open;
        if let Some(key) = &self.key {
            self.journal.registry.claimed(self.stream.id(), key.clone());
        }
    }

    /// There is no such stream in Redis, nor will there be.
    pub(super) fn not_opened(&mut self) {
        self.state = State::Nothing;
    }

    /// Keeps the entry, however often Redis has to be asked until patience ends. When this returns an error the
    /// stream has ended.
    async fn keep(&self, mut entry: Entry) -> Result<(), JournalError> {
        let patience = self.journal.patience();
        loop {
            let error = match self.journal.store.add(self.stream.id(), &entry).await {
                Ok(Added::Kept) => {
                    let _ = self.stream.buffer.append(&entry);
                    return Ok(());
                }
                Ok(Added::Taken) => match self.take(&entry).await {
                    Ok(taken) => return taken,
                    Err(error) => error,
                },
                Ok(Added::Gone) => return Err(self.lose(Ended::Lost.into())),
                Err(error) => error.into(),
            };
            if Instant::now() >= patience {
                return Err(self.lose(error));
            }
            sleep(RETRY).await;
            // It may be too late by now to tell a failure as a status.
            if let Some(terminal) = &mut entry.terminal {
                terminal.after = self.stream.age();
            }
        }
    }

    /// Takes what Redis holds in the entry's place: the entry itself, where the answer to an earlier attempt was
    /// lost, or the end that another origin wrote because it took this one for dead, or both.
    async fn take(&self, entry: &Entry) -> Result<Result<(), JournalError>, JournalError> {
        let Some(kept) = self.journal.store.load(self.stream.id(), entry.first).await? else {
            return Ok(Err(self.lose(Ended::Lost.into())));
        };
        for entry in &kept.entries {
            let _ = self.stream.buffer.append(entry);
        }
        let own = kept.entries.first().is_some_and(|first| first.frames == entry.frames);
        let ended = self.stream.buffer.has_ended();
        Ok(match (own, ended) {
            (true, ended) if ended == entry.terminal.is_some() => Ok(()),
            (_, true) => Err(Ended::Elsewhere.into()),
            (_, false) => Err(self.lose(Ended::Lost.into())),
        })
    }

    fn lose(&self, error: JournalError) -> JournalError {
        self.stream.fail_locally();
        error
    }

    async fn append(&self, events: &[Event]) -> Result<(), JournalError> {
        let entry = self.stream.entry(events);
        if self.stream.buffer.has_ended() {
            return Ok(());
        }
        let ends = entry.terminal.is_some();
        let kept = self.keep(entry).await;
        if self.stream.buffer.has_ended() {
            self.journal.registry.written(self.stream.id());
        }
        if kept.is_ok() && ends {
            // Where this fails they expire a little later by themselves.
            let _ = self.journal.store.finish(self.stream.id(), self.key.as_ref()).await;
        }
        kept
    }
}

impl Writer for Owner {
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>> {
        Owner::append(self, events).boxed()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.stream.buffer.has_ended() {
            return;
        }
        let (journal, stream, key) = (self.journal.clone(), self.stream.clone(), self.key.take());
        match (self.state, Handle::try_current()) {
            (State::Open, Ok(runtime)) => {
                let last = Self { journal, stream, key, state: State::Nothing };
                runtime.spawn(async move { last.append(&[Event::Failed(Problem::internal())]).await });
                return;
            }
            (State::Opening, Ok(runtime)) => {
                // On the connection on which it was opened, so behind that. Where this fails, too, its lease lapses.
                runtime.spawn(async move { journal.store.discard(stream.id(), key.as_ref()).await });
            }
            _ => {}
        }
        self.stream.fail_locally();
        self.journal.registry.written(self.stream.id());
    }
}

impl From<Ended> for JournalError {
    fn from(ended: Ended) -> Self {
        Self(ended.into())
    }
}
