//! Who of a mail server's people has logged in before: accounts without keys in the store.
//!
//! In: addresses. Out: whether they are known; a durable account for who was not.
//! Never: says that somebody is known before it is on disk; takes a store that does not answer for "not known".

use super::writer::DirectWriter;
use directory::DirectoryError;
use directory::imap::Known;
use std::sync::{Mutex, PoisonError};
use store::{Account, Engine, PutMode, Reader, StoreError, Write, WriteError, Written};
use xmpp::jid::BareJid;

/// See the module.
pub struct StoreKnown {
    /// Held for the time of a read.
    reader: Mutex<Box<dyn Reader>>,
    writer: DirectWriter,
}

impl std::fmt::Debug for StoreKnown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKnown")
    }
}

impl StoreKnown {
    /// Over a reader of its own.
    ///
    /// # Errors
    /// The store could not be read.
    pub fn new(engine: &dyn Engine, writer: DirectWriter) -> Result<Self, StoreError> {
        Ok(Self {
            reader: Mutex::new(engine.reader()?),
            writer,
        })
    }
}

fn failed(reason: impl Into<String>) -> DirectoryError {
    DirectoryError::Unavailable {
        directory: directory::local::NAME.to_owned(),
        reason: reason.into(),
    }
}

impl Known for StoreKnown {
    fn disabled(&self, jid: &BareJid) -> Result<Option<bool>, DirectoryError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(reader.account(jid)?.map(|account| account.disabled))
    }

    fn remember(&self, jid: &BareJid) -> Result<(), DirectoryError> {
        let account = Account {
            jid: jid.clone(),
            keys: Vec::new(),
            disabled: false,
            created_ms: super::clock::Clock::new().now().unix_ms,
        };
        let mode = PutMode::Create;
        let results = self
            .writer
            .write(vec![Write::AccountPut { account, mode }])
            .map_err(failed)?;
        match results.into_iter().next() {
            // Two first log-ins at once: either has made it.
            Some(Written::Failed(WriteError::Exists)) => Ok(()),
            Some(Written::Failed(error)) => Err(failed(error.to_string())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::model::Model;

    #[test]
    fn an_account_is_there_when_remember_returns_and_only_then() {
        let model = Model::new();
        let (writer, writes) = DirectWriter::new();
        let mut store = model.writer().expect("a writer");
        let thread = std::thread::spawn(move || {
            for direct in writes {
                let result = store.commit(&direct.writes).map_err(|e| e.to_string());
                let _ = direct.reply.send(result);
            }
        });
        let known = StoreKnown::new(&model, writer).expect("a reader");
        let romeo = BareJid::parse("romeo@x.example").expect("an address");
        assert_eq!(known.disabled(&romeo), Ok(None));
        for _ in 0..2 {
            assert_eq!(known.remember(&romeo), Ok(()));
            assert_eq!(known.disabled(&romeo), Ok(Some(false)));
        }
        model.kill();
        assert!(known.disabled(&romeo).is_err(), "an outage is no answer");
        assert!(known.remember(&romeo).is_err());
        drop(known);
        thread.join().expect("it ends");
    }
}
