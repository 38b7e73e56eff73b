//! The core without a shard: tables of who may do what, and what comes of it.

use super::ask::{Ask, parse, parse_owner};
use super::avatar::Photo;
use super::config::{AccessModel, Config, ITEMS_MAX};
use super::decide::{Change, Plan, Service, decide};
use super::event::{Contacts, Recipients};
use super::node::{Affiliation, Member, Node, Nodes, Subscription, Who};
use super::*;
use store::{PubsubChange, PubsubRange};
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::{BareJid, Jid};
use xmpp::node as xml;
use xmpp::ns;

pub(super) const LIMITS: Limits = Limits {
    nodes_max: 3,
    items_max: 10,
    item_bytes_max: 100,
    bytes_max: 10_000,
    page_bytes_max: 1_000,
};

fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("an address")
}

fn owner() -> BareJid {
    jid("juliet@example.org").bare()
}

/// Who asks in the tables: the owner, a contact, one of a group, a stranger, and what members they are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    Owner,
    Contact,
    Stranger,
}

impl Asks {
    fn jid(self) -> Jid {
        match self {
            Self::Owner => jid("juliet@example.org/balcony"),
            Self::Contact => jid("romeo@example.org/orchard"),
            Self::Stranger => jid("mallory@example.net/cave"),
        }
    }
}

fn ask_as(asks: Asks, nodes: &mut Nodes, again: bool, ask: Ask) -> Plan {
    ask_within(LIMITS, asks, nodes, again, ask)
}

fn ask_within(limits: Limits, asks: Asks, nodes: &mut Nodes, again: bool, ask: Ask) -> Plan {
    let (owner, from) = (owner(), asks.jid());
    let friends = ["Friends".to_owned()];
    let who = Who {
        jid: &from,
        presence: asks != Asks::Stranger,
        groups: if asks == Asks::Contact { &friends } else { &[] },
    };
    let service = Service {
        owner: &owner,
        limits,
        now_ms: 7,
        again,
        fresh_id: "fresh",
    };
    decide(&service, nodes, &who, ask)
}

fn read(set: bool, inside: &str) -> Result<Ask, Refusal> {
    let xml = format!("<pubsub xmlns='{}'>{inside}</pubsub>", ns::PUBSUB);
    parse(
        &xml::Node::parse(xml.as_bytes(), "").expect("well-formed"),
        set,
        &LIMITS,
    )
}

fn of_owner(set: bool, inside: &str) -> Ask {
    let xml = format!("<pubsub xmlns='{}'>{inside}</pubsub>", ns::PUBSUB_OWNER);
    let node = xml::Node::parse(xml.as_bytes(), "").expect("well-formed");
    parse_owner(&node, set).expect("it can be read")
}

fn publish(node: &str, id: &str) -> Ask {
    let inside = format!("<publish node='{node}'><item id='{id}'><a xmlns='a'/></item></publish>");
    read(true, &inside).expect("it can be read")
}

fn node_with(access: AccessModel) -> Node {
    let config = Config {
        access,
        roster_groups: vec!["Friends".into()],
        items_max: ITEMS_MAX,
        ..Config::default()
    };
    Node {
        config,
        ..Node::default()
    }
}

fn one(name: &str, node: Node) -> Nodes {
    Nodes::from([(name.to_owned(), node)])
}

fn change(plan: Plan) -> Change {
    match plan {
        Plan::Change(change) => *change,
        other => panic!("{other:?}"),
    }
}

fn condition(plan: &Plan) -> String {
    match plan {
        Plan::Refuse(refusal) => {
            let pubsub = refusal.pubsub.map(|p| format!(" {p}")).unwrap_or_default();
            format!("{}{pubsub}", refusal.condition.as_str())
        }
        Plan::Hidden => "hidden".into(),
        _ => "+".into(),
    }
}

#[test]
fn who_may_read_is_a_table() {
    use AccessModel::*;
    use Affiliation as A;
    let items = || read(false, "<items node='n'/>").expect("it can be read");
    for (access, asks, affiliation, subscribed, expected) in [
        (Open, Asks::Stranger, A::None, false, "+"),
        (Open, Asks::Stranger, A::Outcast, false, "forbidden"),
        (Presence, Asks::Contact, A::None, false, "+"),
        (
            Presence,
            Asks::Stranger,
            A::None,
            false,
            "not-authorized presence-subscription-required",
        ),
        (Presence, Asks::Stranger, A::Member, false, "+"),
        (Presence, Asks::Contact, A::Outcast, false, "forbidden"),
        (Roster, Asks::Contact, A::None, false, "+"),
        (
            Roster,
            Asks::Stranger,
            A::None,
            false,
            "not-authorized not-in-roster-group",
        ),
        (
            Whitelist,
            Asks::Contact,
            A::None,
            false,
            "not-allowed closed-node",
        ),
        (Whitelist, Asks::Contact, A::Member, false, "+"),
        (Whitelist, Asks::Contact, A::Publisher, false, "+"),
        (
            Whitelist,
            Asks::Contact,
            A::None,
            true,
            "not-allowed closed-node",
        ),
        (
            Authorize,
            Asks::Contact,
            A::None,
            false,
            "not-authorized not-subscribed",
        ),
        (Authorize, Asks::Contact, A::None, true, "+"),
        (Whitelist, Asks::Owner, A::None, false, "+"),
        (Authorize, Asks::Owner, A::None, false, "+"),
    ] {
        let mut node = node_with(access);
        let member = Member {
            affiliation,
            subscription: match subscribed {
                true => Subscription::Subscribed,
                false => Subscription::None,
            },
        };
        node.set_member("n", &Jid::Bare(asks.jid().bare()), member);
        let plan = ask_as(asks, &mut one("n", node), false, items());
        assert_eq!(
            condition(&plan),
            expected,
            "{access:?} {asks:?} {affiliation:?} {subscribed}"
        );
    }
}

/// A stranger who finds nothing open is told what is said of nobody; whoever finds something is told the truth.
#[test]
fn a_stranger_learns_of_nobody() {
    let missing = || read(false, "<items node='missing'/>").expect("it can be read");
    let asks = [
        missing(),
        publish("missing", "x"),
        Ask::Info(None),
        Ask::Info(Some("missing".into())),
        Ask::Nodes(None),
        read(false, "<affiliations/>").expect("it can be read"),
        read(false, "<subscriptions/>").expect("it can be read"),
    ];
    for ask in asks {
        for nodes in [Nodes::new(), one("n", node_with(AccessModel::Presence))] {
            let plan = ask_as(Asks::Stranger, &mut nodes.clone(), false, ask.clone());
            assert_eq!(plan, Plan::Hidden, "{ask:?}");
            let plan = ask_as(Asks::Contact, &mut nodes.clone(), false, ask.clone());
            assert_ne!(plan, Plan::Hidden, "{ask:?}");
        }
        let mut open = one("n", node_with(AccessModel::Open));
        assert_ne!(ask_as(Asks::Stranger, &mut open, false, ask), Plan::Hidden);
    }
}

#[test]
fn what_changes_nodes_is_the_owners() {
    let asks = [
        (publish("n", "x"), "forbidden"),
        (
            read(true, "<retract node='n'><item id='x'/></retract>").expect("read"),
            "forbidden",
        ),
        (read(true, "<create node='m'/>").expect("read"), "forbidden"),
        (of_owner(true, "<delete node='n'/>"), "forbidden"),
        (of_owner(true, "<purge node='n'/>"), "forbidden"),
        (of_owner(false, "<configure node='n'/>"), "forbidden"),
        (of_owner(false, "<affiliations node='n'/>"), "forbidden"),
        (of_owner(false, "<subscriptions node='n'/>"), "forbidden"),
        (
            of_owner(
                true,
                "<affiliations node='n'><affiliation jid='a@b' affiliation='owner'/></affiliations>",
            ),
            "forbidden",
        ),
        (
            of_owner(
                true,
                "<subscriptions node='n'><subscription jid='a@b' subscription='subscribed'/></subscriptions>",
            ),
            "forbidden",
        ),
    ];
    for (ask, expected) in asks {
        let mut node = node_with(AccessModel::Open);
        let asked = Member {
            subscription: Subscription::Pending,
            ..Member::default()
        };
        node.set_member("n", &jid("a@b"), asked);
        let before = one("n", node);
        let mut nodes = before.clone();
        let plan = ask_as(Asks::Contact, &mut nodes, false, ask.clone());
        assert_eq!(condition(&plan), expected, "{ask:?}");
        assert_eq!(nodes, before, "{ask:?}");
        let plan = ask_as(Asks::Owner, &mut nodes, false, ask.clone());
        assert_eq!(condition(&plan), "+", "{ask:?}");
    }
}

#[test]
fn publishing_makes_the_node_and_tells_of_it() {
    let mut nodes = Nodes::new();
    let made = change(ask_as(Asks::Owner, &mut nodes, false, publish("n", "x")));
    let [
        PubsubChange::Put { node, .. },
        PubsubChange::Publish {
            item, items_max: 1, ..
        },
    ] = &made.changes[..]
    else {
        panic!("{made:?}");
    };
    assert_eq!(
        (node.as_str(), item.id.as_str(), item.time_ms),
        ("n", "x", 7)
    );
    assert_eq!(item.publisher, "juliet@example.org/balcony");
    let [notice] = &made.notices[..] else {
        panic!("{made:?}");
    };
    let Recipients::All(audience) = &notice.to else {
        panic!("{notice:?}");
    };
    assert_eq!(audience.contacts, Contacts::All);
    // Only of the first is the node new.
    let again = change(ask_as(Asks::Owner, &mut nodes, false, publish("n", "y")));
    assert_eq!(again.changes.len(), 1);
    // As many nodes as may be.
    for name in ["a", "b"] {
        change(ask_as(Asks::Owner, &mut nodes, false, publish(name, "x")));
    }
    let plan = ask_as(Asks::Owner, &mut nodes, false, publish("c", "x"));
    assert_eq!(condition(&plan), "policy-violation");
    assert_eq!(nodes.len(), 3);
    // An id of ours: always the same where there is one item, and the same again after a kill.
    let anonymous = |node: &str| {
        let inside = format!("<publish node='{node}'><item><a xmlns='a'/></item></publish>");
        read(true, &inside).expect("it can be read")
    };
    let id = |change: Change| match change.changes.last() {
        Some(PubsubChange::Publish { item, .. }) => item.id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        id(change(ask_as(
            Asks::Owner,
            &mut nodes,
            false,
            anonymous("n")
        ))),
        "current"
    );
    nodes.insert("many".into(), node_with(AccessModel::Open));
    assert_eq!(
        id(change(ask_as(
            Asks::Owner,
            &mut nodes,
            false,
            anonymous("many")
        ))),
        "fresh"
    );
}

#[test]
fn what_was_done_before_the_kill_is_done() {
    let create = read(true, "<create node='n'/>").expect("read");
    let made = || {
        one(
            "n",
            Node {
                created_ms: 1,
                ..Node::default()
            },
        )
    };
    let unsubscribe = "<unsubscribe node='n' jid='juliet@example.org'/>";
    for (nodes, ask, first, again) in [
        (made(), create, "conflict", "+"),
        (
            Nodes::new(),
            of_owner(true, "<delete node='n'/>"),
            "item-not-found",
            "+",
        ),
        (
            made(),
            read(true, unsubscribe).expect("read"),
            "unexpected-request not-subscribed",
            "+",
        ),
    ] {
        let plan = ask_as(Asks::Owner, &mut nodes.clone(), false, ask.clone());
        assert_eq!(condition(&plan), first, "{ask:?}");
        let plan = ask_as(Asks::Owner, &mut nodes.clone(), true, ask.clone());
        assert_eq!(condition(&plan), again, "{ask:?}");
    }
}

#[test]
fn a_node_is_stored_and_read_whole() {
    let mut node = node_with(AccessModel::Roster);
    node.created_ms = 5;
    let mut members = Vec::new();
    for (jid, affiliation, subscription) in [
        (
            jid("romeo@example.org"),
            Affiliation::Publisher,
            Subscription::Pending,
        ),
        (
            jid("romeo@example.org/x"),
            Affiliation::None,
            Subscription::Subscribed,
        ),
    ] {
        let member = Member {
            affiliation,
            subscription,
        };
        let PubsubChange::Member { jid, state, .. } = node.set_member("n", &jid, member) else {
            panic!("a member");
        };
        members.push((jid, state.expect("it is one")));
    }
    let mut stored = store::PubsubNode {
        node: "n".into(),
        meta: node.meta(),
        members,
    };
    assert_eq!(Node::load(&stored), node);
    assert!(node.is_subscribed(&jid("romeo@example.org").bare()));
    // What the disk has spoiled is nobody's but the owner's.
    stored.meta = "{".into();
    assert_eq!(Node::load(&stored).config.access, AccessModel::Whitelist);
}

#[test]
fn conditions_are_met_or_not() {
    let form = |fields: &[(&str, &str)]| {
        let form = Form::of_type(FormType::Submit, ns::PUBSUB_PUBLISH_OPTIONS);
        fields.iter().fold(form, |form, (var, value)| {
            form.with(Field::new(FieldType::TextSingle, format!("pubsub#{var}"), "").with(*value))
        })
    };
    let config = node_with(AccessModel::Open).config;
    for (fields, expected) in [
        (&[][..], true),
        (&[("access_model", "open")], true),
        (&[("access_model", "open"), ("persist_items", "true")], true),
        (&[("access_model", "whitelist")], false),
        (&[("max_items", "max")], true),
        // As many as a node may have here.
        (&[("max_items", "10")], true),
        (&[("max_items", "1000000000")], true),
        (&[("max_items", "9")], false),
        (&[("max_items", "-1")], false),
        (&[("send_last_published_item", "never")], false),
        (&[("colour", "red")], false),
    ] {
        assert_eq!(
            config.meets(&form(fields), LIMITS.items_max),
            expected,
            "{fields:?}"
        );
    }
}

#[test]
fn pages_are_bounded_whatever_is_asked() {
    let items = |inside: &str| match read(false, inside) {
        Ok(Ask::Items(items)) => Ok((items.range, items.limit)),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.condition),
    };
    let page = |set: &str| {
        items(&format!(
            "<items node='n'/><set xmlns='{}'>{set}</set>",
            ns::RSM
        ))
    };
    use xmpp::error::StanzaError::*;
    for (got, expected) in [
        (items("<items node='n'/>"), Ok((PubsubRange::Newest, 10))),
        (
            items("<items node='n' max_items='3'/>"),
            Ok((PubsubRange::Newest, 3)),
        ),
        (
            items("<items node='n' max_items='1000000000'/>"),
            Ok((PubsubRange::Newest, 10)),
        ),
        (items("<items node='n' max_items='0'/>"), Err(BadRequest)),
        (items("<items node='n' max_items='-1'/>"), Err(BadRequest)),
        (page("<max>1000000000</max>"), Ok((PubsubRange::Newest, 10))),
        (page("<max>-1</max>"), Err(BadRequest)),
        (page("<max>0</max>"), Ok((PubsubRange::Newest, 0))),
        (page("<before/>"), Ok((PubsubRange::Oldest, 10))),
        (
            page("<after>x</after>"),
            Ok((PubsubRange::After("x".into()), 10)),
        ),
        (page("<index>4</index>"), Ok((PubsubRange::Index(4), 10))),
        (page("<index>x</index>"), Err(BadRequest)),
    ] {
        assert_eq!(got, expected);
    }
    let ids = "<item id='1'/>".repeat(IDS_MAX + 1);
    assert_eq!(
        items(&format!("<items node='n'>{ids}</items>")),
        Err(PolicyViolation)
    );
}

#[test]
fn members_are_bounded() {
    let mut node = node_with(AccessModel::Open);
    for n in 0..MEMBERS_MAX {
        let member = Member {
            affiliation: Affiliation::Member,
            ..Member::default()
        };
        node.set_member("n", &jid(&format!("u{n}@example.org")), member);
    }
    let mut nodes = one("n", node);
    let subscribe = "<subscribe node='n' jid='romeo@example.org'/>";
    let plan = ask_as(
        Asks::Contact,
        &mut nodes,
        false,
        read(true, subscribe).expect("read"),
    );
    assert_eq!(condition(&plan), "policy-violation too-many-subscriptions");
    let more =
        "<affiliations node='n'><affiliation jid='a@b' affiliation='member'/></affiliations>";
    let plan = ask_as(Asks::Owner, &mut nodes, false, of_owner(true, more));
    assert_eq!(condition(&plan), "policy-violation");
}

#[test]
fn one_account_does_not_fill_a_node_and_an_outcast_is_no_subscriber() {
    let mut nodes = one("n", node_with(AccessModel::Open));
    let subscribe = |resource: usize| {
        let jid = format!("romeo@example.org/{resource}");
        let ask = format!("<subscribe node='n' jid='{jid}'/>");
        read(true, &ask).expect("read")
    };
    for n in 0..SUBSCRIPTIONS_PER_ACCOUNT_MAX {
        let plan = ask_as(Asks::Contact, &mut nodes, false, subscribe(n));
        assert_eq!(condition(&plan), "+", "{n}");
    }
    let plan = ask_as(Asks::Contact, &mut nodes, false, subscribe(100));
    assert_eq!(condition(&plan), "policy-violation too-many-subscriptions");
    // Who has not asked is not made to listen.
    let strangers = "<subscriptions node='n'><subscription jid='a@b' subscription='subscribed'/></subscriptions>";
    let plan = ask_as(Asks::Owner, &mut nodes, false, of_owner(true, strangers));
    assert_eq!(condition(&plan), "not-allowed");
    let outcast = "<affiliations node='n'><affiliation jid='romeo@example.org' affiliation='outcast'/></affiliations>";
    let plan = ask_as(Asks::Owner, &mut nodes, false, of_owner(true, outcast));
    assert_eq!(condition(&plan), "+");
    let subscribed = nodes["n"].members.values();
    let subscribed = subscribed.filter(|m| m.subscription != Subscription::None);
    assert_eq!(subscribed.count(), 0);
}

#[test]
fn subscribers_leave_room_and_all_nodes_together_are_bounded() {
    let filled = |members: usize| {
        let mut node = node_with(AccessModel::Open);
        for n in 0..members {
            let member = Member {
                subscription: Subscription::Subscribed,
                ..Member::default()
            };
            node.set_member("n", &jid(&format!("u{n}@example.org")), member);
        }
        node
    };
    let subscribe = || {
        let ask = "<subscribe node='n' jid='romeo@example.org'/>";
        read(true, ask).expect("read")
    };
    let outcast =
        "<affiliations node='n'><affiliation jid='a@b' affiliation='outcast'/></affiliations>";
    let mut nodes = one("n", filled(SUBSCRIBERS_MAX));
    let plan = ask_as(Asks::Contact, &mut nodes, false, subscribe());
    assert_eq!(condition(&plan), "policy-violation too-many-subscriptions");
    let plan = ask_as(Asks::Owner, &mut nodes, false, of_owner(true, outcast));
    assert_eq!(condition(&plan), "+");
    let mut nodes = one("n", node_with(AccessModel::Open));
    for n in 0..MEMBERS_OF_ACCOUNT_MAX.div_ceil(MEMBERS_MAX) {
        nodes.insert(format!("other{n}"), filled(MEMBERS_MAX));
    }
    let plan = ask_as(Asks::Contact, &mut nodes, false, subscribe());
    assert_eq!(condition(&plan), "policy-violation too-many-subscriptions");
    let plan = ask_as(Asks::Owner, &mut nodes, false, of_owner(true, outcast));
    assert_eq!(condition(&plan), "policy-violation");
}

#[test]
fn a_photo_that_finds_no_room_makes_no_node() {
    let mut nodes = Nodes::new();
    let limits = Limits {
        nodes_max: 1,
        ..LIMITS
    };
    let card = Ask::Card {
        xml: None,
        photo: Photo::new("image/png", "iVBORw0KGgo=").map(Box::new),
    };
    let plan = ask_within(limits, Asks::Owner, &mut nodes, false, card);
    assert_eq!(condition(&plan), "policy-violation");
    assert!(nodes.is_empty());
}

#[test]
fn bookmarks_go_from_one_form_to_another_and_back() {
    use super::bookmarks::{List, NODE, OLD, Stored};
    let storage = |inside: &str| {
        let xml = format!("<storage xmlns='{OLD}'>{inside}</storage>");
        xml::Node::parse(xml.as_bytes(), "").expect("well-formed")
    };
    let room = "<conference jid='a@rooms' name='A' autojoin='1'><nick>me</nick><x xmlns='urn:x'/></conference>";
    let url = "<url url='http://x'/>";
    let nameless = "<conference name='nowhere'/>";
    let list = |inside: &str| List::of(&storage(inside), 2).expect("few enough");
    let new = Stored::default().replaced(list(&format!("{room}{url}{nameless}")), None);
    let [(id, payload)] = &new.publish[..] else {
        panic!("{new:?}");
    };
    let item = format!(
        "<conference xmlns='{NODE}' name='A' autojoin='1'><nick>me</nick>\
         <extensions><x xmlns='urn:x'/></extensions></conference>"
    );
    assert_eq!((id.as_str(), &payload[..]), ("a@rooms", item.as_bytes()));
    let stored = Stored {
        items: vec![store::PubsubItem {
            id: id.clone(),
            publisher: String::new(),
            time_ms: 1,
            payload: payload.clone(),
        }],
        private: new.private.xml,
    };
    assert_eq!(stored.storage(), storage(&format!("{room}{url}{nameless}")));
    // The same again changes nothing; a client that knows no extensions does not remove them.
    let same = stored.replaced(list(room), None);
    assert!(same.publish.is_empty() && same.retract.is_empty());
    let simple = room.replace("<x xmlns='urn:x'/>", "");
    assert!(stored.replaced(list(&simple), None).publish.is_empty());
    let other = stored.replaced(list(&simple.replace("'A'", "'B'")), None);
    let kept = String::from_utf8_lossy(&other.publish[0].1).contains("urn:x");
    assert!(kept && other.retract.is_empty());
    let none = stored.replaced(list(""), None);
    assert_eq!(
        (none.retract, none.private.xml),
        (vec!["a@rooms".to_owned()], None)
    );
    let many: String = (0..3)
        .map(|n| format!("<conference jid='{n}@rooms'/>"))
        .collect();
    assert!(List::of(&storage(&many), 2).is_err());
}

#[test]
fn a_photo_is_an_avatar_and_presence_says_so() {
    use super::avatar::{Photo, hash, restamped, stamp};
    use xmpp::element::Element;
    let photo = Photo::new("image/png", "aGVs\nbG8=").expect("a picture");
    let sha = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
    assert_eq!((photo.id.as_str(), photo.bytes), (sha, 5));
    assert_eq!(hash(&photo.metadata()).as_deref(), Some(sha));
    assert_eq!(hash(b"<metadata xmlns='urn:xmpp:avatar:metadata'/>"), None);
    // What is said to be no type of pictures is one by its first bytes, or none.
    let kind = |said: &str, base64: &str| Photo::new(said, base64).map(|p| p.media_type);
    assert_eq!(
        kind("img/png", "iVBORw0KGgo=").as_deref(),
        Some("image/png")
    );
    assert_eq!(kind("", "/9j/4A==").as_deref(), Some("image/jpeg"));
    assert_eq!(
        kind("image/jpeg", "iVBORw0KGgo=").as_deref(),
        Some("image/jpeg")
    );
    assert_eq!(kind("text/html", "aGVsbG8="), None);
    // One that is elsewhere is none; neither is what is no hash.
    let info = |attrs: &str| {
        format!("<metadata xmlns='urn:xmpp:avatar:metadata'><info {attrs}/></metadata>")
    };
    assert_eq!(
        hash(info(&format!("id='{sha}' url='http://x'")).as_bytes()),
        None
    );
    assert_eq!(hash(info("id='&lt;x'").as_bytes()), None);
    let presence = |inside: &str| {
        let xml = format!("<presence from='a@b/c'>{inside}</presence>");
        Element::parse(xml.into()).expect("well-formed")
    };
    let said = |inside: &str, hash| {
        let stamp = stamp(&presence(inside), hash)?;
        Some(String::from_utf8_lossy(&stamp).into_owned())
    };
    let x = |inside: &str| format!("<x xmlns='vcard-temp:x:update'>{inside}</x>");
    let full = x("<photo>1</photo>");
    assert_eq!(said("", Some("1")), Some(full.clone()));
    assert_eq!(said(&x(""), Some("1")), Some(full.clone()));
    assert_eq!(said(&x("<photo>2</photo>"), Some("1")), Some(full.clone()));
    assert_eq!(said(&x("<photo/>"), Some("1")), None);
    assert_eq!(said("", None), None);
    let prefix = bytes::Bytes::from("<presence from='a@b/c'");
    let suffix = bytes::Bytes::from(format!("><show>away</show>{full}</presence>"));
    let (prefix, suffix) = restamped(&prefix, &suffix, Some("3")).expect("another");
    let whole = [&prefix[..], b" to='x'", &suffix[..]].concat();
    let whole = String::from_utf8_lossy(&whole).into_owned();
    assert!(
        whole.contains("<photo>3</photo>") && !whole.contains("<photo>1</photo>"),
        "{whole}"
    );
    assert!(whole.contains(" to='x'") && Element::parse(whole.into()).is_ok());
}
