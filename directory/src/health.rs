//! Which server of a directory is asked: a state machine without I/O, for every kind that has several.
//!
//! In: what became of operations, the time. Out: which server to use, and what has changed.
//! Never: reads a clock; sends anybody to a server that has just failed while another one answers.
//!
//! ```text
//!          fails                    back-off is over            answers
//!   up ───────────► down (avoided) ─────────────────► tried ───────────► up
//!                     ▲                                 │ fails: back-off doubles
//!                     └─────────────────────────────────┘
//! ```
//! While another server is up, trying is somebody else's work: a thread beside. When all are down, one question at a time tries,
//! and the others are told at once that there is no answer.

use std::time::{Duration, Instant};

/// First time a server is avoided after a failure.
const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest time it is avoided. A directory that is back should be noticed within the patience of somebody logging in.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// After this the one who tries counts as lost.
const TRY_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
struct Down {
    since: Instant,
    backoff: Duration,
    retry_at: Instant,
    tried: Option<Instant>,
    why: String,
}

/// The servers of a directory, by their place in the configuration.
#[derive(Debug)]
pub(crate) struct Health {
    hosts: Vec<Option<Down>>,
}

/// Which server to ask.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// This one is up.
    Use(usize),
    /// All are down, and the caller is the one to try this one. It must say what became of it.
    Try(usize),
    /// All are down, and it is not the time to try. Why the preferred one is.
    None(String),
}

/// A server has gone from one state to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Changed {
    Yes,
    No,
}

impl Health {
    /// All are up until one is not.
    pub(crate) fn new(hosts: usize) -> Self {
        Health {
            hosts: vec![None; hosts],
        }
    }

    /// Whether this one is up.
    pub(crate) fn is_up(&self, host: usize) -> bool {
        self.hosts.get(host).is_some_and(Option::is_none)
    }

    /// Which server to ask, one of those in `not` only if there is no other.
    pub(crate) fn choose(&mut self, now: Instant, not: &[usize]) -> Choice {
        let up = |n: &usize| self.hosts[*n].is_none();
        let mut all = (0..self.hosts.len()).filter(up);
        if let Some(n) = all.find(|n| !not.contains(n)) {
            return Choice::Use(n);
        }
        let due = (0..self.hosts.len()).find(|n| !not.contains(n) && self.is_due(*n, now));
        if let Some(n) = due {
            self.begin(n, now);
            return Choice::Try(n);
        }
        let why = self.hosts.iter().flatten().map(|down| down.why.clone());
        Choice::None(
            why.into_iter()
                .next()
                .unwrap_or_else(|| "it has just failed".to_owned()),
        )
    }

    fn is_due(&self, host: usize, now: Instant) -> bool {
        self.hosts[host].as_ref().is_some_and(|down| {
            now >= down.retry_at && down.tried.is_none_or(|at| now >= at + TRY_MAX)
        })
    }

    fn begin(&mut self, host: usize, now: Instant) {
        if let Some(down) = &mut self.hosts[host] {
            down.tried = Some(now);
        }
    }

    /// A server before `used` that a thread beside should try now. Each is given out once per back-off.
    pub(crate) fn claim_due(&mut self, now: Instant, used: usize) -> Option<usize> {
        let host = (0..used.min(self.hosts.len())).find(|n| self.is_due(*n, now))?;
        self.begin(host, now);
        Some(host)
    }

    /// A server has failed an operation that began at `began`. `spread` is random and keeps many from trying in step.
    pub(crate) fn failed(
        &mut self,
        host: usize,
        began: Instant,
        now: Instant,
        why: &str,
        spread: u8,
    ) -> Changed {
        let Some(state) = self.hosts.get_mut(host) else {
            return Changed::No;
        };
        let jitter = |backoff: Duration| backoff + backoff * u32::from(spread) / 1_024;
        match state {
            // Somebody else's operation under way at the same time: no news.
            Some(down) if down.tried.is_none() || began < down.since => Changed::No,
            Some(down) => {
                down.backoff = (down.backoff * 2).min(BACKOFF_MAX);
                down.retry_at = now + jitter(down.backoff);
                down.tried = None;
                why.clone_into(&mut down.why);
                Changed::No
            }
            None => {
                *state = Some(Down {
                    since: now,
                    backoff: BACKOFF_MIN,
                    retry_at: now + jitter(BACKOFF_MIN),
                    tried: None,
                    why: why.to_owned(),
                });
                Changed::Yes
            }
        }
    }

    /// A server has answered an operation that began at `began`.
    pub(crate) fn answered(&mut self, host: usize, began: Instant) -> Changed {
        match self.hosts.get_mut(host) {
            // An answer to what was asked before it went down says nothing of now.
            Some(state @ Some(_)) if state.as_ref().is_some_and(|down| began >= down.since) => {
                *state = None;
                Changed::Yes
            }
            _ => Changed::No,
        }
    }

    /// Another server than this one is up.
    pub(crate) fn has_other(&self, host: usize) -> bool {
        (0..self.hosts.len()).any(|n| n != host && self.is_up(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_failed_server_is_avoided_and_tried_beside() {
        let t = Instant::now();
        let mut h = Health::new(2);
        assert_eq!(h.choose(t, &[]), Choice::Use(0));
        assert_eq!(h.failed(0, t, t, "refused", 0), Changed::Yes);
        assert_eq!(
            h.failed(0, t, t, "refused", 0),
            Changed::No,
            "one change, one line"
        );
        assert_eq!(h.choose(t, &[]), Choice::Use(1));
        assert_eq!(h.claim_due(t + ms(499), 1), None);
        assert_eq!(h.claim_due(t + ms(500), 1), Some(0));
        assert_eq!(h.claim_due(t + ms(600), 1), None, "one at a time");
        assert_eq!(h.choose(t + ms(600), &[]), Choice::Use(1));
        // Still down: twice the time.
        h.failed(0, t + ms(500), t + ms(600), "refused", 0);
        assert_eq!(h.claim_due(t + ms(1_500), 1), None);
        assert_eq!(h.claim_due(t + ms(1_600), 1), Some(0));
        assert_eq!(h.answered(0, t + ms(1_600)), Changed::Yes);
        assert_eq!(h.choose(t + ms(1_700), &[]), Choice::Use(0));
    }

    #[test]
    fn when_all_are_down_one_tries_and_the_others_do_not_wait() {
        let t = Instant::now();
        let mut h = Health::new(2);
        h.failed(0, t, t, "first", 0);
        h.failed(1, t, t, "second", 0);
        assert_eq!(h.choose(t, &[]), Choice::None("first".into()));
        let later = t + ms(500);
        assert_eq!(h.choose(later, &[]), Choice::Try(0));
        assert_eq!(h.choose(later, &[]), Choice::Try(1));
        assert_eq!(h.choose(later, &[]), Choice::None("first".into()));
        assert_eq!(h.answered(1, later), Changed::Yes);
        assert_eq!(h.choose(later, &[]), Choice::Use(1));
        // Whoever was to try the first is lost: somebody else does.
        assert_eq!(h.claim_due(later + TRY_MAX, 1), Some(0));
    }

    #[test]
    fn backing_off_has_an_end_and_old_answers_mean_nothing() {
        let t = Instant::now();
        let mut h = Health::new(1);
        h.failed(0, t, t + ms(100), "x", 255);
        assert_eq!(h.answered(0, t), Changed::No, "asked before it went down");
        let mut now = t;
        for _ in 0..20 {
            now += Duration::from_secs(20);
            assert_eq!(
                h.choose(now, &[]),
                Choice::Try(0),
                "never longer than 12.5 s"
            );
            h.failed(0, now, now, "x", 255);
            assert_eq!(h.choose(now, &[]), Choice::None("x".into()));
        }
        assert!(!h.has_other(0));
    }

    #[test]
    fn a_second_attempt_goes_elsewhere() {
        let t = Instant::now();
        let mut h = Health::new(2);
        assert_eq!(h.choose(t, &[0]), Choice::Use(1));
        assert!(matches!(h.choose(t, &[0, 1]), Choice::None(_)));
        assert!(h.has_other(0));
    }
}
