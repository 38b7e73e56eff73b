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
