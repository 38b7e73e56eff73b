//! Password keys of accounts, as a row of `state.db` has them.

use super::record::{Cursor, put_number};
use super::state::{StateWriter, corrupt, local_of};
use crate::StoreError;
use crate::types::{Account, WriteError, Written};
use rusqlite::OptionalExtension;
use xmpp::jid::BareJid;
use xmpp::scram::{ScramHash, ScramKeys};

fn hash_number(hash: ScramHash) -> u8 {
    match hash {
        ScramHash::Sha1 => 1,
        ScramHash::Sha256 => 2,
        ScramHash::Sha512 => 3,
    }
}

pub(super) fn encode_keys(keys: &[ScramKeys]) -> Vec<u8> {
    let mut out = Vec::with_capacity(keys.len() * 160);
    for key in keys {
        put_number(&mut out, u64::from(hash_number(key.hash)));
        put_number(&mut out, u64::from(key.iterations));
        for part in [&key.salt[..], &key.stored_key[..], &key.server_key[..]] {
            put_number(&mut out, part.len() as u64);
            out.extend_from_slice(part);
        }
    }
    out
}

pub(super) fn decode_keys(blob: &[u8]) -> Option<Vec<ScramKeys>> {
    let mut cursor = Cursor::new(blob);
    let mut keys = Vec::new();
    while !cursor.is_empty() {
        let hash = match cursor.number()? {
            1 => ScramHash::Sha1,
            2 => ScramHash::Sha256,
            3 => ScramHash::Sha512,
            _ => return None,
        };
        let iterations = u32::try_from(cursor.number()?).ok()?;
        let mut part = || -> Option<Vec<u8>> {
            let bytes = usize::try_from(cursor.number()?).ok()?;
            Some(cursor.take(bytes)?.to_vec())
        };
        let (salt, stored_key, server_key) = (part()?, part()?, part()?);
        keys.push(ScramKeys {
            hash,
            salt,
            iterations,
            stored_key,
            server_key,
        });
    }
    Some(keys)
}

impl StateWriter {
    /// Keys of other hashes, of the password that `beside` is of.
    pub(super) fn add_keys(
        &self,
        jid: &BareJid,
        beside: &ScramKeys,
        keys: &[ScramKeys],
    ) -> Result<Written, StoreError> {
        let key = (jid.domainpart(), local_of(jid));
        let sql = "SELECT keys FROM account WHERE domain = ? AND localpart = ?";
        let error = |e| self.db.error(e);
        let mut statement = self.db.conn.prepare_cached(sql).map_err(error)?;
        let known = statement.query_row(key, |row| row.get::<_, Vec<u8>>(0));
        let Some(known) = known.optional().map_err(error)? else {
            return Ok(Written::Failed(WriteError::NotFound));
        };
        let mut account = Account {
            jid: jid.clone(),
            keys: decode_keys(&known).ok_or_else(|| corrupt(&self.db, "account"))?,
            disabled: false,
            created_ms: 0,
        };
        if !account.add_keys(beside, keys) {
            return Ok(Written::Failed(WriteError::Outdated));
        }
        let sql = "UPDATE account SET keys = ? WHERE domain = ? AND localpart = ?";
        self.run(sql, (encode_keys(&account.keys), key.0, key.1))?;
        Ok(Written::Done)
    }
}
