//! What a fresh clone lacks: tools, npm packages, the secret.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::packages::{self, Need};
use crate::project::{Project, hex, on_path};
use crate::steps::Step;
use crate::tools;

/// The Workers runtime's compilation target.
pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// The npm package whose modules the page imports by relative path.
const VENDORED: &str = "eventsource-parser";

/// The variable that edge and origin both know.
const SECRET: &str = "EDGE_SECRET";

/// Random bytes in a generated secret.
const SECRET_BYTES: usize = 32;

/// Only the owner reads the secret.
const SECRET_MODE: u32 = 0o600;

/// When `npm ci` runs. It deletes node_modules first, which a wrangler that runs from there wouldn't survive.
#[derive(Clone, Copy)]
pub(crate) enum Npm {
    /// Whenever node_modules differs from package-lock.json.
    AsLocked,
    /// Only where there is no wrangler, or no Node for it.
    IfMissing,
}

/// Everything that the edge's build needs.
pub(crate) fn edge_tools(project: &Project, npm: Npm) -> Vec<Step<'_>> {
    let mut steps = vec![wasm_target(project), secret_step(project)];
    steps.extend(tools::steps(project));
    steps.extend(npm_packages(project, npm));
    steps
}

/// What the operating system has to bring for [`edge_tools`]: nothing once they are there.
pub(crate) fn edge_needs(project: &Project) -> Vec<Need> {
    if tools::has_worker_build(project) { Vec::new() } else { vec![packages::OPENSSL] }
}

/// node_modules, and the page's library copied from it.
pub(crate) fn npm_packages(project: &Project, npm: Npm) -> [Step<'_>; 2] {
    let install = Step::new("npm", |task| {
        if !on_path("npm") {
            bail!("npm is missing: install Node.js (any maintained version; npm then brings the pinned one)");
        }
        // The pinned Node comes by a script, whatever a user's configuration says of scripts.
        task.run(project.command("npm").args(["ci", "--ignore-scripts=false"]))?;
        Ok("installed the packages of package-lock.json".to_owned())
    })
    .unless(move || {
        let has_programs = ["node", "wrangler"].iter().all(|name| project.node_bin(name).exists());
        match npm {
            Npm::AsLocked => Ok(has_programs && is_as_locked(project)?),
            Npm::IfMissing => Ok(has_programs),
        }
    });
    let vendor = Step::new("vendor", |_| {
        for (from, to) in vendored(project)? {
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        }
        Ok(format!("copied {VENDORED} to public/vendor"))
    })
    .unless(|| Ok(vendored(project)?.iter().all(|(from, to)| fs::read(from).ok() == fs::read(to).ok())))
    .after(&["npm"]);
    [install, vendor]
}

/// The secret that edge and origin share, from `.dev.vars`.
pub(crate) fn secret(project: &Project) -> Result<Option<String>> {
    Ok(secret_in(&read_if_exists(&project.path(".dev.vars"))?).map(str::to_owned))
}

/// The last value that is one, because a secret is written below an empty one.
fn secret_in(dev_vars: &str) -> Option<&str> {
    let lines = dev_vars.lines().rev();
    let mut values = lines.filter_map(|line| line.trim().strip_prefix(SECRET)?.trim_start().strip_prefix('='));
    values.find_map(|text| Some(value_in(text)).filter(|value| !value.is_empty()))
}

/// As dotenv reads it, and with it wrangler: what is between quotes, else what is before a comment.
fn value_in(text: &str) -> &str {
    let text = text.trim();
    let quoted = ['"', '\'', '`'].iter().find_map(|quote| text.strip_prefix(*quote)?.split_once(*quote));
    match quoted {
        Some((value, _comment)) => value,
        None => text.split_once('#').map_or(text, |(value, _comment)| value.trim_end()),
    }
}

fn wasm_target(project: &Project) -> Step<'_> {
    Step::new("wasm target", |task| {
        if !on_path("rustup") {
            bail!("rustup is missing: install Rust with it, or {WASM} in the way of your Rust distribution");
        }
        task.run(project.command("rustup").args(["target", "add", WASM]))?;
        Ok(format!("added {WASM}"))
    })
    .unless(|| {
        let output = project.command("rustc").args(["--print", "target-libdir", "--target", WASM]).output()?;
        Ok(Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
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

fn secret_step(project: &Project) -> Step<'_> {
    Step::new("secret", |_| {
        let path = project.path(".dev.vars");
        let text = read_if_exists(&path)?;
        let mut random = [0; SECRET_BYTES];
        getrandom::fill(&mut random)?;
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let mut file = OpenOptions::new().append(true).create(true).mode(SECRET_MODE).open(path)?;
        // The mode above is that of a new file.
        file.set_permissions(Permissions::from_mode(SECRET_MODE))?;
        writeln!(file, "{separator}{SECRET}={}", hex(&random))?;
        Ok(format!("wrote a random {SECRET} to .dev.vars"))
    })
    .unless(|| Ok(secret(project)?.is_some()))
}

fn read_if_exists(path: &Path) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::steps;

    #[test]
    fn the_secret_is_found_among_other_lines() {
        assert_eq!(secret_in("A=1\nEDGE_SECRET = \"abc\"\nB=2"), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET_OLD=abc\n# EDGE_SECRET=abc"), None);
        assert_eq!(secret_in("EDGE_SECRET="), None);
    }

    #[test]
    fn a_secret_is_read_as_wrangler_reads_it() {
        assert_eq!(secret_in("EDGE_SECRET=\nEDGE_SECRET=abc"), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET=abc\nEDGE_SECRET=def\nEDGE_SECRET=\"\" # later"), Some("def"));
        assert_eq!(secret_in("EDGE_SECRET=abc # not \"def\""), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET='a # b' # c"), Some("a # b"));
        assert_eq!(secret_in("EDGE_SECRET= # none"), None);
    }

    #[test]
    fn only_the_owner_reads_a_secret_whatever_the_file_was_before() {
        let folder = std::env::temp_dir().join(format!("xtask-secret-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join(".dev.vars");
        fs::write(&path, "EDGE_SECRET=").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
        let project = Project::at(folder.clone());
        steps::run(&project, vec![secret_step(&project)]).expect("a secret is written");
        let written = secret(&project).expect("it can be read").expect("there is one");
        assert_eq!(written.len(), 2 * SECRET_BYTES);
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, SECRET_MODE);
        fs::remove_dir_all(folder).expect("the folder is ours");
    }

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
