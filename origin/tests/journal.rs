//! What every journal promises; and what the one in Redis promises when several origins share it, when one of them
//! dies, and when Redis does.

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
    stream::{Event, Framing, Read, Stream},
    telemetry::record::Asked,
};
use headwater_origin_testing::{RedisServer, Scripted};
use headwater_protocol::{Cursor, Kind, Problem, StreamId};
use tokio::time::{sleep, timeout};

/// So that nobody has to wait for the 15 s of a real one.
const LEASE: Duration = Duration::from_millis(1_500);
const RETENTION: Duration = Duration::from_secs(600);
const REPLAY_BYTES: usize = 1 << 20;
/// Longer than anything takes here that comes to an end at all.
const LONG: Duration = Duration::from_secs(20);

// All journals.

async fn each_journal(test: impl AsyncFn(Arc<dyn Journal>)) {
    test(Arc::new(MemoryJournal::new(RETENTION, 1 << 20))).await;
    let server = RedisServer::start();
    test(origin(&server).await).await;
}

#[tokio::test]
async fn what_is_appended_is_read_in_order_and_nothing_behind_the_end() {
    each_journal(async |journal| {
        let (log, mut writer) = new(&*journal, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        writer.append(&[chunk("b\n\nevent: done"), chunk("c")]).await.unwrap();
        assert_eq!(log.buffer.len(), 3);
        writer.append(&[chunk("d"), failed(), chunk("e")]).await.unwrap();
        let _ = writer.append(&[chunk("f")]).await;
        let found = journal.find(log.id()).await.unwrap().unwrap();
        assert_eq!(found.buffer.len(), 5);
        assert_eq!(text(&found).await, "a|b\n\nevent: done|c|d|!");
        assert_eq!(found.buffer.terminal().unwrap().failed, Some(Problem::abandoned()));
    })
    .await;
}

#[tokio::test]
async fn fault_10_of_starts_with_one_key_at_once_one_opens_a_stream() {
    each_journal(async |journal| {
        let opened = join_all((0..10).map(|_| journal.open(id(), Some(claim(0, 1))))).await;
        let (mut new, mut existing) = (Vec::new(), Vec::new());
        for opened in opened {
            match opened.unwrap() {
                Opened::New(log, writer) => new.push((log, writer)),
                Opened::Claimed(Claimed::Stream(log)) => existing.push(log),
                _ => panic!("the key is neither another's nor expired"),
            }
        }
        let [(log, writer)] = &mut new[..] else { panic!("one is new, not {}", new.len()) };
        writer.append(&[chunk("a"), failed()]).await.unwrap();
        assert_eq!(existing.len(), 9);
        for other in existing {
            assert_eq!(other.id(), log.id());
            assert_eq!(text(&other).await, "a|!");
        }
    })
    .await;
}

#[tokio::test]
async fn a_key_belongs_to_what_it_was_first_sent_with_until_it_is_freed() {
    each_journal(async |journal| {
        let (log, mut writer) = new(&*journal, Some(claim(0, 1))).await;
        assert!(matches!(journal.open(id(), Some(claim(0, 2))).await.unwrap(), Opened::Claimed(Claimed::ByAnother)));
        writer.append(&[failed()]).await.unwrap();
        let Opened::Claimed(Claimed::Stream(again)) = journal.open(id(), Some(claim(0, 1))).await.unwrap() else {
            panic!("it is kept")
        };
        assert_eq!(again.id(), log.id());
        journal.discard(log.id(), Some(&claim(0, 1).key)).await.unwrap();
        let (other, _writer) = new(&*journal, Some(claim(0, 2))).await;
        // Not the stream's any more: it stays with the other.
        journal.discard(log.id(), Some(&claim(0, 1).key)).await.unwrap();
        let Opened::Claimed(Claimed::Stream(kept)) = journal.open(id(), Some(claim(0, 2))).await.unwrap() else {
            panic!("it is kept")
        };
        assert_eq!(kept.id(), other.id());
    })
    .await;
}

#[tokio::test]
async fn a_stream_whose_writer_is_dropped_ends_as_failed() {
    each_journal(async |journal| {
        let (log, mut writer) = new(&*journal, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        drop(writer);
        assert_eq!(text(&log).await, "a|!");
        assert_eq!(kind(&log), Kind::Internal);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_stream_is_not_found() {
    each_journal(async |journal| assert!(journal.find(&id()).await.unwrap().is_none())).await;
}

// Several origins.

#[tokio::test]
async fn what_one_origin_writes_the_other_reads_byte_for_byte() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (log, mut writer) = new(&*a, None).await;
    let early = b.find(log.id()).await.unwrap().unwrap();
    for word in 0..50 {
        writer.append(&[chunk(&format!("{word}\n")), chunk("\u{1f426}")]).await.unwrap();
    }
    let late = origin(&server).await.find(log.id()).await.unwrap().unwrap();
    writer.append(&[failed()]).await.unwrap();
    let after = origin(&server).await.find(log.id()).await.unwrap().unwrap();
    let all = bytes(&log).await;
    for other in [early, late, after] {
        assert_eq!(bytes(&other).await, all);
        assert_eq!(other.buffer.terminal(), log.buffer.terminal());
    }
}

#[tokio::test]
async fn fault_10_the_same_key_at_two_origins_at_once_is_one_stream() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    for round in 0..20 {
        let (first, second) = tokio::join!(a.open(id(), Some(claim(round, 0))), b.open(id(), Some(claim(round, 0))));
        let (log, mut writer, other) = match (first.unwrap(), second.unwrap()) {
            (Opened::New(log, writer), Opened::Claimed(Claimed::Stream(other)))
            | (Opened::Claimed(Claimed::Stream(other)), Opened::New(log, writer)) => (log, writer, other),
            _ => panic!("one is new, the other the same"),
        };
        writer.append(&[failed()]).await.unwrap();
        assert_eq!(bytes(&other).await, bytes(&log).await);
        // Each of them can free it.
        if round % 2 == 0 { &a } else { &b }.discard(log.id(), Some(&claim(round, 0).key)).await.unwrap();
        let (_, mut writer) = new(&*a, Some(claim(round, 0))).await;
        writer.append(&[failed()]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_at_the_other_origin_ends_the_generation() {
    let server = RedisServer::start();
    let (a, b) = (hub(origin(&server).await), hub(origin(&server).await));
    let reader = start(&a).await;
    let asked = Instant::now();
    b.stop(reader.stream().id()).await.unwrap();
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    until_idle(&a).await;
    assert!(reader.stream().buffer.terminal().unwrap().failed.is_none(), "stopped is a good end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_12_the_linger_begins_when_nobody_reads_at_any_origin() {
    let server = RedisServer::start();
    // What is said about readers holds for two thirds of a lease, and is said anew five times in one: there is time to
    // be late.
    let lease = LEASE * 2;
    let (a, b) = (hub(run(connect(&server, lease).await)), hub(run(connect(&server, lease).await)));
    let reader = start(&a).await;
    let id = reader.stream().id().clone();
    let elsewhere = attach(&b, &id).await;
    drop(reader);
    sleep(LINGER * 3 + lease).await;
    assert_eq!(a.status().running, 1, "it is read at the other origin");
    drop(elsewhere);
    let left = Instant::now();
    until_idle(&a).await;
    assert!(left.elapsed() > LINGER / 2, "it lingers");
    let end = b.attach(&Cursor { id, next: 0 }).await.unwrap();
    let Attached::Reader(end) = end else { panic!("there are events to read") };
    assert_eq!(kind(end.stream()), Kind::Abandoned);
}

// An origin dies.

#[tokio::test]
async fn fault_17_a_stream_whose_origin_is_dead_ends_as_interrupted() {
    let server = RedisServer::start();
    let (dead, alive) = (dead_origin(&server).await, origin(&server).await);
    for events in [&[][..], &[chunk("a"), chunk("b")]] {
        let (log, mut writer) = new(&*dead, Some(claim(events.len(), 0))).await;
        if !events.is_empty() {
            writer.append(events).await.unwrap();
        }
        let followed = alive.find(log.id()).await.unwrap().unwrap();
        assert_eq!(
            (followed.buffer.len(), followed.buffer.terminal()),
            (events.len() as u64, None),
            "it may still live"
        );
        timeout(LONG, followed.buffer.ended()).await.unwrap();
        assert_eq!(kind(&followed), Kind::Interrupted);
        // A start with its key is told the same, and doesn't wait for it.
        let third = origin(&server).await;
        let again = third.open(id(), Some(claim(events.len(), 0))).await.unwrap();
        let Opened::Claimed(Claimed::Stream(again)) = again else { panic!("the key is taken") };
        assert_eq!(bytes(&again).await, bytes(&followed).await);
        // Nor does the dead one, should it come back.
        assert!(writer.append(&[chunk("c")]).await.is_err(), "it is fenced");
        assert_eq!(bytes(&log).await, bytes(&followed).await, "all saw the same end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_17_a_fenced_origin_stops_generating() {
    let server = RedisServer::start();
    let (dead, alive) = (dead_origin(&server).await, origin(&server).await);
    let hub = hub(dead);
    let reader = start(&hub).await;
    let followed = alive.find(reader.stream().id()).await.unwrap().unwrap();
    timeout(LONG, followed.buffer.ended()).await.unwrap();
    until_idle(&hub).await;
    assert_eq!(kind(reader.stream()), Kind::Interrupted);
    assert_eq!(bytes(reader.stream()).await, bytes(&followed).await);
}

// Redis dies.

#[tokio::test]
async fn fault_redis_hangs_for_a_moment_and_nothing_is_lost() {
    let server = RedisServer::start();
    let patient = LEASE * 4;
    let (a, b) = (run(connect(&server, patient).await), run(connect(&server, patient).await));
    let (log, mut writer) = new(&*a, None).await;
    let followed = b.find(log.id()).await.unwrap().unwrap();
    server.pause();
    let appended = tokio::spawn(async move {
        writer.append(&[chunk("a")]).await?;
        writer.append(&[chunk("b"), failed()]).await
    });
    // Longer than an answer may take: the first attempt counts as failed, and did arrive.
    sleep(Duration::from_millis(1_200)).await;
    assert!(log.buffer.is_empty(), "nobody reads what Redis doesn't hold");
    server.unpause();
    appended.await.unwrap().unwrap();
    assert_eq!(text(&log).await, "a|b|!");
    assert_eq!(bytes(&followed).await, bytes(&log).await);
}

#[tokio::test]
async fn fault_redis_stays_away_and_streams_end_as_failed_and_starts_are_refused_at_once() {
    for hang in [true, false] {
        let mut server = RedisServer::start();
        let (a, b) = (origin(&server).await, origin(&server).await);
        let (log, mut writer) = new(&*a, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        let followed = b.find(log.id()).await.unwrap().unwrap();
        if hang {
            server.pause();
        } else {
            server.kill();
        }
        let asked = Instant::now();
        assert!(a.open(id(), None).await.is_err());
        assert!(b.find(&id()).await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(writer.append(&[chunk("b")]).await.is_err());
        for log in [log, followed] {
            assert_eq!(text(&log).await, "a|!");
            assert_eq!(kind(&log), Kind::Journal);
        }
    }
}

#[tokio::test]
async fn fault_redis_restarted_empty_ends_running_streams_and_takes_new_ones() {
    let mut server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (log, mut writer) = new(&*a, Some(claim(0, 1))).await;
    writer.append(&[chunk("a")]).await.unwrap();
    let followed = b.find(log.id()).await.unwrap().unwrap();
    server.kill();
    server.restart();
    assert!(writer.append(&[chunk("b")]).await.is_err());
    for log in [log, followed] {
        assert_eq!(text(&log).await, "a|!");
        assert_eq!(kind(&log), Kind::Journal);
    }
    let (log, mut writer) = new(&*a, Some(claim(0, 1))).await;
    let followed = b.find(log.id()).await.unwrap().unwrap();
    writer.append(&[chunk("c"), failed()]).await.unwrap();
    assert_eq!(text(&followed).await, "c|!");
}

#[tokio::test]
async fn fault_redis_refuses_the_password_for_a_moment_and_is_used_again_after_it() {
    let server = RedisServer::start();
    server.send(&["CONFIG SET requirepass secret"]);
    let address = server.address().replace("redis://", "redis://:secret@").parse().unwrap();
    let journal = run(Arc::new(RedisJournal::connect(&address, RETENTION, LEASE, REPLAY_BYTES).await.unwrap()));
    server.send(&["AUTH secret", "CONFIG SET requirepass \"\"", "CLIENT KILL TYPE normal"]);
    for _ in 0..3 {
        assert!(journal.open(id(), None).await.is_err());
    }
    server.send(&["CONFIG SET requirepass secret"]);
    let (log, mut writer) = new(&*journal, None).await;
    writer.append(&[chunk("a"), failed()]).await.unwrap();
    assert_eq!(text(&log).await, "a|!");
}

#[tokio::test]
async fn fault_redis_is_full_and_a_stream_fails_for_its_readers_at_all_origins() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (log, mut writer) = new(&*a, None).await;
    writer.append(&[chunk("a")]).await.unwrap();
    let followed = b.find(log.id()).await.unwrap().unwrap();
    server.send(&["CONFIG SET maxmemory 1"]);
    assert!(writer.append(&[chunk("b")]).await.is_err());
    for log in [log, followed] {
        assert_eq!(text(&log).await, "a|!");
        assert_eq!(kind(&log), Kind::Journal);
    }
}

#[tokio::test]
async fn a_start_that_redis_answered_too_late_frees_its_key() {
    let server = RedisServer::start();
    let journal = origin(&server).await;
    // From now on Redis knows the script: it is carried out even where nobody waits for its answer any more.
    let _running = new(&*journal, None).await;
    server.pause();
    assert!(journal.open(id(), Some(claim(0, 1))).await.is_err());
    server.unpause();
    let freed = async {
        while !matches!(journal.open(id(), Some(claim(0, 2))).await, Ok(Opened::New(..))) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, freed).await.expect("the key is free, for another start too, long before it expires");
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_blocks_its_key_no_longer_than_redis_is_away() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let _running = new(&*a, None).await;
    for round in 0..2 {
        server.pause();
        assert!(a.open(id(), Some(claim(round, 1))).await.is_err());
        // Redis has the command, and is still away when the origin would take it back.
        sleep(Duration::from_millis(2_500)).await;
        server.unpause();
        if round == 0 {
            let again = a.open(id(), Some(claim(round, 1))).await.unwrap();
            assert!(matches!(again, Opened::New(..)), "its repetition opens a stream, at once");
        } else {
            let freed = async {
                while !matches!(b.open(id(), Some(claim(round, 1))).await, Ok(Opened::New(..))) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(LONG, freed).await.expect("the lease task frees the key for other origins");
        }
    }
}

#[tokio::test]
async fn replays_at_hand_are_bounded_and_go_when_redis_drops_them() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let mut ids = Vec::new();
    for _ in 0..8 {
        let (stream, mut writer) = new(&*a, None).await;
        writer.append(&[chunk(&"a".repeat(REPLAY_BYTES / 4)), failed()]).await.unwrap();
        ids.push(stream.id().clone());
    }
    for id in &ids {
        assert!(b.find(id).await.unwrap().is_some());
    }
    assert!((1..=REPLAY_BYTES).contains(&b.bytes()), "{}", b.bytes());
    let last = ids.last().unwrap();
    server.send(&[&format!("PEXPIRE headwater:events:{last} 300")]);
    // Not loaded anew: what it says of the time is known from the first load.
    assert!(b.find(last).await.unwrap().is_some());
    let third = origin(&server).await;
    assert!(third.find(last).await.unwrap().is_some());
    let gone = async {
        while third.find(last).await.unwrap().is_some() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, gone).await.expect("it is kept as long as Redis keeps it");
}

#[tokio::test]
async fn fault_18_a_drain_comes_to_its_end_without_redis() {
    let server = RedisServer::start();
    // It would wait for Redis for ever.
    let hub = hub(run(connect(&server, LONG * 10).await));
    let _reader = start(&hub).await;
    server.pause();
    let now = Instant::now().into();
    timeout(LONG, hub.drain(now, now)).await.expect("it ends");
}

#[tokio::test]
async fn without_redis_there_is_no_journal_and_it_says_so_soon() {
    let mut server = RedisServer::start();
    server.kill();
    let asked = Instant::now();
    let address = server.address().parse().unwrap();
    assert!(RedisJournal::connect(&address, RETENTION, LEASE, REPLAY_BYTES).await.is_err());
    assert!(asked.elapsed() < Duration::from_secs(5));
}

// What they are made of.

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
            match journal.open(id(), claim.clone()).await {
                Ok(Opened::New(log, writer)) => return (log, writer),
                Ok(_) => panic!("the claim is new"),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(LONG, opened).await.expect("a stream is opened")
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
async fn bytes(log: &Stream) -> Vec<u8> {
    timeout(LONG, log.buffer.ended()).await.expect("it ends");
    match log.buffer.read(0, usize::MAX, false) {
        Read::Frames { bytes, terminal: true, .. } => bytes.to_vec(),
        other => panic!("the whole stream, not {other:?}"),
    }
}

/// A stream's chunks, and `!` for its failure.
async fn text(log: &Stream) -> String {
    let bytes = String::from_utf8(bytes(log).await).unwrap();
    let chunk = |data: &str| {
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        data["chunk"].as_str().unwrap_or("!").to_owned()
    };
    let data = bytes.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(chunk).collect::<Vec<_>>().join("|")
}

fn kind(log: &Stream) -> Kind {
    log.buffer.terminal().expect("it has ended").failed.expect("as failed").kind()
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
    let prompt = r#"[{"tokens": 1000000, "every_ms": 10}]"#.to_owned();
    let framing = Framing::Framed;
    let start = Start { prompt, idempotency: None, framing, asked: Asked::default() };
    hub.start(start).await.unwrap()
}

/// Attaches a reader, and reads a little.
async fn attach(hub: &Hub, id: &StreamId) -> impl Sized + use<> {
    let attached = hub.attach(&Cursor { id: id.clone(), next: 0 }).await.unwrap();
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
