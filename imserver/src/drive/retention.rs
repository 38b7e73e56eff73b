//! Archives do not grow for ever: a thread drops what is older than its domain keeps (`archive_days`), or the policy says of its owner.
//!
//! In: how many days each domain keeps, and rules for people and groups. Out: Drop writes, a slice at a time.
//! Owns: when it was last looked, and how many rows have gone.
//! Never: drops what is still to be delivered; holds up the writer by more than a slice, or reads without a bound.

use super::lookups::Lookups;
use super::sweeper::Latest;
use super::writer::DirectWriter;
use crate::config::Config;
use crate::policy::Policy;
use crate::policy::keep::Days;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{ArchiveQuery, Reader, StoreError, Write};
use xmpp::jid::BareJid;

/// Rows dropped in one write: a few milliseconds of the writer and of the index.
const SLICE: usize = 500;

/// Rest after each write: others write in between, and a large purge is a tenth of a core.
const REST: Duration = Duration::from_millis(50);

/// A row goes at most this long after its time.
const ROUND: Duration = Duration::from_secs(3_600);

/// Owners asked for at a time.
const OWNERS: usize = 200;

const DAY_MS: u64 = 86_400_000;

/// How long what is kept.
#[derive(Debug, Default, Clone)]
struct Kept {
    domains: HashMap<String, u64>,
    policy: Arc<Policy>,
}

/// Who is in which group.
#[derive(Debug, Default, Clone)]
pub struct People {
    /// As it was found last.
    pub latest: Latest,
    /// Which directories domains have.
    pub lookups: Lookups,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Retention {
    kept: Mutex<Kept>,
    people: People,
    changed: Condvar,
    dropped: AtomicU64,
}

impl Retention {
    /// Starts the thread, which lives as long as the process.
    ///
    /// # Errors
    /// The thread could not be had.
    pub fn start(
        config: &Config,
        people: People,
        reader: Box<dyn Reader>,
        writer: DirectWriter,
    ) -> std::io::Result<Arc<Self>> {
        let retention = Arc::new(Self {
            people,
            ..Self::default()
        });
        retention.configure(config);
        let its = retention.clone();
        std::thread::Builder::new()
            .name("retention".into())
            .spawn(move || run(&its, reader, &writer))?;
        Ok(retention)
    }

    /// Other days; looked at now.
    pub fn configure(&self, config: &Config) {
        *self.lock() = Kept {
            domains: config.archive_days.iter().cloned().collect(),
            policy: Arc::new(config.policy.clone()),
        };
        self.changed.notify_all();
    }

    /// Rows dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Domains that do not keep everything for ever, and for how many days they do.
    pub fn kept(&self) -> Vec<(String, u64)> {
        let mut kept: Vec<_> = self.lock().domains.clone().into_iter().collect();
        kept.sort();
        kept
    }

    /// Rules of the policy have a say, too.
    pub fn has_rules(&self) -> bool {
        self.lock().policy.says_archive_days()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, time: Duration) {
        let _ = self.changed.wait_timeout(self.lock(), time);
    }

    /// For how many days an archive is kept. `None`: for ever, or nobody knows.
    fn days_of(&self, kept: &Kept, owner: &BareJid) -> Option<u64> {
        let membership = |group: &str| {
            let swept = self.people.lookups.routes().site.swept();
            let population = self.people.latest.population();
            population.membership(owner, group, &swept)
        };
        let days = match kept.policy.archive_days(owner, &membership) {
            Days::Says(days) => Some(days),
            Days::Silent => kept.domains.get(owner.domainpart()).copied(),
            Days::Unknown => None,
        };
        days.filter(|days| *days > 0)
    }
}

fn run(retention: &Retention, mut reader: Box<dyn Reader>, writer: &DirectWriter) {
    let mut failed = false;
    loop {
        let now_ms = super::clock::Clock::new().now().unix_ms;
        let result = round(retention, reader.as_mut(), writer, now_ms);
        if let (Err(error), false) = (&result, failed) {
            tracing::warn!(
                error,
                "old messages of archives cannot be dropped; tried again"
            );
        }
        failed = result.is_err();
        retention.wait(ROUND);
    }
}

/// Looks at every archive once.
fn round(
    retention: &Retention,
    reader: &mut dyn Reader,
    writer: &DirectWriter,
    now_ms: u64,
) -> Result<(), String> {
    let words = |e: StoreError| e.to_string();
    let mut after: Option<BareJid> = None;
    loop {
        let kept = retention.lock().clone();
        if kept.domains.is_empty() && !kept.policy.says_archive_days() {
            return Ok(());
        }
        let owners = reader
            .archive_owners(after.as_ref(), OWNERS)
            .map_err(words)?;
        for owner in &owners {
            let Some(days) = retention.days_of(&kept, owner) else {
                continue;
            };
            let end_ms = now_ms.saturating_sub(days.saturating_mul(DAY_MS));
            purge(owner, end_ms, reader, &mut |write| {
                let rows = match &write {
                    Write::Drop { positions, .. } => positions.len() as u64,
                    _ => 0,
                };
                writer.write(vec![write])?;
                retention.dropped.fetch_add(rows, Ordering::Relaxed);
                std::thread::park_timeout(REST);
                Ok(())
            })?;
        }
        match owners.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
    }
}

/// Drops what an archive has of before a time, and is delivered, the oldest first.
fn purge(
    owner: &BareJid,
    end_ms: u64,
    reader: &mut dyn Reader,
    write: &mut dyn FnMut(Write) -> Result<(), String>,
) -> Result<(), String> {
    let mut query = ArchiveQuery {
        end_ms: Some(end_ms),
        ..ArchiveQuery::new(owner.clone(), SLICE)
    };
    loop {
        // Positions are enough, but rows are what there is: as many as make a megabyte or so.
        let page = reader
            .archive_page(&query, 1 << 20)
            .map_err(|e| e.to_string())?;
        query.after = page.rows.last().map(|row| row.position);
        let old = page.rows.iter().filter(|row| !row.pending);
        let positions: Vec<u64> = old.map(|row| row.position).collect();
        if !positions.is_empty() {
            write(Write::Drop {
                owner: owner.clone(),
                positions,
            })?;
        }
        if page.complete || query.after.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::model::Model;
    use store::{Append, Engine as _};

    #[test]
    fn a_rule_comes_before_the_domain_and_zero_days_are_for_ever() {
        let text = "[[archive]]\nusers = [\"ann@x.example\"]\ndays = 0\n\
                    [[archive]]\nusers = [\"bob@x.example\", \"bob@y.example\"]\ndays = 7\n\
                    [[archive]]\ngroups = [\"none\"]\ndays = 1\n";
        let policy = Policy::parse(text, std::path::Path::new("p")).expect("no mistakes");
        let kept = Kept {
            domains: HashMap::from([("x.example".into(), 30)]),
            policy: Arc::new(policy),
        };
        let retention = Retention::default();
        for (owner, days) in [
            ("ann@x.example", None),
            ("bob@x.example", Some(7)),
            ("bob@y.example", Some(7)),
            ("tom@x.example", Some(30)),
            ("tom@y.example", None),
        ] {
            let owner = BareJid::parse(owner).expect("a JID");
            assert_eq!(retention.days_of(&kept, &owner), days, "{owner:?}");
        }
    }

    #[test]
    fn what_is_old_and_delivered_goes_and_the_rest_stays() {
        let model = Model::new();
        let (mut writer, mut reader) = (model.writer().unwrap(), model.reader().unwrap());
        let owner = BareJid::parse("a@x.example").unwrap();
        let rows: Vec<Write> = (0..1_200)
            .map(|n| {
                Write::Append(Append {
                    owner: owner.clone(),
                    peer: BareJid::parse("b@x.example").unwrap(),
                    origin: None,
                    archive: true,
                    pending: n == 7,
                    time_ms: n,
                    outgoing: false,
                    payload: "<message/>".into(),
                    text: None,
                })
            })
            .collect();
        writer.commit(&rows).unwrap();
        let mut slices = Vec::new();
        purge(&owner, 1_099, reader.as_mut(), &mut |write| {
            if let Write::Drop { positions, .. } = &write {
                slices.push(positions.len());
            }
            writer.commit(&[write]).map(drop).map_err(|e| e.to_string())
        })
        .unwrap();
        assert_eq!(slices, [499, 500, 100]);
        let left = reader
            .archive(&ArchiveQuery::new(owner.clone(), 2_000))
            .unwrap();
        let times: Vec<u64> = left.iter().map(|row| row.time_ms).collect();
        let wanted: Vec<u64> = std::iter::once(7).chain(1_100..1_200).collect();
        assert_eq!(times, wanted, "what is still to be delivered stays");
        assert_eq!(reader.archive_owners(None, 10).unwrap(), [owner]);
    }
}
