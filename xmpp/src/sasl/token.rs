//! Log-in with a token that the server has given out: the mechanisms HT-SHA-256-* (draft-schmaus-kitten-sasl-ht) in the way of
//! XEP-0484. One message each way: the client proves that it has the token, bound to the TLS session, and so does the server.
//!
//! Never: compares in a time that tells how much was right.

use super::{Failure, LoginName};
use crate::scram::{BindingType, ScramHash, TlsFacts};
use sha2::{Digest as _, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Which of them: a token is good for the one it was made for, and no other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TokenMechanism {
    /// Bound by `tls-exporter`.
    Exporter,
    /// Bound by `tls-server-end-point`.
    EndPoint,
    /// Not bound: for clients that know nothing of their TLS, those in browsers.
    Unbound,
}

impl TokenMechanism {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Exporter, Self::EndPoint, Self::Unbound];

    /// The SASL mechanism name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exporter => "HT-SHA-256-EXPR",
            Self::EndPoint => "HT-SHA-256-ENDP",
            Self::Unbound => "HT-SHA-256-NONE",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.name() == name)
    }

    /// What it binds to on this connection. `None`: the connection does not have it.
    pub fn binding(self, tls: Option<&TlsFacts>) -> Option<Vec<u8>> {
        let of = |kind| tls?.binding(kind).map(<[u8]>::to_vec);
        match self {
            Self::Exporter => of(BindingType::TlsExporter),
            Self::EndPoint => of(BindingType::TlsServerEndPoint),
            Self::Unbound => Some(Vec::new()),
        }
    }
}

/// Bytes of the hash that is a client's part of its resource: no two clients of an account get the same by chance.
const RESOURCE_BYTES: usize = 9;

/// One installation of a client, from the id in its `<user-agent/>` (XEP-0388 §2.3): a hash, because the id itself is nobody's
/// business.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub [u8; 16]);

impl ClientId {
    /// Of the id it gives itself: a UUID, whatever its letters' case. Anything else is taken for what it is, COMPAT.
    pub fn of(id: &str) -> Self {
        let digest = Sha256::digest(id.to_ascii_lowercase());
        let mut out = [0; 16];
        out.copy_from_slice(&digest[..16]);
        Self(out)
    }

    /// Its part of a resource: the same every time, another one in another account (XEP-0386 §3.2.1).
    pub fn resource(self, account: &str, tag: Option<&str>) -> String {
        let mut hash = Sha256::new();
        for part in [
            account.as_bytes(),
            &self.0,
            tag.unwrap_or_default().as_bytes(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize()[..RESOURCE_BYTES]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// In hexadecimal digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({})", self.to_hex())
    }
}

/// What a client says to prove that it has a token. `Debug` prints no proof.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenProof {
    /// The mechanism.
    pub mechanism: TokenMechanism,
    binding: Vec<u8>,
    proof: Vec<u8>,
}

impl TokenProof {
    /// The server's proof, if this one is right for the token.
    pub fn verify(&self, token: &str) -> Option<Vec<u8>> {
        let expected = proof(token, b"Initiator", &self.binding);
        let right = bool::from(expected.ct_eq(&self.proof));
        right.then(|| proof(token, b"Responder", &self.binding))
    }
}

impl fmt::Debug for TokenProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenProof({}, ..)", self.mechanism.name())
    }
}

fn proof(token: &str, who: &[u8], binding: &[u8]) -> Vec<u8> {
    let mac = ScramHash::Sha256.hmac(token.as_bytes(), &[who, binding]);
    mac.to_vec()
}

/// A proof to be checked: whose tokens, and of which client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAsk {
    /// The name it logs in with.
    pub login: LoginName,
    /// The client.
    pub client: ClientId,
    /// Its proof.
    pub proof: TokenProof,
}

/// What a client with this token sends: for tests and the load generator.
pub fn initiator_message(authcid: &str, token: &str, binding: &[u8]) -> Vec<u8> {
    let mut out = authcid.as_bytes().to_vec();
    out.push(0);
    out.extend(proof(token, b"Initiator", binding));
    out
}

/// What the server must answer it.
pub fn responder_message(token: &str, binding: &[u8]) -> Vec<u8> {
    proof(token, b"Responder", binding)
}

/// Takes the client's only message apart: `authcid NUL proof`.
///
/// # Errors
/// `malformed-request`; `not-authorized` for a binding that the connection does not have.
pub(super) fn parse(
    mechanism: TokenMechanism,
    tls: Option<&TlsFacts>,
    message: &[u8],
) -> Result<(String, TokenProof), Failure> {
    let nul = message.iter().position(|&b| b == 0);
    let (authcid, rest) = message.split_at(nul.ok_or(Failure::MalformedRequest)?);
    let authcid = std::str::from_utf8(authcid).map_err(|_| Failure::MalformedRequest)?;
    let proof = rest[1..].to_vec();
    if proof.len() != ScramHash::Sha256.output_bytes() {
        return Err(Failure::MalformedRequest);
    }
    let binding = mechanism.binding(tls).ok_or(Failure::NotAuthorized)?;
    let proof = TokenProof {
        mechanism,
        binding,
        proof,
    };
    Ok((authcid.to_owned(), proof))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> TlsFacts {
        TlsFacts {
            version: 0x0304,
            exporter: Some([3; 32]),
            server_end_point: None,
        }
    }

    #[test]
    fn a_proof_is_good_for_its_token_its_mechanism_and_its_connection() {
        let message = initiator_message("romeo", "token", &[3; 32]);
        let (authcid, proof) =
            parse(TokenMechanism::Exporter, Some(&tls()), &message).expect("well formed");
        assert_eq!(authcid, "romeo");
        assert_eq!(
            proof.verify("token"),
            Some(responder_message("token", &[3; 32]))
        );
        assert_eq!(proof.verify("another"), None);
        // Unbound, or on another connection: what is signed is different.
        let (_, unbound) = parse(TokenMechanism::Unbound, Some(&tls()), &message).expect("so too");
        assert_eq!(unbound.verify("token"), None);
        let other = TlsFacts {
            exporter: Some([4; 32]),
            ..tls()
        };
        let (_, moved) = parse(TokenMechanism::Exporter, Some(&other), &message).expect("so too");
        assert_eq!(moved.verify("token"), None);
        // There is no such binding here.
        let none = parse(TokenMechanism::EndPoint, Some(&tls()), &message);
        assert_eq!(none, Err(Failure::NotAuthorized));
    }

    #[test]
    fn messages_that_are_none() {
        for message in [&b""[..], b"romeo", b"romeo\0", b"romeo\0short", b"\xff\0"] {
            let mut long = message.to_vec();
            let parsed = parse(TokenMechanism::Unbound, None, message);
            assert_eq!(parsed, Err(Failure::MalformedRequest), "{message:?}");
            long.extend([7; 64]);
            assert!(parse(TokenMechanism::Unbound, None, &long).is_err());
        }
    }

    #[test]
    fn a_client_is_known_by_a_hash_of_its_id() {
        let id = ClientId::of("D4565FA7-4d72-4749-b3d3-740edbf87770");
        assert_eq!(id, ClientId::of("d4565fa7-4d72-4749-b3d3-740edbf87770"));
        assert_ne!(id, ClientId::of("d4565fa7-4d72-4749-b3d3-740edbf87771"));
        assert!(!id.to_hex().contains("d4565fa7"));
        let resource = id.resource("romeo@verona.lit", Some("Gajim"));
        assert_eq!(resource.len(), 18);
        assert_ne!(resource, id.resource("juliet@verona.lit", Some("Gajim")));
        assert_ne!(resource, id.resource("romeo@verona.lit", None));
    }
}
