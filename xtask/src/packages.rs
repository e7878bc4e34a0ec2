//! Packages of the operating system: installed where root runs Debian or a relative, else named.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::steps::Steps;

/// Something the operating system has to bring.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    name: &'static str,
    debian: &'static [&'static str],
    is_there: fn() -> bool,
}

/// cargo's `openssl-sys`, on which worker-build stands.
pub(crate) const OPENSSL: Need = Need {
    name: "OpenSSL's headers",
    debian: &["libssl-dev", "pkg-config"],
    is_there: || {
        cfg!(target_os = "macos")
            || env::var_os("OPENSSL_DIR").is_some()
            || succeeds("pkg-config", &["--exists", "openssl"])
    },
};

/// llama.cpp is built from source; its bindings are made with libclang, which is found here as bindgen finds it.
pub(crate) const EMBEDDED: Need = Need {
    name: "cmake, a C++ compiler and libclang (LIBCLANG_PATH names the folder of one in an unusual place)",
    debian: &["cmake", "g++", "libclang-dev"],
    is_there: || on_path("cmake") && on_path("c++") && clang_sys::load().is_ok(),
};

/// The embedded model comes as a Python package.
pub(crate) const PIP: Need = Need {
    name: "Python 3 with pip",
    debian: &["python3-pip"],
    is_there: || succeeds("python3", &["-m", "pip", "--version"]),
};

/// Python clients of the end-to-end tests are installed into a virtual environment.
pub(crate) const VENV: Need = Need {
    name: "Python 3 with venv",
    debian: &["python3-venv"],
    // Debian's Python has `venv` without `ensurepip`, which it needs.
    is_there: || succeeds("python3", &["-c", "import ensurepip, venv"]),
};

/// Keeps the journal of several origins.
pub(crate) const REDIS: Need =
    Need { name: "redis-server", debian: &["redis-server"], is_there: || on_path("redis-server") };

/// Makes the network of a test whose link goes down.
pub(crate) const IPROUTE: Need =
    Need { name: "ip, of iproute2", debian: &["iproute2"], is_there: || !cfg!(target_os = "linux") || on_path("ip") };

/// The browser of the end-to-end tests.
pub(crate) const CHROMIUM: Need =
    Need { name: "chromium", debian: &["chromium", "fonts-liberation"], is_there: || chromium().is_some() };

/// Says where the browser is, to this program and to the tests.
pub(crate) const CHROMIUM_VARIABLE: &str = "CHROMIUM";

/// The names that the browser goes by.
const CHROMIUM_PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Where the browser of the end-to-end tests is.
pub(crate) fn chromium() -> Option<PathBuf> {
    let configured = env::var_os(CHROMIUM_VARIABLE).filter(|path| !path.is_empty());
    configured.map(PathBuf::from).or_else(|| CHROMIUM_PROGRAMS.iter().find_map(|program| which::which(program).ok()))
}

/// Is there a program of this name on the `PATH`?
pub(crate) fn on_path(program: &str) -> bool {
    which::which(program).is_ok()
}

/// Installs those that are missing.
pub(crate) fn install(steps: &Steps<'_>, needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !(need.is_there)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.debian).copied().collect();
    if !on_path("apt-get") {
        let names: Vec<_> = missing.iter().map(|need| need.name).collect();
        bail!("please install {}", names.join(", "));
    }
    if !rustix::process::geteuid().is_root() {
        bail!("please run: sudo apt-get update && sudo apt-get install --yes {}", packages.join(" "));
    }
    steps.run("packages", |step| {
        let apt = |arguments: &[&str]| {
            let mut command = Command::new("apt-get");
            command.env("DEBIAN_FRONTEND", "noninteractive");
            // Waits for another apt-get to finish; a download is tried again.
            command.args(["--option", "DPkg::Lock::Timeout=300", "--option", "Acquire::Retries=3"]);
            step.run(command.args(arguments))
        };
        apt(&["update"])?;
        apt(&[["install", "--yes", "--no-install-recommends"].as_slice(), &packages].concat())?;
        Ok(format!("installed {}", packages.join(", ")))
    })
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
