//! What time does: log-in limits, dead clients, held elements, idle entities, records of ended sessions.
//!
//! One tick a second; long tables are swept in slices, so that a million sessions cost no stall.

use super::Shard;
use super::user::Queued;
use crate::event::*;
use crate::session::{Flood, Stage};
use proto::frame::CloseReason;
use xmpp::error::{StanzaError, StreamError};

/// Milliseconds between ticks.
pub(super) const TICK_MS: u64 = 1_000;
/// Sessions looked at in one tick: a tenth, but at least so many.
const SWEEP_MIN: usize = 2_000;
/// A session silent for so long keeps no empty queues.
const SILENT_MS: u64 = 5_000;
/// What a mux keeps of a session's input comes right behind its Resume; nothing for so long, and there is no more.
const LAST_INPUT_MS: u64 = 2_000;
/// An entity unused for so long is forgotten (if offline), or its roster is.
const IDLE_MS: u64 = 60_000;

impl Shard {
    /// To be called when [`Shard::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        if now.mono_ms < self.next_tick_ms {
            return;
        }
        self.next_tick_ms = now.mono_ms + TICK_MS;
        self.sweep_sessions();
        self.sweep_users();
        self.expire_iqs();
        self.sweep_nodes();
        self.sweep_asking();
        self.failures.tick(now.mono_ms);
        self.expire_behind_flood();
        self.save_again();
        self.tick_push();
        self.tick_privileged();
        self.forget_ended();
        if self.orphans_until_ms != 0 && now.mono_ms >= self.orphans_until_ms {
            self.orphans_until_ms = 0;
            self.end_orphans(None);
            self.forget_population_before();
        }
        self.push_owed();
        self.run_local();
    }

    fn sweep_sessions(&mut self) {
        let slice = (self.sessions.capacity() / 10).max(SWEEP_MIN);
        let end = (self.sweep_at + slice).min(self.sessions.capacity());
        for slot in self.sweep_at..end {
            if self.sessions.contains(slot) {
                self.sweep_session(slot as u32);
            }
        }
        self.sweep_at = if end >= self.sessions.capacity() {
            0
        } else {
            end
        };
    }

    fn sweep_session(&mut self, slot: u32) {
        let now = self.now;
        let settings = self.settings.clone();
        let session = self.session(slot);
        let silent = now.mono_ms.saturating_sub(session.active_ms);
        if session.ack_pending {
            // The disk has refused what it had acknowledged.
            if let Some(account) = self.account_of(slot) {
                self.flush_user_acks(&account);
            }
            self.await_acks(slot);
        }
        let session = self.session(slot);
        match &session.stage {
            Stage::Negotiating(_) => {
                if now.mono_ms.saturating_sub(session.opened_ms)
                    > settings.login_timeout.as_millis() as u64
                {
                    self.end_session(
                        slot,
                        Some(StreamError::ConnectionTimeout),
                        CloseReason::PolicyViolation,
                    );
                }
            }
            Stage::Bound(bound) => {
                if session.is_away() || session.key.is_none() {
                    // Whoever wants to go on with it may have waited for too long.
                    self.touch(slot);
                    self.sweep_detached(slot);
                    return;
                }
                if session.ended_before.is_some() {
                    // What its mux keeps of its input comes right behind its Resume.
                    if silent > LAST_INPUT_MS && !session.paused {
                        self.end_session(slot, None, CloseReason::Normal);
                    }
                    return;
                }
                let inactive = session.is_inactive();
                let wants_flood = bound.flood == Flood::Wanted;
                let resends = session.is_catching_up_stream();
                let unacknowledged = session.sm.is_some()
                    && (!session.unacked.is_empty()
                        || session.keeps_much(silent > SILENT_MS)
                        || session.awaits_archive());
                let asked = session.asked_ms.is_some();
                let timeout = settings.ping_timeout.as_millis() as u64;
                let unfinished = session.unfinished_ms(now);
                if unfinished.is_some_and(|t| t > settings.element_timeout.as_millis() as u64) {
                    // Its mux has to keep it for us, and has room for so many only.
                    let error = Some(StreamError::ConnectionTimeout);
                    self.lose_connection(slot, error, CloseReason::PolicyViolation);
                    return;
                }
                let dead = session.asked_ms.is_some_and(|t| now.mono_ms - t > timeout)
                    || session.stuck_ms(now).is_some_and(|t| t > timeout)
                    || session
                        .sm
                        .and_then(|sm| sm.requested_ms)
                        .is_some_and(|t| now.mono_ms - t > timeout);
                if dead {
                    let error = Some(StreamError::ConnectionTimeout);
                    self.lose_connection(slot, error, CloseReason::SlowClient);
                    return;
                }
                if silent > SILENT_MS {
                    session.trim();
                }
                if unacknowledged {
                    let mut links = Vec::new();
                    session.request_ack(silent > SILENT_MS, now, &mut links);
                    self.fx.links.append(&mut links);
                }
                if inactive {
                    self.record_waiting_presence(slot);
                }
                if resends {
                    self.resend(slot);
                }
                if wants_flood {
                    self.continue_flood(slot);
                }
                // Also one that waits for room: nobody may be there to make any.
                if silent > settings.ping_after.as_millis() as u64 && !asked {
                    self.ask_if_alive(slot);
                }
            }
            Stage::Closing { .. } => self.touch(slot),
        }
    }

    /// `<r/>` with stream management, else a ping (XEP-0199 §4.2): every client answers one or the other, with a result or an error.
    fn ask_if_alive(&mut self, slot: u32) {
        let (now, settings) = (self.now, self.settings.clone());
        let session = self.session(slot);
        session.asked_ms = Some(now.mono_ms);
        if session.sm.is_some() {
            session.request_ack_now(now);
            self.send_nonza(
                slot,
                bytes::Bytes::from_static(b"<r xmlns='urn:xmpp:sm:3'/>"),
            );
        } else if let Some(bound) = session.bound_mut() {
            bound.pings = bound.pings.wrapping_add(1);
            let ping = format!(
                "<iq type='get' id='isthmus-ping-{}' from='{}' to='{}'><ping xmlns='urn:xmpp:ping'/></iq>",
                bound.pings,
                match bound.is_component() {
                    // It is asked by a domain of ours, not by itself.
                    true => settings.domains.first().map_or("", String::as_str),
                    false => bound.jid.domainpart(),
                },
                escaped(match bound.is_component() {
                    true => bound.account.as_str(),
                    false => bound.jid.as_str(),
                }),
            );
            self.send_stanza(slot, ping.into());
        }
    }

    fn sweep_users(&mut self) {
        let now = self.now.mono_ms;
        let settle_max = self.settings.settle_max.as_millis() as u64;
        let mut late = Vec::new();
        let mut unwritten = Vec::new();
        let durable = self.durable;
        self.users.retain(|jid, user| {
            if !user.acks.is_empty() && !user.dirty {
                unwritten.push(jid.clone());
            }
            if let Some(loading) = &user.loading
                && now.saturating_sub(loading.since_ms) > settle_max
            {
                late.push(jid.clone());
            }
            let unused = now.saturating_sub(user.used_ms) > IDLE_MS;
            if unused && user.roster.is_some() {
                user.roster = None;
            }
            !(unused && user.idle() && user.last_write <= durable)
        });
        // In an order that does not hang on the table's: the same in every run of a simulation.
        late.sort_unstable();
        unwritten.sort_unstable();
        for jid in late {
            self.load_late(&jid);
        }
        for jid in unwritten {
            self.mark_user(&jid);
        }
    }

    /// The entity was not loaded in time: what waits is answered with a temporary error.
    pub(super) fn load_late(&mut self, jid: &xmpp::jid::BareJid) {
        let Some(loading) = self.users.get_mut(jid).and_then(|u| u.loading.take()) else {
            return;
        };
        for queued in loading.queue {
            match queued {
                Queued::Stanza(stanza) => self.fail_queued_stanza(stanza),
                Queued::Sent(stanza, copies) => self.send_late(stanza, copies),
                Queued::Element {
                    slot,
                    generation,
                    number,
                    element,
                } if self.live(slot, generation) => {
                    let error = xmpp::error::stanza_error(
                        &element,
                        StanzaError::ResourceConstraint,
                        Some("The account could not be loaded in time; try again"),
                    );
                    if let Some(bytes) = error {
                        self.send_stanza(slot, bytes);
                    }
                    self.finish_paused(slot, number);
                }
                Queued::Fan(fan) => self.fan_out(&fan, &[jid]),
                Queued::Event(fan, target) => self.event_out(&fan, &[target]),
                Queued::Subscription(s) => self.fail_queued_subscription(&s),
                other => self.done(other.token()),
            }
        }
        self.owed_is_loaded(jid);
    }

    fn expire_iqs(&mut self) {
        let settle_max = self.settings.settle_max.as_millis() as u64;
        let now = self.now.mono_ms;
        let mut late: Vec<u64> = self
            .waiting_iqs
            .iter()
            .filter(|(_, w)| now.saturating_sub(w.since_ms) > settle_max)
            .map(|(&n, _)| n)
            .collect();
        late.sort_unstable();
        for n in late {
            let waiting = self.waiting_iqs.remove(&n).expect("it was listed");
            self.bounce(
                waiting.stanza,
                StanzaError::ResourceConstraint,
                Some("There was no answer in time; it may still be worked on"),
            );
        }
    }

    fn forget_ended(&mut self) {
        while let Some(&(due, id)) = self.ended.front() {
            if due > self.now.mono_ms {
                break;
            }
            self.ended.pop_front();
            self.write(Write::Session(id, None));
            self.write(Write::Store(store::Write::ForgetSession { session: id.0 }));
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    xmpp::node::escape_into(&mut out, text);
    String::from_utf8(out).expect("escaping keeps UTF-8")
}
