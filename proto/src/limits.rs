//! Every limit of the link, each with the reason for its number.
//!
//! Limits that both ends must agree on are part of the protocol (LINK.md repeats them); limits that
//! one end may choose for itself are defaults of its configuration.

use std::time::Duration;

/// The protocol both ends must speak. There is no negotiation: muxes and servers of one site are
/// upgraded together, the muxes first, and a mismatch is said in the log of both.
pub const PROTOCOL_VERSION: u16 = 1;

// ---- part of the protocol -------------------------------------------------------------------

/// Every end takes frames of at least this many bytes (after the length field). It is what the
/// longest frame that cannot be sent in parts needs: Resume with `HELD_STORED_MAX` ids (96 KiB)
/// and a full Open (17 KiB), rounded up.
pub const FRAME_BYTES_MIN: u32 = 128 * 1024;

/// No end may announce more: a read buffer must be able to hold one frame.
pub const FRAME_BYTES_MAX: u32 = 1024 * 1024;

/// Bytes of payload of one part of a long element or input. Half a frame: long enough that the 18
/// bytes of header do not count, short enough that a part never needs a large read buffer.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// Longest output element, all parts together. A roster of 100,000 items is 10 MB.
pub const OUTPUT_ELEMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Last bytes in StartTls and Close: a `<proceed/>`, a stream error and `</stream:stream>`.
pub const LAST_BYTES_MAX: usize = 16 * 1024;

/// Receivers in one Fanout frame. 32 bytes each with a short insert: fits a frame three times over.
pub const FANOUT_TARGETS_MAX: usize = 1024;

/// Bytes one Fanout frame may become at the mux, over all its targets: what one frame can make a
/// mux hold at once.
pub const FANOUT_EXPANDED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Stored ids a mux keeps for one connection. A client that takes four thousand stored stanzas and
/// acknowledges none of them is not reading; the mux closes it.
pub const HELD_STORED_MAX: usize = 4096;

/// Input a mux may send on a new connection before any Marks: more than the largest element
/// allowed before login (10 KB).
pub const INPUT_WINDOW_INITIAL: u64 = 16 * 1024;

/// Largest distance between settled input and `input_bytes_max`, and so what a Resume may bring
/// back for one connection: the largest element a site would allow, twice.
pub const INPUT_WINDOW_MAX: u64 = 4 * 1024 * 1024;

/// Names (of processes, hosts) in bytes. A DNS name is at most 253.
pub const NAME_BYTES_MAX: usize = 255;

/// ALPN protocol name in bytes (RFC 7301 §3.1: a one-byte length).
pub const ALPN_BYTES_MAX: usize = 255;

/// A `tls-server-end-point` hash in bytes: SHA-512 is the longest in use.
pub const SERVER_END_POINT_BYTES_MAX: usize = 64;

/// A client certificate in bytes (DER). Certificates of 10^4 names are an attack, not a user.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

/// Text of DialFailed and Refused in bytes: one log line.
pub const REASON_BYTES_MAX: usize = 512;

/// Dials in flight on one link. Remote domains are dialled once and kept; more at once is a flood.
pub const DIALS_MAX: usize = 4096;

/// Largest value of any counter (bytes, elements, stanzas): no sum of two can overflow, and no
/// connection lives long enough to get there.
pub const COUNT_MAX: u64 = 1 << 62;

// ---- liveness and acknowledgement -------------------------------------------------------------

/// Nothing heard for this long: send Ping.
pub const PING_IDLE: Duration = Duration::from_secs(5);

/// Nothing heard for this long: the transport is dead. Three pings' worth: a server stalled by its
/// disk for some seconds is not a dead server.
pub const LINK_DEAD: Duration = Duration::from_secs(15);

/// A mux that was heard within this time has its name; another process with the same name is refused. Two pings' worth: a
/// mux that lives is heard at least every `PING_IDLE` and a round trip.
pub const NAME_HELD: Duration = Duration::from_secs(10);

/// Hello must be answered within this time.
pub const WELCOME_WAIT: Duration = Duration::from_secs(10);

/// Send Ack at the latest after so many frames taken ...
pub const ACK_FRAMES: u64 = 1024;

/// ... or so many bytes ...
pub const ACK_BYTES: u64 = 256 * 1024;

/// ... or this time. An Ack also rides on every output that goes anyway.
pub const ACK_DELAY: Duration = Duration::from_millis(50);

// ---- what one end may choose for itself (defaults) ----------------------------------------------

/// How long a server keeps the sessions of a lost mux (DESIGN section 3, `mux_lost_s`).
pub const MUX_LOST: Duration = Duration::from_secs(30);

/// How long a mux keeps its clients without a server (DESIGN section 3, `server_lost_s`).
pub const SERVER_LOST: Duration = Duration::from_secs(300);

/// Bytes of frames sent and not acknowledged that one end keeps for a link that may go on. Above
/// it the link does not go on where it stopped; it is built anew by Resume. At 300 bytes a frame
/// this is 200,000 frames: 10 s of a busy link.
pub const RETAINED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of unsettled input a mux holds over all its connections.
pub const UNSETTLED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Connections of one mux, closed ones that the server has not let go included.
pub const CONN_COUNT_MAX: usize = 1_100_000;

/// Bytes a chunk of link output grows to before the next is begun: one large write.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// While a mux sends Resume for every connection it stops above this many unacknowledged bytes, so
/// that a million connections do not stand in memory twice.
pub const RESUME_AHEAD_BYTES: usize = 4 * 1024 * 1024;

const _: () = {
    assert!(FRAME_BYTES_MIN <= FRAME_BYTES_MAX);
    assert!(PART_BYTES_MAX * 2 <= FRAME_BYTES_MIN as usize);
    // Resume: ids, certificate, names and fixed fields.
    assert!(HELD_STORED_MAX * 24 + CERTIFICATE_BYTES_MAX + 2048 <= FRAME_BYTES_MIN as usize);
    assert!(INPUT_WINDOW_INITIAL <= INPUT_WINDOW_MAX);
    assert!(PING_IDLE.as_secs() < NAME_HELD.as_secs());
    assert!(NAME_HELD.as_secs() < LINK_DEAD.as_secs());
};
