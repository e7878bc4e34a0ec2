//! The sources of settings beside the flags: the environment and the file. Their values become defaults of the flags, so
//! that the same parser reads every value.
//!
//! An error is one line, which names the setting or the line of the file. It never repeats a value or the line's text,
//! which may hold a password.

use std::{collections::BTreeMap, env, ops::Range, path::Path};

use clap::{
    ArgAction, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};
use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::ConfigError;
use headwater_protocol::PromptName;

use crate::prompt::Prompt;

/// The settings that have no flag.
#[derive(Deserialize)]
struct OnlyInFile {
    #[serde(default)]
    prompts: BTreeMap<PromptName, Prompt>,
}

/// A position in the file, and the error there.
type Wrong = (Option<Range<usize>>, String);

/// Each flag with its variable. An empty variable counts as none, as in most shells' and containers' files.
pub(super) fn with_environment(command: Command) -> Command {
    command.mut_args(|arg| {
        let name = arg.get_id().as_str().to_uppercase();
        let variable = format!("HEADWATER_{name}");
        let is_set = env::var_os(&variable).is_none_or(|value| !value.is_empty());
        if matches!(name.as_str(), "HELP" | "VERSION") || !is_set {
            arg
        } else {
            // The help doesn't show values: one may be a password.
            arg.env(variable).hide_env_values(true)
        }
    })
}

/// The command with the file's settings as defaults, and the file's prompts.
pub(super) fn with_file(command: Command, path: &Path) -> Result<(Command, BTreeMap<PromptName, Prompt>), ConfigError> {
    let path = path.display().to_string();
    let text =
        std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
    read(command, &text).map_err(|(span, reason)| {
        let before = span.and_then(|span| text.get(..span.start)).unwrap_or_default();
        ConfigError::Wrong { path, line: before.matches('\n').count() + 1, reason }
    })
}

fn read(mut command: Command, text: &str) -> Result<(Command, BTreeMap<PromptName, Prompt>), Wrong> {
    let file = DeTable::parse(text).map_err(|error| not_toml(&error))?;
    for (name, value) in file.get_ref() {
        if name.get_ref() != "prompts" {
            command = with_setting(command, name.get_ref(), value)
                .map_err(|(at, reason)| (at.or(Some(name.span())), reason))?;
        }
    }
    let OnlyInFile { prompts } = toml::from_str(text).map_err(|error| not_toml(&error))?;
    Ok((command, prompts))
}

/// The command with this value as the default of the flag of this name.
fn with_setting(command: Command, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Command, Wrong> {
    let arg = command.get_arguments().find(|arg| arg.get_long() == Some(name) && name != "config");
    let Some(arg) = arg else {
        return Err((None, "no setting has this name; --help lists them".into()));
    };
    let (id, action) = (arg.get_id().clone(), arg.get_action().clone());
    let many = matches!(action, ArgAction::Append);
    let values = match value.get_ref() {
        DeValue::Array(values) if many => values.iter().map(|value| text_of(value.get_ref())).collect(),
        value => text_of(value).map(|text| vec![text]),
    };
    let Some(values) = values.filter(|values: &Vec<_>| !values.is_empty()) else {
        let takes = if many { "at least one text, and nothing else" } else { "one value, no list or table" };
        return Err((Some(value.span()), format!("{name} takes {takes}")));
    };
    Ok(command.mut_arg(id, |arg| {
        let arg = arg.default_values(values);
        // A switch takes no value on the command line, but has one as a default.
        if action.takes_values() { arg } else { arg.num_args(0) }
    }))
}

/// A file's value as a flag's; tables, lists and dates are none.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.to_string()),
        DeValue::Integer(number) => Some(i64::from_str_radix(number.as_str(), number.radix()).ok()?.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(switch) => Some(switch.to_string()),
        _ => None,
    }
}

/// TOML's own message from `expected` on: before that it repeats the file's text.
fn not_toml(error: &toml::de::Error) -> Wrong {
    let message = error.message();
    let reason = match message.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => message.to_owned(),
    };
    // The message is one line, also for a template of several.
    (error.span(), reason.replace('\n', " "))
}

/// Clap's error as ours: a request for help, or the flag that is wrong.
pub(super) fn flags(error: clap::Error) -> ConfigError {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ConfigError::Help(error);
    }
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let source = std::error::Error::source(&error).map(ToString::to_string);
    ConfigError::Setting(match (error.kind(), context(ContextKind::InvalidArg), source) {
        // Here clap's argument is the text that was typed, not a setting's name.
        (ErrorKind::UnknownArgument, ..) => match context(ContextKind::SuggestedArg) {
            Some(suggested) => format!("a flag isn't known; is {suggested} meant? --help lists them"),
            None => "a flag isn't known; --help lists them".into(),
        },
        (_, Some(name), Some(reason)) => format!("{name} {reason}"),
        (ErrorKind::InvalidValue, Some(name), None) => format!("{name} has no value, or none that it takes"),
        (kind, Some(name), None) => format!("{name}: {kind}"),
        (kind, None, _) => format!("the flags can't be read: {kind}"),
    })
}
