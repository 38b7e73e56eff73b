//! RFC 6121 §8: where a stanza goes, as one pure decision.
//!
//! In: what the stanza is, what its `to` names, what the account's resources are like.
//! Out: one [`Decision`].
//! Owns: nothing.
//! Never: looks at a session, a roster or the store; changes `to` (§8.5.2.1.1); answers an error or a result.
//!
//! Where the RFC leaves a choice:
//! * A chat or normal message to the bare JID goes to *all* resources with non-negative priority (§8.5.2.1.1).
//!   Every client of a user then shows the conversation, also one that knows nothing of carbons; a client that
//!   wants none of it says so with a negative priority. (Prosody and ejabberd take the resources of the highest
//!   priority only, which is where "my phone did not ring" comes from.) This is our "most available" algorithm.
//! * What can be kept is kept, never bounced: a message for an account without such a resource is pending.
//! * Who sends to an account or resource that is not there is told `service-unavailable`, but headlines and
//!   presence vanish silently. A message that has been accepted once (`rerouted`) is never bounced: its resource
//!   having gone, it is treated as one to the bare JID.

use crate::subscription::Kind;
use ::time::OffsetDateTime;
use ::time::macros::format_description;
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::{Iq, Rewrite};
pub use xmpp::stanza::{IqType, MessageType};

/// A stanza by kind and type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StanzaKind {
    /// `<message/>`
    Message(MessageType),
    /// `<presence/>`
    Presence(PresenceType),
    /// `<iq/>`
    Iq(IqType),
}

/// Type of a presence stanza, RFC 6121 §4.7.1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PresenceType {
    /// None given.
    Available,
    /// The resource goes.
    Unavailable,
    /// subscribe, subscribed, unsubscribe, unsubscribed.
    Subscription(Kind),
    /// The sender wants to know.
    Probe,
    /// Answer to a presence of ours.
    Error,
}

impl StanzaKind {
    /// What the element is. `None`: no stanza.
    ///
    /// # Errors
    /// `bad-request` for a presence or IQ type that is not defined (RFC 6121 §4.7.1, RFC 6120 §8.2.3), an IQ without
    /// `id` (RFC 6120 §8.1.3), and a get or set without exactly one child. It is not sent if the element is an answer
    /// itself. A message type that is not defined is `normal` (RFC 6121 §5.2.2).
    pub fn of(element: &Element) -> Option<Result<Self, StanzaError>> {
        use xmpp::stanza::StanzaKind as Name;
        Some(match element.stanza_kind()? {
            Name::Message => Ok(Self::Message(MessageType::of(element))),
            Name::Presence => {
                xmpp::stanza::PresenceType::of(element).map(|t| Self::Presence(t.into()))
            }
            // An answer is passed on whatever it contains: who asked wants one.
            Name::Iq => match (element.attr("type").as_deref(), element.attr("id")) {
                (Some("result"), Some(_)) => Ok(Self::Iq(IqType::Result)),
                (Some("error"), Some(_)) => Ok(Self::Iq(IqType::Error)),
                _ => Iq::of(element).map(|iq| Self::Iq(iq.iq_type)),
            },
        })
    }

    /// The kind of an error that answers this. An answer to an error or a result is never made: see
    /// [`StanzaKind::answerable`].
    pub const fn error(self) -> Self {
        match self {
            Self::Message(_) => Self::Message(MessageType::Error),
            Self::Presence(_) => Self::Presence(PresenceType::Error),
            Self::Iq(_) => Self::Iq(IqType::Error),
        }
    }

    /// Whether an error may answer it (RFC 6120 §8.3.1).
    pub const fn answerable(self) -> bool {
        !matches!(
            self,
            Self::Message(MessageType::Error)
                | Self::Presence(PresenceType::Error)
                | Self::Iq(IqType::Result | IqType::Error)
        )
    }
}

impl From<xmpp::stanza::PresenceType> for PresenceType {
    fn from(named: xmpp::stanza::PresenceType) -> Self {
        use xmpp::stanza::PresenceType as Named;
        match named {
            Named::Available => Self::Available,
            Named::Unavailable => Self::Unavailable,
            Named::Subscribe => Self::Subscription(Kind::Subscribe),
            Named::Subscribed => Self::Subscription(Kind::Subscribed),
            Named::Unsubscribe => Self::Subscription(Kind::Unsubscribe),
            Named::Unsubscribed => Self::Subscription(Kind::Unsubscribed),
            Named::Probe => Self::Probe,
            Named::Error => Self::Error,
        }
    }
}

/// What `to` names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum To {
    /// Nothing: there is no `to`. The sender's own account (RFC 6120 §10.3).
    Absent,
    /// A domain we serve, with or without a resourcepart (§8.4).
    Domain,
    /// localpart@domainpart of a domain we serve (§8.5.2).
    Bare,
    /// localpart@domainpart/resourcepart of a domain we serve (§8.5.3).
    Full {
        /// A connected resource has exactly this address.
        matches: bool,
    },
    /// A domain we do not serve (§8.3).
    Remote,
}

/// How many resources the account has, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Resources {
    /// At least one is available.
    pub available: bool,
    /// At least one is available with a priority of zero or more.
    pub non_negative: bool,
}

impl Resources {
    /// From the priority of every connected resource; `None`: connected, not available.
    pub fn of(priorities: impl IntoIterator<Item = Option<i8>>) -> Self {
        priorities
            .into_iter()
            .flatten()
            .fold(Self::default(), |all, priority| Self {
                available: true,
                non_negative: all.non_negative || priority >= 0,
            })
    }
}

/// All that the decision hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation {
    /// What the stanza is.
    pub kind: StanzaKind,
    /// What its `to` names.
    pub to: To,
    /// The account that `to` names exists (for `Absent`, `Domain` and `Remote` it says nothing).
    pub account_exists: bool,
    /// Its resources.
    pub resources: Resources,
    /// The account shares presence with the sender: subscription `from` or `both`, directed presence by that
    /// resource in this session, or both are the same account (§8.5.3.1).
    pub shares_presence: bool,
    /// What may be done with a message nobody takes: see [`retention`].
    pub retention: Retention,
    /// The message was accepted before, and the session that had it has ended without acknowledging it.
    pub rerouted: bool,
}

/// What to do with a stanza.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// Give it to these resources. With `store`, it is written as pending first and stays so until one has
    /// acknowledged it.
    Deliver {
        /// To whom.
        to: Recipients,
        /// As pending.
        store: bool,
    },
    /// Nobody takes it now: write it as pending.
    Store,
    /// Forget it silently.
    Discard,
    /// Answer the sender with this error.
    Error(StanzaError),
    /// The server answers (`iq` room, `Target::Server`).
    Server,
    /// The server answers for the account (`iq` room, `Target::Account`).
    Account,
    /// The result or error of an IQ that the server itself may have sent; otherwise forget it.
    Answer,
    /// `subscription` room, addresses cut to bare JIDs.
    Subscription(Kind),
    /// `presence::answer_probe`.
    Probe,
    /// `presence::on_broadcast`: the sender's own presence.
    Broadcast,
    /// To another server.
    Remote,
}

/// Which resources of an account get a stanza.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Recipients {
    /// The one whose address is `to`, available or not.
    Match,
    /// Every available one with a priority of zero or more.
    NonNegative,
    /// Every available one.
    Available,
}

impl Recipients {
    /// Whether a connected resource is one: its priority (`None`: not available), and whether it is the one `to` names.
    pub fn include(self, priority: Option<i8>, matches: bool) -> bool {
        match self {
            Self::Match => matches,
            Self::NonNegative => priority.is_some_and(|p| p >= 0),
            Self::Available => priority.is_some(),
        }
    }
}

/// The decision.
pub fn decide(s: &Situation) -> Decision {
    match s.to {
        To::Remote => Decision::Remote,
        To::Domain => to_domain(s.kind),
        To::Absent => match s.kind {
            // RFC 6120 §10.3.1: as if to the sender's own bare JID.
            StanzaKind::Message(t) => message(t, s),
            StanzaKind::Iq(IqType::Get | IqType::Set) => Decision::Account,
            StanzaKind::Iq(IqType::Result | IqType::Error) => Decision::Answer,
            StanzaKind::Presence(PresenceType::Available | PresenceType::Unavailable) => {
                Decision::Broadcast
            }
            // To nobody: there is nothing to subscribe to.
            StanzaKind::Presence(PresenceType::Subscription(_)) => {
                Decision::Error(StanzaError::BadRequest)
            }
            StanzaKind::Presence(PresenceType::Probe | PresenceType::Error) => Decision::Discard,
        },
        To::Bare | To::Full { .. } if !s.account_exists => no_such_user(s.kind),
        To::Bare | To::Full { .. } => match s.kind {
            StanzaKind::Message(t) => message(t, s),
            StanzaKind::Presence(t) => presence(t, s),
            StanzaKind::Iq(t) => iq(t, s),
        },
    }
}

const UNAVAILABLE: Decision = Decision::Error(StanzaError::ServiceUnavailable);

/// §8.4 and RFC 6120 §10.5.1: the server is no correspondent and has no presence.
fn to_domain(kind: StanzaKind) -> Decision {
    match kind {
        StanzaKind::Iq(IqType::Get | IqType::Set) => Decision::Server,
        StanzaKind::Iq(IqType::Result | IqType::Error) => Decision::Answer,
        StanzaKind::Message(MessageType::Headline | MessageType::Error)
        | StanzaKind::Presence(_) => Decision::Discard,
        StanzaKind::Message(_) => UNAVAILABLE,
    }
}

/// §8.5.1.
fn no_such_user(kind: StanzaKind) -> Decision {
    match kind {
        StanzaKind::Message(MessageType::Headline | MessageType::Error)
        | StanzaKind::Presence(_) => Decision::Discard,
        StanzaKind::Iq(IqType::Result | IqType::Error) => Decision::Discard,
        StanzaKind::Message(_) | StanzaKind::Iq(_) => UNAVAILABLE,
    }
}

/// §8.5.2.1.1, §8.5.2.2.1, §8.5.3.1, §8.5.3.2.1 and Table 1.
fn message(kind: MessageType, s: &Situation) -> Decision {
    let store = s.retention.stores() && matches!(kind, MessageType::Normal | MessageType::Chat);
    if s.to == (To::Full { matches: true }) {
        return Decision::Deliver {
            to: Recipients::Match,
            store,
        };
    }
    let full = matches!(s.to, To::Full { .. }) && !s.rerouted;
    match kind {
        MessageType::Chat | MessageType::Normal => {
            if full && kind == MessageType::Normal {
                UNAVAILABLE
            } else if s.resources.non_negative {
                Decision::Deliver {
                    to: Recipients::NonNegative,
                    store,
                }
            } else {
                match s.retention {
                    Retention::Store { .. } => Decision::Store,
                    Retention::Drop => Decision::Discard,
                    Retention::Refuse => UNAVAILABLE,
                }
            }
        }
        MessageType::Groupchat => UNAVAILABLE,
        MessageType::Headline if !full && s.resources.non_negative => Decision::Deliver {
            to: Recipients::NonNegative,
            store: false,
        },
        MessageType::Headline | MessageType::Error => Decision::Discard,
    }
}

/// §8.5.2.1.2, §8.5.2.2.2, §8.5.3.1, §8.5.3.2.2.
fn presence(kind: PresenceType, s: &Situation) -> Decision {
    match (kind, s.to) {
        (PresenceType::Probe, _) => Decision::Probe,
        // §8.5.3.2.2: only a request is worth the trouble when the resource is not there.
        (PresenceType::Subscription(k), To::Full { matches: false }) if k != Kind::Subscribe => {
            Decision::Discard
        }
        (PresenceType::Subscription(k), _) => Decision::Subscription(k),
        (_, To::Full { matches: true }) => Decision::Deliver {
            to: Recipients::Match,
            store: false,
        },
        (_, To::Full { matches: false }) => Decision::Discard,
        // An error too: it tells that a request of the user went nowhere (§3.1.2). It changes no state.
        _ if s.resources.available => Decision::Deliver {
            to: Recipients::Available,
            store: false,
        },
        _ => Decision::Discard,
    }
}

/// §8.5.2.1.3, §8.5.2.2.3, §8.5.3.1, §8.5.3.2.3.
fn iq(kind: IqType, s: &Situation) -> Decision {
    let asks = kind.is_request();
    match s.to {
        To::Full { matches: true } if !asks || s.shares_presence => Decision::Deliver {
            to: Recipients::Match,
            store: false,
        },
        To::Full { .. } if asks => UNAVAILABLE,
        To::Full { .. } => Decision::Discard,
        _ if asks => Decision::Account,
        _ => Decision::Answer,
    }
}

/// What may be kept of a message. Only types normal and chat ever are (XEP-0160 §3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Retention {
    /// It may wait for its recipient.
    Store {
        /// It may be kept after that, too (XEP-0313 §5.1, XEP-0334).
        archive: bool,
    },
    /// It may not, and nobody misses it: chat states alone, or a `no-store` without a body.
    Drop,
    /// It may not, and its sender must be told so: a body with `no-store`.
    Refuse,
}

impl Retention {
    /// It may wait for its recipient.
    pub const fn stores(self) -> bool {
        matches!(self, Self::Store { .. })
    }

    /// It may be kept for good.
    pub const fn archives(self) -> bool {
        matches!(self, Self::Store { archive: true })
    }
}

/// Reads what may be kept of a message off its first-level children.
///
/// * XEP-0160 §3: normal and chat are stored; groupchat, headline and error are not; nor is what carries chat
///   states (XEP-0085) and nothing else. A `<thread/>` beside a chat state is nothing else, too.
/// * XEP-0334: `no-store` and `no-permanent-store` are obeyed, `store` overrules the lack of content.
/// * The archive has what a conversation is made of: bodies, encrypted or not, and what belongs to them (receipts, markers,
///   retractions, reactions), or the other devices of an account would show it otherwise than this one (XEP-0313 §7.1).
/// * A message without any child is dropped: there is nothing in it.
pub fn retention(kind: MessageType, element: &Element) -> Retention {
    if !matches!(kind, MessageType::Normal | MessageType::Chat) {
        return Retention::Drop;
    }
    let (mut body, mut content, mut store, mut permanent) = (false, false, None, true);
    let mut kept = false;
    for child in element.children() {
        match (child.name(), child.ns()) {
            ("body", ns::CLIENT | ns::SERVER) => body = true,
            ("thread", ns::CLIENT | ns::SERVER) | (_, ns::CHAT_STATES) => {}
            ("no-store", ns::HINTS) => store = Some(false),
            ("no-permanent-store", ns::HINTS) => permanent = false,
            ("store", ns::HINTS) => store = store.or(Some(true)),
            (_, ns::HINTS) => {}
            (name, of) => {
                content = true;
                kept |= is_conversation(name, of);
            }
        }
    }
    match store {
        Some(false) if body => Retention::Refuse,
        Some(false) => Retention::Drop,
        Some(true) => Retention::Store { archive: permanent },
        None if body || content => Retention::Store {
            archive: permanent && (body || kept),
        },
        None => Retention::Drop,
    }
}

/// Part of a conversation without a body. What only asks for such things is none.
fn is_conversation(name: &str, of: &str) -> bool {
    match of {
        ns::RECEIPTS => name == "received",
        ns::CHAT_MARKERS => name != "markable",
        ns::RETRACT | ns::REACTIONS | ns::ENCRYPTION => true,
        ns::FASTEN => name == "apply-to",
        _ => false,
    }
}

/// The error that answers a stanza which has its `from` and `to` in place: kind and `id` as sent, addresses exchanged
/// (RFC 6120 §8.3.1). `None`: it is an error or a result itself, or no stanza.
pub fn error_reply(stanza: &Bytes, condition: StanzaError, text: Option<&str>) -> Option<Bytes> {
    xmpp::error::stanza_error(&Element::parse(stanza.clone()).ok()?, condition, text)
}

/// Whom a kept stanza is for: the `to` it went with. `None`: it has none, or it is no stanza.
pub fn recipient(stanza: &Bytes) -> Option<Jid> {
    Jid::parse(&Element::parse(stanza.clone()).ok()?.attr("to")?).ok()
}

/// Who has sent a stanza that has its `from` in place.
pub fn sender(stanza: &Bytes) -> Option<Jid> {
    Jid::parse(&Element::parse(stanza.clone()).ok()?.attr("from")?).ok()
}

/// A kept message with the time it was taken, XEP-0203, said by the domain `by`. One that cannot be read goes as it is.
pub fn with_delay(stanza: &Bytes, by: &str, taken_unix_ms: u64) -> Bytes {
    let Ok(element) = Element::parse(stanza.clone()) else {
        return stanza.clone();
    };
    let delay = Node::new("delay", ns::DELAY)
        .with_attr("from", by)
        .with_attr("stamp", stamp(taken_unix_ms));
    let delay = delay.to_bytes(ns::CLIENT);
    Rewrite::new(&element).append(&delay).finish()
}

/// A time as XEP-0082 §3.2 writes it, in UTC and with milliseconds.
pub fn stamp(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let seconds = time
        .format(format)
        .expect("the format has only parts that every time has");
    format!("{seconds}.{:03}Z", unix_ms % 1000)
}

#[cfg(test)]
mod tests;
