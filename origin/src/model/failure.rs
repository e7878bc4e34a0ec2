//! Provider failures as our errors: statuses, errors in the middle of a stream, and broken connections.

use std::time::{Duration, SystemTime};

use genai::Error;
use reqwest::{
    StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use serde_json::Value;

use super::ModelError;

/// The longest wait that is passed on; nobody waits longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Our error for the library's, and the provider's own words, for the log alone.
pub(super) fn read(error: &Error) -> (ModelError, String) {
    match error {
        Error::HttpError { status, headers, body, .. } => {
            let error = if is_ours(body) {
                ModelError::Misconfigured(format!("status {status}"))
            } else {
                of_status(*status, headers)
            };
            (error, body.clone())
        }
        Error::WebStream { error: inner, .. } => match inner.downcast_ref::<Error>() {
            Some(inner) => read(inner),
            None => (ModelError::BrokeOff("the connection failed".into()), chain(&**inner)),
        },
        Error::ChatResponse { body, .. } => (in_stream(body), body.to_string()),
        Error::StreamParse { .. } | Error::JsonValueExt(_) => {
            (ModelError::BadAnswer("it can't be read".into()), error.to_string())
        }
        _ => (ModelError::BadAnswer("the library gave up".into()), error.to_string()),
    }
}

/// Our error for an answer that is no stream.
fn of_status(status: StatusCode, headers: &HeaderMap) -> ModelError {
    let wait = || retry_after(headers);
    match status.as_u16() {
        // Payment required, no such model: the operator's settings are at fault, not the prompt.
        401..=405 => ModelError::Misconfigured(format!("status {status}")),
        429 => ModelError::RateLimited(wait()),
        // Anthropic's own: overloaded.
        503 | 529 => ModelError::Overloaded(wait()),
        // A timeout or a conflict of the provider's own; the same request may do next time.
        408 | 409 | 425 => ModelError::BadAnswer(format!("status {status}")),
        400..=499 => ModelError::Refused(format!("status {status}")),
        _ => ModelError::BadAnswer(format!("status {status}")),
    }
}

/// Whether an answer's text names the key or the account as the fault, whatever its status: Gemini has 400 for a wrong
/// key, OpenAI 429 for an account without credit.
fn is_ours(body: &str) -> bool {
    ["\"API_KEY_INVALID\"", "\"insufficient_quota\""].iter().any(|name| body.contains(name))
}

/// Our error for one that comes as an event, after a status of 200: providers give it the number of a status or a name
/// (`overloaded_error`).
fn in_stream(body: &Value) -> ModelError {
    /// Parts of names, and the status that means the same.
    const NAMES: [(&str, u16); 8] = [
        ("overloaded", 503),
        ("rate_limit", 429),
        ("insufficient_quota", 402),
        ("billing", 402),
        ("authentication", 401),
        ("permission", 403),
        ("not_found", 404),
        ("invalid_request", 400),
    ];
    let error = body.get("error").unwrap_or(body);
    let member = |name| error.get(name).or_else(|| body.get(name));
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let numbered = ["code", "status"].iter().find_map(|name| number(member(name)?));
    let named = |word| {
        ["type", "code"].iter().any(|name| member(name).and_then(Value::as_str).is_some_and(|text| text.contains(word)))
    };
    let number = numbered.and_then(|number| u16::try_from(number).ok());
    let number = number.or_else(|| Some(NAMES.iter().find(|(word, _)| named(word))?.1));
    match number.and_then(|number| StatusCode::from_u16(number).ok()) {
        Some(status) => of_status(status, &HeaderMap::new()),
        // The library's error for Gemini's answer without a candidate: its filter has refused the prompt.
        None if body.get("finishReason").is_some() => ModelError::Refused("the provider's filter".into()),
        None => ModelError::BrokeOff("it told of an error".into()),
    }
}

/// RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

/// An error with its causes. The last one names what broke a connection.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<String>>().join(": ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(retry_after: &str) -> HeaderMap {
        retry_after.parse().map(|value| HeaderMap::from_iter([(RETRY_AFTER, value)])).unwrap_or_default()
    }

    #[test]
    fn a_wait_is_told_in_seconds_or_as_a_date_and_is_bounded() {
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("99999999999")), Some(LONGEST_WAIT));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        assert!(retry_after(&headers(&date)).is_some_and(|wait| (95..=100).contains(&wait.as_secs())));
        assert_eq!(retry_after(&headers("Mon, 01 Jan 2001 00:00:00 GMT")), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers("soon")), None);
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn a_wrong_key_and_an_empty_account_are_ours_whatever_the_status() {
        assert!(is_ours(r#"{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}"#));
        assert!(is_ours(r#"{"error":{"code":"insufficient_quota","type":"insufficient_quota"}}"#));
        assert!(!is_ours(r#"{"error":{"message":"who wrote \"insufficient_quota\"?"}}"#));
    }

    #[test]
    fn errors_in_a_stream_are_told_by_name_or_by_number() {
        for (body, meaning) in [
            (json!({ "type": "error", "error": { "type": "overloaded_error" } }), ModelError::Overloaded(None)),
            (json!({ "type": "rate_limit_error", "message": "slowly" }), ModelError::RateLimited(None)),
            (json!({ "code": 429, "message": "upstream" }), ModelError::RateLimited(None)),
            (json!({ "error": { "code": 503, "status": "UNAVAILABLE" } }), ModelError::Overloaded(None)),
            (json!({ "error": { "code": 403 } }), ModelError::Misconfigured("status 403 Forbidden".into())),
            (json!({ "error": { "code": "429" } }), ModelError::RateLimited(None)),
            (
                json!({ "error": { "type": "authentication_error" } }),
                ModelError::Misconfigured("status 401 Unauthorized".into()),
            ),
            (
                json!({ "finishReason": null, "usageMetadata": null }),
                ModelError::Refused("the provider's filter".into()),
            ),
            (json!("nonsense"), ModelError::BrokeOff("it told of an error".into())),
        ] {
            assert_eq!(in_stream(&body), meaning, "{body}");
        }
    }
}
