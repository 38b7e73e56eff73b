//! What is in force, key by key, and where it was said: `imadmin config show`.
//!
//! Never: shows a secret (a key of that name is shown as given, without its value).

use super::{Config, Conflict, Mechanism};
use crate::certificate::CertificateMapping;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// One key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    /// Its full name.
    pub key: String,
    /// As one would write it.
    pub value: String,
    /// The line of `imserver.toml`; `None`: nobody wrote it, it is the default.
    pub line: Option<usize>,
}

impl Config {
    /// Every key that was written, and the defaults of the others, in the order of their names. A key that waits for a restart
    /// is shown as it is in force.
    pub fn effective(&self) -> Vec<Effective> {
        let mut rows: BTreeMap<String, Effective> = BTreeMap::new();
        let secret = |key: &str| {
            ["password", "secret"]
                .iter()
                .any(|word| key.ends_with(word))
        };
        for (key, shown) in &self.shown {
            let value = match secret(key) {
                true => "(not shown)".to_owned(),
                false => shown.value.clone(),
            };
            let row = Effective {
                key: key.clone(),
                value,
                line: Some(shown.line),
            };
            rows.insert(key.clone(), row);
        }
        for (key, value) in self.defaults() {
            rows.entry(key.clone()).or_insert(Effective {
                key,
                value,
                line: None,
            });
        }
        rows.into_values().collect()
    }

    fn relative<'p>(&self, path: &'p Path) -> &'p Path {
        let base = self.file.parent();
        base.and_then(|base| path.strip_prefix(base).ok())
            .unwrap_or(path)
    }

    /// What is in force of the keys that may be left out, whether they were or not.
    pub(super) fn defaults(&self) -> Vec<(String, String)> {
        let none = || "none".to_owned();
        let seconds = |d: Duration| d.as_secs().to_string();
        let (auth, cache, session) = (&self.auth, &self.directory_cache, &self.session);
        let mechanisms: Vec<String> = auth
            .mechanisms
            .iter()
            .map(|m: &Mechanism| format!("{:?}", m.name()))
            .collect();
        let mapping = CertificateMapping::ALL
            .into_iter()
            .find(|(_, mapping)| *mapping == auth.certificate_mapping)
            .map_or("", |(name, _)| name);
        let conflict = match session.conflict {
            Conflict::Replace => "replace",
            Conflict::Refuse => "refuse",
            Conflict::Rename => "rename",
        };
        let rows = [
            ("link.listen", none()),
            ("link.socket", none()),
            ("link.ca", none()),
            ("link.cert", none()),
            ("link.key", none()),
            ("admin.listen", none()),
            ("admin.socket", none()),
            (
                "admin.audit_log",
                // As one would write it: relative to the file, as the other paths.
                format!("{:?}", self.relative(&self.admin.audit_log)),
            ),
            ("metrics.listen", none()),
            ("auth.plaintext", auth.plaintext.to_string()),
            ("auth.mechanisms", format!("[{}]", mechanisms.join(", "))),
            ("auth.certificate_mapping", format!("{mapping:?}")),
            ("auth.scram_iterations", auth.scram_iterations.to_string()),
            ("auth.scram_capture_s", seconds(auth.scram_capture)),
            (
                "auth.token_days",
                (auth.token.as_secs() / 86_400).to_string(),
            ),
            (
                "auth.password_bytes_min",
                auth.password_bytes_min.to_string(),
            ),
            ("search.results_max", self.search.results_max.to_string()),
            (
                "search.across_domains",
                self.search.across_domains.to_string(),
            ),
            ("directory_cache.ttl_s", seconds(cache.ttl)),
            ("directory_cache.idle_s", seconds(cache.idle)),
            (
                "directory_cache.negative_ttl_s",
                seconds(cache.negative_ttl),
            ),
            ("directory_cache.stale_s", seconds(cache.stale)),
            ("directory_cache.entries_max", cache.entries_max.to_string()),
            ("directory_cache.password_s", seconds(cache.password)),
            ("session.conflict", format!("{conflict:?}")),
            ("session.ping_s", seconds(session.ping)),
            ("session.ping_answer_s", seconds(session.ping_answer)),
            ("session.mux_lost_s", seconds(session.mux_lost)),
            ("session.resume_s", seconds(session.resume)),
            ("session.resume_location", none()),
            ("session.push_after_s", seconds(session.push_after)),
            ("session.push_sender", session.push_sender.to_string()),
            ("session.push_body", session.push_body.to_string()),
            ("archive.enabled", self.archive.to_string()),
            (
                "archive.default",
                format!("{:?}", self.archive_default.name()),
            ),
            ("archive.search", self.archive_search.to_string()),
            ("archive.days", self.archive_days_default.to_string()),
            ("shards.count", self.shards.to_string()),
            ("log.filter", format!("{:?}", self.log.filter)),
            (
                "log.format",
                format!("{:?}", if self.log.json { "json" } else { "text" }),
            ),
        ];
        let limits = self.limits.rows();
        let limits = limits
            .into_iter()
            .map(|(key, n)| (format!("limits.{key}"), n.to_string()));
        rows.into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .chain(limits)
            .collect()
    }
}
