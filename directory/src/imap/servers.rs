//! The mail servers of a directory: which one is asked, and how many at a time.
//!
//! In: credentials. Out: a verdict, or why there is none.
//! Owns: the health of the servers. Never: asks a server that has just failed while another is up; says more than one line for
//! one change of state; lets one person's odd mailbox keep everybody out.

use super::config::{ImapConfig, ServerConfig, Tls};
use super::dial::{Dialer, Outcome};
use super::dialogue::{Credentials, Dialogue, Verdict};
use crate::DirectoryError;
use crate::health::{Changed, Choice, Health};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Servers tried for one password.
const ATTEMPTS_MAX: usize = 3;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Servers {
    directory: String,
    servers: Vec<ServerConfig>,
    dialer: Dialer,
    health: Mutex<Health>,
    timeout: Duration,
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to have a connection.
struct Permit<'s>(&'s Servers);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *locked(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

impl Servers {
    /// # Errors
    /// The CA's certificates are of no use.
    pub(super) fn new(config: &ImapConfig) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Servers {
            directory: config.name.clone(),
            servers: config.servers.clone(),
            dialer: Dialer::new(config)?,
            health: Mutex::new(Health::new(config.servers.len())),
            timeout: config.timeout,
            free: Mutex::new(config.connections_max),
            freed: Condvar::new(),
        }))
    }

    fn permit(&self) -> Result<Permit<'_>, DirectoryError> {
        let free = locked(&self.free);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, self.timeout, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if *free == 0 {
            return Err(self.unavailable("all connections to it are busy"));
        }
        *free -= 1;
        Ok(Permit(self))
    }

    fn unavailable(&self, reason: impl Into<String>) -> DirectoryError {
        DirectoryError::Unavailable {
            directory: self.directory.clone(),
            reason: reason.into(),
        }
    }

    /// Asks whether a password is right: `Right`, `Wrong` or `Disabled`. The second of the answer is which server has said so.
    ///
    /// # Errors
    /// No server has answered the question.
    pub(super) fn ask(
        self: &Arc<Self>,
        credentials: &Credentials,
    ) -> Result<(Verdict, String), DirectoryError> {
        let _permit = self.permit()?;
        // A second server gets its time too; a person waits no longer than for two.
        let last_attempt = Instant::now() + self.timeout;
        let mut tried: Vec<usize> = Vec::new();
        let mut why: Option<String> = None;
        while tried.len() < ATTEMPTS_MAX {
            let began = Instant::now();
            if why.is_some() && began > last_attempt + Duration::from_millis(100) {
                break;
            }
            let Some(server) = self.choose(began, &tried, &mut why) else {
                break;
            };
            tried.push(server);
            let name = &self.servers[server];
            let dialogue = Dialogue::new(credentials.clone(), name.tls == Tls::StartTls);
            let Outcome { verdict, asked } =
                self.dialer.converse(name, dialogue, began + self.timeout);
            let reason = match verdict {
                Verdict::Right | Verdict::Wrong | Verdict::Disabled => {
                    self.answered(server, began);
                    return Ok((verdict, name.to_string()));
                }
                Verdict::Ready => "it was not asked".to_owned(),
                Verdict::NotNow(reason) => {
                    self.answered(server, began);
                    reason
                }
                Verdict::Broken(reason) => {
                    // Once it has the name, what goes wrong may be that person's mailbox. If there is no other server, avoiding
                    // this one helps nobody.
                    if !asked || locked(&self.health).has_other(server) {
                        self.failed(server, began, &reason);
                    }
                    reason
                }
            };
            why = Some(format!("{name}: {reason}"));
        }
        Err(self.unavailable(why.unwrap_or_else(|| "it has no servers".to_owned())))
    }

    fn choose(
        self: &Arc<Self>,
        now: Instant,
        tried: &[usize],
        why: &mut Option<String>,
    ) -> Option<usize> {
        let (choice, beside) = {
            let mut health = locked(&self.health);
            let choice = health.choose(now, tried);
            let beside = match choice {
                Choice::Use(server) => health.claim_due(now, server),
                _ => None,
            };
            (choice, beside)
        };
        if let Some(server) = beside {
            self.try_beside(server);
        }
        match choice {
            Choice::Use(server) | Choice::Try(server) => Some(server),
            Choice::None(reason) => {
                why.get_or_insert(reason);
                None
            }
        }
    }

    fn failed(&self, server: usize, began: Instant, why: &str) {
        let mut spread = [0];
        // Without random numbers all try in step; nothing worse.
        let _ = getrandom::fill(&mut spread);
        let mut health = locked(&self.health);
        let changed = health.failed(server, began, Instant::now(), why, spread[0]);
        let others = health.has_other(server);
        drop(health);
        if changed == Changed::Yes {
            let (directory, server) = (&self.directory, self.servers[server].to_string());
            if others {
                tracing::warn!(
                    directory,
                    server,
                    reason = why,
                    "a mail server does not answer; another one is asked"
                );
            } else {
                tracing::warn!(
                    directory,
                    server,
                    reason = why,
                    "no mail server answers: who is online stays, log-ins fail for now"
                );
            }
        }
    }

    fn answered(&self, server: usize, began: Instant) {
        if locked(&self.health).answered(server, began) == Changed::Yes {
            tracing::info!(
                directory = self.directory,
                server = self.servers[server].to_string(),
                "the mail server answers again"
            );
        }
    }

    /// Tries a server in a thread of its own, without anybody's password.
    fn try_beside(self: &Arc<Self>, server: usize) {
        let servers = self.clone();
        let tried = std::thread::Builder::new()
            .name("imap-try".into())
            .spawn(move || {
                let began = Instant::now();
                match servers.probe(server).verdict {
                    Verdict::Broken(why) => servers.failed(server, began, &why),
                    _ => servers.answered(server, began),
                }
            });
        if let Err(error) = tried {
            self.failed(server, Instant::now(), &error.to_string());
        }
    }

    fn probe(&self, server: usize) -> Outcome {
        let server = &self.servers[server];
        let dialogue = Dialogue::probe(server.tls == Tls::StartTls);
        let deadline = Instant::now() + self.timeout;
        self.dialer.converse(server, dialogue, deadline)
    }

    /// Whether each server could be asked now: for an administrator.
    pub(super) fn examine(&self) -> Vec<(String, String)> {
        let one = |server: usize| {
            let answer = match self.probe(server).verdict {
                Verdict::Broken(why) => why,
                _ => "it can be asked".to_owned(),
            };
            (self.servers[server].to_string(), answer)
        };
        (0..self.servers.len()).map(one).collect()
    }
}
