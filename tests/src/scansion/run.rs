//! Playing one script: each client is a [`Client`], each statement one step; the first that does not
//! go as written ends the play with the whole conversation so far.

use super::Stage;
use super::script::{Person, Script, Statement, Verb};
use crate::client::{Client, Endpoint, NS_SM, Sasl, Transport, stream_condition};
use crate::proxy::LinkProxy;
use crate::xml::{self, ANY, Attr, Item, NS_STREAM, Node, Xml};
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Plays a script to its end.
pub fn play(script: &Script, stage: &dyn Stage) -> Result<()> {
    let mut play = Play {
        script,
        stage,
        actors: HashMap::new(),
        jids: HashMap::new(),
        captured: HashMap::new(),
        presence: HashMap::new(),
        transcript: Vec::new(),
        slow: None,
    };
    if let Some(person) = stage.slow_client().and_then(|n| script.clients.get(n)) {
        let endpoint = stage.endpoint();
        let target = match person.component {
            Some(_) => endpoint.component,
            None => endpoint.starttls,
        };
        let way = LinkProxy::with_lag(target, LAG)?;
        play.slow = Some((&person.name, way));
    }
    for statement in &script.statements {
        if let Err(error) = play.step(statement) {
            bail!(
                "line {}: {} {:?}: {error:#}\n    {}",
                statement.line,
                statement.who,
                statement.verb,
                play.transcript.join("\n    ")
            );
        }
    }
    Ok(())
}

struct Play<'a> {
    script: &'a Script,
    stage: &'a dyn Stage,
    actors: HashMap<String, Client>,
    /// Full JIDs by client name; they outlive the connection.
    jids: HashMap<String, String>,
    captured: HashMap<String, String>,
    /// Last presence that somebody saw of a resource, without its delay.
    presence: HashMap<(String, String), Xml>,
    transcript: Vec<String>,
    /// The client whose words arrive late, and the way they take.
    slow: Option<(&'a str, LinkProxy)>,
}

/// How late the words of a slow client arrive: much later than a server needs for anything.
const LAG: Duration = Duration::from_millis(200);

impl Play<'_> {
    fn step(&mut self, statement: &Statement) -> Result<()> {
        let who = statement.who.as_str();
        match &statement.verb {
            Verb::Connects => self.connect(who),
            Verb::Dials => self.dial(who),
            Verb::DialsPlain => {
                let plain = Endpoint {
                    transport: Transport::Plain,
                    ..self.endpoint(who)?
                };
                self.actors.insert(who.into(), Client::dial(&plain)?);
                Ok(())
            }
            Verb::Opens => {
                let client = Client::open(&self.endpoint(who)?)?;
                self.actors.insert(who.into(), client);
                Ok(())
            }
            Verb::LogsIn => {
                let person = self.person(who)?.clone();
                let client = self.actor(who)?;
                log_in(client, &person)?;
                let jid = client.jid.clone();
                self.jids.insert(who.into(), jid);
                Ok(())
            }
            Verb::Disconnects => match self.actors.remove(who) {
                Some(client) => client.close(),
                None => Ok(()),
            },
            Verb::Drops => {
                self.actor(who)?.drop_connection();
                self.actors.remove(who);
                Ok(())
            }
            Verb::Sends => {
                let text = self.substitute(&statement.block)?;
                // Checked here, so that a typing error is not taken for a server's fault.
                self.parse(who, &text)?;
                self.send(who, &text)
            }
            Verb::SendsRaw => {
                let text = self.substitute(&statement.block)?;
                self.send(who, &text)
            }
            Verb::Receives => {
                for wanted in self.wanted(who, &statement.block)? {
                    self.receive(who, &wanted)?;
                }
                Ok(())
            }
            Verb::ReceivesAnyOrder => self.receive_any_order(who, &statement.block),
            Verb::ReceivesEventually => self.receive_eventually(who, &statement.block),
            Verb::NewStream => {
                self.actor(who)?.new_stream();
                Ok(())
            }
            Verb::ReceivesHeader => self.actor(who)?.expect_header(),
            Verb::NothingMore => self.nothing_more(who),
            Verb::NothingMoreFrom(sender) => self.nothing_more_from(who, sender),
            Verb::IsDisconnected(condition) => self.is_disconnected(who, condition.as_deref()),
            Verb::Disturb(what) => self.stage.disturb(*what),
        }
    }

    fn endpoint(&self, who: &str) -> Result<Endpoint> {
        let mut endpoint = self.stage.endpoint();
        if let Some((slow, way)) = &self.slow
            && *slow == who
        {
            (endpoint.starttls, endpoint.component) = (way.address(), way.address());
        }
        let person = self.person(who)?;
        if person.component.is_some() {
            endpoint.transport = Transport::Component;
            endpoint.domain = person.jid.clone();
        }
        Ok(endpoint)
    }

    fn person(&self, who: &str) -> Result<&Person> {
        let found = self.script.clients.iter().find(|p| p.name == who);
        found.with_context(|| format!("no [Client] or [Component] {who}"))
    }

    fn actor(&mut self, who: &str) -> Result<&mut Client> {
        self.actors
            .get_mut(who)
            .with_context(|| format!("{who} is not connected"))
    }

    fn connect(&mut self, who: &str) -> Result<()> {
        let person = self.person(who)?.clone();
        let mut client = Client::open(&self.endpoint(who)?)?;
        log_in(&mut client, &person)?;
        self.jids.insert(who.into(), client.jid.clone());
        self.actors.insert(who.into(), client);
        Ok(())
    }

    /// Secures the connection as the variant says, and leaves the next header to the script.
    fn dial(&mut self, who: &str) -> Result<()> {
        let endpoint = self.endpoint(who)?;
        let mut client = Client::dial(&endpoint)?;
        if endpoint.transport == Transport::StartTls {
            client.open_stream()?;
            client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")?;
            let proceed = client.element()?;
            ensure!(proceed.name == "proceed", "no <proceed/>: {proceed}");
            client.start_tls()?;
        }
        client.new_stream();
        self.actors.insert(who.into(), client);
        Ok(())
    }

    fn send(&mut self, who: &str, text: &str) -> Result<()> {
        let mut shown = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if shown.len() > 2000 {
            shown = format!(
                "{}... ({} bytes)",
                shown.chars().take(200).collect::<String>(),
                text.len()
            );
        }
        self.transcript.push(format!("{who} -> {shown}"));
        self.actor(who)?.send(text)
    }

    /// What somebody sends or receives, in the namespace of their streams.
    fn parse(&self, who: &str, text: &str) -> Result<Vec<Xml>> {
        let ns = self.person(who)?.content_ns();
        Xml::parse_many_in(ns, text).context("this script's own XML")
    }

    fn wanted(&self, who: &str, block: &str) -> Result<Vec<Xml>> {
        let wanted = self.parse(who, &self.substitute(block)?)?;
        ensure!(!wanted.is_empty(), "nothing to receive");
        Ok(wanted)
    }

    /// The next element, where stream management is looked after unless the script asks for it.
    fn next(&mut self, who: &str, wanted_sm: &[String]) -> Result<Xml> {
        let person = self.person(who)?;
        let silent = person.silent;
        let others = person
            .component
            .as_ref()
            .is_some_and(|g| g.hears_of_everybody());
        let stage = self.stage;
        loop {
            let element = self.next_but_noise(who, wanted_sm, silent)?;
            if others && self.is_of_another_script(&element) {
                continue;
            }
            if !stage.repeats_presence() || !self.is_repeated(who, &element) {
                self.transcript.push(format!("{who} <- {element}"));
                return Ok(element);
            }
        }
    }

    /// Scripts run side by side: a privileged component is told how the people of all of them are, and of their contacts.
    fn is_of_another_script(&self, element: &Xml) -> bool {
        let is_state = match element.name.as_str() {
            "presence" => matches!(element.attr("type"), None | Some("unavailable")),
            "iq" => element.attr("type") == Some("set") && element.child("query").is_some(),
            _ => false,
        };
        is_state && !self.script.knows(element.attr("from").unwrap_or_default())
    }

    fn is_repeated(&mut self, who: &str, element: &Xml) -> bool {
        let from = element.attr("from").unwrap_or_default();
        if element.name != "presence" || !from.contains('/') {
            return false;
        }
        let mut bare = element.clone();
        bare.children
            .retain(|node| !matches!(node, Node::Element(e) if e.ns == "urn:xmpp:delay"));
        let key = (who.to_owned(), from.to_owned());
        self.presence.insert(key, bare.clone()) == Some(bare)
    }

    fn next_but_noise(&mut self, who: &str, wanted_sm: &[String], silent: bool) -> Result<Xml> {
        let stage = self.stage;
        let client = self.actor(who)?;
        let deadline = Instant::now() + client.patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let element = match client.next_item(left)? {
                Item::Element(element) => element,
                Item::Header(_) => bail!("a stream header came instead"),
                Item::End => bail!("the stream was closed instead"),
            };
            match (element.ns.as_str(), element.name.as_str()) {
                (NS_SM, name) if wanted_sm.iter().any(|w| w == name) => return Ok(element),
                (NS_SM, "r") if !silent => client.acknowledge()?,
                (NS_SM, "r" | "a") => {}
                _ if stage.is_noise(&element) => {}
                _ => return Ok(element),
            }
        }
    }

    fn receive(&mut self, who: &str, wanted: &Xml) -> Result<()> {
        let got = self
            .next(who, &sm_names(std::slice::from_ref(wanted)))
            .with_context(|| format!("waiting for {wanted}"))?;
        self.check(wanted, &got)
    }

    fn check(&mut self, wanted: &Xml, got: &Xml) -> Result<()> {
        let open = without_captures(wanted);
        xml::matches(&open, got)
            .map_err(|why| anyhow!("{why}\n    wanted {wanted}\n    got    {got}"))?;
        capture(wanted, got, &mut self.captured);
        Ok(())
    }

    fn receive_any_order(&mut self, who: &str, block: &str) -> Result<()> {
        let mut wanted = self.wanted(who, block)?;
        while !wanted.is_empty() {
            let got = self.next(who, &sm_names(&wanted)).with_context(|| {
                let left: Vec<String> = wanted.iter().map(Xml::to_string).collect();
                format!("waiting for {left:?}")
            })?;
            let found = wanted
                .iter()
                .position(|w| xml::matches(&without_captures(w), &got).is_ok());
            let Some(found) = found else {
                let reasons: Vec<String> = wanted
                    .iter()
                    .filter_map(|w| xml::matches(&without_captures(w), &got).err())
                    .collect();
                bail!("{got} matches none of what is left: {reasons:#?}");
            };
            self.check(&wanted.remove(found), &got)?;
        }
        Ok(())
    }

    /// After a restart the server says again what is state: presence and roster pushes. A message is never skipped.
    fn receive_eventually(&mut self, who: &str, block: &str) -> Result<()> {
        for wanted in self.wanted(who, block)? {
            loop {
                let got = self
                    .next(who, &[])
                    .with_context(|| format!("waiting for {wanted}"))?;
                let is_state =
                    got.name == "presence" || (got.name == "iq" && got.attr("type") == Some("set"));
                if is_state && xml::matches(&without_captures(&wanted), &got).is_err() {
                    continue;
                }
                self.check(&wanted, &got)?;
                break;
            }
        }
        Ok(())
    }

    /// A component says itself who speaks (XEP-0114 §3).
    fn from(&self, who: &str) -> Result<Option<String>> {
        let person = self.person(who)?;
        let is_component = person.component.is_some();
        Ok(is_component.then(|| format!("from='{}'", xml::escape(&person.jid))))
    }

    fn nothing_more(&mut self, who: &str) -> Result<()> {
        let addresses = match self.from(who)? {
            Some(from) => format!(" {from} to='{}'", self.stage.endpoint().domain),
            None => String::new(),
        };
        self.send(
            who,
            &format!(
                "<iq type='get' id='nothing-more'{addresses}><ping xmlns='urn:xmpp:ping'/></iq>"
            ),
        )?;
        let got = self.next(who, &[])?;
        let is_answer = got.name == "iq" && got.attr("id") == Some("nothing-more");
        ensure!(is_answer, "nothing more should have come, but {got}");
        Ok(())
    }

    fn nothing_more_from(&mut self, who: &str, sender: &str) -> Result<()> {
        let to = self
            .jids
            .get(who)
            .with_context(|| format!("{who} has no JID yet"))?
            .clone();
        let marker = format!("the end {}", self.transcript.len());
        let from = self.from(sender)?.unwrap_or_default();
        self.send(
            sender,
            &format!(
                "<message type='chat' to='{}' {from}><body>{marker}</body></message>",
                xml::escape(&to)
            ),
        )?;
        let got = self.next(who, &[])?;
        ensure!(
            got.body().as_deref() == Some(&marker),
            "nothing more should have come from {sender}, but {got}"
        );
        Ok(())
    }

    fn is_disconnected(&mut self, who: &str, condition: Option<&str>) -> Result<()> {
        let client = self.actor(who)?;
        let deadline = Instant::now() + client.patience;
        let mut seen = None;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match client.next_item(left) {
                Ok(Item::Element(e)) if e.is(NS_STREAM, "error") => seen = stream_condition(&e),
                Ok(Item::Element(e)) => others.push(e.to_string()),
                Ok(_) => {}
                Err(crate::client::NoItem::Closed(_)) => break,
                Err(e) => {
                    bail!("not disconnected: {e}; stream error {seen:?}, elements {others:?}")
                }
            }
        }
        self.actors.remove(who);
        self.transcript
            .push(format!("{who} <- end of connection, {seen:?}"));
        ensure!(
            seen.as_deref() == condition,
            "disconnected with {seen:?} instead of {condition:?}; before it {others:?}"
        );
        Ok(())
    }

    /// Replaces `${Name's JID}`, `${Name's full JID}`, `${N times TEXT}` and captured names.
    fn substitute(&self, text: &str) -> Result<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            out.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').context("`${` without `}`")?;
            out.push_str(&self.value(name)?);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }

    fn value(&self, name: &str) -> Result<String> {
        if let Some(value) = self.captured.get(name) {
            return Ok(value.clone());
        }
        if let Some((count, what)) = name.split_once(" times ") {
            return Ok(what.repeat(count.parse().context("${N times TEXT}")?));
        }
        if let Some(who) = name.strip_suffix("'s full JID") {
            let jid = self
                .jids
                .get(who)
                .with_context(|| format!("{who} has no full JID yet"))?;
            return Ok(jid.clone());
        }
        if let Some(who) = name.strip_suffix("'s JID") {
            return Ok(self.person(who)?.jid.clone());
        }
        bail!("unknown ${{{name}}}")
    }
}

fn log_in(client: &mut Client, person: &Person) -> Result<()> {
    if person.component.is_some() {
        return client.shake_hands(&person.password);
    }
    if let Some(upgrade) = person.upgrade() {
        return upgrade.connect(client, &person.account());
    }
    let sasl = person.sasl.clone().map_or(Sasl::Best, Sasl::Mechanism);
    client.authenticate(&person.account(), &sasl)?;
    client.bind(person.resource.as_deref())
}

/// Which elements of stream management a script asks for; the others are looked after here.
fn sm_names(wanted: &[Xml]) -> Vec<String> {
    let ours = wanted.iter().filter(|w| w.ns == NS_SM);
    ours.map(|w| w.name.clone()).collect()
}

const CAPTURE: &str = "{scansion:capture:";

fn captured_name(value: &str) -> Option<&str> {
    value.trim().strip_prefix(CAPTURE)?.strip_suffix('}')
}

/// The same element, with "anything" where something is to be captured.
fn without_captures(wanted: &Xml) -> Xml {
    let open = |value: &str| match captured_name(value) {
        Some(_) => ANY.to_owned(),
        None => value.to_owned(),
    };
    Xml {
        ns: wanted.ns.clone(),
        name: wanted.name.clone(),
        attrs: wanted
            .attrs
            .iter()
            .map(|a| Attr {
                value: open(&a.value),
                ..a.clone()
            })
            .collect(),
        children: wanted
            .children
            .iter()
            .map(|node| match node {
                Node::Element(child) => Node::Element(without_captures(child)),
                Node::Text(text) => Node::Text(open(text)),
            })
            .collect(),
    }
}

fn capture(wanted: &Xml, got: &Xml, captured: &mut HashMap<String, String>) {
    for attr in &wanted.attrs {
        if let (Some(name), Some(value)) = (
            captured_name(&attr.value),
            got.attr_ns(&attr.ns, &attr.name),
        ) {
            captured.insert(name.into(), value.into());
        }
    }
    if let Some(name) = captured_name(&wanted.text()) {
        captured.insert(name.into(), got.text());
    }
    for child in wanted.elements() {
        let same = got
            .elements()
            .find(|e| e.ns == child.ns && xml::matches(&without_captures(child), e).is_ok());
        if let Some(same) = same {
            capture(child, same, captured);
        }
    }
}
