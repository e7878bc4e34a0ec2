//! FAULT 32: what real providers, gateways and local servers say, and what becomes of it. The bodies themselves are read in
//! `model/remote/parser`; here is what takes a connection, a clock or a status.

use std::time::{Duration, Instant};

use headwater_origin_testing::{data, events, open, problem, terminal, text};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    process::Process,
    protocols::{OPENAI, PROTOCOLS, Protocol, TEXT},
    provider::{Answer, Provider, Request, Step, send},
};

/// Comments go on for five minutes, other signs of life for ever; here for so long.
const SIGNS: usize = 12;
const BETWEEN: Duration = Duration::from_millis(100);
/// Shorter than all of them together.
const TIMEOUT: &str = "600ms";

impl Protocol {
    fn is(&self, provider: &str) -> bool {
        self.model.starts_with(provider)
    }

    /// The fixture up to the reason for its end, without a marker behind it.
    fn with_reason(&self) -> &'static str {
        let marker = if self.is("openai") { "data: [DONE]" } else { "event: message_stop" };
        self.fixture.split_once(marker).map_or(self.fixture, |(before, _)| before)
    }

    /// A sign of life without text.
    fn sign(&self) -> &'static str {
        if self.is("openai") {
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"},\"finish_reason\":null}]}\n\n"
        } else if self.is("anthropic") {
            "event: ping\ndata: {\"type\": \"ping\"}\n\n"
        } else if self.is("gemini") {
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"hm\",\"thought\":true}],\"role\":\"model\"}}]}\r\n\r\n"
        } else {
            "{\"model\":\"qwen3\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"hm\"},\"done\":false}\n"
        }
    }
}

/// The text, the name and the finish of an answer.
async fn answer(process: &Process) -> (String, String, String) {
    let all = events(open(process.origin.start(&json!("a"))).await).await;
    let (name, data) = terminal(&all);
    (text(&all), name.to_owned(), data["finish"].as_str().unwrap_or_default().to_owned())
}

fn whole() -> (String, String, String) {
    (TEXT.into(), "done".into(), "stop".into())
}

#[tokio::test]
async fn an_answer_that_says_why_it_ends_is_whole_without_a_marker_and_whatever_the_connection_does() {
    for protocol in &PROTOCOLS {
        for then in [
            &[][..],
            &[Step::Hang],
            &[send(": ping\n\n"), Step::Pause(Duration::from_secs(1)), send(": ping\n\n"), Step::Hang],
        ] {
            if protocol.is("ollama") && then.len() > 1 {
                // A comment is no line of JSON.
                continue;
            }
            let steps = [send(protocol.with_reason())].into_iter().chain(then.iter().cloned());
            let provider = Provider::spawn(Answer::stream(steps)).await;
            let process = protocol.origin(&provider, &[]).await;
            let asked = Instant::now();
            assert_eq!(answer(&process).await, whole(), "{}", protocol.model);
            let longest = if protocol.is("gemini") { 14 } else { 5 };
            assert!(asked.elapsed() < Duration::from_secs(longest), "{} {:?}", protocol.model, asked.elapsed());
        }
    }
}

#[tokio::test]
async fn a_broken_connection_behind_the_reason_is_an_end_but_for_gemini_whose_reason_proves_nothing() {
    for protocol in &PROTOCOLS {
        let provider = Provider::spawn(Answer::stream([send(protocol.with_reason()), Step::Cut])).await;
        let process = protocol.origin(&provider, &[]).await;
        let name = if protocol.is("gemini") { "failed" } else { "done" };
        assert_eq!(answer(&process).await.1, name, "{}", protocol.model);
    }
}

#[tokio::test]
async fn half_a_line_behind_the_reason_is_a_failure_and_what_follows_a_marker_is_nothing() {
    let half = Answer::stream([send(OPENAI.with_reason()), send("data: {\"choices\":[{\"index\":0,\"del"), Step::Hang]);
    let provider = Provider::spawn(half).await;
    assert_eq!(answer(&OPENAI.origin(&provider, &[]).await).await.1, "failed");

    let more = format!("{}Bye, bye!\n\ndata: {{\"error\":\"late\"}}\n\n", OPENAI.fixture);
    let provider = Provider::spawn(Answer::text(&more)).await;
    assert_eq!(answer(&OPENAI.origin(&provider, &[]).await).await, whole());
}

#[tokio::test]
async fn where_text_came_behind_a_reason_a_broken_connection_is_a_failure_in_every_protocol() {
    for protocol in &PROTOCOLS {
        let (first, before) = protocol.first_token();
        let steps = [send(protocol.with_reason()), send(before), send(first), send(protocol.with_reason()), Step::Cut];
        let provider = Provider::spawn(Answer::stream(steps)).await;
        assert_eq!(answer(&protocol.origin(&provider, &[]).await).await.1, "failed", "{}", protocol.model);
    }
}

#[tokio::test]
async fn thoughts_pings_and_comments_keep_the_timeouts_away() {
    for protocol in &PROTOCOLS {
        for sign in [protocol.sign(), ": keep-alive\n\n"] {
            if protocol.is("ollama") && sign.starts_with(':') {
                continue;
            }
            let signs = || (0..SIGNS).flat_map(|_| [send(sign), Step::Pause(BETWEEN)]);
            let (first, before) = protocol.first_token();
            let rest = &protocol.fixture[before.len() + first.len()..];
            let steps = signs().chain([send(before), send(first)]).chain(signs()).chain([send(rest)]);
            let provider = Provider::spawn(Answer::stream(steps)).await;
            let process =
                protocol.origin(&provider, &["--first-token-timeout", TIMEOUT, "--idle-timeout", TIMEOUT]).await;
            assert_eq!(answer(&process).await, whole(), "{} {sign}", protocol.model);
        }
    }
}

#[tokio::test]
async fn a_wait_is_passed_on_in_whole_seconds_whatever_its_spelling() {
    let retry_info = json!({ "error": { "code": 429, "message": "words", "status": "RESOURCE_EXHAUSTED", "details": [
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s" },
    ] } });
    for protocol in &PROTOCOLS {
        for (headers, body, wait) in [
            ("retry-after-ms: 1500\r\n", String::new(), "2"),
            ("retry-after: 2.5\r\n", String::new(), "3"),
            ("", retry_info.to_string(), "17"),
            ("", format!("[{retry_info}]"), "17"),
            ("", String::new(), "1"),
        ] {
            let provider = Provider::spawn(Answer::status("429 Too Many Requests", headers, &body)).await;
            let process = protocol.origin(&provider, &[]).await;
            let response = process.origin.start(&json!("a")).send().await.unwrap();
            assert_eq!(response.headers()["retry-after"], wait, "{} {headers}", protocol.model);
            assert_eq!(problem(response).await, (429, "rate-limited".into()));
        }
    }
}

#[tokio::test]
async fn what_only_the_operator_can_mend_is_not_retryable_and_the_log_names_the_setting() {
    for protocol in &PROTOCOLS {
        for (answer, setting) in [
            (
                Answer::status("200 OK", "content-encoding: gzip\r\ncontent-type: text/event-stream\r\n", "x"),
                protocol.address,
            ),
            (Answer::status("200 OK", "content-type: text/html; charset=utf-8\r\n", "<html>"), protocol.address),
            (Answer::text("\n<!DOCTYPE html>"), protocol.address),
            (Answer::status("308 Permanent Redirect", "location: https://a.example/\r\n", ""), protocol.address),
            (Answer::status("405 Method Not Allowed", "", ""), protocol.address),
            (Answer::status("404 Not Found", "", "{\"error\":\"model 'a' not found\"}"), "--model"),
            (
                Answer::status("401 Unauthorized", "", ""),
                if protocol.is("ollama") { protocol.address } else { protocol.key },
            ),
            (
                Answer::status("402 Payment Required", "", ""),
                if protocol.is("ollama") { protocol.address } else { protocol.key },
            ),
        ] {
            let provider = Provider::spawn(answer).await;
            let process = protocol.origin(&provider, &[]).await;
            let response = process.origin.start(&json!("a")).send().await.unwrap();
            assert!(response.headers().get("retry-after").is_none());
            assert_eq!(problem(response).await, (424, "model-refused".into()), "{} {setting}", protocol.model);
            process.until_logged("the provider says").await;
            let log = process.log();
            let said = log.lines().find(|line| line.contains("the provider says")).unwrap_or_default();
            assert!(said.contains(setting), "{} {setting}: {said}", protocol.model);
        }
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_told_with_the_cause_and_the_setting() {
    for protocol in &PROTOCOLS {
        let variables = [(protocol.address, "https://headwater.invalid"), (protocol.key, "a-key")];
        let process = Process::spawn(&variables, &["--model", protocol.model]).await;
        let response = process.origin.start(&json!("a")).send().await.unwrap();
        assert_eq!(problem(response).await, (502, "model-broke-off".into()));
        process.until_logged("the provider says").await;
        let log = process.log();
        let said = log.lines().find(|line| line.contains("the provider says")).unwrap_or_default();
        assert!(said.contains(protocol.address) && said.contains("dns error"), "{said}");
    }
}

#[tokio::test]
async fn an_encoding_that_is_none_is_no_encoding() {
    for encoding in ["identity", "Identity", "none"] {
        let headers = format!("content-encoding: {encoding}\r\n");
        let provider = Provider::spawn(Answer::status("200 OK", &headers, OPENAI.fixture)).await;
        assert_eq!(answer(&OPENAI.origin(&provider, &[]).await).await, whole());
    }
}

#[tokio::test]
async fn a_failure_that_may_pass_is_retryable_and_one_of_the_prompt_is_the_prompts() {
    let moderated = json!({ "error": {
        "code": 403, "message": "flagged", "metadata": { "reasons": ["violence"], "flagged_input": "Write a short poem" },
    } });
    let bad = "data: {\"choices\":null,\"error_message\":\"bad\",\"error_code\":400}\n\n";
    let long =
        "{\"error\":{\"message\":\"prompt is too long: 9 tokens > 8 maximum\",\"type\":\"invalid_request_error\"}}";
    for protocol in &PROTOCOLS {
        for (answer, expected) in [
            (Answer::status("498 Capacity", "", ""), (503, "overloaded")),
            (
                Answer::status("424 Failed Dependency", "", "{\"error\":\"x\",\"error_type\":\"generation\"}"),
                (502, "model-broke-off"),
            ),
            (Answer::status("403 Forbidden", "", &moderated.to_string()), (424, "model-refused")),
            (Answer::status("422 Unprocessable Entity", "", "{}"), (422, "model-refused")),
            (Answer::status("400 Bad Request", "", long), (400, "too-long")),
            (Answer::status("413 Content Too Large", "", ""), (400, "too-long")),
        ] {
            let provider = Provider::spawn(answer).await;
            let process = protocol.origin(&provider, &[]).await;
            let response = process.origin.start(&json!("a")).send().await.unwrap();
            let (status, name) = problem(response).await;
            assert_eq!((status, &*name), expected, "{}", protocol.model);
            process.record().await;
            assert!(!process.log().contains("short poem"), "{}", process.log());
        }
    }
    let provider = Provider::spawn(Answer::text(bad)).await;
    let response = OPENAI.origin(&provider, &[]).await.origin.start(&json!("a")).send().await.unwrap();
    assert_eq!(problem(response).await, (400, "model-refused".into()));
}

#[tokio::test]
async fn a_server_that_refuses_a_field_is_asked_without_it_and_that_is_remembered() {
    let refuses = |request: &Request| {
        let unknown = |field: &str| {
            let body = json!({ "object": "error", "message": { "detail": [
                { "type": "extra_forbidden", "loc": ["body", field], "msg": "Extra inputs are not permitted" },
            ] } });
            Answer::status("422 Unprocessable Entity", "", &body.to_string())
        };
        if request.body.get("stream_options").is_some() {
            unknown("stream_options")
        } else if request.body.get("max_tokens").is_some() {
            let said = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
            let body = json!({ "error": { "message": said, "param": "max_tokens", "code": "unsupported_parameter" } });
            Answer::status("400 Bad Request", "", &body.to_string())
        } else {
            Answer::text(OPENAI.fixture)
        }
    };
    let provider = Provider::spawn_with(refuses).await;
    let process = OPENAI.origin(&provider, &["--max-tokens", "77"]).await;
    assert_eq!(answer(&process).await, whole());
    assert_eq!(answer(&process).await, whole());
    let requests = provider.requests();
    assert_eq!(requests.len(), 4, "three for the first start, one for the second");
    for request in &requests[2..] {
        assert_eq!((request.body.get("stream_options"), request.body.get("max_tokens")), (None, None));
        assert_eq!(request.body["max_completion_tokens"], 77);
    }

    let refusing =
        Provider::spawn(Answer::status("400 Bad Request", "", "{\"error\":{\"param\":\"max_tokens\"}}")).await;
    let process = OPENAI.origin(&refusing, &[]).await;
    let response = process.origin.start(&json!("a")).send().await.unwrap();
    assert_eq!(problem(response).await, (424, "model-refused".into()), "no other prompt does better");
    process.until_logged("refuses the field max_tokens").await;
    assert_eq!(refusing.requests().len(), 2);
}

#[tokio::test]
async fn an_option_whose_value_is_refused_is_left_out_once() {
    let provider = Provider::spawn_with(|request| match request.body["reasoning_effort"].as_str() {
        Some("temperature") => {
            let said = "Invalid value: 'temperature'. Supported values are: 'low' and 'high'.";
            let body = json!({ "error": { "message": said, "param": "reasoning_effort" } });
            Answer::status("400 Bad Request", "", &body.to_string())
        }
        _ => Answer::text(OPENAI.fixture),
    })
    .await;
    let process = OPENAI.origin(&provider, &[]).await;
    for (effort, tries) in [("temperature", 2), ("low", 1), ("temperature", 2)] {
        let before = provider.requests().len();
        let body = json!({
            "model": OPENAI.model, "messages": [{ "role": "user", "content": "a" }], "temperature": 0.5,
            "reasoning_effort": effort,
        });
        let answer = open(process.origin.request(Method::POST, "/v1/chat/completions").json(&body)).await;
        assert!(answer.text().await.unwrap().contains("Bushy"), "{effort}");
        let requests = provider.requests();
        assert_eq!(requests.len() - before, tries, "{effort}");
        let sent = &requests[requests.len() - 1].body;
        assert_eq!(sent["temperature"], 0.5, "it is named as a value of another option");
        assert_eq!(sent.get("reasoning_effort").is_some(), tries == 1, "{effort}");
    }
}

#[tokio::test]
async fn a_schemas_name_in_a_refusal_is_no_fault_of_the_server() {
    let said = "Invalid schema for response_format 'max_tokens': 'additionalProperties' is required";
    let refusal = json!({ "error": { "message": said, "type": "invalid_request_error" } }).to_string();
    let provider = Provider::spawn(Answer::status("400 Bad Request", "", &refusal)).await;
    let process = OPENAI.origin(&provider, &[]).await;
    let schema = json!({ "name": "max_tokens", "schema": { "type": "object" } });
    let body = json!({
        "model": OPENAI.model, "messages": [{ "role": "user", "content": "a" }],
        "response_format": { "type": "json_schema", "json_schema": schema },
    });
    let response = process.origin.request(Method::POST, "/v1/chat/completions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["headwater-problem"], "model-refused");
}

#[tokio::test]
async fn a_request_that_a_kept_connection_lost_is_sent_once_more_on_a_new_one() {
    for protocol in &PROTOCOLS {
        let lost =
            |request: &Request| if request.place == 0 { Answer::text(protocol.fixture) } else { Answer::nothing() };
        let provider = Provider::spawn_with(lost).await;
        let process = protocol.origin(&provider, &[]).await;
        assert_eq!(answer(&process).await, whole(), "{}", protocol.model);
        assert_eq!(answer(&process).await, whole(), "{}", protocol.model);
        assert_eq!((provider.requests().len(), provider.accepted()), (3, 2), "{}", protocol.model);

        let provider = Provider::spawn(Answer::nothing()).await;
        let process = protocol.origin(&provider, &[]).await;
        let response = process.origin.start(&json!("a")).send().await.unwrap();
        assert_eq!(problem(response).await, (502, "model-broke-off".into()));
        assert_eq!(provider.requests().len(), 1, "a new connection that broke is no reason to pay once more");
    }
}

#[tokio::test]
async fn an_address_may_be_given_with_its_version_and_without() {
    let only = |path: &'static str| {
        move |request: &Request| {
            if request.head.starts_with(&format!("post {path} ")) {
                Answer::text(OPENAI.fixture)
            } else {
                Answer::status("404 Not Found", "", "{\"detail\":\"Not Found\"}")
            }
        }
    };
    let page = |request: &Request| match request.head.starts_with("post /api/v1/") {
        true => Answer::text(OPENAI.fixture),
        false => Answer::status("200 OK", "content-type: text/html\r\n", "<html>"),
    };
    let provider = Provider::spawn_with(page).await;
    let process = Process::spawn(&[], &["--model", &format!("{}#m", provider.url("/api"))]).await;
    assert_eq!(answer(&process).await, whole());
    for (base, served, requests) in [
        ("", "/v1/chat/completions", 2),
        ("/", "/chat/completions", 3),
        ("/v1", "/v1/chat/completions", 2),
        ("/v1/", "/v1/chat/completions", 2),
        ("/api", "/api/chat/completions", 2),
        ("/api", "/api/v1/chat/completions", 3),
        ("/v1/chat/completions", "/v1/chat/completions", 2),
    ] {
        let provider = Provider::spawn_with(only(served)).await;
        let process = Process::spawn(&[], &["--model", &format!("{}#m", provider.url(base))]).await;
        for _ in 0..2 {
            assert_eq!(answer(&process).await, whole(), "{base} {served}");
        }
        assert_eq!(provider.requests().len(), requests, "{base} {served}: the path that was found is remembered");
    }
}

#[tokio::test]
async fn a_reason_that_is_not_known_is_a_stop_and_logged_once_and_an_empty_answer_is_logged() {
    let provider = Provider::spawn(Answer::text(&OPENAI.fixture.replace("\"stop\"", "\"a_new_word\""))).await;
    let process = OPENAI.origin(&provider, &[]).await;
    for _ in 0..2 {
        assert_eq!(answer(&process).await, whole());
    }
    assert_eq!(process.log().matches("a_new_word").count(), 1, "{}", process.log());

    let nothing = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let provider = Provider::spawn(Answer::text(nothing)).await;
    let process = OPENAI.origin(&provider, &[]).await;
    assert_eq!(answer(&process).await, (String::new(), "done".into(), "stop".into()));
    process.until_logged("the answer is empty").await;
}

#[tokio::test]
async fn thoughts_between_tags_are_no_text() {
    let chunk = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}},\"finish_reason\":null}}]}}\n\n",
            json!(text)
        )
    };
    let said = ["<th", "ink>", "hm", "</think>", "\n\n", "Hello"].map(chunk).concat();
    let end = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let provider = Provider::spawn(Answer::text(&(said + end))).await;
    assert_eq!(answer(&OPENAI.origin(&provider, &[]).await).await, ("Hello".into(), "done".into(), "stop".into()));
}

#[tokio::test]
async fn thoughts_are_events_of_their_own_where_they_are_wanted() {
    let thoughts = async |process: &Process| -> (String, String) {
        let all = events(open(process.origin.start(&json!("a"))).await).await;
        let thoughts = all.iter().filter(|event| event.event == "reasoning");
        (thoughts.map(|event| data(event)["chunk"].as_str().unwrap().to_owned()).collect(), text(&all))
    };
    for protocol in &PROTOCOLS {
        let thought = if protocol.is("anthropic") {
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"thinking_delta\",\
             \"thinking\":\"hm\"}}\n\n"
        } else {
            protocol.sign()
        };
        let provider = Provider::spawn(Answer::text(&[thought, thought, protocol.fixture].concat())).await;
        let process = protocol.origin(&provider, &["--reasoning"]).await;
        assert_eq!(thoughts(&process).await, ("hmhm".into(), TEXT.into()), "{}", protocol.model);
        let process = protocol.origin(&provider, &[]).await;
        assert_eq!(thoughts(&process).await, (String::new(), TEXT.into()));
    }
    let tagged = OPENAI.fixture.replacen("\"content\":\"Bushy", "\"content\":\"<think>hm</think>Bushy", 1);
    assert_ne!(tagged, OPENAI.fixture);
    let provider = Provider::spawn(Answer::text(&tagged)).await;
    let process = OPENAI.origin(&provider, &["--reasoning"]).await;
    assert_eq!(thoughts(&process).await, ("hm".into(), TEXT.into()));
}

#[tokio::test]
async fn a_conversation_and_its_options_reach_the_provider() {
    let provider = Provider::spawn(Answer::text(OPENAI.fixture)).await;
    let process = OPENAI.origin(&provider, &["--max-tokens", "100"]).await;
    let body = json!({
        "model": OPENAI.model, "stream": true, "max_completion_tokens": 50, "temperature": 0.5, "stop": ["END"],
        "response_format": { "type": "json_object" },
        "messages": [
            { "role": "system", "content": "be brief" },
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": "yes?" },
            { "role": "user", "content": "a" },
        ],
    });
    let answer = open(process.origin.request(Method::POST, "/v1/chat/completions").json(&body)).await;
    assert!(answer.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    let sent = &provider.requests()[0].body;
    assert_eq!(sent["messages"], body["messages"]);
    let options = [&sent["max_tokens"], &sent["temperature"], &sent["stop"], &sent["response_format"]["type"]];
    assert_eq!(options, [&json!(50), &json!(0.5), &json!(["END"]), &json!("json_object")]);
}

#[tokio::test]
async fn options_that_a_model_refuses_are_left_out_and_told() {
    for (protocol, said) in [
        (&PROTOCOLS[0], "Unsupported value: 'temperature' does not support 0.5 with this model."),
        (&PROTOCOLS[1], "`temperature` is deprecated for this model."),
        (&PROTOCOLS[2], "Invalid value at 'generation_config.temperature'"),
        (&PROTOCOLS[3], "temperature isn't supported"),
    ] {
        let refusal = json!({ "error": { "message": said, "type": "invalid_request_error" } }).to_string();
        let provider = Provider::spawn_with(move |request| {
            if request.body.to_string().contains("\"temperature\":0.5") {
                Answer::status("400 Bad Request", "content-type: application/json\r\n", &refusal)
            } else {
                Answer::text(protocol.fixture)
            }
        })
        .await;
        let process = protocol.origin(&provider, &[]).await;
        let ask = async || {
            let body = json!({ "model": protocol.model, "messages": [{ "role": "user", "content": "a" }], "temperature": 0.5 });
            open(process.origin.request(Method::POST, "/v1/chat/completions").json(&body)).await
        };
        let first: Value = ask().await.json().await.unwrap();
        assert_eq!(first["choices"][0]["message"]["content"], TEXT);
        assert_eq!(provider.requests().len(), 2, "{}", protocol.model);
        assert_eq!(ask().await.headers()["headwater-ignored"], "temperature");
        assert_eq!(provider.requests().len(), 3, "it is remembered");
    }
}

#[tokio::test]
async fn a_line_without_an_end_is_given_up() {
    let (piece, every) = (vec![b'x'; 256 * 1024], Duration::from_millis(1));
    for protocol in &PROTOCOLS {
        let provider = Provider::spawn(protocol.begun(&[Step::Endless(piece.clone(), every)])).await;
        let process = protocol.origin(&provider, &[]).await;
        let response = open(process.origin.start(&json!("a"))).await;
        let all = events(response).await;
        assert_eq!((terminal(&all).0, &terminal(&all).1["type"]), ("failed", &json!("/problems/model-broke-off")));
        provider.until_left(1).await;
    }
}
