//! FAULT 21, in a process of its own: its memory is looked at.
//!
//! The write deadline is for a write that makes no progress. A reader that takes a little before each deadline doesn't
//! defeat it: Linux calls a socket writable only once a third of its send buffer is free, and tokio doesn't write before.
//! Measured over a network of 1,500-byte packets, through a receive buffer of 4 KiB: a reader has to take 5 to 17 KB
//! within a deadline while the send buffer still grows, and 40 KB from then on.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use futures::future::join_all;
#[cfg(target_os = "linux")]
use headwater_origin_testing::{Namespace, skipped};
use headwater_origin_testing::{Origin, SECRET, id_of, open, resident, spawn_origin_at};
use reqwest::Response;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

/// Half of them take a byte at a time, half 2 KiB shortly before each deadline.
const READERS: usize = 50;
const DEADLINE: Duration = Duration::from_secs(1);
/// More than the system's buffers for a connection hold, bytes.
const STREAM: usize = 16 * 1024 * 1024;
/// What one reader may take here, bytes: a write and a buffer of 64 KiB each, and some room.
const BOUND: usize = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_readers_of_a_little_at_a_time_take_bounded_memory_and_are_cut_at_the_write_deadline() {
    are_cut(Ipv4Addr::LOCALHOST, || TcpSocket::new_v4().unwrap()).await;
    // Segments of a network's size, and so the buffers of one.
    #[cfg(target_os = "linux")]
    match Namespace::create() {
        Ok(network) => are_cut(network.address(), || network.socket()).await,
        Err(missing) => skipped("fault 21 over a network", &missing),
    }
}

/// The readers of an origin at this address, which come from these sockets.
async fn are_cut(address: Ipv4Addr, socket: impl Fn() -> TcpSocket) {
    let flags = ["--write-timeout", "1s", "--stream-size", "64MiB", "--linger", "0s"];
    let origin = spawn_origin_at(address, &flags).await;
    let mut first = open(origin.start(&json!([{ "tokens": 300_000 }, 600_000]))).await;
    let id = id_of(&first);
    let mut size = 0;
    while size < STREAM {
        size += first.chunk().await.unwrap().unwrap().len();
    }

    let (before, began) = (resident(), Instant::now());
    let mut slow = join_all((0..READERS).map(|_| begin(&origin, socket(), &id))).await;
    drop(first);
    let others = tokio::spawn(longest_gap(open(origin.start(&json!([{ "tokens": 100, "every_ms": 10 }]))).await));
    let (bytes, kilobytes) = slow.split_at_mut(READERS / 2);
    // 20 bytes in a deadline; the default one is 30 s, so that there are 30 at a byte a second. Cut or not, they go on.
    let read = async { tokio::join!(read(bytes, 1, DEADLINE / 20), read(kilobytes, 2048, DEADLINE * 4 / 5)) };
    let mut most = 0;
    let cut = async {
        // Without a reader the stream, which would go on for ten minutes, is abandoned.
        while origin.count("running").await > 0 {
            most = most.max(resident());
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        _ = read => {}
        cut = timeout(Duration::from_secs(30), cut) => cut.expect("all of them are cut"),
    }
    assert!(began.elapsed() >= DEADLINE, "not before the deadline: {:?}", began.elapsed());
    let grown = most.saturating_sub(before) / READERS;
    assert!(grown < BOUND, "a slow reader takes {grown} bytes");
    let gap = others.await.unwrap();
    assert!(gap < Duration::from_secs(1), "another reader waited {gap:?} for a token");
}

/// Reads so much from each, again and again.
async fn read(sockets: &mut [TcpStream], bytes: usize, every: Duration) {
    let mut read = vec![0; bytes];
    loop {
        sleep(every).await;
        for socket in &mut *sockets {
            let _ = socket.read(&mut read).await;
        }
    }
}

/// Between two writes of this answer.
async fn longest_gap(mut answer: Response) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while answer.chunk().await.unwrap().is_some() {
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

/// A reader of the stream with small buffers, behind its first byte.
async fn begin(origin: &Origin, socket: TcpSocket, id: &str) -> TcpStream {
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(origin.address).await.unwrap();
    let request = format!("GET /streams/{id} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.read_u8().await.unwrap();
    socket
}
