//! Members of directory groups on one shard: what each client is shown, asks for, and is told when groups change.

use super::*;
use crate::session::Available;
use crate::session::record::Record;
use directory::backend::{Sweep, SweptGroup, SweptPerson};
use directory::population::Population;
use proto::frame::{ConnId, Frame, Input, ListenerKind, NoteKey, Open, Resume, Transport};
use std::collections::BTreeMap;
use store::Written;
use xmpp::jid::FullJid;

pub(super) const PEOPLE: [&str; 4] = ["ann", "bob", "cyd", "dan"];

fn bare(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@localhost")).expect("an address")
}

fn population(groups: &[(&str, &str)], before: &Population) -> Arc<Population> {
    let people = PEOPLE.map(|name| SweptPerson {
        jid: bare(name),
        name: Some(name.to_uppercase()),
        disabled: false,
        id: None,
    });
    let groups = groups.iter().map(|(name, members)| SweptGroup {
        name: (*name).to_owned(),
        title: None,
        in_rosters: true,
        members: members.split(' ').map(bare).collect(),
    });
    let sweep = Sweep {
        people: people.into(),
        groups: groups.collect(),
        groups_unknown: None,
    };
    Arc::new(Population::new(
        &BTreeMap::from([(Arc::from("corp"), sweep)]),
        before,
    ))
}

pub(super) fn key(n: usize) -> ConnKey {
    ConnKey {
        link: LinkId(1),
        conn: ConnId(n as u64),
    }
}

/// Everybody is online and available, and has asked for the roster.
pub(super) struct Office {
    pub(super) shard: Shard,
    population: Arc<Population>,
    /// The number of the next write that is answered.
    pub(super) written: u64,
    /// Writes fail.
    refuses: bool,
}

impl Office {
    pub(super) fn new(groups: &[(&str, &str)], settings: Settings) -> Self {
        let population = population(groups, &Population::default());
        let config = ShardConfig {
            id: ShardId(0),
            shards: 1,
            epoch: 1,
            notices: Arc::default(),
            settings: Arc::new(settings),
            population: population.clone(),
            ids: store::PositionKey::new([1; 16]),
        };
        let mut shard = Shard::new(config, Box::new(|out: &mut [u8]| out.fill(7)), NOW);
        let records = PEOPLE.iter().enumerate().map(|(n, name)| record(n, name));
        shard.restore(NOW, records.collect());
        for n in 0..PEOPLE.len() {
            shard.handle(NOW, Event::Resumed(key(n), Box::new(resume(n)), "m".into()));
        }
        let mut office = Self {
            shard,
            population,
            written: 1,
            refuses: false,
        };
        office.settle();
        // From here on it is as if there had been no restart.
        for (_, session) in &mut office.shard.sessions {
            session.resumed = false;
        }
        for name in PEOPLE {
            office.says(name, "<presence ><priority>-1</priority></presence>");
        }
        office
    }

    /// Lets everything happen. What each client is given, in order of clients.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut given: Vec<Vec<String>> = vec![Vec::new(); PEOPLE.len()];
        let mut give = |conn: ConnId, bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            given[conn.0 as usize].push(text);
        };
        loop {
            let effects = self.shard.flush(NOW);
            if effects.is_empty() {
                break;
            }
            for command in effects.links {
                match command {
                    LinkCommand::Frame {
                        frame: Frame::Output(conn, output),
                        ..
                    } if output.stanza => {
                        give(conn, &output.bytes);
                    }
                    LinkCommand::Frame {
                        frame: Frame::Fanout(fan),
                        ..
                    } => {
                        for target in fan.targets {
                            let parts = [&fan.prefix[..], &target.insert, &fan.suffix];
                            give(target.conn, &parts.concat());
                        }
                    }
                    _ => {}
                }
            }
            if !effects.writes.is_empty() {
                let answer = match self.refuses {
                    true => Written::Failed(store::WriteError::NotFound),
                    false => Written::Done,
                };
                let results = effects.writes.iter().map(|_| answer.clone()).collect();
                let first = self.written;
                self.written += effects.writes.len() as u64;
                self.shard.handle(NOW, Event::Durable { first, results });
            }
            for (tag, _) in effects.reads {
                let read = match tag {
                    ReadTag::Load(_) => ReadResult::User(Some(Box::new(Loaded {
                        data: user(),
                        ..Loaded::default()
                    }))),
                    ReadTag::Nodes(_) => ReadResult::Nodes(Vec::new()),
                    _ => ReadResult::Pending(store::PendingPage {
                        complete: true,
                        ..store::PendingPage::default()
                    }),
                };
                self.shard.handle(NOW, Event::Read(tag, read));
            }
        }
        let line = |(n, all): (usize, Vec<String>)| {
            all.into_iter()
                .map(move |text| format!("{}: {text}", PEOPLE[n]))
        };
        given.into_iter().enumerate().flat_map(line).collect()
    }

    pub(super) fn says(&mut self, name: &str, xml: &str) -> Vec<String> {
        self.hears(name, xml);
        self.settle()
    }

    /// Nothing comes of it yet.
    pub(super) fn hears(&mut self, name: &str, xml: &str) {
        let n = PEOPLE.iter().position(|p| *p == name).expect("one of ours");
        let input = Input {
            bytes: xml.replacen(' ', " xmlns='jabber:client' ", 1).into(),
            message_end: false,
        };
        self.shard.handle(NOW, Event::Input(key(n), input));
    }

    /// While the disk refuses everything.
    pub(super) fn says_refused(&mut self, name: &str, xml: &str) -> Vec<String> {
        self.hears(name, xml);
        self.settle_refused()
    }

    pub(super) fn settle_refused(&mut self) -> Vec<String> {
        self.refuses = true;
        let given = self.settle();
        self.refuses = false;
        given
    }

    pub(super) fn roster_set(&mut self, name: &str, item: &str) -> Vec<String> {
        self.says(
            name,
            &format!("<iq type='set' id='s'><query xmlns='jabber:iq:roster'>{item}</query></iq>"),
        )
    }

    fn regroup(&mut self, groups: &[(&str, &str)]) -> Vec<String> {
        let new = population(groups, &self.population);
        let difference = Arc::new(new.difference(&self.population));
        self.population = new.clone();
        self.shard.handle(NOW, Event::Population(new, difference));
        self.settle()
    }
}

fn user() -> store::UserData {
    store::UserData {
        disabled: false,
        created_ms: 1,
        roster_version: 1,
        roster: Vec::new(),
        requests: Vec::new(),
        pending: 0,
        pending_bytes: 0,
        ..Default::default()
    }
}

fn record(n: usize, name: &str) -> Record {
    Record {
        id: SessionId(n as u64 + 1),
        note: NoteKey([n as u8; 16]),
        mux: "m".into(),
        conn: n as u64,
        jid: FullJid::parse(&format!("{name}@localhost/x")).expect("a JID"),
        since_unix_ms: 1,
        namespaces: Bytes::from_static(b"\x01\0\0\0\0\0\0"),
        sm: None,
        origin_base: 0,
        resumption: None,
        interested: Some(0),
        blocklist_asked: false,
        caps: None,
        inactive: None,
        presence: Some(Available {
            priority: -1,
            away: false,
            prefix: format!("<presence from='{name}@localhost/x'").into(),
            suffix: Bytes::from_static(b"/>"),
        }),
        presence_changed_unix_ms: 0,
        taking_since_unix_ms: 0,
        carbons_since_unix_ms: 0,
        client: None,
        ended_unix_ms: None,
        ended_input: 0,
        acked: Vec::new(),
        directed: Vec::new(),
    }
}

fn resume(n: usize) -> Resume {
    let nowhere = std::net::SocketAddr::from(([192, 0, 2, 1], 5222));
    Resume {
        note: Some(NoteKey([n as u8; 16])),
        open: Open {
            kind: ListenerKind::C2s,
            transport: Transport::Tcp,
            peer: nowhere,
            local: nowhere,
            tls: None,
            dial: None,
        },
        settled_bytes: 100,
        settled_stanzas: 1,
        elements: 4,
        stanzas: 1,
        drained: 4,
        held: Vec::new(),
        closed: None,
    }
}

/// Who is given something that contains this.
pub(super) fn with<'g>(given: &'g [String], part: &str) -> Vec<&'g str> {
    let those = given.iter().filter(|g| g.contains(part));
    those
        .map(|g| g.split(':').next().expect("a name"))
        .collect()
}

/// Who is given the available presence of these.
fn hear<'g>(given: &'g [String], of: &str) -> Vec<&'g str> {
    let from = format!("from='{of}@localhost/x'");
    let those = given
        .iter()
        .filter(|g| g.contains(&from) && g.contains("<priority>"));
    those
        .map(|g| g.split(':').next().expect("a name"))
        .collect()
}

#[test]
fn a_move_tells_those_who_see_it_and_nobody_else() {
    let mut office = Office::new(&[("a", "ann bob"), ("b", "cyd")], Settings::default());
    let given = office.regroup(&[("a", "ann"), ("b", "cyd bob")]);
    let pushes = |contact: &str, how: &str| {
        let those: Vec<String> = given
            .iter()
            .filter(|g| g.contains(&format!("jid='{contact}@localhost'")) && g.contains(how))
            .cloned()
            .collect();
        with(&those, "<iq type='set'")
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        pushes("bob", "subscription='remove'"),
        ["ann"],
        "{given:#?}"
    );
    assert_eq!(pushes("bob", "<group>b</group>"), ["cyd"]);
    assert_eq!(pushes("ann", "subscription='remove'"), ["bob"]);
    assert_eq!(pushes("cyd", "name='CYD' subscription='both'"), ["bob"]);
    // Who is lost is gone, who is new is there.
    assert_eq!(with(&given, "type='unavailable' from='bob@"), ["ann"]);
    assert_eq!(with(&given, "type='unavailable' from='ann@"), ["bob"]);
    assert_eq!(hear(&given, "bob"), ["cyd"]);
    assert_eq!(hear(&given, "cyd"), ["bob"]);
    assert_eq!(given.len(), 8, "{given:#?}");
    // The same again is nothing.
    assert!(office.regroup(&[("a", "ann"), ("b", "cyd bob")]).is_empty());
}

#[test]
fn presence_reaches_each_member_once() {
    let groups = [("a", "ann bob cyd"), ("b", "ann bob")];
    let mut office = Office::new(&groups, Settings::default());
    let given = office.says("ann", "<presence ><show>away</show></presence>");
    let given = with(&given, "away");
    assert_eq!(given, ["ann", "bob", "cyd"]);
}

#[test]
fn what_a_client_sets_is_its_own_and_the_group_stays() {
    let mut office = Office::new(&[("a", "ann bob")], Settings::default());
    let removed = office.roster_set("ann", "<item jid='bob@localhost' subscription='remove'/>");
    assert_eq!(with(&removed, "not-allowed"), ["ann"], "{removed:?}");
    let item = "<item jid='bob@localhost' name='Bobby'><group>a</group><group>Mine</group></item>";
    let set = office.roster_set("ann", item);
    let shown = "name='Bobby' subscription='both'><group>Mine</group><group>a</group>";
    assert_eq!(with(&set, shown), ["ann"], "{set:?}");
    // Now there is something of its own to remove: the group's contact is left.
    let removed = office.roster_set("ann", "<item jid='bob@localhost' subscription='remove'/>");
    assert_eq!(
        with(&removed, "name='BOB' subscription='both'><group>a</group>"),
        ["ann"]
    );
    assert!(
        with(&removed, "subscription='remove'").is_empty(),
        "{removed:?}"
    );
    // What it sends back of the group's alone is nothing of its own.
    let set = office.roster_set(
        "ann",
        "<item jid='bob@localhost' name='BOB'><group>a</group></item>",
    );
    assert_eq!(with(&set, "type='result'"), ["ann"]);
    let removed = office.roster_set("ann", "<item jid='bob@localhost' subscription='remove'/>");
    assert_eq!(with(&removed, "not-allowed"), ["ann"], "{removed:?}");
}

#[test]
fn in_a_large_group_presence_is_there_for_who_asks() {
    let settings = Settings {
        group_presence_max: 2,
        ..Settings::default()
    };
    let mut office = Office::new(&[("all", "ann bob cyd dan")], settings);
    let roster = office.says(
        "ann",
        "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>",
    );
    assert_eq!(
        with(
            &roster,
            "jid='bob@localhost' name='BOB' subscription='none'>"
        ),
        ["ann"]
    );
    let said = office.says("bob", "<presence ><show>away</show></presence>");
    assert_eq!(with(&said, "away"), ["bob"], "to nobody");
    let asked = office.says("ann", "<presence type='probe' to='bob@localhost'/>");
    assert_eq!(with(&asked, "away"), ["ann"], "{asked:?}");
    let gone = office.says("bob", "<presence type='unavailable'/>");
    assert_eq!(with(&gone, "unavailable"), ["ann", "bob"], "no ghost");
    // A request is approved, one way.
    let asked = office.says("cyd", "<presence type='subscribe' to='dan@localhost'/>");
    assert_eq!(
        with(&asked, "jid='dan@localhost' name='DAN' subscription='to'"),
        ["cyd"]
    );
    assert_eq!(
        with(&asked, "jid='cyd@localhost' name='CYD' subscription='from'"),
        ["dan"]
    );
    assert_eq!(hear(&asked, "dan"), ["cyd"]);
    assert!(
        with(&asked, "type='subscribe'").is_empty(),
        "nobody is asked: {asked:?}"
    );
}

#[test]
fn a_domain_that_subscribes_by_itself_makes_it_both_ways() {
    let settings = Settings {
        autosubscribe: vec!["localhost".into()],
        ..Settings::default()
    };
    let mut office = Office::new(&[], settings);
    let asked = office.says("ann", "<presence type='subscribe' to='bob@localhost'/>");
    let both = with(&asked, "subscription='both'");
    assert_eq!(both, ["ann", "bob"], "{asked:#?}");
    assert!(with(&asked, "type='subscribe'").is_empty());
    assert_eq!(hear(&asked, "bob"), ["ann"]);
    assert_eq!(hear(&asked, "ann"), ["bob"]);
}

#[test]
fn another_limit_takes_effect_at_once() {
    let mut office = Office::new(&[("a", "ann bob")], Settings::default());
    let settings = Settings {
        group_presence_max: 1,
        ..Settings::default()
    };
    office
        .shard
        .handle(NOW, Event::Reconfigured(Arc::new(settings)));
    let given = office.settle();
    assert_eq!(with(&given, "type='unavailable'"), ["ann", "bob"]);
    assert_eq!(
        with(&given, "subscription='none'"),
        ["ann", "bob"],
        "{given:?}"
    );
    office
        .shard
        .handle(NOW, Event::Reconfigured(Arc::new(Settings::default())));
    let given = office.settle();
    assert_eq!(
        with(&given, "subscription='both'"),
        ["ann", "bob"],
        "{given:?}"
    );
    assert_eq!(
        (hear(&given, "bob"), hear(&given, "ann")),
        (vec!["ann"], vec!["bob"])
    );
}

/// Its presence was heard and not written down before a kill, perhaps.
#[test]
fn who_leaves_a_group_after_a_restart_has_gone_without_a_presence_on_record() {
    let mut office = Office::new(&[("a", "ann bob")], Settings::default());
    let slot = office.shard.slot_of(key(0)).expect("connected");
    office
        .shard
        .session(slot)
        .bound_mut()
        .expect("bound")
        .presence = None;
    let gone = |given: &[String]| {
        let to_bob = |l: &&String| l.starts_with("bob: ") && l.contains("from='ann@localhost/x'");
        let to_bob = given.iter().filter(to_bob);
        to_bob.filter(|l| l.contains("type='unavailable'")).count()
    };
    let given = office.regroup(&[("a", "ann")]);
    assert_eq!(gone(&given), 0, "{given:?}");
    office.regroup(&[("a", "ann bob")]);
    office.shard.session(slot).resumed = true;
    let given = office.regroup(&[("a", "ann")]);
    assert_eq!(gone(&given), 1, "{given:?}");
}

/// The first answer, of a server that was killed, may have had the groups before; the second is no answer to the client then.
#[test]
fn who_asks_for_the_roster_again_after_a_restart_is_pushed_what_groups_have_changed() {
    for (resumed, pushed) in [(false, 0), (true, 1)] {
        let mut office = Office::new(&[("a", "ann bob")], Settings::default());
        let slot = office.shard.slot_of(key(0)).expect("connected");
        let bound = office.shard.session(slot).bound_mut().expect("bound");
        bound.interested = None;
        office.shard.session(slot).resumed = resumed;
        office.regroup(&[("a", "ann")]);
        let get = "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>";
        let given = office.says("ann", get);
        assert_eq!(with(&given, "type='result'"), ["ann"], "{given:?}");
        let push = |l: &&String| l.contains("type='set'") && l.contains("bob@localhost");
        assert_eq!(given.iter().filter(push).count(), pushed, "{given:?}");
    }
}

/// Neither is answered as done, although the second finds no node, as after a restart what has been removed before it.
#[test]
fn what_is_published_to_a_node_that_the_disk_has_refused_is_refused() {
    let mut office = Office::new(&[("a", "ann bob")], Settings::default());
    let slot = office.shard.slot_of(key(0)).expect("connected");
    office.shard.session(slot).resumed = true;
    let publish = |item: &str| {
        format!(
            "<iq type='set' id='{item}'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='n'><item id='{item}'><x xmlns='y'/></item></publish></pubsub></iq>"
        )
    };
    office.hears("ann", &publish("i1"));
    office.hears("ann", &publish("i2"));
    let given = office.settle_refused();
    assert_eq!(
        with(&given, "<resource-constraint"),
        ["ann", "ann"],
        "{given:?}"
    );
    assert!(with(&given, "type='result'").is_empty(), "{given:?}");
}

#[test]
fn who_is_online_and_not_in_the_directories_is_said() {
    let mut office = Office::new(&[("a", "ann bob")], Settings::default());
    let unswept = |office: &mut Office, domain: &str| {
        let domains: Arc<[String]> = Arc::from([domain.to_owned()]);
        let request = 7;
        let ask = Event::Admin(AdminEvent::Unswept { request, domains });
        office.shard.handle(NOW, ask);
        match office.shard.flush(NOW).admin.pop() {
            Some(AdminReply::Unswept(7, online, mut missing)) => {
                missing.sort_unstable();
                (online, missing)
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(unswept(&mut office, "localhost"), (4, Vec::new()));
    let sweep = Sweep {
        people: ["ann", "bob"]
            .map(|name| SweptPerson {
                jid: bare(name),
                name: None,
                disabled: name == "bob",
                id: None,
            })
            .into(),
        groups: Vec::new(),
        groups_unknown: None,
    };
    let sweeps = BTreeMap::from([(Arc::from("corp"), sweep)]);
    let new = Arc::new(Population::new(&sweeps, &office.population));
    let difference = Arc::new(new.difference(&office.population));
    office.shard.handle(NOW, Event::Population(new, difference));
    office.settle();
    let missing = ["bob", "cyd", "dan"].map(bare).to_vec();
    assert_eq!(unswept(&mut office, "localhost"), (4, missing));
    assert_eq!(unswept(&mut office, "elsewhere.example"), (0, Vec::new()));
}
