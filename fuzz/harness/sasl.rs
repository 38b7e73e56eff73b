//! What the fuzz target of SASL does with its data: messages of a stranger, who never gets in without the proof. The first line
//! is the first message, the rest the second; both go to every mechanism, with and without TLS. The other way round, a server's
//! messages to our client. `xmpp/tests/sasl_fuzz.rs` runs the same on stable.

use bytes::Bytes;
use xmpp::sasl::{self, ClientId, Exchange, Named, Step, TokenMechanism};
use xmpp::scram::client::{ClientBinding, ScramClient, salted_password};
use xmpp::scram::{FakeKeys, ScramHash, ScramKeys, TlsFacts};

/// Never a panic, never a success.
pub fn sasl(data: &[u8]) {
    let tls = TlsFacts {
        version: 0x0304,
        exporter: Some([3; 32]),
        server_end_point: Some(Bytes::from_static(&[4; 32])),
    };
    let mut parts = data.splitn(2, |&b| b == b'\n');
    let (first, second) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    for (mechanism, tls) in [
        ("PLAIN", None),
        ("EXTERNAL", None),
        ("GSSAPI", None),
        ("SCRAM-SHA-1", None),
        ("SCRAM-SHA-256-PLUS", Some(tls.clone())),
        ("SCRAM-SHA-512", Some(tls.clone())),
    ] {
        let mut exchange = Exchange::new(mechanism, "verona.lit".into(), tls.is_some(), tls);
        match exchange.step(first) {
            Ok(Step::NeedKeys(login, _)) => {
                assert!(!login.name().is_empty() && !login.name().contains('\0'));
                assert_eq!(login.domain(), "verona.lit");
                // Keys taken for genuine: still nobody has the proof.
                let keys = exchange.fake_keys(&FakeKeys::new([1; 32], 4096));
                let named = login.account().map(|account| Named {
                    account,
                    disabled: false,
                });
                exchange.challenge(&keys, named, &mut |out| out.fill(1));
                assert!(exchange.step(second).is_err());
            }
            Ok(Step::NeedPassword(login, password)) => {
                assert!(!login.name().is_empty() && !password.is_empty());
            }
            // No certificate, so nobody.
            Ok(Step::NeedAccounts(all)) => assert!(all.is_empty()),
            Ok(Step::NeedGssapi(ask)) => assert!(ask.state.is_none()),
            Ok(Step::NeedToken(_)) => panic!("a token's mechanism is asked for by its own name"),
            Ok(Step::Success(..)) => panic!("nobody has proved anything"),
            Err(_) => {}
        }
    }
    for mechanism in TokenMechanism::ALL {
        for tls in [None, Some(tls.clone())] {
            let client = ClientId::of("client");
            let mut exchange = Exchange::of_token(mechanism, client, "verona.lit".into(), tls);
            match exchange.step(first) {
                Ok(Step::NeedToken(ask)) => {
                    assert!(!ask.login.name().is_empty() && !ask.login.name().contains('\0'));
                    assert_eq!(ask.login.domain(), "verona.lit");
                    assert_eq!((ask.client, ask.proof.mechanism), (client, mechanism));
                    assert_eq!(ask.proof.verify("a token"), None);
                    assert!(exchange.step(second).is_err());
                }
                Ok(step) => panic!("{step:?} of a token's mechanism"),
                Err(_) => {}
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(message) = sasl::decode(text, sasl::MESSAGE_BYTES_MAX) {
            assert!(message.len() <= sasl::MESSAGE_BYTES_MAX + 3);
        }
        if let Ok(keys) = text.parse::<ScramKeys>() {
            assert_eq!(keys.text().to_string().parse(), Ok(keys));
        }
        let mut client = ScramClient::new(
            ScramHash::Sha1,
            "romeo",
            "secret",
            None,
            ClientBinding::Unsupported,
            "n",
        );
        // One iteration, whatever the server says: the work is not what is tried here.
        let answered = client.handle_challenge_salted(text, |salt, _| {
            Ok(salted_password(ScramHash::Sha1, "secret", salt, 1))
        });
        assert!(answered.is_err() || client.handle_success(text).is_err());
    }
}
