//! Models behind a provider's API.
//!
//! # Layout
//! - `setup`: from the settings to a server: its address, its key.
//! - `provider`: asks the server, and reads the status of its answer.
//! - `answer`: from the answer's body to tokens; `finish`: what the words for an end mean.
//! - `parser`: from bytes to events, a file for each protocol.
//! - `request`: what is sent, in each protocol; `failure`: what refusals and errors mean.
//! - `connections`: HTTP/1.1 and HTTP/2 to the server.

mod answer;
mod connections;
mod failure;
mod finish;
mod parser;
mod provider;
mod request;
mod setup;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{Stream, StreamExt, future::BoxFuture, stream};
use secrecy::ExposeSecret;

pub use self::setup::{SetupError, check_servers};
use self::{
    answer::Answer,
    failure::Settings,
    finish::Ending,
    provider::{Provider, Refusal},
    request::Request,
    setup::Server,
};
use super::{Model, ModelError, Token, Tokens, thoughts::ThoughtsApart};
use crate::{
    config::{
        address::PlainHost,
        model::{Api, Protocol},
    },
    prompt::{Conversation, Options},
};

/// A provider's model.
pub struct Remote(Arc<Inner>);

/// What answers of one model have in common.
struct Inner {
    name: String,
    /// Its provider's name of it.
    model: String,
    provider: Provider,
    max_tokens: u32,
    /// Whether thoughts are passed on.
    reasoning: bool,
    /// Whether what a provider says may be logged: it may repeat the prompt.
    log_words: bool,
    /// A finish was told in a word that isn't known, and was logged.
    unknown_word: AtomicBool,
}

/// The settings that all remote models have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The most tokens of an answer.
    pub max_tokens: u32,
    /// Hosts to which requests may go without TLS, beside this machine.
    pub plain_hosts: &'a [PlainHost],
    /// Whether thoughts are passed on.
    pub reasoning: bool,
    /// Whether prompts may be logged.
    pub log_variables: bool,
}

impl Remote {
    /// The model that its provider calls `model` and `--model` calls `name`. `variable` reads the environment. Sends nothing
    /// yet: a call may cost.
    ///
    /// # Errors
    /// A key is missing, or one of the settings can't be used.
    pub fn new(
        name: String,
        api: &Api,
        model: &str,
        common: Common<'_>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let server = Server::new(&name, api, common.plain_hosts, variable)?;
        let provider = Provider::new(server, model);
        let provider = provider.map_err(|reason| SetupError::Client { name: name.clone(), reason })?;
        Ok(Self(Arc::new(Inner {
            name,
            model: model.to_owned(),
            provider,
            max_tokens: common.max_tokens,
            reasoning: common.reasoning,
            log_words: common.log_variables,
            unknown_word: AtomicBool::new(false),
        })))
    }
}

impl Model for Remote {
    fn name(&self) -> &str {
        &self.0.name
    }

    fn ignored(&self, options: &Options) -> Vec<&'static str> {
        self.0.provider.ignored(options)
    }

    fn generate(&self, conversation: &Conversation, options: &Options) -> Tokens {
        if let Err(error) = request::supported(self.0.protocol(), options) {
            return stream::once(async { Err(error) }).boxed();
        }
        let request = Request {
            model: self.0.model.clone(),
            conversation: conversation.clone(),
            max_tokens: options.max_tokens.map_or(self.0.max_tokens, |asked| asked.min(self.0.max_tokens)),
            options: options.clone(),
        };
        let model = self.0.clone();
        let asked = async move {
            match model.provider.ask(&request).await {
                Ok(body) => Ok(Box::new(Answer::new(model, body))),
                Err(refusal) => Err(model.failed(refusal)),
            }
        };
        ThoughtsApart::new(Call::Asking(Box::pin(asked)), self.0.reasoning).boxed()
    }
}

/// A call of the model.
enum Call {
    /// The head of an answer is awaited.
    Asking(BoxFuture<'static, Result<Box<Answer>, ModelError>>),
    Answering(Box<Answer>),
    Over,
}

impl Stream for Call {
    type Item = Result<Token, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut *self {
                Self::Asking(asked) => match asked.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(answer)) => *self = Self::Answering(answer),
                    Poll::Ready(Err(error)) => {
                        *self = Self::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Self::Answering(answer) => return answer.poll_next(cx),
                Self::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Inner {
    fn protocol(&self) -> Protocol {
        self.provider.server().protocol
    }

    fn settings(&self) -> &Settings {
        &self.provider.server().settings
    }

    /// What a word for an end means. A word that isn't known is logged once.
    fn ending(&self, word: &str) -> Ending {
        /// Longer ones are no words.
        const LONGEST: usize = 64;
        let ending = finish::ending(word);
        if ending == Ending::Unknown && !self.unknown_word.swap(true, Ordering::Relaxed) {
            let is_word = word.len() <= LONGEST && failure::is_identifier(word);
            let word = if is_word { self.without_key(word) } else { "no word".to_owned() };
            tracing::warn!(
                model = self.name,
                word,
                "an answer ended for a reason that isn't known; it counts as a stop"
            );
        }
        ending
    }

    /// An error within an answer.
    fn in_stream(&self, said: &[u8]) -> Refusal {
        let failure = failure::in_stream(said, self.settings());
        let words = String::from_utf8_lossy(said).into_owned();
        Refusal { names: failure.names, words, ..Refusal::new(failure.error) }
    }

    /// Logs a failure: with the provider's own words, cut short, only where prompts may be logged or at level debug, since
    /// they may repeat the prompt. The key is in neither.
    fn failed(&self, refusal: Refusal) -> ModelError {
        /// Characters.
        const LONGEST: usize = 500;
        let Refusal { error, names, words, cause } = refusal;
        let logged = self.log_words || tracing::enabled!(tracing::Level::DEBUG);
        let words = logged.then(|| self.without_key(&words).chars().take(LONGEST).collect::<String>());
        tracing::warn!(model = self.name, %error, cause, names = self.without_key(&names), words, "the provider says");
        error
    }

    fn without_key(&self, words: &str) -> String {
        match &self.provider.server().key {
            // Set-up refuses an empty key, which is found between all characters.
            Some(key) => words.replace(key.expose_secret(), "[key]"),
            None => words.to_owned(),
        }
    }
}
