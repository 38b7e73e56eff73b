//! Addresses: a table of valid ones with their prepared form, a table of invalid ones.

use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use xmpp::jid::{BareJid, FullJid, Jid, JidError as E};

/// As written, and prepared: localpart, domainpart, resourcepart.
const VALID: &[(&str, Option<&str>, &str, Option<&str>)] = &[
    ("juliet@example.com", Some("juliet"), "example.com", None),
    (
        "juliet@example.com/balcony",
        Some("juliet"),
        "example.com",
        Some("balcony"),
    ),
    ("example.com", None, "example.com", None),
    ("example.com/server", None, "example.com", Some("server")),
    ("a@b", Some("a"), "b", None),
    // Case: folded in localpart and domainpart, kept in the resourcepart.
    (
        "Juliet@Example.COM/Balcony",
        Some("juliet"),
        "example.com",
        Some("Balcony"),
    ),
    ("JULIET@example.com", Some("juliet"), "example.com", None),
    ("ИВАН@ПРИМЕР.РФ/Дом", Some("иван"), "пример.рф", Some("Дом")),
    ("Straße@example.com", Some("strasse"), "example.com", None),
    ("ΣΊΣΥΦΟΣ@example.com", Some("σίσυφοσ"), "example.com", None),
    // A resourcepart may contain `@`, `/` and spaces; the first `/` begins it.
    ("a@b/c@d", Some("a"), "b", Some("c@d")),
    ("a@b/c/d", Some("a"), "b", Some("c/d")),
    ("b/c@d/e", None, "b", Some("c@d/e")),
    ("a@b/@", Some("a"), "b", Some("@")),
    ("a@b//", Some("a"), "b", Some("/")),
    ("a@b/ c d ", Some("a"), "b", Some(" c d ")),
    (
        "room@muc.example.com/Jürgen the 3rd",
        Some("room"),
        "muc.example.com",
        Some("Jürgen the 3rd"),
    ),
    ("a@b/<'&\">", Some("a"), "b", Some("<'&\">")),
    // What Unicode 3.2 did not have yet passes, as it does with Prosody and ejabberd.
    ("a@b/🦀", Some("a"), "b", Some("🦀")),
    ("🦀@b", Some("🦀"), "b", None),
    // Every ASCII character that nodeprep allows.
    (
        "!#$%()*+,-.;=?[\\]^_`{|}~09az@b",
        Some("!#$%()*+,-.;=?[\\]^_`{|}~09az"),
        "b",
        None,
    ),
    // XEP-0106 escapes are nothing special here.
    ("d\\27artagnan@b", Some("d\\27artagnan"), "b", None),
    // Compatibility characters and characters mapped to nothing.
    ("ﬁx@b", Some("fix"), "b", None),
    ("ａｂｃ@b", Some("abc"), "b", None),
    ("a\u{AD}b@b", Some("ab"), "b", None),
    ("a\u{200B}b@b/x\u{200D}y", Some("ab"), "b", Some("xy")),
    ("e\u{301}@b", Some("é"), "b", None),
    ("a@b/Ⅳ", Some("a"), "b", Some("IV")),
    ("a@b/x\u{A0}y", Some("a"), "b", Some("x y")),
    // Domains.
    ("a@example.com.", Some("a"), "example.com", None),
    ("example.com./r", None, "example.com", Some("r")),
    ("a@xn--e1afmkfd.xn--p1ai", Some("a"), "пример.рф", None),
    ("a@XN--E1AFMKFD.xn--p1ai", Some("a"), "пример.рф", None),
    ("a@пример.xn--p1ai", Some("a"), "пример.рф", None),
    ("a@bücher。example", Some("a"), "bücher.example", None),
    ("a@bücher．example｡", Some("a"), "bücher.example", None),
    // ToUnicode leaves alone what does not come back the same: IDNA2008's ß, a wrong A-label.
    ("a@xn--strae-oqa.de", Some("a"), "xn--strae-oqa.de", None),
    ("a@xn--99999999.de", Some("a"), "xn--99999999.de", None),
    ("a@xn--a.de", Some("a"), "xn--a.de", None),
    ("a@straße.de", Some("a"), "strasse.de", None),
    ("a@my_host.lan", Some("a"), "my_host.lan", None),
    ("a@192.0.2.1", Some("a"), "192.0.2.1", None),
    ("a@[::1]", Some("a"), "[::1]", None),
    (
        "a@[2001:DB8:0:0::1]/r",
        Some("a"),
        "[2001:db8::1]",
        Some("r"),
    ),
    // Right to left, each label on its own.
    ("אב@אב.example", Some("אב"), "אב.example", None),
];

const INVALID: &[(&str, E)] = &[
    ("", E::EmptyDomainpart),
    ("@", E::EmptyLocalpart),
    ("/", E::EmptyDomainpart),
    ("@b", E::EmptyLocalpart),
    ("@b/r", E::EmptyLocalpart),
    ("a@", E::EmptyDomainpart),
    ("a@/r", E::EmptyDomainpart),
    ("/r", E::EmptyDomainpart),
    ("b/", E::EmptyResourcepart),
    ("a@b/", E::EmptyResourcepart),
    ("\u{AD}@b", E::EmptyLocalpart),
    ("a@b/\u{200B}", E::EmptyResourcepart),
    ("a@.", E::EmptyDomainpart),
    ("a@..", E::InvalidDomainpart),
    ("a@b..c", E::InvalidDomainpart),
    ("a@.b", E::InvalidDomainpart),
    ("a@b..", E::InvalidDomainpart),
    ("a@\u{AD}", E::EmptyDomainpart),
    ("a@b@c", E::InvalidDomainpart),
    ("a b@c", E::InvalidLocalpart),
    (" a@b", E::InvalidLocalpart),
    ("a\u{A0}b@c", E::InvalidLocalpart),
    ("a\"b@c", E::InvalidLocalpart),
    ("a&b@c", E::InvalidLocalpart),
    ("a'b@c", E::InvalidLocalpart),
    ("a:b@c", E::InvalidLocalpart),
    ("a<b@c", E::InvalidLocalpart),
    ("a>b@c", E::InvalidLocalpart),
    ("a\tb@c", E::InvalidLocalpart),
    ("a\0b@c", E::InvalidLocalpart),
    ("a\u{7F}b@c", E::InvalidLocalpart),
    // After NFKC these are `@`, `/`, `:` and a space.
    ("a＠b@c", E::InvalidLocalpart),
    ("a／b@c", E::InvalidLocalpart),
    ("a：b@c", E::InvalidLocalpart),
    ("aﾠb@c\u{3000}", E::InvalidDomainpart),
    ("a\u{3000}b@c", E::InvalidLocalpart),
    ("a\u{E000}b@c", E::InvalidLocalpart),
    ("a\u{FFFD}b@c", E::InvalidLocalpart),
    ("a\u{202E}b@c", E::InvalidLocalpart),
    ("a\u{2028}b@c", E::InvalidLocalpart),
    ("a\u{FDD0}b@c", E::InvalidLocalpart),
    // Text direction.
    ("אa@b", E::InvalidLocalpart),
    ("א1@b", E::InvalidLocalpart),
    ("a@אa", E::InvalidDomainpart),
    ("a@b/\u{7}", E::InvalidResourcepart),
    ("a@b/x\u{2028}y", E::InvalidResourcepart),
    ("a@b/x\ny", E::InvalidResourcepart),
    ("a@b/\u{E000}", E::InvalidResourcepart),
    ("a@b/אa", E::InvalidResourcepart),
    // Domains.
    ("a@b c", E::InvalidDomainpart),
    ("a@b:5222", E::InvalidDomainpart),
    ("a@b\u{7}", E::InvalidDomainpart),
    ("a@b＠c", E::InvalidDomainpart),
    ("a@b／c", E::InvalidDomainpart),
    ("a@℀.example", E::InvalidDomainpart),
    ("a@b＃c", E::InvalidDomainpart),
    ("a@[::1", E::InvalidDomainpart),
    ("a@[]", E::InvalidDomainpart),
    ("a@[::g]", E::InvalidDomainpart),
    ("a@[192.0.2.1]", E::InvalidDomainpart),
    ("a@[fe80::1%eth0]", E::InvalidDomainpart),
    ("a@::1", E::InvalidDomainpart),
    ("a@[::1]x", E::InvalidDomainpart),
];

#[test]
fn valid_addresses_are_prepared_and_stay_as_they_are_then() {
    for (text, local, domain, resource) in VALID {
        let jid = Jid::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(jid.localpart(), *local, "{text:?}");
        assert_eq!(jid.domainpart(), *domain, "{text:?}");
        assert_eq!(jid.resourcepart(), *resource, "{text:?}");
        assert_eq!(Jid::parse(jid.as_str()).as_ref(), Ok(&jid), "{text:?}");
        let bare = BareJid::from_parts(*local, domain).expect("prepared parts");
        assert_eq!(jid.bare(), bare, "{text:?}");
        assert_eq!(jid.bare_str(), bare.as_str(), "{text:?}");
        if let Some(resource) = resource {
            assert_eq!(
                Jid::from(bare.with_resource(resource).expect("prepared")),
                jid
            );
            assert_eq!(FullJid::parse(text).map(Jid::from), Ok(jid));
            assert_eq!(BareJid::parse(text), Err(E::NotBare));
        } else {
            assert_eq!(BareJid::parse(text).map(Jid::from), Ok(jid));
            assert_eq!(FullJid::parse(text), Err(E::NotFull));
        }
    }
}

#[test]
fn invalid_addresses_say_why() {
    for (text, error) in INVALID {
        assert_eq!(Jid::parse(text), Err(*error), "{text:?}");
    }
}

#[test]
fn each_part_has_1023_bytes_at_most() {
    let long = |n: usize| "x".repeat(n);
    assert!(Jid::parse(&format!("{}@{}/{}", long(1023), long(1023), long(1023))).is_ok());
    assert_eq!(Jid::parse(&format!("{}@b", long(1024))), Err(E::TooLong));
    assert_eq!(Jid::parse(&format!("a@{}", long(1024))), Err(E::TooLong));
    assert_eq!(Jid::parse(&format!("a@b/{}", long(1024))), Err(E::TooLong));
    assert_eq!(
        Jid::parse(&format!("a@b/{}", long(1_000_000))),
        Err(E::TooLong)
    );
    // What counts is the prepared form: 512 characters of two bytes are too long.
    assert!(Jid::parse(&format!("a@b/{}", "é".repeat(511))).is_ok());
    assert_eq!(
        Jid::parse(&format!("a@b/{}", "é".repeat(512))),
        Err(E::TooLong)
    );
    assert!(Jid::parse(&format!("{}@b", "Ａ".repeat(1023))).is_ok());
}

#[test]
fn look_alikes_are_different_and_spellings_of_one_name_are_equal() {
    let differ = [
        ("paypal@example.com", "раураl@example.com"),
        ("a@example.com", "a@exаmple.com"),
        ("a@example.com/x", "a@example.com/X"),
        ("a@example.com", "a@example.com.evil"),
        ("l@b", "1@b"),
    ];
    for (a, b) in differ {
        assert_ne!(Jid::parse(a), Jid::parse(b));
    }
    let same = [
        ("JULIET@EXAMPLE.COM", "juliet@example.com"),
        ("a@xn--bcher-kva.example", "a@BÜCHER.example"),
        ("ｊuliet@example.com", "juliet@example.com"),
        ("a@[::0001]", "a@[0:0::1]"),
    ];
    for (a, b) in same {
        assert_eq!(Jid::parse(a).expect("valid"), Jid::parse(b).expect("valid"));
    }
}

#[test]
fn addresses_are_keys() {
    let full: FullJid = "a@b/c".parse().expect("valid");
    let bare: BareJid = "a@b".parse().expect("valid");
    assert_eq!(full.bare(), bare);
    let mut map = HashMap::new();
    map.insert(full.bare(), 1);
    assert_eq!(map.get(&bare), Some(&1));
    assert_eq!(map.get("a@b"), Some(&1));
    let set: HashSet<FullJid> = [full.clone()].into();
    assert!(set.contains("a@b/c") && !set.contains("a@b"));
    assert_eq!(full.bare().to_compact(), bare);
    assert_eq!(bare.domain().as_str(), "b");
    assert!(bare < "b@b".parse().expect("valid"));
    assert_eq!(format!("{full} {full:?}"), "a@b/c \"a@b/c\"");
    assert!(xmpp::jid::has_unassigned("🦀") && !xmpp::jid::has_unassigned("é"));
}

#[test]
fn a_full_stop_made_by_normalisation_is_refused() {
    for domain in ["\u{FE12}", "a\u{FE12}b", "a.\u{FE12}"] {
        assert!(Jid::parse(domain).is_err(), "{domain}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_prepared_once_does_not_change(text in "\\PC{0,6}@?[a-zA-Zа-яßİ.xn\\-＠／。ﬁ]{0,12}/?.{0,6}") {
        if let Ok(jid) = Jid::parse(&text) {
            prop_assert_eq!(Jid::parse(jid.as_str()), Ok(jid.clone()));
            prop_assert!(jid.localpart().is_none_or(|l| !l.is_empty() && !l.contains(['@', '/', ' ', '<'])));
            prop_assert!(!jid.domainpart().is_empty() && !jid.domainpart().contains(['@', '/', ' ']));
            prop_assert!(jid.resourcepart() != Some(""));
        }
    }

    #[test]
    fn the_fast_path_agrees_with_the_tables(text in "[ -~]{1,12}") {
        // Whatever ASCII says, the same with a character mapped to nothing must say.
        let slow = format!("a\u{AD}@b/{text}");
        let fast = format!("a@b/{text}");
        prop_assert_eq!(Jid::parse(&slow), Jid::parse(&fast));
        let part = text.replace(['@', '/'], "");
        prop_assert_eq!(Jid::parse(&format!("\u{AD}{part}@b")).ok(), Jid::parse(&format!("{part}@b")).ok());
        prop_assert_eq!(Jid::parse(&format!("{part}\u{AD}.b")).ok(), Jid::parse(&format!("{part}.b")).ok());
    }
}
