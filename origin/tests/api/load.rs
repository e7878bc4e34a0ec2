//! FAULTS "Load and abuse", as far as the origin by itself shows it.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::helpers::{SECRET, events, open, problem, spawn_origin, terminal};

/// A framed start of this script, as it goes over the wire.
fn start(script: &Value) -> Vec<u8> {
    let body = json!({ "topic": script.to_string() }).to_string();
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

#[tokio::test]
async fn fault_20_connections_that_come_and_go_leave_nothing_behind() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let origin = spawn_origin(&["--linger", "0s"]).await;
    let start = start(&json!([{ "tokens": 9999, "every_ms": 1 }]));
    let before = descriptors();
    for _ in 0..10 {
        let drop_one = async || {
            let mut socket = TcpStream::connect(origin.address).await.unwrap();
            socket.write_all(&start).await.unwrap();
            socket.read_u8().await.unwrap();
        };
        join_all((0..100).map(|_| drop_one())).await;
    }
    assert_eq!(origin.count("started").await, 1_000);
    origin.until("running", 0).await;
    let settled = async {
        while descriptors() > before + 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the descriptors are closed");
}

#[tokio::test]
async fn fault_21_a_reader_that_does_not_read_is_cut_at_the_write_deadline() {
    let origin = spawn_origin(&["--write-timeout", "200ms", "--stream-size", "64MiB", "--linger", "0s"]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(origin.address).await.unwrap();
    socket.write_all(&start(&json!([{ "repeat": "x", "times": 16 * 1024 * 1024 }, 10_000]))).await.unwrap();
    origin.until("running", 1).await;
    // Cut, it is no reader any more, and the stream is abandoned.
    origin.until("running", 0).await;
    drop(socket);
}

#[tokio::test]
async fn fault_22_headers_that_come_byte_by_byte_are_cut_at_the_deadline() {
    let origin = spawn_origin(&["--header-timeout", "300ms"]).await;
    let slow = async || {
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        let began = Instant::now();
        for byte in b"GET /healthz HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'y')) {
            let mut gone = [0; 1];
            let closed = tokio::time::timeout(Duration::from_millis(20), socket.read(&mut gone)).await;
            if closed.is_ok() || socket.write_all(&[*byte]).await.is_err() {
                return began.elapsed();
            }
        }
        unreachable!("the bytes never end")
    };
    let normal = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        terminal(&events(open(origin.start(&json!(["a"]))).await).await).0.to_owned()
    };
    let (closed, normal) = tokio::join!(join_all((0..200).map(|_| slow())), normal);
    assert_eq!(normal, "done", "a normal client is served meanwhile");
    assert!(closed.iter().all(|after| *after < Duration::from_secs(5)), "{:?}", closed.iter().max());
}

#[tokio::test]
async fn fault_23_over_the_generation_cap_and_the_queue_starts_are_refused_at_once() {
    let origin = spawn_origin(&["--generations", "2", "--queue", "1", "--gate", "20ms"]).await;
    let script = json!([{ "tokens": 40, "every_ms": 10 }]);
    let taken = join_all((0..3).map(|_| open(origin.start(&script)))).await;
    let asked = Instant::now();
    let refused = origin.start(&json!(["a"])).send().await.unwrap();
    assert!(asked.elapsed() < Duration::from_millis(300));
    assert_eq!(problem(refused).await, (503, "overloaded".into()));
    for events in join_all(taken.into_iter().map(events)).await {
        assert_eq!(terminal(&events).0, "done");
    }
    assert_eq!(terminal(&events(open(origin.start(&json!(["a"]))).await).await).0, "done", "it recovers");
}

#[tokio::test]
async fn fault_23_over_the_connection_cap_a_503_says_so_and_closes() {
    let origin = spawn_origin(&["--connections", "2"]).await;
    let held = [TcpStream::connect(origin.address).await.unwrap(), TcpStream::connect(origin.address).await.unwrap()];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = origin.raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains("connection: close") && head.contains("retry-after: 1"),
        "{head}"
    );
    assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
    drop(held);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = origin.raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "it recovers: {answer}");
}
