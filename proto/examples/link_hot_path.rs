//! What a frame costs: one client's message in, its reply and Marks out, through both ends, in memory.
//!
//! `cargo run --release -p isthmus-proto --example link_hot_path`

use bytes::{Bytes, BytesMut};
use proto::frame::*;
use proto::limits;
use proto::mux_side::{MuxEvent, MuxSide, MuxSideConfig};
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig, read_hello};
use std::time::{Duration, Instant};

const CONNS: u64 = 1000;
const TURNS: u64 = 1000;

fn main() {
    let now = Instant::now();
    let mut mux = MuxSide::new(now, MuxSideConfig::new("m", BootId([1; 16])));
    mux.handle_link_up(now);
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&mux.poll_link_output().expect("Hello"));
    let hello = read_hello(&mut bytes).expect("good").expect("whole");
    let config = ServerSideConfig::new("s", BootId([2; 16]), StoreId([3; 16]), Role::Mux);
    let mut server = ServerSide::accept(now, config, hello).expect("good");
    let (mut to_server, mut to_mux) = (BytesMut::new(), BytesMut::new());
    let spent = &mut [Duration::ZERO; 4];
    pump(now, &mut mux, &mut server, &mut to_server, &mut to_mux);
    let open = Open {
        kind: ListenerKind::C2s,
        transport: Transport::Tcp,
        peer: ([192, 0, 2, 1], 4000).into(),
        local: ([192, 0, 2, 1], 5222).into(),
        tls: None,
        dial: None,
    };
    let conns: Vec<ConnId> = (0..CONNS)
        .map(|_| mux.open(now, open.clone()).expect("accepting"))
        .collect();
    let message = Bytes::from(vec![b'x'; 300]);
    let (mut inputs, mut outputs) = (0u64, 0u64);
    let mut settled = 0;
    for _ in 0..TURNS {
        let start = Instant::now();
        for conn in &conns {
            mux.input(now, *conn, &message, false);
        }
        while let Some(chunk) = mux.poll_link_output() {
            to_server.extend_from_slice(&chunk);
        }
        spent[0] += start.elapsed();

        let start = Instant::now();
        server.handle_bytes(now, &mut to_server).expect("good");
        while let Some(event) = server.poll_event() {
            inputs += u64::from(matches!(event, ServerEvent::Input(..)));
        }
        spent[1] += start.elapsed();

        settled += message.len() as u64;
        let start = Instant::now();
        for conn in &conns {
            let output = Output {
                bytes: message.clone(),
                last: true,
                stanza: true,
                stored: Some(StoredId(settled)),
            };
            server
                .send_tracked(Frame::Output(*conn, output))
                .expect("open");
            let marks = Marks {
                settled_bytes: settled,
                settled_stanzas: settled / 300,
                forget_stanzas: settled / 300 - 1,
                input_bytes_max: settled + limits::INPUT_WINDOW_INITIAL,
            };
            server
                .send_tracked(Frame::Marks(*conn, marks))
                .expect("open");
        }
        while let Some(chunk) = server.poll_output() {
            to_mux.extend_from_slice(&chunk);
        }
        spent[2] += start.elapsed();

        let start = Instant::now();
        mux.handle_link_bytes(now, &mut to_mux).expect("good");
        while let Some(event) = mux.poll_event() {
            outputs += u64::from(matches!(event, MuxEvent::Output { .. }));
        }
        spent[3] += start.elapsed();
    }
    let messages = CONNS * TURNS;
    assert_eq!((inputs, outputs), (messages, messages));
    let rows = [
        ("mux: input, link output", 1),
        ("server: link bytes to Input", 1),
        ("server: Output and Marks, link output", 2),
        ("mux: link bytes to Output, Marks", 2),
    ];
    for ((what, frames), spent) in rows.into_iter().zip(spent.iter()) {
        println!(
            "{:5} ns a frame  {what}",
            spent.as_nanos() as u64 / messages / frames
        );
    }
}

fn pump(
    now: Instant,
    mux: &mut MuxSide,
    server: &mut ServerSide,
    to_server: &mut BytesMut,
    to_mux: &mut BytesMut,
) {
    for _ in 0..3 {
        while let Some(chunk) = server.poll_output() {
            to_mux.extend_from_slice(&chunk);
        }
        mux.handle_link_bytes(now, to_mux).expect("good");
        while let Some(chunk) = mux.poll_link_output() {
            to_server.extend_from_slice(&chunk);
        }
        server.handle_bytes(now, to_server).expect("good");
    }
    while mux.poll_event().is_some() || server.poll_event().is_some() {}
}
