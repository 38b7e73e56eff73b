//! RFC 6121 §4: what an available resource says, and to whom it must be said, as data.
//!
//! In: a presence stanza without `to` (or the end of a session), a directed one, a probe; and what was before.
//! Out: a [`Plan`], a change of the [`Directed`] list, a [`ProbeAnswer`].
//! Owns: the list of entities that had directed presence from one session.
//! Never: sends anything; changes a subscription. A presence of type `error` changes nothing at all (§4.4.2,
//! interoperability note): it is only shown to the client, by `routing`.

use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::node::escape_into;

/// The priority of an available presence.
pub use xmpp::stanza::presence_priority as priority;

/// It says that nobody is there (RFC 6121 §4.7.2.1: `away`, `xa`).
pub fn is_away(presence: &Element) -> bool {
    let show = presence.content_child("show");
    show.is_some_and(|show| matches!(show.text().trim(), "away" | "xa"))
}

/// What a resource says of itself to everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// `<presence/>`, with this priority.
    Available(i8),
    /// `<presence type='unavailable'/>`
    Unavailable,
    /// Nothing: its session has ended without a word. The server says it for it (§4.5.2).
    Lost,
}

/// What is to be done about it, in the order of the fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// The stanza (or an `unavailable` of ours) goes to every contact with subscription `from` or `both`.
    pub audience: bool,
    /// And to the account's other available resources.
    pub siblings: bool,
    /// And to the resource itself.
    pub echo: bool,
    /// `unavailable` goes to those of [`Directed::farewell`].
    pub farewell: bool,
    /// Every contact with subscription `to` or `both` is probed (§4.3.1).
    pub probe: bool,
    /// The current presence of each other available resource of the account goes to this one: nobody probes them.
    pub siblings_presence: bool,
    /// The requests that wait for the user's answer go to this resource (§3.1.3).
    pub requests: bool,
    /// Our own unanswered requests go to their contacts again, if those are at other servers (§3.1.2).
    pub ask_again: bool,
    /// Pending messages go to this resource (XEP-0160 §2): it takes messages from now on and did not before.
    pub flood: bool,
}

/// What follows from a presence without `to`. `before` is the priority the resource had; `None`: it was not
/// available.
///
/// | was | says | §  | plan |
/// |---|---|---|---|
/// | not available | available | 4.2.2 | broadcast, probe, bring it up to date |
/// | available | available | 4.4.2 | broadcast |
/// | available | unavailable | 4.5.2 | broadcast, farewell |
/// | not available | unavailable | 4.6.3 | farewell only: nobody else has ever seen it |
/// | either | lost | 4.5.2 | as unavailable, but not to itself |
pub fn on_broadcast(before: Option<i8>, said: Said) -> Plan {
    let broadcast = Plan {
        audience: true,
        siblings: true,
        echo: true,
        ..Plan::default()
    };
    match (before, said) {
        (None, Said::Available(priority)) => Plan {
            probe: true,
            siblings_presence: true,
            requests: true,
            ask_again: true,
            flood: priority >= 0,
            ..broadcast
        },
        (Some(old), Said::Available(priority)) => Plan {
            flood: priority >= 0 && old < 0,
            ..broadcast
        },
        (Some(_), Said::Unavailable) => Plan {
            farewell: true,
            ..broadcast
        },
        (Some(_), Said::Lost) => Plan {
            farewell: true,
            echo: false,
            ..broadcast
        },
        (None, Said::Unavailable | Said::Lost) => Plan {
            farewell: true,
            ..Plan::default()
        },
    }
}

/// The entities a session has sent available presence to by name (§4.6), so that they hear when it goes.
/// Sorted; empty for nearly every session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directed(Vec<Jid>);

impl Directed {
    /// From a stored list.
    pub fn new(mut entries: Vec<Jid>) -> Self {
        entries.sort();
        entries.dedup();
        Self(entries)
    }

    /// The list, sorted.
    pub fn entries(&self) -> &[Jid] {
        &self.0
    }

    /// The session sends available presence to `to`. `reached`: the session is available and `to` is a contact
    /// with subscription `from` or `both`, so that broadcasts reach it anyway (§4.6.3 case 1) and it is not noted.
    ///
    /// # Errors
    /// `resource-constraint` if `max` are noted already: the stanza must not be sent, it would make a ghost.
    pub fn available(&mut self, to: &Jid, reached: bool, max: usize) -> Result<(), StanzaError> {
        if reached {
            return Ok(());
        }
        if let Err(place) = self.0.binary_search(to) {
            if self.0.len() >= max {
                return Err(StanzaError::ResourceConstraint);
            }
            self.0.insert(place, to.clone());
        }
        Ok(())
    }

    /// The session sends unavailable presence to `entity`, or gets it from there (§4.6.2): exactly that address is
    /// struck out.
    pub fn unavailable(&mut self, entity: &Jid) {
        if let Ok(place) = self.0.binary_search(entity) {
            self.0.remove(place);
            if self.0.is_empty() {
                self.0 = Vec::new();
            }
        }
    }

    /// Whether the session shares presence with `entity`, or with another resource of the same bare JID: an occupant
    /// of a room is known by the presence that was sent to the room.
    pub fn knows(&self, entity: &Jid) -> bool {
        self.0
            .iter()
            .any(|noted| noted.bare_str() == entity.bare_str())
    }

    /// The resource goes: empties the list and returns whom `unavailable` must be sent to by name. Those that the
    /// broadcast of `unavailable` reaches (`subscriber`, if the resource was available) are left out.
    pub fn farewell(
        &mut self,
        was_available: bool,
        subscriber: impl Fn(&BareJid) -> bool,
    ) -> Vec<Jid> {
        let mut entries = std::mem::take(&mut self.0);
        if was_available {
            entries.retain(|entry| !subscriber(&entry.bare()));
        }
        entries
    }
}

/// What a probe asks about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probed {
    /// The bare JID.
    Account {
        /// At least one resource is available.
        available: bool,
    },
    /// A full JID.
    Resource {
        /// It is available.
        available: bool,
        /// It is connected, and its [`Directed`] list knows who asks.
        directed: bool,
    },
}

/// All that the answer hangs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// The account exists.
    pub account_exists: bool,
    /// Who asks has subscription `from` or `both`, or is the account itself.
    pub subscribed: bool,
    /// Who asks is a user of this node.
    pub local: bool,
    /// What is asked about.
    pub about: Probed,
}

/// The answer to a probe (§4.3.2, §4.6.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeAnswer {
    /// None.
    Nothing,
    /// `unsubscribed` from the bare JID, with the `id` of the probe. It does not go through `subscription`: it
    /// withdraws no pre-approval.
    Unsubscribed,
    /// `unavailable` from the address that was probed, with the `id` of the probe.
    Unavailable,
    /// The last broadcast presence of each available resource, as the client sent it.
    Each,
    /// A bare `<presence/>` from the full JID that was probed: no show, no status, no extensions.
    Mere,
}

/// Decides it.
///
/// * An account that does not exist is silent (§8.5.1 choice a).
/// * Who may not see it is told `unsubscribed` whatever there is to see (rule 1), but a resource tells those it has sent
///   directed presence to that it is there (§4.6.6).
/// * An account without available resources answers other servers `unavailable` (rule 3), and is silent for users
///   of this node: who hears nothing at log-in takes the contact for offline, and most contacts are.
pub fn answer_probe(probe: Probe) -> ProbeAnswer {
    if !probe.account_exists {
        return ProbeAnswer::Nothing;
    }
    match probe.about {
        Probed::Resource { directed: true, .. } if !probe.subscribed => ProbeAnswer::Mere,
        _ if !probe.subscribed => ProbeAnswer::Unsubscribed,
        Probed::Account { available: true } => ProbeAnswer::Each,
        Probed::Account { available: false } if probe.local => ProbeAnswer::Nothing,
        Probed::Account { available: false } => ProbeAnswer::Unavailable,
        Probed::Resource {
            available: true, ..
        }
        | Probed::Resource { directed: true, .. } => ProbeAnswer::Mere,
        Probed::Resource { .. } => ProbeAnswer::Unavailable,
    }
}

/// A presence stanza of ours without content. `stanza_type` `None`: available.
pub fn stanza(stanza_type: Option<&str>, id: Option<&str>, from: &str, to: &str) -> Bytes {
    let mut out = Vec::with_capacity(64 + from.len() + to.len());
    out.extend_from_slice(b"<presence");
    let mut attr = |name: &str, value: &str| {
        out.push(b' ');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"='");
        escape_into(&mut out, value);
        out.push(b'\'');
    };
    if let Some(stanza_type) = stanza_type {
        attr("type", stanza_type);
    }
    if let Some(id) = id {
        attr("id", id);
    }
    attr("from", from);
    attr("to", to);
    out.extend_from_slice(b"/>");
    Bytes::from(out)
}

/// The `unavailable` that the server says for a resource that has gone without a word, in two parts: ` to='...'` goes
/// between, as with `Rewrite::finish_split`.
pub fn unavailable(from: &FullJid) -> (Bytes, Bytes) {
    let mut prefix = Vec::with_capacity(48 + from.as_str().len());
    prefix.extend_from_slice(b"<presence type='unavailable' from='");
    escape_into(&mut prefix, from.as_str());
    prefix.push(b'\'');
    (Bytes::from(prefix), Bytes::from_static(b"/>"))
}

#[cfg(test)]
mod tests;
