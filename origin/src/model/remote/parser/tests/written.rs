//! Random answers, in every protocol. The writer is plain string building: it shares nothing with the reader.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Heard, hear};
use crate::{
    config::model::Protocol::{self, Anthropic, Gemini, Ollama, OpenAi},
    stream::Usage,
};

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Thought(String),
    /// What another choice says.
    Other(String),
    /// The role alone.
    Role,
    Ping,
}

#[derive(Clone, Debug)]
struct Answer {
    parts: Vec<Part>,
    finish: &'static str,
    usage: Usage,
}

/// How it is written.
#[derive(Clone, Debug)]
struct Manner {
    /// Which characters are escaped: one of so many.
    escapes: u32,
    line_ends: Vec<&'static str>,
    mark: bool,
    /// Between members.
    space: &'static str,
}

fn part() -> impl Strategy<Value = Part> {
    // `.` has no line feed; the other has the characters that JSON and Server-Sent Events care for.
    let text = || prop_oneof![".{0,12}", "[\u{0}-\u{1f}\"\\\\\u{7f}\u{2028}data: \u{1f400}-\u{1f9ff}]{0,12}"];
    prop_oneof![
        4 => text().prop_map(Part::Text),
        1 => text().prop_map(Part::Thought),
        1 => text().prop_map(Part::Other),
        1 => Just(Part::Role),
        1 => Just(Part::Ping),
    ]
}

prop_compose! {
    fn answer()(
        parts in prop::collection::vec(part(), 0..12),
        finish in prop::sample::select(vec!["stop", "length", "MAX_TOKENS", "end_turn", "a_new_word"]),
        input_tokens in 1..100_000_u64,
        output_tokens in 1..100_000_u64,
    ) -> Answer {
        // An answer has its first choice.
        let parts = [vec![Part::Role], parts].concat();
        Answer { parts, finish, usage: Usage { input_tokens, output_tokens } }
    }
}

prop_compose! {
    fn manner()(
        escapes in 1..5_u32,
        line_ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 1..4),
        mark in any::<bool>(),
        space in prop::sample::select(vec!["", " ", "\t"]),
    ) -> Manner {
        Manner { escapes, line_ends, mark, space }
    }
}

impl Manner {
    /// A JSON string.
    fn string(&self, text: &str) -> String {
        let mut written = String::from('"');
        for character in text.chars() {
            let must = matches!(character, '"' | '\\' | '\0'..='\u{1f}');
            if must || u32::from(character) % self.escapes == 1 {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(written, "\\u{unit:04x}").unwrap();
                }
            } else {
                written.push(character);
            }
        }
        written.push('"');
        written
    }

    fn events(&self, events: &[(&str, String)]) -> String {
        let mut ends = self.line_ends.iter().cycle();
        let mut end = || *ends.next().unwrap();
        let mut body = String::from(if self.mark { "\u{feff}" } else { "" });
        for (event, data) in events {
            if !event.is_empty() {
                write!(body, "event: {event}{}", end()).unwrap();
            }
            // CR and then LF would be one end.
            write!(body, "data: {data}{}: comment{}\r\n", end(), end()).unwrap();
        }
        body
    }

    fn openai(&self, answer: &Answer) -> String {
        let space = self.space;
        let choice = |index: u32, members: &str| {
            let comma = if members.is_empty() { "" } else { "," };
            format!("{{{space}\"choices\":{space}[{{\"index\":{index}{comma}{members}}}]}}")
        };
        let mut events: Vec<_> = (answer.parts.iter())
            .map(|part| match part {
                Part::Text(text) => choice(0, &format!("\"delta\":{space}{{\"content\":{}}}", self.string(text))),
                Part::Thought(text) => choice(0, &format!("\"delta\":{{\"reasoning\":{}}}", self.string(text))),
                Part::Other(text) => choice(1, &format!("\"delta\":{{\"content\":{}}}", self.string(text))),
                Part::Role => choice(0, "\"delta\":{\"role\":\"assistant\",\"content\":null},\"finish_reason\":null"),
                Part::Ping => "{\"choices\":[]}".into(),
            })
            .collect();
        events.push(choice(0, &format!("\"finish_reason\":{}", self.string(answer.finish))));
        let Usage { input_tokens, output_tokens } = answer.usage;
        let usage = format!("{{\"prompt_tokens\":{input_tokens},{space}\"completion_tokens\":{output_tokens}}}");
        events.push(format!("{{\"choices\":[],\"usage\":{usage}}}"));
        events.push("[DONE]".into());
        self.events(&events.into_iter().map(|data| ("", data)).collect::<Vec<_>>())
    }

    fn anthropic(&self, answer: &Answer) -> String {
        let Usage { input_tokens, output_tokens } = answer.usage;
        let delta = |members: String| {
            let data = format!("{{\"type\":\"content_block_delta\",{}\"delta\":{{{members}}}}}", self.space);
            ("content_block_delta", data)
        };
        let start =
            format!("{{\"type\":\"message_start\",\"message\":{{\"usage\":{{\"input_tokens\":{input_tokens}}}}}}}");
        let mut events = vec![("message_start", start)];
        events.extend(answer.parts.iter().map(|part| match part {
            Part::Text(text) => delta(format!("\"text\":{},\"type\":\"text_delta\"", self.string(text))),
            Part::Thought(text) => delta(format!("\"type\":\"thinking_delta\",\"thinking\":{}", self.string(text))),
            Part::Other(text) => delta(format!("\"type\":\"input_json_delta\",\"partial_json\":{}", self.string(text))),
            Part::Role | Part::Ping => ("ping", "{\"type\":\"ping\"}".into()),
        }));
        let finish = self.string(answer.finish);
        let end = format!("{{\"delta\":{{\"stop_reason\":{finish}}},\"usage\":{{\"output_tokens\":{output_tokens}}}}}");
        events.extend([("message_delta", end), ("message_stop", "{}".into())]);
        self.events(&events)
    }

    fn gemini(&self, answer: &Answer) -> String {
        let space = self.space;
        let candidate = |index: u32, part: String| {
            let content = format!("{{\"parts\":[{space}{part}]}}");
            format!("{{\"candidates\":[{{\"content\":{content},\"index\":{index}}}]}}")
        };
        let mut events: Vec<_> = (answer.parts.iter())
            .map(|part| match part {
                Part::Text(text) => candidate(0, format!("{{\"text\":{}}}", self.string(text))),
                Part::Thought(text) => candidate(0, format!("{{\"thought\":true,\"text\":{}}}", self.string(text))),
                Part::Other(text) => candidate(1, format!("{{\"text\":{}}}", self.string(text))),
                Part::Role => candidate(0, String::new()),
                Part::Ping => "{\"usageMetadata\":{\"promptTokenCount\":1}}".into(),
            })
            .collect();
        let Usage { input_tokens, output_tokens } = answer.usage;
        let usage = format!("{{\"promptTokenCount\":{input_tokens},\"candidatesTokenCount\":{output_tokens}}}");
        let finish = self.string(answer.finish);
        events.push(format!("{{\"candidates\":[{{\"finishReason\":{finish}}}],\"usageMetadata\":{usage}}}"));
        self.events(&events.into_iter().map(|data| ("", data)).collect::<Vec<_>>())
    }

    fn ollama(&self, answer: &Answer) -> String {
        let space = self.space;
        let mut ends = self.line_ends.iter().cycle();
        let mut body = String::from(if self.mark { "\u{feff}" } else { "" });
        for part in &answer.parts {
            let message = match part {
                Part::Text(text) => format!("{{\"content\":{}}}", self.string(text)),
                Part::Thought(text) => format!("{{\"content\":\"\",{space}\"thinking\":{}}}", self.string(text)),
                Part::Other(text) => format!("{{\"tool_name\":{}}}", self.string(text)),
                Part::Role => "{\"role\":\"assistant\"}".into(),
                Part::Ping => "null".into(),
            };
            write!(body, "{{\"message\":{space}{message},\"done\":false}}{}", ends.next().unwrap()).unwrap();
        }
        let Usage { input_tokens, output_tokens } = answer.usage;
        let usage = format!("\"prompt_eval_count\":{input_tokens},\"eval_count\":{output_tokens}");
        write!(body, "{{\"done\":true,\"done_reason\":{},{usage}}}", self.string(answer.finish)).unwrap();
        body
    }
}

fn expected(answer: &Answer, protocol: Protocol) -> Heard {
    let mut heard = Heard { finish: Some(answer.finish.into()), usage: Some(answer.usage), ..Heard::default() };
    for part in &answer.parts {
        match part {
            Part::Text(text) => heard.text += text,
            Part::Thought(text) => heard.thoughts += text,
            Part::Other(_) | Part::Role | Part::Ping => {}
        }
    }
    heard.end = matches!(protocol, OpenAi | Anthropic);
    heard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn an_answer_is_read_as_it_was_written(
        answer in answer(),
        manner in manner(),
        sizes in prop::collection::vec(1_usize..60, 1..6),
    ) {
        for (protocol, body) in [
            (OpenAi, manner.openai(&answer)),
            (Anthropic, manner.anthropic(&answer)),
            (Gemini, manner.gemini(&answer)),
            (Ollama, manner.ollama(&answer)),
        ] {
            let mut rest = body.as_bytes();
            let pieces = sizes.iter().cycle().map_while(|size| {
                let (piece, more) = rest.split_at((*size).min(rest.len()));
                rest = more;
                (!piece.is_empty()).then_some(piece)
            });
            prop_assert_eq!(&hear(protocol, pieces), &expected(&answer, protocol), "{}", body);
        }
    }
}
