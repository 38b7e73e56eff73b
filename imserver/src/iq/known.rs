//! What a directory knows of somebody, for nodes that they have not made themselves: a vCard4 (XEP-0292), and the photo as an avatar
//! (XEP-0084).
//!
//! In: a request for items of such a node, what the directory says. Out: the answer.
//! Never: takes the place of what its owner has published, were it nothing; tells a stranger more than vcard-temp does.

use super::vcard::{self, Texts};
use super::{IqOutcome, Request};
use crate::event::CardFacts;
use crate::pubsub::ask::Items;
use crate::pubsub::avatar::{self, Photo};
use crate::pubsub::{Refusal, answer};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use store::{PubsubItem, PubsubPage, PubsubRange};
use xmpp::jid::BareJid;
use xmpp::node::Node;

/// XEP-0292 §3.1.
const VCARD4: &str = "urn:xmpp:vcard4";
const VCARD4_NS: &str = "urn:ietf:params:xml:ns:vcard-4.0";

/// The id of the one item of a node that has no more (XEP-0222 §3).
const CURRENT: &str = "current";

/// A question for items of a node that there is not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    /// Of whom.
    pub owner: BareJid,
    /// Which.
    pub items: Items,
    /// What is said if the directory does not know, either.
    pub otherwise: Refusal,
}

/// A directory may know what is asked for.
pub fn is_known(node: &str) -> bool {
    matches!(node, VCARD4 | avatar::DATA | avatar::METADATA)
}

/// The directory has answered. `None`: there is nobody of this address.
pub(super) fn found(request: &Request<'_>, known: &Known, facts: Option<&CardFacts>) -> IqOutcome {
    match facts.and_then(|facts| item(&known.items.node, facts)) {
        Some((id, payload)) => request.reply(page(&known.items, id, payload)),
        None => IqOutcome::Refuse(Box::new(known.otherwise.clone())),
    }
}

/// The one item of the node: its id and payload.
fn item(node: &str, facts: &CardFacts) -> Option<(String, Bytes)> {
    if node == VCARD4 {
        let person = &facts.card.person;
        let photo = vcard::photo(facts);
        let photo = photo.map(|p| (p.media_type, STANDARD.encode(&p.bytes)));
        let card = vcard4(&person.jid, Texts::of(&person.profile), photo)?;
        return Some((CURRENT.to_owned(), card.to_bytes("")));
    }
    let photo = vcard::photo(facts)?;
    let photo = Photo::new(photo.media_type, &STANDARD.encode(&photo.bytes))?;
    let payload = match node == avatar::DATA {
        true => photo.data(),
        false => photo.metadata(),
    };
    Some((photo.id, payload))
}

fn page(asked: &Items, id: String, payload: Bytes) -> Node {
    let wanted = match &asked.range {
        PubsubRange::Ids(ids) => ids.contains(&id),
        PubsubRange::Index(n) => *n == 0,
        // Behind or before the only one there is nothing.
        PubsubRange::After(_) | PubsubRange::Before(_) => false,
        PubsubRange::Newest | PubsubRange::Oldest => asked.limit > 0,
    };
    let item = PubsubItem {
        id,
        publisher: String::new(),
        time_ms: 0,
        payload,
    };
    let page = PubsubPage {
        items: wanted.then_some(item).into_iter().collect(),
        index: 0,
        count: 1,
    };
    answer::items(asked, &page)
}

/// RFC 6351, of what vcard-temp shows (XEP-0292 §7), the photo with its media type and in base64. `None`: the directory knows nothing
/// but the address.
fn vcard4(jid: &BareJid, texts: Texts, photo: Option<(&str, String)>) -> Option<Node> {
    let of = |name: &'static str| Node::new(name, VCARD4_NS);
    let leaf = |name: &'static str, text: String| of(name).with_text(text);
    let text = |name: &'static str, value: String| of(name).with_child(leaf("text", value));
    if texts == Texts::default() && photo.is_none() {
        return None;
    }
    let mut card = Vec::new();
    // RFC 6350 §6.2.1: there is at least one.
    let name = texts.name.clone();
    let name = name.unwrap_or_else(|| jid.localpart().unwrap_or_default().to_owned());
    card.push(text("fn", name));
    if texts.given.is_some() || texts.family.is_some() {
        let parts = [("surname", texts.family), ("given", texts.given)];
        let parts = parts.into_iter().filter_map(|(n, v)| Some(leaf(n, v?)));
        card.push(of("n").with_children(parts));
    }
    card.extend(texts.name.map(|name| text("nickname", name)));
    // RFC 6350 §6.2.4, and RFC 2397: there is no other place for it.
    if let Some((kind, base64)) = photo {
        let uri = leaf("uri", format!("data:{kind};base64,{base64}"));
        card.push(of("photo").with_child(uri));
    }
    for (n, mail) in texts.mails.into_iter().enumerate() {
        let preferred = of("pref").with_child(leaf("integer", "1".into()));
        let preferred = of("parameters").with_child(preferred);
        let email = of("email").with_children((n == 0).then_some(preferred));
        card.push(email.with_child(leaf("text", mail)));
    }
    for phone in texts.phones {
        let kinds = ["work", "voice"].map(|kind| leaf("text", kind.into()));
        let kinds = of("parameters").with_child(of("type").with_children(kinds));
        card.push(of("tel").with_child(kinds).with_child(leaf("text", phone)));
    }
    card.extend(texts.title.map(|title| text("title", title)));
    if texts.organisation.is_some() || texts.unit.is_some() {
        let parts = [Some(texts.organisation.unwrap_or_default()), texts.unit];
        let parts = parts.into_iter().flatten().map(|part| leaf("text", part));
        card.push(of("org").with_children(parts));
    }
    card.push(of("impp").with_child(leaf("uri", format!("xmpp:{}", jid.as_str()))));
    Some(of("vcard").with_children(card))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid() -> BareJid {
        BareJid::parse("r@x.example").expect("an address")
    }

    #[test]
    fn a_vcard4_has_what_the_directory_knows() {
        assert_eq!(vcard4(&jid(), Texts::default(), None), None);
        let texts = Texts {
            family: Some("M".into()),
            mails: vec!["a@b".into(), "c@d".into()],
            phones: vec!["+39".into()],
            unit: Some("Youth".into()),
            ..Texts::default()
        };
        let photo = Some(("image/png", "cGljdHVyZQ==".to_owned()));
        let card = vcard4(&jid(), texts, photo).expect("something is known");
        assert_eq!(
            card.to_bytes(VCARD4_NS),
            "<vcard><fn><text>r</text></fn><n><surname>M</surname></n>\
             <photo><uri>data:image/png;base64,cGljdHVyZQ==</uri></photo>\
             <email><parameters><pref><integer>1</integer></pref></parameters><text>a@b</text></email>\
             <email><text>c@d</text></email>\
             <tel><parameters><type><text>work</text><text>voice</text></type></parameters><text>+39</text></tel>\
             <org><text></text><text>Youth</text></org><impp><uri>xmpp:r@x.example</uri></impp></vcard>"
        );
    }

    #[test]
    fn there_is_one_item() {
        let asked = |range, limit| Items {
            node: VCARD4.into(),
            range,
            limit,
            rsm: false,
        };
        use PubsubRange::{After, Ids, Index, Newest};
        for (range, there) in [
            (Newest, true),
            (Ids(vec!["x".into(), "current".into()]), true),
            (Ids(vec!["x".into()]), false),
            (Index(0), true),
            (Index(1), false),
            (After("current".into()), false),
        ] {
            let page = page(&asked(range.clone(), 10), CURRENT.into(), Bytes::new());
            let items = page.children().next().expect("a list");
            assert_eq!(items.children().count(), usize::from(there), "{range:?}");
        }
    }
}
