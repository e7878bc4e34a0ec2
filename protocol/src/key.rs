//! An idempotency key: starts with the same key are one stream.

use std::{ops::RangeInclusive, str::FromStr, sync::Arc};

use crate::Problem;

/// The lengths of a key, bytes: too long to be guessed, short enough to be kept.
const KEY_BYTES: RangeInclusive<usize> = 16..=128;

/// 16 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdempotencyKey {
    /// The key of this caller, where the edge knows one: equal keys of two callers are two keys.
    #[must_use]
    pub fn of_caller(self, caller: Option<&str>) -> Self {
        // No key that a client sends has a blank.
        caller.map_or(self.clone(), |caller| Self([caller, " ", &self.0].concat().into()))
    }
}

impl FromStr for IdempotencyKey {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if KEY_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(Problem::bad_request("an idempotency key is 16 to 128 visible ASCII characters, such as a UUID"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_of_two_callers_are_two() {
        let key: IdempotencyKey = "0123456789abcdef".parse().expect("a key");
        let of = |caller| key.clone().of_caller(caller);
        assert_eq!(of(None), key);
        assert!(of(Some("a")) != of(Some("b")) && of(Some("a")) != key);
    }

    #[test]
    fn a_key_is_16_to_128_visible_ascii_characters() {
        for key in ["0123456789abcdef", &"x".repeat(128)] {
            assert_eq!(key.parse::<IdempotencyKey>().expect("a key").as_str(), key);
        }
        for text in ["", "0123456789abcde", "0123456789 abcdef", "0123456789abcd\u{e9}", &"x".repeat(129)] {
            assert!(text.parse::<IdempotencyKey>().is_err(), "{text:?}");
        }
    }
}
