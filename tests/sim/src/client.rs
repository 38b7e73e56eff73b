//! Clients: what people's programs do, as text on a stream. They log in, chat, change presence, leave politely, drop the
//! line, vanish, come back on either mux.
//!
//! In: bytes of the server. Out: bytes for it; what was seen, for the oracle.
//! Never: knows anything of the server that a client could not.

mod acts;
mod login;

use crate::oracle::{Ended, Session};
use crate::published::Wants;
use crate::world::{Ev, World};
use base64::Engine as _;
use bytes::Bytes;
use proto::frame::CloseReason;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use store::Engine as _;
use xmpp::element::Element;
use xmpp::jid::BareJid;
use xmpp::sasl::ClientId;
use xmpp::stream::{Limits, StreamEvent, StreamParser, framing};

/// The domain of the simulated server.
pub(crate) const DOMAIN: &str = "sim.example";

/// How far a client has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Offline,
    Connecting,
    /// Header sent, before authentication.
    Greeting,
    Authenticating,
    /// Header sent again.
    Restarting,
    Binding,
    /// Has asked to go on with the session it had.
    Resuming,
    Online,
    /// Has said `</stream:stream>`.
    Leaving,
}

/// One client program: it has its resource for ever.
pub(crate) struct Client {
    pub account: usize,
    pub resource: String,
    pub state: State,
    /// Changes with every connection: what was planned for the last one does not happen.
    pub life: u32,
    pub tcp: usize,
    /// Its session, by the connection that it began on.
    pub session: usize,
    parser: Option<StreamParser>,
    /// Stream management: wanted, asked for, in force.
    sm: bool,
    pub sm_on: bool,
    /// Copies of messages (XEP-0280) wanted.
    carbons: bool,
    sm_asked: bool,
    /// Stanzas received since `<enabled/>`, sent since `<enable/>`.
    sm_in: u32,
    sm_out: u32,
    /// It wants to be able to resume; the SM-ID, once it can; and what it has sent that the server has not acknowledged: the number of
    /// each, and which message it is.
    resumes: bool,
    /// Logs in by SASL 2, with everything at once; and the token it may do that with.
    sasl2: Option<String>,
    token: Option<String>,
    by_token: bool,
    sm_id: Option<String>,
    unacked: VecDeque<(u32, String, Option<usize>)>,
    /// What it has told everybody of itself, and when its priority allows messages.
    pub presence: Option<u64>,
    pub priority: i8,
    /// What it believes of others: by client.
    pub belief: BTreeMap<usize, u64>,
    /// Its roster as it knows it, kept from session to session: contact, what is shown. And the version of it.
    pub roster: BTreeMap<String, String>,
    roster_version: Option<String>,
    /// It has asked for it in this session, and has an answer.
    pub roster_known: bool,
    /// IQs without an answer.
    pub iqs: u64,
    next_iq: u64,
    /// It has said that nobody looks at it (XEP-0352).
    pub inactive: bool,
    /// Number of the last message sent.
    pub seq: u64,
    /// Whom its account has blocked, as it knows it, once it has asked.
    pub blocklist: Option<BTreeSet<usize>>,
    /// When it has asked for that, in this session.
    pub blocklist_asked_us: Option<u64>,
    /// What it wants to hear of that others publish; since when it knows that it does, and since when it has been available.
    pub wants: Wants,
    pub hears_since: Option<u64>,
    pub presence_us: Option<u64>,
    /// It was inactive since then: of the news of one item it need only have heard the last.
    pub slept: bool,
}

impl Client {
    /// It will not go on with the session it had.
    fn forget_session(&mut self) {
        self.presence = None;
        self.belief.clear();
        self.roster_known = false;
        self.iqs = 0;
        self.sm_on = false;
        self.sm_asked = false;
        (self.sm_in, self.sm_out) = (0, 0);
        self.sm_id = None;
        self.unacked.clear();
        self.blocklist = None;
        self.blocklist_asked_us = None;
        self.is_unavailable();
    }

    /// Nobody tells it anything any more.
    fn is_unavailable(&mut self) {
        self.hears_since = None;
        self.presence_us = None;
        self.slept = self.inactive;
    }
}

impl World {
    pub(crate) fn make_accounts(&mut self) {
        let mut writes = Vec::new();
        for account in 0..self.plan.accounts {
            let put = store::Account {
                jid: bare(account),
                keys: Vec::new(),
                disabled: false,
                created_ms: 1,
            };
            writes.push(store::Write::AccountPut {
                account: put,
                mode: store::PutMode::Create,
            });
            for contact in (0..self.plan.accounts).filter(|&c| c != account) {
                let subscription = match (sees(account, contact), sees(contact, account)) {
                    (true, true) => store::Subscription::Both,
                    (true, false) => store::Subscription::To,
                    (false, true) => store::Subscription::From,
                    (false, false) => continue,
                };
                let item = store::RosterItem {
                    jid: bare(contact),
                    name: None,
                    subscription,
                    ask: false,
                    approved: false,
                    groups: Vec::new(),
                    version: 0,
                };
                let version = contact as u64 + 1;
                writes.push(store::Write::Roster {
                    owner: bare(account),
                    version,
                    put: Some(item),
                    remove: None,
                });
            }
            let resources = if account < self.plan.twins { 2 } else { 1 };
            for n in 0..resources {
                self.add_client(account, n);
            }
        }
        let mut writer = self.store.writer().expect("nobody has it yet");
        writer
            .commit(&writes)
            .expect("an empty store takes everything");
        self.store.kill();
    }

    fn add_client(&mut self, account: usize, n: usize) {
        let sm = self.rng.permille(650);
        let resumes = self.rng.permille(650);
        // Who binds with the log-in gets nothing sent that is in the archive, and these clients read no archives.
        let sasl2 = !self.plan.archive && self.rng.permille(500);
        let agent = format!("client {account} {n}");
        let id = ClientId::of(&agent).resource(bare(account).as_str(), Some("sim"));
        self.clients.push(Client {
            account,
            resource: match sasl2 {
                true => format!("sim/{id}"),
                false => format!("r{n}"),
            },
            sasl2: sasl2.then_some(agent),
            token: None,
            by_token: false,
            state: State::Offline,
            life: 0,
            tcp: usize::MAX,
            session: usize::MAX,
            parser: None,
            sm,
            sm_on: false,
            carbons: !(account + n).is_multiple_of(3),
            sm_asked: false,
            sm_in: 0,
            sm_out: 0,
            resumes,
            sm_id: None,
            unacked: VecDeque::new(),
            presence: None,
            priority: 0,
            belief: BTreeMap::new(),
            roster: BTreeMap::new(),
            roster_version: None,
            roster_known: false,
            iqs: 0,
            next_iq: 0,
            inactive: false,
            seq: 0,
            blocklist: None,
            blocklist_asked_us: None,
            wants: Wants::draw(account + n),
            hears_since: None,
            presence_us: None,
            slept: false,
        });
    }

    // ---- coming and going -----------------------------------------------------------------------------------

    pub(crate) fn login(&mut self, client: usize, life: u32) {
        let c = &self.clients[client];
        if c.life != life || c.state != State::Offline || !(self.active || self.gathering) {
            return;
        }
        let mux = self.rng.index(2);
        let tcp = self.connect(client, mux);
        let c = &mut self.clients[client];
        c.state = State::Connecting;
        c.inactive = false;
        c.tcp = tcp;
        c.life += 1;
        if c.sm_id.is_none() {
            c.session = tcp;
        }
        let session = Session::new(client, c.account, self.now_us);
        self.oracle.sessions.push(session);
        self.oracle.roots.push(tcp);
    }

    fn login_later(&mut self, client: usize) {
        let life = self.clients[client].life;
        let late = self.clients[client].sm_id.is_some() && self.rng.permille(100);
        let delay = if self.gathering {
            self.rng.between(50_000, 400_000)
        } else if late {
            // About as long as a session waits for its client.
            self.rng.between(7_000_000, 12_000_000)
        } else {
            self.rng.between(50_000, 3_000_000)
        };
        self.after(delay, Ev::Login { client, life });
    }

    /// Everybody who is away logs in.
    pub(crate) fn gather(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].state == State::Online && self.clients[client].inactive {
                self.switch_csi(client);
            }
            match self.clients[client].state {
                State::Offline => self.login_later(client),
                State::Online
                    if self.clients[client].presence.is_none()
                        || self.clients[client].priority < 0 =>
                {
                    self.say_available(client, 0);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn refused(&mut self, tcp: usize) {
        let client = self.tcps[tcp].client;
        self.go_offline(client, Ended::Closed);
        self.login_later(client);
    }

    fn go_offline(&mut self, client: usize, how: Ended) {
        let now = self.now_us;
        let c = &mut self.clients[client];
        let resumable = c.sm_id.is_some() && c.state != State::Leaving;
        c.state = State::Offline;
        c.life += 1;
        c.parser = None;
        if !resumable {
            c.forget_session();
        }
        let session = c.session;
        self.oracle.end(session, how, now);
    }

    pub(crate) fn client_connected(&mut self, tcp: usize) {
        let client = self.tcps[tcp].client;
        let c = &mut self.clients[client];
        if c.tcp != tcp || c.state != State::Connecting {
            return;
        }
        c.state = State::Greeting;
        c.parser = Some(match self.tcps[tcp].websocket {
            true => StreamParser::new_framed(Limits::NONE),
            false => StreamParser::new(Limits::NONE),
        });
        self.header(client);
    }

    /// The mux has died under the connection: the client will hear of it soon.
    pub(crate) fn mux_died(&mut self, tcp: usize) {
        let now = self.now_us;
        let session = self.oracle.roots[tcp];
        if self.clients[self.tcps[tcp].client].tcp == tcp {
            self.oracle.end(session, Ended::MuxDied, now);
        }
    }

    /// The connection has been closed from the other end.
    pub(crate) fn client_closed(&mut self, tcp: usize) {
        let client = self.tcps[tcp].client;
        self.client_closes(tcp, CloseReason::Normal);
        if self.clients[client].tcp != tcp {
            return;
        }
        let state = self.clients[client].state;
        let died = self.tcps[tcp].mux_died;
        let quiet = self.oracle.kills.is_empty()
            && self.plan.cuts + self.plan.mux_kills + self.plan.disk_full == 0;
        match state {
            State::Offline | State::Leaving => {}
            State::Online if died => {}
            State::Online
                if self.plan.tight
                    && match self.oracle.sessions[tcp].error.as_deref() {
                        // It was too slow; the error that says so may be lost in a kill.
                        None => !self.oracle.kills.is_empty(),
                        error => error == Some("resource-constraint"),
                    } => {}
            State::Online => {
                let error = self.oracle.sessions[tcp].error.clone();
                self.fail(format!(
                    "client {client} (tcp {tcp}) was logged in and has been disconnected: {error:?}"
                ));
            }
            _ if quiet && !self.plan.tight => {
                let error = self.oracle.sessions[tcp].error.clone();
                self.fail(format!("client {client} (tcp {tcp}) was disconnected while logging in, though nothing went wrong: {error:?}"));
            }
            _ => {}
        }
        self.trace.line(
            self.now_us,
            tcp as u64,
            format_args!("client {client} sees the end of tcp {tcp} ({state:?})"),
        );
        let how = match state {
            _ if died => Ended::MuxDied,
            // Told otherwise, it knows that not all it had sent was taken.
            State::Leaving if self.oracle.sessions[tcp].error.is_none() => Ended::Polite,
            _ => Ended::Closed,
        };
        self.go_offline(client, how);
        self.login_later(client);
    }

    // ---- the stream -----------------------------------------------------------------------------------------

    fn send(&mut self, client: usize, text: &str) {
        let tcp = self.clients[client].tcp;
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let bytes = match text {
            _ if !self.tcps[tcp].websocket => bytes,
            "</stream:stream>" => Bytes::from_static(framing::CLOSE),
            _ if text.starts_with("</") => bytes,
            _ => framing::message(&bytes),
        };
        self.client_sends(tcp, bytes);
    }

    fn stanza(&mut self, client: usize, text: &str) {
        let c = &mut self.clients[client];
        c.sm_out += 1;
        if c.sm_asked && c.resumes {
            c.unacked.push_back((c.sm_out, text.to_owned(), None));
        }
        self.send(client, text);
    }

    fn header(&mut self, client: usize) {
        let header = match self.tcps[self.clients[client].tcp].websocket {
            true => {
                "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='sim.example' version='1.0'/>"
            }
            false => {
                "<?xml version='1.0'?><stream:stream to='sim.example' version='1.0' xmlns='jabber:client' \
                 xmlns:stream='http://etherx.jabber.org/streams'>"
            }
        };
        self.send(client, header);
    }

    pub(crate) fn client_bytes(&mut self, tcp: usize, bytes: Bytes) {
        let client = self.tcps[tcp].client;
        if self.clients[client].tcp != tcp {
            return;
        }
        match &mut self.clients[client].parser {
            Some(parser) => {
                parser.push(bytes);
                // One element is one message.
                parser.end_message();
            }
            None => return,
        }
        loop {
            let c = &mut self.clients[client];
            let Some(parser) = c.parser.as_mut().filter(|_| c.tcp == tcp) else {
                return;
            };
            match parser.poll() {
                Ok(Some(StreamEvent::Element(element))) => self.element(client, &element),
                Ok(Some(StreamEvent::End)) => return,
                Ok(Some(StreamEvent::Header(_))) => {}
                Ok(None) => return,
                Err(error) => {
                    return self.fail(format!(
                        "client {client} cannot read the server's stream: {error:?}"
                    ));
                }
            }
        }
    }

    fn element(&mut self, client: usize, element: &Element) {
        let c = &mut self.clients[client];
        if c.sm_on && matches!(element.name(), "message" | "presence" | "iq") {
            c.sm_in = c.sm_in.wrapping_add(1);
        }
        match (element.name(), c.state) {
            ("features", State::Greeting) if c.sasl2.is_some() => {
                c.by_token = c.token.is_some();
                self.authenticate(client);
            }
            ("success", State::Authenticating) if c.sasl2.is_some() => {
                self.authenticated(client, element);
            }
            ("failure", State::Authenticating) if c.by_token => {
                // Too old, or replaced by one that it never got.
                c.token = None;
                c.by_token = false;
                self.authenticate(client);
            }
            ("features", State::Online | State::Leaving) if c.sasl2.is_some() => {}
            ("features", State::Greeting) => {
                c.state = State::Authenticating;
                let token = format!("\0u{}\0secret", c.account);
                let token = base64::engine::general_purpose::STANDARD.encode(token);
                let text = format!(
                    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{token}</auth>"
                );
                self.send(client, &text);
            }
            ("success", State::Authenticating) => {
                c.state = State::Restarting;
                if let Some(parser) = &mut c.parser {
                    parser.reset();
                }
                self.header(client);
            }
            ("failure", State::Authenticating) => {
                let what = String::from_utf8_lossy(element.raw()).into_owned();
                self.fail(format!("client {client} may not log in: {what}"));
            }
            ("features", State::Restarting) if c.sm_id.is_some() => {
                c.state = State::Resuming;
                self.oracle.sessions[c.session].moves_us.push(self.now_us);
                let id = c.sm_id.as_deref().unwrap_or_default();
                let text = format!(
                    "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{}'/>",
                    c.sm_in
                );
                self.send(client, &text);
            }
            ("resumed", State::Resuming) => self.resumed(client, h_of(element.attr("h"))),
            ("failed", State::Resuming) => {
                self.not_resumed(client);
                self.bind(client);
            }
            ("features", State::Restarting) => self.bind(client),
            ("iq", _) => self.iq(client, element),
            ("message", _) => self.message(client, element),
            ("presence", _) => self.presence(client, element),
            ("enabled", _) => {
                let id = element.attr("id").map(|id| id.into_owned());
                self.enabled(client, id);
            }
            ("r", _) => {
                if self.clients[client].state == State::Online {
                    self.acknowledge(client);
                }
            }
            ("a", _) => self.server_ack(client, h_of(element.attr("h"))),
            ("error", _) => {
                let condition = element.children().next().map(|c| c.name().to_owned());
                let tcp = c.tcp;
                self.trace.line(
                    self.now_us,
                    tcp as u64,
                    format_args!("client {client}: stream error {condition:?}"),
                );
                self.oracle.sessions[tcp].error = condition;
            }
            // Once it has said goodbye it is sent no answers, that to <enable/> neither; a server that was killed before its end was on
            // record takes the rest once more, without stream management.
            ("failed", State::Leaving) => {}
            (name, state) => {
                let raw = String::from_utf8_lossy(element.raw());
                let what = format!("client {client} got <{name}> in state {state:?}: {raw}");
                self.fail(what);
            }
        }
    }

    fn acknowledge(&mut self, client: usize) {
        let c = &self.clients[client];
        if !c.sm_on {
            return;
        }
        let text = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", c.sm_in);
        let (session, h) = (c.session, c.sm_in);
        self.trace.line(
            self.now_us,
            u64::from(h),
            format_args!("client {client} acknowledges {h}"),
        );
        self.oracle.sessions[session].acknowledge();
        self.send(client, &text);
    }

    fn server_ack(&mut self, client: usize, h: Option<u32>) {
        let c = &self.clients[client];
        match h {
            Some(h) if h <= c.sm_out => {
                let session = c.session;
                let c = &mut self.clients[client];
                while c.unacked.front().is_some_and(|(n, ..)| *n <= h) {
                    c.unacked.pop_front();
                }
                self.accepted_by_sm(session, h);
            }
            _ => {
                let sent = c.sm_out;
                self.fail(format!(
                    "client {client} has sent {sent} stanzas, the server acknowledges {h:?}"
                ));
            }
        }
    }

    fn iq(&mut self, client: usize, element: &Element) {
        let id = element.attr("id").unwrap_or_default().into_owned();
        let kind = element.attr("type").unwrap_or_default().into_owned();
        let c = &mut self.clients[client];
        match (id.as_str(), kind.as_str()) {
            ("bind", "result") if c.state == State::Binding => self.online(client),
            ("bind", _) if c.state == State::Binding => {
                let what = String::from_utf8_lossy(element.raw()).into_owned();
                self.fail(format!("client {client} cannot bind: {what}"));
            }
            (id, "result" | "error") if id.starts_with('q') => {
                c.iqs = c.iqs.saturating_sub(1);
                if id.starts_with("qc") && kind == "result" {
                    self.oracle.sessions[c.session]
                        .copies_us
                        .get_or_insert(self.now_us);
                }
                self.trace.line(
                    self.now_us,
                    client as u64,
                    format_args!("client {client} has an answer to {id}: {kind}"),
                );
                if id.starts_with("qr") && kind == "result" {
                    self.roster(client, element, true);
                } else if id.starts_with("qb") || id.starts_with("qk") {
                    self.blocking_answered(client, id, element);
                } else if id.starts_with("qp") {
                    self.publish_answered(client, id, element);
                }
            }
            (id, "get" | "set") if c.state == State::Online => {
                self.roster(client, element, false);
                self.blocking_pushed(client, element);
                let payload = self.answer_to(client, element);
                let from = element
                    .attr("from")
                    .map(|f| format!(" to='{f}'"))
                    .unwrap_or_default();
                let text = match payload.is_empty() {
                    true => format!("<iq type='result' id='{id}'{from}/>"),
                    false => format!("<iq type='result' id='{id}'{from}>{payload}</iq>"),
                };
                self.stanza(client, &text);
            }
            _ => {}
        }
    }

    fn presence(&mut self, client: usize, element: &Element) {
        let from = element.attr("from").unwrap_or_default().into_owned();
        let Some(other) = self.client_of(&from) else {
            return;
        };
        let now = self.now_us;
        let kind = element.attr("type").unwrap_or_default().into_owned();
        let token = element.content_child("status").and_then(|s| {
            s.text()
                .strip_prefix('t')
                .and_then(|t| t.parse::<u64>().ok())
        });
        let c = &mut self.clients[client];
        if other == client {
            if kind == "unavailable" {
                // What came before was for who it was before: from here on nobody tells it anything.
                c.belief.clear();
            }
            // The echo: from now on messages to the account are due here.
            if kind.is_empty() && token == c.presence && c.presence.is_some() && c.priority >= 0 {
                let session = c.session;
                self.oracle.sessions[session].taking_us.get_or_insert(now);
            }
            return;
        }
        if c.presence.is_none() {
            return;
        }
        let account = self.clients[other].account;
        self.heard_of(client, account, "presence");
        self.trace.line(
            now,
            token.unwrap_or(0),
            format_args!("client {client} hears of client {other}: {token:?} {kind}"),
        );
        let c = &mut self.clients[client];
        match (kind.as_str(), token) {
            ("", Some(token)) => {
                c.belief.insert(other, token);
            }
            ("unavailable", _) => {
                c.belief.remove(&other);
            }
            _ => {}
        }
    }

    fn message(&mut self, client: usize, element: &Element) {
        if self.notice(client, element) {
            return;
        }
        if let Some(copy) = element.children().find(|c| c.ns() == "urn:xmpp:carbons:2") {
            return self.copied(client, element, &copy);
        }
        self.message_itself(client, element);
    }

    /// A message, or one that a copy holds.
    pub(crate) fn message_itself(&mut self, client: usize, element: &Element) {
        let id = element.attr("id").unwrap_or_default().into_owned();
        let Some(number) = id.strip_prefix('m').and_then(|n| n.parse::<usize>().ok()) else {
            return;
        };
        if element.attr("type").as_deref() == Some("error") {
            self.rejected(client, number, element);
            return;
        }
        let from = element.attr("from").unwrap_or_default().into_owned();
        let sender = self
            .oracle
            .messages
            .get(number)
            .map(|m| full_jid(&self.clients[m.client]));
        if sender.as_deref() != Some(from.as_str()) {
            self.fail(format!("m{number} says it is from {from}"));
            return;
        }
        self.trace.line(
            self.now_us,
            number as u64,
            format_args!("client {client} receives m{number}"),
        );
        self.delivered(client, number);
    }

    fn client_of(&self, jid: &str) -> Option<usize> {
        let rest = jid.strip_prefix('u')?;
        let (account, rest) = rest.split_once('@')?;
        let (_, resource) = rest.split_once('/')?;
        let account: usize = account.parse().ok()?;
        self.clients
            .iter()
            .position(|c| c.account == account && c.resource == resource)
    }
}

fn h_of(h: Option<impl AsRef<str>>) -> Option<u32> {
    h?.as_ref().parse().ok()
}

/// The bare JID of an account.
pub(crate) fn bare(account: usize) -> BareJid {
    BareJid::parse(&format!("u{account}@{DOMAIN}")).expect("a plain address")
}

fn full_jid(client: &Client) -> String {
    format!("u{}@{DOMAIN}/{}", client.account, client.resource)
}

/// Whether account `a` is subscribed to the presence of `b`: mostly, but not always both ways.
pub(crate) fn sees(a: usize, b: usize) -> bool {
    a != b && (a + 2 * b) % 5 != 3
}

/// The number of a message of ours, from its bytes.
pub(crate) fn message_number(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    let (_, rest) = text.split_once("<body>m")?;
    rest.split_once('<')?.0.parse().ok()
}
