//! `make run`: whatever an earlier start has left undone, the next one does, and it never says that something runs which does not.

use isthmus_tests::harness::{Proc, START_PATIENCE, binary};
use isthmus_tests::ports::PortBlock;
use isthmus_tests::wait;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::Command;

const BANNER: &str = "Isthmus is running.";

/// A place where `scripts/demo` finds the binaries of these tests, and a cargo that has nothing to build.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let built = binary("imserver").parent().unwrap().to_owned();
        std::fs::create_dir(dir.path().join("target")).unwrap();
        symlink(built, dir.path().join("target/release")).unwrap();
        let cargo = dir.path().join("cargo");
        std::fs::write(&cargo, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
        Place { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A start in `var` there, with an offset or without; `log` names its output.
    fn run(&self, var: &str, offset: Option<u16>, log: &str) -> Run {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/demo");
        let mut command = Command::new(script);
        let path = std::env::var("PATH").unwrap();
        command
            .env("PATH", format!("{}:{path}", self.dir.path().display()))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("ISTHMUS_DEMO_DIR", self.path(var))
            .env_remove("ISTHMUS_DEMO_OFFSET");
        if let Some(offset) = offset {
            command.env("ISTHMUS_DEMO_OFFSET", offset.to_string());
        }
        Run(Proc::start("demo", &mut command, &self.path(log)).unwrap())
    }

    fn accounts(&self, var: &str) -> String {
        let mut imadmin = Command::new(binary("imadmin"));
        imadmin
            .arg("--config")
            .arg(self.path(var).join("admin.toml"))
            .args(["user", "list"]);
        let output = imadmin.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One start. It is asked to stop when dropped: it has children that must go too.
struct Run(Proc);

impl Run {
    #[track_caller]
    fn is_up(&mut self) -> String {
        let said = wait::until(START_PATIENCE, || {
            let log = self.0.log();
            assert!(self.0.is_running(), "it ended: {log}");
            log.contains("Ctrl-C stops").then_some(log)
        });
        said.unwrap_or_else(|| panic!("not up: {}", self.0.log()))
    }

    /// It ends with an error and says why, and not that anything runs.
    #[track_caller]
    fn is_refused(&mut self, words: &str) {
        let status = wait::until(START_PATIENCE, || self.0.status());
        let log = self.0.log();
        assert_eq!(status.and_then(|s| s.code()), Some(1), "{log}");
        assert!(!log.contains(BANNER), "{log}");
        let said = log
            .lines()
            .filter(|l| l.starts_with("make run: ") && l.contains(words));
        assert_eq!(said.count(), 1, "{words}: {log}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.0.is_running() {
            let _ = self.0.terminate();
        }
    }
}

#[test]
fn a_first_start_that_failed_is_made_good_by_the_next() {
    let place = Place::new();
    let (first, second) = (PortBlock::reserve().unwrap(), PortBlock::reserve().unwrap());
    let address = |offset| ("127.0.0.1", 5223 + offset);

    let taken = TcpListener::bind(address(first.offset())).unwrap();
    place
        .run("var", Some(first.offset()), "taken")
        .is_refused("mux has ended");
    drop(taken);
    let mut run = place.run("var", None, "freed");
    let log = run.is_up();
    let port = format!("port {} (STARTTLS)", 5222 + first.offset());
    assert!(log.contains(&port), "{log}");
    for web in [
        format!("wss://localhost:{}/", 5443 + first.offset()),
        format!("ws://127.0.0.1:{}/", 5280 + first.offset()),
    ] {
        assert!(log.contains(&web), "{log}");
    }
    for account in ["alice@localhost", "bob@localhost"] {
        assert!(place.accounts("var").contains(account), "{account}");
    }
    drop(run);

    // It has run: its offset stays, and who wants another is told so.
    let words = format!("was set up with ISTHMUS_DEMO_OFFSET={}", first.offset());
    place
        .run("var", Some(second.offset()), "other")
        .is_refused(&words);
    place.run("var", Some(first.offset()), "same").is_up();

    // What has never run can have another.
    let taken = TcpListener::bind(address(first.offset())).unwrap();
    place
        .run("new", Some(first.offset()), "new-taken")
        .is_refused("ISTHMUS_DEMO_OFFSET=2000 make run");
    let mut run = place.run("new", Some(second.offset()), "new-other");
    let log = run.is_up();
    let port = format!("port {} (STARTTLS)", 5222 + second.offset());
    assert!(log.contains(&port), "{log}");
    assert!(place.accounts("new").contains("bob@localhost"));
    drop(taken);
}

#[test]
fn a_second_start_does_not_pass_for_the_first() {
    let place = Place::new();
    let ports = PortBlock::reserve().unwrap();
    let mut first = place.run("var", Some(ports.offset()), "first");
    first.is_up();
    place
        .run("var", None, "second")
        .is_refused("running already");
    // The same ports from another directory: the answer there is not its own.
    place
        .run("elsewhere", Some(ports.offset()), "third")
        .is_refused("has ended");
    assert!(place.accounts("var").contains("alice@localhost"));
    first.is_up();
}
