//! `POST /chat`: starts the answer to a conversation, in this project's own dialects; with a cursor goes on with one, as
//! `GET /chat` does for an EventSource.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::Method,
    response::Response,
};
use headwater_protocol::{KEY_PARAMETER, MAX_CONVERSATION_BYTES, Problem};

use super::{
    problem::ProblemResponse,
    request::{is_prefetch, query, take_cursor},
    router::App,
    start::{Asks, Head},
};
use crate::dialect::own;

pub(super) async fn start(State(app): State<Arc<App>>, request: Request) -> Result<Response, ProblemResponse> {
    let no_method = || Problem::invalid_method("POST");
    if !matches!(*request.method(), Method::GET | Method::POST) {
        return Err(no_method().into());
    }
    if is_prefetch(request.headers()) {
        return Err(Problem::prefetch().into());
    }
    let mut query = query(&request)?;
    let (cursor, key) = (take_cursor(&mut query), query.0.remove(KEY_PARAMETER));
    let (parts, body) = request.into_parts();
    let (head, name) = (Head::new(parts), "/chat".to_owned());
    if let Some(cursor) = head.cursor(cursor)? {
        return head.resume(&app, &cursor, body).await;
    }
    if !head.is_post() {
        return Err(no_method().into());
    }
    let dialect = head.own_dialect()?;
    let input = own::request(&head.json(body, MAX_CONVERSATION_BYTES).await?)?;
    let logged = app.log_variables.then(|| input.conversation.to_json());
    head.start(&app, Asks { input, dialect, key, name, logged, ignored: Vec::new() }).await
}
