use super::*;

/// Accepts connections, and serves each with `serve`, which gets its number from 1 on.
async fn serve<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> (SocketAddr, Count)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let accepted = Count::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, count.add()));
        }
    });
    (address, accepted)
}

/// Answers every request of a connection.
async fn answers(mut socket: TcpStream) {
    while request(&mut socket).await.is_some() {
        write(&mut socket, &answer("text")).await;
    }
}

#[tokio::test]
async fn a_request_goes_in_origin_form_and_names_the_host_and_the_client() {
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = serve(move |mut socket, _| {
        let seen = seen.clone();
        async move {
            seen.send(request(&mut socket).await.unwrap()).unwrap();
            write(&mut socket, &answer("text")).await;
        }
    })
    .await;
    let (connections, uri) = plain(address);
    assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "text");
    let said = requests.recv().await.unwrap().to_lowercase();
    assert!(said.starts_with("post /v1/chat http/1.1\r\n"), "{said}");
    for header in [format!("host: {address}"), "content-length: 8".into(), "authorization: bearer a".into()] {
        assert!(said.contains(&format!("\r\n{header}\r\n")), "{said}");
    }
    assert!(said.contains("\r\nuser-agent: headwater/") && !said.contains("accept-encoding"), "{said}");
}

#[tokio::test]
async fn a_connection_is_used_again_once_its_answer_was_read() {
    let (address, accepted) = serve(|socket, _| answers(socket)).await;
    let (connections, uri) = plain(address);
    for _ in 0..3 {
        assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "text");
    }
    assert_eq!(accepted.get(), 1);
    let both = futures::future::join(send(&connections, &uri), send(&connections, &uri)).await;
    assert!(both.0.is_ok() && both.1.is_ok());
    assert_eq!(accepted.get(), 2);
}

#[tokio::test]
async fn an_answer_is_read_as_it_comes() {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = Arc::new(tokio::sync::Mutex::new(Some(gone)));
    let (address, _) = serve(move |mut socket, _| {
        let gone = gone.clone();
        async move {
            request(&mut socket).await;
            write(&mut socket, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
            gone.lock().await.take().unwrap().await.unwrap();
            write(&mut socket, "3\r\ntwo\r\n0\r\n\r\n").await;
            answers(socket).await;
        }
    })
    .await;
    let (connections, uri) = plain(address);
    let mut response = send(&connections, &uri).await.unwrap();
    assert_eq!(response.body.chunk().await.unwrap().unwrap(), "one");
    // Nothing is lost with a wait that is given up.
    assert!(timeout(Duration::from_millis(20), response.body.chunk()).await.is_err());
    go.send(()).unwrap();
    assert_eq!(response.body.chunk().await.unwrap().unwrap(), "two");
    assert!(response.body.chunk().await.unwrap().is_none() && response.body.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn p26_a_request_that_a_kept_connection_lost_is_sent_once_more_on_a_new_one() {
    for (case, closes) in ["before it, with FIN", "after it, with FIN", "after it, with RST"].into_iter().enumerate() {
        let asked = Count::default();
        let counted = asked.clone();
        let (address, accepted) = serve(move |mut socket, number| {
            let counted = counted.clone();
            async move {
                request(&mut socket).await;
                counted.add();
                write(&mut socket, &answer("text")).await;
                if number > 2 {
                    return answers(socket).await;
                }
                // Two connections are kept, and both are closed.
                if case > 0 && request(&mut socket).await.is_some() {
                    counted.add();
                }
                if case == 2 { reset(socket) } else { drop(socket) }
            }
        })
        .await;
        let (connections, uri) = plain(address);
        let (first, second) = futures::future::join(send(&connections, &uri), send(&connections, &uri)).await;
        let (first, second) = (first.unwrap(), second.unwrap());
        futures::future::join(read(first), read(second)).await.0.unwrap();
        assert_eq!((accepted.get(), asked.get()), (2, 2), "{closes}");
        assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "text", "{closes}");
        assert_eq!((accepted.get(), asked.get()), (3, if case > 0 { 4 } else { 3 }), "{closes}");
    }
}

#[tokio::test]
async fn a_request_is_sent_twice_at_most() {
    let asked = Count::default();
    let counted = asked.clone();
    let (address, accepted) = serve(move |mut socket, number| {
        let counted = counted.clone();
        async move {
            while request(&mut socket).await.is_some() {
                if counted.add() > 1 {
                    break;
                }
                assert_eq!(number, 1);
                write(&mut socket, &answer("text")).await;
            }
        }
    })
    .await;
    let (connections, uri) = plain(address);
    read(send(&connections, &uri).await.unwrap()).await.unwrap();
    assert!(matches!(send(&connections, &uri).await, Err(Failure::Broke(_))));
    assert_eq!((accepted.get(), asked.get()), (2, 3));
}

#[tokio::test]
async fn a_request_is_not_repeated_where_the_connection_was_new_or_an_answer_had_begun() {
    for begun in ["", "HTTP/1.1 200 OK\r\ncontent-", "nonsense\r\n\r\n"] {
        let asked = Count::default();
        let counted = asked.clone();
        let (address, _) = serve(move |mut socket, _| {
            let counted = counted.clone();
            async move {
                if !begun.is_empty() {
                    request(&mut socket).await;
                    write(&mut socket, &answer("text")).await;
                }
                request(&mut socket).await;
                counted.add();
                write(&mut socket, begun).await;
            }
        })
        .await;
        let (connections, uri) = plain(address);
        if !begun.is_empty() {
            read(send(&connections, &uri).await.unwrap()).await.unwrap();
        }
        assert!(matches!(send(&connections, &uri).await, Err(Failure::Broke(_))), "{begun}");
        assert_eq!(asked.get(), 1, "{begun}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_short_broke() {
    let (address, _) = serve(|mut socket, _| async move {
        request(&mut socket).await;
        write(&mut socket, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\ntext").await;
    })
    .await;
    let (connections, uri) = plain(address);
    assert!(matches!(read(send(&connections, &uri).await.unwrap()).await, Err(Failure::Broke(_))));
}

#[tokio::test]
async fn endless_headers_end() {
    let (length, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = serve(move |mut socket, _| {
        let length = length.clone();
        async move {
            request(&mut socket).await;
            let mut written = 0;
            // In long lines: there is a limit for their number too.
            let line = format!("a: {}\r\n", "a".repeat(8000));
            write(&mut socket, "HTTP/1.1 200 OK\r\n").await;
            while socket.write_all(line.as_bytes()).await.is_ok() {
                written += line.len();
            }
            length.send(written).unwrap();
        }
    })
    .await;
    let (connections, uri) = plain(address);
    assert!(matches!(send(&connections, &uri).await, Err(Failure::Broke(_))));
    // Most of it stays in the sockets' buffers.
    assert!(told.recv().await.unwrap() < 16 * 1024 * 1024);
}

/// A server that answers the head and `body`, and tells when its client has left.
async fn unended(body: String) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let (left, leaving) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = serve(move |mut socket, _| {
        let (left, body) = (left.clone(), body.clone());
        async move {
            request(&mut socket).await;
            drop(
                socket.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n{body}").as_bytes()).await,
            );
            drop(socket.read(&mut [0]).await);
            left.send(()).unwrap();
        }
    })
    .await;
    (address, leaving)
}

#[tokio::test]
async fn a_dropped_answer_closes_its_connection() {
    let (address, mut left) = unended("text".into()).await;
    let (connections, uri) = plain(address);
    let mut response = send(&connections, &uri).await.unwrap();
    assert_eq!(response.body.chunk().await.unwrap().unwrap(), "text");
    assert!(timeout(Duration::from_millis(20), left.recv()).await.is_err());
    drop(response);
    timeout(LONG, left.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_request_closes_its_connection() {
    let (left, mut leaving) = tokio::sync::mpsc::unbounded_channel();
    let (address, _) = serve(move |mut socket, _| {
        let left = left.clone();
        async move {
            request(&mut socket).await;
            drop(socket.read(&mut [0]).await);
            left.send(()).unwrap();
        }
    })
    .await;
    let (connections, uri) = plain(address);
    assert!(timeout(Duration::from_millis(100), send(&connections, &uri)).await.is_err());
    timeout(LONG, leaving.recv()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_rest_of_an_answer_is_read_and_its_connection_used_again() {
    let (address, accepted) = serve(|mut socket, _| async move {
        while request(&mut socket).await.is_some() {
            write(&mut socket, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntext\r\n").await;
            tokio::time::sleep(Duration::from_millis(30)).await;
            write(&mut socket, "4\r\nrest\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let (connections, uri) = plain(address);
    for _ in 0..2 {
        let mut response = send(&connections, &uri).await.unwrap();
        assert_eq!(response.body.chunk().await.unwrap().unwrap(), "text");
        response.body.finish();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    assert_eq!(accepted.get(), 1);
}

#[tokio::test]
async fn a_rest_that_is_long_or_late_is_left() {
    let (address, mut left) = unended("text".repeat(100_000)).await;
    let (connections, uri) = plain(address);
    send(&connections, &uri).await.unwrap().body.finish();
    timeout(LONG, left.recv()).await.unwrap().unwrap();

    let (address, mut left) = unended("text".into()).await;
    let (connections, uri) = plain(address);
    let response = send(&connections, &uri).await.unwrap();
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    response.body.finish();
    left.recv().await.unwrap();
    assert!(since.elapsed() >= Duration::from_secs(2) && since.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time_and_nothing_sweeps_where_nothing_is_idle() {
    let left = Count::default();
    let counted = left.clone();
    let (address, _) = serve(move |socket, _| {
        let counted = counted.clone();
        async move {
            answers(socket).await;
            counted.add();
        }
    })
    .await;
    let (connections, uri) = plain(address);
    read(send(&connections, &uri).await.unwrap()).await.unwrap();
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(left.get(), 0);
    tokio::time::sleep(Duration::from_secs(15)).await;
    // The server's task runs between two sleeps.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(left.get(), 1);
    assert!(!connections.0.is_swept());
}
