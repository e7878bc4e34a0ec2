//! The origin's builds.

use std::process::Command;

use anyhow::Result;

use crate::project::Project;
use crate::steps::Steps;

const PACKAGE: &str = "headwater-origin";

/// Is the embedded model, and with it llama.cpp, compiled in?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Embedded {
    /// It is.
    Yes,
    /// It isn't: only remote models are asked.
    No,
}

/// Builds the release binary.
pub(crate) fn build(project: &Project, steps: &Steps<'_>, embedded: Embedded) -> Result<()> {
    steps.run("origin", |step| {
        let mut command = in_release(project, "build");
        if embedded == Embedded::No {
            command.arg("--no-default-features");
        }
        step.run(&mut command)?;
        Ok("built in release".to_owned())
    })
}

/// Builds what tests run: the origin, the origin with a scripted model, Rust's clients. All of the workspace at once, as
/// `cargo test` does: with other packages dependencies have other features, and are built once more.
pub(crate) fn build_for_tests(project: &Project, steps: &Steps<'_>) -> Result<()> {
    steps.run("origins for tests", |step| {
        step.run(project.locked_cargo("build").args(["--release", "--workspace", "--bins", "--examples"]))?;
        Ok("built in release".to_owned())
    })
}

/// The program that writes a model's weights anew; takes both paths. `is_built`: by [`build_for_tests`].
pub(crate) fn quantize(project: &Project, is_built: bool) -> Command {
    if is_built {
        return project.command(project.target().join("release/examples/quantize"));
    }
    let mut command = in_release(project, "run");
    command.args(["--example", "quantize", "--"]);
    command
}

fn in_release(project: &Project, subcommand: &str) -> Command {
    let mut command = project.locked_cargo(subcommand);
    command.args(["--release", "--package", PACKAGE]);
    command
}
