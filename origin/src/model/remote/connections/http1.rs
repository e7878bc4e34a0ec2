//! One HTTP/1.1 connection, driven by the response that it carries.
//!
//! hyper wants its connection polled beside the body. A task of its own would cost its memory, and two wake-ups from thread
//! to thread for each read. Here both are polled by whoever reads the body.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http::{HeaderValue, Request, Uri, header::HOST, response::Parts};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;

use super::{Failure, Lost, chain, connect::Wire, pool::Pool};

/// The longest head of an answer, and the most that is read at once.
const LONGEST_HEAD: usize = 64 * 1024;

/// A connection without a request.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended.
    inner: Option<http1::Connection<TokioIo<Wire>, Full<Bytes>>>,
    /// Why it ended, and the bytes that were read and belong to no answer.
    end: Option<(String, Bytes)>,
}

/// The body of an answer, and the connection under it.
pub(super) struct Body {
    incoming: Incoming,
    wakes: Arc<Wakes>,
    /// `None` after the end.
    connection: Option<Box<Connection>>,
    pool: Arc<Pool>,
}

/// Wakes the task that reads a body, but not for what the task does itself: hyper's body wakes its connection for each piece
/// that is taken from it, and that connection is polled by the same task.
#[derive(Default)]
struct Wakes {
    task: AtomicWaker,
    /// The task polls: it looks at `woken` before it waits.
    polling: AtomicBool,
    woken: AtomicBool,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        if !self.polling.load(SeqCst) {
            self.task.wake();
        }
    }
}

impl Connection {
    pub(super) async fn handshake(wire: Wire) -> Result<Box<Self>, String> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(LONGEST_HEAD);
        let (sender, inner) = builder.handshake(TokioIo::new(wire)).await.map_err(|error| chain(&error))?;
        Ok(Box::new(Self { sender, inner: Some(inner), end: None }))
    }

    /// Whether it takes a request: nothing has come, not even its end. Nobody is woken when that changes.
    pub(super) fn is_usable(&mut self) -> bool {
        self.advance(&mut Context::from_waker(Waker::noop()));
        self.inner.is_some() && self.sender.is_ready()
    }

    /// Sends `request` and waits for the head of the answer. The connection closes when the future is dropped. `reused` says
    /// that it has carried a request before.
    pub(super) async fn send(
        mut self: Box<Self>,
        request: Request<Bytes>,
        reused: bool,
        pool: Arc<Pool>,
    ) -> Result<(Parts, Body), Lost> {
        let mut answer = pin!(self.sender.try_send_request(in_origin_form(request)));
        let answered = std::future::poll_fn(|cx| {
            self.advance(cx);
            // Only what the connection has just done makes it ready.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending if self.inner.is_none() => Poll::Ready(None),
                answered => answered.map(Some),
            }
        });
        let (cause, unsent) = match answered.await {
            Some(Ok(response)) => {
                let (head, incoming) = response.into_parts();
                return Ok((head, Body { incoming, wakes: Arc::default(), connection: Some(self), pool }));
            }
            Some(Err(mut error)) => (chain(error.error()), error.take_message().is_some()),
            None => (String::from("the connection ended"), false),
        };
        // What was read stands in the connection's buffer: a head that is cut short, or that can't be read.
        let read = match (self.inner.take(), self.end.take()) {
            (Some(inner), _) => inner.into_parts().read_buf,
            (None, end) => end.map(|(_, read)| read).unwrap_or_default(),
        };
        Err(Lost { failure: Failure::Broke(cause), repeatable: reused && (unsent || read.is_empty()) })
    }

    /// Reads and writes what can be read and written.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let Some(inner) = &mut self.inner else { return };
        if let Poll::Ready(ended) = Pin::new(inner).poll(cx) {
            let cause = ended.map_or_else(|error| chain(&error), |()| "the connection ended".into());
            self.end = self.inner.take().map(|inner| (cause, inner.into_parts().read_buf));
        }
    }
}

impl Body {
    /// The next bytes; `None` at the clean end, where the connection goes back to the pool.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(Ok(None)) };
        let ended = match ready!(next(&mut self.incoming, connection, &self.wakes, cx)) {
            Some(Ok(bytes)) => return Poll::Ready(Ok(Some(bytes))),
            Some(Err(cause)) => Err(Failure::Broke(cause)),
            None => Ok(None),
        };
        if let Some(mut connection) = self.connection.take()
            && ended.is_ok()
            && connection.is_usable()
        {
            self.pool.keep(connection);
        }
        Poll::Ready(ended)
    }
}

/// The body's next bytes, or why it broke off.
fn next(
    incoming: &mut Incoming,
    connection: &mut Connection,
    wakes: &Arc<Wakes>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, String>>> {
    let waker = Waker::from(wakes.clone());
    wakes.task.register(cx.waker());
    // Once more is enough where the task has woken itself; whatever wakes it each time has to let others run.
    for _ in 0..2 {
        wakes.polling.store(true, SeqCst);
        wakes.woken.store(false, SeqCst);
        let next = advance(incoming, connection, &mut Context::from_waker(&waker));
        wakes.polling.store(false, SeqCst);
        // Woken before the line above: nobody else looks.
        if next.is_ready() || !wakes.woken.load(SeqCst) {
            return next;
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Takes what is there of the body, else what the connection then has.
fn advance(
    incoming: &mut Incoming,
    connection: &mut Connection,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, String>>> {
    let mut advanced = false;
    loop {
        // Only what the connection does makes the body ready.
        match Pin::new(&mut *incoming).poll_frame(&mut Context::from_waker(Waker::noop())) {
            // Trailers say nothing about a text.
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Some(Ok(bytes))),
                _ => {}
            },
            Poll::Ready(Some(Err(error))) => {
                connection.advance(cx);
                let cause = connection.end.as_ref().map(|(cause, _)| format!(": {cause}")).unwrap_or_default();
                return Poll::Ready(Some(Err(format!("{}{cause}", chain(&error)))));
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending if !advanced => {
                connection.advance(cx);
                advanced = true;
            }
            Poll::Pending if connection.inner.is_none() => {
                return Poll::Ready(Some(Err("the connection ended".into())));
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// As HTTP/1.1 writes it: the path alone, and the host as a header.
fn in_origin_form(request: Request<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request.map(Full::new);
    let host = request.uri().authority().and_then(|host| HeaderValue::from_str(host.as_str()).ok());
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host);
    }
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
    request
}
