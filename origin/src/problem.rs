//! What went wrong, as the reader is told: RFC 9457 problem details.
//!
//! A problem is either a whole answer (with a status) or the data of a `failed` event. It never holds the
//! text of a model's provider, a prompt or a secret.

use std::{borrow::Cow, time::Duration};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// The media type of a problem document, RFC 9457 section 3.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// One fault, told to the one who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", kind.name())]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// Of a path, which no stream's failure has.
    #[serde(skip)]
    allow: Option<&'static str>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $status:ident, $title:literal, $retryable:literal;)*) => {
        /// The kinds of problems; the name is the last part of the problem's `type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// The last part of the problem's `type`, and of the outcome in a stream's record.
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
            /// The status where the problem is an answer.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }
            /// A short summary, the same for every problem of the kind.
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
    BadRequest, "bad-request", BAD_REQUEST, "Bad Request", false;
    /// A cursor is malformed, or past the end.
    BadCursor, "bad-cursor", BAD_REQUEST, "Bad Cursor", false;
    /// The caller is not our edge.
    Unauthorised, "unauthorised", UNAUTHORIZED, "Unauthorised", false;
    /// No such prompt, stream or path.
    NotFound, "not-found", NOT_FOUND, "Not Found", false;
    /// The stream was here, its journal is gone.
    Expired, "expired", NOT_FOUND, "Expired", false;
    /// The path has no such method.
    InvalidMethod, "invalid-method", METHOD_NOT_ALLOWED, "Invalid Method", false;
    /// The body is over the limit.
    TooLarge, "too-large", PAYLOAD_TOO_LARGE, "Too Large", false;
    /// The body is of another type than JSON.
    NotJson, "not-json", UNSUPPORTED_MEDIA_TYPE, "Not JSON", false;
    /// An idempotency key came back with another body.
    KeyReused, "key-reused", UNPROCESSABLE_ENTITY, "Key Reused", false;
    /// The model's provider wants fewer requests.
    RateLimited, "rate-limited", TOO_MANY_REQUESTS, "Rate Limited", true;
    /// Our own fault.
    Internal, "internal", INTERNAL_SERVER_ERROR, "Internal Error", true;
    /// The model won't answer this.
    ModelRefused, "model-refused", BAD_GATEWAY, "Model Refused", false;
    /// The model began and didn't end.
    ModelBrokeOff, "model-broke-off", BAD_GATEWAY, "Model Broke Off", true;
    /// No room for another stream.
    Overloaded, "overloaded", SERVICE_UNAVAILABLE, "Overloaded", true;
    /// The journal can't be reached.
    Journal, "journal", SERVICE_UNAVAILABLE, "Journal Unavailable", true;
    /// The model was silent from the start.
    FirstTokenTimeout, "first-token-timeout", GATEWAY_TIMEOUT, "First Token Timeout", true;
    /// The model fell silent.
    IdleTimeout, "idle-timeout", GATEWAY_TIMEOUT, "Idle Timeout", true;
    /// Nobody was reading any more.
    Abandoned, "abandoned", INTERNAL_SERVER_ERROR, "Abandoned", true;
    /// The origin that generated the stream is gone.
    Interrupted, "interrupted", INTERNAL_SERVER_ERROR, "Interrupted", true;
}

impl Problem {
    /// A problem of `kind`, told in `detail`: a sentence that says what to do.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, allow: None }
    }

    /// 400: the request can't be understood.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    /// 400: a bare stream tells of a failure by breaking off its chunks, which HTTP/1.0 doesn't have.
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

    /// 400: the cursor is past the end of a stream that has ended.
    pub fn cursor_past_end() -> Self {
        Self::new(Kind::BadCursor, "the cursor is past the end of the stream; read it from its start")
    }

    /// 401: the caller doesn't hold the edge's secret.
    pub fn unauthorised() -> Self {
        Self::new(Kind::Unauthorised, "send the edge's secret as a bearer token")
    }

    /// 404: nothing is at this path.
    pub fn no_such_path() -> Self {
        Self::new(Kind::NotFound, "there is nothing at this path")
    }

    /// 404: no prompt has this name.
    pub fn no_such_prompt() -> Self {
        Self::new(Kind::NotFound, "no prompt has this name")
    }

    /// 404: no stream has this id.
    pub fn no_such_stream() -> Self {
        Self::new(Kind::NotFound, "no stream has this id, or it has expired; start a new one")
    }

    /// 404: the stream that the key started is no longer kept.
    pub fn expired() -> Self {
        Self::new(Kind::Expired, "the stream is no longer kept; start a new one with a new key")
    }

    /// 405, with the methods that the path has.
    pub fn invalid_method(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::new(Kind::InvalidMethod, format!("this path takes {allow}")) }
    }

    /// 413: the body is over `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(Kind::TooLarge, format!("the body is over {limit} bytes"))
    }

    /// 415: the body isn't JSON by its content type.
    pub fn not_json() -> Self {
        Self::new(Kind::NotJson, "send a JSON object, with content-type application/json")
    }

    /// 422: the key belongs to a start with another prompt or other variables.
    pub fn key_reused() -> Self {
        Self::new(Kind::KeyReused, "this idempotency key started another prompt; use a new key")
    }

    /// 500: a fault of ours, whose cause is in the log.
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "the origin failed; try again")
    }

    /// 503: as many streams are running and waiting as are allowed.
    pub fn overloaded() -> Self {
        Self::soon(Kind::Overloaded, "too many streams are running; try again soon")
    }

    /// 503: the server is on its way out.
    pub fn draining() -> Self {
        Self::soon(Kind::Overloaded, "the server is shutting down; try again")
    }

    /// 503: a browser prefetches the address, which must start nothing.
    pub fn prefetch() -> Self {
        Self::soon(Kind::Overloaded, "a prefetch starts nothing; ask again when the answer is wanted")
    }

    /// 503, or in `failed`: the journal can't be reached, or has lost the stream.
    pub fn journal() -> Self {
        Self::soon(Kind::Journal, "the journal of streams can't be reached; try again soon")
    }

    /// In `failed`: nobody was reading for `linger`.
    pub fn abandoned() -> Self {
        Self::new(Kind::Abandoned, "the generation was ended because nobody was reading")
    }

    /// In `failed`: the origin stopped before the answer was whole.
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "the origin stopped before the answer was whole; start it again")
    }

    fn soon(kind: Kind, detail: &'static str) -> Self {
        Self::new(kind, detail).retry_after(Duration::from_secs(1))
    }

    /// The same problem with the time after which another try makes sense.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// What kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether it can be a whole answer. What ended a stream that had begun is told in `failed` alone.
    pub fn can_answer(&self) -> bool {
        !matches!(self.kind, Kind::Abandoned | Kind::Interrupted)
    }

    /// The document: of an answer to a request for `instance`, a path, or without one the data of a `failed` event.
    pub fn document<'a>(&'a self, instance: Option<&'a str>) -> impl Serialize + 'a {
        let Self { kind, detail, .. } = self;
        let r#type = format!("/problems/{}", kind.name());
        let status = instance.map(|_| kind.status().as_u16());
        Document { r#type, title: kind.title(), status, detail, instance, retryable: kind.retryable() }
    }

    /// The problem as an answer to a request for `instance`, a path.
    pub fn answer(&self, instance: &str) -> Response {
        let headers = [(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")];
        let allow = self.allow.map(|allow| [(header::ALLOW, allow)]);
        // Whole seconds, RFC 9110 section 10.2.3: too late rather than too early.
        let seconds = |after: Duration| after.as_secs_f64().ceil().max(1.0) as u64;
        let retry_after = self.retry_after.map(|after| [(header::RETRY_AFTER, HeaderValue::from(seconds(after)))]);
        // RFC 9110 section 15.5.2.
        let challenge = (self.kind == Kind::Unauthorised).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        let body = serde_json::to_vec(&self.document(Some(instance))).unwrap_or_default();
        (self.kind.status(), headers, allow, retry_after, challenge, body).into_response()
    }
}

/// A handler's problem becomes an answer in [`crate::routes`], where the path is known.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    retryable: bool,
}
