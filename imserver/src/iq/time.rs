//! Entity time, XEP-0202: the server's clock, in UTC.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use ::time::OffsetDateTime;
use ::time::macros::format_description;
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
    let seconds = i64::try_from(request.context.now_unix_ms / 1000).unwrap_or(0);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    let utc = now
        .format(format)
        .expect("the format has only parts that every time has");
    let text = |name, text: String| Node::new(name, NS).with_text(text);
    request.reply(
        Node::new("time", NS)
            .with_child(text("tzo", "+00:00".to_owned()))
            .with_child(text("utc", utc)),
    )
}
