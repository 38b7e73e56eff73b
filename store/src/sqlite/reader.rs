//! Reads of one thread: index and tail seen at one moment, rows from the log by position.
//!
//! In: questions about an owner. Out: rows, accounts, rosters. Owns: three read-only connections.
//! Never: holds a read transaction beyond one call (the WAL could not be reused), counts rows.

use bytes::Bytes;
use std::sync::atomic::Ordering;
use xmpp::jid::BareJid;
use xmpp::sasl::ClientId;

use super::blocks::{self, Item};
use super::index::{self, IndexView, PENDING_COUNT, id_of, pending_row};
use super::log;
use super::open::Db;
use super::record::{ARCHIVE, OUTGOING};
use super::shared::lock;
use super::state::StateReader;
use super::tail::Found;
use super::words::Hits;
use crate::StoreError;
use crate::search;
use crate::tokens::LoginToken;
use crate::traits::Reader;
use crate::types::{
    Account, AccountCounts, AccountEntry, Activity, ArchiveQuery, Counts, Overlay, PendingPage,
    PubsubNode, PubsubPage, PubsubQuery, StoredRow, UserData,
};

/// Positions taken from the index per query.
const PAGE: usize = 256;

/// Rows with the words looked for that are looked at for a page: those of other talks, or other times, do not count for it. Some
/// 100 ms.
const TEXT_SCANNED_MAX: usize = 100_000;

/// See the module.
pub(crate) struct SqliteReader {
    view: IndexView,
    log: Db,
    state: StateReader,
}

impl SqliteReader {
    pub fn new(view: IndexView, log: Db, state: StateReader) -> Self {
        SqliteReader { view, log, state }
    }

    /// Positions of pending rows, ascending.
    fn pending_positions(
        &self,
        owner: &BareJid,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Found>, StoreError> {
        let index = &self.view.index;
        self.view.consistent(|floor| {
            let mut found = Vec::new();
            let id = id_of(index, owner)?;
            let mut last = after;
            while let Some(id) = id {
                let page = self.indexed_pending(id, last, limit.clamp(1, PAGE))?;
                last = page.last().copied().unwrap_or(last);
                let tail = lock(&self.view.shared.tail);
                let left = page
                    .iter()
                    .filter(|position| !tail.marks_cleared(**position, owner).0);
                found.extend(left.map(|position| Found {
                    position: *position,
                    pending: true,
                }));
                if page.len() < limit.clamp(1, PAGE) || found.len() >= limit {
                    break;
                }
            }
            let tail = lock(&self.view.shared.tail);
            if tail.base() > floor + 1 {
                return Ok(None);
            }
            if found.len() < limit {
                let from = after.max(floor).saturating_add(1);
                found.extend(
                    tail.rows_of(owner, from, |_, row, _| row.pending())
                        .into_iter()
                        .rev(),
                );
            }
            found.truncate(limit);
            Ok(Some(found))
        })
    }

    fn indexed_pending(
        &self,
        owner: i64,
        after: u64,
        limit: usize,
    ) -> Result<Vec<u64>, StoreError> {
        let index = &self.view.index;
        let sql = "SELECT position FROM pending WHERE owner = ? AND position > ? ORDER BY position LIMIT ?";
        let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let rows = statement.query_map((owner, after, limit as i64), |row| row.get::<_, i64>(0));
        let rows = rows
            .map_err(|e| index.error(e))?
            .map(|row| row.map(|position| position as u64));
        rows.collect::<rusqlite::Result<_>>()
            .map_err(|e| index.error(e))
    }

    /// Positions of archived rows that have these words, in the order of the query; and whether there may be more that were not looked
    /// at.
    fn text_positions(
        &self,
        query: &ArchiveQuery,
        words: &[String],
    ) -> Result<(Vec<Found>, bool), StoreError> {
        self.view.consistent(|floor| {
            let mut found = Vec::new();
            let mut cut = false;
            let indexed = self.within_times(query)?;
            if let (false, Some(query)) = (query.last, &indexed) {
                cut = self.indexed_text(query, words, &mut found)?;
            }
            let mut rows = {
                let tail = lock(&self.view.shared.tail);
                if tail.base() > floor + 1 {
                    return Ok(None);
                }
                tail.rows_of(&query.owner, floor + 1, |position, row, peer| {
                    let item = Item {
                        position,
                        time_ms: row.time_ms,
                    };
                    row.archived()
                        && row.has_text()
                        && query.peer.as_ref().is_none_or(|of| of == peer)
                        && wanted(query, &item)
                })
            };
            if !query.last {
                rows.reverse();
            }
            for row in rows {
                if cut || found.len() >= query.limit {
                    break;
                }
                if self.has_words(row.position, words)? {
                    found.push(row);
                }
            }
            if let (true, Some(query)) = (query.last && found.len() < query.limit, &indexed) {
                cut = self.indexed_text(query, words, &mut found)?;
            }
            Ok(Some((found, cut)))
        })
    }

    /// Whether a row that is not in the index yet has these words.
    fn has_words(&self, position: u64, words: &[String]) -> Result<bool, StoreError> {
        let has = log::with_message(&self.log, position, |message| {
            let text = message.text.as_ref()?.of(message.payload);
            let its = search::words(text, search::WORDS_MAX);
            Some(search::found(words, &its))
        })?;
        Ok(has.flatten() == Some(true))
    }

    /// Walks what the index has of these words, until `found` is long enough. True: or until enough was looked at.
    fn indexed_text(
        &self,
        query: &ArchiveQuery,
        words: &[String],
        found: &mut Vec<Found>,
    ) -> Result<bool, StoreError> {
        let index = &self.view.index;
        let Some(owner) = id_of(index, &query.owner)? else {
            return Ok(false);
        };
        let peer = match &query.peer {
            Some(peer) => match id_of(index, peer)? {
                Some(peer) => peer,
                None => return Ok(false),
            },
            None => 0,
        };
        let first = found.len();
        let mut talk = Talk::new(index, owner, peer);
        let mut looked_at = 0;
        let mut cut = false;
        let hits = Hits::new(owner, words, query.after, query.before, query.last);
        hits.walk(index, |position| {
            cut = looked_at >= TEXT_SCANNED_MAX;
            if cut || found.len() >= query.limit {
                return Ok(false);
            }
            looked_at += 1;
            let item = talk.item(position)?.filter(|item| wanted(query, item));
            let left = self.not_dropped(query, item.into_iter().collect());
            found.extend(left.into_iter().map(|position| Found {
                position,
                pending: false,
            }));
            Ok(true)
        })?;
        self.mark_pending(&query.owner, &mut found[first..])?;
        Ok(cut)
    }

    /// Positions of archived rows, ascending.
    fn archive_positions(&self, query: &ArchiveQuery) -> Result<Vec<Found>, StoreError> {
        self.view.consistent(|floor| {
            let mut found = Vec::new();
            let indexed = self.within_times(query)?;
            if let (false, Some(query)) = (query.last, &indexed) {
                self.indexed_archive(query, &mut found)?;
            }
            {
                let tail = lock(&self.view.shared.tail);
                if tail.base() > floor + 1 {
                    return Ok(None);
                }
                if found.len() < query.limit {
                    let mut rows = tail.rows_of(&query.owner, floor + 1, |position, row, peer| {
                        let item = Item {
                            position,
                            time_ms: row.time_ms,
                        };
                        row.archived()
                            && query.peer.as_ref().is_none_or(|of| of == peer)
                            && wanted(query, &item)
                    });
                    if query.last {
                        rows.truncate(query.limit);
                    }
                    rows.reverse();
                    found.extend(rows);
                }
            }
            if let (true, Some(query)) = (query.last && found.len() < query.limit, &indexed) {
                self.indexed_archive(query, &mut found)?;
            }
            found.truncate(query.limit);
            Ok(Some(found))
        })
    }

    /// The query as far as it concerns the index, within the positions where there are rows of the times it wants. `None`: there
    /// are none. Clocks jump, so positions do not follow times; but ranges of positions know theirs.
    fn within_times(&self, query: &ArchiveQuery) -> Result<Option<ArchiveQuery>, StoreError> {
        let mut query = query.clone();
        if query.start_ms.is_none() && query.end_ms.is_none() {
            return Ok(Some(query));
        }
        let clamp = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let start = clamp(query.start_ms.unwrap_or(0));
        let end = clamp(query.end_ms.unwrap_or(u64::MAX));
        let Some((first, last)) = index::range_of_times(&self.view.index, start, end)? else {
            return Ok(None);
        };
        query.after = query.after.max(first.checked_sub(1));
        query.before = Some(query.before.unwrap_or(u64::MAX).min(last.saturating_add(1)));
        Ok(Some(query))
    }

    /// Walks the blocks of one list, from the side the query asks for, until `found` is long enough.
    fn indexed_archive(
        &self,
        query: &ArchiveQuery,
        found: &mut Vec<Found>,
    ) -> Result<(), StoreError> {
        let index = &self.view.index;
        let Some(owner) = id_of(index, &query.owner)? else {
            return Ok(());
        };
        let peer = match &query.peer {
            Some(peer) => match id_of(index, peer)? {
                Some(peer) => peer,
                None => return Ok(()),
            },
            None => 0,
        };
        let mut block = if query.last {
            blocks::block_at(
                index,
                owner,
                peer,
                query
                    .before
                    .map_or(u64::MAX, |before| before.saturating_sub(1)),
            )?
        } else {
            let from = query.after.unwrap_or(0);
            match blocks::block_at(index, owner, peer, from)? {
                Some(block) => Some(block),
                None => blocks::block_after(index, owner, peer, from)?,
            }
        };
        let mut backwards = Vec::new();
        while let Some((first, bytes)) = block {
            let mut items = blocks::decode(first, &bytes).ok_or_else(|| blocks::damaged(index))?;
            items.retain(|item| wanted(query, item));
            let room = query.limit.saturating_sub(found.len() + backwards.len());
            let beyond = if query.last {
                query.after.is_some_and(|after| first <= after)
            } else {
                query.before.is_some_and(|before| first >= before)
            };
            if query.last {
                items.reverse();
            }
            let positions = self.not_dropped(query, items);
            let full = positions.len() >= room;
            let taken = positions.into_iter().take(room).map(|position| Found {
                position,
                pending: false,
            });
            if query.last {
                backwards.extend(taken)
            } else {
                found.extend(taken)
            }
            if full || beyond {
                break;
            }
            block = if query.last {
                if first == 0 {
                    None
                } else {
                    blocks::block_at(index, owner, peer, first - 1)?
                }
            } else {
                blocks::block_after(index, owner, peer, first)?
            };
        }
        backwards.reverse();
        found.splice(0..0, backwards);
        self.mark_pending(&query.owner, found)
    }

    fn not_dropped(&self, query: &ArchiveQuery, items: Vec<Item>) -> Vec<u64> {
        let tail = lock(&self.view.shared.tail);
        let positions = items.iter().map(|item| item.position);
        positions
            .filter(|position| !tail.marks_cleared(*position, &query.owner).1)
            .collect()
    }

    /// Finds out which of the rows found in the index are pending still.
    fn mark_pending(&self, owner: &BareJid, found: &mut [Found]) -> Result<(), StoreError> {
        for row in found.iter_mut().filter(|row| !row.pending) {
            if pending_row(&self.view.index, row.position)?.is_some() {
                row.pending = !lock(&self.view.shared.tail)
                    .marks_cleared(row.position, owner)
                    .0;
            }
        }
        Ok(())
    }

    /// Finds positions, then loads their rows. The log is read as of before the search, so that a row
    /// found is there even if it is acknowledged and deleted meanwhile; what is committed meanwhile
    /// counts as later than this call. The page holds at most `limit` rows, and as many as fit into `bytes_max`; one at least.
    fn rows(
        &self,
        owner: &BareJid,
        limit: usize,
        bytes_max: usize,
        find: impl FnOnce() -> Result<Vec<Found>, StoreError>,
    ) -> Result<PendingPage, StoreError> {
        self.log.execute("BEGIN")?;
        let rows = log::last_position(&self.log).and_then(|last| {
            let mut found = find()?;
            found.retain(|row| row.position <= last);
            self.load(owner, &found, limit, bytes_max)
        });
        self.log.rollback();
        rows
    }

    fn load(
        &self,
        owner: &BareJid,
        found: &[Found],
        limit: usize,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError> {
        let mut page = PendingPage {
            rows: Vec::with_capacity(found.len().min(limit)),
            complete: true,
        };
        let mut bytes = 0;
        for Found { position, pending } in found {
            let row = log::with_message(&self.log, *position, |message| {
                if message.owner != owner.as_str() {
                    return None;
                }
                let first = page.rows.is_empty();
                bytes += message.payload.len();
                if page.rows.len() >= limit || (bytes > bytes_max && !first) {
                    page.complete = false;
                    return None;
                }
                Some(StoredRow {
                    position: *position,
                    peer: BareJid::parse(message.peer).ok()?,
                    time_ms: message.time_ms,
                    outgoing: message.flags & OUTGOING != 0,
                    archive: message.flags & ARCHIVE != 0,
                    pending: *pending,
                    origin: message.origin,
                    payload: Bytes::copy_from_slice(message.payload),
                })
            })?;
            if !page.complete {
                break;
            }
            page.rows.extend(row.flatten());
        }
        Ok(page)
    }

    /// How many messages are pending, and what their rows take in the log.
    fn count_pending(&self, owner: &BareJid, data: &mut UserData) -> Result<(), StoreError> {
        let found = self.pending_positions(owner, 0, usize::MAX)?;
        data.pending = found.len() as u64;
        data.pending_bytes = 0;
        for row in found {
            // One acknowledged and deleted meanwhile takes nothing.
            data.pending_bytes += log::row_bytes(&self.log, row.position)?.unwrap_or(0);
        }
        Ok(())
    }

    /// The row at a position with its marks, if it has any left.
    fn find(&self, owner: &BareJid, position: u64) -> Result<Option<Found>, StoreError> {
        let index = &self.view.index;
        self.view.consistent(|floor| {
            let id = id_of(index, owner)?;
            let pending = pending_row(index, position)?.is_some_and(|(of, _)| Some(of) == id);
            let archived = match id {
                Some(id) => match blocks::block_at(index, id, 0, position)? {
                    Some((first, block)) => {
                        let items =
                            blocks::decode(first, &block).ok_or_else(|| blocks::damaged(index))?;
                        items.iter().any(|item| item.position == position)
                    }
                    None => false,
                },
                None => false,
            };
            let tail = lock(&self.view.shared.tail);
            if tail.base() > floor + 1 {
                return Ok(None);
            }
            if position > floor {
                let row = tail
                    .row(position)
                    .filter(|row| row.is_of(owner) && (row.pending() || row.archived()));
                return Ok(Some(row.map(|row| Found {
                    position,
                    pending: row.pending(),
                })));
            }
            let (acknowledged, dropped) = tail.marks_cleared(position, owner);
            let pending = pending && !acknowledged;
            let there = pending || (archived && !dropped);
            Ok(Some(there.then_some(Found { position, pending })))
        })
    }
}

/// The list of a talk (or of everything), looked into in order: which rows are in it, and their times.
struct Talk<'i> {
    index: &'i Db,
    owner: i64,
    peer: i64,
    block: Vec<Item>,
}

impl<'i> Talk<'i> {
    fn new(index: &'i Db, owner: i64, peer: i64) -> Self {
        Talk {
            index,
            owner,
            peer,
            block: Vec::new(),
        }
    }

    fn item(&mut self, position: u64) -> Result<Option<Item>, StoreError> {
        let ends = self.block.first().zip(self.block.last());
        let within = ends
            .is_some_and(|(first, last)| first.position <= position && position <= last.position);
        if !within {
            let block = blocks::block_at(self.index, self.owner, self.peer, position)?;
            self.block = match block {
                Some((first, bytes)) => {
                    blocks::decode(first, &bytes).ok_or_else(|| blocks::damaged(self.index))?
                }
                None => Vec::new(),
            };
        }
        let at = self
            .block
            .binary_search_by_key(&position, |item| item.position);
        Ok(at.ok().map(|at| self.block[at]))
    }
}

/// Whether a row lies within the bounds of a query.
fn wanted(query: &ArchiveQuery, item: &Item) -> bool {
    query.after.is_none_or(|after| item.position > after)
        && query.before.is_none_or(|before| item.position < before)
        && query.start_ms.is_none_or(|start| item.time_ms >= start)
        && query.end_ms.is_none_or(|end| item.time_ms <= end)
}

impl Reader for SqliteReader {
    fn user(&mut self, owner: &BareJid) -> Result<Option<UserData>, StoreError> {
        let Some(mut data) = self.state.user(owner, true)? else {
            return Ok(None);
        };
        self.count_pending(owner, &mut data)?;
        Ok(Some(data))
    }

    fn user_data(&mut self, owner: &BareJid) -> Result<UserData, StoreError> {
        let mut data = self.state.user(owner, false)?.unwrap_or_default();
        self.count_pending(owner, &mut data)?;
        Ok(data)
    }

    fn pending_page(
        &mut self,
        owner: &BareJid,
        after: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError> {
        // One more is looked for, to know whether there are more.
        let one_more = limit.saturating_add(1);
        let find = || self.pending_positions(owner, after, one_more);
        self.rows(owner, limit, bytes_max, find)
    }

    fn archive_page(
        &mut self,
        query: &ArchiveQuery,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError> {
        // One more is looked for, to know whether there are more.
        let one_more = ArchiveQuery {
            limit: query.limit.saturating_add(1),
            ..query.clone()
        };
        let mut cut = false;
        let find = || {
            if let Some(text) = &one_more.text {
                let Some(words) = search::question(text) else {
                    return Ok(Vec::new());
                };
                let (found, more) = self.text_positions(&one_more, &words)?;
                cut = more;
                return Ok(found);
            }
            let mut found = self.archive_positions(&one_more)?;
            if query.last {
                // What does not fit is left out from the far end.
                found.reverse();
            }
            Ok(found)
        };
        let mut page = self.rows(&query.owner, query.limit, bytes_max, find)?;
        page.complete &= !cut;
        if query.last {
            page.rows.reverse();
        }
        Ok(page)
    }

    fn archive_owners(
        &mut self,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StoreError> {
        let index = &self.view.index;
        let sql = "SELECT jid FROM jid WHERE jid > ? AND EXISTS
                   (SELECT 1 FROM archive WHERE owner = jid.id AND peer = 0) ORDER BY jid LIMIT ?";
        let mut statement = index.conn.prepare_cached(sql).map_err(|e| index.error(e))?;
        let after = after.map_or("", BareJid::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = statement.query_map((after, limit), |row| row.get::<_, String>(0));
        let owners = rows
            .map_err(|e| index.error(e))?
            .map(|jid| jid.map(|jid| BareJid::parse(&jid).ok()))
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(|e| index.error(e))?;
        Ok(owners.into_iter().flatten().collect())
    }

    fn row(&mut self, owner: &BareJid, position: u64) -> Result<Option<StoredRow>, StoreError> {
        let find = || {
            self.find(owner, position)
                .map(|found| found.into_iter().collect())
        };
        Ok(self.rows(owner, 1, usize::MAX, find)?.rows.pop())
    }

    fn account(&mut self, jid: &BareJid) -> Result<Option<Account>, StoreError> {
        self.state.account(jid)
    }

    fn accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError> {
        self.state.accounts(domain, after, limit, false)
    }

    fn disabled_accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError> {
        self.state.accounts(domain, after, limit, true)
    }

    fn account_counts(&mut self, domain: &str) -> Result<AccountCounts, StoreError> {
        self.state.account_counts(domain)
    }

    fn activity(&mut self, owner: &BareJid) -> Result<Activity, StoreError> {
        self.state.activity(owner)
    }

    fn site_value(&mut self, key: &str) -> Result<Option<Bytes>, StoreError> {
        self.state.site_value(key)
    }

    fn vcard(&mut self, owner: &BareJid) -> Result<Option<Bytes>, StoreError> {
        self.state.vcard(owner)
    }

    fn private(
        &mut self,
        owner: &BareJid,
        name: &str,
        ns: &str,
    ) -> Result<Option<Bytes>, StoreError> {
        self.state.private(owner, name, ns)
    }

    fn tokens(
        &mut self,
        owner: &BareJid,
        client: Option<ClientId>,
    ) -> Result<Vec<LoginToken>, StoreError> {
        self.state.tokens(owner, client)
    }

    fn revocations(&self) -> u64 {
        self.view.shared.revoked.load(Ordering::Acquire)
    }

    fn pubsub_nodes(&mut self, owner: &BareJid) -> Result<Vec<PubsubNode>, StoreError> {
        self.state.pubsub_nodes(owner)
    }

    fn pubsub_items(&mut self, query: &PubsubQuery) -> Result<Option<PubsubPage>, StoreError> {
        self.state.pubsub_items(query)
    }

    fn overlay(&mut self, jid: &BareJid) -> Result<Overlay, StoreError> {
        self.state.overlay(jid)
    }

    fn overlay_disabled(&mut self) -> Result<Vec<BareJid>, StoreError> {
        self.state.overlay_disabled()
    }

    fn counts(&mut self) -> Result<Counts, StoreError> {
        let index = &self.view.index;
        let (pending, last_position) = self.view.consistent(|floor| {
            let indexed = index.meta_number(PENDING_COUNT)?;
            let (held, end, cleared) = {
                let tail = lock(&self.view.shared.tail);
                if tail.base() != floor + 1 {
                    return Ok(None);
                }
                (
                    tail.pending_count(),
                    tail.end(),
                    tail.cleared_positions().cloned().collect::<Vec<_>>(),
                )
            };
            let mut gone = 0;
            for (position, owner) in cleared {
                if let Some((id, _)) = pending_row(index, position)? {
                    gone += u64::from(id_of(index, &owner)? == Some(id));
                }
            }
            Ok(Some(((indexed + held).saturating_sub(gone), end - 1)))
        })?;
        Ok(Counts {
            accounts: self.state.account_count()?,
            pending,
            last_position,
        })
    }
}
