//! Components (XEP-0114) through the real processes: a bot of slixmpp's, and what a component may not do.

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::wait;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DOMAIN: &str = "bots.localhost";
const SECRET: &str = "a secret & more";
const PATIENCE: Duration = Duration::from_secs(60);

/// A site with a listener for components, and this component, with `more` keys.
fn site(more: &str, accounts: &[Account]) -> Site {
    let mut site = Site::init(&Plan::default()).unwrap();
    let address = site.address(5347);
    let listener = format!(
        "\n[[listener]]\nkind = \"component\"\ntransport = \"tcp\"\nlisten = [\"{address}\"]\n"
    );
    append(&site, "mux.toml", &listener);
    let kinds = "[\"c2s\", \"component\"]";
    site.set("imserver.toml", "[[mux]]", "kinds", kinds)
        .unwrap();
    append(&site, "imserver.toml", &component(more));
    let secret = site.path().join("bots.secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(accounts).unwrap();
    site.await_clients().unwrap();
    site
}

fn component(more: &str) -> String {
    format!(
        "\n[[component]]\ndomain = \"{DOMAIN}\"\nsecret_file = \"bots.secret\"\nlabel = \"Bots\"\n{more}\n"
    )
}

fn append(site: &Site, file: &str, text: &str) {
    let path = site.path().join(file);
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before + text).unwrap();
}

/// A component as a string of bytes.
struct Raw {
    socket: TcpStream,
    read: String,
}

impl Raw {
    fn open(address: SocketAddr, to: &str) -> Result<Raw> {
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut raw = Raw {
            socket,
            read: String::new(),
        };
        raw.send(&format!(
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{to}'>"
        ))?;
        Ok(raw)
    }

    /// Connected, after the handshake.
    fn connect(address: SocketAddr, secret: &str) -> Result<Raw> {
        let mut raw = Raw::open(address, DOMAIN)?;
        raw.shake_hands(secret)?;
        raw.until("<handshake/>")?;
        Ok(raw)
    }

    fn shake_hands(&mut self, secret: &str) -> Result<()> {
        let header = self.until("'>")?;
        let id = header.split(" id='").nth(1).context("no id")?;
        let id = id.split('\'').next().unwrap_or_default();
        let hash = digest(
            &SHA1_FOR_LEGACY_USE_ONLY,
            format!("{id}{secret}").as_bytes(),
        );
        let hash: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        self.send(&format!("<handshake>{hash}</handshake>"))
    }

    fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.socket.write_all(text.as_bytes())?)
    }

    /// Reads up to the end of this text; returns what came.
    fn until(&mut self, text: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.read.find(text) {
                return Ok(self.read.drain(..at + text.len()).collect());
            }
            let mut buffer = [0; 4_096];
            let n = match self.socket.read(&mut buffer) {
                // A process has ended elsewhere: SIGCHLD interrupts sockets that have a timeout (signal(7)).
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            if n == 0 || Instant::now() > end {
                bail!("no {text:?} in {:?}", self.read);
            }
            self.read.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    /// The condition of the stream error with which the server ends it.
    fn until_closed(&mut self) -> Result<String> {
        self.socket.read_to_string(&mut self.read)?;
        let error = self.read.split("<stream:error><").nth(1);
        let error = error.and_then(|e| e.split([' ', '/', '>']).next());
        Ok(error.unwrap_or_default().to_owned())
    }
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

/// Who is no component, or says what a component may not say, is told which stream error it is.
#[test]
fn a_component_proves_who_it_is_and_speaks_for_its_domain_only() {
    let site = site("", &[Account::new("juliet")]);
    let address = site.address(5347);
    let mut wrong = Raw::open(address, DOMAIN).unwrap();
    wrong.shake_hands("another secret").unwrap();
    assert_eq!(wrong.until_closed().unwrap(), "not-authorized");
    for (to, want) in [
        ("localhost", "host-unknown"),
        ("other.localhost", "host-unknown"),
        ("@", "improper-addressing"),
    ] {
        let mut raw = Raw::open(address, to).unwrap();
        assert_eq!(raw.until_closed().unwrap(), want, "{to}");
    }
    for (early, want) in [
        (
            "<message from='a@bots.localhost' to='juliet@localhost'><body>x</body></message>",
            "not-authorized",
        ),
        ("<!DOCTYPE x>", "restricted-xml"),
        ("</oops>", "not-well-formed"),
    ] {
        let mut raw = Raw::open(address, DOMAIN).unwrap();
        raw.send(early).unwrap();
        assert_eq!(raw.until_closed().unwrap(), want, "{early}");
    }
    // As much as a stranger may send, and no more.
    let mut raw = Raw::open(address, DOMAIN).unwrap();
    let _ = raw.send(&format!("<handshake>{}</handshake>", "0".repeat(20_000)));
    assert_eq!(raw.until_closed().unwrap(), "policy-violation");

    for (said, want) in [
        (
            "<message from='a@localhost' to='juliet@localhost'><body>x</body></message>",
            "invalid-from",
        ),
        (
            "<message from='localhost' to='juliet@localhost'><body>x</body></message>",
            "invalid-from",
        ),
        (
            "<presence from='a@xbots.localhost' to='juliet@localhost'/>",
            "invalid-from",
        ),
        (
            "<iq from='@' to='localhost' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
            "invalid-from",
        ),
        (
            "<message to='juliet@localhost'><body>x</body></message>",
            "improper-addressing",
        ),
        (
            "<message from='a@bots.localhost'><body>x</body></message>",
            "improper-addressing",
        ),
        ("<r xmlns='urn:xmpp:sm:3'/>", "unsupported-stanza-type"),
    ] {
        let mut raw = Raw::connect(address, SECRET).unwrap();
        raw.send(said).unwrap();
        assert_eq!(raw.until_closed().unwrap(), want, "{said}");
    }

    // Who proves last to know the secret is the component.
    let mut first = Raw::connect(address, SECRET).unwrap();
    let mut second = Raw::connect(address, SECRET).unwrap();
    assert_eq!(first.until_closed().unwrap(), "conflict");
    second
        .send("<iq from='bots.localhost' to='localhost' type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    second.until("id='p'").unwrap();
}

/// A component that is away: messages wait for it, everything else comes back. A reload takes it away for good, and brings it again.
#[test]
fn what_is_for_a_component_that_is_away_waits_or_comes_back() {
    let juliet = Account::new("juliet");
    let mut site = site(
        "rosters = \"get\"\nroster_pushes = false\nsend_messages = true",
        std::slice::from_ref(&juliet),
    );
    let address = site.address(5347);
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    j.available().unwrap();
    let bot = "bot@bots.localhost";
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    let answer = j.request("get", "p1", Some(bot), ping).unwrap();
    assert_eq!(condition(&answer).as_deref(), Some("remote-server-timeout"));
    j.send(&format!("<presence to='{bot}/x'/>")).unwrap();
    let error = j
        .element_where("an error", |e| e.attr("type") == Some("error"))
        .unwrap();
    assert_eq!(condition(&error).as_deref(), Some("remote-server-timeout"));
    j.chat(bot, "one").unwrap();
    j.chat(&format!("{bot}/x"), "two").unwrap();
    j.ping().unwrap();
    site.kill_server();
    site.start_server().unwrap();

    let mut raw = Raw::connect(address, SECRET).unwrap();
    let told = raw.until("</message>").unwrap();
    assert!(
        told.contains("<privilege xmlns='urn:xmpp:privilege:2'>"),
        "{told}"
    );
    let one = raw.until("</message>").unwrap();
    assert!(
        one.contains("to='bot@bots.localhost'") && one.contains("<body>one</body>"),
        "{one}"
    );
    assert!(
        one.contains("<delay") && one.contains("from='localhost'"),
        "{one}"
    );
    let two = raw.until("</message>").unwrap();
    assert!(
        two.contains("to='bot@bots.localhost/x'") && two.contains("<body>two</body>"),
        "{two}"
    );

    // Its domain is an address like any other: asked, answered, subscribed to; what is sent there is in one's archive or copied.
    raw.send(&format!(
        "<iq from='{DOMAIN}' to='{}' type='get' id='v1'>{ping}</iq>",
        j.jid
    ))
    .unwrap();
    let error = raw.until("</iq>").unwrap();
    assert!(
        error.contains("<service-unavailable"),
        "no presence is shared: {error}"
    );
    j.send(&format!("<presence to='{DOMAIN}'/>")).unwrap();
    raw.until("<presence").unwrap();
    raw.send(&format!(
        "<iq from='{DOMAIN}' to='{}' type='get' id='v2'>{ping}</iq>",
        j.jid
    ))
    .unwrap();
    j.element_where("a ping", |e| e.attr("id") == Some("v2"))
        .unwrap();
    j.send(&format!("<iq type='result' id='v2' to='{DOMAIN}'/>"))
        .unwrap();
    raw.until("id='v2'").unwrap();
    j.send(&format!("<presence to='{DOMAIN}' type='subscribe'/>"))
        .unwrap();
    raw.until("type='subscribe'").unwrap();
    raw.send(&format!(
        "<presence from='{DOMAIN}' to='juliet@localhost' type='subscribed'/>"
    ))
    .unwrap();
    raw.send(&format!(
        "<presence from='{DOMAIN}' to='juliet@localhost'/>"
    ))
    .unwrap();
    j.element_where("presence", |e| {
        e.name == "presence" && e.attr("from") == Some(DOMAIN)
    })
    .unwrap();

    // What it may do in our people's names, and no more.
    let on_behalf = |from: &str, id: &str| {
        format!(
            "<message from='{DOMAIN}' to='localhost' id='{id}'><privilege xmlns='urn:xmpp:privilege:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='{from}' to='juliet@localhost' \
             type='chat' id='{id}'><body>in the name of {from}</body></message></forwarded></privilege></message>"
        )
    };
    raw.send(&on_behalf("romeo@localhost", "b1")).unwrap();
    let message = j
        .element_where("the message", |e| e.attr("id") == Some("b1"))
        .unwrap();
    assert_eq!(message.attr("from"), Some("romeo@localhost"));
    raw.send(&on_behalf("romeo@elsewhere.example", "b2"))
        .unwrap();
    assert!(raw.until("</message>").unwrap().contains("<forbidden"));
    let roster = "<query xmlns='jabber:iq:roster'><item jid='nurse@localhost'/></query>";
    j.request("set", "r1", None, roster).unwrap();
    let ask = |id: &str| {
        format!(
            "<iq from='{DOMAIN}' to='juliet@localhost' type='get' id='{id}'><query xmlns='jabber:iq:roster'/></iq>"
        )
    };
    raw.send(&ask("r1")).unwrap();
    let roster = raw.until("</iq>").unwrap();
    assert!(
        roster.contains("nurse@localhost") && roster.contains("from='juliet@localhost'"),
        "{roster}"
    );

    // The configuration has it no more, then again, without privileges.
    let path = site.path().join("imserver.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let at = text.find("\n[[component]]").unwrap();
    std::fs::write(&path, &text[..at]).unwrap();
    site.reload().unwrap();
    assert_eq!(raw.until_closed().unwrap(), "host-gone");
    let gone = wait::until(PATIENCE, || {
        let answer = j.request("get", "p2", Some(bot), ping).ok()?;
        (condition(&answer)? == "remote-server-not-found").then_some(())
    });
    gone.expect("the domain is gone");
    std::fs::write(&path, format!("{}{}", &text[..at], component(""))).unwrap();
    site.reload().unwrap();
    let mut raw = wait::until(PATIENCE, || Raw::connect(address, SECRET).ok()).unwrap();
    raw.send(&on_behalf("romeo@localhost", "b3")).unwrap();
    assert!(raw.until("</message>").unwrap().contains("<forbidden"));
    raw.send(&ask("r2")).unwrap();
    assert!(raw.until("</iq>").unwrap().contains("<forbidden"));
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

/// XEP-0356, all of it, with slixmpp: what is granted is told, also by a reload; rosters are read, changed and pushed; requests are made
/// and messages sent in the name of our people; who is there is told, and who comes and goes.
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
    assert_eq!(
        bot.order("remove romeo@localhost juliet@localhost"),
        "ERROR item-not-found"
    );
    assert_eq!(
        bot.order("add romeo@localhost romeo@localhost"),
        "ERROR not-allowed"
    );
    // A change by the owner.
    let set =
        "<query xmlns='jabber:iq:roster'><item jid='nurse@localhost' name='Angelica'/></query>";
    j.request("set", "r2", None, set).unwrap();
    assert_eq!(bot.next(), "PUSH juliet@localhost nurse@localhost none");

    // Presence that is no first is told as soon as some account hears it.
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
    assert_eq!(
        bot.order(&format!("{ping} x@elsewhere.example")),
        "ANSWERED remote-server-not-found"
    );
    assert_eq!(
        bot.order("get jabber:iq:roster query juliet@localhost -"),
        "ANSWER juliet@localhost result {jabber:iq:roster}query"
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
    // Nobody else answers for her.
    n.send(&format!(
        "<iq type='result' id='{id}' to='nurse@localhost'/>"
    ))
    .unwrap();
    j.send(&format!(
        "<iq type='result' id='{id}' to='nurse@localhost'/>"
    ))
    .unwrap();
    assert_eq!(bot.next(), format!("ANSWER {} result", j.jid));
    // What is a session's, an administrator's, somebody's of another domain, or nobody's.
    let mut refused = |order: &str, want: &str| assert_eq!(bot.order(order), want, "{order}");
    refused(
        "set urn:xmpp:carbons:2 enable juliet@localhost -",
        "ANSWERED forbidden",
    );
    refused(
        "set http://jabber.org/protocol/commands command juliet@localhost localhost",
        "ANSWERED forbidden",
    );
    refused(
        "get urn:xmpp:ping ping nobody@localhost localhost",
        "ERROR service-unavailable",
    );
    refused("message nurse@localhost juliet@localhost hello", "SENT");
    let said = j
        .element_where("a message", |e| e.child("body").is_some())
        .unwrap();
    assert_eq!(said.attr("from"), Some("nurse@localhost"));
    // Whom she has blocked she does not speak to, whoever does it for her.
    let block = "<block xmlns='urn:xmpp:blocking'><item jid='nurse@localhost'/></block>";
    j.request("set", "b1", None, block).unwrap();
    assert_eq!(
        bot.order("get urn:xmpp:ping ping juliet@localhost nurse@localhost"),
        "ERROR not-acceptable"
    );

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
    let mut app = Raw::connect(site.address(5347), SECRET).unwrap();
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    let enable = format!("<enable xmlns='urn:xmpp:push:0' jid='{DOMAIN}' node='n'/>");
    let answer = r.request("set", "p", None, &enable).unwrap();
    assert_eq!(condition(&answer), None);
    r.available().unwrap();
    // Told, and answered as it says; the id of the notification.
    let told = |app: &mut Raw, body: &str, answer: &str| {
        let notification = app.until("</iq>").unwrap();
        assert!(
            notification.contains(&format!("<value>{body}</value>")),
            "{notification}"
        );
        assert!(
            notification.contains(" from='romeo@localhost'"),
            "{notification}"
        );
        assert!(!notification.contains("juliet"), "{notification}");
        let id = notification.split("id='").nth(1).unwrap();
        let id = id.split('\'').next().unwrap().to_owned();
        let answer = answer.replace("ID", &id);
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
    let rest = app.until("</iq>").unwrap();
    assert!(rest.contains("<value>the end</value>"), "{rest}");
}

/// A phone of slixmpp's: it blocks, asks when somebody was there, says that nobody looks at it, and has a push service, a component, that
/// is told when it has gone.
#[test]
fn a_phone_of_slixmpp_blocks_is_inactive_and_is_pushed_to() {
    let [romeo, juliet] = ["romeo", "juliet"].map(Account::new);
    let site = site("", &[romeo.clone(), juliet.clone()]);
    let mut app = Raw::connect(site.address(5347), SECRET).unwrap();
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
        let told = app.until("</iq>").unwrap();
        assert!(
            told.contains("<publish node='phone'>")
                && told.contains(&format!("<value>{waiting}</value>")),
            "{told}"
        );
        let id = told.split("id='").nth(1).unwrap();
        let id = id.split('\'').next().unwrap();
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
