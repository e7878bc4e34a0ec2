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

/// All events that a third-party parser finds behind the opening one, up to the stream's end.
pub async fn events(response: Response) -> Vec<Event> {
    first_events(response, usize::MAX).await
}

/// The first events behind the opening one; then the connection is cut.
pub async fn first_events(response: Response, count: usize) -> Vec<Event> {
    let id = response.headers().contains_key("content-location").then(|| id_of(&response));
    let mut events = response.bytes_stream().eventsource().map(|event| event.expect("the stream is whole so far"));
    if let Some(id) = id {
        assert_opens(&events.next().await.expect("a framed stream has an opening event"), &id);
    }
    events.take(count).collect().await
}

/// The opening event holds the stream's id and the number of the next event, and its own id is the cursor to that.
pub fn assert_opens(event: &Event, id: &str) {
    let data = data(event);
    assert_eq!((event.event.as_str(), data["id"].as_str()), ("stream", Some(id)), "{event:?}");
    let cursor = match data["next"].as_u64().expect("a number") {
        0 => id.to_owned(),
        next => format!("{id}.{}", next - 1),
    };
    assert_eq!(event.id, cursor, "{event:?}");
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
    assert!(
        before.iter().all(|event| matches!(event.event.as_str(), "message" | "reasoning")),
        "a terminal event is the last one: {before:?}"
    );
    assert!(matches!(last.event.as_str(), "done" | "failed"), "the last event is a terminal one: {last:?}");
    let data = data(last);
    if last.event == "failed" {
        assert_retryable(&data);
    }
    (&last.event, data)
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
