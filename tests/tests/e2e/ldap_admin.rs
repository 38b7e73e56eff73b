//! Administration where people are in an LDAP directory.

use super::ldap::{PATIENCE, online, outcome, prepared, started};
use super::remote_admin::by_account;
use isthmus_tests::harness::{Site, run};
use isthmus_tests::slapd::Slapd;
use isthmus_tests::wait;
use std::io::Write as _;
use std::process::Stdio;

const ADMINISTRATORS: &str = "
[[rule]]
allow = \"admin\"
users = [\"juliet@localhost\", \"expired@localhost\"]
[[rule]]
allow = [\"login\", \"save-settings\", \"search\"]
everyone = true
";

fn audit(site: &Site) -> Vec<serde_json::Value> {
    let log = std::fs::read_to_string(site.path().join("data/audit.log")).unwrap();
    log.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn people_of_a_directory_administer_with_their_own_password() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = prepared(&slapd);
    std::fs::write(site.path().join("policy.toml"), ADMINISTRATORS).unwrap();
    let mut site = started(site);
    for (user, password, code, says) in [
        ("juliet", "juliet-password", 0, "sessions"),
        ("juliet", "wrong-password", 4, "wrong account or password"),
        ("nobody", "nobody-password", 4, "wrong account or password"),
        (
            "expired",
            "expired-password",
            4,
            "wrong account or password",
        ),
        ("romeo", "romeo-password", 4, "no right of an administrator"),
    ] {
        let (found, said) = by_account(&site, &format!("{user}@localhost"), password, &["status"]);
        assert_eq!(found, code, "{user}: {said}");
        assert!(said.contains(says), "{user}: {said}");
    }
    // Who was refused, and why, is in the log; and that they were in the audit log.
    let log = site.server().log();
    for (user, why) in [
        ("juliet", "wrong password"),
        ("nobody", "nobody of this name"),
        ("expired", "the account is disabled"),
        ("romeo", "no right of an administrator"),
    ] {
        let line = |l: &&str| l.contains(&format!("{user}@localhost")) && l.contains(why);
        assert!(log.lines().any(|l| line(&l)), "{user} {why}: {log}");
    }
    let lines = audit(&site);
    for (who, result) in [
        ("account:juliet@localhost", "not-authorized"),
        ("account:nobody@localhost", "not-authorized"),
        ("account:romeo@localhost", "forbidden"),
    ] {
        let fits = |l: &serde_json::Value| {
            l["who"] == who && l["command"] == "log in" && l["result"] == result
        };
        assert!(lines.iter().any(fits), "{who} {result}: {lines:?}");
    }
    assert!(
        !log.contains("-password") && !lines.iter().any(|l| l.to_string().contains("-password"))
    );
    // While the directory is away nobody is refused for a wrong password.
    drop(slapd);
    let (code, said) = by_account(&site, "juliet@localhost", "juliet-password", &["status"]);
    assert!(
        code != 0 && said.contains("directory does not answer"),
        "{code} {said}"
    );
}

/// Exit code and everything said, of the administrator with the certificate.
fn imadmin(site: &Site, args: &[&str], input: &str) -> (i32, String) {
    let mut child = site
        .imadmin(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Who reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.code().unwrap(), said)
}

/// The next holder of a name inherits nothing of the one who was removed.
#[test]
fn what_somebody_left_behind_is_removed() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = started(prepared(&slapd));
    let mut juliet = online(&site, "juliet");
    let vcard = "<vCard xmlns='vcard-temp'><DESC>hers alone</DESC></vCard>";
    juliet.request("set", "v", None, vcard).unwrap();
    let item = "<query xmlns='jabber:iq:roster'><item jid='friend@elsewhere.example'/></query>";
    juliet.request("set", "i", None, item).unwrap();
    drop(juliet);
    let mut romeo = online(&site, "romeo");
    wait::until_true(PATIENCE, "she is offline", || {
        !imadmin(&site, &["session", "list"], "")
            .1
            .contains("juliet")
    });
    romeo.chat("juliet@localhost", "for her alone").unwrap();
    romeo.ping().unwrap();
    let del = ["user", "del", "juliet@localhost"];
    let (code, said) = imadmin(&site, &del, "");
    assert!(
        code == 1 && said.contains("in the directory"),
        "{code} {said}"
    );
    slapd.delete("juliet").unwrap();
    run(&mut site.imadmin(["cache", "flush"])).unwrap();
    assert_eq!(imadmin(&site, &del, "").0, 0);
    let (code, said) = imadmin(&site, &del, "");
    assert!(
        code == 1 && said.contains("no such account"),
        "{code} {said}"
    );
    slapd.add("juliet").unwrap();
    run(&mut site.imadmin(["cache", "flush"])).unwrap();
    let mut other = online(&site, "juliet");
    let roster = super::ldap::roster(&mut other).to_string();
    assert!(!roster.contains("friend@elsewhere.example"), "{roster}");
    let vcard = other.request("get", "g", None, "<vCard xmlns='vcard-temp'/>");
    let vcard = vcard.unwrap().to_string();
    assert!(!vcard.contains("hers alone"), "{vcard}");
    romeo.chat("juliet@localhost", "for the other").unwrap();
    assert_eq!(other.next_body().unwrap(), "for the other");
}

/// What the policy allows is of no use to who is disabled, and an administrator is told.
#[test]
fn a_disabled_account_is_called_so() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = started(prepared(&slapd));
    let test = |name: &str| {
        let (code, said) = imadmin(&site, &["--json", "policy", "test", name, "login"], "");
        assert_eq!(code, 0, "{said}");
        let answer: serde_json::Value = serde_json::from_str(&said).unwrap();
        answer["rows"][0][4].clone()
    };
    assert_eq!(test("romeo@localhost"), false);
    assert_eq!(test("expired@localhost"), true);
    assert_eq!(
        imadmin(&site, &["user", "disable", "romeo@localhost"], "").0,
        0
    );
    assert_eq!(test("romeo@localhost"), true);
    let passwd = &["user", "passwd", "romeo@localhost", "--password-stdin"];
    let (code, said) = imadmin(&site, passwd, "another password\n");
    assert!(
        code == 1 && said.contains("the password is changed there"),
        "{code} {said}"
    );
    let (code, said) = imadmin(&site, &["alert", "romeo@localhost", "hello"], "");
    assert!(
        code == 0 && said.contains("sent to nobody"),
        "{code} {said}"
    );
}

/// Scripts go by the exit code, people by the last line.
#[test]
fn directory_test_says_yes_or_no() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = started(prepared(&slapd));
    let ask = |name: &str, password: &str| {
        let with = ["directory", "test", name, "--password-stdin"];
        let (args, input) = match password {
            "" => (&with[..3], String::new()),
            password => (&with[..], format!("{password}\n")),
        };
        imadmin(&site, args, &input)
    };
    for (name, password, code, says) in [
        ("romeo@localhost", "", 0, "no password was tried"),
        ("romeo", "romeo-password", 0, "logs in with this password"),
        ("romeo@localhost", "wrong", 1, "password: wrong"),
        ("nobody@localhost", "", 1, "nobody logs in as"),
        ("expired@localhost", "", 1, "shadowExpire"),
        ("romeo@elsewhere.example", "", 1, "is not served here"),
    ] {
        let (found, said) = ask(name, password);
        assert_eq!(found, code, "{name} {password}: {said}");
        assert!(said.contains(says), "{name} {password}: {said}");
        assert!(said.matches("verdict").count() <= 1, "{said}");
    }
    let metric = |name: &str| {
        let (_, text) = site.http_get(15233, "/metrics").unwrap();
        let line = text
            .lines()
            .find(|l| l.starts_with(name))
            .map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    assert!(metric("isthmus_directory_server_up{").ends_with("} 1"));
    assert!(metric("isthmus_directory_cache_misses{").contains("directory=\""));
    drop(slapd);
    let (code, said) = ask("juliet@localhost", "juliet-password");
    assert!(metric("isthmus_directory_server_up{").ends_with("} 0"));
    assert_eq!(code, 1, "{said}");
    assert!(
        said.contains("log-ins fail") && said.contains("Connection refused"),
        "{said}"
    );
    assert_eq!(said.matches("verdict").count(), 1, "{said}");
}

/// People do not pay for a wrong place of groups.
#[test]
fn a_wrong_group_base_is_no_outage() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = prepared(&slapd);
    let nowhere = "[\"ou=nowhere,dc=corp,dc=example\"]";
    site.set("imserver.toml", "[[directory]]", "group_base", nowhere)
        .unwrap();
    let mut site = started(site);
    let mut said = String::new();
    wait::until_true(PATIENCE, "what is wrong is said", || {
        said = site.server().log();
        said.contains("the directory gives no groups")
    });
    assert!(
        said.contains("group_base") && said.contains("ou=nowhere"),
        "{said}"
    );
    wait::until_true(PATIENCE, "some more sweeps", || {
        assert_eq!(outcome(&site, "romeo", "romeo-password"), "success");
        slapd.log().matches("ou=nowhere").count() > 5
    });
    let (code, said) = imadmin(&site, &["directory", "test", "romeo"], "");
    assert!(said.contains("group_base"), "{code} {said}");
    let log = site.server().log();
    assert!(!log.contains("no directory server answers"), "{log}");
    assert_eq!(
        log.matches("the directory gives no groups").count(),
        1,
        "{log}"
    );
}

/// A name that is given to somebody else at once, before anybody has seen that it was free.
#[test]
fn another_entry_of_the_same_name_is_another_person() {
    let slapd = Slapd::start(10, 1).unwrap();
    let mut site = started(prepared(&slapd));
    let mut romeo = online(&site, "romeo");
    let item = "<query xmlns='jabber:iq:roster'><item jid='friend@elsewhere.example'/></query>";
    let mut juliet = online(&site, "juliet");
    for client in [&mut romeo, &mut juliet] {
        client.request("set", "i", None, item).unwrap();
    }
    let holders = site.path().join("data/holders");
    wait::until_true(PATIENCE, "who has which name is known", || {
        std::fs::read_to_string(&holders).is_ok_and(|t| t.contains("juliet@localhost"))
    });
    slapd.delete("juliet").unwrap();
    slapd.add("juliet").unwrap();
    juliet.patience = PATIENCE;
    juliet.until_closed().unwrap();
    wait::until_true(PATIENCE, "it is said", || {
        site.server()
            .log()
            .contains("another entry of the directory than before")
    });
    let mut other = online(&site, "juliet");
    let roster = super::ldap::roster(&mut other).to_string();
    assert!(!roster.contains("friend@elsewhere.example"), "{roster}");
    // Nobody else is concerned.
    let roster = super::ldap::roster(&mut romeo).to_string();
    assert!(roster.contains("friend@elsewhere.example"), "{roster}");
}
