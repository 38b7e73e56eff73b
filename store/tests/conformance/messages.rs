//! What is waiting for somebody, and what happens to a stanza that comes twice.

use super::*;

conformance! {
    messages_are_pending_until_acknowledged
    pending_is_paged_in_order
    pending_pages_are_bounded_in_bytes
    nobody_clears_the_marks_of_another
    dropped_rows_are_gone
    a_replay_is_answered_as_the_first_time
    origins_outlive_their_rows_and_restarts
    forgotten_origins_are_stored_anew
    an_origin_with_other_bytes_is_a_new_stanza
    a_stanza_to_two_owners_is_two_rows
    positions_are_never_used_again
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
