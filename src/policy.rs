//! Who may? Decisions only: nothing here asks anybody.

use crate::config::Config;
use crate::problem::Problem;
use crate::upstream::HeaderList;
use std::net::{IpAddr, Ipv6Addr};

/// The period of the rate limit, in seconds: that of `START_LIMIT` in wrangler.toml, which a worker can't read.
pub const LIMIT_PERIOD_S: u32 = 60;

/// How long a browser may keep a preflight's answer, in seconds: the most that Chromium takes.
const PREFLIGHT_AGE_S: &str = "7200";

const CORS_METHODS: &str = "GET, POST, DELETE";
const CORS_REQUEST_HEADERS: &str = "content-type, idempotency-key, last-event-id";
const CORS_RESPONSE_HEADERS: &str = "content-location, retry-after, server-timing";

/// The part of an IPv6 address that one customer usually has: the upper 64 bits.
const CUSTOMER_MASK: u128 = !(u64::MAX as u128);

/// May this caller start a stream? The one place where that is answered; callers with accounts will be asked here.
///
/// # Errors
///
/// The problem that says why not.
pub fn may_start(config: &Config, caller: &Caller) -> Result<Admission, Problem> {
    if caller.is_foreign_page && !caller.cors.is_allowed() {
        return Err(Problem::cross_site());
    }
    if !config.rate_limit {
        return Ok(Admission::Free);
    }
    match caller.address {
        Some(address) => Ok(Admission::Counted(address.rate_key())),
        None => Err(Problem::unlimited()),
    }
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
    /// The connection's other end.
    pub address: Option<ClientAddress>,
    /// A page asks, and it is not one of this edge's own.
    pub is_foreign_page: bool,
    /// What the page may see of the answer.
    pub cors: Cors,
}

impl Caller {
    /// Reads a request's headers through `header`; `own_origin` is that of the request's address.
    pub fn of(config: &Config, own_origin: &str, header: &dyn Fn(&str) -> Option<String>) -> Self {
        let origin = header("origin");
        Self {
            address: header("cf-connecting-ip").and_then(|text| ClientAddress::parse(&text)),
            is_foreign_page: is_foreign_page(header("sec-fetch-site").as_deref(), origin.as_deref(), own_origin),
            cors: Cors::of(config, origin),
        }
    }
}

/// What the browser says of the page (`Sec-Fetch-Site`; Fetch Metadata, section 2.3) counts first: behind a proxy that
/// ends TLS an own page's `Origin` has another scheme than the request. Browsers that say nothing, and sibling
/// subdomains, which are of the same site, are told by their `Origin`.
fn is_foreign_page(fetch_site: Option<&str>, origin: Option<&str>, own_origin: &str) -> bool {
    match fetch_site {
        Some("cross-site") => true,
        Some("same-origin") => false,
        _ => origin.is_some_and(|origin| origin != own_origin),
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

impl std::fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
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
    fn of(config: &Config, origin: Option<String>) -> Self {
        let list = &config.allowed_origins;
        Self { allowed: origin.filter(|origin| list.contains(origin)), varies: !list.is_empty() }
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
        if let Some(origin) = &self.allowed {
            headers.append("access-control-allow-origin", origin);
            headers.append("access-control-expose-headers", CORS_RESPONSE_HEADERS);
        }
    }

    /// The headers of the answer to `OPTIONS`, which no origin is asked for.
    pub fn options(&self, allow: &'static str) -> HeaderList {
        let mut headers = HeaderList::default();
        headers.append("allow", allow);
        self.mark(&mut headers);
        if self.is_allowed() {
            headers.append("access-control-allow-methods", CORS_METHODS);
            headers.append("access-control-allow-headers", CORS_REQUEST_HEADERS);
            headers.append("access-control-max-age", PREFLIGHT_AGE_S);
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    const APP: &str = "https://app.example";
    const OWN: &str = "https://edge.example";

    fn settings(extra: &[(&str, &str)]) -> Config {
        let settings = [&[("ORIGINS", "a=https://a.example"), ("ALLOWED_ORIGINS", APP)], extra].concat();
        config(&settings).expect("valid")
    }

    fn caller(config: &Config, headers: &[(&str, &str)]) -> Caller {
        Caller::of(config, OWN, &|name| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn admission(config: &Config, headers: &[(&str, &str)]) -> Result<Admission, u16> {
        may_start(config, &caller(config, headers)).map_err(|problem| problem.status)
    }

    fn key(address: &str) -> Result<Admission, u16> {
        admission(&settings(&[]), &[("cf-connecting-ip", address)])
    }

    #[test]
    fn an_ipv4_address_is_counted_whole() {
        let counted = Ok(Admission::Counted("192.0.2.7".into()));
        assert_eq!(key("192.0.2.7"), counted);
        assert_eq!(key("::ffff:192.0.2.7"), counted);
    }

    #[test]
    fn an_ipv6_address_is_counted_by_its_upper_half() {
        let counted = Ok(Admission::Counted("2001:db8:1:2::".into()));
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), counted);
        assert_eq!(key("2001:db8:1:2::1"), counted);
        assert_ne!(key("2001:db8:1:3::1"), counted);
    }

    #[test]
    fn without_an_address_nothing_starts_unless_the_limit_is_off() {
        assert_eq!(admission(&settings(&[]), &[]), Err(503));
        assert_eq!(key("unknown"), Err(503));
        let off = settings(&[("RATE_LIMIT", "off")]);
        assert_eq!(admission(&off, &[]), Ok(Admission::Free));
    }

    #[test]
    fn another_sites_page_starts_nothing_unless_it_is_allowed() {
        let config = settings(&[("RATE_LIMIT", "off")]);
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(admission(&config, &[cross]), Err(403));
        assert_eq!(admission(&config, &[cross, ("origin", "https://evil.example")]), Err(403));
        assert_eq!(admission(&config, &[cross, ("origin", APP)]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[("sec-fetch-site", "same-origin")]), Ok(Admission::Free));
    }

    /// A browser sends `Sec-Fetch-Site` to trustworthy addresses only, and old ones never do; a sibling subdomain,
    /// where somebody else's content may live, is of the same site.
    #[test]
    fn a_page_is_told_by_its_origin_where_the_browser_says_no_more() {
        let config = settings(&[("RATE_LIMIT", "off")]);
        for origin in ["https://evil.example", "null", "http://edge.example", "https://edge.example.evil.example"] {
            assert_eq!(admission(&config, &[("origin", origin)]), Err(403), "{origin}");
        }
        let sibling = [("sec-fetch-site", "same-site"), ("origin", "https://blog.edge.example")];
        assert_eq!(admission(&config, &sibling), Err(403));
        assert_eq!(admission(&config, &[("origin", OWN)]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[("origin", APP)]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[]), Ok(Admission::Free));
        let behind_a_proxy = [("sec-fetch-site", "same-origin"), ("origin", "https://proxy.example")];
        assert_eq!(admission(&config, &behind_a_proxy), Ok(Admission::Free));
    }

    #[test]
    fn an_allowed_origin_sees_the_answer_and_its_headers() {
        let mut headers = HeaderList::default();
        caller(&settings(&[]), &[("origin", APP)]).cors.mark(&mut headers);
        assert_eq!(headers.get("access-control-allow-origin"), Some(APP));
        assert_eq!(headers.get("vary"), Some("Origin"));
        assert!(headers.get("access-control-expose-headers").is_some());
    }

    #[test]
    fn a_disallowed_origin_gets_no_cors_header() {
        for origin in ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"] {
            let config = settings(&[]);
            let cors = caller(&config, &[("origin", origin)]).cors;
            let mut headers = HeaderList::default();
            headers.append("vary", "Accept");
            cors.mark(&mut headers);
            assert_eq!(headers.get("access-control-allow-origin"), None, "{origin}");
            assert_eq!(headers.get("vary"), Some("Accept, Origin"));
            let preflight = cors.options("GET, POST");
            assert_eq!(preflight.get("access-control-allow-methods"), None);
        }
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_names_methods_and_headers() {
        let cors = caller(&settings(&[]), &[("origin", APP)]).cors;
        let headers = cors.options("GET, POST");
        assert_eq!(headers.get("access-control-allow-methods"), Some(CORS_METHODS));
        assert_eq!(headers.get("access-control-allow-headers"), Some("content-type, idempotency-key, last-event-id"));
    }

    #[test]
    fn the_period_is_that_of_the_deployment() {
        let deployment = include_str!("../wrangler.toml");
        assert!(deployment.contains(&format!("period = {LIMIT_PERIOD_S}")));
    }
}
