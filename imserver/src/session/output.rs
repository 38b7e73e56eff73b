//! What goes out to a client, and what it has acknowledged: the second half of [`Session`].
//!
//! In: elements to send, acknowledgements of the mux and of the client. Out: frames for the link, marks that may be cleared.
//! Never: forgets a stored stanza before the client has it.

use super::*;
use proto::limits::OUTPUT_ELEMENT_BYTES_MAX;
use xmpp::element::Element;
use xmpp::error::StanzaError;
use xmpp::node::Node;
use xmpp::ns;
use xmpp::stream::framing;

/// The end of every stream of ours that is no WebSocket's.
const STREAM_END: &[u8] = b"</stream:stream>";

impl Session {
    /// Sends one element. Never after the end. One that no link carries (a roster with very many contacts of groups) is not counted
    /// either, or the client's acknowledgement of it would be waited for; if it is an answer, an error goes in its place.
    pub fn send(&mut self, bytes: Bytes, kind: OutKind, now: Now, out: &mut Vec<LinkCommand>) {
        if matches!(self.stage, Stage::Closing { .. }) || self.mux_closed && !self.is_away() {
            return;
        }
        if bytes.len() > OUTPUT_ELEMENT_BYTES_MAX - framing::ADDED_BYTES {
            let len = bytes.len();
            tracing::debug!(len, "longer than a link carries: not sent");
            if let Some(error) = error_in_place_of(&bytes) {
                self.send(error, kind, now, out);
            }
            return;
        }
        if self.is_away() {
            self.log(bytes, kind);
            return;
        }
        if let Some(held) = &mut self.held_back {
            self.held_back_bytes += bytes.len();
            held.push((bytes, kind));
            return;
        }
        self.send_now(bytes, kind, now, out);
    }

    /// The same, past what is held back.
    pub fn send_now(&mut self, bytes: Bytes, kind: OutKind, now: Now, out: &mut Vec<LinkCommand>) {
        let Some(key) = self.key else { return };
        // Kept as it would be on any connection.
        let kept = bytes.clone();
        let bytes = match self.is_framed() {
            true => framing::message(&bytes),
            false => bytes,
        };
        self.count_out(bytes.len(), kind, now);
        if kind.stanza && kind.stored.is_none() {
            self.keep(|| resumption::Kept::Whole(kept));
        }
        let frame = Frame::Output(
            key.conn,
            Output {
                bytes,
                last: true,
                stanza: kind.stanza,
                stored: kind.stored.map(StoredId),
            },
        );
        out.push(LinkCommand::Frame {
            link: key.link,
            frame,
            track: kind.track,
        });
    }

    /// Counts an element that goes out by another frame (Fanout, StartTls).
    pub fn count_out(&mut self, len: usize, kind: OutKind, now: Now) {
        self.elements_out += 1;
        if kind.stanza {
            self.stanzas_out += 1;
        }
        if let Some(position) = kind.stored {
            self.in_mux.push_back(self.stanzas_out);
            self.unacked.push_back(Unacked {
                element: self.elements_out,
                stanza: self.stanzas_out,
                position,
            });
        }
        if self.outstanding.is_empty() {
            self.stuck_since_ms = now.mono_ms;
        }
        self.outstanding.push_back((self.elements_out, len as u32));
        self.outstanding_bytes += len;
    }

    /// The number of the last element sent, or that will be when nothing is held back any more.
    pub fn elements_out(&self) -> u64 {
        self.elements_out + self.held_back.as_ref().map_or(0, Vec::len) as u64
    }

    /// There is room for an element of this size: the window is empty, or not full with it.
    pub fn has_room(&self, len: usize, settings: &Settings) -> bool {
        if self.is_away() {
            return self.has_room_to_keep(len);
        }
        let bytes = self.outstanding_bytes + self.held_back_bytes;
        bytes == 0 || bytes + len <= settings.output_window_bytes
    }

    /// The client has not taken what it was sent: nothing more is taken from it either, or one that asks and never reads the
    /// answers makes us hold them all.
    pub fn is_full(&self, output_window_bytes: usize) -> bool {
        !self.mux_closed && self.outstanding_bytes + self.held_back_bytes >= output_window_bytes
    }

    /// Bytes sent and not acknowledged by the client's TCP.
    pub fn outstanding_bytes(&self) -> usize {
        self.outstanding_bytes
    }

    /// How long the oldest outstanding element has been out, ms; `None` when there is none.
    pub fn stuck_ms(&self, now: Now) -> Option<u64> {
        (!self.outstanding.is_empty()).then(|| now.mono_ms.saturating_sub(self.stuck_since_ms))
    }

    /// The client's TCP has acknowledged this many elements. Returns positions that are thereby delivered (only without
    /// stream management: with it the client's `<a/>` counts).
    pub fn drained(&mut self, elements: u64, now: Now, delivered: &mut Vec<Unacked>) {
        if elements <= self.drained {
            return;
        }
        self.drained = elements;
        while let Some(&(n, len)) = self.outstanding.front() {
            if n > elements {
                break;
            }
            self.outstanding.pop_front();
            self.outstanding_bytes -= len as usize;
        }
        self.stuck_since_ms = now.mono_ms;
        if self.outstanding.is_empty() && self.outstanding.capacity() > 8 {
            self.outstanding.shrink_to(0);
        }
        self.deliver_drained(delivered);
        self.shrink_unacked();
    }

    /// What the client's TCP has acknowledged is delivered; under stream management only what was sent before it began.
    fn deliver_drained(&mut self, delivered: &mut Vec<Unacked>) {
        let stanza_max = self.sm.map_or(u64::MAX, |sm| sm.began_out);
        while let Some(u) = self
            .unacked
            .front()
            .filter(|u| u.element <= self.drained && u.stanza <= stanza_max)
        {
            delivered.push(*u);
            self.unacked.pop_front();
        }
    }

    /// After a Resume: what the mux still held although the client's TCP had acknowledged it is delivered (without stream
    /// management).
    pub fn drained_at_resume(&mut self, delivered: &mut Vec<Unacked>) {
        self.deliver_drained(delivered);
    }

    /// The client has acknowledged stanzas: `h` of `<a/>`. `None`: it says more than was sent. One that comes late, with less than
    /// the client has said before, frees nothing (XEP-0198 §4).
    pub fn acknowledged(&mut self, h: u32, delivered: &mut Vec<Unacked>) -> Option<()> {
        let sm = self.sm.as_mut()?;
        let on_wire = self.resumption.as_ref().and_then(|r| r.on_wire());
        let sent = on_wire
            .unwrap_or(self.stanzas_out)
            .wrapping_sub(sm.out_base);
        let before = sm.acked.wrapping_sub(sm.out_base);
        // h counts modulo 2^32: the smallest number not below what was acknowledged that agrees with it.
        let step = h.wrapping_sub(before as u32);
        let mut total = before + u64::from(step);
        if total > sent {
            let back = (before as u32).wrapping_sub(h);
            if u64::from(back) > before || back > u32::MAX / 2 {
                return None;
            }
            total = before;
        }
        sm.acked = sm.out_base.wrapping_add(total);
        sm.requested_ms = None;
        let acked = sm.acked;
        while let Some(u) = self.unacked.front() {
            if u.stanza > acked {
                break;
            }
            delivered.push(*u);
            self.unacked.pop_front();
        }
        self.shrink_unacked();
        self.forget_kept(acked);
        Some(())
    }

    /// The client has been sent its archive up to this position. (While output is held back nobody knows its numbers.)
    pub fn has_read_archive(&mut self, up_to: u64) {
        if !self.holds_back() && !self.is_away() {
            let up_to = up_to.max(self.archive_read.map_or(0, |r| r.up_to));
            self.archive_read = Some(ArchiveRead {
                up_to,
                element: self.elements_out,
                stanza: self.stanzas_out,
            });
        }
    }

    /// The client is told up to where its archive is, and will read that (XEP-0386 §3.2): it is as good as read.
    pub fn knows_archive(&mut self, up_to: u64) {
        self.archive_read = Some(ArchiveRead {
            up_to,
            element: self.elements_out,
            stanza: self.stanzas_out,
        });
    }

    /// Up to where the client has read its archive, and whether it has acknowledged that.
    pub fn archive_read(&self) -> Option<(u64, bool)> {
        let read = self.archive_read?;
        let known = match self.sm {
            Some(sm) if read.stanza > sm.began_out => sm.acked >= read.stanza,
            _ => self.drained >= read.element,
        };
        Some((read.up_to, known))
    }

    /// The client is to acknowledge what it has read of its archive.
    pub fn awaits_archive(&self) -> bool {
        self.archive_read().is_some_and(|(_, known)| !known)
    }

    /// Gives back what the queues of a busy session keep: about half a KiB each that an idle one has no use for.
    pub fn trim(&mut self) {
        fn empty<T>(queue: &mut VecDeque<T>) {
            if queue.is_empty() && queue.capacity() > 0 {
                *queue = VecDeque::new();
            }
        }
        empty(&mut self.unsettled);
        empty(&mut self.outstanding);
        empty(&mut self.unacked);
        empty(&mut self.in_mux);
        empty(&mut self.acks_in_flight);
        empty(&mut self.ack_elements);
    }

    fn shrink_unacked(&mut self) {
        if self.unacked.is_empty() && self.unacked.capacity() > 8 {
            self.unacked.shrink_to(0);
        }
    }

    /// Output stanzas (since the connection began) that need no acknowledgement any more: all up to the oldest that is
    /// still unacknowledged, or whose mark is not cleared.
    pub fn acknowledged_stanzas(&self) -> u64 {
        let on_wire = self.stanzas_on_wire();
        let unacked = self
            .unacked
            .front()
            .map_or(on_wire, |u| u.stanza.saturating_sub(1).min(on_wire));
        self.uncleared
            .iter()
            .map(|u| u.stanza.saturating_sub(1))
            .fold(unacked, u64::min)
    }

    /// The client has acknowledged it, but its mark cannot be cleared yet: its record has to say so.
    pub fn defer_clearing(&mut self, u: Unacked) {
        self.uncleared.push(u);
        self.acks_unrecorded = true;
    }

    /// What the client has acknowledged and is not cleared yet.
    pub fn uncleared_positions(&self) -> Vec<u64> {
        self.uncleared.iter().map(|u| u.position).collect()
    }

    /// The same, of a session found in the session store: until it is resumed only the positions are known.
    pub fn restore_uncleared(&mut self, positions: &[u64]) {
        self.uncleared = positions
            .iter()
            .map(|&position| Unacked {
                element: 0,
                stanza: 0,
                position,
            })
            .collect();
    }

    /// Something the client has acknowledged is neither on disk nor on record yet.
    pub fn acks_under_way(&self) -> bool {
        self.ack_pending || !self.acks_in_flight.is_empty()
    }

    /// The disk has refused acknowledgements: what was to be durable with them is not.
    pub fn acks_failed(&mut self) {
        self.acks_in_flight.clear();
        self.ack_pending = true;
        self.acks_unrecorded |= !self.uncleared.is_empty();
    }

    /// The mark of a stanza that this session may have deferred has been cleared, on disk.
    pub fn cleared(&mut self, position: u64) {
        let before = self.uncleared.len();
        self.uncleared.retain(|u| u.position != position);
        if before != self.uncleared.len() {
            self.ack_pending = true;
            // Not written for each of many: a mark cleared twice is harmless.
            self.acks_unrecorded |= self.uncleared.is_empty() && self.bound().is_some();
        }
    }

    /// The write with this number puts on disk that stanzas up to `stanza` are acknowledged.
    pub fn ack_written(&mut self, write: u64) {
        let stanza = self.acknowledged_stanzas();
        let element = self.ack_elements.back().copied().unwrap_or(0);
        self.acks_in_flight.push_back((write, stanza, element));
    }

    /// This `<a/>` is settled when what it acknowledges is on disk.
    pub fn ack_element(&mut self, number: u64) {
        self.ack_elements.push_back(number);
    }

    /// Writes up to this number are on disk.
    pub fn ack_durable(&mut self, write: u64) {
        while let Some(&(w, stanza, element)) = self.acks_in_flight.front() {
            if w > write {
                break;
            }
            self.forget_stanzas = self.forget_stanzas.max(stanza);
            self.acks_in_flight.pop_front();
            while let Some(number) = self.ack_elements.front().copied().filter(|&n| n <= element) {
                self.ack_elements.pop_front();
                self.done(number);
            }
        }
        if self.acks_in_flight.is_empty() && self.acks_in_flight.capacity() > 8 {
            self.acks_in_flight.shrink_to(0);
        }
    }

    /// Stanzas sent since stream management was enabled.
    pub fn sent_since_sm(&self) -> u64 {
        let sent = self.stanzas_on_wire();
        self.sm.map_or(0, |sm| sent.wrapping_sub(sm.out_base))
    }

    /// Starts stream management at this point.
    pub fn enable_sm(&mut self) {
        // The <enable/> itself is a nonza; stanzas before it are not counted (XEP-0198 §3).
        self.sm = Some(StreamManagement {
            in_base: self.stanzas_in,
            out_base: self.stanzas_out,
            began_out: self.stanzas_out,
            // Nothing is sent in between.
            enabled_element: self.elements_out + 1,
            acked: self.stanzas_out,
            ..StreamManagement::default()
        });
    }

    /// From here on output waits for [`Session::let_go`].
    pub fn hold_back(&mut self) {
        self.held_back.get_or_insert_with(Vec::new);
    }

    /// Output is held back.
    pub fn holds_back(&self) -> bool {
        self.held_back.is_some()
    }

    /// `<enabled/>` waits for the record.
    pub fn enabling(&self) -> bool {
        self.sm
            .is_some_and(|sm| sm.enabled_element > self.elements_out)
    }

    /// `first` goes out, and then what was held back.
    pub fn let_go(&mut self, first: Option<Bytes>, now: Now, out: &mut Vec<LinkCommand>) {
        let held = self.held_back.take().unwrap_or_default();
        self.held_back_bytes = 0;
        if let Some(first) = first {
            self.send(first, OutKind::NONZA, now, out);
        }
        for (bytes, kind) in held {
            self.send(bytes, kind, now, out);
        }
    }

    /// Asks the client what it has, if something is out that it has not acknowledged and it has not been asked. The same is
    /// asked again only after a while: a client that acknowledges less than it was sent would be asked without end.
    pub fn request_ack(&mut self, silent: bool, now: Now, out: &mut Vec<LinkCommand>) {
        if self.is_away() {
            return;
        }
        let read = self.archive_read.filter(|_| self.awaits_archive());
        let newest = match self.keeps_much(silent) {
            true => self.stanzas_out,
            false => self.unacked.back().map_or(0, |u| u.stanza),
        };
        let newest = newest.max(read.map_or(0, |r| r.stanza));
        if let Some(sm) = &mut self.sm
            && sm.requested_ms.is_none()
            && (newest > sm.asked_stanzas || now.mono_ms.saturating_sub(sm.asked_ms) > ASK_AGAIN_MS)
        {
            sm.requested_ms = Some(now.mono_ms);
            sm.asked_ms = now.mono_ms;
            sm.asked_stanzas = self.stanzas_out;
            let r = Bytes::from_static(b"<r xmlns='urn:xmpp:sm:3'/>");
            if self.is_catching_up_stream() {
                // What is held back behind it waits for the answer.
                self.send_now(r, OutKind::NONZA, now, out);
            } else {
                self.send(r, OutKind::NONZA, now, out);
            }
        }
    }

    /// The client is being asked for an acknowledgement now, whatever was asked before.
    pub fn request_ack_now(&mut self, now: Now) {
        if let Some(sm) = &mut self.sm {
            sm.requested_ms = Some(now.mono_ms);
        }
    }

    /// The last a client hears: a header that was not sent yet, an error, and the end of the stream. Nothing, if its connection is
    /// gone already.
    pub fn farewell(&self, header: Bytes, error: Option<Bytes>) -> Vec<Bytes> {
        if self.mux_closed {
            return Vec::new();
        }
        let parts = |end| [header, error.unwrap_or_default(), Bytes::from_static(end)];
        match self.is_framed() {
            true => parts(framing::CLOSE)
                .iter()
                .filter(|part| !part.is_empty())
                .map(framing::message)
                .collect(),
            false => vec![parts(STREAM_END).concat().into()],
        }
    }

    /// Begins the end: nothing is sent after the farewell.
    pub fn close(&mut self, header: Bytes, error: Option<Bytes>, reason: CloseReason) {
        if !matches!(self.stage, Stage::Closing { .. }) {
            let last = self.farewell(header, error);
            self.stage = Stage::Closing {
                last,
                reason,
                sent: false,
            };
        }
    }
}

/// The error that answers what this result of ours would have answered. `None`: it is no result.
fn error_in_place_of(result: &Bytes) -> Option<Bytes> {
    let mut quote = None;
    let end = result.iter().position(|&b| {
        match (quote, b) {
            (None, b'\'' | b'"') => quote = Some(b),
            (Some(q), _) if q == b => quote = None,
            _ => {}
        }
        quote.is_none() && b == b'>'
    })?;
    let tag = [&result[..end], b"/>"].concat();
    let top = Element::parse(tag.into()).ok()?;
    if top.name() != "iq" || top.attr("type").as_deref() != Some("result") {
        return None;
    }
    let mut request = Node::new("iq", ns::CLIENT).with_attr("type", "get");
    for (name, was) in [("id", "id"), ("from", "to"), ("to", "from")] {
        if let Some(value) = top.attr(was) {
            request = request.with_attr(name, value);
        }
    }
    let request = Element::parse(request.to_bytes(ns::CLIENT)).ok()?;
    let text = "The answer is longer than can be sent";
    xmpp::error::stanza_error(&request, StanzaError::ResourceConstraint, Some(text))
}
