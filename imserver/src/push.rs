//! Push notifications (XEP-0357): who of an account's clients is to be told of messages by a service of its own, and when.
//!
//! In: messages that are on disk, acknowledgements, which clients are there. Out: notifications to be published.
//! Owns: what each service has been told. Never: knows a clock or a session; tells a service anything but a number, unless the site
//! wants more.
//!
//! A message is told to a service when no client that somebody looks at has acknowledged it, and the service's own client is away, gone,
//! or inactive and has not acknowledged it either. While the own client is there and active, the message waits for its acknowledgement:
//! its connection may be dead without anybody knowing.

use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::VecDeque;
use store::PushService;
use xmpp::element::Element;
use xmpp::jid::{BareJid, Jid};
use xmpp::node::Node;
use xmpp::ns;

/// Messages of one account that wait to be told or acknowledged: with more the oldest is a number only.
const WAITING_MAX: usize = 200;
/// Notifications to one service in a minute, for one account: a person reads no faster, and services of phone makers count them.
const PER_MINUTE_MAX: u32 = 10;
const MINUTE_MS: u64 = 60_000;
/// Refusals in a row after which a service is not asked any more. "Wait" is none, but for so long.
const REFUSALS_MAX: u32 = 3;
const FAILURES_MAX: u32 = 20;
/// Characters of a body that are told: what a screen that is locked shows.
const BODY_CHARS_MAX: usize = 200;

const PUBSUB: &str = "http://jabber.org/protocol/pubsub";

/// A service, and what it has been told.
#[derive(Debug)]
pub struct Service {
    /// As it is stored.
    pub stored: PushService,
    told_up_to: u64,
    /// The last notification, if it has not been answered.
    asked: Option<u64>,
    refusals: u32,
    failures: u32,
    minute: (u64, u32),
}

/// A message that is to be told or acknowledged.
#[derive(Debug)]
struct Waiting {
    position: u64,
    from: Jid,
    body: Option<String>,
    /// Inactive sessions that have acknowledged it.
    had: SmallVec<[u32; 2]>,
}

/// How the client of a service is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// It is there, and somebody looks at it.
    Active,
    /// It has a session that is inactive, or waits for it to come back.
    Elsewhere(u32),
    /// It has none.
    Gone,
}

/// What is to be published.
#[derive(Debug, PartialEq, Eq)]
pub struct Notification {
    /// Which of the services.
    pub service: usize,
    /// Messages that wait for its client (§5: unread or undelivered), whether it was told of them before or not.
    pub count: u64,
    /// Who has sent the last of them.
    pub from: Jid,
    /// Its text.
    pub body: Option<String>,
}

/// Everything about one account.
#[derive(Debug, Default)]
pub struct Push {
    services: Vec<Service>,
    /// In the order of their positions: each until somebody has acknowledged it, and every service been told that is to be.
    waiting: VecDeque<Waiting>,
    /// Messages before `known_from` that nobody has acknowledged: they were there when the account was loaded, or were too many for
    /// the list.
    earlier: u64,
    /// The first position that was seen.
    known_from: Option<u64>,
    /// Some service is still to be told of something.
    is_due_again: bool,
    /// When it is looked at next (mono ms).
    pub due_ms: Option<u64>,
}

impl Push {
    /// As it is stored, with so many messages pending. `None`: no client wants any.
    pub fn new(stored: Vec<PushService>, pending: u64) -> Option<Box<Self>> {
        let services: Vec<Service> = stored.into_iter().map(|s| service(s, 0)).collect();
        (!services.is_empty()).then(|| {
            Box::new(Self {
                services,
                ..Self::without_services(pending)
            })
        })
    }

    /// Nobody wants any yet, and so many messages are pending.
    pub fn without_services(pending: u64) -> Self {
        Self {
            earlier: pending,
            ..Self::default()
        }
    }

    /// The services.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// Every service has been told what it is to be told, as far as it is known: nothing is due until another message comes.
    pub fn is_quiet(&self) -> bool {
        !self.is_due_again
    }

    /// A service is wanted from now on, for what comes from now on. What is to be removed from the store: the same service for the
    /// same client, at another node.
    pub fn enable(&mut self, stored: PushService) -> Vec<(Jid, String)> {
        let same = |s: &PushService| {
            s.service == stored.service && (s.node == stored.node || s.resource == stored.resource)
        };
        let (old, rest) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(|s| same(&s.stored));
        self.services = rest;
        let old: Vec<Service> = old;
        let told_up_to = self.waiting.back().map_or(0, |w| w.position);
        let node = stored.node.clone();
        self.services.push(service(stored, told_up_to));
        let old = old.into_iter().filter(|s| s.stored.node != node);
        old.map(|s| (s.stored.service, s.stored.node)).collect()
    }

    /// A service is not wanted any more: at this node, or at all. What is to be removed from the store.
    pub fn disable(&mut self, from: &Jid, node: Option<&str>) -> Vec<(Jid, String)> {
        let named =
            |s: &Service| s.stored.service == *from && node.is_none_or(|n| n == s.stored.node);
        let (gone, rest) = std::mem::take(&mut self.services)
            .into_iter()
            .partition(named);
        self.services = rest;
        let gone: Vec<Service> = gone;
        if self.services.is_empty() {
            self.waiting.clear();
        }
        gone.into_iter()
            .map(|s| (s.stored.service, s.stored.node))
            .collect()
    }

    /// A message of this position is on disk, whether it is to be told or not.
    pub fn stored(&mut self, position: u64) {
        self.known_from.get_or_insert(position);
    }

    /// A message is on disk, to be told if nobody acknowledges it.
    pub fn message(&mut self, position: u64, from: Jid, body: Option<String>) {
        self.stored(position);
        if self.waiting.len() == WAITING_MAX
            && let Some(first) = self.waiting.pop_front()
        {
            self.earlier += u64::from(first.had.is_empty());
            self.known_from = Some(first.position + 1);
        }
        let had = SmallVec::new();
        self.waiting.push_back(Waiting {
            position,
            from,
            body,
            had,
        });
    }

    /// A session has acknowledged it; `active`: somebody looks at that.
    pub fn acknowledged(&mut self, position: u64, slot: u32, active: bool) {
        if self.known_from.is_none_or(|known| position < known) {
            self.earlier = self.earlier.saturating_sub(1);
        } else if active {
            self.waiting.retain(|w| w.position != position);
        } else if let Some(w) = self.waiting.iter_mut().find(|w| w.position == position) {
            w.had.push(slot);
        }
    }

    /// What is to be published now. What some service is still to be told, or somebody to acknowledge, waits on.
    pub fn due(&mut self, now_ms: u64, client: impl Fn(&str) -> Client) -> Vec<Notification> {
        let mut notifications = Vec::new();
        let mut needed = vec![false; self.waiting.len()];
        for (n, service) in self.services.iter_mut().enumerate() {
            let client = client(&service.stored.resource);
            let slot = match client {
                Client::Elsewhere(slot) => Some(slot),
                _ => None,
            };
            let told_up_to = service.told_up_to;
            let missing = |w: &&Waiting| slot.is_none_or(|s| !w.had.contains(&s));
            let untold = |w: &&Waiting| w.position > told_up_to && missing(w);
            let waits = |w: &&Waiting| missing(w) && (w.position > told_up_to || w.had.is_empty());
            let Some(last) = self.waiting.iter().rfind(untold) else {
                continue;
            };
            if now_ms.saturating_sub(service.minute.0) >= MINUTE_MS {
                service.minute = (now_ms, 0);
            }
            if client == Client::Active || service.minute.1 >= PER_MINUTE_MAX {
                for (needed, w) in needed.iter_mut().zip(&self.waiting) {
                    *needed |= w.position > told_up_to;
                }
                continue;
            }
            service.minute.1 += 1;
            service.told_up_to = last.position;
            notifications.push(Notification {
                service: n,
                count: self.waiting.iter().filter(waits).count() as u64 + self.earlier,
                from: last.from.clone(),
                body: last.body.clone(),
            });
        }
        self.is_due_again = needed.contains(&true);
        let mut needed = needed.into_iter();
        self.waiting
            .retain(|w| needed.next().unwrap_or(false) || w.had.is_empty());
        notifications
    }

    /// The service has been asked.
    pub fn asked(&mut self, service: usize, id: u64) {
        self.services[service].asked = Some(id);
    }

    /// A service has answered; `error`: the type of its error. Which one is given up for it.
    pub fn answered(&mut self, from: &Jid, id: u64, error: Option<&str>) -> Option<(Jid, String)> {
        let of = |s: &&mut Service| s.stored.service == *from && s.asked == Some(id);
        let service = self.services.iter_mut().find(of)?;
        service.asked = None;
        match error {
            None => (service.refusals, service.failures) = (0, 0),
            Some("wait") => service.failures += 1,
            Some(_) => {
                (service.refusals, service.failures) = (service.refusals + 1, service.failures + 1)
            }
        }
        let over = service.refusals >= REFUSALS_MAX || service.failures >= FAILURES_MAX;
        let node = service.stored.node.clone();
        over.then(|| self.disable(from, Some(&node)).pop())
            .flatten()
    }
}

fn service(stored: PushService, told_up_to: u64) -> Service {
    Service {
        stored,
        told_up_to,
        asked: None,
        refusals: 0,
        failures: 0,
        minute: (0, 0),
    }
}

/// Whether somebody is to be told of a message, and its text: what has a body, is encrypted, calls (XEP-0353), or invites.
pub fn worth(stanza: &Bytes) -> Option<Option<String>> {
    let element = Element::parse(stanza.clone()).ok()?;
    let body = element.content_child("body").map(|b| b.text().into_owned());
    let body = body.filter(|b| !b.is_empty());
    let tells = element.children().any(|c| {
        matches!(
            (c.name(), c.ns()),
            ("encrypted", _)
                | (_, ns::ENCRYPTION)
                | ("propose", "urn:xmpp:jingle-message:0")
                | ("x", ns::CONFERENCE)
        )
    });
    let cut = |b: String| b.chars().take(BODY_CHARS_MAX).collect();
    (body.is_some() || tells).then(|| body.map(cut))
}

/// The publish request (§5). `sender` and `body`: the site wants them told.
pub fn publish(
    account: &BareJid,
    stored: &PushService,
    id: u64,
    told: &Notification,
    (sender, body): (bool, bool),
) -> Bytes {
    use xmpp::form::{Field, FieldType, Form, FormType};
    let field = |var: &str, value: &str| Field::new(FieldType::TextSingle, var, "").with(value);
    let mut form = Form::of_type(FormType::Submit, "urn:xmpp:push:summary")
        .with(field("message-count", &told.count.to_string()));
    if sender {
        form = form.with(field("last-message-sender", told.from.as_str()));
    }
    if let Some(text) = told.body.as_deref().filter(|_| body) {
        form = form.with(field("last-message-body", text));
    }
    let notification = Node::new("notification", ns::PUSH).with_child(form.to_node());
    let node = Some(stored.node.as_str()).filter(|n| !n.is_empty());
    let publish = Node::new("publish", PUBSUB)
        .with_attr_opt("node", node)
        .with_child(Node::new("item", PUBSUB).with_child(notification));
    let mut pubsub = Node::new("pubsub", PUBSUB).with_child(publish);
    if let Some(options) = &stored.options {
        pubsub = pubsub.with_child(Node::new("publish-options", PUBSUB).with_raw(options.clone()));
    }
    Node::new("iq", ns::CLIENT)
        .with_attr("type", "set")
        .with_attr("id", format!("push-{id:x}"))
        .with_attr("from", account.as_str())
        .with_attr("to", stored.service.as_str())
        .with_child(pubsub)
        .to_bytes(ns::CLIENT)
}

/// The number in the id of a request of ours.
pub fn id_of(id: &str) -> Option<u64> {
    u64::from_str_radix(id.strip_prefix("push-")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        Jid::parse(text).expect("an address")
    }

    fn stored(node: &str, resource: &str) -> PushService {
        PushService {
            service: jid("push.example"),
            node: node.into(),
            resource: resource.into(),
            options: None,
        }
    }

    fn push() -> Push {
        *Push::new(vec![stored("a", "phone"), stored("b", "tablet")], 0).expect("two services")
    }

    fn counts(push: &mut Push, now_ms: u64, phone: Client, tablet: Client) -> Vec<(usize, u64)> {
        let client = |resource: &str| if resource == "phone" { phone } else { tablet };
        let told = push.due(now_ms, client).into_iter();
        told.map(|n| (n.service, n.count)).collect()
    }

    #[test]
    fn a_service_is_told_once_while_its_client_is_away() {
        let mut push = push();
        push.message(1, jid("a@b/x"), None);
        push.message(2, jid("a@b/x"), None);
        assert_eq!(counts(&mut push, 1, Client::Gone, Client::Active), [(0, 2)]);
        assert_eq!(counts(&mut push, 2, Client::Gone, Client::Active), []);
        // The tablet's connection turns out to be dead.
        push.message(3, jid("a@b/x"), None);
        assert_eq!(
            counts(&mut push, 3, Client::Gone, Client::Elsewhere(7)),
            [(0, 3), (1, 3)]
        );
        assert!(push.is_quiet());
        // The phone comes, takes two of them, and is gone again.
        push.acknowledged(1, 9, true);
        push.acknowledged(2, 9, true);
        assert_eq!(counts(&mut push, 4, Client::Gone, Client::Elsewhere(7)), []);
        push.message(4, jid("a@b/x"), None);
        assert_eq!(
            counts(&mut push, 5, Client::Gone, Client::Elsewhere(7)),
            [(0, 2), (1, 2)]
        );
    }

    #[test]
    fn what_was_there_before_counts_until_it_is_acknowledged() {
        let mut push = *Push::new(vec![stored("a", "phone")], 3).expect("a service");
        push.stored(10);
        push.message(11, jid("a@b/x"), None);
        assert_eq!(counts(&mut push, 1, Client::Gone, Client::Gone), [(0, 4)]);
        // One of them, and one that is nothing to tell.
        push.acknowledged(7, 9, true);
        push.acknowledged(10, 9, true);
        push.message(12, jid("a@b/x"), None);
        assert_eq!(counts(&mut push, 2, Client::Gone, Client::Gone), [(0, 4)]);
        for n in 13..=12 + WAITING_MAX as u64 {
            push.message(n, jid("a@b/x"), None);
        }
        let all = 2 + 2 + WAITING_MAX as u64;
        assert_eq!(counts(&mut push, 3, Client::Gone, Client::Gone), [(0, all)]);
        push.acknowledged(11, 9, true);
        push.acknowledged(13, 9, true);
        push.message(1_000, jid("a@b/x"), None);
        assert_eq!(
            counts(&mut push, 4, Client::Gone, Client::Gone),
            [(0, all - 1)]
        );
    }

    #[test]
    fn what_is_acknowledged_is_not_told() {
        let mut push = push();
        for position in 1..=3 {
            push.message(position, jid("a@b/x"), None);
        }
        push.acknowledged(1, 4, true);
        // By the inactive tablet: the phone is to be told all the same.
        push.acknowledged(2, 7, false);
        push.acknowledged(3, 7, false);
        assert_eq!(
            counts(&mut push, 1, Client::Gone, Client::Elsewhere(7)),
            [(0, 2)]
        );
        assert!(push.is_quiet());
    }

    #[test]
    fn so_many_are_told_in_a_minute_and_the_rest_together() {
        let mut push = push();
        let mut told = 0;
        for n in 1..=30 {
            push.message(n, jid("a@b/x"), None);
            told += counts(&mut push, n, Client::Gone, Client::Active).len();
        }
        assert_eq!(told, 10);
        assert_eq!(
            counts(&mut push, MINUTE_MS + 1, Client::Gone, Client::Active),
            [(0, 30)]
        );
        for n in 31..1_000 {
            push.message(n, jid("a@b/x"), None);
        }
        assert_eq!(push.waiting.len(), WAITING_MAX);
    }

    #[test]
    fn a_service_that_refuses_is_given_up_and_one_that_is_busy_later() {
        let mut push = push();
        let gone = Some((jid("push.example"), "a".to_owned()));
        let mut answer = |n: u64, error| {
            push.asked(0, n);
            push.answered(&jid("push.example"), n, error)
        };
        assert_eq!(
            (answer(1, Some("cancel")), answer(2, Some("auth"))),
            (None, None)
        );
        // One that works in between counts from the beginning.
        assert_eq!(answer(3, None), None);
        assert_eq!(
            (answer(4, Some("cancel")), answer(5, Some("wait"))),
            (None, None)
        );
        assert_eq!(
            (answer(6, Some("cancel")), answer(7, Some("modify"))),
            (None, gone)
        );
        for n in 0..FAILURES_MAX - 1 {
            push.asked(0, n.into());
            assert_eq!(
                push.answered(&jid("push.example"), n.into(), Some("wait")),
                None
            );
        }
        push.asked(0, 99);
        assert_eq!(push.answered(&jid("other.example"), 99, Some("wait")), None);
        assert_eq!(push.answered(&jid("push.example"), 98, Some("wait")), None);
        assert!(
            push.answered(&jid("push.example"), 99, Some("wait"))
                .is_some()
        );
        assert!(push.services().is_empty());
    }

    #[test]
    fn a_client_has_one_node_of_a_service() {
        let mut push = push();
        assert_eq!(push.enable(stored("a", "phone")), []);
        assert_eq!(
            push.enable(stored("c", "phone")),
            [(jid("push.example"), "a".to_owned())]
        );
        assert_eq!(push.services().len(), 2);
        assert_eq!(push.disable(&jid("push.example"), Some("none")), []);
        assert_eq!(push.disable(&jid("push.example"), None).len(), 2);
    }

    #[test]
    fn what_is_told_is_a_table() {
        for (inside, want) in [
            ("<body>hi</body>", Some(Some("hi"))),
            ("<body/>", None),
            ("<received xmlns='urn:xmpp:receipts' id='1'/>", None),
            (
                "<composing xmlns='http://jabber.org/protocol/chatstates'/>",
                None,
            ),
            (
                "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>",
                Some(None),
            ),
            (
                "<encrypted xmlns='eu.siacs.conversations.axolotl'/>",
                Some(None),
            ),
            ("<x xmlns='jabber:x:conference' jid='r@c'/>", Some(None)),
        ] {
            let xml = Bytes::from(format!("<message type='chat'>{inside}</message>"));
            assert_eq!(worth(&xml), want.map(|b| b.map(str::to_owned)), "{inside}");
        }
    }

    #[test]
    fn a_notification_tells_what_the_site_wants() {
        let told = Notification {
            service: 0,
            count: 2,
            from: jid("a@b/x"),
            body: Some("<hi>".into()),
        };
        let options = PushService {
            options: Some(Bytes::from_static(
                b"<x xmlns='jabber:x:data' type='submit'/>",
            )),
            ..stored("n", "phone")
        };
        let account = BareJid::parse("c@d").expect("an address");
        let text = |all| {
            String::from_utf8_lossy(&publish(&account, &options, 26, &told, all)).into_owned()
        };
        let little = text((false, false));
        assert!(
            little.starts_with("<iq type='set' id='push-1a' from='c@d' to='push.example'><pubsub "),
            "{little}"
        );
        assert!(
            little.contains("<value>2</value>")
                && !little.contains("a@b")
                && !little.contains("hi"),
            "{little}"
        );
        assert!(
            little.contains(
                "<publish-options><x xmlns='jabber:x:data' type='submit'/></publish-options>"
            ),
            "{little}"
        );
        let all = text((true, true));
        assert!(
            all.contains("<value>a@b/x</value>") && all.contains("<value>&lt;hi&gt;</value>"),
            "{all}"
        );
        assert_eq!(id_of("push-1a"), Some(26));
        assert_eq!(id_of("other"), None);
    }
}
