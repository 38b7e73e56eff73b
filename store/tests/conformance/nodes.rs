//! Publish-subscribe nodes and their items.

use super::*;

conformance! {
    nodes_keep_the_newest_items_and_are_bounded
    items_are_read_in_pages
}

fn publish(node: &str, id: &str, payload: &'static str, items_max: u64) -> store::PubsubChange {
    store::PubsubChange::Publish {
        node: node.to_owned(),
        item: store::PubsubItem {
            id: id.to_owned(),
            publisher: "a@x.example/r".to_owned(),
            time_ms: 7,
            payload: Bytes::from(payload),
        },
        items_max,
    }
}

fn made(node: &str) -> store::PubsubChange {
    store::PubsubChange::Put {
        node: node.to_owned(),
        meta: Bytes::from("meta"),
    }
}

fn page(
    reader: &mut dyn store::Reader,
    range: store::PubsubRange,
    limit: usize,
    bytes_max: usize,
) -> Option<(Vec<String>, u64, u64)> {
    let query = store::PubsubQuery {
        owner: jid("a@x.example"),
        node: "n".into(),
        range,
        limit,
        bytes_max,
    };
    let page = reader.pubsub_items(&query).unwrap()?;
    let ids = page.items.into_iter().map(|item| item.id).collect();
    Some((ids, page.index, page.count))
}

fn nodes_keep_the_newest_items_and_are_bounded(store: &mut dyn Fixture) {
    use store::{PubsubChange, PubsubRange};
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    // An item has 16 bytes beside its payload: three of the id, thirteen of the publisher.
    let mut change = |changes: Vec<PubsubChange>, bytes_max| {
        let write = Write::Pubsub {
            owner: jid("a@x.example"),
            changes,
            bytes_max,
        };
        writer.commit(&[write]).unwrap().remove(0)
    };
    let (not_found, too_much) = (
        Written::Failed(WriteError::NotFound),
        Written::Failed(WriteError::TooMuch),
    );
    assert_eq!(change(vec![publish("n", "one", "1234", 2)], 100), not_found);
    let first = vec![made("n"), publish("n", "one", "1234", 2)];
    assert_eq!(change(first, 100), Written::Done);
    let more = ["two", "thr", "one"].map(|id| publish("n", id, "1234", 2));
    assert_eq!(change(more.to_vec(), 100), Written::Done);
    let newest = |reader: &mut dyn store::Reader| page(reader, PubsubRange::Newest, 9, 99);
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    // What is published again is the newest; what a node may not keep goes.
    assert_eq!(newest(&mut *reader), Some((ids(&["one", "thr"]), 0, 2)));
    // All or nothing.
    let half = vec![publish("n", "fou", "1234", 9), publish("m", "x", "", 1)];
    assert_eq!(change(half, 100), not_found);
    let half = vec![made("m"), publish("m", "one", "1234", 9)];
    assert_eq!(change(half, 59), too_much);
    let unknown = PubsubChange::Retract {
        node: "n".into(),
        id: "two".into(),
    };
    assert_eq!(change(vec![unknown], 100), not_found);
    assert_eq!(newest(&mut *reader), Some((ids(&["one", "thr"]), 0, 2)));
    assert_eq!(reader.pubsub_nodes(&owner).unwrap().len(), 1);
    // Less is always taken, also where a limit has been lowered.
    let retract = PubsubChange::Retract {
        node: "n".into(),
        id: "thr".into(),
    };
    assert_eq!(change(vec![retract], 1), Written::Done);
    assert_eq!(newest(&mut *reader), Some((ids(&["one"]), 0, 1)));
    let member = |node: &str, jid: &str, state: Option<&'static str>| PubsubChange::Member {
        node: node.into(),
        jid: jid.into(),
        state: state.map(Bytes::from),
    };
    let members = vec![
        member("n", "b@x.example", Some("1")),
        member("n", "a@x.example", Some("2")),
        member("n", "c@x.example", Some("3")),
        member("n", "c@x.example", None),
    ];
    assert_eq!(change(members, 100), Written::Done);
    assert_eq!(change(vec![member("m", "b@x", None)], 100), not_found);
    let configured = PubsubChange::Put {
        node: "n".into(),
        meta: Bytes::from("other"),
    };
    let trim = PubsubChange::Trim {
        node: "n".into(),
        items_max: 0,
    };
    assert_eq!(change(vec![configured, made("a")], 100), Written::Done);
    let nodes = reader.pubsub_nodes(&owner).unwrap();
    let state = |jid: &str, state: &'static str| (jid.to_owned(), Bytes::from(state));
    let node = |node: &str, meta: &'static str, members| store::PubsubNode {
        node: node.to_owned(),
        meta: Bytes::from(meta),
        members,
    };
    let expected = [
        node("a", "meta", vec![]),
        node(
            "n",
            "other",
            vec![state("a@x.example", "2"), state("b@x.example", "1")],
        ),
    ];
    assert_eq!(nodes, expected);
    let last = reader.pubsub_last(&owner, &["a".into(), "n".into()]);
    let last = last.unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!((&*last[0].0, &*last[0].1.id), ("n", "one"));
    assert_eq!(&last[0].1.payload[..], b"1234");
    assert_eq!(change(vec![trim], 100), Written::Done);
    assert_eq!(newest(&mut *reader), Some((vec![], 0, 0)));
    let delete = || PubsubChange::Delete { node: "n".into() };
    assert_eq!(change(vec![delete()], 100), Written::Done);
    assert_eq!(change(vec![delete()], 100), not_found);
    assert_eq!(reader.pubsub_nodes(&owner).unwrap().len(), 1);
    // What a node has given an address goes with who had it.
    let left = reader.pubsub_nodes(&owner).unwrap().remove(0).node;
    let addresses = [
        "d@x.example",
        "d@x.example/r",
        "d@x.example.org",
        "dd@x.example",
    ];
    let members = addresses.map(|jid| member(&left, jid, Some("1")));
    assert_eq!(change(members.to_vec(), 100), Written::Done);
    let gone = jid("d@x.example");
    writer
        .commit(&[Write::AccountDelete { jid: gone }])
        .unwrap();
    let nodes = reader.pubsub_nodes(&owner).unwrap();
    let members: Vec<&str> = nodes[0].members.iter().map(|(jid, _)| &**jid).collect();
    assert_eq!(members, ["d@x.example.org", "dd@x.example"]);
    // With the account goes everything.
    let gone = Write::AccountDelete { jid: owner.clone() };
    assert_eq!(writer.commit(&[gone]).unwrap(), [Written::Done]);
    assert_eq!(reader.pubsub_nodes(&owner).unwrap(), []);
}

fn items_are_read_in_pages(store: &mut dyn Fixture) {
    use store::PubsubRange as R;
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let reader = &mut *reader;
    let mut changes = vec![made("n"), made("other")];
    for id in ["1", "2", "3", "4", "5"] {
        changes.push(publish("other", id, "", 9));
        changes.push(publish("n", id, "12345", 9));
    }
    let write = Write::Pubsub {
        owner: jid("a@x.example"),
        changes,
        bytes_max: 10_000,
    };
    assert_eq!(writer.commit(&[write]).unwrap(), [Written::Done]);
    let after = |id: &str| R::After(id.into());
    let before = |id: &str| R::Before(id.into());
    let ids = R::Ids(vec!["1".into(), "nothing".into(), "4".into()]);
    for (range, limit, bytes_max, expected, index) in [
        (R::Newest, 2, 100, "54", 0),
        (R::Newest, 0, 100, "", 0),
        (R::Newest, 9, 100, "54321", 0),
        (R::Newest, 9, 11, "54", 0),
        (R::Newest, 9, 0, "5", 0),
        (R::Oldest, 2, 100, "21", 3),
        (R::Oldest, 9, 11, "21", 3),
        (after("4"), 2, 100, "32", 2),
        (after("1"), 2, 100, "", 0),
        (before("2"), 2, 100, "43", 1),
        (before("5"), 2, 100, "", 0),
        (R::Index(3), 9, 100, "21", 3),
        (R::Index(9), 9, 100, "", 0),
        (R::Index(u64::MAX), 9, 100, "", 0),
        (ids, 1, 100, "41", 0),
    ] {
        let found = page(reader, range.clone(), limit, bytes_max).unwrap();
        let expected: Vec<String> = expected.chars().map(String::from).collect();
        assert_eq!(found, (expected, index, 5), "{range:?} {limit} {bytes_max}");
    }
    for id in ["nothing", "' OR 1=1 --", ""] {
        assert_eq!(page(reader, after(id), 2, 100), None);
        assert_eq!(page(reader, before(id), 2, 100), None);
    }
}
