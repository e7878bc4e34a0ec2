//! A prompt's name, and the variables that fill its template.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Problem, json};

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

/// The variables of a request, by name. Where a name stands twice the last one counts. (A body is read by
/// [`Variables::from_json`]; `Deserialize` is for queries.)
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Variables(pub BTreeMap<String, String>);

impl Variables {
    /// Reads a body. Half a surrogate pair, which JavaScript cuts out of a string with `slice`, becomes U+FFFD, as a
    /// query has it already.
    ///
    /// # Errors
    /// The body is no JSON object whose values are strings.
    pub fn from_json(body: &[u8]) -> Result<Self, Problem> {
        // By way of `Value`: a typed parser formats numbers in its messages, which nobody reads and which cost the edge
        // 20 kB of wasm.
        let unfit =
            || Problem::bad_request("the body is a JSON object whose values are strings, such as {\"topic\":\"cat\"}");
        let Some(Value::Object(members)) = json::parse(body) else {
            return Err(unfit());
        };
        let mut variables = Self::default();
        for (name, value) in members {
            let Value::String(value) = value else { return Err(unfit()) };
            variables.0.insert(name, value);
        }
        Ok(variables)
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // A map of strings: JSON can hold it.
        serde_json::to_string(self).unwrap_or_default()
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
            br#"{"topic":"\ud83"}"#,
            br#"{"topic":"\u"#,
            b"\\",
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
            (r#"{"topic":"\uD83E\uDD89\uDD89"}"#, "\u{1f989}\u{fffd}"),
            (r#"{"topic":"\\ud83e \\\udd89"}"#, "\\ud83e \\\u{fffd}"),
            (r#"{"topic":"\ud83e\n"}"#, "\u{fffd}\n"),
        ] {
            let variables = Variables::from_json(body.as_bytes()).expect(body);
            assert_eq!(variables.0["topic"], text, "{body}");
        }
    }
}
