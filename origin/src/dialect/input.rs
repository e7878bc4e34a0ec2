//! What requests with a conversation have in common: messages and options, named as OpenAI names them.
//!
//! `null` means absent. What would make the answer another kind of answer is refused with the path of the member that asks for
//! it; what only tunes it may be ignored.

use headwater_protocol::{Problem, json};
use serde_json::{Map, Value};

use crate::prompt::{Conversation, Options, Speaker};

/// The most messages of a conversation.
const MAX_MESSAGES: usize = 1_000;
/// The longest name of a model, bytes: each chunk of an answer repeats it.
const MAX_MODEL_BYTES: usize = 256;
/// The most texts that end an answer.
const MAX_STOPS: usize = 16;

/// A request, read.
#[derive(Debug)]
pub struct Input {
    /// What was said.
    pub conversation: Conversation,
    /// How the answer is to be.
    pub options: Options,
    /// The model's name or alias, where one is given.
    pub model: Option<String>,
}

/// The members of a request's body that nobody has read yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// # Errors
    /// The body is no JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        match json::parse(body) {
            Some(Value::Object(mut members)) => {
                members.retain(|_, value| !value.is_null());
                Ok(Self(members))
            }
            Some(_) => Err(Problem::bad_request("the body is a JSON object with a member messages")),
            None => Err(Problem::bad_request("the body is no JSON; send one JSON object")),
        }
    }

    /// Takes a member.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// The names of the members that are left.
    pub(super) fn rest(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Takes messages, model and the options that every dialect has.
    ///
    /// # Errors
    /// There is nothing to answer, or one of them can't be read.
    pub(super) fn input(&mut self) -> Result<Input, Problem> {
        let conversation = conversation(self.take("messages"))?;
        let options = Options {
            max_tokens: self.max_tokens("max_tokens")?,
            temperature: self.number("temperature", 0.0, 2.0)?,
            top_p: self.number("top_p", 0.0, 1.0)?,
            stop: self.stop()?,
            seed: self.seed()?,
            ..Options::default()
        };
        let model = self.text("model")?;
        if model.as_ref().is_some_and(|model| model.len() > MAX_MODEL_BYTES) {
            return Err(Problem::bad_param("model", format!("model is over {MAX_MODEL_BYTES} bytes")));
        }
        Ok(Input { conversation, options, model })
    }

    /// Takes a text that isn't empty.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(Problem::bad_param(name, format!("{name} is a string that isn't empty"))),
        }
    }

    /// Takes a number within these bounds.
    pub(super) fn number(&mut self, name: &'static str, least: f64, most: f64) -> Result<Option<f32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number as f32)),
            None => Err(Problem::bad_param(name, format!("{name} is a number from {least} to {most}"))),
        }
    }

    /// Takes a limit of tokens.
    pub(super) fn max_tokens(&mut self, name: &'static str) -> Result<Option<u32>, Problem> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().filter(|number| *number > 0) {
            Some(number) => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
            None => Err(Problem::bad_param(name, format!("{name} is a whole number above 0"))),
        }
    }

    fn seed(&mut self) -> Result<Option<i64>, Problem> {
        let Some(value) = self.take("seed") else { return Ok(None) };
        value.as_i64().map(Some).ok_or_else(|| Problem::bad_param("seed", "seed is a whole number of 64 bits"))
    }

    fn stop(&mut self) -> Result<Vec<String>, Problem> {
        let unfit = || {
            Problem::bad_param("stop", format!("stop is a string or a list of at most {MAX_STOPS}, none of them empty"))
        };
        let texts = match self.take("stop") {
            None => return Ok(Vec::new()),
            Some(Value::Array(texts)) => texts,
            Some(text) => vec![text],
        };
        if texts.len() > MAX_STOPS {
            return Err(unfit());
        }
        let fit = |text| if let Value::String(text) = text { Some(text).filter(|text| !text.is_empty()) } else { None };
        texts.into_iter().map(|text| fit(text).ok_or_else(unfit)).collect()
    }
}

fn conversation(messages: Option<Value>) -> Result<Conversation, Problem> {
    let unfit = |detail: &'static str| Problem::bad_param("messages", detail);
    let Some(Value::Array(messages)) = messages else {
        return Err(unfit("messages is missing, or no list; send a list of one or more messages"));
    };
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        return Err(Problem::bad_param("messages", format!("messages is a list of 1 to {MAX_MESSAGES} messages")));
    }
    let turns: Vec<_> =
        messages.into_iter().enumerate().map(|(at, message)| turn(at, message)).collect::<Result<_, _>>()?;
    Conversation::new(turns).map_err(|_| unfit("none of the messages has a text; send one that has"))
}

fn turn(at: usize, message: Value) -> Result<(Speaker, String), Problem> {
    let path = |member: &str| format!("messages[{at}]{member}");
    let Value::Object(mut message) = message else {
        return Err(Problem::bad_param(path(""), format!("{} is an object with role and content", path(""))));
    };
    message.retain(|_, value| !value.is_null());
    let role = path(".role");
    let speaker = match message.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => Speaker::System,
        Some("user") => Speaker::User,
        Some("assistant") => Speaker::Assistant,
        Some("tool" | "function") => return Err(no_tools(role)),
        _ => {
            let detail = format!("{role} is one of system, developer, user and assistant");
            return Err(Problem::bad_param(role, detail));
        }
    };
    for member in ["tool_calls", "function_call"] {
        if message.get(member).is_some_and(|calls| !is_empty(calls)) {
            return Err(no_tools(path(&format!(".{member}"))));
        }
    }
    if message.get("audio").is_some() {
        return Err(unsupported(path(".audio"), "audio isn't"));
    }
    let text = match message.remove("content") {
        None if speaker == Speaker::Assistant => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let parts: Vec<String> = parts
                .into_iter()
                .enumerate()
                .map(|(part_at, value)| part(path(&format!(".content[{part_at}]")), &value))
                .collect::<Result<_, _>>()?;
            parts.join("\n")
        }
        _ => {
            let content = path(".content");
            let detail = format!("{content} is a string, or a list of parts with type and text");
            return Err(Problem::bad_param(content, detail));
        }
    };
    Ok((speaker, text))
}

/// The text of one part of a message.
fn part(path: String, part: &Value) -> Result<String, Problem> {
    let member = |name: &str| part.get(name).and_then(Value::as_str);
    let text = match member("type") {
        Some("text" | "input_text" | "output_text") => member("text"),
        Some("refusal") => member("refusal"),
        Some("image_url" | "image" | "input_image") => return Err(unsupported(path, "images aren't")),
        Some("input_audio" | "audio") => return Err(unsupported(path, "audio isn't")),
        Some("file" | "input_file" | "document") => return Err(unsupported(path, "files aren't")),
        _ => None,
    };
    text.map(str::to_owned).ok_or_else(|| {
        let detail = format!("{path} is an object with type \"text\" and text");
        Problem::bad_param(path, detail)
    })
}

fn unsupported(path: String, what: &str) -> Problem {
    let detail = format!("{path}: {what} supported; send text");
    Problem::unsupported_value(path, detail)
}

fn no_tools(path: String) -> Problem {
    let detail = format!("{path}: tools aren't supported; send the conversation without their calls and results");
    Problem::unsupported_value(path, detail)
}

/// Whether a value says nothing: `[]`, `{}`, `""`.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::prompt::Role;

    fn read(body: &Value) -> Result<Input, (Option<String>, Option<String>, String)> {
        let input = Fields::parse(body.to_string().as_bytes()).and_then(|mut fields| fields.input());
        input.map_err(|problem| {
            let owned = |text: Option<&str>| text.map(str::to_owned);
            (owned(problem.param()), owned(problem.code()), problem.detail().to_owned())
        })
    }

    #[test]
    fn texts_come_as_strings_or_parts_and_null_is_absent() {
        let input = read(&json!({
            "messages": [
                { "role": "developer", "content": "brief", "name": "x" },
                { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
                { "role": "assistant", "content": null, "tool_calls": [], "refusal": null },
                { "role": "assistant", "content": [{ "type": "refusal", "refusal": "no" }] },
                { "role": "user", "content": "c" },
            ],
            "model": null, "max_tokens": null, "temperature": 0, "stop": "END", "seed": -1,
        }))
        .unwrap();
        assert_eq!(input.conversation.system(), Some("brief"));
        let said: Vec<_> = input.conversation.messages().iter().map(|said| (said.role, said.text.as_str())).collect();
        assert_eq!(said, [(Role::User, "a\nb"), (Role::Assistant, "no"), (Role::User, "c")]);
        assert_eq!((input.model, input.options.max_tokens), (None, None));
        assert_eq!((input.options.temperature, input.options.seed), (Some(0.0), Some(-1)));
        assert_eq!(input.options.stop, ["END"]);
    }

    #[test]
    fn what_can_not_be_read_is_named_by_its_path() {
        let said = |message: Value| json!({ "messages": [{ "role": "user", "content": "a" }, message] });
        let with = |name: &str, value: Value| json!({ "messages": [{ "role": "user", "content": "a" }], name: value });
        for (body, param, code) in [
            (json!({}), "messages", None),
            (json!({ "messages": [] }), "messages", None),
            (json!({ "messages": "a" }), "messages", None),
            (json!({ "messages": [{ "role": "user", "content": " " }] }), "messages", None),
            (json!({ "messages": vec![json!({ "role": "user", "content": "a" }); 1_001] }), "messages", None),
            (said(json!("a")), "messages[1]", None),
            (said(json!({ "content": "a" })), "messages[1].role", None),
            (said(json!({ "role": "owner", "content": "a" })), "messages[1].role", None),
            (said(json!({ "role": "tool", "content": "a" })), "messages[1].role", Some("unsupported_value")),
            (said(json!({ "role": "user" })), "messages[1].content", None),
            (said(json!({ "role": "user", "content": 1 })), "messages[1].content", None),
            (said(json!({ "role": "user", "content": ["a"] })), "messages[1].content[0]", None),
            (
                said(json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] })),
                "messages[1].content[0]",
                Some("unsupported_value"),
            ),
            (
                said(json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "x" }] })),
                "messages[1].tool_calls",
                Some("unsupported_value"),
            ),
            (with("temperature", json!(3)), "temperature", None),
            (with("temperature", json!("hot")), "temperature", None),
            (with("top_p", json!(-0.1)), "top_p", None),
            (with("max_tokens", json!(0)), "max_tokens", None),
            (with("max_tokens", json!(1.5)), "max_tokens", None),
            (with("stop", json!([""])), "stop", None),
            (with("stop", json!(vec!["a"; 17])), "stop", None),
            (with("seed", json!(0.5)), "seed", None),
            (with("model", json!("")), "model", None),
            (with("model", json!("m".repeat(257))), "model", None),
        ] {
            let (found, found_code, detail) = read(&body).unwrap_err();
            assert_eq!((found.as_deref(), found_code.as_deref()), (Some(param), code), "{detail}");
            assert!(detail.contains(param), "{detail}");
        }
        for body in [&b"{"[..], b"[]", b"\xff"] {
            assert!(Fields::parse(body).is_err());
        }
    }
}
