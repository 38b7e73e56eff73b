//! Answers kept for a while: so that the directory is asked once, and an outage of it is not an outage of ours.
//!
//! In: questions with a way to have them answered. Out: answers, fresh or, while the directory is down, stale.
//! Owns: the answers. Never: an error as an answer; two questions under way for one key.
//!
//! ```text
//!   age:  0 ........ ttl ........................ ttl + stale
//!         fresh      asked again; if that fails,  gone
//!                    the old answer is given
//! ```
//! "There is nobody" is an answer too, kept for `negative_ttl` and never stale.

use crate::DirectoryError;
use moka::Expiry;
use moka::sync::Cache as Moka;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long answers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheConfig {
    /// An answer this old is asked for again.
    pub ttl: Duration,
    /// An answer nobody has wanted for so long is forgotten.
    pub idle: Duration,
    /// "There is nobody" is kept for so long.
    pub negative_ttl: Duration,
    /// An answer is given so long beyond its time while the directory does not answer.
    pub stale: Duration,
    /// Most answers of each kind.
    pub entries_max: u64,
    /// Passwords that were right are recognised for so long while the directory does not answer. Zero: not at all.
    pub password: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            idle: Duration::from_secs(3_600),
            negative_ttl: Duration::from_secs(30),
            stale: Duration::from_secs(86_400),
            entries_max: 100_000,
            password: Duration::ZERO,
        }
    }
}

/// How long an answer that has just come serves everybody who was waiting for it.
const FLIGHT: Duration = Duration::from_millis(250);

/// One answer and when it came.
#[derive(Clone, Debug)]
struct Kept<V> {
    answer: Option<V>,
    at: Instant,
}

struct Keep(CacheConfig);

impl<K, V> Expiry<K, Kept<V>> for Keep {
    fn expire_after_create(&self, _: &K, kept: &Kept<V>, _: Instant) -> Option<Duration> {
        Some(match kept.answer {
            Some(_) => self.0.ttl + self.0.stale,
            None => self.0.negative_ttl,
        })
    }

    fn expire_after_update(
        &self,
        key: &K,
        kept: &Kept<V>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, kept, at)
    }
}

/// What a cache has done since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheStats {
    /// Answers kept now, about.
    pub entries: u64,
    /// Questions answered from it.
    pub hits: u64,
    /// Questions that went to the directory.
    pub misses: u64,
    /// Old answers given because the directory did not answer.
    pub stale: u64,
    /// Questions that got no answer.
    pub failures: u64,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    failures: AtomicU64,
}

/// Answers of one kind. Shared by threads.
pub struct Cache<K, V> {
    config: CacheConfig,
    kept: Moka<K, Kept<V>>,
    /// Questions under way, and for a moment their answers: whoever asks the same gets the same.
    flights: Moka<K, Kept<V>>,
    counters: Counters,
}

impl<K, V> std::fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cache")
    }
}

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Nothing is known yet.
    pub fn new(config: CacheConfig) -> Self {
        Cache {
            config,
            kept: Moka::builder()
                .max_capacity(config.entries_max)
                .time_to_idle(config.idle)
                .expire_after(Keep(config))
                .build(),
            flights: Moka::builder()
                .max_capacity(config.entries_max)
                .time_to_live(FLIGHT)
                .build(),
            counters: Counters::default(),
        }
    }

    /// A fresh answer, if there is one: never blocks.
    pub fn fresh(&self, key: &K) -> Option<Option<V>> {
        let kept = self.kept.get(key)?;
        let fresh = kept.answer.is_none() || kept.at.elapsed() < self.config.ttl;
        fresh.then(|| {
            self.counters.hits.fetch_add(1, Ordering::Relaxed);
            kept.answer
        })
    }

    /// Any answer that may still be given while the directory does not answer: never blocks.
    pub fn stale(&self, key: &K) -> Option<Option<V>> {
        let kept = self.kept.get(key)?;
        self.counters.stale.fetch_add(1, Ordering::Relaxed);
        Some(kept.answer)
    }

    /// A fresh answer, or the answer of `ask`; a stale one if that fails. One `ask` per key at a time.
    ///
    /// # Errors
    /// `ask` failed and nothing is known.
    pub fn get(
        &self,
        key: &K,
        ask: impl FnOnce() -> Result<Option<V>, DirectoryError>,
    ) -> Result<Option<V>, DirectoryError> {
        if let Some(answer) = self.fresh(key) {
            return Ok(answer);
        }
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        let flown = self.flights.try_get_with(key.clone(), || {
            let answer = ask()?;
            let kept = Kept {
                answer,
                at: Instant::now(),
            };
            self.kept.insert(key.clone(), kept.clone());
            Ok(kept)
        });
        match flown {
            Ok(kept) => Ok(kept.answer),
            Err(error) => match self.stale(key) {
                Some(answer) => Ok(answer),
                None => {
                    self.counters.failures.fetch_add(1, Ordering::Relaxed);
                    Err(Arc::unwrap_or_clone(error))
                }
            },
        }
    }

    /// An answer that came by another way.
    pub fn put(&self, key: K, answer: Option<V>) {
        self.kept.insert(
            key,
            Kept {
                answer,
                at: Instant::now(),
            },
        );
    }

    /// Forgets one answer.
    pub fn forget(&self, key: &K) {
        self.kept.invalidate(key);
        self.flights.invalidate(key);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.kept.invalidate_all();
        self.flights.invalidate_all();
    }

    /// Gives back what has run out. Call it now and then: the library does it only along with other work.
    pub fn sweep(&self) {
        self.kept.run_pending_tasks();
        self.flights.run_pending_tasks();
    }

    /// What it has done.
    pub fn stats(&self) -> CacheStats {
        let count = |n: &AtomicU64| n.load(Ordering::Relaxed);
        CacheStats {
            entries: self.kept.entry_count(),
            hits: count(&self.counters.hits),
            misses: count(&self.counters.misses),
            stale: count(&self.counters.stale),
            failures: count(&self.counters.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::Barrier;

    fn down() -> Result<Option<u32>, DirectoryError> {
        Err(DirectoryError::Unavailable {
            directory: "corp".into(),
            reason: "down".into(),
        })
    }

    fn config(ttl_ms: u64, negative_ms: u64, stale_ms: u64) -> CacheConfig {
        CacheConfig {
            ttl: Duration::from_millis(ttl_ms),
            negative_ttl: Duration::from_millis(negative_ms),
            stale: Duration::from_millis(stale_ms),
            ..CacheConfig::default()
        }
    }

    #[test]
    fn an_answer_is_asked_for_once_while_it_is_fresh() {
        let cache = Cache::<&str, u32>::new(config(60_000, 60_000, 0));
        let asked = Cell::new(0);
        for _ in 0..3 {
            let answer = cache.get(&"a", || {
                asked.set(asked.get() + 1);
                Ok(Some(7))
            });
            assert_eq!(answer, Ok(Some(7)));
            assert_eq!(cache.get(&"nobody", || Ok(None)), Ok(None));
        }
        assert_eq!(asked.get(), 1);
        assert_eq!((cache.stats().hits, cache.stats().misses), (4, 2));
        cache.forget(&"a");
        assert_eq!(cache.fresh(&"a"), None);
        assert_eq!(cache.get(&"a", || Ok(Some(8))), Ok(Some(8)));
    }

    #[test]
    fn an_outage_gives_old_answers_and_never_nobody() {
        let cache = Cache::<&str, u32>::new(config(0, 60_000, 60_000));
        assert_eq!(cache.get(&"a", down), down());
        assert_eq!(cache.get(&"a", || Ok(Some(7))), Ok(Some(7)));
        assert_eq!(cache.fresh(&"a"), None, "its time to live is over at once");
        cache.flights.invalidate_all();
        assert_eq!(cache.get(&"a", down), Ok(Some(7)));
        assert_eq!(cache.stats().stale, 1);
        assert_eq!(cache.get(&"b", down), down());
        assert_eq!(cache.stats().failures, 2);
        // Without a time of grace it is gone.
        let strict = Cache::<&str, u32>::new(config(0, 60_000, 0));
        assert_eq!(strict.get(&"a", || Ok(Some(7))), Ok(Some(7)));
        strict.flights.invalidate_all();
        assert_eq!(strict.get(&"a", down), down());
    }

    #[test]
    fn what_many_ask_at_a_time_is_asked_once() {
        let cache = Cache::<&str, u32>::new(config(60_000, 60_000, 0));
        let asked = AtomicU64::new(0);
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    let answer = cache.get(&"a", || {
                        asked.fetch_add(1, Ordering::SeqCst);
                        Ok(Some(7))
                    });
                    assert_eq!(answer, Ok(Some(7)));
                });
            }
        });
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let cache = Cache::<u32, u32>::new(CacheConfig {
            entries_max: 100,
            ..CacheConfig::default()
        });
        for n in 0..10_000 {
            assert_eq!(cache.get(&n, || Ok(Some(n))), Ok(Some(n)));
        }
        cache.sweep();
        assert!(cache.stats().entries <= 100, "{}", cache.stats().entries);
    }
}
