//! What the server's frames do at the mux: each is checked against the state of its connection before anything changes.

use super::*;
use crate::codec::kind;

impl MuxSide {
    pub(super) fn take_frames(
        &mut self,
        now: Instant,
        bytes: &mut BytesMut,
    ) -> Result<(), LinkError> {
        while let Some(frame) = self.link.next_frame(now, bytes)? {
            // The parts of an element follow each other. (A Welcome is no numbered frame: an element may go on after it.)
            if self.partial.is_some() && !matches!(frame, Frame::Output(..) | Frame::Welcome(_)) {
                return Err(LinkError::Unexpected(codec::name(codec::kind_of(&frame))));
            }
            match frame {
                Frame::Output(conn, output) => self.handle_output(now, conn, output)?,
                Frame::Marks(conn, marks) => self.handle_marks(conn, marks)?,
                Frame::Fanout(fanout) => self.handle_fanout(now, fanout)?,
                Frame::Close(conn, close) => self.handle_close(conn, close)?,
                Frame::Note(conn, key) => {
                    let state = self.known(conn, kind::NOTE)?;
                    if state.note.is_some_and(|known| known != key) {
                        return Err(LinkError::State("Note", conn));
                    }
                    state.note = Some(key);
                    state.forget_certificate();
                }
                Frame::StartTls(conn, start_tls) => self.handle_start_tls(conn, start_tls)?,
                Frame::Dial(dial) => {
                    if self.dials.len() >= limits::DIALS_MAX {
                        return Err(LinkError::Limit("DIALS_MAX"));
                    }
                    if !self.dials.insert(dial.dial) {
                        return Err(LinkError::Unexpected("Dial"));
                    }
                    self.events.push_back(MuxEvent::Dial(dial));
                }
                Frame::Drain => self.events.push_back(MuxEvent::Drain),
                Frame::Welcome(welcome) => self.handle_welcome(welcome)?,
                other => return Err(LinkError::Unexpected(codec::name(codec::kind_of(&other)))),
            }
        }
        Ok(())
    }

    fn handle_welcome(&mut self, welcome: Welcome) -> Result<(), LinkError> {
        if self.link.phase() != Phase::Greeting {
            return Err(LinkError::Unexpected("Welcome"));
        }
        let Welcome {
            boot, store, taken, ..
        } = welcome;
        match taken {
            Some(taken) => {
                let same = self
                    .server
                    .is_some_and(|server| server.boot == boot && server.store == store);
                if !same {
                    return Err(LinkError::Taken);
                }
                self.link.go_on(taken)?;
            }
            None => {
                self.start_over();
                if self.store.is_some_and(|ours| ours != store) {
                    self.forget_all(CloseReason::NotResumable);
                }
                self.link.start_anew();
                let mut ids: Vec<ConnId> = self.conns.keys().copied().collect();
                ids.sort_unstable();
                self.resuming = Some(ids.into_iter());
            }
        }
        self.server = Some(KnownServer { boot, store });
        self.store = Some(store);
        self.lost_due = None;
        self.events.push_back(MuxEvent::LinkUp {
            server: welcome.name,
            continued: taken.is_some(),
        });
        self.set_accepting(self.resuming.is_none());
        Ok(())
    }

    /// The connection a frame of the server is for.
    fn known(&mut self, conn: ConnId, kind: u8) -> Result<&mut Conn, LinkError> {
        let generation = self.generation;
        match self.conns.get_mut(&conn) {
            Some(state) if state.generation != generation => {
                Err(LinkError::UnknownConn(codec::name(kind), conn))
            }
            Some(state) if state.server_closed => {
                Err(LinkError::AfterClose(codec::name(kind), conn))
            }
            Some(state) => Ok(state),
            None => Err(LinkError::UnknownConn(codec::name(kind), conn)),
        }
    }

    fn handle_output(
        &mut self,
        now: Instant,
        conn: ConnId,
        output: Output,
    ) -> Result<(), LinkError> {
        self.known(conn, kind::OUTPUT)?;
        let Output {
            bytes,
            last,
            stanza,
            stored,
        } = output;
        if stored.is_some() && !stanza {
            return Err(LinkError::State("Output", conn));
        }
        let bytes = match self.partial.take() {
            None if last => bytes,
            None => {
                let bytes = bytes
                    .try_into_mut()
                    .unwrap_or_else(|shared| BytesMut::from(&shared[..]));
                self.partial = Some(Partial {
                    conn,
                    stanza,
                    stored,
                    bytes,
                });
                return Ok(());
            }
            Some(mut partial) => {
                if (partial.conn, partial.stanza, partial.stored) != (conn, stanza, stored) {
                    return Err(LinkError::State("Output", conn));
                }
                if partial.bytes.len() + bytes.len() > limits::OUTPUT_ELEMENT_BYTES_MAX {
                    return Err(LinkError::Limit("OUTPUT_ELEMENT_BYTES_MAX"));
                }
                partial.bytes.extend_from_slice(&bytes);
                if !last {
                    self.partial = Some(partial);
                    return Ok(());
                }
                partial.bytes.freeze()
            }
        };
        self.give_output(now, conn, bytes, stanza, stored);
        Ok(())
    }

    fn handle_fanout(&mut self, now: Instant, fanout: Fanout) -> Result<(), LinkError> {
        let Fanout {
            prefix,
            suffix,
            stanza,
            targets,
        } = fanout;
        let mut left: usize = targets
            .iter()
            .map(|t| prefix.len() + t.insert.len() + suffix.len())
            .sum();
        let mut buf = BytesMut::new();
        for target in targets {
            self.known(target.conn, kind::FANOUT)?;
            if target.stored.is_some() && !stanza {
                return Err(LinkError::State("Fanout", target.conn));
            }
            // The elements share buffers of moderate size: few allocations, and a slow client holds on to little.
            let len = prefix.len() + target.insert.len() + suffix.len();
            if buf.capacity() < len {
                buf = BytesMut::with_capacity(len.max(left.min(limits::CHUNK_BYTES)));
            }
            left -= len;
            buf.extend_from_slice(&prefix);
            buf.extend_from_slice(&target.insert);
            buf.extend_from_slice(&suffix);
            self.give_output(
                now,
                target.conn,
                buf.split().freeze(),
                stanza,
                target.stored,
            );
        }
        Ok(())
    }

    /// Passes one whole element on, unless the client is gone.
    fn give_output(
        &mut self,
        now: Instant,
        conn: ConnId,
        bytes: Bytes,
        stanza: bool,
        stored: Option<StoredId>,
    ) {
        let Some(state) = self.conns.get_mut(&conn) else {
            return;
        };
        if state.note.is_some() && !state.note_told {
            self.room.logged_in(state);
            state.note_told = true;
        }
        if state.is_over() {
            // Counted all the same: a restarted server has to know that its client lacks something.
            state.elements += 1;
            state.stanzas += u64::from(stanza);
            return;
        }
        if state.count_element(&mut self.spare, stanza, stored) {
            let element = state.elements;
            self.events.push_back(MuxEvent::Output {
                conn,
                bytes,
                element,
            });
        } else {
            self.end(now, conn, CloseReason::SlowClient);
        }
    }

    fn handle_marks(&mut self, conn: ConnId, marks: Marks) -> Result<(), LinkError> {
        let state = self.known(conn, kind::MARKS)?;
        // Counts are absolute: one below what is known says nothing new.
        let settled_bytes = marks.settled_bytes.max(state.settled_bytes);
        let settled_stanzas = marks.settled_stanzas.max(state.settled_stanzas);
        let mut forget_stanzas = marks.forget_stanzas.max(state.forget_stanzas);
        if state.is_over() {
            // What came by other frames after the client had gone was not counted.
            forget_stanzas = forget_stanzas.min(state.stanzas);
        }
        if settled_bytes > state.input_bytes {
            return Err(LinkError::Count("settled_bytes", conn));
        }
        if settled_stanzas > settled_bytes {
            return Err(LinkError::Count("settled_stanzas", conn));
        }
        if forget_stanzas > state.stanzas {
            return Err(LinkError::Count("forget_stanzas", conn));
        }
        if marks.input_bytes_max > settled_bytes + limits::INPUT_WINDOW_MAX {
            return Err(LinkError::Count("input_bytes_max", conn));
        }
        let before = state.weight();
        state.settle(settled_bytes);
        state.settled_stanzas = settled_stanzas;
        state.forget(forget_stanzas);
        // After a Resume the credit of the server before may be larger: a limit once told stays good.
        state.input_bytes_max = state.input_bytes_max.max(marks.input_bytes_max);
        let (session, after) = (state.is_session(), state.weight());
        let emptied = state.active.take_if(|active| active.is_empty());
        self.room.changed(session, before, after);
        if let Some(active) = emptied {
            self.recycle(active);
        }
        self.tell_room(conn);
        self.wake_starved();
        Ok(())
    }

    fn handle_start_tls(&mut self, conn: ConnId, start_tls: StartTls) -> Result<(), LinkError> {
        let state = self.known(conn, kind::START_TLS)?;
        if state.tls != TlsState::Plain {
            return Err(LinkError::State("StartTls", conn));
        }
        if state.is_over() {
            return Ok(());
        }
        state.tls = TlsState::Asked;
        state.elements += 1;
        let element = state.elements;
        let StartTls {
            last,
            request_client_certificate,
        } = start_tls;
        self.events.push_back(MuxEvent::StartTls {
            conn,
            last,
            element,
            request_client_certificate,
        });
        Ok(())
    }

    fn handle_close(&mut self, conn: ConnId, close: Close) -> Result<(), LinkError> {
        let state = self.known(conn, kind::CLOSE)?;
        if state.closed.is_some() {
            self.remove(conn);
            return Ok(());
        }
        state.server_closed = true;
        if !state.told_close {
            state.told_close = true;
            state.elements += u64::from(!close.last.is_empty());
            let element = state.elements;
            let Close { last, reason } = close;
            self.events.push_back(MuxEvent::Close {
                conn,
                last,
                element,
                reason,
            });
        }
        Ok(())
    }
}
