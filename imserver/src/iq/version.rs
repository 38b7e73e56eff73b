//! Software version, XEP-0092. The operating system stays unsaid (§5: it helps attackers).

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::node::Node;
use xmpp::ns;

/// XEP-0092.
pub const VERSION: Extension = Extension {
    name: "query",
    ns: ns::VERSION,
    server_features: &[ns::VERSION],
    account_features: &[],
    get: Some(version),
    set: None,
};

fn version(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if request.target != Target::Server {
        return UNAVAILABLE;
    }
    let text = |name, text: &str| Node::new(name, ns::VERSION).with_text(text);
    request.reply(
        Node::new("query", ns::VERSION)
            .with_child(text("name", "Isthmus"))
            .with_child(text("version", env!("CARGO_PKG_VERSION"))),
    )
}
