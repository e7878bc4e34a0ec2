//! A provider that answers by script, through a real socket, and sees what it is sent and when it is left.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The end of a body in chunks.
const END: &[u8] = b"0\r\n\r\n";

/// What a provider answers to a request.
#[derive(Clone)]
pub struct Answer {
    head: String,
    steps: Vec<Step>,
}

/// A step of an answer's body.
#[derive(Clone)]
pub enum Step {
    /// These bytes, as one chunk.
    Send(Vec<u8>),
    /// Silence.
    Pause(Duration),
    /// The same bytes for ever, this long after one another.
    Endless(Vec<u8>, Duration),
    /// Silence for ever.
    Hang,
    /// The connection breaks.
    Cut,
}

/// A provider on a port of its own.
pub struct Provider {
    pub address: SocketAddr,
    answer: Answering,
    seen: Arc<Mutex<Vec<Request>>>,
    accepted: Arc<AtomicUsize>,
    left: watch::Receiver<usize>,
}

/// What a provider answers, by request.
type Answering = Arc<Mutex<Box<dyn Fn(&Request) -> Answer + Send>>>;

/// A request that a provider got.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method, path, version and headers, in lower case.
    pub head: String,
    pub body: Value,
    /// Its place on its connection, from 0.
    pub place: usize,
}

impl Answer {
    /// A status with these header lines and this body.
    pub fn status(status: &str, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status}\r\n{headers}transfer-encoding: chunked\r\n\r\n");
        Self { head, steps: vec![Step::Send(body.into())] }
    }

    /// A stream of these steps.
    pub fn stream(steps: impl IntoIterator<Item = Step>) -> Self {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".into();
        Self { head, steps: steps.into_iter().collect() }
    }

    /// The connection is closed, without a byte.
    pub fn nothing() -> Self {
        Self { head: String::new(), steps: vec![Step::Cut] }
    }

    /// A stream of this text.
    pub fn text(text: &str) -> Self {
        Self::stream([send(text)])
    }
}

pub fn send(text: &str) -> Step {
    Step::Send(text.into())
}

impl Provider {
    /// A provider that answers so to every request.
    pub async fn spawn(answer: Answer) -> Self {
        Self::spawn_with(move |_| answer.clone()).await
    }

    /// A provider that answers by request.
    pub async fn spawn_with(answer: impl Fn(&Request) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (leaving, left) = watch::channel(0);
        let (requests, accepting) = (seen.clone(), Arc::new(AtomicUsize::new(0)));
        let accepted = accepting.clone();
        let answer: Answering = Arc::new(Mutex::new(Box::new(answer)));
        let answering = answer.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                accepting.fetch_add(1, Ordering::Relaxed);
                let (answer, requests, leaving) = (answering.clone(), requests.clone(), leaving.clone());
                tokio::spawn(async move {
                    serve(socket, &answer, &requests).await;
                    leaving.send_modify(|left| *left += 1);
                });
            }
        });
        Self { address, answer, seen, accepted, left }
    }

    /// From now on it answers so.
    pub fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("no test panics with it") = Box::new(move |_| answer.clone());
    }

    /// Its base URL.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("no test panics with it").clone()
    }

    /// Waits until this many connections to it are closed.
    pub async fn until_left(&self, connections: usize) {
        let mut left = self.left.clone();
        let waited = tokio::time::timeout(Duration::from_secs(10), left.wait_for(|left| *left >= connections)).await;
        assert!(waited.is_ok_and(|left| left.is_ok()), "the provider's connection stays open");
    }

    /// How many connections to it are open.
    pub fn open(&self) -> usize {
        let left = *self.left.borrow();
        self.accepted().saturating_sub(left)
    }

    /// How many connections to it there were.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Answers until the connection is closed, by whichever side.
async fn serve(mut socket: TcpStream, answer: &Answering, requests: &Mutex<Vec<Request>>) {
    let mut place = 0;
    while let Some(request) = read(&mut socket, place).await {
        place += 1;
        let answer = answer.lock().expect("no test panics with it")(&request);
        requests.lock().expect("no test panics with it").push(request);
        if socket.write_all(answer.head.as_bytes()).await.is_err() {
            return;
        }
        for (rest, step) in (0..answer.steps.len()).rev().zip(&answer.steps) {
            let told = match step {
                // As one write with the body's end: a connection is kept only if that is there at the last token.
                Step::Send(bytes) if rest == 0 => socket.write_all(&[&*chunk(bytes), END].concat()).await,
                Step::Send(bytes) => socket.write_all(&chunk(bytes)).await,
                Step::Pause(time) => {
                    tokio::time::sleep(*time).await;
                    Ok(())
                }
                Step::Endless(bytes, every) => endless(&mut socket, bytes, *every).await,
                Step::Hang => left(&mut socket).await,
                Step::Cut => return,
            };
            if told.is_err() {
                return;
            }
        }
    }
}

/// A chunk of a body, RFC 9112 section 7.1; none for no bytes, because that would be the end.
fn chunk(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return Vec::new();
    }
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

async fn endless(socket: &mut TcpStream, bytes: &[u8], every: Duration) -> std::io::Result<()> {
    loop {
        socket.write_all(&chunk(bytes)).await?;
        if let Ok(left) = tokio::time::timeout(every, left(socket)).await {
            return left;
        }
    }
}

/// Waits for the other side to close.
async fn left(socket: &mut TcpStream) -> std::io::Result<()> {
    socket.read_u8().await?;
    Ok(())
}

async fn read(socket: &mut TcpStream, place: usize) -> Option<Request> {
    let mut bytes = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Some(Request { body: serde_json::from_str(body).unwrap_or_default(), head, place });
        }
    }
}
