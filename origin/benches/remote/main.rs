//! The origin between a provider and its readers: CPU time a frame, memory of a held stream, and what is added to the
//! first token and to the gaps between tokens.
//!
//! `cargo bench --bench remote`, or some of it: `-- fast paced memory starts gaps`. The origin runs on one core, provider and
//! readers on another (`taskset`). It prints a table in Markdown.
//!
//! # Layout
//! - [`figures`]: what is measured.
//! - [`provider`]: this program again, as the provider.
//! - [`reader`]: a reader of one answer.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, ExitCode},
};

use headwater_origin_testing::{Process, free_address};

use figures::Row;
use reader::From;

mod figures;
mod provider;
mod reader;

type Error = Box<dyn std::error::Error>;
type Result<T> = std::result::Result<T, Error>;

/// The flag that makes this program the provider: its two addresses and the file for its certificate are behind it.
const PROVIDER: &str = "--provider";
const ORIGIN_CORE: &str = "0";
const OTHER_CORE: &str = "1";

fn main() -> ExitCode {
    let mut args = std::env::args().skip_while(|arg| arg != PROVIDER).skip(1);
    let done = match (args.next(), args.next(), args.next()) {
        (Some(plain), Some(secure), Some(certificate)) => provide(&plain, &secure, certificate),
        _ => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn provide(plain: &str, secure: &str, certificate: String) -> Result<()> {
    provider::provide(plain.parse()?, secure.parse()?, &PathBuf::from(certificate))
}

#[tokio::main(flavor = "current_thread")]
async fn measure() -> Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let provider = Provider::start().await?;
    Command::new("taskset").args(["-p", "-c", OTHER_CORE, &std::process::id().to_string()]).output()?;
    println!("A token as the provider sends it:\n\n    {}\n", provider::token().trim_end());
    Row::heading();
    let plain = &provider.origin(Protocol::Http1).await?;
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let runs = |figure: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == figure);
    if runs("fast") {
        figures::processor_time(plain).await?;
    }
    if runs("paced") {
        figures::processor_time_paced(plain).await?;
    }
    for protocol in [Protocol::Http1, Protocol::Http2].into_iter().filter(|_| runs("memory")) {
        figures::memory(&provider, protocol).await?;
    }
    if runs("starts") {
        figures::starts(&provider).await?;
    }
    if runs("gaps") {
        figures::first_token(From::Provider(provider.plain), plain.readers()).await?;
        figures::gaps(From::Provider(provider.plain), plain.readers()).await?;
    }
    Ok(())
}

/// How a provider is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// HTTP/1.1 without TLS: a connection a stream.
    Http1,
    /// HTTP/2 with TLS: a connection for [`provider::STREAMS_OF_A_CONNECTION`].
    Http2,
}

/// The provider, in a process of its own.
struct Provider {
    plain: SocketAddr,
    secure: SocketAddr,
    certificate: PathBuf,
    _process: Process,
}

impl Provider {
    async fn start() -> Result<Self> {
        let (plain, secure) = (free_address()?, free_address()?);
        let certificate = std::env::temp_dir().join(format!("headwater-bench-{}.pem", std::process::id()));
        let mut command = on_core(OTHER_CORE, &std::env::current_exe()?.to_string_lossy());
        command.args([PROVIDER, &plain.to_string(), &secure.to_string()]).arg(&certificate);
        Ok(Self { plain, secure, certificate, _process: Process::start(&mut command, plain).await? })
    }

    /// A new origin in front of it.
    async fn origin(&self, protocol: Protocol) -> Result<Origin> {
        let address = free_address()?;
        let model = match protocol {
            Protocol::Http1 => format!("http://{}/v1#bench", self.plain),
            Protocol::Http2 => format!("https://{}/v1#bench", self.secure),
        };
        let mut command = on_core(ORIGIN_CORE, env!("CARGO_BIN_EXE_headwater-origin"));
        command.args([
            "--listen",
            &address.to_string(),
            "--model",
            &model,
            "--generations",
            "2000",
            "--retention",
            "1s",
        ]);
        command.env("SSL_CERT_FILE", &self.certificate);
        Ok(Origin { address, process: Process::start(&mut command, address).await? })
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.certificate));
    }
}

/// The origin, in a process of its own.
struct Origin {
    address: SocketAddr,
    process: Process,
}

impl Origin {
    fn readers(&self) -> From {
        From::Origin(self.address)
    }
}

/// A program on a core of its own.
fn on_core(core: &str, program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}
