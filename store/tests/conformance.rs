//! What every engine must do: one list of tests, run on the model and on SQLite.

#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{Fixture, OnDisk, OnDiskFolded, OnModel, append, jid, keys, message, origin, stored};
use store::model::Model;
use store::{
    Account, Append, ArchiveQuery, LoginToken, PutMode, Reader, RosterItem, StoreError, StoredRow,
    Subscription, Text, TokenChange, Write, WriteError, Written,
};
use xmpp::jid::{BareJid, Jid};
use xmpp::sasl::{ClientId, TokenMechanism};
use xmpp::scram::{ScramHash, ScramKeys};

macro_rules! conformance {
    ($($name:ident)*) => {
        mod on_model { $(#[test] fn $name() { super::$name(&mut super::OnModel(super::Model::new())); })* }
        mod on_disk_folded { $(#[test] fn $name() { super::$name(&mut super::OnDiskFolded::new()); })* }
        mod on_disk { $(#[test] fn $name() { super::$name(&mut super::OnDisk::new()); })* }
    };
}

conformance! {
    messages_are_pending_until_acknowledged
    pending_is_paged_in_order
    pending_pages_are_bounded_in_bytes
    archived_rows_stay_after_acknowledgement
    archive_is_paged_both_ways_and_filtered
    archive_pages_are_bounded_in_bytes_and_say_whether_there_is_more
    archive_by_time_does_not_trust_the_clock
    nobody_clears_the_marks_of_another
    dropped_rows_are_gone
    a_replay_is_answered_as_the_first_time
    origins_outlive_their_rows_and_restarts
    forgotten_origins_are_stored_anew
    an_origin_with_other_bytes_is_a_new_stanza
    a_stanza_to_two_owners_is_two_rows
    positions_are_never_used_again
    rosters_keep_items_and_versions
    requests_and_vcards_are_kept_and_removed
    private_elements_are_kept_and_bounded
    archived_rows_are_found_by_their_words
    wishes_about_the_archive_come_with_the_user
    a_blocking_list_is_kept_and_goes_with_its_account
    push_services_are_kept_and_go_with_their_account
    tokens_are_given_used_and_revoked
    a_token_does_not_outlive_what_it_was_granted_for
    nodes_keep_the_newest_items_and_are_bounded
    items_are_read_in_pages
    accounts_are_created_changed_and_deleted
    keys_are_added_beside_those_of_the_same_password
    accounts_are_listed_in_pages
    writes_of_a_batch_see_each_other
    identity_survives_and_epochs_grow
    session_records_survive_a_kill
    the_writer_is_given_out_once
    overlays_are_kept_without_an_account
    activity_is_kept_of_anybody_until_the_account_goes
    values_of_the_site_are_kept
    disabled_accounts_are_counted_and_listed
    counts_follow
    an_empty_batch_does_nothing
}

fn payloads(rows: &[StoredRow]) -> Vec<&str> {
    rows.iter()
        .map(|row| std::str::from_utf8(&row.payload).unwrap())
        .collect()
}

fn pending(reader: &mut dyn Reader, owner: &str) -> Vec<String> {
    let rows = reader.pending(&jid(owner), 0, 1_000).unwrap();
    payloads(&rows).into_iter().map(str::to_owned).collect()
}

fn ack(owner: &str, positions: &[u64]) -> Write {
    Write::Ack {
        owner: jid(owner),
        positions: positions.to_vec(),
    }
}

fn messages_are_pending_until_acknowledged(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let first = Append {
        origin: origin(7, 1),
        outgoing: true,
        ..message("a@x.example", "<m1/>")
    };
    let positions: Vec<u64> = writer
        .commit(&[
            Write::Append(first.clone()),
            Write::Append(message("b@x.example", "<m2/>")),
            Write::Append(message("a@x.example", "<m3/>")),
        ])
        .unwrap()
        .iter()
        .map(stored)
        .collect();
    let rows = reader.pending(&jid("a@x.example"), 0, 10).unwrap();
    let expected = StoredRow {
        position: positions[0],
        peer: first.peer.clone(),
        time_ms: first.time_ms,
        outgoing: true,
        archive: false,
        pending: true,
        origin: first.origin,
        payload: first.payload.clone(),
    };
    assert_eq!(rows[0], expected);
    assert_eq!(payloads(&rows), ["<m1/>", "<m3/>"]);
    assert_eq!(
        reader.row(&jid("a@x.example"), positions[0]).unwrap(),
        Some(expected)
    );
    assert_eq!(reader.row(&jid("b@x.example"), positions[0]).unwrap(), None);
    assert_eq!(
        writer
            .commit(&[ack("a@x.example", &[positions[0], 999_999])])
            .unwrap(),
        [Written::Done]
    );
    assert_eq!(pending(&mut *reader, "a@x.example"), ["<m3/>"]);
    assert_eq!(reader.row(&jid("a@x.example"), positions[0]).unwrap(), None);
    drop((writer, reader));
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(pending(&mut *reader, "a@x.example"), ["<m3/>"]);
    assert_eq!(pending(&mut *reader, "b@x.example"), ["<m2/>"]);
    drop(reader);
    store.restart_rebuilt();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(pending(&mut *reader, "a@x.example"), ["<m3/>"]);
    assert_eq!(
        pending(&mut *reader, "nobody@x.example"),
        Vec::<String>::new()
    );
}

fn pending_is_paged_in_order(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    for batch in 0..10 {
        let writes: Vec<Write> = (0..50)
            .map(|n| Write::Append(message("a@x.example", &format!("{}", batch * 50 + n))))
            .collect();
        writer.commit(&writes).unwrap();
    }
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let page = reader.pending(&jid("a@x.example"), after, 33).unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() == 33 || seen.len() + page.len() == 500);
        after = last.position;
        seen.extend(
            payloads(&page)
                .into_iter()
                .map(|text| text.parse::<u32>().unwrap()),
        );
    }
    assert_eq!(seen, (0..500).collect::<Vec<_>>());
    assert_eq!(reader.pending(&jid("a@x.example"), 0, 0).unwrap(), []);
    assert_eq!(
        reader.pending(&jid("a@x.example"), u64::MAX, 5).unwrap(),
        []
    );
}

fn pending_pages_are_bounded_in_bytes(store: &mut dyn Fixture) {
    let owner = jid("a@x.example");
    let long = |n: usize| format!("<m{n}>{}</m{n}>", "x".repeat(n * 1_000));
    let mut writer = store.engine().writer().unwrap();
    let writes: Vec<Write> = [1, 2, 3, 40, 5]
        .into_iter()
        .map(|n| Write::Append(message("a@x.example", &long(n))))
        .collect();
    let positions: Vec<u64> = writer.commit(&writes).unwrap().iter().map(stored).collect();
    let mut reader = store.engine().reader().unwrap();
    // After a position, at most so many rows and bytes: which rows come, and whether they are the last.
    for (after, limit, bytes_max, rows, complete) in [
        (0, 10, usize::MAX, 0..5, true),
        (0, 5, usize::MAX, 0..5, true),
        (0, 4, usize::MAX, 0..4, false),
        (0, 10, 7_000, 0..3, false),
        (0, 2, 7_000, 0..2, false),
        (0, 10, 0, 0..1, false),
        (positions[2], 10, 7_000, 3..4, false),
        (positions[3], 10, 0, 4..5, true),
        (positions[4], 10, 0, 5..5, true),
    ] {
        let page = reader
            .pending_page(&owner, after, limit, bytes_max)
            .unwrap();
        let found: Vec<u64> = page.rows.iter().map(|row| row.position).collect();
        let what = format!("{after} {limit} {bytes_max}");
        assert_eq!(found, positions[rows], "{what}");
        assert_eq!(page.complete, complete, "{what}");
    }
    let bytes = |reader: &mut dyn Reader| reader.user_data(&owner).unwrap().pending_bytes;
    assert!((51_000..53_000).contains(&bytes(reader.as_mut())));
    writer
        .commit(&[ack("a@x.example", &positions[3..4])])
        .unwrap();
    assert!((11_000..13_000).contains(&bytes(reader.as_mut())));
}

fn archived(owner: &str, peer: &str, time_ms: u64, payload: &str) -> Append {
    Append {
        peer: jid(peer),
        archive: true,
        time_ms,
        ..message(owner, payload)
    }
}

fn archived_rows_stay_after_acknowledgement(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let position = stored(&append(
        &mut *writer,
        archived("a@x.example", "p@x.example", 5, "<kept/>"),
    ));
    writer.commit(&[ack("a@x.example", &[position])]).unwrap();
    drop(writer);
    for rebuilt in [false, true, false] {
        let mut reader = store.engine().reader().unwrap();
        assert_eq!(pending(&mut *reader, "a@x.example"), Vec::<String>::new());
        let rows = reader
            .archive(&ArchiveQuery::new(jid("a@x.example"), 10))
            .unwrap();
        assert_eq!(payloads(&rows), ["<kept/>"]);
        assert!(rows[0].archive && !rows[0].pending);
        assert!(reader.row(&jid("a@x.example"), position).unwrap().is_some());
        drop(reader);
        if rebuilt {
            store.restart_rebuilt()
        } else {
            store.restart()
        }
    }
}

fn archive_is_paged_both_ways_and_filtered(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let writes: Vec<Write> = (0..100_u64)
        .map(|n| {
            let peer = if n % 3 == 0 {
                "three@x.example"
            } else {
                "other@x.example"
            };
            let owner = if n % 10 == 9 {
                "b@x.example"
            } else {
                "a@x.example"
            };
            Write::Append(archived(owner, peer, 1_000 + n, &n.to_string()))
        })
        .collect();
    let positions: Vec<u64> = writer.commit(&writes).unwrap().iter().map(stored).collect();
    let all = ArchiveQuery::new(jid("a@x.example"), 1_000);
    let mut numbers = |query: &ArchiveQuery| -> Vec<u64> {
        let rows = reader.archive(query).unwrap();
        payloads(&rows)
            .into_iter()
            .map(|text| text.parse().unwrap())
            .collect()
    };
    assert_eq!(
        numbers(&all),
        (0..100).filter(|n| n % 10 != 9).collect::<Vec<_>>()
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            limit: 3,
            ..all.clone()
        }),
        [0, 1, 2]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            limit: 3,
            last: true,
            ..all.clone()
        }),
        [96, 97, 98]
    );
    let after = Some(positions[50]);
    assert_eq!(
        numbers(&ArchiveQuery {
            limit: 3,
            after,
            ..all.clone()
        }),
        [51, 52, 53]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            limit: 3,
            before: after,
            last: true,
            ..all.clone()
        }),
        [46, 47, 48]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            after,
            before: Some(positions[55]),
            ..all.clone()
        }),
        [51, 52, 53, 54]
    );
    let peer = Some(jid("three@x.example"));
    assert_eq!(
        numbers(&ArchiveQuery {
            peer: peer.clone(),
            limit: 4,
            ..all.clone()
        }),
        [0, 3, 6, 12]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            peer,
            limit: 2,
            last: true,
            end_ms: Some(1_050),
            ..all.clone()
        }),
        [45, 48]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            start_ms: Some(1_010),
            end_ms: Some(1_012),
            ..all.clone()
        }),
        [10, 11, 12]
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            peer: Some(jid("nobody@x.example")),
            ..all.clone()
        }),
        []
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            after: Some(u64::MAX),
            ..all.clone()
        }),
        []
    );
    assert_eq!(
        numbers(&ArchiveQuery {
            before: Some(0),
            last: true,
            ..all
        }),
        []
    );
}

fn archive_pages_are_bounded_in_bytes_and_say_whether_there_is_more(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    for n in 0..10 {
        let row = archived("a@x.example", "p@x.example", n, &format!("<row{n}/>"));
        append(&mut *writer, row);
    }
    for (limit, bytes_max, last, want, complete) in [
        (10, usize::MAX, false, "0123456789", true),
        (9, usize::MAX, false, "012345678", false),
        (9, usize::MAX, true, "123456789", false),
        (10, usize::MAX, true, "0123456789", true),
        (10, 21, false, "012", false),
        (10, 21, true, "789", false),
        (10, 1, false, "0", false),
        (10, 1, true, "9", false),
        (0, usize::MAX, false, "", false),
    ] {
        let query = ArchiveQuery {
            last,
            ..ArchiveQuery::new(jid("a@x.example"), limit)
        };
        let page = reader.archive_page(&query, bytes_max).unwrap();
        let got: String = payloads(&page.rows)
            .iter()
            .map(|p| p.trim_matches(|c: char| !c.is_ascii_digit()))
            .collect();
        assert_eq!(
            (got.as_str(), page.complete),
            (want, complete),
            "{limit} {bytes_max} {last}"
        );
    }
    let nothing = ArchiveQuery::new(jid("b@x.example"), 5);
    assert!(reader.archive_page(&nothing, 1).unwrap().complete);
}

fn archive_by_time_does_not_trust_the_clock(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    // The clock is a year ahead for a while, and then behind.
    let times = [100, 200, 31_000_000_000, 31_000_000_001, 50, 300, 300, 400];
    for time in times {
        let row = archived("a@x.example", "p@x.example", time, &time.to_string());
        append(&mut *writer, row);
    }
    for (start, end, last, want) in [
        (Some(200), Some(300), false, vec![200, 300, 300]),
        (Some(200), Some(300), true, vec![200, 300, 300]),
        (
            Some(31_000_000_000),
            None,
            false,
            vec![31_000_000_000, 31_000_000_001],
        ),
        (None, Some(100), false, vec![100, 50]),
        (Some(300), Some(200), false, vec![]),
        (Some(500), Some(600), true, vec![]),
    ] {
        let query = ArchiveQuery {
            start_ms: start,
            end_ms: end,
            last,
            ..ArchiveQuery::new(jid("a@x.example"), 10)
        };
        let rows = reader.archive(&query).unwrap();
        let got: Vec<u64> = rows.iter().map(|row| row.time_ms).collect();
        assert_eq!(got, want, "{start:?} {end:?} {last}");
    }
}

fn nobody_clears_the_marks_of_another(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let position = stored(&append(&mut *writer, message("a@x.example", "<mine/>")));
    writer.commit(&[ack("b@x.example", &[position])]).unwrap();
    writer
        .commit(&[Write::Drop {
            owner: jid("b@x.example"),
            positions: vec![position],
        }])
        .unwrap();
    assert_eq!(pending(&mut *reader, "a@x.example"), ["<mine/>"]);
    drop((writer, reader));
    store.restart_rebuilt();
    assert_eq!(
        pending(&mut *store.engine().reader().unwrap(), "a@x.example"),
        ["<mine/>"]
    );
}

fn dropped_rows_are_gone(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let one = stored(&append(
        &mut *writer,
        archived("a@x.example", "p@x.example", 1, "<one/>"),
    ));
    let two = stored(&append(
        &mut *writer,
        archived("a@x.example", "p@x.example", 2, "<two/>"),
    ));
    writer.commit(&[ack("a@x.example", &[one])]).unwrap();
    writer
        .commit(&[Write::Drop {
            owner: jid("a@x.example"),
            positions: vec![one],
        }])
        .unwrap();
    drop(writer);
    for _ in 0..2 {
        let mut reader = store.engine().reader().unwrap();
        let rows = reader
            .archive(&ArchiveQuery::new(jid("a@x.example"), 10))
            .unwrap();
        assert_eq!(payloads(&rows), ["<two/>"]);
        assert_eq!(reader.row(&jid("a@x.example"), one).unwrap(), None);
        assert!(reader.row(&jid("a@x.example"), two).unwrap().is_some());
        drop(reader);
        store.restart_rebuilt();
    }
}

fn a_replay_is_answered_as_the_first_time(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let first = Append {
        origin: origin(1, 1),
        ..message("a@x.example", "<m/>")
    };
    let position = stored(&append(&mut *writer, first.clone()));
    assert_eq!(
        append(&mut *writer, first.clone()),
        Written::Replayed {
            position,
            pending: true
        }
    );
    let both = writer
        .commit(&[Write::Append(first.clone()), Write::Append(first.clone())])
        .unwrap();
    assert_eq!(
        both,
        vec![
            Written::Replayed {
                position,
                pending: true
            };
            2
        ]
    );
    writer.commit(&[ack("a@x.example", &[position])]).unwrap();
    assert_eq!(
        append(&mut *writer, first),
        Written::Replayed {
            position,
            pending: false
        }
    );
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(reader.pending(&jid("a@x.example"), 0, 10).unwrap(), []);
}

fn origins_outlive_their_rows_and_restarts(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let unmarked = Append {
        origin: origin(1, 1),
        pending: false,
        ..message("a@x.example", "<none/>")
    };
    let done = Append {
        origin: origin(1, 2),
        ..message("a@x.example", "<done/>")
    };
    let open = Append {
        origin: origin(1, 3),
        ..message("a@x.example", "<open/>")
    };
    let appends = [unmarked, done, open];
    let written = writer.commit(&appends.clone().map(Write::Append)).unwrap();
    let positions: Vec<u64> = written.iter().map(stored).collect();
    writer
        .commit(&[ack("a@x.example", &[positions[1]])])
        .unwrap();
    drop(writer);
    for rebuilt in [false, true] {
        if rebuilt {
            store.restart_rebuilt()
        } else {
            store.restart()
        }
        let mut writer = store.engine().writer().unwrap();
        let answers = writer.commit(&appends.clone().map(Write::Append)).unwrap();
        for (n, answer) in answers.iter().enumerate() {
            assert_eq!(
                *answer,
                Written::Replayed {
                    position: positions[n],
                    pending: n == 2
                }
            );
        }
        let mut reader = store.engine().reader().unwrap();
        assert_eq!(pending(&mut *reader, "a@x.example"), ["<open/>"]);
    }
}

fn forgotten_origins_are_stored_anew(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let at = |session, stanza| Append {
        origin: origin(session, stanza),
        ..message("a@x.example", "<m/>")
    };
    for (session, stanza) in [(1, 1), (1, 2), (2, 1), (3, 1)] {
        append(&mut *writer, at(session, stanza));
    }
    writer
        .commit(&[
            Write::ForgetOrigins {
                session: 1,
                up_to_stanza: 1,
            },
            Write::ForgetSession { session: 2 },
        ])
        .unwrap();
    let answers: Vec<bool> = [(1, 1), (1, 2), (2, 1), (3, 1)]
        .into_iter()
        .map(|(session, stanza)| {
            matches!(
                append(&mut *writer, at(session, stanza)),
                Written::Stored { .. }
            )
        })
        .collect();
    assert_eq!(answers, [true, false, true, false]);
    writer
        .commit(&[Write::RetainSessions { sessions: vec![3] }])
        .unwrap();
    assert!(matches!(
        append(&mut *writer, at(3, 1)),
        Written::Replayed { .. }
    ));
    assert!(matches!(
        append(&mut *writer, at(1, 2)),
        Written::Stored { .. }
    ));
}

fn an_origin_with_other_bytes_is_a_new_stanza(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let first = Append {
        origin: origin(1, 1),
        ..message("a@x.example", "<m/>")
    };
    let mut other = first.clone();
    other.origin.as_mut().unwrap().hash += 1;
    let one = stored(&append(&mut *writer, first));
    let two = stored(&append(&mut *writer, other.clone()));
    assert!(two > one);
    assert_eq!(
        append(&mut *writer, other),
        Written::Replayed {
            position: two,
            pending: true
        }
    );
}

fn a_stanza_to_two_owners_is_two_rows(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let to = |owner| Append {
        origin: origin(1, 1),
        ..message(owner, "<m/>")
    };
    let one = stored(&append(&mut *writer, to("a@x.example")));
    let two = stored(&append(&mut *writer, to("b@x.example")));
    assert_ne!(one, two);
    assert_eq!(
        append(&mut *writer, to("b@x.example")),
        Written::Replayed {
            position: two,
            pending: true
        }
    );
    assert_eq!(
        append(&mut *writer, to("a@x.example")),
        Written::Replayed {
            position: one,
            pending: true
        }
    );
}

fn positions_are_never_used_again(store: &mut dyn Fixture) {
    let mut last = 0;
    for _ in 0..3 {
        let mut writer = store.engine().writer().unwrap();
        for _ in 0..3 {
            let position = stored(&append(&mut *writer, message("a@x.example", "<m/>")));
            assert!(position > last);
            last = position;
            writer.commit(&[ack("a@x.example", &[position])]).unwrap();
            writer.maintain().unwrap();
        }
        drop(writer);
        store.restart();
    }
}

fn item(contact: &str, groups: &[&str]) -> RosterItem {
    RosterItem {
        jid: jid(contact),
        name: Some(format!("Name of {contact}")),
        subscription: Subscription::Both,
        ask: true,
        approved: false,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        version: 0,
    }
}

fn account(text: &str) -> Account {
    let keys = ScramHash::ALL
        .into_iter()
        .map(|hash| keys(hash, 7))
        .collect();
    Account {
        jid: jid(text),
        keys,
        disabled: false,
        created_ms: 1_700_000_000_000,
    }
}

fn put(account: Account, mode: PutMode) -> Write {
    Write::AccountPut { account, mode }
}

fn rosters_keep_items_and_versions(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let owner = jid("a@x.example");
    let change = |version, put: Option<RosterItem>, remove: Option<&str>| Write::Roster {
        owner: jid("a@x.example"),
        version,
        put,
        remove: remove.map(jid),
    };
    let written = writer
        .commit(&[
            put(account("a@x.example"), PutMode::Create),
            change(1, Some(item("c@x.example", &["Friends", "a\nb", ""])), None),
            change(2, Some(item("b@x.example", &[])), None),
            change(
                3,
                Some(RosterItem {
                    name: None,
                    ..item("d@x.example", &[])
                }),
                None,
            ),
            change(
                4,
                Some(RosterItem {
                    subscription: Subscription::From,
                    ..item("d@x.example", &[])
                }),
                None,
            ),
            change(5, None, Some("b@x.example")),
        ])
        .unwrap();
    assert_eq!(written, vec![Written::Done; 6]);
    drop(writer);
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    let user = reader.user(&owner).unwrap().unwrap();
    assert_eq!(user.roster_version, 5);
    let expected = [
        RosterItem {
            version: 1,
            ..item("c@x.example", &["Friends", "a\nb", ""])
        },
        RosterItem {
            version: 4,
            subscription: Subscription::From,
            ..item("d@x.example", &[])
        },
    ];
    assert_eq!(user.roster, expected);
    assert_eq!(reader.user(&jid("b@x.example")).unwrap(), None);
    assert_eq!(
        reader.user_data(&jid("b@x.example")).unwrap(),
        store::UserData::default()
    );
}

fn requests_and_vcards_are_kept_and_removed(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let request = |from: &str, stanza: Option<&'static str>| Write::SubscriptionRequest {
        owner: jid("a@x.example"),
        from: jid(from),
        stanza: stanza.map(Bytes::from),
    };
    let vcard = |xml: Option<&'static str>| Write::VCard {
        owner: jid("a@x.example"),
        xml: xml.map(Bytes::from),
    };
    writer
        .commit(&[
            put(account("a@x.example"), PutMode::Create),
            request("d@x.example", Some("<presence/>")),
            request("c@x.example", Some("<presence1/>")),
            request("c@x.example", Some("<presence2/>")),
            vcard(Some("<vCard/>")),
            Write::Append(message("a@x.example", "<m/>")),
        ])
        .unwrap();
    let user = reader.user(&jid("a@x.example")).unwrap().unwrap();
    let seen: Vec<(&str, &[u8])> = user
        .requests
        .iter()
        .map(|r| (r.from.as_str(), &r.stanza[..]))
        .collect();
    assert_eq!(
        seen,
        [
            ("c@x.example", &b"<presence2/>"[..]),
            ("d@x.example", b"<presence/>")
        ]
    );
    assert_eq!(user.pending, 1);
    assert_eq!(
        reader.vcard(&jid("a@x.example")).unwrap(),
        Some(Bytes::from("<vCard/>"))
    );
    writer
        .commit(&[
            request("d@x.example", None),
            request("nobody@x.example", None),
            vcard(None),
        ])
        .unwrap();
    assert_eq!(
        reader
            .user(&jid("a@x.example"))
            .unwrap()
            .unwrap()
            .requests
            .len(),
        1
    );
    assert_eq!(reader.vcard(&jid("a@x.example")).unwrap(), None);
}

fn archived_rows_are_found_by_their_words(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let with_text = |owner: &str, peer: &str, time_ms: u64, text: Option<Text>| Append {
        text,
        ..archived(
            owner,
            peer,
            time_ms,
            "<body>Wherefore art thou Romeo?</body>",
        )
    };
    let part = Some(Text::Part { start: 6, len: 25 });
    let apart = |text: &str| Some(Text::Apart(text.to_owned()));
    let (a, b) = ("a@x.example", "b@x.example");
    let (p, q) = ("p@x.example", "q@x.example");
    let kept = |text| with_text(a, p, 4, text);
    let rows: Vec<Append> = vec![
        with_text(a, p, 1, part.clone()),
        with_text(a, q, 2, apart("romeo & Ромео")),
        with_text(b, p, 3, part.clone()),
        // Not archived, without a text, and with one that is not there.
        Append {
            archive: false,
            ..kept(apart("romeo"))
        },
        kept(None),
        kept(Some(Text::Part {
            start: 6,
            len: u32::MAX,
        })),
        with_text(a, p, 5, apart("romeos \" ' ; -- 100% * _")),
        with_text(a, q, 6, apart("romeo again")),
    ];
    let at: Vec<u64> = rows
        .into_iter()
        .map(|row| stored(&append(&mut *writer, row)))
        .collect();
    drop(writer);
    let ask = |text: &str| ArchiveQuery {
        text: Some(text.to_owned()),
        ..ArchiveQuery::new(jid(a), 10)
    };
    let all = vec![at[0], at[1], at[6], at[7]];
    for rebuilt in [false, true, false] {
        let mut reader = store.engine().reader().unwrap();
        let mut found = |query: &ArchiveQuery| {
            let page = reader.archive_page(query, usize::MAX).unwrap();
            let rows: Vec<u64> = page.rows.iter().map(|row| row.position).collect();
            (rows, page.complete)
        };
        for (text, want) in [
            ("romeo", all.clone()),
            ("ROM", all.clone()),
            ("romeo thou", vec![at[0]]),
            ("РОМЕО", vec![at[1]]),
            ("romeos", vec![at[6]]),
            ("100", vec![at[6]]),
            ("body", vec![]),
            ("\"romeo\"", all.clone()),
            ("romeo AND juliet", vec![]),
            ("romeo) OR (words:x", vec![]),
            ("%", vec![]),
            ("\"\"\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(found(&ask(text)), (want, true), "{text}");
        }
        let two = |last, after, before| ArchiveQuery {
            limit: 2,
            last,
            after,
            before,
            ..ask("romeo")
        };
        for (query, want, complete) in [
            (two(false, None, None), &all[..2], false),
            (two(false, Some(all[0]), None), &all[1..3], false),
            (two(false, Some(all[1]), None), &all[2..], true),
            (two(true, None, None), &all[2..], false),
            (two(true, None, Some(all[3])), &all[1..3], false),
            (two(true, None, Some(all[2])), &all[..2], true),
        ] {
            assert_eq!(found(&query), (want.to_vec(), complete), "{query:?}");
        }
        let peer = Some(jid(q));
        let talk = ArchiveQuery {
            peer,
            ..ask("romeo")
        };
        assert_eq!(found(&talk), (vec![at[1], at[7]], true));
        let time = ArchiveQuery {
            start_ms: Some(2),
            end_ms: Some(5),
            ..ask("romeo")
        };
        assert_eq!(found(&time), (vec![at[1], at[6]], true));
        match rebuilt {
            false => store.restart(),
            true => store.restart_rebuilt(),
        }
    }
    let mut writer = store.engine().writer().unwrap();
    let positions = vec![at[1], at[6]];
    let drop_two = Write::Drop {
        owner: jid(a),
        positions,
    };
    writer.commit(&[drop_two]).unwrap();
    drop(writer);
    for rebuilt in [false, true, false] {
        let mut reader = store.engine().reader().unwrap();
        let rows = reader.archive(&ask("romeo")).unwrap();
        let rows: Vec<u64> = rows.iter().map(|row| row.position).collect();
        assert_eq!(rows, [at[0], at[7]]);
        match rebuilt {
            false => store.restart(),
            true => store.restart_rebuilt(),
        }
    }
}

fn wishes_about_the_archive_come_with_the_user(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let put = |prefs: Option<&'static str>| Write::ArchivePrefs {
        owner: jid("a@x.example"),
        prefs: prefs.map(Bytes::from),
    };
    let mut read = || reader.user_data(&owner).unwrap().archive_prefs;
    assert_eq!(read(), None);
    let mut commit = |write| writer.commit(&[write]).unwrap().remove(0);
    for prefs in [Some("one"), Some("two"), None, Some("three")] {
        assert_eq!(commit(put(prefs)), Written::Done);
        assert_eq!(read(), prefs.map(Bytes::from));
    }
    // They go with the account, and suffice for there being something to remove.
    let delete = || Write::AccountDelete {
        jid: jid("a@x.example"),
    };
    assert_eq!(commit(delete()), Written::Done);
    assert_eq!(read(), None);
    assert_eq!(commit(delete()), Written::Failed(WriteError::NotFound));
}

fn private_elements_are_kept_and_bounded(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let element = |name: &str, ns: &str, xml: Option<&'static str>| store::PrivateElement {
        name: name.to_owned(),
        ns: ns.to_owned(),
        xml: xml.map(Bytes::from),
    };
    // Each has 10 bytes: one of the name, one of the namespace, eight of the element.
    let put = |elements: Vec<store::PrivateElement>| Write::Private {
        owner: jid("a@x.example"),
        elements,
        bytes_max: 20,
    };
    let mut commit = |elements| writer.commit(&[put(elements)]).unwrap().remove(0);
    let too_much = Written::Failed(WriteError::TooMuch);
    let both = vec![
        element("a", "x", Some("<a>12</a>".split_at(8).0)),
        element("a", "y", Some("12345678")),
    ];
    assert_eq!(commit(both), Written::Done);
    // All or nothing, also of one that there is.
    let more = vec![
        element("a", "x", Some("other")),
        element("b", "x", Some("12345678")),
    ];
    assert_eq!(commit(more), too_much);
    let longer = vec![element("a", "x", Some("123456789"))];
    assert_eq!(commit(longer), too_much);
    let mut read = |name: &str, ns: &str| reader.private(&jid("a@x.example"), name, ns).unwrap();
    assert_eq!(read("a", "x"), Some(Bytes::from("<a>12</a")));
    assert_eq!(read("a", "y"), Some(Bytes::from("12345678")));
    assert_eq!(read("b", "x"), None);
    // Replaced by one as long; removed, which makes room.
    assert_eq!(
        commit(vec![element("a", "x", Some("87654321"))]),
        Written::Done
    );
    let instead = vec![
        element("a", "y", None),
        element("b", "x", Some("12345678")),
        element("no", "x", None),
    ];
    assert_eq!(commit(instead), Written::Done);
    assert_eq!(read("a", "x"), Some(Bytes::from("87654321")));
    assert_eq!(read("a", "y"), None);
    assert_eq!(read("b", "x"), Some(Bytes::from("12345678")));
    // Less is always taken, also where a limit has been lowered.
    let less = Write::Private {
        owner: owner.clone(),
        elements: vec![element("b", "x", Some("1"))],
        bytes_max: 1,
    };
    assert_eq!(writer.commit(&[less]).unwrap(), [Written::Done]);
    let delete = [Write::AccountDelete { jid: owner }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert_eq!(read("a", "x"), None);
    let nothing = [Written::Failed(WriteError::NotFound)];
    assert_eq!(writer.commit(&delete).unwrap(), nothing);
}

fn a_blocking_list_is_kept_and_goes_with_its_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let jids = |all: &[&str]| -> Vec<Jid> { all.iter().map(|j| Jid::parse(j).unwrap()).collect() };
    let change = |block: &[&str], unblock: &[&str]| Write::Blocklist {
        owner: jid("a@x.example"),
        block: jids(block),
        unblock: jids(unblock),
    };
    let mut blocked = || reader.user_data(&owner).unwrap().blocked;
    assert!(blocked().is_empty());
    // In an order, each once, whatever its form.
    let first = change(&["y.example", "b@y.example", "b@y.example/r"], &[]);
    let second = change(&["y.example/r", "b@y.example"], &["nobody@y.example"]);
    let written = writer.commit(&[first, second]).unwrap();
    assert_eq!(written, [Written::Done, Written::Done]);
    let mut all = jids(&["y.example", "y.example/r", "b@y.example", "b@y.example/r"]);
    all.sort();
    assert_eq!(blocked(), all);
    let less = change(&["c@y.example"], &["y.example", "b@y.example"]);
    writer.commit(&[less]).unwrap();
    let mut all = jids(&["y.example/r", "b@y.example/r", "c@y.example"]);
    all.sort();
    assert_eq!(blocked(), all);
    let delete = [Write::AccountDelete { jid: owner.clone() }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert!(blocked().is_empty());
    let nothing = [Written::Failed(WriteError::NotFound)];
    assert_eq!(writer.commit(&delete).unwrap(), nothing);
}

fn tokens_are_given_used_and_revoked(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let client = |n: u8| ClientId([n; 16]);
    let token = |n: u8, issued_ms: u64| LoginToken {
        client: client(n),
        mechanism: TokenMechanism::Exporter,
        secret: format!("secret {n} {issued_ms}"),
        issued_ms,
        expires_ms: issued_ms + 100,
        used: false,
        software: Some("Gajim".into()),
        device: None,
    };
    let owner = || jid("a@x.example");
    let mut change = |change| {
        let write = Write::Tokens {
            owner: owner(),
            change,
        };
        assert_eq!(writer.commit(&[write]).unwrap(), [Written::Done]);
    };
    let issue = |n, issued_ms| TokenChange::Issue {
        token: token(n, issued_ms),
        clients_max: 2,
        revocations: u64::MAX,
    };
    let used = |n, issued_ms| TokenChange::Used {
        client: client(n),
        issued_ms,
    };
    let mut there = || {
        let mut all = reader.tokens(&owner(), None).unwrap();
        all.sort_by_key(|t| (t.client, t.issued_ms));
        let names = all.iter().map(|t| (t.client.0[0], t.issued_ms, t.used));
        names.collect::<Vec<_>>()
    };
    change(issue(1, 10));
    assert_eq!(there(), [(1, 10, false)]);
    // One that was never used is replaced; one that is stays until the next is used.
    change(issue(1, 11));
    assert_eq!(there(), [(1, 11, false)]);
    change(used(1, 11));
    change(issue(1, 12));
    assert_eq!(there(), [(1, 11, true), (1, 12, false)]);
    // Not known: nothing happens.
    change(used(1, 99));
    change(used(1, 11));
    assert_eq!(there(), [(1, 11, true), (1, 12, false)]);
    change(used(1, 12));
    assert_eq!(there(), [(1, 12, true)]);
    // Two clients may have some: the third takes the place of the one that has had none for longest.
    change(issue(2, 20));
    change(issue(3, 30));
    assert_eq!(there(), [(2, 20, false), (3, 30, false)]);
    // Those of one client, whole.
    let mut reader2 = store.engine().reader().unwrap();
    let of_two = reader2.tokens(&owner(), Some(client(2))).unwrap();
    assert_eq!(of_two, [token(2, 20)]);
    assert_eq!(reader2.tokens(&jid("b@x.example"), None).unwrap(), []);
    // What is too old goes with the next.
    change(issue(3, 125));
    assert_eq!(there(), [(3, 125, false)]);
    change(issue(2, 126));
    change(TokenChange::Revoke {
        client: Some(client(2)),
        but: None,
    });
    assert_eq!(there(), [(3, 125, false)]);
    change(issue(2, 126));
    change(issue(2, 127));
    change(TokenChange::Revoke {
        client: Some(client(2)),
        but: Some(127),
    });
    assert_eq!(there(), [(2, 127, false), (3, 125, false)]);
    change(TokenChange::Revoke {
        client: None,
        but: None,
    });
    assert_eq!(there(), []);
    // Another password.
    let keys = Write::AccountKeys {
        jid: owner(),
        keys: Vec::new(),
    };
    let made = Write::AccountPut {
        account: account("a@x.example"),
        mode: PutMode::Create,
    };
    let issued = |issued_ms| Write::Tokens {
        owner: owner(),
        change: issue(1, issued_ms),
    };
    writer.commit(&[made, issued(190), keys]).unwrap();
    assert_eq!(reader2.tokens(&owner(), None).unwrap(), []);
    writer.commit(&[issued(200)]).unwrap();
    assert_eq!(reader2.tokens(&owner(), None).unwrap(), [token(1, 200)]);
    let delete = [Write::AccountDelete { jid: owner() }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert_eq!(reader2.tokens(&owner(), None).unwrap(), []);
}

/// What was granted before something was taken away is not given out after.
fn a_token_does_not_outlive_what_it_was_granted_for(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let (ann, bob) = (jid("ann@x.example"), jid("bob@x.example"));
    let issue = |owner: &BareJid, issued_ms: u64, revocations: u64| Write::Tokens {
        owner: owner.clone(),
        change: TokenChange::Issue {
            token: LoginToken {
                client: ClientId([1; 16]),
                mechanism: TokenMechanism::Unbound,
                secret: "secret".into(),
                issued_ms,
                expires_ms: 1_000_000,
                used: true,
                software: None,
                device: None,
            },
            clients_max: 9,
            revocations,
        },
    };
    let revoke = |client| Write::Tokens {
        owner: ann.clone(),
        change: TokenChange::Revoke { client, but: None },
    };
    let disable = |disabled| Write::AccountDisabled {
        jid: ann.clone(),
        disabled,
    };
    let outdated = || Written::Failed(WriteError::Outdated);
    let all = [
        put(account("ann@x.example"), PutMode::Create),
        put(account("bob@x.example"), PutMode::Create),
    ];
    writer.commit(&all).unwrap();
    let begin = reader.revocations();
    let mut now = 1;
    for taken in [
        Write::AccountKeys {
            jid: ann.clone(),
            keys: vec![keys(ScramHash::Sha256, 9)],
        },
        put(account("ann@x.example"), PutMode::Replace),
        put(account("ann@x.example"), PutMode::CreateOrReplace),
        disable(true),
        Write::OverlayDisabled {
            jid: ann.clone(),
            disabled: true,
        },
        revoke(None),
        revoke(Some(ClientId([7; 16]))),
        Write::AccountDelete { jid: ann.clone() },
    ] {
        let granted = reader.revocations();
        // In the same commit, and in a later one.
        let writes = [taken.clone(), issue(&ann, now, granted)];
        let written = writer.commit(&writes).unwrap();
        assert_eq!(written, [Written::Done, outdated()], "{taken:?}");
        let late = [issue(&ann, now, granted), issue(&bob, now, granted)];
        let written = writer.commit(&late).unwrap();
        assert_eq!(written, [outdated(), Written::Done], "{taken:?}");
        // Somebody else is not concerned, and whoever is asked from now on is answered by what is there now.
        assert!(reader.revocations() > granted);
        let early = [issue(&ann, now, reader.revocations())];
        assert_eq!(writer.commit(&early).unwrap(), [Written::Done], "{taken:?}");
        now += 1;
    }
    // An account of the same name that is made later does not get what was granted to the earlier one.
    let again = put(account("ann@x.example"), PutMode::CreateOrReplace);
    let written = writer.commit(&[again, issue(&ann, now, begin)]).unwrap();
    assert_eq!(written, [Written::Done, outdated()]);
    // What takes nothing away.
    let granted = reader.revocations();
    let others = [
        disable(false),
        Write::OverlayDisabled {
            jid: ann.clone(),
            disabled: false,
        },
        issue(&ann, now, granted),
        Write::Tokens {
            owner: ann.clone(),
            change: TokenChange::Used {
                client: ClientId([1; 16]),
                issued_ms: now,
            },
        },
    ];
    assert_eq!(writer.commit(&others).unwrap(), vec![Written::Done; 4]);
    assert_eq!(reader.revocations(), granted);
    assert_eq!(reader.tokens(&ann, None).unwrap().len(), 1);
}

fn publish(node: &str, id: &str, payload: &'static str, items_max: u64) -> store::PubsubChange {
    store::PubsubChange::Publish {
        node: node.to_owned(),
        item: store::PubsubItem {
            id: id.to_owned(),
            publisher: "a@x.example/r".to_owned(),
            time_ms: 7,
            payload: Bytes::from(payload),
        },
        items_max,
    }
}

fn made(node: &str) -> store::PubsubChange {
    store::PubsubChange::Put {
        node: node.to_owned(),
        meta: Bytes::from("meta"),
    }
}

fn page(
    reader: &mut dyn store::Reader,
    range: store::PubsubRange,
    limit: usize,
    bytes_max: usize,
) -> Option<(Vec<String>, u64, u64)> {
    let query = store::PubsubQuery {
        owner: jid("a@x.example"),
        node: "n".into(),
        range,
        limit,
        bytes_max,
    };
    let page = reader.pubsub_items(&query).unwrap()?;
    let ids = page.items.into_iter().map(|item| item.id).collect();
    Some((ids, page.index, page.count))
}

fn nodes_keep_the_newest_items_and_are_bounded(store: &mut dyn Fixture) {
    use store::{PubsubChange, PubsubRange};
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    // An item has 16 bytes beside its payload: three of the id, thirteen of the publisher.
    let mut change = |changes: Vec<PubsubChange>, bytes_max| {
        let write = Write::Pubsub {
            owner: jid("a@x.example"),
            changes,
            bytes_max,
        };
        writer.commit(&[write]).unwrap().remove(0)
    };
    let (not_found, too_much) = (
        Written::Failed(WriteError::NotFound),
        Written::Failed(WriteError::TooMuch),
    );
    assert_eq!(change(vec![publish("n", "one", "1234", 2)], 100), not_found);
    let first = vec![made("n"), publish("n", "one", "1234", 2)];
    assert_eq!(change(first, 100), Written::Done);
    let more = ["two", "thr", "one"].map(|id| publish("n", id, "1234", 2));
    assert_eq!(change(more.to_vec(), 100), Written::Done);
    let newest = |reader: &mut dyn store::Reader| page(reader, PubsubRange::Newest, 9, 99);
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    // What is published again is the newest; what a node may not keep goes.
    assert_eq!(newest(&mut *reader), Some((ids(&["one", "thr"]), 0, 2)));
    // All or nothing.
    let half = vec![publish("n", "fou", "1234", 9), publish("m", "x", "", 1)];
    assert_eq!(change(half, 100), not_found);
    let half = vec![made("m"), publish("m", "one", "1234", 9)];
    assert_eq!(change(half, 59), too_much);
    let unknown = PubsubChange::Retract {
        node: "n".into(),
        id: "two".into(),
    };
    assert_eq!(change(vec![unknown], 100), not_found);
    assert_eq!(newest(&mut *reader), Some((ids(&["one", "thr"]), 0, 2)));
    assert_eq!(reader.pubsub_nodes(&owner).unwrap().len(), 1);
    // Less is always taken, also where a limit has been lowered.
    let retract = PubsubChange::Retract {
        node: "n".into(),
        id: "thr".into(),
    };
    assert_eq!(change(vec![retract], 1), Written::Done);
    assert_eq!(newest(&mut *reader), Some((ids(&["one"]), 0, 1)));
    let member = |node: &str, jid: &str, state: Option<&'static str>| PubsubChange::Member {
        node: node.into(),
        jid: jid.into(),
        state: state.map(Bytes::from),
    };
    let members = vec![
        member("n", "b@x.example", Some("1")),
        member("n", "a@x.example", Some("2")),
        member("n", "c@x.example", Some("3")),
        member("n", "c@x.example", None),
    ];
    assert_eq!(change(members, 100), Written::Done);
    assert_eq!(change(vec![member("m", "b@x", None)], 100), not_found);
    let configured = PubsubChange::Put {
        node: "n".into(),
        meta: Bytes::from("other"),
    };
    let trim = PubsubChange::Trim {
        node: "n".into(),
        items_max: 0,
    };
    assert_eq!(change(vec![configured, made("a")], 100), Written::Done);
    let nodes = reader.pubsub_nodes(&owner).unwrap();
    let state = |jid: &str, state: &'static str| (jid.to_owned(), Bytes::from(state));
    let node = |node: &str, meta: &'static str, members| store::PubsubNode {
        node: node.to_owned(),
        meta: Bytes::from(meta),
        members,
    };
    let expected = [
        node("a", "meta", vec![]),
        node(
            "n",
            "other",
            vec![state("a@x.example", "2"), state("b@x.example", "1")],
        ),
    ];
    assert_eq!(nodes, expected);
    let last = reader.pubsub_last(&owner, &["a".into(), "n".into()]);
    let last = last.unwrap();
    assert_eq!(last.len(), 1);
    assert_eq!((&*last[0].0, &*last[0].1.id), ("n", "one"));
    assert_eq!(&last[0].1.payload[..], b"1234");
    assert_eq!(change(vec![trim], 100), Written::Done);
    assert_eq!(newest(&mut *reader), Some((vec![], 0, 0)));
    let delete = || PubsubChange::Delete { node: "n".into() };
    assert_eq!(change(vec![delete()], 100), Written::Done);
    assert_eq!(change(vec![delete()], 100), not_found);
    assert_eq!(reader.pubsub_nodes(&owner).unwrap().len(), 1);
    // What a node has given an address goes with who had it.
    let left = reader.pubsub_nodes(&owner).unwrap().remove(0).node;
    let addresses = [
        "d@x.example",
        "d@x.example/r",
        "d@x.example.org",
        "dd@x.example",
    ];
    let members = addresses.map(|jid| member(&left, jid, Some("1")));
    assert_eq!(change(members.to_vec(), 100), Written::Done);
    let gone = jid("d@x.example");
    writer
        .commit(&[Write::AccountDelete { jid: gone }])
        .unwrap();
    let nodes = reader.pubsub_nodes(&owner).unwrap();
    let members: Vec<&str> = nodes[0].members.iter().map(|(jid, _)| &**jid).collect();
    assert_eq!(members, ["d@x.example.org", "dd@x.example"]);
    // With the account goes everything.
    let gone = Write::AccountDelete { jid: owner.clone() };
    assert_eq!(writer.commit(&[gone]).unwrap(), [Written::Done]);
    assert_eq!(reader.pubsub_nodes(&owner).unwrap(), []);
}

fn items_are_read_in_pages(store: &mut dyn Fixture) {
    use store::PubsubRange as R;
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let reader = &mut *reader;
    let mut changes = vec![made("n"), made("other")];
    for id in ["1", "2", "3", "4", "5"] {
        changes.push(publish("other", id, "", 9));
        changes.push(publish("n", id, "12345", 9));
    }
    let write = Write::Pubsub {
        owner: jid("a@x.example"),
        changes,
        bytes_max: 10_000,
    };
    assert_eq!(writer.commit(&[write]).unwrap(), [Written::Done]);
    let after = |id: &str| R::After(id.into());
    let before = |id: &str| R::Before(id.into());
    let ids = R::Ids(vec!["1".into(), "nothing".into(), "4".into()]);
    for (range, limit, bytes_max, expected, index) in [
        (R::Newest, 2, 100, "54", 0),
        (R::Newest, 0, 100, "", 0),
        (R::Newest, 9, 100, "54321", 0),
        (R::Newest, 9, 11, "54", 0),
        (R::Newest, 9, 0, "5", 0),
        (R::Oldest, 2, 100, "21", 3),
        (R::Oldest, 9, 11, "21", 3),
        (after("4"), 2, 100, "32", 2),
        (after("1"), 2, 100, "", 0),
        (before("2"), 2, 100, "43", 1),
        (before("5"), 2, 100, "", 0),
        (R::Index(3), 9, 100, "21", 3),
        (R::Index(9), 9, 100, "", 0),
        (R::Index(u64::MAX), 9, 100, "", 0),
        (ids, 1, 100, "41", 0),
    ] {
        let found = page(reader, range.clone(), limit, bytes_max).unwrap();
        let expected: Vec<String> = expected.chars().map(String::from).collect();
        assert_eq!(found, (expected, index, 5), "{range:?} {limit} {bytes_max}");
    }
    for id in ["nothing", "' OR 1=1 --", ""] {
        assert_eq!(page(reader, after(id), 2, 100), None);
        assert_eq!(page(reader, before(id), 2, 100), None);
    }
}

fn push_services_are_kept_and_go_with_their_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let owner = jid("a@x.example");
    let service = |node: &str, options: Option<&'static str>| store::PushService {
        service: Jid::parse("push.example").unwrap(),
        node: node.to_owned(),
        resource: "phone".to_owned(),
        options: options.map(Bytes::from),
    };
    let write = |put: Option<store::PushService>, remove: &[&str]| Write::Push {
        owner: jid("a@x.example"),
        put,
        remove: remove
            .iter()
            .map(|node| (Jid::parse("push.example").unwrap(), (*node).to_owned()))
            .collect(),
    };
    let mut push = || reader.user_data(&owner).unwrap().push;
    assert!(push().is_empty());
    let writes = [
        write(Some(service("n", None)), &[]),
        write(Some(service("", Some("<x/>"))), &[]),
        write(Some(service("n", Some("<y/>"))), &["never"]),
    ];
    writer.commit(&writes).unwrap();
    assert_eq!(
        push(),
        [service("", Some("<x/>")), service("n", Some("<y/>"))]
    );
    writer.commit(&[write(None, &[""])]).unwrap();
    assert_eq!(push(), [service("n", Some("<y/>"))]);
    let delete = [Write::AccountDelete { jid: owner.clone() }];
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert!(push().is_empty());
}

fn accounts_are_created_changed_and_deleted(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let a = account("a@x.example");
    let written = writer
        .commit(&[
            put(a.clone(), PutMode::Replace),
            put(a.clone(), PutMode::Create),
            put(a.clone(), PutMode::Create),
            put(a.clone(), PutMode::CreateOrReplace),
            put(account("b@x.example"), PutMode::CreateOrReplace),
            Write::AccountKeys {
                jid: jid("a@x.example"),
                keys: vec![keys(ScramHash::Sha256, 9)],
            },
            Write::AccountDisabled {
                jid: jid("a@x.example"),
                disabled: true,
            },
            Write::AccountKeys {
                jid: jid("no@x.example"),
                keys: vec![],
            },
            Write::AccountDisabled {
                jid: jid("no@x.example"),
                disabled: true,
            },
            Write::AccountDelete {
                jid: jid("no@x.example"),
            },
        ])
        .unwrap();
    let not_found = Written::Failed(WriteError::NotFound);
    let expected = [
        not_found.clone(),
        Written::Done,
        Written::Failed(WriteError::Exists),
        Written::Done,
        Written::Done,
        Written::Done,
        Written::Done,
        not_found.clone(),
        not_found.clone(),
        not_found,
    ];
    assert_eq!(written, expected);
    let mut reader = store.engine().reader().unwrap();
    let found = reader.account(&jid("a@x.example")).unwrap().unwrap();
    assert_eq!(
        found,
        Account {
            disabled: true,
            keys: vec![keys(ScramHash::Sha256, 9)],
            ..a
        }
    );
    assert_eq!(
        reader.account(&jid("b@x.example")).unwrap(),
        Some(account("b@x.example"))
    );
    assert!(reader.user(&jid("a@x.example")).unwrap().unwrap().disabled);
    let roster = Write::Roster {
        owner: jid("a@x.example"),
        version: 1,
        put: Some(item("c@x.example", &[])),
        remove: None,
    };
    writer
        .commit(&[
            roster,
            Write::AccountDelete {
                jid: jid("a@x.example"),
            },
        ])
        .unwrap();
    assert_eq!(reader.account(&jid("a@x.example")).unwrap(), None);
    assert_eq!(reader.user(&jid("a@x.example")).unwrap(), None);
    writer
        .commit(&[put(account("a@x.example"), PutMode::Create)])
        .unwrap();
    let user = reader.user(&jid("a@x.example")).unwrap().unwrap();
    assert_eq!((user.roster_version, user.roster.len()), (0, 0));
    // What is kept of somebody whose account is elsewhere goes too, once.
    let left = jid("left@x.example");
    let kept = [
        Write::VCard {
            owner: left.clone(),
            xml: Some(Bytes::from_static(b"<vCard xmlns='vcard-temp'/>")),
        },
        Write::Roster {
            owner: left.clone(),
            version: 1,
            put: Some(item("c@x.example", &[])),
            remove: None,
        },
        Write::OverlayDisabled {
            jid: left.clone(),
            disabled: true,
        },
    ];
    let delete = [Write::AccountDelete { jid: left.clone() }];
    writer.commit(&kept).unwrap();
    assert_eq!(writer.commit(&delete).unwrap(), [Written::Done]);
    assert_eq!(reader.vcard(&left).unwrap(), None);
    assert_eq!(reader.user_data(&left).unwrap(), store::UserData::default());
    assert!(reader.overlay_disabled().unwrap().is_empty());
    let nothing = [Written::Failed(WriteError::NotFound)];
    assert_eq!(writer.commit(&delete).unwrap(), nothing);
    assert_eq!(reader.counts().unwrap().accounts, 2);
}

fn keys_are_added_beside_those_of_the_same_password(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let ann = jid("ann@x.example");
    let old = keys(ScramHash::Sha1, 1);
    let add = |beside: &xmpp::scram::ScramKeys, new: &[_]| Write::AccountKeysAdd {
        jid: ann.clone(),
        beside: beside.clone(),
        keys: new.to_vec(),
    };
    let issue = Write::Tokens {
        owner: ann.clone(),
        change: TokenChange::Issue {
            token: LoginToken {
                client: ClientId([1; 16]),
                mechanism: TokenMechanism::Unbound,
                secret: "secret".into(),
                issued_ms: 1,
                expires_ms: 2,
                used: true,
                software: None,
                device: None,
            },
            clients_max: 9,
            revocations: 0,
        },
    };
    let made = Account {
        keys: vec![old.clone()],
        ..account("ann@x.example")
    };
    let (sha256, sha512) = (keys(ScramHash::Sha256, 2), keys(ScramHash::Sha512, 3));
    let written = writer
        .commit(&[
            add(&old, std::slice::from_ref(&sha256)),
            put(made, PutMode::Create),
            issue,
            add(&old, &[sha256.clone(), keys(ScramHash::Sha1, 9)]),
            // Those of a hash that it has stay; and not beside keys that it has not.
            add(&sha256, &[keys(ScramHash::Sha256, 8), sha512.clone()]),
            add(&keys(ScramHash::Sha1, 9), &[keys(ScramHash::Sha512, 9)]),
        ])
        .unwrap();
    let expected = [
        Written::Failed(WriteError::NotFound),
        Written::Done,
        Written::Done,
        Written::Done,
        Written::Done,
        Written::Failed(WriteError::Outdated),
    ];
    assert_eq!(written, expected);
    let there = reader.account(&ann).unwrap().unwrap().keys;
    assert_eq!(there, [old.clone(), sha256, sha512]);
    assert_eq!(reader.tokens(&ann, None).unwrap().len(), 1, "no token goes");
    // Another password came between.
    let passwd = Write::AccountKeys {
        jid: ann.clone(),
        keys: vec![keys(ScramHash::Sha1, 7)],
    };
    let late = add(&old, &[keys(ScramHash::Sha256, 2)]);
    let written = writer.commit(&[passwd, late]).unwrap();
    assert_eq!(
        written,
        [Written::Done, Written::Failed(WriteError::Outdated)]
    );
    let there = reader.account(&ann).unwrap().unwrap().keys;
    assert_eq!(there, [keys(ScramHash::Sha1, 7)]);
}

fn accounts_are_listed_in_pages(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    let mut writes = Vec::new();
    for domain in ["y.example", "x.example", "z.example"] {
        writes.extend((0..25).map(|n| put(account(&format!("u{n:02}@{domain}")), PutMode::Create)));
    }
    writer.commit(&writes).unwrap();
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = reader.accounts(None, after.as_ref(), 10).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.jid.clone());
        seen.extend(page.into_iter().map(|entry| entry.jid.as_str().to_owned()));
    }
    assert_eq!(seen.len(), 75);
    assert_eq!(
        (&seen[0][..], &seen[74][..]),
        ("u00@x.example", "u24@z.example")
    );
    let of_y = reader.accounts(Some("y.example"), None, 100).unwrap();
    assert_eq!((of_y.len(), of_y[0].jid.as_str()), (25, "u00@y.example"));
    let rest = reader
        .accounts(Some("y.example"), Some(&jid("u22@y.example")), 100)
        .unwrap();
    assert_eq!(rest.len(), 2);
    assert_eq!(
        reader
            .accounts(Some("y.example"), Some(&jid("u22@z.example")), 100)
            .unwrap(),
        []
    );
    assert_eq!(
        reader.accounts(Some("none.example"), None, 100).unwrap(),
        []
    );
}

fn writes_of_a_batch_see_each_other(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let first = Append {
        origin: origin(1, 1),
        ..message("a@x.example", "<m/>")
    };
    let written = writer
        .commit(&[Write::Append(first.clone()), Write::Append(first.clone())])
        .unwrap();
    let position = stored(&written[0]);
    assert_eq!(
        written[1],
        Written::Replayed {
            position,
            pending: true
        }
    );
    let written = writer
        .commit(&[
            ack("a@x.example", &[position]),
            Write::Append(first.clone()),
        ])
        .unwrap();
    assert_eq!(
        written[1],
        Written::Replayed {
            position,
            pending: false
        }
    );
    let forget = Write::ForgetSession { session: 1 };
    let written = writer.commit(&[forget, Write::Append(first)]).unwrap();
    assert!(stored(&written[1]) > position);
}

fn identity_survives_and_epochs_grow(store: &mut dyn Fixture) {
    let before = (
        store.engine().store_id(),
        store.engine().position_key().encode(5),
        store.engine().login_secret(),
    );
    let mut epoch = store.engine().next_epoch().unwrap();
    for _ in 0..3 {
        store.restart();
        let next = store.engine().next_epoch().unwrap();
        assert!(next > epoch);
        epoch = next;
    }
    let engine = store.engine();
    assert_eq!(
        (
            engine.store_id(),
            engine.position_key().encode(5),
            engine.login_secret()
        ),
        before
    );
}

fn session_records_survive_a_kill(store: &mut dyn Fixture) {
    let mut sessions = store.engine().session_store().unwrap();
    assert_eq!(sessions.load().unwrap(), []);
    sessions
        .put(&[
            (5, Some(Bytes::from("five"))),
            (4, Some(Bytes::from("four"))),
            (5, None),
        ])
        .unwrap();
    drop(sessions);
    store.restart();
    let mut sessions = store.engine().session_store().unwrap();
    assert_eq!(sessions.load().unwrap(), [(4, Bytes::from("four"))]);
    assert!(matches!(
        store.engine().session_store(),
        Err(StoreError::InUse { .. })
    ));
}

fn the_writer_is_given_out_once(store: &mut dyn Fixture) {
    let writer = store.engine().writer().unwrap();
    assert!(matches!(
        store.engine().writer(),
        Err(StoreError::InUse { .. })
    ));
    drop(writer);
    store.restart();
    assert!(store.engine().writer().is_ok());
}

fn overlays_are_kept_without_an_account(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let (ann, bob) = (jid("ann@x.example"), jid("bob@x.example"));
    let disabled = |jid: &BareJid, disabled| Write::OverlayDisabled {
        jid: jid.clone(),
        disabled,
    };
    let made = |jid: &BareJid, keys: &[ScramKeys]| Write::OverlayKeys {
        jid: jid.clone(),
        keys: keys.to_vec(),
        made_ms: 7,
    };
    let some = [keys(ScramHash::Sha256, 9)];
    let writes = [
        disabled(&bob, true),
        disabled(&ann, true),
        made(&ann, &some),
    ];
    assert!(
        writer
            .commit(&writes)
            .unwrap()
            .iter()
            .all(|w| *w == Written::Done)
    );
    drop(writer);
    store.restart();
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(
        reader.overlay_disabled().unwrap(),
        [ann.clone(), bob.clone()]
    );
    let overlay = reader.overlay(&ann).unwrap();
    assert_eq!(
        (overlay.disabled, &overlay.keys[..], overlay.made_ms),
        (true, &some[..], 7)
    );
    // An account is something else.
    assert_eq!(reader.account(&ann).unwrap(), None);
    assert_eq!(reader.user(&ann).unwrap(), None);
    writer
        .commit(&[
            disabled(&ann, false),
            disabled(&bob, false),
            made(&ann, &[]),
        ])
        .unwrap();
    for jid in [&ann, &bob] {
        assert_eq!(reader.overlay(jid).unwrap(), store::Overlay::default());
    }
    assert!(reader.overlay_disabled().unwrap().is_empty());
}

fn activity_is_kept_of_anybody_until_the_account_goes(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let (ann, bob) = (jid("ann@x.example"), jid("bob@x.example"));
    let facts = |login_ms, logout_ms, greeted_ms, motd| store::Activity {
        login_ms,
        logout_ms,
        greeted_ms,
        motd,
    };
    let activity = |owner: &BareJid, facts| Write::Activity {
        owner: owner.clone(),
        facts,
    };
    writer
        .commit(&[put(account("ann@x.example"), PutMode::Create)])
        .unwrap();
    // What is 0 stays, in a batch with other writes or alone; a clock may go back.
    writer
        .commit(&[activity(&ann, facts(70, 0, 71, 0))])
        .unwrap();
    let card = Write::VCard {
        owner: ann.clone(),
        xml: Some(Bytes::from_static(b"<vCard/>")),
    };
    writer
        .commit(&[activity(&ann, facts(0, 80, 0, 3)), card])
        .unwrap();
    writer
        .commit(&[
            activity(&ann, facts(60, 0, 0, 0)),
            activity(&bob, facts(1, 0, 0, 0)),
        ])
        .unwrap();
    drop(writer);
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(reader.activity(&ann).unwrap(), facts(60, 80, 71, 3));
    let user = reader.user(&ann).unwrap().unwrap();
    assert_eq!(user.activity, facts(60, 80, 71, 3));
    // Bob's account is elsewhere.
    assert_eq!(reader.user(&bob).unwrap(), None);
    assert_eq!(reader.user_data(&bob).unwrap().activity, facts(1, 0, 0, 0));
    assert_eq!(
        reader.activity(&jid("nobody@x.example")).unwrap(),
        store::Activity::default()
    );
    let mut writer = store.engine().writer().unwrap();
    writer
        .commit(&[Write::AccountDelete { jid: ann.clone() }])
        .unwrap();
    assert_eq!(reader.activity(&ann).unwrap(), store::Activity::default());
}

fn values_of_the_site_are_kept(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let set = |key, value: &'static [u8]| Write::SiteValue {
        key,
        value: Bytes::from_static(value),
    };
    writer
        .commit(&[set("one", b"a"), set("two", b"b"), set("one", b"")])
        .unwrap();
    drop(writer);
    store.restart();
    let mut reader = store.engine().reader().unwrap();
    let mut value = |key| reader.site_value(key).unwrap();
    assert_eq!(value("one").as_deref(), Some(&b""[..]));
    assert_eq!(value("two").as_deref(), Some(&b"b"[..]));
    assert_eq!(value("three"), None);
}

fn disabled_accounts_are_counted_and_listed(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut writes = Vec::new();
    for domain in ["y.example", "x.example"] {
        writes.extend((0..9).map(|n| put(account(&format!("u{n}@{domain}")), PutMode::Create)));
    }
    for who in ["u3@y.example", "u1@y.example", "u8@x.example"] {
        writes.push(Write::AccountDisabled {
            jid: jid(who),
            disabled: true,
        });
    }
    writer.commit(&writes).unwrap();
    let mut reader = store.engine().reader().unwrap();
    let mut list = |domain, after: Option<&str>, limit| -> Vec<String> {
        let after = after.map(jid);
        let page = reader.disabled_accounts(domain, after.as_ref(), limit);
        let entries = page.unwrap().into_iter();
        entries
            .map(|entry| {
                assert!(entry.disabled);
                entry.jid.as_str().to_owned()
            })
            .collect()
    };
    assert_eq!(
        list(None, None, 9),
        ["u8@x.example", "u1@y.example", "u3@y.example"]
    );
    assert_eq!(list(None, None, 1), ["u8@x.example"]);
    assert_eq!(
        list(Some("y.example"), Some("u1@y.example"), 9),
        ["u3@y.example"]
    );
    let counts = |accounts, disabled| store::AccountCounts { accounts, disabled };
    assert_eq!(reader.account_counts("y.example").unwrap(), counts(9, 2));
    assert_eq!(reader.account_counts("x.example").unwrap(), counts(9, 1));
    assert_eq!(reader.account_counts("z.example").unwrap(), counts(0, 0));
}

fn counts_follow(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    let mut reader = store.engine().reader().unwrap();
    assert_eq!(reader.counts().unwrap(), store::Counts::default());
    let mut writes: Vec<Write> = (0..5)
        .map(|_| Write::Append(message("a@x.example", "<m/>")))
        .collect();
    writes.push(put(account("a@x.example"), PutMode::Create));
    writes.push(put(account("b@x.example"), PutMode::CreateOrReplace));
    writes.push(put(account("b@x.example"), PutMode::CreateOrReplace));
    let written = writer.commit(&writes).unwrap();
    writer
        .commit(&[ack(
            "a@x.example",
            &[stored(&written[0]), stored(&written[0])],
        )])
        .unwrap();
    writer
        .commit(&[Write::AccountDelete {
            jid: jid("a@x.example"),
        }])
        .unwrap();
    let counts = reader.counts().unwrap();
    assert_eq!((counts.accounts, counts.pending), (1, 4));
    assert!(counts.last_position >= 5);
}

fn an_empty_batch_does_nothing(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    assert_eq!(writer.commit(&[]).unwrap(), []);
    assert_eq!(
        writer.commit(&[ack("a@x.example", &[])]).unwrap(),
        [Written::Done]
    );
    assert!(!writer.maintain().unwrap());
}
