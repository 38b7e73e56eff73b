//! Accounts: created, changed, listed, counted.

use super::*;

conformance! {
    accounts_are_created_changed_and_deleted
    accounts_are_listed_in_pages
    disabled_accounts_are_counted_and_listed
    counts_follow
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
