//! SASL messages of a stranger: never a panic, never a success without the proof.
#![no_main]

use libfuzzer_sys::fuzz_target;
use xmpp::sasl::{Exchange, Step};
use xmpp::scram::FakeKeys;

fuzz_target!(|data: &[u8]| {
    for mechanism in ["PLAIN", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "SCRAM-SHA-512"] {
        let mut exchange = Exchange::new(mechanism, "verona.lit".into(), false, None);
        // The first line is the first message, the rest the second.
        let mut parts = data.splitn(2, |&b| b == b'\n');
        let first = parts.next().unwrap_or_default();
        match exchange.step(first) {
            Ok(Step::NeedKeys(..)) => {
                let keys = exchange.fake_keys(&FakeKeys::new([1; 32], 4096));
                exchange.challenge(&keys, false, false, &mut |out| out.fill(1));
                assert!(exchange.step(parts.next().unwrap_or_default()).is_err());
            }
            Ok(Step::NeedPassword(_, password)) => assert!(!password.is_empty()),
            Ok(Step::Success(..)) => panic!("nobody has proved anything"),
            Err(_) => {}
        }
    }
});
