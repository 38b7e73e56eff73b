//! SCRAM (RFC 5802, RFC 7677) with channel binding (RFC 5929, RFC 9266), sans-I/O.
//!
//! - `keys`: what a server keeps of a password, how it is derived, its text form, and the keys of users who do not exist.
//! - `message`: the attributes of the four messages, parsed exactly.
//! - `server`: `ClientFirst` → `ScramServer` → done.
//! - `client`: the other end, for tests and the load generator.
//!
//! In: SCRAM messages (already out of base64), keys, nonces. Out: SCRAM messages, verdicts.
//! Owns: nothing beyond one exchange.
//! Never: draws randomness, looks an account up, prints a secret.

pub mod client;
mod keys;
mod message;
mod prep;
mod server;

#[cfg(test)]
mod tests;

pub use keys::{
    FakeKeys, ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, KeysFormatError, SALT_BYTES,
    ScramKeys, check_password, derive,
};
pub use prep::{PrepError, saslprep};
pub use server::{ClientFirst, ScramServer};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;

/// Longest nonce accepted from a peer, in bytes. Libraries send 16 to 64; RFC 5802 names no limit.
pub const NONCE_BYTES_MAX: usize = 512;

/// Random bytes a server puts into its half of the nonce. 18 bytes are 24 base64 characters without padding, 144 bits.
pub const NONCE_RANDOM_BYTES: usize = 18;

/// A hash function SCRAM is used with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ScramHash {
    /// SCRAM-SHA-1 (RFC 5802).
    Sha1,
    /// SCRAM-SHA-256 (RFC 7677).
    Sha256,
    /// SCRAM-SHA-512 (draft-melnikov-scram-sha-512, as deployed).
    Sha512,
}

impl ScramHash {
    /// All of them, the strongest first: the order mechanisms are offered in.
    pub const ALL: [Self; 3] = [Self::Sha512, Self::Sha256, Self::Sha1];

    /// Those that an account without their keys is to be given some of (XEP-0480), the strongest first. Keys that are cheaper to attack
    /// than those that are there are no upgrade.
    pub const UPGRADES: [Self; 2] = [Self::Sha512, Self::Sha256];

    /// The SASL mechanism name without `-PLUS`.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// The hash of a SASL mechanism name without `-PLUS`.
    pub fn from_mechanism(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.mechanism() == name)
    }

    /// Length of its output in bytes.
    pub fn output_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    pub(crate) fn hash(self, data: &[u8]) -> Digest {
        match self {
            Self::Sha1 => Digest::new(&Sha1::digest(data)),
            Self::Sha256 => Digest::new(&Sha256::digest(data)),
            Self::Sha512 => Digest::new(&Sha512::digest(data)),
        }
    }

    /// HMAC over the parts one after another.
    pub(crate) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        fn mac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
            let mut mac =
                <M as KeyInit>::new_from_slice(key).expect("HMAC takes a key of any length");
            for part in parts {
                mac.update(part);
            }
            Digest::new(&mac.finalize().into_bytes())
        }
        match self {
            Self::Sha1 => mac::<Hmac<Sha1>>(key, parts),
            Self::Sha256 => mac::<Hmac<Sha256>>(key, parts),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// `Hi` of RFC 5802 §2.2, that is PBKDF2 with one block. `iterations` of 0 counts as 1.
    pub(crate) fn hi(self, password: &[u8], salt: &[u8], iterations: u32) -> Digest {
        let mut out = Digest {
            bytes: [0; 64],
            len: self.output_bytes() as u8,
        };
        let slot = &mut out.bytes[..self.output_bytes()];
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, slot),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, slot),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, slot),
        }
        out
    }
}

impl fmt::Display for ScramHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mechanism())
    }
}

/// Output of one of the hashes. Holds key material, so it is not printed.
#[derive(Clone, Copy)]
pub struct Digest {
    bytes: [u8; 64],
    len: u8,
}

impl Digest {
    fn new(slice: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..slice.len()].copy_from_slice(slice);
        Self {
            bytes,
            len: slice.len() as u8,
        }
    }

    /// `self XOR other`, as long as `self`; bytes `other` lacks count as 0.
    fn xor(mut self, other: &[u8]) -> Self {
        for (a, b) in self.bytes[..usize::from(self.len)].iter_mut().zip(other) {
            *a ^= b;
        }
        self
    }
}

impl std::ops::Deref for Digest {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// A kind of channel binding data.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingType {
    /// `tls-exporter`, RFC 9266. TLS 1.3 only here: before it needs a guarantee TLS 1.2 does not give.
    TlsExporter,
    /// `tls-server-end-point`, RFC 5929 §4: the hash of our certificate.
    TlsServerEndPoint,
}

impl BindingType {
    /// The registered name, as in `p=NAME` and in XEP-0440.
    pub fn name(self) -> &'static str {
        match self {
            Self::TlsExporter => "tls-exporter",
            Self::TlsServerEndPoint => "tls-server-end-point",
        }
    }

    /// The type with this registered name, if it is one of ours.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::TlsExporter, Self::TlsServerEndPoint]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

/// What of a TLS session matters to authentication.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsFacts {
    /// Protocol version as on the wire: 0x0303 is TLS 1.2, 0x0304 TLS 1.3.
    pub version: u16,
    /// `tls-exporter` data (RFC 9266), TLS 1.3 only.
    pub exporter: Option<[u8; 32]>,
    /// `tls-server-end-point` data (RFC 5929 §4).
    pub server_end_point: Option<Bytes>,
}

impl TlsFacts {
    /// The binding data of a type, if this session has it.
    pub fn binding(&self, kind: BindingType) -> Option<&[u8]> {
        match kind {
            BindingType::TlsExporter => self.exporter.as_ref().map(<[u8; 32]>::as_slice),
            BindingType::TlsServerEndPoint => self.server_end_point.as_deref(),
        }
    }

    /// The types this session has data for, the best first (XEP-0440 §3 lists them to the client).
    pub fn binding_types(&self) -> impl Iterator<Item = BindingType> + '_ {
        [BindingType::TlsExporter, BindingType::TlsServerEndPoint]
            .into_iter()
            .filter(|kind| self.binding(*kind).is_some())
    }
}

/// Why an exchange failed. All but `Malformed` are answered alike (`not-authorized`); the variant is for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScramError {
    /// Not a message of RFC 5802 §7: syntax, order of attributes, encoding, a mandatory extension (`m=`), length.
    #[error("malformed SCRAM message: {0}")]
    Malformed(&'static str),
    /// The user name cannot be prepared (RFC 4013), so it is nobody's.
    #[error("user name cannot be prepared")]
    BadUsername,
    /// A mechanism with `-PLUS` without `p=`, or `p=` without `-PLUS`.
    #[error("channel binding flag does not fit the mechanism")]
    BindingFlag,
    /// The client says `y` ("I could, you could not") though `-PLUS` was offered: somebody cut it out of our offer.
    #[error("channel binding was offered and the client did not see it: downgrade")]
    Downgrade,
    /// `p=` with a type this connection has no data for.
    #[error("channel binding type not available")]
    BindingType,
    /// `c=` is not the header and binding data of this connection: a man in the middle, or a broken client.
    #[error("channel binding data does not match")]
    BindingMismatch,
    /// The nonce is not the one given (RFC 5802 §5.1).
    #[error("nonce changed")]
    Nonce,
    /// The proof or signature is wrong.
    #[error("wrong proof")]
    Proof,
    /// The server refused (client side only).
    #[error("refused by the server")]
    Refused,
    /// Iteration count out of bounds (client side only): below 4096 a stolen proof is cheap to invert.
    #[error("iteration count out of bounds")]
    Iterations,
}

/// Base64 exactly as RFC 4648 §4 has it: padded, no spare bits, no white space.
pub(crate) use base64::engine::general_purpose::STANDARD as BASE64;
