//! See `harness/proxy.rs`.
#![no_main]

// The parser needs nothing of its crate, and its crate would bring a TLS library to be built with sanitizers.
#[path = "../harness/proxy.rs"]
mod harness;
#[path = "../../mux/src/proxy.rs"]
#[allow(dead_code)]
mod proxy;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::proxy_header(data));
