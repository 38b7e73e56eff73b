//! Log lines that somebody outside can multiply: the first few of a time are written, the others counted.
//!
//! In: that there is something to say, `now`. Out: whether to say it, and how much was not said before.
//! Never: keeps the lines.

use std::time::{Duration, Instant};

/// Lines written in one [`PERIOD`] of what anybody can cause: enough to see what goes on.
pub const FEW: u32 = 5;
/// Of what only holders of a certificate of ours can cause, who are few: a mux that is set up wrongly tries every five seconds.
pub const SOME: u32 = 20;
/// A reader of the log wants to know within this time that it goes on.
const PERIOD: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub struct Muffle {
    lines: u32,
    /// When the period began.
    since: Option<Instant>,
    written: u32,
    kept: u64,
}

impl Muffle {
    /// Nothing written yet; so many lines may be in a period.
    pub fn new(lines: u32) -> Self {
        Self {
            lines,
            since: None,
            written: 0,
            kept: 0,
        }
    }

    /// Whether a line is to be written. `more`: how many of the period before were not, and how many seconds that was.
    pub fn admits(&mut self, now: Instant, more: impl FnOnce(u64, u64)) -> bool {
        self.handle_timeout(now, more);
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= PERIOD {
            (self.since, self.written) = (Some(now), 0);
        }
        let admitted = self.written < self.lines;
        if admitted {
            self.written += 1;
        } else {
            self.kept += 1;
        }
        admitted
    }

    /// The same, when nothing is to be written: to be called now and then, or the last lines stay uncounted until the next comes.
    pub fn handle_timeout(&mut self, now: Instant, more: impl FnOnce(u64, u64)) {
        let Some(since) = self.since else { return };
        let time = now.saturating_duration_since(since);
        if time >= PERIOD && self.kept > 0 {
            more(self.kept, time.as_secs());
            (self.since, self.written, self.kept) = (None, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_a_count() {
        let begin = Instant::now();
        let mut muffle = Muffle::new(FEW);
        let mut said = Vec::new();
        let mut lines = 0;
        for n in 0..200 {
            let now = begin + Duration::from_secs(n);
            lines += u32::from(muffle.admits(now, |n, s| said.push((n, s))));
        }
        assert_eq!(lines, 4 * FEW);
        assert_eq!(said, [(55, 60), (55, 60), (55, 60)]);
        muffle.handle_timeout(begin + Duration::from_secs(240), |n, s| said.push((n, s)));
        assert_eq!(said.last(), Some(&(15, 60)));
        muffle.handle_timeout(begin + Duration::from_secs(999), |n, s| said.push((n, s)));
        assert_eq!(said.len(), 4);
    }

    #[test]
    fn what_is_rare_is_all_written() {
        let begin = Instant::now();
        let mut muffle = Muffle::new(FEW);
        for n in 0..100 {
            let now = begin + Duration::from_secs(n * 20);
            assert!(muffle.admits(now, |_, _| unreachable!("nothing was kept back")));
        }
    }
}
