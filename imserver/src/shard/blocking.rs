//! The blocking command on a shard (XEP-0191): whom accounts at home here have blocked, and what follows from it.
//!
//! In: changes by a session of the account. Out: the list on disk, then pushes, presence, the answer.
//! Owns: the list, while the account is in memory.
//! Never: gives a session anything from an address that its account has blocked, or sends one there what the account says; tells
//! that address so: to it the account is one that does not exist.
//!
//! [`Shard::blocks`] is what every path asks: stanzas that come (`message`) and go (`stream`), presence both ways, probes,
//! requests that wait (`presence`, `roster`), messages that waited before (`flood`). What is not known is loaded first.

use super::{After, Shard, presence};
use crate::blocking::{self, Blocklist, Report};
use crate::event::*;
use crate::iq::blocking::Change;
use crate::routing::{self, MessageType, PresenceType, Retention, StanzaKind};
use crate::session::record::Record;
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::{ErrorReply, ErrorType, StanzaError, stanza_error_with};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// Reports of an account passed on in an hour.
const REPORTS_PER_ACCOUNT_HOUR_MAX: usize = 10;
/// And logged.
const REPORTS_LOGGED_HOUR_MAX: usize = 100;
/// Of all accounts of a shard: an hour of a hundred accounts that do nothing else.
const REPORTS_HOUR_MAX: usize = 10_000;
const HOUR_MS: u64 = 3_600_000;

/// What becomes of a stanza that a session sends.
pub(super) enum Sending {
    Goes,
    /// Its account has blocked the address.
    Blocked,
    /// Whether it has is not known yet.
    Unknown,
}

/// A change of a list, until it is on disk.
#[derive(Debug)]
pub(super) struct Blocking {
    slot: u32,
    generation: u32,
    number: u64,
    account: BareJid,
    before: Blocklist,
    change: Change,
    reply: Bytes,
    failure: Bytes,
}

/// What a change is answered with.
pub(super) struct Answers {
    pub done: Bytes,
    pub failure: Bytes,
    pub too_long: Bytes,
}

/// A list after a change.
fn changed(list: &Blocklist, change: &Change) -> Blocklist {
    match change {
        Change::Block(jids, _) => list.with(jids),
        Change::Unblock(jids) => list.without(jids),
        Change::UnblockAll => Blocklist::default(),
    }
}

/// Those of a change that were not on the list before.
fn new_entries<'c>(before: &'c Blocklist, jids: &'c [Jid]) -> impl Iterator<Item = &'c Jid> {
    jids.iter().filter(|jid| !before.entries().contains(jid))
}

impl Shard {
    /// Whether the account has blocked the address: then nothing goes from one to the other, either way. To be asked at the
    /// home of the account, which must be in memory: what is not known yet ([`Shard::must_know_blocked`]) blocks nobody.
    pub(super) fn blocks(&self, account: &BareJid, other: &Jid) -> bool {
        let user = self.users.get(account);
        user.is_some_and(|u| u.blocked.blocks(account, other))
    }

    /// The account is in memory, its list is not, and it may have something to say about this address.
    pub(super) fn must_know_blocked(&self, account: &BareJid, other: &Jid) -> bool {
        other.bare_str() != account.as_str()
            && other.as_str() != account.domainpart()
            && !self.knows_blocked(account)
    }

    pub(super) fn knows_blocked(&self, account: &BareJid) -> bool {
        self.users.get(account).is_some_and(|u| u.knows_blocked)
    }

    /// The same for a stanza that comes: presence is worth it only if somebody is there to hear it.
    pub(super) fn must_know_sender(&self, stanza: &Routed, account: &BareJid) -> bool {
        let heard = !matches!(stanza.kind, StanzaKind::Presence(_))
            || self
                .users
                .get(account)
                .is_some_and(|u| !u.sessions.is_empty());
        heard && self.must_know_blocked(account, &stanza.from)
    }

    /// The same for a stanza of a session of the account.
    pub(super) fn sending(&self, slot: u32, to: &Jid) -> Sending {
        let session = self.sessions.get(slot as usize);
        let Some(account) = session.and_then(|s| s.bound()).map(|b| &b.account) else {
            return Sending::Goes;
        };
        match self.must_know_blocked(account, to) {
            true => Sending::Unknown,
            false if self.blocks(account, to) => Sending::Blocked,
            false => Sending::Goes,
        }
    }

    /// The list of an account as it counts now: for presence that leaves this shard, too.
    pub(super) fn blocked_by(&self, account: &BareJid) -> Blocklist {
        let user = self.users.get(account);
        user.map(|u| u.blocked.clone()).unwrap_or_default()
    }

    /// The list as it is on disk. Who asks for it hears of changes that are on their way there when they have arrived.
    pub(super) fn listed_by(&self, account: &BareJid) -> Blocklist {
        let user = self.users.get(account);
        user.map(|u| u.listed.clone()).unwrap_or_default()
    }

    /// The list that counts for what is said now. That a session has gone is not kept from who is to hear that anyway once the disk has it: by
    /// then there would be no session to say it of.
    pub(super) fn kept_from(&self, account: &BareJid, available: bool) -> Blocklist {
        let list = self.blocked_by(account);
        let hiding = self.users.get(account).map(|u| &u.hiding[..]);
        match hiding.filter(|h| !available && !h.is_empty()) {
            Some(hiding) => list.without(hiding),
            None => list,
        }
    }

    /// Presence from there does not reach the account. That somebody has gone is not kept from it before the disk has taken their
    /// block: it would be there for ever if the disk refuses that.
    pub(super) fn keeps_out(&self, account: &BareJid, from: &Jid, available: bool) -> bool {
        self.blocks(account, from) && self.kept_from(account, available).blocks(account, from)
    }

    /// A session's own stanza is for somebody whom its account has blocked (§3.3): it goes nowhere.
    pub(super) fn refuse_blocked(&mut self, slot: u32, number: u64, element: &Element) {
        let reply = ErrorReply {
            error_type: Some(ErrorType::Cancel),
            application: Some(("blocked", ns::BLOCKING_ERRORS)),
            ..ErrorReply::default()
        };
        if let Some(bytes) = stanza_error_with(element, StanzaError::NotAcceptable, reply) {
            self.send_stanza(slot, bytes);
        }
        self.session(slot).done(number);
    }

    /// The session has asked for the list: it gets changes from now on.
    pub(super) fn blocklist_asked(&mut self, slot: u32, number: u64, reply: Bytes) {
        self.send_stanza(slot, reply);
        let bound = self.session(slot).bound_mut();
        if let Some(bound) = bound.filter(|b| !b.blocklist_asked) {
            bound.blocklist_asked = true;
            self.await_record(slot, number);
        }
        self.session(slot).done(number);
    }

    /// A session changes its account's list. The account is loaded. It counts at once, but nobody is told before it is on disk.
    pub(super) fn change_blocklist(
        &mut self,
        slot: u32,
        number: u64,
        account: BareJid,
        change: Change,
        answers: Answers,
    ) {
        let items_max = self.settings.blocklist_items_max;
        let user = self.user(&account);
        let before = user.blocked.clone();
        let after = changed(&before, &change);
        if after.entries().len() > before.entries().len() && after.is_too_long(items_max) {
            self.send_stanza(slot, answers.too_long);
            return self.session(slot).done(number);
        }
        user.blocked = after;
        if let Change::Block(jids, _) = &change {
            user.hiding.extend(new_entries(&before, jids).cloned());
            self.record_without_blocked(&account);
        }
        let (block, unblock) = match &change {
            Change::Block(jids, _) => (jids.clone(), Vec::new()),
            Change::Unblock(jids) => (Vec::new(), jids.clone()),
            Change::UnblockAll => (Vec::new(), before.entries().to_vec()),
        };
        let write = self.write(Write::Store(store::Write::Blocklist {
            owner: account.clone(),
            block,
            unblock,
        }));
        let blocking = Blocking {
            slot,
            generation: self.generation(slot),
            number,
            account,
            before,
            change,
            reply: answers.done,
            failure: answers.failure,
        };
        self.after(write, After::Blocking(Box::new(blocking)));
    }

    /// The change is on disk. It is said again in full when it comes a second time after a restart: nobody knows how much of it
    /// was said before.
    pub(super) fn blocklist_changed(&mut self, blocking: Blocking, failed: bool) {
        let Blocking {
            slot,
            generation,
            number,
            account,
            before,
            change,
            reply,
            failure,
        } = blocking;
        if let (Change::Block(jids, _), Some(user)) = (&change, self.users.get_mut(&account)) {
            for jid in new_entries(&before, jids) {
                let at = user.hiding.iter().position(|h| h == jid);
                at.map(|at| user.hiding.swap_remove(at));
            }
        }
        if failed {
            self.blocklist_refused(&account);
        } else {
            if let Some(user) = self.users.get_mut(&account) {
                user.listed = changed(&user.listed, &change);
                let loading = user.loading.as_mut();
                loading
                    .into_iter()
                    .for_each(|l| l.blocking.push(change.clone()));
            }
            match change {
                Change::Block(jids, reports) => {
                    self.push_blocklist(&account, "block", &jids);
                    let before = before.without(&jids);
                    self.hide_from(&account, &before, &Blocklist::new(jids));
                    self.forget_of_blocked(&account);
                    for report in reports {
                        self.report(&account, &report);
                    }
                }
                Change::Unblock(jids) => {
                    self.push_blocklist(&account, "unblock", &jids);
                    self.show_again(&account, Some(Blocklist::new(jids)));
                }
                Change::UnblockAll => {
                    self.push_blocklist(&account, "unblock", &[]);
                    // Who was on it before a restart is not known any more: then everybody is told.
                    let again = self.live(slot, generation) && self.session(slot).resumed;
                    let those = (!before.is_empty() || !again).then_some(before);
                    self.show_again(&account, those);
                }
            }
        }
        if self.live(slot, generation) {
            self.send_stanza(slot, if failed { failure } else { reply });
            self.session(slot).done(number);
            self.settle(slot);
        }
    }

    /// The disk has refused a change: the list is as it was before it, and is read again when it is next needed. Whom the account would
    /// have blocked, and who was passed by meanwhile, is shown it and heard again; who is blocked as before does not see it.
    fn blocklist_refused(&mut self, account: &BareJid) {
        let blocked = self.list_to_be(account);
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        user.knows_blocked = false;
        let tried = std::mem::replace(&mut user.blocked, blocked.clone());
        let freed = tried.without(blocked.entries());
        if !freed.is_empty() {
            self.record_without_blocked(account);
            self.show_again(account, Some(freed));
        }
        let again = blocked.without(tried.entries());
        if !again.is_empty() {
            self.hide_from(account, &tried, &again);
            self.forget_of_blocked(account);
        }
    }

    /// The list has been read, and these changes of it have reached the disk meanwhile.
    pub(super) fn list_read(&mut self, account: &BareJid, read: Blocklist, since: &[Change]) {
        let user = self.user(account);
        let changing = user.blocked != user.listed;
        user.listed = since.iter().fold(read, |list, c| changed(&list, c));
        user.blocked = user.listed.clone();
        if changing {
            let blocked = self.list_to_be(account);
            self.user(account).blocked = blocked;
        }
    }

    /// The list on disk, with the changes that are on their way there.
    fn list_to_be(&self, account: &BareJid) -> Blocklist {
        let user = self.users.get(account);
        let listed = user.map(|u| u.listed.clone()).unwrap_or_default();
        let changes = self.after.iter().filter_map(|(_, what)| match what {
            After::Blocking(blocking) if blocking.account == *account => Some(&blocking.change),
            _ => None,
        });
        changes.fold(listed, |list, change| changed(&list, change))
    }

    /// The account is in memory as it is on disk, whom it has blocked included.
    pub(super) fn has_list(&self, account: &BareJid) -> bool {
        self.has_roster(account) && self.knows_blocked(account)
    }

    /// To every session that has asked for the list.
    fn push_blocklist(&mut self, account: &BareJid, name: &'static str, jids: &[Jid]) {
        let change = blocking::element(name, jids);
        for slot in self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default()
        {
            let id = format!("{name}-{:x}", self.write_number);
            let bound = self.session(slot).bound();
            let Some(bound) = bound.filter(|b| b.blocklist_asked && b.ready) else {
                continue;
            };
            let push = Node::new("iq", ns::CLIENT)
                .with_attr("type", "set")
                .with_attr("id", id)
                .with_attr("to", bound.jid.as_str())
                .with_child(change.clone());
            self.send_stanza(slot, push.to_bytes(ns::CLIENT));
        }
    }

    /// §3.3: to those who may see the account, and are blocked now, it has gone. Those whom another entry names know.
    fn hide_from(&mut self, account: &BareJid, before: &Blocklist, only: &Blocklist) {
        for slot in self.available_sessions(account) {
            let Some(jid) = self.session(slot).bound().map(|b| b.jid.clone()) else {
                continue;
            };
            let gone = presence::unavailable(&jid);
            self.fan_to_some(&gone, before.clone(), Some(only.clone()));
        }
        for slot in self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default()
        {
            self.take_back_directed(slot, account, only);
        }
    }

    /// Whoever had directed presence of the session, and is blocked now, hears that it goes (RFC 6121 §4.6.3).
    fn take_back_directed(&mut self, slot: u32, account: &BareJid, only: &Blocklist) {
        let Some(bound) = self.session(slot).bound() else {
            return;
        };
        let (jid, available) = (bound.jid.clone(), bound.presence.is_some());
        let entries = bound.directed.entries();
        let mut told: Vec<Jid> = Vec::new();
        let mut struck: Vec<Jid> = Vec::new();
        for entry in entries {
            if only.blocks(account, entry) {
                struck.push(entry.clone());
                told.push(entry.clone());
            } else {
                // It went to the account, and one resource of that is blocked.
                let resources = only.entries().iter();
                let resources = resources
                    .filter(|r| entry.resourcepart().is_none() && r.bare_str() == entry.as_str());
                told.extend(resources.cloned());
            }
        }
        let bound = self.session(slot).bound_mut().expect("just seen");
        for entry in &struck {
            bound.directed.unavailable(entry);
        }
        if !struck.is_empty() {
            self.write_record(slot);
        }
        // The broadcast reaches the others.
        told.retain(|to| !(available && self.sees(account, &to.bare())));
        let gone = presence::unavailable(&jid);
        for to in told {
            self.send_presence(
                &jid,
                to,
                &gone.prefix,
                &gone.suffix,
                PresenceType::Unavailable,
            );
        }
    }

    /// What waits for sessions of the account from whom it has blocked now. Messages that are stored stay where they are, and come
    /// if the block ends (`flood`).
    fn forget_of_blocked(&mut self, account: &BareJid) {
        let list = self.blocked_by(account);
        for slot in self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default()
        {
            let Some(bound) = self.session(slot).bound_mut() else {
                continue;
            };
            bound
                .held_presence
                .retain(|(from, _)| !list.blocks(account, from));
            let is_blocked = |bytes: &Bytes| {
                routing::sender(bytes).is_some_and(|from| list.blocks(account, &from))
            };
            let waiting = std::mem::take(&mut bound.behind_flood);
            let (blocked, rest) = waiting.into_iter().partition(|b| is_blocked(&b.bytes));
            bound.behind_flood = rest;
            if let Some(inactive) = &mut self.session(slot).inactive {
                inactive.forget_from(is_blocked);
            }
            let blocked: Vec<crate::session::Behind> = blocked;
            for request in blocked.into_iter().filter_map(|b| b.request) {
                self.bounce(request, StanzaError::ServiceUnavailable, None);
            }
            self.session(slot).mark_unrecorded();
            self.touch(slot);
        }
    }

    /// What waits for sessions of the account is on record, and would be said after a restart. Records reach the session store before
    /// what is written behind them reaches the disk: once the list is there, they name nobody that is on it.
    fn record_without_blocked(&mut self, account: &BareJid) {
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        for slot in slots.unwrap_or_default() {
            let session = self.session(slot);
            if session.is_inactive() || session.is_away() || session.is_catching_up_stream() {
                self.write_record(slot);
            }
        }
    }

    /// A record without what waits of those whom the account has blocked.
    pub(super) fn without_blocked(&self, mut record: Record) -> Record {
        let account = record.jid.bare();
        let list = self.blocked_by(&account);
        if list.is_empty() {
            return record;
        }
        let stays = |(from, _): &(Jid, Bytes)| !list.blocks(&account, from);
        if let Some((messages, presence)) = &mut record.inactive {
            presence.retain(stays);
            let sender = |bytes: &Bytes| routing::sender(bytes);
            messages.retain(|m| !sender(m).is_some_and(|from| list.blocks(&account, &from)));
        }
        if let Some(resumption) = &mut record.resumption {
            resumption.presence.retain(stays);
        }
        record
    }

    /// A message that waits for the account is from somebody it has blocked since.
    pub(super) fn is_of_blocked(&self, account: &BareJid, row: &store::StoredRow) -> bool {
        !row.outgoing
            && !self.blocked_by(account).is_empty()
            && routing::sender(&row.payload).is_some_and(|from| self.blocks(account, &from))
    }

    /// §3.4: those who may see the account, and are blocked no more, are told how it is, and asked how they are; what they had
    /// sent before they were blocked is delivered. `None`: whoever they are.
    fn show_again(&mut self, account: &BareJid, those: Option<Blocklist>) {
        let still = self.blocked_by(account);
        for slot in self.available_sessions(account) {
            let Some(bound) = self.session(slot).bound() else {
                continue;
            };
            let Some(said) = bound
                .presence
                .as_ref()
                .map(|p| presence::said(&bound.jid, p))
            else {
                continue;
            };
            self.fan_to_some(&said, still.clone(), those.clone());
        }
        if !self.available_sessions(account).is_empty()
            && let Some(those) = &those
        {
            self.probe_unblocked(account, those);
        }
        // Whatever the count of what waits says: it is an estimate after a restart.
        self.reread_later(account);
        self.reread(account, 1);
    }

    /// What they said meanwhile was not delivered.
    fn probe_unblocked(&mut self, account: &BareJid, those: &Blocklist) {
        let roster = self.users.get(account).and_then(|u| u.roster.as_ref());
        let probed = roster.into_iter().flat_map(|r| r.probed());
        let targets = self.by_home(probed.filter(|c| those.touches(account, c)));
        let contacts = self.groups.view.contacts(account).into_iter();
        let members = contacts.filter(|(c, shown)| shown.presence && those.touches(account, c));
        let mut members = self.by_home(members.map(|(c, _)| c));
        let known = self.groups.known();
        for shard in (0..self.shards).map(ShardId) {
            let targets = targets.get(&shard).cloned().unwrap_or_default();
            let members = members.remove(&shard).unwrap_or_default();
            if !targets.is_empty() || !members.is_empty() {
                let probing = Probing {
                    from: Jid::Bare(account.clone()),
                    targets,
                    groups: Vec::new(),
                    members,
                    known,
                };
                self.tell(shard, ShardMsg::Probe(Box::new(probing)));
            }
        }
    }

    /// XEP-0377: somebody says why they have blocked an address. It is in the log, and those hear of it who are to.
    fn report(&mut self, by: &BareJid, report: &Report) {
        let now_ms = self.now.mono_ms;
        let recent = |since: &u64| now_ms.saturating_sub(*since) < HOUR_MS;
        self.reports.retain(|(since, _)| recent(since));
        let of_account = self.reports.iter().filter(|(_, account)| account == by);
        let of_account = of_account.count();
        let all = self.reports.len();
        if of_account > REPORTS_LOGGED_HOUR_MAX || all > REPORTS_HOUR_MAX {
            return;
        }
        self.reports.push((now_ms, by.clone()));
        if of_account == REPORTS_LOGGED_HOUR_MAX || all == REPORTS_HOUR_MAX {
            let by = by.as_str();
            return tracing::warn!(
                by,
                "more reports of spam or abuse within an hour are not logged"
            );
        }
        let line = report.to_line(by);
        tracing::info!(report = line, "spam or abuse is reported");
        if of_account >= REPORTS_PER_ACCOUNT_HOUR_MAX {
            return;
        }
        let Ok(from) = Jid::parse(by.domainpart()) else {
            return;
        };
        let told = self.settings.reports_to.get(by.domainpart());
        for account in told.cloned().unwrap_or_default() {
            let subject =
                Node::new("subject", ns::CLIENT).with_text(format!("Report: {}", report.reason));
            let body = Node::new("body", ns::CLIENT).with_text(line.clone());
            let stanza = Node::new("message", ns::CLIENT)
                .with_attr("from", from.as_str())
                .with_attr("to", account.as_str())
                .with_child(subject)
                .with_child(body);
            self.route(Box::new(Routed {
                kind: StanzaKind::Message(MessageType::Normal),
                from: from.clone(),
                to: Jid::Bare(account),
                bytes: stanza.to_bytes(ns::CLIENT),
                retention: Retention::Store { archive: false },
                origin: None,
                copies: false,
                token: None,
            }));
        }
    }
}
