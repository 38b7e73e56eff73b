//! Every command over the store in memory, and what a reply may never do: break the link, or name a secret.

use super::*;

mod adhoc;
mod people;
use crate::event::{LinkId, OnlineQuery, OnlineState, SessionId, SessionInfo};
use crate::linkset::MuxInfo;
use std::collections::BTreeSet;
use std::sync::Mutex;
use store::model::Model;
use store::{Engine as _, Reader, Writer};
use xmpp::jid::{BareJid, FullJid};
use xmpp::scram::{ScramHash, derive};

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

#[test]
fn an_account_is_added_shown_changed_and_removed() {
    let site = Site::new();
    let jid = json!({"jid": "Alice@A.example"});
    let with = |password: &str| json!({"jid": "alice@a.example", "password": password});
    assert_eq!(
        site.ok("user add", with("one"))["text"],
        "alice@a.example added"
    );
    assert_eq!(site.code("user add", with("one")), "exists");
    assert_eq!(site.keys("alice@a.example").len(), 3, "one for each hash");

    let shown = site.ok("user show", jid.clone());
    let value = |what: &str| {
        let rows = shown["rows"].as_array().unwrap();
        rows.iter().find(|r| r[0] == what).unwrap()[1].clone()
    };
    assert_eq!(value("jid"), "alice@a.example");
    assert_eq!(value("created"), "2023-11-14T22:13:20Z");
    assert_eq!(
        value("mechanisms"),
        "SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1"
    );

    let before = site.keys("alice@a.example");
    site.ok("user passwd", with("two"));
    assert_ne!(site.keys("alice@a.example"), before);
    site.ok("user del", jid.clone());
    assert_eq!(
        *site.removed.lock().unwrap(),
        [BareJid::parse("alice@a.example").unwrap()]
    );
    for (command, args) in [
        ("user show", jid.clone()),
        ("user passwd", with("x")),
        ("user del", jid),
    ] {
        assert_eq!(site.code(command, args), "not-found", "{command}");
    }
}

#[test]
fn wrong_requests_are_refused_with_a_reason() {
    let site = Site::new();
    for (command, args, says) in [
        (
            "user frobnicate",
            json!({}),
            "no such command: \"user frobnicate\"",
        ),
        ("user add", json!({}), "`jid` is missing"),
        ("user add", json!({"jid": 5}), "`jid` must be a string"),
        (
            "user add",
            json!({"jid": "a@a.example"}),
            "`password` is missing",
        ),
        (
            "user add",
            json!({"jid": "a@a.example", "password": ""}),
            "the password is empty",
        ),
        (
            "user add",
            json!({"jid": "a@a.example", "password": "a\u{7}b"}),
            "cannot be used",
        ),
        (
            "user add",
            json!({"jid": "a.example", "password": "x"}),
            "name@domain is wanted",
        ),
        (
            "user add",
            json!({"jid": "a@c.example", "password": "x"}),
            "\"c.example\" is not served here",
        ),
        (
            "user add",
            json!({"jid": "a@a.example/r", "password": "x"}),
            "is no address",
        ),
        (
            "user add",
            json!({"jid": "x".repeat(100_000), "password": "x"}),
            "...",
        ),
        (
            "user import",
            json!({"lines": ["a@a.example x"]}),
            "array of [number, line]",
        ),
        ("user import", json!({}), "array of [number, line]"),
        ("session list", json!({"after": "x"}), "not a session id"),
        (
            "session kick",
            json!({"jid": "nobody@a.example"}),
            "no such session",
        ),
    ] {
        let reply = site.ask(command, args);
        let text = reply["error"]["text"].as_str().unwrap_or_default();
        assert!(text.contains(says), "{command}: {reply}");
        assert!(text.len() < 200, "{command}: {text}");
    }
    for raw in [
        &b""[..],
        b"\xff",
        b"[]",
        b"{\"id\":1}",
        b"{\"id\":1,\"command\":\"status\",\"x\":1}",
    ] {
        let reply: Value = serde_json::from_slice(&handle(&site, &tester(), raw)).unwrap();
        assert_eq!(reply["error"]["code"], "bad-request", "{reply}");
    }
}

#[test]
fn an_import_loads_what_is_right_and_names_what_is_not() {
    let site = Site::new();
    let secrets = |hash| {
        derive(hash, "pass word", &[9; 16], 4_096)
            .unwrap()
            .text()
            .to_string()
    };
    let (sha1, sha256) = (secrets(ScramHash::Sha1), secrets(ScramHash::Sha256));
    let lines: Vec<String> = [
        "one@a.example pass word".to_owned(),
        format!("two@b.example {sha256}"),
        format!("three@a.example {sha1} {sha256}"),
        "four@a.example".to_owned(),
        "five@c.example pw".to_owned(),
        "@a.example pw".to_owned(),
        "six@a.example {SCRAM-SHA-256}4096,x,y,z".to_owned(),
        "one@a.example again".to_owned(),
        "seven@a.example\tpw\r".to_owned(),
    ]
    .into();
    let problems = site.import(&lines);
    let numbers: Vec<u64> = problems.iter().map(|p| p.0).collect();
    assert_eq!(numbers, [4, 5, 6, 7, 8], "{problems:?}");
    assert_eq!(problems[4].1, "the account exists already");
    assert!(
        !problems.iter().any(|p| p.1.contains("pw")),
        "a password is shown: {problems:?}"
    );
    // A space belongs to the password, and secrets are taken as they are.
    assert_eq!(
        site.keys("two@b.example"),
        [sha256.parse::<xmpp::scram::ScramKeys>().unwrap()]
    );
    assert_eq!(site.keys("three@a.example").len(), 2);
    let one = site
        .keys("one@a.example")
        .into_iter()
        .find(|k| k.hash == ScramHash::Sha256);
    assert_eq!(
        one.unwrap(),
        derive(ScramHash::Sha256, "pass word", &[7; 16], 4_096).unwrap()
    );
    assert_eq!(
        site.all("user list").0.len(),
        4,
        "one, two, three and seven"
    );
}

#[test]
fn a_reply_never_outgrows_a_frame() {
    // A problem with every line of the largest import, each as wordy as can be.
    let site = Site::new();
    for line in [
        "no-space".to_owned(),
        format!("\u{1}{}@a.example x", "\u{1}".repeat(180)),
        format!("x@{} x", "long.".repeat(40)),
        format!("{} x", "\u{1F600}".repeat(50)),
    ] {
        let lines = vec![line; 500];
        assert_eq!(site.import(&lines).len(), 500);
    }
    let more: Vec<Value> = (0..501).map(|n| json!([n, "x"])).collect();
    assert_eq!(
        site.code("user import", json!({"lines": more})),
        "bad-request"
    );
    // Resources are the clients' choice.
    for id in 1..=700 {
        let resource = "\"".repeat(1_023);
        site.bind(
            id,
            &format!("{}{id}@a.example/{resource}", "l".repeat(1_000)),
        );
    }
    let (rows, pages) = site.all("session list");
    assert!(pages > 2, "{pages}");
    let ids: Vec<String> = rows
        .iter()
        .map(|r| r[6].as_str().unwrap().to_owned())
        .collect();
    let want: Vec<String> = (1..=700).map(|id| id.to_string()).collect();
    assert_eq!(ids, want);
}

#[test]
fn lists_page_through_everything_once() {
    let site = Site::new();
    for n in 0..3 {
        let lines: Vec<String> = (0..400)
            .map(|i| format!("user{:04}@{}.example {{SCRAM-SHA-1}}4096,AAAA,AAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAA=", n * 400 + i, if n == 2 { "b" } else { "a" }))
            .collect();
        assert_eq!(site.import(&lines), []);
    }
    let (rows, pages) = site.all("user list");
    assert_eq!((rows.len(), pages), (1_200, 3));
    let mut names: Vec<&str> = rows.iter().map(|r| r[0].as_str().unwrap()).collect();
    names.dedup();
    assert_eq!(names.len(), 1_200);
    let answer = site.ok("user list", json!({"domain": "b.example"}));
    assert_eq!(answer["rows"].as_array().unwrap().len(), 400);
    assert!(answer.get("next").is_none());
    // Accounts of a domain that was taken out of the configuration are still listed.
    let mut site = site;
    site.domains = vec!["b.example".into()];
    assert_eq!(site.all("user list").0.len(), 1_200);
}

#[test]
fn sessions_are_ended_all_or_one() {
    let site = Site::new();
    for (id, resource) in ["phone", "desk", "a/b"].iter().enumerate() {
        site.bind(id as u64 + 1, &format!("alice@a.example/{resource}"));
    }
    site.bind(9, "bob@a.example/x");
    let mine = site.ok("session list", json!({"jid": "alice@a.example"}));
    assert_eq!(mine["rows"].as_array().unwrap().len(), 3);
    let kick = |jid: &str| site.ok("session kick", json!({"jid": jid}))["text"].clone();
    assert_eq!(kick("alice@a.example/a/b"), "1 session ended");
    assert_eq!(kick("alice@a.example"), "2 sessions ended");
    assert_eq!(site.all("session list").0.len(), 1);
}

#[test]
fn muxes_and_numbers_are_tables() {
    let site = Site::new();
    assert_eq!(site.all("mux list").0.len(), 1);
    assert_eq!(
        site.ok("status", json!({}))["rows"],
        json!([["server", "main"], ["accounts", 1]])
    );
}

#[test]
fn every_command_needs_a_right_and_what_only_reads_needs_less() {
    use Right::{AdminRead, AdminUsers};
    for command in COMMANDS {
        assert!(
            !command.rights.is_empty(),
            "{} needs no right",
            command.name
        );
        assert!(
            command.is_allowed(|r| r == Right::Admin),
            "{}",
            command.name
        );
        assert!(
            !command.is_allowed(|r| r == Right::Login),
            "{}",
            command.name
        );
        let reads = command.is_allowed(|r| r == AdminRead);
        // It may try a password, which is no matter of who only reads.
        let guesses = command.name == "directory test";
        assert_eq!(reads, !command.changes && !guesses, "{}", command.name);
        let alerts = command.is_allowed(|r| r == Right::SendAlert);
        let says = ["alert", "motd", "welcome"];
        let says = says.contains(&command.name.split(' ').next().unwrap());
        assert_eq!(alerts, says, "{}", command.name);
    }
    let mut site = Site::new();
    for (rights, name, allowed) in [
        (&[][..], "status", false),
        (&[AdminRead][..], "status", true),
        (&[AdminRead][..], "user list", true),
        (&[AdminRead][..], "user del", false),
        (&[AdminUsers][..], "user del", true),
        (&[AdminUsers][..], "mux list", false),
        (&[Right::Admin][..], "mux list", true),
    ] {
        site.rights = rights.to_vec();
        let args = json!({"jid": "nobody@a.example"});
        let result = run(&site, &carol(), name, args.as_object().unwrap());
        let forbidden = result.is_err_and(|e| e.code == "forbidden");
        assert_eq!(forbidden, !allowed, "{rights:?} {name}");
    }
}

#[test]
fn what_is_done_and_what_is_refused_is_written_down_without_secrets() {
    let mut site = Site::new();
    let long = "x".repeat(1_000);
    let lines = json!([[1, "a@b hidden"], [2, "c@d hidden"]]);
    for (name, args) in [
        (
            "user add",
            json!({"jid": "romeo@a.example", "password": "hidden"}),
        ),
        (
            "user add",
            json!({"jid": "romeo@a.example", "password": "hidden"}),
        ),
        ("user import", json!({"lines": lines})),
        ("user show", json!({"jid": long})),
        ("fly", json!({"password": ["hidden"]})),
    ] {
        let _ = site.ask(name, args);
    }
    let args = json!({"jid": "romeo@a.example"});
    let _ = run(&site, &carol(), "user del", args.as_object().unwrap());
    let lines = std::mem::take(&mut *site.audited.lock().unwrap());
    let seen: Vec<(&str, &str)> = lines
        .iter()
        .map(|l| {
            (
                l["command"].as_str().unwrap(),
                l["result"].as_str().unwrap(),
            )
        })
        .collect();
    let want = [
        ("user add", "begun"),
        ("user add", "done"),
        ("user add", "begun"),
        ("user add", "exists"),
        ("user import", "begun"),
        ("user import", "done"),
        ("user show", "bad-request"),
        ("fly", "bad-request"),
        ("user del", "forbidden"),
    ];
    assert_eq!(seen, want);
    assert!(!lines.iter().any(|l| l.to_string().contains("hidden")));
    assert!(!lines.iter().any(|l| l.to_string().contains(&long)));
    assert_eq!(
        lines[0]["args"],
        json!({"jid": "romeo@a.example", "password": "(not shown)"})
    );
    assert_eq!(lines[4]["args"], json!({"lines": "(2 not shown)"}));
    let last = lines.last().unwrap();
    assert_eq!(last["who"], "account:carol@a.example");
    assert_eq!(last["from"], "192.0.2.7");
    assert_eq!(last["time"], "2023-11-14T22:13:20Z");

    // What cannot be written down is not done; what changes nothing is answered all the same.
    site.audit_is_full = true;
    let deleted = site.code("user del", json!({"jid": "romeo@a.example"}));
    assert_eq!(deleted, "unavailable");
    assert!(!site.keys("romeo@a.example").is_empty());
    assert_eq!(site.all("user list").0.len(), 1);
}

#[test]
fn rights_come_from_the_socket_the_certificate_or_the_policy() {
    let text = "[[rule]]\nallow = \"admin-users\"\nusers = [\"carol@a\", \"mallory@a\"]\n\
                [[rule]]\nallow = \"admin\"\nusers = [\"root@a\"]\n\
                [[rule]]\ndeny = \"login\"\nusers = [\"mallory@a\"]\n\
                [[rule]]\nallow = \"login\"\neveryone = true\n";
    let policy = Policy::parse(text, std::path::Path::new("p")).unwrap();
    let listed = [("monitoring", &[Right::AdminRead][..])];
    let account = |jid| Door::Account(BareJid::parse(jid).unwrap());
    let certificate = |name: &str| Door::Certificate(name.into());
    for (door, rights) in [
        (Door::Socket, "aru"),
        (certificate("alice"), "aru"),
        (certificate("monitoring"), "r"),
        (account("root@a"), "aru"),
        (account("carol@a"), "u"),
        // Who may not log in may not administer.
        (account("mallory@a"), ""),
        (account("nobody@a"), ""),
        (account("root@b"), ""),
    ] {
        let caller = Caller {
            door,
            from: String::new(),
        };
        let found: String = [
            ('a', Right::Admin),
            ('r', Right::AdminRead),
            ('u', Right::AdminUsers),
        ]
        .into_iter()
        .filter(|(_, right)| grants(&caller, *right, &policy, &|_, _| Some(false), listed))
        .map(|(letter, _)| letter)
        .collect();
        assert_eq!(found, rights, "{caller:?}");
    }
}

#[test]
fn the_commands_about_policy_configuration_and_headlines() {
    let site = Site::new();
    site.ok(
        "user add",
        json!({"jid": "romeo@a.example", "password": "x"}),
    );
    let jid = json!({"jid": "romeo@a.example"});
    let disabled = |site: &Site| site.all("user list").0[0][2].clone();
    site.ok("user disable", jid.clone());
    assert_eq!(disabled(&site), true);
    site.ok("user enable", jid);
    assert_eq!(disabled(&site), false);
    let nobody = json!({"jid": "nobody@a.example"});
    assert_eq!(site.code("user disable", nobody), "not-found");

    site.bind(1, "romeo@a.example/phone");
    site.bind(2, "juliet@b.example/desk");
    let alert = |to: &str| site.ok("alert", json!({"to": to, "text": "Fire"}))["text"].clone();
    assert_eq!(alert("all"), "sent to 2 resources");
    assert_eq!(alert("romeo@a.example"), "sent to 1 resource");
    let group = |members: &[&str]| {
        let jid = |m: &&str| BareJid::parse(m).unwrap();
        crate::event::AlertTo::Group(std::sync::Arc::new(directory::population::Group {
            directory: "corp".into(),
            name: "lovers".into(),
            title: "Lovers".into(),
            in_rosters: false,
            members: members.iter().map(jid).collect(),
        }))
    };
    let both = group(&["juliet@b.example", "romeo@a.example"]);
    assert_eq!(site.alert(&both, "", "x").unwrap(), 2);
    assert_eq!(
        site.alert(&group(&["juliet@b.example"]), "", "x").unwrap(),
        1
    );
    for (args, code) in [
        (json!({"to": "staff", "text": "x"}), "not-found"),
        (json!({"to": "all", "text": " "}), "bad-request"),
        (json!({"to": "all", "text": "x".repeat(8_001)}), "too-long"),
        (json!({"to": "x@other.example", "text": "x"}), "bad-request"),
        (json!({"to": "all"}), "bad-request"),
    ] {
        assert_eq!(site.code("alert", args.clone()), code, "{args}");
    }

    let test_of = |jid, right| site.ask("policy test", json!({"jid": jid, "right": right}));
    let test = |right| test_of("romeo@a.example", right);
    // Nobody has a right; what the rules say of the address is said all the same.
    for (jid, code, says) in [
        (
            "nobody@a.example",
            "not-found",
            "there is no account nobody@a.example (line 0 of the policy allows",
        ),
        (
            "romeo@other.example",
            "bad-request",
            "\"other.example\" is not served here (line 0",
        ),
        ("romeo", "bad-request", "an account is name@domain (line 0"),
    ] {
        let error = test_of(jid, "login")["error"].clone();
        assert_eq!(error["code"], code, "{jid}");
        assert!(
            error["text"].as_str().unwrap_or_default().contains(says),
            "{error}"
        );
    }
    let rows = test("login")["ok"]["rows"].clone();
    assert_eq!(rows, json!([["romeo@a.example", "login", true, 0, false]]));
    let rows = test("admin")["ok"]["rows"].clone();
    assert_eq!(
        rows,
        json!([["romeo@a.example", "admin", false, null, false]])
    );
    assert_eq!(test("fly")["error"]["code"], "bad-request");

    let rows = site.ok("config show", json!({}))["rows"].clone();
    let want = json!([["a.b", "1", "default"], ["a.c", "1", "imserver.toml:3"]]);
    assert_eq!(rows, want);
    assert_eq!(site.code("config reload", json!({})), "bad-request");
}

#[test]
fn the_commands_about_directories() {
    let site = Site::new();
    site.ask(
        "user add",
        json!({"jid": "ann@a.example", "password": "pencil"}),
    );
    let steps = |args: Value| -> Vec<(String, String)> {
        let reply = site.ask("directory test", args);
        let rows = reply["ok"]["rows"].as_array().expect("a table").clone();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        rows.iter().map(|r| (text(&r[0]), text(&r[1]))).collect()
    };
    let has = |steps: &[(String, String)], what: &str, answer: &str| {
        assert!(
            steps.iter().any(|(w, a)| w == what && a.contains(answer)),
            "{what}: {answer} in {steps:?}"
        );
    };
    let right = steps(json!({"jid": "ann@a.example", "password": "pencil"}));
    has(&right, "directory", "local");
    has(&right, "account", "ann@a.example");
    has(&right, "password", "right");
    has(&right, "policy", "may log in");
    let wrong = steps(json!({"jid": "ann@a.example", "password": "pencils"}));
    has(&wrong, "password", "wrong");
    let nobody = steps(json!({"jid": "bob@a.example"}));
    has(&nobody, "account", "none for the login name");
    for args in [
        json!({}),
        json!({"jid": "a.example"}),
        json!({"jid": "x@elsewhere"}),
    ] {
        assert_eq!(
            site.ask("directory test", args)["error"]["code"],
            "bad-request"
        );
    }
    // What is in the store is not cached.
    assert_eq!(site.ask("cache stats", json!({}))["ok"]["rows"], json!([]));
    assert!(site.ask("cache flush", json!({}))["ok"]["text"].is_string());
    assert!(site.ask("cache flush", json!({"jid": "ann@a.example"}))["ok"]["text"].is_string());
    assert_eq!(*site.sweeps.lock().unwrap(), 2);
    assert_eq!(
        site.ask("cache flush", json!({"jid": "nonsense@"}))["error"]["code"],
        "bad-request"
    );
}

/// Whoever sets an administrator's password is that administrator.
#[test]
fn nobody_changes_an_account_that_has_rights_they_lack() {
    let mut site = Site::new();
    for name in ["boss", "reader", "carol", "other", "romeo"] {
        let jid = format!("{name}@a.example");
        site.ok("user add", json!({"jid": jid, "password": "old"}));
    }
    site.bind(1, "boss@a.example/desk");
    let text = "[[rule]]\nallow = \"admin\"\nusers = [\"boss@a.example\", \"ghost@a.example\"]\n\
                [[rule]]\nallow = \"admin-read\"\nusers = [\"reader@a.example\"]\n\
                [[rule]]\nallow = \"admin-users\"\nusers = [\"carol@a.example\", \"other@a.example\"]\n";
    site.policy = Policy::parse(text, std::path::Path::new("p")).unwrap();
    site.rights = vec![Right::AdminUsers];
    let code = |site: &Site, command: &str, args: &Value| {
        let request = json!({"id": 7, "command": command, "args": args}).to_string();
        let reply: Value =
            serde_json::from_slice(&handle(site, &carol(), request.as_bytes())).unwrap();
        reply["error"]["code"].as_str().unwrap_or("ok").to_owned()
    };
    let commands = [
        "user passwd",
        "user disable",
        "user enable",
        "session kick",
        "user add",
        "directory test",
        "user del",
    ];
    for who in ["boss", "reader", "ghost"] {
        let before = site.keys(&format!("{who}@a.example"));
        let args = json!({"jid": format!("{who}@a.example"), "password": "new"});
        for command in commands {
            assert_eq!(code(&site, command, &args), "forbidden", "{command} {who}");
        }
        assert_eq!(site.keys(&format!("{who}@a.example")), before, "{who}");
    }
    let full = json!({"jid": "boss@a.example/desk"});
    assert_eq!(code(&site, "session kick", &full), "forbidden");
    // Without a password it tells what the directory knows, and that is allowed.
    let boss = json!({"jid": "boss@a.example"});
    assert_eq!(code(&site, "directory test", &boss), "ok");
    let lines = json!({"lines": [[1, "ghost@a.example pw"], [2, "new@a.example pw"]]});
    assert_eq!(code(&site, "user import", &lines), "ok");
    assert!(site.keys("ghost@a.example").is_empty());
    assert!(!site.keys("new@a.example").is_empty());
    // Who has no more than they have is theirs to change.
    for who in ["romeo", "carol", "other"] {
        let args = json!({"jid": format!("{who}@a.example"), "password": "new"});
        for command in ["user passwd", "user disable", "user enable", "user del"] {
            assert_eq!(code(&site, command, &args), "ok", "{command} {who}");
        }
    }
    // Whoever has the right may.
    site.rights = vec![Right::AdminUsers, Right::AdminRead];
    let reader = json!({"jid": "reader@a.example", "password": "new"});
    assert_eq!(code(&site, "user passwd", &reader), "ok");
    // As long as nobody knows who is in the group, it may be anybody.
    let text = "[[rule]]\nallow = \"admin\"\ngroups = [\"unread\"]\n";
    site.policy = Policy::parse(text, std::path::Path::new("p")).unwrap();
    assert_eq!(code(&site, "user passwd", &reader), "forbidden");
}
