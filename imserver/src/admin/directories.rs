//! The commands about directories: how a name becomes a verdict, and what is cached.

use super::commands::account_jid;
use super::{Answer, Args, Backend, Refusal, quoted};
use crate::policy::Right;
use directory::backend::ExplainStep;
use serde_json::json;
use xmpp::sasl::LoginName;

/// Groups named in one answer: nobody reads more.
const GROUPS_SHOWN: usize = 50;

/// Says step by step what the directories of the domain say of somebody, and with a password whether it is right; then the groups
/// they are in as the last sweep found them, and whether the policy lets them log in. It fails if they cannot log in.
pub(super) fn test(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = account_jid(backend, &with_domain(backend, args.text("jid")?)?)?;
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
    let mut steps = site.explain(&login, password);
    let account = match site.resolve(&login) {
        Ok(Some(person)) => Ok(person.jid),
        // Somebody of a mail server is known from the first log-in on, which this would be.
        Ok(None) if steps.iter().any(|s| s.what == "password" && !s.fails) => Ok(jid),
        Ok(None) => Err(format!("nobody logs in as {login}")),
        Err(error) => Err(format!(
            "who logs in as {login} is not known now, so log-ins fail: {error}"
        )),
    };
    let verdict = account.and_then(|account| {
        let population = backend.population();
        let groups: Vec<&str> = population
            .groups_of(&account)
            .map(|g| &*g.name)
            .take(GROUPS_SHOWN)
            .collect();
        steps.push(ExplainStep::new("groups", groups.join(", ")));
        let verdict = backend.verdict(&account, Right::Login);
        let may = if verdict.allowed { "may" } else { "may not" };
        let policy = match verdict.line {
            _ if verdict.unknown => {
                format!("cannot log in now: {}", super::commands::not_read(verdict))
            }
            Some(line) => format!("{may} log in (policy line {line})"),
            None => format!("{may} log in (no line names it)"),
        };
        steps.push(ExplainStep::new("policy", policy).failing(!verdict.allowed));
        let failing: Vec<String> = steps
            .iter()
            .filter(|step| step.fails)
            .map(|step| format!("{}: {}", step.what, step.answer))
            .collect();
        match (failing.is_empty(), password) {
            (false, _) => Err(format!(
                "{} cannot log in: {}",
                account.as_str(),
                failing.join("; ")
            )),
            (true, Some(_)) => Ok(format!("{} logs in with this password", account.as_str())),
            (true, None) => Ok(format!(
                "{} may log in; no password was tried",
                account.as_str()
            )),
        }
    });
    let (Ok(text) | Err(text)) = &verdict;
    steps.push(ExplainStep::new("verdict", text));
    let columns = vec!["step", "answer"];
    let rows = steps
        .into_iter()
        .map(|step| vec![json!(step.what), json!(step.answer)])
        .collect();
    Ok(match verdict {
        Ok(_) => Answer::Table {
            columns,
            rows,
            next: None,
        },
        Err(failed) => Answer::Failing {
            columns,
            rows,
            failed,
        },
    })
}

/// A login name without a domain is one of the only domain there is.
fn with_domain(backend: &dyn Backend, name: &str) -> Result<String, Refusal> {
    if name.contains('@') {
        return Ok(name.to_owned());
    }
    match backend.domains().as_slice() {
        [only] => Ok(format!("{name}@{only}")),
        domains => {
            let all = domains.join(", ");
            let text = format!(
                "{} is of which domain? Say name@domain: {all}",
                quoted(name)
            );
            Err(Refusal::new("bad-request", text))
        }
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
