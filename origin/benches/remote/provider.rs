//! A provider of OpenAI's protocol that costs little: every request is answered as its prompt says, from buffers that
//! are built once a request. HTTP/1.1 is written by hand, so that each write of a script is one chunk and one write.

use std::{convert::Infallible, io, net::SocketAddr, path::Path, pin::pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
};

use crate::Result;

/// Streams at once on one connection of HTTP/2: what nginx, Envoy and Cloudflare allow is 100 or little more.
pub const STREAMS_OF_A_CONNECTION: u32 = 100;

/// An answer that is asked for: it goes as a prompt through the origin, and the provider reads it there.
#[derive(Clone, Copy)]
pub struct Script {
    pub writes: u32,
    pub tokens_a_write: u32,
    /// The time between two writes; with zero they follow each other at once.
    pub every: Duration,
}

impl Script {
    pub fn tokens(self) -> usize {
        self.writes as usize * self.tokens_a_write as usize
    }

    pub fn prompt(self) -> String {
        format!("{} {} {}", self.writes, self.tokens_a_write, self.every.as_millis())
    }

    /// The script in a request's body; `None` while the body isn't whole.
    fn read(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let prompt = body["messages"][0]["content"].as_str().unwrap_or_default();
        let mut words = prompt.rsplit(' ').map_while(|word| word.parse().ok());
        let every = Duration::from_millis(u64::from(words.next().unwrap_or(0)));
        let (tokens_a_write, writes) = (words.next().unwrap_or(1), words.next().unwrap_or(1));
        Some(Self { writes, tokens_a_write, every })
    }
}

/// The event of one token, as OpenAI sends it.
pub fn token() -> String {
    delta(r#""content":" word""#, "null")
}

/// Answers over HTTP/1.1 at `plain`, and over HTTP/2 with TLS at `secure`, whose certificate is written to `certificate`.
#[tokio::main(flavor = "current_thread")]
pub async fn provide(plain: SocketAddr, secure: SocketAddr, certificate: &Path) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let tls = tls(secure, certificate)?;
    // Who waits for this process asks the plain address.
    let (secure, plain) = (TcpListener::bind(secure).await?, TcpListener::bind(plain).await?);
    let secure = accept(secure, |socket| answer_http2(socket, tls.clone()));
    let plain = accept(plain, answer_http1);
    tokio::try_join!(secure, plain)?;
    Ok(())
}

async fn accept<A: Future<Output = io::Result<()>> + Send + 'static>(
    listener: TcpListener,
    answer: impl Fn(TcpStream) -> A,
) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A client that leaves is its own affair.
        tokio::spawn(answer(socket));
    }
}

/// What answers at `address`, with a new certificate of its own.
fn tls(address: SocketAddr, certificate: &Path) -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed([address.ip().to_string()])?;
    std::fs::write(certificate, made.cert.pem())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let certificates = vec![made.cert.der().clone()];
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config).into())
}

async fn answer_http2(socket: TcpStream, tls: TlsAcceptor) -> io::Result<()> {
    let answer = service_fn(|request: Request<Incoming>| async {
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let script = Script::read(&body).ok_or(io::ErrorKind::InvalidData)?;
        let body =
            StreamBody::new(Answer::to(script).pieces(script).map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
        let response = Response::builder().header("content-type", "text/event-stream").body(body);
        response.map_err(io::Error::other)
    });
    let socket = TokioIo::new(tls.accept(socket).await?);
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .max_concurrent_streams(STREAMS_OF_A_CONNECTION)
        .serve_connection(socket, answer)
        .await
        .map_err(io::Error::other)
}

async fn answer_http1(mut socket: TcpStream) -> io::Result<()> {
    while let Some((script, last)) = asked(&mut socket).await? {
        let mut pieces = pin!(Answer::to(script).in_chunks().pieces(script));
        while let Some(piece) = pieces.next().await {
            socket.write_all(&piece).await?;
        }
        if last {
            break;
        }
    }
    Ok(())
}

/// The next request's script, and whether it is the connection's last; `None` when it is closed.
async fn asked(socket: &mut TcpStream) -> io::Result<Option<(Script, bool)>> {
    const END: &[u8] = b"\r\n\r\n";
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let Some(head) = bytes.windows(END.len()).position(|window| window == END) else { continue };
        let Some(script) = Script::read(&bytes[head + END.len()..]) else { continue };
        let last = String::from_utf8_lossy(&bytes[..head]).contains("connection: close");
        return Ok(Some((script, last)));
    }
}

/// What is written, one buffer a write.
struct Answer {
    opening: Bytes,
    tokens: Bytes,
    ending: Bytes,
}

impl Answer {
    fn to(script: Script) -> Self {
        Self {
            opening: delta(r#""role":"assistant","content":"""#, "null").into(),
            tokens: token().repeat(script.tokens_a_write as usize).into(),
            ending: (delta("", r#""stop""#) + "data: [DONE]\n\n").into(),
        }
    }

    /// The same as a response of HTTP/1.1.
    fn in_chunks(self) -> Self {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |piece: &[u8]| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
        Self {
            opening: [HEAD, &chunk(&self.opening)].concat().into(),
            tokens: chunk(&self.tokens).into(),
            ending: [&chunk(&self.ending), b"0\r\n\r\n".as_slice()].concat().into(),
        }
    }

    /// Each write when it is time for it.
    fn pieces(self, script: Script) -> impl Stream<Item = Bytes> + Send {
        let Self { opening, tokens, ending } = self;
        let ticks = tokio::time::interval(script.every.max(Duration::from_millis(1)));
        let writes = stream::unfold((script.writes, ticks), move |(left, mut ticks)| {
            let tokens = tokens.clone();
            async move {
                let left = left.checked_sub(1)?;
                if !script.every.is_zero() {
                    ticks.tick().await;
                }
                Some((tokens, (left, ticks)))
            }
        });
        stream::iter([opening]).chain(writes).chain(stream::iter([ending]))
    }
}

fn delta(delta: &str, finish: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-CzQ8kPp0\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":\"bench\",\
         \"service_tier\":\"default\",\"system_fingerprint\":null,\"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\
         \"logprobs\":null,\"finish_reason\":{finish}}}],\"usage\":null}}\n\n"
    )
}
