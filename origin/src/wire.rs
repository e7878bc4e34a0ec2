//! Frames: events as Server-Sent Events, and what a response begins with.
//!
//! The format is WHATWG HTML section 9.2.5. Data is always JSON, so that no line end of a model's text can
//! end a field; every line ends in LF.

use std::fmt::Display;

use serde::Serialize;

use crate::stream::{Cursor, Event, StreamId};

/// The media type of an event stream.
pub const MEDIA_TYPE: &str = "text/event-stream";
/// A comment, sent in silence so that nothing on the way takes the stream for dead.
pub const HEARTBEAT: &str = ":\n\n";
/// How long a native EventSource waits before it reconnects, milliseconds.
const RETRY_MS: u32 = 1000;

/// What a framed response begins with: the retry time, and an event without data that is not dispatched but
/// leaves `cursor` with a native EventSource (section 9.2.6), so that even a stream cut before its first token
/// is resumed.
pub fn preamble(cursor: &Cursor) -> String {
    let mut out = String::with_capacity(64);
    field(&mut out, "retry", &RETRY_MS);
    field(&mut out, "id", cursor);
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
            data(out, &problem.document(None));
        }
    }
    out.push('\n');
}

/// The most that the frame of a chunk of `text` bytes can take, bytes: JSON writes a control character as six.
pub fn frame_bound(text: usize) -> usize {
    const AROUND: usize = 128;
    text.saturating_mul(6).saturating_add(AROUND)
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
struct Chunk<'a> {
    chunk: &'a str,
}

fn event_id(out: &mut String, id: &StreamId, index: u64) {
    field(out, "id", &format_args!("{id}.{index}"));
}

fn data(out: &mut String, value: &impl Serialize) {
    // Our own types with string keys: writing them as JSON can't fail.
    field(out, "data", &serde_json::to_string(value).unwrap_or_default());
}

/// The one place that writes a field. A line end in the value would end the field, so none gets through.
fn field(out: &mut String, name: &str, value: &impl Display) {
    out.extend([name, ": "]);
    out.extend(value.to_string().split(['\n', '\r']));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        problem::Problem,
        stream::{Done, Finish, Timing, Usage},
    };

    const ID: &str = "a-0123456789ABCDEFGHIJkl";

    fn frames(events: &[Event]) -> String {
        let id = ID.parse().unwrap();
        let mut out = String::new();
        (0..).zip(events).for_each(|(index, event)| frame(&mut out, &id, index, event));
        out
    }

    #[test]
    fn a_response_begins_with_its_cursor() {
        let cursor = |text: &str| preamble(&text.parse().unwrap());
        assert_eq!(cursor(ID), format!("retry: 1000\nid: {ID}\n\n"));
        assert_eq!(cursor(&format!("{ID}.7")), format!("retry: 1000\nid: {ID}.7\n\n"));
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
    fn bare_framing_is_the_chunks_data_alone() {
        let text = "\r\n\nevent: done\ndata: {}\n\nid: 1";
        let framed = frames(&[Event::Chunk("a".into()), Event::Chunk(text.into()), Event::Failed(Problem::internal())]);
        let second = serde_json::json!({ "chunk": text });
        assert_eq!(bare(framed.as_bytes()), format!("data: {{\"chunk\":\"a\"}}\n\ndata: {second}\n\n").as_bytes());
    }
}
