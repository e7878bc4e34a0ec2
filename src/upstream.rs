//! The request to an origin, and the header lists of both directions.

use crate::config::{Config, Origin};
use crate::headers::HeaderList;
use crate::keys::CallerId;
use crate::route::{Api, Chat, Cursor};
use headwater_protocol::header::{ATTEMPT, CALLER, IGNORED, JSON, PROBLEM_KIND};
use headwater_protocol::openai::SHOULD_RETRY;
use headwater_protocol::{IdempotencyKey, PromptName, StreamId, Variables};

/// What is copied from a client's request. The rest of the request's headers is the edge's own.
const REQUEST_HEADERS: &[&str] = &["accept", "traceparent"];

/// The same for a chat alone, whose body the edge doesn't read: what it is, the origin judges.
const CHAT_REQUEST_HEADERS: &[&str] = &["content-type"];

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

/// The same for a chat alone.
const CHAT_RESPONSE_HEADERS: &[&str] = &["x-request-id", SHOULD_RETRY, IGNORED, PROBLEM_KIND];

/// A request that any origin can be asked.
#[derive(Debug)]
pub struct OriginRequest {
    /// Upper case.
    pub method: &'static str,
    /// On an origin of this project.
    pub path: String,
    headers: RequestHeaders,
    /// JSON. That of a chat is no part of this.
    pub body: Option<String>,
}

impl OriginRequest {
    /// The request that starts a stream, or resumes one.
    pub fn start(
        headers: RequestHeaders,
        prompt: &PromptName,
        variables: &Variables,
        cursor: Option<&Cursor>,
        key: Option<&IdempotencyKey>,
    ) -> Self {
        let mut request = Self::new("POST", ["/prompts/", prompt.as_str()].concat(), headers);
        request.headers.any.append("content-type", JSON);
        request.resume(cursor);
        request.repeat(key);
        request.body = Some(variables.to_json());
        request
    }

    /// The request that starts a stream with a conversation. `attempt`: a key that the edge made, where the client has none.
    pub fn chat(headers: RequestHeaders, chat: &Chat, attempt: Option<&IdempotencyKey>) -> Self {
        let mut request = Self::new("POST", chat.api.path().to_owned(), headers);
        request.repeat(chat.key.as_ref());
        if let Some(attempt) = attempt {
            request.headers.own.append(ATTEMPT, attempt.as_str());
        }
        request
    }

    /// The request for the models, or one of them.
    pub fn models(headers: RequestHeaders, path: String) -> Self {
        Self::new("GET", path, headers)
    }

    /// The request that follows a stream.
    pub fn follow(headers: RequestHeaders, stream: &StreamId, cursor: Option<&Cursor>) -> Self {
        let mut request = Self::new("GET", stream.path(), headers);
        request.resume(cursor);
        request
    }

    /// The request that ends a stream.
    pub fn stop(headers: RequestHeaders, stream: &StreamId) -> Self {
        Self::new("DELETE", stream.path(), headers)
    }

    /// The request that asks an origin how it is.
    pub fn health(headers: RequestHeaders) -> Self {
        Self::new("GET", "/healthz".to_owned(), headers)
    }

    /// All headers that `origin` gets: a foreign server does not get the secret, with which it could read and stop streams.
    pub fn headers_for(&self, config: &Config, origin: &Origin) -> HeaderList {
        let mut headers = self.headers.any.clone();
        if origin.is_own() {
            headers.extend(&self.headers.own);
            if let Some(secret) = &config.secret {
                headers.append("authorization", &secret.bearer());
            }
        }
        headers
    }

    fn new(method: &'static str, path: String, headers: RequestHeaders) -> Self {
        Self { method, path, headers, body: None }
    }

    fn repeat(&mut self, key: Option<&IdempotencyKey>) {
        if let Some(key) = key {
            self.headers.any.append("idempotency-key", key.as_str());
        }
    }

    fn resume(&mut self, cursor: Option<&Cursor>) {
        if let Some(cursor) = cursor {
            self.headers.any.append("last-event-id", cursor.as_str());
        }
    }
}

/// The headers of a request to an origin, but for the secret.
#[derive(Debug, Clone, Default)]
pub struct RequestHeaders {
    any: HeaderList,
    /// What this project's origins alone get.
    own: HeaderList,
}

impl RequestHeaders {
    /// What every request to an origin has of the client's.
    pub fn of(api: Option<Api>, caller: Option<&CallerId>, get: &dyn Fn(&str) -> Option<String>) -> Self {
        let any = copy(api, [REQUEST_HEADERS, CHAT_REQUEST_HEADERS], get);
        let mut headers = Self { any, own: HeaderList::default() };
        // A compressed stream arrives in clumps.
        headers.any.append("accept-encoding", "identity");
        if let Some(caller) = caller {
            headers.own.append(CALLER, caller.as_str());
        }
        headers
    }
}

/// The headers of an answer that is passed on; `Server-Timing` says who gave it.
pub fn response_headers(api: Option<Api>, origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = copy(api, [RESPONSE_HEADERS, CHAT_RESPONSE_HEADERS], get);
    let origin = ["origin;desc=\"", origin.name.as_str(), "\""].concat();
    headers.append("server-timing", &origin);
    headers
}

fn copy(api: Option<Api>, [all, of_chat]: [&[&'static str]; 2], get: &dyn Fn(&str) -> Option<String>) -> HeaderList {
    let mut headers = HeaderList::default();
    headers.copy(all, get);
    if api.is_some() {
        headers.copy(of_chat, get);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{SECRET, config};
    use crate::keys::Keys;
    use crate::keys::tests::ABC as ABC_DIGEST;
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
        let request = OriginRequest::health(RequestHeaders::of(None, None, &sent));
        let mut expected = HeaderList::default();
        expected.append("accept", "text/event-stream");
        expected.append("accept-encoding", "identity");
        assert_eq!(request.headers_for(&config, &config.origins[2]), expected, "a foreign server");
        expected.append("authorization", &["Bearer ", SECRET].concat());
        assert_eq!(request.headers_for(&config, &config.origins[0]), expected);
    }

    #[test]
    fn an_own_origin_is_told_who_asks_and_a_client_can_not_say_it() {
        let sent = lookup(&[("x-headwater-caller", "0000000000000000"), ("x-headwater-attempt", "0123456789abcdef")]);
        let config = settings();
        let caller = Keys::parse(ABC_DIGEST).0.holder("abc");
        for api in [None, Some(Api::Own), Some(Api::OpenAi)] {
            let request = OriginRequest::health(RequestHeaders::of(api, caller.as_ref(), &sent));
            let own = request.headers_for(&config, &config.origins[1]);
            assert_eq!((own.get(CALLER), own.get(ATTEMPT)), (Some(&ABC_DIGEST[..16]), None));
            let foreign = request.headers_for(&config, &config.origins[2]);
            assert_eq!((foreign.get(CALLER), foreign.get("authorization")), (None, None));
            let nobody = OriginRequest::health(RequestHeaders::of(api, None, &sent));
            assert_eq!(nobody.headers_for(&config, &config.origins[1]).get(CALLER), None);
        }
    }

    #[test]
    fn a_chat_says_what_its_body_is_and_its_key_is_the_clients_or_an_attempts() {
        let sent = lookup(&[("content-type", "text/plain"), ("content-length", "3"), ("x-api-key", "abc")]);
        let config = settings();
        let attempt: IdempotencyKey = "0123456789abcdef".parse().expect("a key");
        let chat = |api, key| Chat { api, key, is_bare: false, max_bytes: 3 };
        let headers = |chat: &Chat, attempt| {
            let request = OriginRequest::chat(RequestHeaders::of(Some(chat.api), None, &sent), chat, attempt);
            assert_eq!((request.method, request.path.as_str(), &request.body), ("POST", chat.api.path(), &None));
            request.headers_for(&config, &config.origins[0])
        };
        let made = headers(&chat(Api::OpenAi, None), Some(&attempt));
        assert_eq!((made.get("idempotency-key"), made.get(ATTEMPT)), (None, Some("0123456789abcdef")));
        assert_eq!((made.get("content-type"), made.get("x-api-key")), (Some("text/plain"), None));
        let sent = headers(&chat(Api::Own, Some(attempt.clone())), None);
        assert_eq!((sent.get("idempotency-key"), sent.get(ATTEMPT)), (Some("0123456789abcdef"), None));
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
            ("x-request-id", "x"),
            ("x-should-retry", "false"),
            ("headwater-ignored", "seed"),
            ("headwater-problem", "journal"),
            ("x-headwater-caller", "x"),
        ]);
        let config = settings();
        let headers = response_headers(None, &config.origins[1], &got);
        let mut expected = HeaderList::default();
        expected.append("content-type", "text/event-stream");
        expected.append("content-location", "/streams/x");
        expected.append("server-timing", "queue;dur=1, origin;desc=\"b\"");
        assert_eq!(headers, expected);
        let headers = response_headers(Some(Api::OpenAi), &config.origins[1], &got);
        assert_eq!(
            ["x-request-id", "x-should-retry", "headwater-ignored", "headwater-problem", CALLER]
                .map(|name| headers.get(name)),
            [Some("x"), Some("false"), Some("seed"), Some("journal"), None]
        );
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
            RequestHeaders::default(),
            &start.prompt,
            &variables,
            start.cursor.as_ref(),
            start.key.as_ref(),
        );
        assert_eq!((request.method, request.path.as_str()), ("POST", "/prompts/haiku"));
        assert_eq!(request.body.as_deref(), Some(r#"{"mood":"calm"}"#));
        let headers = &request.headers.any;
        assert_eq!(headers.get("last-event-id"), Some(format!("{ID}.3").as_str()));
        assert_eq!(headers.get("idempotency-key"), Some("0123456789abcdef"));
        assert_eq!(headers.get("content-type"), Some(JSON));
    }
}
