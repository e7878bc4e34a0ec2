//! A problem as an answer.

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use headwater_protocol::{
    Kind, Problem,
    header::{self as rules, JSON, PROBLEM},
    openai::{self, ErrorBody},
};

const PROBLEM_KIND: HeaderName = HeaderName::from_static(rules::PROBLEM_KIND);

/// A handler's problem. It becomes an answer in [`answer`], where the path is known.
pub(super) struct ProblemResponse(Problem);

impl From<Problem> for ProblemResponse {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(self) -> Response {
        let mut response = status(&self.0).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Writes a handler's problem as a document that names the request's path.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => document(&problem, &path),
        None => response,
    }
}

/// The problem as an answer to a request for the path `instance`, in the manner of that path.
pub(super) fn document(problem: &Problem, instance: &str) -> Response {
    let openai = openai::is_path(instance);
    let (media_type, body) =
        if openai { (JSON, ErrorBody::of(problem).to_json()) } else { (PROBLEM, problem.document(instance)) };
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        // By it the edge knows the origin's own answers, whatever their form.
        (PROBLEM_KIND, problem.kind().name()),
    ];
    let should_retry = if problem.retryable() { "true" } else { "false" };
    let should_retry = openai.then_some([(openai::SHOULD_RETRY, should_retry)]);
    let allow = problem.allow().map(|allow| [(header::ALLOW, allow)]);
    let longest = if openai { openai::LONGEST_RETRY_AFTER_S } else { u64::MAX };
    let retry_after = problem.retry_after_s().map(|seconds| seconds.min(longest));
    let retry_after = retry_after.map(|seconds| [(header::RETRY_AFTER, HeaderValue::from(seconds))]);
    // RFC 9110 section 15.5.2.
    let challenge = (problem.kind() == Kind::Unauthorised).then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
    (status(problem), headers, should_retry, allow, retry_after, challenge, body).into_response()
}

fn status(problem: &Problem) -> StatusCode {
    // The statuses are constants of the protocol crate.
    StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
