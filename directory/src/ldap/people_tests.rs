//! Entries become people, and login names filters.

use super::*;
use crate::ldap::config::Product;
use crate::ldap::entry::entry;

fn login(name: &str) -> LoginName {
    LoginName::new(name, "x.example").unwrap()
}

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

fn config() -> LdapConfig {
    LdapConfig {
        user_filter: "(objectClass=person)".to_owned(),
        ..LdapConfig::usual("corp", Product::Ldap)
    }
}

fn by_mail() -> LdapConfig {
    LdapConfig {
        jid: "mail".to_owned(),
        jid_form: JidForm::Address,
        login: vec!["mail".to_owned()],
        ..config()
    }
}

#[test]
fn login_names_become_filters_with_everything_escaped() {
    let c = config();
    for (name, filter) in [
        (
            "romeo",
            "(&(objectClass=person)(|(uid=romeo)(mail=romeo)(mail=romeo@x.example)))",
        ),
        (
            "romeo@X.example",
            "(&(objectClass=person)(|(uid=romeo@X.example)(uid=romeo)(mail=romeo@X.example)(mail=romeo)))",
        ),
        (
            "romeo@other.example",
            "(&(objectClass=person)(|(uid=romeo@other.example)(mail=romeo@other.example)))",
        ),
        (
            "*)(uid=*",
            "(&(objectClass=person)(|(uid=\\2a\\29\\28uid=\\2a)(mail=\\2a\\29\\28uid=\\2a)(mail=\\2a\\29\\28uid=\\2a@x.example)))",
        ),
        (
            "a\\b",
            "(&(objectClass=person)(|(uid=a\\5cb)(mail=a\\5cb)(mail=a\\5cb@x.example)))",
        ),
    ] {
        assert_eq!(c.login_filter(&login(name)), filter, "{name}");
        assert_eq!(crate::ldap::filter::check(filter), Ok(()), "{filter}");
    }
    assert_eq!(
        by_mail().login_filter(&login("romeo")),
        "(&(objectClass=person)(|(mail=romeo)(mail=romeo@x.example)))"
    );
}

#[test]
fn similar_names_are_not_the_name() {
    let c = config();
    let of = |uid: &str, name: &str| c.is_of(&entry("cn=a", &[("uid", &[uid])]), &login(name));
    assert!(of("José", "JOSÉ") && of("romeo", "romeo@x.example") && of("jose\u{301}", "josé"));
    assert!(!of("josé", "jose") && !of("romeo", "romeo@y.example") && !of("romeo2", "romeo"));
    // Nothing to compare: the server's word.
    assert!(c.is_of(&entry("cn=a", &[("cn", &["x"])]), &login("romeo")));
}

#[test]
fn addresses_are_made_of_entries() {
    let c = config();
    let of = |dn: &str, values: &[&str]| c.jid_of(&entry(dn, &[("uid", values)]), "x.example");
    for (dn, values, expected) in [
        ("cn=a", &["Romeo"][..], "romeo@x.example"),
        ("cn=a", &["zed", "abe"], "abe@x.example"),
        ("uid=zed,dc=x", &["abe", "zed"], "zed@x.example"),
        ("cn=a", &["ro meo", "romeo"], "romeo@x.example"),
    ] {
        assert_eq!(of(dn, values), Ok(jid(expected)), "{dn} {values:?}");
    }
    assert_eq!(of("cn=a", &[]), Err(NoAddress::Missing));
    for bad in ["ro meo", "a@b", "a/b", "<x>"] {
        assert_eq!(of("cn=a", &[bad]), Err(NoAddress::NotOne(bad.to_owned())));
    }
    let c = by_mail();
    let of = |values: &[&str]| c.jid_of(&entry("cn=a", &[("mail", values)]), "x.example");
    assert_eq!(
        of(&["z@y.example", "Romeo@X.example"]),
        Ok(jid("romeo@x.example"))
    );
    assert_eq!(
        of(&["x.example"]),
        Err(NoAddress::NotOne("x.example".into()))
    );
    assert_eq!(
        of(&["a@y.example"]),
        Err(NoAddress::Elsewhere("a@y.example".into()))
    );
}

#[test]
fn people_are_found_by_address() {
    let romeo = jid("romeo@x.example");
    assert_eq!(
        config().jid_filter(&romeo).as_deref(),
        Some("(&(objectClass=person)(uid=romeo))")
    );
    assert_eq!(
        by_mail().jid_filter(&romeo).as_deref(),
        Some("(&(objectClass=person)(mail=romeo@x.example))")
    );
    assert_eq!(config().jid_filter(&jid("x.example")), None);
    assert_eq!(
        config().jid_filter(&jid("*)(uid=*@x.example")).as_deref(),
        Some("(&(objectClass=person)(uid=\\2a\\29\\28uid=\\2a))")
    );
}

#[test]
fn profiles_take_what_there_is() {
    let e = entry(
        "uid=romeo,dc=x",
        &[
            ("cn", &["Romeo Montague"]),
            ("mail", &["r@x.example", "romeo@x.example", "r@x.example"]),
            ("telephoneNumber", &["1"]),
            ("mobile", &["2"]),
            ("ou", &["Lovers"]),
        ],
    );
    let person = config().person(&e, jid("romeo@x.example"), SystemTime::now());
    assert_eq!(person.reference, "uid=romeo,dc=x");
    assert!(!person.disabled);
    assert_eq!(
        person.profile,
        Profile {
            name: Some("Romeo Montague".into()),
            mail: vec!["r@x.example".into(), "romeo@x.example".into()],
            phone: vec!["1".into(), "2".into()],
            unit: Some("Lovers".into()),
            ..Profile::default()
        }
    );
}

#[test]
fn photos_are_pictures_of_a_bounded_size() {
    let c = LdapConfig {
        photo_bytes_max: 16,
        ..config()
    };
    let of = |values: Vec<Vec<u8>>| {
        c.photo_of(&Entry::new("cn=a", [("jpegPhoto", values)]))
            .map(|p| p.media_type)
    };
    let jpeg = vec![0xff, 0xd8, 0xff, 0xe0];
    let large = [jpeg.clone(), vec![0; 20]].concat();
    assert_eq!(of(vec![jpeg.clone()]), Some("image/jpeg"));
    assert_eq!(of(vec![large.clone()]), None);
    assert_eq!(
        of(vec![large, b"\x89PNG\r\n\x1a\n".to_vec()]),
        Some("image/png")
    );
    for bad in [&b""[..], b"<svg>", b"GIF8", b"RIFFxxxxWAVE"] {
        assert_eq!(of(vec![bad.to_vec()]), None);
    }
}

#[test]
fn searches_become_filters() {
    let c = config();
    let any = |text: &str| {
        c.search_filter(
            "x.example",
            &SearchQuery {
                any: Some(text.into()),
                ..SearchQuery::default()
            },
        )
    };
    assert_eq!(
        any("rom*"),
        "(&(objectClass=person)(uid=*)(|(displayName=rom*)(cn=rom*)(givenName=rom*)(sn=rom*)(mail=rom*)(uid=rom*)))"
    );
    assert!(any("Romeo Mont*").contains("(&(|(displayName=Romeo)"));
    assert!(
        any("*rom").contains("(cn=\\2arom)"),
        "only at the end it stands for anything"
    );
    for text in ["*", "*)(uid=*", "a\0b", "(", "\\", "a*b*"] {
        assert_eq!(crate::ldap::filter::check(&any(text)), Ok(()), "{text:?}");
    }
    let query = SearchQuery {
        family_name: Some("Montague".into()),
        nickname: Some(" ".into()),
        mail: Some("r*".into()),
        ..SearchQuery::default()
    };
    assert_eq!(
        by_mail().search_filter("x.example", &query),
        "(&(objectClass=person)(mail=*@x.example)(sn=Montague)(mail=r*))"
    );
}

#[test]
fn disabled_locked_and_expired_accounts_are_known() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_000_000);
    let of = |attribute: &str, value: &str| {
        disabled(&entry("cn=a", &[(attribute, &[value])]), now).map(|d| d.lasting)
    };
    for (attribute, value, expected) in [
        ("userAccountControl", "512", None),
        ("userAccountControl", "514", Some(true)),
        ("userAccountControl", "-2147483134", Some(true)),
        ("userAccountControl", "x", None),
        ("accountExpires", "0", None),
        ("accountExpires", "9223372036854775807", None),
        ("accountExpires", "133000000000000000", Some(true)),
        ("accountExpires", "134084736010000000", None),
        ("shadowExpire", "-1", None),
        ("shadowExpire", "1", Some(true)),
        ("shadowExpire", "20416", Some(true)),
        ("shadowExpire", "20417", None),
        ("nsAccountLock", "true", Some(true)),
        ("nsAccountLock", "FALSE", None),
        ("pwdEndTime", "20200101000000Z", Some(true)),
        ("pwdEndTime", "29990101000000Z", None),
        ("pwdAccountLockedTime", "000001010000Z", Some(true)),
        ("pwdAccountLockedTime", "20251124000000Z", None),
        ("msDS-User-Account-Control-Computed", "16", Some(false)),
        ("msDS-User-Account-Control-Computed", "0", None),
    ] {
        assert_eq!(of(attribute, value), expected, "{attribute}: {value}");
    }
}

#[test]
fn times_are_read() {
    for (text, seconds) in [
        ("19700101000000Z", Some(0)),
        ("20000229120000Z", Some(951_825_600)),
        ("202511250000Z", Some(1_764_028_800)),
        ("20251125000000.5Z", Some(1_764_028_800)),
        ("20251125000000", None),
        ("20251325000000Z", None),
        ("x", None),
        ("16010101000000Z", None),
    ] {
        assert_eq!(generalized_time(text), seconds, "{text}");
    }
}
