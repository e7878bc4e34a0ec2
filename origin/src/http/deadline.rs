//! Deadlines of one connection's requests: a short one for the head of a request, a longer one until the next begins.
//!
//! hyper has one deadline for both, which it takes from a timer when it begins to wait for a head. The timer here moves that
//! deadline when the head begins. With one deadline a proxy's idle connection would be closed while a request is on its way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Sleep, Timer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant},
};

/// The timer of one connection, and its socket's observer.
#[derive(Clone)]
pub(super) struct RequestTimer {
    head: Duration,
    keep_alive: Duration,
    state: Arc<Mutex<State>>,
}

struct State {
    /// When the first byte of the head that is waited for came; where it came before the wait, when the wait began.
    began: Option<Instant>,
    /// Whether a head may have begun before hyper waits for it. A connection's first head has: it is due at once. A later
    /// one may have where the last read gave bytes: half of it came behind a whole request. During a response hyper reads
    /// again once it has used up its bytes, so the last read of an idle connection gave none.
    ahead: bool,
}

impl RequestTimer {
    /// A head may take `head`. The next one begins within `keep_alive`; a connection's first one at once.
    pub(super) fn new(head: Duration, keep_alive: Duration) -> Self {
        Self { head, keep_alive, state: Arc::new(Mutex::new(State { began: None, ahead: true })) }
    }

    /// The socket, whose reads this timer observes.
    pub(super) fn observe<S>(&self, socket: S) -> Observed<S> {
        Observed { socket, timer: self.clone() }
    }
}

impl Timer for RequestTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(std::time::Instant::now() + duration)
    }

    /// hyper begins to wait for a head. Its own deadline doesn't count.
    fn sleep_until(&self, _: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.began = state.ahead.then_some(now);
        drop(state);
        Box::pin(HeadSleep { timer: self.clone(), since: now, sleep: Box::pin(time::sleep_until(now)) })
    }
}

struct HeadSleep {
    timer: RequestTimer,
    since: Instant,
    sleep: Pin<Box<time::Sleep>>,
}

impl Sleep for HeadSleep {}

impl Future for HeadSleep {
    type Output = ();

    /// hyper polls this after each read that didn't complete the head.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let began = self.timer.state.lock().began;
        let due = began.map_or(self.since + self.timer.keep_alive, |began| began + self.timer.head);
        if self.sleep.deadline() != due {
            self.sleep.as_mut().reset(due);
        }
        self.sleep.as_mut().poll(cx)
    }
}

/// A socket whose timer learns of each read.
pub(super) struct Observed<S> {
    socket: S,
    timer: RequestTimer,
}

impl<S: AsyncRead + Unpin> AsyncRead for Observed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        let mut state = self.timer.state.lock();
        state.ahead = buffer.filled().len() > before;
        if state.ahead {
            state.began.get_or_insert_with(Instant::now);
        }
        drop(state);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Observed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
