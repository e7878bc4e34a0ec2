//! A graph of steps: each runs once those before it are done, independent ones side by side.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::process;
use crate::project::Project;

/// How often the line that shows the running steps is drawn anew.
const REDRAW: Duration = Duration::from_millis(250);

/// Where there is no terminal, how often a line says that steps are still at work.
const REMIND: Duration = Duration::from_secs(20);

/// To the line's start, and all of it gone.
const ERASE_LINE: &str = "\r\x1b[2K";

/// A terminal of unknown width gets lines of this many columns.
const COLUMNS: usize = 80;

/// One step of the set-up.
pub(crate) struct Step<'a> {
    name: &'static str,
    after: &'static [&'static str],
    is_done: Box<dyn Fn() -> Result<bool> + Send + 'a>,
    work: Box<Work<'a>>,
}

/// Does a step's work, and says in a few words what it did.
type Work<'a> = dyn Fn(&Task) -> Result<String> + Send + 'a;

impl<'a> Step<'a> {
    /// A step without a check: it always runs.
    pub(crate) fn new(name: &'static str, work: impl Fn(&Task) -> Result<String> + Send + 'a) -> Self {
        Self { name, after: &[], is_done: Box::new(|| Ok(false)), work: Box::new(work) }
    }

    /// Skips the step, silently, where the check says so. It costs milliseconds.
    pub(crate) fn unless(mut self, is_done: impl Fn() -> Result<bool> + Send + 'a) -> Self {
        self.is_done = Box::new(is_done);
        self
    }

    /// Begins once these are done, as far as they are steps of the same graph.
    pub(crate) fn after(mut self, names: &'static [&'static str]) -> Self {
        self.after = names;
        self
    }
}

/// What a step at work knows of the run.
pub(crate) struct Task<'a> {
    project: &'a Project,
    name: &'static str,
    news: Sender<News>,
}

impl Task<'_> {
    /// Runs a command whose output goes to the step's log, its last line to the terminal.
    pub(crate) fn run(&self, command: &mut std::process::Command) -> Result<()> {
        let (name, news) = (self.name, self.news.clone());
        process::run_logged(command, &self.project.log(&format!("step {name}").replace(' ', "-")), move |line| {
            let line = line.rsplit('\r').next().unwrap_or_default().trim();
            // Nobody is listening any more: the run was given up.
            let _ = news.send(News::Line(name, line.to_owned()));
        })
    }
}

enum News {
    Line(&'static str, String),
    End(&'static str, Result<Option<String>>),
}

struct Running {
    name: &'static str,
    since: Instant,
    line: String,
}

impl Running {
    fn text(&self) -> String {
        format!("[{} {} s] {} ", self.name, self.since.elapsed().as_secs(), self.line)
    }
}

/// Runs the steps; a name that comes twice is one step. Only one run at a time works on a checkout.
pub(crate) fn run(project: &Project, steps: Vec<Step<'_>>) -> Result<()> {
    let _lock = lock(project)?;
    let (news, inbox) = channel();
    let mut waiting: Vec<Step<'_>> = Vec::new();
    for step in steps {
        if !waiting.iter().any(|other| other.name == step.name) {
            waiting.push(step);
        }
    }
    thread::scope(|scope| {
        let mut display = Display::new();
        let mut failure = None;
        loop {
            while let Some(step) = next(&mut waiting, &display.running).filter(|_| failure.is_none()) {
                display.running.push(Running { name: step.name, since: Instant::now(), line: String::new() });
                let task = Task { project, name: step.name, news: news.clone() };
                scope.spawn(move || {
                    let end = if_needed(&step, &task).with_context(|| format!("{} failed", step.name));
                    // The receiver lives until all steps have ended.
                    let _ = task.news.send(News::End(step.name, end));
                });
            }
            if display.running.is_empty() {
                return failure.map_or(Ok(()), Err);
            }
            if let Some(error) = display.wait(&inbox) {
                process::end_all();
                failure.get_or_insert(error);
            }
        }
    })
}

/// Says one line to the user.
pub(crate) fn say(line: &str) {
    // Nobody to tell it to is no reason to stop.
    let _ = writeln!(io::stderr(), "{line}");
}

fn lock(project: &Project) -> Result<File> {
    std::fs::create_dir_all(project.target())?;
    let lock = File::create(project.target().join("xtask.lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another cargo xtask to finish its set-up");
        lock.lock()?;
    }
    Ok(lock)
}

/// Takes the first step that waits for nothing.
fn next<'a>(waiting: &mut Vec<Step<'a>>, running: &[Running]) -> Option<Step<'a>> {
    let ready = waiting.iter().position(|step| {
        let open = |name: &&str| {
            waiting.iter().any(|other| other.name == *name) || running.iter().any(|other| other.name == *name)
        };
        !step.after.iter().any(open)
    })?;
    Some(waiting.remove(ready))
}

/// A step that panics has failed too: without an end it would be waited for without one.
fn if_needed(step: &Step<'_>, task: &Task<'_>) -> Result<Option<String>> {
    // What it may have left half-done is never looked at again: a step runs once.
    let end = catch_unwind(AssertUnwindSafe(|| {
        if (step.is_done)()? {
            return Ok(None);
        }
        (step.work)(task).map(Some)
    }));
    end.unwrap_or_else(|_| Err(anyhow!("it panicked, as shown above")))
}

struct Display {
    running: Vec<Running>,
    terminal: bool,
    drawn: Instant,
    reminded: Instant,
}

impl Display {
    fn new() -> Self {
        let now = Instant::now();
        Self { running: Vec::new(), terminal: io::stderr().is_terminal(), drawn: now, reminded: now }
    }

    /// Waits for news or the next redraw; the failure of a step.
    fn wait(&mut self, inbox: &Receiver<News>) -> Option<anyhow::Error> {
        let news = inbox.recv_timeout(REDRAW.saturating_sub(self.drawn.elapsed()));
        if self.drawn.elapsed() >= REDRAW {
            self.drawn = Instant::now();
            self.draw();
        }
        match news {
            Ok(News::Line(name, line)) => {
                if let Some(running) = self.running.iter_mut().find(|running| running.name == name) {
                    running.line = line;
                }
                None
            }
            Ok(News::End(name, end)) => self.end(name, end),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    fn end(&mut self, name: &'static str, end: Result<Option<String>>) -> Option<anyhow::Error> {
        let position = self.running.iter().position(|running| running.name == name)?;
        let seconds = self.running.remove(position).since.elapsed().as_secs_f64();
        match end {
            Ok(None) => None,
            Ok(Some(did)) => {
                self.clear();
                say(&format!("{name:>18}  {did} ({seconds:.1} s)"));
                None
            }
            Err(error) => {
                self.clear();
                Some(error)
            }
        }
    }

    fn draw(&mut self) {
        if self.terminal {
            let share = columns() / self.running.len().max(1);
            let texts = self.running.iter().map(|step| step.text().chars().take(share).collect::<String>());
            show(&format!("{ERASE_LINE}{}", texts.collect::<String>()));
        } else if self.reminded.elapsed() >= REMIND {
            self.reminded = Instant::now();
            for step in &self.running {
                say(&format!("{:>18}  still at work: {}", "", step.text()));
            }
        }
    }

    fn clear(&self) {
        if self.terminal {
            show(ERASE_LINE);
        }
    }
}

fn show(text: &str) {
    // As with `say`.
    let _ = write!(io::stderr(), "{text}");
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col) - 1,
        _ => COLUMNS,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A checkout of its own: in the real one a test would wait for other runs, and they for it.
    fn with_project(name: &str, test: impl FnOnce(&Project)) {
        let root = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).expect("a folder");
        test(&Project::at(root.clone()));
        std::fs::remove_dir_all(root).expect("the folder is ours");
    }

    #[test]
    fn a_step_waits_for_those_before_it_and_a_finished_one_is_skipped() {
        let done = Mutex::new(Vec::new());
        let done = &done;
        let step = |name| {
            Step::new(name, move |_| {
                done.lock().expect("no step panics").push(name);
                Ok(String::new())
            })
        };
        let steps = vec![
            step("last").after(&["first", "finished", "of another command"]),
            step("finished").unless(|| Ok(true)),
            step("first"),
            step("first"),
        ];
        with_project("order", |project| run(project, steps).expect("no step fails"));
        assert_eq!(*done.lock().expect("no step panics"), ["first", "last"]);
    }

    #[test]
    fn a_step_that_panics_fails() {
        with_project("panic", |project| {
            let task = Task { project, name: "broken", news: channel().0 };
            let step = Step::new("broken", |_| panic!("on purpose"));
            assert!(if_needed(&step, &task).is_err());
        });
    }
}
