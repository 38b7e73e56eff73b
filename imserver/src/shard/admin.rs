//! What an administrator can ask of a shard.
//!
//! Never: decides who may ask; that is settled before the question gets here.

use super::Shard;
use crate::event::*;
use crate::routing::{MessageType, Retention, StanzaKind};
use crate::session::Session;
use proto::frame::{CloseReason, Transport};
use xmpp::error::StreamError;
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

impl Shard {
    pub(super) fn admin(&mut self, ask: AdminEvent) {
        match ask {
            AdminEvent::Sessions {
                request,
                account,
                after,
                limit,
            } => {
                let page = self.list_sessions(account.as_ref(), after, limit);
                self.fx.admin.push(AdminReply::Sessions(request, page));
            }
            AdminEvent::Kick {
                request,
                account,
                resource,
                error,
                text,
            } => {
                let n = self.kick(&account, resource.as_deref(), error, &text);
                self.fx.admin.push(AdminReply::Kicked(request, n));
            }
            AdminEvent::Alert {
                request,
                to,
                subject,
                body,
            } => {
                let n = self.alert(&to, &subject, &body);
                self.fx.admin.push(AdminReply::Alerted(request, n));
            }
            AdminEvent::AccountRemoved(account) => {
                let text = "the account has been removed";
                self.kick(&account, None, StreamError::NotAuthorized, text);
                if let Some(user) = self.users.get_mut(&account) {
                    user.exists = false;
                    user.roster = None;
                    user.audience = None;
                }
            }
            AdminEvent::Unswept { request, domains } => {
                let (online, unswept) = self.unswept(&domains);
                self.fx
                    .admin
                    .push(AdminReply::Unswept(request, online, unswept));
            }
            AdminEvent::Status { request } => {
                let status = ShardStatus {
                    conns: self.sessions.len() as u64,
                    sessions: self
                        .sessions
                        .iter()
                        .filter(|(_, s)| s.bound().is_some())
                        .count() as u64,
                    users: self.users.len() as u64,
                    online: self
                        .users
                        .values()
                        .filter(|u| !u.sessions.is_empty())
                        .count() as u64,
                    ..self.status
                };
                self.fx.admin.push(AdminReply::Status(request, status));
            }
        }
    }

    /// How many accounts of these domains are online, and which of them are disabled or missing in the population.
    fn unswept(&self, domains: &[String]) -> (usize, Vec<BareJid>) {
        let population = self.groups.view.population();
        let ours = |jid: &BareJid| domains.iter().any(|d| d == jid.domainpart());
        let mut online = 0;
        let mut unswept = Vec::new();
        for (jid, user) in &self.users {
            if !user.sessions.is_empty() && ours(jid) {
                online += 1;
                if population.member(jid).is_none_or(|m| m.disabled) {
                    unswept.push(jid.clone());
                }
            }
        }
        (online, unswept)
    }

    fn list_sessions(
        &self,
        account: Option<&BareJid>,
        after: Option<SessionId>,
        limit: usize,
    ) -> Vec<SessionInfo> {
        let mut rows: Vec<SessionInfo> = self
            .sessions
            .iter()
            .filter_map(|(_, s)| info(s))
            .filter(|i| {
                account.is_none_or(|a| i.jid.bare() == *a) && after.is_none_or(|id| i.id > id)
            })
            .collect();
        rows.sort_by_key(|i| i.id);
        rows.truncate(limit);
        rows
    }

    fn kick(
        &mut self,
        account: &BareJid,
        resource: Option<&str>,
        error: StreamError,
        text: &str,
    ) -> usize {
        let slots = self
            .users
            .get(account)
            .map(|u| u.sessions.clone())
            .unwrap_or_default();
        let mut kicked = 0;
        for slot in slots {
            let matches = self
                .session(slot)
                .bound()
                .is_some_and(|b| resource.is_none_or(|r| b.jid.resourcepart() == r));
            if matches {
                let error = error.to_bytes(Some(text));
                self.end_session_with(slot, Some(error), CloseReason::PolicyViolation);
                kicked += 1;
            }
        }
        kicked
    }
}

impl Shard {
    /// A headline from the domain goes to every available resource that is not negative (RFC 6121 §8.5.2.1.1), and is kept
    /// for nobody. Returns how many got it.
    fn alert(&mut self, whom: &AlertTo, subject: &str, body: &str) -> usize {
        let text = |name: &'static str, text: &str| Node::new(name, ns::CLIENT).with_text(text);
        let mut content = Vec::new();
        if !subject.is_empty() {
            text("subject", subject).write(&mut content, ns::CLIENT);
        }
        text("body", body).write(&mut content, ns::CLIENT);
        let content = bytes::Bytes::from(content);
        let hear = |bound: &crate::session::Bound| {
            bound.ready
                && bound.presence.as_ref().is_some_and(|p| p.priority >= 0)
                && whom.is_for(&bound.account)
        };
        let to: Vec<(u32, FullJid)> = self
            .sessions
            .iter()
            .filter_map(|(slot, s)| {
                let bound = s.bound().filter(|b| hear(b))?;
                Some((slot as u32, bound.jid.clone()))
            })
            .collect();
        let mut sent = 0;
        for (slot, jid) in to {
            let Ok(from) = Jid::parse(jid.domainpart()) else {
                continue;
            };
            let stanza = Node::new("message", ns::CLIENT)
                .with_attr("type", "headline")
                .with_attr("from", from.as_str())
                .with_attr("to", jid.as_str())
                .with_raw(content.clone());
            let stanza = Routed {
                kind: StanzaKind::Message(MessageType::Headline),
                from,
                to: Jid::Full(jid),
                bytes: stanza.to_bytes(ns::CLIENT),
                retention: Retention::Drop,
                origin: None,
                copies: false,
                token: None,
            };
            self.give_unstored(slot, &stanza);
            sent += 1;
        }
        sent
    }
}

fn info(session: &Session) -> Option<SessionInfo> {
    let bound = session.bound()?;
    let transport = match (session.open.transport, &session.open.tls) {
        _ if session.is_detached() => "away",
        (Transport::Tcp, None) => "tcp",
        (Transport::Tcp, Some(_)) => "starttls",
        (Transport::Tls, _) => "tls",
        (Transport::WebSocket, _) => "ws",
        (Transport::WebSocketTls, _) => "wss",
    };
    Some(SessionInfo {
        id: bound.id,
        jid: bound.jid.clone(),
        peer: session.open.peer,
        transport,
        priority: bound.presence.as_ref().map(|p| p.priority),
        since_unix_ms: bound.since_unix_ms,
        link: session.key.map(|k| k.link),
        unacknowledged: session.unacked.len(),
    })
}
