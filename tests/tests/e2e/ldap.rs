//! People of an LDAP directory: they log in with the password they have there, and no failure of it reaches who is online.

use crate::clients::{self, Kind};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use isthmus_tests::client::{Account, Client, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::slapd::{BASE, GROUPS, LIMITED, PEOPLE, SERVICE, Slapd, Tree};
use isthmus_tests::wait;
use isthmus_tests::xml::Xml;
use std::time::Duration;

/// For what a back-off of ten seconds may delay, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A site whose people are in `slapd`. Cached answers live a second, so that the directory is asked.
fn site(slapd: &Slapd) -> Site {
    let site = prepared(slapd);
    started(site)
}

pub fn prepared(slapd: &Slapd) -> Site {
    prepared_with(slapd, true)
}

/// Its mux may be another process.
fn prepared_with(slapd: &Slapd, embedded: bool) -> Site {
    let site = Site::init(&Plan {
        plaintext: false,
        embedded,
        init: slapd.init_args().unwrap(),
        ..Plan::default()
    })
    .unwrap();
    for (key, value) in [("operation_timeout_s", "1"), ("connect_timeout_s", "1")] {
        site.set("imserver.toml", "[[directory]]", key, value)
            .unwrap();
    }
    for (key, value) in [("ttl_s", "1"), ("negative_ttl_s", "1")] {
        site.set("imserver.toml", "[directory_cache]", key, value)
            .unwrap();
    }
    site
}

pub fn started(mut site: Site) -> Site {
    site.start_server().unwrap();
    site.await_clients().unwrap();
    site
}

pub fn online(site: &Site, user: &str) -> Client {
    let mut client = site
        .login(Transport::StartTls, &Account::new(user))
        .unwrap();
    client.available().unwrap();
    client
}

/// `success`, or the condition of the failure.
pub fn outcome(site: &Site, user: &str, password: &str) -> String {
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    let account = Account {
        user: user.into(),
        password: password.into(),
    };
    let answer = client
        .sasl(&account, &Sasl::Mechanism("PLAIN".into()))
        .unwrap();
    match answer.name.as_str() {
        "failure" => answer
            .elements()
            .next()
            .map(|c| c.name.clone())
            .unwrap_or_default(),
        name => name.to_owned(),
    }
}

pub fn until_outcome(site: &Site, user: &str, expected: &str) {
    let password = format!("{user}-password");
    wait::until_true(PATIENCE, &format!("{user}: {expected}"), || {
        let got = outcome(site, user, &password);
        assert!(
            got == expected || got == "temporary-auth-failure" || got == "success",
            "never {got} of somebody who exists"
        );
        got == expected
    });
}

#[test]
fn people_of_a_directory_log_in_and_chat() {
    let slapd = Slapd::start(50, 2).unwrap();
    for user in ["slixmpp", "partner"] {
        slapd.add(user).unwrap();
    }
    let site = site(&slapd);
    let mut romeo = online(&site, "romeo");
    assert_eq!(romeo.jid.split('/').next(), Some("romeo@localhost"));
    let mut juliet = online(&site, "juliet");
    juliet.chat("romeo@localhost", "hello").unwrap();
    assert_eq!(romeo.next_body().unwrap(), "hello");
    // Somebody who was never here has an inbox all the same; somebody who does not exist has none.
    juliet.chat("u00007@localhost", "when you come").unwrap();
    juliet.ping().unwrap();
    let mut late = online(&site, "u00007");
    assert_eq!(late.next_body().unwrap(), "when you come");
    for (user, password, expected) in [
        ("romeo", "romeo-password", "success"),
        ("romeo@localhost", "romeo-password", "success"),
        ("romeo@corp.example", "romeo-password", "success"),
        ("tybalt", "tybalt-password", "success"),
        ("romeo", "juliet-password", "not-authorized"),
        ("romeo", "", "not-authorized"),
        ("nobody", "romeo-password", "not-authorized"),
        ("expired", "expired-password", "account-disabled"),
        ("expired", "wrong", "not-authorized"),
        ("twin@corp.example", "twin-password", "not-authorized"),
        ("*", "romeo-password", "not-authorized"),
        ("*)(uid=*", "romeo-password", "not-authorized"),
        ("rom*", "romeo-password", "not-authorized"),
        ("romeo)(|(uid=*", "romeo-password", "not-authorized"),
        ("\\72omeo", "romeo-password", "not-authorized"),
        (
            "uid=romeo,ou=people,dc=corp,dc=example",
            "romeo-password",
            "not-authorized",
        ),
    ] {
        let got = outcome(&site, user, password);
        let expected = if password.is_empty() {
            vec![expected, "malformed-request"]
        } else {
            vec![expected]
        };
        assert!(expected.contains(&got.as_str()), "{user} {password}: {got}");
    }
    // Without SCRAM secrets in the directory no client is led to ask for them.
    let client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    assert_eq!(client.mechanisms(), ["PLAIN"]);
    clients::chat_with(Kind::Slixmpp, &site.endpoint(Transport::StartTls)).unwrap();
}

#[test]
fn no_failure_of_the_directory_reaches_who_is_online() {
    let mut slapd = Slapd::start(10, 1).unwrap();
    let mut site = site(&slapd);
    let mut romeo = online(&site, "romeo");
    assert_eq!(outcome(&site, "juliet", "juliet-password"), "success");

    // It takes connections and says nothing.
    slapd.freeze().unwrap();
    until_outcome(&site, "juliet", "temporary-auth-failure");
    romeo.ping().unwrap();
    romeo.chat("romeo@localhost", "to myself").unwrap();
    assert_eq!(romeo.next_body().unwrap(), "to myself");
    slapd.thaw().unwrap();
    until_outcome(&site, "juliet", "success");

    // It dies, perhaps while somebody logs in.
    slapd.kill();
    until_outcome(&site, "juliet", "temporary-auth-failure");
    for _ in 0..5 {
        assert_eq!(
            outcome(&site, "u00003", "u00003-password"),
            "temporary-auth-failure"
        );
    }
    romeo.ping().unwrap();
    slapd.restart().unwrap();
    until_outcome(&site, "juliet", "success");

    // It does not know its own tree for a while.
    let rename = |from: &str, to: &str| {
        slapd
            .modify(&format!(
                "dn: ou={from},{BASE}\nchangetype: modrdn\nnewrdn: ou={to}\ndeleteoldrdn: 1\n"
            ))
            .unwrap();
    };
    rename("people", "away");
    until_outcome(&site, "juliet", "temporary-auth-failure");
    rename("away", "people");
    until_outcome(&site, "juliet", "success");

    // All of it was said, each change once.
    romeo.ping().unwrap();
    let log = site.server().log();
    let lines = |words: &str| log.lines().filter(|l| l.contains(words)).count();
    assert_eq!(
        lines("no directory server answers our questions"),
        3,
        "{log}"
    );
    assert_eq!(lines("answers again"), 3, "{log}");
    assert!(!log.contains("-password"), "{log}");
}

/// The directory is killed in the middle of a flood of messages between its people, and comes back: every message arrives, once and in
/// order, nobody is disconnected, and the log has one line at each change.
#[test]
fn a_directory_killed_under_load_takes_nothing_from_anybody() {
    const PAIRS: usize = 20;
    const MESSAGES: usize = 200;
    let mut slapd = Slapd::start(2 * PAIRS, 1).unwrap();
    let mut site = site(&slapd);
    let user = |n: usize| format!("u{n:05}");
    let senders: Vec<Client> = (0..PAIRS).map(|n| online(&site, &user(n))).collect();
    let readers: Vec<Client> = (0..PAIRS)
        .map(|n| online(&site, &user(PAIRS + n)))
        .collect();
    let halfway = std::sync::Barrier::new(PAIRS + 1);
    std::thread::scope(|scope| {
        for (n, mut sender) in senders.into_iter().enumerate() {
            let (halfway, to) = (&halfway, format!("u{:05}@localhost", PAIRS + n));
            scope.spawn(move || {
                for m in 0..MESSAGES {
                    if m == MESSAGES / 2 {
                        halfway.wait();
                    }
                    sender.chat(&to, &m.to_string()).unwrap();
                    if m % 10 == 0 {
                        sender.ping().unwrap();
                    }
                }
                sender.ping().unwrap();
            });
        }
        for mut reader in readers {
            reader.patience = PATIENCE;
            scope.spawn(move || {
                for m in 0..MESSAGES {
                    assert_eq!(reader.next_body().unwrap(), m.to_string());
                }
                reader.ping().unwrap();
            });
        }
        halfway.wait();
        slapd.kill();
        until_outcome(&site, "juliet", "temporary-auth-failure");
    });
    slapd.restart().unwrap();
    until_outcome(&site, "juliet", "success");
    let log = site.server().log();
    let lines = |words: &str| log.lines().filter(|l| l.contains(words)).count();
    let down = "no directory server answers our questions";
    assert_eq!((lines(down), lines("answers again")), (1, 1), "{log}");
}

#[test]
fn what_changes_in_the_directory_counts_at_once_for_passwords() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = site(&slapd);
    let mut romeo = online(&site, "romeo");
    assert_eq!(outcome(&site, "juliet", "juliet-password"), "success");
    slapd.set_password("juliet", "another").unwrap();
    assert_eq!(
        outcome(&site, "juliet", "juliet-password"),
        "not-authorized"
    );
    assert_eq!(outcome(&site, "juliet", "another"), "success");
    let mut gone = online(&site, "u00001");
    slapd.delete("u00001").unwrap();
    assert_eq!(
        outcome(&site, "u00001", "u00001-password"),
        "not-authorized"
    );
    romeo.ping().unwrap();
    let _ = gone.ping();
    slapd.modify(&format!("dn: uid=u00002,{PEOPLE}\nchangetype: modify\nadd: objectClass\nobjectClass: shadowAccount\n-\nadd: shadowExpire\nshadowExpire: 1\n")).unwrap();
    wait::until_true(PATIENCE, "an expired account is disabled", || {
        outcome(&site, "u00002", "u00002-password") == "account-disabled"
    });
}

#[test]
fn a_server_starts_before_its_directory_and_takes_up_another_one() {
    let mut slapd = Slapd::start(10, 1).unwrap();
    let site = prepared(&slapd);
    slapd.kill();
    let mut site = started(site);
    assert_eq!(
        outcome(&site, "romeo", "romeo-password"),
        "temporary-auth-failure"
    );
    slapd.restart().unwrap();
    until_outcome(&site, "romeo", "success");
    let mut romeo = online(&site, "romeo");
    until_swept(&mut romeo);
    // A reload with a mistake changes nothing; one without takes effect and drops nobody.
    let reload = |site: &mut Site| {
        let pid = site.server().pid().to_string();
        run(std::process::Command::new("kill").args(["-HUP", &pid])).unwrap();
    };
    site.set(
        "imserver.toml",
        "[[directory]]",
        "user_filter",
        "\"(employeeType=left\"",
    )
    .unwrap();
    reload(&mut site);
    wait::until_true(PATIENCE, "the mistake is said", || {
        site.server().log().contains("is no LDAP filter")
    });
    assert_eq!(outcome(&site, "juliet", "juliet-password"), "success");
    site.set(
        "imserver.toml",
        "[[directory]]",
        "user_filter",
        "\"(employeeType=left)\"",
    )
    .unwrap();
    reload(&mut site);
    wait::until_true(PATIENCE, "the other filter is in force", || {
        outcome(&site, "juliet", "juliet-password") == "not-authorized"
    });
    assert_eq!(outcome(&site, "left", "left-password"), "success");
    // Whom the directory does not know any more is logged off, by the next look at everybody.
    romeo.patience = PATIENCE;
    assert_eq!(
        romeo.until_closed().unwrap().as_deref(),
        Some("not-authorized")
    );
}

/// The groups of somebody's roster item, or `None` if there is none.
fn groups_in(roster: &isthmus_tests::xml::Xml, jid: &str) -> Option<Vec<String>> {
    let mut items = roster.elements();
    let item = items.find(|i| i.name == "item" && i.attr("jid") == Some(jid))?;
    (item.attr("subscription") != Some("remove"))
        .then(|| item.elements().map(|g| g.text()).collect())
}

pub fn roster(client: &mut Client) -> isthmus_tests::xml::Xml {
    let answer = client.request("get", "r", None, "<query xmlns='jabber:iq:roster'/>");
    answer.unwrap().child("query").unwrap().clone()
}

/// Waits until the directory has been looked at: then romeo has a colleague.
fn until_swept(romeo: &mut Client) {
    wait::until_true(PATIENCE, "the first look at the directory", || {
        groups_in(&roster(romeo), "juliet@localhost").is_some()
    });
}

#[test]
fn the_directory_gives_vcards_and_is_searched() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = site(&slapd);
    let mut romeo = online(&site, "romeo");
    let romeo = std::cell::RefCell::new(&mut romeo);
    let vcard = |of: &str| {
        let card = "<vCard xmlns='vcard-temp'/>";
        let answer = romeo.borrow_mut().request("get", "v", Some(of), card);
        answer.unwrap().to_string()
    };
    let juliet = vcard("juliet@localhost");
    for text in ["Juliet Capulet", "engineer", "juliet@corp.example"] {
        assert!(juliet.contains(text), "{text} in {juliet}");
    }
    assert!(vcard("romeo@localhost").contains("BINVAL"));
    // A picture of 5 MB is left out, and what else there is comes.
    let tybalt = vcard("tybalt@localhost");
    assert!(
        tybalt.contains("Capulet, Tybalt") && !tybalt.contains("BINVAL"),
        "{tybalt}"
    );
    assert!(vcard("nobody@localhost").contains("service-unavailable"));
    // The same as a vCard4 and as an avatar, as long as there is none of their own.
    let items = |of: &str, node: &str, more: &str| {
        let items = format!("<items node='{node}'>{more}</items>");
        let query = format!("<pubsub xmlns='http://jabber.org/protocol/pubsub'>{items}</pubsub>");
        romeo
            .borrow_mut()
            .request("get", "i", Some(of), &query)
            .unwrap()
    };
    let juliet = items("juliet@localhost", "urn:xmpp:vcard4", "").to_string();
    for text in [
        "<item id='current'>",
        "<fn><text>Juliet Capulet</text></fn>",
        "<title><text>engineer</text></title>",
        "<text>juliet@corp.example</text>",
        "<uri>xmpp:juliet@localhost</uri>",
    ] {
        assert!(juliet.contains(text), "{text} in {juliet}");
    }
    let metadata = "urn:xmpp:avatar:metadata";
    let told = items("romeo@localhost", metadata, "").to_string();
    let id = told
        .split("<info ")
        .nth(1)
        .and_then(|i| i.split(" id='").nth(1));
    let id = id.and_then(|i| i.split('\'').next()).unwrap().to_owned();
    assert_eq!(id.len(), 40, "{told}");
    let which = format!("<item id='{id}'/>");
    let data = items("romeo@localhost", "urn:xmpp:avatar:data", &which).to_string();
    let base64 = data.split("<data xmlns='urn:xmpp:avatar:data'>").nth(1);
    let base64 = base64.and_then(|text| text.split('<').next()).unwrap();
    assert!(base64.len() > 100, "{data}");
    assert!(vcard("romeo@localhost").contains(base64), "{data}");
    let card = items("romeo@localhost", "urn:xmpp:vcard4", "").to_string();
    let uri = format!(";base64,{base64}</uri></photo>");
    assert!(card.contains(&uri), "{card}");
    let other = format!("<item id='{}'/>", "0".repeat(40));
    let none = items("romeo@localhost", "urn:xmpp:avatar:data", &other).to_string();
    assert!(!none.contains("<data"), "{none}");
    for (of, node, want) in [
        ("tybalt@localhost", metadata, "item-not-found"),
        ("nobody@localhost", metadata, "service-unavailable"),
        ("juliet@localhost", "urn:example:other", "item-not-found"),
    ] {
        let answer = items(of, node, "").to_string();
        assert!(
            answer.contains(want) || answer.contains("service-unavailable"),
            "{of} {node}: {answer}"
        );
    }
    // What its owner publishes is what there is.
    let published = "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='urn:xmpp:avatar:metadata'>\
        <item id='none'><metadata xmlns='urn:xmpp:avatar:metadata'/></item></publish></pubsub>";
    let answer = romeo
        .borrow_mut()
        .request("set", "p", None, published)
        .unwrap();
    assert_eq!(answer.attr("type"), Some("result"), "{answer}");
    let told = items("romeo@localhost", metadata, "").to_string();
    assert!(
        told.contains("id='none'") && !told.contains("<info"),
        "{told}"
    );
    let search = |last: &str| {
        let query = format!("<query xmlns='jabber:iq:search'><last>{last}</last></query>");
        let answer = romeo
            .borrow_mut()
            .request("set", "s", Some("localhost"), &query);
        answer.unwrap().to_string()
    };
    let capulets = search("Capulet");
    for (jid, there) in [
        ("juliet@localhost", true),
        ("tybalt@localhost", true),
        ("romeo@localhost", false),
    ] {
        let item = format!("<item jid='{jid}'>");
        assert_eq!(capulets.contains(&item), there, "{jid} in {capulets}");
    }
    for nobody in ["*)(uid=*", "Cap\\75let", "Capulet)(", "C*t"] {
        assert!(!search(nobody).contains("<item "), "{nobody}");
    }
    assert!(search("Cap*").contains("juliet@localhost"));
}

/// Clients that know avatars by presence alone (XEP-0153) see the pictures of colleagues, and that of the vCard is always the one told of.
#[test]
fn a_photo_of_the_directory_is_told_of_in_presence() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = site(&slapd);
    let mut juliet = online(&site, "juliet");
    juliet.patience = PATIENCE;
    wait::until_true(PATIENCE, "the first look at the directory", || {
        groups_in(&roster(&mut juliet), "romeo@localhost").is_some()
    });
    // By presence (XEP-0153), and by a personal event (XEP-0084).
    let hash = |e: &Xml| {
        let update = e.elements().find(|c| c.is("vcard-temp:x:update", "x"))?;
        Some(update.child("photo")?.text())
    };
    let avatar = |e: &Xml| {
        let items = e.child("event")?.child("items")?;
        let item = items.child("item")?;
        let info = item.child("metadata")?.child("info")?;
        (items.attr("node") == Some("urn:xmpp:avatar:metadata")).then_some(())?;
        info.attr("id").map(str::to_owned)
    };
    // Both say the same, or only presence says anything.
    let told = |client: &mut Client, of: &str, events: bool, other_than: &str| {
        let (mut by_presence, mut by_event) = (None, None);
        let other = |id: &String| id != other_than;
        client
            .element_where(&format!("a photo of {of}"), |e| {
                let from = e.attr("from").unwrap_or_default();
                if from.split('/').next() == Some(of) {
                    by_presence = hash(e).filter(other).or(by_presence.take());
                    by_event = avatar(e).filter(other).or(by_event.take());
                }
                by_presence.is_some() && (by_event.is_some() || !events)
            })
            .unwrap();
        if events {
            assert_eq!(by_presence, by_event);
        }
        by_presence.unwrap()
    };
    // What one sees in the vCard is what presence tells of.
    let shown = |client: &mut Client| {
        let card = "<vCard xmlns='vcard-temp'/>";
        let answer = client.request("get", "v", Some("romeo@localhost"), card);
        let answer = answer.unwrap().to_string();
        let base64 = answer.split("<BINVAL>").nth(1).unwrap();
        let bytes = STANDARD.decode(base64.split('<').next().unwrap()).unwrap();
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &bytes);
        let digits = hash.as_ref().iter().map(|byte| format!("{byte:02x}"));
        digits.collect::<String>()
    };
    // She wants to hear of avatars by personal events, too (XEP-0084); her client is asked what its hash means.
    let caps = "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://test.example' ver='GLIKGhhP6tgsH0RjVUdXOBcAsDI='/></presence>";
    juliet.send(caps).unwrap();
    let asks = juliet.element_where("a question for capabilities", |e| {
        e.name == "iq" && e.attr("type") == Some("get")
    });
    let id = asks.unwrap().attr("id").unwrap().to_owned();
    juliet.send(&format!("<iq type='result' id='{id}' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info' node='http://test.example#GLIKGhhP6tgsH0RjVUdXOBcAsDI='><identity category='client' type='pc' name='avatar_conversion'/><feature var='http://jabber.org/protocol/disco#info'/><feature var='urn:xmpp:avatar:metadata+notify'/></query></iq>")).unwrap();
    juliet.ping().unwrap();
    let mut romeo = online(&site, "romeo");
    romeo.patience = PATIENCE;
    let of_directory = told(&mut juliet, "romeo@localhost", true, "");
    assert_eq!(told(&mut romeo, "romeo@localhost", false, ""), of_directory);
    assert_eq!(shown(&mut juliet), of_directory);
    // One's own takes its place, and gives it back when its node goes.
    let own = "<vCard xmlns='vcard-temp'><PHOTO><TYPE>image/png</TYPE><BINVAL>bWluZQ==</BINVAL></PHOTO></vCard>";
    romeo.request("set", "s", None, own).unwrap();
    let of_romeo = told(&mut juliet, "romeo@localhost", true, &of_directory);
    assert_eq!(shown(&mut juliet), of_romeo);
    let gone = "<pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><delete node='urn:xmpp:avatar:metadata'/></pubsub>";
    romeo.request("set", "d", None, gone).unwrap();
    let again = told(&mut juliet, "romeo@localhost", true, &of_romeo);
    assert_eq!((&again, shown(&mut juliet)), (&of_directory, again.clone()));
    // Another one in the directory is seen with the next log-in.
    let other = STANDARD.encode(b"\xff\xd8\xff\xe0another");
    slapd
        .modify(&format!(
            "dn: uid=romeo,{PEOPLE}\nchangetype: modify\nreplace: jpegPhoto\njpegPhoto:: {other}\n"
        ))
        .unwrap();
    run(&mut site.imadmin(["cache", "flush"])).unwrap();
    let mut phone = online(&site, "romeo");
    let now = told(&mut juliet, "romeo@localhost", true, &of_directory);
    assert_eq!(shown(&mut juliet), now);
    // Who comes later is sent it as the last item.
    juliet.send("<presence type='unavailable'/>").unwrap();
    juliet.send(caps).unwrap();
    assert_eq!(told(&mut juliet, "romeo@localhost", true, ""), now);
    // She has none, and nothing is said of one.
    let from_juliet = |e: &Xml| e.name == "presence" && e.attr("from") == Some(juliet.jid.as_str());
    let hers = phone.element_where("presence of a colleague", from_juliet);
    assert!(hers.unwrap().child("x").is_none());
}

#[test]
fn groups_are_in_rosters_and_a_change_of_them_is_pushed() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = site(&slapd);
    let mut romeo = online(&site, "romeo");
    romeo.patience = PATIENCE;
    until_swept(&mut romeo);
    let sales = "Sales team";
    let groups = groups_in(&roster(&mut romeo), "juliet@localhost").unwrap();
    assert!(groups.iter().any(|g| g == sales), "{groups:?}");
    // Members see each other without a subscription.
    let mut juliet = online(&site, "juliet");
    romeo
        .element_where("presence of a colleague", |e| {
            e.name == "presence" && e.attr("from") == Some(&juliet.jid)
        })
        .unwrap();
    // Somebody joins, and leaves again.
    let change = |what: &str, uid: &str| {
        let dn = format!("cn={sales},ou=groups,dc=corp,dc=example");
        let member = format!("uid={uid},{PEOPLE}");
        let ldif = format!("dn: {dn}\nchangetype: modify\n{what}: member\nmember: {member}\n");
        slapd.modify(&ldif).unwrap();
    };
    let mut pushed = |what: &str, wanted: &dyn Fn(Option<Vec<String>>) -> bool| {
        romeo
            .element_where(what, |e| {
                e.attr("type") == Some("set")
                    && e.child("query").is_some_and(|q| {
                        let ours =
                            |i: &isthmus_tests::xml::Xml| i.attr("jid") == Some("u00003@localhost");
                        q.elements().any(ours) && wanted(groups_in(q, "u00003@localhost"))
                    })
            })
            .unwrap();
    };
    let in_sales =
        |groups: Option<Vec<String>>| groups.is_some_and(|all| all.iter().any(|g| g == sales));
    change("add", "u00003");
    pushed("a push of the new colleague", &in_sales);
    change("delete", "u00003");
    pushed("a push of the one who has left", &|groups| {
        !in_sales(groups)
    });
    // An entry that goes is logged off, once the directory has been asked about it alone.
    slapd.delete("juliet").unwrap();
    juliet.patience = PATIENCE;
    assert_eq!(
        juliet.until_closed().unwrap().as_deref(),
        Some("not-authorized")
    );
    // An outage changes nothing for who is online.
    drop(slapd);
    assert!(groups_in(&roster(&mut romeo), "juliet@localhost").is_none());
    romeo.ping().unwrap();
}

/// Sessions may be older than what a server knows of its directories: it was killed, and the files of that are lost.
#[test]
fn who_is_missing_at_the_first_look_is_logged_off_and_nobody_else() {
    let mut slapd = Slapd::start(10, 1).unwrap();
    let mut site = prepared_with(&slapd, false);
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    let mut romeo = online(&site, "romeo");
    until_swept(&mut romeo);
    let mut juliet = online(&site, "juliet");
    let mut expired = online(&site, "u00001");
    site.kill_server();
    slapd.delete("juliet").unwrap();
    slapd.modify(&format!("dn: uid=u00001,{PEOPLE}\nchangetype: modify\nadd: objectClass\nobjectClass: shadowAccount\n-\nadd: shadowExpire\nshadowExpire: 1\n")).unwrap();
    slapd.kill();
    for file in ["population", "population.told"] {
        std::fs::remove_file(site.path().join("data").join(file)).unwrap();
    }
    // A look that fails says nothing of anybody.
    site.start_server_only().unwrap();
    wait::until_true(PATIENCE, "a look at everybody that fails", || {
        site.server()
            .log()
            .contains("a sweep of a directory failed")
    });
    for client in [&mut romeo, &mut juliet, &mut expired] {
        client.ping().unwrap();
    }
    // The first one that does not.
    slapd.restart().unwrap();
    for gone in [&mut juliet, &mut expired] {
        gone.patience = PATIENCE;
        assert_eq!(
            gone.until_closed().unwrap().as_deref(),
            Some("not-authorized")
        );
    }
    romeo.ping().unwrap();
}

/// With keys made of the password at the first log-in, the next ones are by SCRAM, which the directory knows nothing of.
#[test]
fn scram_works_at_the_second_log_in_where_keys_are_made_of_passwords() {
    let slapd = Slapd::start(10, 1).unwrap();
    let site = prepared(&slapd);
    site.set("imserver.toml", "[auth]", "scram_capture_s", "3600")
        .unwrap();
    let site = started(site);
    let by = |password: &str, mechanism: &str| {
        let account = Account {
            user: "juliet".into(),
            password: password.into(),
        };
        let sasl = Sasl::Mechanism(mechanism.into());
        Client::login_with(&site.endpoint(Transport::StartTls), &account, None, &sasl).map(drop)
    };
    let (old, scram) = (
        "juliet-password",
        ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"],
    );
    let offered = Client::open(&site.endpoint(Transport::StartTls))
        .unwrap()
        .mechanisms();
    for mechanism in scram {
        assert!(offered.iter().any(|o| o == mechanism), "{offered:?}");
        assert!(by(old, mechanism).is_err(), "there are no keys yet");
    }
    by(old, "PLAIN").unwrap();
    wait::until_true(PATIENCE, "keys are made", || by(old, scram[0]).is_ok());
    let (_, binds) = slapd.operations();
    for mechanism in scram {
        by(old, mechanism).unwrap();
        assert!(by("guess", mechanism).is_err());
    }
    assert_eq!(
        slapd.operations().1,
        binds,
        "SCRAM asks the directory for no password"
    );
    // Another password: the keys of the old one go when the new one is used.
    slapd.set_password("juliet", "another").unwrap();
    by("another", "PLAIN").unwrap();
    wait::until_true(PATIENCE, "keys of the new password", || {
        by("another", scram[0]).is_ok()
    });
    assert!(by(old, scram[0]).is_err());
    // Who is gone cannot log in by keys either.
    slapd.delete("juliet").unwrap();
    wait::until_true(PATIENCE, "she is gone", || by("another", scram[0]).is_err());
}

/// At the first start nothing is known of groups. Until they have been read a rule that names one decides nothing: whom it denies does
/// not slip in, and whom it allows is told to come again, not that the account is disabled.
#[test]
fn a_rule_for_groups_that_were_never_read_lets_nobody_in_and_says_so() {
    let slapd = Slapd::load(&Tree {
        people: 150,
        groups: 0,
        more: format!(
            "dn: cn=suspended,{GROUPS}\nobjectClass: groupOfNames\ncn: suspended\nmember: uid=juliet,{PEOPLE}\n\n"
        ),
    })
    .unwrap();
    let site = prepared(&slapd);
    // It finds people for log-ins, and cannot read everybody.
    site.edit("imserver.toml", SERVICE, LIMITED).unwrap();
    std::fs::write(
        site.path().join("policy.toml"),
        "[[rule]]\nallow = \"login\"\nusers = [\"tybalt@localhost\"]\n\
         [[rule]]\ndeny = \"login\"\ngroups = [\"suspended\"]\n\
         [[rule]]\nallow = \"login\"\ngroups = [\"Sales team\"]\n\
         [[rule]]\nallow = \"login\"\nusers = [\"juliet@localhost\"]\n",
    )
    .unwrap();
    let mut site = started(site);
    wait::until_true(PATIENCE, "a sweep has failed", || {
        site.server()
            .log()
            .contains("a sweep of a directory failed")
    });
    for (user, expected) in [
        ("juliet", "temporary-auth-failure"),
        ("romeo", "temporary-auth-failure"),
        ("tybalt", "success"),
    ] {
        let got = outcome(&site, user, &format!("{user}-password"));
        assert_eq!(got, expected, "{user}");
    }
    let told = run(&mut site.imadmin(["policy", "test", "juliet@localhost", "login"]));
    let told = format!("{:#}", told.map(drop).unwrap_err());
    assert!(told.contains("has not been read yet"), "{told}");

    site.edit("imserver.toml", LIMITED, SERVICE).unwrap();
    site.reload().unwrap();
    until_outcome(&site, "romeo", "success");
    wait::until_true(PATIENCE, "juliet is suspended", || {
        let got = outcome(&site, "juliet", "juliet-password");
        assert_ne!(got, "success");
        got == "account-disabled"
    });
}

/// The store may hold an old account of the same name, from before the people were in a directory.
#[test]
fn who_is_disabled_here_cannot_log_in_whatever_the_store_holds() {
    let slapd = Slapd::start(10, 1).unwrap();
    let mut site = prepared(&slapd);
    let (elsewhere, local) = (r#"directory = ["ldap"]"#, r#"directory = ["local"]"#);
    site.edit("imserver.toml", elsewhere, local).unwrap();
    site.start_server().unwrap();
    site.add_accounts(&[Account::new("romeo")]).unwrap();
    site.edit("imserver.toml", local, elsewhere).unwrap();
    site.reload().unwrap();
    site.await_clients().unwrap();
    for user in ["romeo", "juliet"] {
        let (jid, password) = (format!("{user}@localhost"), format!("{user}-password"));
        let mut client = online(&site, user);
        run(&mut site.imadmin(["user", "disable", &jid])).unwrap();
        assert_eq!(
            client.until_closed().unwrap().as_deref(),
            Some("not-authorized")
        );
        assert_eq!(
            outcome(&site, user, &password),
            "account-disabled",
            "{user}"
        );
        run(&mut site.imadmin(["user", "enable", &jid])).unwrap();
        assert_eq!(outcome(&site, user, &password), "success", "{user}");
    }
    // Nobody could log in with another one.
    let file = site.scratch("more.txt");
    std::fs::write(&file, "tybalt@localhost password\n").unwrap();
    let said = site
        .imadmin_json(["user", "import", file.to_str().unwrap()])
        .map(|v| v.to_string());
    let said = said.unwrap_or_else(|e| format!("{e:#}"));
    assert!(said.contains("in a directory elsewhere"), "{said}");
}
