//! The plainest dialect: `data:` lines alone, for the fetch loop that most people begin with.

use bytes::Bytes;

use crate::stream::frame::{self, Frame};

/// Writes of each chunk its data, and nothing else.
pub(super) struct Writer;

impl super::Writer for Writer {
    fn open(&mut self) -> Bytes {
        Bytes::new()
    }

    fn write(&mut self, frames: Bytes) -> Bytes {
        let mut out = Vec::with_capacity(frames.len());
        for frame in frame::read(&frames) {
            if let Frame::Chunk(text) = frame {
                for part in [&b"data: {\"chunk\":"[..], text, b"}\n\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        out.into()
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::Problem;

    use super::{super::Writer as _, *};
    use crate::stream::Event;

    #[test]
    fn bare_framing_is_the_chunks_data_alone() {
        let text = "\r\n\nevent: done\ndata: {}\n\nid: 1";
        let events = [
            Event::Reasoning("hm".into()),
            Event::Chunk("a".into()),
            Event::Chunk(text.into()),
            Event::Failed(Problem::internal()),
        ];
        let (id, mut frames) = ("a-0123456789ABCDEFGHIJkl".parse().unwrap(), String::new());
        (0..).zip(&events).for_each(|(index, event)| frame::frame(&mut frames, &id, index, event));
        let second = serde_json::json!({ "chunk": text });
        assert_eq!(Writer.write(frames.into()), format!("data: {{\"chunk\":\"a\"}}\n\ndata: {second}\n\n"));
    }
}
