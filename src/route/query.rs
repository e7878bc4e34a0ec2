//! A query's parts, and the cursor, which may stand in one.

use headwater_protocol::{CURSOR_PARAMETERS, KEY_PARAMETER, StreamId, Variables};

/// The longest cursor, in bytes. The project's own have at most 60; other servers' ids pass through.
const MAX_CURSOR_BYTES: usize = 1024;

/// What a query holds. Where a name stands twice the last one counts, as in a body.
#[derive(Default)]
pub(super) struct Query {
    pub(super) variables: Variables,
    /// One for each of [`CURSOR_PARAMETERS`].
    cursors: [Option<String>; CURSOR_PARAMETERS.len()],
    pub(super) key: Option<String>,
}

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let value = value.into_owned();
            if let Some(index) = CURSOR_PARAMETERS.iter().position(|known| *known == name) {
                query.cursors[index] = Some(value);
            } else if name == KEY_PARAMETER {
                query.key = Some(value);
            } else {
                query.variables.0.insert(name.into_owned(), value);
            }
        }
        query
    }

    /// The first one that isn't empty.
    pub(super) fn cursor(&mut self) -> Option<String> {
        self.cursors.iter_mut().filter_map(Option::take).find(|text| !text.is_empty())
    }
}

/// A position in a stream, as it came. What it means is for the origin to say; the edge reads from it whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    text: String,
    /// The stream, if the cursor is one of this project's. Another server's events may have any ids.
    pub stream: Option<StreamId>,
}

impl Cursor {
    /// `None` if it can't be a header's value, or is longer than any server's ids.
    pub(super) fn parse(text: String) -> Option<Self> {
        let fits = text.len() <= MAX_CURSOR_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let stream = text.parse().ok().map(|cursor: headwater_protocol::Cursor| cursor.id);
        fits.then_some(Self { text, stream })
    }

    /// The cursor as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
