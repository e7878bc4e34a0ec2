//! The request to an origin, and the header lists of both directions.

use crate::config::{Config, Origin};
use crate::headers::HeaderList;
use crate::route::Cursor;
use headwater_protocol::header::JSON;
use headwater_protocol::{IdempotencyKey, PromptName, StreamId, Variables};

/// What is copied from a client's request. The rest of the request's headers is the edge's own.
const REQUEST_HEADERS: &[&str] = &["accept", "traceparent"];

/// What is copied from an origin's answer.
const RESPONSE_HEADERS: &[&str] = &[
    "content-type",
    "cache-control",
    "content-location",
    "retry-after",
    "allow",
    "vary",
    "server-timing",
    "x-accel-buffering",
];

/// A request that any origin can be asked.
#[derive(Debug)]
pub struct OriginRequest {
    /// Upper case.
    pub method: &'static str,
    /// On an origin of this project.
    pub path: String,
    /// All but what an origin of this project gets.
    headers: HeaderList,
    /// JSON.
    pub body: Option<String>,
}

impl OriginRequest {
    /// The request that starts a stream, or resumes one.
    pub fn start(
        headers: HeaderList,
        prompt: &PromptName,
        variables: &Variables,
        cursor: Option<&Cursor>,
        key: Option<&IdempotencyKey>,
    ) -> Self {
        let mut request = Self::new("POST", ["/prompts/", prompt.as_str()].concat(), headers);
        request.headers.append("content-type", JSON);
        request.resume(cursor);
        if let Some(key) = key {
            request.headers.append("idempotency-key", key.as_str());
        }
        request.body = Some(variables.to_json());
        request
    }

    /// The request that follows a stream.
    pub fn follow(headers: HeaderList, stream: &StreamId, cursor: Option<&Cursor>) -> Self {
        let mut request = Self::new("GET", stream.path(), headers);
        request.resume(cursor);
        request
    }

    /// The request that ends a stream.
    pub fn stop(headers: HeaderList, stream: &StreamId) -> Self {
        Self::new("DELETE", stream.path(), headers)
    }

    /// The request that asks an origin how it is.
    pub fn health(headers: HeaderList) -> Self {
        Self::new("GET", "/healthz".to_owned(), headers)
    }

    /// All headers that `origin` gets: a foreign server does not get the secret, with which it could read and stop streams.
    pub fn headers_for(&self, config: &Config, origin: &Origin) -> HeaderList {
        let mut headers = self.headers.clone();
        if let Some(secret) = config.secret.as_ref().filter(|_| origin.is_own()) {
            headers.append("authorization", &secret.bearer());
        }
        headers
    }

    fn new(method: &'static str, path: String, headers: HeaderList) -> Self {
        Self { method, path, headers, body: None }
    }

    fn resume(&mut self, cursor: Option<&Cursor>) {
        if let Some(cursor) = cursor {
            self.headers.append("last-event-id", cursor.as_str());
        }
    }
}

/// What every request to an origin has of the client's headers.
pub fn request_headers(get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = HeaderList::copy(REQUEST_HEADERS, get);
    // A compressed stream arrives in clumps.
    headers.append("accept-encoding", "identity");
    headers
}

/// The headers of an answer that is passed on; `Server-Timing` says who gave it.
pub fn response_headers(origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = HeaderList::copy(RESPONSE_HEADERS, get);
    let origin = ["origin;desc=\"", origin.name.as_str(), "\""].concat();
    headers.append("server-timing", &origin);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{SECRET, config};
    use crate::route::tests::{ID, call};
    use crate::route::{Call, Input};

    fn settings() -> Config {
        config(&[("ORIGINS", "a=https://a.example, b=https://b.example, x=https://x.example/v1/chat")])
    }

    fn lookup<'a>(headers: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn only_listed_headers_reach_an_origin_and_the_secret_is_the_edges() {
        let sent = lookup(&[
            ("accept", "text/event-stream"),
            ("authorization", "Bearer stolen"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "192.0.2.1"),
            ("x-headwater-client", "192.0.2.1"),
            ("connection", "authorization"),
            ("host", "evil.example"),
            ("traceparent", "00-\u{e9}"),
        ]);
        let config = settings();
        let request = OriginRequest::health(request_headers(&sent));
        let mut expected = HeaderList::default();
        expected.append("accept", "text/event-stream");
        expected.append("accept-encoding", "identity");
        assert_eq!(request.headers_for(&config, &config.origins[2]), expected, "a foreign server");
        expected.append("authorization", &["Bearer ", SECRET].concat());
        assert_eq!(request.headers_for(&config, &config.origins[0]), expected);
    }

    #[test]
    fn only_listed_headers_reach_a_client_and_the_origin_is_named() {
        let got = lookup(&[
            ("content-type", "text/event-stream"),
            ("content-location", "/streams/x"),
            ("server-timing", "queue;dur=1"),
            ("set-cookie", "a=b"),
            ("location", "https://evil.example"),
            ("content-length", "3"),
        ]);
        let config = settings();
        let headers = response_headers(&config.origins[1], &got);
        let mut expected = HeaderList::default();
        expected.append("content-type", "text/event-stream");
        expected.append("content-location", "/streams/x");
        expected.append("server-timing", "queue;dur=1, origin;desc=\"b\"");
        assert_eq!(headers, expected);
    }

    #[test]
    fn a_start_is_a_post_of_json_with_cursor_and_key_as_headers() {
        let target = format!("/prompts/haiku?mood=calm&last_event_id={ID}.3&idempotency_key=0123456789abcdef");
        let Ok(Call::Start(start)) = call("GET", &target, &[]) else {
            panic!("a start");
        };
        let Input::Query(variables) = start.input else {
            panic!("a query");
        };
        let request = OriginRequest::start(
            HeaderList::default(),
            &start.prompt,
            &variables,
            start.cursor.as_ref(),
            start.key.as_ref(),
        );
        assert_eq!((request.method, request.path.as_str()), ("POST", "/prompts/haiku"));
        assert_eq!(request.body.as_deref(), Some(r#"{"mood":"calm"}"#));
        assert_eq!(request.headers.get("last-event-id"), Some(format!("{ID}.3").as_str()));
        assert_eq!(request.headers.get("idempotency-key"), Some("0123456789abcdef"));
        assert_eq!(request.headers.get("content-type"), Some(JSON));
    }
}
