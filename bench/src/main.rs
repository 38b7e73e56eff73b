//! `bench`: the load generator, and the comparison of Isthmus with ejabberd and Prosody.
//!
//! The generator is one thread on core 1; the servers under test share core 0, whichever they are, so that CPU seconds
//! per message compare work and not luck with cores. Everything stays on loopback.

mod client;
mod compare;
mod directory;
mod disk;
mod fleet;
mod histogram;
mod load;
mod proc;
mod servers;
mod sys;
mod tls;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use client::{Entrance, Mechanism, Target, Transport, Way};
use compare::{What, Which};
use load::Processes;
use load::chat::{Address, Chat, Plan};
use load::login::Length;
use servers::Setup;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Load generator for XMPP servers on loopback.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Core of the generator.
    #[arg(long, global = true, default_value_t = 1)]
    core: usize,
    /// Core of servers started by us.
    #[arg(long, global = true, default_value_t = 0)]
    server_core: usize,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Log-ins per second.
    Login {
        #[command(flatten)]
        server: ServerArgs,
        /// Accounts u0, u1, ... that take turns.
        #[arg(long, default_value_t = 10_000)]
        accounts: usize,
        /// On their way at a time.
        #[arg(long, default_value_t = 64)]
        at_once: usize,
        /// Seconds.
        #[arg(long, default_value_t = 8.0)]
        seconds: f64,
        /// In which way; several are run one after another.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "rfc6120")]
        way: Vec<Way>,
    },
    /// Memory of idle sessions.
    Idle {
        #[command(flatten)]
        server: ServerArgs,
        /// Sessions.
        #[arg(long, default_value_t = 15_000)]
        sessions: usize,
        /// Contacts of each (a server started by us gets them).
        #[arg(long, default_value_t = 0)]
        contacts: usize,
    },
    /// Chat in a closed loop.
    Chat {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        chat: ChatArgs,
        /// Messages of each pair on their way; several values are run one after another.
        #[arg(long, value_delimiter = ',', default_value = "16,1")]
        outstanding: Vec<usize>,
    },
    /// Chat at fixed rates.
    Open {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        chat: ChatArgs,
        /// Messages per second; several values are run one after another.
        #[arg(long, value_delimiter = ',', default_value = "1000,20000")]
        rate: Vec<f64>,
    },
    /// How fast the disk syncs.
    Disk {
        /// A directory on it.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Log-ins and chat with accounts in an LDAP directory (slapd from Debian), and what reaches it.
    Directory {
        /// Which servers (Prosody is not set up for it).
        #[arg(long, value_delimiter = ',', default_value = "isthmus,ejabberd")]
        servers: Vec<Which>,
        /// People in the tree.
        #[arg(long, default_value_t = 10_000)]
        accounts: usize,
        /// Groups in the tree, of 20 each.
        #[arg(long, default_value_t = 500)]
        groups: usize,
        /// Log-ins on their way at a time.
        #[arg(long, default_value_t = 64)]
        at_once: usize,
        /// Pairs that chat.
        #[arg(long, default_value_t = 1_000)]
        pairs: usize,
        /// Seconds of chat.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Directory of our binaries (default: where `bench` is).
        #[arg(long)]
        bin: Option<PathBuf>,
        /// Where servers keep their files.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// Isthmus, ejabberd and Prosody under all loads; one table.
    Compare {
        /// Which servers.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "isthmus,ejabberd,prosody"
        )]
        servers: Vec<Which>,
        /// Which loads.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "chat,archive,open,login,idle,pages"
        )]
        loads: Vec<What>,
        /// Pairs that chat.
        #[arg(long, default_value_t = 1_000)]
        pairs: usize,
        /// Idle sessions.
        #[arg(long, default_value_t = 15_000)]
        sessions: usize,
        /// Seconds of each measurement.
        #[arg(long, default_value_t = 10.0)]
        seconds: f64,
        /// Messages in Isthmus's archive before the archived run.
        #[arg(long, default_value_t = 1_000_000)]
        stored: u64,
        /// Messages sent before pages of an archive are read.
        #[arg(long, default_value_t = 1_000)]
        messages: usize,
        /// Messages in the archives before that; one run each. Ten million take 10 GB of disk and some minutes.
        #[arg(long, value_delimiter = ',', default_value = "1000000")]
        pages_of: Vec<u64>,
        /// To whom messages are addressed.
        #[arg(long, value_enum, default_value_t = Address::Bare)]
        address: Address,
        /// Directory of our binaries (default: where `bench` is).
        #[arg(long)]
        bin: Option<PathBuf>,
        /// Where servers keep their files.
        #[arg(long, default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
        /// Write bench/results/COMMIT.json.
        #[arg(long)]
        save: bool,
    },
}

/// A server started by us, or one that runs.
#[derive(Args)]
struct ServerArgs {
    /// Start this one.
    #[arg(long, value_enum, conflicts_with = "address")]
    start: Option<Which>,
    /// Use one that runs: address and port on loopback.
    #[arg(long, required_unless_present = "start")]
    address: Option<SocketAddr>,
    /// Its domain; accounts u0, u1, ... with the password `bench-password` must exist.
    #[arg(long, default_value = servers::DOMAIN)]
    domain: String,
    /// Its processes, for CPU and memory.
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// How bytes travel.
    #[arg(long, value_enum, default_value_t = Transport::Plain)]
    transport: Transport,
    /// How clients log in.
    #[arg(long, value_enum, default_value_t = Mechanism::ScramSha1)]
    mechanism: Mechanism,
    /// Archive on (a server started by us).
    #[arg(long)]
    archive: bool,
    /// Messages stored before (Isthmus started by us).
    #[arg(long, default_value_t = 0)]
    stored: u64,
    /// Directory of our binaries (default: where `bench` is).
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where a server started by us keeps its files.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
}

#[derive(Args)]
struct ChatArgs {
    /// Pairs of sessions.
    #[arg(long, default_value_t = 1_000)]
    pairs: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before it.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// To whom messages are addressed.
    #[arg(long, value_enum, default_value_t = Address::Bare)]
    to: Address,
}

impl ChatArgs {
    fn plan(&self) -> Plan {
        Plan {
            pairs: self.pairs,
            warm_up_s: self.warm_up,
            seconds: self.seconds,
            address: self.to,
        }
    }
}

/// What a load runs against; a server started by us lives as long as this.
struct Ready {
    _server: Option<servers::Server>,
    name: String,
    processes: Processes,
    target: Target,
}

fn bin(given: &Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match given {
        Some(dir) => Ok(dir.clone()),
        None => Ok(std::env::current_exe()?
            .parent()
            .context("no directory")?
            .to_owned()),
    }
}

impl ServerArgs {
    fn ready(
        &self,
        accounts: usize,
        contacts: usize,
        core: usize,
        entrance: Entrance,
    ) -> anyhow::Result<Ready> {
        if let Some(which) = self.start {
            let setup = Setup {
                accounts,
                contacts,
                archive: self.archive,
                archive_in_sql: false,
                stored: self.stored,
                ldap: None,
                core,
                dir: self.dir.clone(),
            };
            let server = which.start(&setup, &bin(&self.bin)?)?;
            let processes = server.processes();
            println!(
                "{} {} in {}: {:?}",
                server.name,
                server.version,
                server.dir().display(),
                processes.0
            );
            let target = server.target(self.transport, self.mechanism, entrance)?;
            return Ok(Ready {
                name: server.name.into(),
                _server: Some(server),
                processes,
                target,
            });
        }
        let address = self.address.context("--start or --address")?;
        let target = Target {
            address,
            domain: self.domain.clone(),
            transport: self.transport,
            mechanism: self.mechanism,
            way: Way::default(),
            entrance,
            tls: tls::client_config(self.transport == Transport::Tls)?,
        };
        let processes = Processes(
            self.pids
                .iter()
                .map(|pid| (pid.to_string(), *pid))
                .collect(),
        );
        Ok(Ready {
            _server: None,
            name: address.to_string(),
            processes,
            target,
        })
    }
}

/// Loops look at the flag and return an error, and that stops the servers we started.
fn stop_on_signals() -> anyhow::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
    ])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            fleet::STOP.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    stop_on_signals()?;
    sys::raise_open_files(262_144).context("open files")?;
    sys::pin(0, cli.core).with_context(|| format!("pinning to core {}", cli.core))?;
    let core = cli.server_core;
    match cli.command {
        Command::Login {
            server,
            accounts,
            at_once,
            seconds,
            way,
        } => {
            let ready = server.ready(accounts, 0, core, Entrance::Bind)?;
            for way in way {
                let target = Target {
                    way,
                    ..ready.target.clone()
                };
                let result = load::login::run(
                    target,
                    &ready.processes,
                    accounts,
                    at_once,
                    Length::Seconds(seconds),
                )?;
                compare::print_login(&ready.name, way, &result);
            }
        }
        Command::Idle {
            server,
            sessions,
            contacts,
        } => {
            let entrance = if contacts > 0 {
                Entrance::RosterAndPresence
            } else {
                Entrance::Presence
            };
            let ready = server.ready(sessions, contacts, core, entrance)?;
            let name = format!("{:?}, {contacts} contacts", ready.target.transport);
            let result = load::idle::run(ready.target, &ready.processes, sessions, 100)?;
            compare::print_idle(&ready.name, &name, &result);
        }
        Command::Chat {
            server,
            chat,
            outstanding,
        } => {
            let ready = server.ready(chat.pairs * 2, 0, core, Entrance::Presence)?;
            let mut running = Chat::log_in(ready.target, &ready.processes, chat.plan())?;
            for outstanding in outstanding {
                let result = running.closed(outstanding)?;
                compare::print_chat(&ready.name, &format!("{outstanding} outstanding"), &result);
            }
        }
        Command::Open { server, chat, rate } => {
            let ready = server.ready(chat.pairs * 2, 0, core, Entrance::Presence)?;
            let mut running = Chat::log_in(ready.target, &ready.processes, chat.plan())?;
            for rate in rate {
                let result = running.open(rate)?;
                compare::print_chat(
                    &ready.name,
                    &format!("open loop, {rate} messages/s"),
                    &result,
                );
            }
        }
        Command::Directory {
            servers,
            accounts,
            groups,
            at_once,
            pairs,
            seconds,
            bin: given,
            dir,
        } => directory::run(&directory::Options {
            servers,
            accounts,
            groups,
            at_once,
            pairs,
            seconds,
            core,
            bin: bin(&given)?,
            dir,
        })?,
        Command::Disk { dir } => println!("{}", serde_json::to_string_pretty(&disk::run(&dir)?)?),
        Command::Compare {
            servers,
            loads,
            pairs,
            sessions,
            seconds,
            stored,
            messages,
            pages_of,
            address,
            bin: given,
            dir,
            save,
        } => {
            let options = compare::Options {
                servers,
                loads,
                pairs,
                sessions,
                seconds,
                stored,
                messages,
                pages_of,
                address,
                core,
                bin: bin(&given)?,
                dir,
            };
            let report = compare::run(&options)?;
            compare::print_table(&report);
            if save {
                let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results"))
                    .join(format!("{}.json", report.commit));
                std::fs::create_dir_all(path.parent().context("no directory")?)?;
                std::fs::write(&path, serde_json::to_string_pretty(&report)? + "\n")?;
                println!("\nwritten to {}", path.display());
            }
        }
    }
    Ok(())
}
