//! From the settings to a server: its address, its key, and what of them can't be used.

use secrecy::SecretString;

use super::failure::Settings;
use crate::config::{
    address::{BaseUrl, PlainHost},
    model::{Api, Name, Protocol},
};

/// The variable of the key for `BASE_URL#MODEL`.
const SERVER_KEY: &str = "HEADWATER_MODEL_KEY";

/// A server, as the settings name it.
pub(super) struct Server {
    pub(super) protocol: Protocol,
    pub(super) base: BaseUrl,
    pub(super) key: Option<SecretString>,
    /// The settings to look at when the server refuses.
    pub(super) settings: Settings,
    /// Whether it is OpenAI's own, whose newer models refuse `max_tokens`.
    pub(super) is_openai: bool,
}

/// A remote model that can't be used. Each message names the variable to set.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Its provider wants a key.
    #[error("{name} needs a key; set {variable} to it")]
    MissingKey {
        /// The model.
        name: String,
        /// The variable.
        variable: &'static str,
    },
    /// A key can't be sent.
    #[error("{variable} holds no key: it has characters that a key can't have")]
    WrongKey {
        /// The variable.
        variable: &'static str,
    },
    /// A provider's address isn't one.
    #[error("{variable} can't be used: {reason}")]
    WrongAddress {
        /// The variable.
        variable: &'static str,
        /// Why.
        reason: String,
    },
    /// Keys and prompts could be read on the way.
    #[error(
        "{name} is at http://{host}, where everybody on the way can read keys, prompts and answers; use https://, or \
         allow it with --allow-plain-http {host}"
    )]
    Readable {
        /// The model.
        name: String,
        /// Its host.
        host: PlainHost,
    },
    /// One key, and several servers to which it might belong.
    #[error("{SERVER_KEY} is the key of one server, and --model names several; leave out the others")]
    WhoseKey,
    /// TLS can't be set up.
    #[error("{name} can't be reached from here: {reason}")]
    Client {
        /// The model.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Checks that the key for `BASE_URL#MODEL`, where it is set, belongs to one server.
///
/// # Errors
/// It has several.
pub fn check_servers(names: &[Name], variable: impl Fn(&str) -> Option<String>) -> Result<(), SetupError> {
    let mut servers = names.iter().filter_map(|name| match name {
        Name::Remote(Api::Server(base), _) => Some(base),
        _ => None,
    });
    let several = servers.next().is_some_and(|first| servers.any(|other| !other.same_server(first)));
    if several && set(SERVER_KEY, &variable).is_some() { Err(SetupError::WhoseKey) } else { Ok(()) }
}

impl Server {
    /// The server of the model that `--model` calls `name`. Requests go without TLS only to this machine and to `plain_hosts`.
    /// `variable` reads the environment.
    ///
    /// # Errors
    /// A key is missing, or one of the settings can't be used.
    pub(super) fn new(
        name: &str,
        api: &Api,
        plain_hosts: &[PlainHost],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SetupError> {
        let server = match api {
            Api::Server(base) => Self {
                protocol: Protocol::OpenAi,
                base: base.clone(),
                key: key(SERVER_KEY, &variable)?,
                settings: Settings { key: Some(SERVER_KEY), address: "--model" },
                is_openai: false,
            },
            Api::Provider(provider) => {
                let read = if provider.protocol == Protocol::Ollama { BaseUrl::of_ollama } else { str::parse };
                let set = provider.address_variable.and_then(|name| Some((name, set(name, &variable)?)));
                let is_openai = provider.name == "openai" && set.is_none();
                let (named, address) = set.unwrap_or((provider.name, provider.address.to_owned()));
                let base = read(&address).map_err(|reason| SetupError::WrongAddress { variable: named, reason })?;
                let key = match provider.key {
                    Some(named) => {
                        let missing = || SetupError::MissingKey { name: name.to_owned(), variable: named };
                        Some(key(named, &variable)?.ok_or_else(missing)?)
                    }
                    None => None,
                };
                let settings = Settings { key: provider.key, address: provider.address_variable.unwrap_or("--model") };
                Self { protocol: provider.protocol, base: base.under(provider.path), key, settings, is_openai }
            }
        };
        match server.base.readable_on_the_way(plain_hosts) {
            Some(host) => Err(SetupError::Readable { name: name.to_owned(), host }),
            None => Ok(server),
        }
    }
}

fn key(name: &'static str, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<SecretString>, SetupError> {
    match set(name, variable) {
        Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => Err(SetupError::WrongKey { variable: name }),
        key => Ok(key.map(SecretString::from)),
    }
}

/// A variable's value; an empty one counts as none.
fn set(name: &str, variable: &impl Fn(&str) -> Option<String>) -> Option<String> {
    variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}
