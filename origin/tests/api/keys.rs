//! How long an idempotency key stands for its stream.

use headwater_origin_testing::{Origin, events, id_of, open, problem, spawn_origin};
use reqwest::Response;
use serde_json::json;

const KEY: &str = "a-key-of-the-tests-0001";

async fn start(origin: &Origin, key: &str, script: serde_json::Value) -> Response {
    origin.start(&script).header("idempotency-key", key).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_abandoned_before_its_first_token_breaks_off_and_is_no_status() {
    // Whoever has a key and no head yet is waited for.
    let origin = spawn_origin(&["--linger", "300ms"]).await;
    let bare = || origin.bare(&json!([60_000, "a"])).header("idempotency-key", KEY).send();
    let left = tokio::spawn(bare());
    origin.until("running", 1).await;
    left.abort();
    origin.until("running", 0).await;
    let again = bare().await.unwrap();
    assert_eq!(again.status(), 200);
    again.text().await.expect_err("it breaks off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_frees_its_key_where_the_journal_is_full_too() {
    let origin = spawn_origin(&["--journal-size", "16KiB"]).await;
    let running = open(origin.start(&json!([{ "repeat": "x", "times": 20_000 }, 60_000]))).await;
    for _ in 0..2 {
        let refused = start(&origin, KEY, json!([{ "fail": "broke-off" }])).await;
        assert_eq!(problem(refused).await, (502, "model-broke-off".into()));
    }
    assert_eq!(origin.count("started").await, 3);
    origin.stop(&id_of(&running)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_outlives_its_stream_in_a_journal_that_running_streams_fill() {
    let origin = spawn_origin(&["--journal-size", "16KiB"]).await;
    events(start(&origin, KEY, json!(["a"])).await).await;
    let running = open(origin.start(&json!([{ "repeat": "x", "times": 20_000 }, 60_000]))).await;
    let expired = start(&origin, KEY, json!(["a"])).await;
    assert_eq!(problem(expired).await, (404, "expired".into()));
    assert_eq!(origin.count("started").await, 2);
    origin.stop(&id_of(&running)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_keys_alone_fill_the_journal_nothing_starts() {
    // 512 bytes a key.
    const KEYS: usize = 32;
    let origin = spawn_origin(&["--journal-size", "16KiB"]).await;
    let mut answers = Vec::new();
    for number in 0..KEYS + 4 {
        let answer = start(&origin, &format!("{KEY}-{number}"), json!([{ "repeat": "x", "times": 20_000 }])).await;
        if answer.status() == 200 {
            events(answer).await;
            origin.until("running", 0).await;
        } else {
            answers.push(problem(answer).await);
        }
    }
    assert_eq!(answers, [(503, "journal".into()), (503, "journal".into()), (503, "journal".into())]);
}
