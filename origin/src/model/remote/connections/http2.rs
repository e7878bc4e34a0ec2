//! One HTTP/2 connection: a task that drives it, and the requests on it.
//!
//! On `h2` itself, as hyper's own layer over it neither tells when the server's limit changes, nor lets the budget for small
//! frames be set, nor opens a stream without a task.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    client::{self, SendRequest},
};
use http::{
    HeaderValue, Request, Version,
    header::{CONTENT_LENGTH, HOST},
    response::Parts,
};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};

use super::{Failure, Lost, chain, connect::Wire, pool::Pool};

/// How much one stream may send unread; a token stream needs little, and who reads slowly holds no more.
const STREAM_WINDOW: u32 = 64 * 1024;
/// How much all of them may: room for a hundred streams that nobody reads, so that they don't stop the others.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
/// What `h2` may spend on frames under 256 bytes that nobody has read yet, beyond which it closes the connection with all
/// its streams. Tokens come in such frames, and the windows bound them already: this is enough for a hundred full ones.
const SMALL_FRAMES: usize = 32 * 1024 * 1024;
/// The longest head of an answer.
const LONGEST_HEAD: u32 = 64 * 1024;
/// Silence on running streams after which the server is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(15);
/// How long that sign may take.
const PONG: Duration = Duration::from_secs(10);
/// `h2`'s limit until the server has told its own; no server tells this one.
const UNTOLD: usize = 0x7fff_fffe;

/// A request's place on a connection; the place is free again when it is dropped.
pub(super) struct Place {
    pub(super) pool: Weak<Pool>,
    /// The number of the connection.
    pub(super) number: u64,
    pub(super) sender: SendRequest<Bytes>,
    /// Whether the connection was there before the request.
    pub(super) reused: bool,
    pub(super) heard: Arc<AtomicBool>,
}

/// The body of an answer. Dropped before its end it resets the stream.
pub(super) struct Body {
    // Dropped in this order: the stream is reset before its place is free.
    stream: RecvStream,
    /// `None` after the end.
    place: Option<Place>,
}

impl Place {
    /// Sends `request` and waits for the head of the answer. The stream is reset when the future is dropped.
    pub(super) async fn send(mut self, request: Request<Bytes>) -> Result<(Parts, Body), Lost> {
        let (request, body) = without_host(request);
        let sent = self.sender.send_request(request, body.is_empty());
        // An error here means that nothing was sent.
        let (answer, mut rest) = sent.map_err(|error| Lost::new(&error, true))?;
        if !body.is_empty() {
            // It waits in `h2` where the server's window is too small. Its error is the answer's too.
            drop(rest.send_data(body, true));
        }
        drop(rest);
        match answer.await {
            Ok(response) => {
                self.heard.store(true, Ordering::Relaxed);
                let (head, stream) = response.into_parts();
                Ok((head, Body { stream, place: Some(self) }))
            }
            Err(error) => {
                // RFC 9113 section 8.7: the server hasn't begun with either, and tells so.
                let untouched =
                    error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
                Err(Lost::new(&error, untouched || (self.reused && error.is_io())))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.free(self.number);
        }
    }
}

impl Body {
    /// The next bytes; `None` at the clean end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        loop {
            let Some(place) = &self.place else { return Poll::Ready(Ok(None)) };
            let ended = match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    place.heard.store(true, Ordering::Relaxed);
                    // It fails only where the stream has ended, which the next poll tells.
                    drop(self.stream.flow_control().release_capacity(bytes.len()));
                    if bytes.is_empty() {
                        continue;
                    }
                    return Poll::Ready(Ok(Some(bytes)));
                }
                // RFC 9113 section 8.1: the answer is whole, and the server doesn't want the rest of the request.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) && self.stream.is_end_stream() => Ok(None),
                Some(Err(error)) => Err(Failure::Broke(chain(&error))),
                None => Ok(None),
            };
            self.place = None;
            return Poll::Ready(ended);
        }
    }
}

impl Lost {
    fn new(error: &h2::Error, repeatable: bool) -> Self {
        Self { failure: Failure::Broke(chain(error)), repeatable }
    }
}

/// Drives the connection with this number to its end. The server has until `deadline` to send its settings.
pub(super) async fn run(pool: Weak<Pool>, number: u64, wire: Wire, deadline: Instant) {
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .data_frame_budget(SMALL_FRAMES)
        .max_header_list_size(LONGEST_HEAD)
        .initial_max_send_streams(UNTOLD)
        .enable_push(false);
    let end = match timeout_at(deadline, builder.handshake(wire)).await {
        Ok(Ok((sender, connection))) => {
            let heard = Arc::new(AtomicBool::new(false));
            if let Some(pool) = pool.upgrade() {
                pool.opened(number, sender, heard.clone());
            }
            drive(&pool, number, connection, &heard, deadline).await
        }
        Ok(Err(error)) => chain(&error),
        Err(_) => "the server was silent".into(),
    };
    if let Some(pool) = pool.upgrade() {
        pool.closed(number, &end);
    }
}

/// What the server is expected to send, and until when.
enum Awaited {
    Settings,
    /// Anything on a running stream.
    Life,
    Pong,
}

/// Drives a connection; says why it ended.
///
/// | awaited  | it comes            | the time is over                                    |
/// |----------|---------------------|-----------------------------------------------------|
/// | settings | publish the limit; life | the end                                         |
/// | life     | noted               | life, if any came or no stream runs; else ask; pong |
/// | pong     | life                | the end                                             |
async fn drive(
    pool: &Weak<Pool>,
    number: u64,
    mut connection: client::Connection<Wire, Bytes>,
    heard: &AtomicBool,
    deadline: Instant,
) -> String {
    let mut pings: Option<PingPong> = connection.ping_pong();
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(deadline));
    let mut awaited = Awaited::Settings;
    let mut limit = UNTOLD;
    poll_fn(|cx| {
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.map_or_else(|error| chain(&error), |()| "the server closed it".into()));
        }
        // A server may change its limit at any time.
        let told = connection.max_concurrent_send_streams();
        if told != limit {
            limit = told;
            if let Some(pool) = pool.upgrade() {
                pool.limit(number, limit);
            }
        }
        loop {
            if matches!(awaited, Awaited::Settings) && limit != UNTOLD {
                awaited = Awaited::Life;
                timer.as_mut().reset(Instant::now() + SILENCE);
            }
            if let (Awaited::Pong, Some(pings)) = (&awaited, &mut pings)
                && pings.poll_pong(cx).is_ready()
            {
                awaited = Awaited::Life;
                timer.as_mut().reset(Instant::now() + SILENCE);
            }
            ready!(timer.as_mut().poll(cx));
            let lives = heard.swap(false, Ordering::Relaxed);
            match awaited {
                Awaited::Life if !lives && pool.upgrade().is_none_or(|pool| pool.is_busy(number)) => {
                    // It fails only where one is on its way already.
                    drop(pings.as_mut().map(|pings| pings.send_ping(Ping::opaque())));
                    awaited = Awaited::Pong;
                    timer.as_mut().reset(Instant::now() + PONG);
                }
                Awaited::Life => timer.as_mut().reset(Instant::now() + SILENCE),
                Awaited::Settings | Awaited::Pong => return Poll::Ready("the server was silent".into()),
            }
        }
    })
    .await
}

/// As HTTP/2 sends it: the host is a part of the URI, and the body comes apart.
fn without_host(request: Request<Bytes>) -> (Request<()>, Bytes) {
    let (mut head, body) = request.into_parts();
    head.version = Version::HTTP_2;
    head.headers.remove(HOST);
    if !body.is_empty() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    (Request::from_parts(head, ()), body)
}
