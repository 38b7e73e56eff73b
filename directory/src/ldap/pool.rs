//! Connections that are kept, and which server a question goes to.
//!
//! In: questions, as closures over a connection. Out: answers, or that there is none.
//! Owns: idle connections, the health of the servers. Never: asks a server that has just failed while another is up; says more
//! than one line for one change of state; keeps a connection whose last answer was odd.
//!
//! There are two pools: connections of the service account for searching, and connections for checking passwords, whose
//! identity is whoever was checked last.

use super::config::LdapConfig;
use super::link::{Dialer, Fault, Link};
use crate::DirectoryError;
use crate::health::{Changed, Choice, Health};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An answer that takes longer counts as a failure while another server is up.
const SLOW: Duration = Duration::from_secs(2);

/// Servers tried for one question.
const ATTEMPTS_MAX: usize = 3;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The servers of a directory.
#[derive(Debug)]
pub(super) struct Servers {
    directory: String,
    dialer: Dialer,
    health: Mutex<Health>,
    operation_timeout: Duration,
}

impl Servers {
    /// # Errors
    /// The CA's certificates are of no use.
    pub(super) fn new(config: &LdapConfig) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Servers {
            directory: config.name.clone(),
            dialer: Dialer::new(config)?,
            health: Mutex::new(Health::new(config.hosts.len())),
            operation_timeout: config.operation_timeout,
        }))
    }

    pub(super) fn unavailable(&self, reason: impl Into<String>) -> DirectoryError {
        DirectoryError::Unavailable {
            directory: self.directory.clone(),
            reason: reason.into(),
        }
    }

    /// The server's name in logs.
    pub(super) fn host_name(&self, host: usize) -> String {
        self.dialer.host(host).to_string()
    }

    fn failed(&self, host: usize, began: Instant, why: &str) {
        let mut spread = [0];
        // Without random numbers all try in step; nothing worse.
        let _ = getrandom::fill(&mut spread);
        let mut health = locked(&self.health);
        let changed = health.failed(host, began, Instant::now(), why, spread[0]);
        let others = health.has_other(host);
        drop(health);
        if changed == Changed::Yes {
            let (directory, server) = (&self.directory, self.host_name(host));
            if others {
                tracing::warn!(
                    directory,
                    server,
                    reason = why,
                    "a directory server does not answer; another one is asked"
                );
            } else {
                tracing::warn!(
                    directory,
                    server,
                    reason = why,
                    "no directory server answers: who is online stays, what is cached serves, other log-ins fail for now"
                );
            }
        }
    }

    fn answered(&self, host: usize, began: Instant) {
        if locked(&self.health).answered(host, began) == Changed::Yes {
            tracing::info!(
                directory = self.directory,
                server = self.host_name(host),
                "the directory server answers again"
            );
        }
    }

    /// Tries a server in a thread of its own.
    fn try_beside(self: &Arc<Self>, host: usize) {
        let servers = self.clone();
        let tried = std::thread::Builder::new()
            .name("ldap-try".into())
            .spawn(move || {
                let began = Instant::now();
                match servers.dialer.dial(host, true) {
                    Ok(_) => servers.answered(host, began),
                    Err(fault) => servers.failed(host, began, fault.why()),
                }
            });
        if let Err(error) = tried {
            self.failed(host, Instant::now(), &error.to_string());
        }
    }
}

/// How a question is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// Asking twice is as good as asking once.
    Again,
    /// The same, and it may take long.
    AgainLong,
    /// Once, whatever comes of it.
    Once,
}

/// One of the two pools.
#[derive(Debug)]
pub(super) struct Pool {
    servers: Arc<Servers>,
    service: bool,
    idle: Mutex<Vec<Link>>,
    free: Mutex<usize>,
    freed: Condvar,
}

/// The right to have a connection.
struct Permit<'p>(&'p Pool);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *locked(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

impl Pool {
    /// At most `max` connections, bound as the service account if `service`.
    pub(super) fn new(servers: Arc<Servers>, service: bool, max: usize) -> Self {
        Pool {
            servers,
            service,
            idle: Mutex::new(Vec::new()),
            free: Mutex::new(max),
            freed: Condvar::new(),
        }
    }

    fn permit(&self) -> Result<Permit<'_>, DirectoryError> {
        let patience = self.servers.operation_timeout;
        let free = locked(&self.free);
        let (mut free, timeout) = self
            .freed
            .wait_timeout_while(free, patience, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && *free == 0 {
            return Err(self.servers.unavailable("all connections to it are busy"));
        }
        *free -= 1;
        Ok(Permit(self))
    }

    fn idle(&self, host: usize) -> Option<Link> {
        let mut idle = locked(&self.idle);
        while let Some(at) = idle.iter().rposition(|link| link.host == host) {
            let link = idle.swap_remove(at);
            if link.is_good() {
                return Some(link);
            }
        }
        None
    }

    /// Asks. The second of the answer is which server has answered.
    ///
    /// # Errors
    /// No server has answered, or one has said no.
    pub(super) fn ask<T>(
        &self,
        manner: Manner,
        mut question: impl FnMut(&mut Link) -> Result<T, Fault>,
    ) -> Result<(T, usize), DirectoryError> {
        let asked = Instant::now();
        let _permit = self.permit()?;
        let servers = &self.servers;
        let mut tried: Vec<usize> = Vec::new();
        let mut last: Option<String> = None;
        let mut stale = false;
        for _ in 0..ATTEMPTS_MAX {
            if last.is_some() && asked.elapsed() >= servers.operation_timeout * 2 {
                break;
            }
            let began = Instant::now();
            let (choice, beside) = {
                let mut health = locked(&servers.health);
                let choice = health.choose(began, &tried);
                let beside = match choice {
                    Choice::Use(host) => health.claim_due(began, host),
                    _ => None,
                };
                (choice, beside)
            };
            if let Some(host) = beside {
                servers.try_beside(host);
            }
            let host = match choice {
                Choice::Use(host) | Choice::Try(host) => host,
                Choice::None(why) => {
                    last.get_or_insert(why);
                    break;
                }
            };
            let kept = self.idle(host);
            let reused = kept.is_some();
            let link = match kept {
                Some(link) => Ok(link),
                None => servers.dialer.dial(host, self.service),
            };
            let mut link = match link {
                Ok(link) => link,
                Err(fault) => {
                    servers.failed(host, began, fault.why());
                    last = Some(self.told(host, &fault));
                    tried.push(host);
                    continue;
                }
            };
            match question(&mut link) {
                Ok(answer) => {
                    let slow = manner != Manner::AgainLong && began.elapsed() > SLOW;
                    if slow && locked(&servers.health).has_other(host) {
                        servers.failed(
                            host,
                            began,
                            &format!("it took {} s to answer", began.elapsed().as_secs_f32()),
                        );
                    } else {
                        servers.answered(host, began);
                    }
                    locked(&self.idle).push(link);
                    return Ok((answer, host));
                }
                Err(fault @ Fault::Broken { late, .. }) => {
                    drop(link);
                    last = Some(self.told(host, &fault));
                    // A kept connection that has died says nothing of the server: once more, on a new one.
                    if reused && !late && !stale {
                        stale = true;
                        locked(&self.idle).retain(|link| link.host != host);
                        if manner == Manner::Once {
                            break;
                        }
                        continue;
                    }
                    servers.failed(host, began, fault.why());
                    tried.push(host);
                }
                Err(fault) => {
                    last = Some(self.told(host, &fault));
                    if !fault.is_of_the_server() {
                        servers.answered(host, began);
                        locked(&self.idle).push(link);
                        break;
                    }
                    servers.failed(host, began, fault.why());
                    tried.push(host);
                }
            }
            if manner == Manner::Once {
                break;
            }
        }
        let reason = last.unwrap_or_else(|| "it has no servers".to_owned());
        Err(servers.unavailable(reason))
    }

    fn told(&self, host: usize, fault: &Fault) -> String {
        format!("{}: {}", self.servers.host_name(host), fault.why())
    }

    /// Ends the connections that nobody uses.
    pub(super) fn clear(&self) {
        locked(&self.idle).clear();
    }
}
