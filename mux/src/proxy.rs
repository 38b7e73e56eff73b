//! The PROXY protocol (versions 1 and 2): the header a load balancer puts before a client's bytes to say whose they are.
//! https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, cited by its section numbers.
//!
//! ```text
//!  v1, one line:  PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n       also TCP6, and UNKNOWN followed by anything
//!  v2, binary:    signature 12 | version 2, command (0 LOCAL, 1 PROXY) | family, transport | length u16 | addresses, TLVs
//! ```
//!
//! In: the first bytes of a connection. Out: "not whole yet", whose connection it is, or what is wrong.
//! Owns: nothing. Never: looks behind the header; allocates; guesses (a header that is not exactly as written is refused,
//! and at the first byte that cannot be part of one).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest line of version 1, its CRLF included (§2.1).
pub const V1_BYTES_MAX: usize = 107;
/// Longest header we take. Balancers send below 1 KiB, with every TLV they know; the one long TLV there is holds a
/// client's certificate, of 1 to 3 KiB.
pub const HEADER_BYTES_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD_BYTES: usize = 16;
/// `PP2_TYPE_CRC32C` (§2.2.3): a checksum of the whole header, its own four bytes taken as zero.
const TLV_CRC32C: u8 = 0x03;

/// A whole header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// How many bytes it takes; the client's begin behind it.
    pub bytes: usize,
    /// The client's address. `None`: the connection is the sender's own (LOCAL, a health check), or from somewhere that
    /// has no IP address (UNKNOWN, a Unix socket): the socket's far end is all there is to say.
    pub client: Option<SocketAddr>,
}

/// What is wrong with a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Invalid {
    /// It starts like neither version.
    #[error("does not begin with a PROXY header")]
    NoHeader,
    /// A line of version 1 that does not end in time.
    #[error("the PROXY line is longer than {V1_BYTES_MAX} bytes")]
    LineTooLong,
    /// A line of version 1 that is none.
    #[error("the PROXY line is malformed")]
    Line,
    /// The protocol of a version 1 line.
    #[error("the PROXY line names neither TCP4, TCP6 nor UNKNOWN")]
    LineProtocol,
    /// The version or command of a binary header.
    #[error("the PROXY header has version and command {0:#04x}")]
    Command(u8),
    /// The family or transport of a binary header.
    #[error("the PROXY header has family and transport {0:#04x}")]
    Family(u8),
    /// The length of a binary header.
    #[error("the PROXY header says that it is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
    /// Fewer bytes than the addresses of its family need.
    #[error("the PROXY header is too short for its addresses")]
    TooShort,
    /// What follows the addresses.
    #[error("the TLVs of the PROXY header do not fill it")]
    Tlv,
    /// `PP2_TYPE_CRC32C`.
    #[error("the checksum of the PROXY header is wrong")]
    Checksum,
}

/// Looks at the first bytes of a connection. `None`: so far a header, not whole.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    if starts_alike(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if starts_alike(bytes, V1_START) {
        parse_v1(bytes)
    } else {
        Err(Invalid::NoHeader)
    }
}

/// As far as both go.
fn starts_alike(bytes: &[u8], start: &[u8]) -> bool {
    let n = bytes.len().min(start.len());
    bytes[..n] == start[..n]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let seen = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = seen.iter().position(|b| matches!(b, b'\r' | b'\n')) else {
        return if seen.len() == V1_BYTES_MAX {
            Err(Invalid::LineTooLong)
        } else {
            Ok(None)
        };
    };
    match seen.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if seen[end] == b'\r' && seen.len() < V1_BYTES_MAX => return Ok(None),
        None if seen[end] == b'\r' => return Err(Invalid::LineTooLong),
        _ => return Err(Invalid::Line),
    }
    let line = std::str::from_utf8(&seen[V1_START.len()..end]).map_err(|_| Invalid::Line)?;
    Ok(Some(Header {
        bytes: end + 2,
        client: v1_client(line)?,
    }))
}

/// What stands between `PROXY ` and the end of the line.
fn v1_client(line: &str) -> Result<Option<SocketAddr>, Invalid> {
    let mut words = line.split(' ');
    let is_v6 = match words.next() {
        // §2.1: the receiver must ignore anything before the CRLF.
        Some("UNKNOWN") => return Ok(None),
        Some("TCP4") => false,
        Some("TCP6") => true,
        _ => return Err(Invalid::LineProtocol),
    };
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        if is_v6 {
            word.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        } else {
            word.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
        }
    };
    let (client, server) = (address(), address());
    let mut port = || words.next().and_then(v1_port);
    let (client_port, server_port) = (port(), port());
    match (client, server, client_port, server_port, words.next()) {
        (Some(client), Some(_), Some(port), Some(_), None) => Ok(Some(address_of(client, port))),
        _ => Err(Invalid::Line),
    }
}

/// Decimal, without sign or leading zeros (§2.1).
fn v1_port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    plain.then(|| word.parse().ok()).flatten()
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Invalid> {
    let (command, family) = (bytes.get(12).copied(), bytes.get(13).copied());
    let is_local = match command {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(other) => return Err(Invalid::Command(other)),
    };
    // What the addresses take, for each family over a stream (§2.2). A datagram cannot have come over this connection.
    let addresses = match family {
        None => return Ok(None),
        // §2.2: LOCAL discards the family, and whatever stands in its block.
        Some(_) if is_local => 0,
        Some(0x00) => 0,
        Some(0x11) => 12,
        Some(0x21) => 36,
        Some(0x31) => 216,
        Some(other) => return Err(Invalid::Family(other)),
    };
    let Some(length) = bytes.get(14..V2_HEAD_BYTES) else {
        return Ok(None);
    };
    let block = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let total = V2_HEAD_BYTES + block;
    if total > HEADER_BYTES_MAX {
        return Err(Invalid::TooLong);
    }
    if block < addresses {
        return Err(Invalid::TooShort);
    }
    let Some(header) = bytes.get(..total) else {
        return Ok(None);
    };
    if !is_local && family != Some(0x00) {
        check_tlvs(header, V2_HEAD_BYTES + addresses)?;
    }
    let block = &header[V2_HEAD_BYTES..];
    let client = match family {
        _ if is_local => None,
        Some(0x11) => v2_address::<4>(block, 8),
        Some(0x21) => v2_address::<16>(block, 32),
        _ => None,
    };
    Ok(Some(Header {
        bytes: total,
        client,
    }))
}

/// The source: its address first in the block, its port behind both addresses.
fn v2_address<const N: usize>(block: &[u8], port_at: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let address: [u8; N] = block.get(..N)?.try_into().ok()?;
    let port: [u8; 2] = block.get(port_at..port_at + 2)?.try_into().ok()?;
    Some(address_of(address.into(), u16::from_be_bytes(port)))
}

/// An IPv4 client of an IPv6 balancer is the same client, with the same limits, as without the balancer.
fn address_of(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_canonical(), port)
}

/// TLVs (§2.2): each whole, none beyond the header; the checksum right, if there is one. What the others say is not for us.
fn check_tlvs(header: &[u8], mut at: usize) -> Result<(), Invalid> {
    while at < header.len() {
        let head = header.get(at..at + 3).ok_or(Invalid::Tlv)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let value_at = at + 3;
        let value = header
            .get(value_at..value_at + length)
            .ok_or(Invalid::Tlv)?;
        if head[0] == TLV_CRC32C {
            let said: [u8; 4] = value.try_into().map_err(|_| Invalid::Tlv)?;
            let zeroed = header.iter().enumerate().map(|(n, byte)| {
                if (value_at..value_at + 4).contains(&n) {
                    0
                } else {
                    *byte
                }
            });
            if crc32c(zeroed) != u32::from_be_bytes(said) {
                return Err(Invalid::Checksum);
            }
        }
        at = value_at + length;
    }
    Ok(())
}

/// CRC-32C (RFC 4960 appendix B), bit by bit: once per connection and a few hundred bytes need no table.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc >>= 1;
            if low == 1 {
                crc ^= 0x82F6_3B78;
            }
        }
    }
    !crc
}

// By its path, so that it is found too where this file is included by its own (the fuzz target).
#[cfg(test)]
#[path = "proxy/tests.rs"]
mod tests;
