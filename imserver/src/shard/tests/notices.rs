//! Who comes and goes is remembered, and who has been told something is not told it again.

use super::groups::{Office, PEOPLE, key};
use super::*;
use crate::notices::{Kind, Notices};
use proto::frame::{CloseReason, Input};
use store::Activity;

const HERE: &str = "<presence ><priority>0</priority></presence>";
const ELSEWHERE: &str = "<presence ><priority>-1</priority></presence>";

/// The next thing that happens: what is remembered of whom, what is put into inboxes, what clients are given.
fn turn(office: &mut Office, event: Event) -> (Vec<(String, Activity)>, Vec<String>, Vec<String>) {
    let (mut remembered, mut kept) = (Vec::new(), Vec::new());
    office.shard.handle(NOW, event);
    let effects = office.shard.flush(NOW);
    let mut results = Vec::new();
    for write in &effects.writes {
        results.push(match write {
            Write::Store(store::Write::Append(append)) => {
                kept.push(String::from_utf8_lossy(&append.payload).into_owned());
                // How it is delivered is no matter of this: it is as if it had been.
                store::Written::Replayed {
                    position: 9,
                    pending: false,
                }
            }
            Write::Store(store::Write::Activity { owner, facts }) => {
                remembered.push((owner.as_str().to_owned(), *facts));
                store::Written::Done
            }
            _ => store::Written::Done,
        });
    }
    let mut said: Vec<String> = effects
        .links
        .iter()
        .filter_map(|command| match command {
            LinkCommand::Frame {
                frame: proto::frame::Frame::Output(_, output),
                ..
            } => Some(String::from_utf8_lossy(&output.bytes).into_owned()),
            _ => None,
        })
        .collect();
    if !results.is_empty() {
        let first = office.written;
        office.written += results.len() as u64;
        office.shard.handle(NOW, Event::Durable { first, results });
    }
    for (tag, read) in effects.reads {
        assert!(matches!(read, Read::Pending { .. }), "everybody is loaded");
        let page = store::PendingPage {
            complete: true,
            ..store::PendingPage::default()
        };
        office
            .shard
            .handle(NOW, Event::Read(tag, ReadResult::Pending(page)));
    }
    said.extend(office.settle());
    said.retain(|xml| xml.contains("<body>"));
    (remembered, kept, said)
}

fn says(name: &str, xml: &str) -> Event {
    let n = PEOPLE.iter().position(|p| *p == name).expect("one of ours");
    let input = Input {
        bytes: xml.replacen(' ', " xmlns='jabber:client' ", 1).into(),
        message_end: false,
    };
    Event::Input(key(n), input)
}

fn notices(notices: &Arc<Notices>, tell: bool) -> Event {
    Event::Admin(AdminEvent::Notices {
        request: 1,
        notices: notices.clone(),
        tell,
    })
}

#[test]
fn a_message_of_the_day_is_told_once_and_a_welcome_the_first_time() {
    let settings = Settings {
        domains: vec!["localhost".into()],
        ..Settings::default()
    };
    let mut office = Office::new(&[], settings);
    let all = Arc::new(Notices::default().set(Kind::Motd, "", "one", NOW.unix_ms));
    let number = |all: &Notices| all.get(Kind::Motd).map_or(0, |m| m.number);
    let first = number(&all);
    // Ann takes messages. She is here for the first time, and nothing is said to whom is.
    let (remembered, kept, said) = turn(&mut office, says("ann", HERE));
    let greeted = Activity {
        greeted_ms: NOW.unix_ms,
        ..Activity::default()
    };
    assert_eq!(remembered, [("ann@localhost".to_owned(), greeted)]);
    assert!(kept.is_empty() && said.is_empty(), "{kept:?} {said:?}");
    let (_, _, said) = turn(&mut office, notices(&all, true));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("type='headline'") && said[0].contains("to='ann@localhost/x'"));
    // She goes and comes: she has been told. What she has been told is remembered when she leaves.
    turn(&mut office, says("ann", ELSEWHERE));
    assert_eq!(turn(&mut office, says("ann", HERE)), Default::default());
    // Bob comes: a welcome into the inbox, and the message of the day.
    let all = Arc::new(all.set(Kind::Welcome, "Hello", "Mind the gap", NOW.unix_ms));
    turn(&mut office, notices(&all, false));
    let (remembered, kept, said) = turn(&mut office, says("bob", HERE));
    let told = Activity {
        motd: first,
        ..greeted
    };
    assert_eq!(remembered, [("bob@localhost".to_owned(), told)]);
    assert_eq!(kept.len(), 1);
    assert!(kept[0].contains("<subject>Hello</subject><body>Mind the gap</body>"));
    assert!(
        said.iter().any(|xml| xml.contains("<body>one</body>")),
        "{said:?}"
    );
    // Edited: who has been told is not told again, who comes gets the new words.
    let edited = all
        .edit(Kind::Motd, "", "two", NOW.unix_ms)
        .expect("it is set");
    let edited = Arc::new(edited.delete(Kind::Welcome).expect("it is set"));
    turn(&mut office, notices(&edited, false));
    turn(&mut office, says("bob", ELSEWHERE));
    assert_eq!(turn(&mut office, says("bob", HERE)), Default::default());
    let (_, kept, said) = turn(&mut office, says("cyd", HERE));
    assert!(kept.is_empty());
    assert!(
        said.iter().any(|xml| xml.contains("<body>two</body>")),
        "{said:?}"
    );
    // A new one is for all.
    let new = Arc::new(edited.set(Kind::Motd, "", "three", NOW.unix_ms));
    let (_, _, said) = turn(&mut office, notices(&new, true));
    assert_eq!(said.len(), 3, "{said:?}");
    // The end of a session is remembered, and what its account has been told.
    let closed = Event::Closed(key(0), CloseReason::Normal);
    let (remembered, ..) = turn(&mut office, closed);
    let gone = Activity {
        logout_ms: NOW.unix_ms,
        motd: number(&new),
        ..Activity::default()
    };
    assert_eq!(remembered, [("ann@localhost".to_owned(), gone)]);
    // Of a removed account nothing is.
    let bob = BareJid::parse("bob@localhost").expect("a JID");
    let removed = Event::Admin(AdminEvent::AccountRemoved {
        account: bob,
        contacts: None,
    });
    assert_eq!(turn(&mut office, removed).0, []);
}

#[test]
fn who_is_online_is_listed_in_order_and_by_what_they_say() {
    let mut office = Office::new(&[], Settings::default());
    turn(
        &mut office,
        says("bob", "<presence ><show>away</show></presence>"),
    );
    turn(
        &mut office,
        says("cyd", "<presence ><show>chat</show></presence>"),
    );
    turn(&mut office, says("dan", "<presence type='unavailable'/>"));
    let list = |state, after: Option<&str>, limit| {
        let page = office.shard.list_online(&OnlineQuery {
            state,
            domain: Some("localhost".into()),
            after: after.map(|jid| BareJid::parse(jid).expect("a JID")),
            limit,
        });
        let names = page.iter().map(|jid| jid.localpart().unwrap_or_default());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(OnlineState::Any, None, 9), "ann bob cyd dan");
    assert_eq!(list(OnlineState::Any, Some("bob@localhost"), 1), "cyd");
    assert_eq!(list(OnlineState::Active, None, 9), "ann cyd");
    assert_eq!(list(OnlineState::Idle, None, 9), "bob dan");
    assert_eq!(office.shard.count_online("localhost"), (4, 2));
    assert_eq!(office.shard.count_online("elsewhere"), (0, 0));
}
