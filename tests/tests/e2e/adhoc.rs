//! Administration with a client of the world: slixmpp's own ad-hoc commands (XEP-0050, XEP-0133), and what people see of it.

use crate::ldap;
use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::slapd::Slapd;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const POLICY: &str = "
[[rule]]
allow = \"admin\"
users = [\"root@localhost\"]
[[rule]]
allow = \"admin-read\"
users = [\"reader@localhost\"]
[[rule]]
allow = \"send-alert\"
users = [\"herald@localhost\"]
[[rule]]
allow = [\"login\", \"save-settings\"]
everyone = true
";

/// Every command there is, and the command of `imadmin` by whose name it stands in the audit log.
const ALL: [(&str, &str); 24] = [
    ("add-user", "user add"),
    ("delete-user", "user del"),
    ("disable-user", "user disable"),
    ("reenable-user", "user enable"),
    ("end-user-session", "session kick"),
    ("change-user-password", "user passwd"),
    ("get-user-roster", "user roster"),
    ("get-user-lastlogin", "user show"),
    ("user-stats", "user show"),
    ("get-registered-users-num", "user count"),
    ("get-disabled-users-num", "user count"),
    ("get-online-users-num", "user count"),
    ("get-active-users-num", "user count"),
    ("get-idle-users-num", "user count"),
    ("get-registered-users-list", "user list"),
    ("get-disabled-users-list", "user list"),
    ("get-online-users-list", "user list"),
    ("get-active-users", "user list"),
    ("get-idle-users", "user list"),
    ("announce", "alert"),
    ("set-motd", "motd set"),
    ("edit-motd", "motd edit"),
    ("delete-motd", "motd del"),
    ("set-welcome", "welcome set"),
];

fn site(accounts: &[&str]) -> Site {
    let accounts: Vec<Account> = accounts.iter().map(|n| Account::new(n)).collect();
    let mut site = Site::start(&Plan::default(), &accounts).unwrap();
    std::fs::write(site.path().join("policy.toml"), POLICY).unwrap();
    site.reload().unwrap();
    site
}

/// Runs steps as `slixmpp_adhoc.py` knows them; what came of each.
#[track_caller]
fn slixmpp(site: &Site, user: &str, steps: &[Value]) -> Vec<Value> {
    let account = Account::new(user);
    let endpoint = site.endpoint(Transport::StartTls);
    let ca = site.scratch("client-ca.pem");
    let stranger = Client::open(&endpoint).unwrap();
    std::fs::write(&ca, stranger.certificate_pem().unwrap()).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join(".venv/bin/python"));
    command
        .arg(here.join("clients/slixmpp_adhoc.py"))
        .args(["localhost", &endpoint.starttls.port().to_string()])
        .arg(format!("{user}@localhost"))
        .arg(&account.password)
        .arg(&ca)
        .arg(json!(steps).to_string());
    let output = run(&mut command).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), steps.len(), "{text}");
    answers
}

fn step(command: &str, fields: Value) -> Value {
    json!({"command": command, "fields": fields})
}

fn last(stages: &Value) -> &Value {
    stages.as_array().and_then(|all| all.last()).unwrap()
}

/// A field of the last stage.
fn field(stages: &Value, var: &str) -> Value {
    last(stages)["fields"][var].clone()
}

fn online(site: &Site, user: &str) -> Client {
    let mut client = site.login(Transport::Plain, &Account::new(user)).unwrap();
    client.available().unwrap();
    client
}

/// The bodies of what has come, up to now, in order.
fn bodies(client: &mut Client) -> Vec<String> {
    client
        .send("<iq type='get' id='now'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    let mut said = Vec::new();
    client
        .element_where("the answer", |e| {
            said.extend(e.body().filter(|_| e.name == "message"));
            e.attr("id") == Some("now")
        })
        .unwrap();
    said
}

fn imadmin(site: &Site, args: &[&str]) -> String {
    let output = run(&mut site.imadmin(args)).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_command_is_shown_and_run_by_who_has_its_right_and_by_nobody_else() {
    let site = site(&["root", "reader", "herald", "romeo"]);
    let mut names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    names.push("delete-welcome");
    let says = |name: &str| name == "announce" || name.contains("motd") || name.contains("welcome");
    let looks = |name: &str| name.starts_with("get-") || name == "user-stats";
    for (user, may) in [
        ("root", (|_| true) as fn(&str) -> bool),
        ("reader", looks),
        ("herald", says),
        ("romeo", |_| false),
    ] {
        let mut steps = vec![json!({"command": "list"})];
        // Nobody cancels what he may not begin; who may looks at the form, and gives up.
        steps.extend(
            names
                .iter()
                .map(|name| json!({"command": name, "fields": {}})),
        );
        let answers = slixmpp(&site, user, &steps);
        let allowed: Vec<&str> = names.iter().copied().filter(|n| may(n)).collect();
        match allowed.is_empty() {
            true => assert_eq!(answers[0], json!([{"error": "item-not-found"}])),
            false => {
                let shown: BTreeSet<&str> = answers[0]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                assert_eq!(shown, allowed.into_iter().collect(), "{user}");
            }
        }
        for (name, stages) in names.iter().zip(&answers[1..]) {
            let refused = stages[0]["error"] == "forbidden";
            assert_eq!(refused, !may(name), "{user} {name}: {stages}");
        }
    }
}

#[test]
fn an_administrator_does_everything_from_a_client_and_it_is_written_down() {
    let site = site(&["root", "juliet"]);
    let mut juliet = online(&site, "juliet");
    let nurse = "<query xmlns='jabber:iq:roster'><item jid='nurse@localhost' name='Nurse'><group>House</group></item></query>";
    juliet.request("set", "r", None, nurse).unwrap();
    let romeo = json!({"accountjids": ["romeo@localhost"]});
    let answers = slixmpp(
        &site,
        "root",
        &[
            step(
                "add-user",
                json!({"accountjid": "romeo@localhost", "password": "first-password", "password-verify": "first-password"}),
            ),
            step(
                "change-user-password",
                json!({"accountjid": "romeo@localhost", "password": "romeo-password"}),
            ),
            step("get-user-lastlogin", romeo.clone()),
            step(
                "get-user-lastlogin",
                json!({"accountjids": ["juliet@localhost"]}),
            ),
            step(
                "get-user-roster",
                json!({"accountjids": ["juliet@localhost"]}),
            ),
            step("user-stats", json!({"accountjid": "juliet@localhost"})),
            step("disable-user", romeo.clone()),
            step("get-disabled-users-num", json!({})),
            step("get-disabled-users-list", json!({"max_items": "25"})),
            step("reenable-user", romeo.clone()),
            step("get-registered-users-num", json!({})),
            step("get-registered-users-list", json!({"max_items": "25"})),
            step("get-online-users-num", json!({})),
            step("get-online-users-list", json!({"max_items": "25"})),
            step("get-active-users-num", json!({})),
            step("get-active-users", json!({"max_items": "25"})),
            step("get-idle-users-num", json!({})),
            step("get-idle-users", json!({"max_items": "25"})),
            step("announce", json!({"announcement": "Soon"})),
            step("set-welcome", json!({"welcome": "Hello"})),
            step("set-motd", json!({"subject": "News", "motd": "First"})),
            step("edit-motd", json!({"motd": "Second"})),
            step("delete-welcome", json!({})),
            step("delete-motd", json!({})),
            step("delete-motd", json!({})),
            step(
                "end-user-session",
                json!({"accountjids": ["juliet@localhost"]}),
            ),
            step("delete-user", romeo),
            step("delete-user", json!({"accountjids": ["romeo@localhost"]})),
        ],
    );
    let [.., motd_again, end, _, deleted_again] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(last(motd_again)["error"], "item-not-found");
    assert_eq!(last(deleted_again)["error"], "item-not-found");
    assert_eq!(last(end)["notes"], json!(["1 session ended"]));
    for stages in &answers[..answers.len() - 4] {
        assert_eq!(last(stages)["status"], "completed", "{stages}");
    }
    assert_eq!(
        last(&answers[2])["notes"],
        json!(["romeo@localhost: no log-in is known"])
    );
    let time = field(&answers[3], "lastlogin").to_string();
    assert!(time.contains("20") && time.contains('Z'), "{time}");
    let roster = field(&answers[4], "roster").to_string();
    assert!(
        roster.contains("Nurse, nurse@localhost: none, House"),
        "{roster}"
    );
    assert_eq!(field(&answers[5], "rostersize"), "1");
    for (n, var, value) in [
        (7, "disabledusersnum", json!("1")),
        (8, "disableduserjids", json!(["romeo@localhost"])),
        (10, "registeredusersnum", json!("3")),
        (
            11,
            "registereduserjids",
            json!(["juliet@localhost", "romeo@localhost", "root@localhost"]),
        ),
        (12, "onlineusersnum", json!("2")),
        (
            13,
            "onlineuserjids",
            json!(["juliet@localhost", "root@localhost"]),
        ),
        (14, "activeusersnum", json!("1")),
        (15, "activeuserjids", json!(["juliet@localhost"])),
        (16, "idleusersnum", json!("1")),
        (17, "activeuserjids", json!(["root@localhost"])),
    ] {
        assert_eq!(field(&answers[n], var), value, "{var}");
    }
    let mut heard = Vec::new();
    let end = loop {
        match juliet.element() {
            Ok(e) => heard.extend(e.body()),
            Err(e) => break e,
        }
    };
    assert_eq!(heard, ["Soon", "First"], "{end}");
    let log = std::fs::read_to_string(site.path().join("data/audit.log")).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (_, command) in ALL.iter().chain(&[("delete-welcome", "welcome del")]) {
        let done = lines.iter().any(|l| {
            l["command"] == *command
                && l["who"] == "account:root@localhost"
                && l["result"] == "done"
        });
        assert!(done, "{command}:\n{log}");
    }
    assert!(!log.contains("-password"), "a password is in the audit log");
}

#[test]
fn long_lists_are_read_in_pages() {
    let site = site(&["root"]);
    let file = site.scratch("people.txt");
    let secret = "{SCRAM-SHA-256}4096,AAAAAAAAAAAAAAAAAAAAAA==,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let people: String = (0..120)
        .map(|n| format!("person{n:03}@localhost {secret}\n"))
        .collect();
    std::fs::write(&file, people).unwrap();
    imadmin(&site, &["user", "import", file.to_str().unwrap()]);
    let all = json!({"max_items": "50"});
    let answers = slixmpp(&site, "root", &[step("get-registered-users-list", all)]);
    let stages = answers[0].as_array().unwrap();
    let jids: Vec<&str> = stages
        .iter()
        .filter_map(|s| s["fields"]["registereduserjids"].as_array())
        .flatten()
        .map(|jid| jid.as_str().unwrap())
        .collect();
    assert_eq!(jids.len(), 121, "{stages:?}");
    assert_eq!(
        (jids[0], jids[120]),
        ("person000@localhost", "root@localhost")
    );
    let actions: Vec<&Value> = stages.iter().map(|s| &s["actions"]).collect();
    assert_eq!(
        actions[1..],
        [
            &json!(["complete", "next"]),
            &json!(["complete", "next", "prev"]),
            &json!(["complete", "prev"]),
            &json!([]),
        ]
    );
}

/// What somebody sees of it: once, at once or at the next log-in, over a restart; a welcome the first time only.
#[test]
fn a_message_of_the_day_comes_once_to_everybody() {
    let mut site = site(&["romeo", "juliet", "herald"]);
    let mut romeo = online(&site, "romeo");
    assert_eq!(bodies(&mut romeo), [""; 0]);
    let said = imadmin(
        &site,
        &["motd", "set", "Maintenance at noon", "--subject", "Today"],
    );
    assert_eq!(said.trim(), "set, and sent to 1 resource");
    assert_eq!(bodies(&mut romeo), ["Maintenance at noon"]);
    // Who was told while online is not told at a later log-in.
    drop(romeo);
    let gone = |site: &Site, who: &str| {
        isthmus_tests::wait::until(std::time::Duration::from_secs(20), || {
            (!imadmin(site, &["session", "list"]).contains(who)).then_some(())
        })
        .unwrap();
    };
    gone(&site, "romeo@");
    let mut romeo = online(&site, "romeo");
    assert_eq!(bodies(&mut romeo), [""; 0]);
    let shown = imadmin(&site, &["user", "show", "romeo@localhost"]);
    assert!(shown.contains("last log-in"), "{shown}");
    let out = shown.lines().find(|l| l.contains("last log-out")).unwrap();
    assert!(out.contains('Z'), "{shown}");

    imadmin(&site, &["welcome", "set", "Welcome to the house"]);
    imadmin(&site, &["motd", "edit", "Maintenance at one"]);
    assert_eq!(bodies(&mut romeo), [""; 0]);
    // The server is killed. Romeo, who stays with his mux, has been told; Juliet comes for the first time.
    site.kill_server();
    site.start_server().unwrap();
    romeo.ping().unwrap();
    let shown = imadmin(&site, &["motd", "show"]);
    assert!(shown.contains("Maintenance at one"), "{shown}");
    let mut juliet = online(&site, "juliet");
    juliet
        .element_where("the welcome", |e| {
            e.body().as_deref() == Some("Welcome to the house")
                && e.attr("from") == Some("localhost")
        })
        .unwrap();
    // It is in the inbox, as any message: before or behind the headline, which does not wait.
    drop(juliet);
    gone(&site, "juliet@");
    let mut juliet = online(&site, "juliet");
    let again = bodies(&mut juliet);
    assert!(
        !again.iter().any(|b| b.contains("Maintenance")),
        "{again:?}"
    );
    romeo
        .send("<presence><priority>-1</priority></presence><presence/>")
        .unwrap();
    assert_eq!(bodies(&mut romeo), [""; 0]);

    // A new one is for all of them; who is away gets it later, unless it is gone by then.
    imadmin(&site, &["motd", "set", "Second"]);
    assert_eq!(bodies(&mut romeo), ["Second"]);
    imadmin(&site, &["motd", "del"]);
    let output = site.imadmin(["motd", "show"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    imadmin(&site, &["welcome", "del"]);
    let mut herald = online(&site, "herald");
    assert_eq!(bodies(&mut herald), [""; 0]);
}

/// Somebody who is asked about in a directory that does not answer: the client is told so in time, and what comes of it is not lost.
#[test]
fn a_command_that_waits_for_a_directory_says_so_and_goes_on() {
    let slapd = Slapd::start(20, 2).unwrap();
    let site = ldap::prepared(&slapd);
    site.set(
        "imserver.toml",
        "[[directory]]",
        "operation_timeout_s",
        "60",
    )
    .unwrap();
    // Who asks for photos would have the connections that are left when it is stopped.
    site.set("imserver.toml", "[[directory]]", "attr_photo", "[]")
        .unwrap();
    let policy = POLICY.replace("root@localhost", "romeo@localhost");
    std::fs::write(site.path().join("policy.toml"), policy).unwrap();
    let site = ldap::started(site);
    let mut romeo = ldap::online(&site, "romeo");
    let ask = |client: &mut Client, id: &str, attributes: &str, form: &str| {
        let command = format!(
            "<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#get-user-lastlogin' {attributes}>{form}</command>"
        );
        let answer = client
            .request("set", id, Some("localhost"), &command)
            .unwrap();
        answer.child("command").unwrap().clone()
    };
    let form = ask(&mut romeo, "form", "", "");
    let session = format!("sessionid='{}'", form.attr("sessionid").unwrap());
    // Juliet has been here, and what is known of her from then has had its time.
    drop(ldap::online(&site, "juliet"));
    slapd.freeze().unwrap();
    let who = "<x xmlns='jabber:x:data' type='submit'><field var='accountjids'><value>u00003@localhost</value><value>juliet@localhost</value></field></x>";
    let waits = ask(&mut romeo, "submit", &session, who);
    assert_eq!(waits.attr("status"), Some("executing"), "{waits}");
    let note = waits.child("note").unwrap().text();
    assert!(note.starts_with("still running"), "{note}");
    // Meanwhile others are answered, and so is who asks again too soon.
    imadmin(&site, &["status"]);
    let next = format!("{session} action='next'");
    let waits = ask(&mut romeo, "again", &next, "");
    assert_eq!(waits.attr("status"), Some("executing"), "{waits}");
    slapd.thaw().unwrap();
    let mut n = 0;
    let done = loop {
        n += 1;
        let answer = ask(&mut romeo, &format!("next{n}"), &next, "");
        if answer.attr("status") != Some("executing") {
            break answer;
        }
    };
    assert_eq!(done.attr("status"), Some("completed"), "{done}");
    let note = done.child("note").unwrap().text();
    assert_eq!(note, "u00003@localhost: no log-in is known");
    let log = std::fs::read_to_string(site.path().join("data/audit.log")).unwrap();
    let shown = log.lines().filter(|l| l.contains("user show")).count();
    assert_eq!(shown, 2, "{log}");
}
