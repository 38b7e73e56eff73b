//! What is offered on this connection now, and the bytes that say so.

use super::{Mechanisms, Negotiation};
use crate::sasl::{Identity, external};
use crate::scram::BindingType;
use bytes::Bytes;

impl Negotiation {
    pub(super) fn login_features(&self) -> Bytes {
        let mut out = String::from("<stream:features>");
        if self.tls.is_none() && !self.framed {
            out.push_str("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'>");
            if !self.offer.plaintext {
                out.push_str("<required/>");
            }
            out.push_str("</starttls>");
        }
        if self.may_authenticate() {
            out.push_str("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
            for mechanism in self.mechanisms() {
                out.push_str("<mechanism>");
                out.push_str(&mechanism);
                out.push_str("</mechanism>");
            }
            out.push_str("</mechanisms>");
            if self.plus_offered() {
                // XEP-0440.
                out.push_str("<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
                for kind in self.binding_types() {
                    out.push_str(&format!("<channel-binding type='{}'/>", kind.name()));
                }
                out.push_str("</sasl-channel-binding>");
            }
        }
        if self.may_register() {
            out.push_str("<register xmlns='http://jabber.org/features/iq-register'/>");
        }
        out.push_str("</stream:features>");
        out.into()
    }

    /// XEP-0077 §3.1, where it is on, and where a password may be said.
    pub(super) fn may_register(&self) -> bool {
        let domain = self.domain.as_ref();
        self.may_authenticate() && domain.is_some_and(|d| self.offer.register.contains(d))
    }

    pub(super) fn may_authenticate(&self) -> bool {
        self.tls.is_some() || self.framed || self.offer.plaintext
    }

    fn binding_types(&self) -> Vec<BindingType> {
        self.tls
            .as_ref()
            .map(|t| t.binding_types().collect())
            .unwrap_or_default()
    }

    /// What the stream's domain offers. A header came before.
    pub(super) fn offered(&self) -> Option<&Mechanisms> {
        self.offer.mechanisms(self.domain.as_deref()?)
    }

    pub(super) fn plus_offered(&self) -> bool {
        self.offered().is_some_and(|o| !o.scram.is_empty()) && !self.binding_types().is_empty()
    }

    /// Whom the client's certificate names in this domain. Nobody where EXTERNAL is not offered.
    pub(super) fn identities(&self) -> Vec<Identity> {
        match (self.offered(), &self.domain) {
            (Some(offered), Some(domain)) if offered.external && self.tls.is_some() => {
                external::identities(&self.certificate, domain)
            }
            _ => Vec::new(),
        }
    }

    /// Names of the mechanisms offered on this connection now, those that need no password first.
    pub(super) fn mechanisms(&self) -> Vec<String> {
        let Some(offered) = self.offered() else {
            return Vec::new();
        };
        let mut names = Vec::new();
        if !self.identities().is_empty() {
            names.push("EXTERNAL".to_owned());
        }
        if offered.gssapi {
            names.push("GSSAPI".to_owned());
        }
        let scram = offered.scram.iter().map(|h| h.mechanism());
        if self.plus_offered() {
            names.extend(scram.clone().map(|name| format!("{name}-PLUS")));
        }
        names.extend(scram.map(str::to_owned));
        if offered.plain {
            names.push("PLAIN".to_owned());
        }
        names
    }
}

pub(super) fn bind_features() -> Bytes {
    Bytes::from_static(
        b"<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
          <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>\
          <sm xmlns='urn:xmpp:sm:3'/><ver xmlns='urn:xmpp:features:rosterver'/>\
          <sub xmlns='urn:xmpp:features:pre-approval'/></stream:features>",
    )
}

pub(super) fn header_bytes(
    framed: bool,
    from: Option<&str>,
    to: Option<&str>,
    random: &mut dyn FnMut(&mut [u8]),
) -> Bytes {
    let mut id = [0; 16];
    random(&mut id);
    let mut out = Vec::with_capacity(256);
    // RFC 7395 §3.4: the same attributes, in an element of its own.
    out.extend_from_slice(if framed {
        b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0' xml:lang='en' id='"
    } else {
        b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' xml:lang='en' id='"
    });
    for byte in id {
        out.extend_from_slice(format!("{byte:02x}").as_bytes());
    }
    out.push(b'\'');
    for (name, value) in [("from", from), ("to", to)] {
        if let Some(value) = value {
            out.extend_from_slice(format!(" {name}='").as_bytes());
            crate::node::escape_into(&mut out, value);
            out.push(b'\'');
        }
    }
    out.extend_from_slice(if framed { b"/>" } else { b">" });
    Bytes::from(out)
}
