//! What the fuzz target of the PROXY header does with its data. `mux/tests/proxy_fuzz.rs` runs the same on stable.

use crate::proxy::{HEADER_BYTES_MAX, parse};

/// Nothing panics, a header is within its bound, and what is said of bytes is never taken back when more come: the mux looks
/// at the beginning of a connection again and again, as bytes arrive.
pub fn proxy_header(data: &[u8]) {
    let all = parse(data);
    let mut n = 0;
    // Every length where it costs little; longer ones in steps.
    while n <= data.len() {
        match parse(&data[..n]) {
            Ok(None) => assert!(n < HEADER_BYTES_MAX, "that many bytes are enough to know"),
            known => {
                assert_eq!(known, all, "after {n} bytes");
                break;
            }
        }
        n += if n < 512 { 1 } else { 97 };
    }
    if let Ok(Some(header)) = all {
        assert!(header.bytes <= data.len().min(HEADER_BYTES_MAX));
        assert_eq!(parse(&data[..header.bytes]), all);
        assert_eq!(parse(&data[..header.bytes - 1]), Ok(None));
        if let Some(client) = header.client {
            assert_eq!(client.ip().to_canonical(), client.ip());
        }
    }
}
