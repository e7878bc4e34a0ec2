//! What is answered to requests, good and bad.

use headwater_origin_testing::{SECRET, data, events, id_of, open, problem, spawn_origin, terminal, text};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_framed_stream_has_the_headers_and_events_of_the_contract() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["Bushy ", "tail"]))).await;
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    assert_eq!(headers["cache-control"], "no-cache, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["vary"], "Accept");
    assert!(headers["server-timing"].to_str().unwrap().starts_with("wait;dur="));
    let id = id_of(&response);
    let body = response.text().await.unwrap();
    let expected = format!(
        "retry: 1000\nevent: stream\nid: {id}\ndata: {{\"id\":\"{id}\",\"next\":0}}\n\nid: {id}.0\ndata: {{\"chunk\":\"Bushy \"}}\n\nid: {id}.1\ndata: {{\"chunk\":\"tail\"}}\n\n\
         event: done\nid: {id}.2\ndata: "
    );
    let done = body.strip_prefix(&expected).unwrap_or_else(|| panic!("{body}"));
    let done: Value = serde_json::from_str(done.strip_suffix("\n\n").unwrap()).unwrap();
    assert_eq!(done["finish"], "stop");
    assert_eq!(done["usage"], json!({"input_tokens": 3, "output_tokens": 7}));
    assert!(done["timing"]["first_token_ms"].as_u64() <= done["timing"]["total_ms"].as_u64());
}

#[tokio::test]
async fn a_bare_stream_is_its_chunks_and_nothing_else() {
    let origin = spawn_origin(&[]).await;
    let response = open(origin.bare(&json!(["Bushy ", "tail"]))).await;
    assert!(!response.headers().contains_key("content-location"));
    let body = response.text().await.unwrap();
    assert_eq!(body, "data: {\"chunk\":\"Bushy \"}\n\ndata: {\"chunk\":\"tail\"}\n\n");
}

#[tokio::test]
async fn an_accept_that_weighs_event_streams_with_zero_does_not_name_them() {
    let origin = spawn_origin(&[]).await;
    let accept = |accept| origin.bare(&json!(["a"])).header("accept", accept);
    for bare in ["text/event-stream;q=0, application/json", "text/event-stream; q=0.0", "*/*", "text/event-stream-2"] {
        let response = open(accept(bare)).await;
        assert!(!response.headers().contains_key("content-location"), "{bare}");
        assert_eq!(response.text().await.unwrap(), "data: {\"chunk\":\"a\"}\n\n", "{bare}");
    }
    for framed in ["application/json;q=0, text/event-stream", "text/event-stream;q=0.001"] {
        assert!(open(accept(framed)).await.headers().contains_key("content-location"), "{framed}");
    }
}

#[tokio::test]
async fn a_prompt_can_be_asked_for_with_get() {
    let origin = spawn_origin(&[]).await;
    let request = origin.request(Method::GET, "/prompts/simple?topic=%5B%22a%20%26%20b%22%5D");
    let all = events(open(request.header("accept", "text/html, TEXT/EVENT-STREAM;q=0.9")).await).await;
    assert_eq!(text(&all), "a & b");
    assert_eq!(terminal(&all).0, "done");
}

#[tokio::test]
async fn a_failure_before_the_first_token_is_a_status() {
    let origin = spawn_origin(&[]).await;
    for (fail, expected) in [
        ("refused", (424, "model-refused")),
        ("too-long", (400, "too-long")),
        ("broke-off", (502, "model-broke-off")),
        ("rate-limited", (429, "rate-limited")),
        ("overloaded", (503, "overloaded")),
    ] {
        for request in [origin.start(&json!([{ "fail": fail }])), origin.bare(&json!([{ "fail": fail }]))] {
            let response = request.send().await.unwrap();
            if fail == "rate-limited" {
                assert_eq!(response.headers()["retry-after"], "7");
            }
            let (status, name) = problem(response).await;
            assert_eq!((status, name.as_str()), expected);
        }
    }
}

#[tokio::test]
async fn a_failure_behind_the_start_window_is_a_failed_event() {
    let origin = spawn_origin(&["--start-window", "10ms"]).await;
    let all = events(open(origin.start(&json!([50, { "fail": "refused" }]))).await).await;
    let (name, failed) = terminal(&all);
    assert_eq!(
        (name, &failed["type"], &failed["retryable"]),
        ("failed", &json!("/problems/model-refused"), &json!(false))
    );
}

#[tokio::test]
async fn a_failure_behind_the_start_window_is_told_to_a_retried_start_in_the_same_way() {
    let origin = spawn_origin(&["--start-window", "20ms"]).await;
    let start = || origin.start(&json!([100, { "fail": "broke-off" }])).header("idempotency-key", "a-key-of-the-tests");
    let first = open(start()).await;
    let id = id_of(&first);
    let first = events(first).await;
    assert_eq!(terminal(&first).0, "failed");
    assert_eq!(events(open(start()).await).await, first);
    assert_eq!(events(origin.follow(&id).await).await, first);
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test]
async fn a_failure_in_mid_stream_is_a_failed_event_and_breaks_a_bare_stream_off() {
    let origin = spawn_origin(&[]).await;
    let script = json!(["half", 20, { "fail": "broke-off" }]);
    let all = events(open(origin.start(&script)).await).await;
    assert_eq!(text(&all), "half");
    let (name, failed) = terminal(&all);
    assert_eq!(
        (name, &failed["type"], &failed["retryable"]),
        ("failed", &json!("/problems/model-broke-off"), &json!(true))
    );
    assert!(failed.get("status").is_none());

    let bare = open(origin.bare(&script)).await;
    assert!(bare.text().await.is_err(), "a bare stream that failed never looks complete");
}

#[tokio::test]
async fn a_failure_right_behind_a_token_breaks_a_bare_stream_off_too() {
    let origin = spawn_origin(&[]).await;
    let mut bare = open(origin.bare(&json!(["half", { "fail": "broke-off" }]))).await;
    assert_eq!(bare.chunk().await.unwrap().unwrap(), "data: {\"chunk\":\"half\"}\n\n");
    assert!(bare.chunk().await.is_err());
}

#[tokio::test]
async fn a_model_that_panics_ends_its_stream_as_failed_and_no_other() {
    let origin = spawn_origin(&[]).await;
    let other = open(origin.start(&json!([{ "tokens": 10, "every_ms": 20 }]))).await;
    let all = events(open(origin.start(&json!(["half", 10, { "fail": "panic" }]))).await).await;
    let (name, failed) = terminal(&all);
    assert_eq!((name, &failed["type"]), ("failed", &json!("/problems/internal")));
    assert_eq!(terminal(&events(other).await).0, "done");
    origin.until("running", 0).await;
}

#[tokio::test]
async fn only_the_edge_gets_in() {
    let origin = spawn_origin(&[]).await;
    let running = open(origin.start(&json!([{ "tokens": 100_000, "every_ms": 5 }]))).await;
    let stream = format!("/streams/{}", id_of(&running));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for token in
        [None, Some("Bearer "), Some("Bearer a secret of the testz"), Some("a secret of the tests"), Some("Basic x")]
    {
        for (method, path) in [(Method::POST, "/prompts/simple"), (Method::GET, &*stream), (Method::DELETE, &*stream)] {
            let mut request = client.request(method.clone(), format!("http://{}{path}", origin.address));
            request = request.json(&json!({}));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let refused = problem(request.send().await.unwrap()).await;
            assert_eq!(refused, (401, "unauthorised".into()), "{method} with {token:?}");
        }
    }
    assert_eq!(origin.count("started").await, 1, "no model was called");
    assert_eq!(origin.count("running").await, 1, "and no stream stopped");
}

#[tokio::test]
async fn bad_bodies_are_refused_and_start_nothing() {
    let origin = spawn_origin(&[]).await;
    let post = |body: String| origin.request(Method::POST, "/prompts/simple").body(body);
    let sent = |body: &str| post(body.into()).header("content-type", "application/json; charset=utf-8").send();
    let deep = format!("{{\"topic\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "\"cat\"",
        "{\"topic\":1}",
        "{\"topic\":null}",
        "{\"tpic\":\"cat\"}",
        "\u{feff}{}x",
        &deep,
    ] {
        assert_eq!(problem(sent(body).await.unwrap()).await, (400, "bad-request".into()), "{body}");
    }
    let long = format!("{{\"topic\":\"{}\"}}", "x".repeat(2_001));
    assert_eq!(problem(sent(&long).await.unwrap()).await, (400, "bad-request".into()));
    for media_type in [None, Some("text/plain"), Some("application/jsonp"), Some("application/x-www-form-urlencoded")] {
        let mut request = post("{}".into());
        if let Some(media_type) = media_type {
            request = request.header("content-type", media_type);
        }
        assert_eq!(problem(request.send().await.unwrap()).await, (415, "not-json".into()), "{media_type:?}");
    }
    assert_eq!(origin.count("started").await, 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_by_its_length_and_by_its_chunks() {
    let origin = spawn_origin(&[]).await;
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    );
    // By its length: refused although not a byte of it has come.
    let answer = origin.raw(format!("{head}content-length: 16385\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // By chunks: refused although the last one has not come.
    let chunk = format!("{head}transfer-encoding: chunked\r\n\r\n4001\r\n{}\r\n", "x".repeat(0x4001));
    let answer = origin.raw(chunk.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("/problems/too-large"), "{answer}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_bad_request() {
    let origin = spawn_origin(&[]).await;
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\nxyz\r\n"
    );
    let answer = origin.raw(head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[tokio::test]
async fn unknown_paths_methods_and_prompts_are_told_apart() {
    let origin = spawn_origin(&[]).await;
    for (method, path, expected) in [
        (Method::GET, "/", (404, "not-found")),
        (Method::GET, "/prompts/", (404, "not-found")),
        (Method::POST, "/simple", (404, "not-found")),
        (Method::GET, "/prompts/other", (404, "not-found")),
        (Method::GET, "/prompts/%ff", (404, "not-found")),
        (Method::GET, "/streams/%ff", (404, "not-found")),
        (Method::GET, "/prompts/simple?topic=%ff%zz&tpic=1", (400, "bad-request")),
        (Method::PUT, "/prompts/simple", (405, "invalid-method")),
        (Method::POST, "/streams/a-0123456789ABCDEFGHIJkl", (405, "invalid-method")),
        (Method::GET, "/streams/a-0123456789ABCDEFGHIJkl", (404, "not-found")),
        (Method::DELETE, "/streams/a-0123456789ABCDEFGHIJkl", (404, "not-found")),
        (Method::GET, "/streams/nonsense", (404, "not-found")),
        (Method::POST, "/healthz", (405, "invalid-method")),
    ] {
        let response = origin.request(method.clone(), path).send().await.unwrap();
        assert_eq!(response.headers().contains_key("allow"), expected.0 == 405, "{method} {path}");
        let (status, name) = problem(response).await;
        assert_eq!((status, name.as_str()), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn head_and_prefetch_start_nothing() {
    let origin = spawn_origin(&[]).await;
    let head = origin.request(Method::HEAD, "/prompts/simple").send().await.unwrap();
    assert_eq!((head.status().as_u16(), head.headers()["allow"].to_str().unwrap()), (405, "GET, POST"));
    let prefetch = origin.request(Method::GET, "/prompts/simple").header("sec-purpose", "prefetch;prerender");
    assert_eq!(problem(prefetch.send().await.unwrap()).await.0, 503);
    assert_eq!(origin.count("started").await, 0);
}

#[tokio::test]
async fn nobody_is_told_the_models_own_words() {
    let origin = spawn_origin(&[]).await;
    let all = events(open(origin.start(&json!(["x", { "fail": "broke-off" }]))).await).await;
    assert!(!data(all.last().unwrap()).to_string().contains("by script"));
}
