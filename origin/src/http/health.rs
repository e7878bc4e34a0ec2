//! `GET /healthz`: whether this origin takes new streams.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{Method, StatusCode},
    response::{IntoResponse, Json, Response},
};
use serde::Serialize;

use super::{problem::ProblemResponse, request::only, router::App};
use crate::generation::hub::Status;

/// Answers with the status, and how many streams there are.
pub(super) async fn health(State(app): State<Arc<App>>, method: Method) -> Result<Response, ProblemResponse> {
    #[derive(Serialize)]
    struct Health {
        status: &'static str,
        streams: Status,
    }
    only("GET, HEAD", &method)?;
    let (code, status) = if app.hub.draining() {
        (StatusCode::OK, "draining")
    } else if app.hub.journal_is_healthy() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "journal")
    };
    Ok((code, Json(Health { status, streams: app.hub.status() })).into_response())
}
