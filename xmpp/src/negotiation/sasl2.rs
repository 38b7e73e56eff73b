//! SASL 2 (XEP-0388) and what comes with a log-in of its kind: resumption (XEP-0198 §9), a resource (Bind 2, XEP-0386) and tokens (FAST,
//! XEP-0484). The exchange itself is the same as in RFC 6120.
//!
//! ```text
//!   <authenticate/> ── exchange ──> logged in ──> token? ──> resume? ──(refused)──> bind? ──> <success/>, features
//! ```
//! In: `<authenticate/>`. Out: what is to be done when the client has logged in, `<success/>` with everything that came of it.
//! Never: does any of it for who has not logged in.

use crate::element::{Child, Element};
use crate::ns;
use crate::sasl::{self, ClientId, Failure, TokenMechanism};
use crate::scram::{ScramHash, ScramKeys};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// Longest text kept of what a client says of itself, in characters.
const AGENT_CHARS_MAX: usize = 64;

/// Longest tag of a client that becomes part of its resource, in bytes. Longer ones are left out: a tag is the name of a program.
const TAG_BYTES_MAX: usize = 64;

/// A client, as it says itself (XEP-0388 §2.3). For its user and the operator, and nobody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAgent {
    /// Which installation.
    pub client: ClientId,
    /// Its program.
    pub software: Option<String>,
    /// What it runs on.
    pub device: Option<String>,
}

/// A resource is wanted with the log-in (XEP-0386 §3.2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bind2 {
    /// The client's name for itself, to be part of the resource.
    pub tag: Option<String>,
    /// Which client it is: it gets the same resource every time, and what is left of its sessions of before ends.
    pub client: Option<ClientId>,
    /// Carbons (XEP-0280) from the beginning.
    pub carbons: bool,
    /// Nobody looks at it (XEP-0352) from the beginning.
    pub inactive: bool,
    /// Stream management from the beginning.
    pub enable: Option<EnableSm>,
}

/// `<enable/>` of XEP-0198 §3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EnableSm {
    /// To be resumed.
    pub resume: bool,
    /// How long it would like to be waited for, seconds.
    pub max_s: Option<u64>,
}

impl EnableSm {
    /// What it says. `attr` gives its attributes.
    pub fn read<'e>(attr: impl Fn(&str) -> Option<Cow<'e, str>>) -> Self {
        Self {
            resume: attr("resume").is_some_and(|v| is_true(&v)),
            max_s: attr("max").and_then(|max| max.parse().ok()),
        }
    }
}

/// What the holder of a token, or who wants one, has asked for (XEP-0484).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenWish {
    /// A new one is wanted, for this mechanism.
    pub request: Option<TokenMechanism>,
    /// The one used is not to be good any more.
    pub invalidate: bool,
}

/// What is to be done about the tokens of a client that has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTurn {
    /// Which client.
    pub agent: UserAgent,
    /// What it has asked for.
    pub wish: TokenWish,
    /// The one it has used.
    pub used: Option<UsedToken>,
    /// How many revocations there had been before anybody was asked whether it may log in.
    pub revocations: u64,
}

/// A token that was used to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsedToken {
    /// Its mechanism.
    pub mechanism: TokenMechanism,
    /// When it was made (unix ms): with account and client, its name.
    pub issued_ms: u64,
    /// It was used before.
    pub known: bool,
    /// It is so old that another should be given out in its place.
    pub stale: bool,
}

/// A log-in by SASL 2 under way, with all that is to come of it.
#[derive(Debug)]
pub(super) struct Inline {
    pub(super) agent: Option<UserAgent>,
    pub(super) wish: TokenWish,
    pub(super) used: Option<UsedToken>,
    /// See [`TokenTurn::revocations`].
    pub(super) revocations: Option<u64>,
    /// Hashes that the account is to be given keys of, if it lacks them (XEP-0480).
    pub(super) upgrades: Vec<ScramHash>,
    /// The keys by which the client has proved, or is proving, that it knows the password.
    pub(super) keys: Option<Arc<ScramKeys>>,
    resume: Option<Resume>,
    pub(super) bind: Option<Bind2>,
    /// For `<additional-data/>`.
    pub(super) last: Option<Vec<u8>>,
    resume_failed: Option<&'static str>,
    token: Option<(String, String)>,
}

#[derive(Debug)]
enum Resume {
    Of(String, u32),
    Malformed,
}

/// `<authenticate/>`, taken apart.
pub(super) struct Authenticate {
    pub(super) mechanism: String,
    /// Base64. `None`: there is none, which is not the same as an empty one.
    pub(super) initial: Option<String>,
    pub(super) inline: Inline,
}

/// Takes `<authenticate/>` apart. `fast`: the mechanisms that tokens may be had for; `upgrades`: the hashes that keys may be added of.
///
/// # Errors
/// `malformed-request` for the same child twice, for `<fast/>` without a token's mechanism, and for the contrary.
pub(super) fn authenticate(
    element: &Element,
    fast: &[TokenMechanism],
    upgrades: &[ScramHash],
) -> Result<Authenticate, Failure> {
    let mechanism = element.attr("mechanism").unwrap_or_default().into_owned();
    let once = |name: &str, ns: &str| {
        let mut all = element.children().filter(|c| c.is(name, ns));
        let first = all.next();
        match all.next() {
            None => Ok(first),
            Some(_) => Err(Failure::MalformedRequest),
        }
    };
    let initial = once("initial-response", ns::SASL2)?.map(|c| c.text().into_owned());
    let agent = once("user-agent", ns::SASL2)?.and_then(|c| user_agent(&c));
    let by_token = once("fast", ns::FAST)?;
    let request = once("request-token", ns::FAST)?;
    if by_token.is_some() != TokenMechanism::from_name(&mechanism).is_some() {
        return Err(Failure::MalformedRequest);
    }
    // XEP-0484 §5.1: a token belongs to a client, so that one that does not say which it is gets none.
    let request = request
        .filter(|_| agent.is_some())
        .and_then(|c| TokenMechanism::from_name(&c.attr("mechanism")?))
        .filter(|m| fast.contains(m));
    let resume = once("resume", ns::SM)?.map(|c| resume(&c));
    let bind = once("bind", ns::BIND2)?;
    let bind = bind.map(|c| bind2(&c, agent.as_ref().map(|a| a.client)));
    Ok(Authenticate {
        mechanism,
        initial,
        inline: Inline {
            agent,
            wish: TokenWish {
                request,
                invalidate: by_token
                    .and_then(|c| c.attr("invalidate"))
                    .is_some_and(|v| is_true(&v)),
            },
            used: None,
            revocations: None,
            upgrades: asked_upgrades(element, upgrades),
            keys: None,
            resume,
            bind,
            last: None,
            resume_failed: None,
            token: None,
        },
    })
}

/// XEP-0480 §4.2. Tasks that are not offered are passed over, as the client will see.
fn asked_upgrades(element: &Element, offered: &[ScramHash]) -> Vec<ScramHash> {
    let mut asked = Vec::new();
    let children = element.children();
    for child in children.filter(|c| c.is("upgrade", ns::SASL_UPGRADE)) {
        let hash = super::upgrade::hash(child.text().trim());
        asked.extend(hash.filter(|h| offered.contains(h) && !asked.contains(h)));
    }
    asked
}

fn user_agent(child: &Child<'_>) -> Option<UserAgent> {
    let id = child.attr("id").filter(|id| !id.is_empty())?;
    let tree = child.tree();
    let text = |name: &str| {
        let text = tree.child(name, ns::SASL2)?.text();
        let text: String = text.trim().chars().take(AGENT_CHARS_MAX).collect();
        Some(text).filter(|t| !t.is_empty())
    };
    Some(UserAgent {
        client: ClientId::of(&id),
        software: text("software"),
        device: text("device"),
    })
}

fn resume(child: &Child<'_>) -> Resume {
    let previd = child.attr("previd").map(|id| id.into_owned());
    let h = child.attr("h").and_then(|h| h.parse().ok());
    match (previd, h) {
        (Some(previd), Some(h)) => Resume::Of(previd, h),
        _ => Resume::Malformed,
    }
}

fn bind2(child: &Child<'_>, client: Option<ClientId>) -> Bind2 {
    let tree = child.tree();
    let tag = tree.child("tag", ns::BIND2).map(|t| t.text().into_owned());
    let enable = tree.child("enable", ns::SM);
    Bind2 {
        tag: tag.filter(|t| !t.is_empty() && t.len() <= TAG_BYTES_MAX),
        client,
        carbons: tree.child("enable", ns::CARBONS).is_some(),
        inactive: tree.child("inactive", ns::CSI).is_some(),
        enable: enable.map(|e| EnableSm::read(|name| e.attr(name).map(Cow::Borrowed))),
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "true" | "1")
}

impl Inline {
    /// What is to be resumed, once. `Err`: not to be understood, as the client will be told.
    pub(super) fn take_resume(&mut self) -> Option<(String, u32)> {
        match self.resume.take()? {
            Resume::Of(previd, h) => Some((previd, h)),
            Resume::Malformed => {
                self.resume_refused("bad-request");
                None
            }
        }
    }

    pub(super) fn resume_refused(&mut self, condition: &'static str) {
        self.resume_failed = Some(condition);
    }

    pub(super) fn give(&mut self, token: String, expiry: String) {
        self.token = Some((token, expiry));
    }

    /// `<success/>`. `address`: bare, or full where there is a resource. `inside`: `<bound/>` or `<resumed/>`.
    pub(super) fn success(&self, address: &str, inside: Option<&[u8]>) -> Bytes {
        let mut out = b"<success xmlns='urn:xmpp:sasl:2'>".to_vec();
        if let Some(last) = &self.last {
            out.extend_from_slice(b"<additional-data>");
            out.extend_from_slice(sasl::encode(last).as_bytes());
            out.extend_from_slice(b"</additional-data>");
        }
        out.extend_from_slice(b"<authorization-identifier>");
        crate::node::escape_into(&mut out, address);
        out.extend_from_slice(b"</authorization-identifier>");
        if let Some(condition) = self.resume_failed {
            out.extend_from_slice(super::sm_failed_bytes(condition).as_bytes());
        }
        if let Some(inside) = inside {
            out.extend_from_slice(inside);
        }
        if let Some((token, expiry)) = &self.token {
            out.extend_from_slice(
                format!("<token xmlns='urn:xmpp:fast:0' expiry='{expiry}' token='{token}'/>")
                    .as_bytes(),
            );
        }
        out.extend_from_slice(b"</success>");
        out.into()
    }
}
