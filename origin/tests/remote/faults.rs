//! FAULTS 12, 14 and 15: providers that fail, and readers that leave.

use std::time::{Duration, Instant};

use headwater_origin_testing::{Origin, events, first_events, id_of, open, problem, terminal, text};
use reqwest::Method;
use serde_json::json;

use crate::{
    process::Process,
    protocols::{OPENAI, PROTOCOLS},
    provider::{Answer, Provider, Step, send},
};

const TOKEN: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"tick \"},\"finish_reason\":null}]}\n\n";
/// The second of two models.
pub const GOOD: &str = "anthropic:claude-haiku-4-5";

/// An answer that fails before its first token, and the status that it becomes.
fn failures() -> Vec<(&'static str, Answer, (u16, &'static str))> {
    let words = "{\"error\":{\"message\":\"words of the provider\"}}";
    let status = |status: &str| Answer::status(status, "", words);
    vec![
        ("400", status("400 Bad Request"), (400, "model-refused")),
        ("403", status("403 Forbidden"), (424, "model-refused")),
        ("401", status("401 Unauthorized"), (424, "model-refused")),
        ("404", status("404 Not Found"), (424, "model-refused")),
        ("429", Answer::status("429 Too Many Requests", "retry-after: 7\r\n", words), (429, "rate-limited")),
        ("500", status("500 Internal Server Error"), (502, "model-broke-off")),
        ("503", Answer::status("503 Service Unavailable", "retry-after: 9\r\n", words), (503, "overloaded")),
        ("529", status("529 Overloaded"), (503, "overloaded")),
        ("HTML", Answer::text("<!doctype html><title>words of the provider</title>"), (424, "model-refused")),
        ("broken JSON", Answer::text("data: {\"choices\":[{\n\n"), (502, "model-broke-off")),
        ("not UTF-8", Answer::stream([Step::Send(b"data: \xff\xfe\n\n".into())]), (502, "model-broke-off")),
        (
            "a wrong key",
            Answer::status("400 Bad Request", "", "{\"reason\":\"API_KEY_INVALID\"}"),
            (424, "model-refused"),
        ),
        ("no money", Answer::status("429 No", "", "{\"code\":\"insufficient_quota\"}"), (424, "model-refused")),
        ("an error event", Answer::text(&format!("data: {words}\n\n")), (502, "model-broke-off")),
        ("nothing", Answer::text(""), (502, "model-broke-off")),
        ("a cut", Answer::stream([Step::Cut]), (502, "model-broke-off")),
        ("a redirect", Answer::status("307 Elsewhere", "location: /v1/elsewhere\r\n", ""), (424, "model-refused")),
    ]
}

/// An origin with the failing model first, and the good one behind it.
pub async fn with_fallback(failing: &Provider, good: &Provider, flags: &[&str]) -> Process {
    let (failing, good) = (failing.url("/v1"), good.url(""));
    let variables = [
        ("OPENAI_BASE_URL", &*failing),
        ("OPENAI_API_KEY", "one"),
        ("ANTHROPIC_BASE_URL", &good),
        ("ANTHROPIC_API_KEY", "two"),
    ];
    Process::spawn(&variables, &[&["--model", OPENAI.model, "--model", GOOD], flags].concat()).await
}

#[tokio::test]
async fn fault_14_a_failure_before_the_first_token_is_a_status_without_the_providers_words() {
    for (what, answer, expected) in failures() {
        let provider = Provider::spawn(answer).await;
        let process = OPENAI.origin(&provider, &[]).await;
        for request in [process.origin.start(&json!("a")), process.origin.bare(&json!("a"))] {
            let response = request.send().await.unwrap();
            let waits = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            match what {
                "429" => assert_eq!(waits.as_deref(), Some("7")),
                "503" => assert_eq!(waits.as_deref(), Some("9")),
                _ => {}
            }
            let (status, name) = problem(response).await;
            assert_eq!((status, &*name), expected, "{what}");
        }
        let told = process.origin.start(&json!("a")).send().await.unwrap().text().await.unwrap();
        assert!(!told.contains("words of the provider"), "{what}: {told}");
        process.until_logged("the model gave no first token").await;
    }
}

#[tokio::test]
async fn fault_14_a_failure_means_the_same_in_every_protocol() {
    for protocol in &PROTOCOLS {
        for (answer, expected) in [
            (Answer::status("401 Unauthorized", "", "{}"), (424, "model-refused")),
            (Answer::status("429 Slowly", "", "{}"), (429, "rate-limited")),
            (Answer::status("503 Service Unavailable", "", "{}"), (503, "overloaded")),
            (Answer::status("500 Internal Server Error", "", "{}"), (502, "model-broke-off")),
            (Answer::text("<!doctype html><title>words</title>\n\n"), (424, "model-refused")),
        ] {
            let provider = Provider::spawn(answer).await;
            let response = protocol.origin(&provider, &[]).await.origin.start(&json!("a")).send().await.unwrap();
            let (status, name) = problem(response).await;
            assert_eq!((status, &*name), expected, "{}", protocol.model);
        }
    }
}

#[tokio::test]
async fn fault_14_an_error_in_a_stream_is_read_in_the_providers_own_form() {
    for (provider, said, expected) in [
        (
            "anthropic",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"words\"}}\n\n",
            (503, "overloaded"),
        ),
        ("gemini", "data: {\"error\":{\"code\":503,\"message\":\"words\"}}\n\n", (503, "overloaded")),
        ("gemini", "data: {\"promptFeedback\":{\"blockReason\":\"PROHIBITED_CONTENT\"}}\n\n", (424, "model-refused")),
        ("ollama", "{\"error\":\"words\"}\n", (502, "model-broke-off")),
    ] {
        let protocol = PROTOCOLS.iter().find(|protocol| protocol.model.starts_with(provider)).unwrap();
        let provider = Provider::spawn(Answer::text(said)).await;
        let response = protocol.origin(&provider, &[]).await.origin.start(&json!("a")).send().await.unwrap();
        let (status, name) = problem(response).await;
        assert_eq!((status, &*name), expected, "{said}");
    }
}

#[tokio::test]
async fn fault_14_the_next_model_answers_and_the_record_names_it() {
    let good = Provider::spawn(Answer::text(PROTOCOLS[1].fixture)).await;
    for (what, answer, _) in failures() {
        let failing = Provider::spawn(answer).await;
        let process = with_fallback(&failing, &good, &[]).await;
        let all = events(open(process.origin.start(&json!("a"))).await).await;
        assert_eq!((text(&all).starts_with("Bushy tail"), terminal(&all).0), (true, "done"), "{what}");
        assert_eq!(process.record().await["model"], GOOD, "{what}");
        assert_eq!(failing.requests().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn fault_14_a_provider_that_cannot_be_reached_is_passed_over() {
    let good = Provider::spawn(Answer::text(PROTOCOLS[1].fixture)).await;
    let mut variables = [("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"), ("OPENAI_API_KEY", "one"), ("", ""), ("", "")];
    let alone = Process::spawn(&variables[..2], &["--model", OPENAI.model]).await;
    let refused = alone.origin.start(&json!("a")).send().await.unwrap();
    assert_eq!(problem(refused).await, (502, "model-broke-off".into()));

    let url = good.url("");
    variables[2..].copy_from_slice(&[("ANTHROPIC_BASE_URL", &url), ("ANTHROPIC_API_KEY", "two")]);
    let both = Process::spawn(&variables, &["--model", &format!("{},{GOOD}", OPENAI.model)]).await;
    assert_eq!(terminal(&events(open(both.origin.start(&json!("a"))).await).await).0, "done");
}

#[tokio::test]
async fn fault_14_when_all_fail_the_failure_that_may_pass_is_told() {
    let failing = Provider::spawn(Answer::status("429 Slowly", "retry-after: 7\r\n", "")).await;
    let forbidden = Provider::spawn(Answer::status("403 Forbidden", "", "")).await;
    let process = with_fallback(&failing, &forbidden, &[]).await;
    let response = process.origin.start(&json!("a")).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "7");
    assert_eq!(problem(response).await, (429, "rate-limited".into()));
    assert_eq!(forbidden.requests().len(), 1);
}

#[tokio::test]
async fn fault_14_a_failure_after_the_gate_is_failed_or_broken_off() {
    for protocol in &PROTOCOLS {
        let late = Answer::stream([Step::Pause(Duration::from_millis(500)), Step::Cut]);
        let provider = Provider::spawn(late).await;
        let process = protocol.origin(&provider, &["--start-window", "20ms"]).await;
        assert_failed(&process.origin, "/problems/model-broke-off", &json!(true), "").await;
    }
}

#[tokio::test]
async fn fault_14_a_cut_after_the_first_token_is_failed_in_every_protocol() {
    for protocol in &PROTOCOLS {
        for then in [&[Step::Cut][..], &[], &[send("nonsense\n\n"), Step::Cut]] {
            let provider = Provider::spawn(protocol.begun(then)).await;
            let process = protocol.origin(&provider, &[]).await;
            assert_failed(&process.origin, "/problems/model-broke-off", &json!(true), "Bushy").await;
        }
    }
}

#[tokio::test]
async fn fault_14_a_failure_after_the_first_token_is_failed_and_no_other_model_is_asked() {
    let error = "data: {\"error\":{\"message\":\"words of the provider\",\"type\":\"server_error\"}}\n\n";
    let overloaded = "data: {\"error\":{\"message\":\"words\",\"code\":503}}\n\n";
    let other_end = TOKEN.replace("null", "\"error\"") + "data: [DONE]\n\n";
    for (steps, name) in [
        (vec![send(TOKEN), Step::Cut], "model-broke-off"),
        (vec![send(TOKEN)], "model-broke-off"),
        (vec![send(TOKEN), send(error)], "model-broke-off"),
        (vec![send(TOKEN), send(overloaded)], "overloaded"),
        (vec![send(TOKEN), send("data: {\"choices\":\n\n")], "model-broke-off"),
        (vec![send(TOKEN), send("data: [DONE]\n\n")], "model-broke-off"),
        (vec![send(&other_end)], "model-broke-off"),
    ] {
        let failing = Provider::spawn(Answer::stream(steps)).await;
        let good = Provider::spawn(Answer::text(PROTOCOLS[1].fixture)).await;
        let process = with_fallback(&failing, &good, &[]).await;
        assert_failed(&process.origin, &format!("/problems/{name}"), &json!(true), "tick ").await;
        assert!(good.requests().is_empty());
    }
}

#[tokio::test]
async fn fault_14_an_answer_that_ends_early_is_no_answer_in_any_protocol() {
    for protocol in &PROTOCOLS {
        let cut = protocol.fixture.rfind(last_event(protocol.model)).unwrap();
        let provider = Provider::spawn(Answer::text(&protocol.fixture[..cut])).await;
        let process = protocol.origin(&provider, &[]).await;
        let all = events(open(process.origin.start(&json!("a"))).await).await;
        assert_eq!(terminal(&all).0, "failed", "{}", protocol.model);
        assert_eq!(terminal(&all).1["type"], "/problems/model-broke-off", "{}", protocol.model);
    }
}

/// How the event begins without which an answer is none.
fn last_event(model: &str) -> &'static str {
    match model.split(':').next() {
        Some("openai") => {
            "data: {\"id\":\"chatcmpl-CzQ8kPp0\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"gpt-5-mini-2025-08-07\",\"service_tier\":\"default\",\"system_fingerprint\":null,\"choices\":[{\"index\":0,\"delta\":{}"
        }
        Some("anthropic") => "event: message_delta",
        Some("gemini") => "data: {",
        _ => "{\"model\"",
    }
}

#[tokio::test]
async fn fault_15_a_model_that_is_silent_from_the_start_is_left_for_the_next() {
    let silent = Provider::spawn(silent()).await;
    let good = Provider::spawn(Answer::text(PROTOCOLS[1].fixture)).await;
    let process = with_fallback(&silent, &good, &["--first-token-timeout", "1s"]).await;
    let all = events(open(process.origin.start(&json!("a"))).await).await;
    assert_eq!(terminal(&all).0, "done");
    silent.until_left(1).await;
}

#[tokio::test]
async fn fault_15_a_stall_is_given_up_and_its_connection_closed() {
    for protocol in &PROTOCOLS {
        let silent = Provider::spawn(silent()).await;
        let process = protocol.origin(&silent, &["--first-token-timeout", "100ms"]).await;
        let response = process.origin.start(&json!("a")).send().await.unwrap();
        assert_eq!(problem(response).await, (504, "first-token-timeout".into()), "{}", protocol.model);
        silent.until_left(1).await;

        let stalled = Provider::spawn(protocol.begun(&[Step::Hang])).await;
        let process = protocol.origin(&stalled, &["--idle-timeout", "100ms"]).await;
        assert_failed(&process.origin, "/problems/idle-timeout", &json!(true), "Bushy").await;
        stalled.until_left(2).await;
    }
}

#[tokio::test]
async fn fault_12_the_providers_connection_is_closed_when_the_linger_has_passed() {
    let linger = Duration::from_secs(1);
    for protocol in &PROTOCOLS {
        let provider = Provider::spawn(protocol.endless()).await;
        let process = protocol.origin(&provider, &["--linger", "1s"]).await;
        let response = open(process.origin.start(&json!("a"))).await;
        let (id, read) = (id_of(&response), Instant::now());
        first_events(response, 3).await;
        provider.until_left(1).await;
        assert!(read.elapsed() >= linger, "it lingers: {} after {:?}", protocol.model, read.elapsed());
        let all = events(process.origin.follow(&id).await).await;
        assert_eq!(terminal(&all).1["type"], "/problems/abandoned");
    }
}

#[tokio::test]
async fn fault_12_a_bare_streams_provider_is_left_with_its_reader() {
    for protocol in &PROTOCOLS {
        let provider = Provider::spawn(protocol.endless()).await;
        let process = protocol.origin(&provider, &["--linger", "1h"]).await;
        let mut response = open(process.origin.bare(&json!("a"))).await;
        response.chunk().await.unwrap();
        drop(response);
        provider.until_left(1).await;
    }
}

#[tokio::test]
async fn fault_12_a_stop_closes_the_providers_connection_before_and_after_the_first_token() {
    let each = PROTOCOLS.iter().flat_map(|protocol| [(protocol, protocol.endless()), (protocol, silent())]);
    for (protocol, answer) in each {
        let provider = Provider::spawn(answer).await;
        let process = protocol.origin(&provider, &["--start-window", "20ms"]).await;
        let response = open(process.origin.start(&json!("a"))).await;
        let stopped = process.origin.request(Method::DELETE, &format!("/streams/{}", id_of(&response)));
        let stopped = async {
            assert_eq!(stopped.send().await.unwrap().status(), 204);
            provider.until_left(1).await;
        };
        tokio::time::timeout(Duration::from_secs(1), stopped).await.expect("within a second");
        assert_eq!(terminal(&events(response).await).1["finish"], "stopped");
    }
}

fn silent() -> Answer {
    Answer::stream([Step::Hang])
}

/// A framed answer ends as `failed` after `said`, and a bare one breaks off.
async fn assert_failed(origin: &Origin, name: &str, retryable: &serde_json::Value, said: &str) {
    let all = events(open(origin.start(&json!("a"))).await).await;
    let (event, failed) = terminal(&all);
    assert_eq!((event, &failed["type"], &failed["retryable"]), ("failed", &json!(name), retryable));
    assert_eq!(text(&all), said);
    assert!(!failed.to_string().contains("words"), "{failed}");
    let bare = open(origin.bare(&json!("a"))).await.bytes().await;
    assert!(bare.is_err(), "a failure never looks complete");
}
