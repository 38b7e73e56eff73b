//! Networks of addresses, as `10.0.0.0/8`, `2001:db8::/32` or one address.
//!
//! In: a configured string. Out: [`Network`]. Owns: nothing. Never: looks a name up.

use std::net::IpAddr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

impl Network {
    /// Reads one; an error is the rest of a sentence that begins with the string.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "is no address or network, like \"192.0.2.1\" or \"10.0.0.0/8\"";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| FORM.to_owned())?;
        let most = width(address);
        let prefix = match prefix {
            None => most,
            Some(digits) => digits
                .parse::<u32>()
                .ok()
                .filter(|n| *n <= most && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or(FORM)?,
        };
        let network = Self { address, prefix };
        if bits(address) & !network.mask() != 0 {
            return Err(format!(
                "has bits beyond its /{prefix}: write the first address of the network"
            ));
        }
        Ok(network)
    }

    /// Does the address belong to it? An IPv4 address written as IPv6 is the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && bits(address) & self.mask() == bits(self.address)
    }

    fn mask(&self) -> u128 {
        let width = width(self.address);
        let ones = u128::MAX >> (128 - width);
        // A shift by all 128 bits is none to Rust.
        ones & !(ones.checked_shr(self.prefix).unwrap_or(0))
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_what_they_say() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "a00::1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.128/25", "192.0.2.127", false),
            ("192.0.2.128/25", "192.0.2.255", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.9", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1", "::1", true),
            ("::1/128", "::2", false),
        ];
        for (network, address, want) in rows {
            let network = Network::parse(network).expect("good");
            let address = address.parse().expect("address");
            assert_eq!(network.contains(address), want, "{network:?} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.1/8",
            "10.0.0/8",
            "::/129",
            "2001:db8::1/64",
            "balancer.example",
            "10.0.0.0/255.0.0.0",
        ] {
            assert!(Network::parse(bad).is_err(), "{bad}");
        }
    }
}
