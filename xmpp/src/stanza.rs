//! What RFC 6120 §8 and RFC 6121 say of an element: kinds, types, the shape of an IQ; replies; and
//! the bytes for the recipient ([`Rewrite`]).

mod reserved;
mod rewrite;

pub use reserved::{Direction, is_reserved};
pub use rewrite::Rewrite;

use crate::element::{Child, Element};
use crate::error::StanzaError;
use crate::node::{Node, escape_into};
use bytes::Bytes;
use std::borrow::Cow;

/// The three stanzas, RFC 6120 §8.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StanzaKind {
    /// Push, RFC 6120 §8.2.1.
    Message,
    /// Broadcast, RFC 6120 §8.2.2.
    Presence,
    /// Request and response, RFC 6120 §8.2.3.
    Iq,
}

impl StanzaKind {
    /// The element name.
    pub const fn as_str(self) -> &'static str {
        match self {
            StanzaKind::Message => "message",
            StanzaKind::Presence => "presence",
            StanzaKind::Iq => "iq",
        }
    }

    pub(crate) fn from_name(name: &[u8]) -> Option<StanzaKind> {
        match name {
            b"message" => Some(StanzaKind::Message),
            b"presence" => Some(StanzaKind::Presence),
            b"iq" => Some(StanzaKind::Iq),
            _ => None,
        }
    }
}

/// The type of a message, RFC 6121 §5.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MessageType {
    /// Outside of a conversation; also every type that is absent or unknown.
    #[default]
    Normal,
    /// In a one-to-one conversation.
    Chat,
    /// In a room.
    Groupchat,
    /// News, no answer expected.
    Headline,
    /// An error for a message sent before.
    Error,
}

impl MessageType {
    /// The type of a message. An unknown one is `normal` (RFC 6121 §5.2.2).
    pub fn of(message: &Element) -> MessageType {
        match message.attr("type").as_deref() {
            Some("chat") => MessageType::Chat,
            Some("groupchat") => MessageType::Groupchat,
            Some("headline") => MessageType::Headline,
            Some("error") => MessageType::Error,
            _ => MessageType::Normal,
        }
    }

    /// The value of the attribute `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            MessageType::Normal => "normal",
            MessageType::Chat => "chat",
            MessageType::Groupchat => "groupchat",
            MessageType::Headline => "headline",
            MessageType::Error => "error",
        }
    }
}

/// The type of a presence, RFC 6121 §4.7.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PresenceType {
    /// No type: available.
    Available,
    /// No longer available.
    Unavailable,
    /// Asks to see the recipient's presence.
    Subscribe,
    /// Allows the recipient to see the sender's presence.
    Subscribed,
    /// Ends a subscription to the recipient.
    Unsubscribe,
    /// Refuses or ends the recipient's subscription.
    Unsubscribed,
    /// A server asks for the current presence.
    Probe,
    /// An error for a presence sent before.
    Error,
}

impl PresenceType {
    /// The type of a presence.
    ///
    /// Errors: `bad-request` for an unknown type (RFC 6121 §4.7.1).
    pub fn of(presence: &Element) -> Result<PresenceType, StanzaError> {
        let Some(name) = presence.attr("type") else {
            return Ok(PresenceType::Available);
        };
        Ok(match name.as_ref() {
            "unavailable" => PresenceType::Unavailable,
            "subscribe" => PresenceType::Subscribe,
            "subscribed" => PresenceType::Subscribed,
            "unsubscribe" => PresenceType::Unsubscribe,
            "unsubscribed" => PresenceType::Unsubscribed,
            "probe" => PresenceType::Probe,
            "error" => PresenceType::Error,
            _ => return Err(StanzaError::BadRequest),
        })
    }

    /// The value of the attribute `type`; None: no attribute.
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            PresenceType::Available => return None,
            PresenceType::Unavailable => "unavailable",
            PresenceType::Subscribe => "subscribe",
            PresenceType::Subscribed => "subscribed",
            PresenceType::Unsubscribe => "unsubscribe",
            PresenceType::Unsubscribed => "unsubscribed",
            PresenceType::Probe => "probe",
            PresenceType::Error => "error",
        })
    }
}

/// The priority of a presence, RFC 6121 §4.7.2.3: -128 to 127, 0 if absent.
///
/// Errors: `bad-request` if it is not such a number, or stands there twice.
pub fn presence_priority(presence: &Element) -> Result<i8, StanzaError> {
    let mut priorities = presence
        .children()
        .filter(|c| c.is("priority", presence.content_ns().as_str()));
    match (priorities.next(), priorities.next()) {
        (None, _) => Ok(0),
        (Some(child), None) => child
            .text()
            .trim()
            .parse()
            .map_err(|_| StanzaError::BadRequest),
        (Some(_), Some(_)) => Err(StanzaError::BadRequest),
    }
}

/// The type of an IQ, RFC 6120 §8.2.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IqType {
    /// Asks for information.
    Get,
    /// Changes something.
    Set,
    /// Answers a get or set.
    Result,
    /// Refuses a get or set.
    Error,
}

impl IqType {
    /// Whether it must be answered.
    pub const fn is_request(self) -> bool {
        matches!(self, IqType::Get | IqType::Set)
    }

    /// The value of the attribute `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            IqType::Get => "get",
            IqType::Set => "set",
            IqType::Result => "result",
            IqType::Error => "error",
        }
    }
}

/// An IQ whose shape is right.
#[derive(Clone, Debug)]
pub struct Iq<'a> {
    /// Its type.
    pub iq_type: IqType,
    /// Its id, never empty in a request.
    pub id: Cow<'a, str>,
    /// The one child of a request; the first child of a result, if any; None for an error.
    pub payload: Option<Child<'a>>,
}

impl<'a> Iq<'a> {
    /// Checks the shape (RFC 6120 §8.2.3): an id, a known type, exactly one child in a request,
    /// at most one in a result.
    ///
    /// Errors: `bad-request`. It may only be sent if the IQ is not itself an answer, which
    /// [`crate::error::stanza_error`] looks after.
    pub fn of(iq: &'a Element) -> Result<Iq<'a>, StanzaError> {
        let iq_type = match iq.attr("type").as_deref() {
            Some("get") => IqType::Get,
            Some("set") => IqType::Set,
            Some("result") => IqType::Result,
            Some("error") => IqType::Error,
            _ => return Err(StanzaError::BadRequest),
        };
        let id = iq.attr("id").ok_or(StanzaError::BadRequest)?;
        let mut children = iq.children();
        let payload = match (iq_type, children.len()) {
            (IqType::Get | IqType::Set, 1) | (IqType::Result, 0 | 1) => children.next(),
            (IqType::Error, _) => None,
            _ => return Err(StanzaError::BadRequest),
        };
        if iq_type.is_request() && id.is_empty() {
            return Err(StanzaError::BadRequest);
        }
        Ok(Iq {
            iq_type,
            id,
            payload,
        })
    }

    /// Whether the payload is the element `name` of namespace `ns`.
    pub fn payload_is(&self, name: &str, ns: &str) -> bool {
        self.payload.is_some_and(|p| p.is(name, ns))
    }
}

/// The result that answers a request: id as sent, addresses exchanged, `payload` inside if given.
pub fn iq_result(request: &Element, payload: Option<&Node>) -> Bytes {
    let (from, to) = (request.attr("to"), request.attr("from"));
    iq_result_with(request, from.as_deref(), to.as_deref(), payload)
}

/// [`iq_result`] with the addresses given (None: the attribute is left out).
pub fn iq_result_with(
    request: &Element,
    from: Option<&str>,
    to: Option<&str>,
    payload: Option<&Node>,
) -> Bytes {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"<iq type='result'");
    let id = request.attr("id");
    for (name, value) in [("id", id.as_deref()), ("from", from), ("to", to)] {
        if let Some(value) = value {
            out.push(b' ');
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b"='");
            escape_into(&mut out, value);
            out.push(b'\'');
        }
    }
    match payload {
        None => out.extend_from_slice(b"/>"),
        Some(payload) => {
            out.push(b'>');
            payload.write(&mut out, request.content_ns().as_str());
            out.extend_from_slice(b"</iq>");
        }
    }
    Bytes::from(out)
}
