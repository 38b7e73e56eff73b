//! What an administrator can ask of a shard.
//!
//! Never: decides who may ask; that is settled before the question gets here.

use super::Shard;
use crate::event::*;
use crate::session::Session;
use proto::frame::{CloseReason, Transport};
use xmpp::error::StreamError;
use xmpp::jid::BareJid;

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
                let content = crate::notices::content(&subject, &body);
                let n = self.headlines(&to, &content).len();
                self.fx.admin.push(AdminReply::Alerted(request, n));
            }
            AdminEvent::Notices {
                request,
                notices,
                tell,
            } => {
                let n = self.take_notices(notices, tell);
                self.fx.admin.push(AdminReply::Alerted(request, n));
            }
            AdminEvent::Online { request, which } => {
                let page = self.list_online(&which);
                self.fx.admin.push(AdminReply::Online(request, page));
            }
            AdminEvent::CountOnline { request, domain } => {
                let (online, active) = self.count_online(&domain);
                let counts = AdminReply::OnlineCounts(request, online, active);
                self.fx.admin.push(counts);
            }
            AdminEvent::AccountRemoved { account, contacts } => {
                let text = "the account has been removed";
                if let Some(user) = self.users.get_mut(&account) {
                    user.exists = false;
                }
                self.kick(&account, None, StreamError::NotAuthorized, text);
                self.forget_nodes(&account);
                if let Some(user) = self.users.get_mut(&account) {
                    user.roster = None;
                    user.audience = None;
                    user.knows_blocked = false;
                    user.push = None;
                    (user.greeted, user.motd) = (None, 0);
                    user.archive_prefs = Default::default();
                }
                // RFC 6121 §3.2.1 and §3.3.1, as if it had left them: or its next holder would see what they show their contacts.
                if let Some(contacts) = contacts {
                    for contact in contacts {
                        self.leave(&account, &contact);
                    }
                    for n in 0..self.shards {
                        self.tell(ShardId(n), ShardMsg::Gone(account.clone()));
                    }
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
                    conns: self.conns.len() as u64,
                    away: self
                        .sessions
                        .iter()
                        .filter(|(_, s)| s.bound().is_some() && s.key.is_none())
                        .count() as u64,
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
