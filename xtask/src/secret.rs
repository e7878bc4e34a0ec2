//! The secret that edge and origin share, in `.dev.vars`.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use anyhow::Result;

use crate::project::{Project, hex, read_if_exists};
use crate::steps::say;

/// The variable that edge and origin both know.
pub(crate) const VARIABLE: &str = "EDGE_SECRET";

/// Random bytes in a generated secret.
const BYTES: usize = 32;

/// Only the owner reads the file.
const MODE: u32 = 0o600;

/// The secret; a random one is written where there is none.
pub(crate) fn get_or_create(project: &Project) -> Result<String> {
    let path = project.path(".dev.vars");
    let text = read_if_exists(&path)?;
    if let Some(secret) = secret_in(&text) {
        return Ok(secret.to_owned());
    }
    let mut random = [0; BYTES];
    getrandom::fill(&mut random)?;
    let secret = hex(&random);
    let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut file = OpenOptions::new().append(true).create(true).mode(MODE).open(path)?;
    // The mode above is that of a new file.
    file.set_permissions(Permissions::from_mode(MODE))?;
    writeln!(file, "{separator}{VARIABLE}={secret}")?;
    say(&format!("{:>18}  wrote a random {VARIABLE} to .dev.vars", "secret"));
    Ok(secret)
}

/// Read as wrangler's dotenv reads it, or edge and origin would not agree (crate `dotenvy` knows no backticks, and takes
/// a `#` behind a letter for a part of the value): the last line counts.
fn secret_in(dev_vars: &str) -> Option<&str> {
    let mut lines = dev_vars.lines().rev();
    let text = lines.find_map(|line| line.trim().strip_prefix(VARIABLE)?.trim_start().strip_prefix('='))?.trim();
    let quoted = ['"', '\'', '`'].iter().find_map(|quote| text.strip_prefix(*quote)?.split_once(*quote));
    let value = match quoted {
        Some((value, _comment)) => value,
        None => text.split_once('#').map_or(text, |(value, _comment)| value.trim_end()),
    };
    Some(value).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_secret_is_found_among_other_lines() {
        assert_eq!(secret_in("A=1\nEDGE_SECRET = \"abc\"\nB=2"), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET_OLD=abc\n# EDGE_SECRET=abc"), None);
        assert_eq!(secret_in("EDGE_SECRET="), None);
    }

    #[test]
    fn a_secret_is_read_as_wrangler_reads_it() {
        assert_eq!(secret_in("EDGE_SECRET=\nEDGE_SECRET=abc"), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET=abc\nEDGE_SECRET=\"\" # later"), None);
        assert_eq!(secret_in("EDGE_SECRET=abc # not \"def\""), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET=abc#def"), Some("abc"));
        assert_eq!(secret_in("EDGE_SECRET='a # b' # c"), Some("a # b"));
        assert_eq!(secret_in("EDGE_SECRET=`abc`"), Some("abc"));
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
        let written = get_or_create(&project).expect("a secret is written");
        assert_eq!(written.len(), 2 * BYTES);
        assert_eq!(get_or_create(&project).expect("it is found again"), written);
        assert_eq!(path.metadata().expect("a file").permissions().mode() & 0o777, MODE);
        fs::remove_dir_all(folder).expect("the folder is ours");
    }
}
