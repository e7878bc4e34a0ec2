//! `DELETE /streams/ID`: ends a generation.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use headwater_protocol::{Problem, StreamId};

use super::{problem::ProblemResponse, router::App};

/// Answers 204 once the stream has ended.
pub(super) async fn stop(app: &App, id: &str, caller: Option<&str>) -> Result<Response, ProblemResponse> {
    let id = StreamId::from_path(id).map_err(|_| Problem::no_such_stream())?;
    app.hub.stop(&id, caller).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
