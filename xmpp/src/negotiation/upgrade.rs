//! Keys of other hashes for an account, made with a log-in (XEP-0480): of whoever has shown by SCRAM that it knows the password.
//!
//! ```text
//!   logged in ── lacking? ──> <continue/> ──<next/>──> <task-data><salt/> ──<task-data><hash/>──> AddKeys ──on disk──┐
//!                    ▲                                                                                               │
//!                    └───────────────────────────────────────── the next of them ────────────────────────────────────┘
//! ```
//! In: what the client has asked for, and the hashes that its account has keys of. Out: the tasks, the keys.
//! Never: does a task that was not asked for, or not offered; takes an element out of turn; goes back to where another log-in could
//! begin: after `<continue/>` there is none (XEP-0388 §2.6.3).

use super::{Action, Negotiation, State};
use crate::element::Element;
use crate::ns;
use crate::sasl::{self, Failure};
use crate::scram::{SALT_BYTES, ScramHash, ScramKeys};
use bytes::Bytes;
use std::sync::Arc;

/// What the name of a task begins with (XEP-0480 §4.1).
const PREFIX: &str = "UPGR-";

/// The name of the task that makes keys of a hash.
pub(super) fn task(hash: ScramHash) -> String {
    format!("{PREFIX}{}", hash.mechanism())
}

/// The hash of a task.
pub(super) fn hash(task: &str) -> Option<ScramHash> {
    ScramHash::from_mechanism(task.strip_prefix(PREFIX)?)
}

/// A task under way.
#[derive(Debug)]
pub(super) struct Task {
    hash: ScramHash,
    salt: [u8; SALT_BYTES],
    /// The client has the salt.
    salted: bool,
    /// Those that come after it, with their salts.
    then: Vec<(ScramHash, [u8; SALT_BYTES])>,
}

impl Negotiation {
    /// The keys by which the client has logged in, if it wants others made: the account is to be looked at, and
    /// [`Negotiation::upgrade`] called before anything else goes on.
    pub fn upgrade_wish(&mut self) -> Option<Arc<ScramKeys>> {
        let inline = self.inline.as_ref()?;
        let wanted = matches!(self.state, State::Inline) && !inline.upgrades.is_empty();
        let keys = inline.keys.clone().filter(|_| wanted)?;
        self.state = State::Storing;
        Some(keys)
    }

    /// Which keys the account has. `None`: it is not known, or they are not in our store. What to send; nothing if no task is to be done:
    /// then the log-in goes on as if none had been asked for.
    pub fn upgrade(
        &mut self,
        account: Option<&[ScramKeys]>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Vec<Action> {
        let (State::Storing, Some(inline)) = (&self.state, &mut self.inline) else {
            return Vec::new();
        };
        let asked = std::mem::take(&mut inline.upgrades);
        // The account that has logged in, and with the password that it has now.
        let known = account.filter(|all| inline.keys.as_ref().is_some_and(|k| all.contains(k)));
        let lacking =
            |hash: &ScramHash| known.is_some_and(|all| all.iter().all(|k| k.hash != *hash));
        let tasks = asked.into_iter().filter(lacking).map(|hash| {
            let mut salt = [0; SALT_BYTES];
            random(&mut salt);
            (hash, salt)
        });
        let tasks = tasks.collect();
        self.next_task(tasks)
    }

    /// The keys are on disk. What to send; nothing if there was no other task.
    pub fn keys_added(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Task(task) => self.next_task(task.then),
            state => {
                self.state = state;
                Vec::new()
            }
        }
    }

    /// They are not: the log-in has failed, though not for what the client has said.
    pub fn keys_not_added(&mut self) -> Vec<Action> {
        self.fail_task(Failure::TemporaryAuthFailure)
    }

    fn next_task(&mut self, mut tasks: Vec<(ScramHash, [u8; SALT_BYTES])>) -> Vec<Action> {
        if tasks.is_empty() {
            self.state = State::Inline;
            return Vec::new();
        }
        let (hash, salt) = tasks.remove(0);
        let last = self.inline.as_mut().and_then(|inline| inline.last.take());
        let data = last.map_or_else(String::new, |last| {
            format!("<additional-data>{}</additional-data>", sasl::encode(last))
        });
        let said = format!(
            "<continue xmlns='urn:xmpp:sasl:2'>{data}<tasks><task>{}</task></tasks></continue>",
            task(hash)
        );
        self.state = State::Task(Box::new(Task {
            hash,
            salt,
            salted: false,
            then: tasks,
        }));
        vec![Action::Send(Bytes::from(said))]
    }

    /// An element of the client that has a task to do.
    pub(super) fn task(&mut self, mut task: Task, name: &str, element: &Element) -> Vec<Action> {
        let iterations = self.offer.fake.iterations();
        match (name, task.salted) {
            ("next", false) => {
                let asked = element.attr("task");
                if asked.as_deref().and_then(hash) != Some(task.hash) {
                    return self.fail_task(Failure::MalformedRequest);
                }
                let said = format!(
                    "<task-data xmlns='urn:xmpp:sasl:2'><salt xmlns='urn:xmpp:scram-upgrade:0' \
                     iterations='{iterations}'>{}</salt></task-data>",
                    sasl::encode(task.salt)
                );
                task.salted = true;
                self.state = State::Task(Box::new(task));
                vec![Action::Send(Bytes::from(said))]
            }
            ("task-data", true) => {
                let salted = match salted_password(element, task.hash) {
                    Ok(salted) => salted,
                    Err(failure) => return self.fail_task(failure),
                };
                let keys = ScramKeys::of_salted(task.hash, &salted, &task.salt, iterations);
                let beside = self.inline.as_ref().and_then(|inline| inline.keys.clone());
                let Some((keys, beside)) = keys.zip(beside) else {
                    return self.fail_task(Failure::MalformedRequest);
                };
                self.state = State::Task(Box::new(task));
                vec![Action::AddKeys {
                    beside,
                    keys: Box::new(keys),
                }]
            }
            ("abort", _) => self.fail_task(Failure::Aborted),
            _ => self.fail_task(Failure::MalformedRequest),
        }
    }

    fn fail_task(&mut self, failure: Failure) -> Vec<Action> {
        let account = self.account.take();
        self.attempt.name = account.map(|account| account.as_str().to_owned());
        let actions = self.fail(failure);
        self.state = State::Done;
        actions
    }
}

/// What the client has made of its password.
fn salted_password(element: &Element, hash: ScramHash) -> Result<Vec<u8>, Failure> {
    let mut all = element.children();
    let (Some(child), None) = (all.next(), all.next()) else {
        return Err(Failure::MalformedRequest);
    };
    if !child.is("hash", ns::SCRAM_UPGRADE) {
        return Err(Failure::MalformedRequest);
    }
    // XML may be laid out; base64 may not.
    sasl::decode(child.text().trim(), hash.output_bytes())
}
