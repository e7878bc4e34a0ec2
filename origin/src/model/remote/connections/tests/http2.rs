use h2::{Reason, SendStream, server::SendResponse};
use http::Response as Answer;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// What a server saw of a request: the number of its connection, and how to answer.
type Seen = (usize, SendResponse<Bytes>);

/// A server that takes `limit` requests at once on a connection, and hands all of them over. After a message to `leave` it
/// says that it takes no more.
struct Server {
    address: SocketAddr,
    client: ClientConfig,
    accepted: Count,
    seen: UnboundedReceiver<Seen>,
    leave: tokio::sync::broadcast::Sender<()>,
}

impl Server {
    async fn spawn(limit: u32) -> Self {
        let (listener, address) = listen().await;
        let (acceptor, client) = tls(&["h2"]);
        let (accepted, (sees, seen)) = (Count::default(), unbounded_channel());
        let (leave, _) = tokio::sync::broadcast::channel(1);
        let (count, leaving) = (accepted.clone(), leave.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(
                    acceptor.clone(),
                    socket,
                    count.add(),
                    limit,
                    sees.clone(),
                    leaving.subscribe(),
                ));
            }
        });
        Self { address, client, accepted, seen, leave }
    }

    fn client(&self) -> (Connections, Uri) {
        secure(self.address, self.client.clone())
    }

    async fn seen(&mut self) -> Seen {
        timeout(LONG, self.seen.recv()).await.expect("a request comes").expect("the server runs")
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    number: usize,
    limit: u32,
    sees: UnboundedSender<Seen>,
    mut leaving: tokio::sync::broadcast::Receiver<()>,
) {
    let Ok(socket) = acceptor.accept(socket).await else { return };
    let Ok(mut connection) =
        h2::server::Builder::new().max_concurrent_streams(limit).handshake::<_, Bytes>(socket).await
    else {
        return;
    };
    loop {
        tokio::select! {
            next = connection.accept() => match next {
                Some(Ok((mut request, respond))) => {
                    assert_eq!(request.uri().path(), "/v1/chat");
                    assert!(!request.headers().contains_key("host"));
                    assert_eq!(request.headers()["content-length"], "8");
                    tokio::spawn(async move { while request.body_mut().data().await.is_some() {} });
                    drop(sees.send((number, respond)));
                }
                _ => return,
            },
            Ok(()) = leaving.recv() => connection.graceful_shutdown(),
        }
    }
}

/// Answers the head and a first token.
fn begin(respond: &mut SendResponse<Bytes>) -> SendStream<Bytes> {
    let mut body = respond.send_response(Answer::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"a"), false).unwrap();
    body
}

fn end(mut body: SendStream<Bytes>) {
    body.send_data(Bytes::from_static(b"b"), true).unwrap();
}

/// Starts `count` answers at once; all have their first token.
async fn start(connections: &Connections, uri: &Uri, count: usize) -> Vec<Response> {
    let one = || async {
        let mut response = send(connections, uri).await.unwrap();
        assert_eq!(timeout(LONG, response.body.chunk()).await.unwrap().unwrap().unwrap(), "a");
        response
    };
    futures::future::join_all((0..count).map(|_| one())).await
}

/// Answers everything with a first token and holds it; tells how many there were on each connection.
fn hold(mut seen: UnboundedReceiver<Seen>) -> tokio::task::JoinHandle<Vec<usize>> {
    tokio::spawn(async move {
        let (mut held, mut on) = (Vec::new(), Vec::new());
        while let Ok(Some((number, mut respond))) = timeout(Duration::from_millis(500), seen.recv()).await {
            held.push((begin(&mut respond), respond));
            on.resize(on.len().max(number), 0);
            on[number - 1] += 1;
        }
        on
    })
}

#[tokio::test]
async fn fault_31_a_hundred_streams_a_connection_and_250_starts_all_begin_on_three() {
    let server = Server::spawn(100).await;
    let (connections, uri) = server.client();
    let on = hold(server.seen);
    let since = std::time::Instant::now();
    let held = start(&connections, &uri, 250).await;
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    assert_eq!(server.accepted.get(), 3);
    assert_eq!(on.await.unwrap(), [100, 100, 50]);
    drop(held);
}

#[tokio::test]
async fn lower_limits_have_more_connections() {
    for (limit, starts, connected) in [(100, 100, 1), (8, 40, 5), (2, 9, 5), (1, 20, 20)] {
        let server = Server::spawn(limit).await;
        let (connections, uri) = server.client();
        let on = hold(server.seen);
        let held = start(&connections, &uri, starts).await;
        assert_eq!(server.accepted.get(), connected, "{limit}");
        let on = on.await.unwrap();
        assert!(on.iter().all(|on| *on <= limit as usize) && on.iter().sum::<usize>() == starts, "{limit}: {on:?}");
        drop(held);
    }
}

#[tokio::test]
async fn a_server_that_allows_no_stream_is_of_no_use() {
    let server = Server::spawn(0).await;
    let (connections, uri) = server.client();
    let answers = futures::future::join_all((0..3).map(|_| send(&connections, &uri))).await;
    assert!(answers.iter().all(Result::is_err));
}

#[tokio::test]
async fn a_place_that_is_free_again_is_used_again() {
    let mut server = Server::spawn(2).await;
    let (connections, uri) = server.client();
    for _ in 0..5 {
        let (answered, ()) = futures::join!(start(&connections, &uri, 2), async {
            for _ in 0..2 {
                end(begin(&mut server.seen().await.1));
            }
        });
        for response in answered {
            assert_eq!(read(response).await.unwrap(), "b");
        }
    }
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test]
async fn a_dropped_answer_resets_its_stream_alone() {
    let mut server = Server::spawn(100).await;
    let (connections, uri) = server.client();
    let (mut answers, mut bodies) = futures::join!(start(&connections, &uri, 2), async {
        vec![begin(&mut server.seen().await.1), begin(&mut server.seen().await.1)]
    });
    drop(answers.remove(0));
    let reset = futures::future::select_all(
        bodies.iter_mut().map(|body| Box::pin(std::future::poll_fn(move |cx| body.poll_reset(cx)))),
    );
    let (reason, which, _) = timeout(LONG, reset).await.unwrap();
    assert_eq!(reason.unwrap(), Reason::CANCEL);
    bodies.remove(which);
    end(bodies.remove(0));
    assert_eq!(read(answers.remove(0)).await.unwrap(), "b");

    // So is one that is dropped before its head.
    let mut asked = Box::pin(send(&connections, &uri));
    let (_, mut respond) = tokio::select! {
        _ = &mut asked => panic!("nobody answers"),
        seen = server.seen() => seen,
    };
    drop(asked);
    let reset = std::future::poll_fn(|cx| respond.poll_reset(cx));
    assert_eq!(timeout(LONG, reset).await.unwrap().unwrap(), Reason::CANCEL);
    assert_eq!(server.accepted.get(), 1);
}

#[tokio::test]
async fn after_goaway_running_answers_end_and_new_ones_have_a_new_connection() {
    let mut server = Server::spawn(100).await;
    let (connections, uri) = server.client();
    let (mut answers, body) = futures::join!(start(&connections, &uri, 1), async { begin(&mut server.seen().await.1) });
    server.leave.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (mut later, (number, later_body)) = futures::join!(start(&connections, &uri, 1), async {
        let (number, mut respond) = server.seen().await;
        (number, begin(&mut respond))
    });
    assert_eq!(number, 2);
    end(body);
    end(later_body);
    assert_eq!(read(answers.remove(0)).await.unwrap(), "b");
    assert_eq!(read(later.remove(0)).await.unwrap(), "b");
}

#[tokio::test]
async fn p26_a_refused_stream_is_sent_once_more_on_a_new_connection() {
    let mut server = Server::spawn(100).await;
    let (connections, uri) = server.client();
    let (answered, ()) = futures::join!(start(&connections, &uri, 1), async {
        let (number, mut respond) = server.seen().await;
        assert_eq!(number, 1);
        respond.send_reset(Reason::REFUSED_STREAM);
        let (number, mut respond) = server.seen().await;
        assert_eq!(number, 2);
        end(begin(&mut respond));
    });
    assert_eq!(answered.len(), 1);
    // Once; and nothing else that a server says is taken for a refusal.
    for (reason, times) in [(Reason::REFUSED_STREAM, 2), (Reason::INTERNAL_ERROR, 1), (Reason::CANCEL, 1)] {
        let (answered, ()) = futures::join!(send(&connections, &uri), async {
            for _ in 0..times {
                server.seen().await.1.send_reset(reason);
            }
        });
        assert!(matches!(answered, Err(Failure::Broke(_))), "{reason:?}");
    }
    assert!(server.seen.try_recv().is_err());
}
