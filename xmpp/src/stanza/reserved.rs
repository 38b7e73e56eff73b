//! What only a server (or a room) may say in a stanza: one table, per namespace and direction.
//!
//! A first-level child that a row names is cut from what comes in on that direction, however many
//! there are, so that nobody down the line can take it for ours (XEP-0359 §5, XEP-0203 §4,
//! XEP-0421 §4, XEP-0280 §11, XEP-0313 §8).

use crate::element::Child;
use crate::ns;

/// Where a stanza came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// From a client of ours.
    FromClient,
    /// From another domain (s2s).
    FromRemote,
    /// From a component.
    FromComponent,
}

/// Which of the children that a row names are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cut {
    /// Every one.
    All,
    /// Those that say to be by one of us in this attribute; also those without it, which nobody
    /// could check.
    OursOrUnsigned(&'static str),
    /// Those that say to be by one of us in this attribute.
    Ours(&'static str),
}

/// One row: the child, and what is cut per direction (None: nothing).
struct Row {
    name: &'static str,
    ns: &'static str,
    from_client: Option<Cut>,
    from_remote: Option<Cut>,
    from_component: Option<Cut>,
}

const fn row(
    name: &'static str,
    ns: &'static str,
    from_client: Option<Cut>,
    from_remote: Option<Cut>,
    from_component: Option<Cut>,
) -> Row {
    Row {
        name,
        ns,
        from_client,
        from_remote,
        from_component,
    }
}

const ALL: Option<Cut> = Some(Cut::All);
const BY: Option<Cut> = Some(Cut::OursOrUnsigned("by"));
const FROM: Option<Cut> = Some(Cut::Ours("from"));

/// A room on a component or on another domain says `occupant-id`, hats and archive results with
/// right; a client never does. Carbons are made only by the recipient's own server.
const TABLE: &[Row] = &[
    //   child          namespace           client  remote  component
    row("stanza-id", ns::STANZA_ID, BY, BY, BY),
    row("archived", "urn:xmpp:mam:tmp", BY, BY, BY),
    row("delay", ns::DELAY, FROM, FROM, FROM),
    row("x", ns::DELAY_LEGACY, FROM, FROM, FROM),
    row("occupant-id", ns::OCCUPANT_ID, ALL, None, None),
    row("hats", ns::HATS, ALL, None, None),
    row("result", ns::MAM, ALL, None, None),
    row("fin", ns::MAM, ALL, None, None),
    row("result", "urn:xmpp:mam:1", ALL, None, None),
    row("fin", "urn:xmpp:mam:1", ALL, None, None),
    row("sent", ns::CARBONS, ALL, ALL, ALL),
    row("received", ns::CARBONS, ALL, ALL, ALL),
];

/// Whether a first-level child of a message or presence must be cut; an IQ has only a payload, which
/// is its own affair. `is_ours` tells whether an address, as written in the child, is one for which
/// only this server speaks (any in a domain served here, once prepared); what does not parse as an
/// address should count as ours.
pub fn is_reserved(
    direction: Direction,
    child: &Child<'_>,
    is_ours: impl Fn(&str) -> bool,
) -> bool {
    TABLE.iter().any(|row| {
        let cut = match direction {
            Direction::FromClient => row.from_client,
            Direction::FromRemote => row.from_remote,
            Direction::FromComponent => row.from_component,
        };
        let Some(cut) = cut else { return false };
        child.is(row.name, row.ns)
            && match cut {
                Cut::All => true,
                Cut::OursOrUnsigned(attr) => child.attr(attr).is_none_or(|value| is_ours(&value)),
                Cut::Ours(attr) => child.attr(attr).is_some_and(|value| is_ours(&value)),
            }
    })
}
