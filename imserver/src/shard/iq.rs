//! IQs that the server answers, for itself or for an account: reads and writes for them. What is answered, `iq` decides.

use super::{After, Shard, WaitingIq};
use crate::event::*;
use crate::iq::{self, Context, Found, IqOutcome, Request, Target, Wait};
use crate::policy::Right;
use crate::routing::{IqType, Retention, StanzaKind};
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;

impl Shard {
    /// An IQ of a session to its own account (no `to`, or its bare JID).
    pub(super) fn own_iq(&mut self, slot: u32, number: u64, element: Element) {
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let from = Jid::Full(bound.jid.clone());
        let account = bound.account.clone();
        let to = element
            .attr("to")
            .is_some()
            .then(|| Jid::Bare(account.clone()));
        let target = Target::Account {
            own: true,
            may_see: true,
        };
        let request = Request {
            element: &element,
            from: &from,
            to: to.as_ref(),
            target,
            context: self.iq_context(),
        };
        let mut outcome = iq::dispatch(&request);
        if outcome.saves() && !self.may(&account, Right::SaveSettings) {
            outcome = IqOutcome::Error(StanzaError::NotAllowed, None);
        }
        match outcome {
            IqOutcome::Reply(bytes) => {
                self.send_stanza(slot, bytes);
                self.session(slot).done(number);
            }
            IqOutcome::Error(condition, text) => {
                if let Some(bytes) = request.error(condition, text) {
                    self.send_stanza(slot, bytes);
                }
                self.session(slot).done(number);
            }
            IqOutcome::Ignore => self.session(slot).done(number),
            IqOutcome::RosterGet { ver } if self.has_roster(&account) => {
                self.roster_get(slot, number, &element, ver.as_deref())
            }
            IqOutcome::RosterSet(set) if self.has_roster(&account) => {
                let reply = request.result(None);
                self.roster_set(slot, number, &element, set, reply);
            }
            IqOutcome::RosterGet { .. } | IqOutcome::RosterSet(_) => {
                self.pause_for_roster(slot, number, element)
            }
            IqOutcome::WriteVCard { xml, reply } => {
                let failure = request
                    .error(StanzaError::ResourceConstraint, None)
                    .unwrap_or_default();
                let write = self.write(Write::Store(store::Write::VCard {
                    owner: account,
                    xml,
                }));
                let generation = self.generation(slot);
                self.after(
                    write,
                    After::Reply {
                        slot,
                        generation,
                        number,
                        first: write,
                        reply,
                        failure,
                        stanza: true,
                    },
                );
            }
            IqOutcome::Read(wait) => {
                let stanza = Routed {
                    kind: StanzaKind::Iq(IqType::Get),
                    from: from.clone(),
                    to: to.unwrap_or(Jid::Bare(account)),
                    bytes: element.raw().clone(),
                    retention: Retention::Drop,
                    origin: None,
                    token: Some(self.token(slot, number)),
                };
                self.iq_waits(Box::new(stanza), element, wait, target);
            }
        }
    }

    /// An IQ to an account of ours, from anybody else.
    pub(super) fn account_iq(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        let own = stanza.from.bare_str() == account.as_str();
        let may_see = own
            || self
                .users
                .get(&account)
                .and_then(|u| u.audience.as_ref())
                .is_some_and(|a| a.binary_search(&stanza.from.bare()).is_ok());
        self.answer_iq(stanza, Target::Account { own, may_see });
    }

    /// An IQ to the server.
    pub(super) fn server_iq(&mut self, stanza: Box<Routed>) {
        self.answer_iq(stanza, Target::Server);
    }

    fn answer_iq(&mut self, stanza: Box<Routed>, target: Target) {
        let Ok(element) = Element::parse(stanza.bytes.clone()) else {
            return self.done(stanza.token);
        };
        let request = Request {
            element: &element,
            from: &stanza.from,
            to: Some(&stanza.to),
            target,
            context: self.iq_context(),
        };
        match iq::dispatch(&request) {
            IqOutcome::Reply(bytes) => self.reply(stanza, bytes),
            IqOutcome::Error(condition, text) => self.bounce(stanza, condition, text),
            IqOutcome::Read(wait) => self.iq_waits(stanza, element, wait, target),
            // Only one's own account is changed, and that goes by `own_iq`.
            IqOutcome::WriteVCard { .. }
            | IqOutcome::RosterGet { .. }
            | IqOutcome::RosterSet(_) => {
                self.bounce(stanza, StanzaError::Forbidden, None);
            }
            IqOutcome::Ignore => self.done(stanza.token),
        }
    }

    fn iq_context(&self) -> Context<'static> {
        Context {
            services: &[],
            vcard_bytes_max: self.settings.vcard_bytes_max,
            now_unix_ms: self.now.unix_ms,
        }
    }

    /// The answer goes to the sender, and with it the settling.
    #[expect(clippy::boxed_local, reason = "stanzas travel boxed")]
    fn reply(&mut self, stanza: Box<Routed>, bytes: Bytes) {
        let reply = Routed {
            kind: StanzaKind::Iq(IqType::Result),
            from: stanza.to,
            to: stanza.from,
            bytes,
            retention: Retention::Drop,
            origin: None,
            token: stanza.token,
        };
        self.tell(
            self.home(&reply.to.bare()),
            ShardMsg::Stanza(Box::new(reply)),
        );
    }

    fn iq_waits(&mut self, stanza: Box<Routed>, element: Element, wait: Wait, target: Target) {
        self.next_iq += 1;
        let n = self.next_iq;
        let read = match &wait {
            Wait::VCard(owner) => Read::VCard(owner.clone()),
        };
        self.fx.reads.push((ReadTag::Iq(n), read));
        let waiting = WaitingIq {
            stanza,
            element: Box::new(element),
            since_ms: self.now.mono_ms,
            wait,
            target,
        };
        self.waiting_iqs.insert(n, waiting);
    }

    /// What an IQ waited for has been read.
    pub(super) fn iq_read(&mut self, n: u64, result: ReadResult) {
        let Some(waiting) = self.waiting_iqs.remove(&n) else {
            return;
        };
        let found = match result {
            ReadResult::VCard(None) => Found::NoAccount,
            ReadResult::VCard(Some(None)) => Found::Nothing,
            ReadResult::VCard(Some(Some(xml))) => Found::Xml(xml),
            _ => {
                self.bounce(
                    waiting.stanza,
                    StanzaError::ResourceConstraint,
                    Some("The store did not answer; try again"),
                );
                return;
            }
        };
        let to = waiting
            .element
            .attr("to")
            .is_some()
            .then_some(&waiting.stanza.to);
        let request = Request {
            element: &waiting.element,
            from: &waiting.stanza.from,
            to,
            target: waiting.target,
            context: self.iq_context(),
        };
        match iq::resume(&request, &waiting.wait, found) {
            IqOutcome::Reply(bytes) => self.reply(waiting.stanza, bytes),
            IqOutcome::Error(condition, text) => match request.error(condition, text) {
                Some(bytes) => self.reply(waiting.stanza, bytes),
                None => self.done(waiting.stanza.token),
            },
            _ => self.done(waiting.stanza.token),
        }
    }
}
