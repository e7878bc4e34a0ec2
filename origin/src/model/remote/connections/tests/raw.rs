//! HTTP/2 servers that do what `h2`'s own doesn't.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::*;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
/// On SETTINGS.
const ACK: u8 = 1;
/// On HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` in HPACK's static table.
const OK: &[u8] = &[0x88];

struct Raw<S>(S);

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    async fn read(&mut self) -> std::io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads on to a frame.
    async fn until(&mut self, kind: u8, flags: u8) -> Option<Frame> {
        loop {
            match self.read().await {
                Ok(frame) if frame.kind == kind && frame.flags & flags == flags => return Some(frame),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    async fn limit(&mut self, streams: u32) {
        let mut setting = vec![0, 3];
        setting.extend_from_slice(&streams.to_be_bytes());
        self.write(SETTINGS, 0, 0, &setting).await.unwrap();
    }
}

/// Serves each connection, numbered from 1, after the client's preface.
async fn serve<F>(serve: impl Fn(Raw<TlsStream<TcpStream>>, usize) -> F + Send + 'static) -> (Connections, Uri, Count)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let (acceptor, client) = tls(&["h2"]);
    let accepted = Count::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = acceptor.accept(socket).await.unwrap();
            socket.read_exact(&mut [0; 24]).await.unwrap();
            let number = count.add();
            tokio::spawn(serve(Raw(socket), number));
        }
    });
    let (connections, uri) = secure(address, client);
    (connections, uri, accepted)
}

/// Begins an answer to each request.
async fn begin_all(mut raw: Raw<TlsStream<TcpStream>>) {
    while let Some(request) = raw.until(HEADERS, 0).await {
        raw.write(HEADERS, END_HEADERS, request.stream, OK).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_may_sink_while_streams_run_and_rise_again() {
    let (tell, told) = tokio::sync::watch::channel(2);
    let (connections, uri, accepted) = serve(move |mut raw, number| {
        let mut told = told.clone();
        async move {
            raw.limit(2).await;
            if number > 1 {
                return begin_all(raw).await;
            }
            for _ in 0..2 {
                let request = raw.until(HEADERS, 0).await.unwrap();
                raw.write(HEADERS, END_HEADERS, request.stream, OK).await.unwrap();
            }
            for _ in 0..2 {
                told.changed().await.unwrap();
                let limit = *told.borrow_and_update();
                raw.limit(limit).await;
            }
            begin_all(raw).await;
        }
    })
    .await;
    let mut first = vec![send(&connections, &uri).await.unwrap(), send(&connections, &uri).await.unwrap()];
    assert_eq!(accepted.get(), 1);
    tell.send(1).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    // One place was left when the limit was 2; now there is none.
    first.pop();
    let second = send(&connections, &uri).await.unwrap();
    assert_eq!(accepted.get(), 2);
    tell.send(3).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let third = [send(&connections, &uri).await.unwrap(), send(&connections, &uri).await.unwrap()];
    assert_eq!(accepted.get(), 2);
    drop((first, second, third));
}

#[tokio::test]
async fn p26_a_request_that_a_dead_http_2_connection_lost_is_sent_once_more_on_a_new_one() {
    for dies_again in [false, true] {
        let asked = Count::default();
        let counted = asked.clone();
        let (connections, uri, accepted) = serve(move |mut raw, number| {
            let counted = counted.clone();
            async move {
                raw.limit(10).await;
                if number == 1 || !dies_again {
                    let request = raw.until(HEADERS, 0).await.unwrap();
                    counted.add();
                    raw.write(HEADERS, END_HEADERS | END_STREAM, request.stream, OK).await.unwrap();
                }
                // The next one dies with its connection.
                if raw.until(HEADERS, 0).await.is_some() {
                    counted.add();
                }
            }
        })
        .await;
        assert_eq!(read(send(&connections, &uri).await.unwrap()).await.unwrap(), "");
        let answered = send(&connections, &uri).await;
        assert_eq!(answered.is_err(), dies_again);
        assert_eq!((accepted.get(), asked.get()), (2, 3));
    }
}

#[tokio::test]
async fn a_request_that_a_new_http_2_connection_lost_is_not_repeated() {
    let (connections, uri, accepted) = serve(|mut raw, _| async move {
        raw.limit(10).await;
        raw.until(HEADERS, 0).await.unwrap();
    })
    .await;
    assert!(matches!(send(&connections, &uri).await, Err(Failure::Broke(_))));
    assert_eq!(accepted.get(), 1);
}

#[tokio::test]
async fn endless_headers_end_on_http_2_too() {
    let (connections, uri, _) = serve(|mut raw, _| async move {
        raw.limit(10).await;
        let request = raw.until(HEADERS, 0).await.unwrap();
        raw.write(HEADERS, 0, request.stream, OK).await.unwrap();
        // A literal header that is not indexed: its name's length and name, its value's length and value.
        let header = [&[0, 1, b'a', 100][..], &[b'a'; 100]].concat().repeat(100);
        while raw.write(CONTINUATION, 0, request.stream, &header).await.is_ok() {}
    })
    .await;
    assert!(matches!(send(&connections, &uri).await, Err(Failure::Broke(_))));
}

#[tokio::test]
async fn a_server_without_settings_is_given_up_in_time() {
    let (connections, uri, _) = serve(|mut raw, _| async move {
        drop(raw.until(SETTINGS, ACK).await);
    })
    .await;
    let request = || Request::post(&uri).body(Bytes::new()).unwrap();
    let asked = futures::future::join_all((0..3).map(|_| connections.send(request())));
    let paused = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::time::pause();
    };
    let (answers, ()) = futures::join!(asked, paused);
    assert!(answers.iter().all(Result::is_err));
}

/// A stream that says nothing for 100 s on a connection that answers pings or doesn't: how often it was pinged, and whether
/// it goes on.
async fn silent(lives: bool) -> (usize, bool) {
    let pinged = Count::default();
    let counted = pinged.clone();
    let (connections, uri, _) = serve(move |mut raw, _| {
        let counted = counted.clone();
        async move {
            raw.limit(10).await;
            let request = raw.until(HEADERS, 0).await.unwrap();
            raw.write(HEADERS, END_HEADERS, request.stream, OK).await.unwrap();
            while let Some(ping) = raw.until(PING, 0).await {
                counted.add();
                if lives {
                    raw.write(PING, ACK, 0, &ping.payload).await.unwrap();
                }
            }
        }
    })
    .await;
    let mut response = send(&connections, &uri).await.unwrap();
    tokio::time::pause();
    let goes_on = timeout(Duration::from_secs(100), response.body.chunk()).await.is_err();
    (pinged.get(), goes_on)
}

#[tokio::test]
async fn a_silent_stream_goes_on_while_its_connection_answers_pings() {
    let (pinged, goes_on) = silent(true).await;
    assert!(goes_on && pinged >= 3, "{pinged}");
}

#[tokio::test]
async fn a_stream_on_a_dead_connection_breaks() {
    assert_eq!(silent(false).await, (1, false));
}
