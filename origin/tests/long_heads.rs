//! Heads without end, in a process of its own: its memory is looked at.

use std::time::Duration;

use futures::future::join_all;
use headwater_origin_testing::{resident, spawn_origin};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const SOCKETS: usize = 400;
/// Less than is read ahead of a body, and more than the limit of a head, bytes.
const HEAD: usize = 60 * 1024;
/// As much of it as is within the limit, bytes.
const WITHIN: usize = 15 * 1024;
/// What one of them may take here, bytes: the limit, a read beyond it, and both ends of the connection.
const BOUND: usize = 64 * 1024;

/// A head comes before the secret: anyone can send one. Without a limit of its own it takes the whole read buffer, on
/// every connection, until the header timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_are_refused_at_their_limit_and_take_bounded_memory() {
    let origin = spawn_origin(&["--header-timeout", "10min"]).await;
    origin.until("running", 0).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}", "x".repeat(HEAD));
    let (within, beyond) = head.as_bytes().split_at(WITHIN);
    let before = resident();
    let mut sockets = join_all((0..SOCKETS).map(async |_| {
        let mut socket = TcpStream::connect(origin.address).await.unwrap();
        socket.write_all(within).await.unwrap();
        socket
    }))
    .await;
    // Answered behind them: nearly all of their bytes have been read then.
    origin.until("running", 0).await;
    let held = resident();
    let refused = join_all(sockets.iter_mut().map(async |socket| {
        // Refused, it may be closed before all of this is sent, and the answer lost with it.
        let _ = socket.write_all(beyond).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    }));
    timeout(Duration::from_secs(60), refused).await.expect("all of them are refused");
    let grown = held.max(resident()).saturating_sub(before) / SOCKETS;
    assert!(grown < BOUND, "a head without end takes {grown} bytes");
}
