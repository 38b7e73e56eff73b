//! The commands that have the server say something: alerts, the message of the day, the welcome.

use super::commands::{account_jid, stamp};
use super::{Answer, Args, Backend, Refusal, quoted};
use crate::event::AlertTo;
use crate::notices::Kind;
use serde_json::json;

/// Longest text, bytes: an element a client may send is as long, at the least (RFC 6120 §13.12).
const TEXT_BYTES_MAX: usize = 8_000;

fn text(text: impl Into<String>) -> Result<Answer, Refusal> {
    Ok(Answer::Text { text: text.into() })
}

/// What is to be said: subject, may be empty, and text.
fn said<'a>(args: &'a Args<'_>) -> Result<(&'a str, &'a str), Refusal> {
    let (subject, body) = (args.optional_text("subject")?, args.text("text")?);
    let subject = subject.unwrap_or_default();
    if body.trim().is_empty() {
        return Err(Refusal::new("bad-request", "the text is empty"));
    }
    if subject.len() + body.len() > TEXT_BYTES_MAX {
        let text = format!("more than {TEXT_BYTES_MAX} bytes");
        return Err(Refusal::new("too-long", text));
    }
    Ok((subject, body))
}

fn resources(n: usize) -> String {
    format!("{n} resource{}", if n == 1 { "" } else { "s" })
}

/// To `all`, an account, or a group of the directory.
pub(super) fn alert(backend: &dyn Backend, args: &Args<'_>) -> Result<Answer, Refusal> {
    let to = args.text("to")?;
    let (subject, body) = said(args)?;
    let group = backend.population().group(to).cloned();
    let whom = match (to, group) {
        ("all", _) => AlertTo::Everybody,
        (_, Some(group)) => AlertTo::Group(group),
        (to, None) if to.contains('@') => AlertTo::Account(account_jid(backend, to)?),
        (to, None) => {
            let text = format!(
                "{} is no account, and no directory has a group of that name",
                quoted(to)
            );
            return Err(Refusal::new("not-found", text));
        }
    };
    let n = backend.alert(&whom, subject, body)?;
    if n == 0 {
        return text("sent to nobody: none of them is online and available");
    }
    text(format!("sent to {}", resources(n)))
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Motd => "message of the day",
        Kind::Welcome => "welcome",
    }
}

fn none(kind: Kind) -> Refusal {
    Refusal::new("not-found", format!("there is no {}", name(kind)))
}

pub(super) fn show(backend: &dyn Backend, kind: Kind) -> Result<Answer, Refusal> {
    let notices = backend.notices();
    let notice = notices.get(kind).ok_or_else(|| none(kind))?;
    let rows = vec![
        vec![json!("changed"), json!(stamp(notice.changed_unix_ms))],
        vec![json!("subject"), json!(notice.subject)],
        vec![json!("text"), json!(notice.text)],
    ];
    Ok(Answer::Table {
        columns: vec!["what", "value"],
        rows,
        next: None,
    })
}

/// The message of the day goes to who is available at once.
pub(super) fn set(backend: &dyn Backend, args: &Args<'_>, kind: Kind) -> Result<Answer, Refusal> {
    let (subject, body) = said(args)?;
    let now = backend.now_unix_ms();
    let told = backend.change_notices(
        kind,
        &|notices| Some(notices.set(kind, subject, body, now)),
        kind == Kind::Motd,
    )?;
    match (kind, told) {
        (Kind::Motd, Some(n)) => text(format!("set, and sent to {}", resources(n))),
        _ => text("set"),
    }
}

/// Other words: who has been told is not told again.
pub(super) fn edit(backend: &dyn Backend, args: &Args<'_>, kind: Kind) -> Result<Answer, Refusal> {
    let (subject, body) = said(args)?;
    let now = backend.now_unix_ms();
    let changed = backend.change_notices(kind, &|n| n.edit(kind, subject, body, now), false)?;
    changed.ok_or_else(|| none(kind))?;
    text("changed")
}

pub(super) fn delete(backend: &dyn Backend, kind: Kind) -> Result<Answer, Refusal> {
    let changed = backend.change_notices(kind, &|n| n.delete(kind), false)?;
    changed.ok_or_else(|| none(kind))?;
    text("removed")
}
