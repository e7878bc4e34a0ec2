//! Programs that run in their own process group and never outlive this one, however it ends.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write, pipe};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The exit code after a signal, as shells count it (128 + SIGINT).
pub(crate) const INTERRUPTED: u8 = 130;

/// How long a group may take to end after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// The same for what a program left behind. Under a process 1 that reaps nothing, dead ones look alive until then.
const REST_GRACE: Duration = Duration::from_secs(2);

/// How often a group is asked whether it is empty.
const POLL: Duration = Duration::from_millis(20);

/// How many of its last lines a failed program shows.
const TAIL_LINES: usize = 40;

/// Ends a group when this program was killed; the end-to-end tests run it too.
const GUARD: &str = include_str!("../guard.sh");

static RUNNING: Mutex<Running> = Mutex::new(Running { groups: Vec::new(), ending: false, interrupted: false });

struct Running {
    groups: Vec<Pid>,
    ending: bool,
    interrupted: bool,
}

/// Ends all groups at Ctrl-C, SIGTERM and SIGHUP: at first politely, at the second signal at once.
pub(crate) fn watch_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::spawn(move || {
        for (count, _) in signals.forever().enumerate() {
            running().interrupted = true;
            if count > 0 {
                signal_all(Signal::KILL);
                continue;
            }
            end_all();
            thread::spawn(|| {
                // Whatever is not a child of ours (hashing, unpacking) is not worth waiting for.
                thread::sleep(GRACE + GRACE);
                std::process::exit(i32::from(INTERRUPTED));
            });
        }
    });
    Ok(())
}

/// Did a signal ask this program to stop?
pub(crate) fn interrupted() -> bool {
    running().interrupted
}

/// Ends all groups and lets no new one start; returns at once.
pub(crate) fn end_all() {
    if std::mem::replace(&mut running().ending, true) {
        return;
    }
    signal_all(Signal::TERM);
    thread::spawn(|| {
        thread::sleep(GRACE);
        signal_all(Signal::KILL);
    });
}

/// A program and all that it starts.
pub(crate) struct Group {
    name: String,
    id: Pid,
    leader: Child,
    guard: Child,
}

impl Group {
    /// Starts the command, without standard input, as the leader of its own process group.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_with_grace(command, GRACE)
    }

    /// `grace`: how long the group may take to end once this program was killed.
    fn spawn_with_grace(command: &mut Command, grace: Duration) -> Result<Self> {
        let name = shown(command);
        let mut running = running();
        if running.ending {
            bail!("`{name}` was not started: stopping");
        }
        let leader =
            command.stdin(Stdio::null()).process_group(0).spawn().with_context(|| format!("cannot start `{name}`"))?;
        let id = Pid::from_child(&leader);
        running.groups.push(id);
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard", &id.to_string(), &grace.as_secs_f32().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start `sh`")?;
        Ok(Self { name, id, leader, guard })
    }

    /// Waits until the program has ended, and ends what it left behind.
    pub(crate) fn wait(mut self) -> Result<ExitStatus> {
        let status = self.leader.wait()?;
        self.end_rest();
        running().groups.retain(|id| *id != self.id);
        if let Some(mut stdin) = self.guard.stdin.take() {
            // A guard that is gone needs no release.
            let _ = stdin.write_all(b"\n");
        }
        self.guard.wait()?;
        Ok(status)
    }

    fn succeed(self) -> Result<()> {
        let name = self.name.clone();
        let status = self.wait()?;
        if !status.success() {
            bail!("`{name}` failed ({status})");
        }
        Ok(())
    }

    /// Ends what the leader left behind. The group's number stays its own until its last member is gone.
    fn end_rest(&self) {
        // Both fail only where the group is gone.
        let _ = kill_process_group(self.id, Signal::TERM);
        let deadline = Instant::now() + REST_GRACE;
        while test_kill_process_group(self.id).is_ok() && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        let _ = kill_process_group(self.id, Signal::KILL);
    }
}

/// Runs a command to its successful end, its output visible.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    Group::spawn(command)?.succeed()
}

/// Runs a command to its successful end, its output in a log file; `on_line` sees each line too.
///
/// # Errors
/// With the last lines of the output when the command fails.
pub(crate) fn run_logged(command: &mut Command, log: &Path, on_line: impl FnMut(&str) + Send + 'static) -> Result<()> {
    let (group, output) = spawn_logged(command, log, on_line)?;
    let result = group.succeed();
    let tail = output.finish();
    result.map_err(|error| anyhow!("{error:#}; the end of {}:{tail}", log.display()))
}

/// The lines of a running program.
pub(crate) struct Output(thread::JoinHandle<VecDeque<String>>);

impl Output {
    /// Waits for the end of the output; its last lines, indented.
    pub(crate) fn finish(self) -> String {
        let tail = self.0.join().unwrap_or_default();
        tail.iter().map(|line| format!("\n    {line}")).collect()
    }
}

/// Starts a command, its output in a log file; `on_line` sees each line too.
pub(crate) fn spawn_logged(
    command: &mut Command,
    log: &Path,
    mut on_line: impl FnMut(&str) + Send + 'static,
) -> Result<(Group, Output)> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (reader, writer) = pipe()?;
    let group = Group::spawn(command.stdout(writer.try_clone()?).stderr(writer))?;
    // The command holds the pipe's other end too: it must not outlive the program.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let lines = thread::spawn(move || {
        let mut tail = VecDeque::new();
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            // A full disk costs the log, not the run.
            let _ = writeln!(log, "{line}");
            on_line(&line);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line.into_owned());
        }
        tail
    });
    Ok((group, Output(lines)))
}

/// A command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words: Vec<_> = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn signal_all(signal: Signal) {
    for id in &running().groups {
        // Fails only where the group has ended meanwhile.
        let _ = kill_process_group(*id, signal);
    }
}

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_a_program_leaves_behind_ends_with_it() {
        let start = Instant::now();
        let log = log("leaves");
        let (group, output) =
            spawn_logged(Command::new("sh").args(["-c", "sleep 60 & exit 3"]), &log, |_| ()).expect("sh starts");
        assert_eq!(group.wait().expect("sh ends").code(), Some(3));
        // Ends once nobody is left to write.
        output.finish();
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_program_ends_when_this_one_is_killed() {
        let grace = Duration::from_millis(200);
        let mut group = Group::spawn_with_grace(Command::new("sleep").arg("60"), grace).expect("sleep starts");
        drop(group.guard.stdin.take());
        let status = group.wait().expect("sleep ends");
        assert_eq!(status.signal(), Some(SIGTERM));
    }

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let log = log("fails");
        let error = run_logged(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 1"]), &log, |_| ())
            .expect_err("exit 1 is a failure");
        assert!(error.to_string().ends_with("\n    one\n    two"), "{error}");
        assert_eq!(fs::read_to_string(&log).expect("there is a log"), "one\ntwo\n");
    }

    fn log(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("xtask-test-{}", std::process::id())).join(name)
    }
}
