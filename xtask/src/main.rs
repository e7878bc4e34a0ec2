//! The project's own commands, run as `cargo xtask COMMAND`.
//!
//! # Layout
//! A module uses only modules below it:
//! - `dev`, `test`, `bench`, `lint`: the commands
//! - `layers`: the order of modules
//! - `prepare`: what a command stands on, in lanes side by side
//! - `edge`, `model`, `clients`, `origin`: the builds
//! - `tools`, `npm`, `secret`, `packages`: what is installed, or written once
//! - `steps`: shows the work of a set-up
//! - `project`: where things are
//! - `process`: programs that never outlive this one

mod bench;
mod clients;
mod dev;
mod edge;
mod layers;
mod lint;
mod model;
mod npm;
mod origin;
mod packages;
mod prepare;
mod process;
mod project;
mod secret;
mod steps;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use npm::Npm;
use origin::Embedded;
use prepare::{Wanted, prepare};
use project::{Project, kilobytes};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Headwater's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set everything up, build, and run the edge and the origin until Ctrl-C
    Dev(dev::Options),
    /// Run all tests, or one part of them
    Test {
        /// Which part; all when left out
        part: Option<test::Part>,
    },
    /// Run all benchmarks, or one part of them
    Bench {
        /// Which part; all when left out
        part: Option<bench::Part>,
    },
    /// Check the order of modules, formatting, lints, documentation, types and the size of the wasm
    Lint,
    /// Build the release artefacts of the edge and the origin
    Build,
    /// Build the edge into build/ (wrangler's build command)
    Edge,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = process::watch_signals().and_then(|()| run(cli.command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if process::interrupted() => ExitCode::from(process::INTERRUPTED),
        Err(error) => {
            steps::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let project = Project::find()?;
    match command {
        Command::Dev(options) => dev::run(&project, &options),
        Command::Test { part } => test::run(&project, part),
        Command::Bench { part } => bench::run(&project, part),
        Command::Lint => lint::run(&project),
        Command::Build => build(&project),
        Command::Edge => edge(&project),
    }
}

fn edge(project: &Project) -> Result<()> {
    prepare(project, &Wanted { npm: Some(Npm::IfMissing), edge: true, ..Wanted::default() })
}

fn build(project: &Project) -> Result<()> {
    let origin = Some(Embedded::Yes);
    prepare(project, &Wanted { npm: Some(Npm::AsLocked), edge: true, origin, ..Wanted::default() })?;
    for path in [project.origin(), project.edge_wasm(), project.edge_script()] {
        println!("{} {}", path.display(), kilobytes(path.metadata()?.len()));
    }
    Ok(())
}
