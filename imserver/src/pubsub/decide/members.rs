//! Who has to do with a node: subscriptions (XEP-0060 §5.6, §6.1, §6.2, §8.8) and affiliations (§5.7, §8.9).
//!
//! In: what somebody asks of a node's members. Out: changes of them, or why not. Owns: how many there may be.
//! Never: makes somebody a subscriber who has not asked.

use super::approval::sends_last;
use super::*;
use crate::pubsub::{MEMBERS_OF_ACCOUNT_MAX, SUBSCRIBERS_MAX, SUBSCRIPTIONS_PER_ACCOUNT_MAX};

/// All nodes together have as many members as an account may have.
fn has_members_max(nodes: &Nodes) -> bool {
    nodes.values().map(|node| node.members.len()).sum::<usize>() >= MEMBERS_OF_ACCOUNT_MAX
}

impl Request<'_> {
    /// §6.1.
    pub(super) fn subscribe(
        &self,
        nodes: &mut Nodes,
        name: String,
        jid: Jid,
    ) -> Result<Plan, Refusal> {
        if jid.bare_str() != self.who.jid.bare_str() {
            return Err(Refusal::because(StanzaError::BadRequest, "invalid-jid"));
        }
        let owner = self.owner();
        let full = has_members_max(nodes);
        let node = nodes.get_mut(&name).ok_or_else(not_found)?;
        let before = node.member(&jid);
        let asks = node.config.access == AccessModel::Authorize;
        let subscription = match node.check_read(owner, self.who) {
            Ok(()) => Subscription::Subscribed,
            Err(refusal) if asks && refusal.condition == StanzaError::NotAuthorized => {
                if before.subscription == Subscription::Pending && !self.service.again {
                    return Err(Refusal::because(
                        StanzaError::NotAuthorized,
                        "pending-subscription",
                    ));
                }
                Subscription::Pending
            }
            Err(refusal) => return Err(refusal),
        };
        let list = answer::subscription(Some(&name), &jid, subscription);
        let reply = Some(answer::pubsub(list));
        if before.subscription == subscription {
            return Ok(Plan::Reply(reply));
        }
        let same = node
            .members
            .keys()
            .filter(|other| other.bare_str() == jid.bare_str());
        let full = full
            || node.members.len() >= SUBSCRIBERS_MAX
            || same.count() >= SUBSCRIPTIONS_PER_ACCOUNT_MAX;
        if before == Member::default() && full {
            return Err(Refusal::because(
                StanzaError::PolicyViolation,
                "too-many-subscriptions",
            ));
        }
        let member = Member {
            subscription,
            ..before
        };
        let changes = vec![node.set_member(&name, &jid, member)];
        let mut change = Change {
            changes,
            reply,
            ..Change::default()
        };
        if subscription == Subscription::Pending {
            change.request = Some((name, jid));
        } else if sends_last(node) {
            change.last.push((name, jid));
        }
        Ok(change.into())
    }

    /// §6.2.
    pub(super) fn unsubscribe(
        &self,
        nodes: &mut Nodes,
        name: String,
        jid: &Jid,
    ) -> Result<Plan, Refusal> {
        let node = nodes.get_mut(&name).ok_or_else(not_found)?;
        if jid.bare_str() != self.who.jid.bare_str() {
            return Err(forbidden());
        }
        let before = node.member(jid);
        if before.subscription == Subscription::None {
            if self.service.again {
                return Ok(Plan::Reply(None));
            }
            return Err(
                Refusal::because(StanzaError::UnexpectedRequest, "not-subscribed")
                    .of_type(ErrorType::Cancel),
            );
        }
        // Its other resources are told.
        let mut change = Change::default();
        change.subscribes(&name, node, jid, Subscription::None);
        Ok(change.into())
    }

    /// §5.6, §5.7: one's own, of a node or of all.
    pub(super) fn own(&self, nodes: &Nodes, of: Option<&str>, what: &'static str) -> Plan {
        let bare = self.who.jid.bare();
        let stranger = !self.is_owner() && !self.who.presence;
        let mut list = xml::Node::new(what, ns::PUBSUB).with_attr_opt("node", of);
        let mut any = false;
        for (name, node) in nodes
            .iter()
            .filter(|(name, _)| of.is_none_or(|of| of == *name))
        {
            if what == "affiliations" {
                let affiliation = node.affiliation(self.owner(), &bare);
                if affiliation != Affiliation::None {
                    let entry = xml::Node::new("affiliation", ns::PUBSUB)
                        .with_attr("node", name.as_str())
                        .with_attr("affiliation", affiliation.as_str());
                    list.push(xml::Content::Node(entry));
                    any = true;
                }
                continue;
            }
            let own = node.members.iter().filter(|(jid, m)| {
                jid.bare_str() == bare.as_str() && m.subscription != Subscription::None
            });
            for (jid, member) in own {
                let entry = answer::subscription(Some(name), jid, member.subscription);
                list.push(xml::Content::Node(entry));
                any = true;
            }
        }
        match stranger && !any && !self.any(nodes) {
            true => Plan::Hidden,
            false => Plan::Reply(Some(answer::pubsub(list))),
        }
    }

    /// §8.8.2.
    pub(super) fn set_subscribers(
        &self,
        nodes: &mut Nodes,
        name: String,
        changes: &[(Jid, Subscription)],
    ) -> Result<Plan, Refusal> {
        let node = self.owned(nodes, &name)?;
        // Nobody is made to listen: who is no subscriber asks to be one.
        let asked = |jid: &Jid| node.member(jid).subscription != Subscription::None;
        let news = changes
            .iter()
            .filter(|(_, subscription)| *subscription != Subscription::None);
        if let Some((jid, _)) = news.into_iter().find(|(jid, _)| !asked(jid)) {
            let text = format!("{} has not asked to be a subscriber", jid.as_str());
            return Err(Refusal::saying(StanzaError::NotAllowed, text));
        }
        let mut change = Change::default();
        for (jid, subscription) in changes {
            if node.member(jid).subscription != *subscription {
                change.subscribes(&name, node, jid, *subscription);
            }
        }
        Ok(self.stored(change))
    }

    /// §8.9.2. The owner of the service stays an owner of everything.
    pub(super) fn set_affiliated(
        &self,
        nodes: &mut Nodes,
        name: &str,
        changes: &[(BareJid, Affiliation)],
    ) -> Result<Plan, Refusal> {
        let owner = self.owner().clone();
        let full = has_members_max(nodes);
        let node = self.owned(nodes, name)?;
        let loses = |(jid, a): &(BareJid, Affiliation)| *jid == owner && *a != Affiliation::Owner;
        if changes.iter().any(loses) {
            return Err(Refusal::new(StanzaError::NotAcceptable));
        }
        let new = changes.iter().filter(|(jid, affiliation)| {
            let there = node.members.contains_key(&Jid::Bare(jid.clone()));
            *affiliation != Affiliation::None && !there
        });
        let new = new.count();
        if new > 0 && (full || node.members.len() + new > MEMBERS_MAX) {
            let text = "The node has as many members as it may";
            return Err(Refusal::saying(StanzaError::PolicyViolation, text));
        }
        let mut change = Change::default();
        for (jid, affiliation) in changes.iter().filter(|(jid, _)| *jid != owner) {
            let address = Jid::Bare(jid.clone());
            let before = node.member(&address);
            if before.affiliation != *affiliation {
                let member = Member {
                    affiliation: *affiliation,
                    ..before
                };
                change.changes.push(node.set_member(name, &address, member));
            }
            // An outcast is no subscriber any more, with whatever resource (§8.9.2); who has become something and still waits to be
            // one waits no longer (§8.7).
            let (from, to): (fn(Subscription) -> bool, _) = match affiliation {
                Affiliation::None => continue,
                Affiliation::Outcast => (|is| is != Subscription::None, Subscription::None),
                _ => (|is| is == Subscription::Pending, Subscription::Subscribed),
            };
            let members = node.members.iter();
            let concerned =
                members.filter(|(of, m)| of.bare_str() == jid.as_str() && from(m.subscription));
            let concerned: Vec<Jid> = concerned.map(|(of, _)| of.clone()).collect();
            for of in concerned {
                change.subscribes(name, node, &of, to);
            }
        }
        Ok(self.stored(change))
    }
}
