//! Elements of a logged-in session: what each is, and where it goes.
//!
//! In: events of the stream parser. Out: stanzas on their way, answers of stream management (XEP-0198; resumption is `resumption`).
//! Never: lets a client speak for anybody else; looks into a payload that is not for us.

use super::blocking::Sending;
use super::user::Queued;
use super::{After, Shard};
use crate::carbons::{self, Copy};
use crate::event::*;
use crate::pubsub::avatar::is_stamp;
use crate::routing::{self, IqType, MessageType, PresenceType, Retention, StanzaKind};
use crate::session::resumption::Resumption;
use crate::session::{Bound, Stage, asked};
use bytes::Bytes;
use proto::frame::{CloseReason, Input};
use std::hash::{BuildHasher, Hasher};
use xmpp::element::Element;
use xmpp::error::{StanzaError, StreamError};
use xmpp::jid::Jid;
use xmpp::negotiation::EnableSm;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::{Direction, Rewrite, is_reserved};
use xmpp::stream::StreamEvent;

impl Shard {
    /// Bytes of a client.
    pub(super) fn input(&mut self, key: ConnKey, input: Input) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        let session = self.session(slot);
        if matches!(session.stage, Stage::Closing { .. }) {
            if session.holds_for.is_some() && session.sm.is_some() {
                self.last_words(slot, Some(input));
            }
            return;
        }
        if self.strange_bytes(slot, input.bytes.len()) {
            return;
        }
        let session = self.session(slot);
        if session.is_lost() {
            // What comes on a connection that is given up comes again on another.
            return;
        }
        session.push_input(input);
        self.parse(slot);
    }

    /// An ended session holds messages, and its client may have acknowledged some before it knew: of all that still comes, this
    /// counts. Nothing of it is settled.
    pub(super) fn last_words(&mut self, slot: u32, input: Option<Input>) {
        let mut delivered = Vec::new();
        let session = self.session(slot);
        session.freeze_settled();
        if let Some(input) = input {
            session.push_input(input);
        }
        while let Ok(Some(StreamEvent::Element(element))) = session.parser.poll() {
            if element.is("a", ns::SM)
                && let Some(h) = handled(&element)
                && session.acknowledged(h, &mut delivered).is_none()
            {
                break;
            }
        }
        self.delivered(slot, &delivered);
    }

    /// Takes elements from the parser until there are no more, one has to be waited for, the client has too much to take, or the
    /// session ends or moves.
    pub(super) fn parse(&mut self, slot: u32) {
        let generation = self.generation(slot);
        let output_window = self.settings.output_window_bytes;
        let now = self.now;
        let mut begun = match self.live(slot, generation) {
            true => std::mem::take(&mut self.session(slot).unfinished_since_ms),
            false => 0,
        };
        while self.live(slot, generation) {
            let session = self.session(slot);
            if session.paused
                || session.is_frozen()
                || session.is_full(output_window)
                || matches!(session.stage, Stage::Closing { .. })
            {
                break;
            }
            if session.has_taken_its_last() {
                self.end_session(slot, None, CloseReason::Normal);
                break;
            }
            match session.parser.poll() {
                Ok(Some(event)) => {
                    begun = 0;
                    self.stream_event(slot, event);
                    if self.live(slot, generation) {
                        self.session(slot).put_down();
                    }
                }
                Ok(None) => {
                    session.note_unfinished(begun, now);
                    break;
                }
                Err(error) => {
                    self.stream_error(slot, error);
                    break;
                }
            }
            self.run_local();
        }
        if self.live(slot, generation) {
            self.settle(slot);
            let session = self.session(slot);
            if !session.paused
                && let Some(reason) = session.close_reason.take()
            {
                // The client had gone; now everything it had sent is taken.
                self.lose_connection(slot, None, reason);
            }
        }
    }

    fn stream_event(&mut self, slot: u32, event: StreamEvent) {
        if let Stage::Negotiating(_) = self.session(slot).stage {
            self.negotiate_event(slot, event);
            return;
        }
        match event {
            StreamEvent::Element(element) if self.is_component(slot) => {
                self.component_element(slot, element)
            }
            StreamEvent::Element(element) => self.element(slot, element),
            StreamEvent::End => {
                // Settled when its end is on record: a restarted server would wait for a client that has gone.
                let now = self.now;
                let session = self.session(slot);
                let number = session.begin_element(false, now);
                session.put_down();
                self.end_session(slot, None, CloseReason::Normal);
                let (write, token) = (self.write_number, self.token(slot, number));
                self.after(write, After::Token(token));
            }
            // RFC 6120 §4.9.3.24: streams are not restarted once a resource is bound.
            StreamEvent::Header(_) => self.stream_error(slot, StreamError::UnsupportedStanzaType),
        }
    }

    /// The client has broken the stream: it is told why, and goes.
    pub(super) fn stream_error(&mut self, slot: u32, error: StreamError) {
        self.end_session(slot, Some(error), CloseReason::PolicyViolation);
    }

    fn element(&mut self, slot: u32, element: Element) {
        let now = self.now;
        let is_stanza = element.stanza_kind().is_some();
        if self.bound_again(slot, &element) || self.logged_in_before(slot, element.ns()) {
            return;
        }
        let number = self.session(slot).begin_element(is_stanza, now);
        if is_stanza {
            self.status.stanzas_in += 1;
            self.client_stanza(slot, number, element);
        } else if element.ns() == ns::SM {
            self.stream_management(slot, number, &element);
        } else if element.ns() == ns::CSI {
            self.client_state(slot, number, &element);
        } else {
            // RFC 6120 §4.9.3.24.
            self.stream_error(slot, StreamError::UnsupportedStanzaType);
        }
    }

    /// Binding was done before the server was restarted, but not settled: the client may have no answer yet. It was not counted
    /// as a stanza then, and is not now.
    fn bound_again(&mut self, slot: u32, element: &Element) -> bool {
        let now = self.now;
        let session = self.session(slot);
        let again = session.resumed
            && session.stanza_number() == 0
            && element.name() == "iq"
            && element.child("bind", ns::BIND).is_some();
        if again {
            let number = session.begin_element(false, now);
            let jid = session
                .bound()
                .expect("only bound sessions get here")
                .jid
                .clone();
            let id = element.attr("id").unwrap_or_default();
            self.send_stanza(slot, xmpp::negotiation::bind_result(&id, &jid));
            self.session(slot).done(number);
        }
        again
    }

    pub(super) fn client_stanza(&mut self, slot: u32, number: u64, element: Element) {
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        if !speaks_for_itself(bound, &element) {
            return self.stream_error(slot, StreamError::InvalidFrom);
        }
        let kind = match StanzaKind::of(&element) {
            Some(Ok(kind)) => kind,
            Some(Err(condition)) => return self.refuse(slot, number, &element, condition),
            None => unreachable!("the caller has seen that it is a stanza"),
        };
        let to = match element.attr("to").map(|t| Jid::parse(&t)) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) => return self.refuse(slot, number, &element, StanzaError::JidMalformed),
        };
        match to
            .as_ref()
            .map_or(Sending::Goes, |to| self.sending(slot, to))
        {
            Sending::Goes => {}
            Sending::Blocked => return self.refuse_blocked(slot, number, &element),
            Sending::Unknown => return self.pause_for_roster(slot, number, element),
        }
        match kind {
            StanzaKind::Presence(_) => self.client_presence(slot, number, element, kind, to),
            StanzaKind::Iq(t) => self.client_iq(slot, number, element, t, to),
            StanzaKind::Message(t) => {
                let retention = routing::retention(t, &element);
                let account = self.account_of(slot);
                if let (Some(to), Some(account)) = (&to, account)
                    && self.must_know_prefs(&account, retention, to)
                {
                    return self.pause_for_roster(slot, number, element);
                }
                self.send_on(slot, number, &element, kind, to, retention);
            }
        }
    }

    /// Answers the session's own element with an error and settles it.
    pub(super) fn refuse(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        condition: StanzaError,
    ) {
        if let Some(bytes) = xmpp::error::stanza_error(element, condition, None) {
            self.send_stanza(slot, bytes);
        }
        self.session(slot).done(number);
    }

    fn client_iq(
        &mut self,
        slot: u32,
        number: u64,
        element: Element,
        iq_type: IqType,
        to: Option<Jid>,
    ) {
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        // XEP-0077 §3.2: what concerns the own account may be asked of its domain, too.
        let own = to.as_ref().is_none_or(|t| {
            t.as_str() == bound.account.as_str()
                || t.as_str() == bound.account.domainpart()
                    && element.child("query", ns::REGISTER).is_some()
        });
        if let Err(condition) = xmpp::stanza::Iq::of(&element) {
            return self.refuse(slot, number, &element, condition);
        }
        if own {
            if matches!(iq_type, IqType::Get | IqType::Set) {
                self.own_iq(slot, number, element);
            } else {
                // The answer to a ping of ours: that it came is all we wanted (XEP-0199 §4.2).
                self.session(slot).done(number);
            }
        } else if to
            .as_ref()
            .is_some_and(|t| t.localpart().is_none() && self.settings.serves(t.domainpart()))
            && matches!(iq_type, IqType::Result | IqType::Error)
        {
            self.caps_answer(slot, number, &element);
            self.session(slot).done(number);
        } else {
            let asks = matches!(iq_type, IqType::Get | IqType::Set);
            if let (true, Some(to), Some(id)) = (asks, &to, element.attr("id"))
                && let Some(bound) = self.session(slot).bound_mut()
            {
                bound.asked.note(to.as_str(), &id, asked::CLIENT_MAX);
            }
            self.send_on(
                slot,
                number,
                &element,
                StanzaKind::Iq(iq_type),
                to,
                Retention::Drop,
            );
        }
    }

    /// Stamps a stanza with its sender and sends it on its way.
    pub(super) fn send_on(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        kind: StanzaKind,
        to: Option<Jid>,
        retention: Retention,
    ) {
        let routed = self.stamped(slot, number, element, kind, to, retention);
        self.keep_sent(slot, &routed, copied(kind, element, Copy::Sent));
        self.route(Box::new(routed));
    }

    /// The session ends, and a message of its waits for the account to be loaded: it has been sent all the same.
    pub(super) fn send_paused(&mut self, slot: u32) {
        let generation = self.generation(slot);
        let Some(account) = self.account_of(slot).filter(|_| self.session(slot).paused) else {
            return;
        };
        let loading = self
            .users
            .get_mut(&account)
            .and_then(|u| u.loading.as_mut());
        let Some(loading) = loading else { return };
        let at = loading.queue.iter().position(|queued| {
            matches!(queued, Queued::Element { slot: s, generation: g, element, .. }
                if (*s, *g) == (slot, generation) && element.name() == "message")
        });
        let Some(Queued::Element {
            number, element, ..
        }) = at.and_then(|at| loading.queue.remove(at))
        else {
            return;
        };
        if let Some((routed, copies)) = self.message_of(slot, number, &element) {
            self.session(slot).paused = false;
            self.queue_for(&account, Queued::Sent(Box::new(routed), copies));
        }
    }

    /// The session ends because its client has logged in anew, and behind an element that waits for the account to be loaded is
    /// what it had sent before it closed the connection: its messages have been sent, and what it has acknowledged it has.
    pub(super) fn take_last(&mut self, slot: u32) {
        self.send_paused(slot);
        let Some(account) = self.account_of(slot) else {
            return;
        };
        let now = self.now;
        let session = self.session(slot);
        if session.close_reason.take().is_none() || session.bound().is_none_or(|b| b.is_component())
        {
            return;
        }
        session.forget_waits();
        let mut delivered = Vec::new();
        while let Ok(Some(StreamEvent::Element(element))) = self.session(slot).parser.poll() {
            let session = self.session(slot);
            if element.is("a", ns::SM) {
                match handled(&element).and_then(|h| session.acknowledged(h, &mut delivered)) {
                    Some(()) => continue,
                    None => break,
                }
            }
            if session
                .bound()
                .is_none_or(|b| !speaks_for_itself(b, &element))
            {
                break;
            }
            let number = session.begin_element(element.stanza_kind().is_some(), now);
            session.put_down();
            let message = self.message_of(slot, number, &element);
            let Some((routed, copies)) =
                message.filter(|(m, _)| self.may_wait(&account, m.bytes.len()))
            else {
                self.session(slot).done(number);
                continue;
            };
            self.status.stanzas_in += 1;
            self.load(&account);
            self.queue_for(&account, Queued::Sent(Box::new(routed), copies));
        }
        self.delivered(slot, &delivered);
    }

    /// The element, if it is a message, and whether other sessions of its sender are to have copies.
    fn message_of(&mut self, slot: u32, number: u64, element: &Element) -> Option<(Routed, bool)> {
        let Some(Ok(kind @ StanzaKind::Message(t))) = StanzaKind::of(element) else {
            return None;
        };
        let to = match element.attr("to") {
            Some(to) => Some(Jid::parse(&to).ok()?),
            None => None,
        };
        let retention = routing::retention(t, element);
        let routed = self.stamped(slot, number, element, kind, to, retention);
        Some((routed, copied(kind, element, Copy::Sent)))
    }

    /// The account is loaded, or cannot be: what an ended session had sent goes on its way.
    pub(super) fn send_late(&mut self, stanza: Box<Routed>, copies: bool) {
        if self.blocks(&stanza.from.bare(), &stanza.to) {
            return self.done(stanza.token);
        }
        if let Some(token) = stanza.token.filter(|t| self.live(t.slot, t.generation)) {
            self.keep_sent(token.slot, &stanza, copies);
        }
        self.route(stanza);
    }

    /// A stanza with its sender, as it goes on its way.
    fn stamped(
        &mut self,
        slot: u32,
        number: u64,
        element: &Element,
        kind: StanzaKind,
        to: Option<Jid>,
        retention: Retention,
    ) -> Routed {
        let generation = self.generation(slot);
        let shard = self.id;
        let settings = self.settings.clone();
        // XEP-0398 §4: into directed presence, too.
        let account = self.account_of(slot);
        let available = kind == StanzaKind::Presence(PresenceType::Available);
        let stamp = account.filter(|_| available);
        let stamp = stamp.and_then(|account| self.photo_stamp(&account, element));
        let session = self.session(slot);
        let stanza_number = session.origin_stanza();
        let bound = session.bound().expect("only bound sessions get here");
        let to = to.unwrap_or_else(|| Jid::Bare(bound.account.clone()));
        // An IQ has one child, which is the question: whoever answers it takes nothing in it for the server's word.
        let cuts = !matches!(kind, StanzaKind::Iq(_));
        let ours = |by: &str| settings.speaks_for(by);
        let bytes = Rewrite::new(element)
            .set("from", bound.jid.as_str())
            .set("to", to.as_str())
            .cut(|child| {
                cuts && is_reserved(Direction::FromClient, child, ours)
                    || stamp.is_some() && is_stamp(child)
            })
            .append(stamp.as_deref().unwrap_or_default())
            .finish();
        let origin = matches!(
            kind,
            StanzaKind::Message(MessageType::Chat | MessageType::Normal)
                | StanzaKind::Iq(IqType::Set)
        )
        .then(|| store::Origin {
            session: bound.id.0,
            stanza: stanza_number,
            hash: hash(&bytes),
        });
        Routed {
            kind,
            from: Jid::Full(bound.jid.clone()),
            to,
            bytes,
            retention,
            origin,
            copies: copied(kind, element, Copy::Received),
            token: Some(Token {
                shard,
                slot,
                generation,
                element: number,
            }),
        }
    }

    // ---- XEP-0198 ---------------------------------------------------------------------------------------

    fn stream_management(&mut self, slot: u32, number: u64, element: &Element) {
        match element.name() {
            "r" => {
                let session = self.session(slot);
                if session.sm.is_some() {
                    session.mark_ack_request(number);
                    session.done(number);
                } else {
                    self.sm_failed(slot, number, "unexpected-request");
                }
            }
            "a" => {
                let mut delivered = Vec::new();
                let session = self.session(slot);
                match (session.sm.is_some(), handled(element)) {
                    (true, Some(h)) => {
                        let sent = session.sent_since_sm();
                        if session.acknowledged(h, &mut delivered).is_none() {
                            return self.handled_too_high(slot, h, sent);
                        }
                        self.delivered(slot, &delivered);
                        let session = self.session(slot);
                        if !delivered.is_empty() && session.ack_pending {
                            // Settled when it is on disk: until then the mux keeps it, for a server that has forgotten.
                            session.ack_element(number);
                        } else {
                            session.done(number);
                        }
                        self.continue_output(slot);
                    }
                    (true, None) => self.stream_error(slot, StreamError::BadFormat),
                    (false, _) => self.sm_failed(slot, number, "unexpected-request"),
                }
            }
            "enable" => {
                let session = self.session(slot);
                // A restarted server takes an <enable/> again that it had handled and not settled.
                let again = session.resumed
                    && session
                        .sm
                        .is_some_and(|sm| sm.in_base == session.stanza_number());
                if again {
                    // The mux has taken <enabled/>.
                    return session.done(number);
                }
                if session.sm.is_some() {
                    return self.sm_failed(slot, number, "unexpected-request");
                }
                session.enable_sm();
                session.hold_back();
                let enable = EnableSm::read(|name| element.attr(name));
                if enable.resume {
                    self.make_resumable(slot, enable.max_s);
                }
                let generation = self.generation(slot);
                let write = self.write_record(slot);
                self.after(
                    write,
                    After::SmEnabled {
                        slot,
                        generation,
                        number,
                    },
                );
            }
            "resume" => {
                let session = self.session(slot);
                let again = session.resumed
                    && session.stanza_number() == 0
                    && session.sm.is_some_and(|sm| sm.continued);
                if !again {
                    self.sm_failed(slot, number, "unexpected-request");
                } else if session.enabling() {
                    self.resumed_again(slot, number);
                } else {
                    session.done(number);
                }
            }
            _ => self.stream_error(slot, StreamError::UnsupportedStanzaType),
        }
    }

    /// The record that says so is in the session store: stream management is in force, and both ends count from here.
    pub(super) fn sm_enabled(&mut self, slot: u32, number: u64, failed: bool) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("checked by the caller");
        let answer = if failed {
            session.sm = None;
            session.resumption = None;
            sm_failure("internal-server-error")
        } else {
            let location = &self.settings.resume_location;
            enabled(session.resumption.as_deref(), location).to_bytes(ns::CLIENT)
        };
        session.let_go(Some(answer), now, &mut self.fx.links);
        session.done(number);
        self.settle(slot);
    }

    fn sm_failed(&mut self, slot: u32, number: u64, condition: &str) {
        self.send_nonza(slot, sm_failure(condition));
        self.session(slot).done(number);
    }

    /// XEP-0198 §5: the client acknowledges more than it was sent.
    pub(super) fn handled_too_high(&mut self, slot: u32, h: u32, sent: u64) {
        let error = format!(
            "<stream:error><undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
             <handled-count-too-high xmlns='urn:xmpp:sm:3' h='{h}' send-count='{}'/>\
             <text xml:lang='en' xmlns='urn:ietf:params:xml:ns:xmpp-streams'>You acknowledged {h} stanzas, but only {} were sent</text>\
             </stream:error>",
            sent as u32, sent as u32,
        );
        self.end_session_with(slot, Some(Bytes::from(error)), CloseReason::PolicyViolation);
    }
}

/// How many stanzas the client says with `<a/>` that it has handled (XEP-0198 §4).
fn handled(element: &Element) -> Option<u32> {
    element.attr("h")?.parse().ok()
}

/// Its `from` is its own, if it has one; the prepared forms may agree where it is written otherwise (RFC 6120 §8.1.2.1).
fn speaks_for_itself(bound: &Bound, element: &Element) -> bool {
    element.attr("from").is_none_or(|from| {
        let own = |from: &str| from == bound.jid.as_str() || from == bound.account.as_str();
        own(&from) || Jid::parse(&from).is_ok_and(|from| own(from.as_str()))
    })
}

pub(super) fn copied(kind: StanzaKind, element: &Element, copy: Copy) -> bool {
    matches!(kind, StanzaKind::Message(t) if carbons::eligible(t, element, copy))
}

/// `<enabled/>` (XEP-0198 §3 and §5).
pub(super) fn enabled(resumption: Option<&Resumption>, location: &Option<String>) -> Node {
    let mut answer = Node::new("enabled", ns::SM);
    if let Some(r) = resumption {
        answer = answer
            .with_attr("id", super::resumption::id(&r.key))
            .with_attr("resume", "true")
            .with_attr("max", (r.max_ms / 1_000).to_string());
        if let Some(location) = location {
            answer = answer.with_attr("location", location);
        }
    }
    answer
}

pub(super) fn sm_failure(condition: &str) -> Bytes {
    Bytes::from(format!(
        "<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    ))
}

/// The hash in an origin. The same in every run.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut h = foldhash::quality::FixedState::with_seed(0x0415).build_hasher();
    h.write(bytes);
    h.finish()
}
