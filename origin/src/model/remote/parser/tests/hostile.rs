//! Bodies that are meant to cost memory or time, and bodies that are no bodies.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{super::sse::MAX_EVENT_BYTES, Heard, hear};
use crate::{
    config::model::Protocol::{self, Anthropic, Gemini, Ollama, OpenAi},
    model::remote::parser::{Fault, Parser},
};

const ALL: [Protocol; 4] = [OpenAi, Anthropic, Gemini, Ollama];
/// What a read from a socket gives at most.
const READ: usize = 64 * 1024;
/// More than any of these takes, and less than a quadratic reader would.
const LONG: Duration = Duration::from_secs(20);

/// Reads pieces until the body can't be read. Returns how many bytes that took.
fn until_a_fault(protocol: Protocol, begin: &[u8], piece: &[u8]) -> (Fault, usize) {
    let mut parser = Parser::new(protocol);
    let mut read = 0;
    for piece in std::iter::once(begin).chain(std::iter::repeat(piece)) {
        read += piece.len();
        assert!(read < 1 << 30, "a body without end is read for ever");
        if let Err(fault) = parser.read(piece, &mut |_| {}) {
            return (fault, read);
        }
    }
    unreachable!("pieces come for ever");
}

#[test]
fn a_line_or_a_value_without_end_is_a_fault_after_the_most_bytes_of_an_event() {
    let start = Instant::now();
    let a = vec![b'a'; READ];
    for protocol in ALL {
        for begin in [
            &b"data: "[..],
            b"data: {\"choices\":[{\"delta\":{\"content\":\"",
            b"data",
            b": ",
            b"event: ",
            b"{\"message\":{\"content\":\"",
            b"[{\"error\":\"",
            b": comment\n{\"error\":\"",
            b"data: {\n\ndata",
        ] {
            let (fault, read) = until_a_fault(protocol, begin, &a);
            if fault != Fault::TooLong {
                assert!(begin.ends_with(b"\n\ndata"), "{}", String::from_utf8_lossy(begin));
            }
            assert!(read <= MAX_EVENT_BYTES + 2 * READ, "{read}");
        }
    }
    assert!(start.elapsed() < LONG);
}

#[test]
fn data_lines_of_one_event_without_end_are_a_fault() {
    let start = Instant::now();
    for line in [&b"data: {\n"[..], b"data: [\n", b"data: \"a\":{\n", b"data:{\r\n", b"{\n", b"[{\n"] {
        let (fault, read) = until_a_fault(OpenAi, b"data: {\n", &line.repeat(READ / line.len()));
        assert_ne!(fault, Fault::Html);
        assert!(read <= 4 * MAX_EVENT_BYTES + 2 * READ, "{read}");
    }
    assert!(start.elapsed() < LONG);
}

#[test]
fn deep_nesting_is_a_fault_or_ignored() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    for protocol in ALL {
        for nested in [deep("[", "]"), deep("{\"a\":", "}"), deep("[{\"thinking\":", "}]"), "[".repeat(100_000)] {
            for body in [
                format!("data: {nested}\n\n"),
                nested.clone(),
                format!("{{\"error\":{nested}}}"),
                format!("{{\"candidates\":{nested}}}"),
                format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{nested}}}}}]}}\n\n"),
                format!("data: {{\"x\":{nested}}}\n\n"),
            ] {
                hear(protocol, [body.as_bytes()]);
                hear(protocol, body.as_bytes().chunks(1000));
            }
        }
    }
}

#[test]
fn millions_of_lines_take_linear_time() {
    let start = Instant::now();
    for protocol in ALL {
        for line in ["\n", ":\n", "a\n", "data:\n", "data: {}\n", "event: e\n", "\n\n", "{}\n", "[]\n", "\r", " "] {
            let body = line.repeat(1_000_000 / line.len());
            assert!(!hear(protocol, body.as_bytes().chunks(READ)).fault, "{line:?}");
            assert!(!hear(protocol, body.as_bytes().chunks(1)).fault, "{line:?}");
        }
    }
    assert!(start.elapsed() < LONG);
}

#[test]
fn bytes_that_are_no_utf8_are_replaced_in_text_and_never_lose_the_rest() {
    let body = |bytes: &[u8]| {
        [b"data: {\"choices\":[{\"delta\":{\"content\":\"a", bytes, b"b\"},\"finish_reason\":\"stop\"}]}\n\n"].concat()
    };
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f", b"\xf8\x88\x80\x80\x80", b"\xe2\x82"] {
        let heard = hear(OpenAi, [&body(bytes)[..]]);
        assert!(heard.text.starts_with('a') && heard.text.ends_with('b'), "{heard:?}");
        assert!(heard.text.contains('\u{fffd}') && !heard.fault);
    }
}

#[test]
fn bytes_that_are_no_utf8_are_a_fault_or_ignored_elsewhere() {
    let body = b"event: x\ndata: {\"a\":\"b\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"c\"}}]}\n\n";
    for protocol in ALL {
        for at in 0..body.len() {
            for broken in [0xff, 0xed, 0xf0, 0x80, 0] {
                let mut body = body.to_vec();
                body[at] = broken;
                hear(protocol, [&body[..]]);
            }
        }
    }
}

/// Bytes that mean something here come more often than others.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "\\",
            "\n",
            "\r",
            "\r\n",
            "data: ",
            "event: error\n",
            "data:[DONE]",
            "null",
            "[DONE]",
            "{}",
            "\"choices\":[",
            "\"delta\":{",
            "\"content\":\"",
            "\"type\":",
            "\"text\":\"",
            "\\ud83e",
            "\"message\":{",
            "\"candidates\":[",
            "\"parts\":[",
            "\"error\":",
            "\"index\":",
            "0",
            "1e999",
            "\u{feff}",
            "<",
        ])
        .prop_map(|token| token.as_bytes().to_vec()),
    ];
    prop::collection::vec(token, 0..40).prop_map(|tokens| tokens.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_say_the_same_in_one_piece_and_in_many(body in bytes(), size in 1_usize..7) {
        for protocol in ALL {
            let whole: Heard = hear(protocol, [&body[..]]);
            prop_assert_eq!(&hear(protocol, body.chunks(size)), &whole);
        }
    }
}
