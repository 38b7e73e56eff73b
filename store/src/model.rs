//! The store in memory, for the simulation: deterministic, no threads, no randomness, no clock.
//!
//! Everything `commit` returned for is kept by [`Model::kill`]; the old writer, readers and session
//! store stop working, as those of a dead process would. [`Model::snapshot`] is an independent deep
//! copy. Passes the same conformance tests as the SQLite engine.
//!
//! Never: slower rules or laxer ones than the engine on disk.

mod pubsub;

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use xmpp::jid::{BareJid, Jid};
use xmpp::sasl::ClientId;

use crate::StoreError;
use crate::position::PositionKey;
use crate::search;
use crate::tokens::{LoginToken, Revocations};
use crate::traits::{Engine, Reader, SessionStore, Writer};
use crate::types::{
    Account, AccountCounts, AccountEntry, Activity, Append, ArchiveQuery, Counts, Overlay,
    PendingPage, PrivateElement, PubsubNode, PubsubPage, PubsubQuery, PushService, PutMode,
    RosterItem, StoreId, StoredRow, SubscriptionRequest, UserData, Write, WriteError, Written,
};

/// A store in memory. Clones of the handle share the store; [`snapshot`](Model::snapshot) does not.
#[derive(Clone, Debug)]
pub struct Model {
    shared: Arc<Mutex<Shared>>,
}

/// What survives, and which process incarnation may touch it.
#[derive(Clone, Debug)]
struct Shared {
    /// Grows with each kill: handles of an older one are dead.
    incarnation: u64,
    writer_given: bool,
    sessions_given: bool,
    /// Commits fail as on a full disk.
    disk_full: bool,
    state: State,
    sessions: BTreeMap<u64, Bytes>,
}

/// (session, stanza, owner) of a live origin.
type OriginKey = (u64, u64, BareJid);

#[derive(Clone, Debug, Default)]
struct State {
    store_id: StoreId,
    secret: [u8; 16],
    epoch: u32,
    last_position: u64,
    /// Rows archived or pending, by owner, by position.
    rows: BTreeMap<BareJid, BTreeMap<u64, Append>>,
    /// Origin -> position of its row, hash.
    origins: BTreeMap<OriginKey, (u64, u64)>,
    /// By (domain, localpart).
    accounts: BTreeMap<(String, String), Account>,
    rosters: BTreeMap<BareJid, Roster>,
    requests: BTreeMap<BareJid, BTreeMap<BareJid, Bytes>>,
    blocked: BTreeMap<BareJid, BTreeSet<Jid>>,
    /// By owner, by service and node.
    push: BTreeMap<BareJid, BTreeMap<(String, String), PushService>>,
    vcards: BTreeMap<BareJid, Bytes>,
    /// By owner, by namespace and name.
    private: BTreeMap<BareJid, BTreeMap<(String, String), PrivateElement>>,
    archive_prefs: BTreeMap<BareJid, Bytes>,
    tokens: BTreeMap<BareJid, Vec<LoginToken>>,
    revocations: Revocations,
    pubsub: pubsub::Pubsub,
    overlays: BTreeMap<BareJid, Overlay>,
    activity: BTreeMap<BareJid, Activity>,
    site_values: BTreeMap<&'static str, Bytes>,
}

#[derive(Clone, Debug, Default)]
struct Roster {
    version: u64,
    items: BTreeMap<BareJid, RosterItem>,
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    /// An empty store. All stores made so have the same id and key: give them others with
    /// [`with_identity`](Model::with_identity) where that matters.
    pub fn new() -> Self {
        Self::with_identity(StoreId([1; 16]), [2; 16])
    }

    /// An empty store with this id and position secret.
    pub fn with_identity(store_id: StoreId, secret: [u8; 16]) -> Self {
        let state = State {
            store_id,
            secret,
            ..State::default()
        };
        let shared = Shared {
            incarnation: 0,
            writer_given: false,
            sessions_given: false,
            disk_full: false,
            state,
            sessions: BTreeMap::new(),
        };
        Model {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// The process dies: what was committed and what was put in the session store is kept; every
    /// writer, reader and session store given out so far fails from now on; new ones may be had.
    pub fn kill(&self) {
        let mut shared = self.lock();
        shared.incarnation += 1;
        shared.writer_given = false;
        shared.sessions_given = false;
    }

    /// The machine reboots: [`kill`](Model::kill), and the session store is discarded.
    pub fn reboot(&self) {
        self.kill();
        self.lock().sessions.clear();
    }

    /// From now on commits fail with [`StoreError::DiskFull`] (true) or work (false).
    pub fn set_disk_full(&self, full: bool) {
        self.lock().disk_full = full;
    }

    /// An independent copy of what is committed, as after a kill.
    pub fn snapshot(&self) -> Model {
        let copy = Model {
            shared: Arc::new(Mutex::new(self.lock().clone())),
        };
        copy.kill();
        copy
    }

    /// How many origins are held: they must not grow without bound.
    pub fn origin_count(&self) -> usize {
        self.lock().state.origins.len()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn handle(&self) -> Handle {
        Handle {
            model: self.clone(),
            incarnation: self.lock().incarnation,
        }
    }
}

fn path() -> PathBuf {
    PathBuf::from("(model)")
}

impl Engine for Model {
    fn writer(&self) -> Result<Box<dyn Writer>, StoreError> {
        if std::mem::replace(&mut self.lock().writer_given, true) {
            return Err(StoreError::InUse { path: path() });
        }
        Ok(Box::new(ModelWriter(self.handle())))
    }

    fn reader(&self) -> Result<Box<dyn Reader>, StoreError> {
        Ok(Box::new(ModelReader(self.handle())))
    }

    fn session_store(&self) -> Result<Box<dyn SessionStore>, StoreError> {
        if std::mem::replace(&mut self.lock().sessions_given, true) {
            return Err(StoreError::InUse { path: path() });
        }
        Ok(Box::new(ModelSessions(self.handle())))
    }

    fn store_id(&self) -> StoreId {
        self.lock().state.store_id
    }

    fn next_epoch(&self) -> Result<u32, StoreError> {
        let mut shared = self.lock();
        shared.state.epoch += 1;
        Ok(shared.state.epoch)
    }

    fn position_key(&self) -> PositionKey {
        PositionKey::new(self.lock().state.secret)
    }

    fn login_secret(&self) -> [u8; 32] {
        let secret = self.lock().state.secret;
        std::array::from_fn(|i| secret[i % secret.len()] ^ (i as u8))
    }
}

/// A handle of one incarnation.
struct Handle {
    model: Model,
    incarnation: u64,
}

impl Handle {
    fn lock(&self) -> Result<MutexGuard<'_, Shared>, StoreError> {
        let shared = self.model.lock();
        if shared.incarnation != self.incarnation {
            return Err(StoreError::Engine {
                path: path(),
                reason: "this process has been killed".into(),
            });
        }
        Ok(shared)
    }
}

struct ModelWriter(Handle);

impl Writer for ModelWriter {
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Written>, StoreError> {
        let mut shared = self.0.lock()?;
        if shared.disk_full {
            return Err(StoreError::DiskFull { path: path() });
        }
        Ok(writes
            .iter()
            .map(|write| shared.state.apply(write))
            .collect())
    }

    fn maintain(&mut self) -> Result<bool, StoreError> {
        self.0.lock().map(|_| false)
    }
}

fn account_key(jid: &BareJid) -> (String, String) {
    (
        jid.domainpart().to_owned(),
        jid.localpart().unwrap_or_default().to_owned(),
    )
}

impl State {
    fn apply(&mut self, write: &Write) -> Written {
        match write {
            Write::Append(append) => return self.append(append),
            Write::Ack { owner, positions } => self.clear(owner, positions, false),
            Write::Drop { owner, positions } => self.clear(owner, positions, true),
            Write::ForgetOrigins {
                session,
                up_to_stanza,
            } => {
                self.origins
                    .retain(|key, _| key.0 != *session || key.1 > *up_to_stanza);
            }
            Write::ForgetSession { session } => self.origins.retain(|key, _| key.0 != *session),
            Write::RetainSessions { sessions } => {
                let live: BTreeSet<u64> = sessions.iter().copied().collect();
                self.origins.retain(|key, _| live.contains(&key.0));
            }
            Write::Roster {
                owner,
                version,
                put,
                remove,
            } => {
                let roster = self.rosters.entry(owner.clone()).or_default();
                roster.version = *version;
                if let Some(contact) = remove {
                    roster.items.remove(contact);
                }
                if let Some(item) = put {
                    roster.items.insert(
                        item.jid.clone(),
                        RosterItem {
                            version: *version,
                            ..item.clone()
                        },
                    );
                }
            }
            Write::SubscriptionRequest {
                owner,
                from,
                stanza,
            } => {
                let requests = self.requests.entry(owner.clone()).or_default();
                match stanza {
                    Some(stanza) => requests.insert(from.clone(), stanza.clone()),
                    None => requests.remove(from),
                };
            }
            Write::Blocklist {
                owner,
                block,
                unblock,
            } => {
                let blocked = self.blocked.entry(owner.clone()).or_default();
                blocked.retain(|jid| !unblock.contains(jid));
                blocked.extend(block.iter().cloned());
            }
            Write::Push { owner, put, remove } => {
                let push = self.push.entry(owner.clone()).or_default();
                let key =
                    |service: &Jid, node: &String| (service.as_str().to_owned(), node.clone());
                for (service, node) in remove {
                    push.remove(&key(service, node));
                }
                if let Some(put) = put {
                    push.insert(key(&put.service, &put.node), put.clone());
                }
            }
            Write::VCard { owner, xml } => {
                match xml {
                    Some(xml) => self.vcards.insert(owner.clone(), xml.clone()),
                    None => self.vcards.remove(owner),
                };
            }
            Write::ArchivePrefs { owner, prefs } => {
                match prefs {
                    Some(prefs) => self.archive_prefs.insert(owner.clone(), prefs.clone()),
                    None => self.archive_prefs.remove(owner),
                };
            }
            Write::Private {
                owner,
                elements,
                bytes_max,
            } => return self.put_private(owner, elements, *bytes_max),
            Write::Tokens { owner, change } => {
                if self.revocations.take(owner, change) {
                    return Written::Failed(WriteError::Outdated);
                }
                let tokens = self.tokens.entry(owner.clone()).or_default();
                crate::tokens::apply(tokens, change);
            }
            Write::Pubsub {
                owner,
                changes,
                bytes_max,
            } => return self.pubsub.change(owner, changes, *bytes_max),
            Write::AccountPut { .. }
            | Write::AccountKeys { .. }
            | Write::AccountKeysAdd { .. }
            | Write::AccountDisabled { .. }
            | Write::AccountDelete { .. } => return self.apply_account(write),
            Write::OverlayDisabled { jid, disabled } => {
                if *disabled {
                    self.revocations.note(jid);
                }
                self.overlays.entry(jid.clone()).or_default().disabled = *disabled;
            }
            Write::OverlayKeys { jid, keys, made_ms } => {
                let overlay = self.overlays.entry(jid.clone()).or_default();
                overlay.keys.clone_from(keys);
                overlay.made_ms = if keys.is_empty() { 0 } else { *made_ms };
            }
            Write::Activity { owner, facts } => {
                let known = self.activity.entry(owner.clone()).or_default();
                for (new, old) in [
                    (facts.login_ms, &mut known.login_ms),
                    (facts.logout_ms, &mut known.logout_ms),
                    (facts.greeted_ms, &mut known.greeted_ms),
                    (facts.motd, &mut known.motd),
                ] {
                    if new != 0 {
                        *old = new;
                    }
                }
            }
            Write::SiteValue { key, value } => {
                self.site_values.insert(key, value.clone());
            }
        }
        Written::Done
    }

    fn put_private(
        &mut self,
        owner: &BareJid,
        elements: &[PrivateElement],
        bytes_max: u64,
    ) -> Written {
        let before = self.private.get(owner).cloned().unwrap_or_default();
        let mut after = before.clone();
        for element in elements {
            let key = (element.ns.clone(), element.name.clone());
            match element.xml {
                Some(_) => after.insert(key, element.clone()),
                None => after.remove(&key),
            };
        }
        let bytes = |of: &BTreeMap<_, PrivateElement>| -> u64 {
            of.values().map(PrivateElement::bytes).sum()
        };
        if bytes(&after) > bytes_max && bytes(&after) > bytes(&before) {
            return Written::Failed(WriteError::TooMuch);
        }
        self.private.insert(owner.clone(), after);
        Written::Done
    }

    fn append(&mut self, append: &Append) -> Written {
        if let Some(origin) = append.origin {
            let key = (origin.session, origin.stanza, append.owner.clone());
            if let Some(&(position, hash)) = self.origins.get(&key)
                && hash == origin.hash
            {
                let row = self
                    .rows
                    .get(&append.owner)
                    .and_then(|rows| rows.get(&position));
                return Written::Replayed {
                    position,
                    pending: row.is_some_and(|row| row.pending),
                };
            }
            self.origins
                .insert(key, (self.last_position + 1, origin.hash));
        }
        self.last_position += 1;
        if append.archive || append.pending {
            self.rows
                .entry(append.owner.clone())
                .or_default()
                .insert(self.last_position, append.clone());
        }
        Written::Stored {
            position: self.last_position,
        }
    }

    fn clear(&mut self, owner: &BareJid, positions: &[u64], archive_too: bool) {
        let Some(rows) = self.rows.get_mut(owner) else {
            return;
        };
        for position in positions {
            let Some(row) = rows.get_mut(position) else {
                continue;
            };
            row.pending = false;
            if archive_too || !row.archive {
                rows.remove(position);
            }
        }
        if rows.is_empty() {
            self.rows.remove(owner);
        }
    }

    /// Accounts in the order (domain, localpart).
    fn entries(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
        wanted: impl Fn(&Account) -> bool,
    ) -> Vec<AccountEntry> {
        let after = after.map(account_key);
        let accounts = self.accounts.iter().filter(|(key, account)| {
            domain.is_none_or(|domain| domain == key.0)
                && after.as_ref().is_none_or(|after| *key > after)
                && wanted(account)
        });
        let entry = |account: &Account| AccountEntry {
            jid: account.jid.clone(),
            disabled: account.disabled,
            created_ms: account.created_ms,
        };
        accounts
            .take(limit)
            .map(|(_, account)| entry(account))
            .collect()
    }

    fn apply_account(&mut self, write: &Write) -> Written {
        let jid = match write {
            Write::AccountPut { account, .. } => &account.jid,
            Write::AccountKeys { jid, .. }
            | Write::AccountKeysAdd { jid, .. }
            | Write::AccountDisabled { jid, .. } => jid,
            Write::AccountDelete { jid } => {
                self.revocations.note(jid);
                let there = [
                    self.accounts.remove(&account_key(jid)).is_some(),
                    self.rosters.remove(jid).is_some(),
                    self.requests.remove(jid).is_some_and(|r| !r.is_empty()),
                    self.blocked.remove(jid).is_some_and(|b| !b.is_empty()),
                    self.push.remove(jid).is_some_and(|p| !p.is_empty()),
                    self.vcards.remove(jid).is_some(),
                    self.activity.remove(jid).is_some(),
                    self.private.remove(jid).is_some_and(|p| !p.is_empty()),
                    self.archive_prefs.remove(jid).is_some(),
                    self.tokens.remove(jid).is_some_and(|t| !t.is_empty()),
                    self.pubsub.remove(jid),
                    self.overlays
                        .remove(jid)
                        .is_some_and(|o| o != Overlay::default()),
                ];
                return match there.contains(&true) {
                    true => Written::Done,
                    false => Written::Failed(WriteError::NotFound),
                };
            }
            _ => return Written::Done,
        };
        let key = account_key(jid);
        let exists = self.accounts.contains_key(&key);
        match write {
            Write::AccountPut {
                mode: PutMode::Create,
                ..
            } if exists => return Written::Failed(WriteError::Exists),
            Write::AccountPut {
                mode: PutMode::Create | PutMode::CreateOrReplace,
                ..
            } => {}
            _ if !exists => return Written::Failed(WriteError::NotFound),
            _ => {}
        }
        match write {
            Write::AccountDisabled { disabled: true, .. } => self.revocations.note(jid),
            Write::AccountDisabled { .. }
            | Write::AccountKeysAdd { .. }
            | Write::AccountPut {
                mode: PutMode::Create,
                ..
            } => {}
            _ => {
                self.revocations.note(jid);
                self.tokens.remove(jid);
            }
        }
        match write {
            Write::AccountPut { account, .. } => {
                self.accounts.insert(key, account.clone());
            }
            Write::AccountKeys { keys, .. } => {
                if let Some(account) = self.accounts.get_mut(&key) {
                    account.keys = keys.clone();
                }
            }
            Write::AccountKeysAdd { beside, keys, .. } => {
                if let Some(account) = self.accounts.get_mut(&key)
                    && !account.add_keys(beside, keys)
                {
                    return Written::Failed(WriteError::Outdated);
                }
            }
            Write::AccountDisabled { disabled, .. } => {
                if let Some(account) = self.accounts.get_mut(&key) {
                    account.disabled = *disabled;
                }
            }
            _ => {}
        }
        Written::Done
    }
}

struct ModelReader(Handle);

fn stored(position: u64, row: &Append) -> StoredRow {
    StoredRow {
        position,
        peer: row.peer.clone(),
        time_ms: row.time_ms,
        outgoing: row.outgoing,
        archive: row.archive,
        pending: row.pending,
        origin: row.origin,
        payload: row.payload.clone(),
    }
}

impl Reader for ModelReader {
    fn user(&mut self, owner: &BareJid) -> Result<Option<UserData>, StoreError> {
        if !self
            .0
            .lock()?
            .state
            .accounts
            .contains_key(&account_key(owner))
        {
            return Ok(None);
        }
        self.user_data(owner).map(Some)
    }

    fn user_data(&mut self, owner: &BareJid) -> Result<UserData, StoreError> {
        let shared = self.0.lock()?;
        let state = &shared.state;
        let account = state.accounts.get(&account_key(owner));
        let roster = state.rosters.get(owner);
        let requests = state.requests.get(owner).into_iter().flatten();
        let rows = state.rows.get(owner);
        let pending = || {
            let rows = rows.into_iter().flat_map(|rows| rows.values());
            rows.filter(|row| row.pending)
        };
        Ok(UserData {
            disabled: account.is_some_and(|account| account.disabled),
            created_ms: account.map_or(0, |account| account.created_ms),
            roster_version: roster.map_or(0, |roster| roster.version),
            roster: roster
                .map(|roster| roster.items.values().cloned().collect())
                .unwrap_or_default(),
            requests: requests
                .map(|(from, stanza)| SubscriptionRequest {
                    from: from.clone(),
                    stanza: stanza.clone(),
                })
                .collect(),
            blocked: state
                .blocked
                .get(owner)
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
            push: state
                .push
                .get(owner)
                .into_iter()
                .flat_map(|p| p.values())
                .cloned()
                .collect(),
            pending: pending().count() as u64,
            pending_bytes: pending().map(|row| row.payload.len() as u64).sum(),
            activity: state.activity.get(owner).copied().unwrap_or_default(),
            archive_prefs: state.archive_prefs.get(owner).cloned(),
        })
    }

    fn pending_page(
        &mut self,
        owner: &BareJid,
        after: u64,
        limit: usize,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError> {
        let shared = self.0.lock()?;
        let mut page = PendingPage {
            rows: Vec::new(),
            complete: true,
        };
        let later = shared.state.rows.get(owner);
        let later = later
            .into_iter()
            .flat_map(|rows| rows.range(after.saturating_add(1)..))
            .filter(|(_, row)| row.pending);
        let mut bytes = 0;
        for (position, row) in later {
            bytes += row.payload.len();
            if page.rows.len() >= limit || (bytes > bytes_max && !page.rows.is_empty()) {
                page.complete = false;
                break;
            }
            page.rows.push(stored(*position, row));
        }
        Ok(page)
    }

    fn archive_page(
        &mut self,
        query: &ArchiveQuery,
        bytes_max: usize,
    ) -> Result<PendingPage, StoreError> {
        let shared = self.0.lock()?;
        let wanted_words = query.text.as_deref().map(search::question);
        let has_words = |row: &Append| match &wanted_words {
            None => true,
            Some(None) => false,
            Some(Some(wanted)) => row.text.as_ref().is_some_and(|text| {
                let words = search::words(text.of(&row.payload), search::WORDS_MAX);
                search::found(wanted, &words)
            }),
        };
        let wanted = |(position, row): &(&u64, &Append)| {
            row.archive
                && has_words(row)
                && query.peer.as_ref().is_none_or(|peer| *peer == row.peer)
                && query.start_ms.is_none_or(|start| row.time_ms >= start)
                && query.end_ms.is_none_or(|end| row.time_ms <= end)
                && query.after.is_none_or(|after| **position > after)
                && query.before.is_none_or(|before| **position < before)
        };
        let rows = shared.state.rows.get(&query.owner);
        let mut found: Vec<_> = rows.into_iter().flatten().filter(wanted).collect();
        if query.last {
            found.reverse();
        }
        let mut page = PendingPage {
            rows: Vec::new(),
            complete: true,
        };
        let mut bytes = 0;
        for (position, row) in found {
            bytes += row.payload.len();
            if page.rows.len() >= query.limit || (bytes > bytes_max && !page.rows.is_empty()) {
                page.complete = false;
                break;
            }
            page.rows.push(stored(*position, row));
        }
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
        let shared = self.0.lock()?;
        let owners = shared.state.rows.iter().filter(|(owner, rows)| {
            after.is_none_or(|after| *owner > after) && rows.values().any(|row| row.archive)
        });
        let mut owners: Vec<BareJid> = owners.map(|(owner, _)| owner.clone()).collect();
        owners.sort();
        owners.truncate(limit);
        Ok(owners)
    }

    fn row(&mut self, owner: &BareJid, position: u64) -> Result<Option<StoredRow>, StoreError> {
        let shared = self.0.lock()?;
        let row = shared
            .state
            .rows
            .get(owner)
            .and_then(|rows| rows.get(&position));
        Ok(row.map(|row| stored(position, row)))
    }

    fn account(&mut self, jid: &BareJid) -> Result<Option<Account>, StoreError> {
        Ok(self
            .0
            .lock()?
            .state
            .accounts
            .get(&account_key(jid))
            .cloned())
    }

    fn accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError> {
        let all = |_: &Account| true;
        Ok(self.0.lock()?.state.entries(domain, after, limit, all))
    }

    fn disabled_accounts(
        &mut self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
    ) -> Result<Vec<AccountEntry>, StoreError> {
        let disabled = |account: &Account| account.disabled;
        Ok(self.0.lock()?.state.entries(domain, after, limit, disabled))
    }

    fn account_counts(&mut self, domain: &str) -> Result<AccountCounts, StoreError> {
        let shared = self.0.lock()?;
        let of_domain = || {
            let accounts = shared.state.accounts.iter();
            accounts.filter(|(key, _)| key.0 == domain)
        };
        Ok(AccountCounts {
            accounts: of_domain().count() as u64,
            disabled: of_domain().filter(|(_, account)| account.disabled).count() as u64,
        })
    }

    fn activity(&mut self, owner: &BareJid) -> Result<Activity, StoreError> {
        let shared = self.0.lock()?;
        Ok(shared
            .state
            .activity
            .get(owner)
            .copied()
            .unwrap_or_default())
    }

    fn site_value(&mut self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.lock()?.state.site_values.get(key).cloned())
    }

    fn vcard(&mut self, owner: &BareJid) -> Result<Option<Bytes>, StoreError> {
        Ok(self.0.lock()?.state.vcards.get(owner).cloned())
    }

    fn private(
        &mut self,
        owner: &BareJid,
        name: &str,
        ns: &str,
    ) -> Result<Option<Bytes>, StoreError> {
        let shared = self.0.lock()?;
        let elements = shared.state.private.get(owner);
        let element = elements.and_then(|p| p.get(&(ns.to_owned(), name.to_owned())));
        Ok(element.and_then(|e| e.xml.clone()))
    }

    fn tokens(
        &mut self,
        owner: &BareJid,
        client: Option<ClientId>,
    ) -> Result<Vec<LoginToken>, StoreError> {
        let shared = self.0.lock()?;
        let mut tokens = shared.state.tokens.get(owner).cloned().unwrap_or_default();
        tokens.retain(|t| client.is_none_or(|client| t.client == client));
        Ok(tokens)
    }

    fn revocations(&self) -> u64 {
        // Of a dead process: it grants nothing any more.
        self.0.lock().map_or(0, |s| s.state.revocations.count())
    }

    fn pubsub_nodes(&mut self, owner: &BareJid) -> Result<Vec<PubsubNode>, StoreError> {
        Ok(self.0.lock()?.state.pubsub.nodes(owner))
    }

    fn pubsub_items(&mut self, query: &PubsubQuery) -> Result<Option<PubsubPage>, StoreError> {
        Ok(self.0.lock()?.state.pubsub.items(query))
    }

    fn overlay(&mut self, jid: &BareJid) -> Result<Overlay, StoreError> {
        let shared = self.0.lock()?;
        Ok(shared.state.overlays.get(jid).cloned().unwrap_or_default())
    }

    fn overlay_disabled(&mut self) -> Result<Vec<BareJid>, StoreError> {
        let shared = self.0.lock()?;
        let disabled = shared.state.overlays.iter().filter(|(_, o)| o.disabled);
        let mut disabled: Vec<BareJid> = disabled.map(|(jid, _)| jid.clone()).collect();
        disabled.sort();
        Ok(disabled)
    }

    fn counts(&mut self) -> Result<Counts, StoreError> {
        let shared = self.0.lock()?;
        let rows = shared.state.rows.values().flat_map(BTreeMap::values);
        Ok(Counts {
            accounts: shared.state.accounts.len() as u64,
            pending: rows.filter(|row| row.pending).count() as u64,
            last_position: shared.state.last_position,
        })
    }
}

struct ModelSessions(Handle);

impl SessionStore for ModelSessions {
    fn put(&mut self, records: &[(u64, Option<Bytes>)]) -> Result<(), StoreError> {
        let mut shared = self.0.lock()?;
        for (session, record) in records {
            match record {
                Some(record) => shared.sessions.insert(*session, record.clone()),
                None => shared.sessions.remove(session),
            };
        }
        Ok(())
    }

    fn load(&mut self) -> Result<Vec<(u64, Bytes)>, StoreError> {
        Ok(self
            .0
            .lock()?
            .sessions
            .iter()
            .map(|(session, record)| (*session, record.clone()))
            .collect())
    }
}
