//! Two origins with one journal in Redis, through their sockets.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use headwater_origin::stream::frame::CHUNK_BYTES;
use headwater_origin_testing::{
    Origin, RedisServer, events, first_events, id_of, open, problem, spawn_origin, terminal, text, until,
};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

async fn spawn_two(server: &RedisServer) -> (Origin, Origin) {
    let journal = server.address();
    let a = spawn_origin(&["--name", "a", "--journal", &journal]).await;
    (a, spawn_origin(&["--name", "b", "--journal", &journal]).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_cut_is_resumed_at_the_other_origin() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let response = open(a.start(&json!([{ "tokens": 60, "every_ms": 5 }]))).await;
    let id = id_of(&response);
    let before = first_events(response, 5).await;
    let after = events(b.follow(&before[4].id).await).await;
    let whole = events(a.follow(&id).await).await;
    assert_eq!([before, after].concat(), whole);
    assert_eq!((whole.len(), terminal(&whole).0), (61, "done"));
    assert_eq!(a.count("started").await + b.count("started").await, 1);
    let at_end = b.follow(&whole[60].id).await;
    assert_eq!(at_end.status(), 204, "there is nothing more, there either");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_text_is_the_same_events_at_the_other_origin() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let long = json!({ "repeat": "\u{85}\"\u{1f9a6}", "times": 20 * 1024 });
    let response = open(a.start(&json!(["first", long, 100, "last"]))).await;
    let id = id_of(&response);
    let (here, there) = tokio::join!(events(response), async { events(b.follow(&id).await).await });
    assert_eq!(here, there);
    assert_eq!(text(&here), format!("first{}last", "\u{85}\"\u{1f9a6}".repeat(20 * 1024)));
    assert!(here.iter().all(|event| event.data.len() < CHUNK_BYTES + 32));
    // A cursor may lie between two pieces of a text.
    for cursor in 0..here.len() - 1 {
        assert_eq!(events(b.follow(&here[cursor].id).await).await, here[cursor + 1..]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_stopped_at_the_other_origin() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let response = open(a.start(&json!([{ "tokens": 100_000, "every_ms": 5 }]))).await;
    let id = id_of(&response);
    let asked = Instant::now();
    assert_eq!(b.stop(&id).await, 204);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    assert_eq!(terminal(&events(response).await).1["finish"], "stopped");
    assert_eq!(b.stop(&id).await, 204, "again, of what has ended");
    a.until("running", 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_10_the_same_key_at_two_origins_at_once_is_one_generation() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let script = json!([{ "tokens": 30, "every_ms": 5 }]);
    let start = |origin: &Origin| origin.start(&script).header("idempotency-key", "0123456789abcdef");
    let responses = join_all((0..6).map(|number| open(start(if number % 2 == 0 { &a } else { &b })))).await;
    let all = join_all(responses.into_iter().map(events)).await;
    assert!(all.iter().all(|events| *events == all[0] && terminal(events).0 == "done"));
    assert_eq!(a.count("started").await + b.count("started").await, 1);
    let other = b.start(&json!(["other"])).header("idempotency-key", "0123456789abcdef").send().await.unwrap();
    assert_eq!(problem(other).await, (422, "key-reused".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_is_refused_at_both_origins_and_frees_its_key() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let script = json!([50, { "fail": "rate-limited" }]);
    let start = |origin: &Origin| origin.start(&script).header("idempotency-key", "0123456789abcdef").send();
    let (first, second) = tokio::join!(start(&a), start(&b));
    for refused in [first.unwrap(), second.unwrap()] {
        assert_eq!(refused.headers()["retry-after"], "7");
        assert_eq!(problem(refused).await, (429, "rate-limited".into()));
    }
    let other = b.start(&json!(["other"])).header("idempotency-key", "0123456789abcdef");
    assert_eq!(terminal(&events(open(other).await).await).0, "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_redis_is_gone_and_starts_are_a_503_until_it_is_back() {
    let mut server = RedisServer::start();
    let (a, _) = spawn_two(&server).await;
    server.kill();
    let asked = Instant::now();
    let refused = a.start(&json!(["a"])).send().await.unwrap();
    assert_eq!(problem(refused).await, (503, "journal".into()));
    let unknown = a.follow("a-0123456789ABCDEFGHIJkl").await;
    assert_eq!(problem(unknown).await, (503, "journal".into()));
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    server.restart();
    let again = async {
        while a.start(&json!(["a"])).send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
}

/// What Redis has counted of these commands.
fn calls(server: &RedisServer, names: &[&str]) -> u64 {
    let info = server.info("commandstats");
    let count = |name: &&str| {
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    names.iter().filter_map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_start_costs_redis_nothing_without_a_key_and_one_command_with_one() {
    // What a start, a find, a stop or a discard sends. The lease task sends others.
    const STARTS: [&str; 10] = ["eval", "evalsha", "xgroup", "xadd", "xrange", "hset", "hget", "get", "set", "del"];
    let server = RedisServer::start();
    let full = ["--generations", "1", "--queue", "0", "--start-window", "0s", "--journal", &server.address()];
    let origin = spawn_origin(&full).await;
    let running = open(origin.start(&json!([60_000])).header("idempotency-key", "the-running-one-s")).await;
    let before = (calls(&server, &STARTS), calls(&server, &["hmget"]));
    for _ in 0..100 {
        assert_eq!(problem(origin.start(&json!(["a"])).send().await.unwrap()).await, (503, "overloaded".into()));
    }
    assert_eq!((calls(&server, &STARTS), calls(&server, &["hmget"])), before);
    for number in 0..100 {
        let start = origin.start(&json!(["a"])).header("idempotency-key", format!("0123456789-{number:06}"));
        assert_eq!(problem(start.send().await.unwrap()).await, (503, "overloaded".into()));
    }
    assert_eq!((calls(&server, &STARTS), calls(&server, &["hmget"])), (before.0, before.1 + 100));
    // Its own key leads to the running one, which needs no further slot.
    let again = open(origin.start(&json!([60_000])).header("idempotency-key", "the-running-one-s")).await;
    assert_eq!(id_of(&again), id_of(&running));
    assert_eq!(origin.count("started").await, 1);
}

/// Two origins with a start window of 500 ms, and a start with a key of a model that fails after this time, ms.
async fn spawn_two_with_a_failing_start(
    server: &RedisServer,
    fails_after: u64,
) -> ([Origin; 2], impl Fn(&Origin) -> RequestBuilder) {
    let journal = server.address();
    let spawn = async |name| spawn_origin(&["--name", name, "--journal", &journal, "--start-window", "500ms"]).await;
    let script = json!([fails_after, { "fail": "broke-off" }]);
    let start = move |origin: &Origin| origin.start(&script).header("idempotency-key", "0123456789abcdef");
    ([spawn("a").await, spawn("b").await], start)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_within_the_window_is_a_status_however_late_redis_has_it() {
    let server = RedisServer::start();
    let ([a, b], start) = spawn_two_with_a_failing_start(&server, 300).await;
    // The window ends while the failure is on its way into Redis; so does the first attempt to append it.
    let (first, second, ()) = tokio::join!(start(&a).send(), start(&a).send(), async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.send(&["CLIENT PAUSE 1500 WRITE"]);
    });
    for refused in [first.unwrap(), second.unwrap()] {
        assert_eq!(problem(refused).await, (502, "model-broke-off".into()));
    }
    // Its key is free, at each origin.
    let other = b.start(&json!(["other"])).header("idempotency-key", "0123456789abcdef");
    assert_eq!(text(&events(open(other).await).await), "other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_freed_under_a_reader_that_was_answered_with_the_stream() {
    let server = RedisServer::start();
    let ([a, b], start) = spawn_two_with_a_failing_start(&server, 1_500).await;
    let (first, ()) = tokio::join!(open(start(&a)), async {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        server.send(&["CLIENT PAUSE 1500 WRITE"]);
    });
    let id = id_of(&first);
    let first = events(first).await;
    assert_eq!(terminal(&first).1["type"], "/problems/model-broke-off");
    for origin in [&b, &a, &b] {
        let again = open(start(origin)).await;
        assert_eq!(id_of(&again), id);
        assert_eq!(events(again).await, first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_an_origin_that_drains_breaks_off_what_it_only_follows() {
    let server = RedisServer::start();
    let (a, mut b) = spawn_two(&server).await;
    let script = json!([{ "tokens": 100_000, "every_ms": 5 }]);
    let start = |origin: &Origin| origin.start(&script).header("idempotency-key", "0123456789abcdef");
    let id = id_of(&open(start(&a)).await);
    // With a stream of its own the drain lasts, and others can still be asked for.
    let own = open(b.start(&script)).await;
    let mut follower = b.follow(&id).await;
    follower.chunk().await.unwrap().unwrap();
    b.terminate();
    let broken_off = async {
        while follower.chunk().await?.is_some() {}
        Ok::<(), reqwest::Error>(())
    };
    let broken_off = tokio::time::timeout(Duration::from_secs(2), broken_off).await.expect("at once");
    assert!(broken_off.is_err(), "it looks cut, not complete");
    for refused in [b.follow(&id).await, start(&b).send().await.unwrap()] {
        assert_eq!(problem(refused).await, (503, "overloaded".into()));
    }
    // The drain's promises hold: what runs here can be resumed, and whatever runs can be stopped.
    assert_eq!(b.follow(&id_of(&own)).await.status(), 200);
    assert_eq!(b.stop(&id).await, 204);
    assert_eq!(terminal(&events(a.follow(&id).await).await).1["finish"], "stopped");
    assert_eq!(b.follow(&id).await.status(), 200, "what has ended needs no other origin");
    assert_eq!(b.stop(&id_of(&own)).await, 204);
    tokio::time::timeout(Duration::from_secs(5), b.ended()).await.expect("the drain ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_18_a_known_key_attaches_to_what_runs_here_during_a_drain() {
    let server = RedisServer::start();
    let (mut a, _b) = spawn_two(&server).await;
    let script = json!([{ "tokens": 100_000, "every_ms": 5 }]);
    let start = || a.start(&script).header("idempotency-key", "0123456789abcdef");
    let id = id_of(&open(start()).await);
    a.terminate();
    until_draining(&a).await;
    let start = || a.start(&script).header("idempotency-key", "0123456789abcdef");
    assert_eq!(id_of(&open(start()).await), id);
    let other = a.start(&script).header("idempotency-key", "fedcba9876543210").send().await.unwrap();
    assert_eq!(problem(other).await, (503, "overloaded".into()));
    assert_eq!(a.stop(&id).await, 204);
    tokio::time::timeout(Duration::from_secs(5), a.ended()).await.expect("the drain ends");
}

/// Waits until the origin refuses new streams.
async fn until_draining(origin: &Origin) {
    let is_draining = async || {
        let health: Value = origin.request(Method::GET, "/healthz").send().await.unwrap().json().await.unwrap();
        health["status"] == "draining"
    };
    until("draining", is_draining).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_replay_a_stream_at_once_have_redis_send_it_once() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    let started = open(a.start(&json!([{ "repeat": "a", "times": 5000 }, "b"]))).await;
    let id = id_of(&started);
    let whole = events(started).await;
    let before = calls(&server, &["xrange"]);
    let replays = join_all((0..64).map(|_| async { events(b.follow(&id).await).await })).await;
    assert!(replays.iter().all(|replay| *replay == whole));
    assert_eq!(events(b.follow(&id).await).await, whole);
    assert_eq!(calls(&server, &["xrange"]), before + 1);
}

/// A proxy: what connects later is led to the other server.
async fn failing_over(servers: &[&RedisServer; 2]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let (current, ports) = (Arc::new(AtomicUsize::new(0)), servers.map(RedisServer::port));
    let chosen = current.clone();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let port = ports[chosen.load(Ordering::SeqCst)];
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (address, current)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_33_a_master_that_became_a_replica_costs_one_start_at_most() {
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let (address, current) = failing_over(&[&old, &new]).await;
    let origin = spawn_origin(&["--journal", &address]).await;
    assert_eq!(text(&events(open(origin.start(&json!(["a"]))).await).await), "a");
    // While nothing runs; its connections stay.
    current.store(1, Ordering::SeqCst);
    old.send(&[&format!("REPLICAOF 127.0.0.1 {}", new.port())]);
    let first = origin.start(&json!(["b"])).send().await.unwrap().status();
    assert!(first == 200 || first == 503, "{first}");
    for _ in 0..3 {
        assert_eq!(text(&events(open(origin.start(&json!(["c"]))).await).await), "c");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_33_no_start_is_lost_because_redis_has_closed_an_idle_connection() {
    let server = RedisServer::start();
    let (a, b) = spawn_two(&server).await;
    for round in 0..5 {
        // What a server with `timeout` does to connections that nobody has used for a while.
        server.send(&["CLIENT KILL TYPE normal SKIPME yes"]);
        let start = a.start(&json!(["a", "b"])).header("idempotency-key", format!("0123456789-{round:06}"));
        let started = open(start).await;
        let id = id_of(&started);
        assert_eq!(text(&events(started).await), "ab");
        server.send(&["CLIENT KILL TYPE normal SKIPME yes"]);
        assert_eq!(text(&events(b.follow(&id).await).await), "ab");
    }
    assert_eq!(a.count("started").await, 5);
}
