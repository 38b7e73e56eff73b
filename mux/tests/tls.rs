//! TLS: by frame (STARTTLS) and from the first byte; what the server is told of it; certificates.

mod common;

use std::io::{Read as _, Write as _};
use std::time::Instant;

use aws_lc_rs::digest;
use common::{
    PATIENCE, Pair, Setup, TlsClient, assert_closed, certificate, connect, read_exact, secure,
    start, tls_config_versions, write_certificate,
};
use proto::frame::*;
use proto::server_side::ServerEvent;

const PROCEED: &[u8] = b"<proceed/>";

fn setups() -> [Setup; 2] {
    [
        Setup::default(),
        Setup {
            threads: 3,
            ..Setup::default()
        },
    ]
}

fn exporter(client: &TlsClient) -> [u8; 32] {
    client
        .conn
        .export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .expect("exporter")
}

fn hash_of(pair: &Pair, name: &str) -> Vec<u8> {
    let cert = certificate(pair.dir.path().join(format!("{name}.pem")));
    digest::digest(&digest::SHA256, &cert).as_ref().to_vec()
}

fn start_tls(pair: &mut Pair, conn: ConnId, request_client_certificate: bool) {
    let frame = StartTls {
        last: PROCEED.into(),
        request_client_certificate,
    };
    pair.server.send(Frame::StartTls(conn, frame));
}

#[test]
fn starttls_by_frame_and_its_facts() {
    for setup in setups() {
        for (version, number) in [
            (&rustls::version::TLS13, 0x0304),
            (&rustls::version::TLS12, 0x0303),
        ] {
            let mut pair = start(&setup);
            let (mut client, conn) = pair.client();
            client.write_all(b"<starttls/>").expect("write");
            assert_eq!(pair.server.input(conn, 11), b"<starttls/>");
            start_tls(&mut pair, conn, false);
            assert_eq!(read_exact(&mut client, PROCEED.len()), PROCEED);
            let config = tls_config_versions(
                &[certificate(pair.dir.path().join("example.pem"))],
                &[version],
            );
            let mut client = secure(config, client, "example.org").expect("handshake");
            let facts = pair.server.secured(conn);
            assert_eq!(facts.version, number);
            assert_eq!(
                facts.cipher_suite,
                u16::from(
                    client
                        .conn
                        .negotiated_cipher_suite()
                        .expect("suite")
                        .suite()
                )
            );
            assert_eq!(facts.sni.as_deref(), Some("example.org"));
            assert_eq!(facts.alpn, None);
            assert_eq!(
                facts.server_end_point.as_deref(),
                Some(&hash_of(&pair, "example")[..])
            );
            assert_eq!(
                facts.exporter,
                (number == 0x0304).then(|| exporter(&client))
            );
            assert_eq!(facts.client_certificate, None);

            client.write_all(b"<stream:stream>").expect("write");
            assert_eq!(pair.server.input(conn, 15), b"<stream:stream>");
            pair.server.output(conn, "<features/>");
            assert_eq!(read_exact(&mut client, 11), b"<features/>");
            pair.server.drained(conn, 2);
            pair.server
                .close(conn, b"</stream:stream>", CloseReason::Normal);
            let mut rest = String::new();
            // Ends with close_notify, or this would be an error.
            client.read_to_string(&mut rest).expect("orderly end");
            assert_eq!(rest, "</stream:stream>");
            assert_eq!(pair.server.closed(conn), CloseReason::Normal);
            pair.stop();
        }
    }
}

#[test]
fn the_exporter_is_right_for_every_suite_of_tls_1_3() {
    let mut pair = start(&Setup::default());
    for suite in rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES
        .iter()
        .filter(|s| s.tls13().is_some())
    {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites = vec![*suite];
        let mut store = rustls::RootCertStore::empty();
        store
            .add(certificate(pair.dir.path().join("example.pem")))
            .expect("root");
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(store)
            .with_no_client_auth();
        let client =
            secure(config, connect(pair.mux.addresses()[1]), "example.org").expect("handshake");
        let (_, open) = pair.server.opened();
        let facts = open.tls.expect("facts");
        assert_eq!(facts.exporter, Some(exporter(&client)), "{suite:?}");
        assert_eq!(facts.cipher_suite, u16::from(suite.suite()));
    }
    pair.stop();
}

#[test]
fn plaintext_sent_along_with_starttls_never_becomes_input() {
    for setup in setups() {
        let mut pair = start(&setup);
        let (mut client, conn) = pair.client();
        client.write_all(b"<starttls/>").expect("write");
        assert_eq!(pair.server.input(conn, 11), b"<starttls/>");
        start_tls(&mut pair, conn, false);
        assert_eq!(read_exact(&mut client, PROCEED.len()), PROCEED);
        client
            .write_all(b"<message>injected</message>")
            .expect("write");
        assert_eq!(pair.server.closed(conn), CloseReason::TlsError);
        pair.server.never("injected input", 5, |e| {
            matches!(e, ServerEvent::Input(..) | ServerEvent::Injected(..))
        });
        pair.stop();
    }
}

#[test]
fn plaintext_read_before_starttls_was_carried_out_is_reported_as_injection() {
    let mut pair = start(&Setup::default());
    let (mut client, conn) = pair.client();
    client.write_all(b"<starttls/>").expect("write");
    assert_eq!(pair.server.input(conn, 11), b"<starttls/>");
    client.write_all(b"<iq/>").expect("write");
    // The mux has read it before StartTls is even sent: the server has both and its checks decide.
    assert_eq!(pair.server.input(conn, 5), b"<iq/>");
    pair.stop();
}

#[test]
fn direct_tls_opens_with_its_facts_and_the_right_certificate() {
    let rows: &[(&str, &str, &[&str], Option<&str>)] = &[
        (
            "example.org",
            "example",
            &["xmpp-client"],
            Some("xmpp-client"),
        ),
        ("example.org", "example", &[], None),
        (
            "other.example",
            "other",
            &["xmpp-client"],
            Some("xmpp-client"),
        ),
        (
            "other.example",
            "other",
            &["h2", "xmpp-client"],
            Some("xmpp-client"),
        ),
    ];
    for setup in setups() {
        let mut pair = start(&setup);
        for (name, file, alpn, agreed) in rows {
            let mut config = pair.tls_config();
            config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
            let mut client =
                secure(config, connect(pair.mux.addresses()[1]), name).expect("handshake");
            let (conn, open) = pair.server.opened();
            assert_eq!(open.transport, Transport::Tls);
            let facts = open.tls.expect("facts");
            assert_eq!(facts.alpn.as_deref(), *agreed);
            assert_eq!(facts.sni.as_deref(), Some(*name));
            assert_eq!(
                facts.server_end_point.as_deref(),
                Some(&hash_of(&pair, file)[..])
            );
            assert_eq!(facts.exporter, Some(exporter(&client)));
            client.write_all(b"<stream:stream>").expect("write");
            assert_eq!(pair.server.input(conn, 15), b"<stream:stream>");
            client.conn.send_close_notify();
            client.flush().expect("flush");
            assert_eq!(pair.server.closed(conn), CloseReason::Normal);
        }
        pair.stop();
    }
}

#[test]
fn a_wrong_alpn_or_something_that_is_no_tls_is_refused_and_never_opened() {
    let mut pair = start(&Setup::default());
    let mut config = pair.tls_config();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let refused =
        secure(config, connect(pair.mux.addresses()[1]), "example.org").expect_err("refused");
    assert!(
        refused.to_string().contains("NoApplicationProtocol"),
        "{refused}"
    );
    let mut client = connect(pair.mux.addresses()[1]);
    client
        .write_all(b"<?xml version='1.0'?><stream:stream>")
        .expect("write");
    // An alert may come first.
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    pair.server
        .never("a connection", 10, |e| matches!(e, ServerEvent::Opened(..)));
    assert!(
        pair.mux
            .metrics()
            .render()
            .contains("mux_tls_handshakes_failed_total 2\n")
    );
    pair.stop();
}

#[test]
fn long_elements_and_many_small_ones_pass_tls_in_both_directions() {
    let mut pair = start(&Setup::default());
    let socket = connect(pair.mux.addresses()[1]);
    let mut client = secure(pair.tls_config(), socket, "example.org").expect("handshake");
    let (conn, _) = pair.server.opened();
    pair.server.settle(conn, 0, 0, 1 << 20);
    let long: Vec<u8> = (0..700_000u32).map(|n| (n % 253) as u8).collect();
    for n in 0..100 {
        pair.server.output(conn, format!("<m n='{n:02}'/>"));
    }
    pair.server.output(conn, long.clone());
    pair.server.output(conn, "<end/>");
    let expected = long.clone();
    let reader = std::thread::spawn(move || {
        for n in 0..100 {
            assert_eq!(
                read_exact(&mut client, 11),
                format!("<m n='{n:02}'/>").as_bytes()
            );
        }
        assert!(read_exact(&mut client, expected.len()) == expected);
        assert_eq!(read_exact(&mut client, 6), b"<end/>");
        for piece in expected.chunks(10_007) {
            client.write_all(piece).expect("write");
        }
        client.flush().expect("flush");
        client
    });
    pair.server.drained(conn, 102);
    assert!(pair.server.input(conn, long.len()) == long);
    drop(reader.join().expect("reader"));
    pair.stop();
}

#[test]
fn tls_input_past_the_window_waits_in_the_mux() {
    for setup in setups() {
        let mut pair = start(&setup);
        let socket = connect(pair.mux.addresses()[1]);
        let mut client = secure(pair.tls_config(), socket, "example.org").expect("handshake");
        let (conn, _) = pair.server.opened();
        let all: Vec<u8> = (0..100_000u32).map(|n| (n % 241) as u8).collect();
        let sent = all.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&sent).expect("write");
            client.flush().expect("flush");
            client
        });
        let mut got = pair.server.input(conn, 16_384);
        pair.server.never("input past the window", 20, |e| {
            matches!(e, ServerEvent::Input(..))
        });
        while got.len() < all.len() {
            pair.server.settle(conn, got.len() as u64, 0, 10_000);
            got.extend(pair.server.input(conn, (all.len() - got.len()).min(10_000)));
        }
        assert!(got == all);
        drop(writer.join().expect("writer"));
        pair.server.closed(conn);
        pair.stop();
    }
}

#[test]
fn a_client_certificate_is_asked_for_only_when_told_and_reported() {
    let mut pair = start(&Setup::default());
    for ask in [false, true] {
        let (mut client, conn) = pair.client();
        start_tls(&mut pair, conn, ask);
        assert_eq!(read_exact(&mut client, PROCEED.len()), PROCEED);
        let made = rcgen::generate_simple_self_signed(["alice".to_owned()]).expect("certificate");
        let mut store = rustls::RootCertStore::empty();
        store
            .add(certificate(pair.dir.path().join("example.pem")))
            .expect("root");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .expect("key");
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(store)
            .with_client_auth_cert(vec![made.cert.der().clone()], key)
            .expect("client certificate");
        let client = secure(config, client, "example.org").expect("handshake");
        let facts = pair.server.secured(conn);
        let want = ask.then(|| (made.cert.der().to_vec().into(), false));
        assert_eq!(facts.client_certificate, want);
        assert_eq!(facts.exporter, Some(exporter(&client)));
    }
    pair.stop();
}

#[test]
fn new_certificate_files_are_used_without_touching_connections_and_bad_ones_are_not() {
    let mut pair = start(&Setup::default());
    let old = certificate(pair.dir.path().join("example.pem"));
    let socket = connect(pair.mux.addresses()[1]);
    let mut first = secure(pair.tls_config(), socket, "example.org").expect("handshake");
    let (conn, _) = pair.server.opened();

    std::fs::write(pair.dir.path().join("example.pem"), "no certificate").expect("write");
    // Waits until the bad content has been seen: the other certificate changes after it, and both are looked at together.
    let other = write_certificate(pair.dir.path(), "other", "other.example");
    until_shown(&mut pair, "other.example", &other);
    assert_eq!(
        shown(&mut pair, "example.org"),
        old.to_vec(),
        "a bad file keeps the old certificate"
    );

    let new = write_certificate(pair.dir.path(), "example", "example.org");
    until_shown(&mut pair, "example.org", &new);

    pair.server.output(conn, "<still-here/>");
    assert_eq!(read_exact(&mut first, 13), b"<still-here/>");
    pair.stop();
}

/// The certificate a client is shown now.
fn shown(pair: &mut Pair, name: &str) -> Vec<u8> {
    #[derive(Debug)]
    struct Any(rustls::crypto::WebPkiSupportedAlgorithms);
    impl rustls::client::danger::ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            m: &[u8],
            c: &rustls::pki_types::CertificateDer<'_>,
            d: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls12_signature(m, c, d, &self.0)
        }
        fn verify_tls13_signature(
            &self,
            m: &[u8],
            c: &rustls::pki_types::CertificateDer<'_>,
            d: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            rustls::crypto::verify_tls13_signature(m, c, d, &self.0)
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            self.0.supported_schemes()
        }
    }
    let mut config = pair.tls_config_any(std::sync::Arc::new(Any(
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms,
    )));
    config.resumption = rustls::client::Resumption::disabled();
    let client = secure(config, connect(pair.mux.addresses()[1]), name).expect("handshake");
    let (_, open) = pair.server.opened();
    let cert = client.conn.peer_certificates().expect("certificate")[0].to_vec();
    let hash = digest::digest(&digest::SHA256, &cert).as_ref().to_vec();
    assert_eq!(
        open.tls.expect("facts").server_end_point.as_deref(),
        Some(&hash[..])
    );
    cert
}

/// Asks until this certificate is shown.
fn until_shown(pair: &mut Pair, name: &str, new: &[u8]) {
    let until = Instant::now() + PATIENCE;
    while shown(pair, name) != new {
        assert!(Instant::now() < until, "the new certificate was never used");
    }
}

#[test]
fn resumed_sessions_have_facts_of_their_own_and_no_early_data() {
    let mut pair = start(&Setup::default());
    let mut config = pair.tls_config();
    // Whoever records early data can send it again (BAD_INPUTS 6): none is taken.
    config.enable_early_data = true;
    for n in 0..3 {
        let socket = connect(pair.mux.addresses()[1]);
        let mut client = secure(config.clone(), socket, "example.org").expect("handshake");
        assert!(!client.conn.is_early_data_accepted());
        let (conn, open) = pair.server.opened();
        let facts = open.tls.expect("facts");
        assert_eq!(facts.exporter, Some(exporter(&client)));
        assert_eq!(
            facts.server_end_point.as_deref(),
            Some(&hash_of(&pair, "example")[..])
        );
        let kind = client.conn.handshake_kind();
        let resumed = kind == Some(rustls::HandshakeKind::Resumed);
        assert_eq!(resumed, n > 0, "{kind:?}");
        // The ticket comes with the first bytes.
        pair.server.output(conn, "<x/>");
        assert_eq!(read_exact(&mut client, 4), b"<x/>");
    }
    pair.stop();
}

#[test]
fn a_handshake_that_never_ends_is_closed_by_age_and_garbage_at_once() {
    let mut pair = start(&Setup {
        limits: "handshake_s = 1",
        ..Setup::default()
    });
    let mut silent = connect(pair.mux.addresses()[1]);
    let mut half = connect(pair.mux.addresses()[1]);
    // A record header that promises 16 KiB.
    half.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00, 0x01])
        .expect("write");
    let (mut client, conn) = pair.client();
    start_tls(&mut pair, conn, false);
    assert_eq!(read_exact(&mut client, PROCEED.len()), PROCEED);
    assert_closed(&mut silent);
    assert_closed(&mut half);
    assert_eq!(pair.server.closed(conn), CloseReason::TlsError);
    assert_closed(&mut client);
    pair.stop();
}
