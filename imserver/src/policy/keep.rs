//! `[[archive]]` in `policy.toml`: how long messages of somebody stay in their archive, and whether that is for them to say.
//!
//! The first rule that says something of a thing (days, or what is kept) and names the user decides about that thing. While nobody
//! knows who is in a group, nothing is dropped and nothing left out because of it: that could not be undone.

use super::{Groups, Policy, Who, WrittenWho};
use crate::config::reader::{Reader, Table, Written};
use xmpp::jid::BareJid;

/// A century.
pub const DAYS_MAX: u64 = 36_525;

/// What of somebody's messages is kept, where there is an archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// Everything.
    Everything,
    /// Nothing.
    Nothing,
    /// What they want (XEP-0441).
    Wishes,
}

impl Keep {
    const ALL: [(&str, Keep); 3] = [
        ("everything", Keep::Everything),
        ("nothing", Keep::Nothing),
        ("wishes", Keep::Wishes),
    ];
}

/// For how many days somebody's messages are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Days {
    /// So many; 0: for ever.
    Says(u64),
    /// No rule says: as the domain does.
    Silent,
    /// It hangs on a group of which nothing is known.
    Unknown,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub line: usize,
    days: Option<u64>,
    keep: Option<Keep>,
    pub who: Who,
}

impl Rule {
    /// Takes a rule apart.
    pub(super) fn read(mut table: Table<'_>, reader: &mut Reader) -> Self {
        let at = table.at().clone();
        let noted = reader.count();
        let days: Option<Written<u64>> = table.value(reader, "days");
        let keep: Option<Written<String>> = table.value(reader, "keep");
        let who = WrittenWho::take(&mut table, reader);
        table.finish(reader, &[&["days", "keep"], WrittenWho::KEYS].concat());
        let whole = reader.count() == noted;
        if days.is_none() && keep.is_none() && whole {
            let why = "the rule says nothing: give `days`, `keep`, or both";
            reader.wrong(&at, why);
        }
        if let Some(days) = days.as_ref().filter(|days| days.value > DAYS_MAX) {
            reader.wrong(&days.at, format!("must be from 0 to {DAYS_MAX}"));
        }
        let keep = keep.and_then(|word| {
            let known = Keep::ALL.iter().find(|(name, _)| *name == word.value);
            if known.is_none() {
                let names = Keep::ALL.map(|(name, _)| format!("{name:?}")).join(", ");
                reader.wrong(&word.at, format!("must be one of {names}"));
            }
            known.map(|(_, keep)| *keep)
        });
        Self {
            line: at.line,
            days: days.map(|days| days.value),
            keep,
            who: who.check(reader, &at, whole),
        }
    }
}

impl Policy {
    /// For how long messages of somebody are kept.
    pub fn archive_days(&self, user: &BareJid, groups: Groups<'_>) -> Days {
        let mut doubtful = Vec::new();
        let mut decided = Days::Silent;
        for rule in &self.archives {
            let Some(days) = rule.days else { continue };
            match rule.who.names(user, groups) {
                Some(true) => {
                    decided = Days::Says(days);
                    break;
                }
                Some(false) => {}
                None => doubtful.push(Days::Says(days)),
            }
        }
        match doubtful.iter().all(|days| *days == decided) {
            true => decided,
            false => Days::Unknown,
        }
    }

    /// Some rule says how long messages are kept.
    pub fn says_archive_days(&self) -> bool {
        self.archives.iter().any(|rule| rule.days.is_some())
    }

    /// What of somebody's messages is kept.
    pub fn archive_keeps(&self, user: &BareJid, groups: Groups<'_>) -> Keep {
        for rule in &self.archives {
            match (
                rule.keep,
                rule.keep.and_then(|_| rule.who.names(user, groups)),
            ) {
                (Some(keep), Some(true)) => return keep,
                // Who may be of those whose messages are kept is one of them.
                (Some(Keep::Everything), None) => return Keep::Everything,
                _ => {}
            }
        }
        Keep::Wishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn jid(s: &str) -> BareJid {
        BareJid::parse(s).expect("a JID")
    }

    const TEXT: &str = "[[archive]]\nusers = [\"ann@a.org\"]\ndays = 0\n\
        [[archive]]\ngroups = [\"board\"]\nkeep = \"everything\"\n\
        [[archive]]\ngroups = [\"trainees\"]\ndays = 30\nkeep = \"nothing\"\n\
        [[archive]]\ndomains = [\"a.org\"]\nexcept_users = [\"tom@a.org\"]\ndays = 90\n";

    #[test]
    fn the_first_rule_that_says_something_of_it_decides() {
        let policy = Policy::parse(TEXT, Path::new("p")).expect("no mistakes");
        assert!(policy.says_archive_days());
        let names: Vec<_> = policy.groups().collect();
        assert_eq!(names, [("board", 4), ("trainees", 7)]);
        for (user, member, days, keep) in [
            ("ann@a.org", "trainees", Days::Says(0), Keep::Nothing),
            ("ann@a.org", "board", Days::Says(0), Keep::Everything),
            ("bob@a.org", "trainees", Days::Says(30), Keep::Nothing),
            ("bob@a.org", "", Days::Says(90), Keep::Wishes),
            ("tom@a.org", "", Days::Silent, Keep::Wishes),
            ("bob@b.org", "", Days::Silent, Keep::Wishes),
        ] {
            let groups = |group: &str| Some(group == member);
            assert_eq!(policy.archive_days(&jid(user), &groups), days, "{user}");
            assert_eq!(policy.archive_keeps(&jid(user), &groups), keep, "{user}");
        }
        assert!(!Policy::open().says_archive_days());
    }

    #[test]
    fn what_hangs_on_an_unknown_group_is_kept() {
        let policy = Policy::parse(TEXT, Path::new("p")).expect("no mistakes");
        let unread = |_: &str| None;
        for (user, days) in [
            ("ann@a.org", Days::Says(0)),
            ("bob@a.org", Days::Unknown),
            ("tom@a.org", Days::Unknown),
        ] {
            assert_eq!(policy.archive_days(&jid(user), &unread), days, "{user}");
            let keep = policy.archive_keeps(&jid(user), &unread);
            assert_eq!(keep, Keep::Everything, "{user}");
        }
        let text = "[[archive]]\ngroups = [\"trainees\"]\nkeep = \"nothing\"\n";
        let policy = Policy::parse(text, Path::new("p")).expect("no mistakes");
        let keep = policy.archive_keeps(&jid("ann@a.org"), &unread);
        assert_eq!(keep, Keep::Wishes);
    }

    #[test]
    fn every_mistake_is_found() {
        for (text, line, part) in [
            ("[[archive]]\neveryone = true\n", 1, "says nothing"),
            ("[[archive]]\ndays = 3\n", 1, "for nobody"),
            ("\n[[archive]]\neveryone = true\ndays = 40000\n", 4, "36525"),
            (
                "[[archive]]\neveryone = true\nkeep = \"some\"\n",
                3,
                "wishes",
            ),
            ("[[archive]]\nusers = [\"ann\"]\ndays = 3\n", 2, "no user"),
            (
                "[[archive]]\neveryone = true\nday = 3\n",
                3,
                "unknown key; did you mean `days`?",
            ),
            ("[[archive]]\neveryone = true\ndays = -3\n", 3, "-3"),
        ] {
            let mistakes = Policy::parse(text, Path::new("p")).expect_err(text).0;
            assert!(mistakes[0].text.contains(part), "{}", mistakes[0].text);
            assert_eq!(mistakes[0].line, line, "{text}");
        }
    }
}
