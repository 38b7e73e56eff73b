//! The directories of a running server: made from the configuration, made anew by a reload, asked by everybody.
//!
//! Owns: the back ends, the overlay, the routes of look-ups. Never: drops a back end whose configuration is as before, because
//! its caches and connections are worth keeping.

use super::gssapi::Gssapi;
use super::holders::Holders;
use super::known::StoreKnown;
use super::lookups::{Lookups, Routes};
use super::overlay::StoreOverlay;
use super::people::Clerk;
use super::questions::Questions;
use super::queue::Outbox;
use super::sweeper::{Latest, Sweeper};
use super::told::Told;
use super::writer::DirectWriter;
use crate::config::Config;
use crate::event::Event;
use anyhow::Context as _;
use crossbeam_channel::{Sender, bounded};
use directory::LocalDirectory;
use directory::backend::Backend;
use directory::cache::CacheConfig;
use directory::cached::Cached;
use directory::imap::{ImapConfig, ImapDirectory, Known};
use directory::ldap::LdapDirectory;
use directory::ldap::config::{LdapConfig, Tls};
use directory::site::Site;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::Engine;

/// See the module.
pub struct Directories {
    engine: Arc<dyn Engine>,
    shards: Vec<Sender<Vec<Event>>>,
    overlay: Arc<StoreOverlay>,
    local: Arc<dyn Backend>,
    clerk: Clerk,
    /// Who of mail servers' people has logged in before.
    known: Arc<dyn Known>,
    /// Directories elsewhere, each with what it was made from.
    elsewhere: Vec<Elsewhere>,
    cache: CacheConfig,
    lookups: Lookups,
    latest: Latest,
    interval_s: Arc<AtomicU64>,
    sweep: Sender<()>,
}

/// What a directory elsewhere is made from.
#[derive(Clone, PartialEq)]
enum Plan {
    Ldap(Box<LdapConfig>),
    Imap(ImapConfig),
}

impl Plan {
    fn name(&self) -> &str {
        match self {
            Plan::Ldap(config) => &config.name,
            Plan::Imap(config) => &config.name,
        }
    }

    fn ca(&self) -> Option<&Path> {
        match self {
            Plan::Ldap(config) => config.ca.as_deref(),
            Plan::Imap(config) => config.ca.as_deref(),
        }
    }
}

/// A directory elsewhere behind its cache, and what it was made from.
#[derive(Clone)]
struct Elsewhere {
    plan: Plan,
    ca: Option<Vec<u8>>,
    backend: Arc<dyn Backend>,
}

impl std::fmt::Debug for Directories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Directories")
    }
}

impl Directories {
    /// Starts the workers.
    ///
    /// # Errors
    /// The store could not be read, or a thread not be started.
    pub fn start(
        config: &Config,
        engine: &Arc<dyn Engine>,
        (shards, questions): (Vec<Sender<Vec<Event>>>, Arc<Questions>),
        writer: DirectWriter,
        told: Told,
    ) -> anyhow::Result<Self> {
        let iterations = config.auth.scram_iterations;
        let known = Arc::new(StoreKnown::new(engine.as_ref(), writer.clone())?);
        let overlay = Arc::new(StoreOverlay::new(
            engine.as_ref(),
            writer.clone(),
            iterations,
        )?);
        let local = LocalDirectory::with_iterations(engine.reader()?, iterations);
        let local: Arc<dyn Backend> = Arc::new(local.writing(Arc::new(writer.clone())));
        let (sweep, wake) = bounded(1);
        let mut directories = Self {
            engine: engine.clone(),
            shards,
            overlay,
            local,
            clerk: Clerk::new(writer.clone()),
            known,
            elsewhere: Vec::new(),
            cache: config.directory_cache,
            lookups: Lookups::default(),
            latest: Latest::beginning(told.current()),
            interval_s: Arc::default(),
            sweep,
        };
        directories.configure(config)?;
        let holders = Holders::new(
            config.data_dir.join("holders"),
            engine.reader()?,
            writer,
            directories.shards.clone(),
            directories.overlay.clone(),
        );
        let sweeper = Sweeper {
            lookups: directories.lookups.clone(),
            shards: directories.shards.clone(),
            questions,
            latest: directories.latest.clone(),
            interval_s: directories.interval_s.clone(),
            wake,
            data_dir: config.data_dir.clone(),
            told,
            holders,
        };
        std::thread::Builder::new()
            .name("sweeper".into())
            .spawn(move || sweeper.run())
            .context("thread `sweeper` cannot be started")?;
        Ok(directories)
    }

    /// Where look-ups go.
    pub fn lookups(&self) -> &Lookups {
        &self.lookups
    }

    /// The directories of each domain now.
    pub fn current(&self) -> Arc<Site> {
        self.lookups.routes().site.clone()
    }

    /// What is kept of accounts elsewhere.
    pub fn overlay(&self) -> &Arc<StoreOverlay> {
        &self.overlay
    }

    /// Everybody and every group, as the last sweep found them.
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    /// What makes the sweeper begin at once.
    pub fn sweep(&self) -> &Sender<()> {
        &self.sweep
    }

    /// Takes over a configuration. After an error the old one is in force.
    ///
    /// # Errors
    /// A reader of the store or a thread could not be had.
    pub fn configure(&mut self, config: &Config) -> anyhow::Result<()> {
        let elsewhere = self.elsewhere(config)?;
        let site = Arc::new(self.site(config, &elsewhere));
        let to_shards = || self.shards.iter().cloned().map(Outbox::new).collect();
        let gssapi = config.auth.gssapi.as_ref().and_then(Gssapi::new);
        let (domains, engine) = (&config.domains, &self.engine);
        let routes = Routes::start(site, gssapi, domains, engine, &self.clerk, &to_shards)?;
        self.overlay.set_capture(config.auth.scram_capture);
        self.lookups.replace(routes);
        let interval = config.directory_cache.ttl.as_secs();
        self.interval_s.store(interval, Ordering::Relaxed);
        // One that is to come anyway will do.
        let _ = self.sweep.try_send(());
        self.elsewhere = elsewhere;
        self.cache = config.directory_cache;
        Ok(())
    }

    /// The directories that a domain names. One that is as before is the one before.
    fn elsewhere(&self, config: &Config) -> anyhow::Result<Vec<Elsewhere>> {
        let named = |name: &str| {
            config
                .domains
                .iter()
                .any(|d| config.chain(d).contains(&name))
        };
        let ldap = config.directories.iter().cloned();
        let ldap = ldap.map(|config| Plan::Ldap(Box::new(config)));
        let imap = config.mail_directories.iter().cloned().map(Plan::Imap);
        let used = ldap.chain(imap).filter(|plan| named(plan.name()));
        used.map(|plan| {
            let ca = plan.ca().and_then(|path| std::fs::read(path).ok());
            let mut all = self.elsewhere.iter();
            let known = all.find(|old| old.plan == plan && old.ca == ca);
            if config.directory_cache == self.cache
                && let Some(known) = known
            {
                return Ok(known.clone());
            }
            let backend = self
                .make(&plan, config.directory_cache)
                .map_err(|why| anyhow::anyhow!("the directory {}: {why}", plan.name()))?;
            Ok(Elsewhere { plan, ca, backend })
        })
        .collect()
    }

    fn make(&self, plan: &Plan, cache: CacheConfig) -> Result<Arc<dyn Backend>, String> {
        Ok(match plan {
            Plan::Ldap(config) => {
                warn_open(config);
                Arc::new(Cached::new(LdapDirectory::new((**config).clone())?, cache))
            }
            Plan::Imap(config) => {
                let directory = ImapDirectory::new(config, self.known.clone())?;
                Arc::new(Cached::passwords_only(directory, cache))
            }
        })
    }

    fn site(&self, config: &Config, elsewhere: &[Elsewhere]) -> Site {
        let chains = config.domains.iter().map(|domain| {
            let names = config.chain(domain);
            let chain = names
                .iter()
                .filter_map(|name| self.backend(name, elsewhere))
                .collect();
            (domain.clone(), chain)
        });
        Site::new(chains, self.overlay.clone())
    }

    /// The back end of this name; the configuration has been checked to name no other.
    fn backend(&self, name: &str, elsewhere: &[Elsewhere]) -> Option<Arc<dyn Backend>> {
        if name == directory::local::NAME {
            return Some(self.local.clone());
        }
        let found = elsewhere.iter().find(|e| e.plan.name() == name)?;
        Some(found.backend.clone())
    }
}

/// Every password would be seen on the way to a server that is not on this host.
fn warn_open(config: &LdapConfig) {
    let here =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    for host in config
        .hosts
        .iter()
        .filter(|h| h.tls == Tls::None && !here(&h.host))
    {
        tracing::warn!(
            directory = config.name,
            server = %host,
            "passwords go to this directory server in the clear (tls = \"none\")"
        );
    }
}
