//! Headers: the one way in which they cross the edge.

use serde::ser::{Serialize, Serializer};

/// The most bytes of a value that is copied. An origin takes 16 KiB for the whole head, and sends no longer ones.
const LONGEST_VALUE: usize = 2048;

/// Headers on their way in or out; each name stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(&'static str, String)>);

impl HeaderList {
    /// Copies the named headers, and nothing else: the only way in which a header crosses the edge. A value that no
    /// header can hold (RFC 9110, section 5.5, without the obsolete bytes) stays behind, and so does one that is too long.
    pub fn copy(&mut self, names: &[&'static str], get: &dyn Fn(&str) -> Option<String>) {
        let is_of_values = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
        let is_field_value = |value: &String| value.len() <= LONGEST_VALUE && value.bytes().all(is_of_values);
        self.0.extend(names.iter().filter_map(|name| Some((*name, get(name).filter(is_field_value)?))));
    }

    /// Adds all headers of another list.
    pub fn extend(&mut self, headers: &Self) {
        for (name, value) in &headers.0 {
            self.append(name, value);
        }
    }

    /// Adds a header, or a further element to one that is there (RFC 9110, section 5.3).
    pub fn append(&mut self, name: &'static str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            None => self.0.push((name, value.to_owned())),
            Some((_, known)) => {
                known.push_str(", ");
                known.push_str(value);
            }
        }
    }

    /// The value of a header, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// One object, name to value: what a runtime takes for headers.
impl Serialize for HeaderList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
