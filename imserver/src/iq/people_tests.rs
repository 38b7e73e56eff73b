//! vCards, searches and registrations: questions as XML, answers of a directory as data.

use super::*;
use crate::event::AccountAnswer;
use crate::iq::register::Stranger;
use directory::backend::{Card, Person, Photo, Profile};
use std::sync::LazyLock;
use xmpp::ns;

static PEOPLE: LazyLock<People> = LazyLock::new(|| People {
    search_domains: vec!["example.org".into()],
    register_domains: vec!["example.org".into()],
    ..People::default()
});

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("an address")
}

fn element(xml: &str) -> Element {
    Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("well-formed")
}

/// Asks as Juliet, at her domain, her account or Romeo's; `then` is given the request.
fn with<T>(xml: &str, to: &str, people: &People, then: impl FnOnce(&Request<'_>) -> T) -> T {
    let element = element(xml);
    let from = Jid::parse("juliet@example.org/balcony").expect("an address");
    let to = Jid::parse(to).expect("an address");
    let target = match to.localpart() {
        None => Target::Server,
        Some(name) => Target::Account {
            own: name == "juliet",
            may_see: name == "juliet",
        },
    };
    then(&Request {
        element: &element,
        from: &from,
        to: Some(&to),
        target,
        context: Context {
            rights: crate::policy::Rights::NONE,
            services: &[],
            archive: false,
            archive_page_max: 50,
            archive_search: true,
            archive_prefs_jids_max: 3,
            vcard_bytes_max: 1_000,
            private_element_bytes_max: 1_000,
            blocklist_items_max: 3,
            uptime_s: 17,
            pubsub: super::pubsub::limits(&crate::settings::Settings::default()),
            now_unix_ms: 0,
            people,
            contacts: &super::tests::CONTACTS,
            external_services: &[],
            ours: true,
            secure: true,
        },
    })
}

/// The answer: its payload, or the condition.
fn told(outcome: IqOutcome) -> Result<Node, String> {
    let condition = |xml: &Node| {
        let error = xml.child("error", "").or(xml.child("error", ns::CLIENT));
        let first = error
            .and_then(|e| e.children().next())
            .expect("a condition");
        first.name().to_owned()
    };
    match outcome {
        IqOutcome::Reply(bytes) => {
            let iq = Element::parse(bytes).expect("well-formed").tree();
            match iq.attr("type") {
                Some("error") => Err(condition(&iq)),
                _ => Ok(iq.children().next().unwrap_or(&iq).clone()),
            }
        }
        IqOutcome::Error(condition, _) => Err(condition.to_string()),
        other => panic!("{other:?}"),
    }
}

// ---- vCards ---------------------------------------------------------------------------------------------

fn profile() -> Profile {
    Profile {
        name: Some("Romeo <Montague>\u{7} & co\nsecond line".into()),
        given_name: Some("Romeo".into()),
        family_name: Some("Montague".into()),
        mail: vec!["romeo@mail.example".into(), "r@mail.example".into()],
        phone: vec!["+39 045 1".into()],
        title: Some("Heir".into()),
        organisation: Some("Montague".into()),
        unit: Some("Youth".into()),
        home: None,
    }
}

fn facts(profile: Profile, photo: Option<usize>, stored: Option<&str>) -> Found {
    let person = Person {
        jid: jid("romeo@example.org"),
        disabled: false,
        reference: String::new(),
        profile,
    };
    let photo = photo.map(|bytes| Photo {
        media_type: "image/png",
        bytes: vec![0; bytes].into(),
    });
    Found::Card(Some(Box::new(CardFacts {
        card: Card { person, photo },
        stored: stored.map(|xml| Bytes::copy_from_slice(xml.as_bytes())),
        avatar: None,
    })))
}

fn card(whose: &str, found: &Found) -> Result<Node, String> {
    let get = "<iq type='get' id='1'><vCard xmlns='vcard-temp'/></iq>";
    with(get, whose, &PEOPLE, |request| {
        let IqOutcome::Read(wait) = dispatch(request) else {
            panic!("looks up")
        };
        assert_eq!(wait, Wait::Card(jid(whose)));
        told(resume(request, &wait, found))
    })
}

fn leaf(vcard: &Node, path: &[&'static str]) -> String {
    let mut node = vcard;
    for name in path {
        node = node.child(name, ns::VCARD).expect("the field is there");
    }
    node.text().into_owned()
}

const STORED: &str = "<vCard xmlns='vcard-temp'><FN>R</FN><DESC>mine</DESC></vCard>";

#[test]
fn who_has_no_vcard_is_told_so_and_others_learn_nothing() {
    let none = || facts(Profile::default(), None, None);
    let nobody = Found::Card(None);
    for (whose, found, expected) in [
        ("juliet@example.org", none(), "item-not-found"),
        ("juliet@example.org", nobody.clone(), "service-unavailable"),
        ("romeo@example.org", none(), "service-unavailable"),
        ("romeo@example.org", nobody, "service-unavailable"),
        // An outage is never "no vCard".
        (
            "romeo@example.org",
            Found::Unavailable,
            "resource-constraint",
        ),
        (
            "juliet@example.org",
            Found::Unavailable,
            "resource-constraint",
        ),
    ] {
        assert_eq!(
            card(whose, &found),
            Err(expected.into()),
            "{whose} {found:?}"
        );
    }
    let stored = card(
        "romeo@example.org",
        &facts(Profile::default(), None, Some(STORED)),
    );
    let stored = stored.expect("a vCard");
    assert_eq!(leaf(&stored, &["FN"]), "R");
    assert_eq!(
        stored.children().count(),
        2,
        "nothing is added where the directory knows nothing"
    );
}

#[test]
fn what_the_directory_has_wins_and_the_rest_is_the_persons_own() {
    let own = "<vCard xmlns='vcard-temp'><FN>Romy</FN><NICKNAME>Romy</NICKNAME><EMAIL><USERID>a@b</USERID></EMAIL>\
               <DESC>mine</DESC><URL>http://r.example</URL><PHOTO><BINVAL>AAAA</BINVAL></PHOTO></vCard>";
    let vcard = card("romeo@example.org", &facts(profile(), None, Some(own))).expect("a vCard");
    for (path, text) in [
        // Escaped, one line, no control characters.
        (&["FN"][..], "Romeo <Montague> & co second line"),
        (&["N", "FAMILY"], "Montague"),
        (&["N", "GIVEN"], "Romeo"),
        (&["EMAIL", "USERID"], "romeo@mail.example"),
        (&["TEL", "NUMBER"], "+39 045 1"),
        (&["TITLE"], "Heir"),
        (&["ORG", "ORGNAME"], "Montague"),
        (&["ORG", "ORGUNIT"], "Youth"),
        (&["JABBERID"], "romeo@example.org"),
        (&["DESC"], "mine"),
        (&["URL"], "http://r.example"),
        (&["PHOTO", "BINVAL"], "AAAA"),
    ] {
        assert_eq!(leaf(&vcard, path), text);
    }
    let count = |name: &str| vcard.children().filter(|c| c.name() == name).count();
    assert_eq!((count("FN"), count("NICKNAME"), count("EMAIL")), (1, 1, 2));

    // A photo of the directory replaces one's own; one that is too large does not.
    for (bytes, shown) in [(6, "AAAAAAAA"), (5 * 1024 * 1024, "AAAA")] {
        let found = facts(profile(), Some(bytes), Some(own));
        let vcard = card("romeo@example.org", &found).expect("a vCard");
        assert_eq!(leaf(&vcard, &["PHOTO", "BINVAL"]), shown);
    }
    let vcard = card(
        "romeo@example.org",
        &facts(Profile::default(), Some(3), None),
    );
    assert_eq!(
        leaf(&vcard.expect("a vCard"), &["PHOTO", "TYPE"]),
        "image/png"
    );
}

#[test]
fn a_directory_with_hundreds_of_values_fills_no_stanza() {
    let profile = Profile {
        name: Some("x".repeat(10_000)),
        mail: (0..500).map(|n| format!("{n}@b")).collect(),
        ..Profile::default()
    };
    let vcard = card("romeo@example.org", &facts(profile, None, None)).expect("a vCard");
    assert_eq!(leaf(&vcard, &["FN"]).len(), 1_000);
    assert!(vcard.children().count() < 20);
}

// ---- search ---------------------------------------------------------------------------------------------

fn search(xml: &str, people: &People) -> Result<SearchQuery, String> {
    let xml = format!("<iq type='set' id='1'><query xmlns='jabber:iq:search'>{xml}</query></iq>");
    with(&xml, "example.org", people, |request| {
        match dispatch(request) {
            IqOutcome::Read(Wait::Search { domain, query }) => {
                assert_eq!(domain, "example.org");
                Ok(*query)
            }
            other => Err(told(other).expect_err("not answered at once")),
        }
    })
}

#[test]
fn a_question_is_the_same_in_both_kinds_of_form() {
    let field =
        |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let form = |fields: String| format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    let juliet = SearchQuery {
        given_name: Some("Jul*".into()),
        mail: Some("j@b".into()),
        ..SearchQuery::default()
    };
    let any = SearchQuery {
        any: Some("capulet".into()),
        ..SearchQuery::default()
    };
    let injected = SearchQuery {
        nickname: Some("*)(uid=*))(|(uid=*".into()),
        ..SearchQuery::default()
    };
    let long = "x".repeat(search::FIELD_CHARS_MAX + 1);
    let refused = |condition: &str| Err(condition.to_owned());
    for (xml, expected) in [
        (
            "<first> Jul*\n</first><last/><email>j@b</email>".into(),
            Ok(juliet.clone()),
        ),
        (
            form(field("first", "Jul*") + &field("email", "j@b") + &field("other", "x")),
            Ok(juliet),
        ),
        (form(field("any", "capulet")), Ok(any)),
        ("<nick>*)(uid=*))(|(uid=*</nick>".into(), Ok(injected)),
        (String::new(), refused("not-acceptable")),
        ("<first/><last>  </last>".into(), refused("not-acceptable")),
        ("<other>x</other>".into(), refused("not-acceptable")),
        (form(String::new()), refused("not-acceptable")),
        (
            form(field("first", "a") + &field("first", "b")),
            refused("bad-request"),
        ),
        ("<x xmlns='jabber:x:data'/>".into(), refused("bad-request")),
        (format!("<first>{long}</first>"), refused("not-acceptable")),
    ] {
        assert_eq!(search(&xml, &PEOPLE), expected, "{xml}");
    }
}

#[test]
fn a_domain_is_searched_by_its_own_people_unless_configured() {
    let get = "<iq type='get' id='1'><query xmlns='jabber:iq:search'/></iq>";
    let two = |search_across| People {
        search_domains: vec!["example.org".into(), "other.example".into()],
        search_across,
        ..People::default()
    };
    for (to, people, expected) in [
        ("example.org", two(false), Ok(())),
        ("other.example", two(false), Err("forbidden".to_owned())),
        ("other.example", two(true), Ok(())),
        (
            "example.org",
            People::default(),
            Err("service-unavailable".to_owned()),
        ),
    ] {
        let answer = with(get, to, &people, |request| told(dispatch(request)));
        assert_eq!(answer.map(drop), expected, "{to} {people:?}");
        // What is announced is what is there.
        let info =
            "<iq type='get' id='1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
        let info = with(info, to, &people, |request| told(dispatch(request)));
        let info = info.expect("an answer");
        let announced = info.children().any(|c| c.attr("var") == Some(ns::SEARCH));
        assert_eq!(announced, people.searches(to));
    }
}

fn found(kind: &str, people: usize, more: bool) -> Node {
    let person = |n: usize| Person {
        jid: jid(&format!("p{n}@example.org")),
        disabled: false,
        reference: String::new(),
        profile: match n {
            0 => profile(),
            _ => Profile::default(),
        },
    };
    let answer = SearchAnswer {
        people: (0..people).map(person).collect(),
        more,
    };
    let asked = match kind {
        "form" => {
            "<x xmlns='jabber:x:data' type='submit'><field var='any'><value>x</value></field></x>"
        }
        _ => "<nick>x</nick>",
    };
    let xml = format!("<iq type='set' id='1'><query xmlns='jabber:iq:search'>{asked}</query></iq>");
    with(&xml, "example.org", &PEOPLE, |request| {
        let IqOutcome::Read(wait) = dispatch(request) else {
            panic!("looks up")
        };
        told(resume(request, &wait, &Found::People(answer))).expect("an answer")
    })
}

#[test]
fn answers_come_in_the_kind_of_the_question_and_say_if_there_are_more() {
    let query = found("fields", 2, true);
    let items: Vec<&Node> = query.children().collect();
    assert_eq!(items[0].attr("jid"), Some("p0@example.org"));
    assert_eq!(
        items[0].child("first", ns::SEARCH).expect("a name").text(),
        "Romeo"
    );
    assert_eq!(
        items[1].child("nick", ns::SEARCH).expect("a name").text(),
        "p1"
    );
    assert_eq!(items.len(), 2);
    assert_eq!(found("fields", 0, false).children().count(), 0);

    let form = |people, more| {
        let query = found("form", people, more);
        let x = query.child("x", ns::DATA_FORMS).expect("a form");
        xmpp::form::Form::parse(x).expect("a form")
    };
    let two = form(2, true);
    assert_eq!(two.items.len(), 2);
    assert_eq!(two.reported.len(), two.items[0].len());
    assert!(
        two.instructions
            .expect("it says so")
            .contains("the first 2")
    );
    assert_eq!(form(2, false).instructions, None);
    assert!(form(0, false).instructions.is_some());
}

// ---- registration ---------------------------------------------------------------------------------------

fn change(query: &str, secure: bool, people: &People) -> Result<Wait, String> {
    let xml =
        format!("<iq type='set' id='1'><query xmlns='jabber:iq:register'>{query}</query></iq>");
    with(&xml, "juliet@example.org", people, |request| {
        let mut request = *request;
        request.context.secure = secure;
        match dispatch(&request) {
            IqOutcome::Read(wait) => Ok(wait),
            other => Err(told(other).expect_err("not answered at once")),
        }
    })
}

#[test]
fn the_owner_changes_the_password_or_ends_the_account() {
    let juliet = || jid("juliet@example.org");
    let password = |p: &str| Ok(Wait::Password(juliet(), Secret(p.into())));
    let refused = |condition: &str| Err(condition.to_owned());
    let asks = |name: &str, p: &str| format!("<username>{name}</username><password>{p}</password>");
    for (query, secure, expected) in [
        (asks("juliet", "new secret"), true, password("new secret")),
        (asks("Juliet", "new secret"), true, password("new secret")),
        (
            asks("juliet", "new secret"),
            false,
            refused("not-authorized"),
        ),
        (asks("romeo", "new secret"), true, refused("not-allowed")),
        (
            asks("juliet@other.example", "new secret"),
            true,
            refused("not-allowed"),
        ),
        (asks("juliet", "short"), true, refused("not-acceptable")),
        (
            asks("juliet", &"x".repeat(register::PASSWORD_BYTES_MAX + 1)),
            true,
            refused("not-acceptable"),
        ),
        (
            "<password>new secret</password>".into(),
            true,
            refused("bad-request"),
        ),
        (
            "<username>juliet</username>".into(),
            true,
            refused("bad-request"),
        ),
        ("<remove/>".into(), true, Ok(Wait::Unregister(juliet()))),
        (
            "<remove/><username>romeo</username>".into(),
            true,
            refused("bad-request"),
        ),
    ] {
        assert_eq!(change(&query, secure, &PEOPLE), expected, "{query}");
    }
    let off = People::default();
    assert_eq!(change("<remove/>", true, &off), refused("not-allowed"));
    assert_eq!(
        change(&asks("juliet", "new secret"), true, &off),
        password("new secret")
    );
}

#[test]
fn a_stranger_is_told_what_is_wrong() {
    let ask = |kind: &str, attrs: &str, query: &str| {
        let xml = format!(
            "<iq type='{kind}' id='1'{attrs}><query xmlns='jabber:iq:register'>{query}</query></iq>"
        );
        match register::before_login(&element(&xml), "example.org", &PEOPLE) {
            Stranger::Reply(bytes) => Err(told(IqOutcome::Reply(bytes)).map(drop)),
            Stranger::Register { registration, id } => {
                assert_eq!(id, "1");
                Ok((registration.jid, registration.password, registration.mail))
            }
        }
    };
    let fields = "<username>Nurse</username><password>secret secret</password><email>n@b</email><misc>x</misc>";
    let form = "<x xmlns='jabber:x:data' type='submit'><field var='username'><value>nurse</value></field>\
                <field var='password'><value>secret secret</value></field><field var='email'><value>n@b</value></field></x>";
    let nurse = Ok((
        jid("nurse@example.org"),
        "secret secret".to_owned(),
        Some("n@b".to_owned()),
    ));
    assert_eq!(ask("set", "", fields), nurse);
    assert_eq!(ask("set", " to='example.org'", form), nurse);
    assert_eq!(ask("get", "", ""), Err(Ok(())));
    let long = format!(
        "{fields}<name>{}</name>",
        "x".repeat(register::FIELD_CHARS_MAX + 1)
    );
    for (attrs, query, condition) in [
        (" to='other.example'", fields, "service-unavailable"),
        (" to='romeo@example.org'", fields, "service-unavailable"),
        ("", "<remove/>", "registration-required"),
        ("", "", "not-acceptable"),
        ("", "<username>nurse</username>", "not-acceptable"),
        (
            "",
            "<username>nurse</username><password>short</password>",
            "not-acceptable",
        ),
        (
            "",
            "<username>nurse@example.org</username><password>secret secret</password>",
            "not-acceptable",
        ),
        (
            "",
            "<username>a/b</username><password>secret secret</password>",
            "not-acceptable",
        ),
        (
            "",
            "<x xmlns='jabber:x:data' type='submit'/>",
            "not-acceptable",
        ),
        ("", &long, "not-acceptable"),
    ] {
        assert_eq!(
            ask("set", attrs, query),
            Err(Err(condition.into())),
            "{query}"
        );
    }
}

#[test]
fn what_became_of_a_registration_is_told() {
    for (answer, expected) in [
        (AccountAnswer::Done, None),
        (AccountAnswer::Exists, Some("conflict")),
        (
            AccountAnswer::Refused("<weak>".into()),
            Some("not-acceptable"),
        ),
        (AccountAnswer::NotHere, Some("not-allowed")),
        (AccountAnswer::TooMany, Some("resource-constraint")),
        (AccountAnswer::Unavailable, Some("resource-constraint")),
    ] {
        let bytes = register::registered("a'b", "example.org", &answer);
        let iq = Element::parse(bytes.clone()).expect("well-formed");
        assert_eq!(iq.attr("id").as_deref(), Some("a'b"));
        assert_eq!(iq.attr("from").as_deref(), Some("example.org"));
        let told = told(IqOutcome::Reply(bytes)).err();
        assert_eq!(told.as_deref(), expected);
    }
}
