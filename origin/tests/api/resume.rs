//! FAULTS "Life of a connection": resume, replay, second readers.

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_origin::dialect::own;
use headwater_origin_testing::{events, first_events, id_of, open, problem, spawn_origin, terminal, text, until};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn fault_5_a_chunk_behind_a_cut_appears_once() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!([{ "tokens": 50, "every_ms": 2 }]))).await;
    let id = id_of(&response);
    let mut seen = first_events(response, 7).await;
    loop {
        let cursor = seen.last().unwrap().id.clone();
        let more = first_events(origin.follow(&cursor).await, 11).await;
        seen.extend(more);
        if seen.last().unwrap().event != "message" {
            break;
        }
    }
    assert_eq!(seen, events(origin.follow(&id).await).await);
    assert_eq!(text(&seen), (0..50).map(|number| format!("{number} ")).collect::<String>());
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn every_cursor_of_a_finished_stream_gives_exactly_what_is_behind_it() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!([{ "tokens": 30 }]))).await;
    let id = id_of(&response);
    let all = events(response).await;
    for (index, event) in all.iter().enumerate() {
        let rest = origin.follow(&event.id).await;
        if index + 1 == all.len() {
            assert_eq!(rest.status(), 204);
        } else {
            let body = rest.text().await.unwrap();
            let next = index + 1;
            let opening =
                format!("retry: 1000\nevent: stream\nid: {id}.{index}\ndata: {{\"id\":\"{id}\",\"next\":{next}}}\n\n");
            let behind = body.strip_prefix(&opening).unwrap_or_else(|| panic!("the cursor is kept: {body}"));
            assert!(String::from_utf8(origin.follow_bytes(&id).await).unwrap().ends_with(behind));
        }
    }
}

#[tokio::test]
async fn fault_7_cursors_that_lead_nowhere() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["a", "b"]))).await;
    let id = id_of(&response);
    let last = events(response).await.len() - 1;
    assert_eq!(origin.follow(&format!("{id}.{last}")).await.status(), 204);
    for cursor in [format!("{id}.{}", last + 1), format!("{id}.18446744073709551614")] {
        assert_eq!(problem(origin.follow(&cursor).await).await, (400, "bad-cursor".into()), "{cursor}");
    }
    let malformed = [format!("{id}."), format!("{id}.x"), format!("{id}.-1"), "nonsense".into(), "a".repeat(10_240)];
    for cursor in malformed {
        for path in [format!("/streams/{id}"), "/prompts/simple".into()] {
            let request = origin.request(Method::GET, &path).header("last-event-id", &cursor);
            assert_eq!(problem(request.send().await.unwrap()).await, (400, "bad-cursor".into()), "{cursor}");
        }
    }
    let bytes = reqwest::header::HeaderValue::from_bytes(b"a-\xff\xfe").unwrap();
    let request = origin.request(Method::GET, "/prompts/simple").header("last-event-id", bytes);
    assert_eq!(problem(request.send().await.unwrap()).await, (400, "bad-cursor".into()));
    let unknown = "a-0123456789ABCDEFGHIJkl";
    assert_eq!(problem(origin.follow(unknown).await).await, (404, "not-found".into()));
    let another =
        origin.request(Method::GET, &format!("/streams/{unknown}")).header("last-event-id", format!("{id}.0"));
    assert_eq!(problem(another.send().await.unwrap()).await, (404, "not-found".into()));
    assert_eq!(origin.count("started").await, 1, "no cursor ever starts a generation");
}

#[tokio::test]
async fn fault_7_a_finished_stream_expires() {
    let origin = spawn_origin(&["--retention", "50ms"]).await;
    let response = open(origin.start(&json!(["a"]))).await;
    let id = id_of(&response);
    events(response).await;
    until("expired", async || origin.follow(&id).await.status() == 404).await;
    assert_eq!(problem(origin.follow(&id).await).await, (404, "not-found".into()));
}

#[tokio::test]
async fn fault_8_the_cursor_in_the_header_wins() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["a", "b", "c"]))).await;
    let id = id_of(&response);
    events(response).await;
    let both = origin
        .request(Method::GET, &format!("/prompts/simple?last_event_id={id}.0"))
        .header("last-event-id", format!("{id}.1"));
    assert_eq!(text(&events(open(both).await).await), "c");
    let query =
        origin.request(Method::GET, &format!("/prompts/simple?last_event_id={id}.0")).header("last-event-id", "");
    assert_eq!(text(&events(open(query).await).await), "bc");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn a_cursor_in_the_query_has_two_names_and_the_polyfills_wins() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["a", "b", "c"]))).await;
    let id = id_of(&response);
    events(response).await;
    for path in ["/prompts/simple".to_owned(), format!("/streams/{id}")] {
        for (query, rest) in [
            (format!("lastEventId={id}.0"), "bc"),
            // event-source-polyfill, opened with a cursor, adds its newest one.
            (format!("last_event_id={id}.0&lastEventId={id}.1"), "c"),
            (format!("last_event_id={id}.0&lastEventId="), "bc"),
        ] {
            let followed = open(origin.request(Method::GET, &format!("{path}?{query}"))).await;
            assert_eq!(text(&events(followed).await), rest, "{path}?{query}");
        }
        let ended = origin.request(Method::GET, &format!("{path}?lastEventId={id}.3")).send().await.unwrap();
        assert_eq!(ended.status(), 204);
    }
    let header = origin.request(Method::GET, &format!("/prompts/simple?lastEventId={id}.0"));
    let followed = open(header.header("last-event-id", format!("{id}.1"))).await;
    assert_eq!(text(&events(followed).await), "c", "the header wins over both");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn fault_9_readers_share_one_generation() {
    let origin = spawn_origin(&[]).await;
    let first = open(origin.start(&json!([{ "tokens": 40, "every_ms": 3 }]))).await;
    let id = id_of(&first);
    let cursors = [id.clone(), format!("{id}.3"), format!("{id}.20")];
    let (first, others) = tokio::join!(
        events(first),
        join_all(cursors.iter().map(|cursor| async { events(origin.follow(cursor).await).await }))
    );
    assert_eq!(terminal(&first).0, "done");
    assert_eq!((&others[0], &others[1][..], &others[2][..]), (&first, &first[4..], &first[21..]));
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn fault_11_silence_is_filled_with_comments() {
    let origin = spawn_origin(&["--heartbeat", "50ms", "--start-window", "20ms"]).await;
    let asked = Instant::now();
    let response = open(origin.start(&json!([1_000, "a", 1_000, "b"]))).await;
    let id = id_of(&response);
    let body = response.text().await.unwrap();
    let (before, rest) = body.split_once(&format!("id: {id}.0\n")).unwrap();
    let (between, _) = rest.split_once(&format!("id: {id}.1\n")).unwrap();
    let beats = [before, between].map(|silence| silence.matches(own::HEARTBEAT).count());
    assert!(beats.iter().all(|&beats| beats > 0), "{body}");
    let most = asked.elapsed().as_millis() / Duration::from_millis(50).as_millis();
    assert!(beats.iter().sum::<usize>() as u128 <= most, "no more than the silence is long: {beats:?}");
    assert!(before.starts_with("retry: 1000\nevent: stream\n"), "the first comment follows the opening event: {body}");
    assert_eq!(body.matches("event: done").count(), 1);
}

#[tokio::test]
async fn a_cursor_past_the_end_of_a_running_stream_waits() {
    let origin = spawn_origin(&["--heartbeat", "50ms"]).await;
    let response = open(origin.start(&json!(["a", 1_500, "b", "c", "d"]))).await;
    let id = id_of(&response);
    let ahead = origin.follow(&format!("{id}.1")).await.text().await.unwrap();
    let (waited, rest) = ahead.split_once(&format!("id: {id}.2\ndata: {{\"chunk\":\"c\"}}\n\n")).unwrap();
    let comments = waited.split_once("\"next\":2}\n\n").unwrap().1;
    assert!(!comments.is_empty(), "a comment says that it waited: {ahead}");
    assert_eq!(comments.replace(own::HEARTBEAT, ""), "", "nothing but comments");
    assert!(rest.starts_with(&format!("id: {id}.3\n")) && rest.contains("event: done\n"), "{ahead}");
}

#[tokio::test]
async fn a_cursor_ahead_of_a_running_stream_gets_comments_meanwhile() {
    let origin = spawn_origin(&["--heartbeat", "50ms"]).await;
    let response = open(origin.start(&json!([{ "tokens": 200, "every_ms": 10 }]))).await;
    let id = id_of(&response);
    let ahead = origin.follow(&format!("{id}.195")).await.text().await.unwrap();
    assert!(ahead.contains(own::HEARTBEAT), "tokens that are not for this reader are silence to it: {ahead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_of_zero_is_none() {
    for off in ["0s", "off"] {
        let origin = spawn_origin(&["--heartbeat", off, "--start-window", "0s"]).await;
        let mut silent = open(origin.start(&json!([400, "a"]))).await;
        let mut before = Vec::new();
        while !String::from_utf8_lossy(&before).contains("chunk") {
            before.extend(silent.chunk().await.unwrap().unwrap());
        }
        assert!(!String::from_utf8_lossy(&before).contains("\n:"), "{before:?}");
        assert!(before.len() < 1_000, "{} bytes", before.len());
    }
}
