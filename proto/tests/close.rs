//! The end of a connection: what its mux had sent before it knew.

#[path = "common/build.rs"]
mod build;

use build::*;
use proto::frame::*;
use proto::server_side::{ServerEvent, ServerSide, ServerSideConfig};
use std::time::Instant;

#[test]
fn input_sent_before_the_mux_took_the_servers_close_still_reaches_the_server() {
    let now = Instant::now();
    let config = ServerSideConfig::new("s", SERVER, STORE, Role::Mux);
    let mut server = ServerSide::accept(now, config, hello(None)).expect("a good Hello");
    let said = |server: &mut ServerSide, frames: &[Frame]| {
        server
            .handle_bytes(now, &mut wire(frames))
            .expect("a good mux");
        let events = std::iter::from_fn(|| server.poll_event());
        events
            .filter(|e| matches!(e, ServerEvent::Input(..) | ServerEvent::Closed(..)))
            .collect::<Vec<_>>()
    };
    said(&mut server, &[Frame::ResumeEnd, Frame::Open(ONE, open())]);
    server.send(close(ONE)).expect("an open connection");
    // The acknowledgement of a client that did not know yet; then its end.
    let events = said(&mut server, &[input(ONE, 33), close(ONE)]);
    assert!(
        matches!(
            &events[..],
            [ServerEvent::Input(ONE, _), ServerEvent::Closed(ONE, _)]
        ),
        "{events:?}"
    );
    assert!(
        server.send(marks(33, 0, 0, 33)).is_err(),
        "nothing is settled after Close"
    );
}
