//! Where Redis is. A password in the address is never shown.

#[cfg(target_os = "linux")]
use std::time::Duration;
use std::{fmt, str::FromStr};

use redis::{ConnectionInfo, IntoConnectionInfo, io::tcp::TcpSettings};

/// How long sent bytes may stay unacknowledged (TCP_USER_TIMEOUT). After that a server whose host is down counts as gone.
#[cfg(target_os = "linux")]
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// A Redis server's address: `redis://[user:password@]host[:port][/database]`, or `rediss://…` with TLS.
#[derive(Clone)]
pub struct Address(Box<ConnectionInfo>);

/// Not such an address. The message doesn't repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form redis://[user:password@]host[:port][/database], or rediss:// with TLS")]
pub struct NoAddress;

impl Address {
    pub(crate) fn connection(&self) -> ConnectionInfo {
        (*self.0).clone()
    }
}

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        let connection = text.into_connection_info().map_err(|_| NoAddress)?;
        // Readers wait for each small entry. Nagle's algorithm would hold it back.
        let tcp = TcpSettings::default().set_nodelay(true);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(TCP_USER_TIMEOUT);
        Ok(Self(Box::new(connection.set_tcp_settings(tcp))))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.addr().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
