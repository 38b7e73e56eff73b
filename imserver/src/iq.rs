//! IQs that the server answers: for itself, or on behalf of an account (RFC 6121 §8.5.2.1.3).
//!
//! In: an IQ of type get or set, who asks, who is asked.
//! Out: an [`IqOutcome`]: the answer, or what must be read, written or done for it.
//! Owns: [`EXTENSIONS`], from which service discovery makes its list: what is announced is what is there.
//! Never: answers a result or an error; tells a stranger whether an account exists or is online.
//!
//! To add an extension: one file in this folder with an [`Extension`], one line in [`EXTENSIONS`].

pub mod archive;
pub mod blocking;
mod carbons;
mod commands;
pub mod disco;
mod external;
pub mod known;
mod last;
mod ping;
pub mod private;
pub mod pubsub;
pub mod push;
pub mod register;
pub mod roster;
pub mod search;
mod session;
mod time;
pub mod vcard;
mod version;

use crate::admin::adhoc::Outcome;
use crate::event::{AccountAnswer, CardFacts, Secret};
use crate::policy::Rights;
use crate::settings::{Contacts, ExternalService, People};
use bytes::Bytes;
use directory::backend::{SearchAnswer, SearchQuery};
use xmpp::element::{Child, Element};
use xmpp::error::{ErrorReply, StanzaError, stanza_error_with};
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::stanza::{Iq, IqType, iq_result_with};

/// Everything that is answered here, in the order of the files.
pub const EXTENSIONS: &[&Extension] = &[
    &archive::QUERY,
    &archive::METADATA,
    &archive::PREFS,
    &blocking::BLOCKLIST,
    &blocking::BLOCK,
    &blocking::UNBLOCK,
    &carbons::ENABLE,
    &carbons::DISABLE,
    &commands::COMMAND,
    &disco::INFO,
    &disco::ITEMS,
    &external::SERVICES,
    &external::CREDENTIALS,
    &last::LAST,
    &ping::PING,
    &private::PRIVATE,
    &pubsub::PUBSUB,
    &pubsub::OWNER,
    &push::ENABLE,
    &push::DISABLE,
    &register::REGISTER,
    &roster::ROSTER,
    &search::SEARCH,
    &session::SESSION,
    &time::TIME,
    &vcard::VCARD,
    &version::VERSION,
];

/// Features of the server that are no IQs of the table above.
const OTHER_SERVER_FEATURES: &[&str] = &[
    // XEP-0160: messages wait for who is away.
    "msgoffline",
];

/// One kind of IQ.
#[derive(Debug)]
pub struct Extension {
    /// Name of the child element.
    pub name: &'static str,
    /// Its namespace.
    pub ns: &'static str,
    /// What the server announces for it (XEP-0030).
    pub server_features: &'static [&'static str],
    /// What an account announces for it.
    pub account_features: &'static [&'static str],
    /// Answers type `get`. `None`: nobody can.
    pub get: Option<Handler>,
    /// Answers type `set`. `None`: nobody can.
    pub set: Option<Handler>,
}

/// Answers one IQ. The child is the one of the extension; whether the target is right is for the handler to say.
pub type Handler = fn(&Request<'_>, Child<'_>) -> IqOutcome;

/// Who is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The server itself: `to` is a domain of ours.
    Server,
    /// An account that exists: `to` is its bare JID, or there is none and it is the sender's own.
    Account {
        /// The sender's own account.
        own: bool,
        /// The sender may know that the account is there: it is its own, or shares its presence with the sender
        /// (subscription `from` or `both`).
        may_see: bool,
    },
}

/// A service of ours that `disco#items` shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Its address.
    pub jid: String,
    /// Its name for people.
    pub name: Option<String>,
}

/// What answers may say besides what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Services of the domain, for `disco#items`.
    pub services: &'a [Service],
    /// Rights of who asks the server. Of who asks an account they are not looked at.
    pub rights: Rights,
    /// The account has an archive.
    pub archive: bool,
    /// Rows in a page of an archive.
    pub archive_page_max: usize,
    /// It can be searched for words.
    pub archive_search: bool,
    /// Addresses that somebody may list of whom to keep messages or not.
    pub archive_prefs_jids_max: usize,
    /// Largest vCard, bytes.
    pub vcard_bytes_max: usize,
    /// Largest element of the private XML storage, bytes.
    pub private_element_bytes_max: usize,
    /// Addresses that one account may block.
    pub blocklist_items_max: usize,
    /// Since when the server runs, seconds.
    pub uptime_s: u64,
    /// What an account may publish.
    pub pubsub: crate::pubsub::Limits,
    /// The time, milliseconds since 1970 (UTC).
    pub now_unix_ms: u64,
    /// What may be asked of the directories.
    pub people: &'a People,
    /// How those who run the domains are reached.
    pub contacts: &'a Contacts,
    /// Services outside XMPP.
    pub external_services: &'a [ExternalService],
    /// Who asks has an account of ours.
    pub ours: bool,
    /// Nobody can read what the sender says: TLS, or the site wants to do without it.
    pub secure: bool,
}

/// One IQ to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The IQ.
    pub element: &'a Element,
    /// Who asks: stamped by us. The answer goes there.
    pub from: &'a Jid,
    /// Whom the client addressed, if it did. The answer comes from there.
    pub to: Option<&'a Jid>,
    /// Who is asked.
    pub target: Target,
    /// What else there is to know.
    pub context: Context<'a>,
}

/// What is to be done about an IQ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IqOutcome {
    /// Send this to who asked.
    Reply(Bytes),
    /// Send [`Request::error`] to who asked.
    Error(StanzaError, Option<&'static str>),
    /// Send this error to who asked.
    Refuse(Box<crate::pubsub::Refusal>),
    /// Ask the nodes of the account.
    Pubsub(Box<crate::pubsub::ask::Ask>),
    /// Nothing: it was an answer itself.
    Ignore,
    /// Read this, then call [`resume`]. Keep the request meanwhile.
    Read(Wait),
    /// Store these elements privately for the sender's account, then send the reply.
    WritePrivate {
        /// The elements.
        elements: Vec<store::PrivateElement>,
        /// Once they are durable.
        reply: Bytes,
    },
    /// What the sender wants kept in its archive: the answer, when that is known.
    ArchivePrefs,
    /// The sender wants this kept in its archive; then the reply.
    WriteArchivePrefs {
        /// From now on.
        prefs: Box<crate::archive::prefs::Prefs>,
        /// Once it is durable.
        reply: Bytes,
    },
    /// `Roster::fetch` for the sender's own account, with this `ver`; the session is now interested (§2.2).
    RosterGet {
        /// The attribute, empty or not.
        ver: Option<String>,
    },
    /// A change of the sender's own roster; then [`Request::result`], after the write.
    RosterSet(roster::Set),
    /// Whom the sender's account has blocked; the session hears of changes from now on.
    Blocklist,
    /// A change of whom it has blocked; then [`Request::result`], after the write.
    Blocking(blocking::Change),
    /// A change of what the sender's client is told while it is away; then [`Request::result`], after the write.
    Push(push::Change),
    /// Copies of messages for the sender's session, or none; then [`Request::result`], when the session's record says so.
    Carbons(bool),
}

impl IqOutcome {
    /// It changes what is kept for the sender's account, for which a right is needed.
    pub fn saves(&self) -> bool {
        match self {
            Self::Pubsub(ask) => ask.changes(),
            Self::Read(Wait::Bookmarks(_, wanted)) => wanted.changes(),
            Self::WritePrivate { .. }
            | Self::WriteArchivePrefs { .. }
            | Self::RosterSet(_)
            | Self::Read(Wait::Password(..) | Wait::Unregister(_)) => true,
            _ => false,
        }
    }
}

/// What an IQ waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wait {
    /// The vCard of this account.
    Card(BareJid),
    /// When this account was last here.
    LastActivity(BareJid),
    /// An element of the sender's private XML storage.
    Private(private::Key),
    /// People of a domain.
    Search {
        /// Which.
        domain: String,
        /// By what.
        query: Box<SearchQuery>,
    },
    /// Another password for the sender's account.
    Password(BareJid, Secret),
    /// The end of the sender's account.
    Unregister(BareJid),
    /// What comes of this ad-hoc command.
    Command(Node),
    /// A page of the sender's archive.
    Archive(Box<crate::archive::Ask>),
    /// The ends of the sender's archive.
    ArchiveEnds(BareJid),
    /// Items of a node.
    Items(Box<crate::pubsub::decide::Reading>),
    /// What a directory knows, instead of items of a node that there is not.
    Known(Box<known::Known>),
    /// Bookmarks of the sender, for a client that knows them all in one.
    Bookmarks(BareJid, Box<crate::pubsub::bookmarks::Wanted>),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// For a vCard. `None`: there is nobody of this address.
    Card(Option<Box<CardFacts>>),
    /// Of an account.
    LastActivity {
        /// It is available now.
        available: bool,
        /// What is remembered of it.
        activity: store::Activity,
    },
    /// Of the private XML storage.
    Private(Option<Bytes>),
    /// Who was found.
    People(SearchAnswer),
    /// What became of a change to the account.
    Account(AccountAnswer),
    /// Items of a node. `None`: where the page should be there is none.
    Items(Option<store::PubsubPage>),
    /// Bookmarks.
    Bookmarks(crate::pubsub::bookmarks::Stored),
    /// Nothing: who was asked does not answer.
    Unavailable,
}

/// Decides what to do about an IQ to the server or to a bare JID. Errors are returned, never sent by themselves.
///
/// * `bad-request`: a get or set without exactly one child element (RFC 6120 §8.2.3 rule 5).
/// * `service-unavailable`: nothing of ours, or not with this type, or not at this target.
pub fn dispatch(request: &Request<'_>) -> IqOutcome {
    let iq = match Iq::of(request.element) {
        Ok(iq) => iq,
        Err(_)
            if matches!(
                request.element.attr("type").as_deref(),
                Some("result" | "error")
            ) =>
        {
            return IqOutcome::Ignore;
        }
        Err(condition) => return IqOutcome::Error(condition, None),
    };
    let (Some(child), true) = (iq.payload, iq.iq_type.is_request()) else {
        return IqOutcome::Ignore;
    };
    let set = iq.iq_type == IqType::Set;
    EXTENSIONS
        .iter()
        .find(|e| child.is(e.name, e.ns))
        .and_then(|e| if set { e.set } else { e.get })
        .map_or(UNAVAILABLE, |handle| handle(request, child))
}

/// Goes on with an IQ whose [`Wait`] is over.
pub fn resume(request: &Request<'_>, wait: &Wait, found: &Found) -> IqOutcome {
    match (wait, found) {
        (Wait::Card(_), Found::Card(facts)) => vcard::found(request, facts.as_deref()),
        (Wait::Known(known), Found::Card(facts)) => known::found(request, known, facts.as_deref()),
        (
            Wait::LastActivity(_),
            Found::LastActivity {
                available,
                activity,
            },
        ) => last::found(request, *available, activity),
        (Wait::Private(key), Found::Private(stored)) => {
            private::found(request, key, stored.as_ref())
        }
        (Wait::Search { .. }, Found::People(answer)) => search::found(request, answer),
        (Wait::Password(..) | Wait::Unregister(_), Found::Account(answer)) => {
            register::changed(request, answer)
        }
        (Wait::Items(reading), Found::Items(page)) => match reading.answer(page.as_ref()) {
            Ok(answer) => request.reply(answer),
            Err(refusal) => IqOutcome::Refuse(Box::new(refusal)),
        },
        (Wait::Bookmarks(_, wanted), Found::Bookmarks(stored)) => {
            private::bookmarks(request, wanted, stored)
        }
        // An outage is never "nobody".
        _ => IqOutcome::Error(
            StanzaError::ResourceConstraint,
            Some("The directory does not answer; try again later"),
        ),
    }
}

/// What a directory or a stranger says, as one line of text for people: without control characters, and not without end.
/// `None`: nothing is left.
fn plain(text: &str) -> Option<String> {
    /// The longest names and titles have about a hundred.
    const CHARS_MAX: usize = 1_000;
    let one_line = |c: char| if c.is_whitespace() { ' ' } else { c };
    let text: String = text
        .chars()
        .map(one_line)
        .filter(|c| !c.is_control() && !matches!(c, '\u{FFFE}' | '\u{FFFF}'))
        .take(CHARS_MAX)
        .collect();
    Some(text.trim().to_owned()).filter(|t| !t.is_empty())
}

/// Not here.
const UNAVAILABLE: IqOutcome = IqOutcome::Error(StanzaError::ServiceUnavailable, None);

impl Request<'_> {
    /// The result, with or without a payload.
    pub fn result(&self, payload: Option<&Node>) -> Bytes {
        iq_result_with(
            self.element,
            self.to.map(Jid::as_str),
            Some(self.from.as_str()),
            payload,
        )
    }

    /// The error. `None`: it may not be answered.
    pub fn error(&self, condition: StanzaError, text: Option<&str>) -> Option<Bytes> {
        let reply = ErrorReply {
            from: self.to.map(Jid::as_str),
            to: Some(self.from.as_str()),
            text,
            ..ErrorReply::default()
        };
        stanza_error_with(self.element, condition, reply)
    }

    /// The error. `None`: it may not be answered.
    pub fn refused(&self, refusal: &crate::pubsub::Refusal) -> Option<Bytes> {
        refusal.answer(self.element, self.to.map(Jid::as_str), self.from.as_str())
    }

    /// An error whose text is not known beforehand.
    fn refusal(&self, condition: StanzaError, text: &str) -> IqOutcome {
        let text = Some(text).filter(|t| !t.is_empty());
        self.error(condition, text)
            .map_or(IqOutcome::Ignore, IqOutcome::Reply)
    }

    /// What answers an ad-hoc command.
    pub fn command(&self, outcome: &Outcome) -> Option<Bytes> {
        match outcome {
            Outcome::Reply(command) => Some(self.result(Some(command))),
            Outcome::Error(condition, application, text) => {
                // XEP-0050 §2.5 (its examples): by the session's id a client knows which of its commands has failed. The form is
                // left out: it may have a password.
                let given = self.element.child("command", xmpp::ns::COMMANDS);
                let attr = |name| given.as_ref().and_then(|c| c.attr(name));
                let about = Node::new("command", xmpp::ns::COMMANDS)
                    .with_attr_opt("node", attr("node"))
                    .with_attr_opt("sessionid", attr("sessionid"))
                    .with_attr_opt("action", attr("action"))
                    .to_bytes(xmpp::ns::CLIENT);
                let reply = ErrorReply {
                    from: self.to.map(Jid::as_str),
                    to: Some(self.from.as_str()),
                    text: Some(text),
                    application: application.map(|name| (name, xmpp::ns::COMMANDS)),
                    about: &about,
                    ..ErrorReply::default()
                };
                stanza_error_with(self.element, *condition, reply)
            }
        }
    }

    /// The attribute `id`; `StanzaKind::of` has refused an IQ without.
    pub fn id(&self) -> String {
        self.element.attr("id").unwrap_or_default().into_owned()
    }

    fn reply(&self, payload: Node) -> IqOutcome {
        IqOutcome::Reply(self.result(Some(&payload)))
    }

    fn own(&self) -> bool {
        matches!(self.target, Target::Account { own: true, .. })
    }

    /// The server, or an account that the sender may know of.
    fn visible(&self) -> bool {
        !matches!(
            self.target,
            Target::Account {
                may_see: false,
                own: false
            }
        )
    }
}

#[cfg(test)]
mod people_tests;
#[cfg(test)]
mod tests;
