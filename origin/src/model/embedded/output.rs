//! What an answer tells: whole characters, thoughts apart from text, nothing from a stop text on.

use super::stop::Stops;
use crate::model::{
    Token,
    thoughts::{Apart, Thoughts},
};

/// Makes tokens to tell of the bytes that are sampled.
///
/// A stop text ends the answer's text. Among thoughts it does nothing: whoever asks for a text up to the first empty line means
/// no thoughts.
pub(super) struct Output {
    /// Sampled bytes that are not told.
    pub(super) bytes: Vec<u8>,
    thoughts: Thoughts,
    stops: Stops,
}

/// More of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    thoughts: String,
    text: String,
    /// A stop text has ended the answer.
    pub(super) stopped: bool,
}

impl Output {
    /// `reasoning`: thoughts are told. `stops`: the stop texts.
    pub(super) fn new(reasoning: bool, stops: &[String]) -> Self {
        Self { bytes: Vec::new(), thoughts: Thoughts::new(reasoning), stops: Stops::new(stops) }
    }

    /// What can be told, once there is a whole character; that may be no text.
    pub(super) fn more(&mut self) -> Option<Told> {
        let text = take_whole_chars(&mut self.bytes);
        if text.is_empty() {
            return None;
        }
        let Apart { thoughts, text } = self.thoughts.apart(text);
        let (text, stopped) = self.stops.push(text);
        if stopped {
            self.bytes.clear();
        }
        Some(Told { thoughts, text, stopped })
    }

    /// The rest, where no stop text has ended the answer. `good`: the model had no more to say.
    pub(super) fn end(&mut self, good: bool) -> Told {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        let (more, end) = (self.thoughts.apart(rest), self.thoughts.end(good));
        let (mut text, stopped) = self.stops.push(more.text + &end.text);
        if !stopped {
            text += &self.stops.end();
        }
        Told { thoughts: more.thoughts + &end.thoughts, text, stopped }
    }
}

impl Told {
    /// Thoughts and text; a text that is empty where there are no thoughts either, which is a sign of life.
    pub(super) fn tokens(self) -> impl Iterator<Item = Token> {
        let alone = self.thoughts.is_empty();
        let thoughts = (!alone).then_some(Token::Reasoning(self.thoughts));
        let text = (alone || !self.text.is_empty()).then_some(Token::Text(self.text));
        thoughts.into_iter().chain(text)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.thoughts.is_empty() && self.text.is_empty()
    }
}

/// Takes the whole characters from the front; bytes that are no part of one become U+FFFD.
fn take_whole_chars(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut taken = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        taken += chunk.valid().len();
        let invalid = chunk.invalid();
        // Invalid bytes at the very end may be the beginning of a character.
        let incomplete = taken + invalid.len() == bytes.len()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if incomplete || invalid.is_empty() {
            break;
        }
        text.push(char::REPLACEMENT_CHARACTER);
        taken += invalid.len();
    }
    bytes.drain(..taken);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that an answer of these bytes tells, one byte at a time: thoughts, text, and whether a stop text has ended it.
    fn told(bytes: &str, reasoning: bool, stops: &[&str], good: bool) -> (String, String, bool) {
        let stops: Vec<String> = stops.iter().map(ToString::to_string).collect();
        let mut output = Output::new(reasoning, &stops);
        let (mut thoughts, mut text) = (String::new(), String::new());
        for byte in bytes.bytes() {
            output.bytes.push(byte);
            let Some(more) = output.more() else { continue };
            thoughts += &more.thoughts;
            text += &more.text;
            if more.stopped {
                assert!(output.end(true).is_empty());
                return (thoughts, text, true);
            }
        }
        let end = output.end(good);
        (thoughts + &end.thoughts, text + &end.text, end.stopped)
    }

    #[test]
    fn a_stop_text_ends_the_text_and_not_the_thoughts() {
        let said = "<think>one. two.</think>\n\nThree. Four.";
        assert_eq!(told(said, true, &["."], true), ("one. two.".into(), "Three".into(), true));
        assert_eq!(told(said, false, &["."], true), (String::new(), "Three".into(), true));
        assert_eq!(told(said, false, &["Five"], true), (String::new(), "Three. Four.".into(), false));
    }

    #[test]
    fn what_is_held_back_is_told_at_the_end() {
        assert_eq!(told("one END", false, &["ENDE"], true), (String::new(), "one END".into(), false));
        assert_eq!(told("one END", false, &["ENDE"], false).1, "one END");
        // A tag that nothing closes is text, and may hold a stop text.
        assert_eq!(told("<think>a. b", false, &["."], true), (String::new(), "<think>a".into(), true));
        assert_eq!(told("<think>a. b", false, &["."], false), Default::default());
    }

    #[test]
    fn a_character_is_never_split() {
        let whole = "a\u{e9}\u{1f9a6}\u{2028}z";
        let (mut partial, mut text) = (Vec::new(), String::new());
        for byte in whole.bytes() {
            partial.push(byte);
            text.push_str(&take_whole_chars(&mut partial));
        }
        assert_eq!(text, whole);
        assert!(partial.is_empty());
    }

    #[test]
    fn what_can_be_no_character_is_replaced_at_once() {
        let mut bytes = b"a\xff\xc3(\xf0\x9f".to_vec();
        assert_eq!(take_whole_chars(&mut bytes), "a\u{fffd}\u{fffd}(");
        assert_eq!(bytes, b"\xf0\x9f");
    }
}
