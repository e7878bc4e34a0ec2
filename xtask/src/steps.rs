//! The steps of a set-up: shown while they work, run in lanes side by side, given up together when one fails.

use std::fs::{self, File};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::process;
use crate::project::Project;

/// How often the lines of running steps are drawn anew.
const REDRAW: Duration = Duration::from_millis(250);

/// Where there is no terminal, how often a step repeats its last line of output.
const REMIND: Duration = Duration::from_secs(20);

/// The line of a running step.
const LINE: &str = "{prefix:>18}  {elapsed} {wide_msg:.dim}";

/// The steps of one run.
pub(crate) struct Steps<'a> {
    project: &'a Project,
    lines: MultiProgress,
    _lock: File,
}

impl<'a> Steps<'a> {
    /// Waits until no other run works on this checkout.
    pub(crate) fn begin(project: &'a Project) -> Result<Self> {
        fs::create_dir_all(project.target())?;
        let lock = File::create(project.target().join("xtask.lock"))?;
        if lock.try_lock().is_err() {
            say("waiting for another cargo xtask to finish its set-up");
            lock.lock()?;
        }
        Ok(Self { project, lines: MultiProgress::new(), _lock: lock })
    }

    /// Does a step's work, which says in a few words what it did.
    pub(crate) fn run(&self, name: &'static str, work: impl FnOnce(&Step<'_>) -> Result<String>) -> Result<()> {
        let line = self.lines.add(ProgressBar::new_spinner().with_prefix(name));
        line.set_style(ProgressStyle::with_template(LINE)?);
        line.enable_steady_tick(REDRAW);
        let start = Instant::now();
        let end = work(&Step { project: self.project, name, line: &line });
        line.finish_and_clear();
        let did = end.with_context(|| format!("{name} failed"))?;
        self.lines.suspend(|| say(&format!("{name:>18}  {did} ({:.1} s)", start.elapsed().as_secs_f64())));
        Ok(())
    }
}

/// A step at work.
pub(crate) struct Step<'a> {
    project: &'a Project,
    name: &'static str,
    line: &'a ProgressBar,
}

impl Step<'_> {
    /// Runs a command whose output goes to the step's log, its last line to the terminal.
    pub(crate) fn run(&self, command: &mut Command) -> Result<()> {
        let log = self.project.log(&format!("step {}", self.name).replace(' ', "-"));
        let (name, shown, start) = (self.name, self.line.clone(), Instant::now());
        let mut reminded = start;
        process::run_logged(command, &log, move |line| {
            // A program that draws its own progress returns to the line's start.
            let line = line.rsplit('\r').next().unwrap_or_default().trim().to_owned();
            if shown.is_hidden() && reminded.elapsed() >= REMIND {
                reminded = Instant::now();
                say(&format!("{name:>18}  still at work after {} s: {line}", start.elapsed().as_secs()));
            }
            shown.set_message(line);
        })
    }
}

/// Runs lanes side by side. The first failure ends the programs of all lanes.
pub(crate) fn side_by_side(lanes: &[&(dyn Fn() -> Result<()> + Sync)]) -> Result<()> {
    let first: Mutex<Option<Error>> = Mutex::new(None);
    thread::scope(|scope| {
        for lane in lanes {
            scope.spawn(|| {
                if let Err(error) = lane() {
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    process::end_all();
                }
            });
        }
    });
    first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Writes one line for the user.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // A closed terminal is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{line}");
}
