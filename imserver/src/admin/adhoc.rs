//! The commands of administration in any client: ad-hoc commands (XEP-0050), the set of XEP-0133.
//!
//! A second door to the commands of `imadmin`: what a command does, who may run it and what is written down of it is in one
//! place, [`super::run`]. Here are the forms.
//!
//! ```text
//! execute ──► (no form) run ──► completed
//!         └─► form, sessionid ──submit──► run ──► completed | error (the session stays, for another try)
//!                             └─cancel──► canceled
//! ```
//! In: `<command/>` of an account of ours, `now`, random bytes. Out: `<command/>`, or an error.
//! Owns: the commands that wait for a form. Never: on a shard (a password costs milliseconds of hashing).

use super::{Answer, Backend, COMMANDS, Caller, Door, Refusal};
use crate::policy::Rights;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::jid::FullJid;
use xmpp::node::Node;
use xmpp::ns;

/// What every node of XEP-0133 begins with; also the `FORM_TYPE` (§5).
pub const ADMIN: &str = "http://jabber.org/protocol/admin";
/// How long a form may lie unanswered: time to look a password up.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Forms one account may have open: one per command and some forgotten ones. The oldest goes.
const OPEN_PER_ACCOUNT_MAX: usize = 20;
/// Forms open at a time; more are refused. Only administrators open any.
const OPEN_MAX: usize = 2_000;
/// Accounts in one form: each is a write, and the answer is waited for.
const ACCOUNTS_MAX: usize = 100;

/// One command.
#[derive(Debug)]
pub struct Adhoc {
    /// Behind `http://jabber.org/protocol/admin#`.
    pub node: &'static str,
    /// For people.
    pub name: &'static str,
    /// The command of [`COMMANDS`] that does it; its rights are the rights.
    pub command: &'static str,
    form: Option<fn() -> Form>,
    run: fn(&Run<'_>, &Form) -> Result<Reply, Refusal>,
}

/// All of them, in the order of XEP-0133 §4.
pub const ADHOC: &[Adhoc] = &[
    Adhoc {
        node: "add-user",
        name: "Add User",
        command: "user add",
        form: Some(|| {
            form("Adding a User", "Fill out this form to add a user.")
                .with(account())
                .with(password("password", "The password for this account"))
                .with(password("password-verify", "Retype password"))
        }),
        run: |run, form| {
            if form.value("password") != form.value("password-verify") {
                return Err(Refusal::new("bad-request", "the passwords differ"));
            }
            run.one(form, &["password"])
        },
    },
    Adhoc {
        node: "delete-user",
        name: "Delete User",
        command: "user del",
        form: Some(|| {
            form("Deleting a User", "Fill out this form to delete a user.").with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "disable-user",
        name: "Disable User",
        command: "user disable",
        form: Some(|| {
            form("Disabling a User", "Fill out this form to disable a user.").with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "reenable-user",
        name: "Re-Enable User",
        command: "user enable",
        form: Some(|| {
            form(
                "Re-Enable a User",
                "Fill out this form to re-enable a user.",
            )
            .with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "end-user-session",
        name: "End User Session",
        command: "session kick",
        form: Some(|| {
            let text =
                "Fill out this form to end a user's session: of a full address one, else all.";
            form("Ending a User Session", text).with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "change-user-password",
        name: "Change User Password",
        command: "user passwd",
        form: Some(|| {
            form(
                "Changing a User Password",
                "Fill out this form to change a user's password.",
            )
            .with(account())
            .with(password("password", "The password for this account"))
        }),
        run: |run, form| run.one(form, &["password"]),
    },
    Adhoc {
        node: "user-stats",
        name: "Get User Statistics",
        command: "user show",
        form: Some(|| {
            let text = "Fill out this form to gather user statistics.";
            form("Get User Statistics", text).with(account())
        }),
        run: user_stats,
    },
    Adhoc {
        node: "get-registered-users-num",
        name: "Get Number of Registered Users",
        command: "status",
        form: None,
        run: |run, _| {
            run.number(
                "accounts",
                "registeredusersnum",
                "The number of registered users",
            )
        },
    },
    Adhoc {
        node: "get-online-users-num",
        name: "Get Number of Online Users",
        command: "status",
        form: None,
        run: |run, _| {
            run.number(
                "users online",
                "onlineusersnum",
                "The number of online users",
            )
        },
    },
    Adhoc {
        node: "get-registered-users-list",
        name: "Get List of Registered Users",
        command: "user list",
        form: Some(|| form("Requesting List of Registered Users", LIST).with(max_items())),
        run: |run, form| {
            let args = json!({"domain": run.domain});
            run.list(form, args, "registereduserjids", "The list of all users")
        },
    },
    Adhoc {
        node: "get-online-users-list",
        name: "Get List of Online Users",
        command: "session list",
        form: Some(|| form("Requesting List of Online Users", LIST).with(max_items())),
        run: |run, form| {
            run.list(
                form,
                json!({}),
                "onlineuserjids",
                "The list of all online users",
            )
        },
    },
    Adhoc {
        node: "announce",
        name: "Send Announcement to Online Users",
        command: "alert",
        form: Some(|| {
            let text = "Fill out this form to make an announcement to everybody who is online.";
            form("Making an Announcement", text)
                .with(Field::new(FieldType::TextSingle, "subject", "Subject"))
                .with(Field::new(FieldType::TextMulti, "announcement", "Announcement").required())
        }),
        run: |run, form| {
            let text = form.values("announcement").join("\n");
            let subject = form.value("subject").unwrap_or_default();
            run.ask(
                "alert",
                json!({"to": "all", "subject": subject, "text": text}),
            )
            .map(Reply::of)
        },
    },
];

const LIST: &str = "Fill out this form to request a list of users.";

fn form(title: &str, instructions: &str) -> Form {
    Form::of_type(FormType::Form, ADMIN).titled(title, instructions)
}

fn account() -> Field {
    let label = "The Jabber ID of the account";
    Field::new(FieldType::JidSingle, "accountjid", label).required()
}

fn accounts() -> Field {
    let label = "The Jabber IDs of the accounts";
    Field::new(FieldType::JidMulti, "accountjids", label).required()
}

fn password(var: &str, label: &str) -> Field {
    Field::new(FieldType::TextPrivate, var, label).required()
}

fn max_items() -> Field {
    ["25", "50", "75", "100", "150", "200"].into_iter().fold(
        Field::new(
            FieldType::ListSingle,
            "max_items",
            "Maximum number of items to show",
        )
        .with("25"),
        |field, n| field.offering(n, n),
    )
}

impl Adhoc {
    /// The command of this node, whole.
    pub fn find(node: &str) -> Option<&'static Adhoc> {
        let name = node.strip_prefix(ADMIN)?.strip_prefix('#')?;
        ADHOC.iter().find(|c| c.node == name)
    }

    /// Its whole node.
    pub fn full_node(&self) -> String {
        format!("{ADMIN}#{}", self.node)
    }

    /// Whether somebody with these rights may run it.
    pub fn is_allowed(&self, rights: Rights) -> bool {
        let command = COMMANDS.iter().find(|c| c.name == self.command);
        command.is_some_and(|c| c.is_allowed(|right| rights.has(right)))
    }
}

/// What comes of a `<command/>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer.
    Reply(Node),
    /// An error; the second is the condition of XEP-0050 §4.4, if one fits.
    Error(StanzaError, Option<&'static str>, String),
}

/// What a command has to say.
struct Reply {
    note: String,
    is_error: bool,
    form: Option<Form>,
}

impl Reply {
    fn of(answer: Answer) -> Self {
        let note = match answer {
            Answer::Text { text } => text,
            Answer::Table { .. } | Answer::Failing { .. } => String::new(),
        };
        Self {
            note,
            is_error: false,
            form: None,
        }
    }
}

/// One command that runs.
struct Run<'a> {
    backend: &'a dyn Backend,
    caller: &'a Caller,
    command: &'static str,
    domain: &'a str,
}

impl Run<'_> {
    fn ask(&self, command: &str, args: Value) -> Result<Answer, Refusal> {
        let args: Map<String, Value> = match args {
            Value::Object(args) => args,
            _ => Map::new(),
        };
        super::run(self.backend, self.caller, command, &args)
    }

    /// About one account, with other fields as arguments.
    fn one(&self, form: &Form, fields: &[&str]) -> Result<Reply, Refusal> {
        let mut args = json!({"jid": form.value("accountjid")});
        for field in fields {
            args[*field] = json!(form.value(field));
        }
        self.ask(self.command, args).map(Reply::of)
    }

    /// About each account of a list. Where some fail, what failed is said.
    fn each(&self, form: &Form) -> Result<Reply, Refusal> {
        let accounts = form.values("accountjids");
        if accounts.len() > ACCOUNTS_MAX {
            let text = format!("more than {ACCOUNTS_MAX} accounts at a time");
            return Err(Refusal::new("bad-request", text));
        }
        let mut said = Vec::new();
        let mut failed = Vec::new();
        for jid in accounts {
            match self.ask(self.command, json!({"jid": jid})) {
                Ok(answer) => said.push(Reply::of(answer).note),
                Err(refusal) => failed.push((jid, refusal)),
            }
        }
        if said.is_empty()
            && let Some((_, refusal)) = failed.pop()
        {
            return Err(refusal);
        }
        let is_error = !failed.is_empty();
        said.extend(failed.iter().map(|(jid, e)| format!("{jid}: {}", e.text)));
        Ok(Reply {
            note: said.join("\n"),
            is_error,
            form: None,
        })
    }

    /// One number of `status`.
    fn number(&self, row: &str, var: &str, label: &str) -> Result<Reply, Refusal> {
        let rows = rows(self.ask("status", json!({}))?);
        let value = rows.iter().find(|r| r.first() == Some(&json!(row)));
        let value = value.and_then(|r| r.get(1)).map(Value::to_string);
        let value = value.ok_or_else(|| Refusal::new("unavailable", "the number is not known"))?;
        let field = Field::new(FieldType::TextSingle, var, label).with(value);
        Ok(Reply {
            note: String::new(),
            is_error: false,
            form: Some(Form::of_type(FormType::Result, ADMIN).with(field)),
        })
    }

    /// Addresses of a table, each once, up to what is asked for.
    fn list(&self, form: &Form, args: Value, var: &str, label: &str) -> Result<Reply, Refusal> {
        let max = form.value("max_items").and_then(|n| n.parse().ok());
        let mut field = Field::new(FieldType::JidMulti, var, label);
        for row in rows(self.ask(self.command, args)?) {
            let jid = row.first().and_then(Value::as_str).unwrap_or_default();
            let bare = jid.split('/').next().unwrap_or_default().to_owned();
            if !field.values.contains(&bare) {
                field.values.push(bare);
            }
        }
        field.values.truncate(max.unwrap_or(25));
        Ok(Reply {
            note: String::new(),
            is_error: false,
            form: Some(Form::of_type(FormType::Result, ADMIN).with(field)),
        })
    }
}

fn rows(answer: Answer) -> Vec<Vec<Value>> {
    match answer {
        Answer::Table { rows, .. } | Answer::Failing { rows, .. } => rows,
        Answer::Text { .. } => Vec::new(),
    }
}

fn user_stats(run: &Run<'_>, form: &Form) -> Result<Reply, Refusal> {
    let jid = form.value("accountjid").unwrap_or_default();
    let shown = rows(run.ask("user show", json!({"jid": jid}))?);
    let contacts = shown.iter().find(|r| r.first() == Some(&json!("contacts")));
    let contacts = contacts.and_then(|r| r.get(1)).map(Value::to_string);
    let sessions = rows(run.ask("session list", json!({"jid": jid}))?);
    let column = |n: usize| -> Vec<String> {
        let texts = sessions.iter().filter_map(|r| r.get(n)?.as_str());
        texts.map(str::to_owned).collect()
    };
    let multi = |var: &str, label: &str, values: Vec<String>| {
        let mut field = Field::new(FieldType::TextMulti, var, label);
        field.values = values;
        field
    };
    let resources = column(0)
        .iter()
        .filter_map(|j| j.split_once('/').map(|(_, r)| r.to_owned()))
        .collect();
    let result = Form::of_type(FormType::Result, ADMIN)
        .with(Field::new(FieldType::JidSingle, "accountjid", "The Jabber ID").with(jid))
        .with(multi(
            "ipaddresses",
            "The IP addresses of this user's sessions",
            column(2),
        ))
        .with(
            Field::new(
                FieldType::TextSingle,
                "rostersize",
                "The number of roster items",
            )
            .with(contacts.unwrap_or_default()),
        )
        .with(multi(
            "onlineresources",
            "The names of the online resources",
            resources,
        ));
    Ok(Reply {
        note: String::new(),
        is_error: false,
        form: Some(result),
    })
}

/// A command that waits for its form.
#[derive(Debug)]
struct Open {
    id: String,
    owner: FullJid,
    command: &'static Adhoc,
    since: Instant,
}

/// Handles `<command/>` elements. See the module.
#[derive(Debug, Default)]
pub struct Commands {
    /// The oldest first.
    open: Vec<Open>,
}

fn bad(condition: &'static str, text: &str) -> Outcome {
    Outcome::Error(StanzaError::BadRequest, Some(condition), text.to_owned())
}

impl Commands {
    /// Handles one, of `from`, addressed to `domain`.
    pub fn handle(
        &mut self,
        now: Instant,
        backend: &dyn Backend,
        from: &FullJid,
        domain: &str,
        command: &Node,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Outcome {
        let caller = Caller {
            door: Door::Account(from.bare()),
            from: from.as_str().to_owned(),
        };
        let Some(adhoc) = command.attr("node").and_then(Adhoc::find) else {
            let text = "there is no such command".to_owned();
            return Outcome::Error(StanzaError::ItemNotFound, None, text);
        };
        let found = COMMANDS.iter().find(|c| c.name == adhoc.command);
        if !found.is_some_and(|c| c.is_allowed(|right| backend.grants(&caller, right))) {
            let text = "the policy does not allow you this command".to_owned();
            return Outcome::Error(StanzaError::Forbidden, None, text);
        }
        let action = command.attr("action").unwrap_or("execute");
        let run = Run {
            backend,
            caller: &caller,
            command: adhoc.command,
            domain,
        };
        let Some(id) = command.attr("sessionid") else {
            return match (action, adhoc.form) {
                ("execute", Some(form)) => self.begin(now, from, adhoc, form, random),
                ("execute", None) => {
                    let nothing = Form::new(FormType::Submit);
                    finish(adhoc, &new_id(random), (adhoc.run)(&run, &nothing))
                }
                ("complete" | "next" | "prev" | "cancel", _) => {
                    bad("bad-sessionid", "the session id is missing")
                }
                _ => bad("malformed-action", "there is no such action"),
            };
        };
        let place = self
            .open
            .iter()
            .position(|o| o.id == id && o.owner == *from && std::ptr::eq(o.command, adhoc));
        let Some(place) = place else {
            return bad("bad-sessionid", "there is no such session");
        };
        if now.duration_since(self.open[place].since) >= TIMEOUT {
            self.open.remove(place);
            let text = "the form has been left unanswered for too long".to_owned();
            return Outcome::Error(StanzaError::NotAllowed, Some("session-expired"), text);
        }
        match action {
            "cancel" => {
                self.open.remove(place);
                Outcome::Reply(answer(adhoc, id, "canceled"))
            }
            "execute" | "complete" => {
                let form = match (adhoc.form, submitted(command)) {
                    (Some(form), Ok(given)) => form().check(&given).map_err(|e| e.to_string()),
                    (_, Err(text)) => Err(text),
                    (None, Ok(_)) => Err("this command has no form".to_owned()),
                };
                let form = match form {
                    Ok(form) => form,
                    Err(text) => return bad("bad-payload", &text),
                };
                let outcome = finish(adhoc, id, (adhoc.run)(&run, &form));
                if matches!(outcome, Outcome::Reply(_)) {
                    self.open.remove(place);
                }
                outcome
            }
            "next" | "prev" => bad("bad-action", "the command has one stage"),
            _ => bad("malformed-action", "there is no such action"),
        }
    }

    /// The form goes out.
    fn begin(
        &mut self,
        now: Instant,
        from: &FullJid,
        adhoc: &'static Adhoc,
        form: fn() -> Form,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Outcome {
        // Twice the time: who is late is told so once.
        self.open
            .retain(|o| now.duration_since(o.since) < 2 * TIMEOUT);
        let mut per_account: HashMap<&str, usize> = HashMap::new();
        for open in &self.open {
            *per_account.entry(open.owner.bare_str()).or_default() += 1;
        }
        let mine = per_account.get(from.bare_str()).copied().unwrap_or(0);
        if mine >= OPEN_PER_ACCOUNT_MAX {
            let oldest = self
                .open
                .iter()
                .position(|o| o.owner.bare_str() == from.bare_str());
            oldest.map(|place| self.open.remove(place));
        } else if self.open.len() >= OPEN_MAX {
            let text = "too many commands are open; try again later".to_owned();
            return Outcome::Error(StanzaError::ResourceConstraint, None, text);
        }
        let id = new_id(random);
        let actions = Node::new("actions", ns::COMMANDS)
            .with_attr("execute", "complete")
            .with_child(Node::new("complete", ns::COMMANDS));
        let reply = answer(adhoc, &id, "executing")
            .with_child(actions)
            .with_child(form().to_node());
        self.open.push(Open {
            id,
            owner: from.clone(),
            command: adhoc,
            since: now,
        });
        Outcome::Reply(reply)
    }
}

fn new_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn submitted(command: &Node) -> Result<Form, String> {
    let x = command
        .child("x", ns::DATA_FORMS)
        .ok_or("the form is missing")?;
    let form = Form::parse(x).map_err(|e| e.to_string())?;
    match form.kind {
        FormType::Submit => Ok(form),
        other => Err(format!("the form is of type {other}, not submit")),
    }
}

fn answer(adhoc: &Adhoc, id: &str, status: &str) -> Node {
    Node::new("command", ns::COMMANDS)
        .with_attr("node", adhoc.full_node())
        .with_attr("sessionid", id)
        .with_attr("status", status)
}

fn finish(adhoc: &Adhoc, id: &str, result: Result<Reply, Refusal>) -> Outcome {
    let reply = match result {
        Ok(reply) => reply,
        Err(refusal) => {
            let (condition, application) = match refusal.code {
                "not-found" => (StanzaError::ItemNotFound, None),
                "exists" => (StanzaError::Conflict, None),
                "forbidden" => (StanzaError::Forbidden, None),
                "bad-request" | "too-long" => (StanzaError::BadRequest, Some("bad-payload")),
                _ => (StanzaError::ResourceConstraint, None),
            };
            return Outcome::Error(condition, application, refusal.text);
        }
    };
    let note = (!reply.note.is_empty()).then(|| {
        Node::new("note", ns::COMMANDS)
            .with_attr("type", if reply.is_error { "error" } else { "info" })
            .with_text(reply.note.as_str())
    });
    Outcome::Reply(
        answer(adhoc, id, "completed")
            .with_children(note)
            .with_children(reply.form.map(|f| f.to_node())),
    )
}
