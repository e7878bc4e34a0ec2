//! What the log tells of a panic. In a process of its own: log and hook are the process's.

use std::panic;

use headwater_origin::telemetry::log::hook_panics;
use headwater_origin_testing::{CapturedLog, events, open, spawn_origin, terminal};
use serde_json::json;

/// The scripted model's panic repeats it.
const PROMPT: &str = "what nobody else knows";

#[tokio::test]
async fn a_panic_is_logged_by_its_place_without_its_text() {
    let log = CapturedLog::install();
    let origin = spawn_origin(&[]).await;
    hook_panics();
    let all = events(open(origin.start(&json!(["a", 50, { "fail": PROMPT }]))).await).await;
    // From here on a panic is this test's own.
    drop(panic::take_hook());

    assert_eq!(terminal(&all).1["type"], "/problems/internal");
    let lines = log.lines();
    let panics: Vec<_> = lines.iter().filter(|line| line["message"] == "a thread panicked").collect();
    let [panic] = panics[..] else { panic!("one panic: {lines:?}") };
    assert!(panic["location"].to_string().contains("scripted.rs:"), "{panic}");
    assert!(!format!("{lines:?}").contains(PROMPT), "{lines:?}");
}
