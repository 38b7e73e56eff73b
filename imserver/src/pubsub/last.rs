//! Last items of many owners in one read (XEP-0163 §4.3.4), for somebody who has come online.

use super::config::{AccessModel, SendLast};
use super::node::Node;
use crate::caps::Interests;
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

/// Reads them.
///
/// # Errors
/// The store does not answer.
pub fn read(reader: &mut dyn Reader, ask: &Ask) -> Result<Vec<Last>, StoreError> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let asks = ask.to.bare();
    for owner in &ask.owners {
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
            bytes += item.payload.len();
            if bytes > ask.bytes_max {
                return Ok(found);
            }
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
