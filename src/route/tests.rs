//! Tests of what is asked.

use super::*;

pub(crate) const ID: &str = "a-0123456789ABCDEFGHIJkl";

pub(crate) fn call(method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Call, Problem> {
    let url = ["https://edge.example", target].concat();
    Call::parse(&RequestHead {
        method,
        url: Url::of(&url),
        header: &|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
    })
}

fn start(method: &str, target: &str, headers: &[(&str, &str)]) -> Start {
    match call(method, target, headers) {
        Ok(Call::Start(start)) => start,
        other => panic!("{method} {target}: {other:?}"),
    }
}

fn query_json(target: &str) -> String {
    match start("GET", target, &[]).input {
        Input::Query(variables) => variables.to_json(),
        Input::Body => panic!("{target}: no body in a GET"),
    }
}

fn body_json(body: &str) -> Result<String, u16> {
    let prompt = SIMPLE.parse().expect("a name");
    read_variables(body.as_bytes(), &prompt).map(|variables| variables.to_json()).map_err(|problem| problem.status())
}

fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    match call(method, target, headers) {
        Err(problem) => problem.status(),
        Ok(call) => panic!("{method} {target}: {call:?}"),
    }
}

const IS_JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn an_address_is_taken_apart() {
    let url = |page_origin, path, query| Url { page_origin, path, query };
    assert_eq!(Url::of("http://h:1/a/b?c=d?e"), url("http://h:1", "/a/b", "c=d?e"));
    assert_eq!(Url::of("http://h"), url("http://h", "/", ""));
    assert_eq!(Url::of("https://h/a#b?c"), url("https://h", "/a", ""));
    assert_eq!(
        ["http://h:1/a", "http://h", "http://[::1]:1/", "x"].map(|text| Url::of(text).host()),
        ["h", "h", "[::1]", ""]
    );
}

#[test]
fn simple_asks_for_a_poem_about_the_topic() {
    assert_eq!(query_json("/simple?topic=caf%C3%A9+%22cat%22"), r#"{"topic":"café \"cat\""}"#);
    assert_eq!(body_json(r#"{"topic":"cat"}"#), Ok(r#"{"topic":"cat"}"#.into()));
    assert_eq!(start("GET", "/simple", &[]), start("GET", "/prompts/simple", &[]));
}

#[test]
fn an_empty_topic_is_a_dog() {
    for target in ["/simple", "/simple?topic=", "/simple?topic=%20", "/prompts/simple"] {
        assert_eq!(query_json(target), r#"{"topic":"dog"}"#, "{target}");
    }
    for body in ["{}", r#"{"topic":""}"#] {
        assert_eq!(body_json(body), Ok(r#"{"topic":"dog"}"#.into()), "{body}");
    }
}

#[test]
fn other_prompts_get_what_was_given_and_no_more() {
    assert_eq!(query_json("/prompts/haiku?mood=calm&season="), r#"{"mood":"calm","season":""}"#);
}

#[test]
fn reserved_query_names_are_no_variables() {
    let target = format!("/simple?last_event_id={ID}.3&idempotency_key=0123456789abcdef");
    assert_eq!(query_json(&target), r#"{"topic":"dog"}"#);
    let start = start("GET", &target, &[]);
    assert_eq!(start.cursor.expect("a cursor").as_str(), format!("{ID}.3").as_str());
    assert_eq!(start.key.expect("a key").as_str(), "0123456789abcdef");
}

#[test]
fn a_header_wins_over_the_query() {
    let header = format!("{ID}.7");
    let start = start("GET", &format!("/simple?last_event_id={ID}.3"), &[("last-event-id", &header)]);
    assert_eq!(start.cursor.expect("a cursor").as_str(), header);
}

#[test]
fn a_cursor_beats_a_bad_key_and_a_missing_body() {
    let resume = [("last-event-id", ID), ("idempotency-key", "short")];
    for (method, input) in [("GET", r#"{"topic":"dog"}"#), ("POST", "{}")] {
        let start = start(method, "/simple", &resume);
        assert!(start.cursor.is_some() && start.key.is_none(), "{method}");
        assert!(matches!(start.input, Input::Query(variables) if variables.to_json() == input), "{method}");
    }
}

#[test]
fn a_post_is_json_of_a_declared_length_that_fits() {
    assert_eq!(start("POST", "/simple", &[IS_JSON]).input, Input::Body);
    let with_charset = ("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(start("POST", "/simple", &[with_charset]).input, Input::Body);
    assert_eq!(status("POST", "/simple", &[]), 415);
    assert_eq!(status("POST", "/simple", &[("content-type", "text/plain")]), 415);
    assert_eq!(status("POST", "/simple", &[IS_JSON, ("content-length", "16385")]), 413);
    assert_eq!(start("POST", "/simple", &[IS_JSON, ("content-length", "16384")]).input, Input::Body);
}

#[test]
fn a_wrong_method_is_told_the_right_ones() {
    for (method, target, allow) in [
        ("PUT", "/simple", "GET, POST"),
        ("HEAD", "/simple", "GET, POST"),
        ("DELETE", "/prompts/haiku", "GET, POST"),
        ("POST", "/streams/x", "GET, DELETE"),
        ("HEAD", "/streams/x", "GET, DELETE"),
        ("POST", "/healthz", "GET, HEAD"),
    ] {
        let problem = call(method, target, &[IS_JSON]).expect_err("a problem");
        assert_eq!((problem.status(), problem.allow()), (405, Some(allow)), "{method} {target}");
    }
}

#[test]
fn a_prefetch_starts_nothing() {
    for purpose in ["prefetch", "prefetch;prerender"] {
        assert_eq!(status("GET", "/simple", &[("sec-purpose", purpose)]), 503);
    }
}

#[test]
fn a_stream_is_followed_and_stopped_by_its_id() {
    let path = format!("/streams/{ID}");
    let id = || ID.parse::<StreamId>().expect("an id");
    assert_eq!(call("GET", &path, &[]), Ok(Call::Follow(id(), None)));
    assert_eq!(call("DELETE", &path, &[]), Ok(Call::Stop(id())));
    assert_eq!(id().origin(), "a");
}

#[test]
fn what_is_no_id_is_no_stream() {
    for path in ["/streams/", "/streams/a", &format!("/streams/{ID}/x"), &format!("/streams/{ID}.0")] {
        assert_eq!(status("GET", path, &[]), 404, "{path}");
    }
}

#[test]
fn what_is_no_path_of_ours_is_not_found() {
    for path in ["/", "/simple/", "/prompts", "/prompts/", "/prompts/a/b", "/prompts/a%2Fb", "/streams"] {
        assert_eq!(status("GET", path, &[]), 404, "{path}");
    }
}

#[test]
fn a_cursor_that_fits_no_header_is_refused() {
    for cursor in ["a b", "\u{e9}", "a\u{0}", &"x".repeat(10_240)] {
        assert_eq!(status("GET", "/simple", &[("last-event-id", cursor)]), 400, "{cursor:.20}");
    }
}

#[test]
fn a_cursor_names_its_stream() {
    let stream = |text: &str| Cursor::parse(text.to_owned()).expect("fits").stream;
    assert_eq!(stream(ID), Some(ID.parse().expect("an id")));
    assert_eq!(stream(&format!("{ID}.0")), Some(ID.parse().expect("an id")));
    for text in ["42", &format!("{ID}."), &format!("{ID}.-1"), &format!("{ID}.1.2")] {
        assert_eq!(stream(text), None, "{text}");
    }
}

#[test]
fn an_empty_header_is_none_and_does_not_hide_the_query() {
    let empty = [("last-event-id", ""), ("idempotency-key", "")];
    let nothing = start("GET", "/simple?last_event_id=&idempotency_key=", &empty);
    assert_eq!((nothing.cursor, nothing.key), (None, None));
    let queried = start("GET", &format!("/simple?last_event_id={ID}.3&idempotency_key=0123456789abcdef"), &empty);
    assert_eq!(queried.cursor.expect("a cursor").as_str(), format!("{ID}.3").as_str());
    assert_eq!(queried.key.expect("a key").as_str(), "0123456789abcdef");
}

#[test]
fn where_a_name_stands_twice_the_last_one_counts() {
    let target = format!(
        "/simple?topic=a&topic=b&last_event_id={ID}.1&last_event_id={ID}.2\
         &idempotency_key=0123456789abcdef&idempotency_key=fedcba9876543210"
    );
    assert_eq!(query_json(&target), r#"{"topic":"b"}"#);
    assert_eq!(body_json(r#"{"topic":"a","topic":"b"}"#), Ok(r#"{"topic":"b"}"#.into()));
    let start = start("GET", &target, &[]);
    assert_eq!(start.cursor.expect("a cursor").as_str(), format!("{ID}.2").as_str());
    assert_eq!(start.key.expect("a key").as_str(), "fedcba9876543210");
}

#[test]
fn a_bad_key_is_refused() {
    assert_eq!(status("GET", "/simple", &[("idempotency-key", "short")]), 400);
}

#[test]
fn a_cursor_has_two_names_in_a_query_and_the_first_wins() {
    let cursor =
        |query: &str| start("GET", &format!("/simple?{query}"), &[]).cursor.expect("a cursor").as_str().to_owned();
    assert_eq!(cursor(&format!("lastEventId={ID}.5")), format!("{ID}.5"));
    // The polyfill adds its newest cursor to the query that it was opened with.
    assert_eq!(cursor(&format!("last_event_id={ID}.3&lastEventId={ID}.5")), format!("{ID}.5"));
    assert_eq!(cursor(&format!("lastEventId=&last_event_id={ID}.5")), format!("{ID}.5"));
    assert_eq!(query_json("/prompts/haiku?lastEventId=&mood=calm"), r#"{"mood":"calm"}"#);
}

#[test]
fn a_start_is_bare_unless_it_has_a_cursor_or_accepts_event_streams() {
    let accept = |text| ("accept", text);
    for headers in [&[][..], &[accept("*/*")], &[accept("text/event-stream;q=0, application/json")]] {
        assert!(start("GET", "/simple", headers).is_bare, "{headers:?}");
    }
    for headers in [[accept("text/event-stream")], [("last-event-id", ID)]] {
        assert!(!start("GET", "/simple", &headers).is_bare, "{headers:?}");
    }
}

#[test]
fn options_says_what_a_path_answers_to() {
    assert_eq!(call("OPTIONS", "/simple", &[]), Ok(Call::Options(START_METHODS)));
}

fn chat(target: &str, headers: &[(&str, &str)]) -> Chat {
    match call("POST", target, headers) {
        Ok(Call::Chat(chat)) => chat,
        other => panic!("{target}: {other:?}"),
    }
}

#[test]
fn a_conversation_is_posted_and_the_edge_does_not_ask_what_it_is() {
    let whole = |api| Chat { api, key: None, is_bare: api == Api::Own, max_bytes: MAX_CONVERSATION_BYTES };
    assert_eq!(chat("/chat", &[]), whole(Api::Own));
    assert_eq!(chat("/v1/chat/completions", &[("content-type", "text/plain")]), whole(Api::OpenAi));
    assert!(!chat("/chat", &[("accept", "text/event-stream")]).is_bare);
    assert_eq!(chat("/chat", &[("content-length", "0")]).max_bytes, 0);
    assert_eq!(chat("/chat", &[("content-length", "1048576")]).max_bytes, 1_048_576);
    for path in ["/chat", "/v1/chat/completions"] {
        for length in ["1048577", "18446744073709551615"] {
            assert_eq!(status("POST", path, &[("content-length", length)]), 413, "{length}");
        }
        assert_eq!(status("POST", path, &[("idempotency-key", "short")]), 400);
        assert_eq!(status("POST", path, &[("sec-purpose", "prefetch")]), 503);
        let key = chat(path, &[("idempotency-key", "0123456789abcdef")]).key.expect("a key");
        assert_eq!(key.as_str(), "0123456789abcdef");
    }
}

#[test]
fn a_chats_cursor_is_followed_and_without_one_a_get_is_no_start() {
    let cursor = format!("{ID}.3");
    let follow = || Ok(Call::Follow(ID.parse().expect("an id"), Cursor::parse(format!("{ID}.3"))));
    assert_eq!(call("GET", "/chat", &[("last-event-id", &cursor)]), follow());
    assert_eq!(call("GET", &format!("/chat?last_event_id={cursor}"), &[]), follow());
    let beaten = [("last-event-id", cursor.as_str()), ("idempotency-key", "short"), ("content-length", "9999999")];
    assert_eq!(call("POST", "/chat", &beaten), follow());
    let problem = call("GET", "/chat", &[]).expect_err("a problem");
    assert_eq!((problem.status(), problem.allow()), (405, Some("POST")));
    // No foreign server is asked for a conversation, and so nobody's stream has such an id.
    assert_eq!(status("GET", "/chat", &[("last-event-id", "42")]), 400);
    assert!(chat("/v1/chat/completions", &[("last-event-id", &cursor)]).key.is_none());
}

#[test]
fn models_are_asked_for_by_any_name_that_stays_one_segment() {
    let path = |target: &str| match call("GET", target, &[]) {
        Ok(Call::Models(path)) => path,
        other => panic!("{target}: {other:?}"),
    };
    for (target, expected) in [
        ("/v1/models", "/v1/models"),
        ("/v1/models?limit=20", "/v1/models"),
        ("/v1/models/gpt-4o.1_x~", "/v1/models/gpt-4o.1_x~"),
        ("/v1/models/openai:gpt-4o", "/v1/models/openai:gpt-4o"),
        ("/v1/models/openai%3Agpt-4o", "/v1/models/openai%3Agpt-4o"),
        ("/v1/models/a/b%2Fc", "/v1/models/a%2Fb%2Fc"),
        ("/v1/models/caf%C3%A9", "/v1/models/caf%C3%A9"),
        // What `fetch` would make other paths of.
        ("/v1/models/../../streams/x", "/v1/models/..%2F..%2Fstreams%2Fx"),
        ("/v1/models/x/%2e%2E/healthz", "/v1/models/x%2F%2e%2E%2Fhealthz"),
        ("/v1/models/..\\healthz", "/v1/models/..%5Chealthz"),
        ("/v1/models//healthz", "/v1/models/%2Fhealthz"),
    ] {
        assert_eq!(path(target), expected);
    }
    for name in ["", ".", "..", "%2e", "%2E.", ".%2e", "%2e%2E", ".\t.", "caf\u{e9}"] {
        assert_eq!(status("GET", &format!("/v1/models/{name}"), &[]), 404, "{name:?}");
    }
}

#[test]
fn the_chats_paths_tell_their_methods_and_there_are_no_others() {
    for (path, allow, wrong) in [
        ("/chat", "GET, POST", "PUT"),
        ("/chat", "GET, POST", "HEAD"),
        ("/v1/chat/completions", "POST", "GET"),
        ("/v1/chat/completions", "POST", "HEAD"),
        ("/v1/models", "GET", "POST"),
        ("/v1/models", "GET", "HEAD"),
        ("/v1/models/x", "GET", "DELETE"),
    ] {
        let problem = call(wrong, path, &[]).expect_err("a problem");
        assert_eq!((problem.status(), problem.allow()), (405, Some(allow)), "{wrong} {path}");
        assert_eq!(call("OPTIONS", path, &[]), Ok(Call::Options(allow)));
    }
    for path in
        ["/v1/", "/v1/chat", "/v1/chat/completions/", "/v1/completions", "/v1/modelsx", "/v1//models", "/chat/", "/v1"]
    {
        for method in ["GET", "POST", "OPTIONS"] {
            assert_eq!(status(method, path, &[]), 404, "{method} {path}");
        }
    }
}

#[test]
fn a_completions_id_names_its_stream() {
    let path = format!("/streams/chatcmpl-{ID}");
    assert_eq!(call("DELETE", &path, &[]), Ok(Call::Stop(ID.parse().expect("an id"))));
}
