//! FAULT 29, in a process of its own, with a network of its own.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::{Duration, Instant};

use headwater_origin_testing::{CapturedLog, Namespace, skipped, spawn_origin_at, start_bytes};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER: Duration = Duration::from_millis(500);
/// For a slow machine. TCP by itself takes a quarter of an hour.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_29_a_reader_whose_link_goes_down_is_gone_soon_after_the_write_timeout() {
    let network = match Namespace::create() {
        Ok(network) => network,
        Err(missing) => return skipped("fault 29", &missing),
    };
    let log = CapturedLog::install();
    let flags = ["--write-timeout", "1s", "--linger", "500ms", "--heartbeat", "200ms"];
    let origin = spawn_origin_at(network.address(), &flags).await;
    let tokens = start_bytes(&json!([{ "tokens": 1_000_000, "every_ms": 20 }]));
    let silence = start_bytes(&json!(["a", 600_000]));
    // A bare stream has no heartbeats.
    let nothing = String::from_utf8(silence.clone()).unwrap().replace("accept: text/event-stream\r\n", "");
    let mut readers = Vec::new();
    for start in [tokens, silence, nothing.into_bytes()] {
        let mut reader = network.socket().connect(origin.address).await.unwrap();
        reader.write_all(&start).await.unwrap();
        first_chunk(&mut reader).await;
        readers.push(reader);
    }
    assert_eq!(origin.count("running").await, 3);

    let down = Instant::now();
    network.cut();
    let gone = async {
        while origin.count("running").await > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    // Where nothing is written, TCP asks after one write timeout and gives up after the next.
    timeout(2 * WRITE_TIMEOUT + LINGER + SLACK, gone).await.expect("all of them are gone");
    assert!(down.elapsed() >= LINGER, "{:?}", down.elapsed());
    let outcomes: Vec<_> = log.records().iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["abandoned"; 3]);
}

/// Reads the answer's head and its first bytes.
async fn first_chunk(reader: &mut TcpStream) {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") || answer.ends_with(b"\r\n\r\n") {
        assert_ne!(reader.read_buf(&mut answer).await.unwrap(), 0, "it begins");
    }
}
