//! Whole bodies.
//!
//! # Layout
//! - [`fixtures`]: bodies of real providers, in every spelling and cut anywhere.
//! - [`written`]: random answers, as an independent writer writes them.
//! - [`hostile`]: what must not cost memory or time.

mod fixtures;
mod hostile;
mod written;

use super::{Event, Parser};
use crate::{config::model::Protocol, stream::Usage};

/// What a body says, all in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    text: String,
    thoughts: String,
    finish: Option<String>,
    usage: Option<Usage>,
    error: bool,
    end: bool,
    fault: bool,
}

impl Heard {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Text(text) => {
                assert!(!text.is_empty());
                self.text += text;
            }
            Event::Thought(text) => {
                assert!(!text.is_empty());
                self.thoughts += &text;
            }
            Event::Finish(word) => self.finish = Some(word.into_owned()),
            Event::Usage(usage) if usage == Usage::default() => {}
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Error(_) => self.error = true,
            Event::End => self.end = true,
            Event::Alive | Event::Comment => {}
        }
    }
}

/// What is heard from a body that comes in these pieces, until it can't be read.
fn hear<'a>(protocol: Protocol, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let (mut parser, mut heard) = (Parser::new(protocol), Heard::default());
    let read = pieces.into_iter().try_for_each(|piece| parser.read(piece, &mut |event| heard.event(event)));
    let read = read.and_then(|()| parser.end(&mut |event| heard.event(event)));
    heard.fault = read.is_err();
    heard
}
