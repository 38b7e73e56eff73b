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
//!
//! What an account sees is these items and the contacts of its groups ([`crate::groups`]), merged when they are sent
//! ([`Seen`]); nothing of groups is kept here. A version has both parts: the number, and a fingerprint of what groups add.

use crate::groups::Shown;
use crate::subscription::{self, State};
use bytes::Bytes;
use std::cmp::Ordering;
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

/// How large a roster may become by what its own clients ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Items.
    pub items_max: usize,
    /// Bytes of all items as they are sent.
    pub bytes_max: usize,
}

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

    /// The roster push for one interested resource (§2.1.6). No `from`: it is from the account. `shown`: what groups add.
    pub fn push(&self, id: &str, to: &str, part: GroupPart, shown: Option<&Shown>) -> Bytes {
        let seen = Seen {
            item: self.item.as_ref(),
            shown,
        };
        push(id, to, self.version, part, &self.jid, seen)
    }
}

/// What groups have to do with a roster version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupPart {
    /// There are none.
    None,
    /// The client has, with this, all that they add.
    Whole(u64),
    /// The client has not been told yet of all that has changed: it keeps a version that never was one.
    Partial,
}

impl GroupPart {
    /// Of the fingerprint.
    pub fn of(fingerprint: Option<u64>) -> Self {
        fingerprint.map_or(Self::None, Self::Whole)
    }

    /// The version as clients see it.
    fn version(self, version: u64) -> String {
        match self {
            Self::None => version.to_string(),
            Self::Whole(fingerprint) => format!("{version}-{fingerprint:016x}"),
            Self::Partial => format!("{version}-"),
        }
    }

    /// Reads a client's version. `None`: not one of ours, or one it must not go on from.
    fn parse(ver: &str) -> Option<(u64, Self)> {
        match ver.split_once('-') {
            None => Some((ver.parse().ok()?, Self::None)),
            Some((version, fingerprint)) => Some((
                version.parse().ok()?,
                Self::Whole(u64::from_str_radix(fingerprint, 16).ok()?),
            )),
        }
    }
}

/// A contact as the account sees it: its own item, and what groups add.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen<'a> {
    /// In the account's own roster.
    pub item: Option<&'a RosterItem>,
    /// By groups.
    pub shown: Option<&'a Shown>,
}

impl Seen<'_> {
    /// `<item/>` as §2.1.2 has it; a request of the contact does not show.
    ///
    /// Its name is the account's own for it, else the directory's. Groups by which presence flows are a subscription both
    /// ways, with nothing to ask for or to approve.
    fn into(self, out: &mut Vec<u8>, contact: &BareJid) {
        attr_into(out, "<item jid", contact.as_str());
        if self.item.is_none() && self.shown.is_none() {
            out.extend_from_slice(b" subscription='remove'/>");
            return;
        }
        let own = self.item.and_then(|i| i.name.as_deref());
        if let Some(name) = own.or(self.shown.and_then(|s| s.name.as_deref())) {
            attr_into(out, " name", name);
        }
        let by_group = self.shown.is_some_and(|s| s.presence);
        let subscription = match self
            .item
            .map_or(store::Subscription::None, |i| i.subscription)
        {
            _ if by_group => "both",
            store::Subscription::None => "none",
            store::Subscription::To => "to",
            store::Subscription::From => "from",
            store::Subscription::Both => "both",
        };
        attr_into(out, " subscription", subscription);
        if self.item.is_some_and(|i| i.ask && !by_group) {
            out.extend_from_slice(b" ask='subscribe'");
        }
        if self.item.is_some_and(|i| i.approved && !by_group) {
            out.extend_from_slice(b" approved='true'");
        }
        let own = self.item.map_or(&[][..], |i| &i.groups);
        let titles = self.shown.map_or(&[][..], |s| &s.titles);
        let titles = titles.iter().map(|t| &**t);
        let mut groups = own
            .iter()
            .map(String::as_str)
            .chain(titles.filter(|t| !own.iter().any(|o| o == t)))
            .peekable();
        if groups.peek().is_none() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for group in groups {
            out.extend_from_slice(b"<group>");
            escape_into(out, group);
            out.extend_from_slice(b"</group>");
        }
        out.extend_from_slice(b"</item>");
    }
}

/// A roster push of one contact as it is seen now; of one that is not there any more, its removal.
pub fn push(
    id: &str,
    to: &str,
    version: u64,
    part: GroupPart,
    contact: &BareJid,
    seen: Seen<'_>,
) -> Bytes {
    let mut out = Vec::with_capacity(256);
    iq_into(&mut out, "set", id, to);
    query_into(&mut out, &part.version(version));
    seen.into(&mut out, contact);
    out.extend_from_slice(b"</query></iq>");
    Bytes::from(out)
}

/// What of a roster set is the account's own: titles of groups are added when the item is sent, and so is the directory's
/// name. A client sends back all it has been shown, and what groups say today must not stay when they say something else.
pub fn own_part(
    shown: &Shown,
    name: Option<String>,
    mut groups: Vec<String>,
) -> (Option<String>, Vec<String>) {
    groups.retain(|g| !shown.titles.iter().any(|t| **t == **g));
    (name.filter(|n| shown.name.as_deref() != Some(n)), groups)
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
    /// Bytes of all of them as they are sent.
    bytes: usize,
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
            bytes: roster.iter().map(item_bytes).sum(),
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

    /// The account gets the contact's presence.
    pub fn sees(&self, contact: &BareJid) -> bool {
        self.item(contact)
            .is_some_and(|i| subscription_to(i.subscription))
    }

    /// Contacts that have not answered the user's request.
    pub fn asked(&self) -> impl Iterator<Item = &BareJid> {
        self.items.iter().filter(|i| i.ask).map(|i| &i.jid)
    }

    /// Whether an item for this contact is there, or may be made. Ask before a [`subscription::outbound`] that pushes.
    pub fn has_room_for(&self, contact: &BareJid, limits: Limits) -> bool {
        self.item(contact).is_some()
            || self.items.len() < limits.items_max
                && self.bytes + item_bytes(&new_item(contact)) <= limits.bytes_max
    }

    /// A client adds or updates an item (§2.3, §2.4): name and groups, nothing else.
    ///
    /// # Errors
    /// `resource-constraint` if the roster is full. An item may become shorter also in one that is too long by now.
    pub fn put(
        &mut self,
        contact: &BareJid,
        name: Option<String>,
        groups: Vec<String>,
        limits: Limits,
        now_unix_ms: u64,
    ) -> Result<Change, StanzaError> {
        let before = self.item(contact);
        let mut item = before.cloned().unwrap_or_else(|| new_item(contact));
        (item.name, item.groups) = (name, groups);
        let (old, new) = (before.map_or(0, item_bytes), item_bytes(&item));
        let bytes = self.bytes - old + new;
        if !self.has_room_for(contact, limits) || new > old && bytes > limits.bytes_max {
            return Err(StanzaError::ResourceConstraint);
        }
        let version = self.next_version(now_unix_ms);
        item.version = version;
        *self.entry(contact) = item.clone();
        self.bytes = bytes;
        Ok(Change {
            jid: contact.clone(),
            item: Some(item),
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
        self.bytes -= item_bytes(&self.items.remove(at));
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
            let old = before.map_or(0, item_bytes);
            let version = self.next_version(now_unix_ms);
            let item = self.entry(contact);
            (item.subscription, item.ask, item.approved) =
                (state.subscription(), state.ask(), state.approved());
            item.version = version;
            let item = item.clone();
            self.bytes = self.bytes - old + item_bytes(&item);
            applied.change = Some(Change {
                jid: contact.clone(),
                item: Some(item),
                version,
            });
        }
        applied
    }

    /// Answers a roster get (§2.2, §2.6.3). `ver` is the version the client has; `None`: it knows of no versions. `contacts`
    /// is what groups add, sorted, and `part` says so in the version.
    pub fn fetch<'a>(
        &self,
        ver: Option<&str>,
        id: &str,
        to: &str,
        part: GroupPart,
        contacts: impl FnOnce() -> Vec<(&'a BareJid, Shown)>,
    ) -> Fetched {
        let missed = ver
            .and_then(GroupPart::parse)
            .filter(|(_, known)| *known == part)
            .and_then(|(known, _)| self.since(known));
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
        let contacts = contacts();
        let mut out = Vec::with_capacity(128 + (self.items.len() + contacts.len()) * 96);
        iq_into(&mut out, "result", id, to);
        query_into(&mut out, &part.version(self.version));
        let (mut items, mut contacts) = (self.items.iter().peekable(), contacts.iter().peekable());
        loop {
            // Two sorted lists become one.
            let order = match (items.peek(), contacts.peek()) {
                (Some(item), Some((contact, _))) => item.jid.cmp(contact),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => break,
            };
            let item = order.is_le().then(|| items.next()).flatten();
            let shown = order.is_ge().then(|| contacts.next()).flatten();
            let contact = item.map(|i| &i.jid).or(shown.map(|(contact, _)| *contact));
            let shown = shown.map(|(_, shown)| shown);
            if let Some(contact) = contact {
                Seen { item, shown }.into(&mut out, contact);
            }
        }
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
            self.items.insert(at, new_item(contact));
            self.removals.retain(|(_, removed)| removed != contact);
            at
        });
        &mut self.items[at]
    }
}

fn new_item(contact: &BareJid) -> RosterItem {
    RosterItem {
        jid: contact.clone(),
        name: None,
        subscription: store::Subscription::None,
        ask: false,
        approved: false,
        groups: Vec::new(),
        version: 0,
    }
}

/// Bytes of an item as it is sent, without what groups of the directory add.
fn item_bytes(item: &RosterItem) -> usize {
    let mut out = Vec::with_capacity(128);
    let seen = Seen {
        item: Some(item),
        shown: None,
    };
    seen.into(&mut out, &item.jid);
    out.len()
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

fn query_into(out: &mut Vec<u8>, version: &str) {
    attr_into(out, "<query xmlns='jabber:iq:roster' ver", version);
    out.push(b'>');
}

#[cfg(test)]
mod tests;
