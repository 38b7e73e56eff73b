//! Keys of other hashes, made with a log-in of SASL 2 (XEP-0480), at the home of the account.
//!
//! In: a log-in that asks for some. Out: a read of the account, the tasks of the client, the write of the keys; then the log-in goes on.
//! Never: reads anything more of a client while it waits for the store; says that keys are there which the store has refused, or that
//! belong to a password which is not the account's any more.

use super::{After, Shard};
use crate::event::*;
use crate::session::Stage;
use xmpp::negotiation::{Action, Negotiation};
use xmpp::scram::ScramKeys;

impl Shard {
    /// It does, and the account is being looked at.
    pub(super) fn asks_for_upgrade(&mut self, slot: u32) -> bool {
        let Some(negotiation) = self.negotiation(slot) else {
            return false;
        };
        let Some(account) = negotiation.account().cloned() else {
            return false;
        };
        if negotiation.upgrade_wish().is_none() {
            return false;
        }
        let generation = self.generation(slot);
        let tag = ReadTag::Upgrade(slot, generation);
        self.fx.reads.push((tag, Read::Account(account)));
        true
    }

    /// Here it is. `None`: the store has none, or did not answer: the client can ask the next time.
    pub(super) fn upgrade(
        &mut self,
        slot: u32,
        generation: u32,
        account: Option<Box<store::Account>>,
    ) {
        if !self.live(slot, generation) {
            return;
        }
        let session = self.sessions.get_mut(slot as usize).expect("just checked");
        let Stage::Negotiating(negotiation) = &mut session.stage else {
            return;
        };
        let keys = account.as_ref().map(|account| &account.keys[..]);
        let actions = negotiation.upgrade(keys, &mut *self.random);
        self.next_task(slot, actions);
    }

    /// The keys go to the store; nothing is read of the client until they are there.
    pub(super) fn add_keys(&mut self, slot: u32, beside: &ScramKeys, keys: ScramKeys) {
        let Some(jid) = (self.negotiation(slot)).and_then(|n| n.account().cloned()) else {
            return;
        };
        self.session(slot).paused = true;
        let generation = self.generation(slot);
        let write = self.write(Write::Store(store::Write::AccountKeysAdd {
            jid,
            beside: beside.clone(),
            keys: vec![keys],
        }));
        self.after(write, After::KeysAdded { slot, generation });
    }

    /// The store has them, or has refused them.
    pub(super) fn keys_added(&mut self, slot: u32, failed: bool) {
        let Some(negotiation) = self.negotiation(slot) else {
            return;
        };
        let actions = match failed {
            true => negotiation.keys_not_added(),
            false => negotiation.keys_added(),
        };
        self.next_task(slot, actions);
    }

    /// The client has something to do, or to hear; or what it has asked for beside goes on.
    fn next_task(&mut self, slot: u32, actions: Vec<Action>) {
        if actions.is_empty() {
            return self.tokens_inline(slot);
        }
        let generation = self.generation(slot);
        let session = self.session(slot);
        session.paused = false;
        let number = session.last_element();
        self.act(slot, number, actions);
        if self.live(slot, generation) {
            self.settle(slot);
            self.parse(slot);
        }
    }

    fn negotiation(&mut self, slot: u32) -> Option<&mut Negotiation> {
        match &mut self.session(slot).stage {
            Stage::Negotiating(negotiation) => Some(negotiation),
            _ => None,
        }
    }
}
