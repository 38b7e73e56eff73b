//! Who may do what: `policy.toml`. The first rule that names the right and the user decides.
//!
//! ```toml
//! [[rule]]
//! deny = "login"
//! users = ["mallory@example.org"]
//!
//! [[rule]]
//! allow = ["login", "save-settings"]
//! everyone = true
//! except_groups = ["trainees"]
//!
//! [[archive]]
//! groups = ["trainees"]
//! days = 30
//! ```
//!
//! In: the text of the file; a right, a full bare JID, and which groups it is in. Out: yes, no or not known, and which line said so; how
//! long messages of somebody stay in their archive (`keep`).
//! Never: binds a right to a localpart alone (Prosody CVE-2020-8086); allows what no line allows; names a right that
//! nothing asks for; takes a group of which nothing is known for one that the user is not in.

pub mod keep;

use crate::config::reader::{At, Mistake, Mistakes, Reader, Strings, Table, Written, did_you_mean};
use std::path::Path;
use xmpp::jid::BareJid;

/// Declares the rights: a row each, with its name in the file, whether everybody ordinarily has it, and what it is.
macro_rules! rights {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal, $ordinary:literal; )*) => {
        /// A right that a rule can name. A row here is asked for somewhere: its comment says where.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum Right { $( $(#[$doc])* $variant, )* }

        impl Right {
            /// All of them.
            pub const ALL: &'static [Right] = &[$(Right::$variant),*];

            /// As it is written in the file.
            pub const fn name(self) -> &'static str {
                match self { $(Right::$variant => $name,)* }
            }

            /// Everybody has it on an ordinary site: that no rule names it is more likely forgotten than meant.
            pub const fn is_ordinary(self) -> bool {
                match self { $(Right::$variant => $ordinary,)* }
            }
        }
    };
}

rights! {
    /// To log in: asked when the password was right (`shard/login`).
    Login = "login", true;
    /// To change one's own roster, vCard, private XML and password: asked by the set (`shard/iq`), which is refused with `not-allowed`.
    SaveSettings = "save-settings", true;
    /// To search a domain for people (`shard/iq`, XEP-0055), refused with `not-allowed`.
    Search = "search", true;
    /// To be the address of an account that a stranger makes (`shard/register`, XEP-0077), where the domain allows that at all.
    Register = "register", true;
    /// To see the presence of anybody here by a probe, subscribed or not (`shard/presence`, RFC 6121 §4.3).
    WatchPresence = "watch-presence", false;
    /// To have the server say something: asked by the commands `alert`, `motd` and `welcome`.
    SendAlert = "send-alert", false;
    /// Every administrator's command: asked by `admin` before it runs.
    Admin = "admin", false;
    /// The commands that change nothing (`admin`).
    AdminRead = "admin-read", false;
    /// The commands about accounts and sessions (`admin`).
    AdminUsers = "admin-users", false;
}

impl Right {
    /// Those that let somebody in at the admin door, and that `[[administrator]]` may give to a certificate.
    pub const ADMINISTRATORS: [Right; 4] = [
        Right::Admin,
        Right::AdminRead,
        Right::AdminUsers,
        Right::SendAlert,
    ];

    /// The right of this name.
    pub fn of_name(name: &str) -> Option<Right> {
        Right::ALL.iter().copied().find(|r| r.name() == name)
    }

    /// All names, for a message.
    pub fn names() -> String {
        let names: Vec<String> = Right::ALL
            .iter()
            .map(|r| format!("{:?}", r.name()))
            .collect();
        names.join(", ")
    }
}

/// Whom a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Whom {
    Everyone,
    Domain(String),
    User(BareJid),
    Group(String),
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    line: usize,
    allow: bool,
    rights: Vec<Right>,
    who: Who,
}

/// Whom a rule is for, and whom of these it is not for.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Who {
    whom: Vec<Whom>,
    except: Vec<Whom>,
}

impl Who {
    /// Whether it is for the user. `None`: that depends on a group of which nothing is known.
    fn names(&self, user: &BareJid, groups: Groups<'_>) -> Option<bool> {
        let any = |list: &[Whom]| {
            let mut answer = Some(false);
            for whom in list {
                match whom.is(user, groups) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => answer = None,
                }
            }
            answer
        };
        match (any(&self.whom), any(&self.except)) {
            (Some(false), _) | (_, Some(true)) => Some(false),
            (Some(true), Some(false)) => Some(true),
            _ => None,
        }
    }
}

/// The whole file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    archives: Vec<keep::Rule>,
}

/// Whether a user is in the group of a name, as rules write it: `name`, or `directory:name`. `None`: the directory has never
/// been read, so nobody knows.
pub type Groups<'g> = &'g dyn Fn(&str) -> Option<bool>;

/// What was decided, and by which line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// Line of the rule; `None`: no rule named it, so no.
    pub line: Option<usize>,
    /// The rule of this line names a group of a directory that has never been read, and the answer hangs on it: so no, for now.
    pub unknown: bool,
}

impl Verdict {
    /// Not even an unknown group could make it a yes.
    pub fn is_certain_no(self) -> bool {
        !self.allowed && !self.unknown
    }
}

impl Policy {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// Every mistake in it at once, with its line.
    pub fn load(file: &Path) -> Result<Self, Mistakes> {
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(e) => Err(Mistakes(vec![Mistake {
                file: file.to_owned(),
                line: 0,
                key: String::new(),
                text: format!("cannot be read: {e}"),
            }])),
        }
    }

    /// Checks the text of the file.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, Mistakes> {
        let (mut reader, mut top) = Reader::parse(file, text);
        let mut rules = Vec::new();
        for table in top.tables(&mut reader, "rule") {
            rules.extend(Rule::read(table, &mut reader));
        }
        let mut archives = Vec::new();
        for table in top.tables(&mut reader, "archive") {
            archives.push(keep::Rule::read(table, &mut reader));
        }
        top.finish(&mut reader, &["rule", "archive"]);
        reader.finish()?;
        Ok(Self { rules, archives })
    }

    /// Everybody has the ordinary rights and no other: what tests and the simulation run with.
    pub fn open() -> Self {
        Self {
            rules: vec![Rule {
                line: 0,
                allow: true,
                rights: Right::ALL
                    .iter()
                    .copied()
                    .filter(|r| r.is_ordinary())
                    .collect(),
                who: Who {
                    whom: vec![Whom::Everyone],
                    except: Vec::new(),
                },
            }],
            archives: Vec::new(),
        }
    }

    /// Decides. `groups` is asked only for groups that a rule names before the one that decides. A rule of whom nobody knows whether
    /// it is for the user is never passed over as if it were not: a `deny` for a group holds in an outage too.
    pub fn test(&self, user: &BareJid, right: Right, groups: Groups<'_>) -> Verdict {
        let mut doubtful: Vec<&Rule> = Vec::new();
        let mut decides: Option<&Rule> = None;
        for rule in self.rules.iter().filter(|r| r.rights.contains(&right)) {
            match rule.who.names(user, groups) {
                Some(true) => {
                    decides = Some(rule);
                    break;
                }
                Some(false) => {}
                None => doubtful.push(rule),
            }
        }
        let allowed = decides.is_some_and(|r| r.allow);
        if let Some(other) = doubtful.iter().find(|r| r.allow != allowed) {
            return Verdict {
                allowed: false,
                line: Some(other.line),
                unknown: true,
            };
        }
        Verdict {
            allowed,
            line: decides.map(|r| r.line),
            unknown: false,
        }
    }

    /// Whether the user has the right.
    pub fn allows(&self, user: &BareJid, right: Right, groups: Groups<'_>) -> bool {
        self.test(user, right, groups).allowed
    }

    /// Every group that a rule names, and the line.
    pub fn groups(&self) -> impl Iterator<Item = (&str, usize)> {
        let rules = self.rules.iter().map(|r| (&r.who, r.line));
        let archives = self.archives.iter().map(|r| (&r.who, r.line));
        rules.chain(archives).flat_map(|(who, line)| {
            who.whom
                .iter()
                .chain(&who.except)
                .filter_map(move |w| match w {
                    Whom::Group(name) => Some((name.as_str(), line)),
                    _ => None,
                })
        })
    }

    /// Ordinary rights that no rule names: nobody has them, and that is worth a warning.
    pub fn forgotten(&self) -> impl Iterator<Item = Right> {
        Right::ALL.iter().copied().filter(|right| {
            right.is_ordinary() && !self.rules.iter().any(|r| r.rights.contains(right))
        })
    }
}

/// Which rights somebody has, as a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights(u32);

const _: () = assert!(Right::ALL.len() <= 32, "a right is a bit");

impl Rights {
    /// Of nobody.
    pub const NONE: Rights = Rights(0);

    /// Those that a user has.
    pub fn of(policy: &Policy, user: &BareJid, groups: Groups<'_>) -> Self {
        let has = Right::ALL
            .iter()
            .filter(|right| policy.allows(user, **right, groups));
        Self(has.fold(0, |set, right| set | 1 << *right as u32))
    }

    /// Whether a right is in it.
    pub fn has(self, right: Right) -> bool {
        self.0 & 1 << right as u32 != 0
    }
}

/// For who has no directory with groups: in none.
pub fn no_groups(_: &str) -> Option<bool> {
    Some(false)
}

impl Whom {
    fn is(&self, user: &BareJid, groups: Groups<'_>) -> Option<bool> {
        match self {
            Whom::Everyone => Some(true),
            Whom::Domain(d) => Some(user.domainpart() == d),
            Whom::User(u) => Some(u == user),
            Whom::Group(name) => groups(name),
        }
    }
}

/// The prepared form of a domain.
pub fn domain(text: &str) -> Option<String> {
    BareJid::parse(text)
        .ok()
        .filter(|j| j.localpart().is_none())
        .map(|j| j.domainpart().to_owned())
}

impl Rule {
    /// Takes a rule apart. `None`: it says neither yes nor no.
    fn read(mut table: Table<'_>, reader: &mut Reader) -> Option<Self> {
        let at = table.at().clone();
        let noted = reader.count();
        let allow: Option<Written<Strings>> = table.value(reader, "allow");
        let deny: Option<Written<Strings>> = table.value(reader, "deny");
        let who = WrittenWho::take(&mut table, reader);
        table.finish(reader, &[&["allow", "deny"], WrittenWho::KEYS].concat());
        // What is misspelt is not also missing.
        let whole = reader.count() == noted;
        let who = who.check(reader, &at, whole);
        let (allow, named) = match (allow, deny) {
            (Some(rights), None) => (true, rights),
            (None, Some(rights)) => (false, rights),
            (None, None) if !whole => return None,
            _ => {
                reader.wrong(&at, "a rule says either `allow` or `deny`");
                return None;
            }
        };
        let mut rights = Vec::new();
        for name in &named.value.0 {
            match Right::of_name(name) {
                Some(right) => rights.push(right),
                None => {
                    let known: Vec<&str> = Right::ALL.iter().map(|r| r.name()).collect();
                    let near = did_you_mean(name, &known);
                    let text = format!("{name:?} is no right: {} are{near}", Right::names());
                    reader.wrong(&named.at, text);
                }
            }
        }
        Some(Self {
            line: at.line,
            allow,
            rights,
            who,
        })
    }
}

/// Whom a rule is for, as it is written.
struct WrittenWho {
    users: Option<Written<Strings>>,
    groups: Option<Written<Strings>>,
    domains: Option<Written<Strings>>,
    everyone: Option<Written<bool>>,
    except_users: Option<Written<Strings>>,
    except_groups: Option<Written<Strings>>,
}

impl WrittenWho {
    const KEYS: &'static [&'static str] = &[
        "users",
        "groups",
        "domains",
        "everyone",
        "except_users",
        "except_groups",
    ];

    fn take(table: &mut Table<'_>, reader: &mut Reader) -> Self {
        Self {
            users: table.value(reader, "users"),
            groups: table.value(reader, "groups"),
            domains: table.value(reader, "domains"),
            everyone: table.value(reader, "everyone"),
            except_users: table.value(reader, "except_users"),
            except_groups: table.value(reader, "except_groups"),
        }
    }

    /// `whole`: nothing of the rule was unknown or of the wrong type.
    fn check(self, reader: &mut Reader, at: &At, whole: bool) -> Who {
        let noted = reader.count();
        let mut whom = Vec::new();
        if self.everyone.is_some_and(|e| e.value) {
            whom.push(Whom::Everyone);
        }
        let domains = each(reader, self.domains, |name| {
            domain(name).ok_or_else(|| format!("{name:?} is no domain"))
        });
        whom.extend(domains.into_iter().map(Whom::Domain));
        let user = |name: &str| {
            let user = BareJid::parse(name).ok();
            user.filter(|j| j.localpart().is_some())
                .ok_or_else(|| format!("{name:?} is no user: write name@domain"))
        };
        let group = |name: &str| match name.trim().is_empty() {
            true => Err("a group has a name".to_owned()),
            false => Ok(name.to_owned()),
        };
        let users = each(reader, self.users, user);
        whom.extend(users.into_iter().map(Whom::User));
        let groups = each(reader, self.groups, group);
        whom.extend(groups.into_iter().map(Whom::Group));
        let users = each(reader, self.except_users, user);
        let mut except: Vec<Whom> = users.into_iter().map(Whom::User).collect();
        let groups = each(reader, self.except_groups, group);
        except.extend(groups.into_iter().map(Whom::Group));
        if whom.is_empty() && whole && reader.count() == noted {
            reader.wrong(
                at,
                "the rule is for nobody: give `users`, `groups`, `domains` or `everyone = true`",
            );
        }
        Who { whom, except }
    }
}

/// The good ones of a list; what is wrong with another is noted.
fn each<T>(
    reader: &mut Reader,
    written: Option<Written<Strings>>,
    check: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    let Some(written) = written else {
        return Vec::new();
    };
    let mut good = Vec::new();
    for name in &written.value.0 {
        match check(name) {
            Ok(one) => good.push(one),
            Err(why) => reader.wrong(&written.at, why),
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(s: &str) -> BareJid {
        BareJid::parse(s).expect("a JID")
    }

    /// A file, and what it says: user, right, the line that decided (0: none), yes or no. Groups of a user: those that
    /// `in_group` has.
    fn check(text: &str, rows: &[(&str, Right, usize, bool)]) {
        let policy = Policy::parse(text, Path::new("p")).expect("no mistakes");
        for (user, right, line, allowed) in rows {
            let groups = |group: &str| Some(in_group(user, group));
            let verdict = policy.test(&jid(user), *right, &groups);
            let found = (verdict.line.unwrap_or(0), verdict.allowed);
            assert_eq!(found, (*line, *allowed), "{user} {}", right.name());
        }
    }

    fn in_group(user: &str, group: &str) -> bool {
        match group {
            "staff" => user.starts_with('s'),
            "corp:board members" => user == "sam@a.org",
            _ => false,
        }
    }

    use Right::{Login, SaveSettings, WatchPresence};

    #[test]
    fn the_first_rule_that_names_right_and_user_decides() {
        check(
            "[[rule]]\ndeny = \"login\"\nusers = [\"mallory@a.org\"]\n\
             [[rule]]\nallow = [\"login\"]\nusers = [\"root@a.org\"]\n\
             [[rule]]\nallow = \"login\"\ndomains = [\"a.org\"]\n",
            &[
                ("mallory@a.org", Login, 1, false),
                ("other@a.org", Login, 7, true),
                ("other@b.org", Login, 0, false),
                ("root@a.org", Login, 4, true),
                // A right is bound to the whole address.
                ("root@b.org", Login, 0, false),
                // What no rule names, nobody has.
                ("root@a.org", SaveSettings, 0, false),
            ],
        );
    }

    #[test]
    fn groups_are_asked_for_by_name() {
        check(
            "[[rule]]\nallow = \"watch-presence\"\ngroups = [\"corp:board members\"]\n\
             [[rule]]\nallow = [\"login\", \"save-settings\"]\ngroups = [\"staff\"]\n",
            &[
                ("sam@a.org", WatchPresence, 1, true),
                ("sue@a.org", WatchPresence, 0, false),
                ("sue@a.org", Login, 4, true),
                ("sue@a.org", SaveSettings, 4, true),
                ("tom@a.org", Login, 0, false),
            ],
        );
    }

    #[test]
    fn a_group_of_which_nothing_is_known_is_neither_empty_nor_full() {
        let text = "[[rule]]\nallow = \"login\"\nusers = [\"root@a.org\"]\n\
                    [[rule]]\ndeny = \"login\"\ngroups = [\"suspended\"]\n\
                    [[rule]]\nallow = \"save-settings\"\neveryone = true\nexcept_groups = [\"trainees\"]\n\
                    [[rule]]\nallow = \"search\"\ngroups = [\"staff\"]\n\
                    [[rule]]\nallow = [\"login\", \"search\"]\nusers = [\"ann@a.org\"]\n";
        let policy = Policy::parse(text, Path::new("p")).expect("no mistakes");
        let unread = |_: &str| None;
        for (user, right, line, allowed, unknown) in [
            // Decided before any group is asked for.
            ("root@a.org", Login, Some(1), true, false),
            ("ann@a.org", Login, Some(4), false, true),
            // Whether or not Tom is suspended, no rule lets him in.
            ("tom@a.org", Login, None, false, false),
            ("ann@a.org", SaveSettings, Some(7), false, true),
            // Ann may search either way.
            ("ann@a.org", Right::Search, Some(14), true, false),
            ("tom@a.org", Right::Search, Some(11), false, true),
            ("tom@a.org", Right::Admin, None, false, false),
        ] {
            let verdict = policy.test(&jid(user), right, &unread);
            let expected = Verdict {
                allowed,
                line,
                unknown,
            };
            assert_eq!(verdict, expected, "{user} {}", right.name());
        }
    }

    #[test]
    fn everyone_except_somebody_can_be_written_in_two_ways() {
        let rows = [
            ("sam@a.org", SaveSettings, 0, false),
            ("mallory@a.org", SaveSettings, 0, false),
            ("tom@a.org", SaveSettings, 1, true),
        ];
        check(
            "[[rule]]\nallow = \"save-settings\"\neveryone = true\nexcept_users = [\"mallory@a.org\"]\nexcept_groups = [\"staff\"]\n",
            &rows,
        );
        check(
            "[[rule]]\ndeny = \"save-settings\"\nusers = [\"mallory@a.org\"]\ngroups = [\"staff\"]\n\
             [[rule]]\nallow = \"save-settings\"\neveryone = true\n",
            &[
                ("sam@a.org", SaveSettings, 1, false),
                ("mallory@a.org", SaveSettings, 1, false),
                ("tom@a.org", SaveSettings, 5, true),
            ],
        );
        // An exception leaves the user to the rules below: it denies nothing.
        check(
            "[[rule]]\ndeny = \"login\"\neveryone = true\nexcept_users = [\"root@a.org\"]\n\
             [[rule]]\nallow = \"login\"\ndomains = [\"a.org\"]\n",
            &[
                ("root@a.org", Login, 5, true),
                ("tom@a.org", Login, 1, false),
            ],
        );
    }

    #[test]
    fn what_is_forgotten_and_which_groups_are_named_is_known() {
        let text = "[[rule]]\nallow = \"login\"\neveryone = true\n[[rule]]\nallow = \"login\"\ngroups = [\"x\"]\nexcept_groups = [\"y z\"]\n";
        let policy = Policy::parse(text, Path::new("p")).expect("no mistakes");
        let forgotten: Vec<Right> = policy.forgotten().collect();
        assert_eq!(forgotten, [SaveSettings, Right::Search, Right::Register]);
        assert_eq!(policy.groups().collect::<Vec<_>>(), [("x", 4), ("y z", 4)]);
        assert_eq!(Policy::open().forgotten().count(), 0);
    }

    #[test]
    fn every_mistake_comes_at_once_with_its_line() {
        let text = "[[rule]]\nallow = \"logn\"\neveryone = true\n[[rule]]\nusers = [\"@\"]\nallow = \"login\"\n\
                    [[rule]]\nallow = \"login\"\ndeny = \"login\"\n\
                    [[rule]]\nallow = \"login\"\nexcept_users = [\"root\"]\ngroups = [\" \"]\n";
        let mistakes = Policy::parse(text, Path::new("p")).expect_err("mistakes").0;
        let lines: Vec<usize> = mistakes.iter().map(|m| m.line).collect();
        assert_eq!(lines, [2, 5, 7, 7, 12, 13]);
        assert!(mistakes[0].text.contains("\"save-settings\""));
        let text = "[[rule]]\nallow = \"adminn\"\nuser = [\"root@a.org\"]\n[[rule]]\nallow = \"login\"\n\
                    [[archive]]\neveryone = true\ndayz = 3\n[[rules]]\nalow = 1\n";
        let mistakes = Policy::parse(text, Path::new("p")).expect_err("mistakes");
        assert_eq!(
            mistakes.to_string().replace(&Right::names(), "..."),
            "p:2: rule.allow: \"adminn\" is no right: ... are; did you mean `admin`?\n\
             p:3: rule.user: unknown key; did you mean `users`?\n\
             p:4: rule: the rule is for nobody: give `users`, `groups`, `domains` or `everyone = true`\n\
             p:8: archive.dayz: unknown key; did you mean `days`?\n\
             p:9: rules: unknown key; did you mean `rule`?"
        );
    }
}
