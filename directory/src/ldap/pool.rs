//! Connections that are kept, and a question that goes to one server after the other.
//!
//! In: questions, as closures over a connection. Out: answers, or that there is none.
//! Owns: idle connections. Never: keeps a connection whose last answer was odd.
//!
//! There are two pools: connections of the service account for searching, and connections for checking passwords, whose
//! identity is whoever was checked last.

use super::config::LdapConfig;
use super::link::{Dialer, Fault, Link};
use crate::DirectoryError;
use crate::servers::{ATTEMPTS_MAX, Permits, Servers, Words, locked};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// An answer that takes longer counts as a failure while another server is up.
const SLOW: Duration = Duration::from_secs(2);

/// Of the servers of an LDAP directory.
pub(super) static WORDS: Words = Words {
    thread: "ldap-try",
    one_fails: "a directory server does not answer, or refuses; another one is asked",
    all_fail: "no directory server answers our questions: who is online stays, what is cached serves, other log-ins fail for now",
    answers: "the directory server answers again",
};

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
    dialer: Arc<Dialer>,
    service: bool,
    /// With one server; a second one gets as much.
    patience: Duration,
    idle: Mutex<Vec<Link>>,
    permits: Permits,
}

impl Pool {
    /// Connections to these servers, bound as the service account if `service`.
    pub(super) fn new(
        servers: Arc<Servers>,
        dialer: Arc<Dialer>,
        service: bool,
        config: &LdapConfig,
    ) -> Self {
        Pool {
            servers,
            dialer,
            service,
            patience: config.operation_timeout,
            idle: Mutex::new(Vec::new()),
            permits: Permits::new(config.connections_max, config.operation_timeout),
        }
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
        let servers = &self.servers;
        let Some(_permit) = self.permits.take() else {
            return Err(servers.unavailable("all connections to it are busy"));
        };
        let mut tried: Vec<usize> = Vec::new();
        let mut last: Option<String> = None;
        let mut stale = false;
        for _ in 0..ATTEMPTS_MAX {
            if last.is_some() && asked.elapsed() >= self.patience * 2 {
                break;
            }
            let began = Instant::now();
            let dialer = self.dialer.clone();
            let probe = move |host| match dialer.dial(host, true) {
                Ok(_) => Ok(()),
                Err(fault) => Err(fault.stated()),
            };
            let host = match servers.choose(began, &tried, probe) {
                Ok(host) => host,
                Err(why) => {
                    last.get_or_insert_with(|| format!("{} {why}", servers.name(0)));
                    break;
                }
            };
            let kept = self.idle(host);
            let reused = kept.is_some();
            let link = match kept {
                Some(link) => Ok(link),
                None => self.dialer.dial(host, self.service),
            };
            let mut link = match link {
                Ok(link) => link,
                Err(fault) => {
                    servers.failed(host, began, &fault.stated());
                    last = Some(self.told(host, &fault));
                    tried.push(host);
                    continue;
                }
            };
            match question(&mut link) {
                Ok(answer) => {
                    let slow = manner != Manner::AgainLong && began.elapsed() > SLOW;
                    if slow && servers.has_other(host) {
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
                    servers.failed(host, began, &fault.stated());
                    tried.push(host);
                }
                Err(fault) => {
                    last = Some(self.told(host, &fault));
                    if !fault.is_of_the_server() {
                        servers.answered(host, began);
                        locked(&self.idle).push(link);
                        break;
                    }
                    servers.failed(host, began, &fault.stated());
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
        format!("{} {}", self.servers.name(host), fault.stated())
    }

    /// Ends the connections that nobody uses.
    pub(super) fn clear(&self) {
        locked(&self.idle).clear();
    }
}
