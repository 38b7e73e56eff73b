//! Worker threads for what may take time: reads of the store, look-ups in the directory, password work.
//!
//! In: jobs of the shards. Out: their results, as events.
//! Never: runs on a shard; answers an outage with "no such user".

use super::queue::Outbox;
use crate::event::{Event, Look, LookResult, LookTag, Read, ReadResult, ReadTag, ShardId};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use directory::site::Site;
use directory::{KeysAnswer, PasswordAnswer};
use std::sync::Arc;
use std::time::Duration;
use store::Reader;
use xmpp::negotiation::{Accounts, Keys, PasswordCheck};
use xmpp::sasl::{Failure, GssapiAnswer, Identity, Named};

/// One job of a shard.
#[derive(Debug)]
pub enum Job {
    /// For a store reader.
    Read(ShardId, ReadTag, Read),
    /// For a directory worker.
    Look(ShardId, LookTag, Look),
}

/// One worker.
pub struct Worker {
    /// Its reader of the store.
    pub reader: Box<dyn Reader>,
    /// The directories, shared by all.
    pub site: Arc<Site>,
    /// To the shards.
    pub shards: Vec<Outbox<Vec<Event>>>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// Jobs answered before the results are handed on.
const JOBS_PER_TURN: usize = 64;

impl Worker {
    /// Runs until every shard is gone.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let clear = self.shards.iter_mut().fold(true, |c, s| c & s.retry());
            let wait = if clear {
                Duration::from_secs(3_600)
            } else {
                Duration::from_millis(1)
            };
            match jobs.recv_timeout(wait) {
                Ok(job) => {
                    let mut results: Vec<Vec<Event>> =
                        self.shards.iter().map(|_| Vec::new()).collect();
                    self.job(job, &mut results);
                    for _ in 1..JOBS_PER_TURN {
                        match jobs.try_recv() {
                            Ok(job) => self.job(job, &mut results),
                            Err(_) => break,
                        }
                    }
                    for (outbox, events) in self.shards.iter_mut().zip(results) {
                        if !events.is_empty() {
                            outbox.send(events);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn job(&mut self, job: Job, results: &mut [Vec<Event>]) {
        match job {
            Job::Read(shard, tag, read) => {
                let result = self.read(read);
                results[usize::from(shard.0)].push(Event::Read(tag, result));
            }
            Job::Look(shard, tag, look) => {
                let result = self.look(look);
                results[usize::from(shard.0)].push(Event::Looked(tag, result));
            }
        }
    }

    fn read(&mut self, read: Read) -> ReadResult {
        let result = match read {
            Read::User(owner) => self
                .reader
                .user(&owner)
                .map(|u| ReadResult::User(u.map(Box::new))),
            Read::Pending {
                owner,
                after,
                limit,
            } => self
                .reader
                .pending(&owner, after, limit)
                .map(ReadResult::Pending),
            Read::VCard(owner) => match self.reader.account(&owner) {
                Ok(None) => Ok(ReadResult::VCard(None)),
                Ok(Some(_)) => self
                    .reader
                    .vcard(&owner)
                    .map(|v| ReadResult::VCard(Some(v))),
                Err(e) => Err(e),
            },
        };
        result.unwrap_or_else(|e| {
            tracing::warn!(error = %e, "a read of the store failed");
            ReadResult::Failed(e.to_string())
        })
    }

    fn look(&mut self, look: Look) -> LookResult {
        match look {
            Look::Scram(login, hash) => {
                LookResult::Scram(match self.site.scram_keys(&login, hash) {
                    Ok(KeysAnswer::Found(account, keys)) => Keys::Found(account, Arc::new(keys)),
                    Ok(KeysAnswer::Disabled(account, keys)) => {
                        Keys::Disabled(account, Arc::new(keys))
                    }
                    Ok(KeysAnswer::None) => Keys::None,
                    Err(e) => {
                        failed(&e);
                        Keys::TemporaryFailure
                    }
                })
            }
            Look::Accounts(identities) => LookResult::Accounts(self.accounts(identities)),
            Look::Gssapi(_) => {
                LookResult::Gssapi(GssapiAnswer::Failed(Failure::TemporaryAuthFailure))
            }
            Look::Password(login, password) => {
                LookResult::Password(match self.site.check_password(&login, &password.0) {
                    Ok(PasswordAnswer::Right(account)) => PasswordCheck::Right(account),
                    Ok(PasswordAnswer::Wrong) => PasswordCheck::Wrong,
                    Ok(PasswordAnswer::Disabled(account)) => PasswordCheck::Disabled(account),
                    Err(e) => {
                        failed(&e);
                        PasswordCheck::TemporaryFailure
                    }
                })
            }
        }
    }
}

impl Worker {
    fn accounts(&self, identities: Vec<Identity>) -> Accounts {
        let mut found = Vec::new();
        for identity in identities {
            let person = match identity {
                Identity::Account(jid) => self.site.person(&jid),
                Identity::Login(login) => self.site.resolve(&login),
            };
            match person {
                Ok(Some(person)) => found.push(Named {
                    account: person.jid,
                    disabled: person.disabled,
                }),
                Ok(None) => {}
                Err(e) => {
                    failed(&e);
                    return Accounts::TemporaryFailure;
                }
            }
        }
        Accounts::Found(found)
    }
}

fn failed(e: &directory::DirectoryError) {
    tracing::warn!(error = %e, "the directory did not answer");
}
