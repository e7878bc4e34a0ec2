//! How streams end when they don't end by themselves: stopped, abandoned, timed out, drained, too long.

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_origin_testing::{
    Origin, events, first_events, id_of, open, problem, spawn_origin, terminal, text, until,
};
use serde_json::json;

const ENDLESS: &str = r#"[{"tokens": 100000, "every_ms": 5}]"#;

fn endless() -> serde_json::Value {
    serde_json::from_str(ENDLESS).unwrap()
}

/// How the stream is told to have ended.
async fn outcome(origin: &Origin, id: &str) -> String {
    let all = events(origin.follow(id).await).await;
    let (name, data) = terminal(&all);
    let told = if name == "done" { &data["finish"] } else { &data["type"] };
    told.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_a_stream_at_once_for_all_its_readers() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&endless())).await;
    let id = id_of(&response);
    let reader = tokio::spawn(events(response));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let asked = Instant::now();
    assert_eq!(origin.stop(&id).await, 204);
    assert!(asked.elapsed() < Duration::from_secs(1));
    let all = reader.await.unwrap();
    assert_eq!((terminal(&all).0, &terminal(&all).1["finish"]), ("done", &json!("stopped")));
    origin.until("running", 0).await;
    assert_eq!(origin.stop(&id).await, 204, "a stream that has ended stays as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_ends_a_stream_that_waits_for_a_place() {
    let origin = spawn_origin(&["--generations", "1", "--start-window", "20ms"]).await;
    let running = open(origin.start(&endless())).await;
    let waiting = open(origin.start(&endless())).await;
    assert_eq!(origin.count("queued").await, 1);
    assert_eq!(origin.stop(&id_of(&waiting)).await, 204);
    assert_eq!(terminal(&events(waiting).await).1["finish"], "stopped");
    origin.until("queued", 0).await;
    origin.until("running", 1).await;
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_a_stream_that_nobody_reads_is_abandoned_after_the_linger() {
    let linger = Duration::from_secs(4);
    let origin = spawn_origin(&["--linger", "4s"]).await;
    let response = open(origin.start(&endless())).await;
    let id = id_of(&response);
    first_events(response, 3).await;
    // A reader who comes back within the linger keeps it going, and when he leaves it lingers anew.
    first_events(origin.follow(&id).await, 400).await;
    let left = Instant::now();
    origin.until("running", 0).await;
    assert!(left.elapsed() > linger * 3 / 4, "{:?}", left.elapsed());
    assert_eq!(outcome(&origin, &id).await, "/problems/abandoned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_a_bare_stream_ends_when_its_reader_leaves() {
    let origin = spawn_origin(&["--linger", "1h"]).await;
    let mut response = open(origin.bare(&endless())).await;
    response.chunk().await.unwrap();
    drop(response);
    origin.until("running", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_a_model_that_stalls_is_given_up() {
    let origin =
        spawn_origin(&["--start-window", "10ms", "--first-token-timeout", "60ms", "--idle-timeout", "60ms"]).await;
    for (script, expected) in
        [(json!([10_000, "a"]), "first-token-timeout"), (json!(["a", 10_000, "b"]), "idle-timeout")]
    {
        let response = open(origin.start(&script)).await;
        let id = id_of(&response);
        events(response).await;
        assert_eq!(outcome(&origin, &id).await, format!("/problems/{expected}"));
    }
    origin.until("running", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_15_a_stall_within_the_gate_is_a_504() {
    let origin = spawn_origin(&["--first-token-timeout", "30ms"]).await;
    let stalled = origin.start(&json!([10_000])).send().await.unwrap();
    assert_eq!(problem(stalled).await, (504, "first-token-timeout".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_streams_that_run_at_sigterm_complete_and_can_be_resumed_meanwhile() {
    let mut origin = spawn_origin(&["--drain-timeout", "20s"]).await;
    let streams = join_all((0..100).map(|_| open(origin.start(&json!([{ "tokens": 300, "every_ms": 10 }]))))).await;
    let ids: Vec<_> = streams.iter().map(id_of).collect();
    assert_eq!(origin.count("running").await, 100);
    origin.terminate();
    let refused = loop {
        let response = origin.start(&json!(["a"])).send().await.unwrap();
        if response.status() != 200 {
            break response;
        }
    };
    assert_eq!(problem(refused).await, (503, "overloaded".into()));
    let (all, resumed) = tokio::join!(join_all(streams.into_iter().map(events)), async {
        events(origin.follow(&format!("{}.3", ids[0])).await).await
    });
    assert!(all.iter().all(|events| terminal(events).0 == "done" && events.len() == 301));
    assert_eq!(resumed, all[0][4..]);
    tokio::time::timeout(Duration::from_secs(10), origin.ended()).await.expect("it has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_streams_that_outlast_the_drain_end_as_failed() {
    let mut origin = spawn_origin(&["--drain-timeout", "50ms"]).await;
    let streams = join_all((0..20).map(|_| open(origin.start(&endless())))).await;
    origin.terminate();
    for events in join_all(streams.into_iter().map(events)).await {
        let (name, failed) = terminal(&events);
        assert_eq!(
            (name, &failed["type"], &failed["retryable"]),
            ("failed", &json!("/problems/interrupted"), &json!(true))
        );
    }
    tokio::time::timeout(Duration::from_secs(10), origin.ended()).await.expect("it has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_over_the_budget_the_oldest_finished_streams_go_and_running_ones_stay() {
    let origin = spawn_origin(&["--journal-size", "40KiB"]).await;
    let long = json!([{ "repeat": "x", "times": 10_000 }]);
    let running = open(origin.start(&json!([{ "repeat": "y", "times": 10_000 }, 600_000]))).await;
    let running = id_of(&running);
    let mut ids = Vec::new();
    for _ in 0..4 {
        let response = open(origin.start(&long)).await;
        ids.push(id_of(&response));
        events(response).await;
    }
    // A reader has the end of its stream a moment before the journal counts it as finished.
    until("[404, 404, 200, 200]", async || {
        let kept = join_all(ids.iter().map(|id| async { origin.follow(id).await.status().as_u16() })).await;
        kept == [404, 404, 200, 200]
    })
    .await;
    let followed = origin.follow(&running).await;
    assert_eq!(followed.status(), 200);
    assert_eq!(origin.stop(&running).await, 204);
    let all = events(followed).await;
    assert_eq!((text(&all), &terminal(&all).1["finish"]), ("y".repeat(10_000), &json!("stopped")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_an_answer_over_the_streams_limit_ends_with_finish_length() {
    let origin = spawn_origin(&["--stream-size", "1KiB"]).await;
    let all = events(open(origin.start(&endless())).await).await;
    assert_eq!((terminal(&all).0, &terminal(&all).1["finish"]), ("done", &json!("length")));
    assert!(text(&all).starts_with("0 1 2 "));
    origin.until("running", 0).await;
}
