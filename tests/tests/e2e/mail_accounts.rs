//! Accounts of a mail server: a real Dovecot behind `[[directory]]` with `kind = "imap"`.

use isthmus_tests::client::{Account, Client, NS_SASL, Sasl, Transport};
use isthmus_tests::dovecot::Dovecot;
use isthmus_tests::harness::{Plan, Site};

/// A site whose people are those of the mail server; nobody is added here. The first of its mail servers is not there.
fn site(dovecot: &Dovecot) -> Site {
    let mut site = prepared(dovecot);
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    site
}

fn prepared(dovecot: &Dovecot) -> Site {
    let site = Site::init(&Plan::default()).unwrap();
    let file = site.path().join("imserver.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let domain = "[[domain]]\n";
    assert_eq!(text.matches(domain).count(), 1, "{text}");
    let text = text.replace(domain, "[[domain]]\ndirectory = [\"mail\"]\n");
    let ca = dovecot.ca().display().to_string();
    let section = format!(
        "\n[[directory]]\nname = \"mail\"\nkind = \"imap\"\nuri = [\"imap://localhost:1\", \"imap://localhost:{}\", \"imaps://localhost:{}\"]\nca = {ca:?}\n",
        dovecot.port(),
        dovecot.tls_port()
    );
    std::fs::write(&file, text + &section).unwrap();
    site
}

/// What `imadmin directory test` says, one step a line.
fn explained(site: &Site, user: &str, password: &str) -> String {
    let jid = format!("{user}@localhost");
    let file = site.scratch("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    let mut command = site.imadmin(["directory", "test", &jid, "--password-stdin"]);
    command.stdin(std::fs::File::open(&file).unwrap());
    let output = command.output().unwrap();
    let right = !matches!(password, "guess" | "wrong");
    assert_eq!(output.status.code(), Some(i32::from(!right)), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The condition of the failure.
fn refused(site: &Site, account: &Account) -> String {
    let mut client = Client::open(&site.endpoint(Transport::StartTls)).unwrap();
    assert_eq!(client.mechanisms(), ["PLAIN"]);
    let plain = Sasl::Mechanism("PLAIN".into());
    let outcome = client.sasl(account, &plain).unwrap();
    assert!(outcome.is(NS_SASL, "failure"), "{outcome}");
    let condition = outcome.elements().next().map(|c| c.name.clone());
    condition.unwrap_or_default()
}

#[test]
fn who_has_a_mailbox_has_an_account() {
    let (romeo, juliet) = (Account::new("romeo"), Account::new("juliet"));
    let mut dovecot = Dovecot::start(&[romeo.clone(), juliet.clone()]).unwrap();
    let mut site = site(&dovecot);
    let wrong = Account {
        password: "guess".into(),
        ..romeo.clone()
    };
    assert_eq!(refused(&site, &wrong), "not-authorized");
    assert_eq!(refused(&site, &Account::new("nobody")), "not-authorized");
    let mut r = site.login(Transport::StartTls, &romeo).unwrap();
    r.available().unwrap();

    // Juliet has a mailbox and has never been here: like any unknown address.
    r.chat("juliet@localhost", "are you there?").unwrap();
    let bounce = r
        .element_where("a bounce", |e| e.name == "message")
        .unwrap();
    assert_eq!(bounce.attr("type"), Some("error"), "{bounce}");
    let unknown = r
        .request(
            "get",
            "v",
            Some("nobody@localhost"),
            "<vCard xmlns='vcard-temp'/>",
        )
        .unwrap();
    let j = site.login(Transport::StartTls, &juliet).unwrap();
    drop(j);
    assert_eq!(unknown.attr("type"), Some("error"), "{unknown}");
    // Now she has, and what is sent to her waits.
    r.chat("juliet@localhost", "now you are").unwrap();
    r.ping().unwrap();
    let mut j = site.login(Transport::StartTls, &juliet).unwrap();
    j.available().unwrap();
    assert_eq!(j.next_body().unwrap(), "now you are");

    // How it comes about, for an administrator.
    for (user, password, said) in [
        (
            "juliet",
            "juliet-password",
            vec!["right, says imap://localhost:", "juliet@localhost: known"],
        ),
        ("juliet", "guess", vec!["wrong, says imap://localhost:"]),
        (
            "nobody",
            "guess",
            vec!["wrong, says", "nobody@localhost: has never logged in"],
        ),
    ] {
        let steps = explained(&site, user, password);
        let servers = [
            "mail server imap://localhost:1 ".to_owned(),
            format!("mail server imap://localhost:{} ", dovecot.port()),
            format!("mail server imaps://localhost:{} ", dovecot.tls_port()),
        ];
        for text in servers.iter().map(String::as_str).chain(said) {
            assert!(steps.contains(text), "{text} in {steps}");
        }
        assert_eq!(steps.matches("it can be asked").count(), 2, "{steps}");
    }

    // The mail server is down: nobody is told that a password is wrong, and who is here stays.
    dovecot.kill();
    assert_eq!(refused(&site, &juliet), "temporary-auth-failure");
    assert_eq!(refused(&site, &wrong), "temporary-auth-failure");
    j.chat("romeo@localhost", "still here").unwrap();
    assert_eq!(r.next_body().unwrap(), "still here");
    dovecot.restart().unwrap();
    isthmus_tests::wait::until_true(
        std::time::Duration::from_secs(60),
        "a log-in after the outage",
        || site.login(Transport::StartTls, &juliet).is_ok(),
    );

    // Nobody's password is in the log, and one line says what happened, one that it is over.
    let log = site.server().log();
    assert!(
        !log.contains("-password") && !log.contains("guess"),
        "{log}"
    );
    let other = "a mail server does not answer; another one is asked";
    assert!(log.contains(other), "{log}");
    assert_eq!(log.matches("no mail server answers").count(), 1, "{log}");
    assert_eq!(
        log.matches("the mail server answers again").count(),
        1,
        "{log}"
    );

    // A restart of ours: known is known.
    site.kill_server();
    site.start_server().unwrap();
    r.ping().unwrap();
    site.login(Transport::StartTls, &romeo).unwrap();

    // Whom we disable is logged off and stays out, whatever the mail server says.
    isthmus_tests::harness::run(&mut site.imadmin(["user", "disable", "romeo@localhost"])).unwrap();
    assert_eq!(r.until_closed().unwrap().as_deref(), Some("not-authorized"));
    assert_eq!(refused(&site, &romeo), "account-disabled");
    assert_eq!(refused(&site, &wrong), "not-authorized");
}

/// Keys are made of a password when it was right, and a verifier lets people in while the mail server is down.
#[test]
fn passwords_may_be_kept_as_keys_where_that_is_wanted() {
    let romeo = Account::new("romeo");
    let mut dovecot = Dovecot::start(std::slice::from_ref(&romeo)).unwrap();
    let mut site = prepared(&dovecot);
    site.set("imserver.toml", "[auth]", "scram_capture_s", "3600")
        .unwrap();
    site.set("imserver.toml", "[directory_cache]", "password_s", "3600")
        .unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    let endpoint = site.endpoint(Transport::StartTls);
    let by = |account: &Account, mechanism: &str| {
        let sasl = Sasl::Mechanism(mechanism.into());
        Client::login_with(&endpoint, account, None, &sasl).map(drop)
    };
    let scram = "SCRAM-SHA-256";
    let offered = Client::open(&endpoint).unwrap().mechanisms();
    assert!(offered.iter().any(|m| m == scram), "{offered:?}");
    assert!(by(&romeo, scram).is_err(), "there are no keys yet");
    by(&romeo, "PLAIN").unwrap();
    let patience = std::time::Duration::from_secs(60);
    isthmus_tests::wait::until_true(patience, "a log-in by the keys", || {
        by(&romeo, scram).is_ok()
    });
    dovecot.kill();
    let wrong = Account {
        password: "guess".into(),
        ..romeo.clone()
    };
    by(&romeo, "PLAIN").unwrap();
    by(&romeo, scram).unwrap();
    for mechanism in ["PLAIN", scram] {
        assert!(by(&wrong, mechanism).is_err());
    }
}
