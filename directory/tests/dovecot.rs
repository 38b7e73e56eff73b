//! The IMAP back end against a real Dovecot.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use directory::backend::Backend;
use directory::imap::{ImapConfig, ImapDirectory, Known, LoginForm, ServerConfig, Tls};
use directory::{DirectoryError, PasswordAnswer};
use isthmus_tests::client::Account;
use isthmus_tests::dovecot::Dovecot;
use std::sync::Arc;
use std::time::Duration;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;

/// Everybody has logged in before.
#[derive(Debug)]
struct Everybody;

impl Known for Everybody {
    fn disabled(&self, _: &BareJid) -> Result<Option<bool>, DirectoryError> {
        Ok(Some(false))
    }

    fn remember(&self, _: &BareJid) -> Result<(), DirectoryError> {
        Ok(())
    }
}

fn login(name: &str) -> LoginName {
    LoginName::new(name, "x.example").unwrap()
}

fn host(port: u16, tls: Tls) -> ServerConfig {
    ServerConfig {
        host: "localhost".into(),
        port,
        tls,
    }
}

#[test]
fn passwords_are_checked_by_every_kind_of_connection() {
    let odd = Account {
        user: "tybalt".into(),
        password: "p\u{e4} \"\\ {3} \u{1f5e1}".into(),
    };
    let mut dovecot = Dovecot::start(&[Account::new("romeo"), odd.clone()]).unwrap();
    let config = |port, tls, form| ImapConfig {
        name: "mail".into(),
        servers: vec![host(port, tls)],
        ca: Some(dovecot.ca()),
        login: form,
        timeout: Duration::from_secs(30),
        connections_max: 4,
    };
    let direct = config(dovecot.tls_port(), Tls::Direct, LoginForm::Localpart);
    let starttls = config(dovecot.port(), Tls::StartTls, LoginForm::Address);
    // It takes passwords in the clear from this host.
    let open = config(dovecot.port(), Tls::None, LoginForm::Localpart);
    let directories: Vec<ImapDirectory> = [&direct, &starttls, &open]
        .into_iter()
        .map(|c| ImapDirectory::new(c, Arc::new(Everybody)).unwrap())
        .collect();
    for directory in &directories {
        let check = |name: &str, password: &str| directory.check_password(&login(name), password);
        for (name, password) in [
            ("romeo", "romeo-password"),
            ("ROMEO@x.example", "romeo-password"),
            ("tybalt", odd.password.as_str()),
        ] {
            let answer = check(name, password);
            let log = dovecot.log();
            assert!(
                matches!(answer, Ok(PasswordAnswer::Right(_))),
                "{name}: {answer:?}\n{directory:?}\n{log}"
            );
        }
        for (name, password) in [
            ("romeo", "Romeo-password"),
            ("romeo", ""),
            ("nobody", "romeo-password"),
            ("romeo", "x\r\na9 LOGOUT"),
            ("romeo\" \"x", "romeo-password"),
        ] {
            assert_eq!(check(name, password), Ok(PasswordAnswer::Wrong), "{name}");
        }
    }
    // Not the server it says it is, or none of ours.
    let strangers = [
        ImapConfig {
            ca: None,
            ..direct.clone()
        },
        ImapConfig {
            servers: vec![ServerConfig {
                host: "127.0.0.1".into(),
                port: dovecot.tls_port(),
                tls: Tls::Direct,
            }],
            ..direct.clone()
        },
        // TLS where none is spoken, and the other way round.
        config(dovecot.port(), Tls::Direct, LoginForm::Localpart),
        ImapConfig {
            timeout: Duration::from_secs(2),
            ..config(dovecot.tls_port(), Tls::StartTls, LoginForm::Localpart)
        },
    ];
    for stranger in &strangers {
        let directory = ImapDirectory::new(stranger, Arc::new(Everybody)).unwrap();
        let answer = directory.check_password(&login("romeo"), "romeo-password");
        assert!(answer.is_err(), "{stranger:?}: {answer:?}");
    }
    dovecot.kill();
    for directory in &directories {
        let answer = directory.check_password(&login("romeo"), "romeo-password");
        assert!(answer.is_err(), "{answer:?}");
        assert!(!format!("{answer:?}").contains("romeo-password"));
    }
}
