//! npm's packages, and the module of one of them that the page imports.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::packages::on_path;
use crate::project::{Project, read_if_exists};
use crate::steps::Steps;

/// The package whose modules the page imports by relative path.
const VENDORED: &str = "eventsource-parser";

/// When `npm ci` runs. It deletes node_modules first, which a wrangler that runs from there would not survive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Npm {
    /// Whenever node_modules differs from package-lock.json.
    AsLocked,
    /// Only where there is no wrangler, or no Node for it.
    IfMissing,
}

/// Installs node_modules, and copies the page's module from it.
pub(crate) fn install(project: &Project, steps: &Steps<'_>, when: Npm) -> Result<()> {
    let has_programs = ["node", "wrangler"].iter().all(|name| project.node_bin(name).exists());
    if !has_programs || (when == Npm::AsLocked && !is_as_locked(project)?) {
        steps.run("npm", |step| {
            if !on_path("npm") {
                bail!("npm is missing: install Node.js (any maintained version; npm then brings the pinned one)");
            }
            // The pinned Node comes by a script, whatever a user's configuration says of scripts.
            step.run(project.command("npm").args(["ci", "--ignore-scripts=false"]))?;
            Ok("installed the packages of package-lock.json".to_owned())
        })?;
    }
    let files = vendored(project)?;
    if files.iter().all(|(from, to)| fs::read(from).ok() == fs::read(to).ok()) {
        return Ok(());
    }
    steps.run("vendor", |_| {
        for (from, to) in files {
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(format!("copied {VENDORED} to public/vendor"))
    })
}

fn is_as_locked(project: &Project) -> Result<bool> {
    // npm writes this file last of all.
    let installed = read_if_exists(&project.path("node_modules/.package-lock.json"))?;
    let wanted = serde_json::from_str(&fs::read_to_string(project.path("package-lock.json"))?)?;
    Ok(serde_json::from_str(&installed).is_ok_and(|installed| holds_all(&installed, &wanted)))
}

/// Does the first lock file hold all packages of the second, but for those that are for other platforms?
fn holds_all(installed: &Value, wanted: &Value) -> bool {
    let packages = wanted["packages"].as_object().into_iter().flatten();
    packages.filter(|(path, _)| !path.is_empty()).all(|(path, package)| {
        let installed = &installed["packages"][path];
        let left_out = installed.is_null() && package["optional"] == true;
        left_out || (installed["version"] == package["version"] && installed["integrity"] == package["integrity"])
    })
}

/// From and to: the modules for the browser, their types for the type check.
fn vendored(project: &Project) -> Result<Vec<(PathBuf, PathBuf)>> {
    let from = project.path("node_modules").join(VENDORED).join("dist");
    let to = project.path("public/vendor").join(VENDORED);
    let mut files = Vec::new();
    for entry in fs::read_dir(&from).with_context(|| format!("cannot read {}", from.display()))? {
        let name = entry?.file_name();
        if name.to_string_lossy().ends_with(".js") || name.to_string_lossy().ends_with(".d.ts") {
            files.push((from.join(&name), to.join(&name)));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn packages_for_other_platforms_may_be_missing() {
        let wanted = json!({"packages": {
            "": {},
            "node_modules/a": {"version": "1.0.0", "integrity": "x"},
            "node_modules/b": {"version": "1.0.0", "integrity": "y", "optional": true},
        }});
        let a = |version| json!({"packages": {"node_modules/a": {"version": version, "integrity": "x"}}});
        assert!(holds_all(&a("1.0.0"), &wanted));
        assert!(!holds_all(&a("0.9.0"), &wanted));
        assert!(!holds_all(&json!({}), &wanted));
    }
}
