//! The edge: compiled by cargo, joined with its JavaScript by worker-build.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::read::GzEncoder;

use crate::project::{Project, kilobytes, sha256};
use crate::steps::Steps;
use crate::tools::WASM;

/// The edge's package, and cargo's profile for it.
pub(crate) const PACKAGE: &str = "headwater-edge";
pub(crate) const PROFILE: &str = "edge";

/// A worker starts in proportion to this; the project's own limit.
pub(crate) const MAX_GZIPPED: u64 = 100_000;

/// Crate `sha2` in its small form: a key is short, and hashed in a microsecond either way.
const RUSTFLAGS: (&str, &str) =
    ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", "--cfg sha2_backend_soft=\"compact\"");

/// Speed first, as in the cargo profile, and the features that rustc and wasm-bindgen use.
const WASM_OPT: [&str; 10] = [
    "-O3",
    "--enable-mutable-globals",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-bulk-memory",
    "--enable-multivalue",
    "--enable-reference-types",
    "--enable-exception-handling",
    "--strip-debug",
    "--strip-producers",
];

/// Builds the edge; [`crate::tools`] and [`crate::npm`] bring what it needs.
pub(crate) fn build(project: &Project, steps: &Steps<'_>) -> Result<()> {
    steps.run("edge", |step| {
        step.run(&mut cargo(project, "build"))?;
        let stamp_path = project.path("build/.made-from");
        let is_current = fs::read_to_string(&stamp_path).is_ok_and(|then| stamp(project).is_ok_and(|now| then == now));
        if !is_current {
            let mut command = project.command(project.tools().join("bin/worker-build"));
            // In one word: worker-build would take the name for a path.
            command.args(["--profile", PROFILE, "--no-opt", "--", "--locked", &format!("--package={PACKAGE}")]);
            command.env(RUSTFLAGS.0, RUSTFLAGS.1);
            command.env("WASM_BINDGEN_BIN", project.tools().join("bin/wasm-bindgen"));
            command.env("ESBUILD_BIN", project.node_bin("esbuild"));
            step.run(&mut command)?;
            // Not by worker-build: it would keep the names of all functions, which is a quarter of the wasm.
            let mut command = project.command(project.node_bin("wasm-opt"));
            command.arg(project.edge_wasm()).arg("-o").arg(project.edge_wasm());
            step.run(command.args(WASM_OPT))?;
            fs::write(stamp_path, stamp(project)?)?;
        }
        let did = if is_current { "unchanged" } else { "built" };
        Ok(format!("{did}, {} gzipped", kilobytes(gzipped(project)?)))
    })
}

/// `cargo SUBCOMMAND` of the edge for its own target, as worker-build calls it.
pub(crate) fn cargo(project: &Project, subcommand: &str) -> Command {
    let mut command = project.locked_cargo(subcommand);
    command.args(["--package", PACKAGE, "--lib", "--target", WASM, "--profile", PROFILE]);
    // worker-build sets it; the macros' output depends on it.
    command.env("WASM_BINDGEN_USE_JS_SYS", "1").env(RUSTFLAGS.0, RUSTFLAGS.1);
    command
}

/// The size of the wasm as it goes over the wire.
pub(crate) fn gzipped(project: &Project) -> Result<u64> {
    let path = project.edge_wasm();
    let wasm = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(io::copy(&mut GzEncoder::new(wasm, Compression::default()), &mut io::sink())?)
}

/// The hashes of what worker-build reads, of the tools that are installed, and of what was made.
fn stamp(project: &Project) -> Result<String> {
    let cargo_made = project.target().join(WASM).join(PROFILE).join("headwater_edge.wasm");
    let configuration = ["Cargo.toml", "Cargo.lock", "xtask/src/edge.rs"].map(|name| project.path(name));
    // What npm and cargo wrote down of the tools that they installed: not the wish, but what runs.
    let tools = [project.path("node_modules/.package-lock.json"), project.tools().join(".crates.toml")];
    let made = [project.edge_wasm(), project.edge_script()];
    let files: Vec<PathBuf> = configuration.into_iter().chain(tools).chain(made).chain([cargo_made]).collect();
    files.iter().map(|path| Ok(format!("{} {}\n", sha256(path)?, path.display()))).collect()
}
