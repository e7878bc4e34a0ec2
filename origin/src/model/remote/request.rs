//! What a provider is sent, in each protocol: path, headers, body.

use serde::Serialize;

use crate::config::model::Protocol;

/// What is to be answered, in no protocol's form.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The model, by its provider's name.
    pub(super) model: String,
    /// How to answer.
    pub(super) system: Option<String>,
    /// What was said so far, in order; the last one is to be answered.
    pub(super) messages: Vec<Message>,
    /// The most tokens that the answer may have.
    pub(super) max_tokens: u32,
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) text: String,
}

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    User,
    #[cfg_attr(not(test), expect(dead_code, reason = "prompts are conversations of one message so far"))]
    Assistant,
}

/// What a server wants otherwise than most do. It is learned from what the server refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// Without `stream_options`. OpenAI's protocol tells no usage then.
    pub(super) no_stream_options: bool,
    /// The limit is named `max_completion_tokens`: OpenAI's newer models refuse `max_tokens`, and most other servers know no
    /// other name.
    pub(super) completion_tokens: bool,
    /// The other one of the two paths that the address may mean.
    pub(super) other_path: bool,
}

/// Anthropic's version of the protocol. Source: <https://docs.claude.com/en/api/versioning>.
const ANTHROPIC_VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// The path behind a server's address.
pub(super) fn path(protocol: Protocol, model: &str) -> String {
    match protocol {
        Protocol::OpenAi => "chat/completions".into(),
        Protocol::Anthropic => "messages".into(),
        Protocol::Gemini => format!("models/{model}:streamGenerateContent"),
        Protocol::Ollama => "api/chat".into(),
    }
}

/// The query, where the protocol has one.
pub(super) fn query(protocol: Protocol) -> Option<&'static str> {
    // Without it Gemini streams one array of JSON.
    (protocol == Protocol::Gemini).then_some("alt=sse")
}

/// The header that has the key, and what stands before the key.
pub(super) fn key_header(protocol: Protocol) -> (&'static str, &'static str) {
    match protocol {
        Protocol::OpenAi | Protocol::Ollama => ("authorization", "Bearer "),
        Protocol::Anthropic => ("x-api-key", ""),
        Protocol::Gemini => ("x-goog-api-key", ""),
    }
}

/// The protocol's own headers.
pub(super) fn headers(protocol: Protocol) -> Vec<(&'static str, &'static str)> {
    let accept = |kind| ("accept", kind);
    match protocol {
        Protocol::OpenAi | Protocol::Gemini => vec![accept("text/event-stream")],
        Protocol::Anthropic => vec![accept("text/event-stream"), ANTHROPIC_VERSION],
        Protocol::Ollama => vec![accept("application/x-ndjson")],
    }
}

/// The body, JSON.
pub(super) fn body(protocol: Protocol, request: &Request, variant: Variant) -> Vec<u8> {
    let json = match protocol {
        Protocol::OpenAi => serde_json::to_vec(&OpenAi::new(request, variant)),
        Protocol::Anthropic => serde_json::to_vec(&Anthropic::new(request)),
        Protocol::Gemini => serde_json::to_vec(&Gemini::new(request)),
        Protocol::Ollama => serde_json::to_vec(&Ollama::new(request)),
    };
    // Strings and numbers can always be written.
    json.unwrap_or_default()
}

/// A message as three of the protocols have it.
#[derive(Serialize)]
struct ChatMessage<'a> {
    role: &'static str,
    content: &'a str,
}

impl<'a> ChatMessage<'a> {
    fn all(request: &'a Request) -> impl Iterator<Item = Self> {
        request.messages.iter().map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            Self { role, content: &message.text }
        })
    }

    /// The system text is a message of its own.
    fn with_system(request: &'a Request) -> Vec<Self> {
        let system = request.system.iter().map(|text| Self { role: "system", content: text });
        system.chain(Self::all(request)).collect()
    }
}

#[derive(Serialize)]
struct OpenAi<'a> {
    model: &'a str,
    messages: Vec<ChatMessage<'a>>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

impl<'a> OpenAi<'a> {
    fn new(request: &'a Request, variant: Variant) -> Self {
        let limit = Some(request.max_tokens);
        let (max_tokens, max_completion_tokens) = if variant.completion_tokens { (None, limit) } else { (limit, None) };
        Self {
            model: &request.model,
            messages: ChatMessage::with_system(request),
            stream: true,
            stream_options: (!variant.no_stream_options).then_some(StreamOptions { include_usage: true }),
            max_tokens,
            max_completion_tokens,
        }
    }
}

#[derive(Serialize)]
struct Anthropic<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<&'a str>,
    messages: Vec<ChatMessage<'a>>,
    stream: bool,
    max_tokens: u32,
}

impl<'a> Anthropic<'a> {
    fn new(request: &'a Request) -> Self {
        let Request { model, system, max_tokens, .. } = request;
        let messages = ChatMessage::all(request).collect();
        Self { model, system: system.as_deref(), messages, stream: true, max_tokens: *max_tokens }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gemini<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    generation_config: GenerationConfig,
}

#[derive(Serialize)]
struct Content<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GenerationConfig {
    max_output_tokens: u32,
}

impl<'a> Gemini<'a> {
    fn new(request: &'a Request) -> Self {
        let contents = request.messages.iter().map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "model",
            };
            Content { role: Some(role), parts: [Part { text: &message.text }] }
        });
        Self {
            system_instruction: request.system.as_deref().map(|text| Content { role: None, parts: [Part { text }] }),
            contents: contents.collect(),
            generation_config: GenerationConfig { max_output_tokens: request.max_tokens },
        }
    }
}

#[derive(Serialize)]
struct Ollama<'a> {
    model: &'a str,
    messages: Vec<ChatMessage<'a>>,
    stream: bool,
    options: Options,
}

#[derive(Serialize)]
struct Options {
    num_predict: u32,
}

impl<'a> Ollama<'a> {
    fn new(request: &'a Request) -> Self {
        let options = Options { num_predict: request.max_tokens };
        Self { model: &request.model, messages: ChatMessage::with_system(request), stream: true, options }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn written(protocol: Protocol, variant: Variant) -> Value {
        let message = |role, text: &str| Message { role, text: text.into() };
        let request = Request {
            model: "m".into(),
            system: Some("be brief".into()),
            messages: vec![message(Role::User, "hi"), message(Role::Assistant, "yes?"), message(Role::User, "a \"b\"")],
            max_tokens: 7,
        };
        serde_json::from_slice(&body(protocol, &request, variant)).unwrap()
    }

    #[test]
    fn a_conversation_is_written_as_each_protocol_has_it() {
        let messages = json!([
            { "role": "user", "content": "hi" },
            { "role": "assistant", "content": "yes?" },
            { "role": "user", "content": "a \"b\"" },
        ]);
        let mut with_system = messages.as_array().unwrap().clone();
        with_system.insert(0, json!({ "role": "system", "content": "be brief" }));
        assert_eq!(
            written(Protocol::OpenAi, Variant::default()),
            json!({
                "model": "m", "messages": with_system, "stream": true, "max_tokens": 7,
                "stream_options": { "include_usage": true },
            })
        );
        assert_eq!(
            written(Protocol::Anthropic, Variant::default()),
            json!({ "model": "m", "system": "be brief", "messages": messages, "stream": true, "max_tokens": 7 })
        );
        assert_eq!(
            written(Protocol::Ollama, Variant::default()),
            json!({ "model": "m", "messages": with_system, "stream": true, "options": { "num_predict": 7 } })
        );
        assert_eq!(
            written(Protocol::Gemini, Variant::default()),
            json!({
                "systemInstruction": { "parts": [{ "text": "be brief" }] },
                "contents": [
                    { "role": "user", "parts": [{ "text": "hi" }] },
                    { "role": "model", "parts": [{ "text": "yes?" }] },
                    { "role": "user", "parts": [{ "text": "a \"b\"" }] },
                ],
                "generationConfig": { "maxOutputTokens": 7 },
            })
        );
    }

    #[test]
    fn a_server_that_refuses_a_field_gets_none() {
        let variant = Variant { no_stream_options: true, completion_tokens: true, other_path: false };
        let body = written(Protocol::OpenAi, variant);
        assert_eq!((body.get("stream_options"), body.get("max_tokens")), (None, None));
        assert_eq!(body["max_completion_tokens"], 7);
    }
}
