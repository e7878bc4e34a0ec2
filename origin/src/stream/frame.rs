//! Frames: events as Server-Sent Events.
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

use memchr::memmem;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use headwater_protocol::StreamId;

use super::Event;

/// The longest JSON of a chunk's text, bytes without its quotes.
pub const CHUNK_BYTES: usize = 16 * 1024;

/// The characters that end a line in Python's `splitlines`, but neither in JSON nor in an event stream. The others that do
/// are control characters, which JSON escapes anyway.
const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Writes event number `index` of the stream `id`.
pub fn frame(out: &mut String, id: &StreamId, index: u64, event: &Event) {
    match event {
        Event::Chunk(text) => {
            event_id(out, id, index);
            data(out, &Chunk { chunk: text });
        }
        Event::Reasoning(text) => {
            field(out, "event", &"reasoning");
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

/// The bytes that [`frame`] writes for thoughts, beyond those for a chunk of the same text.
pub const REASONING_BYTES: usize = "event: reasoning\n".len();

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

/// An event as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A chunk: the JSON of its text, with its quotes.
    Chunk(&'a [u8]),
    /// Thoughts, in the same way.
    Reasoning(&'a [u8]),
    /// A good end: [`Done`](super::Done) as JSON.
    Done(&'a [u8]),
    /// A bad end: the problem as JSON.
    Failed(&'a [u8]),
    /// What another version has written.
    Unknown,
}

/// Reads what [`frame`] has written.
pub fn read(frames: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = frames;
    std::iter::from_fn(move || {
        let end = memmem::find(rest, b"\n\n")?;
        let (frame, behind) = (&rest[..end], &rest[end + 2..]);
        rest = behind;
        Some(read_one(frame))
    })
}

fn read_one(frame: &[u8]) -> Frame<'_> {
    let (event, frame) = match frame.strip_prefix(b"event: ").and_then(split_line) {
        Some((event, behind)) => (event, behind),
        None => (&b""[..], frame),
    };
    let data = split_line(frame).and_then(|(_id, data)| data.strip_prefix(b"data: "));
    let Some(data) = data else { return Frame::Unknown };
    let text = data.strip_prefix(CHUNK_OPENS).and_then(|text| text.strip_suffix(b"}"));
    match (event, text) {
        (b"", Some(text)) => Frame::Chunk(text),
        (b"reasoning", Some(text)) => Frame::Reasoning(text),
        (b"done", _) => Frame::Done(data),
        (b"failed", _) => Frame::Failed(data),
        _ => Frame::Unknown,
    }
}

/// The line, and what follows it.
fn split_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\n', text)?;
    Some((&text[..end], &text[end + 1..]))
}

/// What stands before the text in a chunk's data.
const CHUNK_OPENS: &[u8] = b"{\"chunk\":";

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

/// Writes a field whose value is JSON.
pub fn data(out: &mut String, value: &impl Serialize) {
    field(out, "data", &json(value));
}

/// One line of JSON, for all who take a line's end to be one.
pub fn json(value: &impl Serialize) -> String {
    let mut json = Vec::with_capacity(128);
    // Our own types with string keys: writing them as JSON can't fail, and it is UTF-8.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut json, OneLine));
    String::from_utf8(json).unwrap_or_default()
}

/// The one place that writes a field. Ids and JSON hold no line end, which would end the field.
pub fn field(out: &mut String, name: &str, value: &impl Display) {
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
            out.clear();
            frame(&mut out, &id, index, &Event::Reasoning(text.clone()));
            prop_assert_eq!(out.len(), chunk_frame_bytes(&id, index, &text) + REASONING_BYTES);
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
    fn what_was_written_is_read_back_and_what_is_unknown_is_passed_over() {
        let text = "a\n\nevent: done\u{2028}\"";
        let written =
            frames(&[Event::Reasoning(text.into()), Event::Chunk(text.into()), Event::Failed(Problem::abandoned())])
                + "event: tool-call\nid: x\ndata: {\"chunk\":1}\n\n: comment\n\n";
        let found: Vec<Frame<'_>> = read(written.as_bytes()).collect();
        let text = json(&text);
        assert_eq!(found[..2], [Frame::Reasoning(text.as_bytes()), Frame::Chunk(text.as_bytes())]);
        assert!(matches!(found[2], Frame::Failed(data) if data.starts_with(b"{\"type\":\"/problems/abandoned\"")));
        assert_eq!(found[3..], [Frame::Unknown; 2]);
    }
}
