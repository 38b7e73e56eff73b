//! Log-in as data: what a client sends, what it gets, over plain TCP, after STARTTLS and over direct TLS.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod login;

use login::{HEADER, Server, auth, base64, tls};
use proptest::prelude::*;
use xmpp::error::StreamError;
use xmpp::jid::BareJid;
use xmpp::negotiation::{Action, LoginFailure, Negotiation};
use xmpp::sasl::{CertificateName, Failure};
use xmpp::scram::client::{ClientBinding, ScramClient};
use xmpp::scram::{BindingType, ScramHash};

#[test]
fn headers_that_are_refused() {
    let stream = |attributes: &str| {
        format!("<stream:stream xmlns:stream='http://etherx.jabber.org/streams' {attributes}>")
    };
    for (header, error) in [
        (
            stream("xmlns='jabber:client' to='nowhere.lit' version='1.0'"),
            StreamError::HostUnknown,
        ),
        (
            stream("xmlns='jabber:client' version='1.0'"),
            StreamError::ImproperAddressing,
        ),
        (
            stream("xmlns='jabber:client' to='@' version='1.0'"),
            StreamError::ImproperAddressing,
        ),
        (
            stream("xmlns='jabber:client' to='verona.lit'"),
            StreamError::UnsupportedVersion,
        ),
        (
            stream("xmlns='jabber:server' to='verona.lit' version='1.0'"),
            StreamError::InvalidNamespace,
        ),
    ] {
        let mut server = Server::new(false, None);
        let sent = server.feed(&header);
        assert_eq!(server.closed, Some(Some(error)), "{header}");
        // RFC 6120 §4.9.1.2: a header comes before the error.
        assert!(
            sent.starts_with("<?xml version='1.0'?><stream:stream "),
            "{sent}"
        );
    }
}

#[test]
fn without_tls_only_starttls_is_offered() {
    let mut server = Server::new(false, None);
    let features = server.feed(HEADER);
    assert!(
        features
            .contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>")
    );
    assert!(!features.contains("<mechanism>"));
    let failure = server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    assert!(failure.contains("<encryption-required/>"), "{failure}");
    assert!(server.account.is_none());
}

#[test]
fn registration_is_offered_where_it_is_on_and_a_password_may_be_said() {
    const FEATURE: &str = "<register xmlns='http://jabber.org/features/iq-register'/>";
    const REGISTER: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:register'/></iq>";
    for (plaintext, secured, domain, offered) in [
        (false, None, "verona.lit", false),
        (true, None, "verona.lit", true),
        (false, Some(tls()), "verona.lit", true),
        (false, Some(tls()), "mantua.lit", false),
    ] {
        let mut server = Server::new(plaintext, secured);
        let features = server.feed(&HEADER.replace("verona.lit", domain));
        assert_eq!(features.contains(FEATURE), offered, "{features}");
        server.feed(REGISTER);
        assert_eq!(server.registrations, usize::from(offered));
        let refused = Some(Some(StreamError::NotAuthorized));
        assert_eq!(server.closed, if offered { None } else { refused });
    }
    // Any other IQ is none, and after so many there are no more.
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(REGISTER);
    server.feed(REGISTER);
    assert_eq!((server.registrations, &server.closed), (2, &None));
    server.feed(REGISTER);
    assert_eq!(server.registrations, 2);
    assert_eq!(server.closed, Some(Some(StreamError::PolicyViolation)));
    // In the middle of a SASL exchange, and after log-in, there is nothing to register.
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b""));
    server.feed(REGISTER);
    assert_eq!(server.closed, Some(Some(StreamError::NotAuthorized)));
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    server.feed(HEADER);
    server.feed(REGISTER);
    assert_eq!(server.closed, Some(Some(StreamError::NotAuthorized)));
}

#[test]
fn starttls_comes_once_and_forgets_what_was_before() {
    let mut server = Server::new(true, None);
    server.feed(HEADER);
    assert!(
        server
            .feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .contains("<proceed")
    );
    assert!(server.starttls);
    server.negotiation.secured(tls());
    server.parser.reset();
    let features = server.feed(HEADER);
    assert!(!features.contains("starttls"));
    assert!(features.contains("<mechanism>SCRAM-SHA-256-PLUS</mechanism>"));
    assert!(
        features.contains("<channel-binding type='tls-exporter'/>"),
        "XEP-0440"
    );
    assert!(
        server
            .feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
            .contains("<failure")
    );
    assert_eq!(server.closed, Some(None));
}

#[test]
fn over_websocket_there_is_open_and_no_starttls() {
    for tls in [None, Some(tls())] {
        let bound = tls.is_some();
        let mut server = Server::over_websocket(tls);
        let sent = server.feed(HEADER);
        assert!(
            sent.starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'")
        );
        assert!(
            sent.contains(" from='verona.lit'/><stream:features>"),
            "{sent}"
        );
        assert!(!sent.contains("starttls"));
        assert_eq!(sent.contains("-PLUS"), bound);
        let failure = server.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        assert!(failure.contains("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        assert!(!server.starttls && server.closed == Some(None));
    }
    let mut server = Server::over_websocket(None);
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    assert!(server.account.is_some());
    // RFC 7395 §3.5: the stream begins anew by another <open/>.
    assert!(server.feed(HEADER).starts_with("<open "));
    let closed = server.feed("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
    assert_eq!((closed.as_str(), server.closed), ("", Some(None)));
}

#[test]
fn plain_logs_in_and_binds() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    assert!(
        server
            .feed(&auth("PLAIN", b"\0romeo\0secret"))
            .contains("<success")
    );
    assert_eq!(
        server
            .account
            .as_ref()
            .map(|a| a.as_str().to_owned())
            .as_deref(),
        Some("romeo@verona.lit")
    );
    assert!(
        server
            .feed(HEADER)
            .contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>")
    );
    server.feed("<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>");
    assert_eq!(server.bound, Some((Some("orchard".into()), "b1".into())));
}

#[test]
fn failures_say_what_they_may_say() {
    for (mechanism, data, condition) in [
        ("PLAIN", &b"\0romeo\0wrong"[..], "not-authorized"),
        ("PLAIN", b"\0nobody\0secret", "not-authorized"),
        ("PLAIN", b"\0romeo\0", "not-authorized"),
        ("PLAIN", b"\0tybalt\0secret", "account-disabled"),
        ("PLAIN", b"\0tybalt\0wrong", "not-authorized"),
        ("PLAIN", b"\0paris\0secret", "credentials-expired"),
        ("PLAIN", b"\0paris\0wrong", "not-authorized"),
        (
            "PLAIN",
            b"romeo@verona.lit\0paris\0secret",
            "invalid-authzid",
        ),
        ("PLAIN", b"\0nurse\0secret", "temporary-auth-failure"),
        (
            "PLAIN",
            b"juliet@verona.lit\0romeo\0secret",
            "invalid-authzid",
        ),
        // RFC 6120 §6.3.8: that tells something only to who knows the password.
        (
            "PLAIN",
            b"juliet@verona.lit\0romeo\0wrong",
            "not-authorized",
        ),
        (
            "PLAIN",
            b"juliet@verona.lit\0nobody\0secret",
            "not-authorized",
        ),
        (
            "PLAIN",
            b"4711@verona.lit\x004711\0secret",
            "invalid-authzid",
        ),
        // The directory names an account of another domain.
        ("PLAIN", b"\0mercutio\0secret", "not-authorized"),
        ("PLAIN", b"romeo\0secret", "malformed-request"),
        ("PLAIN", b"\0\0secret", "malformed-request"),
        ("CRAM-MD5", b"x", "invalid-mechanism"),
        ("SCRAM-SHA-256", b"n,,n=romeo", "malformed-request"),
        (
            "SCRAM-SHA-256",
            b"n,,m=x,n=romeo,r=abc",
            "malformed-request",
        ),
        ("SCRAM-SHA-256", b"y,,n=romeo,r=abc", "not-authorized"),
        (
            "SCRAM-SHA-256-PLUS",
            b"p=tls-unique,,n=romeo,r=abc",
            "not-authorized",
        ),
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        let sent = server.feed(&auth(mechanism, data));
        assert!(
            sent.contains(&format!("<{condition}/>")),
            "{mechanism} {data:?}: {sent}"
        );
        assert!(server.account.is_none());
    }
}

/// What the operator is told of a failure: who, by which mechanism, and why, as far as it has come.
#[test]
fn failures_say_who_has_tried_what() {
    let long = "n".repeat(2_000);
    let sasl = LoginFailure::Sasl;
    for (mechanism, message, name, why) in [
        (
            "PLAIN",
            "\0romeo\0wrong",
            Some("romeo"),
            sasl(Failure::NotAuthorized),
        ),
        (
            "PLAIN",
            "\0nobody@else.where\0secret",
            Some("nobody@else.where"),
            sasl(Failure::NotAuthorized),
        ),
        (
            "PLAIN",
            "\0ro\nmeo\0secret",
            Some("ro\nmeo"),
            sasl(Failure::NotAuthorized),
        ),
        (
            "PLAIN",
            "\0tybalt\0secret",
            Some("tybalt"),
            sasl(Failure::AccountDisabled),
        ),
        (
            "PLAIN",
            "\0nurse\0secret",
            Some("nurse"),
            sasl(Failure::TemporaryAuthFailure),
        ),
        (
            "PLAIN",
            "no separator",
            None,
            sasl(Failure::MalformedRequest),
        ),
        (
            "PLAIN",
            &format!("\0{long}\0secret"),
            Some(&long[..1_023]),
            sasl(Failure::NotAuthorized),
        ),
        (
            "SCRAM-SHA-1",
            "n,,n=nurse,r=abc",
            Some("nurse"),
            sasl(Failure::TemporaryAuthFailure),
        ),
        ("GSSAPI", "wrong", None, sasl(Failure::NotAuthorized)),
        (
            "A-MECHANISM-NOBODY-HAS-EVER-OFFERED",
            "x",
            None,
            sasl(Failure::InvalidMechanism),
        ),
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        server.feed(&auth(mechanism, message.as_bytes()));
        let short: String = mechanism.chars().take(25).collect();
        let want = (name.map(str::to_owned), short, why);
        assert_eq!(server.failures, [want], "{mechanism} {message:?}");
    }
    let mut server = Server::new(false, Some(tls()));
    server.feed(&HEADER.replace("verona.lit", "nowhere.lit"));
    let want = (
        Some("nowhere.lit".to_owned()),
        String::new(),
        LoginFailure::NotServed,
    );
    assert_eq!(server.failures, [want]);
    // The policy has the last word.
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    let actions = server.negotiation.refuse();
    server.act(actions);
    let want = (
        Some("romeo@verona.lit".to_owned()),
        "PLAIN".to_owned(),
        LoginFailure::Refused,
    );
    assert_eq!(server.failures, [want]);
}

#[test]
fn three_failures_end_the_stream() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    for _ in 0..2 {
        server.feed(&auth("PLAIN", b"\0romeo\0wrong"));
        assert_eq!(server.closed, None);
    }
    server.feed(&auth("PLAIN", b"\0romeo\0wrong"));
    assert_eq!(server.closed, Some(Some(StreamError::PolicyViolation)));
}

#[test]
fn stanzas_before_login_and_a_second_auth_end_the_stream() {
    for stanza in [
        "<message to='juliet@verona.lit'/>",
        "<presence/>",
        "<iq type='get' id='1'/>",
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        server.feed(stanza);
        assert_eq!(
            server.closed,
            Some(Some(StreamError::NotAuthorized)),
            "{stanza}"
        );
    }
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    let twice = format!("{HEADER}{}", auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&twice);
    assert!(server.closed.is_some());
}

#[test]
fn a_host_or_identity_changed_at_the_restart_is_refused() {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&HEADER.replace("verona.lit", "mantua.lit"));
    assert_eq!(server.closed, Some(Some(StreamError::HostUnknown)));
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server.feed(&auth("PLAIN", b"\0romeo\0secret"));
    server.feed(&HEADER.replace(" to=", " from='juliet@verona.lit' to="));
    assert_eq!(server.closed, Some(Some(StreamError::InvalidFrom)));
}

fn scram(
    server: &mut Server,
    mechanism: &str,
    user: &str,
    password: &str,
    binding: ClientBinding,
) -> String {
    scram_as(server, mechanism, user, password, None, binding)
}

fn scram_as(
    server: &mut Server,
    mechanism: &str,
    user: &str,
    password: &str,
    authzid: Option<&str>,
    binding: ClientBinding,
) -> String {
    let hash = ScramHash::from_mechanism(mechanism.trim_end_matches("-PLUS")).unwrap();
    let mut client = ScramClient::new(hash, user, password, authzid, binding, "clientnonce");
    server.feed(HEADER);
    let challenge = server.feed(&auth(mechanism, client.first_message().as_bytes()));
    let Some(text) = challenge.strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
    else {
        return challenge;
    };
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD
        .decode(text.trim_end_matches("</challenge>"))
        .unwrap();
    let answer = client
        .handle_challenge(std::str::from_utf8(&text).unwrap())
        .unwrap();
    server.feed(&format!(
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
        base64(answer.as_bytes())
    ))
}

#[test]
fn scram_with_every_hash_and_binding() {
    for hash in ["SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let exporter = ClientBinding::Bind(BindingType::TlsExporter, vec![3; 32]);
        let end_point = ClientBinding::Bind(BindingType::TlsServerEndPoint, vec![4; 32]);
        let other = ClientBinding::Bind(BindingType::TlsExporter, vec![9; 32]);
        let plus = format!("{hash}-PLUS");
        for (mechanism, user, password, binding, expected) in [
            (
                hash,
                "romeo",
                "secret",
                ClientBinding::Unsupported,
                "<success",
            ),
            (
                hash,
                "romeo",
                "wrong",
                ClientBinding::Unsupported,
                "<not-authorized/>",
            ),
            (
                hash,
                "nobody",
                "secret",
                ClientBinding::Unsupported,
                "<not-authorized/>",
            ),
            (
                hash,
                "tybalt",
                "secret",
                ClientBinding::Unsupported,
                "<account-disabled/>",
            ),
            (
                hash,
                "tybalt",
                "wrong",
                ClientBinding::Unsupported,
                "<not-authorized/>",
            ),
            (plus.as_str(), "romeo", "secret", exporter, "<success"),
            (plus.as_str(), "romeo", "secret", end_point, "<success"),
            (plus.as_str(), "romeo", "secret", other, "<not-authorized/>"),
        ] {
            let mut server = Server::new(false, Some(tls()));
            let sent = scram(&mut server, mechanism, user, password, binding);
            assert!(
                sent.contains(expected),
                "{mechanism} {user} {password}: {sent}"
            );
        }
    }
}

#[test]
fn the_directory_says_whose_a_login_name_is_and_the_identity_is_compared_with_that() {
    for (user, password, authzid, expected) in [
        ("4711", "secret", None, "<success"),
        ("4711", "secret", Some("romeo@verona.lit"), "<success"),
        // COMPAT: the localpart alone, of whom the account is; nobody else's, and no domain.
        ("4711", "secret", Some("romeo"), "<success"),
        ("romeo", "secret", Some("Romeo"), "<success"),
        ("romeo", "secret", Some("juliet"), "<invalid-authzid/>"),
        ("romeo", "secret", Some("4711"), "<invalid-authzid/>"),
        ("romeo", "secret", Some("verona.lit"), "<invalid-authzid/>"),
        (
            "romeo",
            "secret",
            Some("romeo@mantua.lit"),
            "<invalid-authzid/>",
        ),
        ("romeo", "secret", Some("romeo/x"), "<invalid-authzid/>"),
        ("romeo", "wrong", Some("romeo"), "<not-authorized/>"),
        ("romeo@verona.lit", "secret", None, "<success"),
        (
            "romeo",
            "secret",
            Some("juliet@verona.lit"),
            "<invalid-authzid/>",
        ),
        ("romeo", "secret", Some("@"), "<invalid-authzid/>"),
        (
            "romeo",
            "wrong",
            Some("juliet@verona.lit"),
            "<not-authorized/>",
        ),
        (
            "nobody",
            "secret",
            Some("juliet@verona.lit"),
            "<not-authorized/>",
        ),
        (
            "tybalt",
            "secret",
            Some("tybalt@verona.lit"),
            "<account-disabled/>",
        ),
        // The directory names an account of another domain; it is no name of this one.
        ("mercutio", "secret", None, "<not-authorized/>"),
        ("romeo@mantua.lit", "secret", None, "<not-authorized/>"),
        ("romeo/x", "secret", None, "<not-authorized/>"),
    ] {
        let mut server = Server::new(false, Some(tls()));
        let sent = scram_as(
            &mut server,
            "SCRAM-SHA-256",
            user,
            password,
            authzid,
            ClientBinding::Unsupported,
        );
        assert!(sent.contains(expected), "{user} {authzid:?}: {sent}");
        let account = server.account.as_ref().map(BareJid::as_str);
        let success = expected == "<success";
        assert_eq!(account, success.then_some("romeo@verona.lit"), "{user}");
    }
}

#[test]
fn mechanisms_are_those_of_the_domain_and_of_the_certificate() {
    let offered = |to: &str, names: &[&str]| {
        let mut server = Server::new(false, Some(tls()));
        let names = names.iter().map(|n| CertificateName::XmppAddr((*n).into()));
        server.negotiation.certified(names.collect());
        let features = server.feed(&HEADER.replace("verona.lit", to));
        let features = &features[..features.find("</mechanisms>").unwrap()];
        let parts = features.split("<mechanism>").skip(1);
        let names: Vec<_> = parts.map(|p| p.split('<').next().unwrap()).collect();
        names.join(" ")
    };
    let scram = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1";
    for (to, names, expected) in [
        ("verona.lit", &[][..], format!("GSSAPI {scram} PLAIN")),
        (
            "verona.lit",
            &["romeo@verona.lit"],
            format!("EXTERNAL GSSAPI {scram} PLAIN"),
        ),
        (
            "verona.lit",
            &["romeo@mantua.lit"],
            format!("GSSAPI {scram} PLAIN"),
        ),
        (
            "verona.lit",
            &["verona.lit"],
            format!("GSSAPI {scram} PLAIN"),
        ),
        ("mantua.lit", &["romeo@mantua.lit"], "PLAIN".to_owned()),
    ] {
        assert_eq!(offered(to, names), expected, "{to} {names:?}");
    }
}

#[test]
fn external_is_whom_the_certificate_names() {
    let address = |text: &str| CertificateName::XmppAddr(text.to_owned());
    let login = |text: &str| CertificateName::Login(text.to_owned());
    let (romeo, roger) = (address("romeo@verona.lit"), address("roger@verona.lit"));
    for (names, authzid, expected) in [
        (vec![romeo.clone()], "", Ok("romeo@verona.lit")),
        (
            vec![romeo.clone()],
            "romeo@verona.lit",
            Ok("romeo@verona.lit"),
        ),
        (
            vec![romeo.clone()],
            "roger@verona.lit",
            Err("invalid-authzid"),
        ),
        (
            vec![romeo.clone()],
            "romeo@mantua.lit",
            Err("invalid-authzid"),
        ),
        (vec![romeo.clone()], "a\0b", Err("malformed-request")),
        (
            vec![romeo.clone(), roger.clone()],
            "",
            Err("invalid-authzid"),
        ),
        (
            vec![romeo.clone(), roger],
            "roger@verona.lit",
            Ok("roger@verona.lit"),
        ),
        // Only one of them is an account.
        (
            vec![romeo.clone(), address("x@verona.lit")],
            "",
            Ok("romeo@verona.lit"),
        ),
        (
            vec![romeo, address("nurse@verona.lit")],
            "",
            Err("temporary-auth-failure"),
        ),
        (
            vec![address("nobody@verona.lit")],
            "",
            Err("not-authorized"),
        ),
        (
            vec![address("tybalt@verona.lit")],
            "",
            Err("account-disabled"),
        ),
        (
            vec![address("romeo@mantua.lit")],
            "",
            Err("invalid-mechanism"),
        ),
        (vec![], "", Err("invalid-mechanism")),
        (vec![login("4711")], "", Ok("romeo@verona.lit")),
        (
            vec![login("4711")],
            "roger@verona.lit",
            Err("invalid-authzid"),
        ),
        (vec![login("mercutio")], "", Err("not-authorized")),
    ] {
        for at_once in [true, false] {
            let mut server = Server::new(false, Some(tls()));
            server.negotiation.certified(names.clone());
            server.feed(HEADER);
            let data = match authzid {
                "" => "=".to_owned(),
                text => base64(text.as_bytes()),
            };
            const SASL: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
            let sent = if at_once {
                server.feed(&format!("<auth {SASL} mechanism='EXTERNAL'>{data}</auth>"))
            } else {
                let sent = server.feed(&format!("<auth {SASL} mechanism='EXTERNAL'/>"));
                if !sent.contains("<challenge") {
                    assert!(sent.contains("<invalid-mechanism/>"), "{sent}");
                    continue;
                }
                server.feed(&format!("<response {SASL}>{data}</response>"))
            };
            let wanted = match expected {
                Ok(_) => "<success".to_owned(),
                Err(condition) => format!("<{condition}/>"),
            };
            assert!(sent.contains(&wanted), "{names:?} {authzid}: {sent}");
            let account = server.account.as_ref().map(BareJid::as_str);
            assert_eq!(account, expected.ok(), "{names:?} {authzid}");
        }
    }
}

#[test]
fn a_certificate_is_of_no_use_where_the_mechanism_is_not_offered_or_there_is_no_tls() {
    let mut server = Server::new(true, None);
    server
        .negotiation
        .certified(vec![CertificateName::XmppAddr("romeo@verona.lit".into())]);
    assert!(!server.feed(HEADER).contains("EXTERNAL"));
    assert!(
        server
            .feed(&auth("EXTERNAL", b"romeo@verona.lit"))
            .contains("<invalid-mechanism/>")
    );
}

#[test]
fn gssapi_goes_through_as_many_messages_as_it_needs() {
    let response = |text: &str| {
        format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
            base64(text.as_bytes())
        )
    };
    for (messages, expected) in [
        (vec!["a", "", "romeo@verona.lit"], "<success"),
        (
            vec!["a", "", "romeo@verona.lit romeo@verona.lit"],
            "<success",
        ),
        (
            vec!["a", "", "romeo@verona.lit roger@verona.lit"],
            "<invalid-authzid/>",
        ),
        (vec!["a", "", "romeo@mantua.lit"], "<not-authorized/>"),
        (vec!["a", "", "tybalt@verona.lit"], "<account-disabled/>"),
        (vec!["a", "", ""], "<not-authorized/>"),
        (vec!["wrong"], "<not-authorized/>"),
        (vec!["old"], "<credentials-expired/>"),
        (vec!["a", "down"], "<temporary-auth-failure/>"),
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(HEADER);
        let mut sent = server.feed(&auth("GSSAPI", messages[0].as_bytes()));
        for message in &messages[1..] {
            assert!(sent.contains("<challenge"), "{messages:?}: {sent}");
            sent = server.feed(&response(message));
        }
        assert!(sent.contains(expected), "{messages:?}: {sent}");
        assert_eq!(server.account.is_some(), expected == "<success");
    }
    // Longer than any message of another mechanism, but a ticket may be.
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    let sent = server.feed(&auth("GSSAPI", &[b'x'; 7_000]));
    assert!(sent.contains("<challenge"), "{sent}");
}

/// One line of a script: what the client sends, a part of what it gets (None: nothing at all).
type Line<'a> = (&'a str, Option<&'a str>);

/// How a script ends.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Open,
    Ended,
    Closed(StreamError),
}

fn outcome(server: &Server) -> Outcome {
    match server.closed {
        None => Outcome::Open,
        Some(None) => Outcome::Ended,
        Some(Some(error)) => Outcome::Closed(error),
    }
}

/// A server that has been sent its header over plain TCP (SASL allowed there), after STARTTLS, over direct TLS, over WebSocket
/// behind somebody else's TLS and with its own.
fn transports() -> [(&'static str, Server); 5] {
    let mut starttls = Server::new(false, None);
    starttls.feed(HEADER);
    starttls.feed("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    starttls.negotiation.secured(tls());
    starttls.parser.reset();
    let mut all = [
        ("plain TCP", Server::new(true, None)),
        ("STARTTLS", starttls),
        ("direct TLS", Server::new(false, Some(tls()))),
        ("WebSocket", Server::over_websocket(None)),
        ("WebSocket over TLS", Server::over_websocket(Some(tls()))),
    ];
    for (_, server) in &mut all {
        assert!(
            server
                .feed(HEADER)
                .contains("<mechanism>SCRAM-SHA-256</mechanism>")
        );
    }
    all
}

const GOOD: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>";

#[test]
fn bad_logins_are_answered_alike_on_every_transport() {
    use Outcome::{Closed, Ended, Open};
    const SCRAM: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWFiYw==</auth>";
    const ABORT: &str = "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let bind = |attributes: &str| {
        format!("<iq {attributes}><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
    };
    let (bind_get, bind_other, bind_nameless) = (
        bind("type='get' id='1'"),
        bind("type='set' id='1' to='juliet@verona.lit'"),
        bind("type='set'"),
    );
    let from = |from: &str| HEADER.replace(" to=", &format!(" from='{from}' to="));
    let (garbage, own) = (from("@@"), from("ROMEO@verona.lit/x"));
    let long = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        "A".repeat(9000)
    );
    let too_long = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        "A".repeat(11_000)
    );
    let plain = |text: &str| auth("PLAIN", text.as_bytes());
    let (address, resource, foreign) = (
        plain("\0romeo@verona.lit\0secret"),
        plain("\0romeo/x\0secret"),
        plain("romeo@mantua.lit\0romeo\0secret"),
    );
    let (own_id, own_full) = (
        plain("Romeo@Verona.lit\0ROMEO\0secret"),
        plain("romeo@verona.lit/x\0romeo\0secret"),
    );
    let more = plain("\0romeo\0secret\0x");
    let rows: Vec<(&str, Vec<Line<'_>>, Outcome)> = vec![
        ("good", vec![(GOOD, Some("<success"))], Open),
        (
            "bad base64",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJv!</auth>",
                Some("<incorrect-encoding/>"),
            )],
            Open,
        ),
        (
            "base64 unpadded",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA</auth>",
                Some("<incorrect-encoding/>"),
            )],
            Open,
        ),
        (
            "base64 with spare bits",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldB==</auth>",
                Some("<incorrect-encoding/>"),
            )],
            Open,
        ),
        (
            "base64 with a line break",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVv\nAHNlY3JldA==</auth>",
                Some("<incorrect-encoding/>"),
            )],
            Open,
        ),
        (
            "empty initial response",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>=</auth>",
                Some("<malformed-request/>"),
            )],
            Open,
        ),
        (
            "empty initial response of SCRAM",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>=</auth>",
                Some("<malformed-request/>"),
            )],
            Open,
        ),
        (
            "no initial response",
            vec![
                (
                    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
                    Some("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
                ),
                (
                    "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AHJvbWVvAHNlY3JldA==</response>",
                    Some("<success"),
                ),
            ],
            Open,
        ),
        (
            "a child in it",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==<x/></auth>",
                Some("<malformed-request/>"),
            )],
            Open,
        ),
        (
            "longer than any message",
            vec![(&long, Some("<malformed-request/>"))],
            Open,
        ),
        (
            "longer than an element may be",
            vec![(&too_long, None)],
            Closed(StreamError::PolicyViolation),
        ),
        (
            "no mechanism",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AHJv</auth>",
                Some("<invalid-mechanism/>"),
            )],
            Open,
        ),
        (
            "small letters",
            vec![(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='plain'>AHJv</auth>",
                Some("<invalid-mechanism/>"),
            )],
            Open,
        ),
        (
            "the address as name",
            vec![(&address, Some("<success"))],
            Open,
        ),
        (
            "a slash in the name",
            vec![(&resource, Some("<not-authorized/>"))],
            Open,
        ),
        (
            "the identity of another domain",
            vec![(&foreign, Some("<invalid-authzid/>"))],
            Open,
        ),
        ("the own identity", vec![(&own_id, Some("<success"))], Open),
        (
            "the own identity with a resource",
            vec![(&own_full, Some("<invalid-authzid/>"))],
            Open,
        ),
        (
            "a fourth part",
            vec![(&more, Some("<malformed-request/>"))],
            Open,
        ),
        (
            "abort",
            vec![
                (SCRAM, Some("<challenge")),
                (ABORT, Some("<aborted/>")),
                (GOOD, Some("<success")),
            ],
            Open,
        ),
        (
            "abort of nothing",
            vec![(ABORT, Some("<malformed-request/>"))],
            Open,
        ),
        (
            "abort loop",
            vec![
                (SCRAM, Some("<challenge")),
                (ABORT, Some("<aborted/>")),
                (SCRAM, Some("<challenge")),
                (ABORT, Some("<aborted/>")),
                (SCRAM, Some("<challenge")),
                (ABORT, Some("<aborted/>")),
            ],
            Closed(StreamError::PolicyViolation),
        ),
        (
            "response to nothing",
            vec![(
                "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                Some("<malformed-request/>"),
            )],
            Open,
        ),
        (
            "a second auth in an exchange",
            vec![(SCRAM, Some("<challenge")), (GOOD, None)],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "starttls in an exchange",
            vec![
                (SCRAM, Some("<challenge")),
                (
                    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                    Some("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
                ),
            ],
            Ended,
        ),
        (
            "a stanza in an exchange",
            vec![(SCRAM, Some("<challenge")), ("<presence/>", None)],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "a stanza",
            vec![("<message to='juliet@verona.lit'/>", None)],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "binding first",
            vec![(
                "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
                None,
            )],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "an unknown element",
            vec![("<x xmlns='urn:example'/>", None)],
            Closed(StreamError::UnsupportedStanzaType),
        ),
        (
            "stream management first",
            vec![("<enable xmlns='urn:xmpp:sm:3'/>", None)],
            Closed(StreamError::UnsupportedStanzaType),
        ),
        (
            "a second auth after success",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (GOOD, None),
            ],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "starttls after success",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (
                    "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>",
                    Some("<failure"),
                ),
            ],
            Ended,
        ),
        (
            "somebody else at the restart",
            vec![
                (GOOD, Some("<success")),
                (&garbage, Some(" from='verona.lit'")),
            ],
            Closed(StreamError::InvalidFrom),
        ),
        (
            "the same at the restart",
            vec![(GOOD, Some("<success")), (&own, Some("<bind "))],
            Open,
        ),
        (
            "a stanza before binding",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                ("<presence/>", None),
            ],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "binding asked for, not set",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (&bind_get, Some("<bad-request ")),
            ],
            Open,
        ),
        (
            "binding at another",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (&bind_other, None),
            ],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "binding without an id",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (&bind_nameless, None),
            ],
            Closed(StreamError::NotAuthorized),
        ),
        (
            "stream management before binding",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (
                    "<enable xmlns='urn:xmpp:sm:3'/>",
                    Some("<unexpected-request "),
                ),
            ],
            Open,
        ),
        (
            "resumption of nothing",
            vec![
                (GOOD, Some("<success")),
                (HEADER, Some("<bind ")),
                (
                    "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
                    Some("<item-not-found "),
                ),
            ],
            Open,
        ),
        (
            "a header in mid-stream",
            vec![(
                "<stream:stream xmlns:stream='http://etherx.jabber.org/streams'/>",
                None,
            )],
            Closed(StreamError::UnsupportedStanzaType),
        ),
    ];
    for (what, script, expected) in &rows {
        for (transport, mut server) in transports() {
            for (line, part) in script {
                let sent = server.feed(line);
                match part {
                    Some(part) => assert!(sent.contains(part), "{what}, {transport}: {sent:?}"),
                    None => assert_eq!(sent, "", "{what}, {transport}"),
                }
            }
            assert_eq!(outcome(&server), *expected, "{what}, {transport}");
            assert_eq!(
                server.account.is_some(),
                script.iter().any(|(_, part)| *part == Some("<success")),
                "{what}, {transport}"
            );
        }
    }
}

/// BAD_INPUTS 23: the challenge has the same shape, and is the same each time but for the nonce.
#[test]
fn unknown_users_are_challenged_like_known_ones() {
    let challenge = |name: &str| {
        let mut server = Server::new(true, None);
        server.feed(HEADER);
        let sent = server.feed(&auth(
            "SCRAM-SHA-256",
            format!("n,,n={name},r=abc").as_bytes(),
        ));
        let text = sent
            .strip_prefix("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>")
            .expect("a challenge")
            .trim_end_matches("</challenge>");
        use base64::Engine as _;
        String::from_utf8(
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap(),
        )
        .unwrap()
    };
    let (known, unknown) = (challenge("romeo"), challenge("nobody"));
    assert_eq!(unknown, challenge("nobody"));
    assert_eq!(unknown, challenge("NOBODY"), "the prepared name decides");
    assert_ne!(unknown, challenge("somebody"));
    assert_eq!(known.len(), unknown.len());
    assert_eq!(
        known.rsplit(',').next(),
        unknown.rsplit(',').next(),
        "iterations"
    );
}

/// RFC 6120 §4.7.3: each stream has an id nobody can guess.
#[test]
fn stream_ids_are_32_hexadecimal_digits_of_the_random_source() {
    let mut n = 0;
    let mut count = move |out: &mut [u8]| {
        n += 1;
        out.fill(n);
    };
    let server = Server::new(false, None);
    for expected in [
        "id='01010101010101010101010101010101'",
        "id='02020202020202020202020202020202'",
    ] {
        let header = server.negotiation.error_header(&mut count);
        assert!(std::str::from_utf8(&header).unwrap().contains(expected));
    }
}

#[test]
fn a_negotiation_can_move_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Negotiation>();
    is_send::<Action>();
    assert!(
        size_of::<Negotiation>() <= 288,
        "{}",
        size_of::<Negotiation>()
    );
}

/// Pieces a hostile client might send in any order.
fn piece() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["auth", "response", "abort", "success", "x"]);
    let mechanism = prop::sample::select(vec![
        "PLAIN",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-512",
        "X",
    ]);
    let message = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        "(n|y|p=tls-exporter|p=x),(a=x)?,(m=x,)?(n=[a-z=,]{0,5})?,r=[a-z]{0,4}(,x=y)?"
            .prop_map(String::into_bytes),
        "c=(biws|eSws|x),r=[a-z]{0,4}(,p=(AAAA|x))?".prop_map(String::into_bytes),
        "[a-z@]{0,4}\0(romeo|[a-z]{0,3})\0(wrong|[a-z]{0,3})".prop_map(String::into_bytes),
    ];
    let sasl = (name, mechanism, message, any::<bool>()).prop_map(|(name, mechanism, message, broken)| {
        let text = if broken { "=!".to_owned() } else { base64(&message) };
        format!("<{name} xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{text}</{name}>")
    });
    prop_oneof![
        8 => sasl,
        1 => Just(HEADER.to_owned()),
        1 => Just("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>".to_owned()),
        1 => Just("<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>x</resource></bind></iq>".to_owned()),
        1 => "[ -~]{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_order_of_pieces_panics_or_logs_anybody_in(secured in any::<bool>(), pieces in proptest::collection::vec(piece(), 0..12)) {
        let mut server = Server::new(!secured, secured.then(tls));
        server.feed(HEADER);
        for piece in &pieces {
            server.feed(piece);
        }
        prop_assert!(server.account.is_none() && server.bound.is_none());
    }
}
