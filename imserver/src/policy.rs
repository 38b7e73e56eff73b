//! Who may do what: `policy.toml`. The first line that names the right and the user decides.
//!
//! ```toml
//! [[rule]]
//! deny = "login"
//! users = ["mallory@example.org"]
//!
//! [[rule]]
//! allow = ["login"]
//! users = ["root@example.org"]
//!
//! [[rule]]
//! allow = "login"
//! everyone = true
//! ```
//!
//! In: the text of the file; a right and a full bare JID. Out: yes or no, and which line said so.
//! Never: binds a right to a localpart alone (Prosody CVE-2020-8086); allows what no line allows.

use crate::config::reader::{Mistake, Mistakes};
use std::path::Path;
use xmpp::jid::BareJid;

/// A right that a rule can name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Right {
    /// To log in.
    Login,
}

impl Right {
    /// All of them.
    pub const ALL: [Right; 1] = [Right::Login];

    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Right::Login => "login",
        }
    }
}

/// Whom a rule is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Whom {
    Everyone,
    Domain(String),
    User(BareJid),
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Rule {
    line: usize,
    allow: bool,
    rights: Vec<Right>,
    whom: Vec<Whom>,
}

/// The whole file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

/// What was decided, and by which line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// Line of the rule; `None`: no rule named it, so no.
    pub line: Option<usize>,
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
        let mut mistakes = Vec::new();
        let mut mistake = |line: usize, key: &str, text: String| {
            mistakes.push(Mistake {
                file: file.to_owned(),
                line,
                key: key.to_owned(),
                text,
            });
        };
        let line_of = |at: usize| {
            text.as_bytes()[..at.min(text.len())]
                .iter()
                .filter(|&&b| b == b'\n')
                .count()
                + 1
        };
        let written: Written = match toml::from_str(text) {
            Ok(written) => written,
            Err(e) => {
                let line = e.span().map_or(1, |s| line_of(s.start));
                mistake(line, "", e.message().to_owned());
                return Err(Mistakes(mistakes));
            }
        };
        let mut rules = Vec::new();
        for rule in written.rule {
            let line = line_of(rule.span().start);
            let rule = rule.into_inner();
            let (allow, named) = match (rule.allow, rule.deny) {
                (Some(rights), None) => (true, rights),
                (None, Some(rights)) => (false, rights),
                _ => {
                    mistake(line, "rule", "a rule says either `allow` or `deny`".into());
                    continue;
                }
            };
            let mut rights = Vec::new();
            for name in named.into_vec() {
                match Right::ALL.into_iter().find(|r| r.name() == name) {
                    Some(right) => rights.push(right),
                    None => mistake(line, "rule", format!("{name:?} is no right: \"login\" is")),
                }
            }
            let mut whom = Vec::new();
            if rule.everyone {
                whom.push(Whom::Everyone);
            }
            for name in rule.domains {
                match domain(&name) {
                    Some(d) => whom.push(Whom::Domain(d)),
                    None => mistake(line, "rule.domains", format!("{name:?} is no domain")),
                }
            }
            for name in rule.users {
                match BareJid::parse(&name)
                    .ok()
                    .filter(|j| j.localpart().is_some())
                {
                    Some(user) => whom.push(Whom::User(user)),
                    None => mistake(
                        line,
                        "rule.users",
                        format!("{name:?} is no user: write name@domain"),
                    ),
                }
            }
            if whom.is_empty() {
                mistake(
                    line,
                    "rule",
                    "the rule is for nobody: give `users`, `domains` or `everyone = true`".into(),
                );
            }
            rules.push(Rule {
                line,
                allow,
                rights,
                whom,
            });
        }
        if mistakes.is_empty() {
            Ok(Self { rules })
        } else {
            Err(Mistakes(mistakes))
        }
    }

    /// Everybody may log in, nothing else is allowed: what tests and the simulation run with.
    pub fn open() -> Self {
        Self {
            rules: vec![Rule {
                line: 0,
                allow: true,
                rights: vec![Right::Login],
                whom: vec![Whom::Everyone],
            }],
        }
    }

    /// Decides.
    pub fn test(&self, user: &BareJid, right: Right) -> Verdict {
        let rule = self
            .rules
            .iter()
            .find(|r| r.rights.contains(&right) && r.whom.iter().any(|w| w.is(user)));
        Verdict {
            allowed: rule.is_some_and(|r| r.allow),
            line: rule.map(|r| r.line),
        }
    }

    /// Whether the account may log in.
    pub fn may_log_in(&self, user: &BareJid) -> bool {
        self.test(user, Right::Login).allowed
    }
}

impl Whom {
    fn is(&self, user: &BareJid) -> bool {
        match self {
            Whom::Everyone => true,
            Whom::Domain(d) => user.domainpart() == d,
            Whom::User(u) => u == user,
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

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    rule: Vec<toml::Spanned<WrittenRule>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    allow: Option<OneOrMore>,
    deny: Option<OneOrMore>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    domains: Vec<String>,
    #[serde(default)]
    everyone: bool,
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(s) => vec![s],
            Self::More(v) => v,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(s: &str) -> BareJid {
        BareJid::parse(s).expect("a JID")
    }

    #[test]
    fn the_first_line_that_matches_decides() {
        let text = "[[rule]]\ndeny = \"login\"\nusers = [\"mallory@a.org\"]\n[[rule]]\nallow = [\"login\"]\nusers = [\"root@a.org\"]\n\
                    [[rule]]\nallow = \"login\"\ndomains = [\"a.org\"]\n";
        let policy = Policy::parse(text, Path::new("p")).expect("no mistakes");
        assert!(!policy.may_log_in(&jid("mallory@a.org")));
        assert!(policy.may_log_in(&jid("other@a.org")));
        assert!(!policy.may_log_in(&jid("other@b.org")));
        assert_eq!(
            policy.test(&jid("root@a.org"), Right::Login),
            Verdict {
                allowed: true,
                line: Some(4)
            }
        );
        // A right is bound to the whole address.
        assert_eq!(
            policy.test(&jid("root@b.org"), Right::Login),
            Verdict {
                allowed: false,
                line: None
            }
        );
    }

    #[test]
    fn every_mistake_comes_at_once_with_its_line() {
        let text = "[[rule]]\nallow = \"logn\"\neveryone = true\n[[rule]]\nusers = [\"@\"]\nallow = \"login\"\n[[rule]]\nallow = \"login\"\ndeny = \"login\"\n";
        let mistakes = Policy::parse(text, Path::new("p")).expect_err("mistakes").0;
        let lines: Vec<usize> = mistakes.iter().map(|m| m.line).collect();
        assert_eq!(lines, [1, 4, 4, 7]);
        assert!(Policy::parse("[[rule]]\nalow = \"login\"\n", Path::new("p")).is_err());
    }
}
