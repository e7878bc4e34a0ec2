//! Remote models: the whole program against providers that answer by script, in each provider's protocol.

mod faults;
#[path = "../api/helpers.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod helpers;
mod keys;
mod process;
mod protocols;
mod provider;
#[path = "../redis_server/mod.rs"]
#[expect(dead_code, reason = "the journal's own tests use the rest")]
mod redis_server;
mod start;
