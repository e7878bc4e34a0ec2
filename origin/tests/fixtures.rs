//! The streams in `tests/fixtures`, which the browser's tests read: ours are what this origin writes, and a
//! third-party parser finds in every one what stands beside it.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{convert::Infallible, fs, path::PathBuf};

use eventsource_stream::Eventsource;
use futures::{StreamExt, executor::block_on, stream};
use headwater_origin::{
    dialect::own,
    stream::{Done, Event, Finish, Timing, Usage, frame},
};
use headwater_protocol::Cursor;
use serde_json::Value;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures");

fn fixture(name: &str) -> (String, Value) {
    let file = |ending| PathBuf::from(FOLDER).join(format!("{name}.{ending}"));
    let expected = fs::read_to_string(file("json")).unwrap();
    (fs::read_to_string(file("sse")).unwrap(), serde_json::from_str(&expected).unwrap())
}

/// What this origin writes for the fixture's chunks.
fn written(expected: &Value) -> String {
    let first: Cursor = expected["events"][0]["id"].as_str().unwrap().parse().unwrap();
    let mut out = own::opening(&Cursor { id: first.id.clone(), next: 0 });
    for (index, chunk) in (0..).zip(expected["chunks"].as_array().unwrap()) {
        frame::frame(&mut out, &first.id, index, &Event::Chunk(chunk.as_str().unwrap().to_owned()));
    }
    out
}

#[test]
fn our_fixtures_are_what_this_origin_writes() {
    for name in ["framed", "hostile", "failed"] {
        let (sse, expected) = fixture(name);
        let without_comments = sse.replace(own::HEARTBEAT, "");
        assert!(without_comments.starts_with(&written(&expected)), "{name}");
    }
    let (sse, expected) = fixture("framed");
    let mut whole = written(&expected);
    let number = |value: &Value| value.as_u64().unwrap();
    let (usage, timing) = (&expected["result"]["usage"], &expected["result"]["timing"]);
    let done = Done {
        finish: Finish::Stop,
        usage: Some(Usage {
            input_tokens: number(&usage["input_tokens"]),
            output_tokens: number(&usage["output_tokens"]),
        }),
        timing: Timing {
            first_token_ms: Some(number(&timing["first_token_ms"])),
            total_ms: number(&timing["total_ms"]),
        },
    };
    let events = expected["events"].as_array().unwrap();
    let last: Cursor = events[events.len() - 1]["id"].as_str().unwrap().parse().unwrap();
    frame::frame(&mut whole, &last.id, last.next - 1, &Event::Done(done));
    assert_eq!(sse.replace(own::HEARTBEAT, ""), whole);
}

#[test]
fn a_third_party_parser_reads_our_fixtures_as_the_browser_does() {
    for name in ["framed", "hostile", "failed", "long", "bare", "truncated"] {
        let (sse, expected) = fixture(name);
        let parsed: Vec<_> = block_on(stream::iter([Ok::<_, Infallible>(sse)]).eventsource().collect());
        let parsed: Vec<_> = parsed.into_iter().map(Result::unwrap).collect();
        let events = expected["events"].as_array().unwrap();
        assert_eq!(parsed.len(), events.len(), "{name}");
        for (event, expected) in parsed.iter().zip(events) {
            assert_eq!(
                (event.event.as_str(), event.data.as_str()),
                (expected["event"].as_str().unwrap(), expected["data"].as_str().unwrap()),
                "{name}"
            );
            assert_eq!(event.id, expected["id"].as_str().unwrap_or_default(), "{name}");
        }
    }
}
