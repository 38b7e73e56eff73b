//! What a directory costs: log-ins against one slapd, cold and warm; what reaches it meanwhile, and while people chat; and
//! what an answer at hand costs on a shard.
//!
//! In: an LDIF tree. Out: figures per server. Owns: the slapd, on the generator's core, the same for every server.
//! Never: counts the work of slapd as that of a server under test.

use crate::client::{Entrance, Mechanism, PASSWORD, Transport, localpart};
use crate::compare::{Which, print_chat};
use crate::fleet::check_stop;
use crate::load::chat::{Address, Chat, ChatResult, Plan};
use crate::load::login::{self, Length, LoginResult};
use crate::servers::{DOMAIN, Ldap, Setup};
use anyhow::Context as _;
use directory::cache::CacheConfig;
use directory::cached::Cached;
use directory::ldap::LdapDirectory;
use directory::ldap::config::{HostConfig, LdapConfig, Product, Secret, Tls};
use directory::site::Site;
use isthmus_tests::slapd::{GROUPS, PEOPLE, SERVICE, SERVICE_PASSWORD, Slapd, Tree};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;

/// Members of each group.
const MEMBERS: usize = 20;
/// Look-ups of a timing.
const LOOKUPS: usize = 2_000_000;
/// slapd is left alone when nothing has reached it for so long: sweeps after a start are over.
const QUIET: Duration = Duration::from_secs(2);

/// How it runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Servers.
    pub servers: Vec<Which>,
    /// People in the tree.
    pub accounts: usize,
    /// Groups in the tree, of 20 each.
    pub groups: usize,
    /// Log-ins on their way at a time.
    pub at_once: usize,
    /// Pairs that chat, and for how many seconds.
    pub pairs: usize,
    /// See `pairs`.
    pub seconds: f64,
    /// Core of the servers.
    pub core: usize,
    /// Our binaries.
    pub bin: PathBuf,
    /// Temporary directories.
    pub dir: PathBuf,
}

/// Operations that have reached slapd.
#[derive(Clone, Copy, Default)]
struct Operations {
    searches: usize,
    binds: usize,
}

impl Operations {
    fn of(slapd: &Slapd) -> Self {
        let (searches, binds) = slapd.operations();
        Operations { searches, binds }
    }

    /// Since then, for every `per` of `count`.
    fn since(self, before: Operations, count: u64, per: f64) -> String {
        let rate = |now: usize, then: usize| (now - then) as f64 * per / count.max(1) as f64;
        format!(
            "{:.0} searches and {:.0} binds",
            rate(self.searches, before.searches),
            rate(self.binds, before.binds)
        )
    }
}

/// Runs all of it and prints as it goes.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let slapd = Slapd::load(&Tree {
        people: 0,
        groups: 0,
        more: people(options.accounts, options.groups),
    })?;
    println!(
        "slapd with {} people and {} groups, on the generator's core",
        options.accounts, options.groups
    );
    for &which in &options.servers {
        against(which, &slapd, options).with_context(|| format!("{which:?}"))?;
    }
    at_hand(&slapd, options.accounts)
}

/// People and groups, as LDIF.
fn people(accounts: usize, groups: usize) -> String {
    let mut out = String::new();
    for n in 0..accounts {
        let uid = localpart(n);
        let _ = write!(
            out,
            "dn: uid={uid},{PEOPLE}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: Person {n}\nsn: Number {n}\nmail: {uid}@{DOMAIN}\nuserPassword: {PASSWORD}\n\n"
        );
    }
    for n in 0..groups {
        let _ = write!(
            out,
            "dn: cn=g{n},{GROUPS}\nobjectClass: groupOfNames\ncn: g{n}\n"
        );
        for m in 0..MEMBERS {
            let uid = localpart((n * MEMBERS + m) % accounts);
            let _ = writeln!(out, "member: uid={uid},{PEOPLE}");
        }
        out.push('\n');
    }
    out
}

fn against(which: Which, slapd: &Slapd, options: &Options) -> anyhow::Result<()> {
    let setup = Setup {
        accounts: options.accounts,
        contacts: 0,
        archive: false,
        archive_in_sql: false,
        stored: 0,
        ldap: Some(Ldap {
            address: slapd.address(),
            init_args: slapd.init_args()?,
        }),
        core: options.core,
        dir: options.dir.clone(),
    };
    let started = Instant::now();
    let before = Operations::of(slapd);
    let server = which.start(&setup, &options.bin)?;
    let processes = server.processes();
    quiet(slapd)?;
    println!(
        "{:<9} {}: ready and quiet after {:.1} s; {} at the start",
        server.name,
        server.version,
        (started.elapsed() - QUIET).as_secs_f64(),
        Operations::of(slapd).since(before, 1, 1.0)
    );
    let target = |entrance| server.target(Transport::Plain, Mechanism::Plain, entrance);
    for name in ["cold", "warm"] {
        let before = Operations::of(slapd);
        let result = login::run(
            target(Entrance::Bind)?,
            &processes,
            options.accounts,
            options.at_once,
            Length::Once,
        )?;
        let after = Operations::of(slapd);
        print(server.name, name, &result);
        println!(
            "{:<9}   per 10,000 log-ins: {}",
            "",
            after.since(before, options.accounts as u64, 10_000.0)
        );
    }
    let plan = Plan {
        pairs: options.pairs,
        warm_up_s: 1.0,
        seconds: options.seconds,
        address: Address::Bare,
    };
    let mut chat = Chat::log_in(target(Entrance::Presence)?, &processes, plan)?;
    quiet(slapd)?;
    let before = Operations::of(slapd);
    let result: ChatResult = chat.closed(16)?;
    let after = Operations::of(slapd);
    print_chat(server.name, "16 outstanding", &result);
    println!(
        "{:<9}   per 100,000 messages: {}",
        "",
        after.since(before, result.messages, 100_000.0)
    );
    Ok(())
}

fn print(server: &str, name: &str, r: &LoginResult) {
    println!(
        "{server:<9} log-in (PLAIN, LDAP bind), {name}: {:.0}/s, {:.2} ms CPU each, p50 {:.1} ms, p99 {:.1} ms",
        r.per_s, r.cpu_ms_each, r.latency.p50_ms, r.latency.p99_ms
    );
}

/// Waits until nothing reaches slapd any more.
fn quiet(slapd: &Slapd) -> anyhow::Result<()> {
    let count = || {
        let now = Operations::of(slapd);
        now.searches + now.binds
    };
    let (mut seen, mut since) = (count(), Instant::now());
    while since.elapsed() < QUIET {
        check_stop()?;
        std::thread::sleep(Duration::from_millis(100));
        let now = count();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// What a shard pays for an answer that is at hand, of people of the directory.
fn at_hand(slapd: &Slapd, accounts: usize) -> anyhow::Result<()> {
    let address = slapd.address();
    let config = LdapConfig {
        hosts: vec![HostConfig {
            host: address.ip().to_string(),
            port: address.port(),
            tls: Tls::None,
        }],
        bind_dn: Some(SERVICE.into()),
        bind_password: Secret(SERVICE_PASSWORD.into()),
        bases: vec![PEOPLE.into()],
        domains: vec![DOMAIN.into()],
        ..LdapConfig::usual("bench", Product::Ldap)
    };
    let backend = LdapDirectory::new(config).map_err(anyhow::Error::msg)?;
    let cached = Cached::new(backend, CacheConfig::default());
    let site = Site::without_overlay([(
        DOMAIN.to_owned(),
        vec![Arc::new(cached) as Arc<dyn directory::backend::Backend>],
    )]);
    let jids: Vec<BareJid> = (0..accounts)
        .map(|n| BareJid::parse(&format!("{}@{DOMAIN}", localpart(n))))
        .collect::<Result<_, _>>()
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let (before, start) = (Operations::of(slapd), Instant::now());
    for jid in &jids {
        check_stop()?;
        site.person(jid)?
            .with_context(|| format!("{jid} is not there"))?;
    }
    let (cold, after) = (start.elapsed(), Operations::of(slapd));
    // A step that has no divisor in common with their number visits all of them, in no order that a cache line likes.
    let mut at = 0;
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        at = (at + 7_919) % jids.len();
        black_box(site.at_hand(&jids[at]).is_some());
    }
    let warm = start.elapsed();
    println!(
        "look-up of a person: {:.0} us from slapd ({}), {:.0} ns at hand, of {accounts}",
        cold.as_secs_f64() * 1e6 / accounts as f64,
        after.since(before, accounts as u64, 1.0),
        warm.as_secs_f64() * 1e9 / LOOKUPS as f64,
    );
    Ok(())
}
