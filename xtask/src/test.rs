//! `cargo xtask test`: what the tests need, then all of them.

use anyhow::Result;
use clap::ValueEnum;

use crate::npm::Npm;
use crate::prepare::{Wanted, prepare};
use crate::project::Project;
use crate::steps::say;
use crate::{packages, process};

/// A part of the tests.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Unit tests, and the origin through a socket
    Rust,
    /// The browser library, in Node
    Client,
    /// The page in Chromium, through the real edge to the real origin
    E2e,
}

/// Runs one part of the tests, or all.
pub(crate) fn run(project: &Project, part: Option<Part>) -> Result<()> {
    let runs = |wanted| part.is_none_or(|part| part == wanted);
    let with_model = runs(Part::Rust) || runs(Part::E2e);
    let mut wanted = Wanted {
        npm: (runs(Part::Client) || runs(Part::E2e)).then_some(Npm::AsLocked),
        edge: runs(Part::E2e),
        for_tests: with_model,
        python: runs(Part::E2e),
        model: with_model,
        ..Wanted::default()
    };
    if with_model {
        wanted.packages.push(packages::REDIS);
    }
    if runs(Part::Rust) {
        wanted.packages.push(packages::IPROUTE);
    }
    if runs(Part::E2e) {
        wanted.packages.push(packages::CHROMIUM);
    }
    prepare(project, &wanted)?;

    if runs(Part::Rust) {
        say("== cargo test");
        // In release, because the servers are: llama.cpp is compiled once.
        process::run(project.locked_cargo("test").args(["--release", "--workspace"]))?;
    }
    if runs(Part::Client) {
        say("== node --test");
        // Node has an EventSource, but hides it.
        let flags = ["--experimental-eventsource", "--test", "tests/client/**/*.test.js"];
        process::run(project.command("node").args(flags))?;
    }
    if runs(Part::E2e) {
        say("== playwright test");
        let mut command = project.command("playwright");
        command.args(["test", "--config", "tests/playwright.config.js"]);
        command.envs(packages::chromium().map(|path| (packages::CHROMIUM_VARIABLE, path)));
        process::run(&mut command)?;
    }
    Ok(())
}
