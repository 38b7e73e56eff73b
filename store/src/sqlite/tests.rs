//! What only the engine on disk can get wrong: full disks, foreign and damaged files, growth, starts.

use bytes::Bytes;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xmpp::jid::BareJid;

use super::log::LOG;
use super::state::STATE;
use super::writer::SqliteWriter;
use super::{INDEX, SqliteEngine};
use crate::{
    Append, ArchiveQuery, Engine, Origin, RosterItem, StoreError, StoredRow, Subscription, Write,
    WriteError, Writer, Written,
};

fn jid(text: &str) -> BareJid {
    BareJid::parse(text).unwrap()
}

fn message(owner: &str, origin: Option<(u64, u64)>, payload: &str) -> Write {
    Write::Append(Append {
        owner: jid(owner),
        peer: jid("peer@x.example"),
        origin: origin.map(|(session, stanza)| Origin {
            session,
            stanza,
            hash: 5,
        }),
        archive: false,
        pending: true,
        time_ms: 1,
        outgoing: false,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        text: None,
    })
}

fn roster(version: u64, name: &str) -> Write {
    let item = RosterItem {
        jid: jid("peer@x.example"),
        name: Some(name.to_owned()),
        subscription: Subscription::Both,
        ask: false,
        approved: false,
        groups: vec![],
        version: 0,
    };
    Write::Roster {
        owner: jid("a@x.example"),
        version,
        put: Some(item),
        remove: None,
    }
}

fn positions(written: &[Written]) -> Vec<u64> {
    let position = |written: &Written| match written {
        Written::Stored { position } => Some(*position),
        _ => None,
    };
    written.iter().filter_map(position).collect()
}

fn pending(engine: &SqliteEngine, owner: &str) -> Vec<StoredRow> {
    engine
        .reader()
        .unwrap()
        .pending(&jid(owner), 0, usize::MAX)
        .unwrap()
}

fn log_rows(dir: &Path) -> i64 {
    let db = LOG.connect_reader(dir).unwrap();
    db.conn
        .query_row("SELECT count(*) FROM log", [], |row| row.get(0))
        .unwrap()
}

const NO_LIMIT: u64 = 1 << 30;

#[test]
fn a_full_disk_fails_the_whole_batch_and_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer: SqliteWriter = engine.sqlite_writer().unwrap();
    let body = "x".repeat(1_000);
    writer.limit_pages(40);
    let mut stored = 0;
    let error = loop {
        let batch = |n| message("a@x.example", Some((1, stored + n)), &body);
        match writer.commit(&[batch(1), batch(2), roster(stored + 1, "friend")]) {
            Ok(written) => stored += positions(&written).len() as u64,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert!(error.is_temporary());
    assert!(stored > 100, "{stored}");
    // Nothing of the failed batch is there, neither rows nor roster nor origins.
    assert_eq!(pending(&engine, "a@x.example").len() as u64, stored);
    let version = |engine: &SqliteEngine| {
        engine
            .reader()
            .unwrap()
            .user_data(&jid("a@x.example"))
            .unwrap()
            .roster_version
    };
    assert_eq!(version(&engine), stored - 1);
    assert_eq!(writer.origin_count() as u64, stored);
    // What needs no room still works: acknowledging fits into the last page.
    assert!(matches!(
        writer
            .commit(&[message("a@x.example", Some((1, 1)), &body)])
            .as_deref(),
        Ok([Written::Replayed {
            position: 1,
            pending: true
        }])
    ));
    writer.limit_pages(NO_LIMIT);
    let written = writer
        .commit(&[message("a@x.example", Some((1, stored + 1)), &body)])
        .unwrap();
    assert_eq!(positions(&written), [stored + 1]);
    drop((writer, engine));
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let rows = pending(&engine, "a@x.example");
    assert_eq!(
        rows.iter().map(|row| row.position).collect::<Vec<_>>(),
        (1..=stored + 1).collect::<Vec<_>>()
    );
}

#[test]
fn no_message_fails_because_it_cannot_be_remembered_who_came() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.sqlite_writer().unwrap();
    writer.limit_state_pages(1);
    let came = |n: u64| Write::Activity {
        owner: jid(&format!("{n}{}@x.example", "x".repeat(900))),
        facts: crate::Activity {
            login_ms: 1,
            ..crate::Activity::default()
        },
    };
    let mut n = 0;
    loop {
        n += 1;
        let written = writer.commit(&[message("a@x.example", None, "<m/>"), came(n)]);
        let written = written.unwrap();
        assert_eq!(written[0], Written::Stored { position: n });
        if matches!(written[1], Written::Failed(WriteError::Store(_))) {
            break;
        }
        assert!(n < 1_000, "there is room for ever");
    }
    // With nothing else in it the batch fails, and whoever waits for it knows.
    assert!(writer.commit(&[came(n)]).is_err());
    writer.limit_state_pages(NO_LIMIT);
    assert_eq!(writer.commit(&[came(n)]).unwrap(), [Written::Done]);
    assert_eq!(pending(&engine, "a@x.example").len() as u64, n);
}

#[test]
fn when_only_the_state_cannot_be_written_only_its_writes_fail() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.sqlite_writer().unwrap();
    // The transaction of the state is open and its commit refused: the log is durable by then.
    writer.fail_state_commit(true);
    let written = writer
        .commit(&[message("a@x.example", None, "<m/>"), roster(1, "friend")])
        .unwrap();
    assert_eq!(written[0], Written::Stored { position: 1 });
    assert!(
        matches!(written[1], Written::Failed(WriteError::Store(_))),
        "{written:?}"
    );
    assert!(writer.commit(&[roster(1, "friend")]).is_err());
    writer.fail_state_commit(false);
    assert_eq!(
        writer.commit(&[roster(1, "friend")]).unwrap(),
        [Written::Done]
    );
    assert_eq!(pending(&engine, "a@x.example").len(), 1);
    assert_eq!(
        engine
            .reader()
            .unwrap()
            .user_data(&jid("a@x.example"))
            .unwrap()
            .roster_version,
        1
    );
}

#[test]
fn files_of_a_newer_version_are_refused_with_a_clear_sentence() {
    for database in [&LOG, &STATE, &INDEX] {
        let dir = tempfile::tempdir().unwrap();
        drop(SqliteEngine::open(dir.path()).unwrap());
        database
            .connect(dir.path())
            .unwrap()
            .execute("PRAGMA user_version=99")
            .unwrap();
        let error = SqliteEngine::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, StoreError::Newer { found: 99, .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("written by a newer version"),
            "{error}"
        );
        // And nothing was done to it.
        let db = database.connect(dir.path()).unwrap();
        let version: i64 = db
            .conn
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .unwrap();
        assert_eq!(version, 99);
    }
}

fn filled(dir: &Path) {
    let engine = SqliteEngine::open(dir).unwrap();
    let mut writer = engine.writer().unwrap();
    for _ in 0..20 {
        let writes: Vec<Write> = (0..100)
            .map(|n| message("a@x.example", None, &format!("{n:0>200}")))
            .collect();
        writer.commit(&writes).unwrap();
    }
    engine.fold_all().unwrap();
    drop(writer);
}

#[test]
fn damaged_and_foreign_files_are_named() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 5] = [
        ("cut inside its first page", |path| {
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(100)
                .unwrap();
        }),
        ("cut in half", |path| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("something else", |path| {
            std::fs::write(path, "not a database, ".repeat(1_000)).unwrap()
        }),
        ("zeroes", |path| {
            std::fs::write(path, vec![0; 100_000]).unwrap()
        }),
        ("another program's", |path| {
            std::fs::remove_file(path).unwrap();
            let conn = rusqlite::Connection::open(path).unwrap();
            conn.execute_batch("CREATE TABLE other (a); INSERT INTO other VALUES (1)")
                .unwrap();
        }),
    ];
    for (what, damage) in cases {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        let path = LOG.path(dir.path());
        damage(&path);
        let error = SqliteEngine::open(dir.path()).expect_err(what);
        assert!(
            matches!(&error, StoreError::Corrupt { path: named, .. } if *named == path),
            "{what}: {error:?}"
        );
        assert!(error.to_string().contains("log.db"), "{what}: {error}");
        // The index is made again.
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        damage(&INDEX.path(dir.path()));
        let engine = SqliteEngine::open(dir.path()).expect(what);
        assert_eq!(pending(&engine, "a@x.example").len(), 2_000, "{what}");
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    assert!(matches!(
        SqliteEngine::open(dir.path()),
        Err(StoreError::InUse { .. })
    ));
    assert!(matches!(
        SqliteEngine::verify(dir.path()),
        Err(StoreError::InUse { .. })
    ));
    drop(engine);
    assert!(SqliteEngine::open(dir.path()).is_ok());
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(matches!(
        SqliteEngine::open(&file),
        Err(StoreError::Io { .. })
    ));
}

/// Appends and acknowledges `count` messages, in batches.
fn traffic(writer: &mut dyn Writer, session: u64, count: u64) {
    let mut done = 0;
    while done < count {
        let writes: Vec<Write> = (1..=2_000)
            .map(|n| message("a@x.example", Some((session, done + n)), &"x".repeat(300)))
            .collect();
        let positions = positions(&writer.commit(&writes).unwrap());
        done += 2_000;
        let ack = Write::Ack {
            owner: jid("a@x.example"),
            positions,
        };
        writer
            .commit(&[
                ack,
                Write::ForgetOrigins {
                    session,
                    up_to_stanza: done,
                },
            ])
            .unwrap();
    }
}

#[test]
fn without_an_archive_the_log_does_not_grow() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.writer().unwrap();
    let mut sizes = Vec::new();
    for _ in 0..4 {
        traffic(&mut *writer, 1, 150_000);
        sizes.push(std::fs::metadata(LOG.path(dir.path())).unwrap().len());
    }
    // 150,000 rows are 50 MB; the rows in the tail are some 25.
    assert!(
        sizes[3] < 90_000_000 && sizes[3] < sizes[1] * 2,
        "{sizes:?}"
    );
    engine.fold_all().unwrap();
    while writer.maintain().unwrap() {}
    assert!(log_rows(dir.path()) < 10, "{}", log_rows(dir.path()));
    engine.fold_all().unwrap();
    assert!(super::lock(&engine.shared.sweep).queue.len() < 3);
}

#[test]
fn an_origin_never_forgotten_is_carried_along_and_rows_below_it_go() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.sqlite_writer().unwrap();
    let first = message("b@x.example", Some((9, 1)), "<first/>");
    assert_eq!(
        positions(&writer.commit(std::slice::from_ref(&first)).unwrap()),
        [1]
    );
    writer
        .commit(&[Write::Ack {
            owner: jid("b@x.example"),
            positions: vec![1],
        }])
        .unwrap();
    traffic(&mut writer, 1, 200_000);
    engine.fold_all().unwrap();
    while writer.maintain().unwrap() {}
    assert!(log_rows(dir.path()) < 10, "{}", log_rows(dir.path()));
    let replayed = [Written::Replayed {
        position: 1,
        pending: false,
    }];
    assert_eq!(
        writer.commit(std::slice::from_ref(&first)).unwrap(),
        replayed
    );
    drop((writer, engine));
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.sqlite_writer().unwrap();
    assert_eq!(writer.origin_count(), 1);
    assert_eq!(
        writer.commit(std::slice::from_ref(&first)).unwrap(),
        replayed
    );
    writer
        .commit(&[Write::RetainSessions { sessions: vec![] }])
        .unwrap();
    assert!(matches!(
        writer.commit(&[first]).unwrap()[..],
        [Written::Stored { .. }]
    ));
}

#[test]
fn readers_see_what_is_committed_while_it_is_folded() {
    let dir = tempfile::tempdir().unwrap();
    let engine = SqliteEngine::open(dir.path()).unwrap();
    let mut writer = engine.writer().unwrap();
    let (committed, acknowledged, done) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                engine.fold_all().unwrap();
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = engine.reader().unwrap();
                    let mut reads = 0;
                    while !done.load(Ordering::Acquire) || reads < 10 {
                        let least = committed.load(Ordering::Acquire);
                        let gone = acknowledged.load(Ordering::Acquire);
                        let rows = reader.pending(&jid("a@x.example"), 0, usize::MAX).unwrap();
                        let numbers: Vec<u64> = rows
                            .iter()
                            .map(|row| std::str::from_utf8(&row.payload).unwrap().parse().unwrap())
                            .collect();
                        assert!(
                            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
                            "{numbers:?}"
                        );
                        assert!(
                            numbers.first().is_none_or(|first| *first > gone),
                            "{numbers:?} {gone}"
                        );
                        // Rows may have been acknowledged during the call: up to one batch more
                        // than the counter says now.
                        let gone_now = acknowledged.load(Ordering::Acquire) + 25;
                        let last = numbers.last().copied().unwrap_or(gone_now);
                        assert!(
                            last >= least || gone_now >= least,
                            "{last} {least} {gone_now}"
                        );
                        let rows = reader
                            .archive(&ArchiveQuery::new(jid("b@x.example"), usize::MAX))
                            .unwrap();
                        assert!(rows.len() as u64 >= least);
                        reads += 1;
                    }
                })
            })
            .collect();
        let mut unacknowledged = Vec::new();
        for n in 1..=3_000_u64 {
            let Write::Append(mut archived) = message("b@x.example", None, "<m/>") else {
                continue;
            };
            archived.archive = true;
            let written = writer
                .commit(&[
                    message("a@x.example", None, &n.to_string()),
                    Write::Append(archived),
                ])
                .unwrap();
            unacknowledged.push(positions(&written)[0]);
            committed.store(n, Ordering::Release);
            if n % 50 == 0 {
                let positions = unacknowledged.drain(..25).collect();
                writer
                    .commit(&[Write::Ack {
                        owner: jid("a@x.example"),
                        positions,
                    }])
                    .unwrap();
                acknowledged.fetch_add(25, Ordering::AcqRel);
                writer.maintain().unwrap();
            }
        }
        done.store(true, Ordering::Release);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn a_backup_holds_everything_and_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let engine = SqliteEngine::open(&from).unwrap();
    let mut writer = engine.writer().unwrap();
    writer
        .commit(&[
            message("a@x.example", Some((1, 1)), "<m/>"),
            roster(3, "friend"),
        ])
        .unwrap();
    engine.backup(&to).unwrap();
    writer
        .commit(&[message("a@x.example", None, "<later/>")])
        .unwrap();
    assert!(
        engine.backup(&to).is_err(),
        "an existing copy is not overwritten"
    );
    SqliteEngine::verify(&to).unwrap();
    let id = SqliteEngine::restored(&to).unwrap();
    assert_ne!(id, engine.store_id());
    let copy = SqliteEngine::open(&to).unwrap();
    assert_eq!(
        (copy.store_id(), copy.login_secret()),
        (id, engine.login_secret())
    );
    assert_eq!(pending(&copy, "a@x.example").len(), 1);
    assert_eq!(
        copy.reader()
            .unwrap()
            .user_data(&jid("a@x.example"))
            .unwrap()
            .roster_version,
        3
    );
    let replayed = copy
        .writer()
        .unwrap()
        .commit(&[message("a@x.example", Some((1, 1)), "<m/>")])
        .unwrap();
    assert!(matches!(
        replayed[..],
        [Written::Replayed {
            position: 1,
            pending: true
        }]
    ));
    drop(copy);
    let path = LOG.path(&to);
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 3_000;
    bytes[at..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(
        SqliteEngine::verify(&to),
        Err(StoreError::Corrupt { .. })
    ));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        SqliteEngine::verify(&to),
        Err(StoreError::Corrupt { .. })
    ));
}
