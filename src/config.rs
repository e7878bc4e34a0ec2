//! The settings, parsed once: what is wrong with them is said in one line, at the first request.

use http::Uri;
use std::net::IpAddr;
use thiserror::Error;

/// The most characters that an origin's name has.
const MAX_NAME_CHARS: usize = 16;

/// The settings of one edge.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where streams come from, in order of preference. Never empty.
    pub origins: Vec<Origin>,
    /// Every origin reads and stops every stream (`SHARED_JOURNAL`).
    pub shared_journal: bool,
    /// Shown to the origins as a bearer token (RFC 6750). Visible ASCII.
    pub secret: Secret,
    /// Other sites' pages that may use this edge, as their `Origin` header spells them.
    pub allowed_origins: Vec<String>,
    /// Starts are counted (`RATE_LIMIT`).
    pub rate_limit: bool,
}

impl Config {
    /// Reads every setting through `get`.
    ///
    /// # Errors
    ///
    /// When a setting is missing or is not what it should be. The text names the setting and never its value.
    pub fn parse(get: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let setting = |name| get(name).filter(|value| !value.trim().is_empty());
        let origins = setting("ORIGINS").ok_or(ConfigError::Missing("ORIGINS"))?;
        let secret = setting("EDGE_SECRET").ok_or(ConfigError::Missing("EDGE_SECRET"))?;
        Ok(Self {
            origins: parse_origins(&origins)?,
            shared_journal: parse_switch("SHARED_JOURNAL", setting("SHARED_JOURNAL").as_deref(), false)?,
            secret: Secret::parse(&secret)?,
            allowed_origins: items(&setting("ALLOWED_ORIGINS").unwrap_or_default())
                .map(parse_allowed_origin)
                .collect::<Result<_, _>>()?,
            rate_limit: parse_switch("RATE_LIMIT", setting("RATE_LIMIT").as_deref(), true)?,
        })
    }
}

/// One server that generates streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// `[a-z0-9]{1,16}`; the ids of its streams begin with it.
    pub name: String,
    /// Where it is.
    pub url: OriginUrl,
}

/// An origin's address: `https://`, or `http://` on the loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginUrl {
    /// Without a slash at its end, unless it is [`Self::as_it_stands`].
    text: String,
    as_it_stands: bool,
}

impl OriginUrl {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let uri: Uri = text.parse().map_err(|_| ConfigError::OriginUrl)?;
        let host = uri.host().ok_or(ConfigError::OriginUrl)?;
        // `http::Uri` drops a fragment without a word, and allows `user:password@`.
        let plain = !text.contains(['@', '#']);
        match uri.scheme_str() {
            Some("https") if plain => {}
            Some("http") if plain && is_loopback(host) => {}
            Some("http") if plain => return Err(ConfigError::InsecureOrigin),
            _ => return Err(ConfigError::OriginUrl),
        }
        let as_it_stands = uri.path() != "/" || uri.query().is_some();
        let text = if as_it_stands { text } else { text.trim_end_matches('/') };
        Ok(Self { text: text.to_owned(), as_it_stands })
    }

    /// It has a path of its own: another kind of server, which is posted to as it stands.
    pub fn is_foreign(&self) -> bool {
        self.as_it_stands
    }

    /// The address of `path`, which begins with a slash. A foreign server has but one address.
    pub fn join(&self, path: &str) -> String {
        if self.as_it_stands { self.text.clone() } else { [&self.text, path].concat() }
    }
}

/// What the edge shows to its origins. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ConfigError::Secret)
        }
    }

    /// The value of an `Authorization` header.
    pub fn bearer(&self) -> String {
        ["Bearer ", &self.0].concat()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What is wrong with the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A setting without which nothing works.
    #[error(
        "{0} is not set: it belongs in wrangler.toml's [vars], or as a secret in .dev.vars or `wrangler secret put`"
    )]
    Missing(&'static str),
    /// `ORIGINS` is no list of `name=address`.
    #[error("ORIGINS must be a list like `a=https://one.example, b=https://two.example`")]
    Origins,
    /// A name that no id can begin with, or one that is used twice.
    #[error("ORIGINS: a name is 1 to 16 characters of a-z and 0-9, and stands only once")]
    OriginName,
    /// An address that is none.
    #[error("ORIGINS: an address is https://HOST[:PORT][/PATH], without a user, a password or a fragment")]
    OriginUrl,
    /// The secret and the prompts would be readable on the way.
    #[error("ORIGINS: an address that is not on the loopback must be https")]
    InsecureOrigin,
    /// Not fit for a header.
    #[error("EDGE_SECRET must be visible ASCII")]
    Secret,
    /// Not what a browser sends as `Origin`.
    #[error("ALLOWED_ORIGINS must be a list of exact origins like `https://app.example`")]
    AllowedOrigin,
    /// Neither on nor off.
    #[error("{0} must be `on` or `off`, `true` or `false`")]
    Switch(&'static str),
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn parse_origins(list: &str) -> Result<Vec<Origin>, ConfigError> {
    let mut origins: Vec<Origin> = Vec::new();
    for item in items(list) {
        let (name, url) = item.split_once('=').ok_or(ConfigError::Origins)?;
        let name = name.trim();
        if !is_origin_name(name) || origins.iter().any(|origin| origin.name == name) {
            return Err(ConfigError::OriginName);
        }
        origins.push(Origin { name: name.to_owned(), url: OriginUrl::parse(url.trim())? });
    }
    if origins.is_empty() {
        return Err(ConfigError::Origins);
    }
    Ok(origins)
}

/// `[a-z0-9]{1,16}`.
pub(crate) fn is_origin_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// An origin as a browser serialises it (RFC 6454, section 6.2): scheme, host, and a port that is not the default.
fn parse_allowed_origin(text: &str) -> Result<String, ConfigError> {
    let uri: Uri = text.parse().map_err(|_| ConfigError::AllowedOrigin)?;
    match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority))
            if text == [scheme, "://", authority.as_str()].concat()
                && !text.contains('@')
                && !text.contains(char::is_uppercase) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(ConfigError::AllowedOrigin),
    }
}

fn parse_switch(name: &'static str, value: Option<&str>, default: bool) -> Result<bool, ConfigError> {
    match value.map(str::trim) {
        None => Ok(default),
        Some("on" | "true") => Ok(true),
        Some("off" | "false") => Ok(false),
        Some(_) => Err(ConfigError::Switch(name)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration with these settings, and a secret.
    pub(crate) fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        Config::parse(|name| {
            settings
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
                .or_else(|| (name == "EDGE_SECRET").then(|| "s3cret".to_owned()))
        })
    }

    fn origins(list: &str) -> Result<Vec<Origin>, ConfigError> {
        config(&[("ORIGINS", list)]).map(|config| config.origins)
    }

    #[test]
    fn origins_keep_their_order_and_their_names() {
        let origins = origins("a=https://one.example/, b = http://127.0.0.1:9000").expect("valid");
        assert_eq!(origins[0].name, "a");
        assert_eq!(origins[0].url.join("/healthz"), "https://one.example/healthz");
        assert_eq!(origins[1].url.join("/healthz"), "http://127.0.0.1:9000/healthz");
    }

    #[test]
    fn an_address_with_a_path_is_posted_to_as_it_stands() {
        let origins = origins("a=https://one.example/v1/chat/?v=2").expect("valid");
        assert!(origins[0].url.is_foreign());
        assert_eq!(origins[0].url.join("/prompts/simple"), "https://one.example/v1/chat/?v=2");
    }

    #[test]
    fn an_origin_that_is_not_on_the_loopback_is_https() {
        assert!(origins("a=http://localhost:9000").is_ok());
        assert!(origins("a=http://[::1]:9000").is_ok());
        for list in ["a=http://one.example", "a=http://127.0.0.1.example", "a=http://10.0.0.1", "a=http://0.0.0.0:9000"]
        {
            assert_eq!(origins(list), Err(ConfigError::InsecureOrigin), "{list}");
        }
    }

    #[test]
    fn an_address_that_hides_another_host_is_refused() {
        for list in [
            "a=http://127.0.0.1@evil.example",
            "a=https://user:password@one.example",
            "a=https://one.example#x",
            "a=ftp://127.0.0.1",
            "a=//one.example",
            "a=one.example",
            "a=https://",
            "a=http://127.0.0.1\\@evil.example",
        ] {
            assert_eq!(origins(list), Err(ConfigError::OriginUrl), "{list}");
        }
    }

    #[test]
    fn a_name_is_short_lower_case_and_single() {
        for list in [
            "A=https://a.example",
            "=https://a.example",
            "a-b=https://a.example",
            "abcdefghijklmnopq=https://a.example",
            "a=https://a.example, a=https://b.example",
        ] {
            assert_eq!(origins(list), Err(ConfigError::OriginName), "{list}");
        }
        assert_eq!(origins("https://a.example"), Err(ConfigError::Origins));
        assert_eq!(origins(" , "), Err(ConfigError::Origins));
    }

    #[test]
    fn a_missing_setting_is_named() {
        let error = Config::parse(|_| None).expect_err("nothing is set");
        assert!(error.to_string().starts_with("ORIGINS is not set"));
        let error = config(&[("ORIGINS", "a=https://a.example"), ("EDGE_SECRET", " ")]).expect_err("blank");
        assert_eq!(error, ConfigError::Missing("EDGE_SECRET"));
    }

    #[test]
    fn an_allowed_origin_is_spelled_as_browsers_do() {
        let allowed = |list| config(&[("ORIGINS", "a=https://a.example"), ("ALLOWED_ORIGINS", list)]);
        assert_eq!(
            allowed("https://a.example, http://localhost:3000").expect("valid").allowed_origins,
            ["https://a.example", "http://localhost:3000"]
        );
        for list in ["*", "null", "https://a.example/", "a.example", "https://A.example", "https://u@a.example"] {
            assert_eq!(allowed(list).err(), Some(ConfigError::AllowedOrigin), "{list}");
        }
    }

    #[test]
    fn the_rate_limit_is_on_unless_it_is_switched_off() {
        let base = ("ORIGINS", "a=https://a.example");
        assert!(config(&[base]).expect("valid").rate_limit);
        assert!(!config(&[base, ("RATE_LIMIT", "off")]).expect("valid").rate_limit);
        assert_eq!(config(&[base, ("RATE_LIMIT", "no")]).err(), Some(ConfigError::Switch("RATE_LIMIT")));
    }

    #[test]
    fn the_secret_is_never_printed() {
        let config = config(&[("ORIGINS", "a=https://a.example")]).expect("valid");
        assert!(!format!("{config:?}").contains("s3cret"));
    }
}
