//! What comes with a log-in of SASL 2 (XEP-0388): a token, resumption, a resource with all that is to be switched on for it.
//!
//! ```text
//!   authenticated ──(home shard)──> tasks (`upgrade`) ──> token ──on disk──> resumed? ──(no)──> ends of the archive ──> bound ──on disk──> Note, <success/>
//! ```
//! In: a negotiation that has authenticated its client. Out: `<success/>` with everything that came of it.
//! Never: says success before the store and the session store have what it tells, nor if they have refused it. The session's Note
//! counts for its mux from success on, so that a connection that outlives the server knows both or neither.

use super::{After, Shard};
use crate::archive::{self, Answer};
use crate::event::*;
use crate::routing;
use crate::session::{OutKind, Stage};
use bytes::Bytes;
use proto::frame::{CloseReason, Frame};
use store::{LoginToken, TokenChange};
use xmpp::error::StreamError;
use xmpp::jid::{BareJid, FullJid};
use xmpp::negotiation::Bind2;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::sasl::ClientId;

/// Random bytes in a token: as many as in what its proof is made with.
const TOKEN_BYTES: usize = 32;

impl Shard {
    /// The client has logged in, here is the home of its account, and nothing more is read of it until success has been said.
    pub(super) fn go_inline(&mut self, slot: u32) {
        self.session(slot).paused = true;
        if !self.asks_for_upgrade(slot) {
            self.tokens_inline(slot);
        }
    }

    /// The client has no task left to do: what it has asked for begins with tokens.
    pub(super) fn tokens_inline(&mut self, slot: u32) {
        self.session(slot).paused = true;
        if !self.change_tokens(slot) {
            self.go_on_inline(slot);
        }
    }

    /// The next of what was asked for with the log-in.
    pub(super) fn go_on_inline(&mut self, slot: u32) {
        let number = self.session(slot).last_element();
        if let Stage::Negotiating(negotiation) = &mut self.session(slot).stage {
            let actions = negotiation.go_on();
            self.act(slot, number, actions);
        }
    }

    /// A token was used, is to be revoked, or a new one is due (XEP-0484). True: the log-in goes on when the store has answered.
    fn change_tokens(&mut self, slot: u32) -> bool {
        let settings = self.settings.clone();
        let now_ms = self.now.unix_ms;
        let Stage::Negotiating(negotiation) = &mut self.session(slot).stage else {
            return false;
        };
        let Some((owner, turn)) = (negotiation.account().cloned()).zip(negotiation.token_turn())
        else {
            return false;
        };
        let (client, wish, used) = (turn.agent.client, turn.wish, turn.used);
        let mut writes = Vec::new();
        let mut changes = Changes::default();
        if let Some(used) = used.filter(|used| !used.known && !wish.invalidate) {
            writes.push(TokenChange::Used {
                client,
                issued_ms: used.issued_ms,
            });
        }
        let due = used.filter(|used| used.stale && !wish.invalidate);
        let mechanism = wish.request.or(due.map(|used| used.mechanism));
        if let Some(mechanism) = mechanism.filter(|_| settings.offer.tokens) {
            let mut secret = [0; TOKEN_BYTES];
            (self.random)(&mut secret);
            let token = LoginToken {
                client,
                mechanism,
                secret: hex(&secret),
                issued_ms: now_ms,
                expires_ms: now_ms + settings.token.as_millis() as u64,
                used: false,
                software: turn.agent.software,
                device: turn.agent.device,
            };
            changes.given = Some(Given {
                write: writes.len() as u64,
                secret: token.secret.clone(),
                expires_ms: token.expires_ms,
            });
            writes.push(TokenChange::Issue {
                token,
                clients_max: settings.token_clients_max,
                revocations: turn.revocations,
            });
        }
        if wish.invalidate && used.is_some() {
            // Last, because it also ends what is being given out to others at this moment.
            changes.revoked = Some(writes.len() as u64);
            writes.push(TokenChange::Revoke {
                client: Some(client),
                but: changes.given.as_ref().map(|_| now_ms),
            });
        }
        if writes.is_empty() {
            return false;
        }
        if let Stage::Negotiating(negotiation) = &mut self.session(slot).stage {
            negotiation.storing();
        }
        let first = self.write_number + 1;
        for change in writes {
            let owner = owner.clone();
            self.write(Write::Store(store::Write::Tokens { owner, change }));
        }
        let after = After::Tokens {
            slot,
            generation: self.generation(slot),
            first,
            changes: Box::new(changes),
        };
        self.after(self.write_number, after);
        true
    }

    /// The store has answered, and these it has `refused`. A token that could not be revoked is not said to be; one that could not be
    /// given out is wanting, and the client asks for it again.
    pub(super) fn tokens_changed(
        &mut self,
        slot: u32,
        changes: Changes,
        refused: impl Fn(u64) -> bool,
    ) {
        let generation = self.generation(slot);
        let session = self.session(slot);
        let number = session.last_element();
        let Stage::Negotiating(negotiation) = &mut session.stage else {
            return;
        };
        if changes.revoked.is_some_and(&refused) {
            session.paused = false;
            let actions = negotiation.postpone();
            self.act(slot, number, actions);
            if self.live(slot, generation) {
                self.settle(slot);
                self.parse(slot);
            }
            return;
        }
        if let Some(given) = changes.given.filter(|given| !refused(given.write)) {
            negotiation.give_token(given.secret, routing::stamp(given.expires_ms));
        }
        negotiation.stored();
        self.go_on_inline(slot);
    }

    /// Nothing more was asked for: success without a resource.
    pub(super) fn logged_in(&mut self, slot: u32, number: u64) {
        let session = self.session(slot);
        let Stage::Negotiating(negotiation) = &mut session.stage else {
            return;
        };
        let said = negotiation.logged_in();
        session.paused = false;
        session.done(number);
        for bytes in said {
            self.send_nonza(slot, bytes);
        }
        self.settle(slot);
        self.parse(slot);
    }

    // ---- Bind 2 -----------------------------------------------------------------------------------------

    /// A resource is wanted with the log-in. The client is told up to where its archive is, if it has one.
    pub(super) fn bind_inline(&mut self, slot: u32, number: u64, bind: Bind2) {
        let Some(account) = self.negotiated(slot) else {
            return;
        };
        if self.settings.archive(account.domainpart()).is_none() {
            return self.bind_inline_now(slot, number, bind, None);
        }
        let tag = ReadTag::Bind {
            slot,
            generation: self.generation(slot),
            number,
            bind: Box::new(bind),
        };
        self.fx.reads.push((tag, Read::ArchiveEnds(account)));
    }

    /// The ends of its archive have been read. `None`: the store did not answer; the client can ask later.
    pub(super) fn bind_ends(
        &mut self,
        (slot, generation): (u32, u32),
        number: u64,
        bind: Bind2,
        answer: Option<Answer>,
    ) {
        if self.live(slot, generation) {
            self.bind_inline_now(slot, number, bind, answer);
        }
    }

    fn negotiated(&mut self, slot: u32) -> Option<BareJid> {
        match &self.session(slot).stage {
            Stage::Negotiating(negotiation) => negotiation.account().cloned(),
            _ => None,
        }
    }

    fn bind_inline_now(&mut self, slot: u32, number: u64, bind: Bind2, answer: Option<Answer>) {
        let Some(account) = self.negotiated(slot) else {
            return;
        };
        if let Some(client) = bind.client {
            self.end_earlier(&account, client);
        }
        let resource = self.inline_resource(&account, &bind);
        let Ok(jid) = self.choose(&account, Some(resource)) else {
            // The answer to an ordinary request will tell why.
            if let Stage::Negotiating(negotiation) = &mut self.session(slot).stage {
                negotiation.bind_inline_refused();
            }
            return self.go_on_inline(slot);
        };
        let (ends, read_up_to) = match answer {
            Some(Answer::Ends(ends)) => {
                let up_to = ends.as_ref().map(|ends| ends.1.position);
                (Some(archive::metadata(&self.ids, ends.as_deref())), up_to)
            }
            _ => (None, None),
        };
        let Some(key) = self.session(slot).key else {
            return;
        };
        let Some(negotiation) = self.begin_session(slot, key, jid, &account) else {
            return;
        };
        let inline = Inline {
            negotiation,
            ends,
            read_up_to,
        };
        let now = self.now;
        let session = self.session(slot);
        if let Some(bound) = session.bound_mut() {
            bound.client = bind.client;
            bound.carbons_since_unix_ms = if bind.carbons { now.unix_ms } else { 0 };
        }
        self.switch_csi(slot, bind.inactive);
        let session = self.session(slot);
        if let Some(enable) = bind.enable {
            session.enable_sm();
            session.hold_back();
            if enable.resume {
                self.make_resumable(slot, enable.max_s);
            }
        }
        let write = self.write_record(slot);
        let generation = self.generation(slot);
        let after = After::BoundInline {
            slot,
            generation,
            inline: Box::new(inline),
            number,
        };
        self.after(write, after);
    }

    /// XEP-0386 §3.2: what is left of sessions of the same client ends.
    fn end_earlier(&mut self, account: &BareJid, client: ClientId) {
        let slots = self.users.get(account).map(|u| u.sessions.clone());
        for slot in slots.unwrap_or_default() {
            if self
                .session(slot)
                .bound()
                .is_some_and(|b| b.client == Some(client))
            {
                self.end_session(slot, Some(StreamError::Conflict), CloseReason::Replaced);
            }
        }
    }

    /// XEP-0386 §3.2.1: the same for a client every time, and nothing by which it could be known elsewhere.
    fn inline_resource(&mut self, account: &BareJid, bind: &Bind2) -> String {
        let own = match bind.client {
            Some(client) => client.resource(account.as_str(), bind.tag.as_deref()),
            None => {
                let mut bytes = [0; 16];
                (self.random)(&mut bytes);
                hex(&bytes)
            }
        };
        match &bind.tag {
            Some(tag) => {
                let both = format!("{tag}/{own}");
                match account.with_resource(&both) {
                    Ok(_) => both,
                    Err(_) => own,
                }
            }
            None => own,
        }
    }

    /// The session store has the session: success.
    pub(super) fn bound_inline(&mut self, slot: u32, number: u64, inline: Inline, failed: bool) {
        let now = self.now;
        let location = self.settings.resume_location.clone();
        if failed {
            let error = Some(StreamError::ResourceConstraint);
            return self.end_session(slot, error, CloseReason::Limit);
        }
        let session = (self.sessions.get_mut(slot as usize)).expect("checked by the caller");
        let there = session.key.is_some();
        let Some(bound) = session.bound_mut().filter(|_| there) else {
            return;
        };
        bound.ready = true;
        let jid = bound.jid.clone();
        let mut answer = Node::new("bound", ns::BIND2);
        if session.sm.is_some() {
            answer = answer.with_child(super::stream::enabled(
                session.resumption.as_deref(),
                &location,
            ));
        }
        if let Some(ends) = inline.ends {
            answer = answer.with_child(ends);
        }
        self.give_note(slot);
        let session = (self.sessions.get_mut(slot as usize)).expect("checked by the caller");
        let mut negotiation = inline.negotiation;
        let said = negotiation.bound(&jid, &answer.to_bytes(ns::CLIENT), session.sm.is_some());
        for bytes in said.into_iter().flatten() {
            session.send_now(bytes, OutKind::NONZA, now, &mut self.fx.links);
        }
        if let Some(up_to) = inline.read_up_to {
            // XEP-0386 §3.2: it gets those from its archive, not once more.
            session.knows_archive(up_to);
        }
        session.let_go(None, now, &mut self.fx.links);
        session.paused = false;
        session.done(number);
        self.settle(slot);
        self.parse(slot);
    }

    /// The mux is told the key by which the session may be brought back.
    pub(super) fn give_note(&mut self, slot: u32) {
        let session = self.session(slot);
        if let (Some(key), Some(bound)) = (session.key, session.bound()) {
            let frame = Frame::Note(key.conn, bound.note);
            self.fx.links.push(LinkCommand::Frame {
                link: key.link,
                frame,
                track: false,
            });
        }
    }

    /// The log-in was done before the server was restarted, but not settled. Its mux has the session's Note, and so success before it.
    pub(super) fn logged_in_before(&mut self, slot: u32, ns: &str) -> bool {
        let now = self.now;
        let session = self.session(slot);
        let again = session.resumed && session.stanza_number() == 0 && ns == ns::SASL2;
        if again {
            let number = session.begin_element(false, now);
            session.done(number);
        }
        again
    }
}

/// Writes about tokens that a log-in waits for, by their place among them.
#[derive(Debug, Default)]
pub(super) struct Changes {
    revoked: Option<u64>,
    given: Option<Given>,
}

/// A token on its way to the client.
#[derive(Debug)]
struct Given {
    write: u64,
    secret: String,
    expires_ms: u64,
}

/// What is said when a session is on record that was bound with its log-in.
#[derive(Debug)]
pub(super) struct Inline {
    negotiation: Box<xmpp::negotiation::Negotiation>,
    ends: Option<Node>,
    read_up_to: Option<u64>,
}

/// `<success/>` of a log-in that resumes a session, and the features behind it. `None`: it was no log-in of SASL 2.
pub(super) fn resumed(stage: &mut Stage, jid: &FullJid, answer: &[u8]) -> Option<[Bytes; 2]> {
    match stage {
        Stage::Negotiating(negotiation) => negotiation.bound(jid, answer, true),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
