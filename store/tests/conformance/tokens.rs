//! Tokens for log-ins, and keys beside keys.

use super::*;

conformance! {
    tokens_are_given_used_and_revoked
    a_token_does_not_outlive_what_it_was_granted_for
    keys_are_added_beside_those_of_the_same_password
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
