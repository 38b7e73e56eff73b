//! The commands about sessions, muxes, policy, configuration, headlines and directories.

use super::*;

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
