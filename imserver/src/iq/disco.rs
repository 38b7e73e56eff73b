//! Service discovery, XEP-0030: who the server and an account are, and what they can do.
//!
//! The features are those of [`EXTENSIONS`] and nothing else. An account is described to those who may see its
//! presence; anybody else gets the error of an account that does not exist (XEP-0030 §8).

use super::pubsub::PEP_FEATURES;
use super::{EXTENSIONS, Extension, IqOutcome, OTHER_SERVER_FEATURES, Request, Target, commands};
use crate::pubsub::ask::Ask;
use crate::settings::Contact;
use bytes::Bytes;
use std::collections::BTreeSet;
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::node::Node;
use xmpp::ns;
use xmpp::ns::{COMMANDS, DISCO_INFO, DISCO_ITEMS, STANZA_ID};

/// XEP-0030 §3.
pub const INFO: Extension = Extension {
    name: "query",
    ns: DISCO_INFO,
    server_features: &[DISCO_INFO],
    account_features: &[DISCO_INFO],
    get: Some(info),
    set: None,
};

/// XEP-0030 §4.
pub const ITEMS: Extension = Extension {
    name: "query",
    ns: DISCO_ITEMS,
    server_features: &[DISCO_ITEMS],
    account_features: &[DISCO_ITEMS],
    get: Some(items),
    set: None,
};

fn info(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    let node = query.attr("node");
    if request.target != Target::Server && (node.is_some() || !request.visible()) {
        return IqOutcome::Pubsub(Box::new(Ask::Info(node.map(|n| n.into_owned()))));
    }
    if let Some(node) = node {
        return match commands::info(request, &node) {
            Some(info) => request.reply(info),
            None => IqOutcome::Error(StanzaError::ItemNotFound, None),
        };
    }
    IqOutcome::Reply(describe(request))
}

/// What there is to say of the server, or of an account to somebody who may know of it.
pub fn describe(request: &Request<'_>) -> Bytes {
    let server = request.target == Target::Server;
    let identity = match server {
        true => Node::new("identity", DISCO_INFO)
            .with_attr("category", "server")
            .with_attr("type", "im")
            .with_attr("name", "Isthmus"),
        false => Node::new("identity", DISCO_INFO)
            .with_attr("category", "account")
            .with_attr("type", "registered"),
    };
    let pep = Node::new("identity", DISCO_INFO)
        .with_attr("category", "pubsub")
        .with_attr("type", "pep");
    let mut features = features(server);
    if !server {
        features.extend(PEP_FEATURES);
    }
    let domain = request.to.map_or("", xmpp::jid::Jid::domainpart);
    if server && request.context.people.searches(domain) {
        // XEP-0055 §4: only where there is something to search.
        features.insert(xmpp::ns::SEARCH);
    }
    if server && !request.context.external_services.is_empty() {
        features.insert(ns::EXTERNAL_SERVICES);
    }
    if !server && request.context.archive {
        // XEP-0359 §5: who says the ids.
        features.insert(STANZA_ID);
        features.extend(super::archive::FEATURES);
        if request.context.archive_search {
            features.insert(super::archive::SEARCH_FEATURE);
        }
    }
    if commands::any(request) {
        features.insert(COMMANDS);
    }
    let contacts = request.context.contacts.get(domain);
    let contacts = contacts.filter(|_| server).map(|c| contact_form(c));
    let features = features
        .into_iter()
        .map(|var| Node::new("feature", DISCO_INFO).with_attr("var", var));
    request.result(Some(
        &Node::new("query", DISCO_INFO)
            .with_child(identity)
            .with_children((!server).then_some(pep))
            .with_children(features)
            .with_children(contacts),
    ))
}

/// XEP-0157 §3, in the way of XEP-0128.
fn contact_form(contacts: &[Contact]) -> Node {
    let form = Form::of_type(FormType::Result, ns::SERVER_INFO);
    let form = contacts.iter().fold(form, |form, contact| {
        let field = Field::new(FieldType::ListMulti, contact.field, "");
        let addresses = contact.addresses.iter();
        form.with(addresses.fold(field, |field, address| field.with(address.as_str())))
    });
    form.to_node()
}

/// What is announced by every domain, or account, sorted.
pub fn features(server: bool) -> BTreeSet<&'static str> {
    let own = EXTENSIONS.iter().flat_map(|e| {
        if server {
            e.server_features
        } else {
            e.account_features
        }
    });
    let other = if server { OTHER_SERVER_FEATURES } else { &[] };
    own.chain(other).copied().collect()
}

/// The server's services, or an account's nodes; its resources are known to who gets its presence (§4.1: MAY).
fn items(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    if request.target != Target::Server {
        let node = query.attr("node").map(|n| n.into_owned());
        return IqOutcome::Pubsub(Box::new(Ask::Nodes(node)));
    }
    if let Some(node) = query.attr("node") {
        return match commands::items(request, &node) {
            Some(items) => request.reply(items),
            None => IqOutcome::Error(StanzaError::ItemNotFound, None),
        };
    }
    let items = request.context.services.iter().map(|service| {
        Node::new("item", DISCO_ITEMS)
            .with_attr("jid", service.jid.as_str())
            .with_attr_opt("name", service.name.as_deref())
    });
    request.reply(Node::new("query", DISCO_ITEMS).with_children(items))
}
