//! The LDAP back end against a real slapd. One server serves all tests that do not harm it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use directory::backend::{Backend, Person, Registered, Registration, SearchQuery, Sweep};
use directory::ldap::LdapDirectory;
use directory::ldap::config::{
    GroupsConfig, HostConfig, JidForm, LdapConfig, Product, RegisterConfig, Secret, Tls,
};
use directory::{DirectoryError, KeysAnswer, PasswordAnswer, derive_account};
use isthmus_tests::slapd::{BASE, GROUPS, LIMITED, PEOPLE, SERVICE, SERVICE_PASSWORD, Slapd};
use isthmus_tests::wait::{self, PATIENCE};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::ScramHash;

const DOMAIN: &str = "x.example";

/// It ends with the last test that uses it.
fn shared() -> Arc<Slapd> {
    static SHARED: Mutex<Weak<Slapd>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let slapd = Arc::new(Slapd::start(600, 20).unwrap());
        *shared = Arc::downgrade(&slapd);
        slapd
    })
}

fn login(name: &str) -> LoginName {
    LoginName::new(name, DOMAIN).unwrap()
}

fn jid(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@{DOMAIN}")).unwrap()
}

fn right(name: &str) -> Result<PasswordAnswer, DirectoryError> {
    Ok(PasswordAnswer::Right(jid(name)))
}

fn host(address: SocketAddr, tls: Tls) -> HostConfig {
    HostConfig {
        host: "localhost".into(),
        port: address.port(),
        tls,
    }
}

fn config(slapd: &Slapd) -> LdapConfig {
    LdapConfig {
        hosts: vec![host(slapd.address(), Tls::StartTls)],
        ca: Some(slapd.ca()),
        bind_dn: Some(SERVICE.into()),
        bind_password: Secret(SERVICE_PASSWORD.into()),
        bases: vec![PEOPLE.into()],
        domains: vec![DOMAIN.into()],
        groups: Some(GroupsConfig {
            title: Some("description".into()),
            ..GroupsConfig::usual(Product::Ldap, vec![GROUPS.into()])
        }),
        ..LdapConfig::usual("corp", Product::Ldap)
    }
}

fn open(config: LdapConfig) -> LdapDirectory {
    LdapDirectory::new(config).unwrap()
}

fn reason<T: std::fmt::Debug>(answer: Result<T, DirectoryError>) -> String {
    match answer {
        Err(DirectoryError::Unavailable { reason, .. }) => reason,
        other => panic!("no outage: {other:?}"),
    }
}

#[test]
fn passwords_and_people_over_every_kind_of_connection() {
    let shared = shared();
    let slapd = &*shared;
    let kinds = [
        host(slapd.address(), Tls::StartTls),
        host(slapd.tls_address(), Tls::Direct),
        host(slapd.address(), Tls::None),
    ];
    for kind in kinds {
        let d = open(LdapConfig {
            hosts: vec![kind],
            ..config(slapd)
        });
        for (name, password, expected) in [
            ("romeo", "romeo-password", right("romeo")),
            ("ROMEO", "romeo-password", right("romeo")),
            ("romeo@x.example", "romeo-password", right("romeo")),
            ("romeo@corp.example", "romeo-password", right("romeo")),
            ("tybalt", "tybalt-password", right("tybalt")),
            ("romeo", "juliet-password", Ok(PasswordAnswer::Wrong)),
            ("romeo", "", Ok(PasswordAnswer::Wrong)),
            ("bare", "bare-password", Ok(PasswordAnswer::Wrong)),
            ("nobody", "romeo-password", Ok(PasswordAnswer::Wrong)),
            (
                "expired",
                "expired-password",
                Ok(PasswordAnswer::Disabled(jid("expired"))),
            ),
            ("expired", "wrong", Ok(PasswordAnswer::Wrong)),
            (
                "twin@corp.example",
                "twin-password",
                Ok(PasswordAnswer::Wrong),
            ),
            ("twin1", "twin-password", right("twin1")),
            ("no address", "no-password", Ok(PasswordAnswer::Wrong)),
        ] {
            assert_eq!(
                d.check_password(&login(name), password),
                expected,
                "{name} {password}"
            );
        }
    }
}

#[test]
fn injection_in_every_field_finds_nobody_and_breaks_nothing() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(config(slapd));
    for name in [
        "*",
        "*)(uid=*",
        ")(uid=romeo",
        "romeo)(|(uid=*",
        "rom*",
        "romeo\\",
        "\\72omeo",
        "romeo,ou=people",
        "uid=romeo",
        "(romeo)",
        "&",
        "|",
        "!",
        "romeo\u{ad}\u{ad}x",
        " romeo x",
        "#romeo",
        "\"romeo\"",
        "romeo;x",
        "romeo+cn=x",
        "<romeo>",
    ] {
        let name = login(name);
        assert_eq!(
            d.check_password(&name, "romeo-password"),
            Ok(PasswordAnswer::Wrong),
            "{name}"
        );
        assert_eq!(d.resolve(&name), Ok(None), "{name}");
    }
    for localpart in [
        "*",
        "*)(uid=*",
        "romeo)(|(uid=*",
        "rom*",
        "a\\2a",
        "romeo,ou=people",
        "#romeo",
        "a+b",
    ] {
        let Ok(jid) = BareJid::from_parts(Some(localpart), DOMAIN) else {
            continue;
        };
        assert_eq!(d.person(&jid), Ok(None), "{localpart}");
        assert_eq!(d.photo(&jid), Ok(None), "{localpart}");
    }
    for text in [
        "*)(uid=*",
        "(",
        ")",
        "\\",
        "a\0b",
        "x)(|(uid=*)",
        "**",
        "*a",
    ] {
        let query = SearchQuery {
            any: Some(text.into()),
            given_name: Some(text.into()),
            family_name: Some(text.into()),
            nickname: Some(text.into()),
            mail: Some(text.into()),
        };
        let found = d.search(DOMAIN, &query, 10).unwrap();
        assert_eq!(found.people, [], "{text}");
    }
    for password in ["*", "\0", "romeo-password\0", "\\"] {
        assert_eq!(
            d.check_password(&login("romeo"), password),
            Ok(PasswordAnswer::Wrong)
        );
    }
    assert_eq!(
        d.check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
}

#[test]
fn people_have_what_their_entries_say() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(config(slapd));
    let Person {
        disabled,
        reference,
        profile,
        ..
    } = d.person(&jid("romeo")).unwrap().unwrap();
    assert!(!disabled);
    assert_eq!(reference, "uid=romeo,ou=people,dc=corp,dc=example");
    assert_eq!(profile.name.as_deref(), Some("Romeo Montague"));
    assert_eq!(profile.mail, ["romeo@corp.example"]);
    assert_eq!(profile.organisation.as_deref(), Some("House of Montague"));
    assert_eq!(profile.unit.as_deref(), Some("Verona"));
    let bare = d.person(&jid("bare")).unwrap().unwrap();
    assert_eq!(bare.profile.mail, Vec::<String>::new());
    assert!(d.person(&jid("expired")).unwrap().unwrap().disabled);
    assert_eq!(d.person(&jid("nobody")), Ok(None));
    assert_eq!(
        d.person(&BareJid::parse("romeo@y.example").unwrap())
            .unwrap()
            .map(|p| p.jid.to_string()),
        Some("romeo@y.example".into())
    );
    let photo = d.photo(&jid("romeo")).unwrap().unwrap();
    assert_eq!((photo.media_type, photo.bytes.len()), ("image/jpeg", 1_004));
    assert_eq!(d.photo(&jid("tybalt")), Ok(None), "5 MB is too much");
    assert_eq!(d.photo(&jid("juliet")), Ok(None));
}

#[test]
fn the_address_may_be_the_mail_address() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(LdapConfig {
        jid: "mail".into(),
        jid_form: JidForm::Address,
        login: vec!["mail".into(), "uid".into()],
        domains: vec!["corp.example".into()],
        ..config(slapd)
    });
    let romeo = BareJid::parse("romeo@corp.example").unwrap();
    let on = |name: &str| LoginName::new(name, "corp.example").unwrap();
    for name in ["romeo", "romeo@corp.example"] {
        assert_eq!(
            d.check_password(&on(name), "romeo-password"),
            Ok(PasswordAnswer::Right(romeo.clone())),
            "{name}"
        );
    }
    assert_eq!(d.person(&romeo).unwrap().map(|p| p.jid), Some(romeo));
    // No mail address, no account; the same one twice, nobody.
    assert_eq!(
        d.check_password(&on("tybalt"), "tybalt-password"),
        Ok(PasswordAnswer::Wrong)
    );
    let swept = d.sweep().unwrap();
    assert!(
        swept
            .people
            .iter()
            .all(|p| p.jid.domainpart() == "corp.example" && p.jid.localpart() != Some("twin"))
    );
    assert_eq!(swept.people.len(), 602);
}

#[test]
fn a_filter_may_disable() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(LdapConfig {
        disabled_filter: Some("(employeeType=left)".into()),
        ..config(slapd)
    });
    assert_eq!(
        d.check_password(&login("left"), "left-password"),
        Ok(PasswordAnswer::Disabled(jid("left")))
    );
    assert_eq!(
        d.check_password(&login("left"), "wrong"),
        Ok(PasswordAnswer::Wrong)
    );
    assert!(d.person(&jid("left")).unwrap().unwrap().disabled);
    let swept = d.sweep().unwrap();
    let disabled: Vec<&str> = swept
        .people
        .iter()
        .filter(|p| p.disabled)
        .filter_map(|p| p.jid.localpart())
        .collect();
    assert_eq!(disabled.len(), 2, "{disabled:?}");
    let query = SearchQuery {
        family_name: Some("Left".into()),
        ..SearchQuery::default()
    };
    assert_eq!(d.search(DOMAIN, &query, 10).unwrap().people, []);
}

fn members(sweep: &Sweep, name: &str) -> String {
    let group = sweep
        .groups
        .iter()
        .find(|g| g.name == name)
        .unwrap_or_else(|| panic!("no group {name}"));
    let mut names: Vec<&str> = group.members.iter().filter_map(|m| m.localpart()).collect();
    names.sort_unstable();
    names.join(" ")
}

#[test]
fn a_sweep_has_everybody_and_every_group() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(config(slapd));
    let sweep = d.sweep().unwrap();
    assert_eq!(
        sweep.people.len(),
        608,
        "600 and 9 odd ones, of whom one can have no address"
    );
    assert_eq!(sweep.groups.len(), 26);
    for (name, expected) in [
        ("Sales team", "juliet romeo"),
        ("отдел продаж", "juliet tybalt"),
        ("unique", "tybalt"),
        ("circle a", "juliet romeo"),
        ("circle b", "juliet romeo"),
        ("engineers", "juliet"),
    ] {
        assert_eq!(members(&sweep, name), expected, "{name}");
    }
    assert_eq!(members(&sweep, "g001").split(' ').count(), 20);
    let sales = sweep
        .groups
        .iter()
        .find(|g| g.name == "Sales team")
        .unwrap();
    assert_eq!(
        (sales.title.as_deref(), sales.in_rosters),
        (Some("The people who sell"), true)
    );
    let some = open(LdapConfig {
        groups: Some(GroupsConfig {
            in_rosters: vec!["circle*".into()],
            in_rosters_filter: Some("(objectClass=posixGroup)".into()),
            nested: false,
            ..config(slapd).groups.unwrap()
        }),
        ..config(slapd)
    })
    .sweep()
    .unwrap();
    let mut shown: Vec<&str> = some
        .groups
        .iter()
        .filter(|g| g.in_rosters)
        .map(|g| g.name.as_str())
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, ["circle a", "circle b", "отдел продаж"]);
    assert_eq!(members(&some, "circle a"), "romeo");
}

#[test]
fn what_the_server_does_not_give_whole_is_an_error() {
    let shared = shared();
    let slapd = &*shared;
    let limited = LdapConfig {
        bind_dn: Some(LIMITED.into()),
        ..config(slapd)
    };
    assert!(reason(open(limited.clone()).sweep()).contains("raise its limit"));
    // What is looked for one by one works, and a search says that there is more.
    let d = open(limited);
    assert_eq!(
        d.check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
    let query = SearchQuery {
        given_name: Some("Pers*".into()),
        ..SearchQuery::default()
    };
    let found = d.search(DOMAIN, &query, 40).unwrap();
    assert_eq!((found.people.len(), found.more), (40, true));
    let few = SearchQuery {
        any: Some("romeo mont*".into()),
        ..SearchQuery::default()
    };
    let found = d.search(DOMAIN, &few, 40).unwrap();
    assert_eq!((found.people.len(), found.more), (1, false));
}

#[test]
fn what_is_wrong_with_the_set_up_is_said_and_is_never_nobody() {
    let shared = shared();
    let slapd = &*shared;
    let other_ca = {
        let text = std::fs::read(slapd.path("server.pem")).unwrap();
        let path = slapd.path("other.pem");
        std::fs::write(&path, text).unwrap();
        path
    };
    let c = config(slapd);
    for (config, words) in [
        (
            LdapConfig {
                ca: Some(other_ca),
                ..c.clone()
            },
            "signed by nobody we trust",
        ),
        (
            LdapConfig {
                ca: None,
                ..c.clone()
            },
            "signed by nobody we trust",
        ),
        (
            LdapConfig {
                bind_password: Secret("wrong".into()),
                ..c.clone()
            },
            "logging in as cn=isthmus,dc=corp,dc=example",
        ),
        (
            LdapConfig {
                bases: vec!["ou=nowhere,dc=corp,dc=example".into()],
                ..c.clone()
            },
            "there is no such entry",
        ),
        (
            LdapConfig {
                bases: vec!["dc=other".into()],
                ..c.clone()
            },
            "there is no such entry",
        ),
        (
            LdapConfig {
                bind_dn: None,
                ..c.clone()
            },
            "there is no such entry",
        ),
        (
            LdapConfig {
                hosts: vec![host(slapd.tls_address(), Tls::StartTls)],
                ..c.clone()
            },
            "closed the connection",
        ),
        (
            LdapConfig {
                hosts: vec![HostConfig {
                    host: "nowhere.invalid".into(),
                    ..c.hosts[0].clone()
                }],
                ..c.clone()
            },
            "cannot be resolved",
        ),
        (
            LdapConfig {
                hosts: vec![HostConfig {
                    port: 1,
                    ..c.hosts[0].clone()
                }],
                ..c.clone()
            },
            "refused",
        ),
    ] {
        let d = open(config);
        let said = reason(d.resolve(&login("romeo")));
        assert!(said.contains(words), "{said:?} does not say {words:?}");
        assert!(d.check_password(&login("romeo"), "romeo-password").is_err());
        assert!(d.person(&jid("nobody")).is_err());
        assert!(d.sweep().is_err());
    }
    // The certificate is for localhost, and for 127.0.0.1.
    let by_number = LdapConfig {
        hosts: vec![HostConfig {
            host: "127.0.0.1".into(),
            ..c.hosts[0].clone()
        }],
        ..c.clone()
    };
    assert_eq!(
        open(by_number).check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
    let by_other_number = LdapConfig {
        hosts: vec![HostConfig {
            host: "localhost.".into(),
            ..c.hosts[0].clone()
        }],
        ..c
    };
    let _ = open(by_other_number).resolve(&login("romeo"));
}

/// A client that is told an address logs in with what stands before the @.
#[test]
fn who_types_a_mail_address_is_found_by_what_a_client_makes_of_it() {
    let slapd = Slapd::start(1, 0).unwrap();
    for (uid, mail) in [
        ("aarcher", "anna.archer@corp.example"),
        // The mail address of one is the login name of another.
        ("jsmith", "juliet@corp.example"),
        ("elsewhere", "bob@other.example"),
    ] {
        slapd
            .modify(&format!(
                "dn: uid={uid},{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: x\nmail: {mail}\nuserPassword: {uid}-password\n"
            ))
            .unwrap();
    }
    let d = open(LdapConfig {
        domains: vec!["corp.example".into()],
        ..config(&slapd)
    });
    let at = |name: &str| LoginName::new(name, "corp.example").unwrap();
    let who = |name: &str| {
        let person = d.resolve(&at(name)).unwrap();
        person.map(|p| p.jid.localpart().unwrap_or_default().to_owned())
    };
    assert_eq!(who("anna.archer").as_deref(), Some("aarcher"));
    assert_eq!(who("Anna.Archer").as_deref(), Some("aarcher"));
    assert_eq!(who("anna.archer@corp.example").as_deref(), Some("aarcher"));
    assert_eq!(who("juliet").as_deref(), Some("juliet"));
    assert_eq!(who("bob"), None);
    assert!(matches!(
        d.check_password(&at("anna.archer"), "aarcher-password"),
        Ok(PasswordAnswer::Right(jid)) if jid.as_str() == "aarcher@corp.example"
    ));
    let steps = d.explain(&at("juliet"), Some("juliet-password"));
    let password = steps.iter().find(|s| s.what == "password").unwrap();
    assert!(!password.fails && password.answer == "right", "{steps:?}");
}

/// Groups that are not there are no outage of the people.
#[test]
fn a_wrong_place_of_groups_leaves_people_alone() {
    let shared = shared();
    let slapd = &*shared;
    let mut c = config(slapd);
    c.groups = c.groups.map(|g| GroupsConfig {
        bases: vec![format!("ou=nowhere,{BASE}")],
        ..g
    });
    let d = open(c);
    for _ in 0..3 {
        let sweep = d.sweep().unwrap();
        assert!(sweep.people.len() > 3 && sweep.groups.is_empty());
        let why = sweep.groups_unknown.unwrap();
        assert!(
            why.contains("ou=nowhere") && why.contains("no such entry"),
            "{why}"
        );
        assert_eq!(
            d.check_password(&login("romeo"), "romeo-password"),
            right("romeo")
        );
    }
    let steps = d.explain(&login("romeo"), None);
    let fault = steps.iter().find(|s| s.answer.contains("ou=nowhere"));
    assert!(
        fault.is_some_and(|s| s.answer.contains("group_base")),
        "{steps:?}"
    );
}

/// What a server says no to is not called silence, and the key to look at is named.
#[test]
fn a_refusal_is_called_one() {
    let shared = shared();
    let slapd = &*shared;
    let here = slapd.address();
    let wrong_password = LdapConfig {
        bind_password: Secret("guess".into()),
        ..config(slapd)
    };
    let no_base = LdapConfig {
        bases: vec![format!("ou=nowhere,{BASE}")],
        ..config(slapd)
    };
    let plain_port = LdapConfig {
        hosts: vec![host(here, Tls::Direct)],
        connect_timeout: Duration::from_secs(10),
        ..config(slapd)
    };
    let nobody_there = LdapConfig {
        hosts: vec![HostConfig {
            host: "127.0.0.1".into(),
            port: 1,
            tls: Tls::None,
        }],
        ..config(slapd)
    };
    for (config, says) in [
        (wrong_password, &[" refused: ", "bind_password_file"][..]),
        (no_base, &[" refused: ", "(or it may not be read)"]),
        (plain_port, &["did not answer", "ldap://"]),
        (nobody_there, &["did not answer: Connection refused"]),
    ] {
        let d = open(config);
        for _ in 0..2 {
            let said = reason(d.resolve(&login("romeo")));
            for words in says {
                assert!(said.contains(words), "{said}");
            }
        }
    }
}

#[test]
fn scram_keys_may_be_in_the_directory() {
    let shared = shared();
    let slapd = &*shared;
    let keys = derive_account("pencil", 4_096, &[ScramHash::Sha256]).unwrap();
    slapd
        .modify(&format!(
            "dn: uid=scram,{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: scram\ncn: Scram\nsn: Scram\nuserPassword: {}\n",
            keys[0].text()
        ))
        .unwrap();
    let d = open(LdapConfig {
        scram_attribute: Some("userPassword".into()),
        bind_dn: Some("cn=root,dc=corp,dc=example".into()),
        bind_password: Secret("root-password".into()),
        ..config(slapd)
    });
    let Ok(KeysAnswer::Found(account, found)) = d.scram_keys(&login("scram"), ScramHash::Sha256)
    else {
        panic!("no keys");
    };
    assert_eq!(account, jid("scram"));
    assert!(found.matches("pencil"));
    assert_eq!(
        d.scram_keys(&login("scram"), ScramHash::Sha1),
        Ok(KeysAnswer::None)
    );
    assert_eq!(
        d.scram_keys(&login("romeo"), ScramHash::Sha256),
        Ok(KeysAnswer::None)
    );
    // PLAIN against the keys, which slapd itself cannot check; and against slapd for who has none.
    assert_eq!(d.check_password(&login("scram"), "pencil"), right("scram"));
    assert_eq!(
        d.check_password(&login("scram"), "Pencil"),
        Ok(PasswordAnswer::Wrong)
    );
    assert_eq!(
        d.check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
    slapd.delete("scram").unwrap();
}

#[test]
fn accounts_and_passwords_are_written_where_that_is_wanted() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(LdapConfig {
        register: Some(RegisterConfig {
            base: PEOPLE.into(),
            rdn: "uid".into(),
            classes: vec!["inetOrgPerson".into()],
        }),
        change_password: true,
        ..config(slapd)
    });
    let new = |localpart: &str| Registration {
        jid: BareJid::from_parts(Some(localpart), DOMAIN).unwrap(),
        password: "pencil".into(),
        name: Some("New, Person+x".into()),
        mail: Some("new@mail.example".into()),
    };
    assert_eq!(d.register(&new("newcomer")), Ok(Registered::Done));
    assert_eq!(d.register(&new("newcomer")), Ok(Registered::Exists));
    assert_eq!(
        d.check_password(&login("newcomer"), "pencil"),
        right("newcomer")
    );
    assert_eq!(
        d.person(&jid("newcomer"))
            .unwrap()
            .unwrap()
            .profile
            .name
            .as_deref(),
        Some("New, Person+x")
    );
    assert_eq!(
        d.change_password(&jid("newcomer"), "other"),
        Ok(Registered::Done)
    );
    assert_eq!(
        d.check_password(&login("newcomer"), "pencil"),
        Ok(PasswordAnswer::Wrong)
    );
    assert_eq!(
        d.check_password(&login("newcomer"), "other"),
        right("newcomer")
    );
    slapd.delete("newcomer").unwrap();
    // Whoever gives the mail address of somebody who logs in with it would lock them out.
    // So would who gives the address as which their login name is looked for too.
    for mail in ["Romeo@corp.example", "juliet@x.example"] {
        let thief = Registration {
            mail: Some(mail.into()),
            ..new("thief")
        };
        let answer = d.register(&thief);
        assert!(matches!(answer, Ok(Registered::Refused(_))), "{mail}");
        assert_eq!(d.person(&jid("thief")), Ok(None));
    }
    assert_eq!(
        d.check_password(&login("romeo@corp.example"), "romeo-password"),
        right("romeo")
    );
    // A name that would be two parts of a distinguished name is one value.
    assert_eq!(d.register(&new("a,ou=x+b")), Ok(Registered::Done));
    assert_eq!(
        d.person(&new("a,ou=x+b").jid).unwrap().map(|p| p.reference),
        Some(format!("uid=a\\2Cou\\3Dx\\2Bb,{PEOPLE}"))
    );
    slapd
        .modify(&format!(
            "dn: uid=a\\,ou\\=x\\+b,{PEOPLE}\nchangetype: delete\n"
        ))
        .unwrap();
    let off = open(config(slapd));
    assert_eq!(off.register(&new("other")), Ok(Registered::NotHere));
    assert_eq!(
        off.change_password(&jid("romeo"), "x"),
        Ok(Registered::NotHere)
    );
}

#[test]
fn a_test_says_every_step() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(config(slapd));
    let of = |name: &str, password: Option<&str>| {
        let steps = d.explain(&login(name), password);
        steps
            .iter()
            .map(|s| format!("{}: {}", s.what, s.answer))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let romeo = of("romeo", Some("romeo-password"));
    for words in [
        "filter: (&(objectClass=inetOrgPerson)(|(uid=romeo)(mail=romeo)(mail=romeo@x.example)))",
        "server: ldap://localhost:",
        "entry: uid=romeo,ou=people,dc=corp,dc=example",
        "address: romeo@x.example (from uid)",
        "attribute photo: image/jpeg, 1004 bytes",
        "enabled in the directory: yes",
        "password: right",
    ] {
        assert!(romeo.contains(words), "no {words:?} in\n{romeo}");
    }
    assert!(!romeo.contains("romeo-password"));
    assert!(of("expired", None).contains("enabled in the directory: no: shadowExpire is past"));
    let nobody = of("nobody", None);
    assert!(
        nobody.contains("server: ") && !nobody.contains("entry: "),
        "{nobody}"
    );
    assert!(of("twin@corp.example", None).contains("entries: several for one login name"));
    assert!(of("tybalt", None).contains("attribute photo: not used: 5000000 bytes"));
}

#[test]
fn the_first_server_may_be_down_slow_or_come_back() {
    let mut first = Slapd::start(0, 0).unwrap();
    let second = Slapd::start(0, 0).unwrap();
    let cas = std::fs::read_to_string(first.ca()).unwrap()
        + &std::fs::read_to_string(second.ca()).unwrap();
    let ca = first.path("both.pem");
    std::fs::write(&ca, cas).unwrap();
    let d = open(LdapConfig {
        hosts: vec![
            host(first.address(), Tls::StartTls),
            host(second.address(), Tls::StartTls),
        ],
        ca: Some(ca),
        operation_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        ..config(&first)
    });
    let check = || d.check_password(&login("romeo"), "romeo-password");
    let asked = |slapd: &Slapd| slapd.operations().0;
    assert_eq!(check(), right("romeo"));
    assert_eq!(asked(&second), 0, "the first is preferred");
    // Down: nobody notices.
    first.kill();
    for _ in 0..20 {
        assert_eq!(check(), right("romeo"));
    }
    assert!(asked(&second) >= 20);
    // Back: found beside, within the back-off.
    first.restart().unwrap();
    let before = asked(&first);
    wait::until_true(PATIENCE, "the first server is asked again", || {
        assert_eq!(check(), right("romeo"));
        asked(&first) > before + 3
    });
    // It takes connections and says nothing: one question is late, the others are not.
    first.freeze().unwrap();
    let began = Instant::now();
    assert_eq!(check(), right("romeo"));
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(check(), right("romeo"));
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    first.thaw().unwrap();
    // Both down: an outage, said at once, and over as soon as one is back.
    drop(second);
    first.kill();
    wait::until_true(PATIENCE, "both are known to be down", || check().is_err());
    let began = Instant::now();
    for _ in 0..50 {
        assert!(check().is_err());
        assert!(d.person(&jid("nobody")).is_err());
    }
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    first.restart().unwrap();
    wait::until_true(
        Duration::from_secs(30),
        "it is noticed that one is back",
        || check() == right("romeo"),
    );
}

#[test]
fn a_connection_that_has_died_meanwhile_costs_nobody_anything() {
    let mut slapd = Slapd::start(0, 0).unwrap();
    let d = open(config(&slapd));
    assert_eq!(
        d.check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
    slapd.restart().unwrap();
    assert_eq!(
        d.check_password(&login("romeo"), "romeo-password"),
        right("romeo")
    );
    assert!(d.sweep().is_ok());
}

/// By what the server is asked, not by a clock: a search and a bind for either.
#[test]
fn an_unknown_user_costs_what_a_wrong_password_costs() {
    let shared = shared();
    let slapd = &*shared;
    let d = open(config(slapd));
    let asked = |what: &str| slapd.log().matches(what).count();
    let nobody = " BIND dn=\"cn=nobody-";
    let before = asked(nobody);
    for _ in 0..15 {
        for name in ["romeo", "nobody"] {
            assert_eq!(
                d.check_password(&login(name), "wrong"),
                Ok(PasswordAnswer::Wrong)
            );
        }
    }
    wait::until_true(PATIENCE, "the server was asked about nobody too", || {
        asked(nobody) >= before + 15
    });
}
