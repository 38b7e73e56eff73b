//! The one trait per role that engines implement.

use bytes::Bytes;
use xmpp::jid::BareJid;
use xmpp::sasl::ClientId;

use crate::StoreError;
use crate::position::PositionKey;
use crate::tokens::LoginToken;
use crate::types::{
    Account, AccountCounts, AccountEntry, Activity, ArchiveQuery, Counts, Overlay, PendingPage,
    PubsubItem, PubsubNode, PubsubPage, PubsubQuery, PubsubRange, StoreId, StoredRow, UserData,
    Write, Written,
};

/// An open store. Shared by the threads that need a reader.
pub trait Engine: Send + Sync {
    /// The one writer, given out once; a second call is refused with [`StoreError::InUse`].
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError>;
    /// A reader for one thread.
    fn reader(&self) -> Result<Box<dyn Reader>, StoreError>;
    /// The session store, given out once.
    fn session_store(&self) -> Result<Box<dyn SessionStore>, StoreError>;
    /// Names this store; new after a restore.
    fn store_id(&self) -> StoreId;
    /// The next boot number: durable before it returns, never repeats. It is part of
    /// the names of sessions. Call before `writer`.
    fn next_epoch(&self) -> Result<u32, StoreError>;
    /// Turns positions into what clients see.
    fn position_key(&self) -> PositionKey;
    /// Random, made with the store: from it come the password keys shown for users who do not exist
    /// (`xmpp::scram::FakeKeys`), the same after each start.
    fn login_secret(&self) -> [u8; 32];
}

/// Makes writes durable. Owned by one thread.
pub trait Writer: Send {
    /// One durable transaction: when this returns `Ok`, every write not marked `Failed` is on disk.
    /// `Err` means that *no* write of the batch took effect; the writer stays usable, and a later
    /// call may succeed (the disk has room again). The result has one entry per write, in order.
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Written>, StoreError>;

    /// Housekeeping in one bounded slice (a few milliseconds): drops rows that are neither archived
    /// nor pending. `commit` does its share of this; call this when the queue has been empty for a
    /// moment. Returns true while there is more to do at once.
    fn maintain(&mut self) -> Result<bool, StoreError>;
}

/// Reads committed state. Owned by one thread; every call sees everything whose `commit` returned
/// before the call.
pub trait Reader: Send {
    /// Everything needed to load a user, in one batched read. None: no such local account.
    fn user(&mut self, owner: &BareJid) -> Result<Option<UserData>, StoreError>;
    /// The same for somebody whose account is elsewhere (LDAP): what the store has, maybe nothing.
    fn user_data(&mut self, owner: &BareJid) -> Result<UserData, StoreError>;
    /// Pending rows of an owner with a position greater than `after`, ascending: at most `limit`, and no more than have
    /// `bytes_max` bytes of stanzas together; one at least, if there is one.
    fn pending_page(
        &mut self,
        owner: &BareJid,
        after: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError>;
    /// The same, however long the stanzas are.
    fn pending(
        &mut self,
        owner: &BareJid,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredRow>, StoreError> {
        Ok(self.pending_page(owner, after, limit, usize::MAX)?.rows)
    }
    /// A page of an archive: as many rows as the query wants, and no more than have `bytes_max` bytes of stanzas together; one at
    /// least, if there is one. If the last ones are asked for, the oldest of them are left out. It takes as long however many
    /// rows there are.
    fn archive_page(
        &mut self,
        query: &ArchiveQuery,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError>;
    /// The same, however long the stanzas are.
    fn archive(&mut self, query: &ArchiveQuery) -> Result<Vec<StoredRow>, StoreError> {
        Ok(self.archive_page(query, usize::MAX)?.rows)
    }
    /// Positions of some rows of an owner: of those that wait, and when there are none, of archived ones; `limit` at most. None: the
    /// owner has none.
    fn some_rows(&mut self, owner: &BareJid, limit: usize) -> Result<Vec<u64>, StoreError> {
        let mut rows = self.pending(owner, 0, limit)?;
        if rows.is_empty() {
            rows = self.archive(&ArchiveQuery::new(owner.clone(), limit))?;
        }
        Ok(rows.into_iter().map(|row| row.position).collect())
    }
    /// Owners of archived rows that the index knows (all but those whose first is quite new), in an order, after `after`.
    fn archive_owners(
        &mut self,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<BareJid>, StoreError>;
    /// One row by position, if it is this owner's and still archived or pending.
    fn row(&mut self, owner: &BareJid, position: u64) -> Result<Option<StoredRow>, StoreError>;
    /// Several, in the order wanted: as far as their stanzas have no more than `bytes_max` bytes together, one at least; `None` for
    /// one that is not there.
    fn rows_at(
        &mut self,
        owner: &BareJid,
        positions: &[u64],
        bytes_max: usize,
    ) -> Result<Vec<(u64, Option<StoredRow>)>, StoreError> {
        let mut rows = Vec::with_capacity(positions.len());
        let mut bytes = 0;
        for &position in positions {
            let row = self.row(owner, position)?;
            bytes += row.as_ref().map_or(0, |r| r.payload.len());
            if bytes > bytes_max && !rows.is_empty() {
                break;
            }
            rows.push((position, row));
        }
        Ok(rows)
    }
    /// An account with its keys.
    fn account(&mut self, jid: &BareJid) -> Result<Option<Account>, StoreError>;
    /// Accounts in the order (domain, localpart) after `after`, at most `limit`; of one domain if given.
    fn accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError>;
    /// The same of those whose log-in is refused.
    fn disabled_accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError>;
    /// How many there are. Looks at each.
    fn account_counts(&mut self, domain: &str) -> Result<AccountCounts, StoreError>;
    /// When somebody was here, whoever's directory the account is in.
    fn activity(&mut self, owner: &BareJid) -> Result<Activity, StoreError>;
    /// A value that is the whole site's.
    fn site_value(&mut self, key: &str) -> Result<Option<Bytes>, StoreError>;
    /// The vCard.
    fn vcard(&mut self, owner: &BareJid) -> Result<Option<Bytes>, StoreError>;
    /// The tokens that log in to an account, in no order; those of one client, if given.
    fn tokens(
        &mut self,
        owner: &BareJid,
        client: Option<ClientId>,
    ) -> Result<Vec<LoginToken>, StoreError>;
    /// How many times a password, tokens, an account or the right to log in were taken away from somebody since the store was opened.
    /// What is granted to somebody from here on by what is read from here on is not outdated by those.
    fn revocations(&self) -> u64;
    /// An element of the private XML storage, by its name and namespace.
    fn private(
        &mut self,
        owner: &BareJid,
        name: &str,
        ns: &str,
    ) -> Result<Option<Bytes>, StoreError>;
    /// All nodes of a publish-subscribe service, in order, without their items.
    fn pubsub_nodes(&mut self, owner: &BareJid) -> Result<Vec<PubsubNode>, StoreError>;
    /// Items of a node. None: the item that the page should follow, or precede, is not there.
    fn pubsub_items(&mut self, query: &PubsubQuery) -> Result<Option<PubsubPage>, StoreError>;
    /// The newest item of each of these nodes that has one.
    fn pubsub_last(
        &mut self,
        owner: &BareJid,
        nodes: &[String],
    ) -> Result<Vec<(String, PubsubItem)>, StoreError> {
        let mut last = Vec::new();
        for node in nodes {
            let query = PubsubQuery {
                owner: owner.clone(),
                node: node.clone(),
                range: PubsubRange::Newest,
                limit: 1,
                bytes_max: 0,
            };
            let page = self.pubsub_items(&query)?;
            let item = page.and_then(|page| page.items.into_iter().next());
            last.extend(item.map(|item| (node.clone(), item)));
        }
        Ok(last)
    }
    /// What is kept of somebody whose account is elsewhere; of most people nothing.
    fn overlay(&mut self, jid: &BareJid) -> Result<Overlay, StoreError>;
    /// Everybody whose account is elsewhere and whose log-in is refused, in order.
    fn overlay_disabled(&mut self) -> Result<Vec<BareJid>, StoreError>;
    /// Cheap totals.
    fn counts(&mut self) -> Result<Counts, StoreError>;
}

/// What sessions need to go on after `kill -9` (DESIGN section 4). Not synced: a record counts once
/// the kernel has it. Discarded after a reboot of the machine.
pub trait SessionStore: Send {
    /// Set (Some) or delete (None) records; the last of the same session in one call wins. When this
    /// returns `Ok` they survive the death of the process. After `Err` nothing is known about these
    /// records: put them again.
    fn put(&mut self, records: &[(u64, Option<Bytes>)]) -> Result<(), StoreError>;
    /// Every record, in ascending order of session.
    fn load(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError>;
}
