//! `state.db`: accounts, rosters, subscription requests, blocking lists, vCards, private XML, tokens, what archives keep,
//! publish-subscribe nodes, what is kept of accounts elsewhere, who was here when, values of the whole site, and the identity of the store.
//!
//! Written by the writer's own transaction when a batch holds such writes, never otherwise.

mod pubsub;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use xmpp::jid::{BareJid, Jid};

use super::keys::{decode_keys, encode_keys};
use super::open::{Database, Db};
use super::record::{Cursor, put_number};
use crate::StoreError;
use crate::tokens::Revocations;
use crate::types::{
    Account, AccountCounts, AccountEntry, Activity, Overlay, PrivateElement, PushService, PutMode,
    RosterItem, Subscription, SubscriptionRequest, UserData, Write, WriteError, Written,
};

/// The file and its schema.
pub(crate) const STATE: Database = Database {
    name: "state.db",
    page_bytes: 4_096,
    migrations: &["
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE account (
            domain TEXT NOT NULL, localpart TEXT NOT NULL, disabled INTEGER NOT NULL, created_ms INTEGER NOT NULL,
            keys BLOB NOT NULL, PRIMARY KEY (domain, localpart)
        ) WITHOUT ROWID;
        CREATE TABLE roster_version (owner TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE roster (
            owner TEXT NOT NULL, contact TEXT NOT NULL, name TEXT, subscription INTEGER NOT NULL,
            ask INTEGER NOT NULL, approved INTEGER NOT NULL, groups BLOB NOT NULL, version INTEGER NOT NULL,
            PRIMARY KEY (owner, contact)
        ) WITHOUT ROWID;
        CREATE TABLE request (
            owner TEXT NOT NULL, contact TEXT NOT NULL, stanza BLOB NOT NULL, PRIMARY KEY (owner, contact)
        ) WITHOUT ROWID;
        CREATE TABLE vcard (owner TEXT PRIMARY KEY, xml BLOB NOT NULL) WITHOUT ROWID;
    ", "
        CREATE TABLE overlay (
            owner TEXT PRIMARY KEY, disabled INTEGER NOT NULL, keys BLOB NOT NULL, made_ms INTEGER NOT NULL
        ) WITHOUT ROWID;
    ", "
        CREATE TABLE activity (
            owner TEXT PRIMARY KEY, login_ms INTEGER NOT NULL, logout_ms INTEGER NOT NULL, greeted_ms INTEGER NOT NULL,
            motd INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE site_value (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
        CREATE INDEX account_disabled ON account (domain, localpart) WHERE disabled;
    ", "
        CREATE TABLE private (
            owner TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, xml BLOB NOT NULL,
            PRIMARY KEY (owner, ns, name)
        ) WITHOUT ROWID;
    ", "
        CREATE TABLE archive_prefs (owner TEXT PRIMARY KEY, prefs BLOB NOT NULL) WITHOUT ROWID;
    ", "
        CREATE TABLE blocked (owner TEXT NOT NULL, jid TEXT NOT NULL, PRIMARY KEY (owner, jid)) WITHOUT ROWID;
    ", super::tokens::TABLE, pubsub::TABLES, "
        CREATE TABLE push (
            owner TEXT NOT NULL, service TEXT NOT NULL, node TEXT NOT NULL, resource TEXT NOT NULL, options BLOB,
            PRIMARY KEY (owner, service, node)
        ) WITHOUT ROWID;
    ", "
        CREATE INDEX pubsub_member_jid ON pubsub_member (jid);
    "],
};

/// Key in meta: how many accounts there are, so that asking is cheap.
const ACCOUNT_COUNT: &str = "account_count";

fn encode_groups(groups: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for group in groups {
        put_number(&mut out, group.len() as u64);
        out.extend_from_slice(group.as_bytes());
    }
    out
}

fn decode_groups(blob: &[u8]) -> Option<Vec<String>> {
    let mut cursor = Cursor::new(blob);
    let mut groups = Vec::new();
    while !cursor.is_empty() {
        groups.push(cursor.text()?.to_owned());
    }
    Some(groups)
}

fn subscription_number(subscription: Subscription) -> u8 {
    match subscription {
        Subscription::None => 0,
        Subscription::To => 1,
        Subscription::From => 2,
        Subscription::Both => 3,
    }
}

fn subscription(number: u8) -> Option<Subscription> {
    Some(match number {
        0 => Subscription::None,
        1 => Subscription::To,
        2 => Subscription::From,
        3 => Subscription::Both,
        _ => return None,
    })
}

pub(super) fn corrupt(db: &Db, what: &str) -> StoreError {
    StoreError::Corrupt {
        path: db.path.clone(),
        reason: format!("a {what} row cannot be read"),
    }
}

fn jid_of(db: &Db, text: &str) -> Result<BareJid, StoreError> {
    BareJid::parse(text).map_err(|_| corrupt(db, "JID in a"))
}

pub(super) fn local_of(jid: &BareJid) -> &str {
    jid.localpart().unwrap_or_default()
}

/// The writing half: one transaction at a time, opened by the first write of a batch.
pub(crate) struct StateWriter {
    pub(super) db: Db,
    open: bool,
    /// A commit waits for the disk.
    synced: bool,
    accounts_added: i64,
    pub(super) revocations: Revocations,
    /// How many of them are on disk, for the readers.
    revoked: Arc<AtomicU64>,
    /// A test wants the next commits refused.
    #[cfg(test)]
    pub refuse_commit: bool,
}

impl StateWriter {
    pub fn new(db: Db, revoked: Arc<AtomicU64>) -> Self {
        db.conn.set_prepared_statement_cache_capacity(64);
        StateWriter {
            db,
            open: false,
            synced: true,
            accounts_added: 0,
            revocations: Revocations::default(),
            revoked,
            #[cfg(test)]
            refuse_commit: false,
        }
    }

    /// A write is in the open transaction.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether the next commits wait for the disk. Those that do bring what did not before them with them: it is one WAL.
    pub fn sync(&mut self, yes: bool) -> Result<(), StoreError> {
        if self.synced != yes {
            let level = if yes { "FULL" } else { "NORMAL" };
            self.db.execute(&format!("PRAGMA synchronous={level}"))?;
            self.synced = yes;
        }
        Ok(())
    }

    pub(super) fn run(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
    ) -> Result<usize, StoreError> {
        let mut statement = self
            .db
            .conn
            .prepare_cached(sql)
            .map_err(|e| self.db.error(e))?;
        statement.execute(params).map_err(|e| self.db.error(e))
    }

    /// Carries out one write inside the transaction. After an error the caller rolls back.
    pub fn apply(&mut self, write: &Write) -> Result<Written, StoreError> {
        if !self.open {
            self.db.execute("BEGIN IMMEDIATE")?;
            self.open = true;
            self.accounts_added = 0;
        }
        match write {
            Write::Roster {
                owner,
                version,
                put,
                remove,
            } => {
                self.run(
                    "INSERT INTO roster_version VALUES (?, ?)
                     ON CONFLICT DO UPDATE SET version = excluded.version",
                    (owner.as_str(), *version as i64),
                )?;
                if let Some(contact) = remove {
                    self.run(
                        "DELETE FROM roster WHERE owner = ? AND contact = ?",
                        (owner.as_str(), contact.as_str()),
                    )?;
                }
                if let Some(item) = put {
                    self.put_item(owner, *version, item)?;
                }
            }
            Write::SubscriptionRequest {
                owner,
                from,
                stanza,
            } => {
                let key = (owner.as_str(), from.as_str());
                match stanza {
                    Some(stanza) => self.run(
                        "INSERT OR REPLACE INTO request VALUES (?, ?, ?)",
                        (key.0, key.1, &stanza[..]),
                    )?,
                    None => self.run("DELETE FROM request WHERE owner = ? AND contact = ?", key)?,
                };
            }
            Write::Blocklist {
                owner,
                block,
                unblock,
            } => {
                for jid in unblock {
                    let sql = "DELETE FROM blocked WHERE owner = ? AND jid = ?";
                    self.run(sql, (owner.as_str(), jid.as_str()))?;
                }
                for jid in block {
                    let sql = "INSERT OR IGNORE INTO blocked VALUES (?, ?)";
                    self.run(sql, (owner.as_str(), jid.as_str()))?;
                }
            }
            Write::Push { owner, put, remove } => {
                for (service, node) in remove {
                    let sql = "DELETE FROM push WHERE owner = ? AND service = ? AND node = ?";
                    self.run(sql, (owner.as_str(), service.as_str(), node))?;
                }
                if let Some(push) = put {
                    let sql = "INSERT OR REPLACE INTO push VALUES (?, ?, ?, ?, ?)";
                    let options = push.options.as_deref();
                    let params = (
                        owner.as_str(),
                        push.service.as_str(),
                        &push.node,
                        &push.resource,
                        options,
                    );
                    self.run(sql, params)?;
                }
            }
            Write::VCard { owner, xml } => {
                match xml {
                    Some(xml) => self.run(
                        "INSERT OR REPLACE INTO vcard VALUES (?, ?)",
                        (owner.as_str(), &xml[..]),
                    )?,
                    None => self.run("DELETE FROM vcard WHERE owner = ?", [owner.as_str()])?,
                };
            }
            Write::ArchivePrefs { owner, prefs } => {
                match prefs {
                    Some(prefs) => self.run(
                        "INSERT OR REPLACE INTO archive_prefs VALUES (?, ?)",
                        (owner.as_str(), &prefs[..]),
                    )?,
                    None => self.run(
                        "DELETE FROM archive_prefs WHERE owner = ?",
                        [owner.as_str()],
                    )?,
                };
            }
            Write::Private {
                owner,
                elements,
                bytes_max,
            } => return self.put_private(owner, elements, *bytes_max),
            Write::Tokens { owner, change } => return self.change_tokens(owner, change),
            Write::Pubsub {
                owner,
                changes,
                bytes_max,
            } => return self.change_pubsub(owner, changes, *bytes_max),
            Write::AccountPut { account, mode } => return self.put_account(account, *mode),
            Write::AccountKeys { jid, keys } => {
                self.revoke_all(jid)?;
                let sql = "UPDATE account SET keys = ? WHERE domain = ? AND localpart = ?";
                return self
                    .run(sql, (encode_keys(keys), jid.domainpart(), local_of(jid)))
                    .map(found);
            }
            Write::AccountKeysAdd { jid, beside, keys } => {
                return self.add_keys(jid, beside, keys);
            }
            Write::AccountDisabled { jid, disabled } => {
                self.may_log_in(jid, !disabled);
                let sql = "UPDATE account SET disabled = ? WHERE domain = ? AND localpart = ?";
                return self
                    .run(sql, (disabled, jid.domainpart(), local_of(jid)))
                    .map(found);
            }
            Write::AccountDelete { jid } => return self.delete_account(jid),
            Write::OverlayDisabled { jid, disabled } => {
                self.may_log_in(jid, !disabled);
                let sql = "INSERT INTO overlay VALUES (?, ?, x'', 0)
                     ON CONFLICT DO UPDATE SET disabled = excluded.disabled";
                self.run(sql, (jid.as_str(), disabled))?;
                self.forget_empty_overlay(jid)?;
            }
            Write::OverlayKeys { jid, keys, made_ms } => {
                let made_ms = if keys.is_empty() { 0 } else { *made_ms as i64 };
                let sql = "INSERT INTO overlay VALUES (?, 0, ?, ?)
                     ON CONFLICT DO UPDATE SET keys = excluded.keys, made_ms = excluded.made_ms";
                self.run(sql, (jid.as_str(), encode_keys(keys), made_ms))?;
                self.forget_empty_overlay(jid)?;
            }
            Write::Activity { owner, facts } => {
                let sql = "INSERT INTO activity VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
                     login_ms = iif(excluded.login_ms, excluded.login_ms, login_ms),
                     logout_ms = iif(excluded.logout_ms, excluded.logout_ms, logout_ms),
                     greeted_ms = iif(excluded.greeted_ms, excluded.greeted_ms, greeted_ms),
                     motd = iif(excluded.motd, excluded.motd, motd)";
                let times = [
                    facts.login_ms,
                    facts.logout_ms,
                    facts.greeted_ms,
                    facts.motd,
                ];
                let [login, logout, greeted, motd] = times.map(|n| n as i64);
                self.run(sql, (owner.as_str(), login, logout, greeted, motd))?;
            }
            Write::SiteValue { key, value } => {
                let sql = "INSERT OR REPLACE INTO site_value VALUES (?, ?)";
                self.run(sql, (*key, &value[..]))?;
            }
            _ => {}
        }
        Ok(Written::Done)
    }

    fn forget_empty_overlay(&self, jid: &BareJid) -> Result<(), StoreError> {
        let sql = "DELETE FROM overlay WHERE owner = ? AND disabled = 0 AND made_ms = 0";
        self.run(sql, [jid.as_str()]).map(drop)
    }

    fn put_private(
        &self,
        owner: &BareJid,
        elements: &[PrivateElement],
        bytes_max: u64,
    ) -> Result<Written, StoreError> {
        let (mut before, mut after) = (0, elements.iter().map(PrivateElement::bytes).sum::<u64>());
        let sql = "SELECT ns, name, bytes FROM private WHERE owner = ?";
        let error = |e| self.db.error(e);
        let mut statement = self.db.conn.prepare_cached(sql).map_err(error)?;
        let mut rows = statement.query([owner.as_str()]).map_err(error)?;
        while let Some(row) = rows.next().map_err(error)? {
            let ns: String = row.get(0).map_err(error)?;
            let name: String = row.get(1).map_err(error)?;
            let bytes = row.get::<_, i64>(2).map_err(error)? as u64;
            before += bytes;
            if !elements.iter().any(|e| e.ns == ns && e.name == name) {
                after += bytes;
            }
        }
        drop(rows);
        if after > bytes_max && after > before {
            return Ok(Written::Failed(WriteError::TooMuch));
        }
        for element in elements {
            let key = (owner.as_str(), element.ns.as_str(), element.name.as_str());
            match &element.xml {
                Some(xml) => self.run(
                    "INSERT OR REPLACE INTO private VALUES (?, ?, ?, ?, ?)",
                    (key.0, key.1, key.2, element.bytes() as i64, &xml[..]),
                )?,
                None => self.run(
                    "DELETE FROM private WHERE owner = ? AND ns = ? AND name = ?",
                    key,
                )?,
            };
        }
        Ok(Written::Done)
    }

    fn put_item(&self, owner: &BareJid, version: u64, item: &RosterItem) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO roster VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
        let params = (
            owner.as_str(),
            item.jid.as_str(),
            item.name.as_deref(),
            subscription_number(item.subscription),
            item.ask,
            item.approved,
            encode_groups(&item.groups),
            version as i64,
        );
        self.run(sql, params).map(drop)
    }

    fn put_account(&mut self, account: &Account, mode: PutMode) -> Result<Written, StoreError> {
        let (domain, local) = (account.jid.domainpart(), local_of(&account.jid));
        let (keys, created) = (encode_keys(&account.keys), account.created_ms as i64);
        if mode != PutMode::Create {
            let sql = "UPDATE account SET disabled = ?, created_ms = ?, keys = ? WHERE domain = ? AND localpart = ?";
            let changed = self.run(sql, (account.disabled, created, &keys, domain, local))?;
            self.revoke_all(&account.jid)?;
            if changed > 0 || mode == PutMode::Replace {
                return Ok(found(changed));
            }
        }
        let sql = "INSERT INTO account VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
        let added = self.run(sql, (domain, local, account.disabled, created, &keys))?;
        self.accounts_added += added as i64;
        Ok(if added > 0 {
            Written::Done
        } else {
            Written::Failed(WriteError::Exists)
        })
    }

    fn delete_account(&mut self, jid: &BareJid) -> Result<Written, StoreError> {
        self.revocations.note(jid);
        let sql = "DELETE FROM account WHERE domain = ? AND localpart = ?";
        let removed = self.run(sql, (jid.domainpart(), local_of(jid)))?;
        self.accounts_added -= removed as i64;
        let mut all = removed;
        for table in [
            "roster",
            "roster_version",
            "request",
            "blocked",
            "push",
            "vcard",
            "private",
            "archive_prefs",
            "token",
            "pubsub_node",
            "pubsub_member",
            "pubsub_item",
            "overlay",
            "activity",
        ] {
            all += self.run(
                &format!("DELETE FROM {table} WHERE owner = ?"),
                [jid.as_str()],
            )?;
        }
        // What others' nodes had given the address is not for who has it next.
        let (from, to) = (format!("{}/", jid.as_str()), format!("{}0", jid.as_str()));
        self.run(
            "DELETE FROM pubsub_member WHERE jid = ?1 OR jid > ?2 AND jid < ?3",
            [jid.as_str(), &from, &to],
        )?;
        Ok(found(all))
    }

    /// Makes the open transaction durable.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        #[cfg(test)]
        if self.refuse_commit {
            return Err(StoreError::DiskFull {
                path: self.db.path.clone(),
            });
        }
        if self.accounts_added != 0 {
            let count = self.db.meta_number(ACCOUNT_COUNT)? as i64 + self.accounts_added;
            self.db.set_meta(ACCOUNT_COUNT, count)?;
        }
        self.db.execute("COMMIT")?;
        self.open = false;
        self.publish();
        Ok(())
    }

    /// Undoes the open transaction, if there is one.
    pub fn rollback(&mut self) {
        self.db.rollback();
        self.open = false;
        // What has not come to pass does no harm: who is logging in gets a token the next time.
        self.publish();
    }

    /// Not before readers can see what was revoked: whoever reads this number must not read after it what was there before.
    fn publish(&self) {
        self.revoked
            .store(self.revocations.count(), Ordering::Release);
    }

    #[cfg(test)]
    pub fn limit_pages(&self, pages: u64) {
        let set = |row: &Row<'_>| row.get::<_, i64>(0);
        self.db
            .conn
            .query_row(&format!("PRAGMA max_page_count={pages}"), [], set)
            .unwrap();
    }
}

fn found(rows: usize) -> Written {
    if rows > 0 {
        Written::Done
    } else {
        Written::Failed(WriteError::NotFound)
    }
}

/// The reading half.
pub(crate) struct StateReader {
    pub(super) db: Db,
}

impl StateReader {
    pub fn new(db: Db) -> Self {
        StateReader { db }
    }

    fn one<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        map: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self
            .db
            .conn
            .prepare_cached(sql)
            .map_err(|e| self.db.error(e))?;
        statement
            .query_row(params, map)
            .optional()
            .map_err(|e| self.db.error(e))
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl rusqlite::Params,
        mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self
            .db
            .conn
            .prepare_cached(sql)
            .map_err(|e| self.db.error(e))?;
        let rows = statement
            .query_map(params, |row| map(row))
            .map_err(|e| self.db.error(e))?;
        rows.collect::<rusqlite::Result<Vec<T>>>()
            .map_err(|e| self.db.error(e))
    }

    /// Runs reads that must see the same moment.
    fn at_once<T>(&self, read: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.db.execute("BEGIN")?;
        let result = read();
        self.db.rollback();
        result
    }

    /// Everything about a user but whether messages are pending; and whether there is an account.
    pub fn user(
        &self,
        owner: &BareJid,
        only_with_account: bool,
    ) -> Result<Option<UserData>, StoreError> {
        self.at_once(|| {
            let sql = "SELECT disabled, created_ms FROM account WHERE domain = ? AND localpart = ?";
            let key = (owner.domainpart(), local_of(owner));
            let account = self.one(sql, key, |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)? as u64))
            })?;
            if account.is_none() && only_with_account {
                return Ok(None);
            }
            let (disabled, created_ms) = account.unwrap_or((false, 0));
            let version = self.one(
                "SELECT version FROM roster_version WHERE owner = ?",
                [owner.as_str()],
                |row| row.get::<_, i64>(0),
            )?;
            Ok(Some(UserData {
                disabled,
                created_ms,
                roster_version: version.unwrap_or(0) as u64,
                roster: if version.is_some() {
                    self.roster(owner)?
                } else {
                    Vec::new()
                },
                requests: self.requests(owner)?,
                blocked: self.blocked(owner)?,
                push: self.push(owner)?,
                pending: 0,
                pending_bytes: 0,
                activity: self.activity(owner)?,
                archive_prefs: self.archive_prefs(owner)?,
            }))
        })
    }

    fn archive_prefs(&self, owner: &BareJid) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT prefs FROM archive_prefs WHERE owner = ?";
        let prefs = self.one(sql, [owner.as_str()], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(prefs.map(Bytes::from))
    }

    fn roster(&self, owner: &BareJid) -> Result<Vec<RosterItem>, StoreError> {
        let sql = "SELECT contact, name, subscription, ask, approved, groups, version FROM roster
                   WHERE owner = ? ORDER BY contact";
        let mut statement = self
            .db
            .conn
            .prepare_cached(sql)
            .map_err(|e| self.db.error(e))?;
        let mut rows = statement
            .query([owner.as_str()])
            .map_err(|e| self.db.error(e))?;
        let mut items = Vec::new();
        while let Some(row) = rows.next().map_err(|e| self.db.error(e))? {
            items.push(self.roster_item(row)?);
        }
        Ok(items)
    }

    fn roster_item(&self, row: &Row<'_>) -> Result<RosterItem, StoreError> {
        let error = |e| self.db.error(e);
        let contact = row
            .get_ref(0)
            .map_err(error)?
            .as_str()
            .map_err(|_| corrupt(&self.db, "roster"))?;
        let groups = row
            .get_ref(5)
            .map_err(error)?
            .as_blob()
            .map_err(|_| corrupt(&self.db, "roster"))?;
        Ok(RosterItem {
            jid: jid_of(&self.db, contact)?,
            name: row.get(1).map_err(error)?,
            subscription: subscription(row.get(2).map_err(error)?)
                .ok_or_else(|| corrupt(&self.db, "roster"))?,
            ask: row.get(3).map_err(error)?,
            approved: row.get(4).map_err(error)?,
            groups: decode_groups(groups).ok_or_else(|| corrupt(&self.db, "roster"))?,
            version: row.get::<_, i64>(6).map_err(error)? as u64,
        })
    }

    fn requests(&self, owner: &BareJid) -> Result<Vec<SubscriptionRequest>, StoreError> {
        let sql = "SELECT contact, stanza FROM request WHERE owner = ? ORDER BY contact";
        let rows = self.all(sql, [owner.as_str()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        rows.into_iter()
            .map(|(from, stanza)| {
                Ok(SubscriptionRequest {
                    from: jid_of(&self.db, &from)?,
                    stanza: Bytes::from(stanza),
                })
            })
            .collect()
    }

    fn blocked(&self, owner: &BareJid) -> Result<Vec<Jid>, StoreError> {
        let sql = "SELECT jid FROM blocked WHERE owner = ? ORDER BY jid";
        let rows = self.all(sql, [owner.as_str()], |row| row.get::<_, String>(0))?;
        let mut jids = rows
            .iter()
            .map(|jid| Jid::parse(jid).map_err(|_| corrupt(&self.db, "JID in a")))
            .collect::<Result<Vec<Jid>, _>>()?;
        jids.sort();
        Ok(jids)
    }

    fn push(&self, owner: &BareJid) -> Result<Vec<PushService>, StoreError> {
        let sql = "SELECT service, node, resource, options FROM push WHERE owner = ? ORDER BY service, node";
        let rows = self.all(sql, [owner.as_str()], |row| {
            let options = row.get::<_, Option<Vec<u8>>>(3)?;
            Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, options))
        })?;
        let push = rows.into_iter().map(|(service, node, resource, options)| {
            Ok(PushService {
                service: Jid::parse(&service).map_err(|_| corrupt(&self.db, "JID in a"))?,
                node,
                resource,
                options: options.map(Bytes::from),
            })
        });
        push.collect()
    }

    pub fn account(&self, jid: &BareJid) -> Result<Option<Account>, StoreError> {
        let sql =
            "SELECT disabled, created_ms, keys FROM account WHERE domain = ? AND localpart = ?";
        let found = self.one(sql, (jid.domainpart(), local_of(jid)), |row| {
            Ok((
                row.get(0)?,
                row.get::<_, i64>(1)? as u64,
                row.get::<_, Vec<u8>>(2)?,
            ))
        })?;
        let Some((disabled, created_ms, keys)) = found else {
            return Ok(None);
        };
        let keys = decode_keys(&keys).ok_or_else(|| corrupt(&self.db, "account"))?;
        Ok(Some(Account {
            jid: jid.clone(),
            keys,
            disabled,
            created_ms,
        }))
    }

    pub fn activity(&self, owner: &BareJid) -> Result<Activity, StoreError> {
        let sql = "SELECT login_ms, logout_ms, greeted_ms, motd FROM activity WHERE owner = ?";
        let facts = self.one(sql, [owner.as_str()], |row| {
            let number = |at| row.get::<_, i64>(at).map(|n| n as u64);
            Ok(Activity {
                login_ms: number(0)?,
                logout_ms: number(1)?,
                greeted_ms: number(2)?,
                motd: number(3)?,
            })
        })?;
        Ok(facts.unwrap_or_default())
    }

    pub fn site_value(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        let sql = "SELECT value FROM site_value WHERE key = ?";
        let value = self.one(sql, [key], |row| row.get::<_, Vec<u8>>(0))?;
        Ok(value.map(Bytes::from))
    }

    pub fn account_counts(&self, domain: &str) -> Result<AccountCounts, StoreError> {
        let count = |sql| {
            let number = self.one(sql, [domain], |row| row.get::<_, i64>(0))?;
            Ok(number.unwrap_or(0) as u64)
        };
        Ok(AccountCounts {
            accounts: count("SELECT count(*) FROM account WHERE domain = ?")?,
            disabled: count("SELECT count(*) FROM account WHERE domain = ? AND disabled")?,
        })
    }

    pub fn accounts(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
        only_disabled: bool,
    ) -> Result<Vec<AccountEntry>, StoreError> {
        let mut from = after.map_or(("", ""), |jid| (jid.domainpart(), local_of(jid)));
        let last_domain = domain.unwrap_or("\u{10ffff}");
        if let Some(domain) = domain.filter(|domain| from.0 < *domain) {
            // Nothing before the domain is wanted; no localpart sorts before the empty one, and ours
            // are never empty.
            from = (domain, "");
        }
        let sql = match only_disabled {
            false => {
                "SELECT domain, localpart, disabled, created_ms FROM account
                 WHERE (domain, localpart) > (?, ?) AND domain <= ? ORDER BY domain, localpart LIMIT ?"
            }
            true => {
                "SELECT domain, localpart, disabled, created_ms FROM account
                 WHERE (domain, localpart) > (?, ?) AND domain <= ? AND disabled
                 ORDER BY domain, localpart LIMIT ?"
            }
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.all(sql, (from.0, from.1, last_domain, limit), |row| {
            Ok((
                row.get::<_, String>(0)?,
                row.get::<_, String>(1)?,
                row.get(2)?,
                row.get::<_, i64>(3)? as u64,
            ))
        })?;
        rows.into_iter()
            .map(|(domain, local, disabled, created_ms)| {
                let local = Some(local.as_str()).filter(|local| !local.is_empty());
                let jid = BareJid::from_parts(local, &domain)
                    .map_err(|_| corrupt(&self.db, "account"))?;
                Ok(AccountEntry {
                    jid,
                    disabled,
                    created_ms,
                })
            })
            .collect()
    }

    pub fn vcard(&self, owner: &BareJid) -> Result<Option<Bytes>, StoreError> {
        let xml = self.one(
            "SELECT xml FROM vcard WHERE owner = ?",
            [owner.as_str()],
            |row| row.get::<_, Vec<u8>>(0),
        )?;
        Ok(xml.map(Bytes::from))
    }

    pub fn private(
        &self,
        owner: &BareJid,
        name: &str,
        ns: &str,
    ) -> Result<Option<Bytes>, StoreError> {
        let xml = self.one(
            "SELECT xml FROM private WHERE owner = ? AND ns = ? AND name = ?",
            (owner.as_str(), ns, name),
            |row| row.get::<_, Vec<u8>>(0),
        )?;
        Ok(xml.map(Bytes::from))
    }

    pub fn overlay(&self, jid: &BareJid) -> Result<Overlay, StoreError> {
        let row = self.one(
            "SELECT disabled, keys, made_ms FROM overlay WHERE owner = ?",
            [jid.as_str()],
            |row| {
                let (disabled, keys) = (row.get::<_, bool>(0)?, row.get::<_, Vec<u8>>(1)?);
                Ok((disabled, keys, row.get::<_, i64>(2)? as u64))
            },
        )?;
        let Some((disabled, keys, made_ms)) = row else {
            return Ok(Overlay::default());
        };
        let keys = decode_keys(&keys).ok_or_else(|| corrupt(&self.db, "overlay"))?;
        Ok(Overlay {
            disabled,
            keys,
            made_ms,
        })
    }

    pub fn overlay_disabled(&self) -> Result<Vec<BareJid>, StoreError> {
        let sql = "SELECT owner FROM overlay WHERE disabled ORDER BY owner";
        let owners = self.all(sql, [], |row| row.get::<_, String>(0))?;
        owners.iter().map(|text| jid_of(&self.db, text)).collect()
    }

    pub fn account_count(&self) -> Result<u64, StoreError> {
        self.db.meta_number(ACCOUNT_COUNT)
    }
}
