//! Whose pages are read when.

use super::groups::{Office, key};
use super::*;
use crate::archive::prefs::ByDefault;
use crate::archive::{Answer, Page};
use crate::settings::ArchiveDomain;
use proto::frame::Input;

const ANN: usize = 0;
const BOB: usize = 1;

fn ask(office: &mut Office, who: usize, id: &str) {
    let xml = format!(
        "<iq xmlns='jabber:client' type='set' id='{id}'><query xmlns='urn:xmpp:mam:2'/></iq>"
    );
    let input = Input {
        bytes: xml.into(),
        message_end: false,
    };
    office.shard.handle(NOW, Event::Input(key(who), input));
}

/// The questions that go to readers of archives now.
fn reads(office: &mut Office) -> Vec<ReadTag> {
    let effects = office.shard.flush(NOW);
    let of_archives = effects
        .reads
        .into_iter()
        .filter(|(_, read)| matches!(read, Read::Archive(_)));
    of_archives.map(|(tag, _)| tag).collect()
}

fn answer(office: &mut Office, tag: ReadTag) {
    let page = ReadResult::Archive(Answer::Page(Page::default()));
    office.shard.handle(NOW, Event::Read(tag, page));
}

#[test]
fn a_session_has_one_page_read_at_a_time() {
    let settings = Settings {
        archive_domains: vec![ArchiveDomain {
            name: "localhost".into(),
            default: ByDefault::Always,
            search: false,
        }],
        ..Settings::default()
    };
    let mut office = Office::new(&[], settings);
    for id in ["a1", "a2", "a3"] {
        ask(&mut office, ANN, id);
    }
    let first = reads(&mut office);
    assert_eq!(first.len(), 1, "{first:?}");
    ask(&mut office, BOB, "b1");
    let bobs = reads(&mut office);
    assert_eq!(bobs.len(), 1, "others do not wait for her");
    for tag in bobs.into_iter().chain(first) {
        answer(&mut office, tag);
    }
    let second = reads(&mut office);
    assert_eq!(second.len(), 1, "her next one");
    // A reader that fails is an answer as well.
    for tag in second {
        let failed = ReadResult::Failed("the disk".into());
        office.shard.handle(NOW, Event::Read(tag, failed));
    }
    let third = reads(&mut office);
    assert_eq!(third.len(), 1);
    for tag in third {
        answer(&mut office, tag);
    }
    assert_eq!(reads(&mut office), []);
}
