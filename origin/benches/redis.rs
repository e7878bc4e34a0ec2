//! Two origins with one journal in Redis: the gaps between tokens, as read at the one that writes and at the other, and
//! beside clients that replay a finished stream as fast as they can.
//!
//! `cargo bench --bench redis`. The origins are this program again, in processes of their own.

use std::{
    net::SocketAddr,
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::try_join_all;
use headwater_origin::app;
use headwater_origin_testing::{Process, RedisServer, SECRET, Scripted, free_address};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// From one token to the next: 50 tokens/s.
const EVERY: Duration = Duration::from_millis(20);

/// Streams at once, and their length.
#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    tokens: usize,
}

const MANY: Load = Load { streams: 200, tokens: 750 };
/// 30 s of streams beside as many clients that replay one of 500 tokens.
const BESIDE_REPLAYS: Load = Load { streams: 64, tokens: 1500 };
const REPLAYED: Load = Load { streams: 64, tokens: 500 };

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if std::env::args().any(|arg| arg == "--listen") {
        return app::main(|_| Ok(vec![Arc::new(Scripted)]));
    }
    if let Err(error) = measure() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

#[tokio::main(flavor = "current_thread")]
async fn measure() -> Result<(), Failure> {
    let redis = RedisServer::start();
    let memory = Origin::start("m", "memory").await?;
    tell("in memory", MANY, [&memory, &memory]).await?;
    drop(memory);
    let (a, b) = (Origin::start("a", &redis.address()).await?, Origin::start("b", &redis.address()).await?);
    tell("in Redis, read where it is written", MANY, [&a, &a]).await?;
    tell("in Redis, read at the other origin", MANY, [&a, &b]).await?;
    beside_replays([&a, &b]).await
}

/// The same at an origin that replays a finished stream to many meanwhile: one that it wrote itself, which it loads anew.
async fn beside_replays([a, b]: [&Origin; 2]) -> Result<(), Failure> {
    let mut started = a.start_stream(REPLAYED.tokens, Duration::ZERO).await?;
    let path = path_of(&mut started).await?;
    gaps(&mut started).await?;
    for (what, read) in [("in Redis, beside replays", a), ("in Redis, read at the other origin, beside replays", b)] {
        let (replays, until) = (AtomicUsize::new(0), Instant::now() + EVERY * BESIDE_REPLAYS.tokens as u32);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let replay = || async {
            let request = client.get(format!("http://{}{path}", read.address)).bearer_auth(SECRET);
            while Instant::now() < until {
                let bytes =
                    request.try_clone().ok_or("it has no body")?.send().await?.error_for_status()?.bytes().await?;
                if !bytes.ends_with(b"\n\n") {
                    return Err("a replay was cut".into());
                }
                replays.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        };
        tokio::try_join!(tell(what, BESIDE_REPLAYS, [a, read]), try_join_all((0..REPLAYED.streams).map(|_| replay())))?;
        println!("    meanwhile {} replays by {} clients", replays.load(Ordering::Relaxed), REPLAYED.streams);
    }
    Ok(())
}

/// Starts streams at the first origin, reads them at the second, and tells of the gaps.
async fn tell(what: &str, Load { streams, tokens }: Load, [writes, reads]: [&Origin; 2]) -> Result<(), Failure> {
    let (before, began) = (busy(writes, reads)?, Instant::now());
    let all = try_join_all((0..streams).map(|number| async move {
        // Spread over the time from one token to the next, as visitors are.
        tokio::time::sleep(EVERY * number as u32 / streams as u32).await;
        let mut started = writes.start_stream(tokens, EVERY).await?;
        if writes.address == reads.address {
            return gaps(&mut started).await;
        }
        let path = path_of(&mut started).await?;
        let mut followed = reads.follow(&path).await?;
        drop(started);
        gaps(&mut followed).await
    }));
    let mut gaps = all.await?.concat();
    gaps.sort();
    let at = |share: f64| gaps[((gaps.len() - 1) as f64 * share) as usize];
    let busy = busy(writes, reads)? - before;
    println!(
        "{streams} streams of 50 tokens/s {what}: {} gaps, p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms; origins busy {:.0} % of a core",
        gaps.len(),
        at(0.5).as_secs_f64() * 1e3,
        at(0.99).as_secs_f64() * 1e3,
        at(1.0).as_secs_f64() * 1e3,
        busy / began.elapsed().as_secs_f64() * 100.0
    );
    Ok(())
}

/// The processor time, seconds, that the origins have taken so far: both, or the one that does both.
fn busy(writes: &Origin, reads: &Origin) -> Result<f64, Failure> {
    let alone = writes.address == reads.address;
    Ok(writes.process.processor_seconds()? + if alone { 0.0 } else { reads.process.processor_seconds()? })
}

/// The times from each token to the next, up to the end. Tokens that come in one read have none between them.
async fn gaps(socket: &mut TcpStream) -> Result<Vec<Duration>, Failure> {
    let (mut buffer, mut gaps, mut last, mut ended) = (vec![0; 16 * 1024], Vec::new(), None, false);
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            return if ended { Ok(gaps) } else { Err("a stream was cut".into()) };
        }
        let (now, text) = (Instant::now(), String::from_utf8_lossy(&buffer[..read]));
        if text.contains("\"chunk\"") {
            gaps.extend(last.map(|last| now - last));
            last = Some(now);
        }
        ended |= text.contains("event: done");
    }
}

/// The path of the stream that this response is.
async fn path_of(socket: &mut TcpStream) -> Result<String, Failure> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        socket.read_buf(&mut head).await?;
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.lines().find_map(|line| line.strip_prefix("content-location: "));
    Ok(path.ok_or("a stream has no location")?.to_owned())
}

/// An origin in a process of its own.
struct Origin {
    address: SocketAddr,
    process: Process,
}

impl Origin {
    async fn start(name: &str, journal: &str) -> Result<Self, Failure> {
        let address = free_address()?;
        let listen = address.to_string();
        let flags = ["--listen", &listen, "--name", name, "--generations", "1000", "--journal", journal];
        let process = Process::start(Command::new(std::env::current_exe()?).args(flags), address).await?;
        Ok(Self { address, process })
    }

    async fn request(&self, head: &str, body: &str) -> std::io::Result<TcpStream> {
        let mut socket = TcpStream::connect(self.address).await?;
        socket.set_nodelay(true)?;
        let request = format!(
            "{head} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nauthorization: Bearer {SECRET}\r\n\
             accept: text/event-stream\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await?;
        Ok(socket)
    }

    async fn start_stream(&self, tokens: usize, every: Duration) -> std::io::Result<TcpStream> {
        let script = serde_json::json!([{ "tokens": tokens, "every_ms": every.as_millis() as u64 }]).to_string();
        self.request("POST /prompts/simple", &serde_json::json!({ "topic": script }).to_string()).await
    }

    async fn follow(&self, path: &str) -> std::io::Result<TcpStream> {
        self.request(&format!("GET {path}"), "").await
    }
}
