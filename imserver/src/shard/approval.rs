//! Asking an owner whether somebody may subscribe to a node, and hearing the answer (XEP-0060 §8.6): `crate::pubsub` decides.
//!
//! ```text
//!   subscribe ─► pending ─► request, a message to the account itself: a row as any other
//!                                 │ (written before the request for a subscription is answered)
//!   approve, deny ◄── answer ◄────┘ by whichever resource of an owner
//! ```
//! In: subscriptions that are to wait; messages to accounts. Out: requests; what is asked of nodes.
//! Owns: who has been asked about lately. Never: takes a message from the account that is no answer; asks twice about the same.

use super::Shard;
use super::pubsub::Waiting;
use crate::event::*;
use crate::iq::Target;
use crate::policy::Right;
use crate::pubsub::SUBSCRIPTIONS_PER_ACCOUNT_MAX;
use crate::pubsub::approval;
use crate::pubsub::ask::Ask;
use crate::routing::{MessageType, Retention, StanzaKind};
use std::collections::BTreeSet;
use store::PubsubChange;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};

/// Requests remembered for the nodes of one account: as many as there may be members.
const ASKED_MAX: usize = crate::pubsub::MEMBERS_OF_ACCOUNT_MAX;

/// About whom the owner has been asked while the nodes are in use, and has not answered: who withdraws a request and makes it again,
/// over and over, causes one message, and the answer to it is good. Forgotten with the nodes.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeSet<(String, BareJid, Jid)>);

impl Asked {
    /// Whether to ask now.
    fn is_new(&mut self, node: &str, subscriber: &Jid) -> bool {
        if self.0.len() >= ASKED_MAX {
            self.0.clear();
        }
        let account = subscriber.bare();
        let first = (node.to_owned(), account.clone(), Jid::Bare(account.clone()));
        let same = self.0.range(first..);
        let same = same.take_while(|(of, by, _)| of == node && *by == account);
        same.count() < SUBSCRIPTIONS_PER_ACCOUNT_MAX
            && self
                .0
                .insert((node.to_owned(), account, subscriber.clone()))
    }

    /// An owner has changed something: whoever it concerns may ask again.
    fn answered(&mut self, changes: &[PubsubChange]) {
        for change in changes {
            match change {
                PubsubChange::Member { node, jid, .. } => {
                    if let Ok(jid) = Jid::parse(jid) {
                        self.0.remove(&(node.clone(), jid.bare(), jid));
                    }
                }
                PubsubChange::Delete { node } => self.0.retain(|(of, ..)| of != node),
                _ => {}
            }
        }
    }
}

impl Shard {
    /// A message for an account may be the answer of an owner of its nodes. Gives it back if it is not.
    pub(super) fn take_approval(
        &mut self,
        stanza: Box<Routed>,
        account: &BareJid,
    ) -> Option<Box<Routed>> {
        let normal = stanza.kind == StanzaKind::Message(MessageType::Normal);
        // What a component says in somebody's name (XEP-0356 §5), and we in the account's, comes from the bare address: no answer.
        let in_name =
            stanza.from.as_full().is_none() && self.settings.serves(stanza.from.domainpart());
        if !normal
            || in_name
            || stanza.to.as_full().is_some()
            || !approval::may_be_answer(&stanza.bytes)
        {
            return Some(stanza);
        }
        let Ok(element) = Element::parse(stanza.bytes.clone()) else {
            return Some(stanza);
        };
        let Some(answer) = approval::answer(&element) else {
            return Some(stanza);
        };
        let own = stanza.from.bare_str() == account.as_str();
        let target = Target::Account {
            own,
            may_see: own || self.sees(account, &stanza.from.bare()),
        };
        let again = own && self.comes_again(&stanza);
        let mut waiting = Waiting {
            stanza,
            element: Box::new(element),
            target,
            ask: Ask::Default,
            again,
        };
        match answer {
            Ok(None) => self.done(waiting.stanza.token),
            Err(refusal) => self.answer_nodes(waiting, Err(refusal)),
            Ok(Some(_)) if own && !self.may(account, Right::SaveSettings) => {
                self.bounce(waiting.stanza, StanzaError::NotAllowed, None);
            }
            Ok(Some(ask)) => {
                waiting.ask = ask;
                self.ask_nodes(waiting);
            }
        }
        None
    }

    /// The account's own session was here before a restart: what it sends may have been carried out.
    fn comes_again(&self, stanza: &Routed) -> bool {
        let token = stanza.token.filter(|t| t.shard == self.id);
        let token = token.filter(|t| self.live(t.slot, t.generation));
        let session = token.and_then(|t| self.sessions.get(t.slot as usize));
        session.is_some_and(|s| s.resumed)
    }

    /// A request for a subscription cannot be decided before it is known where the owner would be asked.
    pub(super) fn must_know_owner(&self, owner: &BareJid, waiting: &Waiting) -> bool {
        let there = self.users.get(owner);
        matches!(waiting.ask, Ask::Subscribe(..))
            && waiting.stanza.from.bare_str() != owner.as_str()
            && !there.is_some_and(|u| u.exists && u.loading.is_none())
    }

    /// Nodes are about to change so. The request goes to disk first: with the write that follows, nobody waits whom the owner has not
    /// been asked about.
    pub(super) fn ask_owner(
        &mut self,
        owner: &BareJid,
        waiting: &Waiting,
        id: &str,
        changes: &[PubsubChange],
        request: Option<&(String, Jid)>,
    ) {
        let Some(entity) = self.nodes.get_mut(owner) else {
            return;
        };
        if !matches!(waiting.ask, Ask::Subscribe(..) | Ask::Unsubscribe(..)) {
            entity.asked.answered(changes);
        }
        let Some((node, subscriber)) = request else {
            return;
        };
        if !entity.asked.is_new(node, subscriber) {
            return;
        }
        let bytes = approval::request(owner, id, node, subscriber);
        let origin = waiting.stanza.origin.map(|origin| store::Origin {
            hash: super::stream::hash(&bytes),
            ..origin
        });
        let own = Jid::Bare(owner.clone());
        self.stanza(Box::new(Routed {
            kind: StanzaKind::Message(MessageType::Normal),
            from: own.clone(),
            to: own,
            bytes,
            retention: Retention::Store { archive: false },
            origin,
            copies: false,
            token: None,
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    #[test]
    fn the_owner_is_asked_once_about_an_address_until_there_is_an_answer() {
        let mut asked = Asked::default();
        assert!(asked.is_new("n", &jid("a@x")));
        assert!(!asked.is_new("n", &jid("a@x")));
        assert!(asked.is_new("m", &jid("a@x")));
        let answer = PubsubChange::Member {
            node: "n".into(),
            jid: "a@x".into(),
            state: None,
        };
        asked.answered(&[answer]);
        assert!(asked.is_new("n", &jid("a@x")));
        assert!(!asked.is_new("m", &jid("a@x")));
        asked.answered(&[PubsubChange::Delete { node: "m".into() }]);
        assert!(asked.is_new("m", &jid("a@x")));
    }

    #[test]
    fn an_account_is_asked_about_as_often_as_it_may_subscribe() {
        let mut asked = Asked::default();
        // Neighbours in order are others.
        assert!(asked.is_new("n", &jid("a@w/z")) && asked.is_new("n", &jid("a@xx")));
        for n in 0..SUBSCRIPTIONS_PER_ACCOUNT_MAX {
            assert!(asked.is_new("n", &jid(&format!("a@x/{n}"))), "{n}");
        }
        assert!(!asked.is_new("n", &jid("a@x/more")));
        assert!(asked.is_new("n", &jid("b@x")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut asked = Asked::default();
        for n in 0..ASKED_MAX + 10 {
            assert!(asked.is_new("n", &jid(&format!("a{n}@x"))));
        }
        assert!(asked.0.len() <= ASKED_MAX);
    }
}
