//! Who may? Decisions only: nothing here asks anybody.

use crate::config::{Config, RateLimit};
use crate::headers::HeaderList;
use crate::route::Url;
use headwater_protocol::Problem;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// The period of the rate limit: that of `START_LIMIT` in wrangler.toml, which a worker can't read.
pub const LIMIT_PERIOD: Duration = Duration::from_secs(60);

/// How long a browser may keep a preflight's answer, in seconds: the most that Chromium takes.
const PREFLIGHT_AGE_S: &str = "7200";

const CORS_METHODS: &str = "GET, POST, DELETE";
/// `traceparent`: a page that is traced with OpenTelemetry sends it, and the edge passes it on.
const CORS_REQUEST_HEADERS: &str = "content-type, idempotency-key, last-event-id, traceparent";
const CORS_RESPONSE_HEADERS: &str = "content-location, retry-after, server-timing";

/// The part of an IPv6 address that one customer usually has: the upper 64 bits.
const CUSTOMER_MASK: u128 = !(u64::MAX as u128);

/// May this caller start a stream? The one place where that is answered; callers with accounts will be asked here.
///
/// # Errors
///
/// The problem that says why not.
pub fn may_start(config: &Config, caller: &Caller) -> Result<Admission, Problem> {
    if !caller.is_known_host {
        return Err(Problem::other_host());
    }
    if caller.is_other_page && !caller.cors.is_allowed() {
        return Err(Problem::cross_site());
    }
    match (config.rate_limit, caller.address) {
        (RateLimit::Off, _) => Ok(Admission::Free),
        (RateLimit::On, Some(address)) => Ok(Admission::Counted(address.rate_key())),
        (RateLimit::On, None) | (RateLimit::Broken, _) => Err(Problem::no_rate_limit()),
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
            address: header("cf-connecting-ip").and_then(|text| ClientAddress::parse(&text)),
            // Against DNS rebinding: a stranger's name that points to this machine makes his page one of the edge's own.
            is_known_host: config.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(|host| host == url.host())),
            is_other_page,
            cors: Cors::of(config, page_origin),
        }
    }
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
        config(&[extra, &[("ALLOWED_ORIGINS", APP)]].concat())
    }

    fn caller(config: &Config, headers: &[(&str, &str)]) -> Caller {
        Caller::of(config, &Url::of(OWN), &|name| {
            headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn admission(config: &Config, headers: &[(&str, &str)]) -> Result<Admission, u16> {
        may_start(config, &caller(config, headers)).map_err(|problem| problem.status())
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
        let sibling = ("sec-fetch-site", "same-site");
        assert_eq!(admission(&config, &[sibling, ("origin", "https://blog.edge.example")]), Err(403));
        assert_eq!(admission(&config, &[sibling]), Err(403), "an <img> has no Origin");
        assert_eq!(admission(&config, &[sibling, ("origin", APP)]), Ok(Admission::Free));
        let typed = ("sec-fetch-site", "none");
        assert_eq!(admission(&config, &[typed]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[typed, ("origin", "chrome-extension://abc")]), Err(403));
        assert_eq!(admission(&config, &[("origin", OWN)]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[("origin", APP)]), Ok(Admission::Free));
        assert_eq!(admission(&config, &[]), Ok(Admission::Free));
        let behind_a_proxy = [("sec-fetch-site", "same-origin"), ("origin", "https://proxy.example")];
        assert_eq!(admission(&config, &behind_a_proxy), Ok(Admission::Free));
    }

    /// DNS rebinding: to the browser the page of evil.example:8787, whose name points to this machine, is the edge's own.
    #[test]
    fn a_start_at_another_host_than_the_settings_name_is_refused() {
        let config = settings(&[("RATE_LIMIT", "off"), ("HOSTS", "localhost, [::1]")]);
        let start = |url: &str| {
            let url = Url::of(url);
            let header = |name: &str| (name == "origin").then(|| url.page_origin.to_owned());
            may_start(&config, &Caller::of(&config, &url, &header)).map_err(|problem| problem.status())
        };
        for url in ["http://localhost:8787/simple", "http://localhost/", "http://[::1]:8787/simple"] {
            assert_eq!(start(url), Ok(Admission::Free), "{url}");
        }
        for url in ["http://evil.example:8787/simple", "http://localhost.evil.example/", "http://127.0.0.1/"] {
            assert_eq!(start(url), Err(403), "{url}");
        }
    }

    #[test]
    fn where_the_limit_is_wrong_nothing_starts() {
        let config = settings(&[("RATE_LIMIT", "no")]);
        assert_eq!(admission(&config, &[("cf-connecting-ip", "192.0.2.7")]), Err(503));
    }

    #[test]
    fn an_allowed_origin_sees_the_answer_and_its_headers() {
        let mut headers = HeaderList::default();
        caller(&settings(&[]), &[("origin", APP)]).cors.mark(&mut headers);
        assert_eq!(headers.get("access-control-allow-origin"), Some(APP));
        assert_eq!(headers.get("access-control-allow-credentials"), Some("true"));
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
        assert_eq!(headers.get("access-control-allow-headers"), Some(CORS_REQUEST_HEADERS));
    }

    #[test]
    fn the_period_is_that_of_the_deployment() {
        let deployment = include_str!("../wrangler.toml");
        let (_, limiter) = deployment.split_once("[[ratelimits]]\nname = \"START_LIMIT\"\n").expect("the binding");
        let line =
            limiter.lines().find_map(|line| line.strip_prefix("simple = { limit = 30, period = ")).expect("a limit");
        assert_eq!(line, format!("{} }}", LIMIT_PERIOD.as_secs()));
    }
}
