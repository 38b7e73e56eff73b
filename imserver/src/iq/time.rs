//! Entity time, XEP-0202: the server's clock, in UTC.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::node::Node;

const NS: &str = "urn:xmpp:time";

/// XEP-0202.
pub const TIME: Extension = Extension {
    name: "time",
    ns: NS,
    server_features: &[NS],
    account_features: &[],
    get: Some(now),
    set: None,
};

fn now(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if request.target != Target::Server {
        return UNAVAILABLE;
    }
    let utc = crate::routing::stamp(request.context.now_unix_ms);
    let text = |name, text: String| Node::new(name, NS).with_text(text);
    request.reply(
        Node::new("time", NS)
            .with_child(text("tzo", "+00:00".to_owned()))
            .with_child(text("utc", utc)),
    )
}
