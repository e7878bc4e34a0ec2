//! The limits of one answer.

use std::time::Duration;

use headwater_origin::stream::frame::CHUNK_BYTES;
use headwater_origin_testing::{data, events, id_of, open, spawn_origin, start_bytes, terminal, text};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpSocket, time::timeout};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_19_what_fits_the_streams_limit_is_not_cut() {
    let origin = spawn_origin(&["--stream-size", "4KiB"]).await;
    for (size, finish) in [(3_900, "stop"), (4_100, "length")] {
        let all = events(open(origin.start(&json!([{ "repeat": "x", "times": size }]))).await).await;
        assert_eq!(terminal(&all).1["finish"], finish, "{size}");
        assert_eq!(text(&all).len(), if finish == "stop" { size } else { 0 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_long_text_the_pieces_that_fit_the_streams_limit_are_kept() {
    let origin = spawn_origin(&["--stream-size", "100KiB"]).await;
    let response = open(origin.start(&json!([{ "repeat": "x", "times": 200 * 1024 }, "more"]))).await;
    let id = id_of(&response);
    let all = events(response).await;
    assert_eq!((terminal(&all).1["finish"].as_str(), all.len()), (Some("length"), 7));
    assert_eq!(text(&all), "x".repeat(6 * CHUNK_BYTES));
    assert!(terminal(&all).1["timing"]["first_token_ms"].is_u64());
    assert!(origin.follow_bytes(&id).await.len() < 101 * 1024);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_takes_longer_than_it_may_ends_with_finish_length() {
    let origin = spawn_origin(&["--total-timeout", "100ms"]).await;
    let all = events(open(origin.start(&json!(["a", 60_000]))).await).await;
    assert_eq!((text(&all).as_str(), terminal(&all).0), ("a", "done"));
    assert_eq!(data(&all[1])["finish"], "length");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_a_reader_that_does_not_read_holds_no_origin_beyond_the_drain() {
    let mut origin = spawn_origin(&["--drain-timeout", "200ms", "--stream-size", "100MiB"]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(origin.address).await.unwrap();
    // More than the buffers on the way hold.
    let script = json!([{ "repeat": "x", "times": 16 * 1024 * 1024 }]);
    stalled.write_all(&start_bytes(&script)).await.unwrap();
    origin.until("started", 1).await;
    origin.until("running", 0).await;
    origin.terminate();
    timeout(Duration::from_secs(3), origin.ended()).await.expect("it has stopped");
}
