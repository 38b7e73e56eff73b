//! All end-to-end tests, in one executable so that they share cores and link time.
//!
//! Feature `full` adds what takes long or needs more than our own processes (`make test-full`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod adhoc;
mod architecture;
mod archive;
mod bad_addresses;
mod bad_inputs;
mod bad_logins;
mod big_directory;
mod blocking;
mod clients;
mod components;
mod config;
mod demo;
#[cfg(feature = "full")]
mod desktop_clients;
mod external;
mod floods;
mod hostile_link;
#[cfg(feature = "full")]
mod kerberos;
mod ldap;
mod ldap_admin;
mod limits;
mod load_balancer;
mod mail_accounts;
mod many;
mod mutations;
mod people;
mod pep;
mod policy;
#[cfg(feature = "full")]
mod prosody;
mod recovery;
mod remote_admin;
mod resumption;
#[cfg(feature = "full")]
mod samba;
mod scripts;
mod tokens;
mod two_muxes;
mod upgrades;
#[cfg(feature = "full")]
mod web_clients;
mod websocket;
