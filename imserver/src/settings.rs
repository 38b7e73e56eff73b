//! What the core must know of the configuration, checked and typed. One immutable object that every shard holds;
//! a reload gives each a new one.

use proto::limits::INPUT_WINDOW_MAX;
use std::sync::Arc;
use std::time::Duration;
use xmpp::component::ComponentSecret;
use xmpp::jid::{BareJid, Jid};
use xmpp::negotiation::{Mechanisms, Offer};
use xmpp::scram::{FakeKeys, ScramHash};

/// What happens when a resource is bound that another session of the account has (RFC 6120 §7.7.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// The older session is ended with `<conflict/>`.
    Replace,
    /// The newer one is refused with a `<conflict/>` stanza error.
    Refuse,
    /// The newer one gets another resource, of the server's making.
    Rename,
}

/// Settings of the core. Limits that an operator may want to turn have their key in `imserver.toml`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Domains served, prepared (nameprep).
    pub domains: Vec<String>,
    /// What is offered before log-in.
    pub offer: Arc<Offer>,
    /// Which name of a client's certificate says who it is.
    pub certificate_mapping: crate::certificate::CertificateMapping,
    /// Who may log in.
    pub policy: Arc<crate::policy::Policy>,
    /// Which directories the domains have whose groups the policy may speak of.
    pub swept: Arc<directory::population::Swept>,
    /// Connections that have not logged in, of all muxes together.
    pub conns_before_login_max: usize,
    /// Deepest nesting of an element.
    pub element_depth_max: usize,
    /// Largest element before log-in, bytes.
    pub element_bytes_max_before_login: usize,
    /// All input of a connection before log-in, bytes.
    pub bytes_before_login_max: u64,
    /// Largest element after log-in, bytes.
    pub element_bytes_max: usize,
    /// Time to log in.
    pub login_timeout: Duration,
    /// From the first byte of an element after log-in to its last.
    pub element_timeout: Duration,
    /// Bytes sent to a client and not yet acknowledged by its TCP, past which presence is merged, stored messages stay
    /// pending, other messages are dropped, IQ requests bounced, and the answer to one ends the connection.
    pub output_window_bytes: usize,
    /// Stored stanzas sent to one session and not acknowledged, past which more stay pending.
    pub unacknowledged_max: usize,
    /// Sessions one account may have.
    pub sessions_per_account_max: usize,
    /// Pending messages one account may have.
    pub pending_max: u64,
    /// Bytes of pending messages one account may have.
    pub pending_bytes_max: u64,
    /// Entities a session may send directed presence to and be remembered for.
    pub directed_presence_max: usize,
    /// Roster items one account may have.
    pub roster_items_max: usize,
    /// Bytes that the items of a roster may have, as they are sent.
    pub roster_bytes_max: usize,
    /// Members of a group up to which its members hear of each other's presence.
    pub group_presence_max: usize,
    /// Domains in which a request for a subscription is approved by the server.
    pub autosubscribe: Vec<String>,
    /// Stanzas that may wait for one entity that is being loaded.
    pub loading_queue_max: usize,
    /// Bytes of stanzas that may wait for one entity that is being loaded.
    pub loading_queue_bytes_max: usize,
    /// What happens on a resource conflict.
    pub conflict: Conflict,
    /// How long a token that a client logs in with is good.
    pub token: Duration,
    /// Clients of an account that may have one.
    pub token_clients_max: usize,
    /// Domains whose people's messages are kept in their archives.
    pub archive_domains: Vec<ArchiveDomain>,
    /// Messages in a page of an archive.
    pub archive_page_max: usize,
    /// Addresses that somebody may list of whom to keep messages or not.
    pub archive_prefs_jids_max: usize,
    /// A session that has been silent for so long is asked whether it lives.
    pub ping_after: Duration,
    /// A session that was asked and says nothing for so long is ended.
    pub ping_timeout: Duration,
    /// How long sessions of a lost mux are kept.
    pub mux_lost: Duration,
    /// How long a session whose connection is lost waits for its client to resume it.
    pub resume: Duration,
    /// Where clients should connect to resume a session: host, or host:port.
    pub resume_location: Option<String>,
    /// Longest time an element may be held unsettled before it is answered with a `wait` error.
    pub settle_max: Duration,
    /// vCard size, bytes.
    pub vcard_bytes_max: usize,
    /// Size of one element of the private XML storage, bytes.
    pub private_element_bytes_max: usize,
    /// What one account may have there, bytes.
    pub private_bytes_max: u64,
    /// How long a message may be unacknowledged before clients that are away are told of it, if others are there.
    pub push_after: Duration,
    /// Push services are told who has sent a message.
    pub push_sender: bool,
    /// And its text.
    pub push_body: bool,
    /// Push services that one account may have.
    pub push_services_max: usize,
    /// Messages that wait for an inactive client (XEP-0352); 0: neither they nor presence do.
    pub inactive_held_max: usize,
    /// Addresses that one account may block.
    pub blocklist_items_max: usize,
    /// Accounts that are told what people of a domain report.
    pub reports_to: std::collections::HashMap<String, Vec<BareJid>>,
    /// Publish-subscribe nodes of one account.
    pub pubsub_nodes_max: usize,
    /// Items of one node.
    pub pubsub_items_max: u64,
    /// Size of one item, bytes.
    pub pubsub_item_bytes_max: usize,
    /// All items of one account, bytes.
    pub pubsub_bytes_max: u64,
    /// How those who run the domains are reached.
    pub contacts: Contacts,
    /// Services outside XMPP that clients are told of.
    pub external_services: Vec<ExternalService>,
    /// Failed log-ins that all shards together log in a minute.
    pub login_failures_logged_max: usize,
    /// What may be asked of the directories.
    pub people: People,
    /// Components that may connect.
    pub components: Components,
}

/// Components (XEP-0114).
#[derive(Clone, Debug, Default)]
pub struct Components {
    /// What they are.
    pub all: Vec<Component>,
    /// How they prove it.
    pub secrets: Arc<[ComponentSecret]>,
    /// What service discovery shows of them.
    pub services: Vec<crate::iq::Service>,
}

/// A component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Component {
    /// Its domain, prepared.
    pub domain: String,
    /// Its name for people.
    pub label: Option<String>,
    /// Its secret.
    pub secret: crate::event::Secret,
    /// What it may do in the name of our people.
    pub privileges: crate::privileges::Privileges,
}

impl Components {
    /// Of these.
    pub fn new(all: Vec<Component>) -> Self {
        let secrets = all.iter().map(|c| ComponentSecret {
            domain: c.domain.clone(),
            secret: c.secret.0.clone(),
        });
        let services = all.iter().map(|c| crate::iq::Service {
            jid: c.domain.clone(),
            name: c.label.clone(),
        });
        Self {
            secrets: secrets.collect(),
            services: services.collect(),
            all,
        }
    }
}

/// A domain whose people have archives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveDomain {
    /// Its name.
    pub name: String,
    /// What is kept of people who have not said what they want.
    pub default: crate::archive::prefs::ByDefault,
    /// They can be searched for words.
    pub search: bool,
}

/// A service outside XMPP (XEP-0215).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalService {
    /// Its type: `stun`, `turn`, ...
    pub kind: String,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `udp` or `tcp`.
    pub transport: &'static str,
    /// Its name for people.
    pub label: Option<String>,
    /// It takes only credentials made of this.
    pub secret: Option<crate::event::Secret>,
    /// For how many seconds they are good.
    pub credentials_s: u64,
}

/// Contact addresses of each domain that has any (XEP-0157).
pub type Contacts = std::collections::HashMap<String, Vec<Contact>>;

/// Addresses of one kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contact {
    /// The field of the form, as `abuse-addresses`.
    pub field: &'static str,
    /// URIs, one at least.
    pub addresses: Vec<String>,
}

/// What may be asked of the directories, and what of it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct People {
    /// Domains whose directories find people by name.
    pub search_domains: Vec<String>,
    /// A user of one domain of ours may search the others too.
    pub search_across: bool,
    /// People in one answer.
    pub search_results_max: usize,
    /// Domains where strangers may make themselves accounts.
    pub register_domains: Vec<String>,
    /// How many may.
    pub register_limits: crate::registrations::Limits,
    /// Shortest password that somebody may give themselves, bytes.
    pub password_bytes_min: usize,
}

impl People {
    /// Whether the domain can be searched.
    pub fn searches(&self, domain: &str) -> bool {
        self.search_domains.iter().any(|d| d == domain)
    }

    /// Whether strangers may make themselves accounts there.
    pub fn registers(&self, domain: &str) -> bool {
        self.register_domains.iter().any(|d| d == domain)
    }
}

impl Default for People {
    fn default() -> Self {
        Self {
            search_domains: Vec::new(),
            search_across: false,
            search_results_max: 40,
            register_domains: Vec::new(),
            register_limits: crate::registrations::Limits {
                per_address: 5,
                total: 200,
            },
            password_bytes_min: 8,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            domains: vec!["localhost".into()],
            offer: Arc::new(Offer {
                domains: Offer::alike(
                    &["localhost".into()],
                    &Mechanisms {
                        scram: ScramHash::ALL.to_vec(),
                        plain: true,
                        ..Mechanisms::default()
                    },
                ),
                plaintext: false,
                attempts_max: 3,
                fake: FakeKeys::new([0; 32], 10_000),
                register: Vec::new(),
                tokens: true,
                register_requests_max: 6,
            }),
            certificate_mapping: Default::default(),
            policy: Arc::new(crate::policy::Policy::open()),
            swept: Arc::default(),
            conns_before_login_max: 20_000,
            login_failures_logged_max: 120,
            element_depth_max: 64,
            element_bytes_max_before_login: 10 * 1024,
            bytes_before_login_max: 1024 * 1024,
            element_bytes_max: 256 * 1024,
            login_timeout: Duration::from_secs(30),
            element_timeout: Duration::from_secs(30),
            output_window_bytes: 512 * 1024,
            unacknowledged_max: 2_000,
            sessions_per_account_max: 20,
            pending_max: 10_000,
            pending_bytes_max: 64 * 1024 * 1024,
            directed_presence_max: 1_000,
            roster_items_max: 2_000,
            roster_bytes_max: 2 * 1024 * 1024,
            group_presence_max: 1_000,
            autosubscribe: Vec::new(),
            // A load takes milliseconds; in that time one sender's whole window may come, in the smallest stanzas.
            loading_queue_max: 20_000,
            loading_queue_bytes_max: 4 * 1024 * 1024,
            conflict: Conflict::Replace,
            token: Duration::from_secs(30 * 86_400),
            token_clients_max: 32,
            archive_domains: Vec::new(),
            archive_page_max: 250,
            archive_prefs_jids_max: 500,
            ping_after: Duration::from_secs(300),
            ping_timeout: Duration::from_secs(60),
            mux_lost: Duration::from_secs(30),
            resume: Duration::from_secs(600),
            resume_location: None,
            settle_max: Duration::from_secs(5),
            vcard_bytes_max: 256 * 1024,
            private_element_bytes_max: 128 * 1024,
            private_bytes_max: 512 * 1024,
            push_after: Duration::from_secs(5),
            push_sender: false,
            push_body: false,
            push_services_max: 20,
            inactive_held_max: 100,
            blocklist_items_max: 1_000,
            reports_to: Default::default(),
            pubsub_nodes_max: 500,
            pubsub_items_max: 1_000,
            pubsub_item_bytes_max: 128 * 1024,
            pubsub_bytes_max: 4 * 1024 * 1024,
            contacts: Contacts::new(),
            external_services: Vec::new(),
            people: People::default(),
            components: Components::default(),
        }
    }
}

/// Input a mux may send ahead of the largest element, after log-in: so that the next one is on its way.
const INPUT_AHEAD: usize = 64 * 1024;
/// The same before log-in.
const INPUT_AHEAD_BEFORE_LOGIN: usize = 6 * 1024;

/// Largest value of `limits.element_bytes_max`: an element must fit into what the link may grant.
pub const ELEMENT_BYTES_CEILING: usize = INPUT_WINDOW_MAX as usize - INPUT_AHEAD;
/// Largest value of `limits.element_bytes_before_login_max`. A ticket of Kerberos has at most 64 KiB.
pub const ELEMENT_BYTES_BEFORE_LOGIN_CEILING: usize = 64 * 1024;

const _: () = assert!(
    ELEMENT_BYTES_BEFORE_LOGIN_CEILING + INPUT_AHEAD_BEFORE_LOGIN <= INPUT_WINDOW_MAX as usize
);

impl Settings {
    /// Whether the domain is ours.
    pub fn serves(&self, domainpart: &str) -> bool {
        self.domains.iter().any(|d| d == domainpart)
    }

    /// The component of this domain.
    pub fn component(&self, domainpart: &str) -> Option<&Component> {
        self.components.all.iter().find(|c| c.domain == domainpart)
    }

    /// Whether somebody there can be reached: people of ours, or a component.
    pub fn reaches(&self, domainpart: &str) -> bool {
        self.serves(domainpart) || self.component(domainpart).is_some()
    }

    /// Whether only this server may speak in the name of an address, as a client has written it: every address in a domain we
    /// serve, in whatever form it is written. What is no address may look like one of them to somebody.
    pub fn speaks_for(&self, address: &str) -> bool {
        Jid::parse(address).map_or(true, |jid| self.serves(jid.domainpart()))
    }

    /// From what age on a token is replaced when it is used, ms: a day, or a quarter of its time if that is shorter. More often would be a
    /// write to disk for each log-in.
    pub fn token_stale_ms(&self) -> u64 {
        (self.token.as_millis() as u64 / 4).min(86_400_000)
    }

    /// How messages of this domain's people are kept in their archives, if they are.
    pub fn archive(&self, domain: &str) -> Option<&ArchiveDomain> {
        self.archive_domains.iter().find(|d| d.name == domain)
    }

    /// Whether archives of this domain's people can be searched for words.
    pub fn archive_is_searched(&self, domain: &str) -> bool {
        self.archive(domain).is_some_and(|d| d.search)
    }

    /// How large a roster may become.
    pub fn roster_limits(&self) -> crate::roster::Limits {
        crate::roster::Limits {
            items_max: self.roster_items_max,
            bytes_max: self.roster_bytes_max,
        }
    }

    /// Whether a request of one of these accounts to the other is approved by the server.
    pub fn autosubscribes(&self, from: &BareJid, to: &BareJid) -> bool {
        let domain = to.domainpart();
        from.domainpart() == domain && self.autosubscribe.iter().any(|d| d == domain)
    }

    /// How much input a mux may send ahead of what is settled, after log-in. Never less than the largest element.
    pub fn input_window(&self) -> u64 {
        (self.element_bytes_max + INPUT_AHEAD) as u64
    }

    /// The same before log-in.
    pub fn input_window_before_login(&self) -> u64 {
        (self.element_bytes_max_before_login + INPUT_AHEAD_BEFORE_LOGIN) as u64
    }
}
