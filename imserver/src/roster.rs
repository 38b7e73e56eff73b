//! RFC 6121 §2: the roster of one account in memory: items, versions, pushes.
//!
//! In: items as stored, what clients set, states that `subscription` decides.
//! Out: changes (to be stored and pushed), whole rosters, as bytes.
//! Owns: the items, the unanswered requests, the version.
//! Never: stores or sends; takes a subscription from a client; shows a request as an item.
//!
//! Versions (§2.6) are numbers that only grow: milliseconds since 1970, or one more than the last if that is greater.
//! So a version is never given twice, not even by an account made anew or a store restored from a backup, and a
//! client's old version is never mistaken for a current one. A client that is not too far behind gets the items that
//! changed; removals are remembered only while the roster is in memory, and a client from before that gets
//! everything.

use crate::subscription::{self, State};
use bytes::Bytes;
use std::collections::VecDeque;
use store::{RosterItem, SubscriptionRequest, UserData};
use xmpp::error::StanzaError;
use xmpp::jid::BareJid;
use xmpp::node::escape_into;

/// Most removals remembered for versioning. With one more, the oldest is forgotten and so are clients from before it.
pub const REMOVALS_MAX: usize = 64;

/// Most bytes kept of a subscription request; of a longer one everything but kind and addresses goes
/// (§3.1.3, security warning: strangers fill this).
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Most unanswered requests kept; later ones are dropped. As [`REQUEST_BYTES_MAX`].
pub const REQUESTS_MAX: usize = 1000;

/// One change of one item: to be stored and pushed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The contact.
    pub jid: BareJid,
    /// The item as it is now. `None`: removed.
    pub item: Option<RosterItem>,
    /// The roster's version with it.
    pub version: u64,
}

impl Change {
    /// What the store is told.
    pub fn write(&self, owner: &BareJid) -> store::Write {
        store::Write::Roster {
            owner: owner.clone(),
            version: self.version,
            put: self.item.clone(),
            remove: self.item.is_none().then(|| self.jid.clone()),
        }
    }

    /// The roster push for one interested resource (§2.1.6). No `from`: it is from the account.
    pub fn push(&self, id: &str, to: &str) -> Bytes {
        let mut out = Vec::with_capacity(256);
        iq_into(&mut out, "set", id, to);
        query_into(&mut out, self.version);
        match &self.item {
            Some(item) => item_into(&mut out, item),
            None => {
                attr_into(&mut out, "<item jid", self.jid.as_str());
                out.extend_from_slice(b" subscription='remove'/>");
            }
        }
        out.extend_from_slice(b"</query></iq>");
        Bytes::from(out)
    }
}

/// What a change of state needs done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// The item changed in a way that shows: store it, push it ([`subscription::Step::Push`]).
    pub change: Option<Change>,
    /// The request is to be kept (`Some`) or forgotten (`None`); outer `None`: nothing to store.
    pub request: Option<Option<Bytes>>,
}

impl Applied {
    /// What the store is told.
    pub fn writes(&self, owner: &BareJid, contact: &BareJid) -> Vec<store::Write> {
        let mut writes = Vec::new();
        if let Some(change) = &self.change {
            writes.push(change.write(owner));
        }
        if let Some(stanza) = &self.request {
            writes.push(store::Write::SubscriptionRequest {
                owner: owner.clone(),
                from: contact.clone(),
                stanza: stanza.clone(),
            });
        }
        writes
    }
}

/// The answer to a roster get.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The IQ result: the whole roster, or empty.
    pub result: Bytes,
    /// What the client has missed, oldest first: pushes for it alone, after the result.
    pub missed: Vec<Change>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Roster {
    version: u64,
    /// Every removal after this version is in `removals`.
    floor: u64,
    /// Sorted by contact.
    items: Vec<RosterItem>,
    /// Oldest first; of contacts that are not in `items`, each once.
    removals: VecDeque<(u64, BareJid)>,
    /// Sorted by contact.
    requests: Vec<SubscriptionRequest>,
}

impl Roster {
    /// As loaded.
    pub fn new(data: UserData) -> Self {
        let UserData {
            roster_version,
            mut roster,
            mut requests,
            ..
        } = data;
        roster.sort_by(|a, b| a.jid.cmp(&b.jid));
        requests.sort_by(|a, b| a.from.cmp(&b.from));
        Self {
            version: roster_version,
            floor: roster_version,
            items: roster,
            removals: VecDeque::new(),
            requests,
        }
    }

    /// The version now.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The items, sorted by contact.
    pub fn items(&self) -> &[RosterItem] {
        &self.items
    }

    /// The unanswered requests of others, sorted by contact.
    pub fn requests(&self) -> &[SubscriptionRequest] {
        &self.requests
    }

    /// One item.
    pub fn item(&self, contact: &BareJid) -> Option<&RosterItem> {
        self.place(contact).ok().map(|at| &self.items[at])
    }

    /// The state of a contact, in the roster or not.
    pub fn state(&self, contact: &BareJid) -> State {
        let pending_in = self.request_place(contact).is_ok();
        self.item(contact).map_or_else(
            || State::new(store::Subscription::None, false, pending_in, false),
            |i| State::new(i.subscription, i.ask, pending_in, i.approved),
        )
    }

    /// Contacts that get the account's presence.
    pub fn audience(&self) -> impl Iterator<Item = &BareJid> {
        self.items
            .iter()
            .filter(|i| subscription_from(i.subscription))
            .map(|i| &i.jid)
    }

    /// Contacts whose presence the account gets.
    pub fn probed(&self) -> impl Iterator<Item = &BareJid> {
        self.items
            .iter()
            .filter(|i| subscription_to(i.subscription))
            .map(|i| &i.jid)
    }

    /// Contacts that have not answered the user's request.
    pub fn asked(&self) -> impl Iterator<Item = &BareJid> {
        self.items.iter().filter(|i| i.ask).map(|i| &i.jid)
    }

    /// Whether an item for this contact is there, or may be made. Ask before a [`subscription::outbound`] that pushes.
    pub fn has_room_for(&self, contact: &BareJid, items_max: usize) -> bool {
        self.items.len() < items_max || self.item(contact).is_some()
    }

    /// A client adds or updates an item (§2.3, §2.4): name and groups, nothing else.
    ///
    /// # Errors
    /// `resource-constraint` if the roster is full.
    pub fn put(
        &mut self,
        contact: &BareJid,
        name: Option<String>,
        groups: Vec<String>,
        items_max: usize,
        now_unix_ms: u64,
    ) -> Result<Change, StanzaError> {
        if !self.has_room_for(contact, items_max) {
            return Err(StanzaError::ResourceConstraint);
        }
        let version = self.next_version(now_unix_ms);
        let item = self.entry(contact);
        (item.name, item.groups, item.version) = (name, groups, version);
        Ok(Change {
            jid: contact.clone(),
            item: Some(item.clone()),
            version,
        })
    }

    /// A client removes an item (§2.5). The steps of the outcome are to be carried out; its push is the change.
    ///
    /// # Errors
    /// `item-not-found`.
    pub fn remove(
        &mut self,
        contact: &BareJid,
        now_unix_ms: u64,
    ) -> Result<(subscription::Outcome, Applied), StanzaError> {
        let at = self.place(contact).map_err(|_| StanzaError::ItemNotFound)?;
        let outcome = subscription::remove(self.state(contact));
        self.items.remove(at);
        let request = self.request_place(contact).ok().map(|at| {
            self.requests.remove(at);
            None
        });
        let version = self.next_version(now_unix_ms);
        if self.removals.len() == REMOVALS_MAX
            && let Some((forgotten, _)) = self.removals.pop_front()
        {
            self.floor = forgotten;
        }
        self.removals.push_back((version, contact.clone()));
        Ok((
            outcome,
            Applied {
                change: Some(Change {
                    jid: contact.clone(),
                    item: None,
                    version,
                }),
                request,
            },
        ))
    }

    /// Takes over the state that `subscription` has decided. `stanza` is the inbound request, if it is one: it is kept
    /// while the state is pending. Makes an item if the state shows and there is none.
    ///
    /// A request beyond [`REQUESTS_MAX`] changes nothing (it may still be delivered, and will be sent again).
    pub fn apply(
        &mut self,
        contact: &BareJid,
        state: State,
        stanza: Option<&Bytes>,
        now_unix_ms: u64,
    ) -> Applied {
        let mut applied = Applied::default();
        match (self.request_place(contact), state.pending_in()) {
            (Err(at), true) if self.requests.len() < REQUESTS_MAX => {
                let stanza = kept_request(contact, stanza);
                self.requests.insert(
                    at,
                    SubscriptionRequest {
                        from: contact.clone(),
                        stanza: stanza.clone(),
                    },
                );
                applied.request = Some(Some(stanza));
            }
            (Ok(at), false) => {
                self.requests.remove(at);
                applied.request = Some(None);
            }
            _ => {}
        }
        let before = self.item(contact);
        let shows = match before {
            Some(i) => !State::new(i.subscription, i.ask, false, i.approved).looks_like(state),
            None => !State::None.looks_like(state),
        };
        if shows {
            let version = self.next_version(now_unix_ms);
            let item = self.entry(contact);
            (item.subscription, item.ask, item.approved) =
                (state.subscription(), state.ask(), state.approved());
            item.version = version;
            applied.change = Some(Change {
                jid: contact.clone(),
                item: Some(item.clone()),
                version,
            });
        }
        applied
    }

    /// Answers a roster get (§2.2, §2.6.3). `ver` is the version the client has; `None`: it knows of no versions.
    pub fn fetch(&self, ver: Option<&str>, id: &str, to: &str) -> Fetched {
        let missed = ver
            .and_then(|v| v.parse().ok())
            .and_then(|known| self.since(known));
        if let Some(missed) = missed {
            let mut out = Vec::with_capacity(96);
            iq_into(&mut out, "result", id, to);
            out.truncate(out.len() - 1);
            out.extend_from_slice(b"/>");
            return Fetched {
                result: Bytes::from(out),
                missed,
            };
        }
        let mut out = Vec::with_capacity(128 + self.items.len() * 96);
        iq_into(&mut out, "result", id, to);
        query_into(&mut out, self.version);
        self.items.iter().for_each(|i| item_into(&mut out, i));
        out.extend_from_slice(b"</query></iq>");
        Fetched {
            result: Bytes::from(out),
            missed: Vec::new(),
        }
    }

    /// What has changed since a version, oldest first. `None`: not known, or so much that the whole roster is shorter.
    fn since(&self, known: u64) -> Option<Vec<Change>> {
        if known > self.version || known < self.floor {
            return None;
        }
        let put = self
            .items
            .iter()
            .filter(|i| i.version > known)
            .map(|i| Change {
                jid: i.jid.clone(),
                item: Some(i.clone()),
                version: i.version,
            });
        let removed = self
            .removals
            .iter()
            .filter(|(version, _)| *version > known)
            .map(|(version, jid)| Change {
                jid: jid.clone(),
                item: None,
                version: *version,
            });
        let mut missed: Vec<Change> = put.chain(removed).collect();
        if missed.len() > self.items.len() / 2 + 1 {
            return None;
        }
        missed.sort_by_key(|c| c.version);
        Some(missed)
    }

    fn next_version(&mut self, now_unix_ms: u64) -> u64 {
        self.version = now_unix_ms.max(self.version + 1);
        self.version
    }

    fn place(&self, contact: &BareJid) -> Result<usize, usize> {
        self.items.binary_search_by(|i| i.jid.cmp(contact))
    }

    fn request_place(&self, contact: &BareJid) -> Result<usize, usize> {
        self.requests.binary_search_by(|r| r.from.cmp(contact))
    }

    fn entry(&mut self, contact: &BareJid) -> &mut RosterItem {
        let at = self.place(contact).unwrap_or_else(|at| {
            let item = RosterItem {
                jid: contact.clone(),
                name: None,
                subscription: store::Subscription::None,
                ask: false,
                approved: false,
                groups: Vec::new(),
                version: 0,
            };
            self.items.insert(at, item);
            self.removals.retain(|(_, removed)| removed != contact);
            at
        });
        &mut self.items[at]
    }
}

fn subscription_from(s: store::Subscription) -> bool {
    matches!(s, store::Subscription::From | store::Subscription::Both)
}

fn subscription_to(s: store::Subscription) -> bool {
    matches!(s, store::Subscription::To | store::Subscription::Both)
}

/// The stanza as kept: without its content if that is long. It is a copy, so that it does not hold the buffer it came in.
fn kept_request(contact: &BareJid, stanza: Option<&Bytes>) -> Bytes {
    match stanza {
        Some(stanza) if stanza.len() <= REQUEST_BYTES_MAX => Bytes::copy_from_slice(stanza),
        _ => {
            let mut out = Vec::with_capacity(64);
            out.extend_from_slice(b"<presence type='subscribe'");
            attr_into(&mut out, " from", contact.as_str());
            out.extend_from_slice(b"/>");
            Bytes::from(out)
        }
    }
}

fn attr_into(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    escape_into(out, value);
    out.push(b'\'');
}

fn iq_into(out: &mut Vec<u8>, iq_type: &str, id: &str, to: &str) {
    attr_into(out, "<iq type", iq_type);
    attr_into(out, " id", id);
    attr_into(out, " to", to);
    out.push(b'>');
}

fn query_into(out: &mut Vec<u8>, version: u64) {
    attr_into(
        out,
        "<query xmlns='jabber:iq:roster' ver",
        &version.to_string(),
    );
    out.push(b'>');
}

/// `<item/>` as §2.1.2 has it; a request of the contact does not show.
fn item_into(out: &mut Vec<u8>, item: &RosterItem) {
    attr_into(out, "<item jid", item.jid.as_str());
    if let Some(name) = &item.name {
        attr_into(out, " name", name);
    }
    attr_into(
        out,
        " subscription",
        match item.subscription {
            store::Subscription::None => "none",
            store::Subscription::To => "to",
            store::Subscription::From => "from",
            store::Subscription::Both => "both",
        },
    );
    if item.ask {
        out.extend_from_slice(b" ask='subscribe'");
    }
    if item.approved {
        out.extend_from_slice(b" approved='true'");
    }
    if item.groups.is_empty() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for group in &item.groups {
        out.extend_from_slice(b"<group>");
        escape_into(out, group);
        out.extend_from_slice(b"</group>");
    }
    out.extend_from_slice(b"</item>");
}

#[cfg(test)]
mod tests;
