//! Latencies in buckets of constant relative width (1.6 %), like an HDR histogram: nothing is averaged away.

use serde::Serialize;

/// Buckets per power of two.
const PARTS: u64 = 64;

/// Counts of values in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// The usual points of a histogram, in milliseconds.
#[derive(Clone, Copy, Serialize, Default, Debug)]
pub struct Percentiles {
    /// Half of all values are below.
    pub p50_ms: f64,
    /// 90 %.
    pub p90_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
    /// 99.9 %.
    pub p999_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            counts: vec![0; index(u64::MAX) + 1],
            total: 0,
            max: 0,
        }
    }

    /// Counts one value.
    pub fn record(&mut self, ns: u64) {
        self.counts[index(ns)] += 1;
        self.total += 1;
        self.max = self.max.max(ns);
    }

    /// How many values were counted.
    pub fn len(&self) -> u64 {
        self.total
    }

    /// The value below which the given share of all lies, nanoseconds (upper end of its bucket).
    pub fn at(&self, share: f64) -> u64 {
        let wanted = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper(i).min(self.max);
            }
        }
        self.max
    }

    /// The usual points.
    pub fn percentiles(&self) -> Percentiles {
        let ms = |ns: u64| ns as f64 / 1e6;
        Percentiles {
            p50_ms: ms(self.at(0.5)),
            p90_ms: ms(self.at(0.9)),
            p99_ms: ms(self.at(0.99)),
            p999_ms: ms(self.at(0.999)),
            max_ms: ms(self.max),
        }
    }
}

fn index(value: u64) -> usize {
    if value < PARTS {
        return value as usize;
    }
    let shift = u64::from(63 - value.leading_zeros()) - u64::from(PARTS.trailing_zeros());
    (shift * PARTS + (value >> shift)) as usize
}

fn upper(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * PARTS {
        return index;
    }
    let shift = index / PARTS - 1;
    ((((index % PARTS + PARTS) as u128 + 1) << shift) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_within_two_percent_of_the_upper_end_of_its_bucket() {
        for value in [
            0,
            1,
            63,
            64,
            65,
            127,
            128,
            1_000,
            123_456,
            9_999_999_999,
            u64::MAX / 3,
            u64::MAX,
        ] {
            let upper = upper(index(value));
            assert!(upper >= value, "{value} {upper}");
            assert!(upper - value <= value / 60, "{value} {upper}");
        }
    }

    #[test]
    fn percentiles_of_a_line() {
        let mut histogram = Histogram::new();
        for ms in 1..=1_000_u64 {
            histogram.record(ms * 1_000_000);
        }
        let p = histogram.percentiles();
        assert!(
            (p.p50_ms - 500.0).abs() < 10.0 && (p.p99_ms - 990.0).abs() < 17.0,
            "{p:?}"
        );
        assert_eq!(p.max_ms, 1_000.0);
    }
}
