//! Anthropic's messages. Source: <https://docs.claude.com/en/docs/build-with-claude/streaming>.

use std::borrow::Cow;

use serde::Deserialize;

use super::{
    Event, Said,
    text::Text,
    value::{Raw, count, object, object_with_text, says_something, word},
};
use crate::stream::Usage;

/// An event of a stream, or a whole message.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Raw<'a>,
    /// `message_start`.
    #[serde(borrow, default)]
    message: Raw<'a>,
    /// `content_block_start`.
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    /// `content_block_delta`, and `message_delta`.
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    /// A whole message.
    #[serde(borrow, default)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Raw<'a>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
}

#[derive(Deserialize)]
struct Begun<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<Block<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Raw<'a>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Raw<'a>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Raw<'a>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    stop_reason: Raw<'a>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(borrow, default)]
    input_tokens: Raw<'a>,
    #[serde(borrow, default)]
    cache_creation_input_tokens: Raw<'a>,
    #[serde(borrow, default)]
    cache_read_input_tokens: Raw<'a>,
    #[serde(borrow, default)]
    output_tokens: Raw<'a>,
}

/// What is remembered of the values before.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `message_start` tells the tokens of the prompt, `message_delta` those of the answer.
    usage: Usage,
}

impl State {
    pub(super) fn read(&mut self, event: &[u8], json: &[u8], tell: &mut dyn FnMut(Said<'_>)) -> serde_json::Result<()> {
        let message: Message<'_> = serde_json::from_slice(json)?;
        // The type stands in the JSON and in the event's name; some gateways leave one of them out.
        let kind = word(message.kind).unwrap_or_else(|| String::from_utf8_lossy(event));
        let begun: Option<Begun<'_>> = object_with_text(message.message)?;
        let begun = begun.as_ref();
        let blocks = begun.and_then(|begun| begun.content.as_ref()).or(message.content.as_ref());
        for block in blocks.into_iter().flatten().chain(&message.content_block) {
            block.read(tell);
        }
        let mut reason = begun.and_then(|begun| word(begun.stop_reason)).or_else(|| word(message.stop_reason));
        if let Some(delta) = &message.delta {
            delta.read(tell);
            reason = reason.or_else(|| word(delta.stop_reason));
        }
        for tokens in [begun.and_then(|begun| begun.usage), message.usage] {
            self.count(tokens, tell);
        }
        if let Some(reason) = reason {
            tell(Said::Other(Event::Finish(reason)));
        }
        match &*kind {
            "error" => tell(Said::Other(Event::Error(json))),
            _ if says_something(message.error) => tell(Said::Other(Event::Error(json))),
            "message_stop" => tell(Said::Other(Event::End)),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, tokens: Raw<'_>, tell: &mut dyn FnMut(Said<'_>)) {
        let Some(tokens) = object::<Tokens<'_>>(tokens) else { return };
        // What is read from a cache, or written to it, is not in `input_tokens`.
        let parts = [tokens.input_tokens, tokens.cache_creation_input_tokens, tokens.cache_read_input_tokens];
        let input: u64 = parts.into_iter().filter_map(count).sum();
        if input > 0 {
            self.usage.input_tokens = input;
        }
        if let Some(output) = count(tokens.output_tokens) {
            self.usage.output_tokens = output;
        }
        tell(Said::Other(Event::Usage(self.usage)));
    }
}

impl Block<'_> {
    fn read(&self, tell: &mut dyn FnMut(Said<'_>)) {
        part(word(self.kind), self.text.as_ref(), self.thinking.as_ref(), tell);
    }
}

impl Delta<'_> {
    fn read(&self, tell: &mut dyn FnMut(Said<'_>)) {
        part(word(self.kind), self.text.as_ref(), self.thinking.as_ref(), tell);
    }
}

/// Text counts in blocks and deltas of text alone: others may have a member of that name that is no part of the answer.
fn part(
    kind: Option<Cow<'_, str>>,
    text: Option<&Text<'_>>,
    thinking: Option<&Text<'_>>,
    tell: &mut dyn FnMut(Said<'_>),
) {
    if let (Some(text), None | Some("text" | "text_delta")) = (text, kind.as_deref()) {
        tell(Said::Text(&text.0));
    }
    if let Some(thinking) = thinking {
        tell(Said::Other(Event::Thought(thinking.lossy())));
    }
}
