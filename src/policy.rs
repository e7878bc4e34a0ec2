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

/// May this caller start a stream? The one place where that is answered; callers with accounts will be asked here.
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
}

impl Caller {
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
            if let Some(names) = asked.filter(|names| names.bytes().all(is_of_names)) {
                headers.append("access-control-allow-headers", names);
            }
            headers.append("access-control-max-age", PREFLIGHT_AGE_S);
        }
        headers
    }
}

/// It is a part of a list of headers as browsers write them there (Fetch, section 4.8: lower case).
fn is_of_names(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b',' | b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;
    use crate::keys::tests::ABC;

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
            let preflight = cors.options("GET, POST", Some("authorization"));
            assert_eq!(preflight.get("access-control-allow-methods"), None);
            assert_eq!(preflight.get("access-control-allow-headers"), None);
        }
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_names_methods_and_headers() {
        let cors = caller(&settings(&[]), &[("origin", APP)]).cors;
        let asked = "authorization, content-type,x-stainless-os";
        let headers = cors.options("GET, POST", Some(asked));
        assert_eq!(headers.get("access-control-allow-methods"), Some(CORS_METHODS));
        assert_eq!(headers.get("access-control-allow-headers"), Some(asked));
        assert_eq!(headers.get("vary"), Some("Origin, Access-Control-Request-Headers"));
        for asked in [None, Some("x-a, *"), Some("x-a\r\nset-cookie: a"), Some("X-A"), Some("x\u{e9}")] {
            assert_eq!(cors.options("GET", asked).get("access-control-allow-headers"), None, "{asked:?}");
        }
    }

    const KEYED: &[(&str, &str)] = &[("EDGE_KEYS", ABC)];
    const OPEN: &[(&str, &str)] = &[("CHAT", "open")];

    fn chat(extra: &[(&str, &str)], headers: &[(&str, &str)]) -> Result<(), Problem> {
        let config = settings(extra);
        may_chat(&config, &caller(&config, headers))
    }

    #[test]
    fn nobody_may_chat_unless_the_settings_say_so_and_the_refusal_says_how() {
        for headers in [&[][..], &[("authorization", "Bearer abc")], &[("x-api-key", "abc")]] {
            assert_eq!(chat(&[], headers), Err(Problem::chat_closed()));
            assert_eq!(chat(&[("CHAT", "yes")], headers), Err(Problem::chat_closed()));
            assert_eq!(chat(&[("EDGE_KEYS", "abc")], headers), Err(Problem::chat_closed()), "that is no digest");
            assert_eq!(chat(OPEN, headers), Ok(()));
        }
        let told = Problem::chat_closed();
        assert!(
            told.status() == 401 && told.detail().contains("CHAT = \"open\"") && told.detail().contains("EDGE_KEYS")
        );
    }

    #[test]
    fn where_there_are_keys_one_of_them_is_shown_in_either_header() {
        for header in [("authorization", "Bearer abc"), ("authorization", "bearer  abc "), ("x-api-key", "abc")] {
            assert_eq!(chat(KEYED, &[header]), Ok(()), "{header:?}");
        }
        assert_eq!(chat(KEYED, &[("authorization", "Basic YTpi"), ("x-api-key", "abc")]), Ok(()));
        for headers in [
            &[][..],
            &[("authorization", "Bearer abd")],
            &[("authorization", "Basic abc")],
            &[("authorization", "abc")],
            &[("authorization", "")],
            &[("x-api-key", "")],
            &[("x-api-key", ABC)],
        ] {
            assert_eq!(chat(KEYED, headers), Err(Problem::no_such_key()), "{headers:?}");
        }
    }

    /// A page can't be told to hold its tongue about a key that it was given; who gave it to that page is on the list.
    #[test]
    fn another_sites_page_may_not_chat_with_or_without_a_key() {
        for extra in [KEYED, OPEN, &[]] {
            for headers in [
                &[("sec-fetch-site", "cross-site")][..],
                &[("sec-fetch-site", "same-site"), ("authorization", "Bearer abc")],
                &[("origin", "https://evil.example"), ("x-api-key", "abc")],
            ] {
                assert_eq!(chat(extra, headers), Err(Problem::cross_site()), "{extra:?} {headers:?}");
            }
        }
        assert_eq!(chat(OPEN, &[("origin", APP), ("sec-fetch-site", "cross-site")]), Ok(()));
        assert_eq!(chat(&[("HOSTS", "localhost"), OPEN[0]], &[]), Err(Problem::other_host()));
    }

    #[test]
    fn whoever_holds_a_key_is_counted_by_it_wherever_he_is() {
        let counted = Ok(Admission::Counted(ABC[..16].to_owned()));
        let key = ("authorization", "Bearer abc");
        for address in ["192.0.2.7", "2001:db8::1", "unknown"] {
            assert_eq!(admission(&settings(KEYED), &[key, ("cf-connecting-ip", address)]), counted);
        }
        let by_address = Ok(Admission::Counted("192.0.2.7".into()));
        let wrong = ("authorization", "Bearer abd");
        assert_eq!(admission(&settings(KEYED), &[wrong, ("cf-connecting-ip", "192.0.2.7")]), by_address);
        assert_eq!(
            admission(&settings(OPEN), &[key, ("cf-connecting-ip", "192.0.2.7")]),
            by_address,
            "no keys are set"
        );
    }

    #[test]
    fn without_keys_nobody_looks_at_what_is_shown() {
        let config = settings(OPEN);
        let header = |name: &str| {
            assert!(!["authorization", "x-api-key"].contains(&name));
            None
        };
        assert_eq!(Caller::of(&config, &Url::of(OWN), &header).id, None);
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
