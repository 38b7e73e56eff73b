//! The examples of RFC 5802 §5, RFC 7677 §3 and RFC 4013 §3, tables of what is refused, and both ends against each other.

use super::client::{ClientBinding, ScramClient};
use super::*;
use base64::Engine as _;

fn random(byte: u8) -> impl FnMut(&mut [u8]) {
    move |out: &mut [u8]| out.fill(byte)
}

fn exchange(
    hash: ScramHash,
    right: &str,
    given: &str,
    tls: Option<&TlsFacts>,
    binding: ClientBinding,
) -> Result<(), ScramError> {
    let keys = derive(hash, right, b"a salt of sixteen", 4096).expect("a password");
    let plus = matches!(binding, ClientBinding::Bind(..));
    let mut client = ScramClient::new(hash, "romeo", given, None, binding, "clientnonce");
    let first = ClientFirst::parse(
        hash,
        plus,
        tls.is_some(),
        tls,
        client.first_message().as_bytes(),
    )?;
    let (server, challenge) = first.challenge(&keys, true, &mut random(7));
    let answer = client.handle_challenge(&challenge)?;
    client.handle_success(&server.finish(answer.as_bytes())?)
}

#[test]
fn both_ends_agree_only_on_the_right_password() {
    for hash in ScramHash::ALL {
        assert_eq!(
            exchange(hash, "secret", "secret", None, ClientBinding::Unsupported),
            Ok(()),
            "{hash}"
        );
        assert_eq!(
            exchange(hash, "secret", "Secret", None, ClientBinding::Unsupported),
            Err(ScramError::Proof),
            "{hash}"
        );
    }
}

#[test]
fn a_client_that_was_not_shown_our_offer_is_told_of_the_downgrade() {
    let tls = TlsFacts {
        version: 0x0304,
        exporter: Some([9; 32]),
        server_end_point: None,
    };
    let result = exchange(
        ScramHash::Sha256,
        "secret",
        "secret",
        Some(&tls),
        ClientBinding::NotOffered,
    );
    assert_eq!(result, Err(ScramError::Downgrade));
}

#[test]
fn the_text_form_goes_both_ways() {
    let keys = derive(ScramHash::Sha1, "secret", b"salt", 4096).expect("a password");
    assert_eq!(keys.text().to_string().parse::<ScramKeys>(), Ok(keys));
    for bad in [
        "",
        "{SCRAM-SHA-256}",
        "{SCRAM-MD5}4096,c2FsdA==,AA==,AA==",
        "{SCRAM-SHA-1}0,c2FsdA==,AA==,AA==",
        "secret",
    ] {
        assert!(bad.parse::<ScramKeys>().is_err(), "{bad}");
    }
}

#[test]
fn unknown_users_have_the_same_salt_each_time() {
    let fake = FakeKeys::new([3; 32], 4096);
    assert_eq!(
        fake.keys(ScramHash::Sha256, "a@b").salt,
        fake.keys(ScramHash::Sha256, "a@b").salt
    );
    assert_ne!(
        fake.keys(ScramHash::Sha256, "a@b").salt,
        fake.keys(ScramHash::Sha256, "c@b").salt
    );
    assert!(!check_password(None, &fake, "a@b", ""));
}

/// hash, salt, client nonce, the server's half, proof, server signature; user "user", password "pencil", 4096 iterations. The first is
/// RFC 5802 §5, the second RFC 7677 §3, the third the second with SHA-512 by Python's hashlib.
const VECTORS: [(ScramHash, &str, &str, &str, &str, &str); 3] = [
    (
        ScramHash::Sha1,
        "QSXCR+Q6sek8bf92",
        "fyko+d2lbbFgONRv9qkxdawL",
        "3rfcNHYJY1ZVvWVs7j",
        "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
    ),
    (
        ScramHash::Sha256,
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
    ),
    (
        ScramHash::Sha512,
        "W22ZaJ0SNY7soEsUEjb6gQ==",
        "rOprNGfwEbeRWgbNEkqO",
        "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
        "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==",
        "ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==",
    ),
];

#[test]
fn the_exchanges_of_the_rfcs_byte_by_byte() {
    for (hash, salt, nonce, ours, proof, signature) in VECTORS {
        let keys = derive(hash, "pencil", &BASE64.decode(salt).unwrap(), 4096).unwrap();
        let mut client = ScramClient::new(
            hash,
            "user",
            "pencil",
            None,
            ClientBinding::Unsupported,
            nonce,
        );
        assert_eq!(client.first_message(), format!("n,,n=user,r={nonce}"));
        let first = ClientFirst::parse(hash, false, false, None, client.first_message().as_bytes())
            .unwrap();
        assert_eq!((first.username(), first.authzid()), ("user", None));
        let (server, challenge) = first.challenge_with_nonce(&keys, true, ours);
        assert_eq!(challenge, format!("r={nonce}{ours},s={salt},i=4096"));
        let answer = client.handle_challenge(&challenge).unwrap();
        assert_eq!(answer, format!("c=biws,r={nonce}{ours},p={proof}"));
        let last = server.clone().finish(answer.as_bytes()).unwrap();
        assert_eq!(last, format!("v={signature}"));
        assert_eq!(client.handle_success(&last), Ok(()));
        // The same messages where the account is none of ours.
        let first = ClientFirst::parse(hash, false, false, None, client.first_message().as_bytes())
            .unwrap();
        let (server, _) = first.challenge_with_nonce(&keys, false, ours);
        assert_eq!(server.finish(answer.as_bytes()), Err(ScramError::Proof));
    }
}

/// What the first message leads to, `plus`: with -PLUS, on a TLS session that has `tls-exporter` only.
#[test]
fn first_messages_that_are_refused() {
    use ScramError as E;
    let tls = TlsFacts {
        version: 0x0304,
        exporter: Some([9; 32]),
        server_end_point: None,
    };
    let parse = |plus, message: &str| {
        ClientFirst::parse(
            ScramHash::Sha256,
            plus,
            true,
            Some(&tls),
            message.as_bytes(),
        )
        .map(drop)
    };
    let malformed = |plus, message: &str| matches!(parse(plus, message), Err(E::Malformed(_)));
    for message in [
        "",
        ",",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,r=abc,n=user",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,N=user,r=abc",
        "n,,n=user,r=a b",
        "n,,n=user,r=a\u{e9}",
        "n,,n=user,r=a\0b",
        "n,,m=must,n=user,r=abc",
        "n,,n=user,m=must,r=abc",
        "n,,n=user,r=abc,m=must",
        "n,,n=user,r=abc,r=def",
        "n,,n=user,r=abc,n=other",
        "n,,n=user,r=abc,",
        "n,,n=user,r=abc,x",
        "n,,n=user,r=abc,x=",
        "n,,n=user,r=abc,1=a",
        "n,,n=us=er,r=abc",
        "n,,n=us=2cer,r=abc",
        "n,,n=user=,r=abc",
        "n,user,n=user,r=abc",
        "n,a=,n=user,r=abc",
        "x,,n=user,r=abc",
        "N,,n=user,r=abc",
        "p=,,n=user,r=abc",
        "p=tls exporter,,n=user,r=abc",
        "n, ,n=user,r=abc",
    ] {
        assert!(
            malformed(false, message),
            "{message:?}: {:?}",
            parse(false, message)
        );
    }
    assert!(malformed(
        false,
        &format!("n,,n=user,r={}", "a".repeat(NONCE_BYTES_MAX + 1))
    ));
    assert_eq!(
        parse(
            false,
            &format!("n,,n=user,r={}", "a".repeat(NONCE_BYTES_MAX))
        ),
        Ok(())
    );
    let not_utf8 = ClientFirst::parse(ScramHash::Sha256, false, true, None, b"n,,n=\xff,r=abc");
    assert!(matches!(not_utf8, Err(E::Malformed(_))));
    for (plus, message, result) in [
        (false, "n,,n=user,r=abc", Ok(())),
        (false, "n,,n=user,r=abc,x=y,z=what=ever", Ok(())),
        (false, "n,a=user@b,n=us=2Ce=3Dr,r=abc", Ok(())),
        (true, "p=tls-exporter,,n=user,r=abc", Ok(())),
        (
            true,
            "p=tls-server-end-point,,n=user,r=abc",
            Err(E::BindingType),
        ),
        (true, "p=tls-unique,,n=user,r=abc", Err(E::BindingType)),
        (true, "n,,n=user,r=abc", Err(E::BindingFlag)),
        (true, "y,,n=user,r=abc", Err(E::BindingFlag)),
        (false, "p=tls-exporter,,n=user,r=abc", Err(E::BindingFlag)),
        (false, "y,,n=user,r=abc", Err(E::Downgrade)),
        (false, "n,,n=\u{7},r=abc", Err(E::BadUsername)),
        (false, "n,,n=\u{ad},r=abc", Err(E::BadUsername)),
    ] {
        assert_eq!(parse(plus, message), result, "{message:?}");
    }
    // `y` is right where -PLUS was not offered.
    assert!(ClientFirst::parse(ScramHash::Sha1, false, false, None, b"y,,n=user,r=abc").is_ok());
    let named = ClientFirst::parse(
        ScramHash::Sha1,
        false,
        false,
        None,
        b"n,a=a=2Cb,n=us=2Ce=3Dr,r=abc",
    )
    .unwrap();
    assert_eq!((named.username(), named.authzid()), ("us,e=r", Some("a,b")));
}

/// Each row spoils the last message of a good exchange.
#[test]
fn last_messages_that_are_refused() {
    use ScramError as E;
    type Spoil = fn(String) -> String;
    let rows: [(&str, Spoil, Result<(), E>); 14] = [
        ("nothing", |m| m, Ok(())),
        ("nonce longer", |m| m.replace(",p=", "x,p="), Err(E::Nonce)),
        (
            "nonce of another",
            |m| m.replace("r=clientnonce", "r=servernonce"),
            Err(E::Nonce),
        ),
        (
            "only the client's nonce",
            |m| format!("c=biws,r=clientnonce,{}", &m[m.find("p=").unwrap()..]),
            Err(E::Nonce),
        ),
        (
            "flag changed",
            |m| m.replace("c=biws", "c=eSws"),
            Err(E::BindingMismatch),
        ),
        (
            "authzid added",
            |m| m.replace("c=biws", &format!("c={}", BASE64.encode("n,a=x,"))),
            Err(E::BindingMismatch),
        ),
        (
            "binding not base64",
            |m| m.replace("c=biws", "c=biw"),
            Err(E::Malformed("channel binding")),
        ),
        (
            "no binding",
            |m| m.replace("c=biws,", ""),
            Err(E::Malformed("channel binding")),
        ),
        (
            "proof short",
            |m| format!("{}p=AAAA", &m[..m.find("p=").unwrap()]),
            Err(E::Malformed("proof")),
        ),
        (
            "proof not base64",
            |m| m.trim_end_matches('=').to_owned(),
            Err(E::Malformed("proof")),
        ),
        (
            "no proof",
            |m| m[..m.find(",p=").unwrap()].to_owned(),
            Err(E::Malformed("no proof")),
        ),
        (
            "mandatory extension",
            |m| m.replace(",p=", ",m=x,p="),
            Err(E::Malformed("extension")),
        ),
        (
            "unsigned extension",
            |m| m.replace(",p=", ",x=y,p="),
            Err(E::Proof),
        ),
        (
            "something after",
            |m| format!("{m},x=y"),
            Err(E::Malformed("no proof")),
        ),
    ];
    let keys = derive(ScramHash::Sha256, "secret", b"salt", 4096).unwrap();
    for (what, spoil, result) in rows {
        let mut client = ScramClient::new(
            ScramHash::Sha256,
            "romeo",
            "secret",
            None,
            ClientBinding::Unsupported,
            "clientnonce",
        );
        let first = ClientFirst::parse(
            ScramHash::Sha256,
            false,
            false,
            None,
            client.first_message().as_bytes(),
        )
        .unwrap();
        let (server, challenge) = first.challenge(&keys, true, &mut random(7));
        let answer = spoil(client.handle_challenge(&challenge).unwrap());
        assert_eq!(
            server.finish(answer.as_bytes()).map(drop),
            result,
            "{what}: {answer}"
        );
    }
}

#[test]
fn a_client_refuses_a_cheap_or_foreign_challenge() {
    use ScramError as E;
    for (challenge, error) in [
        ("r=clientnonceX,s=c2FsdA==,i=1", E::Iterations),
        ("r=clientnonceX,s=c2FsdA==,i=4095", E::Iterations),
        ("r=clientnonceX,s=c2FsdA==,i=99999999999", E::Iterations),
        (
            "r=clientnonceX,s=c2FsdA==,i=04096",
            E::Malformed("iteration count"),
        ),
        (
            "r=clientnonceX,s=c2FsdA==,i=-1",
            E::Malformed("iteration count"),
        ),
        ("r=clientnonceX,s=c2FsdA,i=4096", E::Malformed("salt")),
        ("r=clientnonce,s=c2FsdA==,i=4096", E::Nonce),
        ("r=other,s=c2FsdA==,i=4096", E::Nonce),
        (
            "m=x,r=clientnonceX,s=c2FsdA==,i=4096",
            E::Malformed("mandatory extension"),
        ),
    ] {
        let mut client = ScramClient::new(
            ScramHash::Sha1,
            "romeo",
            "secret",
            None,
            ClientBinding::Unsupported,
            "clientnonce",
        );
        assert_eq!(
            client.handle_challenge(challenge).unwrap_err(),
            error,
            "{challenge}"
        );
        assert_eq!(client.handle_success("v=AAAA"), Err(E::Proof));
        assert_eq!(client.handle_success("e=other-error"), Err(E::Refused));
    }
}

#[test]
fn texts_are_prepared_as_rfc_4013_says() {
    for (text, result) in [
        ("I\u{ad}X", Ok("IX")),
        ("user", Ok("user")),
        ("USER", Ok("USER")),
        ("\u{aa}", Ok("a")),
        ("\u{2168}", Ok("IX")),
        ("a\u{a0}b", Ok("a b")),
        ("pa\u{df}wort", Ok("pa\u{df}wort")),
        ("\u{1f600}", Ok("\u{1f600}")),
        ("\u{627}1\u{628}", Ok("\u{627}1\u{628}")),
        ("\u{7}", Err(PrepError::Prohibited)),
        ("a\tb", Err(PrepError::Prohibited)),
        ("\u{e000}", Err(PrepError::Prohibited)),
        ("\u{fffd}", Err(PrepError::Prohibited)),
        ("\u{200e}", Err(PrepError::Prohibited)),
        ("\u{627}1", Err(PrepError::Bidirectional)),
        ("\u{627}a\u{628}", Err(PrepError::Bidirectional)),
        ("", Err(PrepError::Empty)),
        ("\u{ad}", Err(PrepError::Empty)),
    ] {
        assert_eq!(
            saslprep(text).as_deref().map_err(|e| *e),
            result,
            "{text:?}"
        );
    }
    let keys = |password| derive(ScramHash::Sha1, password, b"salt", 1).map(|k| k.stored_key);
    assert_eq!(keys("\u{2168}"), keys("I\u{ad}X"));
    assert_eq!(keys(""), Err(PrepError::Empty));
}

#[test]
fn keys_of_import_files() {
    let keys = derive(
        ScramHash::Sha256,
        "pencil",
        &BASE64.decode(VECTORS[1].1).unwrap(),
        4096,
    )
    .unwrap();
    let (stored, server) = (
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=",
        "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    );
    let text = format!("{{SCRAM-SHA-256}}4096,W22ZaJ0SNY7soEsUEjb6gQ==,{stored},{server}");
    assert_eq!(keys.text().to_string(), text);
    assert_eq!(text.parse(), Ok(keys.clone()));
    assert_eq!(
        format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${stored}:{server}\n").parse(),
        Ok(keys.clone())
    );
    assert!(
        keys.matches("pencil")
            && !keys.matches("Pencil")
            && !keys.matches("")
            && !keys.matches("\u{7}")
    );
    use KeysFormatError as E;
    for (bad, error) in [
        (text.replace("}4096", "}4095"), E::Iterations),
        (text.replace("}4096", "}1000001"), E::Iterations),
        (text.replace("}4096", "}many"), E::Iterations),
        (text.replace("SHA-256}", "SHA-999}"), E::Mechanism),
        (text.replace("SHA-256}", "SHA-1}"), E::Key),
        (text.replace("W22Za", "W22Z!"), E::Salt),
        (text.replace(",W22ZaJ0SNY7soEsUEjb6gQ==", ","), E::Salt),
        (text.replace("}", ""), E::Form),
        (format!("{text},x"), E::Form),
        (
            format!("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==${stored}"),
            E::Form,
        ),
    ] {
        assert_eq!(bad.parse::<ScramKeys>(), Err(error), "{bad}");
    }
}

#[test]
fn secrets_are_not_printed() {
    let keys = derive(ScramHash::Sha1, "secret", b"salt", 4096).unwrap();
    let client = ScramClient::new(
        ScramHash::Sha1,
        "romeo",
        "secret",
        None,
        ClientBinding::Unsupported,
        "nonce",
    );
    let printed = format!("{keys:?} {client:?} {:?}", FakeKeys::new([3; 32], 4096));
    assert_eq!(
        printed,
        "ScramKeys(SCRAM-SHA-1, 4096 iterations, ..) ScramClient(SCRAM-SHA-1, ..) FakeKeys(4096 iterations, ..)"
    );
}
