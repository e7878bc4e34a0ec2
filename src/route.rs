//! What is asked? A request's head becomes a [`Call`], or the problem that answers it.
//!
//! Everything that comes from outside is parsed into a type here, and not looked at again.
//!
//! A start's answer is *framed* (events with ids, a terminal event) where its `Accept` names event streams, else *bare*
//! (`data:` lines alone). The origin frames; the edge passes `Accept` on.

mod query;

use crate::config::split_scheme;
use headwater_protocol::header::{JSON, accepts_event_stream, header_or, is_media_type, is_prefetch};
use headwater_protocol::{
    IdempotencyKey, MAX_BODY_BYTES, MAX_CONVERSATION_BYTES, Problem, PromptName, StreamId, Variables, openai,
};
pub use query::Cursor;
use query::Query;

/// The prompt that has its own path, and the variable and topic that it starts with when none is given.
const SIMPLE: &str = "simple";
const SIMPLE_VARIABLE: &str = "topic";
const SIMPLE_DEFAULT: &str = "dog";

/// The paths of conversations.
const CHAT: &str = "/chat";
const COMPLETIONS: &str = "/v1/chat/completions";

/// The path of the models, and the longest name of one in it, bytes: that of an origin has at most 256, percent-encoded 768.
const MODELS: &str = "/v1/models";
const LONGEST_NAME: usize = 768;

/// What each path answers to.
const START_METHODS: &str = "GET, POST";
const CHAT_METHODS: &str = "GET, POST";
/// Without a cursor. With one, a GET resumes.
const CHAT_START_METHODS: &str = "POST";
const COMPLETIONS_METHODS: &str = "POST";
const MODELS_METHODS: &str = "GET";
const STREAM_METHODS: &str = "GET, DELETE";
const HEALTH_METHODS: &str = "GET, HEAD";

/// A request without its body.
pub struct RequestHead<'a> {
    /// As the runtime gives it: upper case.
    pub method: &'a str,
    /// The address.
    pub url: Url<'a>,
    /// Reads a header by its lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

/// The parts of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Url<'a> {
    /// Scheme, host and a port that is not the default: what a browser sends in `Origin` for a page of this address.
    pub page_origin: &'a str,
    /// Begins with a slash.
    pub path: &'a str,
    /// Without its question mark.
    pub query: &'a str,
}

impl<'a> Url<'a> {
    /// Takes apart an absolute address, as a runtime serialises it (WHATWG URL: there is always a path).
    pub fn of(url: &'a str) -> Self {
        let host = split_scheme(url).map_or(0, |(_, rest)| url.len() - rest.len());
        let (page_origin, target) = match url[host..].find('/') {
            Some(slash) => url.split_at(host + slash),
            None => (url, "/"),
        };
        let target = target.split_once('#').map_or(target, |(target, _fragment)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { page_origin, path, query }
    }

    /// Without scheme and port; an IPv6 address in brackets.
    pub fn host(&self) -> &'a str {
        let host = split_scheme(self.page_origin).map_or("", |(_, host)| host);
        match host.find(']') {
            Some(end) => &host[..=end],
            None => host.split(':').next().unwrap_or_default(),
        }
    }
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// Start a stream, or resume one by its cursor.
    Start(Start),
    /// Start a stream with a conversation.
    Chat(Chat),
    /// Which models are there? Or: what is this one? With the path at an origin.
    Models(String),
    /// Follow a stream, from a cursor or its beginning.
    Follow(StreamId, Option<Cursor>),
    /// End a stream's generation.
    Stop(StreamId),
    /// How are the edge and its origins?
    Health,
    /// What does this path answer to? (`OPTIONS`; a CORS preflight is one.)
    Options(&'static str),
}

/// A request on a start path.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The prompt to fill in.
    pub prompt: PromptName,
    /// What to fill in.
    pub input: Input,
    /// Present: resume this stream, start nothing.
    pub cursor: Option<Cursor>,
    /// The same key is the same stream; but a cursor beats it.
    pub key: Option<IdempotencyKey>,
    /// The answer will be bare, so that a failure can only break it off.
    pub is_bare: bool,
}

/// The interface of a chat that a path belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/chat`, with this project's frames and problems.
    Own,
    /// `/v1/…`, in the manner of OpenAI's.
    OpenAi,
}

impl Api {
    /// `None` for the paths that have nothing to do with chats.
    pub fn of(path: &str) -> Option<Self> {
        if path == CHAT { Some(Self::Own) } else { openai::is_path(path).then_some(Self::OpenAi) }
    }

    /// Where conversations are posted to.
    pub fn path(self) -> &'static str {
        match self {
            Self::Own => CHAT,
            Self::OpenAi => COMPLETIONS,
        }
    }
}

/// A start whose body is a conversation. The edge doesn't read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Chat {
    /// In which manner it is held.
    pub api: Api,
    /// The same key is the same stream.
    pub key: Option<IdempotencyKey>,
    /// The answer will be bare, so that a failure can only break it off.
    pub is_bare: bool,
    /// The most that the body may have, in bytes: its declared length, where there is one.
    pub max_bytes: usize,
}

/// Where a start's variables are.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// They were in the query.
    Query(Variables),
    /// They are in the body, which is yet to be read: JSON of a length that may be right.
    Body,
}

impl Call {
    /// Reads a request's head.
    ///
    /// # Errors
    ///
    /// The problem that answers a request which asks for nothing that there is.
    pub fn parse(head: &RequestHead) -> Result<Self, Problem> {
        let path = head.url.path;
        if path == "/healthz" {
            return match head.method {
                "GET" | "HEAD" => Ok(Self::Health),
                "OPTIONS" => Ok(Self::Options(HEALTH_METHODS)),
                _ => Err(Problem::invalid_method(HEALTH_METHODS)),
            };
        }
        if let Some(id) = path.strip_prefix("/streams/") {
            let id = StreamId::from_path(id).map_err(|_| Problem::no_such_stream());
            return match head.method {
                "GET" => Ok(Self::Follow(id?, head.cursor(Query::parse(head.url.query).cursor())?)),
                "DELETE" => id.map(Self::Stop),
                "OPTIONS" => Ok(Self::Options(STREAM_METHODS)),
                _ => Err(Problem::invalid_method(STREAM_METHODS)),
            };
        }
        if let Some(api) = Api::of(path) {
            return Self::parse_chat(head, api);
        }
        let name = match path.strip_prefix("/prompts/") {
            Some(name) => name,
            None if path == "/simple" => SIMPLE,
            None => return Err(Problem::no_such_path()),
        };
        let prompt = name.parse::<PromptName>().map_err(|_| Problem::no_such_path())?;
        let post = match head.method {
            "GET" => false,
            "POST" => true,
            "OPTIONS" => return Ok(Self::Options(START_METHODS)),
            _ => return Err(Problem::invalid_method(START_METHODS)),
        };
        head.is_wanted()?;
        let mut query = Query::parse(head.url.query);
        let cursor = head.cursor(query.cursor())?;
        let key = match header_or((head.header)("idempotency-key"), query.key.take()).map(|text| text.parse()) {
            // With a cursor, the rest of the request is ignored.
            Some(Err(_)) if cursor.is_some() => None,
            key => key.transpose()?,
        };
        let input = if !post {
            Input::Query(with_default(query.variables, &prompt))
        } else {
            match head.declares_a_fit_body() {
                Ok(()) => Input::Body,
                Err(_) if cursor.is_some() => Input::Query(Variables::default()),
                Err(problem) => return Err(problem),
            }
        };
        let is_bare = cursor.is_none() && !head.accepts_event_stream();
        Ok(Self::Start(Start { prompt, input, cursor, key, is_bare }))
    }

    fn parse_chat(head: &RequestHead, api: Api) -> Result<Self, Problem> {
        let path = head.url.path;
        let model = path.strip_prefix(MODELS);
        let methods = match (api, model) {
            (Api::Own, _) => CHAT_METHODS,
            (Api::OpenAi, _) if path == COMPLETIONS => COMPLETIONS_METHODS,
            (Api::OpenAi, Some("")) => MODELS_METHODS,
            (Api::OpenAi, Some(name)) if name.starts_with('/') => MODELS_METHODS,
            _ => return Err(Problem::no_such_path()),
        };
        if head.method == "OPTIONS" {
            return Ok(Self::Options(methods));
        }
        if !methods.split([',', ' ']).any(|method| method == head.method) {
            return Err(Problem::invalid_method(methods));
        }
        if let (Api::OpenAi, Some(name)) = (api, model) {
            return models_path(name).map(Self::Models).ok_or_else(Problem::no_such_path);
        }
        head.is_wanted()?;
        let mut query = Query::parse(head.url.query);
        if api == Api::Own {
            // As at `/streams/ID`. With a cursor, the rest of the request is ignored.
            if let Some(cursor) = head.cursor(query.cursor())? {
                let stream = cursor.stream.clone().ok_or_else(Problem::malformed_cursor)?;
                return Ok(Self::Follow(stream, Some(cursor)));
            }
            if head.method == "GET" {
                return Err(Problem::invalid_method(CHAT_START_METHODS));
            }
        }
        let key = header_or((head.header)("idempotency-key"), query.key);
        let key = key.map(|text| text.parse()).transpose()?;
        let max_bytes = head.declared_bytes(MAX_CONVERSATION_BYTES)?.unwrap_or(MAX_CONVERSATION_BYTES);
        let is_bare = api == Api::Own && !head.accepts_event_stream();
        Ok(Self::Chat(Chat { api, key, is_bare, max_bytes }))
    }
}

/// Reads the body of a start.
///
/// # Errors
///
/// When it is not a JSON object whose values are strings.
pub fn read_variables(body: &[u8], prompt: &PromptName) -> Result<Variables, Problem> {
    Ok(with_default(Variables::from_json(body)?, prompt))
}

/// The path of the models, or of one, whose name may hold slashes and colons, percent-encoded or not: `/openai%3Agpt-4o`. At an
/// origin the name is one segment, and so no way to other paths: `fetch` resolves `..`, however that is spelled.
fn models_path(name: &str) -> Option<String> {
    let Some(name) = name.strip_prefix('/') else { return Some(MODELS.to_owned()) };
    let is_dots = ["", ".", "..", "%2e", ".%2e", "%2e.", "%2e%2e"].iter().any(|dots| name.eq_ignore_ascii_case(dots));
    // Of tabs and line ends in an address `fetch` takes no notice.
    if is_dots || name.len() > LONGEST_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut path = [MODELS, "/"].concat();
    for character in name.chars() {
        match character {
            '/' => path.push_str("%2F"),
            '\\' => path.push_str("%5C"),
            _ => path.push(character),
        }
    }
    Some(path)
}

/// A poem needs a topic: an empty one counts as none.
fn with_default(mut variables: Variables, prompt: &PromptName) -> Variables {
    if prompt.as_str() == SIMPLE {
        let topic = variables.0.entry(SIMPLE_VARIABLE.to_owned()).or_default();
        if topic.trim().is_empty() {
            SIMPLE_DEFAULT.clone_into(topic);
        }
    }
    variables
}

impl RequestHead<'_> {
    /// `Last-Event-ID` (HTML, section 9.2.4), else what the query says.
    fn cursor(&self, in_query: Option<String>) -> Result<Option<Cursor>, Problem> {
        header_or((self.header)("last-event-id"), in_query)
            .map(|text| Cursor::parse(text).ok_or_else(Problem::malformed_cursor))
            .transpose()
    }

    fn declares_a_fit_body(&self) -> Result<(), Problem> {
        if !(self.header)("content-type").is_some_and(|text| is_media_type(&text, JSON)) {
            return Err(Problem::not_json());
        }
        self.declared_bytes(MAX_BODY_BYTES).map(drop)
    }

    /// The length of the body, where that is said in advance.
    fn declared_bytes(&self, most: usize) -> Result<Option<usize>, Problem> {
        match (self.header)("content-length").and_then(|text| text.parse::<u64>().ok()) {
            None => Ok(None),
            Some(bytes) => match usize::try_from(bytes) {
                Ok(bytes) if bytes <= most => Ok(Some(bytes)),
                _ => Err(Problem::too_large(most)),
            },
        }
    }

    fn accepts_event_stream(&self) -> bool {
        (self.header)("accept").is_some_and(|text| accepts_event_stream(&text))
    }

    /// Somebody waits for the answer: it is not a browser that prepares for a click.
    fn is_wanted(&self) -> Result<(), Problem> {
        if (self.header)("sec-purpose").is_some_and(|purpose| is_prefetch(&purpose)) {
            return Err(Problem::prefetch());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
