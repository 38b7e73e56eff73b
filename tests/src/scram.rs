//! The client's half of SCRAM (RFC 5802, RFC 7677), for tests.
//!
//! Deliberately not the code of `xmpp::scram`: two readings of the RFC must agree, and tests must be
//! able to send what a correct client never would.

use anyhow::{Context as _, Result, bail, ensure};
use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, OnceLock};

/// Hash of a SCRAM mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// SCRAM-SHA-1
    Sha1,
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

impl Hash {
    /// The hash a mechanism name asks for.
    pub fn of_mechanism(name: &str) -> Option<Hash> {
        match name.trim_end_matches("-PLUS") {
            "SCRAM-SHA-1" => Some(Hash::Sha1),
            "SCRAM-SHA-256" => Some(Hash::Sha256),
            "SCRAM-SHA-512" => Some(Hash::Sha512),
            _ => None,
        }
    }

    /// The mechanism's name, without channel binding.
    pub fn mechanism(self) -> &'static str {
        match self {
            Hash::Sha1 => "SCRAM-SHA-1",
            Hash::Sha256 => "SCRAM-SHA-256",
            Hash::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha512 => hmac::HMAC_SHA512,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha512 => &digest::SHA512,
        }
    }

    fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Hash::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Hash::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Hash::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    /// `SaltedPassword`; remembered, because thousands of test accounts may share salt and password.
    pub fn salted_password(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        type Key = (Hash, String, Vec<u8>, u32);
        static KNOWN: OnceLock<Mutex<HashMap<Key, Vec<u8>>>> = OnceLock::new();
        let known = KNOWN.get_or_init(Mutex::default);
        let key = (self, password.to_owned(), salt.to_owned(), iterations);
        if let Some(found) = known.lock().expect("nobody panics with it").get(&key) {
            return found.clone();
        }
        let mut out = vec![0; self.digest().output_len()];
        let rounds = NonZeroU32::new(iterations.max(1)).expect("at least one");
        pbkdf2::derive(self.pbkdf2(), rounds, salt, password.as_bytes(), &mut out);
        known
            .lock()
            .expect("nobody panics with it")
            .insert(key, out.clone());
        out
    }

    /// `HMAC(key, text)`.
    pub fn sign(self, key: &[u8], text: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(self.hmac(), key), text)
            .as_ref()
            .to_vec()
    }

    /// `H(text)`.
    pub fn hash(self, text: &[u8]) -> Vec<u8> {
        digest::digest(self.digest(), text).as_ref().to_vec()
    }
}

/// Secrets of one password as `imadmin user import` takes them. With the same salt for everybody, thousands of
/// clients compute their keys once.
pub fn import_line(jid: &str, password: &str, salt: &[u8], iterations: u32) -> String {
    let keys = |hash| import_keys(hash, password, salt, iterations);
    let (sha256, sha1) = (keys(Hash::Sha256), keys(Hash::Sha1));
    format!("{jid} {sha256} {sha1}")
}

/// Those of one hash, in the place of a password: an account that has been at a server with these alone.
pub fn import_keys(hash: Hash, password: &str, salt: &[u8], iterations: u32) -> String {
    let salted = hash.salted_password(password, salt, iterations);
    let stored_key = hash.hash(&hash.sign(&salted, b"Client Key"));
    let server_key = hash.sign(&salted, b"Server Key");
    let parts = [salt, &stored_key, &server_key].map(|p| BASE64.encode(p));
    format!("{{{}}}{iterations},{}", hash.mechanism(), parts.join(","))
}

/// What the client says about channel binding.
#[derive(Clone, Debug)]
pub enum Binding {
    /// `n`: the client cannot.
    No,
    /// `y`: the client could, and believes the server cannot.
    NotOffered,
    /// `p=NAME` with the data.
    Data(&'static str, Vec<u8>),
}

/// One exchange.
pub struct Exchange {
    hash: Hash,
    gs2: String,
    binding: Vec<u8>,
    first_bare: String,
    nonce: String,
    server_signature: Vec<u8>,
}

impl Exchange {
    /// A new exchange with a random nonce; `authzid` goes into the GS2 header as it is.
    pub fn new(hash: Hash, authcid: &str, authzid: Option<&str>, binding: Binding) -> Exchange {
        let mut random = [0; 18];
        getrandom::fill(&mut random).expect("the system has a random source");
        let nonce = BASE64.encode(random);
        let authzid = authzid.map_or(String::new(), |a| format!("a={}", saslname(a)));
        let (flag, data) = match binding {
            Binding::No => ("n".to_owned(), Vec::new()),
            Binding::NotOffered => ("y".to_owned(), Vec::new()),
            Binding::Data(name, data) => (format!("p={name}"), data),
        };
        Exchange {
            hash,
            gs2: format!("{flag},{authzid},"),
            binding: data,
            first_bare: format!("n={},r={nonce}", saslname(authcid)),
            nonce,
            server_signature: Vec::new(),
        }
    }

    /// client-first-message.
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.first_bare)
    }

    /// client-final-message in answer to server-first-message.
    pub fn last(&mut self, server_first: &str, password: &str) -> Result<String> {
        let field = |name: &str| {
            server_first
                .split(',')
                .find_map(|f| f.strip_prefix(name))
                .with_context(|| format!("no {name} in {server_first}"))
        };
        let nonce = field("r=")?;
        ensure!(
            nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(),
            "the server's nonce does not extend ours: {server_first}"
        );
        let salt = BASE64.decode(field("s=")?)?;
        let iterations: u32 = field("i=")?.parse()?;
        let salted = self.hash.salted_password(password, &salt, iterations);
        let client_key = self.hash.sign(&salted, b"Client Key");
        let server_key = self.hash.sign(&salted, b"Server Key");
        let mut bound = self.gs2.clone().into_bytes();
        bound.extend_from_slice(&self.binding);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(bound));
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let stored_key = self.hash.hash(&client_key);
        let signature = self.hash.sign(&stored_key, auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(signature)
            .map(|(a, b)| a ^ b)
            .collect();
        self.server_signature = self.hash.sign(&server_key, auth_message.as_bytes());
        Ok(format!("{without_proof},p={}", BASE64.encode(proof)))
    }

    /// Checks server-final-message.
    pub fn verify(&self, server_final: &str) -> Result<()> {
        let Some(signature) = server_final.split(',').find_map(|f| f.strip_prefix("v=")) else {
            bail!("no signature in {server_final}");
        };
        constant_time::verify_slices_are_equal(&BASE64.decode(signature)?, &self.server_signature)
            .ok()
            .context("the server's signature is wrong")
    }
}

fn saslname(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_7677_comes_out() {
        let mut exchange = Exchange::new(Hash::Sha256, "user", None, Binding::No);
        exchange.nonce = "rOprNGfwEbeRWgbNEkqO".into();
        exchange.first_bare = "n=user,r=rOprNGfwEbeRWgbNEkqO".into();
        let last = exchange
            .last(
                "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
                "pencil",
            )
            .unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        exchange
            .verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
            .unwrap();
    }
}
