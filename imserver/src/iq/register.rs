//! In-band registration, XEP-0077: an account for a stranger, another password or the end of it for its owner.
//!
//! In: an IQ on a stream that has not logged in ([`before_login`]), or one of an account about itself. Out: the answer, or what
//! the directory must be asked.
//! Never: takes a password over a connection that anybody can read; says anything of an account to anybody else.

use super::{Extension, IqOutcome, Request, Target, UNAVAILABLE, Wait, plain};
use crate::event::{AccountAnswer, Secret};
use crate::settings::People;
use bytes::Bytes;
use directory::backend::Registration;
use xmpp::element::{Child, Element};
use xmpp::error::{ErrorReply, StanzaError, stanza_error_with};
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stanza::{Iq, IqType, iq_result_with};

/// Bytes of a password: more is no password, and each costs a hash over all of it.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Characters of a name or mail address.
pub const FIELD_CHARS_MAX: usize = 200;

const INSTRUCTIONS: &str = "Choose a user name and a password for an account on this server.";

/// XEP-0077, after log-in.
pub const REGISTER: Extension = Extension {
    name: "query",
    ns: ns::REGISTER,
    server_features: &[ns::REGISTER],
    account_features: &[],
    get: Some(get),
    set: Some(set),
};

// ---- after log-in ---------------------------------------------------------------------------------------

/// The account of the sender, if it asks about itself: at its own address or at its domain (which the shard sends here as well).
fn own_account(request: &Request<'_>) -> Option<BareJid> {
    request.own().then(|| request.from.bare())
}

/// §3.1: who is registered is told so.
fn get(request: &Request<'_>, _: Child<'_>) -> IqOutcome {
    match (own_account(request), request.target) {
        (Some(account), _) => {
            let field = |name: &'static str| Node::new(name, ns::REGISTER);
            let localpart = account.localpart().unwrap_or_default();
            request.reply(
                Node::new("query", ns::REGISTER)
                    .with_child(field("registered"))
                    .with_child(field("username").with_text(localpart))
                    .with_child(field("password")),
            )
        }
        (None, Target::Server) => IqOutcome::Error(StanzaError::Forbidden, None),
        (None, Target::Account { .. }) => UNAVAILABLE,
    }
}

/// §3.2, §3.3.
fn set(request: &Request<'_>, query: Child<'_>) -> IqOutcome {
    let Some(account) = own_account(request) else {
        return match request.target {
            Target::Server => IqOutcome::Error(StanzaError::Forbidden, None),
            Target::Account { .. } => UNAVAILABLE,
        };
    };
    let people = request.context.people;
    let query = query.tree();
    if query.child("remove", ns::REGISTER).is_some() {
        // §3.2 table 2: nothing else may be there.
        if query.children().count() != 1 {
            return IqOutcome::Error(StanzaError::BadRequest, None);
        }
        if !people.registers(account.domainpart()) {
            return IqOutcome::Error(StanzaError::NotAllowed, None);
        }
        return IqOutcome::Read(Wait::Unregister(account));
    }
    let wanted = match Wanted::of(&query) {
        Ok(wanted) => wanted,
        Err(text) => return request.refusal(StanzaError::BadRequest, &text),
    };
    if !request.context.secure {
        // §3.3 table 3.
        return IqOutcome::Error(
            StanzaError::NotAuthorized,
            Some("This connection is not encrypted"),
        );
    }
    let (Some(name), Some(password)) = (wanted.username, wanted.password) else {
        return IqOutcome::Error(
            StanzaError::BadRequest,
            Some("The user name and a new password are needed"),
        );
    };
    if BareJid::from_parts(Some(&name), account.domainpart()).ok() != Some(account.clone()) {
        return IqOutcome::Error(
            StanzaError::NotAllowed,
            Some("Only one's own password can be changed"),
        );
    }
    if let Err(text) = fits(&password, people) {
        return request.refusal(StanzaError::NotAcceptable, &text);
    }
    IqOutcome::Read(Wait::Password(account, Secret(password)))
}

/// What became of the change.
pub fn changed(request: &Request<'_>, answer: &AccountAnswer) -> IqOutcome {
    match condition(answer) {
        None => IqOutcome::Reply(request.result(None)),
        Some((condition, text)) => request.refusal(condition, text.as_deref().unwrap_or_default()),
    }
}

// ---- before log-in --------------------------------------------------------------------------------------

/// What is to be done about an IQ of somebody who has no account.
#[derive(Debug)]
pub enum Stranger {
    /// Send this.
    Reply(Bytes),
    /// Ask the directory, then [`registered`].
    Register {
        /// What they want.
        registration: Registration,
        /// The IQ.
        id: String,
    },
}

/// §3.1 at a stream of this domain.
pub fn before_login(element: &Element, domain: &str, people: &People) -> Stranger {
    let refuse = |condition, text: &str| {
        let text = Some(text).filter(|t| !t.is_empty());
        let reply = ErrorReply {
            from: Some(domain),
            text,
            ..ErrorReply::default()
        };
        Stranger::Reply(stanza_error_with(element, condition, reply).unwrap_or_default())
    };
    let iq = match Iq::of(element) {
        Ok(iq) => iq,
        Err(condition) => return refuse(condition, ""),
    };
    let elsewhere = element
        .attr("to")
        .is_some_and(|to| !Jid::parse(&to).is_ok_and(|to| to.as_str() == domain));
    let Some(query) = iq
        .payload
        .filter(|p| p.is("query", ns::REGISTER) && !elsewhere)
    else {
        return refuse(StanzaError::ServiceUnavailable, "");
    };
    match iq.iq_type {
        IqType::Get => Stranger::Reply(iq_result_with(element, Some(domain), None, Some(&offer()))),
        IqType::Set => {
            let query = query.tree();
            if query.child("remove", ns::REGISTER).is_some() {
                // §3.2 table 2.
                return refuse(StanzaError::RegistrationRequired, "");
            }
            match Wanted::of(&query).and_then(|wanted| wanted.registration(domain, people)) {
                Ok(registration) => Stranger::Register {
                    registration,
                    id: iq.id.into_owned(),
                },
                Err(text) => refuse(StanzaError::NotAcceptable, &text),
            }
        }
        IqType::Result | IqType::Error => refuse(StanzaError::BadRequest, ""),
    }
}

/// The answer to the IQ of this id.
pub fn registered(id: &str, domain: &str, answer: &AccountAnswer) -> Bytes {
    let iq = |kind: &'static str| {
        Node::new("iq", ns::CLIENT)
            .with_attr("type", kind)
            .with_attr("id", id)
            .with_attr("from", domain)
    };
    let iq = match condition(answer) {
        None => iq("result"),
        Some((condition, text)) => {
            let error = condition.child_bytes(condition.error_type(), text.as_deref());
            iq("error").with_raw(error)
        }
    };
    iq.to_bytes(ns::CLIENT)
}

/// §3.1.1 and §4: both kinds of form.
fn offer() -> Node {
    let field = |name: &'static str| Node::new(name, ns::REGISTER);
    Node::new("query", ns::REGISTER)
        .with_child(field("instructions").with_text(INSTRUCTIONS))
        .with_child(field("username"))
        .with_child(field("password"))
        .with_child(field("name"))
        .with_child(field("email"))
        .with_child(form().to_node())
}

fn form() -> Form {
    Form::of_type(FormType::Form, ns::REGISTER)
        .titled("A new account", INSTRUCTIONS)
        .with(Field::new(FieldType::TextSingle, "username", "User name").required())
        .with(Field::new(FieldType::TextPrivate, "password", "Password").required())
        .with(Field::new(FieldType::TextSingle, "name", "Your name"))
        .with(Field::new(FieldType::TextSingle, "email", "Email"))
}

/// What was filled in, in either kind of form.
#[derive(Default)]
struct Wanted {
    username: Option<String>,
    password: Option<String>,
    name: Option<String>,
    mail: Option<String>,
}

impl Wanted {
    fn of(query: &Node) -> Result<Self, String> {
        let submitted = query
            .child("x", ns::DATA_FORMS)
            .map(|x| Form::parse(x).and_then(|answer| form().check(&answer)))
            .transpose()
            .map_err(|e| e.to_string())?;
        let field = |name: &str| match &submitted {
            Some(form) => form.value(name).map(str::to_owned),
            None => query
                .child(name, ns::REGISTER)
                .map(|n| n.text().into_owned())
                .filter(|t| !t.is_empty()),
        };
        Ok(Wanted {
            username: field("username"),
            password: field("password"),
            name: field("name").and_then(|v| plain(&v)),
            mail: field("email").and_then(|v| plain(&v)),
        })
    }

    fn registration(self, domain: &str, people: &People) -> Result<Registration, String> {
        let (Some(name), Some(password)) = (self.username, self.password) else {
            return Err("A user name and a password are needed".into());
        };
        let jid = BareJid::from_parts(Some(&name), domain)
            .ok()
            .filter(|jid| jid.localpart().is_some())
            .ok_or("This user name cannot be part of an address")?;
        fits(&password, people)?;
        let long = |v: &Option<String>| {
            v.as_ref()
                .is_some_and(|v| v.chars().count() > FIELD_CHARS_MAX)
        };
        if long(&self.name) || long(&self.mail) {
            return Err("A field is too long".into());
        }
        Ok(Registration {
            jid,
            password,
            name: self.name,
            mail: self.mail,
        })
    }
}

/// Whether this may become a password here.
fn fits(password: &str, people: &People) -> Result<(), String> {
    if password.len() < people.password_bytes_min {
        let min = people.password_bytes_min;
        return Err(format!(
            "The password is too short: it needs {min} characters"
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err("The password is too long".into());
    }
    Ok(())
}

/// How a change that was not made is told.
fn condition(answer: &AccountAnswer) -> Option<(StanzaError, Option<String>)> {
    let told = |condition, text: &str| Some((condition, Some(text.to_owned())));
    match answer {
        AccountAnswer::Done => None,
        AccountAnswer::Exists => told(StanzaError::Conflict, "This user name is taken"),
        AccountAnswer::Refused(why) => told(StanzaError::NotAcceptable, why),
        AccountAnswer::NotHere => told(
            StanzaError::NotAllowed,
            "This is changed elsewhere: ask your administrator",
        ),
        AccountAnswer::TooMany => told(
            StanzaError::ResourceConstraint,
            "There were too many registrations in the last hour; try again later",
        ),
        AccountAnswer::Unavailable => told(
            StanzaError::ResourceConstraint,
            "The directory does not answer; try again later",
        ),
    }
}
