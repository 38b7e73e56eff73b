//! `imserver`: the core server. `--config FILE` runs it, `--check` only says what is wrong with the file.

use anyhow::Context as _;
use clap::Parser;
use imserver::config;
use imserver::drive::server::Server;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

mux::allocator!();

/// The Isthmus core server.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The configuration (imserver.toml).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Parse and validate, print every mistake with file and line, and exit with 0 or 1.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One provider in the whole process, before anything can ask for one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = match config::load_for_start(&arguments.config) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return ExitCode::FAILURE;
        }
    };
    let embedded = config.embedded_mux.as_ref();
    let uncovered = embedded.map(|mux| mux::config::files::uncovered(&mux.certificates));
    let uncovered = uncovered.unwrap_or_default();
    if arguments.check {
        for line in uncovered {
            eprintln!("warning: {}: {line}", arguments.config.display());
        }
        println!("{}: no mistakes", arguments.config.display());
        return ExitCode::SUCCESS;
    }
    log_to_stderr(&config.log);
    for line in uncovered {
        tracing::warn!("{line}");
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("imserver: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn log_to_stderr(log: &config::LogConfig) {
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if log.json {
        builder.json().init();
    } else {
        builder.init();
    }
}

fn run(config: config::Config) -> anyhow::Result<()> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signals cannot be received")?;
    let server = Server::start(config)?;
    tracing::info!("ready");
    for signal in &mut signals {
        match signal {
            SIGHUP => server.reload(),
            _ => {
                tracing::info!("stopping; muxes keep their clients");
                server.stop();
                return Ok(());
            }
        }
    }
    Ok(())
}
