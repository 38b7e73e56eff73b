//! The server's side of XEP-0114: from the header of a component's stream to its handshake.
//!
//! In: events of the stream parser. Out: [`Action`]s, in order. Owns: the state of one handshake.
//! Never: lets anything through before the handshake; takes an address from a header for a proof.

use crate::error::StreamError;
use crate::jid::BareJid;
use crate::negotiation::{Action, FailedLogin, LoginFailure};
use crate::ns;
use crate::sasl::Failure;
use crate::stream::{StreamEvent, StreamHeader};
use bytes::Bytes;
use sha1::{Digest as _, Sha1};
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// A component that may connect.
#[derive(Clone, PartialEq, Eq)]
pub struct ComponentSecret {
    /// Its domain, prepared.
    pub domain: String,
    /// What only it and we know.
    pub secret: String,
}

impl fmt::Debug for ComponentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ComponentSecret({}, ..)", self.domain)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Header,
    Handshake,
    Done,
}

/// See the module.
#[derive(Debug)]
pub struct Handshake {
    secrets: Arc<[ComponentSecret]>,
    state: State,
    domain: Option<String>,
    id: String,
    header_sent: bool,
}

impl Handshake {
    /// A new connection, of one of these.
    pub fn new(secrets: Arc<[ComponentSecret]>) -> Self {
        Self {
            secrets,
            state: State::Header,
            domain: None,
            id: String::new(),
            header_sent: false,
        }
    }

    /// The domain of the stream.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The component has proved who it is.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// A header has been sent.
    pub fn header_sent(&self) -> bool {
        self.header_sent
    }

    /// The header that must come before a stream error when none has been sent.
    pub fn error_header(&self, random: &mut dyn FnMut(&mut [u8])) -> Bytes {
        header_bytes(self.domain(), &stream_id(random))
    }

    /// Handles one event of the parser.
    pub fn handle(&mut self, event: StreamEvent, random: &mut dyn FnMut(&mut [u8])) -> Vec<Action> {
        match (event, self.state) {
            (StreamEvent::End, _) => vec![Action::End],
            (StreamEvent::Header(header), State::Header) => self.header(&header, random),
            (StreamEvent::Element(element), State::Handshake)
                if element.is("handshake", ns::COMPONENT) =>
            {
                self.proof(&element.text())
            }
            (StreamEvent::Header(_), _) => vec![Action::Close(StreamError::NotWellFormed)],
            (StreamEvent::Element(_), _) => vec![Action::Close(StreamError::NotAuthorized)],
        }
    }

    fn header(&mut self, header: &StreamHeader, random: &mut dyn FnMut(&mut [u8])) -> Vec<Action> {
        self.id = stream_id(random);
        self.header_sent = true;
        let to = header.to.as_deref().and_then(|to| BareJid::parse(to).ok());
        let to = to.filter(|jid| jid.localpart().is_none());
        let known = |jid: &&BareJid| self.secrets.iter().any(|s| s.domain == jid.domainpart());
        let ours = to.as_ref().filter(known);
        self.domain = ours.map(|jid| jid.domainpart().to_owned());
        let reply = Action::Send(header_bytes(self.domain(), &self.id));
        if header.content_ns.as_str() != ns::COMPONENT || header.framed {
            return vec![reply, Action::Close(StreamError::InvalidNamespace)];
        }
        match (&to, &self.domain) {
            (None, _) => vec![reply, Action::Close(StreamError::ImproperAddressing)],
            (Some(to), None) => vec![
                failed(to.domainpart(), LoginFailure::NotServed),
                reply,
                Action::Close(StreamError::HostUnknown),
            ],
            (Some(_), Some(_)) => {
                self.state = State::Handshake;
                vec![reply]
            }
        }
    }

    /// §3: the hash of the stream's id and the secret, in hexadecimal digits.
    fn proof(&mut self, said: &str) -> Vec<Action> {
        let domain = self.domain.clone().unwrap_or_default();
        let wanted = self
            .secrets
            .iter()
            .find(|s| s.domain == domain)
            .map(|s| proof(&self.id, &s.secret));
        let said = said.trim().to_ascii_lowercase();
        let right = wanted.is_some_and(|w| bool::from(w.as_bytes().ct_eq(said.as_bytes())));
        if !right {
            let why = LoginFailure::Sasl(Failure::NotAuthorized);
            return vec![
                failed(&domain, why),
                Action::Close(StreamError::NotAuthorized),
            ];
        }
        self.state = State::Done;
        vec![Action::Component(domain)]
    }
}

/// What stands for the mechanism in a failed log-in of a component: it is none of SASL's.
pub const MECHANISM: &str = "component";

/// What a component says to prove that it knows the secret.
pub fn proof(id: &str, secret: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(id.as_bytes());
    hash.update(secret.as_bytes());
    hash.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn failed(domain: &str, why: LoginFailure) -> Action {
    Action::Failed(Box::new(FailedLogin {
        name: Some(domain.to_owned()),
        mechanism: MECHANISM.into(),
        why,
    }))
}

fn stream_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut id = [0; 16];
    random(&mut id);
    id.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn header_bytes(from: Option<&str>, id: &str) -> Bytes {
    let mut out = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{}' xmlns:stream='{}' id='{id}'",
        ns::COMPONENT,
        ns::STREAMS
    )
    .into_bytes();
    if let Some(from) = from {
        out.extend_from_slice(b" from='");
        crate::node::escape_into(&mut out, from);
        out.push(b'\'');
    }
    out.push(b'>');
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Limits, StreamParser};

    /// What comes of a whole conversation: what was sent, and how it ended.
    fn talk(stream: &str) -> (String, String) {
        let secret = |domain: &str, secret: &str| ComponentSecret {
            domain: domain.into(),
            secret: secret.into(),
        };
        let secrets: Arc<[ComponentSecret]> = vec![
            secret("bots.example", "hunter2"),
            secret("irc.example", "x"),
        ]
        .into();
        let mut handshake = Handshake::new(secrets);
        let mut parser = StreamParser::new(Limits::BEFORE_LOGIN);
        parser.push(Bytes::copy_from_slice(stream.as_bytes()));
        let (mut sent, mut end) = (String::new(), String::new());
        while let Ok(Some(event)) = parser.poll() {
            for action in handshake.handle(event, &mut |bytes| bytes.fill(0xab)) {
                match action {
                    Action::Send(bytes) => sent.push_str(&String::from_utf8_lossy(&bytes)),
                    Action::Failed(_) => end.push('!'),
                    other => end.push_str(&format!("{other:?}")),
                }
            }
        }
        assert_eq!(handshake.is_done(), end.starts_with("Component"), "{end}");
        (sent, end)
    }

    fn opening(to: &str) -> String {
        format!(
            "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'{to}>"
        )
    }

    #[test]
    fn who_knows_the_secret_is_the_component_and_nobody_else() {
        let good = proof(&"ab".repeat(16), "hunter2");
        let bots = opening(" to='bots.example'");
        let client = bots.replace("component:accept", "client");
        for (stream, want) in [
            (
                format!("{bots}<handshake>{good}</handshake>"),
                "Component(bots.example)",
            ),
            (
                format!("{bots}<handshake>\n{} </handshake>", good.to_uppercase()),
                "Component(bots.example)",
            ),
            (
                format!("{bots}<handshake>{}</handshake>", proof("", "hunter2")),
                "!Close(NotAuthorized)",
            ),
            (format!("{bots}<handshake/>"), "!Close(NotAuthorized)"),
            (
                format!("{bots}<handshake>{good}x</handshake>"),
                "!Close(NotAuthorized)",
            ),
            (
                format!(
                    "{}<handshake>{good}</handshake>",
                    opening(" to='irc.example'")
                ),
                "!Close(NotAuthorized)",
            ),
            (
                format!("{bots}<message from='a@bots.example' to='b@x'/>"),
                "Close(NotAuthorized)",
            ),
            (
                format!("{bots}<handshake xmlns='other'>{good}</handshake>"),
                "Close(NotAuthorized)",
            ),
            (opening(" to='other.example'"), "!Close(HostUnknown)"),
            (opening(" to='a@bots.example'"), "Close(ImproperAddressing)"),
            (opening(""), "Close(ImproperAddressing)"),
            (client, "Close(InvalidNamespace)"),
            (format!("{bots}</stream:stream>"), "End"),
        ] {
            let (sent, end) = talk(&stream);
            assert_eq!(end, want, "{stream}");
            assert!(sent.contains("xmlns='jabber:component:accept'"), "{sent}");
            assert!(
                sent.contains(&format!("id='{}'", "ab".repeat(16))),
                "{sent}"
            );
        }
    }
}
