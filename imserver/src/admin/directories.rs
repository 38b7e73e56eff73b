//! The commands about directories: how a name becomes a verdict, and what is cached.

use super::commands::account_jid;
use super::{Answer, Args, Backend, Refusal};
use serde_json::{Value, json};
use xmpp::sasl::LoginName;

/// Groups named in one answer: nobody reads more.
const GROUPS_SHOWN: usize = 50;

/// Says step by step what the directories of the domain say of somebody, and with a password whether it is right; then the groups
/// they are in as the last sweep found them, and whether the policy lets them log in.
pub(super) fn test(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = account_jid(backend, args.text("jid")?)?;
    let refused = |_| Refusal::new("bad-request", "this cannot be a login name");
    let login = LoginName::new(jid.localpart().unwrap_or_default(), jid.domainpart());
    let login = login.map_err(refused)?;
    let password = args.optional_text("password")?;
    if password.is_some() {
        // Who cannot set it may not guess it here either, where nobody counts.
        super::commands::may_change(backend, args.caller, &jid)?;
        if let Ok(Some(person)) = backend.site().resolve(&login) {
            super::commands::may_change(backend, args.caller, &person.jid)?;
        }
    }
    let site = backend.site();
    let row = |what: &str, answer: String| vec![json!(what), json!(answer)];
    let mut rows: Vec<Vec<Value>> = site
        .explain(&login, password)
        .into_iter()
        .map(|step| row(&step.what, step.answer))
        .collect();
    let account = match site.resolve(&login) {
        Ok(Some(person)) => person.jid,
        Ok(None) => jid,
        Err(error) => {
            rows.push(row("verdict", error.to_string()));
            return Ok(table(rows));
        }
    };
    let population = backend.population();
    let groups: Vec<&str> = population
        .groups_of(&account)
        .map(|g| &*g.name)
        .take(GROUPS_SHOWN)
        .collect();
    rows.push(row("groups", groups.join(", ")));
    let verdict = backend.verdict(&account, crate::policy::Right::Login);
    rows.push(row(
        "policy",
        match (verdict.allowed, verdict.line) {
            _ if verdict.unknown => {
                format!("cannot log in now: {}", super::commands::not_read(verdict))
            }
            (true, Some(line)) => format!("may log in (policy line {line})"),
            (false, Some(line)) => format!("may not log in (policy line {line})"),
            (allowed, None) => format!(
                "{} log in (no line names it)",
                if allowed { "may" } else { "may not" }
            ),
        },
    ));
    Ok(table(rows))
}

fn table(rows: Vec<Vec<Value>>) -> Answer {
    Answer::Table {
        columns: vec!["step", "answer"],
        rows,
        next: None,
    }
}

/// What the caches have done since the start.
pub(super) fn cache_stats(backend: &dyn Backend, _: &Args<'_>) -> Result<Answer, Refusal> {
    let rows = backend.site().cache_stats().into_iter();
    Ok(Answer::Table {
        columns: vec![
            "directory",
            "cached",
            "entries",
            "hits",
            "misses",
            "stale",
            "failures",
        ],
        rows: rows
            .map(|(directory, what, s)| {
                vec![
                    json!(directory),
                    json!(what),
                    json!(s.entries),
                    json!(s.hits),
                    json!(s.misses),
                    json!(s.stale),
                    json!(s.failures),
                ]
            })
            .collect(),
        next: None,
    })
}

/// Forgets what is cached of somebody, or everything, and has the directories swept again.
pub(super) fn cache_flush(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = match args.optional_text("jid")? {
        Some(text) => Some(account_jid(backend, text)?),
        None => None,
    };
    backend.site().flush(jid.as_ref());
    backend.sweep_now();
    let what = jid.as_ref().map_or("everything", |j| j.as_str());
    Ok(Answer::Text {
        text: format!(
            "{what} is asked for again when it is wanted; people and groups are read again now"
        ),
    })
}
