//! What an IMAP directory is told by the configuration: the checked result.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// From the first byte (`imaps://`).
    Direct,
    /// After the command STARTTLS (RFC 3501 §6.2.1), without which nothing is asked.
    StartTls,
    /// Not at all; to this host only.
    None,
}

/// Which name a mail server is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LoginForm {
    /// The localpart of the address.
    Localpart,
    /// The whole address.
    Address,
}

/// A mail server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerConfig {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// Where it listens.
    pub port: u16,
    /// Protection.
    pub tls: Tls,
}

impl fmt::Display for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls == Tls::Direct {
            "imaps"
        } else {
            "imap"
        };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImapConfig {
    /// The directory's name.
    pub name: String,
    /// Servers, the preferred first.
    pub servers: Vec<ServerConfig>,
    /// Certificates (PEM) that sign the servers'. Absent: those the system trusts.
    pub ca: Option<PathBuf>,
    /// Which name they are told.
    pub login: LoginForm,
    /// A password must be checked in this time, from the first byte to the last.
    pub timeout: Duration,
    /// Most connections at a time.
    pub connections_max: usize,
}

/// Whether a host is this one whoever resolves its name: what may be talked to without protection.
pub fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}
