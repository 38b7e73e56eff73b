//! The binary `mux`: reads its configuration, starts the threads, waits for signals.
//!
//! Exit 0: stopped in good order, or `--check` found nothing. Exit 1: mistakes, printed on stderr, one a line.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use mux::Change;
use mux::config::{self, Config, files};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

mux::allocator!();

/// The multiplexor of Isthmus: holds client connections and carries them to a server over one link.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only look for mistakes.
    #[arg(long)]
    check: bool,
}

type LogHandle = reload::Handle<Targets, tracing_subscriber::Registry>;

fn main() -> ExitCode {
    let args = Args::parse();
    // Every library that asks for the default provider gets the one this process uses.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = match config::load_with_files(&args.config).map_err(lines_of) {
        Ok(config) => config,
        Err(lines) => return fail(&lines),
    };
    let uncovered = files::uncovered(&config.certificates);
    if args.check {
        for line in uncovered {
            eprintln!("warning: {}: {line}", args.config.display());
        }
        println!("{}: no mistakes", args.config.display());
        return ExitCode::SUCCESS;
    }
    let log = start_log(&config);
    for line in uncovered {
        tracing::warn!("{line}");
    }
    match run(&args.config, config, &log) {
        Ok(()) => ExitCode::SUCCESS,
        Err(lines) => fail(&lines),
    }
}

fn fail(lines: &[String]) -> ExitCode {
    for line in lines {
        eprintln!("{line}");
    }
    ExitCode::FAILURE
}

fn lines_of(mistakes: Vec<config::Mistake>) -> Vec<String> {
    mistakes.iter().map(ToString::to_string).collect()
}

fn start_log(config: &Config) -> LogHandle {
    let (filter, handle) = reload::Layer::new(targets(config));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    handle
}

fn targets(config: &Config) -> Targets {
    // Checked when the configuration was read.
    config
        .log
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO))
}

fn run(file: &Path, config: Config, log: &LogHandle) -> Result<(), Vec<String>> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])
        .map_err(|e| vec![format!("signals cannot be received: {e}")])?;
    let name = config.name.clone();
    let mut mux = mux::start(config, mux::LinkTransport::Dial).map_err(|e| e.0)?;
    tracing::info!(name, listen = ?mux.addresses(), metrics = ?mux.metrics_address(), "mux is running");
    let handle = signals.handle();
    // The signal loop below must end too when the mux ends by itself.
    mux.on_end(move || handle.close());
    for signal in signals.forever() {
        if signal != SIGHUP {
            mux.stop();
            continue;
        }
        match config::load(file).map_err(lines_of) {
            Ok(config) => {
                if let Err(error) = log.reload(targets(&config)) {
                    tracing::error!(%error, "log filter not changed");
                }
                let changes = mux.reload(config);
                if changes.is_empty() {
                    tracing::info!(change = "nothing changed", "configuration reloaded");
                }
                for change in changes {
                    match change {
                        Change::Taken(change) => tracing::info!(change, "configuration reloaded"),
                        Change::Waits(change) => {
                            tracing::warn!(
                                change,
                                "configuration reloaded, but not all of it is in force"
                            );
                        }
                    }
                }
            }
            Err(lines) => {
                for line in lines {
                    tracing::error!(mistake = line, "configuration not reloaded");
                }
            }
        }
    }
    mux.join().map_err(|e| vec![format!("the mux ended: {e}")])
}
