//! Headwater's origin: turns a conversation into a model's answer and streams it as Server-Sent Events.
//!
//! # Layout
//! ```text
//!              app          builds everything below, waits for signals
//!               |
//!              http         sockets, routes, problems as answers
//!               |
//!           generation      a stream's life: start, attach, stop, drain
//!            /      \
//!       journal    model    where events are kept; what turns a conversation into tokens
//!            \      /
//!             stream        one stream in this process: events, frames, readers
//! ```
//! A module uses only modules below it:
//! - `main`: the program: which models the settings name.
//! - [`app`]: from the command line to a running server.
//! - [`http`]: the only folder that knows HTTP.
//! - [`generation`]: hub, admission, the task that fills a stream, its readers.
//! - [`journal`]: where streams are kept: in memory, or in Redis for several origins.
//! - [`model`]: the embedded model, providers, and their order of preference.
//! - [`config`]: settings from flags, the environment or a file.
//! - [`dialect`]: how clients ask, and how their responses are written: a file each, pure.
//! - [`prompt`]: conversations, and the templates that make one.
//! - [`stream`]: data only, no tasks, no I/O.
//! - [`telemetry`]: log, record, metrics.

pub mod app;
pub mod config;
pub mod dialect;
pub mod generation;
pub mod http;
pub mod journal;
pub mod model;
pub mod prompt;
pub mod stream;
pub mod telemetry;
