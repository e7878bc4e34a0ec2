//! The record of a stream in the log; in a process of its own, because the log is the process's.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    io,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

#[path = "api/helpers.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod helpers;

use helpers::{events, id_of, open, spawn_origin, terminal};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn the_record_is_one_line_and_names_the_trace() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
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

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The records of streams.
    fn records(&self) -> Vec<Value> {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == "stream ended").collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
