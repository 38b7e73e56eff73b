//! Avatars: what is published (XEP-0084), as the photo of a vCard (XEP-0153), and the other way (XEP-0398). It is kept once, in the
//! nodes; a vCard gets its photo from there when it is read.

use super::config::AccessModel;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use directory::backend::{PhotoId, photo_hash};
use store::{PubsubQuery, PubsubRange, Reader, StoreError};
use xmpp::element::Element;
use xmpp::jid::BareJid;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::Rewrite;

/// The node with the picture.
pub const DATA: &str = "urn:xmpp:avatar:data";

/// The node that says what it is.
pub const METADATA: &str = "urn:xmpp:avatar:metadata";

/// What presence says of the photo (XEP-0153).
const UPDATE: &str = "vcard-temp:x:update";

/// Longest name of a media type.
const TYPE_BYTES_MAX: usize = 100;

/// A picture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Photo {
    /// SHA-1 of its bytes, in hexadecimal digits: the id of its items.
    pub id: String,
    /// `image/png`, ...
    pub media_type: String,
    /// The bytes, in base64 without spaces.
    pub base64: String,
    /// How many there are.
    pub bytes: usize,
}

/// Somebody's avatar, as it is published.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Avatar {
    /// The picture.
    pub photo: Photo,
    /// Who may see it: the narrower of the two nodes.
    pub access: AccessModel,
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_whitespace()).collect()
}

/// What a picture is by its first bytes.
fn type_of(bytes: &[u8]) -> Option<&'static str> {
    const KINDS: [(&[u8], &str); 4] = [
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"GIF8", "image/gif"),
        (b"RIFF", "image/webp"),
    ];
    let mut kinds = KINDS.iter().filter(|(begin, _)| bytes.starts_with(begin));
    kinds.next().map(|(_, kind)| *kind)
}

impl Photo {
    /// Of base64, with or without spaces. `None`: it is none, or no picture by what is said of it and by its first bytes.
    pub fn new(media_type: &str, base64: &str) -> Option<Self> {
        let base64 = without_spaces(base64);
        let bytes = STANDARD.decode(&base64).ok().filter(|b| !b.is_empty())?;
        let media_type = match media_type.trim() {
            said if said.starts_with("image/") && said.len() <= TYPE_BYTES_MAX => said,
            // COMPAT: profanity 0.13 says "img/png".
            _ => type_of(&bytes)?,
        };
        Some(Self {
            id: photo_hash(&bytes),
            media_type: media_type.to_owned(),
            base64,
            bytes: bytes.len(),
        })
    }

    /// Of `<PHOTO/>` in a vCard. `None`: it is somewhere else, or no picture.
    pub fn of_vcard(photo: &Node) -> Option<Self> {
        let text = |name| photo.child(name, ns::VCARD).map(|n| n.text());
        Self::new(&text("TYPE")?, &text("BINVAL")?)
    }

    /// `<PHOTO/>` for a vCard.
    pub fn to_vcard(&self) -> Node {
        let leaf = |name: &'static str, text: &str| Node::new(name, ns::VCARD).with_text(text);
        Node::new("PHOTO", ns::VCARD)
            .with_child(leaf("TYPE", &self.media_type))
            .with_child(leaf("BINVAL", &self.base64))
    }

    /// Payload of the item of [`DATA`].
    pub fn data(&self) -> Bytes {
        let data = Node::new("data", DATA).with_text(self.base64.as_str());
        data.to_bytes("")
    }

    /// Payload of the item of [`METADATA`].
    pub fn metadata(&self) -> Bytes {
        metadata(&self.id, self.bytes, &self.media_type)
    }
}

/// The item of [`METADATA`] for the picture of a directory: its id and payload.
pub fn of_directory(photo: &PhotoId) -> (&str, Bytes) {
    let payload = metadata(&photo.sha1, photo.bytes, photo.media_type);
    (&photo.sha1, payload)
}

fn metadata(id: &str, bytes: usize, media_type: &str) -> Bytes {
    let info = Node::new("info", METADATA)
        .with_attr("bytes", bytes.to_string())
        .with_attr("id", id)
        .with_attr("type", media_type);
    Node::new("metadata", METADATA)
        .with_child(info)
        .to_bytes("")
}

/// Payload of the item of [`METADATA`] when there is none any more (XEP-0084 §4.3).
pub fn none() -> Bytes {
    Node::new("metadata", METADATA).to_bytes("")
}

/// Which picture a payload of [`METADATA`] tells of, and its type: that which is published, not one elsewhere (XEP-0398 §3.1).
fn told(metadata: &[u8]) -> Option<(String, String)> {
    let metadata = Node::parse(metadata, "").ok()?;
    let infos = metadata.children().filter(|c| c.is("info", METADATA));
    let mut here = infos.filter(|info| info.attr("url").is_none());
    let info = here.next()?;
    let id = info.attr("id")?.to_ascii_lowercase();
    let hash = id.len() == 40 && id.bytes().all(|b| b.is_ascii_hexdigit());
    hash.then(|| (id, info.attr("type").unwrap_or("image/png").to_owned()))
}

/// The hash that presence is to say.
pub fn hash(metadata: &[u8]) -> Option<String> {
    told(metadata).map(|(id, _)| id)
}

/// Who may see nodes of these access models.
fn narrower(one: AccessModel, other: AccessModel) -> AccessModel {
    if one == AccessModel::Open { other } else { one }
}

fn access(reader: &mut dyn Reader, owner: &BareJid) -> Result<Option<AccessModel>, StoreError> {
    let nodes = reader.pubsub_nodes(owner)?;
    let of = |name: &str| {
        let node = nodes.iter().find(|n| n.node == name)?;
        Some(super::node::Node::load(node).config.access)
    };
    let metadata = of(METADATA);
    Ok(metadata.map(|m| narrower(of(DATA).unwrap_or(m), m)))
}

/// Somebody's avatar. `None`: there is none, or what is published is not the picture that is told of.
///
/// # Errors
/// The store does not answer.
pub fn read(reader: &mut dyn Reader, owner: &BareJid) -> Result<Option<Avatar>, StoreError> {
    let Some(access) = access(reader, owner)? else {
        return Ok(None);
    };
    let metadata = reader.pubsub_last(owner, &[METADATA.to_owned()])?.pop();
    let Some((id, media_type)) = metadata.and_then(|(_, item)| told(&item.payload)) else {
        return Ok(None);
    };
    let query = PubsubQuery {
        owner: owner.clone(),
        node: DATA.to_owned(),
        range: PubsubRange::Ids(vec![id.clone()]),
        limit: 1,
        bytes_max: usize::MAX,
    };
    let page = reader.pubsub_items(&query)?;
    let item = page.and_then(|page| page.items.into_iter().next());
    let photo = item.and_then(|item| {
        let data = Node::parse(&item.payload, "").ok()?;
        Photo::new(&media_type, &data.text())
    });
    let photo = photo.filter(|photo| photo.id == id);
    Ok(photo.map(|photo| Avatar { photo, access }))
}

/// The hash of somebody's avatar, for their presence: if those who get the presence may see the avatar.
///
/// # Errors
/// The store does not answer.
pub fn read_hash(reader: &mut dyn Reader, owner: &BareJid) -> Result<Option<String>, StoreError> {
    let metadata = reader.pubsub_last(owner, &[METADATA.to_owned()])?.pop();
    let Some(hash) = metadata.and_then(|(_, item)| hash(&item.payload)) else {
        return Ok(None);
    };
    let seen = access(reader, owner)?.is_some_and(is_for_contacts);
    Ok(seen.then_some(hash))
}

/// All contacts may see it.
pub fn is_for_contacts(access: AccessModel) -> bool {
    matches!(access, AccessModel::Open | AccessModel::Presence)
}

/// What available presence must have in it, and whether what it has in that place must go (XEP-0398 §4). `None`: it stays as it is,
/// because there is no avatar, or the client says that it has none.
pub fn stamp(presence: &Element, hash: Option<&str>) -> Option<Bytes> {
    let hash = hash?;
    if let Some(update) = presence.child("x", UPDATE) {
        let update = update.tree();
        let photo = update.child("photo", UPDATE);
        if photo.is_some_and(|p| p.text().trim().is_empty()) {
            return None;
        }
    }
    let photo = Node::new("photo", UPDATE).with_text(hash);
    Some(
        Node::new("x", UPDATE)
            .with_child(photo)
            .to_bytes(ns::CLIENT),
    )
}

/// That it is what [`stamp`] takes the place of.
pub fn is_stamp(child: &xmpp::element::Child<'_>) -> bool {
    child.is("x", UPDATE)
}

/// An available presence, in two parts, with another hash. `None`: it stays as it is.
pub fn restamped(prefix: &Bytes, suffix: &Bytes, hash: Option<&str>) -> Option<(Bytes, Bytes)> {
    let whole = [&prefix[..], &suffix[..]].concat();
    let presence = Element::parse(whole.into()).ok()?;
    let stamp = match hash {
        Some(_) => stamp(&presence, hash)?,
        None => Bytes::new(),
    };
    let from = presence.attr("from")?.into_owned();
    let rewrite = Rewrite::new(&presence).set("from", &from).cut(is_stamp);
    let parts = rewrite.append(&stamp).remove("to").finish_split();
    Some(parts)
}
