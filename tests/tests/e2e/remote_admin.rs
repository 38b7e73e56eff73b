//! `imadmin` from another host (a network namespace), while every mux is down.

use super::recovery::Namespace;
use isthmus_tests::client::{Account, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, binary, edit, run};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const INDEX: u8 = 42;

struct Remote<'a> {
    namespace: &'a Namespace,
    config: &'a Path,
}

impl Remote<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.namespace.command(binary("imadmin"));
        command.arg("--config").arg(self.config).args(args);
        command
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = run(&mut self.command(args)).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn with_input(&self, args: &[&str], input: &str) -> Output {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }
}

#[test]
fn everything_works_from_another_host_with_every_mux_down() {
    let namespace = Namespace::new(INDEX).unwrap();
    let everywhere = Plan {
        listen: Some("0.0.0.0".into()),
        ..Plan::default()
    };
    let mut site = Site::init(&everywhere).unwrap();
    let kit = site.scratch("kit");
    let mut cert = Command::new(binary("imadmin"));
    cert.args(["cert", "admin", "alice", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(&kit);
    run(&mut cert).unwrap();
    let config = kit.join("admin.toml");
    let port = site.address(15232).port();
    edit(
        &config,
        &format!("127.0.0.1:{port}"),
        &format!("{}:{port}", namespace.host_address()),
    )
    .unwrap();
    site.start_server().unwrap();
    let remote = Remote {
        namespace: &namespace,
        config: &config,
    };

    let status = remote.ok(&["status"]);
    assert!(!status.trim().is_empty());

    let added = remote.with_input(
        &["user", "add", "romeo@localhost", "--password-stdin"],
        "first password\n",
    );
    assert!(
        added.status.success(),
        "{}",
        String::from_utf8_lossy(&added.stderr)
    );
    let again = remote.with_input(
        &["user", "add", "romeo@localhost", "--password-stdin"],
        "x\n",
    );
    assert!(!again.status.success(), "an account was added twice");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("exists") && !said.contains("panicked"),
        "{said}"
    );

    let file = site.scratch("people.txt");
    let people: String = (0..1000)
        .map(|n| format!("person{n}@localhost password{n}\n"))
        .collect();
    std::fs::write(&file, people).unwrap();
    remote.ok(&["user", "import", file.to_str().unwrap()]);
    let list = remote.ok(&["user", "list"]);
    for jid in [
        "romeo@localhost",
        "person0@localhost",
        "person999@localhost",
    ] {
        assert!(list.contains(jid), "{jid} is not listed");
    }
    assert!(
        remote
            .ok(&["user", "show", "romeo@localhost"])
            .contains("romeo@localhost")
    );
    let json: serde_json::Value =
        serde_json::from_str(&remote.ok(&["--json", "user", "list"])).unwrap();
    assert!(json.to_string().contains("person500@localhost"));

    let changed = remote.with_input(
        &["user", "passwd", "romeo@localhost", "--password-stdin"],
        "second password\n",
    );
    assert!(
        changed.status.success(),
        "{}",
        String::from_utf8_lossy(&changed.stderr)
    );
    remote.ok(&["user", "del", "person1@localhost"]);
    assert!(!remote.ok(&["user", "list"]).contains("person1@localhost"));
    assert!(
        !remote
            .command(&["user", "show", "person1@localhost"])
            .output()
            .unwrap()
            .status
            .success()
    );
    remote.ok(&["session", "list"]);
    remote.ok(&["mux", "list"]);

    // With the mux up: sessions are listed and kicked, passwords are those that were set.
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    let old = Account {
        user: "romeo".into(),
        password: "first password".into(),
    };
    assert!(site.login(Transport::Plain, &old).is_err());
    let new = Account {
        user: "romeo".into(),
        password: "second password".into(),
    };
    let endpoint = site.endpoint(Transport::Plain);
    let plain = Sasl::Mechanism("PLAIN".into());
    let mut romeo =
        isthmus_tests::client::Client::login_with(&endpoint, &new, Some("balcony"), &plain)
            .unwrap();
    assert!(
        remote
            .ok(&["session", "list"])
            .contains("romeo@localhost/balcony")
    );
    remote.ok(&["session", "kick", "romeo@localhost/balcony"]);
    romeo.until_closed().unwrap();
    assert!(
        !remote
            .ok(&["session", "list"])
            .contains("romeo@localhost/balcony")
    );
}

/// No mux can speak for an administrator: its certificate opens nothing on the admin port.
#[test]
fn a_mux_certificate_is_no_administrator() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.start_server().unwrap();
    let kit = site.scratch("kit");
    let mut cert = Command::new(binary("imadmin"));
    cert.args(["cert", "mux", "mallory", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(&kit);
    run(&mut cert).unwrap();
    let mut admin = Command::new(binary("imadmin"));
    admin
        .args(["cert", "admin", "alice", "--dir"])
        .arg(site.path())
        .arg("--out")
        .arg(site.scratch("alice"));
    run(&mut admin).unwrap();
    // The administrator's files, with the mux's certificate and key in the place of theirs.
    let config = site.scratch("alice").join("admin.toml");
    let of = |dir: &Path, what: &str| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(dir)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .filter(|p| {
                std::fs::read_to_string(p).is_ok_and(|t| t.contains(what)) && !p.ends_with("ca.pem")
            })
            .collect()
    };
    for what in ["PRIVATE KEY", "BEGIN CERTIFICATE"] {
        let theirs = of(&kit, what);
        for place in of(&site.scratch("alice"), what) {
            std::fs::copy(&theirs[0], place).unwrap();
        }
    }
    let mut command = Command::new(binary("imadmin"));
    command.arg("--config").arg(&config).arg("status");
    let output = command.output().unwrap();
    assert!(
        !output.status.success(),
        "a mux certificate administers: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}
