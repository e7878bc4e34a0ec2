//! The origin between a provider and its readers: CPU time a frame, and what is added to the first token and to
//! the gaps between tokens.
//!
//! `cargo bench --bench remote`. The origin runs on one core, provider and readers on another (`taskset`).

use std::{
    net::SocketAddr,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream};
use headwater_origin_testing::{Process, SECRET, free_address};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The flag that makes this program the provider, on the address behind it.
const PROVIDER: &str = "--provider";
const ORIGIN_CORE: &str = "0";
const OTHER_CORE: &str = "1";
const RUNS: usize = 5;

/// Who is asked.
#[derive(Clone, Copy)]
enum From {
    Provider(SocketAddr),
    Origin(SocketAddr),
}

/// What is asked for: it goes as a prompt through the origin, and the provider reads it there.
#[derive(Clone, Copy)]
struct Script {
    tokens: u32,
    every: Duration,
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != PROVIDER).skip(1);
    let done = match args.next().map(|address| address.parse()) {
        Some(Ok(address)) => provide(address),
        Some(Err(error)) => Err(error.into()),
        None => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure() -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let (provider, origin) = (free_address()?, free_address()?);
    let this = std::env::current_exe()?;
    let provides = &mut on_core(OTHER_CORE, &this.to_string_lossy(), &[PROVIDER, &provider.to_string()]);
    let _provider = Process::start(provides, provider).await?;
    let model = format!("http://{provider}/v1#bench");
    let address = origin.to_string();
    let flags = ["--listen", &address, "--model", &model, "--generations", "1000", "--retention", "1s"];
    let serves = &mut on_core(ORIGIN_CORE, env!("CARGO_BIN_EXE_headwater-origin"), &flags);
    let server = Process::start(serves, origin).await?;
    Command::new("taskset").args(["-p", "-c", OTHER_CORE, &std::process::id().to_string()]).output()?;
    let (direct, through) = (From::Provider(provider), From::Origin(origin));
    processor_time(&server, through).await?;
    first_token(direct, through).await?;
    gaps(direct, through).await
}

/// CPU seconds of the origin for 1,000 frames, answers of 200 tokens as fast as they come.
async fn processor_time(server: &Process, origin: From) -> Result<()> {
    const STREAMS: usize = 2_000;
    for at_once in [1, 16, 100] {
        let mut runs = Vec::new();
        for _ in 0..RUNS {
            let before = server.processor_seconds()?;
            let script = Script { tokens: 200, every: Duration::ZERO };
            let ask = |_| async move { arrivals(origin, script).await.map(|arrivals| arrivals.len()) };
            let frames: Vec<_> = stream::iter(0..STREAMS).map(ask).buffer_unordered(at_once).collect().await;
            let frames: usize = frames.into_iter().collect::<Result<Vec<_>>>()?.iter().sum();
            runs.push((server.processor_seconds()? - before) / frames as f64 * 1e3);
        }
        let median = quantile(&mut runs, 0.5);
        println!("{at_once} streams at once: {:.2} ms of CPU for 1,000 frames ({runs:.4?} s)", median * 1e3);
    }
    Ok(())
}

/// The time to the first token, of 100 streams that begin one after the other and run together.
async fn first_token(provider: From, origin: From) -> Result<()> {
    const STREAMS: u32 = 100;
    const JOIN: Duration = Duration::from_millis(13);
    let script = Script { tokens: 100, every: Duration::from_millis(20) };
    let mut medians = Vec::new();
    for from in [provider, origin] {
        let ask = |place| async move {
            tokio::time::sleep(JOIN * place).await;
            let asked = Instant::now();
            Ok((first(&arrivals(from, script).await?)? - asked).as_secs_f64())
        };
        let times: Result<Vec<f64>> = join_all((0..STREAMS).map(ask)).await.into_iter().collect();
        medians.push(quantile(&mut times?, 0.5) * 1e3);
    }
    let [direct, through] = medians[..] else { return Ok(()) };
    println!(
        "time to first token, {STREAMS} streams: directly {direct:.2} ms, through the origin {through:.2} ms, {:.2} ms added",
        through - direct
    );
    Ok(())
}

/// The gaps between tokens, of 500 streams with a token every 20 ms.
async fn gaps(provider: From, origin: From) -> Result<()> {
    const STREAMS: u32 = 500;
    const JOIN: Duration = Duration::from_millis(3);
    let script = Script { tokens: 250, every: Duration::from_millis(20) };
    for (name, from) in [("directly", provider), ("through the origin", origin)] {
        let ask = |place| async move {
            tokio::time::sleep(JOIN * place).await;
            arrivals(from, script).await
        };
        let streams: Result<Vec<_>> = join_all((0..STREAMS).map(ask)).await.into_iter().collect();
        let streams = streams?;
        let mut gaps: Vec<f64> =
            streams.iter().flat_map(|at| at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3)).collect();
        let (median, last) = (quantile(&mut gaps, 0.5), quantile(&mut gaps, 0.99));
        println!("gaps of {STREAMS} streams, {name}: median {median:.2} ms, 99th percentile {last:.2} ms");
    }
    Ok(())
}

fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * part) as usize).copied().unwrap_or(f64::NAN)
}

fn first(arrivals: &[Instant]) -> Result<Instant> {
    arrivals.first().copied().ok_or_else(|| "no token came".into())
}

/// When each token of an answer came: read as it comes, what a client library does to the bytes is not measured.
async fn arrivals(from: From, script: Script) -> Result<Vec<Instant>> {
    let prompt = format!("{} {}", script.tokens, script.every.as_millis());
    let body = match from {
        From::Provider(_) => json!({ "messages": [{ "role": "user", "content": prompt }] }),
        From::Origin(_) => json!({ "topic": prompt }),
    };
    let body = body.to_string();
    let head = format!(
        "POST /prompts/simple HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {SECRET}\r\naccept: text/event-stream\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let (From::Provider(address) | From::Origin(address)) = from;
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all((head + &body).as_bytes()).await?;
    let mut buffer = [0; 16 * 1024];
    let (mut arrivals, mut last) = (Vec::with_capacity(script.tokens as usize + 2), 0);
    loop {
        let read = socket.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        let now = Instant::now();
        for &byte in &buffer[..read] {
            // An event ends in an empty line.
            if byte == b'\n' && last == b'\n' {
                arrivals.push(now);
            }
            last = byte;
        }
    }
    // Before the tokens and after them both write other events.
    let tokens = arrivals.get(1..=script.tokens as usize).filter(|tokens| tokens.len() + 2 <= arrivals.len());
    Ok(tokens.ok_or_else(|| format!("{} events for {} tokens", arrivals.len(), script.tokens))?.to_vec())
}

/// A provider of OpenAI's protocol: every request is answered as its prompt says.
#[tokio::main(flavor = "current_thread")]
async fn provide(address: SocketAddr) -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        // A reader that leaves is its own affair.
        tokio::spawn(async move { answer_all(socket).await.ok() });
    }
}

async fn answer_all(mut socket: TcpStream) -> std::io::Result<()> {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    while let Some((script, last)) = asked(&mut socket).await? {
        let choices = |choices: &str| {
            let event = format!(
                "data: {{\"id\":\"chatcmpl-CzQ8kPp0\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\
                 \"model\":\"bench\",\"service_tier\":\"default\",\"system_fingerprint\":null,\"choices\":[{choices}],\
                 \"usage\":null}}\n\n"
            );
            format!("{:x}\r\n{event}\r\n", event.len())
        };
        let delta = |delta: &str, finish: &str| {
            choices(&format!("{{\"index\":0,\"delta\":{{{delta}}},\"logprobs\":null,\"finish_reason\":{finish}}}"))
        };
        socket.write_all(&[HEAD, delta("\"role\":\"assistant\",\"content\":\"\"", "null").as_bytes()].concat()).await?;
        let mut ticks = tokio::time::interval(script.every.max(Duration::from_millis(1)));
        for number in 0..script.tokens {
            if !script.every.is_zero() {
                ticks.tick().await;
            }
            socket.write_all(delta(&format!("\"content\":\" w{number}\""), "null").as_bytes()).await?;
        }
        let end = delta("", "\"stop\"") + "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";
        socket.write_all(end.as_bytes()).await?;
        if last {
            return Ok(());
        }
    }
    Ok(())
}

/// The next request's script, and whether it is the connection's last; `None` when it is closed.
async fn asked(socket: &mut TcpStream) -> std::io::Result<Option<(Script, bool)>> {
    let mut bytes = Vec::new();
    loop {
        if socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let Ok(body) = serde_json::from_str::<Value>(body) else { continue };
        let prompt = body["messages"][0]["content"].as_str().unwrap_or_default();
        let mut words = prompt.rsplit(' ').map_while(|word| word.parse().ok());
        let (every, tokens) = (words.next().unwrap_or(0), words.next().unwrap_or(1));
        let script = Script { tokens, every: Duration::from_millis(u64::from(every)) };
        return Ok(Some((script, head.contains("connection: close"))));
    }
}

/// A program on a core of its own.
fn on_core(core: &str, program: &str, flags: &[&str]) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]).args(flags);
    command
}
