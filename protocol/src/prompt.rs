//! A prompt's name, and the variables that fill its template.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, MapAccess, Visitor},
};

use crate::Problem;

/// The lengths of a prompt's name, characters.
const NAME_CHARS: RangeInclusive<usize> = 1..=64;

/// A prompt's name, `[A-Za-z0-9_-]{1,64}`: it stands in a path as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct PromptName(String);

/// A text that is no prompt's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prompt's name is 1 to 64 characters of A-Z, a-z, 0-9, _ and -")]
pub struct ParsePromptNameError;

impl PromptName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PromptName {
    type Err = ParsePromptNameError;

    fn from_str(text: &str) -> Result<Self, ParsePromptNameError> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for PromptName {
    type Error = ParsePromptNameError;

    fn try_from(text: String) -> Result<Self, ParsePromptNameError> {
        let known = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if known && NAME_CHARS.contains(&text.len()) { Ok(Self(text)) } else { Err(ParsePromptNameError) }
    }
}

/// The variables of a request, by name. Where a name stands twice the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Variables(pub BTreeMap<String, String>);

impl Variables {
    /// Reads a body. Half a surrogate pair, which JavaScript cuts out of a string with `slice`, becomes U+FFFD, as a
    /// query has it already.
    ///
    /// # Errors
    /// The body is no JSON object whose values are strings.
    pub fn from_json(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body).map_err(|_| {
            Problem::bad_request("the body is a JSON object whose values are strings, such as {\"topic\":\"cat\"}")
        })
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // A map of strings: JSON can hold it.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Variables;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Variables, A::Error> {
                let mut variables = BTreeMap::new();
                while let Some((Text(name), Text(value))) = members.next_entry()? {
                    variables.insert(name, value);
                }
                Ok(Variables(variables))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A JSON string in which half a surrogate pair is U+FFFD. (`String` refuses it.)
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Text, E> {
                well_formed(bytes).map(Text).ok_or_else(|| E::custom("not UTF-8"))
            }
        }

        // As bytes serde_json gives a string unchecked, and half a surrogate pair as WTF-8 encodes it.
        deserializer.deserialize_bytes(Bytes)
    }
}

/// WTF-8 as UTF-8: each surrogate becomes U+FFFD. `None` for bytes that are neither.
fn well_formed(mut bytes: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(bytes.len());
    loop {
        match std::str::from_utf8(bytes) {
            Ok(rest) => {
                text.push_str(rest);
                return Some(text);
            }
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                text.push_str(std::str::from_utf8(valid).ok()?);
                // A surrogate, U+D800 to U+DFFF, in three bytes.
                let [0xed, 0xa0..=0xbf, 0x80..=0xbf, rest @ ..] = rest else { return None };
                text.push(char::REPLACEMENT_CHARACTER);
                bytes = rest;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Option<String> {
        Variables::from_json(body).ok().map(|variables| variables.to_json())
    }

    #[test]
    fn a_name_stands_in_a_path_as_it_is() {
        for name in ["simple", "Haiku_2-b", &"a".repeat(64)] {
            assert_eq!(name.parse::<PromptName>().expect("a name").as_str(), name);
        }
        for name in ["", "haiku.de", "a/b", "caf\u{e9}", &"a".repeat(65)] {
            assert!(name.parse::<PromptName>().is_err(), "{name}");
        }
    }

    #[test]
    fn variables_are_an_object_of_strings() {
        assert_eq!(read(br#" {"b":"1","a":"\n","b":"2"} "#).as_deref(), Some(r#"{"a":"\n","b":"2"}"#));
        assert_eq!(read(b"{}").as_deref(), Some("{}"));
        for body in [
            &b""[..],
            b"{",
            b"nope",
            b"[]",
            b"null",
            b"1",
            br#"{"topic":1}"#,
            br#"{"topic":1.5e300}"#,
            br#"{"topic":null}"#,
            br#"{"topic":true}"#,
            br#"{"topic":["a"]}"#,
            br#"{"topic":{}}"#,
            br#"{"topic":"a"} x"#,
            b"\xef\xbb\xbf{}",
            b"{\"topic\":\"\xff\"}",
            b"{\"topic\":\"\xed\xa0\"}",
        ] {
            assert_eq!(read(body), None, "{}", String::from_utf8_lossy(body));
        }
        let deep = ["{\"topic\":", &"[".repeat(8_000), &"]".repeat(8_000), "}"].concat();
        assert_eq!(read(deep.as_bytes()), None);
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement_character() {
        for (body, text) in [
            (r#"{"topic":"\ud83e"}"#, "\u{fffd}"),
            (r#"{"topic":"a\udd89b"}"#, "a\u{fffd}b"),
            (r#"{"topic":"\ud83e\ud83e\udd89"}"#, "\u{fffd}\u{1f989}"),
            (r#"{"topic":"\ud83e\udd89"}"#, "\u{1f989}"),
        ] {
            let variables = Variables::from_json(body.as_bytes()).expect(body);
            assert_eq!(variables.0["topic"], text, "{body}");
        }
    }
}
