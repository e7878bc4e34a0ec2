//! The edge: compiled by cargo, joined with its JavaScript by worker-build.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::project::{Project, kilobytes, sha256};
use crate::setup::{self, Npm, WASM};
use crate::steps::{Step, Task};

/// The edge's package, and cargo's profile for it.
pub(crate) const PACKAGE: &str = "headwater-edge";
pub(crate) const PROFILE: &str = "edge";

/// A worker starts in proportion to this; the project's own limit.
pub(crate) const MAX_GZIPPED: u64 = 100_000;

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

/// Everything that the build needs but for the operating system's packages, and the build.
pub(crate) fn steps(project: &Project, npm: Npm) -> Vec<Step<'_>> {
    let mut steps = setup::edge_tools(project, npm);
    let build = Step::new("edge", |task| build(project, task));
    steps.push(build.after(&["wasm target", "worker-build", "wasm-bindgen", "npm"]));
    steps
}

/// `cargo SUBCOMMAND` of the edge for its own target, as worker-build calls it.
pub(crate) fn cargo(project: &Project, subcommand: &str) -> Command {
    let mut command = project.cargo(subcommand);
    command.args(["--package", PACKAGE, "--lib", "--target", WASM, "--profile", PROFILE]);
    // worker-build sets it; the macros' output depends on it.
    command.env("WASM_BINDGEN_USE_JS_SYS", "1");
    command
}

/// The size of the wasm as it goes over the wire.
pub(crate) fn gzipped(project: &Project) -> Result<u64> {
    let path = project.edge_wasm();
    let mut wasm = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = GzEncoder::new(Count(0), Compression::default());
    io::copy(&mut wasm, &mut encoder)?;
    Ok(encoder.finish()?.0)
}

fn build(project: &Project, task: &Task<'_>) -> Result<String> {
    task.run(&mut cargo(project, "build"))?;
    let stamp_path = project.path("build/.made-from");
    let is_current = fs::read_to_string(&stamp_path).is_ok_and(|then| stamp(project).is_ok_and(|now| then == now));
    if !is_current {
        let mut command = project.command(project.tools().join("bin/worker-build"));
        // In one word: worker-build would take the name for a path.
        command.args(["--profile", PROFILE, "--no-opt", "--", &format!("--package={PACKAGE}")]);
        command.env("WASM_BINDGEN_BIN", project.tools().join("bin/wasm-bindgen"));
        command.env("ESBUILD_BIN", project.node_bin("esbuild"));
        task.run(&mut command)?;
        // Not by worker-build: it would keep the names of all functions, which is a quarter of the wasm.
        let mut command = project.command(project.node_bin("wasm-opt"));
        command.arg(project.edge_wasm()).arg("-o").arg(project.edge_wasm());
        task.run(command.args(WASM_OPT))?;
        fs::write(stamp_path, stamp(project)?)?;
    }
    let did = if is_current { "unchanged" } else { "built" };
    Ok(format!("{did}, {} gzipped", kilobytes(gzipped(project)?)))
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

/// Counts the bytes that would be written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
