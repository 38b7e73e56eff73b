//! All links of a server, sans I/O: which mux is which, which connection is on which shard.
//!
//! In: bytes of transports, commands of the shards, the time. Out: bytes for transports, events for the shards.
//! Owns: one `ServerSide` per mux, the table connection -> shard, the notes of sessions found at start.
//! Never: looks into the bytes of a client; believes Hello where the certificate says otherwise.
//!
//! A connection moves to another shard like this, so that it loses nothing and keeps its order:
//!
//! ```text
//!   old shard                 link loop                          new shard
//!   Rehome(travel) ---------> table: conn -> new, hold events
//!                             Adopt(travel) -------------------> has the session
//!             <-------------- Rehomed
//!   Stray(event)... --------> event ---------------------------> in order
//!   RehomeDone -------------> held events ---------------------> in order; done
//! ```

use crate::event::*;
use bytes::{Bytes, BytesMut};
use foldhash::HashMap;
use proto::frame::*;
use proto::link::LinkError;
use proto::server_side::{SendError, ServerEvent, ServerSide, ServerSideConfig};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a certificate and the configuration say a link may be.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the mux, from its certificate.
    pub name: String,
    /// Kinds of stream it may open.
    pub kinds: Vec<ListenerKind>,
    /// Domains whose accounts may log in through it. `None`: all.
    pub domains: Option<Vec<String>>,
    /// Its word on client certificates counts.
    pub trust_client_certificates: bool,
}

/// One row of `mux list`.
#[derive(Debug, Clone)]
pub struct MuxInfo {
    /// Its name.
    pub name: String,
    /// Number of its link.
    pub link: LinkId,
    /// A transport is up.
    pub up: bool,
    /// Connections.
    pub conns: usize,
    /// Bytes of frames it has not acknowledged.
    pub retained_bytes: usize,
}

#[derive(Debug)]
struct Place {
    shard: ShardId,
    moving: Option<Vec<Event>>,
}

struct LinkState {
    side: ServerSide,
    identity: Identity,
    name: Arc<str>,
    conns: HashMap<ConnId, Place>,
    /// Frames that wait until the mux has acknowledged enough of those before them. What sessions may have outstanding bounds it.
    backlog: VecDeque<(Frame, bool)>,
}

/// Bytes of unacknowledged frames above which more wait in the backlog: well below what the link protocol allows.
const RETAINED_HIGH: usize = 32 * 1024 * 1024;

/// See the module.
pub struct Links {
    name: String,
    boot: BootId,
    store: StoreId,
    mux_lost: Duration,
    shards: u16,
    links: HashMap<LinkId, LinkState>,
    next: u32,
    notes: HashMap<[u8; 16], ShardId>,
    events: Vec<(ShardId, Event)>,
    down: Vec<(LinkId, LinkError)>,
    violations: u64,
}

impl LinkState {
    fn send(&mut self, frame: Frame, track: bool) {
        let sent = if track {
            self.side.send_tracked(frame)
        } else {
            self.side.send(frame)
        };
        match sent {
            // A connection that has gone in the meantime: its Closed event is on the way to the shard.
            Ok(()) | Err(SendError::Gone | SendError::Lost) => {}
            Err(e) => tracing::error!(error = %e, "a shard sent a frame the link does not allow"),
        }
    }

    /// Sends what waited, as far as the mux has acknowledged.
    fn pump(&mut self) {
        while self.side.retained_bytes() < RETAINED_HIGH
            && let Some((frame, track)) = self.backlog.pop_front()
        {
            self.send(frame, track);
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links")
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}

/// A transport could not become a link.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The link protocol says no.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// Hello names another mux than the certificate.
    #[error("the certificate is for mux `{certificate}`, Hello says `{hello}`")]
    Name {
        /// What the certificate says.
        certificate: String,
        /// What Hello says.
        hello: String,
    },
    /// Another process of this name is linked and alive: a copy of its certificate, most likely.
    #[error("another mux of this name is connected")]
    Taken(LinkId),
}

impl Links {
    /// No link yet. `notes`: where the sessions of an earlier run are.
    pub fn new(
        name: String,
        boot: BootId,
        store: StoreId,
        shards: u16,
        mux_lost: Duration,
        notes: Vec<NotePlace>,
    ) -> Self {
        Self {
            name,
            boot,
            store,
            mux_lost,
            shards,
            links: HashMap::default(),
            next: 1,
            notes: notes.into_iter().map(|n| (n.note.0, n.shard)).collect(),
            events: Vec::new(),
            down: Vec::new(),
            violations: 0,
        }
    }

    /// Links of other boots of this mux that are up, as far as is known: what has come on their transports should be handled
    /// before [`Links::hello`] decides whether they live.
    pub fn rivals(&self, hello: &Hello) -> Vec<LinkId> {
        let rivals = self.links.iter().filter(|(_, l)| {
            l.name.as_ref() == hello.name && l.side.peer().1 != hello.boot && l.side.is_up()
        });
        rivals.map(|(&id, _)| id).collect()
    }

    /// A transport has said Hello. Returns its link: the one it continues, or a new one.
    ///
    /// Another boot of the same mux is taken only when the one before it is not alive: of two processes with one name and
    /// certificate each would else end the other's clients, in turn.
    pub fn hello(
        &mut self,
        now: Instant,
        identity: Identity,
        hello: Hello,
    ) -> Result<LinkId, HelloError> {
        if hello.name != identity.name {
            return Err(HelloError::Name {
                certificate: identity.name,
                hello: hello.name,
            });
        }
        let known = self
            .links
            .iter()
            .find(|(_, l)| l.name.as_ref() == identity.name && l.side.peer().1 == hello.boot);
        if let Some((&id, _)) = known {
            let link = self.links.get_mut(&id).expect("just found");
            link.side.handle_hello(now, hello)?;
            link.identity = identity;
            return Ok(self.greeted_again(id));
        }
        let holder = self
            .links
            .iter()
            .find(|(_, l)| l.name.as_ref() == identity.name && l.side.holds_name(now));
        if let Some((&id, _)) = holder {
            return Err(HelloError::Taken(id));
        }
        // The same mux with another boot: the earlier process is dead, and its connections with it.
        let mut dead: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, l)| l.name.as_ref() == identity.name)
            .map(|(&id, _)| id)
            .collect();
        dead.sort_unstable();
        let mut config = ServerSideConfig::new(self.name.clone(), self.boot, self.store, Role::Mux);
        config.mux_lost = self.mux_lost;
        let side = ServerSide::accept(now, config, hello)?;
        for id in dead {
            let up = self.links.get(&id).is_some_and(|l| l.side.is_up());
            if up {
                self.down.push((id, LinkError::Dead));
            }
            self.lose(id);
        }
        let id = LinkId(self.next);
        self.next += 1;
        let name: Arc<str> = identity.name.as_str().into();
        self.links.insert(
            id,
            LinkState {
                side,
                identity,
                name,
                conns: HashMap::default(),
                backlog: VecDeque::new(),
            },
        );
        self.drain(id);
        Ok(id)
    }

    /// Bytes of a link's transport.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        id: LinkId,
        bytes: &mut BytesMut,
    ) -> Result<(), LinkError> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        let result = link.side.handle_bytes(now, bytes);
        self.drain(id);
        result
    }

    /// The transport of a link is gone.
    pub fn handle_down(&mut self, now: Instant, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.side.handle_down(now);
            self.drain(id);
        }
    }

    /// Acts on what is due. Returns links whose transport must be closed. To be called every turn.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<(LinkId, LinkError)> {
        let mut ids: Vec<LinkId> = self.links.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                link.side.handle_timeout(now);
            }
            self.drain(id);
        }
        std::mem::take(&mut self.down)
    }

    /// When to call [`Links::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.links
            .values()
            .filter_map(|l| l.side.poll_timeout())
            .min()
    }

    /// Bytes for the transport of a link.
    pub fn poll_output(&mut self, id: LinkId) -> Option<Bytes> {
        self.links.get_mut(&id)?.side.poll_output()
    }

    /// Events for the shards since the last call.
    pub fn take_events(&mut self) -> Vec<(ShardId, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Carries out a shard's command. Returns the link that now has something to send.
    pub fn command(&mut self, shard: ShardId, command: LinkCommand) -> Option<LinkId> {
        match command {
            LinkCommand::Frame { link, frame, track } => {
                let state = self.links.get_mut(&link)?;
                if state.backlog.is_empty() && state.side.retained_bytes() < RETAINED_HIGH {
                    state.send(frame, track);
                } else {
                    state.backlog.push_back((frame, track));
                }
                Some(link)
            }
            LinkCommand::Rehome { key, to, travel } => {
                if let Some(place) = self.place(key) {
                    *place = Place {
                        shard: to,
                        moving: Some(Vec::new()),
                    };
                    self.events.push((to, Event::Adopt(key, travel)));
                }
                self.events.push((shard, Event::Rehomed(key)));
                None
            }
            LinkCommand::Stray(event) => {
                if let Some(key) = key_of(&event)
                    && let Some(place) = self.place(key)
                {
                    let to = place.shard;
                    self.events.push((to, *event));
                }
                None
            }
            LinkCommand::RehomeDone(key) => {
                if let Some(place) = self.place(key) {
                    let to = place.shard;
                    let held = place.moving.take().unwrap_or_default();
                    self.events.extend(held.into_iter().map(|e| (to, e)));
                }
                None
            }
            LinkCommand::Forget(key) => {
                if let Some(link) = self.links.get_mut(&key.link) {
                    link.conns.remove(&key.conn);
                }
                None
            }
        }
    }

    /// Rows of `mux list`.
    pub fn list(&self) -> Vec<MuxInfo> {
        let mut rows: Vec<MuxInfo> = self
            .links
            .iter()
            .map(|(&link, l)| MuxInfo {
                name: l.name.to_string(),
                link,
                up: l.side.is_up(),
                conns: l.side.conn_count(),
                retained_bytes: l.side.retained_bytes(),
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// Bytes waiting to be written to the transport of a link.
    pub fn unsent_bytes(&self, id: LinkId) -> usize {
        self.links.get(&id).map_or(0, |l| l.side.unsent_bytes())
    }

    /// What the mux of a link is called.
    pub fn name(&self, id: LinkId) -> &str {
        self.links.get(&id).map_or("", |l| &l.name)
    }

    /// Links known, up or not.
    pub fn ids(&self) -> Vec<LinkId> {
        self.links.keys().copied().collect()
    }

    /// Misdeeds of muxes so far (streams of a kind they may not open).
    pub fn violations(&self) -> u64 {
        self.violations
    }

    fn place(&mut self, key: ConnKey) -> Option<&mut Place> {
        self.links.get_mut(&key.link)?.conns.get_mut(&key.conn)
    }

    fn lose(&mut self, id: LinkId) {
        if self.links.remove(&id).is_some() {
            for n in 0..self.shards {
                self.events.push((ShardId(n), Event::LinkLost(id)));
            }
        }
    }

    fn drain(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.pump();
        }
        while let Some(event) = self.links.get_mut(&id).and_then(|l| l.side.poll_event()) {
            match event {
                ServerEvent::Up { continued } => self.up(id, continued),
                ServerEvent::Opened(conn, open) => self.opened(id, conn, open),
                ServerEvent::Resumed(conn, resume) => self.resumed(id, conn, resume),
                ServerEvent::Input(conn, input) => {
                    self.hand(id, conn, |key| Event::Input(key, input))
                }
                ServerEvent::Injected(conn) => self.hand(id, conn, Event::Injected),
                ServerEvent::Secured(conn, facts) => {
                    let facts = self.believed(id, facts);
                    self.hand(id, conn, |key| Event::Secured(key, facts));
                }
                ServerEvent::Drained(conn, n) => self.hand(id, conn, |key| Event::Drained(key, n)),
                ServerEvent::Closed(conn, reason) => {
                    self.hand(id, conn, |key| Event::Closed(key, reason))
                }
                ServerEvent::Taken(conn, stored) => {
                    self.hand(id, conn, |key| Event::Taken(key, stored))
                }
                ServerEvent::SettledTaken {
                    conn,
                    settled_stanzas,
                } => {
                    self.hand(id, conn, |key| Event::SettledTaken(key, settled_stanzas));
                }
                ServerEvent::Down(e) => self.down.push((id, e)),
                ServerEvent::Lost => {
                    self.lose(id);
                    return;
                }
                // A mux has no administrators, and nothing of this node dials yet.
                ServerEvent::ResumeEnd => self.resume_end(id),
                ServerEvent::DialFailed(..) | ServerEvent::Admin(_) | ServerEvent::Drain => {}
            }
        }
    }

    fn up(&mut self, id: LinkId, continued: bool) {
        if let Some(link) = self.links.get(&id) {
            tracing::info!(mux = %link.name, link = id.0, continued, "mux linked");
        }
    }

    /// The same boot has greeted again. If the link begins anew its connections are gone, and it gets a new number: what shards
    /// still send for the old one must not reach a connection that is resumed.
    fn greeted_again(&mut self, id: LinkId) -> LinkId {
        let mut id = id;
        let first = self.links.get_mut(&id).and_then(|l| l.side.poll_event());
        if let Some(ServerEvent::Up { continued }) = first {
            if !continued && let Some(mut link) = self.links.remove(&id) {
                for n in 0..self.shards {
                    self.events.push((ShardId(n), Event::LinkLost(id)));
                }
                link.conns.clear();
                link.backlog.clear();
                id = LinkId(self.next);
                self.next += 1;
                self.links.insert(id, link);
            }
            self.up(id, continued);
        }
        self.drain(id);
        id
    }

    fn resume_end(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        for n in 0..self.shards {
            self.events
                .push((ShardId(n), Event::ResumeEnd(link.name.clone())));
        }
    }

    fn opened(&mut self, id: LinkId, conn: ConnId, mut open: Box<Open>) {
        let shards = u64::from(self.shards);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if !link.identity.kinds.contains(&open.kind) || open.kind == ListenerKind::S2s {
            self.violations += 1;
            tracing::warn!(mux = %link.name, kind = ?open.kind, "the mux may not open streams of this kind");
            let close = Close {
                last: Bytes::new(),
                reason: CloseReason::PolicyViolation,
            };
            // The connection was opened just now: the link allows its Close.
            let _ = link.side.send(Frame::Close(conn, close));
            return;
        }
        open.tls = open
            .tls
            .map(|facts| *believed(&link.identity, Box::new(facts)));
        let shard = ShardId((conn.0 % shards) as u16);
        link.conns.insert(
            conn,
            Place {
                shard,
                moving: None,
            },
        );
        let mux = Arc::new(MuxPermit {
            name: link.name.clone(),
            domains: link.identity.domains.clone(),
            trust_client_certificates: link.identity.trust_client_certificates,
        });
        self.events
            .push((shard, Event::Opened(ConnKey { link: id, conn }, open, mux)));
    }

    fn resumed(&mut self, id: LinkId, conn: ConnId, resume: Box<Resume>) {
        let shard = resume
            .note
            .and_then(|n| self.notes.remove(&n.0))
            .unwrap_or(ShardId(0));
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.conns.insert(
            conn,
            Place {
                shard,
                moving: None,
            },
        );
        let mux = link.name.clone();
        self.events.push((
            shard,
            Event::Resumed(ConnKey { link: id, conn }, resume, mux),
        ));
    }

    fn hand(&mut self, id: LinkId, conn: ConnId, event: impl FnOnce(ConnKey) -> Event) {
        let key = ConnKey { link: id, conn };
        let Some(place) = self.place(key) else { return };
        match &mut place.moving {
            Some(held) => held.push(event(key)),
            None => {
                let shard = place.shard;
                self.events.push((shard, event(key)));
            }
        }
    }

    fn believed(&self, id: LinkId, facts: Box<TlsFacts>) -> Box<TlsFacts> {
        match self.links.get(&id) {
            Some(link) => believed(&link.identity, facts),
            None => facts,
        }
    }
}

/// A mux whose word on client certificates does not count reports them as not verified.
fn believed(identity: &Identity, mut facts: Box<TlsFacts>) -> Box<TlsFacts> {
    if !identity.trust_client_certificates
        && let Some((_, verified)) = &mut facts.client_certificate
    {
        *verified = false;
    }
    facts
}

/// The connection an event is about.
pub(crate) fn key_of(event: &Event) -> Option<ConnKey> {
    match event {
        Event::Opened(key, ..)
        | Event::Resumed(key, ..)
        | Event::Input(key, _)
        | Event::Injected(key)
        | Event::Secured(key, _)
        | Event::Drained(key, _)
        | Event::Closed(key, _)
        | Event::Taken(key, _)
        | Event::SettledTaken(key, _)
        | Event::Adopt(key, _) => Some(*key),
        _ => None,
    }
}

impl crate::shard::Shard {
    /// The event is for a connection this shard has given away.
    pub(crate) fn is_stray(&self, event: &Event) -> bool {
        key_of(event).is_some_and(|key| self.has_given_away(key))
    }
}
