//! The blocking command, XEP-0191, with reports, XEP-0377: what a client may ask and set. The list itself is in `crate::blocking`.

use super::{Extension, IqOutcome, Request, UNAVAILABLE, plain};
use crate::blocking::Report;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// Addresses in one request. A client that blocks more at once says so in several.
const ITEMS_MAX: usize = 1_000;
/// Ids of messages taken from a report.
const REPORTED_MESSAGES_MAX: usize = 10;
/// Characters of a reason or of an id: those of the XEP have 24, ids of ours 16.
const REPORT_WORD_CHARS_MAX: usize = 100;

/// §3.2.
pub const BLOCKLIST: Extension = Extension {
    name: "blocklist",
    ns: ns::BLOCKING,
    server_features: &[ns::BLOCKING],
    account_features: &[],
    get: Some(list),
    set: None,
};

/// §3.3; XEP-0377 §3.
pub const BLOCK: Extension = Extension {
    name: "block",
    ns: ns::BLOCKING,
    server_features: &[ns::REPORTING],
    account_features: &[],
    get: None,
    set: Some(block),
};

/// §3.4 and §3.5.
pub const UNBLOCK: Extension = Extension {
    name: "unblock",
    ns: ns::BLOCKING,
    server_features: &[],
    account_features: &[],
    get: None,
    set: Some(unblock),
};

/// A change of one's own list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// These are blocked.
    Block(Vec<Jid>, Vec<Report>),
    /// These are not any more.
    Unblock(Vec<Jid>),
    /// Nobody is.
    UnblockAll,
}

/// Everybody has a list of their own only.
fn refused(request: &Request<'_>) -> Option<IqOutcome> {
    if request.own() {
        None
    } else if request.visible() && request.target != super::Target::Server {
        Some(IqOutcome::Error(StanzaError::Forbidden, None))
    } else {
        Some(UNAVAILABLE)
    }
}

fn list(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    refused(request).unwrap_or(IqOutcome::Blocklist)
}

/// §3.3: `bad-request` without an item.
fn block(request: &Request<'_>, child: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    let child = child.tree();
    let jids = match items(request, &child) {
        Ok(jids) if jids.is_empty() => return IqOutcome::Error(StanzaError::BadRequest, None),
        Ok(jids) => jids,
        Err(refused) => return refused,
    };
    if jids
        .iter()
        .any(|jid| jid.bare_str() == request.from.bare_str())
    {
        let text = Some("Nobody blocks themselves");
        return IqOutcome::Error(StanzaError::NotAllowed, text);
    }
    let reports = child.children().filter_map(report).collect();
    IqOutcome::Blocking(Change::Block(jids, reports))
}

fn unblock(request: &Request<'_>, child: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    match items(request, &child.tree()) {
        Ok(jids) if jids.is_empty() => IqOutcome::Blocking(Change::UnblockAll),
        Ok(jids) => IqOutcome::Blocking(Change::Unblock(jids)),
        Err(refused) => refused,
    }
}

/// The addresses, each once.
fn items(request: &Request<'_>, child: &Node) -> Result<Vec<Jid>, IqOutcome> {
    let mut jids: Vec<Jid> = Vec::new();
    for item in child.children().filter(|c| c.is("item", ns::BLOCKING)) {
        let jid = item.attr("jid").ok_or(IqOutcome::Error(
            StanzaError::BadRequest,
            Some("An item has no jid"),
        ))?;
        let jid = Jid::parse(jid).map_err(|_| IqOutcome::Error(StanzaError::JidMalformed, None))?;
        jids.push(jid);
    }
    jids.sort();
    jids.dedup();
    if jids.len() > ITEMS_MAX.min(request.context.blocklist_items_max) {
        let text = Some("So many cannot be blocked");
        return Err(IqOutcome::Error(StanzaError::PolicyViolation, text));
    }
    Ok(jids)
}

/// XEP-0377 §5. One that is not in order is none: the address is blocked all the same.
fn report(item: &Node) -> Option<Report> {
    let report = item.child("report", ns::REPORTING)?;
    let short = |text: &str| -> Option<String> {
        Some(plain(text)?.chars().take(REPORT_WORD_CHARS_MAX).collect())
    };
    let reason = report.attr("reason")?;
    let reason = reason.strip_prefix("urn:xmpp:reporting:").unwrap_or(reason);
    let ids = report
        .children()
        .filter(|c| c.is("stanza-id", ns::STANZA_ID));
    let ids = ids.filter_map(|c| short(c.attr("id")?));
    Some(Report {
        about: Jid::parse(item.attr("jid")?).ok()?,
        reason: short(reason)?,
        text: report
            .child("text", ns::REPORTING)
            .and_then(|t| plain(&t.text())),
        messages: ids.take(REPORTED_MESSAGES_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{OWN, ask};
    use super::*;

    fn set(child: &str) -> IqOutcome {
        ask(OWN, &format!("<iq type='set' id='1'>{child}</iq>"))
    }

    fn jids(all: &[&str]) -> Vec<Jid> {
        all.iter()
            .map(|j| Jid::parse(j).expect("an address"))
            .collect()
    }

    #[test]
    fn addresses_are_prepared_and_each_once() {
        for (child, want) in [
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='Romeo@Example.org'/><item jid='romeo@example.org'/><item jid='b.lit/x'/></block>",
                Change::Block(jids(&["romeo@example.org", "b.lit/x"]), Vec::new()),
            ),
            (
                "<unblock xmlns='urn:xmpp:blocking'><item jid='romeo@example.org'/></unblock>",
                Change::Unblock(jids(&["romeo@example.org"])),
            ),
            ("<unblock xmlns='urn:xmpp:blocking'/>", Change::UnblockAll),
        ] {
            assert_eq!(set(child), IqOutcome::Blocking(want), "{child}");
        }
    }

    #[test]
    fn what_is_not_in_order_changes_nothing() {
        for (child, want) in [
            (
                "<block xmlns='urn:xmpp:blocking'/>",
                StanzaError::BadRequest,
            ),
            (
                "<block xmlns='urn:xmpp:blocking'><item/></block>",
                StanzaError::BadRequest,
            ),
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/><item jid='@'/></block>",
                StanzaError::JidMalformed,
            ),
            (
                "<unblock xmlns='urn:xmpp:blocking'><item jid=''/></unblock>",
                StanzaError::JidMalformed,
            ),
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='juliet@example.org'/></block>",
                StanzaError::NotAllowed,
            ),
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='juliet@example.org/x'/></block>",
                StanzaError::NotAllowed,
            ),
            (
                "<block xmlns='urn:xmpp:blocking'><item jid='a@b'/><item jid='b@b'/><item jid='c@b'/><item jid='d@b'/></block>",
                StanzaError::PolicyViolation,
            ),
        ] {
            let IqOutcome::Error(condition, _) = set(child) else {
                panic!("{child}")
            };
            assert_eq!(condition, want, "{child}");
        }
    }

    #[test]
    fn a_report_is_cut_to_what_is_read_and_a_wrong_one_is_none() {
        let long = "x".repeat(3_000);
        let ids: String = (0..20)
            .map(|n| format!("<stanza-id xmlns='urn:xmpp:sid:0' by='a@b' id='{n}'/>"))
            .collect();
        let item = |jid: &str, report: &str| format!("<item jid='{jid}'>{report}</item>");
        let items = [
            item("a@b", &format!("<report xmlns='urn:xmpp:reporting:1' reason='urn:xmpp:reporting:spam'><text>one\ntwo</text>{ids}</report>")),
            item("b@b", &format!("<report xmlns='urn:xmpp:reporting:1' reason='{long}'><text>{long}</text></report>")),
            item("c@b", "<report xmlns='urn:xmpp:reporting:1'/>"),
        ]
        .concat();
        let IqOutcome::Blocking(Change::Block(blocked, reports)) =
            set(&format!("<block xmlns='urn:xmpp:blocking'>{items}</block>"))
        else {
            panic!("blocked")
        };
        assert_eq!(blocked, jids(&["a@b", "b@b", "c@b"]));
        assert_eq!(reports.len(), 2);
        let by = Jid::parse("juliet@example.org").expect("an address").bare();
        let first = "juliet@example.org has blocked a@b and reports spam: one two (messages 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)";
        assert_eq!(reports[0].to_line(&by), first);
        assert_eq!(reports[1].reason.len(), 100);
        assert_eq!(reports[1].text.as_deref().map(str::len), Some(1_000));
    }
}
