//! What is measured.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures::{
    StreamExt,
    future::{join, join_all, try_join_all},
    stream,
};
use tokio::time::{sleep, timeout};

use crate::{
    Error, Origin, Protocol, Provider, Result,
    provider::{STREAMS_OF_A_CONNECTION, Script},
    reader::{AFTER, BEFORE, From, Reader, arrivals},
};

const RUNS: usize = 3;
/// The time between two tokens of a stream that isn't as fast as it can be.
const EVERY: Duration = Duration::from_millis(20);

/// A line of the table.
pub struct Row {
    what: String,
    unit: &'static str,
    decimals: usize,
    /// What it is held to.
    target: Option<f64>,
}

impl Row {
    pub fn heading() {
        println!("| | median | runs | target |\n|---|---|---|---|");
    }

    fn new(what: String, unit: &'static str, decimals: usize) -> Self {
        Self { what, unit, decimals, target: None }
    }

    fn target(self, target: f64) -> Self {
        Self { target: Some(target), ..self }
    }

    fn print(&self, mut runs: Vec<f64>) {
        let Self { what, unit, decimals, target } = self;
        let all: Vec<_> = runs.iter().map(|run| format!("{run:.decimals$}")).collect();
        let median = quantile(&mut runs, 0.5);
        let target = target.map(|target| format!("{target} {unit}")).unwrap_or_default();
        println!("| {what} | {median:.decimals$} {unit} | {} | {target} |", all.join(", "));
    }
}

/// CPU seconds of the origin for 1,000 tokens, a frame each, answers of 200 tokens as fast as they come. Starts are part of it: each
/// stream is a connection to the origin, and one start in 200 tokens.
pub async fn processor_time(origin: &Origin) -> Result<()> {
    const STREAMS: usize = 2_000;
    let large = Script { writes: 10, tokens_a_write: 20, every: Duration::ZERO };
    let single = Script { writes: 200, tokens_a_write: 1, every: Duration::ZERO };
    for (script, target) in [(large, Some(0.0025)), (single, None)] {
        for at_once in [1, 16, 64] {
            let mut runs = Vec::new();
            for _ in 0..RUNS {
                let before = origin.process.processor_seconds()?;
                let ask = |_| async move { Ok(arrivals(origin.readers(), script).await?.len()) };
                let frames: Vec<_> = stream::iter(0..STREAMS).map(ask).buffer_unordered(at_once).collect().await;
                let frames: usize = frames.into_iter().collect::<Result<Vec<_>>>()?.iter().sum();
                runs.push((origin.process.processor_seconds()? - before) / frames as f64 * 1e3);
            }
            let what = format!("{at_once} streams as fast as they come, tokens a write: {}", script.tokens_a_write);
            let row = Row::new(format!("CPU for 1,000 tokens, {what}"), "s", 4);
            match target {
                Some(target) if at_once == 64 => row.target(target).print(runs),
                _ => row.print(runs),
            }
        }
    }
    Ok(())
}

/// The same with a token each 20 ms, in a time in which all streams run: no start and no end is part of it.
pub async fn processor_time_paced(origin: &Origin) -> Result<()> {
    const STREAMS: u32 = 500;
    /// Not a divisor of the time between tokens: the streams' tokens come at all times.
    const JOIN: Duration = Duration::from_millis(3);
    const SETTLE: Duration = Duration::from_secs(1);
    const MEASURED: Duration = Duration::from_secs(10);
    let lasts = JOIN * STREAMS + SETTLE * 2 + MEASURED;
    let script = Script { writes: (lasts.as_millis() / EVERY.as_millis()) as u32, tokens_a_write: 1, every: EVERY };
    let due = STREAMS as usize * (MEASURED.as_millis() / EVERY.as_millis()) as usize;
    let (mut runs, mut least) = (Vec::new(), due);
    for _ in 0..RUNS {
        let frames = &Cell::new(0);
        let read = |place| async move {
            sleep(JOIN * place).await;
            let mut reader = Reader::ask(origin.readers(), script).await?;
            while let Some(events) = reader.events().await? {
                frames.set(frames.get() + events);
            }
            Ok::<_, Error>(())
        };
        let watch = async {
            sleep(JOIN * STREAMS + SETTLE).await;
            let (before, counted) = (origin.process.processor_seconds()?, frames.get());
            sleep(MEASURED).await;
            Ok::<_, Error>((origin.process.processor_seconds()? - before, frames.get() - counted))
        };
        let (all, measured) = join(try_join_all((0..STREAMS).map(read)), watch).await;
        all?;
        let (used, counted) = measured?;
        runs.push(used / counted as f64 * 1e3);
        least = least.min(counted);
        if frames.get() < (BEFORE + script.tokens() + AFTER) * STREAMS as usize {
            return Err(format!("{} events came from {STREAMS} streams", frames.get()).into());
        }
    }
    // A core that is full falls behind; what it then reads and writes together costs less.
    let late = if least * 100 < due * 98 { format!(" (only {least} of {due} came in time)") } else { String::new() };
    let what = format!("CPU for 1,000 tokens, {STREAMS} streams, a token each {EVERY:?}{late}");
    Row::new(what, "s", 4).target(0.024).print(runs);
    Ok(())
}

/// Resident memory of a new origin for each of the streams that have their first token and wait for the next; what it
/// holds of its connections to the provider and to the readers is part of it.
pub async fn memory(provider: &Provider, protocol: Protocol) -> Result<()> {
    const STREAMS: u32 = 1_000;
    const JOIN: Duration = Duration::from_millis(2);
    /// Where a stream waits for another one's end it has no first token.
    const FIRST_TOKEN_WITHIN: Duration = Duration::from_secs(5);
    const READINGS: u32 = 10;
    let script = Script { writes: 2, tokens_a_write: 1, every: Duration::from_secs(3600) };
    let (mut runs, mut held) = (Vec::new(), STREAMS as usize);
    for _ in 0..RUNS {
        let origin = provider.origin(protocol).await?;
        let before = origin.process.resident()?;
        let open = |place| {
            let readers = origin.readers();
            async move {
                sleep(JOIN * place).await;
                let mut reader = Reader::ask(readers, script).await?;
                let first = match timeout(FIRST_TOKEN_WITHIN, reader.first_token()).await {
                    Ok(came) => came.map(|()| true)?,
                    Err(_) => false,
                };
                Ok::<_, Error>((reader, first))
            }
        };
        let streams = try_join_all((0..STREAMS).map(open)).await?;
        held = held.min(streams.iter().filter(|(_, has)| *has).count());
        let mut readings = Vec::new();
        for _ in 0..READINGS {
            sleep(Duration::from_secs(1)).await;
            readings.push(origin.process.resident()? as f64);
        }
        runs.push((quantile(&mut readings, 0.5) - before as f64) / f64::from(STREAMS) / 1024.0);
    }
    let (name, target) = match protocol {
        Protocol::Http1 => ("HTTP/1.1".to_owned(), 32.0),
        Protocol::Http2 => (format!("HTTP/2 and TLS, {STREAMS_OF_A_CONNECTION} streams a connection"), 24.0),
    };
    let all = if held < STREAMS as usize { format!(" (only {held} have a first token)") } else { String::new() };
    let what = format!("memory of each of {STREAMS} held streams{all}, {name} to the provider");
    Row::new(what, "KiB", 1).target(target).print(runs);
    Ok(())
}

/// The time to the first token of many starts at once, over HTTP/2: without a connection, and with those that are left.
pub async fn starts(provider: &Provider) -> Result<()> {
    const STREAMS: usize = 250;
    let script = Script { writes: 50, tokens_a_write: 1, every: EVERY };
    let mut figures = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        let origin = provider.origin(Protocol::Http2).await?;
        for figures in figures.chunks_mut(2) {
            let ask = |_| async {
                let asked = Instant::now();
                Ok::<_, Error>((first(&arrivals(origin.readers(), script).await?)? - asked).as_secs_f64() * 1e3)
            };
            let mut times = try_join_all((0..STREAMS).map(ask)).await?;
            for (figures, part) in figures.iter_mut().zip([0.5, 1.0]) {
                figures.push(quantile(&mut times, part));
            }
        }
    }
    let names = ["p50", "max", "p50, connections are there", "max, connections are there"];
    for (name, runs) in names.into_iter().zip(figures) {
        let what = format!("time to first token, {STREAMS} starts at once, HTTP/2 to the provider, {name}");
        Row::new(what, "ms", 1).print(runs);
    }
    Ok(())
}

/// The time to the first token, of 100 streams that begin one after the other and run together.
pub async fn first_token(provider: From, origin: From) -> Result<()> {
    const STREAMS: u32 = 100;
    const JOIN: Duration = Duration::from_millis(13);
    let script = Script { writes: 100, tokens_a_write: 1, every: EVERY };
    let mut medians = Vec::new();
    for from in [provider, origin] {
        let ask = |place| async move {
            sleep(JOIN * place).await;
            let asked = Instant::now();
            Ok((first(&arrivals(from, script).await?)? - asked).as_secs_f64())
        };
        let times: Result<Vec<f64>> = join_all((0..STREAMS).map(ask)).await.into_iter().collect();
        medians.push(quantile(&mut times?, 0.5) * 1e3);
    }
    let [direct, through] = medians[..] else { return Ok(()) };
    for (name, time) in [("directly", direct), ("through the origin", through), ("added", through - direct)] {
        println!("| time to first token, {STREAMS} streams, {name} | {time:.2} ms | | |");
    }
    Ok(())
}

/// The gaps between tokens, of 500 streams with a token every 20 ms.
pub async fn gaps(provider: From, origin: From) -> Result<()> {
    const STREAMS: u32 = 500;
    const JOIN: Duration = Duration::from_millis(3);
    let script = Script { writes: 250, tokens_a_write: 1, every: EVERY };
    for (name, from) in [("directly", provider), ("through the origin", origin)] {
        let ask = |place| async move {
            sleep(JOIN * place).await;
            arrivals(from, script).await
        };
        let streams = try_join_all((0..STREAMS).map(ask)).await?;
        let mut gaps: Vec<f64> =
            streams.iter().flat_map(|at| at.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3)).collect();
        let (median, last) = (quantile(&mut gaps, 0.5), quantile(&mut gaps, 0.99));
        println!("| gaps, {STREAMS} streams, {name} | {median:.2} ms, p99 {last:.2} ms | | |");
    }
    Ok(())
}

pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1) as f64;
    values.get((last * part) as usize).copied().unwrap_or(f64::NAN)
}

fn first(arrivals: &[Instant]) -> Result<Instant> {
    arrivals.first().copied().ok_or_else(|| "no token came".into())
}
