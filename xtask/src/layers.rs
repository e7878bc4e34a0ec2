//! The order of modules. A crate whose `# Layout` says [`PROMISE`] is held to it: no arrow upwards, and so no circle.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use proc_macro2::{TokenStream, TokenTree};

use crate::project::Project;

/// The sentence above the list.
const PROMISE: &str = "A module uses only modules below it";

/// The crates' roots.
const ROOTS: [&str; 4] = ["src/lib.rs", "protocol/src/lib.rs", "origin/src/lib.rs", "xtask/src/main.rs"];

/// Fails with all arrows upwards.
pub(crate) fn check(project: &Project) -> Result<()> {
    let mut arrows = Vec::new();
    for root in ROOTS {
        let path = project.path(root);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {root}"))?;
        let Some((_, list)) = text.split_once(PROMISE) else { continue };
        let order = order(list);
        let folder = path.parent().context("a file has a folder")?;
        for file in files(folder)?.iter().filter(|file| **file != path) {
            let inside = file.strip_prefix(folder)?;
            let text = fs::read_to_string(file)?;
            let found = upwards(&order, inside, &text).with_context(|| format!("{root}, {}", inside.display()))?;
            arrows.extend(found.into_iter().map(|arrow| format!("{root}: {arrow}")));
        }
    }
    ensure!(arrows.is_empty(), "modules use modules above them in the # Layout:\n{}", arrows.join("\n"));
    Ok(())
}

/// The modules that the list's lines name before their colon.
fn order(list: &str) -> Vec<&str> {
    let lines = list.lines().skip(1).map_while(|line| line.strip_prefix("//!"));
    let items = lines.filter_map(|line| line.trim_start().strip_prefix(['-', '*']));
    let names = items.filter_map(|item| item.split_once(": ")).map(|(names, _)| names);
    names.flat_map(|names| names.split('`').skip(1).step_by(2)).collect()
}

fn upwards(order: &[&str], file: &Path, text: &str) -> Result<Vec<String>> {
    let module = file.iter().next().map(Path::new).and_then(Path::file_stem).unwrap_or_default().to_string_lossy();
    let place = |name: &str| order.iter().position(|other| *other == name);
    let from = place(&module).with_context(|| format!("the # Layout does not name `{module}`"))?;
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
    let mut used = Vec::new();
    collect(tokens, file.iter().count() == 1, &mut used);
    used.retain(|name| place(name).is_some_and(|to| to < from));
    used.sort_unstable();
    used.dedup();
    Ok(used.iter().map(|name| format!("`{}` uses `{name}`", file.display())).collect())
}

/// Collects X of each `crate::X` and `crate::{X, …}`; in a file beside the root, of `super::` too. Tests may use anything.
fn collect(tokens: TokenStream, beside_root: bool, used: &mut Vec<String>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let is_crate = token_is(Some(token), "crate") || (beside_root && token_is(Some(token), "super"));
        match tokens.get(at + 3) {
            Some(TokenTree::Ident(name)) if is_crate => used.push(name.to_string()),
            Some(TokenTree::Group(group)) if is_crate => {
                let names: Vec<TokenTree> = group.stream().into_iter().collect();
                let starts = (0..names.len()).filter(|n| *n == 0 || token_is(names.get(n - 1), ","));
                used.extend(starts.map(|n| names[n].to_string()));
            }
            _ => {}
        }
        if let TokenTree::Group(group) = token
            && !(at > 0 && token_is(tokens.get(at - 1), "tests"))
        {
            collect(group.stream(), beside_root, used);
        }
    }
}

fn token_is(token: Option<&TokenTree>, text: &str) -> bool {
    token.is_some_and(|token| token.to_string() == text)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str =
        ":\n//! - [`top`]: first; not `another`\n//! - `middle`, `low`: side by side\n//!   in two lines: `none`\n";

    fn found(file: &str, text: &str) -> Vec<String> {
        upwards(&order(LIST), Path::new(file), text).expect("it is Rust")
    }

    #[test]
    fn an_arrow_upwards_is_found_in_every_spelling() {
        assert_eq!(order(LIST), ["top", "middle", "low"]);
        for text in ["use crate::top::X;", "use crate::{low, top::{self, X}};", "fn f() { g(|| crate::top::x()) }"] {
            assert_eq!(found("middle/deep.rs", text), ["`middle/deep.rs` uses `top`"], "{text}");
        }
        assert_eq!(found("low.rs", "use super::middle;"), ["`low.rs` uses `middle`"]);
    }

    #[test]
    fn an_arrow_downwards_a_comment_and_a_test_are_none() {
        assert!(found("top.rs", "use crate::{low, middle};").is_empty());
        assert!(
            found("low.rs", "// crate::top\n/// [`crate::top`]\nfn f() {}\nmod tests { use crate::top; }").is_empty()
        );
        assert!(found("low/a.rs", "use super::middle;").is_empty(), "a module of its own");
    }
}
