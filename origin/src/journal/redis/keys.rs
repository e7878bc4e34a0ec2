//! The names of keys, and entries as Redis keeps them.
//!
//! | key (after `headwater:`) | type | holds | expires |
//! |---|---|---|---|
//! | `events:ID` | stream | entry `0-1` is the opening record of a stream; entry `0-N` begins with event N - 2 | the retention after its end; a lease later where it has none |
//! | `lease:ID` | string | the instance that writes it | after the lease |
//! | `readers:ID` | string | nothing; there are readers on other instances | after two thirds of the lease |
//! | `key:KEY` | hash | the stream's id and the claim's fingerprint | with the events |
//! | `inbox:INSTANCE` | stream | messages to this instance | a lease after the last message |

use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::{IdempotencyKey, Problem, StreamId};
use redis::{Cmd, cmd, streams::StreamId as RedisEntry};

use crate::{
    journal::shared::backend::Message,
    stream::{Entry, Opening, Terminal},
};

/// The number of the first event's entry. The one before is the opening record; Redis takes no 0-0.
const FIRST: u64 = 2;

/// The id before all entries and messages.
pub(super) const START: &str = "0-0";

/// The field of an opening record.
const OPENING: &str = "opening";
/// The fields of an entry.
const FRAMES: &str = "frames";
const TERMINAL: &str = "ending";
/// What the keys of events begin with.
const EVENTS: &str = "headwater:events:";
/// All messages, each the name of a field whose value is the stream's id.
const MESSAGES: [(Message, &str); 3] = [(Message::Reader, "reader"), (Message::Stop, "stop"), (Message::Wake, "wake")];

pub(super) fn events(id: &StreamId) -> String {
    format!("{EVENTS}{id}")
}

/// The stream whose events this key holds.
pub(super) fn stream_of(events: &str) -> Option<StreamId> {
    events.strip_prefix(EVENTS)?.parse().ok()
}

pub(super) fn lease(id: &StreamId) -> String {
    format!("headwater:lease:{id}")
}

pub(super) fn readers(id: &StreamId) -> String {
    format!("headwater:readers:{id}")
}

pub(super) fn key(key: &IdempotencyKey) -> String {
    format!("headwater:key:{}", key.as_str())
}

pub(super) fn inbox(instance: &str) -> String {
    format!("headwater:inbox:{instance}")
}

/// The id of the entry that begins with event `first`.
pub(super) fn entry_id(first: u64) -> String {
    format!("0-{}", first.saturating_add(FIRST))
}

/// The id behind which the entry lies that begins with event `first`.
pub(super) fn before(first: u64) -> String {
    format!("0-{}", first.saturating_add(FIRST - 1))
}

/// The command that adds an entry, unless there is no such stream.
pub(super) fn add(id: &StreamId, entry: &Entry) -> Cmd {
    let mut add = cmd("XADD");
    add.arg(events(id)).arg("NOMKSTREAM").arg(entry_id(entry.first)).arg(FRAMES).arg(&entry.frames[..]);
    if let Some(terminal) = &entry.terminal {
        add.arg(TERMINAL).arg(serde_json::to_string(terminal).unwrap_or_default());
    }
    add
}

/// An opening record as it was added; `None` where it is something else.
pub(super) fn opening(found: &RedisEntry) -> Option<Opening> {
    serde_json::from_str(&found.get::<String>(OPENING)?).ok()
}

/// An entry as it was added; `None` where it is something else.
pub(super) fn entry(found: &RedisEntry) -> Option<Entry> {
    let first = found.id.strip_prefix("0-")?.parse::<u64>().ok()?.checked_sub(FIRST)?;
    let frames: Bytes = found.get(FRAMES).filter(|frames: &Bytes| frames.ends_with(b"\n\n"))?;
    // An origin of another version may have written a terminal event that can't be read here; its frame can be sent.
    let unknown = || Terminal { after: Duration::MAX, failed: Some(Problem::internal()), refused: false };
    let terminal =
        found.get::<String>(TERMINAL).map(|terminal| serde_json::from_str(&terminal).unwrap_or_else(|_| unknown()));
    Some(Entry { first, frames, terminal })
}

/// The field that carries a message.
pub(super) fn field(message: Message) -> &'static str {
    MESSAGES.iter().find(|(named, _)| *named == message).map_or("", |(_, name)| name)
}

/// A message as it was sent; `None` where it is something else.
pub(super) fn message(found: &RedisEntry) -> Option<(Message, StreamId)> {
    MESSAGES.iter().find_map(|(message, name)| Some((*message, found.get::<String>(name)?.parse().ok()?)))
}
