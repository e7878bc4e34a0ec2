//! What is known of a stream from its opening on, and belongs to none of its events.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// A stream's opening record: with its frames all that a response is written from, so that each replay is the same to the
/// byte, at any origin. It is kept beside the events, and has no number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Opening {
    /// When it was opened, seconds since 1970.
    pub created: u64,
    /// The model, by the name that was asked for.
    pub model: String,
    /// Who started it, where the edge knows: nobody else may read or stop it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

impl Opening {
    /// The record of a stream that is opened now.
    pub fn now(model: String, caller: Option<String>) -> Self {
        let created = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        Self { created, model, caller }
    }
}
