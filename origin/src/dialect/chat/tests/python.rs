//! A model of the decoder in `openai` for Python (`_streaming.py`), stricter than those of 1.109.1 and 3.57.0: a line ends
//! wherever `str.splitlines` finds an end, and once an id or a retry time was seen, every blank line ends an event. These two
//! know CR and LF alone, and forget the retry time with each event. JSON is expected in each.

/// Decodes a stream's bytes.
#[derive(Default)]
pub(super) struct Decoder {
    unread: Vec<u8>,
    data: Vec<String>,
    event: Option<String>,
    /// Never reset.
    id: Option<String>,
    retry: Option<String>,
}

impl Decoder {
    /// The data of each event that ends within these bytes.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.unread.extend_from_slice(bytes);
        let Some(end) = self.unread.windows(2).rposition(|pair| pair == b"\n\n") else { return Vec::new() };
        let rest = self.unread.split_off(end + 2);
        let events = String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("whole characters");
        // Without a line end behind the last one.
        let events = events.strip_suffix('\n').unwrap_or(&events);
        let ends = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
        events.split(ends).filter_map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> Option<String> {
        if line.is_empty() {
            let nothing = self.event.is_none() && self.data.is_empty() && self.id.is_none() && self.retry.is_none();
            self.event = None;
            return (!nothing).then(|| std::mem::take(&mut self.data).join("\n"));
        }
        if line.starts_with(':') {
            return None;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => self.event = Some(value),
            "data" => self.data.push(value),
            "id" => self.id = Some(value),
            "retry" => self.retry = Some(value),
            _ => {}
        }
        None
    }
}
