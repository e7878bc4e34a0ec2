//! Stop texts: an answer ends before the first of them.

use std::mem;

/// Looks for stop texts in a text that comes in pieces.
///
/// The first that is whole ends the text, before itself; of several that are whole at the same byte, the longest. What may be the
/// beginning of one is held back.
#[derive(Default)]
pub(super) struct Stops {
    texts: Vec<Pattern>,
    /// The end of the text so far that a stop text begins with.
    held: String,
}

/// One stop text, as Knuth, Morris and Pratt look for it: whatever the texts, a byte is not looked at again and again.
struct Pattern {
    text: Box<[u8]>,
    /// For each beginning of the text, by its last byte: how long its longest shorter beginning is with which it also ends.
    borders: Box<[usize]>,
    /// The longest beginning of the text with which what came so far ends.
    matched: usize,
}

impl Stops {
    pub(super) fn new(texts: &[String]) -> Self {
        let texts = texts.iter().filter(|text| !text.is_empty()).map(|text| Pattern::new(text)).collect();
        Self { texts, held: String::new() }
    }

    /// What passes of the next piece, and whether a stop text has ended it. Nothing is looked for behind that.
    pub(super) fn push(&mut self, piece: String) -> (String, bool) {
        if self.texts.is_empty() {
            return (piece, false);
        }
        let before = self.held.len();
        self.held.push_str(&piece);
        for (at, byte) in piece.bytes().enumerate() {
            let whole = self.texts.iter_mut().filter_map(|text| text.push(byte).then_some(text.text.len())).max();
            if let Some(length) = whole {
                let mut passed = mem::take(&mut self.held);
                passed.truncate(before + at + 1 - length);
                self.texts.clear();
                return (passed, true);
            }
        }
        let held = self.texts.iter().map(|text| text.matched).max().unwrap_or(0);
        let held = self.held.split_off(self.held.len() - held);
        (mem::replace(&mut self.held, held), false)
    }

    /// What is held back at the text's end: it was no stop text.
    pub(super) fn end(&mut self) -> String {
        mem::take(&mut self.held)
    }
}

impl Pattern {
    /// `text` is not empty.
    fn new(text: &str) -> Self {
        let mut pattern = Self { text: text.as_bytes().into(), borders: vec![0; text.len()].into(), matched: 0 };
        for at in 1..text.len() {
            pattern.push(text.as_bytes()[at]);
            pattern.borders[at] = pattern.matched;
        }
        pattern.matched = 0;
        pattern
    }

    /// Takes the next byte; returns whether the text is whole.
    fn push(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.text[self.matched] != byte {
            self.matched = self.borders[self.matched - 1];
        }
        if self.text[self.matched] == byte {
            self.matched += 1;
        }
        self.matched == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same, on the whole text: at each byte, is there a stop text behind it?
    fn naive(text: &str, stops: &[String]) -> (String, bool) {
        for end in 0..=text.len() {
            let stops = stops.iter().filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(length) = stops.map(String::len).max() {
                return (text[..end - length].to_owned(), true);
            }
        }
        (text.to_owned(), false)
    }

    fn passed(pieces: &[String], stops: &[String]) -> (String, bool) {
        let (mut passed, mut stopping) = (String::new(), Stops::new(stops));
        for piece in pieces {
            let (text, stopped) = stopping.push(piece.clone());
            passed += &text;
            if stopped {
                return (passed, true);
            }
        }
        (passed + &stopping.end(), false)
    }

    proptest! {
        #[test]
        fn a_text_ends_before_the_first_stop_text_however_it_is_cut(
            pieces in prop::collection::vec("[ab\u{e9}\u{1f9a6}]{0,5}", 0..12),
            stops in prop::collection::vec("[ab\u{e9}\u{1f9a6}]{1,5}", 0..4),
        ) {
            prop_assert_eq!(passed(&pieces, &stops), naive(&pieces.concat(), &stops));
        }

        #[test]
        fn only_the_beginning_of_a_stop_text_is_held_back(
            pieces in prop::collection::vec("[ab\u{e9}]{0,4}", 1..8),
            stops in prop::collection::vec("[ab\u{e9}]{2,6}", 1..4),
        ) {
            let mut stopping = Stops::new(&stops);
            let (mut passed, mut came) = (String::new(), String::new());
            for piece in pieces {
                came += &piece;
                let (text, stopped) = stopping.push(piece);
                if stopped {
                    break;
                }
                passed += &text;
                let held = came.strip_prefix(&passed).unwrap();
                prop_assert!(stops.iter().any(|stop| stop.len() > held.len() && stop.starts_with(held)), "{held}");
            }
        }
    }

    #[test]
    fn a_text_without_stop_texts_passes_as_it_comes() {
        assert_eq!(Stops::new(&[]).push("a".into()), ("a".into(), false));
        assert_eq!(Stops::new(&[String::new()]).push("a".into()), ("a".into(), false));
    }
}
