//! What a session is once a resource is bound: its address, its presence, how far it has taken what is pending.
//!
//! Never: decides anything; that is the shard's.

use super::SessionId;
use crate::event::Routed;
use crate::settings::Settings;
use bytes::Bytes;
use proto::frame::NoteKey;
use xmpp::jid::{BareJid, FullJid};
use xmpp::sasl::ClientId;

/// How far the taking of pending messages has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Not a taker: unavailable, or negative priority.
    Off,
    /// Must read the store; may not yet, because other sessions of the account have to be resumed first, or the output window is full.
    Wanted,
    /// A page is being read.
    Reading,
    /// Everything stored has been sent; new messages go out as they are committed.
    Live,
}

/// What a session is once a resource is bound.
#[derive(Debug)]
pub struct Bound {
    /// Its name.
    pub id: SessionId,
    /// Its address.
    pub jid: FullJid,
    /// The account.
    pub account: BareJid,
    /// The key its mux holds.
    pub note: NoteKey,
    /// The mux it was given to.
    pub mux: std::sync::Arc<str>,
    /// The mux's id of the connection.
    pub conn: u64,
    /// When it was bound (unix ms).
    pub since_unix_ms: u64,
    /// Last available presence.
    pub presence: Option<Available>,
    /// When presence last changed (unix ms).
    pub presence_changed_unix_ms: u64,
    /// Which capabilities its client claims to have: a fingerprint; 0: none.
    pub claim: u64,
    /// What is known of them.
    pub caps: crate::caps::Caps,
    /// Has asked for the roster (RFC 6121 §2.2): the number of the element with the last of the answer.
    pub interested: Option<u64>,
    /// Has asked whom its account has blocked: it hears of changes (XEP-0191 §3.3).
    pub blocklist_asked: bool,
    /// Entities that had directed presence (RFC 6121 §4.6).
    pub directed: crate::presence::Directed,
    /// Pending messages.
    pub flood: Flood,
    /// Positions up to this have been read for it.
    pub cursor: u64,
    /// Since when it takes messages (unix ms); 0: it does not.
    pub taking_since_unix_ms: u64,
    /// Since when it gets copies of messages, XEP-0280 (unix ms); 0: it does not.
    pub carbons_since_unix_ms: u64,
    /// Which installation of a client it is, if it has said so with its log-in.
    pub client: Option<ClientId>,
    /// Brought back after a restart, and has not read yet what it was owed when the server was killed.
    pub catching_up: bool,
    /// Positions from here on must be read again, when the page under way has come.
    pub reread: Option<u64>,
    /// Bound result is on its way to disk; nothing may be sent before.
    pub ready: bool,
    /// Legacy pings we sent: the id counter.
    pub pings: u32,
    /// Presence held back while the output window is full: newest per sender.
    pub held_presence: Vec<(xmpp::jid::Jid, Bytes)>,
    /// What it has asked others.
    pub asked: super::asked::Asked,
    /// Questions to its archive that wait until it has taken more of what it was sent.
    pub archive_asks: Vec<u64>,
    /// Stanzas that are not stored, held back until the flood before them is out. Bounded by the output window.
    pub behind_flood: Vec<Behind>,
}

/// A stanza that is not stored and came after some that are.
#[derive(Debug)]
pub struct Behind {
    /// As it goes out.
    pub bytes: Bytes,
    /// It is an IQ request: settled when it goes out, answered with an error if it cannot.
    pub request: Option<Box<Routed>>,
    /// Since when it waits (mono ms).
    pub since_ms: u64,
}

impl Behind {
    /// What one costs beside its bytes, about.
    const OVERHEAD_BYTES: usize = 256;

    /// What it counts for against the output window.
    pub fn cost(bytes: usize) -> usize {
        bytes + Self::OVERHEAD_BYTES
    }
}

/// An available presence.
#[derive(Debug, Clone)]
pub struct Available {
    /// RFC 6121 §4.7.2.3.
    pub priority: i8,
    /// It says that nobody is there.
    pub away: bool,
    /// The stanza up to the value of `to`.
    pub prefix: Bytes,
    /// And behind it.
    pub suffix: Bytes,
}

impl Bound {
    /// It is a component (XEP-0114), not somebody's client: only a domain has no localpart.
    pub fn is_component(&self) -> bool {
        self.account.localpart().is_none()
    }

    /// Takes messages sent to the bare JID.
    pub fn takes_messages(&self) -> bool {
        self.presence.as_ref().is_some_and(|p| p.priority >= 0)
    }

    /// Its client wants to hear of such a node (XEP-0163 §4.1).
    pub fn is_interested_in(&self, node: &str) -> bool {
        self.caps.interests().is_some_and(|i| i.has(node))
    }

    /// It is still to be sent what is stored for it.
    pub fn floods(&self) -> bool {
        matches!(self.flood, Flood::Wanted | Flood::Reading)
    }

    /// There is room for a stanza of this size behind the flood.
    pub fn has_room_behind(&self, len: usize, settings: &Settings) -> bool {
        let held = self
            .behind_flood
            .iter()
            .map(|b| Behind::cost(b.bytes.len()));
        held.sum::<usize>() + Behind::cost(len) <= settings.output_window_bytes
    }

    /// It gets copies (XEP-0280).
    pub fn gets_copies(&self) -> bool {
        self.carbons_since_unix_ms != 0
    }

    /// It was taking messages when this one came, and the message was for it, or it was to get a copy.
    pub fn was_due(&self, row: &store::StoredRow) -> bool {
        if self.taking_since_unix_ms == 0 || row.time_ms < self.taking_since_unix_ms {
            return false;
        }
        if self.is_component() {
            return !row.outgoing;
        }
        let copied = self.gets_copies() && row.time_ms >= self.carbons_since_unix_ms;
        if row.outgoing {
            return copied && !self.has_sent(row);
        }
        match crate::routing::recipient(&row.payload) {
            None => false,
            Some(to) if to.resourcepart().is_none() || to.as_str() == self.jid.as_str() => true,
            Some(_) => {
                copied
                    && crate::carbons::kept_is_eligible(
                        &row.payload,
                        crate::carbons::Copy::Received,
                    )
            }
        }
    }

    /// The message was sent by this session.
    pub fn has_sent(&self, row: &store::StoredRow) -> bool {
        row.outgoing && row.origin.is_some_and(|o| o.session == self.id.0)
    }
}
