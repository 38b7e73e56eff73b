//! Why a certificate, key or CA that a configuration names is of no use: for mux.toml, and for the same kind of keys in
//! imserver.toml.
//!
//! In: paths. Out: one sentence with the file for each thing that is wrong, or nothing.
//! Owns: nothing. Never: keeps what it has read.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::*;

use crate::config::CertificateConfig;
use crate::tls::certs::{load_roots, provider};

/// A file with the certificates of CAs (PEM).
pub fn authorities(path: &Path) -> Result<(), String> {
    load_roots(&[path.to_owned()]).map(drop)
}

/// A file with a certificate and its chain, the certificate first (PEM).
pub fn certificate(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| format!("{} is no PEM certificate chain: {e:?}", path.display()))?;
    let Some(leaf) = chain.first() else {
        return Err(format!("{} holds no certificate (PEM)", path.display()));
    };
    match X509Certificate::from_der(leaf) {
        Ok(_) => Ok(chain),
        Err(e) => Err(format!(
            "{}: the first certificate cannot be read: {e}",
            path.display()
        )),
    }
}

/// A file with a private key (PEM).
pub fn key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|_| format!("{} holds no private key (PEM)", path.display()))
}

/// That a certificate is for a name of the link, `NAME.ROLE.isthmus`, and for no other: role and name of a link are what its
/// certificate says.
pub fn link_name(path: &Path, chain: &[CertificateDer<'_>], wanted: &str) -> Result<(), String> {
    let names = chain.first().map_or_else(Vec::new, |leaf| dns_names(leaf));
    if names == [wanted] {
        return Ok(());
    }
    let holds = match names.is_empty() {
        true => "no name".to_owned(),
        false => names.join(", "),
    };
    Err(format!(
        "{} is for {holds}; a certificate for {wanted} is needed here",
        path.display()
    ))
}

/// That a key is the one of a certificate. Both have been read.
pub fn belong_together(
    (cert, chain): (&Path, Vec<CertificateDer<'static>>),
    (key, private): (&Path, PrivateKeyDer<'static>),
) -> Result<(), String> {
    CertifiedKey::from_der(chain, private, &provider())
        .map(drop)
        .map_err(|e| {
            let (cert, key) = (cert.display(), key.display());
            format!("{key} and {cert} do not belong together: {e}")
        })
}

/// A sentence for each domain that its certificate is not for: clients will refuse to connect, or ask people to trust it. Whoever
/// tries things out may mean it, so it is no mistake. Files that cannot be read are not looked at here.
pub fn uncovered(certificates: &[CertificateConfig]) -> Vec<String> {
    let mut out = Vec::new();
    for entry in certificates {
        let Ok(chain) = certificate(&entry.chain) else {
            continue;
        };
        let Some(leaf) = chain.first() else { continue };
        let names = dns_names(leaf);
        for domain in &entry.domains {
            if !names.iter().any(|name| covers(name, domain)) && !other_name(leaf, domain) {
                let holds = match names.is_empty() {
                    true => "it has no DNS name".to_owned(),
                    false => format!("it is for {}", names.join(", ")),
                };
                out.push(format!(
                    "the certificate {} does not cover {domain}: {holds}",
                    entry.chain.display()
                ));
            }
        }
    }
    out
}

/// RFC 6125 §6.4: a wildcard stands for one whole label.
fn covers(name: &str, domain: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    if name == domain {
        return true;
    }
    let (Some(rest), Some((_, parent))) = (name.strip_prefix("*."), domain.split_once('.')) else {
        return false;
    };
    rest == parent
}

/// An SRVName or XmppAddr that holds the domain (RFC 6120 §13.7.1.2).
fn other_name(leaf: &[u8], domain: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::OtherName(_, value) => value
            .windows(domain.len().max(1))
            .any(|part| part.eq_ignore_ascii_case(domain.as_bytes())),
        _ => false,
    })
}

fn dns_names(leaf: &[u8]) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    dns.collect()
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}
