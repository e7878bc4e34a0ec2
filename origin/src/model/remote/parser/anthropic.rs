//! Anthropic's messages. Source: <https://docs.claude.com/en/docs/build-with-claude/streaming>.

use std::cell::Cell;

use super::{
    Delta, Event,
    content::Content,
    object::{Maybe, object},
    text::Text,
    value::{Count, Raw, count, reason, says_something},
};
use crate::stream::Usage;

object! {
    /// An event of a stream, or a whole message.
    struct Message<'a> {
        kind: Text<'a> = b"type",
        /// `message_start`.
        message: Maybe<Begun<'a>> = b"message",
        /// `content_block_start`.
        content_block: Block<'a> = b"content_block",
        /// `content_block_delta`, and `message_delta`.
        delta: Block<'a> = b"delta",
        /// A whole message.
        content: Blocks<'a> = b"content",
        stop_reason: Raw<'a> = b"stop_reason",
        usage: Maybe<Tokens<'a>> = b"usage",
        error: Raw<'a> = b"error",
    }
}

object! {
    struct Begun<'a> {
        content: Blocks<'a> = b"content",
        stop_reason: Raw<'a> = b"stop_reason",
        usage: Maybe<Tokens<'a>> = b"usage",
    }
}

object! {
    /// A block, or a part of one.
    struct Block<'a> {
        kind: Text<'a> = b"type",
        text: Text<'a> = b"text",
        thinking: Text<'a> = b"thinking",
        stop_reason: Raw<'a> = b"stop_reason",
        stop_details: Details<'a> = b"stop_details",
    }
}

object! {
    /// Why the model has refused.
    struct Details<'a> {
        explanation: Text<'a> = b"explanation",
    }
}

object! {
    struct Tokens<'a> {
        input: Count = b"input_tokens",
        written: Count = b"cache_creation_input_tokens",
        read: Count = b"cache_read_input_tokens",
        output: Count = b"output_tokens",
    }
}

type Blocks<'a> = Content<'a, Block<'a>>;

/// What is remembered of the values before.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Tokens of the prompt: not from the cache, written to it, read from it. `message_start` tells them, and today
    /// `message_delta` as well, not always all of them.
    input: [u64; 3],
    output: u64,
    /// Some text was told.
    text: bool,
}

impl State {
    pub(super) fn read(
        &mut self,
        event: &[u8],
        json: &[u8],
        tell: &mut dyn FnMut(Delta<'_>),
    ) -> serde_json::Result<()> {
        let message: Message<'_> = serde_json::from_slice(json)?;
        let text = Cell::new(self.text);
        let tell = &mut |said: Delta<'_>| {
            text.set(text.get() || matches!(said, Delta::Text([_, ..])));
            tell(said);
        };
        // The type stands in the JSON and in the event's name; some gateways leave one of them out.
        let kind = message.kind.as_ref().map_or(event, |kind| &kind.0);
        let begun = message.message.and_then(|begun| begun.0).unwrap_or_default();
        for content in [&begun.content, &message.content].into_iter().flatten() {
            match content {
                Content::Text(text) => tell(Delta::Text(&text.0)),
                Content::Parts(blocks) => blocks.iter().for_each(|block| block.read(tell)),
            }
        }
        let parts = [&message.content_block, &message.delta];
        parts.into_iter().flatten().for_each(|block| block.read(tell));
        let delta = message.delta.unwrap_or_default();
        let reasons = [begun.stop_reason, message.stop_reason, delta.stop_reason];
        let reason = reasons.into_iter().find_map(reason);
        for tokens in [begun.usage, message.usage].into_iter().flatten().filter_map(|tokens| tokens.0) {
            self.count(&tokens, tell);
        }
        if let Some(reason) = reason {
            // Where no text came, these are the words that there are.
            let explanation = delta.stop_details.and_then(|details| details.explanation);
            if let Some(explanation) = explanation.filter(|_| reason == "refusal" && !text.get()) {
                tell(Delta::Text(&explanation.0));
            }
            tell(Delta::Other(Event::Finish(reason)));
        }
        self.text = text.get();
        match kind {
            b"error" => tell(Delta::Other(Event::Error(json))),
            _ if says_something(message.error) => tell(Delta::Other(Event::Error(json))),
            b"message_stop" => tell(Delta::Other(Event::End)),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, tokens: &Tokens<'_>, tell: &mut dyn FnMut(Delta<'_>)) {
        let [input @ .., output] = [tokens.input, tokens.written, tokens.read, tokens.output].map(count);
        let known = self.input.iter_mut().chain([&mut self.output]);
        let mut told = false;
        for (known, count) in known.zip(input.into_iter().chain([output])) {
            told |= count.is_some();
            // A zero behind a count is from a gateway that writes each member, and doesn't know.
            *known = count.filter(|count| *count > 0).unwrap_or(*known);
        }
        if told {
            // What is read from a cache, or written to it, is not in `input_tokens`.
            let usage = Usage { input_tokens: self.input.iter().sum(), output_tokens: self.output };
            tell(Delta::Other(Event::Usage(usage)));
        }
    }
}

impl Block<'_> {
    /// Text counts in blocks and deltas of text alone: others may have a member of that name that is no part of the answer.
    fn read(&self, tell: &mut dyn FnMut(Delta<'_>)) {
        if let (Some(text), None | Some(b"text" | b"text_delta")) =
            (&self.text, self.kind.as_ref().map(|kind| &*kind.0))
        {
            tell(Delta::Text(&text.0));
        }
        if let Some(thinking) = &self.thinking {
            tell(Delta::Thought(&thinking.0));
        }
    }
}
