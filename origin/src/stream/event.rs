//! The events of a stream: chunks and thoughts, then exactly one terminal event.

use headwater_protocol::Problem;
use serde::{Deserialize, Serialize};

use super::Finish;

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A piece of the answer, never empty.
    Chunk(String),
    /// A piece of the model's thoughts, never empty.
    Reasoning(String),
    /// The terminal event of an answer that ended well.
    Done(Done),
    /// The terminal event of one that did not.
    Failed(Problem),
}

/// The data of a good end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Why the answer ended.
    pub finish: Finish,
    /// The tokens; absent where the answer ended before the model reported them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// How long it took.
    pub timing: Timing,
}

/// Tokens read and written by the model, as far as it reports them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input_tokens: u64,
    /// Tokens of the answer.
    pub output_tokens: u64,
}

/// Times since the stream was started, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Until the first token; absent where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
    /// Until the end.
    pub total_ms: u64,
}

impl Event {
    /// Whether no event follows this one.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Chunk(_) | Self::Reasoning(_))
    }
}
