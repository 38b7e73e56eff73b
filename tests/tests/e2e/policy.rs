//! Every right of the policy file, refused and granted, and changed without dropping anyone.

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site};

fn rules(site: &mut Site, text: &str) {
    std::fs::write(site.path().join("policy.toml"), text).unwrap();
    site.reload().unwrap();
}

const LOGIN: &str = "[[rule]]\nallow = \"login\"\neveryone = true\n";

/// The condition of the error, or none.
fn set(client: &mut Client, id: &str, payload: &str) -> Option<String> {
    let answer = client.request("set", id, None, payload).unwrap();
    let error = answer.child("error")?;
    error.elements().next().map(|c| c.name.clone())
}

#[test]
fn login_save_settings_and_watch_presence_are_refused_and_granted() {
    let (romeo, juliet) = (Account::new("romeo"), Account::new("juliet"));
    let mut site = Site::start(&Plan::default(), &[romeo.clone(), juliet.clone()]).unwrap();
    rules(&mut site, LOGIN);
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    r.available().unwrap();
    j.available().unwrap();

    let roster = "<query xmlns='jabber:iq:roster'><item jid='friend@localhost'/></query>";
    let card = "<vCard xmlns='vcard-temp'><FN>Romeo</FN></vCard>";
    let private = "<query xmlns='jabber:iq:private'><a xmlns='x'>1</a></query>";
    for (n, payload) in [roster, card, private].iter().enumerate() {
        let refused = set(&mut r, &format!("no{n}"), payload);
        assert_eq!(refused.as_deref(), Some("not-allowed"), "{payload}");
    }
    let probe = "<presence type='probe' to='juliet@localhost'/>";
    r.send(probe).unwrap();
    let answer = r
        .element_where("an answer", |e| e.name == "presence")
        .unwrap();
    assert_eq!(answer.attr("type"), Some("unsubscribed"));

    let granted = "[[rule]]\nallow = [\"save-settings\", \"watch-presence\"]\nusers = [\"romeo@localhost\"]\n";
    rules(&mut site, &format!("{granted}{LOGIN}"));
    for (n, payload) in [roster, card, private].iter().enumerate() {
        assert_eq!(set(&mut r, &format!("yes{n}"), payload), None, "{payload}");
    }
    r.send(probe).unwrap();
    let answer = r
        .element_where("an answer", |e| e.name == "presence")
        .unwrap();
    assert_eq!(answer.attr("type"), None);
    assert!(
        answer
            .attr("from")
            .unwrap()
            .starts_with("juliet@localhost/")
    );
    // Juliet was not asked and is not told; she has none of the rights.
    assert_eq!(set(&mut j, "no", card).as_deref(), Some("not-allowed"));

    // Who may not log in any more stays, and cannot come again.
    let denied = "[[rule]]\ndeny = \"login\"\nusers = [\"romeo@localhost\"]\n";
    rules(&mut site, &format!("{denied}{LOGIN}"));
    r.ping().unwrap();
    let error = site.login(Transport::Plain, &romeo).map(drop).unwrap_err();
    assert!(
        format!("{error:#}").contains("account-disabled"),
        "{error:#}"
    );
    site.login(Transport::Plain, &juliet).unwrap();
}

/// `[[archive]]`: what is kept for somebody, whatever they want, changes with the policy.
#[test]
fn the_policy_says_what_archives_keep() {
    let (romeo, juliet) = (Account::new("romeo"), Account::new("juliet"));
    let mut site = Site::init(&Plan::default()).unwrap();
    let on = site.set("imserver.toml", "[[domain]]", "archive", "true");
    on.unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[romeo.clone(), juliet.clone()]).unwrap();
    site.await_clients().unwrap();
    let ordinary = "[[rule]]\nallow = [\"login\", \"save-settings\"]\neveryone = true\n";
    let archive = |user: &str, keep: &str| {
        format!("[[archive]]\nusers = [\"{user}@localhost\"]\nkeep = \"{keep}\"\n")
    };
    let nothing = archive("juliet", "nothing");
    let everything = archive("romeo", "everything");
    rules(&mut site, &format!("{ordinary}{nothing}{everything}"));
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    j.available().unwrap();

    let wish = |default: &str| format!("<prefs xmlns='urn:xmpp:mam:2' default='{default}'/>");
    let shown = |client: &mut Client, id: &str| {
        let prefs = "<prefs xmlns='urn:xmpp:mam:2'/>";
        let answer = client.request("get", id, None, prefs).unwrap();
        let prefs = answer.child("prefs").expect("the wishes");
        prefs.attr("default").expect("a default").to_owned()
    };
    assert_eq!(shown(&mut r, "g1"), "always");
    assert_eq!(shown(&mut j, "g1"), "never");
    let refused = set(&mut r, "s1", &wish("never"));
    assert_eq!(refused.as_deref(), Some("not-allowed"));
    let refused = set(&mut j, "s1", &wish("always"));
    assert_eq!(refused.as_deref(), Some("not-allowed"));

    let sends = |r: &mut Client, j: &mut Client, id: &str| {
        let to = "juliet@localhost";
        let message = format!("<message to='{to}' type='chat' id='{id}'><body>x</body></message>");
        r.send(&message).unwrap();
        j.element_where("the message", |e| e.attr("id") == Some(id))
            .unwrap()
    };
    let has_archive = |client: &mut Client, id: &str| {
        let metadata = "<metadata xmlns='urn:xmpp:mam:2'/>";
        let answer = client.request("get", id, None, metadata).unwrap();
        answer.child("metadata").unwrap().child("start").is_some()
    };
    assert!(sends(&mut r, &mut j, "m1").child("stanza-id").is_none());
    assert!(has_archive(&mut r, "e1") && !has_archive(&mut j, "e1"));

    rules(&mut site, ordinary);
    assert_eq!(set(&mut r, "s2", &wish("never")), None);
    assert_eq!(shown(&mut j, "g2"), "always");
    assert!(sends(&mut r, &mut j, "m2").child("stanza-id").is_some());
    assert!(has_archive(&mut j, "e2"));
}
