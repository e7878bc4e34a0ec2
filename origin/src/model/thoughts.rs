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

/// An answer's thoughts and its text, told apart.
///
/// | | blank | an opening tag, or its beginning | a closing tag | other text | the end |
/// |---|---|---|---|---|---|
/// | `Before` | kept | kept; a whole one: `Within` | other text | `Behind`, with what was kept | what was kept |
/// | `Within` | kept | kept | `After`; what was kept is thoughts | kept | what was kept is text, if the end is good |
/// | `After` | dropped | text | text | `Behind` | nothing |
/// | `Behind` | text | text | text | text | nothing |
///
/// Where thoughts are wanted, those of `Within` are told as they come, and stay thoughts whatever the end.
#[derive(Debug)]
pub(crate) struct Thoughts {
    wanted: bool,
    state: State,
}

/// A piece of an answer: thoughts, and the text behind them. Each may be empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Apart {
    pub(crate) thoughts: String,
    pub(crate) text: String,
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
        /// Nothing of it was dropped or told.
        whole: bool,
    },
    After,
    Behind,
}

impl Apart {
    fn text(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl Thoughts {
    /// `wanted`: thoughts are told, and not dropped.
    pub(crate) fn new(wanted: bool) -> Self {
        Self { wanted, state: State::Before { kept: String::new() } }
    }

    /// The parts of the next piece.
    pub(crate) fn apart(&mut self, text: String) -> Apart {
        match &mut self.state {
            State::Behind => Apart::text(text),
            State::After => {
                let rest = text.trim_start();
                if rest.is_empty() {
                    return Apart::default();
                }
                let rest = rest.to_owned();
                self.state = State::Behind;
                Apart::text(rest)
            }
            State::Before { kept } => {
                kept.push_str(&text);
                let begun = kept.trim_start();
                if let Some((open, close)) = TAGS.iter().find(|(open, _)| begun.starts_with(open)) {
                    let opened = kept.len() - begun.len() + open.len();
                    let mut kept = mem::take(kept);
                    let searched = if self.wanted {
                        kept.drain(..opened);
                        0
                    } else {
                        opened
                    };
                    self.state = State::Within { close, kept, searched, whole: !self.wanted };
                    return self.apart(String::new());
                }
                if kept.len() < MAX_BLANK && TAGS.iter().any(|(open, _)| open.starts_with(begun)) {
                    return Apart::default();
                }
                let kept = mem::take(kept);
                self.state = State::Behind;
                Apart::text(kept)
            }
            State::Within { close, kept, searched, whole } => {
                kept.push_str(&text);
                if let Some(at) = kept[*searched..].find(*close) {
                    let rest = kept.split_off(*searched + at + close.len());
                    kept.truncate(kept.len() - close.len());
                    let thoughts = if self.wanted { mem::take(kept) } else { String::new() };
                    self.state = State::After;
                    return Apart { thoughts, ..self.apart(rest) };
                }
                // The closing tag may have begun.
                *searched = (*searched).max(kept.floor_char_boundary(kept.len().saturating_sub(close.len())));
                if !self.wanted && kept.len() <= MAX_KEPT {
                    return Apart::default();
                }
                let tail = kept.split_off(*searched);
                let thoughts = mem::replace(kept, tail);
                (*searched, *whole) = (0, false);
                Apart { thoughts: if self.wanted { thoughts } else { String::new() }, text: String::new() }
            }
        }
    }

    /// What is left to be told at an answer's end: what was kept, unless it is thoughts that a limit or a filter cut short.
    pub(crate) fn end(&mut self, good: bool) -> Apart {
        match mem::replace(&mut self.state, State::Behind) {
            State::Before { kept } => Apart::text(kept),
            State::Within { kept, .. } if self.wanted => Apart { thoughts: kept, text: String::new() },
            State::Within { kept, whole: true, .. } if good => Apart::text(kept),
            State::Within { .. } | State::After | State::Behind => Apart::default(),
        }
    }
}

/// Tokens whose text has no thoughts: these are tokens of their own, or dropped. A text of thoughts alone becomes an empty one.
pub(crate) struct ThoughtsApart<S> {
    tokens: S,
    thoughts: Thoughts,
    /// Follows the token that was told last.
    next: Option<Token>,
}

impl<S> ThoughtsApart<S> {
    pub(crate) fn new(tokens: S, wanted: bool) -> Self {
        Self { tokens, thoughts: Thoughts::new(wanted), next: None }
    }
}

impl<S: Stream<Item = Result<Token, ModelError>> + Unpin> Stream for ThoughtsApart<S> {
    type Item = Result<Token, ModelError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Ok(next)));
        }
        let item = match ready!(self.tokens.poll_next_unpin(cx)) {
            Some(Ok(Token::Text(text))) => match self.thoughts.apart(text) {
                Apart { thoughts, text } if thoughts.is_empty() => Token::Text(text),
                Apart { thoughts, text } => {
                    self.next = (!text.is_empty()).then_some(Token::Text(text));
                    Token::Reasoning(thoughts)
                }
            },
            Some(Ok(Token::End { finish, usage })) => {
                let end = Token::End { finish, usage };
                let withheld = match self.thoughts.end(finish == Finish::Stop) {
                    Apart { thoughts, text } if thoughts.is_empty() => Token::Text(text),
                    Apart { thoughts, .. } => Token::Reasoning(thoughts),
                };
                match withheld {
                    Token::Text(text) if text.is_empty() => end,
                    withheld => {
                        self.next = Some(end);
                        withheld
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
        let mut thoughts = Thoughts::new(false);
        let told: String = texts.into_iter().map(|text| thoughts.apart(text.to_owned()).text).collect();
        told + &thoughts.end(good).text
    }

    /// Thoughts and text of an answer whose thoughts are wanted.
    fn told<'a>(texts: impl IntoIterator<Item = &'a str>) -> (String, String) {
        let mut thoughts = Thoughts::new(true);
        let mut parts: Vec<Apart> = texts.into_iter().map(|text| thoughts.apart(text.to_owned())).collect();
        parts.push(thoughts.end(false));
        let thoughts = parts.iter().map(|part| part.thoughts.as_str()).collect();
        (thoughts, parts.iter().map(|part| part.text.as_str()).collect())
    }

    #[test]
    fn thoughts_that_are_wanted_are_told_whole_however_they_are_cut() {
        for (open, close) in TAGS {
            let said = format!("\n{open}\nhm </b>\n{close}\n\nHello {close}");
            let expected = ("\nhm </b>\n".to_owned(), format!("Hello {close}"));
            for cut in (0..said.len()).filter(|at| said.is_char_boundary(*at)) {
                assert_eq!(told([&said[..cut], &said[cut..]]), expected, "{cut}");
            }
            let characters: Vec<String> = said.chars().map(String::from).collect();
            assert_eq!(told(characters.iter().map(String::as_str)), expected);
        }
        assert_eq!(told(["<think>hm", " hm", "</thi"]), ("hm hm</thi".into(), String::new()));
        let mut thoughts = Thoughts::new(true);
        thoughts.apart("<think>".into());
        let long = "x".repeat(100);
        assert!(thoughts.apart(long).thoughts.len() > 80, "thoughts aren't kept until they are closed");
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
