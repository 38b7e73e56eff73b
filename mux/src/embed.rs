//! A mux as threads: what the binary runs, and what `imserver` runs inside itself.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = mux::config::load(std::path::Path::new("mux.toml")).map_err(|m| m[0].to_string())?;
//! let mux = mux::start(config, mux::LinkTransport::Dial)?;
//! println!("{:?}", mux.addresses());
//! mux.stop();
//! mux.join()?;
//! # Ok(()) }
//! ```
//!
//! In: a checked configuration, where the link comes from. Out: a handle. Owns: the threads.
//! Never: exits the process, or installs signal handlers or a log subscriber.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use mio::{Poll, Waker};

use crate::config::{CertificateConfig, Config, TlsConfig};
use crate::conns::Shared;
use crate::hub::{Command, Hub, Start, WAKER};
use crate::link::LinkTransport;
use crate::listen::{Listeners, cannot_listen};
use crate::metrics::{self, HttpListener, Metrics};
use crate::tls::certs::Loader;

/// Commands waiting; each is a reload or the stop.
const COMMANDS: usize = 16;

/// Why a mux did not start: every reason found, one sentence each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct StartError(pub Vec<String>);

/// One thing that a reload has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is in force.
    Taken(String),
    /// It waits for a restart.
    Waits(String),
}

impl Change {
    /// In words.
    pub fn text(&self) -> &str {
        match self {
            Self::Taken(text) | Self::Waits(text) => text,
        }
    }
}

/// A running mux.
#[derive(Debug)]
pub struct Mux {
    addresses: Vec<SocketAddr>,
    commands: Sender<Command>,
    certs: Sender<CertCommand>,
    waker: Arc<Waker>,
    metrics: Arc<Metrics>,
    http: Option<HttpListener>,
    hub: JoinHandle<io::Result<()>>,
    watch: JoinHandle<()>,
    ends: Arc<Mutex<Ends>>,
    config: Config,
}

/// What is to be called at the end.
enum Ends {
    Running(Vec<Box<dyn FnOnce() + Send>>),
    Ended,
}

impl std::fmt::Debug for Ends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ends")
    }
}

/// Calls them when the link's thread ends, also by a panic.
struct AtEnd(Arc<Mutex<Ends>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ends::Running(calls) = std::mem::replace(&mut *ends, Ends::Ended) {
            drop(ends);
            for call in calls {
                call();
            }
        }
    }
}

#[derive(Debug)]
enum CertCommand {
    /// Look now, with these entries.
    Look(Vec<CertificateConfig>, TlsConfig),
}

/// Starts the threads. Listening sockets are bound when it returns; clients are let in once the link is up.
pub fn start(config: Config, transport: LinkTransport) -> Result<Mux, StartError> {
    let mut wrong = Vec::new();
    let shared = Arc::new(Shared::default());
    let mut loader = Loader::default();
    wrong.extend(
        loader
            .refresh(&shared.certs, &config.certificates, &config.tls)
            .bad,
    );
    if matches!(transport, LinkTransport::Dial) {
        for server in &config.servers {
            if let Some(files) = &server.tls
                && let Err(why) = crate::tls::link::client_config(files)
            {
                wrong.push(why);
            }
        }
    }
    let listeners = Listeners::bind(&config.listeners, &config.tcp)
        .map_err(|why| wrong.extend(why))
        .ok();
    let http = config.metrics.and_then(|address| {
        HttpListener::start(address, shared.metrics.clone())
            .map_err(|error| wrong.push(cannot_listen(address, &error)))
            .ok()
    });
    let (Some(listeners), true) = (listeners, wrong.is_empty()) else {
        return Err(StartError(wrong));
    };
    match crate::sys::raise_open_files() {
        Ok(files) if files < config.limits.conns_max as u64 + 64 => tracing::info!(
            files,
            conns_max = config.limits.conns_max,
            "fewer file descriptors than limits.conns_max: the excess will be refused"
        ),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit of open files is not known"),
    }
    run_threads(config, transport, shared, loader, listeners, http)
        .map_err(|error| StartError(vec![format!("threads cannot be started: {error}")]))
}

fn run_threads(
    config: Config,
    transport: LinkTransport,
    shared: Arc<Shared>,
    loader: Loader,
    listeners: Listeners,
    http: Option<HttpListener>,
) -> io::Result<Mux> {
    let addresses = listeners.addresses();
    shared.set_websocket(config.websocket.clone());
    let metrics = shared.metrics.clone();
    set_expiry(&metrics, &loader);
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
    let (commands, received) = bounded(COMMANDS);
    let start = Start {
        config: config.clone(),
        transport,
        shared: shared.clone(),
        listeners,
        poll,
        waker: waker.clone(),
        commands: received,
    };
    let hub = Hub::new(Instant::now(), start)?;
    let ends = Arc::new(Mutex::new(Ends::Running(Vec::new())));
    let at_end = AtEnd(ends.clone());
    let hub = std::thread::Builder::new()
        .name("mux-link".into())
        .spawn(move || {
            let _at_end = at_end;
            hub.run()
        })?;
    let (certs, orders) = bounded(COMMANDS);
    let (wanted, tls) = (config.certificates.clone(), config.tls.clone());
    let watch = std::thread::Builder::new()
        .name("mux-certs".into())
        .spawn(move || watch_certificates(loader, &shared, wanted, tls, &orders))?;
    Ok(Mux {
        addresses,
        commands,
        certs,
        waker,
        metrics,
        http,
        hub,
        watch,
        ends,
        config,
    })
}

/// Files are read on a thread of their own: a slow disk stops no client.
fn watch_certificates(
    mut loader: Loader,
    shared: &Shared,
    mut wanted: Vec<CertificateConfig>,
    mut tls: TlsConfig,
    orders: &crossbeam_channel::Receiver<CertCommand>,
) {
    loop {
        match orders.recv_timeout(tls.watch) {
            Ok(CertCommand::Look(new, new_tls)) => (wanted, tls) = (new, new_tls),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let loaded = loader.refresh(&shared.certs, &wanted, &tls);
        for line in &loaded.taken {
            tracing::info!(certificate = line, "new certificate in use");
        }
        for line in &loaded.bad {
            tracing::error!(reason = line, "certificate not taken, the old one stays");
        }
        set_expiry(&shared.metrics, &loader);
    }
}

fn set_expiry(metrics: &Metrics, loader: &Loader) {
    let end = loader.first_expiry().map_or(0, |t| t.max(0) as u64);
    metrics::set(&metrics.certificate_not_after, end);
}

impl Mux {
    /// Where it listens, in the order of the configuration (with the ports the kernel chose).
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where metrics are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(HttpListener::address)
    }

    /// Its counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Takes a new configuration without dropping anyone. Returns what changed.
    pub fn reload(&mut self, config: Config) -> Vec<Change> {
        let old = &self.config;
        let (a, b) = (&old.limits, &config.limits);
        let taken = [
            (a != b, "limits changed"),
            (
                old.websocket != config.websocket,
                "websocket options changed for new connections",
            ),
            (
                old.tcp != config.tcp,
                "tcp options changed for new connections",
            ),
            (
                old.certificates != config.certificates || old.tls != config.tls,
                "certificates or TLS options changed",
            ),
            (old.log != config.log, "log filter changed"),
        ];
        let fixed = [
            (a.server_lost != b.server_lost, "limits.server_lost_s"),
            (
                a.unsettled_bytes_max != b.unsettled_bytes_max,
                "limits.unsettled_bytes_max",
            ),
            (old.name != config.name, "name"),
            (old.threads != config.threads, "threads"),
            (old.servers != config.servers, "server"),
            (old.listeners != config.listeners, "listener"),
            (old.metrics != config.metrics, "metrics"),
        ];
        let taken = taken.into_iter().filter(|(changed, _)| *changed);
        let fixed = fixed.into_iter().filter(|(changed, _)| *changed);
        let said = taken
            .map(|(_, what)| Change::Taken(what.to_owned()))
            .chain(
                fixed.map(|(_, key)| Change::Waits(format!("`{key}` changes only with a restart"))),
            )
            .collect();
        // A watcher that is gone, or busy with sixteen reloads, will look anyway.
        let _ = self.certs.try_send(CertCommand::Look(
            config.certificates.clone(),
            config.tls.clone(),
        ));
        self.config = config.clone();
        self.command(Command::Reload(Box::new(config)));
        said
    }

    /// Asks it to stop in good order: no new clients, the server is told, connections are closed after at most three seconds.
    pub fn stop(&self) {
        self.command(Command::Stop);
    }

    /// A way to ask for a stop from another thread.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            commands: self.commands.clone(),
            waker: self.waker.clone(),
        }
    }

    fn command(&self, command: Command) {
        // Full: sixteen commands are on their way; disconnected: it has ended.
        let _ = self.commands.try_send(command);
        let _ = self.waker.wake();
    }

    /// Calls this when the mux has ended, whoever ended it.
    pub fn on_end(&self, call: impl FnOnce() + Send + 'static) {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *ends {
            Ends::Running(calls) => calls.push(Box::new(call)),
            Ends::Ended => {
                drop(ends);
                call();
            }
        }
    }

    /// It has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.hub.is_finished()
    }

    /// Waits until it has ended.
    pub fn join(self) -> io::Result<()> {
        let Self {
            certs,
            hub,
            watch,
            http,
            ..
        } = self;
        let result = hub
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the link thread panicked")));
        drop(certs);
        drop(http);
        let _ = watch.join();
        result
    }
}

/// Asks a mux to stop, from any thread.
#[derive(Clone, Debug)]
pub struct Stopper {
    commands: Sender<Command>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// As [`Mux::stop`].
    pub fn stop(&self) {
        let _ = self.commands.try_send(Command::Stop);
        let _ = self.waker.wake();
    }
}
