//! OpenAI's chat completions, and what other servers make of them.
//! Source: <https://platform.openai.com/docs/api-reference/chat-streaming>; for the others see docs/PROVIDERS.md.

use super::{
    Delta, Event,
    content::Content,
    object::object,
    text::Text,
    value::{Choice as Indexed, Choices, Count, Raw, count, member, reason, says_something, word},
};
use crate::stream::Usage;

/// What is remembered of the values before.
#[derive(Debug, Default)]
pub(super) struct State {
    /// A part of the text came in a `delta`. A whole `message` behind it would say everything once more.
    delta_text: bool,
    messages: Messages,
    /// The model has refused, in its own words.
    refused: bool,
}

/// What the `message`s of a stream are.
#[derive(Debug)]
enum Messages {
    /// This is all that they have said so far, and the next one may repeat it.
    Growing(Vec<u8>),
    /// One of them went on where the one before it ended, as a `delta` does.
    Parts,
}

object! {
    /// `chat.completion.chunk`, and `chat.completion`. What is rarely there is kept raw: forms have to be small to be fast.
    struct Completion<'a> {
        choices: Choices<Choice<'a>> = b"choices",
        usage: Raw<'a> = b"usage",
        error: Raw<'a> = b"error",
        groq: Raw<'a> = b"x_groq",
        mini_max: Raw<'a> = b"base_resp",
        // Where there is no choice, these tell of an error.
        object: Raw<'a> = b"object",
        error_message: Raw<'a> = b"error_message" | b"error_msg",
        error_code: Raw<'a> = b"error_code",
        errors: Raw<'a> = b"errors",
        detail: Raw<'a> = b"detail" | b"fault",
        message: Raw<'a> = b"message",
        kind: Raw<'a> = b"type",
    }
}

object! {
    struct Choice<'a> {
        index: Count = b"index",
        delta: Message<'a> = b"delta",
        /// The whole answer, from servers that don't stream.
        message: Box<Message<'a>> = b"message",
        /// In the place of a message, from servers that mix the legacy completions in.
        text: Text<'a> = b"text",
        finish_reason: Raw<'a> = b"finish_reason",
        error: Raw<'a> = b"error",
        usage: Raw<'a> = b"usage",
    }
}

object! {
    struct Message<'a> {
        content: Content<'a, Part<'a>> = b"content",
        refusal: Text<'a> = b"refusal",
        audio: Raw<'a> = b"audio",
        /// Thoughts, as DeepSeek names them.
        reasoning_content: Raw<'a> = b"reasoning_content",
        /// Thoughts, as OpenRouter and newer servers name them.
        reasoning: Raw<'a> = b"reasoning",
        /// Thoughts, as gateways name them.
        thinking: Raw<'a> = b"reasoning_text" | b"thinking" | b"thought",
        /// Thoughts, where OpenRouter and MiniMax tell them apart.
        reasoning_details: Raw<'a> = b"reasoning_details",
    }
}

object! {
    struct Part<'a> {
        kind: Text<'a> = b"type",
        text: Text<'a> = b"text",
        refusal: Text<'a> = b"refusal",
        /// Mistral's models tell their thoughts in parts of this type, Databricks in summaries.
        thinking: Content<'a, Part<'a>> = b"thinking" | b"summary",
    }
}

object! {
    struct Audio<'a> {
        transcript: Text<'a> = b"transcript",
    }
}

object! {
    struct Detail<'a> {
        text: Text<'a> = b"text" | b"summary",
    }
}

object! {
    struct Tokens<'a> {
        prompt: Count = b"prompt_tokens",
        completion: Count = b"completion_tokens",
        /// The same in newer names. Some gateways write both, one of them with zeros.
        input: Count = b"input_tokens" | b"inputTokens",
        output: Count = b"output_tokens" | b"outputTokens",
        total: Count = b"total_tokens",
        details: Raw<'a> = b"completion_tokens_details",
    }
}

object! {
    struct TokenDetails<'a> {
        reasoning: Count = b"reasoning_tokens",
    }
}

object! {
    struct Groq<'a> {
        usage: Raw<'a> = b"usage",
        error: Raw<'a> = b"error",
    }
}

object! {
    struct MiniMax<'a> {
        status_code: Raw<'a> = b"status_code",
    }
}

impl Indexed for Choice<'_> {
    fn index(&self) -> Option<u64> {
        count(self.index)
    }
}

impl State {
    pub(super) fn read(&mut self, json: &[u8], tell: &mut dyn FnMut(Delta<'_>)) -> serde_json::Result<()> {
        let completion: Completion<'_> = serde_json::from_slice(json)?;
        let none = Choices::default();
        let choices = completion.choices.as_ref().unwrap_or(&none);
        let groq: Groq<'_> = member(completion.groq).unwrap_or_default();
        let mut tokens = usage(completion.usage).or_else(|| usage(groq.usage));
        let failed = [completion.error, groq.error].into_iter().any(says_something)
            || completion.tells_of_an_error(!choices.is_empty(), tokens.is_some());
        tell(Delta::Choices { first: choices.has_first(), others: choices.others });
        for choice in choices.iter() {
            tokens = tokens.or_else(|| usage(choice.usage));
            self.choice(choice, json, tell);
        }
        if let Some(tokens) = tokens {
            tell(Delta::Other(Event::Usage(tokens)));
        }
        if failed {
            tell(Delta::Other(Event::Error(json)));
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Choice<'_>, json: &[u8], tell: &mut dyn FnMut(Delta<'_>)) {
        let mut has_text = false;
        if let Some(message) = &choice.delta {
            has_text = self.message(message, tell);
            self.delta_text |= has_text;
        }
        if let Some(message) = choice.message.as_ref().filter(|_| !self.delta_text) {
            let mut text = Vec::new();
            has_text |= self.message(message, &mut |said| match said {
                Delta::Text(part) => text.extend_from_slice(part),
                said => tell(said),
            });
            self.messages.tell(text, tell);
        }
        if let Some(text) = choice.text.as_ref().filter(|_| !has_text) {
            tell(Delta::Text(&text.0));
        }
        if says_something(choice.error) {
            tell(Delta::Other(Event::Error(json)));
        }
        if let Some(reason) = reason(choice.finish_reason) {
            let reason = if self.refused && reason == "stop" { "refusal".into() } else { reason };
            tell(Delta::Other(Event::Finish(reason)));
        }
    }

    /// Tells what the message says, and whether that is more than thoughts.
    fn message(&mut self, message: &Message<'_>, tell: &mut dyn FnMut(Delta<'_>)) -> bool {
        let mut has_text = false;
        let mut told = |said: Delta<'_>| {
            has_text |= matches!(said, Delta::Text([_, ..]));
            tell(said);
        };
        message.thoughts(&mut told);
        if let Some(content) = &message.content {
            content.tell(false, &mut self.refused, &mut told);
        }
        if let Some(refusal) = &message.refusal {
            self.refused |= !refusal.0.is_empty();
            told(Delta::Text(&refusal.0));
        }
        let transcript = member(message.audio).and_then(|audio: Audio<'_>| audio.transcript);
        if let Some(transcript) = transcript.filter(|_| !has_text) {
            has_text = !transcript.0.is_empty();
            tell(Delta::Text(&transcript.0));
        }
        has_text
    }
}

impl Messages {
    /// Tells what is new in the text of a `message`: some servers tell all that they have said so far, each time.
    fn tell(&mut self, text: Vec<u8>, tell: &mut dyn FnMut(Delta<'_>)) {
        if text.is_empty() {
            return;
        }
        match self {
            Self::Growing(said) => match text.strip_prefix(&**said) {
                Some(new) => {
                    tell(Delta::Text(new));
                    *said = text;
                }
                None => {
                    tell(Delta::Text(&text));
                    *self = Self::Parts;
                }
            },
            Self::Parts => tell(Delta::Text(&text)),
        }
    }
}

impl Default for Messages {
    fn default() -> Self {
        Self::Growing(Vec::new())
    }
}

impl Completion<'_> {
    /// Whether the value tells of an error in another member than `error`.
    fn tells_of_an_error(&self, has_choice: bool, has_usage: bool) -> bool {
        // Other events have messages, too.
        let kind = word(self.kind);
        let is_error = || word(self.object).is_some_and(|object| object.eq_ignore_ascii_case("error"));
        says_something(member(self.mini_max).and_then(|base: MiniMax<'_>| base.status_code))
            || !has_choice
                && (is_error()
                    || [self.error_message, self.error_code, self.errors].into_iter().any(says_something)
                    || !has_usage && says_something(self.detail)
                    || !has_usage && says_something(self.message) && kind.is_none_or(|kind| kind.contains("error")))
    }
}

fn usage(tokens: Option<Raw<'_>>) -> Option<Usage> {
    let tokens: Tokens<'_> = member(tokens)?;
    let (prompt, completion) =
        (count(tokens.prompt).max(count(tokens.input)), count(tokens.completion).max(count(tokens.output)));
    if prompt.is_none() && completion.is_none() {
        return None;
    }
    let (input_tokens, mut output_tokens) = (prompt.unwrap_or(0), completion.unwrap_or(0));
    // xAI counts thoughts beside the answer, all others within it: only the total tells.
    let reasoning = member(tokens.details).and_then(|details: TokenDetails<'_>| count(details.reasoning)).unwrap_or(0);
    if count(tokens.total) == Some(input_tokens + output_tokens + reasoning) {
        output_tokens += reasoning;
    }
    Some(Usage { input_tokens, output_tokens })
}

impl Message<'_> {
    /// Tells the thoughts in the first member that has some: gateways repeat them in others.
    fn thoughts(&self, tell: &mut dyn FnMut(Delta<'_>)) {
        for raw in [self.reasoning_content, self.reasoning, self.thinking].into_iter().flatten() {
            if let Some(Text(thought)) = member(Some(raw))
                && !thought.is_empty()
            {
                return tell(Delta::Thought(&thought));
            }
        }
        let details: Option<Vec<Detail<'_>>> = member(self.reasoning_details);
        for text in details.into_iter().flatten().filter_map(|detail| detail.text) {
            tell(Delta::Thought(&text.0));
        }
    }
}

impl Content<'_, Part<'_>> {
    /// Tells the content, as text or as thoughts, and whether it is a refusal.
    fn tell(&self, thoughts: bool, refused: &mut bool, tell: &mut dyn FnMut(Delta<'_>)) {
        let said = |text, thought| if thought { Delta::Thought(text) } else { Delta::Text(text) };
        match self {
            Self::Text(text) => tell(said(&text.0, thoughts)),
            Self::Parts(parts) => {
                for part in parts {
                    let kind = part.kind.as_ref().map_or(&b""[..], |kind| &kind.0);
                    if let Some(text) = &part.text {
                        tell(said(&text.0, thoughts || matches!(kind, b"thinking" | b"reasoning")));
                    }
                    if let Some(refusal) = &part.refusal {
                        *refused |= !refusal.0.is_empty();
                        tell(said(&refusal.0, thoughts));
                    }
                    if let Some(thinking) = &part.thinking {
                        thinking.tell(true, refused, tell);
                    }
                }
            }
        }
    }
}
