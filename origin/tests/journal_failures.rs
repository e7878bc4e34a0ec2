//! FAULT 34: what an operator sees of a journal that fails. In a process of its own, because the log is the process's.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use headwater_origin_testing::{
    CapturedLog, Origin, RedisServer, events, id_of, open, problem, spawn_origin, terminal, until,
};
use reqwest::Method;
use serde_json::{Value, json};

/// The status and the document of `/healthz`.
async fn health(origin: &Origin) -> (u16, Value) {
    let answer = origin.request(Method::GET, "/healthz").send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_34_a_journal_that_fails_is_logged_once_counted_and_not_healthy() {
    let log = CapturedLog::install();
    let mut server = RedisServer::start();
    server.send(&["ACL SETUSER hw on >pw ~* &* +@all"]);
    let journal = server.address().replace("redis://", "redis://hw:pw@");
    let origin = spawn_origin(&["--journal", &journal]).await;
    assert_eq!(open(origin.start(&json!(["a"]))).await.status(), 200);
    assert_eq!(health(&origin).await.0, 200);

    // What a hosted server may do: it answers, but starts no script.
    server.send(&["ACL SETUSER hw -@scripting"]);
    for _ in 0..5 {
        assert_eq!(problem(origin.start(&json!(["a"])).send().await.unwrap()).await, (503, "journal".into()));
    }
    let failures = || log.lines().into_iter().filter(|line| line["message"] == "the journal failed");
    let [line] = &failures().collect::<Vec<_>>()[..] else { panic!("one line: {:?}", log.lines()) };
    assert_eq!((&line["level"], &line["operation"]), (&json!("ERROR"), &json!("open")));
    let cause = line["error"].as_str().unwrap();
    assert!(cause.starts_with("redis: ") && cause.contains("NoPerm") && !cause.contains("pw"), "{cause}");
    let metrics = origin.figures().await.text().await.unwrap();
    assert!(metrics.contains(r#"headwater_journal_failures_total{operation="open"} 5"#), "{metrics}");
    let (status, document) = health(&origin).await;
    assert_eq!((status, &document["status"]), (503, &json!("journal")));

    server.send(&["ACL SETUSER hw +@scripting"]);
    assert_eq!(open(origin.start(&json!(["a"]))).await.status(), 200);
    assert_eq!(health(&origin).await.0, 200);

    // One stream that no origin has written, or that Redis has lost, says nothing of the others.
    let unreadable = "a-0123456789ABCDEFGHIJkl";
    server.send(&[&format!("XADD headwater:events:{unreadable} 0-1 frames unreadable")]);
    assert_eq!(problem(origin.follow(unreadable).await).await, (503, "journal".into()));
    let lost = open(origin.start(&json!([{ "tokens": 1000, "every_ms": 5 }]))).await;
    server.send(&[&format!("DEL headwater:events:{}", id_of(&lost))]);
    assert_eq!(terminal(&events(lost).await).1["type"], "/problems/journal");
    let metrics = origin.figures().await.text().await.unwrap();
    for operation in ["find", "append"] {
        let count = format!(r#"headwater_journal_failures_total{{operation="{operation}"}} 1"#);
        assert!(metrics.contains(&count), "{metrics}");
    }
    assert_eq!(health(&origin).await.0, 200);

    // A key that can't be freed stays; the start is told what the model said all the same.
    server.send(&["ACL SETUSER hw -del"]);
    let refused = origin.start(&json!([{ "fail": "rate-limited" }])).header("idempotency-key", "0123456789abcdef");
    assert_eq!(problem(refused.send().await.unwrap()).await, (429, "rate-limited".into()));
    server.send(&["ACL SETUSER hw +del"]);
    assert_eq!(open(origin.start(&json!(["a"]))).await.status(), 200);

    // Without a start the lease task and the follower notice it.
    server.kill();
    let logged = |text: &str| log.lines().iter().any(|line| line["message"] == text);
    until("logged", async || logged("leases can't be renewed") && logged("streams of other origins can't be read"))
        .await;
    assert_eq!(health(&origin).await.0, 503);
    server.restart();
    server.send(&["ACL SETUSER hw on >pw ~* &* +@all"]);
    until("healthy", async || health(&origin).await.0 == 200).await;
    until("logged", async || logged("the shared journal answers again")).await;
    until("logged", async || logged("streams of other origins are read again")).await;
}
