//! Problems as clients of OpenAI's API read them: `{"error":{"message","type","param","code"}}`.
//!
//! Clients repeat a request after 408, 409, 429 and any 5xx, unless the answer says otherwise: [`SHOULD_RETRY`].

use serde::Serialize;

use crate::{Kind, Problem};

/// The paths of OpenAI's API begin with it.
pub const PATHS: &str = "/v1/";

/// What stands before a stream's id in the id of a chat completion.
pub const COMPLETION_PREFIX: &str = "chatcmpl-";

/// The header by which a server tells OpenAI's clients whether to repeat a request: `true` or `false`.
pub const SHOULD_RETRY: &str = "x-should-retry";

/// The longest `Retry-After` that these clients wait, seconds. Beyond it the one for JavaScript tries again after a time of its
/// own, and the one for Python, from two minutes on, not at all.
pub const LONGEST_RETRY_AFTER_S: u64 = 60;

/// Whether a path is answered in OpenAI's manner, errors too.
pub fn is_path(path: &str) -> bool {
    path.starts_with(PATHS)
}

/// A problem as the body of an answer, and as the data of a stream's last event but one.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    error: Error<'a>,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl<'a> ErrorBody<'a> {
    /// The problem's.
    pub fn of(problem: &'a Problem) -> Self {
        let code = problem.code().or(code(problem.kind()));
        Self { error: Error { message: problem.detail(), kind: error_type(problem), param: problem.param(), code } }
    }

    /// One JSON object.
    pub fn to_json(&self) -> String {
        // Strings: JSON can hold them.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn error_type(problem: &Problem) -> &'static str {
    match problem.kind() {
        Kind::CrossSite => "permission_error",
        Kind::RateLimited => "rate_limit_error",
        // With its own status it says nothing of the request, with the provider's that it is at fault.
        kind @ Kind::ModelRefused if problem.status() == kind.status() => "server_error",
        _ if problem.status() < 500 => "invalid_request_error",
        _ => "server_error",
    }
}

/// OpenAI's own words where it has one, and clients look for it; else the kind's name for what isn't the request's fault.
fn code(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Unauthorised => Some("invalid_api_key"),
        Kind::CrossSite => Some("cross_site"),
        Kind::NoSuchModel => Some("model_not_found"),
        Kind::TooLong => Some("context_length_exceeded"),
        Kind::TooLarge => Some("request_too_large"),
        Kind::KeyReused => Some("idempotency_key_reused"),
        Kind::RateLimited => Some("rate_limit_exceeded"),
        Kind::ModelRefused => Some("model_refused"),
        _ if kind.status() < 500 => None,
        _ => Some(kind.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_the_members_that_clients_read() {
        assert_eq!(
            ErrorBody::of(&Problem::unsupported_value("n", "one answer at a time; send n = 1")).to_json(),
            r#"{"error":{"message":"one answer at a time; send n = 1","type":"invalid_request_error","param":"n","code":"unsupported_value"}}"#
        );
        assert_eq!(
            ErrorBody::of(&Problem::journal()).to_json(),
            r#"{"error":{"message":"the journal of streams can't be reached; try again soon","type":"server_error","param":null,"code":"journal"}}"#
        );
    }

    /// Clients repeat these whatever the answer says: the AI SDK doesn't read [`SHOULD_RETRY`].
    #[test]
    fn no_kind_that_is_in_vain_has_a_status_that_clients_repeat() {
        for kind in Kind::ALL.iter().filter(|kind| !kind.retryable()) {
            assert!(!matches!(kind.status(), 408 | 409 | 429 | 500..), "{}", kind.name());
        }
    }
}
