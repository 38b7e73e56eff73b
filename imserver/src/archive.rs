//! Reading an archive, XEP-0313: a question in, a page out.
//!
//! In: what a client asks, and a reader of the store. Out: the page, with as much as may be sent at once; the stanzas for it.
//! Owns: what a page is.
//! Never: reads without a bound; reads the archive of anybody but the owner of the question.
//!
//! A page may be shorter than was asked for (RSM §2.1): no more is read than the client's output window has room for. It then
//! asks for the next, as it would anyway.

pub mod prefs;
pub mod text;

use crate::routing::stamp;
use bytes::Bytes;
use store::{ArchiveQuery, PositionKey, Reader, StoreError, StoredRow};
use xmpp::element::Element;
use xmpp::jid::{BareJid, FullJid, Jid};
use xmpp::node::{Node, escape_into};
use xmpp::ns;
use xmpp::stanza::Rewrite;

/// Rows looked at for a page of the messages with one resource: the index knows accounts only. Some megabytes, some 20 ms.
const SCANNED_MAX: usize = 10_000;

/// Rows read at a time for that.
const SCAN_PAGE: usize = 250;

/// Rows read at a time for that if they must have certain words: each time these are looked up anew.
const SCAN_PAGE_OF_WORDS: usize = 2_500;

/// Bytes read at a time for that, one row more at most.
const SCAN_BYTES: usize = 16 << 20;

/// What a row grows by when it is wrapped, about.
const WRAPPING_BYTES: usize = 512;

/// What a client wants to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// Whose archive.
    pub owner: BareJid,
    /// Messages with this account, or with this resource of it.
    pub with: Option<Jid>,
    /// Messages with these words.
    pub text: Option<String>,
    /// Not older than this.
    pub start_ms: Option<u64>,
    /// Not newer.
    pub end_ms: Option<u64>,
    /// Behind all of these: ids, later positions.
    pub after: Vec<u64>,
    /// Before all of these.
    pub before: Vec<u64>,
    /// These and no others.
    pub ids: Vec<u64>,
    /// The last page, not the first.
    pub last: bool,
    /// Rows.
    pub limit: usize,
    /// Bytes of stanzas, or one row.
    pub bytes_max: usize,
    /// In the page, the newest first.
    pub flip: bool,
    /// To be repeated in every result.
    pub queryid: Option<String>,
}

impl Ask {
    /// Everything, from the beginning.
    pub fn new(owner: BareJid, limit: usize) -> Self {
        Self {
            owner,
            with: None,
            text: None,
            start_ms: None,
            end_ms: None,
            after: Vec::new(),
            before: Vec::new(),
            ids: Vec::new(),
            last: false,
            limit,
            bytes_max: usize::MAX,
            flip: false,
            queryid: None,
        }
    }

    /// Turns ids into positions.
    pub fn decode(&mut self, key: &PositionKey) {
        let ids = [&mut self.after, &mut self.before, &mut self.ids];
        for id in ids.into_iter().flatten() {
            *id = key.decode(*id);
        }
    }

    /// It is of a client that brings its copy of the archive up to date, and knows that there is more where it stops.
    fn synchronises(&self) -> bool {
        self.with.is_none()
            && self.text.is_none()
            && self.end_ms.is_none()
            && self.before.is_empty()
            && self.ids.is_empty()
    }
}

/// What has come of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// A page.
    Page(Page),
    /// One of the ids is in no archive of the owner's.
    NotFound,
    /// More would have to be looked at than may be.
    TooMuch,
    /// The first and the last row.
    Ends(Option<Box<(StoredRow, StoredRow)>>),
}

/// A page.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Ascending.
    pub rows: Vec<StoredRow>,
    /// There is nothing behind (or before) them.
    pub complete: bool,
    /// A client that has this page has, or knows how to get, everything archived up to here.
    pub read_up_to: Option<u64>,
}

/// Reads a page. Ids are positions already.
pub fn read(reader: &mut dyn Reader, ask: &Ask) -> Result<Answer, StoreError> {
    let mut there = |position: u64| -> Result<Option<StoredRow>, StoreError> {
        let row = reader.row(&ask.owner, position)?;
        Ok(row.filter(|row| row.archive))
    };
    for &position in ask.after.iter().chain(&ask.before) {
        if there(position)?.is_none() {
            return Ok(Answer::NotFound);
        }
    }
    if !ask.ids.is_empty() {
        let mut positions = ask.ids.clone();
        positions.sort_unstable();
        positions.dedup();
        let mut rows = Vec::new();
        for position in positions {
            match there(position)? {
                Some(row) => rows.push(row),
                None => return Ok(Answer::NotFound),
            }
        }
        rows.retain(|row| matches(row, ask.with.as_ref()));
        return Ok(Answer::Page(bounded(rows, ask)));
    }
    let mut query = ArchiveQuery {
        owner: ask.owner.clone(),
        peer: ask.with.as_ref().map(Jid::bare),
        text: ask.text.clone(),
        start_ms: ask.start_ms,
        end_ms: ask.end_ms,
        after: ask.after.iter().copied().max(),
        before: ask.before.iter().copied().min(),
        last: ask.last,
        limit: ask.limit,
    };
    let mut page = match ask.with.as_ref().filter(|w| w.resourcepart().is_some()) {
        None => {
            let page = reader.archive_page(&query, ask.bytes_max)?;
            if page.rows.is_empty() && !page.complete && ask.limit > 0 {
                return Ok(Answer::TooMuch);
            }
            Page {
                rows: page.rows,
                complete: page.complete,
                read_up_to: None,
            }
        }
        Some(with) => match scan(reader, &mut query, with, ask)? {
            Some(page) => page,
            None => return Ok(Answer::TooMuch),
        },
    };
    if ask.synchronises() && (page.complete || ask.last) {
        let last = page.rows.last().map(|row| row.position);
        page.read_up_to = last.or(query.after);
    }
    Ok(Answer::Page(page))
}

/// Rows of one resource. `None`: there are too many others.
fn scan(
    reader: &mut dyn Reader,
    query: &mut ArchiveQuery,
    with: &Jid,
    ask: &Ask,
) -> Result<Option<Page>, StoreError> {
    query.limit = match query.text {
        Some(_) => SCAN_PAGE_OF_WORDS,
        None => SCAN_PAGE,
    };
    let mut page = Page::default();
    let (mut scanned, mut bytes) = (0, 0);
    'pages: while scanned < SCANNED_MAX {
        let read = reader.archive_page(query, SCAN_BYTES)?;
        scanned += read.rows.len();
        if read.rows.is_empty() && !read.complete {
            // More with the words wanted than the store looks at.
            break;
        }
        let ends = (read.rows.first(), read.rows.last());
        if let (Some(first), Some(last)) = ends {
            match query.last {
                true => query.before = Some(first.position),
                false => query.after = Some(last.position),
            }
        }
        let mut rows = read.rows;
        if query.last {
            rows.reverse();
        }
        for row in rows.into_iter().filter(|row| matches(row, Some(with))) {
            bytes += row.payload.len();
            let full = page.rows.len() >= ask.limit;
            if full || bytes > ask.bytes_max && !page.rows.is_empty() {
                break 'pages;
            }
            page.rows.push(row);
        }
        if read.complete {
            page.complete = true;
            break;
        }
    }
    if query.last {
        page.rows.reverse();
    }
    let found = page.complete || !page.rows.is_empty();
    Ok(found.then_some(page))
}

/// As much of it as may be sent.
fn bounded(mut rows: Vec<StoredRow>, ask: &Ask) -> Page {
    let all = rows.len();
    let mut bytes = 0;
    let fits = rows.iter().enumerate().take_while(|(n, row)| {
        bytes += row.payload.len();
        *n < ask.limit && (bytes <= ask.bytes_max || *n == 0)
    });
    let fit = fits.count();
    rows.truncate(fit);
    Page {
        complete: fit == all,
        rows,
        read_up_to: None,
    }
}

/// XEP-0313 §4.1.1: with this account, or, if it has a resource, to or from exactly this address.
fn matches(row: &StoredRow, with: Option<&Jid>) -> bool {
    let Some(with) = with else { return true };
    if with.resourcepart().is_none() {
        return row.peer.as_str() == with.as_str();
    }
    let Ok(element) = Element::parse(row.payload.clone()) else {
        return false;
    };
    ["from", "to"].into_iter().any(|name| {
        let address = element.attr(name).and_then(|a| Jid::parse(&a).ok());
        address.is_some_and(|a| a.as_str() == with.as_str())
    })
}

/// First and last row.
pub fn ends(reader: &mut dyn Reader, owner: &BareJid) -> Result<Answer, StoreError> {
    let mut query = ArchiveQuery::new(owner.clone(), 1);
    let first = reader.archive(&query)?.pop();
    query.last = true;
    let last = reader.archive(&query)?.pop();
    Ok(Answer::Ends(first.zip(last).map(Box::new)))
}

/// An id as clients see it.
pub fn id(key: &PositionKey, position: u64) -> String {
    format!("{:016x}", key.encode(position))
}

/// §4.2: a row as it goes out. `None`: it cannot be read.
pub fn result(key: &PositionKey, ask: &Ask, to: &FullJid, row: &StoredRow) -> Option<Bytes> {
    let element = Element::parse(row.payload.clone()).ok()?;
    let inner = Rewrite::new(&element).with_content_ns(ns::CLIENT).finish();
    let mut out = Vec::with_capacity(inner.len() + WRAPPING_BYTES);
    out.extend_from_slice(b"<message from='");
    escape_into(&mut out, ask.owner.as_str());
    out.extend_from_slice(b"' to='");
    escape_into(&mut out, to.as_str());
    out.extend_from_slice(b"'><result xmlns='urn:xmpp:mam:2'");
    if let Some(queryid) = &ask.queryid {
        out.extend_from_slice(b" queryid='");
        escape_into(&mut out, queryid);
        out.push(b'\'');
    }
    let rest = format!(
        " id='{}'><forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='{}'/>",
        id(key, row.position),
        stamp(row.time_ms),
    );
    out.extend_from_slice(rest.as_bytes());
    out.extend_from_slice(&inner);
    out.extend_from_slice(b"</forwarded></result></message>");
    Some(out.into())
}

/// §4.2: what ends a page. `first` and `last` are positions.
pub fn fin(key: &PositionKey, ends: Option<(u64, u64)>, complete: bool) -> Node {
    let mut set = Node::new("set", ns::RSM);
    if let Some((first, last)) = ends {
        set = set
            .with_child(Node::new("first", ns::RSM).with_text(id(key, first)))
            .with_child(Node::new("last", ns::RSM).with_text(id(key, last)));
    }
    Node::new("fin", ns::MAM)
        .with_attr_opt("complete", complete.then_some("true"))
        .with_child(set)
}

/// §6: first and last of an archive.
pub fn metadata(key: &PositionKey, ends: Option<&(StoredRow, StoredRow)>) -> Node {
    let end = |name: &'static str, row: &StoredRow| {
        Node::new(name, ns::MAM)
            .with_attr("id", id(key, row.position))
            .with_attr("timestamp", stamp(row.time_ms))
    };
    let node = Node::new("metadata", ns::MAM);
    match ends {
        Some((first, last)) => node
            .with_child(end("start", first))
            .with_child(end("end", last)),
        None => node,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::model::Model;
    use store::{Append, Engine as _, Write, Written};

    fn owner() -> BareJid {
        BareJid::parse("j@x.example").expect("a JID")
    }

    /// Ten messages, the odd ones sent; of romeo the even resource has two thirds.
    fn archive() -> (Box<dyn Reader>, Vec<u64>) {
        let model = Model::new();
        let mut writer = model.writer().expect("nobody has it");
        let rows: Vec<Write> = (0..10_u64)
            .map(|n| {
                let romeo = if n % 3 == 0 {
                    "r@x.example/odd"
                } else {
                    "r@x.example/even"
                };
                let (from, to) = match n % 2 {
                    0 => (romeo, "j@x.example"),
                    _ => ("j@x.example/b", romeo),
                };
                let payload =
                    format!("<message from='{from}' to='{to}'><body>{n}</body></message>");
                Write::Append(Append {
                    owner: owner(),
                    peer: BareJid::parse("r@x.example").expect("a JID"),
                    origin: None,
                    archive: true,
                    pending: false,
                    time_ms: 1_000 + n,
                    outgoing: n % 2 == 1,
                    payload: payload.into(),
                    text: None,
                })
            })
            .collect();
        let written = writer.commit(&rows).expect("the model takes everything");
        let position = |w: &Written| match w {
            Written::Stored { position } => *position,
            other => panic!("{other:?}"),
        };
        let positions = written.iter().map(position).collect();
        (model.reader().expect("the model has readers"), positions)
    }

    fn bodies(answer: &Answer) -> (String, bool, Option<u64>) {
        let Answer::Page(page) = answer else {
            panic!("{answer:?}");
        };
        let body = |row: &StoredRow| {
            let element = Element::parse(row.payload.clone()).expect("well-formed");
            let body = element.content_child("body").expect("a body");
            body.text().into_owned()
        };
        (
            page.rows.iter().map(body).collect(),
            page.complete,
            page.read_up_to,
        )
    }

    #[test]
    fn pages_are_what_was_asked_for() {
        let (mut reader, at) = archive();
        let all = Ask::new(owner(), 4);
        let with = |text: &str| Some(Jid::parse(text).expect("a JID"));
        for (what, ask, want, complete, read) in [
            ("the first", all.clone(), "0123", false, None),
            (
                "the last",
                Ask {
                    last: true,
                    ..all.clone()
                },
                "6789",
                false,
                Some(at[9]),
            ),
            (
                "the rest",
                Ask {
                    after: vec![at[7]],
                    ..all.clone()
                },
                "89",
                true,
                Some(at[9]),
            ),
            (
                "nothing left",
                Ask {
                    after: vec![at[9]],
                    ..all.clone()
                },
                "",
                true,
                Some(at[9]),
            ),
            (
                "before",
                Ask {
                    before: vec![at[2]],
                    last: true,
                    ..all.clone()
                },
                "01",
                true,
                None,
            ),
            (
                "between",
                Ask {
                    after: vec![at[1], at[3]],
                    before: vec![at[8], at[6]],
                    ..all.clone()
                },
                "45",
                true,
                None,
            ),
            (
                "reversed",
                Ask {
                    after: vec![at[6]],
                    before: vec![at[3]],
                    ..all.clone()
                },
                "",
                true,
                None,
            ),
            (
                "times",
                Ask {
                    start_ms: Some(1_003),
                    end_ms: Some(1_005),
                    ..all.clone()
                },
                "345",
                true,
                None,
            ),
            (
                "from a time",
                Ask {
                    start_ms: Some(1_008),
                    ..all.clone()
                },
                "89",
                true,
                Some(at[9]),
            ),
            (
                "reversed times",
                Ask {
                    start_ms: Some(1_005),
                    end_ms: Some(1_003),
                    ..all.clone()
                },
                "",
                true,
                None,
            ),
            (
                "with",
                Ask {
                    with: with("r@x.example"),
                    ..all.clone()
                },
                "0123",
                false,
                None,
            ),
            (
                "with a resource",
                Ask {
                    with: with("r@x.example/odd"),
                    ..all.clone()
                },
                "0369",
                true,
                None,
            ),
            (
                "and the last",
                Ask {
                    with: with("r@x.example/even"),
                    last: true,
                    limit: 3,
                    ..all.clone()
                },
                "578",
                false,
                None,
            ),
            (
                "with nobody",
                Ask {
                    with: with("n@x.example"),
                    ..all.clone()
                },
                "",
                true,
                None,
            ),
            (
                "ids",
                Ask {
                    ids: vec![at[5], at[1], at[5]],
                    ..all.clone()
                },
                "15",
                true,
                None,
            ),
            (
                "few bytes",
                Ask {
                    bytes_max: 1,
                    ..all.clone()
                },
                "0",
                false,
                None,
            ),
            (
                "few bytes of ids",
                Ask {
                    bytes_max: 1,
                    ids: vec![at[5], at[1]],
                    ..all.clone()
                },
                "1",
                false,
                None,
            ),
            (
                "none",
                Ask {
                    limit: 0,
                    ..all.clone()
                },
                "",
                false,
                None,
            ),
        ] {
            let got = read_(&mut *reader, &ask);
            assert_eq!(bodies(&got), (want.to_owned(), complete, read), "{what}");
        }
        for ask in [
            Ask {
                after: vec![77],
                ..all.clone()
            },
            Ask {
                before: vec![0],
                last: true,
                ..all.clone()
            },
            Ask {
                ids: vec![at[1], u64::MAX],
                ..all.clone()
            },
            Ask {
                after: vec![at[1]],
                ..Ask::new(BareJid::parse("r@x.example").expect("a JID"), 4)
            },
        ] {
            assert_eq!(read_(&mut *reader, &ask), Answer::NotFound, "{ask:?}");
        }
    }

    fn read_(reader: &mut dyn Reader, ask: &Ask) -> Answer {
        read(reader, ask).expect("the model reads")
    }
}
