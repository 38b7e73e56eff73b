//! See `harness/link.rs`.
#![no_main]

#[path = "../harness/link.rs"]
#[allow(dead_code)]
mod link;

libfuzzer_sys::fuzz_target!(|data: &[u8]| link::link_decoder(data));
