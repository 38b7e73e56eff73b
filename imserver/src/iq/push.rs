//! Push notifications switched on and off, XEP-0357 §3 and §4: by a client, for itself. Who is told when, `crate::push` says.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use bytes::Bytes;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::jid::Jid;
use xmpp::ns;

/// Bytes of the options of one service: a secret or two.
const OPTIONS_BYTES_MAX: usize = 4_096;
/// Bytes of the name of a node.
const NODE_BYTES_MAX: usize = 1_023;

/// §3.
pub const ENABLE: Extension = Extension {
    name: "enable",
    ns: ns::PUSH,
    server_features: &[],
    account_features: &[ns::PUSH],
    get: None,
    set: Some(enable),
};

/// §4.
pub const DISABLE: Extension = Extension {
    name: "disable",
    ns: ns::PUSH,
    server_features: &[],
    account_features: &[],
    get: None,
    set: Some(disable),
};

/// A change of the sender's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The service, the node there, and the form to be sent along.
    Enable(Jid, String, Option<Bytes>),
    /// The service, and the node, or all of them.
    Disable(Jid, Option<String>),
}

/// The service and the node, of the sender's own account.
fn parts(request: &Request<'_>, child: &Child<'_>) -> Result<(Jid, Option<String>), IqOutcome> {
    let error = |condition, text| Err(IqOutcome::Error(condition, text));
    match request.target {
        Target::Account { own: true, .. } => {}
        Target::Account { may_see: true, .. } => return error(StanzaError::Forbidden, None),
        _ => return Err(UNAVAILABLE),
    }
    let Some(jid) = child.attr("jid") else {
        return error(StanzaError::BadRequest, Some("A service has a jid"));
    };
    let Ok(jid) = Jid::parse(&jid) else {
        return error(StanzaError::JidMalformed, None);
    };
    let node = child.attr("node").map(|n| n.into_owned());
    if node.as_ref().is_some_and(|n| n.len() > NODE_BYTES_MAX) {
        return error(StanzaError::NotAcceptable, Some("The node is too long"));
    }
    Ok((jid, node))
}

fn enable(request: &Request<'_>, child: Child<'_>) -> IqOutcome {
    let (jid, node) = match parts(request, &child) {
        Ok(parts) => parts,
        Err(refused) => return refused,
    };
    if jid.bare_str() == request.from.bare_str() {
        return IqOutcome::Error(StanzaError::NotAllowed, None);
    }
    let tree = child.tree();
    let options = tree.child("x", ns::DATA_FORMS).map(|x| x.to_bytes(""));
    if options
        .as_ref()
        .is_some_and(|o| o.len() > OPTIONS_BYTES_MAX)
    {
        let text = Some("The options are too long");
        return IqOutcome::Error(StanzaError::PolicyViolation, text);
    }
    IqOutcome::Push(Change::Enable(jid, node.unwrap_or_default(), options))
}

fn disable(request: &Request<'_>, child: Child<'_>) -> IqOutcome {
    match parts(request, &child) {
        Ok((jid, node)) => IqOutcome::Push(Change::Disable(jid, node)),
        Err(refused) => refused,
    }
}
