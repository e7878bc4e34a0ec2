//! Dialects: how clients ask, and how their responses are written. Pure: none knows HTTP, the hub, or another dialect.
//!
//! A dialect is a pair: a request becomes a conversation, and the frames of a stream become the bytes of a response. The
//! dialect is the reader's and not the stream's: a stream that was started in one is read, resumed and stopped in any other.
//!
//! # Layout
//! - [`own`]: this project's: ids, comments, a terminal event.
//! - [`bare`]: the same chunks for the plainest reader.
//! - [`chat`]: OpenAI's chat completions.
//! - [`models`]: the list of models, as its clients read it.
//! - [`input`]: what requests have in common: messages and options as OpenAI names them.

pub mod bare;
pub mod chat;
pub mod input;
pub mod models;
pub mod own;

use bytes::Bytes;
use headwater_protocol::Cursor;

use crate::stream::Opening;

/// How a response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ids, comments, a terminal event.
    Own,
    /// Only chunks; a failure breaks the response off.
    Bare,
    /// A stream of OpenAI's chat completion chunks.
    Chat {
        /// The tokens are told at its end.
        usage: bool,
    },
    /// One chat completion, when its answer has ended.
    ChatWhole,
}

/// Writes one response from a stream's frames.
pub trait Writer: Send {
    /// What opens the response, before the first frame; may be empty. Called once.
    fn open(&mut self) -> Bytes;

    /// Whole frames as this dialect has them; may be empty. Called with each frame once, in order.
    fn write(&mut self, frames: Bytes) -> Bytes;
}

impl Dialect {
    /// The writer of a response that begins at the cursor. Only [`Dialect::Own`] begins elsewhere than at the start.
    pub fn writer(self, cursor: &Cursor, opening: &Opening) -> Box<dyn Writer> {
        match self {
            Self::Own => Box::new(own::Writer::new(cursor.clone())),
            Self::Bare => Box::new(bare::Writer),
            Self::Chat { usage } => Box::new(chat::StreamWriter::new(&cursor.id, opening, usage)),
            Self::ChatWhole => Box::new(chat::WholeWriter::new(&cursor.id, opening)),
        }
    }

    /// The response's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Own | Self::Bare | Self::Chat { .. } => own::MEDIA_TYPE,
            Self::ChatWhole => headwater_protocol::header::JSON,
        }
    }

    /// What is sent in silence, so that nothing on the way takes the response for dead. `None`: its readers know nothing but
    /// text.
    pub fn heartbeat(self) -> Option<&'static [u8]> {
        match self {
            // The chat's is the own one, with one line end: openai's Python package hands out an event at each blank line.
            Self::Own | Self::Chat { .. } => Some(own::HEARTBEAT.as_bytes()),
            Self::Bare => None,
            // White space before JSON is no part of it (RFC 8259, section 2).
            Self::ChatWhole => Some(b" "),
        }
    }

    /// Whether a failure breaks the response off, so that it doesn't look whole. Else it is told.
    pub fn breaks_off(self) -> bool {
        matches!(self, Self::Bare | Self::ChatWhole)
    }

    /// Whether it is another API's.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Chat { .. } | Self::ChatWhole)
    }

    /// Whether the response is one value, which is there when the answer has ended.
    pub fn is_whole(self) -> bool {
        self == Self::ChatWhole
    }
}
