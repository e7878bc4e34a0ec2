use hyper_util::client::proxy::matcher::Matcher;

use super::*;

#[tokio::test]
async fn what_cant_be_reached_names_the_causes() {
    let (listener, address) = listen().await;
    drop(listener);
    for (connections, uri) in [plain(address), secure(address, tls(&[]).1)] {
        let Err(Failure::Unreachable(cause)) = send(&connections, &uri).await else { panic!("nobody is there") };
        assert!(cause.contains("refused"), "{cause}");
    }
    let (connections, uri) = client("https://nobody.invalid/", tls(&[]).1);
    let Err(Failure::Unreachable(cause)) = send(&connections, &uri).await else { panic!("there is no such name") };
    assert!(cause.contains("dns error"), "{cause}");
}

#[tokio::test]
async fn a_certificate_that_isnt_trusted_fails_all_that_wait_for_the_attempt() {
    let (listener, address) = listen().await;
    let accepted = Count::default();
    let count = accepted.clone();
    let (acceptor, _) = tls(&["h2"]);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.add();
            drop(acceptor.accept(socket).await);
        }
    });
    // It trusts another one.
    let (connections, uri) = secure(address, tls(&[]).1);
    for answer in futures::future::join_all((0..250).map(|_| send(&connections, &uri))).await {
        let Err(Failure::Unreachable(cause)) = answer else { panic!("it isn't trusted") };
        assert!(cause.starts_with("TLS: ") && cause.contains("certificate"), "{cause}");
    }
    assert_eq!(accepted.get(), 1);
}

#[tokio::test]
async fn a_silent_server_fails_all_that_wait_at_once() {
    let (listener, address) = listen().await;
    let accepted = Count::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            count.add();
            held.push(accepted);
        }
    });
    let (connections, uri) = secure(address, tls(&[]).1);
    tokio::time::pause();
    let since = tokio::time::Instant::now();
    let request = || Request::post(&uri).body(Bytes::new()).unwrap();
    for answer in futures::future::join_all((0..50).map(|_| connections.send(request()))).await {
        assert!(matches!(answer, Err(Failure::Unreachable(_))));
    }
    assert!(since.elapsed() <= Duration::from_secs(11), "{:?}", since.elapsed());
    assert!(accepted.get() <= 1);
}

#[tokio::test]
async fn https_goes_through_the_proxy_and_http_never_does() {
    let (listener, server) = listen().await;
    let (acceptor, trusting) = tls(&["http/1.1"]);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut socket) = acceptor.accept(socket).await else { continue };
            request(&mut socket).await;
            write(&mut socket, &answer("text")).await;
        }
    });
    let (listener, proxy) = listen().await;
    let (seen, mut tunnels) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0; 1024];
            let length = socket.read(&mut head).await.unwrap();
            seen.send(String::from_utf8_lossy(&head[..length]).into_owned()).unwrap();
            write(&mut socket, "HTTP/1.1 200 OK\r\n\r\n").await;
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut socket, &mut server).await });
        }
    });
    let uri: Uri = format!("https://localhost:{}/", server.port()).parse().unwrap();
    let matcher = Matcher::builder().https(format!("http://me:secret@{proxy}")).no("elsewhere.example").build();
    let proxied = || matcher.intercept(&uri);
    let connections = Connections::with(uri.clone(), Some(trusting.clone()), proxied()).unwrap();
    assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "text");
    let told = tunnels.recv().await.unwrap();
    assert!(told.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", server.port())), "{told}");
    assert!(told.contains("\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n"), "{told}");

    let (listener, refusing) = listen().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        drop(socket.read(&mut [0; 1024]).await);
        write(&mut socket, "HTTP/1.1 407 No\r\n\r\n").await;
    });
    let matcher = Matcher::builder().https(format!("http://me:secret@{refusing}")).build();
    let connections = Connections::with(uri.clone(), Some(trusting.clone()), matcher.intercept(&uri)).unwrap();
    let Err(Failure::Unreachable(cause)) = send(&connections, &uri).await else { panic!("the proxy wants a password") };
    assert!(cause.contains("proxy authorization required") && !cause.contains("secret"), "{cause}");

    let (listener, plain) = listen().await;
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        request(&mut socket).await;
        write(&mut socket, &answer("plain")).await;
    });
    let uri: Uri = format!("http://{plain}/").parse().unwrap();
    let connections = Connections::with(uri.clone(), None, proxied()).unwrap();
    assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "plain");
    assert!(tunnels.try_recv().is_err());
}

#[test]
fn tls_is_as_the_machine_trusts_it_and_a_socks_proxy_is_refused_at_once() {
    assert!(Connections::new(&"https://models.example/v1".parse().unwrap()).is_ok());
    let uri: Uri = "https://models.example/".parse().unwrap();
    let proxy = Matcher::builder().all("socks5://127.0.0.1:1").build().intercept(&uri);
    assert!(Connections::with(uri, Some(tls(&[]).1), proxy).is_err_and(|error| error.contains("socks5://")));
}

#[tokio::test]
async fn a_server_that_chooses_http_1_has_a_connection_for_each_of_its_answers() {
    let (listener, address) = listen().await;
    let accepted = Count::default();
    let count = accepted.clone();
    let (acceptor, trusting) = tls(&["http/1.1"]);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            count.add();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut socket = acceptor.accept(socket).await.unwrap();
                while request(&mut socket).await.is_some() {
                    write(&mut socket, &answer("text")).await;
                }
            });
        }
    });
    let (connections, uri) = secure(address, trusting);
    let held = futures::future::join_all((0..8).map(|_| send(&connections, &uri))).await;
    assert_eq!(accepted.get(), 8);
    for response in held {
        assert_eq!(read(response.unwrap()).await.unwrap(), "text");
    }
    read(send(&connections, &uri).await.unwrap()).await.unwrap();
    assert_eq!(accepted.get(), 8);
}
