//! The commands about people and about what the server says, as `imadmin` asks for them.

use super::*;

fn rows(answer: &Value) -> Vec<Vec<Value>> {
    let rows = answer["rows"].as_array().unwrap().iter();
    rows.map(|row| row.as_array().unwrap().clone()).collect()
}

#[test]
fn people_are_listed_by_how_they_are_and_counted() {
    let site = Site::new();
    let jid = |text: &str| BareJid::parse(text).unwrap();
    let add = |text: &str| store::Write::AccountPut {
        account: store::Account {
            jid: jid(text),
            keys: Vec::new(),
            disabled: false,
            created_ms: 1,
        },
        mode: store::PutMode::Create,
    };
    let everybody = ["ann@a.example", "bob@a.example", "cat@b.example"];
    site.write(everybody.map(add).to_vec()).unwrap();
    // Somebody of a directory elsewhere.
    site.write(vec![store::Write::OverlayDisabled {
        jid: jid("dan@a.example"),
        disabled: true,
    }])
    .unwrap();
    site.ok("user disable", json!({"jid": "bob@a.example"}));
    for (id, session) in ["ann@a.example/x", "ann@a.example/y", "cat@b.example/x"]
        .iter()
        .enumerate()
    {
        site.bind(id as u64 + 1, session);
    }
    site.sessions.lock().unwrap()[1].priority = Some(0);
    for (args, jids) in [
        (json!({}), &everybody[..]),
        (
            json!({"state": "disabled"}),
            &["bob@a.example", "dan@a.example"],
        ),
        (
            json!({"state": "disabled", "after": "bob@a.example"}),
            &["dan@a.example"],
        ),
        (json!({"state": "disabled", "domain": "b.example"}), &[]),
        (
            json!({"state": "online"}),
            &["ann@a.example", "cat@b.example"],
        ),
        (json!({"state": "online", "limit": 1}), &["ann@a.example"]),
        (json!({"state": "active"}), &["ann@a.example"]),
        (
            json!({"state": "idle", "domain": "b.example"}),
            &["cat@b.example"],
        ),
    ] {
        let answer = site.ok("user list", args.clone());
        let found = rows(&answer);
        let found: Vec<&str> = found.iter().map(|r| r[0].as_str().unwrap()).collect();
        let jids: Vec<&str> = match args.get("state") {
            // Who is elsewhere is known here for the log-in that is refused.
            None => [
                "ann@a.example",
                "bob@a.example",
                "dan@a.example",
                "cat@b.example",
            ]
            .into(),
            Some(_) => jids.into(),
        };
        assert_eq!(found, jids, "{args}");
        let more = args.get("limit").map(|_| "ann@a.example");
        assert_eq!(answer.get("next").and_then(Value::as_str), more, "{args}");
    }
    for args in [
        json!({"state": "asleep"}),
        json!({"limit": 0}),
        json!({"limit": "x"}),
    ] {
        assert_eq!(site.code("user list", args), "bad-request");
    }
    let counts = rows(&site.ok("user count", json!({})));
    assert_eq!(
        counts,
        [
            [
                json!("a.example"),
                json!(2),
                json!(2),
                json!(1),
                json!(1),
                json!(0)
            ],
            [
                json!("b.example"),
                json!(1),
                json!(0),
                json!(1),
                json!(0),
                json!(1)
            ],
        ]
    );
    let one = json!({"domain": "b.example"});
    assert_eq!(rows(&site.ok("user count", one)).len(), 1);
    assert_eq!(
        site.code("user count", json!({"domain": "c.example"})),
        "bad-request"
    );
}

#[test]
fn a_roster_is_paged_and_only_of_who_is_there() {
    let site = Site::new();
    let ann = json!({"jid": "ann@a.example", "password": "x"});
    site.ok("user add", ann);
    let owner = BareJid::parse("ann@a.example").unwrap();
    let put = |n: u64| store::Write::Roster {
        owner: owner.clone(),
        version: n + 1,
        put: Some(store::RosterItem {
            jid: BareJid::parse(&format!("c{n:04}@b.example")).unwrap(),
            name: None,
            subscription: store::Subscription::To,
            ask: true,
            approved: false,
            groups: vec!["A".into(), "B".into()],
            version: n + 1,
        }),
        remove: None,
    };
    site.write((0..700).map(put).collect()).unwrap();
    let page = site.ok("user roster", json!({"jid": "ann@a.example"}));
    assert_eq!(rows(&page).len(), 500);
    let rest = json!({"jid": "ann@a.example", "after": page["next"]});
    let rest = site.ok("user roster", rest);
    assert_eq!(rows(&rest).len(), 200);
    assert!(rest.get("next").is_none());
    assert_eq!(
        json!(rows(&rest)[199]),
        json!(["c0699@b.example", null, "to", true, ["A", "B"]])
    );
    assert_eq!(
        site.code("user roster", json!({"jid": "bob@a.example"})),
        "not-found"
    );
}

#[test]
fn what_the_server_says_is_set_shown_and_removed() {
    let site = Site::new();
    site.bind(1, "ann@a.example/x");
    for (what, said) in [("motd", "set, and sent to 1 resource"), ("welcome", "set")] {
        let command = |verb: &str| format!("{what} {verb}");
        for verb in ["show", "del"] {
            assert_eq!(site.code(&command(verb), json!({})), "not-found");
        }
        for (text, code) in [("  ", "bad-request"), (&*"x".repeat(8_001), "too-long")] {
            assert_eq!(site.code(&command("set"), json!({"text": text})), code);
        }
        let args = json!({"text": "Hello", "subject": "S"});
        assert_eq!(site.ok(&command("set"), args)["text"], said);
        let shown = site.ok(&command("show"), json!({}));
        assert_eq!(
            rows(&shown)[1..],
            [
                [json!("subject"), json!("S")],
                [json!("text"), json!("Hello")]
            ]
        );
        assert_eq!(site.ok(&command("del"), json!({}))["text"], "removed");
    }
    assert_eq!(site.code("motd edit", json!({"text": "x"})), "not-found");
    site.ok("motd set", json!({"text": "x"}));
    assert_eq!(
        site.ok("motd edit", json!({"text": "y"}))["text"],
        "changed"
    );
    assert_eq!(rows(&site.ok("motd show", json!({})))[2][1], "y");
}

#[test]
fn who_is_removed_leaves_no_message_to_the_next_of_that_address() {
    let site = Site::new();
    let ann = BareJid::parse("ann@a.example").unwrap();
    let account = store::Account {
        jid: ann.clone(),
        keys: Vec::new(),
        disabled: false,
        created_ms: 1,
    };
    let mode = store::PutMode::Create;
    let mut writes = vec![store::Write::AccountPut { account, mode }];
    writes.extend((0..5).map(|n| {
        store::Write::Append(store::Append {
            owner: ann.clone(),
            peer: BareJid::parse("bob@a.example").unwrap(),
            origin: None,
            archive: true,
            // One waits for her.
            pending: n == 4,
            time_ms: n,
            outgoing: false,
            payload: "<message/>".into(),
            text: None,
        })
    }));
    site.write(writes).unwrap();
    site.ok("user del", json!({"jid": "ann@a.example"}));
    let left = site.reader.lock().unwrap().some_rows(&ann, 10).unwrap();
    assert_eq!(left, [0u64; 0]);
}
