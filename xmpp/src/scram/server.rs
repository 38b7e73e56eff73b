//! The server's side of one exchange.
//!
//! ```text
//! ClientFirst::parse ──(keys looked up)──> challenge ──> ScramServer ──finish──> server-final | error
//! ```
//!
//! In: the client's messages, the account's keys, random bytes. Out: the server's messages.
//! Owns: the state of one exchange, about 300 bytes.
//! Never: tells an unknown user from a wrong password.

use super::message::{self, BindingFlag};
use super::{
    BASE64, BindingType, NONCE_RANDOM_BYTES, ScramError, ScramHash, ScramKeys, TlsFacts, saslprep,
};
use base64::Engine as _;
use std::fmt;
use subtle::ConstantTimeEq;

/// The client's first message, checked.
#[derive(Clone)]
pub struct ClientFirst {
    hash: ScramHash,
    username: String,
    authzid: Option<String>,
    /// `client-first-message-bare`.
    bare: String,
    nonce_len: usize,
    /// Offset of the nonce in `bare`.
    nonce_at: usize,
    /// What `c=` must decode to: the GS2 header, then the binding data.
    binding_input: Vec<u8>,
    /// Base64 of the hash of what it was offered (XEP-0474); empty: it is not told.
    offer_hash: String,
}

impl fmt::Debug for ClientFirst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientFirst({}, {:?})", self.hash, self.username)
    }
}

impl ClientFirst {
    /// Parses and checks `client-first-message`.
    ///
    /// `plus`: the mechanism chosen ends in `-PLUS`. `plus_offered`: our offer held one such mechanism. `tls`: the
    /// connection's TLS session, if it has one.
    ///
    /// # Errors
    /// [`ScramError`]: syntax, a name that cannot be prepared, or a channel binding flag that cannot be right
    /// (RFC 5802 §6).
    pub fn parse(
        hash: ScramHash,
        plus: bool,
        plus_offered: bool,
        tls: Option<&TlsFacts>,
        message: &[u8],
    ) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let first = message::parse_client_first(text)?;
        let binding = match first.flag {
            BindingFlag::Unsupported | BindingFlag::NotOffered if plus => {
                return Err(ScramError::BindingFlag);
            }
            BindingFlag::Required(_) if !plus => return Err(ScramError::BindingFlag),
            BindingFlag::NotOffered if plus_offered => return Err(ScramError::Downgrade),
            BindingFlag::Unsupported | BindingFlag::NotOffered => &[],
            BindingFlag::Required(name) => BindingType::from_name(name)
                .and_then(|kind| tls?.binding(kind))
                .ok_or(ScramError::BindingType)?,
        };
        let username = saslprep(&first.username)
            .map_err(|_| ScramError::BadUsername)?
            .into_owned();
        let nonce_at = first.nonce.as_ptr() as usize - first.bare.as_ptr() as usize;
        Ok(Self {
            hash,
            username,
            authzid: first.authzid.map(|authzid| authzid.into_owned()),
            nonce_at,
            nonce_len: first.nonce.len(),
            bare: first.bare.to_owned(),
            binding_input: [first.gs2_header.as_bytes(), binding].concat(),
            offer_hash: String::new(),
        })
    }

    /// The client was offered this, written as XEP-0474 §4.1 says: it is told the hash, and its proof covers that.
    pub fn offered(mut self, offer: &str) -> Self {
        self.offer_hash = BASE64.encode(&*self.hash.hash(offer.as_bytes()));
        self
    }

    /// Hash of the mechanism.
    pub fn hash(&self) -> ScramHash {
        self.hash
    }

    /// The authentication identity, prepared by SASLprep.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The identity the client wants to act as, if it said one.
    pub fn authzid(&self) -> Option<&str> {
        self.authzid.as_deref()
    }

    /// Answers with `server-first-message`. `genuine` is false if the keys are [`super::FakeKeys`] (or the account may
    /// not log in): then no proof will do, at the same cost. `random` fills a slice from the OS generator.
    pub fn challenge(
        self,
        keys: &ScramKeys,
        genuine: bool,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> (ScramServer, String) {
        let mut bytes = [0; NONCE_RANDOM_BYTES];
        random(&mut bytes);
        // A multiple of 3 bytes: no padding. Base64 has no comma.
        self.challenge_with_nonce(keys, genuine, &BASE64.encode(bytes))
    }

    /// `ours` is the server's half of the nonce.
    pub(super) fn challenge_with_nonce(
        self,
        keys: &ScramKeys,
        genuine: bool,
        ours: &str,
    ) -> (ScramServer, String) {
        let nonce = format!(
            "{}{ours}",
            &self.bare[self.nonce_at..self.nonce_at + self.nonce_len]
        );
        let mut server_first = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&keys.salt),
            keys.iterations
        );
        if !self.offer_hash.is_empty() {
            server_first.push_str(",h=");
            server_first.push_str(&self.offer_hash);
        }
        let server = ScramServer {
            hash: self.hash,
            genuine,
            nonce,
            binding_input: self.binding_input,
            auth_message: format!("{},{server_first},", self.bare),
            stored_key: keys.stored_key.clone(),
            server_key: keys.server_key.clone(),
        };
        (server, server_first)
    }
}

/// An exchange that waits for the client's proof.
#[derive(Clone)]
pub struct ScramServer {
    hash: ScramHash,
    genuine: bool,
    /// The client's and ours.
    nonce: String,
    binding_input: Vec<u8>,
    /// `client-first-message-bare "," server-first-message ","`.
    auth_message: String,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl fmt::Debug for ScramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramServer({}, ..)", self.hash)
    }
}

impl ScramServer {
    /// Checks `client-final-message`; if the proof is right, returns `server-final-message`.
    ///
    /// # Errors
    /// [`ScramError`]; `Proof` also for every user who does not exist.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let text = std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))?;
        let last = message::parse_client_final(text)?;
        let binding = BASE64
            .decode(last.binding)
            .map_err(|_| ScramError::Malformed("channel binding"))?;
        let proof = BASE64
            .decode(last.proof)
            .map_err(|_| ScramError::Malformed("proof"))?;
        if proof.len() != self.hash.output_bytes() {
            return Err(ScramError::Malformed("proof"));
        }
        if !bool::from(last.nonce.as_bytes().ct_eq(self.nonce.as_bytes())) {
            return Err(ScramError::Nonce);
        }
        if !bool::from(binding.ct_eq(&self.binding_input)) {
            return Err(ScramError::BindingMismatch);
        }
        let auth_message = [self.auth_message.as_bytes(), last.without_proof.as_bytes()];
        let client_signature = self.hash.hmac(&self.stored_key, &auth_message);
        let client_key = client_signature.xor(&proof);
        let right = self.hash.hash(&client_key).ct_eq(&self.stored_key);
        let server_signature = self.hash.hmac(&self.server_key, &auth_message);
        if bool::from(right) & self.genuine {
            Ok(format!("v={}", BASE64.encode(&*server_signature)))
        } else {
            Err(ScramError::Proof)
        }
    }
}
