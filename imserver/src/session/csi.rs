//! Client state indication (XEP-0352): what may wait for a client that says that nobody looks at it.
//!
//! In: stanzas on their way to an inactive client. Out: whether each may wait, and what waits, in order.
//! Owns: what waits of messages. Presence that waits is where that of slow clients and of lost connections is
//! (`Bound::held_presence`): merged, the newest of each sender.
//! Never: lets one stanza overtake another of the same sender; lets go of what is not said again after a kill.
//!
//! What may wait: presence, but not requests for subscriptions; messages that hold nothing but chat states, receipts, markers, or
//! news of publish-subscribe. Everything else goes at once, and what waits goes before it: the radio is awake then, as with
//! Prosody's `csi_simple`. A newer chat state of a sender, or news of the same item, replaces the older.

use super::{OutKind, Session};
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::StanzaKind;

/// Bytes of messages that wait for one client: those that wait are small, and a phone is woken for so much once an hour at most.
const BYTES_MAX: usize = 64 * 1024;

/// News of publish-subscribe, XEP-0060 §7.1.2.
const PUBSUB_EVENT: &str = "http://jabber.org/protocol/pubsub#event";

/// Whether a stanza may wait.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// It goes at once.
    Goes,
    /// It waits, and replaces one that waits with the same key.
    Waits(Option<Key>),
}

/// What is replaced by the next of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Key {
    /// The chat state of a sender.
    ChatState(String),
    /// An item of a node: from whom, node, id.
    Item(String, String, String),
}

/// How urgent it is.
pub fn urgency(stanza: &Bytes) -> Urgency {
    let Ok(element) = Element::parse(stanza.clone()) else {
        return Urgency::Goes;
    };
    match element.stanza_kind() {
        Some(StanzaKind::Message) => of_message(&element.tree(), false),
        _ => Urgency::Goes,
    }
}

/// Whether presence may wait: who enters a room waits for its own presence there (XEP-0045 §7.1).
pub fn presence_waits(stanza: &Bytes) -> bool {
    let Ok(element) = Element::parse(stanza.clone()) else {
        return false;
    };
    let own = |x: &Node| x.children().any(|c| c.attr("code") == Some("110"));
    matches!(element.attr("type").as_deref(), None | Some("unavailable"))
        && !element
            .child("x", ns::MUC_USER)
            .is_some_and(|x| own(&x.tree()))
}

fn of_message(message: &Node, copied: bool) -> Urgency {
    let kind = message.attr("type");
    let from = message.attr("from").unwrap_or_default();
    let mut urgency = Urgency::Goes;
    for child in message.children() {
        urgency = match (child.name(), child.ns()) {
            // They belong to something, or say how to treat it.
            ("thread", ns::CLIENT | ns::SERVER)
            | (_, ns::HINTS | ns::STANZA_ID | ns::DELAY)
            | ("private", ns::CARBONS) => continue,
            ("sent" | "received", ns::CARBONS) if !copied => {
                let forwarded = child.child("forwarded", ns::FORWARD);
                let message = forwarded.and_then(|f| f.children().find(|c| c.name() == "message"));
                match message.map(|m| of_message(m, true)) {
                    Some(Urgency::Waits(_)) => Urgency::Waits(None),
                    _ => return Urgency::Goes,
                }
            }
            (_, ns::CHAT_STATES) => Urgency::Waits(Some(Key::ChatState(from.to_owned()))),
            ("received", ns::RECEIPTS)
            | ("received" | "displayed" | "acknowledged", ns::CHAT_MARKERS) => Urgency::Waits(None),
            ("event", PUBSUB_EVENT) if kind == Some("headline") => {
                Urgency::Waits(item(from, child))
            }
            _ => return Urgency::Goes,
        };
    }
    match kind {
        Some("error") => Urgency::Goes,
        _ => urgency,
    }
}

/// News of one item replaces older news of the same; of several, or of a node, nothing.
fn item(from: &str, event: &Node) -> Option<Key> {
    let mut all = event.children();
    let items = all
        .next()
        .filter(|i| i.name() == "items" && i.ns() == PUBSUB_EVENT)?;
    let mut of_node = items.children();
    let item = of_node.next()?;
    let alone = all.next().is_none() && of_node.next().is_none();
    let key = Key::Item(
        from.to_owned(),
        items.attr("node")?.to_owned(),
        item.attr("id")?.to_owned(),
    );
    alone.then_some(key)
}

#[derive(Debug)]
struct Waiting {
    key: Option<Key>,
    bytes: Bytes,
    kind: OutKind,
}

/// What an inactive session has beside the others.
#[derive(Debug, Default)]
pub struct Inactive {
    waiting: Vec<Waiting>,
    bytes: usize,
    /// Its record does not have what waits of messages.
    pub unrecorded: bool,
    /// Nor what waits of presence.
    pub presence_unrecorded: bool,
}

impl Inactive {
    /// After a restart, with what its record has.
    pub fn restored(messages: Vec<Bytes>) -> Self {
        let mut inactive = Self::default();
        for bytes in messages {
            let key = match urgency(&bytes) {
                Urgency::Waits(key) => key,
                Urgency::Goes => None,
            };
            inactive.push(key, bytes, OutKind::STANZA);
        }
        inactive
    }

    /// It waits. False: there is so much that all of it has to go now.
    pub fn wait(&mut self, key: Option<Key>, bytes: Bytes, kind: OutKind, max: usize) -> bool {
        // A stored one is owed until it is acknowledged, so it is not replaced.
        if key.is_some() && kind.stored.is_none() {
            self.remove(|w| w.key == key && w.kind.stored.is_none());
        }
        self.push(key, bytes, kind);
        self.waiting.len() <= max && self.bytes <= BYTES_MAX
    }

    /// Presence that has waited, and must not be overtaken by a message of the same sender.
    pub fn wait_behind(&mut self, presence: Bytes) {
        self.push(None, presence, OutKind::STANZA);
    }

    fn push(&mut self, key: Option<Key>, bytes: Bytes, kind: OutKind) {
        // The record has what nobody says again, and the store does not have. A chat state is over by then.
        self.unrecorded |= kind.stored.is_none() && !matches!(key, Some(Key::ChatState(_)));
        self.bytes += bytes.len();
        self.waiting.push(Waiting { key, bytes, kind });
    }

    fn remove(&mut self, which: impl Fn(&Waiting) -> bool) {
        self.waiting.retain(|w| !which(w));
        self.bytes = self.waiting.iter().map(|w| w.bytes.len()).sum();
    }

    /// What is not stored, of these senders, is forgotten.
    pub fn forget_from(&mut self, blocked: impl Fn(&Bytes) -> bool) {
        self.remove(|w| w.kind.stored.is_none() && blocked(&w.bytes));
    }

    /// So is presence.
    pub fn forget_presence(&mut self) {
        self.remove(|w| w.kind.stored.is_none() && w.bytes.starts_with(b"<presence"));
    }

    /// What waits, in order.
    pub fn take(&mut self) -> Vec<(Bytes, OutKind)> {
        self.bytes = 0;
        self.unrecorded |= !self.recorded().is_empty();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        waiting.map(|w| (w.bytes, w.kind)).collect()
    }

    /// What its record has of it.
    pub fn recorded(&self) -> Vec<Bytes> {
        let lost = self
            .waiting
            .iter()
            .filter(|w| w.kind.stored.is_none() && !matches!(w.key, Some(Key::ChatState(_))));
        lost.map(|w| w.bytes.clone()).collect()
    }

    /// Stored messages among what waits: they count against what a session may hold.
    pub fn stored(&self) -> usize {
        self.waiting
            .iter()
            .filter(|w| w.kind.stored.is_some())
            .count()
    }
}

impl Session {
    /// Its client says that nobody looks at it.
    pub fn is_inactive(&self) -> bool {
        self.inactive.is_some()
    }

    /// Stored messages that wait until the client is active.
    pub(super) fn waiting_stored(&self) -> usize {
        self.inactive.as_ref().map_or(0, |i| i.stored())
    }

    /// A message of this sender waits: presence of the same that waits already goes before it.
    pub fn keep_behind_presence(&mut self, from: &Jid) {
        let Some(bound) = self.bound_mut() else {
            return;
        };
        let of_sender = |(f, _): &(Jid, Bytes)| f.bare_str() == from.bare_str();
        if !bound.held_presence.iter().any(of_sender) {
            return;
        }
        let held = std::mem::take(&mut bound.held_presence);
        let (before, rest) = held.into_iter().partition(of_sender);
        bound.held_presence = rest;
        let before: Vec<(Jid, Bytes)> = before;
        if let Some(inactive) = &mut self.inactive {
            before
                .into_iter()
                .for_each(|(_, bytes)| inactive.wait_behind(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(xml: &str) -> Urgency {
        urgency(&Bytes::copy_from_slice(xml.as_bytes()))
    }

    const COMPOSING: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";

    fn event(items: &str) -> String {
        format!(
            "<message type='headline' from='a@b'><event xmlns='http://jabber.org/protocol/pubsub#event'>{items}</event></message>"
        )
    }

    #[test]
    fn what_may_wait_is_a_table() {
        let chat_state = |from: &str| Urgency::Waits(Some(Key::ChatState(from.into())));
        let item = |id: &str| Urgency::Waits(Some(Key::Item("a@b".into(), "n".into(), id.into())));
        let copy = |inner: &str| {
            format!(
                "<message from='c@d'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' type='chat' from='a@b/x'>{inner}</message></forwarded></received></message>"
            )
        };
        for (xml, want) in [
            (format!("<message type='chat' from='a@b/x'>{COMPOSING}</message>"), chat_state("a@b/x")),
            (format!("<message type='chat' from='a@b/x'>{COMPOSING}<thread>t</thread><no-store xmlns='urn:xmpp:hints'/></message>"), chat_state("a@b/x")),
            (format!("<message type='chat' from='a@b/x'>{COMPOSING}<body>hi</body></message>"), Urgency::Goes),
            (format!("<message type='error' from='a@b/x'>{COMPOSING}</message>"), Urgency::Goes),
            ("<message><received xmlns='urn:xmpp:receipts' id='1'/></message>".into(), Urgency::Waits(None)),
            ("<message><displayed xmlns='urn:xmpp:chat-markers:0' id='1'/><stanza-id xmlns='urn:xmpp:sid:0' by='c@d' id='1'/></message>".into(), Urgency::Waits(None)),
            ("<message><body/><markable xmlns='urn:xmpp:chat-markers:0'/></message>".into(), Urgency::Goes),
            ("<message type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='1'/></message>".into(), Urgency::Goes),
            ("<message type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'/></message>".into(), Urgency::Goes),
            ("<message><result xmlns='urn:xmpp:mam:2'/></message>".into(), Urgency::Goes),
            ("<message/>".into(), Urgency::Goes),
            (copy(COMPOSING), Urgency::Waits(None)),
            (copy("<body>hi</body>"), Urgency::Goes),
            (event("<items node='n'><item id='1'><x xmlns='y'/></item></items>"), item("1")),
            (event("<items node='n'><item id='1'/><item id='2'/></items>"), Urgency::Waits(None)),
            (event("<items node='n'><retract id='1'/></items>"), item("1")),
            (event("<purge node='n'/>"), Urgency::Waits(None)),
            (event("<items node='n'/>").replace("headline", "normal"), Urgency::Goes),
            ("<iq type='get' id='1'/>".into(), Urgency::Goes),
            ("<presence type='subscribe'/>".into(), Urgency::Goes),
        ] {
            assert_eq!(of(&xml), want, "{xml}");
        }
    }

    #[test]
    fn own_presence_in_a_room_does_not_wait() {
        let waits = |xml: &str| presence_waits(&Bytes::copy_from_slice(xml.as_bytes()));
        assert!(waits("<presence from='a@b/x'/>"));
        assert!(waits("<presence type='unavailable' from='a@b/x'/>"));
        assert!(!waits("<presence type='error' from='a@b/x'/>"));
        let room = |status: &str| {
            format!(
                "<presence from='a@b/x'><x xmlns='http://jabber.org/protocol/muc#user'><item/>{status}</x></presence>"
            )
        };
        assert!(waits(&room("")));
        assert!(!waits(&room("<status code='110'/>")));
    }

    #[test]
    fn what_waits_is_bounded_in_number_and_bytes_and_merged_by_key() {
        let state = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let key = |from: &str| Some(Key::ChatState(from.into()));
        let mut inactive = Inactive::default();
        for n in 0..10 {
            assert!(inactive.wait(key("a"), state(&format!("a{n}")), OutKind::STANZA, 2));
        }
        assert!(inactive.wait(key("b"), state("b"), OutKind::STANZA, 2));
        assert!(!inactive.unrecorded && inactive.recorded().is_empty());
        assert!(!inactive.wait(None, state("c"), OutKind::stored(7), 2));
        let all: Vec<_> = inactive
            .take()
            .into_iter()
            .map(|(b, k)| (b, k.stored))
            .collect();
        assert_eq!(
            all,
            [
                (state("a9"), None),
                (state("b"), None),
                (state("c"), Some(7))
            ]
        );
        // What is stored is never replaced.
        let mut inactive = Inactive::default();
        for n in 0..2 {
            assert!(inactive.wait(key("a"), state("x"), OutKind::stored(n), 9));
        }
        assert_eq!(inactive.stored(), 2);
        let mut inactive = Inactive::default();
        assert!(!inactive.wait(None, vec![0; BYTES_MAX + 1].into(), OutKind::STANZA, 9));
        assert!(inactive.unrecorded);
    }
}
