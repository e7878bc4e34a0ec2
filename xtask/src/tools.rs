//! The edge's Rust tools: the compilation target, and programs of pinned versions under target/tools.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::packages::on_path;
use crate::project::Project;
use crate::steps::Steps;

/// The Workers runtime's compilation target.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// A program of a crate.
struct Tool {
    package: &'static str,
    /// The dependency of ours whose version is the tool's too.
    like: &'static str,
    program: &'static str,
    flags: &'static [&'static str],
}

/// Joins the edge's wasm with its JavaScript; released together with crate `worker`.
const WORKER_BUILD: Tool =
    Tool { package: "worker-build", like: "worker", program: "worker-build", flags: &["--locked"] };

/// Refuses wasm that another version of crate `wasm-bindgen` made. Without its features, which serve a test runner that is
/// not installed. Not `--locked`: its lock file named a version (webpki-roots 1.0.11) that registry mirrors did not have.
const WASM_BINDGEN: Tool = Tool {
    package: "wasm-bindgen-cli",
    like: "wasm-bindgen",
    program: "wasm-bindgen",
    flags: &["--no-default-features"],
};

/// Installs what is missing. One after the other: the programs share a build folder.
pub(crate) fn install(project: &Project, steps: &Steps<'_>) -> Result<()> {
    add_target(project, steps)?;
    WORKER_BUILD.install(project, steps)?;
    WASM_BINDGEN.install(project, steps)
}

/// Is there nothing left to compile that needs OpenSSL?
pub(crate) fn has_worker_build(project: &Project) -> Result<bool> {
    WORKER_BUILD.is_installed(project, &WORKER_BUILD.version(project)?)
}

/// rust-toolchain.toml names the target; a toolchain chosen in another way may lack it.
fn add_target(project: &Project, steps: &Steps<'_>) -> Result<()> {
    let output = project.command("rustc").args(["--print", "target-libdir", "--target", WASM]).output()?;
    if Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir() {
        return Ok(());
    }
    steps.run("wasm target", |step| {
        if !on_path("rustup") {
            bail!("rustup is missing: install Rust with it, or {WASM} in the way of your Rust distribution");
        }
        step.run(project.command("rustup").args(["target", "add", WASM]))?;
        Ok(format!("added {WASM}"))
    })
}

impl Tool {
    fn install(&self, project: &Project, steps: &Steps<'_>) -> Result<()> {
        let version = self.version(project)?;
        if self.is_installed(project, &version)? {
            return Ok(());
        }
        steps.run(self.program, |step| {
            let mut command = project.cargo("install");
            command.args(["--force", "--bin", self.program]).args(self.flags);
            command.arg("--root").arg(project.tools());
            command.arg("--target-dir").arg(project.target().join("tools-build"));
            // Where no lock file decides, versions that want a newer Rust are passed over.
            command.env("CARGO_RESOLVER_INCOMPATIBLE_RUST_VERSIONS", "fallback");
            // They work for a moment at a time: what counts is how long they take to build.
            command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
            step.run(command.arg(format!("{}@{version}", self.package)))?;
            Ok(format!("installed {version} under target/tools"))
        })
    }

    /// `cargo install` keeps this list; it writes an entry once the program is in place.
    fn is_installed(&self, project: &Project, version: &str) -> Result<bool> {
        let list = project.tools().join(".crates.toml");
        Ok(list.is_file() && fs::read_to_string(list)?.contains(&format!("\"{} {version} ", self.package)))
    }

    fn version(&self, project: &Project) -> Result<String> {
        // Answers with REGISTRY#PACKAGE@VERSION, as Cargo.lock has it.
        let output = project.locked_cargo("pkgid").arg(self.like).output()?;
        let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let (_, version) = id.rsplit_once('@').with_context(|| {
            format!("cargo pkgid {} failed: {}", self.like, String::from_utf8_lossy(&output.stderr).trim())
        })?;
        Ok(version.to_owned())
    }
}
