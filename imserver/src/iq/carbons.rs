//! Message carbons switched on and off, XEP-0280 §4 and §5: by the session, for itself.

use super::{Extension, IqOutcome, Request, UNAVAILABLE};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::ns;

/// §4.
pub const ENABLE: Extension = Extension {
    name: "enable",
    ns: ns::CARBONS,
    server_features: &[ns::CARBONS],
    account_features: &[],
    get: None,
    set: Some(enable),
};

/// §5.
pub const DISABLE: Extension = Extension {
    name: "disable",
    ns: ns::CARBONS,
    server_features: &[],
    account_features: &[],
    get: None,
    set: Some(disable),
};

fn enable(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    switch(request, true)
}

fn disable(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    switch(request, false)
}

/// §4.1: for oneself only.
fn switch(request: &Request<'_>, on: bool) -> IqOutcome {
    if request.own() {
        IqOutcome::Carbons(on)
    } else if request.visible() {
        IqOutcome::Error(StanzaError::NotAllowed, None)
    } else {
        UNAVAILABLE
    }
}
