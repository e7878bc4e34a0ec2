//! Accepts connections: socket options, header and write timeouts, the connection cap, graceful shutdown.

use std::{
    convert::Infallible,
    future::Future,
    io::{
        self,
        ErrorKind::{ConnectionAborted, ConnectionReset},
    },
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
};
use headwater_protocol::{MAX_CONVERSATION_BYTES, Problem};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{rt::TokioIo, server::graceful::GracefulShutdown, service::TowerToHyperService};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_io_timeout::TimeoutWriter;

use super::{deadline::RequestTimer, problem};
use crate::{config::Connections as Settings, generation::Hub};

/// The longest head of a request, bytes. It comes before any authentication.
const HEADER_BYTES: usize = 16 * 1024;
/// The longest time that Linux takes for TCP keep-alive; it refuses a longer one, and the connection with it.
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// The read and the write buffer of one connection, bytes: the size of a replay's writes.
const BUFFER_BYTES: usize = 64 * 1024;
/// The part of the drain's time that is kept for ending the last streams and writing their last bytes: at most this, and
/// at most a tenth.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// The pause after a failed accept. Most likely the process is out of file descriptors until another connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then drains: streams that run go on to their end, at most for the drain timeout,
/// and meanwhile can be resumed and stopped.
pub async fn run(
    listener: TcpListener,
    service: Router,
    hub: Hub,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) {
    let connections = GracefulShutdown::new();
    let drained = async {
        shutdown.await;
        tracing::info!(running = hub.status().running, "draining");
        let deadline = Instant::now() + settings.drain_timeout;
        hub.drain(deadline - LAST_BYTES.min(settings.drain_timeout / 10), deadline).await;
        deadline
    };
    let deadline = tokio::select! {
        () = accept(&listener, &service, &settings, &connections) => return,
        deadline = drained => deadline,
    };
    drop(listener);
    // All streams have ended; slow readers may read to the end until the same deadline.
    if timeout_at(deadline, connections.shutdown()).await.is_err() {
        tracing::warn!("some readers had not read to the end");
    }
}

/// Serves until it is dropped.
pub async fn serve_on(listener: TcpListener, service: Router, settings: Settings) {
    accept(&listener, &service, &settings, &GracefulShutdown::new()).await;
}

async fn accept(listener: &TcpListener, service: &Router, settings: &Settings, connections: &GracefulShutdown) {
    let served = Arc::new(Semaphore::new(settings.connections));
    let refused = Arc::new(Semaphore::new(settings.connections));
    loop {
        // A permit first, then a connection: past twice the cap none is accepted.
        let permit = tokio::select! {
            biased;
            Ok(permit) = served.clone().acquire_owned() => Permit::Served(permit),
            Ok(permit) = refused.clone().acquire_owned() => Permit::Refused(permit),
        };
        match (listener.accept().await, permit) {
            (Ok((socket, _)), Permit::Served(permit)) => serve(socket, service.clone(), settings, connections, permit),
            (Ok((socket, _)), Permit::Refused(permit)) => {
                // A permit may have become free while this connection was waited for.
                match served.clone().try_acquire_owned() {
                    Ok(permit) => serve(socket, service.clone(), settings, connections, permit),
                    Err(_) => drop(tokio::spawn(refuse(socket, settings.header_timeout, permit))),
                }
            }
            // The connection's own fault: it broke before it was accepted.
            (Err(error), _) if matches!(error.kind(), ConnectionAborted | ConnectionReset) => {}
            (Err(error), _) => {
                tracing::warn!(%error, "can't accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

enum Permit {
    Served(OwnedSemaphorePermit),
    Refused(OwnedSemaphorePermit),
}

fn serve(
    socket: TcpStream,
    service: Router,
    settings: &Settings,
    connections: &GracefulShutdown,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = set_options(&socket, settings.write_timeout) {
        tracing::debug!(%error, "a connection is gone already");
        return;
    }
    let mut socket = TimeoutWriter::new(socket);
    socket.set_timeout(Some(settings.write_timeout));
    let timer = RequestTimer::new(settings.header_timeout, settings.keep_alive_timeout);
    let socket = TokioIo::new(timer.observe(Box::pin(socket)));
    let mut http = http1::Builder::new();
    http.header_read_timeout(settings.header_timeout).timer(timer);
    http.max_header_size(HEADER_BYTES).max_buf_size(BUFFER_BYTES);
    let connection = connections.watch(http.serve_connection(socket, TowerToHyperService::new(service)));
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
        drop(permit);
    });
}

/// Sets the options of an accepted socket, whose writes wait `write_timeout` at most.
fn set_options(socket: &TcpStream, write_timeout: Duration) -> io::Result<()> {
    // Nagle's algorithm holds a small write back until the last one is acknowledged: 40 ms.
    socket.set_nodelay(true)?;
    let options = SockRef::from(socket);
    // A reader whose host or link went down sends no FIN. Writes go on into the send buffer, and TCP itself gives up after
    // a quarter of an hour: until then the reader would count.
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(write_timeout))?;
    let probe = write_timeout.clamp(Duration::from_secs(1), MAX_KEEPALIVE);
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe).with_interval(probe))
}

/// Answers a connection over the cap: reads one request, answers 503 and closes, within the header timeout.
async fn refuse(socket: TcpStream, deadline: Duration, _permit: OwnedSemaphorePermit) {
    let overloaded = service_fn(async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        // Closing with unread bytes may reset the connection before the answer is read.
        let _ = to_bytes(Body::new(body), MAX_CONVERSATION_BYTES).await;
        Ok::<_, Infallible>(problem::document(&Problem::overloaded(), head.uri.path()))
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_header_size(HEADER_BYTES);
    if let Ok(Err(error)) = timeout(deadline, http.serve_connection(TokioIo::new(socket), overloaded)).await {
        tracing::debug!(%error, "a connection over the cap broke");
    }
}
