//! OpenAI's chat completions, as its clients and those of compatible servers send and read them.
//!
//! Sources: <https://platform.openai.com/docs/api-reference/chat>, and the parsers of `openai` for Python and JavaScript, the
//! AI SDK and pydantic-ai. These see `id:` and `retry:` lines as events without data, and so get none.
//!
//! | frame | chunk's `choices` |
//! |---|---|
//! | the response opens | the role, an empty text |
//! | a chunk | its text |
//! | thoughts | `reasoning_content`, as DeepSeek and vLLM have it |
//! | `done` | the finish; the usage behind it, where it was asked for; `[DONE]` |
//! | `failed` | none: the error, `[DONE]` |

use bytes::Bytes;
use headwater_protocol::{
    Problem, StreamId,
    openai::{COMPLETION_PREFIX, ErrorBody},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Dialect,
    input::{Fields, Input, is_empty},
};
use crate::{
    prompt::Format,
    stream::{
        Done, Finish, Opening, Timing, Usage,
        frame::{self, Frame, json},
    },
};

/// A request, read.
#[derive(Debug)]
pub struct Request {
    /// What it has in common with every dialect. The model's name is there.
    pub input: Input,
    /// How it is answered.
    pub dialect: Dialect,
    /// The members that change nothing here, of those that would elsewhere.
    pub ignored: Vec<String>,
}

/// Members that mean something to OpenAI alone, or mean what is so anyway. Clients send them unasked.
const SILENTLY_IGNORED: [&str; 13] = [
    "function_call",
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "tool_choice",
    "user",
    "verbosity",
];

/// The most ignored members that are told, and the longest name of one, characters.
const MAX_TOLD: usize = 16;
const MAX_NAME: usize = 64;

/// Reads a request.
///
/// # Errors
/// Its messages or options can't be read, or it asks for another kind of answer than text.
pub fn request(body: &[u8]) -> Result<Request, Problem> {
    let mut fields = Fields::parse(body)?;
    let mut input = fields.input()?;
    if input.model.is_none() {
        return Err(Problem::bad_param("model", "model is missing; GET /v1/models has the names"));
    }
    let options = &mut input.options;
    // The smaller one of both counts.
    let newer = fields.max_tokens("max_completion_tokens")?;
    options.max_tokens = options.max_tokens.into_iter().chain(newer).min();
    options.frequency_penalty = fields.number("frequency_penalty", -2.0, 2.0)?.filter(|penalty| *penalty != 0.0);
    options.presence_penalty = fields.number("presence_penalty", -2.0, 2.0)?.filter(|penalty| *penalty != 0.0);
    options.reasoning_effort = effort(fields.text("reasoning_effort")?)?;
    options.format = format(fields.take("response_format"))?;
    let is_stream = flag(&mut fields, "stream")?;
    let usage = fields.take("stream_options").is_some_and(|options| options["include_usage"] == true);
    refuse_other_answers(&mut fields)?;
    let told = fields.rest().filter(|name| !SILENTLY_IGNORED.contains(name) && is_name(name));
    let ignored = told.take(MAX_TOLD).map(str::to_owned).collect();
    Ok(Request { input, dialect: if is_stream { Dialect::Chat { usage } } else { Dialect::ChatWhole }, ignored })
}

/// What would make the answer another kind of answer.
fn refuse_other_answers(fields: &mut Fields) -> Result<(), Problem> {
    if fields.take("n").is_some_and(|n| n != 1) {
        return Err(Problem::unsupported_value("n", "n: one answer at a time is supported; send 1, or leave it out"));
    }
    if fields
        .take("modalities")
        .is_some_and(|modalities| !is_empty(&modalities) && modalities != Value::from(vec!["text"]))
    {
        return Err(Problem::unsupported_param("modalities", "modalities: answers are text; leave it out"));
    }
    for (name, what) in [
        ("tools", "tools aren't supported"),
        ("functions", "functions aren't supported"),
        ("logit_bias", "a bias of tokens isn't supported"),
        ("audio", "answers are text"),
        ("web_search_options", "nothing is looked up in the web"),
        ("moderation", "moderation isn't supported"),
    ] {
        if fields.take(name).is_some_and(|value| !is_empty(&value)) {
            return Err(Problem::unsupported_param(name, format!("{name}: {what}; leave it out")));
        }
    }
    let wanted = |value: Option<Value>| value.is_some_and(|value| value != false && value != 0);
    for name in ["logprobs", "top_logprobs"] {
        if wanted(fields.take(name)) {
            return Err(Problem::unsupported_param(name, format!("{name}: probabilities aren't told; leave it out")));
        }
    }
    Ok(())
}

/// One word: providers have their own, and some repeat what they don't know in their errors.
fn effort(effort: Option<String>) -> Result<Option<String>, Problem> {
    const LONGEST: usize = 16;
    match effort {
        Some(word) if word.len() > LONGEST || !word.bytes().all(|byte| byte.is_ascii_lowercase()) => {
            Err(Problem::bad_param("reasoning_effort", "reasoning_effort is a word, such as low, medium or high"))
        }
        effort => Ok(effort),
    }
}

fn flag(fields: &mut Fields, name: &'static str) -> Result<bool, Problem> {
    match fields.take(name) {
        None => Ok(false),
        Some(Value::Bool(value)) => Ok(value),
        Some(_) => Err(Problem::bad_param(name, format!("{name} is true or false"))),
    }
}

fn format(format: Option<Value>) -> Result<Format, Problem> {
    const NAME: &str = "response_format";
    let Some(format) = format else { return Ok(Format::Text) };
    match format["type"].as_str() {
        Some("text") => Ok(Format::Text),
        Some("json_object") => Ok(Format::Json),
        Some("json_schema") if format["json_schema"].is_object() => {
            Ok(Format::Schema(format["json_schema"].to_string().into()))
        }
        _ => Err(Problem::bad_param(
            NAME,
            "response_format is an object whose type is text, json_object, or json_schema beside a member json_schema",
        )),
    }
}

/// Whether a header can list it.
fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(known)
}

/// Writes a stream of chunks.
pub(super) struct StreamWriter {
    /// A chunk up to its choices.
    before: Box<str>,
    usage: bool,
}

impl StreamWriter {
    pub(super) fn new(id: &StreamId, opening: &Opening, usage: bool) -> Self {
        let before = json(&Head::new(id, "chat.completion.chunk", opening));
        // The object goes on.
        let before = format!("data: {},\"choices\":[", before.trim_end_matches('}'));
        Self { before: before.into(), usage }
    }

    /// A chunk with one piece of a text, or of another member.
    fn piece(&self, out: &mut Vec<u8>, member: &str, text: &[u8]) {
        for part in [
            self.before.as_bytes(),
            b"{\"index\":0,\"delta\":{\"",
            member.as_bytes(),
            b"\":",
            text,
            b"},\"finish_reason\":null}]}\n\n",
        ] {
            out.extend_from_slice(part);
        }
    }

    fn chunk(&self, out: &mut Vec<u8>, choices: &str, behind: &str) {
        for part in [&*self.before, choices, "]", behind, "}\n\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }

    fn done(&self, out: &mut Vec<u8>, done: &Done) {
        let finish = json(&finish_reason(done.finish));
        self.chunk(out, &format!("{{\"index\":0,\"delta\":{{}},\"finish_reason\":{finish}}}"), "");
        if let Some(usage) = done.usage.filter(|_| self.usage) {
            self.chunk(out, "", &format!(",\"usage\":{}", json(&Tokens::of(usage))));
        }
        out.extend_from_slice(END);
    }
}

/// The last event of a stream, good or bad.
const END: &[u8] = b"data: [DONE]\n\n";

impl super::Writer for StreamWriter {
    fn open(&mut self) -> Bytes {
        let mut out = Vec::new();
        let role = r#"{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}"#;
        self.chunk(&mut out, role, "");
        out.into()
    }

    fn write(&mut self, frames: Bytes) -> Bytes {
        let mut out = Vec::with_capacity(4 * frames.len());
        for frame in frame::read(&frames) {
            match frame {
                Frame::Chunk(text) => self.piece(&mut out, "content", text),
                Frame::Reasoning(text) => self.piece(&mut out, "reasoning_content", text),
                Frame::Done(done) => self.done(&mut out, &read_done(done)),
                Frame::Failed(problem) => failed(&mut out, &problem_of(problem)),
                Frame::Unknown => {}
            }
        }
        out.into()
    }
}

fn failed(out: &mut Vec<u8>, problem: &Problem) {
    let error = json(&ErrorBody::of(problem));
    for part in [b"data: ", error.as_bytes(), b"\n\n", END] {
        out.extend_from_slice(part);
    }
}

fn problem_of(data: &[u8]) -> Problem {
    Problem::from_event_data(data).unwrap_or_else(Problem::internal)
}

/// Writes one completion, piece by piece, once its answer has ended. A failure writes no end: the response is broken off.
pub(super) struct WholeWriter {
    /// What stands before the text.
    before: Box<str>,
    begun: bool,
    /// The JSON of the thoughts, without its quotes. Each piece is whole characters, so the pieces' JSON together is that of the
    /// whole.
    reasoning: Vec<u8>,
}

impl WholeWriter {
    pub(super) fn new(id: &StreamId, opening: &Opening) -> Self {
        let head = json(&Head::new(id, "chat.completion", opening));
        // The object goes on.
        let head = head.trim_end_matches('}');
        let message = r#""choices":[{"index":0,"message":{"role":"assistant","content":""#;
        Self { before: [head, ",", message].concat().into(), begun: false, reasoning: Vec::new() }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(self.before.as_bytes());
        }
    }

    fn done(&mut self, out: &mut Vec<u8>, done: &Done) {
        self.begin(out);
        out.push(b'"');
        if !self.reasoning.is_empty() {
            for part in [&b",\"reasoning_content\":\""[..], &self.reasoning, b"\""] {
                out.extend_from_slice(part);
            }
        }
        let finish = json(&finish_reason(done.finish));
        let usage = done.usage.map(|usage| format!(",\"usage\":{}", json(&Tokens::of(usage)))).unwrap_or_default();
        let behind = format!(",\"refusal\":null}},\"logprobs\":null,\"finish_reason\":{finish}}}]{usage}}}");
        out.extend_from_slice(behind.as_bytes());
    }
}

impl super::Writer for WholeWriter {
    fn open(&mut self) -> Bytes {
        Bytes::new()
    }

    fn write(&mut self, frames: Bytes) -> Bytes {
        let mut out = Vec::with_capacity(frames.len());
        for frame in frame::read(&frames) {
            match frame {
                Frame::Chunk(text) => {
                    self.begin(&mut out);
                    out.extend_from_slice(inner(text));
                }
                Frame::Reasoning(text) => self.reasoning.extend_from_slice(inner(text)),
                Frame::Done(done) => self.done(&mut out, &read_done(done)),
                Frame::Failed(_) | Frame::Unknown => {}
            }
        }
        out.into()
    }
}

/// A good end. One that can't be read was written by another version, for a reason that isn't known here.
fn read_done(data: &[u8]) -> Done {
    let unknown = || Done { finish: Finish::Stop, usage: None, timing: Timing { first_token_ms: None, total_ms: 0 } };
    serde_json::from_slice(data).unwrap_or_else(|_| unknown())
}

/// The JSON of a text without its quotes.
fn inner(text: &[u8]) -> &[u8] {
    text.get(1..text.len().saturating_sub(1)).unwrap_or_default()
}

/// What chunks and completions begin with.
#[derive(Serialize)]
struct Head {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
}

impl Head {
    fn new(id: &StreamId, object: &'static str, opening: &Opening) -> Self {
        let id = format!("{COMPLETION_PREFIX}{id}");
        Self { id, object, created: opening.created, model: opening.model.clone() }
    }
}

#[derive(Serialize)]
struct Tokens {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Tokens {
    fn of(usage: Usage) -> Self {
        let Usage { input_tokens, output_tokens } = usage;
        let total_tokens = input_tokens.saturating_add(output_tokens);
        Self { prompt_tokens: input_tokens, completion_tokens: output_tokens, total_tokens }
    }
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::Stopped => "stop",
        Finish::Length => "length",
        Finish::ContentFilter => "content_filter",
    }
}

#[cfg(test)]
mod tests;
