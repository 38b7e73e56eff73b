//! What an operator got wrong is said at once, clearly, and nothing is started.

use isthmus_tests::harness::{Plan, Proc, Site, binary, other_time};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAMS: [(&str, &str); 2] = [("imserver", "imserver.toml"), ("mux", "mux.toml")];

fn site() -> Site {
    Site::init(&Plan::default()).unwrap()
}

fn command(site: &Site, program: &str, file: &str) -> Command {
    let mut command = Command::new(binary(program));
    command
        .arg("--config")
        .arg(site.path().join(file))
        .current_dir("/");
    command
}

/// Runs to the end; a process that goes on running is killed and reported.
#[track_caller]
fn output_of(mut command: Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let ended = isthmus_tests::wait::until(Duration::from_secs(30), || child.try_wait().unwrap());
    if ended.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        ended.is_some(),
        "still running after {:?}: {}",
        begun.elapsed(),
        text(&output)
    );
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// It ended with an error, and says why in one line that contains all of `words`.
#[track_caller]
fn assert_one_sentence(output: &Output, words: &[&str]) {
    let all = text(output);
    assert!(!output.status.success(), "exit code 0: {all}");
    assert!(
        !all.contains("panicked") && !all.contains("backtrace"),
        "{all}"
    );
    let found = all.lines().any(|line| {
        words
            .iter()
            .all(|w| line.to_lowercase().contains(&w.to_lowercase()))
    });
    assert!(found, "no line contains all of {words:?}: {all}");
}

#[test]
fn fresh_configurations_pass_the_check() {
    for embedded in [false, true] {
        for plaintext in [false, true] {
            let site = Site::init(&Plan {
                embedded,
                plaintext,
                ..Plan::default()
            })
            .unwrap();
            for (program, file) in PROGRAMS {
                if embedded && program == "mux" {
                    assert!(
                        !site.path().join(file).exists(),
                        "an embedded mux has no file of its own"
                    );
                    continue;
                }
                let mut check = command(&site, program, file);
                check.arg("--check");
                let output = output_of(check);
                assert!(output.status.success(), "{program}: {}", text(&output));
            }
        }
    }
}

#[test]
fn init_does_not_overwrite() {
    let site = site();
    let before = std::fs::read(site.path().join("imserver.toml")).unwrap();
    let mut command = Command::new(binary("imadmin"));
    command
        .args(["init", "--domain", "other.example", "--dir"])
        .arg(site.path());
    let output = output_of(command);
    assert!(!output.status.success(), "{}", text(&output));
    assert_eq!(
        std::fs::read(site.path().join("imserver.toml")).unwrap(),
        before
    );
}

#[test]
fn secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    fn walk(dir: &Path, wrong: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, wrong);
                continue;
            }
            let secret = std::fs::read_to_string(&path).is_ok_and(|t| t.contains("PRIVATE KEY"));
            let mode = path.metadata().unwrap().permissions().mode();
            if secret && mode & 0o077 != 0 {
                wrong.push(format!("{} {mode:o}", path.display()));
            }
        }
    }
    let mut wrong = Vec::new();
    walk(&site().path(), &mut wrong);
    assert!(
        wrong.is_empty(),
        "private keys that others may read: {wrong:?}"
    );
}

/// Three mistakes, three lines with file, line and key; with and without `--check`; nothing started.
#[test]
fn every_mistake_is_reported_at_once() {
    for (program, file) in PROGRAMS {
        let site = site();
        site.edit(
            file,
            &format!(":{}\"", site.address(15230).port()),
            ":99999\"",
        )
        .unwrap();
        let path = site.path().join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            format!("bogus_key = 1\n{before}\n[bogus_section]\nx = 1\n"),
        )
        .unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let line_of = |needle: &str| written.lines().position(|l| l.contains(needle)).unwrap() + 1;
        for arguments in [&["--check"][..], &[]] {
            let mut run = command(&site, program, file);
            run.args(arguments);
            let output = output_of(run);
            let all = text(&output);
            assert_eq!(
                output.status.code(),
                Some(1),
                "{program} {arguments:?}: {all}"
            );
            for (needle, says) in [
                ("bogus_key", "bogus_key"),
                ("[bogus_section]", "bogus_section"),
                (":99999", ""),
            ] {
                let place = format!("{file}:{}", line_of(needle));
                let found = all.lines().any(|l| l.contains(&place) && l.contains(says));
                assert!(
                    found,
                    "{program} {arguments:?}: no line has {place} and {says}: {all}"
                );
            }
        }
        assert!(
            TcpListener::bind(site.address(15230)).is_ok(),
            "something was started"
        );
    }
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    for (program, file) in PROGRAMS {
        let site = site();
        let path = site.path().join(file);
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{before}\nthis is not TOML\n")).unwrap();
        let line = before.lines().count() + 2;
        let mut run = command(&site, program, file);
        run.arg("--check");
        let output = output_of(run);
        assert_one_sentence(&output, &[&format!("{file}:{line}")]);
    }
}

#[test]
fn a_missing_configuration_is_one_sentence() {
    for (program, _) in PROGRAMS {
        let mut run = Command::new(binary(program));
        run.args(["--config", "/nowhere/at-all.toml"]);
        assert_one_sentence(&output_of(run), &["/nowhere/at-all.toml"]);
    }
}

#[test]
fn a_port_that_is_taken_is_one_sentence() {
    for (program, file, base, embedded) in [
        ("imserver", "imserver.toml", 15230, false),
        ("imserver", "imserver.toml", 15232, false),
        ("imserver", "imserver.toml", 15233, false),
        ("imserver", "imserver.toml", 5222, true),
        ("mux", "mux.toml", 5222, false),
        ("mux", "mux.toml", 5223, false),
        ("mux", "mux.toml", 15234, false),
    ] {
        let site = Site::init(&Plan {
            embedded,
            ..Plan::default()
        })
        .unwrap();
        let address = site.address(base);
        let _taken = TcpListener::bind(address).unwrap();
        let output = output_of(command(&site, program, file));
        assert_one_sentence(&output, &[&address.to_string()]);
    }
}

#[test]
fn a_data_directory_that_cannot_be_written_is_one_sentence() {
    let site = site();
    let data = site.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    // Root may write anywhere but to a read-only file system.
    let mut run = Command::new("unshare");
    let script = "mount -t tmpfs -o ro none \"$1\" && exec \"$2\" --config \"$3\"";
    run.args(["--mount", "sh", "-c", script, "sh"]).arg(&data);
    run.arg(binary("imserver"))
        .arg(site.path().join("imserver.toml"));
    assert_one_sentence(&output_of(run), &[&data.display().to_string()]);
}

#[test]
fn a_data_directory_of_another_user_is_one_sentence_with_its_line() {
    let site = site();
    let data = site.path().join("data");
    std::os::unix::fs::chown(&data, Some(65_534), None).unwrap();
    let file = site.path().join("imserver.toml");
    let place = format!("{}: data_dir", place(&file, "data_dir"));
    let words = [
        place.as_str(),
        &data.display().to_string(),
        "is not writable by this user",
    ];
    for arguments in [&["--check"][..], &[]] {
        // Root without its privileges is a user like others, who can read the rest of the set-up.
        let mut run = Command::new("setpriv");
        run.args(["--inh-caps=-all", "--bounding-set=-all"])
            .arg(binary("imserver"))
            .arg("--config")
            .arg(&file)
            .args(arguments);
        assert_one_sentence(&output_of(run), &words);
    }
}

#[test]
fn a_data_directory_in_use_is_one_sentence() {
    let mut site = site();
    site.start_server().unwrap();
    let output = output_of(command(&site, "imserver", "imserver.toml"));
    assert!(!output.status.success());
    assert!(!text(&output).contains("panicked"), "{}", text(&output));
    site.await_admin().unwrap();
}

#[test]
fn a_data_directory_that_is_none_is_one_sentence() {
    let site = site();
    let data = site.path().join("data");
    let _ = std::fs::remove_dir_all(&data);
    std::fs::write(&data, "a file").unwrap();
    let output = output_of(command(&site, "imserver", "imserver.toml"));
    assert_one_sentence(&output, &[&data.display().to_string()]);
}

/// `FILE:LINE` of the line that has these words.
#[track_caller]
fn place(file: &Path, words: &str) -> String {
    let written = std::fs::read_to_string(file).unwrap();
    let line = written.lines().position(|l| l.contains(words));
    format!("{}:{}", file.display(), line.unwrap() + 1)
}

/// The certificates and keys that a configuration names.
fn pem_files(site: &Site, file: &str) -> Vec<String> {
    let written = std::fs::read_to_string(site.path().join(file)).unwrap();
    let named: Vec<String> = written
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .filter_map(|l| Some(l.split_once('=')?.1.trim().trim_matches('"').to_owned()))
        .filter(|v| [".pem", ".crt", ".key"].iter().any(|end| v.ends_with(end)))
        .collect();
    assert!(!named.is_empty(), "{file} names no certificate: {written}");
    named
}

/// What is wrong with a file is found by `--check` and by a start.
#[track_caller]
fn assert_found(site: &Site, program: &str, file: &str, words: &[&str]) {
    let mut check = command(site, program, file);
    check.arg("--check");
    assert_one_sentence(&output_of(check), words);
    assert_one_sentence(&output_of(command(site, program, file)), words);
}

const SETUPS: [(&str, &str, bool); 3] = [
    ("imserver", "imserver.toml", false),
    ("mux", "mux.toml", false),
    ("imserver", "imserver.toml", true),
];

/// Clients would refuse it, or ask people to trust it: said, and may be meant. The mux may be another process or not.
#[test]
fn a_certificate_that_is_not_for_its_domain_is_a_warning() {
    for (program, file, embedded) in [SETUPS[1], SETUPS[2]] {
        let plan = Plan {
            embedded,
            edits: vec![(
                "domains = [\"localhost\"]".into(),
                "domains = [\"chat.example\"]".into(),
            )],
            ..Plan::default()
        };
        let site = Site::init(&plan).unwrap();
        let mut check = command(&site, program, file);
        check.arg("--check");
        let output = output_of(check);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let warning = "localhost.pem does not cover chat.example: it is for localhost";
        assert!(
            said.starts_with("warning: ") && said.contains(warning),
            "{said}"
        );
    }
}

/// Every certificate or key that a configuration names: missing, and not a certificate.
#[test]
fn an_unreadable_certificate_is_one_sentence() {
    for (program, file, embedded) in SETUPS {
        let site = Site::init(&Plan {
            embedded,
            ..Plan::default()
        })
        .unwrap();
        for name in pem_files(&site, file) {
            let path = site.path().join(&name);
            let good = std::fs::read(&path).unwrap();
            let place = place(&site.path().join(file), &format!("\"{name}\""));
            std::fs::remove_file(&path).unwrap();
            assert_found(&site, program, file, &[&name, &place]);
            std::fs::write(&path, "this is no certificate\n").unwrap();
            assert_found(&site, program, file, &[&name, &place]);
            std::fs::write(&path, good).unwrap();
        }
    }
}

/// Every key that a configuration names: a good one, of another certificate.
#[test]
fn a_key_that_does_not_fit_its_certificate_is_one_sentence() {
    for (program, file, embedded) in SETUPS {
        let site = Site::init(&Plan {
            embedded,
            ..Plan::default()
        })
        .unwrap();
        let other = std::fs::read(site.path().join("link/admin.key")).unwrap();
        let keys: Vec<String> = pem_files(&site, file)
            .into_iter()
            .filter(|name| name.ends_with(".key"))
            .collect();
        assert!(!keys.is_empty(), "{file} names no key");
        for name in keys {
            let path = site.path().join(&name);
            let good = std::fs::read(&path).unwrap();
            std::fs::write(&path, &other).unwrap();
            assert_found(&site, program, file, &[&name, "belong together"]);
            std::fs::write(&path, good).unwrap();
        }
    }
}

/// Good files of the private CA, in the wrong place: a link made with them would be refused by the other end.
#[test]
fn a_certificate_of_another_role_is_one_sentence() {
    for (program, file, wanted, other, says) in [
        (
            "imserver",
            "imserver.toml",
            "server",
            "mux1",
            "main.server.isthmus",
        ),
        ("mux", "mux.toml", "mux1", "admin", "mux1.mux.isthmus"),
    ] {
        let site = site();
        for end in ["pem", "key"] {
            let (from, to) = (
                format!("link/{wanted}.{end}"),
                format!("link/{other}.{end}"),
            );
            site.edit(file, &from, &to).unwrap();
        }
        let place = place(&site.path().join(file), &format!("link/{other}.pem"));
        assert_found(&site, program, file, &[&place, says]);
    }
}

#[test]
fn a_wrong_clock_is_one_sentence() {
    let mut site = site();
    site.start_server().unwrap();
    site.kill_server();
    let mut run = command(&site, "imserver", "imserver.toml");
    run.envs(other_time("@2001-01-01 00:00:00").unwrap());
    assert_one_sentence(&output_of(run), &["clock"]);
}

/// A mux whose clock is wrong finds the server's certificate not valid, says so once, and goes on trying.
#[test]
fn a_wrong_clock_of_a_mux_is_one_sentence() {
    let mut site = site();
    site.start_server().unwrap();
    let mut run = command(&site, "mux", "mux.toml");
    run.envs(other_time("@2001-01-01 00:00:00").unwrap());
    let log = site.scratch("early-mux.log");
    let mut mux = Proc::start("early-mux", &mut run, &log).unwrap();
    let said = isthmus_tests::wait::until(Duration::from_secs(30), || {
        let log = mux.log();
        assert!(mux.is_running(), "it ended: {log}");
        log.contains("not valid yet").then_some(log)
    });
    assert!(said.is_some(), "{}", mux.log());
}

/// The path of a socket that is the path of something else: nothing is deleted, and the check says where.
#[test]
fn a_socket_in_the_place_of_a_file_is_one_sentence() {
    let site = site();
    site.edit("imserver.toml", "\"run/admin.sock\"", "\"policy.toml\"")
        .unwrap();
    let policy = site.path().join("policy.toml");
    let before = std::fs::read(&policy).unwrap();
    for check in [true, false] {
        let mut command = command(&site, "imserver", "imserver.toml");
        if check {
            command.arg("--check");
        }
        let output = output_of(command);
        let said = text(&output);
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("admin.socket: ")
                && said.contains("policy.toml: is there already and is no socket"),
            "{said}"
        );
        assert_eq!(std::fs::read(&policy).unwrap(), before);
    }
}

/// What the session store cannot read is said, with the name of the file; the server starts all the same.
#[test]
fn garbage_in_the_session_store_is_said() {
    let mut site = site();
    let dir = site.path().join("data/sessions");
    std::fs::create_dir_all(&dir).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(site.path().join("data"), mode).unwrap();
    std::fs::write(dir.join("00000003.seg"), "garbage".repeat(1000)).unwrap();
    site.start_server().unwrap();
    let log = site.server().log();
    let lines: Vec<&str> = log.lines().filter(|l| l.contains("00000003.seg")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(" WARN "), "{log}");
}
