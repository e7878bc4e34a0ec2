//! JSON members that aren't always what they should be. What carries text is read strictly, since text may be lost with it.
//! These members are kept raw, and read as far as they go.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use super::object::{Member, Place};

/// A member as it stands there.
pub(super) type Raw<'a> = &'a RawValue;

/// A word, if the member is a string that isn't empty.
pub(super) fn word(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    /// A string without escapes is borrowed.
    #[derive(Deserialize)]
    struct Word<'a>(#[serde(borrow)] Cow<'a, str>);

    let Word(word) = serde_json::from_str(raw?.get()).ok()?;
    (!word.is_empty()).then_some(word)
}

/// Why an answer ends: a word, but not the one that stands for none.
pub(super) fn reason(raw: Option<Raw<'_>>) -> Option<Cow<'_, str>> {
    word(raw).filter(|word| word != "null")
}

/// The member in this form, if it has it.
pub(super) fn member<'a, T: Deserialize<'a>>(raw: Option<Raw<'a>>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// A number that isn't negative, if the member is one, or a string of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count(pub(super) Option<u64>);

/// The number of a member that may not be there.
pub(super) fn count(count: Option<Count>) -> Option<u64> {
    count?.0
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl<'de> Visitor<'de> for Number {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
                Ok(Count((number < LIMIT).then_some(number)))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Count, E> {
                Ok(Count((0.0..LIMIT as f64).contains(&number).then_some(number as u64)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
                text.trim().parse().map_or(Ok(Count(None)), |number| self.visit_f64(number))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Count, E> {
                Ok(Count(None))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Count, E> {
                Ok(Count(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Count, A::Error> {
                IgnoredAny.visit_seq(seq).map(|_| Count(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Count, A::Error> {
                IgnoredAny.visit_map(map).map(|_| Count(None))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

/// Far above what is counted here, and below the first whole number that a float can't hold.
const LIMIT: u64 = 1 << 52;

/// Whether the member says something: some gateways write each member, with nothing in it where there is nothing to say.
pub(super) fn says_something(raw: Option<Raw<'_>>) -> bool {
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

    /// The parts of the first choice.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(&self.more)
    }
}

impl<'de, T: Member<'de> + Choice> Member<'de> for Choices<T> {
    fn read<D: Deserializer<'de>>(place: &mut Option<Self>, deserializer: D) -> Result<(), D::Error> {
        struct Array<'p, T>(&'p mut Choices<T>);

        impl<'de, T: Member<'de> + Choice> Visitor<'de> for Array<'_, T> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of choices")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
                let Choices { first, more, others } = self.0;
                let is_first = |choice: &T, place| choice.index().unwrap_or(place) == 0;
                for place in 0.. {
                    let mut another = None;
                    let in_front = first.is_none();
                    if seq.next_element_seed(Place(if in_front { first } else { &mut another }))?.is_none() {
                        break;
                    }
                    if in_front {
                        if first.as_ref().is_some_and(|choice| !is_first(choice, place)) {
                            (*first, *others) = (None, true);
                        }
                    } else if let Some(choice) = another {
                        if is_first(&choice, place) {
                            more.push(choice);
                        } else {
                            *others = true;
                        }
                    }
                }
                Ok(())
            }
        }

        deserializer.deserialize_seq(Array(place.insert(Self::default())))
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
        for (json, expected) in [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("\"7\"", Some(7)),
            ("-7", None),
            ("18446744073709551616", None),
            ("1e300", None),
            ("[7]", None),
            ("{}", None),
            ("true", None),
            ("\"x\"", None),
        ] {
            assert_eq!(serde_json::from_str::<Count>(json).unwrap().0, expected, "{json}");
        }
        for json in ["\"\"", "{}", "false", "[]", "0", "{\"code\":\"\",\"message\":null}"] {
            assert!(!says_something(Some(&raw(json))), "{json}");
        }
        for json in ["\"no\"", "{\"code\":1}", "true", "400"] {
            assert!(says_something(Some(&raw(json))), "{json}");
        }
    }
}
