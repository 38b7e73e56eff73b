//! Last items of many owners in one read (XEP-0163 §4.3.4), for somebody who has come online.

use super::bookmarks;
use super::config::{AccessModel, Config, SendLast};
use super::node::Node;
use crate::caps::Interests;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use store::{PubsubItem, Reader, StoreError};
use xmpp::jid::{BareJid, FullJid};

/// What is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Who has come online.
    pub to: FullJid,
    /// Whose items.
    pub owners: Vec<BareJid>,
    /// Of which nodes.
    pub interests: Arc<Interests>,
    /// Bytes of payloads; what is beyond is not read.
    pub bytes_max: usize,
}

/// One item. Whether it may be shown is for who has asked to find out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Last {
    /// Whose.
    pub owner: BareJid,
    /// Name of the node.
    pub name: String,
    /// The node.
    pub node: Node,
    /// Its newest item.
    pub item: PubsubItem,
    /// If that matters: groups of the owner's own roster that `to` is in.
    pub groups: Vec<String>,
}

/// Reads on their way, and what is published meanwhile: who is told of that must not be sent what was before it, too.
#[derive(Default, Debug)]
pub struct Reads {
    clock: u64,
    running: BTreeSet<u64>,
    /// When a node's last notice went out. Only while something is read.
    told: HashMap<BareJid, HashMap<String, u64>>,
}

impl Reads {
    /// A read begins. Its number is for [`Reads::end`].
    pub fn begin(&mut self) -> u64 {
        self.clock += 1;
        self.running.insert(self.clock);
        self.clock
    }

    /// Everybody is told of a node.
    pub fn told(&mut self, owner: &BareJid, node: &str) {
        if !self.running.is_empty() {
            self.clock += 1;
            let nodes = self.told.entry(owner.clone()).or_default();
            nodes.insert(node.to_owned(), self.clock);
        }
    }

    /// Whether everybody was told of the node after that read had begun.
    pub fn is_overtaken(&self, read: u64, owner: &BareJid, node: &str) -> bool {
        let told = self.told.get(owner).and_then(|nodes| nodes.get(node));
        told.is_some_and(|at| *at > read)
    }

    /// It is done.
    pub fn end(&mut self, read: u64) {
        self.running.remove(&read);
        let Some(oldest) = self.running.first().copied() else {
            return self.told.clear();
        };
        self.told.retain(|_, nodes| {
            nodes.retain(|_, at| *at > oldest);
            !nodes.is_empty()
        });
    }
}

/// Reads them.
///
/// # Errors
/// The store does not answer.
pub fn read(reader: &mut dyn Reader, ask: &Ask) -> Result<Vec<Last>, StoreError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let asks = ask.to.bare();
    for owner in &ask.owners {
        if *owner == asks && ask.interests.has(bookmarks::OLD) {
            found.extend(old_bookmarks(reader, owner)?);
        }
        let stored = reader.pubsub_nodes(owner)?;
        let mut groups = None;
        for stored in stored.iter().filter(|n| ask.interests.has(&n.node)) {
            let node = Node::load(stored);
            let sends = node.config.send_last == SendLast::OnSubAndPresence;
            if !sends || !node.config.notify || !node.config.persist {
                continue;
            }
            let names = std::slice::from_ref(&stored.node);
            let Some((name, item)) = reader.pubsub_last(owner, names)?.pop() else {
                continue;
            };
            // One that is too much hides no others.
            if bytes + item.payload.len() > ask.bytes_max {
                continue;
            }
            bytes += item.payload.len();
            if node.config.access == AccessModel::Roster && groups.is_none() {
                let roster = reader.user_data(owner)?.roster.into_iter();
                let mut roster = roster.filter(|item| item.jid == asks);
                groups = roster.next().map(|item| item.groups);
            }
            found.push(Last {
                owner: owner.clone(),
                name,
                node,
                item,
                groups: groups.clone().unwrap_or_default(),
            });
        }
    }
    Ok(found)
}

/// All bookmarks as one item, for a client that knows them so.
fn old_bookmarks(reader: &mut dyn Reader, owner: &BareJid) -> Result<Option<Last>, StoreError> {
    let stored = bookmarks::read(reader, owner)?;
    if stored.is_empty() {
        return Ok(None);
    }
    let config = Config {
        access: AccessModel::Whitelist,
        ..Config::default()
    };
    let item = PubsubItem {
        id: bookmarks::OLD_ID.to_owned(),
        publisher: owner.as_str().to_owned(),
        time_ms: stored.items.first().map_or(0, |item| item.time_ms),
        payload: stored.storage().to_bytes(""),
    };
    Ok(Some(Last {
        owner: owner.clone(),
        name: bookmarks::OLD.to_owned(),
        node: Node {
            config,
            ..Node::default()
        },
        item,
        groups: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::Reads;
    use xmpp::jid::BareJid;

    #[test]
    fn what_was_published_meanwhile_overtakes_what_is_read() {
        let romeo = BareJid::parse("romeo@x").unwrap();
        let mut reads = Reads::default();
        reads.told(&romeo, "tune");
        let first = reads.begin();
        assert!(!reads.is_overtaken(first, &romeo, "tune"));
        reads.told(&romeo, "tune");
        let second = reads.begin();
        assert!(reads.is_overtaken(first, &romeo, "tune"));
        assert!(!reads.is_overtaken(first, &romeo, "mood"));
        assert!(!reads.is_overtaken(second, &romeo, "tune"));
        reads.end(first);
        assert!(reads.told.is_empty(), "nobody needs it any more");
        reads.told(&romeo, "mood");
        assert!(reads.is_overtaken(second, &romeo, "mood"));
        reads.end(second);
        assert!(reads.told.is_empty() && reads.running.is_empty());
    }
}
