//! What is asked? A request's head becomes a [`Call`], or the problem that answers it.
//!
//! Everything that comes from outside is parsed into a type here, and not looked at again.
//!
//! A start's answer is *framed* (events with ids, a terminal event) where its `Accept` names event streams, else *bare*
//! (`data:` lines alone). The origin decides that; the edge passes `Accept` on.

use headwater_protocol::header::{JSON, header_or, is_media_type, is_prefetch};
use headwater_protocol::{
    CURSOR_PARAMETERS, IdempotencyKey, KEY_PARAMETER, MAX_BODY_BYTES, Problem, PromptName, StreamId, Variables,
};

/// The longest cursor, in bytes. The project's own have at most 60; other servers' ids pass through.
const MAX_CURSOR_BYTES: usize = 1024;

/// The prompt that has its own path, and the variable and topic that it starts with when none is given.
const SIMPLE: &str = "simple";
const SIMPLE_VARIABLE: &str = "topic";
const SIMPLE_DEFAULT: &str = "dog";

/// What each path answers to.
const START_METHODS: &str = "GET, POST";
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
        let host = url.find("://").map_or(0, |colon| colon + "://".len());
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
        let host = self.page_origin.split_once("://").map_or("", |(_, host)| host);
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
            let id = id.parse::<StreamId>().map_err(|_| Problem::no_such_stream());
            return match head.method {
                "GET" => Ok(Self::Follow(id?, head.cursor(Query::parse(head.url.query).cursor())?)),
                "DELETE" => id.map(Self::Stop),
                "OPTIONS" => Ok(Self::Options(STREAM_METHODS)),
                _ => Err(Problem::invalid_method(STREAM_METHODS)),
            };
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
        if (head.header)("sec-purpose").is_some_and(|purpose| is_prefetch(&purpose)) {
            return Err(Problem::prefetch());
        }
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
        Ok(Self::Start(Start { prompt, input, cursor, key }))
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

/// What a query holds. Where a name stands twice the last one counts, as in a body.
#[derive(Default)]
struct Query {
    variables: Variables,
    /// One for each of [`CURSOR_PARAMETERS`].
    cursors: [Option<String>; CURSOR_PARAMETERS.len()],
    key: Option<String>,
}

impl Query {
    fn parse(text: &str) -> Self {
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

    fn cursor(&mut self) -> Option<String> {
        self.cursors.iter_mut().filter_map(Option::take).find(|text| !text.is_empty())
    }
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
        let declared = (self.header)("content-length").and_then(|text| text.parse::<u64>().ok());
        if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
            return Err(Problem::too_large());
        }
        Ok(())
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
    fn parse(text: String) -> Option<Self> {
        let fits = text.len() <= MAX_CURSOR_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        let stream = text.parse().ok().map(|cursor: headwater_protocol::Cursor| cursor.id);
        fits.then_some(Self { text, stream })
    }

    /// The cursor as it came.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const ID: &str = "a-0123456789ABCDEFGHIJkl";

    pub(crate) fn call(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Call, Problem> {
        let url = ["https://edge.example", target].concat();
        Call::parse(&RequestHead {
            method,
            url: Url::of(&url),
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
        let prompt = SIMPLE.parse().expect("a name");
        read_variables(body.as_bytes(), &prompt)
            .map(|variables| variables.to_json())
            .map_err(|problem| problem.status())
    }

    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        match call(method, target, headers) {
            Err(problem) => problem.status(),
            Ok(call) => panic!("{method} {target}: {call:?}"),
        }
    }

    const IS_JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn an_address_is_taken_apart() {
        let url = |page_origin, path, query| Url { page_origin, path, query };
        assert_eq!(Url::of("http://h:1/a/b?c=d?e"), url("http://h:1", "/a/b", "c=d?e"));
        assert_eq!(Url::of("http://h"), url("http://h", "/", ""));
        assert_eq!(Url::of("https://h/a#b?c"), url("https://h", "/a", ""));
        assert_eq!(
            ["http://h:1/a", "http://h", "http://[::1]:1/", "x"].map(|text| Url::of(text).host()),
            ["h", "h", "[::1]", ""]
        );
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
            assert_eq!((problem.status(), problem.allow()), (405, Some(allow)), "{method} {target}");
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
        let id = || ID.parse::<StreamId>().expect("an id");
        assert_eq!(call("GET", &path, &[]), Ok(Call::Follow(id(), None)));
        assert_eq!(call("DELETE", &path, &[]), Ok(Call::Stop(id())));
        assert_eq!(id().origin(), "a");
    }

    #[test]
    fn what_is_no_id_is_no_stream() {
        for path in ["/streams/", "/streams/a", &format!("/streams/{ID}/x"), &format!("/streams/{ID}.0")] {
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
        assert_eq!(stream(ID), Some(ID.parse().expect("an id")));
        assert_eq!(stream(&format!("{ID}.0")), Some(ID.parse().expect("an id")));
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
        assert_eq!(status("GET", "/simple", &[("idempotency-key", "short")]), 400);
    }

    #[test]
    fn a_cursor_has_two_names_in_a_query_and_the_first_wins() {
        let cursor = |query: &str| start("GET", &format!("/simple?{query}"), &[]).cursor.expect("a cursor").text;
        assert_eq!(cursor(&format!("lastEventId={ID}.5")), format!("{ID}.5"));
        // The polyfill adds its newest cursor to the query that it was opened with.
        assert_eq!(cursor(&format!("last_event_id={ID}.3&lastEventId={ID}.5")), format!("{ID}.5"));
        assert_eq!(cursor(&format!("lastEventId=&last_event_id={ID}.5")), format!("{ID}.5"));
        assert_eq!(query_json("/prompts/haiku?lastEventId=&mood=calm"), r#"{"mood":"calm"}"#);
    }

    #[test]
    fn options_says_what_a_path_answers_to() {
        assert_eq!(call("OPTIONS", "/simple", &[]), Ok(Call::Options(START_METHODS)));
    }
}
