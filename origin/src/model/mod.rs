//! Models: what turns a conversation into tokens.
//!
//! # Layout
//! - [`names`]: what clients call them.
//! - [`fallback`]: several of them, in order of preference; `health`: which of them are asked, after failures.
//! - `embedded`: one in this process.
//! - [`remote`]: those behind a provider's API.
//! - `thoughts`: what of a model's text is no part of its answer.

#[cfg(feature = "embedded")]
pub mod embedded;
pub mod fallback;
mod health;
pub mod names;
pub mod remote;
mod thoughts;

use std::{sync::Arc, time::Duration};

use futures::stream::BoxStream;
use headwater_protocol::{Kind, Problem};

use crate::{
    prompt::{Conversation, Options},
    stream::{Finish, Usage},
};

/// Turns conversations into tokens.
pub trait Model: Send + Sync + 'static {
    /// Its name, as `--model` takes it.
    fn name(&self) -> &str;

    /// How many generations it runs at once; beyond it, it answers [`ModelError::Overloaded`] at once. `None`
    /// where that is not its limit.
    fn concurrency(&self) -> Option<usize> {
        None
    }

    /// Of the options that are given, those that it can do nothing with and that only tune an answer, by the names that
    /// clients give them. It answers without them.
    fn ignored(&self, _options: &Options) -> Vec<&'static str> {
        Vec::new()
    }

    /// Answers the conversation. Options that would make it another kind of answer, and which it hasn't, are
    /// [`ModelError::Unsupported`].
    ///
    /// Dropping the tokens is the one way to cancel, and cancels all the way down: the decoding, or the provider's connection.
    fn generate(&self, conversation: &Conversation, options: &Options) -> Tokens;
}

/// What is asked of the models.
#[derive(Clone, Debug)]
pub struct Request {
    /// What was said.
    pub conversation: Conversation,
    /// How the answer is to be.
    pub options: Options,
    /// The one model that is asked, by its name; `None`: all, in order of preference.
    pub model: Option<Arc<str>>,
}

impl Request {
    /// A prompt for all models.
    pub fn prompt(text: impl Into<String>) -> Self {
        Self { conversation: Conversation::of_prompt(text.into()), options: Options::default(), model: None }
    }
}

/// An answer as it comes. [`Token::End`] is its last item; an answer without one broke off.
pub type Tokens = BoxStream<'static, Result<Token, ModelError>>;

/// An item of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// More text; may be empty.
    Text(String),
    /// More of the model's thoughts, where they are wanted; may be empty.
    Reasoning(String),
    /// A sign of life without text, such as a ping, or a thought that nobody wants: the timeouts begin anew.
    Alive,
    /// A sign that the connection lives, such as a comment: the timeouts begin anew, but the model may be as silent as ever.
    Connected,
    /// The end.
    End {
        /// Why.
        finish: Finish,
        /// What it cost, where the model tells.
        usage: Option<Usage>,
    },
}

/// Why a model gave no answer, or only a part of one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// It won't answer this prompt.
    #[error("the model refused the prompt: {0}")]
    Refused(String),
    /// It has no such option as is asked for in this member of the request.
    #[error("the model has no {0}: {1}")]
    Unsupported(&'static str, &'static str),
    /// Its provider says, with this status, that the request is at fault.
    #[error("the model's provider refused the request: {1}")]
    BadRequest(u16, String),
    /// The prompt is longer than its context. Another try goes no better, but another model's context may be longer.
    #[error("the prompt is longer than the model's context: {0}")]
    TooLong(String),
    /// Only the operator can mend it: the key, the account, the address, the model's name. Says what and, where it is
    /// known, which setting.
    #[error("the model can't be used as it is set: {0}")]
    Misconfigured(String),
    /// It wants fewer requests.
    #[error("the model's rate limit is reached")]
    RateLimited(Option<Duration>),
    /// It has no room.
    #[error("the model is overloaded")]
    Overloaded(Option<Duration>),
    /// It answered something else than an answer.
    #[error("the model's answer is none: {0}")]
    BadAnswer(String),
    /// It ended before its answer did.
    #[error("the model broke off: {0}")]
    BrokeOff(String),
    /// It was silent from the start.
    #[error("the model gave no first token in time")]
    FirstTokenTimeout,
}

impl ModelError {
    /// Whether another try may go better.
    pub fn retryable(&self) -> bool {
        self.problem().retryable()
    }

    /// What the reader gets to know. The error's own text stays in the log.
    pub fn problem(&self) -> Problem {
        const SOON: Duration = Duration::from_secs(1);
        match self {
            ModelError::Refused(_) => Problem::model_refused(),
            ModelError::Unsupported(param, what) => Problem::unsupported_value(*param, *what),
            ModelError::BadRequest(status, _) => Problem::new(
                Kind::ModelRefused,
                "the model's provider refuses the request; change the prompt or the options",
            )
            .status_of_provider(*status),
            ModelError::TooLong(_) => {
                Problem::new(Kind::TooLong, "the prompt is longer than the model's context; send a shorter one")
                    .of_param("messages")
            }
            ModelError::Misconfigured(_) => {
                Problem::new(Kind::ModelRefused, "the model can't be used; the origin's operator has to mend it")
            }
            ModelError::RateLimited(after) => {
                Problem::new(Kind::RateLimited, "the model's rate limit is reached; try again later")
                    .retry_after(after.unwrap_or(SOON))
            }
            ModelError::Overloaded(after) => Problem::new(Kind::Overloaded, "the model is overloaded; try again later")
                .retry_after(after.unwrap_or(SOON)),
            ModelError::BadAnswer(_) | ModelError::BrokeOff(_) => {
                Problem::new(Kind::ModelBrokeOff, "the model broke off before its answer was whole; try again")
            }
            ModelError::FirstTokenTimeout => {
                Problem::new(Kind::FirstTokenTimeout, "the model was silent for too long; try again")
            }
        }
    }
}
