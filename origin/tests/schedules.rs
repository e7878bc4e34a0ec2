//! Hub and journal under random schedules: whatever the order of tokens, reads, cuts, returns, stops and
//! waits, every reader gets every event once and in order, and exactly one terminal event, at the end: the one that
//! the schedule has brought about.
//!
//! The file is long because the steps, the model of what they may bring about and the comparison belong together.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    StreamExt,
    channel::mpsc::{self, UnboundedSender},
};
use headwater_origin::{
    config::limits::{Limits, Pace},
    generation::{Attached, Hub, Start},
    journal::{Journal, MemoryJournal, RedisJournal},
    model::{Model, ModelError, Token, Tokens, fallback::Fallback},
    prompt::{Conversation, Options},
    stream::{Finish, Read, Stream, Usage},
};
use headwater_origin_testing::RedisServer;
use headwater_protocol::Kind;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{TestCaseResult, TestRunner},
};
use tokio::time::{Instant, sleep, timeout};

/// In seconds of the schedule.
const LINGER: u32 = 20;
const RETENTION: u32 = 600;
const READERS: usize = 3;
/// After so long nothing more is there.
const SILENCE: Duration = Duration::from_millis(100);
/// What comes at all comes within this.
const LONG: Duration = Duration::from_secs(20);
/// In seconds of the schedule, longer than any.
const PATIENCE: u32 = 10_000;

#[derive(Clone, Debug)]
enum Step {
    /// The model gives a token of this many bytes.
    Token(usize),
    /// The model ends, fails, or breaks off.
    End(u8),
    /// A reader reads all that is there.
    Read(usize),
    /// A reader's connection is cut.
    Leave(usize),
    /// A reader comes back with its cursor; a new one from the start.
    Back(usize),
    /// Someone stops the stream.
    Stop,
    /// Time goes by, seconds.
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..300_usize).prop_map(Step::Token),
        1 => (0..3_u8).prop_map(Step::End),
        6 => (0..READERS).prop_map(Step::Read),
        3 => (0..READERS).prop_map(Step::Leave),
        4 => (0..READERS).prop_map(Step::Back),
        1 => Just(Step::Stop),
        2 => prop_oneof![4 => 0..19_u32, 2 => 20..100_u32, 1 => 600..700_u32].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_reader_gets_every_event_once_and_one_terminal_event(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let second = Duration::from_secs(1);
            let journal = MemoryJournal::new(second * RETENTION, 1 << 20);
            let (hub, feed) = hub(Arc::new(journal.clone()), second);
            let id = run(std::slice::from_ref(&hub), &journal, feed, second, steps).await?;
            sleep(second * RETENTION).await;
            prop_assert!(hub.stop(&id.parse().unwrap(), None).await.is_err(), "it expires");
            prop_assert_eq!(journal.bytes(), 0, "and leaves no bytes behind");
            Ok(())
        })?;
    }
}

/// How many schedules run at once against Redis, in real time.
const AT_ONCE: u32 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_at_two_origins_get_every_event_once_and_the_same_terminal_event() {
    // Short enough for the lingers and long enough for what a schedule does at once.
    let second = Duration::from_millis(10);
    let server = RedisServer::start();
    let schedules = (0..AT_ONCE).map(|_| vec(step(), 1..60).new_tree(&mut TestRunner::default()).unwrap().current());
    let runs = schedules.map(|steps| {
        let address = server.address().parse().unwrap();
        async move {
            let connect = || RedisJournal::connect(&address, second * RETENTION, Duration::from_secs(3), 1 << 20);
            let (a, b): (Arc<dyn Journal>, Arc<dyn Journal>) =
                (Arc::new(connect().await.unwrap()), Arc::new(connect().await.unwrap()));
            let ((writing, feed), (other, _)) = (hub(a.clone(), second), hub(b.clone(), second));
            let told = format!("{steps:?}");
            let hubs = [writing, other];
            tokio::select! {
                done = run(&hubs, &*a, feed, second, steps) => done.map_err(|error| format!("{error}: {told}")),
                ((), ()) = async { tokio::join!(a.run(), b.run()) } => Err("a journal runs for ever".into()),
            }
        }
    });
    for done in futures::future::join_all(runs).await {
        done.unwrap();
    }
}

fn hub(journal: Arc<dyn Journal>, second: Duration) -> (Hub, UnboundedSender<Result<Token, ModelError>>) {
    let (model, feed) = Driven::new();
    let models = Fallback::new(vec![Arc::new(model)], second * PATIENCE);
    (Hub::new("a".parse().unwrap(), models, journal, limits(second)), feed)
}

/// A schedule of a stream that the first hub starts and keeps in `journal`; its readers are at all of them. The
/// stream's id.
async fn run(
    hubs: &[Hub],
    journal: &dyn Journal,
    feed: UnboundedSender<Result<Token, ModelError>>,
    second: Duration,
    steps: Vec<Step>,
) -> Result<String, TestCaseError> {
    let prompt = Start::prompt("test");
    let at = |reader: usize| &hubs[reader % hubs.len()];
    let began = Instant::now();
    let first = hubs[0].start(prompt).await.unwrap();
    let id = first.stream().id().to_string();
    let mut life = Life::new(began, journal.find(first.stream().id()).await.unwrap().unwrap());
    let mut readers: Vec<Client> = (0..READERS).map(|_| Client::new(&id)).collect();
    readers[0].body = Some(Box::pin(first.into_body()));
    let mut said = Vec::new();
    // What was said when the model ended; a stream that ended earlier for another reason has less.
    let mut whole = None;

    for step in steps {
        life.may_end(&step);
        match step {
            Step::Token(size) => {
                let text = format!("{} {}\n", said.len(), "x".repeat(size));
                if feed.unbounded_send(Ok(Token::Text(text.clone()))).is_ok() {
                    said.push(text);
                }
            }
            Step::End(0) => {
                drop(feed.unbounded_send(Ok(Token::End { finish: Finish::Stop, usage: Some(Usage::default()) })));
                whole.get_or_insert(said.len());
            }
            Step::End(1) => drop(feed.unbounded_send(Err(ModelError::BrokeOff("test".into())))),
            Step::End(_) => feed.close_channel(),
            Step::Read(reader) => readers[reader].read(SILENCE).await?,
            Step::Leave(reader) => readers[reader].body = None,
            Step::Back(reader) => readers[reader].back(at(reader)).await?,
            Step::Stop => match at(said.len()).stop(&id.parse().unwrap(), None).await {
                Ok(()) => {}
                Err(problem) => {
                    prop_assert_eq!(problem.kind(), Kind::NotFound);
                    readers[0].expired.get_or_insert_with(Instant::now);
                }
            },
            Step::Wait(seconds) => sleep(second * seconds).await,
        }
        life.look(readers.iter().any(|reader| reader.body.is_some()));
        if hubs.len() == 1 {
            prop_assert!(life.end.is_some() || life.unread < second * (LINGER + 1), "nobody reads it, and it goes on");
        }
    }

    life.may_end(&Step::Stop);
    let _ = hubs[0].stop(&id.parse().unwrap(), None).await;
    life.look(true);
    let stopped = async {
        while hubs[0].status().running > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    prop_assert!(timeout(LONG, stopped).await.is_ok(), "a stream that has ended runs no more");
    for (number, reader) in readers.iter_mut().enumerate() {
        reader.read(LONG).await?;
        if !reader.over {
            reader.back(at(number)).await?;
            reader.read(LONG).await?;
        }
        prop_assert!(reader.over || reader.expired.is_some(), "every reader comes to the end: {:?}", reader.seen);
    }
    let (ended, end) = life.end.expect("it was stopped at the latest");
    if end == "/problems/abandoned" {
        // At several origins one hears of the others' readers a moment later.
        prop_assert!(life.unread >= second * LINGER / hubs.len() as u32, "abandoned while it was read");
    } else {
        prop_assert!(life.causes.contains(&&*end), "it ended as {end} by {:?}", life.causes);
    }
    for expired in readers.iter().filter_map(|reader| reader.expired) {
        prop_assert!(expired >= ended + second * RETENTION, "not found {:?} after its end", expired - ended);
    }
    for reader in &readers {
        let chunks: Vec<&Seen> = reader.seen.iter().filter(|seen| !seen.terminal).collect();
        for (index, (seen, said)) in chunks.iter().zip(&said).enumerate() {
            prop_assert_eq!(seen.index, index as u64, "in order, none lost, none doubled");
            prop_assert_eq!(&seen.text, said);
        }
        prop_assert!(chunks.len() <= said.len());
        if reader.seen.last().is_some_and(|seen| seen.end == "stop") {
            prop_assert_eq!(Some(chunks.len()), whole, "an answer that ended well is whole");
        }
        let terminal = reader.seen.iter().filter(|seen| seen.terminal).count();
        prop_assert_eq!(terminal, usize::from(reader.over));
        prop_assert!(!reader.over || reader.seen.last().is_some_and(|seen| seen.terminal && seen.end == end));
    }
    let over: Vec<_> = readers.iter().filter(|reader| reader.over).collect();
    prop_assert!(over.windows(2).all(|pair| pair[0].seen == pair[1].seen), "all readers saw the same");
    Ok(id)
}

fn limits(second: Duration) -> Limits {
    Limits {
        start_window: Duration::from_millis(10),
        idle_timeout: second * PATIENCE,
        total_timeout: None,
        linger: second * LINGER,
        stream_bytes: 1 << 20,
        generations: 4,
        queue: 4,
        pace: Pace { write_interval: Duration::from_millis(8), heartbeat: Some(Duration::from_secs(10)) },
    }
}

/// What the schedule has done to the stream, and what became of it.
struct Life {
    began: Instant,
    /// Until it has ended: whoever holds a log keeps it from being forgotten.
    log: Option<Arc<Stream>>,
    /// How it may end.
    causes: Vec<&'static str>,
    /// Since when nobody reads it.
    left: Option<Instant>,
    /// The longest time that nobody has read it.
    unread: Duration,
    /// When and how it ended.
    end: Option<(Instant, String)>,
}

impl Life {
    fn new(began: Instant, log: Arc<Stream>) -> Self {
        Self { began, log: Some(log), causes: Vec::new(), left: None, unread: Duration::ZERO, end: None }
    }

    /// What is done next, where it may end the stream: behind its end nothing does.
    fn may_end(&mut self, step: &Step) {
        if self.log.as_ref().is_some_and(|log| log.buffer.terminal().is_none()) {
            self.causes.extend(match step {
                Step::End(0) => Some("stop"),
                Step::End(_) => Some("/problems/model-broke-off"),
                Step::Stop => Some("stopped"),
                _ => None,
            });
        }
    }

    /// Looks what became of it, and how long nobody has read it.
    fn look(&mut self, attended: bool) {
        let Some(log) = &self.log else { return };
        let ended = log.buffer.terminal().map(|terminal| self.began + terminal.after);
        let now = ended.unwrap_or_else(Instant::now);
        let left = *self.left.get_or_insert(now);
        self.unread = self.unread.max(now.saturating_duration_since(left));
        if attended {
            self.left = None;
        }
        if let Some(ended) = ended {
            let Read::Frames { bytes, .. } = log.buffer.read(0, usize::MAX, false) else { panic!("it has ended") };
            let last = seen(std::str::from_utf8(&bytes).unwrap()).pop();
            self.end = Some((ended, last.expect("there is a terminal event").1.end));
            self.log = None;
        }
    }
}

type Body = Pin<Box<dyn futures::Stream<Item = io::Result<Bytes>> + Send>>;

/// A browser's part: a cursor, and what was seen.
struct Client {
    cursor: String,
    body: Option<Body>,
    seen: Vec<Seen>,
    over: bool,
    /// When its stream was not found.
    expired: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    index: u64,
    text: String,
    terminal: bool,
    /// The finish, or the problem's type.
    end: String,
}

/// The stream's events, and their cursors.
fn seen(frames: &str) -> Vec<(&str, Seen)> {
    let seen = frames.split_terminator("\n\n").filter_map(|frame| {
        let value = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name));
        let (cursor, data, event) = (value("id: ")?, value("data: ")?, value("event: "));
        if event == Some("stream") {
            return None;
        }
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let index = cursor.split_once('.').unwrap().1.parse().unwrap();
        let terminal = event.is_some();
        Some((cursor, Seen { index, text: text("chunk"), terminal, end: text("finish") + &text("type") }))
    });
    seen.collect()
}

impl Client {
    fn new(id: &str) -> Self {
        Self { cursor: id.to_owned(), body: None, seen: Vec::new(), over: false, expired: None }
    }

    /// Reads until nothing has come for so long.
    async fn read(&mut self, silence: Duration) -> TestCaseResult {
        while let Some(body) = &mut self.body {
            match timeout(silence, body.next()).await {
                Err(_) => return Ok(()),
                Ok(None) => {
                    prop_assert!(self.seen.last().is_some_and(|seen| seen.terminal), "cut silently");
                    self.body = None;
                }
                Ok(Some(write)) => self.take(std::str::from_utf8(&write.unwrap()).unwrap()),
            }
        }
        Ok(())
    }

    fn take(&mut self, frames: &str) {
        for (cursor, seen) in seen(frames) {
            self.over |= seen.terminal;
            self.cursor = cursor.to_owned();
            self.seen.push(seen);
        }
    }

    async fn back(&mut self, hub: &Hub) -> TestCaseResult {
        self.body = None;
        match hub.attach(&self.cursor.parse().unwrap(), None).await {
            Ok(Attached::Reader(reader)) => {
                prop_assert!(!self.over, "nothing is behind a terminal event");
                self.body = Some(Box::pin(reader.into_body()));
                // The generation looks up only then: who is gone in the same instant was never there.
                sleep(Duration::from_millis(1)).await;
            }
            Ok(Attached::AtEnd) => prop_assert!(self.over),
            Err(problem) => {
                prop_assert_eq!(problem.kind(), Kind::NotFound);
                self.expired.get_or_insert_with(Instant::now);
            }
        }
        Ok(())
    }
}

/// A model that says what the test sends.
struct Driven(Mutex<Option<Tokens>>);

impl Driven {
    fn new() -> (Self, UnboundedSender<Result<Token, ModelError>>) {
        let (feed, tokens) = mpsc::unbounded();
        (Self(Mutex::new(Some(tokens.boxed()))), feed)
    }
}

impl Model for Driven {
    fn name(&self) -> &'static str {
        "driven"
    }

    fn generate(&self, _: &Conversation, _: &Options) -> Tokens {
        self.0.lock().unwrap().take().expect("one generation each")
    }
}
