//! The HTTP client for one provider's server.
//!
//! It is on single connections, as no client over them does what a gateway of token streams needs: a request that a kept
//! connection lost is sent once more on a new one, HTTP/2 has as many connections as the server's limit asks for, and a held
//! stream costs little.
//!
//! # Layout
//! - `pool`, over `state`: which request gets which connection.
//! - `connect`: addresses, TCP, proxies, TLS.
//! - `http1`, `http2`: a request and its answer on one connection.

mod connect;
mod http1;
mod http2;
mod pool;
mod state;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header::USER_AGENT, response::Parts, uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio_rustls::rustls::ClientConfig;

use self::{
    connect::Connector,
    pool::{Place, Pool},
};
use crate::config::address::BaseUrl;

/// How long the rest of an answer may take whose text is over.
const REST_TIME: Duration = Duration::from_secs(2);
/// How long that rest may be, in bytes.
const REST_SIZE: usize = 64 * 1024;

/// The connections to one server. Clones share them.
#[derive(Clone)]
pub(super) struct Connections(Arc<Pool>);

/// An answer. Dropping its body cancels: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
pub(super) struct Response {
    /// Its status and headers. Over HTTP/1.1 they hold on to the buffer that they were read into, 8 KiB.
    pub(super) head: Parts,
    pub(super) body: Body,
}

/// The body of an answer.
pub(super) struct Body(Stream);

enum Stream {
    Http1(http1::Body),
    Http2(http2::Body),
}

/// Why there is no answer, or only a part of one.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There was no connection; names the causes.
    #[error("{0}")]
    Unreachable(String),
    /// The connection or the stream broke.
    #[error("{0}")]
    Broke(String),
}

/// A request that had no answer.
struct Lost {
    failure: Failure,
    /// Whether it may be sent again: no byte of an answer came, and the connection was an old one, or the server says that it
    /// hasn't begun.
    repeatable: bool,
}

impl Connections {
    /// To the server of `base`; `https://` goes through the proxy that the environment names. Sends nothing yet.
    pub(super) fn new(base: &BaseUrl) -> Result<Self, String> {
        let server: Uri = base.as_str().parse().map_err(|error: uri::InvalidUri| chain(&error))?;
        if base.is_plain() {
            return Self::with(server, None, None);
        }
        let proxy = Matcher::from_env().intercept(&server);
        Self::with(server, Some(connect::platform_tls()?), proxy)
    }

    fn with(server: Uri, tls: Option<ClientConfig>, proxy: Option<Intercept>) -> Result<Self, String> {
        Ok(Self(Arc::new(Pool::new(Connector::new(server, tls, proxy)?))))
    }

    /// Sends `request`, whose URI is absolute, and waits for the head of the answer. Dropping the future cancels it.
    ///
    /// # Errors
    /// No answer began. A request that an old connection lost before has been sent twice.
    pub(super) async fn send(&self, mut request: Request<Bytes>) -> Result<Response, Failure> {
        const AGENT: HeaderValue = HeaderValue::from_static(concat!("headwater/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        let lost = match self.send_once(request.clone(), 0).await {
            Err(lost) if lost.repeatable => lost,
            answered => return answered.map_err(|lost| lost.failure),
        };
        tracing::debug!(cause = %lost.failure, "sending a request again on a new connection");
        // Other old connections may have been lost with this one.
        self.send_once(request, self.0.next().max(1)).await.map_err(|lost| lost.failure)
    }

    /// Sends `request` on a connection with the number `from` or a higher one.
    async fn send_once(&self, request: Request<Bytes>, from: u64) -> Result<Response, Lost> {
        match self.0.place(from).await.map_err(|failure| Lost { failure, repeatable: false })? {
            Place::Http1 { connection, reused } => {
                let (head, body) = connection.send(request, reused, self.0.clone()).await?;
                Ok(Response { head, body: Body(Stream::Http1(body)) })
            }
            Place::Http2(place) => {
                let (head, body) = place.send(request).await?;
                Ok(Response { head, body: Body(Stream::Http2(body)) })
            }
        }
    }
}

impl Body {
    /// The next bytes, never empty; `None` at its clean end. Nothing is lost when the future is dropped.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// As [`Self::chunk`].
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        match &mut self.0 {
            Stream::Http1(body) => body.poll_chunk(cx),
            Stream::Http2(body) => body.poll_chunk(cx),
        }
    }

    /// Reads the little that may be left of an answer that is over for us, so that its connection can be used again.
    pub(super) fn finish(mut self) {
        // Mostly it is there already.
        let mut left = REST_SIZE;
        let mut drain = move |cx: &mut Context<'_>| loop {
            match self.poll_chunk(cx) {
                Poll::Ready(Ok(Some(bytes))) if bytes.len() <= left => left -= bytes.len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        };
        if drain(&mut Context::from_waker(Waker::noop())).is_pending() {
            tokio::spawn(tokio::time::timeout(REST_TIME, poll_fn(drain)));
        }
    }
}

/// An error with its causes. The last one names what broke a connection.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<String>>().join(": ")
}
