//! `cargo xtask dev`: the whole path on this machine, until Ctrl-C.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use clap::Args;

use crate::origin::Embedded;
use crate::process::{end_all, interrupted, spawn_logged};
use crate::project::Project;
use crate::setup::{self, Npm};
use crate::steps::{self, say};
use crate::{edge, model, origin, packages};

/// A model that is slow to load has answered by then, or nothing will.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How often a server that starts is asked whether it answers.
const POLL: Duration = Duration::from_millis(100);

/// One such question; the edge's answer includes the origin's.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How the answer of a healthy server begins.
const HEALTHY: &[u8; 13] = b"HTTP/1.1 200 ";

/// The model that needs no account.
const EMBEDDED: &str = "embedded";

/// The command line of `cargo xtask dev`.
#[derive(Args)]
pub(crate) struct Options {
    /// The edge's port
    #[arg(long, default_value_t = 8787, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The origin's port
    #[arg(long, default_value_t = 9000, value_parser = clap::value_parser!(u16).range(1..))]
    origin_port: u16,
    /// A model, handed on to the origin; given several times, or with commas, in order of preference
    #[arg(long = "model", value_name = "NAME", default_value = EMBEDDED, value_delimiter = ',')]
    models: Vec<String>,
}

impl Options {
    fn embedded(&self) -> Embedded {
        if self.models.iter().any(|model| model == EMBEDDED) { Embedded::Yes } else { Embedded::No }
    }
}

/// Sets up, builds, runs both servers until Ctrl-C or until one ends.
pub(crate) fn run(project: &Project, options: &Options) -> Result<()> {
    let edge_address = free_port(options.port, "--port")?;
    let origin_address = free_port(options.origin_port, "--origin-port")?;
    ensure!(options.port != options.origin_port, "edge and origin need a port each: --port, --origin-port");
    set_up(project, options.embedded())?;

    let (events, inbox) = channel();
    let origin = Server { name: "origin", address: origin_address, shows_start: true };
    let edge = Server { name: "edge", address: edge_address, shows_start: false };
    origin.start(project, &mut origin_command(project, options, origin_address)?, &events)?;
    edge.start(project, &mut edge_command(project, options), &events)?;
    let mut starting = 2;
    let mut running = 2;
    let mut failure = None;
    while running > 0 {
        match inbox.recv()? {
            Event::Ready => {
                starting -= 1;
                if starting == 0 {
                    say(&format!("\nHeadwater is at http://{edge_address} (Ctrl-C stops it)\n"));
                }
            }
            Event::Late(name) => {
                failure.get_or_insert_with(|| anyhow!("{name} has not answered within {READY_WITHIN:?}"));
                end_all();
            }
            Event::Ended(error) => {
                running -= 1;
                failure.get_or_insert(error);
                end_all();
            }
        }
    }
    if interrupted() {
        say("stopped");
        return Ok(());
    }
    failure.map_or(Ok(()), Err)
}

fn set_up(project: &Project, embedded: Embedded) -> Result<()> {
    let mut needs = setup::edge_needs(project);
    let mut steps = edge::steps(project, Npm::AsLocked);
    steps.push(origin::step(project, embedded));
    if embedded == Embedded::Yes {
        needs.extend(model::needs(project).into_iter().chain([packages::EMBEDDED]));
        steps.extend(model::steps(project));
    }
    steps.push(packages::step(needs));
    steps::run(project, steps)
}

fn origin_command(project: &Project, options: &Options, address: SocketAddr) -> Result<Command> {
    let mut command = project.command(project.origin());
    command.args(["--listen", &address.to_string()]);
    command.args(options.models.iter().flat_map(|model| ["--model", model]));
    if options.embedded() == Embedded::Yes {
        command.arg("--embedded-path").arg(model::path(project));
    }
    command.env("EDGE_SECRET", setup::secret(project)?.context("the set-up wrote no secret")?);
    Ok(command)
}

fn edge_command(project: &Project, options: &Options) -> Command {
    let origins = format!("ORIGINS:a=http://127.0.0.1:{}", options.origin_port);
    let mut command = project.command(project.node_bin("wrangler"));
    command.args(["dev", "--ip", "127.0.0.1", "--port", &options.port.to_string()]);
    // Any free port, so that a second wrangler can run.
    command.args(["--inspector-port", "0", "--var", &origins, "--show-interactive-dev-session=false"]);
    // Nothing of this needs the network.
    command.env("CI", "true").env("WRANGLER_SEND_METRICS", "false");
    command.env("WRANGLER_HIDE_BANNER", "true").env("CLOUDFLARE_CF_FETCH_ENABLED", "false");
    command
}

/// What happens to the servers.
enum Event {
    Ready,
    Late(&'static str),
    Ended(Error),
}

#[derive(Clone, Copy)]
struct Server {
    name: &'static str,
    address: SocketAddr,
    /// Else its output is shown from its first answer on; the log has all of it.
    shows_start: bool,
}

impl Server {
    /// Starts the server, shows its output, and reports once it answers and once it has ended.
    fn start(self, project: &Project, command: &mut Command, events: &Sender<Event>) -> Result<()> {
        let name = self.name;
        let shown = Arc::new(AtomicBool::new(self.shows_start));
        let shows = Arc::clone(&shown);
        let (group, output) = spawn_logged(command, &project.log(name), move |line| {
            if shows.load(Ordering::Relaxed) && !line.trim().is_empty() {
                say(&format!("{name:>6} | {line}"));
            }
        })?;
        // Nobody waits for events once the run is over: a failed send loses nothing.
        let ended = events.clone();
        thread::spawn(move || {
            let status = group.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            let tail = output.finish();
            let _ = ended.send(Event::Ended(anyhow!("{name} has ended ({status}); its last lines:{tail}")));
        });
        let news = events.clone();
        thread::spawn(move || {
            let ready = self.becomes_ready();
            shown.store(true, Ordering::Relaxed);
            let _ = news.send(if ready { Event::Ready } else { Event::Late(name) });
        });
        Ok(())
    }

    fn becomes_ready(self) -> bool {
        let start = Instant::now();
        while start.elapsed() < READY_WITHIN {
            if self.answers() {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }

    /// Is `GET /healthz` answered with a 200?
    fn answers(self) -> bool {
        let ask = || -> io::Result<bool> {
            let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_WITHIN)?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            write!(stream, "GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address)?;
            let mut start = [0; HEALTHY.len()];
            stream.read_exact(&mut start)?;
            Ok(start == *HEALTHY)
        };
        ask().unwrap_or(false)
    }
}

fn free_port(port: u16, flag: &str) -> Result<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).with_context(|| {
        format!("port {port} can't be used: stop the program that holds it, or choose another with {flag}")
    })?;
    Ok(address)
}
