//! Log-in with Kerberos, on the directory workers: each message of an exchange is a look-up, and the state of the exchange
//! travels with the session in between.
//!
//! In: messages of clients, the keytab, the realms of the configuration. Out: challenges, the account.
//! Never: on a shard; tells a client why (the log says it).

use crate::config::GssapiConfig;
use directory::gssapi::{Acceptor, Exchange, Fault, GssapiError, Realms, Turn};
use directory::site::Site;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use xmpp::sasl::{Failure, GssapiAnswer, GssapiAsk, GssapiState, Named};

/// One configuration of it, shared by the workers.
#[derive(Debug)]
pub struct Gssapi {
    acceptor: Arc<dyn Acceptor>,
    realms: Realms,
    /// Said once in the log, and once more when it is over.
    failing: AtomicBool,
}

impl Gssapi {
    /// As configured. `None`: not in this build (which the configuration has been refused for).
    pub fn new(config: &GssapiConfig) -> Option<Arc<Self>> {
        Some(Arc::new(Self {
            acceptor: directory::gssapi::kerberos(&config.keytab)?,
            realms: config.realms.clone(),
            failing: AtomicBool::new(false),
        }))
    }

    /// Handles one message. May block.
    pub fn turn(&self, ask: GssapiAsk, site: &Site) -> GssapiAnswer {
        let exchange = match ask.state {
            Some(state) => state.0.downcast::<Exchange>().map_err(|_| ()),
            None => match self.acceptor.context() {
                Ok(context) => Ok(Box::new(Exchange::new(context))),
                Err(e) => return self.failed(&e),
            },
        };
        let Ok(mut exchange) = exchange else {
            return GssapiAnswer::Failed(Failure::TemporaryAuthFailure);
        };
        let turn = match exchange.turn(&ask.message) {
            Ok(turn) => turn,
            Err(e) => return self.failed(&e),
        };
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("GSSAPI works again");
        }
        match turn {
            Turn::Challenge(challenge) => GssapiAnswer::Challenge(challenge, GssapiState(exchange)),
            Turn::Done { principal, authzid } => self.done(&principal, authzid, &ask.domain, site),
        }
    }

    fn done(&self, principal: &str, authzid: String, domain: &str, site: &Site) -> GssapiAnswer {
        let Some(login) = self.realms.login(principal, domain) else {
            tracing::debug!(
                principal,
                domain,
                "GSSAPI: the principal is nobody of the domain"
            );
            return GssapiAnswer::Failed(Failure::NotAuthorized);
        };
        match site.resolve(&login) {
            Ok(person) => {
                if person.is_none() {
                    tracing::debug!(principal, domain, "GSSAPI: the principal has no account");
                }
                GssapiAnswer::Authenticated {
                    named: person.map(|person| Named {
                        account: person.jid,
                        disabled: person.disabled,
                    }),
                    authzid,
                }
            }
            Err(e) => {
                super::lookups::failed(&e);
                GssapiAnswer::Failed(Failure::TemporaryAuthFailure)
            }
        }
    }

    fn failed(&self, e: &GssapiError) -> GssapiAnswer {
        GssapiAnswer::Failed(match e.fault {
            Fault::Peer => {
                tracing::debug!(error = %e, "GSSAPI: refused");
                Failure::NotAuthorized
            }
            Fault::Expired => {
                tracing::debug!(error = %e, "GSSAPI: a ticket is out of its time, or a clock is wrong");
                Failure::CredentialsExpired
            }
            Fault::Ours => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %e, "GSSAPI does not work: nobody can log in with Kerberos");
                }
                Failure::TemporaryAuthFailure
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use directory::gssapi::{Accepted, Context};
    use std::sync::atomic::AtomicU8;

    /// A Kerberos without tickets: the token is the principal. Its keytab is missing while `faults` says so.
    #[derive(Debug)]
    struct Fake(AtomicU8);

    impl Acceptor for Fake {
        fn context(&self) -> Result<Box<dyn Context>, GssapiError> {
            match self.0.load(Ordering::Relaxed) {
                0 => Ok(Box::new(FakeContext)),
                _ => Err(error(Fault::Ours)),
            }
        }
    }

    struct FakeContext;

    fn error(fault: Fault) -> GssapiError {
        GssapiError {
            fault,
            text: "it is made up".into(),
        }
    }

    impl Context for FakeContext {
        fn accept(&mut self, token: &[u8]) -> Result<Accepted, GssapiError> {
            match token {
                b"" => Err(error(Fault::Peer)),
                b"old" => Err(error(Fault::Expired)),
                _ => Ok(Accepted {
                    token: Vec::new(),
                    initiator: Some(String::from_utf8_lossy(token).into_owned()),
                }),
            }
        }

        fn wrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
            Ok(message.to_vec())
        }

        fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
            Ok(message.to_vec())
        }
    }

    fn gssapi(fault: u8) -> Gssapi {
        let realm = ("VERONA.LIT".to_owned(), "verona.lit".to_owned());
        Gssapi {
            acceptor: Arc::new(Fake(AtomicU8::new(fault))),
            realms: Realms::new([realm]),
            failing: AtomicBool::new(false),
        }
    }

    fn ask(message: &[u8], state: Option<GssapiState>) -> GssapiAsk {
        GssapiAsk {
            domain: "verona.lit".into(),
            message: message.to_vec(),
            state,
        }
    }

    fn failure(answer: GssapiAnswer) -> Option<Failure> {
        match answer {
            GssapiAnswer::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    #[test]
    fn what_the_client_is_told() {
        let site = Site::default();
        let gssapi = gssapi(0);
        for (message, expected) in [
            (&b""[..], Failure::NotAuthorized),
            (b"old", Failure::CredentialsExpired),
        ] {
            assert_eq!(
                failure(gssapi.turn(ask(message, None), &site)),
                Some(expected)
            );
        }
        let end = |gssapi: &Gssapi, principal: &[u8]| match gssapi.turn(ask(principal, None), &site)
        {
            GssapiAnswer::Challenge(offer, state) => {
                assert_eq!(offer, [1, 0, 0, 0]);
                gssapi.turn(ask(&[1, 0, 0, 0], Some(state)), &site)
            }
            other => panic!("{other:?}"),
        };
        for principal in [&b"romeo@EVIL.LIT"[..], b"romeo/admin@VERONA.LIT"] {
            assert_eq!(
                failure(end(&gssapi, principal)),
                Some(Failure::NotAuthorized)
            );
        }
        // No account: the exchange is told so, and answers as to any stranger.
        assert!(matches!(
            end(&gssapi, b"romeo@VERONA.LIT"),
            GssapiAnswer::Authenticated { named: None, .. }
        ));
        let down = self::gssapi(1);
        for _ in 0..2 {
            let answer = down.turn(ask(b"romeo@VERONA.LIT", None), &site);
            assert_eq!(failure(answer), Some(Failure::TemporaryAuthFailure));
        }
    }
}
