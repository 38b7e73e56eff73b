//! What the keys of `imserver.toml` mean: defaults, ranges, names, and what must fit together.

use super::file::{AdministratorFile, DomainFile, EMBEDDED_MUX, File, MuxFile};
use super::reader::{At, Mistake, Mistakes, Reader, StringMap, Strings, Written};
use super::{
    AdminConfig, AdministratorConfig, AuthConfig, Config, Conflict, GssapiConfig, LimitsConfig,
    LinkConfig, LinkTls, LogConfig, Mechanism, MuxConfig, SearchConfig, SessionConfig,
};
use crate::certificate::CertificateMapping;
use crate::policy::{Policy, Right};
use directory::cache::CacheConfig;
use directory::gssapi::Realms;
use mux::config::files;
use proto::frame::ListenerKind;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `for_start`: also what stands in the way of a start, but not of a reload.
pub(super) fn check(text: &str, path: &Path, for_start: bool) -> Result<Config, Mistakes> {
    let (mut reader, table) = Reader::parse(path, text);
    let syntax_is_good = reader.is_clean();
    let written = File::read(table, &mut reader);
    let base = path.parent().unwrap_or(Path::new(""));
    let embedded_mux = match syntax_is_good {
        true => embedded_mux(&mut reader, text, path, for_start),
        false => None,
    };
    if for_start && let Some(dir) = &written.top.data_dir {
        // It says why, with the path.
        let _ = super::data_dir::usable(&base.join(&dir.value))
            .map_err(|why| reader.wrong(&dir.at, why));
    }
    let config = checked(path, base, &written, embedded_mux, &mut reader);
    reader.finish()?;
    Ok(config)
}

fn embedded_mux(
    reader: &mut Reader,
    text: &str,
    path: &Path,
    with_files: bool,
) -> Option<mux::config::Config> {
    let section = mux::config::parse_section(text, path, EMBEDDED_MUX, with_files);
    section.unwrap_or_else(|mistakes| {
        reader.adopt(mistakes.into_iter().map(|m| Mistake {
            file: m.file,
            line: m.line,
            key: String::new(),
            text: m.text,
        }));
        None
    })
}

fn checked(
    path: &Path,
    base: &Path,
    written: &File,
    embedded_mux: Option<mux::config::Config>,
    reader: &mut Reader,
) -> Config {
    let name = required(reader, &written.top.at, "name", &written.top.name);
    if let Some(name) = name {
        link_name(reader, name);
    }
    let data_dir = required(reader, &written.top.at, "data_dir", &written.top.data_dir);
    let (mut directories, mail_directories) = super::directory::directories(reader, written, base);
    let names = directories.iter().map(|d| d.name.as_str());
    let names = names.chain(mail_directories.iter().map(|d| d.name.as_str()));
    let chains = chains(reader, written, names);
    super::mail::last_in_chains(reader, written, &mail_directories, &chains);
    // Accounts in the store and those of mail servers are in no groups.
    let has_groups = chains.values().flatten().any(|name| {
        name != directory::local::NAME && mail_directories.iter().all(|d| d.name != *name)
    });
    let policy = match required(reader, &written.top.at, "policy", &written.top.policy) {
        Some(policy) => {
            load_policy(&base.join(&policy.value), has_groups).unwrap_or_else(|mistakes| {
                let unreadable = mistakes.0.iter().any(|m| m.line == 0);
                if unreadable {
                    let why = mistakes
                        .0
                        .iter()
                        .map(|m| m.text.clone())
                        .collect::<Vec<_>>()
                        .join("; ");
                    reader.wrong(
                        &policy.at,
                        format!("{}: {why}", base.join(&policy.value).display()),
                    );
                } else {
                    reader.adopt(mistakes.0);
                }
                Policy::default()
            })
        }
        None => Policy::default(),
    };

    let domains = domains(reader, written);
    super::directory::serve(&mut directories, &domains, &chains);
    let directory_cache = directory_cache(reader, written);
    let autosubscribe = autosubscribe(written);
    let contacts = super::contacts::contacts(reader, written);
    let reports_to = super::contacts::reports_to(reader, written, &domains);
    let embedded = embedded_mux.is_some();
    let admin = AdminConfig {
        listen: addresses(reader, &written.admin.listen),
        socket: super::socket::check(reader, base, &written.admin.socket),
        audit_log: match (&written.admin.audit_log, data_dir) {
            (Some(file), _) => base.join(&file.value),
            (None, Some(dir)) => base.join(&dir.value).join("audit.log"),
            (None, None) => PathBuf::new(),
        },
    };
    let administrators = administrators(reader, &written.administrator);
    let link = link(reader, written, base, embedded, &admin);
    let components = super::component::components(reader, written, base, &domains);
    let streams = components.iter().map(|c| c.domain.clone());
    let streams: Vec<String> = domains.iter().cloned().chain(streams).collect();
    let muxes = muxes(reader, &written.mux, &streams);
    let auth = auth(reader, written, base, &domains);
    let search = SearchConfig {
        // A person reads some dozens; the answer must fit into one stanza.
        results_max: number(reader, &written.search.results_max, 40, 1..=500),
        across_domains: written
            .search
            .across_domains
            .as_ref()
            .is_some_and(|a| a.value),
    };
    let external_services = super::external::services(reader, written, base);
    let limits = LimitsConfig::check(&written.limits, reader);
    let session = session(reader, written);
    let log = log(reader, written);
    let metrics = addresses(reader, &written.metrics.listen);
    let shards = number(reader, &written.shards.count, 0, 0..=256);
    same_address_twice(reader, written);
    let archive_default = super::archive::default(reader, &written.archive.default);

    Config {
        file: path.to_owned(),
        name: name.map(|n| n.value.clone()).unwrap_or_default(),
        registration: registration(written, &domains),
        autosubscribe,
        reports_to,
        contacts,
        domains,
        chains,
        directories,
        mail_directories,
        directory_cache,
        data_dir: data_dir.map(|d| base.join(&d.value)).unwrap_or_default(),
        policy,
        link,
        muxes,
        admin,
        administrators,
        metrics,
        auth,
        search,
        external_services,
        components,
        limits,
        session,
        archive: super::archive::enabled(written),
        archive_default,
        archive_search: super::archive::search(written),
        archive_domains: super::archive::domains(reader, written, archive_default),
        archive_days: super::archive::days(reader, written),
        archive_days_default: written.archive.days.as_ref().map_or(0, |d| d.value),
        shards,
        log,
        embedded_mux,
        shown: written.shown(),
    }
}

/// The rules, as far as this configuration can follow them.
fn load_policy(file: &Path, has_groups: bool) -> Result<Policy, Mistakes> {
    let policy = Policy::load(file)?;
    if has_groups {
        return Ok(policy);
    }
    let groups: Vec<Mistake> = policy
        .groups()
        .map(|(name, line)| Mistake {
            file: file.to_owned(),
            line,
            key: "rule".into(),
            text: format!("no directory of this server has groups, so nobody is in {name:?}"),
        })
        .collect();
    if groups.is_empty() {
        Ok(policy)
    } else {
        Err(Mistakes(groups))
    }
}

pub(super) fn required<'w, T>(
    reader: &mut Reader,
    section: &At,
    key: &str,
    value: &'w Option<Written<T>>,
) -> Option<&'w Written<T>> {
    if value.is_none() && !reader.has_noted(section, key) {
        reader.wrong_in(section, key, "is missing");
    }
    value.as_ref()
}

/// A number in a range, else the default.
pub(super) fn number(
    reader: &mut Reader,
    value: &Option<Written<u64>>,
    default: usize,
    range: RangeInclusive<usize>,
) -> usize {
    let Some(written) = value else { return default };
    match usize::try_from(written.value) {
        Ok(n) if range.contains(&n) => n,
        _ => {
            let text = format!(
                "must be from {} to {}, not {}",
                range.start(),
                range.end(),
                written.value
            );
            reader.wrong(&written.at, text);
            default
        }
    }
}

fn addresses(reader: &mut Reader, value: &Option<Written<Strings>>) -> Vec<SocketAddr> {
    let Some(written) = value else {
        return Vec::new();
    };
    let mut out = Vec::new();
    for text in &written.value.0 {
        match text.parse() {
            Ok(address) => out.push(address),
            Err(_) => reader.wrong(
                &written.at,
                format!("{text:?} is no address with port, such as \"127.0.0.1:15230\" or \"[::]:15230\""),
            ),
        }
    }
    out
}

/// A port bound twice fails at start with a puzzling "address in use"; say which keys.
fn same_address_twice(reader: &mut Reader, file: &File) {
    let mut seen: Vec<(SocketAddr, String)> = Vec::new();
    for written in [&file.link.listen, &file.admin.listen, &file.metrics.listen]
        .into_iter()
        .flatten()
    {
        for address in written
            .value
            .0
            .iter()
            .filter_map(|t| t.parse::<SocketAddr>().ok())
        {
            if address.port() == 0 {
                continue;
            }
            match seen.iter().find(|(a, _)| *a == address) {
                Some((_, key)) => {
                    reader.wrong(&written.at, format!("{address} is already taken by {key}"))
                }
                None => seen.push((address, written.at.key.clone())),
            }
        }
    }
}

/// Names of servers and muxes become one DNS label of a certificate.
fn link_name(reader: &mut Reader, name: &Written<String>) {
    if !is_link_name(&name.value) {
        reader.wrong(
            &name.at,
            format!(
                "{:?} is no name: letters a-z, digits and hyphens are, at most 63",
                name.value
            ),
        );
    }
}

pub(super) fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// The prepared form of a domain, or a mistake.
fn domain(reader: &mut Reader, at: &At, text: &str) -> Option<String> {
    match crate::policy::domain(text) {
        Some(domain) => Some(domain),
        None => {
            reader.wrong(at, format!("{text:?} is no domain"));
            None
        }
    }
}

fn domains(reader: &mut Reader, file: &File) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for section in &file.domain {
        let Some(name) = required(reader, &section.at, "name", &section.name) else {
            continue;
        };
        let Some(domain) = domain(reader, &name.at, &name.value) else {
            continue;
        };
        if out.contains(&domain) {
            reader.wrong(&name.at, format!("{domain} is listed twice"));
        } else {
            out.push(domain);
        }
    }
    if file.domain.is_empty() && !reader.has_noted(&At::default(), "domain") {
        reader.wrong_in(
            &file.top.at,
            "domain",
            "there is no [[domain]]: nobody could log in",
        );
    }
    out
}

/// The directories of each domain that names any.
fn chains<'n>(
    reader: &mut Reader,
    file: &File,
    directories: impl Iterator<Item = &'n str>,
) -> HashMap<String, Vec<String>> {
    let mut known: Vec<&str> = directories.chain([directory::local::NAME]).collect();
    known.sort_unstable();
    known.dedup();
    let mut chains = HashMap::new();
    for section in &file.domain {
        let (Some(name), Some(written)) = (&section.name, &section.directory) else {
            continue;
        };
        if written.value.0.is_empty() {
            reader.wrong(&written.at, "is empty: nobody could log in");
        }
        for (n, directory) in written.value.0.iter().enumerate() {
            if !known.contains(&directory.as_str()) {
                let text = format!(
                    "there is no directory {directory:?}: {} are",
                    known.join(", ")
                );
                reader.wrong(&written.at, text);
            }
            if written.value.0[..n].contains(directory) {
                reader.wrong(&written.at, format!("{directory:?} is listed twice"));
            }
        }
        if let Some(domain) = crate::policy::domain(&name.value) {
            chains.insert(domain, written.value.0.clone());
        }
    }
    chains
}

fn directory_cache(reader: &mut Reader, file: &File) -> CacheConfig {
    let f = &file.directory_cache;
    let default = CacheConfig::default();
    let mut seconds = |value, default: Duration, range| {
        let default = default.as_secs() as usize;
        Duration::from_secs(number(reader, value, default, range) as u64)
    };
    const DAY: usize = 86_400;
    let times = CacheConfig {
        ttl: seconds(&f.ttl_s, default.ttl, 1..=DAY),
        idle: seconds(&f.idle_s, default.idle, 1..=30 * DAY),
        negative_ttl: seconds(&f.negative_ttl_s, default.negative_ttl, 0..=DAY),
        stale: seconds(&f.stale_s, default.stale, 0..=30 * DAY),
        password: seconds(&f.password_s, default.password, 0..=30 * DAY),
        ..default
    };
    let entries = number(
        reader,
        &f.entries_max,
        default.entries_max as usize,
        100..=100_000_000,
    );
    CacheConfig {
        entries_max: entries as u64,
        ..times
    }
}

/// Domains where strangers may make themselves accounts.
fn registration(file: &File, domains: &[String]) -> Vec<String> {
    let on = file
        .domain
        .iter()
        .filter(|section| section.registration.as_ref().is_some_and(|r| r.value));
    let names = on.filter_map(|section| crate::policy::domain(&section.name.as_ref()?.value));
    names.filter(|name| domains.contains(name)).collect()
}

/// Domains with the switch on. What is wrong with their names has been said.
fn autosubscribe(file: &File) -> Vec<String> {
    let on = |s: &&DomainFile| s.autosubscribe.as_ref().is_some_and(|a| a.value);
    let names = file
        .domain
        .iter()
        .filter(on)
        .filter_map(|s| s.name.as_ref());
    names
        .filter_map(|n| crate::policy::domain(&n.value))
        .collect()
}

fn link(
    reader: &mut Reader,
    file: &File,
    base: &Path,
    embedded: bool,
    admin: &AdminConfig,
) -> LinkConfig {
    let listen = addresses(reader, &file.link.listen);
    let socket = super::socket::check(reader, base, &file.link.socket);
    if let (Some(written), Some(socket)) = (&file.link.socket, &socket)
        && admin.socket.as_ref() == Some(socket)
    {
        reader.wrong(&written.at, "is that of admin.socket");
    }
    if file.link.listen.is_none()
        && socket.is_none()
        && !embedded
        && !reader.has_noted(&file.link.at, "listen")
    {
        reader.wrong_in(
            &file.link.at,
            "listen",
            "is missing, and there is neither link.socket nor [embedded_mux]: no mux could reach this server",
        );
    }
    let given = [&file.link.ca, &file.link.cert, &file.link.key];
    let wanted = !listen.is_empty() || !admin.listen.is_empty();
    let tls = match wanted || given.iter().any(|g| g.is_some()) {
        true => link_tls(reader, file, base),
        false => None,
    };
    LinkConfig {
        listen,
        socket,
        tls,
    }
}

/// The files of the private CA, each looked at.
fn link_tls(reader: &mut Reader, file: &File, base: &Path) -> Option<LinkTls> {
    let mut named = |key, value| {
        let written = required(reader, &file.link.at, key, value)?;
        Some((base.join(&written.value), &written.at))
    };
    let ca = named("ca", &file.link.ca);
    let cert = named("cert", &file.link.cert);
    let key = named("key", &file.link.key);
    let mut found = |at: &At, why: String| reader.wrong(at, why);
    if let Some((path, at)) = &ca {
        let _ = files::authorities(path).map_err(|why| found(at, why));
    }
    let chain = cert.as_ref().and_then(|(path, at)| {
        let chain = files::certificate(path).map_err(|why| found(at, why));
        chain.ok()
    });
    let private = key.as_ref().and_then(|(path, at)| {
        let private = files::key(path).map_err(|why| found(at, why));
        private.ok()
    });
    if let (Some((path, at)), Some(chain), Some(name)) = (&cert, &chain, &file.top.name)
        && is_link_name(&name.value)
    {
        let wanted = format!("{}.server.isthmus", name.value);
        let _ = files::link_name(path, chain, &wanted).map_err(|why| found(at, why));
    }
    if let (Some((cert, _)), Some(chain)) = (&cert, chain)
        && let (Some((key, at)), Some(private)) = (&key, private)
    {
        let _ = files::belong_together((cert, chain), (key, private)).map_err(|why| found(at, why));
    }
    Some(LinkTls {
        ca: ca?.0,
        cert: cert?.0,
        key: key?.0,
    })
}

fn muxes(reader: &mut Reader, sections: &[MuxFile], served: &[String]) -> Vec<MuxConfig> {
    let mut out: Vec<MuxConfig> = Vec::new();
    let mut names = HashSet::new();
    for section in sections {
        let name = required(reader, &section.at, "name", &section.name);
        if let Some(name) = name {
            link_name(reader, name);
            if !names.insert(name.value.as_str()) {
                reader.wrong(&name.at, format!("{:?} is listed twice", name.value));
            }
        }
        let mut kinds = Vec::new();
        match &section.kinds {
            None => kinds.push(ListenerKind::C2s),
            Some(written) => {
                for kind in &written.value.0 {
                    match kind.as_str() {
                        "c2s" => kinds.push(ListenerKind::C2s),
                        "s2s" => kinds.push(ListenerKind::S2s),
                        "component" => kinds.push(ListenerKind::Component),
                        other => reader.wrong(
                            &written.at,
                            format!("{other:?} is no kind of listener: \"c2s\", \"s2s\" and \"component\" are"),
                        ),
                    }
                }
            }
        }
        let domains = section.domains.as_ref().map(|written| {
            let mut out = Vec::new();
            for text in &written.value.0 {
                let Some(domain) = domain(reader, &written.at, text) else {
                    continue;
                };
                if !served.is_empty() && !served.contains(&domain) {
                    reader.wrong(
                        &written.at,
                        format!("{domain} is not among the [[domain]] and [[component]] sections"),
                    );
                }
                out.push(domain);
            }
            out
        });
        if let Some(name) = name {
            out.push(MuxConfig {
                name: name.value.clone(),
                kinds,
                domains,
                trust_client_certificates: section
                    .trust_client_certificates
                    .as_ref()
                    .is_some_and(|t| t.value),
            });
        }
    }
    out
}

/// What certificates may do that may not do everything.
fn administrators(reader: &mut Reader, sections: &[AdministratorFile]) -> Vec<AdministratorConfig> {
    let mut out: Vec<AdministratorConfig> = Vec::new();
    for section in sections {
        let name = required(reader, &section.at, "name", &section.name);
        if let Some(name) = name {
            link_name(reader, name);
            if out.iter().any(|a| a.name == name.value) {
                reader.wrong(&name.at, format!("{:?} is listed twice", name.value));
            }
        }
        let mut rights = Vec::new();
        if let Some(written) = required(reader, &section.at, "rights", &section.rights) {
            for text in &written.value.0 {
                match Right::ADMINISTRATORS.into_iter().find(|r| r.name() == text) {
                    Some(right) => rights.push(right),
                    None => {
                        let names = Right::ADMINISTRATORS.map(|r| format!("{:?}", r.name()));
                        let text = format!(
                            "{text:?} is no right of an administrator: {} are",
                            names.join(", ")
                        );
                        reader.wrong(&written.at, text);
                    }
                }
            }
        }
        if let Some(name) = name {
            out.push(AdministratorConfig {
                name: name.value.clone(),
                rights,
            });
        }
    }
    out
}

fn auth(reader: &mut Reader, file: &File, base: &Path, domains: &[String]) -> AuthConfig {
    let plaintext = file.auth.plaintext.as_ref().is_some_and(|p| p.value);
    let mut mechanisms = Vec::new();
    match &file.auth.mechanisms {
        None => mechanisms.extend(Mechanism::DEFAULT),
        Some(written) => {
            for text in &written.value.0 {
                match Mechanism::ALL
                    .into_iter()
                    .find(|m| m.name().eq_ignore_ascii_case(text))
                {
                    Some(mechanism) => mechanisms.push(mechanism),
                    None => reader.wrong(
                        &written.at,
                        format!(
                            "{text:?} is no mechanism: {} are (each SCRAM also as -PLUS by itself)",
                            Mechanism::ALL.map(Mechanism::name).join(", ")
                        ),
                    ),
                }
            }
            if written.value.0.is_empty() {
                reader.wrong(&written.at, "is empty: nobody could log in");
            }
            mechanisms.sort();
            mechanisms.dedup();
        }
    }
    let certificate_mapping = certificate_mapping(reader, file);
    // RFC 7677 §4 wants at least 4096; past a million one log-in costs a second of CPU.
    let iterations = number(
        reader,
        &file.auth.scram_iterations,
        10_000,
        4_096..=1_000_000,
    );
    let token_days = number(reader, &file.auth.token_days, 30, 0..=366);
    let capture = number(reader, &file.auth.scram_capture_s, 0, 0..=366 * 86_400);
    AuthConfig {
        plaintext,
        certificate_mapping,
        scram_capture: Duration::from_secs(capture as u64),
        token: Duration::from_secs(token_days as u64 * 86_400),
        gssapi: {
            let wanted = mechanisms.contains(&Mechanism::Gssapi);
            gssapi(reader, file, base, domains, wanted)
        },
        mechanisms,
        scram_iterations: u32::try_from(iterations).expect("the range ends at a million"),
        password_bytes_min: number(reader, &file.auth.password_bytes_min, 8, 1..=128),
    }
}

fn certificate_mapping(reader: &mut Reader, file: &File) -> CertificateMapping {
    let Some(written) = &file.auth.certificate_mapping else {
        return CertificateMapping::default();
    };
    let known = CertificateMapping::ALL;
    match known.iter().find(|(name, _)| *name == written.value) {
        Some((_, mapping)) => *mapping,
        None => {
            let names = known.map(|(name, _)| format!("{name:?}")).join(", ");
            reader.wrong(
                &written.at,
                format!("{:?} is no kind of name: {names} are", written.value),
            );
            CertificateMapping::default()
        }
    }
}

/// `wanted`: GSSAPI is among the mechanisms.
fn gssapi(
    reader: &mut Reader,
    file: &File,
    base: &Path,
    domains: &[String],
    wanted: bool,
) -> Option<GssapiConfig> {
    let auth = &file.auth;
    if !wanted {
        for at in [
            auth.gssapi_keytab.as_ref().map(|w| &w.at),
            auth.gssapi_realms.as_ref().map(|w| &w.at),
        ]
        .into_iter()
        .flatten()
        {
            reader.wrong(at, "is of no use: \"GSSAPI\" is not among auth.mechanisms");
        }
        return None;
    }
    if !directory::gssapi::BUILT
        && let Some(mechanisms) = &auth.mechanisms
    {
        reader.wrong(
            &mechanisms.at,
            "GSSAPI is not in this imserver: build it with `--features gssapi` (needs libkrb5-dev)",
        );
    }
    let realms = match &auth.gssapi_realms {
        // What most sites do (RFC 4120 §6.1).
        None => domains
            .iter()
            .map(|d| (d.to_uppercase(), d.clone()))
            .collect(),
        Some(written) => realms(reader, written, domains),
    };
    let keytab = required(reader, &auth.at, "gssapi_keytab", &auth.gssapi_keytab)?;
    let path = base.join(&keytab.value);
    if let Err(e) = std::fs::File::open(&path) {
        reader.wrong(
            &keytab.at,
            format!("{}: cannot be read: {e}", path.display()),
        );
    }
    Some(GssapiConfig {
        // The library takes it from wherever it stands.
        keytab: std::path::absolute(&path).unwrap_or(path),
        realms: Realms::new(realms),
    })
}

fn realms(
    reader: &mut Reader,
    written: &Written<StringMap>,
    domains: &[String],
) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (realm, text) in &written.value.0 {
        let Some(domain) = domain(reader, &written.at, text) else {
            continue;
        };
        if !domains.is_empty() && !domains.contains(&domain) {
            reader.wrong(
                &written.at,
                format!("{domain} is not among the [[domain]] and [[component]] sections"),
            );
        }
        out.push((realm.clone(), domain));
    }
    if out.is_empty() {
        reader.wrong(&written.at, "is empty: no ticket would be anybody's");
    }
    out
}

fn session(reader: &mut Reader, file: &File) -> SessionConfig {
    let s = &file.session;
    let conflict = match &s.conflict {
        None => Conflict::Replace,
        Some(written) => match written.value.as_str() {
            "replace" => Conflict::Replace,
            "refuse" => Conflict::Refuse,
            "rename" => Conflict::Rename,
            other => {
                reader.wrong(
                    &written.at,
                    format!("{other:?} is no policy: \"replace\", \"refuse\" and \"rename\" are"),
                );
                Conflict::Replace
            }
        },
    };
    let resume_location = s.resume_location.as_ref().map(|written| {
        let (host, port) = written
            .value
            .rsplit_once(':')
            .unwrap_or((&written.value, "5222"));
        let host_ok = !host.is_empty()
            && host.len() <= 255
            && host
                .chars()
                .all(|c| c.is_alphanumeric() || "-._:[]".contains(c));
        if !host_ok || port.parse::<u16>().is_err() {
            let text = format!("{:?} is no host or host:port", written.value);
            reader.wrong(&written.at, text);
        }
        written.value.clone()
    });
    let seconds = |n: usize| Duration::from_secs(n as u64);
    SessionConfig {
        conflict,
        ping: seconds(number(reader, &s.ping_s, 120, 0..=86_400)),
        ping_answer: seconds(number(reader, &s.ping_answer_s, 60, 5..=3_600)),
        mux_lost: seconds(number(reader, &s.mux_lost_s, 30, 1..=3_600)),
        resume: seconds(number(reader, &s.resume_s, 600, 1..=86_400)),
        resume_location,
        push_after: seconds(number(reader, &s.push_after_s, 5, 1..=600)),
        push_sender: s.push_sender.as_ref().is_some_and(|p| p.value),
        push_body: s.push_body.as_ref().is_some_and(|p| p.value),
    }
}

fn log(reader: &mut Reader, file: &File) -> LogConfig {
    let filter = match &file.log.filter {
        None => "info".to_owned(),
        Some(written) => {
            if let Err(error) = written.value.parse::<tracing_subscriber::filter::Targets>() {
                reader.wrong(&written.at, format!("is no filter: {error}"));
            }
            written.value.clone()
        }
    };
    let json = match &file.log.format {
        None => false,
        Some(written) => match written.value.as_str() {
            "text" => false,
            "json" => true,
            other => {
                reader.wrong(
                    &written.at,
                    format!("{other:?} is no format: \"text\" and \"json\" are"),
                );
                false
            }
        },
    };
    LogConfig { filter, json }
}
