//! Administration where people are in an LDAP directory.

use super::ldap::{prepared, started};
use super::remote_admin::by_account;
use isthmus_tests::harness::Site;
use isthmus_tests::slapd::Slapd;

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
    let site = started(site);
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
