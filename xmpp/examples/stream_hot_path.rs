//! What one chat message costs in this crate: nanoseconds and heap allocations per message.
//!
//! `cargo run --release -p isthmus-xmpp --example stream_hot_path`

#![allow(unsafe_code, reason = "counting allocations needs a global allocator")]
#![allow(clippy::unwrap_used, reason = "a benchmark over fixed input")]

use bytes::Bytes;
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use xmpp::element::{ContentNs, Element};
use xmpp::jid::{BareJid, Jid};
use xmpp::stanza::Rewrite;
use xmpp::stream::{Limits, StreamEvent, StreamNamespaces, StreamParser};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGE: &str = "<message xmlns='jabber:client' to='juliet@capulet.example/balcony' id='0b2a3c4d-5e6f-7081' \
    type='chat' xml:lang='en'><body>Wherefore art thou, Romeo? Deny thy father &amp; refuse thy name;</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>";

const CYRILLIC: &str = "<message to='juliet@capulet.example/balcony' id='0b2a3c4d-5e6f-7081' type='chat'><body>\
    Отчего же ты Ромео? Отрекись от отца и откажись от имени своего навеки</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>";

fn measure(name: &str, mut work: impl FnMut()) {
    const TIMES: u64 = 200_000;
    let mut best = f64::MAX;
    let mut allocations = 0.0;
    for _ in 0..5 {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        for _ in 0..TIMES {
            work();
        }
        best = best.min(start.elapsed().as_nanos() as f64 / TIMES as f64);
        allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / TIMES as f64;
    }
    println!("{name:<52} {best:>7.0} ns  {allocations:>5.2} allocations");
}

fn parser() -> StreamParser {
    let mut parser = StreamParser::new(Limits::AFTER_LOGIN);
    parser.resume_after_header(StreamNamespaces::new(ContentNs::Client));
    parser
}

fn next(parser: &mut StreamParser) -> Element {
    match parser.poll().unwrap() {
        Some(StreamEvent::Element(element)) => element,
        other => panic!("{other:?}"),
    }
}

fn main() {
    println!(
        "message of {} bytes, {} bytes of Cyrillic",
        MESSAGE.len(),
        CYRILLIC.len()
    );
    println!(
        "size of parser {} bytes, of element {} bytes",
        size_of::<StreamParser>(),
        size_of::<Element>()
    );
    let message = Bytes::from_static(MESSAGE.as_bytes());

    let mut stream = parser();
    measure("tokenize, one message per read", || {
        stream.push(message.clone());
        black_box(next(&mut stream));
    });
    let batch = Bytes::from(MESSAGE.repeat(50));
    let mut left = 0;
    measure("tokenize, 50 messages per read", || {
        if left == 0 {
            stream.push(batch.clone());
            left = 50;
        }
        left -= 1;
        black_box(next(&mut stream));
    });
    let cyrillic = Bytes::from_static(CYRILLIC.as_bytes());
    measure("tokenize, Cyrillic", || {
        stream.push(cyrillic.clone());
        black_box(next(&mut stream));
    });
    let (first, second) = (message.slice(..150), message.slice(150..));
    measure("tokenize, in two pieces", || {
        stream.push(first.clone());
        assert!(stream.poll().unwrap().is_none());
        stream.push(second.clone());
        black_box(next(&mut stream));
    });
    stream.push(message.clone());
    let element = next(&mut stream);
    measure("attr(to), attr(type), attr(id), stanza_kind", || {
        black_box((
            element.attr("to"),
            element.attr("type"),
            element.attr("id"),
            element.stanza_kind(),
        ));
    });
    measure("children: is there a body, cut table", || {
        black_box(element.content_child("body").is_some());
        let reserved =
            |c| xmpp::stanza::is_reserved(xmpp::stanza::Direction::FromClient, &c, |_| true);
        black_box(element.children().any(reserved));
    });
    measure("rewrite: from set, one child appended", || {
        let id =
            b"<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='1234567890abc'/>";
        let rewrite = Rewrite::new(&element)
            .set("from", "romeo@montague.example/orchard")
            .append(id);
        black_box(rewrite.finish());
    });
    measure("Jid::parse, full ASCII", || {
        black_box(Jid::parse(black_box("juliet@capulet.example/balcony")).unwrap());
    });
    measure("BareJid::parse, upper case", || {
        black_box(BareJid::parse(black_box("Juliet@Capulet.example")).unwrap());
    });
    measure("BareJid::parse, not ASCII", || {
        black_box(BareJid::parse(black_box("джульетта@пример.рф")).unwrap());
    });
    let jid = Jid::parse("juliet@capulet.example/balcony").unwrap();
    measure("Jid::bare", || {
        black_box(jid.bare());
    });
    measure("tree", || {
        black_box(element.tree());
    });
    measure("all for one message: tokenize, jid, cut, rewrite", || {
        stream.push(message.clone());
        let element = next(&mut stream);
        let to = element.attr("to").map(|to| Jid::parse(&to));
        let rewrite = Rewrite::new(&element)
            .set("from", "romeo@montague.example/orchard")
            .cut(|c| xmpp::stanza::is_reserved(xmpp::stanza::Direction::FromClient, c, |_| true));
        black_box((to, rewrite.finish()));
    });
}
