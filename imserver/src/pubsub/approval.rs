//! The form by which an owner is asked whether somebody may subscribe, and says so (XEP-0060 §8.6).
//!
//! In: who wants to subscribe to what; messages. Out: the question as a message; what an owner has answered.
//! Never: takes a message for an answer that says itself that it is something else.

use super::Refusal;
use super::ask::Ask;
use super::ask::id_of;
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

const NODE: &str = "pubsub#node";
const SUBSCRIBER: &str = "pubsub#subscriber_jid";
const ALLOW: &str = "pubsub#allow";

/// The message that asks the owner.
pub fn request(owner: &BareJid, id: &str, node: &str, subscriber: &Jid) -> Bytes {
    let text = format!("{} asks to subscribe to {node}", subscriber.as_str());
    let instructions =
        "Submit the form to say whether they may. Whoever cancels it leaves the request as it is.";
    let form = Form::of_type(FormType::Form, ns::PUBSUB_AUTHORIZATION)
        .titled("Request to subscribe", instructions)
        .with(Field::new(FieldType::TextSingle, NODE, "Node").with(node))
        .with(Field::new(FieldType::JidSingle, SUBSCRIBER, "Subscriber").with(subscriber.as_str()))
        .with(
            Field::new(
                FieldType::Boolean,
                ALLOW,
                "Let them subscribe to this node?",
            )
            .with("false"),
        );
    Node::new("message", ns::CLIENT)
        .with_attr("from", owner.as_str())
        .with_attr("to", owner.as_str())
        .with_attr("id", id)
        .with_child(Node::new("body", ns::CLIENT).with_text(text))
        .with_child(form.to_node())
        .to_bytes(ns::CLIENT)
}

/// Whether a message may be an answer: most are not, and are not looked into.
pub fn may_be_answer(message: &[u8]) -> bool {
    memchr::memmem::find(message, b"subscribe_authorization").is_some()
}

/// What an owner answers: `Ok(None)`: nothing, the request stays as it is. `None`: the message is no answer, and goes on.
pub fn answer(message: &Element) -> Option<Result<Option<Ask>, Refusal>> {
    let forms = message.children().filter(|c| c.is("x", ns::DATA_FORMS));
    let forms: Vec<Node> = forms.map(|c| c.tree()).collect();
    let form = forms.iter().find(|x| is_answer(x))?;
    if forms.len() > 1 {
        return Some(Err(wrong("Answer with one form at a time")));
    }
    Some(read(form))
}

fn is_answer(x: &Node) -> bool {
    let of_type = |field: &Node| {
        let value = field.child("value", ns::DATA_FORMS).map(|v| v.text());
        field.attr("var") == Some("FORM_TYPE")
            && value.is_some_and(|v| v == ns::PUBSUB_AUTHORIZATION)
    };
    // One that is to be filled in, or is only shown, answers nothing.
    !matches!(x.attr("type"), Some("form" | "result")) && x.children().any(of_type)
}

fn wrong(text: impl Into<String>) -> Refusal {
    Refusal::saying(StanzaError::BadRequest, text)
}

fn read(x: &Node) -> Result<Option<Ask>, Refusal> {
    let form = Form::parse(x).map_err(|e| wrong(e.to_string()))?;
    if form.kind == FormType::Cancel {
        return Ok(None);
    }
    let value = |var: &str| {
        let missing = || wrong(format!("The form does not say {var}"));
        form.value(var).ok_or_else(missing)
    };
    let node = value(NODE)
        .map_err(|refusal| Refusal {
            pubsub: Some("nodeid-required"),
            ..refusal
        })
        .and_then(id_of)?;
    let invalid = |_| Refusal::because(StanzaError::BadRequest, "invalid-jid");
    let subscriber = Jid::parse(value(SUBSCRIBER)?.trim()).map_err(invalid)?;
    let allow = match value(ALLOW)?.trim() {
        "1" | "true" => true,
        "0" | "false" => false,
        _ => return Err(wrong(format!("{ALLOW} is true or false"))),
    };
    Ok(Some(Ask::Approve(node, subscriber, allow)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(inside: &str) -> Option<Result<Option<Ask>, Refusal>> {
        let message = format!("<message from='a@b/c' to='a@b' id='1'>{inside}</message>");
        let message = Element::parse(message.into_bytes().into()).expect("well-formed");
        answer(&message)
    }

    fn field(var: &str, value: &str) -> String {
        format!("<field var='{var}'><value>{value}</value></field>")
    }

    fn form(kind: &str, fields: &[(&str, &str)]) -> String {
        let fields: String = fields
            .iter()
            .map(|(var, value)| field(var, value))
            .collect();
        format!("<x xmlns='jabber:x:data' type='{kind}'>{fields}</x>")
    }

    const TYPE: (&str, &str) = ("FORM_TYPE", ns::PUBSUB_AUTHORIZATION);

    #[test]
    fn an_answer_is_read() {
        for (word, allow) in [("true", true), ("1", true), ("false", false), ("0", false)] {
            let fields = [TYPE, (NODE, "n"), (SUBSCRIBER, "x@y"), (ALLOW, word)];
            let expected = Ask::Approve("n".into(), Jid::parse("x@y").expect("valid"), allow);
            assert_eq!(
                answered(&form("submit", &fields)),
                Some(Ok(Some(expected))),
                "{word}"
            );
        }
        assert_eq!(answered(&form("cancel", &[TYPE])), Some(Ok(None)));
    }

    #[test]
    fn what_is_no_answer_goes_on() {
        let all = [TYPE, (NODE, "n"), (SUBSCRIBER, "x@y"), (ALLOW, "1")];
        for inside in [
            String::new(),
            "<body>subscribe_authorization</body>".into(),
            form("form", &all),
            form("result", &all),
            form("submit", &all[1..]),
            form(
                "submit",
                &[("FORM_TYPE", "jabber:iq:search"), all[1], all[2], all[3]],
            ),
            form("submit", &[("x", ns::PUBSUB_AUTHORIZATION)]),
        ] {
            assert_eq!(answered(&inside), None, "{inside}");
        }
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        let long = "n".repeat(super::super::ID_BYTES_MAX + 1);
        let good = form(
            "submit",
            &[TYPE, (NODE, "n"), (SUBSCRIBER, "x@y"), (ALLOW, "1")],
        );
        for inside in [
            good.repeat(2),
            format!("{good}{}", form("form", &[])),
            form("submit", &[TYPE]),
            form("", &[TYPE]),
            form("other", &[TYPE]),
            form("submit", &[TYPE, (SUBSCRIBER, "x@y"), (ALLOW, "1")]),
            form(
                "submit",
                &[TYPE, (NODE, ""), (SUBSCRIBER, "x@y"), (ALLOW, "1")],
            ),
            form(
                "submit",
                &[TYPE, (NODE, &long), (SUBSCRIBER, "x@y"), (ALLOW, "1")],
            ),
            form("submit", &[TYPE, (NODE, "n"), (ALLOW, "1")]),
            form(
                "submit",
                &[TYPE, (NODE, "n"), (SUBSCRIBER, "@"), (ALLOW, "1")],
            ),
            form("submit", &[TYPE, (NODE, "n"), (SUBSCRIBER, "x@y")]),
            form(
                "submit",
                &[TYPE, (NODE, "n"), (SUBSCRIBER, "x@y"), (ALLOW, "yes")],
            ),
        ] {
            let answer = answered(&inside).expect("it is meant as an answer");
            assert!(answer.is_err(), "{inside}");
        }
    }

    #[test]
    fn what_is_asked_is_no_answer_and_becomes_one_when_it_is_filled_in() {
        let owner = Jid::parse("juliet@example.org").expect("valid").bare();
        let subscriber = Jid::parse("romeo@example.org/'&<\"").expect("valid");
        let message = Element::parse(request(&owner, "id", "a<&'n", &subscriber));
        let message = message.expect("well-formed");
        assert!(may_be_answer(message.raw()));
        assert_eq!(answer(&message), None);
        let x = message.child("x", ns::DATA_FORMS).expect("the form").tree();
        let mut form = Form::parse(&x).expect("a form");
        assert_eq!(form.value(ALLOW), Some("false"));
        form.kind = FormType::Submit;
        let submitted = Node::new("message", ns::CLIENT).with_child(form.to_node());
        let submitted = Element::parse(submitted.to_bytes(ns::CLIENT)).expect("well-formed");
        let expected = Ask::Approve("a<&'n".into(), subscriber, false);
        assert_eq!(answer(&submitted), Some(Ok(Some(expected))));
    }
}
