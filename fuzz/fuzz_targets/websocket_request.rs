//! See `harness/websocket.rs`.
#![no_main]

// These need nothing of their crate, and their crate would bring a TLS library to be built with sanitizers.
#[path = "../../mux/src/websocket/frame.rs"]
#[allow(dead_code)]
mod frame;
#[path = "../../mux/src/websocket/handshake.rs"]
#[allow(dead_code)]
mod handshake;
#[path = "../harness/websocket.rs"]
#[allow(dead_code)]
mod harness;

libfuzzer_sys::fuzz_target!(|data: &[u8]| harness::request(data));
