//! Ollama's chat. Source: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use serde::Deserialize;

use super::{
    Event, Said,
    text::Text,
    value::{Raw, count, says_something, word},
};
use crate::stream::Usage;

/// A line of the answer.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    done: Raw<'a>,
    #[serde(borrow, default)]
    done_reason: Raw<'a>,
    #[serde(borrow, default)]
    prompt_eval_count: Raw<'a>,
    #[serde(borrow, default)]
    eval_count: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
}

pub(super) fn read(json: &[u8], tell: &mut dyn FnMut(Said<'_>)) -> serde_json::Result<()> {
    let line: Line<'_> = serde_json::from_slice(json)?;
    if let Some(message) = line.message {
        if let Some(thinking) = message.thinking.filter(|thinking| !thinking.0.is_empty()) {
            tell(Said::Other(Event::Thought(thinking.lossy())));
        }
        if let Some(content) = message.content {
            tell(Said::Text(&content.0));
        }
    }
    let (input, output) = (count(line.prompt_eval_count), count(line.eval_count));
    if input.is_some() || output.is_some() {
        let usage = Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0) };
        tell(Said::Other(Event::Usage(usage)));
    }
    if says_something(line.done) {
        // Older releases have no reason.
        tell(Said::Other(Event::Finish(word(line.done_reason).unwrap_or("stop".into()))));
    }
    if says_something(line.error) {
        tell(Said::Other(Event::Error(json)));
    }
    Ok(())
}
