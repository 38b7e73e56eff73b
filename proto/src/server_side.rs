//! The server's half of one link: greeting, numbered frames, and a check of everything the mux says.
//!
//! In: link bytes, `now`, frames to send. Out: link bytes, `ServerEvent`s, a deadline.
//! Owns: what was sent and not acknowledged; per connection the few counts that checks need.
//! Never: acts for a session; trusts a count of the other end; reads a clock.
//!
//! What a driver must know:
//! - Events that were queued before `send(Close)` still come after it.
//! - After `Up { continued: false }` every count of every connection is what its `Resumed` says. A frame that a session had
//!   on its way here from before would be counted and sent as new: give the link a new key, so that such frames miss it.
//! - `send` never blocks. Pace what is long by `unsent_bytes` and `retained_bytes`; past `retained_bytes_max` the link is
//!   closed (`Down`, also out of `send`) and built anew by Resume.
//!
//! The driver reads the first frame of a new transport with `read_hello`, takes the role and name from the certificate,
//! looks for the `ServerSide` of the same name and boot: there is one -> `handle_hello` (the new transport replaces the
//! older); else -> `accept`.

mod send;

use crate::codec::{self, DecodeError};
use crate::frame::*;
use crate::limits;
use crate::link::{Link, LinkError, Phase, shrink_if_empty};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// What the server must know to run its half of a link.
#[derive(Clone, Debug)]
pub struct ServerSideConfig {
    /// The server's configured name.
    pub name: String,
    /// This run of the server.
    pub boot: BootId,
    /// The store it serves.
    pub store: StoreId,
    /// What the certificate allows the other end to be.
    pub role: Role,
    /// How long the sessions of a lost mux are kept (`mux_lost_s`).
    pub mux_lost: Duration,
    /// Connections at most.
    pub conn_count_max: usize,
    /// Frames sent and not acknowledged, bytes.
    pub retained_bytes_max: usize,
}

impl ServerSideConfig {
    /// The defaults of `limits`.
    pub fn new(name: impl Into<String>, boot: BootId, store: StoreId, role: Role) -> Self {
        Self {
            name: name.into(),
            boot,
            store,
            role,
            mux_lost: limits::MUX_LOST,
            conn_count_max: limits::CONN_COUNT_MAX,
            retained_bytes_max: limits::RETAINED_BYTES_MAX,
        }
    }
}

/// What the other end did. Drain with `poll_event` after every call that takes `now`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEvent {
    /// The greeting is done. `continued`: the link goes on where it stopped, no session need notice. Else every connection
    /// known from this link before is gone, and `Resumed` events follow until `ResumeEnd`.
    Up {
        /// The link goes on where it stopped.
        continued: bool,
    },
    /// A new connection. It may send `limits::INPUT_WINDOW_INITIAL` bytes before any Marks.
    Opened(ConnId, Box<Open>),
    /// A connection from before; its unsettled input and, if `closed`, its `Closed` follow.
    Resumed(ConnId, Box<Resume>),
    /// Every connection has been resumed.
    ResumeEnd,
    /// Bytes of a client.
    Input(ConnId, Input),
    /// Input that was read before StartTls was carried out came after StartTls was sent: plaintext injection. The input is
    /// dropped; close the connection (DESIGN section 3).
    Injected(ConnId),
    /// TLS is up.
    Secured(ConnId, Box<TlsFacts>),
    /// Output elements the client's TCP has acknowledged, in total.
    Drained(ConnId, u64),
    /// The socket is closed. Settle what is to be settled, then send Close.
    Closed(ConnId, CloseReason),
    /// A Dial failed.
    DialFailed(u64, String),
    /// The mux has taken the Output (or Fanout) that carried this stored id. Only for frames sent by `send_tracked`. An Output
    /// that reached the mux after the client was gone is reported too, always after `Closed`.
    Taken(ConnId, StoredId),
    /// The mux has taken Marks up to here: origins up to `settled_stanzas` may be forgotten. Only for `send_tracked`.
    SettledTaken {
        /// The connection.
        conn: ConnId,
        /// `Marks::settled_stanzas`.
        settled_stanzas: u64,
    },
    /// Role admin: one JSON object.
    Admin(Bytes),
    /// The mux will go away.
    Drain,
    /// The transport is dead: close it. `LinkError::Dead` (nothing heard): the link may still go on. `RetainedFull` (it does not
    /// acknowledge): it is built anew by Resume, until then `send` answers `Gone`.
    Down(LinkError),
    /// `mux_lost` is over: every connection of this link is lost. The `ServerSide` is of no more use; drop it.
    Lost,
}

/// Why `send` did not send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The connection is not known (any more), or the mux has closed it, or we have: an ordinary race. Nothing was sent.
    #[error("connection gone")]
    Gone,
    /// The state of the connection does not allow this frame, or this end never sends it: a defect of the caller.
    #[error("frame {0} not allowed now")]
    NotAllowed(&'static str),
    /// A limit of `limits`, named.
    #[error("frame passes limit {0}")]
    TooLong(&'static str),
    /// `mux_lost` is over.
    #[error("link lost")]
    Lost,
}

/// Takes the Hello out of the first bytes of a transport. None: more bytes are needed; give a transport no longer than
/// `limits::WELCOME_WAIT` for it.
pub fn read_hello(bytes: &mut BytesMut) -> Result<Option<Hello>, LinkError> {
    match codec::decode(bytes, limits::FRAME_BYTES_MIN)? {
        None => Ok(None),
        Some(Frame::Hello(hello)) => Ok(Some(hello)),
        Some(other) => Err(LinkError::Unexpected(codec::name(codec::kind_of(&other)))),
    }
}

/// What to write, before closing the transport, to a dialler whose Hello could not be taken because of its version: a
/// Welcome, so that it can log ours.
pub fn version_reply(config: &ServerSideConfig, error: &LinkError) -> Option<Bytes> {
    let LinkError::Malformed(DecodeError::Version(_)) = error else {
        return None;
    };
    let mut bytes = BytesMut::new();
    codec::encode(&Frame::Welcome(welcome(config, None)), &mut bytes).ok()?;
    Some(bytes.freeze())
}

/// What to write, before closing the transport, to a dialler whose Hello is not taken: `reason` for its log, one line.
pub fn refusal(reason: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    let frame = Frame::Refused(codec::log_text(reason));
    codec::encode(&frame, &mut bytes).expect("the text was cut to its limit");
    bytes.freeze()
}

fn welcome(config: &ServerSideConfig, taken: Option<u64>) -> Welcome {
    Welcome {
        version: limits::PROTOCOL_VERSION,
        name: config.name.clone(),
        frame_bytes_max: limits::FRAME_BYTES_MIN,
        boot: config.boot,
        store: config.store,
        taken,
    }
}

/// Where TLS stands on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum TlsState {
    Plain,
    /// StartTls sent, Secured not received.
    Asked,
    /// As `Asked`, and input came meanwhile.
    Injected,
    /// TLS is up, or can never come (WebSocket).
    Final,
}

impl TlsState {
    fn of(open: &Open) -> Self {
        match open.transport {
            Transport::Tcp if open.tls.is_none() => Self::Plain,
            _ => Self::Final,
        }
    }
}

/// What checks need of one connection. With its place in the table 65 to 130 bytes.
struct Conn {
    /// Input received, and up to where the mux may send.
    input_bytes: u64,
    input_bytes_max: u64,
    /// Output elements sent, stanzas among them, and elements drained.
    elements: u64,
    stanzas: u64,
    drained: u64,
    tls: TlsState,
    noted: bool,
    /// The mux has sent Close.
    mux_closed: bool,
    /// We have sent Close.
    closed: bool,
}

/// What to report when the mux has taken a frame.
struct Tracked {
    frame: u64,
    event: TrackedEvent,
}

enum TrackedEvent {
    Taken(ConnId, StoredId),
    Settled(ConnId, u64),
}

/// See the module.
pub struct ServerSide {
    config: ServerSideConfig,
    link: Link,
    peer_name: String,
    peer_boot: BootId,
    /// The link can go on where it stopped. False: the mux must dial again and send Resume for everything.
    in_step: bool,
    /// Resume frames are still coming.
    resuming: bool,
    conns: HashMap<ConnId, Conn, foldhash::fast::RandomState>,
    /// The largest id seen since the count began.
    last_id: Option<ConnId>,
    dials: HashSet<u64>,
    tracked: VecDeque<Tracked>,
    lost_due: Option<Instant>,
    lost: bool,
    /// When we were last told the time: `send` has no clock.
    now: Instant,
    events: VecDeque<ServerEvent>,
}

impl ServerSide {
    /// A new link: answers a Hello for whose boot there is no `ServerSide`.
    pub fn accept(now: Instant, config: ServerSideConfig, hello: Hello) -> Result<Self, LinkError> {
        let mut side = Self {
            config,
            link: Link::new(now),
            peer_name: hello.name.clone(),
            peer_boot: hello.boot,
            in_step: false,
            resuming: false,
            conns: HashMap::default(),
            last_id: None,
            dials: HashSet::new(),
            tracked: VecDeque::new(),
            lost_due: None,
            lost: false,
            now,
            events: VecDeque::new(),
        };
        side.handle_hello(now, hello)?;
        Ok(side)
    }

    /// The same boot has dialled again: the new transport replaces the older one, and the link goes on if it can.
    pub fn handle_hello(&mut self, now: Instant, hello: Hello) -> Result<(), LinkError> {
        if hello.role != self.config.role {
            return Err(LinkError::Role {
                said: hello.role,
                allowed: self.config.role,
            });
        }
        if hello.boot != self.peer_boot {
            return Err(LinkError::Unexpected("Hello"));
        }
        self.handle_down(now);
        let went_on = match hello.taken {
            // A frame taken since the count began proves that the mux knows of it: a Welcome may have been lost on its way,
            // and then `taken` belongs to the count before.
            Some((boot, taken))
                if boot == self.config.boot && self.in_step && self.link.taken() > 0 =>
            {
                Some(taken)
            }
            _ => None,
        };
        if let Some(taken) = went_on {
            let welcome = welcome(&self.config, Some(self.link.taken()));
            self.link.handle_up(now, &Frame::Welcome(welcome));
            if let Err(error) = self.link.go_on(taken) {
                self.fail(now);
                return Err(error);
            }
            self.report_taken();
        } else {
            self.start_over();
            self.link
                .handle_up(now, &Frame::Welcome(welcome(&self.config, None)));
            self.link.start_anew();
            self.in_step = true;
            self.resuming = self.config.role == Role::Mux;
        }
        self.lost = false;
        self.lost_due = None;
        self.events.push_back(ServerEvent::Up {
            continued: went_on.is_some(),
        });
        Ok(())
    }

    /// Bytes read from the transport; whole frames are taken out of `bytes`, the rest of one stays. On an error close the
    /// transport and write one log line. Sessions stay until `Lost`, or until the mux has dialled again and named them by
    /// Resume; until then `send` answers `Gone`.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &mut BytesMut) -> Result<(), LinkError> {
        self.now = now;
        if self.link.phase() == Phase::Down {
            // The driver has not seen `Down` yet.
            bytes.clear();
            return Ok(());
        }
        let result = self.take_frames(now, bytes);
        if result.is_err() {
            self.fail(now);
        }
        result
    }

    /// The transport is gone. `mux_lost` begins to count.
    pub fn handle_down(&mut self, now: Instant) {
        self.now = now;
        self.link.handle_down();
        if self.lost_due.is_none() && !self.lost {
            self.lost_due = Some(now + self.config.mux_lost);
        }
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if let Err(error) = self.link.handle_timeout(now) {
            self.handle_down(now);
            self.events.push_back(ServerEvent::Down(error));
        }
        if self.lost_due.is_some_and(|due| now >= due) {
            self.lost_due = None;
            self.lost = true;
            self.start_over();
            self.events.push_back(ServerEvent::Lost);
        }
    }

    /// When to call `handle_timeout`, at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.link.poll_timeout(), self.lost_due]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next bytes for the transport, large and contiguous, or None. Ask again only for what can soon be written.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.link.poll_output()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            shrink_if_empty(&mut self.events);
        }
        event
    }

    /// Name and boot of the other end, as in its Hello.
    pub fn peer(&self) -> (&str, BootId) {
        (&self.peer_name, self.peer_boot)
    }

    /// A transport is up and greeted.
    pub fn is_up(&self) -> bool {
        self.link.phase() == Phase::Up
    }

    /// A transport is up, and the other end was heard within `limits::NAME_HELD`: another boot may not take its place.
    pub fn holds_name(&self, now: Instant) -> bool {
        self.is_up() && now.duration_since(self.link.last_heard()) < limits::NAME_HELD
    }

    /// Output can be sent to this connection: it is known and neither end has sent Close.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.conns
            .get(&conn)
            .is_some_and(|conn| !conn.closed && !conn.mux_closed)
    }

    /// Connections known.
    pub fn conn_count(&self) -> usize {
        self.conns.len()
    }

    /// Bytes of frames not acknowledged yet, those not handed out included. Give out no Window while this is large: past
    /// `retained_bytes_max` the link is closed and built anew by Resume.
    pub fn retained_bytes(&self) -> usize {
        self.link.retained_bytes()
    }

    /// Bytes of frames not handed out by `poll_output` yet.
    pub fn unsent_bytes(&self) -> usize {
        self.link.unsent_bytes()
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &ServerSideConfig {
        &self.config
    }

    // ---- frames of the other end ----

    fn take_frames(&mut self, now: Instant, bytes: &mut BytesMut) -> Result<(), LinkError> {
        loop {
            let acked = self.link.acked();
            let frame = self.link.next_frame(now, bytes)?;
            if self.link.acked() != acked {
                self.report_taken();
            }
            match frame {
                None => return Ok(()),
                Some(frame) => self.take_frame(frame)?,
            }
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), LinkError> {
        let allowed = match frame {
            Frame::Admin(_) => Role::Admin,
            _ => Role::Mux,
        };
        if self.config.role != allowed {
            return Err(LinkError::Unexpected(codec::name(codec::kind_of(&frame))));
        }
        let event = match frame {
            Frame::Input(id, input) => {
                let Some(event) = self.take_input(id, input)? else {
                    return Ok(());
                };
                event
            }
            Frame::Drained(id, elements) => {
                let conn = self.open_conn(id, "Drained")?;
                if !(conn.drained..=conn.elements).contains(&elements) {
                    return Err(LinkError::Count("drained", id));
                }
                conn.drained = elements;
                ServerEvent::Drained(id, elements)
            }
            Frame::Open(id, open) => self.take_open(id, open)?,
            Frame::Secured(id, facts) => {
                let conn = self.open_conn(id, "Secured")?;
                if !matches!(conn.tls, TlsState::Asked | TlsState::Injected) {
                    return Err(LinkError::State("Secured", id));
                }
                conn.tls = TlsState::Final;
                ServerEvent::Secured(id, Box::new(facts))
            }
            Frame::Close(id, close) => {
                let conn = self.open_conn(id, "Close")?;
                if !close.last.is_empty() {
                    return Err(LinkError::State("Close", id));
                }
                conn.mux_closed = true;
                if conn.closed {
                    self.conns.remove(&id);
                }
                ServerEvent::Closed(id, close.reason)
            }
            Frame::DialFailed(dial, reason) => {
                if !self.dials.remove(&dial) {
                    return Err(LinkError::Unexpected("DialFailed"));
                }
                ServerEvent::DialFailed(dial, reason)
            }
            Frame::Resume(id, resume) => self.take_resume(id, resume)?,
            Frame::ResumeEnd if self.resuming => {
                self.resuming = false;
                ServerEvent::ResumeEnd
            }
            Frame::Drain => ServerEvent::Drain,
            Frame::Admin(bytes) => ServerEvent::Admin(bytes),
            other => return Err(LinkError::Unexpected(codec::name(codec::kind_of(&other)))),
        };
        self.events.push_back(event);
        Ok(())
    }

    /// The connection a frame of the mux is for.
    fn open_conn(&mut self, id: ConnId, frame: &'static str) -> Result<&mut Conn, LinkError> {
        match self.conns.get_mut(&id) {
            None => Err(LinkError::UnknownConn(frame, id)),
            Some(conn) if conn.mux_closed => Err(LinkError::AfterClose(frame, id)),
            Some(conn) => Ok(conn),
        }
    }

    fn take_input(&mut self, id: ConnId, input: Input) -> Result<Option<ServerEvent>, LinkError> {
        let conn = self.open_conn(id, "Input")?;
        conn.input_bytes += input.bytes.len() as u64;
        if conn.input_bytes > conn.input_bytes_max {
            return Err(LinkError::Count("input_bytes", id));
        }
        Ok(match conn.tls {
            // Also after our Close: until the mux has taken that, its client may have acknowledged what it was sent.
            TlsState::Plain | TlsState::Final => Some(ServerEvent::Input(id, input)),
            TlsState::Injected => None,
            TlsState::Asked if conn.closed => None,
            TlsState::Asked => {
                conn.tls = TlsState::Injected;
                Some(ServerEvent::Injected(id))
            }
        })
    }

    fn take_open(&mut self, id: ConnId, open: Open) -> Result<ServerEvent, LinkError> {
        if self.resuming {
            return Err(LinkError::Unexpected("Open"));
        }
        if let Some(dial) = open.dial
            && !self.dials.remove(&dial)
        {
            return Err(LinkError::State("Open", id));
        }
        let conn = Conn {
            input_bytes: 0,
            input_bytes_max: limits::INPUT_WINDOW_INITIAL,
            elements: 0,
            stanzas: 0,
            drained: 0,
            tls: TlsState::of(&open),
            noted: false,
            mux_closed: false,
            closed: false,
        };
        self.insert(id, conn)?;
        Ok(ServerEvent::Opened(id, Box::new(open)))
    }

    fn take_resume(&mut self, id: ConnId, resume: Resume) -> Result<ServerEvent, LinkError> {
        if !self.resuming {
            return Err(LinkError::Unexpected("Resume"));
        }
        check_resume(id, &resume)?;
        let conn = Conn {
            input_bytes: resume.settled_bytes,
            // Credit that an earlier server gave stays good; it never gave more than this.
            input_bytes_max: resume.settled_bytes + limits::INPUT_WINDOW_MAX,
            elements: resume.elements,
            stanzas: resume.stanzas,
            drained: resume.drained,
            tls: TlsState::of(&resume.open),
            noted: resume.note.is_some(),
            mux_closed: false,
            closed: false,
        };
        self.insert(id, conn)?;
        Ok(ServerEvent::Resumed(id, Box::new(resume)))
    }

    fn insert(&mut self, id: ConnId, conn: Conn) -> Result<(), LinkError> {
        if self.last_id.is_some_and(|last| id <= last) {
            return Err(LinkError::ConnIdReused(id));
        }
        if self.conns.len() >= self.config.conn_count_max {
            return Err(LinkError::Limit("conn_count_max"));
        }
        self.last_id = Some(id);
        self.conns.insert(id, conn);
        Ok(())
    }

    /// Reports what the mux has taken since the last time.
    fn report_taken(&mut self) {
        let acked = self.link.acked();
        while self
            .tracked
            .front()
            .is_some_and(|tracked| tracked.frame <= acked)
            && let Some(tracked) = self.tracked.pop_front()
        {
            self.events.push_back(match tracked.event {
                TrackedEvent::Taken(conn, id) => ServerEvent::Taken(conn, id),
                TrackedEvent::Settled(conn, settled_stanzas) => ServerEvent::SettledTaken {
                    conn,
                    settled_stanzas,
                },
            });
        }
        shrink_if_empty(&mut self.tracked);
    }

    // ---- the link's state ----

    /// Both ends will count from zero: nothing said before counts.
    fn start_over(&mut self) {
        self.in_step = false;
        self.resuming = false;
        self.link.reset_counts();
        self.conns = HashMap::default();
        self.last_id = None;
        self.dials.clear();
        self.tracked.clear();
    }

    /// The other end broke the protocol, or fell too far behind.
    fn fail(&mut self, now: Instant) {
        self.handle_down(now);
        self.start_over();
    }
}

/// What a Resume says of one connection must fit together.
fn check_resume(id: ConnId, resume: &Resume) -> Result<(), LinkError> {
    if resume.settled_stanzas > resume.settled_bytes {
        return Err(LinkError::Count("settled_stanzas", id));
    }
    if resume.stanzas > resume.elements {
        return Err(LinkError::Count("stanzas", id));
    }
    if resume.drained > resume.elements {
        return Err(LinkError::Count("drained", id));
    }
    let (mut element, mut stanza) = (0, 0);
    for held in &resume.held {
        // Numbers grow; a stanza is an element, so its element number is at least as large and grows at least as fast.
        let grows = held.element > element && held.stanza > stanza;
        let fits = held.element <= resume.elements
            && held.stanza <= resume.stanzas
            && held.stanza <= held.element;
        if !grows || !fits {
            return Err(LinkError::Count("held", id));
        }
        (element, stanza) = (held.element, held.stanza);
    }
    Ok(())
}
