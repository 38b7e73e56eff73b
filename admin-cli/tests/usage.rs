//! Wrong invocations: one clear sentence and the right exit code each. 1 refused, 2 usage, 3 no server, 4 not allowed.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs in an empty directory, so that no admin.toml is found by chance.
fn imadmin(dir: &Path, arguments: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_imadmin"))
        .args(arguments)
        .current_dir(dir)
        .env_remove("ISTHMUS_ADMIN")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("imadmin starts");
    // It may end without reading.
    let _ = child
        .stdin
        .take()
        .expect("piped")
        .write_all(stdin.as_bytes());
    child.wait_with_output().expect("imadmin ends")
}

fn error(output: &Output) -> String {
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn admin_toml(dir: &Path, text: &str) -> PathBuf {
    let file = dir.join("admin.toml");
    std::fs::write(&file, text).expect("writable");
    file
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let dir = tempfile::tempdir().expect("a directory");
    for (arguments, says) in [
        (&[][..], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["user"], "Usage"),
        (&["user", "add"], "<JID>"),
        (&["user", "add", "a@b"], "--password-stdin"),
        (&["user", "passwd", "a@b"], "--password-stdin"),
        (
            &["user", "add", "a@b", "--password", "x"],
            "unexpected argument",
        ),
        (&["user", "import"], "<FILE>"),
        (&["session", "kick"], "<JID>"),
        (&["init", "--dir", "x"], "--domain"),
        (&["init", "--domain", "a.org"], "--dir"),
        (
            &[
                "init",
                "--dir",
                "x",
                "--domain",
                "a.org",
                "--listen",
                "localhost",
            ],
            "invalid",
        ),
        (
            &[
                "init",
                "--dir",
                "x",
                "--domain",
                "a.org",
                "--port-offset",
                "65536",
            ],
            "65536",
        ),
        (
            &["cert", "server", "x", "--dir", "x", "--out", "y"],
            "server",
        ),
        (&["status"], "no admin.toml: give --config FILE"),
        (
            &["--config", "absent.toml", "status"],
            "absent.toml cannot be read",
        ),
    ] {
        let output = imadmin(dir.path(), arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        let error = error(&output);
        assert!(error.contains(says), "{arguments:?}: {error}");
    }
    let left = std::fs::read_dir(dir.path()).expect("readable").count();
    assert_eq!(left, 0, "something was written");
}

#[test]
fn mistakes_of_admin_toml_are_one_line_with_file_and_line() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, says) in [
        ("server = 1\n", "admin.toml:1: "),
        ("server = \"main\"\n", "missing field `address`"),
        (
            "server = \"main\"\naddress = \"x:1\"\n\nport = 3\n",
            "admin.toml:4: unknown field `port`",
        ),
        ("server =\n", "admin.toml:1: "),
    ] {
        admin_toml(dir.path(), text);
        let output = imadmin(dir.path(), &["status"], "");
        assert_eq!(output.status.code(), Some(2), "{text}: {output:?}");
        let error = error(&output);
        assert!(
            error.contains(says) && error.lines().count() == 1,
            "{text}: {error}"
        );
    }
}

#[test]
fn an_empty_password_is_refused_before_anyone_is_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    for stdin in ["", "\n", "\nsecond line\n"] {
        let output = imadmin(
            dir.path(),
            &["user", "add", "a@b", "--password-stdin"],
            stdin,
        );
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(error(&output).contains("is empty"));
    }
}

#[test]
fn a_server_that_is_not_there_is_exit_code_3() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let site = path.join("site").display().to_string();
    let made = imadmin(path, &["init", "--dir", &site, "--domain", "a.org"], "");
    assert!(made.status.success(), "{made:?}");
    let files = "ca = \"site/link/ca.pem\"\ncert = \"site/link/admin.pem\"\nkey = \"site/link/admin.key\"\n";

    // Nobody listens; a listener that hangs up at once; one that does not speak TLS; no socket; a socket nobody serves.
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nobody = closed.local_addr().expect("an address");
    drop(closed);
    let hang_up = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hangs_up = hang_up.local_addr().expect("an address");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let no_tls = other.local_addr().expect("an address");
    let silent = UnixListener::bind(path.join("silent.sock")).expect("a socket");
    std::thread::scope(|scope| {
        scope.spawn(move || drop(hang_up.accept().expect("a connection")));
        scope.spawn(move || {
            let (mut stream, _) = other.accept().expect("a connection");
            // It may have gone already.
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        });
        scope.spawn(move || drop(silent.accept().expect("a connection")));
        for (address, files, says) in [
            (nobody.to_string(), files, "Connection refused"),
            (hangs_up.to_string(), files, "is it the port of [admin]"),
            (no_tls.to_string(), files, "cannot be reached"),
            (nobody.to_string(), "", "has no `ca`"),
            (
                nobody.to_string(),
                &files.replace("ca.pem", "gone.pem"),
                "gone.pem",
            ),
            ("unix:absent.sock".to_owned(), "", "No such file"),
            (
                "unix:silent.sock".to_owned(),
                "",
                "it has closed the connection",
            ),
        ] {
            admin_toml(
                path,
                &format!("server = \"main\"\naddress = \"{address}\"\n{files}"),
            );
            let output = imadmin(path, &["status"], "");
            assert_eq!(output.status.code(), Some(3), "{address}: {output:?}");
            let error = error(&output);
            assert!(
                error.contains(says) && error.lines().count() == 1,
                "{address}: {error}"
            );
            assert!(!error.contains("https://"), "{address}: {error}");
        }
    });
}

#[test]
fn a_domain_beyond_ascii_is_set_up_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let site = dir.path().join("site");
    let output = imadmin(
        dir.path(),
        &["init", "--dir", "site", "--domain", "Bücher.example"],
        "",
    );
    assert!(output.status.success(), "{output:?}");
    let server =
        imserver::config::load(&site.join("imserver.toml")).unwrap_or_else(|m| panic!("{m}"));
    assert_eq!(server.domains, ["bücher.example"]);
    let config =
        mux::config::load_with_files(&site.join("mux.toml")).unwrap_or_else(|m| panic!("{m:?}"));
    assert_eq!(config.certificates[0].domains, ["xn--bcher-kva.example"]);
    let output = imadmin(
        dir.path(),
        &["cert", "mux", "edge", "--dir", "site", "--out", "out"],
        "",
    );
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_failed_set_up_leaves_nothing_in_the_way() {
    let dir = tempfile::tempdir().expect("a directory");
    // `run` cannot become a directory.
    std::fs::create_dir(dir.path().join("site")).expect("a directory");
    std::fs::write(dir.path().join("site/run"), "mine").expect("a file");
    let init = ["init", "--dir", "site", "--domain", "a.org"];
    let output = imadmin(dir.path(), &init, "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    std::fs::remove_file(dir.path().join("site/run")).expect("it is still there");
    let output = imadmin(dir.path(), &init, "");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_account_in_the_place_of_a_certificate_needs_a_password() {
    let dir = tempfile::tempdir().expect("a directory");
    let account =
        "server = \"main\"\naddress = \"127.0.0.1:1\"\nca = \"ca.pem\"\nuser = \"carol@a.org\"\n";
    let file = admin_toml(dir.path(), account);
    let run = |arguments: &[&str], stdin: &str| {
        let config = ["--config", file.to_str().expect("UTF-8")];
        imadmin(dir.path(), &[&config[..], arguments].concat(), stdin)
    };
    let output = run(&["status"], "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(error(&output).contains("ISTHMUS_ADMIN_PASSWORD"));
    let output = run(&["--admin-password-stdin", "status"], "\n");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(error(&output).contains("is empty"));
    // With a password it goes on, and nobody is there.
    let output = run(&["--admin-password-stdin", "status"], "secret\n");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    admin_toml(dir.path(), &format!("{account}cert = \"a.pem\"\n"));
    let output = run(&["status"], "");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(error(&output).contains("not both"));
}

#[test]
fn completions_and_manual_pages_name_every_command() {
    let dir = tempfile::tempdir().expect("a directory");
    for shell in ["bash", "zsh", "fish"] {
        let output = imadmin(dir.path(), &["completions", shell], "");
        assert!(output.status.success(), "{output:?}");
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        for word in [
            "kick",
            "passwd",
            "roster",
            "motd",
            "welcome",
            "reload",
            "completions",
            "--json",
        ] {
            let word = word.trim_start_matches('-');
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let output = imadmin(dir.path(), &["completions", "cmd"], "");
    assert_eq!(output.status.code(), Some(2));
    let man = dir.path().join("man");
    // It makes the directory.
    let at = man.to_str().expect("UTF-8");
    let output = imadmin(dir.path(), &["--json", "man", "--dir", at], "");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.starts_with(b"{\"text\":"), "{output:?}");
    let page = std::fs::read_to_string(man.join("imadmin.1")).expect("a page");
    assert!(page.contains("Exit codes"), "{page}");
    for page in [
        "imadmin-user-add.1",
        "imadmin-config-reload.1",
        "imadmin-alert.1",
        "imadmin-motd-edit.1",
    ] {
        assert!(man.join(page).exists(), "{page}");
    }
    std::fs::write(dir.path().join("file"), "").expect("writable");
    let output = imadmin(dir.path(), &["man", "--dir", "file/man"], "");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn what_needs_no_server_speaks_json_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = ["--json", "init", "--dir", "site", "--domain", "a.org"];
    let output = imadmin(dir.path(), &arguments, "");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(
        json["text"]
            .as_str()
            .expect("a text")
            .contains("is set up for a.org")
    );
}
