//! Whom accounts have blocked (XEP-0191): what clients ask for, what they are pushed, and what must follow from it.
//!
//! In: chance; answers and pushes that clients get. Out: requests; failures.
//! Owns: every change of a list with the moments between which it takes effect.
//! Never: asks the server who is blocked, but at the end, when its disk is compared with what it had answered.
//!
//! A change takes effect at some moment between the request and its answer. Who is killed before the request is settled is asked once
//! more. Each entry of a list is changed by one device of the account only: the order of the changes is known.

use crate::client::{State, bare};
use crate::oracle::Message;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use store::{Engine as _, StoredRow};
use xmpp::element::Element;

const BLOCKING: &str = "urn:xmpp:blocking";
const ERRORS: &str = "urn:xmpp:blocking:errors";

/// Changes among the acts of clients, in a thousand.
const CHANGE_PERMILLE: u64 = 70;

/// One change of a list.
#[derive(Debug)]
struct Change {
    client: usize,
    id: String,
    blocks: bool,
    sent_us: u64,
    /// When it was answered, and whether it was done.
    answer: Option<(bool, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Of (who blocks, whom), in order.
    changes: BTreeMap<(usize, usize), Vec<Change>>,
}

impl World {
    /// When a request that was answered then has certainly taken its effect, and will not be carried out again: a server that is killed
    /// before the answer is settled takes it from the mux once more.
    pub(crate) fn done_us(&self, sent_us: u64, answer: Option<(bool, u64)>) -> u64 {
        // Refused: it may still be done when it comes again.
        let Some((true, at)) = answer else {
            return u64::MAX;
        };
        let mut settled = at + 1_000_000;
        if self.plan.disk_slow > 0 {
            settled += 3_000_000;
        }
        if self.plan.cuts > 0 {
            settled += 9_000_000;
        }
        let kills = self.oracle.kills.iter();
        let kill = kills.filter(|&&k| k >= sent_us && k <= settled).max();
        kill.map_or(at, |k| k + 12_000_000 + self.oracle.outage_us)
    }

    /// Whether the one had blocked the other all that time; `None`: it cannot be known.
    pub(crate) fn blocked(&self, by: usize, other: usize, from: u64, to: u64) -> Option<bool> {
        let Some(changes) = self.blocks.changes.get(&(by, other)) else {
            return Some(false);
        };
        let mut state = false;
        for change in changes.iter().take_while(|c| c.sent_us <= to) {
            if self.done_us(change.sent_us, change.answer) >= from {
                return None;
            }
            state = change.blocks;
        }
        Some(state)
    }

    /// The server was killed when a change between the two was on disk, and perhaps not everybody had been told, or what they were told
    /// waited for their mux: nobody is told later. Or the disk has refused to unblock somebody: whom the client has heard of between its
    /// request and that answer it does not hear of again (XEP-0191 §3.3: nothing of them reaches it).
    pub(crate) fn kill_took_news(&self, a: usize, b: usize) -> bool {
        let of = |pair| self.blocks.changes.get(&pair).into_iter().flatten();
        of((a, b)).chain(of((b, a))).any(|change| {
            let answer = change.answer.map_or(u64::MAX / 2, |(_, at)| at);
            let told = answer + 15_000_000 + self.oracle.outage_us;
            let mut kills = self.oracle.kills.iter();
            kills.any(|&k| k >= change.sent_us && k <= told)
                || !change.blocks && matches!(change.answer, Some((false, _)))
        })
    }

    /// Neither had blocked the other at any moment in that time.
    pub(crate) fn never_blocked(&self, a: usize, b: usize, from: u64, to: u64) -> bool {
        let free = |by, other| self.blocked(by, other, from, to) == Some(false);
        free(a, b) && free(b, a)
    }

    /// Now and then a client changes a list instead of what it does otherwise.
    pub(crate) fn act_blocking(&mut self, client: usize) -> bool {
        if !self.plan.blocking || !self.rng.permille(CHANGE_PERMILLE) {
            return false;
        }
        let account = self.clients[client].account;
        let devices: Vec<usize> = self.devices(account);
        let mine = |other: usize| devices[other % devices.len()] == client;
        let others: Vec<usize> = (0..self.plan.accounts)
            .filter(|&other| other != account && mine(other))
            .collect();
        if others.is_empty() {
            return false;
        }
        // The same few again and again: what changes once is less trouble.
        let other = others[self.rng.index(others.len().min(2))];
        self.change_list(client, other);
        true
    }

    fn devices(&self, account: usize) -> Vec<usize> {
        let clients = self.clients.iter().enumerate();
        clients
            .filter(|(_, c)| c.account == account)
            .map(|(n, _)| n)
            .collect()
    }

    fn change_list(&mut self, client: usize, other: usize) {
        let account = self.clients[client].account;
        let changes = self.blocks.changes.get(&(account, other));
        let blocks = changes
            .and_then(|c| c.last())
            .is_none_or(|last| !last.blocks);
        let name = if blocks { "block" } else { "unblock" };
        let jid = bare(other);
        let id = self.ask_set(
            client,
            "k",
            &format!("<{name} xmlns='{BLOCKING}'><item jid='{jid}'/></{name}>"),
        );
        self.trace.line(
            self.now_us,
            other as u64,
            format_args!("client {client} asks {id}: {name} account {other}"),
        );
        let change = Change {
            client,
            id,
            blocks,
            sent_us: self.now_us,
            answer: None,
        };
        let changes = self.blocks.changes.entry((account, other)).or_default();
        changes.push(change);
    }

    pub(crate) fn ask_blocklist(&mut self, client: usize) {
        if self.plan.blocking {
            self.clients[client].blocklist_asked_us = Some(self.now_us);
            self.ask(client, &format!("<blocklist xmlns='{BLOCKING}'/>"));
        }
    }

    /// A change has its answer, or the list comes.
    pub(crate) fn blocking_answered(&mut self, client: usize, id: &str, element: &Element) {
        let done = element.attr("type").as_deref() == Some("result");
        if id.starts_with("qb") {
            if let Some(list) = element.child("blocklist", BLOCKING).filter(|_| done) {
                let list: BTreeSet<usize> = accounts(&list.tree()).collect();
                for &other in &list {
                    self.no_presence_of(client, other);
                }
                self.clients[client].blocklist = Some(list);
            }
            return;
        }
        let (now, account) = (self.now_us, self.clients[client].account);
        let mut blocked = None;
        for (&(by, other), changes) in &mut self.blocks.changes {
            let change = changes
                .iter_mut()
                .filter(|_| by == account)
                .find(|c| c.client == client && c.id == id);
            if let Some(change) = change {
                change.answer.get_or_insert((done, now));
                blocked = (done && change.blocks).then_some(other);
            }
        }
        if let Some(other) = blocked {
            self.no_presence_of(client, other);
        }
        if !done && !self.oracle.disk_failed {
            let what = String::from_utf8_lossy(element.raw()).into_owned();
            self.fail(format!("client {client} may not change its list: {what}"));
        }
    }

    /// The client is told of a change.
    pub(crate) fn blocking_pushed(&mut self, client: usize, element: &Element) {
        let block = element.child("block", BLOCKING);
        let unblock = element.child("unblock", BLOCKING);
        let Some(change) = block.as_ref().or(unblock.as_ref()) else {
            return;
        };
        let others: Vec<usize> = accounts(&change.tree()).collect();
        self.trace.line(
            self.now_us,
            client as u64,
            format_args!(
                "client {client} is told: {} accounts {others:?}",
                change.name()
            ),
        );
        if self.clients[client].blocklist.is_none() && !self.asked_before_kill(client) {
            return self.fail(format!(
                "client {client} is told of a change of a list that it has not asked for"
            ));
        }
        for other in others {
            if block.is_some() {
                self.no_presence_of(client, other);
            }
            match &mut self.clients[client].blocklist {
                Some(list) if block.is_some() => list.insert(other),
                Some(list) => list.remove(&other),
                // The answer is still to come, and has all of it.
                None => true,
            };
        }
    }

    /// It has asked for the list, and a server that knew of it was killed before its answer was out: a push may come first then.
    /// XEP-0191 §3.3 has it sent to all resources that have requested the list, and the question is handled again (DESIGN §3,
    /// Replay is recognised).
    fn asked_before_kill(&self, client: usize) -> bool {
        let asked = self.clients[client].blocklist_asked_us;
        let mut kills = self.oracle.kills.iter();
        asked.is_some_and(|asked| kills.any(|&k| k >= asked))
    }

    /// Whoever is blocked says nothing any more (§3.3): what a client knows of them is not true for long.
    fn no_presence_of(&mut self, client: usize, other: usize) {
        let theirs = self.devices(other);
        let belief = &mut self.clients[client].belief;
        belief.retain(|of, _| !theirs.contains(of));
    }

    /// The client knows that it has blocked the account, and nobody has asked for anything else since.
    pub(crate) fn knows_blocked(&self, client: usize, other: usize) -> bool {
        let c = &self.clients[client];
        let listed = c.blocklist.as_ref().is_some_and(|l| l.contains(&other));
        listed && self.blocked(c.account, other, self.now_us, self.now_us) == Some(true)
    }

    /// Presence, or something published, of an account has reached a client.
    pub(crate) fn heard_of(&mut self, client: usize, other: usize, what: &str) {
        if self.knows_blocked(client, other) {
            self.fail(format!(
                "client {client} gets {what} of account {other}, which it has blocked"
            ));
        }
    }

    /// A message has reached a client: neither may have blocked the other since it was sent.
    pub(crate) fn delivered_in_spite(&self, number: usize, account: usize) -> Option<String> {
        let message = &self.oracle.messages[number];
        let sender = self.clients[message.client].account;
        let since = |by, other| self.blocked(by, other, message.sent_us, self.now_us) == Some(true);
        if since(account, sender) {
            Some(format!(
                "m{number} reached account {account}, which had blocked account {sender}"
            ))
        } else if since(sender, account) {
            Some(format!(
                "m{number} of account {sender} reached account {account}, which it had blocked itself"
            ))
        } else {
            None
        }
    }

    /// Whether a message may come back because of a list; `Err`: not with this error.
    pub(crate) fn rejected_by_list(&self, number: usize, error: &Element) -> Result<bool, String> {
        let message = &self.oracle.messages[number];
        let Some(account) = message.to_account.filter(|_| self.plan.blocking) else {
            return Ok(false);
        };
        let sender = self.clients[message.client].account;
        let (from, to) = (message.sent_us, self.now_us);
        let by_sender = self.blocked(sender, account, from, to);
        let by_other = self.blocked(account, sender, from, to);
        let tree = error.tree();
        let error = tree.child("error", "jabber:client");
        let has = |name: &str, ns: &str| error.is_some_and(|e| e.child(name, ns).is_some());
        let stanzas = "urn:ietf:params:xml:ns:xmpp-stanzas";
        let right = match (by_sender, by_other) {
            (Some(true), _) => has("not-acceptable", stanzas) && has("blocked", ERRORS),
            (Some(false), Some(true)) => has("service-unavailable", stanzas),
            _ => true,
        };
        if !right {
            return Err(format!(
                "m{number} between accounts {sender} and {account} comes back with the wrong error: {tree:?}"
            ));
        }
        Ok(by_sender != Some(false) || by_other != Some(false))
    }

    /// A message must come back: one of the two had blocked the other. (Not if its sender has done so since it was sent: the error
    /// of the other's account is of who is blocked, too.)
    pub(crate) fn comes_back(&self, message: &Message) -> bool {
        let sender = self.clients[message.client].account;
        let all = |by, other| self.blocked(by, other, message.sent_us, self.now_us);
        message.to_account.is_some_and(|account| {
            let own = all(sender, account);
            own == Some(true) || own == Some(false) && all(account, sender) == Some(true)
        })
    }

    /// The lists may have something to say about this message, until then.
    pub(crate) fn touched_by_list(&self, message: &Message, until: u64) -> bool {
        let sender = self.clients[message.client].account;
        message
            .to_account
            .is_some_and(|account| !self.never_blocked(sender, account, message.sent_us, until))
    }

    /// One of the two had blocked the other all the time.
    pub(crate) fn stopped_by_list(&self, message: &Message, until: u64) -> bool {
        let sender = self.clients[message.client].account;
        let all = |by, other| self.blocked(by, other, message.sent_us, until) == Some(true);
        message
            .to_account
            .is_some_and(|account| all(sender, account) || all(account, sender))
    }

    // ---- the end --------------------------------------------------------------------------------------------

    /// The lists on disk.
    pub(crate) fn lists_on_disk(&self) -> Vec<BTreeSet<usize>> {
        let mut reader = self.store.reader().expect("the model has readers");
        (0..self.plan.accounts)
            .map(|account| {
                let user = reader.user(&bare(account)).ok().flatten();
                let blocked = user.map(|u| u.blocked).unwrap_or_default();
                blocked
                    .iter()
                    .filter_map(|jid| account_of(jid.as_str()))
                    .collect()
            })
            .collect()
    }

    /// Each writes to whom it has, or has had, blocked, and the other way: what is in memory is as what is on disk.
    pub(crate) fn try_lists(&mut self) {
        let pairs: Vec<(usize, usize)> = self.blocks.changes.keys().copied().collect();
        for (by, other) in pairs {
            for (from, to) in [(by, other), (other, by)] {
                let online = self.devices(from);
                let mut online = online
                    .into_iter()
                    .filter(|&c| self.clients[c].state == State::Online);
                if let Some(client) = online.next() {
                    self.send_to(client, to);
                }
            }
        }
    }

    /// What was answered is on disk, and what clients know is so.
    pub(crate) fn check_lists(&mut self) {
        let lists = self.lists_on_disk();
        let mut wrong = Vec::new();
        for &(by, other) in self.blocks.changes.keys() {
            let is = lists[by].contains(&other);
            if self
                .blocked(by, other, self.now_us, self.now_us)
                .is_some_and(|should| should != is)
            {
                wrong.push(format!(
                    "account {other} is on the list of account {by}: {is}; it was answered otherwise"
                ));
            }
        }
        for (n, client) in self.clients.iter().enumerate() {
            let Some(list) = &client.blocklist else {
                continue;
            };
            let differs = list.symmetric_difference(&lists[client.account]);
            let differs = differs.filter(|&&other| !self.kill_took_news(client.account, other));
            if client.state == State::Online && differs.count() > 0 {
                wrong.push(format!(
                    "client {n} believes that its account blocks {list:?}; true is {:?}",
                    lists[client.account]
                ));
            }
        }
        wrong.into_iter().for_each(|text| self.fail(text));
    }

    /// A message that waits because its recipient has blocked the sender since.
    pub(crate) fn waits_for_list(
        &self,
        lists: &[BTreeSet<usize>],
        account: usize,
        row: &StoredRow,
    ) -> bool {
        let number = crate::client::message_number(&row.payload);
        let message = number.and_then(|n| self.oracle.messages.get(n));
        message.is_some_and(|m| {
            let sender = self.clients[m.client].account;
            lists[account].contains(&sender)
        })
    }
}

/// Accounts that the items of a list name.
fn accounts(list: &xmpp::node::Node) -> impl Iterator<Item = usize> {
    list.children()
        .filter_map(|item| account_of(item.attr("jid")?))
}

/// The account of an address.
pub(crate) fn account_of(jid: &str) -> Option<usize> {
    let (account, _) = jid.strip_prefix('u')?.split_once('@')?;
    account.parse().ok()
}
