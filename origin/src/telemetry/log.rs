//! The log: JSON lines on standard error.

use tracing_subscriber::EnvFilter;

/// The default filter: of llama.cpp only warnings.
const LOG: &str = "info,llama-cpp-2=warn,llama_cpp_2=error";
/// The providers' library is never logged: it writes their answers in full, and keys may be among them.
const UNLOGGED: &str = "genai=off";

/// Starts the log. `RUST_LOG` replaces the default filter.
pub(crate) fn init() {
    let chosen = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| LOG.into());
    let filter = EnvFilter::new(format!("{chosen},{UNLOGGED}"));
    let log = tracing_subscriber::fmt().json().flatten_event(true).with_current_span(false).with_span_list(false);
    log.with_env_filter(filter).with_writer(std::io::stderr).init();
}
