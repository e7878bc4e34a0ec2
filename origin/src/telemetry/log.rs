//! The log: JSON lines on standard error.

use std::panic;

use tracing_subscriber::EnvFilter;

/// The default filter: of llama.cpp only warnings.
const LOG: &str = "info,llama-cpp-2=warn,llama_cpp_2=error";
/// The HTTP libraries are never logged: at their finest level they write keys and answers in full.
const UNLOGGED: &str = "hyper=off,hyper_util=off,h2=off";

/// A filter that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("RUST_LOG takes levels and targets, such as info or headwater_origin=debug")]
pub(crate) struct WrongFilter;

/// Starts the log, which panics go to as well. `RUST_LOG` replaces the default filter.
///
/// # Errors
/// `RUST_LOG` is no filter.
pub(crate) fn init() -> Result<(), WrongFilter> {
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|chosen| !chosen.trim().is_empty());
    let chosen = chosen.unwrap_or_else(|| LOG.into());
    let filter = EnvFilter::try_new(format!("{chosen},{UNLOGGED}")).map_err(|_| WrongFilter)?;
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_span_list(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
    hook_panics();
    Ok(())
}

/// Logs where a thread panics. A panic's text isn't logged: it may hold a part of a prompt.
pub fn hook_panics() {
    panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, "a thread panicked");
    }));
}
