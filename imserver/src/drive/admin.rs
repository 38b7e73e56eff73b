//! The running server as administrators' commands see it. The doors are in `admin_door`.
//!
//! Never: holds up a shard; does what the audit log has no room for.

use super::audit::AuditLog;
use super::directories::Directories;
use super::links::Ask;
use super::lookups::Lookups;
use super::overlay::StoreOverlay;
use super::questions::{ANSWER, Questions};
use super::reload::Reloader;
use super::retention::Retention;
use super::sweeper::Latest;
use super::writer::DirectWriter;
use crate::admin::{self, Caller, Door, Refusal};
use crate::config::{AdministratorConfig, Config};
use crate::event::{AdminEvent, AdminReply, AlertTo, Event, OnlineQuery, SessionId, SessionInfo};
use crate::linkset::MuxInfo;
use crate::notices::{Kind, Notices};
use crate::policy::{Policy, Right, Verdict};
use crate::shard::home;
use crossbeam_channel::{Sender, bounded};
use directory::{KeysAnswer, PasswordAnswer};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Instant;
use store::{Engine, Reader, WriteError, Written};
use xmpp::error::StreamError;
use xmpp::jid::BareJid;
use xmpp::sasl::LoginName;
use xmpp::scram::{FakeKeys, ScramHash};

/// The running server.
pub struct Backend {
    name: String,
    domains: Vec<String>,
    scram_iterations: u32,
    reader: Mutex<Box<dyn Reader>>,
    shards: Vec<Sender<Vec<Event>>>,
    asks: Sender<Ask>,
    waker: Arc<mio::Waker>,
    direct: DirectWriter,
    questions: Arc<Questions>,
    started: Instant,
    /// On links of role admin.
    pub store: [u8; 16],
    /// On links of role admin.
    pub boot: [u8; 16],
    rules: RwLock<Rules>,
    audit: AuditLog,
    lookups: Lookups,
    overlay: Arc<StoreOverlay>,
    latest: Latest,
    sweep: Sender<()>,
    fake: FakeKeys,
    retention: Arc<Retention>,
    notices: Mutex<Arc<Notices>>,
    /// Set once everything it reloads is there.
    pub reloader: OnceLock<Arc<Reloader>>,
}

/// Who may do what; a reload replaces it.
struct Rules {
    policy: Arc<Policy>,
    administrators: Vec<AdministratorConfig>,
}

impl Rules {
    fn of(config: &Config) -> Self {
        Self {
            policy: Arc::new(config.policy.clone()),
            administrators: config.administrators.clone(),
        }
    }
}

/// Ways of the server's insides that the backend needs.
pub struct Ways {
    /// To the shards.
    pub shards: Vec<Sender<Vec<Event>>>,
    /// To the link loop.
    pub asks: Sender<Ask>,
    /// Wakes it.
    pub waker: Arc<mio::Waker>,
    /// To the store's writer.
    pub direct: DirectWriter,
    /// To the shards, where an answer is wanted.
    pub questions: Arc<Questions>,
    /// What archives keep.
    pub retention: Arc<Retention>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn unavailable(what: &str) -> Refusal {
    Refusal::new("unavailable", format!("{what}; try again"))
}

fn store_refusal(e: store::StoreError) -> Refusal {
    Refusal::new("unavailable", e.to_string())
}

impl Backend {
    /// Over a running server.
    pub fn new(
        config: &Config,
        engine: &Arc<dyn Engine>,
        ways: Ways,
        directories: &Directories,
        fake: FakeKeys,
        notices: Arc<Notices>,
    ) -> anyhow::Result<Self> {
        let mut boot = [0; 16];
        getrandom::fill(&mut boot).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        Ok(Self {
            name: config.name.clone(),
            domains: config.domains.clone(),
            scram_iterations: config.auth.scram_iterations,
            reader: Mutex::new(engine.reader()?),
            shards: ways.shards,
            asks: ways.asks,
            waker: ways.waker,
            direct: ways.direct,
            questions: ways.questions,
            started: Instant::now(),
            store: engine.store_id().0,
            boot,
            rules: RwLock::new(Rules::of(config)),
            audit: AuditLog::open(&config.admin.audit_log)?,
            lookups: directories.lookups().clone(),
            overlay: directories.overlay().clone(),
            latest: directories.latest().clone(),
            sweep: directories.sweep().clone(),
            fake,
            retention: ways.retention,
            notices: Mutex::new(notices),
            reloader: OnceLock::new(),
        })
    }

    /// The server's name on links.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// New rules, and the audit log opened again, for who has moved the old one away.
    pub fn configure(&self, config: &Config) {
        if let Ok(mut rules) = self.rules.write() {
            *rules = Rules::of(config);
        }
        self.audit.reopen(&config.admin.audit_log);
        self.retention.configure(config);
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&mut dyn Reader) -> Result<T, store::StoreError>,
    ) -> Result<T, Refusal> {
        let mut reader = self
            .reader
            .lock()
            .map_err(|_| unavailable("the store's reader is broken"))?;
        read(reader.as_mut()).map_err(store_refusal)
    }

    fn ask(
        &self,
        shards: &[usize],
        event: impl Fn(u64) -> AdminEvent,
    ) -> Result<Vec<AdminReply>, Refusal> {
        let replies = self.questions.ask(shards, event);
        replies.map_err(|_| unavailable("the server is busy"))
    }

    /// Ends sessions; how many.
    fn end(
        &self,
        account: &BareJid,
        resource: Option<&str>,
        error: StreamError,
        text: &str,
    ) -> Result<usize, Refusal> {
        let replies = self.ask(&self.home(account), |request| AdminEvent::Kick {
            request,
            account: account.clone(),
            resource: resource.map(str::to_owned),
            error,
            text: text.to_owned(),
        })?;
        let ended = |r: &AdminReply| match r {
            AdminReply::Kicked(_, n) => *n,
            _ => 0,
        };
        Ok(replies.iter().map(ended).sum())
    }

    /// Whether there is such an account. Somebody in the last sweep is there also while their directory does not answer.
    fn is_known(&self, account: &BareJid) -> Result<bool, Refusal> {
        if self.latest.population().member(account).is_some() {
            return Ok(true);
        }
        let known = self.lookups.routes().site.person(account);
        let known = known.map_err(|e| Refusal::new("unavailable", e.to_string()))?;
        Ok(known.is_some())
    }

    /// Whoever came in with the password of an account goes on only as long as it may log in. An outage takes nothing away.
    fn is_in_force(&self, account: &BareJid) -> bool {
        match self.lookups.routes().site.person(account) {
            Ok(person) => person.is_some_and(|p| !p.disabled),
            Err(_) => true,
        }
    }

    fn membership(&self, user: &BareJid, group: &str) -> Option<bool> {
        let swept = self.lookups.routes().site.swept();
        self.latest.population().membership(user, group, &swept)
    }

    fn all(&self) -> Vec<usize> {
        self.questions.all()
    }

    fn home(&self, account: &BareJid) -> Vec<usize> {
        vec![usize::from(home(account, self.shards.len() as u16).0)]
    }
}

impl admin::Backend for Backend {
    fn domains(&self) -> Vec<String> {
        self.domains.clone()
    }

    fn scram_iterations(&self) -> u32 {
        self.scram_iterations
    }

    fn salt(&self) -> Vec<u8> {
        let mut salt = vec![0; xmpp::scram::SALT_BYTES];
        getrandom::fill(&mut salt)
            .expect("the operating system's generator does not fail once it has started");
        salt
    }

    fn now_unix_ms(&self) -> u64 {
        super::clock::Clock::new().now().unix_ms
    }

    fn write(&self, writes: Vec<store::Write>) -> Result<Vec<store::Written>, Refusal> {
        let written = self.direct.write(writes);
        written.map_err(|e| Refusal::new("unavailable", e))
    }

    fn account(&self, jid: &BareJid) -> Result<Option<store::Account>, Refusal> {
        self.read(|r| r.account(jid))
    }

    fn accounts(
        &self,
        domain: Option<&str>,
        after: Option<&BareJid>,
        limit: usize,
        only_disabled: bool,
    ) -> Result<Vec<store::AccountEntry>, Refusal> {
        self.read(|r| match only_disabled {
            false => r.accounts(domain, after, limit),
            true => r.disabled_accounts(domain, after, limit),
        })
    }

    fn account_counts(&self, domain: &str) -> Result<store::AccountCounts, Refusal> {
        self.read(|r| r.account_counts(domain))
    }

    fn overlay_disabled(&self) -> Result<Vec<BareJid>, Refusal> {
        self.read(|r| r.overlay_disabled())
    }

    fn user(&self, jid: &BareJid) -> Result<store::UserData, Refusal> {
        self.read(|r| r.user_data(jid))
    }

    fn tokens(&self, jid: &BareJid) -> Result<Vec<store::LoginToken>, Refusal> {
        self.read(|r| r.tokens(jid, None))
    }

    fn online(&self, which: OnlineQuery) -> Result<Vec<BareJid>, Refusal> {
        let which = Arc::new(which);
        let replies = self.ask(&self.all(), |request| AdminEvent::Online {
            request,
            which: which.clone(),
        })?;
        let page = |reply| match reply {
            AdminReply::Online(_, page) => page,
            _ => Vec::new(),
        };
        let mut all: Vec<BareJid> = replies.into_iter().flat_map(page).collect();
        all.sort_unstable();
        all.truncate(which.limit);
        Ok(all)
    }

    fn count_online(&self, domain: &str) -> Result<(u64, u64), Refusal> {
        let domain: Arc<str> = domain.into();
        let replies = self.ask(&self.all(), |request| AdminEvent::CountOnline {
            request,
            domain: domain.clone(),
        })?;
        Ok(replies.iter().fold((0, 0), |sum, reply| match reply {
            AdminReply::OnlineCounts(_, online, active) => (sum.0 + online, sum.1 + active),
            _ => sum,
        }))
    }

    fn notices(&self) -> Arc<Notices> {
        self.notices
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn change_notices(
        &self,
        kind: Kind,
        change: &dyn Fn(&Notices) -> Option<Notices>,
        tell: bool,
    ) -> Result<Option<usize>, Refusal> {
        // Held until every shard has it: two changes reach each in the same order.
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(new) = change(&notices) else {
            return Ok(None);
        };
        let write = store::Write::SiteValue {
            key: kind.key(),
            value: new.encode(kind),
        };
        if let Some(Written::Failed(e)) = self.write(vec![write])?.pop() {
            return Err(Refusal::new("unavailable", e.to_string()));
        }
        *notices = Arc::new(new);
        let replies = self.ask(&self.all(), |request| AdminEvent::Notices {
            request,
            notices: notices.clone(),
            tell,
        })?;
        let told = |r: &AdminReply| match r {
            AdminReply::Alerted(_, n) => *n,
            _ => 0,
        };
        Ok(Some(replies.iter().map(told).sum()))
    }

    fn rows(&self, jid: &BareJid, limit: usize) -> Result<Vec<u64>, Refusal> {
        self.read(|r| r.some_rows(jid, limit))
    }

    fn sessions(
        &self,
        account: Option<&BareJid>,
        after: Option<u64>,
        limit: usize,
    ) -> Result<Vec<SessionInfo>, Refusal> {
        let shards = account.map_or_else(|| self.all(), |a| self.home(a));
        let replies = self.ask(&shards, |request| AdminEvent::Sessions {
            request,
            account: account.cloned(),
            after: after.map(SessionId),
            limit,
        })?;
        let mut rows: Vec<SessionInfo> = replies
            .into_iter()
            .flat_map(|r| match r {
                AdminReply::Sessions(_, rows) => rows,
                _ => Vec::new(),
            })
            .collect();
        rows.sort_by_key(|s| s.id);
        rows.truncate(limit);
        Ok(rows)
    }

    fn kick(&self, account: &BareJid, resource: Option<&str>) -> Result<usize, Refusal> {
        let text = "ended by an administrator";
        self.end(account, resource, StreamError::PolicyViolation, text)
    }

    fn set_disabled(&self, account: &BareJid, disabled: bool) -> Result<(), Refusal> {
        let jid = account.clone();
        let mut writes = vec![store::Write::AccountDisabled { jid, disabled }];
        let site = self.lookups.routes().site.clone();
        // The store may hold an account of this name which is not the one that logs in: one from before there was a directory, say.
        // So both are written, whichever of them decides.
        let elsewhere = !site.is_local(account.domainpart());
        if elsewhere {
            if !self.is_known(account)? {
                return Err(Refusal::new("not-found", "there is no such account"));
            }
            let jid = account.clone();
            writes.push(store::Write::OverlayDisabled { jid, disabled });
        }
        for written in self.write(writes)? {
            match written {
                Written::Failed(WriteError::NotFound) if elsewhere => {}
                Written::Failed(WriteError::NotFound) => {
                    return Err(Refusal::new("not-found", "there is no such account"));
                }
                Written::Failed(e) => return Err(Refusal::new("unavailable", e.to_string())),
                _ => {}
            }
        }
        if elsewhere {
            self.overlay.set_disabled(account, disabled);
        }
        if disabled {
            let text = "the account has been disabled";
            self.end(account, None, StreamError::NotAuthorized, text)?;
        }
        Ok(())
    }

    fn alert(&self, to: &AlertTo, subject: &str, body: &str) -> Result<usize, Refusal> {
        let shards = match to {
            AlertTo::Account(account) => self.home(account),
            AlertTo::Everybody | AlertTo::Group(_) => self.all(),
        };
        let replies = self.ask(&shards, |request| AdminEvent::Alert {
            request,
            to: to.clone(),
            subject: subject.to_owned(),
            body: body.to_owned(),
        })?;
        let got = |r: &AdminReply| match r {
            AdminReply::Alerted(_, n) => *n,
            _ => 0,
        };
        Ok(replies.iter().map(got).sum())
    }

    fn site(&self) -> Arc<directory::site::Site> {
        self.lookups.routes().site.clone()
    }

    fn population(&self) -> Arc<directory::population::Population> {
        self.latest.population()
    }

    fn sweep_now(&self) {
        // One that is to come anyway will do.
        let _ = self.sweep.try_send(());
    }

    fn verdict(&self, user: &BareJid, right: Right) -> Verdict {
        match self.rules.read() {
            Ok(rules) => {
                let groups = |group: &str| self.membership(user, group);
                rules.policy.test(user, right, &groups)
            }
            Err(_) => Verdict {
                allowed: false,
                line: None,
                unknown: true,
            },
        }
    }

    fn config(&self) -> Result<Vec<crate::config::Effective>, Refusal> {
        let reloader = self.reloader.get();
        let reloader = reloader.ok_or_else(|| unavailable("the server is starting"))?;
        Ok(reloader.config().effective())
    }

    fn reload(&self) -> Result<Vec<String>, Refusal> {
        let reloader = self.reloader.get();
        let reloader = reloader.ok_or_else(|| unavailable("the server is starting"))?;
        reloader
            .reload()
            .map_err(|mistakes| Refusal::new("bad-request", mistakes.to_string()))
    }

    fn contacts(&self, account: &BareJid) -> Result<Vec<BareJid>, Refusal> {
        self.read(|r| Ok(store::subscribed(&r.user_data(account)?.roster)))
    }

    fn account_removed(&self, account: &BareJid, contacts: &[BareJid]) {
        self.overlay.set_disabled(account, false);
        for s in self.home(account) {
            if self.shards[s]
                .send_timeout(
                    vec![Event::Admin(AdminEvent::AccountRemoved {
                        account: account.clone(),
                        contacts: Some(contacts.to_vec()),
                    })],
                    ANSWER,
                )
                .is_err()
            {
                tracing::warn!(
                    account = account.as_str(),
                    "sessions of a removed account could not be ended"
                );
            }
        }
    }

    fn muxes(&self) -> Result<Vec<MuxInfo>, Refusal> {
        let (tx, rx) = bounded(1);
        self.asks
            .send_timeout(Ask::List(tx), ANSWER)
            .map_err(|_| unavailable("the link loop is busy"))?;
        // A loop that cannot be woken has ended; then the answer fails to come.
        let _ = self.waker.wake();
        rx.recv_timeout(ANSWER)
            .map_err(|_| unavailable("the link loop is busy"))
    }

    fn grants(&self, caller: &Caller, right: Right) -> bool {
        if let Door::Account(account) = &caller.door
            && !self.is_in_force(account)
        {
            return false;
        }
        self.rules.read().is_ok_and(|rules| {
            let granted = rules
                .administrators
                .iter()
                .map(|a| (a.name.as_str(), &*a.rights));
            admin::grants(
                caller,
                right,
                &rules.policy,
                &|user, group| self.membership(user, group),
                granted,
            )
        })
    }

    fn audit(&self, record: &admin::audit::Record<'_>) -> Result<(), Refusal> {
        self.audit
            .append(&record.line(self.now_unix_ms()))
            .map_err(|e| {
                Refusal::new(
                    "unavailable",
                    format!("the audit log cannot be written, so nothing was done: {e}"),
                )
            })
    }

    fn status(&self) -> Result<Vec<(&'static str, Value)>, Refusal> {
        let shards = self.ask(&self.all(), |request| AdminEvent::Status { request })?;
        let muxes = self.muxes()?;
        let counts = self.read(|r| r.counts())?;
        let sum = |f: fn(&crate::event::ShardStatus) -> u64| -> u64 {
            shards
                .iter()
                .map(|r| {
                    if let AdminReply::Status(_, s) = r {
                        f(s)
                    } else {
                        0
                    }
                })
                .sum()
        };
        let kept = self.retention.kept();
        let kept = kept.iter().map(|(domain, days)| format!("{domain} {days}"));
        let rules = self.retention.has_rules();
        let rules = rules.then(|| "as the policy says".to_owned());
        let kept: Vec<String> = kept.chain(rules).collect();
        Ok(vec![
            ("server", json!(self.name)),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("domains", json!(self.domains.join(" "))),
            ("up seconds", json!(self.started.elapsed().as_secs())),
            ("shards", json!(self.shards.len())),
            ("muxes linked", json!(muxes.iter().filter(|m| m.up).count())),
            ("connections", json!(sum(|s| s.conns))),
            ("sessions", json!(sum(|s| s.sessions))),
            ("sessions away", json!(sum(|s| s.away))),
            ("users online", json!(sum(|s| s.online))),
            ("users in memory", json!(sum(|s| s.users))),
            ("accounts", json!(counts.accounts)),
            ("messages waiting", json!(counts.pending)),
            ("stanzas in", json!(sum(|s| s.stanzas_in))),
            ("stanzas out", json!(sum(|s| s.stanzas_out))),
            ("messages stored", json!(sum(|s| s.stored))),
            ("archives keep days", json!(kept.join(", "))),
            ("old messages dropped", json!(self.retention.dropped())),
            ("log-ins", json!(sum(|s| s.logins))),
            ("failed log-ins", json!(sum(|s| s.login_failures))),
            ("streams resumed", json!(sum(|s| s.resumptions))),
        ])
    }
}

impl admin::login::Keys for Backend {
    fn keys(&self, login: &LoginName, hash: ScramHash) -> Result<KeysAnswer, Refusal> {
        self.lookups.routes().site.scram_keys(login, hash).map_err(|e| {
            tracing::warn!(error = %e, "the directory did not answer an administrator's log-in");
            unavailable("the directory does not answer")
        })
    }

    fn fake(&self) -> &FakeKeys {
        &self.fake
    }

    fn checks_passwords(&self, domain: &str) -> bool {
        !self.lookups.routes().site.is_local(domain)
    }

    fn check_password(&self, login: &LoginName, password: &str) -> Result<PasswordAnswer, Refusal> {
        let routes = self.lookups.routes();
        routes.site.check_password(login, password).map_err(|e| {
            tracing::warn!(error = %e, "the directory did not answer an administrator's log-in");
            unavailable("the directory does not answer")
        })
    }
}

impl super::health::Source for Backend {
    fn metrics(&self) -> String {
        use admin::Backend as _;
        use std::fmt::Write as _;
        let mut out = String::new();
        let Ok(rows) = self.status() else {
            return "isthmus_up 0\n".into();
        };
        out.push_str("isthmus_up 1\n");
        for (name, value) in rows {
            if let Some(n) = value.as_u64() {
                // Writing into a String cannot fail.
                let _ = writeln!(out, "isthmus_{} {n}", name.replace([' ', '-'], "_"));
            }
        }
        let site = self.lookups.routes().site.clone();
        for backend in site.backends() {
            for (server, up) in backend.servers() {
                let (directory, up) = (backend.name(), u8::from(up));
                let labels = format!("directory={directory:?},server={server:?}");
                let _ = writeln!(out, "isthmus_directory_server_up{{{labels}}} {up}");
            }
        }
        for (directory, cached, stats) in site.cache_stats() {
            let labels = format!("directory={directory:?},cached={cached:?}");
            for (what, n) in [
                ("hits", stats.hits),
                ("misses", stats.misses),
                ("stale", stats.stale),
                ("failures", stats.failures),
            ] {
                let _ = writeln!(out, "isthmus_directory_cache_{what}{{{labels}}} {n}");
            }
        }
        out
    }

    fn health(&self) -> Result<(), String> {
        use admin::Backend as _;
        let muxes = self.muxes().map_err(|e| e.text)?;
        if muxes.iter().any(|m| m.up) {
            Ok(())
        } else {
            Err("no mux is linked".into())
        }
    }
}
