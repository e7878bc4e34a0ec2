//! Chat completions against the contract's own example, and against the strictest reader that there is.

mod python;

use headwater_protocol::Cursor;
use proptest::prelude::*;
use serde_json::json;

use self::python::Decoder;
use super::*;
use crate::{dialect::Writer, stream::Event};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/dialects/");
const ID: &str = "o1-Zk3v9QmT1xRb7LpW2sYc8D";

fn opening() -> Opening {
    Opening { created: 1_795_600_000, model: "demo-model".into(), caller: None }
}

fn writer(dialect: Dialect) -> Box<dyn Writer> {
    dialect.writer(&Cursor::start(ID.parse().unwrap()), &opening())
}

fn done(finish: Finish) -> Event {
    let usage = Some(Usage { input_tokens: 11, output_tokens: 4 });
    Event::Done(Done { finish, usage, timing: Timing { first_token_ms: None, total_ms: 1 } })
}

/// The frames of each event.
fn frames(events: &[Event]) -> Vec<String> {
    let frame = |(index, event)| {
        let mut out = String::new();
        frame::frame(&mut out, &ID.parse().unwrap(), index, event);
        out
    };
    (0..).zip(events).map(frame).collect()
}

/// A response, and between its writes `between`.
fn response(dialect: Dialect, events: &[Event], between: &[u8]) -> Vec<u8> {
    let mut writer = writer(dialect);
    let mut out = writer.open().to_vec();
    for frame in frames(events) {
        out.extend_from_slice(between);
        out.extend_from_slice(&writer.write(frame.into()));
    }
    out
}

fn stream(events: &[Event]) -> Vec<Value> {
    let text = response(Dialect::Chat { usage: true }, events, b"");
    let text = String::from_utf8(text).unwrap();
    let data = text.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
    data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn whole(events: &[Event]) -> Vec<u8> {
    response(Dialect::ChatWhole, events, b"")
}

#[test]
fn the_contracts_example_is_written_to_the_byte() {
    let events = [Event::Chunk("The".into()), Event::Chunk(" Rhône.".into()), done(Finish::Stop)];
    let expected = |name: &str| std::fs::read_to_string([FOLDER, name].concat()).unwrap();
    let streamed = String::from_utf8(response(Dialect::Chat { usage: true }, &events, b"")).unwrap();
    assert_eq!(streamed, expected("chat.sse").replace(": keep-alive\n", ""));
    assert_eq!(String::from_utf8(whole(&events)).unwrap(), expected("chat.json"));
    // However many frames come at once.
    let mut together = writer(Dialect::Chat { usage: true });
    assert_eq!([together.open(), together.write(frames(&events).concat().into())].concat(), streamed.as_bytes());
}

#[test]
fn every_finish_has_openais_word_and_usage_is_told_where_it_was_asked_for() {
    for (finish, word) in [
        (Finish::Stop, "stop"),
        (Finish::Stopped, "stop"),
        (Finish::Length, "length"),
        (Finish::ContentFilter, "content_filter"),
    ] {
        let chunks = stream(&[Event::Chunk("a".into()), done(finish)]);
        assert_eq!(chunks[2]["choices"][0]["finish_reason"], word);
        let completion: Value = serde_json::from_slice(&whole(&[done(finish)])).unwrap();
        assert_eq!(completion["choices"][0]["finish_reason"], word);
        assert_eq!(completion["choices"][0]["message"]["content"], "");
    }
    let unasked = response(Dialect::Chat { usage: false }, &[done(Finish::Stop)], b"");
    assert!(!String::from_utf8(unasked).unwrap().contains("usage"));
}

#[test]
fn thoughts_have_a_member_of_their_own() {
    let events = [Event::Reasoning("h\"m".into()), Event::Chunk("a".into()), done(Finish::Stop)];
    let chunks = stream(&events);
    assert_eq!(chunks[1]["choices"][0]["delta"], json!({ "reasoning_content": "h\"m" }));
    assert_eq!(chunks[2]["choices"][0]["delta"], json!({ "content": "a" }));
    let completion: Value = serde_json::from_slice(&whole(&events)).unwrap();
    let message = json!({ "role": "assistant", "content": "a", "reasoning_content": "h\"m", "refusal": null });
    assert_eq!(completion["choices"][0]["message"], message);
}

#[test]
fn a_failure_is_an_error_and_no_finish() {
    let chunks = stream(&[Event::Chunk("a".into()), Event::Failed(Problem::idle_timeout())]);
    let error = json!({ "error": {
        "message": "the model was silent for too long; try again", "type": "server_error", "param": null, "code": "idle-timeout",
    } });
    assert_eq!(chunks.last(), Some(&error));
    assert!(chunks.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    let cut = whole(&[Event::Chunk("a".into()), Event::Failed(Problem::idle_timeout())]);
    assert!(serde_json::from_slice::<Value>(&cut).is_err(), "it is broken off, and is no JSON");
}

#[test]
fn fields_are_honoured_ignored_or_refused() {
    let read = |more: Value| {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request(body.to_string().as_bytes())
    };
    let asked = read(json!({
        "stream": true, "stream_options": { "include_usage": true, "include_obfuscation": false },
        "max_tokens": 9, "max_completion_tokens": 7, "frequency_penalty": 0, "presence_penalty": 0.5,
        "response_format": { "type": "text" }, "n": 1, "tools": [], "tool_choice": "auto", "parallel_tool_calls": true,
        "logprobs": false, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"], "user": "u", "store": null,
        "top_k": 40, "chat_template_kwargs": {}, "a name": 1,
    }))
    .unwrap();
    assert_eq!(asked.dialect, Dialect::Chat { usage: true });
    let options = &asked.input.options;
    assert_eq!((options.max_tokens, options.frequency_penalty, options.presence_penalty), (Some(7), None, Some(0.5)));
    assert_eq!(asked.ignored, ["chat_template_kwargs", "top_k"]);
    assert_eq!(read(json!({})).unwrap().dialect, Dialect::ChatWhole);
    assert_eq!(
        read(json!({ "response_format": { "type": "json_object" } })).unwrap().input.options.format,
        Format::Json
    );

    for (more, param, code) in [
        (json!({ "model": null }), "model", None),
        (json!({ "n": 2 }), "n", Some("unsupported_value")),
        (json!({ "tools": [{}] }), "tools", Some("unsupported_parameter")),
        (json!({ "functions": [{}] }), "functions", Some("unsupported_parameter")),
        (json!({ "logprobs": true }), "logprobs", Some("unsupported_parameter")),
        (json!({ "top_logprobs": 2 }), "top_logprobs", Some("unsupported_parameter")),
        (json!({ "logit_bias": { "1": 1 } }), "logit_bias", Some("unsupported_parameter")),
        (json!({ "audio": { "voice": "x" } }), "audio", Some("unsupported_parameter")),
        (json!({ "modalities": ["text", "audio"] }), "modalities", Some("unsupported_parameter")),
        (json!({ "web_search_options": { "a": 1 } }), "web_search_options", Some("unsupported_parameter")),
        (json!({ "stream": "yes" }), "stream", None),
        (json!({ "max_completion_tokens": -1 }), "max_completion_tokens", None),
        (json!({ "response_format": { "type": "xml" } }), "response_format", None),
        (json!({ "response_format": { "type": "json_schema" } }), "response_format", None),
        (json!({ "reasoning_effort": 1 }), "reasoning_effort", None),
        (json!({ "reasoning_effort": "invalid model" }), "reasoning_effort", None),
    ] {
        let problem = read(more).unwrap_err();
        assert_eq!((problem.status(), problem.param(), problem.code()), (400, Some(param), code), "{problem}");
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = prop_oneof![any::<String>(), "[\u{0}-\u{a0}\u{2020}-\u{2030}\u{1f9a6}\"\\\\]{0,12}", "[\n]{1,3}data: x"];
    (text, any::<bool>()).prop_map(|(text, thought)| if thought { Event::Reasoning(text) } else { Event::Chunk(text) })
}

fn any_end() -> impl Strategy<Value = Event> {
    let finish =
        prop_oneof![Just(Finish::Stop), Just(Finish::Length), Just(Finish::ContentFilter), Just(Finish::Stopped)];
    prop_oneof![finish.prop_map(done), any::<String>().prop_map(|text| Event::Failed(Problem::bad_request(text)))]
}

proptest! {
    /// Heartbeats change nothing, wherever they stand, and however the bytes are cut.
    #[test]
    fn the_text_is_the_journals_in_the_strictest_reader(
        events in prop::collection::vec(any_event(), 0..8),
        end in any_end(),
        beats in 0..3_usize,
        cut in 1..50_usize,
    ) {
        let text = |wanted: fn(&Event) -> Option<&String>| events.iter().filter_map(wanted).cloned().collect::<String>();
        let text = (
            text(|event| if let Event::Chunk(text) = event { Some(text) } else { None }),
            text(|event| if let Event::Reasoning(text) = event { Some(text) } else { None }),
        );
        let has_failed = matches!(end, Event::Failed(_));
        let events = [events, vec![end]].concat();

        let heartbeat = Dialect::Chat { usage: true }.heartbeat().unwrap().repeat(beats);
        let streamed = response(Dialect::Chat { usage: true }, &events, &heartbeat);
        let mut decoder = Decoder::default();
        let mut read = Vec::new();
        for piece in streamed.chunks(cut) {
            read.extend(decoder.read(piece));
        }
        let (last, chunks) = read.split_last().unwrap();
        prop_assert_eq!(&**last, "[DONE]");
        let chunks: Vec<Value> = chunks.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
        let delta = |name: &str| -> String {
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"][name].as_str()).collect()
        };
        prop_assert_eq!((delta("content"), delta("reasoning_content")), text.clone());
        prop_assert_eq!(chunks.iter().any(|chunk| chunk["error"].is_object()), has_failed);

        let bare = Decoder::default().read(&response(Dialect::Bare, &events, b""));
        let bare: Vec<Value> = bare.iter().map(|data| serde_json::from_str(data).unwrap()).collect();
        prop_assert_eq!(bare.iter().map(|data| data["chunk"].as_str().unwrap()).collect::<String>(), text.0.as_str());

        // Before its end nothing of a whole answer is written but blanks.
        let blanks = Dialect::ChatWhole.heartbeat().unwrap().repeat(beats);
        let whole = [blanks, whole(&events)].concat();
        let completion = serde_json::from_slice::<Value>(&whole);
        prop_assert_eq!(completion.is_err(), has_failed);
        if let Ok(completion) = completion {
            let message = &completion["choices"][0]["message"];
            let read = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
            prop_assert_eq!((read("content"), read("reasoning_content")), text);
        }
    }
}
