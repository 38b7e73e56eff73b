//! What other protocols show of what is published: the avatar's hash in presence (XEP-0398), bookmarks all in one (XEP-0048).
//!
//! Never: decides what they are; `pubsub::avatar` and `pubsub::bookmarks` do.

use super::Shard;
use super::user::Gone;
use crate::event::*;
use crate::presence::Plan;
use crate::pubsub::avatar;
use crate::pubsub::bookmarks;
use crate::pubsub::config::NotificationType;
use crate::pubsub::event::{Notice, Recipients, event, item};
use crate::pubsub::node::Node;
use bytes::Bytes;
use directory::backend::PhotoId;
use std::sync::Arc;
use store::PubsubChange;
use xmpp::element::Element;
use xmpp::jid::{BareJid, Jid};

impl Shard {
    /// What is to be in an available presence of the account. `None`: it stays as it is.
    pub(super) fn photo_stamp(&self, account: &BareJid, presence: &Element) -> Option<Bytes> {
        avatar::stamp(presence, self.photo_of(account))
    }

    /// The photo of somebody, as their vCard has it: what they have published, else what their directory has.
    fn photo_of(&self, account: &BareJid) -> Option<&str> {
        let user = self.users.get(account)?;
        let published = user.photo.as_ref()?.as_deref();
        let of_directory = || Some(&*user.directory_photo.said.as_ref()?.as_ref()?.id.sha1);
        published.or_else(of_directory)
    }

    /// The picture of the directory, if it is an account's avatar.
    fn directory_avatar(&self, account: &BareJid) -> Option<Arc<PhotoId>> {
        let said = self.users.get(account)?.directory_photo.said.as_ref()?;
        let photo = said.as_ref().filter(|photo| photo.is_avatar)?;
        Some(photo.id.clone())
    }

    /// A session of the account is available, and was not before (`comes`) or not to our knowledge: its directory is asked for a
    /// picture. It may be another one than last time; that goes into presence until it has answered.
    pub(super) fn ask_for_photo(&mut self, account: &BareJid, comes: bool) {
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        let photo = &mut user.directory_photo;
        let wanted = photo.may_be && (comes || photo.said.is_none());
        if wanted && !std::mem::replace(&mut photo.asked, true) {
            let read = Read::Photo(account.clone());
            self.fx.reads.push((ReadTag::Photo(account.clone()), read));
        }
    }

    pub(super) fn directory_photo_read(&mut self, account: &BareJid, result: ReadResult) {
        let before = self.photo_of(account).map(str::to_owned);
        let avatar = self.directory_avatar(account);
        let Some(user) = self.users.get_mut(account) else {
            return;
        };
        user.directory_photo.asked = false;
        // It does not answer: the next log-in asks again.
        let ReadResult::Photo(photo) = result else {
            return;
        };
        user.directory_photo.said = Some(photo.map(Box::new));
        self.say_photo_if_other(account, before.as_deref());
        if let Some(now) = self
            .directory_avatar(account)
            .filter(|now| avatar.is_none_or(|a| a != *now))
            && let Some(notice) = avatar_notice(&now, None)
        {
            self.notify(account, notice);
        }
    }

    /// Somebody has come online who would have the last items of this account: its avatar is one, wherever that is from.
    pub(super) fn last_avatar(&mut self, owner: &BareJid, to: &Jid) {
        if let Some(photo) = self.directory_avatar(owner)
            && let Some(notice) = avatar_notice(&photo, Some(to))
        {
            self.notify(owner, notice);
        }
    }

    fn say_photo_if_other(&mut self, owner: &BareJid, before: Option<&str>) {
        let now = self.photo_of(owner).map(str::to_owned);
        if now.as_deref() != before {
            for slot in self.available_sessions(owner) {
                self.say_photo(slot, owner, now.as_deref());
            }
        }
    }

    /// These changes are on disk: if the avatar is another, so is the presence of each resource.
    pub(super) fn photo_changed(&mut self, owner: &BareJid, changes: &[PubsubChange]) {
        let mut now = None;
        for change in changes {
            match change {
                PubsubChange::Publish { node, item, .. } if node == avatar::METADATA => {
                    now = Some(avatar::hash(&item.payload));
                }
                PubsubChange::Delete { node } | PubsubChange::Retract { node, .. }
                    if node == avatar::METADATA =>
                {
                    now = Some(None);
                }
                PubsubChange::Trim { node, items_max: 0 } if node == avatar::METADATA => {
                    now = Some(None);
                }
                _ => {}
            }
        }
        let (Some(now), true) = (now, self.users.contains_key(owner)) else {
            return;
        };
        let before = self.photo_of(owner).map(str::to_owned);
        if let Some(Some(photo)) = &mut self.user(owner).directory_photo.said {
            photo.is_avatar = false;
        }
        let access = self.access_of(owner, avatar::METADATA);
        let seen = access.is_some_and(avatar::is_for_contacts);
        let now = now.filter(|_| seen).map(String::into_boxed_str);
        let gone = now.is_none();
        self.user(owner).photo = Some(now);
        self.say_photo_if_other(owner, before.as_deref());
        if gone {
            // If that was the node, the directory's takes its place.
            self.ask_for_photo(owner, true);
        }
    }

    fn say_photo(&mut self, slot: u32, owner: &BareJid, hash: Option<&str>) {
        let now = self.now;
        let Some(bound) = self.session(slot).bound_mut() else {
            return;
        };
        let Some(presence) = &mut bound.presence else {
            return;
        };
        let Some((prefix, suffix)) = avatar::restamped(&presence.prefix, &presence.suffix, hash)
        else {
            return;
        };
        (presence.prefix, presence.suffix) = (prefix.clone(), suffix.clone());
        bound.presence_changed_unix_ms = now.unix_ms;
        let said = Gone {
            jid: bound.jid.clone(),
            prefix,
            suffix,
            available: true,
        };
        let plan = Plan {
            audience: true,
            siblings: true,
            echo: true,
            ..Plan::default()
        };
        self.write_record(slot);
        self.carry_out_plan(slot, owner, &plan, &said, true);
    }

    /// These changes are on disk: clients that know bookmarks all in one are told, if there are any.
    pub(super) fn bookmarks_changed(&mut self, owner: &BareJid, changes: &[PubsubChange]) {
        let changed = changes.iter().any(|change| match change {
            PubsubChange::Publish { node, .. }
            | PubsubChange::Retract { node, .. }
            | PubsubChange::Delete { node }
            | PubsubChange::Trim { node, .. } => node == bookmarks::NODE,
            PubsubChange::Put { .. } | PubsubChange::Member { .. } => false,
        });
        let interested = |slot: &u32| {
            let session = self.sessions.get(*slot as usize);
            let bound = session.and_then(|s| s.bound());
            bound.is_some_and(|b| b.is_interested_in(bookmarks::OLD))
        };
        if changed && self.available_sessions(owner).iter().any(interested) {
            let read = Read::Bookmarks(owner.clone());
            self.fx
                .reads
                .push((ReadTag::Bookmarks(owner.clone()), read));
        }
    }

    pub(super) fn old_bookmarks_read(&mut self, owner: &BareJid, result: ReadResult) {
        let ReadResult::Bookmarks(stored) = result else {
            return;
        };
        let notice = Notice {
            node: bookmarks::OLD.to_owned(),
            event: event(&stored.event()),
            kind: NotificationType::Headline,
            changes_items: false,
            delay_ms: None,
            to: Recipients::One(Jid::Bare(owner.clone())),
        };
        let own = vec![EventTarget::Interested(owner.clone())];
        self.send_event(owner, &notice, own, Vec::new(), Default::default());
    }
}

/// What there is to say of the picture of a directory that is somebody's avatar, to everybody or to one.
fn avatar_notice(photo: &PhotoId, to: Option<&Jid>) -> Option<Notice> {
    let (id, payload) = avatar::of_directory(photo);
    let (node, inside) = (Node::default(), item(avatar::METADATA, id, Some(&payload)));
    match to {
        Some(to) => Some(Notice::to_one(avatar::METADATA, &node, &inside, to.clone())),
        None => Notice::to_all(avatar::METADATA, &node, &inside),
    }
}
