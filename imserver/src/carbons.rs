//! Message carbons, XEP-0280, and stable ids, XEP-0359: which messages are copied, and what a copy looks like.
//!
//! In: a message as it goes out. Out: whether it may be copied; its bytes with an id, or wrapped as a copy.
//! Owns: nothing.
//! Never: looks at a session; changes the message inside a copy, but for the id.
//!
//! Where the XEP leaves a choice: errors are not copied (that one answers a message which was, nobody has written down), so
//! `urn:xmpp:carbons:rules:0` is not announced.

use bytes::Bytes;
use xmpp::element::Element;
use xmpp::jid::{BareJid, FullJid};
use xmpp::node::escape_into;
use xmpp::ns;
use xmpp::stanza::{MessageType, Rewrite};

/// Of what a copy is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copy {
    /// A message that another session of the account has sent.
    Sent,
    /// A message that went to another session of the account.
    Received,
}

impl Copy {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }
}

/// XEP-0280 §6.1. A client's wish for no copies is obeyed on both sides, also where only XEP-0334 says it.
pub fn eligible(kind: MessageType, element: &Element, copy: Copy) -> bool {
    if !matches!(kind, MessageType::Chat | MessageType::Normal) {
        return false;
    }
    let (mut talk, mut room, mut invitation) = (kind == MessageType::Chat, false, false);
    for child in element.children() {
        match (child.name(), child.ns()) {
            ("private", ns::CARBONS) | ("no-copy", ns::HINTS) => return false,
            ("body", ns::CLIENT | ns::SERVER) => talk = true,
            (
                _,
                ns::RECEIPTS
                | ns::CHAT_STATES
                | ns::CHAT_MARKERS
                | ns::REACTIONS
                | ns::RETRACT
                | ns::FASTEN
                | ns::ENCRYPTION,
            ) => talk = true,
            ("x", ns::CONFERENCE) => invitation = true,
            ("x", ns::MUC_USER) => {
                room = true;
                invitation |= child.tree().child("invite", ns::MUC_USER).is_some();
            }
            _ => {}
        }
    }
    // What an occupant says in private comes to every session that is in the room anyway.
    invitation || talk && !(room && copy == Copy::Received)
}

/// The same of a kept message.
pub fn kept_is_eligible(stanza: &Bytes, copy: Copy) -> bool {
    Element::parse(stanza.clone())
        .is_ok_and(|element| eligible(MessageType::of(&element), &element, copy))
}

/// `<stanza-id/>` of a message in an archive.
pub fn stanza_id(owner: &BareJid, id: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(96);
    out.extend_from_slice(b"<stanza-id xmlns='urn:xmpp:sid:0' by='");
    escape_into(&mut out, owner.as_str());
    out.extend_from_slice(format!("' id='{id:016x}'/>").as_bytes());
    out
}

/// The position of an id as [`stanza_id`] writes it. `None`: it is none of ours.
pub fn parse_id(text: &str) -> Option<u64> {
    let ours = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Appends an element to a message of ours: behind its last child. It is not parsed: what goes out ends with the end tag of
/// the message, and a `<` begins a tag.
pub fn append(stanza: &Bytes, child: &[u8]) -> Bytes {
    let end = match stanza.ends_with(b"/>") {
        // The message, or its last child, is empty; only the first has nothing behind it.
        true => None,
        false => stanza.windows(2).rposition(|two| two == b"</"),
    };
    let Some(end) = end else {
        return Element::parse(stanza.clone()).map_or_else(
            |_| stanza.clone(),
            |element| Rewrite::new(&element).append(child).finish(),
        );
    };
    let mut out = Vec::with_capacity(stanza.len() + child.len());
    out.extend_from_slice(&stanza[..end]);
    out.extend_from_slice(child);
    out.extend_from_slice(&stanza[end..]);
    out.into()
}

/// A copy of a message for one session: §7, §8, XEP-0297. `None`: it cannot be read.
pub fn wrap(copy: Copy, account: &BareJid, to: &FullJid, message: &Bytes) -> Option<Bytes> {
    let element = Element::parse(message.clone()).ok()?;
    let inner = Rewrite::new(&element).with_content_ns(ns::CLIENT).finish();
    let mut out = Vec::with_capacity(inner.len() + 320);
    out.extend_from_slice(b"<message from='");
    escape_into(&mut out, account.as_str());
    out.extend_from_slice(b"' to='");
    escape_into(&mut out, to.as_str());
    if let Some(kind) = element.attr("type") {
        out.extend_from_slice(b"' type='");
        escape_into(&mut out, &kind);
    }
    let name = copy.name();
    out.extend_from_slice(
        format!(
            "'><{name} xmlns='{}'><forwarded xmlns='{}'>",
            ns::CARBONS,
            ns::FORWARD
        )
        .as_bytes(),
    );
    out.extend_from_slice(&inner);
    out.extend_from_slice(format!("</forwarded></{name}></message>").as_bytes());
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(xml: &str) -> Element {
        Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("a message")
    }

    #[test]
    fn what_is_copied() {
        const INVITE: &str =
            "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@b'/></x>";
        const ROOM: &str = "<x xmlns='http://jabber.org/protocol/muc#user'/>";
        let both = |t: MessageType, inside: &str| {
            let element = message(&format!("<message>{inside}</message>"));
            (
                eligible(t, &element, Copy::Sent),
                eligible(t, &element, Copy::Received),
            )
        };
        use MessageType::*;
        for (kind, inside, want) in [
            (Chat, "<body>x</body>".to_owned(), (true, true)),
            (
                Chat,
                "<composing xmlns='http://jabber.org/protocol/chatstates'/>".into(),
                (true, true),
            ),
            (Normal, "<body>x</body>".into(), (true, true)),
            (
                Normal,
                "<received xmlns='urn:xmpp:receipts' id='1'/>".into(),
                (true, true),
            ),
            (
                Normal,
                "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>".into(),
                (true, true),
            ),
            (
                Normal,
                "<event xmlns='http://jabber.org/protocol/pubsub#event'/>".into(),
                (false, false),
            ),
            (
                Chat,
                "<body>x</body><private xmlns='urn:xmpp:carbons:2'/>".into(),
                (false, false),
            ),
            (
                Chat,
                "<body>x</body><no-copy xmlns='urn:xmpp:hints'/>".into(),
                (false, false),
            ),
            // Of a client, whatever it means by it.
            (
                Chat,
                "<body>x</body><private xmlns='other'/>".into(),
                (true, true),
            ),
            (Chat, format!("<body>x</body>{ROOM}"), (true, false)),
            (Normal, INVITE.into(), (true, true)),
            (
                Normal,
                "<x xmlns='jabber:x:conference' jid='r@c'/>".into(),
                (true, true),
            ),
            (Groupchat, "<body>x</body>".into(), (false, false)),
            (Headline, "<body>x</body>".into(), (false, false)),
            (Error, "<body>x</body>".into(), (false, false)),
        ] {
            assert_eq!(both(kind, &inside), want, "{kind:?} {inside}");
        }
    }

    #[test]
    fn an_element_is_appended_behind_the_last() {
        for (stanza, want) in [
            (
                "<message><body>x</body></message>",
                "<message><body>x</body><i/></message>",
            ),
            (
                "<message><body/></message >",
                "<message><body/><i/></message >",
            ),
            (
                "<message>a<b/>\n</message>",
                "<message>a<b/>\n<i/></message>",
            ),
            (
                "<m:message xmlns:m='jabber:client'><m:body/></m:message>",
                "<m:message xmlns:m='jabber:client'><m:body/><i/></m:message>",
            ),
            ("<message to='a'/>", "<message to='a'><i/></message>"),
        ] {
            let got = append(&Bytes::from_static(stanza.as_bytes()), b"<i/>");
            assert_eq!(String::from_utf8_lossy(&got), want);
        }
    }

    #[test]
    fn ids_go_both_ways_and_others_are_refused() {
        let owner = BareJid::parse("oneil@x").expect("a JID");
        let xml = String::from_utf8(stanza_id(&owner, 0xfeed)).expect("UTF-8");
        assert_eq!(
            xml,
            "<stanza-id xmlns='urn:xmpp:sid:0' by='oneil@x' id='000000000000feed'/>"
        );
        assert_eq!(parse_id("000000000000feed"), Some(0xfeed));
        for text in [
            "",
            "feed",
            "000000000000FEED",
            "+00000000000feed",
            "00000000000000feed",
            "'; DROP TABLE log",
        ] {
            assert_eq!(parse_id(text), None, "{text}");
        }
    }

    #[test]
    fn a_copy_is_of_the_account_and_holds_the_message_as_it_was() {
        let account = BareJid::parse("romeo@localhost").expect("a JID");
        let to = FullJid::parse("romeo@localhost/'home'").expect("a JID");
        let inner = Bytes::from_static(b"<message from='romeo@localhost/x' to='j@localhost' type='chat'><body>hi</body></message>");
        let copy = wrap(Copy::Sent, &account, &to, &inner).expect("it can be read");
        assert_eq!(
            String::from_utf8_lossy(&copy),
            "<message from='romeo@localhost' to='romeo@localhost/&apos;home&apos;' type='chat'>\
             <sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>\
             <message xmlns='jabber:client' from='romeo@localhost/x' to='j@localhost' type='chat'><body>hi</body></message>\
             </forwarded></sent></message>"
        );
        Element::parse(copy).expect("well-formed");
    }
}
