//! JSON values one after the other: lines of JSON, one value over many lines, or the elements of an array.

use memchr::memchr2;

use super::{Fault, sse::MAX_EVENT_BYTES};

/// Finds where values end. Only brackets and strings are looked at here: what is between the brackets is read by whoever
/// gets the value.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// The beginning of a value whose end has not come.
    begun: Vec<u8>,
    /// Open brackets of the value.
    depth: usize,
    in_string: bool,
    /// The last byte was a backslash in a string.
    escaped: bool,
    /// The values are the elements of an array, and it is open.
    in_array: bool,
    /// It was opened, and nothing has come in it: it may be the beginning of an end marker.
    only_bracket: bool,
}

impl Values {
    /// Reads more. `each` gets every value. Returns how many bytes were read: fewer than all where something begins that is
    /// no value.
    ///
    /// # Errors
    /// A value is too long, something in an array is no object, or `each` fails.
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let (mut start, mut at) = (0, 0);
        while let Some(&byte) = bytes.get(at) {
            if self.depth == 0 {
                match byte {
                    // NUL: some programs send the end of their string.
                    b' ' | b'\t' | b'\n' | b'\r' | 0 => {}
                    b',' if self.in_array => {}
                    b']' if self.in_array => (self.in_array, self.only_bracket) = (false, false),
                    b'{' => {
                        self.only_bracket = false;
                        (self.depth, start) = (1, at);
                    }
                    _ if self.only_bracket => return Ok(at),
                    _ if self.in_array => return Err(Fault::Unreadable("something that is no JSON object".into())),
                    b'[' => (self.in_array, self.only_bracket) = (true, true),
                    _ => return Ok(at),
                }
            } else if std::mem::take(&mut self.escaped) {
                // Whatever it is, it does not end the string.
            } else if self.in_string {
                let Some(skipped) = memchr2(b'"', b'\\', &bytes[at..]) else { break };
                at += skipped;
                (self.in_string, self.escaped) = (bytes[at] != b'"', bytes[at] != b'"');
            } else {
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
                if self.depth == 0 {
                    self.end_value(&bytes[start..=at], each)?;
                }
            }
            at += 1;
        }
        if self.depth > 0 {
            self.keep(&bytes[start..])?;
        }
        Ok(bytes.len())
    }

    /// Whether a value or an array has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.depth > 0 || self.in_array
    }

    fn end_value(&mut self, end: &[u8], each: &mut impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
        if self.begun.is_empty() {
            return each(end);
        }
        self.keep(end)?;
        each(&std::mem::take(&mut self.begun))
    }

    /// What was read, and is no value but the beginning of what stopped [`Self::read`].
    pub(super) fn unread(&self) -> &'static [u8] {
        if self.only_bracket { b"[" } else { b"" }
    }

    /// The body has ended. An array that is still open has lost nothing.
    ///
    /// # Errors
    /// It ends within a value.
    pub(super) fn end(&self) -> Result<(), Fault> {
        if self.depth > 0 { Err(Fault::Unreadable("its JSON is cut short".into())) } else { Ok(()) }
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.begun.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(Fault::TooLong);
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }
}
