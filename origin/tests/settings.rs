//! Settings: flags before the environment, the environment before the file, the file before the defaults; and
//! what can't be used is told in the first line, and where it isn't a flag's value, in that line alone.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use headwater_origin::{config::Config, http::auth::Secrets};
use headwater_protocol::Variables;

/// A settings file for one test.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("headwater-{name}-{}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn parse(file: &Path, flags: &[&str]) -> Result<Config, String> {
    let config = ["origin".into(), "--config".into(), file.into()];
    Config::parse_from_env(config.into_iter().chain(flags.iter().map(Into::into))).map_err(|error| error.to_string())
}

/// The program with these variables, which it refuses to start with.
fn refused(variables: &[(&str, &str)], flags: &[&str]) -> (Output, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_headwater-origin"));
    let output = program.env_clear().envs(variables.iter().copied()).args(flags).output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = File::new("order", "linger = \"3s\"\nwrite-interval = \"4ms\"\nlog-variables = true\ntop-k = 7\n");
    let config = parse(&file.0, &["--linger", "5s"]).unwrap();
    let limits = config.limits();
    assert_eq!(limits.linger, Duration::from_secs(5));
    assert_eq!(limits.pace.write_interval, Duration::from_millis(4));
    assert_eq!(limits.gate, Duration::from_secs(2));
    assert!(config.log_variables);
    assert_eq!(config.embedded.top_k, 7);
}

#[test]
fn several_models_are_named_in_the_file_by_flags_or_with_commas() {
    let names = |config: Config| config.model.iter().map(ToString::to_string).collect::<Vec<_>>();
    for text in ["model = \"ollama:a,embedded\"\n", "model = [\"ollama:a\", \"embedded\"]\n"] {
        let file = File::new("models", text);
        assert_eq!(names(parse(&file.0, &[]).unwrap()), ["ollama:a", "embedded"], "{text}");
        let flags = ["--model", "ollama:b", "--model", "ollama:c"];
        assert_eq!(names(parse(&file.0, &flags).unwrap()), ["ollama:b", "ollama:c"], "flags win");
    }
    assert_eq!(names(Config::parse_from_env(["origin".into()]).unwrap()), ["embedded"]);
    let told = parse(&File::new("model", "model = [1, \"x\"]\n").0, &[]).err().unwrap();
    assert!(told.contains("--model"), "{told}");
    let (_, told) = refused(&[("EDGE_SECRET", "0123456789abcdef"), ("HEADWATER_MODEL", "ollama:a,nobody:b")], &[]);
    assert!(told.contains("nobody:b"), "{told}");
}

#[test]
fn the_file_has_the_prompts() {
    let text = "[prompts.haiku]\ntemplate = \"About {topic} for {reader}\"\ndefaults = { reader = \"all\" }\n";
    let config = parse(&File::new("prompts", text).0, &[]).unwrap();
    let variables = Variables([("topic".into(), "owls".into())].into());
    assert_eq!(config.prompts.render("haiku", &variables).unwrap(), "About owls for all");
    assert!(config.prompts.render("simple", &variables).is_ok(), "the built-in one stays");
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (text, named) in [
        ("lingr = \"3s\"", "lingr"),
        ("config = \"other.toml\"", "config"),
        ("linger = [1]", "linger"),
        ("linger = \"soon\"", "--linger"),
        ("generations = 0", "--generations"),
        ("temperature = nan", "--temperature"),
        ("connections = 99999999999", "--connections"),
        ("not toml", "wrong"),
        ("[prompts.x]\ntemplate = \"{\"", "parse"),
        ("[prompts.x]\ntemplte = \"x\"", "templte"),
    ] {
        let told = parse(&File::new("wrong", text).0, &[]).err().unwrap();
        assert!(told.contains(named), "{text}: {told}");
    }
    assert!(parse(Path::new("no/such.toml"), &[]).err().unwrap().contains("no/such.toml"));
}

#[test]
fn the_environment_has_every_setting() {
    let secret = ("EDGE_SECRET", "0123456789abcdef");
    let (_, told) = refused(&[secret, ("HEADWATER_LISTEN", "nonsense")], &[]);
    assert!(told.contains("nonsense") && told.contains("--listen"), "{told}");
    let (_, told) =
        refused(&[secret, ("HEADWATER_LISTEN", "nonsense"), ("HEADWATER_LINGER", "1s")], &["--listen", "worse"]);
    assert!(told.contains("worse"), "a flag wins: {told}");
    let (_, told) =
        refused(&[secret, ("HEADWATER_LOG_VARIABLES", "1")], &["--listen", "127.0.0.1:0", "--model", "none"]);
    assert!(told.contains("there is no model \"none\""), "{told}");
}

#[test]
fn without_a_secret_it_does_not_start() {
    for variables in [&[][..], &[("EDGE_SECRET", "")], &[("EDGE_SECRET", "short")]] {
        let (output, told) = refused(variables, &["--listen", "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told.contains("EDGE_SECRET"), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
}

#[test]
fn a_journal_that_cannot_be_used_is_told_in_one_line_without_its_password() {
    let secret = ("EDGE_SECRET", "0123456789abcdef");
    // Nobody listens on port 1.
    for address in ["redis://me:hushhush@127.0.0.1:1", "reddis://me:hushhush@127.0.0.1", "redis://me:hushhush@"] {
        for (variables, flags) in [
            (&[secret, ("HEADWATER_JOURNAL", address)][..], &["--listen", "127.0.0.1:0"][..]),
            (&[secret], &["--listen", "127.0.0.1:0", "--journal", address]),
        ] {
            let (_, told) = refused(variables, flags);
            assert!(told.contains("journal") && !told.contains("hush"), "{told}");
            assert_eq!(told.trim().lines().count(), 1, "{told}");
        }
    }
    let help = Command::new(env!("CARGO_BIN_EXE_headwater-origin"))
        .args(["--help"])
        .env("HEADWATER_JOURNAL", "redis://me:hushhush@127.0.0.1")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("hush"));
    let parsed = Config::parse_from_env(["origin", "--journal", "redis://me:hushhush@a:7/2"].map(Into::into)).unwrap();
    assert!(format!("{parsed:?}").contains("a:7") && !format!("{parsed:?}").contains("hush"), "nor in the log");
}

#[test]
fn two_secrets_are_accepted_during_a_rotation() {
    let secrets = Secrets::new(["0123456789abcdef".to_owned(), "fedcba9876543210".to_owned()]).unwrap();
    assert!(secrets.accept(b"0123456789abcdef") && secrets.accept(b"fedcba9876543210"));
    assert!(!secrets.accept(b"0123456789abcdeX") && !secrets.accept(b"") && !secrets.accept(b"0123456789abcdef0"));
    assert!(Secrets::new(["0123456789abcdef".to_owned(), "short".to_owned()]).is_err());
    assert!(!format!("{secrets:?}").contains("0123"), "a secret is never printed");
}
