//! Everybody and every group, in a few long searches over one connection.
//!
//! Never: gives half of it. What a server cannot give whole is an error, and the population stays as it was.

use super::config::GroupsConfig;
use super::entry::Entry;
use super::groups::{self, FoundGroup, FoundPerson};
use super::link::{Fault, Link, Query, code};
use super::pool::Manner;
use super::{LdapDirectory, distinct, dn, filter, people};
use crate::DirectoryError;
use crate::backend::{Sweep, SweptPerson};
use ldap3::Scope;
use std::collections::HashSet;
use std::time::{Instant, SystemTime};
use xmpp::jid::BareJid;

/// Most searches that groups may ask for by `memberURL` in one sweep.
const MEMBER_URLS_MAX: usize = 1_000;

/// Longest id: a UUID has 36 bytes, and so many are kept for everybody.
const ID_BYTES_MAX: usize = 128;

/// What one sweep has brought in, before it is worked on.
struct Haul {
    people: Vec<Entry>,
    disabled: HashSet<String>,
    groups: Vec<(Entry, Vec<String>)>,
    in_rosters: HashSet<String>,
    referrals: usize,
    notes: Vec<String>,
    /// The server has refused to give the groups, and why.
    groups_refused: Option<String>,
}

impl LdapDirectory {
    pub(super) fn swept_now(&self) -> Result<Sweep, DirectoryError> {
        let until = Instant::now() + self.config.sweep_timeout;
        let (haul, _) = self
            .searching
            .ask(Manner::AgainLong, |link| self.haul(link, until))?;
        self.heard_referrals(haul.referrals);
        let (sweep, notes) = self.sorted(&haul);
        self.remember_groups(haul.groups_refused.as_deref());
        self.remember_sweep(sweep.people.len())?;
        for note in haul.notes.into_iter().chain(notes) {
            self.note(note);
        }
        Ok(sweep)
    }

    fn haul(&self, link: &mut Link, until: Instant) -> Result<Haul, Fault> {
        let (bases, filter) = (&self.config.bases, &self.config.user_filter);
        let attributes = self.config.sweep_attributes();
        let (people, referrals) = self.all(link, bases, filter, attributes, until)?;
        let mut haul = Haul {
            people,
            disabled: self.filtered_entries(link, until)?,
            groups: Vec::new(),
            in_rosters: HashSet::new(),
            referrals,
            notes: Vec::new(),
            groups_refused: None,
        };
        if let Some(config) = &self.config.groups {
            if let Some(attribute) = &config.member_of {
                for person in &mut haul.people {
                    complete(link, person, attribute, until)?;
                }
            }
            // People are known by now. A server that gives no groups (a wrong base, a right that is missing) still checks passwords.
            match self.haul_groups(link, config, until, &mut haul) {
                Err(Fault::Refused { why, .. }) => {
                    haul.groups.clear();
                    haul.in_rosters.clear();
                    haul.groups_refused = Some(why);
                }
                other => other?,
            }
        }
        Ok(haul)
    }

    /// Every entry under these bases, and how many referrals there were beside them.
    fn all(
        &self,
        link: &mut Link,
        bases: &[String],
        filter: &str,
        attributes: Vec<String>,
        until: Instant,
    ) -> Result<(Vec<Entry>, usize), Fault> {
        let (mut entries, mut referrals) = (Vec::new(), 0);
        for base in bases {
            let query = Query {
                base: base.clone(),
                scope: Scope::Subtree,
                filter: filter.to_owned(),
                attributes: attributes.clone(),
            };
            let found = link.search_all(&query, self.config.page_size, until)?;
            referrals += found.referrals;
            entries.extend(found.entries);
        }
        Ok((distinct(entries), referrals))
    }

    fn haul_groups(
        &self,
        link: &mut Link,
        config: &GroupsConfig,
        until: Instant,
        haul: &mut Haul,
    ) -> Result<(), Fault> {
        let wanted = attributes(config);
        let (groups, referrals) = self.all(link, &config.bases, &config.filter, wanted, until)?;
        haul.referrals += referrals;
        if let Some(wanted) = &config.in_rosters_filter {
            let both = filter::all([&config.filter, wanted]);
            let (shown, _) = self.all(link, &config.bases, &both, vec!["1.1".to_owned()], until)?;
            haul.in_rosters = shown.iter().filter_map(|e| dn::canonical(&e.dn)).collect();
        }
        let mut urls = 0;
        for mut group in groups {
            for attribute in &config.member {
                complete(link, &mut group, attribute, until)?;
            }
            let found =
                self.found_members(link, config, &group, &mut urls, until, &mut haul.notes)?;
            haul.groups.push((group, found));
        }
        Ok(())
    }

    /// Members that the server finds: by the group's URLs, and in Active Directory's own way.
    fn found_members(
        &self,
        link: &mut Link,
        config: &GroupsConfig,
        group: &Entry,
        urls: &mut usize,
        until: Instant,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>, Fault> {
        let mut queries = Vec::new();
        for text in config.member_url.iter().flat_map(|a| group.strings(a)) {
            match groups::member_url(text) {
                Ok(url) => queries.push(Query {
                    base: url.base,
                    scope: url.scope,
                    filter: filter::all([&url.filter, &self.config.user_filter]),
                    attributes: vec!["1.1".to_owned()],
                }),
                Err(why) => notes.push(format!("a URL of the group {} {why}: {text:?}", group.dn)),
            }
        }
        if config.in_chain {
            let in_chain = format!(
                "(memberOf:1.2.840.113556.1.4.1941:={})",
                filter::escape(&group.dn)
            );
            queries.extend(self.config.bases.iter().map(|base| Query {
                base: base.clone(),
                scope: Scope::Subtree,
                filter: filter::all([&in_chain, &self.config.user_filter]),
                attributes: vec!["1.1".to_owned()],
            }));
        } else {
            *urls += queries.len();
            if *urls > MEMBER_URLS_MAX {
                return Err(Fault::Refused {
                    code: code::SIZE_LIMIT_EXCEEDED,
                    why: format!(
                        "groups ask for more than {MEMBER_URLS_MAX} searches by memberURL"
                    ),
                });
            }
        }
        let mut found = Vec::new();
        for query in queries {
            let entries = link
                .search_all(&query, self.config.page_size, until)
                .map_err(|fault| match fault {
                    Fault::Refused { code, why } => Fault::Refused {
                        code,
                        why: format!("members of the group {}: {why}", group.dn),
                    },
                    broken => broken,
                })?;
            found.extend(entries.entries.into_iter().map(|e| e.dn));
        }
        Ok(found)
    }

    /// From entries to a sweep, and what an administrator should know.
    fn sorted(&self, haul: &Haul) -> (Sweep, Vec<String>) {
        let now = SystemTime::now();
        let mut notes = Vec::new();
        let mut seen: HashSet<BareJid> = HashSet::new();
        let mut twice: HashSet<BareJid> = HashSet::new();
        let mut found = Vec::new();
        let mut nameless = 0;
        for entry in &haul.people {
            let mut jids = Vec::new();
            let mut why = None;
            for domain in &self.config.domains {
                match self.config.jid_of(entry, domain) {
                    Ok(jid) => jids.push(jid),
                    Err(people::NoAddress::Elsewhere(_)) => {}
                    Err(other) => why = Some(other),
                }
            }
            if jids.is_empty() && why.is_some() {
                nameless += 1;
            }
            for jid in &jids {
                if !seen.insert(jid.clone()) {
                    twice.insert(jid.clone());
                }
            }
            found.push(FoundPerson { entry, jids });
        }
        if nameless > 0 {
            notes.push(format!(
                "{nameless} entries have no usable {} and are nobody",
                self.config.jid
            ));
        }
        for jid in &twice {
            notes.push(format!(
                "the address {} fits several entries and is nobody's",
                jid.as_str()
            ));
        }
        let mut swept = Vec::new();
        for person in &mut found {
            person.jids.retain(|jid| !twice.contains(jid));
            let named =
                dn::canonical(&person.entry.dn).is_some_and(|dn| haul.disabled.contains(&dn));
            let disabled = named || people::disabled(person.entry, now).is_some_and(|d| d.lasting);
            swept.extend(person.jids.iter().map(|jid| SweptPerson {
                jid: jid.clone(),
                name: person.entry.first(&self.config.attributes.name),
                disabled,
                id: id_of(person.entry, &self.config.attributes.id),
            }));
        }
        let mut sweep = Sweep {
            people: swept,
            groups: Vec::new(),
            groups_unknown: haul.groups_refused.clone(),
        };
        if let Some(config) = &self.config.groups {
            let groups: Vec<FoundGroup<'_>> = haul
                .groups
                .iter()
                .map(|(entry, members)| FoundGroup {
                    entry,
                    found: members.clone(),
                    in_rosters: dn::canonical(&entry.dn)
                        .is_some_and(|dn| haul.in_rosters.contains(&dn)),
                })
                .collect();
            let (resolved, more) = groups::resolve(config, &found, &groups);
            sweep.groups = resolved;
            notes.extend(more);
        }
        (sweep, notes)
    }
}

/// The first of these attributes that has a value. A text as it is, other bytes (Active Directory's objectGUID) in hexadecimal.
fn id_of(entry: &Entry, attributes: &[String]) -> Option<String> {
    let mut values = attributes.iter().filter_map(|a| entry.values(a).first());
    let value = values.next().filter(|v| v.len() <= ID_BYTES_MAX)?;
    let text = std::str::from_utf8(value).ok();
    let text = text.filter(|t| !t.is_empty() && t.chars().all(|c| c.is_ascii_graphic()));
    Some(match text {
        Some(text) => text.to_owned(),
        None => value.iter().map(|b| format!("{b:02x}")).collect(),
    })
}

fn attributes(config: &GroupsConfig) -> Vec<String> {
    let fixed = ["gidNumber", "primaryGroupToken"].map(str::to_owned);
    std::iter::once(config.name.clone())
        .chain(config.title.clone())
        .chain(config.member.iter().cloned())
        .chain(config.member_uid.iter().cloned())
        .chain(config.member_url.iter().cloned())
        .chain(fixed)
        .collect()
}

/// Fetches the values that Active Directory has left out (`member;range=0-1499`).
fn complete(
    link: &mut Link,
    entry: &mut Entry,
    attribute: &str,
    until: Instant,
) -> Result<(), Fault> {
    let Some((part, mut next)) = entry
        .range(attribute)
        .map(|(part, next)| (part.to_vec(), next))
    else {
        return Ok(());
    };
    entry.extend(attribute, part);
    while let Some(from) = next {
        let query = Query {
            base: entry.dn.clone(),
            scope: Scope::Base,
            filter: filter::present("objectClass"),
            attributes: vec![format!("{attribute};range={from}-*")],
        };
        let found = link.search_all(&query, 1, until)?;
        let part = found.entries.first().and_then(|e| e.range(attribute));
        let Some((part, following)) = part else {
            return Err(Fault::Refused {
                code: code::OTHER,
                why: format!("{attribute} of {} came only in part", entry.dn),
            });
        };
        if following.is_some_and(|n| n <= from) {
            return Err(Fault::Refused {
                code: code::OTHER,
                why: format!("{attribute} of {} has no end", entry.dn),
            });
        }
        let part = part.to_vec();
        entry.extend(attribute, part);
        next = following;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::config::{GroupsConfig, LdapConfig, Product};
    use super::super::entry::entry;
    use super::*;

    fn directory() -> LdapDirectory {
        LdapDirectory::new(LdapConfig {
            domains: vec!["x.example".into(), "y.example".into()],
            groups: Some(GroupsConfig::usual(Product::Ldap, Vec::new())),
            ..LdapConfig::usual("corp", Product::Ldap)
        })
        .unwrap()
    }

    fn haul(people: Vec<Entry>, groups: Vec<Entry>) -> Haul {
        Haul {
            people,
            disabled: HashSet::from(["uid=off,dc=x".to_owned()]),
            groups: groups.into_iter().map(|g| (g, Vec::new())).collect(),
            in_rosters: HashSet::new(),
            referrals: 0,
            notes: Vec::new(),
            groups_refused: None,
        }
    }

    #[test]
    fn everybody_is_at_every_domain_and_namesakes_are_nobody() {
        let people = vec![
            entry("uid=ann,dc=x", &[("uid", &["ann"]), ("cn", &["Ann"])]),
            entry("uid=Off,dc=x", &[("uid", &["off"])]),
            entry(
                "uid=gone,dc=x",
                &[("uid", &["gone"]), ("nsAccountLock", &["TRUE"])],
            ),
            entry("uid=twin,ou=a,dc=x", &[("uid", &["twin"])]),
            entry("uid=twin,ou=b,dc=x", &[("uid", &["Twin"])]),
            entry("cn=printer,dc=x", &[("cn", &["printer"])]),
        ];
        let group = entry(
            "cn=all,dc=x",
            &[
                ("cn", &["all"]),
                (
                    "member",
                    &["uid=ann,dc=x", "uid=twin,ou=a,dc=x", "uid=off,dc=x"],
                ),
            ],
        );
        let (sweep, notes) = directory().sorted(&haul(people, vec![group]));
        let people: Vec<(&str, bool)> = sweep
            .people
            .iter()
            .map(|p| (p.jid.as_str(), p.disabled))
            .collect();
        assert_eq!(
            people,
            [
                ("ann@x.example", false),
                ("ann@y.example", false),
                ("off@x.example", true),
                ("off@y.example", true),
                ("gone@x.example", true),
                ("gone@y.example", true),
            ]
        );
        assert_eq!(sweep.groups[0].members.len(), 4, "{:?}", sweep.groups[0]);
        assert_eq!(notes.len(), 3, "{notes:?}");
    }

    #[test]
    fn an_id_is_a_text_or_bytes() {
        let names = ["entryUUID".to_owned(), "objectGUID".to_owned()];
        for (attribute, value, id) in [
            ("entryUUID", &b"8c7d-1"[..], Some("8c7d-1")),
            ("objectGUID", &[0xff, 0x00, 0x41][..], Some("ff0041")),
            ("objectGUID", &b"A B"[..], Some("412042")),
            ("uid", &b"romeo"[..], None),
            ("entryUUID", &[b'x'; ID_BYTES_MAX + 1][..], None),
        ] {
            let entry = Entry::new("uid=romeo,dc=x", [(attribute, vec![value.to_vec()])]);
            assert_eq!(id_of(&entry, &names).as_deref(), id, "{attribute}");
        }
    }

    #[test]
    fn nobody_at_all_is_an_outage_if_there_was_somebody() {
        let directory = directory();
        assert!(directory.remember_sweep(0).is_ok());
        assert!(directory.remember_sweep(3).is_ok());
        assert!(directory.remember_sweep(0).is_err());
        assert!(directory.remember_sweep(1).is_ok());
    }
}
