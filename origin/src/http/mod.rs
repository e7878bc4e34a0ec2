//! HTTP: the only folder that knows it. Requests become calls on the hub, and their results answers.
//!
//! # Layout
//! - [`server`]: sockets, deadlines, the connection cap, graceful drain.
//! - `deadline`: a request's head, and the time until the next one.
//! - [`router`]: which path is which handler.
//! - `prompts`, `chat`, `openai`: how streams are started, a handler for each family of paths; `start`: what they share.
//! - `follow`, `stop`, `health`: a handler each.
//! - `request`: what several handlers read of a request.
//! - [`auth`]: the edge's secret.
//! - `problem`: a problem as an answer.

pub mod auth;
mod chat;
mod deadline;
mod follow;
mod health;
mod openai;
mod problem;
mod prompts;
mod request;
pub mod router;
pub mod server;
mod start;
mod stop;
