//! vCards, XEP-0054: one's own to set, anybody's to read (§5: world-readable).
//!
//! The photo is kept as an avatar (`pubsub::avatar`), and put into the vCard when that is read.
//!
//! Somebody whose account is in a directory has what the directory knows of them, and their own vCard beside it: a field that the
//! directory has is the directory's, whatever they have stored; every other field is theirs. So a photo of one's own shows as long as
//! the directory has none, and a name that the personnel office has changed shows at once.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait, plain};
use crate::event::CardFacts;
use crate::pubsub::ask::Ask;
use crate::pubsub::avatar::Photo;
use crate::pubsub::config::AccessModel;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use directory::backend::{self, Profile};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::BareJid;
use xmpp::node::Node;
use xmpp::ns;

/// XEP-0054.
pub const VCARD: Extension = Extension {
    name: "vCard",
    ns: ns::VCARD,
    server_features: &[ns::VCARD],
    account_features: &[ns::VCARD],
    get: Some(get),
    set: Some(set),
};

/// A larger photo of a directory is left out: in base64 it would not fit into what a client may have untaken. (Each directory has
/// its own, smaller limit.)
pub(crate) const PHOTO_BYTES_MAX: usize = 512 * 1024;

/// Mail addresses, and as many telephone numbers, shown of somebody: a directory may have hundreds of aliases.
const VALUES_MAX: usize = 8;

/// Without `to`, or to one's own or another's bare JID (§3.1, §3.3). The server has none.
fn get(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => UNAVAILABLE,
        Target::Account { .. } => {
            IqOutcome::Read(Wait::Card(request.to.unwrap_or(request.from).bare()))
        }
    }
}

/// §3.2. An empty one removes it. One that is too long is refused with `policy-violation`, whole.
fn set(request: &Request<'_>, vcard: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => return UNAVAILABLE,
        Target::Account { own: false, .. } => {
            return IqOutcome::Error(StanzaError::Forbidden, None);
        }
        Target::Account { own: true, .. } => {}
    }
    let vcard = vcard.tree();
    let xml = vcard.to_bytes("");
    if xml.len() > request.context.vcard_bytes_max {
        return IqOutcome::Error(StanzaError::PolicyViolation, Some("the vCard is too long"));
    }
    let photo = vcard.child("PHOTO", ns::VCARD).and_then(Photo::of_vcard);
    // A photo that is none, or somewhere else, stays where it is.
    let is_kept = |child: &&Node| photo.is_none() || !child.is("PHOTO", ns::VCARD);
    let rest: Vec<Node> = vcard.children().filter(is_kept).cloned().collect();
    let rest = (!rest.is_empty()).then(|| Node::new("vCard", ns::VCARD).with_children(rest));
    IqOutcome::Pubsub(Box::new(Ask::Card {
        xml: rest.map(|rest| rest.to_bytes("")),
        photo: photo.map(Box::new),
    }))
}

/// §3.1, §3.3: no vCard is `item-not-found` to its owner; to others it looks like no account.
pub fn found(request: &Request<'_>, found: Option<&CardFacts>) -> IqOutcome {
    let Some(facts) = found else {
        return UNAVAILABLE;
    };
    // What was stored was checked when it came; what the store has spoiled is not passed on.
    let stored = facts.stored.as_ref().map(|xml| Node::parse(xml, ns::VCARD));
    let stored = match stored.transpose() {
        Ok(stored) => stored,
        Err(_) => return UNAVAILABLE,
    };
    // The photo is the one that presence tells of, and that is the published one (XEP-0398).
    let avatar = facts.avatar.as_ref().filter(|a| may_see(request, a.access));
    let photo = photo(facts).filter(|_| avatar.is_none());
    let mut known = fields(&facts.card.person.jid, &facts.card.person.profile, photo);
    known.extend(avatar.map(|avatar| avatar.photo.to_vcard()));
    match stored {
        Some(stored) => request.reply(joined(known, stored)),
        None if !known.is_empty() => {
            request.reply(Node::new("vCard", ns::VCARD).with_children(known))
        }
        None if request.own() => IqOutcome::Error(StanzaError::ItemNotFound, None),
        None => UNAVAILABLE,
    }
}

/// XEP-0398 §7: who may see the nodes sees the photo that is made of them.
fn may_see(request: &Request<'_>, access: AccessModel) -> bool {
    request.own()
        || match access {
            AccessModel::Open => true,
            AccessModel::Presence => request.visible(),
            AccessModel::Roster | AccessModel::Whitelist | AccessModel::Authorize => false,
        }
}

/// The directory's fields first, then what the person has stored of others.
fn joined(known: Vec<Node>, stored: Node) -> Node {
    if known.is_empty() {
        return stored;
    }
    let names: Vec<String> = known.iter().map(|n| n.name().to_owned()).collect();
    let others = stored
        .children()
        .filter(|child| !(child.ns() == ns::VCARD && names.iter().any(|n| n == child.name())))
        .cloned();
    Node::new("vCard", ns::VCARD)
        .with_children(known)
        .with_children(others)
}

/// The directory's photo.
pub(super) fn photo(facts: &CardFacts) -> Option<&backend::Photo> {
    let photo = facts.card.photo.as_ref();
    photo.filter(|p| p.bytes.len() <= PHOTO_BYTES_MAX)
}

/// What a directory knows, as it is shown: each a line of text that is not empty.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Texts {
    pub(super) name: Option<String>,
    pub(super) given: Option<String>,
    pub(super) family: Option<String>,
    pub(super) mails: Vec<String>,
    pub(super) phones: Vec<String>,
    pub(super) title: Option<String>,
    pub(super) organisation: Option<String>,
    pub(super) unit: Option<String>,
}

impl Texts {
    pub(super) fn of(profile: &Profile) -> Self {
        let one = |value: &Option<String>| value.as_deref().and_then(plain);
        let many = |values: &[String]| -> Vec<String> {
            let values = values.iter().filter_map(|v| plain(v));
            values.take(VALUES_MAX).collect()
        };
        let (given, family) = (one(&profile.given_name), one(&profile.family_name));
        let name = one(&profile.name).or_else(|| {
            let parts = [given.as_deref(), family.as_deref()];
            plain(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
        });
        Self {
            name,
            given,
            family,
            mails: many(&profile.mail),
            phones: many(&profile.phone),
            title: one(&profile.title),
            organisation: one(&profile.organisation),
            unit: one(&profile.unit),
        }
    }
}

/// What a directory knows, as fields of a vCard. Nothing of somebody of whom it knows nothing but the address.
fn fields(jid: &BareJid, profile: &Profile, photo: Option<&backend::Photo>) -> Vec<Node> {
    let of = |name: &'static str| Node::new(name, ns::VCARD);
    let leaf = |name: &'static str, text: String| of(name).with_text(text);
    let Texts {
        name,
        given,
        family,
        mails,
        phones,
        title,
        organisation,
        unit,
    } = Texts::of(profile);
    let mut fields = Vec::new();
    fields.extend(name.clone().map(|name| leaf("FN", name)));
    if given.is_some() || family.is_some() {
        let parts = [("FAMILY", family), ("GIVEN", given)];
        let parts = parts.into_iter().filter_map(|(n, v)| v.map(|v| leaf(n, v)));
        fields.push(of("N").with_children(parts));
    }
    fields.extend(name.map(|name| leaf("NICKNAME", name)));
    for (n, mail) in mails.into_iter().enumerate() {
        let preferred = (n == 0).then(|| of("PREF"));
        let mail = of("EMAIL")
            .with_child(of("INTERNET"))
            .with_children(preferred)
            .with_child(leaf("USERID", mail));
        fields.push(mail);
    }
    for phone in phones {
        let phone = of("TEL")
            .with_child(of("WORK"))
            .with_child(of("VOICE"))
            .with_child(leaf("NUMBER", phone));
        fields.push(phone);
    }
    fields.extend(title.map(|title| leaf("TITLE", title)));
    if organisation.is_some() || unit.is_some() {
        // §3.1 (the DTD): a unit is one of an organisation.
        let organisation = organisation.unwrap_or_default();
        let units = unit.map(|unit| leaf("ORGUNIT", unit));
        let org = of("ORG").with_child(leaf("ORGNAME", organisation));
        fields.push(org.with_children(units));
    }
    fields.extend(photo.map(|photo| {
        of("PHOTO")
            .with_child(leaf("TYPE", photo.media_type.to_owned()))
            .with_child(leaf("BINVAL", STANDARD.encode(&photo.bytes)))
    }));
    if !fields.is_empty() {
        fields.push(leaf("JABBERID", jid.as_str().to_owned()));
    }
    fields
}
