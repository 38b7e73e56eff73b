//! Who may do what to whom, and what is written down of it.

use super::*;

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
