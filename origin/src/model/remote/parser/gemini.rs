//! Gemini's `streamGenerateContent`. Source: <https://ai.google.dev/api/generate-content>.
//!
//! Its names are in camel case. Proxies that make the JSON themselves send snake case.

use serde::Deserialize;

use super::{
    Event, Said,
    text::Text,
    value::{Choice, Choices, Raw, count, object, says_something, word},
};
use crate::stream::Usage;

/// `GenerateContentResponse`.
#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    candidates: Choices<Candidate<'a>>,
    #[serde(alias = "promptFeedback", borrow, default)]
    prompt_feedback: Raw<'a>,
    #[serde(alias = "usageMetadata", borrow, default)]
    usage_metadata: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
}

#[derive(Deserialize)]
struct Candidate<'a> {
    #[serde(borrow, default)]
    index: Raw<'a>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(alias = "finishReason", borrow, default)]
    finish_reason: Raw<'a>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    thought: Raw<'a>,
}

#[derive(Deserialize)]
struct Feedback<'a> {
    #[serde(alias = "blockReason", borrow, default)]
    block_reason: Raw<'a>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(alias = "promptTokenCount", borrow, default)]
    prompt_token_count: Raw<'a>,
    #[serde(alias = "candidatesTokenCount", borrow, default)]
    candidates_token_count: Raw<'a>,
    #[serde(alias = "thoughtsTokenCount", borrow, default)]
    thoughts_token_count: Raw<'a>,
}

/// The value of an enumeration that is not set.
const UNSPECIFIED: &str = "_UNSPECIFIED";

impl Choice for Candidate<'_> {
    fn index(&self) -> Option<u64> {
        count(self.index)
    }
}

pub(super) fn read(json: &[u8], tell: &mut dyn FnMut(Said<'_>)) -> serde_json::Result<()> {
    let response: Response<'_> = serde_json::from_slice(json)?;
    tell(Said::Choices { first: response.candidates.has_first(), others: response.candidates.others });
    for candidate in response.candidates {
        let parts = candidate.content.and_then(|content| content.parts);
        for part in parts.into_iter().flatten() {
            match part.text {
                Some(text) if says_something(part.thought) => tell(Said::Other(Event::Thought(text.lossy()))),
                Some(text) => tell(Said::Text(&text.0)),
                None => {}
            }
        }
        if let Some(reason) = word(candidate.finish_reason).filter(|reason| !reason.ends_with(UNSPECIFIED)) {
            tell(Said::Other(Event::Finish(reason)));
        }
    }
    if let Some(tokens) = object::<Tokens<'_>>(response.usage_metadata) {
        let input = count(tokens.prompt_token_count);
        // Thoughts are paid for as the answer is, and aren't among its tokens.
        let outputs = [tokens.candidates_token_count, tokens.thoughts_token_count].map(count);
        if input.is_some() || outputs.iter().any(Option::is_some) {
            let usage = Usage { input_tokens: input.unwrap_or(0), output_tokens: outputs.into_iter().flatten().sum() };
            tell(Said::Other(Event::Usage(usage)));
        }
    }
    let blocked = object::<Feedback<'_>>(response.prompt_feedback)
        .and_then(|feedback| word(feedback.block_reason))
        .is_some_and(|reason| !reason.ends_with(UNSPECIFIED));
    if blocked || says_something(response.error) {
        tell(Said::Other(Event::Error(json)));
    }
    Ok(())
}
