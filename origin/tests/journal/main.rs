//! What journals promise.
//!
//! # Layout
//! - `each`: every journal.
//! - `origins`: a journal that several origins share; one of them dies.
//! - `redis_away`: Redis hangs, dies, refuses or is full.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use headwater_origin::{
    config::limits::{Limits, Pace},
    generation::{Attached, Hub, Reader, Start, hub::new_id},
    journal::{Claimed, Idempotency, Journal, MemoryJournal, Opened, RedisJournal, Writer},
    model::fallback::Fallback,
    stream::{Event, Opening, Read, Stream},
};
use headwater_origin_testing::{RedisServer, Scripted, until};
use headwater_protocol::{Cursor, Kind, Problem, StreamId};
use tokio::time::{sleep, timeout};

mod each;
mod origins;
mod redis_away;

/// So that nobody has to wait for the 15 s of a real one.
const LEASE: Duration = Duration::from_millis(1_500);
const RETENTION: Duration = Duration::from_secs(600);
const REPLAY_BYTES: usize = 1 << 20;
/// Longer than anything takes here that comes to an end at all.
const LONG: Duration = Duration::from_secs(20);

/// Runs the test with each journal.
async fn each_journal(test: impl AsyncFn(Arc<dyn Journal>)) {
    test(Arc::new(MemoryJournal::new(RETENTION, 1 << 20))).await;
    let server = RedisServer::start();
    test(origin(&server).await).await;
}

const LINGER: Duration = Duration::from_millis(500);

/// A journal that is run, as an origin does.
async fn origin(server: &RedisServer) -> Arc<dyn Journal> {
    run(connect(server, LEASE).await)
}

/// A journal that isn't run: to the others its origin is dead, or hangs, when its lease has lapsed. Until then they may
/// take their time.
async fn dead_origin(server: &RedisServer) -> Arc<dyn Journal> {
    connect(server, LEASE * 2).await
}

async fn connect(server: &RedisServer, lease: Duration) -> Arc<dyn Journal> {
    Arc::new(RedisJournal::connect(&server.address().parse().unwrap(), RETENTION, lease, REPLAY_BYTES).await.unwrap())
}

fn run(journal: Arc<dyn Journal>) -> Arc<dyn Journal> {
    let runs = journal.clone();
    tokio::spawn(async move { runs.run().await });
    journal
}

async fn new(journal: &dyn Journal, claim: Option<Idempotency>) -> (Arc<Stream>, Box<dyn Writer>) {
    let opened = async {
        loop {
            // Where Redis has only just come back the first try may find the old connection.
            match journal.open(id(), Opening::default(), claim.clone()).await {
                Ok(Opened::New(stream, writer)) => return (stream, writer),
                Ok(_) => panic!("the claim is new"),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(LONG, opened).await.expect("a stream is opened")
}

/// The stream that an earlier start with this key has opened.
async fn attached(journal: &dyn Journal, claim: &Idempotency) -> Arc<Stream> {
    match journal.lookup(claim).await.unwrap() {
        Some(Claimed::Stream(stream)) => stream,
        _ => panic!("the key has a stream that is kept"),
    }
}

/// Waits until a start with this key opens a stream.
async fn until_free(journal: &dyn Journal, claim: &Idempotency) {
    let opens =
        async || matches!(journal.open(id(), Opening::default(), Some(claim.clone())).await, Ok(Opened::New(..)));
    until("a key is free", opens).await;
}

fn id() -> StreamId {
    new_id(&"a".parse().unwrap())
}

/// A key, sent with this.
fn claim(key: usize, sent: u8) -> Idempotency {
    Idempotency { key: format!("a-key-of-the-tests-{key}").parse().unwrap(), fingerprint: [sent; 32] }
}

fn chunk(text: &str) -> Event {
    Event::Chunk(text.to_owned())
}

fn failed() -> Event {
    Event::Failed(Problem::abandoned())
}

/// All frames of a stream, when it has ended.
async fn bytes(stream: &Stream) -> Vec<u8> {
    timeout(LONG, stream.buffer.ended()).await.expect("it ends");
    match stream.buffer.read(0, usize::MAX, false) {
        Read::Frames { bytes, terminal: true, .. } => bytes.to_vec(),
        other => panic!("the whole stream, not {other:?}"),
    }
}

/// A stream's chunks, and `!` for its failure.
async fn text(stream: &Stream) -> String {
    let bytes = String::from_utf8(bytes(stream).await).unwrap();
    let chunk = |data: &str| {
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        data["chunk"].as_str().unwrap_or("!").to_owned()
    };
    let data = bytes.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(chunk).collect::<Vec<_>>().join("|")
}

fn kind(stream: &Stream) -> Kind {
    stream.buffer.terminal().expect("it has ended").failed.expect("as failed").kind()
}

fn hub(journal: Arc<dyn Journal>) -> Hub {
    let limits = Limits {
        start_window: Duration::from_secs(2),
        idle_timeout: LONG,
        total_timeout: None,
        linger: LINGER,
        stream_bytes: 1 << 20,
        generations: 8,
        queue: 8,
        pace: Pace { write_interval: Duration::ZERO, heartbeat: Some(Duration::from_secs(10)) },
    };
    let models = Fallback::new(vec![Arc::new(Scripted)], LONG);
    Hub::new("a".parse().unwrap(), models, journal, limits)
}

/// Starts an endless stream.
async fn start(hub: &Hub) -> Reader {
    hub.start(Start::prompt(r#"[{"tokens": 1000000, "every_ms": 10}]"#)).await.unwrap()
}

/// Attaches a reader, and reads a little.
async fn attach(hub: &Hub, id: &StreamId) -> impl Sized + use<> {
    let attached = hub.attach(&Cursor { id: id.clone(), next: 0 }, None).await.unwrap();
    let Attached::Reader(reader) = attached else { panic!("it runs") };
    let mut body = Box::pin(reader.into_body());
    timeout(LONG, body.next()).await.unwrap().unwrap().unwrap();
    body
}

async fn until_idle(hub: &Hub) {
    let idle = async {
        while hub.status().running > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, idle).await.expect("the generation ends");
}
