//! What somebody has published, on its way to who hears of it.

use crate::blocking::Blocklist;
use bytes::Bytes;
use directory::population::Group;
use std::sync::Arc;
use xmpp::jid::{BareJid, FullJid};

/// One notice of a publish-subscribe service for many.
#[derive(Debug)]
pub struct EventFan {
    /// Whose.
    pub from: BareJid,
    /// Of which node.
    pub node: Arc<str>,
    /// Bytes up to the value of the attribute `to`.
    pub prefix: Bytes,
    /// Bytes behind it.
    pub suffix: Bytes,
    /// It goes to the members of these groups, too.
    pub groups: Vec<Arc<Group>>,
    /// But never to these,
    pub outcasts: std::collections::BTreeSet<BareJid>,
    /// nor to whom the owner has blocked.
    pub but: Blocklist,
}

/// Last items for a session.
#[derive(Debug)]
pub struct LastWanted {
    /// The session.
    pub to: FullJid,
    /// Of which nodes.
    pub interests: Arc<crate::caps::Interests>,
    /// Of which accounts.
    pub accounts: Vec<BareJid>,
    /// And of the members of these groups.
    pub groups: Vec<Arc<Group>>,
}

/// Who hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventTarget {
    /// Available resources of this account that are interested in the node (XEP-0163 §4.1).
    Interested(BareJid),
    /// All its available resources: it has subscribed.
    Account(BareJid),
    /// This resource has.
    Resource(FullJid),
}

impl EventTarget {
    /// The account.
    pub fn account(&self) -> BareJid {
        match self {
            Self::Interested(account) | Self::Account(account) => account.clone(),
            Self::Resource(jid) => jid.bare(),
        }
    }
}
