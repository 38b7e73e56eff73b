//! Archives: kept, paged, filtered, searched.

use super::*;

conformance! {
    archived_rows_stay_after_acknowledgement
    archive_is_paged_both_ways_and_filtered
    archive_pages_are_bounded_in_bytes_and_say_whether_there_is_more
    archive_by_time_does_not_trust_the_clock
    archived_rows_are_found_by_their_words
    wishes_about_the_archive_come_with_the_user
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
