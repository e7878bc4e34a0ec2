//! Settings: from flags, else the environment, else a TOML file, else the defaults.
//!
//! Each setting has one name: the flag `--first-token-timeout` is `HEADWATER_FIRST_TOKEN_TIMEOUT` in the
//! environment and `first-token-timeout` in the file. A value is parsed by the same code wherever it comes from,
//! because the file's values become the defaults of the flags.

pub mod address;
pub mod limits;
pub mod model;
pub mod redis;
mod sources;
mod values;

use std::{collections::BTreeMap, ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, thread, time::Duration};

use bytesize::ByteSize;
use clap::{Args, CommandFactory, FromArgMatches, Parser, builder::BoolishValueParser};
use headwater_protocol::OriginName;

pub use self::values::OrOff;
use self::{
    address::PlainHost,
    limits::{Limits, Pace},
    model::{Alias, Name},
    redis::{Address, NoAddress},
    values::{MAX_COUNT, MAX_TIMEOUT, MIN_TIMEOUT, number, parsed, size, time, time_or_off},
};
use crate::prompt::Prompts;

/// The longest start window. The edge waits 10 s for a response's headers.
const MAX_START_WINDOW: Duration = Duration::from_secs(9);
/// The longest heartbeat. The client takes a stream for dead after 30 s without a byte.
const MAX_HEARTBEAT: Duration = Duration::from_secs(25);
/// The longest interval of writes. Longer ones would be seen as stutter.
const MAX_WRITE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Headwater's origin: turns a prompt into a model's answer and streams it as Server-Sent Events.
///
/// The edge's secret is read from EDGE_SECRET, and during a rotation the one before from EDGE_SECRET_PREVIOUS.
/// Every flag can also be set in the environment (HEADWATER_ and its name in capitals) or in the file named
/// by --config.
#[derive(Clone, Debug, Parser)]
#[command(name = "headwater-origin", version)]
pub struct Config {
    /// A TOML file with settings, named like the flags, and with prompts: [prompts.NAME] template = "…"
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000", value_parser = parsed::<SocketAddr>(ADDRESS))]
    pub listen: SocketAddr,

    /// The address of the metrics for Prometheus, at /metrics [default: none]
    #[arg(long, value_name = "ADDRESS", value_parser = parsed::<SocketAddr>(ADDRESS))]
    pub metrics: Option<SocketAddr>,

    /// This origin's name, 1 to 16 characters of a-z and 0-9; it begins the ids of its streams
    #[arg(long, default_value = "a", value_parser = parsed::<OriginName>("1 to 16 characters of a-z and 0-9"))]
    pub name: OriginName,

    /// The model that answers: embedded, PROVIDER:MODEL, or BASE_URL#MODEL for a server that speaks OpenAI's
    /// protocol. Given several times, or with commas: in order of preference
    #[arg(long, value_name = "NAME", default_value = "embedded", value_delimiter = ',')]
    pub model: Vec<Name>,

    /// A further name of a model, for clients that ask for one by name: NAME=MODEL, such as gpt-4o-mini=embedded. The name *
    /// stands for any that isn't known, the model "default" for all in order of preference. Given several times, or with
    /// commas: several names
    #[arg(long, value_name = "NAME=MODEL", value_delimiter = ',')]
    pub model_alias: Vec<Alias>,

    /// Pass the thoughts of models on, as events of their own
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub reasoning: bool,

    /// A host that a model's address may name with http://. Everybody on the way can read keys, prompts and answers.
    /// Given several times, or with commas: several hosts
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub allow_plain_http: Vec<PlainHost>,

    /// The most tokens of one answer, thoughts included
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = number(1..=MAX_COUNT as u32))]
    pub max_tokens: u32,

    /// Where streams are kept: "memory", or for several origins redis://user:password@host:port/database, with TLS
    /// rediss://
    #[arg(long, value_name = "KIND", default_value = "memory", value_parser = parsed::<JournalKind>(JOURNAL))]
    pub journal: JournalKind,

    /// Write the variables of each prompt, and all that is said in conversations, to the log
    #[arg(long, value_parser = BoolishValueParser::new())]
    pub log_variables: bool,

    /// Streams
    #[command(flatten, next_help_heading = "Streams")]
    pub streams: Streams,

    /// Connections
    #[command(flatten, next_help_heading = "Connections")]
    pub connections: Connections,

    /// The embedded model
    #[command(flatten, next_help_heading = "Embedded model")]
    pub embedded: Embedded,

    /// The prompts, from the file alone.
    #[arg(skip = Prompts::new(BTreeMap::new()))]
    pub prompts: Prompts,
}

/// Where the journal keeps its streams.
#[derive(Clone, Debug)]
pub enum JournalKind {
    /// In this process.
    Memory,
    /// In Redis, for several origins.
    Redis(Address),
}

impl FromStr for JournalKind {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if text == "memory" { Ok(Self::Memory) } else { text.parse().map(Self::Redis) }
    }
}

/// Settings of a stream's life.
#[derive(Clone, Debug, Args)]
pub struct Streams {
    /// How long a start waits for its first token before the response begins without
    #[arg(long, value_name = "TIME", default_value = "2s")]
    #[arg(value_parser = time(Duration::ZERO..=MAX_START_WINDOW, "the edge waits 10s for a response to begin"))]
    start_window: Duration,

    /// The longest time from the call of a model to its first token; then the next model is asked
    #[arg(long, value_name = "TIME", default_value = "110s", value_parser = time(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    first_token_timeout: Duration,

    /// The longest time between two tokens
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    idle_timeout: Duration,

    /// The longest time of a whole answer, or off; beyond it the answer ends with finish "length"
    #[arg(long, value_name = "TIME", default_value = "off", value_parser = time_or_off(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    total_timeout: OrOff,

    /// How long a generation goes on when its last reader has left; 0s ends it at once
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time(Duration::ZERO..=MAX_TIMEOUT, ""))]
    linger: Duration,

    /// How long a finished stream can be read again; 0s not at all
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time(Duration::ZERO..=MAX_RETENTION, ""))]
    retention: Duration,

    /// The memory that streams may take; over it the oldest finished ones go first. A key takes 512 bytes of it until
    /// its retention ends. With Redis: the memory for finished streams that were asked for
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size(ByteSize::kib(16)..=ByteSize::tib(1)))]
    journal_size: usize,

    /// The most that one stream may hold; beyond it its answer ends with finish "length"
    // Offsets in a stream are 32 bits.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = size(ByteSize::kib(1)..=ByteSize::gib(1)))]
    stream_size: usize,

    /// The most generations that run at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = number(1..=MAX_COUNT))]
    generations: usize,

    /// The most generations that wait for one of these; with 0 none waits
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = number(0..=MAX_COUNT))]
    queue: usize,

    /// The least time between two writes of tokens to a reader; with 0s each token is a write
    #[arg(long, value_name = "TIME", default_value = "8ms")]
    #[arg(value_parser = time(Duration::ZERO..=MAX_WRITE_INTERVAL, "a reader sees each write at once"))]
    write_interval: Duration,

    /// The silence after which a comment is sent, or off
    #[arg(long, value_name = "TIME", default_value = "10s")]
    #[arg(value_parser = time_or_off(MIN_TIMEOUT..=MAX_HEARTBEAT, "the client reconnects after 30s without a byte"))]
    heartbeat: OrOff,
}

/// Settings of the sockets.
#[derive(Clone, Debug, Args)]
pub struct Connections {
    /// The most connections that are served at once; further ones get a 503, and past twice as many none is accepted
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = number(1..=MAX_COUNT))]
    pub connections: usize,

    /// How long a request's headers may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    pub header_timeout: Duration,

    /// How long a connection may be idle between two requests. Longer than any proxy keeps it, so that the proxy closes it
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = time(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    pub keep_alive_timeout: Duration,

    /// The longest time that a reader may leave a write waiting
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time(MIN_TIMEOUT..=MAX_TIMEOUT, ""))]
    pub write_timeout: Duration,

    /// How long running streams may go on when the server is told to stop; 0s ends them at once
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time(Duration::ZERO..=MAX_TIMEOUT, ""))]
    pub drain_timeout: Duration,
}

/// Settings of the embedded model.
#[derive(Clone, Debug, Args)]
pub struct Embedded {
    /// The model's file, GGUF
    #[arg(long, value_name = "FILE", default_value = "target/models/SmolLM2-135M-Instruct.Q8_0.gguf")]
    pub embedded_path: PathBuf,

    /// The most answers that it writes at once, and the most conversations whose tokens it keeps for their next turn
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = number(1..=64_u16))]
    pub embedded_streams: u16,

    /// Tokens of one prompt and its answer
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = number(64..=1_048_576_u32))]
    pub embedded_context: u32,

    /// Threads that it computes with [default: the cores of the machine]
    #[arg(long, value_name = "N", value_parser = number(1..=512_u16))]
    pub embedded_threads: Option<u16>,

    /// Temperature: how freely it chooses; with 0 it always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.6, value_parser = number(0.0..=5.0_f32))]
    pub temperature: f32,

    /// Choose among the N likeliest tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = number(0..=u16::MAX))]
    pub top_k: u16,

    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = number(0.0..=1.0_f32))]
    pub top_p: f32,

    /// Leave out tokens less probable than this part of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = number(0.0..=1.0_f32))]
    pub min_p: f32,

    /// How strongly tokens of the last 64 are avoided; 1 not at all
    // Probabilities are divided by it.
    #[arg(long, value_name = "X", default_value_t = 1.15, value_parser = number(0.1..=10.0_f32))]
    pub repetition_penalty: f32,

    /// Makes the choices repeatable [default: random]
    // llama.cpp takes the greatest one for "random".
    #[arg(long, value_name = "N", value_parser = number(0..=u32::MAX - 1))]
    pub seed: Option<u32>,
}

/// The form of an address, for errors.
const ADDRESS: &str = "an IP address and a port, such as 127.0.0.1:9000";
/// The form of `--journal`, for errors.
const JOURNAL: &str =
    "memory, or a redis address of the form redis://[user:password@]host[:port][/database], or rediss:// with TLS";

/// Settings that can't be used. Each message is one line that says which, and what it takes; none repeats a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A request for the help or the version.
    #[error(transparent)]
    Help(clap::Error),
    /// A setting's value, whatever its source, or an unknown flag.
    #[error("{0}")]
    Setting(String),
    /// The file can't be read.
    #[error("--config: {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't TOML, a setting in it isn't one, or its prompts aren't prompts.
    #[error("{path}, line {line}: {reason}")]
    Wrong {
        /// The file.
        path: String,
        /// Where, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

impl Config {
    /// The settings of a process: its arguments, the first of which is its name, and its environment.
    ///
    /// # Errors
    /// The first setting that can't be used.
    pub fn parse_from_env(args: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let args: Vec<OsString> = args.into_iter().collect();
        let command = sources::with_environment(Self::command());
        let read = |command: clap::Command| {
            let matches = command.try_get_matches_from(&args);
            matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(sources::flags)
        };
        // The first pass finds the file; what it holds gives the second its defaults.
        let first = read(command.clone())?;
        let config = match &first.config {
            None => first,
            Some(path) => {
                let (command, prompts) = sources::with_file(command, path)?;
                Self { prompts: Prompts::new(prompts), ..read(command)? }
            }
        };
        let models = &config.model;
        if models.iter().enumerate().any(|(at, model)| models[..at].contains(model)) {
            return Err(ConfigError::Setting("--model names a model twice; each is asked once".into()));
        }
        Ok(config)
    }

    /// The limits of a stream's life.
    pub fn limits(&self) -> Limits {
        let streams = &self.streams;
        Limits {
            start_window: streams.start_window,
            idle_timeout: streams.idle_timeout,
            total_timeout: streams.total_timeout.0,
            linger: streams.linger,
            stream_bytes: streams.stream_size,
            generations: streams.generations,
            queue: streams.queue,
            pace: Pace { write_interval: streams.write_interval, heartbeat: streams.heartbeat.0 },
        }
    }

    /// How long a model may take for its first token.
    pub fn first_token_timeout(&self) -> Duration {
        self.streams.first_token_timeout
    }

    /// How long a finished stream is kept.
    pub fn retention(&self) -> Duration {
        self.streams.retention
    }

    /// The memory that streams, or with Redis finished streams alone, may take, bytes.
    pub fn journal_bytes(&self) -> usize {
        self.streams.journal_size
    }
}

impl Embedded {
    /// Threads that it computes with.
    pub fn threads(&self) -> i32 {
        let cores =
            || thread::available_parallelism().map_or(1, |cores| u16::try_from(cores.get()).unwrap_or(u16::MAX));
        self.embedded_threads.unwrap_or_else(cores).into()
    }
}
