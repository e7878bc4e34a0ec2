//! What a shared journal promises when several origins use it, and when one of them dies.

use super::*;

#[tokio::test]
async fn what_one_origin_writes_the_other_reads_byte_for_byte() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (stream, mut writer) = new(&*a, None).await;
    let early = b.find(stream.id()).await.unwrap().unwrap();
    for word in 0..50 {
        writer.append(&[chunk(&format!("{word}\n")), chunk("\u{1f426}")]).await.unwrap();
    }
    let late = origin(&server).await.find(stream.id()).await.unwrap().unwrap();
    writer.append(&[failed()]).await.unwrap();
    let after = origin(&server).await.find(stream.id()).await.unwrap().unwrap();
    let all = bytes(&stream).await;
    for other in [early, late, after] {
        assert_eq!(bytes(&other).await, all);
        assert_eq!(other.buffer.terminal(), stream.buffer.terminal());
    }
}

#[tokio::test]
async fn fault_10_the_same_key_at_two_origins_at_once_is_one_stream() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    for round in 0..20 {
        let (first, second) = tokio::join!(
            a.open(id(), Opening::default(), Some(claim(round, 0))),
            b.open(id(), Opening::default(), Some(claim(round, 0)))
        );
        let (stream, mut writer, other) = match (first.unwrap(), second.unwrap()) {
            (Opened::New(stream, writer), Opened::Taken) => (stream, writer, attached(&*b, &claim(round, 0)).await),
            (Opened::Taken, Opened::New(stream, writer)) => (stream, writer, attached(&*a, &claim(round, 0)).await),
            _ => panic!("one is new, the other the same"),
        };
        writer.append(&[failed()]).await.unwrap();
        assert_eq!(bytes(&other).await, bytes(&stream).await);
        // Each of them can free it.
        if round % 2 == 0 { &a } else { &b }.discard(stream.id(), Some(&claim(round, 0).key)).await.unwrap();
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
    b.stop(reader.stream().id(), None).await.unwrap();
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
    let end = b.attach(&Cursor { id, next: 0 }, None).await.unwrap();
    let Attached::Reader(end) = end else { panic!("there are events to read") };
    assert_eq!(kind(end.stream()), Kind::Abandoned);
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
    let third = origin(&server).await;
    let last = ids.last().unwrap();
    server.send(&[&format!("PEXPIRE headwater:events:{last} 2000")]);
    assert!(third.find(last).await.unwrap().is_some());
    server.send(&[&format!("DEL headwater:events:{last}")]);
    assert!(third.find(last).await.unwrap().is_some(), "it is at hand");
    // When Redis would have dropped it.
    until("gone", async || third.find(last).await.unwrap().is_none()).await;
}

#[tokio::test]
async fn fault_17_a_stream_whose_origin_is_dead_ends_as_interrupted() {
    let server = RedisServer::start();
    let (dead, alive) = (dead_origin(&server).await, origin(&server).await);
    for events in [&[][..], &[chunk("a"), chunk("b")]] {
        let (stream, mut writer) = new(&*dead, Some(claim(events.len(), 0))).await;
        if !events.is_empty() {
            writer.append(events).await.unwrap();
        }
        let followed = alive.find(stream.id()).await.unwrap().unwrap();
        assert_eq!(
            (followed.buffer.len(), followed.buffer.terminal()),
            (events.len() as u64, None),
            "it may still live"
        );
        timeout(LONG, followed.buffer.ended()).await.unwrap();
        assert_eq!(kind(&followed), Kind::Interrupted);
        // A start with its key is told the same, and doesn't wait for it.
        let third = origin(&server).await;
        let again = attached(&*third, &claim(events.len(), 0)).await;
        assert_eq!(bytes(&again).await, bytes(&followed).await);
        // Nor does the dead one, should it come back.
        assert!(writer.append(&[chunk("c")]).await.is_err(), "it is fenced");
        assert_eq!(bytes(&stream).await, bytes(&followed).await, "all saw the same end");
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
