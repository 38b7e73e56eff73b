//! The servers of a directory, for every kind that has several: which one is asked, and how many are asked at a time.
//!
//! In: what became of questions. Out: the server to ask next; lines for the administrator.
//! Owns: the health of the servers. Never: sends anybody to a server that has just failed while another is up; says more than
//! one line for one change of state.

use crate::DirectoryError;
use crate::health::{Changed, Choice, Health};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Servers tried for one question.
pub(crate) const ATTEMPTS_MAX: usize = 3;

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the administrator reads of servers of a kind.
#[derive(Debug)]
pub(crate) struct Words {
    /// The thread that tries a server again.
    pub thread: &'static str,
    /// One has failed, and another is up.
    pub one_fails: &'static str,
    /// The last one that was up has failed.
    pub all_fail: &'static str,
    /// One is up again.
    pub answers: &'static str,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Servers {
    directory: String,
    names: Vec<String>,
    words: &'static Words,
    health: Mutex<Health>,
}

impl Servers {
    /// The servers of a directory, by their names in logs, the preferred first.
    pub(crate) fn new(
        directory: &str,
        names: impl IntoIterator<Item = String>,
        words: &'static Words,
    ) -> Arc<Self> {
        let names: Vec<String> = names.into_iter().collect();
        Arc::new(Servers {
            directory: directory.to_owned(),
            health: Mutex::new(Health::new(names.len())),
            names,
            words,
        })
    }

    /// A server's name in logs.
    pub(crate) fn name(&self, server: usize) -> &str {
        &self.names[server]
    }

    /// Each server by its name in logs, and whether it is up.
    pub(crate) fn states(&self) -> Vec<(String, bool)> {
        let health = locked(&self.health);
        let names = self.names.iter().cloned().enumerate();
        names.map(|(n, name)| (name, health.is_up(n))).collect()
    }

    /// There is no answer.
    pub(crate) fn unavailable(&self, reason: impl Into<String>) -> DirectoryError {
        DirectoryError::Unavailable {
            directory: self.directory.clone(),
            reason: reason.into(),
        }
    }

    /// Another server than this one is up.
    pub(crate) fn has_other(&self, server: usize) -> bool {
        locked(&self.health).has_other(server)
    }

    /// The server to ask, none of those tried if there is another. One that may be up again is tried by `probe`, in a thread of
    /// its own, while another is asked.
    ///
    /// # Errors
    /// All are down; why the preferred one is.
    pub(crate) fn choose(
        self: &Arc<Self>,
        now: Instant,
        tried: &[usize],
        probe: impl FnOnce(usize) -> Result<(), String> + Send + 'static,
    ) -> Result<usize, String> {
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
            self.try_beside(server, probe);
        }
        match choice {
            Choice::Use(server) | Choice::Try(server) => Ok(server),
            Choice::None(why) => Err(why),
        }
    }

    fn try_beside(
        self: &Arc<Self>,
        server: usize,
        probe: impl FnOnce(usize) -> Result<(), String> + Send + 'static,
    ) {
        let servers = self.clone();
        let tried = std::thread::Builder::new()
            .name(self.words.thread.into())
            .spawn(move || {
                let began = Instant::now();
                match probe(server) {
                    Ok(()) => servers.answered(server, began),
                    Err(why) => servers.failed(server, began, &why),
                }
            });
        if let Err(error) = tried {
            self.failed(server, Instant::now(), &error.to_string());
        }
    }

    /// A server has failed a question that was begun at `began`.
    pub(crate) fn failed(&self, server: usize, began: Instant, why: &str) {
        let mut spread = [0];
        // Without random numbers all try in step; nothing worse.
        let _ = getrandom::fill(&mut spread);
        let mut health = locked(&self.health);
        let changed = health.failed(server, began, Instant::now(), why, spread[0]);
        let others = health.has_other(server);
        drop(health);
        if changed == Changed::Yes {
            let said = match others {
                true => self.words.one_fails,
                false => self.words.all_fail,
            };
            let (directory, server) = (&self.directory, self.name(server));
            tracing::warn!(directory, server, reason = why, "{said}");
        }
    }

    /// A server has answered a question that was begun at `began`.
    pub(crate) fn answered(&self, server: usize, began: Instant) {
        if locked(&self.health).answered(server, began) == Changed::Yes {
            let (directory, server) = (&self.directory, self.name(server));
            tracing::info!(directory, server, "{}", self.words.answers);
        }
    }
}

/// So many at a time; others wait, but not for ever.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
    patience: Duration,
}

/// The right to have a connection.
#[derive(Debug)]
pub(crate) struct Permit<'p>(&'p Permits);

impl Permits {
    pub(crate) fn new(max: usize, patience: Duration) -> Self {
        Permits {
            free: Mutex::new(max),
            freed: Condvar::new(),
            patience,
        }
    }

    /// `None`: all were taken all the time.
    pub(crate) fn take(&self) -> Option<Permit<'_>> {
        let free = locked(&self.free);
        let (mut free, _) = self
            .freed
            .wait_timeout_while(free, self.patience, |free| *free == 0)
            .unwrap_or_else(PoisonError::into_inner);
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *locked(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_permitted_and_nobody_waits_for_ever() {
        let permits = Permits::new(2, Duration::from_millis(20));
        let (one, _two) = (permits.take(), permits.take());
        assert!(permits.take().is_none());
        drop(one);
        assert!(permits.take().is_some());
    }

    #[test]
    fn a_server_that_is_down_is_tried_beside_while_another_answers() {
        static WORDS: Words = Words {
            thread: "try",
            one_fails: "one",
            all_fail: "all",
            answers: "again",
        };
        let servers = Servers::new("corp", ["a".to_owned(), "b".to_owned()], &WORDS);
        let t = Instant::now();
        servers.failed(0, t, "refused");
        let nobody = |_: usize| -> Result<(), String> { panic!("it is not its time") };
        assert_eq!(servers.choose(t, &[], nobody), Ok(1));
        assert!(servers.has_other(0) && !servers.has_other(1));
        let (said, heard) = std::sync::mpsc::sync_channel(1);
        let probe = move |server| {
            let _ = said.send(server);
            Err("still".to_owned())
        };
        let later = t + Duration::from_secs(60);
        assert_eq!(servers.choose(later, &[], probe), Ok(1));
        assert_eq!(heard.recv(), Ok(0));
        servers.failed(1, Instant::now(), "too");
        let all_are_down = servers.choose(Instant::now(), &[], nobody);
        assert!(all_are_down.is_err());
    }
}
