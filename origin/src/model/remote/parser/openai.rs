//! OpenAI's chat completions, and what other servers make of them.
//! Source: <https://platform.openai.com/docs/api-reference/chat-streaming>; for the others see docs/PROVIDERS.md.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use super::{
    Event, Said,
    text::Text,
    value::{Choice as Indexed, Choices, Raw, count, object, says_something, word},
};
use crate::stream::Usage;

/// What is remembered of the values before.
#[derive(Debug, Default)]
pub(super) struct State {
    /// A part of the text came in a `delta`. A whole `message` behind it would say everything once more.
    delta_text: bool,
    /// The text that came in `message`s: the next one may repeat it.
    whole: Vec<u8>,
    /// The model has refused, in its own words.
    refused: bool,
}

/// `chat.completion.chunk`, and `chat.completion`.
#[derive(Deserialize)]
struct Completion<'a> {
    #[serde(borrow, default)]
    choices: Choices<Choice<'a>>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
    /// Groq's own.
    #[serde(borrow, default)]
    x_groq: Raw<'a>,
    /// MiniMax's own.
    #[serde(borrow, default)]
    base_resp: Raw<'a>,
    // Where there is no choice, these tell of an error.
    #[serde(borrow, default)]
    object: Raw<'a>,
    #[serde(borrow, default)]
    error_message: Raw<'a>,
    #[serde(borrow, default)]
    error_code: Raw<'a>,
    #[serde(borrow, default)]
    errors: Raw<'a>,
    #[serde(borrow, default)]
    detail: Raw<'a>,
    #[serde(borrow, default)]
    message: Raw<'a>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow, default)]
    index: Raw<'a>,
    #[serde(borrow, default)]
    delta: Option<Message<'a>>,
    /// The whole answer, from servers that don't stream.
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    /// In the place of a message, from servers that mix the legacy completions in.
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    finish_reason: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
    #[serde(borrow, default)]
    usage: Raw<'a>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    /// Thoughts, as DeepSeek names them.
    #[serde(borrow, default)]
    reasoning_content: Raw<'a>,
    /// Thoughts, as OpenRouter and newer servers name them.
    #[serde(borrow, default)]
    reasoning: Raw<'a>,
}

/// A message's content: a string, or an array of parts.
enum Content<'a> {
    Text(Text<'a>),
    Parts(Vec<Part<'a>>),
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    /// Mistral's models tell their thoughts in parts of this type.
    #[serde(borrow, default)]
    thinking: Option<Content<'a>>,
}

#[derive(Deserialize)]
struct Tokens<'a> {
    #[serde(alias = "input_tokens", borrow, default)]
    prompt_tokens: Raw<'a>,
    #[serde(alias = "output_tokens", borrow, default)]
    completion_tokens: Raw<'a>,
}

#[derive(Deserialize)]
struct XGroq<'a> {
    #[serde(borrow, default)]
    usage: Raw<'a>,
    #[serde(borrow, default)]
    error: Raw<'a>,
}

#[derive(Deserialize)]
struct BaseResp<'a> {
    #[serde(borrow, default)]
    status_code: Raw<'a>,
}

impl Indexed for Choice<'_> {
    fn index(&self) -> Option<u64> {
        count(self.index)
    }
}

impl State {
    pub(super) fn read(&mut self, json: &[u8], tell: &mut dyn FnMut(Said<'_>)) -> serde_json::Result<()> {
        let completion: Completion<'_> = serde_json::from_slice(json)?;
        let groq: Option<XGroq<'_>> = object(completion.x_groq);
        let base: Option<BaseResp<'_>> = object(completion.base_resp);
        let errors =
            [completion.error, groq.as_ref().and_then(|groq| groq.error), base.and_then(|base| base.status_code)];
        let failed = errors.into_iter().any(says_something)
            || completion.choices.is_empty() && completion.usage.is_none() && completion.tells_of_an_error();
        tell(Said::Choices { first: completion.choices.has_first(), others: completion.choices.others });
        let mut tokens = usage(completion.usage).or_else(|| usage(groq?.usage));
        for choice in completion.choices {
            tokens = tokens.or_else(|| usage(choice.usage));
            self.choice(choice, json, tell);
        }
        if let Some(tokens) = tokens {
            tell(Said::Other(Event::Usage(tokens)));
        }
        if failed {
            tell(Said::Other(Event::Error(json)));
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice<'_>, json: &[u8], tell: &mut dyn FnMut(Said<'_>)) {
        if let Some(message) = &choice.delta {
            self.delta_text |= message.has_text();
            self.message(message, tell);
        }
        if let Some(message) = choice.message.as_ref().filter(|_| !self.delta_text) {
            let mut text = Vec::new();
            self.message(message, &mut |said| match said {
                Said::Text(part) => text.extend_from_slice(part),
                said => tell(said),
            });
            // Some servers tell all that they have said so far, each time.
            tell(Said::Text(text.strip_prefix(&*self.whole).unwrap_or(&text)));
            self.whole = text;
        }
        if let Some(text) = choice.text.as_ref().filter(|_| choice.delta.is_none() && choice.message.is_none()) {
            tell(Said::Text(&text.0));
        }
        if says_something(choice.error) {
            tell(Said::Other(Event::Error(json)));
        }
        if let Some(reason) = word(choice.finish_reason) {
            let reason = if self.refused { "refusal".into() } else { reason };
            tell(Said::Other(Event::Finish(reason)));
        }
    }

    fn message(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Said<'_>)) {
        let thought = word(message.reasoning_content).or_else(|| word(message.reasoning));
        if let Some(thought) = thought {
            tell(Said::Other(Event::Thought(thought)));
        }
        if let Some(content) = &message.content {
            content.read(false, tell);
        }
        if let Some(refusal) = message.refusal.as_ref().filter(|refusal| !refusal.0.is_empty()) {
            self.refused = true;
            tell(Said::Text(&refusal.0));
        }
    }
}

impl Completion<'_> {
    /// Whether a value without choices tells of an error.
    fn tells_of_an_error(&self) -> bool {
        word(self.object).as_deref() == Some("error")
            || [self.error_message, self.error_code, self.errors, self.detail, self.message]
                .into_iter()
                .any(says_something)
    }
}

fn usage(raw: Raw<'_>) -> Option<Usage> {
    let tokens: Tokens<'_> = object(raw)?;
    let (input, output) = (count(tokens.prompt_tokens), count(tokens.completion_tokens));
    let told = input.is_some() || output.is_some();
    told.then(|| Usage { input_tokens: input.unwrap_or(0), output_tokens: output.unwrap_or(0) })
}

impl Message<'_> {
    fn has_text(&self) -> bool {
        match &self.content {
            Some(Content::Text(text)) => !text.0.is_empty(),
            Some(Content::Parts(_)) => true,
            None => false,
        }
    }
}

impl Content<'_> {
    fn read(&self, thoughts: bool, tell: &mut dyn FnMut(Said<'_>)) {
        let mut text = |text: &Text<'_>| match thoughts {
            true => tell(Said::Other(Event::Thought(text.lossy()))),
            false => tell(Said::Text(&text.0)),
        };
        match self {
            Self::Text(whole) => text(whole),
            Self::Parts(parts) => {
                for part in parts {
                    part.text.iter().for_each(&mut text);
                }
            }
        }
        if let Self::Parts(parts) = self {
            parts.iter().filter_map(|part| part.thinking.as_ref()).for_each(|thinking| thinking.read(true, tell));
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrParts;

        impl<'de> Visitor<'de> for TextOrParts {
            type Value = Content<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of parts")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Borrowed(bytes))))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Content::Text(Text(Cow::Owned(bytes.to_vec()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = seq.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }

        // As bytes, as [`Text`] is; serde_json offers an array as well then.
        deserializer.deserialize_bytes(TextOrParts)
    }
}
