//! Headwater's origin: turns a prompt into a model's answer and streams it as Server-Sent Events.
//!
//! # Layout
//! In the order of a request's way:
//! - [`program`]: from the command line to a running server.
//! - [`server`]: sockets: deadlines, the connection cap, graceful drain.
//! - [`routes`]: HTTP to calls on the hub, and back.
//! - [`prompt`]: named templates.
//! - [`stream`]: a stream's life: ids, journal, generation, readers.
//! - [`model`]: what turns a prompt into tokens.
//! - [`wire`]: events as bytes.
//! - [`problem`]: what the reader is told when something goes wrong.
//! - [`record`]: one record per stream, for the log.
//! - [`metrics`]: the figures.
//! - [`config`]: settings, from flags, the environment or a file; [`secrets`]: those from the environment alone.

pub mod config;
pub mod metrics;
pub mod model;
pub mod problem;
pub mod program;
pub mod prompt;
pub mod record;
pub mod routes;
pub mod secrets;
pub mod server;
pub mod stream;
pub mod wire;
