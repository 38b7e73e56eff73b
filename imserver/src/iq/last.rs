//! Last activity, XEP-0012: since when the server runs, and when somebody was last here.
//!
//! Who may see an account's presence may ask (§3); what a resource of it does, that client answers itself. Of a log-out the time is
//! remembered, not what was said with it, so an answer has no status.

use super::{Extension, IqOutcome, Request, Target, Wait};
use store::Activity;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// XEP-0012.
pub const LAST: Extension = Extension {
    name: "query",
    ns: ns::LAST,
    server_features: &[ns::LAST],
    account_features: &[ns::LAST],
    get: Some(get),
    set: None,
};

/// §3: `forbidden` for who gets no presence of the account. §5: of a server it is the time since it was started.
fn get(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    match request.target {
        Target::Server => request.reply(seconds(request.context.uptime_s)),
        Target::Account { .. } if request.visible() => {
            let account = request.to.map_or_else(|| request.from.bare(), Jid::bare);
            IqOutcome::Read(Wait::LastActivity(account))
        }
        Target::Account { .. } => IqOutcome::Error(StanzaError::Forbidden, None),
    }
}

/// What is remembered of somebody; `available`: they are here. Who has come and never gone is somewhere between.
pub fn found(request: &Request<'_>, available: bool, activity: &Activity) -> IqOutcome {
    let last = match activity.logout_ms {
        0 => activity.login_ms,
        logout => logout,
    };
    if available {
        request.reply(seconds(0))
    } else if last == 0 {
        let text = Some("They have not been here");
        IqOutcome::Error(StanzaError::ItemNotFound, text)
    } else {
        // The clock may have been set back.
        request.reply(seconds(
            request.context.now_unix_ms.saturating_sub(last) / 1_000,
        ))
    }
}

fn seconds(n: u64) -> Node {
    Node::new("query", ns::LAST).with_attr("seconds", n.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Asked, OWN};
    use super::super::{Found, resume};
    use super::*;
    use xmpp::element::Element;

    #[test]
    fn the_answer_is_when_somebody_was_last_here() {
        let xml = "<iq type='get' id='1'><query xmlns='jabber:iq:last'/></iq>";
        let asked = Asked::new(OWN, xml);
        // 1163959115999 is now.
        let at = |login_ms, logout_ms| Activity {
            login_ms,
            logout_ms,
            ..Activity::default()
        };
        for (available, activity, want) in [
            (true, at(0, 0), Some("0")),
            (true, at(1, 2), Some("0")),
            (false, at(0, 0), None),
            (false, at(1_163_959_105_000, 0), Some("10")),
            (false, at(1_163_959_115_000, 1_163_959_055_999), Some("60")),
            (false, at(0, 1_263_959_115_999), Some("0")),
        ] {
            let request = asked.request();
            let wait = Wait::LastActivity(request.from.bare());
            assert_eq!(
                super::super::dispatch(&request),
                IqOutcome::Read(wait.clone())
            );
            let found = Found::LastActivity {
                available,
                activity,
            };
            let got = match resume(&request, &wait, &found) {
                IqOutcome::Reply(bytes) => {
                    let reply = Element::parse(bytes).expect("well-formed");
                    let query = reply.child("query", ns::LAST).expect("a query");
                    query.attr("seconds").map(|s| s.into_owned())
                }
                IqOutcome::Error(StanzaError::ItemNotFound, _) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(got.as_deref(), want, "{available} {activity:?}");
        }
    }
}
