//! Reads all followed streams and the inbox in one command, which blocks, on a connection of its own.

use std::time::Duration;

use headwater_protocol::StreamId;
use redis::{
    AsyncConnectionConfig, Client, RedisResult,
    aio::MultiplexedConnection,
    cmd,
    streams::{StreamId as RedisEntry, StreamReadReply},
};

use super::{
    connection::{COMMAND_TIMEOUT, CONNECT_TIMEOUT},
    keys,
};
use crate::journal::{
    JournalError,
    shared::backend::{Subscription, Update},
};

/// How long the command blocks: a server that is there answers this often.
const BLOCK: Duration = Duration::from_secs(1);

/// A connection that waits for entries and messages.
pub struct RedisSubscription {
    connection: MultiplexedConnection,
    inbox: String,
    /// The id of the last message.
    last: String,
}

impl RedisSubscription {
    /// Reads the inbox from its beginning.
    pub(super) async fn connect(client: &Client, inbox: String) -> RedisResult<Self> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(BLOCK + COMMAND_TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Self { connection, inbox, last: keys::START.to_owned() })
    }

    async fn read(&mut self, followed: Vec<(StreamId, u64)>) -> RedisResult<StreamReadReply> {
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(&self.inbox);
        for (id, _) in &followed {
            read.arg(keys::events(id));
        }
        read.arg(&self.last);
        for (_, next) in &followed {
            read.arg(keys::before(*next));
        }
        let reply: Option<StreamReadReply> = read.query_async(&mut self.connection).await?;
        Ok(reply.unwrap_or_default())
    }

    /// What an entry of the inbox or of a stream says; `None` where an inbox holds something unknown.
    fn update(&mut self, stream: Option<&StreamId>, found: RedisEntry) -> Option<Update> {
        let Some(id) = stream.cloned() else {
            let message = keys::message(&found);
            self.last = found.id;
            return message.map(|(message, id)| Update::Message(message, id));
        };
        Some(keys::entry(&found).map_or(Update::Unreadable(id.clone()), |entry| Update::Entry(id, entry)))
    }
}

impl Subscription for RedisSubscription {
    async fn next(&mut self, followed: Vec<(StreamId, u64)>) -> Result<Vec<Update>, JournalError> {
        let reply = self.read(followed).await?;
        let mut updates = Vec::new();
        for stream in reply.keys {
            let id = keys::stream_of(&stream.key);
            updates.extend(stream.ids.into_iter().filter_map(|found| self.update(id.as_ref(), found)));
        }
        Ok(updates)
    }
}
