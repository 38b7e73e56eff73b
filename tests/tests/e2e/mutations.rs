//! Every stanza of the scripts, changed at random: whatever a client sends, each IQ request is answered once, who stays within XML
//! stays in, and no process minds.

use anyhow::{Result, bail, ensure};
use isthmus_tests::client::{Account, Client, Endpoint, NoItem, Transport};
use isthmus_tests::harness::Plan;
use isthmus_tests::scansion::{self, Verb};
use isthmus_tests::wait;
use isthmus_tests::xml::{Attr, Item, NS_CLIENT, Node, Xml};
use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Values at which something may break: of numbers, JIDs, dates, base64, languages.
const VALUES: &[&str] = &[
    "",
    " ",
    "0",
    "-1",
    "1",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "1e9",
    "true",
    "false",
    "none",
    "set",
    "get",
    "result",
    "error",
    "ann@localhost",
    "bob@localhost",
    "eve@localhost",
    "ann@localhost/one",
    "localhost",
    "localhost/x",
    "@localhost",
    "ann@",
    "ann@localhost/",
    "nobody@localhost",
    "x@elsewhere.example",
    "2026-02-30T25:61:61Z",
    "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "1969-07-21T02:56:15Z",
    "2026-11-26T10:00:00+14:00",
    "====",
    "QQ==",
    "QQ",
    "é🦀",
    "\u{202e}x\u{FFFD}",
    "urn:xmpp:mam:2",
    "http://jabber.org/protocol/tune",
    "storage:bookmarks",
    "urn:xmpp:bookmarks:1",
    "urn:xmpp:avatar:data",
    "urn:xmpp:avatar:metadata",
    "http://jabber.org/protocol/pubsub#publish-options",
    "http://jabber.org/protocol/pubsub#node_config",
    "whitelist",
    "authorize",
    "presence",
    "open",
    "roster",
    "en",
    "de-AT-1996",
];

/// What all scripts' clients send, with the names of scripts filled in anyhow.
fn corpus() -> Vec<Xml> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut all = Vec::new();
    for script in scansion::load(&dir).unwrap() {
        for statement in &script.statements {
            if !matches!(statement.verb, Verb::Sends) {
                continue;
            }
            let mut text = String::new();
            let mut rest = statement.block.as_str();
            while let Some((before, after)) = rest.split_once("${") {
                let (name, after) = after.split_once('}').unwrap();
                text.push_str(before);
                text.push_str(match name {
                    _ if name.contains(" times ") => "x",
                    _ if name.ends_with("'s JID") => "bob@localhost",
                    _ if name.ends_with("'s full JID") => "ann@localhost/one",
                    _ => "captured",
                });
                rest = after;
            }
            text.push_str(rest);
            all.extend(Xml::parse_many(&text).unwrap());
        }
    }
    // These change who can log in.
    all.retain(|stanza| !stanza.to_string().contains("jabber:iq:register"));
    all
}

/// The `n`th element of a tree in document order.
fn nth<'a>(element: &'a mut Xml, n: &mut usize) -> Option<&'a mut Xml> {
    if *n == 0 {
        return Some(element);
    }
    *n -= 1;
    element.children.iter_mut().find_map(|node| match node {
        Node::Element(child) => nth(child, n),
        Node::Text(_) => None,
    })
}

fn size(element: &Xml) -> usize {
    1 + element.elements().map(size).sum::<usize>()
}

/// A copy of one of the elements in a tree.
fn part(rng: &mut Rng, of: &Xml) -> Xml {
    let mut copy = of.clone();
    let mut n = rng.below(size(of));
    nth(&mut copy, &mut n).cloned().unwrap_or_default()
}

fn mutate(rng: &mut Rng, stanza: &mut Xml, corpus: &[Xml]) {
    let mut n = rng.below(size(stanza));
    let Some(at) = nth(stanza, &mut n) else {
        return;
    };
    let value = (*rng.pick(VALUES)).to_owned();
    let other = rng.pick(corpus);
    let other = part(rng, other);
    let (attrs, children) = (at.attrs.len(), at.children.len());
    match rng.below(13) {
        0 | 1 if attrs > 0 => at.attrs[rng.below(attrs)].value = value,
        2 if attrs > 0 => drop(at.attrs.remove(rng.below(attrs))),
        3 => {
            let name = rng.pick(&[
                "type", "id", "to", "from", "node", "jid", "ver", "max", "var", "h",
            ]);
            at.attrs.retain(|a| !a.ns.is_empty() || a.name != *name);
            at.attrs.push(Attr {
                ns: String::new(),
                name: (*name).into(),
                value,
            });
        }
        4 if children > 0 => drop(at.children.remove(rng.below(children))),
        5 if children > 0 => {
            let twice = at.children[rng.below(children)].clone();
            at.children.push(twice);
        }
        6 if children > 1 => at.children.rotate_left(1),
        7 => at.children = vec![Node::Text(value)],
        8 => at.children.push(Node::Element(other)),
        9 => *at = other,
        10 => at.ns = other.ns,
        11 => at.name = other.name,
        // As deep as one may, and a little more.
        12 => {
            for _ in 0..rng.below(70) {
                let inner = std::mem::take(&mut at.children);
                let wrapper = Xml {
                    children: inner,
                    ..at.clone()
                };
                at.children = vec![Node::Element(wrapper)];
            }
        }
        _ => {}
    }
}

/// A client, logged in as often as it is thrown out.
struct Sender {
    account: Account,
    resource: &'static str,
    client: Client,
    /// Requests that the server or an account has to answer, and how often that was done.
    asked: HashMap<String, (String, u32)>,
    ends: HashMap<String, u32>,
}

impl Sender {
    fn open(endpoint: &Endpoint, account: Account, resource: &'static str) -> Result<Sender> {
        Ok(Sender {
            client: enter(endpoint, &account, resource)?,
            account,
            resource,
            asked: HashMap::new(),
            ends: HashMap::new(),
        })
    }

    /// Sends, and notes what has to be answered.
    fn send(&mut self, id: String, mut stanza: Xml) {
        let is_request =
            stanza.is(NS_CLIENT, "iq") && matches!(stanza.attr("type"), Some("get" | "set"));
        let from = stanza.attr("from").is_none();
        // Another client may be silent; a component and a foreign domain are not there.
        let to = stanza.attr("to").is_none_or(|to| !to.contains('/'));
        if is_request && from && to && stanza.attr("id").is_some() {
            let attr = stanza
                .attrs
                .iter_mut()
                .find(|a| a.ns.is_empty() && a.name == "id");
            attr.expect("just seen").value.clone_from(&id);
            self.asked.insert(id, (stanza.to_string(), 0));
        }
        // It may be closed already: reading says why.
        let _ = self.client.send(&stanza.to_string());
    }

    /// Reads up to the answer of a ping, or up to the end of the stream and in again.
    fn settle(&mut self, endpoint: &Endpoint, id: &str) -> Result<()> {
        let ping = format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>");
        let _ = self.client.send(&ping);
        let deadline = Instant::now() + self.client.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.next_item(left) {
                Ok(Item::Element(e)) => {
                    if e.is("urn:xmpp:sm:3", "r") {
                        self.client.acknowledge()?;
                    }
                    if e.is(isthmus_tests::xml::NS_STREAM, "error") {
                        let what = e.elements().next().map(|e| e.name.clone());
                        *self.ends.entry(what.unwrap_or_default()).or_default() += 1;
                    }
                    let is_answer =
                        e.is(NS_CLIENT, "iq") && matches!(e.attr("type"), Some("result" | "error"));
                    let answered = e.attr("id").filter(|_| is_answer).unwrap_or_default();
                    if let Some((_, answers)) = self.asked.get_mut(answered) {
                        *answers += 1;
                    }
                    if answered == id {
                        return Ok(());
                    }
                }
                Ok(Item::Header(_)) => {}
                Ok(Item::End) | Err(NoItem::Closed(_)) => break,
                Err(error) => bail!("{}: no answer to a ping: {error}", self.client.jid),
            }
        }
        // What was asked ends with the stream.
        self.asked.clear();
        self.client = enter(endpoint, &self.account, self.resource)?;
        Ok(())
    }

    fn unanswered(&self) -> Option<&str> {
        let mut all = self.asked.values().filter(|(_, answers)| *answers == 0);
        all.next().map(|(stanza, _)| stanza.as_str())
    }
}

fn enter(endpoint: &Endpoint, account: &Account, resource: &str) -> Result<Client> {
    let mut client = Client::login(endpoint, account, Some(resource))?;
    client.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>")?;
    client.send("<presence><priority>1</priority></presence>")?;
    Ok(client)
}

fn run(seed: u64, rounds: usize) -> Result<()> {
    let corpus = corpus();
    ensure!(
        corpus.len() > 500,
        "the scripts send {} stanzas",
        corpus.len()
    );
    let plan = Plan {
        plaintext: true,
        ..Plan::default()
    };
    let mut site = super::scripts::start(&plan, &[])?;
    let accounts = ["ann", "bob", "eve"].map(Account::new);
    site.add_accounts(&accounts)?;
    let endpoint = site.endpoint(Transport::Plain);
    let [ann, bob, eve] = accounts;
    let mut senders = [
        Sender::open(&endpoint, ann.clone(), "one")?,
        Sender::open(&endpoint, ann, "two")?,
        Sender::open(&endpoint, bob, "one")?,
        Sender::open(&endpoint, eve, "one")?,
    ];
    let mut rng = Rng(seed);
    for round in 0..rounds {
        let who = rng.below(senders.len());
        for n in 0..20 {
            let mut stanza = rng.pick(&corpus).clone();
            for _ in 0..rng.below(4) {
                mutate(&mut rng, &mut stanza, &corpus);
            }
            senders[who].send(format!("m{round}-{n}"), stanza);
        }
        for (n, sender) in senders.iter_mut().enumerate() {
            sender.settle(&endpoint, &format!("p{round}-{n}"))?;
        }
    }
    for sender in &mut senders {
        let mut n = 0;
        let answered = wait::until(wait::PATIENCE, || {
            n += 1;
            match sender.settle(&endpoint, &format!("q{n}")) {
                Ok(()) if sender.unanswered().is_some() => None,
                settled => Some(settled),
            }
        });
        match (answered, sender.unanswered()) {
            (Some(settled), _) => settled?,
            (None, unanswered) => bail!("unanswered: {unanswered:?}"),
        }
        let twice = sender.asked.values().find(|(_, answers)| *answers > 1);
        ensure!(twice.is_none(), "answered more than once: {twice:?}");
        println!("{}: {:?}", sender.client.jid, sender.ends);
    }
    ensure!(site.server().is_running() && site.mux().is_running());
    for log in [site.server().log(), site.mux().log()] {
        let bad = log
            .lines()
            .find(|l| l.contains("panicked") || l.contains(" ERROR "));
        ensure!(bad.is_none(), "{bad:?}");
    }
    Ok(())
}

#[test]
fn of_every_stanza_are_survived_and_answered() {
    let (seeds, rounds) = if cfg!(feature = "full") {
        (4, 400)
    } else {
        (1, 100)
    };
    for seed in 1..=seeds {
        run(seed, rounds).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    }
}
