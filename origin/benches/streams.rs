//! The origin by itself, with the scripted model: memory of a held stream, time and writes of a replay, and what a frame costs
//! in each dialect.
//!
//! `cargo bench --bench streams`, or some of it: `-- replay memory dialects`. The server is this program again, in a process of its own.

use std::{
    net::SocketAddr,
    process::{Command, ExitCode},
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use headwater_origin::app;
use headwater_origin_testing::{Process, SECRET, Scripted, free_address};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

/// The server's address: a port that was free.
static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| free_address().expect("a port is free"));
/// The path of a prompt's start, in this project's own dialect, and that of OpenAI's.
const OWN: &str = "/prompts/simple";
const CHAT: &str = "/v1/chat/completions";
/// Connections opened at once.
const AT_ONCE: usize = 100;

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
async fn measure() -> Result<(), Box<dyn std::error::Error>> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |figure: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == figure);
    if runs("replay") {
        replay().await?;
    }
    if runs("dialects") {
        dialects().await?;
    }
    for held in [1_000, 10_000].into_iter().filter(|_| runs("memory")) {
        if limit < held as u64 + 100 {
            println!("{held} held streams: the limit of open files is {limit}");
            continue;
        }
        for path in [OWN, CHAT] {
            memory(held, path).await?;
        }
    }
    Ok(())
}

/// A finished stream of 10,000 tokens, read again from its start.
async fn replay() -> Result<(), Box<dyn std::error::Error>> {
    let server = serve().await?;
    let mut first = request("POST", OWN, &[r#"{"tokens":10000}"#]).await?;
    let place =
        first.headers().await?.into_iter().find_map(|line| line.strip_prefix("content-location: ").map(str::to_owned));
    first.chunks().await?;
    let place = place.ok_or("the stream has no location")?;
    let (mut times, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..51 {
        let mut socket = Connection::open().await?;
        let began = Instant::now();
        socket.send("GET", &place, &[]).await?;
        socket.headers().await?;
        writes = socket.chunks().await?;
        times.push(began.elapsed());
    }
    times.sort();
    let whole = &writes[..writes.len() - 1];
    println!(
        "replay of 10,000 tokens, {} bytes: median {:?}, min {:?}, max {:?}; {} writes, all but the last {} bytes or more",
        writes.iter().sum::<usize>(),
        times[times.len() / 2],
        times[0],
        times[times.len() - 1],
        writes.len(),
        whole.iter().min().unwrap_or(&0)
    );
    drop(server);
    Ok(())
}

/// Resident memory of held framed streams, each a generation of its own with a token a second.
async fn memory(held: usize, path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let server = serve().await?;
    let before = server.resident()?;
    let open = |_| async {
        let mut connection = request("POST", path, &[r#"{"tokens":100000,"every_ms":1000}"#]).await.ok()?;
        connection.headers().await.ok()?;
        Some(connection)
    };
    let connections: Vec<_> = stream::iter(0..held).map(open).buffer_unordered(AT_ONCE).collect().await;
    let mut connections: Vec<_> = connections.into_iter().flatten().collect();
    let opened = connections.len();
    let readings = async {
        let mut readings = Vec::new();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            readings.push(server.resident());
        }
        readings
    };
    let drained = join_all(connections.iter_mut().map(Connection::chunks));
    let readings =
        tokio::select! { readings = readings => readings, _ = drained => return Err("a stream ended".into()) };
    let mut readings = readings.into_iter().collect::<Result<Vec<_>, _>>()?;
    readings.sort_unstable();
    let each = (readings[readings.len() / 2] - before) as f64 / opened as f64 / 1024.0;
    println!("{opened} held streams of {path}: {each:.1} KiB each ({} KiB before)", before / 1024);
    Ok(())
}

/// Processor time of 1,000 frames, in this project's own dialect and in OpenAI's in turn: of streams whose tokens come as fast
/// as they can, and of those with a token each 5 ms.
async fn dialects() -> Result<(), Box<dyn std::error::Error>> {
    const RUNS: usize = 7;
    for (streams, tokens, every_ms, at_once) in [(3_000, 200, 0, 32), (200, 1_000, 5, 200)] {
        let script = format!(r#"{{"tokens":{tokens},"every_ms":{every_ms}}}"#);
        let server = serve().await?;
        let (mut own, mut ratios) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            let mut used = [0.0; 2];
            for (used, path) in used.iter_mut().zip([OWN, CHAT]) {
                let before = server.processor_seconds()?;
                let read = |_| async {
                    let mut connection = request("POST", path, &[&script]).await?;
                    connection.headers().await?;
                    connection.chunks().await
                };
                let all: Vec<_> = stream::iter(0..streams).map(read).buffer_unordered(at_once).collect().await;
                all.into_iter().collect::<Result<Vec<_>, _>>()?;
                *used = (server.processor_seconds()? - before) * 1e3 / f64::from(streams * tokens);
            }
            own.push(used[0]);
            ratios.push(used[1] / used[0]);
        }
        own.sort_by(f64::total_cmp);
        ratios.sort_by(f64::total_cmp);
        println!(
            "{streams} streams of {tokens} tokens, one each {every_ms} ms: {:.5} CPU s for 1,000 frames, median; chat completions \
             {:.2} times that, {:.2} to {:.2}",
            own[RUNS / 2],
            ratios[RUNS / 2],
            ratios[0],
            ratios[RUNS - 1]
        );
    }
    Ok(())
}

/// The origin in a process of its own.
async fn serve() -> std::io::Result<Process> {
    let flags = ["--listen", &ADDRESS.to_string(), "--generations", "20000", "--connections", "20000"];
    Process::start(Command::new(std::env::current_exe()?).args(flags), *ADDRESS).await
}

/// A connection, read as it comes: what a client library does to the bytes is not measured.
struct Connection(BufReader<TcpStream>);

async fn request(method: &str, path: &str, script: &[&str]) -> std::io::Result<Connection> {
    let mut connection = Connection::open().await?;
    connection.send(method, path, script).await?;
    Ok(connection)
}

impl Connection {
    async fn open() -> std::io::Result<Self> {
        let socket = TcpStream::connect(*ADDRESS).await?;
        socket.set_nodelay(true)?;
        Ok(Self(BufReader::with_capacity(1024, socket)))
    }

    async fn send(&mut self, method: &str, path: &str, script: &[&str]) -> std::io::Result<()> {
        let script = format!("[{}]", script.join(","));
        let body = if path == CHAT {
            let messages = [serde_json::json!({ "role": "user", "content": script })];
            serde_json::json!({ "model": "scripted", "stream": true, "messages": messages }).to_string()
        } else {
            serde_json::json!({ "topic": script }).to_string()
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {SECRET}\r\naccept: text/event-stream\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all((head + &body).as_bytes()).await
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line).await?;
        Ok(line.trim_end().to_owned())
    }

    async fn headers(&mut self) -> std::io::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.line().await? {
                line if line.is_empty() => return Ok(lines),
                line => lines.push(line),
            }
        }
    }

    /// The sizes of the body's chunks: one for each write of the origin.
    async fn chunks(&mut self) -> std::io::Result<Vec<usize>> {
        let mut sizes = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).map_err(std::io::Error::other)?;
            tokio::io::copy(&mut (&mut self.0).take(size as u64 + 2), &mut tokio::io::sink()).await?;
            if size == 0 {
                return Ok(sizes);
            }
            sizes.push(size);
        }
    }
}
