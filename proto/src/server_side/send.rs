//! What the server sends: every frame is checked against the state of its connection, so that a mux never has cause to
//! close the link; long elements are cut in parts, fan-outs into frames.

use super::*;

impl ServerSide {
    /// Sends a frame. Output is given whole (`last` set) and cut here; Fanout may have any number of targets (those gone are
    /// left out). Also works while the transport is down: frames wait for the mux to come back.
    pub fn send(&mut self, frame: Frame) -> Result<(), SendError> {
        self.send_any(frame, false)
    }

    /// As `send`, and reports `Taken` for the stored ids of an Output or Fanout, `SettledTaken` for Marks.
    pub fn send_tracked(&mut self, frame: Frame) -> Result<(), SendError> {
        self.send_any(frame, true)
    }

    fn send_any(&mut self, frame: Frame, track: bool) -> Result<(), SendError> {
        if self.lost {
            return Err(SendError::Lost);
        }
        if !self.in_step {
            return Err(SendError::Gone);
        }
        let allowed = if matches!(frame, Frame::Admin(_)) {
            Role::Admin
        } else {
            Role::Mux
        };
        if self.config.role != allowed {
            return Err(SendError::NotAllowed(codec::name(codec::kind_of(&frame))));
        }
        match frame {
            Frame::Output(id, output) => self.send_output(id, &output, track)?,
            Frame::Marks(id, marks) => self.send_marks(id, &marks, track)?,
            Frame::Fanout(fanout) => self.send_fanout(fanout, track)?,
            Frame::Close(id, close) => self.send_close(id, close)?,
            Frame::StartTls(id, start_tls) => {
                let conn = receiver(&mut self.conns, id)?;
                if conn.tls != TlsState::Plain {
                    return Err(SendError::NotAllowed("StartTls"));
                }
                push_rare(&mut self.link, &Frame::StartTls(id, start_tls))?;
                conn.tls = TlsState::Asked;
                conn.elements += 1;
            }
            Frame::Note(id, key) => {
                let conn = receiver(&mut self.conns, id)?;
                if conn.noted {
                    return Err(SendError::NotAllowed("Note"));
                }
                conn.noted = true;
                push_rare(&mut self.link, &Frame::Note(id, key))?;
            }
            Frame::Dial(dial) => {
                let number = dial.dial;
                if self.dials.len() >= limits::DIALS_MAX {
                    return Err(SendError::TooLong("DIALS_MAX"));
                }
                if self.dials.contains(&number) {
                    return Err(SendError::NotAllowed("Dial"));
                }
                push_rare(&mut self.link, &Frame::Dial(dial))?;
                self.dials.insert(number);
            }
            Frame::Drain | Frame::Admin(_) => push_rare(&mut self.link, &frame)?,
            other => return Err(SendError::NotAllowed(codec::name(codec::kind_of(&other)))),
        }
        self.check_retained();
        Ok(())
    }

    fn send_output(&mut self, id: ConnId, output: &Output, track: bool) -> Result<(), SendError> {
        let conn = receiver(&mut self.conns, id)?;
        let Output {
            bytes,
            last,
            stanza,
            stored,
        } = output;
        if !last || bytes.is_empty() || (stored.is_some() && !stanza) {
            return Err(SendError::NotAllowed("Output"));
        }
        if bytes.len() > limits::OUTPUT_ELEMENT_BYTES_MAX {
            return Err(SendError::TooLong("OUTPUT_ELEMENT_BYTES_MAX"));
        }
        conn.elements += 1;
        conn.stanzas += u64::from(*stanza);
        push_element(&mut self.link, id, bytes, *stanza, *stored);
        if track && let Some(stored) = *stored {
            self.track(TrackedEvent::Taken(id, stored));
        }
        Ok(())
    }

    fn send_marks(&mut self, id: ConnId, marks: &Marks, track: bool) -> Result<(), SendError> {
        // Input is settled also after the mux has sent Close, never after ours.
        let conn = self
            .conns
            .get_mut(&id)
            .filter(|conn| !conn.closed)
            .ok_or(SendError::Gone)?;
        let within = marks.settled_bytes <= conn.input_bytes
            && marks.settled_stanzas <= marks.settled_bytes
            && marks.forget_stanzas <= conn.stanzas
            && marks.input_bytes_max <= marks.settled_bytes + limits::INPUT_WINDOW_MAX;
        if !within {
            return Err(SendError::NotAllowed("Marks"));
        }
        conn.input_bytes_max = conn.input_bytes_max.max(marks.input_bytes_max);
        self.link
            .push(64, |out| codec::encode_marks(id, marks, out));
        if track {
            self.track(TrackedEvent::Settled(id, marks.settled_stanzas));
        }
        Ok(())
    }

    fn send_close(&mut self, id: ConnId, close: Close) -> Result<(), SendError> {
        let conn = self
            .conns
            .get_mut(&id)
            .filter(|conn| !conn.closed)
            .ok_or(SendError::Gone)?;
        let is_element = !close.last.is_empty();
        push_rare(&mut self.link, &Frame::Close(id, close))?;
        conn.closed = true;
        conn.elements += u64::from(is_element);
        if conn.mux_closed {
            self.conns.remove(&id);
        }
        Ok(())
    }

    fn send_fanout(&mut self, fanout: Fanout, track: bool) -> Result<(), SendError> {
        let Fanout {
            prefix,
            suffix,
            stanza,
            mut targets,
        } = fanout;
        let around = prefix.len() + suffix.len();
        let fits = |target: &FanoutTarget| {
            let len = around + target.insert.len();
            len > 0
                && len <= limits::OUTPUT_ELEMENT_BYTES_MAX
                && (stanza || target.stored.is_none())
        };
        if !targets.iter().all(fits) {
            return Err(SendError::NotAllowed("Fanout"));
        }
        let conns = &mut self.conns;
        targets.retain(|target| match receiver(conns, target.conn) {
            Ok(conn) => {
                conn.elements += 1;
                conn.stanzas += u64::from(stanza);
                true
            }
            Err(_) => false,
        });
        let mut rest = &targets[..];
        while let Some(first) = rest.first() {
            let count = run_length(around, rest);
            if count == 0 {
                // Too long for a Fanout frame: goes as Output, in parts.
                let element = [&prefix[..], &first.insert, &suffix].concat();
                push_element(&mut self.link, first.conn, &element, stanza, first.stored);
            } else {
                let bytes: usize = rest[..count].iter().map(codec::fanout_target_bytes).sum();
                let hint = 64 + around + bytes;
                self.link.push(hint, |out| {
                    codec::encode_fanout(&prefix, &suffix, stanza, &rest[..count], out)
                });
            }
            let (sent, after) = rest.split_at(count.max(1));
            for target in sent {
                if track && let Some(stored) = target.stored {
                    self.track(TrackedEvent::Taken(target.conn, stored));
                }
            }
            rest = after;
        }
        Ok(())
    }

    /// Reports `event` when the frame written last is taken.
    fn track(&mut self, event: TrackedEvent) {
        self.tracked.push_back(Tracked {
            frame: self.link.sent(),
            event,
        });
    }

    fn check_retained(&mut self) {
        if self.link.retained_bytes() > self.config.retained_bytes_max {
            if self.is_up() {
                self.events
                    .push_back(ServerEvent::Down(LinkError::RetainedFull));
            }
            self.fail(self.now);
        }
    }
}

/// The connection that is to get output.
fn receiver(
    conns: &mut HashMap<ConnId, Conn, foldhash::fast::RandomState>,
    id: ConnId,
) -> Result<&mut Conn, SendError> {
    conns
        .get_mut(&id)
        .filter(|conn| !conn.closed && !conn.mux_closed)
        .ok_or(SendError::Gone)
}

/// Writes one of the rarer frames.
fn push_rare(link: &mut Link, frame: &Frame) -> Result<(), SendError> {
    link.push_frame(frame)
        .map_err(|codec::EncodeError(limit)| SendError::TooLong(limit))
}

/// Writes one element, in parts if it is long.
fn push_element(link: &mut Link, id: ConnId, bytes: &[u8], stanza: bool, stored: Option<StoredId>) {
    let mut rest = bytes;
    while rest.len() > limits::PART_BYTES_MAX {
        let (part, after) = rest.split_at(limits::PART_BYTES_MAX);
        link.push(part.len() + 32, |out| {
            codec::encode_output(id, part, false, stanza, stored, out)
        });
        rest = after;
    }
    link.push(rest.len() + 32, |out| {
        codec::encode_output(id, rest, true, stanza, stored, out)
    });
}

/// How many of `targets` go into one Fanout frame; 0 if not even the first does.
fn run_length(around: usize, targets: &[FanoutTarget]) -> usize {
    let mut frame_bytes = codec::FANOUT_HEAD_BYTES + around;
    let mut expanded = 0;
    let mut count = 0;
    for target in targets.iter().take(limits::FANOUT_TARGETS_MAX) {
        frame_bytes += codec::fanout_target_bytes(target);
        expanded += around + target.insert.len();
        let fits = frame_bytes <= limits::FRAME_BYTES_MIN as usize
            && expanded <= limits::FANOUT_EXPANDED_BYTES_MAX
            && around + target.insert.len() <= limits::PART_BYTES_MAX
            && target.insert.len() <= usize::from(u16::MAX);
        if !fits {
            break;
        }
        count += 1;
    }
    count
}
