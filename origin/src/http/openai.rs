//! OpenAI's paths: `POST /v1/chat/completions`, `GET /v1/models`, `GET /v1/models/NAME`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State, rejection::PathRejection},
    http::header,
    response::{IntoResponse, Response},
};
use headwater_protocol::{MAX_CONVERSATION_BYTES, Problem};

use super::{
    problem::ProblemResponse,
    request::only,
    router::App,
    start::{Asks, Head},
};
use crate::dialect::{chat, models};

/// Where conversations are posted to.
pub(super) const COMPLETIONS: &str = "/v1/chat/completions";

/// Answers a conversation, with a stream or one completion.
pub(super) async fn completions(State(app): State<Arc<App>>, request: Request) -> Result<Response, ProblemResponse> {
    let (head, body) = Head::take(request, "POST")?;
    let request = chat::request(&head.json(body, MAX_CONVERSATION_BYTES).await?)?;
    let chat::Request { input, dialect, ignored } = request;
    let logged = app.log_variables.then(|| input.conversation.to_json());
    head.start(&app, Asks { input, dialect, name: COMPLETIONS.to_owned(), logged, ignored }).await
}

/// The models that can be asked for.
pub(super) async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Response, ProblemResponse> {
    only("GET", request.method())?;
    Ok(told(models::List::new(&app.models.known(), app.started)))
}

/// One of them, or what an alias stands for.
pub(super) async fn model(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ProblemResponse> {
    only("GET", request.method())?;
    let Path(name) = name.map_err(|_| Problem::no_such_model(&app.models.known()))?;
    app.models.resolve(&name)?;
    Ok(told(models::Model::new(&name, app.started)))
}

fn told(models: impl serde::Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(models)).into_response()
}
