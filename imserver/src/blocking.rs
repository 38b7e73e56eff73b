//! XEP-0191: whom an account has blocked.
//!
//! In: a list, an address. Out: whether it is blocked; what must be stored; the list, and changes of it, as elements.
//! Owns: nothing.
//! Never: blocks the account itself, or the server it is at: whoever blocks a whole domain still gets answers from its own.
//!
//! §3: an entry is an address in one of four forms. `user@domain/resource` and `domain/resource` block that one resource,
//! `user@domain` all of a user, `domain` the domain and everybody in it.

use std::sync::Arc;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// Bytes that the addresses of one list may have together: with a thousand entries, the default, 128 each. All of it is in
/// memory while the account is, and in one answer.
pub const BYTES_MAX: usize = 128 * 1024;

/// The entries, sorted; `None` if there are none, as for nearly everybody. Shared: presence that goes to other shards takes it with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocklist(Option<Arc<Vec<Jid>>>);

impl Blocklist {
    /// From entries in any order.
    pub fn new(mut entries: Vec<Jid>) -> Self {
        entries.sort();
        entries.dedup();
        Self((!entries.is_empty()).then(|| Arc::new(entries)))
    }

    /// Nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// In order.
    pub fn entries(&self) -> &[Jid] {
        self.0.as_ref().map_or(&[], |entries| entries)
    }

    fn has(&self, entry: &Jid) -> bool {
        self.entries().binary_search(entry).is_ok()
    }

    /// Whether it blocks an address, for the account whose list it is.
    pub fn blocks(&self, account: &BareJid, other: &Jid) -> bool {
        if self.is_empty() || other.domainpart() == account.domainpart() && is_own(account, other) {
            return false;
        }
        self.has(other)
            || other.resourcepart().is_some() && self.has(&Jid::Bare(other.bare()))
            || other.localpart().is_some() && self.has(&Jid::Bare(other.bare().domain()))
    }

    /// Some resource of this account is blocked, or all of it: whether its presence may have to be kept from somebody there.
    pub fn touches(&self, account: &BareJid, other: &BareJid) -> bool {
        self.blocks(account, &Jid::Bare(other.clone()))
            || self
                .entries()
                .iter()
                .any(|e| e.bare_str() == other.as_str())
    }

    /// The same with more entries.
    pub fn with(&self, more: &[Jid]) -> Self {
        Self::new(self.entries().iter().chain(more).cloned().collect())
    }

    /// The same without some.
    pub fn without(&self, less: &[Jid]) -> Self {
        let left = self.entries().iter().filter(|e| !less.contains(e));
        Self::new(left.cloned().collect())
    }

    /// Whether it is larger than a list may be.
    pub fn is_too_long(&self, items_max: usize) -> bool {
        let bytes: usize = self.entries().iter().map(|e| e.as_str().len()).sum();
        self.entries().len() > items_max || bytes > BYTES_MAX
    }

    /// `<blocklist/>` (§3.2).
    pub fn to_node(&self) -> Node {
        element("blocklist", self.entries())
    }
}

/// The account itself, any of its resources, or the server it is at.
fn is_own(account: &BareJid, other: &Jid) -> bool {
    other.localpart().is_none() || other.bare_str() == account.as_str()
}

/// An element with an item for each entry: the list, or a push of a change (§3.3, §3.4).
pub fn element(name: &'static str, entries: &[Jid]) -> Node {
    let item = |entry: &Jid| Node::new("item", ns::BLOCKING).with_attr("jid", entry.as_str());
    Node::new(name, ns::BLOCKING).with_children(entries.iter().map(item))
}

/// What somebody says of an address they block (XEP-0377).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Whom it is about.
    pub about: Jid,
    /// `spam`, `abuse`, or what else the client calls it.
    pub reason: String,
    /// In their own words.
    pub text: Option<String>,
    /// Ids of messages that it is about, as their archive gave them.
    pub messages: Vec<String>,
}

impl Report {
    /// One line for a log, and for people.
    pub fn to_line(&self, by: &BareJid) -> String {
        let mut line = format!(
            "{by} has blocked {} and reports {}",
            self.about, self.reason
        );
        if let Some(text) = &self.text {
            line.push_str(": ");
            line.push_str(text);
        }
        if !self.messages.is_empty() {
            line.push_str(" (messages ");
            line.push_str(&self.messages.join(", "));
            line.push(')');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    fn list(entries: &[&str]) -> Blocklist {
        Blocklist::new(entries.iter().map(|e| jid(e)).collect())
    }

    #[test]
    fn an_entry_blocks_what_its_form_says() {
        let account = BareJid::parse("romeo@montague.lit").expect("an address");
        let rows: &[(&str, &[&str], &[&str])] = &[
            (
                "juliet@capulet.lit/balcony",
                &["juliet@capulet.lit/balcony"],
                &[
                    "juliet@capulet.lit",
                    "juliet@capulet.lit/hall",
                    "capulet.lit",
                ],
            ),
            (
                "juliet@capulet.lit",
                &["juliet@capulet.lit", "juliet@capulet.lit/hall"],
                &["nurse@capulet.lit", "capulet.lit", "capulet.lit/hall"],
            ),
            (
                "capulet.lit/hall",
                &["capulet.lit/hall"],
                &[
                    "capulet.lit",
                    "capulet.lit/cellar",
                    "juliet@capulet.lit/hall",
                ],
            ),
            (
                "capulet.lit",
                &[
                    "capulet.lit",
                    "capulet.lit/hall",
                    "juliet@capulet.lit",
                    "juliet@capulet.lit/balcony",
                ],
                &["juliet@rooms.capulet.lit", "lit"],
            ),
            // Its own domain: everybody there, but not the server, and not itself.
            (
                "montague.lit",
                &["benvolio@montague.lit", "benvolio@montague.lit/x"],
                &[
                    "montague.lit",
                    "montague.lit/admin",
                    "romeo@montague.lit",
                    "romeo@montague.lit/orchard",
                ],
            ),
            (
                "romeo@montague.lit/orchard",
                &[],
                &["romeo@montague.lit/orchard"],
            ),
        ];
        for (entry, blocked, free) in rows {
            let list = list(&[entry, "zz.example"]);
            for other in *blocked {
                assert!(list.blocks(&account, &jid(other)), "{entry} blocks {other}");
            }
            for other in *free {
                assert!(
                    !list.blocks(&account, &jid(other)),
                    "{entry} leaves {other}"
                );
            }
        }
        assert!(!list(&[]).blocks(&account, &jid("juliet@capulet.lit")));
    }

    #[test]
    fn a_blocked_resource_touches_its_account() {
        let account = BareJid::parse("romeo@montague.lit").expect("an address");
        let juliet = BareJid::parse("juliet@capulet.lit").expect("an address");
        for (entry, touches) in [
            ("juliet@capulet.lit/balcony", true),
            ("juliet@capulet.lit", true),
            ("capulet.lit", true),
            ("capulet.lit/x", false),
            ("nurse@capulet.lit", false),
        ] {
            assert_eq!(
                list(&[entry]).touches(&account, &juliet),
                touches,
                "{entry}"
            );
        }
    }

    #[test]
    fn a_list_grows_shrinks_and_is_bounded() {
        let both = list(&["b@x"]).with(&[jid("a@x"), jid("b@x")]);
        assert_eq!(both, list(&["a@x", "b@x"]));
        assert_eq!(both.without(&[jid("b@x"), jid("c@x")]), list(&["a@x"]));
        assert!(both.is_too_long(1) && !both.is_too_long(2));
        let long = format!("{}@x", "a".repeat(1_000));
        let many: Vec<Jid> = (0..200).map(|n| jid(&format!("{n}{long}"))).collect();
        assert!(Blocklist::new(many).is_too_long(1_000));
        let xml = both.to_node().to_bytes(ns::CLIENT);
        assert_eq!(
            String::from_utf8_lossy(&xml),
            "<blocklist xmlns='urn:xmpp:blocking'><item jid='a@x'/><item jid='b@x'/></blocklist>"
        );
    }
}
