//! The connections to one server: which request gets which, and when new ones are opened.
//!
//! A request takes a free place at once, or waits in a queue. Attempts to connect don't belong to a request: as many are
//! under way as bring places for all that wait, so that 250 requests at once open as many connections as the server's limit
//! asks for. Until the server's protocol is known, one attempt is expected to do for all.

use std::{
    sync::{Arc, Weak, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use h2::client::SendRequest;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    Failure,
    connect::{self, Connector},
    http1, http2,
    state::{Attempt, Served, Shared, State, Waiter},
};

/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// The connections to one server.
pub(super) struct Pool {
    connector: Connector,
    state: Mutex<State>,
}

/// A place for one request.
pub(super) enum Place {
    Http1 {
        connection: Box<http1::Connection>,
        /// Whether it has carried a request before.
        reused: bool,
    },
    Http2(http2::Place),
}

impl Pool {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector, state: Mutex::default() }
    }

    /// The lowest number that connections opened from now on have.
    pub(super) fn next(&self) -> u64 {
        self.state.lock().next
    }

    /// A place on a connection with the number `from` or a higher one.
    pub(super) async fn place(self: &Arc<Self>, from: u64) -> Result<Place, Failure> {
        let given = {
            let mut state = self.state.lock();
            if let Some(place) = state.take_idle(from) {
                return Ok(place);
            }
            if let Some(place) = self.take_shared(&mut state, from, true) {
                return Ok(place);
            }
            let (place, given) = oneshot::channel();
            state.waiting.push_back(Waiter { place, from });
            self.connect_as_needed(&mut state);
            given
        };
        given.await.unwrap_or_else(|_| Err(Failure::Unreachable("the attempt to connect was given up".into())))
    }

    /// Takes an HTTP/1.1 connection back whose answer is over.
    pub(super) fn keep(self: &Arc<Self>, connection: Box<http1::Connection>) {
        let mut state = self.state.lock();
        let served = state.hand(connection, None);
        self.sweep_as_needed(&mut state);
        drop(state);
        tell(served);
    }

    /// Frees a place on an HTTP/2 connection.
    pub(super) fn free(self: &Arc<Self>, number: u64) {
        let mut state = self.state.lock();
        if let Some(shared) = state.shared.iter_mut().find(|shared| shared.number == number) {
            shared.used -= 1;
            shared.since = Instant::now();
        }
        let served = self.serve(&mut state, true);
        self.sweep_as_needed(&mut state);
        drop(state);
        tell(served);
    }

    /// Adds an HTTP/2 connection. It takes one request until [`Self::limit`] says how many it takes.
    pub(super) fn opened(self: &Arc<Self>, number: u64, sender: SendRequest<Bytes>, heard: Arc<AtomicBool>) {
        let mut state = self.state.lock();
        state.shared.push(Shared { number, sender, heard, used: 0, limit: 1, since: Instant::now() });
        let served = self.serve(&mut state, false);
        drop(state);
        tell(served);
    }

    /// Notes how many requests an HTTP/2 connection takes.
    pub(super) fn limit(self: &Arc<Self>, number: u64, limit: usize) {
        let mut state = self.state.lock();
        let attempt = state.attempts.iter().position(|attempt| attempt.number == number);
        let known = state.shared.iter_mut().find(|shared| shared.number == number);
        let takes = known.map_or(0, |shared| {
            shared.limit = limit;
            if shared.is_open() { limit } else { 0 }
        });
        let served = match attempt {
            // Another attempt would go the same way.
            Some(_) if takes == 0 => state.fail(number, "the server takes no requests"),
            _ => {
                state.places = Some(limit.max(1));
                let served = self.serve(&mut state, attempt.is_none());
                attempt.map(|attempt| state.attempts.remove(attempt));
                served
            }
        };
        self.connect_as_needed(&mut state);
        self.sweep_as_needed(&mut state);
        drop(state);
        tell(served);
    }

    /// Whether an HTTP/2 connection carries requests.
    pub(super) fn is_busy(&self, number: u64) -> bool {
        // One that isn't here any more carries its last ones.
        self.state.lock().shared.iter().find(|shared| shared.number == number).is_none_or(|shared| shared.used > 0)
    }

    /// Forgets an HTTP/2 connection that has ended because of `cause`.
    pub(super) fn closed(self: &Arc<Self>, number: u64, cause: &str) {
        let mut state = self.state.lock();
        state.shared.retain(|shared| shared.number != number);
        let served = state.fail(number, cause);
        self.connect_as_needed(&mut state);
        drop(state);
        tell(served);
    }

    /// Whether the sweeper runs.
    #[cfg(test)]
    pub(super) fn is_swept(&self) -> bool {
        self.state.lock().sweeping
    }

    /// Starts attempts until those that are under way bring a place for each request that waits.
    fn connect_as_needed(self: &Arc<Self>, state: &mut State) {
        state.waiting.retain(|waiter| !waiter.place.is_closed());
        while state.is_short() {
            let number = state.next;
            state.next += 1;
            let first = if self.connector.offers_http2() { usize::MAX } else { 1 };
            state.attempts.push(Attempt { number, expected: state.places.unwrap_or(first) });
            tokio::spawn(attempt(self.clone(), number));
        }
    }

    /// Gives HTTP/2 places to those that wait.
    fn serve(self: &Arc<Self>, state: &mut State, reused: bool) -> Served {
        let mut served = Vec::new();
        let mut at = 0;
        while let Some(waiter) = state.waiting.get(at) {
            let from = waiter.from;
            if let Some(place) = self.take_shared(state, from, reused) {
                served.extend(state.waiting.remove(at).map(|waiter| (waiter, Ok(place))));
            } else if from == 0 {
                break;
            } else {
                at += 1;
            }
        }
        served
    }

    /// A place on an HTTP/2 connection: on the oldest that has one, so that the others fall idle.
    fn take_shared(self: &Arc<Self>, state: &mut State, from: u64, reused: bool) -> Option<Place> {
        state.shared.retain_mut(Shared::is_open);
        let shared = state.shared.iter_mut().find(|shared| shared.number >= from && shared.used < shared.limit)?;
        shared.used += 1;
        Some(Place::Http2(http2::Place {
            pool: Arc::downgrade(self),
            number: shared.number,
            sender: shared.sender.clone(),
            reused,
            heard: shared.heard.clone(),
        }))
    }

    /// Starts the sweeper where something is idle.
    fn sweep_as_needed(self: &Arc<Self>, state: &mut State) {
        if !state.sweeping && state.has_idle() {
            state.sweeping = true;
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Tells requests what they waited for. A place that isn't taken is free again.
fn tell(served: Served) {
    for (waiter, place) in served {
        drop(waiter.place.send(place));
    }
}

/// Opens the connection with this number; drives it where it is HTTP/2.
async fn attempt(pool: Arc<Pool>, number: u64) {
    let deadline = Instant::now() + connect::TIMEOUT;
    let opened = match timeout_at(deadline, pool.connector.connect()).await {
        Ok(Ok(wire)) if connect::is_http2(&wire) => {
            let weak = Arc::downgrade(&pool);
            drop(pool);
            return http2::run(weak, number, wire, deadline).await;
        }
        Ok(Ok(wire)) => http1::Connection::handshake(wire).await,
        Ok(Err(cause)) => Err(cause),
        Err(_) => Err(format!("no connection within {} s", connect::TIMEOUT.as_secs())),
    };
    let mut state = pool.state.lock();
    let served = match opened {
        Ok(connection) => {
            state.attempts.retain(|attempt| attempt.number != number);
            state.places = Some(1);
            state.hand(connection, Some(number))
        }
        Err(cause) => state.fail(number, &cause),
    };
    pool.connect_as_needed(&mut state);
    pool.sweep_as_needed(&mut state);
    drop(state);
    tell(served);
}

/// Looks at idle connections from time to time, until there are none.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state.lock();
        state.sweep();
        if !state.has_idle() {
            state.sweeping = false;
            return;
        }
    }
}
