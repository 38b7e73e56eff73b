//! What goes into the store and what comes out: plain values, no behaviour.
//!
//! Positions are the row's number in commit order: 1, 2, 3, ... never reused, also after the row
//! is gone. They leave the server only through [`PositionKey`](crate::PositionKey).
//! Times are milliseconds since 1970-01-01T00:00:00Z.

use crate::tokens::TokenChange;
use bytes::Bytes;
use std::sync::Arc;
use xmpp::jid::{BareJid, Jid};
use xmpp::scram::ScramKeys;

use crate::StoreError;

/// Names one store. A restored backup gets a new one (DESIGN section 3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct StoreId(pub [u8; 16]);

/// Where a stored write came from; a second write of the same origin for the same owner is
/// answered as the first was (DESIGN section 3, "Replay is recognised").
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The session it came in on (epoch and number, a name never used again).
    pub session: u64,
    /// Number of the stanza in that session.
    pub stanza: u64,
    /// Hash of the stanza's bytes. Identity is (session, stanza, owner); a second write whose hash
    /// differs is not a replay: it is stored as new and a warning logged.
    pub hash: u64,
}

/// One message for one owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Append {
    /// Whose inbox and archive the row belongs to.
    pub owner: BareJid,
    /// The other side of the conversation.
    pub peer: BareJid,
    /// See [`Origin`]. None: never a replay.
    pub origin: Option<Origin>,
    /// Belongs to the owner's archive: kept after acknowledgement.
    pub archive: bool,
    /// Deliverable and not yet delivered; cleared by [`Write::Ack`].
    pub pending: bool,
    /// When the server took the message.
    pub time_ms: u64,
    /// Sent by the owner (true) or to the owner (false).
    pub outgoing: bool,
    /// The stanza as it goes out. Opaque to the store.
    pub payload: Bytes,
    /// What full-text search finds an archived message by.
    pub text: Option<Text>,
}

/// The text of a message, for full-text search: whoever writes it has parsed it, the store does not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Text {
    /// This part of the payload, as it stands there.
    Part {
        /// Bytes before it.
        start: u32,
        /// Bytes of it.
        len: u32,
    },
    /// It does not stand in the payload as it is to be read.
    Apart(String),
}

impl Text {
    /// Reads it. A part that is not there, or is no text, is none.
    pub fn of<'a>(&'a self, payload: &'a [u8]) -> &'a str {
        match self {
            Text::Part { start, len } => {
                let (start, len) = (*start as usize, *len as usize);
                let part = start
                    .checked_add(len)
                    .and_then(|end| payload.get(start..end));
                part.and_then(|p| std::str::from_utf8(p).ok()).unwrap_or("")
            }
            Text::Apart(text) => text,
        }
    }
}

/// One write. Each is atomic; a batch is durable as a whole when `commit` returns.
#[derive(Clone, PartialEq, Debug)]
pub enum Write {
    /// Store a message. A row with neither mark keeps only its origin. -> `Stored` or `Replayed`.
    Append(Append),
    /// Clear the pending mark; a row neither archived nor pending goes away. Unknown positions are
    /// ignored. The positions must belong to `owner`. -> `Done`
    Ack {
        /// Whose rows.
        owner: BareJid,
        /// In any order.
        positions: Vec<u64>,
    },
    /// Clear both marks (account deletion, retention): the rows go away. -> `Done`
    Drop {
        /// Whose rows.
        owner: BareJid,
        /// In any order.
        positions: Vec<u64>,
    },
    /// The Settled of these stanzas has been acknowledged: their origins may be forgotten. Held in
    /// memory only (forgetting late is harmless), so it costs no disk write. -> `Done`
    ForgetOrigins {
        /// The session.
        session: u64,
        /// Stanzas up to and including this one.
        up_to_stanza: u64,
    },
    /// The session is gone for good: all its origins may be forgotten. -> `Done`
    ForgetSession {
        /// The session.
        session: u64,
    },
    /// After a start: forget the origins of every session not listed here (the listed ones are
    /// those found in the session store). -> `Done`
    RetainSessions {
        /// Sessions that live on.
        sessions: Vec<u64>,
    },
    /// Change a roster: at most one item put, at most one removed, and the owner's roster version
    /// set (the put item gets it too). -> `Done`
    Roster {
        /// Whose roster.
        owner: BareJid,
        /// The owner's roster version after this change. Must grow.
        version: u64,
        /// Insert or replace this item (its `version` field is replaced by `version`).
        put: Option<RosterItem>,
        /// Remove the item of this contact.
        remove: Option<BareJid>,
    },
    /// Keep (Some) or drop (None) the subscription request of `from`, to be shown to `owner` at every
    /// log-in until answered (RFC 6121 §3.1.3). -> `Done`
    SubscriptionRequest {
        /// Who is asked.
        owner: BareJid,
        /// Who asks.
        from: BareJid,
        /// The presence stanza, whole.
        stanza: Option<Bytes>,
    },
    /// Change the list of addresses whom the owner has blocked (XEP-0191). Those it has already, or has not, are no mistake.
    /// -> `Done`
    Blocklist {
        /// Whose list.
        owner: BareJid,
        /// Blocked from now on.
        block: Vec<Jid>,
        /// Not any more.
        unblock: Vec<Jid>,
    },
    /// Where the owner's clients want to be told of messages while they are away (XEP-0357). -> `Done`
    Push {
        /// Whose.
        owner: BareJid,
        /// Add, or replace the one with the same service and node.
        put: Option<PushService>,
        /// Remove those of these services and nodes.
        remove: Vec<(Jid, String)>,
    },
    /// Set or remove the vCard (XEP-0054). -> `Done`
    VCard {
        /// Whose.
        owner: BareJid,
        /// The `<vCard/>` element, None to remove.
        xml: Option<Bytes>,
    },
    /// Set or remove what an account wants kept in its archive (XEP-0441). -> `Done`
    ArchivePrefs {
        /// Whose.
        owner: BareJid,
        /// Opaque to the store, None to remove.
        prefs: Option<Bytes>,
    },
    /// Set or remove elements of the private XML storage (XEP-0049): all or none. -> `Done`, or `Failed(TooMuch)` if the owner's
    /// elements would have more than `bytes_max` bytes together, and more than before.
    Private {
        /// Whose.
        owner: BareJid,
        /// Each name and namespace once.
        elements: Vec<PrivateElement>,
        /// What the elements of the owner may have together, with their names.
        bytes_max: u64,
    },
    /// Change the nodes of a publish-subscribe service (XEP-0060), in order: all changes or none. -> `Done`; `Failed(NotFound)` if
    /// a change needs a node or an item that is not there; `Failed(TooMuch)` if the owner's items would have more than `bytes_max`
    /// bytes together, and more than before.
    Pubsub {
        /// Whose nodes: of an account, or of a service.
        owner: BareJid,
        /// One after the other.
        changes: Vec<PubsubChange>,
        /// What the items of the owner may have together, with their names.
        bytes_max: u64,
    },
    /// Change which tokens log in to an account (XEP-0484). -> `Done`, or `Failed(Outdated)` if what a new one was granted for has
    /// been taken away meanwhile.
    Tokens {
        /// Whose.
        owner: BareJid,
        /// How.
        change: TokenChange,
    },
    /// Create or replace an account; if there was one, its tokens go. -> `Done`, or `Failed(Exists | NotFound)` by mode.
    AccountPut {
        /// The account, whole.
        account: Account,
        /// Whether it must be new.
        mode: PutMode,
    },
    /// Replace all password keys of an account: it has another password, and the tokens given for the old one go, and those that are
    /// being given for it. -> `Done` or `Failed(NotFound)`.
    AccountKeys {
        /// Whose.
        jid: BareJid,
        /// One per hash.
        keys: Vec<ScramKeys>,
    },
    /// Add password keys of other hashes beside those of an account, which are of the same password; keys of a hash that it has stay. No
    /// token goes. -> `Done`, `Failed(NotFound)`, or `Failed(Outdated)` if the account has not, or not any more, the keys that those go
    /// beside.
    AccountKeysAdd {
        /// Whose.
        jid: BareJid,
        /// Keys of the account by which it is known that the new ones are of its password.
        beside: ScramKeys,
        /// One per hash.
        keys: Vec<ScramKeys>,
    },
    /// Disable or enable log-in. Who is disabled gets no token that was granted before. -> `Done` or `Failed(NotFound)`.
    AccountDisabled {
        /// Whose.
        jid: BareJid,
        /// True: log-in refused.
        disabled: bool,
    },
    /// Of somebody whose account is in a directory elsewhere: log-in to this service is refused, or not. -> `Done`
    OverlayDisabled {
        /// Whose.
        jid: BareJid,
        /// True: log-in refused.
        disabled: bool,
    },
    /// Of somebody whose account is in a directory elsewhere: keys made of the password when it was last right. None at all: it
    /// is forgotten that there were any. -> `Done`
    OverlayKeys {
        /// Whose.
        jid: BareJid,
        /// One per hash.
        keys: Vec<ScramKeys>,
        /// When they were made.
        made_ms: u64,
    },
    /// Remove an account with its roster, requests, blocking list, push services, vCard, private XML, tokens, wishes about its archive,
    /// nodes, activity and what is kept beside a directory elsewhere;
    /// also of somebody who has only some of these. Message rows are dropped by the caller, in slices, with [`Write::Drop`].
    /// -> `Done`, or `Failed(NotFound)` if there was nothing.
    AccountDelete {
        /// Whose.
        jid: BareJid,
    },
    /// Somebody has come, gone, or been told something. A batch whose other writes need no disk does not wait for one because of
    /// this: it survives the process, and maybe not the machine. -> `Done`
    Activity {
        /// Who.
        owner: BareJid,
        /// What is new; what is 0 stays as it was.
        facts: Activity,
    },
    /// Set a value that is the whole site's. -> `Done`
    SiteValue {
        /// Its name.
        key: &'static str,
        /// Opaque to the store.
        value: Bytes,
    },
}

/// Whether [`Write::AccountPut`] creates, replaces, or either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PutMode {
    /// The account must not exist.
    Create,
    /// The account must exist.
    Replace,
    /// Whichever.
    CreateOrReplace,
}

/// What became of one write, at the same index as the write.
#[derive(Clone, PartialEq, Debug)]
pub enum Written {
    /// A message is on disk.
    Stored {
        /// Its position.
        position: u64,
    },
    /// This origin was stored before for this owner; nothing was written.
    Replayed {
        /// Position of the first write.
        position: u64,
        /// Whether the row is still pending.
        pending: bool,
    },
    /// Done and durable.
    Done,
    /// This write took no effect; the others of the batch are not concerned.
    Failed(WriteError),
}

/// Why a single write failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WriteError {
    /// `PutMode::Create` and the account is there.
    #[error("the account exists already")]
    Exists,
    /// The account is not there.
    #[error("no such account")]
    NotFound,
    /// The owner would have more of it than may be.
    #[error("more than one account may keep")]
    TooMuch,
    /// What it was granted for has been taken away, or changed, since.
    #[error("what it was granted for has changed")]
    Outdated,
    /// The file this write goes to could not be written (the others of the batch could).
    #[error(transparent)]
    Store(Arc<StoreError>),
}

/// One element of the private XML storage: found again by its name and namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrivateElement {
    /// Its local name.
    pub name: String,
    /// Its namespace.
    pub ns: String,
    /// The element, self-contained; None to remove.
    pub xml: Option<Bytes>,
}

impl PrivateElement {
    /// What it counts of an account's share: what is stored of it.
    pub fn bytes(&self) -> u64 {
        let xml = |xml: &Bytes| (self.name.len() + self.ns.len() + xml.len()) as u64;
        self.xml.as_ref().map_or(0, xml)
    }
}

/// One change of the nodes of a publish-subscribe service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PubsubChange {
    /// Make a node, or change what is known of it. Its items and members stay.
    Put {
        /// The node.
        node: String,
        /// Its configuration, opaque to the store.
        meta: Bytes,
    },
    /// Remove a node, with its items and members. It must be there.
    Delete {
        /// The node.
        node: String,
    },
    /// Set or remove what somebody is to a node, which must be there.
    Member {
        /// The node.
        node: String,
        /// An address, as the service compares it.
        jid: String,
        /// Opaque to the store; None to remove.
        state: Option<Bytes>,
    },
    /// Publish an item to a node, which must be there: it is the newest from now on, and the oldest beyond `items_max` go. An item
    /// of the same id is replaced.
    Publish {
        /// The node.
        node: String,
        /// The item.
        item: PubsubItem,
        /// Items that the node may have.
        items_max: u64,
    },
    /// Remove an item, which must be there.
    Retract {
        /// The node.
        node: String,
        /// The item's id.
        id: String,
    },
    /// Remove all but the newest items of a node, which must be there.
    Trim {
        /// The node.
        node: String,
        /// How many stay.
        items_max: u64,
    },
}

/// An item of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PubsubItem {
    /// Unique in its node.
    pub id: String,
    /// Who has published it.
    pub publisher: String,
    /// When.
    pub time_ms: u64,
    /// What: opaque to the store.
    pub payload: Bytes,
}

impl PubsubItem {
    /// What it counts of its owner's share: what is stored of it.
    pub fn bytes(&self) -> u64 {
        (self.id.len() + self.publisher.len() + self.payload.len()) as u64
    }
}

/// A node of a publish-subscribe service, without its items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PubsubNode {
    /// Its id.
    pub node: String,
    /// Its configuration.
    pub meta: Bytes,
    /// Address and state of each member, ordered by address.
    pub members: Vec<(String, Bytes)>,
}

/// Which items of a node to read: keyset paging by ids (XEP-0059). The newest come first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PubsubQuery {
    /// Whose.
    pub owner: BareJid,
    /// Of which node.
    pub node: String,
    /// Which.
    pub range: PubsubRange,
    /// At most so many.
    pub limit: usize,
    /// And no more than have so many bytes together; one at least, if there is one.
    pub bytes_max: usize,
}

/// Which items.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PubsubRange {
    /// The newest.
    Newest,
    /// The oldest.
    Oldest,
    /// Those that follow this one: the next older.
    After(String),
    /// Those before this one: the next newer.
    Before(String),
    /// From the so many'th on; the newest is 0.
    Index(u64),
    /// These, as far as there are; neither counted nor cut by `limit`.
    Ids(Vec<String>),
}

/// A page of items.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PubsubPage {
    /// The newest first.
    pub items: Vec<PubsubItem>,
    /// How many items are newer than the first of these.
    pub index: u64,
    /// How many the node has.
    pub count: u64,
}

/// A service that tells a client of messages while it is away (XEP-0357).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushService {
    /// Where notifications are published.
    pub service: Jid,
    /// The node there; empty if the client has named none.
    pub node: String,
    /// Resource of the client that has asked for it.
    pub resource: String,
    /// The form to be sent with each (`publish-options`), self-contained.
    pub options: Option<Bytes>,
}

/// A roster subscription state (RFC 6121 §2.1.2.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Subscription {
    /// Neither way.
    #[default]
    None,
    /// The owner sees the contact's presence.
    To,
    /// The contact sees the owner's presence.
    From,
    /// Both.
    Both,
}

/// One roster item (RFC 6121 §2.1.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RosterItem {
    /// The contact.
    pub jid: BareJid,
    /// The name the owner gave it.
    pub name: Option<String>,
    /// State of the subscription.
    pub subscription: Subscription,
    /// `ask='subscribe'`: the owner has asked and has no answer yet.
    pub ask: bool,
    /// Pre-approved (RFC 6121 §3.4).
    pub approved: bool,
    /// Groups, in the order the client gave them.
    pub groups: Vec<String>,
    /// Roster version at which the item last changed.
    pub version: u64,
}

/// Who knows the owner of this roster from their own: it sees them, is seen, has asked, or has approved what they may ask.
pub fn subscribed(roster: &[RosterItem]) -> Vec<BareJid> {
    let known = roster
        .iter()
        .filter(|i| i.subscription != Subscription::None || i.ask || i.approved);
    known.map(|item| item.jid.clone()).collect()
}

/// A subscription request waiting for the owner's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionRequest {
    /// Who asks.
    pub from: BareJid,
    /// The presence stanza.
    pub stanza: Bytes,
}

/// What an entity needs to be loaded: one batched read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct UserData {
    /// Log-in refused by the administrator.
    pub disabled: bool,
    /// When the account was made.
    pub created_ms: u64,
    /// Current roster version (0: never changed).
    pub roster_version: u64,
    /// Roster, ordered by contact.
    pub roster: Vec<RosterItem>,
    /// Unanswered subscription requests, ordered by contact.
    pub requests: Vec<SubscriptionRequest>,
    /// Addresses the owner has blocked, in order.
    pub blocked: Vec<Jid>,
    /// Where clients want to be told of messages, ordered by service and node.
    pub push: Vec<PushService>,
    /// Messages pending.
    pub pending: u64,
    /// Bytes of them: of their stanzas, and maybe of what an engine stores beside each.
    pub pending_bytes: u64,
    /// When they were here.
    pub activity: Activity,
    /// What they want kept in their archive, as they have said it; None: they have not.
    pub archive_prefs: Option<Bytes>,
}

/// What is remembered of somebody's comings and goings, whoever's directory the account is in. 0: not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Activity {
    /// When a session of theirs last began.
    pub login_ms: u64,
    /// When one last ended.
    pub logout_ms: u64,
    /// When they were first available here.
    pub greeted_ms: u64,
    /// Number of the last message of the day that they were told.
    pub motd: u64,
}

/// A page of rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PendingPage {
    /// Ascending by position.
    pub rows: Vec<StoredRow>,
    /// There are no more behind them (of the last ones of an archive: before them).
    pub complete: bool,
}

/// A stored message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredRow {
    /// Its position.
    pub position: u64,
    /// The other side of the conversation.
    pub peer: BareJid,
    /// When the server took it.
    pub time_ms: u64,
    /// Sent by the owner.
    pub outgoing: bool,
    /// In the owner's archive.
    pub archive: bool,
    /// Not delivered yet.
    pub pending: bool,
    /// Where it came from.
    pub origin: Option<Origin>,
    /// The stanza.
    pub payload: Bytes,
}

/// Which archived rows to read: keyset paging, no counts (XEP-0313, RSM).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveQuery {
    /// Whose archive.
    pub owner: BareJid,
    /// Only messages with this peer.
    pub peer: Option<BareJid>,
    /// Only messages whose text has each of these words, or words that begin with them; one without any word finds nothing. Of a word
    /// that the owner uses all the time no more than some 100,000 messages are looked at in one query: then the page is not
    /// complete, and may be empty.
    pub text: Option<String>,
    /// Only messages at or after this time.
    pub start_ms: Option<u64>,
    /// Only messages at or before this time.
    pub end_ms: Option<u64>,
    /// Only positions greater than this.
    pub after: Option<u64>,
    /// Only positions less than this.
    pub before: Option<u64>,
    /// Take the last `limit` rows of what matches instead of the first. Rows come in ascending
    /// order either way.
    pub last: bool,
    /// At most this many rows.
    pub limit: usize,
}

impl ArchiveQuery {
    /// The first `limit` rows of everything `owner` has.
    pub fn new(owner: BareJid, limit: usize) -> Self {
        ArchiveQuery {
            owner,
            peer: None,
            text: None,
            start_ms: None,
            end_ms: None,
            after: None,
            before: None,
            last: false,
            limit,
        }
    }
}

/// A local account with its password keys.
#[derive(Clone, PartialEq, Debug)]
pub struct Account {
    /// Localpart and domain. The localpart is not empty.
    pub jid: BareJid,
    /// At most one per hash.
    pub keys: Vec<ScramKeys>,
    /// Log-in refused.
    pub disabled: bool,
    /// When it was made.
    pub created_ms: u64,
}

impl Account {
    /// Adds keys of hashes that it has none of ([`Write::AccountKeysAdd`]). False: it has not the keys that these go beside.
    pub(crate) fn add_keys(&mut self, beside: &ScramKeys, keys: &[ScramKeys]) -> bool {
        if !self.keys.contains(beside) {
            return false;
        }
        for new in keys {
            if self.keys.iter().all(|k| k.hash != new.hash) {
                self.keys.push(new.clone());
            }
        }
        true
    }
}

/// What is kept here of somebody whose account is in a directory elsewhere.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Overlay {
    /// Log-in refused.
    pub disabled: bool,
    /// Keys made of the password when it was last right; at most one per hash.
    pub keys: Vec<ScramKeys>,
    /// When they were made; 0: there are none.
    pub made_ms: u64,
}

/// An account as a list shows it: no keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountEntry {
    /// Localpart and domain.
    pub jid: BareJid,
    /// Log-in refused.
    pub disabled: bool,
    /// When it was made.
    pub created_ms: u64,
}

/// Accounts of one domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AccountCounts {
    /// All of them.
    pub accounts: u64,
    /// Those whose log-in is refused.
    pub disabled: u64,
}

/// Cheap totals for `imadmin status`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Accounts.
    pub accounts: u64,
    /// Messages pending, all owners.
    pub pending: u64,
    /// Greatest position committed: messages and bookkeeping rows ever written.
    pub last_position: u64,
}
