//! A Redis server for one test, ended with it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    iter,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
    },
    time::{Duration, Instant},
};

/// A `redis-server` on a port of its own that keeps nothing on disk.
pub struct RedisServer {
    port: u16,
    process: Child,
}

impl RedisServer {
    /// Starts one.
    pub fn start() -> Self {
        let port = free_port();
        Self { port, process: run(port) }
    }

    /// Starts one with these settings beside.
    pub fn start_with(settings: &[&str]) -> Self {
        let port = free_port();
        let text = port.to_string();
        let mut command = command(&["--port", &text]);
        let process = spawn(command.args(settings), port, answers);
        Self { port, process }
    }

    /// Starts one that speaks TLS only, with the `cert.pem` and `key.pem` of this folder.
    pub fn start_with_tls(folder: &Path) -> Self {
        let port = free_port();
        let (text, certificate, key) = (port.to_string(), folder.join("cert.pem"), folder.join("key.pem"));
        let mut command = command(&["--port", "0", "--tls-port", &text, "--tls-auth-clients", "no"]);
        command.arg("--tls-cert-file").arg(&certificate).arg("--tls-ca-cert-file").arg(&certificate);
        let process =
            spawn(command.arg("--tls-key-file").arg(key), port, |port| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { port, process }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, as `--journal` takes it.
    pub fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends these commands on a connection of their own.
    pub fn send(&self, commands: &[&str]) {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it accepts");
        let mut answers = BufReader::new(&socket);
        for command in commands {
            (&socket).write_all(format!("{command}\r\n").as_bytes()).expect("it reads");
            let mut answer = String::new();
            answers.read_line(&mut answer).expect("it answers");
            assert!(!answer.starts_with('-'), "{command}: {answer}");
        }
    }

    /// A section of INFO.
    pub fn info(&self, section: &str) -> String {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).expect("it accepts");
        (&socket).write_all(format!("INFO {section}\r\n").as_bytes()).expect("it reads");
        let mut answers = BufReader::new(&socket);
        let mut length = String::new();
        answers.read_line(&mut length).expect("it answers");
        let length = length.trim().trim_start_matches('$').parse().expect("a bulk string's length");
        let mut text = vec![0; length];
        answers.read_exact(&mut text).expect("the answer is whole");
        String::from_utf8(text).expect("it is text")
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it is ours");
    }

    /// Starts a new one, empty, on the same port.
    pub fn restart(&mut self) {
        self.process = run(self.port);
    }

    /// Stops its process: its sockets stay open, nothing answers.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets the process run again.
    pub fn unpause(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.process.id().to_string()]).status();
        assert!(sent.expect("there is kill").success(), "it gets {signal}");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Free now, given once, and none that a system gives by itself (32,768 and up): no other socket takes it before the
/// server does, nor while the server is away.
fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(10_000..30_000)));
    let is_free = |&port: &u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut ports = iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(is_free).expect("there are more ports than a test takes")
}

fn run(port: u16) -> Child {
    spawn(&mut command(&["--port", &port.to_string()]), port, answers)
}

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).args(flags).stdout(Stdio::null());
    command
}

fn spawn(command: &mut Command, port: u16, answers: fn(u16) -> bool) -> Child {
    let started = command.spawn();
    let mut process = started.unwrap_or_else(|error| {
        panic!("redis-server doesn't start: {error}; install it with `apt-get install redis-server`, or run `cargo xtask test`")
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while !answers(port) {
        let ended = process.try_wait().expect("it is ours");
        assert!(ended.is_none(), "redis-server has ended; is port {port} taken?");
        assert!(Instant::now() < deadline, "redis-server doesn't answer");
        std::thread::sleep(Duration::from_millis(10));
    }
    process
}

fn answers(port: u16) -> bool {
    let mut answer = [0; 5];
    let asked = TcpStream::connect(("127.0.0.1", port)).and_then(|mut socket| {
        socket.write_all(b"PING\r\n")?;
        socket.read_exact(&mut answer)
    });
    asked.is_ok() && answer == *b"+PONG"
}
