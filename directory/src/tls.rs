//! TLS to the servers of directories.

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;
use std::sync::Arc;

/// Reads the certificates of a CA.
///
/// # Errors
/// In words, without the name of the file.
pub fn read_ca(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|e| format!("cannot be read: {e}"))?;
    for certificate in certificates {
        let certificate =
            certificate.map_err(|e| format!("is no PEM file of certificates: {e}"))?;
        roots
            .add(certificate)
            .map_err(|e| format!("holds a certificate that cannot be used: {e}"))?;
    }
    if roots.is_empty() {
        return Err("holds no certificate".to_owned());
    }
    Ok(roots)
}

/// How servers of a directory are verified: by the CA named, else by those the system trusts.
///
/// # Errors
/// The CA's certificates are of no use; in words, with the name of the file.
pub(crate) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        Some(path) => read_ca(path).map_err(|why| format!("{} {why}", path.display()))?,
        None => {
            let mut roots = RootCertStore::empty();
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One odd certificate among the system's does not spoil the others.
                let _ = roots.add(certificate);
            }
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}
