//! Conversation scripts in the format of Prosody's scansion, and their runner.
//!
//! `script` reads a file into statements, `run` plays one script against a [`Stage`]; this file holds
//! what a test calls: all scripts, in parallel, each reported by name. The format and the verbs we
//! added are described in the README beside this crate.

mod run;
mod script;

pub use run::play;
pub use script::{Script, Statement, Verb};

use crate::client::{Account, Endpoint, Transport};
use crate::component::Component;
use crate::xml::Xml;
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

/// What a script is played against.
pub trait Stage: Sync {
    /// Where clients connect.
    fn endpoint(&self) -> Endpoint;
    /// Does what a statement such as `Server is killed` says.
    fn disturb(&self, what: Disturbance) -> Result<()>;
    /// Whether this server is known to behave otherwise than `script` says, and why.
    fn differs<'s>(&self, script: &'s Script) -> Option<&'s str>;
    /// Whether an element is a habit of this server that no script is about; it is skipped.
    fn is_noise(&self, _element: &Xml) -> bool {
        false
    }
    /// Whether this server sends the same presence again now and then; repetitions are skipped.
    fn repeats_presence(&self) -> bool {
        false
    }
    /// The client of every script, by its place among them, whose words arrive late: a script that waits for
    /// nothing between what it sends and what another client does about it fails on it always, not seldom.
    fn slow_client(&self) -> Option<usize> {
        None
    }
    /// Short name, as scripts use it in `# ONLY:`.
    fn name(&self) -> &str;
}

/// What a script may do to the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// `Server is killed` (-9).
    KillServer,
    /// `Server starts`.
    StartServer,
    /// `Link is cut`: nothing comes through, nobody is told.
    CutLink,
    /// `Link is reset`: connections are closed, new ones refused.
    ResetLink,
    /// `Link is restored`.
    RestoreLink,
}

/// How one script ended.
pub struct Outcome {
    /// File name without `.scs`.
    pub name: String,
    /// `Err` says what went wrong and shows the conversation.
    pub result: Result<()>,
    /// `Some` if a difference was announced by the script.
    pub known: Option<String>,
    /// Milliseconds it took.
    pub took_ms: u128,
}

/// Reads all scripts of a directory; `SCRIPT=part` in the environment selects by name.
///
/// Scripts run at the same time on one server, so each must have accounts of its own.
pub fn load(dir: &Path) -> Result<Vec<Script>> {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .with_context(|| dir.display().to_string())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "scs"))
        .collect();
    names.sort();
    let mut owners: HashMap<String, String> = HashMap::new();
    let mut scripts = Vec::new();
    for path in names {
        let script = Script::read(&path)?;
        for account in script.accounts() {
            if let Some(other) = owners.insert(account.user.clone(), script.name.clone()) {
                ensure!(
                    other == script.name,
                    "{} and {other} both use the account {}",
                    script.name,
                    account.user
                );
            }
        }
        for component in script.components() {
            let other = owners.insert(component.domain.clone(), script.name.clone());
            ensure!(
                other.is_none_or(|other| other == script.name),
                "{}: another script has the component {}",
                script.name,
                component.domain
            );
        }
        scripts.push(script);
    }
    if let Ok(part) = std::env::var("SCRIPT") {
        scripts.retain(|s| s.name.contains(&part));
    }
    Ok(scripts)
}

/// Every account that the scripts need on the server.
pub fn accounts(scripts: &[Script]) -> Vec<Account> {
    let mut all: Vec<Account> = scripts.iter().flat_map(Script::accounts).collect();
    all.sort_by(|a, b| a.user.cmp(&b.user));
    all.dedup();
    all
}

/// Every component that the server must know for the scripts.
pub fn components(scripts: &[Script]) -> Vec<Component> {
    let mut all: Vec<Component> = scripts.iter().flat_map(Script::components).collect();
    all.sort_by(|a, b| a.domain.cmp(&b.domain));
    all.dedup();
    all
}

/// Plays all scripts that are meant for this stage: in parallel, then the disturbing ones in turn.
pub fn play_all(scripts: &[Script], stage: &dyn Stage) -> Vec<Outcome> {
    let meant: Vec<&Script> = scripts.iter().filter(|s| s.is_for(stage.name())).collect();
    let (disturbing, calm): (Vec<&Script>, Vec<&Script>) =
        meant.into_iter().partition(|s| s.disturbs());
    let queue = Mutex::new(calm.into_iter().rev().collect::<Vec<_>>());
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some(script) = queue.lock().expect("nobody panics with it").pop() else {
                        return;
                    };
                    let outcome = play_one(script, stage);
                    outcomes
                        .lock()
                        .expect("nobody panics with it")
                        .push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("nobody panics with it");
    outcomes.extend(disturbing.into_iter().map(|script| play_one(script, stage)));
    outcomes.sort_by(|a, b| a.name.cmp(&b.name));
    outcomes
}

fn play_one(script: &Script, stage: &dyn Stage) -> Outcome {
    let begun = Instant::now();
    let result = play(script, stage);
    Outcome {
        name: script.name.clone(),
        result,
        known: stage.differs(script).map(str::to_owned),
        took_ms: begun.elapsed().as_millis(),
    }
}

/// Prints every script by name and panics if one failed.
#[track_caller]
pub fn report(stage: &dyn Stage, outcomes: &[Outcome]) {
    let mut text = String::new();
    let mut failed = Vec::new();
    for Outcome {
        name,
        result,
        known,
        took_ms,
    } in outcomes
    {
        let _ = match (result, known) {
            (Ok(()), _) => writeln!(text, "  ok      {name} ({took_ms} ms)"),
            (Err(error), Some(why)) => {
                let error = format!("{error:#}");
                let first = error.lines().next().unwrap_or_default();
                writeln!(text, "  differs {name}: {why} ({first})")
            }
            (Err(error), None) => {
                failed.push(name.as_str());
                writeln!(text, "  FAILED  {name}: {error:#}")
            }
        };
    }
    println!(
        "{} scripts against {}:\n{text}",
        outcomes.len(),
        stage.name()
    );
    assert!(!outcomes.is_empty(), "no script was played");
    assert!(
        failed.is_empty(),
        "{} failed against {}: {failed:?}",
        failed.len(),
        stage.name()
    );
}

/// The transport that a stage's name stands for.
pub fn transport_of(stage: &str) -> Transport {
    match stage.rsplit('-').next() {
        Some("starttls") => Transport::StartTls,
        Some("direct") => Transport::DirectTls,
        Some("ws") => Transport::WebSocket,
        Some("wss") => Transport::WebSocketTls,
        _ => Transport::Plain,
    }
}
