//! FAULT 21, in a process of its own: its memory is looked at.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::{Duration, Instant};

use futures::future::join_all;
use headwater_origin_testing::{Origin, SECRET, id_of, open, resident, spawn_origin};
use reqwest::Response;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

const READERS: usize = 50;
/// More than the system's buffers for a connection hold, bytes.
const STREAM: usize = 16 * 1024 * 1024;
/// What one reader may take here, bytes: a write and a buffer of 64 KiB each, and some room.
const BOUND: usize = 256 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_21_readers_of_a_byte_at_a_time_take_bounded_memory_and_are_cut_at_the_write_deadline() {
    let deadline = Duration::from_secs(1);
    let origin = spawn_origin(&["--write-timeout", "1s", "--stream-size", "64MiB", "--linger", "0s"]).await;
    let mut first = open(origin.start(&json!([{ "tokens": 300_000 }, 600_000]))).await;
    let id = id_of(&first);
    let mut size = 0;
    while size < STREAM {
        size += first.chunk().await.unwrap().unwrap().len();
    }

    let (before, began) = (resident(), Instant::now());
    let mut slow = join_all((0..READERS).map(|_| begin(&origin, &id))).await;
    drop(first);
    let others = tokio::spawn(longest_gap(open(origin.start(&json!([{ "tokens": 100, "every_ms": 10 }]))).await));
    let read = async {
        loop {
            // 20 bytes in a deadline; the default one is 30 s, so that there are 30 at a byte a second.
            sleep(deadline / 20).await;
            for socket in &mut slow {
                // Cut or not, it goes on.
                drop(socket.read_u8().await);
            }
        }
    };
    let mut most = 0;
    let cut = async {
        // Without a reader the stream, which would go on for ten minutes, is abandoned.
        while origin.count("running").await > 0 {
            most = most.max(resident());
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = read => {}
        cut = timeout(Duration::from_secs(30), cut) => cut.expect("all of them are cut"),
    }
    assert!(began.elapsed() >= deadline, "not before the deadline: {:?}", began.elapsed());
    let grown = most.saturating_sub(before) / READERS;
    assert!(grown < BOUND, "a slow reader takes {grown} bytes");
    let gap = others.await.unwrap();
    assert!(gap < Duration::from_secs(1), "another reader waited {gap:?} for a token");
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
async fn begin(origin: &Origin, id: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(origin.address).await.unwrap();
    let request = format!("GET /streams/{id} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.read_u8().await.unwrap();
    socket
}
