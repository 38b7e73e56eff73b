//! TLS of the link: 1.3 only, both ends show a certificate of the private CA.
//!
//! In: the three files of `[[server]]`. Out: a client configuration. Owns: nothing.
//! Never: talks to a server whose certificate is not `NAME.server.isthmus` of our CA.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection};

use super::certs::{load_roots, provider};
use crate::config::LinkTlsConfig;

/// Reads the files and makes the configuration. Errors are one sentence with the file.
pub fn client_config(files: &LinkTlsConfig) -> Result<Arc<ClientConfig>, String> {
    let roots = load_roots(std::slice::from_ref(&files.ca))?;
    let read = |p: &std::path::Path| {
        std::fs::read(p).map_err(|e| format!("{} cannot be read: {e}", p.display()))
    };
    let chain = CertificateDer::pem_slice_iter(&read(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| format!("{} is no PEM certificate: {e:?}", files.cert.display()))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(|e| format!("{} holds no PEM private key: {e:?}", files.key.display()))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| {
            format!(
                "{} and {} do not belong together: {e}",
                files.cert.display(),
                files.key.display()
            )
        })?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection to the server of this name.
pub fn connect(config: &Arc<ClientConfig>, server: &str) -> Result<ClientConnection, String> {
    let name =
        ServerName::try_from(format!("{server}.server.isthmus")).map_err(|e| e.to_string())?;
    let mut conn = ClientConnection::new(config.clone(), name).map_err(|e| e.to_string())?;
    conn.set_buffer_limit(None);
    Ok(conn)
}
