//! Entity capabilities, XEP-0115 and XEP-0390: what a client says it is by a hash, and which notices it therefore wants
//! (XEP-0163 §4.1: features that end in `+notify`).
//!
//! In: presence, answers to `disco#info`. Out: what to ask, and what of the answer is true of everybody with the same hash.
//! Owns: the table of what is known of hashes, bounded.
//! Never: takes an answer for another client's that the hash does not prove: one that is wrong, of an algorithm that is not known, or
//! that could be read as something else with the same hash.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use foldhash::HashMap;
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use xmpp::element::Element;
use xmpp::node::Node;
use xmpp::ns;

/// Nodes that one client wants to hear of; those beyond are not heard of. Clients have about ten.
const INTERESTS_MAX: usize = 100;

/// Bytes of their names.
const INTERESTS_BYTES_MAX: usize = 8 * 1024;

/// Hashes of which is known what they stand for: versions of clients, with each set of plug-ins one.
const KNOWN_MAX: usize = 2_000;

/// Longest name of an algorithm, node or hash that is asked about, bytes.
const CLAIM_BYTES_MAX: usize = 1_024;

/// A hash that can be proved.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    kind: Kind,
    algorithm: Algorithm,
    /// In base64.
    hash: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Kind {
    /// XEP-0115.
    Old,
    /// XEP-0390.
    New,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

impl Algorithm {
    const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];

    /// As XEP-0300 and the registry of IANA name it.
    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha-1",
            Self::Sha256 => "sha-256",
            Self::Sha512 => "sha-512",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == name)
    }

    fn hash(self, input: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => sha1::Sha1::digest(input).to_vec(),
            Self::Sha256 => sha2::Sha256::digest(input).to_vec(),
            Self::Sha512 => sha2::Sha512::digest(input).to_vec(),
        }
    }
}

impl Key {
    /// For a session's record.
    pub fn to_text(&self) -> String {
        let kind = match self.kind {
            Kind::Old => "",
            Kind::New => "2",
        };
        format!("{kind}{}.{}", self.algorithm.name(), self.hash)
    }

    /// From there.
    pub fn from_text(text: &str) -> Option<Self> {
        let (name, hash) = text.split_once('.')?;
        let (kind, name) = match name.strip_prefix('2') {
            Some(name) => (Kind::New, name),
            None => (Kind::Old, name),
        };
        Some(Self {
            kind,
            algorithm: Algorithm::of(name)?,
            hash: hash.to_owned(),
        })
    }
}

/// What a presence says of its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The node of `disco#info` to be asked for; `None`: the client itself.
    pub node: Option<String>,
    /// What the answer has to prove to be everybody's with the same. `None`: it cannot.
    pub key: Option<Key>,
}

impl Claim {
    /// Of a presence. `None`: it says nothing of its client.
    ///
    /// A hash of XEP-0390 is preferred: what goes into one of XEP-0115 is ambiguous.
    pub fn of(presence: &Element) -> Option<Self> {
        let new = presence.child("c", ns::CAPS2).map(|c| c.tree());
        let new = new.iter().flat_map(Node::children);
        let new = new.filter(|h| h.is("hash", ns::HASHES)).find_map(|h| {
            let algorithm = Algorithm::of(h.attr("algo")?)?;
            let hash = h.text().trim().to_owned();
            Some((algorithm, hash)).filter(|(_, hash)| hash.len() <= CLAIM_BYTES_MAX)
        });
        if let Some((algorithm, hash)) = new {
            return Some(Self {
                node: Some(format!("{}#{}.{hash}", ns::CAPS2, algorithm.name())),
                key: Some(Key {
                    kind: Kind::New,
                    algorithm,
                    hash,
                }),
            });
        }
        let c = presence.child("c", ns::CAPS)?;
        let attr = |name| c.attr(name).filter(|v| v.len() <= CLAIM_BYTES_MAX);
        let (Some(node), Some(ver)) = (attr("node"), attr("ver")) else {
            return Some(Self {
                node: None,
                key: None,
            });
        };
        // Without an algorithm it is a name of a version, of before there were hashes (§7 of XEP-0115 1.3).
        let algorithm = attr("hash").and_then(|name| Algorithm::of(&name));
        Some(Self {
            node: Some(format!("{node}#{ver}")),
            key: algorithm.map(|algorithm| Key {
                kind: Kind::Old,
                algorithm,
                hash: ver.into_owned(),
            }),
        })
    }

    /// A number that is another if the claim is; never 0.
    pub fn fingerprint(&self) -> u64 {
        let state = foldhash::quality::FixedState::with_seed(0x0115);
        let key = self.key.as_ref().map(Key::to_text);
        state.hash_one((&self.node, key)).max(1)
    }
}

/// Nodes that a client wants to hear of, sorted.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Interests(Box<[Box<str>]>);

impl Interests {
    /// Of an answer to `disco#info`.
    pub fn of(query: &Node) -> Self {
        let features = query.children().filter(|c| c.is("feature", ns::DISCO_INFO));
        let nodes = features.filter_map(|f| f.attr("var")?.strip_suffix("+notify"));
        Self::new(nodes)
    }

    /// Of names.
    pub fn new<'n>(nodes: impl Iterator<Item = &'n str>) -> Self {
        let mut bytes = 0;
        let fit = nodes.filter(|n| !n.is_empty()).take_while(|node| {
            bytes += node.len();
            bytes <= INTERESTS_BYTES_MAX
        });
        let sorted: BTreeSet<&str> = fit.take(INTERESTS_MAX).collect();
        Self(sorted.into_iter().map(Box::from).collect())
    }

    /// This is among them.
    pub fn has(&self, node: &str) -> bool {
        self.0.binary_search_by(|n| (**n).cmp(node)).is_ok()
    }

    /// All of them.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|n| &**n)
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether an answer to `disco#info` is what the hash stands for, and nothing else is.
pub fn proves(query: &Node, key: &Key) -> bool {
    let input = match key.kind {
        Kind::Old => old_input(query),
        Kind::New => new_input(query),
    };
    let wanted = STANDARD.decode(&key.hash);
    input.is_some_and(|input| wanted.is_ok_and(|w| w == key.algorithm.hash(&input)))
}

/// The attributes of an identity, in the order of both hashes.
fn identity(node: &Node) -> [&str; 4] {
    ["category", "type", "xml:lang", "name"].map(|attr| node.attr(attr).unwrap_or_default())
}

/// Fields of a form: name, and values sorted.
type Fields<'n> = Vec<(&'n str, Vec<String>)>;

fn fields(form: &Node) -> Fields<'_> {
    let fields = form.children().filter(|c| c.is("field", ns::DATA_FORMS));
    let mut fields: Fields<'_> = fields
        .map(|field| {
            let values = field.children().filter(|c| c.is("value", ns::DATA_FORMS));
            let mut values: Vec<String> = values.map(|v| v.text().into_owned()).collect();
            values.sort_unstable();
            (field.attr("var").unwrap_or_default(), values)
        })
        .collect();
    fields.sort_unstable();
    fields
}

/// XEP-0115 §5.1. `None`: ill-formed (§5.4), or it has a separator inside, so that something else has the same hash.
fn old_input(query: &Node) -> Option<Vec<u8>> {
    let mut parts: Vec<String> = Vec::new();
    let clean = |text: &str| !text.contains('<');
    let of = |name: &'static str| query.children().filter(move |c| c.is(name, ns::DISCO_INFO));
    let mut identities: Vec<[&str; 4]> = of("identity").map(identity).collect();
    identities.sort_unstable();
    let ambiguous = |i: &[&str; 4]| i[..3].iter().any(|part| part.contains('/'));
    let twice = identities.windows(2).any(|pair| pair[0] == pair[1]);
    if twice || identities.iter().any(ambiguous) {
        return None;
    }
    parts.extend(identities.iter().map(|i| i.join("/")));
    let mut features: Vec<&str> = of("feature")
        .map(|f| f.attr("var").unwrap_or_default())
        .collect();
    features.sort_unstable();
    if features.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    parts.extend(features.into_iter().map(str::to_owned));
    let forms = query.children().filter(|c| c.is("x", ns::DATA_FORMS));
    let mut forms: Vec<(String, Fields<'_>)> = forms
        .filter_map(|form| {
            let mut all = fields(form);
            let at = all.iter().position(|(var, _)| *var == "FORM_TYPE")?;
            let (_, mut values) = all.remove(at);
            values.dedup();
            // Two types are none.
            let form_type = values.pop().filter(|_| values.is_empty());
            Some((form_type.unwrap_or_else(|| "<".into()), all))
        })
        .collect();
    forms.sort_unstable();
    if forms.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return None;
    }
    for (form_type, fields) in forms {
        parts.push(form_type);
        for (var, values) in fields {
            parts.push(var.to_owned());
            parts.extend(values);
        }
    }
    if !parts.iter().all(|part| clean(part)) {
        return None;
    }
    Some(
        parts
            .iter()
            .flat_map(|p| [p.as_bytes(), b"<"].concat())
            .collect(),
    )
}

/// XEP-0390 §4.1. `None`: it cannot be hashed.
fn new_input(query: &Node) -> Option<Vec<u8>> {
    let (mut features, mut identities, mut forms) = (Vec::new(), Vec::new(), Vec::new());
    let ended = |text: &str| [text.as_bytes(), b"\x1f"].concat();
    for child in query.children() {
        if child.is("feature", ns::DISCO_INFO) {
            features.push(ended(child.attr("var").unwrap_or_default()));
        } else if child.is("identity", ns::DISCO_INFO) {
            let mut parts = identity(child).map(ended).concat();
            parts.push(0x1e);
            identities.push(parts);
        } else if child.is("x", ns::DATA_FORMS) {
            let simple = ["reported", "item"]
                .iter()
                .all(|n| child.child(n, ns::DATA_FORMS).is_none());
            let all = fields(child);
            let typed = all
                .iter()
                .any(|(var, values)| *var == "FORM_TYPE" && values.len() == 1);
            if !simple || !typed {
                return None;
            }
            let field = |(var, values): &(&str, Vec<String>)| {
                let mut field = ended(var);
                field.extend(values.iter().flat_map(|v| ended(v)));
                field.push(0x1e);
                field
            };
            let mut all: Vec<Vec<u8>> = all.iter().map(field).collect();
            all.sort_unstable();
            let mut form = all.concat();
            form.push(0x1d);
            forms.push(form);
        } else {
            return None;
        }
    }
    let mut input = Vec::new();
    for mut part in [features, identities, forms] {
        part.sort_unstable();
        input.extend(part.concat());
        input.push(0x1c);
    }
    Some(input)
}

/// What a session is known to be interested in.
#[derive(Clone, Debug, Default)]
pub enum Caps {
    /// Nothing is known: the client has said nothing, or does not answer.
    #[default]
    None,
    /// It has been asked, by an IQ of this number.
    Asked(u64, Box<Claim>),
    /// Somebody with the same hash has been asked, or is to be.
    Waits(Box<Claim>),
    /// This. With the key, if it is everybody's with the same hash.
    Known(Arc<Interests>, Option<Arc<Key>>),
}

impl Caps {
    /// What it is interested in, if that is known.
    pub fn interests(&self) -> Option<&Arc<Interests>> {
        match self {
            Self::Known(interests, _) => Some(interests),
            _ => None,
        }
    }
}

/// Something known of a hash.
#[derive(Debug)]
struct Known {
    key: Arc<Key>,
    interests: Arc<Interests>,
    /// Grows with every use.
    used: u64,
}

/// What is known of hashes.
#[derive(Debug, Default)]
pub struct Table {
    known: HashMap<Key, Known>,
    uses: u64,
}

impl Table {
    /// What the hash stands for.
    pub fn find(&mut self, key: &Key) -> Option<Caps> {
        self.uses += 1;
        let known = self.known.get_mut(key)?;
        known.used = self.uses;
        Some(Caps::Known(
            known.interests.clone(),
            Some(known.key.clone()),
        ))
    }

    /// This has been proved. What has not been of use for longest makes room.
    pub fn put(&mut self, key: Key, interests: Interests) -> Caps {
        if let Some(known) = self.find(&key) {
            return known;
        }
        if self.known.len() >= KNOWN_MAX {
            // Rarely: a whole eighth at once, so that a flood of new hashes costs little for each.
            let mut uses: Vec<u64> = self.known.values().map(|k| k.used).collect();
            uses.sort_unstable();
            let least = uses[KNOWN_MAX / 8];
            self.known.retain(|_, k| k.used > least);
        }
        let known = Known {
            key: Arc::new(key.clone()),
            interests: Arc::new(interests),
            used: self.uses,
        };
        let caps = Caps::Known(known.interests.clone(), Some(known.key.clone()));
        self.known.insert(key, known);
        caps
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests;
