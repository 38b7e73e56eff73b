//! What clients publish (XEP-0163): items on the nodes of their accounts, and who hears of them.
//!
//! In: chance; answers and notices that clients get. Out: requests; failures.
//! Owns: every item that was published, and which session has heard of it.
//! Never: asks the server what is there, but at the end, when its disk is compared with what it had answered.

use crate::blocks::account_of;
use crate::client::{State, bare, sees};
use crate::world::World;
use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use store::{Engine as _, PubsubQuery, PubsubRange};
use xmpp::element::{Child, Element};

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const DISCO_INFO: &str = "http://jabber.org/protocol/disco#info";

/// A node of one item, for all contacts.
const MOOD: &str = "sim:mood";
/// A node of many, for oneself.
const BOOKMARKS: &str = "urn:xmpp:bookmarks:1";

/// Items among the acts of clients, in a thousand.
const PUBLISH_PERMILLE: u64 = 120;

/// Which node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Which {
    Mood,
    Bookmarks,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::Mood => MOOD,
            Self::Bookmarks => BOOKMARKS,
        }
    }

    fn of(name: &str) -> Option<Self> {
        [Self::Mood, Self::Bookmarks]
            .into_iter()
            .find(|w| w.name() == name)
    }
}

/// How a client says what it wants to hear of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wants {
    /// Of nothing.
    Nothing,
    /// Of both nodes, with a hash that all of its kind have, and that can be proved.
    Proved,
    /// Of both nodes, with a hash that cannot.
    Unproved,
}

impl Wants {
    pub fn draw(n: usize) -> Self {
        match n % 4 {
            0 => Self::Nothing,
            3 => Self::Unproved,
            _ => Self::Proved,
        }
    }
}

/// One item.
#[derive(Debug)]
struct Publication {
    client: usize,
    id: String,
    /// Of which account the node is: not of the client's, now and then.
    account: usize,
    which: Which,
    item: String,
    sent_us: u64,
    answer: Option<(bool, u64)>,
    /// Somebody has heard of it: it is on disk.
    heard: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Published {
    all: Vec<Publication>,
    /// How often a session has heard of an item, as of something new; and as of the last there was.
    heard: BTreeMap<(usize, usize), (u32, u32)>,
}

impl World {
    /// Now and then a client publishes something instead of what it does otherwise.
    pub(crate) fn act_publishing(&mut self, client: usize) -> bool {
        if !self.plan.pep || !self.rng.permille(PUBLISH_PERMILLE) {
            return false;
        }
        let own = self.clients[client].account;
        let (which, item) = if self.rng.permille(600) {
            (Which::Mood, "current".to_owned())
        } else {
            let room = self.rng.below(2);
            (
                Which::Bookmarks,
                format!("room{room}-{client}@rooms.example"),
            )
        };
        let foreign = self.rng.permille(60);
        let account = match foreign {
            true => (own + 1) % self.plan.accounts,
            false => own,
        };
        let number = self.published.all.len();
        let payload = match which {
            Which::Mood => format!("<mood xmlns='{MOOD}'>p{number}</mood>"),
            Which::Bookmarks => format!("<conference xmlns='{BOOKMARKS}' name='p{number}'/>"),
        };
        let options = match which {
            Which::Mood => String::new(),
            Which::Bookmarks => {
                let field = |name: &str, value: &str| {
                    format!("<field var='{name}'><value>{value}</value></field>")
                };
                let fields = [
                    field("FORM_TYPE", &format!("{PUBSUB}#publish-options")),
                    field("pubsub#persist_items", "true"),
                    field("pubsub#max_items", "max"),
                    field("pubsub#send_last_published_item", "never"),
                    field("pubsub#access_model", "whitelist"),
                ]
                .concat();
                format!(
                    "<publish-options><x xmlns='jabber:x:data' type='submit'>{fields}</x></publish-options>"
                )
            }
        };
        let node = which.name();
        let child = format!(
            "<pubsub xmlns='{PUBSUB}'><publish node='{node}'><item id='{item}'>{payload}</item></publish>{options}</pubsub>"
        );
        let to = foreign.then(|| bare(account));
        let id = self.ask_set_of(client, "p", to.as_ref(), &child);
        self.trace.line(
            self.now_us,
            number as u64,
            format_args!(
                "client {client} asks {id}: publish p{number} on {node} of account {account}"
            ),
        );
        self.published.all.push(Publication {
            client,
            id,
            account,
            which,
            item,
            sent_us: self.now_us,
            answer: None,
            heard: false,
        });
        true
    }

    /// What a client says of itself in its presence.
    pub(crate) fn caps(&self, client: usize) -> String {
        let ver = match self.clients[client].wants {
            _ if !self.plan.pep => return String::new(),
            Wants::Nothing => return String::new(),
            Wants::Proved => {
                let text = format!("client/sim//<{MOOD}+notify<{BOOKMARKS}+notify<");
                base64::engine::general_purpose::STANDARD.encode(Sha1::digest(text.as_bytes()))
            }
            Wants::Unproved => format!("v{client}"),
        };
        format!(
            "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='sim:client' ver='{ver}'/>"
        )
    }

    /// The payload of the answer to a question of the server.
    pub(crate) fn answer_to(&self, client: usize, element: &Element) -> String {
        let Some(query) = element.child("query", DISCO_INFO) else {
            return String::new();
        };
        if !self.plan.pep || self.clients[client].wants == Wants::Nothing {
            return String::new();
        }
        let node = query.attr("node").unwrap_or_default().into_owned();
        format!(
            "<query xmlns='{DISCO_INFO}' node='{node}'><identity category='client' type='sim'/>\
             <feature var='{MOOD}+notify'/><feature var='{BOOKMARKS}+notify'/></query>"
        )
    }

    pub(crate) fn publish_answered(&mut self, client: usize, id: &str, element: &Element) {
        let done = element.attr("type").as_deref() == Some("result");
        let now = self.now_us;
        let mut all = self.published.all.iter_mut().enumerate();
        let Some((number, p)) = all.find(|(_, p)| p.client == client && p.id == id) else {
            return;
        };
        p.answer.get_or_insert((done, now));
        let foreign = p.account != self.clients[client].account;
        if done && foreign {
            self.fail(format!(
                "p{number} was taken for the node of another account"
            ));
        } else if !done && !foreign && !self.oracle.disk_failed {
            let what = String::from_utf8_lossy(element.raw()).into_owned();
            self.fail(format!("p{number} was refused without a reason: {what}"));
        }
    }

    /// A client hears of something published. Whether this message is such a thing.
    pub(crate) fn notice(&mut self, client: usize, element: &Element) -> bool {
        let Some(event) = element.child("event", EVENT) else {
            return false;
        };
        let late = element.child("delay", "urn:xmpp:delay").is_some();
        let from = element.attr("from").unwrap_or_default().into_owned();
        match self.noticed(client, &from, &event, late) {
            Ok(()) => {}
            Err(wrong) => self.fail(format!("client {client}: {wrong}")),
        }
        true
    }

    fn noticed(
        &mut self,
        client: usize,
        from: &str,
        event: &Child<'_>,
        late: bool,
    ) -> Result<(), String> {
        let now = self.now_us;
        let event = event.tree();
        let items = event.child("items", EVENT).ok_or("a notice of nothing")?;
        let node = items.attr("node").unwrap_or_default();
        let which = Which::of(node).ok_or("a notice of a node that nobody has")?;
        let item = items.child("item", EVENT).ok_or("a notice without item")?;
        let id = item.attr("id").unwrap_or_default().to_owned();
        let bytes = items.to_bytes(EVENT);
        let number = publication_number(&bytes).ok_or("a notice without payload")?;
        let account = account_of(from).filter(|&a| bare(a).as_str() == from);
        let account = account.ok_or("a notice of nobody")?;
        self.trace.line(
            now,
            number as u64,
            format_args!(
                "client {client} hears of p{number} of account {account}{}",
                if late { ", the last" } else { "" }
            ),
        );
        let c = &self.clients[client];
        let (own, session, wants) = (c.account, c.session, c.wants);
        let p = &self.published.all[number];
        let (sent, answer) = (p.sent_us, p.answer);
        if (p.account, p.which, &p.item) != (account, which, &id) {
            return Err(format!("p{number} comes as something else"));
        }
        if self.clients[p.client].account != account {
            return Err(format!("p{number} of a stranger is told"));
        }
        if which == Which::Bookmarks && account != own {
            return Err(format!("p{number} is private"));
        }
        if wants == Wants::Nothing {
            return Err(format!("p{number} is told to who wants to hear of nothing"));
        }
        if account != own && !sees(own, account) && self.plan.groups == 0 {
            return Err(format!("p{number} is told to no contact"));
        }
        let since = |by, other| self.blocked(by, other, sent, now) == Some(true);
        if since(own, account) || since(account, own) {
            return Err(format!(
                "p{number} is told, though one has blocked the other"
            ));
        }
        self.heard_of(client, account, "a notice");
        let (new, last) = self.published.heard.entry((session, number)).or_default();
        match late {
            true => *last += 1,
            false => *new += 1,
        }
        let twice = *new > 1;
        self.published.all[number].heard = true;
        let c = &mut self.clients[client];
        // Else it is on its way from when it was.
        if c.presence.is_some() {
            c.hears_since.get_or_insert(now);
        }
        let again = self.oracle.kills.iter().any(|&k| k >= sent)
            && answer.is_none_or(|(_, at)| self.done_us(sent, answer) > at);
        // What waited while the client was inactive is on its record until the next sweep: a server that is killed just behind giving
        // it gives it again (they are state: twice is harmless, DESIGN §4).
        let waited = self.clients[client].slept && self.oracle.kills.iter().any(|&k| k >= sent);
        if twice && !again && !waited {
            return Err(format!("p{number} is told twice"));
        }
        Ok(())
    }

    /// Questions of a client to accounts that one had blocked before the answer came: it may have gone with what waited of them.
    pub(crate) fn unanswered_by_list(&self, client: usize) -> u64 {
        let account = self.clients[client].account;
        let all = self.published.all.iter();
        let unanswered = all.filter(|p| {
            p.client == client
                && p.answer.is_none()
                && !self.never_blocked(account, p.account, p.sent_us, self.now_us)
        });
        unanswered.count() as u64
    }

    // ---- the end --------------------------------------------------------------------------------------------

    /// What was published is on disk, unless something came after it, and those have heard of it who should.
    pub(crate) fn check_published(&mut self) {
        let mut wrong = Vec::new();
        let on_disk = self.items_on_disk(&mut wrong);
        for (number, p) in self.published.all.iter().enumerate() {
            let foreign = p.account != self.clients[p.client].account;
            let taken = !foreign && (p.heard || matches!(p.answer, Some((true, _))));
            let key = (p.account, p.which, p.item.clone());
            let is = on_disk.get(&key).copied();
            let killed = self.oracle.kills.iter().any(|&k| k >= p.sent_us);
            let refused = matches!(p.answer, Some((false, _)));
            if refused && (p.heard || is == Some(number)) && !killed {
                wrong.push(format!("p{number} was refused, and is there"));
            }
            if !taken {
                continue;
            }
            match is {
                None => wrong.push(format!("p{number} was taken and is lost")),
                Some(other) if other != number => {
                    // It was done before this one was sent, and will not be done again.
                    let q = &self.published.all[other];
                    if self.done_us(q.sent_us, q.answer) < p.sent_us {
                        wrong.push(format!(
                            "p{number} was taken, but p{other} is there, which is older"
                        ));
                    }
                }
                Some(_) => {}
            }
            self.check_heard(number, p, &mut wrong);
        }
        wrong.into_iter().for_each(|text| self.fail(text));
    }

    fn check_heard(&self, number: usize, p: &Publication, wrong: &mut Vec<String>) {
        if self.plan.tight {
            // What does not fit is not told: it is not stored for anybody.
            return;
        }
        for (n, c) in self.clients.iter().enumerate() {
            let contact =
                c.account == p.account || p.which == Which::Mood && sees(c.account, p.account);
            let since = c.hears_since.zip(c.presence_us);
            let there = c.state == State::Online
                && since.is_some_and(|(hears, said)| {
                    hears < p.sent_us
                        && !self.oracle.lost_presence(hears)
                        && !self.oracle.lost_presence(said)
                });
            if !there
                || !contact
                || !self.never_blocked(c.account, p.account, p.sent_us, self.now_us)
            {
                continue;
            }
            // Notices are not stored: a kill takes those that no mux has.
            let until = p.answer.map_or(u64::MAX, |(_, at)| at + 15_000_000);
            let killed = self.oracle.kills.iter();
            let killed = killed.clone().any(|&k| k >= p.sent_us && k <= until);
            let heard = |n: usize| self.published.heard.contains_key(&(c.session, n));
            let newer = self.published.all.iter().enumerate().any(|(n, q)| {
                (q.account, q.which, &q.item) == (p.account, p.which, &p.item)
                    && n != number
                    && heard(n)
                    && self.done_us(q.sent_us, q.answer) > p.sent_us
            });
            if !(killed || heard(number) || newer && c.slept) {
                wrong.push(format!("client {n} has not heard of p{number}"));
            }
        }
    }

    fn items_on_disk(&self, wrong: &mut Vec<String>) -> BTreeMap<(usize, Which, String), usize> {
        let mut reader = self.store.reader().expect("the model has readers");
        let mut found = BTreeMap::new();
        for account in 0..self.plan.accounts {
            for which in [Which::Mood, Which::Bookmarks] {
                let query = PubsubQuery {
                    owner: bare(account),
                    node: which.name().to_owned(),
                    range: PubsubRange::Newest,
                    limit: usize::MAX,
                    bytes_max: usize::MAX,
                };
                let page = reader.pubsub_items(&query).ok().flatten();
                for item in page.map(|p| p.items).unwrap_or_default() {
                    let number = publication_number(&item.payload);
                    let p = number.and_then(|n| Some((n, self.published.all.get(n)?)));
                    match p {
                        Some((n, p))
                            if p.item == item.id
                                && p.which == which
                                && p.account == account
                                && self.clients[p.client].account == account =>
                        {
                            found.insert((account, which, item.id), n);
                        }
                        _ => wrong.push(format!(
                            "account {account} has an item that nobody has published there: {number:?}"
                        )),
                    }
                }
            }
        }
        found
    }
}

/// The number of an item of ours, from its bytes.
fn publication_number(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    let at = text.find(">p").map(|at| at + 2);
    let at = at.or_else(|| text.find("name='p").map(|at| at + 7))?;
    let digits = text[at..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}
