//! Publish and subscribe, XEP-0060: what nodes are, who may do what with them, and who is told.
//!
//! In: nodes of one owner, who asks, what is asked. Out: a [`Plan`]: an answer, a question to the store, or changes with the notices
//! that follow them. Owns: what a node's configuration means.
//! Never: knows of shards, sessions or rosters; reads or writes the store; keeps an item.
//!
//! ```text
//!   request (XML) ─► ask::parse ─► Ask ─► decide ─► Plan::Reply
//!                                            │      Plan::Read ─► store ─► answer::items
//!                                            │      Plan::Change ─► store, durable ─► reply, then notices (event)
//!                                  Nodes ◄───┘ (in memory they are changed at once; if the store refuses, they are read again)
//! ```
//!
//! The owner of nodes is whoever has a bare JID: an account (XEP-0163: `shard::pubsub` asks in its name), later a service or a news
//! channel, which has its own defaults, limits and ways to reach subscribers, and everything here in common.

pub mod answer;
pub mod approval;
pub mod ask;
pub mod avatar;
pub mod bookmarks;
pub mod config;
pub mod decide;
pub mod event;
pub mod last;
pub mod node;
#[cfg(test)]
mod tests;

use xmpp::element::Element;
use xmpp::error::{ErrorReply, ErrorType, StanzaError, stanza_error_with};

/// Longest name of a node and longest id of an item, bytes: as long as a part of an address, which is what they often are.
pub const ID_BYTES_MAX: usize = 1_023;

/// Affiliations and subscriptions of one node: all of them are in memory with it, and each is a recipient of every notice. (Contacts
/// who hear of a node by their presence are no subscribers in this sense.)
pub const MEMBERS_MAX: usize = 1_000;

/// Of these, subscribers of others' accord: there is room left for affiliations, with which an owner can put an end to it.
pub const SUBSCRIBERS_MAX: usize = 900;

/// Subscriptions of one account to one node: as a whole and of some resources.
pub const SUBSCRIPTIONS_PER_ACCOUNT_MAX: usize = 5;

/// Members of all nodes of one account: they are in memory with its nodes, some hundred bytes each.
pub const MEMBERS_OF_ACCOUNT_MAX: usize = 5_000;

/// Affiliations or subscriptions in one request of an owner.
pub const MEMBER_CHANGES_MAX: usize = 100;

/// Items that one question names by their ids.
pub const IDS_MAX: usize = 500;

/// Groups of a roster that one node is open to.
pub const ROSTER_GROUPS_MAX: usize = 64;

/// Longest title, description or type of a node, bytes.
pub const TEXT_BYTES_MAX: usize = 1_023;

/// What one owner may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Nodes.
    pub nodes_max: usize,
    /// Items of one node, whatever its configuration says.
    pub items_max: u64,
    /// Bytes of an item's payload.
    pub item_bytes_max: usize,
    /// Bytes of all items.
    pub bytes_max: u64,
    /// Bytes of items in one answer, or one item.
    pub page_bytes_max: usize,
}

/// For whom the last item of a node is read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LastFor {
    /// The node.
    pub node: String,
    /// Who has subscribed.
    pub to: xmpp::jid::Jid,
    /// The read's number.
    pub read: u64,
}

/// A request that is refused, with what XEP-0060 says of why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The stanza error.
    pub condition: StanzaError,
    /// Of another type than the condition usually has.
    pub error_type: Option<ErrorType>,
    /// The condition of `pubsub#errors`.
    pub pubsub: Option<&'static str>,
    /// Which feature is not there, beside `unsupported`.
    pub feature: Option<&'static str>,
    /// For people.
    pub text: Option<String>,
}

impl Refusal {
    /// Without more to say.
    pub fn new(condition: StanzaError) -> Self {
        Self {
            condition,
            error_type: None,
            pubsub: None,
            feature: None,
            text: None,
        }
    }

    /// With a condition of `pubsub#errors`.
    pub fn because(condition: StanzaError, pubsub: &'static str) -> Self {
        Self {
            pubsub: Some(pubsub),
            ..Self::new(condition)
        }
    }

    /// With words.
    pub fn saying(condition: StanzaError, text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::new(condition)
        }
    }

    /// Something of XEP-0060 that is not there, here or for this node.
    pub fn unsupported(feature: &'static str) -> Self {
        Self {
            feature: Some(feature),
            ..Self::because(StanzaError::FeatureNotImplemented, "unsupported")
        }
    }

    /// As another type of error.
    pub fn of_type(self, error_type: ErrorType) -> Self {
        Self {
            error_type: Some(error_type),
            ..self
        }
    }

    /// The error that answers the request. `from`: whom it was for.
    pub fn answer(&self, request: &Element, from: Option<&str>, to: &str) -> Option<bytes::Bytes> {
        let reply = ErrorReply {
            from,
            to: Some(to),
            error_type: self.error_type,
            text: self.text.as_deref(),
            application: self.pubsub.map(|name| (name, xmpp::ns::PUBSUB_ERRORS)),
            application_attr: self.feature.map(|feature| ("feature", feature)),
            ..ErrorReply::default()
        };
        stanza_error_with(request, self.condition, reply)
    }
}
