//! Looks at everybody and every group of the directories once per time to live, and tells the shards what is different.
//!
//! In: sweeps of back ends. Out: populations for shards, the end of sessions of those who are gone.
//! Owns: the last good sweep of each back end, also on disk, so that a start during an outage of the directory knows the groups.
//! Never: takes a failed sweep for an empty one; ends a session because of one answer.
//!
//! Who is gone is found in two ways: by comparing with the sweep before, and by asking the shards who is online and in no sweep.
//! That is how somebody is found who came and went between two sweeps, or before the first.

use super::clock::Clock;
use super::holders::Holders;
use super::lookups::Lookups;
use super::questions::Questions;
use super::told::Told;
use crate::event::{AdminEvent, AdminReply, Event};
use crate::shard::home;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use directory::backend::{Sweep, SweptGroup, SweptPerson};
use directory::population::{Difference, Population};
use directory::site::Site;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use xmpp::jid::BareJid;

/// File of the last good sweeps in the data directory.
const FILE: &str = "population";

/// Of so many people that were there (or are online), more than half gone at a time is taken for a fault of the directory until the next sweep says
/// the same. A handful may well leave together.
const MASS: usize = 20;

/// The population now, for those who are no shard.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<RwLock<Arc<Population>>>);

impl Latest {
    /// As the last sweep found it.
    pub fn population(&self) -> Arc<Population> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Begins with what was told before a restart.
    pub fn beginning(population: Arc<Population>) -> Self {
        Self(Arc::new(RwLock::new(population)))
    }

    fn replace(&self, population: Arc<Population>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = population;
    }
}

/// See the module.
pub struct Sweeper {
    /// Whose back ends are swept.
    pub lookups: Lookups,
    /// Who is told.
    pub shards: Vec<Sender<Vec<Event>>>,
    /// To them, where an answer is wanted.
    pub questions: Arc<Questions>,
    /// For everybody else.
    pub latest: Latest,
    /// Seconds between sweeps.
    pub interval_s: Arc<AtomicU64>,
    /// Sweep now.
    pub wake: Receiver<()>,
    /// Where the last good sweeps are kept.
    pub data_dir: PathBuf,
    /// What clients may have been told. Shards have begun with what is certain.
    pub told: Told,
    /// Whose addresses are whose.
    pub holders: Holders,
}

/// What lives from sweep to sweep.
struct State {
    sweeps: BTreeMap<Arc<str>, Sweep>,
    told: Told,
    failing: HashSet<String>,
    /// Gone by the sweep, and not yet confirmed one by one.
    unconfirmed: HashSet<BareJid>,
    /// The last sweep found more than half of everybody gone.
    suspicious: bool,
    /// The last sweep had not even half of those who are online.
    suspicious_online: bool,
}

impl Sweeper {
    /// Runs until nobody can wake it any more.
    pub fn run(mut self) {
        let mut state = State {
            sweeps: load(&self.data_dir.join(FILE)),
            told: self.told.clone(),
            failing: HashSet::new(),
            unconfirmed: HashSet::new(),
            suspicious: false,
            suspicious_online: false,
        };
        // What shards have begun with, however late it is now.
        let mut before = state.told.certain(0);
        for population in state.told.uncertain() {
            self.tell(&population, &Arc::new(population.difference(&before)));
            before = population;
        }
        if !state.sweeps.is_empty() {
            self.publish(&mut state);
        }
        loop {
            // Whoever has wanted one until now gets this one: at a start the configuration has.
            let _ = self.wake.try_recv();
            self.sweep(&mut state);
            let wait = Duration::from_secs(self.interval_s.load(Ordering::Relaxed));
            match self.wake.recv_timeout(wait) {
                Ok(()) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sweep(&mut self, state: &mut State) {
        let site = self.lookups.routes().site.clone();
        let mut sweeps = BTreeMap::new();
        let mut good: HashSet<Arc<str>> = HashSet::new();
        let mut ids: HashMap<Arc<str>, Vec<(BareJid, String)>> = HashMap::new();
        for backend in site.backends().into_iter().filter(|b| b.abilities().sweep) {
            let name: Arc<str> = Arc::from(backend.name());
            let began = Instant::now();
            match backend.sweep() {
                Ok(mut sweep) => {
                    if state.failing.remove(&*name) {
                        tracing::info!(directory = &*name, "the directory can be swept again");
                    }
                    only_its_own(&site, &name, &mut sweep);
                    // They are not for shards, and no difference of a population.
                    let taken = sweep.people.iter_mut();
                    let taken = taken.filter_map(|p| Some((p.jid.clone(), p.id.take()?)));
                    ids.insert(name.clone(), taken.collect());
                    if sweep.groups_unknown.take().is_some() {
                        let Some(old) = state.sweeps.get(&name) else {
                            // Groups that have never been read are not empty: the sweep counts when they are.
                            continue;
                        };
                        sweep.groups.clone_from(&old.groups);
                    }
                    if !state.sweeps.contains_key(&name) {
                        tracing::info!(
                            directory = &*name,
                            people = sweep.people.len(),
                            groups = sweep.groups.len(),
                            took_ms = began.elapsed().as_millis() as u64,
                            "the people and groups of the directory are known"
                        );
                    }
                    good.insert(name.clone());
                    sweeps.insert(name, sweep);
                }
                Err(error) => {
                    if state.failing.insert(name.to_string()) {
                        tracing::warn!(%error, "a sweep of a directory failed: its groups stay as they were");
                    }
                    if let Some(old) = state.sweeps.get(&name) {
                        sweeps.insert(name, old.clone());
                    }
                }
            }
        }
        let before = self.latest.population();
        let after = Population::new(&sweeps, &before);
        let lost = after.difference(&before).lost.len();
        if lost > MASS
            && lost > before.people() / 2
            && !std::mem::replace(&mut state.suspicious, true)
        {
            tracing::warn!(
                lost,
                "more than half of everybody is gone from the directories: believed when the next sweep says the same"
            );
            return;
        }
        state.suspicious = false;
        self.meet(&site, &good, &ids);
        if sweeps != state.sweeps {
            state.sweeps = sweeps;
            let file = self.data_dir.join(FILE);
            if let Err(error) = save(&file, &state.sweeps) {
                tracing::warn!(%error, file = %file.display(), "what the directories hold could not be kept for the next start");
            }
            let lost = self.publish(state);
            state.unconfirmed.extend(lost);
        }
        let unswept = self.unswept(&site, &good, state);
        state.unconfirmed.extend(unswept);
        let unconfirmed = std::mem::take(&mut state.unconfirmed);
        state.unconfirmed = unconfirmed
            .into_iter()
            .filter(|jid| !self.confirm(&site, jid))
            .collect();
    }

    /// Of each domain all of whose directories have been swept, whose entry an address is: of the first that has it.
    fn meet(
        &mut self,
        site: &Site,
        good: &HashSet<Arc<str>>,
        ids: &HashMap<Arc<str>, Vec<(BareJid, String)>>,
    ) {
        let mut first: BTreeMap<&BareJid, &String> = BTreeMap::new();
        for domain in site.domains().filter(|d| is_swept(site, good, d)) {
            for found in site.chain(domain).iter().filter_map(|b| ids.get(b.name())) {
                for (jid, id) in found.iter().filter(|(j, _)| j.domainpart() == domain) {
                    first.entry(jid).or_insert(id);
                }
            }
        }
        let ids = first.into_iter().map(|(j, id)| (j.clone(), id.clone()));
        self.holders.meet(ids.collect(), &|jid| {
            site.flush(Some(jid));
            site.entry_is_in(jid).ok().map(|entry| entry.is_some())
        });
    }

    /// Who is online and in no sweep. Only of domains all of whose directories that can be swept have just been.
    fn unswept(&self, site: &Site, good: &HashSet<Arc<str>>, state: &mut State) -> Vec<BareJid> {
        let domains: Arc<[String]> = site
            .domains()
            .filter(|d| is_swept(site, good, d))
            .cloned()
            .collect();
        if domains.is_empty() {
            return Vec::new();
        }
        let asked = self.questions.ask(&self.questions.all(), |request| {
            let domains = domains.clone();
            AdminEvent::Unswept { request, domains }
        });
        let Ok(replies) = asked else {
            tracing::debug!(
                "the shards have no time to say who is online: the next sweep asks again"
            );
            return Vec::new();
        };
        let (mut online, mut unswept) = (0, Vec::new());
        for reply in replies {
            if let AdminReply::Unswept(_, accounts, unknown) = reply {
                online += accounts;
                unswept.extend(unknown.into_iter().filter(|jid| !is_elsewhere(site, jid)));
            }
        }
        let many = unswept.len() > MASS && unswept.len() > online / 2;
        if many && !std::mem::replace(&mut state.suspicious_online, true) {
            tracing::warn!(
                online,
                missing = unswept.len(),
                "the directories do not have more than half of those who are online: believed when the next sweep says the same"
            );
            return Vec::new();
        }
        state.suspicious_online = false;
        unswept
    }

    /// Tells everybody. Returns who is gone.
    fn publish(&self, state: &mut State) -> HashSet<BareJid> {
        let before = self.latest.population();
        let population = Arc::new(Population::new(&state.sweeps, &before));
        let difference = Arc::new(population.difference(&before));
        state
            .told
            .push(Clock::new().now().unix_ms, population.clone());
        self.latest.replace(population.clone());
        self.tell(&population, &difference);
        difference.lost.clone()
    }

    fn tell(&self, population: &Arc<Population>, difference: &Arc<Difference>) {
        for shard in &self.shards {
            // This thread is nobody's hot path, so it may wait. A shard that is gone needs to know nothing.
            let _ = shard.send(vec![Event::Population(
                population.clone(),
                difference.clone(),
            )]);
        }
    }

    /// Asks the directory about this one alone, and ends the sessions of who may not log in any more. False: nobody can say.
    fn confirm(&self, site: &Site, jid: &BareJid) -> bool {
        site.flush(Some(jid));
        match site.person(jid) {
            Ok(Some(person)) if !person.disabled => true,
            Ok(_) => {
                tracing::info!(
                    account = jid.as_str(),
                    "gone from the directory, or disabled there: logged off"
                );
                let shard = home(jid, self.shards.len() as u16);
                let gone = Event::Admin(AdminEvent::AccountRemoved {
                    account: jid.clone(),
                    contacts: None,
                });
                let _ = self.shards[usize::from(shard.0)].send(vec![gone]);
                true
            }
            Err(_) => false,
        }
    }
}

/// Every directory of the domain that can be swept has been, and there is one.
fn is_swept(site: &Site, good: &HashSet<Arc<str>>, domain: &str) -> bool {
    let chain = site.chain(domain).iter().filter(|b| b.abilities().sweep);
    let mut swept = chain.map(|b| good.contains(b.name())).peekable();
    swept.peek().is_some() && swept.all(|good| good)
}

/// A directory that cannot be swept has them.
fn is_elsewhere(site: &Site, jid: &BareJid) -> bool {
    let mut others = site
        .chain(jid.domainpart())
        .iter()
        .filter(|b| !b.abilities().sweep);
    others.any(|b| matches!(b.at_hand(jid), Some(Some(_))))
}

/// A directory speaks for the domains that name it, and for no others.
fn only_its_own(site: &Site, name: &str, sweep: &mut Sweep) {
    let mut domains: BTreeMap<String, bool> = BTreeMap::new();
    let mut its_own = |jid: &BareJid| match domains.get(jid.domainpart()) {
        Some(known) => *known,
        None => {
            let chain = site.chain(jid.domainpart());
            let its = chain.iter().any(|b| b.name() == name);
            domains.insert(jid.domainpart().to_owned(), its);
            its
        }
    };
    sweep.people.retain(|p| its_own(&p.jid));
    for group in &mut sweep.groups {
        group.members.retain(&mut its_own);
    }
}

/// A line each: a directory, a person, a group, or a member of the group before.
#[derive(serde::Serialize, serde::Deserialize)]
enum Line {
    Directory(String),
    Person(String, Option<String>, bool),
    Group(String, Option<String>, bool),
    Member(String),
}

fn save(file: &Path, sweeps: &BTreeMap<Arc<str>, Sweep>) -> std::io::Result<()> {
    let new = file.with_extension("new");
    let mut out = BufWriter::new(std::fs::File::create(&new)?);
    let mut put = |line: Line| -> std::io::Result<()> {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")
    };
    for (name, sweep) in sweeps {
        put(Line::Directory(name.to_string()))?;
        for SweptPerson {
            jid,
            name,
            disabled,
            ..
        } in &sweep.people
        {
            put(Line::Person(jid.as_str().into(), name.clone(), *disabled))?;
        }
        for group in &sweep.groups {
            put(Line::Group(
                group.name.clone(),
                group.title.clone(),
                group.in_rosters,
            ))?;
            for member in &group.members {
                put(Line::Member(member.as_str().into()))?;
            }
        }
    }
    out.into_inner()?.sync_data()?;
    std::fs::rename(new, file)
}

/// What was kept; nothing if there is none or it cannot be read: then the first sweep tells.
fn load(file: &Path) -> BTreeMap<Arc<str>, Sweep> {
    let Ok(open) = std::fs::File::open(file) else {
        return BTreeMap::new();
    };
    let read = || -> Option<BTreeMap<Arc<str>, Sweep>> {
        let mut sweeps: BTreeMap<Arc<str>, Sweep> = BTreeMap::new();
        let mut directory: Option<Arc<str>> = None;
        for line in BufReader::new(open).lines() {
            let line: Line = serde_json::from_str(&line.ok()?).ok()?;
            if let Line::Directory(name) = &line {
                directory = Some(Arc::from(name.as_str()));
                sweeps.insert(Arc::from(name.as_str()), Sweep::default());
                continue;
            }
            let sweep = sweeps.get_mut(directory.as_ref()?)?;
            match line {
                Line::Directory(_) => {}
                Line::Person(jid, name, disabled) => sweep.people.push(SweptPerson {
                    jid: BareJid::parse(&jid).ok()?,
                    name,
                    disabled,
                    id: None,
                }),
                Line::Group(name, title, in_rosters) => sweep.groups.push(SweptGroup {
                    name,
                    title,
                    in_rosters,
                    members: Vec::new(),
                }),
                Line::Member(jid) => {
                    let group = sweep.groups.last_mut()?;
                    group.members.push(BareJid::parse(&jid).ok()?);
                }
            }
        }
        Some(sweeps)
    };
    read().unwrap_or_else(|| {
        tracing::warn!(file = %file.display(), "what the directories held cannot be read; they will be swept anew");
        BTreeMap::new()
    })
}

#[cfg(test)]
mod tests {
    use super::super::overlay::StoreOverlay;
    use super::super::writer::DirectWriter;
    use super::*;
    use crossbeam_channel::bounded;
    use directory::backend::{Abilities, Backend, ExplainStep, Person};
    use directory::{DirectoryError, KeysAnswer, PasswordAnswer};
    use store::Engine as _;
    use xmpp::sasl::LoginName;
    use xmpp::scram::ScramHash;

    fn jid(text: &str) -> BareJid {
        BareJid::parse(text).expect("a JID")
    }

    #[test]
    fn a_sweep_is_kept_for_the_next_start() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE);
        assert!(load(&file).is_empty());
        let sweep = Sweep {
            people: vec![SweptPerson {
                jid: jid("ann@x.example"),
                name: Some("Ann \"the\n\u{1F600}\" Example".into()),
                disabled: true,
                id: None,
            }],
            groups: vec![SweptGroup {
                name: "Sales team".into(),
                title: None,
                in_rosters: true,
                members: vec![jid("ann@x.example"), jid("bob@x.example")],
            }],
            groups_unknown: None,
        };
        let sweeps = BTreeMap::from([
            (Arc::from("corp"), sweep),
            (Arc::from("empty"), Sweep::default()),
        ]);
        save(&file, &sweeps).expect("it can be written");
        assert_eq!(load(&file), sweeps);
        for broken in [
            "{\"Member\":\"a@b\"}\n",
            "nonsense\n",
            "{\"Directory\":\"x\"}\n{\"Person\":[\"@\",null,false]}\n",
        ] {
            std::fs::write(&file, broken).expect("it can be written");
            assert!(load(&file).is_empty(), "{broken}");
        }
    }

    /// A directory that knows some addresses.
    #[derive(Debug)]
    struct Fake {
        name: &'static str,
        sweep: bool,
        knows: Vec<BareJid>,
    }

    impl Backend for Fake {
        fn name(&self) -> &str {
            self.name
        }

        fn abilities(&self) -> Abilities {
            Abilities {
                sweep: self.sweep,
                ..Abilities::default()
            }
        }

        fn resolve(&self, _: &LoginName) -> Result<Option<Person>, DirectoryError> {
            Ok(None)
        }

        fn person(&self, jid: &BareJid) -> Result<Option<Person>, DirectoryError> {
            Ok(self.knows.contains(jid).then(|| Person {
                jid: jid.clone(),
                disabled: false,
                reference: String::new(),
                profile: Default::default(),
            }))
        }

        fn at_hand(&self, jid: &BareJid) -> Option<Option<Person>> {
            self.person(jid).ok()
        }

        fn check_password(&self, _: &LoginName, _: &str) -> Result<PasswordAnswer, DirectoryError> {
            Ok(PasswordAnswer::Wrong)
        }

        fn scram_keys(&self, _: &LoginName, _: ScramHash) -> Result<KeysAnswer, DirectoryError> {
            Ok(KeysAnswer::None)
        }

        fn explain(&self, _: &LoginName, _: Option<&str>) -> Vec<ExplainStep> {
            Vec::new()
        }
    }

    #[test]
    fn who_is_online_and_in_no_sweep_is_asked_about_unless_that_may_be_a_fault() {
        let people = |from: usize, to: usize| -> Vec<BareJid> {
            (from..to)
                .map(|n| jid(&format!("p{n:02}@x.example")))
                .collect()
        };
        // The shard says that of thirty who are online these are not in the directories.
        let (shard, asked) = bounded::<Vec<Event>>(8);
        let (answers, replies) = bounded(8);
        let (tell, missing) = bounded::<Vec<BareJid>>(8);
        let thread = std::thread::spawn(move || {
            for event in asked.into_iter().flatten() {
                if let Event::Admin(AdminEvent::Unswept { request, domains }) = event {
                    assert_eq!(*domains, ["x.example"]);
                    let missing = missing.recv().expect("the test has said who");
                    let _ = answers.send(AdminReply::Unswept(request, 30, missing));
                }
            }
        });
        let dir = tempfile::tempdir().expect("a directory");
        let told = Told::load(dir.path(), Duration::from_secs(30));
        let model = store::model::Model::new();
        let (writer, _) = DirectWriter::new();
        let overlay = StoreOverlay::new(&model, writer.clone(), 4_096).expect("a reader");
        let holders = Holders::new(
            dir.path().join("holders"),
            model.reader().expect("a reader"),
            writer,
            vec![shard.clone()],
            Arc::new(overlay),
        );
        let sweeper = Sweeper {
            holders,
            lookups: Lookups::default(),
            shards: vec![shard.clone()],
            questions: Questions::start(vec![shard], replies).expect("a thread"),
            latest: Latest::default(),
            interval_s: Arc::default(),
            wake: bounded(1).1,
            data_dir: dir.path().to_owned(),
            told: told.clone(),
        };
        let mut state = State {
            sweeps: BTreeMap::new(),
            told,
            failing: HashSet::new(),
            unconfirmed: HashSet::new(),
            suspicious: false,
            suspicious_online: false,
        };
        let ldap = Fake {
            name: "corp",
            sweep: true,
            knows: Vec::new(),
        };
        let other = Fake {
            name: "other",
            sweep: false,
            knows: people(0, 1),
        };
        let chain: Vec<Arc<dyn Backend>> = vec![Arc::new(ldap), Arc::new(other)];
        let site = Site::without_overlay([("x.example".to_owned(), chain)]);
        let good: HashSet<Arc<str>> = [Arc::from("corp")].into();
        let mut unswept = |good: &HashSet<Arc<str>>, missing: &[BareJid]| {
            if !good.is_empty() {
                tell.send(missing.to_vec()).expect("room");
            }
            sweeper.unswept(&site, good, &mut state)
        };
        // The directory has not been swept: nobody is asked.
        assert_eq!(unswept(&HashSet::new(), &[]), []);
        // The first of them is the other directory's.
        assert_eq!(unswept(&good, &people(0, 5)), people(1, 5));
        // Most of everybody: only when it is said twice, one after the other.
        let most = people(1, 30);
        assert_eq!(unswept(&good, &most), []);
        assert_eq!(unswept(&good, &[]), []);
        assert_eq!(unswept(&good, &most), []);
        assert_eq!(unswept(&good, &most), most);
        drop(sweeper);
        thread.join().expect("no panic");
    }
}
