//! Conversations in this project's own dialects, and who may read what.

use headwater_origin_testing::{data, events, id_of, open, problem, spawn_origin, terminal, text};
use reqwest::Method;
use serde_json::{Value, json};

fn said(text: &str) -> Value {
    json!({ "messages": [{ "role": "system", "content": "be brief" }, { "role": "user", "content": text }] })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_is_answered_framed_and_bare_and_resumed_by_its_cursor() {
    let origin = spawn_origin(&[]).await;
    let chat = |body: &Value| origin.request(Method::POST, "/chat").json(body);
    let body = said(r#"["a", "b", "c"]"#);
    let framed = open(chat(&body).header("accept", "text/event-stream")).await;
    let id = id_of(&framed);
    let whole = events(framed).await;
    assert_eq!((text(&whole).as_str(), terminal(&whole).0), ("abc", "done"));
    let bare = open(chat(&body)).await.text().await.unwrap();
    assert_eq!(bare, r#"data: {"chunk":"a"}|data: {"chunk":"b"}|data: {"chunk":"c"}|"#.replace('|', "\n\n"));
    for method in [Method::GET, Method::POST] {
        let resumed = origin.request(method, &format!("/chat?last_event_id={id}.0"));
        assert_eq!(text(&events(open(resumed).await).await), "bc");
    }
    assert_eq!(origin.count("started").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_read_is_a_problem_that_names_it() {
    let origin = spawn_origin(&[]).await;
    let user = json!([{ "role": "user", "content": "a" }]);
    for (body, told) in [
        (json!({}), "messages is missing"),
        (json!({ "messages": [] }), "1 to 1000"),
        (json!({ "messages": user, "prompt": "a" }), "unknown member"),
        (json!({ "messages": user, "temperature": 3 }), "from 0 to 2"),
        (json!({ "messages": [{ "role": "owner", "content": "a" }] }), "messages[0].role"),
    ] {
        let answer = origin.request(Method::POST, "/chat").json(&body).send().await.unwrap();
        let document: Value = answer.json().await.unwrap();
        assert_eq!(document["type"], "/problems/bad-request");
        assert!(document["detail"].as_str().unwrap().contains(told), "{document}");
    }
    let unknown = json!({ "messages": user, "model": "gpt-9" });
    let answer = origin.request(Method::POST, "/chat").json(&unknown).send().await.unwrap();
    assert_eq!(problem(answer).await, (404, "no-such-model".into()));
    let answer = origin.request(Method::GET, "/chat").send().await.unwrap();
    assert_eq!(answer.headers()["allow"], "POST");
    assert_eq!(problem(answer).await, (405, "invalid-method".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_may_be_longer_than_a_prompt_but_not_over_its_limit() {
    let origin = spawn_origin(&[]).await;
    let of_bytes = |bytes: usize| {
        let empty = said("[]").to_string().len();
        said(&("x".repeat(bytes - empty) + "[]")).to_string()
    };
    for (bytes, status) in [(1 << 20, 200), ((1 << 20) + 1, 413)] {
        let body = of_bytes(bytes);
        assert_eq!(body.len(), bytes);
        let chat = origin.request(Method::POST, "/chat").header("content-type", "application/json").body(body);
        assert_eq!(chat.send().await.unwrap().status(), status);
    }
    let prompt = origin.bare(&json!(["x".repeat(17 * 1024)])).send().await.unwrap();
    assert_eq!(problem(prompt).await, (413, "too-large".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thoughts_are_events_of_their_own_with_numbers_of_their_own() {
    let origin = spawn_origin(&[]).await;
    let answer = open(origin.start(&json!([{ "think": "h" }, { "think": "m" }, "a", { "think": "" }]))).await;
    let id = id_of(&answer);
    let all = events(answer).await;
    let found: Vec<_> = all.iter().map(|event| (event.event.as_str(), event.id.trim_start_matches(&*id))).collect();
    assert_eq!(found, [("reasoning", ".0"), ("reasoning", ".1"), ("message", ".2"), ("done", ".3")]);
    assert_eq!((data(&all[0]), text(&all)), (json!({ "chunk": "h" }), "a".into()));
    assert_eq!(events(origin.follow(&format!("{id}.0")).await).await, all[1..]);
    let bare = open(origin.bare(&json!([{ "think": "hm" }, "a"]))).await.text().await.unwrap();
    assert_eq!(bare, "data: {\"chunk\":\"a\"}\n\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callers_stream_and_keys_are_its_own() {
    let origin = spawn_origin(&[]).await;
    let (script, key) = (json!([{ "tokens": 100_000, "every_ms": 20 }]), "a-key-of-the-tests-0001");
    let start = |caller: &str| {
        let start = origin.start(&script).header("idempotency-key", key);
        if caller.is_empty() { start } else { start.header("x-headwater-caller", caller) }
    };
    let (mine, others, nobodys) = (open(start("aa")).await, open(start("bb")).await, open(start("")).await);
    let id = id_of(&mine);
    assert_eq!(id_of(&open(start("aa")).await), id, "the key finds its caller's stream");
    assert!(id != id_of(&others) && id != id_of(&nobodys) && id_of(&others) != id_of(&nobodys));
    for method in [Method::GET, Method::DELETE] {
        for caller in [None, Some("bb"), Some("")] {
            let request = origin.request(method.clone(), &format!("/streams/{id}"));
            let request = caller.iter().fold(request, |request, caller| request.header("x-headwater-caller", *caller));
            assert_eq!(problem(request.send().await.unwrap()).await, (404, "not-found".into()));
            let resume = origin.request(Method::POST, "/chat").header("last-event-id", &id);
            assert_eq!(problem(resume.send().await.unwrap()).await, (404, "not-found".into()));
        }
    }
    let stop = |id: &str, caller: &str| {
        origin.request(Method::DELETE, &format!("/streams/{id}")).header("x-headwater-caller", caller)
    };
    assert_eq!(stop(&id, "aa").send().await.unwrap().status(), 204);
    assert_eq!(stop(&id_of(&nobodys), "aa").send().await.unwrap().status(), 204, "nobody's stream is anybody's");
    assert_eq!(terminal(&events(mine).await).1["finish"], "stopped");
}
