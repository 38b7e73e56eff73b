//! Accounts come, change and go, one by one and by the file.

use super::*;
use xmpp::scram::{ScramHash, derive};

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
