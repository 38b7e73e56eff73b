//! The world of one run: the queue of everything that will happen, in order of virtual time, and the loop that lets it.
//!
//! In: a seed. Out: an [`Outcome`]. Owns: time, chance, the server, the muxes, the clients, the oracle.
//! Never: reads a clock, starts a thread, draws from anything but the seed.
//!
//! ```text
//!  clients ==tcp== muxes (MuxSide) ==transports== Links --ToShard--> Shard 0..N --ToWriter--> writer, session store
//!                                                   ^---ToLinks---------'  ^------Durable, Read, Looked----'
//! ```

use crate::blocks::Blocks;
use crate::breaks::Break;
use crate::client::Client;
use crate::groups::Groups;
use crate::muxes::{Mux, Tcp, Transport};
use crate::oracle::Oracle;
use crate::published::Published;
use crate::rng::Rng;
use crate::scenario::{Plan, Scenario};
use crate::server::{Answers, Server};
use crate::trace::Trace;
use bytes::Bytes;
use imserver::event::{Event, LinkCommand, Look, LookTag, Read, ReadTag};
use proto::frame::CloseReason;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};
use store::model::Model;

/// When the simulated world begins, milliseconds since 1970.
pub(crate) const UNIX_BASE_MS: u64 = 1_800_000_000_000;

/// Events after which a run is taken to be going round in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// How to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Instead of the one the seed draws.
    pub scenario: Option<Scenario>,
    /// Break it on purpose.
    pub broken: Option<Break>,
    /// Whether clients publish and block: as the seed draws it, or not at all (seeds that found something before they did are
    /// what they were).
    pub plain: bool,
    /// Keep the last lines of what happened.
    pub keep: bool,
    /// Print every line.
    pub print: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: Scenario,
    /// What was wrong, the first first.
    pub failures: Vec<String>,
    /// Hash of everything that happened.
    pub hash: u64,
    /// The last lines, if kept.
    pub lines: Vec<String>,
    /// Messages sent.
    pub messages: usize,
    /// Deliveries seen by clients.
    pub deliveries: usize,
    /// Events handled.
    pub events: u64,
}

/// Everything that can happen. `gen` names the run of the server it belongs to, `boot` that of a mux.
#[derive(Debug)]
pub(crate) enum Ev {
    // Threads of the server.
    ToShard {
        run: u32,
        shard: usize,
        events: Vec<Event>,
    },
    ShardTurn {
        run: u32,
        shard: usize,
    },
    ShardTick {
        run: u32,
        shard: usize,
    },
    ToWriter {
        run: u32,
        shard: usize,
        writes: Vec<imserver::event::Write>,
    },
    WriterTurn {
        run: u32,
    },
    WriterCommit {
        run: u32,
    },
    WriterAnswer {
        run: u32,
        answers: Answers,
    },
    ToLinks {
        run: u32,
        shard: usize,
        commands: Vec<LinkCommand>,
    },
    ReadRun {
        run: u32,
        shard: usize,
        tag: ReadTag,
        read: Read,
    },
    LookRun {
        run: u32,
        shard: usize,
        tag: LookTag,
        look: Look,
    },
    LinksTimer {
        run: u32,
    },
    // Links.
    LinkBytes {
        transport: usize,
        to_server: bool,
        bytes: Bytes,
    },
    LinkGone {
        transport: usize,
        at_server: bool,
    },
    MuxDial {
        mux: usize,
        boot: u32,
    },
    MuxTimer {
        mux: usize,
        boot: u32,
    },
    // Client connections.
    ToMux {
        tcp: usize,
        bytes: Bytes,
    },
    ToMuxFin {
        tcp: usize,
        reason: CloseReason,
    },
    ToClient {
        tcp: usize,
        bytes: Bytes,
        element: u64,
    },
    ToClientFin {
        tcp: usize,
    },
    Acked {
        tcp: usize,
        element: u64,
    },
    Connected {
        tcp: usize,
    },
    Act {
        client: usize,
        life: u32,
    },
    Login {
        client: usize,
        life: u32,
    },
    // The world.
    Fault(Fault),
    Regroup,
    Quiet,
    End,
}

/// What goes wrong, or is mended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    KillServer,
    /// Kills at the n-th event of a kind from now on.
    Arm {
        kind: u64,
        countdown: u64,
    },
    StartServer,
    Cut {
        mux: usize,
        silent: bool,
        for_us: u64,
    },
    Mend {
        mux: usize,
    },
    KillMux {
        mux: usize,
    },
    StartMux {
        mux: usize,
    },
    DiskFull(bool),
    DiskSlow(bool),
}

struct Due {
    at: u64,
    seq: u64,
    ev: Ev,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.seq) == (other.at, other.seq)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// See the module.
pub(crate) struct World {
    pub seed: u64,
    pub scenario: Scenario,
    pub plan: Plan,
    pub broken: Option<Break>,
    pub rng: Rng,
    pub base: Instant,
    pub now_us: u64,
    pub trace: Trace,
    queue: BinaryHeap<Due>,
    seq: u64,
    pub handled: u64,
    /// How often each kind of event happened.
    counts: [u64; 32],

    pub store: Model,
    /// With `Break::EarlyAnswer`: what has really reached the disk.
    pub synced: Option<Model>,
    pub server: Option<Server>,
    /// Number of the server's runs so far.
    pub run: u32,
    pub disk_slow: bool,
    pub armed: Option<(u64, u64)>,

    pub muxes: Vec<Mux>,
    pub transports: Vec<Transport>,
    pub tcps: Vec<Tcp>,
    pub clients: Vec<Client>,
    pub groups: Groups,
    pub blocks: Blocks,
    pub published: Published,
    pub oracle: Oracle,
    /// Faults may happen and clients act.
    pub active: bool,
    /// Everybody stays logged in.
    pub gathering: bool,
    ended: bool,
    tries: u32,
}

impl World {
    fn new(seed: u64, options: &Options) -> Self {
        let mut rng = Rng::new(seed);
        let drawn = Scenario::draw(&mut rng);
        let scenario = options.scenario.unwrap_or(drawn);
        let mut plan = scenario.plan(&mut rng);
        // A source of its own: without them a seed is what it always was.
        let mut apart = Rng::new(!seed);
        plan.pep = apart.permille(400) && !options.plain;
        plan.blocking = apart.permille(400) && !options.plain;
        let store = Model::new();
        let mut world = Self {
            seed,
            scenario,
            oracle: Oracle::new(),
            plan,
            broken: options.broken,
            rng,
            base: Instant::now(),
            now_us: 0,
            trace: Trace::new(options.keep, options.print),
            queue: BinaryHeap::new(),
            seq: 0,
            handled: 0,
            counts: [0; 32],
            store,
            synced: None,
            server: None,
            run: 0,
            disk_slow: false,
            armed: None,
            muxes: Vec::new(),
            transports: Vec::new(),
            tcps: Vec::new(),
            clients: Vec::new(),
            groups: Groups::default(),
            blocks: Blocks::default(),
            published: Published::default(),
            active: true,
            gathering: false,
            ended: false,
            tries: 0,
        };
        world.populate();
        world.schedule();
        world
    }

    pub fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us)
    }

    /// Lets something happen later.
    pub fn after(&mut self, delay_us: u64, ev: Ev) {
        self.at(self.now_us + delay_us, ev);
    }

    /// Lets something happen then.
    pub fn at(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        self.queue.push(Due {
            at: at.max(self.now_us),
            seq: self.seq,
            ev,
        });
    }

    /// Something is wrong.
    pub fn fail(&mut self, text: String) {
        self.trace
            .line(self.now_us, 0xFA11, format_args!("*** {text}"));
        self.oracle.failures.push(text);
    }

    fn populate(&mut self) {
        self.make_accounts();
        self.make_groups();
        self.add_muxes();
        self.start_server();
        for client in 0..self.clients.len() {
            let delay = self.rng.below(2_500_000);
            self.after(delay, Ev::Login { client, life: 0 });
        }
    }

    /// Draws the moments of all faults.
    fn schedule(&mut self) {
        let plan = self.plan.clone();
        let (from, to) = (500_000, plan.active_us);
        let mut kill_at = self.rng.between(from, to);
        for _ in 0..plan.kills {
            // Some come in a row, before the server has recovered from the last.
            kill_at = if self.rng.permille(350) {
                kill_at + self.rng.below(900_000)
            } else {
                self.rng.between(from, to)
            };
            let fault = if self.rng.permille(600) {
                Fault::Arm {
                    kind: self.rng.below(6),
                    countdown: self.rng.below(40),
                }
            } else {
                Fault::KillServer
            };
            self.at(kill_at.min(to), Ev::Fault(fault));
        }
        if plan.groups > 0 {
            for _ in 0..plan.regroups {
                let at = self.rng.between(from, to);
                self.at(at, Ev::Regroup);
            }
        }
        for _ in 0..plan.cuts {
            let at = self.rng.between(from, to);
            let mux = self.rng.index(2);
            let silent = self.rng.permille(250);
            let for_us = if self.rng.permille(700) {
                self.rng.between(1_000, 1_500_000)
            } else {
                self.rng.between(1_000_000, 8_000_000)
            };
            self.at(
                at,
                Ev::Fault(Fault::Cut {
                    mux,
                    silent,
                    for_us,
                }),
            );
        }
        for _ in 0..plan.mux_kills {
            let at = self.rng.between(from, to);
            let mux = self.rng.index(2);
            self.at(at, Ev::Fault(Fault::KillMux { mux }));
        }
        for _ in 0..plan.disk_full {
            let at = self.rng.between(from, to);
            let until = at + self.rng.between(10_000, 2_000_000);
            self.at(at, Ev::Fault(Fault::DiskFull(true)));
            self.at(until, Ev::Fault(Fault::DiskFull(false)));
        }
        for _ in 0..plan.disk_slow {
            let at = self.rng.between(from, to);
            let until = at + self.rng.between(100_000, 3_000_000);
            self.at(at, Ev::Fault(Fault::DiskSlow(true)));
            self.at(until, Ev::Fault(Fault::DiskSlow(false)));
        }
        self.at(plan.active_us, Ev::Quiet);
    }

    /// Until the end, or until it is clear that there is none.
    fn run_through(&mut self) {
        while let Some(due) = self.queue.pop() {
            self.now_us = due.at;
            self.handled += 1;
            let kind = kind_of(&due.ev);
            self.counts[kind as usize] += 1;
            self.trace.note(due.at ^ (kind << 48));
            self.handle(due.ev);
            if let Some((armed, countdown)) = self.armed
                && armed == kind
            {
                self.armed = countdown.checked_sub(1).map(|n| (armed, n));
                if self.armed.is_none() {
                    self.kill_server();
                }
            }
            if self.ended || self.oracle.failures.len() > 5 {
                return;
            }
            if self.handled > EVENTS_MAX {
                self.fail(format!("no quiet after {EVENTS_MAX} events"));
                return;
            }
        }
    }

    fn handle(&mut self, ev: Ev) {
        match ev {
            Ev::ToShard { run, shard, events } => self.to_shard(run, shard, events),
            Ev::ShardTurn { run, shard } => self.shard_turn(run, shard),
            Ev::ShardTick { run, shard } => self.shard_tick(run, shard),
            Ev::ToWriter { run, shard, writes } => self.to_writer(run, shard, writes),
            Ev::WriterTurn { run } => self.writer_turn(run),
            Ev::WriterCommit { run } => self.writer_commit(run),
            Ev::WriterAnswer { run, answers } => self.writer_answer(run, answers),
            Ev::ToLinks {
                run,
                shard,
                commands,
            } => self.to_links(run, shard, commands),
            Ev::ReadRun {
                run,
                shard,
                tag,
                read,
            } => self.read_run(run, shard, tag, read),
            Ev::LookRun {
                run,
                shard,
                tag,
                look,
            } => self.look_run(run, shard, tag, look),
            Ev::LinksTimer { run } => self.links_timer(run),
            Ev::LinkBytes {
                transport,
                to_server,
                bytes,
            } => self.link_bytes(transport, to_server, &bytes),
            Ev::LinkGone {
                transport,
                at_server,
            } => self.link_gone(transport, at_server),
            Ev::MuxDial { mux, boot } => self.mux_dial(mux, boot),
            Ev::MuxTimer { mux, boot } => self.mux_timer(mux, boot),
            Ev::ToMux { tcp, bytes } => self.to_mux(tcp, bytes),
            Ev::ToMuxFin { tcp, reason } => self.to_mux_fin(tcp, reason),
            Ev::ToClient {
                tcp,
                bytes,
                element,
            } => self.to_client(tcp, bytes, element),
            Ev::ToClientFin { tcp } => self.to_client_fin(tcp),
            Ev::Acked { tcp, element } => self.acked(tcp, element),
            Ev::Connected { tcp } => self.connected(tcp),
            Ev::Act { client, life } => self.act(client, life),
            Ev::Login { client, life } => self.login(client, life),
            Ev::Fault(fault) => self.fault(fault),
            Ev::Regroup => self.regroup(),
            Ev::Quiet => self.quiet(),
            Ev::End => self.end(),
        }
    }

    // ---- faults ---------------------------------------------------------------------------------------------

    fn fault(&mut self, fault: Fault) {
        let mends = matches!(
            fault,
            Fault::StartServer
                | Fault::StartMux { .. }
                | Fault::Mend { .. }
                | Fault::DiskFull(false)
                | Fault::DiskSlow(false)
        );
        if !self.active && !mends {
            return;
        }
        self.trace
            .line(self.now_us, 0xF, format_args!("fault {fault:?}"));
        match fault {
            Fault::KillServer => self.kill_server(),
            Fault::Arm { kind, countdown } => self.armed = Some((ARMED[kind as usize], countdown)),
            Fault::StartServer => self.start_server(),
            Fault::Cut {
                mux,
                silent,
                for_us,
            } => self.cut(mux, silent, for_us),
            Fault::Mend { mux } => self.mend(mux),
            Fault::KillMux { mux } => self.kill_mux(mux),
            Fault::StartMux { mux } => self.start_mux(mux),
            Fault::DiskFull(full) => {
                self.oracle.disk_failed |= full;
                self.store.set_disk_full(full);
            }
            Fault::DiskSlow(slow) => self.disk_slow = slow,
        }
    }

    /// The active part is over: all faults are healed, and everything calms down.
    fn quiet(&mut self) {
        self.trace.line(
            self.now_us,
            0x01,
            format_args!("quiet: all faults are mended"),
        );
        self.active = false;
        self.armed = None;
        self.disk_slow = false;
        self.store.set_disk_full(false);
        for mux in 0..self.muxes.len() {
            self.mend(mux);
        }
        // Vanished clients must be noticed, lost muxes given up.
        let wait = if self.oracle.vanished {
            125_000_000
        } else {
            60_000_000
        };
        let wait = wait + self.oracle.outage_us;
        self.after(wait, Ev::End);
    }

    /// The first time: presence is checked and everybody logs in. The second: everything is checked.
    fn end(&mut self) {
        if self.tries == 0 {
            self.check_presence();
        }
        if self.gathering {
            self.tries += 1;
            // A ping may be under way at any moment: what is wrong now and right a little later was not wrong.
            let growth = self.growth();
            if !growth.is_empty() && self.tries < 8 {
                self.after(1_370_000, Ev::End);
                return;
            }
            growth.into_iter().for_each(|text| self.fail(text));
            self.check_all();
            self.ended = true;
            return;
        }
        self.gathering = true;
        self.trace.line(
            self.now_us,
            0x02,
            format_args!("gathering: everybody logs in"),
        );
        self.gather();
        self.try_lists();
        self.after(33_000_000, Ev::End);
    }
}

/// Kinds of event at which a kill can be armed.
const ARMED: [u64; 6] = [2, 6, 7, 8, 12, 4];

fn kind_of(ev: &Ev) -> u64 {
    match ev {
        Ev::ToShard { .. } => 1,
        Ev::ShardTurn { .. } => 2,
        Ev::ShardTick { .. } => 3,
        Ev::ToWriter { .. } => 4,
        Ev::WriterTurn { .. } => 5,
        Ev::WriterCommit { .. } => 6,
        Ev::WriterAnswer { .. } => 7,
        Ev::ToLinks { .. } => 8,
        Ev::ReadRun { .. } => 9,
        Ev::LookRun { .. } => 10,
        Ev::LinksTimer { .. } => 11,
        Ev::LinkBytes { .. } => 12,
        Ev::LinkGone { .. } => 13,
        Ev::MuxDial { .. } => 14,
        Ev::MuxTimer { .. } => 15,
        Ev::ToMux { .. } => 16,
        Ev::ToMuxFin { .. } => 17,
        Ev::ToClient { .. } => 18,
        Ev::ToClientFin { .. } => 19,
        Ev::Acked { .. } => 20,
        Ev::Connected { .. } => 21,
        Ev::Act { .. } => 22,
        Ev::Login { .. } => 23,
        Ev::Fault(_) => 24,
        Ev::Quiet => 25,
        Ev::End => 26,
        Ev::Regroup => 27,
    }
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options);
    world.run_through();
    let counts = world.counts;
    world.trace.line(
        world.now_us,
        world.handled,
        format_args!("events by kind: {counts:?}"),
    );
    Outcome {
        seed,
        scenario: world.scenario,
        failures: std::mem::take(&mut world.oracle.failures),
        hash: world.trace.hash(),
        messages: world.oracle.messages.len(),
        deliveries: world
            .oracle
            .messages
            .iter()
            .map(|m| m.deliveries.len())
            .sum(),
        events: world.handled,
        lines: world.trace.into_lines(),
    }
}
