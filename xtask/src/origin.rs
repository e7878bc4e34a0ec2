//! The origin's builds.

use std::process::Command;

use crate::project::Project;
use crate::steps::Step;

const PACKAGE: &str = "headwater-origin";

/// Is the embedded model, and with it llama.cpp, compiled in?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedded {
    /// It is.
    Yes,
    /// It isn't: only remote models are asked.
    No,
}

/// The release binary.
pub(crate) fn step(project: &Project, embedded: Embedded) -> Step<'_> {
    Step::new("origin", move |task| {
        let mut command = build(project);
        if embedded == Embedded::No {
            command.arg("--no-default-features");
        }
        task.run(&mut command)?;
        Ok("built in release".to_owned())
    })
    .after(&["packages"])
}

/// The origin with a scripted model, for tests.
pub(crate) fn scripted(project: &Project) -> Step<'_> {
    Step::new("scripted origin", |task| {
        task.run(build(project).args(["--example", "scripted"]))?;
        Ok("built in release".to_owned())
    })
    .after(&["packages", "origin"])
}

/// Writes a model's weights anew; takes both paths.
pub(crate) fn requantise(project: &Project) -> Command {
    let mut command = in_release(project, "run");
    command.args(["--example", "requantise", "--"]);
    command
}

fn build(project: &Project) -> Command {
    in_release(project, "build")
}

fn in_release(project: &Project, subcommand: &str) -> Command {
    let mut command = project.cargo(subcommand);
    command.args(["--release", "--package", PACKAGE]);
    command
}
