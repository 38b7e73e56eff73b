//! The client's side of one exchange, for tests and the load generator.

use super::{
    BASE64, BindingType, Digest, ITERATIONS_MAX, ITERATIONS_MIN, ScramError, ScramHash, message,
    saslprep,
};
use base64::Engine as _;
use std::fmt;
use subtle::ConstantTimeEq;

/// What a client says about channel binding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientBinding {
    /// `n`: cannot.
    Unsupported,
    /// `y`: could, but the server did not offer it.
    NotOffered,
    /// `p=`: binds, for a mechanism with `-PLUS`.
    Bind(BindingType, Vec<u8>),
}

/// A client's exchange.
///
/// [`first_message`](Self::first_message), then [`handle_challenge`](Self::handle_challenge), then
/// [`handle_success`](Self::handle_success).
#[derive(Clone)]
pub struct ScramClient {
    hash: ScramHash,
    password: String,
    nonce: String,
    gs2_header: String,
    binding_data: Vec<u8>,
    bare: String,
    server_signature: Option<Digest>,
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramClient({}, ..)", self.hash)
    }
}

impl ScramClient {
    /// Starts an exchange. `nonce` is fresh, random, printable ASCII without a comma.
    pub fn new(
        hash: ScramHash,
        username: &str,
        password: &str,
        authzid: Option<&str>,
        binding: ClientBinding,
        nonce: &str,
    ) -> Self {
        let (flag, binding_data) = match binding {
            ClientBinding::Unsupported => ("n".to_owned(), Vec::new()),
            ClientBinding::NotOffered => ("y".to_owned(), Vec::new()),
            ClientBinding::Bind(kind, data) => (format!("p={}", kind.name()), data),
        };
        let authzid = authzid
            .map(|a| format!("a={}", message::escape(a)))
            .unwrap_or_default();
        let username = saslprep(username).map_or_else(|_| username.to_owned(), |u| u.into_owned());
        Self {
            hash,
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            gs2_header: format!("{flag},{authzid},"),
            binding_data,
            bare: format!("n={},r={nonce}", message::escape(&username)),
            server_signature: None,
        }
    }

    /// `client-first-message`.
    pub fn first_message(&self) -> String {
        format!("{}{}", self.gs2_header, self.bare)
    }

    /// Answers `server-first-message` with `client-final-message`. Costs the whole PBKDF2.
    ///
    /// # Errors
    /// [`ScramError`] if the challenge is malformed, its nonce does not start with ours, or the iteration count is
    /// below 4096 or absurd.
    pub fn handle_challenge(&mut self, challenge: &str) -> Result<String, ScramError> {
        let (hash, password) = (self.hash, self.password.clone());
        self.handle_challenge_salted(challenge, |salt, iterations| {
            let password = saslprep(&password).map_err(|_| ScramError::Refused)?;
            Ok(hash.hi(password.as_bytes(), salt, iterations))
        })
    }

    /// As [`handle_challenge`](Self::handle_challenge) with the salted password from `salted(salt, iterations)`, which
    /// may come from a cache: a load generator must not spend its time in PBKDF2. See [`salted_password`].
    ///
    /// # Errors
    /// As above, and what `salted` returns.
    pub fn handle_challenge_salted(
        &mut self,
        challenge: &str,
        salted: impl FnOnce(&[u8], u32) -> Result<Digest, ScramError>,
    ) -> Result<String, ScramError> {
        let first = message::parse_server_first(challenge)?;
        if !first.nonce.starts_with(&self.nonce) || first.nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&first.iterations) {
            return Err(ScramError::Iterations);
        }
        let salt = BASE64
            .decode(first.salt)
            .map_err(|_| ScramError::Malformed("salt"))?;
        let salted = salted(&salt, first.iterations)?;
        let binding = [self.gs2_header.as_bytes(), &self.binding_data].concat();
        let without_proof = format!("c={},r={}", BASE64.encode(binding), first.nonce);
        let auth_message = format!("{},{challenge},{without_proof}", self.bare);
        let client_key = self.hash.hmac(&salted, &[b"Client Key"]);
        let stored_key = self.hash.hash(&client_key);
        let signature = self.hash.hmac(&stored_key, &[auth_message.as_bytes()]);
        let server_key = self.hash.hmac(&salted, &[b"Server Key"]);
        self.server_signature = Some(self.hash.hmac(&server_key, &[auth_message.as_bytes()]));
        Ok(format!(
            "{without_proof},p={}",
            BASE64.encode(&*client_key.xor(&signature))
        ))
    }

    /// Checks `server-final-message`: only the server that has our keys can have made it.
    ///
    /// # Errors
    /// `Refused` on `e=`, `Proof` on a wrong signature, `Malformed`.
    pub fn handle_success(&self, message: &str) -> Result<(), ScramError> {
        if message.starts_with("e=") {
            return Err(ScramError::Refused);
        }
        let verifier = message
            .strip_prefix("v=")
            .ok_or(ScramError::Malformed("verifier"))?;
        let verifier = verifier.split(',').next().unwrap_or("");
        let given = BASE64
            .decode(verifier)
            .map_err(|_| ScramError::Malformed("verifier"))?;
        match &self.server_signature {
            Some(ours) if bool::from(ours.ct_eq(&given)) => Ok(()),
            _ => Err(ScramError::Proof),
        }
    }
}

/// The salted password (RFC 5802 §3), for a cache in front of [`ScramClient::handle_challenge_salted`].
pub fn salted_password(hash: ScramHash, password: &str, salt: &[u8], iterations: u32) -> Digest {
    let prepared = saslprep(password);
    hash.hi(
        prepared.as_deref().unwrap_or(password).as_bytes(),
        salt,
        iterations,
    )
}
