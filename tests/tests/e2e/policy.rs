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
