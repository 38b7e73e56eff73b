//! The four SCRAM messages, attribute by attribute (RFC 5802 §7). The order is fixed; an extension is let pass where
//! the grammar has one, except the mandatory `m=`, which we cannot obey.

use super::{NONCE_BYTES_MAX, ScramError};
use std::borrow::Cow;

/// The channel binding flag in the GS2 header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BindingFlag<'a> {
    /// `n`: the client cannot.
    Unsupported,
    /// `y`: the client can, and believes the server cannot.
    NotOffered,
    /// `p=NAME`.
    Required(&'a str),
}

/// `client-first-message`.
pub(super) struct ClientFirstMessage<'a> {
    pub flag: BindingFlag<'a>,
    pub authzid: Option<Cow<'a, str>>,
    /// The GS2 header as received, both commas included.
    pub gs2_header: &'a str,
    /// What follows it, as received.
    pub bare: &'a str,
    pub username: Cow<'a, str>,
    pub nonce: &'a str,
}

pub(super) fn parse_client_first(message: &str) -> Result<ClientFirstMessage<'_>, ScramError> {
    let bad = ScramError::Malformed;
    if message.contains('\0') {
        return Err(bad("NUL"));
    }
    let (flag, rest) = message.split_once(',').ok_or(bad("no GS2 header"))?;
    let flag = match flag {
        "n" => BindingFlag::Unsupported,
        "y" => BindingFlag::NotOffered,
        _ => match flag.strip_prefix("p=") {
            Some(name)
                if !name.is_empty()
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-') =>
            {
                BindingFlag::Required(name)
            }
            _ => return Err(bad("channel binding flag")),
        },
    };
    let (authzid, bare) = rest.split_once(',').ok_or(bad("no GS2 header"))?;
    let authzid = match authzid {
        "" => None,
        _ => Some(unescape(authzid.strip_prefix("a=").ok_or(bad("authzid"))?)?),
    };
    let gs2_header = &message[..message.len() - bare.len()];

    if bare.starts_with("m=") {
        return Err(bad("mandatory extension"));
    }
    let mut attributes = bare.split(',');
    let username = unescape(value(attributes.next(), "n=", "user name")?)?;
    let nonce = value(attributes.next(), "r=", "nonce")?;
    check_nonce(nonce)?;
    for extension in attributes {
        check_extension(extension)?;
    }
    Ok(ClientFirstMessage {
        flag,
        authzid,
        gs2_header,
        bare,
        username,
        nonce,
    })
}

/// `client-final-message`.
pub(super) struct ClientFinalMessage<'a> {
    /// Base64 of `c=`.
    pub binding: &'a str,
    pub nonce: &'a str,
    /// Base64 of `p=`.
    pub proof: &'a str,
    /// All before `,p=`, as received.
    pub without_proof: &'a str,
}

pub(super) fn parse_client_final(message: &str) -> Result<ClientFinalMessage<'_>, ScramError> {
    let bad = ScramError::Malformed;
    if message.contains('\0') {
        return Err(bad("NUL"));
    }
    let (without_proof, proof) = message.rsplit_once(',').ok_or(bad("no proof"))?;
    let proof = value(Some(proof), "p=", "no proof")?;
    let mut attributes = without_proof.split(',');
    let binding = value(attributes.next(), "c=", "channel binding")?;
    let nonce = value(attributes.next(), "r=", "nonce")?;
    for extension in attributes {
        check_extension(extension)?;
    }
    Ok(ClientFinalMessage {
        binding,
        nonce,
        proof,
        without_proof,
    })
}

/// `server-first-message`.
pub(super) struct ServerFirstMessage<'a> {
    pub nonce: &'a str,
    /// Base64.
    pub salt: &'a str,
    pub iterations: u32,
}

pub(super) fn parse_server_first(message: &str) -> Result<ServerFirstMessage<'_>, ScramError> {
    let bad = ScramError::Malformed;
    if message.contains('\0') {
        return Err(bad("NUL"));
    }
    if message.starts_with("m=") {
        return Err(bad("mandatory extension"));
    }
    let mut attributes = message.split(',');
    let nonce = value(attributes.next(), "r=", "nonce")?;
    check_nonce(nonce)?;
    let salt = value(attributes.next(), "s=", "salt")?;
    let iterations = value(attributes.next(), "i=", "iteration count")?;
    if iterations.starts_with('0') || !iterations.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("iteration count"));
    }
    let iterations = iterations.parse().map_err(|_| ScramError::Iterations)?;
    for extension in attributes {
        check_extension(extension)?;
    }
    Ok(ServerFirstMessage {
        nonce,
        salt,
        iterations,
    })
}

/// The value of `attribute`, which must start with `name` (such as `r=`) and not be empty.
fn value<'a>(
    attribute: Option<&'a str>,
    name: &str,
    what: &'static str,
) -> Result<&'a str, ScramError> {
    attribute
        .and_then(|attribute| attribute.strip_prefix(name))
        .filter(|value| !value.is_empty())
        .ok_or(ScramError::Malformed(what))
}

/// An extension: `ALPHA "=" value`, and not one of the names RFC 5802 §5.1 gives a meaning (a second `r=` must not
/// hide behind the first).
fn check_extension(attribute: &str) -> Result<(), ScramError> {
    match attribute.as_bytes() {
        [name, b'=', _, ..] if name.is_ascii_alphabetic() && !b"anmrcsipve".contains(name) => {
            Ok(())
        }
        _ => Err(ScramError::Malformed("extension")),
    }
}

/// Printable ASCII without the comma, and not longer than anyone needs.
fn check_nonce(nonce: &str) -> Result<(), ScramError> {
    if nonce.len() <= NONCE_BYTES_MAX
        && nonce
            .bytes()
            .all(|b| matches!(b, 0x21..=0x2B | 0x2D..=0x7E))
    {
        Ok(())
    } else {
        Err(ScramError::Malformed("nonce"))
    }
}

/// `saslname` to text: `=2C` is a comma, `=3D` an equals sign, no other `=` is allowed.
fn unescape(name: &str) -> Result<Cow<'_, str>, ScramError> {
    if name.is_empty() {
        return Err(ScramError::Malformed("empty name"));
    }
    if !name.contains('=') {
        return Ok(Cow::Borrowed(name));
    }
    let mut out = String::with_capacity(name.len());
    let mut parts = name.split('=');
    out.push_str(parts.next().unwrap_or(""));
    for part in parts {
        let (c, rest) = match part.strip_prefix("2C") {
            Some(rest) => (',', rest),
            None => (
                '=',
                part.strip_prefix("3D")
                    .ok_or(ScramError::Malformed("escape in a name"))?,
            ),
        };
        out.push(c);
        out.push_str(rest);
    }
    Ok(Cow::Owned(out))
}

/// Text to `saslname`.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}
