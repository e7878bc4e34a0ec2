//! The settings, parsed once. A bad one is logged at the first request, is named by `/healthz`, and takes down only what
//! depends on it.

use crate::keys::Keys;
use headwater_protocol::OriginName;
use std::net::{IpAddr, Ipv6Addr};

/// The least characters of `EDGE_SECRET`: an origin takes no shorter one.
const MIN_SECRET_CHARS: usize = 16;

/// The settings of one edge.
#[derive(Debug, Default)]
pub struct Config {
    /// Where streams come from, in order of preference. Empty where `ORIGINS` is wrong, or `EDGE_SECRET` and an origin
    /// needs it: then nobody can be asked.
    pub origins: Vec<Origin>,
    /// Every origin reads and stops every stream (`SHARED_JOURNAL`).
    pub shared_journal: bool,
    /// Shown to this project's origins as a bearer token (RFC 6750).
    pub secret: Option<Secret>,
    /// The page origins that may use this edge besides its own (`ALLOWED_ORIGINS`), as browsers send them in `Origin`.
    pub page_origins: Vec<String>,
    /// The hosts of which a start's address has to have one (`HOSTS`); `None`: any.
    pub hosts: Option<Vec<String>>,
    /// How starts are counted.
    pub rate_limit: RateLimit,
    /// Anybody may chat (`CHAT`). Else whoever holds one of the keys.
    pub chat_is_open: bool,
    /// The keys that callers may hold (`EDGE_KEYS`).
    pub keys: Keys,
    /// What is wrong.
    pub slips: Vec<Slip>,
}

/// Whether starts are counted (`RATE_LIMIT`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RateLimit {
    /// Every start is counted.
    On,
    /// No start is counted.
    Off,
    /// The setting is wrong, or there is nothing to count with: nothing starts.
    #[default]
    Broken,
}

/// What is wrong with a setting. Its text names the setting and never its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {rule}")]
pub struct Slip {
    /// The setting's name.
    pub setting: &'static str,
    rule: &'static str,
}

impl Config {
    /// Reads every setting through `get`. `has_limiter`: the rate limit's binding is there.
    pub fn parse(get: impl Fn(&str) -> Option<String>, has_limiter: bool) -> Self {
        let mut slips = Vec::new();
        // An empty setting counts as none.
        let setting = |name| get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let list = |name| setting(name).unwrap_or_default();

        let plain_http = take_fit(&list("ALLOW_PLAIN_HTTP"), is_host, "ALLOW_PLAIN_HTTP", HOST_RULE, &mut slips);
        let mut origins = or_slip(parse_origins(&list("ORIGINS"), &plain_http), &mut slips).unwrap_or_default();
        let secret = setting("EDGE_SECRET").map(Secret::parse);
        let secret = if origins.iter().any(Origin::is_own) {
            or_slip(secret.unwrap_or(Err(NO_SECRET)), &mut slips)
        } else {
            secret.and_then(Result::ok)
        };
        if secret.is_none() && origins.iter().any(Origin::is_own) {
            origins.clear();
        }
        let page_origins =
            take_fit(&list("ALLOWED_ORIGINS"), is_page_origin, "ALLOWED_ORIGINS", PAGE_ORIGIN_RULE, &mut slips);
        let hosts = setting("HOSTS").map(|list| take_fit(&list, is_host, "HOSTS", HOST_RULE, &mut slips));
        let shared = parse_switch("SHARED_JOURNAL", setting("SHARED_JOURNAL").as_deref(), false);
        let limit = parse_switch("RATE_LIMIT", setting("RATE_LIMIT").as_deref(), true);
        let rate_limit = match or_slip(limit, &mut slips) {
            Some(false) => RateLimit::Off,
            Some(true) if has_limiter => RateLimit::On,
            Some(true) => {
                slips.push(NO_LIMITER);
                RateLimit::Broken
            }
            None => RateLimit::Broken,
        };
        let shared_journal = or_slip(shared, &mut slips).unwrap_or(false);
        let chat_is_open = match setting("CHAT").as_deref() {
            None => false,
            Some("open") => true,
            Some(_) => {
                slips.push(CHAT);
                false
            }
        };
        let (keys, unfit) = Keys::parse(&list("EDGE_KEYS"));
        if unfit > 0 {
            slips.push(UNFIT_KEYS);
        }
        Self { origins, shared_journal, secret, page_origins, hosts, rate_limit, chat_is_open, keys, slips }
    }
}

/// One server that generates streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The ids of its streams begin with it.
    pub name: OriginName,
    /// Where it is. Without a slash at its end, unless it has a path.
    address: String,
    has_path: bool,
}

impl Origin {
    /// It is an origin of this project. Else it is a *foreign server*: its address has a path, and is posted to as it
    /// stands. It gets no secret, and knows neither this project's ids nor its keys.
    pub fn is_own(&self) -> bool {
        !self.has_path
    }

    /// The address of `path`, which begins with a slash. A foreign server has but one address.
    pub fn join(&self, path: &str) -> String {
        if self.has_path { self.address.clone() } else { [&self.address, path].concat() }
    }

    fn parse(name: OriginName, address: &str, plain_http: &[String]) -> Result<Self, Slip> {
        let (scheme, rest) = split_scheme(address).ok_or(ORIGIN_ADDRESS)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            // Not inside an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        // A number as Rust reads it may have a sign.
        let is_port = |port: &str| !port.starts_with('+') && port.parse::<u16>().is_ok_and(|port| port > 0);
        let has_port = port.is_none_or(is_port);
        // Nothing that could make another host or another address of it: no `user@`, no `#`, no backslash.
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"#<>@\\^`{|}".contains(&byte));
        let has_host = is_host(&host.to_ascii_lowercase()) || ipv6_of(host).is_some();
        if !(has_host && has_port && is_path) {
            return Err(ORIGIN_ADDRESS);
        }
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {}
            "http" if is_loopback(host) || plain_http.iter().any(|known| known.eq_ignore_ascii_case(host)) => {}
            "http" => return Err(PLAIN_HTTP),
            _ => return Err(ORIGIN_ADDRESS),
        }
        let has_path = !matches!(path, "" | "/");
        let address = if has_path { address } else { address.trim_end_matches('/') };
        Ok(Self { name, address: address.to_owned(), has_path })
    }
}

/// What the edge shows to this project's origins. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    fn parse(text: String) -> Result<Self, Slip> {
        let fits = text.len() >= MIN_SECRET_CHARS && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text)) } else { Err(UNFIT_SECRET) }
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

const fn slip(setting: &'static str, rule: &'static str) -> Slip {
    Slip { setting, rule }
}

const ORIGINS_LIST: Slip = slip("ORIGINS", "must be a list like `a=https://one.example, b=https://two.example`");
const ORIGIN_NAME: Slip = slip("ORIGINS", "has a name that is not 1 to 16 characters of a-z and 0-9, or stands twice");
const ORIGIN_ADDRESS: Slip =
    slip("ORIGINS", "has an address that is not https://HOST[:PORT][/PATH], without a user, a password or a fragment");
const PLAIN_HTTP: Slip = slip(
    "ORIGINS",
    "has an address of http:// that is not on the loopback; use https, or name its host in ALLOW_PLAIN_HTTP: then \
     whoever is on the way reads and changes the secret, the prompts and the answers",
);
const NO_SECRET: Slip =
    slip("EDGE_SECRET", "is not set: it belongs in .dev.vars, or in `npx wrangler secret put EDGE_SECRET`");
const UNFIT_SECRET: Slip = slip("EDGE_SECRET", "must be 16 or more visible ASCII characters");
const NO_LIMITER: Slip = slip(
    "RATE_LIMIT",
    "is on, and the binding START_LIMIT is missing, so nothing starts; declare [[ratelimits]], or set it to `off`",
);
const CHAT: Slip = slip("CHAT", "must be `open`, or empty: then only whoever holds a key of EDGE_KEYS may chat");
const UNFIT_KEYS: Slip = slip(
    "EDGE_KEYS",
    "must be a list of SHA-256 digests of keys, 64 hexadecimal characters each, as `printf %s KEY | sha256sum` shows them",
);
const PAGE_ORIGIN_RULE: &str = "must be a list of page origins exactly as browsers send them, like \
     `https://app.example, tauri://localhost`: no path, no default port, no `*`, no `null`";
const HOST_RULE: &str = "must be a list of host names without scheme, port and path, like `localhost, [::1]`";

fn or_slip<T>(parsed: Result<T, Slip>, slips: &mut Vec<Slip>) -> Option<T> {
    parsed.map_err(|slip| slips.push(slip)).ok()
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The items that fit. The others are left out: they would match nothing that is ever sent.
fn take_fit(
    list: &str,
    fits: fn(&str) -> bool,
    setting: &'static str,
    rule: &'static str,
    slips: &mut Vec<Slip>,
) -> Vec<String> {
    let (fit, unfit): (Vec<_>, Vec<_>) = items(list).partition(|item| fits(item));
    if !unfit.is_empty() {
        slips.push(slip(setting, rule));
    }
    fit.into_iter().map(str::to_owned).collect()
}

fn parse_origins(list: &str, plain_http: &[String]) -> Result<Vec<Origin>, Slip> {
    let mut origins: Vec<Origin> = Vec::new();
    for item in items(list) {
        let (name, address) = item.split_once('=').ok_or(ORIGINS_LIST)?;
        let name: OriginName = name.trim().parse().map_err(|_| ORIGIN_NAME)?;
        if origins.iter().any(|origin| origin.name == name) {
            return Err(ORIGIN_NAME);
        }
        origins.push(Origin::parse(name, address.trim(), plain_http)?);
    }
    if origins.is_empty() { Err(ORIGINS_LIST) } else { Ok(origins) }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The scheme of an absolute address, and what follows its two slashes.
pub(crate) fn split_scheme(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once(':')?;
    Some((scheme, rest.strip_prefix("//")?))
}

/// A page origin as a browser serialises it (RFC 6454, section 6.2).
///
/// - `http` and `https`: lower case, a port only if it is not the default.
/// - Apps and extensions have schemes of their own, and some have upper case in the host: `tauri://localhost`,
///   `safari-web-extension://4D3F…`.
/// - `file://` is what Electron and old Android web views send. No website can send it.
/// - `null` is refused: every site can send it, from a sandboxed frame.
fn is_page_origin(text: &str) -> bool {
    let Some((scheme, host)) = split_scheme(text) else { return false };
    match scheme {
        "http" => is_host_and_port(host, 80),
        "https" => is_host_and_port(host, 443),
        "file" => host.is_empty(),
        _ => {
            let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
            let special = |byte: u8| !byte.is_ascii_graphic() || b"/?#@\\*".contains(&byte);
            let scheme_fits = scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(known);
            scheme_fits && !host.is_empty() && !host.bytes().any(special)
        }
    }
}

fn is_host_and_port(text: &str, default_port: u16) -> bool {
    match text.rsplit_once(':') {
        // Not inside an IPv6 address.
        Some((host, port)) if !port.ends_with(']') => {
            let number = port.parse::<u16>().ok().filter(|number| ![0, default_port].contains(number));
            is_host(host) && number.is_some_and(|number| number.to_string() == port)
        }
        _ => is_host(text),
    }
}

/// A host as the runtime serialises it (WHATWG URL): lower case, IPv6 in brackets.
fn is_host(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    match ipv6_of(text) {
        Some(address) => text == ["[", &address.to_string(), "]"].concat(),
        None => !text.is_empty() && text.bytes().all(known),
    }
}

fn ipv6_of(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

fn parse_switch(setting: &'static str, value: Option<&str>, default: bool) -> Result<bool, Slip> {
    match value {
        None => Ok(default),
        Some("on" | "true") => Ok(true),
        Some("off" | "false") => Ok(false),
        Some(_) => Err(slip(setting, "must be `on` or `off`, `true` or `false`")),
    }
}

#[cfg(test)]
pub(crate) mod tests;
