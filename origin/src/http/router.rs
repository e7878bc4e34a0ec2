//! Which path is which handler.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use headwater_protocol::Problem;
use tower_http::catch_panic::CatchPanicLayer;

use super::{
    auth::{self, Secrets},
    chat, follow, health, openai,
    problem::{self, ProblemResponse},
    prompts,
    request::caller,
    stop,
};
use crate::{generation::Hub, model::names::ModelNames, prompt::Prompts, telemetry::metrics};

/// What the handlers work with.
pub struct App {
    /// The streams.
    pub hub: Hub,
    /// The prompts.
    pub prompts: Prompts,
    /// The models, by the names that clients have for them.
    pub models: ModelNames,
    /// When the process was started, seconds since 1970.
    pub started: u64,
    /// The edge's secrets.
    pub secrets: Secrets,
    /// Whether variables go to the log.
    pub log_variables: bool,
}

/// The origin's service.
pub fn router(app: App) -> Router {
    let app = Arc::new(app);
    let routes = Router::new()
        .route("/prompts/{name}", any(prompts::start))
        .route(chat::PATH, any(chat::start))
        .route(openai::COMPLETIONS, any(openai::completions))
        .route("/v1/models", any(openai::list))
        // A name may have slashes.
        .route("/v1/models/{*name}", any(openai::model))
        .route("/streams/{id}", any(stream))
        .layer(middleware::from_fn_with_state(app.clone(), auth::authorise))
        .route("/healthz", any(health::health))
        .fallback(async || ProblemResponse::from(Problem::no_such_path()));
    answered(routes).with_state(app)
}

/// These routes, of which each request gets an answer: also where its handler has a problem, or panics.
fn answered<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .layer(CatchPanicLayer::custom(|_| ProblemResponse::from(Problem::internal()).into_response()))
        .layer(middleware::from_fn(problem::answer))
}

/// The metrics' service, for an address of its own: `GET /metrics`.
pub fn metrics(hub: Hub) -> Router {
    let metrics = async |State(hub): State<Hub>| ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], hub.metrics());
    Router::new().route("/metrics", get(metrics)).with_state(hub)
}

/// `/streams/ID`. The method is checked before the id, and axum's `get` would also serve HEAD.
async fn stream(
    State(app): State<Arc<App>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, ProblemResponse> {
    let Path(id) = path.map_err(|_| Problem::no_such_path())?;
    match *request.method() {
        Method::GET => follow::follow(&app, &id, request).await,
        Method::DELETE => stop::stop(&app, &id, caller(request.headers())).await,
        _ => Err(Problem::invalid_method("GET, DELETE").into()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_an_internal_problem() {
        async fn panics() {
            panic!("what nobody else knows")
        }
        let service = TowerToHyperService::new(answered(Router::new().route("/panics", get(panics))));
        let answer = service.call(Request::get("/panics").body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 500);
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        assert_eq!(body, Problem::internal().document("/panics"));
    }
}
