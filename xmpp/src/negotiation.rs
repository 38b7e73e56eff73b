//! From the first byte to a bound resource: the receiving entity's side of RFC 6120 §4 to §7, for clients.
//!
//! ```text
//!   Header ──> Features(plain) ──starttls──> Tls ──secured──> Header
//!                 │ auth                                        │
//!                 ▼                                             ▼
//!              Sasl ──success──> Header ──> Features(bind) ──bind──> Binding ──> done
//!                 └──(SASL 2)──> Task... ──> Inline ──> Features(bind), or done
//! ```
//! In: events of the stream parser, facts of TLS, answers about credentials. Out: [`Action`]s, in order.
//! Owns: the state of one log-in, dropped once a resource is bound.
//! Never: looks anything up itself; tells an unknown user from a wrong password; lets a stanza through before log-in (but those of
//! XEP-0077, where that is on).

mod action;
mod features;
mod offer;
mod sasl2;
mod upgrade;

pub use action::{Accounts, Action, FailedLogin, Keys, LoginFailure, PasswordCheck, TokenCheck};
pub use offer::{DomainOffer, Mechanisms, Offer};
pub use sasl2::{Bind2, EnableSm, TokenTurn, TokenWish, UsedToken, UserAgent};

use crate::component::{ComponentSecret, Handshake};
use crate::element::Element;
use crate::error::{StanzaError, StreamError};
use crate::jid::{BareJid, FullJid, Jid};
use crate::ns;
use crate::sasl::{
    self, CertificateName, ClientId, Exchange, Failure, GssapiAnswer, GssapiNext, Named, Step,
    TokenMechanism,
};
use crate::scram::TlsFacts;
use crate::stream::{Limits, StreamEvent, StreamHeader};
use action::MECHANISM_CHARS_MAX;
use bytes::Bytes;
use features::{bind_features, bound_features, header_bytes};
use sasl2::Inline;
use std::sync::Arc;
use upgrade::Task;

/// Bytes of one element before log-in, unless configured otherwise: the longest SASL message has a few hundred. The parser keeps to it.
pub const ELEMENT_BYTES_MAX: usize = Limits::BEFORE_LOGIN.element_bytes_max as usize;

/// Time to log in, unless configured otherwise: a client on a bad line needs about ten round trips. The caller keeps to it.
pub const LOGIN_SECONDS: u64 = 30;

#[derive(Debug)]
enum State {
    Header,
    Features,
    Tls,
    Keys(Box<Exchange>),
    Challenge(Box<Exchange>),
    Password(Box<Exchange>),
    Accounts(Box<Exchange>),
    Gssapi(Box<Exchange>),
    Token(Box<Exchange>),
    /// Logged in by SASL 2: what was asked for with it is being done, and then success is said.
    Inline,
    /// The same, and what was done so far is on its way to disk, or what is to be done next is asked for.
    Storing,
    /// The same, and the client has a task to do first (XEP-0480).
    Task(Box<Task>),
    /// Success has been sent; the client restarts the stream.
    Restart,
    Bind,
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Negotiation {
    offer: Arc<Offer>,
    /// It is none of a client but this.
    component: Option<Box<Handshake>>,
    state: State,
    tls: Option<TlsFacts>,
    /// The stream is one of WebSocket messages.
    framed: bool,
    /// Names of the client's certificate, if it has shown one that was verified.
    certificate: Vec<CertificateName>,
    domain: Option<String>,
    /// Who the client says it is in the header of its stream.
    from: Option<BareJid>,
    account: Option<BareJid>,
    /// The log-in is one of SASL 2.
    inline: Option<Box<Inline>>,
    /// What is known of the attempt under way.
    attempt: FailedLogin,
    attempts: usize,
    registrations: usize,
    header_sent: bool,
}

impl Negotiation {
    /// A new connection. `tls`: TLS came before the first byte.
    pub fn new(offer: Arc<Offer>, tls: Option<TlsFacts>) -> Self {
        Self {
            offer,
            component: None,
            state: State::Header,
            tls,
            framed: false,
            certificate: Vec::new(),
            domain: None,
            from: None,
            account: None,
            inline: None,
            attempt: FailedLogin::default(),
            attempts: 0,
            registrations: 0,
            header_sent: false,
        }
    }

    /// It is a component that connects, one of these.
    pub fn of_component(mut self, secrets: Arc<[ComponentSecret]>) -> Self {
        self.component = Some(Box::new(Handshake::new(secrets)));
        self
    }

    /// The domain of a component that has proved who it is.
    pub fn component(&self) -> Option<&str> {
        let handshake = self.component.as_ref().filter(|c| c.is_done())?;
        handshake.domain()
    }

    /// The stream is one of WebSocket messages (RFC 7395). There is no STARTTLS: TLS is there, or it is the matter of whoever
    /// stands in front of the mux, which takes such connections from there only.
    pub fn framed(mut self) -> Self {
        self.framed = true;
        self
    }

    /// The client has shown a certificate, and somebody who may say so has verified it: it gives these names. Before the
    /// header of the stream it counts for.
    pub fn certified(&mut self, names: Vec<CertificateName>) {
        self.certificate = names;
    }

    /// Some domain offers EXTERNAL: names of a certificate are of use.
    pub fn wants_certificate(&self) -> bool {
        self.offer.domains.iter().any(|d| d.mechanisms.external)
    }

    /// The account that has logged in.
    pub fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// The domain of the stream.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// A stream header has been sent for the stream the client has opened (an error needs one before it, RFC 6120 §4.9.1.2).
    pub fn header_sent(&self) -> bool {
        if let Some(component) = &self.component {
            return component.header_sent();
        }
        self.header_sent
    }

    /// The header that must come before a stream error when none has been sent.
    pub fn error_header(&self, random: &mut dyn FnMut(&mut [u8])) -> Bytes {
        if let Some(component) = &self.component {
            return component.error_header(random);
        }
        header_bytes(
            self.framed,
            self.domain.as_deref().or(self.offer.first_domain()),
            None,
            random,
        )
    }

    /// Handles one event of the parser.
    pub fn handle(&mut self, event: StreamEvent, random: &mut dyn FnMut(&mut [u8])) -> Vec<Action> {
        if let Some(component) = &mut self.component {
            return component.handle(event, random);
        }
        match event {
            StreamEvent::Header(header) => self.header(&header, random),
            StreamEvent::Element(element) => self.element(&element),
            StreamEvent::End => vec![Action::End],
        }
    }

    /// TLS is up: the stream begins anew (RFC 6120 §5.4.3.3).
    pub fn secured(&mut self, facts: TlsFacts) {
        self.tls = Some(facts);
        self.state = State::Header;
        self.header_sent = false;
    }

    // ---- header -----------------------------------------------------------------------------------------

    fn header(&mut self, header: &StreamHeader, random: &mut dyn FnMut(&mut [u8])) -> Vec<Action> {
        if !matches!(self.state, State::Header | State::Restart) {
            return vec![Action::Close(StreamError::NotWellFormed)];
        }
        self.header_sent = true;
        let to = header
            .to
            .as_deref()
            .and_then(|to| BareJid::parse(to).ok())
            .filter(|j| j.localpart().is_none());
        let served = to
            .as_ref()
            .filter(|j| self.offer.mechanisms(j.domainpart()).is_some());
        let reply = header_bytes(
            self.framed,
            served
                .map(BareJid::domainpart)
                .or(self.offer.first_domain()),
            header.from.as_deref(),
            random,
        );
        let refuse = |e| vec![Action::Send(reply.clone()), Action::Close(e)];
        if header.content_ns.as_str() != ns::CLIENT {
            return refuse(StreamError::InvalidNamespace);
        }
        if header.version.is_none_or(|v| v.major < 1) {
            return refuse(StreamError::UnsupportedVersion);
        }
        let Some(served) = served else {
            // RFC 6120 §4.7.2: without `to` nobody can say which domain is meant.
            let Some(to) = &to else {
                return refuse(StreamError::ImproperAddressing);
            };
            self.attempt.name = Some(to.domainpart().to_owned());
            let mut actions = refuse(StreamError::HostUnknown);
            actions.insert(0, self.failed(LoginFailure::NotServed));
            return actions;
        };
        match &self.domain {
            Some(domain) if domain != served.domainpart() => {
                return refuse(StreamError::HostUnknown);
            }
            _ => self.domain = Some(served.domainpart().to_owned()),
        }
        // RFC 6120 §4.7.1: once logged in, a client may say who it is, and nothing else.
        if let (Some(from), Some(account)) = (&header.from, &self.account)
            && !Jid::parse(from).is_ok_and(|f| f.bare() == *account)
        {
            return refuse(StreamError::InvalidFrom);
        }
        let from = header
            .from
            .as_deref()
            .and_then(|from| Jid::parse(from).ok());
        self.from = from.map(|from| from.bare());
        let features = if self.account.is_some() {
            self.state = State::Bind;
            bind_features()
        } else {
            self.state = State::Features;
            self.login_features()
        };
        vec![Action::Send(reply), Action::Send(features)]
    }

    // ---- elements ---------------------------------------------------------------------------------------

    fn element(&mut self, element: &Element) -> Vec<Action> {
        match (element.ns(), element.name()) {
            (ns::TLS, "starttls") => self.starttls(),
            (ns::SASL, name) if self.inline.is_none() => self.sasl(name, element),
            (ns::SASL2, name) => self.sasl2(name, element),
            (ns::SM, "resume") if matches!(self.state, State::Bind) => self.resume(element),
            // XEP-0198 §3: only after binding.
            (ns::SM, "enable") if matches!(self.state, State::Bind) => {
                vec![sm_failed("unexpected-request")]
            }
            (ns::CLIENT, "iq") if matches!(self.state, State::Bind) => self.bind(element),
            (ns::CLIENT, "iq")
                if matches!(self.state, State::Features)
                    && self.may_register()
                    && element.child("query", ns::REGISTER).is_some() =>
            {
                self.register(element)
            }
            // RFC 6120 §4.9.3.12 and §7.1: no stanza before log-in, and none but binding before it.
            (ns::CLIENT, "iq" | "message" | "presence") => {
                vec![Action::Close(StreamError::NotAuthorized)]
            }
            _ => vec![Action::Close(StreamError::UnsupportedStanzaType)],
        }
    }

    fn resume(&mut self, element: &Element) -> Vec<Action> {
        let previd = element.attr("previd").map(|id| id.into_owned());
        let h = element.attr("h").and_then(|h| h.parse().ok());
        let (Some(previd), Some(h)) = (previd, h) else {
            return vec![sm_failed("bad-request")];
        };
        self.state = State::Done;
        vec![Action::Resume { previd, h }]
    }

    /// The session cannot be resumed: the client may bind a resource. Of a log-in of SASL 2: call [`Negotiation::go_on`], success
    /// will tell; of another: what to send.
    pub fn resume_refused(&mut self) -> Vec<Action> {
        match &mut self.inline {
            Some(inline) => {
                inline.resume_refused("item-not-found");
                self.state = State::Inline;
                Vec::new()
            }
            None => {
                self.state = State::Bind;
                vec![sm_failed("item-not-found")]
            }
        }
    }

    fn register(&mut self, element: &Element) -> Vec<Action> {
        self.registrations += 1;
        if self.registrations > self.offer.register_requests_max {
            return vec![Action::Close(StreamError::PolicyViolation)];
        }
        vec![Action::Register {
            element: Box::new(element.clone()),
            domain: self.domain.clone().unwrap_or_default(),
        }]
    }

    fn starttls(&mut self) -> Vec<Action> {
        // RFC 6120 §5.4.2.2: failure ends the stream.
        if self.tls.is_some() || self.framed || !matches!(self.state, State::Features) {
            return vec![
                Action::Send(Bytes::from_static(
                    b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                )),
                Action::End,
            ];
        }
        self.state = State::Tls;
        vec![Action::StartTls {
            last: Bytes::from_static(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
            want_certificate: self.offered().is_some_and(|o| o.external),
        }]
    }

    fn sasl(&mut self, name: &str, element: &Element) -> Vec<Action> {
        match (name, std::mem::replace(&mut self.state, State::Features)) {
            ("auth", State::Features) if self.may_authenticate() => self.auth(element),
            // RFC 6120 §6.4.1: not offered is not there.
            ("auth", State::Features) => self.fail(Failure::EncryptionRequired),
            ("response", State::Challenge(exchange)) => self.response(*exchange, element),
            ("abort", State::Challenge(_)) => self.fail(Failure::Aborted),
            ("abort" | "response", State::Features) => self.fail(Failure::MalformedRequest),
            // A second <auth/> within an exchange, or after success (§6.3.4: only one).
            (_, state) => {
                self.state = state;
                vec![Action::Close(StreamError::NotAuthorized)]
            }
        }
    }

    fn auth(&mut self, element: &Element) -> Vec<Action> {
        if element.children().len() > 0 {
            return self.fail(Failure::MalformedRequest);
        }
        let mechanism = element.attr("mechanism").unwrap_or_default().into_owned();
        let text = element.text();
        self.begin(&mechanism, (!text.is_empty()).then_some(&*text))
    }

    /// An exchange begins.
    fn begin(&mut self, mechanism: &str, initial: Option<&str>) -> Vec<Action> {
        self.attempt.mechanism = mechanism.chars().take(MECHANISM_CHARS_MAX).collect();
        let domain = self.domain.clone().expect("a header came before");
        let tls = self.tls.clone();
        let exchange = match (
            self.mechanisms().iter().any(|m| m == mechanism),
            self.client(),
        ) {
            (true, _) => Exchange::new(mechanism, domain, self.plus_offered(), tls)
                .certified(self.identities())
                .advertised(self.advertised()),
            (false, Some(client)) => {
                let token = TokenMechanism::from_name(mechanism);
                match token.filter(|m| self.token_mechanisms().contains(m)) {
                    Some(token) => Exchange::of_token(token, client, domain, tls),
                    None => return self.fail(Failure::InvalidMechanism),
                }
            }
            (false, None) => return self.fail(Failure::InvalidMechanism),
        };
        match initial {
            Some(text) => self.step(exchange, text),
            // No initial response: the server asks for it with an empty challenge (RFC 4422 §5).
            None => self.challenge(Box::new(exchange), ""),
        }
    }

    // ---- SASL 2 -----------------------------------------------------------------------------------------

    fn sasl2(&mut self, name: &str, element: &Element) -> Vec<Action> {
        match (name, std::mem::replace(&mut self.state, State::Features)) {
            ("authenticate", State::Features) => self.authenticate(element),
            ("response", State::Challenge(exchange)) if self.inline.is_some() => {
                self.response(*exchange, element)
            }
            ("abort", State::Challenge(_)) if self.inline.is_some() => self.fail(Failure::Aborted),
            (name @ ("next" | "task-data" | "abort"), State::Task(task)) => {
                self.task(*task, name, element)
            }
            // XEP-0388 §2.4 and §2.11: nothing else while an exchange is under way, and no second one.
            (_, state) => {
                self.state = state;
                vec![Action::Close(StreamError::NotAuthorized)]
            }
        }
    }

    fn authenticate(&mut self, element: &Element) -> Vec<Action> {
        let parsed = sasl2::authenticate(element, &self.token_mechanisms(), &self.upgrades());
        let (mechanism, initial, inline) = match parsed {
            Ok(parsed) => (parsed.mechanism, parsed.initial, Ok(parsed.inline)),
            Err(failure) => (String::new(), None, Err(failure)),
        };
        match inline {
            _ if !self.may_authenticate() => self.fail_in(ns::SASL2, Failure::EncryptionRequired),
            Ok(inline) => {
                self.inline = Some(Box::new(inline));
                self.begin(&mechanism, initial.as_deref())
            }
            Err(failure) => self.fail_in(ns::SASL2, failure),
        }
    }

    /// Which installation of a client it is, as far as it has said so.
    fn client(&self) -> Option<ClientId> {
        Some(self.inline.as_ref()?.agent.as_ref()?.client)
    }

    /// It has logged in by SASL 2, and [`Negotiation::go_on`] is wanted, where the account is at home.
    pub fn is_inline(&self) -> bool {
        matches!(self.state, State::Inline)
    }

    /// Somebody is about to be asked about the log-in, and there have been so many revocations before (as the store counts them).
    pub fn asked_after(&mut self, revocations: u64) {
        if let Some(inline) = &mut self.inline {
            // Of several questions the first: what is granted hangs on all the answers.
            inline.revocations.get_or_insert(revocations);
        }
    }

    /// What is to be done about tokens, once, before [`Negotiation::go_on`].
    pub fn token_turn(&mut self) -> Option<TokenTurn> {
        let inline = self.inline.as_mut()?;
        let agent = inline.agent.clone()?;
        let nothing = TokenWish {
            request: None,
            invalidate: false,
        };
        let wish = std::mem::replace(&mut inline.wish, nothing);
        Some(TokenTurn {
            agent,
            wish,
            used: inline.used.take(),
            revocations: inline.revocations.unwrap_or(0),
        })
    }

    /// What the log-in has changed is on its way to disk: nothing goes on before [`Negotiation::stored`], or [`Negotiation::postpone`].
    pub fn storing(&mut self) {
        self.state = State::Storing;
    }

    /// It is on disk. Then [`Negotiation::go_on`].
    pub fn stored(&mut self) {
        if matches!(self.state, State::Storing) {
            self.state = State::Inline;
        }
    }

    /// A new token goes to the client with success. `expiry`: as XEP-0082 writes it.
    pub fn give_token(&mut self, token: String, expiry: String) {
        if let Some(inline) = &mut self.inline {
            inline.give(token, expiry);
        }
    }

    /// The next of what was asked for with the log-in; when there is nothing more, success.
    pub fn go_on(&mut self) -> Vec<Action> {
        let Some(inline) = self
            .inline
            .as_mut()
            .filter(|_| matches!(self.state, State::Inline))
        else {
            return Vec::new();
        };
        if let Some((previd, h)) = inline.take_resume() {
            self.state = State::Done;
            return vec![Action::Resume { previd, h }];
        }
        if let Some(bind) = inline.bind.take() {
            self.state = State::Done;
            return vec![Action::BindInline(Box::new(bind))];
        }
        self.state = State::Done;
        vec![Action::LoggedIn]
    }

    /// A resource could not be had with the log-in: the client may ask for one in the old way. Call [`Negotiation::go_on`].
    pub fn bind_inline_refused(&mut self) {
        self.state = State::Inline;
    }

    /// Success without a resource, and what may come next; then the client binds one.
    pub fn logged_in(&mut self) -> [Bytes; 2] {
        let account = self.account.clone();
        let address = account.as_ref().map_or("", |a| a.as_str());
        let inline = self.inline.take();
        self.state = State::Bind;
        [
            inline.map_or_else(Bytes::new, |i| i.success(address, None)),
            bind_features(),
        ]
    }

    /// Success with a session, new or resumed: `inside` says which. And the features of a stream that has one; `managed`: by stream
    /// management.
    pub fn bound(&mut self, jid: &FullJid, inside: &[u8], managed: bool) -> Option<[Bytes; 2]> {
        let inline = self.inline.take()?;
        Some([
            inline.success(jid.as_str(), Some(inside)),
            bound_features(managed),
        ])
    }

    fn response(&mut self, exchange: Exchange, element: &Element) -> Vec<Action> {
        if element.children().len() > 0 {
            return self.fail(Failure::MalformedRequest);
        }
        self.step(exchange, &element.text())
    }

    fn step(&mut self, mut exchange: Exchange, base64: &str) -> Vec<Action> {
        let message = sasl::decode(base64, exchange.message_bytes_max());
        let step = message.and_then(|message| exchange.step(&message));
        self.attempt.name = exchange.claimed().map(str::to_owned);
        match step {
            Ok(Step::NeedKeys(login, hash)) => {
                self.state = State::Keys(Box::new(exchange));
                vec![Action::LookScram(login, hash)]
            }
            Ok(Step::NeedPassword(login, password)) => {
                self.state = State::Password(Box::new(exchange));
                vec![Action::LookPassword(login, password)]
            }
            Ok(Step::NeedAccounts(identities)) => {
                self.state = State::Accounts(Box::new(exchange));
                vec![Action::LookAccounts(identities)]
            }
            Ok(Step::NeedGssapi(ask)) => {
                self.state = State::Gssapi(Box::new(exchange));
                vec![Action::LookGssapi(ask)]
            }
            Ok(Step::NeedToken(ask)) => {
                self.state = State::Token(Box::new(exchange));
                vec![Action::LookToken(ask)]
            }
            Ok(Step::Success(account, last)) => {
                self.succeed(&exchange, account, Some(last.into_bytes()))
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// The directory's answer to [`Action::LookScram`].
    pub fn keys(&mut self, keys: Keys, random: &mut dyn FnMut(&mut [u8])) -> Vec<Action> {
        let State::Keys(mut exchange) = std::mem::replace(&mut self.state, State::Features) else {
            return Vec::new();
        };
        // Made in every case, so that the time taken does not tell who exists.
        let fake = exchange.fake_keys(&self.offer.fake);
        let named = |account, disabled| Some(Named { account, disabled });
        if let (Keys::Found(_, keys), Some(inline)) = (&keys, &mut self.inline) {
            inline.keys = Some(keys.clone());
        }
        let challenge = match keys {
            Keys::Found(account, keys) => exchange.challenge(&keys, named(account, false), random),
            Keys::Disabled(account, keys) => {
                exchange.challenge(&keys, named(account, true), random)
            }
            Keys::None => exchange.challenge(&fake, None, random),
            Keys::TemporaryFailure => return self.fail(Failure::TemporaryAuthFailure),
        };
        self.challenge(exchange, challenge)
    }

    fn challenge(&mut self, exchange: Box<Exchange>, message: impl AsRef<[u8]>) -> Vec<Action> {
        self.state = State::Challenge(exchange);
        let (ns, message) = (self.profile(), sasl::encode(message));
        vec![Action::Send(Bytes::from(match message.is_empty() {
            true => format!("<challenge xmlns='{ns}'/>"),
            false => format!("<challenge xmlns='{ns}'>{message}</challenge>"),
        }))]
    }

    /// The directory's answer to [`Action::LookAccounts`].
    pub fn accounts(&mut self, accounts: Accounts) -> Vec<Action> {
        let State::Accounts(exchange) = std::mem::replace(&mut self.state, State::Features) else {
            return Vec::new();
        };
        let outcome = match accounts {
            Accounts::Found(found) => exchange.found(found),
            Accounts::TemporaryFailure => Err(Failure::TemporaryAuthFailure),
        };
        match outcome {
            Ok(account) => self.succeed(&exchange, account, None),
            Err(failure) => self.fail(failure),
        }
    }

    /// The answer to [`Action::LookGssapi`].
    pub fn gssapi(&mut self, answer: GssapiAnswer) -> Vec<Action> {
        let State::Gssapi(mut exchange) = std::mem::replace(&mut self.state, State::Features)
        else {
            return Vec::new();
        };
        let next = exchange.gssapi(answer);
        self.attempt.name = exchange.claimed().map(str::to_owned);
        match next {
            Ok(GssapiNext::Challenge(message)) => self.challenge(exchange, message),
            Ok(GssapiNext::Success(account)) => self.succeed(&exchange, account, None),
            Err(failure) => self.fail(failure),
        }
    }

    /// The directory's answer to [`Action::LookPassword`].
    pub fn password(&mut self, check: PasswordCheck) -> Vec<Action> {
        let State::Password(exchange) = std::mem::replace(&mut self.state, State::Features) else {
            return Vec::new();
        };
        let expired = matches!(check, PasswordCheck::Expired(_));
        let (account, disabled) = match check {
            PasswordCheck::Right(account) | PasswordCheck::Expired(account) => (account, false),
            PasswordCheck::Disabled(account) => (account, true),
            PasswordCheck::Wrong => return self.fail(Failure::NotAuthorized),
            PasswordCheck::TemporaryFailure => return self.fail(Failure::TemporaryAuthFailure),
        };
        match exchange.authenticated(Named { account, disabled }) {
            Ok(_) if expired => self.fail(Failure::CredentialsExpired),
            Ok(account) => self.succeed(&exchange, account, None),
            Err(failure) => self.fail(failure),
        }
    }

    /// The answer to [`Action::LookToken`].
    pub fn token(&mut self, check: TokenCheck) -> Vec<Action> {
        let State::Token(exchange) = std::mem::replace(&mut self.state, State::Features) else {
            return Vec::new();
        };
        let (named, proof, used) = match check {
            TokenCheck::Right { named, proof, used } => (named, proof, used),
            TokenCheck::Wrong => return self.fail(Failure::NotAuthorized),
            TokenCheck::Expired => return self.fail(Failure::CredentialsExpired),
            TokenCheck::TemporaryFailure => return self.fail(Failure::TemporaryAuthFailure),
        };
        match exchange.authenticated(named) {
            Ok(account) => {
                if let Some(inline) = &mut self.inline {
                    inline.used = Some(used);
                }
                self.succeed(&exchange, account, Some(proof))
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// The account may not log in after all (policy).
    pub fn refuse(&mut self) -> Vec<Action> {
        self.attempt.name = self
            .account
            .take()
            .map(|account| account.as_str().to_owned());
        self.fail_for(
            self.profile(),
            Failure::AccountDisabled,
            LoginFailure::Refused,
        )
    }

    /// Whether the account may log in cannot be said now (policy), or not what was asked for with it be done (the store).
    pub fn postpone(&mut self) -> Vec<Action> {
        self.attempt.name = self
            .account
            .take()
            .map(|account| account.as_str().to_owned());
        self.fail(Failure::TemporaryAuthFailure)
    }

    fn succeed(
        &mut self,
        exchange: &Exchange,
        account: BareJid,
        last: Option<Vec<u8>>,
    ) -> Vec<Action> {
        if let Some(inline) = &mut self.inline {
            // XEP-0388 §2.9.
            if exchange.has_authzid() && self.from.as_ref().is_some_and(|from| *from != account) {
                return self.fail(Failure::InvalidAuthzid);
            }
            inline.last = last;
            self.account = Some(account.clone());
            self.state = State::Inline;
            return vec![Action::Authenticated(account)];
        }
        self.account = Some(account.clone());
        self.state = State::Restart;
        let success = match last {
            Some(last) => format!(
                "<success xmlns='{}'>{}</success>",
                ns::SASL,
                sasl::encode(last)
            ),
            None => format!("<success xmlns='{}'/>", ns::SASL),
        };
        vec![
            Action::Authenticated(account),
            Action::Send(Bytes::from(success)),
            Action::Restart,
        ]
    }

    /// Namespace of the exchange under way.
    fn profile(&self) -> &'static str {
        match self.inline {
            Some(_) => ns::SASL2,
            None => ns::SASL,
        }
    }

    fn fail(&mut self, failure: Failure) -> Vec<Action> {
        self.fail_in(self.profile(), failure)
    }

    fn fail_in(&mut self, profile: &str, failure: Failure) -> Vec<Action> {
        self.fail_for(profile, failure, LoginFailure::Sasl(failure))
    }

    fn failed(&mut self, why: LoginFailure) -> Action {
        let attempt = std::mem::take(&mut self.attempt);
        Action::Failed(Box::new(FailedLogin { why, ..attempt }))
    }

    fn fail_for(&mut self, profile: &str, failure: Failure, why: LoginFailure) -> Vec<Action> {
        // XEP-0388 §2.6.2: nothing of what was asked for with it is done.
        self.inline = None;
        self.state = State::Features;
        self.attempts += usize::from(failure.counts());
        let condition = failure.name();
        let own_ns = match profile {
            ns::SASL2 => " xmlns='urn:ietf:params:xml:ns:xmpp-sasl'",
            _ => "",
        };
        let element = format!("<failure xmlns='{profile}'><{condition}{own_ns}/></failure>");
        let mut actions = vec![Action::Send(element.into()), self.failed(why)];
        if self.attempts >= self.offer.attempts_max {
            // RFC 6120 §6.4.5.
            actions.push(Action::Close(StreamError::PolicyViolation));
        }
        actions
    }

    fn bind(&mut self, element: &Element) -> Vec<Action> {
        // RFC 6120 §7.1: nothing goes to anybody else before a resource is bound.
        let elsewhere = element.attr("to").is_some_and(|to| {
            BareJid::parse(&to).ok().is_none_or(|to| {
                Some(&to) != self.account.as_ref()
                    && (to.localpart().is_some() || Some(to.domainpart()) != self.domain.as_deref())
            })
        });
        let id = element
            .attr("id")
            .filter(|id| !id.is_empty())
            .map(|i| i.into_owned());
        let bind = element.child("bind", ns::BIND).filter(|_| !elsewhere);
        match (id, bind, element.attr("type").as_deref()) {
            (Some(id), Some(_), Some("get")) => {
                vec![Action::Send(bind_error(&id, StanzaError::BadRequest, None))]
            }
            (Some(id), Some(bind), Some("set")) => {
                let resource = bind
                    .tree()
                    .child("resource", ns::BIND)
                    .map(|r| r.text().into_owned())
                    .filter(|r| !r.is_empty());
                self.state = State::Done;
                vec![Action::Bind { resource, id }]
            }
            _ => vec![Action::Close(StreamError::NotAuthorized)],
        }
    }

    /// The resource was refused: the client may try another.
    pub fn bind_refused(&mut self) {
        self.state = State::Bind;
    }
}

/// The answer to a bind request.
pub fn bind_result(id: &str, jid: &crate::jid::FullJid) -> Bytes {
    let node = crate::node::Node::new("iq", ns::CLIENT)
        .with_attr("type", "result")
        .with_attr("id", id)
        .with_child(
            crate::node::Node::new("bind", ns::BIND)
                .with_child(crate::node::Node::new("jid", ns::BIND).with_text(jid.as_str())),
        );
    node.to_bytes(ns::CLIENT)
}

/// The refusal of a bind request (RFC 6120 §7.6.2, §7.7.2).
pub fn bind_error(id: &str, condition: StanzaError, text: Option<&str>) -> Bytes {
    let mut out = Vec::new();
    out.extend_from_slice(b"<iq type='error' id='");
    crate::node::escape_into(&mut out, id);
    out.extend_from_slice(b"'>");
    out.extend_from_slice(&condition.child_bytes(condition.error_type(), text));
    out.extend_from_slice(b"</iq>");
    Bytes::from(out)
}

fn sm_failed(condition: &str) -> Action {
    Action::Send(sm_failed_bytes(condition).into())
}

fn sm_failed_bytes(condition: &str) -> String {
    format!(
        "<failed xmlns='urn:xmpp:sm:3'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    )
}
