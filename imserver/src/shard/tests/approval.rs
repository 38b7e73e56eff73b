//! Somebody asks to subscribe where the owner has to say so: what goes to disk, in which order, and again after a kill.

use super::*;
use crate::pubsub::config::{AccessModel, Config};
use crate::pubsub::node::Node;

/// Romeo, whose session is on another shard, asks to subscribe.
fn subscribe(n: u64) -> Event {
    let bytes = "<iq type='set' id='s' from='romeo@localhost/x' to='juliet@localhost'><pubsub xmlns='http://jabber.org/protocol/pubsub'>\
                 <subscribe node='n' jid='romeo@localhost'/></pubsub></iq>";
    let kind = StanzaKind::Iq(crate::routing::IqType::Set);
    stanza(kind, bytes, Retention::Drop, n)
}

/// A server in whose store Juliet has the node.
fn with_node() -> Shard {
    let mut shard = shard(Settings {
        domains: vec!["localhost".into()],
        ..Settings::default()
    });
    shard.handle(NOW, subscribe(1));
    loaded(&mut shard);
    let node = Node {
        config: Config {
            access: AccessModel::Authorize,
            ..Config::default()
        },
        ..Node::default()
    };
    let stored = store::PubsubNode {
        node: "n".into(),
        meta: node.meta(),
        members: Vec::new(),
    };
    let juliet = BareJid::parse("juliet@localhost").expect("a JID");
    let read = ReadResult::Nodes(vec![stored]);
    shard.handle(NOW, Event::Read(ReadTag::Nodes(juliet), read));
    shard
}

fn written(shard: &mut Shard) -> (Vec<store::Write>, usize) {
    let effects = shard.flush(NOW);
    let writes = effects.writes.into_iter().filter_map(|w| match w {
        Write::Store(write) => Some(write),
        _ => None,
    });
    (writes.collect(), effects.shards.len())
}

#[test]
fn the_question_is_on_disk_before_the_request_and_the_same_after_a_kill() {
    let mut server = with_node();
    let (writes, answers) = written(&mut server);
    let [
        store::Write::Append(asked),
        store::Write::Pubsub { changes, .. },
    ] = &writes[..]
    else {
        panic!("{writes:?}");
    };
    assert_eq!(changes.len(), 1);
    assert_eq!(answers, 0, "nobody is answered before the commit");
    let origin = asked.origin.expect("it is known again");
    assert_eq!((origin.session, origin.stanza), (1, 1));
    assert!(asked.pending && !asked.archive && !asked.outgoing);
    let text = String::from_utf8_lossy(&asked.payload);
    assert!(
        text.contains("romeo@localhost asks to subscribe to n"),
        "{text}"
    );
    // A server that was killed before it had told of either takes the request again.
    let (again, _) = written(&mut with_node());
    let Some(store::Write::Append(again)) = again.first() else {
        panic!("{again:?}");
    };
    assert_eq!(again.origin, asked.origin);
    assert_eq!(again.payload, asked.payload);
}

#[test]
fn who_asks_again_is_not_asked_about_again() {
    let mut server = with_node();
    written(&mut server);
    server.handle(NOW, subscribe(2));
    let (writes, _) = written(&mut server);
    assert!(writes.is_empty(), "{writes:?}");
}
