//! After `kill -9`: sessions found in the session store, muxes that bring their connections back, and those that do not.
//!
//! Owns: orphans (sessions without a connection) and the repetition of what was said in the last `mux_lost` seconds, so
//! that nobody keeps a ghost (DESIGN §4).
//! Never: believes a Note from another mux or connection than the one it was given to.

use super::user::{Holder, Queued};
use super::{After, Shard, home};
use crate::event::*;
use crate::session::csi::Inactive;
use crate::session::record::Record;
use crate::session::{Holding, Session};
use proto::frame::{Close, CloseReason, Frame, ListenerKind, Open, Resume, Transport};
use xmpp::jid::BareJid;
use xmpp::stream::{Limits, StreamNamespaces, StreamParser};

impl Shard {
    /// Takes over the sessions an earlier run left, before the first event. Records of accounts at home elsewhere are ignored.
    /// Returns the keys, for the link loop.
    pub fn restore(&mut self, now: Now, records: Vec<Record>) -> Vec<NotePlace> {
        self.now = now;
        let window = self.settings.mux_lost.as_millis() as u64;
        let mut places = Vec::new();
        let alive = Record::alive_unix_ms(&records).unwrap_or(now.unix_ms);
        for record in records {
            if home(&record.jid.bare(), self.shards) != self.id {
                continue;
            }
            let recent = |t: u64| alive.saturating_sub(t) <= window;
            if record.ended_unix_ms.is_some() {
                // Kept as long as if it had ended just now: while the server was down nobody let its mux forget it.
                self.ended.push_back((now.mono_ms + window, record.id));
                self.load(&record.jid.bare());
                self.queue_for(
                    &record.jid.bare(),
                    Queued::RebroadcastGone(record.jid.clone()),
                );
                places.push(NotePlace {
                    note: record.note,
                    shard: self.id,
                });
                self.restore_ended(record);
                continue;
            }
            // Without a connection there is no mux that could bring it back.
            if record
                .resumption
                .as_ref()
                .is_none_or(|r| r.detached.is_none())
            {
                places.push(NotePlace {
                    note: record.note,
                    shard: self.id,
                });
            }
            self.restore_session(record, recent);
        }
        if !self.sessions.is_empty() {
            self.orphans_until_ms = now.mono_ms + window;
        }
        self.run_local();
        places
    }

    fn restore_session(&mut self, record: Record, recent: impl Fn(u64) -> bool) {
        let note = record.note;
        let Some(parser) = self.parser_of(&record) else {
            return;
        };
        let said = record.presence_changed_unix_ms;
        let say_again = said != 0 && recent(said);
        let acked = record.acked.clone();
        let (origin_base, resumption) = (record.origin_base, record.resumption.clone());
        let (caps, inactive) = (record.caps.clone(), record.inactive.clone());
        let (mut bound, sm) = record.bound();
        self.restore_caps(&mut bound, caps);
        let (account, jid) = (bound.account.clone(), bound.jid.clone());
        let new_component = bound.is_component() && recent(bound.since_unix_ms);
        let (name, takes_messages) = (bound.id, bound.takes_messages());
        let mut session = Session::orphan(Box::new(unknown_open()), parser, bound, sm, self.now);
        session.name = Some(name);
        session.origin_base = origin_base;
        session.restore_uncleared(&acked);
        let held = session.restore_resumption(resumption, self.now);
        let detached = session.is_detached();
        if let Some((messages, presence)) = inactive {
            session.inactive = Some(Box::new(Inactive::restored(messages)));
            if let Some(bound) = session.bound_mut() {
                bound.held_presence = presence;
            }
        }
        let slot = self.insert_session(session);
        if !detached {
            self.notes.insert(note.0, slot);
        }
        self.restore_acked(slot, &account, &acked);
        self.restore_held(slot, &account, &held);
        let generation = self.generation(slot);
        let user = self.user(&account);
        user.exists = true;
        user.sessions.push(slot);
        if takes_messages {
            self.was_told(&account);
        }
        if new_component {
            // It may not have been told of everybody before the kill.
            self.list_for(&account);
        }
        if say_again {
            self.load(&account);
            self.queue_for(&account, Queued::Rebroadcast(slot, generation, jid));
        }
    }

    /// A parser that goes on in the middle of the session's stream.
    fn parser_of(&self, record: &Record) -> Option<StreamParser> {
        let namespaces = StreamNamespaces::from_bytes(&record.namespaces)?;
        let mut parser = StreamParser::new(self.limits(true));
        parser.resume_after_header(namespaces);
        Some(parser)
    }

    /// A session that had ended, but whose mux may still know what its client has got, and keep what it had sent.
    fn restore_ended(&mut self, record: Record) {
        let (note, input) = (record.note, record.ended_input);
        let Some(parser) = self.parser_of(&record) else {
            return;
        };
        let acked = record.acked.clone();
        let origin_base = record.origin_base;
        let (bound, sm) = record.clone().bound();
        let holding = Holding {
            account: bound.account.clone(),
            mux: bound.mux.clone(),
            conn: bound.conn,
            record,
            released: false,
        };
        let account = bound.account.clone();
        let name = bound.id;
        let mut session = Session::orphan(Box::new(unknown_open()), parser, bound, sm, self.now);
        session.name = Some(name);
        session.origin_base = origin_base;
        session.holds_for = Some(Box::new(holding));
        session.restore_uncleared(&acked);
        session.ended_before = Some(input);
        let slot = self.insert_session(session);
        self.notes.insert(note.0, slot);
        self.restore_acked(slot, &account, &acked);
        let user = self.user(&account);
        user.exists = true;
        user.closing.push(slot);
    }

    /// What the session had acknowledged: its marks could not be cleared before the kill.
    fn restore_acked(&mut self, slot: u32, account: &BareJid, positions: &[u64]) {
        let user = self.user(account);
        for &position in positions {
            let assignment = user.assigned.entry(position).or_default();
            assignment.acked = true;
            assignment.had.push(slot);
        }
    }

    /// What the session had been sent, or was to be sent once more, on a connection that is gone.
    fn restore_held(&mut self, slot: u32, account: &BareJid, positions: &[u64]) {
        let user = self.user(account);
        for &position in positions {
            user.assigned
                .entry(position)
                .or_default()
                .holders
                .push(Holder {
                    slot,
                    sent: true,
                    taken: false,
                });
        }
    }

    /// A mux brings back a connection.
    pub(super) fn resumed(&mut self, key: ConnKey, resume: Resume, mux: &str) {
        let known = resume.note.and_then(|n| self.notes.get(&n.0).copied());
        let good = known.filter(|&slot| {
            self.sessions
                .get(slot as usize)
                .is_some_and(|s| s.is_conn_of(mux, key.conn.0))
        });
        let Some(slot) = good else {
            let close = Close {
                last: bytes::Bytes::new(),
                reason: CloseReason::NotResumable,
            };
            self.fx.links.push(LinkCommand::Frame {
                link: key.link,
                frame: Frame::Close(key.conn, close),
                track: false,
            });
            return;
        };
        let now = self.now;
        let note = resume.note.expect("it was found by it");
        self.notes.remove(&note.0);
        self.conns.insert(key, slot);
        let session = self.session(slot);
        let outdated = session.resume(key, &resume);
        session.active_ms = now.mono_ms;
        *session.open = resume.open.clone();
        let held = session.unacked.clone();
        let taken = session.resumption.is_none();
        let account = self.account_of(slot).expect("checked above");
        let user = self.user(&account);
        for u in held {
            let assignment = user.assigned.entry(u.position).or_default();
            // One that it was to be sent once more, and has been.
            assignment.holders.retain(|h| h.slot != slot);
            assignment.holders.push(Holder {
                slot,
                sent: true,
                taken,
            });
        }
        if outdated {
            let generation = self.generation(slot);
            let write = self.write_record(slot);
            self.after(write, After::Resumed { slot, generation });
        } else {
            self.let_go(slot);
        }
        let mut delivered = Vec::new();
        self.session(slot).drained_at_resume(&mut delivered);
        self.delivered(slot, &delivered);
        self.touch(slot);
        self.resume_clearing(&account);
        self.floods_of(&account);
        self.resume_claim(slot);
        if self.session(slot).has_taken_its_last() {
            self.end_session(slot, None, CloseReason::Normal);
        }
    }

    /// What was held back while the mux was away goes out.
    pub(super) fn let_go(&mut self, slot: u32) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("checked by the caller");
        // What comes behind <enabled/> goes with it.
        if session.enabling() {
            return;
        }
        if session.is_catching_up_stream() {
            return self.resend(slot);
        }
        session.let_go(None, now, &mut self.fx.links);
    }

    /// The server was started so shortly ago that sessions of an earlier run may still come back.
    pub(super) fn restarted(&self) -> bool {
        self.orphans_until_ms != 0
    }

    /// Sessions of the account that are still to be resumed: what they hold is not known yet.
    pub(super) fn has_orphans(&self, account: &BareJid) -> bool {
        self.restarted()
            && self.users.get(account).is_some_and(|u| {
                u.sessions.iter().any(|&s| {
                    self.sessions
                        .get(s as usize)
                        .is_some_and(|s| s.key.is_none() && !s.is_away())
                })
            })
    }

    /// Lets every session of the account go on taking what is pending.
    pub(super) fn floods_of(&mut self, account: &BareJid) {
        let slots = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        for slot in slots {
            self.continue_flood(slot);
        }
    }

    /// Sessions nobody has brought back are lost connections: those of this mux, which has brought all it has, or (`None`) those
    /// of every mux, when the time is over.
    pub(super) fn end_orphans(&mut self, mux: Option<&str>) {
        let theirs = |s: &Session| {
            let of = s
                .bound()
                .map(|b| &b.mux)
                .or_else(|| s.holds_for.as_ref().map(|h| &h.mux));
            of.is_some_and(|of| mux.is_none_or(|m| **of == *m))
        };
        let orphans: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.key.is_none() && !s.is_away() && theirs(s))
            .map(|(slot, _)| slot as u32)
            .collect();
        // In the order of slots, and there may be very many.
        self.notes
            .retain(|_, slot| orphans.binary_search(slot).is_err());
        for slot in orphans {
            let account = self.account_of(slot);
            self.deny_unrecorded(slot);
            self.release_closing(slot);
            self.end_session(slot, None, CloseReason::SocketError);
            if let Some(account) = account {
                self.resume_clearing(&account);
                self.floods_of(&account);
            }
        }
        if mux.is_none() {
            self.notes.clear();
        }
    }

    /// A session that nobody has brought back, and without presence on record: it may have said one that was heard before it was
    /// written down, and the mux that would bring it again is lost.
    pub(super) fn deny_unrecorded(&mut self, slot: u32) {
        let silent = self.session(slot).bound().filter(|b| b.presence.is_none());
        let Some(jid) = silent.map(|b| b.jid.clone()) else {
            return;
        };
        let account = jid.bare();
        self.load(&account);
        self.queue_for(&account, Queued::RebroadcastGone(jid));
    }

    /// The mux is lost, and with it its connections.
    pub(super) fn link_lost(&mut self, link: LinkId) {
        self.gone.retain(|k| k.link != link);
        let mut lost: Vec<u32> = self
            .conns
            .iter()
            .filter(|(k, _)| k.link == link)
            .map(|(_, &slot)| slot)
            .collect();
        lost.sort_unstable();
        for slot in lost {
            let session = self.session(slot);
            if let Some(key) = session.key.take() {
                self.conns.remove(&key);
            }
            self.lose_connection(slot, None, CloseReason::SocketError);
        }
    }

    /// Says again what was said of a session that has ended shortly before the restart.
    pub(super) fn rebroadcast_gone(&mut self, jid: &xmpp::jid::FullJid) {
        // There may be many records of a resource that has come and gone: once is enough.
        if self.remember_gone(jid) {
            self.say_gone_again(jid);
        }
    }

    /// The same, once more.
    pub(super) fn say_gone_again(&mut self, jid: &xmpp::jid::FullJid) {
        // A session of the same name says itself how it is.
        let slot = self.session_of(&xmpp::jid::Jid::Full(jid.clone()));
        let back = slot
            .and_then(|s| self.sessions.get(s as usize))
            .and_then(|s| s.bound());
        if back.is_none_or(|b| b.presence.is_none()) {
            let gone = super::presence::unavailable(jid);
            self.broadcast_to(&gone, true);
            self.tell_watchers(&gone, false);
            self.tell_siblings(&gone);
        }
    }
}

/// Stands in for the facts of a connection until Resume brings them.
fn unknown_open() -> Open {
    let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    Open {
        kind: ListenerKind::C2s,
        transport: Transport::Tcp,
        peer: nowhere,
        local: nowhere,
        tls: None,
        dial: None,
    }
}

impl Shard {
    /// Limits of the XML stream, before and after log-in.
    pub(super) fn limits(&self, logged_in: bool) -> Limits {
        let base = if logged_in {
            Limits::AFTER_LOGIN
        } else {
            Limits::BEFORE_LOGIN
        };
        let s = &self.settings;
        let bytes = if logged_in {
            s.element_bytes_max
        } else {
            s.element_bytes_max_before_login
        };
        let depth = if logged_in {
            s.element_depth_max as u16
        } else {
            base.depth_max
        };
        Limits {
            element_bytes_max: u32::try_from(bytes).unwrap_or(u32::MAX),
            depth_max: depth,
            ..base
        }
    }
}
