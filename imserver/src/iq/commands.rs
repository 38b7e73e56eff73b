//! Ad-hoc commands, XEP-0050, at the server: what there is, and the way to who runs them (`admin::adhoc`, not on a shard).
//!
//! Never: shows a command to who may not run it.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait};
use crate::admin::adhoc::{ADHOC, Adhoc};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::node::Node;
use xmpp::ns::{COMMANDS, DATA_FORMS, DISCO_INFO, DISCO_ITEMS};

/// XEP-0050. Announced only to who may run one: `disco`.
pub const COMMAND: Extension = Extension {
    name: "command",
    ns: COMMANDS,
    server_features: &[],
    account_features: &[],
    get: None,
    set: Some(set),
};

/// Commands of the sender.
fn allowed<'a>(request: &Request<'a>) -> impl Iterator<Item = &'static Adhoc> + use<'a> {
    let (rights, server) = (request.context.rights, request.target == Target::Server);
    ADHOC.iter().filter(move |c| server && c.is_allowed(rights))
}

/// Whether there is any for the sender.
pub fn any(request: &Request<'_>) -> bool {
    allowed(request).next().is_some()
}

fn set(request: &Request<'_>, command: Child<'_>) -> IqOutcome {
    if request.target != Target::Server {
        return UNAVAILABLE;
    }
    if !any(request) {
        return IqOutcome::Error(StanzaError::Forbidden, None);
    }
    IqOutcome::Read(Wait::Command(command.tree()))
}

/// `disco#items` of the list of commands (§2.2). `None`: the node is none of ours, for this sender.
pub fn items(request: &Request<'_>, node: &str) -> Option<Node> {
    let jid = request.to?.as_str();
    if node != COMMANDS || !any(request) {
        return None;
    }
    let items = allowed(request).map(|c| {
        Node::new("item", DISCO_ITEMS)
            .with_attr("jid", jid)
            .with_attr("node", c.full_node())
            .with_attr("name", c.name)
    });
    let query = Node::new("query", DISCO_ITEMS).with_attr("node", node);
    Some(query.with_children(items))
}

/// `disco#info` of the list, and of one command (§2.3). `None`: the node is none of ours, for this sender.
pub fn info(request: &Request<'_>, node: &str) -> Option<Node> {
    let (kind, name) = match node == COMMANDS && any(request) {
        true => ("command-list", "Administration"),
        false => {
            let command = allowed(request).find(|c| c.full_node() == node)?;
            ("command-node", command.name)
        }
    };
    let identity = Node::new("identity", DISCO_INFO)
        .with_attr("category", "automation")
        .with_attr("type", kind)
        .with_attr("name", name);
    let features =
        [COMMANDS, DATA_FORMS].map(|var| Node::new("feature", DISCO_INFO).with_attr("var", var));
    let query = Node::new("query", DISCO_INFO).with_attr("node", node);
    Some(query.with_child(identity).with_children(features))
}
