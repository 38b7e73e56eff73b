//! Nodes of publish-subscribe services, in memory.

use bytes::Bytes;
use std::collections::BTreeMap;
use xmpp::jid::BareJid;

use crate::types::{
    PubsubChange, PubsubItem, PubsubNode, PubsubPage, PubsubQuery, PubsubRange, WriteError, Written,
};

/// Nodes of all owners.
#[derive(Clone, Debug, Default)]
pub(super) struct Pubsub(BTreeMap<BareJid, BTreeMap<String, Node>>);

#[derive(Clone, Debug, Default)]
struct Node {
    meta: Bytes,
    members: BTreeMap<String, Bytes>,
    /// The oldest first.
    items: Vec<PubsubItem>,
}

type Nodes = BTreeMap<String, Node>;

fn bytes(nodes: &Nodes) -> u64 {
    let items = nodes.values().flat_map(|node| &node.items);
    items.map(PubsubItem::bytes).sum()
}

fn change_node(nodes: &mut Nodes, change: &PubsubChange) -> Option<()> {
    match change {
        PubsubChange::Put { node, meta } => {
            nodes.entry(node.clone()).or_default().meta = meta.clone();
        }
        PubsubChange::Delete { node } => {
            nodes.remove(node)?;
        }
        PubsubChange::Member { node, jid, state } => {
            let members = &mut nodes.get_mut(node)?.members;
            match state {
                Some(state) => members.insert(jid.clone(), state.clone()),
                None => members.remove(jid),
            };
        }
        PubsubChange::Publish {
            node,
            item,
            items_max,
        } => {
            let node = nodes.get_mut(node)?;
            node.items.retain(|i| i.id != item.id);
            node.items.push(item.clone());
            node.trim(*items_max);
        }
        PubsubChange::Retract { node, id } => {
            let items = &mut nodes.get_mut(node)?.items;
            let at = items.iter().position(|item| item.id == *id)?;
            items.remove(at);
        }
        PubsubChange::Trim { node, items_max } => nodes.get_mut(node)?.trim(*items_max),
    }
    Some(())
}

impl Node {
    fn trim(&mut self, items_max: u64) {
        let more = self.items.len().saturating_sub(items_max as usize);
        self.items.drain(..more);
    }
}

impl Pubsub {
    pub(super) fn change(
        &mut self,
        owner: &BareJid,
        changes: &[PubsubChange],
        bytes_max: u64,
    ) -> Written {
        let before = self.0.get(owner).cloned().unwrap_or_default();
        let mut after = before.clone();
        for change in changes {
            if change_node(&mut after, change).is_none() {
                return Written::Failed(WriteError::NotFound);
            }
        }
        if bytes(&after) > bytes_max && bytes(&after) > bytes(&before) {
            return Written::Failed(WriteError::TooMuch);
        }
        self.0.insert(owner.clone(), after);
        Written::Done
    }

    /// All of an owner's go, and what others' nodes had given it. Whether it had any.
    pub(super) fn remove(&mut self, owner: &BareJid) -> bool {
        let of_owner = |jid: &str| {
            let rest = jid.strip_prefix(owner.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        for node in self.0.values_mut().flat_map(BTreeMap::values_mut) {
            node.members.retain(|jid, _| !of_owner(jid));
        }
        self.0.remove(owner).is_some_and(|nodes| !nodes.is_empty())
    }

    pub(super) fn nodes(&self, owner: &BareJid) -> Vec<PubsubNode> {
        let nodes = self.0.get(owner).into_iter().flatten();
        let node = |(name, node): (&String, &Node)| PubsubNode {
            node: name.clone(),
            meta: node.meta.clone(),
            members: node.members.clone().into_iter().collect(),
        };
        nodes.map(node).collect()
    }

    pub(super) fn items(&self, query: &PubsubQuery) -> Option<PubsubPage> {
        let node = self.0.get(&query.owner).and_then(|n| n.get(&query.node));
        let items: Vec<&PubsubItem> = node.iter().flat_map(|n| n.items.iter().rev()).collect();
        let place = |id: &String| items.iter().position(|item| item.id == *id);
        let limited = |from: usize, to: usize| {
            let mut bytes = 0;
            let fit = items[from..to].iter().take(query.limit).take_while(|item| {
                bytes += item.payload.len();
                bytes <= query.bytes_max
            });
            let fit = fit.count().max(1).min(query.limit);
            (from, (from + fit).min(to))
        };
        // From the other end.
        let limited_back = |to: usize| {
            let mut bytes = 0;
            let fit = items[..to].iter().rev().take(query.limit).take_while(|i| {
                bytes += i.payload.len();
                bytes <= query.bytes_max
            });
            let fit = fit.count().max(1).min(query.limit);
            (to.saturating_sub(fit), to)
        };
        let (from, to) = match &query.range {
            PubsubRange::Newest => limited(0, items.len()),
            PubsubRange::Index(skip) => limited((*skip as usize).min(items.len()), items.len()),
            PubsubRange::After(id) => limited(place(id)? + 1, items.len()),
            PubsubRange::Oldest => limited_back(items.len()),
            PubsubRange::Before(id) => limited_back(place(id)?),
            PubsubRange::Ids(ids) => {
                let mut bytes = 0;
                let wanted = items.iter().filter(|item| ids.contains(&item.id));
                let mut wanted: Vec<PubsubItem> = wanted.map(|i| (*i).clone()).collect();
                let fit = wanted.iter().take_while(|item| {
                    bytes += item.payload.len();
                    bytes <= query.bytes_max
                });
                let fit = fit.count().max(1);
                wanted.truncate(fit);
                return Some(PubsubPage {
                    items: wanted,
                    index: 0,
                    count: items.len() as u64,
                });
            }
        };
        let page = &items[from..to];
        Some(PubsubPage {
            items: page.iter().map(|item| (*item).clone()).collect(),
            index: if page.is_empty() { 0 } else { from as u64 },
            count: items.len() as u64,
        })
    }
}
