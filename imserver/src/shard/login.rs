//! Log-in: `Negotiation` driven by what the shard gets, and binding, which is the account's matter.
//!
//! Owns: nothing that outlives a log-in. Decides: who may log in (policy), what happens on a resource conflict.
//! Never: lets the client know of a session before the session store has it.

use super::{After, Shard};
use crate::certificate;
use crate::event::*;
use crate::policy::Right;
use crate::presence::Directed;
use crate::session::{Available, Bound, Flood, OutKind, Session, Stage};
use crate::settings::{Conflict, Settings};
use bytes::Bytes;
use proto::frame::{
    CloseReason, Frame, ListenerKind, NoteKey, Open, StartTls, TlsFacts, Transport,
};
use xmpp::error::{StanzaError, StreamError};
use xmpp::jid::{BareJid, FullJid};
use xmpp::negotiation::{self, Action, FailedLogin, LoginFailure, Negotiation};
use xmpp::stream::{StreamEvent, StreamParser};

impl Shard {
    /// A new connection.
    pub(super) fn opened(&mut self, key: ConnKey, open: Box<Open>, mux: std::sync::Arc<MuxPermit>) {
        let negotiating = self.negotiating;
        let tls = open.tls.as_ref().map(facts);
        let mut negotiation = Negotiation::new(self.settings.offer.clone(), tls);
        if let Some(tls) = &open.tls {
            certify(&mut negotiation, tls, &self.settings);
        }
        let framed = matches!(
            open.transport,
            Transport::WebSocket | Transport::WebSocketTls
        );
        let parser = match framed {
            true => StreamParser::new_framed(self.limits(false)),
            false => StreamParser::new(self.limits(false)),
        };
        if framed {
            negotiation = negotiation.framed();
        }
        if open.kind == ListenerKind::Component {
            let secrets = self.settings.components.secrets.clone();
            negotiation = negotiation.of_component(secrets);
        }
        let mut session = Session::new(key, open, parser, Box::new(negotiation), self.now);
        session.mux = mux;
        let slot = self.insert_session(session);
        self.negotiating += 1;
        // Each shard has its part of what all may have together.
        if negotiating >= self.settings.conns_before_login_max / usize::from(self.shards) {
            self.end_session(
                slot,
                Some(StreamError::ResourceConstraint),
                CloseReason::Limit,
            );
            return;
        }
        self.touch(slot);
    }

    /// TLS is up.
    pub(super) fn secured(&mut self, key: ConnKey, tls: TlsFacts) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        let settings = self.settings.clone();
        let session = self.session(slot);
        session.switching_tls = false;
        session.parser.reset();
        if let Stage::Negotiating(negotiation) = &mut session.stage {
            negotiation.secured(facts(&tls));
            certify(negotiation, &tls, &settings);
        }
        session.open.tls = Some(tls);
    }

    /// Plaintext after StartTls: somebody speaks into the stream before it is secured.
    pub(super) fn injected(&mut self, key: ConnKey) {
        let Some(slot) = self.slot_of(key) else {
            return;
        };
        tracing::debug!("plaintext after STARTTLS: connection closed");
        self.end_session(slot, None, CloseReason::PolicyViolation);
    }

    /// Counts what a stranger has sent: no length of a single element bounds white space, or log-ins begun again and again. True:
    /// it was too much, and the connection is closed.
    pub(super) fn strange_bytes(&mut self, slot: u32, len: usize) -> bool {
        let max = self.settings.bytes_before_login_max;
        let session = self.session(slot);
        if !matches!(session.stage, Stage::Negotiating(_)) {
            return false;
        }
        session.bytes_before_login += len as u64;
        let too_many = session.bytes_before_login > max;
        if too_many {
            self.stream_error(slot, StreamError::PolicyViolation);
        }
        too_many
    }

    /// An event of a stream that is not logged in yet.
    pub(super) fn negotiate_event(&mut self, slot: u32, event: StreamEvent) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("the caller has it");
        let number = session.begin_element(false, now);
        let Stage::Negotiating(negotiation) = &mut session.stage else {
            return;
        };
        let actions = negotiation.handle(event, &mut *self.random);
        self.act(slot, number, actions);
    }

    /// The directory has answered.
    pub(super) fn looked(&mut self, tag: LookTag, result: LookResult, revocations: u64) {
        let (slot, generation) = match tag {
            LookTag::Stranger { slot, generation } => (slot, generation),
            LookTag::Iq(n) => return self.iq_looked(n, result),
        };
        if !self.live(slot, generation) {
            return;
        }
        let session = self.sessions.get_mut(slot as usize).expect("just checked");
        let number = session.last_element();
        session.paused = false;
        let Stage::Negotiating(negotiation) = &mut session.stage else {
            return;
        };
        negotiation.asked_after(revocations);
        let actions = match result {
            LookResult::Scram(keys) => negotiation.keys(keys, &mut *self.random),
            LookResult::Password(check) => negotiation.password(check),
            LookResult::Accounts(accounts) => negotiation.accounts(accounts),
            LookResult::Gssapi(answer) => negotiation.gssapi(answer),
            LookResult::Token(check) => negotiation.token(check),
            LookResult::Registered(id, answer) => {
                let domain = negotiation.domain().unwrap_or_default();
                let reply = crate::iq::register::registered(&id, domain, &answer);
                vec![Action::Send(reply)]
            }
            LookResult::People(_) | LookResult::Account(_) | LookResult::Unavailable => {
                unreachable!("nobody asks that before log-in")
            }
        };
        self.act(slot, number, actions);
        if self.live(slot, generation) {
            self.parse(slot);
        }
    }

    pub(super) fn act(&mut self, slot: u32, number: u64, actions: Vec<Action>) {
        let mut home = None;
        for action in actions {
            match action {
                Action::Send(bytes) => self.send_nonza(slot, bytes),
                Action::StartTls {
                    last,
                    want_certificate,
                } => self.start_tls(slot, last, want_certificate),
                Action::Restart => {
                    let session = self.session(slot);
                    session.parser.reset();
                }
                Action::LookScram(login, hash) => {
                    return self.look(slot, Look::Scram(login, hash));
                }
                Action::LookPassword(login, password) => {
                    return self.look(slot, Look::Password(login, Secret(password)));
                }
                Action::LookAccounts(identities) => {
                    return self.look(slot, Look::Accounts(identities));
                }
                Action::LookGssapi(ask) => return self.look(slot, Look::Gssapi(ask)),
                Action::LookToken(ask) => {
                    let rules = TokenRules {
                        now_ms: self.now.unix_ms,
                        stale_ms: self.settings.token_stale_ms(),
                    };
                    return self.look(slot, Look::Token(ask, rules));
                }
                Action::Register { element, domain } => {
                    return self.stranger_registers(slot, number, &element, &domain);
                }
                Action::Authenticated(account) => {
                    let allowed = self.session(slot).mux.allows(account.domainpart());
                    let verdict = self.verdict(&account, Right::Login);
                    if !allowed || !verdict.allowed {
                        let Stage::Negotiating(negotiation) = &mut self.session(slot).stage else {
                            return;
                        };
                        let refused = match allowed && verdict.unknown {
                            true => negotiation.postpone(),
                            false => negotiation.refuse(),
                        };
                        return self.act(slot, number, refused);
                    }
                    self.status.logins += 1;
                    home = Some(self.home(&account));
                }
                Action::Component(domain) => {
                    return self.component_logs_in(slot, number, &domain);
                }
                Action::Failed(failed) => self.login_failed(slot, &failed),
                Action::Bind { resource, id } => return self.bind(slot, number, resource, &id),
                Action::BindInline(bind) => return self.bind_inline(slot, number, *bind),
                Action::AddKeys { beside, keys } => {
                    return self.add_keys(slot, &beside, *keys);
                }
                Action::LoggedIn => return self.logged_in(slot, number),
                Action::Resume { previd, h } => {
                    return self.resume_stream(slot, number, &previd, h);
                }
                Action::Close(error) => return self.stream_error(slot, error),
                Action::End => return self.end_session(slot, None, CloseReason::Normal),
            }
        }
        // SASL 2: the element is answered when all that was asked for with it is done.
        let inline = self.session(slot).is_inline();
        if !inline {
            self.session(slot).done(number);
        }
        if let Some(home) = home {
            self.settle(slot);
            if home != self.id {
                self.negotiating = self.negotiating.saturating_sub(1);
                self.rehome(slot, home);
            } else if inline {
                self.go_inline(slot);
            }
        }
    }

    fn login_failed(&mut self, slot: u32, failed: &FailedLogin) {
        // Who asks for a domain that is not here has tried no account.
        self.status.login_failures += u64::from(failed.why != LoginFailure::NotServed);
        let shards = usize::from(self.shards);
        let lines_max = self.settings.login_failures_logged_max.div_ceil(shards);
        let peer = self.session(slot).open.peer.ip();
        self.failures.log(self.now.mono_ms, lines_max, peer, failed);
    }

    pub(super) fn look(&mut self, slot: u32, look: Look) {
        self.session(slot).paused = true;
        self.fx.looks.push((
            LookTag::Stranger {
                slot,
                generation: self.generation(slot),
            },
            look,
        ));
    }

    fn start_tls(&mut self, slot: u32, last: Bytes, want_certificate: bool) {
        let now = self.now;
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("the caller has it");
        let Some(key) = session.key else { return };
        // Anything that came with <starttls/> in the same breath was not secured (RFC 6120 §5.4.3.3, DESIGN §3).
        if session.parser.buffered() > 0 {
            self.end_session(slot, None, CloseReason::PolicyViolation);
            return;
        }
        session.count_out(last.len(), OutKind::NONZA, now);
        session.switching_tls = true;
        let frame = Frame::StartTls(
            key.conn,
            StartTls {
                last,
                // No use to ask where the answer would not be believed.
                request_client_certificate: want_certificate
                    && session.mux.trust_client_certificates,
            },
        );
        self.fx.links.push(LinkCommand::Frame {
            link: key.link,
            frame,
            track: false,
        });
    }

    // ---- binding (RFC 6120 §7) --------------------------------------------------------------------------

    fn bind(&mut self, slot: u32, number: u64, resource: Option<String>, id: &str) {
        let session = self.session(slot);
        let Stage::Negotiating(negotiation) = &session.stage else {
            return;
        };
        let account = negotiation
            .account()
            .expect("binding comes after log-in")
            .clone();
        let key = session.key.expect("a connection is negotiating");
        match self.choose(&account, resource) {
            Ok(jid) => {
                let result = negotiation::bind_result(id, &jid);
                self.bind_as(slot, key, number, jid, None, result);
            }
            Err((condition, text)) => {
                self.send_stanza(slot, negotiation::bind_error(id, condition, text));
                let session = self.session(slot);
                if let Stage::Negotiating(negotiation) = &mut session.stage {
                    negotiation.bind_refused();
                }
                session.done(number);
            }
        }
    }

    /// The address the session gets, or why it gets none.
    pub(super) fn choose(
        &mut self,
        account: &BareJid,
        resource: Option<String>,
    ) -> Result<FullJid, (StanzaError, Option<&'static str>)> {
        let count = self.users.get(account).map_or(0, |u| u.sessions.len());
        let wanted = match &resource {
            Some(resource) => Some(
                account
                    .with_resource(resource)
                    .map_err(|_| (StanzaError::BadRequest, None))?,
            ),
            None => None,
        };
        let taken = wanted.as_ref().and_then(|jid| self.session_with(jid));
        if let Some(other) = taken {
            let away = self.session(other).is_away();
            match self.settings.conflict {
                // A client that comes back without having resumed its session does not want it any more.
                Conflict::Refuse | Conflict::Rename if away => {
                    self.end_session(other, None, CloseReason::Replaced)
                }
                Conflict::Replace => {
                    self.end_session(other, Some(StreamError::Conflict), CloseReason::Replaced)
                }
                Conflict::Refuse => return Err((StanzaError::Conflict, None)),
                Conflict::Rename => return Ok(self.made_up(account)),
            }
        } else if count >= self.settings.sessions_per_account_max {
            // Who waits for its client makes room for one that is there.
            let Some(oldest) = self.longest_detached(account) else {
                return Err((
                    StanzaError::ResourceConstraint,
                    Some("This account has too many sessions"),
                ));
            };
            self.end_session(oldest, None, CloseReason::Replaced);
        }
        Ok(wanted.unwrap_or_else(|| self.made_up(account)))
    }

    fn session_with(&self, jid: &FullJid) -> Option<u32> {
        let user = self.users.get(&jid.bare())?;
        user.sessions.iter().copied().find(|&s| {
            self.sessions
                .get(s as usize)
                .and_then(|s| s.bound())
                .is_some_and(|b| b.jid == *jid)
        })
    }

    /// A resource nobody can guess (RFC 6120 §7.6: 128 bits).
    fn made_up(&mut self, account: &BareJid) -> FullJid {
        let mut bytes = [0; 16];
        (self.random)(&mut bytes);
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        account
            .with_resource(&hex)
            .expect("hexadecimal digits are a resourcepart")
    }

    /// The session has this address from now on, and this presence, if it is none that is asked for it.
    pub(super) fn bind_as(
        &mut self,
        slot: u32,
        key: ConnKey,
        number: u64,
        jid: FullJid,
        presence: Option<Available>,
        result: Bytes,
    ) {
        let account = &jid.bare();
        self.begin_session(slot, key, jid, account);
        let now = self.now.unix_ms;
        if let (Some(presence), Some(bound)) = (presence, self.session(slot).bound_mut()) {
            bound.presence = Some(presence);
            bound.taking_since_unix_ms = now;
        }
        let write = self.write_record(slot);
        let generation = self.generation(slot);
        self.after(
            write,
            After::Bound {
                slot,
                generation,
                result,
                number,
            },
        );
    }

    /// From here on there is a session, of which nobody knows yet: it is still to be put on record. Returns the negotiation, which is
    /// over.
    pub(super) fn begin_session(
        &mut self,
        slot: u32,
        key: ConnKey,
        jid: FullJid,
        account: &BareJid,
    ) -> Option<Box<Negotiation>> {
        let mut note = [0; 16];
        (self.random)(&mut note);
        self.next_session += 1;
        // Shards take turns, so that no two make the same name.
        let n = self.next_session * u64::from(self.shards) + u64::from(self.id.0);
        let name = SessionId::new(self.epoch, n);
        let bound = Bound {
            id: name,
            jid,
            account: account.clone(),
            note: NoteKey(note),
            mux: self.session(slot).mux.name.clone(),
            conn: key.conn.0,
            since_unix_ms: self.now.unix_ms,
            presence: None,
            presence_changed_unix_ms: 0,
            claim: 0,
            caps: Default::default(),
            interested: None,
            blocklist_asked: false,
            directed: Directed::default(),
            flood: Flood::Off,
            cursor: 0,
            taking_since_unix_ms: 0,
            carbons_since_unix_ms: 0,
            client: None,
            catching_up: false,
            reread: None,
            ready: false,
            pings: 0,
            held_presence: Vec::new(),
            asked: Default::default(),
            archive_asks: Vec::new(),
            behind_flood: Vec::new(),
        };
        let limits = self.limits(true);
        let session = self.session(slot);
        let before = std::mem::replace(&mut session.stage, Stage::Bound(Box::new(bound)));
        session.name = Some(name);
        session.parser.set_limits(limits);
        session.paused = true;
        self.negotiating = self.negotiating.saturating_sub(1);
        let user = self.user(account);
        user.exists = true;
        user.sessions.push(slot);
        self.has_come(account);
        match before {
            Stage::Negotiating(negotiation) => Some(negotiation),
            _ => None,
        }
    }

    /// The header a stream error needs before it if the client has got none (RFC 6120 §4.9.1.2).
    pub(super) fn missing_header(&mut self, slot: u32, error: bool) -> Bytes {
        let session = self
            .sessions
            .get_mut(slot as usize)
            .expect("the caller has it");
        match &session.stage {
            Stage::Negotiating(negotiation) if error && !negotiation.header_sent() => {
                negotiation.error_header(&mut *self.random)
            }
            _ => Bytes::new(),
        }
    }
}

/// Tells the negotiation whom the client's certificate names. What a mux says of it counts only if the configuration says so;
/// `linkset` has seen to that.
fn certify(negotiation: &mut Negotiation, tls: &TlsFacts, settings: &Settings) {
    let names = match &tls.client_certificate {
        Some((certificate, true)) if negotiation.wants_certificate() => {
            certificate::names(certificate, settings.certificate_mapping)
        }
        _ => Vec::new(),
    };
    negotiation.certified(names);
}

/// What of the facts matters to authentication.
fn facts(tls: &TlsFacts) -> xmpp::scram::TlsFacts {
    xmpp::scram::TlsFacts {
        version: tls.version,
        exporter: tls.exporter,
        server_end_point: tls.server_end_point.clone(),
    }
}
