//! `POST /chat`: starts the answer to a conversation, in this project's own dialects; with a cursor goes on with one, as
//! `GET /chat` does for an EventSource.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use headwater_protocol::{MAX_CONVERSATION_BYTES, Problem};

use super::{
    problem::ProblemResponse,
    router::App,
    start::{Asks, Head},
};
use crate::dialect::own;

/// Where conversations are posted to.
pub(super) const PATH: &str = "/chat";

/// Starts an answer, or goes on with the one that the cursor names.
pub(super) async fn start(State(app): State<Arc<App>>, request: Request) -> Result<Response, ProblemResponse> {
    let (head, body) = Head::take(request, "GET, POST")?;
    if let Some(cursor) = head.cursor()? {
        return head.resume(&app, &cursor, body).await;
    }
    if !head.is_post() {
        return Err(Problem::invalid_method("POST").into());
    }
    let dialect = head.own_dialect()?;
    let input = own::request(&head.json(body, MAX_CONVERSATION_BYTES).await?)?;
    let logged = app.log_variables.then(|| input.conversation.to_json());
    head.start(&app, Asks { input, dialect, name: PATH.to_owned(), logged, ignored: Vec::new() }).await
}
