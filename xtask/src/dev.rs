//! `cargo xtask dev`: the whole path on this machine, until Ctrl-C.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow, ensure};
use clap::Args;
use listeners::Protocol;

use crate::npm::Npm;
use crate::origin::Embedded;
use crate::prepare::{Wanted, prepare};
use crate::process::{end_all, interrupted, spawn_logged};
use crate::project::Project;
use crate::steps::say;
use crate::{model, secret};

/// A model that is slow to load has answered by then, or nothing will.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How often a server that starts is asked whether it answers.
const POLL: Duration = Duration::from_millis(100);

/// How long one such question may take, in seconds; the edge's answer includes the origin's.
const ANSWER_WITHIN_S: u64 = 5;

/// What a healthy server answers.
const OK: u16 = 200;

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
    ensure!(options.port != options.origin_port, "edge and origin need a port each: --port, --origin-port");
    // Held until the servers start: in the minutes of a first build another program would take them.
    let ports = [reserve(options.port, "--port")?, reserve(options.origin_port, "--origin-port")?];
    set_up(project, options.embedded())?;

    let (events, inbox) = channel();
    let origin = Server { name: "origin", address: loopback(options.origin_port), shows_start: true };
    let edge = Server { name: "edge", address: loopback(options.port), shows_start: false };
    drop(ports);
    origin.start(project, &mut origin_command(project, options)?, &events)?;
    edge.start(project, &mut edge_command(project, options), &events)?;
    let mut starting = 2;
    let mut running = 2;
    let mut failure = None;
    while running > 0 {
        match inbox.recv()? {
            Event::Ready => {
                starting -= 1;
                if starting == 0 {
                    say(&format!("\nHeadwater is at http://{} (Ctrl-C stops it)\n", edge.address));
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
    let model = embedded == Embedded::Yes;
    let wanted = Wanted { npm: Some(Npm::AsLocked), edge: true, origin: Some(embedded), model, ..Wanted::default() };
    prepare(project, &wanted)
}

fn origin_command(project: &Project, options: &Options) -> Result<Command> {
    let mut command = project.command(project.origin());
    command.args(["--listen", &loopback(options.origin_port).to_string()]);
    command.args(options.models.iter().flat_map(|model| ["--model", model]));
    if options.embedded() == Embedded::Yes {
        command.arg("--embedded-path").arg(model::path(project));
    }
    command.env(secret::VARIABLE, secret::get_or_create(project)?);
    Ok(command)
}

fn edge_command(project: &Project, options: &Options) -> Command {
    let origins = format!("ORIGINS:a=http://127.0.0.1:{}", options.origin_port);
    let mut command = project.command(project.node_bin("wrangler"));
    command.args(["dev", "--ip", "127.0.0.1", "--port", &options.port.to_string()]);
    // Any free port, so that a second wrangler can run.
    command.args(["--inspector-port", "0", "--var", &origins, "--show-interactive-dev-session=false"]);
    // A stranger's host name that points to this machine would make his page one of the edge's own (DNS rebinding).
    command.args(["--var", "HOSTS:localhost, 127.0.0.1"]);
    // Whoever reaches this machine's loopback may spend what the models cost; a deployment has to say so itself.
    command.args(["--var", "CHAT:open"]);
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
        let request = minreq::get(format!("http://{}/healthz", self.address)).with_timeout(ANSWER_WITHIN_S);
        request.send().is_ok_and(|answer| answer.status_code == OK)
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Binds a port; says who holds one that is taken, as far as the system tells.
fn reserve(port: u16, flag: &str) -> Result<TcpListener> {
    TcpListener::bind(loopback(port)).map_err(|error| {
        let holder = listeners::get_process_by_port(port, Protocol::TCP);
        let why = holder.map_or_else(
            |_| error.to_string(),
            |process| format!("{} holds it, process {}", process.name, process.pid),
        );
        anyhow!("port {port} can't be used ({why}): stop that program, or choose another port with {flag}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_reported_with_the_process_that_holds_it() {
        let held = TcpListener::bind(loopback(0)).expect("a free port");
        let port = held.local_addr().expect("it is bound").port();
        let error = reserve(port, "--port").expect_err("it is taken").to_string();
        assert!(error.contains(&format!("process {})", std::process::id())), "{error}");
        assert!(error.ends_with("choose another port with --port"), "{error}");
    }
}
