//! What a server keeps of a password: derivation, text form, and the keys it shows for users who do not exist.

use super::{BASE64, PrepError, ScramHash, saslprep};
use base64::Engine as _;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;

/// Bytes of salt for new keys. 16 random bytes never repeat in practice.
pub const SALT_BYTES: usize = 16;

/// Iterations for new keys: what XEP-0438 asks for; about 1.2 ms of work per password check (SHA-256).
pub const ITERATIONS_DEFAULT: u32 = 10_000;

/// Least iteration count accepted in imported keys: RFC 5802 §5.1, RFC 7677 §4.
pub const ITERATIONS_MIN: u32 = 4_096;

/// Largest iteration count accepted: every PLAIN log-in costs this, about 120 ms with SHA-256.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// Salt bytes accepted in imported keys.
const SALT_BYTES_MAX: usize = 255;

/// All a server needs to check a password by SCRAM, and less than the password (RFC 5802 §3).
///
/// `stored_key` and `server_key` are as long as the hash's output. Not printed by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The hash they are for.
    pub hash: ScramHash,
    /// Salt, shown to whoever asks.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// `H(ClientKey)`: checks a client's proof.
    pub stored_key: Vec<u8>,
    /// Signs the server's answer.
    pub server_key: Vec<u8>,
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ScramKeys({}, {} iterations, ..)",
            self.hash, self.iterations
        )
    }
}

/// Derives the keys of a password: PBKDF2, so milliseconds of work; not on a shard.
///
/// # Errors
/// [`PrepError`] if the password is empty or holds characters SASLprep (RFC 4013) prohibits.
pub fn derive(
    hash: ScramHash,
    password: &str,
    salt: &[u8],
    iterations: u32,
) -> Result<ScramKeys, PrepError> {
    let password = saslprep(password)?;
    let salted = hash.hi(password.as_bytes(), salt, iterations);
    Ok(of_salted(hash, &salted, salt, iterations))
}

fn of_salted(hash: ScramHash, salted: &[u8], salt: &[u8], iterations: u32) -> ScramKeys {
    let client_key = hash.hmac(salted, &[b"Client Key"]);
    ScramKeys {
        hash,
        salt: salt.to_vec(),
        iterations,
        stored_key: hash.hash(&client_key).to_vec(),
        server_key: hash.hmac(salted, &[b"Server Key"]).to_vec(),
    }
}

impl ScramKeys {
    /// The keys of a `SaltedPassword` (RFC 5802 §3) that somebody else has made of a password. `None`: this is none of the hash.
    pub fn of_salted(hash: ScramHash, salted: &[u8], salt: &[u8], iterations: u32) -> Option<Self> {
        let fits = salted.len() == hash.output_bytes();
        fits.then(|| of_salted(hash, salted, salt, iterations))
    }

    /// True if `password` is the one these keys are of. PBKDF2: not on a shard. A password that cannot be prepared is
    /// wrong. Prefer [`check_password`], which costs the same for users who do not exist.
    pub fn matches(&self, password: &str) -> bool {
        // Also for a text that cannot be prepared the work is done, so that time tells nothing of the account.
        let (derived, usable) = match derive(self.hash, password, &self.salt, self.iterations) {
            Ok(derived) => (derived, true),
            Err(_) => match derive(self.hash, "-", &self.salt, self.iterations) {
                Ok(derived) => (derived, false),
                Err(_) => return false,
            },
        };
        bool::from(derived.stored_key.ct_eq(&self.stored_key)) & usable
    }
}

/// Checks a PLAIN password against the keys of an account, or against nothing at the same cost (`keys` is `None`: no
/// such account). PBKDF2: not on a shard.
pub fn check_password(
    keys: Option<&ScramKeys>,
    fake: &FakeKeys,
    user: &str,
    password: &str,
) -> bool {
    match keys {
        Some(keys) => keys.matches(password),
        None => {
            fake.keys(ScramHash::Sha256, user).matches(password);
            false
        }
    }
}

/// Makes keys for users who do not exist: the same name gets the same salt each time, from a secret of the server, so
/// that asking twice tells nothing (RFC 5802 §9, BAD_INPUTS 23).
#[derive(Clone)]
pub struct FakeKeys {
    secret: [u8; 32],
    iterations: u32,
}

impl fmt::Debug for FakeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeKeys({} iterations, ..)", self.iterations)
    }
}

impl FakeKeys {
    /// `secret` is random and kept with the store: were it new at each start, a salt that changed would tell that
    /// nobody has that name. `iterations` is the count new accounts get.
    pub fn new(secret: [u8; 32], iterations: u32) -> Self {
        Self { secret, iterations }
    }

    /// Iterations of keys that are made now.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// Keys for a name (a prepared bare JID) that no password fits.
    pub fn keys(&self, hash: ScramHash, user: &str) -> ScramKeys {
        let part = |label: &str| {
            ScramHash::Sha512.hmac(
                &self.secret,
                &[
                    label.as_bytes(),
                    b"\0",
                    hash.mechanism().as_bytes(),
                    b"\0",
                    user.as_bytes(),
                ],
            )
        };
        ScramKeys {
            hash,
            salt: part("salt")[..SALT_BYTES].to_vec(),
            iterations: self.iterations,
            stored_key: part("stored")[..hash.output_bytes()].to_vec(),
            server_key: part("server")[..hash.output_bytes()].to_vec(),
        }
    }
}

/// What is wrong with keys in text form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum KeysFormatError {
    /// Neither `{SCRAM-SHA-..}` nor `SCRAM-SHA-..$` in front.
    #[error("not SCRAM keys: expected {{SCRAM-SHA-256}}iterations,salt,stored key,server key")]
    Form,
    /// A SCRAM mechanism we do not have.
    #[error("unknown SCRAM mechanism: SCRAM-SHA-1, SCRAM-SHA-256 and SCRAM-SHA-512 are known")]
    Mechanism,
    /// Not a number, or out of bounds.
    #[error("iteration count is not a number from {ITERATIONS_MIN} to {ITERATIONS_MAX}")]
    Iterations,
    /// Not base64, or a wrong length.
    #[error("salt is not 1 to {SALT_BYTES_MAX} bytes in base64")]
    Salt,
    /// Not base64, or not as long as the hash's output.
    #[error("stored key or server key is not base64 of the right length")]
    Key,
}

/// `{SCRAM-SHA-256}iterations,salt,stored key,server key`, the last three in base64.
impl fmt::Display for ScramKeysText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ScramKeysText(keys) = self;
        write!(
            f,
            "{{{}}}{},{},{},{}",
            keys.hash,
            keys.iterations,
            BASE64.encode(&keys.salt),
            BASE64.encode(&keys.stored_key),
            BASE64.encode(&keys.server_key)
        )
    }
}

/// Keys on their way into a text; a type of its own, so that nothing prints them by accident.
pub struct ScramKeysText<'a>(&'a ScramKeys);

impl ScramKeys {
    /// The text form, for export: `{SCRAM-SHA-256}iterations,salt,stored key,server key`.
    pub fn text(&self) -> ScramKeysText<'_> {
        ScramKeysText(self)
    }
}

/// Reads [`ScramKeys::text`] and PostgreSQL's `SCRAM-SHA-256$iterations:salt$stored key:server key`.
impl FromStr for ScramKeys {
    type Err = KeysFormatError;

    fn from_str(text: &str) -> Result<Self, KeysFormatError> {
        use KeysFormatError as E;
        let text = text.trim();
        let (mechanism, parts) = if let Some(rest) = text.strip_prefix('{') {
            let (mechanism, rest) = rest.split_once('}').ok_or(E::Form)?;
            let mut parts = rest.split(',');
            let four = [parts.next(), parts.next(), parts.next(), parts.next()];
            if parts.next().is_some() {
                return Err(E::Form);
            }
            (mechanism, four)
        } else {
            let (mechanism, rest) = text.split_once('$').ok_or(E::Form)?;
            let (front, back) = rest.split_once('$').ok_or(E::Form)?;
            let (iterations, salt) = front.split_once(':').ok_or(E::Form)?;
            let (stored, server) = back.split_once(':').ok_or(E::Form)?;
            (
                mechanism,
                [Some(iterations), Some(salt), Some(stored), Some(server)],
            )
        };
        let [Some(iterations), Some(salt), Some(stored), Some(server)] = parts else {
            return Err(E::Form);
        };
        let hash =
            ScramHash::from_mechanism(mechanism).ok_or(if mechanism.starts_with("SCRAM-") {
                E::Mechanism
            } else {
                E::Form
            })?;
        let iterations = iterations
            .parse::<u32>()
            .ok()
            .filter(|count| (ITERATIONS_MIN..=ITERATIONS_MAX).contains(count))
            .ok_or(E::Iterations)?;
        let salt = BASE64
            .decode(salt)
            .ok()
            .filter(|salt| (1..=SALT_BYTES_MAX).contains(&salt.len()))
            .ok_or(E::Salt)?;
        let key = |text: &str| {
            BASE64
                .decode(text)
                .ok()
                .filter(|key| key.len() == hash.output_bytes())
                .ok_or(E::Key)
        };
        Ok(Self {
            hash,
            salt,
            iterations,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}
