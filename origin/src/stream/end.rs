//! Every way a stream ends, each with exactly one terminal event.
//!
//! | who ends it | how | terminal event |
//! |---|---|---|
//! | the model | its last token | `done`: [`Finish::Stop`], [`Finish::Length`], [`Finish::ContentFilter`] |
//! | a reader | `DELETE /streams/ID`: [`Cancel::Stopped`] | `done`: [`Finish::Stopped`] |
//! | nobody reads | the linger is over, at once where no reader can return: [`Cancel::Abandoned`] | `failed`, `abandoned` |
//! | a limit | the total timeout: [`Cancel::OutOfTime`]; the stream's size | `done`: [`Finish::Length`] |
//! | a timeout | no first token, or none for too long | `failed`, `first-token-timeout`, `idle-timeout` |
//! | the model's failure | its tokens break off, or hold an error | `failed`, `model-…`, `rate-limited`, `overloaded` |
//! | shutdown | the drain is over: [`Cancel::Interrupted`] | `failed`, `interrupted` |
//! | another origin | the owner's lease has lapsed | `failed`, `interrupted` |
//! | the shared journal | it is away for too long, or has lost the stream | `failed`, `journal` |
//! | a bug | the generation panics or is dropped, and with it its writer | `failed`, `internal` |

use std::time::Duration;

use headwater_protocol::Problem;
use serde::{Deserialize, Serialize};

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// The model had no more to say.
    Stop,
    /// A limit was reached.
    Length,
    /// The provider's filter ended it.
    ContentFilter,
    /// The reader asked for the end.
    Stopped,
}

/// Why a generation ends before its answer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// A reader stopped it.
    Stopped,
    /// Nobody reads it any more.
    Abandoned,
    /// It has taken as long as an answer may.
    OutOfTime,
    /// The origin is shutting down.
    Interrupted,
}

/// The terminal event, as a journal keeps it beside its frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal {
    /// The time from its opening to its terminal event.
    pub after: Duration,
    /// The problem, where it is `failed`.
    pub failed: Option<Problem>,
    /// It came in place of a first token, before its owner answered a start with the stream: starts are answered with the
    /// problem instead.
    #[serde(default)]
    pub refused: bool,
}

impl Finish {
    /// The reason's name in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ContentFilter => "content-filter",
            Self::Stopped => "stopped",
        }
    }
}
