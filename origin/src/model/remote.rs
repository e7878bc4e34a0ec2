//! Models behind a provider's API. The library speaks the protocols; this file decides which server it calls with which
//! key, and turns its events and errors into ours.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, future, stream};
use genai::{
    Client, ModelIden, ServiceTarget,
    adapter::AdapterKind,
    chat::{ChatOptions, ChatRequest, ChatStreamEvent, ReasoningEffort, StopReason, StreamEnd},
    resolver::{AuthData, Endpoint},
};
use reqwest::redirect;
use secrecy::{ExposeSecret, SecretString};

use super::{Model, ModelError, Token, Tokens, failure};
use crate::{
    config::model::{Api, BaseUrl, Name, PlainHost},
    stream::{Finish, Usage},
};

/// How long a connection to a provider may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The variable of the key for `BASE_URL#MODEL`.
const SERVER_KEY: &str = "HEADWATER_MODEL_KEY";

/// A provider's model.
pub struct Remote(Arc<Inner>);

struct Inner {
    name: String,
    client: Client,
    model: ModelIden,
    base: BaseUrl,
    key: Option<SecretString>,
    options: ChatOptions,
}

/// A remote model that can't be used. Each message names the variable to set.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Its provider wants a key.
    #[error("{name} needs a key; set {variable} to it")]
    MissingKey {
        /// The model.
        name: String,
        /// The variable.
        variable: &'static str,
    },
    /// A key can't be sent.
    #[error("{variable} holds no key: it has characters that a key can't have")]
    WrongKey {
        /// The variable.
        variable: &'static str,
    },
    /// A provider's address isn't one.
    #[error("{variable} can't be used: {reason}")]
    WrongAddress {
        /// The variable.
        variable: &'static str,
        /// Why.
        reason: String,
    },
    /// Keys and prompts could be read on the way.
    #[error(
        "{name} is at http://{host}, where everybody on the way can read keys, prompts and answers; use https://, or \
         allow it with --allow-plain-http {host}"
    )]
    Readable {
        /// The model.
        name: String,
        /// Its host.
        host: PlainHost,
    },
    /// One key, and several servers to which it might belong.
    #[error("{SERVER_KEY} is the key of one server, and --model names several; leave out the others")]
    WhoseKey,
    /// TLS can't be set up.
    #[error("{name} can't be reached from here: {reason}")]
    Client {
        /// The model.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Checks that the key for `BASE_URL#MODEL`, where it is set, belongs to one server.
///
/// # Errors
/// It has several.
pub fn check_servers(names: &[Name], variable: impl Fn(&str) -> Option<String>) -> Result<(), SetupError> {
    let mut servers = names.iter().filter_map(|name| match name {
        Name::Remote(Api::Server(base), _) => Some(base),
        _ => None,
    });
    let several = servers.next().is_some_and(|first| servers.any(|other| !other.same_server(first)));
    if several && set(SERVER_KEY, &variable).is_some() { Err(SetupError::WhoseKey) } else { Ok(()) }
}

impl Remote {
    /// The model that its provider calls `model` and `--model` calls `name`; its answers have at most `max_tokens`. Requests
    /// go without TLS only to this machine and to `plain_hosts`. `variable` reads the environment. Sends nothing yet: a call
    /// may cost.
    ///
    /// # Errors
    /// A key is missing, or one of the settings can't be used.
    pub fn new(
        name: String,
        api: &Api,
        model: &str,
        max_tokens: u32,
        plain_hosts: &[PlainHost],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let (protocol, base, key) = match api {
            Api::Server(base) => (AdapterKind::OpenAI, base.clone(), key(SERVER_KEY, &variable)?),
            Api::Provider(provider) => {
                let read = if provider.protocol == AdapterKind::Ollama { BaseUrl::of_ollama } else { str::parse };
                let set = provider.address_variable.and_then(|name| Some((name, set(name, &variable)?)));
                let (named, address) = set.unwrap_or((provider.name, provider.address.to_owned()));
                let base = read(&address).map_err(|reason| SetupError::WrongAddress { variable: named, reason })?;
                let key = match provider.key {
                    Some(named) => {
                        let missing = || SetupError::MissingKey { name: name.clone(), variable: named };
                        Some(key(named, &variable)?.ok_or_else(missing)?)
                    }
                    None => None,
                };
                (provider.protocol, base.under(provider.path), key)
            }
        };
        if let Some(host) = base.readable_on_the_way(plain_hosts) {
            return Err(SetupError::Readable { name, host });
        }
        let client = client(&base).map_err(|reason| SetupError::Client { name: name.clone(), reason })?;
        let (model, options) = (ModelIden::new(protocol, model), options(protocol, max_tokens));
        Ok(Self(Arc::new(Inner { name, client, model, base, key, options })))
    }
}

impl Model for Remote {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn generate(&self, prompt: &str) -> Tokens {
        let request = ChatRequest::from_user(prompt);
        let (opening, told, asked) = (self.0.clone(), self.0.clone(), prompt.to_owned());
        let events = async move {
            let answer = opening.client.exec_chat_stream(opening.target(), request, Some(&opening.options)).await;
            answer.map(|answer| answer.stream)
        };
        let tokens =
            stream::once(events).try_flatten().filter_map(move |event| future::ready(told.token(event, &asked)));
        // The answer had no end.
        let cut = || ModelError::BadAnswer("it has no end; is the base URL right?".into());
        tokens.chain(stream::once(async move { Err(cut()) })).boxed()
    }
}

impl Inner {
    /// The server and the key of the request: the library chooses neither by itself.
    fn target(&self) -> ServiceTarget {
        let auth = match &self.key {
            Some(key) => AuthData::from_single(key.expose_secret()),
            None if self.model.adapter_kind == AdapterKind::Ollama => AuthData::None,
            // For a server without a key the library needs the whole request from us.
            None => AuthData::RequestOverride {
                url: format!("{}chat/completions", self.base.as_str()),
                headers: genai::Headers::default(),
            },
        };
        ServiceTarget { endpoint: Endpoint::from_owned(self.base.as_str()), auth, model: self.model.clone() }
    }

    /// The library's event as a token; `None` for thoughts and signs of life.
    fn token(&self, event: genai::Result<ChatStreamEvent>, prompt: &str) -> Option<Result<Token, ModelError>> {
        match event {
            Ok(ChatStreamEvent::Chunk(chunk)) => Some(Ok(Token::Text(chunk.content))),
            Ok(ChatStreamEvent::End(end)) => Some(self.end(&end, prompt)),
            Ok(_) => None,
            Err(error) => {
                let (error, words) = failure::read(&error);
                self.log(&error, &words, prompt);
                Some(Err(error))
            }
        }
    }

    fn end(&self, end: &StreamEnd, prompt: &str) -> Result<Token, ModelError> {
        let finish = match &end.captured_stop_reason {
            Some(StopReason::Completed(_) | StopReason::StopSequence(_) | StopReason::ToolCall(_)) => Finish::Stop,
            Some(StopReason::MaxTokens(_)) => Finish::Length,
            Some(StopReason::ContentFilter(_)) => Finish::ContentFilter,
            Some(StopReason::Other(reason)) => {
                let error = ModelError::BrokeOff("it ended for a reason of its own".into());
                self.log(&error, reason, prompt);
                return Err(error);
            }
            // The library reports an end also where the connection was closed early.
            None => return Err(ModelError::BrokeOff("it ended without a reason".into())),
        };
        let count = |tokens: Option<i32>| tokens.and_then(|tokens| u64::try_from(tokens).ok());
        let usage = end.captured_usage.as_ref().and_then(|usage| {
            let (input, output) = (count(usage.prompt_tokens), count(usage.completion_tokens));
            let told = input.is_some() || output.is_some();
            told.then(|| Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0) })
        });
        Ok(Token::End { finish, usage })
    }

    /// Logs a provider's own words: cut short, and without the key and the prompt. Nothing else writes them anywhere.
    fn log(&self, error: &ModelError, words: &str, prompt: &str) {
        /// Characters.
        const LONGEST: usize = 500;
        let key = self.key.as_ref().map_or("", |key| key.expose_secret());
        let words: String = redacted(words, key, prompt).chars().take(LONGEST).collect();
        tracing::warn!(model = self.name, %error, words, "the provider says");
    }
}

/// A provider's words without the key and the prompt. The key is replaced first: a short prompt may be a part of it, and
/// would leave pieces of the key behind.
fn redacted(words: &str, key: &str, prompt: &str) -> String {
    let quoted = serde_json::to_string(prompt).unwrap_or_default();
    let in_json = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut words = words.to_owned();
    for (said, instead) in [(key, "[key]"), (prompt, "[prompt]"), (in_json, "[prompt]")] {
        // An empty text is found between all characters.
        if !said.is_empty() {
            words = words.replace(said, instead);
        }
    }
    words
}

fn options(protocol: AdapterKind, max_tokens: u32) -> ChatOptions {
    let options = ChatOptions::default().with_capture_usage(true).with_max_tokens(max_tokens);
    match protocol {
        // Without this the library reads "-max" or "-high" at the end of a model's name as an effort. This protocol sends no
        // budget.
        AdapterKind::OpenAI | AdapterKind::Groq => options.with_reasoning_effort(ReasoningEffort::Budget(0)),
        _ => options,
    }
}

/// A client for one server. It keeps connections, and uses HTTP/2 where the server offers it.
fn client(base: &BaseUrl) -> Result<Client, String> {
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        // No compression: a compressor holds tokens until its block is full.
        .no_gzip()
        // A redirect would take the key elsewhere.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("headwater/", env!("CARGO_PKG_VERSION")));
    // Without TLS a proxy could read the key.
    let http = if base.is_plain() { http.no_proxy() } else { http };
    let http = http.build().map_err(|error| failure::chain(&error))?;
    Client::builder().with_reqwest(http).build().map_err(|error| failure::chain(&error))
}

fn key(name: &'static str, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<SecretString>, SetupError> {
    match set(name, variable) {
        Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => Err(SetupError::WrongKey { variable: name }),
        key => Ok(key.map(SecretString::from)),
    }
}

/// A variable's value; an empty one counts as none.
fn set(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Option<String> {
    variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_key_nor_prompt_is_left_in_a_providers_words() {
        assert_eq!(redacted("no sk-abc here", "sk-abc", "a"), "no [key] here");
        assert_eq!(redacted(r#"{"input":"a \"b\""}"#, "", r#"a "b""#), r#"{"input":"[prompt]"}"#);
        assert_eq!(redacted("as it was", "", ""), "as it was");
    }
}
