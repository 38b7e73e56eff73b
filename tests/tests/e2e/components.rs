//! Components (XEP-0114) through the real processes: a bot and a privileged component of slixmpp's, what a reload does to one, and push
//! services. What a component hears, may say and may not: `scripts/component_*.scs` and `privileged_*.scs`.

use anyhow::Result;
use isthmus_tests::client::{Account, Client, Endpoint, Transport};
use isthmus_tests::component::Component;
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::wait;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const DOMAIN: &str = "bots.localhost";
const SECRET: &str = "a secret & more";
const PATIENCE: Duration = Duration::from_secs(60);

/// A site with a listener for components, and this component, with `more` keys.
fn site(more: &str, accounts: &[Account]) -> Site {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.add_components(&[component()]).unwrap();
    let more = format!("label = \"Bots\"\n{more}\n");
    site.append("imserver.toml", &more).unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(accounts).unwrap();
    site.await_clients().unwrap();
    site
}

fn component() -> Component {
    Component {
        domain: DOMAIN.into(),
        secret: SECRET.into(),
        ..Component::default()
    }
}

/// The component, connected.
fn connect(site: &Site) -> Result<Client> {
    let endpoint = Endpoint {
        domain: DOMAIN.into(),
        ..site.endpoint(Transport::Component)
    };
    let mut client = Client::open(&endpoint)?;
    client.shake_hands(SECRET)?;
    Ok(client)
}

fn condition(element: &isthmus_tests::xml::Xml) -> Option<String> {
    let error = element.child("error")?;
    error.elements().next().map(|c| c.name.clone())
}

/// A bot of slixmpp's: found by service discovery, chats, is subscribed to, asks and is asked; a kill of the server disconnects it as
/// little as it does clients, and loses nothing.
#[test]
fn a_bot_of_slixmpp_is_there_also_over_a_kill_of_the_server() {
    let juliet = Account::new("juliet");
    let mut site = site("", std::slice::from_ref(&juliet));
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut bot = Command::new(here.join(".venv/bin/python"))
        .arg(here.join("clients/slixmpp_component.py"))
        .args(["127.0.0.1", &site.address(5347).port().to_string()])
        .args([DOMAIN, SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = bot.stdin.take().unwrap();
    let mut lines = BufReader::new(bot.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "CONNECTED");

    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    j.available().unwrap();
    let roster = "<query xmlns='jabber:iq:roster'/>";
    j.request("get", "r1", None, roster).unwrap();
    let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let items = j.request("get", "i1", Some("localhost"), items).unwrap();
    let item = items.child("query").unwrap().child("item").unwrap();
    assert_eq!(
        (item.attr("jid"), item.attr("name")),
        (Some(DOMAIN), Some("Bots"))
    );
    let echo = "echo@bots.localhost";
    let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
    let info = j.request("get", "i2", Some(echo), info).unwrap();
    let identity = info.child("query").unwrap().child("identity").unwrap();
    assert_eq!(identity.attr("category"), Some("automation"));

    // A subscription both ways, and presence by it.
    j.send(&format!("<presence to='{echo}' type='subscribe'/>"))
        .unwrap();
    let of_bot = |kind: Option<&'static str>| {
        move |e: &isthmus_tests::xml::Xml| {
            let from = e.attr("from").unwrap_or_default();
            e.name == "presence" && e.attr("type") == kind && from.starts_with(echo)
        }
    };
    j.element_where("an approval", of_bot(Some("subscribed")))
        .unwrap();
    j.element_where("a request", of_bot(Some("subscribe")))
        .unwrap();
    j.send(&format!("<presence to='{echo}' type='subscribed'/>"))
        .unwrap();
    assert_eq!(next(), "SUBSCRIBED juliet@localhost");
    assert_eq!(next(), "ONLINE juliet@localhost");

    // IQs from the bot: to the server, to somebody who is there, to nobody.
    let full = j.jid.clone();
    for (to, want) in [
        ("localhost", "PONG"),
        (&*full, "PONG"),
        ("nobody@localhost", "ERROR service-unavailable"),
        ("elsewhere.example", "ERROR remote-server-not-found"),
    ] {
        writeln!(orders, "ping {to}").unwrap();
        if to == full {
            let ping = j
                .element_where("a ping", |e| e.child("ping").is_some())
                .unwrap();
            let (id, from) = (ping.attr("id").unwrap(), ping.attr("from").unwrap());
            j.send(&format!("<iq type='result' id='{id}' to='{from}'/>"))
                .unwrap();
        }
        assert_eq!(next(), want, "{to}");
    }
    let said = |j: &mut Client, body: &str| {
        j.chat(echo, body).unwrap();
        assert_eq!(j.next_body().unwrap(), format!("echo: {body}"));
    };
    said(&mut j, "before");
    let sessions = site.imadmin_json(["session", "list"]).unwrap();
    assert!(
        sessions.to_string().contains("bots.localhost/component"),
        "{sessions}"
    );

    site.kill_server();
    for n in 0..50 {
        j.chat(echo, &format!("down {n}")).unwrap();
    }
    site.start_server().unwrap();
    for n in 0..50 {
        assert_eq!(j.next_body().unwrap(), format!("echo: down {n}"));
    }
    said(&mut j, "after");
    drop(orders);
    assert!(bot.wait().unwrap().success());
    // It has connected once, and heard nothing else.
    assert!(lines.next().is_none());
}

/// A reload takes a component away, and brings it again, with other privileges.
#[test]
fn a_reload_takes_a_component_away_and_brings_it_again() {
    let juliet = Account::new("juliet");
    let mut site = site("rosters = \"get\"", std::slice::from_ref(&juliet));
    let mut bot = connect(&site).unwrap();
    let granted = bot.element().unwrap();
    assert!(granted.child("privilege").is_some(), "{granted}");
    let ask = |bot: &mut Client, id: &str| {
        bot.send(&format!(
            "<iq from='{DOMAIN}' to='juliet@localhost' type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>"
        ))
        .unwrap();
        bot.element().unwrap()
    };
    let roster = ask(&mut bot, "r1");
    assert_eq!(roster.attr("type"), Some("result"), "{roster}");

    let path = site.path().join("imserver.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find("\n[[component]]").unwrap();
    std::fs::write(&path, &text[..at]).unwrap();
    site.reload().unwrap();
    let why = bot.until_closed().unwrap();
    assert_eq!(why.as_deref(), Some("host-gone"));
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let gone = wait::until(PATIENCE, || {
        let answer = j.request("get", "p", Some(DOMAIN), ping).ok()?;
        (condition(&answer)? == "remote-server-not-found").then_some(())
    });
    gone.expect("the domain is gone");
    site.append("imserver.toml", &component().section())
        .unwrap();
    site.reload().unwrap();
    let mut bot = wait::until(PATIENCE, || connect(&site).ok()).unwrap();
    let refused = ask(&mut bot, "r2");
    assert_eq!(condition(&refused).as_deref(), Some("forbidden"));
}

/// A script of slixmpp's: what it prints, and where its orders go.
struct Script {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    orders: std::process::ChildStdin,
}

impl Script {
    fn component(site: &Site, script: &str) -> Script {
        let port = site.address(5347).port().to_string();
        Script::start(script, ["127.0.0.1", &port, DOMAIN, SECRET])
    }

    fn start<'a>(script: &str, arguments: impl IntoIterator<Item = &'a str>) -> Script {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(here.join(".venv/bin/python"))
            .arg(here.join("clients").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Script {
            child,
            lines,
            orders,
        }
    }

    fn next(&mut self) -> String {
        self.lines.next().unwrap().unwrap()
    }

    fn order(&mut self, order: &str) -> String {
        writeln!(self.orders, "{order}").unwrap();
        self.next()
    }

    /// The next line that is none of these: what is said again after a kill.
    fn next_but(&mut self, again: &[String]) -> String {
        loop {
            let line = self.next();
            if !again.contains(&line) {
                return line;
            }
        }
    }

    /// It ends by itself, and has nothing more to say.
    fn end(mut self) {
        drop(self.orders);
        assert!(self.child.wait().unwrap().success());
        let more: Vec<String> = self.lines.map_while(Result::ok).collect();
        assert!(more.is_empty(), "{more:?}");
    }
}

/// XEP-0356 with slixmpp: what is granted is told, also by a reload; rosters are read, changed and pushed; requests are made and messages
/// sent in the name of our people; who is there is told, and who comes and goes.
#[test]
fn a_privileged_component_of_slixmpp_does_what_is_granted() {
    let [juliet, romeo, nurse] = ["juliet", "romeo", "nurse"].map(Account::new);
    let granted = "rosters = \"both\"\nsend_messages = true\npresence = \"roster\"\n\
        iq_get = [\"jabber:iq:private\", \"urn:xmpp:ping\", \"jabber:iq:roster\", \"http://jabber.org/protocol/disco#info\"]\n\
        iq_set = [\"jabber:iq:private\", \"urn:xmpp:carbons:2\", \"http://jabber.org/protocol/commands\"]\n";
    let mut site = site(granted, &[juliet.clone(), romeo.clone(), nurse.clone()]);
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    let roster = "<query xmlns='jabber:iq:roster'/>";
    j.request("get", "r1", None, roster).unwrap();
    j.available().unwrap();
    let mut bot = Script::component(&site, "slixmpp_privileged.py");
    assert_eq!(bot.next(), "CONNECTED");
    assert_eq!(
        bot.next(),
        "GRANTED localhost both outgoing roster http://jabber.org/protocol/commands=set http://jabber.org/protocol/disco#info=get \
         jabber:iq:private=both jabber:iq:roster=get urn:xmpp:carbons:2=set urn:xmpp:ping=get"
    );
    // Who is there already, and who comes.
    assert_eq!(bot.next(), format!("PRESENCE {} available -", j.jid));
    let mut n = site.login(Transport::Plain, &nurse).unwrap();
    n.available().unwrap();
    assert_eq!(bot.next(), format!("PRESENCE {} available -", n.jid));

    // Rosters: of somebody who is there, who hears of it, and of somebody who is not.
    writeln!(bot.orders, "add juliet@localhost nurse@localhost").unwrap();
    assert_eq!(bot.next(), "PUSH juliet@localhost nurse@localhost none");
    assert_eq!(bot.next(), "DONE");
    let push = j
        .element_where("a push", |e| e.attr("type") == Some("set"))
        .unwrap();
    let item = push.child("query").unwrap().child("item").unwrap();
    assert_eq!(
        (item.attr("jid"), item.attr("name")),
        (Some("nurse@localhost"), Some("Added"))
    );
    assert_eq!(
        bot.order("add romeo@localhost juliet@localhost"),
        "PUSH romeo@localhost juliet@localhost none"
    );
    assert_eq!(bot.next(), "DONE");
    assert_eq!(
        bot.order("roster romeo@localhost"),
        "ROSTER juliet@localhost"
    );
    assert_eq!(
        bot.order("remove romeo@localhost juliet@localhost"),
        "PUSH romeo@localhost juliet@localhost remove"
    );
    assert_eq!(bot.next(), "DONE");
    // A change by the owner.
    let set =
        "<query xmlns='jabber:iq:roster'><item jid='nurse@localhost' name='Angelica'/></query>";
    j.request("set", "r2", None, set).unwrap();
    assert_eq!(bot.next(), "PUSH juliet@localhost nurse@localhost none");

    n.send("<presence><status>unheard</status></presence>")
        .unwrap();
    n.send("<presence to='juliet@localhost' type='subscribe'/>")
        .unwrap();
    j.element_where("a request", |e| e.attr("type") == Some("subscribe"))
        .unwrap();
    j.send("<presence to='nurse@localhost' type='subscribed'/>")
        .unwrap();
    assert_eq!(bot.next(), "PUSH nurse@localhost juliet@localhost none");
    assert_eq!(bot.next(), "PUSH juliet@localhost nurse@localhost from");
    assert_eq!(bot.next(), "PUSH nurse@localhost juliet@localhost to");
    j.send("<presence><status>heard</status></presence>")
        .unwrap();
    assert_eq!(bot.next(), format!("PRESENCE {} available heard", j.jid));

    // Requests in somebody's name: to oneself, to the server, to a client, to nobody.
    let private = "jabber:iq:private query juliet@localhost -";
    assert_eq!(bot.order(&format!("get {private}")), "ANSWERED bad-request");
    let ping = "get urn:xmpp:ping ping juliet@localhost";
    assert_eq!(
        bot.order(&format!("{ping} localhost")),
        "ANSWER localhost result"
    );
    assert_eq!(
        bot.order(&format!("{ping} nobody@localhost")),
        "ANSWERED service-unavailable"
    );
    writeln!(
        bot.orders,
        "get urn:xmpp:ping ping nurse@localhost {}",
        j.jid
    )
    .unwrap();
    let asked = j
        .element_where("a ping", |e| e.child("ping").is_some())
        .unwrap();
    assert_eq!(asked.attr("from"), Some("nurse@localhost"));
    let id = asked.attr("id").unwrap();
    j.send(&format!(
        "<iq type='result' id='{id}' to='nurse@localhost'/>"
    ))
    .unwrap();
    assert_eq!(bot.next(), format!("ANSWER {} result", j.jid));
    let sent = bot.order("message nurse@localhost juliet@localhost hello");
    assert_eq!(sent, "SENT");
    let said = j
        .element_where("a message", |e| e.child("body").is_some())
        .unwrap();
    assert_eq!(said.attr("from"), Some("nurse@localhost"));
    // After a kill of the server it is still there, and so are its privileges.
    site.kill_server();
    site.start_server().unwrap();
    let again = [
        format!("PRESENCE {} available heard", j.jid),
        format!("PRESENCE {} available unheard", n.jid),
    ];
    writeln!(bot.orders, "roster juliet@localhost").unwrap();
    assert_eq!(bot.next_but(&again), "ROSTER nurse@localhost");
    let gone = format!("PRESENCE {} unavailable -", n.jid);
    n.close().unwrap();
    assert_eq!(bot.next_but(&again), gone);

    // A reload takes most of it away.
    let path = site.path().join("imserver.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let kept = "rosters = \"get\"\nroster_pushes = false\niq_get = \"urn:xmpp:ping\"\npresence = \"managed_entity\"\n";
    std::fs::write(&path, text.replace(granted, kept)).unwrap();
    site.reload().unwrap();
    assert_eq!(
        bot.next_but(&again),
        "GRANTED localhost get none managed_entity urn:xmpp:ping=get"
    );
    for (order, want) in [
        ("add juliet@localhost romeo@localhost", "ERROR forbidden"),
        (
            "message nurse@localhost juliet@localhost hello",
            "NOT ASKED",
        ),
        (
            "set jabber:iq:private query juliet@localhost -",
            "ERROR forbidden",
        ),
    ] {
        writeln!(bot.orders, "{order}").unwrap();
        assert_eq!(bot.next_but(&again), want, "{order}");
    }
    j.request("set", "r3", None, set).unwrap();
    j.send("<presence><status>not initial</status></presence>")
        .unwrap();
    j.ping().unwrap();
    writeln!(bot.orders, "roster juliet@localhost").unwrap();
    assert_eq!(bot.next_but(&again), "ROSTER nurse@localhost");
    let gone = format!("PRESENCE {} unavailable -", j.jid);
    j.close().unwrap();
    assert_eq!(bot.next_but(&again), gone);
    bot.end();
}

/// A push service (XEP-0357) is a component: it is told of messages while the client is away, gone or inactive, also after a kill of
/// the server, until it refuses too often.
#[test]
fn a_component_is_told_of_messages_for_clients_that_are_away() {
    let [romeo, juliet, nurse] = ["romeo", "juliet", "nurse"].map(Account::new);
    let mut site = site("", &[romeo.clone(), juliet.clone(), nurse.clone()]);
    site.set("imserver.toml", "[session]", "push_after_s", "1")
        .unwrap();
    site.set("imserver.toml", "[session]", "push_body", "true")
        .unwrap();
    site.reload().unwrap();
    let mut app = connect(&site).unwrap();
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    let enable = format!("<enable xmlns='urn:xmpp:push:0' jid='{DOMAIN}' node='n'/>");
    let answer = r.request("set", "p", None, &enable).unwrap();
    assert_eq!(condition(&answer), None);
    r.available().unwrap();
    // Told, and answered as it says; the id of the notification.
    let told = |app: &mut Client, body: &str, answer: &str| {
        let stanza = app.element().unwrap();
        let notification = stanza.to_string();
        assert!(
            notification.contains(&format!("<value>{body}</value>")),
            "{notification}"
        );
        assert!(
            notification.contains(" from='romeo@localhost'"),
            "{notification}"
        );
        assert!(!notification.contains("juliet"), "{notification}");
        let id = stanza.attr("id").unwrap();
        let answer = answer.replace("ID", id);
        app.send(&format!(
            "<iq from='{DOMAIN}' to='romeo@localhost' id='{id}' {answer}"
        ))
        .unwrap();
    };
    let (result, refusal) = (
        "type='result'/>",
        "type='error'><error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>",
    );
    // Active, and it acknowledges.
    j.chat("romeo@localhost", "seen").unwrap();
    assert_eq!(r.next_body().unwrap(), "seen");
    // Inactive, and its TCP acknowledges: nothing is told.
    r.send("<inactive xmlns='urn:xmpp:csi:0'/>").unwrap();
    r.ping().unwrap();
    j.chat("romeo@localhost", "taken in the background")
        .unwrap();
    assert_eq!(r.next_body().unwrap(), "taken in the background");
    r.close().unwrap();
    j.chat("romeo@localhost", "gone").unwrap();
    told(&mut app, "gone", result);
    site.kill_server();
    site.start_server().unwrap();
    j.chat("romeo@localhost", "after the kill").unwrap();
    told(&mut app, "after the kill", refusal);
    j.chat("romeo@localhost", "again").unwrap();
    told(&mut app, "again", refusal);
    j.chat("romeo@localhost", "and again").unwrap();
    told(&mut app, "and again", refusal);
    // It is given up: what it hears next is of somebody else.
    app.send(&format!(
        "<message from='{DOMAIN}' to='juliet@localhost'><body>refused</body></message>"
    ))
    .unwrap();
    j.available().unwrap();
    assert_eq!(j.next_body().unwrap(), "refused");
    j.chat("romeo@localhost", "not told").unwrap();
    let mut n = site.login(Transport::Plain, &nurse).unwrap();
    n.request("set", "p", None, &enable).unwrap();
    n.close().unwrap();
    j.chat("nurse@localhost", "the end").unwrap();
    let rest = app.element().unwrap().to_string();
    assert!(rest.contains("<value>the end</value>"), "{rest}");
}

/// A phone of slixmpp's: it blocks, asks when somebody was there, says that nobody looks at it, and has a push service, a component, that
/// is told when it has gone.
#[test]
fn a_phone_of_slixmpp_blocks_is_inactive_and_is_pushed_to() {
    let [romeo, juliet] = ["romeo", "juliet"].map(Account::new);
    let site = site("", &[romeo.clone(), juliet.clone()]);
    let mut app = connect(&site).unwrap();
    let mut j = site.login(Transport::StartTls, &juliet).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, j.certificate_pem().unwrap()).unwrap();
    let roster = "<query xmlns='jabber:iq:roster'/>";
    j.request("get", "r1", None, roster).unwrap();
    j.available().unwrap();
    let port = site
        .endpoint(Transport::StartTls)
        .starttls
        .port()
        .to_string();
    let phone = || {
        let arguments = ["localhost", &port, "romeo@localhost", &romeo.password];
        let mut phone = Script::start(
            "slixmpp_mobile.py",
            arguments.into_iter().chain([ca.to_str().unwrap()]),
        );
        assert_eq!(phone.next(), "READY");
        phone
    };
    let mut r = phone();

    assert_eq!(r.order("last localhost"), "LAST localhost True");
    assert_eq!(r.order("last juliet@localhost"), "ERROR forbidden");
    j.send("<presence to='romeo@localhost' type='subscribed'/>")
        .unwrap();
    j.send("<presence to='romeo@localhost' type='subscribe'/>")
        .unwrap();
    j.element_where("a subscription both ways", |e| {
        let item = e.child("query").and_then(|q| q.child("item"));
        item.is_some_and(|i| i.attr("subscription") == Some("both"))
    })
    .unwrap();
    assert_eq!(
        r.order("last juliet@localhost"),
        "LAST juliet@localhost True"
    );

    assert_eq!(r.order("blocked"), "BLOCKLIST");
    assert_eq!(
        r.order("block juliet@localhost"),
        "BLOCKED juliet@localhost"
    );
    assert_eq!(r.next(), "DONE");
    assert_eq!(r.order("blocked"), "BLOCKLIST juliet@localhost");
    j.chat("romeo@localhost", "unheard").unwrap();
    let error = j
        .element_where("an error", |e| e.attr("type") == Some("error"))
        .unwrap();
    assert_eq!(condition(&error).as_deref(), Some("service-unavailable"));
    assert_eq!(
        r.order("unblock juliet@localhost"),
        "UNBLOCKED juliet@localhost"
    );
    assert_eq!(r.next(), "DONE");
    j.chat("romeo@localhost", "heard").unwrap();
    assert_eq!(r.next(), "MESSAGE juliet@localhost heard");

    // What has no content waits, and comes before what has.
    assert_eq!(r.order("inactive"), "DONE");
    j.send(
        "<message type='chat' to='romeo@localhost'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
    )
    .unwrap();
    j.chat("romeo@localhost", "in the pocket").unwrap();
    assert_eq!(r.next(), "STATE juliet@localhost composing");
    assert_eq!(r.next(), "MESSAGE juliet@localhost in the pocket");
    assert_eq!(r.order("active"), "DONE");

    assert_eq!(r.order(&format!("push {DOMAIN} phone")), "DONE");
    r.end();
    let mut told = |body: &str, waiting: usize| {
        j.chat("romeo@localhost", body).unwrap();
        let stanza = app.element().unwrap();
        let told = stanza.to_string();
        assert!(
            told.contains("<publish node='phone'>")
                && told.contains(&format!("<value>{waiting}</value>")),
            "{told}"
        );
        let id = stanza.attr("id").unwrap();
        app.send(&format!(
            "<iq type='result' from='{DOMAIN}' to='romeo@localhost' id='{id}'/>"
        ))
        .unwrap();
    };
    told("one", 1);
    told("two", 2);
    let mut r = phone();
    assert_eq!(r.next(), "MESSAGE juliet@localhost one");
    assert_eq!(r.next(), "MESSAGE juliet@localhost two");
    assert_eq!(r.order(&format!("nopush {DOMAIN}")), "DONE");
    r.end();
}
