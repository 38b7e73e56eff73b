//! Roster gets and sets, in order and out of order.

use super::*;
use roster::Set;

fn roster_set(query: &str) -> Result<Set, StanzaError> {
    match ask(
        OWN,
        &format!("<iq type='set' id='1'><query xmlns='jabber:iq:roster'>{query}</query></iq>"),
    ) {
        IqOutcome::RosterSet(set) => Ok(set),
        IqOutcome::Error(condition, _) => Err(condition),
        other => panic!("{other:?}"),
    }
}

#[test]
fn roster_sets_in_order_are_taken() {
    let put = |name: Option<&str>, groups: &[&str]| {
        Ok(Set::Put {
            jid: BareJid::parse("nurse@example.org").expect("an address"),
            name: name.map(str::to_owned),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        })
    };
    let remove = Ok(Set::Remove {
        jid: BareJid::parse("nurse@example.org").expect("an address"),
    });
    let longest = "n".repeat(roster::NAME_BYTES_MAX);
    let groups: Vec<String> = (0..roster::GROUPS_MAX).map(|n| n.to_string()).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    let many: String = groups
        .iter()
        .map(|g| format!("<group>{g}</group>"))
        .collect();
    let rows = [
        ("<item jid='nurse@example.org'/>".to_owned(), put(None, &[])),
        ("<item jid='Nurse@EXAMPLE.org' name=''/>".to_owned(), put(None, &[])),
        (
            "<item jid='nurse@example.org' name='Nurse &amp; co'><group>Servants</group><group>a</group></item>".to_owned(),
            put(Some("Nurse & co"), &["Servants", "a"]),
        ),
        // §2.1.2: the server's to say.
        ("<item jid='nurse@example.org' subscription='both' ask='subscribe' approved='true'/>".to_owned(), put(None, &[])),
        ("<item jid='nurse@example.org' subscription='bogus'/>".to_owned(), put(None, &[])),
        // Groups that differ in case differ (resourceprep).
        ("<item jid='nurse@example.org'><group>A</group><group>a</group></item>".to_owned(), put(None, &["A", "a"])),
        // What is not ours is not looked at.
        ("<item jid='nurse@example.org'><x xmlns='urn:x'/><group xmlns='urn:x'/></item>".to_owned(), put(None, &[])),
        ("<x xmlns='urn:x'/><item jid='nurse@example.org'/>".to_owned(), put(None, &[])),
        (format!("<item jid='nurse@example.org' name='{longest}'/>"), put(Some(&longest), &[])),
        (format!("<item jid='nurse@example.org'>{many}</item>"), put(None, &groups)),
        ("<item jid='nurse@example.org' subscription='remove'/>".to_owned(), remove.clone()),
        ("<item jid='nurse@example.org' subscription='remove'><group/></item>".to_owned(), remove),
        // An old server might have let one's own address in: it can be taken out.
        (
            "<item jid='juliet@example.org' subscription='remove'/>".to_owned(),
            Ok(Set::Remove { jid: BareJid::parse("juliet@example.org").expect("an address") }),
        ),
    ];
    for (query, expected) in rows {
        assert_eq!(roster_set(&query), expected, "{query}");
    }
}

#[test]
fn roster_sets_out_of_order_get_the_error_of_2_3_3() {
    use StanzaError::*;
    let too_long = "n".repeat(roster::NAME_BYTES_MAX + 1);
    let many: String = (0..=roster::GROUPS_MAX)
        .map(|n| format!("<group>{n}</group>"))
        .collect();
    let rows = [
        (String::new(), BadRequest),
        ("<x xmlns='urn:x'/>".into(), BadRequest),
        (
            "<item jid='a@example.org'/><item jid='b@example.org'/>".into(),
            BadRequest,
        ),
        (
            "<item jid='a@example.org' subscription='remove'/><item jid='b@example.org'/>".into(),
            BadRequest,
        ),
        ("<item name='nobody'/>".into(), BadRequest),
        ("<item jid='a@example.org/resource'/>".into(), BadRequest),
        ("<item jid='a@b@c'/>".into(), JidMalformed),
        ("<item jid=''/>".into(), JidMalformed),
        ("<item jid='@example.org'/>".into(), JidMalformed),
        ("<item jid='juliet@example.org'/>".into(), NotAllowed),
        (
            "<item jid='a@example.org'><group>A</group><group>A</group></item>".into(),
            BadRequest,
        ),
        (
            "<item jid='a@example.org'><group/></item>".into(),
            NotAcceptable,
        ),
        (
            "<item jid='a@example.org'><group></group></item>".into(),
            NotAcceptable,
        ),
        (
            "<item jid='a@example.org'><group>A</group><group/></item>".into(),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org' name='{too_long}'/>"),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org'><group>{too_long}</group></item>"),
            NotAcceptable,
        ),
        (
            format!("<item jid='a@example.org'>{many}</item>"),
            NotAcceptable,
        ),
    ];
    for (query, expected) in rows {
        assert_eq!(roster_set(&query), Err(expected), "{query}");
    }
}

#[test]
fn roster_gets_carry_their_version() {
    let get = |query: &str| ask(OWN, &format!("<iq type='get' id='1'>{query}</iq>"));
    for (query, ver) in [
        ("<query xmlns='jabber:iq:roster'/>", None),
        ("<query xmlns='jabber:iq:roster' ver=''/>", Some("")),
        (
            "<query xmlns='jabber:iq:roster' ver='ver14'/>",
            Some("ver14"),
        ),
    ] {
        assert_eq!(
            get(query),
            IqOutcome::RosterGet {
                ver: ver.map(str::to_owned)
            },
            "{query}"
        );
    }
    let with_item = "<query xmlns='jabber:iq:roster'><item jid='a@example.org'/></query>";
    assert!(matches!(
        get(with_item),
        IqOutcome::Error(StanzaError::BadRequest, _)
    ));
}
