//! The server's threads, replaced: queues and delays drawn from the seed instead of a scheduler.
//!
//! Owns: the shards, the links, the writer and its readers of one run; what dies with a kill.
//! Never: does for a shard what its thread does not; keeps anything over a kill but the store.

mod disk;
mod links;

use crate::breaks::Break;
use crate::world::{Ev, Fault, UNIX_BASE_MS, World};
use imserver::archive::prefs::ByDefault;
use imserver::event::{Effects, Event, LinkId, Now, ShardId, Write};
use imserver::linkset::Links;
use imserver::session::record::Record;
use imserver::settings::{ArchiveDomain, Settings};
use imserver::shard::{Shard, ShardConfig};
use proto::frame::{BootId, StoreId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{Engine, Reader, SessionStore, Writer, Written};
use xmpp::negotiation::{Mechanisms, Offer};
use xmpp::scram::FakeKeys;

/// Answers of one commit: per shard, in order.
pub(crate) type Answers = Vec<(usize, Event)>;

/// One shard and what stands before it.
pub(crate) struct ShardBox {
    pub shard: Shard,
    pub queue: VecDeque<Vec<Event>>,
    turn: bool,
    tick_at: u64,
    /// For each way out and each way in: when the last thing on it arrives, so that nothing overtakes.
    to_writer: u64,
    to_links: u64,
    to_shards: Vec<u64>,
    from_writer: u64,
    from_links: u64,
    pub from_sweeper: u64,
}

/// A batch of one shard on its way to disk.
pub(crate) struct Batch {
    shard: usize,
    writes: Vec<Write>,
}

/// The longest time without a server.
const LONG_OUTAGE_US: u64 = 45_000_000;

/// One run of the server.
pub(crate) struct Server {
    pub run: u32,
    started_us: u64,
    pub shards: Vec<ShardBox>,
    pub links: Links,
    links_timer: u64,
    writer: Box<dyn Writer>,
    sessions: Box<dyn SessionStore>,
    reader: Box<dyn Reader>,
    pub write_queue: VecDeque<Batch>,
    writing: bool,
    committing: Vec<Batch>,
    sessions_result: Written,
    numbers: Vec<u64>,
    /// Link -> transport.
    pub transports: BTreeMap<LinkId, usize>,
    /// Link -> mux and its boot.
    pub link_of: BTreeMap<LinkId, (usize, u32)>,
    /// With `Break::SettleEarly`: input handed to the shards.
    input: BTreeMap<(LinkId, u64), u64>,
}

impl World {
    fn now(&self) -> Now {
        let started = self.server.as_ref().map_or(self.now_us, |s| s.started_us);
        Now {
            mono_ms: 1_000 + (self.now_us - started) / 1_000,
            unix_ms: UNIX_BASE_MS + self.now_us / 1_000,
        }
    }

    fn settings(&mut self) -> Settings {
        let mut s = Settings {
            domains: vec!["sim.example".into()],
            offer: Arc::new(Offer {
                domains: Offer::alike(
                    &["sim.example".into()],
                    &Mechanisms {
                        plain: true,
                        ..Mechanisms::default()
                    },
                ),
                plaintext: true,
                attempts_max: 3,
                fake: FakeKeys::new([0; 32], 4_096),
                register: Vec::new(),
                tokens: true,
                register_requests_max: 0,
            }),
            group_presence_max: crate::groups::PRESENCE_MAX,
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(45),
            resume: Duration::from_secs(10),
            // Replaced after a quarter of it.
            token: Duration::from_secs(20),
            ..Settings::default()
        };
        if self.plan.archive {
            let domains = s.domains.iter().map(|name| ArchiveDomain {
                name: name.clone(),
                default: ByDefault::Always,
                search: false,
            });
            s.archive_domains = domains.collect();
        }
        if self.plan.tight {
            s.output_window_bytes = 12 * 1024;
            s.unacknowledged_max = self.seed as usize % 7 + 3;
        }
        s
    }

    /// A server begins, with nothing but the store.
    pub(crate) fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        let Some(server) = self.boot() else {
            // The disk takes nothing: whoever starts services tries again.
            self.trace
                .line(self.now_us, 0x10, format_args!("the server cannot start"));
            self.store.kill();
            self.after(400_000, Ev::Fault(Fault::StartServer));
            return;
        };
        self.run = server.run;
        self.trace.line(
            self.now_us,
            0x11,
            format_args!("server run {} starts", server.run),
        );
        self.server = Some(server);
        self.tell_population_again();
        for shard in 0..usize::from(self.plan.shards) {
            self.plan_tick(shard);
        }
        self.synced = (self.broken == Some(Break::EarlyAnswer)).then(|| self.store.snapshot());
    }

    fn boot(&mut self) -> Option<Server> {
        let run = self.run + 1;
        let settings = Arc::new(self.settings());
        let epoch = self.store.next_epoch().expect("the model has epochs");
        let mut sessions = self.store.session_store().expect("the last run is dead");
        let mut writer = self.store.writer().expect("the last run is dead");
        let loaded = sessions.load().expect("the model reads");
        let records: Vec<Record> = loaded
            .into_iter()
            .filter_map(|(_, bytes)| Record::decode(bytes))
            .collect();
        let mut live: Vec<u64> = records.iter().map(|r| r.id.0).collect();
        if self.broken == Some(Break::LoseOrigins) {
            live.clear();
        }
        writer
            .commit(&[store::Write::RetainSessions { sessions: live }])
            .ok()?;
        let now = Now {
            mono_ms: 1_000,
            unix_ms: UNIX_BASE_MS + self.now_us / 1_000,
        };
        let count = self.plan.shards;
        let alive = Record::alive_unix_ms(&records).unwrap_or(now.unix_ms);
        let population = self.certain_population(alive - UNIX_BASE_MS, settings.mux_lost);
        let mut shards = Vec::new();
        let mut notes = Vec::new();
        for id in 0..count {
            let config = ShardConfig {
                id: ShardId(id),
                shards: count,
                epoch,
                settings: settings.clone(),
                notices: Arc::default(),
                population: population.clone(),
                ids: self.store.position_key(),
            };
            let mut chance = self.rng.fork();
            let mut shard = Shard::new(
                config,
                Box::new(move |out: &mut [u8]| chance.fill(out)),
                now,
            );
            notes.extend(shard.restore(now, records.clone()));
            shards.push(ShardBox {
                shard,
                queue: VecDeque::new(),
                turn: false,
                tick_at: 0,
                to_writer: 0,
                to_links: 0,
                to_shards: vec![0; usize::from(count)],
                from_writer: 0,
                from_links: 0,
                from_sweeper: 0,
            });
        }
        let mut boot = [0; 16];
        self.rng.fill(&mut boot);
        let store_id = StoreId(self.store.store_id().0);
        let links = Links::new(
            "sim".into(),
            BootId(boot),
            store_id,
            count,
            settings.mux_lost,
            notes,
        );
        Some(Server {
            run,
            started_us: self.now_us,
            shards,
            links,
            links_timer: u64::MAX,
            writer,
            sessions,
            reader: self.store.reader().expect("the model has readers"),
            write_queue: VecDeque::new(),
            writing: false,
            committing: Vec::new(),
            sessions_result: Written::Done,
            numbers: vec![0; usize::from(count)],
            transports: BTreeMap::new(),
            link_of: BTreeMap::new(),
            input: BTreeMap::new(),
        })
    }

    /// kill -9: what was not committed is gone, and so is everything in memory.
    pub(crate) fn kill_server(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        self.trace.line(
            self.now_us,
            0x12,
            format_args!("server run {} is killed", server.run),
        );
        self.oracle.kills.push(self.now_us);
        if let Some(synced) = self.synced.take() {
            self.store = synced;
        }
        self.store.kill();
        for &transport in server.transports.values() {
            self.break_transport(transport);
            let delay = self.rng.delay(5_000);
            self.after(
                delay,
                Ev::LinkGone {
                    transport,
                    at_server: false,
                },
            );
        }
        let delay = if self.rng.permille(15) {
            // Longer than a server keeps sessions of a lost mux.
            self.oracle.outage_us = LONG_OUTAGE_US;
            self.rng
                .between(LONG_OUTAGE_US - 10_000_000, LONG_OUTAGE_US)
        } else if self.rng.permille(400) {
            self.rng.between(1_000, 50_000)
        } else {
            self.rng.between(50_000, 4_000_000)
        };
        self.after(delay, Ev::Fault(Fault::StartServer));
    }

    fn server(&mut self, run: u32) -> Option<&mut Server> {
        self.server.as_mut().filter(|s| s.run == run)
    }

    // ---- shards ---------------------------------------------------------------------------------------------

    pub(crate) fn to_shard(&mut self, run: u32, shard: usize, events: Vec<Event>) {
        let delay = self.rng.delay(60);
        let Some(server) = self.server(run) else {
            return;
        };
        let it = &mut server.shards[shard];
        it.queue.push_back(events);
        if !it.turn {
            it.turn = true;
            self.after(delay, Ev::ShardTurn { run, shard });
        }
    }

    fn plan_tick(&mut self, shard: usize) {
        let Some(server) = &mut self.server else {
            return;
        };
        let run = server.run;
        let it = &mut server.shards[shard];
        let at = server.started_us + (it.shard.poll_timeout() - 1_000) * 1_000;
        if it.tick_at != at {
            it.tick_at = at;
            self.at(at, Ev::ShardTick { run, shard });
        }
    }

    pub(crate) fn shard_tick(&mut self, run: u32, shard: usize) {
        let now_us = self.now_us;
        if self
            .server(run)
            .is_some_and(|s| s.shards[shard].tick_at == now_us)
        {
            self.turn(shard, 0);
        }
    }

    pub(crate) fn shard_turn(&mut self, run: u32, shard: usize) {
        if self.server(run).is_none() {
            return;
        }
        let batches = if self.rng.permille(500) { 1 } else { 16 };
        self.turn(shard, batches);
        let delay = self.rng.delay(60);
        let Some(server) = self.server(run) else {
            return;
        };
        let it = &mut server.shards[shard];
        it.turn = !it.queue.is_empty();
        if it.turn {
            self.after(delay, Ev::ShardTurn { run, shard });
        }
    }

    fn turn(&mut self, shard: usize, batches: usize) {
        let now = self.now();
        let credit = !self.rng.permille(if self.plan.tight { 100 } else { 5 });
        let Some(server) = &mut self.server else {
            return;
        };
        let it = &mut server.shards[shard];
        for _ in 0..batches {
            let Some(batch) = it.queue.pop_front() else {
                break;
            };
            for event in batch {
                it.shard.handle(now, event);
            }
        }
        if now.mono_ms >= it.shard.poll_timeout() {
            it.shard.handle_timeout(now);
        }
        it.shard.give_credit(credit);
        let effects = it.shard.flush(now);
        if !effects.is_empty() {
            self.hand_on(shard, effects);
        }
        self.plan_tick(shard);
    }

    fn hand_on(&mut self, shard: usize, effects: Effects) {
        let Some(run) = self.server.as_ref().map(|s| s.run) else {
            return;
        };
        self.trace.note(
            effects.links.len() as u64
                ^ (effects.writes.len() as u64) << 16
                ^ (effects.shards.len() as u64) << 32,
        );
        if !effects.writes.is_empty() {
            let at = self.way(|s| &mut s.shards[shard].to_writer);
            self.at(
                at,
                Ev::ToWriter {
                    run,
                    shard,
                    writes: effects.writes,
                },
            );
        }
        if !effects.shards.is_empty() {
            let mut per_shard: Vec<Vec<Event>> =
                (0..self.plan.shards).map(|_| Vec::new()).collect();
            for (to, msg) in effects.shards {
                if self.broken == Some(Break::LosePresence)
                    && matches!(msg, imserver::event::ShardMsg::Presence(..))
                    && self.rng.permille(60)
                {
                    continue;
                }
                if self.broken == Some(Break::LoseNotices)
                    && matches!(msg, imserver::event::ShardMsg::Event(..))
                    && self.rng.permille(200)
                {
                    continue;
                }
                per_shard[usize::from(to.0)].push(Event::Shard(msg));
            }
            for (to, events) in per_shard.into_iter().enumerate() {
                if !events.is_empty() {
                    let at = self.way(|s| &mut s.shards[shard].to_shards[to]);
                    self.at(
                        at,
                        Ev::ToShard {
                            run,
                            shard: to,
                            events,
                        },
                    );
                }
            }
        }
        for (tag, read) in effects.reads {
            let delay = self.disk_delay(150);
            self.after(
                delay,
                Ev::ReadRun {
                    run,
                    shard,
                    tag,
                    read,
                },
            );
        }
        for (tag, look) in effects.looks {
            let delay = self.rng.delay(500);
            self.after(
                delay,
                Ev::LookRun {
                    run,
                    shard,
                    tag,
                    look,
                },
            );
        }
        if !effects.links.is_empty() {
            let at = self.way(|s| &mut s.shards[shard].to_links);
            self.at(
                at,
                Ev::ToLinks {
                    run,
                    shard,
                    commands: effects.links,
                },
            );
        }
    }

    /// When the next thing on this way arrives: never before the last one.
    pub(crate) fn way(&mut self, last: impl FnOnce(&mut Server) -> &mut u64) -> u64 {
        let delay = if self.rng.permille(10) {
            self.rng.below(20_000)
        } else {
            self.rng.delay(30)
        };
        let at = self.now_us + delay;
        let server = self
            .server
            .as_mut()
            .expect("only a running server has ways");
        let last = last(server);
        *last = at.max(*last);
        *last
    }

    fn disk_delay(&mut self, typical_us: u64) -> u64 {
        if self.disk_slow {
            self.rng.between(10_000, 900_000)
        } else {
            self.rng.delay(typical_us)
        }
    }
}

impl Server {
    /// Records in the session store.
    pub(crate) fn records(&mut self) -> usize {
        self.sessions.load().map_or(0, |r| r.len())
    }
}
