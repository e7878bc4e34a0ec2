//! The bodies in `tests/fixtures/providers`.

use std::{fs, path::Path};

use serde_json::Value;

use super::{Heard, Parser, hear};
use crate::{config::model::Protocol, stream::Usage};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/providers");

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("openai", Protocol::OpenAi),
    ("anthropic", Protocol::Anthropic),
    ("gemini", Protocol::Gemini),
    ("ollama", Protocol::Ollama),
];

struct Fixture {
    name: String,
    protocol: Protocol,
    body: Vec<u8>,
    expected: Heard,
    /// The body is events, or lines: neither their ends nor what stands between them matters.
    is_lines: bool,
}

impl Fixture {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (name, protocol) in PROTOCOLS {
            let files = fs::read_dir(Path::new(FOLDER).join(name)).unwrap().map(|file| file.unwrap().path());
            let plain = ["sse", "ndjson"].map(|ending| Path::new(FOLDER).join(format!("{name}.{ending}")));
            for path in files.chain(plain.into_iter().filter(|path| path.exists())) {
                if !path.to_string_lossy().ends_with(".expected.json") {
                    all.push(Self::new(&path, protocol));
                }
            }
        }
        all
    }

    fn new(path: &Path, protocol: Protocol) -> Self {
        let name = path.display().to_string();
        let expected = fs::read_to_string(path.with_extension("expected.json")).expect(&name);
        let expected: Value = serde_json::from_str(&expected).expect(&name);
        let text = |member: &str| expected[member].as_str().map(str::to_owned);
        let is = |member: &str| expected[member] == true;
        let expected = Heard {
            text: text("text").unwrap(),
            thoughts: text("thoughts").unwrap_or_default(),
            finish: text("finish"),
            usage: expected.get("usage").map(|usage| Usage {
                input_tokens: usage["input_tokens"].as_u64().unwrap(),
                output_tokens: usage["output_tokens"].as_u64().unwrap(),
            }),
            error: is("error"),
            end: is("end"),
            fault: is("fault"),
        };
        let is_lines = path.extension().is_some_and(|ending| ending != "json");
        Self { name, protocol, body: fs::read(path).unwrap(), expected, is_lines }
    }

    /// The body with each line end replaced by `end`.
    fn with_line_ends(&self, end: &[u8]) -> Vec<u8> {
        let body = replace(&replace(&self.body, b"\r\n", b"\n"), b"\r", b"\n");
        replace(&body, b"\n", end)
    }

    /// The same body in other spellings.
    fn spellings(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mark = b"\xef\xbb\xbf";
        let marked = [mark, self.body.strip_prefix(mark).unwrap_or(&self.body)].concat();
        let mut spellings =
            vec![("as it is", self.body.clone()), ("marked", marked), ("unended", self.body.trim_ascii_end().to_vec())];
        if self.is_lines {
            spellings.extend([
                ("LF", self.with_line_ends(b"\n")),
                ("CRLF", self.with_line_ends(b"\r\n")),
                ("CR", self.with_line_ends(b"\r")),
            ]);
            let lines = self.with_line_ends(b"\n");
            for (name, between) in [
                ("comments", &b": keep-alive\n\n"[..]),
                ("bare comments", b":\n\n"),
                ("blank lines", b"\n\n"),
                ("empty data", b"data:\n\n"),
            ] {
                spellings.push((name, replace(&lines, b"\n\n", &[b"\n\n", between].concat())));
            }
        }
        spellings
    }
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut replaced, mut last) = (Vec::new(), 0);
    for at in memchr::memmem::find_iter(bytes, from) {
        replaced.extend_from_slice(&bytes[last..at]);
        replaced.extend_from_slice(to);
        last = at + from.len();
    }
    replaced.extend_from_slice(&bytes[last..]);
    replaced
}

#[test]
fn a_body_says_the_same_in_every_spelling_and_cut_at_every_place() {
    let fixtures = Fixture::all();
    assert!(fixtures.len() > 4, "{FOLDER}");
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        let Fixture { name, protocol, expected, .. } = fixture;
        for (spelling, body) in fixture.spellings() {
            let mut check = |how: &str, heard: Heard| {
                if heard != *expected {
                    wrong.push(format!("{name}, {spelling}, {how}: {heard:?} instead of {expected:?}"));
                }
                heard == *expected
            };
            let same = check("whole", hear(*protocol, [&body[..]]))
                && check("in single bytes", hear(*protocol, body.chunks(1)))
                && check("with empty reads", hear(*protocol, body.chunks(1).flat_map(|byte| [byte, &[]])));
            if same && matches!(spelling, "as it is" | "CRLF" | "CR") {
                (0..=body.len()).all(|cut| {
                    let (one, two) = body.split_at(cut);
                    check(&format!("cut at {cut}"), hear(*protocol, [one, two]))
                });
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_text_is_told_before_an_end_marker() {
    for (protocol, body) in [
        (Protocol::OpenAi, "data: {\"choices\":[{\"delta\":{\"content\":\"\\ud83e\"}}]}\n\ndata: [DONE]\n"),
        (Protocol::Anthropic, "data: {\"type\":\"message_stop\",\"content\":[{\"text\":\"\\ud83e\"}]}\n"),
    ] {
        let mut told = Vec::new();
        let mut parser = Parser::new(protocol);
        parser.read(body.as_bytes(), &mut |event| told.push(format!("{event:?}"))).unwrap();
        assert_eq!(told[told.len() - 2..], ["Text(\"\u{fffd}\")", "End"], "{body}");
    }
}
