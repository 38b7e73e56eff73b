//! Every command over the store in memory, and what a reply may never do: break the link, or name a secret.

use super::*;
use crate::event::{LinkId, OnlineQuery, OnlineState, SessionId, SessionInfo};
use crate::linkset::MuxInfo;
use std::collections::BTreeSet;
use std::sync::Mutex;
use store::model::Model;
use store::{Engine as _, Reader, Writer};
use xmpp::jid::{BareJid, FullJid};

mod accounts;
mod adhoc;
mod people;
mod replies;
mod rights;
mod server;

/// The store is real (in memory); sessions and muxes are lists.
struct Site {
    writer: Mutex<Box<dyn Writer>>,
    reader: Mutex<Box<dyn Reader>>,
    domains: Vec<String>,
    sessions: Mutex<Vec<SessionInfo>>,
    removed: Mutex<Vec<BareJid>>,
    /// Rights of who is not at the socket.
    rights: Vec<Right>,
    policy: Policy,
    audited: Mutex<Vec<Value>>,
    audit_is_full: bool,
    directory: std::sync::Arc<directory::LocalDirectory>,
    sweeps: Mutex<usize>,
    notices: Mutex<std::sync::Arc<Notices>>,
}

/// Who may do everything.
fn tester() -> Caller {
    Caller {
        door: Door::Socket,
        from: "socket".into(),
    }
}

/// Whose rights are looked at.
fn carol() -> Caller {
    Caller {
        door: Door::Account(BareJid::parse("carol@a.example").unwrap()),
        from: "192.0.2.7".into(),
    }
}

impl Site {
    fn new() -> Site {
        let model = Model::new();
        Site {
            writer: Mutex::new(model.writer().unwrap()),
            reader: Mutex::new(model.reader().unwrap()),
            domains: vec!["a.example".into(), "b.example".into()],
            sessions: Mutex::default(),
            removed: Mutex::default(),
            rights: Vec::new(),
            policy: Policy::open(),
            audited: Mutex::default(),
            audit_is_full: false,
            directory: std::sync::Arc::new(directory::LocalDirectory::new(model.reader().unwrap())),
            sweeps: Mutex::default(),
            notices: Mutex::default(),
        }
    }

    fn ask(&self, command: &str, args: Value) -> Value {
        let request = json!({"id": 7, "command": command, "args": args}).to_string();
        let reply = handle(self, &tester(), request.as_bytes());
        assert!(
            reply.len() <= REPLY_BYTES_MAX,
            "{command}: {} bytes",
            reply.len()
        );
        let reply: Value = serde_json::from_slice(&reply).unwrap();
        assert_eq!(reply["id"], 7);
        reply
    }

    fn ok(&self, command: &str, args: Value) -> Value {
        let reply = self.ask(command, args);
        assert!(reply.get("error").is_none(), "{command}: {reply}");
        reply["ok"].clone()
    }

    fn code(&self, command: &str, args: Value) -> String {
        let reply = self.ask(command, args);
        reply["error"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{command}: {reply}"))
            .to_owned()
    }

    fn import(&self, lines: &[String]) -> Vec<(u64, String)> {
        let numbered: Vec<Value> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| json!([n + 1, line]))
            .collect();
        let answer = self.ok("user import", json!({"lines": numbered}));
        answer["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| (r[0].as_u64().unwrap(), r[1].as_str().unwrap().to_owned()))
            .collect()
    }

    /// All rows of a table, page by page, and how many pages it took.
    fn all(&self, command: &str) -> (Vec<Vec<Value>>, usize) {
        let mut rows = Vec::new();
        let mut after = Value::Null;
        for pages in 1..1_000 {
            let answer = self.ok(command, json!({"after": after}));
            let columns = answer["columns"].as_array().unwrap().len();
            for row in answer["rows"].as_array().unwrap() {
                rows.push(row.as_array().unwrap().clone());
                assert_eq!(rows.last().unwrap().len(), columns);
            }
            match answer.get("next") {
                Some(next) => after = next.clone(),
                None => return (rows, pages),
            }
        }
        panic!("{command} never ends");
    }

    fn keys(&self, jid: &str) -> Vec<xmpp::scram::ScramKeys> {
        let jid = BareJid::parse(jid).unwrap();
        let account = self.reader.lock().unwrap().account(&jid).unwrap();
        account.map(|a| a.keys).unwrap_or_default()
    }

    fn bind(&self, id: u64, jid: &str) {
        self.sessions.lock().unwrap().push(SessionInfo {
            id: SessionId(id),
            jid: FullJid::parse(jid).unwrap(),
            peer: "192.0.2.1:40000".parse().unwrap(),
            transport: "tls",
            priority: None,
            since_unix_ms: 0,
            link: Some(LinkId(1)),
            unacknowledged: 0,
        });
    }
}

fn store_refusal(e: store::StoreError) -> Refusal {
    Refusal::new("unavailable", e.to_string())
}

impl Backend for Site {
    fn set_disabled(&self, account: &BareJid, disabled: bool) -> Result<(), Refusal> {
        let jid = account.clone();
        let write = store::Write::AccountDisabled { jid, disabled };
        match self.write(vec![write])?.pop() {
            Some(store::Written::Done) => Ok(()),
            _ => Err(Refusal::new("not-found", "nobody knows it")),
        }
    }
    fn alert(&self, to: &crate::event::AlertTo, _: &str, _: &str) -> Result<usize, Refusal> {
        let sessions = self.sessions.lock().unwrap();
        let mine = sessions.iter().filter(|s| to.is_for(&s.jid.bare()));
        Ok(mine.count())
    }
    fn site(&self) -> std::sync::Arc<directory::site::Site> {
        std::sync::Arc::new(directory::site::Site::without_overlay([(
            "a.example".to_owned(),
            vec![self.directory.clone() as std::sync::Arc<dyn directory::backend::Backend>],
        )]))
    }
    fn population(&self) -> std::sync::Arc<directory::population::Population> {
        std::sync::Arc::default()
    }
    fn sweep_now(&self) {
        *self.sweeps.lock().unwrap() += 1;
    }
    fn verdict(&self, user: &BareJid, right: Right) -> crate::policy::Verdict {
        let groups = |group: &str| (group != "unread").then_some(false);
        self.policy.test(user, right, &groups)
    }
    fn config(&self) -> Result<Vec<crate::config::Effective>, Refusal> {
        let row = |key: &str, line| crate::config::Effective {
            key: key.into(),
            value: "1".into(),
            line,
        };
        Ok(vec![row("a.b", None), row("a.c", Some(3))])
    }
    fn reload(&self) -> Result<Vec<String>, Refusal> {
        Err(Refusal::new("bad-request", "imserver.toml:1: wrong"))
    }
    fn grants(&self, caller: &Caller, right: Right) -> bool {
        caller.door == Door::Socket || self.rights.contains(&right)
    }
    fn audit(&self, record: &audit::Record<'_>) -> Result<(), Refusal> {
        if self.audit_is_full {
            return Err(Refusal::new("unavailable", "the disk is full"));
        }
        let line = record.line(self.now_unix_ms());
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
        self.audited
            .lock()
            .unwrap()
            .push(serde_json::from_str(&line).unwrap());
        Ok(())
    }
    fn domains(&self) -> Vec<String> {
        self.domains.clone()
    }
    fn scram_iterations(&self) -> u32 {
        4_096
    }
    fn salt(&self) -> Vec<u8> {
        vec![7; 16]
    }
    fn now_unix_ms(&self) -> u64 {
        1_700_000_000_000
    }
    fn write(&self, writes: Vec<store::Write>) -> Result<Vec<store::Written>, Refusal> {
        self.writer
            .lock()
            .unwrap()
            .commit(&writes)
            .map_err(store_refusal)
    }
    fn account(&self, jid: &BareJid) -> Result<Option<store::Account>, Refusal> {
        self.reader
            .lock()
            .unwrap()
            .account(jid)
            .map_err(store_refusal)
    }
    fn accounts(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
        only_disabled: bool,
    ) -> Result<Vec<store::AccountEntry>, Refusal> {
        let mut reader = self.reader.lock().unwrap();
        let found = match only_disabled {
            false => reader.accounts(domain, after, limit),
            true => reader.disabled_accounts(domain, after, limit),
        };
        found.map_err(store_refusal)
    }
    fn account_counts(&self, domain: &str) -> Result<store::AccountCounts, Refusal> {
        let mut reader = self.reader.lock().unwrap();
        reader.account_counts(domain).map_err(store_refusal)
    }
    fn overlay_disabled(&self) -> Result<Vec<BareJid>, Refusal> {
        let mut reader = self.reader.lock().unwrap();
        reader.overlay_disabled().map_err(store_refusal)
    }
    fn user(&self, jid: &BareJid) -> Result<store::UserData, Refusal> {
        let mut reader = self.reader.lock().unwrap();
        reader.user_data(jid).map_err(store_refusal)
    }
    fn tokens(&self, jid: &BareJid) -> Result<Vec<store::LoginToken>, Refusal> {
        let mut reader = self.reader.lock().unwrap();
        reader.tokens(jid, None).map_err(store_refusal)
    }
    fn online(&self, which: OnlineQuery) -> Result<Vec<BareJid>, Refusal> {
        // Active are those with a priority.
        let sessions = self.sessions.lock().unwrap();
        let of_state = sessions
            .iter()
            .filter(|s| which.state.is(s.priority.is_some()));
        let jids: BTreeSet<BareJid> = of_state.map(|s| s.jid.bare()).collect();
        let after = |jid: &BareJid| which.after.as_ref().is_none_or(|after| jid > after);
        let found = jids.into_iter().filter(after);
        let of_domain = |jid: &BareJid| which.domain.as_ref().is_none_or(|d| d == jid.domainpart());
        Ok(found.filter(of_domain).take(which.limit).collect())
    }
    fn count_online(&self, domain: &str) -> Result<(u64, u64), Refusal> {
        let count = |state| {
            let which = OnlineQuery {
                state,
                domain: Some(domain.to_owned()),
                after: None,
                limit: usize::MAX,
            };
            self.online(which).unwrap().len() as u64
        };
        Ok((count(OnlineState::Any), count(OnlineState::Active)))
    }
    fn notices(&self) -> std::sync::Arc<Notices> {
        self.notices.lock().unwrap().clone()
    }
    fn change_notices(
        &self,
        _: Kind,
        change: &dyn Fn(&Notices) -> Option<Notices>,
        tell: bool,
    ) -> Result<Option<usize>, Refusal> {
        let mut notices = self.notices.lock().unwrap();
        let Some(new) = change(&notices) else {
            return Ok(None);
        };
        *notices = std::sync::Arc::new(new);
        Ok(Some(if tell {
            self.sessions.lock().unwrap().len()
        } else {
            0
        }))
    }
    fn rows(&self, jid: &BareJid, limit: usize) -> Result<Vec<u64>, Refusal> {
        let rows = self.reader.lock().unwrap().some_rows(jid, limit);
        rows.map_err(store_refusal)
    }
    fn sessions(
        &self,
        account: Option<&BareJid>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<SessionPage, Refusal> {
        let sessions = self.sessions.lock().unwrap();
        Ok(sessions
            .iter()
            .filter(|s| account.is_none_or(|a| s.jid.bare() == *a))
            .filter(|s| after.is_none_or(|after| s.id.0 > after))
            .take(limit)
            .cloned()
            .collect())
    }
    fn kick(&self, account: &BareJid, resource: Option<&str>) -> Result<usize, Refusal> {
        let mut sessions = self.sessions.lock().unwrap();
        let before = sessions.len();
        sessions.retain(|s| {
            s.jid.bare() != *account || resource.is_some_and(|r| r != s.jid.resourcepart())
        });
        Ok(before - sessions.len())
    }
    fn contacts(&self, account: &BareJid) -> Result<Vec<BareJid>, Refusal> {
        let data = self.reader.lock().unwrap().user_data(account);
        data.map(|data| store::subscribed(&data.roster))
            .map_err(store_refusal)
    }
    fn account_removed(&self, account: &BareJid, _: &[BareJid]) {
        self.removed.lock().unwrap().push(account.clone());
    }
    fn muxes(&self) -> Result<Vec<MuxInfo>, Refusal> {
        Ok(vec![MuxInfo {
            name: "mux1".into(),
            link: LinkId(1),
            up: true,
            conns: 3,
            retained_bytes: 10,
        }])
    }
    fn status(&self) -> Result<Vec<(&'static str, Value)>, Refusal> {
        Ok(vec![("server", json!("main")), ("accounts", json!(1))])
    }
}
