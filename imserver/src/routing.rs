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
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::ns;

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

/// Type of a message, RFC 6121 §5.2.2.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MessageType {
    /// None given, or one that is not defined.
    Normal,
    /// One-to-one chat.
    Chat,
    /// From or to a room.
    Groupchat,
    /// Nobody needs to answer, nobody needs it later.
    Headline,
    /// Answer to a message of ours.
    Error,
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

/// Type of an IQ, RFC 6120 §8.2.3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IqType {
    /// A question.
    Get,
    /// A command.
    Set,
    /// An answer.
    Result,
    /// A refusal.
    Error,
}

impl StanzaKind {
    /// What the element is. `None`: no stanza.
    ///
    /// # Errors
    /// `bad-request` for a presence or IQ type that is not defined (RFC 6121 §4.7.1, RFC 6120 §8.2.3) and an IQ
    /// without `id` (RFC 6120 §8.1.3). A message type that is not defined is `normal` (RFC 6121 §5.2.2).
    pub fn of(element: &Element) -> Option<Result<Self, StanzaError>> {
        use xmpp::stanza::StanzaKind as Name;
        let stanza_type = element.attr("type");
        let stanza_type = stanza_type.as_deref();
        Some(match element.stanza_kind()? {
            Name::Message => Ok(Self::Message(MessageType::parse(stanza_type))),
            Name::Presence => PresenceType::parse(stanza_type)
                .map(Self::Presence)
                .ok_or(StanzaError::BadRequest),
            Name::Iq if element.attr("id").is_none() => Err(StanzaError::BadRequest),
            Name::Iq => stanza_type
                .and_then(IqType::parse)
                .map(Self::Iq)
                .ok_or(StanzaError::BadRequest),
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

impl MessageType {
    /// The type that the attribute names.
    pub fn parse(stanza_type: Option<&str>) -> Self {
        match stanza_type {
            Some("chat") => Self::Chat,
            Some("groupchat") => Self::Groupchat,
            Some("headline") => Self::Headline,
            Some("error") => Self::Error,
            _ => Self::Normal,
        }
    }
}

impl PresenceType {
    /// The type that the attribute names. `None`: not defined ("available" is not).
    pub fn parse(stanza_type: Option<&str>) -> Option<Self> {
        Some(match stanza_type {
            None => Self::Available,
            Some("unavailable") => Self::Unavailable,
            Some("subscribe") => Self::Subscription(Kind::Subscribe),
            Some("subscribed") => Self::Subscription(Kind::Subscribed),
            Some("unsubscribe") => Self::Subscription(Kind::Unsubscribe),
            Some("unsubscribed") => Self::Subscription(Kind::Unsubscribed),
            Some("probe") => Self::Probe,
            Some("error") => Self::Error,
            Some(_) => return None,
        })
    }
}

impl IqType {
    /// The type that the attribute names. `None`: not defined.
    pub fn parse(stanza_type: &str) -> Option<Self> {
        Some(match stanza_type {
            "get" => Self::Get,
            "set" => Self::Set,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
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
    let asks = matches!(kind, IqType::Get | IqType::Set);
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
/// * A message without any child is dropped: there is nothing in it.
pub fn retention(kind: MessageType, element: &Element) -> Retention {
    if !matches!(kind, MessageType::Normal | MessageType::Chat) {
        return Retention::Drop;
    }
    let (mut body, mut content, mut store, mut permanent) = (false, false, None, true);
    for child in element.children() {
        match (child.name(), child.ns()) {
            ("body", ns::CLIENT | ns::SERVER) => body = true,
            ("thread", ns::CLIENT | ns::SERVER) | (_, ns::CHAT_STATES) => {}
            ("no-store", ns::HINTS) => store = Some(false),
            ("no-permanent-store", ns::HINTS) => permanent = false,
            ("store", ns::HINTS) => store = store.or(Some(true)),
            (_, ns::HINTS) => {}
            _ => content = true,
        }
    }
    match store {
        Some(false) if body => Retention::Refuse,
        Some(false) => Retention::Drop,
        Some(true) => Retention::Store { archive: permanent },
        None if body || content => Retention::Store {
            archive: permanent && body,
        },
        None => Retention::Drop,
    }
}

/// The error that answers a stanza which has its `from` and `to` in place: kind and `id` as sent, addresses exchanged
/// (RFC 6120 §8.3.1). `None`: it is an error or a result itself, or no stanza.
pub fn error_reply(stanza: &Bytes, condition: StanzaError, text: Option<&str>) -> Option<Bytes> {
    xmpp::error::stanza_error(&Element::parse(stanza.clone()).ok()?, condition, text)
}

#[cfg(test)]
mod tests;
