//! Blocking (XEP-0191, XEP-0377) through the real processes: what is kept of it, and who is told of reports.

use isthmus_tests::client::{Account, Transport};
use isthmus_tests::harness::{Plan, Site};

fn block(jid: &str, report: &str) -> String {
    format!("<block xmlns='urn:xmpp:blocking'><item jid='{jid}'>{report}</item></block>")
}

#[test]
fn a_report_is_logged_and_reaches_whom_the_site_names() {
    let [romeo, tybalt, admin] = ["romeo", "tybalt", "admin"].map(Account::new);
    let accounts = [romeo.clone(), tybalt, admin.clone()];
    let mut site = Site::start(&Plan::default(), &accounts).unwrap();
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    let report = "<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>buy &lt;now&gt;</text></report>";
    r.request("set", "b1", None, &block("tybalt@localhost", report))
        .unwrap();
    let said = "romeo@localhost has blocked tybalt@localhost and reports spam: buy <now>";
    assert!(
        site.server().log().contains(said),
        "{}",
        site.server().log()
    );
    site.set(
        "imserver.toml",
        "[[domain]]",
        "reports_to",
        "[\"admin@localhost\"]",
    )
    .unwrap();
    site.reload().unwrap();
    r.request("set", "b2", None, &block("tybalt@localhost", report))
        .unwrap();
    // It waits for the administrator like any message.
    let mut a = site.login(Transport::Plain, &admin).unwrap();
    a.available().unwrap();
    let notice = a
        .element_where("the report", |e| e.name == "message")
        .unwrap();
    assert_eq!(notice.attr("from"), Some("localhost"));
    assert_eq!(notice.body().as_deref(), Some(said));
}

/// Nothing of a blocked sender is in the archive of the recipient, also not after a kill just behind the answer.
#[test]
fn a_blocked_sender_leaves_nothing_behind() {
    let [romeo, tybalt] = ["romeo", "tybalt"].map(Account::new);
    let mut site = Site::init(&Plan::default()).unwrap();
    site.set("imserver.toml", "[[domain]]", "archive", "true")
        .unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[romeo.clone(), tybalt.clone()]).unwrap();
    site.await_clients().unwrap();
    let mut t = site.login(Transport::Plain, &tybalt).unwrap();
    t.chat("romeo@localhost", "before").unwrap();
    t.ping().unwrap();
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    r.request("set", "b1", None, &block("tybalt@localhost", ""))
        .unwrap();
    site.kill_server();
    t.chat("romeo@localhost", "while it is down").unwrap();
    site.start_server().unwrap();
    let refused = t
        .element_where("the error", |e| e.attr("type") == Some("error"))
        .unwrap();
    assert!(
        refused.to_string().contains("service-unavailable"),
        "{refused}"
    );
    let mut bodies = Vec::new();
    r.send("<iq type='set' id='h'><query xmlns='urn:xmpp:mam:2'/></iq>")
        .unwrap();
    loop {
        let element = r.element().unwrap();
        if element.name == "iq" && element.attr("id") == Some("h") {
            break;
        }
        let forwarded = element.child("result").and_then(|e| e.child("forwarded"));
        bodies.extend(
            forwarded
                .and_then(|f| f.child("message"))
                .and_then(|m| m.body()),
        );
    }
    assert_eq!(bodies, ["before"]);
}
