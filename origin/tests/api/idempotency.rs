//! FAULTS 10 and 13: a retried start doesn't pay twice.

use futures::future::join_all;
use headwater_origin_testing::{events, id_of, open, problem, spawn_origin, text};
use reqwest::Method;
use serde_json::{Value, json};

const KEY: &str = "a-key-of-the-tests-0001";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_10_the_same_key_three_times_at_once_is_one_generation() {
    let origin = spawn_origin(&[]).await;
    let script = json!([30, { "tokens": 20, "every_ms": 1 }]);
    let answers = join_all(
        (0..3).map(|_| async { events(open(origin.start(&script).header("idempotency-key", KEY)).await).await }),
    )
    .await;
    assert_eq!(answers[0].len(), 21);
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(origin.count("started").await, 1);
    let again = events(open(origin.start(&script).header("idempotency-key", KEY)).await).await;
    assert_eq!(again, answers[0], "a late retry gets the finished answer");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_of_a_shared_start_counts() {
    let origin = spawn_origin(&[]).await;
    for round in 0..100 {
        let key = format!("{KEY}-{round}");
        let start = || async { open(origin.bare(&json!([10, "a", 10, "b"])).header("idempotency-key", &key)).await };
        let (left, stayed) = tokio::join!(start(), start());
        drop(left);
        // The other one keeps the generation going, whichever came first.
        assert_eq!(stayed.text().await.unwrap().matches("data:").count(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_10_the_key_with_another_body_is_refused() {
    let origin = spawn_origin(&[]).await;
    events(open(origin.start(&json!(["a"])).header("idempotency-key", KEY)).await).await;
    let other = origin.start(&json!(["b"])).header("idempotency-key", KEY).send().await.unwrap();
    assert_eq!(problem(other).await, (422, "key-reused".into()));
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_can_come_in_the_query_and_a_cursor_beats_it() {
    let origin = spawn_origin(&[]).await;
    let path = format!("/prompts/simple?topic=%5B%22a%22%2C%22b%22%5D&idempotency_key={KEY}");
    let start = || origin.request(Method::GET, &path).header("accept", "text/event-stream");
    let first = open(start()).await;
    let id = id_of(&first);
    events(first).await;
    assert_eq!(text(&events(open(start()).await).await), "ab");
    let resumed = open(start().header("last-event-id", format!("{id}.0"))).await;
    assert_eq!(text(&events(resumed).await), "b");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_keys_are_refused() {
    let origin = spawn_origin(&[]).await;
    for key in ["short", "0123456789abcde", &"x".repeat(129), "with a space in it"] {
        let response = origin.start(&json!(["a"])).header("idempotency-key", key).send().await.unwrap();
        assert_eq!(problem(response).await, (400, "bad-request".into()), "{key}");
    }
    let bytes = reqwest::header::HeaderValue::from_bytes("0123456789abcdef\u{e9}".as_bytes()).unwrap();
    let response = origin.start(&json!(["a"])).header("idempotency-key", bytes).send().await.unwrap();
    assert_eq!(problem(response).await, (400, "bad-request".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_was_answered_with_a_problem_frees_its_key() {
    let origin = spawn_origin(&[]).await;
    for _ in 0..2 {
        let failed =
            origin.start(&json!([{ "fail": "overloaded" }])).header("idempotency-key", KEY).send().await.unwrap();
        assert_eq!(problem(failed).await, (503, "overloaded".into()));
    }
    let other = events(open(origin.start(&json!(["a"])).header("idempotency-key", KEY)).await).await;
    assert_eq!(text(&other), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_outlives_its_evicted_journal() {
    let origin = spawn_origin(&["--journal-size", "16KiB"]).await;
    let start = |key: String, script| origin.start(&script).header("idempotency-key", key);
    events(open(start(KEY.into(), json!([{ "repeat": "a", "times": 4096 }]))).await).await;
    events(open(start(format!("{KEY}-2"), json!([{ "repeat": "x", "times": 12_288 }]))).await).await;
    let late = start(KEY.into(), json!([{ "repeat": "a", "times": 4096 }])).send().await.unwrap();
    assert_eq!(problem(late).await, (404, "expired".into()));
    assert_eq!(origin.count("started").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_a_reader_gone_before_the_first_token_comes_back_with_its_key() {
    let origin = spawn_origin(&["--linger", "10s"]).await;
    let script = json!([1_500, "a"]);
    let gone = tokio::spawn(origin.start(&script).header("idempotency-key", KEY).send());
    origin.until("started", 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled(), "it was still waiting");
    let back = events(open(origin.start(&script).header("idempotency-key", KEY)).await).await;
    assert_eq!(text(&back), "a");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_13_a_reader_gone_before_the_first_token_comes_back_with_the_first_cursor() {
    let origin = spawn_origin(&["--start-window", "20ms"]).await;
    let mut response = open(origin.start(&json!([300, "a"]))).await;
    let opening = String::from_utf8(response.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    let cursor = opening.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(response);
    let back = origin.request(Method::GET, "/prompts/simple").header("last-event-id", cursor);
    assert_eq!(text(&events(open(back).await).await), "a");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn without_a_start_window_a_full_origin_refuses_and_keeps_no_key() {
    let origin = spawn_origin(&["--generations", "1", "--queue", "0", "--start-window", "0s"]).await;
    let start = |script: &Value, key: &str| origin.start(script).header("idempotency-key", key).send();
    let running = open(origin.start(&json!(["a", 60_000])).header("idempotency-key", "key-of-the-running")).await;
    for _ in 0..2 {
        let refused = start(&json!(["b"]), "key-of-the-refused").await.unwrap();
        assert_eq!(problem(refused).await, (503, "overloaded".into()));
    }
    // The keys of what runs mean what they mean with room.
    let again = start(&json!(["a", 60_000]), "key-of-the-running").await.unwrap();
    assert_eq!(id_of(&again), id_of(&running));
    let reused = start(&json!(["b"]), "key-of-the-running").await.unwrap();
    assert_eq!(problem(reused).await, (422, "key-reused".into()));
    assert_eq!(origin.stop(&id_of(&running)).await, 204);
    origin.until("running", 0).await;
    assert_eq!(start(&json!(["other"]), "key-of-the-refused").await.unwrap().status(), 200);
}
