//! What rustls' unbuffered interface does not tell, caught while it works.
//!
//! rustls calls the certificate resolver, the verifiers and the key log on our thread, inside
//! `process_tls_records`. They leave what they saw in a thread-local, which [`super::Tls`] swaps in before
//! and out after each call of a handshake.
//!
//! In: calls from rustls. Out: [`Capture`], and the RFC 9266 exporter.
//! Owns: the thread-local. Never: keeps a secret after the facts are made, or logs one.

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use rustls::crypto::tls13::OkmBlock;
use rustls::{KeyLog, Tls13CipherSuite};

/// Facts of one handshake as they turn up.
#[derive(Default)]
pub struct Capture {
    /// Server name asked for.
    pub sni: Option<String>,
    /// `tls-server-end-point` of the certificate chosen.
    pub server_end_point: Option<Bytes>,
    /// The far end's certificate passed our CAs.
    pub verified: bool,
    /// TLS 1.3 exporter master secret; wiped when dropped.
    pub exporter_secret: Option<OkmBlock>,
}

thread_local! {
    static CURRENT: RefCell<Option<Capture>> = const { RefCell::new(None) };
}

/// Makes this the capture rustls' calls write to.
pub fn put(capture: Capture) {
    CURRENT.with(|c| *c.borrow_mut() = Some(capture));
}

/// Takes it back.
pub fn take() -> Option<Capture> {
    CURRENT.with(|c| c.borrow_mut().take())
}

/// Notes something, if a handshake is being watched.
pub fn note(f: impl FnOnce(&mut Capture)) {
    CURRENT.with(|c| {
        if let Some(capture) = c.borrow_mut().as_mut() {
            f(capture);
        }
    });
}

/// Takes the exporter secret, and only that.
pub struct ExporterLog;

impl fmt::Debug for ExporterLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExporterLog")
    }
}

impl KeyLog for ExporterLog {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == "EXPORTER_SECRET" && secret.len() <= OkmBlock::MAX_LEN {
            note(|c| c.exporter_secret = Some(OkmBlock::new(secret)));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }
}

/// The `tls-exporter` channel binding (RFC 9266 §2): RFC 8446 §7.5 with label `EXPORTER-Channel-Binding`, an
/// empty context and 32 bytes.
pub fn export(suite: &'static Tls13CipherSuite, master: &OkmBlock) -> [u8; 32] {
    let empty = suite.common.hash_provider.start().finish();
    let hash_len = empty.as_ref().len();
    let hkdf = suite.hkdf_provider;
    let derived: OkmBlock = {
        let info = label(hash_len, "EXPORTER-Channel-Binding", empty.as_ref());
        hkdf.expander_for_okm(master).expand_block(&[&info])
    };
    let mut out = [0; 32];
    let info = label(out.len(), "exporter", empty.as_ref());
    hkdf.expander_for_okm(&derived)
        .expand_slice(&[&info], &mut out)
        .expect("32 bytes is within what any HKDF expands to");
    out
}

/// HkdfLabel of RFC 8446 §7.1.
fn label(length: usize, label: &str, context: &[u8]) -> Vec<u8> {
    const PREFIX: &str = "tls13 ";
    let mut out = Vec::with_capacity(64 + context.len());
    out.extend_from_slice(&(length as u16).to_be_bytes());
    out.push((PREFIX.len() + label.len()) as u8);
    out.extend_from_slice(PREFIX.as_bytes());
    out.extend_from_slice(label.as_bytes());
    out.push(context.len() as u8);
    out.extend_from_slice(context);
    out
}
