//! `[archive]`, and what `[[domain]]` says of archives.

use super::check::number;
use super::file::File;
use super::reader::{Reader, Written};
use crate::archive::prefs::ByDefault;
use crate::settings::ArchiveDomain;

/// Whether domains that say nothing have archives.
pub(super) fn enabled(file: &File) -> bool {
    file.archive.enabled.as_ref().is_some_and(|e| e.value)
}

/// Whether archives of domains that say nothing can be searched.
pub(super) fn search(file: &File) -> bool {
    file.archive.search.as_ref().is_some_and(|s| s.value)
}

/// What is kept of people who have not said what they want.
pub(super) fn default(reader: &mut Reader, written: &Option<Written<String>>) -> ByDefault {
    let Some(written) = written else {
        return ByDefault::default();
    };
    ByDefault::of_name(&written.value).unwrap_or_else(|| {
        let names = ByDefault::ALL.map(|d| format!("{:?}", d.name())).join(", ");
        reader.wrong(&written.at, format!("must be one of {names}"));
        ByDefault::default()
    })
}

/// Domains with an archive, by their own word or by that for all.
pub(super) fn domains(
    reader: &mut Reader,
    file: &File,
    default_of_all: ByDefault,
) -> Vec<ArchiveDomain> {
    let (all, search_all) = (enabled(file), search(file));
    let mut out = Vec::new();
    for section in &file.domain {
        let default = match &section.archive_default {
            None => default_of_all,
            own => default(reader, own),
        };
        let on = section.archive.as_ref().map_or(all, |a| a.value);
        let name = section.name.as_ref();
        if let (Some(name), true) = (name.and_then(|n| crate::policy::domain(&n.value)), on) {
            let search = section.archive_search.as_ref();
            let search = search.map_or_else(|| search_all, |s| s.value);
            out.push(ArchiveDomain {
                name,
                default,
                search,
            });
        }
    }
    out
}

/// Days that archives are kept, of the domains where that is not for ever.
pub(super) fn days(reader: &mut Reader, file: &File) -> Vec<(String, u64)> {
    /// A century.
    const DAYS_MAX: usize = 36_525;
    let all = number(reader, &file.archive.days, 0, 0..=DAYS_MAX);
    let mut out = Vec::new();
    for section in &file.domain {
        let days = number(reader, &section.archive_days, all, 0..=DAYS_MAX);
        let name = section.name.as_ref();
        if let (Some(name), true) = (name.and_then(|n| crate::policy::domain(&n.value)), days > 0) {
            out.push((name, days as u64));
        }
    }
    out
}
