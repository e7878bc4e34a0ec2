//! OpenAI's chat completions and models, as their clients meet them.

use std::time::{Duration, Instant};

use futures::StreamExt;
use headwater_origin_testing::{Origin, RedisServer, events, id_of, open, spawn_origin, terminal, text, until};
use reqwest::{Method, Response};
use serde_json::{Value, json};

const KEY: &str = "a-key-of-the-tests-0001";

/// The data of each event, and that of the last.
async fn chunks(response: Response) -> Vec<Value> {
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let body = response.text().await.unwrap();
    let body = body.strip_suffix("data: [DONE]\n\n").expect("the last event").to_owned();
    let body = body.replace(": keep-alive\n", "");
    body.split_terminator("\n\n")
        .map(|event| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

fn content(chunks: &[Value]) -> String {
    chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect()
}

fn request_id(response: &Response) -> String {
    response.headers()["x-request-id"].to_str().unwrap().to_owned()
}

/// The status, the error, and whether clients are to repeat the request.
async fn error(response: Response) -> (u16, Value, bool) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    assert_eq!(headers["content-type"], "application/json");
    assert!(headers.contains_key("headwater-problem"));
    assert!(!matches!(status, 429 | 503) || headers.contains_key("retry-after"));
    let body: Value = response.json().await.unwrap();
    let error = body["error"].as_object().expect("an error");
    assert_eq!(error.keys().collect::<Vec<_>>(), ["code", "message", "param", "type"]);
    (status, body["error"].clone(), headers["x-should-retry"] == "true")
}

const STREAM: fn() -> Value = || json!({ "stream": true });

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamed_and_a_whole_answer_are_the_journals_text() {
    let origin = spawn_origin(&[]).await;
    let hostile = "a\r\n\ndata: [DONE]\n\n\"\\ \u{2028}\u{85}\u{1f9a6}";
    let script = json!([hostile, { "repeat": "\u{1f9a6}\"", "times": 20_000 }, "z"]);
    let more = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let streamed = open(origin.completion(&script, &more)).await;
    let id = request_id(&streamed);
    assert_eq!(id_of(&streamed), id);
    let streamed = chunks(streamed).await;
    let journal = text(&events(origin.follow(&id).await).await);
    assert_eq!(journal, [hostile, &"\u{1f9a6}\"".repeat(20_000), "z"].concat());
    assert_eq!(content(&streamed), journal);
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10 });
    assert_eq!(streamed.last().unwrap()["usage"], usage);
    assert!(streamed.iter().all(|chunk| chunk["id"] == format!("chatcmpl-{id}") && chunk["model"] == "scripted"));

    let whole = open(origin.completion(&script, &json!({}))).await;
    assert_eq!(whole.headers()["content-type"], "application/json");
    let whole: Value = whole.json().await.unwrap();
    assert_eq!(whole["choices"][0]["message"]["content"], journal);
    assert_eq!((&whole["choices"][0]["finish_reason"], &whole["usage"]), (&json!("stop"), &usage));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_silence_comments_of_one_line_keep_a_stream_alive_and_blanks_a_whole_answer() {
    let origin = spawn_origin(&["--heartbeat", "1s"]).await;
    let script = json!([3_500, "a", 2_500, "b"]);
    let (streamed, whole) =
        tokio::join!(async { open(origin.completion(&script, &STREAM())).await.text().await.unwrap() }, async {
            let began = Instant::now();
            let slow = json!([2_500, "a", 9_000, "b"]);
            let response = open(origin.completion(&slow, &json!({}))).await;
            (began.elapsed(), response.text().await.unwrap())
        });
    let (before, behind) = streamed.split_once("\"a\"").unwrap();
    assert!(before.starts_with("data: {") && before.contains("\"role\":\"assistant\""), "the role comes with the head");
    for part in [before, behind] {
        assert!(part.contains(": keep-alive\ndata: ") || part.contains(": keep-alive\n: keep-alive\ndata: "), "{part}");
        assert!(!part.contains("keep-alive\n\n"));
    }
    let (head, body) = whole;
    assert!((7_900..10_000).contains(&head.as_millis()), "within the edge's deadline: {head:?}");
    assert!(body.starts_with(' '), "{body}");
    let completion: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(completion["choices"][0]["message"]["content"], "ab");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_is_a_status_an_error_frame_or_a_break_and_never_a_clean_end() {
    let origin = spawn_origin(&["--start-window", "100ms"]).await;
    let fails = |name: &str, before: Value| {
        let mut script = before.as_array().unwrap().clone();
        script.push(json!({ "fail": name }));
        Value::from(script)
    };
    for (name, status, kind, code, retry) in [
        ("refused", 424, "server_error", "model_refused", false),
        ("misconfigured", 424, "server_error", "model_refused", false),
        ("too-long", 400, "invalid_request_error", "context_length_exceeded", false),
        ("rate-limited", 429, "rate_limit_error", "rate_limit_exceeded", true),
        ("overloaded", 503, "server_error", "overloaded", true),
        ("broke-off", 502, "server_error", "model-broke-off", true),
    ] {
        for more in [STREAM(), json!({})] {
            let origin = spawn_origin(&[]).await;
            let (found, error, retried) =
                error(origin.completion(&fails(name, json!([])), &more).send().await.unwrap()).await;
            assert_eq!((found, retried), (status, retry), "{name}");
            assert_eq!((error["type"].as_str(), error["code"].as_str()), (Some(kind), Some(code)));
        }
    }
    let late = chunks(open(origin.completion(&fails("broke-off", json!([300])), &STREAM())).await).await;
    assert_eq!(late.last().unwrap()["error"]["code"], "model-broke-off");
    let behind = chunks(open(origin.completion(&fails("broke-off", json!(["a"])), &STREAM())).await).await;
    assert_eq!(
        (content(&behind).as_str(), behind.last().unwrap()["error"]["code"].as_str()),
        ("a", Some("model-broke-off"))
    );
    // A whole answer has no head yet.
    let (status, error, _) =
        error(origin.completion(&fails("broke-off", json!(["a", 300])), &json!({})).send().await.unwrap()).await;
    assert_eq!((status, error["code"].as_str()), (502, Some("model-broke-off")));
    let cut = open(origin.completion(&fails("broke-off", json!(["a", 8_300])), &json!({}))).await;
    assert!(cut.text().await.is_err(), "behind the head it breaks off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_without_a_key_stops_the_generation_and_with_one_comes_back() {
    let origin = spawn_origin(&[]).await;
    let endless = json!([{ "tokens": 100_000, "every_ms": 10 }]);
    let leave = async |request: reqwest::RequestBuilder| {
        let response = open(request).await;
        let id = request_id(&response);
        let mut body = response.bytes_stream();
        body.next().await.unwrap().unwrap();
        id
    };
    leave(origin.completion(&endless, &STREAM())).await;
    origin.until("running", 0).await;
    // The edge's own key, which the client doesn't know.
    leave(origin.completion(&endless, &STREAM()).header("x-headwater-attempt", "a-key-of-the-edge-0001")).await;
    origin.until("running", 0).await;
    let keyed = || origin.completion(&endless, &STREAM()).header("idempotency-key", KEY);
    let id = leave(keyed()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(origin.count("running").await, 1);
    let again = open(keyed()).await;
    assert_eq!(request_id(&again), id);
    assert_eq!(origin.stop(&format!("chatcmpl-{id}")).await, 204);
    let all = chunks(again).await;
    assert_eq!(all.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert!(content(&all).starts_with("0 1 2 "));
    assert_eq!(origin.count("started").await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_is_one_generation_however_it_is_asked_for() {
    let origin = spawn_origin(&[]).await;
    let script = json!(["a", 50, "b"]);
    let keyed = |more: Value| origin.completion(&script, &more).header("idempotency-key", KEY);
    let usage = json!({ "stream": true, "stream_options": { "include_usage": true }, "user": "u", "seed": null });
    let (first, second, whole) = tokio::join!(
        async { chunks(open(keyed(STREAM())).await).await },
        async { chunks(open(keyed(usage)).await).await },
        async { open(keyed(json!({}))).await.json::<Value>().await.unwrap() },
    );
    assert_eq!(first[..], second[..second.len() - 1], "all but the usage");
    assert_eq!(whole["choices"][0]["message"]["content"], "ab");
    assert_eq!(origin.count("started").await, 1);
    for other in [json!({ "temperature": 0 }), json!({ "model": "default" }), json!({ "stop": "x" })] {
        let (status, error, retry) = error(keyed(other).send().await.unwrap()).await;
        assert_eq!((status, error["code"].as_str(), retry), (422, Some("idempotency_key_reused"), false));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_that_failed_frees_its_key() {
    let origin = spawn_origin(&[]).await;
    let script = json!(["a", 50, { "fail": "broke-off" }]);
    let ask = || origin.completion(&script, &json!({})).header("idempotency-key", KEY);
    for count in 1..=2 {
        assert_eq!(error(ask().send().await.unwrap()).await.0, 502);
        assert_eq!(origin.count("started").await, count, "a repetition is another try");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_answer_that_fails_leaves_the_stream_to_who_reads_it() {
    let origin = spawn_origin(&[]).await;
    let script = json!(["a", 300, { "fail": "broke-off" }]);
    let keyed = |more: Value| origin.completion(&script, &more).header("idempotency-key", KEY);
    let streamed = open(keyed(STREAM())).await;
    let id = request_id(&streamed);
    assert_eq!(error(keyed(json!({})).send().await.unwrap()).await.0, 502);
    assert_eq!(terminal(&events(origin.follow(&id).await).await).0, "failed");
    assert_eq!(request_id(&open(keyed(STREAM())).await), id);
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_whose_connection_broke_before_the_head_finds_the_stream_again() {
    let origin = spawn_origin(&[]).await;
    for (started, more) in [(1, STREAM()), (2, json!({}))] {
        let key = format!("{KEY}-{}", more["stream"]);
        let ask = || origin.completion(&json!([1_500, "a"]), &more).header("x-headwater-attempt", &key);
        let broken = tokio::spawn(ask().send());
        origin.until("started", started).await;
        broken.abort();
        assert!(broken.await.is_err(), "there is no head yet");
        let answer = open(ask()).await.text().await.unwrap();
        assert!(answer.contains("\"content\":\"a\""), "{answer}");
    }
    assert_eq!(origin.count("started").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_chat_started_is_read_and_stopped_in_the_own_dialect() {
    let origin = spawn_origin(&[]).await;
    let chat = open(origin.completion(&json!([{ "tokens": 1_000_000, "every_ms": 5 }]), &STREAM())).await;
    let id = request_id(&chat);
    let (chat, own, ()) = tokio::join!(chunks(chat), async { events(origin.follow(&id).await).await }, async {
        until("it runs", async || origin.count("running").await == 1).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(origin.stop(&id).await, 204);
    });
    assert_eq!(terminal(&own).1["finish"], "stopped");
    assert_eq!(content(&chat), text(&own));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_the_same_to_the_byte_at_every_origin() {
    let server = RedisServer::start();
    let journal = server.address();
    let a = spawn_origin(&["--name", "a", "--journal", &journal]).await;
    let b = spawn_origin(&["--name", "b", "--journal", &journal]).await;
    let script = json!([2_300, { "tokens": 20, "every_ms": 10 }]);
    let more = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let keyed = |origin: &Origin| origin.completion(&script, &more).header("idempotency-key", KEY);
    let read = async |origin: &Origin| open(keyed(origin)).await.bytes().await.unwrap();
    // At the other origin before its first event is there, too.
    let first = open(keyed(&a)).await;
    let (first, early) = tokio::join!(async { first.bytes().await.unwrap() }, read(&b));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let (late, there) = (read(&a).await, read(&b).await);
    assert_eq!([&first, &early, &late], [&there; 3]);
    assert_eq!(a.count("started").await + b.count("started").await, 1);
    // A caller's stream is its own at the other origin, too.
    let owned = open(a.completion(&json!(["a"]), &STREAM()).header("x-headwater-caller", "aa")).await;
    let id = request_id(&owned);
    chunks(owned).await;
    assert_eq!(b.follow(&id).await.status(), 404);
    let own = b.request(Method::GET, &format!("/streams/{id}")).header("x-headwater-caller", "aa");
    assert_eq!(text(&events(open(own).await).await), "a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_has_openais_shape_and_names_the_member() {
    let origin = spawn_origin(&[]).await;
    let with = |more: Value| origin.completion(&json!(["a"]), &more);
    let said = |message: Value| with(json!({ "messages": [message] }));
    let post = |media_type: &str, body: Vec<u8>| {
        origin.request(Method::POST, "/v1/chat/completions").header("content-type", media_type).body(body)
    };
    let image = json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] });
    for (request, status, param, code) in [
        (with(json!({ "messages": [] })), 400, Some("messages"), None),
        (said(json!({ "role": "owner", "content": "a" })), 400, Some("messages[0].role"), None),
        (said(image), 400, Some("messages[0].content[0]"), Some("unsupported_value")),
        (with(json!({ "tools": [{ "type": "function" }] })), 400, Some("tools"), Some("unsupported_parameter")),
        (with(json!({ "n": 2 })), 400, Some("n"), Some("unsupported_value")),
        (with(json!({ "logprobs": true })), 400, Some("logprobs"), Some("unsupported_parameter")),
        (with(json!({ "temperature": 3 })), 400, Some("temperature"), None),
        (with(json!({ "model": "gpt-9" })), 404, Some("model"), Some("model_not_found")),
        (post("application/json", b"{".to_vec()), 400, None, None),
        (post("text/plain", b"{}".to_vec()), 415, None, None),
        (post("application/json", vec![b' '; (1 << 20) + 1]), 413, None, Some("request_too_large")),
        (origin.request(Method::GET, "/v1/chat/completions"), 405, None, None),
        (origin.request(Method::POST, "/v1/embeddings"), 404, None, None),
        (
            reqwest::Client::new().get(format!("http://{}/v1/models", origin.address)),
            401,
            None,
            Some("invalid_api_key"),
        ),
        (with(json!({})).header("idempotency-key", "short"), 400, None, None),
    ] {
        let (found, error, retry) = error(request.send().await.unwrap()).await;
        assert_eq!((found, retry, &error["type"]), (status, false, &json!("invalid_request_error")), "{error}");
        assert_eq!((error["param"].as_str(), error["code"].as_str()), (param, code), "{error}");
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
    }
    assert_eq!(origin.count("started").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn models_are_listed_found_and_known_by_aliases() {
    let origin = spawn_origin(&["--model-alias", "gpt-4o-mini=scripted,org/any:free=default"]).await;
    let get = async |path: &str| origin.request(Method::GET, path).send().await.unwrap();
    let list: Value = get("/v1/models").await.json().await.unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((&list["object"], ids), (&json!("list"), vec!["scripted", "gpt-4o-mini", "org/any:free"]));
    assert_eq!(get("/v1/models/scripted").await.json::<Value>().await.unwrap(), list["data"][0]);
    for name in ["gpt-4o-mini", "org/any:free", "org%2Fany%3Afree"] {
        let model: Value = get(&format!("/v1/models/{name}")).await.json().await.unwrap();
        assert_eq!(model["id"], name.replace("%2F", "/").replace("%3A", ":"));
    }
    let (status, error, _) = error(get("/v1/models/gpt-9").await).await;
    assert_eq!((status, error["code"].as_str()), (404, Some("model_not_found")));
    assert!(error["message"].as_str().unwrap().contains("scripted"));
    let answer =
        chunks(open(origin.completion(&json!(["a"]), &json!({ "model": "gpt-4o-mini", "stream": true }))).await).await;
    assert!(answer.iter().all(|chunk| chunk["model"] == "gpt-4o-mini"), "the name that was asked for");

    let any = spawn_origin(&["--model-alias", "*=scripted"]).await;
    let answer = any.completion(&json!(["a"]), &json!({ "model": "gpt-9", "stream": true }));
    assert!(chunks(open(answer).await).await.iter().all(|chunk| chunk["model"] == "gpt-9"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_ignored_is_told_in_a_header() {
    let origin = spawn_origin(&[]).await;
    let more = json!({ "top_k": 40, "min_p": 0.1, "user": "u", "n": 1 });
    let answer = open(origin.completion(&json!(["a"]), &more)).await;
    assert_eq!(answer.headers()["headwater-ignored"], "min_p, top_k");
    let plain = open(origin.completion(&json!(["a"]), &json!({}))).await;
    assert!(!plain.headers().contains_key("headwater-ignored"));
}
