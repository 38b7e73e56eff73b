//! The directories of a running server: made from the configuration, made anew by a reload, asked by everybody.
//!
//! Owns: the back ends, the overlay, the routes of look-ups. Never: drops a back end whose configuration is as before, because
//! its caches and connections are worth keeping.

use super::lookups::{Lookups, Routes};
use super::overlay::StoreOverlay;
use super::people::Clerk;
use super::queue::Outbox;
use super::sweeper::{Latest, Sweeper};
use super::writer::DirectWriter;
use crate::config::Config;
use crate::event::Event;
use anyhow::Context as _;
use crossbeam_channel::{Sender, bounded};
use directory::LocalDirectory;
use directory::backend::Backend;
use directory::site::Site;
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
    lookups: Lookups,
    latest: Latest,
    interval_s: Arc<AtomicU64>,
    sweep: Sender<()>,
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
        shards: Vec<Sender<Vec<Event>>>,
        writer: DirectWriter,
    ) -> anyhow::Result<Self> {
        let iterations = config.auth.scram_iterations;
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
            clerk: Clerk::new(writer),
            lookups: Lookups::default(),
            latest: Latest::default(),
            interval_s: Arc::default(),
            sweep,
        };
        directories.configure(config)?;
        let sweeper = Sweeper {
            lookups: directories.lookups.clone(),
            shards: directories.shards.clone(),
            latest: directories.latest.clone(),
            interval_s: directories.interval_s.clone(),
            wake,
            data_dir: config.data_dir.clone(),
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
        let site = Arc::new(self.site(config));
        let to_shards = || self.shards.iter().cloned().map(Outbox::new).collect();
        let routes = Routes::start(site, &config.domains, &self.engine, &self.clerk, &to_shards)?;
        self.overlay.set_capture(config.auth.scram_capture);
        self.lookups.replace(routes);
        let interval = config.directory_cache.ttl.as_secs();
        self.interval_s.store(interval, Ordering::Relaxed);
        // One that is to come anyway will do.
        let _ = self.sweep.try_send(());
        Ok(())
    }

    fn site(&self, config: &Config) -> Site {
        let chains = config.domains.iter().map(|domain| {
            let names = config.chain(domain);
            let chain = names.iter().filter_map(|name| self.backend(name)).collect();
            (domain.clone(), chain)
        });
        Site::new(chains, self.overlay.clone())
    }

    /// The back end of this name; the configuration has been checked to name no other.
    fn backend(&self, name: &str) -> Option<Arc<dyn Backend>> {
        (name == directory::local::NAME).then(|| self.local.clone())
    }
}
