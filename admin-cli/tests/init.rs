//! `imadmin init` and `imadmin cert`: what they write is what the other programs read, and nothing is overwritten.

use imserver::config::Mechanism;
use proto::frame::ListenerKind;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

fn imadmin(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imadmin"));
    command.args(arguments).output().expect("imadmin runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A directory with a set-up in `site`.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn empty() -> Site {
        Site {
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn init(options: &[&str]) -> Site {
        let site = Site::empty();
        let output = site.try_init("example.org", options);
        assert!(output.status.success(), "{options:?}: {}", text(&output));
        site
    }

    fn try_init(&self, domain: &str, options: &[&str]) -> Output {
        let dir = self.path("").display().to_string();
        imadmin(&[&["init", "--dir", &dir, "--domain", domain], options].concat())
    }

    fn cert(&self, role: &str, name: &str) -> Output {
        let dir = self.path("").display().to_string();
        imadmin(&[
            "cert",
            role,
            name,
            "--dir",
            &dir,
            "--out",
            &self.out(name).display().to_string(),
        ])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("site").join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    fn server(&self) -> imserver::config::Config {
        imserver::config::load_for_start(&self.path("imserver.toml"))
            .unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    fn mux(&self) -> mux::config::Config {
        mux_config(&self.path("mux.toml"))
    }
}

fn mux_config(file: &Path) -> mux::config::Config {
    mux::config::load_with_files(file).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// Every file below a directory, with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type().expect("a type").is_dir() {
                true => todo.push(entry.path()),
                false => {
                    found.insert(entry.path(), std::fs::read(entry.path()).expect("readable"));
                }
            }
        }
    }
    found
}

/// DNS names of a certificate, its issuer, and whether it is a CA.
fn certificate(file: &Path) -> (Vec<String>, String, bool) {
    let pem = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let (_, cert) = X509Certificate::from_der(&pem.contents).expect("a certificate");
    let names = cert
        .subject_alternative_name()
        .expect("well-formed")
        .map_or_else(Vec::new, |san| {
            san.value
                .general_names
                .iter()
                .map(|name| match name {
                    GeneralName::DNSName(name) => (*name).to_owned(),
                    other => panic!("{other:?}"),
                })
                .collect()
        });
    (names, cert.issuer().to_string(), cert.is_ca())
}

#[test]
fn the_server_and_the_mux_take_what_init_writes() {
    for plaintext in [false, true] {
        let site = Site::init(if plaintext { &["--plaintext"] } else { &[] });
        let server = site.server();
        assert_eq!(server.name, "main");
        assert_eq!(server.domains, ["example.org"]);
        assert_eq!(server.data_dir, site.path("data"));
        assert_eq!(server.auth.plaintext, plaintext);
        assert_eq!(server.auth.mechanisms, Mechanism::DEFAULT);
        assert_eq!(server.muxes.len(), 1);
        assert_eq!(
            (&*server.muxes[0].name, &*server.muxes[0].kinds),
            ("mux1", &[ListenerKind::C2s][..])
        );
        assert!(server.embedded_mux.is_none());
        let user = xmpp::jid::BareJid::parse("alice@example.org").expect("a JID");
        for right in imserver::policy::Right::ALL {
            let has = server
                .policy
                .allows(&user, *right, &imserver::policy::no_groups);
            assert_eq!(has, right.is_ordinary(), "{}", right.name());
        }
        let mux = site.mux();
        assert_eq!(mux.name, "mux1");
        assert_eq!(mux.servers[0].name, server.name);
        assert_eq!(mux.certificates[0].domains, ["example.org"]);
    }
}

#[test]
fn an_embedded_set_up_is_one_file() {
    let site = Site::init(&["--embedded"]);
    let server = site.server();
    assert!(!site.path("mux.toml").exists());
    assert!(server.muxes.is_empty());
    let mux = server.embedded_mux.expect("it is inside");
    assert_eq!(mux.listeners.len(), 4, "TCP and WebSocket, two each");
}

#[test]
fn every_port_is_moved_by_the_offset() {
    for offset in [0, 100, 17_500] {
        let site = Site::init(&["--port-offset", &offset.to_string()]);
        let (server, mux) = (site.server(), site.mux());
        let clients: Vec<u16> = mux.listeners.iter().map(|l| l.listen[0].port()).collect();
        let ports = [5_222, 5_223, 5_443, 5_280].map(|port| port + offset);
        assert_eq!(clients, ports);
        assert_eq!(server.link.listen[0].port(), 15_230 + offset);
        assert_eq!(server.admin.listen[0].port(), 15_232 + offset);
        assert_eq!(server.metrics[0].port(), 15_233 + offset);
        assert_eq!(mux.metrics.expect("on").port(), 15_234 + offset);
        let link = mux::config::ServerAddress::Tcp(format!("127.0.0.1:{}", 15_230 + offset));
        assert_eq!(mux.servers[0].address, link);
        let admin = std::fs::read_to_string(site.path("admin.toml")).expect("readable");
        assert!(
            admin.contains(&format!("\"127.0.0.1:{}\"", 15_232 + offset)),
            "{admin}"
        );
    }
}

/// Nothing is written when something about the command is wrong.
#[test]
fn wrong_offsets_and_domains_are_refused() {
    for (domain, offset, says) in [
        ("example.org", "150", "multiple of 100"),
        ("example.org", "17600", "at most 17500"),
        ("example.org", "-100", ""),
        ("exa mple.org", "0", "no domain name"),
        ("", "0", "no domain name"),
        ("a-.org", "0", "no domain name"),
        ("alice@example.org", "0", "no domain name"),
    ] {
        let site = Site::empty();
        let output = site.try_init(domain, &[&format!("--port-offset={offset}")]);
        assert!(!output.status.success(), "{domain} {offset}");
        assert!(
            text(&output).contains(says),
            "{domain} {offset}: {}",
            text(&output)
        );
        assert!(!site.path("").exists(), "{domain} {offset} left something");
    }
}

/// What `init` takes `imserver --check` takes, and what it refuses leaves nothing behind.
#[test]
fn a_directory_is_looked_at_before_anything_is_written() {
    let with = |extra: &[&str]| {
        let mut all = vec![
            "--ldap",
            "ldap://ldap.example.org",
            "--ldap-base",
            "dc=example",
        ];
        all.extend(extra);
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let site = Site::empty();
    let file = |name: &str, text: &str| {
        let path = site.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (password, empty) = (file("password", "secret\n"), file("empty", ""));
    let (late, rubbish) = (file("late", "\nsecret\n"), file("rubbish", "no PEM"));
    let bind = |file: &str| {
        with(&[
            "--ldap-bind-dn",
            "cn=x,dc=example",
            "--ldap-bind-password-file",
            file,
        ])
    };
    let uri = |uri: &str| with(&["--ldap", uri]);
    for (options, says) in [
        (uri("ldap.example.org"), "is no server"),
        (uri("ldap://"), "is no server"),
        (uri("http://ldap.example.org"), "is no server"),
        (uri("ldap://ldap.example.org:0"), "is no server"),
        (uri("ldap://ldap.example.org:x"), "is no server"),
        (uri("ldap://[::1]"), "is no server"),
        (uri("ldap://a b"), "is no server"),
        (
            bind("/nowhere/password"),
            "/nowhere/password cannot be read",
        ),
        (bind(&empty), "no password on its first line"),
        (bind(&late), "no password on its first line"),
        (
            with(&["--ldap-ca", "/nowhere/ca.pem"]),
            "/nowhere/ca.pem cannot be read",
        ),
        (with(&["--ldap-ca", &rubbish]), "holds no certificate"),
        (
            with(&["--ldap-group-base", " "]),
            "--ldap-group-base is empty",
        ),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let output = site.try_init("example.org", &options);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{options:?}: {}",
            text(&output)
        );
        assert!(
            text(&output).contains(says),
            "{options:?}: {}",
            text(&output)
        );
        assert!(!site.path("").exists(), "{options:?} left something");
    }
    for options in [
        uri("ldaps://ldap.example.org:636/"),
        uri("ldap://ldap_2.example.org"),
        bind(&password),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Site::init(&options).server();
    }
}

#[test]
fn it_listens_where_it_is_told_to_and_reaches_itself() {
    for (listen, local) in [
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
        ("192.0.2.7", "192.0.2.7"),
    ] {
        let site = Site::init(&["--listen", listen]);
        let server = site.server();
        assert_eq!(server.link.listen[0].ip().to_string(), listen);
        assert!(
            server.metrics[0].ip().is_loopback(),
            "metrics are for this host"
        );
        let link = mux::config::ServerAddress::Tcp(format!("{local}:15230"));
        assert_eq!(site.mux().servers[0].address, link);
    }
}

#[test]
fn a_set_up_is_never_overwritten() {
    let site = Site::init(&[]);
    let before = files(&site.path(""));
    let output = site.try_init("other.example", &["--embedded"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("is there already"),
        "{}",
        text(&output)
    );
    assert!(files(&site.path("")) == before, "a file has changed");
    // Part of a set-up is one too.
    for part in [
        "imserver.toml",
        "mux.toml",
        "policy.toml",
        "admin.toml",
        "link",
        "tls",
    ] {
        let site = Site::empty();
        std::fs::create_dir_all(site.path("")).expect("a directory");
        std::fs::write(site.path(part), "mine").expect("a file");
        let output = site.try_init("example.org", &[]);
        assert_eq!(output.status.code(), Some(1), "{part}: {}", text(&output));
        assert!(text(&output).contains(part), "{}", text(&output));
        assert_eq!(
            files(&site.path("")).len(),
            1,
            "{part}: something was written"
        );
    }
}

/// The certificate says what a link may be, so each says exactly one thing.
#[test]
fn certificates_carry_one_name_each() {
    let site = Site::init(&[]);
    for (role, name) in [("mux", "edge-7"), ("peer", "south"), ("admin", "carol")] {
        let output = site.cert(role, name);
        assert!(output.status.success(), "{}", text(&output));
    }
    let (names, ca, is_ca) = certificate(&site.path("link/ca.pem"));
    assert!(names.is_empty() && is_ca);
    for (file, name) in [
        (site.path("link/server.pem"), "main.server.isthmus"),
        (site.path("link/mux1.pem"), "mux1.mux.isthmus"),
        (site.path("link/admin.pem"), "admin.admin.isthmus"),
        (site.out("edge-7/edge-7.pem"), "edge-7.mux.isthmus"),
        (site.out("south/south.pem"), "south.peer.isthmus"),
        (site.out("carol/carol.pem"), "carol.admin.isthmus"),
    ] {
        let (names, issuer, is_ca) = certificate(&file);
        assert_eq!(names, [name]);
        assert_eq!(issuer, ca);
        assert!(!is_ca, "{name}");
    }
    let (names, issuer, is_ca) = certificate(&site.path("tls/example.org.pem"));
    assert_eq!(names, ["example.org"]);
    assert!(
        issuer != ca && !is_ca,
        "clients' certificates have nothing to do with links"
    );
}

#[test]
fn a_mux_elsewhere_gets_all_it_needs() {
    let site = Site::init(&["--port-offset", "300"]);
    let output = site.cert("mux", "edge1");
    assert!(output.status.success(), "{}", text(&output));
    let config = mux_config(&site.out("edge1/mux.toml"));
    assert_eq!(config.name, "edge1");
    assert_eq!(config.servers[0].name, "main");
    assert_eq!(
        config.servers[0].address,
        mux::config::ServerAddress::Tcp("127.0.0.1:15530".into())
    );
    assert_eq!(config.listeners[0].listen[0].port(), 5_522);
    // Again, to the same place: nothing is written over, and it says what to do.
    let again = site.cert("mux", "edge1");
    assert!(!again.status.success());
    let said = text(&again);
    assert!(
        said.contains("edge1/ca.pem is there already") && said.contains("take another directory"),
        "{said}"
    );
    // What it says to add to imserver.toml can be added as it is.
    let said = text(&output);
    let section: Vec<&str> = said
        .lines()
        .skip_while(|l| *l != "[[mux]]")
        .take_while(|l| !l.is_empty())
        .collect();
    let file = site.path("imserver.toml");
    let before = std::fs::read_to_string(&file).expect("readable");
    std::fs::write(&file, format!("{before}\n{}\n", section.join("\n"))).expect("writable");
    let names: Vec<String> = site.server().muxes.into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["mux1", "edge1"]);
}

/// What the files of another host cannot know is said, and nothing is suggested that would be wrong.
#[test]
fn it_is_said_what_to_check_on_the_other_host() {
    let near = Site::init(&[]);
    let far = Site::init(&["--listen", "0.0.0.0"]);
    for (role, name, file) in [
        ("admin", "carol", "admin.toml"),
        ("mux", "edge", "mux.toml"),
    ] {
        for (site, loopback) in [(&near, true), (&far, false)] {
            let said = text(&site.cert(role, name));
            let check = format!("Check in {file}: the server's address (127.0.0.1:");
            assert!(said.contains(&check), "{said}");
            assert_eq!(said.contains("is a loopback address"), loopback, "{said}");
        }
    }
    let said = text(&near.cert("mux", "mux1"));
    assert!(said.contains("lists a mux mux1 already"), "{said}");
    assert!(!said.contains("[[mux]]"), "{said}");
}

#[test]
fn a_certificate_that_cannot_be_whole_is_not_begun() {
    let site = Site::init(&[]);
    std::fs::remove_file(site.path("tls/example.org.pem")).expect("it was there");
    let output = site.cert("mux", "edge1");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(!site.out("edge1").exists(), "something was written");
}

#[test]
fn certificates_are_not_overwritten_or_misnamed() {
    let site = Site::init(&[]);
    assert!(site.cert("admin", "carol").status.success());
    let before = files(&site.out("carol"));
    let output = site.cert("admin", "carol");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(files(&site.out("carol")) == before, "a file has changed");
    for name in ["", "Carol", "a.b", "-a", "a_b"] {
        let output = site.cert("admin", name);
        assert!(!output.status.success(), "{name:?}");
    }
    assert!(
        !site.cert("server", "main2").status.success(),
        "there is no such role to hand out"
    );
    let nowhere = Site::empty();
    let output = nowhere.cert("mux", "edge1");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("ca.key cannot be read"),
        "{}",
        text(&output)
    );
    assert!(!nowhere.out("edge1").exists(), "something was written");
}

#[test]
fn keys_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = Site::init(&[]);
    assert!(site.cert("mux", "edge1").status.success());
    let mut keys = 0;
    for (path, content) in files(site.dir.path()) {
        if String::from_utf8_lossy(&content).contains("PRIVATE KEY") {
            let mode = std::fs::metadata(&path)
                .expect("it is there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
            keys += 1;
        }
    }
    assert_eq!(
        keys, 7,
        "CA, server, mux1, admin, clients; edge1 and its copy of the clients' one"
    );
}
