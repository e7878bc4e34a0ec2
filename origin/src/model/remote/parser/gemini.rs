//! Gemini's `streamGenerateContent`. Source: <https://ai.google.dev/api/generate-content>.
//!
//! Its names are in camel case. Proxies that make the JSON themselves send snake case.

use super::{
    Delta, Event,
    object::{Maybe, object},
    text::Text,
    value::{Choice, Choices, Count, Raw, count, reason, says_something, word},
};
use crate::stream::Usage;

object! {
    /// `GenerateContentResponse`.
    struct Response<'a> {
        candidates: Choices<Candidate<'a>> = b"candidates",
        feedback: Maybe<Feedback<'a>> = b"promptFeedback" | b"prompt_feedback",
        usage: Maybe<Tokens<'a>> = b"usageMetadata" | b"usage_metadata",
        error: Raw<'a> = b"error",
    }
}

object! {
    struct Candidate<'a> {
        index: Count = b"index",
        content: Content<'a> = b"content",
        finish_reason: Raw<'a> = b"finishReason" | b"finish_reason",
    }
}

object! {
    struct Content<'a> {
        parts: Vec<Part<'a>> = b"parts",
    }
}

object! {
    struct Part<'a> {
        text: Text<'a> = b"text",
        thought: Raw<'a> = b"thought",
    }
}

object! {
    struct Feedback<'a> {
        block_reason: Raw<'a> = b"blockReason" | b"block_reason",
    }
}

object! {
    struct Tokens<'a> {
        prompt: Count = b"promptTokenCount" | b"prompt_token_count",
        tool_use: Count = b"toolUsePromptTokenCount" | b"tool_use_prompt_token_count",
        candidates: Count = b"candidatesTokenCount" | b"candidates_token_count",
        thoughts: Count = b"thoughtsTokenCount" | b"thoughts_token_count",
        total: Count = b"totalTokenCount" | b"total_token_count",
    }
}

/// The value of an enumeration that is not set.
const UNSPECIFIED: &str = "_UNSPECIFIED";

impl Choice for Candidate<'_> {
    fn index(&self) -> Option<u64> {
        count(self.index)
    }
}

pub(super) fn read(json: &[u8], tell: &mut dyn FnMut(Delta<'_>)) -> serde_json::Result<()> {
    let response: Response<'_> = serde_json::from_slice(json)?;
    let none = Choices::default();
    let candidates = response.candidates.as_ref().unwrap_or(&none);
    tell(Delta::Choices { first: candidates.has_first(), others: candidates.others });
    for candidate in candidates.iter() {
        let parts = candidate.content.as_ref().and_then(|content| content.parts.as_ref());
        for part in parts.into_iter().flatten() {
            match &part.text {
                Some(text) if says_something(part.thought) => tell(Delta::Thought(&text.0)),
                Some(text) => tell(Delta::Text(&text.0)),
                None => {}
            }
        }
        if let Some(reason) = reason(candidate.finish_reason).filter(|reason| !reason.ends_with(UNSPECIFIED)) {
            tell(Delta::Other(Event::Finish(reason)));
        }
    }
    if let Some(usage) = response.usage.and_then(|usage| usage.0).and_then(|tokens| tokens.usage()) {
        tell(Delta::Other(Event::Usage(usage)));
    }
    let blocked = response.feedback.and_then(|feedback| word(feedback.0?.block_reason));
    if blocked.is_some_and(|reason| !reason.ends_with(UNSPECIFIED)) || says_something(response.error) {
        tell(Delta::Other(Event::Error(json)));
    }
    Ok(())
}

impl Tokens<'_> {
    fn usage(&self) -> Option<Usage> {
        let prompt = count(self.prompt);
        let outputs = [count(self.candidates), count(self.thoughts)];
        if prompt.is_none() && outputs.iter().all(Option::is_none) {
            return None;
        }
        let input_tokens = prompt.unwrap_or(0);
        // Thoughts are paid for as the answer is. Whether they are among its tokens depends on the model, but the total is
        // right in either case.
        let rest =
            count(self.total).and_then(|total| total.checked_sub(input_tokens + count(self.tool_use).unwrap_or(0)));
        let output_tokens = rest.unwrap_or_else(|| outputs.into_iter().flatten().sum());
        Some(Usage { input_tokens, output_tokens })
    }
}
