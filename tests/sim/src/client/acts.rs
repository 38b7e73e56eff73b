//! What clients do while they are logged in: chat, change presence, ask, leave.
//!
//! In: chance. Out: stanzas, and what the oracle must know of them.

use super::{State, bare, full_jid};
use crate::oracle::{Ended, Message};
use crate::world::{Ev, World};
use proto::frame::CloseReason;
use std::fmt::Write as _;
use xmpp::element::Element;
use xmpp::jid::BareJid;

/// Whom a message is for.
enum To {
    /// Nobody has this address; the account is noted for who reads what happened.
    Nobody(usize),
    Account(usize),
    /// The account, and one client of it.
    Client(usize, usize),
}

impl World {
    pub(super) fn act_later(&mut self, client: usize) {
        let life = self.clients[client].life;
        let delay = self.rng.delay(self.plan.act_us);
        self.after(delay, Ev::Act { client, life });
    }

    pub(crate) fn act(&mut self, client: usize, life: u32) {
        let c = &self.clients[client];
        if c.life != life || c.state != State::Online || !self.active {
            return;
        }
        if self.rng.permille(self.plan.vanish_permille) {
            return self.vanish(client);
        }
        if self.act_publishing(client) || self.act_blocking(client) {
            return self.act_later(client);
        }
        match self.rng.below(100) {
            0..70 => {
                for _ in 0..self.rng.between(1, 3) {
                    self.send_message(client);
                }
                if self.clients[client].sm_asked && self.rng.permille(400) {
                    self.send(client, "<r xmlns='urn:xmpp:sm:3'/>");
                }
            }
            70..80 => self.change_presence(client),
            80..84 => self.ask(client, "<ping xmlns='urn:xmpp:ping'/>"),
            84..86 => self.ask_roster(client),
            86..88 => self.enable_sm(client),
            88..91 => self.switch_csi(client),
            91..96 => return self.leave(client),
            _ => return self.drop_line(client),
        }
        self.act_later(client);
    }

    pub(super) fn change_presence(&mut self, client: usize) {
        if self.clients[client].presence.is_some() && self.rng.permille(200) {
            self.trace.line(
                self.now_us,
                client as u64,
                format_args!("client {client} says it is unavailable"),
            );
            self.stanza(client, "<presence type='unavailable'/>");
            let c = &mut self.clients[client];
            c.presence = None;
            c.belief.clear();
            c.is_unavailable();
            let session = c.session;
            self.oracle.sessions[session].stop_taking(self.now_us);
        } else {
            let priority = if self.rng.permille(150) {
                -1
            } else {
                self.rng.below(3) as i8
            };
            self.say_available(client, priority);
        }
    }

    pub(super) fn say_available(&mut self, client: usize, priority: i8) {
        let token = self.rng.draw() >> 32;
        self.trace.line(
            self.now_us,
            token,
            format_args!("client {client} says t{token}, priority {priority}"),
        );
        let caps = self.caps(client);
        let text = format!(
            "<presence><status>t{token}</status><priority>{priority}</priority>{caps}</presence>"
        );
        self.stanza(client, &text);
        let now = self.now_us;
        let c = &mut self.clients[client];
        c.presence = Some(token);
        c.priority = priority;
        c.presence_us.get_or_insert(now);
        let session = &mut self.oracle.sessions[c.session];
        if priority >= 0 {
            session.asked_us.get_or_insert(now);
        } else {
            session.stop_taking(now);
        }
    }

    /// Mostly with the version it has.
    pub(super) fn ask_roster(&mut self, client: usize) {
        let with_version = self.rng.permille(700);
        let c = &mut self.clients[client];
        if !with_version {
            c.roster_version = None;
        }
        let ver = c.roster_version.as_ref();
        let ver = ver.map(|v| format!(" ver='{v}'")).unwrap_or_default();
        self.ask(client, &format!("<query xmlns='jabber:iq:roster'{ver}/>"));
    }

    /// A whole roster, nothing new, or a push.
    pub(super) fn roster(&mut self, client: usize, element: &Element, whole: bool) {
        let c = &mut self.clients[client];
        c.roster_known |= whole;
        let Some(query) = element.child("query", "jabber:iq:roster") else {
            return;
        };
        let query = query.tree();
        if whole {
            c.roster.clear();
        }
        for item in query.children() {
            let attr = |name: &str| item.attr(name).unwrap_or("-").to_owned();
            let (jid, subscription) = (attr("jid"), attr("subscription"));
            if subscription == "remove" {
                c.roster.remove(&jid);
            } else {
                let mut groups: Vec<_> = item.children().map(|g| g.text().into_owned()).collect();
                groups.sort();
                let line = format!("{} {subscription} [{}]", attr("name"), groups.join(","));
                c.roster.insert(jid, line);
            }
        }
        c.roster_version = query.attr("ver").map(str::to_owned);
    }

    pub(crate) fn ask(&mut self, client: usize, child: &str) {
        let roster = match child {
            _ if child.contains("roster") => "r",
            _ if child.contains("blocklist") => "b",
            _ => "",
        };
        let c = &mut self.clients[client];
        c.next_iq += 1;
        c.iqs += 1;
        let to = if child.contains("ping") {
            " to='sim.example'"
        } else {
            ""
        };
        let text = format!(
            "<iq type='get' id='q{roster}{}'{to}>{child}</iq>",
            c.next_iq
        );
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!(
                "client {client} asks q{roster}{}",
                self.clients[client].next_iq
            ),
        );
        self.stanza(client, &text);
    }

    pub(crate) fn ask_set(&mut self, client: usize, what: &str, child: &str) -> String {
        self.ask_set_of(client, what, None, child)
    }

    /// Returns the id.
    pub(crate) fn ask_set_of(
        &mut self,
        client: usize,
        what: &str,
        to: Option<&BareJid>,
        child: &str,
    ) -> String {
        let c = &mut self.clients[client];
        c.next_iq += 1;
        c.iqs += 1;
        let id = format!("q{what}{}", c.next_iq);
        let to = to.map(|to| format!(" to='{to}'")).unwrap_or_default();
        self.stanza(
            client,
            &format!("<iq type='set' id='{id}'{to}>{child}</iq>"),
        );
        id
    }

    /// While nobody looks at it presence may be late, and what it believes of others wrong; nothing else is otherwise.
    pub(super) fn switch_csi(&mut self, client: usize) {
        let c = &mut self.clients[client];
        c.inactive = !c.inactive;
        c.slept = true;
        let state = if c.inactive { "inactive" } else { "active" };
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} is {state}"),
        );
        self.send(client, &format!("<{state} xmlns='urn:xmpp:csi:0'/>"));
    }

    pub(super) fn enable_sm(&mut self, client: usize) {
        let c = &mut self.clients[client];
        if !c.sm || c.sm_asked {
            return;
        }
        c.sm_asked = true;
        c.sm_out = 0;
        let resume = if c.resumes { " resume='true'" } else { "" };
        self.send(client, &format!("<enable xmlns='urn:xmpp:sm:3'{resume}/>"));
    }

    pub(super) fn send_message(&mut self, client: usize) {
        let accounts = self.plan.accounts;
        let own = self.clients[client].account;
        let nobody = self.rng.permille(15);
        let mut to_account = self.rng.index(accounts);
        if to_account == own && !self.rng.permille(100) {
            to_account = (to_account + 1) % accounts;
        }
        let candidates: Vec<usize> = (0..self.clients.len())
            .filter(|&c| self.clients[c].account == to_account)
            .collect();
        let full = self
            .rng
            .permille(200)
            .then(|| candidates[self.rng.index(candidates.len())]);
        let normal = self.rng.permille(150);
        let to = match nobody {
            true => To::Nobody(to_account),
            false => full.map_or(To::Account(to_account), |c| To::Client(to_account, c)),
        };
        self.write_to(client, to, normal);
    }

    /// A message to an account.
    pub(crate) fn send_to(&mut self, client: usize, account: usize) {
        self.write_to(client, To::Account(account), false);
    }

    fn write_to(&mut self, client: usize, to: To, normal: bool) {
        let (nobody, to_account, full) = match to {
            To::Nobody(account) => (true, account, None),
            To::Account(account) => (false, account, None),
            To::Client(account, client) => (false, account, Some(client)),
        };
        let number = self.oracle.messages.len();
        let mut text = String::from("<message to='");
        match (nobody, full) {
            (true, _) => text.push_str("nobody@sim.example"),
            (false, None) => text.push_str(bare(to_account).as_str()),
            (false, Some(c)) => text.push_str(&full_jid(&self.clients[c])),
        }
        if !normal {
            text.push_str("' type='chat");
        }
        // Writing to a string does not fail.
        let _ = write!(text, "' id='m{number}'><body>m{number}</body>");
        if self.plan.tight && self.rng.permille(300) {
            text.push_str("<x xmlns='pad'>");
            text.extend(std::iter::repeat_n('x', self.rng.index(2_500)));
            text.push_str("</x>");
        }
        text.push_str("</message>");
        self.trace.line(
            self.now_us,
            number as u64,
            format_args!(
                "client {client} sends m{number} to account {to_account}{}{}",
                if nobody { " (nobody)" } else { "" },
                match full {
                    Some(c) => format!(", client {c}"),
                    None => String::new(),
                }
            ),
        );
        self.stanza(client, &text);
        let c = &mut self.clients[client];
        if let Some(unacked) = c.unacked.back_mut() {
            unacked.2 = Some(number);
        }
        c.seq += 1;
        let message = Message {
            client,
            tcp: c.tcp,
            session: c.session,
            end: self.tcps[c.tcp].sent,
            sm_number: c.sm_asked.then_some(c.sm_out),
            to_account: (!nobody).then_some(to_account),
            to_client: full.filter(|_| !nobody),
            normal,
            seq: c.seq,
            sent_us: self.now_us,
            accepted: false,
            accepted_us: u64::MAX,
            rejected: false,
            refused: false,
            glimpsed: false,
            deliveries: Vec::new(),
        };
        self.oracle
            .sent_by_tcp
            .entry(c.tcp)
            .or_default()
            .push(number);
        self.oracle.messages.push(message);
    }

    pub(super) fn leave(&mut self, client: usize) {
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} logs out"),
        );
        self.acknowledge(client);
        // Mostly as it should be; else the server ends the stream, and what came before counts as much.
        let end = match self.rng.permille(850) {
            true => "</stream:stream>",
            false => "</no-such-element>",
        };
        self.send(client, end);
        let c = &mut self.clients[client];
        c.state = State::Leaving;
        c.life += 1;
        c.presence = None;
        let session = c.session;
        let now = self.now_us;
        self.oracle.sessions[session].left_us = Some(now);
    }

    /// The program ends without a word; its kernel closes the connection.
    pub(super) fn drop_line(&mut self, client: usize) {
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} drops the line"),
        );
        let tcp = self.clients[client].tcp;
        self.client_closes(tcp, CloseReason::Normal);
        self.go_offline(client, Ended::Dropped);
        self.login_later(client);
    }

    /// Out of reach: no FIN, no acknowledgement, nothing.
    pub(super) fn vanish(&mut self, client: usize) {
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} vanishes"),
        );
        let tcp = self.clients[client].tcp;
        self.tcps[tcp].vanished = true;
        self.oracle.vanished = true;
        self.go_offline(client, Ended::Vanished);
        self.login_later(client);
    }
}
