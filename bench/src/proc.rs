//! What the kernel knows of the servers: CPU time and resident memory, summed over processes and their children.
//!
//! In: process ids. Out: seconds, bytes. Never: trusts a server's own word on what it costs.

use crate::sys;
use std::fs;

/// CPU seconds and memory of a set of processes at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// Seconds in user mode.
    pub user_s: f64,
    /// Seconds in the kernel on behalf of the process.
    pub system_s: f64,
    /// Resident bytes (VmRSS).
    pub rss_bytes: u64,
    /// Times a thread gave the core up by itself.
    pub voluntary_switches: u64,
}

impl Usage {
    /// User and system.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }

    /// What was used since `earlier`; memory is as now.
    pub fn since(&self, earlier: &Usage) -> Usage {
        Usage {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
            rss_bytes: self.rss_bytes,
            voluntary_switches: self
                .voluntary_switches
                .saturating_sub(earlier.voluntary_switches),
        }
    }
}

/// The processes and all their descendants.
pub fn with_descendants(roots: &[u32]) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<u32>().ok())
        else {
            continue;
        };
        if let Some(fields) = stat(pid) {
            parents.push((pid, fields.parent));
        }
    }
    let mut all = roots.to_vec();
    let mut next = 0;
    while next < all.len() {
        let of = all[next];
        let children: Vec<u32> = parents
            .iter()
            .filter(|(p, parent)| *parent == of && !all.contains(p))
            .map(|(p, _)| *p)
            .collect();
        all.extend(children);
        next += 1;
    }
    all
}

struct Stat {
    parent: u32,
    user: u64,
    system: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; what follows the last one is numbers. See proc(5).
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        user: fields.get(11)?.parse().ok()?,
        system: fields.get(12)?.parse().ok()?,
    })
}

/// Usage of one process and its descendants.
pub fn usage(root: u32) -> Usage {
    let ticks = sys::ticks_per_second();
    let mut total = Usage::default();
    for pid in with_descendants(&[root]) {
        if let Some(stat) = stat(pid) {
            total.user_s += stat.user as f64 / ticks;
            total.system_s += stat.system as f64 / ticks;
        }
        total.rss_bytes += rss(pid);
        total.voluntary_switches += switches(pid);
    }
    total
}

/// Our own, without children.
pub fn usage_self() -> Usage {
    let ticks = sys::ticks_per_second();
    let own = stat(std::process::id());
    own.map_or_else(Usage::default, |s| Usage {
        user_s: s.user as f64 / ticks,
        system_s: s.system as f64 / ticks,
        ..Usage::default()
    })
}

/// Usage of several processes, summed.
pub fn usage_of(roots: &[u32]) -> Usage {
    roots
        .iter()
        .map(|pid| usage(*pid))
        .fold(Usage::default(), |a, b| Usage {
            user_s: a.user_s + b.user_s,
            system_s: a.system_s + b.system_s,
            rss_bytes: a.rss_bytes + b.rss_bytes,
            voluntary_switches: a.voluntary_switches + b.voluntary_switches,
        })
}

fn rss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.and_then(|l| l.trim().split(' ').next())
        .and_then(|n| n.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

fn switches(pid: u32) -> u64 {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
        total += line.and_then(|l| l.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    total
}
