//! A model that answers by script: for tests and benchmarks that need to know what the model says.
//!
//! A prompt that ends in a JSON array is a script, any other prompt is answered by a default one. The prompt
//! may begin as it likes, so that a script fits in the variable of every template.

use std::time::Duration;

use futures::{StreamExt, stream};
use headwater_origin::{
    model::{Model, ModelError, Token, Tokens},
    prompt::{Conversation, Options},
    stream::{Finish, Usage},
};
use serde::Deserialize;

/// One step of a script.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// A token.
    Token(String),
    /// Silence, milliseconds.
    Pause(u64),
    /// `{"tokens": N, "every_ms": M}`: N tokens, numbered, M milliseconds apart.
    Tokens {
        /// How many.
        tokens: u32,
        /// Milliseconds before each.
        #[serde(default)]
        every_ms: u64,
    },
    /// `{"repeat": "x", "times": N}`: one token of N times x.
    Repeat {
        /// The text.
        repeat: String,
        /// How often.
        times: usize,
    },
    /// `{"think": "hm"}`: a piece of thoughts.
    Think {
        /// The text.
        think: String,
    },
    /// `{"fail": "broke-off"}`: one of the model's errors; the script ends there.
    Fail {
        /// Its name.
        fail: String,
    },
}

/// A model that answers by script.
pub struct Scripted;

impl Model for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn generate(&self, conversation: &Conversation, _: &Options) -> Tokens {
        let prompt = conversation.messages().last().map_or("", |message| message.text.as_str());
        let script = prompt.find('[').and_then(|start| serde_json::from_str(&prompt[start..]).ok());
        let script: Vec<Step> = script.unwrap_or_else(|| {
            ["In ", "a ", "line, ", "and ", "then ", "one ", "more."].map(|word| Step::Token(word.into())).into()
        });
        stream::iter(script).flat_map(play).chain(stream::once(async { Ok(end()) })).boxed()
    }
}

fn play(step: Step) -> Tokens {
    let token = |text: String| stream::once(async { Ok(Token::Text(text)) }).boxed();
    match step {
        Step::Token(text) => token(text),
        Step::Repeat { repeat, times } => token(repeat.repeat(times)),
        Step::Pause(millis) => stream::once(pause(millis)).filter_map(async |()| None).boxed(),
        Step::Tokens { tokens, every_ms } => {
            let numbered = move |number| async move {
                pause(every_ms).await;
                Ok(Token::Text(format!("{number} ")))
            };
            stream::iter(0..tokens).then(numbered).boxed()
        }
        Step::Think { think } => stream::once(async { Ok(Token::Reasoning(think)) }).boxed(),
        Step::Fail { fail } => match error(&fail) {
            Some(error) => stream::once(async { Err(error) }).boxed(),
            None => stream::once(async move { panic!("the script says so: {fail}") }).boxed(),
        },
    }
}

async fn pause(millis: u64) {
    if millis > 0 {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}

fn error(name: &str) -> Option<ModelError> {
    match name {
        "refused" => Some(ModelError::Refused("by script".into())),
        "too-long" => Some(ModelError::TooLong("by script".into())),
        "rate-limited" => Some(ModelError::RateLimited(Some(Duration::from_secs(7)))),
        "misconfigured" => Some(ModelError::Misconfigured("the key".into())),
        "overloaded" => Some(ModelError::Overloaded(None)),
        "broke-off" => Some(ModelError::BrokeOff("by script".into())),
        _ => None,
    }
}

fn end() -> Token {
    Token::End { finish: Finish::Stop, usage: Some(Usage { input_tokens: 3, output_tokens: 7 }) }
}
