//! Providers' addresses: where an API begins, and the hosts to which requests may go without TLS.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use url::Url;

/// Where a provider's API begins: `https://`, or `http://` to this machine; nothing in it is a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    /// The URL; it ends in a slash.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether requests go without TLS. Then no proxy is used: it could read them.
    pub fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The host, where keys and prompts could be read on the way: the address is neither `https://`, nor on this machine, nor
    /// among the `allowed` hosts.
    pub fn readable_on_the_way(&self, allowed: &[PlainHost]) -> Option<PlainHost> {
        let host = PlainHost::of(self.0.host_str().unwrap_or_default());
        (self.is_plain() && !host.is_loopback() && !allowed.contains(&host)).then_some(host)
    }

    /// Whether requests to both go to the same server.
    pub fn same_server(&self, other: &Self) -> bool {
        self.0.origin() == other.0.origin()
    }

    /// The same with `path` at its end, unless it is there already.
    pub(crate) fn under(mut self, path: &str) -> Self {
        if !path.is_empty() && !self.0.path().trim_end_matches('/').ends_with(&format!("/{path}")) {
            let path = format!("{}{path}/", self.0.path());
            self.0.set_path(&path);
        }
        self
    }

    /// The address that OpenAI's protocol means by this one, and the other one that it may mean. Some servers have their
    /// paths under `/v1`, some don't, and people name them with it and without. The whole address of the one path that is
    /// asked is taken as well.
    pub(crate) fn with_version(&self) -> (Self, Option<Self>) {
        let mut base = self.clone();
        if let Some(path) = self.0.path().strip_suffix("chat/completions/") {
            base.0.set_path(path);
        }
        let is_version = |part: &str| {
            let digits = part.strip_prefix('v').unwrap_or_default();
            digits.starts_with(|first: char| first.is_ascii_digit())
        };
        let path = base.0.path();
        if path.split('/').any(is_version) {
            return (base, None);
        }
        let versioned = base.clone().under("v1");
        if path == "/" { (versioned, Some(base)) } else { (base, Some(versioned)) }
    }

    /// The URL of a path under this address.
    pub(crate) fn join(&self, path: &str, query: Option<&str>) -> String {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.0.path()));
        url.set_query(query);
        url.into()
    }

    /// An address as Ollama's own tools take it: scheme and port may be missing. The server reads the same variable, and its
    /// "listen everywhere" means this machine here.
    pub(crate) fn of_ollama(text: &str) -> Result<Self, String> {
        /// Ollama's port.
        const PORT: u16 = 11434;
        if text.contains("://") {
            let mut base: Self = text.parse()?;
            // The paths of its two protocols.
            if matches!(base.0.path(), "/v1/" | "/api/") {
                base.0.set_path("/");
            }
            return Ok(base);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if let Ok(port) = port.parse() => (host, port),
            _ => (text, PORT),
        };
        let host = if matches!(host, "" | "0.0.0.0" | "[::]") { "127.0.0.1" } else { host };
        format!("http://{host}:{port}").parse()
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The error doesn't repeat the address, which may hold a password.
        let mut url = Url::parse(text).map_err(|error| format!("the base URL can't be read: {error}"))?;
        let extra = !url.username().is_empty() || url.password().is_some();
        if extra || url.query().is_some() || url.fragment().is_some() {
            return Err("a base URL has no user, query or fragment; keys come from the environment".into());
        }
        match url.scheme() {
            "https" | "http" => {}
            _ => return Err("a base URL begins with https://, or with http:// where it is on this machine".into()),
        }
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self(url))
    }
}

/// A host to which requests may go without TLS: a name or an address, without scheme and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainHost(String);

impl PlainHost {
    /// A host as a URL has it, with an IPv6 address in brackets or without.
    fn of(host: &str) -> Self {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        // One spelling for each address.
        Self(host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string()))
    }

    fn is_loopback(&self) -> bool {
        self.0 == "localhost" || self.0.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for PlainHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PlainHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bracketed = if text.parse::<Ipv6Addr>().is_ok() { format!("[{text}]") } else { text.to_owned() };
        let url = Url::parse(&format!("http://{bracketed}/")).ok().filter(|url| {
            url.host_str().is_some_and(|host| bracketed.eq_ignore_ascii_case(host)) && url.port().is_none()
        });
        url.map(|_| Self::of(text)).ok_or_else(|| "takes a host's name or address, without http:// and port".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_the_providers_own_tools_take_them() {
        let base = |text: &str| text.parse::<BaseUrl>().unwrap();
        assert_eq!(base("https://a.example").under("v1").as_str(), "https://a.example/v1/");
        assert_eq!(base("https://a.example/v1/").under("v1").as_str(), "https://a.example/v1/");
        assert_eq!(base("https://a.example/proxyv1").under("v1").as_str(), "https://a.example/proxyv1/v1/");
        assert_eq!(base("https://a.example/proxy").under("").as_str(), "https://a.example/proxy/");
        assert_eq!(BaseUrl::of_ollama("127.0.0.1").unwrap().as_str(), "http://127.0.0.1:11434/");
        assert_eq!(BaseUrl::of_ollama("localhost:80").unwrap().as_str(), "http://localhost/");
        assert_eq!(BaseUrl::of_ollama("https://ollama.example").unwrap().as_str(), "https://ollama.example/");
        assert_eq!(BaseUrl::of_ollama("0.0.0.0").unwrap().as_str(), "http://127.0.0.1:11434/");
        assert_eq!(BaseUrl::of_ollama(":8080").unwrap().as_str(), "http://127.0.0.1:8080/");
    }

    #[test]
    fn an_address_of_openais_protocol_is_taken_with_its_version_and_without() {
        let both = |text: &str| {
            let (first, other) = text.parse::<BaseUrl>().unwrap().with_version();
            (first.join("chat/completions", None), other.map(|other| other.join("chat/completions", None)))
        };
        let with = |url: &str| format!("https://a.example/{url}chat/completions");
        assert_eq!(both("https://a.example"), (with("v1/"), Some(with(""))));
        assert_eq!(both("https://a.example/v1"), (with("v1/"), None));
        assert_eq!(both("https://a.example/v1beta/openai/"), (with("v1beta/openai/"), None));
        assert_eq!(both("https://a.example/inference"), (with("inference/"), Some(with("inference/v1/"))));
        assert_eq!(both("https://a.example/v1/chat/completions"), (with("v1/"), None));
        assert_eq!(BaseUrl::of_ollama("http://localhost:11434/v1").unwrap().as_str(), "http://localhost:11434/");
        let gemini: BaseUrl = "https://a.example/v1beta".parse().unwrap();
        assert_eq!(gemini.join("models/ä:b", Some("alt=sse")), "https://a.example/v1beta/models/%C3%A4:b?alt=sse");
    }

    #[test]
    fn an_address_without_tls_is_on_this_machine_or_allowed_by_name() {
        let readable = |url: &str, allowed: &[&str]| {
            let allowed: Vec<PlainHost> = allowed.iter().map(|host| host.parse().unwrap()).collect();
            url.parse::<BaseUrl>().unwrap().readable_on_the_way(&allowed).map(|host| host.to_string())
        };
        for url in ["https://a.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost/v1"] {
            assert_eq!(readable(url, &[]), None, "{url}");
        }
        for (url, host) in [
            ("http://ollama:11434/v1", "ollama"),
            ("http://127.0.0.1.example", "127.0.0.1.example"),
            ("http://10.0.0.7", "10.0.0.7"),
            ("http://[fd00::7]:1", "fd00::7"),
        ] {
            assert_eq!(readable(url, &["other"]).as_deref(), Some(host));
            assert_eq!(readable(url, &["other", host]), None);
        }
        assert_eq!(readable("http://ollama:1", &["OLLAMA"]), None);
        for text in ["", "http://ollama", "ollama:11434", "a/b", "a b", "me@ollama"] {
            assert!(text.parse::<PlainHost>().is_err(), "{text}");
        }
    }
}
