//! User search, XEP-0055, at the address of a domain: whom the directories of that domain know.
//!
//! The fields of the first kind (`first`, `last`, `nick`, `email`) and the data form ask the same; an answer comes in the way
//! that the question came. `*` at the end of a word stands for anything; everywhere else it is a character.
//!
//! Never: searches a domain for people of another, unless that is configured; answers an outage with "nobody".

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait, plain};
use directory::backend::{Person, SearchAnswer, SearchQuery};
use xmpp::element::Child;
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::Jid;
use xmpp::node::Node;
use xmpp::ns;

/// Characters of one field: the longest names have about a hundred.
pub const FIELD_CHARS_MAX: usize = 200;

const INSTRUCTIONS: &str =
    "Fill in one or more fields. An asterisk at the end of a word stands for anything.";

/// The fields of both kinds: name, label.
const FIELDS: [(&str, &str); 4] = [
    ("first", "Given name"),
    ("last", "Family name"),
    ("nick", "Nickname"),
    ("email", "Email"),
];

/// XEP-0055. Announced by the domains that can be searched (`disco`).
pub const SEARCH: Extension = Extension {
    name: "query",
    ns: ns::SEARCH,
    server_features: &[],
    account_features: &[],
    get: Some(get),
    set: Some(set),
};

/// The domain that is asked, if it can be searched and the sender may.
fn domain<'a>(request: &Request<'a>) -> Result<&'a str, IqOutcome> {
    let people = request.context.people;
    let (Target::Server, Some(Jid::Bare(to))) = (request.target, request.to) else {
        return Err(UNAVAILABLE);
    };
    let domain = to.domainpart();
    if !people.searches(domain) {
        return Err(UNAVAILABLE);
    }
    if !people.search_across && request.from.domainpart() != domain {
        return Err(IqOutcome::Error(StanzaError::Forbidden, None));
    }
    Ok(domain)
}

/// §2.1, §3.
fn get(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    if let Err(refused) = domain(request) {
        return refused;
    }
    let text = |name: &'static str, text: &str| Node::new(name, ns::SEARCH).with_text(text);
    let query = Node::new("query", ns::SEARCH)
        .with_child(text("instructions", INSTRUCTIONS))
        .with_children(FIELDS.map(|(name, _)| Node::new(name, ns::SEARCH)))
        .with_child(form().to_node());
    request.reply(query)
}

fn form() -> Form {
    let form = Form::of_type(FormType::Form, ns::SEARCH)
        .titled("Search for people", INSTRUCTIONS)
        .with(Field::new(FieldType::TextSingle, "any", "Name or address"));
    FIELDS.iter().fold(form, |form, (name, label)| {
        form.with(Field::new(FieldType::TextSingle, *name, label))
    })
}

/// §2.2, §3.
fn set(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    let domain = match domain(request) {
        Ok(domain) => domain,
        Err(refused) => return refused,
    };
    let query = match asked(&query.tree()) {
        Ok(query) => query,
        Err(text) => {
            // Words of a form that was not understood are for the person who filled it in.
            return request.refusal(StanzaError::BadRequest, &text);
        }
    };
    let fields = [
        &query.any,
        &query.given_name,
        &query.family_name,
        &query.nickname,
        &query.mail,
    ];
    let given: Vec<&String> = fields.into_iter().flatten().collect();
    if given.is_empty() {
        return IqOutcome::Error(
            StanzaError::NotAcceptable,
            Some("Fill in at least one field"),
        );
    }
    if given.iter().any(|f| f.chars().count() > FIELD_CHARS_MAX) {
        return IqOutcome::Error(StanzaError::NotAcceptable, Some("A field is too long"));
    }
    IqOutcome::Read(Wait::Search {
        domain: domain.to_owned(),
        query: Box::new(query),
    })
}

fn submitted(query: &Node) -> Option<&Node> {
    query.child("x", ns::DATA_FORMS)
}

fn asked(query: &Node) -> Result<SearchQuery, String> {
    let submitted = submitted(query)
        .map(|x| Form::parse(x).and_then(|answer| form().check(&answer)))
        .transpose()
        .map_err(|e| e.to_string())?;
    let field = |name: &str| {
        let value = match &submitted {
            Some(form) => form.value(name).unwrap_or_default().to_owned(),
            None => query
                .child(name, ns::SEARCH)
                .map(|n| n.text().into_owned())
                .unwrap_or_default(),
        };
        plain(&value)
    };
    Ok(SearchQuery {
        any: submitted.as_ref().and_then(|_| field("any")),
        given_name: field("first"),
        family_name: field("last"),
        nickname: field("nick"),
        mail: field("email"),
    })
}

/// The answer: a form where a form was asked, else the items of §2.2.
pub fn found(request: &Request<'_>, answer: &SearchAnswer) -> IqOutcome {
    let with_form = request
        .element
        .child("query", ns::SEARCH)
        .is_some_and(|query| submitted(&query.tree()).is_some());
    let query = Node::new("query", ns::SEARCH);
    request.reply(if with_form {
        query.with_child(result(answer).to_node())
    } else {
        query.with_children(answer.people.iter().map(item))
    })
}

/// What is shown of somebody, in the order of [`FIELDS`]; empty where nothing is known.
fn shown(person: &Person) -> [String; 4] {
    let profile = &person.profile;
    let text = |value: Option<&String>| value.and_then(|v| plain(v)).unwrap_or_default();
    let nick = match text(profile.name.as_ref()) {
        none if none.is_empty() => person.jid.localpart().unwrap_or_default().to_owned(),
        name => name,
    };
    [
        text(profile.given_name.as_ref()),
        text(profile.family_name.as_ref()),
        nick,
        text(profile.mail.first()),
    ]
}

fn item(person: &Person) -> Node {
    let fields = FIELDS.iter().zip(shown(person));
    Node::new("item", ns::SEARCH)
        .with_attr("jid", person.jid.as_str())
        .with_children(fields.map(|((name, _), value)| {
            let node = Node::new(*name, ns::SEARCH);
            match value.is_empty() {
                true => node,
                false => node.with_text(value),
            }
        }))
}

fn result(answer: &SearchAnswer) -> Form {
    let told = match (answer.people.len(), answer.more) {
        (0, _) => "Nobody was found.".to_owned(),
        (n, true) => {
            format!("Only the first {n} are shown; there are more. Say more of whom you look for.")
        }
        (_, false) => String::new(),
    };
    let mut form = Form::of_type(FormType::Result, ns::SEARCH)
        .titled("People", &told)
        .reporting(FieldType::JidSingle, "jid", "Address");
    for (name, label) in FIELDS {
        form = form.reporting(FieldType::TextSingle, name, label);
    }
    for person in &answer.people {
        let mut row = vec![("jid".to_owned(), vec![person.jid.as_str().to_owned()])];
        let fields = FIELDS.iter().zip(shown(person));
        row.extend(fields.map(|((name, _), value)| ((*name).to_owned(), vec![value])));
        form.items.push(row);
    }
    form
}
