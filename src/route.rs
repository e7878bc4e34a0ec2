//! What is asked? The parts of a request become a [`Call`], or the problem that answers it.
//!
//! Everything that comes from outside is parsed into a type here, and not looked at again.

use crate::config::is_origin_name;
use crate::problem::Problem;
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};

/// The largest body of a start, in bytes: a prompt's variables are short, and an edge has little memory.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// The longest cursor, in bytes. The project's own have at most 60; other servers' ids pass through.
const MAX_CURSOR_BYTES: usize = 1024;

/// The lengths of an idempotency key, in bytes: long enough not to be guessed, short enough to be kept.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 16..=128;

/// The characters behind the hyphen of a stream's id: 130 bits that nobody guesses.
const ID_CHARS: usize = 22;

/// The longest name of a prompt, in characters.
const MAX_PROMPT_CHARS: usize = 64;

/// The most digits of a cursor's event number: those of a 64-bit number.
const MAX_EVENT_DIGITS: usize = 20;

/// The prompt that has its own path, and the variable and topic that it starts with when none is given.
const SIMPLE: &str = "simple";
const SIMPLE_VARIABLE: &str = "topic";
const SIMPLE_DEFAULT: &str = "dog";

/// Query names that are no variables: where headers can't be set (`EventSource`), they stand for one.
const CURSOR_QUERY: &str = "last_event_id";
const KEY_QUERY: &str = "idempotency_key";

/// What each path answers to.
const START_METHODS: &str = "GET, POST";
const STREAM_METHODS: &str = "GET, DELETE";
const HEALTH_METHODS: &str = "GET, HEAD";

/// A request without its body.
pub struct Parts<'a> {
    /// As the runtime gives it: upper case.
    pub method: &'a str,
    /// The path and query of the address.
    pub target: Target<'a>,
    /// Reads a header by its lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<String>,
}

/// The parts of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Scheme, host and a port that is not the default: as a page of this edge sends it in `Origin`.
    pub origin: &'a str,
    /// Begins with a slash.
    pub path: &'a str,
    /// Without its question mark.
    pub query: &'a str,
}

impl<'a> Target<'a> {
    /// Takes apart an absolute address, as a runtime serialises it (WHATWG URL: there is always a path).
    pub fn of(url: &'a str) -> Self {
        let host = url.find("://").map_or(0, |colon| colon + "://".len());
        let (origin, target) = match url[host..].find('/') {
            Some(slash) => url.split_at(host + slash),
            None => (url, "/"),
        };
        let target = target.split_once('#').map_or(target, |(target, _fragment)| target);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self { origin, path, query }
    }
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Call {
    /// Start a stream, or resume one by its cursor.
    Start(Start),
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
    /// Reads a request.
    ///
    /// # Errors
    ///
    /// The problem that answers a request which asks for nothing that there is.
    pub fn parse(parts: &Parts) -> Result<Self, Problem> {
        let path = parts.target.path;
        if path == "/healthz" {
            return match parts.method {
                "GET" | "HEAD" => Ok(Self::Health),
                "OPTIONS" => Ok(Self::Options(HEALTH_METHODS)),
                _ => Err(Problem::invalid_method(HEALTH_METHODS)),
            };
        }
        if let Some(id) = path.strip_prefix("/streams/") {
            let id = StreamId::parse(id).ok_or(Problem::unknown_stream());
            return match parts.method {
                "GET" => Ok(Self::Follow(id?, parts.cursor(Query::parse(parts.target.query).cursor)?)),
                "DELETE" => id.map(Self::Stop),
                "OPTIONS" => Ok(Self::Options(STREAM_METHODS)),
                _ => Err(Problem::invalid_method(STREAM_METHODS)),
            };
        }
        let prompt = match path.strip_prefix("/prompts/") {
            Some(name) => PromptName::parse(name).ok_or(Problem::not_found())?,
            None if path == "/simple" => PromptName(SIMPLE.to_owned()),
            None => return Err(Problem::not_found()),
        };
        let post = match parts.method {
            "GET" => false,
            "POST" => true,
            "OPTIONS" => return Ok(Self::Options(START_METHODS)),
            _ => return Err(Problem::invalid_method(START_METHODS)),
        };
        if parts.is_prefetch() {
            return Err(Problem::prefetch());
        }
        let query = Query::parse(parts.target.query);
        let cursor = parts.cursor(query.cursor)?;
        let input = if !post {
            Input::Query(Variables(query.variables).with_default(&prompt))
        } else {
            match parts.declares_a_fit_body() {
                Ok(()) => Input::Body,
                // A cursor says all.
                Err(_) if cursor.is_some() => Input::Query(Variables::default()),
                Err(problem) => return Err(problem),
            }
        };
        let key = match parts.key(query.key) {
            Err(_) if cursor.is_some() => None,
            key => key?,
        };
        Ok(Self::Start(Start { prompt, input, cursor, key }))
    }
}

/// What a query holds. Where a name stands twice the last one counts, as in a body.
#[derive(Default)]
struct Query {
    variables: Map<String, Value>,
    cursor: Option<String>,
    key: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                CURSOR_QUERY => query.cursor = Some(value),
                KEY_QUERY => query.key = Some(value),
                _ => {
                    query.variables.insert(name.into_owned(), Value::String(value));
                }
            }
        }
        query
    }
}

impl Parts<'_> {
    /// `Last-Event-ID` (HTML, section 9.2.4), else what the query says.
    fn cursor(&self, in_query: Option<String>) -> Result<Option<Cursor>, Problem> {
        self.header_or("last-event-id", in_query)
            .map(|text| Cursor::parse(text).ok_or(Problem::bad_cursor()))
            .transpose()
    }

    fn key(&self, in_query: Option<String>) -> Result<Option<IdempotencyKey>, Problem> {
        self.header_or("idempotency-key", in_query)
            .map(|text| {
                IdempotencyKey::parse(text)
                    .ok_or(Problem::bad_request("an idempotency key has 16 to 128 visible ASCII characters"))
            })
            .transpose()
    }

    /// An empty one is none, wherever it stands.
    fn header_or(&self, name: &str, in_query: Option<String>) -> Option<String> {
        let is_given = |text: &String| !text.is_empty();
        (self.header)(name).filter(is_given).or(in_query.filter(is_given))
    }

    /// `Sec-Purpose` is a structured field (RFC 9651): `prefetch`, or `prefetch;prerender` and the like.
    fn is_prefetch(&self) -> bool {
        (self.header)("sec-purpose")
            .is_some_and(|purpose| purpose.split([';', ',']).any(|item| item.trim() == "prefetch"))
    }

    fn declares_a_fit_body(&self) -> Result<(), Problem> {
        if !(self.header)("content-type").is_some_and(|text| is_media_type(&text, JSON)) {
            return Err(Problem::not_json());
        }
        let declared = (self.header)("content-length").and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
            return Err(Problem::too_large());
        }
        Ok(())
    }
}

/// JSON's media type (RFC 8259, section 11).
pub const JSON: &str = "application/json";

/// Compares a `Content-Type` without its parameters (RFC 9110, section 8.3.1).
pub(crate) fn is_media_type(content_type: &str, media_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(media_type))
}

/// `[A-Za-z0-9_-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptName(String);

impl PromptName {
    fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_PROMPT_CHARS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a prompt's placeholders stand for: strings, by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Variables(Map<String, Value>);

impl Variables {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// When it is not a JSON object whose values are strings.
    pub fn from_json(body: &[u8], prompt: &PromptName) -> Result<Self, Problem> {
        // By way of `Value`: a typed parser brings messages, floating-point formatting included, that nobody would read.
        match serde_json::from_slice(body) {
            Ok(Value::Object(members)) if members.values().all(Value::is_string) => {
                Ok(Self(members).with_default(prompt))
            }
            Ok(_) => Err(Problem::bad_request("the body must be a JSON object whose values are strings")),
            Err(_) => Err(Problem::bad_request("the body is not JSON")),
        }
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // A map of strings: there is nothing here that JSON can't hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A poem needs a topic: an empty one counts as none.
    fn with_default(mut self, prompt: &PromptName) -> Self {
        if prompt.as_str() == SIMPLE {
            let topic = self.0.entry(SIMPLE_VARIABLE).or_insert(Value::Null);
            if topic.as_str().is_none_or(|topic| topic.trim().is_empty()) {
                *topic = SIMPLE_DEFAULT.into();
            }
        }
        self
    }
}

/// As the strings that they are: by way of `Value` the formatting of numbers would come along.
impl Serialize for Variables {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value.as_str())))
    }
}

/// The id of a stream: its origin's name, a hyphen, and 22 characters of `[0-9A-Za-z]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamId(String);

impl StreamId {
    fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('-')?;
        let fits =
            is_origin_name(name) && rest.len() == ID_CHARS && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the origin that generates the stream.
    pub fn origin(&self) -> &str {
        self.0.split_once('-').map_or("", |(name, _)| name)
    }
}

/// A place in a stream. What it means is for the origin to say; the edge reads from it where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    text: String,
    /// The stream, if the cursor is one of this project's origins: `ID` or `ID.n`.
    pub stream: Option<StreamId>,
}

impl Cursor {
    /// `None` for what no server can have sent: an id that fits no header.
    fn parse(text: String) -> Option<Self> {
        let fits = text.len() <= MAX_CURSOR_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| {
            let stream = match text.split_once('.') {
                None => StreamId::parse(&text),
                Some((id, event)) if is_event_number(event) => StreamId::parse(id),
                Some(_) => None,
            };
            Self { text, stream }
        })
    }

    /// The cursor as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn is_event_number(text: &str) -> bool {
    (1..=MAX_EVENT_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// 16 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// `None` when the text is no key.
    pub fn parse(text: String) -> Option<Self> {
        let fits = KEY_BYTES.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then_some(Self(text))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ID: &str = "a-0123456789ABCDEFGHIJkl";

    pub(crate) fn call(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Call, Problem> {
        let url = ["https://edge.example", target].concat();
        Call::parse(&Parts {
            method,
            target: Target::of(&url),
            header: &|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    fn start(method: &str, target: &str, headers: &[(&str, &str)]) -> Start {
        match call(method, target, headers) {
            Ok(Call::Start(start)) => start,
            other => panic!("{method} {target}: {other:?}"),
        }
    }

    fn query_json(target: &str) -> String {
        match start("GET", target, &[]).input {
            Input::Query(variables) => variables.to_json(),
            Input::Body => panic!("{target}: no body in a GET"),
        }
    }

    fn body_json(body: &str) -> Result<String, u16> {
        Variables::from_json(body.as_bytes(), &PromptName(SIMPLE.to_owned()))
            .map(|variables| variables.to_json())
            .map_err(|problem| problem.status)
    }

    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        match call(method, target, headers) {
            Err(problem) => problem.status,
            Ok(call) => panic!("{method} {target}: {call:?}"),
        }
    }

    const IS_JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn an_address_is_taken_apart() {
        let target = |origin, path, query| Target { origin, path, query };
        assert_eq!(Target::of("http://h:1/a/b?c=d?e"), target("http://h:1", "/a/b", "c=d?e"));
        assert_eq!(Target::of("http://h"), target("http://h", "/", ""));
        assert_eq!(Target::of("https://h/a#b?c"), target("https://h", "/a", ""));
    }

    #[test]
    fn simple_asks_for_a_poem_about_the_topic() {
        assert_eq!(query_json("/simple?topic=caf%C3%A9+%22cat%22"), r#"{"topic":"café \"cat\""}"#);
        assert_eq!(body_json(r#"{"topic":"cat"}"#), Ok(r#"{"topic":"cat"}"#.into()));
        assert_eq!(start("GET", "/simple", &[]), start("GET", "/prompts/simple", &[]));
    }

    #[test]
    fn an_empty_topic_is_a_dog() {
        for target in ["/simple", "/simple?topic=", "/simple?topic=%20", "/prompts/simple"] {
            assert_eq!(query_json(target), r#"{"topic":"dog"}"#, "{target}");
        }
        for body in ["{}", r#"{"topic":""}"#] {
            assert_eq!(body_json(body), Ok(r#"{"topic":"dog"}"#.into()), "{body}");
        }
    }

    #[test]
    fn other_prompts_get_what_was_given_and_no_more() {
        assert_eq!(query_json("/prompts/haiku?mood=calm&season="), r#"{"mood":"calm","season":""}"#);
    }

    #[test]
    fn reserved_query_names_are_no_variables() {
        let target = format!("/simple?last_event_id={ID}.3&idempotency_key=0123456789abcdef");
        assert_eq!(query_json(&target), r#"{"topic":"dog"}"#);
        let start = start("GET", &target, &[]);
        assert_eq!(start.cursor.expect("a cursor").as_str(), format!("{ID}.3").as_str());
        assert_eq!(start.key.expect("a key").as_str(), "0123456789abcdef");
    }

    #[test]
    fn a_header_wins_over_the_query() {
        let header = format!("{ID}.7");
        let start = start("GET", &format!("/simple?last_event_id={ID}.3"), &[("last-event-id", &header)]);
        assert_eq!(start.cursor.expect("a cursor").as_str(), header);
    }

    #[test]
    fn a_cursor_beats_a_bad_key_and_a_missing_body() {
        let resume = [("last-event-id", ID), ("idempotency-key", "short")];
        for (method, input) in [("GET", r#"{"topic":"dog"}"#), ("POST", "{}")] {
            let start = start(method, "/simple", &resume);
            assert!(start.cursor.is_some() && start.key.is_none(), "{method}");
            assert!(matches!(start.input, Input::Query(variables) if variables.to_json() == input), "{method}");
        }
    }

    #[test]
    fn a_body_is_an_object_of_strings() {
        for body in [
            "",
            "{",
            "nope",
            "[]",
            "null",
            "1",
            r#"{"topic":1}"#,
            r#"{"topic":null}"#,
            r#"{"topic":["a"]}"#,
            "\u{feff}{}",
        ] {
            assert_eq!(body_json(body), Err(400), "{body}");
        }
        let deep = "[".repeat(8_000) + &"]".repeat(8_000);
        assert_eq!(body_json(&format!(r#"{{"topic":{deep}}}"#)), Err(400));
        let not_utf8 = Variables::from_json(b"{\"topic\":\"\xff\"}", &PromptName("x".into()));
        assert_eq!(not_utf8.map_err(|problem| problem.status), Err(400));
    }

    #[test]
    fn a_post_is_json_of_a_declared_length_that_fits() {
        assert_eq!(start("POST", "/simple", &[IS_JSON]).input, Input::Body);
        let with_charset = ("content-type", "Application/JSON; charset=utf-8");
        assert_eq!(start("POST", "/simple", &[with_charset]).input, Input::Body);
        assert_eq!(status("POST", "/simple", &[]), 415);
        assert_eq!(status("POST", "/simple", &[("content-type", "text/plain")]), 415);
        assert_eq!(status("POST", "/simple", &[IS_JSON, ("content-length", "16385")]), 413);
        assert_eq!(start("POST", "/simple", &[IS_JSON, ("content-length", "16384")]).input, Input::Body);
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        for (method, target, allow) in [
            ("PUT", "/simple", "GET, POST"),
            ("HEAD", "/simple", "GET, POST"),
            ("DELETE", "/prompts/haiku", "GET, POST"),
            ("POST", "/streams/x", "GET, DELETE"),
            ("HEAD", "/streams/x", "GET, DELETE"),
            ("POST", "/healthz", "GET, HEAD"),
        ] {
            let problem = call(method, target, &[IS_JSON]).expect_err("a problem");
            assert_eq!((problem.status, problem.allow), (405, Some(allow)), "{method} {target}");
        }
    }

    #[test]
    fn a_prefetch_starts_nothing() {
        for purpose in ["prefetch", "prefetch;prerender"] {
            assert_eq!(status("GET", "/simple", &[("sec-purpose", purpose)]), 503);
        }
    }

    #[test]
    fn a_stream_is_followed_and_stopped_by_its_id() {
        let path = format!("/streams/{ID}");
        let id = || StreamId(ID.to_owned());
        assert_eq!(call("GET", &path, &[]), Ok(Call::Follow(id(), None)));
        assert_eq!(call("DELETE", &path, &[]), Ok(Call::Stop(id())));
        assert_eq!(id().origin(), "a");
    }

    #[test]
    fn what_is_no_id_is_no_stream() {
        for path in [
            "/streams/",
            "/streams/a",
            "/streams/a-short",
            "/streams/A-0123456789ABCDEFGHIJkl",
            "/streams/a-0123456789ABCDEFGHIJk_",
            "/streams/a-0123456789ABCDEFGHIJkl/x",
            "/streams/-0123456789ABCDEFGHIJkl",
        ] {
            assert_eq!(status("GET", path, &[]), 404, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_of_ours_is_not_found() {
        for path in ["/", "/simple/", "/prompts", "/prompts/", "/prompts/a/b", "/prompts/a%2Fb", "/streams"] {
            assert_eq!(status("GET", path, &[]), 404, "{path}");
        }
    }

    #[test]
    fn a_cursor_that_fits_no_header_is_refused() {
        for cursor in ["a b", "\u{e9}", "a\u{0}", &"x".repeat(10_240)] {
            assert_eq!(status("GET", "/simple", &[("last-event-id", cursor)]), 400, "{cursor:.20}");
        }
    }

    #[test]
    fn a_cursor_names_its_stream() {
        let stream = |text: &str| Cursor::parse(text.to_owned()).expect("fits").stream;
        assert_eq!(stream(ID), Some(StreamId(ID.to_owned())));
        assert_eq!(stream(&format!("{ID}.0")), Some(StreamId(ID.to_owned())));
        for text in ["42", &format!("{ID}."), &format!("{ID}.-1"), &format!("{ID}.1.2")] {
            assert_eq!(stream(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_header_is_none_and_does_not_hide_the_query() {
        let empty = [("last-event-id", ""), ("idempotency-key", "")];
        let nothing = start("GET", "/simple?last_event_id=&idempotency_key=", &empty);
        assert_eq!((nothing.cursor, nothing.key), (None, None));
        let queried = start("GET", &format!("/simple?last_event_id={ID}.3&idempotency_key=0123456789abcdef"), &empty);
        assert_eq!(queried.cursor.expect("a cursor").as_str(), format!("{ID}.3").as_str());
        assert_eq!(queried.key.expect("a key").as_str(), "0123456789abcdef");
    }

    #[test]
    fn where_a_name_stands_twice_the_last_one_counts() {
        let target = format!(
            "/simple?topic=a&topic=b&last_event_id={ID}.1&last_event_id={ID}.2\
             &idempotency_key=0123456789abcdef&idempotency_key=fedcba9876543210"
        );
        assert_eq!(query_json(&target), r#"{"topic":"b"}"#);
        assert_eq!(body_json(r#"{"topic":"a","topic":"b"}"#), Ok(r#"{"topic":"b"}"#.into()));
        let start = start("GET", &target, &[]);
        assert_eq!(start.cursor.expect("a cursor").as_str(), format!("{ID}.2").as_str());
        assert_eq!(start.key.expect("a key").as_str(), "fedcba9876543210");
    }

    #[test]
    fn a_bad_key_is_refused() {
        for key in ["short", "0123456789 abcdef", &"x".repeat(129)] {
            assert_eq!(status("GET", "/simple", &[("idempotency-key", key)]), 400);
        }
    }

    #[test]
    fn options_says_what_a_path_answers_to() {
        assert_eq!(call("OPTIONS", "/simple", &[]), Ok(Call::Options(START_METHODS)));
    }
}
