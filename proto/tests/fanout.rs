//! One payload for many: cut into frames within their limits, long ones sent as parts, those gone left out.

#[path = "common/build.rs"]
mod build;

use build::*;
use bytes::{Bytes, BytesMut};
use proto::codec::decode;
use proto::frame::*;
use proto::limits::*;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{SendError, ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::collections::BTreeMap;
use std::time::Instant;

#[test]
fn a_fanout_of_any_size_reaches_each_target_once_and_whole() {
    const CONNS: u64 = 2500;
    let now = Instant::now();
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m", MUX));
    mux.handle_link_up(now);
    let mut hello = BytesMut::from(&mux.poll_link_output().expect("Hello")[..]);
    let hello = read_hello(&mut hello).expect("good").expect("whole");
    let config = ServerSideConfig::new("s", SERVER, STORE, Role::Mux);
    let mut server = ServerSide::accept(now, config, hello).expect("good");
    let mut to_mux = BytesMut::from(&server.poll_output().expect("Welcome")[..]);
    mux.handle_link_bytes(now, &mut to_mux).expect("good");
    let conns: Vec<ConnId> = (0..CONNS)
        .map(|_| mux.open(now, open()).expect("accepting"))
        .collect();
    mux.closed(now, conns[10], CloseReason::Normal);
    let mut to_server = BytesMut::new();
    while let Some(chunk) = mux.poll_link_output() {
        to_server.extend_from_slice(&chunk);
    }
    server.handle_bytes(now, &mut to_server).expect("good");
    while mux.poll_event().is_some() || server.poll_event().is_some() {}

    // Bytes around the insert, bytes of the inserts: many small, large, too large for a Fanout frame, and one large insert.
    for (around, insert) in [(100, 20), (20_000, 5), (70_000, 5), (100, 70_000)] {
        // The largest only for some.
        let few = if around + insert > 50_000 {
            20
        } else {
            CONNS as usize
        };
        let inserted =
            |conn: &ConnId| Bytes::from(format!("{:05}{}", conn.0, "0".repeat(insert - 5)));
        let target = |conn: &ConnId| FanoutTarget {
            conn: *conn,
            insert: inserted(conn),
            stored: Some(StoredId(conn.0)),
        };
        let mut targets: Vec<FanoutTarget> = conns[..few].iter().map(target).collect();
        targets.push(target(&ConnId(999_999)));
        let prefix = Bytes::from(vec![b'p'; around / 2]);
        let suffix = Bytes::from(vec![b's'; around / 2]);
        let fanout = Fanout {
            prefix: prefix.clone(),
            suffix: suffix.clone(),
            stanza: true,
            targets,
        };
        server
            .send_tracked(Frame::Fanout(fanout))
            .expect("within limits");

        let mut got: BTreeMap<ConnId, Bytes> = BTreeMap::new();
        while let Some(chunk) = server.poll_output() {
            let mut frames = BytesMut::from(&chunk[..]);
            while let Some(frame) = decode(&mut frames, FRAME_BYTES_MIN).expect("good") {
                if let Frame::Fanout(fanout) = frame {
                    assert!(fanout.targets.len() <= FANOUT_TARGETS_MAX);
                }
            }
            mux.handle_link_bytes(now, &mut BytesMut::from(&chunk[..]))
                .expect("good");
            while let Some(event) = mux.poll_event() {
                let MuxEvent::Output { conn, bytes, .. } = event else {
                    panic!("{event:?}")
                };
                assert!(got.insert(conn, bytes).is_none(), "{conn:?} twice");
            }
        }
        assert_eq!(got.len(), few - 1, "all but the one that is gone");
        for (conn, bytes) in got {
            assert_eq!(bytes, [&prefix[..], &inserted(&conn), &suffix].concat());
        }
        // Each stored id is reported when the mux has taken its frame.
        let mut acks = BytesMut::new();
        mux.handle_timeout(now + ACK_DELAY);
        while let Some(chunk) = mux.poll_link_output() {
            acks.extend_from_slice(&chunk);
        }
        server.handle_bytes(now, &mut acks).expect("good");
        let taken = std::iter::from_fn(|| server.poll_event())
            .filter(|event| matches!(event, ServerEvent::Taken(conn, id) if conn.0 == id.0))
            .count();
        assert_eq!(taken, few - 1);
    }
    let nobody = Fanout {
        prefix: text("x"),
        suffix: Bytes::new(),
        stanza: true,
        targets: vec![],
    };
    assert_eq!(server.send(Frame::Fanout(nobody)), Ok(()));
    assert_eq!(server.poll_output(), None);
    assert_eq!(server.send(output(conns[10])), Err(SendError::Gone));
}
