//! Every problem that a client can get: RFC 9457 problem details, one named constructor each.
//!
//! A problem is an answer with a status, or the data of a `failed` event. It never holds a provider's text, a prompt or
//! a secret.
//!
//! The file is long because it is the whole list.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};

/// The `Retry-After` of what passes quickly: a restart, a slot that becomes free.
const SOON: Duration = Duration::from_secs(1);

/// A problem: what went wrong, and whether another try may go better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", kind.name())]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// In place of the kind's own status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// The problem doesn't pass with time, though its kind does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    permanent: bool,
    /// The member of the request that is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    param: Option<Cow<'static, str>>,
    /// OpenAI's name of what is wrong with it, where the kind has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    code: Option<Cow<'static, str>>,
    /// The methods of the path. A `failed` event has none.
    #[serde(skip)]
    allow: Option<&'static str>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $status:literal, $title:literal, $retryable:literal;)*) => {
        /// The kinds of problems.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// All of them, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The last part of the problem's `type`, and the outcome in a stream's record.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// The problem's `type`.
            pub fn type_uri(self) -> &'static str {
                match self { $(Self::$kind => concat!("/problems/", $name),)* }
            }

            /// The HTTP status of an answer.
            pub fn status(self) -> u16 {
                match self { $(Self::$kind => $status,)* }
            }

            /// A short summary, the same for every problem of the kind (RFC 9457, section 3.1.3).
            pub fn title(self) -> &'static str {
                match self { $(Self::$kind => $title,)* }
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Self::$kind => $retryable,)* }
            }
        }
    };
}

kinds! {
    /// The request can't be understood.
    BadRequest, "bad-request", 400, "Bad Request", false;
    /// A cursor is malformed, or past the end.
    BadCursor, "bad-cursor", 400, "Bad Cursor", false;
    /// The prompt is longer than the model's context.
    TooLong, "too-long", 400, "Too Long", false;
    /// The origin was called without the edge's secret, or the edge without a key.
    Unauthorised, "unauthorised", 401, "Unauthorised", false;
    /// A start from a page that is not allowed.
    CrossSite, "cross-site", 403, "Cross-Site Request", false;
    /// No model has this name.
    NoSuchModel, "no-such-model", 404, "No Such Model", false;
    /// No such prompt, stream or path.
    NotFound, "not-found", 404, "Not Found", false;
    /// The journal no longer keeps the stream.
    Expired, "expired", 404, "Expired", false;
    /// The path doesn't take the method.
    InvalidMethod, "invalid-method", 405, "Invalid Method", false;
    /// The body is over [`MAX_BODY_BYTES`](crate::MAX_BODY_BYTES), that of a conversation over
    /// [`MAX_CONVERSATION_BYTES`](crate::MAX_CONVERSATION_BYTES).
    TooLarge, "too-large", 413, "Too Large", false;
    /// The body is of another type than JSON.
    NotJson, "not-json", 415, "Not JSON", false;
    /// An idempotency key came back with another prompt or other variables.
    KeyReused, "key-reused", 422, "Key Reused", false;
    /// The model won't answer this.
    ModelRefused, "model-refused", 424, "Model Refused", false;
    /// The edge, or the model's provider, wants fewer requests.
    RateLimited, "rate-limited", 429, "Rate Limited", true;
    /// A fault of the edge or the origin.
    Internal, "internal", 500, "Internal Error", true;
    /// No origin answers, or what answers is none.
    OriginUnreachable, "origin-unreachable", 502, "Origin Unreachable", true;
    /// The model's answer broke off.
    ModelBrokeOff, "model-broke-off", 502, "Model Broke Off", true;
    /// No slot for another generation.
    Overloaded, "overloaded", 503, "Overloaded", true;
    /// The journal can't be reached, or has lost the stream.
    Journal, "journal", 503, "Journal Unavailable", true;
    /// The origin sent no headers in time.
    OriginTimeout, "origin-timeout", 504, "Origin Timeout", true;
    /// The model gave no first token in time.
    FirstTokenTimeout, "first-token-timeout", 504, "First Token Timeout", true;
    /// The model was silent between two tokens for too long.
    IdleTimeout, "idle-timeout", 504, "Idle Timeout", true;
    /// Nobody read the stream any more. In `failed`, and where one value was asked for.
    Abandoned, "abandoned", 500, "Abandoned", true;
    /// The generating origin died or drained away. In `failed`, and where one value was asked for.
    Interrupted, "interrupted", 500, "Interrupted", true;
}

/// Problems that the edge and the origin both answer with.
impl Problem {
    /// A problem of `kind`; `detail` is a sentence that says what to do.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        let (retry_after, status, permanent, param, code, allow) = (None, None, false, None, None, None);
        Self { kind, detail: detail.into(), retry_after, status, permanent, param, code, allow }
    }

    /// 400: the request can't be understood.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// 400: a bare stream tells a failure by breaking off its chunks, which HTTP/1.0 doesn't have.
    pub fn bare_over_http_10() -> Self {
        Self::bad_request(
            "over HTTP/1.0 a bare stream that was cut looks whole; use HTTP/1.1 (nginx: proxy_http_version 1.1), or \
             accept text/event-stream",
        )
    }

    /// 400: the cursor doesn't parse.
    pub fn malformed_cursor() -> Self {
        Self::new(Kind::BadCursor, "a cursor is a stream's id, or the id of one of its events; start anew without one")
    }

    /// 404: nothing has this path.
    pub fn no_such_path() -> Self {
        Self::new(Kind::NotFound, "nothing has this path")
    }

    /// 404: no stream has this id.
    pub fn no_such_stream() -> Self {
        Self::new(Kind::NotFound, "no stream has this id, or it has expired; start a new one")
    }

    /// 405: the path takes only the methods of `allow`, as the header of that name has them.
    pub fn invalid_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Kind::InvalidMethod, ["this path takes ", allow].concat()) }
    }

    /// 413: the body is over `most` bytes.
    pub fn too_large(most: usize) -> Self {
        Self::new(Kind::TooLarge, format!("the body is over {} KiB; send a shorter one", most / 1024))
    }

    /// 400: the member `param` of the request is wrong.
    pub fn bad_param(param: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { param: Some(param.into()), ..Self::bad_request(detail) }
    }

    /// 400: the member `param` asks for something that no model here does.
    pub fn unsupported_param(param: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some("unsupported_parameter".into()), ..Self::bad_param(param, detail) }
    }

    /// 400: the member `param` has a value that asks for something that the model doesn't do.
    pub fn unsupported_value(param: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some("unsupported_value".into()), ..Self::bad_param(param, detail) }
    }

    /// 415: the body isn't declared as JSON.
    pub fn not_json() -> Self {
        Self::new(Kind::NotJson, "send a JSON object, with content-type application/json")
    }

    /// 500: a fault whose cause is in the log.
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "the server failed; try again")
    }

    /// 503: as many streams run and wait as the origins have room for.
    pub fn overloaded() -> Self {
        Self::soon(Kind::Overloaded, "too many streams are running; try again soon")
    }

    /// 503: a browser prefetches the address, which starts nothing.
    pub fn prefetch() -> Self {
        Self::soon(Kind::Overloaded, "a prefetch starts nothing; ask again when the answer is wanted")
    }
}

/// Problems of the edge alone.
impl Problem {
    /// 400: the body took longer than a start's body may.
    pub fn slow_body() -> Self {
        Self::bad_request("the body was too slow; send it in one piece")
    }

    /// 401: the edge holds chats with nobody.
    pub fn chat_closed() -> Self {
        Self::new(
            Kind::Unauthorised,
            "this edge holds no chats: its operator has to set CHAT = \"open\", or EDGE_KEYS, of which callers show one",
        )
    }

    /// 401: the caller shows no key of the edge's, or a wrong one.
    pub fn no_such_key() -> Self {
        Self::new(Kind::Unauthorised, "send a key of this edge, as a bearer token or in x-api-key")
    }

    /// 403: the page is of another site, and not on the list of allowed origins.
    pub fn cross_site() -> Self {
        Self::new(Kind::CrossSite, "this page may not use this edge; the edge's ALLOWED_ORIGINS has to name it")
    }

    /// 403: the request's address has a host that the edge isn't set to answer to.
    pub fn other_host() -> Self {
        Self::new(Kind::CrossSite, "no stream starts at this host name; the edge's HOSTS has to name it")
    }

    /// 404: what the edge asks are foreign servers, which hold no conversations that it understands.
    pub fn no_chats() -> Self {
        Self::new(Kind::NotFound, "no origin of this edge holds chats; its ORIGINS has to name one of Headwater's own")
    }

    /// 429: the caller has started as many streams as it may within `period`.
    pub fn too_many_starts(period: Duration) -> Self {
        Self::new(
            Kind::RateLimited,
            "too many streams were started from your address or with your key; try again later",
        )
        .retry_after(period)
    }

    /// 502: no origin could be reached.
    pub fn origin_unreachable() -> Self {
        Self::new(Kind::OriginUnreachable, "no origin could be reached; try again")
    }

    /// 502: what answered is no origin, or not as one answers.
    pub fn unusable_answer() -> Self {
        Self::new(Kind::OriginUnreachable, "what answered is no origin of streams; its operator has to mend it")
    }

    /// 502: the same, where a generation may have begun: nobody shall pay for another.
    pub fn unusable_start() -> Self {
        Self { permanent: true, ..Self::unusable_answer() }
    }

    /// 502: the origin refuses the edge's secret.
    pub fn edge_refused() -> Self {
        Self::new(Kind::OriginUnreachable, "the origin doesn't accept this edge; its operator has to mend it")
    }

    /// 503: the stream's origin is away. Not a 404: the stream may still be there when the origin is back.
    pub fn stream_away() -> Self {
        let away = Self::soon(Kind::OriginUnreachable, "the origin of this stream is away; try again soon");
        Self { status: Some(503), ..away }
    }

    /// 503: the rate limit can't be applied, and nothing starts without one. That passes with a deployment, not with
    /// time, so it is not retryable.
    pub fn no_rate_limit() -> Self {
        let problem =
            Self::new(Kind::Internal, "the rate limit of this edge is not in force; its operator has to mend it");
        Self { status: Some(503), permanent: true, ..problem }
    }

    /// 500: a setting of the edge is wrong; its log names it.
    pub fn misconfigured() -> Self {
        let problem = Self::new(Kind::Internal, "a setting of this edge is wrong; its log and /healthz name it");
        Self { permanent: true, ..problem }
    }

    /// 504: the origin took the request, and sent no headers in time.
    pub fn origin_timeout() -> Self {
        Self::new(Kind::OriginTimeout, "the origin did not answer in time; try again")
    }
}

/// Problems of the origin alone.
impl Problem {
    /// 400: the cursor is past the end of a stream that has ended.
    pub fn cursor_past_end() -> Self {
        Self::new(Kind::BadCursor, "the cursor is past the end of the stream; read it from its start")
    }

    /// 401: the caller doesn't hold the edge's secret.
    pub fn unauthorised() -> Self {
        Self::new(Kind::Unauthorised, "send the edge's secret as a bearer token")
    }

    /// 424: the model doesn't answer this prompt.
    pub fn model_refused() -> Self {
        Self::new(Kind::ModelRefused, "the model refuses this prompt; change it")
    }

    /// 404: none of the models `names` has the name that was asked for.
    pub fn no_such_model(names: &[&str]) -> Self {
        let detail = format!("no model has this name; the names are: {}", names.join(", "));
        Self { param: Some("model".into()), ..Self::new(Kind::NoSuchModel, detail) }
    }

    /// 404: no prompt has this name.
    pub fn no_such_prompt() -> Self {
        Self::new(Kind::NotFound, "no prompt has this name")
    }

    /// 404: the journal no longer keeps the stream that the key started.
    pub fn expired() -> Self {
        Self::new(Kind::Expired, "the stream is no longer kept; start a new one with a new key")
    }

    /// 422: the key belongs to a start with another prompt or other variables.
    pub fn key_reused() -> Self {
        Self::new(Kind::KeyReused, "this idempotency key started another prompt; use a new key")
    }

    /// 503: the origin is shutting down.
    pub fn draining() -> Self {
        Self::soon(Kind::Overloaded, "the server is shutting down; try again")
    }

    /// 503, or in `failed`: the journal can't be reached, or has lost the stream.
    pub fn journal() -> Self {
        Self::soon(Kind::Journal, "the journal of streams can't be reached; try again soon")
    }

    /// In `failed`: the model was silent between two tokens.
    pub fn idle_timeout() -> Self {
        Self::new(Kind::IdleTimeout, "the model was silent for too long; try again")
    }

    /// In `failed`: nobody read the stream for the linger.
    pub fn abandoned() -> Self {
        Self::new(Kind::Abandoned, "the generation was ended because nobody was reading")
    }

    /// In `failed`: the origin stopped before the answer was whole.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "the origin stopped before the answer was whole; start it again")
    }
}

impl Problem {
    fn soon(kind: Kind, detail: &'static str) -> Self {
        Self::new(kind, detail).retry_after(SOON)
    }

    /// The same problem, with the time after which another try makes sense.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The same problem, with the member of the request that is at fault.
    #[must_use]
    pub fn of_param(self, param: &'static str) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same problem, with the status of the provider where that says that the request is at fault.
    #[must_use]
    pub fn status_of_provider(self, status: u16) -> Self {
        Self { status: matches!(status, 400 | 404 | 413 | 422).then_some(status).or(self.status), ..self }
    }

    /// The kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// A sentence that says what to do.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The member of the request that is at fault, as a path: `messages[2].role`.
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// OpenAI's name of what is wrong with that member.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// The HTTP status of an answer.
    pub fn status(&self) -> u16 {
        self.status.unwrap_or(self.kind.status())
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.kind.retryable() && !self.permanent
    }

    /// The value of `Retry-After`, whole seconds (RFC 9110, section 10.2.3), rounded up.
    pub fn retry_after_s(&self) -> Option<u64> {
        self.retry_after.map(|after| (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }

    /// The value of `Allow` (RFC 9110, section 10.2.1).
    pub fn allow(&self) -> Option<&'static str> {
        self.allow
    }

    /// Whether it can be the answer to the start of a stream. What ends a stream that has begun is told in `failed`.
    pub fn can_answer(&self) -> bool {
        !matches!(self.kind, Kind::Abandoned | Kind::Interrupted)
    }

    /// The body of an answer to a request for `instance`, a path: one JSON object.
    pub fn document(&self, instance: &str) -> String {
        self.members(Some(instance)).to_json()
    }

    /// The data of a `failed` event, without the members of an answer.
    pub fn event_data(&self) -> Document<'_> {
        self.members(None)
    }

    /// Reads the data of a `failed` event. `None` where no problem of this version has written it.
    pub fn from_event_data(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Members {
            #[serde(rename = "type")]
            type_uri: String,
            detail: String,
        }
        let Members { type_uri, detail } = serde_json::from_slice(json).ok()?;
        let kind = Kind::ALL.iter().find(|kind| kind.type_uri() == type_uri)?;
        Some(Self::new(*kind, detail))
    }

    fn members<'a>(&'a self, instance: Option<&'a str>) -> Document<'a> {
        Document {
            type_uri: self.kind.type_uri(),
            title: self.kind.title(),
            status: instance.map(|_| self.status()),
            detail: &self.detail,
            instance,
            retryable: self.retryable(),
        }
    }
}

/// A problem document's members (RFC 9457, section 3.1), and `retryable`, an extension (section 3.2).
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// `/problems/NAME`.
    #[serde(rename = "type")]
    pub type_uri: &'a str,
    /// The same for every problem of the type.
    pub title: &'a str,
    /// The HTTP status of an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What to do.
    pub detail: &'a str,
    /// The path that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<&'a str>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl Document<'_> {
    /// One JSON object.
    pub fn to_json(&self) -> String {
        // Strings, a number and a boolean: JSON can hold them.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_members_of_the_contract() {
        assert_eq!(
            Problem::invalid_method("GET, POST").document("/simple"),
            r#"{"type":"/problems/invalid-method","title":"Invalid Method","status":405,"detail":"this path takes GET, POST","instance":"/simple","retryable":false}"#
        );
        assert_eq!(
            Problem::abandoned().event_data().to_json(),
            r#"{"type":"/problems/abandoned","title":"Abandoned","detail":"the generation was ended because nobody was reading","retryable":true}"#
        );
    }

    #[test]
    fn a_path_can_not_break_out_of_the_document() {
        let document = Problem::no_such_path().document("/\",\"retryable\":true,\"x\":\"");
        let parsed: serde_json::Value = serde_json::from_str(&document).expect("valid JSON");
        assert_eq!(parsed["retryable"], false);
    }

    #[test]
    fn a_name_is_the_kinds_name_in_the_journal_too() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("a name"), kind.name());
        }
    }

    #[test]
    fn a_problem_is_read_back_from_the_journal_as_it_was() {
        for problem in [Problem::journal(), Problem::no_rate_limit(), Problem::stream_away()] {
            let kept = serde_json::to_string(&problem).expect("JSON");
            assert_eq!(serde_json::from_str::<Problem>(&kept).expect("a problem"), problem);
        }
        let of_an_older_origin = r#"{"kind":"journal","detail":"x","retry_after":null}"#;
        assert_eq!(serde_json::from_str::<Problem>(of_an_older_origin).expect("a problem").kind(), Kind::Journal);
    }

    #[test]
    fn a_problem_is_read_back_from_its_event() {
        let problem = Problem::interrupted();
        assert_eq!(Problem::from_event_data(problem.event_data().to_json().as_bytes()), Some(problem));
        assert_eq!(Problem::from_event_data(br#"{"type":"/problems/newer","detail":"x"}"#), None);
    }

    #[test]
    fn what_may_be_tried_later_says_when() {
        for problem in [
            Problem::stream_away(),
            Problem::prefetch(),
            Problem::overloaded(),
            Problem::draining(),
            Problem::journal(),
            Problem::too_many_starts(Duration::from_secs(60)),
        ] {
            assert!(problem.retryable() && problem.retry_after_s().is_some(), "{problem}");
        }
        let half = Problem::overloaded().retry_after(Duration::from_millis(1_500));
        assert_eq!(half.retry_after_s(), Some(2));
        assert_eq!(Problem::overloaded().retry_after(Duration::ZERO).retry_after_s(), Some(1));
    }

    #[test]
    fn what_only_a_deployment_mends_is_not_retryable() {
        for (problem, status) in [(Problem::no_rate_limit(), 503), (Problem::misconfigured(), 500)] {
            assert_eq!((problem.status(), problem.retryable(), problem.retry_after_s()), (status, false, None));
        }
    }

    #[test]
    fn a_stream_whose_origin_is_away_is_not_lost() {
        assert_eq!((Problem::stream_away().status(), Problem::stream_away().retry_after_s()), (503, Some(1)));
    }
}
