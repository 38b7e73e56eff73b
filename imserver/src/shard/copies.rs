//! The sender's own side of a message: its row in the sender's archive (XEP-0313), and the copies that other sessions of an account
//! get of what it sends and receives (XEP-0280).
//!
//! In: messages of sessions, answers of the disk. Out: rows, copies.
//! Owns: when an account's own row of what it has sent is given up.
//! Never: shows a copy before the commit of the row it is of; lets a copy to a session that wants no messages count as delivered.
//!
//! A copy is one more way to hold a row. While a session that takes messages has not acknowledged its copy the row is pending, and
//! the copy comes again after a restart; a row of what was sent is nobody's when those sessions are gone. Sessions that take no
//! messages (unavailable, negative priority) get copies of what happens while they are there, and nothing is kept for them.

use super::message::Giving;
use super::user::ArchivePrefs;
use super::{After, Shard, SmallSlots};
use crate::archive::prefs::{ByDefault, Prefs};
use crate::archive::text;
use crate::carbons::{self, Copy};
use crate::event::*;
use crate::policy::keep::Keep;
use crate::routing::{self, Retention, StanzaKind};
use bytes::Bytes;
use store::{Append, Written};
use xmpp::jid::{BareJid, Jid};

/// What an account has sent, on its way into the account's own rows.
#[derive(Debug)]
pub(super) struct Sent {
    stanza: Routed,
    /// In the archive.
    archive: bool,
    /// Until its copies are acknowledged.
    pending: bool,
    since_ms: u64,
}

/// Sessions of an account that get copies.
#[derive(Default)]
pub(super) struct CopyTargets {
    /// Those that take messages: a copy is held until it is acknowledged.
    pub takers: SmallSlots,
    /// The others.
    pub others: SmallSlots,
}

impl Shard {
    /// XEP-0280 §4 and §5. The answer waits for the record, so that it is true after a restart, too.
    pub(super) fn switch_carbons(
        &mut self,
        slot: u32,
        number: u64,
        on: bool,
        reply: Bytes,
        failure: Bytes,
    ) {
        let now = self.now.unix_ms;
        let bound = self.session(slot).bound_mut().expect("it has asked");
        let since = &mut bound.carbons_since_unix_ms;
        *since = match (on, *since) {
            (false, _) => 0,
            (true, 0) => now.max(1),
            (true, before) => before,
        };
        let write = self.write_record(slot);
        self.answer_after(write, slot, number, reply, failure);
    }

    /// Whether a message with `with` belongs to the owner's archive. `None`: the owner must be loaded to know, with its roster.
    pub(super) fn archives(
        &self,
        owner: &BareJid,
        retention: Retention,
        with: &Jid,
    ) -> Option<bool> {
        let domain = self.settings.archive(owner.domainpart());
        let Some(domain) = domain.filter(|_| retention.archives()) else {
            return Some(false);
        };
        match self.must_keep(owner) {
            Keep::Everything => return Some(true),
            Keep::Nothing => return Some(false),
            Keep::Wishes => {}
        }
        let user = self.users.get(owner)?;
        let kept = match &user.archive_prefs {
            ArchivePrefs::Unknown => return None,
            ArchivePrefs::OfDomain => Prefs::of_domain(domain.default).keeps(with),
            ArchivePrefs::Own(prefs) => prefs.keeps(with),
        };
        kept.or_else(|| {
            let contact = with.bare();
            let own = user.roster.as_ref()?.item(&contact).is_some();
            Some(own || self.groups.view.shares_group(owner, &contact))
        })
    }

    /// What an archived message of the owner is found by, where archives are searched.
    pub(super) fn text_of(
        &self,
        owner: &BareJid,
        archive: bool,
        stanza: &Bytes,
    ) -> Option<store::Text> {
        let searched = archive && self.settings.archive_is_searched(owner.domainpart());
        searched.then(|| text::of(stanza)).flatten()
    }

    /// What the policy says of the owner's archive.
    pub(super) fn must_keep(&self, owner: &BareJid) -> Keep {
        let groups = |group: &str| self.membership(owner, group);
        self.settings.policy.archive_keeps(owner, &groups)
    }

    /// What is kept for the owner, if that is known.
    pub(super) fn archive_prefs(&self, owner: &BareJid) -> Option<Prefs> {
        let domain = self.settings.archive(owner.domainpart())?;
        match self.must_keep(owner) {
            Keep::Everything => return Some(Prefs::of_domain(ByDefault::Always)),
            Keep::Nothing => return Some(Prefs::of_domain(ByDefault::Never)),
            Keep::Wishes => {}
        }
        match &self.users.get(owner)?.archive_prefs {
            ArchivePrefs::Unknown => None,
            ArchivePrefs::OfDomain => Some(Prefs::of_domain(domain.default)),
            ArchivePrefs::Own(prefs) => Some((**prefs).clone()),
        }
    }

    /// Whether what an account sends there may be kept for it. What it sends to itself is kept and copied as what it receives; what
    /// goes nowhere was not sent.
    fn is_sent(&self, account: &BareJid, to: &Jid) -> bool {
        to.bare_str() != account.as_str()
            && (to.localpart().is_some() && self.settings.serves(to.domainpart())
                || self.settings.component(to.domainpart()).is_some())
    }

    /// A message of this account cannot be sent on before it is loaded: nobody knows whether it is to be kept.
    pub(super) fn must_know_prefs(
        &self,
        account: &BareJid,
        retention: Retention,
        to: &Jid,
    ) -> bool {
        self.is_sent(account, to) && self.archives(account, retention, to).is_none()
    }

    /// What goes out with a row: an archived one says its id.
    pub(super) fn with_id(&self, owner: &BareJid, position: u64, stanza: &Bytes) -> Bytes {
        let id = self.ids.encode(position);
        carbons::append(stanza, &carbons::stanza_id(owner, id))
    }

    /// A session has sent a message: it is kept for its account, if that wants it or other sessions are to have copies. The
    /// element is settled when this is durable, too.
    pub(super) fn keep_sent(&mut self, slot: u32, stanza: &Routed, copies: bool) {
        let (Some(token), StanzaKind::Message(_)) = (stanza.token, stanza.kind) else {
            return;
        };
        let account = stanza.from.bare();
        if !self.is_sent(&account, &stanza.to) {
            return;
        }
        let archive = self.archives(&account, stanza.retention, &stanza.to) == Some(true);
        let by = self.session(slot).name;
        let targets = match copies {
            true => self.copy_targets(&account, by),
            false => CopyTargets::default(),
        };
        let pending = !targets.takers.is_empty() && stanza.retention.stores();
        // A row with neither mark is an origin alone: what comes again after a restart is not copied again.
        if archive || stanza.retention.stores() && !targets.is_empty() {
            self.session(slot).hold(token.element);
            self.write_sent(Box::new(Sent {
                stanza: Routed {
                    copies,
                    ..stanza.clone()
                },
                archive,
                pending,
                since_ms: self.now.mono_ms,
            }));
        } else if let (false, Some(by)) = (targets.is_empty(), by) {
            let (write, durable) = (self.write_number, self.durable);
            let user = self.users.get_mut(&account);
            match user.filter(|u| u.last_write > durable) {
                // In order behind what is being stored for the same sessions.
                Some(user) => {
                    user.last_write = write;
                    self.after(write, After::Copies(Box::new(stanza.clone()), by));
                }
                None => self.copy_sent_unstored(stanza, by),
            }
        }
    }

    fn write_sent(&mut self, sent: Box<Sent>) {
        let account = sent.stanza.from.bare();
        let append = Append {
            owner: account.clone(),
            peer: sent.stanza.to.bare(),
            origin: sent.stanza.origin,
            archive: sent.archive,
            pending: sent.pending,
            time_ms: self.now.unix_ms,
            outgoing: true,
            payload: sent.stanza.bytes.clone(),
            text: self.text_of(&account, sent.archive, &sent.stanza.bytes),
        };
        let number = self.write(Write::Store(store::Write::Append(append)));
        if sent.pending
            && let Some(user) = self.users.get_mut(&account)
        {
            user.add_pending(sent.stanza.bytes.len());
            user.storing += 1;
            user.last_write = number;
        }
        self.after(number, After::Sent(sent));
    }

    /// The write of what an account has sent is answered.
    pub(super) fn sent_stored(&mut self, sent: Box<Sent>, result: Option<&Written>) {
        let account = sent.stanza.from.bare();
        let mut flood_waits = false;
        if sent.pending
            && let Some(user) = self.users.get_mut(&account)
        {
            user.storing = user.storing.saturating_sub(1);
            flood_waits = std::mem::take(&mut user.flood_waits);
            if !matches!(result, Some(Written::Stored { .. })) {
                user.take_pending(1, sent.stanza.bytes.len() as u64);
            }
        }
        match result {
            Some(&Written::Stored { position }) => {
                self.copy_sent(&sent, &account, position);
                self.done(sent.stanza.token);
            }
            // Taken before a restart; copies that are still owed are pending.
            Some(Written::Replayed { .. }) => self.done(sent.stanza.token),
            _ => self.sent_refused(*sent),
        }
        if flood_waits {
            self.floods_of(&account);
        }
    }

    /// The disk does not take it. The recipient's row, which most likely was in the same transaction, has the sender told; this
    /// one is tried again for as long as an element may wait.
    fn sent_refused(&mut self, sent: Sent) {
        let settle_max = self.settings.settle_max.as_millis() as u64;
        if self.now.mono_ms.saturating_sub(sent.since_ms) < settle_max {
            self.unsaved.push(sent);
        } else {
            tracing::debug!("a message is not in its sender's archive: the disk does not take it");
            self.done(sent.stanza.token);
        }
    }

    /// The tick: what the disk has refused is written again.
    pub(super) fn save_again(&mut self) {
        for sent in std::mem::take(&mut self.unsaved) {
            self.write_sent(Box::new(sent));
        }
    }

    /// Sessions that get copies, but not this one.
    pub(super) fn copy_targets(&self, account: &BareJid, but: Option<SessionId>) -> CopyTargets {
        let mut targets = CopyTargets::default();
        let Some(user) = self.users.get(account) else {
            return targets;
        };
        for &slot in &user.sessions {
            let session = self.sessions.get(slot as usize);
            let Some(bound) = session.and_then(|s| s.bound()) else {
                continue;
            };
            if !bound.ready || !bound.gets_copies() || Some(bound.id) == but {
                continue;
            }
            match bound.takes_messages() {
                true => targets.takers.push(slot),
                false => targets.others.push(slot),
            }
        }
        targets
    }

    /// Copies of what is committed now, for the sender's other sessions.
    fn copy_sent(&mut self, sent: &Sent, account: &BareJid, position: u64) {
        if sent.pending
            && let Some(user) = self.users.get_mut(account)
        {
            user.last_position = user.last_position.max(position);
        }
        if !sent.stanza.copies {
            return;
        }
        let by = sent.stanza.origin.map(|o| SessionId(o.session));
        let targets = self.copy_targets(account, by);
        let bytes = match sent.archive {
            true => self.with_id(account, position, &sent.stanza.bytes),
            false => sent.stanza.bytes.clone(),
        };
        if sent.pending {
            let user = self.users.get(account);
            let giving = Giving {
                position,
                len: sent.stanza.bytes.len(),
                several: targets.takers.len() > 1,
                known: user.is_some_and(|u| u.assigned.contains_key(&position)),
                copy: true,
            };
            for &slot in &targets.takers {
                self.copy_stored(Copy::Sent, account, slot, &bytes, &giving);
            }
            self.nobody_is_owed(account, position, giving.len);
        }
        for &slot in &targets.others {
            self.copy_unstored(Copy::Sent, account, slot, &bytes);
        }
    }

    /// A copy of a row for a session that takes messages.
    pub(super) fn copy_stored(
        &mut self,
        copy: Copy,
        account: &BareJid,
        slot: u32,
        bytes: &Bytes,
        giving: &Giving,
    ) {
        if let Some(bytes) = self.wrapped(copy, account, slot, bytes) {
            self.give_stored(account, slot, bytes, false, giving);
        }
    }

    /// The same of something that is not kept for this session.
    pub(super) fn copy_unstored(
        &mut self,
        copy: Copy,
        account: &BareJid,
        slot: u32,
        bytes: &Bytes,
    ) {
        if let Some(bytes) = self.wrapped(copy, account, slot, bytes)
            && !self.give_behind(slot, bytes)
        {
            tracing::debug!("a copy was dropped: the client is behind with its output");
        }
    }

    fn wrapped(
        &mut self,
        copy: Copy,
        account: &BareJid,
        slot: u32,
        bytes: &Bytes,
    ) -> Option<Bytes> {
        let to = &self.session(slot).bound()?.jid;
        carbons::wrap(copy, account, to, bytes)
    }

    /// Copies of what a session has sent and nobody keeps.
    pub(super) fn copy_sent_unstored(&mut self, stanza: &Routed, by: SessionId) {
        let account = stanza.from.bare();
        let targets = self.copy_targets(&account, Some(by));
        for &slot in targets.takers.iter().chain(&targets.others) {
            self.copy_unstored(Copy::Sent, &account, slot, &stanza.bytes);
        }
    }

    /// Copies of what these sessions have been given and nobody keeps.
    pub(super) fn copy_received_unstored(&mut self, stanza: &Routed, given: &[u32]) {
        let account = stanza.to.bare();
        let targets = self.copy_targets(&account, self.sent_by(stanza));
        for slot in targets.takers.into_iter().chain(targets.others) {
            if !given.contains(&slot) {
                self.copy_unstored(Copy::Received, &account, slot, &stanza.bytes);
            }
        }
    }

    /// A row that was sent by the account and that none of its sessions holds, or is still to read, is pending no more.
    pub(super) fn nobody_is_owed(&mut self, account: &BareJid, position: u64, len: usize) {
        let up_to = self.clearable_up_to(account);
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let assignment = user.assigned.entry(position).or_default();
        if !assignment.holders.is_empty() || assignment.acked || assignment.clearing {
            return;
        }
        (assignment.copy, assignment.acked) = (true, true);
        assignment.bytes = len as u64;
        if position <= up_to {
            assignment.clearing = true;
            user.acks.push(position);
        }
        self.mark_user(account);
    }

    /// A kept row as a session gets it that has to read it from the store: itself, or a copy of it. `None`: it cannot be read.
    pub(super) fn row_for(
        &mut self,
        slot: u32,
        account: &BareJid,
        row: &store::StoredRow,
    ) -> Option<Bytes> {
        let by = match account.localpart() {
            Some(_) => account.domainpart(),
            // A component has not delayed it, we have.
            None => self.settings.domains.first().map_or("", String::as_str),
        };
        let mut bytes = routing::with_delay(&row.payload, by, row.time_ms);
        if row.archive {
            bytes = self.with_id(account, row.position, &bytes);
        }
        if row.outgoing {
            return self.wrapped(Copy::Sent, account, slot, &bytes);
        }
        let addressee = routing::recipient(&row.payload).and_then(|to| self.session_of(&to));
        let copied = addressee.is_some_and(|s| s != slot)
            && (self.session(slot).bound()).is_some_and(|b| b.gets_copies());
        match copied {
            true => self.wrapped(Copy::Received, account, slot, &bytes),
            false => Some(bytes),
        }
    }
}

impl CopyTargets {
    fn is_empty(&self) -> bool {
        self.takers.is_empty() && self.others.is_empty()
    }

    /// Without those that have it already.
    pub fn without(mut self, given: &[u32]) -> Self {
        self.takers.retain(|slot| !given.contains(slot));
        self.others.retain(|slot| !given.contains(slot));
        self
    }
}
