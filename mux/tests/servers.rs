//! Two servers in the list: which one is used, and when the mux moves on.

mod common;

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use common::{Server, Setup, Wire, connect, read_exact, write_certificate};
use crossbeam_channel::bounded;
use mux::{LinkTransport, Mux};
use proto::frame::*;
use proto::server_side::ServerEvent;

fn server(path: &Path) -> Server {
    let listener = UnixListener::bind(path).expect("bind");
    let (sender, links) = bounded::<Box<dyn Wire>>(16);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if stream
                .set_read_timeout(Some(Duration::from_millis(5)))
                .is_err()
                || sender.send(Box::new(stream)).is_err()
            {
                return;
            }
        }
    });
    Server::new(links)
}

fn mux(dir: &Path) -> Mux {
    write_certificate(dir, "example", "example.org");
    write_certificate(dir, "other", "other.example");
    let two = "[[server]]\nname = \"main\"\naddress = \"unix:a.sock\"\n[[server]]\nname = \"spare\"\naddress = \"unix:b.sock\"\n";
    let text = common::configuration_text(&Setup::default()).replace(
        "[[server]]\nname = \"main\"\naddress = \"unix:link.sock\"\n",
        two,
    );
    let file = dir.join("mux.toml");
    std::fs::write(&file, text).expect("write");
    let config = mux::config::load(&file).expect("good");
    mux::start(config, LinkTransport::Dial).expect("starts")
}

fn drain_event(server: &mut Server) {
    server.wait("Drain", |e| matches!(e, ServerEvent::Drain).then_some(()));
}

#[test]
fn a_draining_server_keeps_its_clients_and_the_next_one_gets_the_new() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut a, mut b) = (
        server(&dir.path().join("a.sock")),
        server(&dir.path().join("b.sock")),
    );
    let mux = mux(dir.path());
    assert!(!a.up());
    let mut old = connect(mux.addresses()[0]);
    let (conn, _) = a.opened();
    a.send(Frame::Note(conn, NoteKey([1; 16])));
    a.send(Frame::Drain);
    a.pump();
    let mut new = connect(mux.addresses()[0]);
    new.write_all(b"<new/>").expect("write");
    a.never("a new client", 20, |e| matches!(e, ServerEvent::Opened(..)));
    a.output(conn, "<x/>");
    assert_eq!(read_exact(&mut old, 4), b"<x/>");
    a.close(conn, b"", CloseReason::Shutdown);
    a.closed(conn);
    a.until_left();
    // The last client of the old server is gone: on to the next.
    assert!(!b.up());
    let (conn, _) = b.opened();
    assert_eq!(b.input(conn, 6), b"<new/>");
    mux.stop();
    drain_event(&mut b);
    drop(b);
    mux.join().expect("ends in order");
}

#[test]
fn a_server_that_cannot_be_reached_is_passed_over() {
    let dir = tempfile::tempdir().expect("dir");
    let mut b = server(&dir.path().join("b.sock"));
    let mux = mux(dir.path());
    assert!(!b.up());
    let _client = connect(mux.addresses()[0]);
    b.opened();
    mux.stop();
    drop(b);
    mux.join().expect("ends in order");
}

#[test]
fn clients_wait_for_their_own_server_even_if_another_is_there() {
    let dir = tempfile::tempdir().expect("dir");
    let (mut a, mut b) = (
        server(&dir.path().join("a.sock")),
        server(&dir.path().join("b.sock")),
    );
    let mux = mux(dir.path());
    assert!(!a.up());
    let mut client = connect(mux.addresses()[0]);
    let (conn, _) = a.opened();
    a.send(Frame::Note(conn, NoteKey([1; 16])));
    a.output(conn, "<x/>");
    assert_eq!(read_exact(&mut client, 4), b"<x/>");
    a.restart();
    b.never("a link", 40, |e| matches!(e, ServerEvent::Up { .. }));
    assert!(!a.up());
    a.wait("Resumed", |e| {
        matches!(e, ServerEvent::Resumed(c, _) if *c == conn).then_some(())
    });
    mux.stop();
    drop(a);
    mux.join().expect("ends in order");
}
