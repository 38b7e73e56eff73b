//! Worker threads for what may take time: reads of the store, look-ups in directories, password work.
//!
//! ```text
//!   shard ─ reads ─► readers ──(somebody of a directory elsewhere, not cached)──┐
//!   shard ─ looks ─► Lookups ─► of each chain of directories: questions, people ◄┘
//!                                                             passwords
//! ```
//! Each chain has workers of its own, and passwords are apart from questions, and both from what is asked about people (vCards,
//! searches, registrations): a slow directory delays those who need it, and nobody else, and nothing delays log-ins.
//!
//! In: jobs of the shards. Out: their results, as events.
//! Never: runs on a shard; answers an outage with "no such user"; lets a shard wait for a directory: what does not fit into a
//! queue has no answer, at once.

use super::gssapi::Gssapi;
use super::people::{self, Clerk};
use super::queue::Outbox;
use crate::event::{Event, Loaded, Look, LookResult, LookTag, Read, ReadResult, ReadTag, ShardId};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use directory::site::Site;
use directory::{DirectoryError, KeysAnswer, PasswordAnswer};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use store::{Engine, Reader};
use xmpp::jid::BareJid;
use xmpp::negotiation::{Accounts, Keys, PasswordCheck};
use xmpp::sasl::{Failure, GssapiAnswer, Identity, Named};

/// Reads of the store answered before the results are handed on.
const JOBS_PER_TURN: usize = 64;

/// Threads per queue for accounts in the store: PBKDF2 takes a core each.
const LOCAL_WORKERS: usize = 2;

/// Threads per queue of a chain that asks elsewhere: they wait more than they work. With a directory that takes 100 ms, 80 answers a
/// second.
const REMOTE_WORKERS: usize = 8;

/// Jobs that wait for a chain. More would not be answered before the client has given up.
const JOBS_MAX: usize = 1_024;

/// Threads that ask for pictures, for presence: everybody who logs in has one fetched, so they leave the directory to the others.
const PHOTO_WORKERS: usize = 2;

/// Pictures that may be asked for at once, when all come in the morning. Who is beyond that is asked for at the next log-in.
const PHOTO_JOBS_MAX: usize = 65_536;

/// Who has waited for so long for an answer about people has been told that there is none (`Settings::settle_max`).
const PATIENCE: Duration = Duration::from_secs(5);

/// A read of the store.
#[derive(Debug)]
pub struct ReadJob(pub ShardId, pub ReadTag, pub Read);

/// What a chain is asked.
#[derive(Debug)]
enum Job {
    Look(ShardId, LookTag, Look),
    /// Of an account whose directory is elsewhere: whether it exists, and what is stored for it.
    Load(ShardId, ReadTag, BareJid),
    /// A question about people, and since when it waits.
    People(ShardId, LookTag, Look, Instant),
    /// What there is for a vCard.
    Card(ShardId, ReadTag, BareJid, Instant),
    /// What somebody's picture is known by.
    Photo(ShardId, ReadTag, BareJid),
}

/// The queues of one chain.
#[derive(Debug)]
struct Queues {
    passwords: Sender<Job>,
    questions: Sender<Job>,
    people: Sender<Job>,
    /// `None`: there are no pictures.
    photos: Option<Sender<Job>>,
}

/// One configuration of directories, and who works for it. None at all until there is one.
#[derive(Debug, Default)]
pub struct Routes {
    /// The directories.
    pub site: Arc<Site>,
    /// By domain.
    queues: HashMap<String, Arc<Queues>>,
}

impl Routes {
    /// Starts workers for each chain of the site. They end when the last reference to these routes is gone.
    ///
    /// # Errors
    /// A reader or a thread could not be had.
    pub fn start(
        site: Arc<Site>,
        gssapi: Option<Arc<Gssapi>>,
        domains: &[String],
        engine: &Arc<dyn Engine>,
        clerk: &Clerk,
        to_shards: &dyn Fn() -> Vec<Outbox<Vec<Event>>>,
    ) -> anyhow::Result<Arc<Self>> {
        let mut by_chain: HashMap<Vec<String>, Arc<Queues>> = HashMap::new();
        let mut queues = HashMap::new();
        for domain in domains {
            let chain: Vec<String> = site
                .chain(domain)
                .iter()
                .map(|b| b.name().to_owned())
                .collect();
            let its = match by_chain.get(&chain) {
                Some(known) => known.clone(),
                None => {
                    let local = site.is_local(domain);
                    let workers = if local { LOCAL_WORKERS } else { REMOTE_WORKERS };
                    let start = |kind: &str, workers, max| -> anyhow::Result<Sender<Job>> {
                        let (tx, rx) = bounded(max);
                        for n in 0..workers {
                            let worker = Worker {
                                reader: engine.reader()?,
                                site: site.clone(),
                                clerk: clerk.clone(),
                                gssapi: gssapi.clone(),
                                shards: to_shards(),
                            };
                            let jobs = rx.clone();
                            spawn(&format!("{kind}-{n}"), move || worker.run(&jobs))?;
                        }
                        Ok(tx)
                    };
                    let new = Arc::new(Queues {
                        passwords: start("password", workers, JOBS_MAX)?,
                        questions: start("question", workers, JOBS_MAX)?,
                        people: start("people", workers, JOBS_MAX)?,
                        photos: (site.abilities(domain).photo)
                            .then(|| start("photo", PHOTO_WORKERS, PHOTO_JOBS_MAX))
                            .transpose()?,
                    });
                    by_chain.insert(chain, new.clone());
                    new
                }
            };
            queues.insert(domain.clone(), its);
        }
        Ok(Arc::new(Routes { site, queues }))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(run)
        .map(drop)
        .with_context(|| format!("thread `{name}` cannot be started"))
}

/// Where look-ups go. Shared by shards, readers and administrators; a reload puts other routes in.
#[derive(Debug, Clone, Default)]
pub struct Lookups(Arc<RwLock<Arc<Routes>>>);

impl Lookups {
    /// The routes now.
    pub fn routes(&self) -> Arc<Routes> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on to these. Who is being asked by the old ones gets the answer.
    pub fn replace(&self, routes: Arc<Routes>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Asks. `Some`: the answer is there at once.
    pub fn ask(&self, shard: ShardId, tag: LookTag, look: Look) -> Option<Event> {
        let routes = self.routes();
        let Some(queues) = routes.queues.get(look.domain()) else {
            return Some(Event::Looked(tag, look.unanswered(), 0));
        };
        let sent = match &look {
            Look::Password(..) => queues.passwords.try_send(Job::Look(shard, tag, look)),
            Look::Scram(..) | Look::Accounts(_) | Look::Gssapi(_) | Look::Token(..) => {
                queues.questions.try_send(Job::Look(shard, tag, look))
            }
            Look::Search { .. }
            | Look::Register(_)
            | Look::ChangePassword(..)
            | Look::Unregister(_)
            | Look::DropMessages(_) => {
                let job = Job::People(shard, tag, look, Instant::now());
                queues.people.try_send(job)
            }
        };
        match sent.err()?.into_inner() {
            Job::Look(_, tag, look) | Job::People(_, tag, look, _) => {
                tracing::debug!("more look-ups wait for a directory than may");
                Some(Event::Looked(tag, look.unanswered(), 0))
            }
            Job::Load(..) | Job::Card(..) | Job::Photo(..) => None,
        }
    }

    /// What there is for a vCard, from a reader's thread. `None`: a directory is being asked, which answers the shard itself.
    fn card(
        &self,
        reader: &mut dyn Reader,
        shard: ShardId,
        tag: &ReadTag,
        owner: &BareJid,
    ) -> Option<ReadResult> {
        let routes = self.routes();
        if let Some(card) = routes.site.card_at_hand(owner) {
            return Some(people::card(reader, card).unwrap_or_else(failed_read));
        }
        let Some(queues) = routes.queues.get(owner.domainpart()) else {
            return Some(ReadResult::Card(None));
        };
        let job = Job::Card(shard, tag.clone(), owner.clone(), Instant::now());
        let full = queues.people.try_send(job).err();
        full.map(|_| ReadResult::Failed("the directory has too much to do".into()))
    }

    /// What somebody's picture is known by, from a reader's thread. `None`: a directory is being asked, which answers the shard itself.
    fn photo(&self, shard: ShardId, tag: &ReadTag, owner: &BareJid) -> Option<ReadResult> {
        let routes = self.routes();
        let queues = routes.queues.get(owner.domainpart());
        let Some(photos) = queues.and_then(|q| q.photos.as_ref()) else {
            return Some(ReadResult::Photo(None));
        };
        let full = photos.try_send(Job::Photo(shard, tag.clone(), owner.clone()));
        let full = full.err();
        full.map(|_| ReadResult::Failed("the directory has too much to do".into()))
    }

    /// Whether the account exists and what is stored for it, from a reader's thread. `None`: a directory is being asked, which
    /// answers the shard itself.
    fn load(
        &self,
        reader: &mut dyn Reader,
        shard: ShardId,
        tag: &ReadTag,
        owner: &BareJid,
    ) -> Option<ReadResult> {
        if owner.localpart().is_none() {
            // A domain is nobody's account: a component, of which there is what is stored for it.
            return Some(of_person(reader, owner, false, false));
        }
        let routes = self.routes();
        if routes.site.is_local(owner.domainpart()) {
            let data = reader.user(owner);
            return Some(loaded(reader, owner, data, false));
        }
        if let Some(person) = routes.site.at_hand(owner) {
            let photo = routes.site.abilities(owner.domainpart()).photo;
            return Some(match person {
                Some(person) => of_person(reader, owner, person.disabled, photo),
                None => ReadResult::User(None),
            });
        }
        let Some(queues) = routes.queues.get(owner.domainpart()) else {
            return Some(ReadResult::User(None));
        };
        let job = Job::Load(shard, tag.clone(), owner.clone());
        queues
            .questions
            .try_send(job)
            .err()
            .map(|_| ReadResult::Failed("the directory has too much to do".into()))
    }
}

/// A reader of the store.
pub struct StoreReader {
    /// Its connection.
    pub reader: Box<dyn Reader>,
    /// For accounts whose directory is elsewhere.
    pub lookups: Lookups,
    /// To the shards.
    pub shards: Vec<Outbox<Vec<Event>>>,
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreReader")
    }
}

impl StoreReader {
    /// Runs until every shard is gone.
    pub fn run(mut self, jobs: &Receiver<ReadJob>) {
        let StoreReader {
            reader,
            lookups,
            shards,
        } = &mut self;
        in_turns(shards, jobs, JOBS_PER_TURN, |ReadJob(shard, tag, read)| {
            let result = match &read {
                Read::User(owner) => lookups.load(reader.as_mut(), shard, &tag, owner)?,
                Read::Pending {
                    owner,
                    after,
                    limit,
                    bytes_max,
                } => reader
                    .pending_page(owner, *after, *limit, *bytes_max)
                    .map_or_else(failed_read, ReadResult::Pending),
                Read::Rows {
                    owner,
                    positions,
                    bytes_max,
                } => reader
                    .rows_at(owner, positions, *bytes_max)
                    .map_or_else(failed_read, ReadResult::Rows),
                Read::Card(owner) => lookups.card(reader.as_mut(), shard, &tag, owner)?,
                Read::Photo(owner) => lookups.photo(shard, &tag, owner)?,
                Read::Activity(owner) => reader
                    .activity(owner)
                    .map_or_else(failed_read, ReadResult::Activity),
                Read::Private(key) => reader
                    .private(&key.owner, &key.name, &key.ns)
                    .map_or_else(failed_read, ReadResult::Private),
                Read::Nodes(owner) => reader
                    .pubsub_nodes(owner)
                    .map_or_else(failed_read, ReadResult::Nodes),
                Read::Items(query) => reader
                    .pubsub_items(query)
                    .map_or_else(failed_read, ReadResult::Items),
                Read::LastItems(ask) => crate::pubsub::last::read(reader.as_mut(), ask)
                    .map_or_else(failed_read, ReadResult::LastItems),
                Read::Bookmarks(owner) => crate::pubsub::bookmarks::read(reader.as_mut(), owner)
                    .map_or_else(failed_read, ReadResult::Bookmarks),
                Read::Archive(ask) => crate::archive::read(reader.as_mut(), ask)
                    .map_or_else(failed_read, ReadResult::Archive),
                Read::Account(owner) => reader
                    .account(owner)
                    .map(|account| ReadResult::Account(account.map(Box::new)))
                    .unwrap_or_else(failed_read),
                Read::ArchiveEnds(owner) => crate::archive::ends(reader.as_mut(), owner)
                    .map_or_else(failed_read, ReadResult::Archive),
            };
            Some((shard, Event::Read(tag, result)))
        });
    }
}

fn loaded(
    reader: &mut dyn Reader,
    owner: &BareJid,
    data: Result<Option<store::UserData>, store::StoreError>,
    directory_photo: bool,
) -> ReadResult {
    let loaded = data.and_then(|data| match data {
        None => Ok(None),
        Some(data) => {
            let photo = crate::pubsub::avatar::read_hash(reader, owner)?;
            Ok(Some(Box::new(Loaded {
                data,
                photo,
                directory_photo,
            })))
        }
    });
    loaded.map_or_else(failed_read, ReadResult::User)
}

fn of_person(
    reader: &mut dyn Reader,
    owner: &BareJid,
    disabled: bool,
    directory_photo: bool,
) -> ReadResult {
    let data = reader.user_data(owner);
    let data = data.map(|data| Some(store::UserData { disabled, ..data }));
    loaded(reader, owner, data, directory_photo)
}

fn failed_read(error: store::StoreError) -> ReadResult {
    tracing::warn!(%error, "a read of the store failed");
    ReadResult::Failed(error.to_string())
}

/// Takes jobs, at most `per_turn` at a time, and hands on their results, until nobody sends jobs any more.
fn in_turns<J>(
    shards: &mut [Outbox<Vec<Event>>],
    jobs: &Receiver<J>,
    per_turn: usize,
    mut work: impl FnMut(J) -> Option<(ShardId, Event)>,
) {
    loop {
        let clear = shards.iter_mut().fold(true, |c, s| c & s.retry());
        let wait = if clear {
            Duration::from_secs(3_600)
        } else {
            Duration::from_millis(1)
        };
        let first = match jobs.recv_timeout(wait) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let mut results: Vec<Vec<Event>> = shards.iter().map(|_| Vec::new()).collect();
        for job in std::iter::once(first).chain(jobs.try_iter().take(per_turn - 1)) {
            if let Some((shard, event)) = work(job) {
                results[usize::from(shard.0)].push(event);
            }
        }
        for (outbox, events) in shards.iter_mut().zip(results) {
            if !events.is_empty() {
                outbox.send(events);
            }
        }
    }
}

/// A worker of a chain.
struct Worker {
    reader: Box<dyn Reader>,
    site: Arc<Site>,
    clerk: Clerk,
    gssapi: Option<Arc<Gssapi>>,
    shards: Vec<Outbox<Vec<Event>>>,
}

impl Worker {
    fn run(mut self, jobs: &Receiver<Job>) {
        let mut shards = std::mem::take(&mut self.shards);
        // An answer does not wait for a slow directory to answer the next question.
        in_turns(&mut shards, jobs, 1, |job| self.work(job));
    }

    /// `None`: nobody waits for it any more.
    fn work(&mut self, job: Job) -> Option<(ShardId, Event)> {
        let (site, reader) = (&*self.site, self.reader.as_mut());
        let unanswered = |error: DirectoryError| {
            failed(&error);
            ReadResult::Failed(error.to_string())
        };
        Some(match job {
            Job::Look(shard, tag, look) => {
                // Before anything is read by which somebody is let in.
                let revocations = reader.revocations();
                let result = match look {
                    Look::Token(ask, rules) => {
                        LookResult::Token(super::tokens::check(site, reader, &ask, rules))
                    }
                    look => answer(site, self.gssapi.as_deref(), look),
                };
                (shard, Event::Looked(tag, result, revocations))
            }
            Job::Load(shard, tag, owner) => {
                let photo = site.abilities(owner.domainpart()).photo;
                let result = match site.person(&owner) {
                    Ok(Some(person)) => of_person(reader, &owner, person.disabled, photo),
                    Ok(None) => ReadResult::User(None),
                    Err(error) => unanswered(error),
                };
                (shard, Event::Read(tag, result))
            }
            Job::People(shard, tag, look, since) => {
                // A directory that was stuck is not asked what is of no use.
                let late = since.elapsed() > PATIENCE && !matches!(look, Look::DropMessages(_));
                let result = match late {
                    true => look.unanswered(),
                    false => self.clerk.answer(site, reader, &look),
                };
                (shard, Event::Looked(tag, result, 0))
            }
            Job::Photo(shard, tag, owner) => {
                let result = match site.photo_id(&owner) {
                    Ok(id) => people::photo(reader, &owner, id).unwrap_or_else(failed_read),
                    Err(error) => unanswered(error),
                };
                (shard, Event::Read(tag, result))
            }
            Job::Card(_, _, _, since) if since.elapsed() > PATIENCE => return None,
            Job::Card(shard, tag, owner, _) => {
                let result = match site.card(&owner) {
                    Ok(card) => people::card(reader, card).unwrap_or_else(failed_read),
                    Err(error) => unanswered(error),
                };
                (shard, Event::Read(tag, result))
            }
        })
    }
}

/// Asks the directories.
fn answer(site: &Site, gssapi: Option<&Gssapi>, look: Look) -> LookResult {
    match look {
        Look::Scram(login, hash) => LookResult::Scram(match site.scram_keys(&login, hash) {
            Ok(KeysAnswer::Found(account, keys)) => Keys::Found(account, Arc::new(keys)),
            Ok(KeysAnswer::Disabled(account, keys)) => Keys::Disabled(account, Arc::new(keys)),
            Ok(KeysAnswer::None) => Keys::None,
            Err(error) => {
                failed(&error);
                Keys::TemporaryFailure
            }
        }),
        Look::Accounts(identities) => LookResult::Accounts(accounts(site, identities)),
        Look::Gssapi(ask) => LookResult::Gssapi(match gssapi {
            Some(gssapi) => gssapi.turn(ask, site),
            // Offered a moment ago, before a reload.
            None => GssapiAnswer::Failed(Failure::TemporaryAuthFailure),
        }),
        Look::Password(login, password) => {
            LookResult::Password(match site.check_password(&login, &password.0) {
                Ok(PasswordAnswer::Right(account)) => PasswordCheck::Right(account),
                Ok(PasswordAnswer::Wrong) => PasswordCheck::Wrong,
                Ok(PasswordAnswer::Disabled(account)) => PasswordCheck::Disabled(account),
                Ok(PasswordAnswer::Expired(account)) => PasswordCheck::Expired(account),
                Err(error) => {
                    failed(&error);
                    PasswordCheck::TemporaryFailure
                }
            })
        }
        // Those are answered by the worker itself.
        other => other.unanswered(),
    }
}

/// Which of these exist.
fn accounts(site: &Site, identities: Vec<Identity>) -> Accounts {
    let mut found = Vec::new();
    for identity in identities {
        let person = match identity {
            Identity::Account(jid) => site.person(&jid),
            Identity::Login(login) => site.resolve(&login),
        };
        match person {
            Ok(Some(person)) => found.push(Named {
                account: person.jid,
                disabled: person.disabled,
            }),
            Ok(None) => {}
            Err(error) => {
                failed(&error);
                return Accounts::TemporaryFailure;
            }
        }
    }
    Accounts::Found(found)
}

/// A back end warns when it stops answering, once; each question is for the debug log.
pub(super) fn failed(error: &DirectoryError) {
    match error {
        DirectoryError::Store(error) => tracing::warn!(%error, "the account store did not answer"),
        DirectoryError::Unavailable { .. } => tracing::debug!(%error, "a question has no answer"),
    }
}
