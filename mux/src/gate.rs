//! Who may come in: counts and rates, sans I/O.
//!
//! Rates and the count of those who have not logged in make new clients *wait* (in the kernel's backlog, or
//! before their handshake); the total and the count per address *refuse* them, so that a client with
//! another server to go to learns it at once.
//!
//! Behind a load balancer the address is known only once its PROXY header has come: such a connection enters without
//! one ([`Gate::enter`]), so that no limit counts the balancer as a client, and is named later ([`Gate::name`]).
//!
//! In: `now`, addresses, comings and goings. Out: admit, refuse, or wait until when.
//! Owns: the counts. Never: reads a clock or a socket.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::config::LimitsConfig;

/// A rate with a burst of 20 ms' worth (at least 1): short enough that a burst of handshakes does not
/// hold up the messages of those who are in.
#[derive(Debug)]
pub struct Bucket {
    per_s: u64,
    burst: u64,
    /// In millionths.
    tokens: u64,
    at: Instant,
}

const MILLION: u64 = 1_000_000;

impl Bucket {
    /// A full bucket.
    pub fn new(now: Instant, per_s: u64) -> Self {
        let burst = (per_s / 50).max(1);
        Self {
            per_s: per_s.max(1),
            burst,
            tokens: burst * MILLION,
            at: now,
        }
    }

    /// Takes one token, or says when there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        let micros = now
            .saturating_duration_since(self.at)
            .as_micros()
            .min(1_000_000) as u64;
        if micros > 0 {
            self.tokens = (self.tokens + micros * self.per_s).min(self.burst * MILLION);
            self.at = now;
        }
        if self.tokens >= MILLION {
            self.tokens -= MILLION;
            return Ok(());
        }
        let missing = MILLION - self.tokens;
        Err(now + Duration::from_micros(missing / self.per_s + 1))
    }

    /// Changes the rate.
    pub fn set_rate(&mut self, per_s: u64) {
        self.per_s = per_s.max(1);
        self.burst = (per_s / 50).max(1);
        self.tokens = self.tokens.min(self.burst * MILLION);
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RefusedBy {
    /// `conns_max`.
    Total,
    /// `conns_per_address_max`.
    Address,
}

/// Not now: until an instant, or until somebody leaves or logs in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The accept rate.
    Until(Instant),
    /// `unauthenticated_max`.
    Unauthenticated,
}

/// The counts behind all listeners.
#[derive(Debug)]
pub struct Gate {
    limits: LimitsConfig,
    accepts: Bucket,
    conns: usize,
    unauthenticated: usize,
    addresses: HashMap<IpAddr, u32, RandomState>,
}

impl Gate {
    /// Nobody in yet.
    pub fn new(now: Instant, limits: LimitsConfig) -> Self {
        let accepts = Bucket::new(now, limits.accepts_per_s);
        Self {
            limits,
            accepts,
            conns: 0,
            unauthenticated: 0,
            addresses: HashMap::default(),
        }
    }

    /// New limits; those who are in stay.
    pub fn set_limits(&mut self, limits: LimitsConfig) {
        self.accepts.set_rate(limits.accepts_per_s);
        self.limits = limits;
    }

    /// Asked before each `accept`.
    pub fn may_accept(&mut self, now: Instant) -> Result<(), Wait> {
        if self.unauthenticated >= self.limits.unauthenticated_max {
            return Err(Wait::Unauthenticated);
        }
        self.accepts.take(now).map_err(Wait::Until)
    }

    /// Asked when a client connects directly; counts the connection in if it is admitted.
    pub fn admit(&mut self, peer: IpAddr) -> Result<(), RefusedBy> {
        self.enter()?;
        let named = self.name(peer);
        if named.is_err() {
            self.leave_unnamed();
        }
        named
    }

    /// Asked for a connection whose address is not known yet; counts it in, for no address. Then [`Gate::name`] or
    /// [`Gate::leave_unnamed`].
    pub fn enter(&mut self) -> Result<(), RefusedBy> {
        if self.conns >= self.limits.conns_max {
            return Err(RefusedBy::Total);
        }
        self.conns += 1;
        self.unauthenticated += 1;
        Ok(())
    }

    /// The address of one who has entered is known now. Refused, it is still in, for no address.
    pub fn name(&mut self, peer: IpAddr) -> Result<(), RefusedBy> {
        let peer = peer.to_canonical();
        let count = self.addresses.entry(counted(peer)).or_insert(0);
        if *count as usize >= self.limits.conns_per_address_max
            && !self.limits.exempt.contains(&peer)
        {
            return Err(RefusedBy::Address);
        }
        *count += 1;
        Ok(())
    }

    /// One who entered and was never named is gone.
    pub fn leave_unnamed(&mut self) {
        self.conns = self.conns.saturating_sub(1);
        self.authenticated();
    }

    /// It logged in.
    pub fn authenticated(&mut self) {
        self.unauthenticated = self.unauthenticated.saturating_sub(1);
    }

    /// It is gone.
    pub fn leave(&mut self, peer: IpAddr, authenticated: bool) {
        self.conns = self.conns.saturating_sub(1);
        if !authenticated {
            self.authenticated();
        }
        let key = counted(peer.to_canonical());
        if let Some(count) = self.addresses.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.addresses.remove(&key);
            }
        }
    }

    /// Connections in.
    pub fn conns(&self) -> usize {
        self.conns
    }

    /// Those among them who have not logged in.
    pub fn unauthenticated(&self) -> usize {
        self.unauthenticated
    }
}

/// One customer of IPv6 has a /64 of addresses, so that is what is counted.
fn counted(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(v6) => {
            let bits = v6.to_bits() >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> LimitsConfig {
        LimitsConfig {
            conns_max: 4,
            conns_per_address_max: 2,
            unauthenticated_max: 3,
            accepts_per_s: 100,
            ..LimitsConfig::default()
        }
    }

    fn ip(s: &str) -> IpAddr {
        s.parse().expect("address")
    }

    #[test]
    fn a_bucket_gives_its_rate_and_says_when_to_come_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start, 1_000);
        let mut now = start;
        let mut taken = 0;
        while now < start + Duration::from_secs(1) {
            match bucket.take(now) {
                Ok(()) => taken += 1,
                Err(until) => {
                    assert!(until > now && until <= now + Duration::from_millis(2));
                    now = until;
                }
            }
        }
        assert!((1_000..=1_021).contains(&taken), "{taken}");
    }

    #[test]
    fn a_clock_that_stands_or_jumps_back_gives_no_tokens() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(start, 50);
        assert!(bucket.take(start).is_ok());
        for _ in 0..100 {
            assert!(bucket.take(start).is_err());
            assert!(bucket.take(start - Duration::from_secs(5)).is_err());
        }
    }

    #[test]
    fn addresses_are_counted_by_customer_and_loopback_is_exempt() {
        let mut gate = Gate::new(Instant::now(), limits());
        assert_eq!(gate.admit(ip("192.0.2.1")), Ok(()));
        assert_eq!(gate.admit(ip("::ffff:192.0.2.1")), Ok(()));
        assert_eq!(gate.admit(ip("192.0.2.1")), Err(RefusedBy::Address));
        gate.leave(ip("192.0.2.1"), false);
        assert_eq!(gate.admit(ip("192.0.2.1")), Ok(()));
        gate.leave(ip("192.0.2.1"), true);
        gate.leave(ip("192.0.2.1"), true);
        assert!(gate.addresses.is_empty());

        assert_eq!(gate.admit(ip("2001:db8::1")), Ok(()));
        assert_eq!(gate.admit(ip("2001:db8::2")), Ok(()));
        assert_eq!(gate.admit(ip("2001:db8::3")), Err(RefusedBy::Address));
        assert_eq!(gate.admit(ip("2001:db8:0:1::3")), Ok(()));
        gate.leave(ip("2001:db8::1"), true);
        gate.leave(ip("2001:db8::1"), true);
        gate.leave(ip("2001:db8:0:1::3"), true);
        for _ in 0..4 {
            assert_eq!(gate.admit(ip("127.0.0.1")), Ok(()));
        }
        assert_eq!(gate.admit(ip("127.0.0.1")), Err(RefusedBy::Total));
        assert_eq!(gate.conns(), 4);
    }

    #[test]
    fn who_comes_through_a_balancer_is_counted_by_its_own_address() {
        let mut gate = Gate::new(Instant::now(), limits());
        for _ in 0..3 {
            assert_eq!(gate.enter(), Ok(()), "the balancer is nobody's address");
        }
        assert_eq!(gate.name(ip("192.0.2.1")), Ok(()));
        assert_eq!(gate.name(ip("192.0.2.1")), Ok(()));
        assert_eq!(gate.name(ip("192.0.2.1")), Err(RefusedBy::Address));
        assert_eq!((gate.conns(), gate.unauthenticated()), (3, 3));
        gate.leave_unnamed();
        assert_eq!((gate.conns(), gate.unauthenticated()), (2, 2));
        assert_eq!(gate.enter(), Ok(()));
        assert_eq!(gate.enter(), Ok(()));
        assert_eq!(gate.enter(), Err(RefusedBy::Total));
        assert_eq!(gate.admit(ip("192.0.2.9")), Err(RefusedBy::Total));
        gate.leave_unnamed();
        assert_eq!(gate.admit(ip("192.0.2.1")), Err(RefusedBy::Address));
        assert_eq!((gate.conns(), gate.unauthenticated()), (3, 3));
    }

    #[test]
    fn those_not_logged_in_hold_up_new_ones_until_one_logs_in_or_leaves() {
        let now = Instant::now();
        let mut gate = Gate::new(now, limits());
        for n in 0..3 {
            assert_eq!(gate.may_accept(now + Duration::from_secs(n)), Ok(()));
            gate.admit(ip("127.0.0.1")).expect("room");
        }
        let later = now + Duration::from_secs(9);
        assert_eq!(gate.may_accept(later), Err(Wait::Unauthenticated));
        gate.authenticated();
        assert_eq!(gate.may_accept(later), Ok(()));
        gate.leave(ip("127.0.0.1"), true);
        assert_eq!(gate.unauthenticated(), 2);
        gate.leave(ip("127.0.0.1"), false);
        assert_eq!((gate.conns(), gate.unauthenticated()), (1, 1));
    }
}
