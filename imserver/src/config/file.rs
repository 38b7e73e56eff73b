//! `imserver.toml` as it is written: every key optional, every value with its line. What it means is decided in `check`.
//!
//! A key is one row here, one row in `check`, and one entry in `etc/imserver.toml` (a test compares the three). Each row says
//! whether a change of it takes effect on reload or waits for a restart.

use super::reader::{At, FromToml, Reader, StringMap, Strings, Table, Written};
use std::collections::BTreeMap;

/// When a changed key takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// On reload, without dropping anyone.
    Reload,
    /// When the process is started again.
    Restart,
}

/// What stood in the file, by full key.
pub type Shown = BTreeMap<String, ShownKey>;

/// One key of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShownKey {
    /// As one would write it.
    pub value: String,
    /// When a change takes effect.
    pub takes: Takes,
    /// Where it stood.
    pub line: usize,
}

/// Declares a section: a struct of optional written values, its reader, and the list of its keys.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $( $(#[$kdoc:meta])* $key:ident : $type:ty, $takes:ident; )* }) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone)]
        pub struct $name {
            /// Where the section begins.
            pub at: At,
            $( $(#[$kdoc])* pub $key: Option<Written<$type>>, )*
        }

        impl $name {
            /// Names of the keys, in the order of the documentation.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            fn read_keys(table: &mut Table<'_>, reader: &mut Reader) -> Self {
                $name {
                    at: table.at().clone(),
                    $( $key: table.value(reader, stringify!($key)), )*
                }
            }

            #[allow(dead_code, reason = "the top level has sub-sections and is finished by hand")]
            fn read(mut table: Table<'_>, reader: &mut Reader) -> Self {
                let section = Self::read_keys(&mut table, reader);
                table.finish(reader, Self::KEYS);
                section
            }

            pub(super) fn show(&self, prefix: &str, shown: &mut Shown) {
                $( if let Some(written) = &self.$key {
                    let key = ShownKey { value: written.value.show(), takes: Takes::$takes, line: written.at.line };
                    shown.insert(format!("{prefix}{}", stringify!($key)), key);
                } )*
            }
        }
    };
}

section! {
    /// Keys outside any section.
    Top {
        /// The server's name on links: letters, digits, `-`. Its certificate says the same.
        name: String, Restart;
        /// Directory of the database, relative to the file.
        data_dir: String, Restart;
        /// File of the rules, relative to the file.
        policy: String, Reload;
    }
}

section! {
    /// `[[domain]]`: a domain served here.
    DomainFile {
        /// Its name.
        name: String, Restart;
        /// Names of the directories that know its people, in the order they are asked.
        directory: Strings, Reload;
        /// Strangers may make themselves accounts.
        registration: bool, Reload;
        /// Whether requests for subscriptions inside it are approved by the server.
        autosubscribe: bool, Reload;
        /// Whether messages of its people stay after delivery; as `archive.enabled` says, if not given.
        archive: bool, Reload;
        /// What is kept of people who have not said what they want; as `archive.default` says, if not given.
        archive_default: String, Reload;
        /// Whether they can be searched for words; as `archive.search` says, if not given.
        archive_search: bool, Reload;
        /// For how many days; 0: for ever; as `archive.days` says, if not given.
        archive_days: u64, Reload;
        /// Accounts that are told of reports of spam and abuse.
        reports_to: Strings, Reload;
        /// Addresses about abuse, as URIs.
        abuse_addresses: Strings, Reload;
        /// Addresses of the administrators, as URIs.
        admin_addresses: Strings, Reload;
        /// Addresses for feedback, as URIs.
        feedback_addresses: Strings, Reload;
        /// Addresses of sales, as URIs.
        sales_addresses: Strings, Reload;
        /// Addresses about security, as URIs.
        security_addresses: Strings, Reload;
        /// Addresses where the state of the service is told, as URIs.
        status_addresses: Strings, Reload;
        /// Addresses of support, as URIs.
        support_addresses: Strings, Reload;
    }
}

section! {
    /// `[link]`: where muxes dial in.
    LinkFile {
        /// Addresses and ports.
        listen: Strings, Restart;
        /// A Unix socket for a mux on this host (no TLS).
        socket: String, Restart;
        /// Certificate of the private CA.
        ca: String, Restart;
        /// Our certificate.
        cert: String, Restart;
        /// Its key.
        key: String, Restart;
    }
}

section! {
    /// `[[mux]]`: a mux that may dial in.
    MuxFile {
        /// As its certificate says.
        name: String, Reload;
        /// Kinds of listeners it may have.
        kinds: Strings, Reload;
        /// Domains whose streams it may open.
        domains: Strings, Reload;
        /// Whether its word on client certificates counts.
        trust_client_certificates: bool, Reload;
    }
}

section! {
    /// `[admin]`: where `imadmin` dials in.
    AdminFile {
        /// Addresses and ports.
        listen: Strings, Restart;
        /// The Unix socket for administrators on this host.
        socket: String, Restart;
        /// Where what they do is written.
        audit_log: String, Reload;
    }
}

section! {
    /// `[[administrator]]`: what a certificate of role admin may do.
    AdministratorFile {
        /// As the certificate says.
        name: String, Reload;
        /// Rights of the policy.
        rights: Strings, Reload;
    }
}

section! {
    /// `[metrics]`.
    MetricsFile {
        /// Addresses and ports.
        listen: Strings, Restart;
    }
}

section! {
    /// `[auth]`.
    AuthFile {
        /// PLAIN and SCRAM also without TLS.
        plaintext: bool, Reload;
        /// SASL mechanisms offered, without `-PLUS`.
        mechanisms: Strings, Reload;
        /// Which name of a client's certificate says who it is.
        certificate_mapping: String, Reload;
        /// Seconds that SCRAM keys made at a log-in with the password are good, where the directory has none; 0: none are made.
        scram_capture_s: u64, Reload;
        /// Days that a token to log in with is good; 0: none are given out.
        token_days: u64, Reload;
        /// Keys for Kerberos.
        gssapi_keytab: String, Reload;
        /// Kerberos realm to domain.
        gssapi_realms: StringMap, Reload;
        /// PBKDF2 rounds of new SCRAM secrets.
        scram_iterations: u64, Restart;
        /// Shortest password people may give themselves.
        password_bytes_min: u64, Reload;
    }
}

section! {
    /// `[search]`.
    SearchFile {
        /// People in one answer.
        results_max: u64, Reload;
        /// A user of one domain may search the others.
        across_domains: bool, Reload;
    }
}

section! {
    /// `[[directory]]`: where people are looked for, beside the accounts in the store.
    DirectoryFile {
        /// What `[[domain]]` calls it.
        name: String, Reload;
        /// `ldap`, `active-directory` or `imap`.
        kind: String, Reload;
        /// Its servers.
        uri: Strings, Reload;
        /// How `ldap://` and `imap://` are protected.
        tls: String, Reload;
        /// Certificates of the CA that signs the servers'.
        ca: String, Reload;
        /// The service account.
        bind_dn: String, Reload;
        /// File with its password.
        bind_password_file: String, Reload;
        /// Where people are looked for.
        base: Strings, Reload;
        /// Which entries are people.
        user_filter: String, Reload;
        /// Attributes a login name is looked for in; of the kind `imap`: what a mail server is told.
        login: Strings, Reload;
        /// The attribute the address is made of.
        jid: String, Reload;
        /// Whether that is a localpart or a whole address.
        jid_form: String, Reload;
        /// Attributes of the display name.
        attr_name: Strings, Reload;
        /// Of the given name.
        attr_given_name: Strings, Reload;
        /// Of the family name.
        attr_family_name: Strings, Reload;
        /// Of mail addresses.
        attr_mail: Strings, Reload;
        /// Of telephone numbers.
        attr_phone: Strings, Reload;
        /// Of what somebody does.
        attr_title: Strings, Reload;
        /// Of whom they work for.
        attr_organisation: Strings, Reload;
        /// Of the part of that.
        attr_unit: Strings, Reload;
        /// Of the picture.
        attr_photo: Strings, Reload;
        /// Of the node their account lives on.
        attr_home: Strings, Reload;
        /// Of what an entry is known by for good.
        attr_id: Strings, Reload;
        /// Largest picture.
        photo_bytes_max: u64, Reload;
        /// Who may not log in.
        disabled_filter: String, Reload;
        /// The attribute with SCRAM keys.
        scram_attribute: String, Reload;
        /// Where groups are looked for.
        group_base: Strings, Reload;
        /// Which entries are groups.
        group_filter: String, Reload;
        /// The attribute of their name.
        group_name: String, Reload;
        /// The attribute rosters show.
        group_title: String, Reload;
        /// Attributes that name members' entries.
        group_member: Strings, Reload;
        /// Attributes that hold members' uid.
        group_member_uid: Strings, Reload;
        /// Attributes that hold URLs of searches for members.
        group_member_url: Strings, Reload;
        /// The attribute of people that names their groups.
        group_member_of: String, Reload;
        /// Whether groups in groups count.
        group_nested: bool, Reload;
        /// Whether the server resolves them.
        group_in_chain: bool, Reload;
        /// Names of groups that rosters show.
        group_in_rosters: Strings, Reload;
        /// A filter for such groups.
        group_in_rosters_filter: String, Reload;
        /// Where new accounts are made.
        register_base: String, Reload;
        /// The attribute their entry is named by.
        register_rdn: String, Reload;
        /// Their object classes.
        register_classes: Strings, Reload;
        /// Whether people may change their passwords here.
        change_password: bool, Reload;
        /// Seconds to make a connection in.
        connect_timeout_s: u64, Reload;
        /// Seconds an operation may take.
        operation_timeout_s: u64, Reload;
        /// Seconds a look at everybody may take.
        sweep_timeout_s: u64, Reload;
        /// Connections for searching, and as many for passwords.
        connections_max: u64, Reload;
        /// Entries per page.
        page_size: u64, Reload;
    }
}

section! {
    /// `[directory_cache]`.
    DirectoryCacheFile {
        /// Seconds after which an answer is asked for again.
        ttl_s: u64, Reload;
        /// Seconds after which an answer nobody has wanted is forgotten.
        idle_s: u64, Reload;
        /// Seconds for which "there is nobody" is kept.
        negative_ttl_s: u64, Reload;
        /// Seconds beyond its time for which an answer is given while the directory does not answer.
        stale_s: u64, Reload;
        /// Most answers of each kind, for each directory.
        entries_max: u64, Reload;
        /// Seconds for which a password that was right is recognised while the directory does not answer; 0: not at all.
        password_s: u64, Reload;
    }
}

section! {
    /// `[[external_service]]`: a service outside XMPP.
    ExternalServiceFile {
        /// What it is: `stun`, `turn`, ...
        kind: String, Reload;
        /// Its name or address.
        host: String, Reload;
        /// Its port.
        port: u64, Reload;
        /// `udp` or `tcp`.
        transport: String, Reload;
        /// Its name for people.
        label: String, Reload;
        /// File with the secret that credentials are made of.
        secret_file: String, Reload;
        /// How long they are good for.
        credentials_s: u64, Reload;
    }
}

section! {
    /// `[[component]]`: a program that is a domain of its own (XEP-0114).
    ComponentFile {
        /// Its domain.
        domain: String, Reload;
        /// File with the secret it knows.
        secret_file: String, Reload;
        /// Its name for people.
        label: String, Reload;
        /// What it may do with the rosters of our people: `none`, `get`, `set`, `both`.
        rosters: String, Reload;
        /// It is told of their changes.
        roster_pushes: bool, Reload;
        /// It may send messages in their names.
        send_messages: bool, Reload;
        /// Namespaces of what it may ask in their names.
        iq_get: Strings, Reload;
        /// And of what it may set.
        iq_set: Strings, Reload;
        /// Whose presence it is sent: `none`, `managed_entity`, `roster`.
        presence: String, Reload;
    }
}

section! {
    /// `[limits]`.
    LimitsFile {
        /// Bytes of one element before login.
        element_bytes_before_login_max: u64, Reload;
        /// Bytes of one element after login.
        element_bytes_max: u64, Reload;
        /// Bytes of everything a connection sends before login.
        bytes_before_login_max: u64, Reload;
        /// Nesting depth of an element.
        element_depth_max: u64, Reload;
        /// Seconds from Open to login.
        login_s: u64, Reload;
        /// Seconds from the first byte of an element after login to its last.
        element_s: u64, Reload;
        /// Failed SASL attempts of one stream.
        login_attempts_max: u64, Reload;
        /// Failed log-ins with a line each in the log, in a minute.
        login_failures_logged_minute_max: u64, Reload;
        /// Connections not logged in, of all muxes.
        conns_before_login_max: u64, Reload;
        /// Clients of one account with a token to log in with.
        token_clients_max: u64, Reload;
        /// Sessions of one account.
        sessions_per_user_max: u64, Reload;
        /// Roster items of one account.
        roster_items_max: u64, Reload;
        /// Bytes of the roster items of one account.
        roster_bytes_max: u64, Reload;
        /// Members of a group up to which presence flows by it.
        group_presence_max: u64, Reload;
        /// Pending messages of one account.
        pending_messages_per_user_max: u64, Reload;
        /// Bytes of pending messages of one account.
        pending_bytes_max: u64, Reload;
        /// Entities one session has sent directed presence to.
        directed_presence_max: u64, Reload;
        /// Bytes of a vCard.
        vcard_bytes_max: u64, Reload;
        /// Bytes of one element of the private XML storage.
        private_element_bytes_max: u64, Reload;
        /// Bytes of all of one account.
        private_bytes_max: u64, Reload;
        /// Push services of one account.
        push_services_max: u64, Reload;
        /// Messages without content that wait for an inactive client.
        inactive_held_max: u64, Reload;
        /// Addresses that one account may block.
        blocklist_items_max: u64, Reload;
        /// Publish-subscribe nodes of one account.
        pubsub_nodes_max: u64, Reload;
        /// Items of one node.
        pubsub_items_per_node_max: u64, Reload;
        /// Bytes of one item.
        pubsub_item_bytes_max: u64, Reload;
        /// Bytes of all items of one account.
        pubsub_bytes_max: u64, Reload;
        /// Messages in a page of an archive.
        archive_page_max: u64, Reload;
        /// Addresses that somebody may list of whom to keep messages or not.
        archive_prefs_jids_max: u64, Reload;
        /// Output bytes a client may leave untaken.
        output_window_bytes: u64, Reload;
        /// Stanzas sent to a session with stream management and not acknowledged.
        unacknowledged_stanzas_max: u64, Reload;
        /// Requests of in-band registration on one stream before login.
        registration_requests_max: u64, Reload;
        /// Registrations tried from one address in an hour.
        registrations_per_address_hour_max: u64, Reload;
        /// Registrations tried from all addresses in an hour.
        registrations_hour_max: u64, Reload;
    }
}

section! {
    /// `[session]`.
    SessionFile {
        /// What happens when a resource is bound twice.
        conflict: String, Reload;
        /// Seconds of silence after which a client is asked for a sign of life.
        ping_s: u64, Reload;
        /// Seconds it has to answer.
        ping_answer_s: u64, Reload;
        /// Seconds the sessions of a lost mux are kept.
        mux_lost_s: u64, Restart;
        /// Seconds a session whose connection is lost waits for its client.
        resume_s: u64, Reload;
        /// Where clients should connect to resume a session.
        resume_location: String, Reload;
        /// Seconds after which push services are told of a message that nobody has acknowledged.
        push_after_s: u64, Reload;
        /// Whether they are told who has sent it.
        push_sender: bool, Reload;
        /// And its text.
        push_body: bool, Reload;
    }
}

section! {
    /// `[archive]`.
    ArchiveFile {
        /// Whether messages stay after delivery.
        enabled: bool, Reload;
        /// What is kept of people who have not said what they want.
        default: String, Reload;
        /// Whether archives can be searched for words.
        search: bool, Reload;
        /// For how many days; 0: for ever.
        days: u64, Reload;
    }
}

section! {
    /// `[shards]`.
    ShardsFile {
        /// Threads that own entities.
        count: u64, Restart;
    }
}

section! {
    /// `[log]`.
    LogFile {
        /// What is logged.
        filter: String, Restart;
        /// `text` or `json`.
        format: String, Restart;
    }
}

/// The whole file.
#[derive(Debug, Default)]
pub struct File {
    /// Keys outside any section.
    pub top: Top,
    /// `[[domain]]`.
    pub domain: Vec<DomainFile>,
    /// `[link]`.
    pub link: LinkFile,
    /// `[[mux]]`.
    pub mux: Vec<MuxFile>,
    /// `[admin]`.
    pub admin: AdminFile,
    /// `[[administrator]]`.
    pub administrator: Vec<AdministratorFile>,
    /// `[metrics]`.
    pub metrics: MetricsFile,
    /// `[auth]`.
    pub auth: AuthFile,
    /// `[[directory]]`.
    pub directory: Vec<DirectoryFile>,
    /// `[directory_cache]`.
    pub directory_cache: DirectoryCacheFile,
    /// `[search]`.
    pub search: SearchFile,
    /// `[[external_service]]`.
    pub external_service: Vec<ExternalServiceFile>,
    /// `[[component]]`.
    pub component: Vec<ComponentFile>,
    /// `[limits]`.
    pub limits: LimitsFile,
    /// `[session]`.
    pub session: SessionFile,
    /// `[archive]`.
    pub archive: ArchiveFile,
    /// `[shards]`.
    pub shards: ShardsFile,
    /// `[log]`.
    pub log: LogFile,
}

/// The section that holds what `mux.toml` has, for a mux inside this process.
pub const EMBEDDED_MUX: &str = "embedded_mux";

/// Names of the sections, for "did you mean".
pub const SECTIONS: &[&str] = &[
    "domain",
    "link",
    "mux",
    "admin",
    "administrator",
    "metrics",
    "auth",
    "directory",
    "directory_cache",
    "search",
    "external_service",
    "component",
    "limits",
    "session",
    "archive",
    "shards",
    "log",
    EMBEDDED_MUX,
];

impl File {
    /// Takes every known key; what is left is unknown and noted. `[embedded_mux]` belongs to `mux::config`.
    pub fn read(mut table: Table<'_>, reader: &mut Reader) -> File {
        /// An absent section reads like an empty one.
        macro_rules! one {
            ($key:literal, $type:ident) => {
                match table.table(reader, $key) {
                    Some(section) => $type::read(section, reader),
                    None => $type {
                        at: At {
                            line: 0,
                            key: $key.to_owned(),
                        },
                        ..$type::default()
                    },
                }
            };
        }
        macro_rules! many {
            ($key:literal, $type:ident) => {
                table
                    .tables(reader, $key)
                    .into_iter()
                    .map(|t| $type::read(t, reader))
                    .collect()
            };
        }
        let file = File {
            top: Top::read_keys(&mut table, reader),
            domain: many!("domain", DomainFile),
            link: one!("link", LinkFile),
            mux: many!("mux", MuxFile),
            admin: one!("admin", AdminFile),
            administrator: many!("administrator", AdministratorFile),
            metrics: one!("metrics", MetricsFile),
            auth: one!("auth", AuthFile),
            directory: many!("directory", DirectoryFile),
            directory_cache: one!("directory_cache", DirectoryCacheFile),
            search: one!("search", SearchFile),
            external_service: many!("external_service", ExternalServiceFile),
            component: many!("component", ComponentFile),
            limits: one!("limits", LimitsFile),
            session: one!("session", SessionFile),
            archive: one!("archive", ArchiveFile),
            shards: one!("shards", ShardsFile),
            log: one!("log", LogFile),
        };
        table.leave(EMBEDDED_MUX);
        let known: Vec<&str> = Top::KEYS.iter().chain(SECTIONS).copied().collect();
        table.finish(reader, &known);
        file
    }

    /// Every key that was written, for the report of a reload.
    pub fn shown(&self) -> Shown {
        let mut shown = Shown::new();
        self.top.show("", &mut shown);
        for domain in &self.domain {
            domain.show(&format!("domain.{}.", name_of(&domain.name)), &mut shown);
        }
        self.link.show("link.", &mut shown);
        for mux in &self.mux {
            mux.show(&format!("mux.{}.", name_of(&mux.name)), &mut shown);
        }
        self.admin.show("admin.", &mut shown);
        for admin in &self.administrator {
            admin.show(
                &format!("administrator.{}.", name_of(&admin.name)),
                &mut shown,
            );
        }
        self.metrics.show("metrics.", &mut shown);
        self.auth.show("auth.", &mut shown);
        for directory in &self.directory {
            let prefix = format!("directory.{}.", name_of(&directory.name));
            directory.show(&prefix, &mut shown);
        }
        self.directory_cache.show("directory_cache.", &mut shown);
        self.search.show("search.", &mut shown);
        for service in &self.external_service {
            let port = service.port.as_ref().map_or(0, |p| p.value);
            let (kind, host) = (name_of(&service.kind), name_of(&service.host));
            let transport = service.transport.as_ref().map_or("udp", |t| &t.value);
            let prefix = format!("external_service.{kind}:{host}:{port}/{transport}.");
            service.show(&prefix, &mut shown);
        }
        for component in &self.component {
            let prefix = format!("component.{}.", name_of(&component.domain));
            component.show(&prefix, &mut shown);
        }
        self.limits.show("limits.", &mut shown);
        self.session.show("session.", &mut shown);
        self.archive.show("archive.", &mut shown);
        self.shards.show("shards.", &mut shown);
        self.log.show("log.", &mut shown);
        shown
    }
}

fn name_of(name: &Option<Written<String>>) -> &str {
    name.as_ref().map_or("?", |n| n.value.as_str())
}
