//! The commands of administration in any client: ad-hoc commands (XEP-0050), the set of XEP-0133.
//!
//! A second door to the commands of `imadmin`: what a command does, who may run it and what is written down of it is in one
//! place, [`super::run`]. Their forms are in [`set`]; here is how a conversation about one goes, as a state machine: whoever drives it
//! runs the tasks it hands out, elsewhere, and brings their results.
//!
//! ```text
//! execute ─► form ─submit─► running ─(in time)──────────────► completed | error (the form stays, for another try)
//!        └─(no form)─────►    │  ▲ └─► a page of more: next, prev, complete
//!              (not in time)  ▼  │ next
//!                   "still running", with the action next ─► ... ─► what has come of it, once
//! ```
//! An IQ is answered within [`PATIENCE`], so that no shard gives up on it; the work goes on and is done once.
//! In: `<command/>` of an account of ours, results of tasks, `now`, random bytes. Out: answers, tasks.
//! Owns: the conversations. Never: on a shard; waits.

mod set;

use super::{Backend, COMMANDS, Caller, Door, Refusal};
pub use set::{ADHOC, ADMIN, Adhoc, Reply};
use set::{Progress, Run};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use xmpp::error::StanzaError;
use xmpp::form::{Form, FormType};
use xmpp::jid::FullJid;
use xmpp::node::Node;
use xmpp::ns;

/// How long somebody may take for the next step: time to look a password up. A result that nobody fetches is kept as long.
const TIMEOUT: Duration = Duration::from_secs(600);
/// How long an IQ waits for its command, before it is answered that the command still runs: shorter than the 5 s after which the
/// shard answers in its place.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// Conversations of one account: one per command and some forgotten ones. The oldest goes, unless it runs.
const OPEN_PER_ACCOUNT_MAX: usize = 20;
/// Conversations at a time; more are refused. Only administrators have any.
const OPEN_MAX: usize = 2_000;
/// Commands that run or wait to run: a person or two, each with several windows. More are refused.
pub const RUNNING_MAX: usize = 64;
/// Pages that one can go back: more than anybody does.
const PAGES_BACK_MAX: usize = 100;

/// What comes of a `<command/>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The answer.
    Reply(Node),
    /// An error; the second is the condition of XEP-0050 §4.4, if one fits.
    Error(StanzaError, Option<&'static str>, String),
}

/// Work of a command, to be done where it may take its time.
pub struct Task {
    /// For [`Commands::finished`].
    pub id: u64,
    adhoc: &'static Adhoc,
    caller: Caller,
    domain: String,
    form: Form,
    after: Option<String>,
    progress: Progress,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task")
            .field("id", &self.id)
            .field("command", &self.adhoc.command)
            .finish_non_exhaustive()
    }
}

impl Task {
    /// Does it. Blocks.
    ///
    /// # Errors
    /// What the command says.
    pub fn run(&self, backend: &dyn Backend) -> Result<Reply, Refusal> {
        let run = Run {
            backend,
            caller: &self.caller,
            command: self.adhoc.command,
            domain: &self.domain,
            after: self.after.as_deref(),
            progress: &self.progress,
        };
        (self.adhoc.run)(&run, &self.form)
    }
}

/// Where a list is: what it was asked for with, and where its pages begin.
#[derive(Clone)]
struct Pages {
    form: Form,
    /// The beginnings of those before.
    before: Vec<Option<String>>,
    /// The beginning of this one.
    at: Option<String>,
    /// And of the next, if there is one.
    next: Option<String>,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The form may have a password.
        f.debug_struct("Pages")
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What a conversation waits for.
#[derive(Debug)]
enum Stage<A> {
    /// A form to be filled in.
    Form,
    /// The task. Who asks meanwhile, and until when, is in `asks`.
    Running {
        task: u64,
        asks: Option<(A, Instant)>,
        progress: Progress,
        goal: Box<Goal>,
    },
    /// Somebody who asks what has come of it.
    Done(Box<(Result<Reply, Refusal>, Goal)>),
    /// Another page to be wanted.
    Page(Box<Pages>),
}

/// Where a conversation will be when its task is done.
#[derive(Debug)]
struct Goal {
    pages: Pages,
    /// And where if that fails; `None`: at the form.
    back: Option<Pages>,
}

#[derive(Debug)]
struct Open<A> {
    id: String,
    owner: FullJid,
    domain: String,
    adhoc: &'static Adhoc,
    /// When it came to this stage.
    since: Instant,
    stage: Stage<A>,
}

/// One `<command/>`: whose, at which domain, and the element.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whose.
    pub from: &'a FullJid,
    /// At which domain.
    pub domain: &'a str,
    /// The element.
    pub command: &'a Node,
}

/// See the module. `A` names who is to be answered.
#[derive(Debug)]
pub struct Commands<A> {
    /// The oldest first.
    open: Vec<Open<A>>,
    /// Tasks handed out and not finished.
    running: usize,
    next_task: u64,
    answers: Vec<(A, Outcome)>,
    tasks: Vec<Task>,
}

impl<A> Default for Commands<A> {
    fn default() -> Self {
        Self {
            open: Vec::new(),
            running: 0,
            next_task: 1,
            answers: Vec::new(),
            tasks: Vec::new(),
        }
    }
}

fn bad(condition: &'static str, text: &str) -> Outcome {
    Outcome::Error(StanzaError::BadRequest, Some(condition), text.to_owned())
}

fn busy() -> Outcome {
    let text = "too many commands are open; try again later".to_owned();
    Outcome::Error(StanzaError::ResourceConstraint, None, text)
}

impl<A> Commands<A> {
    /// Handles one. The answer may come at once, or later.
    pub fn handle(
        &mut self,
        now: Instant,
        backend: &dyn Backend,
        asks: A,
        request: &Request<'_>,
        random: &mut dyn FnMut(&mut [u8]),
    ) {
        let caller = caller(request.from);
        let Some(adhoc) = request.command.attr("node").and_then(Adhoc::find) else {
            let text = "there is no such command".to_owned();
            let outcome = Outcome::Error(StanzaError::ItemNotFound, None, text);
            return self.answer(asks, outcome);
        };
        let found = COMMANDS.iter().find(|c| c.name == adhoc.command);
        if !found.is_some_and(|c| c.is_allowed(|right| backend.grants(&caller, right))) {
            let text = "the policy does not allow you this command".to_owned();
            return self.answer(asks, Outcome::Error(StanzaError::Forbidden, None, text));
        }
        let action = request.command.attr("action").unwrap_or("execute");
        match request.command.attr("sessionid") {
            None => self.begin(now, backend, asks, request, adhoc, action, random),
            Some(id) => self.go_on(now, backend, asks, request, adhoc, action, id),
        }
    }

    /// A task has been done.
    pub fn finished(&mut self, now: Instant, task: u64, result: Result<Reply, Refusal>) {
        self.running -= 1;
        let of_task =
            |o: &Open<A>| matches!(&o.stage, Stage::Running { task: t, .. } if *t == task);
        let Some(place) = self.open.iter().position(of_task) else {
            // It was cancelled.
            return;
        };
        let open = &mut self.open[place];
        open.since = now;
        let Stage::Running { asks, goal, .. } = std::mem::replace(&mut open.stage, Stage::Form)
        else {
            return;
        };
        match asks {
            Some((asks, _)) => self.conclude(place, asks, result, *goal),
            None => open.stage = Stage::Done(Box::new((result, *goal))),
        }
    }

    /// When [`Commands::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |o: &Open<A>| match &o.stage {
            Stage::Running { asks, .. } => asks.as_ref().map(|(_, until)| *until),
            _ => None,
        };
        self.open.iter().filter_map(due).min()
    }

    /// Who has waited long enough is told that the command still runs.
    pub fn handle_timeout(&mut self, now: Instant) {
        for open in &mut self.open {
            if let Stage::Running { asks, progress, .. } = &mut open.stage
                && let Some((asks, _)) = asks.take_if(|(_, until)| *until <= now)
            {
                let outcome = still_running(open.adhoc, &open.id, progress);
                self.answers.push((asks, outcome));
            }
        }
    }

    /// Answers that are there.
    pub fn poll_answers(&mut self) -> Vec<(A, Outcome)> {
        std::mem::take(&mut self.answers)
    }

    /// Tasks to be done, at most [`RUNNING_MAX`] at a time.
    pub fn poll_tasks(&mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks)
    }

    fn answer(&mut self, asks: A, outcome: Outcome) {
        self.answers.push((asks, outcome));
    }

    #[expect(clippy::too_many_arguments, reason = "what a first step is made of")]
    fn begin(
        &mut self,
        now: Instant,
        backend: &dyn Backend,
        asks: A,
        request: &Request<'_>,
        adhoc: &'static Adhoc,
        action: &str,
        random: &mut dyn FnMut(&mut [u8]),
    ) {
        let outcome = match action {
            "execute" if !self.make_room(now, request.from) => busy(),
            "execute" => {
                let id = new_id(random);
                let place = self.open.len();
                self.open.push(Open {
                    id,
                    owner: request.from.clone(),
                    domain: request.domain.to_owned(),
                    adhoc,
                    since: now,
                    stage: Stage::Form,
                });
                let Some(form) = adhoc.form else {
                    let nothing = Form::new(FormType::Submit);
                    return self.start(now, place, asks, first(nothing), None);
                };
                let reply = answer(adhoc, &self.open[place].id, "executing")
                    .with_child(actions("complete", &["complete"]))
                    .with_child(form(backend).to_node());
                Outcome::Reply(reply)
            }
            "complete" | "next" | "prev" | "cancel" => {
                bad("bad-sessionid", "the session id is missing")
            }
            _ => bad("malformed-action", "there is no such action"),
        };
        self.answer(asks, outcome);
    }

    #[expect(clippy::too_many_arguments, reason = "what a further step is made of")]
    fn go_on(
        &mut self,
        now: Instant,
        backend: &dyn Backend,
        asks: A,
        request: &Request<'_>,
        adhoc: &'static Adhoc,
        action: &str,
        id: &str,
    ) {
        let mine =
            |o: &Open<A>| o.id == id && o.owner == *request.from && std::ptr::eq(o.adhoc, adhoc);
        let Some(place) = self.open.iter().position(mine) else {
            return self.answer(asks, bad("bad-sessionid", "there is no such session"));
        };
        let open = &mut self.open[place];
        let runs = matches!(open.stage, Stage::Running { .. });
        if !runs && now.duration_since(open.since) >= TIMEOUT {
            self.open.remove(place);
            let text = "the form has been left unanswered for too long".to_owned();
            let expired = Some("session-expired");
            return self.answer(asks, Outcome::Error(StanzaError::NotAllowed, expired, text));
        }
        if !matches!(action, "execute" | "complete" | "next" | "prev" | "cancel") {
            return self.answer(asks, bad("malformed-action", "there is no such action"));
        }
        if action == "cancel" {
            return self.cancel(place, asks);
        }
        let refused = match (&mut open.stage, action) {
            (Stage::Form, "execute" | "complete") => match filled_in(backend, adhoc, request) {
                Ok(form) => return self.start(now, place, asks, first(form), None),
                Err(text) => bad("bad-payload", &text),
            },
            (Stage::Form, _) => bad("bad-action", "the command waits for its form"),
            (
                Stage::Running {
                    asks: before,
                    progress,
                    ..
                },
                "execute" | "next",
            ) => {
                // Of two who ask, the first has waited longer.
                if let Some((before, _)) = before.replace((asks, now + PATIENCE)) {
                    let outcome = still_running(adhoc, id, progress);
                    self.answer(before, outcome);
                }
                return;
            }
            (Stage::Done(_), "execute" | "next") => {
                if let Stage::Done(done) = std::mem::replace(&mut open.stage, Stage::Form) {
                    let (result, goal) = *done;
                    open.since = now;
                    self.conclude(place, asks, result, goal);
                }
                return;
            }
            (Stage::Page(pages), action) => {
                let wanted = match (action, &pages.next) {
                    ("execute" | "next", Some(_)) => pages.forward(),
                    ("prev", _) if !pages.before.is_empty() => pages.back(),
                    ("execute" | "complete", _) => {
                        let done = answer(adhoc, id, "completed");
                        self.open.remove(place);
                        return self.answer(asks, Outcome::Reply(done));
                    }
                    _ => {
                        let text = "there is no such page";
                        return self.answer(asks, bad("bad-action", text));
                    }
                };
                let back = Some(Pages::clone(pages));
                return self.start(now, place, asks, wanted, back);
            }
            (Stage::Running { .. } | Stage::Done(_), _) => {
                bad("bad-action", "the command runs: next, or cancel")
            }
        };
        self.answer(asks, refused);
    }

    fn cancel(&mut self, place: usize, asks: A) {
        let open = self.open.remove(place);
        let mut reply = answer(open.adhoc, &open.id, "canceled");
        if let Stage::Running {
            asks: before,
            progress,
            ..
        } = open.stage
        {
            progress.stop();
            let text = "what has been begun is finished all the same; what has not is left";
            reply = reply.with_child(note("warn", text));
            if let Some((before, _)) = before {
                self.answer(before, Outcome::Reply(reply.clone()));
            }
        }
        self.answer(asks, Outcome::Reply(reply));
    }

    /// Hands the task out.
    fn start(&mut self, now: Instant, place: usize, asks: A, pages: Pages, back: Option<Pages>) {
        if self.running >= RUNNING_MAX {
            let open = &self.open[place];
            if open.adhoc.form.is_none() {
                self.open.remove(place);
            }
            return self.answer(asks, busy());
        }
        self.running += 1;
        let task = self.next_task;
        self.next_task += 1;
        let open = &mut self.open[place];
        let progress = Progress::default();
        self.tasks.push(Task {
            id: task,
            adhoc: open.adhoc,
            caller: caller(&open.owner),
            domain: open.domain.clone(),
            form: pages.form.clone(),
            after: pages.at.clone(),
            progress: progress.clone(),
        });
        open.since = now;
        open.stage = Stage::Running {
            task,
            asks: Some((asks, now + PATIENCE)),
            progress,
            goal: Box::new(Goal { pages, back }),
        };
    }

    /// Says what has come of the task. The stage is the form's by now.
    fn conclude(&mut self, place: usize, asks: A, result: Result<Reply, Refusal>, goal: Goal) {
        let Goal { mut pages, back } = goal;
        let open = &mut self.open[place];
        let reply = match result {
            Ok(reply) => reply,
            Err(refusal) => {
                match back {
                    Some(pages) => open.stage = Stage::Page(Box::new(pages)),
                    None if open.adhoc.form.is_some() => {}
                    None => drop(self.open.remove(place)),
                }
                return self.answer(asks, error(refusal));
            }
        };
        let note = (!reply.note.is_empty()).then(|| {
            let kind = if reply.is_error { "error" } else { "info" };
            note(kind, &reply.note)
        });
        let form = reply.form.map(|form| form.to_node());
        let form = form.map(|form| form.with_children(reply.inside));
        let is_list = reply.next.is_some() || !pages.before.is_empty();
        let node = match is_list {
            true => {
                let can = [
                    reply.next.as_ref().map(|_| "next"),
                    (!pages.before.is_empty()).then_some("prev"),
                    Some("complete"),
                ];
                let can: Vec<&str> = can.into_iter().flatten().collect();
                answer(open.adhoc, &open.id, "executing").with_child(actions(can_first(&can), &can))
            }
            false => answer(open.adhoc, &open.id, "completed"),
        };
        if is_list {
            pages.next = reply.next;
            open.stage = Stage::Page(Box::new(pages));
        } else {
            self.open.remove(place);
        }
        let node = node.with_children(note).with_children(form);
        self.answer(asks, Outcome::Reply(node));
    }

    /// Room for one more of this account. False: there is none.
    fn make_room(&mut self, now: Instant, from: &FullJid) -> bool {
        let runs = |o: &Open<A>| matches!(o.stage, Stage::Running { .. });
        // Twice the time: who is late is told so once.
        self.open
            .retain(|o| runs(o) || now.duration_since(o.since) < 2 * TIMEOUT);
        let mut per_account: HashMap<&str, usize> = HashMap::new();
        for open in &self.open {
            *per_account.entry(open.owner.bare_str()).or_default() += 1;
        }
        let mine = per_account.get(from.bare_str()).copied().unwrap_or(0);
        if mine < OPEN_PER_ACCOUNT_MAX {
            return self.open.len() < OPEN_MAX;
        }
        let oldest = |o: &Open<A>| o.owner.bare_str() == from.bare_str() && !runs(o);
        let oldest = self.open.iter().position(oldest);
        oldest.map(|place| self.open.remove(place)).is_some()
    }
}

impl Pages {
    fn forward(&self) -> Self {
        let mut before = self.before.clone();
        before.push(self.at.clone());
        if before.len() > PAGES_BACK_MAX {
            before.remove(0);
        }
        Self {
            before,
            at: self.next.clone(),
            next: None,
            form: self.form.clone(),
        }
    }

    fn back(&self) -> Self {
        let mut before = self.before.clone();
        let at = before.pop().flatten();
        Self {
            before,
            at,
            next: None,
            form: self.form.clone(),
        }
    }
}

fn first(form: Form) -> Pages {
    Pages {
        form,
        before: Vec::new(),
        at: None,
        next: None,
    }
}

fn caller(from: &FullJid) -> Caller {
    Caller {
        door: Door::Account(from.bare()),
        from: from.as_str().to_owned(),
    }
}

fn new_id(random: &mut dyn FnMut(&mut [u8])) -> String {
    let mut bytes = [0; 16];
    random(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn filled_in(backend: &dyn Backend, adhoc: &Adhoc, request: &Request<'_>) -> Result<Form, String> {
    let offered = adhoc.form.ok_or("this command has no form")?;
    let x = request.command.child("x", ns::DATA_FORMS);
    let form = Form::parse(x.ok_or("the form is missing")?).map_err(|e| e.to_string())?;
    match form.kind {
        FormType::Submit => offered(backend).check(&form).map_err(|e| e.to_string()),
        other => Err(format!("the form is of type {other}, not submit")),
    }
}

fn answer(adhoc: &Adhoc, id: &str, status: &str) -> Node {
    Node::new("command", ns::COMMANDS)
        .with_attr("node", adhoc.full_node())
        .with_attr("sessionid", id)
        .with_attr("status", status)
}

fn actions(execute: &str, can: &[&str]) -> Node {
    // In the order of the schema.
    let all = ["prev", "next", "complete"].into_iter();
    let can = all.filter(|action| can.contains(action));
    Node::new("actions", ns::COMMANDS)
        .with_attr("execute", execute)
        .with_children(can.map(|action| Node::new(action, ns::COMMANDS)))
}

/// What is done by somebody who only goes on: the next page, and behind the last the end.
fn can_first(can: &[&str]) -> &'static str {
    match can.contains(&"next") {
        true => "next",
        false => "complete",
    }
}

fn note(kind: &'static str, text: &str) -> Node {
    Node::new("note", ns::COMMANDS)
        .with_attr("type", kind)
        .with_text(text)
}

fn still_running(adhoc: &Adhoc, id: &str, progress: &Progress) -> Outcome {
    let text = format!("still running{}", progress.in_words());
    let reply = answer(adhoc, id, "executing")
        .with_child(actions("next", &["next"]))
        .with_child(note("info", &text));
    Outcome::Reply(reply)
}

fn error(refusal: Refusal) -> Outcome {
    let (condition, application) = match refusal.code {
        "not-found" => (StanzaError::ItemNotFound, None),
        "exists" => (StanzaError::Conflict, None),
        "forbidden" => (StanzaError::Forbidden, None),
        "bad-request" | "too-long" => (StanzaError::BadRequest, Some("bad-payload")),
        _ => (StanzaError::ResourceConstraint, None),
    };
    Outcome::Error(condition, application, refusal.text)
}
