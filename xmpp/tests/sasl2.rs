//! Log-in by SASL 2 (XEP-0388), with a resource (XEP-0386), resumption and tokens (XEP-0484) in one go.

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod login;

use login::{CLIENT, HEADER, Server, base64, tls};
use xmpp::error::StreamError;
use xmpp::negotiation::{Bind2, EnableSm, LoginFailure, TokenWish};
use xmpp::sasl::token::{initiator_message, responder_message};
use xmpp::sasl::{ClientId, Failure, TokenMechanism};
use xmpp::scram::ScramHash;
use xmpp::scram::client::{ClientBinding, ScramClient};

const PLAIN: &str = "AHJvbWVvAHNlY3JldA==";

fn server() -> Server {
    let mut server = Server::new(false, Some(tls()));
    server.feed(HEADER);
    server
}

/// `<authenticate/>` with an initial response, and what is asked for with it.
fn authenticate(mechanism: &str, initial: &str, inside: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
         <initial-response>{initial}</initial-response>{inside}</authenticate>"
    )
}

fn agent() -> String {
    format!(
        "<user-agent id='{CLIENT}'><software>Gajim</software><device>desk</device></user-agent>"
    )
}

fn decoded(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .unwrap()
}

/// The text of the first element of that name.
fn inside<'s>(sent: &'s str, name: &str) -> &'s str {
    let rest = &sent[sent.find(&format!("<{name}")).unwrap()..];
    let rest = &rest[rest.find('>').unwrap() + 1..];
    &rest[..rest.find('<').unwrap()]
}

#[test]
fn it_is_offered_with_all_that_can_be_had_with_it() {
    let mut server = Server::new(false, Some(tls()));
    let features = server.feed(HEADER);
    let offer = &features[features.find("<authentication").unwrap()..];
    for part in [
        "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>GSSAPI</mechanism><mechanism>SCRAM-SHA-512-PLUS</mechanism>",
        "<bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:carbons:2'/><feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:sm:3'/></inline></bind>",
        "<sm xmlns='urn:xmpp:sm:3'/>",
        "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism><mechanism>HT-SHA-256-ENDP</mechanism><mechanism>HT-SHA-256-NONE</mechanism></fast>",
    ] {
        assert!(offer.contains(part), "{part} in {offer}");
    }
    // Neither before TLS, nor where nothing can be had.
    let mut plain = Server::new(false, None);
    assert!(!plain.feed(HEADER).contains("<authentication"));
    // A binding that this connection does not have is none for tokens either.
    let mut websocket = Server::over_websocket(None);
    let features = websocket.feed(HEADER);
    assert!(
        features.contains(
            "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>"
        ),
        "{features}"
    );
}

#[test]
fn a_log_in_without_wishes_goes_on_with_the_same_stream() {
    let mut server = server();
    let sent = server.feed(&authenticate("PLAIN", PLAIN, ""));
    assert_eq!(
        &sent[..sent.find("<stream:features>").unwrap()],
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>romeo@verona.lit</authorization-identifier></success>"
    );
    assert!(
        sent.contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"),
        "{sent}"
    );
    // No restart: the next thing is binding.
    server.feed("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(server.bound, Some((None, "b".into())));
}

#[test]
fn scram_tells_what_was_offered_and_proves_itself_with_success() {
    for (hash, plus) in [(ScramHash::Sha1, false), (ScramHash::Sha256, true)] {
        let mut server = server();
        let binding = match plus {
            true => ClientBinding::Bind(xmpp::scram::BindingType::TlsExporter, vec![3; 32]),
            false => ClientBinding::Unsupported,
        };
        let mut client = ScramClient::new(hash, "romeo", "secret", None, binding, "clientnonce");
        let name = format!("{}{}", hash.mechanism(), if plus { "-PLUS" } else { "" });
        let first = base64(client.first_message().as_bytes());
        let sent = server.feed(&authenticate(&name, &first, ""));
        assert!(
            sent.starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"),
            "{sent}"
        );
        let challenge = String::from_utf8(decoded(inside(&sent, "challenge"))).unwrap();
        // XEP-0474: the certificate of this client is nobody's, so EXTERNAL is not among them.
        let offered = "GSSAPI\x1ePLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1eSCRAM-SHA-256\x1eSCRAM-SHA-256-PLUS\x1e\
                       SCRAM-SHA-512\x1eSCRAM-SHA-512-PLUS\x1ftls-exporter\x1etls-server-end-point";
        let hashed = match hash {
            ScramHash::Sha1 => {
                use sha1::Digest as _;
                base64(&sha1::Sha1::digest(offered))
            }
            _ => {
                use sha2::Digest as _;
                base64(&sha2::Sha256::digest(offered))
            }
        };
        assert!(challenge.ends_with(&format!(",h={hashed}")), "{challenge}");
        let answer = client.handle_challenge(&challenge).unwrap();
        let sent = server.feed(&format!(
            "<response xmlns='urn:xmpp:sasl:2'>{}</response>",
            base64(answer.as_bytes())
        ));
        let last = String::from_utf8(decoded(inside(&sent, "additional-data"))).unwrap();
        client.handle_success(&last).unwrap();
    }
}

#[test]
fn a_resource_comes_with_success_and_what_was_wished_for_it() {
    let mut server = server();
    let wish = format!(
        "{}<bind xmlns='urn:xmpp:bind:0'><tag>Gajim</tag><enable xmlns='urn:xmpp:carbons:2'/>\
         <enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/></bind>",
        agent()
    );
    let sent = server.feed(&authenticate("PLAIN", PLAIN, &wish));
    assert!(
        sent.starts_with(
            "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>romeo@verona.lit/new</authorization-identifier><bound/></success><stream:features>"
        ),
        "{sent}"
    );
    assert!(!sent.contains("xmpp-bind"), "{sent}");
    assert!(
        !sent.contains("urn:xmpp:sm:3"),
        "in force, and offered: {sent}"
    );
    let mut other = self::server();
    let sent = other.feed(&authenticate(
        "PLAIN",
        PLAIN,
        "<bind xmlns='urn:xmpp:bind:0'/>",
    ));
    assert!(sent.contains("<sm xmlns='urn:xmpp:sm:3'/>"), "{sent}");
    let asked = Bind2 {
        tag: Some("Gajim".into()),
        client: Some(ClientId::of(CLIENT)),
        carbons: true,
        inactive: false,
        enable: Some(EnableSm {
            resume: true,
            max_s: Some(60),
        }),
    };
    assert_eq!(server.bind2, Some(asked));
    // One that cannot be had with it is asked for in the old way.
    let mut server = self::server();
    let wish = "<bind xmlns='urn:xmpp:bind:0'><tag>full</tag></bind>";
    let sent = server.feed(&authenticate("PLAIN", PLAIN, wish));
    assert!(
        sent.contains("<authorization-identifier>romeo@verona.lit</"),
        "{sent}"
    );
    assert!(
        sent.contains("<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>"),
        "{sent}"
    );
}

#[test]
fn a_stream_is_resumed_with_success_or_success_says_why_not() {
    let bind = "<bind xmlns='urn:xmpp:bind:0'/>";
    let mut server = server();
    let wish = format!("<resume xmlns='urn:xmpp:sm:3' previd='here' h='3'/>{bind}");
    let sent = server.feed(&authenticate("PLAIN", PLAIN, &wish));
    assert!(
        sent.contains("romeo@verona.lit/old</authorization-identifier><resumed/></success>"),
        "{sent}"
    );
    assert_eq!(server.bind2, None, "XEP-0386 §3.2: ignored entirely");
    for (resume, condition) in [
        (
            "<resume xmlns='urn:xmpp:sm:3' previd='gone' h='3'/>",
            "item-not-found",
        ),
        ("<resume xmlns='urn:xmpp:sm:3' h='3'/>", "bad-request"),
        (
            "<resume xmlns='urn:xmpp:sm:3' previd='here' h='-1'/>",
            "bad-request",
        ),
    ] {
        let failed = format!("<failed xmlns='urn:xmpp:sm:3'><{condition} ");
        let mut server = self::server();
        let sent = server.feed(&authenticate("PLAIN", PLAIN, &format!("{resume}{bind}")));
        assert!(
            sent.contains(&failed) && sent.contains("<bound/></success>"),
            "{sent}"
        );
        let mut server = self::server();
        let sent = server.feed(&authenticate("PLAIN", PLAIN, resume));
        assert!(
            sent.contains(&failed) && sent.contains("xmpp-bind"),
            "{sent}"
        );
    }
}

#[test]
fn tokens_are_given_and_good_for_their_mechanism_and_client() {
    let mut server = server();
    let wish = format!(
        "{}<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>",
        agent()
    );
    let sent = server.feed(&authenticate("PLAIN", PLAIN, &wish));
    let token = "<token xmlns='urn:xmpp:fast:0' expiry='2026-12-24T00:00:00Z' token='new-token'/></success>";
    assert!(sent.contains(token), "{sent}");
    let turn = server.token_turn.unwrap();
    let (agent_said, wish, used) = (turn.agent, turn.wish, turn.used);
    assert_eq!(agent_said.client, ClientId::of(CLIENT));
    assert_eq!(agent_said.software.as_deref(), Some("Gajim"));
    assert_eq!(agent_said.device.as_deref(), Some("desk"));
    assert_eq!(
        wish,
        TokenWish {
            request: Some(TokenMechanism::Exporter),
            invalidate: false
        }
    );
    assert_eq!(used, None);
    // Who does not say which client it is gets none; nor is there one for another mechanism.
    for wish in [
        "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>".to_owned(),
        format!(
            "{}<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-UNIQ'/>",
            agent()
        ),
    ] {
        let mut server = self::server();
        let sent = server.feed(&authenticate("PLAIN", PLAIN, &wish));
        assert!(
            sent.contains("<success") && !sent.contains("<token"),
            "{sent}"
        );
    }
    let binding = |m| match m {
        TokenMechanism::Exporter => vec![3; 32],
        TokenMechanism::EndPoint => vec![4; 32],
        TokenMechanism::Unbound => Vec::new(),
    };
    let fast = "<fast xmlns='urn:xmpp:fast:0'/>";
    for mechanism in TokenMechanism::ALL {
        let token = format!("token-{}", mechanism.name());
        let proof =
            |user: &str, token: &str| base64(&initiator_message(user, token, &binding(mechanism)));
        for (user, token, inside, expected) in [
            (
                "romeo",
                token.clone(),
                format!("{}{fast}", agent()),
                "<success",
            ),
            (
                "romeo",
                format!("{token}x"),
                format!("{}{fast}", agent()),
                "<not-authorized ",
            ),
            (
                "nobody",
                token.clone(),
                format!("{}{fast}", agent()),
                "<not-authorized ",
            ),
            (
                "romeo",
                format!("{token}-old"),
                format!("{}{fast}", agent()),
                "<credentials-expired ",
            ),
            (
                "tybalt",
                token.clone(),
                format!("{}{fast}", agent()),
                "<account-disabled ",
            ),
            (
                "nurse",
                token.clone(),
                format!("{}{fast}", agent()),
                "<temporary-auth-failure ",
            ),
            // Another client, or one that says nothing of itself.
            (
                "romeo",
                token.clone(),
                format!("<user-agent id='other'/>{fast}"),
                "<not-authorized ",
            ),
            (
                "romeo",
                token.clone(),
                fast.to_owned(),
                "<invalid-mechanism ",
            ),
            ("romeo", token.clone(), agent(), "<malformed-request "),
        ] {
            let mut server = self::server();
            let sent = server.feed(&authenticate(
                mechanism.name(),
                &proof(user, &token),
                &inside,
            ));
            assert!(
                sent.contains(expected),
                "{mechanism:?} {user} {token} {inside}: {sent}"
            );
            if expected == "<success" {
                let said = decoded(self::inside(&sent, "additional-data"));
                assert_eq!(said, responder_message(&token, &binding(mechanism)));
            }
        }
    }
    // A token of one mechanism is none of another, though the client could say it.
    let mut server = self::server();
    let proof = base64(&initiator_message("romeo", "token-HT-SHA-256-EXPR", &[]));
    let sent = server.feed(&authenticate(
        "HT-SHA-256-NONE",
        &proof,
        &format!("{}{fast}", agent()),
    ));
    assert!(sent.contains("<not-authorized "), "{sent}");
    // A password with <fast/> says two things.
    let sent = server.feed(&authenticate("PLAIN", PLAIN, &format!("{}{fast}", agent())));
    assert!(sent.contains("<malformed-request "), "{sent}");
    // A token's mechanism is none of SASL.
    let mut server = self::server();
    let sent = server.feed(&login::auth(
        "HT-SHA-256-NONE",
        &initiator_message("romeo", "x", &[]),
    ));
    assert!(sent.contains("<invalid-mechanism/>"), "{sent}");
}

#[test]
fn failures_are_of_its_namespace_and_leave_nothing_behind() {
    let mut server = server();
    let wish = "<bind xmlns='urn:xmpp:bind:0'/>";
    let sent = server.feed(&authenticate("PLAIN", "AHJvbWVvAHdyb25n", wish));
    assert_eq!(
        sent,
        "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    );
    assert_eq!(
        server.failures[0].2,
        LoginFailure::Sasl(Failure::NotAuthorized)
    );
    // The old way is still there, and does not do what was wished for before.
    let sent = server.feed(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    );
    assert_eq!(sent, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert_eq!(server.bind2, None);
}

#[test]
fn what_does_not_belong_there_ends_the_stream_or_the_attempt() {
    let begun = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-1'><initial-response>biwsbj1yb21lbyxyPWFiYw==</initial-response></authenticate>";
    let closed = Some(Some(StreamError::NotAuthorized));
    for (first, second) in [
        (begun, begun),
        (begun, "<iq type='get' id='1'/>"),
        // SASL and SASL 2 in one exchange.
        (
            begun,
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        ),
        (
            begun,
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
        ),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWFiYw==</auth>",
            "<response xmlns='urn:xmpp:sasl:2'/>",
        ),
        ("", "<response xmlns='urn:xmpp:sasl:2'/>"),
        (
            "",
            "<next xmlns='urn:xmpp:sasl:2' task='UPGR-SCRAM-SHA-256'/>",
        ),
    ] {
        let mut server = server();
        server.feed(first);
        server.feed(second);
        assert!(
            server.closed == closed
                || server.closed == Some(Some(StreamError::UnsupportedStanzaType)),
            "{first} {second}: {:?}",
            server.closed
        );
        assert_eq!(server.account, None);
    }
    // After success there is no second one, in either way.
    for second in [
        begun,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
    ] {
        let mut server = server();
        server.feed(&authenticate("PLAIN", PLAIN, ""));
        server.feed(second);
        assert_eq!(server.closed, closed);
    }
    for (element, condition) in [
        (authenticate("PLAIN", "!!!", ""), "incorrect-encoding"),
        (authenticate("CRAM-MD5", "", ""), "invalid-mechanism"),
        (authenticate("", "", ""), "invalid-mechanism"),
        (
            authenticate(
                "PLAIN",
                PLAIN,
                "<bind xmlns='urn:xmpp:bind:0'/><bind xmlns='urn:xmpp:bind:0'/>",
            ),
            "malformed-request",
        ),
    ] {
        let mut server = server();
        let sent = server.feed(&element);
        assert!(
            sent.contains(&format!("<{condition} ")),
            "{element}: {sent}"
        );
    }
    let mut server = server();
    server.feed(begun);
    assert!(
        server
            .feed("<abort xmlns='urn:xmpp:sasl:2'/>")
            .contains("<aborted ")
    );
    // No TLS, no log-in.
    let mut plain = Server::new(false, None);
    plain.feed(HEADER);
    assert!(
        plain
            .feed(&authenticate("PLAIN", PLAIN, ""))
            .contains("<encryption-required ")
    );
}

#[test]
fn who_the_header_says_is_whom_the_client_wants_to_be() {
    // XEP-0388 §2.9. `PLAIN` with an authorization identity.
    let header = |from: &str| HEADER.replace(" to=", &format!(" from='{from}' to="));
    let as_romeo = base64(b"romeo@verona.lit\0romeo\0secret");
    for (from, initial, good) in [
        ("romeo@verona.lit", as_romeo.as_str(), true),
        ("juliet@verona.lit", as_romeo.as_str(), false),
        // Not said whom: what the directory makes of the name counts.
        ("juliet@verona.lit", PLAIN, true),
    ] {
        let mut server = Server::new(false, Some(tls()));
        server.feed(&header(from));
        let sent = server.feed(&authenticate("PLAIN", initial, ""));
        assert_eq!(sent.contains("<success"), good, "{from}: {sent}");
        assert_eq!(sent.contains("<invalid-authzid "), !good, "{from}: {sent}");
    }
}
