//! Verifiers that record instead of refusing: whether a certificate that does not pass is good enough
//! (SASL EXTERNAL, dialback) is the server's decision, not the mux's. That its owner has the key is
//! always checked.
//!
//! Refused, with an alert, is only what could not be told to the server, or what rustls cannot check the key of at all.
//!
//! In: certificates from rustls. Out: `Capture::verified`. Owns: the CAs. Never: decides.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::capture;
use proto::limits::CERTIFICATE_BYTES_MAX;

/// A certificate and those above it. rustls keeps what it was shown as long as the connection lives, and would take 64 KiB;
/// three certificates with post-quantum keys and signatures are 20 KiB, three of today's 5.
const CHAIN_BYTES_MAX: usize = 32 * 1024;

/// Why a chain is not looked at.
#[derive(Debug, thiserror::Error)]
#[error(
    "a certificate of more than {CERTIFICATE_BYTES_MAX} bytes, or a chain of more than {CHAIN_BYTES_MAX}"
)]
struct TooLong;

/// Before anything is parsed or computed.
fn check_length(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    let all = intermediates.iter().map(|c| c.len()).sum::<usize>() + end_entity.len();
    if end_entity.len() > CERTIFICATE_BYTES_MAX || all > CHAIN_BYTES_MAX {
        let why = CertificateError::Other(OtherError(Arc::new(TooLong)));
        return Err(Error::InvalidCertificate(why));
    }
    Ok(())
}

/// For certificates of clients.
#[derive(Debug)]
pub struct RecordClient {
    /// Checks against our CAs, if there are any.
    pub inner: Option<Arc<dyn ClientCertVerifier>>,
    /// Signature algorithms.
    pub provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for RecordClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.as_ref().map_or(&[], |v| v.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_length(end_entity, intermediates)?;
        let good = self
            .inner
            .as_ref()
            .is_some_and(|v| v.verify_client_cert(end_entity, intermediates, now).is_ok());
        capture::note(|c| c.verified = good);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// For certificates of dialled servers.
#[derive(Debug)]
pub struct RecordServer {
    /// Checks against our CAs, if there are any.
    pub inner: Option<Arc<WebPkiServerVerifier>>,
    /// Signature algorithms.
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for RecordServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_length(end_entity, intermediates)?;
        let good = self.inner.as_ref().is_some_and(|v| {
            v.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
                .is_ok()
        });
        capture::note(|c| c.verified = good);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
