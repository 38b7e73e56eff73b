//! XMPP addresses (RFC 6122: stringprep, as the servers in the field do; not PRECIS).
//!
//! A JID in the program is always *prepared*: two equal addresses are equal as bytes. Parsing is
//! the only way to make one. Cloning costs one reference count; `FullJid::bare` shares the string
//! of the full address and allocates nothing.

mod prep;

pub use prep::{has_unassigned, prep_domainpart, prep_localpart, prep_resourcepart};

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

/// Longest localpart, domainpart or resourcepart, in bytes of its prepared UTF-8 (RFC 6122 §2.1).
pub const PART_BYTES_MAX: usize = 1023;

/// Why a string is not an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JidError {
    /// Nothing before `@`, or nothing left of it after preparation.
    #[error("empty localpart")]
    EmptyLocalpart,
    /// Nothing where the domain belongs.
    #[error("empty domainpart")]
    EmptyDomainpart,
    /// Nothing after `/`, or nothing left of it after preparation.
    #[error("empty resourcepart")]
    EmptyResourcepart,
    /// A part is longer than [`PART_BYTES_MAX`].
    #[error("a part is longer than 1023 bytes")]
    TooLong,
    /// The localpart has a character that nodeprep forbids.
    #[error("invalid localpart")]
    InvalidLocalpart,
    /// The domainpart is neither a domain name nor an IP address.
    #[error("invalid domainpart")]
    InvalidDomainpart,
    /// The resourcepart has a character that resourceprep forbids.
    #[error("invalid resourcepart")]
    InvalidResourcepart,
    /// A resourcepart where a bare address is needed.
    #[error("an address without resourcepart is needed")]
    NotBare,
    /// No resourcepart where a full address is needed.
    #[error("an address with resourcepart is needed")]
    NotFull,
}

/// The string and where its parts end. `text[..bare_len]` is the bare address; a resourcepart
/// begins at `bare_len + 1`. A bare address may share the string of a full one.
#[derive(Clone)]
struct Parts {
    text: Arc<str>,
    /// Length of the localpart; 0: none.
    local_len: u16,
    bare_len: u16,
}

impl Parts {
    fn build(local: &str, domain: &str, resource: Option<&str>) -> Parts {
        let mut text =
            String::with_capacity(local.len() + domain.len() + resource.map_or(0, str::len) + 2);
        if !local.is_empty() {
            text.push_str(local);
            text.push('@');
        }
        text.push_str(domain);
        // Parts are at most 1023 bytes each, so both offsets fit.
        let bare_len = text.len() as u16;
        if let Some(resource) = resource {
            text.push('/');
            text.push_str(resource);
        }
        Parts {
            text: Arc::from(text),
            local_len: local.len() as u16,
            bare_len,
        }
    }

    fn parse(s: &str) -> Result<(Parts, bool), JidError> {
        if let Some(parts) = Parts::parse_prepared(s) {
            return Ok(parts);
        }
        let (bare, resource) = match memchr::memchr(b'/', s.as_bytes()) {
            Some(i) => (&s[..i], Some(&s[i + 1..])),
            None => (s, None),
        };
        let (local, domain) = match memchr::memchr(b'@', bare.as_bytes()) {
            Some(0) => return Err(JidError::EmptyLocalpart),
            Some(i) => (Some(&bare[..i]), &bare[i + 1..]),
            None => (None, bare),
        };
        let domain = prep_domainpart(domain)?;
        let local = local.map(prep_localpart).transpose()?;
        let resource = resource.map(prep_resourcepart).transpose()?;
        let parts = Parts::build(local.as_deref().unwrap_or(""), &domain, resource.as_deref());
        Ok((parts, resource.is_some()))
    }

    /// The fast path: an ASCII address that preparation would not change, in one pass.
    fn parse_prepared(s: &str) -> Option<(Parts, bool)> {
        let bytes = s.as_bytes();
        if bytes.len() > PART_BYTES_MAX {
            return None;
        }
        let bare_len = memchr::memchr(b'/', bytes).unwrap_or(bytes.len());
        let (bare, rest) = bytes.split_at(bare_len);
        let (local, domain) = match memchr::memchr(b'@', bare) {
            Some(i) => (&bare[..i], &bare[i + 1..]),
            None => (&bare[..0], bare),
        };
        let prepared = (local.len() + domain.len() == bare.len() || !local.is_empty())
            && local.iter().all(|&b| prep::LOCALPART_AS_IS[usize::from(b)])
            && prep::is_prepared_domain(domain)
            && (rest.is_empty() || rest.len() > 1 && rest.iter().all(|b| matches!(b, b' '..=b'~')));
        prepared.then(|| {
            (
                Parts {
                    text: Arc::from(s),
                    local_len: local.len() as u16,
                    bare_len: bare_len as u16,
                },
                !rest.is_empty(),
            )
        })
    }

    fn bare_str(&self) -> &str {
        &self.text[..usize::from(self.bare_len)]
    }

    fn localpart(&self) -> Option<&str> {
        (self.local_len > 0).then(|| &self.text[..usize::from(self.local_len)])
    }

    fn domainpart(&self) -> &str {
        let start = if self.local_len > 0 {
            usize::from(self.local_len) + 1
        } else {
            0
        };
        &self.text[start..usize::from(self.bare_len)]
    }
}

/// Equality, order, hash and display of an address are those of its text.
macro_rules! by_text {
    ($name:ident) => {
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.as_str() == other.as_str()
            }
        }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                self.as_str().cmp(other.as_str())
            }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.as_str().hash(state);
            }
        }
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.as_str())
            }
        }
        impl FromStr for $name {
            type Err = JidError;
            fn from_str(s: &str) -> Result<Self, JidError> {
                $name::parse(s)
            }
        }
    };
}

/// `localpart@domainpart` or `domainpart`: an account, a room, a domain.
#[derive(Clone)]
pub struct BareJid(Parts);

by_text!(BareJid);

impl BareJid {
    /// Parses and prepares an address without resourcepart.
    pub fn parse(s: &str) -> Result<BareJid, JidError> {
        match Parts::parse(s)? {
            (parts, false) => Ok(BareJid(parts)),
            (_, true) => Err(JidError::NotBare),
        }
    }

    /// An address from its parts, each prepared here. `localpart` None: the domain itself.
    pub fn from_parts(localpart: Option<&str>, domainpart: &str) -> Result<BareJid, JidError> {
        let local = localpart.map(prep_localpart).transpose()?;
        let domain = prep_domainpart(domainpart)?;
        Ok(BareJid(Parts::build(
            local.as_deref().unwrap_or(""),
            &domain,
            None,
        )))
    }

    /// The prepared address.
    pub fn as_str(&self) -> &str {
        self.0.bare_str()
    }

    /// None: the address is the domain itself.
    pub fn localpart(&self) -> Option<&str> {
        self.0.localpart()
    }

    /// The domain, as U-labels, without a trailing dot.
    pub fn domainpart(&self) -> &str {
        self.0.domainpart()
    }

    /// The address of the domain of this address.
    pub fn domain(&self) -> BareJid {
        match self.localpart() {
            None => self.clone(),
            Some(_) => BareJid(Parts::build("", self.domainpart(), None)),
        }
    }

    /// This address with a resourcepart, which is prepared here.
    pub fn with_resource(&self, resourcepart: &str) -> Result<FullJid, JidError> {
        let resource = prep_resourcepart(resourcepart)?;
        Ok(FullJid(Parts::build(
            self.localpart().unwrap_or(""),
            self.domainpart(),
            Some(&resource),
        )))
    }

    /// A copy that shares no string with a full address: for keys that live long.
    pub fn to_compact(&self) -> BareJid {
        if self.0.text.len() == usize::from(self.0.bare_len) {
            return self.clone();
        }
        BareJid(Parts {
            text: Arc::from(self.as_str()),
            ..self.0
        })
    }
}

/// An address with a resourcepart: one connected resource, or an occupant of a room.
#[derive(Clone)]
pub struct FullJid(Parts);

by_text!(FullJid);

impl FullJid {
    /// Parses and prepares an address with resourcepart.
    pub fn parse(s: &str) -> Result<FullJid, JidError> {
        match Parts::parse(s)? {
            (parts, true) => Ok(FullJid(parts)),
            (_, false) => Err(JidError::NotFull),
        }
    }

    /// The prepared address.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The address without its resourcepart. Allocates nothing.
    pub fn bare(&self) -> BareJid {
        BareJid(self.0.clone())
    }

    /// The text of the address without its resourcepart.
    pub fn bare_str(&self) -> &str {
        self.0.bare_str()
    }

    /// None: a resource of the domain itself.
    pub fn localpart(&self) -> Option<&str> {
        self.0.localpart()
    }

    /// The domain, as U-labels, without a trailing dot.
    pub fn domainpart(&self) -> &str {
        self.0.domainpart()
    }

    /// The resourcepart; may contain `@`, `/` and spaces.
    pub fn resourcepart(&self) -> &str {
        &self.0.text[usize::from(self.0.bare_len) + 1..]
    }
}

/// Any address.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Jid {
    /// Without resourcepart.
    Bare(BareJid),
    /// With resourcepart.
    Full(FullJid),
}

impl Jid {
    /// Parses and prepares an address.
    pub fn parse(s: &str) -> Result<Jid, JidError> {
        Parts::parse(s).map(|(parts, full)| {
            if full {
                Jid::Full(FullJid(parts))
            } else {
                Jid::Bare(BareJid(parts))
            }
        })
    }

    /// The prepared address.
    pub fn as_str(&self) -> &str {
        match self {
            Jid::Bare(jid) => jid.as_str(),
            Jid::Full(jid) => jid.as_str(),
        }
    }

    /// The address without its resourcepart. Allocates nothing.
    pub fn bare(&self) -> BareJid {
        match self {
            Jid::Bare(jid) => jid.clone(),
            Jid::Full(jid) => jid.bare(),
        }
    }

    /// The text of the address without its resourcepart.
    pub fn bare_str(&self) -> &str {
        match self {
            Jid::Bare(jid) => jid.as_str(),
            Jid::Full(jid) => jid.bare_str(),
        }
    }

    /// None: the domain itself, or a resource of it.
    pub fn localpart(&self) -> Option<&str> {
        match self {
            Jid::Bare(jid) => jid.localpart(),
            Jid::Full(jid) => jid.localpart(),
        }
    }

    /// The domain, as U-labels, without a trailing dot.
    pub fn domainpart(&self) -> &str {
        match self {
            Jid::Bare(jid) => jid.domainpart(),
            Jid::Full(jid) => jid.domainpart(),
        }
    }

    /// None for a bare address.
    pub fn resourcepart(&self) -> Option<&str> {
        match self {
            Jid::Bare(_) => None,
            Jid::Full(jid) => Some(jid.resourcepart()),
        }
    }

    /// The address, if it has a resourcepart.
    pub fn as_full(&self) -> Option<&FullJid> {
        match self {
            Jid::Bare(_) => None,
            Jid::Full(jid) => Some(jid),
        }
    }
}

impl From<BareJid> for Jid {
    fn from(jid: BareJid) -> Jid {
        Jid::Bare(jid)
    }
}

impl From<FullJid> for Jid {
    fn from(jid: FullJid) -> Jid {
        Jid::Full(jid)
    }
}

impl FromStr for Jid {
    type Err = JidError;
    fn from_str(s: &str) -> Result<Jid, JidError> {
        Jid::parse(s)
    }
}

impl fmt::Display for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
