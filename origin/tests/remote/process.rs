//! The origin as a program of its own, with an environment of its own; what it logs is kept.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use headwater_origin_testing::{Origin, SECRET, until};
use serde_json::Value;

/// A running origin; it is killed when it is dropped.
pub struct Process {
    pub origin: Origin,
    child: Child,
    log: Arc<Mutex<String>>,
}

fn command(variables: &[(&str, &str)], flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headwater-origin"));
    command.env_clear().env("EDGE_SECRET", SECRET).envs(variables.iter().copied());
    command.args(["--listen", "127.0.0.1:0"]).args(flags);
    command
}

/// What it says when it doesn't start with these.
pub fn refused(variables: &[(&str, &str)], flags: &[&str]) -> (Output, String) {
    let output = command(variables, flags).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, told)
}

impl Process {
    /// An origin with these variables and flags.
    pub async fn spawn(variables: &[(&str, &str)], flags: &[&str]) -> Self {
        let mut child = command(variables, flags).stderr(Stdio::piped()).spawn().expect("the program runs");
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = tokio::sync::oneshot::channel();
        let (lines, kept) = (BufReader::new(child.stderr.take().expect("it is piped")), log.clone());
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in lines.lines().map_while(Result::ok) {
                let value: Value = serde_json::from_str(&line).unwrap_or_default();
                *kept.lock().expect("no test panics with it") += &(line + "\n");
                if let Some(address) = value["address"].as_str().filter(|_| value["message"] == "listening")
                    && let Some(found) = found.take()
                {
                    let _ = found.send(address.parse());
                }
            }
        });
        let address = tokio::time::timeout(Duration::from_secs(10), address).await.expect("it starts in time");
        let address = address.unwrap_or_else(|_| panic!("it starts: {:?}", log.lock())).expect("an address");
        Self { origin: Origin::at(address), child, log }
    }

    /// SIGTERM; waits until it has ended.
    #[cfg(feature = "embedded")]
    pub async fn terminated(mut self) -> std::process::ExitStatus {
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success());
        tokio::task::spawn_blocking(move || self.child.wait()).await.expect("no panic").expect("it has a status")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("no test panics with it").clone()
    }

    /// Waits until it has logged this.
    pub async fn until_logged(&self, text: &str) {
        until(&format!("logged {text}"), async || self.log().contains(text)).await;
    }

    /// The record of its first stream that has ended.
    pub async fn record(&self) -> Value {
        let found = async {
            loop {
                let log = self.log();
                let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                if let Some(record) = lines.find(|line| line["message"] == "stream ended") {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), found).await.expect("the stream has a record")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
