//! The clients of `tests/readers`: Python's in a virtual environment of their own, Rust's as examples of the origin's tests.
//! Those of npm come with `node_modules`.

use std::fs;
use std::path::PathBuf;

use crate::packages::{self, Need};
use crate::project::Project;
use crate::steps::Step;

/// The Python packages, pinned by version and hash.
const REQUIREMENTS: &str = "tests/readers/requirements.txt";

/// Installs and builds the clients.
pub(crate) fn steps(project: &Project) -> [Step<'_>; 2] {
    let python = Step::new("python clients", |task| {
        let folder = folder(project);
        // A run that was broken off may have left half of it.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        task.run(project.command("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = project.command(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--no-deps", "--require-hashes", "--progress-bar", "off", "--requirement"]);
        task.run(pip.arg(project.path(REQUIREMENTS)))?;
        fs::copy(project.path(REQUIREMENTS), installed(project))?;
        Ok(format!("installed the packages of {REQUIREMENTS}"))
    })
    .unless(|| Ok(is_installed(project)))
    .after(&["packages"]);
    let rust = Step::new("rust clients", |task| {
        // Together with the origin, so that the dependencies of both are built once.
        let packages = ["--package", "headwater-origin", "--package", "headwater-origin-testing"];
        task.run(project.cargo("build").arg("--release").args(packages).arg("--examples"))?;
        Ok("built in release".to_owned())
    })
    .after(&["packages", "origin", "scripted origin"]);
    [python, rust]
}

/// What the operating system has to bring for [`steps`]: nothing once they are done.
pub(crate) fn needs(project: &Project) -> Vec<Need> {
    if is_installed(project) { Vec::new() } else { vec![packages::VENV] }
}

fn folder(project: &Project) -> PathBuf {
    project.target().join("readers")
}

/// The requirements that are installed.
fn installed(project: &Project) -> PathBuf {
    folder(project).join("requirements.txt")
}

fn is_installed(project: &Project) -> bool {
    let installed = fs::read(installed(project)).ok();
    installed.is_some() && installed == fs::read(project.path(REQUIREMENTS)).ok()
}
