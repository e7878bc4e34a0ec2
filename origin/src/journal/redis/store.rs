//! What Redis holds, and the commands that are sent to it.
//!
//! | key (after `headwater:`) | type | holds | expires |
//! |---|---|---|---|
//! | `events:ID` | stream | the entries of a stream; entry `0-N` begins with event N - 1 | the retention after its end; a lease later where it has none |
//! | `lease:ID` | string | the instance that writes it | after the lease |
//! | `readers:ID` | string | nothing; there are readers on other instances | after two thirds of the lease |
//! | `key:KEY` | hash | the stream's id and the claim's fingerprint | with the events |
//! | `inbox:INSTANCE` | stream | what other instances tell this one | a lease after the last message |
//!
//! An instance is a process, under a random name: an origin that was restarted under its name is another one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use headwater_protocol::{IdempotencyKey, Problem, StreamId};
use rand::{RngExt, distr::Alphanumeric};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, Script,
    ScriptInvocation, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection},
    cmd, pipe,
    streams::{StreamId as RedisEntry, StreamRangeReply},
};

use super::super::{Idempotency, JournalError};
use crate::{
    config::redis::Address,
    stream::{Entry, MAX_APPEND, Stream, Terminal},
};

/// How long Redis may take to accept a connection, and to answer: it is away then.
const ANSWER: Duration = MAX_APPEND;
/// How long a stream is kept at the least, for those who are reading it.
const LEAST: Duration = Duration::from_secs(5);
/// Messages that an inbox holds, about.
const INBOX: usize = 1000;
/// Characters of an instance's name.
const INSTANCE_CHARS: usize = 22;

/// Opens a stream, or returns what its key was claimed with before.
/// KEYS: events, lease, and the key where there is one. ARGV: id, instance, lease, retention, fingerprint.
const OPEN: &str = r"
-- An earlier attempt, whose answer was lost: an id is used once.
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
if KEYS[3] then
  local claimed = redis.call('HMGET', KEYS[3], 'fingerprint', 'id')
  if claimed[1] then return claimed end
  redis.call('HSET', KEYS[3], 'fingerprint', ARGV[5], 'id', ARGV[1])
  redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
-- The one way to an empty stream is a group. It exists from now on, so where it doesn't, Redis has lost it.
redis.call('XGROUP', 'CREATE', KEYS[1], 'opened', '0', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', KEYS[1], 'opened')
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return false
";

/// Frees a key, if it is still this stream's. KEYS: key. ARGV: id.
const FREE: &str = r"
if redis.call('HGET', KEYS[1], 'id') == ARGV[1] then redis.call('DEL', KEYS[1]) end
";

pub(in super::super) struct Store {
    shared: Mutex<ConnectionManager>,
    client: Client,
    open: Script,
    free: Script,
    instance: String,
    retention: Duration,
    lease: Duration,
}

/// What one instance tells another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Message {
    /// The stream has a reader elsewhere.
    Reader,
    /// The stream is to be stopped.
    Stop,
    /// To itself: one more stream is followed.
    Wake,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Added {
    /// Redis holds it.
    Kept,
    /// There is one in its place.
    Taken,
    /// There is no such stream.
    Gone,
}

/// A stream as Redis holds it.
pub(in super::super) struct Kept {
    pub(in super::super) entries: Vec<Entry>,
    /// The instance that writes it, where there is one.
    pub(in super::super) owner: Option<String>,
}

impl Store {
    pub(in super::super) async fn connect(
        address: &Address,
        retention: Duration,
        lease: Duration,
    ) -> RedisResult<Self> {
        let client = Client::open(address.connection())?;
        let shared = Mutex::new(ConnectionManager::new_with_config(client.clone(), connection()).await?);
        let instance: String = rand::rng().sample_iter(Alphanumeric).take(INSTANCE_CHARS).map(char::from).collect();
        let (open, free) = (Script::new(OPEN), Script::new(FREE));
        Ok(Self { shared, client, open, free, instance, retention: retention.max(LEAST), lease })
    }

    /// This process.
    pub(in super::super) fn instance(&self) -> &str {
        &self.instance
    }

    /// Opens a stream; or returns the fingerprint and the stream that its key was claimed with.
    pub(in super::super) async fn open(
        &self,
        id: &StreamId,
        claim: Option<&Idempotency>,
    ) -> RedisResult<Option<(Bytes, StreamId)>> {
        let mut open = self.open.key(events(id));
        open.key(lease(id)).arg(id.as_str()).arg(&self.instance).arg(millis(self.lease)).arg(millis(self.keep()));
        if let Some(claim) = claim {
            open.key(key(&claim.key)).arg(&claim.fingerprint[..]);
        }
        claimed_with(self.invoke(&open).await?)
    }

    /// What the server tells of itself.
    pub(in super::super) async fn info(&self) -> RedisResult<String> {
        self.ask(&cmd("INFO")).await
    }

    /// Asks for an answer, whatever else there is to send.
    pub(in super::super) async fn ping(&self) -> RedisResult<()> {
        self.ask(&cmd("PING")).await
    }

    /// The fingerprint and the stream that the key was claimed with.
    pub(in super::super) async fn claimed(&self, claimed: &IdempotencyKey) -> RedisResult<Option<(Bytes, StreamId)>> {
        let mut get = cmd("HMGET");
        get.arg(key(claimed)).arg("fingerprint").arg("id");
        let (fingerprint, id): (Option<Bytes>, Option<String>) = self.ask(&get).await?;
        claimed_with(fingerprint.zip(id))
    }

    /// Adds an entry in its place.
    pub(in super::super) async fn add(&self, id: &StreamId, entry: &Entry) -> RedisResult<Added> {
        let mut add = cmd("XADD");
        add.arg(events(id)).arg("NOMKSTREAM").arg(place(entry.first)).arg("frames").arg(&entry.frames[..]);
        if let Some(terminal) = &entry.terminal {
            add.arg("ending").arg(serde_json::to_string(terminal).unwrap_or_default());
        }
        match self.ask::<Option<String>>(&add).await {
            Ok(Some(_)) => Ok(Added::Kept),
            Ok(None) => Ok(Added::Gone),
            Err(error) if error.detail().is_some_and(|detail| detail.contains("equal or smaller")) => Ok(Added::Taken),
            Err(error) => Err(error),
        }
    }

    /// The stream has ended: it is nobody's any more, and expires with its key after the retention.
    pub(in super::super) async fn finish(&self, id: &StreamId, claimed: Option<&IdempotencyKey>) -> RedisResult<()> {
        let mut finish = pipe();
        finish.pexpire(events(id), millis(self.retention)).ignore().del(lease(id)).ignore();
        if let Some(claimed) = claimed {
            finish.pexpire(key(claimed), millis(self.retention)).ignore();
        }
        self.ask_all(&finish).await
    }

    /// The stream's entries from event `first` on; `None` where there is no such stream.
    pub(in super::super) async fn load(&self, id: &StreamId, first: u64) -> RedisResult<Option<Kept>> {
        let mut load = pipe();
        load.exists(events(id)).xrange(events(id), place(first), "+").get(lease(id));
        let (exists, range, owner): (bool, StreamRangeReply, Option<String>) = self.ask_all(&load).await?;
        if !exists {
            return Ok(None);
        }
        let entries: Option<Vec<Entry>> = range.ids.iter().map(entry).collect();
        Ok(Some(Kept { entries: entries.ok_or_else(unreadable)?, owner }))
    }

    /// The instance that writes the stream.
    pub(in super::super) async fn owner(&self, id: &StreamId) -> RedisResult<Option<String>> {
        self.ask(&Cmd::get(lease(id))).await
    }

    /// Frees the stream's key at once, and its lease; its events stay for a moment, for those who are reading them.
    pub(in super::super) async fn discard(&self, id: &StreamId, claimed: Option<&IdempotencyKey>) -> RedisResult<()> {
        if let Some(claimed) = claimed {
            self.invoke::<()>(self.free.key(key(claimed)).arg(id.as_str())).await?;
        }
        let mut forget = pipe();
        forget.pexpire(events(id), millis(LEAST)).ignore().del(lease(id)).ignore();
        self.ask_all(&forget).await
    }

    /// Puts a message into an instance's inbox.
    pub(in super::super) async fn tell(&self, instance: &str, message: Message, id: &StreamId) -> RedisResult<()> {
        let inbox = inbox(instance);
        let mut tell = pipe();
        tell.cmd("XADD").arg(&inbox).arg("MAXLEN").arg("~").arg(INBOX).arg("*").arg(message.name()).arg(id.as_str());
        tell.ignore().pexpire(&inbox, millis(self.lease)).ignore();
        self.ask_all(&tell).await
    }

    /// There are readers of the stream here.
    pub(in super::super) async fn read_here(&self, id: &StreamId) -> RedisResult<()> {
        self.ask(&self.set_readers(id)).await
    }

    /// Renews the leases and puts off the expiry of streams that are written here; whether each is read elsewhere.
    /// A lease is renewed without writing it anew where it can be: a server that is out of memory allows no more.
    pub(in super::super) async fn renew(
        &self,
        written: &[(StreamId, Option<IdempotencyKey>)],
    ) -> RedisResult<Vec<bool>> {
        if written.is_empty() {
            return Ok(Vec::new());
        }
        let mut renew = pipe();
        for (id, claimed) in written {
            renew.pexpire(lease(id), millis(self.lease));
            renew.pexpire(events(id), millis(self.keep())).ignore();
            if let Some(claimed) = claimed {
                renew.pexpire(key(claimed), millis(self.keep())).ignore();
            }
            renew.exists(readers(id));
        }
        let found: Vec<(bool, bool)> = self.ask_all(&renew).await?;
        let mut lapsed = pipe();
        for ((id, _), (held, _)) in written.iter().zip(&found) {
            if !held {
                lapsed.pset_ex(lease(id), &self.instance, millis(self.lease) as u64).ignore();
            }
        }
        if !lapsed.is_empty() {
            self.ask_all::<()>(&lapsed).await?;
        }
        Ok(found.into_iter().map(|(_, read)| read).collect())
    }

    /// Says that these streams are read here; whether each is there and has an owner.
    pub(in super::super) async fn watch(&self, read: &[Arc<Stream>]) -> RedisResult<Vec<bool>> {
        if read.is_empty() {
            return Ok(Vec::new());
        }
        let mut watch = pipe();
        for id in read.iter().map(|stream| stream.id()) {
            watch.add_command(self.set_readers(id)).ignore().exists(&[events(id), lease(id)]);
        }
        let found: Vec<u8> = self.ask_all(&watch).await?;
        Ok(found.into_iter().map(|keys| keys == 2).collect())
    }

    /// A connection of the tail's own, whose commands block for up to `block`.
    pub(in super::super) async fn listen(&self, block: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(block + ANSWER));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn set_readers(&self, id: &StreamId) -> Cmd {
        Cmd::pset_ex(readers(id), "", (millis(self.lease) * 2 / 3) as u64)
    }

    /// Until when a running stream is kept if it isn't renewed.
    fn keep(&self) -> Duration {
        self.retention + self.lease
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.send(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        self.send(|mut connection| async move { commands.query_async(&mut connection).await }).await
    }

    async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        self.send(|mut connection| async move { script.invoke_async(&mut connection).await }).await
    }

    /// Sends once, and once more where the connection broke before the answer.
    async fn send<T, F: Future<Output = RedisResult<T>>>(
        &self,
        attempt: impl Fn(ConnectionManager) -> F,
    ) -> RedisResult<T> {
        let mut answer = attempt(self.connection()).await;
        if lost(&answer) {
            answer = attempt(self.connection()).await;
        }
        self.answered(answer)
    }

    fn connection(&self) -> ConnectionManager {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The manager connects again where the connection broke. Where it was refused, or leads to a server that takes
    /// no writes any more, that is left to us.
    fn answered<T>(&self, answer: RedisResult<T>) -> RedisResult<T> {
        use ServerErrorKind::{MasterDown, ReadOnly};
        if let Err(error) = &answer
            && let ErrorKind::AuthenticationFailed
            | ErrorKind::Parse
            | ErrorKind::InvalidClientConfig
            | ErrorKind::RESP3NotSupported
            | ErrorKind::Server(ReadOnly | MasterDown) = error.kind()
            && let Ok(anew) = ConnectionManager::new_lazy_with_config(self.client.clone(), connection())
        {
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = anew;
        }
        answer
    }
}

/// Who asks tries again: a command that waited for several attempts would keep its caller waiting.
fn connection() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(ANSWER))
        .set_response_timeout(Some(ANSWER))
}

impl Message {
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Stop => "stop",
            Self::Wake => "wake",
        }
    }
}

/// An error that names Redis.
#[derive(Debug, thiserror::Error)]
#[error("redis: {0}")]
struct Redis(#[source] RedisError);

impl From<RedisError> for JournalError {
    fn from(error: RedisError) -> Self {
        Self(Redis(error).into())
    }
}

/// Whether the connection broke before its answer. Servers close idle connections (`timeout`), and a command may be the first
/// to notice. Each command can be repeated: an entry and a stream have ids of their own, and the others set what they set.
fn lost<T>(answer: &RedisResult<T>) -> bool {
    answer.as_ref().is_err_and(|error| (error.is_io_error() || error.is_connection_dropped()) && !error.is_timeout())
}

/// What the keys of events begin with.
pub(in super::super) const EVENTS: &str = "headwater:events:";

pub(in super::super) fn events(id: &StreamId) -> String {
    format!("{EVENTS}{id}")
}

fn lease(id: &StreamId) -> String {
    format!("headwater:lease:{id}")
}

fn readers(id: &StreamId) -> String {
    format!("headwater:readers:{id}")
}

fn key(key: &IdempotencyKey) -> String {
    format!("headwater:key:{}", key.as_str())
}

pub(in super::super) fn inbox(instance: &str) -> String {
    format!("headwater:inbox:{instance}")
}

/// The id of the entry that begins with event `first`; Redis takes no 0-0.
fn place(first: u64) -> String {
    format!("0-{}", first.saturating_add(1))
}

/// An entry as it was added; `None` where it is something else.
pub(in super::super) fn entry(found: &RedisEntry) -> Option<Entry> {
    let first = found.id.strip_prefix("0-")?.parse::<u64>().ok()?.checked_sub(1)?;
    let frames: Bytes = found.get("frames").filter(|frames: &Bytes| frames.ends_with(b"\n\n"))?;
    // Of a newer origin it may not be understood here; the frames say it all the same.
    let unknown = || Terminal { after: Duration::MAX, failed: Some(Problem::internal()) };
    let terminal =
        found.get::<String>("ending").map(|ending| serde_json::from_str(&ending).unwrap_or_else(|_| unknown()));
    Some(Entry { first, frames, terminal })
}

/// The fingerprint and the stream that a key holds.
fn claimed_with(held: Option<(Bytes, String)>) -> RedisResult<Option<(Bytes, StreamId)>> {
    held.map(|(fingerprint, id)| Ok((fingerprint, id.parse().map_err(|_| unreadable())?))).transpose()
}

fn unreadable() -> RedisError {
    (ErrorKind::Parse, "what redis holds was not written by an origin").into()
}

/// PEXPIRE and PX take whole milliseconds.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
