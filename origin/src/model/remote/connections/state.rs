//! What a pool knows: who waits, what is under way, and what is open. Nothing here waits or starts anything.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::{sync::oneshot, time::Instant};

use super::{Failure, http1, pool::Place};

/// How long a connection is kept without a request. Load balancers close theirs after 60 s (Amazon's) or 75 s (nginx);
/// what a server closed earlier is noticed at its next request.
const IDLE: Duration = Duration::from_secs(50);
#[derive(Default)]
pub(super) struct State {
    /// Requests that wait for a place, oldest first.
    pub(super) waiting: VecDeque<Waiter>,
    /// Attempts to connect that are under way, oldest first.
    pub(super) attempts: Vec<Attempt>,
    /// HTTP/1.1 connections without a request, the latest last.
    pub(super) idle: Vec<Idle>,
    /// HTTP/2 connections that take requests.
    pub(super) shared: Vec<Shared>,
    /// How many places a new connection has brought last; `None` before the first.
    pub(super) places: Option<usize>,
    /// The number of the next attempt, and of its connection.
    pub(super) next: u64,
    pub(super) sweeping: bool,
}

pub(super) struct Waiter {
    pub(super) place: oneshot::Sender<Result<Place, Failure>>,
    /// The lowest number of a connection that will do.
    pub(super) from: u64,
}

pub(super) struct Attempt {
    pub(super) number: u64,
    /// How many places it is expected to bring.
    pub(super) expected: usize,
}

pub(super) struct Idle {
    pub(super) connection: Box<http1::Connection>,
    pub(super) since: Instant,
}

pub(super) struct Shared {
    pub(super) number: u64,
    pub(super) sender: SendRequest<Bytes>,
    pub(super) heard: Arc<AtomicBool>,
    pub(super) used: usize,
    pub(super) limit: usize,
    /// When its last request ended.
    pub(super) since: Instant,
}

/// Requests and what they waited for. They are told when the state is unlocked: a place that nobody takes any more locks it
/// again.
pub(super) type Served = Vec<(Waiter, Result<Place, Failure>)>;

impl Shared {
    /// Whether the server hasn't said that it takes no more requests, and the connection hasn't ended.
    pub(super) fn is_open(&mut self) -> bool {
        !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }
}

impl State {
    /// The latest idle HTTP/1.1 connection that is still open.
    pub(super) fn take_idle(&mut self, from: u64) -> Option<Place> {
        if from > 0 {
            return None;
        }
        while let Some(Idle { mut connection, .. }) = self.idle.pop() {
            if connection.is_usable() {
                return Some(Place::Http1 { connection, reused: true });
            }
        }
        None
    }

    /// Gives an HTTP/1.1 connection to the first that it will do for; nobody waits, and it is idle. `fresh` is its number where
    /// it is new.
    pub(super) fn hand(&mut self, connection: Box<http1::Connection>, fresh: Option<u64>) -> Served {
        self.waiting.retain(|waiter| !waiter.place.is_closed());
        let newest = fresh.unwrap_or(0);
        let waiter = self.waiting.iter().position(|waiter| waiter.from <= newest);
        match waiter.and_then(|at| self.waiting.remove(at)) {
            Some(waiter) => vec![(waiter, Ok(Place::Http1 { connection, reused: fresh.is_none() }))],
            None => {
                self.idle.push(Idle { connection, since: Instant::now() });
                Vec::new()
            }
        }
    }

    /// Ends an attempt that has failed, and with it as many requests as it was for.
    pub(super) fn fail(&mut self, number: u64, cause: &str) -> Served {
        let Some(at) = self.attempts.iter().position(|attempt| attempt.number == number) else { return Vec::new() };
        let attempt = self.attempts.remove(at);
        let (mut served, mut left) = (Vec::new(), VecDeque::new());
        for waiter in self.waiting.drain(..) {
            if waiter.from <= number && served.len() < attempt.expected {
                served.push((waiter, Err(Failure::Unreachable(cause.to_owned()))));
            } else {
                left.push_back(waiter);
            }
        }
        self.waiting = left;
        served
    }

    /// Whether the attempts under way bring fewer places than are waited for.
    pub(super) fn is_short(&self) -> bool {
        let short = |from: u64, wanted: usize| {
            let fit = self.attempts.iter().filter(|attempt| attempt.number >= from);
            fit.fold(0_usize, |sum, attempt| sum.saturating_add(attempt.expected)) < wanted
        };
        // Those that have been broken off want a new connection, and there are few of them.
        let again = || self.waiting.iter().filter(|waiter| waiter.from > 0);
        short(0, self.waiting.len())
            || again().any(|waiter| short(waiter.from, again().filter(|other| other.from >= waiter.from).count()))
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty() || self.shared.iter().any(|shared| shared.used == 0)
    }

    /// Drops what has been idle for too long or was closed by the server.
    pub(super) fn sweep(&mut self) {
        let fresh = |since: Instant| since.elapsed() < IDLE;
        self.idle.retain_mut(|idle| fresh(idle.since) && idle.connection.is_usable());
        let opening = |number| self.attempts.iter().any(|attempt: &Attempt| attempt.number == number);
        self.shared.retain(|shared| shared.used > 0 || fresh(shared.since) || opening(shared.number));
    }
}
