//! The way to a server: its addresses, and a TCP connection to one of them.
//!
//! Never: waits beyond the time it is given, whatever the system's resolver does.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unreached {
    /// Nothing came back in time.
    Late,
    /// In words.
    Because(String),
}

/// The addresses of names. While the system's resolver is slow or fails, the last answer serves.
#[derive(Debug, Default)]
pub(crate) struct Resolver(Mutex<HashMap<(String, u16), Vec<SocketAddr>>>);

impl Resolver {
    /// The addresses of a server. The system's resolver cannot be told how long to take, so it works in a thread of its own.
    ///
    /// # Errors
    /// In words: there are none.
    pub(crate) fn addresses(
        &self,
        name: &str,
        port: u16,
        patience: Duration,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let asked = name.to_owned();
        std::thread::Builder::new()
            .name("resolve".into())
            .spawn(move || {
                let found = (asked.as_str(), port).to_socket_addrs();
                let _ = sender.send(found.map(Iterator::collect::<Vec<_>>));
            })
            .map_err(|e| e.to_string())?;
        let key = (name.to_owned(), port);
        let found = receiver.recv_timeout(patience);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let why = match found {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                known.insert(key, addresses.clone());
                return Ok(addresses);
            }
            Ok(Ok(_)) => format!("{name} has no address"),
            Ok(Err(e)) => format!("{name} cannot be resolved: {e}"),
            Err(_) => format!("{name} cannot be resolved: DNS does not answer"),
        };
        known.get(&key).cloned().ok_or(why)
    }
}

/// Connects to the first of these addresses that answers. Each gets its share of the time until `deadline`, and so do
/// `after` steps that follow.
///
/// # Errors
/// None has answered; what the last of them said.
pub(crate) fn connect(
    addresses: &[SocketAddr],
    deadline: Instant,
    after: usize,
) -> Result<TcpStream, Unreached> {
    let mut last = Unreached::Because("it has no address".to_owned());
    for (n, address) in addresses.iter().enumerate() {
        let left = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or(Unreached::Late)?;
        let share = left / u32::try_from(addresses.len() - n + after).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share.max(Duration::from_millis(1))) {
            Ok(socket) => {
                // Without them everything is only slower, or a dead connection is noticed later.
                let _ = socket.set_nodelay(true);
                let _ = socket2::SockRef::from(&socket).set_keepalive(true);
                return Ok(socket);
            }
            Err(e) if matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                last = Unreached::Late;
            }
            Err(e) => last = Unreached::Because(format!("{address}: {e}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_address_is_tried_and_time_has_an_end() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = listener.local_addr().expect("its address");
        let gone = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port");
        let soon = || Instant::now() + Duration::from_secs(10);
        assert!(connect(&[gone, here], soon(), 1).is_ok());
        let refused = connect(&[gone], soon(), 0).expect_err("nobody listens");
        assert!(matches!(refused, Unreached::Because(why) if why.contains(&gone.to_string())));
        assert_eq!(
            connect(&[here], Instant::now(), 0).expect_err("no time"),
            Unreached::Late
        );
        assert!(connect(&[], soon(), 0).is_err());
    }

    #[test]
    fn an_address_needs_no_resolver_and_the_last_answer_serves() {
        let resolver = Resolver::default();
        let ip = resolver.addresses("::1", 7, Duration::ZERO);
        assert_eq!(ip, Ok(vec!["[::1]:7".parse().expect("an address")]));
        let patience = Duration::from_secs(60);
        let known = resolver.addresses("localhost", 7, patience);
        assert!(known.as_ref().is_ok_and(|all| !all.is_empty()), "{known:?}");
        // No time at all for the system's: as before.
        assert_eq!(resolver.addresses("localhost", 7, Duration::ZERO), known);
        let other = resolver.addresses("localhost", 8, Duration::ZERO);
        assert!(other.is_err() || other.is_ok_and(|all| !all.is_empty()));
    }
}
