//! What every engine must do: one list of tests a subject, run on the model and on SQLite.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

use bytes::Bytes;
use common::{Fixture, OnDisk, OnDiskFolded, OnModel, append, jid, keys, message, origin, stored};
use store::model::Model;
use store::{
    Account, Append, ArchiveQuery, LoginToken, PutMode, Reader, RosterItem, StoreError, StoredRow,
    Subscription, Text, TokenChange, Write, WriteError, Written,
};
use xmpp::jid::{BareJid, Jid};
use xmpp::sasl::{ClientId, TokenMechanism};
use xmpp::scram::{ScramHash, ScramKeys};

macro_rules! conformance {
    ($($name:ident)*) => {
        mod on_model { $(#[test] fn $name() { super::$name(&mut crate::OnModel(crate::Model::new())); })* }
        mod on_disk_folded { $(#[test] fn $name() { super::$name(&mut crate::OnDiskFolded::new()); })* }
        mod on_disk { $(#[test] fn $name() { super::$name(&mut crate::OnDisk::new()); })* }
    };
}

// After the macro, which they use.
mod accounts;
mod archive;
mod messages;
mod nodes;
mod people;
mod tokens;
mod whole;

fn payloads(rows: &[StoredRow]) -> Vec<&str> {
    rows.iter()
        .map(|row| std::str::from_utf8(&row.payload).unwrap())
        .collect()
}

fn pending(reader: &mut dyn Reader, owner: &str) -> Vec<String> {
    let rows = reader.pending(&jid(owner), 0, 1_000).unwrap();
    payloads(&rows).into_iter().map(str::to_owned).collect()
}

fn ack(owner: &str, positions: &[u64]) -> Write {
    Write::Ack {
        owner: jid(owner),
        positions: positions.to_vec(),
    }
}

fn archived(owner: &str, peer: &str, time_ms: u64, payload: &str) -> Append {
    Append {
        peer: jid(peer),
        archive: true,
        time_ms,
        ..message(owner, payload)
    }
}

fn item(contact: &str, groups: &[&str]) -> RosterItem {
    RosterItem {
        jid: jid(contact),
        name: Some(format!("Name of {contact}")),
        subscription: Subscription::Both,
        ask: true,
        approved: false,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        version: 0,
    }
}

fn account(text: &str) -> Account {
    let keys = ScramHash::ALL
        .into_iter()
        .map(|hash| keys(hash, 7))
        .collect();
    Account {
        jid: jid(text),
        keys,
        disabled: false,
        created_ms: 1_700_000_000_000,
    }
}

fn put(account: Account, mode: PutMode) -> Write {
    Write::AccountPut { account, mode }
}
