//! A new configuration for a running server: by SIGHUP, or by `imadmin config reload`.
//!
//! Owns: the configuration in force, and what of the server is made from it again.
//! Never: takes half of a configuration; runs twice at a time.

use super::admin::Backend;
use super::directories::Directories;
use super::links::Permits;
use super::server::{permits, settings_of, warn_forgotten};
use crate::config::file::Takes;
use crate::config::{self, Config, Mistakes};
use crate::event::Event;
use crossbeam_channel::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xmpp::scram::FakeKeys;

/// See the module.
pub struct Reloader {
    state: Mutex<State>,
    fake: FakeKeys,
    permits: Permits,
    shards: Vec<Sender<Vec<Event>>>,
    backend: Arc<Backend>,
}

struct State {
    config: Config,
    directories: Directories,
    embedded: Option<mux::Mux>,
}

impl Reloader {
    /// Over a server that has been started with this configuration.
    pub fn new(
        config: Config,
        fake: FakeKeys,
        permits: Permits,
        shards: Vec<Sender<Vec<Event>>>,
        directories: Directories,
        backend: Arc<Backend>,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                config,
                directories,
                embedded: None,
            }),
            fake,
            permits,
            shards,
            backend,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mux inside this process, which is started last.
    pub fn embed(&self, mux: mux::Mux) {
        self.state().embedded = Some(mux);
    }

    /// What is in force.
    pub fn config(&self) -> Config {
        self.state().config.clone()
    }

    /// Reads the configuration again. What changed takes effect and is told, line by line, or nothing does.
    ///
    /// # Errors
    /// Everything wrong with the files; they are logged too.
    pub fn reload(&self) -> Result<Vec<String>, Mistakes> {
        let mut state = self.state();
        let new = match config::load(&state.config.file) {
            Ok(new) => new,
            Err(mistakes) => {
                tracing::error!(
                    "the configuration has mistakes; the running one stays:\n{mistakes}"
                );
                return Err(mistakes);
            }
        };
        let mut said: Vec<String> = Vec::new();
        if state.config.policy != new.policy {
            said.push("the rules of the policy have changed".into());
        }
        let changes = state.config.changes(&new);
        let mut waiting = changes.iter().filter(|c| c.takes == Takes::Restart).count();
        said.extend(changes.iter().map(ToString::to_string));
        warn_forgotten(&new);
        let config = state.config.reloaded(new);
        if let Err(error) = state.directories.configure(&config) {
            tracing::error!("reload: the directories stay as they are: {error:#}");
            said.push(format!("the directories stay as they are: {error:#}"));
        }
        let site = state.directories.current();
        let settings = Arc::new(settings_of(&config, &self.fake, &site));
        if let Ok(mut permits) = self.permits.write() {
            *permits = self::permits(&config);
        }
        for shard in &self.shards {
            // A shard that does not take it now is told with the next reload; this thread is nobody's hot path, so it may wait.
            let _ = shard.send(vec![Event::Reconfigured(settings.clone())]);
        }
        if let (Some(embedded), Some(mux_config)) = (&mut state.embedded, &config.embedded_mux) {
            for change in embedded.reload(mux_config.clone()) {
                waiting += usize::from(matches!(change, mux::Change::Waits(_)));
                said.push(change.text().to_owned());
            }
        }
        self.backend.configure(&config);
        state.config = config;
        if said.is_empty() {
            tracing::info!("reload: nothing has changed");
        }
        for line in &said {
            tracing::info!("reload: {line}");
        }
        match waiting {
            0 => tracing::info!("reload: in force"),
            n if n == said.len() => {
                tracing::warn!("reload: nothing is in force yet: all of it waits for a restart");
            }
            n => tracing::warn!("reload: in force, but for {n} changes that wait for a restart"),
        }
        Ok(said)
    }

    /// Ends the mux inside this process.
    pub fn stop(&self) {
        if let Some(embedded) = self.state().embedded.take() {
            embedded.stop();
        }
    }
}
