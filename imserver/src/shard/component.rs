//! Components (XEP-0114): one session each, which is a whole domain.
//!
//! In: streams of components, stanzas for an address in the domain of one. Out: the same as of any session.
//! Owns: what differs from somebody's client. A component is an entity like an account, whose address is its domain: it has an inbox, a
//! record in the session store, one home. What may be kept (messages of type chat and normal) waits for it; anything else comes back
//! with an error while it is not there.
//! Never: lets a component speak for an address outside its domain; asks a directory about one.
//!
//! Where XEP-0114 leaves a choice: a second stream of the same component replaces the first, which is told `conflict`: whoever has
//! proved last to know the secret is there, and the other may be a connection that nobody has noticed to be dead.

use super::presence::HELD_PRESENCE_MAX;
use super::stream::{copied, hash};
use super::user::Queued;
use super::{After, Shard, domain_of};
use crate::carbons::Copy;
use crate::event::*;
use crate::presence;
use crate::routing::{self, IqType, MessageType, PresenceType, Retention, StanzaKind};
use crate::session::{Available, Session, Stage, asked};
use bytes::Bytes;
use proto::frame::CloseReason;
use std::sync::Arc;
use xmpp::element::Element;
use xmpp::error::{StanzaError, StreamError};
use xmpp::jid::{BareJid, Jid};
use xmpp::ns;
use xmpp::stanza::{Direction, Rewrite, is_reserved};

/// The resourcepart of every component's session: sessions have one.
const RESOURCE: &str = "component";

impl Shard {
    // ---- the session ------------------------------------------------------------------------------------

    /// It is the session of a component.
    pub(super) fn is_component(&self, slot: u32) -> bool {
        let session = self.sessions.get(slot as usize);
        session
            .and_then(|s| s.bound())
            .is_some_and(|b| b.is_component())
    }

    /// A component has proved who it is: it is bound where its domain is at home.
    pub(super) fn component_logs_in(&mut self, slot: u32, number: u64, domain: &str) {
        if !self.session(slot).mux.allows(domain) {
            return self.stream_error(slot, StreamError::NotAuthorized);
        }
        let Ok(domain) = BareJid::from_parts(None, domain) else {
            return self.stream_error(slot, StreamError::InternalServerError);
        };
        self.status.logins += 1;
        let home = self.home(&domain);
        if home == self.id {
            return self.bind_component(slot, number);
        }
        self.negotiating = self.negotiating.saturating_sub(1);
        self.rehome(slot, home);
    }

    /// The session comes from the shard where it has proved who it is.
    pub(super) fn adopted_component(&mut self, slot: u32) {
        let session = self.session(slot);
        let number = session.last_element();
        if matches!(&session.stage, Stage::Negotiating(n) if n.component().is_some()) {
            self.bind_component(slot, number);
        }
    }

    fn bind_component(&mut self, slot: u32, number: u64) {
        let session = self.session(slot);
        let Stage::Negotiating(negotiation) = &session.stage else {
            return;
        };
        let domain = negotiation.component().unwrap_or_default().to_owned();
        let jid = BareJid::from_parts(None, &domain).and_then(|d| d.with_resource(RESOURCE));
        let (Ok(jid), Some(key)) = (jid, session.key) else {
            return self.stream_error(slot, StreamError::InternalServerError);
        };
        let others = self.users.get(&jid.bare()).map(|u| u.sessions.clone());
        for other in others.unwrap_or_default() {
            self.end_session(other, Some(StreamError::Conflict), CloseReason::Replaced);
        }
        // It takes everything, from the beginning.
        let presence = Available {
            priority: 0,
            away: false,
            prefix: Bytes::new(),
            suffix: Bytes::new(),
        };
        let result = Bytes::from_static(b"<handshake/>");
        self.bind_as(slot, key, number, jid, Some(presence), result);
    }

    /// The session is known to the store: the component hears that it is connected, what it may do, and what has waited for it.
    pub(super) fn component_is_bound(&mut self, slot: u32, result: Bytes) {
        self.send_nonza(slot, result);
        let Some(domain) = self.session(slot).bound().map(|b| b.account.clone()) else {
            return;
        };
        self.tell_privileges(slot, &domain, None);
        tracing::info!(component = domain.as_str(), "component connected");
        self.start_flood(slot);
    }

    /// Components that the configuration does not have any more.
    pub(super) fn end_strange_components(&mut self) {
        let settings = self.settings.clone();
        let strange = |session: &Session| {
            let bound = session.bound().filter(|b| b.is_component());
            bound.is_some_and(|b| settings.component(b.account.domainpart()).is_none())
        };
        let slots = self.sessions.iter().filter(|(_, s)| strange(s));
        let slots: Vec<u32> = slots.map(|(slot, _)| slot as u32).collect();
        for slot in slots {
            self.end_session(
                slot,
                Some(StreamError::HostGone),
                CloseReason::PolicyViolation,
            );
        }
    }

    // ---- what it says -----------------------------------------------------------------------------------

    pub(super) fn component_element(&mut self, slot: u32, element: Element) {
        let now = self.now;
        let session = self.session(slot);
        if element.stanza_kind().is_none() {
            // A restarted server takes a handshake again that it had accepted and not settled.
            let again = session.resumed && session.stanza_number() == 0;
            if again && element.is("handshake", ns::COMPONENT) {
                let number = session.begin_element(false, now);
                self.send_nonza(slot, Bytes::from_static(b"<handshake/>"));
                return self.session(slot).done(number);
            }
            return self.stream_error(slot, StreamError::UnsupportedStanzaType);
        }
        let number = session.begin_element(true, now);
        self.status.stanzas_in += 1;
        let account = session_account(self, slot);
        let address = |name: &str| element.attr(name).map(|a| Jid::parse(&a));
        let (from, to) = match (address("from"), address("to")) {
            // XEP-0114 §3: every stanza has both.
            (None, _) | (_, None) => {
                return self.stream_error(slot, StreamError::ImproperAddressing);
            }
            (Some(Ok(from)), _) if from.domainpart() != account.domainpart() => {
                return self.stream_error(slot, StreamError::InvalidFrom);
            }
            (Some(Err(_)), _) => return self.stream_error(slot, StreamError::InvalidFrom),
            (_, Some(Err(_))) => {
                return self.refuse(slot, number, &element, StanzaError::JidMalformed);
            }
            (Some(Ok(from)), Some(Ok(to))) => (from, to),
        };
        let kind = match StanzaKind::of(&element) {
            Some(Ok(kind)) => kind,
            Some(Err(condition)) => return self.refuse(slot, number, &element, condition),
            None => unreachable!("it is a stanza"),
        };
        let settings = self.settings.clone();
        let ours = |by: &str| settings.speaks_for(by);
        // An IQ has one child, which is its own affair.
        let cuts = !matches!(kind, StanzaKind::Iq(_));
        let bytes = Rewrite::new(&element)
            .set("from", from.as_str())
            .set("to", to.as_str())
            .cut(|child| cuts && is_reserved(Direction::FromComponent, child, ours))
            .finish();
        self.send_from_component(slot, number, from, to, kind, bytes);
    }

    /// A stanza of a component, or what it has asked to be sent, on its way.
    pub(super) fn send_from_component(
        &mut self,
        slot: u32,
        number: u64,
        from: Jid,
        to: Jid,
        kind: StanzaKind,
        bytes: Bytes,
    ) {
        let token = Some(self.token(slot, number));
        let session = self.session(slot);
        let stanza = session.origin_stanza();
        let name = session.name.map_or(0, |name| name.0);
        // As its recipient will see it, in the namespace of clients.
        let Ok(element) = Element::parse(bytes.clone()) else {
            return self.done(token);
        };
        if let StanzaKind::Presence(PresenceType::Subscription(kind)) = kind {
            return self.subscribe_from_component(kind, &from, &to, &element, token);
        }
        if let (StanzaKind::Iq(IqType::Get | IqType::Set), Some(id)) = (kind, element.attr("id"))
            && let Some(bound) = self.session(slot).bound_mut()
        {
            bound.asked.note(to.as_str(), &id, asked::COMPONENT_MAX);
        }
        let retention = match kind {
            StanzaKind::Message(t) => routing::retention(t, &element),
            _ => Retention::Drop,
        };
        let kept = matches!(
            kind,
            StanzaKind::Message(MessageType::Chat | MessageType::Normal)
        );
        let origin = kept.then(|| store::Origin {
            session: name,
            stanza,
            hash: hash(&bytes),
        });
        let stanza = Routed {
            kind,
            from,
            to,
            bytes,
            retention,
            origin,
            copies: copied(kind, &element, Copy::Received),
            token,
        };
        if let StanzaKind::Presence(PresenceType::Available | PresenceType::Unavailable) = kind {
            self.watch_contact(&stanza, &element);
        }
        match self.on_behalf(&stanza, &element) {
            None => self.route(Box::new(stanza)),
            Some(Ok(message)) => self.route(Box::new(message)),
            Some(Err(condition)) => self.bounce(Box::new(stanza), condition, None),
        }
    }

    /// RFC 6121 §3: subscriptions are between bare addresses.
    fn subscribe_from_component(
        &mut self,
        kind: crate::subscription::Kind,
        from: &Jid,
        to: &Jid,
        element: &Element,
        token: Option<Token>,
    ) {
        let (from, to) = (from.bare(), to.bare());
        let bytes = Rewrite::new(element)
            .set("from", from.as_str())
            .set("to", to.as_str())
            .finish();
        if !self.settings.reaches(to.domainpart()) || to.localpart().is_none() {
            return self.done(token);
        }
        let subscription = Subscription {
            kind,
            from,
            bytes,
            token,
            to,
        };
        self.tell(
            self.home(&subscription.to),
            ShardMsg::Subscription(Box::new(subscription)),
        );
    }

    // ---- what is for it ---------------------------------------------------------------------------------

    /// Its session, if it is connected.
    pub(super) fn component_session(&self, account: &BareJid) -> Option<u32> {
        let user = self.users.get(account)?;
        let ready = |slot: &&u32| {
            let session = self.sessions.get(**slot as usize);
            session.and_then(|s| s.bound()).is_some_and(|b| b.ready)
        };
        user.sessions.iter().find(ready).copied()
    }

    /// A stanza for an address of a component that is loaded: what may be kept is.
    pub(super) fn stanza_for_component(&mut self, stanza: Box<Routed>, account: &BareJid) {
        let kept = matches!(
            stanza.kind,
            StanzaKind::Message(MessageType::Chat | MessageType::Normal)
        );
        if kept && stanza.retention.stores() {
            return self.store_message(stanza, account);
        }
        self.behind_what_is_stored(stanza, account);
    }

    /// What is not kept waits behind what is being stored (RFC 6120 §10.1).
    fn behind_what_is_stored(&mut self, stanza: Box<Routed>, account: &BareJid) {
        if self.users.get(account).is_some_and(|u| u.loading.is_some()) {
            return self.queue_for(account, Queued::Stanza(stanza));
        }
        let (write, durable) = (self.write_number, self.durable);
        let user = self.users.get_mut(account);
        match user.filter(|u| u.last_write > durable) {
            Some(user) => {
                user.last_write = write;
                self.after(write, After::Stanza(stanza));
            }
            None => self.give_to_component(stanza, account),
        }
    }

    /// Gives a component what is not kept for it.
    pub(super) fn give_to_component(&mut self, stanza: Box<Routed>, account: &BareJid) {
        let Some(slot) = self.component_session(account) else {
            let text = Some("The component is not connected");
            return self.bounce(stanza, StanzaError::RemoteServerTimeout, text);
        };
        match stanza.kind {
            StanzaKind::Iq(IqType::Get | IqType::Set) => return self.give_request(slot, stanza),
            StanzaKind::Presence(kind) => return self.presence_to_component(slot, stanza, kind),
            _ => self.give_unstored(slot, &stanza),
        }
        self.done(stanza.token);
    }

    /// Not merged, as for a client: it is for one of many addresses. What does not fit does not end the session, or one user could
    /// throw a component off for everybody: its sender is told, and that somebody has gone is kept until there is room.
    fn presence_to_component(&mut self, slot: u32, stanza: Box<Routed>, kind: PresenceType) {
        let (from, to) = (stanza.from.as_str(), stanza.to.as_str());
        let gone = presence::stanza(Some("unavailable"), None, from, to);
        let Some(bound) = self.session(slot).bound_mut() else {
            return self.done(stanza.token);
        };
        // The newest counts.
        bound.held_presence.retain(|(_, held)| *held != gone);
        if self.give_behind(slot, stanza.bytes.clone()) {
            return self.done(stanza.token);
        }
        let bound = self.session(slot).bound_mut();
        if let (PresenceType::Unavailable, Some(bound)) = (kind, bound)
            && bound.held_presence.len() < HELD_PRESENCE_MAX
        {
            bound.held_presence.push((stanza.from.clone(), gone));
            return self.done(stanza.token);
        }
        let text = "The component is behind with its output; try again";
        self.bounce(stanza, StanzaError::ResourceConstraint, Some(text));
    }

    /// Presence for an address of a component: it never loads an entity.
    pub(super) fn presence_for_component(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        if self.component_session(&account).is_some() {
            return self.behind_what_is_stored(stanza, &account);
        }
        let asks = matches!(
            stanza.kind,
            StanzaKind::Presence(PresenceType::Available | PresenceType::Subscription(_))
        );
        match asks && stanza.token.is_some() {
            true => self.give_to_component(stanza, &account),
            false => self.done(stanza.token),
        }
    }

    /// Presence of one for many, some of which are addresses of components at home here.
    pub(super) fn fan_to_components(&mut self, fan: &Arc<PresenceFan>, targets: &[BareJid]) {
        let kind = match fan.available {
            true => PresenceType::Available,
            false => PresenceType::Unavailable,
        };
        for target in targets {
            if self.settings.component(target.domainpart()).is_some() {
                let to = Jid::Bare(target.clone());
                self.send_presence(&fan.from, to, &fan.prefix, &fan.suffix, kind);
            }
        }
    }

    /// Somebody wants to know how an address of a component is: it says so itself (RFC 6121 §4.3.1).
    pub(super) fn probe_component(&mut self, from: &Jid, target: &BareJid) {
        if self.component_session(&domain_of(target)).is_none() {
            return;
        }
        let bytes = presence::stanza(Some("probe"), None, from.as_str(), target.as_str());
        self.stanza(Box::new(Routed {
            kind: StanzaKind::Presence(PresenceType::Probe),
            from: from.clone(),
            to: Jid::Bare(target.clone()),
            bytes,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: None,
        }));
    }

    /// A subscription stanza for an address of a component.
    pub(super) fn subscription_of_component(&mut self, s: Subscription) {
        self.stanza(Box::new(Routed {
            kind: StanzaKind::Presence(PresenceType::Subscription(s.kind)),
            from: Jid::Bare(s.from),
            to: Jid::Bare(s.to),
            bytes: s.bytes,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: s.token,
        }));
    }
}

fn session_account(shard: &mut Shard, slot: u32) -> BareJid {
    let bound = shard.session(slot).bound();
    bound.expect("only bound sessions get here").account.clone()
}
