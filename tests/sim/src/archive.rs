//! Copies (XEP-0280) and archives (XEP-0313): what clients see of the first, and what the second must hold.
//!
//! In: copies that clients get; the store at the end. Out: failures.
//! Never: asks the server what should be there.

use crate::client::{bare, message_number};
use crate::world::World;
use std::collections::BTreeMap;
use store::{ArchiveQuery, Engine as _, StoredRow};
use xmpp::element::{Child, Element};

impl World {
    /// A client has got a copy of a message.
    pub(crate) fn copied(&mut self, client: usize, outer: &Element, copy: &Child<'_>) {
        let account = bare(self.clients[client].account);
        if outer.attr("from").as_deref() != Some(account.as_str()) {
            return self.fail(format!(
                "client {client} got a copy that is not of its account"
            ));
        }
        let forwarded = copy.tree();
        let forwarded = forwarded.child("forwarded", "urn:xmpp:forward:0");
        let inner = forwarded.and_then(|f| f.child("message", "jabber:client"));
        let inner = inner.and_then(|m| Element::parse(m.to_bytes("jabber:client")).ok());
        let Some(inner) = inner else {
            return self.fail(format!("client {client} got a copy of nothing"));
        };
        let Some(number) = message_number(inner.raw()) else {
            return self.fail(format!("client {client} got a copy of what nobody sent"));
        };
        if copy.name() == "received" {
            let tcp = self.clients[client].session;
            let since = self.oracle.sessions[tcp].taking_us;
            if since.is_some_and(|since| !self.oracle.lost_presence(since)) {
                // As good as the message itself.
                return self.message_itself(client, &inner);
            }
            // It takes no messages, or the server may think so still: it has seen it, and nobody counts on that.
            self.oracle.messages[number].glimpsed = true;
            return;
        }
        self.trace.line(
            self.now_us,
            number as u64,
            format_args!("client {client} sees that m{number} was sent"),
        );
        let tcp = self.clients[client].session;
        let message = &self.oracle.messages[number];
        let session = &self.oracle.sessions[tcp];
        let sender = &self.oracle.sessions[message.session];
        let wrong = if sender.account != session.account {
            Some("is of another account")
        } else if message.session == tcp {
            Some("is its own")
        } else if session.sent_copies.contains(&number) {
            Some("came twice")
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.fail(format!("client {client}: the copy of m{number} {wrong}"));
        }
        self.oracle.sessions[tcp].sent_copies.push(number);
    }

    /// Who was there all the time has seen what the others have sent.
    pub(crate) fn check_copies(&self, wrong: &mut Vec<String>) {
        for (number, message) in self.oracle.messages.iter().enumerate() {
            let sender = self.oracle.sessions[message.session].account;
            // What one sends to oneself comes as what is received.
            let to_self = message.to_account == Some(sender);
            let listed = self.touched_by_list(message, self.now_us);
            if !message.accepted || message.rejected || message.refused || to_self || listed {
                continue;
            }
            for (tcp, session) in self.oracle.sessions.iter().enumerate() {
                let since = session.taking_us.zip(session.copies_us);
                let since = since.map(|(taking, copies)| taking.max(copies));
                let due = session.account == sender
                    && tcp != message.session
                    && session.ended.is_none()
                    && since.is_some_and(|since| {
                        since < message.sent_us && !self.oracle.lost_presence(since)
                    });
                if due && !session.sent_copies.contains(&number) {
                    wrong.push(format!(
                        "client {} (tcp {tcp}) has no copy of m{number}",
                        session.client
                    ));
                }
            }
        }
    }

    /// What was accepted is in both archives, once; what was not is in none more than once.
    pub(crate) fn check_archives(&self, wrong: &mut Vec<String>) {
        let mut reader = self.store.reader().expect("the model has readers");
        let mut kept: BTreeMap<(usize, bool), Vec<usize>> = BTreeMap::new();
        for account in 0..self.plan.accounts {
            let mut query = ArchiveQuery::new(bare(account), usize::MAX);
            query.limit = usize::MAX;
            let rows: Vec<StoredRow> = reader.archive(&query).unwrap_or_default();
            let mut last: BTreeMap<usize, u64> = BTreeMap::new();
            for row in rows {
                let Some(number) = message_number(&row.payload) else {
                    wrong.push(format!("account {account} has an archived row of nobody"));
                    continue;
                };
                kept.entry((number, row.outgoing))
                    .or_default()
                    .push(account);
                let message = &self.oracle.messages[number];
                let before = last.entry(message.session).or_default();
                // One that came back because of a list, and comes again after a kill when the list has let it go, comes late: an error
                // is no write, so nothing is left of it that the replay could be answered from (DESIGN §3, Replay is recognised). The
                // error may have been lost with the server, or gone to a session that was no more.
                let killed_since = || {
                    let mut kills = self.oracle.kills.iter();
                    kills.any(|&k| k >= message.sent_us)
                };
                let late = message.refused
                    || (message.rejected || killed_since())
                        && self.touched_by_list(message, message.accepted_us);
                if row.outgoing && message.seq < *before && !late {
                    wrong.push(format!(
                        "m{number} is in its sender's archive after a later one"
                    ));
                }
                *before = (*before).max(if row.outgoing { message.seq } else { 0 });
            }
        }
        for (number, message) in self.oracle.messages.iter().enumerate() {
            let sender = self.oracle.sessions[message.session].account;
            let to_self = message.to_account == Some(sender);
            let sure = self.plan.archive
                && message.accepted
                && !message.rejected
                && !message.refused
                && message.to_account.is_some()
                && !self.touched_by_list(message, message.accepted_us)
                // RFC 6121 §8.5.3.2: it may have come back, to a session that was no more.
                && !(message.normal && message.to_client.is_some());
            let sides = [
                (true, Some(sender).filter(|_| !to_self)),
                (false, message.to_account),
            ];
            for (outgoing, owner) in sides {
                let rows = kept.get(&(number, outgoing)).map_or(&[][..], Vec::as_slice);
                let whose = if outgoing { "sender's" } else { "recipient's" };
                if rows.len() > 1 || rows.iter().any(|r| Some(*r) != owner) {
                    wrong.push(format!("m{number}: {whose} archive is of {rows:?}"));
                }
                if !outgoing && !rows.is_empty() && self.stopped_by_list(message, self.now_us) {
                    wrong.push(format!(
                        "m{number} is archived by who had blocked its sender"
                    ));
                }
                if sure && rows.is_empty() && owner.is_some() {
                    wrong.push(format!("m{number} is not in its {whose} archive"));
                }
            }
        }
    }
}
