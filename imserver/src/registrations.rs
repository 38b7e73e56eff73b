//! How many accounts strangers may make themselves in an hour: of one address, and all together.
//!
//! In: the time and an address. Out: yes or no. Owns: the attempts of the last hour.
//! Never: remembers more attempts than the limit for all: a stranger fills neither our memory nor the directory.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

/// What is counted.
const WINDOW_MS: u64 = 3_600_000;

/// How many there may be in an hour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Of one address (of one /64, where it is IPv6: that is one customer).
    pub per_address: usize,
    /// Of all addresses.
    pub total: usize,
}

/// The attempts of the last hour. See the module.
#[derive(Debug, Default)]
pub struct Registrations {
    recent: VecDeque<(u64, IpAddr)>,
}

/// Addresses that count as one.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

impl Registrations {
    /// Whether one more may be tried, which then counts: also if the name is taken, or strangers could ask for all names.
    pub fn admit(&mut self, now_ms: u64, peer: IpAddr, limits: Limits) -> bool {
        while let Some((at, _)) = self.recent.front()
            && now_ms.saturating_sub(*at) >= WINDOW_MS
        {
            self.recent.pop_front();
        }
        let network = network(peer);
        let of_it = self.recent.iter().filter(|(_, n)| *n == network).count();
        if self.recent.len() >= limits.total || of_it >= limits.per_address {
            return false;
        }
        self.recent.push_back((now_ms, network));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        per_address: 2,
        total: 5,
    };

    fn admit(r: &mut Registrations, now_ms: u64, peer: &str) -> bool {
        r.admit(now_ms, peer.parse().expect("an address"), LIMITS)
    }

    #[test]
    fn an_address_has_so_many_in_an_hour() {
        let mut r = Registrations::default();
        assert!(admit(&mut r, 0, "192.0.2.1"));
        assert!(admit(&mut r, 1_000, "::ffff:192.0.2.1"));
        assert!(!admit(&mut r, 2_000, "192.0.2.1"));
        assert!(admit(&mut r, 2_000, "192.0.2.2"));
        assert!(!admit(&mut r, WINDOW_MS - 1, "192.0.2.1"));
        assert!(admit(&mut r, WINDOW_MS, "192.0.2.1"));
        assert!(!admit(&mut r, WINDOW_MS + 1, "192.0.2.1"));
    }

    #[test]
    fn one_customer_has_one_network_of_ipv6() {
        let mut r = Registrations::default();
        assert!(admit(&mut r, 0, "2001:db8::1"));
        assert!(admit(&mut r, 0, "2001:db8::2"));
        assert!(!admit(&mut r, 0, "2001:db8::ffff:3"));
        assert!(admit(&mut r, 0, "2001:db8:0:1::1"));
    }

    #[test]
    fn all_together_have_so_many_and_no_more_are_remembered() {
        let mut r = Registrations::default();
        for n in 0..1_000u32 {
            let peer = format!("192.0.{}.{}", n / 250, n % 250);
            assert_eq!(admit(&mut r, 0, &peer), n < 5);
        }
        assert_eq!(r.recent.len(), LIMITS.total);
        assert!(admit(&mut r, WINDOW_MS, "192.0.2.1"));
    }
}
