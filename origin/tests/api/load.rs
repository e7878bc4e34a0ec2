//! FAULTS "Load and abuse", as far as the origin by itself shows it.

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_origin_testing::{events, id_of, open, problem, spawn_origin, start_bytes, terminal};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Barrier,
    time::timeout,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_a_reader_that_does_not_read_is_cut_at_the_write_deadline() {
    let origin = spawn_origin(&["--write-timeout", "200ms", "--stream-size", "256MiB", "--linger", "0s"]).await;
    let other = open(origin.start(&json!([{ "tokens": 100, "every_ms": 10 }]))).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(origin.address).await.unwrap();
    socket.write_all(&start_bytes(&json!([{ "repeat": "x", "times": 16 * 1024 * 1024 }, 60_000]))).await.unwrap();
    origin.until("started", 2).await;
    assert_eq!(terminal(&events(other).await).0, "done", "others don't notice");
    // Cut, it is no reader any more, and the stream is abandoned, long before its model would end it.
    origin.until("running", 0).await;
    drop(socket);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_headers_that_come_byte_by_byte_are_cut_at_the_deadline() {
    let deadline = Duration::from_secs(3);
    let origin = spawn_origin(&["--header-timeout", "3s"]).await;
    let all_connected = Barrier::new(201);
    let slow = async || {
        let connecting = Instant::now();
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        socket.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
        all_connected.wait().await;
        loop {
            let closed = timeout(Duration::from_millis(50), socket.read_u8()).await;
            if closed.is_ok() || socket.write_all(b"y").await.is_err() {
                return (connecting.elapsed(), Instant::now());
            }
        }
    };
    let normal = async {
        all_connected.wait().await;
        let all = events(open(origin.start(&json!(["a"]))).await).await;
        (terminal(&all).0.to_owned(), Instant::now())
    };
    let slow = timeout(Duration::from_secs(30), join_all((0..200).map(|_| slow())));
    let (closed, (normal, served)) = tokio::join!(slow, normal);
    let closed = closed.expect("all of them are cut");
    assert_eq!(normal, "done");
    for (after, closed) in closed {
        assert!(after >= deadline, "cut before the deadline, after {after:?}");
        assert!(served < closed, "a normal client is served meanwhile");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_over_the_generation_cap_and_the_queue_starts_are_refused_at_once() {
    // A start in the queue is answered when it has its place, or when the start window is over.
    let origin = spawn_origin(&["--generations", "2", "--queue", "1", "--start-window", "9s"]).await;
    let endless = json!([{ "tokens": 100_000, "every_ms": 5 }]);
    let running = join_all((0..2).map(|_| open(origin.start(&endless)))).await;
    let queued = tokio::spawn(open(origin.start(&endless)));
    origin.until("queued", 1).await;
    let refused = timeout(Duration::from_secs(5), origin.start(&json!(["a"])).send()).await.expect("at once").unwrap();
    assert_eq!(problem(refused).await, (503, "overloaded".into()));
    assert_eq!(origin.stop(&id_of(&running[0])).await, 204);
    let queued = queued.await.unwrap();
    for running in [&running[1], &queued] {
        assert_eq!(origin.stop(&id_of(running)).await, 204);
    }
    assert_eq!(terminal(&events(open(origin.start(&json!(["a"]))).await).await).0, "done", "it recovers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_over_the_connection_cap_a_503_says_so_and_closes() {
    let origin = spawn_origin(&["--connections", "2"]).await;
    let held = [TcpStream::connect(origin.address).await.unwrap(), TcpStream::connect(origin.address).await.unwrap()];
    let long = String::from_utf8(start_bytes(&json!("a".repeat(60_000)))).unwrap();
    for request in ["GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", &long] {
        let answer = origin.raw(request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.1 503") && head.contains("connection: close") && head.contains("retry-after: 1"),
            "{head}"
        );
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        let path = request.split(' ').nth(1).unwrap();
        assert!(body.contains("/problems/overloaded") && body.contains(&format!("\"instance\":\"{path}\"")), "{body}");
    }
    drop(held);
    let recovered = async {
        while !origin
            .raw(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 200")
        {}
    };
    timeout(Duration::from_secs(10), recovered).await.expect("it recovers");
}
