//! `GET|POST /prompts/NAME`: starts a stream, or with a cursor goes on with one.

use std::{mem, sync::Arc};

use axum::{
    extract::{Path, Request, State, rejection::PathRejection},
    response::Response,
};
use headwater_protocol::{MAX_BODY_BYTES, Problem, Variables};

use super::{
    problem::ProblemResponse,
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
    let (mut head, body) = Head::take(request, "GET, POST")?;
    if let Some(cursor) = head.cursor()? {
        return head.resume(&app, &cursor, body).await;
    }
    let dialect = head.own_dialect()?;
    let variables = if head.is_post() {
        Variables::from_json(&head.json(body, MAX_BODY_BYTES).await?)?
    } else {
        mem::take(&mut head.query)
    };
    let conversation = Conversation::of_prompt(app.prompts.render(&name, &variables)?);
    let input = Input { conversation, options: Options::default(), model: None };
    let logged = app.log_variables.then(|| variables.to_json());
    head.start(&app, Asks { input, dialect, name, logged, ignored: Vec::new() }).await
}
