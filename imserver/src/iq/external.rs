//! Services outside XMPP, XEP-0215: where calls find STUN and TURN, with credentials for those that want some.
//!
//! Credentials are made of a secret that the service shares with us, as TURN servers take them ("A REST API for access to TURN
//! services"): the user name is the second since 1970 at which they end, a colon and the localpart, and the password is
//! base64(HMAC-SHA1(secret, user name)). Nothing is kept of them. Only people of this server get them.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE};
use crate::settings::ExternalService;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::node::Node;
use xmpp::ns::EXTERNAL_SERVICES as NS;

/// XEP-0215 §3.1, §3.2.
pub const SERVICES: Extension = Extension {
    name: "services",
    ns: NS,
    server_features: &[],
    account_features: &[],
    get: Some(services),
    set: None,
};

/// XEP-0215 §3.3.
pub const CREDENTIALS: Extension = Extension {
    name: "credentials",
    ns: NS,
    server_features: &[],
    account_features: &[],
    get: Some(credentials),
    set: None,
};

/// Why there is no answer.
fn refused(request: &Request<'_>) -> Option<IqOutcome> {
    if request.target != Target::Server || request.context.external_services.is_empty() {
        return Some(UNAVAILABLE);
    }
    (!request.context.ours).then_some(IqOutcome::Error(StanzaError::Forbidden, None))
}

fn services(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    let kind = query.attr("type");
    let wanted = request.context.external_services.iter();
    let wanted = wanted.filter(|s| kind.as_deref().is_none_or(|kind| kind == s.kind));
    request.reply(
        Node::new("services", NS)
            .with_attr_opt("type", kind.as_deref())
            .with_children(wanted.map(|service| described(request, service))),
    )
}

/// §3.3: host and type say which, a port which of several. None that has credentials: `item-not-found`.
fn credentials(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if let Some(refused) = refused(request) {
        return refused;
    }
    let query = query.tree();
    let asked = query.child("service", NS);
    let Some((asked, host, kind)) = asked.and_then(|s| Some((s, s.attr("host")?, s.attr("type")?)))
    else {
        return IqOutcome::Error(StanzaError::BadRequest, None);
    };
    let port = asked.attr("port");
    let wanted = request.context.external_services.iter().filter(|s| {
        s.secret.is_some()
            && s.host.eq_ignore_ascii_case(host)
            && s.kind == kind
            && port.is_none_or(|port| port == s.port.to_string())
    });
    let found: Vec<Node> = wanted.map(|s| described(request, s)).collect();
    if found.is_empty() {
        return IqOutcome::Error(StanzaError::ItemNotFound, None);
    }
    request.reply(Node::new("credentials", NS).with_children(found))
}

/// With credentials, if it wants some: so nobody has to ask twice.
fn described(request: &Request<'_>, service: &ExternalService) -> Node {
    let node = Node::new("service", NS)
        .with_attr("type", service.kind.as_str())
        .with_attr("host", service.host.as_str())
        .with_attr("port", service.port.to_string())
        .with_attr("transport", service.transport)
        .with_attr_opt("name", service.label.as_deref());
    let Some(secret) = &service.secret else {
        return node;
    };
    let lasting_s = service.credentials_s;
    let end_s = request.context.now_unix_ms / 1_000 + lasting_s;
    let user = match request.from.localpart() {
        Some(localpart) => format!("{end_s}:{localpart}"),
        None => end_s.to_string(),
    };
    let password = password(secret.0.as_bytes(), &user);
    node.with_attr("restricted", "true")
        .with_attr("expires", crate::routing::stamp(end_s * 1_000))
        .with_attr("username", user)
        .with_attr("password", password)
}

fn password(secret: &[u8], user: &str) -> String {
    let mut mac =
        Hmac::<sha1::Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(user.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    /// Computed with openssl: printf %s USER | openssl dgst -sha1 -hmac SECRET -binary | base64
    #[test]
    fn passwords_are_those_of_turn_servers() {
        for (secret, user, password) in [
            ("north", "1433895918:juliet", "YnMXqcSIJWIZh2vnVne9I903MWM="),
            (
                "a longer secret",
                "1700000000",
                "gA0oXjaUvAfhAk+RsiWWsi7NO0Q=",
            ),
        ] {
            assert_eq!(super::password(secret.as_bytes(), user), password);
        }
    }
}
