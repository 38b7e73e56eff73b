//! What components do in the name of our people, and hear of them (XEP-0356). What each may, `crate::privileges` says.
//!
//! In: messages and requests in somebody's name, requests for rosters, presence and rosters as they change, the tick. Out: stanzas.
//! Owns: requests in somebody's name until they are answered; how far each component has been told who is there.
//! Never: loads an account to tell a component how it is; gives a name to anybody but whom the operator has granted it.
//!
//! A request in an account's name is sent by the account's home, under an id of ours; its answer comes to the account's bare address, and
//! is told from others by that id and by who answers. It dies with a kill, as the answer to a client's request does that is away.

use super::Shard;
use super::stream::{copied, hash};
use super::user::{Gone, Queued};
use crate::carbons::Copy;
use crate::event::*;
use crate::iq::roster::parse_set;
use crate::privileges::{self, Presence, Privileges};
use crate::roster::GroupPart;
use crate::routing::{self, IqType, MessageType, PresenceType, Retention, StanzaKind};
use crate::settings::Settings;
use bytes::Bytes;
use std::collections::BTreeMap;
use xmpp::element::Element;
use xmpp::error::{ErrorType, StanzaError};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::{Direction, Rewrite, iq_result_with, is_reserved};

/// Requests in names of accounts of one shard that have not been answered: they are a few hundred bytes each, and a component that asks
/// for everybody asks for one after the other.
const ASKED_MAX: usize = 5_000;
/// How long an answer is waited for: as long as clients wait.
const ANSWER_MS: u64 = 60_000;
/// Accounts that a component is told of at once, and bytes: a shard is not held up for longer than a millisecond or two, and
/// a page fits into half of the smallest output window.
const PAGE_MAX: usize = 500;
const PAGE_BYTES_MAX: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Privileged {
    asked: BTreeMap<u64, Asked>,
    listings: BTreeMap<BareJid, Place>,
    listings_made: u64,
    /// What the last contact that is no account has said, to one of those who hear it: the others hear the same.
    last_said: Option<(Jid, u64)>,
}

/// A request in an account's name.
#[derive(Debug)]
struct Asked {
    account: BareJid,
    /// Who is to answer.
    to: Jid,
    /// The id it had, if any.
    id: Option<String>,
    /// Who has made it, with which id.
    by: Jid,
    by_id: String,
    since_ms: u64,
}

/// How far a component has been told who is there.
#[derive(Debug)]
struct Place {
    number: u64,
    shard: u16,
    after: Option<BareJid>,
    /// A page is on its way.
    asked: bool,
}

impl Shard {
    // ---- what it may do, told ---------------------------------------------------------------------------

    /// A component is connected, or (`before`) may do something else from now on.
    pub(super) fn tell_privileges(
        &mut self,
        slot: u32,
        domain: &BareJid,
        before: Option<&Privileges>,
    ) {
        let settings = self.settings.clone();
        let Some(component) = settings.component(domain.domainpart()) else {
            return;
        };
        let privileges = &component.privileges;
        for served in &settings.domains {
            if let Some(stanza) = privileges.advertised(before, &component.domain, served) {
                self.send_stanza(slot, stanza);
            }
        }
        if before.is_none_or(|b| b.presence < privileges.presence) {
            self.list_for(domain);
        }
    }

    /// New settings.
    pub(super) fn privileges_changed(&mut self, before: &Settings) {
        let settings = self.settings.clone();
        for component in &settings.components.all {
            let was = before.component(&component.domain).map(|c| &c.privileges);
            let domain = BareJid::from_parts(None, &component.domain);
            if let (Some(was), Ok(domain)) = (was, domain)
                && *was != component.privileges
                && let Some(slot) = self.component_session(&domain)
            {
                self.tell_privileges(slot, &domain, Some(was));
            }
        }
    }

    // ---- messages (§5) ----------------------------------------------------------------------------------

    /// A message to one of our domains that is to be sent in somebody else's name; a request in somebody's name, that may not be.
    /// `None`: it is neither, and goes on its way.
    pub(super) fn on_behalf(
        &self,
        stanza: &Routed,
        element: &Element,
    ) -> Option<Result<Routed, StanzaError>> {
        let settings = &self.settings;
        let component = settings.component(stanza.from.domainpart())?;
        let serves = |domain: &str| settings.serves(domain);
        if let StanzaKind::Iq(iq_type @ (IqType::Get | IqType::Set)) = stanza.kind {
            let privileged = element.child("privileged_iq", ns::PRIVILEGE)?;
            let privileges = &component.privileges;
            let request =
                privileges.request(name_of(iq_type), &stanza.to, &privileged.tree(), serves);
            return request.err().map(Err);
        }
        let domain = stanza.to.localpart().is_none() && serves(stanza.to.domainpart());
        let privilege = element
            .child("privilege", ns::PRIVILEGE)
            .filter(|_| domain)?;
        let message = component.privileges.message(&privilege.tree(), serves);
        Some(message.and_then(|message| {
            let element = Element::parse(message.stanza.to_bytes(ns::CLIENT));
            let element = element.map_err(|_| StanzaError::BadRequest)?;
            let kind = MessageType::of(&element);
            let ours = |by: &str| settings.speaks_for(by);
            let bytes = Rewrite::new(&element)
                .cut(|child| is_reserved(Direction::FromClient, child, ours))
                .finish();
            Ok(Routed {
                kind: StanzaKind::Message(kind),
                retention: routing::retention(kind, &element),
                copies: copied(StanzaKind::Message(kind), &element, Copy::Received),
                from: message.from,
                to: message.to,
                bytes,
                origin: stanza.origin,
                token: stanza.token,
            })
        }))
    }

    // ---- requests (§6) ----------------------------------------------------------------------------------

    /// A component wants something asked in the name of this account, which is loaded.
    pub(super) fn ask_in_name(&mut self, stanza: Box<Routed>, element: &Element) {
        let settings = self.settings.clone();
        let component = settings.component(stanza.from.domainpart());
        let privileged = element.child("privileged_iq", ns::PRIVILEGE);
        let (Some(component), Some(privileged), StanzaKind::Iq(iq_type)) =
            (component, privileged, stanza.kind)
        else {
            return self.bounce(stanza, StanzaError::Forbidden, None);
        };
        let serves = |domain: &str| settings.serves(domain);
        let (privileges, name) = (&component.privileges, name_of(iq_type));
        let request = privileges.request(name, &stanza.to, &privileged.tree(), serves);
        let mut request = match request {
            Ok(request) => request,
            Err(condition) => return self.bounce(stanza, condition, None),
        };
        let account = stanza.to.bare();
        if self.blocks(&account, &request.to) {
            let text = "The account has blocked this address";
            return self.bounce(stanza, StanzaError::NotAcceptable, Some(text));
        }
        if self.privileged.asked.len() >= ASKED_MAX {
            let text = "Wait for answers before you ask again";
            return self.bounce(stanza, StanzaError::ResourceConstraint, Some(text));
        }
        self.next_iq += 1;
        let n = self.next_iq;
        let id = request.stanza.attr("id").map(str::to_owned);
        request.stanza.set_attr("id", format!("named-{n:x}"));
        let asked = Asked {
            account,
            to: request.to.clone(),
            id,
            by: stanza.from.clone(),
            by_id: element.attr("id").unwrap_or_default().into_owned(),
            since_ms: self.now.mono_ms,
        };
        self.privileged.asked.insert(n, asked);
        self.route(Box::new(Routed {
            kind: stanza.kind,
            from: request.from,
            to: request.to,
            bytes: request.stanza.to_bytes(ns::CLIENT),
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: stanza.token,
        }));
    }

    /// An answer has come for the account itself: whether it is to such a request. Then it is on its way, and settles with it.
    pub(super) fn answered_in_name(&mut self, account: &BareJid, stanza: &Routed) -> bool {
        if self.privileged.asked.is_empty() {
            return false;
        }
        let Ok(element) = Element::parse(stanza.bytes.clone()) else {
            return false;
        };
        let id = element.attr("id");
        let id = id.as_deref().and_then(|id| id.strip_prefix("named-"));
        let Some(n) = id.and_then(|id| u64::from_str_radix(id, 16).ok()) else {
            return false;
        };
        let ours = |a: &Asked| a.account == *account && a.to == stanza.from;
        if !self.privileged.asked.get(&n).is_some_and(ours) {
            return false;
        }
        let Some(asked) = self.privileged.asked.remove(&n) else {
            return false;
        };
        let mut answer = element.tree();
        answer.set_attr("from", stanza.from.as_str());
        answer.set_attr("to", account.as_str());
        answer.set_attr("id", asked.id.unwrap_or_default());
        let bytes = privileges::answer(account.as_str(), asked.by.as_str(), &asked.by_id, answer);
        self.route(Box::new(Routed {
            kind: stanza.kind,
            from: Jid::Bare(account.clone()),
            to: asked.by,
            bytes,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: stanza.token,
        }));
        true
    }

    /// The tick: answers that have not come, and components for which there was no room.
    pub(super) fn tick_privileged(&mut self) {
        let since = |ms: u64| self.now.mono_ms.saturating_sub(ms);
        let late = |(n, a): (&u64, &Asked)| (since(a.since_ms) > ANSWER_MS).then_some(*n);
        let late: Vec<u64> = self.privileged.asked.iter().filter_map(late).collect();
        for n in late {
            let Some(asked) = self.privileged.asked.remove(&n) else {
                continue;
            };
            let error = StanzaError::RemoteServerTimeout;
            let bytes = Node::new("iq", ns::CLIENT)
                .with_attr("type", "error")
                .with_attr("from", asked.account.as_str())
                .with_attr("to", asked.by.as_str())
                .with_attr("id", asked.by_id)
                .with_raw(error.child_bytes(ErrorType::Wait, None))
                .to_bytes(ns::CLIENT);
            self.route(Box::new(Routed {
                kind: StanzaKind::Iq(IqType::Error),
                from: Jid::Bare(asked.account),
                to: asked.by,
                bytes,
                retention: Retention::Drop,
                origin: None,
                copies: false,
                token: None,
            }));
        }
        let waiting: Vec<BareJid> = self.privileged.listings.keys().cloned().collect();
        for component in waiting {
            self.list_on(&component);
        }
    }

    // ---- rosters (§4) -----------------------------------------------------------------------------------

    /// A roster that its owner does not ask for from a session, but as the owner would get it.
    pub(super) fn roster_by(&mut self, stanza: Box<Routed>, element: &Element) {
        let account = stanza.to.bare();
        if !self.has_roster(&account) {
            self.load(&account);
            return self.queue_for(&account, Queued::Stanza(stanza));
        }
        let query = element.child("query", ns::ROSTER);
        if let (StanzaKind::Iq(IqType::Set), Some(query)) = (stanza.kind, query) {
            if !self.may(&account, crate::policy::Right::SaveSettings) {
                return self.bounce(stanza, StanzaError::NotAllowed, None);
            }
            return match parse_set(query, &account) {
                Ok(set) => {
                    let (from, to) = (Some(account.as_str()), Some(stanza.from.as_str()));
                    let reply = iq_result_with(element, from, to, None);
                    self.roster_set_by(stanza, set, reply);
                }
                Err((condition, text)) => self.bounce(stanza, condition, Some(text)),
            };
        }
        let Some(roster) = self.users.get(&account).and_then(|u| u.roster.as_ref()) else {
            return self.bounce(stanza, StanzaError::ServiceUnavailable, None);
        };
        let view = &self.groups.view;
        let part = GroupPart::of(view.fingerprint(&account));
        let id = element.attr("id").unwrap_or_default();
        let to = stanza.from.as_str();
        let fetched = roster.fetch(None, &id, to, part, || view.contacts(&account));
        // As if it were for a session of the account, whose answers say no `from`.
        match said_by(fetched.result, &account) {
            Some(bytes) => self.reply(stanza, bytes),
            None => self.bounce(stanza, StanzaError::InternalServerError, None),
        }
    }

    /// A roster has changed: components that may know of it are told (§4.4).
    pub(super) fn push_to_components(&mut self, account: &BareJid, push: impl Fn(&str) -> Bytes) {
        let settings = self.settings.clone();
        for component in &settings.components.all {
            if !component.privileges.roster_pushes {
                continue;
            }
            let push = said_by(push(&component.domain), account);
            self.tell_component(
                account,
                &component.domain,
                StanzaKind::Iq(IqType::Set),
                push,
            );
        }
    }

    /// Nobody waits for it, and nothing comes back if it is not there.
    fn tell_component(
        &mut self,
        account: &BareJid,
        component: &str,
        kind: StanzaKind,
        bytes: Option<Bytes>,
    ) {
        let Ok(to) = BareJid::from_parts(None, component).map(Jid::Bare) else {
            return;
        };
        if let Some(bytes) = bytes
            && !self.blocks(account, &to)
        {
            self.route(Box::new(Routed {
                kind,
                from: Jid::Bare(account.clone()),
                to,
                bytes,
                retention: Retention::Drop,
                origin: None,
                copies: false,
                token: None,
            }));
        }
    }

    // ---- presence (§7) ----------------------------------------------------------------------------------

    /// A session of an account at home here has said how it is, for the first time or again.
    pub(super) fn tell_watchers(&mut self, said: &Gone, initial: bool) {
        let settings = self.settings.clone();
        let account = said.jid.bare();
        if account.localpart().is_none() {
            return;
        }
        for component in &settings.components.all {
            let told = match component.privileges.presence {
                Presence::None => false,
                Presence::ManagedEntity => initial || !said.available,
                Presence::Roster => initial || !said.available || self.is_heard(&account),
            };
            if told {
                self.show_component(&component.domain, said);
            }
        }
    }

    fn show_component(&mut self, component: &str, said: &Gone) {
        let Ok(to) = BareJid::from_parts(None, component).map(Jid::Bare) else {
            return;
        };
        let kind = match said.available {
            true => PresenceType::Available,
            false => PresenceType::Unavailable,
        };
        if !self.blocks(&said.jid.bare(), &to) {
            self.send_presence(&said.jid, to, &said.prefix, &said.suffix, kind);
        }
    }

    /// Some account of ours hears how this one is.
    fn is_heard(&self, account: &BareJid) -> bool {
        let audience = self.users.get(account).and_then(|u| u.audience.as_ref());
        let ours = |c: &BareJid| c.localpart().is_some() && self.settings.serves(c.domainpart());
        audience.is_some_and(|a| a.iter().any(ours)) || !self.groups_of(account, false).is_empty()
    }

    /// A contact that is no account, but an address of a component, says to an account of ours how it is. Many hear the same, and the
    /// components that may know of it hear it once (§8).
    pub(super) fn watch_contact(&mut self, stanza: &Routed, element: &Element) {
        let settings = self.settings.clone();
        let ours = stanza.to.localpart().is_some() && settings.serves(stanza.to.domainpart());
        let from = stanza.from.domainpart();
        let watches = |c: &&crate::settings::Component| {
            c.privileges.presence == Presence::Roster && c.domain != from
        };
        let mut watchers = settings.components.all.iter().filter(watches).peekable();
        if !ours || watchers.peek().is_none() {
            return;
        }
        let said = Rewrite::new(element).remove("to").remove("id").finish();
        let said = Some((stanza.from.clone(), hash(&said)));
        if said == self.privileged.last_said {
            return;
        }
        self.privileged.last_said = said;
        for watcher in watchers {
            if let Ok(to) = BareJid::from_parts(None, &watcher.domain) {
                self.route(Box::new(Routed {
                    kind: stanza.kind,
                    from: stanza.from.clone(),
                    bytes: Rewrite::new(element).set("to", to.as_str()).finish(),
                    to: Jid::Bare(to),
                    retention: Retention::Drop,
                    origin: None,
                    copies: false,
                    token: None,
                }));
            }
        }
    }

    /// The component is told who is there already (§8), a page at a time, shard after shard.
    pub(super) fn list_for(&mut self, component: &BareJid) {
        self.privileged.listings_made += 1;
        let place = Place {
            number: self.privileged.listings_made,
            shard: 0,
            after: None,
            asked: false,
        };
        self.privileged.listings.insert(component.clone(), place);
        self.list_on(component);
    }

    fn list_on(&mut self, component: &BareJid) {
        let settings = self.settings.clone();
        let watches = |c: &crate::settings::Component| c.privileges.presence != Presence::None;
        let slot = self.component_session(component);
        let known = settings.component(component.domainpart());
        let (Some(slot), true) = (slot, known.is_some_and(watches)) else {
            self.privileged.listings.remove(component);
            return;
        };
        let session = self.session(slot);
        let busy = session.bound().is_some_and(|b| b.floods())
            || !session.has_room(settings.output_window_bytes / 2, &settings);
        let Some(place) = self.privileged.listings.get_mut(component) else {
            return;
        };
        if busy || std::mem::replace(&mut place.asked, true) {
            return;
        }
        let list = Listing {
            component: component.clone(),
            number: place.number,
            by: self.id,
            after: place.after.clone(),
        };
        let shard = ShardId(place.shard);
        self.tell(shard, ShardMsg::List(Box::new(list)));
    }

    /// The next page of those who are there and at home here.
    pub(super) fn list(&mut self, mut list: Listing) {
        let later = |jid: &&BareJid| list.after.as_ref().is_none_or(|after| *jid > after);
        let people = |jid: &&BareJid| jid.localpart().is_some();
        let online = self.users.iter().filter(|(_, u)| !u.sessions.is_empty());
        let online = online.map(|(jid, _)| jid).filter(people).filter(later);
        let mut page: Vec<BareJid> = online.cloned().collect();
        if page.len() > PAGE_MAX {
            page.select_nth_unstable(PAGE_MAX);
        }
        let whole = page.len() <= PAGE_MAX;
        page.truncate(PAGE_MAX);
        page.sort_unstable();
        let mut room = PAGE_BYTES_MAX;
        let mut last = None;
        for account in page {
            if room == 0 {
                break;
            }
            for slot in self.available_sessions(&account) {
                let bound = self.sessions.get(slot as usize).and_then(|s| s.bound());
                let presence = bound.and_then(|b| Some((b.jid.clone(), b.presence.as_ref()?)));
                if let Some((jid, presence)) = presence {
                    let said = super::presence::said(&jid, presence);
                    room = room.saturating_sub(said.prefix.len() + said.suffix.len());
                    self.show_component(list.component.domainpart(), &said);
                }
            }
            last = Some(account);
        }
        list.after = last.filter(|_| !whole || room == 0);
        self.tell(list.by, ShardMsg::Listed(Box::new(list)));
    }

    /// A page is out.
    pub(super) fn listed(&mut self, list: Listing) {
        let place = self.privileged.listings.get_mut(&list.component);
        let Some(place) = place.filter(|p| p.number == list.number) else {
            return;
        };
        place.asked = false;
        place.shard += u16::from(list.after.is_none());
        place.after = list.after;
        if place.shard >= self.shards {
            self.privileged.listings.remove(&list.component);
        } else {
            self.list_on(&list.component);
        }
    }
}

const fn name_of(iq_type: IqType) -> &'static str {
    match iq_type {
        IqType::Get => "get",
        IqType::Set => "set",
        IqType::Result => "result",
        IqType::Error => "error",
    }
}

/// What is said by the account. `None`: it is no stanza.
fn said_by(stanza: Bytes, account: &BareJid) -> Option<Bytes> {
    let element = Element::parse(stanza).ok()?;
    Some(
        Rewrite::new(&element)
            .set("from", account.as_str())
            .finish(),
    )
}
