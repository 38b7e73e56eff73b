//! Mutual TLS 1.3 of the link and admin doors, and what a certificate says its owner may be.
//!
//! The private CA signs certificates with one DNS name `NAME.ROLE.isthmus`. The role and the name come from there and
//! from nowhere else (DESIGN §3).

use crate::config::LinkTls;
use proto::frame::Role;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;

/// What goes wrong with the files of a TLS door.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of use.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The files do not fit together.
    #[error("the link's certificate, key and CA do not fit together: {0}")]
    Rustls(#[from] rustls::Error),
}

fn file(path: &Path, reason: impl ToString) -> TlsError {
    TlsError::File {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

/// Certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|e| file(path, e))?
        .collect();
    let certs = certs.map_err(|e| file(path, e))?;
    if certs.is_empty() {
        return Err(file(path, "no certificate in it"));
    }
    Ok(certs)
}

/// The configuration of the link door: only TLS 1.3, only certificates of our CA.
pub fn server_config(files: &LinkTls) -> Result<Arc<ServerConfig>, TlsError> {
    configured(files, false)
}

/// The same for the admin door, where somebody without a certificate may come to log in.
pub fn admin_config(files: &LinkTls) -> Result<Arc<ServerConfig>, TlsError> {
    configured(files, true)
}

fn configured(files: &LinkTls, anonymous: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for cert in certificates(&files.ca)? {
        roots.add(cert).map_err(|e| file(&files.ca, e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = match anonymous {
        true => verifier.allow_unauthenticated(),
        false => verifier,
    };
    let verifier = verifier.build().map_err(|e| file(&files.ca, e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| file(&files.key, e))?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates(&files.cert)?, key)?;
    Ok(Arc::new(config))
}

/// Role and name in a certificate of our CA. `None`: it names none, or more than one.
pub fn identity(cert: &CertificateDer<'_>) -> Option<(Role, String)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    let mut found = names.value.general_names.iter().filter_map(|n| match n {
        x509_parser::extensions::GeneralName::DNSName(name) => parse_name(name),
        _ => None,
    });
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn parse_name(name: &str) -> Option<(Role, String)> {
    let (rest, role) = name.strip_suffix(".isthmus")?.rsplit_once('.')?;
    let role = match role {
        "mux" => Role::Mux,
        "admin" => Role::Admin,
        "peer" | "server" => Role::Peer,
        _ => return None,
    };
    (!rest.is_empty() && !rest.contains('.')).then(|| (role, rest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_label_and_a_role() {
        assert_eq!(parse_name("m1.mux.isthmus"), Some((Role::Mux, "m1".into())));
        assert_eq!(
            parse_name("root.admin.isthmus"),
            Some((Role::Admin, "root".into()))
        );
        for bad in [
            "mux.isthmus",
            ".mux.isthmus",
            "a.b.mux.isthmus",
            "m1.king.isthmus",
            "m1.mux.example.org",
            "",
        ] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
