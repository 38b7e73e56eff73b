//! Rosters and subscriptions: the account's own changes, and what other accounts ask of it (RFC 6121 §2, §3).
//!
//! Owns: loading and unloading of the roster. Decides nothing: `subscription` and `roster` do.

use super::user::{ArchivePrefs, Loading, Queued, User};
use super::{After, Shard};
use crate::archive::prefs::Prefs;
use crate::blocking::Blocklist;
use crate::event::*;
use crate::iq::roster::Set;
use crate::presence;
use crate::roster::{Applied, Change, GroupPart, Roster, own_part};
use crate::routing::{PresenceType, Retention, StanzaKind};
use crate::session::OutKind;
use crate::subscription::{self, Kind, Outcome, State, Step};
use bytes::Bytes;
use proto::limits::OUTPUT_ELEMENT_BYTES_MAX;
use std::collections::VecDeque;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::stanza::{Direction, Rewrite, is_reserved};

/// What a change of a roster leads to, once it is on disk.
#[derive(Debug)]
pub(super) struct Steps {
    account: BareJid,
    contact: BareJid,
    steps: &'static [Step],
    change: Option<Change>,
    stanza: Option<(Kind, Bytes)>,
    token: Option<Token>,
}

/// What a roster set comes to.
enum Edited {
    /// Nothing of it is the account's own: its clients are told how it is.
    Shown(BareJid),
    Refused(StanzaError, Option<&'static str>),
    /// To be stored, and what follows from it.
    Changed(BareJid, Outcome, Applied),
}

impl Shard {
    pub(super) fn user(&mut self, account: &BareJid) -> &mut User {
        let now = self.now.mono_ms;
        let user = self
            .users
            .entry(account.clone())
            .or_insert_with(|| Box::new(User::new(now)));
        user.used_ms = now;
        user
    }

    pub(super) fn has_roster(&self, account: &BareJid) -> bool {
        self.users
            .get(account)
            .is_some_and(|u| u.roster.is_some() && u.loading.is_none())
    }

    /// Loads an account, unless it is being loaded.
    pub(super) fn load(&mut self, account: &BareJid) {
        let now = self.now.mono_ms;
        let user = self.user(account);
        if user.loading.is_none() {
            user.loading = Some(Box::new(Loading {
                since_ms: now,
                bytes: 0,
                queue: VecDeque::new(),
                blocking: Vec::new(),
            }));
            self.fx
                .reads
                .push((ReadTag::Load(account.clone()), Read::User(account.clone())));
        }
    }

    /// There is room for a stanza of this size to wait for the load.
    pub(super) fn may_wait(&self, account: &BareJid, bytes: usize) -> bool {
        let loading = self.users.get(account).and_then(|u| u.loading.as_ref());
        loading.is_none_or(|l| {
            l.queue.len() < self.settings.loading_queue_max
                && l.bytes + bytes <= self.settings.loading_queue_bytes_max
        })
    }

    /// Something waits for the load.
    pub(super) fn queue_for(&mut self, account: &BareJid, queued: Queued) {
        let bytes = queued.bytes();
        let room = self.may_wait(account, bytes);
        let loading = self
            .users
            .get_mut(account)
            .and_then(|u| u.loading.as_mut())
            .expect("the caller has started the load");
        // What there is at most once per session of the account is never dropped: a session whose own element is gone would
        // wait for ever, and who does not hear of an end keeps a ghost.
        let few = !matches!(
            queued,
            Queued::Stanza(_)
                | Queued::Subscription(_)
                | Queued::Fan(_)
                | Queued::Event(..)
                | Queued::Probe(_)
        );
        if few || room {
            loading.bytes += bytes;
            loading.queue.push_back(queued);
        } else if let Queued::Stanza(stanza) = queued {
            self.fail_queued_stanza(stanza);
        } else if let Queued::Subscription(s) = queued {
            self.fail_queued_subscription(&s);
        } else {
            // Presence: whoever loses one hears the next, and a probe is asked again.
            self.done(queued.token());
        }
    }

    /// The account could not be loaded: who asked to subscribe hears it.
    pub(super) fn fail_queued_subscription(&mut self, s: &Subscription) {
        let reason = "The account could not be loaded in time; try again";
        self.refuse_subscription(&s.bytes, reason, s.token);
    }

    /// The session's element waits for its account's roster; nothing overtakes it.
    pub(super) fn pause_for_roster(&mut self, slot: u32, number: u64, element: Element) {
        let generation = self.generation(slot);
        let session = self.session(slot);
        session.paused = true;
        let account = session
            .bound()
            .expect("only bound sessions have a roster")
            .account
            .clone();
        self.load(&account);
        self.queue_for(
            &account,
            Queued::Element {
                slot,
                generation,
                number,
                element: Box::new(element),
            },
        );
    }

    /// The paused element has been dealt with; the session goes on.
    pub(super) fn finish_paused(&mut self, slot: u32, number: u64) {
        let session = self.session(slot);
        session.paused = false;
        session.done(number);
        self.parse(slot);
    }

    pub(super) fn read_done(&mut self, tag: ReadTag, result: ReadResult) {
        match (tag, result) {
            (ReadTag::Load(account), ReadResult::User(data)) => self.loaded(&account, data),
            (ReadTag::Load(account), ReadResult::Failed(reason)) => {
                tracing::debug!(
                    account = account.as_str(),
                    reason,
                    "an account could not be loaded"
                );
                self.load_failed(&account);
            }
            (
                ReadTag::Bind {
                    slot,
                    generation,
                    number,
                    bind,
                },
                result,
            ) => {
                let answer = match result {
                    ReadResult::Archive(answer) => Some(answer),
                    _ => None,
                };
                self.bind_ends((slot, generation), number, *bind, answer);
            }
            (ReadTag::Upgrade(slot, generation), result) => {
                let account = match result {
                    ReadResult::Account(account) => account,
                    _ => None,
                };
                self.upgrade(slot, generation, account);
            }
            (ReadTag::Flood { slot, generation }, ReadResult::Pending(page)) => {
                self.flood_page(slot, generation, Some(page))
            }
            (ReadTag::Flood { slot, generation }, _) => self.flood_page(slot, generation, None),
            (ReadTag::Resend { slot, generation }, ReadResult::Rows(rows)) => {
                self.resend_rows(slot, generation, Some(rows))
            }
            (ReadTag::Resend { slot, generation }, _) => self.resend_rows(slot, generation, None),
            (ReadTag::Iq(n), result) => self.iq_read(n, result),
            (ReadTag::Nodes(owner), result) => self.nodes_read(&owner, result),
            (ReadTag::Bookmarks(owner), result) => self.old_bookmarks_read(&owner, result),
            (ReadTag::Photo(owner), result) => self.directory_photo_read(&owner, result),
            (ReadTag::LastItems(to, read), result) => {
                self.last_items_read(&to, read, result);
                self.last_reads.end(read);
            }
            (ReadTag::Last(owner, last), result) => {
                let read = last.read;
                self.last_read(&owner, *last, result);
                self.last_reads.end(read);
            }
            (ReadTag::Load(_), _) => {}
        }
    }

    fn loaded(&mut self, account: &BareJid, loaded: Option<Box<Loaded>>) {
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let Some(loading) = user.loading.take() else {
            return;
        };
        let (data, photo, directory_photo) = match loaded.map(|l| *l) {
            Some(l) => (Some(l.data), l.photo, l.directory_photo),
            None => (None, None, false),
        };
        let exists = data.is_some() || !user.sessions.is_empty();
        // What is known here may be newer.
        user.photo.get_or_insert(photo.map(String::into_boxed_str));
        user.directory_photo.may_be = directory_photo;
        user.exists = exists;
        // What was read may be older than what is known here.
        if matches!(user.archive_prefs, ArchivePrefs::Unknown) {
            let stored = data.as_ref().and_then(|d| d.archive_prefs.as_ref());
            let prefs = stored.map(|bytes| Prefs::of_bytes(bytes));
            if matches!(prefs, Some(None)) {
                tracing::warn!(
                    account = account.as_str(),
                    "what is to be kept in an archive cannot be read; the domain's default holds"
                );
            }
            user.archive_prefs = match prefs.flatten() {
                Some(prefs) => ArchivePrefs::Own(Box::new(prefs)),
                None => ArchivePrefs::OfDomain,
            };
        }
        if let Some(data) = &data
            && !user.knows_blocked
        {
            user.push = crate::push::Push::new(data.push.clone(), data.pending);
            let listed = Blocklist::new(data.blocked.clone());
            self.list_read(account, listed, &loading.blocking);
        }
        let user = self.user(account);
        // What is known here may be newer than what was read.
        user.knows_blocked = true;
        if let Some(data) = data {
            user.pending = data.pending;
            user.pending_bytes = data.pending_bytes;
            user.nothing_pending =
                data.pending == 0 && user.storing == 0 && user.last_position == 0;
            let activity = data.activity;
            let roster = Roster::new(data);
            user.audience = Some(roster.audience().cloned().collect());
            user.roster = Some(Box::new(roster));
            self.knows(account, &activity);
        }
        for queued in loading.queue {
            self.unqueue(account, queued, exists);
            self.run_local();
        }
        if !exists {
            self.users.remove(account);
        }
        self.owed_is_loaded(account);
    }

    fn unqueue(&mut self, account: &BareJid, queued: Queued, exists: bool) {
        match queued {
            Queued::Stanza(stanza) if exists => self.stanza_for_user(stanza, account),
            Queued::Stanza(stanza) => self.stanza_for_nobody(stanza),
            Queued::Subscription(s) if exists => self.subscription(s),
            Queued::Subscription(s) => self.done(s.token),
            Queued::Fan(fan) => self.presence_fan_to(&fan, &[account]),
            Queued::Event(fan, target) => self.event_to(&fan, vec![target]),
            Queued::Notice(notice) if exists => self.notify(account, *notice),
            Queued::Notice(_) => {}
            Queued::SendLast(slot, generation, interests) => {
                if self.live(slot, generation) && self.has_roster(account) {
                    self.send_last(slot, interests);
                }
            }
            Queued::Probe(from) => self.answer_probe(&from, account),
            Queued::Element {
                slot,
                generation,
                number,
                element,
            } => {
                if self.live(slot, generation) && self.session(slot).bound().is_some() {
                    self.session(slot).paused = false;
                    if exists && self.has_roster(account) {
                        self.take_again(slot, number, *element);
                    } else {
                        self.refuse(slot, number, &element, StanzaError::ServiceUnavailable);
                    }
                    self.parse(slot);
                }
            }
            Queued::Sent(stanza, copies) => self.send_late(stanza, copies),
            Queued::Rebroadcast(slot, generation, jid) => {
                if self.live(slot, generation) && self.session(slot).bound().is_some() {
                    self.say_again(slot);
                } else {
                    self.rebroadcast_gone(&jid);
                }
            }
            Queued::RebroadcastGone(jid) => self.rebroadcast_gone(&jid),
            Queued::Unavailable(gone) => self.broadcast(&gone),
        }
    }

    /// The store did not answer. Who waits gets a temporary error; a user is never reported as absent because of it.
    fn load_failed(&mut self, account: &BareJid) {
        self.load_late(account);
    }

    // ---- subscriptions ----------------------------------------------------------------------------------

    /// A session's own subscription stanza (RFC 6121 §3, outbound).
    pub(super) fn client_subscription(
        &mut self,
        slot: u32,
        number: u64,
        element: Element,
        kind: Kind,
        to: &Jid,
    ) {
        let contact = to.bare();
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let account = bound.account.clone();
        if contact == account {
            return self.session(slot).done(number);
        }
        if !self.settings.reaches(contact.domainpart()) {
            return self.refuse(slot, number, &element, StanzaError::RemoteServerNotFound);
        }
        let domain = contact.domainpart();
        if contact.localpart().is_none() && self.settings.component(domain).is_none() {
            return self.session(slot).done(number);
        }
        if !self.has_roster(&account) {
            return self.pause_for_roster(slot, number, element);
        }
        let limits = self.settings.roster_limits();
        let now_ms = self.now.unix_ms;
        let again = self.session(slot).resumed;
        let user = self.user(&account);
        let roster = user.roster.as_mut().expect("just checked");
        let outcome = if again {
            subscription::outbound_again(roster.state(&contact), kind)
        } else {
            subscription::outbound(roster.state(&contact), kind)
        };
        if outcome.steps.contains(&Step::Push) && !roster.has_room_for(&contact, limits) {
            return self.refuse(slot, number, &element, StanzaError::ResourceConstraint);
        }
        let applied = roster.apply(&contact, outcome.state, None, now_ms);
        let settings = self.settings.clone();
        let ours = |by: &str| settings.speaks_for(by);
        let bytes = Rewrite::new(&element)
            .set("from", account.as_str())
            .set("to", contact.as_str())
            .cut(|child| is_reserved(Direction::FromClient, child, ours))
            .finish();
        let token = self.token(slot, number);
        self.carry_out_steps(
            &account,
            &contact,
            &outcome,
            &applied,
            Some((kind, bytes)),
            Some(token),
        );
        self.session(slot).done(number);
    }

    /// A subscription stanza of another account (inbound).
    pub(super) fn subscription(&mut self, s: Box<Subscription>) {
        if self.settings.component(s.to.domainpart()).is_some() {
            return self.subscription_of_component(*s);
        }
        let account = s.to.clone();
        if !self.has_roster(&account) {
            self.load(&account);
            self.queue_for(&account, Queued::Subscription(s));
            return;
        }
        let now_ms = self.now.unix_ms;
        let approved = self.groups.view.shares_group(&account, &s.from);
        let both_ways = self.settings.autosubscribes(&s.from, &account);
        let blocked = self.blocks(&account, &Jid::Bare(s.from.clone()));
        if blocked && s.kind == Kind::Subscribe {
            return self.done(s.token);
        }
        let roster = self.user(&account).roster.as_mut().expect("just checked");
        let outcome = match s.kind {
            Kind::Subscribe if both_ways => subscription::approve_both(roster.state(&s.from)),
            Kind::Subscribe if approved => subscription::approve(roster.state(&s.from)),
            kind => subscription::inbound(roster.state(&s.from), kind),
        };
        let outcome = match blocked {
            // Both rosters go on saying the same, but the stanza is neither shown nor answered (XEP-0191 §3.3).
            true => outcome.unseen(),
            false => outcome,
        };
        let request = (s.kind == Kind::Subscribe).then_some(&s.bytes);
        let applied = roster.apply(&s.from, outcome.state, request, now_ms);
        self.carry_out_steps(
            &account,
            &s.from,
            &outcome,
            &applied,
            Some((s.kind, s.bytes.clone())),
            None,
        );
        if let Some(token) = s.token {
            let write = self.write_number;
            if write > self.durable {
                self.after(write, After::Token(token));
            } else {
                self.done(Some(token));
            }
        }
    }

    /// Stores what changed and does what the tables say. With `token`, the session's element waits for all of it.
    fn carry_out_steps(
        &mut self,
        account: &BareJid,
        contact: &BareJid,
        outcome: &Outcome,
        applied: &Applied,
        stanza: Option<(Kind, Bytes)>,
        token: Option<Token>,
    ) {
        for write in applied.writes(account, contact) {
            let number = self.write(Write::Store(write));
            self.user(account).last_write = number;
        }
        if let Some(token) = token {
            self.session(token.slot).hold(token.element);
        }
        let steps = Box::new(Steps {
            account: account.clone(),
            contact: contact.clone(),
            steps: outcome.steps,
            change: applied.change.clone(),
            stanza,
            token,
        });
        // Nobody is shown what is not on disk: a crash must not leave one side knowing what the other has forgotten.
        if self.write_number > self.durable {
            let number = self.write_number;
            self.after(number, After::Steps(steps));
        } else {
            self.take_steps(*steps, false);
        }
    }

    /// What was to be stored for them is on disk (or `failed`: then they are not taken, and the roster is read again).
    pub(super) fn take_steps(&mut self, steps: Steps, failed: bool) {
        let Steps {
            account,
            contact,
            steps,
            change,
            stanza,
            token,
        } = steps;
        if failed {
            if let Some(user) = self.users.get_mut(&account) {
                user.roster = None;
            }
            if let Some((_, bytes)) = &stanza {
                self.refuse_subscription(bytes, "The change could not be stored; try again", None);
            }
        } else {
            let user = self.user(&account);
            if let Some(roster) = &user.roster {
                user.audience = Some(roster.audience().cloned().collect());
            }
            self.take_each(
                &account,
                &contact,
                steps,
                change.as_ref(),
                stanza.as_ref(),
                token,
            );
        }
        self.done(token);
    }

    /// A subscription stanza could not be taken, and nothing has happened: its sender is told, and then it is settled.
    fn refuse_subscription(&mut self, bytes: &Bytes, reason: &str, token: Option<Token>) {
        let address = |element: &Element, name: &str| Jid::parse(&element.attr(name)?).ok();
        let error = Element::parse(bytes.clone()).ok().and_then(|element| {
            let condition = StanzaError::ResourceConstraint;
            let bytes = xmpp::error::stanza_error(&element, condition, Some(reason))?;
            Some((bytes, address(&element, "to")?, address(&element, "from")?))
        });
        let Some((bytes, from, to)) = error else {
            return self.done(token);
        };
        self.route(Box::new(Routed {
            kind: StanzaKind::Presence(PresenceType::Error),
            from,
            to,
            bytes,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token,
        }));
    }

    fn take_each(
        &mut self,
        account: &BareJid,
        contact: &BareJid,
        steps: &[Step],
        change: Option<&Change>,
        stanza: Option<&(Kind, Bytes)>,
        token: Option<Token>,
    ) {
        for step in steps {
            match step {
                Step::Route => {
                    if let Some((kind, bytes)) = stanza {
                        self.subscribe_to(account, contact, *kind, bytes.clone(), token);
                    }
                }
                Step::Send(kind) => {
                    let bytes = presence::stanza(
                        Some(kind.as_str()),
                        None,
                        account.as_str(),
                        contact.as_str(),
                    );
                    self.subscribe_to(account, contact, *kind, bytes, token);
                }
                Step::DeliverAvailable | Step::DeliverInterested => {
                    if let Some((kind, bytes)) = stanza {
                        self.show_subscription(account, bytes, *step == Step::DeliverInterested);
                        if *kind == Kind::Subscribed {
                            self.send_last_of(account, contact);
                        }
                    }
                }
                Step::Push => {
                    if let Some(change) = change {
                        self.push_roster(account, change);
                    }
                }
                Step::Presence => self.show_to(account, contact, true),
                Step::Unavailable => self.show_to(account, contact, false),
            }
        }
    }

    /// The account is gone, and has nothing to do with this contact any more.
    pub(super) fn leave(&mut self, account: &BareJid, contact: &BareJid) {
        for kind in [Kind::Unsubscribe, Kind::Unsubscribed] {
            let (from, to) = (account.as_str(), contact.as_str());
            let bytes = presence::stanza(Some(kind.as_str()), None, from, to);
            self.subscribe_to(account, contact, kind, bytes, None);
        }
    }

    fn subscribe_to(
        &mut self,
        account: &BareJid,
        contact: &BareJid,
        kind: Kind,
        bytes: Bytes,
        token: Option<Token>,
    ) {
        if !self.settings.reaches(contact.domainpart()) {
            return;
        }
        if let Some(token) = token
            && self.live(token.slot, token.generation)
        {
            self.session(token.slot).hold(token.element);
        }
        let s = Subscription {
            kind,
            from: account.clone(),
            to: contact.clone(),
            bytes,
            token,
        };
        self.tell(self.home(contact), ShardMsg::Subscription(Box::new(s)));
    }

    fn show_subscription(&mut self, account: &BareJid, bytes: &Bytes, interested: bool) {
        let slots = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for slot in slots {
            let shows = self.session(slot).bound().is_some_and(|b| {
                b.ready
                    && if interested {
                        b.interested.is_some()
                    } else {
                        b.presence.is_some()
                    }
            });
            if shows {
                self.send_stanza(slot, bytes.clone());
            }
        }
    }

    /// A roster push to every interested resource (RFC 6121 §2.1.6).
    pub(super) fn push_roster(&mut self, account: &BareJid, change: &Change) {
        let part = self.group_part(account);
        let shown = self.groups.view.shown(account, &change.jid);
        for slot in self.interested_sessions(account) {
            let Some(bound) = self.session(slot).bound() else {
                continue;
            };
            let id = format!("push-{:x}", change.version);
            let bytes = change.push(&id, bound.jid.as_str(), part, shown.as_ref());
            self.send(slot, bytes, OutKind::PUSH);
        }
        self.push_to_components(account, |to| {
            let id = format!("push-{:x}", change.version);
            change.push(&id, to, part, shown.as_ref())
        });
    }

    /// The contact as it is, to every interested resource.
    fn push_seen(&mut self, account: &BareJid, contact: &BareJid) {
        let Some(roster) = self.users.get(account).and_then(|u| u.roster.as_ref()) else {
            return;
        };
        let change = Change {
            jid: contact.clone(),
            item: roster.item(contact).cloned(),
            version: roster.version(),
        };
        self.push_roster(account, &change);
    }

    // ---- roster IQs -------------------------------------------------------------------------------------

    /// The session has been sent all of the roster: it gets pushes from now on.
    fn roster_answered(&mut self, slot: u32) {
        let session = self.session(slot);
        let element = session.elements_out();
        if let Some(bound) = session.bound_mut() {
            bound.interested = Some(element);
        }
    }

    /// RFC 6121 §2.2: the session is interested from now on.
    pub(super) fn roster_get(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        ver: Option<&str>,
    ) {
        let bound = self
            .session(slot)
            .bound_mut()
            .expect("only bound sessions get here");
        let (account, jid) = (bound.account.clone(), bound.jid.clone());
        let interested = bound.interested.is_some();
        let id = element.attr("id").unwrap_or_default().into_owned();
        self.user(&account);
        let roster = self.users[&account]
            .roster
            .as_ref()
            .expect("the caller has loaded it");
        let view = &self.groups.view;
        let part = GroupPart::of(view.fingerprint(&account));
        let fetched = roster.fetch(ver, &id, jid.as_str(), part, || view.contacts(&account));
        let fits = fetched.result.len() <= OUTPUT_ELEMENT_BYTES_MAX;
        self.send_stanza(slot, fetched.result);
        if !fits {
            // It was sent an error instead, and has no roster that a push could change.
            return self.session(slot).done(number);
        }
        for change in fetched.missed {
            let shown = self.groups.view.shown(&account, &change.jid);
            let id = format!("missed-{:x}", change.version);
            let push = change.push(&id, jid.as_str(), part, shown.as_ref());
            self.send(slot, push, OutKind::PUSH);
        }
        self.roster_answered(slot);
        self.await_record(slot, number);
        self.session(slot).done(number);
        if !interested && self.session(slot).resumed {
            self.owe_again(&account);
        }
    }

    /// RFC 6121 §2.3 to §2.5.
    pub(super) fn roster_set(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        set: Set,
        reply: Bytes,
    ) {
        let account = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here")
            .account
            .clone();
        let token = self.token(slot, number);
        let again = self.session(slot).resumed;
        match self.edit_roster(&account, set, again) {
            Edited::Shown(contact) => {
                self.send_stanza(slot, reply);
                self.push_seen(&account, &contact);
                self.session(slot).done(number);
            }
            Edited::Refused(condition, None) => self.refuse(slot, number, element, condition),
            Edited::Refused(condition, text) => {
                if let Some(error) = xmpp::error::stanza_error(element, condition, text) {
                    self.send_stanza(slot, error);
                }
                self.session(slot).done(number);
            }
            Edited::Changed(contact, outcome, applied) => {
                let first = self.write_number + 1;
                self.carry_out_steps(&account, &contact, &outcome, &applied, None, Some(token));
                let failure =
                    xmpp::error::stanza_error(element, StanzaError::ResourceConstraint, None)
                        .unwrap_or_default();
                self.answer_after(first, slot, number, reply, failure);
            }
        }
    }

    /// The same by a component, or in the account's name: whoever asked is answered where they are. The roster is loaded.
    pub(super) fn roster_set_by(&mut self, stanza: Box<Routed>, set: Set, reply: Bytes) {
        let account = stanza.to.bare();
        match self.edit_roster(&account, set, false) {
            Edited::Shown(contact) => {
                self.push_seen(&account, &contact);
                self.reply(stanza, reply);
            }
            Edited::Refused(condition, text) => self.bounce(stanza, condition, text),
            Edited::Changed(contact, outcome, applied) => {
                let first = self.write_number + 1;
                self.carry_out_steps(&account, &contact, &outcome, &applied, None, None);
                self.reply_after(first, stanza, reply);
            }
        }
    }

    /// Changes a roster that is loaded, in memory. `again`: it may have been carried out before.
    fn edit_roster(&mut self, account: &BareJid, set: Set, again: bool) -> Edited {
        let limits = self.settings.roster_limits();
        let now_ms = self.now.unix_ms;
        let contact = match &set {
            Set::Put { jid, .. } | Set::Remove { jid } => jid.clone(),
        };
        let shown = self.groups.view.shown(account, &contact);
        let roster = self
            .user(account)
            .roster
            .as_mut()
            .expect("the caller has loaded it");
        let own = roster.item(&contact).is_some();
        let set = match (set, &shown) {
            (Set::Put { jid, name, groups }, Some(shown)) => {
                let (name, groups) = own_part(shown, name, groups);
                if !own && name.is_none() && groups.is_empty() {
                    return Edited::Shown(jid);
                }
                Set::Put { jid, name, groups }
            }
            (Set::Remove { .. }, Some(_)) if !own && !again => {
                let text = "The contact is in a group of the directory and cannot be removed";
                return Edited::Refused(StanzaError::NotAllowed, Some(text));
            }
            (set, _) => set,
        };
        let done = match set {
            Set::Put { jid, name, groups } => {
                roster
                    .put(&jid, name, groups, limits, now_ms)
                    .map(|change| {
                        let outcome = Outcome {
                            state: State::None,
                            steps: &[Step::Push],
                        };
                        let applied = Applied {
                            change: Some(change),
                            request: None,
                        };
                        Edited::Changed(jid, outcome, applied)
                    })
            }
            Set::Remove { jid } => match roster.remove(&jid, now_ms) {
                // A restarted server may get a removal again that it has carried out (DESIGN §3, replay).
                Err(StanzaError::ItemNotFound) if again => Ok(Edited::Changed(
                    jid,
                    subscription::REMOVE_AGAIN,
                    Applied::default(),
                )),
                removed => removed.map(|(outcome, applied)| Edited::Changed(jid, outcome, applied)),
            },
        };
        if again && !own && shown.is_some() {
            // A removal that may have been carried out before: the client is told what is left.
            self.push_seen(account, &contact);
        }
        done.unwrap_or_else(|condition| Edited::Refused(condition, None))
    }
}
