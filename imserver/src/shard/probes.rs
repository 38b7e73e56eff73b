//! Probes: who asks how others are, and what they are told (RFC 6121 §4.3).
//!
//! In: clients that probe, sessions that become available, probes of other shards. Out: presence of those who may be seen.
//! Never: loads an entity that has no session; tells whether somebody is there who may not be seen.

use super::Shard;
use super::user::Queued;
use crate::event::*;
use crate::policy::Right;
use crate::presence::{self, ProbeAnswer, Probed};
use crate::routing::{PresenceType, Retention, StanzaKind};
use crate::subscription::Kind;
use xmpp::element::Element;
use xmpp::jid::{BareJid, Jid};

impl Shard {
    /// A client probes by itself. Whom it may not see is not asked: every address of ours gives the same answer, whether it is online,
    /// has ever been, or is nobody's (RFC 6121 §4.3.2). That leaves out what §4.6.6 grants to those who have had directed presence:
    /// only the other side knows of that, and its answer would differ from this one in time.
    pub(super) fn own_probe(&mut self, slot: u32, number: u64, element: Element, to: Jid) {
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let (account, target) = (bound.account.clone(), to.bare());
        let somebody = self.settings.reaches(target.domainpart())
            && target.localpart().is_some()
            && target != account;
        if somebody
            && !self.groups.view.shares_group(&account, &target)
            && !self.watches_everybody(&account)
        {
            if !self.has_roster(&account) {
                return self.pause_for_roster(slot, number, element);
            }
            let user = self.users.get(&account);
            let roster = user.and_then(|u| u.roster.as_ref());
            if !roster.is_some_and(|r| r.sees(&target)) {
                let unsubscribed = Some(Kind::Unsubscribed.as_str());
                let id = element.attr("id");
                let (from, to) = (target.as_str(), account.as_str());
                let answer = presence::stanza(unsubscribed, id.as_deref(), from, to);
                self.send_stanza(slot, answer);
                return self.session(slot).done(number);
            }
        }
        let kind = StanzaKind::Presence(PresenceType::Probe);
        self.send_on(slot, number, &element, kind, Some(to), Retention::Drop);
    }

    /// A session has become available: how are those it is subscribed to?
    pub(super) fn probe_contacts(&mut self, slot: u32, account: &BareJid) {
        // Its own echo may have been more than it may leave untaken: then it is gone.
        let Some(from) = self.session(slot).bound().map(|b| Jid::Full(b.jid.clone())) else {
            return;
        };
        let Some(roster) = self.users.get(account).and_then(|u| u.roster.as_ref()) else {
            return;
        };
        let unblocked = |c: &&BareJid| !self.blocks(account, &Jid::Bare((*c).clone()));
        let mut per_shard = self.by_home(roster.probed().filter(unblocked));
        let groups = self.groups_of(account, false);
        if !groups.is_empty() {
            for shard in (0..self.shards).map(ShardId) {
                per_shard.entry(shard).or_default();
            }
        }
        let mut shards: Vec<(ShardId, Vec<BareJid>)> = per_shard.into_iter().collect();
        shards.sort_by_key(|(s, _)| *s);
        let known = self.groups.known();
        for (shard, targets) in shards {
            let probing = Probing {
                from: from.clone(),
                targets,
                groups: groups.clone(),
                members: Vec::new(),
                known,
            };
            self.tell(shard, ShardMsg::Probe(Box::new(probing)));
        }
    }

    /// Somebody asks how others are.
    pub(super) fn probes(&mut self, probing: Probing) {
        let Some(probing) = self.too_early(probing) else {
            return;
        };
        let (from, asks) = (&probing.from, probing.from.bare());
        self.probed(from, &probing.targets);
        let named: Vec<&BareJid> = self.with_members(&asks, &probing.members, &probing.groups);
        for member in named {
            if probing.targets.binary_search(member).is_err()
                && self.groups.view.shares_presence(member, &asks)
            {
                self.probed(from, std::slice::from_ref(member));
            }
        }
    }

    fn probed(&mut self, from: &Jid, targets: &[BareJid]) {
        for target in targets {
            if self.settings.component(target.domainpart()).is_some() {
                self.probe_component(from, target);
                continue;
            }
            let Some(user) = self.users.get(target) else {
                continue;
            };
            if user.sessions.is_empty() {
                continue;
            }
            let unknown =
                user.audience.is_none() && !self.groups.view.shares_presence(target, &from.bare());
            if unknown || !user.knows_blocked {
                self.load(target);
                self.queue_for(target, Queued::Probe(from.clone()));
            } else {
                self.answer_probe(from, target);
            }
        }
    }

    /// A client probes by itself, although its server does (RFC 6121 §4.3): who may not see is told so, and nothing changes.
    /// Who has the right to watch everybody is answered as a subscriber would be.
    pub(super) fn client_probe(&mut self, from: &Jid, target: &BareJid) {
        let asks = from.bare();
        let known = self.users.get(target).is_some_and(|u| u.audience.is_some());
        let may_see = asks == *target || self.sees(target, &asks) || self.watches_everybody(&asks);
        if !may_see && self.groups.view.shares_group(target, &asks) {
            return self.answer_member(from, target);
        }
        if may_see || !known {
            return self.probed(from, std::slice::from_ref(target));
        }
        let refusal = Routed {
            kind: StanzaKind::Presence(PresenceType::Unavailable),
            from: Jid::Bare(target.clone()),
            to: from.clone(),
            bytes: presence::stanza(
                Some(Kind::Unsubscribed.as_str()),
                None,
                target.as_str(),
                from.bare_str(),
            ),
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: None,
        };
        self.tell(self.home(&from.bare()), ShardMsg::Stanza(Box::new(refusal)));
    }

    /// The right says so, and only of accounts of ours: what another server says of its users is no ground for it.
    fn watches_everybody(&self, account: &BareJid) -> bool {
        self.settings.serves(account.domainpart()) && self.may(account, Right::WatchPresence)
    }

    /// A member of a group too large for presence asks. It is answered as by directed presence of each resource, so that it hears
    /// when that goes; but not of changes.
    fn answer_member(&mut self, from: &Jid, target: &BareJid) {
        let max = self.settings.directed_presence_max;
        for slot in self.available_sessions(target) {
            let Some(bound) = self.session(slot).bound_mut() else {
                continue;
            };
            let Some(said) = bound.presence.clone() else {
                continue;
            };
            let jid = bound.jid.clone();
            let before = bound.directed.entries().len();
            if bound.directed.available(from, false, max).is_err() {
                continue;
            }
            if bound.directed.entries().len() != before {
                self.write_record(slot);
            }
            self.send_presence(
                &jid,
                from.clone(),
                &said.prefix,
                &said.suffix,
                PresenceType::Available,
            );
        }
    }

    pub(super) fn answer_probe(&mut self, from: &Jid, target: &BareJid) {
        let Some(user) = self.users.get(target) else {
            return;
        };
        if user.blocked.blocks(target, from) {
            return;
        }
        let asks = from.bare();
        let subscribed =
            asks == *target || self.sees(target, &asks) || self.watches_everybody(&asks);
        let slots = user.sessions.clone();
        let available = slots.iter().any(|&s| {
            self.sessions
                .get(s as usize)
                .and_then(|s| s.bound())
                .is_some_and(|b| b.presence.is_some())
        });
        let probe = presence::Probe {
            account_exists: user.exists,
            subscribed,
            local: true,
            about: Probed::Account { available },
        };
        match presence::answer_probe(probe) {
            ProbeAnswer::Each => {
                for slot in slots {
                    let Some(bound) = self.session(slot).bound() else {
                        continue;
                    };
                    let Some(p) = bound.presence.clone() else {
                        continue;
                    };
                    let jid = bound.jid.clone();
                    self.send_presence(
                        &jid,
                        from.clone(),
                        &p.prefix,
                        &p.suffix,
                        PresenceType::Available,
                    );
                }
            }
            ProbeAnswer::Unsubscribed => {
                let to = from.bare();
                let bytes = presence::stanza(
                    Some(Kind::Unsubscribed.as_str()),
                    None,
                    target.as_str(),
                    to.as_str(),
                );
                let s = Subscription {
                    kind: Kind::Unsubscribed,
                    from: target.clone(),
                    to,
                    bytes,
                    token: None,
                };
                self.tell(self.home(&s.to), ShardMsg::Subscription(Box::new(s)));
            }
            ProbeAnswer::Nothing | ProbeAnswer::Unavailable | ProbeAnswer::Mere => {}
        }
    }
}
