//! The server of a shared journal: Redis, 6.2 or later, with Redis Streams.
//!
//! # Layout
//! - `commands`: every command of the journal.
//! - `subscription`: the one command that blocks, on a connection of its own.
//! - `keys`: the names of keys, and entries as they are kept.
//! - `connection`: sends commands, and once more where the connection broke.
//! - `server`: which server it is, and whether it can keep a journal.

mod commands;
mod connection;
mod keys;
mod server;
mod subscription;

use std::time::Duration;

use redis::RedisError;

pub use self::commands::Redis;
use self::server::Server;
use super::{JournalError, shared::SharedJournal};
use crate::config::redis::Address;

/// Streams in Redis, shared by all origins that use the same server.
pub type RedisJournal = SharedJournal<Redis>;

impl RedisJournal {
    /// A journal at `address` that keeps finished streams for `retention`, whose origins hold their streams by a `lease`
    /// ([`LEASE`](super::shared::LEASE) unless a test is in a hurry), and which keeps `replay_bytes` of finished streams
    /// at hand.
    ///
    /// # Errors
    /// The server can't be reached, refuses, or is none that can keep a journal.
    pub async fn connect(
        address: &Address,
        retention: Duration,
        lease: Duration,
        replay_bytes: usize,
    ) -> Result<Self, JournalError> {
        let redis = Redis::connect(address, retention, lease).await?;
        match redis.info().await {
            Ok(info) => Server::of(&info).check().map_err(|error| JournalError::Unavailable(error.into()))?,
            Err(error) => tracing::warn!(%error, "redis doesn't tell its version, its mode and its maxmemory-policy"),
        }
        Ok(Self::new(redis, lease, replay_bytes))
    }
}

/// An error that names Redis.
#[derive(Debug, thiserror::Error)]
#[error("redis: {0}")]
struct Refused(#[source] RedisError);

impl From<RedisError> for JournalError {
    fn from(error: RedisError) -> Self {
        Self::Unavailable(Refused(error).into())
    }
}
