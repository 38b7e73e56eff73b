//! What goes into a shard and what comes out of it: the whole vocabulary of the core.
//!
//! A shard is a deterministic state machine: `Shard::handle(now, Event)` changes its state and leaves
//! `Effects` to be carried out by whoever drives it: threads in `drive`, or the simulation. Nothing in the core
//! reads a clock, draws a random number, opens a file or waits.
//!
//! In: frames of the links (as events of one connection), results of the store, answers of the directory, messages
//! of other shards. Out: commands for the links, writes, reads, look-ups, messages for other shards.
//! Never: a sender waits for a receiver. Every arrow is a message.

use crate::blocking::Blocklist;
mod published;
mod status;

use bytes::Bytes;
use directory::backend::{Card, Registration, SearchAnswer, SearchQuery};
use directory::population::Group;
use proto::frame::{CloseReason, ConnId, Frame, Input, NoteKey, Open, Resume, StoredId, TlsFacts};
pub use published::{EventFan, EventTarget, LastWanted};
pub use status::{NotePlace, ShardStatus};
use std::sync::Arc;
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::negotiation::{Accounts, Bind2, Keys, PasswordCheck, TokenCheck};
use xmpp::sasl::{Failure, GssapiAnswer, GssapiAsk, Identity, LoginName, TokenAsk};
use xmpp::scram::ScramHash;

/// One mux link of this server run. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct LinkId(pub u32);

/// A shard of this node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A connection as the core names it: the link it lives on and the mux's id for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnKey {
    /// The link.
    pub link: LinkId,
    /// The mux's id.
    pub conn: ConnId,
}

/// Session name: the epoch of the store, and a number within it. Never used again, kept through a restart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Bits of the number within a run. At a thousand log-ins a second they last for 34 years, and the other 24 for 16 million
    /// starts. (They were 32 once. A name of then is smaller than any of now: its epoch is.)
    const NUMBER_BITS: u32 = 40;

    /// The name of the `n`th session of a run.
    pub fn new(epoch: u32, n: u64) -> Self {
        debug_assert!(
            n < 1 << Self::NUMBER_BITS,
            "34 years at a thousand a second"
        );
        Self(u64::from(epoch) << Self::NUMBER_BITS | n)
    }
}

/// Time as the core sees it. Both parts come from the driver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds on a clock that never goes back; for time-outs.
    pub mono_ms: u64,
    /// Milliseconds since 1970 (UTC); for stamps. May jump.
    pub unix_ms: u64,
}

/// Names one input element that waits to be settled: which shard's session caused what is being done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// Shard of the session.
    pub shard: ShardId,
    /// Slot in its slab.
    pub slot: u32,
    /// Generation of the slot: a token that outlives its session finds nobody.
    pub generation: u32,
    /// Number of the element within the session (the first is 1).
    pub element: u64,
}

/// Everything that can happen to a shard.
#[derive(Debug)]
pub enum Event {
    /// A new connection, of this mux.
    Opened(ConnKey, Box<Open>, Arc<MuxPermit>),
    /// A connection of an earlier run of this server; `mux` names the link's mux.
    Resumed(ConnKey, Box<Resume>, Arc<str>),
    /// Bytes of the client.
    Input(ConnKey, Input),
    /// Plaintext came after StartTls was sent: injection.
    Injected(ConnKey),
    /// TLS has been established by our order.
    Secured(ConnKey, Box<TlsFacts>),
    /// Output elements the client's TCP has acknowledged, in total.
    Drained(ConnKey, u64),
    /// The mux has ended the connection.
    Closed(ConnKey, CloseReason),
    /// The mux has taken the output that carried this stored id.
    Taken(ConnKey, StoredId),
    /// The mux has taken our word that input up to this stanza is settled: it will never send it again.
    SettledTaken(ConnKey, u64),
    /// The connection now belongs to this shard.
    Adopt(ConnKey, Box<crate::session::Travel>),
    /// The link loop has taken our `LinkCommand::Rehome`; strays have all arrived.
    Rehomed(ConnKey),
    /// The mux of this name has brought back everything it has: what else it had is lost.
    ResumeEnd(Arc<str>),
    /// The link is given up: all its connections are lost.
    LinkLost(LinkId),
    /// Writes with a number up to `first + results.len() - 1` are on disk (or have failed).
    Durable {
        /// Number of the first write answered.
        first: u64,
        /// One answer a write, in order.
        results: Vec<store::Written>,
    },
    /// A read has come back.
    Read(ReadTag, ReadResult),
    /// The directory has answered; and how many revocations there had been before it was asked (`store::Reader::revocations`; 0 where it
    /// was not).
    Looked(LookTag, LookResult, u64),
    /// From another shard, or this one.
    Shard(ShardMsg),
    /// From an administrator.
    Admin(AdminEvent),
    /// What has come of an ad-hoc command: number of the question, and the answer.
    Command(u64, crate::admin::adhoc::Outcome),
    /// New limits and switches.
    Reconfigured(Arc<crate::settings::Settings>),
    /// Everybody and every group of the directories, and what is different from the last one. Each shard gets the same ones
    /// in the same order.
    Population(
        Arc<directory::population::Population>,
        Arc<directory::population::Difference>,
    ),
}

/// Everything a shard wants done. Each list is in order; lists are independent of each other.
#[derive(Debug, Default)]
pub struct Effects {
    /// For the links.
    pub links: Vec<LinkCommand>,
    /// For other shards (never for itself).
    pub shards: Vec<(ShardId, ShardMsg)>,
    /// For the store's writer; numbered on from the last `Effects` of this shard, the first write ever is 1.
    pub writes: Vec<Write>,
    /// For the store's readers.
    pub reads: Vec<(ReadTag, Read)>,
    /// For the directory.
    pub looks: Vec<(LookTag, Look)>,
    /// For the administrators.
    pub admin: Vec<AdminReply>,
    /// For the worker that runs ad-hoc commands.
    pub commands: Vec<CommandJob>,
}

/// An ad-hoc command of an administrator, to be run.
#[derive(Debug, Clone)]
pub struct CommandJob {
    /// Number of the question.
    pub request: u64,
    /// Which shard asks.
    pub shard: ShardId,
    /// Whose it is.
    pub from: FullJid,
    /// The domain it is addressed to.
    pub domain: String,
    /// The `<command/>`.
    pub command: xmpp::node::Node,
}

impl Effects {
    /// Nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
            && self.shards.is_empty()
            && self.writes.is_empty()
            && self.reads.is_empty()
            && self.looks.is_empty()
            && self.admin.is_empty()
            && self.commands.is_empty()
    }
}

/// One durable (or session-store) write.
#[derive(Debug, Clone)]
pub enum Write {
    /// To the durable store.
    Store(store::Write),
    /// To the unsynced session store: put, or delete.
    Session(SessionId, Option<Bytes>),
}

/// For the link loop.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every command is a frame: a box for it would be one more allocation each"
)]
pub enum LinkCommand {
    /// Send this frame on this link. With `track`, the shard wants `Event::Taken`.
    Frame {
        /// Which link.
        link: LinkId,
        /// What.
        frame: Frame,
        /// Report when the mux has taken it.
        track: bool,
    },
    /// The connection moves to another shard.
    Rehome {
        /// Which connection.
        key: ConnKey,
        /// To where.
        to: ShardId,
        /// With what.
        travel: Box<crate::session::Travel>,
    },
    /// An event that reached the old shard after `Rehome`: hand it to the new one, before newer ones.
    Stray(Box<Event>),
    /// No more strays: answer to `Event::Rehomed`.
    RehomeDone(ConnKey),
    /// The connection is forgotten on both ends.
    Forget(ConnKey),
}

/// A stanza on its way between two sessions or entities.
#[derive(Debug, Clone)]
pub struct Routed {
    /// What it is.
    pub kind: crate::routing::StanzaKind,
    /// Who says so: stamped by us.
    pub from: Jid,
    /// For whom.
    pub to: Jid,
    /// The stanza as it goes out: `from` and `to` are in place, no content namespace.
    pub bytes: Bytes,
    /// What may be kept of it for a recipient who is away.
    pub retention: crate::routing::Retention,
    /// Where it came from, for replay: session, stanza number, hash of the bytes.
    pub origin: Option<store::Origin>,
    /// Of a message: other sessions of the recipient may get a copy (XEP-0280).
    pub copies: bool,
    /// Who waits for it to be settled.
    pub token: Option<Token>,
}

/// Between shards. Order between two shards is kept.
#[derive(Debug)]
pub enum ShardMsg {
    /// A message, IQ or directed presence for an entity at home on the receiving shard.
    Stanza(Box<Routed>),
    /// What the token's element caused here is durable, and answered.
    Done(Token),
    /// This account is gone for good: the store has taken it out of everybody's nodes.
    Gone(BareJid),
    /// Presence of `from` for the available sessions of each target.
    Presence(Arc<PresenceFan>, Vec<BareJid>),
    /// What somebody has published, for those who hear of it.
    Event(Arc<EventFan>, Vec<EventTarget>),
    /// Somebody has come online who is interested in what others have published.
    Last(Box<LastWanted>),
    /// Somebody wants to know the presence of others.
    Probe(Box<Probing>),
    /// Subscription presence between two accounts (RFC 6121 §3).
    Subscription(Box<Subscription>),
    /// A component may know who is there (XEP-0356 §7), and asks for the next of them.
    List(Box<Listing>),
    /// They have been sent.
    Listed(Box<Listing>),
}

/// Of those who are there, for a component: a page of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The component's domain.
    pub component: BareJid,
    /// Which of its listings: it may have come again since.
    pub number: u64,
    /// The shard that asks.
    pub by: ShardId,
    /// The last account it has been told of. In the answer `None`: there are no more.
    pub after: Option<BareJid>,
}

/// A probe of many accounts.
#[derive(Debug)]
pub struct Probing {
    /// The session (initial presence) or account that asks.
    pub from: Jid,
    /// Whom it is subscribed to. Who does not let it see is to say so.
    pub targets: Vec<BareJid>,
    /// And the members of these groups: who does not share one any more is silent.
    pub groups: Vec<Arc<Group>>,
    /// And these, as members of groups.
    pub members: Vec<BareJid>,
    /// What the asking shard knows. A shard that knows less waits until it knows as much before it answers.
    pub known: Known,
}

/// How many populations and settings a shard has been given. All get the same, but not at the same moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// Populations.
    pub populations: u64,
    /// Settings.
    pub settings: u64,
}

impl Known {
    /// It is not behind the other.
    pub fn covers(self, other: Self) -> bool {
        self.populations >= other.populations && self.settings >= other.settings
    }
}

/// One presence for many.
#[derive(Debug)]
pub struct PresenceFan {
    /// Whose.
    pub from: FullJid,
    /// Bytes up to the value of the attribute `to`.
    pub prefix: Bytes,
    /// Bytes behind it.
    pub suffix: Bytes,
    /// It says that `from` is available.
    pub available: bool,
    /// It goes to the members of these groups, too.
    pub groups: Vec<Arc<Group>>,
    /// But not to whom `from` has blocked.
    pub but: Blocklist,
    /// And, if given, only to whom these entries name.
    pub only: Option<Blocklist>,
}

impl PresenceFan {
    /// It is not for this resource.
    pub fn passes_by(&self, to: &FullJid) -> bool {
        let names = |list: &Blocklist| {
            !list.is_empty() && list.blocks(&self.from.bare(), &Jid::Full(to.clone()))
        };
        names(&self.but) || self.only.as_ref().is_some_and(|only| !names(only))
    }
}

/// A presence of type subscribe, subscribed, unsubscribe or unsubscribed.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Which of the four.
    pub kind: crate::subscription::Kind,
    /// Bare, stamped by us.
    pub from: BareJid,
    /// Bare.
    pub to: BareJid,
    /// The stanza with both in place.
    pub bytes: Bytes,
    /// Who waits for it to be settled.
    pub token: Option<Token>,
}

/// What a shard can ask a reader of the store.
#[derive(Debug, Clone)]
pub enum Read {
    /// Account, roster, pending-in requests in one batch.
    User(BareJid),
    /// Pending rows after a position, oldest first.
    Pending {
        /// Whose.
        owner: BareJid,
        /// Rows after this.
        after: u64,
        /// At most so many.
        limit: usize,
        /// And so many bytes, or one row.
        bytes_max: usize,
    },
    /// These rows, as far as their stanzas have no more than so many bytes together; one at least.
    Rows {
        /// Whose.
        owner: BareJid,
        /// In the order wanted.
        positions: Vec<u64>,
        /// Bytes of stanzas.
        bytes_max: usize,
    },
    /// What there is for somebody's vCard: what their directory knows, and what they have stored.
    Card(BareJid),
    /// Hash of the picture that somebody's directory has.
    Photo(BareJid),
    /// When somebody was here.
    Activity(BareJid),
    /// An element of somebody's private XML storage.
    Private(crate::iq::private::Key),
    /// Nodes of somebody's publish-subscribe service.
    Nodes(BareJid),
    /// Items of one.
    Items(Box<store::PubsubQuery>),
    /// The last items of many.
    LastItems(Box<crate::pubsub::last::Ask>),
    /// Somebody's bookmarks.
    Bookmarks(BareJid),
    /// A page of an archive.
    Archive(Box<crate::archive::Ask>),
    /// Its first and last rows.
    ArchiveEnds(BareJid),
    /// An account in the store, with its password keys.
    Account(BareJid),
}

/// What it gets.
#[derive(Debug)]
pub enum ReadResult {
    /// `None`: no such account.
    User(Option<Box<Loaded>>),
    /// The page.
    Pending(store::PendingPage),
    /// The rows, in the order wanted, as far as they went; `None` where there is none.
    Rows(Vec<(u64, Option<store::StoredRow>)>),
    /// For a vCard. `None`: there is nobody of this address.
    Card(Option<Box<CardFacts>>),
    /// The picture that a directory has, if it has one.
    Photo(Option<DirectoryPhoto>),
    /// When they were here.
    Activity(store::Activity),
    /// Of the private XML storage. `None`: it was never stored.
    Private(Option<Bytes>),
    /// Nodes.
    Nodes(Vec<store::PubsubNode>),
    /// Items. `None`: there is none where the page should be.
    Items(Option<store::PubsubPage>),
    /// Last items.
    LastItems(Vec<crate::pubsub::last::Last>),
    /// Bookmarks.
    Bookmarks(crate::pubsub::bookmarks::Stored),
    /// Of an archive.
    Archive(crate::archive::Answer),
    /// An account. `None`: it is not in the store.
    Account(Option<Box<store::Account>>),
    /// The store did not answer.
    Failed(String),
}

/// What an entity is loaded with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// What the store has of the account itself.
    pub data: store::UserData,
    /// Hash of the avatar, for its presence (XEP-0398).
    pub photo: Option<String>,
    /// The directory may have a picture.
    pub directory_photo: bool,
}

/// The picture that somebody's directory has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryPhoto {
    /// What it is known by.
    pub id: std::sync::Arc<directory::backend::PhotoId>,
    /// It is their avatar, too: they have no node for one of their own.
    pub is_avatar: bool,
}

/// For whom a read is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReadTag {
    /// Load of an entity.
    Load(BareJid),
    /// The picture of its directory.
    Photo(BareJid),
    /// The account of somebody who wants keys of other hashes made with the log-in: the session's slot and generation.
    Upgrade(u32, u32),
    /// The ends of the archive of somebody who binds a resource with the log-in.
    Bind {
        /// The session's slot.
        slot: u32,
        /// And generation.
        generation: u32,
        /// Number of the element.
        number: u64,
        /// What is wanted.
        bind: Box<Bind2>,
    },
    /// A page for a session that takes its pending messages.
    /// A page for a session that takes its pending messages.
    Flood {
        /// The session's slot.
        slot: u32,
        /// And generation.
        generation: u32,
    },
    /// Messages that a session is to be sent once more.
    Resend {
        /// The session's slot.
        slot: u32,
        /// And generation.
        generation: u32,
    },
    /// An IQ that waits: number in the shard's table.
    Iq(u64),
    /// Nodes that are loaded.
    Nodes(BareJid),
    /// Last items, for a session; the number of the read.
    LastItems(FullJid, u64),
    /// Bookmarks, for sessions that know them all in one: they have changed.
    Bookmarks(BareJid),
    /// The last item of a node, for a new subscriber.
    Last(BareJid, Box<crate::pubsub::LastFor>),
}

/// What a shard can ask the directory.
#[derive(Debug)]
pub enum Look {
    /// SCRAM secrets of whose name this is.
    Scram(LoginName, ScramHash),
    /// Whether the password is right.
    Password(LoginName, Secret),
    /// Which of these exist.
    Accounts(Vec<Identity>),
    /// What GSS-API says of a message.
    Gssapi(GssapiAsk),
    /// Whether a client has the token it says.
    Token(TokenAsk, TokenRules),
    /// People of a domain.
    Search {
        /// Which.
        domain: String,
        /// By what.
        query: Box<SearchQuery>,
        /// At most so many.
        limit: usize,
    },
    /// An account for somebody who has none.
    Register(Box<Newcomer>),
    /// Another password for an account.
    ChangePassword(BareJid, Secret),
    /// The account goes.
    Unregister(BareJid),
    /// The messages of an account that has gone.
    DropMessages(BareJid),
}

/// Somebody who wants an account.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// What they want.
    pub registration: Registration,
    /// The address has a right of an administrator already: it is as good as taken.
    pub reserved: bool,
    /// Where they are.
    pub peer: std::net::IpAddr,
    /// How many registrations there may be.
    pub limits: crate::registrations::Limits,
    /// The IQ to be answered.
    pub id: String,
}

/// Which tokens are good now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRules {
    /// The time (unix ms).
    pub now_ms: u64,
    /// One as old as this is to be replaced when it is used, ms.
    pub stale_ms: u64,
}

impl Look {
    /// Whose directories are asked.
    pub fn domain(&self) -> &str {
        match self {
            Self::Scram(login, _) | Self::Password(login, _) => login.domain(),
            // All are of the domain of one stream.
            Self::Accounts(identities) => match identities.first() {
                Some(Identity::Account(jid)) => jid.domainpart(),
                Some(Identity::Login(login)) => login.domain(),
                None => "",
            },
            Self::Gssapi(ask) => &ask.domain,
            Self::Token(ask, _) => ask.login.domain(),
            Self::Search { domain, .. } => domain,
            Self::Register(newcomer) => newcomer.registration.jid.domainpart(),
            Self::ChangePassword(jid, _) | Self::Unregister(jid) | Self::DropMessages(jid) => {
                jid.domainpart()
            }
        }
    }

    /// The answer when no directory answers.
    pub fn unanswered(&self) -> LookResult {
        match self {
            Self::Scram(..) => LookResult::Scram(Keys::TemporaryFailure),
            Self::Password(..) => LookResult::Password(PasswordCheck::TemporaryFailure),
            Self::Accounts(_) => LookResult::Accounts(Accounts::TemporaryFailure),
            Self::Gssapi(_) => {
                LookResult::Gssapi(GssapiAnswer::Failed(Failure::TemporaryAuthFailure))
            }
            Self::Token(..) => LookResult::Token(TokenCheck::TemporaryFailure),
            Self::Register(newcomer) => {
                LookResult::Registered(newcomer.id.clone(), AccountAnswer::Unavailable)
            }
            Self::Search { .. }
            | Self::ChangePassword(..)
            | Self::Unregister(_)
            | Self::DropMessages(_) => LookResult::Unavailable,
        }
    }
}

/// A password on its way to a check. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What it gets. An outage is never "no such user".
#[derive(Debug)]
pub enum LookResult {
    /// The secrets.
    Scram(Keys),
    /// Right or wrong (no such account is wrong).
    Password(PasswordCheck),
    /// Those that exist, disabled ones too.
    Accounts(Accounts),
    /// The next message, or the verdict.
    Gssapi(GssapiAnswer),
    /// Right or wrong.
    Token(TokenCheck),
    /// Who was found.
    People(SearchAnswer),
    /// What became of the registration with this IQ.
    Registered(String, AccountAnswer),
    /// What became of a change of the own account.
    Account(AccountAnswer),
    /// The directory does not answer.
    Unavailable,
}

/// For a vCard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardFacts {
    /// What the directory knows.
    pub card: Card,
    /// What the person has stored.
    pub stored: Option<Bytes>,
    /// The avatar that the person has published.
    pub avatar: Option<crate::pubsub::avatar::Avatar>,
}

/// What became of a change to an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccountAnswer {
    /// It is done, durably.
    Done,
    /// The address is taken.
    Exists,
    /// The directory does not want it, and why.
    Refused(String),
    /// The directory takes no such changes.
    NotHere,
    /// There were too many registrations of late.
    TooMany,
    /// The directory does not answer.
    Unavailable,
}

/// For whom a look-up is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookTag {
    /// A connection that has not logged in, and is paused meanwhile.
    Stranger {
        /// The session's slot.
        slot: u32,
        /// And generation.
        generation: u32,
    },
    /// An IQ that waits: number in the shard's table.
    Iq(u64),
}

/// What an administrator asks of a shard.
#[derive(Debug)]
pub enum AdminEvent {
    /// The sessions of this shard, of one account or all, after an id.
    Sessions {
        /// Number of the question.
        request: u64,
        /// Whose; `None` is everybody's.
        account: Option<BareJid>,
        /// Sessions after this id.
        after: Option<SessionId>,
        /// At most so many.
        limit: usize,
    },
    /// End the sessions of an account: all, or one resource.
    Kick {
        /// Number of the question.
        request: u64,
        /// Whose.
        account: BareJid,
        /// Which.
        resource: Option<String>,
        /// Why.
        error: xmpp::error::StreamError,
        /// What the client is told.
        text: String,
    },
    /// A headline for available resources.
    Alert {
        /// Number of the question.
        request: u64,
        /// Whose.
        to: AlertTo,
        /// Its subject.
        subject: String,
        /// Its body.
        body: String,
    },
    /// Other notices are in force.
    Notices {
        /// Number of the question.
        request: u64,
        /// All of them.
        notices: Arc<crate::notices::Notices>,
        /// Whoever is available is told the message of the day.
        tell: bool,
    },
    /// Who is online.
    Online {
        /// Number of the question.
        request: u64,
        /// Who of them.
        which: Arc<OnlineQuery>,
    },
    /// How many of a domain are online.
    CountOnline {
        /// Number of the question.
        request: u64,
        /// Which.
        domain: Arc<str>,
    },
    /// The account is gone: end its sessions and forget it. `contacts`: not for a while, but for good; these had it among their
    /// contacts, and hear that it is none any more.
    AccountRemoved {
        /// Whose.
        account: BareJid,
        /// Who.
        contacts: Option<Vec<BareJid>>,
    },
    /// Who of these domains is online and may not be there, by the population: it has them disabled, or not at all.
    Unswept {
        /// Number of the question.
        request: u64,
        /// Domains whose directories have been swept.
        domains: Arc<[String]>,
    },
    /// Numbers for `status`.
    Status {
        /// Number of the question.
        request: u64,
    },
}

/// Who of the people online is wanted.
#[derive(Debug, Clone)]
pub struct OnlineQuery {
    /// How they are.
    pub state: OnlineState,
    /// Of which domain; `None`: of any.
    pub domain: Option<String>,
    /// Those after this address.
    pub after: Option<BareJid>,
    /// At most so many.
    pub limit: usize,
}

/// How somebody is who has a session. Online is active or idle (XEP-0133).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnlineState {
    /// Either.
    Any,
    /// Some resource is available, and neither away nor extended away.
    Active,
    /// None is.
    Idle,
}

impl OnlineState {
    /// Whether this is one of them.
    pub fn is(self, active: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Active => active,
            Self::Idle => !active,
        }
    }
}

/// Whom a headline is for.
#[derive(Debug, Clone)]
pub enum AlertTo {
    /// Everybody.
    Everybody,
    /// An account.
    Account(BareJid),
    /// The members of a group.
    Group(Arc<directory::population::Group>),
}

impl AlertTo {
    /// Whether it is for this account.
    pub fn is_for(&self, account: &BareJid) -> bool {
        match self {
            AlertTo::Everybody => true,
            AlertTo::Account(a) => a == account,
            AlertTo::Group(group) => group.has(account),
        }
    }
}

/// A shard's answer.
#[derive(Debug, Clone)]
pub enum AdminReply {
    /// A page.
    Sessions(u64, Vec<SessionInfo>),
    /// How many were ended.
    Kicked(u64, usize),
    /// How many resources were sent the headline.
    Alerted(u64, usize),
    /// Numbers.
    Status(u64, ShardStatus),
    /// Addresses, in order.
    Online(u64, Vec<BareJid>),
    /// How many are online, and how many of them active.
    OnlineCounts(u64, u64, u64),
    /// How many accounts of the domains are online, and which of them may not be there.
    Unswept(u64, usize, Vec<BareJid>),
}

impl AdminReply {
    /// Number of the question.
    pub fn request(&self) -> u64 {
        match self {
            Self::Sessions(n, _)
            | Self::Kicked(n, _)
            | Self::Alerted(n, _)
            | Self::Status(n, _)
            | Self::Online(n, _)
            | Self::OnlineCounts(n, ..)
            | Self::Unswept(n, ..) => *n,
        }
    }
}

/// What the configuration says of the mux that holds a connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MuxPermit {
    /// Its name.
    pub name: Arc<str>,
    /// Domains whose accounts may log in through it. `None`: all.
    pub domains: Option<Vec<String>>,
    /// Its word on client certificates counts.
    pub trust_client_certificates: bool,
}

impl MuxPermit {
    /// Whether accounts of this domain may log in through it.
    pub fn allows(&self, domainpart: &str) -> bool {
        self.domains
            .as_ref()
            .is_none_or(|all| all.iter().any(|d| d == domainpart))
    }
}

/// One row of `session list`.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// Its name.
    pub id: SessionId,
    /// Its address.
    pub jid: FullJid,
    /// The client's address.
    pub peer: std::net::SocketAddr,
    /// `tcp`, `starttls`, `tls`, ...; `away` while a lost connection may be resumed.
    pub transport: &'static str,
    /// Presence priority; `None`: not available.
    pub priority: Option<i8>,
    /// When it was bound, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Which link, `None` while its mux is lost.
    pub link: Option<LinkId>,
    /// Stored stanzas sent and not acknowledged.
    pub unacknowledged: usize,
}
