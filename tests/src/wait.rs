//! Waiting for a condition, with a deadline; the only place in this crate that lets time pass.

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Default patience for anything that should happen at once on a busy two-core machine.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Looks at `condition` until it yields something or `patience` is over.
pub fn until<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(POLL);
    }
}

/// Like [`until`], for conditions that only hold or not; panics with `what` when patience ends.
#[track_caller]
pub fn until_true(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    if until(patience, || condition().then_some(())).is_none() {
        panic!("after {patience:?} still not so: {what}");
    }
}
