//! `cargo xtask bench`: what is measured, side by side with what it is held against.

use anyhow::Result;
use clap::ValueEnum;

use crate::npm::Npm;
use crate::prepare::{Wanted, prepare};
use crate::project::Project;
use crate::steps::say;
use crate::{model, packages, process};

/// A part of the benchmarks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// The embedded model beside llama.cpp by itself
    Embedded,
    /// The origin by itself: a replay, and the memory of held streams
    Streams,
    /// A journal in Redis: the gaps between tokens at two origins
    Redis,
    /// The origin between a provider and its readers: CPU time a frame, memory of a held stream, time to first token, gaps
    Remote,
    /// Through the built worker under workerd: first byte, stop, a thousand streams cut and resumed
    Edge,
}

/// Runs one part of the benchmarks, or all.
pub(crate) fn run(project: &Project, part: Option<Part>) -> Result<()> {
    let wanted = Wanted {
        packages: vec![packages::REDIS],
        npm: Some(Npm::AsLocked),
        edge: true,
        for_tests: true,
        model: true,
        ..Wanted::default()
    };
    prepare(project, &wanted)?;

    let runs = |wanted| part.is_none_or(|part| part == wanted);
    let bench = |name: &str| {
        let mut command = project.locked_cargo("bench");
        command.args(["--package", "headwater-origin", "--bench", name]);
        command
    };
    if runs(Part::Embedded) {
        say("== the embedded model");
        process::run(bench("embedded").args(["--", "--embedded-path"]).arg(model::path(project)))?;
    }
    for (part, title, name) in [
        (Part::Streams, "== streams at the origin", "streams"),
        (Part::Remote, "== remote models", "remote"),
        (Part::Redis, "== two origins and Redis", "redis"),
    ] {
        if runs(part) {
            say(title);
            process::run(&mut bench(name))?;
        }
    }
    if runs(Part::Edge) {
        say("== through the edge");
        process::run(project.command("node").arg("tests/bench/edge.js"))?;
    }
    Ok(())
}
