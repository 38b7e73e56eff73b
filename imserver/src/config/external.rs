//! `[[external_service]]`: services outside XMPP that clients are told of (XEP-0215).

use super::check::{number, required};
use super::file::{ExternalServiceFile, File};
use super::reader::{Reader, did_you_mean};
use crate::event::Secret;
use crate::settings::ExternalService;
use std::net::Ipv6Addr;
use std::path::Path;

/// What clients look for (XEP-0215 §3.1, RFC 7064, RFC 7065): of anything else nobody would hear.
const KINDS: [&str; 4] = ["stun", "stuns", "turn", "turns"];
/// Services: all of them are in one answer.
const SERVICES_MAX: usize = 50;
/// How long credentials are good for: a call, and the evening it is asked for beforehand.
const CREDENTIALS_S: usize = 43_200;

/// Those that are written.
pub(super) fn services(reader: &mut Reader, file: &File, base: &Path) -> Vec<ExternalService> {
    let mut out: Vec<ExternalService> = Vec::new();
    for section in &file.external_service {
        let Some(service) = service(reader, section, base) else {
            continue;
        };
        let same = |s: &ExternalService| {
            (&s.kind, &s.host, s.port, s.transport)
                == (
                    &service.kind,
                    &service.host,
                    service.port,
                    service.transport,
                )
        };
        if out.iter().any(same) {
            reader.wrong_in(&section.at, "host", "this service is listed twice");
        }
        out.push(service);
    }
    if let Some(section) = file.external_service.get(SERVICES_MAX) {
        let text = format!("there are more than {SERVICES_MAX} services");
        reader.wrong(&section.at, text);
    }
    out
}

fn service(
    reader: &mut Reader,
    section: &ExternalServiceFile,
    base: &Path,
) -> Option<ExternalService> {
    let kind = required(reader, &section.at, "kind", &section.kind);
    let host = required(reader, &section.at, "host", &section.host);
    let port = required(reader, &section.at, "port", &section.port);
    let (kind, host, _) = (kind?, host?, port?);
    if !KINDS.contains(&kind.value.as_str()) {
        let names = KINDS.map(|name| format!("{name:?}")).join(", ");
        let near = did_you_mean(&kind.value, &KINDS);
        let text = format!("{:?} is no kind of service: {names} are{near}", kind.value);
        reader.wrong(&kind.at, text);
    }
    let known = |s: &str| {
        s.parse::<Ipv6Addr>().is_ok()
            || (!s.is_empty()
                && s.len() <= 255
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.'))
    };
    if !known(&host.value) {
        reader.wrong(
            &host.at,
            "must be a host name or an address, without a port: turn.example.org",
        );
    }
    let port = number(reader, &section.port, 0, 1..=65_535);
    let transport = match section.transport.as_ref().map(|t| (t, t.value.as_str())) {
        None | Some((_, "udp")) => "udp",
        Some((_, "tcp")) => "tcp",
        Some((written, _)) => {
            reader.wrong(&written.at, "must be \"udp\" or \"tcp\"");
            "udp"
        }
    };
    let secret = section.secret_file.as_ref().map(|written| {
        let path = base.join(&written.value);
        let secret = super::directory::secret(&path).unwrap_or_else(|why| {
            reader.wrong(&written.at, format!("{} {why}", path.display()));
            String::new()
        });
        Secret(secret)
    });
    if let (Some(written), None) = (&section.credentials_s, &secret) {
        reader.wrong(&written.at, "is of no use without secret_file");
    }
    let credentials_s = number(
        reader,
        &section.credentials_s,
        CREDENTIALS_S,
        60..=30 * 86_400,
    );
    Some(ExternalService {
        kind: kind.value.clone(),
        host: host.value.clone(),
        port: u16::try_from(port).unwrap_or_default(),
        transport,
        label: section.label.as_ref().map(|l| l.value.clone()),
        secret,
        credentials_s: credentials_s as u64,
    })
}
