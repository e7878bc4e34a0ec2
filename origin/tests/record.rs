//! The record of a stream in the log; in a process of its own, because the log is the process's.

use headwater_origin_testing::{CapturedLog, events, id_of, open, spawn_origin, terminal};
use serde_json::{Value, json};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn the_record_is_one_line_and_names_the_trace() {
    let log = CapturedLog::install();
    let origin = spawn_origin(&[]).await;
    let response = open(origin.start(&json!(["a ", "b"])).header("traceparent", TRACE)).await;
    let id = id_of(&response);
    terminal(&events(response).await);
    terminal(&events(open(origin.start(&json!(["c"])).header("traceparent", "garbage")).await).await);
    origin.until("running", 0).await;

    let records = log.records();
    let [first, second] = &records[..] else { panic!("a record a stream: {records:?}") };
    assert_eq!(first["stream"], id);
    assert_eq!(first["model"], "scripted");
    assert_eq!(first["outcome"], "stop");
    assert_eq!(first["chunks"], 2);
    assert_eq!(first["readers"], 1);
    assert_eq!(first["traceparent"], TRACE);
    assert_eq!(second["traceparent"], Value::Null, "what is no traceparent isn't passed on");
}
