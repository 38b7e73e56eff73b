//! The commands: a row each, with what it does. To add one: a row, a function, and its words in `admin-cli`.

use super::{Answer, Args, Backend, Caller, Refusal, directories, notices, people, quoted, tokens};
use crate::notices::Kind;
use crate::policy::Right;
use serde_json::{Value, json};
use store::{Account, PutMode, Write, WriteError, Written};
use xmpp::jid::BareJid;
use xmpp::scram::{ScramHash, ScramKeys, derive};

/// Rows of one page.
pub(super) const PAGE: usize = 500;
/// Bytes of its rows, well under the longest reply: resources and names can be a thousand bytes each.
const PAGE_BYTES: usize = 64 * 1024;
/// Lines of one import request: a problem with each of them still fits into one reply.
const IMPORT_LINES_MAX: usize = 500;
/// Bytes of what is said about one of them.
const PROBLEM_BYTES_MAX: usize = 160;
/// Rows dropped at once when an account is removed.
const DROP_SLICE: usize = 1_000;

/// One command.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    /// As it is asked for.
    pub name: &'static str,
    /// It changes something: that is written into the audit log before it is done.
    pub changes: bool,
    /// Rights that suffice, each alone; `admin` suffices always.
    pub rights: &'static [Right],
    /// What it does.
    pub run: fn(&dyn Backend, &Args<'_>) -> Result<Answer, Refusal>,
}

impl Command {
    /// Whether somebody with these rights may run it.
    pub fn is_allowed(&self, has: impl Fn(Right) -> bool) -> bool {
        has(Right::Admin) || self.rights.iter().any(|right| has(*right))
    }

    /// The rights, for a refusal.
    pub fn rights_in_words(&self) -> String {
        let others = self.rights.iter().filter(|r| **r != Right::Admin);
        let names: Vec<&str> = [Right::Admin]
            .iter()
            .chain(others)
            .map(|r| r.name())
            .collect();
        names.join(" or ")
    }
}

/// Changes accounts and sessions.
const USERS: &[Right] = &[Right::AdminUsers];
/// Looks at accounts and sessions.
const USERS_READ: &[Right] = &[Right::AdminUsers, Right::AdminRead];
/// Looks at the server.
const READ: &[Right] = &[Right::AdminRead];

/// Has the server say something.
const SAY: &[Right] = &[Right::SendAlert];
/// Looks at what it says.
const SAY_READ: &[Right] = &[Right::SendAlert, Right::AdminRead];

/// All of them.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "user add",
        changes: true,
        rights: USERS,
        run: user_add,
    },
    Command {
        name: "user import",
        changes: true,
        rights: USERS,
        run: user_import,
    },
    Command {
        name: "user del",
        changes: true,
        rights: USERS,
        run: user_del,
    },
    Command {
        name: "user passwd",
        changes: true,
        rights: USERS,
        run: user_passwd,
    },
    Command {
        name: "user list",
        changes: false,
        rights: USERS_READ,
        run: people::list,
    },
    Command {
        name: "user show",
        changes: false,
        rights: USERS_READ,
        run: people::show,
    },
    Command {
        name: "user count",
        changes: false,
        rights: USERS_READ,
        run: people::count,
    },
    Command {
        name: "user roster",
        changes: false,
        rights: USERS_READ,
        run: people::roster,
    },
    Command {
        name: "session list",
        changes: false,
        rights: USERS_READ,
        run: session_list,
    },
    Command {
        name: "session kick",
        changes: true,
        rights: USERS,
        run: session_kick,
    },
    Command {
        name: "token list",
        changes: false,
        rights: USERS_READ,
        run: tokens::list,
    },
    Command {
        name: "token revoke",
        changes: true,
        rights: USERS,
        run: tokens::revoke,
    },
    Command {
        name: "user disable",
        changes: true,
        rights: USERS,
        run: |backend, args| set_disabled(backend, args, true),
    },
    Command {
        name: "user enable",
        changes: true,
        rights: USERS,
        run: |backend, args| set_disabled(backend, args, false),
    },
    Command {
        name: "alert",
        changes: true,
        rights: SAY,
        run: notices::alert,
    },
    Command {
        name: "motd set",
        changes: true,
        rights: SAY,
        run: |backend, args| notices::set(backend, args, Kind::Motd),
    },
    Command {
        name: "motd edit",
        changes: true,
        rights: SAY,
        run: |backend, args| notices::edit(backend, args, Kind::Motd),
    },
    Command {
        name: "motd show",
        changes: false,
        rights: SAY_READ,
        run: |backend, _| notices::show(backend, Kind::Motd),
    },
    Command {
        name: "motd del",
        changes: true,
        rights: SAY,
        run: |backend, _| notices::delete(backend, Kind::Motd),
    },
    Command {
        name: "welcome set",
        changes: true,
        rights: SAY,
        run: |backend, args| notices::set(backend, args, Kind::Welcome),
    },
    Command {
        name: "welcome show",
        changes: false,
        rights: SAY_READ,
        run: |backend, _| notices::show(backend, Kind::Welcome),
    },
    Command {
        name: "welcome del",
        changes: true,
        rights: SAY,
        run: |backend, _| notices::delete(backend, Kind::Welcome),
    },
    Command {
        name: "policy test",
        changes: false,
        rights: USERS_READ,
        run: policy_test,
    },
    Command {
        name: "config show",
        changes: false,
        rights: READ,
        run: config_show,
    },
    Command {
        name: "config reload",
        changes: true,
        rights: &[Right::Admin],
        run: config_reload,
    },
    Command {
        name: "directory test",
        // It changes nothing, but it can try passwords: who does that is written down.
        changes: true,
        rights: USERS,
        run: directories::test,
    },
    Command {
        name: "cache stats",
        changes: false,
        rights: READ,
        run: directories::cache_stats,
    },
    Command {
        name: "cache flush",
        changes: true,
        rights: USERS,
        run: directories::cache_flush,
    },
    Command {
        name: "mux list",
        changes: false,
        rights: READ,
        run: mux_list,
    },
    Command {
        name: "status",
        changes: false,
        rights: USERS_READ,
        run: status,
    },
];

pub(super) fn address(text: &str) -> Result<BareJid, Refusal> {
    BareJid::parse(text).map_err(|e| {
        Refusal::new(
            "bad-request",
            format!("{} is no address: {e}", quoted(text)),
        )
    })
}

/// A page of a table: rows until there are enough or they are long enough.
pub(super) fn page<T>(
    columns: Vec<&'static str>,
    items: Vec<T>,
    limit: usize,
    cursor: impl Fn(&T) -> String,
    row: impl Fn(&T) -> Vec<Value>,
) -> Answer {
    let full = items.len() == limit;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for item in &items {
        let row = row(item);
        bytes += row.iter().map(|v| v.to_string().len() + 1).sum::<usize>();
        rows.push(row);
        if bytes > PAGE_BYTES {
            break;
        }
    }
    let next = (full || rows.len() < items.len())
        .then(|| items.get(rows.len().wrapping_sub(1)).map(cursor))
        .flatten();
    Answer::Table {
        columns,
        rows,
        next,
    }
}

/// An address of an account that may be here.
pub(super) fn account_jid(backend: &dyn Backend, text: &str) -> Result<BareJid, Refusal> {
    let jid = address(text)?;
    if jid.localpart().is_none() {
        return Err(Refusal::new(
            "bad-request",
            format!("{} is no account: name@domain is wanted", quoted(text)),
        ));
    }
    if !backend.domains().iter().any(|d| d == jid.domainpart()) {
        return Err(Refusal::new(
            "bad-request",
            format!("{} is not served here", quoted(jid.domainpart())),
        ));
    }
    Ok(jid)
}

/// The same, of one that the caller may change.
pub(super) fn changed_jid(
    backend: &dyn Backend,
    args: &Args<'_>,
    text: &str,
) -> Result<BareJid, Refusal> {
    let jid = account_jid(backend, text)?;
    may_change(backend, args.caller, &jid)?;
    Ok(jid)
}

/// Whoever sets a password or makes an account can log in as it: nobody may do that, or anything else, to an account with a right
/// of an administrator that they have not themselves. The rules speak of addresses, so this holds for who does not exist yet.
pub(super) fn may_change(
    backend: &dyn Backend,
    caller: &Caller,
    jid: &BareJid,
) -> Result<(), Refusal> {
    let above = Right::ADMINISTRATORS.into_iter().find(|right| {
        !backend.grants(caller, *right) && !backend.verdict(jid, *right).is_certain_no()
    });
    match above {
        None => Ok(()),
        Some(right) => {
            let text = format!(
                "the policy gives {} the right {}, which you have not: somebody who has it must do that",
                jid.as_str(),
                right.name()
            );
            Err(Refusal::new("forbidden", text))
        }
    }
}

/// An address for a new account: of a domain that has accounts in the store at all, or nobody could log in with it.
fn new_jid(backend: &dyn Backend, args: &Args<'_>, text: &str) -> Result<BareJid, Refusal> {
    let jid = changed_jid(backend, args, text)?;
    if !backend.site().keeps_accounts(jid.domainpart()) {
        let text = format!(
            "the accounts of {} are in a directory elsewhere, not in the store",
            quoted(jid.domainpart())
        );
        return Err(Refusal::new("bad-request", text));
    }
    Ok(jid)
}

fn keys(backend: &dyn Backend, password: &str) -> Result<Vec<ScramKeys>, Refusal> {
    if password.is_empty() {
        return Err(Refusal::new("bad-request", "the password is empty"));
    }
    ScramHash::ALL
        .into_iter()
        .map(|hash| derive(hash, password, &backend.salt(), backend.scram_iterations()))
        .collect::<Result<_, _>>()
        .map_err(|e| Refusal::new("bad-request", format!("the password cannot be used: {e}")))
}

pub(super) fn one(backend: &dyn Backend, write: Write) -> Result<(), Refusal> {
    match backend.write(vec![write])?.pop() {
        Some(Written::Failed(e)) => Err(refusal(&e)),
        _ => Ok(()),
    }
}

fn refusal(e: &WriteError) -> Refusal {
    match e {
        WriteError::Exists => Refusal::new("exists", "the account exists already"),
        WriteError::NotFound => Refusal::new("not-found", "there is no such account"),
        WriteError::TooMuch | WriteError::Outdated => Refusal::new("unavailable", e.to_string()),
        WriteError::Store(e) => Refusal::new("unavailable", e.to_string()),
    }
}

pub(super) fn text(text: impl Into<String>) -> Result<Answer, Refusal> {
    Ok(Answer::Text { text: text.into() })
}

fn user_add(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = new_jid(backend, args, args.text("jid")?)?;
    let keys = keys(backend, args.text("password")?)?;
    let account = Account {
        jid: jid.clone(),
        keys,
        disabled: false,
        created_ms: backend.now_unix_ms(),
    };
    one(
        backend,
        Write::AccountPut {
            account,
            mode: PutMode::Create,
        },
    )?;
    text(format!("{} added", jid.as_str()))
}

fn user_passwd(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = changed_jid(backend, args, args.text("jid")?)?;
    let site = backend.site();
    if let Some(directory) = site.entry_is_in(&jid).map_err(not_known)? {
        let jid = jid.as_str();
        let text = format!("{jid} is in the directory {directory}: the password is changed there");
        return Err(Refusal::new("bad-request", text));
    }
    let keys = keys(backend, args.text("password")?)?;
    one(
        backend,
        Write::AccountKeys {
            jid: jid.clone(),
            keys,
        },
    )?;
    text(format!("password of {} changed", jid.as_str()))
}

fn user_del(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = changed_jid(backend, args, args.text("jid")?)?;
    let site = backend.site();
    if let Some(directory) = site.entry_is_in(&jid).map_err(not_known)? {
        let text = format!(
            "{} is in the directory {directory}, and is removed there; after that `user del` removes what is kept here. `user disable` keeps them out of here",
            jid.as_str()
        );
        return Err(Refusal::new("bad-request", text));
    }
    // Somebody no directory knows any more may have left a contact list, a vCard, messages: for nobody to inherit.
    let contacts = backend.contacts(&jid)?;
    let mut removed = match one(backend, Write::AccountDelete { jid: jid.clone() }) {
        Ok(()) => true,
        Err(refusal) if refusal.code == "not-found" => false,
        Err(refusal) => return Err(refusal),
    };
    backend.account_removed(&jid, &contacts);
    // The waiting ones come first, the archived ones when there are none of those: a short slice is not the last.
    loop {
        let positions = backend.rows(&jid, DROP_SLICE)?;
        if positions.is_empty() {
            break;
        }
        removed = true;
        backend.write(vec![Write::Drop {
            owner: jid.clone(),
            positions,
        }])?;
    }
    // Again, for what its sessions had on its way to disk.
    match one(backend, Write::AccountDelete { jid: jid.clone() }) {
        Ok(()) => removed = true,
        Err(refusal) if refusal.code == "not-found" => {}
        Err(refusal) => return Err(refusal),
    }
    match removed {
        true => text(format!("{} removed", jid.as_str())),
        false => Err(refusal(&WriteError::NotFound)),
    }
}

fn not_known(error: directory::DirectoryError) -> Refusal {
    let text = format!("whether there is such an account is not known now: {error}");
    Refusal::new("unavailable", text)
}

/// Lines `JID PASSWORD`, or `JID {SCRAM-SHA-256}...` with one or more secrets. Bad lines are listed, the rest is loaded.
fn user_import(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let lines = args.lines("lines")?;
    if lines.len() > IMPORT_LINES_MAX {
        return Err(Refusal::new(
            "bad-request",
            format!("more than {IMPORT_LINES_MAX} lines in one request"),
        ));
    }
    let half = lines
        .len()
        .div_ceil(std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    // Deriving keys from passwords is all the work there is: every core takes a part.
    let parsed: Vec<(u64, Result<Account, Refusal>)> = std::thread::scope(|scope| {
        let parts: Vec<_> = lines
            .chunks(half)
            .map(|part| {
                scope.spawn(move || {
                    part.iter()
                        .map(|(n, l)| (*n, import_line(backend, args, l)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        parts
            .into_iter()
            .flat_map(|p| p.join().unwrap_or_default())
            .collect()
    });
    let mut rows = Vec::new();
    let mut numbers = Vec::new();
    let mut writes = Vec::new();
    for (n, account) in parsed {
        match account {
            Ok(account) => {
                numbers.push(n);
                writes.push(Write::AccountPut {
                    account,
                    mode: PutMode::Create,
                });
            }
            Err(refusal) => rows.push(problem(n, &refusal)),
        }
    }
    if !writes.is_empty() {
        for (n, written) in numbers.into_iter().zip(backend.write(writes)?) {
            if let Written::Failed(e) = written {
                rows.push(problem(n, &refusal(&e)));
            }
        }
    }
    rows.sort_by_key(|r| r[0].as_u64());
    Ok(Answer::Table {
        columns: vec!["line", "problem"],
        rows,
        next: None,
    })
}

fn problem(line: u64, refusal: &Refusal) -> Vec<Value> {
    let mut text = refusal.text.clone();
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= PROBLEM_BYTES_MAX) {
        text.truncate(end);
        text.push_str("...");
    }
    vec![json!(line), json!(text)]
}

fn import_line(backend: &dyn Backend, args: &Args<'_>, line: &str) -> Result<Account, Refusal> {
    let (jid, secret) = line
        .trim_end_matches(['\r', '\n'])
        .split_once([' ', '\t'])
        .ok_or_else(|| {
            Refusal::new(
                "bad-request",
                "expected an address, a space, and a password or SCRAM secrets",
            )
        })?;
    let jid = new_jid(backend, args, jid)?;
    let keys = if secret.starts_with("{SCRAM-")
        || secret.starts_with("SCRAM-SHA-") && secret.contains('$')
    {
        secret
            .split_ascii_whitespace()
            .map(|s| {
                s.parse()
                    .map_err(|e| Refusal::new("bad-request", format!("{e}")))
            })
            .collect::<Result<_, _>>()?
    } else {
        keys(backend, secret)?
    };
    Ok(Account {
        jid,
        keys,
        disabled: false,
        created_ms: backend.now_unix_ms(),
    })
}

/// Where a client is. One that waits after a restart has none that is known.
fn address_of(peer: std::net::SocketAddr) -> Value {
    match peer.ip().is_unspecified() {
        true => Value::Null,
        false => json!(peer.ip().to_string()),
    }
}

fn session_list(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let account = args
        .optional_text("jid")?
        .map(|j| account_jid(backend, j))
        .transpose()?;
    let after = match args.optional_text("after")? {
        Some(text) => Some(
            text.parse::<u64>()
                .map_err(|_| Refusal::new("bad-request", "`after` is not a session id"))?,
        ),
        None => None,
    };
    let found = backend.sessions(account.as_ref(), after, PAGE)?;
    let row = |s: &crate::event::SessionInfo| {
        vec![
            json!(s.jid.as_str()),
            json!(s.transport),
            address_of(s.peer),
            s.priority.map_or(Value::Null, |p| json!(p)),
            json!(stamp(s.since_unix_ms)),
            json!(s.unacknowledged),
            json!(s.id.0.to_string()),
        ]
    };
    let columns = vec![
        "jid",
        "transport",
        "address",
        "priority",
        "since",
        "unacknowledged",
        "id",
    ];
    Ok(page(columns, found, PAGE, |s| s.id.0.to_string(), row))
}

fn session_kick(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let (bare, resource) = match args.text("jid")?.split_once('/') {
        Some((bare, resource)) => (bare, Some(resource)),
        None => (args.text("jid")?, None),
    };
    let jid = changed_jid(backend, args, bare)?;
    match backend.kick(&jid, resource)? {
        0 => Err(Refusal::new("not-found", "there is no such session")),
        n => text(format!(
            "{n} session{} ended",
            if n == 1 { "" } else { "s" }
        )),
    }
}

fn set_disabled(backend: &dyn Backend, args: &Args<'_>, disabled: bool) -> Result<Answer, Refusal> {
    let jid = changed_jid(backend, args, args.text("jid")?)?;
    backend.set_disabled(&jid, disabled)?;
    text(format!(
        "{} {}",
        jid.as_str(),
        if disabled {
            "may not log in any more"
        } else {
            "may log in again"
        }
    ))
}

/// The rules speak of addresses, whether there is such an account or not: so a right of nobody is a refusal, which says so and
/// still names the line.
fn policy_test(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let text = args.text("jid")?;
    let jid = address(text)?;
    let name = args.text("right")?;
    let right = Right::of_name(name).ok_or_else(|| {
        let text = format!("{} is no right: {} are", quoted(name), Right::names());
        Refusal::new("bad-request", text)
    })?;
    let verdict = backend.verdict(&jid, right);
    let mut disabled = false;
    let nobody = match backend.domains().iter().any(|d| d == jid.domainpart()) {
        _ if jid.localpart().is_none() => Some((
            "bad-request",
            format!("{} is no account: an account is name@domain", quoted(text)),
        )),
        false => Some((
            "bad-request",
            format!("{} is not served here", quoted(jid.domainpart())),
        )),
        true => match backend.site().person(&jid) {
            Ok(Some(person)) => {
                disabled = person.disabled;
                None
            }
            Ok(None) => Some(("not-found", format!("there is no account {}", jid.as_str()))),
            Err(e) => Some((
                "unavailable",
                format!(
                    "whether there is an account {} is not known: {e}",
                    jid.as_str()
                ),
            )),
        },
    };
    if let Some((code, why)) = nobody {
        let would = if verdict.allowed { "allows" } else { "denies" };
        let line = match verdict.line {
            Some(line) => format!("line {line} of the policy {would} {name:?} to such an address"),
            None => format!("no line of the policy names it for {name:?}"),
        };
        return Err(Refusal::new(code, format!("{why} ({line})")));
    }
    if verdict.unknown {
        return Err(Refusal::new("unavailable", not_read(verdict)));
    }
    Ok(Answer::Table {
        columns: vec!["jid", "right", "allowed", "line", "disabled"],
        rows: vec![vec![
            json!(jid.as_str()),
            json!(right.name()),
            json!(verdict.allowed),
            verdict.line.map_or(Value::Null, |line| json!(line)),
            // Whatever the policy allows: who is disabled cannot log in to use it.
            json!(disabled),
        ]],
        next: None,
    })
}

/// Why a verdict is none.
pub(super) fn not_read(verdict: crate::policy::Verdict) -> String {
    let line = verdict.line.unwrap_or_default();
    format!(
        "it hangs on line {line} of the policy, and the directory with that line's groups has not been read yet"
    )
}

fn config_show(backend: &dyn Backend, _args: &Args<'_>) -> Result<Answer, Refusal> {
    let rows = backend.config()?.into_iter().map(|key| {
        let origin = key.line.map_or_else(
            || "default".to_owned(),
            |line| format!("imserver.toml:{line}"),
        );
        vec![json!(key.key), json!(key.value), json!(origin)]
    });
    Ok(Answer::Table {
        columns: vec!["key", "value", "origin"],
        rows: rows.collect(),
        next: None,
    })
}

fn config_reload(backend: &dyn Backend, _args: &Args<'_>) -> Result<Answer, Refusal> {
    let changes = backend.reload()?;
    if changes.is_empty() {
        return text(
            "nothing has changed in the configuration; files that it names (passwords, certificates) were read again",
        );
    }
    text(changes.join("\n"))
}

fn mux_list(backend: &dyn Backend, _args: &Args<'_>) -> Result<Answer, Refusal> {
    let rows = backend
        .muxes()?
        .into_iter()
        .map(|m| {
            vec![
                json!(m.name),
                json!(m.up),
                json!(m.conns),
                json!(m.retained_bytes),
            ]
        })
        .collect();
    Ok(Answer::Table {
        columns: vec!["mux", "linked", "connections", "unacknowledged bytes"],
        rows,
        next: None,
    })
}

fn status(backend: &dyn Backend, _args: &Args<'_>) -> Result<Answer, Refusal> {
    let rows = backend
        .status()?
        .into_iter()
        .map(|(what, value)| vec![json!(what), value])
        .collect();
    Ok(Answer::Table {
        columns: vec!["what", "value"],
        rows,
        next: None,
    })
}

/// RFC 3339, to the second.
pub(super) fn stamp(unix_ms: u64) -> String {
    time::OffsetDateTime::from_unix_timestamp((unix_ms / 1_000) as i64)
        .ok()
        .and_then(|t| {
            t.format(&time::format_description::well_known::Rfc3339)
                .ok()
        })
        .unwrap_or_else(|| unix_ms.to_string())
}

#[cfg(test)]
mod address_tests {
    use super::*;

    #[test]
    fn a_session_that_waits_after_a_restart_is_at_no_address() {
        for (peer, shown) in [
            ("192.0.2.1:40000", json!("192.0.2.1")),
            ("0.0.0.0:0", Value::Null),
        ] {
            assert_eq!(address_of(peer.parse().expect("an address")), shown);
        }
    }
}
