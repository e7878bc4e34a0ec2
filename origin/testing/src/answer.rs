//! What an answer holds: events, text, the terminal event, a problem.

use eventsource_stream::{Event, Eventsource};
use futures::StreamExt;
use reqwest::Response;
use serde_json::Value;

/// The id in `Content-Location`.
pub fn id_of(response: &Response) -> String {
    let location = response.headers().get("content-location").expect("a framed stream has a location");
    location.to_str().expect("ASCII").strip_prefix("/streams/").expect("a stream's path").to_owned()
}

/// All events of a stream that a third-party parser finds, up to its end.
pub async fn events(response: Response) -> Vec<Event> {
    let mut events = response.bytes_stream().eventsource();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event.expect("the stream is whole"));
    }
    all
}

/// The first events of a stream; then its connection is cut.
pub async fn first_events(response: Response, count: usize) -> Vec<Event> {
    let events: Vec<_> = response.bytes_stream().eventsource().take(count).collect().await;
    events.into_iter().map(|event| event.expect("the stream is whole so far")).collect()
}

/// The chunks' text.
pub fn text(events: &[Event]) -> String {
    let chunks = events.iter().filter(|event| event.event == "message");
    chunks.map(|event| data(event)["chunk"].as_str().expect("a chunk is text").to_owned()).collect()
}

/// An event's data.
pub fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).expect("data is JSON")
}

/// The terminal event's name and data; there is exactly one, at the end.
pub fn terminal(events: &[Event]) -> (&str, Value) {
    let (last, before) = events.split_last().expect("a stream has a terminal event");
    assert!(before.iter().all(|event| event.event == "message"), "a terminal event is the last one: {before:?}");
    assert!(matches!(last.event.as_str(), "done" | "failed"), "the last event is a terminal one: {last:?}");
    let told = data(last);
    if last.event == "failed" {
        assert_retryable(&told);
    }
    (&last.event, told)
}

/// A problem says whether another try may go better, each as the contract has it.
fn assert_retryable(problem: &Value) {
    let retryable = [
        "rate-limited",
        "internal",
        "model-broke-off",
        "overloaded",
        "journal",
        "first-token-timeout",
        "idle-timeout",
        "abandoned",
        "interrupted",
    ];
    let name = problem["type"].as_str().expect("a problem has a type").trim_start_matches("/problems/");
    assert_eq!(problem["retryable"], retryable.contains(&name), "{problem}");
}

/// The problem's name; checks what all problems have.
pub async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/problem+json");
    let document: Value = response.json().await.expect("a problem is JSON");
    assert_eq!(document["status"], status);
    for text in ["type", "title", "detail", "instance"] {
        assert!(document[text].is_string(), "{text} of {document}");
    }
    assert_retryable(&document);
    assert!(!matches!(status, 429 | 503) || headers.contains_key("retry-after"), "{status} says when to retry");
    let name = document["type"].as_str().and_then(|name| name.strip_prefix("/problems/"));
    (status, name.expect("a type of ours").to_owned())
}
