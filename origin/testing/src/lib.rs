//! What the origin's tests, benchmarks and examples share. The shipped program has none of it.
//!
//! The unit tests inside the origin can't use this crate: it depends on the origin, and they would meet that as
//! a second crate with types of its own.
//!
//! # Layout
//! - [`scripted`]: a model that answers by script.
//! - [`origin`]: an origin in this process, on a port of its own, and requests to it.
//! - [`answer`]: what an answer holds: events, text, the terminal event, a problem.
//! - [`process`]: a server in a process of its own, its processor time and memory; this process's memory.
//! - `namespace`: a network of Linux for one test, whose link can go down.
//! - [`redis_server`]: a Redis server for one test.
//! - [`log`]: this process's log, captured.

pub mod answer;
pub mod log;
#[cfg(target_os = "linux")]
pub mod namespace;
pub mod origin;
pub mod process;
pub mod redis_server;
pub mod scripted;

pub use answer::{assert_opens, data, events, first_events, id_of, problem, terminal, text};
pub use log::CapturedLog;
#[cfg(target_os = "linux")]
pub use namespace::{Namespace, skipped};
pub use origin::{Origin, SECRET, open, spawn_origin, spawn_origin_at, start_bytes, until};
pub use process::{Process, free_address, resident};
pub use redis_server::RedisServer;
pub use scripted::Scripted;
