//! The origin through a real socket, with a scripted model.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod answers;
mod ends;
mod figures;
mod helpers;
mod idempotency;
mod load;
mod resume;
mod wire;
