//! `cargo xtask test`: what the tests need, then all of them.

use anyhow::Result;
use clap::ValueEnum;

use crate::project::Project;
use crate::setup::Npm;
use crate::steps::say;
use crate::{edge, model, origin, packages, process, readers, setup, steps};

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
    set_up(project, &runs)?;
    if runs(Part::Rust) {
        say("== cargo test");
        // In release, because the servers are: llama.cpp is compiled once.
        process::run(project.cargo("test").args(["--release", "--workspace"]))?;
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

fn set_up(project: &Project, runs: &dyn Fn(Part) -> bool) -> Result<()> {
    let mut needs = Vec::new();
    let mut steps = Vec::new();
    if runs(Part::Rust) || runs(Part::E2e) {
        needs.extend([packages::EMBEDDED, packages::REDIS]);
        needs.extend(model::needs(project));
        steps.extend(model::steps(project));
    }
    if runs(Part::Client) {
        steps.extend(setup::npm_packages(project, Npm::AsLocked));
    }
    if runs(Part::E2e) {
        needs.push(packages::CHROMIUM);
        needs.extend(setup::edge_needs(project));
        needs.extend(readers::needs(project));
        steps.extend(readers::steps(project));
        steps.extend([origin::step(project, origin::Embedded::Yes), origin::scripted(project)]);
        steps.extend(edge::steps(project, Npm::AsLocked));
    }
    steps.push(packages::step(needs));
    steps::run(project, steps)
}
