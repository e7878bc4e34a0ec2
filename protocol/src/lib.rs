//! What the edge and the origin both know. No I/O; builds for wasm and natively.
//!
//! # Layout
//! - [`id`]: an origin's name, a stream's id, a cursor.
//! - [`key`]: an idempotency key.
//! - [`prompt`]: a prompt's name and its variables.
//! - [`header`]: media types, and the request headers that both read.
//! - [`json`]: bodies, as JavaScript writes them.
//! - [`problem`]: every problem document, with its status (RFC 9457).
//! - [`openai`]: problems as clients of OpenAI's API read them.

pub mod header;
pub mod id;
pub mod json;
pub mod key;
pub mod openai;
pub mod problem;
pub mod prompt;

pub use id::{Cursor, OriginName, StreamId};
pub use key::IdempotencyKey;
pub use problem::{Kind, Problem};
pub use prompt::{PromptName, Variables};

/// The largest body of a request, bytes.
pub const MAX_BODY_BYTES: usize = 16 * 1024;
/// The largest body of a request with a conversation, bytes.
pub const MAX_CONVERSATION_BYTES: usize = 1024 * 1024;

/// The names of a cursor in a query, where headers can't be set, as with a native `EventSource`; the first wins. No
/// variable has these names.
///
/// npm's `event-source-polyfill` adds `lastEventId`, its newest cursor, to the query that it was opened with. So it wins
/// over `last_event_id`, which may stand there from the start.
pub const CURSOR_PARAMETERS: [&str; 2] = ["lastEventId", "last_event_id"];

/// The name of an idempotency key in a query. No variable has this name.
pub const KEY_PARAMETER: &str = "idempotency_key";
