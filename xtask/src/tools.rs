//! The Rust tools behind the edge's build, pinned, under target/tools.

use std::fs;

use anyhow::{Context, Result};

use crate::project::Project;
use crate::steps::{Step, Task};

/// A program of a crate.
struct Tool {
    package: &'static str,
    program: &'static str,
    flags: &'static [&'static str],
}

const WORKER_BUILD: Tool = Tool { package: "worker-build", program: "worker-build", flags: &[] };

/// The version of worker-build; it follows that of crate `worker`.
const WORKER_BUILD_VERSION: &str = "0.8.7";

/// Without its features, which serve a test runner that is not installed.
const WASM_BINDGEN: Tool =
    Tool { package: "wasm-bindgen-cli", program: "wasm-bindgen", flags: &["--no-default-features"] };

/// Builds both where they are missing: one after the other, because they share dependencies and a build folder.
pub(crate) fn steps(project: &Project) -> [Step<'_>; 2] {
    [
        Step::new("worker-build", |task| WORKER_BUILD.install(project, task, WORKER_BUILD_VERSION))
            .unless(|| Ok(has_worker_build(project)))
            .after(&["packages"]),
        Step::new("wasm-bindgen", |task| WASM_BINDGEN.install(project, task, &wasm_bindgen_version(project)?))
            .unless(|| Ok(WASM_BINDGEN.is_installed(project, &wasm_bindgen_version(project)?)))
            .after(&["worker-build"]),
    ]
}

/// Is there nothing to compile that stands on the operating system's packages?
pub(crate) fn has_worker_build(project: &Project) -> bool {
    WORKER_BUILD.is_installed(project, WORKER_BUILD_VERSION)
}

impl Tool {
    fn install(&self, project: &Project, task: &Task<'_>, version: &str) -> Result<String> {
        let mut command = project.cargo("install");
        command.args(["--force", "--bin", self.program]);
        command.args(self.flags);
        command.arg("--root").arg(project.tools());
        command.arg("--target-dir").arg(project.target().join("tools-build"));
        // Not `--locked`: a registry mirror may lack a version that a published lock file names. Versions that want
        // a newer Rust are passed over instead.
        command.env("CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS", "fallback");
        // They work for a moment at a time: what counts is their own build.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        task.run(command.arg(format!("{}@{version}", self.package)))?;
        Ok(format!("installed {version} under target/tools"))
    }

    /// `cargo install` keeps this list; an entry is written once the programs are in place.
    fn is_installed(&self, project: &Project, version: &str) -> bool {
        let list = fs::read_to_string(project.tools().join(".crates.toml")).unwrap_or_default();
        list.contains(&format!("\"{} {version} ", self.package))
    }
}

/// The program refuses wasm that was made with another version of the crate.
fn wasm_bindgen_version(project: &Project) -> Result<String> {
    let lock = fs::read_to_string(project.path("Cargo.lock"))?;
    let (_, rest) =
        lock.split_once("name = \"wasm-bindgen\"\nversion = \"").context("no wasm-bindgen in Cargo.lock")?;
    let (version, _) = rest.split_once('"').context("Cargo.lock is broken")?;
    Ok(version.to_owned())
}
