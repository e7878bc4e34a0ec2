//! The answers that the edge makes up itself: problem documents (RFC 9457), one named constructor each.

use serde::Serialize;

/// The media type of a problem document (RFC 9457, section 6.1).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The `type` with which an origin says that it has no room for a further generation.
pub const OVERLOADED_TYPE: &str = "/problems/overloaded";

/// Seconds after which a stream whose origin is away may be asked for again: long enough for a restart, short enough
/// for a reader to wait.
const AWAY_RETRY_S: u32 = 1;

/// Seconds after which a start that found no room may be tried again.
const OVERLOADED_RETRY_S: u32 = 5;

/// An answer in place of the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    type_uri: &'static str,
    title: &'static str,
    /// The HTTP status code.
    pub status: u16,
    detail: &'static str,
    retryable: bool,
    /// Seconds for `Retry-After` (RFC 9110, section 10.2.3).
    pub retry_after_s: Option<u32>,
    /// The methods for `Allow` (RFC 9110, section 10.2.1).
    pub allow: Option<&'static str>,
}

impl Problem {
    /// The body: one JSON object. `instance` is the path of the request.
    pub fn document(&self, instance: &str) -> String {
        let document = Document {
            type_uri: self.type_uri,
            title: self.title,
            status: self.status,
            detail: self.detail,
            instance,
            retryable: self.retryable,
        };
        // Strings, a number and a boolean: there is nothing here that JSON can't hold.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// What was sent can't be understood, and `detail` says why.
    pub const fn bad_request(detail: &'static str) -> Self {
        Self::new("/problems/bad-request", "Bad Request", 400, detail)
    }

    /// The cursor is no cursor.
    pub const fn bad_cursor() -> Self {
        Self::new("/problems/bad-cursor", "Bad Cursor", 400, "the cursor is malformed")
    }

    /// A start from a page of another site that is not on the list of allowed origins.
    pub const fn cross_site() -> Self {
        Self::new("/problems/cross-site", "Cross-Site Request", 403, "this page may not start a stream here")
    }

    /// Nothing has this path.
    pub const fn not_found() -> Self {
        Self::new("/problems/not-found", "Not Found", 404, "nothing has this path")
    }

    /// The stream belongs to no origin that this edge knows.
    pub const fn unknown_stream() -> Self {
        Self::new("/problems/not-found", "Not Found", 404, "there is no such stream")
    }

    /// The path exists, but not for this method. `allow` names those that it has.
    pub const fn invalid_method(allow: &'static str) -> Self {
        let mut problem =
            Self::new("/problems/invalid-method", "Invalid Method", 405, "this path does not answer to this method");
        problem.allow = Some(allow);
        problem
    }

    /// The body is over [`crate::route::MAX_BODY_BYTES`].
    pub const fn too_large() -> Self {
        Self::new("/problems/too-large", "Too Large", 413, "the body is over 16 KiB")
    }

    /// The body is not declared as JSON.
    pub const fn not_json() -> Self {
        Self::new("/problems/not-json", "Not JSON", 415, "the body must be application/json")
    }

    /// This caller has started as many streams as it may for now.
    pub const fn rate_limited(period_s: u32) -> Self {
        Self::new("/problems/rate-limited", "Rate Limited", 429, "too many streams were started from this address")
            .retry_after(period_s)
    }

    /// The edge itself is not as it should be: the log says why, the answer does not.
    pub const fn internal() -> Self {
        Self::new("/problems/internal", "Internal Error", 500, "the edge failed, and its log says why").retryable()
    }

    /// No origin could be reached, or what answered was not one.
    pub const fn origin_unreachable(detail: &'static str) -> Self {
        Self::new("/problems/origin-unreachable", "Origin Unreachable", 502, detail).retryable()
    }

    /// The stream's origin is away for the moment. Not a 404: the stream may still be there when the origin is back.
    pub const fn stream_away() -> Self {
        let mut problem = Self::origin_unreachable("the origin of this stream is away");
        problem.status = 503;
        problem.retry_after(AWAY_RETRY_S)
    }

    /// The rate limit can't be applied, and starting without one is not allowed. That is how the edge is deployed: it
    /// passes with the next deployment, not with time, so nobody is told to try again.
    pub const fn unlimited() -> Self {
        let mut problem = Self::internal();
        problem.status = 503;
        problem.detail = "the rate limit of this edge is not in force";
        problem.retryable = false;
        problem
    }

    /// An origin has no room for a further generation.
    pub const fn overloaded() -> Self {
        Self::no_room("no origin has room for a further stream")
    }

    /// A browser asked ahead of time. A stream is paid for, so it starts only when somebody wants it.
    pub const fn prefetch() -> Self {
        Self::no_room("a prefetch starts no stream")
    }

    /// The origin took the request, but sent no headers in time.
    pub const fn origin_timeout() -> Self {
        Self::new("/problems/origin-timeout", "Origin Timeout", 504, "the origin did not answer in time").retryable()
    }

    const fn no_room(detail: &'static str) -> Self {
        Self::new(OVERLOADED_TYPE, "Overloaded", 503, detail).retry_after(OVERLOADED_RETRY_S)
    }

    const fn new(type_uri: &'static str, title: &'static str, status: u16, detail: &'static str) -> Self {
        Self { type_uri, title, status, detail, retryable: false, retry_after_s: None, allow: None }
    }

    const fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Also marks the problem as one that may be tried again: a time without that would be a contradiction.
    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self.retryable()
    }
}

/// A problem document's members (RFC 9457, section 3.1), and `retryable`, an extension (section 3.2).
#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    type_uri: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    retryable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_members_of_the_contract() {
        assert_eq!(
            Problem::invalid_method("GET, POST").document("/simple"),
            r#"{"type":"/problems/invalid-method","title":"Invalid Method","status":405,"detail":"this path does not answer to this method","instance":"/simple","retryable":false}"#
        );
    }

    #[test]
    fn a_path_can_not_break_out_of_the_document() {
        let document = Problem::not_found().document("/\",\"retryable\":true,\"x\":\"");
        let parsed: serde_json::Value = serde_json::from_str(&document).expect("valid JSON");
        assert_eq!(parsed["retryable"], false);
    }

    /// RFC 9457, section 3.1.3: a title does not change from occurrence to occurrence, whoever answers.
    #[test]
    fn a_problem_has_the_title_that_the_origin_gives_it() {
        let origin = include_str!("../origin/src/problem.rs");
        for problem in [
            Problem::bad_request(""),
            Problem::bad_cursor(),
            Problem::not_found(),
            Problem::unknown_stream(),
            Problem::invalid_method(""),
            Problem::too_large(),
            Problem::not_json(),
            Problem::rate_limited(60),
            Problem::internal(),
            Problem::unlimited(),
            Problem::overloaded(),
            Problem::prefetch(),
        ] {
            let name = problem.type_uri.trim_start_matches("/problems/");
            let row = [", \"", name, "\", "].concat();
            let row = origin.lines().find(|line| line.contains(&row)).expect(name);
            assert!(row.contains(&[", \"", problem.title, "\", "].concat()), "{name}: {} / {row}", problem.title);
        }
    }

    #[test]
    fn what_may_be_tried_later_says_when() {
        for problem in [Problem::stream_away(), Problem::prefetch(), Problem::overloaded(), Problem::rate_limited(60)] {
            assert!(problem.retryable);
            assert!(problem.retry_after_s.is_some());
        }
    }

    #[test]
    fn a_missing_rate_limit_does_not_pass_with_time() {
        let problem = Problem::unlimited();
        assert_eq!((problem.status, problem.retryable, problem.retry_after_s), (503, false, None));
    }

    #[test]
    fn a_stream_whose_origin_is_away_is_not_lost() {
        let problem = Problem::stream_away();
        assert_eq!((problem.status, problem.retry_after_s), (503, Some(1)));
    }
}
