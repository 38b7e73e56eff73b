//! The ad-hoc commands there are, in the order of XEP-0133 §4: their forms, and what each does, which is a command of `imadmin`.
//!
//! Left out: `get-user-password` (retracted; no password is kept), black- and whitelists and the list of administrators (policy.toml
//! says who may do what, and a file has comments and a history), `restart` and `shutdown` (who supervises the process does that;
//! a client cannot be told honestly that it has happened).

use super::super::{Answer, Backend, COMMANDS, Caller, Refusal};
use crate::notices::Kind;
use crate::policy::Rights;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::node::Node;
use xmpp::ns;

/// What every node of XEP-0133 begins with; also the `FORM_TYPE` (§5).
pub const ADMIN: &str = "http://jabber.org/protocol/admin";
/// Accounts in one form: each is a write, and a person has typed or pasted them.
const ACCOUNTS_MAX: usize = 100;
/// Rows of one page, where the client does not say.
const PAGE: usize = 25;
/// Contacts of one answer: one IQ.
const CONTACTS_MAX: usize = 1_000;

/// One command.
#[derive(Debug)]
pub struct Adhoc {
    /// Behind `http://jabber.org/protocol/admin#`.
    pub node: &'static str,
    /// For people.
    pub name: &'static str,
    /// The command of [`COMMANDS`] that does it; its rights are the rights.
    pub command: &'static str,
    pub(super) form: Option<fn(&dyn Backend) -> Form>,
    pub(super) run: fn(&Run<'_>, &Form) -> Result<Reply, Refusal>,
}

/// All of them.
pub const ADHOC: &[Adhoc] = &[
    Adhoc {
        node: "add-user",
        name: "Add User",
        command: "user add",
        form: Some(|_| {
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
        form: Some(|_| {
            form("Deleting a User", "Fill out this form to delete a user.").with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "disable-user",
        name: "Disable User",
        command: "user disable",
        form: Some(|_| {
            form("Disabling a User", "Fill out this form to disable a user.").with(accounts())
        }),
        run: |run, form| run.each(form),
    },
    Adhoc {
        node: "reenable-user",
        name: "Re-Enable User",
        command: "user enable",
        form: Some(|_| {
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
        form: Some(|_| {
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
        form: Some(|_| {
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
        node: "get-user-roster",
        name: "Get User Roster",
        command: "user roster",
        form: Some(|_| {
            let text = "Fill out this form to get the contacts of a user.";
            form("Getting a User's Roster", text).with(accounts())
        }),
        run: roster,
    },
    Adhoc {
        node: "get-user-lastlogin",
        name: "Get User Last Login Time",
        command: "user show",
        form: Some(|_| {
            let text = "Fill out this form to get users' last login times.";
            form("Getting a User's Last Login", text).with(accounts())
        }),
        run: last_login,
    },
    Adhoc {
        node: "user-stats",
        name: "Get User Statistics",
        command: "user show",
        form: Some(|_| {
            let text = "Fill out this form to gather user statistics.";
            form("Get User Statistics", text).with(account())
        }),
        run: user_stats,
    },
    Adhoc {
        node: "get-registered-users-num",
        name: "Get Number of Registered Users",
        command: "user count",
        form: None,
        run: |run, _| run.number("registered", "The number of registered users"),
    },
    Adhoc {
        node: "get-disabled-users-num",
        name: "Get Number of Disabled Users",
        command: "user count",
        form: None,
        run: |run, _| run.number("disabled", "The number of disabled users"),
    },
    Adhoc {
        node: "get-online-users-num",
        name: "Get Number of Online Users",
        command: "user count",
        form: None,
        run: |run, _| run.number("online", "The number of online users"),
    },
    Adhoc {
        node: "get-active-users-num",
        name: "Get Number of Active Users",
        command: "user count",
        form: None,
        run: |run, _| run.number("active", "The number of active users"),
    },
    Adhoc {
        node: "get-idle-users-num",
        name: "Get Number of Idle Users",
        command: "user count",
        form: None,
        run: |run, _| run.number("idle", "The number of idle users"),
    },
    Adhoc {
        node: "get-registered-users-list",
        name: "Get List of Registered Users",
        command: "user list",
        form: Some(|_| list("Requesting List of Registered Users")),
        run: |run, form| run.list(form, None, "registereduserjids", "The list of all users"),
    },
    Adhoc {
        node: "get-disabled-users-list",
        name: "Get List of Disabled Users",
        command: "user list",
        form: Some(|_| list("Requesting List of Disabled Users")),
        run: |run, form| {
            let label = "The list of all disabled users";
            run.list(form, Some("disabled"), "disableduserjids", label)
        },
    },
    Adhoc {
        node: "get-online-users-list",
        name: "Get List of Online Users",
        command: "user list",
        form: Some(|_| list("Requesting List of Online Users")),
        run: |run, form| {
            let label = "The list of all online users";
            run.list(form, Some("online"), "onlineuserjids", label)
        },
    },
    Adhoc {
        // §4.21 and §4.22 have these nodes without `-list` at their end, and one name for both results.
        node: "get-active-users",
        name: "Get List of Active Users",
        command: "user list",
        form: Some(|_| list("Requesting List of Active Users")),
        run: |run, form| {
            let label = "The list of active users";
            run.list(form, Some("active"), "activeuserjids", label)
        },
    },
    Adhoc {
        node: "get-idle-users",
        name: "Get List of Idle Users",
        command: "user list",
        form: Some(|_| list("Requesting List of Idle Users")),
        run: |run, form| {
            let label = "The list of idle users";
            run.list(form, Some("idle"), "activeuserjids", label)
        },
    },
    Adhoc {
        node: "announce",
        name: "Send Announcement to Online Users",
        command: "alert",
        form: Some(|_| {
            let text = "Fill out this form to make an announcement to everybody who is online.";
            form("Making an Announcement", text)
                .with(subject(""))
                .with(Field::new(FieldType::TextMulti, "announcement", "Announcement").required())
        }),
        run: |run, form| run.say(form, "announcement", &[("to", "all")]),
    },
    Adhoc {
        node: "set-motd",
        name: "Set Message of the Day",
        command: "motd set",
        form: Some(|_| {
            let text = "Fill out this form to set the message of the day: everybody who is online gets it now, others when they \
                        log in next.";
            form("Setting the Message of the Day", text)
                .with(subject(""))
                .with(lines("motd", "Message of the day", ""))
        }),
        run: |run, form| run.say(form, "motd", &[]),
    },
    Adhoc {
        node: "edit-motd",
        name: "Edit Message of the Day",
        command: "motd edit",
        form: Some(|backend| {
            let text = "Fill out this form to edit the message of the day. Who has got it already does not get it again.";
            said(backend, Kind::Motd, "Editing the Message of the Day", text)
        }),
        run: |run, form| run.say(form, "motd", &[]),
    },
    Adhoc {
        node: "delete-motd",
        name: "Delete Message of the Day",
        command: "motd del",
        form: None,
        run: |run, _| run.ask(run.command, json!({})).map(Reply::of),
    },
    Adhoc {
        node: "set-welcome",
        name: "Set Welcome Message",
        command: "welcome set",
        form: Some(|backend| {
            let text =
                "Fill out this form to set what users get when they are here for the first time.";
            said(backend, Kind::Welcome, "Setting the Welcome Message", text)
        }),
        run: |run, form| run.say(form, "welcome", &[]),
    },
    Adhoc {
        node: "delete-welcome",
        name: "Delete Welcome Message",
        command: "welcome del",
        form: None,
        run: |run, _| run.ask(run.command, json!({})).map(Reply::of),
    },
];

fn form(title: &str, instructions: &str) -> Form {
    Form::of_type(FormType::Form, ADMIN).titled(title, instructions)
}

fn list(title: &str) -> Form {
    let field = Field::new(
        FieldType::ListSingle,
        "max_items",
        "Maximum number of items on a page",
    );
    let numbers = ["25", "50", "75", "100", "150", "200"];
    let field = numbers
        .into_iter()
        .fold(field.with("25"), |field, n| field.offering(n, n));
    form(title, "Fill out this form to request a list of users.").with(field)
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

fn subject(now: &str) -> Field {
    let mut field = Field::new(FieldType::TextSingle, "subject", "Subject");
    field
        .values
        .extend((!now.is_empty()).then(|| now.to_owned()));
    field
}

fn lines(var: &str, label: &str, now: &str) -> Field {
    let mut field = Field::new(FieldType::TextMulti, var, label).required();
    field.values.extend(now.lines().map(str::to_owned));
    field
}

/// A form with what the server says now.
fn said(backend: &dyn Backend, kind: Kind, title: &str, instructions: &str) -> Form {
    let notices = backend.notices();
    let now = notices.get(kind);
    let label = match kind {
        Kind::Motd => "Message of the day",
        Kind::Welcome => "Welcome message",
    };
    form(title, instructions)
        .with(subject(now.map_or("", |n| &n.subject)))
        .with(lines(kind.key(), label, now.map_or("", |n| &n.text)))
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

/// What a command has to say.
#[derive(Debug, Default)]
pub struct Reply {
    pub(super) note: String,
    pub(super) is_error: bool,
    pub(super) form: Option<Form>,
    /// Beside the fields of the form.
    pub(super) inside: Option<Node>,
    /// There is another page: it begins behind this.
    pub(super) next: Option<String>,
}

impl Reply {
    fn of(answer: Answer) -> Self {
        let note = match answer {
            Answer::Text { text } => text,
            Answer::Table { .. } | Answer::Failing { .. } => String::new(),
        };
        Self {
            note,
            ..Self::default()
        }
    }

    fn result(fields: impl IntoIterator<Item = Field>) -> Self {
        let form = Form::of_type(FormType::Result, ADMIN);
        Self {
            form: Some(fields.into_iter().fold(form, Form::with)),
            ..Self::default()
        }
    }
}

/// How far a run has come, and whether it is wanted any more; shared with who waits for it.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    done: Arc<AtomicUsize>,
    all: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Progress {
    /// What is not begun is not begun any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// In words; nothing if it is one piece of work.
    pub(super) fn in_words(&self) -> String {
        match self.all.load(Ordering::Relaxed) {
            0 | 1 => String::new(),
            all => format!(": {} of {all} done", self.done.load(Ordering::Relaxed)),
        }
    }
}

/// What has come of a list of accounts.
struct Through<T> {
    found: Vec<(String, T)>,
    /// In words.
    failed: Vec<String>,
}

/// One command that runs.
pub struct Run<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) caller: &'a Caller,
    pub(super) command: &'static str,
    pub(super) domain: &'a str,
    /// The page behind this.
    pub(super) after: Option<&'a str>,
    pub(super) progress: &'a Progress,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("command", &self.command)
            .finish_non_exhaustive()
    }
}

impl Run<'_> {
    fn ask(&self, command: &str, args: Value) -> Result<Answer, Refusal> {
        let args: Map<String, Value> = match args {
            Value::Object(args) => args,
            _ => Map::new(),
        };
        super::super::run(self.backend, self.caller, command, &args)
    }

    /// About one account, with other fields as arguments.
    fn one(&self, form: &Form, fields: &[&str]) -> Result<Reply, Refusal> {
        let mut args = json!({"jid": form.value("accountjid")});
        for field in fields {
            args[*field] = json!(form.value(field));
        }
        self.ask(self.command, args).map(Reply::of)
    }

    /// Says the lines of a field.
    fn say(&self, form: &Form, var: &str, more: &[(&str, &str)]) -> Result<Reply, Refusal> {
        let text = form.values(var).join("\n");
        let subject = form.value("subject").unwrap_or_default();
        let mut args = json!({"subject": subject, "text": text});
        for (name, value) in more {
            args[*name] = json!(value);
        }
        self.ask(self.command, args).map(Reply::of)
    }

    /// Something about each account of a list, until nobody wants it any more. What failed, by account.
    fn through<T>(
        &self,
        form: &Form,
        mut about: impl FnMut(&str) -> Result<T, Refusal>,
    ) -> Result<Through<T>, Refusal> {
        let accounts = form.values("accountjids");
        if accounts.len() > ACCOUNTS_MAX {
            let text = format!("more than {ACCOUNTS_MAX} accounts at a time");
            return Err(Refusal::new("bad-request", text));
        }
        self.progress.all.store(accounts.len(), Ordering::Relaxed);
        let (mut said, mut failed) = (Vec::new(), Vec::new());
        for jid in accounts {
            if self.progress.stop.load(Ordering::Relaxed) {
                break;
            }
            match about(jid) {
                Ok(what) => said.push((jid.clone(), what)),
                Err(refusal) => failed.push((jid, refusal)),
            }
            self.progress.done.fetch_add(1, Ordering::Relaxed);
        }
        if said.is_empty()
            && let Some((_, refusal)) = failed.pop()
        {
            return Err(refusal);
        }
        let failed = failed.iter().map(|(jid, e)| format!("{jid}: {}", e.text));
        Ok(Through {
            found: said,
            failed: failed.collect(),
        })
    }

    /// The command for each account. Where some fail, what failed is said.
    fn each(&self, form: &Form) -> Result<Reply, Refusal> {
        let Through { found, failed } =
            self.through(form, |jid| self.ask(self.command, json!({"jid": jid})))?;
        let is_error = !failed.is_empty();
        let said = found.into_iter().map(|(_, answer)| Reply::of(answer).note);
        let note: Vec<String> = said.chain(failed).collect();
        Ok(Reply {
            note: note.join("\n"),
            is_error,
            ..Reply::default()
        })
    }

    /// One number of `user count`.
    fn number(&self, what: &str, label: &str) -> Result<Reply, Refusal> {
        let answer = self.ask(self.command, json!({"domain": self.domain}))?;
        let unknown = || Refusal::new("unavailable", "the number is not known");
        let Answer::Table { columns, rows, .. } = answer else {
            return Err(unknown());
        };
        let place = columns.iter().position(|c| *c == what);
        let value = place
            .and_then(|n| rows.first()?.get(n))
            .map(Value::to_string);
        let var = format!("{what}usersnum");
        let field = Field::new(FieldType::TextSingle, var, label).with(value.ok_or_else(unknown)?);
        Ok(Reply::result([field]))
    }

    /// A page of addresses.
    fn list(
        &self,
        form: &Form,
        state: Option<&str>,
        var: &str,
        label: &str,
    ) -> Result<Reply, Refusal> {
        let max = form.value("max_items").and_then(|n| n.parse().ok());
        let max = max.unwrap_or(PAGE);
        // One more, to know whether there are more.
        let args =
            json!({"domain": self.domain, "state": state, "after": self.after, "limit": max + 1});
        let rows = rows(self.ask(self.command, args)?);
        let mut field = Field::new(FieldType::JidMulti, var, label);
        field
            .values
            .extend(rows.iter().take(max).map(|row| text(row, 0)));
        let next = (rows.len() > max)
            .then(|| field.values.last().cloned())
            .flatten();
        Ok(Reply {
            next,
            ..Reply::result([field])
        })
    }
}

fn rows(answer: Answer) -> Vec<Vec<Value>> {
    match answer {
        Answer::Table { rows, .. } | Answer::Failing { rows, .. } => rows,
        Answer::Text { .. } => Vec::new(),
    }
}

fn text(row: &[Value], n: usize) -> String {
    row.get(n)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A value of a table of two columns, as text; empty if it is not known.
fn value(shown: &[Vec<Value>], what: &str) -> String {
    let row = shown.iter().find(|r| r.first() == Some(&json!(what)));
    match row.and_then(|r| r.get(1)) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn multi(var: &str, label: &str, values: Vec<String>) -> Field {
    let mut field = Field::new(FieldType::TextMulti, var, label);
    field.values = values;
    field
}

fn jids(values: Vec<String>) -> Field {
    let label = "The Jabber IDs of the accounts";
    let mut field = Field::new(FieldType::JidMulti, "accountjids", label);
    field.values = values;
    field
}

/// §4.8: as `jabber:iq:roster`, and in words, since clients show fields and nothing else.
fn roster(run: &Run<'_>, form: &Form) -> Result<Reply, Refusal> {
    let [jid] = form.values("accountjids") else {
        return Err(Refusal::new("bad-request", "one account at a time"));
    };
    let mut contacts = Vec::new();
    let mut after = Value::Null;
    let is_cut = loop {
        let args = json!({"jid": jid, "after": after});
        let Answer::Table { rows, next, .. } = run.ask(run.command, args)? else {
            break false;
        };
        contacts.extend(rows);
        match next {
            Some(_) if contacts.len() >= CONTACTS_MAX => break true,
            Some(next) => after = json!(next),
            None => break contacts.len() > CONTACTS_MAX,
        }
    };
    contacts.truncate(CONTACTS_MAX);
    let mut query = Node::new("query", ns::ROSTER);
    let mut words = Vec::new();
    for row in &contacts {
        let (contact, name, subscription) = (text(row, 0), text(row, 1), text(row, 2));
        let asked = row.get(3) == Some(&json!(true));
        let groups = row.get(4).and_then(Value::as_array).into_iter().flatten();
        let groups: Vec<&str> = groups.filter_map(Value::as_str).collect();
        let mut line = format!("{contact}: {subscription}");
        if !name.is_empty() {
            line = format!("{name}, {line}");
        }
        if !groups.is_empty() {
            line = format!("{line}, {}", groups.join(", "));
        }
        words.push(line);
        let item = Node::new("item", ns::ROSTER)
            .with_attr("jid", contact)
            .with_attr_opt("name", (!name.is_empty()).then_some(name))
            .with_attr("subscription", subscription)
            .with_attr_opt("ask", asked.then_some("subscribe"));
        let group = |g: &&str| Node::new("group", ns::ROSTER).with_text(*g);
        query = query.with_child(item.with_children(groups.iter().map(group)));
    }
    let note = match is_cut {
        true => format!("only the first {CONTACTS_MAX}; imadmin shows all"),
        false => String::new(),
    };
    Ok(Reply {
        note,
        inside: Some(query),
        ..Reply::result([
            jids(vec![jid.clone()]),
            multi("roster", "The contacts", words),
        ])
    })
}

/// §4.9. Of several accounts the times are in the order of the addresses; who has never been here has an empty one.
fn last_login(run: &Run<'_>, form: &Form) -> Result<Reply, Refusal> {
    let Through { found, failed } = run.through(form, |jid| {
        let shown = rows(run.ask(run.command, json!({"jid": jid}))?);
        Ok(value(&shown, "last log-in"))
    })?;
    let (accounts, times): (Vec<String>, Vec<String>) = found.into_iter().unzip();
    let never: Vec<String> = accounts
        .iter()
        .zip(&times)
        .filter(|(_, time)| time.is_empty())
        .map(|(jid, _)| format!("{jid}: no log-in is known"))
        .collect();
    let is_error = !failed.is_empty();
    let note: Vec<String> = never.into_iter().chain(failed).collect();
    Ok(Reply {
        note: note.join("\n"),
        is_error,
        ..Reply::result([
            jids(accounts),
            multi("lastlogin", "The last login time", times),
        ])
    })
}

fn user_stats(run: &Run<'_>, form: &Form) -> Result<Reply, Refusal> {
    let jid = form.value("accountjid").unwrap_or_default();
    let shown = rows(run.ask(run.command, json!({"jid": jid}))?);
    let sessions = rows(run.ask("session list", json!({"jid": jid}))?);
    let column = |n: usize| -> Vec<String> { sessions.iter().map(|r| text(r, n)).collect() };
    let resources = column(0)
        .iter()
        .filter_map(|j| j.split_once('/').map(|(_, r)| r.to_owned()))
        .collect();
    let single = |var: &str, label: &str, what: &str| {
        let mut field = Field::new(FieldType::TextSingle, var, label);
        let value = value(&shown, what);
        field.values.extend((!value.is_empty()).then_some(value));
        field
    };
    Ok(Reply::result([
        Field::new(FieldType::JidSingle, "accountjid", "The Jabber ID").with(jid),
        multi(
            "ipaddresses",
            "The IP addresses of this user's sessions",
            column(2),
        ),
        single("rostersize", "The number of roster items", "contacts"),
        multi(
            "onlineresources",
            "The names of the online resources",
            resources,
        ),
        single("messageswaiting", "Messages waiting", "messages waiting"),
        single("lastlogin", "The last login time", "last log-in"),
        single("lastlogout", "The last logout time", "last log-out"),
    ]))
}
