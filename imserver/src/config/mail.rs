//! `[[directory]]` of kind `imap`: mail servers that check passwords.
//!
//! Never: a password in the clear to another host.

use super::check::{number, required};
use super::file::{DirectoryFile, File, Shown};
use super::reader::Reader;
use directory::imap::{ImapConfig, LoginForm, ServerConfig, Tls, is_loopback};
use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::time::Duration;

/// How this kind is called.
pub(super) const KIND: &str = "imap";

/// Keys of this kind.
const KEYS: [&str; 8] = [
    "name",
    "kind",
    "uri",
    "tls",
    "ca",
    "login",
    "operation_timeout_s",
    "connections_max",
];

/// A mail server takes two seconds to refuse a password, some take more.
const TIMEOUT_S: usize = 10;

/// Each is one password being checked.
const CONNECTIONS: usize = 16;

/// One section.
pub(super) fn imap(reader: &mut Reader, s: &DirectoryFile, name: &str, base: &Path) -> ImapConfig {
    let mut shown = Shown::new();
    s.show("", &mut shown);
    for key in shown.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        reader.wrong_in(&s.at, key, "is not for kind = \"imap\"");
    }
    let plain = match s.tls.as_ref().map(|w| (w, w.value.as_str())) {
        Some((_, "starttls")) | None => Tls::StartTls,
        Some((_, "none")) => Tls::None,
        Some((at, other)) => {
            reader.wrong(&at.at, format!("{other:?} is no protection: \"starttls\" and \"none\" are; imaps:// needs none of them"));
            Tls::StartTls
        }
    };
    let servers = servers(reader, s, plain);
    if let Some(written) = &s.tls {
        let open = |s: &&ServerConfig| s.tls == Tls::None && !is_loopback(&s.host);
        if let Some(server) = servers.iter().find(open) {
            reader.wrong(
                &written.at,
                format!("\"none\" is for servers on this host, and {server} is elsewhere"),
            );
        } else if !servers.is_empty() && servers.iter().all(|s| s.tls == Tls::Direct) {
            reader.wrong(&written.at, "is for imap://, and every uri is imaps://");
        }
    }
    let ca = s.ca.as_ref().map(|written| {
        let path = base.join(&written.value);
        if let Err(why) = directory::ldap::read_ca(&path) {
            reader.wrong(&written.at, format!("{} {why}", path.display()));
        }
        path
    });
    let login = match s.login.as_ref().map(|w| (w, w.value.0.as_slice())) {
        None => LoginForm::Localpart,
        Some((_, [one])) if one == "localpart" => LoginForm::Localpart,
        Some((_, [one])) if one == "address" => LoginForm::Address,
        Some((at, _)) => {
            reader.wrong(
                &at.at,
                "is what a mail server is told: \"localpart\" or \"address\"",
            );
            LoginForm::Localpart
        }
    };
    let timeout = number(reader, &s.operation_timeout_s, TIMEOUT_S, 1..=120);
    ImapConfig {
        name: name.to_owned(),
        servers,
        ca,
        login,
        timeout: Duration::from_secs(timeout as u64),
        connections_max: number(reader, &s.connections_max, CONNECTIONS, 1..=256),
    }
}

fn servers(reader: &mut Reader, s: &DirectoryFile, plain: Tls) -> Vec<ServerConfig> {
    let Some(written) = required(reader, &s.at, "uri", &s.uri) else {
        return Vec::new();
    };
    if written.value.0.is_empty() {
        reader.wrong(&written.at, "is empty: there is no server");
    }
    let mut out = Vec::new();
    for text in &written.value.0 {
        match server(text, plain) {
            Some(server) => out.push(server),
            None => reader.wrong(
                &written.at,
                format!("{text:?} is no mail server, such as \"imaps://mail.example.org\" or \"imap://mail.example.org:143\""),
            ),
        }
    }
    out
}

fn server(text: &str, plain: Tls) -> Option<ServerConfig> {
    let (rest, tls, usual) = match text.strip_prefix("imaps://") {
        Some(rest) => (rest, Tls::Direct, 993),
        None => (text.strip_prefix("imap://")?, plain, 143),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (rest, usual),
    };
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().ok()?.to_string(),
        None => host.to_owned(),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_v6 = rest.starts_with('[');
    let fits = port != 0 && !host.is_empty() && (is_v6 || host.chars().all(named));
    fits.then_some(ServerConfig { host, port, tls })
}

/// A mail server cannot say who exists: a directory behind it in a chain would never be asked.
pub(super) fn last_in_chains(
    reader: &mut Reader,
    file: &File,
    directories: &[ImapConfig],
    chains: &HashMap<String, Vec<String>>,
) {
    for section in &file.domain {
        let (Some(name), Some(written)) = (&section.name, &section.directory) else {
            continue;
        };
        let chain = crate::policy::domain(&name.value).and_then(|d| chains.get(&d));
        let Some((_, earlier)) = chain.and_then(|c| c.split_last()) else {
            continue;
        };
        for name in earlier {
            if directories.iter().any(|d| d.name == *name) {
                reader.wrong(
                    &written.at,
                    format!("{name:?} must be the last: a mail server cannot say who exists, so the next one would not be asked"),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read() {
        for (text, host, port, tls) in [
            ("imaps://mail.example", "mail.example", 993, Tls::Direct),
            ("imap://mail.example/", "mail.example", 143, Tls::StartTls),
            ("imaps://192.0.2.1:1993", "192.0.2.1", 1993, Tls::Direct),
            ("imaps://[2001:DB8::1]", "2001:db8::1", 993, Tls::Direct),
            ("imap://[::1]:1143", "::1", 1143, Tls::StartTls),
        ] {
            let expected = ServerConfig {
                host: host.into(),
                port,
                tls,
            };
            assert_eq!(server(text, Tls::StartTls), Some(expected), "{text}");
        }
        for text in [
            "",
            "mail.example",
            "imap://",
            "imap://:143",
            "imap://mail.example:",
            "imap://mail.example:0",
            "imap://mail.example:99999",
            "ldap://mail.example",
            "imap://2001:db8::1",
            "imap://a b",
            "imap://[mail.example]",
            "imap://mail.example/x",
        ] {
            assert_eq!(server(text, Tls::StartTls), None, "{text}");
        }
    }
}
