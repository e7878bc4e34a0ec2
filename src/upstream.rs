//! The request to an origin, and the header lists of both directions.

use crate::config::{Config, Origin};
use crate::policy::ClientAddress;
use crate::route::{Cursor, IdempotencyKey, JSON, PromptName, StreamId, Variables};
use serde::ser::{Serialize, Serializer};

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

/// Headers on their way in or out; each name stands once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HeaderList(Vec<(&'static str, String)>);

impl HeaderList {
    /// Copies the named headers, and nothing else: the only way in which a header crosses the edge. A value that no
    /// header can hold (RFC 9110, section 5.5, without the obsolete bytes) stays behind.
    pub fn copy(names: &[&'static str], get: &dyn Fn(&str) -> Option<String>) -> Self {
        let is_field_value =
            |value: &String| value.bytes().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'));
        Self(names.iter().filter_map(|name| Some((*name, get(name).filter(is_field_value)?))).collect())
    }

    /// Adds a header, or a further element to one that is there (RFC 9110, section 5.3).
    pub fn append(&mut self, name: &'static str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            None => self.0.push((name, value.to_owned())),
            Some((_, known)) => {
                known.push_str(", ");
                known.push_str(value);
            }
        }
    }

    /// The value of a header, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// One object, name to value: what a runtime takes for headers.
impl Serialize for HeaderList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A request that any origin can be asked.
#[derive(Debug)]
pub struct OriginRequest {
    /// Upper case.
    pub method: &'static str,
    /// On an origin of this project.
    pub path: String,
    /// All that are sent.
    pub headers: HeaderList,
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
        let mut request = Self::new("GET", stream_path(stream), headers);
        request.resume(cursor);
        request
    }

    /// The request that ends a stream.
    pub fn stop(headers: HeaderList, stream: &StreamId) -> Self {
        Self::new("DELETE", stream_path(stream), headers)
    }

    /// The request that asks an origin how it is.
    pub fn health(headers: HeaderList) -> Self {
        Self::new("GET", "/healthz".to_owned(), headers)
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

fn stream_path(stream: &StreamId) -> String {
    ["/streams/", stream.as_str()].concat()
}

/// The headers that every request to an origin has.
pub fn request_headers(
    config: &Config,
    client: Option<ClientAddress>,
    get: &dyn Fn(&str) -> Option<String>,
) -> HeaderList {
    let mut headers = HeaderList::copy(REQUEST_HEADERS, get);
    headers.append("authorization", &config.secret.bearer());
    // A compressed stream arrives in clumps.
    headers.append("accept-encoding", "identity");
    if let Some(client) = client {
        headers.append("x-headwater-client", &client.to_string());
    }
    headers
}

/// The headers of an answer that is passed on; `Server-Timing` says who gave it.
pub fn response_headers(origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = HeaderList::copy(RESPONSE_HEADERS, get);
    let origin = ["origin;desc=\"", &origin.name, "\""].concat();
    headers.append("server-timing", &origin);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::route::tests::{ID, call};
    use crate::route::{Call, Input};

    fn settings() -> Config {
        config(&[("ORIGINS", "a=https://a.example, b=https://b.example")]).expect("valid")
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
        let headers = request_headers(&settings(), None, &sent);
        let mut expected = HeaderList::default();
        expected.append("accept", "text/event-stream");
        expected.append("authorization", "Bearer s3cret");
        expected.append("accept-encoding", "identity");
        assert_eq!(headers, expected);
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
