//! Server-Sent Events as providers send them (HTML standard, section 9.2.6), read a line at a time.
//!
//! Two liberties, both because providers take them. A `data` line is handed out as soon as it is there: some servers leave
//! out the empty line behind it, and no token has to wait for one. Only if its JSON goes on in further `data` lines the
//! event waits for its empty line. And JSON without a field is data, too: some servers write errors so.

use memchr::memchr2;

use super::{Fault, json::Values};

/// The most bytes of one event. A whole answer in one event is some kilobytes.
pub(super) const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

/// What one line or event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item<'a> {
    /// An event's data, and its name; an empty one where none was told.
    Data { event: &'a [u8], data: &'a [u8] },
    /// The value of a field that is called `error`.
    Error(&'a [u8]),
    /// A comment, or an empty line behind an empty line.
    Comment,
}

/// Whether the data of an event is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// It is, and was read.
    Whole,
    /// Its JSON goes on; nothing was read of it.
    GoesOn,
}

/// The events of a body.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// The last line ended in CR: a line feed at once behind it is a part of its end.
    after_cr: bool,
    fields: Fields,
}

/// The fields of the event that is being read, until its empty line.
#[derive(Debug, Default)]
struct Fields {
    event: Vec<u8>,
    /// Data lines whose JSON is not complete, with line feeds between.
    data: Vec<u8>,
    /// JSON without a field, over one line or several.
    bare: Values,
    /// No line has come since the last empty one.
    none: bool,
}

impl Events {
    /// Reads more of the body. `each` gets every item, and says whether data is complete.
    ///
    /// # Errors
    /// A line is too long or can't be read, or `each` fails.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>,
    ) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        if std::mem::take(&mut self.after_cr) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = memchr2(b'\n', b'\r', bytes) {
            let line = &bytes[..end];
            let cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if cr {
                self.after_cr = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
            if self.line.is_empty() {
                self.fields.line(line, each)?;
            } else {
                self.keep(line)?;
                let line = std::mem::take(&mut self.line);
                self.fields.line(&line, each)?;
            }
        }
        self.keep(bytes)
    }

    /// The body has ended: what it ends with counts although its line end or its empty line is missing.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(super) fn end(&mut self, each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.fields.line(&line, each)?;
        }
        self.fields.bare.end()?;
        self.fields.dispatch(each)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if self.line.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(Fault::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

/// Whether data says that nothing follows. `[DONE]` stands alone, but some servers have something behind it.
pub(super) fn is_end_marker(data: &[u8]) -> bool {
    const MARKER: &[u8] = b"[DONE]";
    let data = data.trim_ascii_start();
    let data = data.strip_prefix(b"\"").unwrap_or(data);
    data.get(..MARKER.len()).is_some_and(|start| start.eq_ignore_ascii_case(MARKER))
}

impl Fields {
    fn line(&mut self, line: &[u8], each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        match *line {
            _ if self.bare.is_open() && !line.starts_with(b":") => self.bare(line, each),
            [] if self.none => each(Item::Comment).map(drop),
            [] => {
                self.none = true;
                self.dispatch(each)
            }
            _ => {
                self.none = false;
                self.field(line, each)
            }
        }
    }

    fn field(&mut self, line: &[u8], each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        match *line {
            [b':', ..] => each(Item::Comment).map(drop),
            [b'd', b'a', b't', b'a', b':', ref value @ ..] => {
                self.data(value.strip_prefix(b" ").unwrap_or(value), each)
            }
            // A pretty-printed value behind `data:`, without the field in its further lines.
            _ if !self.data.is_empty() && matches!(line.trim_ascii_start(), [b'"' | b'{' | b'}' | b'[' | b']', ..]) => {
                self.data(line, each)
            }
            _ if is_end_marker(line) => self.data(line, each),
            _ if matches!(line.trim_ascii_start(), [b'{' | b'[', ..]) => self.bare(line, each),
            _ => {
                let colon = memchr::memchr(b':', line).unwrap_or(line.len());
                let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default());
                let value = value.strip_prefix(b" ").unwrap_or(value);
                // The standard knows small letters alone. Text is not lost for that.
                match &*name.trim_ascii().to_ascii_lowercase() {
                    b"data" => self.data(value, each),
                    b"event" => {
                        self.event.clear();
                        self.event.extend_from_slice(value);
                        Ok(())
                    }
                    // llama.cpp's server tells its errors in a field of this name.
                    b"error" => each(Item::Error(value)).map(drop),
                    // "id", "retry", and what isn't known.
                    name if name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) => Ok(()),
                    _ => Err(Fault::Unreadable("a line is no field of an event".into())),
                }
            }
        }
    }

    fn bare(&mut self, line: &[u8], each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        let event = &self.event;
        let mut value = |data: &[u8]| match each(Item::Data { event, data })? {
            Data::Whole => Ok(()),
            Data::GoesOn => Err(Fault::Unreadable("its JSON is cut short".into())),
        };
        // The line feed separates what stood on two lines.
        let read = self.bare.read(line, &mut value)? + self.bare.read(b"\n", &mut value)?;
        if read > line.len() { Ok(()) } else { Err(Fault::Unreadable("something behind JSON that is none".into())) }
    }

    fn data(&mut self, value: &[u8], each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        if self.data.is_empty() {
            if each(Item::Data { event: &self.event, data: value })? == Data::GoesOn {
                self.data.extend_from_slice(value);
            }
            return Ok(());
        }
        if self.data.len() + value.len() > MAX_EVENT_BYTES {
            return Err(Fault::TooLong);
        }
        self.data.push(b'\n');
        self.data.extend_from_slice(value);
        Ok(())
    }

    fn dispatch(&mut self, each: &mut impl FnMut(Item<'_>) -> Result<Data, Fault>) -> Result<(), Fault> {
        let whole = if self.data.is_empty() {
            Ok(Data::Whole)
        } else {
            each(Item::Data { event: &self.event, data: &std::mem::take(&mut self.data) })
        };
        self.event.clear();
        match whole? {
            Data::Whole => Ok(()),
            Data::GoesOn => Err(Fault::Unreadable("an event's JSON is cut short".into())),
        }
    }
}
