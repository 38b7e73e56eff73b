//! A directory of the size that sites have: 10,000 people in 500 groups, nested ones and one of 1,500 members.
//!
//! What is counted is counted at the server's own log of operations.

use crate::ldap::{online, outcome, prepared, roster, started, until_outcome};
use isthmus_tests::client::Client;
use isthmus_tests::harness::{Site, run};
use isthmus_tests::slapd::{PEOPLE, Slapd, Tree};
use isthmus_tests::wait;
use isthmus_tests::xml::Xml;
use std::time::{Duration, Instant};

const COUNT: usize = 10_000;
const GROUPS: usize = 500;

/// Members of the large group: more than hear of each other's presence.
const LARGE: usize = 1_500;

/// For a look at everybody, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// People online through most of it: the members of `g000`, but for the last.
const ONLINE: usize = 19;

fn user(n: usize) -> String {
    format!("u{n:05}")
}

fn address(n: usize) -> String {
    format!("{}@localhost", user(n))
}

fn tree() -> Tree {
    let members = |names: &mut dyn Iterator<Item = String>| -> String {
        names.map(|dn| format!("member: {dn}\n")).collect()
    };
    let group = |name: &str, members: String| {
        format!(
            "dn: cn={name},{groups}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n",
            groups = isthmus_tests::slapd::GROUPS
        )
    };
    let nested = |name: &str| format!("cn={name},{}", isthmus_tests::slapd::GROUPS);
    let large = group(
        "Everybody in the north",
        members(&mut (0..LARGE).map(|n| format!("uid={},{PEOPLE}", user(n)))),
    );
    // A group of groups, and a group of that.
    let division = group(
        "division",
        members(&mut (490..500).map(|n| nested(&format!("g{n:03}")))),
    );
    let company = group("company", members(&mut [nested("division")].into_iter()));
    Tree {
        people: COUNT,
        groups: GROUPS,
        more: large + &division + &company,
    }
}

/// Everybody is looked at only when this test wants it.
fn big_site(slapd: &Slapd) -> Site {
    let site = prepared(slapd);
    let set = |section: &str, key: &str, value: &str| {
        site.set("imserver.toml", section, key, value).unwrap();
    };
    set("[directory_cache]", "ttl_s", "3600");
    set("[directory_cache]", "password_s", "3600");
    set("[[directory]]", "operation_timeout_s", "10");
    set("[[directory]]", "connect_timeout_s", "10");
    // Searches are counted here, and those for photos come when nobody waits for them: one for each log-in that finds none in the cache.
    set("[[directory]]", "attr_photo", "[]");
    started(site)
}

fn contacts(client: &mut Client) -> Vec<String> {
    let roster = roster(client);
    let jids = roster.elements().filter_map(|item| item.attr("jid"));
    let mut jids: Vec<String> = jids.map(str::to_owned).collect();
    jids.sort();
    jids
}

/// Pushes of this contact that come before the answer to a ping.
fn pushes_of(client: &mut Client, jid: &str) -> usize {
    let of = |e: &Xml| {
        let item = |q: &Xml| q.elements().any(|i| i.attr("jid") == Some(jid));
        e.name == "iq" && e.attr("type") == Some("set") && e.child("query").is_some_and(item)
    };
    client
        .send("<iq type='get' id='mark'><ping xmlns='urn:xmpp:ping'/></iq>")
        .unwrap();
    let mut pushes = 0;
    loop {
        let element = client.element().unwrap();
        if element.attr("id") == Some("mark") {
            return pushes;
        }
        pushes += usize::from(of(&element));
    }
}

/// Searches and binds that reach the directory while this is done.
fn cost<T>(slapd: &Slapd, work: impl FnOnce() -> T) -> (T, (usize, usize)) {
    let before = slapd.operations();
    let done = work();
    let after = slapd.operations();
    (done, (after.0 - before.0, after.1 - before.1))
}

fn sweep(site: &Site) {
    run(&mut site.imadmin(["cache", "flush"])).unwrap();
}

#[test]
fn ten_thousand_people_in_five_hundred_groups() {
    let begun = Instant::now();
    let mut slapd = Slapd::load(&tree()).unwrap();
    println!("the directory is loaded after {:?}", begun.elapsed());
    let begun = Instant::now();
    let mut site = big_site(&slapd);

    // The first look at everybody has all of it, page by page.
    let mut first = online(&site, &user(0));
    let all_of_the_north: Vec<String> = (1..LARGE).map(address).collect();
    wait::until_true(PATIENCE, "the first look at everybody", || {
        contacts(&mut first) == all_of_the_north
    });
    println!(
        "the first look at everybody is done after {:?}",
        begun.elapsed()
    );
    println!("imserver has {} KiB", site.server().rss_kib());
    let pages = slapd.log().matches("SRCH base=").count();
    assert!(pages > COUNT / 1_000, "{pages} searches for all of it");
    // The last of the list is in a group, and in a group of groups of groups.
    let mut last = online(&site, &user(COUNT - 1));
    let division: Vec<String> = (COUNT - 200..COUNT - 1).map(address).collect();
    assert_eq!(contacts(&mut last), division);
    let last_item = {
        let roster = roster(&mut last);
        let of = address(COUNT - 2);
        let item = roster.elements().find(|i| i.attr("jid") == Some(&of));
        let mut groups: Vec<String> = item.unwrap().elements().map(Xml::text).collect();
        groups.sort();
        groups
    };
    assert_eq!(last_item, ["company", "division", "g499"]);

    // Log-ins from cold: one search for the name and one check of the password, whoever it is.
    let (clients, (searches, binds)) = cost(&slapd, || -> Vec<Client> {
        (1..ONLINE).map(|n| online(&site, &user(n))).collect()
    });
    let logins = ONLINE - 1;
    println!("{logins} log-ins: {searches} searches, {binds} binds");
    // A few more than one each: connections are opened, and the log may be behind.
    assert!(searches <= logins + 3, "{searches} searches");
    assert!((logins..=logins + 3).contains(&binds), "{binds} binds");
    let mut clients: Vec<Client> = std::iter::once(first).chain(clients).collect();

    // Messages cost the directory nothing, but for who is not known yet: once each.
    let away: Vec<usize> = (7_000..7_005).collect();
    let (_, (searches, binds)) = cost(&slapd, || {
        for round in 0..100 {
            for (n, client) in clients.iter_mut().enumerate() {
                let body = format!("{round} of {n}");
                client.chat(&address((n + 1) % ONLINE), &body).unwrap();
            }
            let to = away[round % away.len()];
            clients[0].chat(&address(to), "when you come").unwrap();
        }
        for (n, client) in clients.iter_mut().enumerate() {
            for round in 0..100 {
                let from = (n + ONLINE - 1) % ONLINE;
                assert_eq!(client.next_body().unwrap(), format!("{round} of {from}"));
            }
        }
        clients[0].ping().unwrap();
    });
    println!("2,000 messages: {searches} searches, {binds} binds");
    // A bind is a connection more, of the service account.
    assert!(searches <= away.len() && binds <= away.len());
    let mut seven = online(&site, &user(7_000));
    assert_eq!(seven.next_body().unwrap(), "when you come");

    // One more in the large group: one push for each who is online and in it, and none for others.
    let joined = address(5_000);
    let change = |slapd: &Slapd, what: &str| {
        let member = format!("uid={},{PEOPLE}", user(5_000));
        let dn = format!("cn=Everybody in the north,{}", isthmus_tests::slapd::GROUPS);
        let ldif = format!("dn: {dn}\nchangetype: modify\n{what}: member\nmember: {member}\n");
        slapd.modify(&ldif).unwrap();
    };
    // Who has not asked for the roster is pushed nothing.
    for client in &mut clients {
        assert_eq!(contacts(client).len(), LARGE - 1);
    }
    change(&slapd, "add");
    let begun = Instant::now();
    let (_, (searches, _)) = cost(&slapd, || {
        sweep(&site);
        for client in &mut clients {
            client.patience = PATIENCE;
            let pushed = |e: &Xml| e.to_string().contains(&joined);
            client
                .element_where("a push of who has joined", pushed)
                .unwrap();
        }
    });
    println!(
        "a look at everybody and {ONLINE} pushes: {:?}, {searches} searches",
        begun.elapsed()
    );
    for client in clients.iter_mut().chain([&mut last, &mut seven]) {
        assert_eq!(pushes_of(client, &joined), 0, "it was pushed once");
    }

    // An alert for a group of the directory reaches its members who are online, and nobody else.
    let said = run(&mut site.imadmin(["alert", "g000", "coffee is ready"])).unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(&format!("{ONLINE} resources")), "{said}");
    for client in &mut clients {
        assert_eq!(client.next_body().unwrap(), "coffee is ready");
    }
    seven.chat(&address(7_000), "nothing before this").unwrap();
    assert_eq!(seven.next_body().unwrap(), "nothing before this");

    // Disabled here, not in the directory: logged off, refused, and the entry is as it was.
    let disabled = user(ONLINE - 1);
    let entry = slapd.entry(&disabled).unwrap();
    let mut out = clients.pop().unwrap();
    let jid = address(ONLINE - 1);
    run(&mut site.imadmin(["user", "disable", &jid])).unwrap();
    assert_eq!(
        out.until_closed().unwrap().as_deref(),
        Some("not-authorized")
    );
    let password = format!("{disabled}-password");
    assert_eq!(outcome(&site, &disabled, &password), "account-disabled");
    assert_eq!(outcome(&site, &disabled, "guess"), "not-authorized");
    assert_eq!(slapd.entry(&disabled).unwrap(), entry);
    run(&mut site.imadmin(["user", "enable", &jid])).unwrap();
    assert_eq!(outcome(&site, &disabled, &password), "success");

    // Somebody who came and went between two looks at everybody is logged off all the same.
    slapd.add("guest").unwrap();
    let mut guest = online(&site, "guest");
    slapd.delete("guest").unwrap();
    sweep(&site);
    guest.patience = PATIENCE;
    assert_eq!(
        guest.until_closed().unwrap().as_deref(),
        Some("not-authorized")
    );

    // The directory is down: who is online stays, who is known gets messages, and a password that was right is recognised.
    for n in [1, ONLINE - 1] {
        assert_eq!(
            outcome(&site, &user(n), &format!("{}-password", user(n))),
            "success"
        );
    }
    let known = user(1);
    slapd.kill();
    until_outcome(&site, &user(9_000), "temporary-auth-failure");
    assert_eq!(
        outcome(&site, &known, &format!("{known}-password")),
        "success"
    );
    assert_eq!(outcome(&site, &known, "guess"), "temporary-auth-failure");
    // What is disabled here stays disabled.
    run(&mut site.imadmin(["user", "disable", &jid])).unwrap();
    assert_eq!(outcome(&site, &disabled, &password), "account-disabled");
    drop(seven);
    for client in &mut clients {
        client.ping().unwrap();
    }
    clients[0]
        .chat(&address(7_000), "during the outage")
        .unwrap();
    clients[0].ping().unwrap();
    clients[0].chat(&address(2), "still here").unwrap();
    assert_eq!(clients[2].next_body().unwrap(), "still here");
    let before = contacts(&mut clients[1]);

    // It is back.
    slapd.restart().unwrap();
    let begun = Instant::now();
    until_outcome(&site, &user(9_000), "success");
    println!("log-ins work {:?} after the directory", begun.elapsed());
    let mut seven = online(&site, &user(7_000));
    assert_eq!(seven.next_body().unwrap(), "during the outage");
    assert_eq!(contacts(&mut clients[1]), before);
    for client in &mut clients {
        client.ping().unwrap();
    }
    println!("imserver has {} KiB", site.server().rss_kib());
}
