//! What is asked in other ways than a client of today asks.

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_origin_testing::{SECRET, id_of, open, problem, spawn_origin, start_bytes};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// An end of a body without chunks is an end of the connection, and a cut looks like one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_10_a_start_is_framed_or_refused() {
    let origin = spawn_origin(&[]).await;
    let framed = String::from_utf8(start_bytes(&json!(["a"]))).unwrap().replace("HTTP/1.1", "HTTP/1.0");
    let whole = origin.raw(framed.as_bytes()).await;
    assert!(whole.contains(" 200 OK\r\n") && whole.contains("event: done\n"), "{whole}");
    let bare = framed.replace("accept: text/event-stream\r\n", "");
    let refused = origin.raw(bare.as_bytes()).await;
    assert!(refused.contains(" 400 ") && refused.contains("HTTP/1.1"), "{refused}");
    assert_eq!(origin.count("started").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_23_a_prefetch_starts_nothing_however_it_says_so() {
    let origin = spawn_origin(&[]).await;
    let start = |purposes: &[&str]| {
        let request = origin.request(Method::GET, "/prompts/simple");
        purposes.iter().fold(request, |request, purpose| request.header("sec-purpose", *purpose)).send()
    };
    for purposes in [&["prefetch"][..], &["prefetch;prerender"], &["prerender, prefetch"], &["other", "prefetch"]] {
        let refused = start(purposes).await.unwrap();
        assert_eq!(problem(refused).await, (503, "overloaded".into()), "{purposes:?}");
    }
    assert_eq!(origin.count("started").await, 0);
    assert_eq!(start(&["prefetchable"]).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_24_a_wrong_method_is_told_before_a_wrong_id() {
    let origin = spawn_origin(&[]).await;
    for method in [Method::POST, Method::HEAD] {
        let response = origin.request(method, "/streams/x").send().await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"GET, DELETE".parse().unwrap()));
    }
    assert_eq!(origin.request(Method::HEAD, "/healthz").send().await.unwrap().status(), 200);
}

/// The edge resumes with a POST, whose body may come later than its headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_a_reader_that_resumed_by_a_start_is_seen_to_leave() {
    // No write notices that the reader has left.
    let origin = spawn_origin(&["--linger", "50ms", "--heartbeat", "off"]).await;
    let first = open(origin.start(&json!(["a", 60_000]))).await;
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\nlast-event-id: {}.0\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n",
        id_of(&first)
    );
    let mut resumed = TcpStream::connect(origin.address).await.unwrap();
    resumed.set_nodelay(true).unwrap();
    resumed.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    resumed.write_all(b"{}").await.unwrap();
    resumed.read_exact(&mut [0; 200]).await.unwrap();
    drop(first);
    drop(resumed);
    origin.until("running", 0).await;
}

/// Sends this, and reads until the origin has answered or closed.
async fn ask(socket: &mut TcpStream, request: &str) -> String {
    let mut answer = [0; 4096];
    socket.write_all(request.as_bytes()).await.unwrap();
    let read = socket.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

const GET: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
/// Half of it.
const HALF: &str = "GET /heal";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_kept_longer_than_a_head_may_take() {
    let origin = spawn_origin(&["--header-timeout", "200ms", "--keep-alive-timeout", "1500ms"]).await;
    let post = String::from_utf8(start_bytes(&json!(["a"]))).unwrap();
    let (head, body) = post.split_at(post.find("\r\n\r\n").unwrap() + 4);
    let kept = async |requests: &[&str], end: &str, ends: usize| {
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for request in requests {
            socket.write_all(request.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
        }
        let mut answers = String::new();
        while answers.matches(end).count() < ends {
            answers += &ask(&mut socket, "").await;
        }
        sleep(Duration::from_millis(600)).await;
        assert!(ask(&mut socket, GET).await.starts_with("HTTP/1.1 200"), "it was idle, not slow: {requests:?}");
        let idle = Instant::now();
        assert_eq!(ask(&mut socket, "").await, "", "idle for too long, it is closed");
        assert!(idle.elapsed() >= Duration::from_millis(1_400), "{:?}", idle.elapsed());
    };
    const LAST_CHUNK: &str = "\r\n0\r\n\r\n";
    let twice = GET.repeat(2);
    let requests: [(&[&str], _, _); 4] =
        [(&[GET], "}}", 1), (&[&twice], "}}", 2), (&[&post], LAST_CHUNK, 1), (&[head, body], LAST_CHUNK, 1)];
    join_all(requests.map(|(requests, end, ends)| kept(requests, end, ends))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_22_a_slow_head_is_given_up_on_a_new_and_on_a_kept_connection() {
    let origin = spawn_origin(&["--header-timeout", "200ms", "--keep-alive-timeout", "60s"]).await;
    let behind = [GET, HALF].concat();
    // Behind a request, in one piece with it, and while it is answered.
    let start = String::from_utf8(start_bytes(&json!([100, "a"]))).unwrap();
    let during = [&start, HALF].concat();
    for requests in [&[""][..], &[HALF], &[GET, HALF], &[&behind], &[&start, HALF], &[&during]] {
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        let began = Instant::now();
        for request in requests {
            socket.write_all(request.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(50)).await;
        }
        let mut answers = Vec::new();
        let closed = timeout(Duration::from_secs(20), socket.read_to_end(&mut answers)).await;
        closed.expect("it is closed long before the keep-alive time").unwrap();
        let answers = String::from_utf8(answers).unwrap();
        let whole = requests.concat().matches("HTTP/1.1\r\n").count();
        assert_eq!(answers.matches("HTTP/1.1 200").count(), whole, "{requests:?}: {answers}");
        assert!(began.elapsed() >= Duration::from_millis(150), "{requests:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_over_its_limit_is_refused() {
    let origin = spawn_origin(&[]).await;
    for (bytes, status) in [(15 * 1024, "200"), (20 * 1024, "431"), (200 * 1024, "431")] {
        let head = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: {}\r\n\r\n", "x".repeat(bytes));
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        // It may be refused before all of it is sent.
        let _ = socket.write_all(head.as_bytes()).await;
        let mut answer = [0; 12];
        let read = socket.read_exact(&mut answer).await;
        // Closing with unread bytes may reset the connection before the refusal is read.
        if read.is_ok() || bytes < 100 * 1024 {
            assert_eq!(String::from_utf8_lossy(&answer), format!("HTTP/1.1 {status}"), "{bytes}");
        }
    }
}

#[tokio::test]
async fn with_the_shortest_and_the_longest_write_timeout_a_request_is_answered() {
    for timeout in ["10ms", "32767s", "32768s", "1day"] {
        let origin = spawn_origin(&["--write-timeout", timeout]).await;
        let answer = origin.request(Method::GET, "/healthz").send().await.unwrap();
        assert_eq!(answer.status(), 200, "{timeout}");
    }
}
