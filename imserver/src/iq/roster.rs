//! The roster's IQs, RFC 6121 §2: what a client may ask and set. The roster itself is in `crate::roster`.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::ns;

/// Longest name of an item, bytes of UTF-8: as long as a part of an address (§2.3.3 leaves it to us).
pub const NAME_BYTES_MAX: usize = 1023;
/// Longest name of a group, bytes of UTF-8. As [`NAME_BYTES_MAX`].
pub const GROUP_BYTES_MAX: usize = 1023;
/// Most groups of one item: nobody sorts by more, and a full roster stays under a few megabytes in practice.
pub const GROUPS_MAX: usize = 64;

/// RFC 6121 §2.
pub const ROSTER: Extension = Extension {
    name: "query",
    ns: ns::ROSTER,
    server_features: &[ns::ROSTER],
    account_features: &[],
    get: Some(get),
    set: Some(set),
};

/// A roster set that is in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Set {
    /// Add or update an item.
    Put {
        /// The contact.
        jid: BareJid,
        /// The handle; an empty one is none.
        name: Option<String>,
        /// Each once.
        groups: Vec<String>,
    },
    /// Remove it.
    Remove {
        /// The contact.
        jid: BareJid,
    },
}

/// §2.1.3. Nobody but the owner sees a roster; others learn nothing, not even whether there is one.
fn get(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if !request.own() {
        return UNAVAILABLE;
    }
    if query.tree().child("item", ns::ROSTER).is_some() {
        return IqOutcome::Error(StanzaError::BadRequest, Some("a roster get has no items"));
    }
    IqOutcome::RosterGet {
        ver: query.attr("ver").map(|v| v.into_owned()),
    }
}

/// §2.1.5. `forbidden` for somebody else's (§2.3.3).
fn set(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => UNAVAILABLE,
        Target::Account { own: false, .. } => IqOutcome::Error(StanzaError::Forbidden, None),
        Target::Account { own: true, .. } => match parse_set(query, &request.from.bare()) {
            Ok(set) => IqOutcome::RosterSet(set),
            Err((condition, text)) => IqOutcome::Error(condition, Some(text)),
        },
    }
}

/// Reads a roster set. `subscription` other than `remove`, `ask` and `approved` are ignored (§2.1.2): they are the
/// server's to say.
///
/// # Errors
/// As §2.3.3 names them: `bad-request` for no item or several, and for a group named twice; `not-acceptable` for an empty
/// group and anything too long or too many. `jid-malformed` for an address that is none; `bad-request` for one with a
/// resource; `not-allowed` for one's own (§2.3.3, interoperability note). What is wrong is not looked at when an item is
/// removed.
pub fn parse_set(query: Child<'_>, owner: &BareJid) -> Result<Set, (StanzaError, &'static str)> {
    use StanzaError::{BadRequest, JidMalformed, NotAcceptable, NotAllowed};
    let query = query.tree();
    let mut items = query.children().filter(|c| c.is("item", ns::ROSTER));
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err((BadRequest, "a roster set has exactly one item"));
    };
    let jid = item
        .attr("jid")
        .ok_or((BadRequest, "the item has no jid"))?;
    let jid = match Jid::parse(jid) {
        Ok(Jid::Bare(jid)) => jid,
        Ok(Jid::Full(_)) => return Err((BadRequest, "a contact has no resource")),
        Err(_) => return Err((JidMalformed, "the jid is not an address")),
    };
    if item.attr("subscription") == Some("remove") {
        return Ok(Set::Remove { jid });
    }
    if jid == *owner {
        return Err((NotAllowed, "nobody is their own contact"));
    }
    let name = item.attr("name").filter(|n| !n.is_empty());
    if name.is_some_and(|n| n.len() > NAME_BYTES_MAX) {
        return Err((NotAcceptable, "the name is too long"));
    }
    let mut groups: Vec<String> = Vec::new();
    for group in item.children().filter(|c| c.is("group", ns::ROSTER)) {
        let group = group.text();
        if group.is_empty() {
            return Err((NotAcceptable, "a group has no name"));
        }
        if group.len() > GROUP_BYTES_MAX {
            return Err((NotAcceptable, "the name of a group is too long"));
        }
        if groups.iter().any(|g| *g == *group) {
            return Err((BadRequest, "a group is named twice"));
        }
        if groups.len() == GROUPS_MAX {
            return Err((NotAcceptable, "too many groups"));
        }
        groups.push(group.into_owned());
    }
    Ok(Set::Put {
        jid,
        name: name.map(str::to_owned),
        groups,
    })
}
