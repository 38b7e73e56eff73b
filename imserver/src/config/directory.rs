//! `[[directory]]`: from what is written to what a back end is told.
//!
//! Never: keeps a password in what is shown of a configuration; the password is in a file of its own.

use super::check::{number, required};
use super::file::{DirectoryFile, File};
use super::mail;
use super::reader::{Reader, Strings, Written};
use directory::imap::ImapConfig;
use directory::ldap::config::{
    GroupsConfig, HostConfig, JidForm, LdapConfig, Product, RegisterConfig, Secret, Tls,
};
use directory::ldap::filter;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Attributes whose values usually are whole addresses.
const WHOLE_ADDRESSES: [&str; 2] = ["mail", "userPrincipalName"];

/// Every directory that is written, right or not: a mistake in one is not also a mistake where it is named.
pub(super) fn directories(
    reader: &mut Reader,
    file: &File,
    base: &Path,
) -> (Vec<LdapConfig>, Vec<ImapConfig>) {
    let mut out: Vec<LdapConfig> = Vec::new();
    let mut mail_servers: Vec<ImapConfig> = Vec::new();
    for section in &file.directory {
        let name = required(reader, &section.at, "name", &section.name);
        let kind = required(reader, &section.at, "kind", &section.kind);
        let product = match kind.map(|k| (k, k.value.as_str())) {
            Some((_, "active-directory")) => Product::ActiveDirectory,
            Some((_, "ldap" | mail::KIND)) | None => Product::Ldap,
            Some((at, other)) => {
                reader.wrong(
                    &at.at,
                    format!(
                        "{other:?} is no kind of directory: \"ldap\", \"active-directory\" and \"imap\" are"
                    ),
                );
                Product::Ldap
            }
        };
        let Some(name) = name else { continue };
        if !super::check::is_link_name(&name.value) {
            reader.wrong(
                &name.at,
                format!(
                    "{:?} is no name: letters a-z, digits and hyphens are, at most 63",
                    name.value
                ),
            );
        }
        if name.value == directory::local::NAME {
            reader.wrong(
                &name.at,
                "\"local\" are the accounts in the store; another directory needs another name",
            );
        } else if out.iter().any(|d| d.name == name.value)
            || mail_servers.iter().any(|d| d.name == name.value)
        {
            reader.wrong(&name.at, format!("{:?} is listed twice", name.value));
        }
        if kind.is_some_and(|k| k.value == mail::KIND) {
            mail_servers.push(mail::imap(reader, section, &name.value, base));
        } else {
            out.push(ldap(reader, section, &name.value, product, base));
        }
    }
    (out, mail_servers)
}

/// Tells each directory the domains that name it.
pub(super) fn serve(
    directories: &mut [LdapConfig],
    domains: &[String],
    chains: &HashMap<String, Vec<String>>,
) {
    for directory in directories {
        let names = |domain: &&String| {
            chains
                .get(*domain)
                .is_some_and(|chain| chain.contains(&directory.name))
        };
        directory.domains = domains.iter().filter(names).cloned().collect();
    }
}

fn ldap(
    reader: &mut Reader,
    s: &DirectoryFile,
    name: &str,
    product: Product,
    base: &Path,
) -> LdapConfig {
    let usual = LdapConfig::usual(name, product);
    let hosts = hosts(reader, s);
    let ca = s.ca.as_ref().map(|written| {
        let path = base.join(&written.value);
        if let Err(why) = directory::ldap::read_ca(&path) {
            reader.wrong(&written.at, format!("{} {why}", path.display()));
        }
        path
    });
    let bases = match required(reader, &s.at, "base", &s.base) {
        Some(written) if written.value.0.is_empty() => {
            reader.wrong(&written.at, "is empty: nobody would be found");
            Vec::new()
        }
        Some(written) => written.value.0.clone(),
        None => Vec::new(),
    };
    let jid = attribute(reader, &s.jid).unwrap_or_else(|| usual.jid.clone());
    let jid_form = match s.jid_form.as_ref().map(|w| (w, w.value.as_str())) {
        Some((_, "localpart")) => JidForm::Localpart,
        Some((_, "address")) => JidForm::Address,
        Some((at, other)) => {
            reader.wrong(
                &at.at,
                format!("{other:?} is no form: \"localpart\" and \"address\" are"),
            );
            JidForm::Localpart
        }
        None if WHOLE_ADDRESSES.iter().any(|a| a.eq_ignore_ascii_case(&jid)) => JidForm::Address,
        None => JidForm::Localpart,
    };
    let mut attributes = usual.attributes.clone();
    for (written, slot) in [
        (&s.attr_name, &mut attributes.name),
        (&s.attr_given_name, &mut attributes.given_name),
        (&s.attr_family_name, &mut attributes.family_name),
        (&s.attr_mail, &mut attributes.mail),
        (&s.attr_phone, &mut attributes.phone),
        (&s.attr_title, &mut attributes.title),
        (&s.attr_organisation, &mut attributes.organisation),
        (&s.attr_unit, &mut attributes.unit),
        (&s.attr_photo, &mut attributes.photo),
        (&s.attr_home, &mut attributes.home),
        (&s.attr_id, &mut attributes.id),
    ] {
        if let Some(names) = attribute_list(reader, written) {
            *slot = names;
        }
    }
    let (bind_dn, bind_password) = service(reader, s, base);
    let login = attribute_list(reader, &s.login).unwrap_or(usual.login);
    if let Some(written) = &s.login
        && login.is_empty()
    {
        reader.wrong(&written.at, "is empty: nobody could log in");
    }
    let mut seconds = |value, default: Duration, range| {
        Duration::from_secs(number(reader, value, default.as_secs() as usize, range) as u64)
    };
    let connect_timeout = seconds(&s.connect_timeout_s, usual.connect_timeout, 1..=60);
    let operation_timeout = seconds(&s.operation_timeout_s, usual.operation_timeout, 1..=120);
    let sweep_timeout = seconds(&s.sweep_timeout_s, usual.sweep_timeout, 5..=86_400);
    LdapConfig {
        name: name.to_owned(),
        product,
        hosts,
        ca,
        bind_dn,
        bind_password,
        user_filter: filter_of(reader, &s.user_filter).unwrap_or(usual.user_filter),
        login,
        jid,
        jid_form,
        domains: Vec::new(),
        attributes,
        photo_bytes_max: number(
            reader,
            &s.photo_bytes_max,
            usual.photo_bytes_max,
            0..=1_048_576,
        ),
        disabled_filter: filter_of(reader, &s.disabled_filter),
        scram_attribute: attribute(reader, &s.scram_attribute),
        groups: groups(reader, s, product, &bases),
        register: register(reader, s, product),
        change_password: s.change_password.as_ref().is_some_and(|w| w.value),
        bases,
        connect_timeout,
        operation_timeout,
        sweep_timeout,
        connections_max: number(reader, &s.connections_max, usual.connections_max, 1..=256),
        page_size: u32::try_from(number(
            reader,
            &s.page_size,
            usual.page_size as usize,
            10..=10_000,
        ))
        .unwrap_or(usual.page_size),
    }
}

fn hosts(reader: &mut Reader, s: &DirectoryFile) -> Vec<HostConfig> {
    let Some(written) = required(reader, &s.at, "uri", &s.uri) else {
        return Vec::new();
    };
    if written.value.0.is_empty() {
        reader.wrong(&written.at, "is empty: there is no server");
    }
    let plain = match s.tls.as_ref().map(|w| (w, w.value.as_str())) {
        Some((_, "starttls")) | None => Tls::StartTls,
        Some((_, "none")) => Tls::None,
        Some((at, other)) => {
            reader.wrong(&at.at, format!("{other:?} is no protection: \"starttls\" and \"none\" are; ldaps:// needs none of them"));
            Tls::StartTls
        }
    };
    let mut out = Vec::new();
    for text in &written.value.0 {
        match host(text, plain) {
            Ok(host) => out.push(host),
            Err(why) => reader.wrong(&written.at, format!("{text:?} {why}")),
        }
    }
    if let Some(tls) = &s.tls
        && !out.is_empty()
        && out.iter().all(|h| h.tls == Tls::Direct)
    {
        reader.wrong(&tls.at, "is for ldap://, and every uri is ldaps://");
    }
    out
}

fn host(text: &str, plain: Tls) -> Result<HostConfig, &'static str> {
    const WANTED: &str =
        "is no server, such as \"ldap://ldap.example.org\" or \"ldaps://ldap.example.org:636\"";
    let (rest, tls, usual) = if let Some(rest) = text.strip_prefix("ldaps://") {
        (rest, Tls::Direct, 636)
    } else if let Some(rest) = text.strip_prefix("ldap://") {
        (rest, plain, 389)
    } else {
        return Err(WANTED);
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| WANTED)?),
        _ => (rest, usual),
    };
    if host.starts_with('[') {
        // The library below us cannot check a certificate for one.
        return Err("is an IPv6 address: use a name that has it");
    }
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.is_empty() || port == 0 || !host.chars().all(named) {
        return Err(WANTED);
    }
    Ok(HostConfig {
        host: host.to_owned(),
        port,
        tls,
    })
}

fn service(reader: &mut Reader, s: &DirectoryFile, base: &Path) -> (Option<String>, Secret) {
    let dn = match &s.bind_dn {
        Some(written) if written.value.trim().is_empty() => {
            reader.wrong(&written.at, "is empty; leave it out to search anonymously");
            None
        }
        other => other.as_ref().map(|w| w.value.clone()),
    };
    let Some(written) = &s.bind_password_file else {
        if let Some(written) = &s.bind_dn {
            reader.wrong(&written.at, "needs a bind_password_file");
        }
        return (dn, Secret::default());
    };
    if s.bind_dn.is_none() {
        reader.wrong(&written.at, "is of no use without bind_dn");
    }
    let path = base.join(&written.value);
    let password = match secret(&path) {
        Ok(password) => password,
        Err(why) => {
            reader.wrong(&written.at, format!("{} {why}", path.display()));
            String::new()
        }
    };
    (dn, Secret(password))
}

/// A password on the first line of a file that not everybody can read.
pub(super) fn secret(path: &Path) -> Result<String, String> {
    let mode = std::fs::metadata(path)
        .map_err(|e| format!("cannot be read: {e}"))?
        .mode();
    if mode & 0o007 != 0 {
        return Err(format!(
            "can be read by everybody (mode {:o}): chmod 600",
            mode & 0o777
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    match text.lines().next() {
        // An empty password would make the bind an anonymous one (RFC 4513 §5.1.2).
        None | Some("") => Err("is empty".to_owned()),
        Some(password) => Ok(password.to_owned()),
    }
}

fn groups(
    reader: &mut Reader,
    s: &DirectoryFile,
    product: Product,
    bases: &[String],
) -> Option<GroupsConfig> {
    let bases = s
        .group_base
        .as_ref()
        .map_or_else(|| bases.to_vec(), |w| w.value.0.clone());
    let usual = GroupsConfig::usual(product, bases);
    let list = |written: &Option<Written<Strings>>| written.as_ref().map(|w| w.value.0.clone());
    let groups = GroupsConfig {
        filter: filter_of(reader, &s.group_filter).unwrap_or(usual.filter),
        name: attribute(reader, &s.group_name).unwrap_or(usual.name),
        title: attribute(reader, &s.group_title),
        member: attribute_list(reader, &s.group_member).unwrap_or(usual.member),
        member_uid: attribute_list(reader, &s.group_member_uid).unwrap_or(usual.member_uid),
        member_url: attribute_list(reader, &s.group_member_url).unwrap_or(usual.member_url),
        member_of: attribute(reader, &s.group_member_of),
        nested: s.group_nested.as_ref().is_none_or(|w| w.value),
        in_chain: s.group_in_chain.as_ref().is_some_and(|w| w.value),
        in_rosters: list(&s.group_in_rosters).unwrap_or(match s.group_in_rosters_filter {
            Some(_) => Vec::new(),
            None => usual.in_rosters,
        }),
        in_rosters_filter: filter_of(reader, &s.group_in_rosters_filter),
        bases: usual.bases,
    };
    if groups.in_chain && product != Product::ActiveDirectory {
        let at = s
            .group_in_chain
            .as_ref()
            .map(|w| w.at.clone())
            .unwrap_or_default();
        reader.wrong(
            &at,
            "is something that only kind = \"active-directory\" can do",
        );
    }
    (!groups.bases.is_empty()).then_some(groups)
}

fn register(reader: &mut Reader, s: &DirectoryFile, product: Product) -> Option<RegisterConfig> {
    let classes = s.register_classes.as_ref().map(|w| w.value.0.clone());
    let rdn = attribute(reader, &s.register_rdn);
    let Some(base) = &s.register_base else {
        for at in [
            s.register_classes.as_ref().map(|w| &w.at),
            s.register_rdn.as_ref().map(|w| &w.at),
        ]
        .into_iter()
        .flatten()
        {
            reader.wrong(at, "is of no use without register_base");
        }
        return None;
    };
    if product == Product::ActiveDirectory {
        reader.wrong(
            &base.at,
            "is not for kind = \"active-directory\": accounts are made by its own tools",
        );
    }
    if s.bind_dn.is_none() {
        reader.wrong(&base.at, "needs bind_dn: nobody may write anonymously");
    }
    Some(RegisterConfig {
        base: base.value.clone(),
        rdn: rdn.unwrap_or_else(|| "uid".to_owned()),
        classes: classes.unwrap_or_else(|| vec!["inetOrgPerson".to_owned()]),
    })
}

fn filter_of(reader: &mut Reader, value: &Option<Written<String>>) -> Option<String> {
    let written = value.as_ref()?;
    if let Err(why) = filter::check(&written.value) {
        reader.wrong(&written.at, format!("{:?} {why}", written.value));
    }
    Some(written.value.clone())
}

fn attribute(reader: &mut Reader, value: &Option<Written<String>>) -> Option<String> {
    let written = value.as_ref()?;
    if !filter::is_attribute(&written.value) {
        reader.wrong(
            &written.at,
            format!("{:?} cannot be the name of an attribute", written.value),
        );
    }
    Some(written.value.clone())
}

fn attribute_list(reader: &mut Reader, value: &Option<Written<Strings>>) -> Option<Vec<String>> {
    let written = value.as_ref()?;
    for name in written.value.0.iter().filter(|n| !filter::is_attribute(n)) {
        reader.wrong(
            &written.at,
            format!("{name:?} cannot be the name of an attribute"),
        );
    }
    Some(written.value.0.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        let of = |host: &str, port, tls| {
            Ok(HostConfig {
                host: host.into(),
                port,
                tls,
            })
        };
        for (text, expected) in [
            ("ldap://a.example", of("a.example", 389, Tls::StartTls)),
            (
                "ldap://a.example:1389/",
                of("a.example", 1389, Tls::StartTls),
            ),
            ("ldaps://127.0.0.1", of("127.0.0.1", 636, Tls::Direct)),
            ("ldaps://a:7636", of("a", 7636, Tls::Direct)),
        ] {
            assert_eq!(host(text, Tls::StartTls), expected, "{text}");
        }
        for bad in [
            "",
            "a.example",
            "http://a",
            "ldapi:///",
            "ldap://",
            "ldap://:389",
            "ldap://a:0",
            "ldap://a:x",
            "ldap://a/dc=x",
            "ldap://u@a",
            "ldap://[::1]",
            "ldap://[::1]:389",
            "ldap://a:70000",
            "ldap://a b",
        ] {
            assert!(host(bad, Tls::StartTls).is_err(), "{bad}");
        }
    }
}
