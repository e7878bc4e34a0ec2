//! Generations: from a start to the terminal event, and the readers that follow one.
//!
//! # Layout
//! - [`hub`]: start, attach, stop, linger, drain.
//! - `admission`: a slot for a running generation, or a place in the queue.
//! - `failures`: what a journal that fails means to readers and operators.
//! - `task`: the task that fills a stream.
//! - [`reader`]: what one connection gets of a stream.

mod admission;
mod failures;
pub mod hub;
pub mod reader;
mod task;

pub use hub::{Attached, Hub, Start};
pub use reader::Reader;
