//! What must be true: kept beside the simulated world, checked as it goes on and at its end.
//!
//! In: what clients send and see, what the server claims. Out: failures.
//! Owns: the life of every message and every session. Never: looks into the server to learn what it should do.

use crate::client::{State, bare, sees};
use crate::world::World;
use imserver::event::{AdminEvent, AdminReply, Event, Now};
use std::collections::{BTreeMap, BTreeSet};
use store::Engine as _;
use xmpp::element::Element;

/// One message, from the moment it was sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub client: usize,
    /// The connection it was sent on, last.
    pub tcp: usize,
    /// The session it was sent in.
    pub session: usize,
    /// Where it ends in the bytes of its connection.
    pub end: u64,
    /// Its number for stream management of the sender.
    pub sm_number: Option<u32>,
    /// `None`: to nobody.
    pub to_account: Option<usize>,
    /// To one resource.
    pub to_client: Option<usize>,
    pub normal: bool,
    /// Number among the messages of its client.
    pub seq: u64,
    pub sent_us: u64,
    /// The server has said that it has it.
    pub accepted: bool,
    pub accepted_us: u64,
    /// It came back as an error.
    pub rejected: bool,
    /// The disk has refused it: its error may be lost in a kill, and a restarted server can store what comes again.
    pub refused: bool,
    /// A session that may not take messages has had a copy.
    pub glimpsed: bool,
    /// Which connections received it, and when.
    pub deliveries: Vec<(usize, u64)>,
}

impl Message {
    fn accept(&mut self, now: u64) {
        self.accepted = true;
        self.accepted_us = self.accepted_us.min(now);
    }
}

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    Polite,
    Dropped,
    Vanished,
    MuxDied,
    Closed,
}

/// One connection of a client, and what it received.
#[derive(Debug)]
pub(crate) struct Session {
    pub client: usize,
    pub account: usize,
    pub began_us: u64,
    pub bound_us: Option<u64>,
    /// When it first asked for messages (sent presence), and since when it has known that it gets them.
    pub asked_us: Option<u64>,
    pub taking_us: Option<u64>,
    /// When it last said that it takes no messages.
    pub gave_up_us: Option<u64>,
    pub left_us: Option<u64>,
    pub ended: Option<(Ended, u64)>,
    pub error: Option<String>,
    /// When its client has asked to go on with it on another connection.
    pub moves_us: Vec<u64>,
    /// When its mux died, also after its end.
    pub mux_died_us: Option<u64>,
    /// Since when it has known that it gets copies.
    pub copies_us: Option<u64>,
    /// What it has seen of what the other sessions of its account have sent.
    pub sent_copies: Vec<usize>,
    /// Messages received, in order.
    pub got: Vec<usize>,
    /// How many of them it has acknowledged; without stream management TCP does.
    acked: Option<usize>,
    /// The server could not hear it when the client's next session began: its mux had no link.
    unheard: bool,
    /// Highest number seen of each sender, and of each sender's connection.
    last: BTreeMap<usize, u64>,
    last_of_tcp: BTreeMap<usize, u64>,
}

impl Session {
    pub fn new(client: usize, account: usize, began_us: u64) -> Self {
        Self {
            client,
            account,
            began_us,
            bound_us: None,
            asked_us: None,
            taking_us: None,
            gave_up_us: None,
            left_us: None,
            ended: None,
            error: None,
            moves_us: Vec::new(),
            mux_died_us: None,
            copies_us: None,
            sent_copies: Vec::new(),
            got: Vec::new(),
            acked: None,
            unheard: false,
            last: BTreeMap::new(),
            last_of_tcp: BTreeMap::new(),
        }
    }

    /// Stream management begins: what came before was acknowledged by TCP.
    pub fn enable(&mut self) {
        self.acked = Some(self.got.len());
    }

    pub fn acknowledge(&mut self) {
        self.acked = self.acked.map(|_| self.got.len());
    }

    pub fn stop_taking(&mut self, now: u64) {
        self.taking_us = None;
        self.gave_up_us = Some(now);
    }

    /// The server cannot but know that this session has the message, or will learn it before it learns of its end.
    fn keeps(&self, number: usize, received_us: u64, outage_us: u64) -> bool {
        if matches!(
            self.ended,
            Some((Ended::Vanished | Ended::MuxDied | Ended::Closed, _))
        ) {
            return false;
        }
        // The mux may have died with the news.
        if let (Some((_, ended)), Some(died)) = (self.ended, self.mux_died_us)
            && died <= ended + 20_000_000 + outage_us
        {
            return false;
        }
        // After it has said goodbye a client cannot acknowledge any more.
        if self.left_us.is_some_and(|left| received_us >= left) {
            return false;
        }
        match self.acked {
            None => true,
            Some(n) => {
                self.got[..n].contains(&number) || self.ended.is_none() && self.left_us.is_none()
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub messages: Vec<Message>,
    /// By number of the connection they began on.
    pub sessions: Vec<Session>,
    /// Of each connection, the session that it was part of.
    pub roots: Vec<usize>,
    /// (mux, boot, connection id) -> connection.
    pub conns: BTreeMap<(usize, u32, u64), usize>,
    pub sent_by_tcp: BTreeMap<usize, Vec<usize>>,
    /// When the server was killed.
    pub kills: Vec<u64>,
    pub disk_failed: bool,
    pub vanished: bool,
    /// How much longer than usual the server may have been away.
    pub outage_us: u64,
    pub failures: Vec<String>,
}

impl Oracle {
    pub fn new() -> Self {
        Self {
            messages: Vec::new(),
            sessions: Vec::new(),
            roots: Vec::new(),
            conns: BTreeMap::new(),
            sent_by_tcp: BTreeMap::new(),
            kills: Vec::new(),
            disk_failed: false,
            vanished: false,
            outage_us: 0,
            failures: Vec::new(),
        }
    }

    /// What a client has acknowledged is known after a kill from the disk, or from its mux, which keeps it until the server has
    /// written it down and lets the connection go. It cannot be known where the server let go first: a mux forgets a
    /// connection when both ends have sent Close (DESIGN §3), so what it tells after the server's Close dies with a server killed
    /// before that is on disk. The server does so in two cases: it ends the session itself, because its client logged in anew
    /// while it was taken to be there still; or it answers `</stream:stream>` of a client without stream management, whose
    /// TCP had not acknowledged, as far as the mux had seen, what it received last.
    fn unknowable(&self, tcp: usize) -> bool {
        let session = &self.sessions[tcp];
        let client = session.client;
        let write = if self.disk_failed {
            10_000_000
        } else {
            2_000_000
        };
        let kill_after = |from: u64| self.kills.iter().any(|&k| k >= from && k <= from + write);
        let left = session.left_us.filter(|_| session.acked.is_none());
        let next = self.sessions[tcp + 1..]
            .iter()
            .find(|s| s.client == client && s.bound_us.is_some());
        // (The server replaces a session a little before its client knows.)
        let replaced = next
            .and_then(|s| s.bound_us)
            .map(|at| at.saturating_sub(500_000));
        left.is_some_and(kill_after) || replaced.is_some_and(kill_after)
    }

    /// Another session of the account held the message and then ended, or takes messages no more: it was routed again when the server
    /// learned of that, and what was sent later to both had arrived before. Or a kill took it from that session: what is addressed to
    /// another then waits for that one. (Only by holding back what a live session is sent
    /// until all the others have acknowledged theirs could that be in order.)
    fn held_elsewhere(&self, tcp: usize, message: &Message) -> bool {
        let account = self.sessions[tcp].account;
        self.sessions.iter().enumerate().any(|(t, s)| {
            let noticed = |(how, at): (Ended, u64)| match how {
                Ended::Vanished | Ended::MuxDied => at + 110_000_000,
                _ => at + 20_000_000 + self.outage_us,
            };
            let said = s.gave_up_us.max(s.left_us);
            let said = said.map(|at| at + 20_000_000 + self.outage_us);
            let let_go = s.ended.map(noticed).max(said);
            // What is addressed to one resource, and another held for it, is that one's again after a kill.
            let taken_by_kill = |s: &Session| {
                let mut kills = self.kills.iter();
                message.to_client.is_some()
                    && kills.any(|&k| k >= message.sent_us && s.asked_us.is_some_and(|at| at <= k))
            };
            t != tcp
                && s.account == account
                && s.asked_us.is_some()
                && (let_go.is_some_and(|at| at >= message.sent_us) || taken_by_kill(s))
        })
    }

    /// The disk takes none of these writes.
    pub fn refused(&mut self, writes: &[store::Write]) {
        for write in writes {
            let store::Write::Append(append) = write else {
                continue;
            };
            let number = crate::client::message_number(&append.payload);
            if let Some(message) = number.and_then(|n| self.messages.get_mut(n)) {
                message.refused = true;
            }
        }
    }

    /// The server was killed so soon after a presence that it may not have been written down: it comes again, but later.
    pub fn lost_presence(&self, since: u64) -> bool {
        let write = if self.disk_failed {
            4_000_000
        } else {
            1_000_000
        };
        self.kills
            .iter()
            .any(|&k| k + 500_000 >= since && k <= since + write)
    }

    /// The session goes on on another connection.
    pub fn go_on(&mut self, session: usize, tcp: usize) {
        self.roots[tcp] = session;
        let session = &mut self.sessions[session];
        session.ended = None;
        session.mux_died_us = None;
        session.error = None;
    }

    pub fn end(&mut self, tcp: usize, how: Ended, now: u64) {
        if let Some(session) = self.sessions.get_mut(tcp)
            && session.ended.is_none()
        {
            session.ended = Some((how, now));
        }
    }
}

impl World {
    /// The server says that input up to here is settled.
    pub(crate) fn settled(&mut self, tcp: usize, bytes: u64) {
        let Some(sent) = self.oracle.sent_by_tcp.get(&tcp) else {
            return;
        };
        for &number in sent {
            let message = &mut self.oracle.messages[number];
            if message.end <= bytes {
                message.accept(self.now_us);
            }
        }
    }

    /// The server has acknowledged so many stanzas to their sender.
    pub(crate) fn accepted_by_sm(&mut self, session: usize, h: u32) {
        for message in &mut self.oracle.messages {
            let counted = message.session == session && message.sm_number.is_some_and(|n| n <= h);
            if counted {
                message.accept(self.now_us);
            }
        }
    }

    /// A message has come back as an error.
    pub(crate) fn rejected(&mut self, client: usize, number: usize, error: &Element) {
        let now = self.now_us;
        self.trace.line(
            now,
            number as u64,
            format_args!("client {client} gets m{number} back as an error"),
        );
        if number >= self.oracle.messages.len() {
            return;
        }
        let by_list = self.rejected_by_list(number, error);
        let by_list = by_list.unwrap_or_else(|wrong| {
            self.fail(wrong);
            true
        });
        let message = &mut self.oracle.messages[number];
        message.rejected = true;
        let why = message.to_account.is_none()
            || (message.normal && message.to_client.is_some())
            || self.oracle.disk_failed
            || by_list;
        if message.client != client {
            self.fail(format!(
                "m{number} came back to client {client}, which has not sent it"
            ));
        } else if !why {
            self.fail(format!("m{number} was rejected without a reason"));
        }
    }

    /// A client begins a new session: what its earlier ones had sent may still be in a mux without a link.
    pub(crate) fn unheard(&mut self, client: usize, tcp: usize) {
        for earlier in 0..tcp {
            let mux = &self.muxes[self.tcps[earlier].mux];
            let heard = mux.transport.is_some_and(|t| {
                let transport = &self.transports[t];
                transport.link.is_some() && transport.carries && !mux.cut
            });
            let root = self.oracle.roots[earlier];
            let session = &mut self.oracle.sessions[root];
            if session.client == client && !heard {
                session.unheard = true;
            }
        }
    }

    /// A session that has received something then was without a connection at some time after this one, of another client, had asked for
    /// messages.
    fn was_absent(&self, session: usize, received_us: u64, asker: usize) -> bool {
        /// So long a server that is cut off may not have heard of the new connection.
        const UNHEARD_US: u64 = 12_000_000;
        let (session_of, asked) = (
            &self.oracle.sessions[session],
            self.oracle.sessions[asker].asked_us,
        );
        let client = &self.clients[session_of.client];
        let tcp = &self.tcps[client.tcp];
        let is_away = client.session == session && (!tcp.client_open || tcp.vanished);
        let mut moves = session_of.moves_us.iter();
        let came_back =
            moves.any(|&m| m >= received_us && asked.is_some_and(|a| a <= m + UNHEARD_US));
        session_of.client != self.oracle.sessions[asker].client && (is_away || came_back)
    }

    /// A client has received a message.
    pub(crate) fn delivered(&mut self, client: usize, number: usize) {
        let now = self.now_us;
        let tcp = self.clients[client].session;
        let account = self.clients[client].account;
        let in_spite = self.delivered_in_spite(number, account);
        let by_list = self.touched_by_list(&self.oracle.messages[number], now);
        let absent: Vec<usize> = (self.oracle.messages[number].deliveries.iter())
            .filter(|&&(other, at)| self.was_absent(other, at, tcp))
            .map(|&(other, _)| other)
            .collect();
        let twins = self.clients.iter().filter(|c| c.account == account).count() > 1;
        let oracle = &mut self.oracle;
        let message = &oracle.messages[number];
        let mut wrong: Vec<String> = in_spite.into_iter().collect();
        if message.to_account != Some(account) {
            wrong.push(format!("m{number} is not for client {client}"));
        }
        let session = &oracle.sessions[tcp];
        for &(other, at) in &message.deliveries {
            if other == tcp {
                wrong.push(format!(
                    "m{number} reached client {client} twice in one session (tcp {tcp})"
                ));
                continue;
            }
            // A second session may have it when it asked for messages before the first one had this.
            let parallel = session.asked_us.is_some_and(|asked| asked <= at);
            // Or it is the one that the message was sent to, and the other has had a copy.
            let addressed = message.to_client == Some(client);
            let parallel = parallel || addressed && session.began_us <= at;
            let keeps = oracle.sessions[other].keeps(number, at, oracle.outage_us);
            // Or the first was away when the second asked: what it had not acknowledged goes to both (ARCHITECTURE, "A client's connection
            // is lost").
            let parallel = parallel || absent.contains(&other);
            if !parallel && keeps && !oracle.unknowable(other) {
                wrong.push(format!(
                    "m{number} reached client {client} (tcp {tcp}), though client {} (tcp {other}) had it already",
                    oracle.sessions[other].client
                ));
            }
        }
        let rerouted = twins && oracle.held_elsewhere(tcp, message);
        let last = session.last.get(&message.client).copied().unwrap_or(0);
        let last_of_tcp = session.last_of_tcp.get(&message.session).copied();
        let last_of_tcp = last_of_tcp.unwrap_or(0);
        let ordered = match message.to_client {
            None => true,
            // A session that takes no messages still gets those to its full address, and the rest later. A restarted server may
            // take it for one if it was killed before the presence was written down.
            Some(to) => {
                to == client
                    && session
                        .taking_us
                        .is_some_and(|since| !oracle.lost_presence(since))
            }
        };
        // What the disk had refused and a restarted server, which does not know that, could store.
        let ordered = ordered && !message.rejected && !message.refused;
        // What waits while its sender is blocked comes when it is not any more.
        let ordered = ordered && !by_list;
        // Nor one that a server had answered with an error because nobody was there (RFC 6121 §8.5.3.2), and was killed before the
        // error got out: the next one may find somebody.
        let killed_since = || oracle.kills.iter().any(|&k| k >= message.sent_us);
        let unanswered = message.normal && message.to_client.is_some() && killed_since();
        let ordered = ordered && !unanswered;
        // Sent to a mux that had no link, by a session that is not the client's any more: only its own order is known then.
        let expected = match oracle.sessions[message.session].unheard {
            true => last_of_tcp,
            false => last,
        };
        if message.seq < expected && ordered && !rerouted {
            wrong.push(format!(
                "m{number} reached client {client} after a later message of client {}",
                message.client
            ));
        }
        let (from, from_tcp, seq) = (message.client, message.session, message.seq);
        let session = &mut oracle.sessions[tcp];
        if ordered {
            session.last.insert(from, seq.max(last));
            session.last_of_tcp.insert(from_tcp, seq.max(last_of_tcp));
        }
        session.got.push(number);
        oracle.messages[number].deliveries.push((tcp, now));
        for text in wrong {
            self.fail(text);
        }
    }

    // ---- the end --------------------------------------------------------------------------------------------

    /// What every client believes of the presence of others is true.
    pub(crate) fn check_presence(&mut self) {
        let mut wrong = Vec::new();
        let lists = self.lists_on_disk();
        let blocked = |a: usize, b: usize| lists[a].contains(&b) || lists[b].contains(&a);
        for (x, client) in self.clients.iter().enumerate() {
            // An inactive one hears of it when it is active.
            if client.state != State::Online || client.presence.is_none() || client.inactive {
                continue;
            }
            for (y, other) in self.clients.iter().enumerate() {
                if x == y {
                    continue;
                }
                let visible = client.account == other.account
                    || sees(client.account, other.account)
                    || self.groups.presence(client.account, other.account);
                let visible = visible && !blocked(client.account, other.account);
                let truth = other
                    .presence
                    .filter(|_| visible && other.state == State::Online);
                let belief = client.belief.get(&y).copied();
                if truth != belief && !self.kill_took_news(client.account, other.account) {
                    wrong.push(format!(
                        "client {x} believes of client {y}: {belief:?}; true is {truth:?}"
                    ));
                }
            }
        }
        wrong.into_iter().for_each(|text| self.fail(text));
    }

    /// Everything else.
    pub(crate) fn check_all(&mut self) {
        for client in 0..self.clients.len() {
            let c = &self.clients[client];
            if c.state != State::Online {
                let text = format!("client {client} could not log in: {:?}", c.state);
                self.fail(text);
            } else if c.iqs > self.unanswered_by_list(client) {
                let text = format!("client {client} waits for {} answers", c.iqs);
                self.fail(text);
            }
        }
        self.check_rosters();
        self.check_lists();
        self.check_published();
        let mut wrong = Vec::new();
        let waiting = self.waiting();
        for (number, message) in self.oracle.messages.iter().enumerate() {
            self.check_message(number, message, &waiting, &mut wrong);
        }
        self.check_copies(&mut wrong);
        self.check_archives(&mut wrong);
        wrong.into_iter().for_each(|text| self.fail(text));
        self.check_store();
    }

    /// What waits on disk.
    fn waiting(&self) -> BTreeSet<usize> {
        let mut reader = self.store.reader().expect("the model has readers");
        let rows = (0..self.plan.accounts)
            .flat_map(|account| reader.pending(&bare(account), 0, 1_000).unwrap_or_default());
        rows.filter_map(|row| crate::client::message_number(&row.payload))
            .collect()
    }

    fn check_message(
        &self,
        number: usize,
        message: &Message,
        waiting: &BTreeSet<usize>,
        wrong: &mut Vec<String>,
    ) {
        let sender_lives = self.oracle.sessions[message.session].ended.is_none();
        let seen = !message.deliveries.is_empty();
        let known = seen || message.glimpsed;
        if sender_lives && !message.accepted {
            wrong.push(format!(
                "m{number} was never accepted, though its sender is still there"
            ));
        }
        let killed_since = self.oracle.kills.iter().any(|&k| k >= message.sent_us);
        // It reached a mux that lives: nothing can take it away any more.
        let kept = self.tcps[message.tcp].arrived >= message.end
            && self.oracle.sessions[message.tcp].mux_died_us.is_none();
        // Unless the client came back so soon that its new session replaced the old one first.
        let replaced = match self.oracle.sessions[message.session].ended {
            None => false,
            Some((Ended::Closed, _)) => true,
            Some((_, at)) => self.oracle.sessions[message.session + 1..].iter().any(|s| {
                s.client == message.client
                    && s.bound_us
                        .or(s.ended.map(|(_, e)| e))
                        .is_some_and(|b| b < at + 40_000_000 + self.oracle.outage_us)
            }),
        };
        // Or its client had asked to go on elsewhere and the server was killed just then: the one connection is given up, and the
        // other not known yet. The client has no acknowledgement.
        let session = &self.oracle.sessions[message.session];
        let kills = self.oracle.kills.iter();
        let mut moves = session.moves_us.iter();
        let moving = moves.any(|&at| kills.clone().any(|&k| k >= at && k <= at + 12_000_000));
        // Or the server was killed when all of it was on disk, and the session on record as one without a connection, but its mux had
        // not been told: whoever resumed it would be.
        // Or all that came of it is an error, for a session that is no more: nobody is there, the resource is not and it is no chat
        // (RFC 6121 §8.5.3.2.1), or a list says no.
        let comes_to_nothing = message.to_account.is_none()
            || message.normal && message.to_client.is_some()
            || self.touched_by_list(message, self.now_us);
        let went_on = replaced || moving || comes_to_nothing;
        if kept && !went_on && !known && !message.accepted && !message.rejected {
            wrong.push(format!(
                "m{number} reached a mux that lives, and was never accepted"
            ));
        }
        if message.rejected && seen && !killed_since {
            wrong.push(format!("m{number} was rejected and delivered"));
        }
        let Some(account) = message.to_account else {
            if sender_lives && !message.rejected {
                wrong.push(format!("m{number} to nobody did not come back"));
            }
            return;
        };
        if self.comes_back(message) && sender_lives && !message.rejected {
            wrong.push(format!(
                "m{number}, between accounts of which one has blocked the other, did not come back"
            ));
        }
        if !message.accepted || message.rejected {
            return;
        }
        // It came back, perhaps, or is not delivered before the other wants to hear of its sender.
        if self.touched_by_list(message, message.accepted_us)
            || !seen && self.touched_by_list(message, self.now_us) && waiting.contains(&number)
        {
            return;
        }
        // An error may have gone to a session that is no more.
        let may_be_rejected =
            self.oracle.disk_failed || (message.normal && message.to_client.is_some());
        if !known && (sender_lives || !may_be_rejected) {
            wrong.push(format!("m{number} was accepted and is lost"));
            return;
        }
        if message.to_client.is_some() || !seen || self.touched_by_list(message, self.now_us) {
            return;
        }
        for (tcp, session) in self.oracle.sessions.iter().enumerate() {
            let due = session.account == account
                && session.ended.is_none()
                && session.taking_us.is_some_and(|since| {
                    since < message.sent_us && !self.oracle.lost_presence(since)
                });
            if due && !message.deliveries.iter().any(|&(t, _)| t == tcp) {
                wrong.push(format!(
                    "m{number} was due to client {} (tcp {tcp}) and did not reach it",
                    session.client
                ));
            }
        }
    }

    fn check_store(&mut self) {
        let mut reader = self.store.reader().expect("the model has readers");
        let lists = self.lists_on_disk();
        for account in 0..self.plan.accounts {
            let mut rows = reader.pending(&bare(account), 0, 1_000).unwrap_or_default();
            rows.retain(|row| !self.waits_for_list(&lists, account, row));
            if !rows.is_empty() {
                let first = String::from_utf8_lossy(&rows[0].payload).into_owned();
                self.fail(format!(
                    "{} messages are pending for account {account}, which is online: {first}",
                    rows.len()
                ));
            }
        }
        let origins = self.store.origin_count();
        // Those that a full disk made it keep are forgotten at the next start.
        if origins > 0 && !self.oracle.disk_failed {
            self.fail(format!("{origins} origins are never forgotten"));
        }
    }

    /// What is kept longer than it should be.
    pub(crate) fn growth(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (n, mux) in self.muxes.iter().enumerate() {
            let Some(side) = &mux.side else { continue };
            if side.unsettled_bytes() > 0 || side.retained_bytes() > 0 {
                wrong.push(format!(
                    "mux{n} keeps {} unsettled and {} unacknowledged bytes",
                    side.unsettled_bytes(),
                    side.retained_bytes()
                ));
            }
            if side.conn_count() != mux.conns.len() {
                wrong.push(format!(
                    "mux{n} knows {} connections, {} exist",
                    side.conn_count(),
                    mux.conns.len()
                ));
            }
        }
        let online = self
            .clients
            .iter()
            .filter(|c| c.state == State::Online)
            .count();
        match &mut self.server {
            None => wrong.push("there is no server".into()),
            Some(server) => {
                for row in server.links.list() {
                    if row.retained_bytes > 0 {
                        wrong.push(format!(
                            "the link of {} keeps {} bytes",
                            row.name, row.retained_bytes
                        ));
                    }
                }
                let now = Now {
                    mono_ms: u64::MAX / 2,
                    unix_ms: u64::MAX / 2,
                };
                let (mut conns, mut sessions) = (0, 0);
                for it in &mut server.shards {
                    it.shard
                        .handle(now, Event::Admin(AdminEvent::Status { request: 1 }));
                    for reply in it.shard.flush(now).admin {
                        if let AdminReply::Status(_, status) = reply {
                            conns += status.conns;
                            sessions += status.sessions;
                        }
                    }
                    if !it.queue.is_empty() {
                        wrong.push("a shard has not taken all its events".into());
                    }
                }
                if conns != online as u64 || sessions != online as u64 {
                    wrong.push(format!("{online} clients are online, the server knows {conns} connections and {sessions} sessions"));
                }
                if !server.write_queue.is_empty() {
                    wrong.push("writes are waiting".into());
                }
                let records = server.records();
                if records != online {
                    wrong.push(format!(
                        "{online} clients are online, the session store has {records} records"
                    ));
                }
            }
        }
        wrong
    }
}
