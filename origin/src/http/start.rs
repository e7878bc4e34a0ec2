//! What all routes share that start a stream: the request's head, its body, and the way to the answer.

use std::time::Duration;

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderName, HeaderValue, Method, Version, header, request},
    response::{IntoResponse, Response},
};
use headwater_protocol::{
    Cursor, IdempotencyKey, KEY_PARAMETER, Problem, Variables,
    header::{self as rules, JSON, is_media_type},
};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use super::{
    follow,
    problem::ProblemResponse,
    request::{
        LAST_EVENT_ID, caller, header_or, is_prefetch, names_event_stream, only, parse_cursor, query, take_cursor, text,
    },
    router::App,
};
use crate::{
    dialect::{Dialect, input::Input},
    generation::Start,
    journal::Idempotency,
    model::{self, names::DEFAULT},
    stream::Opening,
    telemetry::record::Asked,
};

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read before that is told, and for how long.
const DISCARD_BYTES: usize = 8 * 1024 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(1);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ATTEMPT: HeaderName = HeaderName::from_static(rules::ATTEMPT);
const IGNORED: HeaderName = HeaderName::from_static(rules::IGNORED);
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The head of a request for a stream, and when it came.
pub(super) struct Head {
    received: Instant,
    parts: request::Parts,
    /// The query's members, but for the cursor and the key.
    pub(super) query: Variables,
    /// The cursor in the query.
    cursor: Option<String>,
    /// The idempotency key in the query.
    key: Option<String>,
}

/// What is asked for.
pub(super) struct Asks {
    pub(super) input: Input,
    pub(super) dialect: Dialect,
    /// The prompt's name, or the path: for the record.
    pub(super) name: String,
    /// What may be logged of it.
    pub(super) logged: Option<String>,
    /// The request's members that are ignored.
    pub(super) ignored: Vec<String>,
}

impl Head {
    /// Takes a request's body off its head.
    ///
    /// # Errors
    /// Its method isn't one of `methods` (`"GET, POST"`), nobody waits for the answer, or the query doesn't parse.
    pub(super) fn take(request: Request, methods: &'static str) -> Result<(Self, Body), Problem> {
        only(methods, request.method())?;
        if is_prefetch(request.headers()) {
            return Err(Problem::prefetch());
        }
        let mut query = query(&request)?;
        let (cursor, key) = (take_cursor(&mut query), query.0.remove(KEY_PARAMETER));
        let (parts, body) = request.into_parts();
        Ok((Self { received: Instant::now(), parts, query, cursor, key }, body))
    }

    /// The cursor in the header, else that in the query.
    ///
    /// # Errors
    /// It doesn't parse.
    pub(super) fn cursor(&self) -> Result<Option<Cursor>, Problem> {
        let cursor = header_or(&self.parts.headers, &LAST_EVENT_ID, self.cursor.clone());
        cursor.map(|cursor| parse_cursor(&cursor)).transpose()
    }

    /// Goes on with a stream.
    pub(super) async fn resume(&self, app: &App, cursor: &Cursor, mut body: Body) -> Result<Response, ProblemResponse> {
        // The body is not used, but it must be read: behind an unread one hyper doesn't see the reader leave.
        let _ = timeout(BODY_TIMEOUT, discard(&mut body)).await;
        follow::attach(app, cursor, caller(&self.parts.headers)).await
    }

    /// Framed where `Accept` names event streams, else bare.
    ///
    /// # Errors
    /// It is bare over HTTP/1.0.
    pub(super) fn own_dialect(&self) -> Result<Dialect, Problem> {
        if names_event_stream(&self.parts.headers) {
            return Ok(Dialect::Own);
        }
        if self.parts.version < Version::HTTP_11 { Err(Problem::bare_over_http_10()) } else { Ok(Dialect::Bare) }
    }

    pub(super) fn is_post(&self) -> bool {
        self.parts.method == Method::POST
    }

    /// The body, declared as JSON, of `most` bytes.
    ///
    /// # Errors
    /// It is declared as something else, too large, too slow, or broken off.
    pub(super) async fn json(&self, mut body: Body, most: usize) -> Result<Bytes, Problem> {
        let media_type = text(&self.parts.headers, &header::CONTENT_TYPE).unwrap_or_default();
        if !is_media_type(media_type, JSON) {
            let _ = timeout(DISCARD_TIMEOUT, discard(&mut body)).await;
            return Err(Problem::not_json());
        }
        match timeout(BODY_TIMEOUT, read(body, most)).await {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(Problem::too_large(most)),
            Ok(Err(_)) => Err(Problem::bad_request("the body broke off; send it again")),
            Err(_) => Err(Problem::bad_request("the body was too slow; send it in one piece")),
        }
    }

    /// Starts a stream, or attaches to the one that the key has started.
    pub(super) async fn start(&self, app: &App, asks: Asks) -> Result<Response, ProblemResponse> {
        let headers = &self.parts.headers;
        let Asks { input: Input { conversation, options, model }, dialect, name, logged, ignored } = asks;
        let caller = caller(headers);
        let asked_model = model.as_deref().unwrap_or(DEFAULT);
        let own_key = header_or(headers, &IDEMPOTENCY_KEY, self.key.clone());
        // Who reads this project's own dialect has the stream's id to come back with.
        let may_return = dialect == Dialect::Own || (own_key.is_some() && dialect != Dialect::Bare);
        let key = own_key.or_else(|| header_or(headers, &ATTEMPT, None));
        let key: Option<IdempotencyKey> = key.map(|key| key.parse()).transpose()?;
        let fingerprint = || conversation.digest(Some(asked_model), &options);
        let idempotency = key.map(|key| Idempotency { key: key.of_caller(caller), fingerprint: fingerprint() });
        let opening = Opening::now(asked_model.to_owned(), caller.map(str::to_owned));
        let request = model::Request { model: app.models.resolve(asked_model)?, conversation, options };
        let ignored = ignored_header(app.hub.ignored(&request), &ignored);
        let trace = text(headers, &TRACEPARENT).and_then(|value| value.parse().ok());
        let asked = Asked { prompt: name, variables: logged, trace };
        let start = Start { request, opening, idempotency, dialect, may_return, asked };
        let reader = app.hub.start(start).await?;
        let waited = format!("wait;dur={:.1}", self.received.elapsed().as_secs_f64() * 1e3);
        Ok(([(SERVER_TIMING, waited)], ignored, follow::answer(reader)).into_response())
    }
}

/// Reads a body of up to `most` bytes; `None` where it is longer.
async fn read(mut body: Body, most: usize) -> Result<Option<Bytes>, axum::Error> {
    if body.size_hint().lower() > most as u64 {
        let _ = timeout(DISCARD_TIMEOUT, discard(&mut body)).await;
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(body.size_hint().exact().unwrap_or_default() as usize);
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(frame?.data_ref().map_or(&[], |data| data));
        if bytes.len() > most {
            let _ = timeout(DISCARD_TIMEOUT, discard(&mut body)).await;
            return Ok(None);
        }
    }
    Ok(Some(bytes.into()))
}

/// Reads what nobody wants: where a client sends on, closing the connection under it would lose the answer.
async fn discard(body: &mut Body) {
    let mut left = DISCARD_BYTES;
    while left > 0
        && let Some(Ok(frame)) = body.frame().await
    {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
    }
}

/// Tells which options and members of a request are ignored.
fn ignored_header(options: Vec<&str>, members: &[String]) -> Option<[(HeaderName, HeaderValue); 1]> {
    let names: Vec<&str> = options.into_iter().chain(members.iter().map(String::as_str)).collect();
    let value = HeaderValue::from_str(&names.join(", ")).ok().filter(|value| !value.is_empty())?;
    Some([(IGNORED, value)])
}
