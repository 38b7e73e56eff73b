//! The administration protocol: one JSON object a frame, commands from one table, replies that describe themselves.
//!
//! Request: `{"id": 1, "command": "user list", "args": {"after": "a@b"}}`. Reply: `{"id": 1, "ok": TABLE}` with
//! `{"columns": [...], "rows": [[...]], "next": CURSOR}`, or `{"id": 1, "ok": {"text": "..."}}`, or
//! `{"id": 1, "error": {"code": "not-found", "text": "..."}}`. `next` means: ask again with `after` set to it.
//!
//! In: requests of an authenticated administrator. Out: replies. Owns: the table of commands, and the right each needs.
//! Never: trusts the client to have checked anything; prints a secret; changes what the audit log has no room for; lets anybody
//! change an account that has a right of an administrator which they lack (`commands::may_change`).

pub mod adhoc;
pub mod audit;
mod commands;
mod directories;
pub mod login;
mod notices;
mod people;
#[cfg(test)]
mod tests;
mod tokens;

use crate::notices::{Kind, Notices};
use crate::policy::{Policy, Right};
pub use commands::{COMMANDS, Command};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use xmpp::jid::BareJid;

/// Longest reply: the frame an administrator's end takes, less its head.
const REPLY_BYTES_MAX: usize = proto::limits::FRAME_BYTES_MIN as usize - 1_024;

/// Through which door an administrator came, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// The admin socket: whoever may open it may do everything.
    Socket,
    /// A certificate of role admin with this name.
    Certificate(String),
    /// The password of an account.
    Account(BareJid),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// As whom.
    pub door: Door,
    /// From where: an address, or `socket`.
    pub from: String,
}

impl Caller {
    /// As it stands in logs.
    pub fn who(&self) -> String {
        match &self.door {
            Door::Socket => "socket".into(),
            Door::Certificate(name) => format!("certificate:{name}"),
            Door::Account(jid) => format!("account:{}", jid.as_str()),
        }
    }
}

/// Whether a caller has a right: the socket has all, a certificate all or what the configuration lists for it, an account what
/// the policy says. `admin` includes every other right here.
pub fn grants<'a>(
    caller: &Caller,
    right: Right,
    policy: &Policy,
    membership: &dyn Fn(&BareJid, &str) -> Option<bool>,
    administrators: impl IntoIterator<Item = (&'a str, &'a [Right])>,
) -> bool {
    match &caller.door {
        Door::Socket => true,
        Door::Certificate(name) => administrators
            .into_iter()
            .find(|(listed, _)| listed == name)
            .is_none_or(|(_, rights)| rights.contains(&right) || rights.contains(&Right::Admin)),
        Door::Account(jid) => {
            let has = |right| policy.allows(jid, right, &|group| membership(jid, group));
            has(Right::Login) && (has(right) || has(Right::Admin))
        }
    }
}

/// A request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Repeated in the reply.
    pub id: u64,
    /// A name of [`COMMANDS`].
    pub command: String,
    /// What it is about.
    #[serde(default)]
    pub args: Map<String, Value>,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Rows.
    Table {
        /// Names of the columns.
        columns: Vec<&'static str>,
        /// The rows.
        rows: Vec<Vec<Value>>,
        /// Ask again with `after` set to this: there are more.
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<String>,
    },
    /// Rows that lead to a bad end: what was asked for has been found out, and it is no. `imadmin` ends with 1.
    Failing {
        /// Names of the columns.
        columns: Vec<&'static str>,
        /// The rows.
        rows: Vec<Vec<Value>>,
        /// The end in a sentence.
        failed: String,
    },
    /// A sentence.
    Text {
        /// The sentence.
        text: String,
    },
}

/// Why a command did nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// `bad-request`, `forbidden`, `not-found`, `exists`, `unavailable`, `too-long`.
    pub code: &'static str,
    /// One clear sentence.
    pub text: String,
}

impl Refusal {
    /// With this code.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// One page of sessions.
pub type SessionPage = Vec<crate::event::SessionInfo>;

/// What the server can do for an administrator. It may block: it runs on an administrator's own thread.
pub trait Backend: Send + Sync {
    /// Domains served.
    fn domains(&self) -> Vec<String>;
    /// Iteration count of new secrets.
    fn scram_iterations(&self) -> u32;
    /// A random salt.
    fn salt(&self) -> Vec<u8>;
    /// The time, milliseconds since 1970.
    fn now_unix_ms(&self) -> u64;
    /// Writes, durably.
    fn write(&self, writes: Vec<store::Write>) -> Result<Vec<store::Written>, Refusal>;
    /// An account.
    fn account(&self, jid: &BareJid) -> Result<Option<store::Account>, Refusal>;
    /// Accounts after one, in order.
    fn accounts(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
        only_disabled: bool,
    ) -> Result<Vec<store::AccountEntry>, Refusal>;
    /// Accounts of a domain.
    fn account_counts(&self, domain: &str) -> Result<store::AccountCounts, Refusal>;
    /// Those whose log-in is refused here while their account is elsewhere.
    fn overlay_disabled(&self) -> Result<Vec<BareJid>, Refusal>;
    /// What else is stored of an account, wherever that is.
    fn user(&self, jid: &BareJid) -> Result<store::UserData, Refusal>;
    /// The tokens that log in to an account.
    fn tokens(&self, jid: &BareJid) -> Result<Vec<store::LoginToken>, Refusal>;
    /// Who is online, in order of addresses.
    fn online(&self, which: crate::event::OnlineQuery) -> Result<Vec<BareJid>, Refusal>;
    /// How many of a domain are online, and how many of those active.
    fn count_online(&self, domain: &str) -> Result<(u64, u64), Refusal>;
    /// What the server says by itself.
    fn notices(&self) -> std::sync::Arc<Notices>;
    /// Changes that, durably, unless `change` has nothing to change; with `tell`, who is available is told the message of the day.
    /// How many resources were.
    fn change_notices(
        &self,
        kind: Kind,
        change: &dyn Fn(&Notices) -> Option<Notices>,
        tell: bool,
    ) -> Result<Option<usize>, Refusal>;
    /// Rows of an account, archived or pending, at most so many.
    fn rows(&self, jid: &BareJid, limit: usize) -> Result<Vec<u64>, Refusal>;
    /// Sessions after an id, of one account or all, in order of ids.
    fn sessions(
        &self,
        account: Option<&BareJid>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<SessionPage, Refusal>;
    /// Ends sessions. Returns how many.
    fn kick(&self, account: &BareJid, resource: Option<&str>) -> Result<usize, Refusal>;
    /// Log-in of an account is refused, or not, durably; in the store or, for one whose directory is elsewhere, here only. Its
    /// sessions end when it is. `not-found`: nobody knows it.
    fn set_disabled(&self, account: &BareJid, disabled: bool) -> Result<(), Refusal>;
    /// Sends a headline to available resources. Returns how many got it.
    fn alert(
        &self,
        to: &crate::event::AlertTo,
        subject: &str,
        body: &str,
    ) -> Result<usize, Refusal>;
    /// The directories.
    fn site(&self) -> std::sync::Arc<directory::site::Site>;
    /// Everybody and every group, as the last sweep found them.
    fn population(&self) -> std::sync::Arc<directory::population::Population>;
    /// Has people and groups read again at once.
    fn sweep_now(&self);
    /// What the policy says.
    fn verdict(&self, user: &BareJid, right: Right) -> crate::policy::Verdict;
    /// Every key of the configuration that is in force.
    fn config(&self) -> Result<Vec<crate::config::Effective>, Refusal>;
    /// Reads the configuration again; what has changed, or all mistakes.
    fn reload(&self) -> Result<Vec<String>, Refusal>;
    /// Who has the account among their contacts, by its own roster.
    fn contacts(&self, account: &BareJid) -> Result<Vec<BareJid>, Refusal>;
    /// The account is gone from the store: its sessions end, and these contacts hear that it is none any more.
    fn account_removed(&self, account: &BareJid, contacts: &[BareJid]);
    /// Muxes.
    fn muxes(&self) -> Result<Vec<crate::linkset::MuxInfo>, Refusal>;
    /// Name and value pairs for `status`.
    fn status(&self) -> Result<Vec<(&'static str, Value)>, Refusal>;
    /// Whether the caller has a right, now.
    fn grants(&self, caller: &Caller, right: Right) -> bool;
    /// Writes a line into the audit log, durably.
    fn audit(&self, record: &audit::Record<'_>) -> Result<(), Refusal>;
}

/// Handles one request and makes its reply.
pub fn handle(backend: &dyn Backend, caller: &Caller, json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<Request>(json) {
        Ok(request) => encode(
            request.id,
            run(backend, caller, &request.command, &request.args),
        ),
        Err(e) => encode(
            0,
            Err(Refusal::new("bad-request", format!("not a request: {e}"))),
        ),
    }
}

/// Runs one command for a caller: whether it may, what it did, and the lines of the audit log about it.
///
/// # Errors
/// What the command says, `forbidden`, or that the audit log cannot be written: then nothing was changed.
pub fn run(
    backend: &dyn Backend,
    caller: &Caller,
    name: &str,
    args: &Map<String, Value>,
) -> Result<Answer, Refusal> {
    let command = COMMANDS.iter().find(|c| c.name == name);
    let write = |outcome| {
        backend.audit(&audit::Record {
            caller,
            command: name,
            args,
            outcome,
        })
    };
    let result = match command {
        None => Err(Refusal::new(
            "bad-request",
            format!("no such command: {}", quoted(name)),
        )),
        Some(command) if !command.is_allowed(|right| backend.grants(caller, right)) => {
            let text = format!("{name} needs the right {}", command.rights_in_words());
            Err(Refusal::new("forbidden", text))
        }
        Some(command) => {
            if command.changes {
                let shown = Value::Object(audit::shown(args));
                tracing::info!(admin = caller.who(), command = name, args = %shown, "administration");
                write(audit::Outcome::Begun)?;
            }
            (command.run)(backend, &Args { caller, map: args })
        }
    };
    let outcome = match &result {
        Ok(_) => audit::Outcome::Done,
        Err(refusal) => audit::Outcome::Refused(refusal),
    };
    // What was begun is written down; its end, and what changes nothing, does not fail for want of a line (the log says so).
    let _ = write(outcome);
    result
}

fn encode(id: u64, result: Result<Answer, Refusal>) -> Vec<u8> {
    let reply = match result {
        Ok(answer) => json!({"id": id, "ok": answer}),
        Err(refusal) => json!({"id": id, "error": refusal}),
    };
    let bytes = reply.to_string().into_bytes();
    if bytes.len() > REPLY_BYTES_MAX {
        // Tables are cut into pages; what is too long all the same must not cost the administrator the link.
        let text = "the answer is too long to be sent; what was asked for has been done";
        return json!({"id": id, "error": Refusal::new("too-long", text)})
            .to_string()
            .into_bytes();
    }
    bytes
}

/// A text of somebody else's, as it may stand in a reply: visible, and not at any length.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// Arguments of one request, and whose it is.
#[derive(Debug)]
pub struct Args<'a> {
    caller: &'a Caller,
    map: &'a Map<String, Value>,
}

impl Args<'_> {
    /// A text that must be there.
    fn text(&self, name: &str) -> Result<&str, Refusal> {
        self.optional_text(name)?
            .ok_or_else(|| Refusal::new("bad-request", format!("`{name}` is missing")))
    }

    fn optional_text(&self, name: &str) -> Result<Option<&str>, Refusal> {
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(_) => Err(Refusal::new(
                "bad-request",
                format!("`{name}` must be a string"),
            )),
        }
    }

    /// How many rows are wanted, at most `max`; that many if it is not said.
    fn limit(&self, max: usize) -> Result<usize, Refusal> {
        match self.map.get("limit") {
            None | Some(Value::Null) => Ok(max),
            Some(value) => match value.as_u64() {
                Some(n) if n > 0 => Ok(usize::try_from(n).unwrap_or(max).min(max)),
                _ => Err(Refusal::new(
                    "bad-request",
                    "`limit` must be a number above 0",
                )),
            },
        }
    }

    fn lines(&self, name: &str) -> Result<Vec<(u64, &str)>, Refusal> {
        let wrong = || {
            Refusal::new(
                "bad-request",
                format!("`{name}` must be an array of [number, line]"),
            )
        };
        let list = self
            .map
            .get(name)
            .and_then(Value::as_array)
            .ok_or_else(wrong)?;
        list.iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([Value::Number(n), Value::String(s)]) => {
                    Ok((n.as_u64().unwrap_or(0), s.as_str()))
                }
                _ => Err(wrong()),
            })
            .collect()
    }
}
