//! Nodes of publish-subscribe services (XEP-0060), of accounts and others, and what was published to them.
//!
//! A node counts its items and their bytes, so that no limit needs a look at all of them. Items are ordered by their row: what is
//! published again gets a new one.

use bytes::Bytes;
use rusqlite::{Row, params_from_iter};
use xmpp::jid::BareJid;

use super::{StateReader, StateWriter};
use crate::StoreError;
use crate::types::{
    PubsubChange, PubsubItem, PubsubNode, PubsubPage, PubsubQuery, PubsubRange, WriteError, Written,
};

/// Its migration.
pub(super) const TABLES: &str = "
        CREATE TABLE pubsub_node (
            owner TEXT NOT NULL, node TEXT NOT NULL, meta BLOB NOT NULL, items INTEGER NOT NULL, bytes INTEGER NOT NULL,
            PRIMARY KEY (owner, node)
        ) WITHOUT ROWID;
        CREATE TABLE pubsub_member (
            owner TEXT NOT NULL, node TEXT NOT NULL, jid TEXT NOT NULL, state BLOB NOT NULL, PRIMARY KEY (owner, node, jid)
        ) WITHOUT ROWID;
        CREATE TABLE pubsub_item (
            seq INTEGER PRIMARY KEY, owner TEXT NOT NULL, node TEXT NOT NULL, id TEXT NOT NULL, bytes INTEGER NOT NULL,
            publisher TEXT NOT NULL, time_ms INTEGER NOT NULL, payload BLOB NOT NULL
        );
        CREATE UNIQUE INDEX pubsub_item_id ON pubsub_item (owner, node, id);
        CREATE INDEX pubsub_item_order ON pubsub_item (owner, node, seq);
    ";

/// Items of one question by ids that are looked up with one statement.
const IDS_PER_STATEMENT: usize = 100;

impl StateWriter {
    /// All changes, or none.
    pub(super) fn change_pubsub(
        &self,
        owner: &BareJid,
        changes: &[PubsubChange],
        bytes_max: u64,
    ) -> Result<Written, StoreError> {
        self.run("SAVEPOINT pubsub", [])?;
        let before = self.pubsub_bytes(owner)?;
        let mut failed = None;
        for change in changes {
            if !self.change_node(owner, change)? {
                failed = Some(WriteError::NotFound);
                break;
            }
        }
        if failed.is_none() {
            let after = self.pubsub_bytes(owner)?;
            failed = (after > bytes_max && after > before).then_some(WriteError::TooMuch);
        }
        if failed.is_some() {
            self.run("ROLLBACK TO pubsub", [])?;
        }
        self.run("RELEASE pubsub", [])?;
        Ok(failed.map_or(Written::Done, Written::Failed))
    }

    fn pubsub_bytes(&self, owner: &BareJid) -> Result<u64, StoreError> {
        let sql = "SELECT coalesce(sum(bytes), 0) FROM pubsub_node WHERE owner = ?";
        Ok(self.number(sql, [owner.as_str()])?.unwrap_or(0))
    }

    fn number(&self, sql: &str, params: impl rusqlite::Params) -> Result<Option<u64>, StoreError> {
        use rusqlite::OptionalExtension;
        let error = |e| self.db.error(e);
        let mut statement = self.db.conn.prepare_cached(sql).map_err(error)?;
        let number = statement.query_row(params, |row| row.get::<_, i64>(0));
        Ok(number.optional().map_err(error)?.map(|n| n as u64))
    }

    /// False: what it needs is not there.
    fn change_node(&self, owner: &BareJid, change: &PubsubChange) -> Result<bool, StoreError> {
        let owner = owner.as_str();
        match change {
            PubsubChange::Put { node, meta } => {
                let sql = "INSERT INTO pubsub_node VALUES (?, ?, ?, 0, 0)
                     ON CONFLICT DO UPDATE SET meta = excluded.meta";
                self.run(sql, (owner, node, &meta[..]))?;
            }
            PubsubChange::Delete { node } => {
                let key = (owner, node.as_str());
                self.run("DELETE FROM pubsub_item WHERE owner = ? AND node = ?", key)?;
                let sql = "DELETE FROM pubsub_member WHERE owner = ? AND node = ?";
                self.run(sql, key)?;
                let sql = "DELETE FROM pubsub_node WHERE owner = ? AND node = ?";
                return Ok(self.run(sql, key)? > 0);
            }
            PubsubChange::Member { node, jid, state } => {
                if self.items_of(owner, node)?.is_none() {
                    return Ok(false);
                }
                match state {
                    Some(state) => self.run(
                        "INSERT OR REPLACE INTO pubsub_member VALUES (?, ?, ?, ?)",
                        (owner, node, jid, &state[..]),
                    )?,
                    None => self.run(
                        "DELETE FROM pubsub_member WHERE owner = ? AND node = ? AND jid = ?",
                        (owner, node, jid),
                    )?,
                };
            }
            PubsubChange::Publish {
                node,
                item,
                items_max,
            } => {
                if self.items_of(owner, node)?.is_none() {
                    return Ok(false);
                }
                self.remove_item(owner, node, &item.id)?;
                let sql =
                    "INSERT INTO pubsub_item (owner, node, id, bytes, publisher, time_ms, payload)
                     VALUES (?, ?, ?, ?, ?, ?, ?)";
                let bytes = item.bytes() as i64;
                self.run(
                    sql,
                    (
                        owner,
                        node,
                        &item.id,
                        bytes,
                        &item.publisher,
                        item.time_ms as i64,
                        &item.payload[..],
                    ),
                )?;
                self.count(owner, node, 1, bytes)?;
                self.trim(owner, node, *items_max)?;
            }
            PubsubChange::Retract { node, id } => return self.remove_item(owner, node, id),
            PubsubChange::Trim { node, items_max } => return self.trim(owner, node, *items_max),
        }
        Ok(true)
    }

    /// How many items a node has. `None`: there is no such node.
    fn items_of(&self, owner: &str, node: &str) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT items FROM pubsub_node WHERE owner = ? AND node = ?";
        self.number(sql, (owner, node))
    }

    fn count(&self, owner: &str, node: &str, items: i64, bytes: i64) -> Result<(), StoreError> {
        let sql = "UPDATE pubsub_node SET items = items + ?, bytes = bytes + ? WHERE owner = ? AND node = ?";
        self.run(sql, (items, bytes, owner, node)).map(drop)
    }

    fn remove_item(&self, owner: &str, node: &str, id: &str) -> Result<bool, StoreError> {
        let sql = "DELETE FROM pubsub_item WHERE owner = ? AND node = ? AND id = ? RETURNING bytes";
        let bytes = self.number(sql, (owner, node, id))?;
        if let Some(bytes) = bytes {
            self.count(owner, node, -1, -(bytes as i64))?;
        }
        Ok(bytes.is_some())
    }

    fn trim(&self, owner: &str, node: &str, items_max: u64) -> Result<bool, StoreError> {
        let Some(mut items) = self.items_of(owner, node)? else {
            return Ok(false);
        };
        while items > items_max {
            let sql = "DELETE FROM pubsub_item WHERE seq =
                 (SELECT min(seq) FROM pubsub_item WHERE owner = ? AND node = ?) RETURNING bytes";
            let bytes = self.number(sql, (owner, node))?.unwrap_or(0);
            self.count(owner, node, -1, -(bytes as i64))?;
            items -= 1;
        }
        Ok(true)
    }
}

/// Columns of an item, in the order of [`item_of`].
const ITEM: &str = "id, publisher, time_ms, payload";

fn item_of(row: &Row<'_>) -> rusqlite::Result<PubsubItem> {
    Ok(PubsubItem {
        id: row.get(0)?,
        publisher: row.get(1)?,
        time_ms: row.get::<_, i64>(2)? as u64,
        payload: Bytes::from(row.get::<_, Vec<u8>>(3)?),
    })
}

impl StateReader {
    pub fn pubsub_nodes(&self, owner: &BareJid) -> Result<Vec<PubsubNode>, StoreError> {
        self.at_once(|| {
            let blob = |row: &Row<'_>, at: usize| row.get::<_, Vec<u8>>(at).map(Bytes::from);
            let sql = "SELECT node, meta FROM pubsub_node WHERE owner = ? ORDER BY node";
            let mut nodes = self.all(sql, [owner.as_str()], |row| {
                Ok(PubsubNode {
                    node: row.get(0)?,
                    meta: blob(row, 1)?,
                    members: Vec::new(),
                })
            })?;
            if nodes.is_empty() {
                return Ok(nodes);
            }
            let sql =
                "SELECT node, jid, state FROM pubsub_member WHERE owner = ? ORDER BY node, jid";
            let members = self.all(sql, [owner.as_str()], |row| {
                Ok((row.get::<_, String>(0)?, row.get(1)?, blob(row, 2)?))
            })?;
            for (node, jid, state) in members {
                let of = nodes.binary_search_by(|n| n.node.as_str().cmp(&node));
                if let Ok(at) = of {
                    nodes[at].members.push((jid, state));
                }
            }
            Ok(nodes)
        })
    }

    pub fn pubsub_items(&self, query: &PubsubQuery) -> Result<Option<PubsubPage>, StoreError> {
        self.at_once(|| {
            let key = (query.owner.as_str(), query.node.as_str());
            let sql = "SELECT items FROM pubsub_node WHERE owner = ? AND node = ?";
            let count = self.one(sql, key, |row| row.get::<_, i64>(0))?.unwrap_or(0) as u64;
            let mut page = PubsubPage {
                items: Vec::new(),
                index: 0,
                count,
            };
            let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
            let place = |id: &str| {
                let sql = "SELECT seq FROM pubsub_item WHERE owner = ? AND node = ? AND id = ?";
                self.one(sql, (key.0, key.1, id), |row| row.get::<_, i64>(0))
            };
            let fits = |items: &mut Vec<PubsubItem>| cut(items, query.bytes_max);
            let older = |from: i64, skip: u64| {
                let sql = format!(
                    "SELECT {ITEM} FROM pubsub_item WHERE owner = ? AND node = ? AND seq < ?
                     ORDER BY seq DESC LIMIT ? OFFSET ?"
                );
                self.all(&sql, (key.0, key.1, from, limit, skip as i64), item_of)
            };
            let newer = |from: i64| {
                let sql = format!(
                    "SELECT {ITEM} FROM pubsub_item WHERE owner = ? AND node = ? AND seq > ? ORDER BY seq LIMIT ?"
                );
                self.all(&sql, (key.0, key.1, from, limit), item_of)
            };
            match &query.range {
                PubsubRange::Newest => page.items = older(i64::MAX, 0)?,
                PubsubRange::Index(skip) => page.items = older(i64::MAX, (*skip).min(count))?,
                PubsubRange::After(id) => match place(id)? {
                    Some(from) => page.items = older(from, 0)?,
                    None => return Ok(None),
                },
                PubsubRange::Oldest | PubsubRange::Before(_) => {
                    let from = match &query.range {
                        PubsubRange::Before(id) => match place(id)? {
                            Some(from) => from,
                            None => return Ok(None),
                        },
                        _ => 0,
                    };
                    page.items = newer(from)?;
                    fits(&mut page.items);
                    page.items.reverse();
                }
                PubsubRange::Ids(ids) => page.items = self.items_by_id(key, ids)?,
            }
            fits(&mut page.items);
            if let (Some(first), false) = (
                page.items.first(),
                matches!(query.range, PubsubRange::Ids(_)),
            ) {
                let from = place(&first.id)?.unwrap_or(i64::MAX);
                let sql = "SELECT count(*) FROM pubsub_item WHERE owner = ? AND node = ? AND seq > ?";
                let index = self.one(sql, (key.0, key.1, from), |row| row.get::<_, i64>(0))?;
                page.index = index.unwrap_or(0) as u64;
            }
            Ok(Some(page))
        })
    }

    fn items_by_id(
        &self,
        (owner, node): (&str, &str),
        ids: &[String],
    ) -> Result<Vec<PubsubItem>, StoreError> {
        let mut items = Vec::new();
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let marks = vec!["?"; ids.len()].join(", ");
            let sql = format!(
                "SELECT {ITEM} FROM pubsub_item WHERE owner = ? AND node = ? AND id IN ({marks}) ORDER BY seq DESC"
            );
            let params = [owner, node]
                .into_iter()
                .chain(ids.iter().map(String::as_str));
            items.extend(self.all(&sql, params_from_iter(params), item_of)?);
        }
        Ok(items)
    }
}

/// As many from the front as have no more bytes together; one at least.
fn cut(items: &mut Vec<PubsubItem>, bytes_max: usize) {
    let mut bytes = 0;
    let fit = items.iter().take_while(|item| {
        bytes += item.payload.len();
        bytes <= bytes_max
    });
    let fit = fit.count().max(1);
    items.truncate(fit);
}
