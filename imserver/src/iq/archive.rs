//! Questions to one's own archive, XEP-0313: the form, the page (XEP-0059), the ends, and what is to be kept (XEP-0441). What they come
//! to, `crate::archive` reads.
//!
//! Where the XEP leaves a choice: a field that we do not know is refused, or the client would take for the answer to its question
//! what is not; totals are not counted; a range that ends before it begins is empty.

use super::{Context, Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait};
use crate::archive::Ask;
use crate::archive::prefs::{Prefs, Unclear};
use crate::carbons::parse_id;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// §4: a question (`set`), or which questions there are (`get`).
pub const QUERY: Extension = Extension {
    name: "query",
    ns: ns::MAM,
    server_features: &[],
    account_features: &[],
    get: Some(form),
    set: Some(query),
};

/// §6.
pub const METADATA: Extension = Extension {
    name: "metadata",
    ns: ns::MAM,
    server_features: &[],
    account_features: &[],
    get: Some(metadata),
    set: None,
};

/// XEP-0441.
pub const PREFS: Extension = Extension {
    name: "prefs",
    ns: ns::MAM,
    server_features: &[],
    account_features: &[],
    get: Some(prefs),
    set: Some(set_prefs),
};

/// What an account with an archive announces.
pub const FEATURES: &[&str] = &[ns::MAM, ns::MAM_EXTENDED];

/// And one whose archive can be searched.
pub const SEARCH_FEATURE: &str = ns::FULLTEXT;

/// XEP-0431 §3.1.
const FULLTEXT: &str = "{urn:xmpp:fulltext:0}fulltext";

/// What somebody looks for is a few words; the index is asked for each.
const FULLTEXT_BYTES_MAX: usize = 1_024;

/// Ids asked for at once: each costs a look into the index. A screen has fewer.
const IDS_MAX: usize = 100;

/// A `queryid` is given back with every result: longer ones would multiply what a client has to say for it.
const QUERYID_BYTES_MAX: usize = 256;

/// The fields of a question.
const FIELDS: &[(FieldType, &str)] = &[
    (FieldType::JidSingle, "with"),
    (FieldType::TextSingle, "start"),
    (FieldType::TextSingle, "end"),
    (FieldType::TextSingle, "before-id"),
    (FieldType::TextSingle, "after-id"),
    (FieldType::ListMulti, "ids"),
];

/// Whose archive may be asked: one's own. Who may not know of the account learns nothing.
fn owner(request: &Request<'_>) -> Result<BareJid, IqOutcome> {
    match request.target {
        Target::Account { own: true, .. } if request.context.archive => Ok(request.from.bare()),
        Target::Account {
            own: false,
            may_see: true,
        } => Err(IqOutcome::Error(StanzaError::Forbidden, None)),
        _ => Err(UNAVAILABLE),
    }
}

fn form(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if let Err(refusal) = owner(request) {
        return refusal;
    }
    let mut form = Form::of_type(FormType::Form, ns::MAM);
    for &(kind, var) in FIELDS {
        form = form.with(Field::new(kind, var, ""));
    }
    if request.context.archive_search {
        form = form.with(Field::new(FieldType::TextSingle, FULLTEXT, ""));
    }
    request.reply(Node::new("query", ns::MAM).with_child(form.to_node()))
}

fn metadata(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    owner(request).map_or_else(
        |refusal| refusal,
        |owner| IqOutcome::Read(Wait::ArchiveEnds(owner)),
    )
}

fn prefs(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    owner(request).map_or_else(|refusal| refusal, |_| IqOutcome::ArchivePrefs)
}

/// XEP-0441 §2.1: the answer is what applies from now on.
fn set_prefs(request: &Request<'_>, prefs: Child<'_>) -> IqOutcome {
    if let Err(refusal) = owner(request) {
        return refusal;
    }
    let refused = |condition, text| IqOutcome::Error(condition, Some(text));
    match Prefs::parse(&prefs.tree(), request.context.archive_prefs_jids_max) {
        Ok(prefs) => IqOutcome::WriteArchivePrefs {
            reply: request.result(Some(&prefs.to_node())),
            prefs: Box::new(prefs),
        },
        Err(Unclear::Default) => refused(
            StanzaError::BadRequest,
            "The default is `always`, `never` or `roster`",
        ),
        Err(Unclear::Address) => refused(StanzaError::JidMalformed, "There is no such address"),
        Err(Unclear::TooMany) => refused(
            StanzaError::PolicyViolation,
            "There are more addresses than may be listed",
        ),
    }
}

fn query(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    let owner = match owner(request) {
        Ok(owner) => owner,
        Err(refusal) => return refusal,
    };
    let Context {
        archive_page_max,
        archive_search,
        ..
    } = request.context;
    match parse(owner, &query.tree(), archive_page_max, archive_search) {
        Ok(ask) => IqOutcome::Read(Wait::Archive(Box::new(ask))),
        Err((condition, text)) => IqOutcome::Error(condition, Some(text)),
    }
}

type Refusal = (StanzaError, &'static str);

const BAD_ID: Refusal = (
    StanzaError::ItemNotFound,
    "There is no message with this id",
);

/// Reads a question.
pub(crate) fn parse(
    owner: BareJid,
    query: &Node,
    page_max: usize,
    searched: bool,
) -> Result<Ask, Refusal> {
    let mut ask = Ask::new(owner, page_max);
    ask.queryid = query.attr("queryid").map(str::to_owned);
    if ask
        .queryid
        .as_ref()
        .is_some_and(|q| q.len() > QUERYID_BYTES_MAX)
    {
        return Err((StanzaError::BadRequest, "The queryid is too long"));
    }
    ask.flip = query.child("flip-page", ns::MAM).is_some();
    if let Some(x) = query.child("x", ns::DATA_FORMS) {
        let form =
            Form::parse(x).map_err(|_| (StanzaError::BadRequest, "The form cannot be read"))?;
        if form.form_type() != Some(ns::MAM) {
            return Err((StanzaError::BadRequest, "The form is of another type"));
        }
        for field in &form.fields {
            filter(&mut ask, field, searched)?;
        }
    }
    if let Some(set) = query.child("set", ns::RSM) {
        page(&mut ask, set, page_max)?;
    }
    Ok(ask)
}

fn filter(ask: &mut Ask, field: &Field, searched: bool) -> Result<(), Refusal> {
    let values = || field.values.iter().filter(|v| !v.is_empty());
    let value = values().next();
    let one_id = || value.map(|v| parse_id(v).ok_or(BAD_ID)).transpose();
    match field.var.as_str() {
        // XEP-0313 §4.1.4: there is nothing of rooms in our archives.
        "FORM_TYPE" | "include-groupchat" => {}
        "with" => {
            let jid = value.map(|v| Jid::parse(v)).transpose();
            ask.with = jid.map_err(|_| (StanzaError::BadRequest, "`with` is no address"))?;
        }
        FULLTEXT if searched => {
            if value.is_some_and(|v| v.len() > FULLTEXT_BYTES_MAX) {
                let why = "The text to be found is too long";
                return Err((StanzaError::PolicyViolation, why));
            }
            ask.text = value.cloned();
        }
        "start" => ask.start_ms = time(value)?,
        "end" => ask.end_ms = time(value)?,
        "before-id" => ask.before.extend(one_id()?),
        "after-id" => ask.after.extend(one_id()?),
        "ids" => {
            if field.values.len() > IDS_MAX {
                return Err((StanzaError::PolicyViolation, "Too many ids at once"));
            }
            for value in values() {
                ask.ids.push(parse_id(value).ok_or(BAD_ID)?);
            }
        }
        _ => {
            let text = "There is a field in the form that this archive does not know";
            return Err((StanzaError::FeatureNotImplemented, text));
        }
    }
    Ok(())
}

/// XEP-0082 §3.2. What was before 1970 is the same as 1970.
fn time(value: Option<&String>) -> Result<Option<u64>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    let time = OffsetDateTime::parse(value, &Rfc3339)
        .map_err(|_| (StanzaError::BadRequest, "A time cannot be read"))?;
    let ms = time.unix_timestamp_nanos() / 1_000_000;
    Ok(Some(u64::try_from(ms).unwrap_or(0)))
}

/// XEP-0059.
fn page(ask: &mut Ask, set: &Node, page_max: usize) -> Result<(), Refusal> {
    let text = |name| set.child(name, ns::RSM).map(|n| n.text().trim().to_owned());
    if let Some(max) = text("max") {
        let max = max.parse::<u64>();
        let max = max.map_err(|_| (StanzaError::BadRequest, "`max` is no number"))?;
        ask.limit = usize::try_from(max).unwrap_or(usize::MAX).min(page_max);
    }
    if text("index").is_some() {
        let why = "Pages are asked for by ids, not by numbers";
        return Err((StanzaError::FeatureNotImplemented, why));
    }
    if let Some(after) = text("after").filter(|a| !a.is_empty()) {
        ask.after.push(parse_id(&after).ok_or(BAD_ID)?);
    }
    if let Some(before) = text("before") {
        ask.last = true;
        if !before.is_empty() {
            ask.before.push(parse_id(&before).ok_or(BAD_ID)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(inside: &str) -> Result<Ask, Refusal> {
        let xml = format!("<query xmlns='urn:xmpp:mam:2' queryid='q'>{inside}</query>");
        let node = Node::parse(xml.as_bytes(), "").expect("well-formed");
        let owner = BareJid::parse("juliet@localhost").expect("a JID");
        parse(owner, &node, 50, true)
    }

    fn form(fields: &str) -> String {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:xmpp:mam:2</value></field>{fields}</x>"
        )
    }

    fn set(inside: &str) -> String {
        format!("<set xmlns='http://jabber.org/protocol/rsm'>{inside}</set>")
    }

    const ID: &str = "00000000000000ff";

    #[test]
    fn a_question_is_read() {
        let owner = BareJid::parse("juliet@localhost").expect("a JID");
        let plain = Ask {
            queryid: Some("q".into()),
            ..Ask::new(owner, 50)
        };
        let id = 0xff;
        for (inside, want) in [
            (String::new(), plain.clone()),
            (
                set("<max>10</max>"),
                Ask {
                    limit: 10,
                    ..plain.clone()
                },
            ),
            (
                set("<max>0</max>"),
                Ask {
                    limit: 0,
                    ..plain.clone()
                },
            ),
            (set("<max>1000000000</max>"), plain.clone()),
            (set("<max>18446744073709551615</max>"), plain.clone()),
            (
                set("<before/>"),
                Ask {
                    last: true,
                    ..plain.clone()
                },
            ),
            (
                set(&format!("<before>{ID}</before>")),
                Ask {
                    last: true,
                    before: vec![id],
                    ..plain.clone()
                },
            ),
            (
                set(&format!("<after>{ID}</after>")),
                Ask {
                    after: vec![id],
                    ..plain.clone()
                },
            ),
            (set("<after/>"), plain.clone()),
            (
                form(&format!(
                    "<field var='after-id'><value>{ID}</value></field><field var='before-id'><value>{ID}</value></field>\
                     <field var='ids'><value>{ID}</value><value>{ID}</value></field>"
                )),
                Ask {
                    after: vec![id],
                    before: vec![id],
                    ids: vec![id, id],
                    ..plain.clone()
                },
            ),
            (
                form("<field var='with'><value>Romeo@localhost</value></field>")
                    + "<flip-page xmlns='urn:xmpp:mam:2'/>",
                Ask {
                    with: Jid::parse("romeo@localhost").ok(),
                    flip: true,
                    ..plain.clone()
                },
            ),
            (
                form(
                    "<field var='start'><value>1970-01-01T00:00:01.5Z</value></field>\
                     <field var='end'><value>1970-01-01T02:00:02+02:00</value></field>",
                ),
                Ask {
                    start_ms: Some(1_500),
                    end_ms: Some(2_000),
                    ..plain.clone()
                },
            ),
            (
                form("<field var='start'><value>1969-01-01T00:00:00Z</value></field>"),
                Ask {
                    start_ms: Some(0),
                    ..plain.clone()
                },
            ),
            (form("<field var='with'/>"), plain.clone()),
            (form(&format!("<field var='{FULLTEXT}'/>")), plain.clone()),
            (
                form(&format!(
                    "<field var='{FULLTEXT}'><value>\"one&apos; OR</value></field>"
                )),
                Ask {
                    text: Some("\"one' OR".into()),
                    ..plain.clone()
                },
            ),
        ] {
            assert_eq!(ask(&inside), Ok(want), "{inside}");
        }
    }

    #[test]
    fn a_wrong_question_is_refused() {
        use StanzaError::*;
        let ids = "<value>00000000000000ff</value>".repeat(IDS_MAX + 1);
        for (inside, want) in [
            (set("<max>-1</max>"), BadRequest),
            (set("<max>many</max>"), BadRequest),
            (set("<max>99999999999999999999</max>"), BadRequest),
            (set("<before>unknown</before>"), ItemNotFound),
            (set("<after>1' OR '1'='1</after>"), ItemNotFound),
            (set("<index>3</index>"), FeatureNotImplemented),
            (
                form("<field var='with'><value>@x</value></field>"),
                BadRequest,
            ),
            (
                form("<field var='start'><value>yesterday</value></field>"),
                BadRequest,
            ),
            (
                form("<field var='before-id'><value>x</value></field>"),
                ItemNotFound,
            ),
            (
                form(&format!("<field var='ids'>{ids}</field>")),
                PolicyViolation,
            ),
            (
                form(&format!(
                    "<field var='{FULLTEXT}'><value>{}</value></field>",
                    "x ".repeat(5_000)
                )),
                PolicyViolation,
            ),
            (
                form("<field var='colour'><value>red</value></field>"),
                FeatureNotImplemented,
            ),
            (
                "<x xmlns='jabber:x:data' type='submit'/>".into(),
                BadRequest,
            ),
            ("<x xmlns='jabber:x:data'/>".into(), BadRequest),
        ] {
            let got = ask(&inside).map_err(|(condition, _)| condition);
            assert_eq!(got, Err(want), "{inside}");
        }
        let owner = BareJid::parse("juliet@localhost").expect("a JID");
        let xml = form(&format!("<field var='{FULLTEXT}'><value>x</value></field>"));
        let xml = format!("<query xmlns='urn:xmpp:mam:2'>{xml}</query>");
        let node = Node::parse(xml.as_bytes(), "").expect("well-formed");
        let unknown = parse(owner, &node, 50, false).map_err(|(condition, _)| condition);
        assert_eq!(
            unknown,
            Err(FeatureNotImplemented),
            "where nothing is indexed"
        );
    }
}
