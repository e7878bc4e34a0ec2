//! FAULT 20, in a process of its own: its descriptors and its memory are looked at.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[path = "api/helpers.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod helpers;

use helpers::{spawn_origin, start_bytes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_connections_that_come_and_go_leave_nothing_behind() {
    let origin = spawn_origin(&["--linger", "0s", "--retention", "0s"]).await;
    let start = start_bytes(&json!([{ "tokens": 9999, "every_ms": 1 }]));
    let come_and_go = async || {
        for _ in 0..10 {
            let drop_one = async || {
                let mut socket = TcpStream::connect(origin.address).await.unwrap();
                socket.write_all(&start).await.unwrap();
                socket.read_u8().await.unwrap();
            };
            join_all((0..100).map(|_| drop_one())).await;
        }
        origin.until("running", 0).await;
    };
    // What grows once and is kept, buffers and maps, has grown then.
    come_and_go().await;
    let (descriptors_before, memory_before) = (descriptors(), resident());
    come_and_go().await;
    assert_eq!(origin.count("started").await, 2_000);
    let settled = async {
        while descriptors() > descriptors_before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("the descriptors are closed");
    let grown = resident().saturating_sub(memory_before);
    assert!(grown < 4 * 1024 * 1024, "a thousand connections left {grown} bytes behind");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory, bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}
