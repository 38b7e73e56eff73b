//! A user entity: what a shard knows of one account while it has sessions, or something to do.
//!
//! Owns: which sessions the account has, who holds which pending message, the roster while it is in use, and the
//! addresses the account's presence goes to.
//! Never: exists in two places; is loaded by presence or probes.

use crate::archive::prefs::Prefs;
use crate::event::{DirectoryPhoto, Routed, Subscription, Token};
use crate::roster::Roster;
use std::collections::{BTreeMap, VecDeque};
use xmpp::jid::{BareJid, Jid};

/// One session a pending message has gone, or must go, to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// Its slot.
    pub slot: u32,
    /// It has been sent; otherwise it is owed and the session's flood will send it.
    pub sent: bool,
    /// Its mux has taken it.
    pub taken: bool,
}

/// Where a pending message is.
#[derive(Debug, Default)]
pub struct Assignment {
    /// Sessions that hold it unacknowledged.
    pub holders: Vec<Holder>,
    /// Its bytes, if known, until they are no more among those pending.
    pub bytes: u64,
    /// A session has acknowledged it.
    pub acked: bool,
    /// Sessions that have.
    pub had: Vec<u32>,
    /// The write that clears the mark is under way: nobody may be sent it again.
    pub clearing: bool,
    /// It was sent by the account: nobody is owed it but the sessions it was copied to.
    pub copy: bool,
    /// The mark is cleared on disk; kept while a page that was read before may still bring the message.
    pub cleared: bool,
}

impl Assignment {
    /// The mark may be cleared: acknowledged once, and every other session it went to is safe (DESIGN idea 5).
    pub fn may_clear(&self) -> bool {
        self.acked && !self.clearing && self.holders.iter().all(|h| h.sent && h.taken)
    }
}

/// Something that waits for the user to be loaded.
#[derive(Debug)]
pub enum Queued {
    /// A message, IQ or directed presence from elsewhere.
    Stanza(Box<Routed>),
    /// Subscription presence from elsewhere.
    Subscription(Box<Subscription>),
    /// Presence of somebody else.
    Fan(std::sync::Arc<crate::event::PresenceFan>),
    /// What somebody has published.
    Event(
        std::sync::Arc<crate::event::EventFan>,
        crate::event::EventTarget,
    ),
    /// What the account itself has published: who hears of it is not known.
    Notice(Box<crate::pubsub::event::Notice>),
    /// The last items of nodes, for a session of it.
    SendLast(u32, u32, std::sync::Arc<crate::caps::Interests>),
    /// A probe, for a restored user whose audience is not known.
    Probe(Jid),
    /// A session's own element: the session is paused until it is handled.
    Element {
        /// Whose.
        slot: u32,
        /// And generation.
        generation: u32,
        /// Its number.
        number: u64,
        /// The element.
        element: Box<xmpp::element::Element>,
    },
    /// A message that one of its sessions had sent, which has ended meanwhile; and whether its other sessions want copies.
    Sent(Box<Routed>, bool),
    /// Presence that a restart must say again: the session in this slot (its current presence).
    Rebroadcast(u32, u32, xmpp::jid::FullJid),
    /// Presence that a restart must say again: this full JID is gone.
    RebroadcastGone(xmpp::jid::FullJid),
    /// A session has ended while the audience was unknown.
    Unavailable(Box<Gone>),
}

/// What must be said of a session that has ended.
#[derive(Debug)]
pub struct Gone {
    /// Its address.
    pub jid: xmpp::jid::FullJid,
    /// The stanza up to `to`.
    pub prefix: bytes::Bytes,
    /// And behind it.
    pub suffix: bytes::Bytes,
    /// It says that the session is available.
    pub available: bool,
}

impl Queued {
    /// Bytes of the stanza.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Stanza(r) | Self::Sent(r, _) => r.bytes.len(),
            Self::Subscription(s) => s.bytes.len(),
            _ => 0,
        }
    }

    /// Who waits for it to be settled.
    pub fn token(&self) -> Option<Token> {
        match self {
            Self::Stanza(r) | Self::Sent(r, _) => r.token,
            Self::Subscription(s) => s.token,
            _ => None,
        }
    }
}

/// What an account wants kept in its archive.
#[derive(Debug, Default)]
pub enum ArchivePrefs {
    /// That has not been read.
    #[default]
    Unknown,
    /// What its domain keeps.
    OfDomain,
    /// This.
    Own(Box<Prefs>),
}

/// What is known of the picture that an account's directory has: it is theirs as long as they have published none.
#[derive(Debug, Default)]
pub struct PhotoAnswer {
    /// There may be one.
    pub may_be: bool,
    /// The directory is being asked.
    pub asked: bool,
    /// What the directory has said last; `None` inside: there is none. `None`: it has said nothing yet.
    pub said: Option<Option<Box<DirectoryPhoto>>>,
}

/// A load under way.
#[derive(Debug)]
pub struct Loading {
    /// Since when (mono ms).
    pub since_ms: u64,
    /// Bytes of the stanzas that wait.
    pub bytes: usize,
    /// What waits.
    pub queue: VecDeque<Queued>,
    /// Changes of whom it has blocked that have reached the disk meanwhile: what is read may be older.
    pub blocking: Vec<crate::iq::blocking::Change>,
}

/// See the module.
#[derive(Debug)]
pub struct User {
    /// Slots of its sessions.
    pub sessions: Vec<u32>,
    /// Slots of sessions that have ended while they held messages, and whose mux has not said its last word; or that have
    /// acknowledged something that is not on disk yet.
    pub closing: Vec<u32>,
    /// The roster and pending-in requests, while in use.
    pub roster: Option<Box<Roster>>,
    /// The account's presence goes to these. `None`: not known (nobody has been available since the start).
    pub audience: Option<Box<[BareJid]>>,
    /// Whom the account has blocked.
    pub blocked: crate::blocking::Blocklist,
    /// The same without changes that are on their way to the disk: what to go back to when it refuses one.
    pub listed: crate::blocking::Blocklist,
    /// Of these, those who have not been told yet that the account has gone: that they are blocked is not on disk.
    pub hiding: Vec<Jid>,
    /// That has been read, and what push services there are.
    pub knows_blocked: bool,
    /// Services that are told of messages while clients are away.
    pub push: Option<Box<crate::push::Push>>,
    /// A load under way.
    pub loading: Option<Box<Loading>>,
    /// Pending messages that some session holds, or whose clearing is under way.
    pub assigned: BTreeMap<u64, Assignment>,
    /// Positions acknowledged since the last flush.
    pub acks: Vec<u64>,
    /// Number of the last write for this account: what follows waits behind it.
    pub last_write: u64,
    /// Highest position committed for this account that this shard knows.
    pub last_position: u64,
    /// Messages for it whose write is under way.
    pub storing: usize,
    /// A flood has met one of them: it was read before this shard knew that it is on disk.
    pub flood_waits: bool,
    /// Pending messages, as far as known.
    pub pending: u64,
    /// And their bytes.
    pub pending_bytes: u64,
    /// For certain: nothing was when the account was loaded, and nothing has been since.
    pub nothing_pending: bool,
    /// Last use of the roster or the entity (mono ms).
    pub used_ms: u64,
    /// Hash of the avatar, for presence (XEP-0398); `None` inside: there is none. `None`: not known.
    pub photo: Option<Option<Box<str>>>,
    /// The picture that its directory has.
    pub directory_photo: PhotoAnswer,
    /// The account is known to exist.
    pub exists: bool,
    /// They have been available here before. `None`: that has not been read.
    pub greeted: Option<bool>,
    /// Number of the last message of the day that they were told, as far as known.
    pub motd: u64,
    /// What they want kept in their archive.
    pub archive_prefs: ArchivePrefs,
    /// The vCard check or other reads hold it.
    pub dirty: bool,
}

impl User {
    /// An account of which nothing is known yet.
    pub fn new(now_ms: u64) -> Self {
        Self {
            sessions: Vec::new(),
            closing: Vec::new(),
            roster: None,
            audience: None,
            blocked: Default::default(),
            listed: Default::default(),
            hiding: Vec::new(),
            knows_blocked: false,
            push: None,
            loading: None,
            assigned: BTreeMap::new(),
            acks: Vec::new(),
            last_write: 0,
            last_position: 0,
            storing: 0,
            flood_waits: false,
            pending: 0,
            pending_bytes: 0,
            nothing_pending: false,
            used_ms: now_ms,
            photo: None,
            directory_photo: PhotoAnswer::default(),
            exists: false,
            greeted: None,
            motd: 0,
            archive_prefs: ArchivePrefs::Unknown,
            dirty: false,
        }
    }

    /// A message of this length becomes pending.
    pub fn add_pending(&mut self, len: usize) {
        self.pending += 1;
        self.pending_bytes += len as u64;
        self.nothing_pending = false;
    }

    /// So many messages with so many bytes are pending no more.
    pub fn take_pending(&mut self, count: usize, bytes: u64) {
        self.pending = self.pending.saturating_sub(count as u64);
        self.pending_bytes = match self.pending {
            // What was not known of each must not add up.
            0 => 0,
            _ => self.pending_bytes.saturating_sub(bytes),
        };
    }

    /// Presence for it is to be heard, now or in its turn. One whose sessions have gone hears it while earlier presence waits: a session
    /// that comes meanwhile would get that, and never learn that it is over.
    pub fn hears(&self, durable: u64) -> bool {
        !self.sessions.is_empty() || self.loading.is_some() || self.last_write > durable
    }

    /// Its sessions, and those that have ended but are not done with.
    pub fn slots(&self) -> Vec<u32> {
        [&self.sessions[..], &self.closing[..]].concat()
    }

    /// Nothing keeps it in memory.
    pub fn idle(&self) -> bool {
        self.sessions.is_empty()
            && self.closing.is_empty()
            && self.loading.is_none()
            && self.assigned.is_empty()
            && self.acks.is_empty()
            && self.push.as_ref().is_none_or(|p| p.is_quiet())
    }
}
