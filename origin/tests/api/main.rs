//! The origin through a real socket, with a scripted model.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod answers;
mod chat;
mod ends;
mod figures;
mod http;
mod idempotency;
mod keys;
mod limits;
mod load;
mod openai;
mod redis;
mod resume;
mod wire;
