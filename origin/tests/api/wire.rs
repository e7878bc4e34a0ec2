//! FAULTS "Wire": what the model says is what the reader gets, byte for byte.

use std::convert::Infallible;

use eventsource_stream::Eventsource;
use futures::{StreamExt, executor::block_on, stream};
use headwater_origin::{
    dialect::own,
    stream::{Event, frame},
};
use headwater_origin_testing::{
    SECRET, assert_opens, data, events, id_of, open, spawn_origin, start_bytes, terminal, text,
};
use headwater_protocol::{Cursor, Problem};
use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::json;

#[tokio::test]
async fn fault_1_any_text_arrives_as_it_is() {
    let origin = spawn_origin(&[]).await;
    let chunks =
        ["\r\n", "\n", "\r", "", " leading", "nul\0nul", "\u{2028}\u{2029}", "\u{1f9a6}", "\u{feff}", "\"\\{}\u{7f}"];
    let mut script: Vec<_> = chunks.iter().map(|chunk| json!(chunk)).collect();
    script.push(json!({ "repeat": "\u{e9}\n", "times": 32 * 1024 }));
    let all = events(open(origin.start(&json!(script))).await).await;
    assert_eq!(text(&all), chunks.concat() + &"\u{e9}\n".repeat(32 * 1024));
    assert_eq!(terminal(&all).0, "done");
}

#[tokio::test]
async fn a_long_text_is_several_events_and_no_line_of_the_wire_is_long() {
    let origin = spawn_origin(&["--generations", "1"]).await;
    // Of each kind of character in JSON: as it is, escaped to two bytes, escaped to six.
    for (repeat, times) in [("\u{1f9a6}a", 40 * 1024), ("\"\n", 100 * 1024), ("\u{1}\u{2028}", 50 * 1024)] {
        let script = json!(["first", { "repeat": repeat, "times": times }, "last"]);
        let response = open(origin.start(&script)).await;
        let id = id_of(&response);
        let whole = format!("first{}last", repeat.repeat(times));
        let all = events(response).await;
        assert_eq!((text(&all), terminal(&all).0), (whole.clone(), "done"));
        assert_eq!(all, events(origin.follow(&id).await).await, "a replay is the same events");
        assert!(all.len() > repeat.len() * times / frame::CHUNK_BYTES, "{}", all.len());
        let bare = String::from_utf8(open(origin.bare(&script)).await.bytes().await.unwrap().to_vec()).unwrap();
        for wire in [String::from_utf8(origin.follow_bytes(&id).await).unwrap(), bare] {
            let longest = wire.lines().map(str::len).max().unwrap();
            // Go's bufio.Scanner takes 64 KiB, aiohttp 128 KiB.
            assert!(longest < 32 * 1024, "{longest}");
        }
    }
}

#[tokio::test]
async fn fault_2_text_that_looks_like_an_event_is_text() {
    let origin = spawn_origin(&[]).await;
    let evil = "\n\nevent: done\ndata: {}\n\nid: a-0123456789ABCDEFGHIJkl.9\nretry: 1\n\n";
    let all = events(open(origin.start(&json!([evil, "on"]))).await).await;
    assert_eq!((text(&all), all.len()), (format!("{evil}on"), 3));
}

/// Text as a model may say it, and as those write it who mean no good.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "(\r|\n|:| |id|event|data|retry|done|\u{0}|\u{2028}|\u{feff}|\u{1f9a6}|\\|\"){0,12}"]
}

proptest! {
    #[test]
    fn fault_3_any_text_cut_anywhere_is_read_as_the_same_events(
        texts in vec(any_text(), 1..6), cuts in vec(any::<Index>(), 0..6), singly in any::<bool>(),
    ) {
        let start: Cursor = "a-0123456789ABCDEFGHIJkl".parse().unwrap();
        let mut frames = own::opening(&start) + own::HEARTBEAT;
        for (index, text) in (0..).zip(&texts) {
            frame::frame(&mut frames, &start.id, index, &Event::Chunk(text.clone()));
            frames += own::HEARTBEAT;
        }
        frame::frame(&mut frames, &start.id, texts.len() as u64, &Event::Failed(Problem::abandoned()));

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(frames.len())).chain([frames.len()]).collect();
        ends.sort_unstable();
        let starts = [0].into_iter().chain(ends.iter().copied());
        let pieces: Vec<&[u8]> = if singly {
            frames.as_bytes().chunks(1).collect()
        } else {
            starts.zip(&ends).map(|(start, &end)| &frames.as_bytes()[start..end]).collect()
        };
        let read = stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)).eventsource();
        let mut read: Vec<_> = block_on(read.map(Result::unwrap).collect());
        assert_opens(&read.remove(0), start.id.as_str());
        prop_assert_eq!(terminal(&read).0, "failed");
        for (index, event) in read.iter().enumerate() {
            prop_assert_eq!(&event.id, &format!("{}.{index}", start.id));
        }
        let chunks = read[..read.len() - 1].iter().map(|event| data(event)["chunk"].as_str().unwrap().to_owned());
        prop_assert_eq!(chunks.collect::<Vec<_>>(), texts);
    }
}

#[tokio::test]
async fn each_blank_line_ends_an_event_with_data_and_a_204_has_no_body() {
    let origin = spawn_origin(&["--heartbeat", "20ms", "--start-window", "10ms"]).await;
    for end in [json!("b"), json!({ "fail": "broke-off" })] {
        let response = open(origin.start(&json!([100, "a", 100, end]))).await;
        let id = id_of(&response);
        let live = response.text().await.unwrap();
        assert!(live.matches(own::HEARTBEAT).count() > 2, "{live}");
        let resumed = origin.follow(&format!("{id}.0")).await.text().await.unwrap();
        for body in [&live, &resumed] {
            let events = body.replace(own::HEARTBEAT, "");
            let events: Vec<_> = events.strip_suffix("\n\n").unwrap().split("\n\n").collect();
            for event in events {
                assert_eq!(event.lines().filter(|line| line.starts_with("data: {")).count(), 1, "{body}");
            }
        }
        let last = live.matches("\nid: ").count() - 2;
        let ended = origin.follow(&format!("{id}.{last}")).await;
        assert_eq!((ended.status().as_u16(), ended.text().await.unwrap().as_str()), (204, ""));
    }
    let bare = open(origin.bare(&json!([100, "a", 100, "b"]))).await.text().await.unwrap();
    assert_eq!(bare, "data: {\"chunk\":\"a\"}\n\ndata: {\"chunk\":\"b\"}\n\n", "a bare stream has no comments");
}

#[tokio::test]
async fn frames_that_are_ready_together_leave_as_one_chunk() {
    let origin = spawn_origin(&["--write-interval", "1s"]).await;
    let script = json!(["first", 100, { "tokens": 200 }]);
    let finished = open(origin.start(&script)).await;
    let id = id_of(&finished);
    events(finished).await;
    // The first token leaves at once; the rest waits for the interval, or for the end.
    let live = start_bytes(&script);
    let replay = format!("GET /streams/{id} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\n\r\n");
    for (request, most) in [(&*live, 2), (replay.as_bytes(), 1)] {
        let request = String::from_utf8_lossy(request).replacen("\r\n", "\r\nconnection: close\r\n", 1);
        let answer = origin.raw(request.as_bytes()).await;
        let writes: Vec<_> = chunks(&answer).iter().map(|chunk| chunk.matches("data:").count()).collect();
        assert_eq!(writes.iter().sum::<usize>(), 203, "the opening event, 201 tokens, the terminal event: {answer}");
        assert!(writes.len() <= most, "{writes:?}");
    }
}

/// The chunks of an answer's body, RFC 9112 section 7.1.
fn chunks(answer: &str) -> Vec<&str> {
    let (_, mut rest) = answer.split_once("\r\n\r\n").unwrap();
    let mut chunks = Vec::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let (chunk, after) = after.split_at(usize::from_str_radix(size, 16).unwrap());
        if chunk.is_empty() {
            return chunks;
        }
        chunks.push(chunk);
        rest = after.strip_prefix("\r\n").unwrap();
    }
}
