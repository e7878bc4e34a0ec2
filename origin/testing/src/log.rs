//! This process's log, captured. A log belongs to the process, so a test that reads it is alone in its program.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;

/// A log in memory, of JSON lines.
#[derive(Clone, Default)]
pub struct CapturedLog(Arc<Mutex<Vec<u8>>>);

impl CapturedLog {
    /// Makes a captured log the log of this process.
    pub fn install() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone()).init();
        log
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(bytes).expect("a log is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The records of the streams that have ended.
    pub fn records(&self) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["message"] == "stream ended").collect()
    }
}

impl io::Write for CapturedLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
