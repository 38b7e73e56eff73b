//! What is wrong is refused with a reason, and what is long comes in pages.

use super::*;

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
