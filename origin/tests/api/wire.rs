//! FAULTS "Wire": what the model says is what the reader gets, byte for byte.

use serde_json::json;

use crate::helpers::{events, follow_bytes, id_of, open, spawn_origin, terminal, text};

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
async fn fault_2_text_that_looks_like_an_event_is_text() {
    let origin = spawn_origin(&[]).await;
    let evil = "\n\nevent: done\ndata: {}\n\nid: a-0123456789ABCDEFGHIJkl.9\nretry: 1\n\n";
    let all = events(open(origin.start(&json!([evil, "on"]))).await).await;
    assert_eq!((text(&all), all.len()), (format!("{evil}on"), 3));
}

#[tokio::test]
async fn fault_3_the_same_events_in_whatever_pieces_they_come() {
    use eventsource_stream::Eventsource;
    use futures::{StreamExt, stream};
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["\u{1f9a6}\r\n", "b", { "tokens": 5 }]))).await;
    let id = id_of(&response);
    let whole = events(response).await;
    let bytes = follow_bytes(&origin, &id).await;
    for cut in 0..=bytes.len() {
        let pieces = [&bytes[..cut], &bytes[cut..]].map(|piece| Ok::<_, std::convert::Infallible>(piece.to_vec()));
        let cut: Vec<_> = stream::iter(pieces).eventsource().map(Result::unwrap).collect().await;
        assert_eq!(cut, whole);
    }
    let singles = bytes.iter().map(|&byte| Ok::<_, std::convert::Infallible>(vec![byte]));
    let singles: Vec<_> = stream::iter(singles).eventsource().map(Result::unwrap).collect().await;
    assert_eq!(singles, whole);
}

#[tokio::test]
async fn frames_that_are_ready_together_leave_as_one_chunk() {
    let origin = spawn_origin(&["--write-interval", "100ms"]).await;
    let mut response = open(origin.start(&json!([{ "tokens": 2 }, 20, { "tokens": 200 }, 500, "end"]))).await;
    let mut writes = Vec::new();
    while let Some(write) = response.chunk().await.unwrap() {
        writes.push(String::from_utf8(write.to_vec()).unwrap().matches("data:").count());
    }
    assert!(writes.len() <= 5, "{writes:?}");
    assert_eq!(writes.iter().sum::<usize>(), 204);
}
