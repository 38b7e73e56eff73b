//! Active Directory: people of a real domain controller (Samba) log in, have vCards, and are in each other's rosters.
//!
//! Needs what `install.sh full` installs; the log-in with a ticket also an imserver built with `--features gssapi`. `make
//! test-full` sees to both.

use isthmus_tests::client::{Account, Client, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::kerberos;
use isthmus_tests::samba::{
    BASE, CROWD, GROUPS, JULIET_PASSWORD, PEOPLE, REALM, RangeProxy, SERVICE, Samba,
};
use isthmus_tests::wait;
use isthmus_tests::xml::Xml;

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// It ends with the last test that uses it.
fn shared() -> Arc<Samba> {
    static SHARED: Mutex<Weak<Samba>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let samba = Arc::new(Samba::start().unwrap());
        *shared = Arc::downgrade(&samba);
        samba
    })
}

/// A site whose people are in the domain. `init` as [`Samba::init_args`], then keys of its `[[directory]]`.
fn prepared(init: Vec<String>, keys: &[(&str, &str)]) -> Site {
    let site = Site::init(&Plan {
        plaintext: false,
        embedded: true,
        init,
        ..Plan::default()
    })
    .unwrap();
    for (key, value) in keys {
        site.set("imserver.toml", "[[directory]]", key, value)
            .unwrap();
    }
    // One process answers all of these tests, and some ask it much.
    site.set(
        "imserver.toml",
        "[[directory]]",
        "operation_timeout_s",
        "60",
    )
    .unwrap();
    site
}

/// Answers live a second, and everybody is looked at as often.
fn forgetful(site: Site) -> Site {
    for (key, value) in [("ttl_s", "1"), ("negative_ttl_s", "1")] {
        site.set("imserver.toml", "[directory_cache]", key, value)
            .unwrap();
    }
    site
}

fn started(mut site: Site) -> Site {
    site.start_server().unwrap();
    site.await_clients().unwrap();
    site
}

fn account(user: &str, password: &str) -> Account {
    Account {
        user: user.into(),
        password: password.into(),
    }
}

/// `success`, or the condition of the failure.
fn outcome(site: &Site, user: &str, password: &str) -> String {
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    let sasl = Sasl::Mechanism("PLAIN".into());
    let answer = client.sasl(&account(user, password), &sasl).unwrap();
    kerberos::condition(&answer)
}

/// Who may log in by a rule for groups is told to come again until groups have been read for the first time.
fn online(site: &Site, user: &str, password: &str) -> Client {
    wait::until_true(wait::PATIENCE, "groups have been read", || {
        outcome(site, user, password) != "temporary-auth-failure"
    });
    let mut client = site
        .login(Transport::StartTls, &account(user, password))
        .unwrap();
    client.available().unwrap();
    client
}

#[test]
fn people_log_in_by_either_of_their_names_and_who_may_not_is_told_so() {
    let samba = shared();
    let whole = format!("[\"{BASE}\"]");
    for (scheme, keys) in [
        ("ldap", &[][..]),
        // The whole domain: its controller refers to others for parts of it.
        ("ldaps", &[("base", whole.as_str())]),
    ] {
        let mut site = started(prepared(samba.init_args(scheme).unwrap(), keys));
        for (user, password, expected) in [
            ("romeo", "romeo-password", "success"),
            ("ROMEO", "romeo-password", "success"),
            ("romeo@localhost", "romeo-password", "success"),
            ("romeo.montague@corp.example", "romeo-password", "success"),
            ("romeo@corp.example", "romeo-password", "success"),
            ("juliet", JULIET_PASSWORD, "success"),
            ("juliet.capulet@corp.example", JULIET_PASSWORD, "success"),
            ("tybalt", "tybalt-password", "success"),
            ("romeo", "wrong", "not-authorized"),
            ("juliet", "ПАРОЛЬ für Ärger €", "not-authorized"),
            ("nobody", "romeo-password", "not-authorized"),
            ("rom*", "romeo-password", "not-authorized"),
            (
                "*)(sAMAccountName=romeo",
                "romeo-password",
                "not-authorized",
            ),
            ("ADX\\romeo", "romeo-password", "not-authorized"),
            ("u0001", "u0001-password", "not-authorized"),
            // Who has proved to be somebody who may not log in is told so; nobody else is.
            ("disabled", "disabled-password", "account-disabled"),
            ("disabled", "wrong", "not-authorized"),
            ("expired", "expired-password", "account-disabled"),
            ("expired", "wrong", "not-authorized"),
            ("change", "change-password", "credentials-expired"),
            ("change", "wrong", "not-authorized"),
            ("stale", "stale-password", "credentials-expired"),
            ("stale", "wrong", "not-authorized"),
        ] {
            let got = outcome(&site, user, password);
            assert_eq!(got, expected, "{scheme}: {user} {password}");
        }
        let client = site
            .login(
                Transport::StartTls,
                &account("romeo.montague@corp.example", "romeo-password"),
            )
            .unwrap();
        assert_eq!(client.jid.split('/').next(), Some("romeo@localhost"));
        let log = site.server().log();
        // The reason is in the log, and none of it was taken for an outage.
        for reason in [
            "the account is disabled",
            "the account has expired",
            "the password must be changed first",
            "the password has expired",
        ] {
            assert!(log.contains(reason), "{reason}: {log}");
        }
        assert!(!log.contains("no directory server answers"), "{log}");
        assert!(!log.contains("-password"), "{log}");
    }
    // A guesser locks an account; the right password is then as wrong as any.
    let site = started(prepared(samba.init_args("ldap").unwrap(), &[]));
    assert_eq!(outcome(&site, "locked", "locked-password"), "success");
    for _ in 0..3 {
        assert_eq!(outcome(&site, "locked", "wrong"), "not-authorized");
    }
    assert_eq!(
        outcome(&site, "locked", "locked-password"),
        "not-authorized"
    );
}

/// The groups of each item of a roster.
fn roster(client: &mut Client) -> Vec<(String, Vec<String>)> {
    let answer = client.request("get", "r", None, "<query xmlns='jabber:iq:roster'/>");
    let answer: Xml = answer.unwrap();
    let items = answer.child("query").unwrap().elements();
    items
        .map(|item| {
            let groups = item.elements().map(|g| g.text()).collect();
            (item.attr("jid").unwrap_or_default().to_owned(), groups)
        })
        .collect()
}

fn groups_of<'r>(roster: &'r [(String, Vec<String>)], jid: &str) -> Vec<&'r str> {
    let found = roster.iter().find(|(j, _)| j == jid);
    let mut groups: Vec<&str> = found
        .iter()
        .flat_map(|(_, groups)| groups.iter().map(String::as_str))
        .collect();
    groups.sort_unstable();
    groups
}

const IN_ROSTERS: &str = "[\"Sales team\", \"отдел*\", \"everybody\"]";

/// What groups of the domain do, however their members are found.
fn groups_are_whole(mut site: Site) {
    let bases = format!("[{GROUPS:?}, \"CN=Users,{BASE}\"]");
    site.set("imserver.toml", "[[directory]]", "group_base", &bases)
        .unwrap();
    // Before anybody is there: a policy by a group that has romeo only through two others.
    let policy = "[[rule]]\ndeny = \"login\"\ngroups = [\"отдел продаж\"]\nexcept_groups = [\"Sales team\"]\n\n\
                  [[rule]]\nallow = [\"login\", \"save-settings\", \"search\"]\neveryone = true\n\n\
                  [[rule]]\nallow = \"watch-presence\"\ngroups = [\"отдел продаж\"]\n\n\
                  [[rule]]\nallow = \"send-alert\"\ngroups = [\"Domain Users\"]\n";
    std::fs::write(site.path().join("policy.toml"), policy).unwrap();
    site = started(site);
    let mut romeo = online(&site, "romeo", "romeo-password");
    wait::until_true(PATIENCE, "the first look at the directory", || {
        !groups_of(&roster(&mut romeo), "juliet@localhost").is_empty()
    });
    let all = roster(&mut romeo);
    assert_eq!(
        groups_of(&all, "juliet@localhost"),
        ["Sales team", "отдел продаж"]
    );
    assert_eq!(groups_of(&all, "tybalt@localhost"), ["отдел продаж"]);
    let crowd = all
        .iter()
        .filter(|(_, groups)| groups.iter().any(|g| g == "everybody"))
        .count();
    assert_eq!(crowd, CROWD, "everybody, whole");
    // In it only through a group that is through another one; and tybalt not in the exception.
    let says = |jid: &str, right: &str, word: &str| {
        let mut command = site.imadmin(["policy", "test", jid, right]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            said.split_whitespace().any(|w| w == word),
            "{jid} {right}: {said}"
        );
    };
    says("romeo@localhost", "watch-presence", "yes");
    says("u0001@localhost", "watch-presence", "no");
    // Active Directory lists nobody's primary group at the group.
    says("u0001@localhost", "send-alert", "yes");
    says("tybalt@localhost", "login", "no");
    says("romeo@localhost", "login", "yes");
    assert_eq!(
        outcome(&site, "tybalt", "tybalt-password"),
        "account-disabled"
    );
    let log = site.server().log();
    assert!(!log.contains("came only in part"), "{log}");
}

#[test]
fn nested_groups_are_in_rosters_and_in_the_policy() {
    let samba = shared();
    let init = samba.init_args("ldap").unwrap();
    groups_are_whole(prepared(init, &[("group_in_rosters", IN_ROSTERS)]));
}

#[test]
fn the_server_may_resolve_groups() {
    let samba = shared();
    // Nothing is taken from the groups themselves.
    let keys = [
        ("group_in_chain", "true"),
        ("group_nested", "false"),
        ("group_member", "[]"),
        ("group_in_rosters", IN_ROSTERS),
    ];
    groups_are_whole(prepared(samba.init_args("ldaps").unwrap(), &keys));
}

#[test]
fn large_groups_come_in_parts_and_are_put_together() {
    let samba = shared();
    // Samba gives all of a group; Windows, and Samba behind this, 1,500 members at a time.
    let proxy = RangeProxy::start(samba.address()).unwrap();
    let mut init = samba.init_args("ldap").unwrap();
    for argument in &mut init {
        if argument.starts_with("ldap://") {
            *argument = format!("ldap://{}", proxy.address());
        }
    }
    let keys = [
        ("tls", "\"none\""),
        ("group_in_rosters", IN_ROSTERS),
        ("page_size", "100"),
    ];
    groups_are_whole(prepared(init, &keys));
    assert!(proxy.changed() > 0 && proxy.parts() > 0, "in parts");
}

#[test]
fn vcards_and_search_have_what_the_domain_knows() {
    let samba = shared();
    let site = started(prepared(samba.init_args("ldap").unwrap(), &[]));
    let mut juliet = online(&site, "juliet", JULIET_PASSWORD);
    let mut ask = |kind: &str, to: &str, query: &str| {
        let answer = juliet.request(kind, "v", Some(to), query);
        answer.unwrap().to_string()
    };
    let card = ask("get", "romeo@localhost", "<vCard xmlns='vcard-temp'/>");
    for text in [
        "Romeo Montague",
        "<FAMILY>Montague</FAMILY>",
        "romeo@corp.example",
        "+39 045 1",
        "lover",
        "House of Montague",
        "Verona",
        "image/jpeg",
        "BINVAL",
    ] {
        assert!(card.contains(text), "{text} in {card}");
    }
    let mut search = |query: &str| {
        let query = format!("<query xmlns='jabber:iq:search'>{query}</query>");
        ask("set", "localhost", &query)
    };
    let found = search("<last>Capulet</last>");
    for jid in ["juliet@localhost", "tybalt@localhost"] {
        assert!(found.contains(jid), "{jid} in {found}");
    }
    assert!(!search("<last>*)(cn=*</last>").contains("<item "));
    // 1,700 fit: as many come as may be shown.
    let many = search("<nick>Member*</nick>");
    assert_eq!(many.matches("<item ").count(), 40, "{many}");
    assert!(!search("<nick>disabled</nick>").contains("<item "));
}

#[test]
fn changes_in_the_domain_reach_who_is_online() {
    let samba = shared();
    for name in ["leaver", "mover"] {
        samba
            .modify(&format!(
                "dn: CN={name},{PEOPLE}\nchangetype: add\nobjectClass: user\nsAMAccountName: {name}\nuserAccountControl: 512\n{}\n",
                isthmus_tests::samba::unicode_password("first-password"),
            ))
            .unwrap();
    }
    // Passwords are set by an account that may.
    samba
        .modify(&format!(
            "dn: CN=Account Operators,CN=Builtin,{BASE}\nchangetype: modify\nadd: member\nmember: {SERVICE}\n"
        ))
        .unwrap();
    let keys = [("change_password", "true")];
    let site = prepared(samba.init_args("ldap").unwrap(), &keys);
    let site = started(forgetful(site));
    let mut mover = online(&site, "mover", "first-password");
    let query = format!(
        "<query xmlns='jabber:iq:register'><username>mover</username><password>{JULIET_PASSWORD}</password></query>"
    );
    let answer = mover.request("set", "p", None, &query).unwrap();
    assert_eq!(answer.attr("type"), Some("result"), "{answer}");
    assert_eq!(outcome(&site, "mover", JULIET_PASSWORD), "success");
    assert_eq!(outcome(&site, "mover", "second"), "not-authorized");

    let mut leaver = online(&site, "leaver", "first-password");
    leaver.patience = PATIENCE;
    samba
        .modify(&format!(
            "dn: CN=leaver,{PEOPLE}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n"
        ))
        .unwrap();
    assert!(leaver.until_closed().unwrap().is_some());
    assert_eq!(
        outcome(&site, "leaver", "first-password"),
        "account-disabled"
    );
    mover.ping().unwrap();
}

#[test]
fn tickets_of_the_domain_log_in() {
    let samba = shared();
    let keytab = samba.path("xmpp.keytab");
    samba
        .tool(&["user", "create"], &["xmpp-service", "service-password"])
        .unwrap();
    samba
        .tool(&["spn", "add"], &["xmpp/localhost", "xmpp-service"])
        .unwrap();
    samba
        .tool(
            &["domain", "exportkeytab"],
            &[&keytab.display().to_string(), "--principal=xmpp/localhost"],
        )
        .unwrap();
    // A ticket of Active Directory lists its owner's groups: it is larger than one of a plain KDC.
    let mut site = forgetful(prepared(samba.init_args("ldap").unwrap(), &[]));
    for (key, value) in [
        ("mechanisms", "[\"GSSAPI\", \"PLAIN\"]".to_owned()),
        (
            "gssapi_keytab",
            format!("{:?}", keytab.display().to_string()),
        ),
        (
            "gssapi_realms",
            format!("{{ \"{REALM}\" = \"localhost\" }}"),
        ),
    ] {
        site.set("imserver.toml", "[auth]", key, &value).unwrap();
    }
    site.env("KRB5_CONFIG", samba.path("krb5.conf"));
    site.env("KRB5RCACHEDIR", samba.dir());
    let site = started(site);
    let endpoint = site.endpoint(Transport::StartTls);
    for (name, password, expected) in [
        ("romeo", "romeo-password", "success"),
        ("juliet", JULIET_PASSWORD, "success"),
        // Of the domain, but not of the people.
        ("isthmus", "service-password", "not-authorized"),
    ] {
        let cache = kerberos::ticket(samba.dir(), name, password).unwrap();
        let got = kerberos::log_in(&endpoint, samba.dir(), &cache).unwrap();
        assert_eq!(got, expected, "{name}");
    }
    // A ticket is good for hours; who may not log in any more is refused all the same.
    samba
        .modify(&format!(
            "dn: CN=late,{PEOPLE}\nchangetype: add\nobjectClass: user\nsAMAccountName: late\nuserAccountControl: 512\n{}\n",
            isthmus_tests::samba::unicode_password("late-password"),
        ))
        .unwrap();
    let late = kerberos::ticket(samba.dir(), "late", "late-password").unwrap();
    let log_in = || kerberos::log_in(&endpoint, samba.dir(), &late).unwrap();
    assert_eq!(log_in(), "success");
    samba
        .modify(&format!(
            "dn: CN=late,{PEOPLE}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n"
        ))
        .unwrap();
    wait::until_true(PATIENCE, "a disabled account is refused", || {
        log_in() == "account-disabled"
    });
}
