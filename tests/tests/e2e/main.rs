//! All end-to-end tests, in one executable so that they share cores and link time.
//!
//! Feature `full` adds what takes long or needs more than our own processes (`make test-full`).

mod architecture;
mod clients;
#[cfg(feature = "full")]
mod prosody;
mod scripts;
