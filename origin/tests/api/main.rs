//! The origin through a real socket, with a scripted model.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod answers;
mod ends;
mod figures;
mod helpers;
mod http;
mod idempotency;
mod keys;
mod limits;
mod load;
mod redis;
#[path = "../redis_server/mod.rs"]
#[expect(dead_code, reason = "the journal's own tests use the rest")]
mod redis_server;
mod resume;
mod wire;
