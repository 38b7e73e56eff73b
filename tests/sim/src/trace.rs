//! What happened: a hash of everything (the same seed must give the same one) and, when somebody reads it, the last lines.

use std::collections::VecDeque;
use std::fmt::Arguments;

/// Lines kept for a failure.
const LINES_MAX: usize = 60;

/// See the module.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// Lines are written only for who reads them: formatting costs more than simulating.
    keep: bool,
    print: bool,
    lines: VecDeque<String>,
}

impl Trace {
    /// `keep`: the last lines are kept. `print`: each is printed at once.
    pub fn new(keep: bool, print: bool) -> Self {
        Self {
            hash: 0xCBF2_9CE4_8422_2325,
            keep,
            print,
            lines: VecDeque::new(),
        }
    }

    /// One number more in the hash.
    pub fn note(&mut self, n: u64) {
        self.hash = (self.hash ^ n)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23);
    }

    /// One line, and its numbers in the hash.
    pub fn line(&mut self, now_us: u64, what: u64, text: Arguments<'_>) {
        self.note(now_us);
        self.note(what);
        if self.keep {
            let line = format!("{:>12.6} {text}", now_us as f64 / 1e6);
            if self.print {
                println!("{line}");
            }
            if self.lines.len() >= LINES_MAX {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The last lines.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}
