//! The clients of `tests/readers`: Python's in a virtual environment of their own, Rust's as examples of the origin's tests.
//! Those of npm come with `node_modules`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::project::Project;
use crate::steps::Steps;

/// The Python packages, pinned by version and hash.
const REQUIREMENTS: &str = "tests/readers/requirements.txt";

/// Installs Python's clients where they are missing.
pub(crate) fn install_python(project: &Project, steps: &Steps<'_>) -> Result<()> {
    if has_python(project) {
        return Ok(());
    }
    steps.run("python clients", |step| {
        let folder = folder(project);
        // A run that was broken off may have left half of it.
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        step.run(project.command("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = project.command(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--no-deps", "--require-hashes", "--progress-bar", "off", "--requirement"]);
        step.run(pip.arg(project.path(REQUIREMENTS)))?;
        fs::copy(project.path(REQUIREMENTS), installed(project))?;
        Ok(format!("installed the packages of {REQUIREMENTS}"))
    })
}

/// Builds Rust's clients.
pub(crate) fn build_rust(project: &Project, steps: &Steps<'_>) -> Result<()> {
    steps.run("rust clients", |step| {
        // Together with the origin, so that the dependencies of both are built once.
        let packages = ["--package", "headwater-origin", "--package", "headwater-origin-testing"];
        step.run(project.locked_cargo("build").arg("--release").args(packages).arg("--examples"))?;
        Ok("built in release".to_owned())
    })
}

/// Are Python's clients there, as the requirements name them?
pub(crate) fn has_python(project: &Project) -> bool {
    let installed = fs::read(installed(project)).ok();
    installed.is_some() && installed == fs::read(project.path(REQUIREMENTS)).ok()
}

fn folder(project: &Project) -> PathBuf {
    project.target().join("readers")
}

/// The requirements that are installed.
fn installed(project: &Project) -> PathBuf {
    folder(project).join("requirements.txt")
}
