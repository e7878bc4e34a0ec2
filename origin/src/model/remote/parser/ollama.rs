//! Ollama's chat. Source: <https://github.com/ollama/ollama/blob/main/docs/api.md>.

use super::{
    Delta, Event,
    object::{Maybe, object},
    text::Text,
    value::{Count, Raw, count, reason, says_something},
};
use crate::stream::Usage;

object! {
    /// A line of the answer.
    struct Line<'a> {
        message: Maybe<Message<'a>> = b"message",
        done: Raw<'a> = b"done",
        done_reason: Raw<'a> = b"done_reason",
        prompt_eval_count: Count = b"prompt_eval_count",
        eval_count: Count = b"eval_count",
        error: Raw<'a> = b"error",
    }
}

object! {
    struct Message<'a> {
        content: Text<'a> = b"content",
        thinking: Text<'a> = b"thinking",
    }
}

pub(super) fn read(json: &[u8], tell: &mut dyn FnMut(Delta<'_>)) -> serde_json::Result<()> {
    let line: Line<'_> = serde_json::from_slice(json)?;
    if let Some(message) = line.message.and_then(|message| message.0) {
        if let Some(thinking) = message.thinking {
            tell(Delta::Thought(&thinking.0));
        }
        if let Some(content) = message.content {
            tell(Delta::Text(&content.0));
        }
    }
    let (input, output) = (count(line.prompt_eval_count), count(line.eval_count));
    if input.is_some() || output.is_some() {
        let usage = Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0) };
        tell(Delta::Other(Event::Usage(usage)));
    }
    if says_something(line.done) {
        // Older releases have no reason.
        tell(Delta::Other(Event::Finish(reason(line.done_reason).unwrap_or("stop".into()))));
    }
    if says_something(line.error) {
        tell(Delta::Other(Event::Error(json)));
    }
    Ok(())
}
