//! Every command of the journal but the one that blocks.

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::{IdempotencyKey, StreamId};
use rand::{RngExt, distr::Alphanumeric};
use redis::{
    Client, Cmd, RedisResult, Script, cmd, pipe,
    streams::{StreamRangeReply, StreamReadReply},
};

use super::{
    connection::{COMMAND_TIMEOUT, Connection},
    keys::{self, events, inbox, key, lease, readers},
    subscription::RedisSubscription,
};
use crate::{
    config::redis::Address,
    journal::{
        Idempotency, JournalError,
        shared::backend::{Appended, Backend, Claim, Message, Stored},
    },
    stream::{Entry, Opening},
};

/// How long a stream may take to be loaded: as long as the edge waits for an answer.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stream is kept at the least, for those who are reading it.
const MIN_RETENTION: Duration = Duration::from_secs(5);
/// Messages that an inbox holds, about.
const INBOX_MESSAGES: usize = 1000;
/// Characters of an instance's name.
const INSTANCE_CHARS: usize = 22;

/// Opens a stream, unless its key was taken before; returns whether it has.
/// KEYS: events, lease, and the key where there is one. ARGV: id, instance, lease, retention, opening record, fingerprint.
const OPEN: &str = r"
-- An earlier attempt, whose answer was lost: an id is used once.
if redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
if KEYS[3] then
  if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
  redis.call('HSET', KEYS[3], 'fingerprint', ARGV[6], 'id', ARGV[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
-- The stream exists from now on, so where it doesn't, Redis has lost it.
redis.call('XADD', KEYS[1], '0-1', 'opening', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
";

/// Frees a key, if it is still this stream's. KEYS: key. ARGV: id.
const FREE: &str = r"
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end
";

/// A Redis server, as this process uses it.
pub struct Redis {
    client: Client,
    /// For everything but loads.
    commands: Connection,
    /// For whole streams: their bytes would hold up appends and leases.
    loads: Connection,
    open: Script,
    free: Script,
    instance: String,
    retention: Duration,
    lease: Duration,
}

impl Redis {
    pub(super) async fn connect(address: &Address, retention: Duration, lease: Duration) -> RedisResult<Self> {
        let client = Client::open(address.connection())?;
        let commands = Connection::connect(&client, COMMAND_TIMEOUT).await?;
        let loads = Connection::lazy(&client, LOAD_TIMEOUT)?;
        let instance = rand::rng().sample_iter(Alphanumeric).take(INSTANCE_CHARS).map(char::from).collect();
        let (open, free) = (Script::new(OPEN), Script::new(FREE));
        Ok(Self { client, commands, loads, open, free, instance, retention: retention.max(MIN_RETENTION), lease })
    }

    /// What the server tells of itself.
    pub(super) async fn info(&self) -> RedisResult<String> {
        self.commands.command(&cmd("INFO")).await
    }

    fn set_readers(&self, id: &StreamId) -> Cmd {
        Cmd::pset_ex(readers(id), "", (millis(self.lease) * 2 / 3) as u64)
    }

    /// Until when a running stream is kept if it isn't renewed.
    fn running_retention(&self) -> Duration {
        self.retention + self.lease
    }
}

impl Backend for Redis {
    type Subscription = RedisSubscription;

    fn instance(&self) -> &str {
        &self.instance
    }

    async fn ping(&self) -> Result<(), JournalError> {
        Ok(self.commands.command(&cmd("PING")).await?)
    }

    async fn open(
        &self,
        id: &StreamId,
        opening: &Opening,
        idempotency: Option<&Idempotency>,
    ) -> Result<bool, JournalError> {
        let mut open = self.open.key(events(id));
        open.key(lease(id)).arg(id.as_str()).arg(&self.instance);
        open.arg(millis(self.lease)).arg(millis(self.running_retention()));
        open.arg(serde_json::to_string(opening).unwrap_or_default());
        if let Some(idempotency) = idempotency {
            open.key(key(&idempotency.key)).arg(&idempotency.fingerprint[..]);
        }
        Ok(self.commands.script(&open).await?)
    }

    async fn claim(&self, claimed: &IdempotencyKey) -> Result<Option<Claim>, JournalError> {
        let mut get = cmd("HMGET");
        get.arg(key(claimed)).arg("fingerprint").arg("id");
        let (fingerprint, id): (Option<Bytes>, Option<String>) = self.commands.command(&get).await?;
        let Some((fingerprint, id)) = fingerprint.zip(id) else { return Ok(None) };
        Ok(Some(Claim { fingerprint, id: id.parse().map_err(|_| JournalError::Unreadable)? }))
    }

    async fn append(&self, id: &StreamId, entry: &Entry) -> Result<Appended, JournalError> {
        match self.commands.command::<Option<String>>(&keys::add(id, entry)).await {
            Ok(Some(_)) => Ok(Appended::Done),
            Ok(None) => Ok(Appended::Missing),
            Err(error) if error.detail().is_some_and(|detail| detail.contains("equal or smaller")) => {
                Ok(Appended::Conflict)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn finish(&self, id: &StreamId, claimed: Option<&IdempotencyKey>) -> Result<(), JournalError> {
        let mut finish = pipe();
        finish.pexpire(events(id), millis(self.retention)).ignore().del(lease(id)).ignore();
        if let Some(claimed) = claimed {
            finish.pexpire(key(claimed), millis(self.retention)).ignore();
        }
        Ok(self.commands.pipeline(&finish).await?)
    }

    async fn look(&self, id: &StreamId) -> Result<Option<Stored>, JournalError> {
        let mut look = pipe();
        look.cmd("XREAD").arg("COUNT").arg(1).arg("STREAMS").arg(events(id)).arg(keys::START);
        look.get(lease(id)).pttl(events(id));
        let (first, owner, ttl): (Option<StreamReadReply>, Option<String>, i64) = self.commands.pipeline(&look).await?;
        let Some(first) = first.as_ref().and_then(|read| read.keys.first()?.ids.first()) else { return Ok(None) };
        let opening = keys::opening(first).ok_or(JournalError::Unreadable)?;
        Ok(Some(Stored { opening, owner, expires: Duration::from_millis(ttl.try_into().unwrap_or(0)) }))
    }

    async fn load(&self, id: &StreamId, first: u64) -> Result<Vec<Entry>, JournalError> {
        let load = Cmd::xrange(events(id), keys::entry_id(first), "+");
        let range: StreamRangeReply = self.loads.command(&load).await?;
        range.ids.iter().map(keys::entry).collect::<Option<_>>().ok_or(JournalError::Unreadable)
    }

    async fn discard(&self, id: &StreamId, claimed: Option<&IdempotencyKey>) -> Result<(), JournalError> {
        if let Some(claimed) = claimed {
            self.commands.script::<()>(self.free.key(key(claimed)).arg(id.as_str())).await?;
        }
        let mut discard = pipe();
        discard.pexpire(events(id), millis(MIN_RETENTION)).ignore().del(lease(id)).ignore();
        Ok(self.commands.pipeline(&discard).await?)
    }

    async fn send(&self, instance: &str, message: Message, id: &StreamId) -> Result<(), JournalError> {
        let inbox = inbox(instance);
        let mut send = pipe();
        send.cmd("XADD").arg(&inbox).arg("MAXLEN").arg("~").arg(INBOX_MESSAGES).arg("*");
        send.arg(keys::field(message)).arg(id.as_str()).ignore();
        send.pexpire(&inbox, millis(self.lease)).ignore();
        Ok(self.commands.pipeline(&send).await?)
    }

    /// A lease is renewed without writing it anew where it can be: a server that is out of memory allows no more.
    async fn renew(&self, written: &[(StreamId, Option<IdempotencyKey>)]) -> Result<Vec<bool>, JournalError> {
        let mut renew = pipe();
        for (id, claimed) in written {
            renew.pexpire(lease(id), millis(self.lease));
            renew.pexpire(events(id), millis(self.running_retention())).ignore();
            if let Some(claimed) = claimed {
                renew.pexpire(key(claimed), millis(self.running_retention())).ignore();
            }
            renew.exists(readers(id));
        }
        let found: Vec<(bool, bool)> = self.commands.pipeline(&renew).await?;
        let mut lapsed = pipe();
        for ((id, _), (held, _)) in written.iter().zip(&found) {
            if !held {
                lapsed.pset_ex(lease(id), &self.instance, millis(self.lease) as u64).ignore();
            }
        }
        if !lapsed.is_empty() {
            self.commands.pipeline::<()>(&lapsed).await?;
        }
        Ok(found.into_iter().map(|(_, read)| read).collect())
    }

    async fn mark_read(&self, followed: &[StreamId]) -> Result<Vec<bool>, JournalError> {
        let mut mark = pipe();
        for id in followed {
            mark.add_command(self.set_readers(id)).ignore().exists(&[events(id), lease(id)]);
        }
        let found: Vec<u8> = self.commands.pipeline(&mark).await?;
        Ok(found.into_iter().map(|keys| keys == 2).collect())
    }

    async fn subscribe(&self) -> Result<RedisSubscription, JournalError> {
        Ok(RedisSubscription::connect(&self.client, inbox(&self.instance)).await?)
    }
}

/// PEXPIRE and PX take whole milliseconds.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
