//! Tokens to log in with, in `state.db`.
//!
//! An account has a few: a change reads them all, and writes them all.

use super::open::Db;
use super::state::{StateReader, StateWriter};
use crate::StoreError;
use crate::tokens::{LoginToken, TokenChange, apply};
use crate::types::{WriteError, Written};
use rusqlite::Row;
use xmpp::jid::BareJid;
use xmpp::sasl::{ClientId, TokenMechanism};

/// The table. A row that is not understood is of a later version, and of no use here.
pub(super) const TABLE: &str = "
    CREATE TABLE token (
        owner TEXT NOT NULL, client BLOB NOT NULL, issued_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
        mechanism TEXT NOT NULL, secret TEXT NOT NULL, used INTEGER NOT NULL, software TEXT, device TEXT,
        PRIMARY KEY (owner, client, issued_ms)
    ) WITHOUT ROWID;
";

impl StateReader {
    /// The tokens of an account; of one client, if given.
    pub(crate) fn tokens(
        &self,
        owner: &BareJid,
        client: Option<ClientId>,
    ) -> Result<Vec<LoginToken>, StoreError> {
        tokens(&self.db, owner, client)
    }
}

fn tokens(
    db: &Db,
    owner: &BareJid,
    client: Option<ClientId>,
) -> Result<Vec<LoginToken>, StoreError> {
    let error = |e| db.error(e);
    let sql = "SELECT client, issued_ms, expires_ms, mechanism, secret, used, software, device FROM token WHERE owner = ?1";
    let sql = match client {
        Some(_) => format!("{sql} AND client = ?2"),
        None => format!("{sql} AND ?2 IS NULL"),
    };
    let mut statement = db.conn.prepare_cached(&sql).map_err(error)?;
    let client = client.as_ref().map(|c| &c.0[..]);
    let rows = statement
        .query_map((owner.as_str(), client), read)
        .map_err(error)?;
    let mut tokens = Vec::new();
    for token in rows {
        tokens.extend(token.map_err(error)?);
    }
    Ok(tokens)
}

impl StateWriter {
    /// Another password: no token is good any more.
    pub(super) fn revoke_all(&mut self, owner: &BareJid) -> Result<(), StoreError> {
        let all = TokenChange::Revoke {
            client: None,
            but: None,
        };
        self.change_tokens(owner, &all).map(drop)
    }

    /// The right to log in is given, or taken.
    pub(super) fn may_log_in(&mut self, owner: &BareJid, yes: bool) {
        if !yes {
            self.revocations.note(owner);
        }
    }

    pub(super) fn change_tokens(
        &mut self,
        owner: &BareJid,
        change: &TokenChange,
    ) -> Result<Written, StoreError> {
        if self.revocations.take(owner, change) {
            return Ok(Written::Failed(WriteError::Outdated));
        }
        let before = tokens(&self.db, owner, None)?;
        let mut after = before.clone();
        apply(&mut after, change);
        for gone in before.iter().filter(|t| !after.contains(t)) {
            let sql = "DELETE FROM token WHERE owner = ? AND client = ? AND issued_ms = ?";
            let key = (owner.as_str(), &gone.client.0[..], gone.issued_ms as i64);
            self.run(sql, key)?;
        }
        for new in after.iter().filter(|t| !before.contains(t)) {
            let sql = "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";
            let token = (
                owner.as_str(),
                &new.client.0[..],
                new.issued_ms as i64,
                new.expires_ms as i64,
                new.mechanism.name(),
                new.secret.as_str(),
                new.used,
                new.software.as_deref(),
                new.device.as_deref(),
            );
            self.run(sql, token)?;
        }
        Ok(Written::Done)
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Option<LoginToken>> {
    let client: Vec<u8> = row.get(0)?;
    let mechanism: String = row.get(3)?;
    let token = |client, mechanism| -> rusqlite::Result<LoginToken> {
        Ok(LoginToken {
            client: ClientId(client),
            mechanism,
            secret: row.get(4)?,
            issued_ms: row.get::<_, i64>(1)? as u64,
            expires_ms: row.get::<_, i64>(2)? as u64,
            used: row.get(5)?,
            software: row.get(6)?,
            device: row.get(7)?,
        })
    };
    let known = client
        .try_into()
        .ok()
        .zip(TokenMechanism::from_name(&mechanism));
    known
        .map(|(client, mechanism)| token(client, mechanism))
        .transpose()
}
