//! Reading a script: clients and components, then statements with their blocks of XML.

use super::Disturbance;
use crate::client::{Account, NS_COMPONENT};
use crate::component::{Component, Grants};
use crate::scram::{self, Hash};
use crate::upgrade::Upgrade;
use crate::xml::NS_CLIENT;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;

/// A script as read.
#[derive(Clone, Debug)]
pub struct Script {
    /// File name without `.scs`.
    pub name: String,
    /// The `[Client]` and `[Component]` sections.
    pub clients: Vec<Person>,
    /// What happens.
    pub statements: Vec<Statement>,
    /// `# COMPAT: ...` lines: what Prosody does otherwise.
    pub compat: Option<String>,
    /// `# ONLY: stage, stage`: empty means everywhere.
    only: Vec<String>,
}

/// One `[Client]` or `[Component]` section.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// Name in the script.
    pub name: String,
    /// Bare JID as written; of a component, its domain.
    pub jid: String,
    /// Password; of a component, its secret.
    pub password: String,
    /// Resource to ask for.
    pub resource: Option<String>,
    /// SASL mechanism to use.
    pub sasl: Option<String>,
    /// `keys: SCRAM-SHA-1`: all that the account has been given, as by an import from another server.
    pub keys: Option<Hash>,
    /// `upgrade: SCRAM-SHA-512`: it logs in by SASL 2 and its `keys`, and makes these (XEP-0480).
    pub upgrade: Option<Hash>,
    /// `sm: silent`: requests for acknowledgement are not answered.
    pub silent: bool,
    /// `account: none`: the runner creates no account, or tells the server of no component.
    pub no_account: bool,
    /// A component, and what it may do in people's names.
    pub component: Option<Grants>,
}

/// One line of the play, with its block.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Line number, from 1.
    pub line: usize,
    /// Who acts; empty for disturbances.
    pub who: String,
    /// What they do.
    pub verb: Verb,
    /// The indented block, dedented.
    pub block: String,
}

/// What a client can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `connects`: logs in and binds.
    Connects,
    /// `dials`: TCP and TLS as the variant says; no stream header afterwards.
    Dials,
    /// `dials without TLS`: TCP to the STARTTLS port, nothing else.
    DialsPlain,
    /// `opens`: as `dials`, then a stream header, up to and with the features.
    Opens,
    /// `logs in`: SASL and binding on what was opened.
    LogsIn,
    /// `disconnects`: closes the stream.
    Disconnects,
    /// `drops`: closes the connection without closing the stream.
    Drops,
    /// `sends:` stanzas.
    Sends,
    /// `sends raw:` the block as it is.
    SendsRaw,
    /// `receives:` these, in this order, next.
    Receives,
    /// `receives in any order:` these, next.
    ReceivesAnyOrder,
    /// `receives eventually:` these; presence and roster pushes before them are skipped.
    ReceivesEventually,
    /// `starts a new stream`: what the server sends next is a new XML stream.
    NewStream,
    /// `receives a stream header`.
    ReceivesHeader,
    /// `receives nothing more`: a ping's answer comes next.
    NothingMore,
    /// `receives nothing more from NAME`: what NAME sends now comes next.
    NothingMoreFrom(String),
    /// `is disconnected`, `is disconnected with CONDITION`.
    IsDisconnected(Option<String>),
    /// Something done to the servers.
    Disturb(Disturbance),
}

impl Script {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Script> {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let text = std::fs::read_to_string(path)?;
        Script::parse(&name, &text).with_context(|| path.display().to_string())
    }

    /// Reads a text.
    pub fn parse(name: &str, text: &str) -> Result<Script> {
        let mut script = Script {
            name: name.into(),
            clients: Vec::new(),
            statements: Vec::new(),
            compat: None,
            only: Vec::new(),
        };
        let mut on_stage = false;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            script
                .take_line(number, line, &mut on_stage)
                .with_context(|| format!("line {number}"))?;
        }
        for statement in &mut script.statements {
            statement.block = dedent(&statement.block);
        }
        for person in script.clients.iter().filter(|p| p.upgrade.is_some()) {
            ensure!(
                person.keys.is_some(),
                "{}: an upgrade of which keys?",
                person.name
            );
        }
        ensure!(
            !script.statements.is_empty(),
            "nothing happens in this script"
        );
        Ok(script)
    }

    fn take_line(&mut self, number: usize, line: &str, on_stage: &mut bool) -> Result<()> {
        if let Some(comment) = line.strip_prefix('#') {
            self.take_comment(comment.trim());
        } else if line.starts_with("---") && !*on_stage {
            *on_stage = true;
        } else if line.trim().is_empty() || line.starts_with([' ', '\t']) {
            if *on_stage {
                if let Some(statement) = self.statements.last_mut() {
                    statement.block.push_str(line);
                    statement.block.push('\n');
                } else {
                    ensure!(line.trim().is_empty(), "a block without a statement");
                }
            } else if let Some((key, value)) = line.trim().split_once(':') {
                let person = self
                    .clients
                    .last_mut()
                    .context("a property before any [Client]")?;
                person.set(key.trim(), value.trim())?;
            } else {
                ensure!(line.trim().is_empty(), "expected `key: value`");
            }
        } else if let Some((kind, name)) = section(line) {
            ensure!(!*on_stage, "[{kind}] after the line of dashes");
            self.clients.push(Person {
                name: name.into(),
                component: (kind == "Component").then(Grants::default),
                ..Person::default()
            });
        } else {
            ensure!(*on_stage, "a statement before the line of dashes");
            let statement = self.statement(number, line.trim())?;
            self.statements.push(statement);
        }
        Ok(())
    }

    fn take_comment(&mut self, comment: &str) {
        if let Some(why) = comment.strip_prefix("COMPAT:") {
            self.compat = Some(why.trim().into());
        } else if let Some(list) = comment.strip_prefix("ONLY:") {
            self.only = list.split(',').map(|s| s.trim().to_owned()).collect();
        }
    }

    fn statement(&self, line: usize, text: &str) -> Result<Statement> {
        let disturbance = match text {
            "Server is killed" => Some(Disturbance::KillServer),
            "Server starts" => Some(Disturbance::StartServer),
            "Link is cut" => Some(Disturbance::CutLink),
            "Link is reset" => Some(Disturbance::ResetLink),
            "Link is restored" => Some(Disturbance::RestoreLink),
            _ => None,
        };
        if let Some(what) = disturbance {
            return Ok(Statement {
                line,
                who: String::new(),
                verb: Verb::Disturb(what),
                block: String::new(),
            });
        }
        // "Juliet's phone" must win over "Juliet".
        let person = self
            .clients
            .iter()
            .filter(|p| {
                text.strip_prefix(p.name.as_str())
                    .is_some_and(|rest| rest.starts_with(' '))
            })
            .max_by_key(|p| p.name.len())
            .with_context(|| format!("who acts in: {text}"))?;
        let verb = self.verb(text[person.name.len()..].trim())?;
        Ok(Statement {
            line,
            who: person.name.clone(),
            verb,
            block: String::new(),
        })
    }

    fn verb(&self, text: &str) -> Result<Verb> {
        if let Some(name) = text.strip_prefix("receives nothing more from ") {
            ensure!(
                self.clients.iter().any(|p| p.name == name),
                "who is {name}?"
            );
            return Ok(Verb::NothingMoreFrom(name.into()));
        }
        if let Some(condition) = text.strip_prefix("is disconnected with ") {
            return Ok(Verb::IsDisconnected(Some(condition.into())));
        }
        Ok(match text {
            "connects" => Verb::Connects,
            "dials" => Verb::Dials,
            "dials without TLS" => Verb::DialsPlain,
            "opens" => Verb::Opens,
            "logs in" => Verb::LogsIn,
            "disconnects" => Verb::Disconnects,
            "drops" => Verb::Drops,
            "sends:" => Verb::Sends,
            "sends raw:" => Verb::SendsRaw,
            "receives:" => Verb::Receives,
            "receives in any order:" | "receives unordered:" => Verb::ReceivesAnyOrder,
            "receives eventually:" => Verb::ReceivesEventually,
            "starts a new stream" => Verb::NewStream,
            "receives a stream header" => Verb::ReceivesHeader,
            "receives nothing more" => Verb::NothingMore,
            "is disconnected" => Verb::IsDisconnected(None),
            _ => bail!("unknown verb: {text}"),
        })
    }

    /// Accounts this script needs.
    pub fn accounts(&self) -> Vec<Account> {
        self.clients
            .iter()
            .filter(|p| !p.no_account && p.component.is_none())
            .map(Person::stored_account)
            .collect()
    }

    /// Components that the server must know for this script.
    pub fn components(&self) -> Vec<Component> {
        let there = self.clients.iter().filter(|p| !p.no_account);
        let components = there.filter_map(|p| {
            Some(Component {
                domain: p.jid.clone(),
                secret: p.password.clone(),
                grants: p.component.clone()?,
            })
        });
        components.collect()
    }

    /// Whether an address is that of a client, or in the domain of a component, of this script.
    pub fn knows(&self, jid: &str) -> bool {
        let bare = jid.split('/').next().unwrap_or_default();
        let domain = bare.rsplit('@').next().unwrap_or_default();
        self.clients.iter().any(|p| match p.component {
            Some(_) => p.jid == domain,
            None => p.jid == bare,
        })
    }

    /// Whether the script does something to the servers, so that no other may run beside it.
    pub fn disturbs(&self) -> bool {
        self.statements
            .iter()
            .any(|s| matches!(s.verb, Verb::Disturb(_)))
    }

    /// Whether `# ONLY:` allows this stage.
    pub fn is_for(&self, stage: &str) -> bool {
        if self.disturbs() && stage.starts_with("prosody") {
            return false;
        }
        self.only.is_empty() || self.only.iter().any(|s| s == stage)
    }
}

impl Person {
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "jid" => match value.split_once('/') {
                Some((bare, resource)) => {
                    self.jid = bare.into();
                    self.resource = Some(resource.into());
                }
                None => self.jid = value.into(),
            },
            "password" => self.password = value.into(),
            "resource" => self.resource = Some(value.into()),
            "sasl" => self.sasl = Some(value.into()),
            "keys" => self.keys = Some(hash(value)?),
            "upgrade" => self.upgrade = Some(hash(value)?),
            "sm" if value == "silent" => self.silent = true,
            "account" if value == "none" => self.no_account = true,
            _ => {
                let grants = self.component.as_mut();
                let taken = grants.map(|grants| grants.set(key, value)).transpose()?;
                ensure!(taken == Some(true), "unknown property {key}: {value}");
            }
        }
        Ok(())
    }

    /// The default namespace of what it sends and receives.
    pub fn content_ns(&self) -> &'static str {
        match self.component {
            Some(_) => NS_COMPONENT,
            None => NS_CLIENT,
        }
    }

    /// What it makes with its log-in.
    pub fn upgrade(&self) -> Option<Upgrade> {
        Some(Upgrade {
            known: self.keys?,
            wanted: self.upgrade?,
        })
    }

    /// As the server is given it.
    fn stored_account(&self) -> Account {
        let Account { user, password } = self.account();
        let password = match self.keys {
            Some(hash) => scram::import_keys(hash, &password, b"salt of another server", 4_096),
            None => password,
        };
        Account { user, password }
    }

    /// Localpart and password.
    pub fn account(&self) -> Account {
        let user = self.jid.split('@').next().unwrap_or_default().to_owned();
        Account {
            user,
            password: self.password.clone(),
        }
    }
}

fn hash(mechanism: &str) -> Result<Hash> {
    Hash::of_mechanism(mechanism).with_context(|| format!("{mechanism} is not SCRAM"))
}

/// `[Client] NAME` or `[Component] NAME`.
fn section(line: &str) -> Option<(&str, &str)> {
    let (kind, name) = line.strip_prefix('[')?.split_once(']')?;
    matches!(kind, "Client" | "Component").then_some((kind, name.trim()))
}

/// Takes away the indentation that all lines share, and empty lines at both ends.
fn dedent(block: &str) -> String {
    let indent = block
        .lines()
        .filter(|l| !l.trim().is_empty())
        .map(|l| l.len() - l.trim_start().len())
        .min()
        .unwrap_or(0);
    let lines: Vec<&str> = block
        .lines()
        .map(|l| l.get(indent..).unwrap_or(""))
        .collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_spaces_and_blocks_are_read() {
        let script = Script::parse(
            "x",
            "# Title\n# COMPAT: differs\n[Client] Juliet\n\tjid: j@localhost\n\tpassword: p\n\n[Client] Juliet's phone\n\tjid: j@localhost/phone\n\tpassword: p\n-----\nJuliet's phone sends:\n\t<a>\n\t\t<b/>\n\t</a>\n\nJuliet receives nothing more from Juliet's phone\nServer is killed\n",
        )
        .unwrap();
        assert_eq!(script.compat.as_deref(), Some("differs"));
        assert_eq!(script.clients[1].resource.as_deref(), Some("phone"));
        assert_eq!(script.statements[0].who, "Juliet's phone");
        assert_eq!(script.statements[0].block, "<a>\n\t<b/>\n</a>");
        assert_eq!(
            script.statements[1].verb,
            Verb::NothingMoreFrom("Juliet's phone".into())
        );
        assert!(script.disturbs());
    }

    #[test]
    fn components_have_a_domain_a_secret_and_what_they_may_do() {
        let script = Script::parse(
            "x",
            "[Component] Bot\n\tjid: bot.localhost\n\tpassword: p\n\troster: both\n\tmessage: outgoing\n\tiq: urn:a get, urn:b both\n[Client] A\n\tjid: a@localhost\n---\nBot connects\n",
        )
        .unwrap();
        let component = &script.components()[0];
        assert_eq!(
            component.section(),
            "\n[[component]]\ndomain = \"bot.localhost\"\nsecret_file = \"bot.localhost.secret\"\nrosters = \"both\"\n\
             send_messages = true\niq_get = [\"urn:a\", \"urn:b\"]\niq_set = [\"urn:b\"]\n"
        );
        assert_eq!(script.accounts().len(), 1);
        for (jid, known) in [
            ("x@bot.localhost/r", true),
            ("a@localhost/r", true),
            ("b@localhost", false),
            ("localhost", false),
        ] {
            assert_eq!(script.knows(jid), known, "{jid}");
        }
    }

    #[test]
    fn mistakes_are_refused_with_their_line() {
        for (text, what) in [
            ("[Client] A\n\tjid: a@b\n---\nB connects\n", "who acts"),
            ("[Client] A\n\tjid: a@b\n---\nA flies\n", "unknown verb"),
            (
                "[Client] A\n\tcolour: red\n---\nA connects\n",
                "unknown property",
            ),
            (
                "[Client] A\n\troster: both\n---\nA connects\n",
                "unknown property",
            ),
            ("[Component] A\n\troster: all\n---\nA connects\n", "one of"),
            ("[Client] A\n---\n", "nothing happens"),
            (
                "[Client] A\n\tupgrade: SCRAM-SHA-256\n---\nA connects\n",
                "which keys",
            ),
            ("[Client] A\n\tkeys: PLAIN\n---\nA connects\n", "not SCRAM"),
        ] {
            let error = format!("{:#}", Script::parse("x", text).unwrap_err());
            assert!(error.contains(what), "{error}");
        }
    }
}
