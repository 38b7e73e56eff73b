//! What waits for a write: the one queue on which the order of things within a shard hangs.
//!
//! In: writes, and what has to follow each. Out: what follows, in the order of the writes, once the store has answered.
//! Owns: the queue `after` and the numbers of writes. Never: carries out anything before the write it waits for.

use super::user::ArchivePrefs;
use super::{Shard, blocking, copies, pubsub, roster, sasl2};
use crate::event::*;
use bytes::Bytes;
use std::sync::Arc;
use xmpp::error::StanzaError;
use xmpp::jid::BareJid;

/// What waits for a write.
#[derive(Debug)]
pub(super) enum After {
    /// The write stores this message, in the archive or not: deliver it, tell its sender.
    Message(Box<Routed>, bool),
    /// The write stores what an account has sent: its other sessions get their copies.
    Sent(Box<copies::Sent>),
    /// A copy of what is not stored.
    Copies(Box<Routed>, SessionId),
    /// A question to an archive may be asked.
    Archive(u64),
    /// Follows a stored message to the same account.
    Stanza(Box<Routed>),
    /// So does what somebody has published.
    Event(Arc<EventFan>, EventTarget),
    /// Something about nodes.
    Nodes(Box<pubsub::AfterNodes>),
    /// So does presence for this account.
    Fan(Arc<PresenceFan>, BareJid),
    /// The bound session may be told so.
    Bound {
        slot: u32,
        generation: u32,
        result: Bytes,
        number: u64,
    },
    /// The same of one that was bound with its log-in.
    BoundInline {
        slot: u32,
        generation: u32,
        inline: Box<sasl2::Inline>,
        number: u64,
    },
    /// A log-in has made keys of another hash: it goes on.
    KeysAdded { slot: u32, generation: u32 },
    /// A log-in has changed tokens: it goes on.
    Tokens {
        slot: u32,
        generation: u32,
        /// The first of the writes; the last is the one it waits for.
        first: u64,
        changes: Box<sasl2::Changes>,
    },
    /// What the element caused is durable.
    Token(Token),
    /// A roster has changed: what follows from it.
    Steps(Box<roster::Steps>),
    /// The list of whom an account has blocked is on disk.
    Blocking(Box<blocking::Blocking>),
    /// Acknowledgements of this session are on disk.
    Acked {
        slot: u32,
        generation: u32,
        write: u64,
        /// The write of its record, if that has to say so.
        recorded: Option<u64>,
    },
    /// The marks of these positions are cleared.
    Cleared(BareJid, Vec<u64>),
    /// A resumed session may be sent something: its record is right again.
    Resumed { slot: u32, generation: u32 },
    /// The record says that the session has no connection.
    Detached { slot: u32, generation: u32 },
    /// The record says that the session goes on over the connection of `resumer`, which may be told this key.
    HandedOver {
        slot: u32,
        generation: u32,
        resumer: crate::session::resumption::Resumer,
        note: proto::frame::NoteKey,
    },
    /// `<enabled/>` may be said.
    SmEnabled {
        slot: u32,
        generation: u32,
        number: u64,
    },
    /// What the account wants kept in its archive; the session may be told so.
    ArchivePrefs {
        slot: u32,
        generation: u32,
        number: u64,
        account: BareJid,
        prefs: Box<crate::archive::prefs::Prefs>,
        reply: Bytes,
        failure: Bytes,
    },
    /// Answer to a set of private XML, for the session's element.
    Private {
        slot: u32,
        generation: u32,
        number: u64,
        reply: Bytes,
        /// The account has more than it may keep.
        too_much: Bytes,
        failure: Bytes,
    },
    /// Answer to a request that came from elsewhere and wrote something, from this write on.
    Answer {
        stanza: Box<Routed>,
        first: u64,
        reply: Bytes,
    },
    /// Answer to an element that wrote something, for the session's element.
    Reply {
        slot: u32,
        generation: u32,
        number: u64,
        /// The first of the writes it answers; the last is the one it waits for.
        first: u64,
        reply: Bytes,
        failure: Bytes,
        stanza: bool,
    },
}

/// What the store has answered to writes from `first` on. Writes of one turn are answered together.
pub(super) struct Answers<'a> {
    pub(super) first: u64,
    pub(super) results: &'a [store::Written],
}

impl Answers<'_> {
    fn of(&self, write: u64) -> Option<&store::Written> {
        let at = write.checked_sub(self.first)?;
        self.results.get(at as usize)
    }

    /// One of these writes was refused.
    pub(super) fn failed(&self, mut writes: std::ops::RangeInclusive<u64>) -> bool {
        writes.any(|n| matches!(self.of(n), Some(store::Written::Failed(_))))
    }
}
impl Shard {
    /// Queues a write and returns its number.
    pub(super) fn write(&mut self, write: Write) -> u64 {
        self.write_number += 1;
        self.fx.writes.push(write);
        self.write_number
    }

    pub(super) fn after(&mut self, write: u64, what: After) {
        debug_assert!(
            self.after.back().is_none_or(|(w, _)| *w <= write),
            "the queue is in order of writes"
        );
        self.after.push_back((write, what));
    }

    /// Carries out what waits for writes up to `first + results.len() - 1`.
    pub(super) fn on_durable(&mut self, first: u64, results: Vec<store::Written>) {
        let last = first + results.len() as u64 - 1;
        let answers = Answers {
            first,
            results: &results,
        };
        while let Some(&(write, _)) = self.after.front() {
            if write > last {
                break;
            }
            // What comes up on the way waits behind what is still to be carried out, or it would overtake that (RFC 6120 §10.1).
            self.durable = self.durable.max(write.saturating_sub(1));
            let (write, what) = self.after.pop_front().expect("front was there");
            self.carry_out(write, what, &answers);
            self.run_local();
        }
        self.durable = last;
    }

    fn carry_out(&mut self, write: u64, what: After, answers: &Answers<'_>) {
        let result = answers.of(write);
        let failed = answers.failed(write..=write);
        match what {
            After::Message(stanza, archive) => self.message_stored(stanza, archive, result),
            After::Sent(sent) => self.sent_stored(sent, result),
            After::Copies(stanza, by) => self.copy_sent_unstored(&stanza, by),
            After::Archive(n) => self.read_archive(n),
            After::Stanza(stanza) => self.deliver_unstored(stanza),
            After::Event(fan, target) => self.event_out(&fan, &[target]),
            After::Nodes(what) => self.nodes_durable(*what, result),
            After::Fan(fan, target) => self.fan_out(&fan, &[&target]),
            After::Token(token) => self.done(Some(token)),
            After::Steps(steps) => self.take_steps(*steps, failed),
            After::Blocking(blocking) => self.blocklist_changed(*blocking, failed),
            After::Bound {
                slot,
                generation,
                result,
                number,
            } => {
                if self.live(slot, generation) {
                    self.bound_durable(slot, result, number, failed);
                }
            }
            After::BoundInline {
                slot,
                generation,
                inline,
                number,
            } => {
                if self.live(slot, generation) {
                    self.bound_inline(slot, number, *inline, failed);
                }
            }
            After::KeysAdded { slot, generation } => {
                if self.live(slot, generation) {
                    self.keys_added(slot, failed);
                }
            }
            After::Tokens {
                slot,
                generation,
                first,
                changes,
            } => {
                if self.live(slot, generation) {
                    let refused = |n: u64| answers.failed(first + n..=first + n);
                    self.tokens_changed(slot, *changes, refused);
                }
            }
            After::Acked {
                slot,
                generation,
                write: w,
                recorded,
            } => {
                debug_assert_eq!(w, write);
                let refused = recorded.is_some_and(|n| answers.failed(n..=n));
                if self.live(slot, generation) && refused {
                    self.session(slot).acks_failed();
                } else if self.live(slot, generation) {
                    self.session(slot).ack_durable(write);
                    self.settle(slot);
                    self.room_in_mux(slot);
                }
            }
            After::Cleared(account, positions) => {
                self.cleared_durable(&account, &positions, failed)
            }
            After::Resumed { slot, generation } => {
                if self.live(slot, generation) {
                    self.let_go(slot);
                }
            }
            After::Detached { slot, generation } => {
                if self.live(slot, generation) {
                    self.detached(slot);
                }
            }
            After::HandedOver {
                slot,
                generation,
                resumer,
                note,
            } => {
                if self.live(slot, generation) {
                    self.handed_over(slot, resumer, note, failed);
                }
            }
            After::SmEnabled {
                slot,
                generation,
                number,
            } => {
                if self.live(slot, generation) {
                    self.sm_enabled(slot, number, failed);
                }
            }
            After::ArchivePrefs {
                slot,
                generation,
                number,
                account,
                prefs,
                reply,
                failure,
            } => {
                if let (false, Some(user)) = (failed, self.users.get_mut(&account)) {
                    user.archive_prefs = ArchivePrefs::Own(prefs);
                }
                if self.live(slot, generation) {
                    self.send_stanza(slot, if failed { failure } else { reply });
                    self.session(slot).done(number);
                    self.settle(slot);
                }
            }
            After::Private {
                slot,
                generation,
                number,
                reply,
                too_much,
                failure,
            } => {
                if self.live(slot, generation) {
                    let answer = match answers.of(write) {
                        Some(store::Written::Failed(store::WriteError::TooMuch)) => too_much,
                        Some(store::Written::Failed(_)) => failure,
                        _ => reply,
                    };
                    self.send(slot, answer, crate::session::OutKind::STANZA);
                    self.session(slot).done(number);
                    self.settle(slot);
                }
            }
            After::Answer {
                stanza,
                first,
                reply,
            } => match result {
                Some(store::Written::Failed(store::WriteError::TooMuch)) => {
                    let text = Some("The account keeps as much as it may");
                    self.bounce(stanza, StanzaError::PolicyViolation, text);
                }
                _ if answers.failed(first..=write) => {
                    self.bounce(stanza, StanzaError::ResourceConstraint, None);
                }
                _ => self.reply(stanza, reply),
            },
            After::Reply {
                slot,
                generation,
                number,
                first,
                reply,
                failure,
                stanza,
            } => {
                let failed = answers.failed(first..=write);
                if self.live(slot, generation) {
                    let kind = if stanza {
                        crate::session::OutKind::STANZA
                    } else {
                        crate::session::OutKind::NONZA
                    };
                    self.send(slot, if failed { failure } else { reply }, kind);
                    self.session(slot).done(number);
                    self.settle(slot);
                }
            }
        }
    }

    /// The answer to a request that came from elsewhere waits for what it has written, from `first` on.
    pub(super) fn reply_after(&mut self, first: u64, stanza: Box<Routed>, reply: Bytes) {
        let write = self.write_number;
        if write < first {
            // There was nothing to write.
            return self.reply(stanza, reply);
        }
        self.after(
            write,
            After::Answer {
                stanza,
                first,
                reply,
            },
        );
    }

    /// A stanza's answer waits for all writes from this one on, and is another one if one of them is refused.
    pub(super) fn answer_after(
        &mut self,
        first: u64,
        slot: u32,
        number: u64,
        reply: Bytes,
        failure: Bytes,
    ) {
        let write = self.write_number;
        if write < first {
            // There was nothing to write.
            self.send_stanza(slot, reply);
            return self.session(slot).done(number);
        }
        let generation = self.generation(slot);
        self.after(
            write,
            After::Reply {
                slot,
                generation,
                number,
                first,
                reply,
                failure,
                stanza: true,
            },
        );
    }
}
