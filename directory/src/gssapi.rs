//! Log-in with a Kerberos ticket: the mechanism GSSAPI (RFC 4752), as the server sees it.
//!
//! ```text
//!   Tokens ──(context complete)──> Established ──(empty message)──> Offered ──(no layer, authzid)──> done
//!      └───────────────────(complete, nothing left to say)──────────────^
//! ```
//! In: messages of the client, and a security context that the Kerberos library keeps. Out: messages, then a principal.
//! Owns: the state of one exchange; it travels with the session between messages.
//! Never: on a shard (accepting a token reads the keytab and the replay cache); a security layer; a principal of a realm that
//! is not configured, or with an instance (`romeo/admin`): that is another identity than `romeo`.

#[cfg(feature = "gssapi")]
mod sys;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use xmpp::sasl::LoginName;

/// Whether this build can speak Kerberos (cargo feature `gssapi`).
pub const BUILT: bool = cfg!(feature = "gssapi");

/// The service of tickets for an XMPP server (RFC 6120 §13.8.1, RFC 4752 §3): `xmpp/HOST@REALM`.
pub const SERVICE: &str = "xmpp";

/// Messages of one exchange until the context stands. Kerberos takes one or two; three with DCE style, which is refused.
const LEGS_MAX: u8 = 4;

/// The only security layer there is: none (RFC 4752 §3.3). TLS is below.
const NO_LAYER: u8 = 1;

/// Whose fault it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A message that no honest client sends, a ticket for somebody else, a replay.
    Peer,
    /// The ticket has expired, or the clocks differ.
    Expired,
    /// The keytab, the replay cache, the library.
    Ours,
}

/// Why a message was not accepted. For the log: nothing of it goes to the client.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct GssapiError {
    /// Whose fault it is.
    pub fault: Fault,
    /// In words of the library.
    pub text: String,
}

impl GssapiError {
    fn peer(text: &str) -> Self {
        Self {
            fault: Fault::Peer,
            text: text.to_owned(),
        }
    }
}

/// What came of a token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// For the client; empty: nothing.
    pub token: Vec<u8>,
    /// The context stands, and this principal is at its other end.
    pub initiator: Option<String>,
}

/// A security context (RFC 2743), or something that stands for it in a test.
pub trait Context: Send {
    /// `GSS_Accept_sec_context`. May block on a disk.
    ///
    /// # Errors
    /// See [`GssapiError`].
    fn accept(&mut self, token: &[u8]) -> Result<Accepted, GssapiError>;
    /// `GSS_Wrap` without confidentiality.
    ///
    /// # Errors
    /// See [`GssapiError`].
    fn wrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError>;
    /// `GSS_Unwrap`.
    ///
    /// # Errors
    /// See [`GssapiError`].
    fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError>;
}

/// Makes contexts.
pub trait Acceptor: Send + Sync + fmt::Debug {
    /// A new one. The keytab is read each time, so that a new one needs no reload.
    ///
    /// # Errors
    /// [`Fault::Ours`].
    fn context(&self) -> Result<Box<dyn Context>, GssapiError>;
}

/// Kerberos with the keys of this file. `None`: not in this build.
pub fn kerberos(keytab: &Path) -> Option<Arc<dyn Acceptor>> {
    #[cfg(feature = "gssapi")]
    return Some(Arc::new(sys::Kerberos::new(keytab)));
    #[cfg(not(feature = "gssapi"))]
    {
        let _ = keytab;
        None
    }
}

enum Stage {
    Tokens { legs: u8 },
    Established(String),
    Offered(String),
    Over,
}

/// One exchange.
pub struct Exchange {
    context: Box<dyn Context>,
    stage: Stage,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

/// What follows a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Send this; the answer comes next.
    Challenge(Vec<u8>),
    /// It is over: who the client is, and whom it wants to act as (may be empty).
    Done {
        /// As the library shows it.
        principal: String,
        /// An XMPP address.
        authzid: String,
    },
}

impl Exchange {
    /// With a new context.
    pub fn new(context: Box<dyn Context>) -> Self {
        Self {
            context,
            stage: Stage::Tokens { legs: 0 },
        }
    }

    /// Handles a message of the client. After an error the exchange is over.
    ///
    /// # Errors
    /// See [`GssapiError`].
    pub fn turn(&mut self, message: &[u8]) -> Result<Turn, GssapiError> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Tokens { legs } if legs < LEGS_MAX => self.token(legs, message),
            Stage::Established(principal) if message.is_empty() => self.offer(principal),
            Stage::Offered(principal) => self.chosen(principal, message),
            Stage::Tokens { .. } => Err(GssapiError::peer("the exchange comes to no end")),
            Stage::Established(_) => Err(GssapiError::peer("an empty message was to come")),
            Stage::Over => Err(GssapiError::peer("the exchange is over")),
        }
    }

    fn token(&mut self, legs: u8, message: &[u8]) -> Result<Turn, GssapiError> {
        let accepted = self.context.accept(message)?;
        match accepted.initiator {
            None => self.stage = Stage::Tokens { legs: legs + 1 },
            Some(principal) if accepted.token.is_empty() => return self.offer(principal),
            Some(principal) => self.stage = Stage::Established(principal),
        }
        Ok(Turn::Challenge(accepted.token))
    }

    /// RFC 4752 §3.2: the layers offered, and the largest message, which without a layer is 0.
    fn offer(&mut self, principal: String) -> Result<Turn, GssapiError> {
        let offer = self.context.wrap(&[NO_LAYER, 0, 0, 0])?;
        self.stage = Stage::Offered(principal);
        Ok(Turn::Challenge(offer))
    }

    /// RFC 4752 §3.1: the layer chosen, a size that says nothing without a layer, the authorization identity.
    fn chosen(&mut self, principal: String, message: &[u8]) -> Result<Turn, GssapiError> {
        let plain = self.context.unwrap(message)?;
        let Some((&[layer, _, _, _], authzid)) = plain.split_first_chunk::<4>() else {
            return Err(GssapiError::peer("the choice of a layer is too short"));
        };
        if layer != NO_LAYER {
            return Err(GssapiError::peer("a security layer that was not offered"));
        }
        let authzid = String::from_utf8(authzid.to_vec())
            .ok()
            .filter(|text| !text.contains('\0'))
            .ok_or_else(|| GssapiError::peer("the authorization identity is no text"))?;
        Ok(Turn::Done { principal, authzid })
    }
}

/// Which realm's principals are people of which domain.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Realms(BTreeMap<String, String>);

impl Realms {
    /// Realm to domain. Case matters in realms.
    pub fn new(realms: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(realms.into_iter().collect())
    }

    /// What somebody with this principal would log in with on a stream of `domain`. `None`: nobody there.
    pub fn login(&self, principal: &str, domain: &str) -> Option<LoginName> {
        // The library writes `\` before what is part of a name though it looks like a separator, and for control characters.
        if principal.contains(['\\', '\0']) {
            return None;
        }
        let (name, realm) = principal.split_once('@')?;
        if name.contains('/') || realm.contains('@') || self.0.get(realm)? != domain {
            return None;
        }
        LoginName::new(name, domain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens are text: `more` wants another, `done` completes with a token, `last` without. Wrapped is `<...>`.
    struct Fake;

    impl Context for Fake {
        fn accept(&mut self, token: &[u8]) -> Result<Accepted, GssapiError> {
            let accepted = |token: &str, initiator: Option<&str>| {
                Ok(Accepted {
                    token: token.into(),
                    initiator: initiator.map(str::to_owned),
                })
            };
            match token {
                b"more" => accepted("go on", None),
                b"done" => accepted("mutual", Some("romeo@VERONA.LIT")),
                b"last" => accepted("", Some("romeo@VERONA.LIT")),
                _ => Err(GssapiError::peer("defective token")),
            }
        }

        fn wrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
            Ok([b"<", message, b">"].concat())
        }

        fn unwrap(&mut self, message: &[u8]) -> Result<Vec<u8>, GssapiError> {
            let inner = message
                .strip_prefix(b"<")
                .and_then(|m| m.strip_suffix(b">"));
            inner
                .map(<[u8]>::to_vec)
                .ok_or_else(|| GssapiError::peer("bad signature"))
        }
    }

    const OFFER: &[u8] = b"<\x01\0\0\0>";

    /// Messages with what each is answered; at the end who it is, or what is wrong.
    type Row<'a> = (
        Vec<(&'a [u8], &'a [u8])>,
        &'a [u8],
        Result<&'a str, &'a str>,
    );

    #[test]
    fn exchanges_and_their_ends() {
        let rows: Vec<Row<'_>> = vec![
            (vec![(b"last", OFFER)], b"<\x01\0\0\0>", Ok("")),
            (
                vec![(b"done", b"mutual"), (b"", OFFER)],
                b"<\x01\0\0\0romeo@verona.lit>",
                Ok("romeo@verona.lit"),
            ),
            (
                vec![(b"more", b"go on"), (b"more", b"go on"), (b"last", OFFER)],
                b"<\x01\0\0\0>",
                Ok(""),
            ),
            // A size without a layer says nothing.
            (vec![(b"last", OFFER)], b"<\x01\x01\0\0>", Ok("")),
            (
                vec![(b"last", OFFER)],
                b"<\x02\0\0\0>",
                Err("layer that was not offered"),
            ),
            (
                vec![(b"last", OFFER)],
                b"<\x03\0\0\0>",
                Err("layer that was not offered"),
            ),
            (
                vec![(b"last", OFFER)],
                b"<\x04\0\x10\0a>",
                Err("layer that was not offered"),
            ),
            (vec![(b"last", OFFER)], b"<\x01\0\0>", Err("too short")),
            (vec![(b"last", OFFER)], b"<>", Err("too short")),
            (vec![(b"last", OFFER)], b"\x01\0\0\0", Err("bad signature")),
            (vec![(b"last", OFFER)], b"", Err("bad signature")),
            (vec![(b"last", OFFER)], b"<\x01\0\0\0a\0b>", Err("no text")),
            (vec![(b"last", OFFER)], b"<\x01\0\0\0\xff>", Err("no text")),
            (
                vec![(b"done", b"mutual")],
                b"<\x01\0\0\0>",
                Err("empty message"),
            ),
            (vec![], b"", Err("defective")),
            (vec![], b"x", Err("defective")),
            (
                vec![(b"more", b"go on"); LEGS_MAX.into()],
                b"more",
                Err("no end"),
            ),
        ];
        for (messages, last, expected) in rows {
            let mut exchange = Exchange::new(Box::new(Fake));
            for (message, answer) in &messages {
                assert_eq!(exchange.turn(message), Ok(Turn::Challenge(answer.to_vec())));
            }
            let end = exchange.turn(last);
            match expected {
                Ok(authzid) => assert_eq!(
                    end,
                    Ok(Turn::Done {
                        principal: "romeo@VERONA.LIT".into(),
                        authzid: authzid.into()
                    })
                ),
                Err(text) => {
                    let error = end.expect_err(text);
                    assert!(error.text.contains(text), "{messages:?} {last:?}: {error}");
                    assert_eq!(error.fault, Fault::Peer);
                }
            }
            assert!(exchange.turn(b"last").is_err(), "it is over");
        }
    }

    #[test]
    fn principals_and_whose_they_are() {
        let realms = Realms::new([
            ("VERONA.LIT".to_owned(), "verona.lit".to_owned()),
            ("MANTUA.LIT".to_owned(), "mantua.lit".to_owned()),
        ]);
        for (principal, domain, name) in [
            ("romeo@VERONA.LIT", "verona.lit", Some("romeo")),
            ("Romeo@VERONA.LIT", "verona.lit", Some("Romeo")),
            ("romeo@MANTUA.LIT", "mantua.lit", Some("romeo")),
            ("romeo@MANTUA.LIT", "verona.lit", None),
            ("romeo@verona.lit", "verona.lit", None),
            ("romeo@EVIL.LIT", "verona.lit", None),
            ("romeo/admin@VERONA.LIT", "verona.lit", None),
            ("xmpp/server.verona.lit@VERONA.LIT", "verona.lit", None),
            ("romeo\\@VERONA.LIT@EVIL.LIT", "verona.lit", None),
            ("romeo\\/admin@VERONA.LIT", "verona.lit", None),
            ("romeo\\0@VERONA.LIT", "verona.lit", None),
            ("romeo@VERONA.LIT@VERONA.LIT", "verona.lit", None),
            ("@VERONA.LIT", "verona.lit", None),
            ("romeo", "verona.lit", None),
            ("", "verona.lit", None),
        ] {
            let login = realms.login(principal, domain);
            assert_eq!(login.as_ref().map(LoginName::name), name, "{principal}");
            assert!(login.is_none_or(|l| l.domain() == domain));
        }
    }
}
