//! The store as a whole: batches, identity, sessions' records, values of the site.

use super::*;

conformance! {
    writes_of_a_batch_see_each_other
    identity_survives_and_epochs_grow
    session_records_survive_a_kill
    the_writer_is_given_out_once
    values_of_the_site_are_kept
    an_empty_batch_does_nothing
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

fn an_empty_batch_does_nothing(store: &mut dyn Fixture) {
    let mut writer = store.engine().writer().unwrap();
    assert_eq!(writer.commit(&[]).unwrap(), []);
    assert_eq!(
        writer.commit(&[ack("a@x.example", &[])]).unwrap(),
        [Written::Done]
    );
    assert!(!writer.maintain().unwrap());
}
