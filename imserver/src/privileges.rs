//! What a component may do in the name of our people (XEP-0356): decided by the configuration, told when it connects.
//!
//! In: privileges of a component, a stanza that uses one. Out: what it may do; what is to be sent in whose name.
//! Owns: nothing. Never: grants what the configuration does not; lets anybody speak for an address outside the domains served here.

use bytes::Bytes;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// All of one component.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Privileges {
    /// It may ask for the rosters of our people (§5).
    pub roster: bool,
    /// It may send messages in the name of our people's bare addresses, and of our domains (§6).
    pub message: bool,
}

/// A message in somebody's name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OnBehalf {
    /// In whose: bare.
    pub from: Jid,
    /// For whom.
    pub to: Jid,
    /// As it goes out.
    pub bytes: Bytes,
}

impl Privileges {
    /// §4.2: what the component is told of a domain when it connects. `None`: it may do nothing.
    pub fn advertised(self, component: &str, served: &str) -> Option<Bytes> {
        let perm = |access: &'static str, what: &'static str| {
            Node::new("perm", ns::PRIVILEGE)
                .with_attr("access", access)
                .with_attr("type", what)
        };
        // §5.4: no roster pushes.
        let roster = self
            .roster
            .then(|| perm("roster", "get").with_attr("push", "false"));
        let message = self.message.then(|| perm("message", "outgoing"));
        if roster.is_none() && message.is_none() {
            return None;
        }
        let privilege = Node::new("privilege", ns::PRIVILEGE)
            .with_children(roster)
            .with_children(message);
        let stanza = Node::new("message", ns::CLIENT)
            .with_attr("from", served)
            .with_attr("to", component)
            .with_child(privilege);
        Some(stanza.to_bytes(ns::CLIENT))
    }

    /// §6.1: the message in `<privilege/>`. `serves` tells whether a domain is ours.
    ///
    /// # Errors
    /// `forbidden` for what the component may not do, `bad-request` for what is no such message.
    pub fn message(
        self,
        privilege: &Node,
        serves: impl Fn(&str) -> bool,
    ) -> Result<OnBehalf, StanzaError> {
        if !self.message {
            return Err(StanzaError::Forbidden);
        }
        let forwarded = privilege.child("forwarded", ns::FORWARD);
        let message = forwarded.and_then(|f| f.child("message", ns::CLIENT));
        let message = message.ok_or(StanzaError::BadRequest)?;
        let address = |name: &str| message.attr(name).and_then(|a| Jid::parse(a).ok());
        let from = address("from").ok_or(StanzaError::BadRequest)?;
        if from.resourcepart().is_some() || !serves(from.domainpart()) {
            return Err(StanzaError::Forbidden);
        }
        let to = address("to").ok_or(StanzaError::BadRequest)?;
        let mut stanza = message.clone();
        stanza.set_attr("from", from.as_str());
        stanza.set_attr("to", to.as_str());
        Ok(OnBehalf {
            from,
            to,
            bytes: stanza.to_bytes(ns::CLIENT),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Privileges = Privileges {
        roster: true,
        message: true,
    };

    #[test]
    fn what_is_granted_is_told() {
        let none = Privileges::default();
        assert_eq!(none.advertised("c.example", "x.example"), None);
        let told = BOTH
            .advertised("c.example", "x.example")
            .expect("something");
        assert_eq!(
            told,
            "<message from='x.example' to='c.example'><privilege xmlns='urn:xmpp:privilege:2'>\
             <perm access='roster' type='get' push='false'/><perm access='message' type='outgoing'/></privilege></message>"
        );
    }

    #[test]
    fn nobody_elses_name_is_used() {
        let none = Privileges::default();
        let ask = |privileges: Privileges, from: &str, ns: &str| {
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
            (BOTH, "a@x.example", client, None),
            (BOTH, "x.example", client, None),
            (none, "a@x.example", client, Some(Forbidden)),
            (BOTH, "a@x.example/phone", client, Some(Forbidden)),
            (BOTH, "a@y.example", client, Some(Forbidden)),
            (BOTH, "@", client, Some(BadRequest)),
            (BOTH, "a@x.example", "jabber:server", Some(BadRequest)),
        ] {
            let got = ask(privileges, from, ns);
            assert_eq!(got.as_ref().err(), want.as_ref(), "{from} {ns}");
            if let Ok(got) = got {
                let wanted = format!(
                    "<message from='{from}' to='b@y.example/r' type='headline'><body>1</body></message>"
                );
                assert_eq!(got.bytes, wanted);
            }
        }
    }
}
