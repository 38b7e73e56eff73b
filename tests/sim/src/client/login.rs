//! How clients log in: by SASL and a resource, by SASL 2 with everything at once, by going on with the session they had.
//!
//! In: what the server says. Out: what is said next; what the oracle must know of the session.

use super::{State, full_jid, h_of};
use crate::world::World;
use base64::Engine as _;
use xmpp::element::Element;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::sasl::token::initiator_message;

impl World {
    pub(super) fn enabled(&mut self, client: usize, id: Option<String>) {
        let c = &mut self.clients[client];
        // A restarted server may say it again: the counts go on.
        if !c.sm_on {
            c.sm_on = true;
            c.sm_in = 0;
            let session = c.session;
            self.oracle.sessions[session].enable();
        }
        self.clients[client].sm_id = id;
    }

    pub(super) fn not_resumed(&mut self, client: usize) {
        let c = &mut self.clients[client];
        c.forget_session();
        c.session = c.tcp;
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} may not resume its session"),
        );
    }

    /// Everything at once: log-in, resumption or a resource, stream management, copies, a token for the next time.
    pub(super) fn authenticate(&mut self, client: usize) {
        let now = self.now_us;
        let c = &mut self.clients[client];
        c.state = State::Authenticating;
        let base64 = |data: &[u8]| base64::engine::general_purpose::STANDARD.encode(data);
        let name = format!("u{}", c.account);
        let (mechanism, initial, fast) = match c.token.as_ref().filter(|_| c.by_token) {
            Some(token) => (
                "HT-SHA-256-NONE",
                base64(&initiator_message(&name, token, &[])),
                "<fast xmlns='urn:xmpp:fast:0'/>",
            ),
            None => (
                "PLAIN",
                base64(format!("\0{name}\0secret").as_bytes()),
                "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>",
            ),
        };
        let resume = match &c.sm_id {
            Some(id) => format!(
                "<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{}'/>",
                c.sm_in
            ),
            None => String::new(),
        };
        let enable = match (c.sm, c.resumes) {
            (true, true) => "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
            (true, false) => "<enable xmlns='urn:xmpp:sm:3'/>",
            (false, _) => "",
        };
        let carbons = match c.carbons {
            true => "<enable xmlns='urn:xmpp:carbons:2'/>",
            false => "",
        };
        let text = format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{initial}</initial-response>\
             <user-agent id='{}'/>{fast}{resume}<bind xmlns='urn:xmpp:bind:0'><tag>sim</tag>{enable}{carbons}</bind></authenticate>",
            c.sasl2.as_deref().unwrap_or_default()
        );
        if c.sm_id.is_some() {
            self.oracle.sessions[c.session].moves_us.push(now);
        }
        self.send(client, &text);
    }

    /// And everything that came of it.
    pub(super) fn authenticated(&mut self, client: usize, element: &Element) {
        let tree = element.tree();
        if let Some(token) = tree.child("token", ns::FAST) {
            self.clients[client].token = token.attr("token").map(str::to_owned);
        }
        if let Some(resumed) = tree.child("resumed", ns::SM) {
            return self.resumed(client, h_of(resumed.attr("h")));
        }
        if tree.child("failed", ns::SM).is_some() {
            self.not_resumed(client);
        }
        let Some(bound) = tree.child("bound", ns::BIND2) else {
            self.clients[client].state = State::Restarting;
            return;
        };
        let jid = tree
            .child("authorization-identifier", ns::SASL2)
            .map(Node::text);
        if jid.as_deref() != Some(&full_jid(&self.clients[client])) {
            return self.fail(format!("client {client} was given the address {jid:?}"));
        }
        let c = &mut self.clients[client];
        c.sm_out = 0;
        if let Some(enabled) = bound.child("enabled", ns::SM) {
            c.sm_asked = true;
            let id = enabled.attr("id").map(str::to_owned);
            self.enabled(client, id);
        }
        self.online(client);
    }

    pub(super) fn bind(&mut self, client: usize) {
        let c = &mut self.clients[client];
        c.state = State::Binding;
        let text = format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{}</resource></bind></iq>",
            c.resource
        );
        self.stanza(client, &text);
    }

    /// Its session goes on: the server says what it has, the rest is sent again.
    pub(super) fn resumed(&mut self, client: usize, h: Option<u32>) {
        let c = &mut self.clients[client];
        c.state = State::Online;
        c.life += 1;
        let (tcp, session) = (c.tcp, c.session);
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!("client {client} goes on with its session (tcp {session}) on tcp {tcp}"),
        );
        self.oracle.go_on(session, tcp);
        self.oracle.sessions[session].acknowledge();
        self.server_ack(client, h);
        for (_, text, message) in self.clients[client].unacked.clone() {
            self.send(client, &text);
            if let Some(number) = message {
                let end = self.tcps[tcp].sent;
                let message = &mut self.oracle.messages[number];
                (message.tcp, message.end) = (tcp, end);
                let sent = self.oracle.sent_by_tcp.entry(tcp).or_default();
                sent.push(number);
            }
        }
        self.act_later(client);
    }

    pub(super) fn online(&mut self, client: usize) {
        let now = self.now_us;
        let c = &mut self.clients[client];
        c.state = State::Online;
        c.life += 1;
        let tcp = c.tcp;
        self.unheard(client, tcp);
        self.oracle.sessions[tcp].bound_us = Some(now);
        self.trace.line(
            now,
            client as u64,
            format_args!("client {client} is logged in (tcp {tcp})"),
        );
        // Resource binding was done before stream management could count.
        let early = self.rng.permille(700);
        if early {
            self.enable_sm(client);
        }
        let with_login = self.clients[client].sasl2.is_some();
        if self.clients[client].carbons && with_login {
            self.oracle.sessions[tcp].copies_us.get_or_insert(now);
        } else if self.clients[client].carbons {
            self.ask_set(client, "c", "<enable xmlns='urn:xmpp:carbons:2'/>");
        }
        self.ask_roster(client);
        self.ask_blocklist(client);
        let priority = if self.rng.permille(50) && self.active {
            -1
        } else {
            0
        };
        self.say_available(client, priority);
        self.act_later(client);
    }
}
