//! What a shared journal promises when Redis hangs, dies, refuses or is full.

use super::*;

#[tokio::test]
async fn fault_redis_hangs_for_a_moment_and_nothing_is_lost() {
    let server = RedisServer::start();
    let patient = LEASE * 4;
    let (a, b) = (run(connect(&server, patient).await), run(connect(&server, patient).await));
    let (stream, mut writer) = new(&*a, None).await;
    let followed = b.find(stream.id()).await.unwrap().unwrap();
    server.pause();
    let appended = tokio::spawn(async move {
        writer.append(&[chunk("a")]).await?;
        writer.append(&[chunk("b"), failed()]).await
    });
    // Longer than an answer may take: the first attempt counts as failed, and did arrive.
    sleep(Duration::from_millis(1_200)).await;
    assert!(stream.buffer.is_empty(), "nobody reads what Redis doesn't hold");
    server.unpause();
    appended.await.unwrap().unwrap();
    assert_eq!(text(&stream).await, "a|b|!");
    assert_eq!(bytes(&followed).await, bytes(&stream).await);
}

#[tokio::test]
async fn fault_redis_stays_away_and_streams_end_as_failed_and_starts_are_refused_at_once() {
    for hang in [true, false] {
        let mut server = RedisServer::start();
        let (a, b) = (origin(&server).await, origin(&server).await);
        let (stream, mut writer) = new(&*a, None).await;
        writer.append(&[chunk("a")]).await.unwrap();
        let followed = b.find(stream.id()).await.unwrap().unwrap();
        if hang {
            server.pause();
        } else {
            server.kill();
        }
        let asked = Instant::now();
        assert!(a.open(id(), Opening::default(), None).await.is_err());
        assert!(b.find(&id()).await.is_err());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(writer.append(&[chunk("b")]).await.is_err());
        for stream in [stream, followed] {
            assert_eq!(text(&stream).await, "a|!");
            assert_eq!(kind(&stream), Kind::Journal);
        }
    }
}

#[tokio::test]
async fn fault_redis_restarted_empty_ends_running_streams_and_takes_new_ones() {
    let mut server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (stream, mut writer) = new(&*a, Some(claim(0, 1))).await;
    writer.append(&[chunk("a")]).await.unwrap();
    let followed = b.find(stream.id()).await.unwrap().unwrap();
    server.kill();
    server.restart();
    assert!(writer.append(&[chunk("b")]).await.is_err());
    for stream in [stream, followed] {
        assert_eq!(text(&stream).await, "a|!");
        assert_eq!(kind(&stream), Kind::Journal);
    }
    let (stream, mut writer) = new(&*a, Some(claim(0, 1))).await;
    let followed = b.find(stream.id()).await.unwrap().unwrap();
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
        assert!(journal.open(id(), Opening::default(), None).await.is_err());
    }
    server.send(&["CONFIG SET requirepass secret"]);
    let (stream, mut writer) = new(&*journal, None).await;
    writer.append(&[chunk("a"), failed()]).await.unwrap();
    assert_eq!(text(&stream).await, "a|!");
}

#[tokio::test]
async fn fault_redis_is_full_and_a_stream_fails_for_its_readers_at_all_origins() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let (stream, mut writer) = new(&*a, None).await;
    writer.append(&[chunk("a")]).await.unwrap();
    let followed = b.find(stream.id()).await.unwrap().unwrap();
    server.send(&["CONFIG SET maxmemory 1"]);
    assert!(writer.append(&[chunk("b")]).await.is_err());
    for stream in [stream, followed] {
        assert_eq!(text(&stream).await, "a|!");
        assert_eq!(kind(&stream), Kind::Journal);
    }
}

#[tokio::test]
async fn a_start_that_redis_answered_too_late_frees_its_key() {
    let server = RedisServer::start();
    let journal = origin(&server).await;
    // From now on Redis knows the script: it is carried out even where nobody waits for its answer any more.
    let _running = new(&*journal, None).await;
    server.pause();
    assert!(journal.open(id(), Opening::default(), Some(claim(0, 1))).await.is_err());
    server.unpause();
    // For another start too, long before it expires.
    until_free(&*journal, &claim(0, 2)).await;
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_blocks_its_key_no_longer_than_redis_is_away() {
    let server = RedisServer::start();
    let (a, b) = (origin(&server).await, origin(&server).await);
    let _running = new(&*a, None).await;
    for round in 0..2 {
        server.pause();
        // Each of them may be the one that takes the key.
        let starts = join_all((0..3).map(|_| a.open(id(), Opening::default(), Some(claim(round, 1))))).await;
        assert!(starts.iter().all(Result::is_err));
        // Redis has the command, and is still away when the origin would take it back.
        sleep(Duration::from_millis(2_500)).await;
        server.unpause();
        if round == 0 {
            let again = a.open(id(), Opening::default(), Some(claim(round, 1))).await.unwrap();
            assert!(matches!(again, Opened::New(..)), "its repetition opens a stream, at once");
        } else {
            // From time to time the first origin frees it for all.
            until_free(&*b, &claim(round, 1)).await;
        }
    }
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
