//! Tests of the settings.

use super::*;
use crate::keys::tests::ABC;

pub(crate) const SECRET: &str = "s3cret-s3cret-s3cret";
const A: (&str, &str) = ("ORIGINS", "a=https://a.example");

/// A configuration with these settings, a secret, one origin unless told, and a limiter.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let all = [settings, &[A, ("EDGE_SECRET", SECRET)]].concat();
    Config::parse(|name| Some(all.iter().find(|(known, _)| *known == name)?.1.to_owned()), true)
}

fn slips(settings: &[(&str, &str)]) -> Vec<Slip> {
    config(settings).slips
}

fn of_origins(list: &str) -> Result<Vec<Origin>, Slip> {
    let config = config(&[("ORIGINS", list)]);
    match config.slips[..] {
        [] => Ok(config.origins),
        [slip] => Err(slip),
        _ => panic!("{:?}", config.slips),
    }
}

#[test]
fn origins_keep_their_order_and_their_names() {
    let origins = of_origins("a=https://one.example/, b = http://127.0.0.1:9000").expect("valid");
    assert_eq!(origins[0].name.as_str(), "a");
    assert_eq!(origins[0].join("/healthz"), "https://one.example/healthz");
    assert_eq!(origins[1].join("/healthz"), "http://127.0.0.1:9000/healthz");
    assert!(origins.iter().all(Origin::is_own));
}

#[test]
fn an_address_with_a_path_is_posted_to_as_it_stands() {
    let origins = of_origins("a=https://one.example/v1/chat/?v=2").expect("valid");
    assert!(!origins[0].is_own());
    assert_eq!(origins[0].join("/prompts/simple"), "https://one.example/v1/chat/?v=2");
}

#[test]
fn an_origin_that_is_not_on_the_loopback_is_https() {
    assert!(of_origins("a=http://localhost:9000").is_ok());
    assert!(of_origins("a=http://[::1]:9000").is_ok());
    assert!(of_origins("a=HTTP://[0:0:0::1]").is_ok() && of_origins("a=https://One.example:443").is_ok());
    for list in ["a=http://one.example", "a=http://127.0.0.1.example", "a=http://10.0.0.1", "a=http://0.0.0.0:9000"] {
        assert_eq!(of_origins(list), Err(PLAIN_HTTP), "{list}");
    }
}

#[test]
fn plain_http_is_allowed_to_a_host_by_its_name_and_the_refusal_says_so() {
    assert!(PLAIN_HTTP.to_string().contains("ALLOW_PLAIN_HTTP"));
    let plain = |list, hosts| slips(&[("ORIGINS", list), ("ALLOW_PLAIN_HTTP", hosts)]);
    assert_eq!(plain("a=http://origin:9000", "other, origin"), []);
    assert_eq!(plain("a=http://origin:9000/v1/chat", "origin"), []);
    assert_eq!(plain("a=http://origin.example:9000", "origin"), [PLAIN_HTTP]);
    for slipped in ["http://origin", "origin:9000", "*"] {
        let settings: Vec<_> = plain("a=http://origin:9000", slipped).iter().map(|slip| slip.setting).collect();
        assert_eq!(settings, ["ALLOW_PLAIN_HTTP", "ORIGINS"], "{slipped}");
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
        "a=https://one.example:0",
        "a=https://one.example:",
        "a=https://one.example:99999",
        "a=http://127.0.0.1\\@evil.example",
        "a=https://one.example/\\x",
        "a=https://[::1",
        "a=https://[::1]x",
        "a=https://one.example:+80",
        "a=https:/one.example",
        "a=https://caf\u{e9}.example",
        "a=https://one.example/a b",
    ] {
        assert_eq!(of_origins(list), Err(ORIGIN_ADDRESS), "{list}");
    }
}

#[test]
fn a_name_is_fit_and_single() {
    for list in ["A=https://a.example", "=https://a.example", "a=https://a.example, a=https://b.example"] {
        assert_eq!(of_origins(list), Err(ORIGIN_NAME), "{list}");
    }
    assert_eq!(of_origins("https://a.example"), Err(ORIGINS_LIST));
    assert_eq!(of_origins(" , "), Err(ORIGINS_LIST));
}

/// Fault 41. What a slip takes down is what depends on the setting, and nothing else.
#[test]
fn a_setting_at_its_zero_empty_or_absurd_value_means_what_it_says_or_is_named() {
    let absurd = "0123456789,".repeat(10_000);
    let table: [(&str, &[&str], &[&str]); 9] = [
        ("ORIGINS", &["a=https://a.example"], &["", " ", "0", ",", "=", "a=", "*", "a=0", &absurd]),
        (
            "EDGE_SECRET",
            &["0123456789abcdef", " 0123456789abcdef\n"],
            &["", " ", "0", "caf\u{e9}-0123456789abc", "0 1 2 3 4 5 6 7 8 9"],
        ),
        ("SHARED_JOURNAL", &["", " ", "on", "off", "true", "false"], &["0", "1", "yes", "TRUE", &absurd]),
        ("RATE_LIMIT", &["", " ", "on", "off", "true", "false"], &["0", "no", "OFF", "30", &absurd]),
        (
            "HOSTS",
            &["", " ", ",", "0", "localhost, [::1]", "xn--caf-dma.example"],
            &["*", "http://a", "a:80", "A", "caf\u{e9}", "[::1", "[0:0::1]"],
        ),
        ("ALLOW_PLAIN_HTTP", &["", ",", "origin"], &["*", "http://a", "a:80", "a/b"]),
        ("CHAT", &["", " ", "open", " open\n"], &["0", "on", "true", "OPEN", "closed", &absurd]),
        ("EDGE_KEYS", &["", ",", ABC, "\n"], &["0", "*", "sk-a-key-itself", &ABC[1..], &absurd]),
        ("ALLOWED_ORIGINS", &["", ",", "https://app.example"], &["0", "*", "null", "https://", "://", &absurd]),
    ];
    for (name, fit, unfit) in table {
        for value in fit {
            assert_eq!(slips(&[(name, value)]), [], "{name}={value}");
        }
        for value in unfit {
            let config = config(&[(name, value)]);
            let named: Vec<_> = config.slips.iter().map(|slip| slip.setting).collect();
            assert_eq!(named, [name], "{name}={value:.30}");
            let line = config.slips[0].to_string();
            assert!(line.starts_with(name) && !line.contains('\n') && line.len() < 300, "{line}");
            let needs = |settings: &[&str]| settings.contains(&name);
            assert_eq!(config.origins.is_empty(), needs(&["ORIGINS", "EDGE_SECRET"]), "{name}={value:.30}");
            assert_eq!(config.rate_limit == RateLimit::Broken, needs(&["RATE_LIMIT"]), "{name}={value:.30}");
            assert!(config.page_origins.is_empty() && !config.shared_journal);
            assert!(!config.chat_is_open && config.keys.is_empty());
            assert_eq!(config.hosts, needs(&["HOSTS"]).then(Vec::new), "no host is known, rather than every one");
        }
    }
    let nothing = Config::parse(|_| None, false);
    let named: Vec<_> = nothing.slips.iter().map(|slip| slip.setting).collect();
    assert_eq!(named, ["ORIGINS", "RATE_LIMIT"]);
}

#[test]
fn a_slip_leaves_the_other_entries_of_a_list_in_force() {
    let config = config(&[("ALLOWED_ORIGINS", "https://one.example/, https://two.example")]);
    assert_eq!(config.page_origins, ["https://two.example"]);
    assert_eq!(config.slips[0].setting, "ALLOWED_ORIGINS");
}

#[test]
fn a_key_that_is_none_leaves_the_others_in_force() {
    let config = config(&[("EDGE_KEYS", &[ABC, "sk-a-key-itself"].join(", "))]);
    assert_eq!(config.slips.iter().map(|slip| slip.setting).collect::<Vec<_>>(), ["EDGE_KEYS"]);
    assert!(config.keys.holder("abc").is_some() && config.keys.holder("sk-a-key-itself").is_none());
}

#[test]
fn only_this_projects_origins_need_the_secret() {
    let with = |origins: &'static str| {
        let settings = [("ORIGINS", origins)];
        Config::parse(|name| Some(settings.iter().find(|(known, _)| *known == name)?.1.to_owned()), true)
    };
    let foreign = with("x=https://x.example/v1/chat");
    assert_eq!((foreign.slips, foreign.origins.len()), (Vec::new(), 1));
    let mixed = with("x=https://x.example/v1/chat, a=https://a.example");
    assert_eq!((mixed.slips, mixed.origins.len()), (vec![NO_SECRET], 0));
}

#[test]
fn a_page_origin_is_spelled_as_browsers_do() {
    for text in [
        "https://a.example",
        "https://a.example:8443",
        "http://localhost:3000",
        "http://[::1]:3000",
        "http://192.0.2.7",
        "http://tauri.localhost",
        "tauri://localhost",
        "capacitor://localhost",
        "ionic://localhost",
        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
        "moz-extension://0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0",
        "safari-web-extension://4D3F2B1A-0000-1111-2222-333344445555",
        "file://",
    ] {
        assert_eq!(slips(&[("ALLOWED_ORIGINS", text)]), [], "{text}");
    }
    for text in [
        "*",
        "null",
        "a.example",
        "https://*.example",
        "https://a.example/",
        "https://a.example:443",
        "http://a.example:80",
        "https://a.example:0443",
        "https://A.example",
        "https://u@a.example",
        "https://caf\u{e9}.example",
        "HTTPS://a.example",
        "tauri://localhost/",
        "tauri://",
        "file:///index.html",
        "1x://a",
    ] {
        assert_eq!(slips(&[("ALLOWED_ORIGINS", text)]), [slip("ALLOWED_ORIGINS", PAGE_ORIGIN_RULE)], "{text}");
    }
}

#[test]
fn a_limit_without_its_binding_is_named() {
    let get = |name: &str| {
        Some(
            if name == "ORIGINS" {
                A.1
            } else if name == "EDGE_SECRET" {
                SECRET
            } else {
                return None;
            }
            .to_owned(),
        )
    };
    assert_eq!(Config::parse(get, false).slips, [NO_LIMITER]);
}

#[test]
fn the_secret_is_never_printed() {
    let printed = format!("{:?}", config(&[("EDGE_KEYS", ABC)]));
    assert!(!printed.contains(SECRET) && !printed.contains(ABC), "{printed}");
}
