//! The binary: `--check`, signals, its link over TLS, running out of descriptors.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{PATIENCE, Server, Setup, Wire, connect, read_exact, write_certificate};
use crossbeam_channel::{Receiver, bounded};
use proto::frame::*;
use proto::server_side::ServerEvent;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

fn mux() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mux"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn check(file: &Path) -> (i32, String) {
    let out = mux()
        .arg("--check")
        .arg("--config")
        .arg(file)
        .output()
        .expect("runs");
    (
        out.status.code().expect("code"),
        String::from_utf8(out.stderr).expect("text"),
    )
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("dir");
    write_certificate(dir.path(), "example", "example.org");
    write_certificate(dir.path(), "other", "other.example");
    dir
}

#[test]
fn check_accepts_a_good_file_from_any_working_directory() {
    let dir = directory();
    std::fs::write(
        dir.path().join("mux.toml"),
        common::configuration_text(&Setup::default()),
    )
    .expect("write");
    // What clients will not like is said, and may be meant.
    let (code, said) = check(&dir.path().join("mux.toml"));
    assert_eq!((code, said.lines().count()), (0, 1), "{said}");
    assert!(said.starts_with("warning: "), "{said}");
    assert!(
        said.contains("other.pem does not cover *.wild.example: it is for other.example"),
        "{said}"
    );
}

#[test]
fn check_prints_every_mistake_with_file_and_line() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    let text =
        "name = \"mux1\"\nfoo = 1\n[limits]\nconns_max = \"many\"\n[[listener]]\nkind = \"c2s\"\n";
    std::fs::write(&file, text).expect("write");
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    for line in [
        "mux.toml:2: unknown key `foo`",
        "mux.toml:4: `limits.conns_max`",
        "mux.toml:5: `listener.transport`",
    ] {
        assert!(said.contains(line), "{line} not in {said}");
    }
    let (code, said) = check(Path::new("/nowhere/mux.toml"));
    assert!(
        code == 1 && said.contains("/nowhere/mux.toml: cannot be read"),
        "{said}"
    );
}

#[test]
fn check_names_files_that_cannot_be_used() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, common::configuration_text(&Setup::default())).expect("write");
    std::fs::write(dir.path().join("example.pem"), "rubbish").expect("write");
    std::fs::copy(dir.path().join("example.key"), dir.path().join("other.key")).expect("copy");
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    assert!(said.contains("example.pem holds no certificate"), "{said}");
    assert!(said.contains("other.pem do not belong together"), "{said}");
}

/// Beside a mistake in the text, every file of every entry, each on the line that names it.
#[test]
fn check_names_every_file_with_its_line() {
    let dir = directory();
    let ca = Ca::new();
    std::fs::write(dir.path().join("ca.pem"), &ca.pem).expect("write");
    ca.issue(dir.path(), "mux1", "mux1.mux.isthmus");
    ca.issue(dir.path(), "admin", "root.admin.isthmus");
    std::fs::write(dir.path().join("rubbish"), "rubbish").expect("write");
    let server = |cert: &str| {
        format!(
            "[[server]]\nname = \"main\"\naddress = \"127.0.0.1:1\"\nca = \"ca.pem\"\ncert = \"{cert}.pem\"\nkey = \"{cert}.key\"\n"
        )
    };
    let text = format!(
        "name = \"mux1\"\nbogus = 1\n{}{}\
         [[server]]\nname = \"main\"\naddress = \"127.0.0.1:1\"\nca = \"missing.pem\"\ncert = \"rubbish\"\nkey = \"rubbish\"\n\
         [[listener]]\nkind = \"c2s\"\ntransport = \"tls\"\nlisten = [\"127.0.0.1:0\"]\n\
         [[certificate]]\ndomains = [\"a\"]\nchain = \"missing.pem\"\nkey = \"missing.key\"\n\
         [[certificate]]\ndomains = [\"b\"]\nchain = \"example.pem\"\nkey = \"other.key\"\n\
         [tls]\nclient_ca = \"rubbish\"\n",
        server("mux1"),
        server("admin"),
    );
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, text).expect("write");
    let (code, said) = check(&file);
    assert_eq!(code, 1);
    let want = [
        "2: unknown key `bogus`",
        "13: admin.pem is for root.admin.isthmus; a certificate for mux1.mux.isthmus is needed here",
        "18: missing.pem cannot be read: No such file or directory (os error 2)",
        "19: rubbish holds no certificate (PEM)",
        "20: rubbish holds no private key (PEM)",
        "27: missing.pem cannot be read: No such file or directory (os error 2)",
        "28: missing.key cannot be read: No such file or directory (os error 2)",
        "32: other.key and example.pem do not belong together",
        "34: rubbish holds no certificate",
    ];
    let dir = format!("{}/", dir.path().display());
    let found: Vec<String> = said.lines().map(|l| l.replace(&dir, "")).collect();
    assert_eq!(found.len(), want.len(), "{said}");
    for (found, want) in found.iter().zip(want) {
        assert!(
            found.starts_with(&format!("mux.toml:{want}")),
            "{found}, not {want}"
        );
    }
}

#[test]
fn a_taken_port_is_said_in_one_sentence() {
    let dir = directory();
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("addr");
    let text = common::configuration_text(&Setup::default()).replacen(
        "127.0.0.1:0",
        &address.to_string(),
        1,
    );
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, text).expect("write");
    let out = mux().arg("--config").arg(&file).output().expect("runs");
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8(out.stderr).expect("text");
    assert_eq!(
        said.lines().last(),
        Some(&*format!(
            "cannot listen on {address}: another program has this port"
        ))
    );
}

/// A running mux; killed if the test fails.
struct Running {
    child: Child,
    lines: Receiver<String>,
    listen: Vec<SocketAddr>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("runs");
        let stderr = child.stderr.take().expect("piped");
        let (sender, lines) = bounded(10_000);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut running = Self {
            child,
            lines,
            listen: Vec::new(),
        };
        let line = running.line("mux is running");
        let list = line
            .split("listen=[")
            .nth(1)
            .and_then(|l| l.split(']').next())
            .expect("addresses");
        running.listen = list
            .split(", ")
            .map(|a| a.parse().expect("address"))
            .collect();
        running
    }

    /// Waits for a log line.
    fn line(&self, part: &str) -> String {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self
            .lines
            .recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {part:?} in {seen:#?}");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(status.expect("kill").success());
    }

    fn exit_code(mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < until, "does not end");
            // Its log ends when it ends.
            while self.lines.recv_timeout(Duration::from_millis(20)).is_ok() {}
        }
    }

    /// Processor time used so far, in clock ticks.
    fn ticks(&self) -> u64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("stat");
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .expect("fields")
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended in good order, or the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn unix_server(path: PathBuf) -> Server {
    let listener = UnixListener::bind(path).expect("bind");
    let (sender, links) = bounded::<Box<dyn Wire>>(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if stream
                .set_read_timeout(Some(Duration::from_millis(5)))
                .is_err()
                || sender.send(Box::new(stream)).is_err()
            {
                return;
            }
        }
    });
    Server::new(links)
}

fn http(line: &str, path: &str) -> String {
    let address = line
        .split("metrics=")
        .nth(1)
        .and_then(|l| l.split_whitespace().next())
        .expect("address");
    let mut socket = TcpStream::connect(address.trim_start_matches("Some(").trim_end_matches(')'))
        .expect("connect");
    write!(socket, "GET {path} HTTP/1.0\r\n\r\n").expect("write");
    let mut out = String::new();
    socket.read_to_string(&mut out).expect("read");
    out
}

/// Who is refused does not hear why, so it says who knows.
#[test]
fn a_server_that_hangs_up_unasked_has_the_reason_in_its_log() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, common::configuration_text(&Setup::default())).expect("write");
    let door = UnixListener::bind(dir.path().join("link.sock")).expect("bind");
    std::thread::spawn(move || door.incoming().for_each(drop));
    let mut command = mux();
    command.arg("--config").arg(&file);
    let running = Running::start(command);
    let line = running.line("no link to the server");
    assert!(line.contains("see the log of the server"), "{line}");
}

/// Anybody can ask with any Origin: the operator is told once, with what is needed to set it right.
#[test]
fn a_refused_origin_is_in_the_log() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    let text = common::configuration_text(&Setup::default())
        .replace("transport = \"tcp\"", "transport = \"ws\"");
    std::fs::write(&file, text).expect("write");
    let mut server = unix_server(dir.path().join("link.sock"));
    let mut command = mux();
    command.arg("--config").arg(&file);
    let running = Running::start(command);
    assert!(!server.up());
    for _ in 0..3 {
        let mut client = connect(running.listen[0]);
        let request = "GET /xmpp-websocket HTTP/1.1\r\nHost: 127.0.0.1:5280\r\nOrigin: https://chat.example\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: xmpp\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n";
        client.write_all(request.as_bytes()).expect("write");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    let line = running.line("refused with 403");
    for part in [
        "WARN",
        "origin=\"https://chat.example\"",
        "host=\"127.0.0.1:5280\"",
    ] {
        assert!(line.contains(part), "{line}");
    }
    running.signal("TERM");
    let rest = std::iter::from_fn(|| running.lines.recv_timeout(PATIENCE).ok());
    assert_eq!(rest.filter(|l| l.contains("refused with 403")).count(), 0);
}

#[test]
fn the_program_serves_reloads_and_stops() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, common::configuration_text(&Setup::default())).expect("write");
    let mut server = unix_server(dir.path().join("link.sock"));
    let mut command = mux();
    command.arg("--config").arg(&file).current_dir("/");
    let running = Running::start(command);
    assert!(!server.up());
    let mut client = connect(running.listen[0]);
    let (conn, _) = server.opened();
    server.output(conn, "<x/>");
    assert_eq!(read_exact(&mut client, 4), b"<x/>");

    std::fs::write(
        &file,
        common::configuration_text(&Setup {
            limits: "conns_max = 7",
            ..Setup::default()
        }),
    )
    .expect("write");
    running.signal("HUP");
    running.line("limits changed");
    let more =
        "[[listener]]\nkind = \"component\"\ntransport = \"tcp\"\nlisten = [\"127.0.0.1:0\"]\n";
    let text = common::configuration_text(&Setup::default());
    std::fs::write(&file, format!("{text}{more}")).expect("write");
    running.signal("HUP");
    let line = running.line("`listener` changes only with a restart");
    assert!(line.contains("WARN"), "{line}");
    std::fs::write(&file, "name = 3\n").expect("write");
    running.signal("HUP");
    running.line("mux.toml:1: `name` must be a string");

    running.signal("TERM");
    server.wait("Drain", |e| matches!(e, ServerEvent::Drain).then_some(()));
    server.close(conn, b"", CloseReason::Shutdown);
    server.closed(conn);
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn health_and_metrics_follow_the_link() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, common::configuration_text(&Setup::default())).expect("write");
    let mut server = unix_server(dir.path().join("link.sock"));
    let mut command = mux();
    command.arg("--config").arg(&file);
    let mut child = command.spawn().expect("runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    let line = lines
        .find(|l| l.contains("mux is running"))
        .expect("running");
    assert!(!server.up());
    server.wait("ResumeEnd", |e| {
        matches!(e, ServerEvent::ResumeEnd).then_some(())
    });
    lines
        .find(|l| l.contains("link to the server is up"))
        .expect("up");
    assert!(http(&line, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(http(&line, "/metrics").contains("mux_link_up 1\n"));
    drop(server);
    lines
        .find(|l| l.contains("no link to the server"))
        .expect("down");
    assert!(http(&line, "/healthz").starts_with("HTTP/1.1 503"));
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn out_of_descriptors_it_refuses_does_not_spin_and_recovers() {
    let dir = directory();
    let file = dir.path().join("mux.toml");
    std::fs::write(&file, common::configuration_text(&Setup::default())).expect("write");
    let mut server = unix_server(dir.path().join("link.sock"));
    let mut command = Command::new("sh");
    let script = format!(
        "ulimit -n 40; exec {} --config {}",
        env!("CARGO_BIN_EXE_mux"),
        file.display()
    );
    command
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    let running = Running::start(command);
    assert!(!server.up());
    let clients: Vec<_> = (0..60).map(|_| connect(running.listen[0])).collect();
    running.line("out of file descriptors");
    let before = running.ticks();
    let since = Instant::now();
    server.never("anything wrong", 200, |e| {
        matches!(e, ServerEvent::Closed(..))
    });
    let share = (running.ticks() - before) as f64 / 100.0 / since.elapsed().as_secs_f64();
    assert!(share < 0.25, "spins: {share}");
    drop(clients);
    let mut late = connect(running.listen[0]);
    late.write_all(b"<late/>").expect("write");
    let port = late.local_addr().expect("addr").port();
    let conn = server.wait("Opened", |e| match e {
        ServerEvent::Opened(conn, open) if open.peer.port() == port => Some(*conn),
        _ => None,
    });
    assert_eq!(server.input(conn, 7), b"<late/>");
}

/// A private CA, and what it issues: PEM files NAME.pem and NAME.key.
struct Ca {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Ca {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("CA").pem();
        Self {
            issuer: rcgen::Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self, dir: &Path, file: &str, name: &str) {
        let key = rcgen::KeyPair::generate().expect("key");
        let params = rcgen::CertificateParams::new([name.to_owned()]).expect("params");
        let cert = params.signed_by(&key, &self.issuer).expect("certificate");
        std::fs::write(dir.join(format!("{file}.pem")), cert.pem()).expect("write");
        std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).expect("write");
    }
}

fn tls_server(
    dir: &Path,
    file: &str,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> (SocketAddr, Server) {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots
        .add(common::certificate(dir.join("ca.pem")))
        .expect("root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .expect("verifier");
    let chain = vec![common::certificate(dir.join(format!("{file}.pem")))];
    let key = PrivateKeyDer::from_pem_file(dir.join(format!("{file}.key"))).expect("key");
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("certificate");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("addr");
    let (sender, links) = bounded::<Box<dyn Wire>>(16);
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut conn = ServerConnection::new(config.clone()).expect("config");
            while conn.is_handshaking() && conn.complete_io(&mut socket).is_ok() {}
            if conn.is_handshaking() {
                continue;
            }
            socket
                .set_read_timeout(Some(Duration::from_millis(5)))
                .expect("timeout");
            if sender
                .send(Box::new(StreamOwned::new(conn, socket)))
                .is_err()
            {
                return;
            }
        }
    });
    (address, Server::new(links))
}

fn tls_link_file(dir: &Path, address: SocketAddr) -> PathBuf {
    let files = "ca = \"ca.pem\"\ncert = \"mux1.pem\"\nkey = \"mux1.key\"";
    let text = common::configuration_text(&Setup::default()).replace(
        "address = \"unix:link.sock\"",
        &format!("address = \"{address}\"\n{files}"),
    );
    let file = dir.join("mux.toml");
    std::fs::write(&file, text).expect("write");
    file
}

#[test]
fn the_link_is_mutual_tls_and_goes_on_after_a_cut() {
    let dir = directory();
    let ca = Ca::new();
    std::fs::write(dir.path().join("ca.pem"), &ca.pem).expect("write");
    ca.issue(dir.path(), "mux1", "mux1.mux.isthmus");
    ca.issue(dir.path(), "main", "main.server.isthmus");
    let (address, mut server) = tls_server(dir.path(), "main", &[&rustls::version::TLS13]);
    let mut command = mux();
    command
        .arg("--config")
        .arg(tls_link_file(dir.path(), address));
    let running = Running::start(command);
    assert!(!server.up());
    let mut client = connect(running.listen[0]);
    let (conn, _) = server.opened();
    let long: Vec<u8> = (0..3_000_000u32).map(|n| (n % 239) as u8).collect();
    server.output(conn, long.clone());
    assert!(read_exact(&mut client, long.len()) == long);
    server.cut();
    assert!(server.up());
    client.write_all(b"<after/>").expect("write");
    assert_eq!(server.input(conn, 8), b"<after/>");
    running.signal("INT");
    server.wait("Drain", |e| matches!(e, ServerEvent::Drain).then_some(()));
    server.close(conn, b"", CloseReason::Shutdown);
    server.closed(conn);
    assert_eq!(running.exit_code(), Some(0));
}

#[test]
fn a_server_with_another_name_another_ca_or_old_tls_gets_no_link() {
    for (name, same_ca, version, why) in [
        (
            "other.server.isthmus",
            true,
            &rustls::version::TLS13,
            "not valid for name",
        ),
        (
            "main.mux.isthmus",
            true,
            &rustls::version::TLS13,
            "not valid for name",
        ),
        (
            "main.server.isthmus",
            false,
            &rustls::version::TLS13,
            "invalid peer certificate",
        ),
        (
            "main.server.isthmus",
            true,
            &rustls::version::TLS12,
            "ProtocolVersion",
        ),
    ] {
        let dir = directory();
        let (ca, foreign) = (Ca::new(), Ca::new());
        std::fs::write(dir.path().join("ca.pem"), &ca.pem).expect("write");
        ca.issue(dir.path(), "mux1", "mux1.mux.isthmus");
        if same_ca { &ca } else { &foreign }.issue(dir.path(), "main", name);
        let (address, server) = tls_server(dir.path(), "main", &[version]);
        let mut command = mux();
        command
            .arg("--config")
            .arg(tls_link_file(dir.path(), address));
        let running = Running::start(command);
        let line = running.line("no link to the server");
        assert!(line.contains("TLS:") && line.contains(why), "{why}: {line}");
        drop(server);
    }
}
