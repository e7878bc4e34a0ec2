//! JSON members that aren't always what they should be. What carries text is read strictly, since text may be lost with it.
//! These members are kept raw, and read as far as they go.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// A member as it stands there; `None` for `null`.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// A word, if the member is a string that isn't empty.
pub(super) fn word(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    /// A string without escapes is borrowed.
    #[derive(Deserialize)]
    struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

    let Word(word) = serde_json::from_str(raw?.get()).ok()?;
    (!word.is_empty()).then_some(word)
}

/// A number that isn't negative, if the member is one, or a string of one.
pub(super) fn count(raw: Raw<'_>) -> Option<u64> {
    let number: f64 = raw?.get().trim_matches('"').parse().ok()?;
    // Far below the first whole number that a float can't hold.
    (0.0..9e15).contains(&number).then_some(number as u64)
}

/// An object, if the member is one of this form.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// An object that may hold text, if the member is one.
///
/// # Errors
/// It is an object, and not of this form.
pub(super) fn object_with_text<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> serde_json::Result<Option<T>> {
    raw.filter(|raw| raw.get().starts_with('{')).map(|raw| serde_json::from_str(raw.get())).transpose()
}

/// Whether the member says something: some gateways write each member, with nothing in it where there is nothing to say.
pub(super) fn says_something(raw: Raw<'_>) -> bool {
    fn says(value: &Value) -> bool {
        match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(values) => values.iter().any(says),
            Value::Object(members) => members.values().any(says),
        }
    }
    // What can't be read says something at least.
    raw.is_some_and(|raw| serde_json::from_str(raw.get()).map_or(true, |value| says(&value)))
}

/// The elements of an array that belong to the first choice: those with index 0, and one without an index in the first
/// place.
#[derive(Debug)]
pub(super) struct Choices<T> {
    /// The first, nearly always the only one.
    first: Option<T>,
    more: Vec<T>,
    /// Whether there were other choices.
    pub(super) others: bool,
}

/// An element of [`Choices`].
pub(super) trait Choice {
    /// Which choice it is a part of, where it says so.
    fn index(&self) -> Option<u64>;
}

impl<T> Default for Choices<T> {
    fn default() -> Self {
        Self { first: None, more: Vec::new(), others: false }
    }
}

impl<T> Choices<T> {
    pub(super) fn has_first(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.has_first() && !self.others
    }
}

impl<T> IntoIterator for Choices<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

impl<'de, T: Deserialize<'de> + Choice> Deserialize<'de> for Choices<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + Choice> Visitor<'de> for Array<T> {
            type Value = Choices<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(Choices::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let (mut choices, mut place) = (Choices::default(), 0);
                while let Some(choice) = seq.next_element::<T>()? {
                    match (choice.index().unwrap_or(place), &choices.first) {
                        (0, None) => choices.first = Some(choice),
                        (0, Some(_)) => choices.more.push(choice),
                        _ => choices.others = true,
                    }
                    place += 1;
                }
                Ok(choices)
            }
        }

        deserializer.deserialize_any(Array(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn members_are_read_as_far_as_they_go() {
        for (json, expected) in [("\"stop\"", Some("stop")), ("\"\"", None), ("7", None), ("{\"a\":[\"b\"]}", None)] {
            assert_eq!(word(Some(&raw(json))).as_deref(), expected, "{json}");
        }
        for (json, expected) in
            [("7", Some(7)), ("7.0", Some(7)), ("\"7\"", Some(7)), ("-7", None), ("1e300", None), ("[7]", None)]
        {
            assert_eq!(count(Some(&raw(json))), expected, "{json}");
        }
        for json in ["\"\"", "{}", "false", "[]", "0", "{\"code\":\"\",\"message\":null}"] {
            assert!(!says_something(Some(&raw(json))), "{json}");
        }
        for json in ["\"no\"", "{\"code\":1}", "true", "400"] {
            assert!(says_something(Some(&raw(json))), "{json}");
        }
    }
}
