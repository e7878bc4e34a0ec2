//! A server in a process of its own. Its processor time and memory, and this process's, come from Linux's /proc.

use std::{
    error::Error,
    io,
    net::{SocketAddr, TcpListener},
    process::{Child, Command},
    time::Duration,
};

use tokio::net::TcpStream;

use crate::SECRET;

/// A running server; it is killed when it is dropped.
pub struct Process(Child);

impl Process {
    /// Starts `command`, which listens on `address`, and waits until it does.
    pub async fn start(command: &mut Command, address: SocketAddr) -> io::Result<Self> {
        let process = Self(command.envs([("EDGE_SECRET", SECRET), ("RUST_LOG", "error")]).spawn()?);
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(process)
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> Result<usize, Box<dyn Error>> {
        resident_of(&self.0.id().to_string())
    }

    /// Processor time so far, seconds: its own and the kernel's for it.
    pub fn processor_seconds(&self) -> Result<f64, Box<dyn Error>> {
        /// Linux's USER_HZ.
        const TICKS: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field behind it.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ').skip(11).take(2);
        Ok(fields.map(str::parse::<f64>).sum::<Result<f64, _>>()? / TICKS)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Resident memory of this process, bytes. A test that measures it is alone in its program.
pub fn resident() -> usize {
    resident_of("self").expect("/proc has this process")
}

fn resident_of(process: &str) -> Result<usize, Box<dyn Error>> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? * 1024)
}

/// An address on this machine whose port is free.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}
