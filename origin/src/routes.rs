//! HTTP: requests become calls on the hub, and their results answers.

use std::{error::Error, iter, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, HttpBody, to_bytes},
    extract::{Path, Query, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    middleware::{self, Next},
    response::{IntoResponse, Json, Response},
    routing::{any, get},
};
use headwater_protocol::{CURSOR_PARAMETERS, KEY_PARAMETER, header::accepts_event_stream};
use http_body_util::LengthLimitError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use crate::{
    metrics,
    problem::Problem,
    prompt::{Prompts, Variables},
    record::Asked,
    secrets::Secrets,
    stream::{Attached, Cursor, Hub, Idempotency, Reader, Start, StreamId, hub::Status},
    wire::{self, Framing},
};

/// The longest body, bytes.
const BODY_BYTES: usize = 16 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What the routes work with.
pub struct App {
    /// The streams.
    pub hub: Hub,
    /// The prompts.
    pub prompts: Prompts,
    /// Who may call.
    pub secrets: Secrets,
    /// Whether variables go to the log.
    pub log_variables: bool,
}

/// The origin's service.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    Router::new()
        .route("/prompts/{name}", any(prompt))
        .route("/streams/{id}", any(stream))
        .layer(middleware::from_fn_with_state(app.clone(), authorise))
        .route("/healthz", any(health))
        .fallback(async || Problem::no_such_path())
        .layer(middleware::from_fn(tell))
        .with_state(app)
}

/// The figures' service, for an address of its own: `GET /metrics`.
pub fn figures(hub: Hub) -> Router {
    let figures = async |State(hub): State<Hub>| ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], hub.metrics());
    Router::new().route("/metrics", get(figures)).with_state(hub)
}

/// `GET|POST /prompts/NAME`: starts a stream, or with a cursor goes on with one.
async fn prompt(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let received = Instant::now();
    let Path(name) = path.map_err(|_| Problem::no_such_path())?;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Problem::invalid_method("GET, POST"));
    }
    if is_prefetch(request.headers()) {
        return Err(Problem::prefetch());
    }
    let mut query = query(&request)?;
    let (cursor, key) = (take_cursor(&mut query), query.remove(KEY_PARAMETER));
    let (parts, body) = request.into_parts();
    if let Some(cursor) = header_or(&parts.headers, &LAST_EVENT_ID, cursor) {
        let cursor = parse_cursor(&cursor)?;
        // What the body says doesn't matter, but behind one that is left unread hyper doesn't see the reader leave.
        let _ = timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES)).await;
        return attach(&app, &cursor).await;
    }
    let framing = framing(&parts.headers);
    if framing == Framing::Bare && parts.version < Version::HTTP_11 {
        return Err(Problem::bare_over_http_10());
    }
    let variables = if parts.method == Method::POST { json(&parts.headers, body).await? } else { query };
    let prompt = app.prompts.render(&name, &variables)?;
    let key = header_or(&parts.headers, &IDEMPOTENCY_KEY, key).map(|key| key.parse()).transpose()?;
    let idempotency = key.map(|key| Idempotency { key, fingerprint: fingerprint(&name, &variables) });
    let asked = Asked {
        variables: app.log_variables.then(|| serde_json::to_string(&variables).unwrap_or_default()),
        trace: parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok()),
        prompt: name,
    };
    let reader = app.hub.start(Start { prompt, idempotency, framing, asked }).await?;
    let waited = format!("wait;dur={:.1}", received.elapsed().as_secs_f64() * 1e3);
    Ok(([(SERVER_TIMING, waited)], answer(reader)).into_response())
}

/// `GET /streams/ID`: follows a stream; `DELETE /streams/ID`: stops it.
async fn stream(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(id) = path.map_err(|_| Problem::no_such_path())?;
    if !matches!(*request.method(), Method::GET | Method::DELETE) {
        return Err(Problem::invalid_method("GET, DELETE"));
    }
    let id: StreamId = id.parse().map_err(|_| Problem::no_such_stream())?;
    if *request.method() == Method::DELETE {
        app.hub.stop(&id).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let parameter = take_cursor(&mut query(&request)?);
    let cursor = match header_or(request.headers(), &LAST_EVENT_ID, parameter) {
        Some(cursor) => parse_cursor(&cursor)?,
        None => Cursor { id: id.clone(), next: 0 },
    };
    if cursor.id != id {
        return Err(Problem::no_such_stream());
    }
    attach(&app, &cursor).await
}

/// `GET /healthz`: whether this origin takes new streams, and how many it has.
async fn health(State(app): State<Arc<App>>, method: Method) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
        streams: Status,
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        return Err(Problem::invalid_method("GET, HEAD"));
    }
    let status = if app.hub.draining() { "draining" } else { "ok" };
    Ok(Json(Health { status, streams: app.hub.status() }).into_response())
}

async fn attach(app: &App, cursor: &Cursor) -> Result<Response, Problem> {
    match app.hub.attach(cursor).await? {
        Attached::Reader(reader) => Ok(answer(reader)),
        // HTML section 9.2.3: it stops an EventSource.
        Attached::AtEnd => Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response()),
    }
}

/// A stream as an answer.
fn answer(reader: Reader) -> Response {
    let headers = [
        (header::CONTENT_TYPE, wire::MEDIA_TYPE),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::VARY, "Accept"),
        // nginx and others buffer a response without it.
        (X_ACCEL_BUFFERING, "no"),
    ];
    let is_framed = reader.framing() == Framing::Framed;
    let place = is_framed.then(|| [(header::CONTENT_LOCATION, format!("/streams/{}", reader.stream().id()))]);
    (headers, place, Body::from_stream(reader.into_body())).into_response()
}

/// Lets only the edge in.
async fn authorise(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Problem> {
    let token =
        request.headers().get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if token.is_some_and(|token| app.secrets.accept(token)) {
        Ok(next.run(request).await)
    } else {
        Err(Problem::unauthorised())
    }
}

/// Makes a handler's problem an answer: here the path is known.
async fn tell(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.answer(&path),
        None => response,
    }
}

/// `Sec-Purpose` is a structured field, RFC 9651: `prefetch`, or `prefetch;prerender` and the like.
fn is_prefetch(headers: &HeaderMap) -> bool {
    let purposes = headers.get_all("sec-purpose").iter().filter_map(|purpose| purpose.to_str().ok());
    purposes.flat_map(|purpose| purpose.split([';', ','])).any(|item| item.trim() == "prefetch")
}

/// Without naming event streams one gets the bare framing.
fn framing(headers: &HeaderMap) -> Framing {
    let names = |accept: &HeaderValue| accept.to_str().is_ok_and(accepts_event_stream);
    if headers.get_all(header::ACCEPT).iter().any(names) { Framing::Framed } else { Framing::Bare }
}

fn query(request: &Request) -> Result<Variables, Problem> {
    let query = Query::<Variables>::try_from_uri(request.uri());
    query.map(|Query(query)| query).map_err(|_| Problem::bad_request("the query doesn't parse; encode its values"))
}

/// Takes the cursor out of a query, whatever its name. An empty one is none.
fn take_cursor(query: &mut Variables) -> Option<String> {
    let cursors = CURSOR_PARAMETERS.map(|name| query.remove(name));
    cursors.into_iter().flatten().find(|cursor| !cursor.is_empty())
}

/// A header's text, else the parameter. The header wins, because an EventSource sends its newest cursor there,
/// beside the parameter that it was opened with. Bytes that aren't text stay wrong, they aren't left out.
fn header_or(headers: &HeaderMap, name: &HeaderName, parameter: Option<String>) -> Option<String> {
    let header = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let given = |value: &String| !value.is_empty();
    header.filter(given).or(parameter.filter(given))
}

/// What a key is sent with: a digest of the prompt's name and the variables.
fn fingerprint(name: &str, variables: &Variables) -> [u8; 32] {
    let mut digest = Sha256::new();
    // Each with its length, so that no two lists of texts run together alike.
    for text in iter::once(name).chain(variables.iter().flat_map(|(name, value)| [name.as_str(), value])) {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}

fn parse_cursor(text: &str) -> Result<Cursor, Problem> {
    text.parse().map_err(|_| Problem::malformed_cursor())
}

/// A body as variables.
async fn json(headers: &HeaderMap, body: Body) -> Result<Variables, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::not_json());
    }
    // Told by its length it is not waited for.
    if body.size_hint().lower() > BODY_BYTES as u64 {
        return Err(Problem::too_large(BODY_BYTES));
    }
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            return Err(Problem::too_large(BODY_BYTES));
        }
        Ok(Err(_)) => return Err(Problem::bad_request("the body broke off; send it again")),
        Err(_) => return Err(Problem::bad_request("the body was too slow; send it in one piece")),
    };
    serde_json::from_slice(&body).map_err(|_| {
        Problem::bad_request("the body is a JSON object whose values are strings, such as {\"topic\":\"cat\"}")
    })
}
