//! The configuration of a server: the checked result, and how `imserver.toml` becomes one.
//!
//! `etc/imserver.toml` documents every key and says whether it reloads. `file` is the file as written, `reader` finds
//! every mistake in it at once, `check` decides what it means. Relative paths are relative to the directory of the file.
//!
//! In: the text of `imserver.toml` and of the policy file it names. Out: [`Config`], or all its [`Mistakes`].
//! Never: opens a socket, creates a file, or keeps half a configuration.

mod archive;
mod check;
mod component;
mod contacts;
mod data_dir;
mod directory;
mod effective;
mod external;
pub mod file;
mod mail;
pub mod reader;
pub mod socket;
#[cfg(test)]
mod tests;

use crate::certificate::CertificateMapping;
use crate::policy::{Policy, Right};
use crate::settings::{ELEMENT_BYTES_BEFORE_LOGIN_CEILING, ELEMENT_BYTES_CEILING};
use ::directory::cache::CacheConfig;
use ::directory::gssapi::Realms;
use ::directory::imap::ImapConfig;
use ::directory::ldap::config::LdapConfig;
pub use effective::Effective;
use file::{Shown, Takes};
use proto::frame::ListenerKind;
pub use reader::{Mistake, Mistakes};
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Default port where muxes dial in.
pub const PORT_LINK: u16 = 15230;
/// Default port where peers dial in.
pub const PORT_PEER: u16 = 15231;
/// Default port where `imadmin` dials in.
pub const PORT_ADMIN: u16 = 15232;
/// Default port of metrics and health.
pub const PORT_METRICS: u16 = 15233;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from.
    pub file: PathBuf,
    /// The server's name on links; its certificate is for `NAME.server.isthmus`.
    pub name: String,
    /// Domains served, prepared form (lower case).
    pub domains: Vec<String>,
    /// Names of the directories of each domain, in the order they are asked. A domain without: the accounts in the store.
    pub chains: HashMap<String, Vec<String>>,
    /// Directories beside the accounts in the store; those no domain names are not used.
    pub directories: Vec<LdapConfig>,
    /// Mail servers that check passwords; those no domain names are not used.
    pub mail_directories: Vec<ImapConfig>,
    /// How long answers of directories are kept.
    pub directory_cache: CacheConfig,
    /// Those of them where strangers may make themselves accounts.
    pub registration: Vec<String>,
    /// Those of them in which requests for subscriptions are approved by the server.
    pub autosubscribe: Vec<String>,
    /// Accounts that are told what their people report.
    pub reports_to: HashMap<String, Vec<xmpp::jid::BareJid>>,
    /// How those who run them are reached.
    pub contacts: crate::settings::Contacts,
    /// Directory of the database.
    pub data_dir: PathBuf,
    /// Who may do what.
    pub policy: Policy,
    /// Where muxes dial in.
    pub link: LinkConfig,
    /// Muxes that may.
    pub muxes: Vec<MuxConfig>,
    /// Where `imadmin` dials in.
    pub admin: AdminConfig,
    /// Certificates of administrators that may not do everything.
    pub administrators: Vec<AdministratorConfig>,
    /// Where metrics and health are served (GET only). Empty: nowhere.
    pub metrics: Vec<SocketAddr>,
    /// Logging in.
    pub auth: AuthConfig,
    /// Searching for people.
    pub search: SearchConfig,
    /// Services outside XMPP.
    pub external_services: Vec<crate::settings::ExternalService>,
    /// Components.
    pub components: Vec<crate::settings::Component>,
    /// Limits.
    pub limits: LimitsConfig,
    /// Sessions.
    pub session: SessionConfig,
    /// `archive.enabled`.
    pub archive: bool,
    /// `archive.days`.
    pub archive_days_default: u64,
    /// Domains whose people's messages stay in their archives after delivery.
    pub archive_domains: Vec<crate::settings::ArchiveDomain>,
    /// `archive.search`.
    pub archive_search: bool,
    /// `archive.default`.
    pub archive_default: crate::archive::prefs::ByDefault,
    /// For how many days, where it is not for ever.
    pub archive_days: Vec<(String, u64)>,
    /// Threads that own entities; 0: one per core.
    pub shards: usize,
    /// Logging.
    pub log: LogConfig,
    /// A mux inside this process (`[embedded_mux]`).
    pub embedded_mux: Option<mux::config::Config>,
    shown: Shown,
}

/// `[link]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkConfig {
    /// Addresses muxes dial by TCP and TLS. May be empty if there is a socket or an embedded mux.
    pub listen: Vec<SocketAddr>,
    /// Unix socket for muxes on this host; the file's permissions are the only guard.
    pub socket: Option<PathBuf>,
    /// Certificates of link, peer and admin doors. `None` only when no TCP door is open.
    pub tls: Option<LinkTls>,
}

/// Files of the private CA (PEM).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkTls {
    /// Certificate of the CA that signs muxes, peers and administrators.
    pub ca: PathBuf,
    /// Our certificate, for `NAME.server.isthmus`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// `[[mux]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MuxConfig {
    /// As its certificate says.
    pub name: String,
    /// Kinds of streams it may open.
    pub kinds: Vec<ListenerKind>,
    /// Domains whose streams it may open; `None`: all.
    pub domains: Option<Vec<String>>,
    /// Its word that a client certificate was verified counts.
    pub trust_client_certificates: bool,
}

/// `[admin]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdminConfig {
    /// Addresses `imadmin` dials by TCP and TLS.
    pub listen: Vec<SocketAddr>,
    /// Unix socket for administrators on this host (mode 0600).
    pub socket: Option<PathBuf>,
    /// What administrators do is appended here.
    pub audit_log: PathBuf,
}

/// `[[administrator]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdministratorConfig {
    /// As the certificate says.
    pub name: String,
    /// All it may do.
    pub rights: Vec<Right>,
}

/// A SASL mechanism, without `-PLUS`: that is offered wherever the connection can bind a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Mechanism {
    /// EXTERNAL (RFC 4422 appendix A): the client's certificate.
    External,
    /// GSSAPI (RFC 4752): a Kerberos ticket.
    Gssapi,
    /// SCRAM-SHA-512.
    ScramSha512,
    /// SCRAM-SHA-256 (RFC 7677).
    ScramSha256,
    /// SCRAM-SHA-1 (RFC 5802).
    ScramSha1,
    /// PLAIN (RFC 4616).
    Plain,
}

impl Mechanism {
    /// Offered unless configured otherwise, the strongest first.
    pub const DEFAULT: [Mechanism; 4] = [
        Mechanism::ScramSha512,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
    ];

    /// All there are.
    pub const ALL: [Mechanism; 6] = [
        Mechanism::External,
        Mechanism::Gssapi,
        Mechanism::ScramSha512,
        Mechanism::ScramSha256,
        Mechanism::ScramSha1,
        Mechanism::Plain,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::External => "EXTERNAL",
            Mechanism::Gssapi => "GSSAPI",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha1 => "SCRAM-SHA-1",
            Mechanism::Plain => "PLAIN",
        }
    }
}

/// `[auth]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthConfig {
    /// PLAIN and SCRAM are offered without TLS too. For load tests on loopback.
    pub plaintext: bool,
    /// Mechanisms offered, the strongest first.
    pub mechanisms: Vec<Mechanism>,
    /// Which name of a client's certificate says who it is.
    pub certificate_mapping: CertificateMapping,
    /// Kerberos, if GSSAPI is among the mechanisms.
    pub gssapi: Option<GssapiConfig>,
    /// PBKDF2 rounds of new SCRAM secrets.
    pub scram_iterations: u32,
    /// How long SCRAM keys made at a log-in with the password are good; zero: none are made.
    pub scram_capture: Duration,
    /// How long a token that a client logs in with is good; zero: none are given out.
    pub token: Duration,
    /// Shortest password people may give themselves.
    pub password_bytes_min: usize,
}

/// `[search]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchConfig {
    /// People in one answer.
    pub results_max: usize,
    /// A user of one domain may search the others.
    pub across_domains: bool,
}

/// `[auth]`, what begins with `gssapi_`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GssapiConfig {
    /// Keys of `xmpp/HOST@REALM`.
    pub keytab: PathBuf,
    /// Whose principals are people of which domain.
    pub realms: Realms,
}

/// What happens when a resource is bound that is bound already (RFC 6120 §7.7.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conflict {
    /// The older session ends with `<conflict/>`.
    Replace,
    /// The newer one is refused.
    Refuse,
    /// The newer one gets another resource.
    Rename,
}

/// `[session]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionConfig {
    /// When a resource is bound twice.
    pub conflict: Conflict,
    /// Silence after which a client is asked for a sign of life; zero: never.
    pub ping: Duration,
    /// How long it has to answer before the connection counts as dead.
    pub ping_answer: Duration,
    /// How long the sessions of a lost mux are kept.
    pub mux_lost: Duration,
    /// How long a session whose connection is lost waits for its client.
    pub resume: Duration,
    /// Where clients should connect to resume a session.
    pub resume_location: Option<String>,
    /// How long a message may be unacknowledged before push services are told.
    pub push_after: Duration,
    /// They are told who has sent it.
    pub push_sender: bool,
    /// And its text.
    pub push_body: bool,
}

/// `[log]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// A `tracing` filter, e.g. `info` or `info,imserver::link=debug`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

macro_rules! limits {
    ($( $(#[$doc:meta])* $key:ident : $default:expr, $range:expr; )*) => {
        /// `[limits]`. The reason for each number is in `etc/imserver.toml`.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct LimitsConfig { $( $(#[$doc])* pub $key: usize, )* }

        impl Default for LimitsConfig {
            fn default() -> Self {
                LimitsConfig { $( $key: $default, )* }
            }
        }

        impl LimitsConfig {
            /// Each with its name.
            fn rows(&self) -> Vec<(&'static str, usize)> {
                vec![$( (stringify!($key), self.$key), )*]
            }

            fn check(file: &file::LimitsFile, reader: &mut reader::Reader) -> Self {
                LimitsConfig { $( $key: check::number(reader, &file.$key, $default, $range), )* }
            }
        }
    };
}

limits! {
    /// Bytes of one element before login.
    element_bytes_before_login_max: 10_240, 4_096..=ELEMENT_BYTES_BEFORE_LOGIN_CEILING;
    /// Bytes of one element after login. RFC 6120 §13.12 wants at least 10,000.
    element_bytes_max: 262_144, 10_240..=ELEMENT_BYTES_CEILING;
    /// Bytes of everything a connection sends before login.
    bytes_before_login_max: 1_048_576, 131_072..=16_777_216;
    /// Nesting depth of an element.
    element_depth_max: 64, 16..=1_024;
    /// Seconds from Open to login.
    login_s: 30, 1..=600;
    /// Seconds from the first byte of an element after login to its last.
    element_s: 30, 5..=3600;
    /// Failed SASL attempts of one stream. RFC 6120 §6.4.5 wants at least 2.
    login_attempts_max: 3, 2..=10;
    /// Failed log-ins with a line each in the log, in a minute; the others are counted there.
    login_failures_logged_minute_max: 120, 0..=100_000;
    /// Connections that have not logged in, of all muxes together.
    conns_before_login_max: 20_000, 10..=1_000_000;
    /// Clients of an account that may have a token to log in with.
    token_clients_max: 32, 1..=1_000;
    /// Sessions of one account.
    sessions_per_user_max: 20, 1..=1_000;
    /// Roster items of one account.
    roster_items_max: 5_000, 10..=100_000;
    /// Bytes of the roster items of one account, as they are sent.
    roster_bytes_max: 2_097_152, 65_536..=8_388_608;
    /// Members of a directory group up to which they hear of each other's presence.
    group_presence_max: 1_000, 0..=100_000;
    /// Pending messages of one account; more are refused with `resource-constraint`.
    pending_messages_per_user_max: 10_000, 10..=10_000_000;
    /// Bytes of pending messages of one account; more are refused with `resource-constraint`. More than the largest element.
    pending_bytes_max: 67_108_864, 4_194_304..=1_099_511_627_776;
    /// Entities one session has sent directed presence to and not taken back.
    directed_presence_max: 1_000, 10..=100_000;
    /// Bytes of a vCard.
    vcard_bytes_max: 131_072, 1_024..=1_048_576;
    /// Bytes of one element of the private XML storage.
    private_element_bytes_max: 131_072, 1_024..=1_048_576;
    /// Bytes of all elements that one account has there; more are refused with `policy-violation`.
    private_bytes_max: 524_288, 1_024..=16_777_216;
    /// Push services of one account.
    push_services_max: 20, 1..=1_000;
    /// Messages without content that wait for an inactive client; 0: nothing waits.
    inactive_held_max: 100, 0..=1_000;
    /// Addresses that one account may block.
    blocklist_items_max: 1_000, 10..=10_000;
    /// Publish-subscribe nodes of one account.
    pubsub_nodes_max: 500, 10..=10_000;
    /// Items of one node.
    pubsub_items_per_node_max: 1_000, 10..=10_000;
    /// Bytes of one item; a longer one is refused with `payload-too-big`.
    pubsub_item_bytes_max: 131_072, 1_024..=1_048_576;
    /// Bytes of all items of one account; more are refused with `policy-violation`.
    pubsub_bytes_max: 4_194_304, 65_536..=268_435_456;
    /// Messages in a page of an archive.
    archive_page_max: 250, 10..=1_000;
    /// Addresses that somebody may list of whom to keep messages or not.
    archive_prefs_jids_max: 500, 0..=5_000;
    /// Output bytes a client may leave untaken before it is given only what must not be lost, and that later.
    output_window_bytes: 1_048_576, 65_536..=67_108_864;
    /// Stanzas sent to a session with stream management and not acknowledged.
    unacknowledged_stanzas_max: 4_000, 100..=4_096;
    /// Requests of in-band registration on one stream before login: the form, and a few mistakes in it.
    registration_requests_max: 6, 2..=100;
    /// Registrations tried from one address in an hour.
    registrations_per_address_hour_max: 5, 1..=10_000;
    /// Registrations tried from all addresses in an hour.
    registrations_hour_max: 200, 1..=10_000;
}

/// Reads and checks a file. A file that cannot be read is one mistake.
pub fn load(file: &Path) -> Result<Config, Mistakes> {
    parse(&read(file)?, file)
}

/// The same, and finds what stands in the way of a start, but not of a reload: a data directory that cannot be used, and
/// certificates of an embedded mux (a running one keeps those it has).
pub fn load_for_start(file: &Path) -> Result<Config, Mistakes> {
    check::check(&read(file)?, file, true)
}

fn read(file: &Path) -> Result<String, Mistakes> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text),
        Err(error) => Err(Mistakes(vec![Mistake {
            file: file.to_owned(),
            line: 0,
            key: String::new(),
            text: format!("cannot be read: {error}"),
        }])),
    }
}

/// Checks the text of a file. Reads the files it names (policy, certificates) to say early that one is missing.
pub fn parse(text: &str, path: &Path) -> Result<Config, Mistakes> {
    check::check(text, path, false)
}

/// One key that differs between two configurations.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Full key, e.g. `limits.roster_items_max`.
    pub key: String,
    /// As it was written; `None`: it was absent.
    pub old: Option<String>,
    /// As it is written.
    pub new: Option<String>,
    /// When it takes effect.
    pub takes: Takes,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |v: &Option<String>| v.clone().unwrap_or_else(|| "(default)".to_owned());
        write!(
            f,
            "{}: {} -> {}",
            self.key,
            shown(&self.old),
            shown(&self.new)
        )?;
        match self.takes {
            Takes::Reload => Ok(()),
            Takes::Restart => write!(f, " (waits for a restart)"),
        }
    }
}

impl Config {
    /// Names of the directories of a domain, in the order they are asked.
    pub fn chain(&self, domain: &str) -> Vec<&str> {
        match self.chains.get(domain) {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => vec![::directory::local::NAME],
        }
    }

    /// What differs in `new`, key by key.
    pub fn changes(&self, new: &Config) -> Vec<Change> {
        let mut changes = Vec::new();
        let keys: std::collections::BTreeSet<&String> =
            self.shown.keys().chain(new.shown.keys()).collect();
        for key in keys {
            let (old, new) = (self.shown.get(key), new.shown.get(key));
            let Some(takes) = new.or(old).map(|k| k.takes) else {
                continue;
            };
            let value = |k: Option<&file::ShownKey>| k.map(|k| k.value.clone());
            let (old, new) = (value(old), value(new));
            if old != new {
                changes.push(Change {
                    key: key.clone(),
                    old,
                    new,
                    takes,
                });
            }
        }
        changes
    }

    /// The configuration after a reload: `new`, except for the keys that wait for a restart.
    pub fn reloaded(&self, new: Config) -> Config {
        let waits = |key: &file::ShownKey| key.takes == Takes::Restart;
        let mut shown = new.shown;
        shown.retain(|_, key| !waits(key));
        let kept = self.shown.iter().filter(|(_, key)| waits(key));
        shown.extend(kept.map(|(name, key)| (name.clone(), key.clone())));
        Config {
            shown,
            name: self.name.clone(),
            domains: self.domains.clone(),
            data_dir: self.data_dir.clone(),
            link: self.link.clone(),
            admin: AdminConfig {
                audit_log: new.admin.audit_log,
                ..self.admin.clone()
            },
            metrics: self.metrics.clone(),
            auth: AuthConfig {
                scram_iterations: self.auth.scram_iterations,
                ..new.auth
            },
            session: SessionConfig {
                mux_lost: self.session.mux_lost,
                ..new.session
            },
            shards: self.shards,
            log: self.log.clone(),
            ..new
        }
    }
}
