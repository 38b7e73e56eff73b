//! The comparison: every server in turn, set up alike, on the same core, under the same loads; one table of ratios.

use crate::client::{Entrance, Mechanism, Transport, Way};
use crate::disk::{self, DiskResult};
use crate::load::chat::{Address, Chat, ChatResult, Plan};
use crate::load::idle::{self, IdleResult};
use crate::load::login::{self, Length, LoginResult};
use crate::load::pages::{self, PagesResult};
use crate::servers::rows::FIRST_MS;
use crate::servers::{Server, Setup, ejabberd, isthmus, prosody};
use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A server the comparison knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Which {
    /// mux and imserver.
    Isthmus,
    /// Debian's ejabberd.
    Ejabberd,
    /// Debian's Prosody.
    Prosody,
}

/// A load the comparison knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum What {
    /// SCRAM log-ins per second.
    Login,
    /// Memory of idle sessions.
    Idle,
    /// Closed loop, archive off.
    Chat,
    /// Closed loop, archive on (and a million messages stored: Isthmus).
    Archive,
    /// Open loop.
    Open,
    /// Pages of an archive, over and over.
    Pages,
}

/// How the comparison runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Servers.
    pub servers: Vec<Which>,
    /// Loads.
    pub loads: Vec<What>,
    /// Pairs that chat.
    pub pairs: usize,
    /// Idle sessions.
    pub sessions: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Messages stored before the archived run.
    pub stored: u64,
    /// Messages sent before pages are read.
    pub messages: usize,
    /// Messages stored before that, of one run after another.
    pub pages_of: Vec<u64>,
    /// To whom messages are addressed.
    pub address: Address,
    /// Core of the servers.
    pub core: usize,
    /// Our binaries.
    pub bin: PathBuf,
    /// Temporary directories; the disk under test.
    pub dir: PathBuf,
}

/// All figures of one server.
#[derive(Clone, Serialize, Default, Debug)]
pub struct Figures {
    /// As it says.
    pub version: String,
    /// SCRAM-SHA-1 over plain TCP.
    pub login: Option<LoginResult>,
    /// By "plain", "tls", "plain, 50 contacts".
    pub idle: BTreeMap<String, IdleResult>,
    /// By "archive off, 16 outstanding" and so on.
    pub chat: BTreeMap<String, ChatResult>,
    /// By kind of page and messages stored.
    pub pages: BTreeMap<String, PagesResult>,
    /// Loads that could not be run, and why.
    pub failed: BTreeMap<String, String>,
}

/// A whole run.
#[derive(Clone, Serialize, Debug)]
pub struct Report {
    /// The commit measured.
    pub commit: String,
    /// The disk.
    pub disk: DiskResult,
    /// By server.
    pub servers: BTreeMap<Which, Figures>,
}

impl Serialize for Which {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Which::Isthmus => "isthmus",
            Which::Ejabberd => "ejabberd",
            Which::Prosody => "prosody",
        }
    }

    /// Sets it up and starts it.
    pub fn start(self, setup: &Setup, bin: &Path) -> anyhow::Result<Server> {
        match self {
            Which::Isthmus => isthmus::start(setup, bin),
            Which::Ejabberd => ejabberd::start(setup),
            Which::Prosody => prosody::start(setup),
        }
        .with_context(|| format!("starting {}", self.name()))
    }
}

/// Runs everything.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let disk = disk::run(&options.dir)?;
    println!(
        "disk: {:.0} syncs/s, p99 {:.2} ms",
        disk.syncs_per_s, disk.latency.p99_ms
    );
    let mut report = Report {
        commit: isthmus::version(),
        disk,
        servers: BTreeMap::new(),
    };
    for which in &options.servers {
        let mut figures = Figures::default();
        for what in &options.loads {
            // One server that cannot do one thing does not take the others' figures away; a signal does.
            if let Err(e) = load(*which, *what, options, &mut figures) {
                crate::fleet::check_stop()?;
                println!("{} {what:?}: FAILED: {e:#}", which.name());
                figures
                    .failed
                    .insert(format!("{what:?}").to_lowercase(), format!("{e:#}"));
            }
        }
        report.servers.insert(*which, figures);
    }
    Ok(report)
}

fn load(which: Which, what: What, options: &Options, figures: &mut Figures) -> anyhow::Result<()> {
    let mut setup = Setup {
        accounts: options.pairs * 2,
        contacts: 0,
        archive: false,
        archive_in_sql: false,
        stored: 0,
        ldap: None,
        core: options.core,
        dir: options.dir.clone(),
    };
    let mut start = |setup: &Setup| -> anyhow::Result<Server> {
        let server = which.start(setup, &options.bin)?;
        figures.version.clone_from(&server.version);
        Ok(server)
    };
    match what {
        What::Login => {
            setup.accounts = 10_000;
            let server = start(&setup)?;
            let target = server.target(Transport::Plain, Mechanism::ScramSha1, Entrance::Bind)?;
            let result = login::run(
                target,
                &server.processes(),
                setup.accounts,
                64,
                Length::Seconds(options.seconds),
            )?;
            print_login(which.name(), Way::default(), &result);
            figures.login = Some(result);
        }
        What::Idle => {
            for (name, transport, contacts) in [
                ("plain", Transport::Plain, 0),
                ("tls", Transport::Tls, 0),
                ("plain, 50 contacts", Transport::Plain, 50),
            ] {
                setup.accounts = options.sessions;
                setup.contacts = contacts;
                let server = start(&setup)?;
                let entrance = if contacts > 0 {
                    Entrance::RosterAndPresence
                } else {
                    Entrance::Presence
                };
                let target = server.target(transport, Mechanism::ScramSha1, entrance)?;
                let result = idle::run(target, &server.processes(), options.sessions, 100)?;
                print_idle(which.name(), name, &result);
                figures.idle.insert(name.into(), result);
            }
        }
        What::Chat | What::Archive => {
            setup.archive = what == What::Archive;
            // Theirs cannot be filled where they are in Mnesia, or in a store of text.
            let filled = setup.archive && which == Which::Isthmus;
            setup.stored = if filled { options.stored } else { 0 };
            let server = start(&setup)?;
            let target =
                server.target(Transport::Plain, Mechanism::ScramSha1, Entrance::Presence)?;
            let processes = server.processes();
            let mut chat = Chat::log_in(target, &processes, plan(options))?;
            for outstanding in [16, 1] {
                let name = format!(
                    "archive {}, {outstanding} outstanding",
                    if setup.archive { "on" } else { "off" }
                );
                let result = chat.closed(outstanding)?;
                print_chat(which.name(), &name, &result);
                figures.chat.insert(name, result);
            }
        }
        What::Pages => {
            setup.accounts = 2;
            (setup.archive, setup.archive_in_sql) = (true, true);
            for stored in &options.pages_of {
                setup.stored = *stored;
                let server = start(&setup)?;
                let target =
                    server.target(Transport::Plain, Mechanism::ScramSha1, Entrance::Presence)?;
                let processes = server.processes();
                let stored = pages::Stored {
                    messages: *stored,
                    first_ms: FIRST_MS,
                };
                let results = pages::run(
                    target,
                    &processes,
                    options.messages,
                    options.seconds,
                    stored,
                )?;
                for (kind, result) in results {
                    let name = pages_name(kind, stored.messages);
                    print_pages(which.name(), &name, &result);
                    figures.pages.insert(name, result);
                }
            }
        }
        What::Open => {
            let server = start(&setup)?;
            let target =
                server.target(Transport::Plain, Mechanism::ScramSha1, Entrance::Presence)?;
            let processes = server.processes();
            let mut chat = Chat::log_in(target, &processes, plan(options))?;
            for rate in [1_000.0, 20_000.0] {
                let name = format!("open loop, {rate} messages/s");
                let result = chat.open(rate)?;
                print_chat(which.name(), &name, &result);
                figures.chat.insert(name, result);
            }
        }
    }
    Ok(())
}

fn pages_name(kind: pages::Kind, stored: u64) -> String {
    match stored {
        0 => format!("{}, all sent over the wire", kind.name()),
        _ => format!("{}, out of {:.1} million", kind.name(), stored as f64 / 1e6),
    }
}

fn plan(options: &Options) -> Plan {
    Plan {
        pairs: options.pairs,
        warm_up_s: 2.0,
        seconds: options.seconds,
        address: options.address,
    }
}

/// One line.
pub fn print_login(server: &str, way: Way, r: &LoginResult) {
    println!(
        "{server:<9} log-in ({}): {:.0}/s, {:.2} ms CPU each, p50 {:.1} ms, p99 {:.1} ms, generator {:.1} s of CPU",
        way.name(),
        r.per_s,
        r.cpu_ms_each,
        r.latency.p50_ms,
        r.latency.p99_ms,
        r.cost.generator_s
    );
}

/// One line.
pub fn print_idle(server: &str, name: &str, r: &IdleResult) {
    let parts: Vec<String> = r
        .by_process
        .iter()
        .map(|(n, k)| format!("{n} {k:.2}"))
        .collect();
    println!(
        "{server:<9} idle, {name}: {:.2} KiB each of {} ({}), second half {:.2} KiB each; before {:.1} MiB; log-ins took {:.1} s",
        r.kib_each,
        r.sessions,
        parts.join(", "),
        r.kib_each_second_half,
        r.before_bytes as f64 / 1048576.0,
        r.log_in_s
    );
}

/// One line.
pub fn print_chat(server: &str, name: &str, r: &ChatResult) {
    let parts: Vec<String> = r
        .by_process
        .iter()
        .map(|(n, s)| format!("{n} {s:.1}"))
        .collect();
    println!(
        "{server:<9} chat, {name}: {:.0}/s, {:.1} CPU s per million ({}; {:.0} % kernel), ms p50 {:.1} p90 {:.1} p99 {:.1} p99.9 {:.1} max {:.1}; missing {}; {:.2} sleeps per message; generator {:.1} s of CPU",
        r.per_s,
        r.cpu_s_per_million,
        parts.join(", "),
        r.cost.system_s / r.cost.cpu_s.max(1e-9) * 100.0,
        r.latency.p50_ms,
        r.latency.p90_ms,
        r.latency.p99_ms,
        r.latency.p999_ms,
        r.latency.max_ms,
        r.missing,
        r.cost.switches as f64 / r.messages.max(1) as f64,
        r.cost.generator_s
    );
}

/// One line.
pub fn print_pages(server: &str, name: &str, r: &PagesResult) {
    println!(
        "{server:<9} {name} ({} of the reader; sent at {:.0}/s): {:.0}/s, {:.2} ms CPU each, ms p50 {:.2} p99 {:.2} max {:.1}; generator {:.1} s of CPU",
        r.stored,
        r.filled_per_s,
        r.per_s,
        r.cpu_ms_each,
        r.latency.p50_ms,
        r.latency.p99_ms,
        r.latency.max_ms,
        r.cost.generator_s
    );
}

/// A row of the table: what, ours, theirs, and what we owe.
struct Row {
    what: String,
    values: Vec<Option<f64>>,
    /// Ours must be at most this share of ejabberd's (or at least this multiple), or at most this many.
    bar: Bar,
}

enum Bar {
    AtMostShare(f64),
    AtLeastTimes(f64),
    AtMost(f64),
    None,
}

/// Prints the table of one run.
pub fn print_table(report: &Report) {
    let order: Vec<Which> = report.servers.keys().copied().collect();
    let mut rows = Vec::new();
    let mut row = |what: &str, bar: Bar, value: &dyn Fn(Which, &Figures) -> Option<f64>| {
        let values: Vec<Option<f64>> = order
            .iter()
            .map(|w| value(*w, &report.servers[w]))
            .collect();
        if values.iter().any(Option::is_some) {
            rows.push(Row {
                what: what.into(),
                values,
                bar,
            });
        }
    };
    for outstanding in [16, 1] {
        let off = format!("archive off, {outstanding} outstanding");
        let on = format!("archive on, {outstanding} outstanding");
        row(
            &format!("CPU s per million, {off}"),
            Bar::AtMostShare(0.25),
            &|_, f| f.chat.get(&off).map(|c| c.cpu_s_per_million),
        );
        row(
            &format!(
                "  same, ours archived with messages stored, theirs off, {outstanding} outstanding"
            ),
            Bar::AtMostShare(0.5),
            &|w, f| {
                f.chat
                    .get(if w == Which::Isthmus { &on } else { &off })
                    .map(|c| c.cpu_s_per_million)
            },
        );
        row(&format!("  same, {on}"), Bar::None, &|_, f| {
            f.chat.get(&on).map(|c| c.cpu_s_per_million)
        });
        row(&format!("messages/s, {off}"), Bar::None, &|_, f| {
            f.chat.get(&off).map(|c| c.per_s)
        });
        row(&format!("messages/s, {on}"), Bar::None, &|_, f| {
            f.chat.get(&on).map(|c| c.per_s)
        });
    }
    for rate in [1_000, 20_000] {
        let name = format!("open loop, {rate} messages/s");
        row(&format!("p50 ms, {name}"), Bar::None, &|_, f| {
            f.chat.get(&name).map(|c| c.latency.p50_ms)
        });
        row(&format!("p99 ms, {name}"), Bar::None, &|_, f| {
            f.chat.get(&name).map(|c| c.latency.p99_ms)
        });
        row(&format!("CPU s per million, {name}"), Bar::None, &|_, f| {
            f.chat.get(&name).map(|c| c.cpu_s_per_million)
        });
    }
    let pages: BTreeSet<&String> = report
        .servers
        .values()
        .flat_map(|f| f.pages.keys())
        .collect();
    for name in pages {
        row(&format!("p50 ms, {name}"), Bar::None, &|_, f| {
            f.pages.get(name).map(|p| p.latency.p50_ms)
        });
        row(&format!("CPU ms, {name}"), Bar::None, &|_, f| {
            f.pages.get(name).map(|p| p.cpu_ms_each)
        });
    }
    row("SCRAM log-ins/s", Bar::AtLeastTimes(3.0), &|_, f| {
        f.login.as_ref().map(|l| l.per_s)
    });
    row("KiB per idle session, plain", Bar::AtMost(4.0), &|_, f| {
        f.idle.get("plain").map(|i| i.kib_each)
    });
    row("KiB per idle session, TLS", Bar::AtMost(8.0), &|_, f| {
        f.idle.get("tls").map(|i| i.kib_each)
    });
    row(
        "KiB per idle session, plain, 50 contacts",
        Bar::None,
        &|_, f| f.idle.get("plain, 50 contacts").map(|i| i.kib_each),
    );

    println!();
    print!("{:<78}", "");
    for which in &order {
        print!("{:>12}", which.name());
    }
    println!("   bar for isthmus");
    for row in rows {
        print!("{:<78}", row.what);
        for value in &row.values {
            print!("{:>12}", value.map_or("-".into(), number));
        }
        let of = |which: Which| {
            order
                .iter()
                .position(|w| *w == which)
                .and_then(|i| row.values[i])
        };
        println!(
            "   {}",
            verdict(&row.bar, of(Which::Isthmus), of(Which::Ejabberd))
        );
    }
}

fn number(value: f64) -> String {
    if value >= 1_000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn verdict(bar: &Bar, ours: Option<f64>, theirs: Option<f64>) -> String {
    let word = |met: bool| if met { "met" } else { "MISSED" };
    match (bar, ours, theirs) {
        (Bar::AtMost(most), Some(ours), _) => format!("at most {most}: {}", word(ours <= *most)),
        (Bar::AtMostShare(share), Some(ours), Some(theirs)) => {
            format!(
                "{:.2} of ejabberd's, at most {share}: {}",
                ours / theirs,
                word(ours <= share * theirs)
            )
        }
        (Bar::AtLeastTimes(times), Some(ours), Some(theirs)) => {
            format!(
                "{:.1} times ejabberd's, at least {times}: {}",
                ours / theirs,
                word(ours >= times * theirs)
            )
        }
        (Bar::None, Some(ours), Some(theirs)) => format!("{:.2} of ejabberd's", ours / theirs),
        _ => String::new(),
    }
}
