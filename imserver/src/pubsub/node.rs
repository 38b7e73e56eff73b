//! A node in memory: its configuration and its members, as the store keeps them, and what somebody may do with it.

use super::Refusal;
use super::config::{AccessModel, Config, PublishModel};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};

/// What somebody is to a node (§4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Affiliation {
    /// Nothing.
    #[default]
    None,
    /// May not do anything.
    Outcast,
    /// May read what only members may.
    Member,
    /// May publish.
    Publisher,
    /// May do everything.
    Owner,
}

impl Affiliation {
    const ALL: [Self; 5] = [
        Self::None,
        Self::Outcast,
        Self::Member,
        Self::Publisher,
        Self::Owner,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Outcast => "outcast",
            Self::Member => "member",
            Self::Publisher => "publisher",
            Self::Owner => "owner",
        }
    }

    /// From what is written.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.as_str() == word)
    }
}

/// How somebody is subscribed (§4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Subscription {
    /// Not.
    #[default]
    None,
    /// Has asked; an owner has to say.
    Pending,
    /// Is.
    Subscribed,
}

impl Subscription {
    const ALL: [Self; 3] = [Self::None, Self::Pending, Self::Subscribed];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Subscribed => "subscribed",
        }
    }

    /// From what is written.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// What an address is to a node: an affiliation is a bare JID's, a subscription that of whatever address was subscribed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Member {
    /// Of a bare JID.
    pub affiliation: Affiliation,
    /// Of this address.
    pub subscription: Subscription,
}

impl Member {
    fn encode(self) -> Option<Bytes> {
        (self != Self::default())
            .then(|| Bytes::from(vec![self.affiliation as u8, self.subscription as u8]))
    }

    fn decode(state: &[u8]) -> Option<Self> {
        let [affiliation, subscription] = state else {
            return None;
        };
        Some(Self {
            affiliation: *Affiliation::ALL.get(usize::from(*affiliation))?,
            subscription: *Subscription::ALL.get(usize::from(*subscription))?,
        })
    }
}

/// What is stored of a node beside its members and items.
#[derive(Serialize, Deserialize)]
struct Meta {
    created_ms: u64,
    config: Config,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Node {
    /// Its configuration.
    pub config: Config,
    /// When it was made.
    pub created_ms: u64,
    /// By address. The owner of the service is not among them: it owns every node.
    pub members: BTreeMap<Jid, Member>,
}

/// All nodes of an owner.
pub type Nodes = BTreeMap<String, Node>;

impl Node {
    /// From the store. What cannot be read there is a node as if newly made, and nobody's but the owner's: nothing of it is shown.
    pub fn load(stored: &store::PubsubNode) -> Self {
        let meta: Option<Meta> = serde_json::from_slice(&stored.meta).ok();
        let (config, created_ms) = meta.map_or_else(
            || {
                let config = Config {
                    access: AccessModel::Whitelist,
                    ..Config::default()
                };
                (config, 0)
            },
            |meta| (meta.config, meta.created_ms),
        );
        let members = stored
            .members
            .iter()
            .filter_map(|(jid, state)| Some((Jid::parse(jid).ok()?, Member::decode(state)?)));
        Self {
            config,
            created_ms,
            members: members.collect(),
        }
    }

    /// For the store.
    pub fn meta(&self) -> Bytes {
        let meta = Meta {
            created_ms: self.created_ms,
            config: self.config.clone(),
        };
        let json = serde_json::to_vec(&meta).expect("strings, numbers and words have a JSON");
        Bytes::from(json)
    }

    /// Sets what an address is, and says what the store is told.
    pub fn set_member(&mut self, name: &str, jid: &Jid, member: Member) -> store::PubsubChange {
        if member == Member::default() {
            self.members.remove(jid);
        } else {
            self.members.insert(jid.clone(), member);
        }
        store::PubsubChange::Member {
            node: name.to_owned(),
            jid: jid.as_str().to_owned(),
            state: member.encode(),
        }
    }

    /// What an address is to it.
    pub fn member(&self, jid: &Jid) -> Member {
        self.members.get(jid).copied().unwrap_or_default()
    }

    /// What a bare JID is to it.
    pub fn affiliation(&self, owner: &BareJid, jid: &BareJid) -> Affiliation {
        if jid == owner {
            return Affiliation::Owner;
        }
        self.member(&Jid::Bare(jid.clone())).affiliation
    }

    /// Whether the bare JID, or any of its resources, is subscribed.
    pub fn is_subscribed(&self, jid: &BareJid) -> bool {
        let mut own = self
            .members
            .iter()
            .filter(|(m, _)| m.bare_str() == jid.as_str());
        own.any(|(_, member)| member.subscription == Subscription::Subscribed)
    }

    /// Whether somebody may read it, and be told of it (§4.5). An error of XEP-0060 §6.1.3 and §6.5.9 if not.
    pub fn check_read(&self, owner: &BareJid, who: &Who<'_>) -> Result<(), Refusal> {
        match self.affiliation(owner, &who.jid.bare()) {
            Affiliation::Outcast => return Err(Refusal::new(StanzaError::Forbidden)),
            Affiliation::None => {}
            _ => return Ok(()),
        }
        let refused = match self.config.access {
            AccessModel::Open => None,
            AccessModel::Presence => (!who.presence)
                .then_some((StanzaError::NotAuthorized, "presence-subscription-required")),
            AccessModel::Roster => {
                let in_group = |g: &String| self.config.roster_groups.contains(g);
                (!who.groups.iter().any(in_group))
                    .then_some((StanzaError::NotAuthorized, "not-in-roster-group"))
            }
            AccessModel::Whitelist => Some((StanzaError::NotAllowed, "closed-node")),
            AccessModel::Authorize => (!self.is_subscribed(&who.jid.bare()))
                .then_some((StanzaError::NotAuthorized, "not-subscribed")),
        };
        match refused {
            None => Ok(()),
            Some((condition, pubsub)) => Err(Refusal::because(condition, pubsub)),
        }
    }

    /// Whether somebody may publish (§7.1.3.1).
    pub fn may_publish(&self, owner: &BareJid, who: &Who<'_>) -> bool {
        let bare = who.jid.bare();
        match self.affiliation(owner, &bare) {
            Affiliation::Owner | Affiliation::Publisher => true,
            Affiliation::Outcast => false,
            Affiliation::None | Affiliation::Member => match self.config.publish {
                PublishModel::Publishers => false,
                PublishModel::Subscribers => self.is_subscribed(&bare),
                PublishModel::Open => self.check_read(owner, who).is_ok(),
            },
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Their address, stamped by us.
    pub jid: &'a Jid,
    /// They get the owner's presence.
    pub presence: bool,
    /// Groups of the owner's roster that they are in.
    pub groups: &'a [String],
}
