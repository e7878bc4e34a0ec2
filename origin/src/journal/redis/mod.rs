//! What the shared journal asks of Redis.
//!
//! # Layout
//! - `server`: which server it is, and whether it can keep a journal.
//! - `store`: what is kept there, and every command.

pub(super) mod server;
pub(super) mod store;
