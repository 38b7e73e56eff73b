//! What a stream holds: nothing while idle, nothing per message but the message, little while an
//! element is incomplete. Counted by the allocator, per thread.
#![allow(unsafe_code, reason = "counting allocations needs a global allocator")]

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use xmpp::element::ContentNs;
use xmpp::stanza::Rewrite;
use xmpp::stream::{Limits, StreamEvent, StreamNamespaces, StreamParser};

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count(size: isize) {
    HELD.with(|held| held.set(held.get() + size));
    if size > 0 {
        ALLOCATIONS.with(|n| n.set(n.get() + 1));
    }
}

// SAFETY: every call goes to the system allocator unchanged; only counters without heap are added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn held() -> isize {
    HELD.with(Cell::get)
}

fn allocations() -> usize {
    ALLOCATIONS.with(Cell::get)
}

const MESSAGE: &[u8] = b"<message to='juliet@capulet.example/balcony' id='0b2a3c4d' type='chat'><body>Wherefore art thou?</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>";

fn parser() -> StreamParser {
    let mut parser = StreamParser::new(Limits::AFTER_LOGIN);
    parser.resume_after_header(StreamNamespaces::new(ContentNs::Client));
    // The first element makes the spare tokenizer of this thread.
    parser.push(Bytes::from_static(MESSAGE));
    assert!(matches!(parser.poll(), Ok(Some(StreamEvent::Element(_)))));
    assert_eq!(parser.poll(), Ok(None));
    parser
}

#[test]
fn an_idle_stream_holds_nothing() {
    let mut parser = parser();
    let before = held();
    for piece in [1, 7, 100, 5000] {
        for bytes in MESSAGE.repeat(20).chunks(piece) {
            parser.push(Bytes::copy_from_slice(bytes));
            while parser.poll().expect("valid").is_some() {}
        }
        assert_eq!(held(), before, "in pieces of {piece}");
    }
}

#[test]
fn a_message_costs_no_allocation_and_its_rewriting_one() {
    let mut parser = parser();
    let before = allocations();
    parser.push(Bytes::from_static(MESSAGE));
    let Ok(Some(StreamEvent::Element(element))) = parser.poll() else {
        panic!("no element")
    };
    assert_eq!(allocations() - before, 0);
    let out = Rewrite::new(&element)
        .set("from", "romeo@montague.example/x")
        .cut(|c| c.name() == "active")
        .finish();
    assert_eq!(allocations() - before, 1);
    drop(out);
    let jid = xmpp::jid::FullJid::parse("juliet@capulet.example/balcony").expect("valid");
    assert_eq!(allocations() - before, 3 - 1);
    let _bare = jid.bare();
    assert_eq!(allocations() - before, 2);
}

#[test]
fn an_incomplete_element_pins_no_buffer() {
    let mut parser = parser();
    let before = held();
    let mut large = MESSAGE.repeat(5000);
    large.push(b'<');
    parser.push(Bytes::from(large));
    while parser.poll().expect("valid").is_some() {}
    assert!(held() - before < 2000, "{}", held() - before);
    // The rest of a large element that came in pieces.
    let large = format!("a>{}</a><", "x".repeat(200_000));
    let before = held();
    for bytes in large.as_bytes().chunks(10_000) {
        parser.push(Bytes::copy_from_slice(bytes));
        while parser.poll().expect("valid").is_some() {}
    }
    assert!(held() - before < 2000, "{}", held() - before);
}

#[test]
fn what_follows_the_end_or_an_error_is_dropped() {
    for last in ["</stream:stream>", "</wrong>"] {
        let mut parser = parser();
        let before = held();
        parser.push(Bytes::from_static(last.as_bytes()));
        let _ = parser.poll();
        for _ in 0..100 {
            parser.push(Bytes::from(vec![b' '; 10_000]));
            let _ = parser.poll();
        }
        assert!(held() - before <= 0, "{last}: {}", held() - before);
    }
}
