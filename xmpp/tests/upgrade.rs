//! Keys of other hashes, made with a log-in (XEP-0480).

#![allow(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod login;

use login::{HEADER, Server, base64, tls};
use xmpp::error::StreamError;
use xmpp::negotiation::LoginFailure;
use xmpp::sasl::Failure;
use xmpp::scram::ScramHash::{Sha1, Sha256, Sha512};
use xmpp::scram::client::{ClientBinding, ScramClient, salted_password};
use xmpp::scram::{ScramHash, derive};

const BOTH: &str = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>\
    <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade>";

const SHA_256: &str = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade>";

fn decoded(text: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    String::from_utf8(bytes.unwrap()).unwrap()
}

/// The text of the first element of that name.
fn inside<'s>(sent: &'s str, name: &str) -> &'s str {
    let rest = &sent[sent.find(&format!("<{name}")).unwrap()..];
    let rest = &rest[rest.find('>').unwrap() + 1..];
    &rest[..rest.find('<').unwrap()]
}

/// Romeo logs in by SCRAM; what he hears when he has proved that he knows the password, and his end of the exchange.
fn logs_in(server: &mut Server, hash: ScramHash, wishes: &str) -> (String, ScramClient) {
    server.feed(HEADER);
    let binding = ClientBinding::Unsupported;
    let mut client = ScramClient::new(hash, "romeo", "secret", None, binding, "nonce");
    let first = base64(client.first_message().as_bytes());
    let challenge = server.feed(&format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{}'>\
         <initial-response>{first}</initial-response>{wishes}</authenticate>",
        hash.mechanism()
    ));
    let challenge = decoded(inside(&challenge, "challenge"));
    let response = client.handle_challenge(&challenge).unwrap();
    let sent = server.feed(&format!(
        "<response xmlns='urn:xmpp:sasl:2'>{}</response>",
        base64(response.as_bytes())
    ));
    (sent, client)
}

/// A server whose store has keys of these hashes for romeo.
fn server(stored: &[ScramHash]) -> Server {
    let mut server = Server::new(false, Some(tls()));
    server.stored = Some(stored.to_vec());
    server
}

fn next(task: &str) -> String {
    format!("<next xmlns='urn:xmpp:sasl:2' task='{task}'/>")
}

fn hash_of(salted: &[u8]) -> String {
    format!(
        "<task-data xmlns='urn:xmpp:sasl:2'><hash xmlns='urn:xmpp:scram-upgrade:0'>\n{}\n</hash></task-data>",
        base64(salted)
    )
}

const SALT: [u8; 16] = [0x5a; 16];

#[test]
fn it_is_offered_where_there_is_something_to_upgrade_to_and_nobody_listens() {
    let task = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-512</upgrade>\
                <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-256</upgrade></authentication>";
    let offered = server(&[]).feed(HEADER);
    assert!(offered.contains(task), "{offered}");
    // Without TLS, and where passwords are with somebody else.
    let plain = Server::new(true, None).feed(HEADER);
    assert!(
        plain.contains("SCRAM-SHA-1<") && !plain.contains("UPGR"),
        "{plain}"
    );
    let elsewhere = server(&[]).feed(&HEADER.replace("verona", "mantua"));
    assert!(!elsewhere.contains("UPGR"), "{elsewhere}");
}

#[test]
fn an_account_of_one_hash_gets_keys_of_the_others() {
    let mut server = server(&[Sha1]);
    let wishes = format!("{BOTH}{SHA_256}<bind xmlns='urn:xmpp:bind:0'/>");
    let (mut sent, client) = logs_in(&mut server, Sha1, &wishes);
    for (n, hash) in [Sha256, Sha512].into_iter().enumerate() {
        let name = format!("UPGR-{}", hash.mechanism());
        let tasks = format!("<tasks><task>{name}</task></tasks></continue>");
        assert!(
            sent.starts_with("<continue xmlns='urn:xmpp:sasl:2'>") && sent.ends_with(&tasks),
            "{sent}"
        );
        if n == 0 {
            // The server's proof, once.
            let proof = decoded(inside(&sent, "additional-data"));
            client.handle_success(&proof).unwrap();
        } else {
            assert!(!sent.contains("additional-data"), "{sent}");
        }
        assert_eq!(
            server.feed(&next(&name)),
            format!(
                "<task-data xmlns='urn:xmpp:sasl:2'><salt xmlns='urn:xmpp:scram-upgrade:0' iterations='4096'>{}</salt></task-data>",
                base64(&SALT)
            )
        );
        sent = server.feed(&hash_of(&salted_password(hash, "secret", &SALT, 4096)));
        assert_eq!(
            server.added[n],
            derive(hash, "secret", &SALT, 4096).unwrap()
        );
    }
    assert!(
        sent.starts_with("<success ") && sent.contains("<bound/>"),
        "{sent}"
    );
    assert!(!sent.contains("additional-data"), "{sent}");
    assert_eq!(server.added.len(), 2);
}

#[test]
fn nothing_is_asked_of_who_needs_nothing() {
    let other = "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-SHA-1</upgrade>\
                 <upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-BLOOP2</upgrade>\
                 <upgrade xmlns='urn:xmpp:sasl:upgrade:0'/><upgrade xmlns='urn:xmpp:other'>UPGR-SCRAM-SHA-256</upgrade>";
    for (stored, hash, wishes) in [
        // It has them; it is not our store's; keys of another password; not asked for; unknown, and cheaper ones.
        (Some(&ScramHash::ALL[..]), Sha1, BOTH),
        (None, Sha1, BOTH),
        (Some(&[Sha256][..]), Sha1, BOTH),
        (Some(&[Sha1][..]), Sha1, ""),
        (Some(&[Sha256][..]), Sha256, other),
    ] {
        let mut server = server(&[]);
        server.stored = stored.map(<[_]>::to_vec);
        let (sent, client) = logs_in(&mut server, hash, wishes);
        assert!(sent.starts_with("<success "), "{stored:?} {sent}");
        let proof = decoded(inside(&sent, "additional-data"));
        client.handle_success(&proof).unwrap();
    }
    // By the password itself the server needs no help.
    let mut server = server(&[Sha1]);
    server.feed(HEADER);
    let sent = server.feed(&format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>AHJvbWVvAHNlY3JldA==</initial-response>{BOTH}</authenticate>"
    ));
    assert!(sent.starts_with("<success "), "{sent}");
}

#[test]
fn bad_answers_to_a_task_end_the_log_in() {
    let task = next("UPGR-SCRAM-SHA-256");
    let good = hash_of(&salted_password(Sha256, "secret", &SALT, 4096));
    let data = |inside: &str| format!("<task-data xmlns='urn:xmpp:sasl:2'>{inside}</task-data>");
    let hash = |text: &str| {
        data(&format!(
            "<hash xmlns='urn:xmpp:scram-upgrade:0'>{text}</hash>"
        ))
    };
    use Failure::{Aborted, IncorrectEncoding, MalformedRequest, TemporaryAuthFailure};
    for (said, failure) in [
        (vec![next("UPGR-SCRAM-SHA-512")], MalformedRequest),
        (vec![next("UPGR-BLOOP2")], MalformedRequest),
        (
            vec!["<next xmlns='urn:xmpp:sasl:2'/>".into()],
            MalformedRequest,
        ),
        // Out of turn.
        (vec![good.clone()], MalformedRequest),
        (vec![task.clone(), task.clone()], MalformedRequest),
        // Too short, too long, none, no base64, another element, two of them.
        (vec![task.clone(), hash_of(&[1; 31])], MalformedRequest),
        (vec![task.clone(), hash_of(&[1; 33])], MalformedRequest),
        (vec![task.clone(), hash_of(&[1; 64])], MalformedRequest),
        (vec![task.clone(), hash("")], MalformedRequest),
        (vec![task.clone(), hash("=")], MalformedRequest),
        (vec![task.clone(), hash("!!!!")], IncorrectEncoding),
        (vec![task.clone(), data("")], MalformedRequest),
        (
            vec![
                task.clone(),
                data("<hash xmlns='urn:xmpp:other'>AAAA</hash>"),
            ],
            MalformedRequest,
        ),
        (
            vec![
                task.clone(),
                data(
                    "<hash xmlns='urn:xmpp:scram-upgrade:0'>AAAA</hash><hash xmlns='urn:xmpp:scram-upgrade:0'>AAAA</hash>",
                ),
            ],
            MalformedRequest,
        ),
        (vec!["<abort xmlns='urn:xmpp:sasl:2'/>".into()], Aborted),
        (
            vec![task.clone(), "<abort xmlns='urn:xmpp:sasl:2'/>".into()],
            Aborted,
        ),
        // The store refuses them.
        (vec![task.clone(), good.clone()], TemporaryAuthFailure),
    ] {
        let mut server = server(&[Sha1]);
        server.refuses = failure == TemporaryAuthFailure;
        logs_in(&mut server, Sha1, SHA_256);
        let mut sent = String::new();
        for element in &said {
            sent = server.feed(element);
        }
        let expected = format!("<failure xmlns='urn:xmpp:sasl:2'><{} ", failure.name());
        assert!(sent.starts_with(&expected), "{said:?} {sent}");
        assert!(server.added.is_empty());
        assert_eq!(
            server.failures.last().unwrap(),
            &(
                Some("romeo@verona.lit".into()),
                "SCRAM-SHA-1".into(),
                LoginFailure::Sasl(failure)
            )
        );
        // XEP-0388 §2.6.3: there is no other log-in on this stream, and nothing else.
        server.feed(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
             <initial-response>AHJvbWVvAHNlY3JldA==</initial-response></authenticate>",
        );
        assert_eq!(server.closed, Some(Some(StreamError::NotAuthorized)));
    }
}

#[test]
fn nothing_else_passes_while_a_task_is_to_be_done() {
    for other in [
        "<iq type='set' id='b' xmlns='jabber:client'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<message xmlns='jabber:client' to='juliet@verona.lit'/>",
        "<response xmlns='urn:xmpp:sasl:2'/>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>",
        "<resume xmlns='urn:xmpp:sm:3' previd='here' h='0'/>",
    ] {
        let mut server = server(&[Sha1]);
        logs_in(&mut server, Sha1, SHA_256);
        server.feed(other);
        assert!(
            matches!(server.closed, Some(Some(_))) && server.bound.is_none(),
            "{other}"
        );
    }
    // Nor a task where there is none.
    for other in [next("UPGR-SCRAM-SHA-256"), hash_of(&[1; 32])] {
        let mut server = server(&[Sha1]);
        server.feed(HEADER);
        server.feed(&other);
        assert_eq!(server.closed, Some(Some(StreamError::NotAuthorized)));
    }
}
