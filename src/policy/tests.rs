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
    let headers = cors.options("GET, POST", Some("authorization, content-type,x_tenant,*,X-A,x\u{e9},x-b: c"));
    assert_eq!(headers.get("access-control-allow-methods"), Some(CORS_METHODS));
    assert_eq!(headers.get("access-control-allow-headers"), Some("authorization, content-type, x_tenant"));
    assert_eq!(headers.get("vary"), Some("Origin, Access-Control-Request-Headers"));
    for asked in [None, Some("*"), Some("x-a\r\nset-cookie: a"), Some("X-A"), Some("x\u{e9}"), Some(" ,")] {
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
    assert!(told.status() == 401 && told.detail().contains("CHAT = \"open\"") && told.detail().contains("EDGE_KEYS"));
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

/// A key doesn't let in a page that isn't on the list.
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
    assert_eq!(admission(&settings(OPEN), &[key, ("cf-connecting-ip", "192.0.2.7")]), by_address, "no keys are set");
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
    let deployment = include_str!("../../wrangler.toml");
    let (_, limiter) = deployment.split_once("[[ratelimits]]\nname = \"START_LIMIT\"\n").expect("the binding");
    let line = limiter.lines().find_map(|line| line.strip_prefix("simple = { limit = 30, period = ")).expect("a limit");
    assert_eq!(line, format!("{} }}", LIMIT_PERIOD.as_secs()));
}
