//! Settings: flags before the environment, the environment before the file, the file before the defaults. What can't be
//! used is refused in one line that names the setting and repeats no value.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use clap::CommandFactory;
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
    assert_eq!(limits.start_window, Duration::from_secs(2));
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
    for text in ["model = [1, \"x\"]\n", "model = []\n", "model = [[\"embedded\"]]\n"] {
        let told = parse(&File::new("model", text).0, &[]).err().unwrap();
        assert!(told.contains("model"), "{text}: {told}");
    }
    let told = Config::parse_from_env(["origin", "--model", "ollama:a,ollama:a"].map(Into::into)).unwrap_err();
    assert!(told.to_string().contains("--model names a model twice"), "{told}");
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
fn what_is_wrong_in_the_file_is_named_in_one_line_that_repeats_none_of_its_own() {
    let secret = "hushhush";
    for (text, named) in [
        ("\n\n{} = \"3s\"", "line 3: no setting has this name"),
        ("log_variables = \"{}\"", "line 1: no setting has this name"),
        ("config = \"{}\"", "line 1: no setting has this name"),
        ("linger = [\"{}\"]", "line 1: linger takes one value"),
        ("linger = { a = \"{}\" }", "line 1: linger takes one value"),
        ("linger = 2026-11-28", "line 1: linger takes one value"),
        ("linger = \"{}\"", "--linger <TIME> takes a time"),
        ("linger = 3", "--linger <TIME> takes a time"),
        ("temperature = nan", "--temperature <X> takes a number from 0.0 to 5.0"),
        ("connections = 0x0", "--connections <N> takes a number from 1 to 1000000"),
        ("log-variables = \"{}\"", "--log-variables"),
        ("journal = \"reddis://me:{}@a\"", "--journal <KIND> takes memory, or a redis address"),
        ("model = \"https://me:{}@models.example/v1#a\"", "--model"),
        ("model = \"{}\"", "--model"),
        // The quotes forgotten, one quote forgotten, an equals sign forgotten.
        ("linger = \"3s\"\njournal = redis://me:{}@10.0.0.7", "line 2: "),
        ("journal = \"redis://me:{}@10.0.0.7", "line 1: "),
        ("journal \"redis://me:{}@10.0.0.7\"", "line 1: "),
        ("{}", "line 1: "),
        ("[prompts.x]\ntemplate = \"{{}\"", "the template doesn't parse"),
        ("[prompts.x]\n{} = \"x\"", "expected `template` or `defaults`"),
        ("[prompts.x]\ntemplate = [\"{}\"]", "line 2: "),
        ("[prompts.x]\ntemplate = \"x\"\ndefaults = { {} = \"x\" }", "a default is given"),
        ("[prompts.\"{} {}\"]\ntemplate = \"x\"", "a prompt's name is"),
        ("prompts = \"{}\"", "line 1: "),
    ] {
        let told = parse(&File::new("wrong", &text.replace("{}", secret)).0, &[]).err().unwrap();
        assert!(told.contains(named), "{text}: {told}");
        assert!(!told.contains(secret) && !told.contains('\n'), "{text}: {told}");
    }
    assert!(parse(Path::new("no/such.toml"), &[]).err().unwrap().contains("no/such.toml"));
}

#[test]
fn the_environment_has_every_setting_and_an_empty_variable_counts_as_none() {
    // What lacks last is what is told: without a secret it doesn't start.
    let (_, told) = refused(&[("HEADWATER_LINGER", ""), ("HEADWATER_MODEL", ""), ("RUST_LOG", "")], &[]);
    assert!(told.contains("EDGE_SECRET"), "{told}");
    let (_, told) = refused(&[("HEADWATER_LINGER", "nonsense"), ("HEADWATER_NAME", "nonsense!")], &["--linger", "1s"]);
    assert!(told.contains("--name") && !told.contains("--linger"), "a flag wins: {told}");
    let (_, told) = refused(&[("RUST_LOG", "info,=x=hushhush")], &[]);
    assert!(told.contains("RUST_LOG") && !told.contains("hush"), "{told}");
}

/// Each setting with values that mean what they say, and with values that are refused. An empty one always is, but as a
/// variable.
const SETTINGS: [(&str, &[&str], &[&str]); 39] = [
    ("config", &[], &["no/such.toml", "/", "/dev/null/x"]),
    ("listen", &["127.0.0.1:0", "[::1]:9000"], &["0", "9000", "localhost:9000", "127.0.0.1:99999"]),
    ("metrics", &["127.0.0.1:0", "[::1]:9000"], &["0", "9000", "localhost:9000", "127.0.0.1:99999"]),
    ("name", &["0", "abcdefghijklmnop"], &["A", "a-b", "abcdefghijklmnopq"]),
    (
        "model",
        &["embedded", "ollama:0"],
        &["0", ",", "embedded,", "nobody:a", "openai:", "http://#a", "embedded,embedded"],
    ),
    ("allow-plain-http", &["ollama", "10.0.0.7", "fd00::7"], &["http://ollama", "ollama:11434", ",", "a/b"]),
    ("max-tokens", &["1", "1000000"], &["0", "1000001", "-1", "1.5", "many"]),
    ("journal", &["memory", "redis://127.0.0.1:1/0"], &["0", "redis:", "http://127.0.0.1", "memory:"]),
    ("start-window", &["0s", "9s"], &["10s", "1h", "-1s", "5", "99999999999999999999s"]),
    ("first-token-timeout", &["10ms", "1day"], &["0s", "1ms", "2days", "-1s", "99999999999999999999s"]),
    ("idle-timeout", &["10ms", "1day"], &["0s", "1ms", "2days", "-1s", "99999999999999999999s"]),
    ("total-timeout", &["off", "0s", "10ms", "1day"], &["1ms", "2days", "-1s", "none"]),
    ("linger", &["0s", "1day"], &["2days", "-1s", "5"]),
    ("retention", &["0s", "30days"], &["31days", "-1s", "for ever"]),
    ("journal-size", &["16KiB", "1TiB"], &["0", "600", "1EiB", "-1", "big", "nanKiB"]),
    ("stream-size", &["1KiB", "1GiB"], &["0", "600", "4GiB", "-1", "big"]),
    ("generations", &["1", "1000000"], &["0", "1000001", "99999999999999999999", "-1"]),
    ("queue", &["0", "1000000"], &["1000001", "99999999999999999999", "-1"]),
    ("write-interval", &["0s", "1s"], &["1h", "-1s", "8"]),
    ("heartbeat", &["off", "0s", "10ms", "25s"], &["1ms", "26s", "1day", "-1s", "never"]),
    ("connections", &["1", "1000000"], &["0", "1000001", "99999999999999999999", "-1"]),
    ("header-timeout", &["10ms", "1day"], &["0s", "1ms", "2days", "-1s"]),
    ("keep-alive-timeout", &["10ms", "1day"], &["0s", "1ms", "2days", "-1s"]),
    ("write-timeout", &["10ms", "1day"], &["0s", "1ms", "2days", "-1s"]),
    ("drain-timeout", &["0s", "1day"], &["2days", "-1s"]),
    ("embedded-path", &["0"], &[]),
    ("embedded-streams", &["1", "64"], &["0", "65", "-1"]),
    ("embedded-context", &["64", "1048576"], &["0", "63", "1048577", "-1"]),
    ("embedded-threads", &["1", "512"], &["0", "513", "-1"]),
    ("temperature", &["0", "5"], &["-0.1", "5.1", "1e30", "inf", "nan", "hot"]),
    ("top-k", &["0", "65535"], &["65536", "-1", "0.5"]),
    ("top-p", &["0", "1"], &["-0.1", "1.1", "inf", "nan"]),
    ("min-p", &["0", "1"], &["-0.1", "1.1", "inf", "nan"]),
    ("repetition-penalty", &["0.1", "10"], &["0", "-1", "1e-40", "11", "inf", "nan"]),
    ("seed", &["0", "4294967294"], &["4294967295", "-1", "0.5"]),
    ("model-alias", &["gpt-4o-mini=embedded", "*=default", "a=b,c=d"], &["a", "=a", "a=", "default=a"]),
    ("reasoning", &["true", "0", "off"], &["2", "maybe", "-1"]),
    ("log-variables", &["true", "0", "off"], &["2", "maybe", "-1"]),
    ("version", &[], &[]),
];

#[test]
fn fault_41_each_setting_means_what_it_says_or_is_refused_in_one_line_that_names_it_wherever_it_comes_from() {
    let known: Vec<_> = SETTINGS.iter().map(|(name, ..)| *name).collect();
    for arg in Config::command().get_arguments() {
        let name = arg.get_long().unwrap();
        assert!(known.contains(&name), "--{name} has a row in the table");
    }
    for (name, taken, wrong) in SETTINGS.into_iter().filter(|(name, ..)| *name != "version") {
        let (flag, variable) = (format!("--{name}"), format!("HEADWATER_{}", name.replace('-', "_").to_uppercase()));
        let from_flag = |value: &str| {
            let value = format!("{flag}={value}");
            Config::parse_from_env(["origin", &value].map(Into::into)).map_err(|error| error.to_string())
        };
        let from_file = |value: &str| parse(&File::new("row", &format!("{name} = \"{value}\"")).0, &[]);
        // A switch is a flag without a value.
        let is_switch = matches!(name, "log-variables" | "reasoning");
        for value in taken {
            if !is_switch {
                from_flag(value).unwrap_or_else(|told| panic!("{flag} {value}: {told}"));
            }
            from_file(value).unwrap_or_else(|told| panic!("{name} = {value}: {told}"));
            let (_, told) = refused(&[(&variable, value)], &[]);
            assert!(told.contains("EDGE_SECRET"), "{variable}={value}: {told}");
        }
        for value in wrong.iter().chain(&[""]) {
            let mut lines = vec![from_flag(value).unwrap_err()];
            // The file has no file, which its own test shows.
            lines.extend((name != "config").then(|| from_file(value).unwrap_err()));
            if !value.is_empty() {
                let (output, told) = refused(&[(&variable, value)], &[]);
                assert_eq!(output.status.code(), Some(2), "{variable}={value}");
                lines.push(told.trim_end().to_owned());
            }
            for line in lines {
                assert!(line.contains(&flag) && !line.contains('\n'), "{flag} {value}: {line}");
            }
        }
    }
}

#[test]
fn no_line_repeats_what_was_given() {
    let secret = "hushhush";
    let wrong = [&["--hushhush"][..], &["hushhush"], &["--log-variables=hushhush"], &["--linger", "1s", "-xhushhush"]];
    for flags in wrong {
        let told = Config::parse_from_env(["origin"].iter().chain(flags).map(Into::into)).unwrap_err().to_string();
        assert!(!told.contains(secret) && !told.contains('\n'), "{flags:?}: {told}");
    }
    let told = Config::parse_from_env(["origin", "--lingr", "1s"].map(Into::into)).unwrap_err().to_string();
    assert!(told.contains("is --linger meant?"), "{told}");
    for (name, ..) in SETTINGS {
        // Whatever is pasted into whichever place.
        for value in ["redis://me:hushhush@10.0.0.7", "https://me:hushhush@a.example/v1#m", "sk hushhush"] {
            let value = format!("--{name}={value}");
            if let Err(told) = Config::parse_from_env(["origin", &value].map(Into::into)) {
                let told = told.to_string();
                // A path that can't be read is no secret; it has to be named.
                assert!(name == "config" || !told.contains(secret) && !told.contains('\n'), "{value}: {told}");
            }
        }
    }
    let variables = SETTINGS.map(|(name, ..)| format!("HEADWATER_{}", name.replace('-', "_").to_uppercase()));
    let help = Command::new(env!("CARGO_BIN_EXE_headwater-origin"))
        .arg("--help")
        .envs(
            variables
                .iter()
                .filter(|name| !["HEADWATER_LOG_VARIABLES", "HEADWATER_REASONING"].contains(&name.as_str()))
                .map(|name| (name, secret)),
        )
        .output()
        .unwrap();
    assert!(help.status.success() && !String::from_utf8_lossy(&help.stdout).contains(secret), "{help:?}");
}

#[test]
fn without_a_secret_it_does_not_start() {
    for variables in [&[][..], &[("EDGE_SECRET", "")], &[("EDGE_SECRET", "short")]] {
        let (output, told) = refused(variables, &["--listen", "127.0.0.1:0"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(told.contains("EDGE_SECRET"), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
    let good = ("EDGE_SECRET", "0123456789abcdef");
    for (variables, named) in [
        (&[good, ("EDGE_SECRET_PREVIOUS", "hush")][..], "EDGE_SECRET_PREVIOUS is missing or shorter"),
        (&[("EDGE_SECRET", "hush hush hush hush\u{e9}")], "EDGE_SECRET has characters that no header can carry"),
        (&[("EDGE_SECRET", "hush hush\thush hush")], "EDGE_SECRET has characters that no header can carry"),
    ] {
        let (_, told) = refused(variables, &["--listen", "127.0.0.1:0"]);
        assert!(told.contains(named) && !told.contains("hush"), "{told}");
        assert_eq!(told.trim().lines().count(), 1, "{told}");
    }
}

#[test]
fn white_space_at_a_secrets_ends_is_no_part_of_it() {
    let secrets = Secrets::new([" 0123456789abcdef\r\n".to_owned()]).unwrap();
    assert!(secrets.accept(b"0123456789abcdef"), "no header has white space at its ends");
    assert!(Secrets::new(["0123456789abcde \n".to_owned()]).is_err(), "nor is it counted");
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

#[test]
fn a_models_address_without_tls_is_refused_unless_its_host_is_allowed() {
    let secret = ("EDGE_SECRET", "0123456789abcdef");
    let listen = ["--listen", "127.0.0.1:0"];
    let flags = |more: &[&'static str]| [&listen[..], more].concat();
    for (variables, model) in [
        (vec![secret], "http://ollama:11434/v1#m"),
        (vec![secret, ("OLLAMA_HOST", "ollama")], "ollama:m"),
        (vec![secret, ("OPENAI_API_KEY", "sk"), ("OPENAI_BASE_URL", "http://ollama/v1")], "openai:m"),
    ] {
        let (_, told) = refused(&variables, &flags(&["--model", model]));
        assert!(told.contains("allow it with --allow-plain-http ollama\n") && told.lines().count() == 1, "{told}");
        // The next thing that is wrong: the host is allowed.
        let more = ["--model", model, "--allow-plain-http", "ollama", "--model", "anthropic:m"];
        let (_, told) = refused(&variables, &flags(&more));
        assert!(told.contains("ANTHROPIC_API_KEY"), "{told}");
    }
}
