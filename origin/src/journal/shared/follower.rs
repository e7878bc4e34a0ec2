//! Reads what other origins write: all followed streams and this process's inbox, in one command on a connection of
//! its own, which blocks. (On the shared one it would hold everybody up.)

use std::{convert::Infallible, time::Duration};

use headwater_protocol::StreamId;
use redis::{
    Cmd, RedisResult, cmd,
    streams::{StreamId as RedisEntry, StreamReadReply},
};
use tokio::time::{Instant, sleep};

use super::{
    super::redis::store::{EVENTS, Message, entry, events, inbox},
    Inner,
};
use crate::stream::{Append, Cancel};

/// How long the command blocks: a server that is there says so this often.
const BLOCK: Duration = Duration::from_secs(1);
/// From a lost connection to the next.
const RECONNECT: Duration = Duration::from_millis(200);
/// The place before all messages.
const START: &str = "0-0";

impl Inner {
    pub(super) async fn follow(&self) {
        let mut patience = self.patience();
        // Whether the last read failed: its first failure and its recovery are logged.
        let mut failing = false;
        loop {
            let read = async {
                let mut connection = self.store.listen(BLOCK).await?;
                // Messages that came while nobody read are still there, and can be taken twice without harm.
                let mut heard = START.to_owned();
                loop {
                    let news = self.news(&heard).query_async(&mut connection).await?;
                    patience = self.patience();
                    if std::mem::take(&mut failing) {
                        tracing::info!("redis: streams of other origins are read again");
                    }
                    self.hear(news, &mut heard);
                }
            };
            let read: RedisResult<Infallible> = read.await;
            if let Err(error) = read
                && !std::mem::replace(&mut failing, true)
            {
                tracing::error!(%error, "redis: streams of other origins can't be read");
            }
            if Instant::now() >= patience {
                self.registry.all_followed().iter().for_each(|stream| stream.fail_locally());
            }
            sleep(RECONNECT).await;
        }
    }

    /// Asks for what is new in the inbox and in the followed streams. It holds no stream, so that one that
    /// nobody reads any more is dropped while this waits.
    fn news(&self, heard: &str) -> Cmd {
        let followed = self.registry.all_followed();
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(inbox(self.store.instance()));
        for stream in &followed {
            read.arg(events(stream.id()));
        }
        read.arg(heard);
        for stream in &followed {
            // Behind its last entry: the next one begins with the next event.
            read.arg(format!("0-{}", stream.buffer.len()));
        }
        read
    }

    fn hear(&self, news: Option<StreamReadReply>, heard: &mut String) {
        for stream in news.unwrap_or_default().keys {
            let followed = stream.key.strip_prefix(EVENTS).and_then(|id| id.parse::<StreamId>().ok());
            for found in stream.ids {
                match &followed {
                    Some(id) => self.written(id, &found),
                    None => {
                        self.told(&found);
                        *heard = found.id;
                    }
                }
            }
        }
    }

    /// Takes a followed stream's entry.
    fn written(&self, id: &StreamId, found: &RedisEntry) {
        let Some(stream) = self.registry.find(id) else { return };
        match entry(found).map(|entry| stream.buffer.append(&entry)) {
            Some(Append::Next(_) | Append::Repeated | Append::Closed) => {}
            // There must be no gap, and nobody writes anything else.
            Some(Append::Gap) | None => stream.fail_locally(),
        }
    }

    /// Takes a message.
    fn told(&self, found: &RedisEntry) {
        let about = |message: Message| found.get::<String>(message.name())?.parse::<StreamId>().ok();
        if let Some(id) = about(Message::Reader) {
            self.registry.elsewhere(&id, true, Instant::now());
        }
        if let Some(id) = about(Message::Stop)
            && self.registry.writes(&id)
            && let Some(stream) = self.registry.find(&id)
        {
            stream.readers.cancel(Cancel::Stopped);
        }
    }
}
