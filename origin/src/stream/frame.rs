//! Frames: events as Server-Sent Events, and the opening event of a response.
//!
//! The format is WHATWG HTML section 9.2.5. Every line ends in LF. Data is always JSON, so that no line end of a
//! model's text can end a field.
//!
//! Many clients parse less than the standard has, so frames stay within what all of them read:
//! - Each event has data. For a block without data httpx-sse and fetch-event-source hand out an event with empty data,
//!   which is no JSON.
//! - Each blank line ends an event. Once httpx-sse has seen an id it hands out an event at every blank line, also at one
//!   behind a comment.
//! - No line is long. Go's `bufio.Scanner` gives up at 64 KiB, aiohttp at 128 KiB.
//! - No data holds a character that ends a line elsewhere. Python's `splitlines` also splits at U+0085, U+2028 and U+2029.

use std::{
    fmt::{Display, Write as _},
    io,
};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use headwater_protocol::{Cursor, StreamId};

use super::Event;

/// The media type of an event stream. It is UTF-8 by definition, but Python's `requests` reads text of no named encoding as
/// ISO-8859-1. There half of an "Å" is U+0085, at which it ends the line.
pub const MEDIA_TYPE: &str = "text/event-stream; charset=utf-8";
/// A comment, sent in silence so that nothing on the way takes the stream for dead. It is one line: a blank line
/// behind it would end no event.
pub const HEARTBEAT: &str = ": keep-alive\n";
/// The longest JSON of a chunk's text, bytes without its quotes.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// How a response is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Ids, comments, and a terminal event.
    Framed,
    /// Only data; a failure breaks the connection off, so that it never looks complete.
    Bare,
}

/// How long a native EventSource waits before it reconnects, milliseconds.
const RETRY_MS: u32 = 1000;

/// The characters that end a line in Python's `splitlines`, but neither in JSON nor in an event stream. The others that do
/// are control characters, which JSON escapes anyway.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The opening event of a framed response. It sets the retry time, and leaves `cursor` with a native EventSource
/// (section 9.2.6), so that even a stream that is cut before its first token is resumed.
pub fn opening(cursor: &Cursor) -> String {
    let mut out = String::with_capacity(160);
    field(&mut out, "retry", &RETRY_MS);
    field(&mut out, "event", &"stream");
    field(&mut out, "id", cursor);
    data(&mut out, &Opening { id: cursor.id.as_str(), next: cursor.next });
    out.push('\n');
    out
}

/// Writes event number `index` of the stream `id`.
pub fn frame(out: &mut String, id: &StreamId, index: u64, event: &Event) {
    match event {
        Event::Chunk(text) => {
            event_id(out, id, index);
            data(out, &Chunk { chunk: text });
        }
        Event::Done(done) => {
            field(out, "event", &"done");
            event_id(out, id, index);
            data(out, done);
        }
        Event::Failed(problem) => {
            // Not "error": an EventSource would deliver that to its own error handlers.
            field(out, "event", &"failed");
            event_id(out, id, index);
            data(out, &problem.event_data());
        }
    }
    out.push('\n');
}

/// The bytes that [`frame`] writes for this chunk.
pub fn chunk_frame_bytes(id: &StreamId, index: u64, text: &str) -> usize {
    let around = "id: .\ndata: {\"chunk\":\"\"}\n\n".len();
    let digits = index.checked_ilog10().unwrap_or(0) as usize + 1;
    around + id.as_str().len() + digits + text.chars().map(json_bytes).sum::<usize>()
}

/// Cuts a text between characters, so that the JSON of no piece is longer than [`CHUNK_BYTES`].
pub fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut is_over = |&(_, char): &(usize, char)| {
            bytes += json_bytes(char);
            bytes > CHUNK_BYTES
        };
        let end = rest.char_indices().find(&mut is_over).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The frames in bare framing: of each chunk what follows its id, and nothing of a terminal event.
pub fn bare(frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len());
    let mut terminal = false;
    for line in frames.split_inclusive(|&byte| byte == b'\n') {
        match line {
            b"\n" if terminal => terminal = false,
            _ if line.starts_with(b"event:") => terminal = true,
            _ if terminal || line.starts_with(b"id:") => {}
            _ => out.extend_from_slice(line),
        }
    }
    out
}

#[derive(Serialize)]
struct Opening<'a> {
    id: &'a str,
    next: u64,
}

#[derive(Serialize)]
struct Chunk<'a> {
    chunk: &'a str,
}

/// Writes JSON that escapes [`LINE_ENDS`], too.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Most of what models write: nothing to look for.
        if fragment.is_ascii() {
            return writer.write_all(fragment.as_bytes());
        }
        let mut start = 0;
        for (at, end) in fragment.match_indices(LINE_ENDS) {
            writer.write_all(&fragment.as_bytes()[start..at])?;
            end.chars().try_for_each(|end| write!(writer, "\\u{:04x}", u32::from(end)))?;
            start = at + end.len();
        }
        writer.write_all(&fragment.as_bytes()[start..])
    }
}

/// The bytes that a character takes in [`OneLine`]'s JSON.
fn json_bytes(char: char) -> usize {
    match char {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => "\\n".len(),
        '\0'..' ' | '\u{85}' | '\u{2028}' | '\u{2029}' => "\\u2028".len(),
        _ => char.len_utf8(),
    }
}

fn event_id(out: &mut String, id: &StreamId, index: u64) {
    field(out, "id", &format_args!("{id}.{index}"));
}

fn data(out: &mut String, value: &impl Serialize) {
    let mut json = Vec::with_capacity(128);
    // Our own types with string keys: writing them as JSON can't fail, and it is UTF-8.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut json, OneLine));
    field(out, "data", &String::from_utf8(json).unwrap_or_default());
}

/// The one place that writes a field. Ids and JSON hold no line end, which would end the field.
fn field(out: &mut String, name: &str, value: &impl Display) {
    let start = out.len();
    // Writing to a string can't fail.
    let _ = write!(out, "{name}: {value}");
    debug_assert!(!out[start..].contains('\n') && !out[start..].contains('\r'), "a field is one line");
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use headwater_protocol::Problem;

    use super::*;
    use crate::stream::{Done, Finish, Timing, Usage};

    const ID: &str = "a-0123456789ABCDEFGHIJkl";

    fn frames(events: &[Event]) -> String {
        let id = ID.parse().unwrap();
        let mut out = String::new();
        (0..).zip(events).for_each(|(index, event)| frame(&mut out, &id, index, event));
        out
    }

    #[test]
    fn a_response_opens_with_its_cursor_and_the_number_of_the_next_event() {
        let opening = |cursor: &str| opening(&cursor.parse().unwrap());
        let fields = "retry: 1000\nevent: stream\n";
        assert_eq!(opening(ID), format!("{fields}id: {ID}\ndata: {{\"id\":\"{ID}\",\"next\":0}}\n\n"));
        let resumed = format!("{ID}.7");
        assert_eq!(opening(&resumed), format!("{fields}id: {resumed}\ndata: {{\"id\":\"{ID}\",\"next\":8}}\n\n"));
    }

    #[test]
    fn frames_are_written_as_the_contract_says() {
        let done = Event::Done(Done {
            finish: Finish::Stop,
            usage: Some(Usage { input_tokens: 14, output_tokens: 57 }),
            timing: Timing { first_token_ms: Some(41), total_ms: 930 },
        });
        assert_eq!(
            frames(&[Event::Chunk("Bushy".into()), done]),
            format!(
                "id: {ID}.0\ndata: {{\"chunk\":\"Bushy\"}}\n\n\
                 event: done\nid: {ID}.1\ndata: {{\"finish\":\"stop\",\
                 \"usage\":{{\"input_tokens\":14,\"output_tokens\":57}},\
                 \"timing\":{{\"first_token_ms\":41,\"total_ms\":930}}}}\n\n"
            )
        );
        assert_eq!(
            frames(&[Event::Failed(Problem::abandoned())]),
            format!(
                "event: failed\nid: {ID}.0\ndata: {{\"type\":\"/problems/abandoned\",\"title\":\"Abandoned\",\
                 \"detail\":\"the generation was ended because nobody was reading\",\"retryable\":true}}\n\n"
            )
        );
    }

    #[test]
    fn no_data_holds_a_character_that_ends_a_line_for_some_reader() {
        let text = "a\u{85}b\u{2028}c\u{2029}d\u{b}\u{c}\u{1c}\u{1d}\u{1e}\r\n\u{7f}";
        let written = frames(&[Event::Chunk(text.into()), Event::Failed(Problem::bad_request(text))]);
        let data: Vec<&str> = written.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        for json in &data {
            assert!(!json.chars().any(|char| char < ' ' || LINE_ENDS.contains(&char)), "{json:?}");
        }
        let read = |json: &str, name: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()[name].clone();
        assert_eq!((read(data[0], "chunk"), read(data[1], "detail")), (text.into(), text.into()));
    }

    proptest! {
        #[test]
        fn a_chunks_frame_is_as_long_as_was_counted(text in any_text(), index in 0..u64::MAX) {
            let id: StreamId = ID.parse().unwrap();
            let mut out = String::new();
            frame(&mut out, &id, index, &Event::Chunk(text.clone()));
            prop_assert_eq!(out.len(), chunk_frame_bytes(&id, index, &text));
        }

        #[test]
        fn pieces_are_the_text_and_none_is_too_long(text in any_text(), times in 1..2_000usize) {
            let text = text.repeat(times);
            let pieces: Vec<&str> = pieces(&text).collect();
            prop_assert_eq!(pieces.concat(), &*text);
            for (at, piece) in pieces.iter().enumerate() {
                let bytes: usize = piece.chars().map(json_bytes).sum();
                prop_assert!(bytes <= CHUNK_BYTES);
                // No character is longer than six bytes.
                prop_assert!(bytes > CHUNK_BYTES - 6 || at + 1 == pieces.len(), "a piece holds what it can");
            }
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[\u{0}-\u{a0}\u{2020}-\u{2030}\u{1f9a6}]{0,12}"]
    }

    #[test]
    fn bare_framing_is_the_chunks_data_alone() {
        let text = "\r\n\nevent: done\ndata: {}\n\nid: 1";
        let framed = frames(&[Event::Chunk("a".into()), Event::Chunk(text.into()), Event::Failed(Problem::internal())]);
        let second = serde_json::json!({ "chunk": text });
        assert_eq!(bare(framed.as_bytes()), format!("data: {{\"chunk\":\"a\"}}\n\ndata: {second}\n\n").as_bytes());
    }
}
