use serde_json::json;

use super::*;

const SETTINGS: Settings = Settings { key: Some("A_KEY"), address: "AN_ADDRESS" };

fn headers(named: &[(&'static str, &str)]) -> HeaderMap {
    named.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn wait(named: &[(&'static str, &str)]) -> Option<u64> {
    wait_of(&headers(named)).map(|wait| wait.as_secs())
}

#[test]
fn a_wait_is_honoured_in_every_spelling_and_bounded() {
    assert_eq!(wait(&[("retry-after", "7")]), Some(7));
    assert_eq!(wait(&[("retry-after", "2.5")]), Some(3));
    assert_eq!(wait(&[("retry-after", "2.5s")]), Some(3));
    assert_eq!(wait(&[("retry-after-ms", "1500")]), Some(2));
    assert_eq!(wait(&[("retry-after-ms", "1500"), ("retry-after", "9")]), Some(2));
    assert_eq!(wait(&[("retry-after-ms", "-1"), ("retry-after", "30")]), Some(30));
    assert_eq!(wait(&[("retry-after", "99999999999")]), Some(3600));
    assert_eq!(wait(&[("retry-after", "1e400")]), Some(3600));
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
    assert!(wait(&[("retry-after", &date)]).is_some_and(|wait| (98..=100).contains(&wait)));
    assert_eq!(wait(&[("retry-after", "Mon, 01 Jan 2001 00:00:00 GMT")]), Some(0));
    for none in ["soon", "-5", "NaN", ""] {
        assert_eq!(wait(&[("retry-after", none)]), None, "{none}");
    }
    let retry_info = json!({ "error": { "code": 429, "status": "RESOURCE_EXHAUSTED", "details": [
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure" },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "16.2s" },
    ] } });
    for body in [retry_info.clone(), json!([retry_info])] {
        let limited = ModelError::RateLimited(Some(Duration::from_secs(17)));
        assert_eq!(refused(429, &body), limited);
        assert_eq!(in_stream(body.to_string().as_bytes(), &SETTINGS).error, limited);
    }
    let loading = json!({ "error": "Model is currently loading", "estimated_time": 20.5 });
    assert_eq!(refused(503, &loading), ModelError::Overloaded(Some(Duration::from_secs(21))));
}

fn refused(status: u16, body: &Value) -> ModelError {
    let status = StatusCode::from_u16(status).unwrap();
    of_status(status, &HeaderMap::new(), body.to_string().as_bytes(), &SETTINGS, "").error
}

#[test]
fn words_that_whoever_asks_has_sent_prove_nothing() {
    let body =
        json!({ "error": { "message": "Invalid value for stop: 'Invalid API key'", "type": "invalid_request_error" } });
    let meant = |asked| {
        let body = body.to_string();
        of_status(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes(), &SETTINGS, asked).error
    };
    assert_eq!(kind(&meant("a poem")), "key");
    assert_eq!(kind(&meant("invalid api key")), "request");
}

/// The kind of an error, and the setting that it names.
fn kind(error: &ModelError) -> &'static str {
    match error {
        ModelError::Misconfigured(why) if why.contains("A_KEY and --model") => "may not",
        ModelError::Misconfigured(why) if why.contains("A_KEY") => "key",
        ModelError::Misconfigured(why) if why.contains("--model") => "model",
        ModelError::Misconfigured(why) if why.contains("AN_ADDRESS") => "address",
        ModelError::Misconfigured(_) => "operator",
        ModelError::Refused(_) => "refused",
        ModelError::BadRequest(..) | ModelError::Unsupported(..) => "request",
        ModelError::TooLong(_) => "too long",
        ModelError::RateLimited(_) => "limited",
        ModelError::Overloaded(_) => "overloaded",
        ModelError::BadAnswer(_) | ModelError::BrokeOff(_) | ModelError::FirstTokenTimeout => "again",
    }
}

#[test]
fn a_refusal_is_told_by_what_it_names_and_else_by_its_status() {
    let named = |name: &str| json!({ "error": { "code": name, "message": "words", "type": "t" } });
    let says = |words: &str| json!({ "error": { "message": words, "type": "invalid_request_error" } });
    for (status, body, expected) in [
        (400, json!({}), "request"),
        (422, json!({}), "request"),
        (401, json!({}), "key"),
        (402, json!({}), "key"),
        (403, json!({}), "may not"),
        (404, json!({}), "model"),
        (410, json!({}), "model"),
        (302, json!({}), "address"),
        (405, json!({}), "address"),
        (407, json!({}), "operator"),
        (408, json!({}), "again"),
        (409, json!({}), "again"),
        (413, json!({}), "too long"),
        (424, json!({}), "again"),
        (429, json!({}), "limited"),
        (451, json!({}), "request"),
        (498, json!({}), "overloaded"),
        (499, json!({}), "again"),
        (500, json!({}), "again"),
        (503, json!({}), "overloaded"),
        (522, json!({}), "again"),
        (529, json!({}), "overloaded"),
        (429, named("insufficient_quota"), "key"),
        (429, json!({ "error": { "type": "insufficient_balance_error" } }), "key"),
        (400, says("Your credit balance is too low to access the API."), "key"),
        (400, json!({ "error": { "code": 400, "details": [{ "reason": "API_KEY_INVALID" }] } }), "key"),
        (400, json!({ "code": "x", "error": "Incorrect API key provided: sk***" }), "key"),
        (400, named("model_decommissioned"), "model"),
        (400, says("foo/bar is not a valid model ID"), "model"),
        (404, json!({ "error": "model \"a\" not found, try pulling it first" }), "model"),
        (400, named("context_length_exceeded"), "too long"),
        (400, says("prompt is too long: 210000 tokens > 200000 maximum"), "too long"),
        (400, says("The input token count (9) exceeds the maximum number of tokens allowed (8)."), "too long"),
        (400, json!({ "error": { "type": "exceed_context_size_error", "code": 400 } }), "too long"),
        (400, json!({ "object": "error", "message": "This model's maximum context length is 9 tokens." }), "too long"),
        (422, json!({ "detail": [{ "msg": "`inputs` tokens + `max_new_tokens` must be <= 9" }] }), "too long"),
        (429, says("Request too large for gpt-4 on tokens per min (TPM)"), "too long"),
        (
            400,
            json!({ "error": { "code": "content_filter", "innererror": { "code": "ResponsibleAIPolicyViolation" } } }),
            "refused",
        ),
        (400, says("Output blocked by content filtering policy"), "refused"),
        (
            403,
            json!({ "error": { "code": 403, "message": "flagged", "metadata": { "reasons": ["x"], "flagged_input": "y" } } }),
            "refused",
        ),
        (403, json!({ "error": { "code": "unsupported_country_region_territory" } }), "operator"),
        (200, json!({ "error": "Unexpected endpoint or method. (POST /chat/completions)" }), "address"),
    ] {
        assert_eq!(kind(&refused(status, &body)), expected, "{status} {body}");
    }
}

#[test]
fn an_error_in_a_stream_is_told_by_its_number_or_its_name() {
    for (body, expected) in [
        (json!({ "type": "error", "error": { "type": "overloaded_error" } }), "overloaded"),
        (json!({ "type": "rate_limit_error", "message": "slowly" }), "limited"),
        (json!({ "code": 429, "message": "upstream" }), "limited"),
        (json!({ "error": { "code": 503, "status": "UNAVAILABLE" } }), "overloaded"),
        (json!({ "error": { "code": "429" } }), "limited"),
        (json!({ "error": { "type": "authentication_error" } }), "key"),
        (json!({ "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" } }), "refused"),
        (json!({ "choices": null, "error_message": "bad", "error_code": 400 }), "request"),
        (json!({ "choices": [{ "index": 0, "error": { "code": 502, "message": "x" } }] }), "again"),
        (json!({ "error": { "message": "failed", "http_status_code": 422 } }), "again"),
        (json!({ "error": "words", "error_type": "overloaded" }), "overloaded"),
        (json!({ "error": [{ "code": 429, "message": "x" }] }), "limited"),
        (json!({ "x_groq": { "error": "stopped early" } }), "again"),
        (json!("nonsense"), "again"),
    ] {
        assert_eq!(kind(&in_stream(body.to_string().as_bytes(), &SETTINGS).error), expected, "{body}");
    }
    assert_eq!(kind(&in_stream(b"Internal Server Error", &SETTINGS).error), "again");
}

#[test]
fn the_log_gets_identifiers_and_no_sentence() {
    let body = json!({ "error": {
        "message": "a secret prompt", "type": "invalid_request_error", "code": "another secret prompt", "param": null,
    } });
    assert_eq!(in_stream(body.to_string().as_bytes(), &SETTINGS).names, "invalid_request_error");
}

#[test]
fn a_field_is_named_as_a_word_of_its_own() {
    let body = br#"{"error":{"message":"Use 'max_completion_tokens' instead of max_tokens."}}"#;
    assert!(names_field(body, "max_completion_tokens") && names_field(body, "max_tokens"));
    assert!(!names_field(br#"{"loc":["body","max_completion_tokens"]}"#, "max_tokens"));
    assert!(!names_field(br#"{"loc":["my_max_tokens"]}"#, "max_tokens"));
}
