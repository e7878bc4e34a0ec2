//! Text that is cut anywhere: between two halves of a surrogate pair, or in the middle of a character.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// A JSON string as its bytes: UTF-8, but for what the string itself has of it. A lone half of a surrogate pair, which
/// JSON can escape, is the three bytes that UTF-8 would give it (WTF-8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, [u8]>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(bytes)))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(bytes.to_vec())))
            }
        }

        // As bytes: as a string, a lone half would make the whole line unreadable.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Joins the texts of an answer: what one text ends with may be completed by the next one.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
}

/// U+FFFD, for what is no character.
const REPLACEMENT: &str = "\u{fffd}";

impl Joiner {
    /// Tells `text` behind all texts before it. What may become a character with the next text waits for it.
    pub(super) fn push(&mut self, text: &[u8], mut tell: impl FnMut(&str)) {
        let joined;
        let mut rest = if self.pending.is_empty() {
            if let Ok(whole) = std::str::from_utf8(text) {
                if !whole.is_empty() {
                    tell(whole);
                }
                return;
            }
            text
        } else {
            joined = [&std::mem::take(&mut self.pending), text].concat();
            &joined[..]
        };
        let mut told = String::with_capacity(rest.len());
        loop {
            let error = match std::str::from_utf8(rest) {
                Ok(valid) => {
                    told.push_str(valid);
                    break;
                }
                Err(error) => error,
            };
            let (valid, broken) = rest.split_at(error.valid_up_to());
            told.push_str(&String::from_utf8_lossy(valid));
            match (surrogates(broken), error.error_len()) {
                (Surrogates::Pair(character), _) => {
                    told.push(character);
                    rest = &broken[6..];
                }
                (Surrogates::MayBecomeOne, _) | (Surrogates::None, None) => {
                    self.pending = broken.to_vec();
                    break;
                }
                (Surrogates::Half, _) => {
                    told.push_str(REPLACEMENT);
                    rest = &broken[3..];
                }
                (Surrogates::None, Some(length)) => {
                    told.push_str(REPLACEMENT);
                    rest = &broken[length..];
                }
            }
        }
        if !told.is_empty() {
            tell(&told);
        }
    }

    /// Tells what still waits: nothing completes it any more.
    pub(super) fn end(&mut self, mut tell: impl FnMut(&str)) {
        if !std::mem::take(&mut self.pending).is_empty() {
            tell(REPLACEMENT);
        }
    }
}

/// What bytes begin with, where that is no UTF-8.
enum Surrogates {
    /// Both halves of a pair, six bytes.
    Pair(char),
    /// The first half, and nothing or a beginning of the second.
    MayBecomeOne,
    /// One half alone, three bytes.
    Half,
    /// Something else.
    None,
}

/// WTF-8: a half of a surrogate pair, U+D800 to U+DFFF, is ED A0..BF 80..BF; the first halves end at ED AF BF.
fn surrogates(bytes: &[u8]) -> Surrogates {
    let half = |bytes: &[u8]| match *bytes {
        [0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ..] => {
            Some(0xd000 | (u16::from(second & 0x3f) << 6) | u16::from(third & 0x3f))
        }
        _ => None,
    };
    match (half(bytes), bytes.get(3..).unwrap_or_default()) {
        (Some(first @ 0xd800..=0xdbff), rest) => match half(rest) {
            Some(second @ 0xdc00..) => match char::decode_utf16([first, second]).next() {
                Some(Ok(character)) => Surrogates::Pair(character),
                _ => Surrogates::Half,
            },
            _ if matches!(rest, [] | [0xed] | [0xed, 0xb0..=0xbf]) => Surrogates::MayBecomeOne,
            _ => Surrogates::Half,
        },
        (Some(_), _) => Surrogates::Half,
        (None, _) if matches!(bytes, [0xed, 0xa0..=0xbf]) => Surrogates::MayBecomeOne,
        (None, _) => Surrogates::None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(texts: &[&[u8]]) -> String {
        let (mut joiner, mut told) = (Joiner::default(), String::new());
        for text in texts {
            joiner.push(text, |text| told += text);
        }
        joiner.end(|text| told += text);
        told
    }

    fn text(json: &str) -> Vec<u8> {
        serde_json::from_str::<Text>(json).unwrap().0.into_owned()
    }

    #[test]
    fn halves_of_a_surrogate_pair_become_one_character_and_a_lone_half_a_replacement() {
        let (first, second) = (text(r#""\ud83e""#), text(r#""\udd89""#));
        assert_eq!(joined(&[&first, &second]), "🦉");
        assert_eq!(joined(&[b"a", &first, b"", &second, b"b"]), "a🦉b");
        assert_eq!(joined(&[&text(r#""a\ud83e\udd89b""#)]), "a🦉b");
        assert_eq!(joined(&[&first, b"b"]), "\u{fffd}b");
        assert_eq!(joined(&[&second, b"b"]), "\u{fffd}b");
        assert_eq!(joined(&[&first, &first, &second]), "\u{fffd}🦉");
        assert_eq!(joined(&[b"a", &first]), "a\u{fffd}");
        assert_eq!(joined(&[&text(r#""\ud83e\\udd89""#)]), "\u{fffd}\\udd89");
    }

    #[test]
    fn what_is_no_utf8_is_replaced_and_the_rest_stays() {
        assert_eq!(joined(&[b"a\xff\xfeb"]), "a\u{fffd}\u{fffd}b");
        assert_eq!(joined(&[b"a\xf0\x9f", b"b"]), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn a_text_cut_at_any_bytes_is_the_same_text(text in ".*", cuts in prop::collection::vec(0_usize..100, 0..5)) {
            let mut parts = vec![text.as_bytes()];
            for cut in cuts {
                let last = parts.pop().unwrap();
                let (one, two) = last.split_at(cut.min(last.len()));
                parts.extend([one, two]);
            }
            prop_assert_eq!(joined(&parts), text);
        }

        #[test]
        fn any_bytes_are_told_and_nothing_is_left(bytes in prop::collection::vec(any::<u8>(), 0..40), cut in 0_usize..40) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let whole = joined(&[&bytes]);
            prop_assert_eq!(joined(&[one, two]), whole);
        }
    }
}
