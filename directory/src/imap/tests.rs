//! The back end against a scripted server on loopback: what becomes of each kind of trouble. The real thing is in `tests/dovecot.rs`.

use super::*;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct Memory(Mutex<HashMap<BareJid, bool>>);

impl Known for Memory {
    fn disabled(&self, jid: &BareJid) -> Result<Option<bool>, DirectoryError> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(all.get(jid).copied())
    }

    fn remember(&self, jid: &BareJid) -> Result<(), DirectoryError> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(jid.clone(), false);
        Ok(())
    }
}

/// A server that greets, and says to each AUTHENTICATE what `answer` has for it; `None`: nothing ever.
fn server(answer: fn(&str) -> Option<&'static str>) -> ServerConfig {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let _ = socket.write_all(b"* OK [CAPABILITY SASL-IR AUTH=PLAIN] hi\r\n");
                let reader = BufReader::new(socket.try_clone().unwrap());
                for line in reader.lines() {
                    let Ok(line) = line else { return };
                    match answer(&line) {
                        Some("") => return,
                        Some(text) => {
                            let _ = socket.write_all(text.as_bytes());
                        }
                        None => {}
                    }
                }
            });
        }
    });
    ServerConfig {
        host: "127.0.0.1".into(),
        port,
        tls: Tls::None,
    }
}

/// Nobody listens there.
fn nobody() -> ServerConfig {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    ServerConfig {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        tls: Tls::None,
    }
}

fn directory(servers: Vec<ServerConfig>, timeout: Duration) -> (Arc<Memory>, ImapDirectory) {
    let known = Arc::new(Memory::default());
    let config = ImapConfig {
        name: "mail".into(),
        servers,
        ca: None,
        login: LoginForm::Localpart,
        timeout,
        connections_max: 2,
    };
    let directory = ImapDirectory::new(&config, known.clone()).unwrap();
    (known, directory)
}

fn login(name: &str) -> LoginName {
    LoginName::new(name, "x.example").unwrap()
}

fn romeo() -> BareJid {
    BareJid::parse("romeo@x.example").unwrap()
}

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn somebody_exists_once_they_have_logged_in() {
    let right = |line: &str| {
        // "\0romeo\0pencil"
        let is_right = line.contains("AHJvbWVvAHBlbmNpbA==");
        Some(if is_right { "a1 OK\r\n" } else { "a1 NO\r\n" })
    };
    let (known, directory) = directory(vec![server(right)], PATIENCE);
    let check = |name, password| directory.check_password(&login(name), password).unwrap();
    assert_eq!(directory.person(&romeo()), Ok(None));
    assert_eq!(check("romeo", "wrong"), PasswordAnswer::Wrong);
    for wrong in ["", "a\r\na2 LOGOUT", "a\0b"] {
        assert_eq!(check("romeo", wrong), PasswordAnswer::Wrong);
    }
    assert_eq!(check("romeo@y.example", "pencil"), PasswordAnswer::Wrong);
    assert_eq!(directory.resolve(&login("romeo")), Ok(None));
    assert_eq!(check("ROMEO", "pencil"), PasswordAnswer::Right(romeo()));
    let person = directory
        .resolve(&login("romeo@x.example"))
        .unwrap()
        .unwrap();
    assert_eq!((person.jid, person.disabled), (romeo(), false));
    known.0.lock().unwrap().insert(romeo(), true);
    assert_eq!(check("romeo", "pencil"), PasswordAnswer::Disabled(romeo()));
    assert_eq!(check("romeo", "wrong"), PasswordAnswer::Wrong);
    assert!(directory.at_hand(&romeo()).unwrap().unwrap().disabled);
    let steps = directory.explain(&login("romeo"), Some("pencil"));
    assert!(
        steps
            .iter()
            .any(|s| s.what == "password" && s.answer.starts_with("right")),
        "{steps:?}"
    );
    assert!(!format!("{steps:?}").contains("pencil"));
}

#[test]
fn no_answer_is_never_a_wrong_password_and_the_next_server_is_asked() {
    let unavailable = |_: &str| Some("a1 NO [UNAVAILABLE] later\r\n");
    let closes = |_: &str| Some("");
    let right = |_: &str| Some("a1 OK\r\n");
    for servers in [
        vec![nobody()],
        vec![server(unavailable)],
        vec![server(closes)],
        vec![nobody(), server(closes), server(unavailable)],
    ] {
        let (known, directory) = directory(servers, PATIENCE);
        let answer = directory.check_password(&login("romeo"), "pencil");
        assert!(
            matches!(answer, Err(DirectoryError::Unavailable { .. })),
            "{answer:?}"
        );
        assert!(!format!("{answer:?}").contains("pencil"));
        assert!(known.0.lock().unwrap().is_empty());
    }
    for bad in [nobody(), server(unavailable), server(closes)] {
        let (_, directory) = directory(vec![bad, server(right)], PATIENCE);
        for _ in 0..3 {
            let answer = directory.check_password(&login("romeo"), "pencil");
            assert_eq!(answer, Ok(PasswordAnswer::Right(romeo())));
        }
    }
}

#[test]
fn a_silent_server_costs_the_time_configured_and_one_odd_mailbox_keeps_nobody_else_out() {
    let silent_to_romeo = |line: &str| (!line.contains("AHJvbWVv")).then_some("a1 OK\r\n");
    let timeout = Duration::from_millis(300);
    let (_, directory) = directory(vec![server(silent_to_romeo)], timeout);
    let began = Instant::now();
    let answer = directory.check_password(&login("romeo"), "pencil");
    assert!(answer.is_err(), "{answer:?}");
    assert!(began.elapsed() >= timeout);
    let answer = directory.check_password(&login("juliet"), "pencil");
    assert!(matches!(answer, Ok(PasswordAnswer::Right(_))), "{answer:?}");
}

#[test]
fn nothing_is_said_without_protection_to_another_host() {
    let elsewhere = ServerConfig {
        host: "192.0.2.1".into(),
        port: 143,
        tls: Tls::None,
    };
    let (_, directory) = directory(vec![elsewhere], PATIENCE);
    let answer = directory.check_password(&login("romeo"), "pencil");
    assert!(answer.is_err(), "{answer:?}");
    assert!(is_loopback("127.0.0.1") && is_loopback("::1") && is_loopback("localhost"));
    assert!(!is_loopback("localhost.example") && !is_loopback("0.0.0.0"));
}
