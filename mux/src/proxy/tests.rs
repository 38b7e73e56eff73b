//! Headers: what is taken, what is refused, and that it is refused at the first byte that shows it.

use super::*;

/// A binary header.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut out = V2_SIGNATURE.to_vec();
    out.extend([command, family]);
    out.extend((block.len() as u16).to_be_bytes());
    out.extend(block);
    out
}

fn v4_block() -> Vec<u8> {
    let mut block = vec![192, 0, 2, 7, 198, 51, 100, 1];
    block.extend(56_324u16.to_be_bytes());
    block.extend(5222u16.to_be_bytes());
    block
}

fn v6_block(client: &str) -> Vec<u8> {
    let mut block = client.parse::<Ipv6Addr>().expect("v6").octets().to_vec();
    block.extend("2001:db8::1".parse::<Ipv6Addr>().expect("v6").octets());
    block.extend(56_324u16.to_be_bytes());
    block.extend(5222u16.to_be_bytes());
    block
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
    out
}

fn with(mut block: Vec<u8>, more: &[u8]) -> Vec<u8> {
    block.extend(more);
    block
}

/// With a checksum TLV in the middle; `flip` makes it wrong.
fn checksummed(flip: u8) -> Vec<u8> {
    let block = with(with(v4_block(), &tlv(3, &[0; 4])), &tlv(0xE0, b"x"));
    let mut header = v2(0x21, 0x11, &block);
    let crc = crc32c(header.iter().copied()) ^ u32::from(flip);
    let at = V2_HEAD_BYTES + 12 + 3;
    header[at..at + 4].copy_from_slice(&crc.to_be_bytes());
    header
}

#[test]
fn the_checksum_is_crc32c() {
    // RFC 3720 appendix B.4.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8A91_36AA);
    assert_eq!(crc32c([0xFF; 32].into_iter()), 0x62A8_AB43);
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xE306_9283);
}

#[test]
fn good_headers_whole_in_pieces_and_with_what_follows() {
    let client = "192.0.2.7:56324";
    let client6 = "[2001:db8::7]:56324";
    let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX - 16));
    assert_eq!(unknown.len(), V1_BYTES_MAX);
    let line = |text: &str| text.as_bytes().to_vec();
    let full = HEADER_BYTES_MAX - V2_HEAD_BYTES - 12 - 3;
    let rows: Vec<(Vec<u8>, Option<&str>)> = vec![
        (
            line("PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n"),
            Some(client),
        ),
        (
            line("PROXY TCP6 2001:db8::7 2001:db8::1 56324 5222\r\n"),
            Some(client6),
        ),
        (
            line("PROXY TCP6 ::ffff:192.0.2.7 ::1 56324 5222\r\n"),
            Some(client),
        ),
        (
            line("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"),
            Some("0.0.0.0:0"),
        ),
        (
            line(longest),
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        (line("PROXY UNKNOWN\r\n"), None),
        (
            line("PROXY UNKNOWN ffff::1 what ever, even \t this\r\n"),
            None,
        ),
        (line(&unknown), None),
        (v2(0x21, 0x11, &v4_block()), Some(client)),
        (v2(0x21, 0x21, &v6_block("2001:db8::7")), Some(client6)),
        (v2(0x21, 0x21, &v6_block("::ffff:192.0.2.7")), Some(client)),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, b"not even TLVs"), None),
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &v4_block()), None),
        (
            v2(0x20, 0x7F, b"what LOCAL has in its block is skipped"),
            None,
        ),
        (
            v2(0x21, 0x11, &with(v4_block(), &tlv(0x01, b"xmpp-client"))),
            Some(client),
        ),
        (
            v2(
                0x21,
                0x21,
                &with(
                    with(v6_block("2001:db8::7"), &tlv(0x02, b"example.org")),
                    &tlv(0x04, &[]),
                ),
            ),
            Some(client6),
        ),
        (
            v2(0x21, 0x31, &with(vec![0; 216], &tlv(0x05, b"unique"))),
            None,
        ),
        (
            v2(0x21, 0x11, &with(v4_block(), &tlv(0x20, &vec![7; full]))),
            Some(client),
        ),
        (checksummed(0), Some(client)),
    ];
    for (header, client) in rows {
        let name = String::from_utf8_lossy(&header).into_owned();
        let whole = Header {
            bytes: header.len(),
            client: client.map(|c| c.parse().expect("address")),
        };
        for n in 0..header.len() {
            assert_eq!(parse(&header[..n]), Ok(None), "{n} bytes of {name}");
        }
        assert_eq!(parse(&header), Ok(Some(whole)), "{name}");
        for after in [&b"<stream"[..], b"PROXY ", &[0x16, 3, 1], &[0; 8192]] {
            let all = [&header[..], after].concat();
            assert_eq!(parse(&all), Ok(Some(whole)), "{name} and {after:?}");
        }
    }
}

#[test]
fn bad_headers_are_refused_at_the_byte_that_shows_it() {
    use Invalid::{
        Checksum, Command, Family, Line, LineProtocol, LineTooLong, NoHeader, Tlv, TooLong,
        TooShort,
    };
    let line = |text: &str| text.as_bytes().to_vec();
    let long = "x".repeat(V1_BYTES_MAX);
    // What, why, and how many bytes are enough to know.
    let rows: Vec<(Vec<u8>, Invalid, Option<usize>)> = vec![
        (line("<?xml version='1.0'?>"), NoHeader, Some(1)),
        (vec![0x16, 3, 1, 0, 5], NoHeader, Some(1)),
        (vec![0; 300], NoHeader, Some(1)),
        (line("proxy TCP4"), NoHeader, Some(1)),
        (line("PROXY\r\n"), NoHeader, Some(6)),
        (line("PROXY\tTCP4 "), NoHeader, Some(6)),
        (line("\r\n\r\n\0\r\nQUIT\r"), NoHeader, Some(12)),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n"), Line, Some(31)),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx"), Line, Some(32)),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n"), Line, None),
        (line("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n"), Line, None),
        (line("PROXY TCP4 ::1 ::1 1 2\r\n"), Line, None),
        (line("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n"), Line, None),
        (line("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 example.org 1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n"), Line, None),
        (line("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n"), Line, None),
        (
            line("PROXY TCP4 1.2.3.4 5.6.7.8 1 99999999999999\r\n"),
            Line,
            None,
        ),
        (
            b"PROXY TCP4 1.2.3.4\xFF 5.6.7.8 1 2\r\n".to_vec(),
            Line,
            None,
        ),
        (
            line("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n"),
            LineProtocol,
            None,
        ),
        (
            line("PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n"),
            LineProtocol,
            None,
        ),
        (line("PROXY \r\n"), LineProtocol, None),
        (line("PROXY UNKNOWNS\r\n"), LineProtocol, None),
        (
            line(&format!("PROXY UNKNOWN {long}")),
            LineTooLong,
            Some(V1_BYTES_MAX),
        ),
        (
            line(&format!("PROXY UNKNOWN {}\r\n", &long[..V1_BYTES_MAX - 15])),
            LineTooLong,
            Some(V1_BYTES_MAX),
        ),
        (v2(0x11, 0x11, &v4_block()), Command(0x11), Some(13)),
        (v2(0x22, 0x11, &v4_block()), Command(0x22), Some(13)),
        (v2(0x01, 0x11, &v4_block()), Command(0x01), Some(13)),
        (v2(0x21, 0x12, &v4_block()), Family(0x12), Some(14)),
        (v2(0x21, 0x22, &v6_block("::1")), Family(0x22), Some(14)),
        (v2(0x21, 0x32, &[0; 216]), Family(0x32), Some(14)),
        (v2(0x21, 0x41, &v4_block()), Family(0x41), Some(14)),
        (v2(0x21, 0x10, &v4_block()), Family(0x10), Some(14)),
        (v2(0x21, 0x11, &v4_block()[..11]), TooShort, Some(16)),
        (v2(0x21, 0x11, &[]), TooShort, Some(16)),
        (v2(0x21, 0x21, &v4_block()), TooShort, Some(16)),
        (v2(0x21, 0x31, &[0; 108]), TooShort, Some(16)),
        (
            v2(0x21, 0x11, &[0; HEADER_BYTES_MAX - 15]),
            TooLong,
            Some(16),
        ),
        (v2(0x20, 0x00, &[0; 65_535]), TooLong, Some(16)),
        (v2(0x21, 0x11, &with(v4_block(), &[1])), Tlv, None),
        (v2(0x21, 0x11, &with(v4_block(), &[1, 0])), Tlv, None),
        (v2(0x21, 0x11, &with(v4_block(), &[1, 0, 1])), Tlv, None),
        (
            v2(0x21, 0x11, &with(v4_block(), &[1, 0xFF, 0xFF, 0])),
            Tlv,
            None,
        ),
        (
            v2(0x21, 0x11, &with(v4_block(), &tlv(3, &[0; 3]))),
            Tlv,
            None,
        ),
        (
            v2(0x21, 0x11, &with(v4_block(), &tlv(3, &[0; 5]))),
            Tlv,
            None,
        ),
        (checksummed(1), Checksum, None),
    ];
    for (header, why, enough) in rows {
        let name = String::from_utf8_lossy(&header).into_owned();
        assert_eq!(parse(&header), Err(why), "{name}");
        let enough = enough.unwrap_or(header.len());
        for n in 0..header.len() {
            let want = if n < enough { Ok(None) } else { Err(why) };
            assert_eq!(parse(&header[..n]), want, "{n} bytes of {name}");
        }
    }
}
