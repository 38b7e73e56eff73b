//! What a component may do in the name of our people (XEP-0356): decided by the configuration, told when it connects.
//!
//! In: privileges of a component, a stanza that uses one. Out: what it may do; what is to be sent in whose name.
//! Owns: nothing. Never: grants what the configuration does not; lets anybody speak for an address outside the domains served here.

use bytes::Bytes;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// Requests of which type it may make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Access {
    /// None.
    #[default]
    None,
    /// `get`.
    Get,
    /// `set`.
    Set,
    /// Either.
    Both,
}

impl Access {
    /// All of them.
    pub const ALL: [Access; 4] = [Self::None, Self::Get, Self::Set, Self::Both];

    /// These types of requests.
    pub const fn of(get: bool, set: bool) -> Self {
        match (get, set) {
            (false, false) => Self::None,
            (true, false) => Self::Get,
            (false, true) => Self::Set,
            (true, true) => Self::Both,
        }
    }

    /// As the XEP and the configuration write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Get => "get",
            Self::Set => "set",
            Self::Both => "both",
        }
    }

    /// It may read.
    pub const fn gets(self) -> bool {
        matches!(self, Self::Get | Self::Both)
    }

    /// It may change.
    pub const fn sets(self) -> bool {
        matches!(self, Self::Set | Self::Both)
    }

    fn allows(self, iq_type: &str) -> bool {
        match iq_type {
            "get" => self.gets(),
            "set" => self.sets(),
            _ => false,
        }
    }
}

/// Whose presence it is sent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Presence {
    /// Nobody's, but by subscriptions of its own.
    #[default]
    None,
    /// That our people are there, and that they have gone (§7.1).
    ManagedEntity,
    /// And everything that their contacts hear, or would if they were there (§7.4).
    Roster,
}

impl Presence {
    /// All of them.
    pub const ALL: [Presence; 3] = [Self::None, Self::ManagedEntity, Self::Roster];

    /// As the XEP and the configuration write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ManagedEntity => "managed_entity",
            Self::Roster => "roster",
        }
    }
}

/// All of one component.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Privileges {
    /// What it may do with the rosters of our people (§4).
    pub roster: Access,
    /// It is told of changes of rosters (§4.4). Only who may read them is.
    pub roster_pushes: bool,
    /// It may send messages in the name of our people's bare addresses, and of our domains (§5).
    pub message: bool,
    /// Requests it may make in their names (§6): by the namespace of what is asked, each once, sorted.
    pub iq: Vec<(String, Access)>,
    /// Presence it is sent (§7).
    pub presence: Presence,
}

/// A message or request in somebody's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnBehalf {
    /// In whose: bare.
    pub from: Jid,
    /// For whom.
    pub to: Jid,
    /// As it goes out.
    pub stanza: Node,
}

impl Privileges {
    /// §4.2, §5.2, §6.2, §7.2: what the component is told of a domain when it connects. With `before`, what it had been told: what has been
    /// taken away since is named, too. `None`: there is nothing to tell.
    pub fn advertised(
        &self,
        before: Option<&Privileges>,
        component: &str,
        served: &str,
    ) -> Option<Bytes> {
        let nothing = Privileges::default();
        let had = before.unwrap_or(&nothing);
        let perm = |access: &'static str, what: Option<&'static str>| {
            Node::new("perm", ns::PRIVILEGE)
                .with_attr("access", access)
                .with_attr_opt("type", what)
        };
        let mut told = Vec::new();
        if self.roster != Access::None || had.roster != Access::None {
            let push = if self.roster_pushes { "true" } else { "false" };
            let roster = perm("roster", Some(self.roster.name()));
            told.push(roster.with_attr("push", push));
        }
        if self.message || had.message {
            let what = if self.message { "outgoing" } else { "none" };
            told.push(perm("message", Some(what)));
        }
        let gone = |(of, _): &&(String, Access)| self.iq.iter().all(|(other, _)| other != of);
        let gone = had.iq.iter().filter(gone).map(|(of, _)| (of, Access::None));
        let namespaces: Vec<Node> = (self.iq.iter().map(|(of, access)| (of, *access)))
            .chain(gone)
            .map(|(of, access)| {
                Node::new("namespace", ns::PRIVILEGE)
                    .with_attr("ns", of.as_str())
                    .with_attr("type", access.name())
            })
            .collect();
        if !namespaces.is_empty() {
            told.push(perm("iq", None).with_children(namespaces));
        }
        if self.presence != Presence::None || had.presence != Presence::None {
            told.push(perm("presence", Some(self.presence.name())));
        }
        if told.is_empty() {
            return None;
        }
        let privilege = Node::new("privilege", ns::PRIVILEGE).with_children(told);
        let stanza = Node::new("message", ns::CLIENT)
            .with_attr("from", served)
            .with_attr("to", component)
            .with_child(privilege);
        Some(stanza.to_bytes(ns::CLIENT))
    }

    /// §5.1: the message in `<privilege/>`. `serves` tells whether a domain is ours.
    ///
    /// # Errors
    /// `forbidden` for what the component may not do, `bad-request` for what is no such message.
    pub fn message(
        &self,
        privilege: &Node,
        serves: impl Fn(&str) -> bool,
    ) -> Result<OnBehalf, StanzaError> {
        if !self.message {
            return Err(StanzaError::Forbidden);
        }
        let forwarded = privilege.child("forwarded", ns::FORWARD);
        let stanzas = forwarded.iter().flat_map(|f| f.children());
        let mut stanzas = stanzas.filter(|child| child.ns() == ns::CLIENT);
        let message = match (stanzas.next(), stanzas.next()) {
            (Some(message), None) if message.name() == "message" => message,
            // One that would be dropped silently is none too many.
            _ => return Err(StanzaError::BadRequest),
        };
        let address = |name: &str| message.attr(name).and_then(|a| Jid::parse(a).ok());
        let from = address("from").ok_or(StanzaError::BadRequest)?;
        if from.resourcepart().is_some() || !serves(from.domainpart()) {
            return Err(StanzaError::Forbidden);
        }
        let to = address("to").ok_or(StanzaError::BadRequest)?;
        let mut stanza = message.clone();
        stanza.set_attr("from", from.as_str());
        stanza.set_attr("to", to.as_str());
        Ok(OnBehalf { from, to, stanza })
    }

    /// §6.3: the request in `<privileged_iq/>`, of a request of this type to this address. Without a `to` it is for the account.
    ///
    /// # Errors
    /// `forbidden` for what the component may not do, as the XEP lists it; `jid-malformed` and `bad-request` for what is no request.
    pub fn request(
        &self,
        iq_type: &str,
        account: &Jid,
        privileged: &Node,
        serves: impl Fn(&str) -> bool,
    ) -> Result<OnBehalf, StanzaError> {
        let managed = account.localpart().is_some() && account.resourcepart().is_none();
        if self.iq.is_empty() || !managed || !serves(account.domainpart()) {
            return Err(StanzaError::Forbidden);
        }
        let mut children = privileged.children();
        let request = match (children.next(), children.next()) {
            (Some(request), None) => request,
            _ => return Err(StanzaError::BadRequest),
        };
        let inside = request.attr("type");
        if !request.is("iq", ns::CLIENT) || inside != Some(iq_type) {
            return Err(StanzaError::Forbidden);
        }
        let own = |from: &str| Jid::parse(from).is_ok_and(|from| from == *account);
        if request.attr("from").is_some_and(|from| !own(from)) {
            return Err(StanzaError::Forbidden);
        }
        let mut payloads = request.children();
        let (Some(payload), None) = (payloads.next(), payloads.next()) else {
            return Err(StanzaError::BadRequest);
        };
        let granted = self.iq.iter().find(|(of, _)| of == payload.ns());
        if !granted.is_some_and(|(_, access)| access.allows(iq_type)) {
            return Err(StanzaError::Forbidden);
        }
        let to = match request.attr("to") {
            Some(to) => Jid::parse(to).map_err(|_| StanzaError::JidMalformed)?,
            None => account.clone(),
        };
        let stanza = Node::new("iq", ns::CLIENT)
            .with_attr("type", iq_type)
            .with_attr("from", account.as_str())
            .with_attr("to", to.as_str())
            .with_attr_opt("id", request.attr("id"))
            .with_child(payload.clone());
        Ok(OnBehalf {
            from: account.clone(),
            to,
            stanza,
        })
    }
}

/// §6.3: what has come of a request in somebody's name, for the component that has made it. An error is told outside as well: an answer
/// of type `error` without one is none (RFC 6120 §8.3.1).
pub fn answer(account: &str, component: &str, id: &str, answer: Node) -> Bytes {
    let error = answer.child("error", ns::CLIENT).cloned();
    let iq_type = if error.is_some() { "error" } else { "result" };
    let forwarded = Node::new("forwarded", ns::FORWARD).with_child(answer);
    Node::new("iq", ns::CLIENT)
        .with_attr("type", iq_type)
        .with_attr("from", account)
        .with_attr("to", component)
        .with_attr("id", id)
        .with_child(Node::new("privilege", ns::PRIVILEGE).with_child(forwarded))
        .with_children(error)
        .to_bytes(ns::CLIENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Privileges {
        Privileges {
            roster: Access::Both,
            roster_pushes: true,
            message: true,
            iq: vec![
                ("urn:a".into(), Access::Set),
                ("urn:b".into(), Access::Both),
            ],
            presence: Presence::Roster,
        }
    }

    fn told(is: &Privileges, was: Option<&Privileges>) -> String {
        let told = is.advertised(was, "c.example", "x.example");
        let told = told.map(|t| String::from_utf8(t.to_vec()).expect("UTF-8"));
        let told = told.unwrap_or_default();
        let start =
            "<message from='x.example' to='c.example'><privilege xmlns='urn:xmpp:privilege:2'>";
        let told = told.strip_prefix(start).unwrap_or(&told);
        let told = told.strip_suffix("</privilege></message>").unwrap_or(told);
        told.to_owned()
    }

    #[test]
    fn what_is_granted_is_told_and_what_is_taken_away() {
        let none = Privileges::default();
        assert_eq!(told(&none, None), "");
        assert_eq!(
            told(&all(), None),
            "<perm access='roster' type='both' push='true'/><perm access='message' type='outgoing'/>\
             <perm access='iq'><namespace ns='urn:a' type='set'/><namespace ns='urn:b' type='both'/></perm>\
             <perm access='presence' type='roster'/>"
        );
        assert_eq!(
            told(&none, Some(&all())),
            "<perm access='roster' type='none' push='false'/><perm access='message' type='none'/>\
             <perm access='iq'><namespace ns='urn:a' type='none'/><namespace ns='urn:b' type='none'/></perm>\
             <perm access='presence' type='none'/>"
        );
        let reads = Privileges {
            roster: Access::Get,
            iq: vec![("urn:b".into(), Access::Get)],
            ..none
        };
        assert_eq!(
            told(&reads, Some(&all())),
            "<perm access='roster' type='get' push='false'/><perm access='message' type='none'/>\
             <perm access='iq'><namespace ns='urn:b' type='get'/><namespace ns='urn:a' type='none'/></perm>\
             <perm access='presence' type='none'/>"
        );
    }

    #[test]
    fn nobody_elses_name_is_used_for_messages() {
        let ask = |privileges: &Privileges, from: &str, ns: &str| {
            let xml = format!(
                "<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='{ns}' from='{from}' to='b@y.example/r' type='headline'><body>1</body></message>\
                 </forwarded></privilege>"
            );
            let node = Node::parse(xml.as_bytes(), "").expect("well-formed");
            privileges.message(&node, |domain| domain == "x.example")
        };
        let client = "jabber:client";
        use StanzaError::{BadRequest, Forbidden};
        for (privileges, from, ns, want) in [
            (all(), "a@x.example", client, None),
            (all(), "x.example", client, None),
            (
                Privileges::default(),
                "a@x.example",
                client,
                Some(Forbidden),
            ),
            (all(), "a@x.example/phone", client, Some(Forbidden)),
            (all(), "a@y.example", client, Some(Forbidden)),
            (all(), "@", client, Some(BadRequest)),
            (all(), "a@x.example", "jabber:server", Some(BadRequest)),
        ] {
            let got = ask(&privileges, from, ns);
            assert_eq!(got.as_ref().err(), want.as_ref(), "{from} {ns}");
            if let Ok(got) = got {
                let wanted = format!(
                    "<message from='{from}' to='b@y.example/r' type='headline'><body>1</body></message>"
                );
                assert_eq!(got.stanza.to_bytes(ns::CLIENT), wanted);
            }
        }
    }

    #[test]
    fn one_message_is_forwarded() {
        let message = "<message xmlns='jabber:client' from='a@x.example' to='b@y.example'/>";
        for (inside, good) in [
            (message.to_owned(), true),
            (format!("<delay xmlns='urn:xmpp:delay'/>{message}"), true),
            (message.repeat(2), false),
            (format!("{message}<iq xmlns='jabber:client'/>"), false),
            (String::new(), false),
        ] {
            let xml = format!(
                "<privilege xmlns='urn:xmpp:privilege:2'><forwarded xmlns='urn:xmpp:forward:0'>{inside}</forwarded></privilege>"
            );
            let node = Node::parse(xml.as_bytes(), "").expect("well-formed");
            let got = all().message(&node, |domain| domain == "x.example");
            assert_eq!(got.is_ok(), good, "{inside}");
        }
    }

    #[test]
    fn nobody_elses_name_is_used_for_requests() {
        const A: &str = "<q xmlns='urn:a'/>";
        const B: &str = "<q xmlns='urn:b'/>";
        use StanzaError::{BadRequest, Forbidden, JidMalformed};
        let iq = |attrs: &str, payload: &str| {
            format!("<iq xmlns='jabber:client' {attrs}>{payload}</iq>")
        };
        let to = "a@x.example";
        for (iq_type, to, request, want) in [
            ("set", to, iq("type='set' to='b@y.example/r'", A), None),
            ("set", to, iq("type='set' from='A@x.example'", A), None),
            ("get", to, iq("type='get'", B), None),
            // Not granted: the type, the namespace.
            ("get", to, iq("type='get'", A), Some(Forbidden)),
            (
                "set",
                to,
                iq("type='set'", "<q xmlns='urn:c'/>"),
                Some(Forbidden),
            ),
            // Not for whom it is said to be.
            ("set", "a@y.example", iq("type='set'", A), Some(Forbidden)),
            ("set", "a@x.example/r", iq("type='set'", A), Some(Forbidden)),
            ("set", "x.example", iq("type='set'", A), Some(Forbidden)),
            (
                "set",
                to,
                iq("type='set' from='b@x.example'", A),
                Some(Forbidden),
            ),
            (
                "set",
                to,
                iq("type='set' from='a@x.example/r'", A),
                Some(Forbidden),
            ),
            ("set", to, iq("type='set' from='@'", A), Some(Forbidden)),
            // Another type than outside, or none of a request.
            ("set", to, iq("type='get'", B), Some(Forbidden)),
            ("get", to, iq("", B), Some(Forbidden)),
            (
                "set",
                to,
                format!("<iq xmlns='jabber:server' type='set'>{A}</iq>"),
                Some(Forbidden),
            ),
            (
                "set",
                to,
                format!("<message xmlns='jabber:client' type='set'>{A}</message>"),
                Some(Forbidden),
            ),
            // What is no request at all.
            ("set", to, iq("type='set'", ""), Some(BadRequest)),
            (
                "set",
                to,
                iq("type='set'", &format!("{A}{A}")),
                Some(BadRequest),
            ),
            ("set", to, String::new(), Some(BadRequest)),
            ("set", to, iq("type='set'", A).repeat(2), Some(BadRequest)),
            ("set", to, iq("type='set' to='@'", A), Some(JidMalformed)),
        ] {
            let xml =
                format!("<privileged_iq xmlns='urn:xmpp:privilege:2'>{request}</privileged_iq>");
            let node = Node::parse(xml.as_bytes(), "").expect("well-formed");
            let account = Jid::parse(to).expect("an address");
            let got = all().request(iq_type, &account, &node, |domain| domain == "x.example");
            assert_eq!(
                got.as_ref().err(),
                want.as_ref(),
                "{iq_type} {to} {request}"
            );
            let none = Privileges::default();
            let refused = none.request(iq_type, &account, &node, |_| true);
            assert_eq!(refused.err(), Some(Forbidden), "{request}");
            if let Ok(got) = got {
                assert_eq!(got.stanza.attr("from"), Some("a@x.example"));
                assert_eq!(got.stanza.attr("to"), Some(got.to.as_str()));
            }
        }
    }

    #[test]
    fn an_answer_is_told_with_its_error() {
        let of = |xml: &str| Node::parse(xml.as_bytes(), ns::CLIENT).expect("well-formed");
        let got = answer("a@x", "c.x", "1", of("<iq type='result' id='2'/>"));
        assert_eq!(
            got,
            "<iq type='result' from='a@x' to='c.x' id='1'><privilege xmlns='urn:xmpp:privilege:2'>\
             <forwarded xmlns='urn:xmpp:forward:0'><iq xmlns='jabber:client' type='result' id='2'/></forwarded></privilege></iq>"
        );
        let refused = "<iq type='error' id='2'><error type='cancel'><x xmlns='y'/></error></iq>";
        let got = answer("a@x", "c.x", "1", of(refused));
        let got = of(std::str::from_utf8(&got).expect("UTF-8"));
        assert_eq!(got.attr("type"), Some("error"));
        assert!(got.child("error", ns::CLIENT).is_some());
    }
}
