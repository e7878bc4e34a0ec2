//! Which origins to ask in which order, and what their answers are worth.

use crate::config::{Config, Origin};
use crate::problem::{self, Problem};
use crate::route::{Cursor, StreamId, is_media_type};
use serde_json::Value;
use std::time::Duration;

/// How long an origin may take to send its headers. It promises them within 2 s.
pub const HEADERS_DEADLINE: Duration = Duration::from_secs(10);

/// The media type of a stream (HTML, section 9.2.4).
const EVENT_STREAM: &str = "text/event-stream";

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
    /// A stream of an origin of this project. Nothing starts, and what is away may come back.
    Stream,
    /// A stream of another server, which may start anew whatever the cursor.
    ForeignStream,
}

impl<'a> Plan<'a> {
    /// For a start, or for resuming a stream by its cursor on a start path.
    ///
    /// # Errors
    ///
    /// When the cursor can be none of these origins'.
    pub fn start(config: &'a Config, cursor: Option<&Cursor>) -> Result<Self, Problem> {
        let Some(cursor) = cursor else {
            return Ok(Self::new(config, Purpose::Start, config.origins.iter().collect()));
        };
        if let Some(stream) = &cursor.stream
            && own_origins(config).next().is_some()
        {
            return Self::stream(config, stream);
        }
        // Other servers have ids of their own. Whose this one is can't be told; one is asked, so that one stream at most
        // starts anew.
        let foreign = config.origins.iter().find(|origin| origin.url.is_foreign()).ok_or(Problem::bad_cursor())?;
        Ok(Self::new(config, Purpose::ForeignStream, vec![foreign]))
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
        Ok(Self::new(config, Purpose::Stream, origins))
    }

    fn new(config: &Config, purpose: Purpose, origins: Vec<&'a Origin>) -> Self {
        Self { origins, purpose, shared_journal: config.shared_journal }
    }

    /// A generation may begin, which somebody pays for.
    pub fn may_begin(&self) -> bool {
        matches!(self.purpose, Purpose::Start | Purpose::ForeignStream)
    }

    /// Further origins know what an idempotency key is: one keeps a start that they are asked for from becoming two.
    pub fn wants_key(&self) -> bool {
        self.purpose == Purpose::Start && self.origins.iter().filter(|origin| !origin.url.is_foreign()).count() > 1
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
            status if UNREACHED.contains(&status) => Verdict::next(self.away()),
            502 | 503 if !is_problem => Verdict::next(self.away()),
            204 => Verdict::Pass,
            200 if is(EVENT_STREAM) && !answer.is_encoded() => Verdict::Pass,
            // A generation may have begun: another origin's would be a second one.
            200..=299 => Verdict::Refuse(Refusal::Final(UNUSABLE)),
            _ if answer.is_encoded() => Verdict::next(UNUSABLE),
            // The origin and this edge do not share a secret. Nothing that a client could mend.
            401 => Verdict::next(Problem::origin_unreachable("the origin does not accept this edge")),
            503 => Verdict::PassUnlessOverloaded,
            400..=599 if is_problem => Verdict::Pass,
            _ => Verdict::next(UNUSABLE),
        }
    }

    fn away(&self) -> Problem {
        match self.purpose {
            Purpose::Start => Problem::origin_unreachable("no origin could be reached"),
            Purpose::Stream | Purpose::ForeignStream => Problem::stream_away(),
        }
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
    /// It is of no use to a client.
    Refuse(Refusal),
}

impl Verdict {
    fn next(problem: Problem) -> Self {
        Self::Refuse(Refusal::Next(problem))
    }
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
    const FOREIGN: &str = "x=https://x.example/v1/chat, y=https://y.example/v1/chat";

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

    fn assert_refused(answers: &[AnswerHead], is_expected: fn(&Refusal) -> bool) {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None).expect("a plan");
        for answer in answers {
            let verdict = plan.judge(answer);
            assert!(matches!(&verdict, Verdict::Refuse(refusal) if is_expected(refusal)), "{answer:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_start_asks_the_origins_in_their_order() {
        let config = settings(TWO, false);
        let plan = Plan::start(&config, None);
        assert!(plan.as_ref().is_ok_and(|plan| plan.may_begin() && plan.wants_key()));
        assert_eq!(names(plan), Ok(vec!["a", "b"]));
    }

    #[test]
    fn a_stream_is_asked_of_the_origin_that_its_id_names() {
        let config = settings(TWO, false);
        assert_eq!(names(Plan::stream(&config, &stream(&id_of("b")))), Ok(vec!["b"]));
        let by_cursor = cursor(&format!("{}.4", id_of("b")));
        let plan = Plan::start(&config, by_cursor.as_ref());
        assert!(plan.as_ref().is_ok_and(|plan| !plan.may_begin()));
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
    fn a_foreign_cursor_goes_to_one_foreign_server_and_counts_as_a_start() {
        for origins in [FOREIGN, &[TWO, FOREIGN].join(",")] {
            let config = settings(origins, false);
            let cursor = cursor("42");
            let plan = Plan::start(&config, cursor.as_ref());
            assert!(plan.as_ref().is_ok_and(|plan| plan.may_begin() && !plan.wants_key()));
            assert_eq!(names(plan), Ok(vec!["x"]), "{origins}");
        }
        assert_eq!(names(Plan::start(&settings(TWO, false), cursor("42").as_ref())), Err(400));
        assert_eq!(names(Plan::stream(&settings(FOREIGN, false), &stream(ID))), Err(404));
    }

    /// It can't have come from the foreign server, which would take the request for a start, and be paid for it.
    #[test]
    fn an_own_cursor_never_goes_to_a_foreign_server_where_there_are_own_origins() {
        let cursor = cursor(&format!("{}.4", id_of("zz")));
        let mixed = settings(&[TWO, FOREIGN].join(","), false);
        assert_eq!(names(Plan::start(&mixed, cursor.as_ref())), Err(404));
        let one = settings(&["a=https://a.example", FOREIGN].join(","), false);
        let plan = Plan::start(&one, cursor.as_ref());
        assert!(plan.as_ref().is_ok_and(|plan| !plan.may_begin()));
        assert_eq!(names(plan), Ok(vec!["a"]));
        let foreign = settings(FOREIGN, false);
        assert_eq!(names(Plan::start(&foreign, cursor.as_ref())), Ok(vec!["x"]));
    }

    #[test]
    fn a_key_is_added_only_to_a_start_that_two_own_origins_may_be_asked_for() {
        let wants = |origins: &str, cursor: Option<Cursor>| {
            Plan::start(&settings(origins, true), cursor.as_ref()).expect("a plan").wants_key()
        };
        assert!(wants(TWO, None));
        assert!(!wants(TWO, cursor(ID)));
        assert!(!wants(FOREIGN, None));
        assert!(!wants("a=https://a.example", None));
    }

    #[test]
    fn an_origin_that_is_not_there_is_passed_over() {
        assert_refused(
            &[
                answered(522, "text/html", ""),
                answered(530, "", ""),
                answered(502, "text/html", "gzip"),
                answered(503, "", ""),
            ],
            |refusal| matches!(refusal, Refusal::Next(problem) if problem.status == 502),
        );
    }

    #[test]
    fn an_answer_that_is_neither_a_stream_nor_a_problem_is_passed_over() {
        assert_refused(
            &[
                answered(500, "text/html", ""),
                answered(302, "", ""),
                answered(404, "application/problem+json", "br"),
                answered(404, "text/plain", ""),
                answered(500, "text/event-stream", ""),
                answered(401, "application/problem+json", ""),
            ],
            |refusal| matches!(refusal, Refusal::Next(problem) if problem.status == 502),
        );
    }

    /// To ask another origin would be to pay twice.
    #[test]
    fn a_success_that_is_no_stream_is_the_end_of_it_because_a_generation_may_have_begun() {
        assert_refused(
            &[
                answered(200, "text/html", ""),
                answered(200, "application/json", ""),
                answered(200, "", ""),
                answered(200, "text/event-stream", "gzip"),
                answered(200, "application/problem+json", ""),
                answered(201, "text/event-stream", ""),
            ],
            |refusal| matches!(refusal, Refusal::Final(problem) if problem.status == 502),
        );
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
        assert_eq!(plan.judge(&answered(522, "text/html", "")), Verdict::next(Problem::stream_away()));
    }
}
