//! Builds journal, models, hub and servers; waits for the signals.

use std::{error::Error, fmt::Display, future::Future, io, net::SocketAddr, process::ExitCode, sync::Arc};

use futures::future::OptionFuture;
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    config::{Config, ConfigError, JournalKind},
    generation::Hub,
    http::{
        auth::Secrets,
        router::{self, App},
        server,
    },
    journal::{Journal, MemoryJournal, RedisJournal, shared},
    model::{Model, fallback::Fallback, names::ModelNames},
    stream::Opening,
    telemetry::log,
};

/// The exit code where a setting can't be used.
const USAGE: u8 = 2;

/// The models that the settings name, in order of preference.
pub type Models = Vec<Arc<dyn Model>>;

/// Runs the program: reads its settings, takes its address, loads what `models` returns, and serves until
/// SIGTERM or SIGINT. An error that stops it from starting is one line on standard error.
pub fn main(models: impl FnOnce(&Config) -> Result<Models, Box<dyn Error>>) -> ExitCode {
    let config = match Config::parse_from_env(std::env::args_os()) {
        Ok(config) => config,
        Err(ConfigError::Help(error)) => error.exit(),
        Err(error) => {
            refuse(&error);
            return ExitCode::from(USAGE);
        }
    };
    if let Err(error) = log::init() {
        refuse(&error);
        return ExitCode::from(USAGE);
    }
    match start(config, models) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error),
    }
}

/// The journal that the settings name.
///
/// # Errors
/// It can't be reached or used. The message has its address without the password.
pub async fn journal(config: &Config) -> Result<Arc<dyn Journal>, Box<dyn Error>> {
    match &config.journal {
        JournalKind::Memory => Ok(Arc::new(MemoryJournal::new(config.retention(), config.journal_bytes()))),
        JournalKind::Redis(address) => {
            let (retention, replay_bytes) = (config.retention(), config.journal_bytes());
            match RedisJournal::connect(address, retention, shared::LEASE, replay_bytes).await {
                Ok(journal) => Ok(Arc::new(journal)),
                Err(error) => Err(format!("the journal, Redis at {address}, can't be used: {error}").into()),
            }
        }
    }
}

/// Serves on `listener` until `shutdown`, then drains. Serves metrics on `metrics`, where that is given.
///
/// # Errors
/// An alias names a model that isn't one of them; or the journal's task has panicked, without which no stream can be kept.
pub async fn serve(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    config: Config,
    secrets: Secrets,
    models: Models,
    journal: Arc<dyn Journal>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = config.connections.clone();
    let names = ModelNames::new(models.iter().map(|model| model.name()), &config.model_alias)?;
    let models = Fallback::new(models, config.first_token_timeout());
    let hub = Hub::new(config.name.clone(), models, journal.clone(), config.limits());
    let app = App {
        hub: hub.clone(),
        prompts: config.prompts,
        models: names,
        started: Opening::now(String::new(), None).created,
        secrets,
        log_variables: config.log_variables,
    };
    let metrics = metrics.map(|listener| server::serve_on(listener, router::metrics(hub.clone()), settings.clone()));
    // A task of its own, so that neither a large answer of Redis delays an accept, nor the other way round.
    let mut journal = AbortOnDropHandle::new(tokio::spawn(async move { journal.run().await }));
    tokio::select! {
        () = server::run(listener, router::router(app), hub, settings, shutdown) => {}
        Some(()) = OptionFuture::from(metrics) => {}
        Err(error) = &mut journal => return Err(error.into()),
    }
    Ok(())
}

#[tokio::main]
async fn start(
    config: Config,
    models: impl FnOnce(&Config) -> Result<Models, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let secrets = Secrets::from_env()?;
    raise_file_limit(config.connections.connections);
    let listener = bind(config.listen, "--listen")?;
    let metrics = match config.metrics {
        Some(address) => Some(bind(address, "--metrics")?),
        None => None,
    };
    // Before the models are loaded, which takes longer.
    let journal = journal(&config).await?;
    let models = models(&config)?;
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        // The drain may take 30 s. A second signal ends the process at once.
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            std::process::exit(1);
        });
    };
    let names: Vec<&str> = models.iter().map(|model| model.name()).collect();
    tracing::info!(address = %listener.local_addr()?, name = %config.name, models = names.join(","), "listening");
    serve(listener, metrics, config, secrets, models, journal, shutdown)
        .await
        .map_err(|error| error as Box<dyn Error>)?;
    tracing::info!("stopped");
    Ok(())
}

fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, String> {
    /// Connections that may wait to be accepted. With the usual 128 the kernel drops some of 250 that come at once, and their
    /// clients try again after a second.
    const BACKLOG: u32 = 4096;
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // An address is free again at once when its last process has ended.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let listener: io::Result<TcpListener> = listen();
    listener.map_err(|error| format!("can't listen on {address}: {error}; choose another address with {flag}"))
}

/// Raises the limit of open files: twice the connection cap, as many as are accepted, and some for the process itself.
fn raise_file_limit(connections: usize) {
    let wanted = (connections as u64).saturating_mul(2).saturating_add(256);
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit >= wanted => {}
        Ok(limit) => tracing::warn!(limit, wanted, "the limit of open files is below what --connections needs"),
        Err(error) => tracing::warn!(%error, "the limit of open files can't be raised"),
    }
}

fn refuse(error: &dyn Display) -> ExitCode {
    eprintln!("headwater-origin: {error}");
    ExitCode::FAILURE
}
