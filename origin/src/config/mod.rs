//! Settings: from flags, else the environment, else a TOML file, else the defaults.
//!
//! Each setting has one name: the flag `--first-token-timeout` is `HEADWATER_FIRST_TOKEN_TIMEOUT` in the
//! environment and `first-token-timeout` in the file. A value is parsed by the same code wherever it comes from,
//! because the file's values become the defaults of the flags.

pub mod limits;
pub mod model;
pub mod redis;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    thread,
    time::Duration,
};

use bytesize::ByteSize;
use clap::{
    Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, Parser,
    builder::{FalseyValueParser, TypedValueParser},
    error::ErrorKind,
};
use headwater_protocol::{OriginName, PromptName};

use self::{
    limits::{Limits, Pace},
    model::Name,
    redis::{Address, NoAddress},
};
use crate::prompt::{Prompt, Prompts};

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
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,

    /// The address of the figures for Prometheus, at /metrics [default: none]
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,

    /// This origin's name, 1 to 16 characters of a-z and 0-9; it begins the ids of its streams
    #[arg(long, default_value = "a")]
    pub name: OriginName,

    /// The model that answers: embedded, PROVIDER:MODEL, or BASE_URL#MODEL for a server that speaks OpenAI's
    /// protocol. Given several times, or with commas: in order of preference
    #[arg(long, value_name = "NAME", default_value = "embedded", value_delimiter = ',')]
    pub model: Vec<Name>,

    /// The most tokens of one answer, thoughts included
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,

    /// Where streams are kept: "memory", or for several origins redis://user:password@host:port/database, with TLS
    /// rediss://
    // Not shown with its value, which may hold a password.
    #[arg(long, value_name = "PLACE", default_value = "memory", value_parser = Secretive)]
    #[arg(hide_env_values = true, hide_default_value = true)]
    pub journal: Place,

    /// Write the variables of each prompt to the log
    #[arg(long, value_parser = FalseyValueParser::new())]
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
pub enum Place {
    /// In this process.
    Memory,
    /// In Redis, for several origins.
    Redis(Address),
}

impl FromStr for Place {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        if text == "memory" { Ok(Self::Memory) } else { text.parse().map(Self::Redis) }
    }
}

/// Settings of a stream's life.
#[derive(Clone, Debug, Args)]
pub struct Streams {
    /// How long a start waits for its first token before the response begins without
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    gate: Duration,

    /// The longest time from the call of a model to its first token; then the next model is asked
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = humantime::parse_duration)]
    first_token_timeout: Duration,

    /// The longest time between two tokens
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    idle_timeout: Duration,

    /// The longest time of a whole answer; beyond it the answer ends with finish "length" [default: none]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    total_timeout: Option<Duration>,

    /// How long a generation goes on when its last reader has left
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    linger: Duration,

    /// How long a finished stream can be read again
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    retention: Duration,

    /// The memory that streams may take; over it the oldest finished ones go first
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    journal_size: ByteSize,

    /// The most that one stream may hold; beyond it its answer ends with finish "length"
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = stream_size)]
    stream_size: ByteSize,

    /// How many generations run at once, at most
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count(1))]
    generations: usize,

    /// How many more may wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = count(0))]
    queue: usize,

    /// The least time between two writes of tokens to a reader; 0s writes each token by itself
    #[arg(long, value_name = "TIME", default_value = "8ms", value_parser = humantime::parse_duration)]
    write_interval: Duration,

    /// The silence after which a comment is sent
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    heartbeat: Duration,
}

/// Settings of the sockets.
#[derive(Clone, Debug, Args)]
pub struct Connections {
    /// How many connections are served at once; beyond it they get a 503, past twice as many none is accepted
    #[arg(long, value_name = "N", default_value_t = 8192, value_parser = count(1))]
    pub connections: usize,

    /// How long a request's headers may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub header_timeout: Duration,

    /// How long a write may wait for a reader that doesn't read
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub write_timeout: Duration,

    /// How long running streams may go on when the server is told to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,
}

/// Settings of the embedded model.
#[derive(Clone, Debug, Args)]
pub struct Embedded {
    /// The model's file, GGUF
    #[arg(long, value_name = "FILE", default_value = "target/models/SmolLM2-135M-Instruct.Q8_0.gguf")]
    pub embedded_path: PathBuf,

    /// How many answers it writes at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub embedded_streams: u16,

    /// Tokens of one prompt and its answer
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub embedded_context: u32,

    /// Threads that it computes with [default: the cores of the machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub embedded_threads: Option<u16>,

    /// How freely it chooses; 0 always takes the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.6, value_parser = finite)]
    pub temperature: f32,

    /// Choose among the N likeliest tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub top_k: u16,

    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, value_parser = finite)]
    pub top_p: f32,

    /// Leave out tokens less probable than this part of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.05, value_parser = finite)]
    pub min_p: f32,

    /// How strongly tokens of the last 64 are avoided; 1 not at all
    #[arg(long, value_name = "X", default_value_t = 1.15, value_parser = finite)]
    pub repetition_penalty: f32,

    /// Makes the choices repeatable [default: random]
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
}

/// Settings that can't be used. Each message says which, and what it takes.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag; holds the whole message, with usage.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// The file can't be read.
    #[error("the configuration {path} can't be read: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file isn't TOML, or its prompts aren't prompts.
    #[error("the configuration {path} is wrong: {reason}")]
    Wrong {
        /// The file.
        path: String,
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
        let command = with_environment(Self::command());
        // The first pass finds the file; what it holds gives the second its defaults.
        let first = Self::from_arg_matches(&command.clone().try_get_matches_from(&args)?)?;
        let Some(path) = first.config else { return Ok(first) };
        let path = path.display().to_string();
        let text =
            std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let wrong = |reason: String| ConfigError::Wrong { path: path.clone(), reason };
        let mut file: toml::Table = text.parse().map_err(|error: toml::de::Error| wrong(error.to_string()))?;
        let own: BTreeMap<PromptName, Prompt> = match file.remove("prompts") {
            Some(prompts) => prompts.try_into().map_err(|error: toml::de::Error| wrong(error.to_string()))?,
            None => BTreeMap::new(),
        };
        let command = with_file(command, &file).map_err(wrong)?;
        let config = Self::from_arg_matches(&command.try_get_matches_from(&args)?)?;
        Ok(Self { prompts: Prompts::new(own), ..config })
    }

    /// The limits of a stream's life.
    pub fn limits(&self) -> Limits {
        let streams = &self.streams;
        Limits {
            gate: streams.gate,
            idle_timeout: streams.idle_timeout,
            total_timeout: streams.total_timeout,
            linger: streams.linger,
            stream_bytes: bytes(streams.stream_size),
            generations: streams.generations,
            queue: streams.queue,
            pace: Pace { write_interval: streams.write_interval, heartbeat: streams.heartbeat },
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

    /// The memory that streams may take, bytes.
    pub fn journal_bytes(&self) -> usize {
        bytes(self.streams.journal_size)
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

/// Parses a place without repeating it where it is wrong.
#[derive(Clone)]
struct Secretive;

impl TypedValueParser for Secretive {
    type Value = Place;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<Place, clap::Error> {
        let place = value.to_str().ok_or(NoAddress).and_then(str::parse);
        place.map_err(|error| {
            let name = arg.map(ToString::to_string).unwrap_or_default();
            let told = format!("wrong value for '{name}': neither memory nor redis: {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, told).with_cmd(command)
        })
    }
}

/// Each flag with its variable.
fn with_environment(command: Command) -> Command {
    command.mut_args(|arg| {
        let name = arg.get_id().as_str().to_uppercase();
        if matches!(name.as_str(), "HELP" | "VERSION") { arg } else { arg.env(format!("HEADWATER_{name}")) }
    })
}

/// Each flag with the file's value as its default.
fn with_file(mut command: Command, file: &toml::Table) -> Result<Command, String> {
    for (name, value) in file {
        let id = name.replace('-', "_");
        let arg = command.get_arguments().find(|arg| arg.get_id() == id.as_str() && id != "config");
        let action = arg.ok_or_else(|| format!("there is no setting {name:?}"))?.get_action().clone();
        let many = matches!(action, ArgAction::Append);
        let values = match value {
            toml::Value::Array(values) if many => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        let values = values.ok_or_else(|| format!("{name} takes {}", if many { "texts" } else { "one value" }))?;
        command = command.mut_arg(id, |arg| {
            let arg = arg.default_values(values);
            // A switch takes no value on the command line, but has one as a default.
            if action.takes_values() { arg } else { arg.num_args(0) }
        });
    }
    Ok(command)
}

/// A file's value as a flag's; tables and lists are none.
fn text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Some(value.to_string()),
        _ => None,
    }
}

/// More than this of anything is a slip of the hand.
const MOST: u64 = 1_000_000;

fn count(least: u64) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(least..=MOST).map(|count| count as usize)
}

fn finite(text: &str) -> Result<f32, String> {
    let number: f32 = text.parse().map_err(|_| "not a number")?;
    if number.is_finite() && number >= 0.0 { Ok(number) } else { Err("not a number from 0 on".into()) }
}

/// Offsets in a stream are 32 bits.
fn stream_size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse()?;
    if size.as_u64() < u64::from(u32::MAX) / 2 { Ok(size) } else { Err("a stream holds less than 2 GiB".into()) }
}

fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}
