//! What a provider's body says: bytes in, events out. No I/O, no clock.
//!
//! # Layout
//! - `openai`, `anthropic`, `gemini`, `ollama`: a protocol each: one JSON value in, events out.
//! - `sse`, `json`: how the values are separated: as data of Server-Sent Events, or one behind the other.
//! - `object`: objects of which some members are read; `content`, `value`: members that aren't always what they should
//!   be; `text`: text that is cut within a character.
//!
//! The separation is told by the first byte of a body and not by its content type or protocol: servers that were asked for
//! a stream answer with one JSON value, and gateways make one of the other.

mod anthropic;
mod content;
mod gemini;
mod json;
mod object;
mod ollama;
mod openai;
mod sse;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::borrow::Cow;

use serde::de::IgnoredAny;

use self::{
    json::Values,
    sse::{Data, Events, Item, is_end_marker},
    text::Joiner,
};
use crate::{config::model::Protocol, stream::Usage};

/// What a provider says, in the order in which it says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// More text of the answer, never empty.
    Text(&'a str),
    /// Thoughts of the model before or within its answer.
    Thought(Cow<'a, str>),
    /// Something without text: a ping, an empty delta, what isn't known.
    Alive,
    /// A comment, or an empty line: the connection lives; whether the model does isn't sure.
    Comment,
    /// Tokens so far; the last one told counts.
    Usage(Usage),
    /// Why the answer ends, in the provider's word; the last one told counts. Text may follow.
    Finish(Cow<'a, str>),
    /// It failed: the JSON, or the text, that says so.
    Error(&'a [u8]),
    /// Nothing follows.
    End,
}

/// A body that can't be read. None of these repeats what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A page: what answers is no provider.
    #[error("it is an HTML page")]
    Html,
    /// An event or a value is longer than an answer can be.
    #[error("one of its events is longer than {} MiB", sse::MAX_EVENT_BYTES >> 20)]
    TooLong,
    /// There may have been text in it.
    #[error("it can't be read: {0}")]
    Unreadable(String),
}

/// Reads the body of one answer.
#[derive(Debug)]
pub struct Parser {
    separation: Separation,
    speech: Speech,
}

#[derive(Debug)]
enum Separation {
    /// Not known yet: nothing has come but so many bytes of a byte order mark, and blanks.
    Unknown {
        mark: usize,
    },
    Events(Events),
    Values(Values),
}

/// What was said so far, and how it is understood.
#[derive(Debug)]
struct Speech {
    dialect: Dialect,
    text: Joiner,
    thoughts: Joiner,
    /// Which choices have come: the first, and others.
    first: bool,
    others: bool,
    /// An end marker has come. What a server has behind it is no part of the answer.
    ended: bool,
}

/// The protocol, and what it remembers of the values before.
#[derive(Debug)]
enum Dialect {
    OpenAi(openai::State),
    Anthropic(anthropic::State),
    Gemini,
    Ollama,
}

/// What a protocol tells of one JSON value.
enum Delta<'a> {
    Text(&'a [u8]),
    Thought(&'a [u8]),
    Other(Event<'a>),
    /// Which choices the value has.
    Choices {
        first: bool,
        others: bool,
    },
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Parser {
    /// A body in this protocol.
    pub fn new(protocol: Protocol) -> Self {
        let dialect = match protocol {
            Protocol::OpenAi => Dialect::OpenAi(openai::State::default()),
            Protocol::Anthropic => Dialect::Anthropic(anthropic::State::default()),
            Protocol::Gemini => Dialect::Gemini,
            Protocol::Ollama => Dialect::Ollama,
        };
        let speech = Speech {
            dialect,
            text: Joiner::default(),
            thoughts: Joiner::default(),
            first: false,
            others: false,
            ended: false,
        };
        Self { separation: Separation::Unknown { mark: 0 }, speech }
    }

    /// Reads more of the body, cut anywhere. Bytes that end no event are kept.
    ///
    /// # Errors
    /// The body can't be read; all that was readable before is told.
    pub fn read(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Fault> {
        if self.speech.ended {
            return Ok(());
        }
        match self.read_on(bytes, tell) {
            Err(_) if self.speech.ended => Ok(()),
            read => read,
        }
    }

    fn read_on(&mut self, bytes: &[u8], tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Fault> {
        let Self { separation, speech } = self;
        match separation {
            Separation::Events(events) => events.read(bytes, &mut |item| speech.item(item, tell)),
            Separation::Values(values) => {
                let read = values.read(bytes, &mut |value| speech.value(value, tell))?;
                if read < bytes.len() {
                    // One JSON value and then events: a gateway that answers as it was asked, and ends as a stream ends.
                    let unread = values.unread();
                    *separation = Separation::Events(Events::default());
                    self.read_on(unread, tell)?;
                    self.read_on(&bytes[read..], tell)?;
                }
                Ok(())
            }
            Separation::Unknown { mark } => {
                let mut body = bytes;
                // HTML standard, section 9.2.5: one byte order mark is no part of the stream.
                while let (Some((first, rest)), Some(expected)) = (body.split_first(), BYTE_ORDER_MARK.get(*mark)) {
                    if first != expected {
                        break;
                    }
                    (body, *mark) = (rest, *mark + 1);
                }
                if body.is_empty() {
                    return Ok(());
                }
                *mark = BYTE_ORDER_MARK.len();
                let body = body.trim_ascii_start();
                let next = match body {
                    [] => {
                        tell(Event::Comment);
                        return Ok(());
                    }
                    [b'<', ..] => return Err(Fault::Html),
                    [b'{' | b'[', ..] => Separation::Values(Values::default()),
                    _ => Separation::Events(Events::default()),
                };
                *separation = next;
                self.read_on(body, tell)
            }
        }
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It ends within an event, or only choices that weren't asked for have come.
    pub fn end(&mut self, tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Fault> {
        let Self { separation, speech } = self;
        if !speech.ended {
            match separation {
                Separation::Unknown { .. } => {}
                Separation::Events(events) => events.end(&mut |item| speech.item(item, tell))?,
                Separation::Values(values) => values.end()?,
            }
            speech.end(tell);
        }
        if speech.others && !speech.first { Err(Fault::Unreadable("it has no first choice".into())) } else { Ok(()) }
    }
}

impl Speech {
    fn item(&mut self, item: Item<'_>, tell: &mut dyn FnMut(Event<'_>)) -> Result<Data, Fault> {
        match item {
            _ if self.ended => Ok(Data::Whole),
            Item::Comment => {
                tell(Event::Comment);
                Ok(Data::Whole)
            }
            Item::Error(data) => {
                tell(Event::Error(data));
                Ok(Data::Whole)
            }
            Item::Data { event, data } => self.data(event, trim(data), tell),
        }
    }

    fn data(&mut self, event: &[u8], data: &[u8], tell: &mut dyn FnMut(Event<'_>)) -> Result<Data, Fault> {
        match data {
            _ if is_end_marker(data) => self.end_marked(tell),
            _ if event == b"error" => match serde_json::from_slice::<IgnoredAny>(data) {
                Err(error) if error.is_eof() && !data.is_empty() => return Ok(Data::GoesOn),
                _ => tell(Event::Error(data)),
            },
            b"" | b"null" => tell(Event::Comment),
            _ => match self.json(event, data, tell) {
                Err(error) if error.is_eof() => return Ok(Data::GoesOn),
                Err(_) if is_heartbeat(event) || is_heartbeat(data) => tell(Event::Comment),
                read => read.map_err(|error| unreadable(&error))?,
            },
        }
        Ok(Data::Whole)
    }

    fn value(&mut self, value: &[u8], tell: &mut dyn FnMut(Event<'_>)) -> Result<(), Fault> {
        self.json(b"", value, tell).map_err(|error| unreadable(&error))
    }

    /// Tells what one JSON value says; nothing where it can't be read.
    fn json(&mut self, event: &[u8], json: &[u8], tell: &mut dyn FnMut(Event<'_>)) -> serde_json::Result<()> {
        let (mut silent, mut ended) = (true, false);
        let told = &mut |said: Delta<'_>| match said {
            Delta::Text(b"") | Delta::Thought(b"") => {}
            Delta::Text(text) => self.text.push(text, |text| {
                silent = false;
                tell(Event::Text(text));
            }),
            Delta::Thought(text) => self.thoughts.push(text, |text| {
                silent = false;
                tell(Event::Thought(text.into()));
            }),
            Delta::Other(Event::End) => ended = true,
            Delta::Other(event) => {
                silent = false;
                tell(event);
            }
            Delta::Choices { first, others } => {
                self.first |= first;
                self.others |= others;
            }
        };
        match &mut self.dialect {
            Dialect::OpenAi(state) => state.read(json, told),
            Dialect::Anthropic(state) => state.read(event, json, told),
            Dialect::Gemini => gemini::read(json, told),
            Dialect::Ollama => ollama::read(json, told),
        }?;
        if ended {
            self.end_marked(tell);
        } else if silent {
            tell(Event::Alive);
        }
        Ok(())
    }

    fn end_marked(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        self.end(tell);
        self.ended = true;
        tell(Event::End);
    }

    /// Nothing follows that could complete a character.
    fn end(&mut self, tell: &mut dyn FnMut(Event<'_>)) {
        self.thoughts.end(|text| tell(Event::Thought(text.into())));
        self.text.end(|text| tell(Event::Text(text)));
    }
}

/// Data without the blanks around it, and without what C programs end a string with.
fn trim(mut data: &[u8]) -> &[u8] {
    while let [rest @ .., 0] = data.trim_ascii_end() {
        data = rest;
    }
    data.trim_ascii()
}

/// Whether the name or the data of an event only says that the connection lives.
fn is_heartbeat(word: &[u8]) -> bool {
    let word = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\"")).unwrap_or(word);
    [&b"ping"[..], b"pong", b"keep-alive", b"keepalive", b"keep_alive", b"heartbeat"]
        .into_iter()
        .any(|heartbeat| word.eq_ignore_ascii_case(heartbeat))
}

/// Where JSON can't be read; the error's own text repeats what stands there.
fn unreadable(error: &serde_json::Error) -> Fault {
    use serde_json::error::Category;
    let what = match error.classify() {
        Category::Data => "a member has a form of its own",
        Category::Eof => "its JSON is cut short",
        Category::Syntax | Category::Io => "it is no JSON",
    };
    Fault::Unreadable(format!("{what}, line {} column {}", error.line(), error.column()))
}
