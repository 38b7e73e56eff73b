//! A server's end of a log-in, with a directory of a few people.
#![allow(dead_code, reason = "each test file uses its part")]

use bytes::Bytes;
use std::sync::Arc;
use xmpp::error::StreamError;
use xmpp::jid::BareJid;
use xmpp::negotiation::{
    Accounts, Action, Bind2, DomainOffer, Keys, LoginFailure, Mechanisms, Negotiation, Offer,
    PasswordCheck, TokenCheck, TokenTurn, UsedToken,
};
use xmpp::sasl::{
    ClientId, Failure, GssapiAnswer, GssapiState, Identity, LoginName, Named, TokenAsk,
};
use xmpp::scram::{FakeKeys, ScramHash, ScramKeys, TlsFacts, derive};
use xmpp::stream::{Limits, StreamParser, framing};

/// The id of romeo's client.
pub const CLIENT: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";

pub const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='verona.lit' version='1.0'>";

pub fn random(out: &mut [u8]) {
    out.fill(0x5a);
}

/// What is said on TCP as a WebSocket message.
pub fn message(said: &Bytes) -> Bytes {
    let text = std::str::from_utf8(said).unwrap();
    match text.strip_prefix(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'",
    ) {
        Some(rest) => format!(
            "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing'{}/>",
            &rest[..rest.len() - 1]
        )
        .into(),
        None => framing::message(said),
    }
}

/// What a directory makes of a login name: romeo has a number too, mercutio an account in another domain.
pub fn account_of(login: &LoginName) -> Option<BareJid> {
    match login.name() {
        "4711" => Some(BareJid::parse("romeo@verona.lit").unwrap()),
        "mercutio" => Some(BareJid::parse("mercutio@mantua.lit").unwrap()),
        _ => login.account(),
    }
}

/// Those of the people who exist.
pub fn accounts_of(all: &[Identity]) -> Accounts {
    let mut found = Vec::new();
    for identity in all {
        let account = match identity {
            Identity::Account(jid) => Some(jid.clone()),
            Identity::Login(login) => account_of(login),
        };
        match account.as_ref().and_then(|a| a.localpart()) {
            Some("nurse") => return Accounts::TemporaryFailure,
            Some(name @ ("romeo" | "roger" | "tybalt" | "mercutio")) => found.push(Named {
                disabled: name == "tybalt",
                account: account.unwrap(),
            }),
            _ => {}
        }
    }
    Accounts::Found(found)
}

/// A server's end with one account, romeo, whose password is `secret`; tybalt may not log in, and the directory does not
/// answer for nurse.
pub struct Server {
    pub parser: StreamParser,
    pub negotiation: Negotiation,
    pub sent: String,
    pub account: Option<BareJid>,
    pub bound: Option<(Option<String>, String)>,
    pub closed: Option<Option<StreamError>>,
    pub starttls: bool,
    pub registrations: usize,
    pub bind2: Option<Bind2>,
    pub token_turn: Option<TokenTurn>,
    /// Hashes that romeo's account has keys of in the store. None: it does not answer.
    pub stored: Option<Vec<ScramHash>>,
    /// Keys made with a log-in.
    pub added: Vec<ScramKeys>,
    /// The store refuses them.
    pub refuses: bool,
    pub failures: Vec<(Option<String>, String, LoginFailure)>,
}

impl Server {
    pub fn new(plaintext: bool, tls: Option<TlsFacts>) -> Self {
        let offer = Offer {
            domains: vec![
                DomainOffer {
                    name: "verona.lit".into(),
                    mechanisms: Mechanisms {
                        external: true,
                        gssapi: true,
                        scram: ScramHash::ALL.to_vec(),
                        plain: true,
                        upgrades: true,
                    },
                },
                // Its passwords are with a directory that only checks them.
                DomainOffer {
                    name: "mantua.lit".into(),
                    mechanisms: Mechanisms {
                        plain: true,
                        ..Mechanisms::default()
                    },
                },
            ],
            plaintext,
            attempts_max: 3,
            fake: FakeKeys::new([7; 32], 4096),
            tokens: true,
            register: vec!["verona.lit".into()],
            register_requests_max: 2,
        };
        Self {
            parser: StreamParser::new(Limits::BEFORE_LOGIN),
            negotiation: Negotiation::new(Arc::new(offer), tls),
            sent: String::new(),
            account: None,
            bound: None,
            closed: None,
            starttls: false,
            registrations: 0,
            bind2: None,
            token_turn: None,
            stored: Some(ScramHash::ALL.to_vec()),
            added: Vec::new(),
            refuses: false,
            failures: Vec::new(),
        }
    }

    /// The same over WebSocket.
    pub fn over_websocket(tls: Option<TlsFacts>) -> Self {
        let mut server = Self::new(false, tls);
        server.parser = StreamParser::new_framed(Limits::BEFORE_LOGIN);
        server.negotiation = server.negotiation.framed();
        server
    }

    /// Gives it bytes; returns what it sends back.
    pub fn feed(&mut self, text: &str) -> String {
        self.sent.clear();
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        if self.parser.namespaces().is_framed() {
            self.parser.push(message(&bytes));
            self.parser.end_message();
        } else {
            self.parser.push(bytes);
        }
        while self.closed.is_none() {
            match self.parser.poll() {
                Ok(Some(event)) => {
                    let actions = self.negotiation.handle(event, &mut random);
                    self.act(actions);
                }
                Ok(None) => break,
                Err(e) => self.closed = Some(Some(e)),
            }
        }
        self.sent.clone()
    }

    fn say(&mut self, all: impl IntoIterator<Item = Bytes>) {
        for bytes in all {
            self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// romeo's client has a token for each mechanism; one that ends in `old` is too old.
    fn check_token(&self, ask: &TokenAsk) -> TokenCheck {
        if ask.login.name() == "nurse" {
            return TokenCheck::TemporaryFailure;
        }
        let Some(account) = account_of(&ask.login).filter(|a| a.localpart() != Some("nobody"))
        else {
            return TokenCheck::Wrong;
        };
        for kind in ["", "-old"] {
            let token = format!("token-{}{kind}", ask.proof.mechanism.name());
            let Some(proof) = ask.proof.verify(&token) else {
                continue;
            };
            if ask.client != ClientId::of(CLIENT) {
                return TokenCheck::Wrong;
            }
            if !kind.is_empty() {
                return TokenCheck::Expired;
            }
            let named = Named {
                disabled: account.localpart() == Some("tybalt"),
                account,
            };
            let used = UsedToken {
                mechanism: ask.proof.mechanism,
                issued_ms: 1,
                known: true,
                stale: false,
            };
            return TokenCheck::Right { named, proof, used };
        }
        TokenCheck::Wrong
    }

    /// The client has tasks to do, or the log-in goes on.
    fn or_tokens(&mut self, tasks: Vec<Action>) -> Vec<Action> {
        if !tasks.is_empty() {
            return tasks;
        }
        self.token_turn = self.negotiation.token_turn();
        let turn = self.token_turn.as_ref();
        if turn.is_some_and(|t| t.wish.request.is_some()) {
            let expiry = "2026-12-24T00:00:00Z";
            self.negotiation
                .give_token("new-token".into(), expiry.into());
        }
        self.negotiation.go_on()
    }

    pub fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            let more = match action {
                Action::Send(bytes) => {
                    self.sent.push_str(std::str::from_utf8(&bytes).unwrap());
                    continue;
                }
                Action::StartTls {
                    last,
                    want_certificate,
                } => {
                    self.sent.push_str(std::str::from_utf8(&last).unwrap());
                    assert!(want_certificate, "EXTERNAL is offered for verona.lit");
                    self.starttls = true;
                    continue;
                }
                Action::Restart => {
                    self.parser.reset();
                    continue;
                }
                Action::LookScram(login, hash) => {
                    let keys = || Arc::new(keys_of(hash));
                    let answer = match account_of(&login) {
                        Some(account) => match account.localpart().unwrap() {
                            "romeo" | "mercutio" => Keys::Found(account, keys()),
                            "tybalt" => Keys::Disabled(account, keys()),
                            "nurse" => Keys::TemporaryFailure,
                            _ => Keys::None,
                        },
                        None => Keys::None,
                    };
                    self.negotiation.keys(answer, &mut random)
                }
                Action::LookPassword(login, password) => {
                    let right = password == "secret";
                    let answer = match account_of(&login) {
                        Some(account) => match account.localpart().unwrap() {
                            "romeo" | "mercutio" if right => PasswordCheck::Right(account),
                            "tybalt" if right => PasswordCheck::Disabled(account),
                            "paris" if right => PasswordCheck::Expired(account),
                            "nurse" => PasswordCheck::TemporaryFailure,
                            _ => PasswordCheck::Wrong,
                        },
                        None => PasswordCheck::Wrong,
                    };
                    self.negotiation.password(answer)
                }
                Action::LookAccounts(all) => {
                    let answer = accounts_of(&all);
                    self.negotiation.accounts(answer)
                }
                Action::LookGssapi(ask) => {
                    // Stands for GSS-API: two challenges, then the message is the verdict.
                    let leg = ask.state.map_or(0, |s| *s.0.downcast::<u32>().unwrap());
                    let state = GssapiState(Box::new(leg + 1));
                    let named = |name: &str| Named {
                        account: BareJid::parse(name).unwrap(),
                        disabled: name.starts_with("tybalt"),
                    };
                    let answer = match std::str::from_utf8(&ask.message) {
                        Ok("wrong") => GssapiAnswer::Failed(Failure::NotAuthorized),
                        Ok("old") => GssapiAnswer::Failed(Failure::CredentialsExpired),
                        Ok("down") => GssapiAnswer::Failed(Failure::TemporaryAuthFailure),
                        _ if leg < 2 => GssapiAnswer::Challenge(vec![0xff, leg as u8], state),
                        Ok("") => GssapiAnswer::Authenticated {
                            named: None,
                            authzid: String::new(),
                        },
                        Ok(text) => {
                            let (name, authzid) = text.split_once(' ').unwrap_or((text, ""));
                            GssapiAnswer::Authenticated {
                                named: Some(named(name)),
                                authzid: authzid.into(),
                            }
                        }
                        Err(_) => panic!("this test sends text"),
                    };
                    self.negotiation.gssapi(answer)
                }
                Action::Authenticated(account) => {
                    self.account = Some(account);
                    if !self.negotiation.is_inline() {
                        continue;
                    }
                    let mut tasks = Vec::new();
                    if self.negotiation.upgrade_wish().is_some() {
                        let stored = self.stored.as_ref();
                        let stored: Option<Vec<_>> =
                            stored.map(|all| all.iter().map(|h| keys_of(*h)).collect());
                        tasks = self.negotiation.upgrade(stored.as_deref(), &mut random);
                    }
                    self.or_tokens(tasks)
                }
                Action::AddKeys { beside, keys } => {
                    assert_eq!(*beside, keys_of(beside.hash));
                    if self.refuses {
                        self.negotiation.keys_not_added()
                    } else {
                        self.added.push(*keys);
                        let tasks = self.negotiation.keys_added();
                        self.or_tokens(tasks)
                    }
                }
                Action::Bind { resource, id } => {
                    self.bound = Some((resource, id));
                    continue;
                }
                Action::Resume { previd, .. } if previd == "here" => {
                    let jid = self.account.clone().unwrap().with_resource("old").unwrap();
                    let said = self.negotiation.bound(&jid, b"<resumed/>", true);
                    self.say(said.into_iter().flatten());
                    continue;
                }
                Action::Resume { .. } => {
                    let mut actions = self.negotiation.resume_refused();
                    if self.negotiation.is_inline() {
                        actions = self.negotiation.go_on();
                    }
                    actions
                }
                Action::LookToken(ask) => {
                    let check = self.check_token(&ask);
                    self.negotiation.token(check)
                }
                Action::LoggedIn => {
                    let said = self.negotiation.logged_in();
                    self.say(said);
                    continue;
                }
                Action::BindInline(bind) if bind.tag.as_deref() == Some("full") => {
                    self.negotiation.bind_inline_refused();
                    self.negotiation.go_on()
                }
                Action::BindInline(bind) => {
                    let jid = self.account.clone().unwrap().with_resource("new").unwrap();
                    let managed = bind.enable.is_some();
                    self.bind2 = Some(*bind);
                    let said = self.negotiation.bound(&jid, b"<bound/>", managed);
                    self.say(said.into_iter().flatten());
                    continue;
                }
                Action::Component(_) => panic!("no component connects"),
                Action::Register { domain, .. } => {
                    assert_eq!(domain, "verona.lit");
                    self.registrations += 1;
                    continue;
                }
                Action::Failed(failed) => {
                    self.failures
                        .push((failed.name, failed.mechanism, failed.why));
                    continue;
                }
                Action::Close(error) => {
                    self.closed = Some(Some(error));
                    return;
                }
                Action::End => {
                    self.closed = Some(None);
                    return;
                }
            };
            self.act(more);
        }
    }
}

/// Those of romeo's password.
pub fn keys_of(hash: ScramHash) -> ScramKeys {
    derive(hash, "secret", b"0123456789abcdef", 4096).unwrap()
}

pub fn tls() -> TlsFacts {
    TlsFacts {
        version: 0x0304,
        exporter: Some([3; 32]),
        server_end_point: Some(Bytes::from_static(&[4; 32])),
    }
}

pub fn base64(data: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(data)
}

pub fn auth(mechanism: &str, data: &[u8]) -> String {
    format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
        base64(data)
    )
}
