//! FAULT 20, in a process of its own: its descriptors, its tasks and its memory are looked at.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use futures::future::join_all;
use headwater_origin_testing::{resident, spawn_origin, start_bytes, until};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_20_connections_that_come_and_go_leave_nothing_behind() {
    // Places for all, so that none is refused because those before have not quite left theirs.
    let places = ["--generations", "2000", "--queue", "2000"];
    let origin = spawn_origin(&[&["--linger", "0s", "--retention", "0s"], &places[..]].concat()).await;
    let start = start_bytes(&json!([{ "tokens": 9999, "every_ms": 1 }]));
    origin.until("started", 0).await;
    let (descriptors_before, tasks_before) = (descriptors(), tasks());
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
        until("the descriptors are closed", async || descriptors() <= descriptors_before).await;
        until("the tasks have ended", async || tasks() <= tasks_before).await;
    };
    // What grows once and is kept, buffers and maps, has grown then.
    come_and_go().await;
    let memory_before = resident();
    come_and_go().await;
    assert_eq!(origin.count("started").await, 2_000);
    let grown = resident().saturating_sub(memory_before);
    assert!(grown < 4 * 1024 * 1024, "a thousand connections left {grown} bytes behind");
}

/// The tasks of this process, the origin's among them.
fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
