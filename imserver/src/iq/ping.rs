//! Ping, XEP-0199: the server answers for itself and for an account that the sender may know of.

use super::{Extension, IqOutcome, Request, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::ns;

/// XEP-0199.
pub const PING: Extension = Extension {
    name: "ping",
    ns: ns::PING,
    server_features: &[ns::PING],
    account_features: &[ns::PING],
    get: Some(ping),
    set: None,
};

fn ping(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if request.visible() {
        IqOutcome::Reply(request.result(None))
    } else {
        UNAVAILABLE
    }
}
