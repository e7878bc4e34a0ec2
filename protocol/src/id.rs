//! An origin's name, a stream's id, and a cursor into a stream.

use std::{fmt, str::FromStr, sync::Arc};

use crate::openai::COMPLETION_PREFIX;

/// Random characters of an id: 62^22 is a little over 2^130, so an id can't be guessed.
const RANDOM_CHARS: usize = 22;
/// The longest name of an origin, characters.
const NAME_CHARS: usize = 16;

/// The name of an origin, `[a-z0-9]{1,16}`. The ids of its streams begin with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginName(Arc<str>);

/// A stream's id: the origin's name, `-`, and 22 random characters of `[0-9A-Za-z]`.
///
/// Whoever knows the id may read the stream and stop it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(Arc<str>);

/// A position in a stream, as `Last-Event-ID` carries it: `ID`, the start, or `ID.n`, behind event `n`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The stream.
    pub id: StreamId,
    /// The index of the next event.
    pub next: u64,
}

/// A text that is no name, id or cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// Not a name.
    #[error("an origin's name is 1 to 16 characters of a-z and 0-9")]
    Name,
    /// Not an id.
    #[error("a stream's id is an origin's name, a hyphen and 22 letters or digits")]
    Id,
    /// Not a cursor.
    #[error("a cursor is a stream's id, or that and .n with n the index of an event")]
    Cursor,
}

impl OriginName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl StreamId {
    /// A new id at `origin`, from an endless source of random alphanumeric ASCII characters.
    pub fn new(origin: &OriginName, random: impl Iterator<Item = char>) -> Self {
        let mut id = String::with_capacity(origin.0.len() + 1 + RANDOM_CHARS);
        id.push_str(&origin.0);
        id.push('-');
        id.extend(random.filter(char::is_ascii_alphanumeric).take(RANDOM_CHARS));
        Self(id.into())
    }

    /// The id in a path. OpenAI's clients know a stream by the id of its chat completion.
    ///
    /// # Errors
    /// It is none.
    pub fn from_path(segment: &str) -> Result<Self, ParseIdError> {
        // An origin may be named like the prefix.
        segment.parse().or_else(|error| segment.strip_prefix(COMPLETION_PREFIX).ok_or(error)?.parse())
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the origin that generates the stream.
    pub fn origin(&self) -> &str {
        self.0.split_once('-').map_or("", |(name, _)| name)
    }

    /// The path of the stream.
    pub fn path(&self) -> String {
        ["/streams/", &self.0].concat()
    }
}

impl Cursor {
    /// The start of a stream.
    pub fn start(id: StreamId) -> Self {
        Self { id, next: 0 }
    }
}

impl FromStr for OriginName {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let known = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if known && (1..=NAME_CHARS).contains(&text.len()) { Ok(Self(text.into())) } else { Err(ParseIdError::Name) }
    }
}

impl FromStr for StreamId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (name, random) = text.split_once('-').ok_or(ParseIdError::Id)?;
        name.parse::<OriginName>().map_err(|_| ParseIdError::Id)?;
        let known = random.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if known && random.len() == RANDOM_CHARS { Ok(Self(text.into())) } else { Err(ParseIdError::Id) }
    }
}

impl FromStr for Cursor {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (id, next) = match text.split_once('.') {
            None => (text, 0),
            Some((id, index)) => {
                // One spelling of each number: no sign, no leading zero.
                let canonical = index == "0" || !index.starts_with(['0', '+']);
                let index: u64 = index.parse().map_err(|_| ParseIdError::Cursor)?;
                (id, index.checked_add(1).filter(|_| canonical).ok_or(ParseIdError::Cursor)?)
            }
        };
        Ok(Self { id: id.parse().map_err(|_| ParseIdError::Cursor)?, next })
    }
}

impl fmt::Display for OriginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.next.checked_sub(1) {
            None => write!(f, "{}", self.id),
            Some(index) => write!(f, "{}.{index}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: &str = "a-0123456789ABCDEFGHIJkl";

    #[test]
    fn a_new_id_parses_as_itself_and_names_its_origin() {
        let name: OriginName = "a1".parse().expect("a name");
        let id = StreamId::new(&name, "-x_".chars().cycle());
        assert_eq!(id.as_str(), format!("a1-{}", "x".repeat(22)));
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id.origin(), "a1");
        assert_eq!(id.path(), format!("/streams/{id}"));
        assert_eq!(StreamId::from_path(&format!("chatcmpl-{id}")), Ok(id.clone()));
        assert_eq!(StreamId::from_path(id.as_str()), Ok(id));
        let named_so = "chatcmpl-0123456789ABCDEFGHIJkl";
        assert_eq!(StreamId::from_path(named_so).map(|id| id.to_string()), Ok(named_so.to_owned()));
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in [
            "",
            ".",
            "a",
            "a-",
            "-0123456789ABCDEFGHIJkl",
            "A-0123456789ABCDEFGHIJkl",
            "a-0123456789ABCDEFGHIJk",
            "a-0123456789ABCDEFGHIJklm",
            "a-0123456789ABCDEFGHIJk\u{e9}",
            "abcdefghijklmnopq-0123456789ABCDEFGHIJkl",
        ] {
            assert_eq!(text.parse::<Cursor>(), Err(ParseIdError::Cursor), "{text:?}");
        }
        for index in ["", "-1", "+1", "01", "1.2", "x", " 1", "18446744073709551615", "18446744073709551616"] {
            assert_eq!(format!("{ID}.{index}").parse::<Cursor>(), Err(ParseIdError::Cursor), "{index:?}");
        }
        assert_eq!("a".repeat(10_240).parse::<Cursor>(), Err(ParseIdError::Cursor));
    }

    proptest! {
        #[test]
        fn a_cursor_reads_on_behind_its_event(index in 0..u64::MAX) {
            let cursor: Cursor = format!("{ID}.{index}").parse().expect("a cursor");
            prop_assert_eq!(cursor.next, index + 1);
            prop_assert_eq!(cursor.to_string(), format!("{ID}.{index}"));
        }

        #[test]
        fn any_text_parses_or_is_refused_and_what_parses_is_written_the_same(text in "\\PC{0,60}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
