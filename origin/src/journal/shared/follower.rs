//! The follower: takes what other origins append to the streams that are read here, and the messages to this origin.

use std::{convert::Infallible, time::Duration};

use headwater_protocol::StreamId;
use tokio::time::{Instant, sleep};

use super::{
    super::JournalError,
    Inner,
    backend::{Backend, Message, Subscription, Update},
};
use crate::stream::{Append, Cancel};

/// From a lost connection to the next.
const RECONNECT: Duration = Duration::from_millis(200);

impl<B: Backend> Inner<B> {
    pub(super) async fn follow(&self) {
        let mut patience = self.patience();
        // Whether the last read failed: its first failure and its recovery are logged.
        let mut failing = false;
        loop {
            let read = async {
                let mut subscription = self.backend.subscribe().await?;
                loop {
                    let updates = subscription.next(self.positions()).await?;
                    patience = self.patience();
                    if std::mem::take(&mut failing) {
                        tracing::info!("streams of other origins are read again");
                    }
                    updates.into_iter().for_each(|update| self.take(update));
                }
            };
            let read: Result<Infallible, JournalError> = read.await;
            if let Err(error) = read
                && !std::mem::replace(&mut failing, true)
            {
                tracing::error!(%error, "streams of other origins can't be read");
            }
            self.fail_followed_after(patience);
            sleep(RECONNECT).await;
        }
    }

    /// The followed streams, each with the index of its next event. It holds none of them, so that one that nobody reads
    /// any more is dropped while the follower waits.
    fn positions(&self) -> Vec<(StreamId, u64)> {
        self.registry.followed().iter().map(|stream| (stream.id().clone(), stream.buffer.len())).collect()
    }

    fn take(&self, update: Update) {
        match update {
            Update::Entry(id, entry) => {
                if let Some(stream) = self.registry.find(&id)
                    && stream.buffer.append(&entry) == Append::Gap
                {
                    stream.fail_locally();
                }
            }
            Update::Unreadable(id) => {
                if let Some(stream) = self.registry.find(&id) {
                    stream.fail_locally();
                }
            }
            Update::Message(Message::Reader, id) => self.registry.read_elsewhere(&id, true, Instant::now()),
            Update::Message(Message::Stop, id) => {
                if self.registry.writes(&id)
                    && let Some(stream) = self.registry.find(&id)
                {
                    stream.readers.cancel(Cancel::Stopped);
                }
            }
            Update::Message(Message::Wake, _) => {}
        }
    }
}
