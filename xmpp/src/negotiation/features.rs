//! What is offered on this connection now, and the bytes that say so.

use super::{Mechanisms, Negotiation, upgrade};
use crate::sasl::{Identity, TokenMechanism, external};
use crate::scram::{BindingType, ScramHash};
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
            self.sasl2_feature(&mut out);
            let bindings = self.binding_types_said();
            if !bindings.is_empty() {
                // XEP-0440.
                out.push_str("<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'>");
                for kind in bindings {
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

    /// XEP-0388 §2.1, and what can be had with the log-in.
    fn sasl2_feature(&self, out: &mut String) {
        out.push_str("<authentication xmlns='urn:xmpp:sasl:2'>");
        for mechanism in self.mechanisms() {
            out.push_str(&format!("<mechanism>{mechanism}</mechanism>"));
        }
        out.push_str(
            "<inline><bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/>\
             <feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:sm:3'/></inline></bind><sm xmlns='urn:xmpp:sm:3'/>",
        );
        let tokens = self.token_mechanisms();
        if !tokens.is_empty() {
            out.push_str("<fast xmlns='urn:xmpp:fast:0'>");
            for mechanism in tokens {
                out.push_str(&format!("<mechanism>{}</mechanism>", mechanism.name()));
            }
            out.push_str("</fast>");
        }
        out.push_str("</inline>");
        for hash in self.upgrades() {
            let task = upgrade::task(hash);
            out.push_str(&format!(
                "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>{task}</upgrade>"
            ));
        }
        out.push_str("</authentication>");
    }

    /// The hashes that an account may be given keys of (XEP-0480): of mechanisms offered here, to who has logged in by another of them.
    /// Not where somebody could listen: what the client sends is as good as its password for that mechanism.
    pub(super) fn upgrades(&self) -> Vec<ScramHash> {
        let offered = self.offered().filter(|o| o.upgrades && o.scram.len() > 1);
        let private = self.tls.is_some() || self.framed;
        let Some(offered) = offered.filter(|_| private) else {
            return Vec::new();
        };
        let all = ScramHash::UPGRADES.into_iter();
        all.filter(|h| offered.scram.contains(h)).collect()
    }

    /// The mechanisms of tokens that this connection has the binding for.
    pub(super) fn token_mechanisms(&self) -> Vec<TokenMechanism> {
        let tls = self.tls.as_ref();
        let all = TokenMechanism::ALL.into_iter();
        all.filter(|m| self.offer.tokens && m.binding(tls).is_some())
            .collect()
    }

    /// What was offered, as XEP-0474 §4.1 writes it.
    pub(super) fn advertised(&self) -> String {
        let mut mechanisms = self.mechanisms();
        mechanisms.sort_unstable();
        let mut out = mechanisms.join("\x1e");
        let mut bindings: Vec<_> = (self.binding_types_said().into_iter())
            .map(BindingType::name)
            .collect();
        if !bindings.is_empty() {
            bindings.sort_unstable();
            out.push('\x1f');
            out.push_str(&bindings.join("\x1e"));
        }
        out
    }

    /// The channel bindings that the client is told of: those of any use.
    fn binding_types_said(&self) -> Vec<BindingType> {
        match self.plus_offered() || self.offer.tokens {
            true => self.binding_types(),
            false => Vec::new(),
        }
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
          <csi xmlns='urn:xmpp:csi:0'/><sub xmlns='urn:xmpp:features:pre-approval'/></stream:features>",
    )
}

/// Of a stream that has a session since the log-in. `managed`: stream management is in force, and cannot be asked for.
pub(super) fn bound_features(managed: bool) -> Bytes {
    let sm = match managed {
        true => "",
        false => "<sm xmlns='urn:xmpp:sm:3'/>",
    };
    Bytes::from(format!(
        "<stream:features>{sm}<ver xmlns='urn:xmpp:features:rosterver'/>\
         <csi xmlns='urn:xmpp:csi:0'/><sub xmlns='urn:xmpp:features:pre-approval'/></stream:features>"
    ))
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
