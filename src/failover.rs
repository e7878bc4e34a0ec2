//! Which origins to ask in which order, and what their answers are worth.

use crate::config::{Config, Origin};
use crate::route::{Api, Cursor};
use headwater_protocol::header::{EVENT_STREAM, JSON, PROBLEM, is_media_type};
use headwater_protocol::problem::Document;
use headwater_protocol::{IdempotencyKey, Kind, Problem, StreamId};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// How long an origin may take to send its headers. It promises them within 2 s.
pub const HEADERS_DEADLINE: Duration = Duration::from_secs(10);

/// Statuses that stand for "no origin" in production, where a failed connection is an answer and no exception.
const UNREACHED: std::ops::RangeInclusive<u16> = 520..=530;

/// Which origins to ask, one attempt each, and what to make of their answers.
#[derive(Debug)]
pub struct Plan<'a> {
    /// In the order in which they are asked. Never empty.
    pub origins: Vec<&'a Origin>,
    purpose: Purpose,
    shared_journal: bool,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A new stream.
    Start,
    /// The same in OpenAI's manner, whose answer may be one JSON document.
    Completion,
    /// The models, or one of them, in OpenAI's manner. Nothing starts.
    Models,
    /// A stream of an origin of this project. Nothing starts, and what is away may come back.
    Stream,
    /// A stream of a foreign server, which may start anew whatever the cursor.
    ForeignStream,
}

impl<'a> Plan<'a> {
    /// For a start, or for resuming a stream by its cursor on a start path.
    ///
    /// # Errors
    ///
    /// When the cursor can be none of these origins', or the settings name no origins.
    pub fn start(config: &'a Config, key: Option<&IdempotencyKey>, cursor: Option<&Cursor>) -> Result<Self, Problem> {
        let Some(cursor) = cursor else {
            let plan = Self::new(config, Purpose::Start, config.origins.iter().collect(), Problem::misconfigured)?;
            return Ok(plan.ordered_by(key));
        };
        if let Some(stream) = &cursor.stream
            && own_origins(config).next().is_some()
        {
            return Self::stream(config, stream);
        }
        // Foreign servers have ids of their own. Whose this one is can't be told; one is asked, so that one stream at most
        // starts anew.
        let foreign = config.origins.iter().find(|origin| !origin.is_own());
        Self::new(config, Purpose::ForeignStream, foreign.into_iter().collect(), Problem::malformed_cursor)
    }

    /// For a conversation. Foreign servers are not asked: what they want for one isn't known.
    ///
    /// # Errors
    ///
    /// When the settings name no origin of this project.
    pub fn chat(config: &'a Config, api: Api, key: Option<&IdempotencyKey>) -> Result<Self, Problem> {
        let purpose = match api {
            Api::Own => Purpose::Start,
            Api::OpenAi => Purpose::Completion,
        };
        Ok(Self::of_own(config, purpose)?.ordered_by(key))
    }

    /// For the models.
    ///
    /// # Errors
    ///
    /// When the settings name no origin of this project.
    pub fn models(config: &'a Config) -> Result<Self, Problem> {
        Self::of_own(config, Purpose::Models)
    }

    fn of_own(config: &'a Config, purpose: Purpose) -> Result<Self, Problem> {
        Self::new(config, purpose, own_origins(config).collect(), Problem::no_chats)
    }

    fn ordered_by(mut self, key: Option<&IdempotencyKey>) -> Self {
        if let Some(key) = key.filter(|_| !self.shared_journal) {
            order_by_key(&mut self.origins, key);
        }
        self
    }

    /// For a stream: the origin that its id names; with a shared journal the others as well.
    ///
    /// # Errors
    ///
    /// When no origin of that name is known, or the settings name no origins.
    pub fn stream(config: &'a Config, stream: &StreamId) -> Result<Self, Problem> {
        let mut origins: Vec<_> = own_origins(config).collect();
        let named = origins.iter().position(|origin| origin.name.as_str() == stream.origin());
        match named {
            Some(index) if config.shared_journal => origins[..=index].rotate_right(1),
            Some(index) => origins = vec![origins[index]],
            // Names only tell origins apart: where there is one, it is the one.
            None if config.shared_journal || origins.len() == 1 => {}
            None => origins.clear(),
        }
        Self::new(config, Purpose::Stream, origins, Problem::no_such_stream)
    }

    /// `nobody`: why there is nobody to ask, unless the settings name no origins at all.
    fn new(
        config: &Config,
        purpose: Purpose,
        origins: Vec<&'a Origin>,
        nobody: fn() -> Problem,
    ) -> Result<Self, Problem> {
        if config.origins.is_empty() {
            return Err(Problem::misconfigured());
        }
        if origins.is_empty() {
            return Err(nobody());
        }
        Ok(Self { origins, purpose, shared_journal: config.shared_journal })
    }

    /// A generation may begin, which somebody pays for.
    pub fn may_begin(&self) -> bool {
        matches!(self.purpose, Purpose::Start | Purpose::Completion | Purpose::ForeignStream)
    }

    /// Further origins know what an idempotency key is: one keeps a start that they are asked for from becoming two.
    pub fn wants_key(&self) -> bool {
        let starts = matches!(self.purpose, Purpose::Start | Purpose::Completion);
        starts && self.origins.iter().filter(|origin| origin.is_own()).count() > 1
    }

    /// The origin can't be reached, or the connection broke.
    pub fn unreached(&self) -> Refusal {
        Refusal::Next(match self.purpose {
            Purpose::Start | Purpose::Completion | Purpose::Models => Problem::origin_unreachable(),
            Purpose::Stream | Purpose::ForeignStream => Problem::stream_away(),
        })
    }

    /// The origin sent no headers within [`HEADERS_DEADLINE`]. It may have started: only where journals are shared does the
    /// key find that stream again.
    pub fn timed_out(&self) -> Refusal {
        let is_safe = self.shared_journal || self.purpose == Purpose::Models;
        let refusal = if is_safe { Refusal::Next } else { Refusal::Final };
        refusal(Problem::origin_timeout())
    }

    /// What an answer is worth.
    ///
    /// # Errors
    ///
    /// When it is of no use to a client.
    pub fn judge(&self, answer: &AnswerHead) -> Result<Worth, Refusal> {
        let is = |media_type| answer.content_type.is_some_and(|text| is_media_type(text, media_type));
        let unusable = Problem::unusable_answer;
        // What a client of this path reads: a stream, and a problem.
        let (is_stream, is_problem) = match self.purpose {
            Purpose::Completion => (is(EVENT_STREAM) || is(JSON), is(JSON) && answer.problem.is_some()),
            Purpose::Models => (is(JSON), is(JSON) && answer.problem.is_some()),
            Purpose::Start | Purpose::Stream | Purpose::ForeignStream => (is(EVENT_STREAM), is(PROBLEM)),
        };
        match answer.status {
            // A proxy before the origin waited for it in vain.
            524 => Err(self.timed_out()),
            504 if !is_problem => Err(self.timed_out()),
            status if UNREACHED.contains(&status) => Err(self.unreached()),
            502 | 503 if !is_problem => Err(self.unreached()),
            204 if !self.is_openai() => Ok(Worth::Pipe),
            200 if is_stream && !answer.is_encoded() => Ok(Worth::Pipe),
            // A generation may have begun: another origin's would be a second one, and so would the client's next try.
            200..=299 if self.may_begin() => Err(Refusal::Final(Problem::unusable_start())),
            200..=299 if self.purpose == Purpose::Stream => Err(Refusal::Final(unusable())),
            _ if answer.is_encoded() => Err(Refusal::Next(unusable())),
            // The origin and this edge do not share a secret. Nothing that a client could mend.
            401 => Err(Refusal::Next(Problem::edge_refused())),
            400..=599 if is_problem && !self.is_openai() => Ok(Worth::Retell),
            400..=599 if is_problem && answer.problem == Some(Kind::Overloaded.name()) => Ok(Worth::PipeAsLast),
            400..=599 if is_problem => Ok(Worth::Pipe),
            _ => Err(Refusal::Next(unusable())),
        }
    }

    fn is_openai(&self) -> bool {
        matches!(self.purpose, Purpose::Completion | Purpose::Models)
    }
}

/// Puts this project's origins into an order that follows from the key alone (rendezvous hashing), and leaves foreign
/// servers, which don't know keys, where they are. So a start and its repetition ask the same origin first. And starts
/// spread: where all ask one origin first, those that it turns away would find room there when they are repeated.
fn order_by_key(origins: &mut [&Origin], key: &IdempotencyKey) {
    let weight = |origin: &Origin| {
        // The same in every instance of one build. Another build's order may differ.
        let mut hasher = DefaultHasher::new();
        (origin.name.as_str(), key.as_str()).hash(&mut hasher);
        hasher.finish()
    };
    let mut own: Vec<_> = origins.iter().copied().filter(|origin| origin.is_own()).collect();
    for slot in origins.iter_mut().filter(|origin| origin.is_own()) {
        if let Some(next) = (0..own.len()).min_by_key(|index| weight(own[*index])) {
            *slot = own.swap_remove(next);
        }
    }
}

/// The origins that speak this project's whole interface.
pub fn own_origins(config: &Config) -> impl Iterator<Item = &Origin> {
    config.origins.iter().filter(|origin| origin.is_own())
}

/// What to do instead of passing an answer on.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Ask the next origin; answer with the problem when there is none.
    Next(Problem),
    /// Answer with the problem.
    Final(Problem),
}

/// What an answer is judged by.
#[derive(Debug)]
pub struct AnswerHead<'a> {
    /// The status code.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`.
    pub content_encoding: Option<&'a str>,
    /// What an origin of this project calls the problem that it answers with.
    pub problem: Option<&'a str>,
}

impl AnswerHead<'_> {
    /// `identity`, and `none`, which some servers say for it, are no encodings.
    fn is_encoded(&self) -> bool {
        let is_coding = |text: &str| !["", "identity", "none"].iter().any(|none| text.eq_ignore_ascii_case(none));
        self.content_encoding.is_some_and(|codings| codings.split(',').map(str::trim).any(is_coding))
    }
}

/// How an answer is passed on.
#[derive(Debug, PartialEq, Eq)]
pub enum Worth {
    /// A stream, a document for OpenAI's clients, or nothing: its body is piped.
    Pipe,
    /// The same, if there is no further origin: this one has no room.
    PipeAsLast,
    /// A [`ToldProblem`], which names the path that the client asked for.
    Retell,
}

/// An origin's problem document (RFC 9457). Like headers, it crosses the edge by its listed members.
pub struct ToldProblem(Value);

impl ToldProblem {
    /// `None` if it is no JSON object.
    pub fn read(document: &[u8]) -> Option<Self> {
        serde_json::from_slice(document).ok().filter(Value::is_object).map(Self)
    }

    /// It says that the origin has no room for a further generation.
    pub fn is_overloaded(&self) -> bool {
        self.text("type").strip_prefix("/problems/") == Some(Kind::Overloaded.name())
    }

    /// The document for a client that asked for the path `instance`. The origin was asked for another: a start at `/simple`
    /// is a start of `/prompts/simple` there.
    pub fn to_json(&self, status: u16, instance: &str) -> String {
        let type_uri = Some(self.text("type")).filter(|text| !text.is_empty()).unwrap_or("about:blank");
        let retryable = self.0.get("retryable").and_then(Value::as_bool).unwrap_or(false);
        let (title, detail) = (self.text("title"), self.text("detail"));
        Document { type_uri, title, status: Some(status), detail, instance: Some(instance), retryable }.to_json()
    }

    fn text(&self, member: &str) -> &str {
        self.0.get(member).and_then(Value::as_str).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
