//! What an operator sees: the log, a record per stream, metrics. Knows numbers and ids only.
//!
//! # Layout
//! - [`log`]: what is logged, and how.
//! - [`record`]: one record per stream.
//! - [`metrics`]: metrics for Prometheus.

pub mod log;
pub mod metrics;
pub mod record;
