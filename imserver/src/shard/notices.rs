//! Who comes and goes: what is remembered of it, and what the server says to them by itself.
//!
//! ```text
//! bound ──► activity: log-in          takes messages ──► first time here: the welcome, into the inbox
//! ended ──► activity: log-out                        └─► message of the day, if not told: a headline
//! ```
//! In: sessions that begin, take messages, end; the notices in force. Out: messages, and writes of activity.
//! Owns: who of those in memory has been told what. Never: tells a message of the day twice to who is known to have been told.

use super::Shard;
use crate::event::*;
use crate::notices::{Kind, Notices};
use crate::routing::{MessageType, Retention, StanzaKind};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Activity;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

impl Shard {
    fn remember(&mut self, owner: BareJid, facts: Activity) {
        self.write(Write::Store(store::Write::Activity { owner, facts }));
    }

    /// A session of the account begins.
    pub(super) fn has_come(&mut self, account: &BareJid) {
        if account.localpart().is_none() {
            return;
        }
        let facts = Activity {
            login_ms: self.now.unix_ms,
            ..Activity::default()
        };
        self.remember(account.clone(), facts);
    }

    /// One has ended.
    pub(super) fn has_gone(&mut self, account: &BareJid) {
        if account.localpart().is_none() {
            return;
        }
        let Some(user) = self.users.get(account).filter(|u| u.exists) else {
            // Nothing is left of a removed account.
            return;
        };
        let facts = Activity {
            logout_ms: self.now.unix_ms,
            motd: user.motd,
            ..Activity::default()
        };
        self.remember(account.clone(), facts);
    }

    /// What the store knows of the account has been read.
    pub(super) fn knows(&mut self, account: &BareJid, facts: &Activity) {
        if let Some(user) = self.users.get_mut(account) {
            // What was read may be older than what is known here.
            user.motd = user.motd.max(facts.motd);
            user.greeted = Some(user.greeted == Some(true) || facts.greeted_ms != 0);
        }
    }

    /// The session was here before the restart, and takes messages: it has been told what there was to tell.
    pub(super) fn was_told(&mut self, account: &BareJid) {
        let number = self.notices.get(Kind::Motd).map_or(0, |m| m.number);
        let user = self.user(account);
        user.motd = user.motd.max(number);
    }

    /// The session takes messages from now on.
    pub(super) fn greet(&mut self, slot: u32, account: &BareJid) {
        let notices = self.notices.clone();
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let Some(greeted) = user.greeted else {
            // What it has been told is not known: next time.
            return;
        };
        let motd = notices.get(Kind::Motd).filter(|m| m.number > user.motd);
        if greeted && motd.is_none() {
            return;
        }
        user.greeted = Some(true);
        user.motd = motd.map_or(user.motd, |m| m.number);
        let facts = Activity {
            greeted_ms: if greeted { 0 } else { self.now.unix_ms },
            motd: motd.map_or(0, |m| m.number),
            ..Activity::default()
        };
        self.remember(account.clone(), facts);
        if let Some(welcome) = notices.get(Kind::Welcome).filter(|_| !greeted) {
            self.welcome(account, welcome.content());
        }
        if let Some(motd) = motd {
            self.headline(slot, &motd.content());
        }
    }

    /// Into the inbox, like any message: it is there until some client has acknowledged it.
    fn welcome(&mut self, account: &BareJid, content: Bytes) {
        let Ok(from) = Jid::parse(account.domainpart()) else {
            return;
        };
        let stanza = Node::new("message", ns::CLIENT)
            .with_attr("from", from.as_str())
            .with_attr("to", account.as_str())
            .with_raw(content);
        self.route(Box::new(Routed {
            kind: StanzaKind::Message(MessageType::Normal),
            from,
            to: Jid::Bare(account.clone()),
            bytes: stanza.to_bytes(ns::CLIENT),
            retention: Retention::Store { archive: false },
            origin: None,
            copies: false,
            token: None,
        }));
    }

    /// Other notices are in force. With `tell`, whoever takes messages is told the message of the day. How many resources were.
    pub(super) fn take_notices(&mut self, notices: Arc<Notices>, tell: bool) -> usize {
        self.notices = notices;
        let Some(motd) = self.notices.get(Kind::Motd).filter(|_| tell).cloned() else {
            return 0;
        };
        let told = self.headlines(&AlertTo::Everybody, &motd.content());
        for account in &told {
            if let Some(user) = self.users.get_mut(account) {
                user.motd = motd.number;
            }
        }
        told.len()
    }

    /// A headline from the domain goes to every available resource that is not negative (RFC 6121 §8.5.2.1.1), and is kept
    /// for nobody. Whose resources got it, each as often as it was sent.
    pub(super) fn headlines(&mut self, whom: &AlertTo, content: &Bytes) -> Vec<BareJid> {
        let hear = |bound: &crate::session::Bound| {
            bound.ready && bound.takes_messages() && whom.is_for(&bound.account)
        };
        let to: Vec<(u32, BareJid)> = self
            .sessions
            .iter()
            .filter_map(|(slot, s)| {
                let bound = s.bound().filter(|b| hear(b))?;
                Some((slot as u32, bound.account.clone()))
            })
            .collect();
        for (slot, _) in &to {
            self.headline(*slot, content);
        }
        to.into_iter().map(|(_, account)| account).collect()
    }

    /// A headline for one session.
    fn headline(&mut self, slot: u32, content: &Bytes) {
        // What it was given before may have been more than it may leave untaken: then it is gone.
        let Some(jid) = self.session(slot).bound().map(|b| b.jid.clone()) else {
            return;
        };
        let Ok(from) = Jid::parse(jid.domainpart()) else {
            return;
        };
        let stanza = Node::new("message", ns::CLIENT)
            .with_attr("type", "headline")
            .with_attr("from", from.as_str())
            .with_attr("to", jid.as_str())
            .with_raw(content.clone());
        let stanza = Routed {
            kind: StanzaKind::Message(MessageType::Headline),
            from,
            to: Jid::Full(jid),
            bytes: stanza.to_bytes(ns::CLIENT),
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: None,
        };
        self.give_unstored(slot, &stanza);
    }

    /// Who is online, in order: those after an address, so many at most.
    pub(super) fn list_online(&self, which: &OnlineQuery) -> Vec<BareJid> {
        let mut least = BTreeSet::new();
        for (jid, user) in &self.users {
            let after = which.after.as_ref().is_none_or(|after| jid > after);
            let full = least.len() >= which.limit;
            if !after || full && least.last().is_none_or(|last| jid > *last) {
                continue;
            }
            let ours = which.domain.as_ref().is_none_or(|d| d == jid.domainpart());
            if ours && !user.sessions.is_empty() && which.state.is(self.is_active(&user.sessions)) {
                least.insert(jid);
                if full {
                    least.pop_last();
                }
            }
        }
        least.into_iter().cloned().collect()
    }

    /// How many people of a domain are online, and how many of them active.
    pub(super) fn count_online(&self, domain: &str) -> (u64, u64) {
        let online = self
            .users
            .iter()
            .filter(|(jid, user)| jid.domainpart() == domain && !user.sessions.is_empty());
        online.fold((0, 0), |(online, active), (_, user)| {
            (
                online + 1,
                active + u64::from(self.is_active(&user.sessions)),
            )
        })
    }

    /// Some resource is available and does not say that nobody is there.
    fn is_active(&self, sessions: &[u32]) -> bool {
        sessions.iter().any(|&slot| {
            let session = self.sessions.get(slot as usize);
            let presence = session.and_then(|s| s.bound()?.presence.as_ref());
            presence.is_some_and(|p| !p.away)
        })
    }
}
