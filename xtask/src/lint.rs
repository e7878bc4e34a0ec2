//! `cargo xtask lint`: everything that is checked without running it.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::npm::Npm;
use crate::prepare::{Wanted, prepare};
use crate::project::{Project, kilobytes};
use crate::steps::say;
use crate::{edge, layers, packages, process};

/// How `git grep` ends when no line matches.
const NOTHING_FOUND: i32 = 1;

/// Checks the order of modules, formatting, lints, documentation, types and the size of the wasm.
pub(crate) fn run(project: &Project) -> Result<()> {
    let packages = vec![packages::EMBEDDED];
    prepare(project, &Wanted { packages, npm: Some(Npm::AsLocked), edge: true, ..Wanted::default() })?;

    say("== layers");
    layers::check(project)?;
    say("== paths and registries of one machine");
    foreign_places(project)?;
    check("rustfmt", project.cargo("fmt").args(["--all", "--check"]))?;
    // In release like every other build: llama.cpp is compiled once.
    let clippy = ["--release", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    check("clippy", project.locked_cargo("clippy").args(clippy))?;
    check("clippy, wasm", edge::cargo(project, "clippy").args(["--", "--deny", "warnings"]))?;
    let doc = ["--release", "--workspace", "--no-deps"];
    check("documentation", project.locked_cargo("doc").args(doc).env("RUSTDOCFLAGS", "--deny warnings"))?;
    let wasm_doc = &mut edge::cargo(project, "doc");
    check("documentation, wasm", wasm_doc.arg("--no-deps").env("RUSTDOCFLAGS", "--deny warnings"))?;
    check("types", project.command("tsc").args(["--project", "tsconfig.json"]))?;

    let size = edge::gzipped(project)?;
    say(&format!("== wasm, gzipped: {} of at most {}", kilobytes(size), kilobytes(edge::MAX_GZIPPED)));
    ensure!(size < edge::MAX_GZIPPED, "the edge's wasm has grown too large");
    Ok(())
}

/// A committed file holds no path of somebody's machine, and no registry's host but for Cargo.lock.
fn foreign_places(project: &Project) -> Result<()> {
    let pattern = r"/(root|home/[a-z]+|Users/[a-z]+)/|registry\.[a-z]+js\.|pypi\.[a-z]+|index\.crates\.";
    let mut grep = project.command("git");
    grep.args(["grep", "-nIE", pattern, "--", ".", ":!*Cargo.lock"]);
    let output = grep.output().context("cannot start git")?;
    match output.status.code() {
        Some(NOTHING_FOUND) => Ok(()),
        _ => bail!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    }
}

fn check(name: &str, command: &mut Command) -> Result<()> {
    say(&format!("== {name}"));
    let start = Instant::now();
    process::run(command)?;
    say(&format!("   ok ({:.1} s)", start.elapsed().as_secs_f64()));
    Ok(())
}
