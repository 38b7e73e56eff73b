//! The examples of RFC 5802 §5 and RFC 7677 §3, and both ends against each other.

use super::client::{ClientBinding, ScramClient};
use super::*;
use base64::Engine as _;

fn random(byte: u8) -> impl FnMut(&mut [u8]) {
    move |out: &mut [u8]| out.fill(byte)
}

fn exchange(hash: ScramHash, right: &str, given: &str, tls: Option<&TlsFacts>, binding: ClientBinding) -> Result<(), ScramError> {
    let keys = derive(hash, right, b"a salt of sixteen", 4096).expect("a password");
    let plus = matches!(binding, ClientBinding::Bind(..));
    let mut client = ScramClient::new(hash, "romeo", given, None, binding, "clientnonce");
    let first = ClientFirst::parse(hash, plus, tls.is_some(), tls, client.first_message().as_bytes())?;
    let (server, challenge) = first.challenge(&keys, true, &mut random(7));
    let answer = client.handle_challenge(&challenge)?;
    client.handle_success(&server.finish(answer.as_bytes())?)
}

#[test]
fn both_ends_agree_only_on_the_right_password() {
    for hash in ScramHash::ALL {
        assert_eq!(exchange(hash, "secret", "secret", None, ClientBinding::Unsupported), Ok(()), "{hash}");
        assert_eq!(exchange(hash, "secret", "Secret", None, ClientBinding::Unsupported), Err(ScramError::Proof), "{hash}");
    }
}

#[test]
fn a_client_that_was_not_shown_our_offer_is_told_of_the_downgrade() {
    let tls = TlsFacts { version: 0x0304, exporter: Some([9; 32]), server_end_point: None };
    let result = exchange(ScramHash::Sha256, "secret", "secret", Some(&tls), ClientBinding::NotOffered);
    assert_eq!(result, Err(ScramError::Downgrade));
}

#[test]
fn keys_of_rfc_7677_fit_its_password() {
    // RFC 7677 §3: user "user", password "pencil".
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
    let keys = derive(ScramHash::Sha256, "pencil", &salt, 4096).expect("a password");
    let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                   c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let signature = ScramHash::Sha256.hmac(&keys.server_key, &[message.as_bytes()]);
    assert_eq!(BASE64.encode(&*signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn the_text_form_goes_both_ways() {
    let keys = derive(ScramHash::Sha1, "secret", b"salt", 4096).expect("a password");
    assert_eq!(keys.text().to_string().parse::<ScramKeys>(), Ok(keys));
    for bad in ["", "{SCRAM-SHA-256}", "{SCRAM-MD5}4096,c2FsdA==,AA==,AA==", "{SCRAM-SHA-1}0,c2FsdA==,AA==,AA==", "secret"] {
        assert!(bad.parse::<ScramKeys>().is_err(), "{bad}");
    }
}

#[test]
fn unknown_users_have_the_same_salt_each_time() {
    let fake = FakeKeys::new([3; 32], 4096);
    assert_eq!(fake.keys(ScramHash::Sha256, "a@b").salt, fake.keys(ScramHash::Sha256, "a@b").salt);
    assert_ne!(fake.keys(ScramHash::Sha256, "a@b").salt, fake.keys(ScramHash::Sha256, "c@b").salt);
    assert!(!check_password(None, &fake, "a@b", ""));
}
