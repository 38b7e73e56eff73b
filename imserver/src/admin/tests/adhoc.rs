//! Ad-hoc commands over the same site: forms, sessions, rights, and what is written down.

use super::super::adhoc::{ADHOC, ADMIN, Commands, Outcome, PATIENCE, Request, Task};
use super::*;
use std::time::{Duration, Instant};
use xmpp::error::StanzaError;
use xmpp::node::Node;

mod long;

struct Client {
    commands: Commands<u8>,
    site: Site,
    now: Instant,
    drawn: u8,
    /// Tasks are left until `work`.
    leaves_work: bool,
    tasks: Vec<Task>,
}

impl Client {
    fn new(rights: &[Right]) -> Self {
        let mut site = Site::new();
        site.rights = rights.to_vec();
        Self {
            commands: Commands::default(),
            site,
            now: Instant::now(),
            drawn: 0,
            leaves_work: false,
            tasks: Vec::new(),
        }
    }

    fn send(&mut self, resource: &str, attributes: &str, payload: &str) -> Outcome {
        let xml = format!(
            "<command xmlns='http://jabber.org/protocol/commands' {attributes}>{payload}</command>"
        );
        let command = Node::parse(xml.as_bytes(), "").unwrap();
        let from = FullJid::parse(&format!("carol@a.example/{resource}")).unwrap();
        let drawn = &mut self.drawn;
        let mut random = |out: &mut [u8]| {
            *drawn += 1;
            out.fill(*drawn);
        };
        let request = Request {
            from: &from,
            domain: "a.example",
            command: &command,
        };
        let (now, asks) = (self.now, 0);
        self.commands
            .handle(now, &self.site, asks, &request, &mut random);
        if !self.leaves_work {
            self.work();
        }
        let mut answers = self.commands.poll_answers();
        assert!(answers.len() <= 1, "{answers:?}");
        let waits = Outcome::Error(StanzaError::RemoteServerTimeout, None, String::new());
        answers.pop().map_or(waits, |(_, outcome)| outcome)
    }

    /// Does the tasks there are.
    fn work(&mut self) {
        self.tasks.extend(self.commands.poll_tasks());
        for task in self.tasks.drain(..) {
            let result = task.run(&self.site);
            self.commands.finished(self.now, task.id, result);
        }
    }

    fn ok(&mut self, attributes: &str, payload: &str) -> Node {
        match self.send("desk", attributes, payload) {
            Outcome::Reply(command) => command,
            other => panic!("{attributes} {payload}: {other:?}"),
        }
    }

    #[track_caller]
    fn wrong(&mut self, attributes: &str, payload: &str) -> String {
        match self.send("desk", attributes, payload) {
            Outcome::Error(condition, application, _) => {
                format!("{condition} {}", application.unwrap_or("-"))
            }
            other => panic!("{attributes} {payload}: {other:?}"),
        }
    }

    /// Executes, and returns the session id.
    fn begin(&mut self, name: &str) -> String {
        let command = self.ok(&format!("node='{ADMIN}#{name}' action='execute'"), "");
        assert_eq!(command.attr("status"), Some("executing"));
        let actions = command.child("actions", xmpp::ns::COMMANDS).unwrap();
        assert_eq!(actions.attr("execute"), Some("complete"));
        assert!(command.child("x", xmpp::ns::DATA_FORMS).is_some());
        command.attr("sessionid").unwrap().to_owned()
    }

    fn run(&mut self, name: &str, fields: &[(&str, &str)]) -> Result<Node, String> {
        let id = self.begin(name);
        let attributes = format!("node='{ADMIN}#{name}' sessionid='{id}'");
        match self.send("desk", &attributes, &submit(fields)) {
            Outcome::Reply(command) => {
                assert_eq!(command.attr("status"), Some("completed"));
                Ok(command)
            }
            Outcome::Error(condition, _, text) => Err(format!("{condition}: {text}")),
        }
    }
}

fn submit(fields: &[(&str, &str)]) -> String {
    let mut xml = String::from("<x xmlns='jabber:x:data' type='submit'>");
    for (var, values) in fields {
        let values: String = values
            .split(' ')
            .map(|v| format!("<value>{v}</value>"))
            .collect();
        xml.push_str(&format!("<field var='{var}'>{values}</field>"));
    }
    xml + "</x>"
}

fn note(command: &Node) -> (String, String) {
    let note = command.child("note", xmpp::ns::COMMANDS).unwrap();
    (
        note.attr("type").unwrap().to_owned(),
        note.text().into_owned(),
    )
}

fn values(command: &Node, var: &str) -> Vec<String> {
    let form = command.child("x", xmpp::ns::DATA_FORMS).unwrap();
    let form = xmpp::form::Form::parse(form).unwrap();
    form.values(var).to_vec()
}

#[test]
fn every_command_of_the_set_does_what_imadmin_does() {
    let mut c = Client::new(&[Right::Admin]);
    let password = [
        ("accountjid", "romeo@a.example"),
        ("password", "x"),
        ("password-verify", "x"),
    ];
    let added = c.run("add-user", &password).unwrap();
    assert_eq!(
        note(&added),
        ("info".into(), "romeo@a.example added".into())
    );
    assert_eq!(
        c.run("add-user", &password).unwrap_err(),
        "conflict: the account exists already"
    );
    let differ = [
        ("accountjid", "r@a.example"),
        ("password", "x"),
        ("password-verify", "y"),
    ];
    assert!(
        c.run("add-user", &differ)
            .unwrap_err()
            .starts_with("bad-request")
    );
    let before = c.site.keys("romeo@a.example");
    c.run(
        "change-user-password",
        &[("accountjid", "romeo@a.example"), ("password", "y")],
    )
    .unwrap();
    assert_ne!(c.site.keys("romeo@a.example"), before);
    c.run("disable-user", &[("accountjids", "romeo@a.example")])
        .unwrap();
    assert_eq!(c.site.all("user list").0[0][2], true);
    c.run("reenable-user", &[("accountjids", "romeo@a.example")])
        .unwrap();
    assert_eq!(c.site.all("user list").0[0][2], false);

    c.site.bind(1, "romeo@a.example/phone");
    c.site.bind(2, "romeo@a.example/desk");
    let stats = c
        .run("user-stats", &[("accountjid", "romeo@a.example")])
        .unwrap();
    assert_eq!(values(&stats, "onlineresources"), ["phone", "desk"]);
    assert_eq!(values(&stats, "rostersize"), ["0"]);
    let online = c
        .run("get-online-users-list", &[("max_items", "25")])
        .unwrap();
    assert_eq!(values(&online, "onlineuserjids"), ["romeo@a.example"]);
    let all = c.run("get-registered-users-list", &[]).unwrap();
    assert_eq!(values(&all, "registereduserjids"), ["romeo@a.example"]);
    let sent = c.run("announce", &[("announcement", "Fire")]).unwrap();
    assert_eq!(note(&sent).1, "sent to 2 resources");
    c.run(
        "end-user-session",
        &[("accountjids", "romeo@a.example/phone")],
    )
    .unwrap();
    assert_eq!(c.site.all("session list").0.len(), 1);
    // The numbers need no form.
    let number = c.ok(&format!("node='{ADMIN}#get-registered-users-num'"), "");
    assert_eq!(number.attr("status"), Some("completed"));
    assert_eq!(values(&number, "registeredusersnum"), ["1"]);
    // Some fail: that is said, and the others are done.
    let some = c
        .run(
            "delete-user",
            &[("accountjids", "romeo@a.example nobody@a.example")],
        )
        .unwrap();
    let (kind, text) = note(&some);
    assert_eq!(kind, "error");
    assert!(
        text.contains("romeo@a.example removed") && text.contains("nobody@a.example: there is no"),
        "{text}"
    );
    assert!(
        c.run("delete-user", &[("accountjids", "romeo@a.example")])
            .unwrap_err()
            .starts_with("item-not-found")
    );

    let audited = c.site.audited.lock().unwrap();
    assert!(audited.iter().any(|l| l["command"] == "user add"
        && l["who"] == "account:carol@a.example"
        && l["from"] == "carol@a.example/desk"));
    assert!(
        !audited.iter().any(|l| l.to_string().contains("\"x\"")),
        "a password"
    );
}

#[test]
fn wrong_steps_have_the_errors_of_xep_0050() {
    let mut c = Client::new(&[Right::AdminUsers]);
    let node = |name: &str| format!("node='{ADMIN}#{name}'");
    let add = node("add-user");
    for (attributes, payload, error) in [
        ("node='x'".to_owned(), "", "item-not-found -"),
        (String::new(), "", "item-not-found -"),
        // Not offered: nobody shows a password.
        (node("get-user-password"), "", "item-not-found -"),
        (node("announce"), "", "forbidden -"),
        (
            format!("{add} action='fly'"),
            "",
            "bad-request malformed-action",
        ),
        (
            format!("{add} action='complete'"),
            "",
            "bad-request bad-sessionid",
        ),
        (
            format!("{add} sessionid='none'"),
            "",
            "bad-request bad-sessionid",
        ),
    ] {
        assert_eq!(c.wrong(&attributes, payload), error, "{attributes}");
    }
    let id = c.begin("add-user");
    let with = format!("{add} sessionid='{id}'");
    for (attributes, payload, error) in [
        (
            format!("{with} action='prev'"),
            String::new(),
            "bad-request bad-action",
        ),
        (
            format!("{with} action='fly'"),
            String::new(),
            "bad-request malformed-action",
        ),
        (with.clone(), String::new(), "bad-request bad-payload"),
        (with.clone(), submit(&[]), "bad-request bad-payload"),
        (
            with.clone(),
            submit(&[("accountjid", "@")]),
            "bad-request bad-payload",
        ),
        (
            format!("{} sessionid='{id}'", node("delete-user")),
            String::new(),
            "bad-request bad-sessionid",
        ),
    ] {
        assert_eq!(
            c.wrong(&attributes, &payload),
            error,
            "{attributes} {payload}"
        );
    }
    // Another resource has no part in it, and after a wrong form a right one does.
    assert!(matches!(
        c.send("phone", &with, ""),
        Outcome::Error(StanzaError::BadRequest, Some("bad-sessionid"), _)
    ));
    let fields = [
        ("accountjid", "new@a.example"),
        ("password", "x"),
        ("password-verify", "x"),
    ];
    let done = c.ok(&with, &submit(&fields));
    assert_eq!(done.attr("status"), Some("completed"));
    assert_eq!(
        c.wrong(&with, &submit(&fields)),
        "bad-request bad-sessionid"
    );
    let id = c.begin("delete-user");
    let with = format!("{} sessionid='{id}'", node("delete-user"));
    assert_eq!(
        c.ok(&format!("{with} action='cancel'"), "").attr("status"),
        Some("canceled")
    );
    assert_eq!(c.wrong(&with, ""), "bad-request bad-sessionid");
}

#[test]
fn forms_left_lying_are_bounded_in_time_and_number() {
    let mut c = Client::new(&[Right::Admin]);
    let with = |id: &str| format!("node='{ADMIN}#delete-user' sessionid='{id}' action='cancel'");
    let late = c.begin("delete-user");
    c.now += Duration::from_secs(600);
    assert_eq!(c.wrong(&with(&late), ""), "not-allowed session-expired");
    let ids: Vec<String> = (0..21).map(|_| c.begin("delete-user")).collect();
    assert_eq!(c.wrong(&with(&ids[0]), ""), "bad-request bad-sessionid");
    assert_eq!(c.ok(&with(&ids[1]), "").attr("status"), Some("canceled"));
    assert_eq!(c.ok(&with(&ids[20]), "").attr("status"), Some("canceled"));
    let many = "a@a.example ".repeat(3);
    // The same address three times is one.
    assert!(
        c.run("delete-user", &[("accountjids", many.trim())])
            .unwrap_err()
            .starts_with("item-not-found")
    );
    let many: Vec<String> = (0..101).map(|n| format!("u{n}@a.example")).collect();
    let error = c
        .run("delete-user", &[("accountjids", &many.join(" "))])
        .unwrap_err();
    assert!(error.contains("more than 100"), "{error}");
}

#[test]
fn only_what_somebody_may_run_is_shown() {
    let of = |rights: &str| {
        let text = format!("[[rule]]\nallow = [{rights}]\neveryone = true\n");
        let policy = Policy::parse(&text, std::path::Path::new("p")).unwrap();
        let user = BareJid::parse("carol@a.example").unwrap();
        let rights = crate::policy::Rights::of(&policy, &user, &crate::policy::no_groups);
        ADHOC
            .iter()
            .filter(|c| c.is_allowed(rights))
            .map(|c| c.node)
            .collect::<Vec<_>>()
    };
    assert!(of("\"login\"").is_empty());
    assert_eq!(
        of("\"login\", \"send-alert\""),
        [
            "announce",
            "set-motd",
            "edit-motd",
            "delete-motd",
            "set-welcome",
            "delete-welcome"
        ]
    );
    assert_eq!(of("\"login\", \"admin\"").len(), ADHOC.len());
    let users = of("\"login\", \"admin-users\"");
    assert!(users.contains(&"add-user") && !users.contains(&"announce"));
    let reader = of("\"login\", \"admin-read\"");
    assert!(reader.contains(&"user-stats") && !reader.contains(&"add-user"));
    for adhoc in ADHOC {
        assert!(
            COMMANDS.iter().any(|c| c.name == adhoc.command),
            "{}",
            adhoc.node
        );
    }
}

/// Accounts `u00` and so on.
fn crowd(c: &Client, n: usize) {
    let put = |n| store::Write::AccountPut {
        account: store::Account {
            jid: BareJid::parse(&format!("u{n:02}@a.example")).unwrap(),
            keys: Vec::new(),
            disabled: false,
            created_ms: 1,
        },
        mode: store::PutMode::Create,
    };
    c.site.write((0..n).map(put).collect()).unwrap();
}

#[test]
fn people_and_what_the_server_says_are_looked_at_and_changed() {
    let mut c = Client::new(&[Right::Admin]);
    crowd(&c, 3);
    let who = |n: usize| BareJid::parse(&format!("u{n:02}@a.example")).unwrap();
    let item = store::RosterItem {
        jid: BareJid::parse("juliet@b.example").unwrap(),
        name: Some("Juliet".into()),
        subscription: store::Subscription::Both,
        ask: false,
        approved: false,
        groups: vec!["Friends, old".into()],
        version: 1,
    };
    let facts = store::Activity {
        login_ms: 1_700_000_000_000,
        logout_ms: 1_700_000_001_000,
        ..Default::default()
    };
    c.site
        .write(vec![
            store::Write::Roster {
                owner: who(0),
                version: 1,
                put: Some(item),
                remove: None,
            },
            store::Write::Activity {
                owner: who(0),
                facts,
            },
        ])
        .unwrap();
    let roster = c
        .run("get-user-roster", &[("accountjids", "u00@a.example")])
        .unwrap();
    let form = roster.child("x", xmpp::ns::DATA_FORMS).unwrap();
    let query = form.child("query", xmpp::ns::ROSTER).unwrap();
    let item = query.children().next().unwrap();
    assert_eq!(item.attr("jid"), Some("juliet@b.example"));
    assert_eq!(item.attr("subscription"), Some("both"));
    assert_eq!(item.children().next().unwrap().text(), "Friends, old");
    assert_eq!(
        values(&roster, "roster"),
        ["Juliet, juliet@b.example: both, Friends, old"]
    );
    let two = [("accountjids", "u00@a.example u01@a.example")];
    assert!(c.run("get-user-roster", &two).is_err());
    let times = c.run("get-user-lastlogin", &two).unwrap();
    assert_eq!(values(&times, "lastlogin"), ["2023-11-14T22:13:20Z", ""]);
    assert_eq!(note(&times).1, "u01@a.example: no log-in is known");
    let stats = c.run("user-stats", &[("accountjid", "u00@a.example")]);
    let stats = stats.unwrap();
    assert_eq!(values(&stats, "lastlogout"), ["2023-11-14T22:13:21Z"]);
    assert_eq!(values(&stats, "rostersize"), ["1"]);

    c.site.bind(1, "u01@a.example/desk");
    c.site.sessions.lock().unwrap()[0].priority = Some(0);
    c.site.bind(2, "u02@a.example/desk");
    c.run("disable-user", &[("accountjids", "u00@a.example")])
        .unwrap();
    for (what, node, var, jids) in [
        (
            "disabled",
            "get-disabled-users-list",
            "disableduserjids",
            &["u00@a.example"][..],
        ),
        (
            "online",
            "get-online-users-list",
            "onlineuserjids",
            &["u01@a.example", "u02@a.example"],
        ),
        (
            "active",
            "get-active-users",
            "activeuserjids",
            &["u01@a.example"],
        ),
        (
            "idle",
            "get-idle-users",
            "activeuserjids",
            &["u02@a.example"],
        ),
    ] {
        let page = c.run(node, &[]).unwrap();
        assert_eq!(values(&page, var), jids, "{what}");
        let number = c.ok(&format!("node='{ADMIN}#get-{what}-users-num'"), "");
        let number = values(&number, &format!("{what}usersnum"));
        assert_eq!(number, [jids.len().to_string()], "{what}");
    }

    let gone = |c: &mut Client, what: &str| c.send("desk", &format!("node='{ADMIN}#{what}'"), "");
    assert!(matches!(
        gone(&mut c, "delete-motd"),
        Outcome::Error(StanzaError::ItemNotFound, ..)
    ));
    assert!(c.run("edit-motd", &[("motd", "x")]).is_err());
    let set = c.run("set-motd", &[("subject", "News"), ("motd", "one two")]);
    assert_eq!(note(&set.unwrap()).1, "set, and sent to 2 resources");
    let motd = c.site.notices().get(Kind::Motd).unwrap().clone();
    assert_eq!((&*motd.subject, &*motd.text), ("News", "one\ntwo"));
    // The form has what it says now.
    let form = c.ok(&format!("node='{ADMIN}#edit-motd'"), "");
    assert_eq!(values(&form, "motd"), ["one", "two"]);
    assert_eq!(values(&form, "subject"), ["News"]);
    c.run("edit-motd", &[("motd", "three")]).unwrap();
    let edited = c.site.notices().get(Kind::Motd).unwrap().clone();
    assert_eq!((edited.number, &*edited.text), (motd.number, "three"));
    assert!(matches!(gone(&mut c, "delete-motd"), Outcome::Reply(_)));
    assert!(c.site.notices().get(Kind::Motd).is_none());
    c.run("set-welcome", &[("welcome", "Hello")]).unwrap();
    let form = c.ok(&format!("node='{ADMIN}#set-welcome'"), "");
    assert_eq!(values(&form, "welcome"), ["Hello"]);
    assert!(matches!(gone(&mut c, "delete-welcome"), Outcome::Reply(_)));
    assert!(c.run("set-motd", &[("motd", " ")]).is_err());
}
