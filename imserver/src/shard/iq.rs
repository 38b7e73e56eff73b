//! IQs that the server answers, for itself or for an account: reads and writes for them. What is answered, `iq` decides.

use super::blocking::Answers as BlockingAnswers;
use super::{After, Shard, WaitingIq};
use crate::admin::adhoc::Outcome;
use crate::event::*;
use crate::iq::{self, Context, Found, IqOutcome, Request, Target, Wait};
use crate::policy::keep::Keep;
use crate::policy::{Right, Rights};
use crate::routing::{IqType, Retention, StanzaKind};
use crate::settings::Settings;
use bytes::Bytes;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::jid::{BareJid, Jid};
use xmpp::ns;

/// Searches and changes of one account under way: a person waits for the answer before asking again.
const QUESTIONS_PER_ACCOUNT_MAX: usize = 2;

/// Elements of its private storage that one account may wait for: a client asks for a handful when it logs in.
const PRIVATE_QUESTIONS_PER_ACCOUNT_MAX: usize = 50;

/// Pages of its archive that one account may wait for: a client asks for a page of each of several conversations at once.
const ARCHIVE_QUESTIONS_PER_ACCOUNT_MAX: usize = 20;

/// Questions for items that one account may wait for: OMEMO asks for the keys of every device of everybody in a room at once.
const ITEM_QUESTIONS_PER_ACCOUNT_MAX: usize = 200;

impl Shard {
    /// An IQ of a session to its own account (no `to`, or its bare JID).
    pub(super) fn own_iq(&mut self, slot: u32, number: u64, element: Element) {
        let bound = self
            .session(slot)
            .bound()
            .expect("only bound sessions get here");
        let from = Jid::Full(bound.jid.clone());
        let account = bound.account.clone();
        // The account, or its domain; the caller has parsed it.
        let to = element.attr("to").and_then(|to| Jid::parse(&to).ok());
        let settings = self.settings.clone();
        let secure = settings.offer.plaintext || self.session(slot).is_encrypted();
        let target = Target::Account {
            own: true,
            may_see: true,
        };
        let request = Request {
            element: &element,
            from: &from,
            to: to.as_ref(),
            target,
            context: context(&settings, self.now, self.uptime_s(), secure, &from),
        };
        let mut outcome = iq::dispatch(&request);
        if outcome.saves() && !self.may(&account, Right::SaveSettings) {
            outcome = IqOutcome::Error(StanzaError::NotAllowed, None);
        }
        // XEP-0441 §2.1.
        let wishes = matches!(outcome, IqOutcome::WriteArchivePrefs { .. });
        if wishes && self.must_keep(&account) != Keep::Wishes {
            let text = "What is kept here is not for you to say";
            outcome = IqOutcome::Error(StanzaError::NotAllowed, Some(text));
        }
        match outcome {
            IqOutcome::Reply(bytes) => {
                self.send_stanza(slot, bytes);
                self.session(slot).done(number);
            }
            IqOutcome::Error(condition, text) => {
                if let Some(bytes) = request.error(condition, text) {
                    self.send_stanza(slot, bytes);
                }
                self.session(slot).done(number);
            }
            IqOutcome::Ignore => self.session(slot).done(number),
            IqOutcome::Refuse(refusal) => {
                if let Some(bytes) = request.refused(&refusal) {
                    self.send_stanza(slot, bytes);
                }
                self.session(slot).done(number);
            }
            IqOutcome::Pubsub(ask) => {
                let session = self.session(slot);
                let again = session.resumed;
                let origin = session.name.map(|name| store::Origin {
                    session: name.0,
                    stanza: session.origin_stanza(),
                    hash: super::stream::hash(element.raw()),
                });
                let stanza = Routed {
                    kind: StanzaKind::Iq(IqType::Set),
                    from: from.clone(),
                    to: to.unwrap_or(Jid::Bare(account)),
                    bytes: element.raw().clone(),
                    retention: Retention::Drop,
                    origin,
                    copies: false,
                    token: Some(self.token(slot, number)),
                };
                self.ask_nodes(super::pubsub::Waiting {
                    stanza: Box::new(stanza),
                    element: Box::new(element),
                    target,
                    ask: *ask,
                    again,
                });
            }
            IqOutcome::Carbons(on) => {
                let failure = request.error(StanzaError::ResourceConstraint, None);
                let reply = request.result(None);
                self.switch_carbons(slot, number, on, reply, failure.unwrap_or_default());
            }
            IqOutcome::RosterGet { ver } if self.has_roster(&account) => {
                self.roster_get(slot, number, &element, ver.as_deref())
            }
            IqOutcome::RosterSet(set) if self.has_roster(&account) => {
                let reply = request.result(None);
                self.roster_set(slot, number, &element, set, reply);
            }
            IqOutcome::Blocklist if self.has_list(&account) => {
                let list = self.listed_by(&account).to_node();
                let reply = request.result(Some(&list));
                self.blocklist_asked(slot, number, reply);
            }
            IqOutcome::Blocking(change) if self.has_list(&account) => {
                let error = |condition, text| request.error(condition, text).unwrap_or_default();
                let too_long = Some("So many cannot be blocked");
                let answers = BlockingAnswers {
                    done: request.result(None),
                    failure: error(StanzaError::ResourceConstraint, None),
                    too_long: error(StanzaError::PolicyViolation, too_long),
                };
                self.change_blocklist(slot, number, account, change, answers);
            }
            IqOutcome::Push(change) if self.has_roster(&account) => {
                let error = |condition, text| request.error(condition, text).unwrap_or_default();
                let too_many = Some("There are as many services as may be");
                let answers = (
                    request.result(None),
                    error(StanzaError::ResourceConstraint, None),
                    error(StanzaError::PolicyViolation, too_many),
                );
                self.change_push(slot, number, account, change, answers);
            }
            IqOutcome::RosterGet { .. }
            | IqOutcome::RosterSet(_)
            | IqOutcome::Blocklist
            | IqOutcome::Push(_)
            | IqOutcome::Blocking(_) => self.pause_for_roster(slot, number, element),
            IqOutcome::ArchivePrefs => match self.archive_prefs(&account) {
                Some(prefs) => {
                    let reply = request.result(Some(&prefs.to_node()));
                    self.send_stanza(slot, reply);
                    self.session(slot).done(number);
                }
                None => self.pause_for_roster(slot, number, element),
            },
            IqOutcome::WriteArchivePrefs { prefs, reply } => {
                let failure = request.error(StanzaError::ResourceConstraint, None);
                let write = self.write(Write::Store(store::Write::ArchivePrefs {
                    owner: account,
                    prefs: Some(prefs.to_bytes()),
                }));
                let generation = self.generation(slot);
                self.after(
                    write,
                    After::ArchivePrefs {
                        slot,
                        generation,
                        number,
                        account: from.bare(),
                        prefs,
                        reply,
                        failure: failure.unwrap_or_default(),
                    },
                );
            }
            IqOutcome::WritePrivate { elements, reply } => {
                let too_much = Some("the account keeps as much as it may");
                let too_much = request.error(StanzaError::PolicyViolation, too_much);
                let failure = request.error(StanzaError::ResourceConstraint, None);
                let write = self.write(Write::Store(store::Write::Private {
                    owner: account,
                    elements,
                    bytes_max: self.settings.private_bytes_max,
                }));
                let generation = self.generation(slot);
                self.after(
                    write,
                    After::Private {
                        slot,
                        generation,
                        number,
                        reply,
                        too_much: too_much.unwrap_or_default(),
                        failure: failure.unwrap_or_default(),
                    },
                );
            }
            IqOutcome::Read(wait) => {
                let stanza = Routed {
                    kind: StanzaKind::Iq(IqType::Get),
                    from: from.clone(),
                    to: to.unwrap_or(Jid::Bare(account)),
                    bytes: element.raw().clone(),
                    retention: Retention::Drop,
                    origin: None,
                    copies: false,
                    token: Some(self.token(slot, number)),
                };
                self.iq_waits(Box::new(stanza), element, wait, target);
            }
        }
    }

    /// An IQ to an account of ours, from anybody else.
    pub(super) fn account_iq(&mut self, stanza: Box<Routed>) {
        let account = stanza.to.bare();
        let own = stanza.from.bare_str() == account.as_str();
        let from = stanza.from.bare();
        let may_see =
            own || self.sees(&account, &from) || self.groups.view.shares_group(&account, &from);
        self.answer_iq(stanza, Target::Account { own, may_see });
    }

    /// An IQ to the server.
    pub(super) fn server_iq(&mut self, stanza: Box<Routed>) {
        self.answer_iq(stanza, Target::Server);
    }

    fn answer_iq(&mut self, stanza: Box<Routed>, target: Target) {
        let Ok(element) = Element::parse(stanza.bytes.clone()) else {
            return self.done(stanza.token);
        };
        let settings = self.settings.clone();
        let component = settings.component(stanza.from.domainpart());
        let own = matches!(target, Target::Account { own: true, .. });
        let in_name = own && stanza.from.resourcepart().is_none();
        if let (Some(component), Target::Account { .. }) = (component, target) {
            if element.child("privileged_iq", ns::PRIVILEGE).is_some() {
                return self.ask_in_name(stanza, &element);
            }
            if element.child("query", ns::ROSTER).is_some() {
                // XEP-0356 §4.3.
                let may = match stanza.kind {
                    StanzaKind::Iq(IqType::Get) => component.privileges.roster.gets(),
                    _ => component.privileges.roster.sets(),
                };
                return match may {
                    true => self.roster_by(stanza, &element),
                    false => self.bounce(stanza, StanzaError::Forbidden, None),
                };
            }
        }
        // What only accounts of ours may ask of the server.
        let rights = match (target, &stanza.from) {
            (Target::Server, Jid::Full(from)) if self.settings.serves(from.domainpart()) => {
                self.rights(&from.bare())
            }
            _ => Rights::NONE,
        };
        let request = Request {
            element: &element,
            from: &stanza.from,
            to: Some(&stanza.to),
            target,
            context: Context {
                rights,
                ours: self.settings.serves(stanza.from.domainpart()),
                ..context(&settings, self.now, self.uptime_s(), false, &stanza.to)
            },
        };
        let mut outcome = iq::dispatch(&request);
        if matches!(outcome, IqOutcome::Read(Wait::Search { .. }))
            && !self.may_search(&request.from.bare())
        {
            outcome = IqOutcome::Error(StanzaError::NotAllowed, None);
        }
        let account = stanza.to.bare();
        if in_name && outcome.saves() && !self.may(&account, Right::SaveSettings) {
            outcome = IqOutcome::Error(StanzaError::NotAllowed, None);
        }
        match outcome {
            IqOutcome::Reply(bytes) => self.reply(stanza, bytes),
            IqOutcome::Error(condition, text) => self.bounce(stanza, condition, text),
            IqOutcome::Read(wait) => self.iq_waits(stanza, element, wait, target),
            IqOutcome::Refuse(refusal) => match request.refused(&refusal) {
                Some(bytes) => self.reply(stanza, bytes),
                None => self.done(stanza.token),
            },
            IqOutcome::Pubsub(ask) => self.ask_nodes(super::pubsub::Waiting {
                stanza,
                element: Box::new(element),
                target,
                ask: *ask,
                again: false,
            }),
            // What a component asks in the account's name (XEP-0356 §6).
            IqOutcome::RosterGet { .. } | IqOutcome::RosterSet(_) if in_name => {
                self.roster_by(stanza, &element);
            }
            IqOutcome::WritePrivate { elements, reply } if in_name => {
                let first = self.write(Write::Store(store::Write::Private {
                    owner: account,
                    elements,
                    bytes_max: settings.private_bytes_max,
                }));
                self.reply_after(first, stanza, reply);
            }
            // Everything else about one's own account belongs to a session, and goes by `own_iq`.
            IqOutcome::WritePrivate { .. }
            | IqOutcome::ArchivePrefs
            | IqOutcome::WriteArchivePrefs { .. }
            | IqOutcome::RosterGet { .. }
            | IqOutcome::RosterSet(_)
            | IqOutcome::Blocklist
            | IqOutcome::Push(_)
            | IqOutcome::Blocking(_)
            | IqOutcome::Carbons(_) => {
                self.bounce(stanza, StanzaError::Forbidden, None);
            }
            IqOutcome::Ignore => self.done(stanza.token),
        }
    }

    /// Only people of this server have the right, whatever a rule says of everyone.
    fn may_search(&self, from: &BareJid) -> bool {
        self.settings.serves(from.domainpart()) && self.may(from, Right::Search)
    }

    /// The answer goes to the sender, and with it the settling.
    #[expect(clippy::boxed_local, reason = "stanzas travel boxed")]
    pub(super) fn reply(&mut self, stanza: Box<Routed>, bytes: Bytes) {
        let kind = match stanza.kind {
            // Only what is wrong with it is said to who has sent a message.
            StanzaKind::Message(_) => stanza.kind.error(),
            _ => StanzaKind::Iq(IqType::Result),
        };
        let reply = Routed {
            kind,
            from: stanza.to,
            to: stanza.from,
            bytes,
            retention: Retention::Drop,
            origin: None,
            copies: false,
            token: stanza.token,
        };
        self.tell(
            self.home(&reply.to.bare()),
            ShardMsg::Stanza(Box::new(reply)),
        );
    }

    pub(super) fn iq_waits(
        &mut self,
        stanza: Box<Routed>,
        element: Element,
        wait: Wait,
        target: Target,
    ) {
        // Cards and last activities are asked for by the hundred, of whole rosters; everything else one at a time.
        let questions_max = |wait: &Wait| match wait {
            Wait::Card(_) | Wait::LastActivity(_) => usize::MAX,
            Wait::Private(_) => PRIVATE_QUESTIONS_PER_ACCOUNT_MAX,
            Wait::Items(_) | Wait::Known(_) => ITEM_QUESTIONS_PER_ACCOUNT_MAX,
            Wait::Bookmarks(..) => PRIVATE_QUESTIONS_PER_ACCOUNT_MAX,
            Wait::Archive(_) | Wait::ArchiveEnds(_) => ARCHIVE_QUESTIONS_PER_ACCOUNT_MAX,
            _ => QUESTIONS_PER_ACCOUNT_MAX,
        };
        let max = questions_max(&wait);
        let waiting = self.waiting_iqs.values();
        let same = waiting.filter(|w| {
            questions_max(&w.wait) == max && w.stanza.from.bare_str() == stanza.from.bare_str()
        });
        if max != usize::MAX && same.count() >= max {
            let text = "Wait for the answer before you ask again";
            return self.bounce(stanza, StanzaError::ResourceConstraint, Some(text));
        }
        self.next_iq += 1;
        let n = self.next_iq;
        let look = match &wait {
            Wait::Card(owner) => {
                let read = Read::Card(owner.clone());
                self.fx.reads.push((ReadTag::Iq(n), read));
                None
            }
            Wait::Known(known) => {
                let read = Read::Card(known.owner.clone());
                self.fx.reads.push((ReadTag::Iq(n), read));
                None
            }
            Wait::LastActivity(owner) => {
                let read = Read::Activity(owner.clone());
                self.fx.reads.push((ReadTag::Iq(n), read));
                None
            }
            Wait::Private(key) => {
                let read = Read::Private(key.clone());
                self.fx.reads.push((ReadTag::Iq(n), read));
                None
            }
            Wait::ArchiveEnds(owner) => {
                let read = Read::ArchiveEnds(owner.clone());
                self.fx.reads.push((ReadTag::Iq(n), read));
                None
            }
            Wait::Items(reading) => {
                let read = Read::Items(Box::new(reading.query.clone()));
                self.read_nodes(&reading.query.owner, n, read);
                None
            }
            Wait::Bookmarks(owner, _) => {
                self.read_nodes(owner, n, Read::Bookmarks(owner.clone()));
                None
            }
            // As soon as there is room for it.
            Wait::Archive(_) => None,
            Wait::Search { domain, query } => Some(Look::Search {
                domain: domain.clone(),
                query: query.clone(),
                limit: self.settings.people.search_results_max,
            }),
            Wait::Password(account, password) => {
                Some(Look::ChangePassword(account.clone(), password.clone()))
            }
            Wait::Unregister(account) => Some(Look::Unregister(account.clone())),
            Wait::Command(command) => {
                let Jid::Full(from) = &stanza.from else {
                    // Only a session has rights.
                    return self.bounce(stanza, StanzaError::Forbidden, None);
                };
                self.fx.commands.push(CommandJob {
                    request: n,
                    shard: self.id,
                    from: from.clone(),
                    domain: stanza.to.domainpart().to_owned(),
                    command: command.clone(),
                });
                None
            }
        };
        self.fx
            .looks
            .extend(look.map(|look| (LookTag::Iq(n), look)));
        let waiting = WaitingIq {
            stanza,
            element: Box::new(element),
            since_ms: self.now.mono_ms,
            wait,
            target,
        };
        self.waiting_iqs.insert(n, waiting);
        self.ask_archive(n);
    }

    /// What has come of an ad-hoc command.
    pub(super) fn command_done(&mut self, n: u64, outcome: &Outcome) {
        let Some(waiting) = self.waiting_iqs.remove(&n) else {
            return;
        };
        let settings = self.settings.clone();
        let request = Request {
            element: &waiting.element,
            from: &waiting.stanza.from,
            to: Some(&waiting.stanza.to),
            target: waiting.target,
            context: context(
                &settings,
                self.now,
                self.uptime_s(),
                false,
                &waiting.stanza.to,
            ),
        };
        match request.command(outcome) {
            Some(bytes) => self.reply(waiting.stanza, bytes),
            None => self.done(waiting.stanza.token),
        }
    }

    /// What an IQ waited for has been read.
    pub(super) fn iq_read(&mut self, n: u64, result: ReadResult) {
        self.iq_is_read(n, result);
        self.archive_read_done(n);
    }

    fn iq_is_read(&mut self, n: u64, result: ReadResult) {
        let found = match result {
            ReadResult::Card(facts) => Found::Card(facts),
            ReadResult::Activity(activity) => Found::LastActivity {
                available: self.waits_for_available(n),
                activity,
            },
            ReadResult::Private(stored) => Found::Private(stored),
            ReadResult::Items(page) => Found::Items(page),
            ReadResult::Bookmarks(stored) => Found::Bookmarks(stored),
            ReadResult::Archive(answer) => return self.archive_answer(n, answer),
            _ => Found::Unavailable,
        };
        self.iq_found(n, found);
    }

    /// Some resource of the account that an IQ asks about is available.
    fn waits_for_available(&self, n: u64) -> bool {
        match self.waiting_iqs.get(&n).map(|w| &w.wait) {
            Some(Wait::LastActivity(account)) => !self.available_sessions(account).is_empty(),
            _ => false,
        }
    }

    /// A directory has answered what an IQ waited for.
    pub(super) fn iq_looked(&mut self, n: u64, result: LookResult) {
        let found = match result {
            LookResult::People(answer) => Found::People(answer),
            LookResult::Account(answer) => Found::Account(answer),
            _ => Found::Unavailable,
        };
        self.iq_found(n, found);
    }

    fn iq_found(&mut self, n: u64, found: Found) {
        let Some(waiting) = self.waiting_iqs.remove(&n) else {
            // It has been answered: this came too late.
            return;
        };
        let removed = match (&waiting.wait, &found) {
            (Wait::Unregister(account), Found::Account(AccountAnswer::Done)) => {
                Some(account.clone())
            }
            _ => None,
        };
        let to = waiting
            .element
            .attr("to")
            .is_some()
            .then_some(&waiting.stanza.to);
        let settings = self.settings.clone();
        let request = Request {
            element: &waiting.element,
            from: &waiting.stanza.from,
            to,
            target: waiting.target,
            context: context(
                &settings,
                self.now,
                self.uptime_s(),
                false,
                &waiting.stanza.to,
            ),
        };
        match iq::resume(&request, &waiting.wait, &found) {
            IqOutcome::Reply(bytes) => self.reply(waiting.stanza, bytes),
            IqOutcome::Error(condition, text) => match request.error(condition, text) {
                Some(bytes) => self.reply(waiting.stanza, bytes),
                None => self.done(waiting.stanza.token),
            },
            IqOutcome::Refuse(refusal) => match request.refused(&refusal) {
                Some(bytes) => self.reply(waiting.stanza, bytes),
                None => self.done(waiting.stanza.token),
            },
            IqOutcome::Pubsub(ask) => self.ask_nodes(super::pubsub::Waiting {
                stanza: waiting.stanza,
                element: waiting.element,
                target: waiting.target,
                ask: *ask,
                again: false,
            }),
            _ => self.done(waiting.stanza.token),
        }
        if let Some(account) = removed {
            // XEP-0077 §3.2: the answer first, then the end of every stream. Messages go last, so that none is left.
            self.run_local();
            let roster = self.users.get(&account).and_then(|u| u.roster.as_ref());
            let items = roster.map_or(&[][..], |r| r.items());
            let contacts = Some(store::subscribed(items));
            self.admin(AdminEvent::AccountRemoved {
                account: account.clone(),
                contacts,
            });
            self.next_iq += 1;
            self.fx
                .looks
                .push((LookTag::Iq(self.next_iq), Look::DropMessages(account)));
        }
    }
}

/// What answers may say besides what is asked.
pub(super) fn context<'s>(
    settings: &'s Settings,
    now: Now,
    uptime_s: u64,
    secure: bool,
    asked: &Jid,
) -> Context<'s> {
    Context {
        rights: Rights::NONE,
        services: &settings.components.services,
        archive: settings.archive(asked.domainpart()).is_some(),
        archive_search: settings.archive_is_searched(asked.domainpart()),
        archive_page_max: settings.archive_page_max,
        archive_prefs_jids_max: settings.archive_prefs_jids_max,
        vcard_bytes_max: settings.vcard_bytes_max,
        private_element_bytes_max: settings.private_element_bytes_max,
        blocklist_items_max: settings.blocklist_items_max,
        uptime_s,
        pubsub: iq::pubsub::limits(settings),
        now_unix_ms: now.unix_ms,
        people: &settings.people,
        contacts: &settings.contacts,
        external_services: &settings.external_services,
        ours: false,
        secure,
    }
}
