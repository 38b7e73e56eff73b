//! Push notifications (XEP-0357) on a shard: messages that nobody acknowledges are told to the services of clients that are away.
//!
//! In: messages on disk, acknowledgements, the tick, answers of services. Out: publish requests, from the account.
//! Owns: when each account is looked at next: one entry for each that has something to tell.
//! Never: loads an account for it, but that a message has loaded it; sends more than `crate::push` allows.

use super::Shard;
use crate::event::*;
use crate::iq::push::Change;
use crate::push::{self, Client, Push};
use crate::routing::{IqType, Retention, StanzaKind};
use crate::session::Unacked;
use bytes::Bytes;
use store::PushService;
use xmpp::element::Element;
use xmpp::jid::{BareJid, Jid};

impl Shard {
    /// A session wants notifications, or none any more. The account is loaded.
    pub(super) fn change_push(
        &mut self,
        slot: u32,
        number: u64,
        account: BareJid,
        change: Change,
        (reply, failure, too_many): (Bytes, Bytes, Bytes),
    ) {
        let max = self.settings.push_services_max;
        let resource = self
            .session(slot)
            .bound()
            .map(|b| b.jid.resourcepart().to_owned());
        let user = self.user(&account);
        let pending = user.pending;
        let mut push =
            (user.push.take()).unwrap_or_else(|| Box::new(Push::without_services(pending)));
        let (put, remove) = match change {
            Change::Enable(service, node, options) => {
                let stored = PushService {
                    service,
                    node,
                    resource: resource.unwrap_or_default(),
                    options,
                };
                let known = |s: &push::Service| {
                    s.stored.service == stored.service && s.stored.node == stored.node
                };
                if push.services().len() >= max && !push.services().iter().any(known) {
                    user.push = Some(push).filter(|p| !p.services().is_empty());
                    self.send_stanza(slot, too_many);
                    return self.session(slot).done(number);
                }
                (Some(stored.clone()), push.enable(stored))
            }
            Change::Disable(service, node) => (None, push.disable(&service, node.as_deref())),
        };
        user.push = Some(push).filter(|p| !p.services().is_empty());
        let write = self.write(Write::Store(store::Write::Push {
            owner: account,
            put,
            remove,
        }));
        self.answer_after(write, slot, number, reply, failure);
    }

    /// A message for the account is on disk.
    pub(super) fn push_message(&mut self, account: &BareJid, stanza: &Routed, position: u64) {
        let push = self.users.get_mut(account).and_then(|u| u.push.as_mut());
        let Some(push) = push else { return };
        push.stored(position);
        let Some(body) = push::worth(&stanza.bytes) else {
            return;
        };
        // Somebody may acknowledge it, if anybody looks.
        let slots = self.available_sessions(account);
        let looked_at = slots.iter().any(|&s| self.client_at(s) == Client::Active);
        let after = if looked_at {
            self.settings.push_after
        } else {
            Default::default()
        };
        let due_ms = self.now.mono_ms + after.as_millis() as u64;
        let push = self.users.get_mut(account).and_then(|u| u.push.as_mut());
        if let Some(push) = push {
            push.message(position, stanza.from.clone(), body);
            self.push_later(account, due_ms);
        }
    }

    /// The account is looked at then, if not sooner.
    fn push_later(&mut self, account: &BareJid, due_ms: u64) {
        let push = self.users.get_mut(account).and_then(|u| u.push.as_mut());
        let Some(push) = push.filter(|p| p.due_ms.is_none_or(|d| d > due_ms)) else {
            return;
        };
        if let Some(before) = push.due_ms.replace(due_ms) {
            self.push_due.remove(&(before, account.clone()));
        }
        self.push_due.insert((due_ms, account.clone()));
    }

    /// How the client with this session is.
    fn client_at(&self, slot: u32) -> Client {
        match self.sessions.get(slot as usize) {
            None => Client::Gone,
            Some(s) if s.is_away() || s.is_inactive() || s.key.is_none() => Client::Elsewhere(slot),
            Some(_) => Client::Active,
        }
    }

    /// A session has acknowledged messages.
    pub(super) fn push_acknowledged(&mut self, account: &BareJid, slot: u32, these: &[Unacked]) {
        let active = self.client_at(slot) == Client::Active;
        if let Some(push) = self.users.get_mut(account).and_then(|u| u.push.as_mut()) {
            these
                .iter()
                .for_each(|u| push.acknowledged(u.position, slot, active));
        }
    }

    /// The tick: accounts whose time has come.
    pub(super) fn tick_push(&mut self) {
        let now_ms = self.now.mono_ms;
        while self.push_due.first().is_some_and(|(due, _)| *due <= now_ms)
            && let Some((_, account)) = self.push_due.pop_first()
        {
            self.tell_services(&account);
        }
    }

    fn tell_services(&mut self, account: &BareJid) {
        let now_ms = self.now.mono_ms;
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let Some(mut push) = user.push.take() else {
            return;
        };
        push.due_ms = None;
        let told = push.due(now_ms, |resource| {
            let with = |slot: &&u32| {
                let bound = self.sessions.get(**slot as usize).and_then(|s| s.bound());
                bound.is_some_and(|b| b.jid.resourcepart() == resource)
            };
            let slots = self.users.get(account).map(|u| u.sessions.iter());
            let slot = slots.and_then(|mut s| s.find(with));
            slot.map_or(Client::Gone, |&slot| self.client_at(slot))
        });
        let what = (self.settings.push_sender, self.settings.push_body);
        for notification in told {
            self.next_iq += 1;
            let id = self.next_iq;
            let stored = &push.services()[notification.service].stored;
            if self.blocks(account, &stored.service) {
                continue;
            }
            let stanza = Routed {
                kind: StanzaKind::Iq(IqType::Set),
                from: Jid::Bare(account.clone()),
                to: stored.service.clone(),
                bytes: push::publish(account, stored, id, &notification, what),
                retention: Retention::Drop,
                origin: None,
                copies: false,
                token: None,
            };
            push.asked(notification.service, id);
            self.route(Box::new(stanza));
        }
        let again = !push.is_quiet();
        if let Some(user) = self.users.get_mut(account) {
            user.push = Some(push);
        }
        if again {
            let after = self.settings.push_after.as_millis() as u64;
            self.push_later(account, now_ms + after.max(1_000));
        }
    }

    /// An answer has come for the account itself.
    pub(super) fn push_answered(&mut self, account: &BareJid, stanza: &Routed) {
        let push = self.users.get_mut(account).and_then(|u| u.push.as_mut());
        let (Some(push), Ok(element)) = (push, Element::parse(stanza.bytes.clone())) else {
            return;
        };
        let Some(id) = element.attr("id").and_then(|id| push::id_of(&id)) else {
            return;
        };
        let error = element
            .content_child("error")
            .map(|e| e.attr("type").unwrap_or_default().into_owned());
        let Some((service, node)) = push.answered(&stanza.from, id, error.as_deref()) else {
            return;
        };
        tracing::info!(
            account = account.as_str(),
            service = service.as_str(),
            "a push service has refused what it was told so often that it is given up, until a client names it again"
        );
        if let Some(user) = self.users.get_mut(account) {
            user.push = user.push.take().filter(|p| !p.services().is_empty());
        }
        self.write(Write::Store(store::Write::Push {
            owner: account.clone(),
            put: None,
            remove: vec![(service, node)],
        }));
    }
}
