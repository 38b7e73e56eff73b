//! What is kept here of accounts whose directory is elsewhere, in the store: disabled for this service, SCRAM keys made at a
//! log-in.
//!
//! Owns: the set of disabled accounts, in memory, because it is asked at every log-in.
//! Never: keeps a password; makes a log-in wait for the disk.

use super::writer::DirectWriter;
use directory::DirectoryError;
use directory::site::Overlay;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;
use store::{Engine, Reader, StoreError, TokenChange, Write};
use xmpp::jid::BareJid;
use xmpp::scram::{ScramHash, ScramKeys};

/// See the module.
pub struct StoreOverlay {
    disabled: RwLock<HashSet<BareJid>>,
    reader: Mutex<Box<dyn Reader>>,
    writer: DirectWriter,
    iterations: u32,
    /// How long captured keys are good, milliseconds; 0: none are made or used.
    capture_ms: AtomicU64,
}

impl std::fmt::Debug for StoreOverlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreOverlay")
    }
}

fn now_ms() -> u64 {
    super::clock::Clock::new().now().unix_ms
}

impl StoreOverlay {
    /// As the store has it. `iterations`: of keys made here.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn new(
        engine: &dyn Engine,
        writer: DirectWriter,
        iterations: u32,
    ) -> Result<Self, StoreError> {
        let mut reader = engine.reader()?;
        Ok(Self {
            disabled: RwLock::new(reader.overlay_disabled()?.into_iter().collect()),
            reader: Mutex::new(reader),
            writer,
            iterations,
            capture_ms: AtomicU64::new(0),
        })
    }

    /// How long captured keys are good; zero: none are made, and those there are not used.
    pub fn set_capture(&self, good: Duration) {
        self.capture_ms
            .store(good.as_millis() as u64, Ordering::Relaxed);
    }

    /// An administrator disables or enables somebody; it is on disk already.
    pub fn set_disabled(&self, jid: &BareJid, disabled: bool) {
        let mut all = self
            .disabled
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if disabled {
            all.insert(jid.clone());
        } else {
            all.remove(jid);
        }
    }

    fn stored(&self, jid: &BareJid) -> Result<store::Overlay, DirectoryError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reader.overlay(jid)?)
    }

    /// The log-in does not hang on it: a store that has no time for it now gets it at the next one.
    fn put(&self, jid: &BareJid, keys: Vec<ScramKeys>) {
        let write = Write::OverlayKeys {
            jid: jid.clone(),
            keys,
            made_ms: now_ms(),
        };
        if !self.writer.hand_over(vec![write]) {
            tracing::debug!(account = jid.as_str(), "the store has no time for keys now");
        }
    }

    fn good(&self, overlay: &store::Overlay) -> bool {
        let age = now_ms().saturating_sub(overlay.made_ms);
        overlay.made_ms > 0 && age < self.capture_ms.load(Ordering::Relaxed)
    }
}

impl Overlay for StoreOverlay {
    fn is_disabled(&self, jid: &BareJid) -> bool {
        let all = self.disabled.read().unwrap_or_else(PoisonError::into_inner);
        all.contains(jid)
    }

    fn captured_keys(
        &self,
        jid: &BareJid,
        hash: ScramHash,
    ) -> Result<Option<ScramKeys>, DirectoryError> {
        if self.capture_ms.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let overlay = self.stored(jid)?;
        let good = self.good(&overlay);
        Ok(overlay
            .keys
            .into_iter()
            .find(|keys| good && keys.hash == hash))
    }

    fn capture(&self, jid: &BareJid, password: &str) {
        let good = self.capture_ms.load(Ordering::Relaxed);
        let Ok(known) = self.stored(jid) else { return };
        // Made anew when half their time is over: who logs in by SCRAM only is asked for the password by then.
        let young = now_ms().saturating_sub(known.made_ms) < good / 2;
        if good == 0 || young && known.keys.first().is_some_and(|k| k.matches(password)) {
            return;
        }
        match directory::derive_account(password, self.iterations, &ScramHash::ALL) {
            Ok(keys) => self.put(jid, keys),
            // What LDAP takes as a password and SASLprep does not.
            Err(error) => tracing::debug!(account = jid.as_str(), %error, "no keys are made"),
        }
    }

    fn forget(&self, jid: &BareJid) {
        let tokens = Write::Tokens {
            owner: jid.clone(),
            change: TokenChange::Revoke {
                client: None,
                but: None,
            },
        };
        // Whoever knew the old password may have one.
        if let Err(error) = self.writer.write(vec![tokens]) {
            tracing::warn!(
                account = jid.as_str(),
                error,
                "tokens given for an old password are not revoked"
            );
        }
        if self.stored(jid).is_ok_and(|known| known.made_ms > 0) {
            self.put(jid, Vec::new());
        }
    }
}
