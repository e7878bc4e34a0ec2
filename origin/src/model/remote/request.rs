//! What a provider is sent, in each protocol: path, headers, body.

use headwater_protocol::header::JSON;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    config::model::Protocol,
    model::ModelError,
    prompt::{Conversation, Format, Options, Role},
};

/// What is to be answered, in no protocol's form.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The model, by its provider's name.
    pub(super) model: String,
    pub(super) conversation: Conversation,
    pub(super) options: Options,
    /// The most tokens that the answer may have.
    pub(super) max_tokens: u32,
}

impl Request {
    /// All that whoever asks has chosen the words of, and that a refusal may repeat.
    pub(super) fn words(&self) -> String {
        let options = self.option_words();
        self.conversation.texts().chain([options.as_str()]).collect::<Vec<_>>().join("\n")
    }

    /// The same of the options alone.
    pub(super) fn option_words(&self) -> String {
        let format = match &self.options.format {
            Format::Schema(json) => Some(&**json),
            Format::Text | Format::Json => None,
        };
        let stop = self.options.stop.iter().map(String::as_str);
        stop.chain(format).chain(self.options.reasoning_effort.as_deref()).collect::<Vec<_>>().join("\n")
    }
}

/// Anthropic's highest temperature; OpenAI's is 2.
const ANTHROPIC_TEMPERATURE: f32 = 1.0;

/// Of the options that are given, those that the protocol has no word for.
pub(super) fn ignored(protocol: Protocol, options: &Options) -> Vec<&'static str> {
    let Options { temperature, top_p, seed, frequency_penalty, presence_penalty, reasoning_effort, .. } = options;
    let penalties =
        [("frequency_penalty", frequency_penalty.is_some()), ("presence_penalty", presence_penalty.is_some())];
    let effort = ("reasoning_effort", reasoning_effort.is_some());
    let given = match protocol {
        Protocol::OpenAi => vec![],
        Protocol::Anthropic => {
            let both = ("top_p", top_p.is_some() && temperature.is_some());
            let hot = ("temperature", temperature.is_some_and(|temperature| temperature > ANTHROPIC_TEMPERATURE));
            let blank = ("stop", options.stop.iter().any(|stop| stop.trim().is_empty()));
            [penalties.as_slice(), &[("seed", seed.is_some()), both, hot, blank, effort]].concat()
        }
        Protocol::Gemini => vec![("seed", seed.is_some() && gemini_seed(options).is_none()), effort],
        Protocol::Ollama => vec![effort],
    };
    given.into_iter().filter_map(|(name, is_given)| is_given.then_some(name)).collect()
}

/// # Errors
/// The protocol can't promise the kind of text that is asked for.
pub(super) fn supported(protocol: Protocol, options: &Options) -> Result<(), ModelError> {
    if protocol == Protocol::Anthropic && options.format != Format::Text {
        return Err(ModelError::Unsupported(
            "response_format",
            "this model answers with text alone; ask for JSON in words",
        ));
    }
    Ok(())
}

/// Gemini's seeds have 32 bits.
fn gemini_seed(options: &Options) -> Option<i32> {
    options.seed.and_then(|seed| seed.try_into().ok())
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
    /// Without these options, a bit for each of [`TUNING`].
    pub(super) refused: u8,
}

/// Options that only tune an answer, and that some models refuse: their names, and the words by which refusals name them.
pub(super) const TUNING: [(&str, &[&str]); 6] = [
    ("temperature", &["temperature"]),
    ("top_p", &["top_p", "topP"]),
    ("seed", &["seed", "random_seed"]),
    ("frequency_penalty", &["frequency_penalty", "frequencyPenalty", "Penalty"]),
    ("presence_penalty", &["presence_penalty", "presencePenalty", "Penalty"]),
    ("reasoning_effort", &["reasoning_effort"]),
];

/// Which of [`TUNING`] are given, a bit each.
pub(super) fn given(options: &Options) -> u8 {
    let Options { temperature, top_p, seed, frequency_penalty, presence_penalty, reasoning_effort, .. } = options;
    let given = [
        temperature.is_some(),
        top_p.is_some(),
        seed.is_some(),
        frequency_penalty.is_some(),
        presence_penalty.is_some(),
        reasoning_effort.is_some(),
    ];
    given.iter().rev().fold(0, |bits, given| bits << 1 | u8::from(*given))
}

/// Which of [`TUNING`] are refused for their value alone, which the refusal repeats, a bit each: another value may do.
pub(super) fn unfit_values(options: &Options, names: impl Fn(&str) -> bool) -> u8 {
    given(&Options {
        seed: options.seed.filter(|seed| names(&seed.to_string())),
        reasoning_effort: options.reasoning_effort.clone().filter(|effort| names(effort)),
        ..Options::default()
    })
}

/// The options without those of [`TUNING`] whose bits are set.
pub(super) fn without(options: &Options, refused: u8) -> Options {
    let is_left = |index: u8| refused >> index & 1 == 0;
    Options {
        temperature: options.temperature.filter(|_| is_left(0)),
        top_p: options.top_p.filter(|_| is_left(1)),
        seed: options.seed.filter(|_| is_left(2)),
        frequency_penalty: options.frequency_penalty.filter(|_| is_left(3)),
        presence_penalty: options.presence_penalty.filter(|_| is_left(4)),
        reasoning_effort: options.reasoning_effort.clone().filter(|_| is_left(5)),
        ..options.clone()
    }
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
        request.conversation.messages().iter().map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "assistant",
            };
            Self { role, content: &message.text }
        })
    }

    /// The system text is a message of its own.
    fn with_system(request: &'a Request) -> Vec<Self> {
        let system = request.conversation.system().map(|text| Self { role: "system", content: text });
        system.into_iter().chain(Self::all(request)).collect()
    }
}

fn is_empty(list: &&[String]) -> bool {
    list.is_empty()
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
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat<'a> {
    JsonObject,
    JsonSchema { json_schema: &'a RawValue },
}

impl<'a> OpenAi<'a> {
    fn new(request: &'a Request, variant: Variant) -> Self {
        let (options, limit) = (&request.options, Some(request.max_tokens));
        let (max_tokens, max_completion_tokens) = if variant.completion_tokens { (None, limit) } else { (limit, None) };
        Self {
            model: &request.model,
            messages: ChatMessage::with_system(request),
            stream: true,
            stream_options: (!variant.no_stream_options).then_some(StreamOptions { include_usage: true }),
            max_tokens,
            max_completion_tokens,
            temperature: options.temperature,
            top_p: options.top_p,
            stop: &options.stop,
            seed: options.seed,
            frequency_penalty: options.frequency_penalty,
            presence_penalty: options.presence_penalty,
            response_format: match &options.format {
                Format::Text => None,
                Format::Json => Some(ResponseFormat::JsonObject),
                Format::Schema(json) => {
                    serde_json::from_str(json).ok().map(|json_schema| ResponseFormat::JsonSchema { json_schema })
                }
            },
            reasoning_effort: options.reasoning_effort.as_deref(),
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
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    /// Newer models refuse both.
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    /// Blanks alone are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stop_sequences: Vec<&'a str>,
}

impl<'a> Anthropic<'a> {
    fn new(request: &'a Request) -> Self {
        let Options { temperature, top_p, stop, .. } = &request.options;
        let mut messages: Vec<_> = ChatMessage::all(request).collect();
        // A beginning of the answer that ends with blanks is refused.
        if let Some(last) = messages.last_mut().filter(|last| last.role == "assistant") {
            last.content = last.content.trim_end();
        }
        Self {
            model: &request.model,
            system: request.conversation.system(),
            messages,
            stream: true,
            max_tokens: request.max_tokens,
            temperature: temperature.map(|temperature| temperature.min(ANTHROPIC_TEMPERATURE)),
            top_p: top_p.filter(|_| temperature.is_none()),
            stop_sequences: stop.iter().map(String::as_str).filter(|stop| !stop.trim().is_empty()).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gemini<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    system_instruction: Option<Content<'a>>,
    contents: Vec<Content<'a>>,
    generation_config: GenerationConfig<'a>,
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
struct GenerationConfig<'a> {
    max_output_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "is_empty")]
    stop_sequences: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_json_schema: Option<&'a RawValue>,
}

impl<'a> Gemini<'a> {
    fn new(request: &'a Request) -> Self {
        let contents = request.conversation.messages().iter().map(|message| {
            let role = match message.role {
                Role::User => "user",
                Role::Assistant => "model",
            };
            Content { role: Some(role), parts: [Part { text: &message.text }] }
        });
        let system = request.conversation.system();
        let options = &request.options;
        Self {
            system_instruction: system.map(|text| Content { role: None, parts: [Part { text }] }),
            contents: contents.collect(),
            generation_config: GenerationConfig {
                max_output_tokens: request.max_tokens,
                temperature: options.temperature,
                top_p: options.top_p,
                stop_sequences: &options.stop,
                seed: gemini_seed(options),
                frequency_penalty: options.frequency_penalty,
                presence_penalty: options.presence_penalty,
                response_mime_type: (options.format != Format::Text).then_some(JSON),
                response_json_schema: schema(options),
            },
        }
    }
}

/// The schema of the answer, without what OpenAI has around it.
fn schema(options: &Options) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(borrow)]
        schema: &'a RawValue,
    }
    match &options.format {
        Format::Schema(json) => serde_json::from_str(json).ok().map(|named: Named<'_>| named.schema),
        Format::Text | Format::Json => None,
    }
}

#[derive(Serialize)]
struct Ollama<'a> {
    model: &'a str,
    messages: Vec<ChatMessage<'a>>,
    stream: bool,
    /// Else turns that don't fit the context are dropped without a word.
    truncate: bool,
    shift: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<OllamaFormat<'a>>,
    options: OllamaOptions<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OllamaFormat<'a> {
    Name(&'static str),
    Schema(&'a RawValue),
}

#[derive(Serialize)]
struct OllamaOptions<'a> {
    num_predict: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    top_p: Option<f32>,
    #[serde(skip_serializing_if = "is_empty")]
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frequency_penalty: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence_penalty: Option<f32>,
}

impl<'a> Ollama<'a> {
    fn new(request: &'a Request) -> Self {
        let options = &request.options;
        Self {
            model: &request.model,
            messages: ChatMessage::with_system(request),
            stream: true,
            truncate: false,
            shift: false,
            format: match (&options.format, schema(options)) {
                (Format::Text, _) => None,
                (_, Some(schema)) => Some(OllamaFormat::Schema(schema)),
                (_, None) => Some(OllamaFormat::Name("json")),
            },
            options: OllamaOptions {
                num_predict: request.max_tokens,
                temperature: options.temperature,
                top_p: options.top_p,
                stop: &options.stop,
                seed: options.seed,
                frequency_penalty: options.frequency_penalty,
                presence_penalty: options.presence_penalty,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::prompt::Speaker;

    fn request(options: Options) -> Request {
        use Speaker::{Assistant, System, User};
        let said = [(User, "hi"), (System, "be brief"), (Assistant, "yes?"), (User, "a \"b\"")];
        let conversation = Conversation::new(said.map(|(speaker, text)| (speaker, text.to_owned()))).unwrap();
        Request { model: "m".into(), conversation, options, max_tokens: 7 }
    }

    fn written(protocol: Protocol, variant: Variant) -> Value {
        serde_json::from_slice(&body(protocol, &request(Options::default()), variant)).unwrap()
    }

    #[test]
    fn each_tuning_option_has_a_bit() {
        let options = Options {
            temperature: Some(0.5),
            top_p: Some(0.5),
            seed: Some(1),
            frequency_penalty: Some(0.5),
            presence_penalty: Some(0.5),
            reasoning_effort: Some("low".into()),
            ..Options::default()
        };
        assert_eq!(given(&options), 0b11_1111);
        assert_eq!(given(&Options::default()), 0);
        let all: Value = serde_json::to_value(&options).unwrap();
        for (index, (name, _)) in TUNING.iter().enumerate() {
            let left = without(&options, 1 << index);
            assert_eq!(given(&left), 0b11_1111 & !(1 << index));
            let mut expected = all.clone();
            expected[*name] = Value::Null;
            assert_eq!(serde_json::to_value(left).unwrap(), expected);
        }
    }

    #[test]
    fn options_are_written_by_each_protocols_names_and_what_has_none_is_told() {
        let options = Options {
            max_tokens: Some(9),
            temperature: Some(1.5),
            top_p: Some(0.5),
            stop: vec!["END".into()],
            seed: Some(1 << 40),
            frequency_penalty: Some(0.1),
            presence_penalty: Some(0.2),
            format: Format::Schema(r#"{"name":"n","schema":{"type":"object"}}"#.into()),
            reasoning_effort: Some("low".into()),
        };
        let written = |protocol, members: &[&str]| {
            let body: Value =
                serde_json::from_slice(&body(protocol, &request(options.clone()), Variant::default())).unwrap();
            let mut object = body.as_object().unwrap().clone();
            object.retain(|name, _| members.contains(&name.as_str()));
            Value::from(object)
        };
        let tuning = ["temperature", "top_p", "stop", "seed", "frequency_penalty", "presence_penalty"];
        assert_eq!(
            written(Protocol::OpenAi, &[&tuning[..], &["response_format", "reasoning_effort"]].concat()),
            json!({
                "temperature": 1.5, "top_p": 0.5, "stop": ["END"], "seed": 1_u64 << 40, "frequency_penalty": 0.1,
                "presence_penalty": 0.2, "reasoning_effort": "low", "response_format": { "type": "json_schema",
                "json_schema": { "name": "n", "schema": { "type": "object" } } },
            })
        );
        assert_eq!(
            written(Protocol::Anthropic, &[&tuning[..], &["stop_sequences"]].concat()),
            json!({ "temperature": 1.0, "stop_sequences": ["END"] })
        );
        assert_eq!(
            written(Protocol::Gemini, &["generationConfig"]),
            json!({ "generationConfig": {
                "maxOutputTokens": 7, "temperature": 1.5, "topP": 0.5, "stopSequences": ["END"], "frequencyPenalty": 0.1,
                "presencePenalty": 0.2, "responseMimeType": "application/json", "responseJsonSchema": { "type": "object" },
            } })
        );
        assert_eq!(
            written(Protocol::Ollama, &["format", "options"]),
            json!({ "format": { "type": "object" }, "options": {
                "num_predict": 7, "temperature": 1.5, "top_p": 0.5, "stop": ["END"], "seed": 1_u64 << 40,
                "frequency_penalty": 0.1, "presence_penalty": 0.2,
            } })
        );
        assert_eq!(ignored(Protocol::OpenAi, &options), [""; 0]);
        let of_anthropic =
            ["frequency_penalty", "presence_penalty", "seed", "top_p", "temperature", "reasoning_effort"];
        assert_eq!(ignored(Protocol::Anthropic, &options), of_anthropic);
        assert_eq!(ignored(Protocol::Gemini, &options), ["seed", "reasoning_effort"]);
        assert_eq!(ignored(Protocol::Ollama, &options), ["reasoning_effort"]);
        assert_eq!(ignored(Protocol::Anthropic, &Options::default()), [""; 0]);
        assert!(supported(Protocol::Anthropic, &options).is_err() && supported(Protocol::Gemini, &options).is_ok());
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
            json!({
                "model": "m", "messages": with_system, "stream": true, "truncate": false, "shift": false,
                "options": { "num_predict": 7 },
            })
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
        let variant = Variant { no_stream_options: true, completion_tokens: true, ..Variant::default() };
        let body = written(Protocol::OpenAi, variant);
        assert_eq!((body.get("stream_options"), body.get("max_tokens")), (None, None));
        assert_eq!(body["max_completion_tokens"], 7);
    }
}
