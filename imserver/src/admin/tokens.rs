//! Tokens that clients log in with (XEP-0484): shown without what is secret of them, and revoked.

use super::commands::{account_jid, changed_jid, one, stamp, text};
use super::{Answer, Args, Backend, Refusal, quoted};
use serde_json::{Value, json};
use store::{TokenChange, Write};
use xmpp::sasl::ClientId;

/// Which clients of an account have one. They are few (`limits.token_clients_max`): one page.
pub(super) fn list(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = account_jid(backend, args.text("jid")?)?;
    let mut tokens = backend.tokens(&jid)?;
    tokens.sort_by_key(|t| (t.client, t.issued_ms));
    let said = |text: &Option<String>| text.as_ref().map_or(Value::Null, |t| json!(t));
    let rows = tokens.iter().map(|t| {
        vec![
            json!(t.client.to_hex()),
            said(&t.software),
            said(&t.device),
            json!(t.mechanism.name()),
            json!(stamp(t.issued_ms)),
            json!(stamp(t.expires_ms)),
            json!(t.used),
        ]
    });
    Ok(Answer::Table {
        columns: vec![
            "client",
            "software",
            "device",
            "mechanism",
            "issued",
            "expires",
            "used",
        ],
        rows: rows.collect(),
        next: None,
    })
}

/// The clients of an account, or one of them, need the password again.
pub(super) fn revoke(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = changed_jid(backend, args, args.text("jid")?)?;
    let client = match args.optional_text("client")? {
        Some(hex) => Some(client(hex)?),
        None => None,
    };
    let before = backend.tokens(&jid)?;
    let gone = before
        .iter()
        .filter(|t| client.is_none_or(|c| t.client == c));
    let gone = gone.count();
    // Though there is none: one may be on its way to a client that is logging in.
    one(
        backend,
        Write::Tokens {
            owner: jid,
            change: TokenChange::Revoke { client, but: None },
        },
    )?;
    if gone == 0 {
        return Err(Refusal::new("not-found", "there is no such token"));
    }
    let plural = if gone == 1 { "" } else { "s" };
    text(format!(
        "{gone} token{plural} revoked; sessions that are there go on, `session kick` ends them"
    ))
}

fn client(hex: &str) -> Result<ClientId, Refusal> {
    let digit = |n: usize| {
        hex.get(2 * n..2 * n + 2)
            .and_then(|d| u8::from_str_radix(d, 16).ok())
    };
    let bytes: Option<Vec<u8>> = (hex.len() == 32)
        .then(|| (0..16).map(digit).collect())
        .flatten();
    let bytes = bytes.and_then(|b| b.try_into().ok());
    bytes.map(ClientId).ok_or_else(|| {
        let text = format!("{} is no client as `token list` shows it", quoted(hex));
        Refusal::new("bad-request", text)
    })
}
