//! The owner of a stream: appends its events. A reader gets an event once the server holds it.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use headwater_protocol::{IdempotencyKey, Problem};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};

use super::{
    super::{JournalError, Writer},
    Inner,
    backend::{Appended, Backend},
};
use crate::stream::{Entry, Event, Stream};

/// From a failed attempt to the next.
const RETRY: Duration = Duration::from_millis(200);

pub(super) struct Owner<B: Backend> {
    journal: Arc<Inner<B>>,
    stream: Arc<Stream>,
    key: Option<IdempotencyKey>,
    state: State,
}

/// How far the stream has got on the server; decides what `Drop` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It may be open, and no start was answered with it: `Drop` discards it.
    Opening,
    /// It is open: `Drop` ends it as failed.
    Open,
    /// It isn't there, or is being ended.
    Closed,
}

impl<B: Backend> Owner<B> {
    /// The owner of a stream that the server is being asked to open.
    pub(super) fn opening(journal: Arc<Inner<B>>, stream: Arc<Stream>, key: Option<IdempotencyKey>) -> Self {
        journal.registry.write(&stream);
        Self { journal, stream, key, state: State::Opening }
    }

    /// The server has opened the stream.
    pub(super) fn opened(&mut self) {
        self.state = State::Open;
        if let Some(key) = &self.key {
            self.journal.registry.claimed(self.stream.id(), key.clone());
        }
    }

    /// The server has no such stream, nor will it.
    pub(super) fn not_opened(&mut self) {
        self.state = State::Closed;
    }

    /// Appends the entry, however often the server has to be asked until patience ends. When this returns an error the
    /// stream has ended.
    async fn append_entry(&self, entry: &Entry) -> Result<(), JournalError> {
        let patience = self.journal.patience();
        loop {
            let appended = match self.journal.backend.append(self.stream.id(), entry).await {
                Ok(Appended::Done) => {
                    let _ = self.stream.buffer.append(entry);
                    Ok(())
                }
                Ok(Appended::Conflict) => self.reconcile(entry).await,
                Ok(Appended::Missing) => Err(JournalError::Lost),
                Err(error) => Err(error),
            };
            match appended {
                Err(JournalError::Unavailable(_)) if Instant::now() < patience => sleep(RETRY).await,
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.stream.fail_locally();
                    return Err(error);
                }
            }
        }
    }

    /// Takes what the server holds from the entry's index on: the entry itself, where the answer to an earlier attempt
    /// was lost; or the end that another origin has appended, because it took this one for dead; or both.
    async fn reconcile(&self, entry: &Entry) -> Result<(), JournalError> {
        let stored = self.journal.backend.load(self.stream.id(), entry.first).await?;
        for entry in &stored {
            let _ = self.stream.buffer.append(entry);
        }
        let is_own = stored.first().is_some_and(|first| first.frames == entry.frames);
        let has_ended = self.stream.buffer.has_ended();
        if is_own && has_ended == entry.terminal.is_some() {
            Ok(())
        } else if has_ended {
            Err(JournalError::Fenced)
        } else {
            Err(JournalError::Lost)
        }
    }

    async fn append(&self, events: &[Event]) -> Result<(), JournalError> {
        let entry = self.stream.next_entry(events);
        if self.stream.buffer.has_ended() {
            return Ok(());
        }
        let appended = self.append_entry(&entry).await;
        if self.stream.buffer.has_ended() {
            self.journal.registry.unwrite(self.stream.id());
        }
        if appended.is_ok() && entry.terminal.is_some() {
            // Where this fails they expire a little later by themselves.
            let _ = self.journal.backend.finish(self.stream.id(), self.key.as_ref()).await;
        }
        appended
    }
}

impl<B: Backend> Writer for Owner<B> {
    fn append<'a>(&'a mut self, events: &'a [Event]) -> BoxFuture<'a, Result<(), JournalError>> {
        Owner::append(self, events).boxed()
    }
}

impl<B: Backend> Drop for Owner<B> {
    fn drop(&mut self) {
        if self.stream.buffer.has_ended() {
            return;
        }
        let (journal, stream, key) = (self.journal.clone(), self.stream.clone(), self.key.take());
        match (self.state, Handle::try_current()) {
            (State::Open, Ok(runtime)) => {
                let last = Self { journal, stream, key, state: State::Closed };
                runtime.spawn(async move { last.append(&[Event::Failed(Problem::internal())]).await });
                return;
            }
            // Without a key nobody finds the stream, and it expires by itself.
            (State::Opening, Ok(runtime)) => {
                if let Some(key) = key {
                    journal.registry.unconfirm(key.clone(), stream.id().clone());
                    // Where this fails, too, it is repeated, from time to time and by the next start with the key.
                    runtime.spawn(async move { journal.free(&key).await });
                }
            }
            _ => {}
        }
        self.stream.fail_locally();
        self.journal.registry.unwrite(self.stream.id());
    }
}
