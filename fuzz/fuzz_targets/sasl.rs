//! See `harness/sasl.rs`.
#![no_main]

#[path = "../harness/sasl.rs"]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::sasl(data));
