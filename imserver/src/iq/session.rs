//! The session element of RFC 3921 §3, which did something in 2004: old clients still send it and wait for the result.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::ns;

/// RFC 3921 §3. Announced as a stream feature, not here.
pub const SESSION: Extension = Extension {
    name: "session",
    ns: ns::SESSION,
    server_features: &[],
    account_features: &[],
    get: None,
    set: Some(start),
};

/// To the server, or without `to`.
fn start(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if request.target == Target::Server || request.own() {
        IqOutcome::Reply(request.result(None))
    } else {
        UNAVAILABLE
    }
}
