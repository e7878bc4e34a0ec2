//! `GET /streams/ID`: follows a stream from a cursor.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use headwater_protocol::{Cursor, Problem, StreamId};

use super::{
    problem::ProblemResponse,
    request::{LAST_EVENT_ID, caller, header_or, parse_cursor, query, take_cursor},
    router::App,
};
use crate::{
    dialect::Dialect,
    generation::{Attached, Reader},
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Follows the stream from the request's cursor, else from its start.
pub(super) async fn follow(app: &App, id: &str, request: Request) -> Result<Response, ProblemResponse> {
    let id = StreamId::from_path(id).map_err(|_| Problem::no_such_stream())?;
    let parameter = take_cursor(&mut query(&request)?);
    let cursor = match header_or(request.headers(), &LAST_EVENT_ID, parameter) {
        Some(cursor) => parse_cursor(&cursor)?,
        None => Cursor::start(id.clone()),
    };
    if cursor.id != id {
        return Err(Problem::no_such_stream().into());
    }
    attach(app, &cursor, caller(request.headers())).await
}

/// Attaches a reader at the cursor.
pub(super) async fn attach(app: &App, cursor: &Cursor, caller: Option<&str>) -> Result<Response, ProblemResponse> {
    match app.hub.attach(cursor, caller).await? {
        Attached::Reader(reader) => Ok(answer(reader)),
        // HTML section 9.2.3: it stops an EventSource.
        Attached::AtEnd => Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response()),
    }
}

/// A stream as an answer.
pub(super) fn answer(reader: Reader) -> Response {
    let dialect = reader.dialect();
    let headers = [
        (header::CONTENT_TYPE, dialect.media_type()),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        // nginx and others buffer a response without it.
        (X_ACCEL_BUFFERING, "no"),
    ];
    let id = reader.stream().id();
    let varies = (!dialect.is_foreign()).then_some([(header::VARY, "Accept")]);
    let location = (dialect != Dialect::Bare).then(|| [(header::CONTENT_LOCATION, id.path())]);
    // OpenAI's clients show it to their users.
    let request_id = dialect.is_foreign().then(|| [(X_REQUEST_ID, id.to_string())]);
    (headers, varies, location, request_id, Body::from_stream(reader.into_body())).into_response()
}
