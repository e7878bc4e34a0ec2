//! The request to an origin, which origins to ask in which order, and what their answers are worth.

use crate::config::{Config, Origin};
use crate::policy::ClientAddress;
use crate::problem::{self, Problem};
use crate::route::{Cursor, IdempotencyKey, JSON, PromptName, StreamId, Variables, is_media_type};
use serde::ser::{Serialize, Serializer};
use serde_json::Value;
use std::time::Duration;

/// How long an origin may take to send its headers. It promises them within 2 s.
pub const HEADERS_DEADLINE: Duration = Duration::from_secs(10);

/// What is copied from a client's request. The rest of the request's headers is the edge's own.
const REQUEST_HEADERS: &[&str] = &["accept", "traceparent"];

/// What is copied from an origin's answer.
const RESPONSE_HEADERS: &[&str] = &[
    "content-type",
    "cache-control",
    "content-location",
    "retry-after",
    "allow",
    "vary",
    "server-timing",
    "x-accel-buffering",
];

/// The media type of a stream (HTML, section 9.2.4).
const EVENT_STREAM: &str = "text/event-stream";

/// Statuses that stand for "no origin" in production, where a failed connection is an answer and no exception.
const UNREACHED: std::ops::RangeInclusive<u16> = 520..=530;

/// Headers on their way in or out; each name stands once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(&'static str, String)>);

impl HeaderList {
    /// Copies the named headers, and nothing else: the only way in which a header crosses the edge. A value that no
    /// header can hold (RFC 9110, section 5.5, without the obsolete bytes) stays behind.
    pub fn copy(names: &[&'static str], get: &dyn Fn(&str) -> Option<String>) -> Self {
        let is_field_value =
            |value: &String| value.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'));
        Self(names.iter().filter_map(|name| Some((*name, get(name).filter(is_field_value)?))).collect())
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

/// A request that any origin can be asked.
#[derive(Debug)]
pub struct OriginRequest {
    /// Upper case.
    pub method: &'static str,
    /// On an origin of this project.
    pub path: String,
    /// All that are sent.
    pub headers: HeaderList,
    /// JSON.
    pub body: Option<String>,
}

impl OriginRequest {
    /// The request that starts a stream, or resumes one.
    pub fn start(
        headers: HeaderList,
        prompt: &PromptName,
        variables: &Variables,
        cursor: Option<&Cursor>,
        key: Option<&IdempotencyKey>,
    ) -> Self {
        let mut request = Self::new("POST", ["/prompts/", prompt.as_str()].concat(), headers);
        request.headers.append("content-type", JSON);
        request.resume(cursor);
        if let Some(key) = key {
            request.headers.append("idempotency-key", key.as_str());
        }
        request.body = Some(variables.to_json());
        request
    }

    /// The request that follows a stream.
    pub fn follow(headers: HeaderList, stream: &StreamId, cursor: Option<&Cursor>) -> Self {
        let mut request = Self::new("GET", stream_path(stream), headers);
        request.resume(cursor);
        request
    }

    /// The request that ends a stream.
    pub fn stop(headers: HeaderList, stream: &StreamId) -> Self {
        Self::new("DELETE", stream_path(stream), headers)
    }

    /// The request that asks an origin how it is.
    pub fn health(headers: HeaderList) -> Self {
        Self::new("GET", "/healthz".to_owned(), headers)
    }

    fn new(method: &'static str, path: String, headers: HeaderList) -> Self {
        Self { method, path, headers, body: None }
    }

    fn resume(&mut self, cursor: Option<&Cursor>) {
        if let Some(cursor) = cursor {
            self.headers.append("last-event-id", cursor.as_str());
        }
    }
}

fn stream_path(stream: &StreamId) -> String {
    ["/streams/", stream.as_str()].concat()
}

/// The headers that every request to an origin has.
pub fn request_headers(
    config: &Config,
    client: Option<ClientAddress>,
    get: &dyn Fn(&str) -> Option<String>,
) -> HeaderList {
    let mut headers = HeaderList::copy(REQUEST_HEADERS, get);
    headers.append("authorization", &config.secret.bearer());
    // A compressed stream arrives in clumps.
    headers.append("accept-encoding", "identity");
    if let Some(client) = client {
        headers.append("x-headwater-client", &client.to_string());
    }
    headers
}

/// The headers of an answer that is passed on; `Server-Timing` says who gave it.
pub fn response_headers(origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = HeaderList::copy(RESPONSE_HEADERS, get);
    let origin = ["origin;desc=\"", &origin.name, "\""].concat();
    headers.append("server-timing", &origin);
    headers
}

/// Which origins to ask, one attempt each, and what to make of their answers.
#[derive(Debug)]
pub struct Plan<'a> {
    /// In the order in which they are asked. Never empty.
    pub origins: Vec<&'a Origin>,
    /// One of them may start a generation.
    pub starts: bool,
    /// A stream is asked for that may be there when its origin is back.
    resumes: bool,
    shared_journal: bool,
}

impl<'a> Plan<'a> {
    /// For a start, or for resuming a stream by its cursor on a start path.
    ///
    /// # Errors
    ///
    /// When the cursor can be none of these origins'.
    pub fn start(config: &'a Config, cursor: Option<&Cursor>) -> Result<Self, Problem> {
        let Some(cursor) = cursor else {
            return Ok(Self {
                origins: config.origins.iter().collect(),
                starts: true,
                resumes: false,
                shared_journal: config.shared_journal,
            });
        };
        let own = match &cursor.stream {
            Some(stream) => Self::stream(config, stream),
            None => Err(Problem::bad_cursor()),
        };
        own.or_else(|problem| {
            // Other servers have ids of their own, and may start anew whatever the cursor: that counts as a start.
            let origins: Vec<_> = config.origins.iter().filter(|origin| origin.url.is_foreign()).collect();
            if origins.is_empty() {
                return Err(problem);
            }
            Ok(Self { origins, starts: true, resumes: true, shared_journal: config.shared_journal })
        })
    }

    /// For a stream: the origin that its id names; with a shared journal the others as well.
    ///
    /// # Errors
    ///
    /// When no origin of that name is known.
    pub fn stream(config: &'a Config, stream: &StreamId) -> Result<Self, Problem> {
        let mut origins: Vec<_> = own_origins(config).collect();
        let named = origins.iter().position(|origin| origin.name == stream.origin());
        match named {
            Some(index) if config.shared_journal => origins[..=index].rotate_right(1),
            Some(index) => origins = vec![origins[index]],
            // Names only tell origins apart: where there is one, it is the one.
            None if config.shared_journal || origins.len() == 1 => {}
            None => origins.clear(),
        }
        if origins.is_empty() {
            return Err(Problem::unknown_stream());
        }
        Ok(Self { origins, starts: false, resumes: true, shared_journal: config.shared_journal })
    }

    /// What to do when an origin gave no answer.
    pub fn failed(&self, failure: Failure) -> Refusal {
        match failure {
            Failure::Unreached => Refusal::Next(self.away()),
            // It may have started: only where journals are shared does the key find that stream again.
            Failure::TimedOut if self.shared_journal => Refusal::Next(Problem::origin_timeout()),
            Failure::TimedOut => Refusal::Final(Problem::origin_timeout()),
        }
    }

    /// What an answer is worth.
    pub fn judge(&self, answer: &AnswerHead) -> Verdict {
        let is = |media_type| answer.content_type.is_some_and(|text| is_media_type(text, media_type));
        let is_problem = is(problem::MEDIA_TYPE);
        match answer.status {
            status if UNREACHED.contains(&status) => Verdict::Refuse(self.away()),
            502 | 503 if !is_problem => Verdict::Refuse(self.away()),
            _ if answer.is_encoded() => Verdict::Refuse(UNUSABLE),
            // The origin and this edge do not share a secret. Nothing that a client could mend.
            401 => Verdict::Refuse(Problem::origin_unreachable("the origin does not accept this edge")),
            503 => Verdict::PassUnlessOverloaded,
            400..=599 if is_problem => Verdict::Pass,
            200 if is(EVENT_STREAM) => Verdict::Pass,
            204 => Verdict::Pass,
            _ => Verdict::Refuse(UNUSABLE),
        }
    }

    fn away(&self) -> Problem {
        if self.resumes { Problem::stream_away() } else { Problem::origin_unreachable("no origin could be reached") }
    }
}

const UNUSABLE: Problem = Problem::origin_unreachable("the origin's answer was neither a stream nor a problem");

/// The origins that speak this project's whole interface.
pub fn own_origins(config: &Config) -> impl Iterator<Item = &Origin> {
    config.origins.iter().filter(|origin| !origin.url.is_foreign())
}

/// Why an origin gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or it broke.
    Unreached,
    /// No headers within [`HEADERS_DEADLINE`].
    TimedOut,
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
}

impl AnswerHead<'_> {
    fn is_encoded(&self) -> bool {
        self.content_encoding.is_some_and(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("identity"))
    }
}

/// What an answer is worth.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Pass,
    /// Pass it on, unless it [`is_overloaded`] and another origin can be asked.
    PassUnlessOverloaded,
    /// It is of no use to a client: ask the next origin; answer with the problem when there is none.
    Refuse(Problem),
}

/// The problem document says that the origin has no room for a further generation.
pub fn is_overloaded(document: &[u8]) -> bool {
    serde_json::from_slice::<Value>(document).is_ok_and(|problem| problem["type"] == problem::OVERLOADED_TYPE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::route::Call;
    use crate::route::tests::{ID, call};

    const TWO: &str = "a=https://a.example, b=https://b.example";
    const FOREIGN: &str = "x=https://x.example/v1/chat";

    fn settings(origins: &str, shared: bool) -> Config {
        let shared = if shared { "true" } else { "false" };
        config(&[("ORIGINS", origins), ("SHARED_JOURNAL", shared)]).expect("valid")
    }

    fn cursor(text: &str) -> Option<Cursor> {
        match call("GET", "/simple", &[("last-event-id", text)]) {
            Ok(Call::Start(start)) => start.cursor,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn stream(id: &str) -> StreamId {
        cursor(id).and_then(|cursor| cursor.stream).expect("an id")
    }

    fn id_of(origin: &str) -> String {
        ID.replacen("a-", &[origin, "-"].concat(), 1)
    }

    fn names(plan: Result<Plan<'_>, Problem>) -> Result<Vec<&str>, u16> {
        plan.map(|plan| plan.origins.iter().map(|origin| origin.name.as_str()).collect())
            .map_err(|problem| problem.status)
    }

    fn answered<'a>(status: u16, content_type: &'a str, content_encoding: &'a str) -> AnswerHead<'a> {
        AnswerHead {
            status,
            content_type: Some(content_type).filter(|text| !text.is_empty()),
            content_encoding: Some(content_encoding).filter(|text| !text.is_empty()),
        }
    }

    fn lookup<'a>(headers: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn only_listed_headers_reach_an_origin_and_the_secret_is_the_edges() {
        let sent = lookup(&[
            ("accept", "text/event-stream"),
            ("authorization", "Bearer stolen"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-headwater-client", "192.0.2.1"),
            ("connection", "authorization"),
            ("host", "evil.example"),
            ("traceparent", "00-\u{e9}"),
        ]);
        let headers = request_headers(&settings(TWO, false), None, &sent);
        let mut expected = HeaderList::default();
        expected.append("accept", "text/event-stream");
        expected.append("authorization", "Bearer s3cret");
        expected.append("accept-encoding", "identity");
        assert_eq!(headers, expected);
    }

    #[test]
    fn only_listed_headers_reach_a_client_and_the_origin_is_named() {
        let got = lookup(&[
            ("content-type", "text/event-stream"),
            ("content-location", "/streams/x"),
            ("server-timing", "queue;dur=1"),
            ("set-cookie", "a=b"),
            ("location", "https://evil.example"),
            ("content-length", "3"),
        ]);
        let config = settings(TWO, false);
        let headers = response_headers(&config.origins[1], &got);
        let mut expected = HeaderList::default();
        expected.append("content-type", "text/event-stream");
        expected.append("content-location", "/streams/x");
        expected.append("server-timing", "queue;dur=1, origin;desc=\"b\"");
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_start_is_a_post_of_json_with_cursor_and_key_as_headers() {
        let target = format!("/prompts/haiku?mood=calm&last_event_id={ID}.3&idempotency_key=0123456789abcdef");
        let Ok(Call::Start(start)) = call("GET", &target, &[]) else {
            panic!("a start");
        };
        let crate::route::Input::Query(variables) = start.input else {
            panic!("a query");
        };
        let request = OriginRequest::start(
            HeaderList::default(),
            &start.prompt,
            &variables,
            start.cursor.as_ref(),
            start.key.as_ref(),
        );
        assert_eq!((request.method, request.path.as_str()), ("POST", "/prompts/haiku"));
        assert_eq!(request.body.as_deref(), Some(r#"{"mood":"calm"}"#));
        assert_eq!(request.headers.get("last-event-id"), Some(format!("{ID}.3").as_str()));
        assert_eq!(request.headers.get("idempotency-key"), Some("0123456789abcdef"));
        assert_eq!(request.headers.get("content-type"), Some(JSON));
    }

    #[test]
    fn a_start_asks_the_origins_in_their_order() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None);
        assert!(plan.as_ref().is_ok_and(|plan| plan.starts));
        assert_eq!(names(plan), Ok(vec!["a", "b"]));
    }

    #[test]
    fn a_stream_is_asked_of_the_origin_that_its_id_names() {
        let config = settings(TWO, false);
        assert_eq!(names(Plan::stream(&config, &stream(&id_of("b")))), Ok(vec!["b"]));
        let by_cursor = cursor(&format!("{}.4", id_of("b")));
        let plan = Plan::start(&config, by_cursor.as_ref());
        assert!(plan.as_ref().is_ok_and(|plan| !plan.starts));
        assert_eq!(names(plan), Ok(vec!["b"]));
    }

    #[test]
    fn with_a_shared_journal_a_stream_is_asked_of_all_the_named_one_first() {
        let config = settings("a=https://a.example,b=https://b.example,c=https://c.example", true);
        let order = |id: &str| names(Plan::stream(&config, &stream(id)));
        assert_eq!(order(&id_of("c")), Ok(vec!["c", "a", "b"]));
        assert_eq!(order(&id_of("zz")), Ok(vec!["a", "b", "c"]));
    }

    #[test]
    fn a_stream_of_an_unknown_origin_is_not_found_unless_there_is_but_one() {
        let two = settings(TWO, false);
        assert_eq!(names(Plan::stream(&two, &stream(&id_of("zz")))), Err(404));
        let one = settings("a=https://a.example", false);
        assert_eq!(names(Plan::stream(&one, &stream(&id_of("zz")))), Ok(vec!["a"]));
    }

    #[test]
    fn a_foreign_cursor_goes_to_a_foreign_server_and_counts_as_a_start() {
        let foreign = settings(FOREIGN, false);
        let cursor = cursor("42");
        let plan = Plan::start(&foreign, cursor.as_ref());
        assert!(plan.as_ref().is_ok_and(|plan| plan.starts));
        assert_eq!(names(plan), Ok(vec!["x"]));
        let own = settings(TWO, false);
        assert_eq!(names(Plan::start(&own, cursor.as_ref())), Err(400));
        assert_eq!(names(Plan::stream(&foreign, &stream(ID))), Err(404));
    }

    #[test]
    fn an_origin_that_is_not_there_is_passed_over() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None).expect("a plan");
        for answer in [
            answered(522, "text/html", ""),
            answered(530, "", ""),
            answered(502, "text/html", "gzip"),
            answered(503, "", ""),
        ] {
            let verdict = plan.judge(&answer);
            assert!(matches!(&verdict, Verdict::Refuse(problem) if problem.status == 502), "{answer:?}: {verdict:?}");
        }
    }

    #[test]
    fn an_answer_that_is_neither_a_stream_nor_a_problem_is_passed_over() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None).expect("a plan");
        for answer in [
            answered(500, "text/html", ""),
            answered(200, "text/html", ""),
            answered(200, "application/json", ""),
            answered(200, "", ""),
            answered(302, "", ""),
            answered(200, "text/event-stream", "gzip"),
            answered(404, "application/problem+json", "br"),
            answered(404, "text/plain", ""),
            answered(200, "application/problem+json", ""),
            answered(500, "text/event-stream", ""),
            answered(401, "application/problem+json", ""),
        ] {
            let verdict = plan.judge(&answer);
            assert!(matches!(&verdict, Verdict::Refuse(problem) if problem.status == 502), "{answer:?}: {verdict:?}");
        }
    }

    #[test]
    fn streams_problems_and_no_content_are_passed_on() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None).expect("a plan");
        for answer in [
            answered(200, "text/event-stream; charset=utf-8", "identity"),
            answered(204, "", ""),
            answered(400, "application/problem+json", ""),
            answered(429, "application/problem+json; charset=utf-8", ""),
            answered(500, "application/problem+json", ""),
            answered(502, "application/problem+json", ""),
            answered(504, "application/problem+json", ""),
        ] {
            assert_eq!(plan.judge(&answer), Verdict::Pass, "{answer:?}");
        }
        assert_eq!(plan.judge(&answered(503, "application/problem+json", "")), Verdict::PassUnlessOverloaded);
    }

    #[test]
    fn only_our_own_overloaded_is_overloaded() {
        assert!(is_overloaded(br#"{"type":"/problems/overloaded","status":503}"#));
        assert!(is_overloaded(br#"{"type":"\/problems\/overloaded"}"#));
        for document in [&br#"{"type":"/problems/journal"}"#[..], br#"{"title":"/problems/overloaded"}"#, b"nope"] {
            assert!(!is_overloaded(document));
        }
    }

    #[test]
    fn a_hanging_origin_is_given_up_for_another_only_with_a_shared_journal() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None).expect("a plan");
        assert_eq!(plan.failed(Failure::TimedOut), Refusal::Final(Problem::origin_timeout()));
        let config = settings(TWO, true);
        let plan = Plan::start(&config, None).expect("a plan");
        assert_eq!(plan.failed(Failure::TimedOut), Refusal::Next(Problem::origin_timeout()));
    }

    #[test]
    fn a_stream_whose_origin_is_away_may_be_asked_for_again() {
        let config = settings(TWO, false);
        let plan = Plan::stream(&config, &stream(ID)).expect("a plan");
        assert_eq!(plan.failed(Failure::Unreached), Refusal::Next(Problem::stream_away()));
        assert_eq!(plan.judge(&answered(522, "text/html", "")), Verdict::Refuse(Problem::stream_away()));
    }
}
