//! Client certificates: asked for, never required, and told to the server with whether they passed the configured CAs.

mod common;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

use common::{
    PATIENCE, Pair, Setup, certificate, configuration_from, configuration_text, connect,
    read_exact, secure, start_from, write_certificate,
};
use proto::frame::*;
use proto::server_side::ServerEvent;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Somebody who signs certificates.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
    pem: String,
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Ca {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let params = ca_params(name);
        let cert = params.self_signed(&key).expect("certificate");
        Self {
            der: cert.der().clone(),
            pem: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// An intermediate one.
    fn below(&self, name: &str, params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = params;
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).expect("certificate");
        Self {
            der: cert.der().clone(),
            pem: cert.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    fn signs(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::new(["alice.example".to_owned()]).expect("params");
        params.distinguished_name.push(DnType::CommonName, "Alice");
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).expect("certificate");
        Shown {
            chain: vec![cert.der().clone()],
            key: key.serialize_der(),
        }
    }
}

/// What a client shows.
#[derive(Clone)]
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Shown {
    fn and(mut self, above: &Ca) -> Self {
        self.chain.push(above.der.clone());
        self
    }

    fn leaf(&self) -> Vec<u8> {
        self.chain[0].to_vec()
    }
}

fn client_config(
    pair: &Pair,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Shown>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(certificate(pair.dir.path().join("example.pem")))
        .expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some(shown) => {
            let key = PrivateKeyDer::try_from(shown.key.clone()).expect("key");
            let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).expect("key");
            // Not looked at by the client's own library: some are too long for it.
            let certified = rustls::sign::CertifiedKey::new(shown.chain.clone(), key);
            let single = rustls::sign::SingleCertAndKey::from(certified);
            builder.with_client_cert_resolver(Arc::new(single))
        }
    }
}

/// Listener 0: the server orders; listener 1: asks at the TLS handshake by its own configuration.
fn start(threads: usize, cas: &[&Ca]) -> Pair {
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path(), "example", "example.org");
    write_certificate(dir.path(), "other", "other.example");
    let mut files = Vec::new();
    for (n, ca) in cas.iter().enumerate() {
        std::fs::write(dir.path().join(format!("ca{n}.pem")), &ca.pem).expect("write");
        files.push(format!("\"ca{n}.pem\""));
    }
    let text = configuration_text(&Setup {
        threads,
        ..Setup::default()
    })
    .replace(
        "transport = \"tls\"",
        "transport = \"tls\"\nrequest_client_certificate = true",
    )
    .replace(
        "[tls]",
        &format!("[tls]\nclient_ca = [{}]", files.join(", ")),
    );
    let config = configuration_from(dir.path(), &text);
    start_from(dir, config)
}

/// How TLS comes about.
#[derive(Clone, Copy, Debug)]
enum Way {
    Direct,
    StartTls,
}

/// The certificate the server is told of.
fn told(
    pair: &mut Pair,
    way: Way,
    version: &'static SupportedProtocolVersion,
    shown: Option<&Shown>,
) -> Option<(Vec<u8>, bool)> {
    let config = client_config(pair, version, shown);
    let (client, conn, facts) = match way {
        Way::Direct => {
            let socket = connect(pair.mux.addresses()[1]);
            let client = secure(config, socket, "example.org").expect("handshake");
            let (conn, open) = pair.server.opened();
            (client, conn, open.tls.expect("facts"))
        }
        Way::StartTls => {
            let (mut client, conn) = pair.client();
            order(pair, conn);
            assert_eq!(read_exact(&mut client, 10), b"<proceed/>");
            let client = secure(config, client, "example.org").expect("handshake");
            let facts = *pair.server.secured(conn);
            (client, conn, facts)
        }
    };
    // The connection works, whatever was said of the certificate.
    let mut client = client;
    client.write_all(b"<in/>").expect("write");
    assert_eq!(pair.server.input(conn, 5), b"<in/>");
    pair.server.output(conn, "<out/>");
    assert_eq!(read_exact(&mut client, 6), b"<out/>");
    facts
        .client_certificate
        .map(|(der, verified)| (der.to_vec(), verified))
}

fn order(pair: &mut Pair, conn: ConnId) {
    let frame = StartTls {
        last: b"<proceed/>".as_slice().into(),
        request_client_certificate: true,
    };
    pair.server.send(Frame::StartTls(conn, frame));
}

fn ways() -> impl Iterator<Item = (Way, &'static SupportedProtocolVersion)> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    [Way::Direct, Way::StartTls]
        .into_iter()
        .flat_map(move |way| versions.map(|version| (way, version)))
}

#[test]
fn only_what_our_cas_stand_for_is_told_as_verified() {
    let (ours, second, stranger) = (
        Ca::new("ours"),
        Ca::new("ours too"),
        // Of the same name as ours.
        Ca::new("ours"),
    );
    let below = ours.below("below", ca_params("below"));
    // Signed by ours, but for people, not for signing.
    let no_ca = ours.below("no CA", CertificateParams::new(Vec::new()).expect("params"));
    let year = rcgen::date_time_ymd;
    let plain = |_: &mut CertificateParams| {};
    let usage = |usage: ExtendedKeyUsagePurpose| {
        move |p: &mut CertificateParams| p.extended_key_usages = vec![usage]
    };
    let rows: Vec<(&str, Shown, bool)> = vec![
        ("good", ours.signs(plain), true),
        ("the second file's", second.signs(plain), true),
        (
            "for clients",
            ours.signs(usage(ExtendedKeyUsagePurpose::ClientAuth)),
            true,
        ),
        (
            "without a name but CN",
            ours.signs(|p| p.subject_alt_names.clear()),
            true,
        ),
        (
            "500 names",
            ours.signs(|p| p.subject_alt_names = names(500)),
            true,
        ),
        ("with what is between", below.signs(plain).and(&below), true),
        ("without what is between", below.signs(plain), false),
        ("of a stranger", stranger.signs(plain), false),
        (
            "of a stranger, with our CA behind it",
            stranger.signs(plain).and(&ours),
            false,
        ),
        (
            "expired",
            ours.signs(|p| p.not_after = year(2024, 1, 1)),
            false,
        ),
        (
            "not yet valid",
            ours.signs(|p| p.not_before = year(2090, 1, 1)),
            false,
        ),
        (
            "for servers only",
            ours.signs(usage(ExtendedKeyUsagePurpose::ServerAuth)),
            false,
        ),
        (
            "a CA's own",
            ours.signs(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
            false,
        ),
        (
            "signed by one who may not",
            no_ca.signs(plain).and(&no_ca),
            false,
        ),
    ];
    for threads in [1, 3] {
        let mut pair = start(threads, &[&ours, &second]);
        for (way, version) in ways() {
            assert_eq!(told(&mut pair, way, version, None), None, "{way:?}");
            for (what, shown, verified) in &rows {
                let got = told(&mut pair, way, version, Some(shown));
                assert_eq!(
                    got,
                    Some((shown.leaf(), *verified)),
                    "{what}, {way:?} {version:?}"
                );
            }
        }
        pair.stop();
    }
}

fn names(count: usize) -> Vec<rcgen::SanType> {
    (0..count)
        .map(|n| {
            let name = format!("name-{n:05}.example");
            rcgen::SanType::DnsName(name.try_into().expect("a name"))
        })
        .collect()
}

#[test]
fn what_is_too_long_ends_the_handshake() {
    let ours = Ca::new("ours");
    let padding: Vec<_> = (0..20)
        .map(|n| {
            let mut params = ca_params(&format!("padding {n}"));
            params.subject_alt_names = names(80);
            ours.below("padding", params)
        })
        .collect();
    let long_chain = padding
        .iter()
        .fold(ours.signs(|_| {}), |shown, ca| shown.and(ca));
    let length: usize = long_chain.chain.iter().map(|c| c.len()).sum();
    assert!((33_000..60_000).contains(&length), "{length}");
    let rows = [
        // Within what rustls takes, past what the link carries; and past both.
        ours.signs(|p| p.subject_alt_names = names(1_000)),
        ours.signs(|p| p.subject_alt_names = names(10_000)),
        long_chain,
    ];
    for threads in [1, 3] {
        let mut pair = start(threads, &[&ours]);
        for (way, version) in ways() {
            for shown in &rows {
                let config = client_config(&pair, version, Some(shown));
                let (socket, conn) = match way {
                    Way::Direct => (connect(pair.mux.addresses()[1]), None),
                    Way::StartTls => {
                        let (mut client, conn) = pair.client();
                        order(&mut pair, conn);
                        assert_eq!(read_exact(&mut client, 10), b"<proceed/>");
                        (client, Some(conn))
                    }
                };
                // In TLS 1.3 the client is done before the mux has seen its certificate.
                let refused = match secure(config, socket, "example.org") {
                    Err(_) => true,
                    Ok(mut client) => client.read(&mut [0; 1]).is_err(),
                };
                assert!(refused, "{way:?} {version:?}");
                if let Some(conn) = conn {
                    assert_eq!(pair.server.closed(conn), CloseReason::TlsError);
                }
            }
        }
        pair.server.never("a connection with it", 5, |e| {
            matches!(e, ServerEvent::Opened(..) | ServerEvent::Secured(..))
        });
        // Others are none the worse for it.
        let good = ours.signs(|_| {});
        let got = told(&mut pair, Way::Direct, &rustls::version::TLS13, Some(&good));
        assert_eq!(got, Some((good.leaf(), true)));
        pair.stop();
    }
}

#[test]
fn new_cas_are_taken_from_the_file_and_a_bad_file_keeps_the_old_ones() {
    let (first, second) = (Ca::new("first"), Ca::new("second"));
    let mut pair = start(1, &[&first]);
    let v13 = &rustls::version::TLS13;
    let (of_first, of_second) = (first.signs(|_| {}), second.signs(|_| {}));
    let is_verified = |pair: &mut Pair, shown: &Shown| {
        let got = told(pair, Way::Direct, v13, Some(shown));
        got.expect("a certificate").1
    };
    assert!(is_verified(&mut pair, &of_first));
    assert!(!is_verified(&mut pair, &of_second));

    std::fs::write(pair.dir.path().join("ca0.pem"), "no certificate").expect("write");
    // Seen together with the mux's own new certificate.
    let new = write_certificate(pair.dir.path(), "example", "example.org");
    let until = Instant::now() + PATIENCE;
    loop {
        let config = common::tls_config(std::slice::from_ref(&new));
        let socket = connect(pair.mux.addresses()[1]);
        let done = secure(config, socket, "example.org").is_ok();
        if done {
            pair.server.opened();
            break;
        }
        assert!(Instant::now() < until, "the new certificate was never used");
    }
    assert!(is_verified(&mut pair, &of_first));

    std::fs::write(pair.dir.path().join("ca0.pem"), &second.pem).expect("write");
    while !is_verified(&mut pair, &of_second) {
        assert!(
            Instant::now() < until + PATIENCE,
            "the new CA was never used"
        );
    }
    assert!(!is_verified(&mut pair, &of_first));
    pair.stop();
}
