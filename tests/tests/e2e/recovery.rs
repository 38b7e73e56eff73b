//! DESIGN §3: a killed server loses nobody, a cut link nothing, a dead mux only its own clients, and a
//! client whose network vanishes finds what it missed.

use anyhow::{Context as _, Result, ensure};
use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::proxy::Cut;
use isthmus_tests::wait;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub(crate) fn chatters(count: usize) -> Vec<Account> {
    (0..count)
        .map(|n| Account::new(&format!("chatter{n}")))
        .collect()
}

/// Two people who talk without pause: each message carries a number; the reader checks that every number comes
/// once and in order.
struct Pair {
    threads: Vec<JoinHandle<Result<usize>>>,
}

static ROUNDS: AtomicUsize = AtomicUsize::new(0);

/// Keeps sending one message and waiting for its echo until told to stop; returns how many.
fn talk(
    mut client: Client,
    partner: String,
    leads: bool,
    stop: &'static AtomicBool,
) -> Result<usize> {
    client.patience = Duration::from_secs(60);
    let mut expected = 0;
    if leads {
        client.chat(&partner, "0")?;
    }
    loop {
        let element = client
            .element_where("the next message", |e| e.name == "message")
            .with_context(|| format!("{} was waiting for {expected}", client.jid))?;
        if element.attr("type") == Some("error") {
            anyhow::bail!("{}: a message came back: {element}", client.jid);
        }
        let body = element.body().unwrap_or_default();
        if body == "bye" {
            return Ok(expected);
        }
        ensure!(
            body == expected.to_string(),
            "{} expected {expected}, got {element}",
            client.jid
        );
        expected += 1;
        ROUNDS.fetch_add(1, Ordering::Relaxed);
        if leads && stop.load(Ordering::Relaxed) {
            client.chat(&partner, "bye")?;
            // The end has arrived when the partner is gone; a ping shows that ours was taken.
            client.ping()?;
            return Ok(expected);
        }
        let next = if leads { expected } else { expected - 1 };
        client.chat(&partner, &next.to_string())?;
    }
}

impl Pair {
    fn start(
        site: &Site,
        transport: Transport,
        a: &Account,
        b: &Account,
        stop: &'static AtomicBool,
    ) -> Result<Pair> {
        let mut first = site.login(transport, a)?;
        let mut second = site.login(transport, b)?;
        first.available()?;
        second.available()?;
        let (first_jid, second_jid) = (first.jid.clone(), second.jid.clone());
        Ok(Pair {
            threads: vec![
                std::thread::spawn(move || talk(first, second_jid, true, stop)),
                std::thread::spawn(move || talk(second, first_jid, false, stop)),
            ],
        })
    }

    fn finish(self) -> Result<Vec<usize>> {
        self.threads
            .into_iter()
            .map(|t| t.join().expect("a chatter does not panic"))
            .collect()
    }
}

/// Waits until the pairs have exchanged `more` messages.
fn await_progress(what: &str, more: usize) {
    let from = ROUNDS.load(Ordering::Relaxed);
    wait::until_true(Duration::from_secs(60), what, || {
        ROUNDS.load(Ordering::Relaxed) >= from + more
    });
}

#[test]
fn twenty_kills_of_the_server_lose_nobody_and_nothing() {
    static STOP: AtomicBool = AtomicBool::new(false);
    let people = chatters(10);
    let mut site = Site::start(
        &Plan {
            plaintext: false,
            ..Plan::default()
        },
        &people,
    )
    .unwrap();
    let transports = [Transport::StartTls, Transport::DirectTls];
    let pairs: Vec<Pair> = people
        .chunks(2)
        .enumerate()
        .map(|(n, two)| Pair::start(&site, transports[n % 2], &two[0], &two[1], &STOP).unwrap())
        .collect();
    for round in 0..20 {
        await_progress(&format!("chat before kill {round}"), 20);
        site.kill_server();
        site.start_server().unwrap();
    }
    await_progress("chat after the last kill", 100);
    STOP.store(true, Ordering::Relaxed);
    for pair in pairs {
        let counts = pair.finish().unwrap();
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
    }
    assert!(site.mux().is_running());
}

/// One way traffic while the link is cut: everything arrives once, in order, nobody is disconnected.
fn cut(how: Cut, seconds: u64) {
    let people = chatters(2);
    let site = Site::start(
        &Plan {
            proxied: true,
            ..Plan::default()
        },
        &people,
    )
    .unwrap();
    let mut sender = site.login(Transport::Plain, &people[0]).unwrap();
    let mut reader = site.login(Transport::Plain, &people[1]).unwrap();
    reader.available().unwrap();
    reader.patience = Duration::from_secs(60);
    let to = reader.jid.clone();
    let before = site.proxy().accepted();
    let begun = Instant::now();
    let mut sent = 0;
    let mut say = |sender: &mut Client| {
        sender.chat(&to, &sent.to_string()).unwrap();
        sent += 1;
    };
    say(&mut sender);
    site.proxy().cut(how);
    // Messages go on all the time the link is away.
    wait::until_true(
        Duration::from_secs(seconds + 5),
        "the time of the cut",
        || {
            say(&mut sender);
            begun.elapsed() >= Duration::from_secs(seconds)
        },
    );
    site.proxy().restore();
    say(&mut sender);
    for expected in 0..sent {
        assert_eq!(reader.next_body().unwrap(), expected.to_string());
    }
    sender.ping().unwrap();
    reader.ping().unwrap();
    if how == Cut::Reset {
        assert!(
            site.proxy().accepted() > before,
            "the link was not cut at all"
        );
    }
}

#[test]
fn a_link_reset_for_five_seconds_is_not_noticed() {
    cut(Cut::Reset, 5);
}

#[test]
fn a_link_silent_for_five_seconds_is_not_noticed() {
    cut(Cut::Silent, 5);
}

/// Longer than any liveness check, shorter than `mux_lost_s`: both ends give the connection up and come back.
#[cfg(feature = "full")]
#[test]
fn a_link_silent_for_twenty_seconds_is_not_noticed() {
    cut(Cut::Silent, 20);
}

#[test]
fn a_killed_server_and_a_cut_link_at_once() {
    let people = chatters(2);
    let mut site = Site::start(
        &Plan {
            proxied: true,
            ..Plan::default()
        },
        &people,
    )
    .unwrap();
    let mut sender = site.login(Transport::Plain, &people[0]).unwrap();
    let mut reader = site.login(Transport::Plain, &people[1]).unwrap();
    reader.available().unwrap();
    reader.patience = Duration::from_secs(60);
    let to = reader.jid.clone();
    for round in 0..5 {
        sender.chat(&to, &format!("{round} before")).unwrap();
        site.proxy().cut(if round % 2 == 0 {
            Cut::Reset
        } else {
            Cut::Silent
        });
        sender.chat(&to, &format!("{round} cut")).unwrap();
        site.kill_server();
        sender.chat(&to, &format!("{round} dead")).unwrap();
        site.start_server().unwrap();
        site.proxy().restore();
        sender.chat(&to, &format!("{round} after")).unwrap();
        for what in ["before", "cut", "dead", "after"] {
            assert_eq!(reader.next_body().unwrap(), format!("{round} {what}"));
        }
    }
}

/// Stream management counts go on through a restart, or clients would be thrown out by their own acknowledgements.
#[test]
fn stream_management_counts_survive_a_restart() {
    let people = chatters(2);
    let mut site = Site::start(&Plan::default(), &people).unwrap();
    let mut sender = site.login(Transport::Plain, &people[0]).unwrap();
    let mut reader = site.login(Transport::Plain, &people[1]).unwrap();
    sender.patience = Duration::from_secs(60);
    reader.patience = Duration::from_secs(60);
    for client in [&mut sender, &mut reader] {
        client.send("<enable xmlns='urn:xmpp:sm:3'/>").unwrap();
        client
            .element_where("enabled", |e| e.name == "enabled")
            .unwrap();
    }
    reader.available().unwrap();
    let to = reader.jid.clone();
    for round in 0..5u32 {
        sender.chat(&to, &format!("a{round}")).unwrap();
        assert_eq!(reader.next_body().unwrap(), format!("a{round}"));
        reader.acknowledge().unwrap();
        site.kill_server();
        sender.chat(&to, &format!("b{round}")).unwrap();
        site.start_server().unwrap();
        assert_eq!(reader.next_body().unwrap(), format!("b{round}"));
        reader.acknowledge().unwrap();
        sender.send("<r xmlns='urn:xmpp:sm:3'/>").unwrap();
        let answer = sender
            .element_where("an acknowledgement", |e| e.name == "a")
            .unwrap();
        // Two messages a round, and the ping of each round before.
        assert_eq!(
            answer.attr("h"),
            Some((round * 3 + 2).to_string().as_str()),
            "round {round}"
        );
        // An acknowledgement that the server finds too high would end the stream here.
        reader.ping().unwrap();
        sender.ping().unwrap();
    }
}

#[test]
fn presence_has_no_ghosts_after_a_restart() {
    let people = chatters(2);
    let mut site = Site::start(&Plan::default(), &people).unwrap();
    let mut watcher = site.login(Transport::Plain, &people[0]).unwrap();
    let mut watched = site.login(Transport::Plain, &people[1]).unwrap();
    watcher.patience = Duration::from_secs(60);
    watcher.available().unwrap();
    watched.available().unwrap();
    watcher
        .send("<presence type='subscribe' to='chatter1@localhost'/>")
        .unwrap();
    watched
        .element_where("the request", |e| e.attr("type") == Some("subscribe"))
        .unwrap();
    watched
        .send("<presence type='subscribed' to='chatter0@localhost'/>")
        .unwrap();
    let jid = watched.jid.clone();
    watcher
        .element_where("presence", |e| {
            e.name == "presence" && e.attr("from") == Some(&jid) && e.attr("type").is_none()
        })
        .unwrap();
    // The watched client goes while the server is dead: its watcher must learn of it afterwards.
    site.kill_server();
    watched.drop_connection();
    site.start_server().unwrap();
    watcher
        .element_where("the end of it", |e| {
            e.attr("from") == Some(&jid) && e.attr("type") == Some("unavailable")
        })
        .unwrap();
}

#[test]
fn a_dead_mux_takes_only_its_own_clients() {
    let people = chatters(4);
    let mut site = Site::init(&Plan::default()).unwrap();
    site.init_second_mux("west").unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&people).unwrap();
    site.await_clients().unwrap();
    site.start_second_mux().unwrap();
    let west = site.second_endpoint(Transport::Plain);
    let mut lost = site.login(Transport::Plain, &people[0]).unwrap();
    let mut kept = Client::login(&west, &people[1], None).unwrap();
    kept.available().unwrap();
    lost.available().unwrap();
    site.kill_mux();
    lost.until_closed().unwrap();
    kept.ping().unwrap();
    // What is sent to the lost one waits for its next log-in, on whichever mux.
    kept.chat("chatter0@localhost", "come back").unwrap();
    kept.ping().unwrap();
    let mut back = Client::login(&west, &people[0], None).unwrap();
    back.patience = Duration::from_secs(60);
    back.available().unwrap();
    assert_eq!(back.next_body().unwrap(), "come back");
    site.start_mux().unwrap();
    site.await_clients().unwrap();
    site.login(Transport::Plain, &people[2]).unwrap();
}

/// A network namespace with a veth pair into it, gone when dropped.
pub struct Namespace {
    name: String,
    outer: String,
    host_address: String,
}

impl Namespace {
    /// `index` keeps addresses apart: 10.77.INDEX.1 outside, .2 inside.
    pub fn new(index: u8) -> Result<Namespace> {
        let name = format!("isthmus{}-{index}", std::process::id());
        let (outer, inner) = (format!("ish{index}"), format!("isg{index}"));
        let host_address = format!("10.77.{index}.1");
        let namespace = Namespace {
            name: name.clone(),
            outer: outer.clone(),
            host_address: host_address.clone(),
        };
        let ip = |args: &str| run(Command::new("ip").args(args.split(' '))).map(drop);
        let _ = run(Command::new("ip").args(["link", "del", &outer]));
        ip(&format!("netns add {name}"))?;
        ip(&format!(
            "link add {outer} type veth peer name {inner} netns {name}"
        ))?;
        ip(&format!("addr add {host_address}/24 dev {outer}"))?;
        ip(&format!("link set {outer} up"))?;
        ip(&format!(
            "-n {name} addr add 10.77.{index}.2/24 dev {inner}"
        ))?;
        ip(&format!("-n {name} link set {inner} up"))?;
        ip(&format!("-n {name} link set lo up"))?;
        Ok(namespace)
    }

    /// The address under which processes outside are reached from inside.
    pub fn host_address(&self) -> &str {
        &self.host_address
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Pulls the cable: packets vanish, nobody is told.
    pub fn unplug(&self) -> Result<()> {
        run(Command::new("ip").args(["link", "set", &self.outer, "down"])).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The namespace may outlive its name while a dead connection is waited for; the cable goes now.
        let _ = Command::new("ip")
            .args(["link", "del", &self.outer])
            .output();
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// The client is a thread of this process whose sockets live in another network namespace.
pub(crate) fn login_inside(
    namespace: &Namespace,
    site: &Site,
    account: &Account,
) -> Result<Client> {
    let mut endpoint = site.endpoint(Transport::Plain);
    endpoint.starttls.set_ip(namespace.host_address().parse()?);
    let name = namespace.name.clone();
    let account = account.clone();
    let inside = std::thread::spawn(move || {
        let file = std::fs::File::open(format!("/run/netns/{name}"))?;
        isthmus_tests::sys::enter_namespace(&file)?;
        Client::login(&endpoint, &account, Some("mobile"))
    });
    inside.join().expect("the thread does not panic")
}

#[test]
fn a_client_that_vanishes_finds_exactly_what_it_missed() {
    const INDEX: u8 = 41;
    let people = chatters(2);
    let namespace = Namespace::new(INDEX).unwrap();
    // Clients come from the other end of the cable, too.
    let everywhere = Plan {
        listen: Some("0.0.0.0".into()),
        ..Plan::default()
    };
    let mut site = Site::init(&everywhere).unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&people).unwrap();
    site.await_clients().unwrap();

    let mut vanishing = login_inside(&namespace, &site, &people[0]).unwrap();
    vanishing.available().unwrap();
    let mut sender = site.login(Transport::Plain, &people[1]).unwrap();
    sender.chat("chatter0@localhost", "seen").unwrap();
    assert_eq!(vanishing.next_body().unwrap(), "seen");
    vanishing.ping().unwrap();
    // That the client's TCP has it is known a moment later.
    wait::until_true(wait::PATIENCE, "nothing waits for the client", || {
        let shown = site
            .imadmin_json(["user", "show", "chatter0@localhost"])
            .unwrap();
        shown.to_string().contains(r#"["messages waiting",0]"#)
    });

    namespace.unplug().unwrap();
    for n in 0..50 {
        sender.chat("chatter0@localhost", &n.to_string()).unwrap();
    }
    sender.ping().unwrap();

    // The same person comes back by another way; the same resource replaces the dead session.
    let mut back =
        Client::login(&site.endpoint(Transport::Plain), &people[0], Some("mobile")).unwrap();
    back.patience = Duration::from_secs(30);
    back.available().unwrap();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..50 {
        let body = back.next_body().unwrap();
        assert_eq!(body, n.to_string(), "order");
        *seen.entry(body).or_default() += 1;
    }
    assert_eq!(seen.len(), 50);
    sender.chat("chatter0@localhost", "the end").unwrap();
    assert_eq!(
        back.next_body().unwrap(),
        "the end",
        "exactly those 50, not one twice"
    );
}
