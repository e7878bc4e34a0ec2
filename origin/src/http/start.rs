//! `GET|POST /prompts/NAME`: starts a stream, or with a cursor goes on with one.

use std::{error::Error, iter, sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, HeaderName, Method, Version, header},
    response::{IntoResponse, Response},
};
use headwater_protocol::{
    KEY_PARAMETER, MAX_BODY_BYTES, Problem, Variables,
    header::{JSON, is_media_type},
};
use http_body_util::LengthLimitError;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout};

use super::{
    follow,
    problem::ProblemResponse,
    request::{LAST_EVENT_ID, framing, header_or, is_prefetch, parse_cursor, query, take_cursor},
    router::App,
};
use crate::{generation::Start, journal::Idempotency, stream::Framing, telemetry::record::Asked};

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Starts the prompt `NAME`, or attaches to the stream that the cursor or the key names.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ProblemResponse> {
    let received = Instant::now();
    let Path(name) = path.map_err(|_| Problem::no_such_path())?;
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(Problem::invalid_method("GET, POST").into());
    }
    if is_prefetch(request.headers()) {
        return Err(Problem::prefetch().into());
    }
    let mut query = query(&request)?;
    let (cursor, key) = (take_cursor(&mut query), query.0.remove(KEY_PARAMETER));
    let (parts, body) = request.into_parts();
    if let Some(cursor) = header_or(&parts.headers, &LAST_EVENT_ID, cursor) {
        let cursor = parse_cursor(&cursor)?;
        // The body is not used, but it must be read: behind an unread one hyper doesn't see the reader leave.
        let _ = timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await;
        return follow::attach(&app, &cursor).await;
    }
    let framing = framing(&parts.headers);
    if framing == Framing::Bare && parts.version < Version::HTTP_11 {
        return Err(Problem::bare_over_http_10().into());
    }
    let variables = if parts.method == Method::POST { json(&parts.headers, body).await? } else { query };
    let prompt = app.prompts.render(&name, &variables)?;
    let key = header_or(&parts.headers, &IDEMPOTENCY_KEY, key).map(|key| key.parse()).transpose()?;
    let idempotency = key.map(|key| Idempotency { key, fingerprint: fingerprint(&name, &variables) });
    let asked = Asked {
        variables: app.log_variables.then(|| variables.to_json()),
        trace: parts.headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()?.parse().ok()),
        prompt: name,
    };
    let reader = app.hub.start(Start { prompt, idempotency, framing, asked }).await?;
    let waited = format!("wait;dur={:.1}", received.elapsed().as_secs_f64() * 1e3);
    Ok(([(SERVER_TIMING, waited)], follow::answer(reader)).into_response())
}

/// A digest of the prompt's name and the variables.
fn fingerprint(name: &str, variables: &Variables) -> [u8; 32] {
    let mut digest = Sha256::new();
    // Each text with its length, so that no two lists have the same bytes.
    for text in iter::once(name).chain(variables.0.iter().flat_map(|(name, value)| [name.as_str(), value])) {
        digest.update(text.len().to_le_bytes());
        digest.update(text);
    }
    digest.finalize().into()
}

/// A body as variables.
async fn json(headers: &HeaderMap, body: Body) -> Result<Variables, Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_media_type(media_type, JSON) {
        return Err(Problem::not_json());
    }
    // A declared length over the limit is refused without reading the body.
    if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(Problem::too_large(MAX_BODY_BYTES));
    }
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) if error.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => {
            return Err(Problem::too_large(MAX_BODY_BYTES));
        }
        Ok(Err(_)) => return Err(Problem::bad_request("the body broke off; send it again")),
        Err(_) => return Err(Problem::bad_request("the body was too slow; send it in one piece")),
    };
    Variables::from_json(&body)
}
