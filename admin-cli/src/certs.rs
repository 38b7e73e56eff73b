//! The private CA of links, and the certificates of clients' doors (ECDSA P-256).
//!
//! A link certificate carries one DNS name, `NAME.ROLE.isthmus`: the role and name a link may have (DESIGN §3).

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use std::path::Path;
use time::{Duration, OffsetDateTime};

/// Link certificates last ten years: they are replaced by `imadmin cert`, not by expiry in the night.
const DAYS: i64 = 3_650;

/// A certificate and its key, PEM.
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

fn validity(params: &mut CertificateParams) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::days(1);
    params.not_after = now + Duration::days(DAYS);
}

fn named(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// A new CA.
pub fn ca(name: &str) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params);
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A certificate of the CA in `dir` (ca.pem, ca.key) for one role.
pub fn issue(dir: &Path, name: &str, role: &str) -> anyhow::Result<Pair> {
    let read = |file: &str| {
        std::fs::read_to_string(dir.join(file))
            .with_context(|| format!("{} cannot be read", dir.join(file).display()))
    };
    let ca_key = KeyPair::from_pem(&read("ca.key")?).context("ca.key is not a key")?;
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, ca_key)
        .context("ca.pem is not a certificate")?;
    let mut params = CertificateParams::new(vec![format!("{name}.{role}.isthmus")])?;
    params.distinguished_name = named(&format!("{role} {name}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    validity(&mut params);
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: params.signed_by(&key, &issuer)?.pem(),
        key: key.serialize_pem(),
    })
}

/// A self-signed certificate for clients.
pub fn self_signed(domain: &str) -> anyhow::Result<Pair> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.distinguished_name = named(domain);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params);
    let key = KeyPair::generate()?;
    Ok(Pair {
        cert: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}
