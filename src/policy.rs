//! Who may? Decisions only: nothing here asks anybody.

use crate::config::{Config, RateLimit};
use crate::headers::HeaderList;
use crate::keys::CallerId;
use crate::route::Url;
use headwater_protocol::Problem;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The period of the rate limit: that of `START_LIMIT` in wrangler.toml, which a worker can't read.
pub const LIMIT_PERIOD: Duration = Duration::from_secs(60);

/// How long a browser may keep a preflight's answer, in seconds: the most that Chromium takes.
const PREFLIGHT_AGE_S: &str = "7200";

const CORS_METHODS: &str = "GET, POST, DELETE";
const CORS_RESPONSE_HEADERS: &str = "content-location, retry-after, server-timing, x-request-id, x-should-retry, \
                                     headwater-ignored, headwater-problem";

/// The part of an IPv6 address that one customer usually has: the upper 64 bits.
const CUSTOMER_MASK: u128 = !(u64::MAX as u128);

/// May this caller start a stream? A chat's paths ask [`may_chat`] before.
///
/// # Errors
///
/// The problem that says why not.
pub fn may_start(config: &Config, caller: &Caller) -> Result<Admission, Problem> {
    may_come(caller)?;
    match config.rate_limit {
        RateLimit::Off => Ok(Admission::Free),
        RateLimit::On => caller.rate_key().map(Admission::Counted).ok_or_else(Problem::no_rate_limit),
        RateLimit::Broken => Err(Problem::no_rate_limit()),
    }
}

/// May this caller use the chat's paths? They spend money on whatever a stranger writes, so nobody may unless the settings
/// say so.
///
/// # Errors
///
/// The problem that says why not.
pub fn may_chat(config: &Config, caller: &Caller) -> Result<(), Problem> {
    may_come(caller)?;
    if config.chat_is_open || caller.id.is_some() {
        return Ok(());
    }
    Err(if config.keys.is_empty() { Problem::chat_closed() } else { Problem::no_such_key() })
}

fn may_come(caller: &Caller) -> Result<(), Problem> {
    if !caller.is_known_host {
        return Err(Problem::other_host());
    }
    if caller.is_other_page && !caller.cors.is_allowed() {
        return Err(Problem::cross_site());
    }
    Ok(())
}

/// How a start is let in.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Free,
    /// If the rate limit has room for this key.
    Counted(String),
}

/// Who asks, as far as the edge knows.
#[derive(Debug)]
pub struct Caller {
    /// The caller has shown a key of the settings.
    pub id: Option<CallerId>,
    /// The connection's other end.
    pub address: Option<ClientAddress>,
    /// The request's address has a host that the settings allow.
    pub is_known_host: bool,
    /// A page asks, and it is not one of this edge's own.
    pub is_other_page: bool,
    /// What the page may see of the answer.
    pub cors: Cors,
}

impl Caller {
    /// Reads a request's headers through `header`.
    pub fn of(config: &Config, url: &Url, header: &dyn Fn(&str) -> Option<String>) -> Self {
        let page_origin = header("origin");
        let is_other_page = is_other_page(header("sec-fetch-site").as_deref(), page_origin.as_deref(), url.page_origin);
        Self {
            id: shown_key(config, header),
            address: header("cf-connecting-ip").and_then(|text| ClientAddress::parse(&text)),
            // Against DNS rebinding: a stranger's name that points to this machine makes his page one of the edge's own.
            is_known_host: config.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|host| host == url.host())),
            is_other_page,
            cors: Cors::of(config, page_origin),
        }
    }

    /// What is counted: whoever holds a key by that, wherever he is.
    fn rate_key(&self) -> Option<String> {
        let by_key = self.id.as_ref().map(|id| id.as_str().to_owned());
        by_key.or_else(|| self.address.map(ClientAddress::rate_key))
    }
}

/// A key comes as a bearer token (RFC 6750, section 2.1), as OpenAI's clients send it, or in `x-api-key`. Where there are no
/// keys nobody looks at either.
fn shown_key(config: &Config, header: &dyn Fn(&str) -> Option<String>) -> Option<CallerId> {
    if config.keys.is_empty() {
        return None;
    }
    let bearer = header("authorization").and_then(|text| {
        let (scheme, key) = text.split_once(' ')?;
        config.keys.holder(key.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
    });
    bearer.or_else(|| config.keys.holder(&header("x-api-key")?))
}

/// What the browser says of the page (`Sec-Fetch-Site`; Fetch Metadata, section 2.3) counts first.
///
/// - `same-origin` is believed: behind a proxy that ends TLS an own page's `Origin` has another scheme than the request.
/// - `cross-site` and `same-site` are other pages, whatever else they send: an `<img>` on a sibling subdomain, where
///   somebody else's content may live, sends no `Origin`.
/// - `none` (a typed address) and no header at all (older browsers, plain http, programs) leave the `Origin` to tell. An
///   `<img>` sends none, so a browser without `Sec-Fetch-Site` (Safari before 16.4) can't be told from a program.
fn is_other_page(fetch_site: Option<&str>, page_origin: Option<&str>, own: &str) -> bool {
    match fetch_site {
        Some("same-origin") => false,
        None | Some("none") => page_origin.is_some_and(|page_origin| page_origin != own),
        Some(_) => true,
    }
}

/// The address of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    fn parse(text: &str) -> Option<Self> {
        let address: IpAddr = text.parse().ok()?;
        Some(Self(address.to_canonical()))
    }

    /// What is counted: an IPv4 address, or the /64 of an IPv6 one, whose lower half a client changes at will.
    fn rate_key(self) -> String {
        match self.0 {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & CUSTOMER_MASK).to_string(),
        }
    }
}

/// Cross-origin resource sharing (Fetch, section 3.3): an exact list, and none by default.
#[derive(Debug)]
pub struct Cors {
    allowed: Option<String>,
    /// Answers differ by `Origin`, and say so, to those who are not allowed as well.
    varies: bool,
}

impl Cors {
    fn of(config: &Config, page_origin: Option<String>) -> Self {
        let list = &config.page_origins;
        Self { allowed: page_origin.filter(|page_origin| list.contains(page_origin)), varies: !list.is_empty() }
    }

    /// The request's `Origin` is on the list.
    pub fn is_allowed(&self) -> bool {
        self.allowed.is_some()
    }

    /// Adds what every answer carries.
    pub fn mark(&self, headers: &mut HeaderList) {
        if self.varies {
            headers.append("vary", "Origin");
        }
        if let Some(page_origin) = &self.allowed {
            headers.append("access-control-allow-origin", page_origin);
            // For pages that ask with credentials: the list is exact, and the edge reads no cookie.
            headers.append("access-control-allow-credentials", "true");
            headers.append("access-control-expose-headers", CORS_RESPONSE_HEADERS);
        }
    }

    /// The headers of the answer to `OPTIONS`, which no origin is asked for. `asked`: `Access-Control-Request-Headers`.
    ///
    /// An allowed page may send any header: what isn't on the list for origins stays behind here. Clients of OpenAI's send a
    /// dozen of their own.
    pub fn options(&self, allow: &'static str, asked: Option<&str>) -> HeaderList {
        let mut headers = HeaderList::default();
        headers.append("allow", allow);
        self.mark(&mut headers);
        if self.varies {
            headers.append("vary", "Access-Control-Request-Headers");
        }
        if self.is_allowed() {
            headers.append("access-control-allow-methods", CORS_METHODS);
            for name in asked.unwrap_or_default().split(',').map(str::trim).filter(|name| is_name(name)) {
                headers.append("access-control-allow-headers", name);
            }
            headers.append("access-control-max-age", PREFLIGHT_AGE_S);
        }
        headers
    }
}

/// It is a header's name (RFC 9110, section 5.6.2) as browsers write it there (Fetch, section 4.8: lower case). An asterisk
/// would be any name.
fn is_name(text: &str) -> bool {
    let is_of_names = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#'..=b'\'' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~');
    !text.is_empty() && text.bytes().all(is_of_names)
}

#[cfg(test)]
mod tests;
