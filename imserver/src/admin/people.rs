//! The commands that look at people: who there is, how they are, and whom they know.

use super::commands::{PAGE, account_jid, address, page, stamp};
use super::{Answer, Args, Backend, Refusal, quoted};
use crate::event::{OnlineQuery, OnlineState};
use directory::population::Member;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use store::Subscription;
use xmpp::jid::BareJid;

/// Bytes of resources that `user show` lists.
const RESOURCES_BYTES: usize = 16 * 1024;

/// Who may be asked for, and how it is written.
enum Which {
    Registered { disabled: bool },
    Online(OnlineState),
}

impl Which {
    fn parse(state: Option<&str>) -> Result<Self, Refusal> {
        Ok(match state {
            None => Self::Registered { disabled: false },
            Some("disabled") => Self::Registered { disabled: true },
            Some("online") => Self::Online(OnlineState::Any),
            Some("active") => Self::Online(OnlineState::Active),
            Some("idle") => Self::Online(OnlineState::Idle),
            Some(other) => {
                let text = format!(
                    "{} is none of disabled, online, active, idle",
                    quoted(other)
                );
                return Err(Refusal::new("bad-request", text));
            }
        })
    }
}

/// One row of `user list`.
struct Row {
    jid: BareJid,
    /// `None`: the account is in a directory elsewhere.
    created_ms: Option<u64>,
    disabled: bool,
}

/// The order of accounts in the store.
fn key(jid: &BareJid) -> (&str, &str) {
    (jid.domainpart(), jid.localpart().unwrap_or_default())
}

/// Accounts of the store, and people of directories as the last sweep found them; all, or those who may not log in.
pub(super) fn list(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    // The cursor may be of a domain that is no longer served: its accounts are still there.
    let after = args.optional_text("after")?.map(address).transpose()?;
    let domain = args.optional_text("domain")?;
    let limit = args.limit(PAGE)?;
    let disabled = match Which::parse(args.optional_text("state")?)? {
        Which::Registered { disabled } => disabled,
        Which::Online(state) => {
            let found = backend.online(OnlineQuery {
                state,
                domain: domain.map(str::to_owned),
                after,
                limit,
            })?;
            let cursor = |jid: &BareJid| jid.as_str().to_owned();
            let row = |jid: &BareJid| vec![json!(jid.as_str())];
            return Ok(page(vec!["jid"], found, limit, cursor, row));
        }
    };
    let found = registered(backend, domain, after.as_ref(), limit, disabled)?;
    let columns = vec!["jid", "created", "disabled"];
    let row = |r: &Row| {
        vec![
            json!(r.jid.as_str()),
            r.created_ms.map_or(Value::Null, |ms| json!(stamp(ms))),
            json!(r.disabled),
        ]
    };
    let cursor = |r: &Row| r.jid.as_str().to_owned();
    Ok(page(columns, found, limit, cursor, row))
}

fn registered(
    backend: &dyn Backend,
    domain: Option<&str>,
    after: Option<&BareJid>,
    limit: usize,
    only_disabled: bool,
) -> Result<Vec<Row>, Refusal> {
    let refused: HashSet<BareJid> = backend.overlay_disabled()?.into_iter().collect();
    let wanted = |jid: &BareJid, disabled: bool| {
        (disabled || !only_disabled)
            && domain.is_none_or(|domain| domain == jid.domainpart())
            && after.is_none_or(|after| key(jid) > key(after))
    };
    // The first of those elsewhere: of a large directory no more is held than is shown.
    let population = backend.population();
    let mut elsewhere: BTreeMap<(&str, &str), (&BareJid, bool)> = BTreeMap::new();
    let mut take = |jid, disabled| {
        if wanted(jid, disabled) {
            elsewhere.insert(key(jid), (jid, disabled));
            if elsewhere.len() > limit {
                elsewhere.pop_last();
            }
        }
    };
    for (jid, Member { disabled, .. }) in population.everybody() {
        take(jid, *disabled || refused.contains(jid));
    }
    // Who is in no sweep (a mail server has none) can be refused the log-in all the same.
    refused.iter().for_each(|jid| take(jid, true));
    let row = |(jid, disabled): (&BareJid, bool)| Row {
        jid: jid.clone(),
        created_ms: None,
        disabled,
    };
    let mut rows: Vec<Row> = elsewhere.into_values().map(row).collect();
    let here = backend.accounts(domain, after, limit, only_disabled)?;
    rows.extend(here.into_iter().map(|a| Row {
        disabled: a.disabled || refused.contains(&a.jid),
        created_ms: Some(a.created_ms),
        jid: a.jid,
    }));
    // Who is in both has a row of the store.
    rows.sort_by(|a, b| {
        (key(&a.jid), a.created_ms.is_none()).cmp(&(key(&b.jid), b.created_ms.is_none()))
    });
    rows.dedup_by(|later, first| later.jid == first.jid);
    rows.truncate(limit);
    Ok(rows)
}

/// How many people a domain has, and how they are.
pub(super) fn count(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let domains = match args.optional_text("domain")? {
        Some(domain) if backend.domains().iter().any(|d| d == domain) => vec![domain.to_owned()],
        Some(domain) => {
            let text = format!("{} is not served here", quoted(domain));
            return Err(Refusal::new("bad-request", text));
        }
        None => backend.domains(),
    };
    let population = backend.population();
    let refused: HashSet<BareJid> = backend.overlay_disabled()?.into_iter().collect();
    let mut rows = Vec::new();
    for domain in domains {
        let here = backend.account_counts(&domain)?;
        let of_domain = |jid: &BareJid| jid.domainpart() == domain;
        let swept = population.everybody().filter(|(jid, _)| of_domain(jid));
        let (mut people, mut locked) = (0, 0);
        for (jid, member) in swept {
            people += 1;
            locked += u64::from(member.disabled && !refused.contains(jid));
        }
        let overlaid = refused.iter().filter(|jid| of_domain(jid)).count() as u64;
        let (online, active) = backend.count_online(&domain)?;
        rows.push(vec![
            json!(domain),
            json!(here.accounts + people),
            json!(here.disabled + locked + overlaid),
            json!(online),
            json!(active),
            json!(online.saturating_sub(active)),
        ]);
    }
    Ok(Answer::Table {
        columns: vec![
            "domain",
            "registered",
            "disabled",
            "online",
            "active",
            "idle",
        ],
        rows,
        next: None,
    })
}

/// What is known of an account besides what it has stored.
struct Known {
    created: Value,
    disabled: bool,
    mechanisms: String,
}

/// An account of the store, or somebody of a directory.
fn known(backend: &dyn Backend, jid: &BareJid) -> Result<Known, Refusal> {
    let person = backend.site().person(jid);
    if let Some(account) = backend.account(jid)? {
        let mechanisms: Vec<&str> = account.keys.iter().map(|k| k.hash.mechanism()).collect();
        // A mail server's people have an account here, and whether they may log in is said elsewhere, too.
        let refused = matches!(person, Ok(Some(person)) if person.disabled);
        return Ok(Known {
            created: json!(stamp(account.created_ms)),
            disabled: account.disabled || refused,
            mechanisms: mechanisms.join(" "),
        });
    }
    match person {
        Ok(Some(person)) => Ok(Known {
            created: Value::Null,
            disabled: person.disabled,
            mechanisms: String::new(),
        }),
        Ok(None) => Err(Refusal::new("not-found", "there is no such account")),
        Err(e) => Err(Refusal::new("unavailable", e.to_string())),
    }
}

fn time(ms: u64) -> Value {
    match ms {
        0 => Value::Null,
        ms => json!(stamp(ms)),
    }
}

pub(super) fn show(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = account_jid(backend, args.text("jid")?)?;
    let known = known(backend, &jid)?;
    let user = backend.user(&jid)?;
    let sessions = backend.sessions(Some(&jid), None, PAGE)?;
    let mut resources = String::new();
    for session in &sessions {
        if resources.len() > RESOURCES_BYTES {
            resources.push_str(" ...");
            break;
        }
        if !resources.is_empty() {
            resources.push(' ');
        }
        resources.push_str(session.jid.resourcepart());
    }
    let rows = vec![
        vec![json!("jid"), json!(jid.as_str())],
        vec![json!("created"), known.created],
        vec![json!("disabled"), json!(known.disabled)],
        vec![json!("mechanisms"), json!(known.mechanisms)],
        vec![json!("contacts"), json!(user.roster.len())],
        vec![json!("subscription requests"), json!(user.requests.len())],
        vec![json!("messages waiting"), json!(user.pending)],
        vec![json!("last log-in"), time(user.activity.login_ms)],
        vec![json!("last log-out"), time(user.activity.logout_ms)],
        vec![json!("sessions"), json!(sessions.len())],
        vec![json!("resources"), json!(resources)],
    ];
    Ok(Answer::Table {
        columns: vec!["what", "value"],
        rows,
        next: None,
    })
}

/// The contacts somebody has made; not those that groups of a directory give.
pub(super) fn roster(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let jid = account_jid(backend, args.text("jid")?)?;
    let after = args.optional_text("after")?.map(address).transpose()?;
    known(backend, &jid)?;
    let limit = args.limit(PAGE)?;
    let mut contacts = backend.user(&jid)?.roster;
    contacts.sort_by(|a, b| a.jid.cmp(&b.jid));
    contacts.retain(|item| after.as_ref().is_none_or(|after| item.jid > *after));
    contacts.truncate(limit);
    let row = |item: &store::RosterItem| {
        let subscription = match item.subscription {
            Subscription::None => "none",
            Subscription::To => "to",
            Subscription::From => "from",
            Subscription::Both => "both",
        };
        vec![
            json!(item.jid.as_str()),
            item.name.as_ref().map_or(Value::Null, |name| json!(name)),
            json!(subscription),
            json!(item.ask),
            json!(item.groups),
        ]
    };
    let columns = vec!["jid", "name", "subscription", "asked", "groups"];
    let cursor = |item: &store::RosterItem| item.jid.as_str().to_owned();
    Ok(page(columns, contacts, limit, cursor, row))
}
