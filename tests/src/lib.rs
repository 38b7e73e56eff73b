//! End-to-end tests: starts the real processes, talks XMPP to them, runs scansion scripts.
//!
//! The library half is what the test files in `tests/tests/` share. It knows the servers only by
//! their command lines, their configuration files and the wire: nothing here links against
//! `imserver` or `mux`, so internals may change without touching a test.
//!
//! - [`harness`]: a [`harness::Site`] is one set-up in a temporary directory, with its processes.
//! - [`client`]: a scripted raw client over plain TCP, STARTTLS, direct TLS and WebSocket ([`websocket`]).
//! - [`component`]: components that a server is told of, and what they may do.
//! - [`upgrade`]: a client that makes keys of another hash with its log-in.
//! - [`scansion`]: reads and runs `scripts/*.scs` (format: `README.md` beside this crate).
//! - [`dovecot`]: an IMAP server with mailboxes.
//! - [`slapd`]: an LDAP server with a tree of people and groups.
//! - [`samba`]: an Active Directory domain controller.
//! - [`kerberos`]: the client's end of a log-in with tickets.
//! - [`prosody`]: the same scripts against Prosody, to tell whether a script is wrong.

pub mod client;
pub mod component;
pub mod dovecot;
pub mod harness;
pub mod kerberos;
pub mod ports;
pub mod prosody;
pub mod proxy;
pub mod samba;
pub mod scansion;
pub mod scram;
pub mod slapd;
pub mod sys;
pub mod upgrade;
pub mod wait;
pub mod websocket;
pub mod xml;
