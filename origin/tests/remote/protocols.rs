//! What the providers' protocols say, and what the reader gets of it.

use std::time::Duration;

use headwater_origin_testing::{data, events, first_events, open, terminal, text};
use serde_json::json;

use crate::{
    process::Process,
    provider::{Answer, Provider, Step, send},
};

/// What every fixture says.
pub const TEXT: &str = "Bushy tail, über\n\n🐿️ data: {}";

/// One way to reach a provider.
pub struct Protocol {
    pub model: &'static str,
    pub fixture: &'static str,
    /// The variables of its address and its key.
    pub address: &'static str,
    pub key: &'static str,
    /// The header that the key is in.
    header: &'static str,
    path: &'static str,
    /// Where the request says how many tokens the answer may have.
    max_tokens: &'static str,
    /// How its answer ends, and how it would end at a limit, and at a filter.
    ends: [&'static str; 3],
}

pub const OPENAI: Protocol = Protocol {
    model: "openai:gpt-4.1-mini",
    fixture: include_str!("../../../tests/fixtures/providers/openai.sse"),
    address: "OPENAI_BASE_URL",
    key: "OPENAI_API_KEY",
    header: "authorization: bearer ",
    path: "/v1/chat/completions",
    max_tokens: "/max_tokens",
    ends: ["\"stop\"", "\"length\"", "\"content_filter\""],
};

pub const PROTOCOLS: [Protocol; 4] = [
    OPENAI,
    Protocol {
        model: "anthropic:claude-haiku-4-5",
        fixture: include_str!("../../../tests/fixtures/providers/anthropic.sse"),
        address: "ANTHROPIC_BASE_URL",
        key: "ANTHROPIC_API_KEY",
        header: "x-api-key: ",
        path: "/v1/messages",
        max_tokens: "/max_tokens",
        ends: ["\"end_turn\"", "\"max_tokens\"", "\"refusal\""],
    },
    Protocol {
        model: "gemini:gemini-2.5-flash",
        fixture: include_str!("../../../tests/fixtures/providers/gemini.sse"),
        address: "GOOGLE_GEMINI_BASE_URL",
        key: "GEMINI_API_KEY",
        header: "x-goog-api-key: ",
        path: "/v1beta/models/gemini-2.5-flash:streamgeneratecontent?alt=sse",
        max_tokens: "/generationConfig/maxOutputTokens",
        ends: ["\"STOP\"", "\"MAX_TOKENS\"", "\"SAFETY\""],
    },
    Protocol {
        model: "ollama:qwen3",
        fixture: include_str!("../../../tests/fixtures/providers/ollama.ndjson"),
        address: "OLLAMA_HOST",
        key: "UNUSED",
        header: "",
        path: "/api/chat",
        max_tokens: "/options/num_predict",
        ends: ["\"stop\"", "\"length\"", ""],
    },
];

impl Protocol {
    /// The fixture's first event with text, `Bushy`, and what comes before it.
    pub fn first_token(&self) -> (&'static str, &'static str) {
        // An event of an event stream ends in an empty line, a line of JSON with itself.
        let mut ends = ["\r\n\r\n", "\n\n", "\n"].into_iter();
        let end = ends.find(|end| self.fixture.contains(end)).expect("every fixture has lines");
        let text = self.fixture.find("\"Bushy\"").expect("every fixture says it");
        let start = self.fixture[..text].rfind(end).map_or(0, |before| before + end.len());
        let after = text + self.fixture[text..].find(end).expect("the event ends") + end.len();
        (&self.fixture[start..after], &self.fixture[..start])
    }

    /// An answer that begins with the first token and then does this.
    pub fn begun(&self, then: &[Step]) -> Answer {
        let (token, before) = self.first_token();
        Answer::stream([send(before), send(token)].into_iter().chain(then.iter().cloned()))
    }

    /// An answer that says the first token for ever.
    pub fn endless(&self) -> Answer {
        let token = self.first_token().0;
        self.begun(&[Step::Endless(token.into(), Duration::from_millis(5))])
    }

    /// An origin whose model is this provider's.
    pub async fn origin(&self, provider: &Provider, flags: &[&str]) -> Process {
        let variables = [(self.address, &*provider.url("")), (self.key, "the-key-of-the-tests")];
        Process::spawn(&variables, &[&["--model", self.model], flags].concat()).await
    }
}

#[tokio::test]
async fn every_providers_answer_arrives_with_its_finish_and_usage() {
    for protocol in &PROTOCOLS {
        let provider = Provider::spawn(Answer::text(protocol.fixture)).await;
        let process = protocol.origin(&provider, &["--max-tokens", "77"]).await;
        let all = events(open(process.origin.start(&json!("a squirrel"))).await).await;
        assert_eq!(text(&all), TEXT, "{}", protocol.model);
        let (name, done) = terminal(&all);
        assert_eq!((name, &done["finish"]), ("done", &json!("stop")), "{}", protocol.model);
        assert_eq!(done["usage"], json!({ "input_tokens": 14, "output_tokens": 57 }), "{}", protocol.model);

        let record = process.record().await;
        assert_eq!((&record["model"], &record["output_tokens"]), (&json!(protocol.model), &json!(57)));
        let [request] = &provider.requests()[..] else { panic!("one request") };
        assert!(request.head.starts_with(&format!("post {} http/1.1", protocol.path)), "{}", request.head);
        let header = format!("\r\n{}the-key-of-the-tests\r\n", protocol.header);
        assert_eq!(request.head.contains(&header), !protocol.header.is_empty(), "{}", request.head);
        assert!(
            request.head.contains("accept-encoding: identity\r\n"),
            "tokens wait for no compressor: {}",
            request.head
        );
        assert_eq!(request.body.pointer(protocol.max_tokens), Some(&json!(77)), "{}", request.body);
        assert!(request.body.to_string().contains("Write a short poem about \\\"a squirrel\\\""), "{}", request.body);
    }
}

#[tokio::test]
async fn a_limit_and_a_filter_are_told_as_such() {
    for protocol in &PROTOCOLS {
        let [stop, ends @ ..] = protocol.ends;
        for (end, finish) in ends.into_iter().zip(["length", "content-filter"]).filter(|(end, _)| !end.is_empty()) {
            let provider = Provider::spawn(Answer::text(&protocol.fixture.replace(stop, end))).await;
            let process = protocol.origin(&provider, &[]).await;
            let all = events(open(process.origin.start(&json!("a"))).await).await;
            assert_eq!(text(&all), TEXT);
            assert_eq!((terminal(&all).0, &terminal(&all).1["finish"]), ("done", &json!(finish)), "{}", protocol.model);
        }
    }
}

#[tokio::test]
async fn an_answer_in_single_bytes_is_the_same_answer() {
    for protocol in &PROTOCOLS {
        let bytes = protocol.fixture.bytes().map(|byte| Step::Send(vec![byte]));
        let provider = Provider::spawn(Answer::stream(bytes)).await;
        let process = protocol.origin(&provider, &[]).await;
        let all = events(open(process.origin.start(&json!("a"))).await).await;
        assert_eq!((&*text(&all), terminal(&all).0), (TEXT, "done"), "{}", protocol.model);
    }
}

#[tokio::test]
async fn tokens_are_passed_on_as_they_come() {
    let half = OPENAI.fixture.find(", über").unwrap();
    let end = OPENAI.fixture[..half].rfind("data:").unwrap();
    let provider = Provider::spawn(Answer::stream([send(&OPENAI.fixture[..end]), Step::Hang])).await;
    let process = OPENAI.origin(&provider, &[]).await;
    let response = open(process.origin.start(&json!("a"))).await;
    let first = first_events(response, 2).await;
    assert_eq!([&data(&first[0])["chunk"], &data(&first[1])["chunk"]], ["Bushy", " tail"]);
}

#[tokio::test]
async fn any_server_of_openais_protocol_is_a_model_and_its_name_stays_as_it_is() {
    let provider = Provider::spawn(Answer::text(OPENAI.fixture)).await;
    let model = format!("{}#qwen-max", provider.url("/api/v1"));
    let process = Process::spawn(&[], &["--model", &model]).await;
    let all = events(open(process.origin.start(&json!("a"))).await).await;
    assert_eq!((&*text(&all), terminal(&all).0), (TEXT, "done"));
    assert_eq!(process.record().await["model"], model);
    let [request] = &provider.requests()[..] else { panic!("one request") };
    assert!(request.head.starts_with("post /api/v1/chat/completions http/1.1"), "{}", request.head);
    assert_eq!(request.body["model"], "qwen-max", "no part of a name is a setting: {}", request.body);
    assert!(request.body.get("reasoning_effort").is_none(), "{}", request.body);
}

#[tokio::test]
async fn thoughts_are_no_text_and_a_usage_that_is_not_told_is_not_made_up() {
    let chunk = |delta: &str, finish: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n")
    };
    let answer = chunk("{\"reasoning_content\":\"hm\"}", "null") + &chunk("{\"content\":\"yes\"}", "null");
    let answer = answer + &chunk("{}", "\"stop\"") + "data: [DONE]\n\n";
    let provider = Provider::spawn(Answer::text(&answer)).await;
    let process = OPENAI.origin(&provider, &[]).await;
    let all = events(open(process.origin.start(&json!("a"))).await).await;
    assert_eq!((&*text(&all), terminal(&all).0), ("yes", "done"));
    assert!(terminal(&all).1.get("usage").is_none());
}

#[tokio::test]
async fn connections_to_a_provider_are_used_again() {
    let provider = Provider::spawn(Answer::text(OPENAI.fixture)).await;
    let process = OPENAI.origin(&provider, &[]).await;
    for _ in 0..3 {
        let all = events(open(process.origin.start(&json!("a"))).await).await;
        assert_eq!(terminal(&all).0, "done");
    }
    assert_eq!((provider.requests().len(), provider.accepted()), (3, 1));
}
