//! A whole server put together: store, shards, workers, links, administration, metrics, and the embedded mux if there is one.
//!
//! Owns: every thread. Never: starts half: all doors are bound and all files read before the first thread runs.

use super::adhoc;
use super::admin::{Backend, Ways};
use super::admin_door::AdminDoor;
use super::clock::Clock;
use super::directories::Directories;
use super::health;
use super::links::{Ask, LinkLoop, LinkLoopConfig, Permits};
use super::lookups::StoreReader;
use super::questions::Questions;
use super::queue::{Outbox, queue};
use super::reload::Reloader;
use super::retention::{self, Retention};
use super::shards::{self, Outlets};
use super::tls;
use super::told::Told;
use super::writer::{DirectWriter, StoreWriter};
use crate::config::{self, Config, Mechanism};
use crate::event::{Event, Now, ShardId};
use crate::linkset::{Identity, Links};
use crate::notices::{Kind, Notices};
use crate::policy::Right;
use crate::registrations::Limits;
use crate::session::record::Record;
use crate::settings::{Conflict, People, Settings};
use crate::shard::{Shard, ShardConfig};
use anyhow::{Context as _, bail};
use crossbeam_channel::{Sender, bounded};
use directory::site::Site;
use proto::frame::{BootId, ListenerKind, StoreId};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use store::{Engine, sqlite};
use xmpp::negotiation::{DomainOffer, Mechanisms, Offer};
use xmpp::scram::{FakeKeys, ScramHash};

/// Threads that read the store.
const READERS: usize = 2;

/// Threads for what takes long, and nothing else: pages of archives, searches, the last items of hundreds of accounts. Log-ins must
/// not wait for those.
const SLOW_READERS: usize = 2;

/// A running server.
pub struct Server {
    name: String,
    reloader: Arc<Reloader>,
    shards: Vec<Sender<Vec<Event>>>,
    asks: Sender<Ask>,
    link_waker: Arc<mio::Waker>,
    link_thread: Option<JoinHandle<()>>,
    /// Its index and checkpoint threads, and the lock on the directory, live as long as this.
    _engine: Arc<dyn Engine>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Doors {
    link: Vec<TcpListener>,
    link_unix: Option<UnixListener>,
    admin: Vec<TcpListener>,
    admin_unix: Option<UnixListener>,
    metrics: Vec<TcpListener>,
}

/// Random bytes of the operating system.
fn os_random(out: &mut [u8]) {
    getrandom::fill(out)
        .expect("the operating system's generator does not fail once it has started");
}

impl Server {
    /// Starts everything, or says in one sentence what stands in the way.
    pub fn start(config: Config) -> anyhow::Result<Self> {
        let clock = Clock::new();
        let now = clock.now();
        check_clock(now)?;
        warn_forgotten(&config);
        make_private_dir(&config.data_dir)?;
        let engine: Arc<dyn Engine> = Arc::new(sqlite::SqliteEngine::open(&config.data_dir)?);
        let tls = config
            .link
            .tls
            .as_ref()
            .map(tls::server_config)
            .transpose()?;
        let admin_tls = config
            .link
            .tls
            .as_ref()
            .map(tls::admin_config)
            .transpose()?;
        let doors = Doors::bind(&config)?;
        let epoch = engine.next_epoch()?;
        let mut session_store = engine.session_store()?;
        let mut writer = engine.writer()?;
        let records = load_records(session_store.as_mut())?;
        let live: Vec<u64> = records.iter().map(|r| r.id.0).collect();
        writer.commit(&[store::Write::RetainSessions { sessions: live }])?;
        let fake = FakeKeys::new(engine.login_secret(), config.auth.scram_iterations);
        let notices = Arc::new(load_notices(engine.as_ref())?);
        let count = shard_count(&config);

        let mut shard_queues = Vec::new();
        let mut shard_inputs = Vec::new();
        for _ in 0..count {
            let (tx, rx) = queue::<Vec<Event>>();
            shard_queues.push(tx);
            shard_inputs.push(rx);
        }
        let to_shards = || {
            shard_queues
                .iter()
                .cloned()
                .map(Outbox::new)
                .collect::<Vec<_>>()
        };
        let (direct, direct_rx) = DirectWriter::new();
        let mut told = Told::load(&config.data_dir, config.session.mux_lost);
        let population = told.certain(Record::alive_unix_ms(&records).unwrap_or(now.unix_ms));
        let (admin_tx, admin_rx) = bounded(1_024);
        let questions = Questions::start(shard_queues.clone(), admin_rx)?;
        let way = (shard_queues.clone(), questions.clone());
        let directories = Directories::start(&config, &engine, way, direct.clone(), told)?;
        let settings = Arc::new(settings_of(&config, &fake, &directories.current()));
        let mut built = Vec::new();
        let mut notes = Vec::new();
        for id in 0..count {
            let shard_config = ShardConfig {
                id: ShardId(id),
                shards: count,
                epoch,
                settings: settings.clone(),
                notices: notices.clone(),
                population: population.clone(),
                ids: engine.position_key(),
            };
            let mut shard = Shard::new(shard_config, Box::new(os_random), now);
            notes.extend(shard.restore(now, records.clone()));
            built.push(shard);
        }
        let (link_tx, link_rx) = queue();
        let (write_tx, write_rx) = queue();
        let (read_tx, read_rx) = queue();
        let (slow_tx, slow_rx) = queue();
        let (ask_tx, ask_rx) = bounded(16);
        let (command_tx, command_rx) = bounded(adhoc::QUEUE);

        let mut boot = [0; 16];
        os_random(&mut boot);
        let links = Links::new(
            config.name.clone(),
            BootId(boot),
            StoreId(engine.store_id().0),
            count,
            config.session.mux_lost,
            notes,
        );
        let permits: Permits = Arc::new(RwLock::new(permits(&config)));
        let (link_loop, link_waker) = LinkLoop::new(LinkLoopConfig {
            tcp: doors.link,
            unix: doors.link_unix,
            tls: tls.clone(),
            permits: permits.clone(),
            links,
            commands: link_rx,
            asks: ask_rx,
            shards: to_shards(),
        })
        .context("the link loop cannot be set up")?;

        let store_writer = StoreWriter {
            writer,
            sessions: session_store,
            shards: to_shards(),
            direct: direct_rx,
        };
        spawn("store-writer", move || store_writer.run(&write_rx))?;
        for (name, threads, jobs) in [
            ("reader", READERS, &read_rx),
            ("slow-reader", SLOW_READERS, &slow_rx),
        ] {
            for n in 0..threads {
                let reader = StoreReader {
                    reader: engine.reader()?,
                    lookups: directories.lookups().clone(),
                    shards: to_shards(),
                };
                let jobs = jobs.clone();
                spawn(&format!("{name}-{n}"), move || reader.run(&jobs))?;
            }
        }
        for (n, (shard, input)) in built.into_iter().zip(shard_inputs).enumerate() {
            let outlets = Outlets {
                links: Outbox::new(link_tx.clone()),
                waker: link_waker.clone(),
                shards: to_shards(),
                writer: Outbox::new(write_tx.clone()),
                reads: Outbox::new(read_tx.clone()),
                slow_reads: Outbox::new(slow_tx.clone()),
                looks: directories.lookups().clone(),
                answers: Vec::new(),
                admin: admin_tx.clone(),
                commands: command_tx.clone(),
                written: 0,
            };
            spawn(&format!("shard-{n}"), move || {
                shards::run(ShardId(n as u16), shard, &input, outlets)
            })?;
        }
        drop(write_tx);
        let link_thread = spawn("links", move || link_loop.run())?;
        let people = retention::People {
            latest: directories.latest().clone(),
            lookups: directories.lookups().clone(),
        };
        let retention = Retention::start(&config, people, engine.reader()?, direct.clone())?;
        let ways = Ways {
            retention,
            shards: shard_queues.clone(),
            asks: ask_tx.clone(),
            waker: link_waker.clone(),
            direct,
            questions,
        };
        let backend = Backend::new(&config, &engine, ways, &directories, fake.clone(), notices)?;
        let backend = Arc::new(backend);
        adhoc::start(command_rx, shard_queues.clone(), backend.clone())?;
        AdminDoor::start(doors.admin, doors.admin_unix, admin_tls, &backend)?;
        for listener in doors.metrics {
            let source: Arc<dyn health::Source> = backend.clone();
            spawn("metrics", move || health::serve(listener, &source))?;
        }
        let name = config.name.clone();
        let embedded = config.embedded_mux.clone();
        let reloader = Arc::new(Reloader::new(
            config,
            fake,
            permits,
            shard_queues.clone(),
            directories,
            backend.clone(),
        ));
        // Nobody else sets it.
        let _ = backend.reloader.set(reloader.clone());
        if let Some(mux_config) = &embedded {
            let (asks, waker) = (ask_tx.clone(), link_waker.clone());
            reloader.embed(start_embedded(mux_config, asks, waker)?);
        }
        Ok(Self {
            name,
            reloader,
            shards: shard_queues,
            asks: ask_tx,
            link_waker,
            link_thread: Some(link_thread),
            _engine: engine,
        })
    }

    /// Reads the configuration again. What changed takes effect, or nothing does; the log says which.
    pub fn reload(&self) {
        // Mistakes are in the log.
        let _ = self.reloader.reload();
    }

    /// Stops. Clients stay with their muxes; what was accepted is on disk.
    pub fn stop(mut self) {
        self.reloader.stop();
        let _ = self.asks.send(Ask::Stop);
        let _ = self.link_waker.wake();
        if let Some(thread) = self.link_thread.take() {
            let _ = thread.join();
        }
        self.shards.clear();
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .with_context(|| format!("thread `{name}` cannot be started"))
}

pub(super) fn warn_forgotten(config: &Config) {
    // Where nobody can register, nobody has forgotten the right to.
    let meant = |right: &Right| *right == Right::Register && config.registration.is_empty();
    for right in config.policy.forgotten().filter(|right| !meant(right)) {
        tracing::warn!(
            right = right.name(),
            "no rule of the policy names this right, so nobody has it"
        );
    }
}

/// Messages and secrets are for the server's eyes only.
fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let shown = dir.display();
    std::fs::create_dir_all(dir)
        .with_context(|| format!("the data directory {shown} cannot be made"))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("the data directory {shown} cannot be kept from other users"))
}

/// Certificates, stamps and the order of an archive hang on the clock: one that stands before this program was written is wrong.
fn check_clock(now: Now) -> anyhow::Result<()> {
    /// 2026-01-01T00:00:00Z.
    const WRITTEN_MS: u64 = 1_767_225_600_000;
    if now.unix_ms < WRITTEN_MS {
        bail!("the system clock is wrong: it says a time before 2026; set it and start again");
    }
    Ok(())
}

fn load_records(store: &mut dyn store::SessionStore) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    for (id, bytes) in store.load()? {
        match Record::decode(bytes) {
            Some(record) if record.id.0 == id => records.push(record),
            _ => tracing::warn!(
                session = id,
                "a session record is not readable; its client will log in again"
            ),
        }
    }
    Ok(records)
}

fn load_notices(engine: &dyn Engine) -> anyhow::Result<Notices> {
    let mut reader = engine.reader()?;
    let mut values = Vec::new();
    for kind in Kind::ALL {
        values.push((kind, reader.site_value(kind.key())?));
    }
    let value = |kind| {
        values
            .iter()
            .find(|v| v.0 == kind)
            .and_then(|v| v.1.clone())
    };
    let (notices, damaged) = Notices::decode(value);
    for kind in damaged {
        let what = kind.key();
        tracing::warn!(what, "what is stored cannot be read; it is not said");
    }
    Ok(notices)
}

fn shard_count(config: &Config) -> u16 {
    let count = match config.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    count.clamp(1, 256) as u16
}

pub(super) fn permits(config: &Config) -> Vec<Identity> {
    config
        .muxes
        .iter()
        .map(|m| Identity {
            name: m.name.clone(),
            kinds: m.kinds.clone(),
            domains: m.domains.clone(),
            trust_client_certificates: m.trust_client_certificates,
        })
        .collect()
}

/// The mux inside this process: each transport it wants is one end of a socket pair, the link loop gets the other.
fn start_embedded(
    mux_config: &mux::config::Config,
    asks: Sender<Ask>,
    waker: Arc<mio::Waker>,
) -> anyhow::Result<mux::Mux> {
    let identity = Identity {
        name: mux_config.name.clone(),
        kinds: vec![ListenerKind::C2s, ListenerKind::Component],
        domains: None,
        trust_client_certificates: true,
    };
    let connect = move || {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let gone = |_| std::io::Error::other("the link loop has ended");
        asks.send(Ask::Embedded(ours, identity.clone()))
            .map_err(gone)?;
        waker.wake()?;
        Ok(theirs)
    };
    mux::start(
        mux_config.clone(),
        mux::LinkTransport::Connect(Box::new(connect)),
    )
    .context("the embedded mux cannot be started")
}

/// What is configured, as `xmpp` wants to know it.
fn mechanisms(configured: &[Mechanism]) -> Mechanisms {
    let mut out = Mechanisms::default();
    for mechanism in configured {
        match mechanism {
            Mechanism::External => out.external = true,
            Mechanism::Gssapi => out.gssapi = true,
            Mechanism::ScramSha512 => out.scram.push(ScramHash::Sha512),
            Mechanism::ScramSha256 => out.scram.push(ScramHash::Sha256),
            Mechanism::ScramSha1 => out.scram.push(ScramHash::Sha1),
            Mechanism::Plain => out.plain = true,
        }
    }
    out
}

/// What each domain offers: SCRAM only where every directory of its chain may have secrets for it. Else clients, which take the
/// strongest, would fail for everybody in the others; PLAIN works for all.
fn offers(config: &Config, site: &Site) -> Vec<DomainOffer> {
    let all = mechanisms(&config.auth.mechanisms);
    let captured = !config.auth.scram_capture.is_zero();
    let offer = |domain: &String| {
        let mut mechanisms = Mechanisms {
            upgrades: site.keeps_accounts(domain),
            ..all.clone()
        };
        let mut chain = site.chain(domain).iter();
        if !chain.all(|directory| directory.abilities().scram || captured) {
            mechanisms.scram.clear();
            if !mechanisms.plain {
                tracing::warn!(
                    domain,
                    "auth.mechanisms has no PLAIN, and a directory of this domain no secrets for anything else"
                );
            }
        }
        DomainOffer {
            name: domain.clone(),
            mechanisms,
        }
    };
    config.domains.iter().map(offer).collect()
}

/// What the directories of each domain can do, as far as the configuration wants it.
fn people_of(config: &Config, site: &Site) -> People {
    let l = &config.limits;
    let able = |domain: &String| {
        let able = site.abilities(domain).register;
        if !able {
            tracing::warn!(
                domain,
                "registration is on, but no directory of the domain takes new accounts"
            );
        }
        able
    };
    People {
        search_domains: config
            .domains
            .iter()
            .filter(|domain| site.abilities(domain).search)
            .cloned()
            .collect(),
        search_across: config.search.across_domains,
        search_results_max: config.search.results_max,
        register_domains: config
            .registration
            .iter()
            .filter(|domain| able(domain))
            .cloned()
            .collect(),
        register_limits: Limits {
            per_address: l.registrations_per_address_hour_max,
            total: l.registrations_hour_max,
        },
        password_bytes_min: config.auth.password_bytes_min,
    }
}

/// The core's part of the configuration.
pub(super) fn settings_of(config: &Config, fake: &FakeKeys, site: &Site) -> Settings {
    let l = &config.limits;
    let people = people_of(config, site);
    Settings {
        domains: config.domains.clone(),
        offer: Arc::new(Offer {
            domains: offers(config, site),
            plaintext: config.auth.plaintext,
            attempts_max: l.login_attempts_max,
            fake: fake.clone(),
            register: people.register_domains.clone(),
            tokens: !config.auth.token.is_zero(),
            register_requests_max: l.registration_requests_max,
        }),
        element_bytes_max_before_login: l.element_bytes_before_login_max,
        bytes_before_login_max: l.bytes_before_login_max as u64,
        element_bytes_max: l.element_bytes_max,
        element_depth_max: l.element_depth_max,
        login_timeout: std::time::Duration::from_secs(l.login_s as u64),
        element_timeout: std::time::Duration::from_secs(l.element_s as u64),
        conns_before_login_max: l.conns_before_login_max,
        login_failures_logged_max: l.login_failures_logged_minute_max,
        output_window_bytes: l.output_window_bytes,
        unacknowledged_max: l.unacknowledged_stanzas_max,
        sessions_per_account_max: l.sessions_per_user_max,
        pending_max: l.pending_messages_per_user_max as u64,
        pending_bytes_max: l.pending_bytes_max as u64,
        directed_presence_max: l.directed_presence_max,
        roster_items_max: l.roster_items_max,
        roster_bytes_max: l.roster_bytes_max,
        group_presence_max: l.group_presence_max,
        autosubscribe: config.autosubscribe.clone(),
        conflict: match config.session.conflict {
            config::Conflict::Replace => Conflict::Replace,
            config::Conflict::Refuse => Conflict::Refuse,
            config::Conflict::Rename => Conflict::Rename,
        },
        token: config.auth.token,
        token_clients_max: l.token_clients_max,
        archive_domains: config.archive_domains.clone(),
        archive_page_max: l.archive_page_max,
        archive_prefs_jids_max: l.archive_prefs_jids_max,
        ping_after: config.session.ping,
        ping_timeout: config.session.ping_answer,
        mux_lost: config.session.mux_lost,
        resume: config.session.resume,
        resume_location: config.session.resume_location.clone(),
        push_after: config.session.push_after,
        push_sender: config.session.push_sender,
        push_body: config.session.push_body,
        push_services_max: l.push_services_max,
        vcard_bytes_max: l.vcard_bytes_max,
        contacts: config.contacts.clone(),
        external_services: config.external_services.clone(),
        components: crate::settings::Components::new(config.components.clone()),
        private_element_bytes_max: l.private_element_bytes_max,
        private_bytes_max: l.private_bytes_max as u64,
        inactive_held_max: l.inactive_held_max,
        blocklist_items_max: l.blocklist_items_max,
        reports_to: config.reports_to.clone(),
        pubsub_nodes_max: l.pubsub_nodes_max,
        pubsub_items_max: l.pubsub_items_per_node_max as u64,
        pubsub_item_bytes_max: l.pubsub_item_bytes_max,
        pubsub_bytes_max: l.pubsub_bytes_max as u64,
        certificate_mapping: config.auth.certificate_mapping,
        policy: Arc::new(config.policy.clone()),
        swept: Arc::new(site.swept()),
        people,
        ..Settings::default()
    }
}

impl Doors {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        // All of them, before any is reported: ports are taken together, by another server.
        let mut wrong = Vec::new();
        let mut tcp = |addresses: &[SocketAddr], key: &str| -> Vec<TcpListener> {
            let mut open = Vec::new();
            for address in addresses {
                match TcpListener::bind(address) {
                    Ok(listener) => open.push(listener),
                    Err(e) => {
                        let why = mux::cannot_listen(*address, &e);
                        wrong.push(format!("{key}: {why}"));
                    }
                }
            }
            open
        };
        let link = tcp(&config.link.listen, "link.listen");
        let admin = tcp(&config.admin.listen, "admin.listen");
        let metrics = tcp(&config.metrics, "metrics.listen");
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\nimserver: "));
        }
        Ok(Self {
            link,
            link_unix: unix(config.link.socket.as_deref(), "link")?,
            admin,
            admin_unix: unix(config.admin.socket.as_deref(), "admin")?,
            metrics,
        })
    }
}

fn unix(path: Option<&Path>, what: &str) -> anyhow::Result<Option<UnixListener>> {
    let Some(path) = path else { return Ok(None) };
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("the directory {} cannot be made", dir.display()))?;
    }
    remove_left(path).with_context(|| format!("the {what} socket cannot be opened"))?;
    let listener = UnixListener::bind(path)
        .with_context(|| format!("the {what} socket {} cannot be opened", path.display()))?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("the {what} socket {} cannot be protected", path.display()))?;
    Ok(Some(listener))
}

/// Removes a socket that an earlier run left. Nothing else, and not one on which somebody listens.
fn remove_left(path: &Path) -> anyhow::Result<()> {
    use std::io::ErrorKind::{ConnectionRefused, NotFound};
    config::socket::usable(path).map_err(anyhow::Error::msg)?;
    // One that does not block: an answer that does not come at once is one, too.
    match mio::net::UnixStream::connect(path) {
        Err(e) if e.kind() == NotFound => Ok(()),
        Err(e) if e.kind() == ConnectionRefused => std::fs::remove_file(path)
            .with_context(|| format!("{} of an earlier run cannot be removed", path.display())),
        Err(e) => Err(e).with_context(|| format!("{} cannot be asked", path.display())),
        Ok(_) => bail!(
            "somebody answers on {}: another server listens there",
            path.display()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link.sock");
        let first = unix(Some(&path), "link").unwrap().unwrap();
        let error = format!("{:#}", unix(Some(&path), "link").unwrap_err());
        assert!(error.contains("somebody answers on"), "{error}");
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(first);
        assert!(unix(Some(&path), "link").is_ok());

        let file = dir.path().join("policy.toml");
        std::fs::write(&file, "rules").unwrap();
        let error = format!("{:#}", unix(Some(&file), "admin").unwrap_err());
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "rules");
    }
}
