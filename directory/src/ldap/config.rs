//! What an LDAP directory is told by the configuration: the checked result.
//!
//! Never: prints a password.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A password that is not printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Which defaults fit the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    /// OpenLDAP, 389 Directory Server, and whatever else has the schemas of RFC 4519, RFC 2798 and RFC 2307.
    Ldap,
    /// Active Directory, Samba.
    ActiveDirectory,
}

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tls {
    /// From the first byte (`ldaps://`).
    Direct,
    /// After the extended operation StartTLS (RFC 4511 §4.14).
    StartTls,
    /// Not at all: every password is seen by whoever sees the network.
    None,
}

/// A server of the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostConfig {
    /// Name or address; its certificate is for this.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Protection.
    pub tls: Tls,
}

impl fmt::Display for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls == Tls::Direct {
            "ldaps"
        } else {
            "ldap"
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// How an address is made of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JidForm {
    /// The attribute is the localpart; the domain is the one asked for.
    Localpart,
    /// The attribute is the whole address.
    Address,
}

/// Which attributes say what. Each list in order of preference.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AttributeMap {
    /// As shown in lists.
    pub name: Vec<String>,
    /// Given name.
    pub given_name: Vec<String>,
    /// Family name.
    pub family_name: Vec<String>,
    /// Mail addresses; all values of all of them.
    pub mail: Vec<String>,
    /// Telephone numbers; all values of all of them.
    pub phone: Vec<String>,
    /// What they do.
    pub title: Vec<String>,
    /// Whom they work for.
    pub organisation: Vec<String>,
    /// In which part of it.
    pub unit: Vec<String>,
    /// The picture.
    pub photo: Vec<String>,
    /// The node their account lives on.
    pub home: Vec<String>,
    /// What an entry is known by for good.
    pub id: Vec<String>,
}

/// Groups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupsConfig {
    /// Where groups are looked for.
    pub bases: Vec<String>,
    /// Which entries are groups.
    pub filter: String,
    /// Their name.
    pub name: String,
    /// As rosters show them; absent: the name.
    pub title: Option<String>,
    /// Attributes that hold names of members' entries (`member`, `uniqueMember`).
    pub member: Vec<String>,
    /// Attributes that hold members' `uid` (`memberUid`).
    pub member_uid: Vec<String>,
    /// Attributes that hold URLs of searches for members (`memberURL`).
    pub member_url: Vec<String>,
    /// The attribute of people that names their groups, where groups do not name their members.
    pub member_of: Option<String>,
    /// Groups in groups: members of the inner one are members of the outer one.
    pub nested: bool,
    /// The server resolves nested groups (Active Directory's LDAP_MATCHING_RULE_IN_CHAIN): one search per group.
    pub in_chain: bool,
    /// Names of groups shown in rosters; `*` at the end of a name stands for anything.
    pub in_rosters: Vec<String>,
    /// A filter for groups shown in rosters.
    pub in_rosters_filter: Option<String>,
}

/// New accounts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RegisterConfig {
    /// Where new entries are made.
    pub base: String,
    /// The attribute their name is made of; holds the localpart.
    pub rdn: String,
    /// Their object classes.
    pub classes: Vec<String>,
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LdapConfig {
    /// The directory's name.
    pub name: String,
    /// Which defaults fit.
    pub product: Product,
    /// Servers, the preferred first.
    pub hosts: Vec<HostConfig>,
    /// Certificates (PEM) that sign the servers'. Absent: those the system trusts.
    pub ca: Option<PathBuf>,
    /// The service account; absent: searches are anonymous.
    pub bind_dn: Option<String>,
    /// Its password; not empty if there is a service account.
    pub bind_password: Secret,
    /// Where people are looked for.
    pub bases: Vec<String>,
    /// Which entries are people.
    pub user_filter: String,
    /// Attributes a login name is looked for in.
    pub login: Vec<String>,
    /// The attribute the address is made of.
    pub jid: String,
    /// How.
    pub jid_form: JidForm,
    /// Domains served from this directory, prepared.
    pub domains: Vec<String>,
    /// What is what.
    pub attributes: AttributeMap,
    /// Largest photo handed on, in bytes.
    pub photo_bytes_max: usize,
    /// Who may not log in, beside what the usual attributes say.
    pub disabled_filter: Option<String>,
    /// The attribute with SCRAM keys.
    pub scram_attribute: Option<String>,
    /// Groups; absent: there are none.
    pub groups: Option<GroupsConfig>,
    /// New accounts; absent: none are made.
    pub register: Option<RegisterConfig>,
    /// Passwords can be changed through us.
    pub change_password: bool,
    /// A connection must be made, TLS included, in this time.
    pub connect_timeout: Duration,
    /// An operation must be answered in this time.
    pub operation_timeout: Duration,
    /// A sweep must be done in this time.
    pub sweep_timeout: Duration,
    /// Most connections for searching, and as many for checking passwords.
    pub connections_max: usize,
    /// Entries asked for at a time in a sweep.
    pub page_size: u32,
}

fn list(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

impl AttributeMap {
    /// What is usual.
    pub fn usual(product: Product) -> Self {
        let active = product == Product::ActiveDirectory;
        AttributeMap {
            name: list(&["displayName", "cn"]),
            given_name: list(&["givenName"]),
            family_name: list(&["sn"]),
            mail: list(&["mail"]),
            phone: list(&["telephoneNumber", "mobile"]),
            title: list(&["title"]),
            organisation: list(if active { &["company"] } else { &["o"] }),
            unit: list(if active {
                &["department"]
            } else {
                &["departmentNumber", "ou"]
            }),
            photo: list(if active {
                &["thumbnailPhoto", "jpegPhoto"]
            } else {
                &["jpegPhoto"]
            }),
            home: Vec::new(),
            id: list(if active {
                &["objectGUID"]
            } else {
                &["entryUUID"]
            }),
        }
    }
}

impl GroupsConfig {
    /// What is usual.
    pub fn usual(product: Product, bases: Vec<String>) -> Self {
        let active = product == Product::ActiveDirectory;
        GroupsConfig {
            bases,
            filter: if active {
                "(objectClass=group)".to_owned()
            } else {
                "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup)(objectClass=groupOfURLs))"
                    .to_owned()
            },
            name: "cn".to_owned(),
            title: None,
            member: list(if active {
                &["member"]
            } else {
                &["member", "uniqueMember"]
            }),
            member_uid: list(if active { &[] } else { &["memberUid"] }),
            member_url: list(if active { &[] } else { &["memberURL"] }),
            member_of: None,
            nested: true,
            in_chain: false,
            // Active Directory has dozens of technical groups, and one with everybody.
            in_rosters: list(if active { &[] } else { &["*"] }),
            in_rosters_filter: None,
        }
    }
}

impl LdapConfig {
    /// What is usual: everything but servers, bases and the service account.
    pub fn usual(name: &str, product: Product) -> Self {
        let active = product == Product::ActiveDirectory;
        LdapConfig {
            name: name.to_owned(),
            product,
            hosts: Vec::new(),
            ca: None,
            bind_dn: None,
            bind_password: Secret::default(),
            bases: Vec::new(),
            user_filter: if active {
                "(&(objectCategory=person)(objectClass=user))".to_owned()
            } else {
                "(objectClass=inetOrgPerson)".to_owned()
            },
            login: list(if active {
                &["sAMAccountName", "userPrincipalName", "mail"]
            } else {
                &["uid", "mail"]
            }),
            jid: if active { "sAMAccountName" } else { "uid" }.to_owned(),
            jid_form: JidForm::Localpart,
            domains: Vec::new(),
            attributes: AttributeMap::usual(product),
            photo_bytes_max: 102_400,
            disabled_filter: None,
            scram_attribute: None,
            groups: None,
            register: None,
            change_password: false,
            connect_timeout: Duration::from_secs(3),
            operation_timeout: Duration::from_secs(5),
            sweep_timeout: Duration::from_secs(300),
            connections_max: 16,
            page_size: 500,
        }
    }

    /// Attributes that say whether somebody may log in.
    const STATE: &'static [&'static str] = &[
        "userAccountControl",
        "msDS-User-Account-Control-Computed",
        "accountExpires",
        "shadowExpire",
        "nsAccountLock",
        "pwdAccountLockedTime",
        "pwdEndTime",
    ];

    fn attributes_of<'a>(&'a self, more: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let state = Self::STATE.iter().map(|a| (*a).to_owned());
        let all: BTreeSet<String> = std::iter::once(&self.jid)
            .chain(more)
            .cloned()
            .chain(state)
            .collect();
        all.into_iter().collect()
    }

    /// What is asked for of one person.
    pub(super) fn person_attributes(&self) -> Vec<String> {
        let a = &self.attributes;
        let profile = [
            &a.name,
            &a.given_name,
            &a.family_name,
            &a.mail,
            &a.phone,
            &a.title,
            &a.organisation,
            &a.unit,
            &a.home,
        ];
        self.attributes_of(profile.into_iter().flatten().chain(&self.login))
    }

    /// What is asked for of everybody.
    pub(super) fn sweep_attributes(&self) -> Vec<String> {
        let groups: Vec<String> = match &self.groups {
            Some(g) => list(&["uid", "gidNumber", "primaryGroupID"])
                .into_iter()
                .chain(g.member_of.clone())
                .collect(),
            None => Vec::new(),
        };
        let a = &self.attributes;
        self.attributes_of(a.name.iter().chain(&a.id).chain(&groups))
    }
}
