//! Thoughts that a model writes into its text, between tags: what local servers pass on that have no reader for them, and
//! what the embedded model writes.
//!
//! Only the beginning of an answer is looked at. Tags within an answer are text, and so is an opening tag that nothing closes
//! before the model's own end, up to 64 KiB of it. A closing tag without an opening one can't be told in time: what stands
//! before it has been passed on.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};

use super::{ModelError, Token};
use crate::stream::Finish;

/// Opening and closing tags of the models; docs/PROVIDERS.md has who writes which.
const TAGS: [(&str, &str); 9] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
];

/// The most of unclosed thoughts that is kept, bytes. Beyond it they are thoughts, whatever comes.
const MAX_KEPT: usize = 64 * 1024;

/// The most of blanks before a tag that is kept, bytes.
const MAX_BLANK: usize = 1024;

/// The text of an answer without its thoughts.
///
/// | | blank | an opening tag, or its beginning | a closing tag | other text | the end |
/// |---|---|---|---|---|---|
/// | `Before` | kept | kept; a whole one: `Within` | other text | `Behind`, with what was kept | what was kept |
/// | `Within` | kept | kept | `After`; dropped with what was kept | kept | what was kept, if the end is good |
/// | `After` | dropped | text | text | `Behind` | nothing |
/// | `Behind` | text | text | text | text | nothing |
#[derive(Debug, Default)]
pub(crate) struct Thoughts {
    state: State,
}

#[derive(Debug)]
enum State {
    Before {
        kept: String,
    },
    Within {
        close: &'static str,
        kept: String,
        /// Up to here no closing tag begins.
        searched: usize,
        /// Nothing of it was dropped.
        whole: bool,
    },
    After,
    Behind,
}

impl Default for State {
    fn default() -> Self {
        Self::Before { kept: String::new() }
    }
}

impl Thoughts {
    /// The part of `text` that is the answer's; may be empty.
    pub(crate) fn apart(&mut self, text: String) -> String {
        match &mut self.state {
            State::Behind => text,
            State::After => {
                let rest = text.trim_start();
                if rest.is_empty() {
                    return String::new();
                }
                let rest = rest.to_owned();
                self.state = State::Behind;
                rest
            }
            State::Before { kept } => {
                kept.push_str(&text);
                let begun = kept.trim_start();
                if let Some((open, close)) = TAGS.iter().find(|(open, _)| begun.starts_with(open)) {
                    let searched = kept.len() - begun.len() + open.len();
                    let kept = mem::take(kept);
                    self.state = State::Within { close, kept, searched, whole: true };
                    return self.apart(String::new());
                }
                if kept.len() < MAX_BLANK && TAGS.iter().any(|(open, _)| open.starts_with(begun)) {
                    return String::new();
                }
                let kept = mem::take(kept);
                self.state = State::Behind;
                kept
            }
            State::Within { close, kept, searched, whole } => {
                kept.push_str(&text);
                if let Some(at) = kept[*searched..].find(*close) {
                    let rest = kept.split_off(*searched + at + close.len());
                    self.state = State::After;
                    return self.apart(rest);
                }
                // The closing tag may have begun.
                *searched = (*searched).max(kept.floor_char_boundary(kept.len().saturating_sub(close.len())));
                if kept.len() > MAX_KEPT {
                    *kept = kept.split_off(*searched);
                    (*searched, *whole) = (0, false);
                }
                String::new()
            }
        }
    }

    /// What is left to be told at an answer's end: what was kept, unless it is thoughts that a limit or a filter cut short.
    pub(crate) fn end(&mut self, good: bool) -> String {
        match mem::replace(&mut self.state, State::Behind) {
            State::Before { kept } => kept,
            State::Within { kept, whole: true, .. } if good => kept,
            State::Within { .. } | State::After | State::Behind => String::new(),
        }
    }
}

/// Tokens without the thoughts in their text; a text of thoughts alone becomes an empty one.
pub(crate) struct WithoutThoughts<S> {
    tokens: S,
    thoughts: Thoughts,
    /// Follows text that was withheld until the end.
    end: Option<Token>,
}

impl<S> WithoutThoughts<S> {
    pub(crate) fn new(tokens: S) -> Self {
        Self { tokens, thoughts: Thoughts::default(), end: None }
    }
}

impl<S: Stream<Item = Result<Token, ModelError>> + Unpin> Stream for WithoutThoughts<S> {
    type Item = Result<Token, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Some(Ok(end)));
        }
        let item = match ready!(self.tokens.poll_next_unpin(cx)) {
            Some(Ok(Token::Text(text))) => Token::Text(self.thoughts.apart(text)),
            Some(Ok(Token::End { finish, usage })) => {
                let end = Token::End { finish, usage };
                match self.thoughts.end(finish == Finish::Stop) {
                    withheld if withheld.is_empty() => end,
                    withheld => {
                        self.end = Some(end);
                        Token::Text(withheld)
                    }
                }
            }
            item => return Poll::Ready(item),
        };
        Poll::Ready(Some(Ok(item)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer<'a>(texts: impl IntoIterator<Item = &'a str>, good: bool) -> String {
        let mut thoughts = Thoughts::default();
        let told: String = texts.into_iter().map(|text| thoughts.apart(text.to_owned())).collect();
        told + &thoughts.end(good)
    }

    #[test]
    fn thoughts_at_the_beginning_are_no_text() {
        for (open, close) in TAGS {
            let said = format!("{open}\nhm <b>\n{close}\n\nHello {open}you{close}");
            let expected = format!("Hello {open}you{close}");
            for cut in (0..said.len()).filter(|at| said.is_char_boundary(*at)) {
                assert_eq!(answer([&said[..cut], &said[cut..]], true), expected, "{cut}");
            }
            let characters: Vec<String> = said.chars().map(String::from).collect();
            assert_eq!(answer(characters.iter().map(String::as_str), true), expected);
        }
        assert_eq!(answer(["<think>", "hm", "</think>", "Hello"], true), "Hello");
        assert_eq!(answer(["<think></think>"], true), "");
    }

    #[test]
    fn a_tag_that_nothing_closes_is_text_unless_a_limit_has_cut_it() {
        assert_eq!(answer(["<think> is ", "a tag"], true), "<think> is a tag");
        assert_eq!(answer(["<think>", "hm"], false), "");
        assert_eq!(answer(["<thi"], false), "<thi");
        let blank = "\n".repeat(MAX_BLANK);
        assert_eq!(answer([&*blank, "a"], true), blank + "a");
        let long = "x".repeat(MAX_KEPT);
        assert_eq!(answer(["<think>", &long, "</thi", "nk>", "Hello"], true), "Hello");
        assert_eq!(answer(["<think>", &long, &long], true), "");
    }

    proptest! {
        #[test]
        fn other_texts_stay_as_they_are(texts in prop::collection::vec("[ <a-z\n🦉]{0,5}", 0..6)) {
            let said = texts.concat();
            prop_assume!(!TAGS.iter().any(|(open, _)| said.trim_start().starts_with(open)));
            prop_assert_eq!(answer(texts.iter().map(String::as_str), true), said);
        }
    }
}
