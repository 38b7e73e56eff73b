//! What clients are interested in, found out (XEP-0115 §6.2, XEP-0163 §4.1): a client whose hash is not known is asked, once for all
//! that have the same; and the last items for who comes online with an interest in them.
//!
//! In: presence, answers to our questions. Out: questions; requests for last items, one message per shard; what is read of them.
//! Owns: what hashes stand for, and which sessions wait to hear.
//! Never: loads an entity because somebody comes online: accounts that are offline send nothing, and of the others the last items are
//! read, many in one question.

use super::Shard;
use super::user::Queued;
use crate::caps::{Caps, Claim, Interests, Key, proves};
use crate::event::*;
use crate::pubsub::avatar;
use crate::pubsub::event::{Notice, Recipients, event, item};
use crate::pubsub::last;
use crate::pubsub::node::Who;
use crate::session::Bound;
use crate::session::record::RecordedCaps;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use xmpp::element::Element;
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// An answer that takes longer is not waited for; somebody else with the same hash is asked.
const ANSWER_MS: u64 = 5_000;

/// Accounts remembered that were asked about one hash in vain.
const TRIED_MAX: usize = 100;

/// Sessions that wait for one hash. Those beyond ask for themselves.
const WAITING_MAX: usize = 10_000;

/// Accounts whose last items are read at once: a reader has others to serve.
const OWNERS_PER_READ: usize = 100;

/// How an id of a question of ours begins.
const ID_PREFIX: &str = "isthmus-caps-";

/// A hash that somebody is being asked about.
#[derive(Debug)]
pub(super) struct Asking {
    /// Who: slot and generation.
    asked: (u32, u32),
    /// Since when (mono ms).
    since_ms: u64,
    /// Of this account.
    account: BareJid,
    /// Who else has it.
    waiting: VecDeque<(u32, u32)>,
    /// Accounts that were asked before: the next is of another one, if there is. So nobody keeps the rest from knowing for long.
    tried: Vec<BareJid>,
}

impl Shard {
    /// The session has said that it is available, with these capabilities; `new`: it was not before.
    pub(super) fn take_claim(&mut self, slot: u32, claim: Option<Claim>, new: bool) {
        let fingerprint = claim.as_ref().map_or(0, Claim::fingerprint);
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        if bound.claim == fingerprint && !matches!(bound.caps, Caps::None) {
            if new && let Caps::Known(interests, _) = &bound.caps {
                let interests = interests.clone();
                self.send_last(slot, interests);
            }
            return;
        }
        bound.claim = fingerprint;
        if let Caps::Asked(_, before) = std::mem::take(&mut bound.caps)
            && let Some(key) = &before.key
        {
            // Its answer will be to something else.
            self.ask_next(slot, key);
        }
        if let Some(claim) = claim {
            self.find_out(slot, claim);
        }
    }

    /// The session is back after a restart: if nobody knows yet what it is, it is asked.
    pub(super) fn resume_claim(&mut self, slot: u32) {
        let waits = match self.session(slot).bound().map(|b| &b.caps) {
            Some(Caps::Waits(claim)) => Some((**claim).clone()),
            _ => None,
        };
        if let Some(claim) = waits {
            self.find_out(slot, claim);
        }
    }

    /// A session of before the restart: what is known of it is on its record. What its client claims is in its presence; if nobody
    /// knows what that means, it is asked when it is back.
    pub(super) fn restore_caps(&mut self, bound: &mut Bound, recorded: Option<RecordedCaps>) {
        let Some(presence) = &bound.presence else {
            return;
        };
        let whole = [&presence.prefix[..], &presence.suffix[..]].concat();
        let presence = Element::parse(whole.into()).ok();
        let Some(claim) = presence.as_ref().and_then(Claim::of) else {
            return;
        };
        bound.claim = claim.fingerprint();
        bound.caps = match recorded {
            None => Caps::Waits(Box::new(claim)),
            Some(RecordedCaps { key, interests }) => match key {
                Some(key) => self.caps.put(key, (*interests).clone()),
                None => Caps::Known(interests, None),
            },
        };
    }

    fn find_out(&mut self, slot: u32, claim: Claim) {
        let known = claim.key.as_ref().and_then(|key| self.caps.find(key));
        if let Some(known) = known {
            return self.is_known(slot, known);
        }
        let session = (slot, self.generation(slot));
        let since_ms = self.now.mono_ms;
        let account = self.account_of(slot);
        if let (Some(key), Some(account)) = (&claim.key, account) {
            match self.asking.get_mut(key) {
                Some(asking) if asking.asked != session && asking.waiting.len() < WAITING_MAX => {
                    asking.waiting.push_back(session);
                    self.set_caps(slot, Caps::Waits(Box::new(claim)));
                    return;
                }
                Some(_) => {}
                None => {
                    let asking = Asking {
                        asked: session,
                        since_ms,
                        account,
                        waiting: VecDeque::new(),
                        tried: Vec::new(),
                    };
                    self.asking.insert(key.clone(), asking);
                }
            }
        }
        self.ask_caps(slot, claim);
    }

    fn ask_caps(&mut self, slot: u32, claim: Claim) {
        let mut id = [0; 8];
        (self.random)(&mut id);
        let id = u64::from_be_bytes(id);
        let Some(bound) = self.session(slot).bound() else {
            return;
        };
        let query = Node::new("query", ns::DISCO_INFO).with_attr_opt("node", claim.node.as_deref());
        let iq = Node::new("iq", ns::CLIENT)
            .with_attr("type", "get")
            .with_attr("id", format!("{ID_PREFIX}{id:016x}"))
            .with_attr("from", bound.jid.domainpart())
            .with_attr("to", bound.jid.as_str())
            .with_child(query);
        self.set_caps(slot, Caps::Asked(id, Box::new(claim)));
        self.send_stanza(slot, iq.to_bytes(ns::CLIENT));
    }

    fn set_caps(&mut self, slot: u32, caps: Caps) {
        if let Some(bound) = self.session(slot).bound_mut() {
            bound.caps = caps;
        }
    }

    /// An answer of the client to the server. Whether it was one to a question about its capabilities.
    pub(super) fn caps_answer(&mut self, slot: u32, number: u64, element: &Element) -> bool {
        let id = element.attr("id");
        let id = id.as_deref().and_then(|id| id.strip_prefix(ID_PREFIX));
        let id = id.and_then(|id| u64::from_str_radix(id, 16).ok());
        let Some(bound) = self.session(slot).bound_mut() else {
            return false;
        };
        let claim = match &bound.caps {
            Caps::Asked(asked, claim) if id == Some(*asked) => (**claim).clone(),
            _ => return false,
        };
        let query = element.child("query", ns::DISCO_INFO).map(|q| q.tree());
        let query = query.filter(|_| element.attr("type").as_deref() == Some("result"));
        let Some(query) = query else {
            // It will not be asked again for this.
            self.set_caps(slot, Caps::None);
            if let Some(key) = &claim.key {
                self.ask_next(slot, key);
            }
            return false;
        };
        let interests = Interests::of(&query);
        match claim.key {
            Some(key) if proves(&query, &key) => {
                let known = self.caps.put(key.clone(), interests);
                let waiting = self.asking.remove(&key).map(|a| a.waiting);
                self.is_known(slot, known.clone());
                for (other, generation) in waiting.into_iter().flatten() {
                    if self.live(other, generation) && self.waits_for(other, &key) {
                        self.is_known(other, known.clone());
                        self.write_record(other);
                    }
                }
            }
            key => {
                if let Some(key) = key {
                    tracing::debug!(
                        hash = key.to_text(),
                        "capabilities that do not have this hash"
                    );
                    self.ask_next(slot, &key);
                }
                self.is_known(slot, Caps::Known(Arc::new(interests), None));
            }
        }
        // Settled when a restarted server will know it.
        self.await_record(slot, number);
        true
    }

    fn waits_for(&mut self, slot: u32, key: &Key) -> bool {
        let bound = self.session(slot).bound();
        bound.is_some_and(|b| matches!(&b.caps, Caps::Waits(c) if c.key.as_ref() == Some(key)))
    }

    fn is_known(&mut self, slot: u32, caps: Caps) {
        let interests = caps.interests().cloned();
        self.set_caps(slot, caps);
        if let Some(interests) = interests {
            self.send_last(slot, interests);
        }
    }

    /// Who was asked does not know. `slot`: only if it is the one.
    fn ask_next(&mut self, slot: u32, key: &Key) {
        let session = (slot, self.generation(slot));
        let asked = |a: &Asking| a.asked == session;
        if !self.asking.get(key).is_some_and(asked) {
            return;
        }
        let Some(mut asking) = self.asking.remove(key) else {
            return;
        };
        let waiting = std::mem::take(&mut asking.waiting).into_iter();
        asking.waiting = waiting
            .filter(|&(slot, generation)| self.live(slot, generation) && self.waits_for(slot, key))
            .collect();
        if asking.tried.len() < TRIED_MAX {
            asking.tried.push(asking.account.clone());
        }
        let tried = &asking.tried;
        let of_another = |&(slot, _): &(u32, u32)| {
            let bound = self.sessions.get(slot as usize).and_then(|s| s.bound());
            bound.is_some_and(|b| !tried.contains(&b.account))
        };
        let next = asking.waiting.iter().position(of_another).unwrap_or(0);
        let Some(next) = asking.waiting.remove(next) else {
            return;
        };
        let bound = self.session(next.0).bound();
        let claimed = bound.map(|b| (b.account.clone(), &b.caps));
        if let Some((account, Caps::Waits(claim))) = claimed {
            let claim = (**claim).clone();
            (asking.asked, asking.account, asking.since_ms) = (next, account, self.now.mono_ms);
            self.asking.insert(key.clone(), asking);
            self.ask_caps(next.0, claim);
        }
    }

    /// Questions that are not answered.
    pub(super) fn sweep_asking(&mut self) {
        let now = self.now.mono_ms;
        let asking = self.asking.iter();
        let late = asking.filter(|(_, a)| {
            let (slot, generation) = a.asked;
            !self.live(slot, generation) || now.saturating_sub(a.since_ms) > ANSWER_MS
        });
        let mut late: Vec<(u32, Key)> = late.map(|(key, a)| (a.asked.0, key.clone())).collect();
        late.sort_unstable_by_key(|(slot, _)| *slot);
        for (slot, key) in late {
            let Some(asking) = self.asking.get_mut(&key) else {
                continue;
            };
            asking.asked.1 = self.generations.get(slot as usize).copied().unwrap_or(0);
            self.ask_next(slot, &key);
        }
    }

    // ---- last items -------------------------------------------------------------------------------------

    /// The last items of these nodes for a session: of its own account, and of contacts who are online.
    pub(super) fn send_last(&mut self, slot: u32, interests: Arc<Interests>) {
        let Some(bound) = self.session(slot).bound() else {
            return;
        };
        if interests.is_empty() || bound.presence.is_none() {
            return;
        }
        let (to, account) = (bound.jid.clone(), bound.account.clone());
        if !self.has_roster(&account) {
            let generation = self.generation(slot);
            self.load(&account);
            return self.queue_for(&account, Queued::SendLast(slot, generation, interests));
        }
        let Some(roster) = self.users.get(&account).and_then(|u| u.roster.as_ref()) else {
            return;
        };
        let contacts = roster.probed().chain(std::iter::once(&account));
        let per_shard = self.by_home(contacts);
        let mut per_shard: BTreeMap<ShardId, Vec<BareJid>> = per_shard.into_iter().collect();
        let groups = self.groups_of(&account, false);
        if !groups.is_empty() {
            for shard in (0..self.shards).map(ShardId) {
                per_shard.entry(shard).or_default();
            }
        }
        for (shard, accounts) in per_shard {
            let wanted = LastWanted {
                to: to.clone(),
                interests: interests.clone(),
                accounts,
                groups: groups.clone(),
            };
            self.tell(shard, ShardMsg::Last(Box::new(wanted)));
        }
    }

    /// The same of somebody whose presence the account sees from now on (XEP-0163 §4.3.4: that is a subscription, too).
    pub(super) fn send_last_of(&mut self, account: &BareJid, contact: &BareJid) {
        let sessions = self.users.get(account).map(|u| u.sessions.clone());
        for slot in sessions.unwrap_or_default() {
            let bound = self.session(slot).bound();
            let there = bound.filter(|b| b.presence.is_some() && b.ready);
            let known = there.and_then(|b| Some((b.jid.clone(), b.caps.interests()?.clone())));
            let Some((to, interests)) = known.filter(|(_, interests)| !interests.is_empty()) else {
                continue;
            };
            let wanted = LastWanted {
                to,
                interests,
                accounts: vec![contact.clone()],
                groups: Vec::new(),
            };
            self.tell(self.home(contact), ShardMsg::Last(Box::new(wanted)));
        }
    }

    /// Somebody has come online, and would have the last items of accounts at home here.
    pub(super) fn last_wanted(&mut self, wanted: LastWanted) {
        let asks = wanted.to.bare();
        let accounts = self.with_members(&asks, &wanted.accounts, &wanted.groups);
        let there = |account: &&BareJid| {
            let online = !self.available_sessions(account).is_empty();
            let blocked = self.blocks(account, &Jid::Full(wanted.to.clone()));
            **account == asks || online && self.sees(account, &asks) && !blocked
        };
        let owners: Vec<BareJid> = accounts.into_iter().filter(there).cloned().collect();
        if wanted.interests.has(avatar::METADATA) {
            let to = Jid::Full(wanted.to.clone());
            owners.iter().for_each(|owner| self.last_avatar(owner, &to));
        }
        for owners in owners.chunks(OWNERS_PER_READ) {
            let ask = last::Ask {
                to: wanted.to.clone(),
                owners: owners.to_vec(),
                interests: wanted.interests.clone(),
                bytes_max: self.settings.output_window_bytes / 2,
            };
            let tag = ReadTag::LastItems(wanted.to.clone(), self.last_reads.begin());
            self.fx.reads.push((tag, Read::LastItems(Box::new(ask))));
        }
    }

    /// They have been read.
    pub(super) fn last_items_read(&mut self, to: &FullJid, read: u64, result: ReadResult) {
        let ReadResult::LastItems(found) = result else {
            return;
        };
        let (to, asks) = (Jid::Full(to.clone()), to.bare());
        for last in found {
            if self.last_reads.is_overtaken(read, &last.owner, &last.name) {
                continue;
            }
            let mut groups = last.groups;
            let shown = self.groups.view.shown(&last.owner, &asks);
            let titles = shown.iter().flat_map(|s| &s.titles);
            groups.extend(titles.map(|title| title.to_string()));
            let who = Who {
                jid: &to,
                presence: asks == last.owner || self.sees(&last.owner, &asks),
                groups: &groups,
            };
            if last.node.check_read(&last.owner, &who).is_err() {
                continue;
            }
            let payload = last.node.config.payloads.then_some(&last.item.payload);
            let notice = Notice {
                event: event(&item(&last.name, &last.item.id, payload)),
                node: last.name,
                kind: last.node.config.notification,
                changes_items: false,
                delay_ms: Some(last.item.time_ms),
                to: Recipients::One(to.clone()),
            };
            self.notify(&last.owner, notice);
        }
    }
}
