//! Questions about people that a directory outside may have to answer: vCards, searches, registrations, passwords. Answered by the
//! workers of a chain of directories ([`super::lookups`]) that do nothing else, so that no log-in waits behind them.
//!
//! In: what a shard asks. Out: the answer. Owns: the count of registrations. Never: answers an outage with "nobody".

use super::writer::DirectWriter;
use crate::event::{
    AccountAnswer, CardFacts, DirectoryPhoto, Look, LookResult, Newcomer, ReadResult,
};
use crate::iq::vcard::PHOTO_BYTES_MAX;
use crate::pubsub::avatar::METADATA;
use crate::registrations::Registrations;
use directory::DirectoryError;
use directory::backend::{Card, PhotoId, Registered};
use directory::site::Site;
use std::sync::{Arc, Mutex, PoisonError};
use store::{Reader, StoreError};
use xmpp::jid::BareJid;

/// Messages of a removed account dropped in one commit.
const DROP_SLICE: usize = 1_000;

/// What goes into somebody's vCard: what the directory has said, and what they have stored.
///
/// # Errors
/// The store does not answer.
pub fn card(reader: &mut dyn Reader, card: Option<Card>) -> Result<ReadResult, StoreError> {
    let facts = card.map(|card| {
        let stored = reader.vcard(&card.person.jid)?;
        let avatar = crate::pubsub::avatar::read(reader, &card.person.jid)?;
        Ok(Box::new(CardFacts {
            card,
            stored,
            avatar,
        }))
    });
    Ok(ReadResult::Card(facts.transpose()?))
}

/// The picture that somebody's directory has, for presence and as their avatar.
///
/// # Errors
/// The store does not answer.
pub fn photo(
    reader: &mut dyn Reader,
    owner: &BareJid,
    id: Option<Arc<PhotoId>>,
) -> Result<ReadResult, StoreError> {
    let Some(id) = id.filter(|id| id.bytes <= PHOTO_BYTES_MAX) else {
        return Ok(ReadResult::Photo(None));
    };
    let nodes = reader.pubsub_nodes(owner)?;
    let is_avatar = !nodes.iter().any(|n| n.node == METADATA);
    Ok(ReadResult::Photo(Some(DirectoryPhoto { id, is_avatar })))
}

/// What answers take besides the directories. Shared by all workers; a reload keeps it.
#[derive(Clone, Debug)]
pub struct Clerk {
    writer: DirectWriter,
    registrations: Arc<Mutex<Registrations>>,
}

impl Clerk {
    /// Nobody has registered yet.
    pub fn new(writer: DirectWriter) -> Self {
        Self {
            writer,
            registrations: Arc::default(),
        }
    }

    /// Answers. Blocks.
    pub fn answer(&self, site: &Site, reader: &mut dyn Reader, look: &Look) -> LookResult {
        match look {
            Look::Search {
                domain,
                query,
                limit,
            } => match site.search(domain, query, *limit) {
                Ok(people) => LookResult::People(people),
                Err(error) => {
                    tracing::debug!(%error, "a search has no answer");
                    LookResult::Unavailable
                }
            },
            Look::Register(newcomer) => {
                LookResult::Registered(newcomer.id.clone(), self.register(site, newcomer))
            }
            Look::ChangePassword(jid, password) => {
                LookResult::Account(account_answer(site.change_password(jid, &password.0)))
            }
            Look::Unregister(jid) => LookResult::Account(account_answer(site.remove(jid))),
            Look::DropMessages(jid) => {
                if let Err(error) = self.drop_messages(reader, jid) {
                    let account = jid.as_str();
                    tracing::warn!(
                        account,
                        error,
                        "messages of a removed account are still there"
                    );
                }
                LookResult::Account(AccountAnswer::Done)
            }
            login => login.unanswered(),
        }
    }

    fn register(&self, site: &Site, newcomer: &Newcomer) -> AccountAnswer {
        let now_ms = super::clock::Clock::new().now().unix_ms;
        let admitted = self
            .registrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(now_ms, newcomer.peer, newcomer.limits);
        if !admitted {
            return AccountAnswer::TooMany;
        }
        if newcomer.reserved {
            return AccountAnswer::Exists;
        }
        let answer = account_answer(site.register(&newcomer.registration));
        if answer == AccountAnswer::Done {
            let account = newcomer.registration.jid.as_str();
            tracing::info!(account, peer = %newcomer.peer.to_canonical(), "an account was registered");
        }
        answer
    }

    fn drop_messages(&self, reader: &mut dyn Reader, jid: &BareJid) -> Result<(), String> {
        let words = |e: StoreError| e.to_string();
        loop {
            let positions = reader.some_rows(jid, DROP_SLICE).map_err(words)?;
            if positions.is_empty() {
                return Ok(());
            }
            self.writer.write(vec![store::Write::Drop {
                owner: jid.clone(),
                positions,
            }])?;
        }
    }
}

fn account_answer(answer: Result<Registered, DirectoryError>) -> AccountAnswer {
    match answer {
        Ok(Registered::Done) => AccountAnswer::Done,
        Ok(Registered::Exists) => AccountAnswer::Exists,
        Ok(Registered::Refused(why)) => AccountAnswer::Refused(why),
        Ok(Registered::NotHere) => AccountAnswer::NotHere,
        Err(e) => {
            tracing::debug!(error = %e, "an account was not changed");
            AccountAnswer::Unavailable
        }
    }
}
