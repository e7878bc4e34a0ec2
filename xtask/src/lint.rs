//! `cargo xtask lint`: everything that is checked without running it.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::npm::Npm;
use crate::prepare::{Wanted, prepare};
use crate::project::{Project, kilobytes};
use crate::steps::say;
use crate::{edge, packages, process};

/// Checks formatting, lints, documentation, types and the size of the wasm.
pub(crate) fn run(project: &Project) -> Result<()> {
    let packages = vec![packages::EMBEDDED];
    prepare(project, &Wanted { packages, npm: Some(Npm::AsLocked), edge: true, ..Wanted::default() })?;

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

fn check(name: &str, command: &mut Command) -> Result<()> {
    say(&format!("== {name}"));
    let start = Instant::now();
    process::run(command)?;
    say(&format!("   ok ({:.1} s)", start.elapsed().as_secs_f64()));
    Ok(())
}
