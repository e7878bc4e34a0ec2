//! `GET|POST /prompts/NAME`: starts a stream, or with a cursor goes on with one.

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    http::Method,
    response::Response,
};
use headwater_protocol::{KEY_PARAMETER, MAX_BODY_BYTES, Problem, Variables};

use super::{
    problem::ProblemResponse,
    request::{is_prefetch, query, take_cursor},
    router::App,
    start::{Asks, Head},
};
use crate::{
    dialect::input::Input,
    prompt::{Conversation, Options},
};

/// Starts the prompt `NAME`, or attaches to the stream that the cursor or the key names.
pub(super) async fn start(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ProblemResponse> {
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
    let head = Head::new(parts);
    if let Some(cursor) = head.cursor(cursor)? {
        return head.resume(&app, &cursor, body).await;
    }
    let dialect = head.own_dialect()?;
    let variables = if head.is_post() { Variables::from_json(&head.json(body, MAX_BODY_BYTES).await?)? } else { query };
    let conversation = Conversation::of_prompt(app.prompts.render(&name, &variables)?);
    let input = Input { conversation, options: Options::default(), model: None };
    let logged = app.log_variables.then(|| variables.to_json());
    head.start(&app, Asks { input, dialect, key, name, logged, ignored: Vec::new() }).await
}
