//! A hostile or broken peer on the link gets its link closed and one log line; muxes and their clients do not
//! notice (DESIGN §3, issue 2 "Bad input").

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site, binary, run};
use isthmus_tests::wait;
use proto::codec;
use proto::frame::{
    BootId, Close, CloseReason, ConnId, Frame, Hello, Input, ListenerKind, Open, Role, StoreId,
};
use proto::limits;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

type Tls = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn hello(role: Role) -> Frame {
    Frame::Hello(Hello {
        version: limits::PROTOCOL_VERSION,
        role,
        name: "mallory".into(),
        frame_bytes_max: limits::FRAME_BYTES_MAX,
        boot: BootId([7; 16]),
        store: None,
        taken: None,
    })
}

fn open() -> Open {
    let here = "127.0.0.1:1".parse().unwrap();
    Open {
        kind: ListenerKind::C2s,
        transport: proto::frame::Transport::Tcp,
        peer: here,
        local: here,
        tls: None,
        dial: None,
    }
}

fn input(bytes: &'static [u8]) -> Input {
    Input {
        bytes: Bytes::from_static(bytes),
        message_end: false,
    }
}

fn encoded(frames: &[Frame]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for frame in frames {
        codec::encode(frame, &mut out).unwrap();
    }
    out.to_vec()
}

/// What a mux with a good certificate may send that no good mux sends.
fn misdeeds() -> Vec<(&'static str, Vec<u8>)> {
    let mux = || hello(Role::Mux);
    let session = |frames: &[Frame]| {
        let mut all = vec![mux(), Frame::ResumeEnd];
        all.extend_from_slice(frames);
        encoded(&all)
    };
    let close = |n| {
        Frame::Close(
            ConnId(n),
            Close {
                last: Bytes::new(),
                reason: CloseReason::Normal,
            },
        )
    };
    let mut huge = encoded(&[mux()]);
    huge.extend_from_slice(&[0xFF; 64]);
    let mut unknown_kind = encoded(&[mux()]);
    unknown_kind.extend_from_slice(&[0, 0, 0, 9, 0xEE, 0, 0, 0, 0, 0, 0, 0, 1]);
    let other_version = match mux() {
        Frame::Hello(h) => Frame::Hello(Hello { version: 999, ..h }),
        other => other,
    };
    let other_name = match mux() {
        Frame::Hello(h) => Frame::Hello(Hello {
            name: "mux1".into(),
            ..h
        }),
        other => other,
    };
    let other_store = match mux() {
        Frame::Hello(h) => Frame::Hello(Hello {
            store: Some(StoreId([9; 16])),
            taken: Some((BootId([1; 16]), u64::MAX)),
            ..h
        }),
        other => other,
    };
    let mut pipelined = session(&[]);
    pipelined.extend(encoded(&[other_store]));
    vec![
        ("text", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("zeroes", vec![0; 100]),
        ("length beyond the limit", huge),
        ("unknown kind", unknown_kind),
        ("no Hello", encoded(&[Frame::Ping(1)])),
        ("two Hellos", encoded(&[mux(), mux()])),
        ("another version", encoded(&[other_version])),
        (
            "the role of an administrator",
            encoded(&[hello(Role::Admin)]),
        ),
        ("the role of a peer", encoded(&[hello(Role::Peer)])),
        ("another mux's name", encoded(&[other_name])),
        ("a second Hello in mid-stream", pipelined),
        (
            "input for a connection that does not exist",
            session(&[Frame::Input(ConnId(5), input(b"x"))]),
        ),
        (
            "a connection opened twice",
            session(&[
                Frame::Open(ConnId(1), open()),
                Frame::Open(ConnId(1), open()),
            ]),
        ),
        (
            "a connection closed that does not exist",
            session(&[close(77)]),
        ),
        (
            "an id that goes back",
            session(&[
                Frame::Open(ConnId(9), open()),
                Frame::Open(ConnId(3), open()),
            ]),
        ),
        (
            "more drained than sent",
            session(&[
                Frame::Open(ConnId(1), open()),
                Frame::Drained(ConnId(1), 1_000_000),
            ]),
        ),
        (
            "more acknowledged than sent",
            session(&[Frame::Ack(1_000_000)]),
        ),
        (
            "a frame for the other direction",
            session(&[
                Frame::Open(ConnId(1), open()),
                Frame::Note(ConnId(1), Default::default()),
            ]),
        ),
        (
            "an administrator's request",
            session(&[Frame::Admin(Bytes::from_static(
                br#"{"id":1,"command":"status","args":{}}"#,
            ))]),
        ),
        ("the end of Resume twice", session(&[Frame::ResumeEnd])),
    ]
}

/// Mutual TLS as a mux does it, with the certificate in `dir`.
fn dial(site: &Site, dir: &Path) -> Result<Tls> {
    let config = std::fs::read_to_string(dir.join("mux.toml"))?;
    let value = |key: &str| {
        config
            .lines()
            .filter_map(|l| l.split_once('='))
            .find(|(k, _)| k.trim() == key)
            .map(|(_, v)| dir.join(v.trim().trim_matches('"')))
            .with_context(|| format!("no {key} in {config}"))
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(value("ca")?)?)?;
    let chain: Vec<_> = CertificateDer::pem_file_iter(value("cert")?)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(value("key")?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let server = std::fs::read_to_string(site.path().join("imserver.toml"))?;
    let name = server
        .lines()
        .find_map(|l| {
            Some(
                l.strip_prefix("name")?
                    .trim()
                    .strip_prefix('=')?
                    .trim()
                    .trim_matches('"')
                    .to_owned(),
            )
        })
        .context("no name in imserver.toml")?;
    let name = ServerName::try_from(format!("{name}.server.isthmus"))?;
    let tcp = TcpStream::connect(site.address(15230))?;
    tcp.set_read_timeout(Some(wait::PATIENCE))?;
    let mut tls =
        rustls::StreamOwned::new(rustls::ClientConnection::new(Arc::new(tls), name)?, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// Reads until the other end closes; `false` if it does not.
fn is_closed(stream: &mut impl std::io::Read) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                return !matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                );
            }
        }
    }
}

#[test]
fn a_hostile_mux_loses_its_link_and_nobody_else_does() {
    let people = [Account::new("witness")];
    let mut site = Site::init(&Plan::default()).unwrap();
    let kit = site.scratch("mallory");
    let mut cert = Command::new(binary("imadmin"));
    cert.args(["cert", "mux", "mallory", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(&kit);
    run(&mut cert).unwrap();
    site.allow_mux("mallory").unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&people).unwrap();
    site.await_clients().unwrap();
    let mut witness = Client::login(&site.endpoint(Transport::Plain), &people[0], None).unwrap();
    let mut failures = Vec::new();
    for (name, bytes) in misdeeds() {
        let before = site.server().log().lines().count();
        let mut link = dial(&site, &kit).unwrap();
        let _ = link.write_all(&bytes);
        let _ = link.flush();
        if !is_closed(&mut link) {
            failures.push(format!("{name}: the link stays open"));
        }
        let lines: Vec<String> = site
            .server()
            .log()
            .lines()
            .skip(before)
            .map(str::to_owned)
            .collect();
        // A link that got as far as its Hello may say that it is up, and that it is down.
        if lines.is_empty() || lines.len() > 3 || lines.iter().any(|l| l.contains("panicked")) {
            failures.push(format!("{name}: {} log lines: {lines:#?}", lines.len()));
        }
        witness
            .ping()
            .unwrap_or_else(|e| panic!("{name}: the other mux suffers: {e:#}"));
    }
    assert!(site.server().is_running());
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn strangers_on_the_link_port_are_closed() {
    let mut site = Site::start(&Plan::default(), &[Account::new("witness")]).unwrap();
    let mut witness = site
        .login(Transport::Plain, &Account::new("witness"))
        .unwrap();
    for base in [15230, 15231, 15232] {
        let Ok(mut tcp) = TcpStream::connect(site.address(base)) else {
            continue;
        };
        tcp.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let _ = tcp.write_all(&encoded(&[hello(Role::Mux), Frame::ResumeEnd]));
        assert!(is_closed(&mut tcp), "port {base} takes frames without TLS");
    }
    witness.ping().unwrap();
    assert!(site.server().is_running());
}

/// Whoever reaches the link's port can be refused as often as they like; the log has a few lines of it.
#[test]
fn strangers_on_the_link_do_not_fill_the_log() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.start_server().unwrap();
    for _ in 0..100 {
        let mut stranger = TcpStream::connect(site.address(15230)).unwrap();
        let patience = Some(std::time::Duration::from_secs(30));
        stranger.set_read_timeout(patience).unwrap();
        stranger.write_all(&[b'x'; 64]).unwrap();
        // With or without an alert.
        assert!(is_closed(&mut stranger));
    }
    let log = site.server().log();
    assert_eq!(log.matches("link refused").count(), 5, "{log}");
}
