//! Keys: they go to their provider, and nowhere else.

use headwater_origin_testing::{events, open, terminal};
use serde_json::json;

use crate::{
    process::Process,
    protocols::{OPENAI, PROTOCOLS},
    provider::{Answer, Provider, send},
};

const KEY: &str = "sk-verysecret0123456789";

#[tokio::test]
async fn a_key_is_in_no_log_and_no_answer_whatever_the_provider_says() {
    let said = format!("{{\"error\":{{\"message\":\"wrong key {KEY}\",\"type\":\"{KEY}\"}}}}");
    let token = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":null}]}\n\n";
    for answer in [
        Answer::status("401 Unauthorized", &format!("x-echo: {KEY}\r\nretry-after: {KEY}\r\n"), &said),
        Answer::status("500 Internal Server Error", "", KEY),
        Answer::text(&format!("data: {said}\n\n")),
        Answer::text(&format!("data: {KEY}\n\n")),
        Answer::stream([send(token), send(&format!("data: {said}\n\n"))]),
    ] {
        let provider = Provider::spawn(answer).await;
        let url = provider.url("/v1");
        let variables = [("OPENAI_BASE_URL", &*url), ("OPENAI_API_KEY", KEY), ("RUST_LOG", "trace")];
        let process = Process::spawn(&variables, &["--model", OPENAI.model]).await;
        let told = process.origin.start(&json!("a")).send().await.unwrap().text().await.unwrap();
        assert!(!told.contains(KEY), "{told}");
        process.record().await;
        let log = process.log();
        assert!(log.contains("the provider says"), "{log}");
        let leak = log.lines().find(|line| line.contains(KEY));
        assert_eq!(leak, None);
        let [request] = &provider.requests()[..] else { panic!("one request") };
        assert!(request.head.contains(KEY), "its provider has it");
    }
}

#[tokio::test]
async fn a_prompt_is_not_in_the_log_where_a_provider_repeats_it_in_whatever_form() {
    let asked = "was niemand \"sonst\" weiß: Müller";
    let escaped =
        r#"{"error":{"type":"invalid_request_error","message":"bad: niemand \"sonst\" wei\u00df: M\u00fcller"}}"#;
    let whole = json!({ "error": { "input": format!("Write a short poem about {asked}"), "code": "niemand sonst" } });
    for said in [escaped.to_owned(), whole.to_string(), asked.to_owned()] {
        for answer in [Answer::status("400 Bad Request", "", &said), Answer::text(&format!("data: {said}\n\n"))] {
            let provider = Provider::spawn(answer).await;
            let process = OPENAI.origin(&provider, &[]).await;
            process.origin.start(&json!(asked)).send().await.unwrap();
            process.record().await;
            let log = process.log();
            let said = log.lines().find(|line| line.contains("the provider says")).unwrap_or_default();
            assert!(said.contains(r#""stream":"a-"#), "it names the stream: {log}");
            assert!(!log.contains("niemand") && !log.contains("ller"), "{log}");
        }
    }
}

#[tokio::test]
async fn a_providers_words_are_in_the_log_where_prompts_may_be_and_cut_short() {
    let provider = Provider::spawn(Answer::status("400 Bad Request", "", &"x".repeat(100_000))).await;
    for (variables, flags) in [(&[][..], &["--log-variables"][..]), (&[("RUST_LOG", "debug")], &[])] {
        let (url, mut variables) = (provider.url("/v1"), variables.to_vec());
        variables.extend([("OPENAI_BASE_URL", &*url), ("OPENAI_API_KEY", KEY)]);
        let process = Process::spawn(&variables, &[&["--model", OPENAI.model], flags].concat()).await;
        process.origin.start(&json!("a")).send().await.unwrap();
        process.record().await;
        assert!(process.log().contains(&"x".repeat(100)));
        assert!(process.log().len() < 8_000, "{}", process.log().len());
    }
}

#[tokio::test]
async fn another_server_gets_its_own_key_or_none() {
    let provider = Provider::spawn(Answer::text(OPENAI.fixture)).await;
    let model = format!("{}#m", provider.url("/v1"));
    let variables = [("OPENAI_API_KEY", "openais-own"), ("HEADWATER_MODEL_KEY", "")];
    let process = Process::spawn(&variables, &["--model", &model]).await;
    open(process.origin.start(&json!("a"))).await;
    let variables = [("OPENAI_API_KEY", "openais-own"), ("HEADWATER_MODEL_KEY", "its-own")];
    let process = Process::spawn(&variables, &["--model", &model]).await;
    open(process.origin.start(&json!("a"))).await;
    let [without, with] = &provider.requests()[..] else { panic!("two requests") };
    assert!(!without.head.contains("authorization"), "{}", without.head);
    assert!(with.head.contains("authorization: bearer its-own\r\n"), "{}", with.head);
}

#[tokio::test]
async fn a_redirect_takes_no_key_to_another_host() {
    for protocol in &PROTOCOLS {
        let elsewhere = Provider::spawn(Answer::text(protocol.fixture)).await;
        let location = format!("location: {}\r\n", elsewhere.url("/v1/chat/completions"));
        let provider = Provider::spawn(Answer::status("307 Temporary Redirect", &location, "")).await;
        let process = protocol.origin(&provider, &[]).await;
        let refused = process.origin.start(&json!("a")).send().await.unwrap();
        assert_eq!(refused.status(), 424);
        assert!(elsewhere.requests().is_empty(), "{}", protocol.model);
    }
}

#[tokio::test]
async fn a_proxy_of_the_environment_does_not_read_along_on_this_machine() {
    let proxy = Provider::spawn(Answer::status("200 OK", "", "")).await;
    let provider = Provider::spawn(Answer::text(OPENAI.fixture)).await;
    let (proxy_url, url) = (proxy.url(""), provider.url("/v1"));
    let variables = [("http_proxy", &*proxy_url), ("OPENAI_BASE_URL", &url), ("OPENAI_API_KEY", KEY)];
    let process = Process::spawn(&variables, &["--model", OPENAI.model]).await;
    assert_eq!(terminal(&events(open(process.origin.start(&json!("a"))).await).await).0, "done");
    assert!(proxy.requests().is_empty());
}
