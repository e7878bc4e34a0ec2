//! Where things are.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The checkout, and the paths in it that the commands share.
pub(crate) struct Project {
    root: PathBuf,
}

impl Project {
    /// The checkout that this program was built from.
    pub(crate) fn find() -> Result<Self> {
        // Set by `cargo run`, and right even after the checkout was moved.
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask has no parent folder")?.to_path_buf();
        if !root.join("Cargo.lock").is_file() {
            bail!("{} is not the checkout: run `cargo xtask` inside it", root.display());
        }
        Ok(Self { root })
    }

    /// Another folder as a checkout, which holds nothing yet.
    #[cfg(test)]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// A path relative to the checkout's root.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Always `target/` of the checkout, so that tests and servers find what the set-up made.
    pub(crate) fn target(&self) -> PathBuf {
        self.path("target")
    }

    /// Logs of steps and servers.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.target().join("logs").join(name).with_extension("log")
    }

    /// The pinned Rust tools, as `cargo install --root` lays them out.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// A program that `npm ci` installed.
    pub(crate) fn node_bin(&self, name: &str) -> PathBuf {
        self.path("node_modules/.bin").join(name)
    }

    /// The origin's release binary.
    pub(crate) fn origin(&self) -> PathBuf {
        self.target().join("release").join("headwater-origin")
    }

    /// The edge's wasm as it is deployed.
    pub(crate) fn edge_wasm(&self) -> PathBuf {
        self.path("build/index_bg.wasm")
    }

    /// The edge's JavaScript as it is deployed.
    pub(crate) fn edge_script(&self) -> PathBuf {
        self.path("build/index.js")
    }

    /// A command in the checkout's root that finds the pinned Node first, and builds into [`Project::target`].
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut path = self.path("node_modules/.bin").into_os_string();
        if let Some(inherited) = env::var_os("PATH") {
            path.push(":");
            path.push(inherited);
        }
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", path).env("CARGO_TARGET_DIR", self.target());
        command
    }

    /// `cargo SUBCOMMAND`, of the toolchain that runs this program.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg(subcommand);
        command
    }

    /// The same for a subcommand that reads Cargo.lock, and would bring a stale one up to date in silence.
    pub(crate) fn locked_cargo(&self, subcommand: &str) -> Command {
        let mut command = self.cargo(subcommand);
        command.arg("--locked");
        command
    }
}

/// A file's text; none where there is no file.
pub(crate) fn read_if_exists(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A file's SHA-256 in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A size for people, in thousands of bytes.
pub(crate) fn kilobytes(bytes: u64) -> String {
    const PER_KILOBYTE: f64 = 1000.0;
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let kilobytes = bytes as f64 / PER_KILOBYTE;
    format!("{kilobytes:.1} kB")
}
