//! A network of its own for one test: a namespace of Linux, reached over a pair of virtual interfaces.

use std::{
    fs::File,
    io::{Write, stderr},
    net::Ipv4Addr,
    os::fd::AsFd,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpSocket;

/// RFC 2544 gives 198.18.0.0/15 to tests of network devices: no other network has these addresses.
const NETWORK: u32 = u32::from_be_bytes([198, 18, 0, 0]);
/// How many networks of four addresses are in it.
const NETWORKS: u32 = 1 << 15;

/// A network namespace. It goes when it is dropped.
pub struct Namespace {
    /// Its name, and that of this side's interface.
    name: String,
    address: Ipv4Addr,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// What is missing: root's rights, a kernel with namespaces, or the program `ip`.
    pub fn create() -> Result<Self, String> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let network = NETWORK + 4 * rand::random_range(0..NETWORKS);
        let [address, peer] = [1, 2].map(|host| Ipv4Addr::from(network + host));
        // An interface's name has 15 characters at most, a process's number 7.
        let name = format!("hw{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&format!("netns add {name}"))?;
        // From here on Drop removes what there is.
        let namespace = Self { name, address };
        let Self { name, .. } = &namespace;
        ip(&format!("link add {name} type veth peer name peer netns {name}"))?;
        ip(&format!("address add {address}/30 dev {name}"))?;
        ip(&format!("link set {name} up"))?;
        ip(&format!("-n {name} address add {peer}/30 dev peer"))?;
        ip(&format!("-n {name} link set peer up"))?;
        Ok(namespace)
    }

    /// The address of this side.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A socket in the namespace. It stays there, whoever uses it.
    pub fn socket(&self) -> TcpSocket {
        let path = Path::new("/run/netns").join(&self.name);
        // A thread of its own, which ends there.
        let made = std::thread::spawn(move || {
            let namespace = File::open(path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpSocket::new_v4()
        });
        made.join().expect("the thread doesn't panic").expect("root enters a namespace")
    }

    /// Takes the link down at its other end: no packet arrives any more, and TCP is told nothing.
    pub fn cut(&self) {
        ip(&format!("-n {} link set peer down", self.name)).expect("the link is there");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Open sockets keep a namespace without its name. The interfaces go in pairs.
        let _ = ip(&format!("link delete {}", self.name));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

/// Tells that a test was skipped for want of something, past the harness: it shows what a test prints only where it
/// fails.
pub fn skipped(test: &str, missing: &str) {
    let _ = writeln!(stderr(), "skipped: {test} needs {missing}");
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.map_err(|error| format!("the program ip: {error}; Debian's package is iproute2"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("a network namespace, which takes root's rights: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
