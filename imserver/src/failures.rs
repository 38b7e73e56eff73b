//! Failed log-ins in the log: a line each, as long as there are not too many in a minute; then how many more there were.
//!
//! In: the time, an address, what has failed. Out: lines of the log. Owns: the addresses of this minute's lines.
//! Never: logs a password, or a stranger's text as it came; lets strangers fill the log; says which accounts exist.

use std::net::IpAddr;
use xmpp::component;
use xmpp::negotiation::{FailedLogin, LoginFailure};
use xmpp::sasl::Failure;

/// What is counted together.
const WINDOW_MS: u64 = 60_000;
/// Characters of a name that are logged: nearly every address is shorter.
const NAME_CHARS_MAX: usize = 100;

/// The log of one shard. See the module.
#[derive(Debug, Default)]
pub struct Failures {
    since_ms: u64,
    logged: Vec<IpAddr>,
    more: u64,
}

impl Failures {
    /// Logs one, if there is room for it: of `lines_max` in a minute one address has half.
    pub fn log(&mut self, now_ms: u64, lines_max: usize, peer: IpAddr, failed: &FailedLogin) {
        if !self.admit(now_ms, lines_max, peer) {
            return;
        }
        let account = failed.name.as_deref().map(shown);
        tracing::info!(
            address = %peer.to_canonical(),
            account = %account.as_deref().unwrap_or("-"),
            mechanism = %shown(&failed.mechanism),
            why = reason(&failed.mechanism, failed.why),
            "log-in failed"
        );
    }

    /// Says how many were not logged, when their minute is over.
    pub fn tick(&mut self, now_ms: u64) {
        if let Some((more, seconds)) = self.summary(now_ms) {
            tracing::info!("{more} more log-in failures in the last {seconds} s");
        }
    }

    fn admit(&mut self, now_ms: u64, lines_max: usize, peer: IpAddr) -> bool {
        self.tick(now_ms);
        if self.logged.is_empty() && self.more == 0 {
            self.since_ms = now_ms;
        }
        let of_it = self.logged.iter().filter(|a| **a == peer).count();
        if self.logged.len() >= lines_max || of_it >= lines_max.div_ceil(2) {
            self.more += 1;
            return false;
        }
        self.logged.push(peer);
        true
    }

    /// The end of a minute: how many were not logged, if any, and in how many seconds.
    fn summary(&mut self, now_ms: u64) -> Option<(u64, u64)> {
        let passed = now_ms.saturating_sub(self.since_ms);
        if passed < WINDOW_MS {
            return None;
        }
        self.logged.clear();
        let more = std::mem::take(&mut self.more);
        (more > 0).then_some((more, passed / 1_000))
    }
}

/// A stranger's text on one line, visible, and not at any length.
fn shown(text: &str) -> String {
    match text.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// In general terms: who reads the log is not told either whether an account exists.
fn reason(mechanism: &str, why: LoginFailure) -> &'static str {
    match why {
        LoginFailure::Sasl(Failure::NotAuthorized) if mechanism == component::MECHANISM => {
            "wrong secret, or no such component"
        }
        LoginFailure::NotServed => "the domain is not served",
        LoginFailure::Refused => "the policy does not allow it, or not by this mux",
        LoginFailure::Sasl(failure) => match failure {
            Failure::NotAuthorized => "wrong password, or no such account",
            Failure::AccountDisabled => "the account is disabled",
            Failure::CredentialsExpired => "the password or the ticket has expired",
            Failure::TemporaryAuthFailure => "a directory does not answer",
            Failure::InvalidAuthzid => "the client wants to be somebody else",
            Failure::InvalidMechanism => "the mechanism is not offered",
            Failure::EncryptionRequired => "without TLS",
            Failure::Aborted => "given up by the client",
            Failure::IncorrectEncoding | Failure::MalformedRequest => {
                "the client's message is malformed"
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(failures: &mut Failures, now_ms: u64, times: usize, peer: &str) -> usize {
        let peer = peer.parse().expect("an address");
        let mut one = || failures.admit(now_ms, 10, peer);
        (0..times).filter(|_| one()).count()
    }

    #[test]
    fn so_many_in_a_minute_and_half_of_them_of_one_address() {
        let mut failures = Failures::default();
        assert_eq!(admitted(&mut failures, 1_000_000, 1_000, "192.0.2.1"), 5);
        assert_eq!(admitted(&mut failures, 1_000_000, 4, "192.0.2.2"), 4);
        assert_eq!(admitted(&mut failures, 1_030_000, 4, "192.0.2.3"), 1);
        assert_eq!(failures.summary(1_059_999), None);
        assert_eq!(failures.summary(1_061_000), Some((998, 61)));
        assert_eq!(failures.summary(1_200_000), None, "said once");
        assert_eq!(admitted(&mut failures, 1_300_000, 6, "192.0.2.1"), 5);
        assert_eq!(failures.summary(1_359_999), None);
        assert_eq!(failures.summary(1_360_000), Some((1, 60)));
    }

    #[test]
    fn a_strangers_text_stays_on_its_line_and_short() {
        assert_eq!(shown("romeo@verona.lit"), "\"romeo@verona.lit\"");
        assert_eq!(shown("a\nb\u{1b}[1m\u{202e}"), r#""a\nb\u{1b}[1m\u{202e}""#);
        assert!(shown(&"\u{fc}".repeat(1_000)).len() < 3 * NAME_CHARS_MAX);
    }

    #[test]
    fn an_unknown_account_reads_like_a_wrong_password() {
        let sasl = |failure| reason("PLAIN", LoginFailure::Sasl(failure));
        assert_eq!(
            sasl(Failure::NotAuthorized),
            "wrong password, or no such account"
        );
        assert_ne!(sasl(Failure::AccountDisabled), sasl(Failure::NotAuthorized));
        assert_ne!(
            reason("", LoginFailure::Refused),
            reason("", LoginFailure::NotServed)
        );
        let of_component = LoginFailure::Sasl(Failure::NotAuthorized);
        assert_eq!(
            reason(component::MECHANISM, of_component),
            "wrong secret, or no such component"
        );
    }
}
