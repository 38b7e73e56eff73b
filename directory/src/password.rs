//! Making password keys: PBKDF2 once per hash, milliseconds each. For worker threads.

use xmpp::scram::{PrepError, SALT_BYTES, ScramHash, ScramKeys, derive};

/// Why a password cannot be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DeriveError {
    /// Empty, or characters that SASLprep (RFC 4013) prohibits.
    #[error("the password cannot be used: {0}")]
    Password(#[from] PrepError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// Keys of a password for each hash, each with its own random salt.
///
/// # Errors
/// See [`DeriveError`].
pub fn derive_account(
    password: &str,
    iterations: u32,
    hashes: &[ScramHash],
) -> Result<Vec<ScramKeys>, DeriveError> {
    let keys = |hash: &ScramHash| {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| DeriveError::Random)?;
        Ok(derive(*hash, password, &salt, iterations)?)
    };
    hashes.iter().map(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fit_the_password_and_salts_differ() {
        let keys = derive_account("pencil", 1, &ScramHash::ALL).unwrap();
        assert_eq!(
            keys.iter().map(|key| key.hash).collect::<Vec<_>>(),
            ScramHash::ALL
        );
        assert!(
            keys.iter()
                .all(|key| key.matches("pencil") && !key.matches("Pencil"))
        );
        assert_ne!(keys[0].salt, keys[1].salt);
        assert_ne!(
            derive_account("pencil", 1, &[ScramHash::Sha1]).unwrap()[0].salt,
            keys[2].salt
        );
    }

    #[test]
    fn unusable_passwords_are_refused() {
        for password in ["", "bell\u{7}"] {
            let refused = derive_account(password, 1, &[ScramHash::Sha256]);
            assert!(
                matches!(refused, Err(DeriveError::Password(_))),
                "{password:?}"
            );
        }
    }
}
