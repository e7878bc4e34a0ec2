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
    request::{LAST_EVENT_ID, header_or, parse_cursor, query, take_cursor},
    router::App,
};
use crate::{
    generation::{Attached, Reader},
    stream::{Framing, frame},
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

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
    attach(app, &cursor).await
}

/// Attaches a reader at the cursor.
pub(super) async fn attach(app: &App, cursor: &Cursor) -> Result<Response, ProblemResponse> {
    match app.hub.attach(cursor).await? {
        Attached::Reader(reader) => Ok(answer(reader)),
        // HTML section 9.2.3: it stops an EventSource.
        Attached::AtEnd => Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]).into_response()),
    }
}

/// A stream as an answer.
pub(super) fn answer(reader: Reader) -> Response {
    let headers = [
        (header::CONTENT_TYPE, frame::MEDIA_TYPE),
        (header::CACHE_CONTROL, "no-cache, no-transform"),
        (header::VARY, "Accept"),
        // nginx and others buffer a response without it.
        (X_ACCEL_BUFFERING, "no"),
    ];
    let is_framed = reader.framing() == Framing::Framed;
    let location = is_framed.then(|| [(header::CONTENT_LOCATION, reader.stream().id().path())]);
    (headers, location, Body::from_stream(reader.into_body())).into_response()
}
