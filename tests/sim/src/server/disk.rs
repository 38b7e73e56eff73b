//! The writer and the readers of one run: batches are committed together, answers come later; and who asks about people.
//!
//! In: batches and questions of shards. Out: answers, in order for each shard.
//! Never: answers a write before it is in the store, unless that is broken on purpose.

use super::{Answers, Batch};
use crate::breaks::Break;
use crate::rng::Rng;
use crate::world::{Ev, World};
use bytes::Bytes;
use directory::backend::PhotoId;
use imserver::drive;
use imserver::event::{
    DirectoryPhoto, Event, Loaded, Look, LookResult, LookTag, Read, ReadResult, ReadTag,
    TokenRules, Write,
};
use std::sync::Arc;
use store::{WriteError, Written};
use xmpp::negotiation::{Accounts, Keys, PasswordCheck, TokenCheck};
use xmpp::sasl::{Failure, GssapiAnswer, Named, TokenAsk};

impl World {
    pub(crate) fn to_writer(&mut self, run: u32, shard: usize, writes: Vec<Write>) {
        let delay = self.rng.delay(40);
        let Some(server) = self.server(run) else {
            return;
        };
        server.write_queue.push_back(Batch { shard, writes });
        if !server.writing {
            server.writing = true;
            self.after(delay, Ev::WriterTurn { run });
        }
    }

    /// Session records are put at once; the commit takes its time.
    pub(crate) fn writer_turn(&mut self, run: u32) {
        let broken = self.broken;
        let mut chance = self.rng.fork();
        let delay = self.disk_delay(700);
        let Some(server) = self.server(run) else {
            return;
        };
        server.committing = server.write_queue.drain(..).collect();
        let mut records: Vec<(u64, Option<Bytes>)> = Vec::new();
        for write in server.committing.iter().flat_map(|b| &b.writes) {
            if let Write::Session(id, record) = write {
                let skip =
                    broken == Some(Break::SkipRecords) && record.is_some() && chance.permille(100);
                if !skip {
                    records.push((id.0, record.clone()));
                }
            }
        }
        server.sessions_result = match server.sessions.put(&records) {
            Ok(()) => Written::Done,
            Err(e) => Written::Failed(WriteError::Store(Arc::new(e))),
        };
        self.after(delay, Ev::WriterCommit { run });
    }

    pub(crate) fn writer_commit(&mut self, run: u32) {
        let broken = self.broken;
        let mut chance = Rng::new(self.now_us);
        let Some(server) = self.server(run) else {
            return;
        };
        let batches = std::mem::take(&mut server.committing);
        let writes: Vec<store::Write> = batches
            .iter()
            .flat_map(|b| &b.writes)
            .filter_map(|w| match w {
                Write::Store(store::Write::Ack { owner, .. }) if broken == Some(Break::DropAck) => {
                    Some(store::Write::Ack {
                        owner: owner.clone(),
                        positions: Vec::new(),
                    })
                }
                Write::Store(store::Write::Blocklist { owner, .. })
                    if broken == Some(Break::LoseLists) && chance.permille(300) =>
                {
                    Some(store::Write::Blocklist {
                        owner: owner.clone(),
                        block: Vec::new(),
                        unblock: Vec::new(),
                    })
                }
                Write::Store(store::Write::Pubsub {
                    owner, bytes_max, ..
                }) if broken == Some(Break::LoseItems) && chance.permille(300) => {
                    Some(store::Write::Pubsub {
                        owner: owner.clone(),
                        changes: Vec::new(),
                        bytes_max: *bytes_max,
                    })
                }
                Write::Store(w) => Some(w.clone()),
                Write::Session(..) => None,
            })
            .collect();
        let stored = if writes.is_empty() {
            Ok(Vec::new())
        } else {
            server.writer.commit(&writes)
        };
        let mut refused = false;
        let mut results = match stored {
            Ok(results) => results.into_iter(),
            Err(e) => {
                refused = true;
                vec![Written::Failed(WriteError::Store(Arc::new(e))); writes.len()].into_iter()
            }
        };
        let session_result = server.sessions_result.clone();
        let mut answers: Answers = Vec::new();
        for batch in batches {
            let results: Vec<Written> = batch
                .writes
                .iter()
                .map(|w| match w {
                    Write::Store(_) => results.next().expect("one result per write"),
                    Write::Session(..) => session_result.clone(),
                })
                .collect();
            let first = server.numbers[batch.shard] + 1;
            server.numbers[batch.shard] += results.len() as u64;
            answers.push((batch.shard, Event::Durable { first, results }));
        }
        if refused {
            self.oracle.refused(&writes);
        }
        self.trace.line(
            self.now_us,
            writes.len() as u64,
            format_args!("commit of {} writes", writes.len()),
        );
        if let Some(synced) = &mut self.synced {
            // Broken: the answers are given, but only now and then does anything reach the disk.
            if self.rng.permille(300) {
                *synced = self.store.snapshot();
            }
        }
        let delay = self.rng.delay(100);
        self.after(delay, Ev::WriterAnswer { run, answers });
    }

    pub(crate) fn writer_answer(&mut self, run: u32, answers: Answers) {
        if self.server(run).is_none() {
            return;
        }
        for (shard, event) in answers {
            let at = self.way(|s| &mut s.shards[shard].from_writer);
            self.at(
                at,
                Ev::ToShard {
                    run,
                    shard,
                    events: vec![event],
                },
            );
        }
        let delay = self.rng.delay(40);
        let Some(server) = self.server(run) else {
            return;
        };
        server.writing = !server.write_queue.is_empty();
        if server.writing {
            self.after(delay, Ev::WriterTurn { run });
        }
    }

    pub(crate) fn read_run(&mut self, run: u32, shard: usize, tag: ReadTag, read: Read) {
        let delay = self.rng.delay(120);
        let Some(server) = self.server(run) else {
            return;
        };
        let result = match read {
            Read::User(owner) => server.reader.user(&owner).map(|u| {
                let loaded = |data| {
                    Box::new(Loaded {
                        data,
                        photo: None,
                        directory_photo: true,
                    })
                };
                ReadResult::User(u.map(loaded))
            }),
            // Everybody has a picture.
            Read::Photo(_) => Ok(ReadResult::Photo(Some(DirectoryPhoto {
                id: Arc::new(PhotoId {
                    sha1: "da39a3ee".into(),
                    bytes: 9,
                    media_type: "image/png",
                }),
                is_avatar: true,
            }))),
            Read::Pending {
                owner,
                after,
                limit,
                bytes_max,
            } => server
                .reader
                .pending_page(&owner, after, limit, bytes_max)
                .map(ReadResult::Pending),
            Read::Rows {
                owner,
                positions,
                bytes_max,
            } => server
                .reader
                .rows_at(&owner, &positions, bytes_max)
                .map(|mut rows| {
                    if self.broken == Some(Break::LoseResend) && self.rng.permille(200) {
                        rows.iter_mut().for_each(|(_, row)| *row = None);
                    }
                    ReadResult::Rows(rows)
                }),
            // Nobody in a simulation asks about people.
            Read::Card(_) => Ok(ReadResult::Card(None)),
            Read::Activity(owner) => server.reader.activity(&owner).map(ReadResult::Activity),
            Read::Private(key) => server
                .reader
                .private(&key.owner, &key.name, &key.ns)
                .map(ReadResult::Private),
            Read::Account(owner) => (server.reader.account(&owner))
                .map(|account| ReadResult::Account(account.map(Box::new))),
            Read::Nodes(owner) => server.reader.pubsub_nodes(&owner).map(ReadResult::Nodes),
            Read::Items(query) => server.reader.pubsub_items(&query).map(ReadResult::Items),
            Read::LastItems(ask) => imserver::pubsub::last::read(server.reader.as_mut(), &ask)
                .map(ReadResult::LastItems),
            Read::Bookmarks(owner) => {
                imserver::pubsub::bookmarks::read(server.reader.as_mut(), &owner)
                    .map(ReadResult::Bookmarks)
            }
            Read::Archive(ask) => {
                imserver::archive::read(server.reader.as_mut(), &ask).map(ReadResult::Archive)
            }
            Read::ArchiveEnds(owner) => {
                imserver::archive::ends(server.reader.as_mut(), &owner).map(ReadResult::Archive)
            }
        };
        let result = result.unwrap_or_else(|e| ReadResult::Failed(e.to_string()));
        self.after(
            delay,
            Ev::ToShard {
                run,
                shard,
                events: vec![Event::Read(tag, result)],
            },
        );
    }

    pub(crate) fn look_run(&mut self, run: u32, shard: usize, tag: LookTag, look: Look) {
        let result = match look {
            Look::Password(login, secret) => LookResult::Password(match login.account() {
                Some(account) if secret.0 == "secret" => PasswordCheck::Right(account),
                _ => PasswordCheck::Wrong,
            }),
            Look::Scram(..) => LookResult::Scram(Keys::None),
            Look::Accounts(_) => LookResult::Accounts(Accounts::Found(Vec::new())),
            Look::Gssapi(_) => {
                LookResult::Gssapi(GssapiAnswer::Failed(Failure::TemporaryAuthFailure))
            }
            Look::Token(ask, rules) => LookResult::Token(self.check_token(run, &ask, rules)),
            // Nor here.
            other => other.unanswered(),
        };
        let revocations = self.server(run).map_or(0, |s| s.reader.revocations());
        self.to_shard(run, shard, vec![Event::Looked(tag, result, revocations)]);
    }

    fn check_token(&mut self, run: u32, ask: &TokenAsk, rules: TokenRules) -> TokenCheck {
        let Some((server, account)) = self.server(run).zip(ask.login.account()) else {
            return TokenCheck::TemporaryFailure;
        };
        match server.reader.tokens(&account, Some(ask.client)) {
            Ok(tokens) => {
                let named = Named {
                    account,
                    disabled: false,
                };
                drive::tokens::judge(&tokens, ask, rules, named)
            }
            Err(_) => TokenCheck::TemporaryFailure,
        }
    }
}
