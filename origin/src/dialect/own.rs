//! This project's own dialect: the frames as they are, an opening event before them, comments in silence.

use bytes::Bytes;
use headwater_protocol::{Cursor, Problem};
use serde::Serialize;

use super::input::{self, Input};
use crate::stream::frame::{data, field};

/// The media type of an event stream. It is UTF-8 by definition, but Python's `requests` reads text of no named encoding as
/// ISO-8859-1. There half of an "Å" is U+0085, at which it ends the line.
pub const MEDIA_TYPE: &str = "text/event-stream; charset=utf-8";
/// A comment, sent in silence so that nothing on the way takes the stream for dead. It is one line: a blank line
/// behind it would end no event.
pub const HEARTBEAT: &str = ": keep-alive\n";

/// How long a native EventSource waits before it reconnects, milliseconds.
const RETRY_MS: u32 = 1000;

/// The most of an unknown member's name that is told, characters.
const LONGEST_NAME: usize = 64;

/// The members of a request with a conversation.
const MEMBERS: [&str; 7] = ["messages", "model", "max_tokens", "temperature", "top_p", "stop", "seed"];

/// Reads a request: `{"messages": [{"role": "user", "content": "…"}]}`, and beside it `model` and options.
///
/// # Errors
/// It is no JSON object, has members that aren't known, or its messages can't be read.
pub fn request(body: &[u8]) -> Result<Input, Problem> {
    let mut fields = input::Fields::parse(body)?;
    let input = fields.input()?;
    match fields.rest().find(|name| !MEMBERS.contains(name)) {
        Some(name) => {
            let known = MEMBERS.join(", ");
            // As much of it as a message may hold.
            let name: String = name.chars().take(LONGEST_NAME).collect();
            let detail = format!("unknown member {name:?}; the members are: {known}");
            Err(Problem::bad_param(name, detail))
        }
        None => Ok(input),
    }
}

/// Writes a response.
pub(super) struct Writer(Cursor);

impl Writer {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self(cursor)
    }
}

impl super::Writer for Writer {
    fn open(&mut self) -> Bytes {
        opening(&self.0).into()
    }

    fn write(&mut self, frames: Bytes) -> Bytes {
        frames
    }
}

/// The opening event of a framed response. It sets the retry time, and leaves `cursor` with a native EventSource
/// (HTML section 9.2.6), so that even a stream that is cut before its first token is resumed.
pub fn opening(cursor: &Cursor) -> String {
    let mut out = String::with_capacity(160);
    field(&mut out, "retry", &RETRY_MS);
    field(&mut out, "event", &"stream");
    field(&mut out, "id", cursor);
    data(&mut out, &Opening { id: cursor.id.as_str(), next: cursor.next });
    out.push('\n');
    out
}

#[derive(Serialize)]
struct Opening<'a> {
    id: &'a str,
    next: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "a-0123456789ABCDEFGHIJkl";

    #[test]
    fn a_response_opens_with_its_cursor_and_the_number_of_the_next_event() {
        let opening = |cursor: &str| opening(&cursor.parse().unwrap());
        let fields = "retry: 1000\nevent: stream\n";
        assert_eq!(opening(ID), format!("{fields}id: {ID}\ndata: {{\"id\":\"{ID}\",\"next\":0}}\n\n"));
        let resumed = format!("{ID}.7");
        assert_eq!(opening(&resumed), format!("{fields}id: {resumed}\ndata: {{\"id\":\"{ID}\",\"next\":8}}\n\n"));
    }
}
