//! Python's clients of `tests/readers` and `tests/clients`, in virtual environments of their own. Rust's are examples of the
//! origin's tests; those of npm come with `node_modules`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::project::Project;
use crate::steps::Steps;

/// Python's packages, pinned by version and hash: a virtual environment's folder in `target/`, its requirements.
const PYTHON: [(&str, &str); 3] = [
    ("readers", "tests/readers/requirements.txt"),
    ("clients", "tests/clients/requirements.txt"),
    ("clients-openai-1", "tests/clients/requirements-openai-1.txt"),
];

/// Installs Python's clients where they are missing.
pub(crate) fn install_python(project: &Project, steps: &Steps<'_>) -> Result<()> {
    for (folder, requirements) in missing(project) {
        steps.run("python clients", |step| {
            let folder = project.target().join(folder);
            // A run that was broken off may have left half of it.
            if folder.exists() {
                fs::remove_dir_all(&folder)?;
            }
            step.run(project.command("python3").args(["-m", "venv"]).arg(&folder))?;
            let mut pip = project.command(folder.join("bin/python"));
            pip.args(["-m", "pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"]);
            step.run(pip.args(["--progress-bar", "off", "--requirement"]).arg(project.path(requirements)))?;
            fs::copy(project.path(requirements), installed(&folder))?;
            Ok(format!("installed the packages of {requirements}"))
        })?;
    }
    Ok(())
}

/// Are Python's clients there, as the requirements name them?
pub(crate) fn has_python(project: &Project) -> bool {
    missing(project).next().is_none()
}

fn missing(project: &Project) -> impl Iterator<Item = (&'static str, &'static str)> {
    PYTHON.into_iter().filter(|(folder, requirements)| {
        let installed = fs::read(installed(&project.target().join(folder))).ok();
        installed.is_none() || installed != fs::read(project.path(requirements)).ok()
    })
}

/// The requirements that are installed in a folder.
fn installed(folder: &Path) -> PathBuf {
    folder.join("requirements.txt")
}
