//! One new connection to a server: addresses, TCP, a proxy's tunnel, TLS.

use std::{future::poll_fn, io, sync::Arc, task, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::{
    client::{
        legacy::connect::{HttpConnector, proxy::Tunnel},
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig,
        pki_types::{InvalidDnsNameError, ServerName},
    },
};
use tokio_util::either::Either;
use tower_service::Service;

use super::chain;

/// How long an attempt may take, with all its addresses and TLS.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// TCP's keep-alive: silence after which the kernel asks the other side, the time between two questions, and how many may
/// stay unanswered. A provider that vanished is noticed after a minute although a stream only reads.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`).
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// The protocols that a server is offered, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Connects to one server.
pub(super) struct Connector {
    server: Uri,
    http: HttpConnector,
    /// `None` for `http://`.
    tls: Option<Tls>,
}

/// TLS to the server, and what is under it.
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
    proxy: Option<Proxy>,
}

struct Proxy {
    found: Intercept,
    /// For a proxy at `https://`.
    tls: TlsConnector,
}

/// Bytes to a server: without TLS, or with it.
pub(super) type Wire = Either<TcpStream, Box<TlsStream<Link>>>;

/// Bytes to the next machine: to the server or to a proxy, which may itself be spoken to through TLS.
pub(super) type Link = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Connector {
    /// To `server`, an absolute URI: with `tls`, and then through `proxy`, where it is `https://`.
    pub(super) fn new(server: Uri, tls: Option<ClientConfig>, proxy: Option<Intercept>) -> Result<Self, String> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(TIMEOUT));
        http.set_keepalive(Some(KEEPALIVE));
        http.set_keepalive_interval(Some(KEEPALIVE));
        http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        #[cfg(target_os = "linux")]
        http.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let tls = tls.map(|config| Tls::new(&server, config, proxy)).transpose()?;
        Ok(Self { server, http, tls })
    }

    /// Whether the server is asked for HTTP/2.
    pub(super) fn offers_http2(&self) -> bool {
        self.tls.is_some()
    }

    /// A new connection. The caller bounds its time.
    pub(super) async fn connect(&self) -> Result<Wire, String> {
        let mut http = self.http.clone();
        let Some(tls) = &self.tls else { return Ok(Wire::Left(tcp(&mut http, &self.server).await?)) };
        let link = match &tls.proxy {
            None => Link::Left(tcp(&mut http, &self.server).await?),
            Some(Proxy { found, tls }) => {
                let mut tunnel = Tunnel::new(found.uri().clone(), Hop { http, tls: tls.clone() });
                if let Some(auth) = found.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                let link = tunnel.call(self.server.clone()).await;
                link.map_err(|error| format!("through the proxy {}: {}", found.uri(), chain(&error)))?.into_inner()
            }
        };
        let stream = tls.connector.connect(tls.name.clone(), link).await;
        Ok(Wire::Right(Box::new(stream.map_err(|error| format!("TLS: {}", chain(&error)))?)))
    }
}

impl Tls {
    fn new(server: &Uri, config: ClientConfig, proxy: Option<Intercept>) -> Result<Self, String> {
        let name = name(server).map_err(|error| chain(&error))?;
        let mut with_protocols = config.clone();
        with_protocols.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        if let Some(scheme) = proxy.as_ref().and_then(|proxy| proxy.uri().scheme_str())
            && !matches!(scheme, "http" | "https")
        {
            return Err(format!("the proxy's address begins with {scheme}://; http:// and https:// can be used"));
        }
        let proxy = proxy.map(|found| Proxy { found, tls: TlsConnector::from(Arc::new(config)) });
        Ok(Self { connector: TlsConnector::from(Arc::new(with_protocols)), name, proxy })
    }
}

/// Whether the server has chosen HTTP/2.
pub(super) fn is_http2(wire: &Wire) -> bool {
    match wire {
        Wire::Left(_) => false,
        Wire::Right(stream) => stream.get_ref().1.alpn_protocol() == Some(PROTOCOLS[0]),
    }
}

/// TLS as the machine trusts it; on Linux `SSL_CERT_FILE` and `SSL_CERT_DIR` count.
pub(super) fn platform_tls() -> Result<ClientConfig, String> {
    use rustls_platform_verifier::BuilderVerifierExt as _;

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verified = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(rustls::ConfigBuilder::with_platform_verifier);
    Ok(verified.map_err(|error| chain(&error))?.with_no_client_auth())
}

/// Connects to a proxy.
#[derive(Clone)]
struct Hop {
    http: HttpConnector,
    tls: TlsConnector,
}

impl Service<Uri> for Hop {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Self::Future {
        let Self { mut http, tls } = self.clone();
        let link = async move {
            let tcp = tcp(&mut http, &proxy).await.map_err(io::Error::other)?;
            if proxy.scheme() != Some(&http::uri::Scheme::HTTPS) {
                return Ok(Link::Left(tcp));
            }
            let name = name(&proxy).map_err(io::Error::other)?;
            Ok(Link::Right(Box::new(tls.connect(name, tcp).await?)))
        };
        link.map(|link| link.map(TokioIo::new)).boxed()
    }
}

async fn tcp(http: &mut HttpConnector, to: &Uri) -> Result<TcpStream, String> {
    let connected = async {
        poll_fn(|cx| http.poll_ready(cx)).await?;
        http.call(to.clone()).await
    };
    connected.await.map(TokioIo::into_inner).map_err(|error| chain(&error))
}

/// The name that a certificate has to be for. A URL has brackets around an IPv6 address.
fn name(of: &Uri) -> Result<ServerName<'static>, InvalidDnsNameError> {
    let host = of.host().unwrap_or_default();
    ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}
