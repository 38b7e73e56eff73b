//! The model of the server's sessions.

use super::*;
use bytes::Bytes;
use proto::limits;
use proto::server_side::{SendError, ServerEvent};

impl World {
    pub(super) fn server_events(&mut self) {
        while let Some(event) = self.server.as_mut().and_then(ServerSide::poll_event) {
            match event {
                ServerEvent::Up { continued } => {
                    if !continued && !self.conns.is_empty() {
                        self.conns.clear();
                        self.unstored_lost = true;
                    }
                }
                ServerEvent::Opened(id, _) => {
                    self.conns.insert(id.0, ServerConn::default());
                }
                ServerEvent::Resumed(id, resume) => self.resumed(id, *resume),
                ServerEvent::Input(id, input) => {
                    let conn = self.conns.get_mut(&id.0).expect("known");
                    if !conn.over {
                        conn.buf.extend_from_slice(&input.bytes);
                        parse(conn);
                    }
                }
                ServerEvent::Secured(id, facts) => {
                    assert_eq!(facts.version, 0x0304);
                    let conn = self.conns.get_mut(&id.0).expect("known");
                    assert!(conn.tls_asked || conn.over);
                    conn.tls_done = true;
                }
                ServerEvent::Drained(id, elements) => self.acknowledged(id, elements),
                ServerEvent::Closed(id, _) => {
                    self.conns.get_mut(&id.0).expect("known").mux_closed = true;
                }
                ServerEvent::Taken(id, stored) => {
                    // The mux has it, or had closed the connection before.
                    let client = self.clients.get(&id.0);
                    assert!(client.is_none_or(|client| client.stored >= stored.0 || client.gone));
                }
                ServerEvent::SettledTaken {
                    conn,
                    settled_stanzas,
                } => {
                    let known = self.conns.get(&conn.0);
                    assert!(
                        known.is_none_or(|known| known.note.is_none()
                            || settled_stanzas <= known.settled_stanzas)
                    );
                }
                ServerEvent::DialFailed(_, reason) => assert_eq!(reason, "no such host"),
                ServerEvent::Injected(id) => panic!("nobody injects into {id:?}"),
                ServerEvent::ResumeEnd | ServerEvent::Drain => {}
                ServerEvent::Admin(_) => panic!("not an administrator"),
                ServerEvent::Down(_) => {
                    self.server_sees = false;
                    if let Some(transport) = &mut self.transport {
                        transport.dead = true;
                    }
                    if let Some(server) = &mut self.server {
                        server.handle_down(self.now);
                    }
                }
                ServerEvent::Lost => {
                    self.lose_conns();
                    self.server = None;
                    return;
                }
            }
        }
    }

    /// The mux is lost: its sessions end.
    pub(super) fn lose_conns(&mut self) {
        for session in self.sessions.values_mut() {
            session.ended = true;
        }
        self.conns.clear();
    }

    fn resumed(&mut self, id: ConnId, resume: Resume) {
        let mut conn = ServerConn {
            note: resume.note,
            settled_bytes: resume.settled_bytes,
            settled_stanzas: resume.settled_stanzas,
            elements: resume.elements,
            stanzas: resume.stanzas,
            tls_asked: resume.open.tls.is_some(),
            tls_done: resume.open.tls.is_some(),
            ..ServerConn::default()
        };
        // Numbers of what is not stored go on above any that an earlier server can have sent.
        conn.unstored = self.clients.get(&id.0).map_or(0, |client| client.unstored) + 1_000_000;
        let session = resume.note.and_then(|note| self.sessions.get_mut(&note.0));
        let Some(session) = session.filter(|session| !session.ended && session.client == id.0)
        else {
            // Not resumable. What it had sent and was not settled is not our affair.
            self.send(Frame::Close(
                id,
                Close {
                    last: Bytes::new(),
                    reason: CloseReason::NotResumable,
                },
            ));
            self.conns.insert(
                id.0,
                ServerConn {
                    over: true,
                    ..ServerConn::default()
                },
            );
            return;
        };
        assert!(
            resume.settled_bytes <= session.settled_bytes,
            "settled was said before it was on disk"
        );
        conn.settled_bytes = resume.settled_bytes;
        conn.settled_stanzas = resume.settled_stanzas;
        for held in &resume.held {
            conn.sent.push(Sent {
                element: held.element,
                stanza: held.stanza,
                stored: Some(held.id),
            });
        }
        let held: Vec<StoredId> = resume.held.iter().map(|held| held.id).collect();
        let missing: Vec<u64> = (1..=session.acked.len() as u64)
            .filter(|n| !session.acked[*n as usize - 1] && !held.contains(&StoredId(*n)))
            .collect();
        conn.drained = 0;
        self.conns.insert(id.0, conn);
        self.acknowledged(id, resume.drained);
        self.conns
            .get_mut(&id.0)
            .expect("inserted above")
            .queue
            .extend(missing);
    }

    fn acknowledged(&mut self, id: ConnId, elements: u64) {
        let conn = self.conns.get_mut(&id.0).expect("known");
        assert!(elements >= conn.drained);
        conn.drained = elements;
        let Some(session) = conn.note.and_then(|note| self.sessions.get_mut(&note.0)) else {
            return;
        };
        conn.sent.retain(|sent| {
            if sent.element > elements {
                return true;
            }
            if let Some(stored) = sent.stored {
                session.acked[stored.0 as usize - 1] = true;
            }
            conn.forget = conn.forget.max(sent.stanza);
            false
        });
        conn.marks_due = true;
    }

    pub(super) fn server_acts(&mut self) {
        if self.server.is_none() {
            return;
        }
        let ids: Vec<u64> = self.conns.keys().copied().collect();
        for id in ids {
            let conn = ConnId(id);
            self.send_queue(conn);
            let state = self.conns.get_mut(&id).expect("listed");
            let idle = state.parsed.is_empty();
            if state.mux_closed && (idle || self.rng.chance(300)) {
                // The connection ends, and with it the session.
                if let Some(session) = state.note.and_then(|note| self.sessions.get_mut(&note.0)) {
                    session.ended = true;
                }
                self.send(Frame::Close(
                    conn,
                    Close {
                        last: Bytes::new(),
                        reason: CloseReason::Normal,
                    },
                ));
                self.conns.remove(&id);
                continue;
            }
            if !idle && (self.quiet || self.rng.chance(300)) {
                self.commit(conn);
            } else if state.marks_due && (self.quiet || self.rng.chance(300)) {
                self.send_marks(conn);
            }
            if !self.quiet && self.rng.chance(100) {
                self.send_unstored(conn);
            }
            if !self.quiet && self.rng.chance(2) {
                let last = Bytes::from_static(b"</stream:stream>");
                self.send(Frame::Close(
                    conn,
                    Close {
                        last,
                        reason: CloseReason::PolicyViolation,
                    },
                ));
                if let Some(state) = self.conns.remove(&id)
                    && let Some(session) =
                        state.note.and_then(|note| self.sessions.get_mut(&note.0))
                {
                    session.ended = true;
                }
                self.conns.insert(
                    id,
                    ServerConn {
                        over: true,
                        ..ServerConn::default()
                    },
                );
            }
        }
        if !self.quiet && self.rng.chance(30) {
            self.send_fanout();
        }
        if !self.quiet && self.rng.chance(10) {
            let dial = Dial {
                dial: self.rng.next(),
                kind: ListenerKind::S2s,
                target: DialTarget::Srv("example.org".into()),
                tls: DialTls::Plain,
                server_name: "example.org".into(),
            };
            self.send(Frame::Dial(dial));
        }
    }

    /// Makes the elements parsed so far durable, answers each with a stored stanza, then says so.
    fn commit(&mut self, id: ConnId) {
        let new_key = self.rng.key();
        let state = self.conns.get_mut(&id.0).expect("known");
        let mut answers = Vec::new();
        let mut first = false;
        for len in std::mem::take(&mut state.parsed) {
            let bytes = state.buf.split_to(len);
            let text = std::str::from_utf8(&bytes).expect("text").trim_start();
            let (client, number) = text.trim_end_matches(';').split_once(':').expect("element");
            assert_eq!(client, id.0.to_string(), "input of another client");
            let number: u64 = number.parse().expect("number");
            let key = *state.note.get_or_insert_with(|| {
                first = true;
                NoteKey(new_key)
            });
            let session = self.sessions.entry(key.0).or_default();
            session.client = id.0;
            state.settled_bytes += len as u64;
            state.settled_stanzas += 1;
            if state.settled_bytes <= session.settled_bytes {
                // Settled before a kill, and the mux had not heard: recognised by its number, not done again.
                assert!(number < session.committed);
                continue;
            }
            assert_eq!(
                number, session.committed,
                "every element is settled once and in order"
            );
            session.committed += 1;
            session.settled_bytes = state.settled_bytes;
            session.acked.push(false);
            answers.push(session.acked.len() as u64);
        }
        if first {
            let key = state.note.expect("set above");
            self.send(Frame::Note(id, key));
        }
        self.conns
            .get_mut(&id.0)
            .expect("known")
            .queue
            .extend(answers);
        self.send_queue(id);
        self.send_marks(id);
    }

    fn send_marks(&mut self, id: ConnId) {
        let state = self.conns.get_mut(&id.0).expect("known");
        state.marks_due = false;
        let marks = Marks {
            settled_bytes: state.settled_bytes,
            settled_stanzas: state.settled_stanzas,
            forget_stanzas: state.forget,
            input_bytes_max: state.settled_bytes + limits::INPUT_WINDOW_INITIAL + 10_000,
        };
        self.send(Frame::Marks(id, marks));
    }

    fn send_queue(&mut self, id: ConnId) {
        while self.server.as_ref().expect("up").retained_bytes() < 10_000
            && let Some(n) = self.conns.get_mut(&id.0).expect("known").queue.pop_front()
        {
            self.send_stored(id, n);
        }
    }

    fn send_stored(&mut self, id: ConnId, n: u64) {
        let state = self.conns.get_mut(&id.0).expect("known");
        let dots = if !self.rng.chance(20) {
            0
        } else if self.faults.tight {
            5_000
        } else {
            150_000
        };
        let bytes = Bytes::from(format!("o{n}{};", ".".repeat(dots)));
        let output = Output {
            bytes,
            last: true,
            stanza: true,
            stored: Some(StoredId(n)),
        };
        if self
            .server
            .as_mut()
            .expect("up")
            .send_tracked(Frame::Output(id, output))
            .is_ok()
        {
            state.elements += 1;
            state.stanzas += 1;
            let stored = Some(StoredId(n));
            state.sent.push(Sent {
                element: state.elements,
                stanza: state.stanzas,
                stored,
            });
        }
    }

    fn send_unstored(&mut self, id: ConnId) {
        let state = self.conns.get_mut(&id.0).expect("known");
        if state.settled_bytes > 0 && !state.tls_asked && self.rng.chance(100) {
            let last = Bytes::from_static(b"<proceed/>");
            let start_tls = StartTls {
                last,
                request_client_certificate: false,
            };
            // Only while nothing is on its way, as in a negotiation.
            let quiet = self
                .clients
                .get(&id.0)
                .is_some_and(|client| client.unread.is_empty());
            let all_read = self.clients.get(&id.0).is_some_and(|client| {
                state.parsed.is_empty()
                    && state.buf.is_empty()
                    && client.written == state.settled_stanzas
            });
            if quiet
                && all_read
                && self
                    .server
                    .as_mut()
                    .expect("up")
                    .send(Frame::StartTls(id, start_tls))
                    .is_ok()
            {
                state.tls_asked = true;
                state.elements += 1;
                self.clients.get_mut(&id.0).expect("checked").waits = true;
            }
            return;
        }
        let bytes = Bytes::from(format!("u{};", state.unstored + 1));
        let output = Output {
            bytes,
            last: true,
            stanza: false,
            stored: None,
        };
        if self
            .server
            .as_mut()
            .expect("up")
            .send(Frame::Output(id, output))
            .is_ok()
        {
            state.unstored += 1;
            state.elements += 1;
        }
    }

    fn send_fanout(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        let mut targets = Vec::new();
        for (id, state) in &mut self.conns {
            // What the server's half would leave out must not be counted here.
            targets.push(FanoutTarget {
                conn: ConnId(*id),
                insert: Bytes::from((state.unstored + 1).to_string()),
                stored: None,
            });
        }
        let dots = if self.rng.chance(100) { 70_000 } else { 100 };
        let fanout = Fanout {
            prefix: Bytes::from_static(b"u"),
            suffix: Bytes::from(format!("{};", ".".repeat(dots))),
            stanza: true,
            targets,
        };
        let reached: Vec<u64> = fanout
            .targets
            .iter()
            .map(|target| target.conn.0)
            .filter(|id| server.is_open(ConnId(*id)))
            .collect();
        if fanout.targets.is_empty() || server.send_tracked(Frame::Fanout(fanout)).is_err() {
            return;
        }
        for id in reached {
            let state = self.conns.get_mut(&id).expect("listed");
            state.unstored += 1;
            state.elements += 1;
            state.stanzas += 1;
            state.sent.push(Sent {
                element: state.elements,
                stanza: state.stanzas,
                stored: None,
            });
        }
    }

    fn send(&mut self, frame: Frame) {
        match self.server.as_mut().expect("up").send_tracked(frame) {
            Ok(()) | Err(SendError::Gone) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// Finds whole elements in what has come.
fn parse(conn: &mut ServerConn) {
    let done: usize = conn.parsed.iter().sum();
    let mut at = done;
    for (i, byte) in conn.buf.iter().enumerate().skip(done) {
        if *byte == b';' {
            conn.parsed.push(i + 1 - at);
            at = i + 1;
        }
    }
}
