//! Archives (XEP-0313) and copies (XEP-0280) through the real processes: nothing acknowledged is missing, nothing is there twice.

use anyhow::{Context as _, Result, bail, ensure};
use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::wait;
use isthmus_tests::xml::Xml;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

fn site(plan: &Plan, accounts: &[Account]) -> Result<Site> {
    let mut site = Site::init(plan)?;
    site.set("imserver.toml", "[[domain]]", "archive", "true")?;
    site.start_server()?;
    site.start_mux()?;
    site.add_accounts(accounts)?;
    site.await_clients()?;
    Ok(site)
}

/// One kept message: its id, whether the owner sent it, its body.
#[derive(Debug, PartialEq, Eq, Clone)]
struct Kept {
    id: String,
    sent: bool,
    body: String,
}

fn kept(result: &Xml, own: &str) -> Result<Kept> {
    let message = result.child("forwarded").and_then(|f| f.child("message"));
    let message = message.with_context(|| format!("no message in {result}"))?;
    let from = message.attr("from").unwrap_or_default();
    Ok(Kept {
        id: result.attr("id").unwrap_or_default().to_owned(),
        sent: from.split('/').next() == Some(own),
        body: message.body().unwrap_or_default(),
    })
}

/// Everything behind an id, by pages.
fn history(client: &mut Client, mut after: Option<String>, max: usize) -> Result<Vec<Kept>> {
    let own = client.jid.split('/').next().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for page in 0.. {
        let id = format!("page{page}");
        let after_id = after.as_ref().map(|id| format!("<after>{id}</after>"));
        client.send(&format!(
            "<iq type='set' id='{id}'><query xmlns='urn:xmpp:mam:2' queryid='{id}'>\
             <set xmlns='http://jabber.org/protocol/rsm'><max>{max}</max>{}</set></query></iq>",
            after_id.unwrap_or_default()
        ))?;
        loop {
            let element = client.element()?;
            if let Some(result) = element.child("result") {
                all.push(kept(result, &own)?);
            } else if element.name == "iq" && element.attr("id") == Some(&id) {
                let fin = element.child("fin").with_context(|| element.to_string())?;
                if fin.attr("complete") == Some("true") {
                    return Ok(all);
                }
                let last = fin.child("set").and_then(|s| s.child("last"));
                let last = last.with_context(|| format!("a page without an end: {fin}"))?;
                after = Some(last.text());
                break;
            } else if element.name == "message" {
                bail!("a message came again: {element}");
            }
        }
    }
    unreachable!("it returns")
}

static ROUNDS: AtomicUsize = AtomicUsize::new(0);

/// Sends a number and waits for its echo, or the other way round. Returns how many numbers there were.
fn talk(
    mut client: Client,
    partner: &str,
    leads: bool,
    stop: &AtomicBool,
) -> Result<(Client, usize)> {
    client.patience = Duration::from_secs(120);
    for n in 0.. {
        if leads {
            client.chat(partner, &format!("{n}"))?;
        }
        let body = client.next_body()?;
        if body == "bye" {
            return Ok((client, n));
        }
        ensure!(
            body == n.to_string(),
            "{} expected {n}, got {body}",
            client.jid
        );
        ROUNDS.fetch_add(1, Ordering::Relaxed);
        if leads && stop.load(Ordering::Relaxed) {
            client.chat(partner, "bye")?;
            client.ping()?;
            return Ok((client, n + 1));
        }
        if !leads {
            client.chat(partner, &format!("{n}"))?;
        }
    }
    unreachable!("it returns")
}

#[test]
fn two_hundred_clients_chat_and_the_server_is_killed_and_nothing_is_missing_or_twice() {
    let stop = AtomicBool::new(false);
    let people: Vec<Account> = (0..200).map(|n| Account::new(&format!("a{n}"))).collect();
    let mut site = site(&Plan::default(), &people).unwrap();
    let pairs: Vec<(Client, Client)> = people
        .chunks(2)
        .map(|two| {
            let mut pair = (
                site.login(Transport::Plain, &two[0]).unwrap(),
                site.login(Transport::Plain, &two[1]).unwrap(),
            );
            pair.0.available().unwrap();
            pair.1.available().unwrap();
            pair
        })
        .collect();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (leader, follower) in pairs {
            let (to_follower, to_leader) = (follower.jid.clone(), leader.jid.clone());
            let stop = &stop;
            threads.push((
                scope.spawn(move || talk(leader, &to_follower, true, stop)),
                scope.spawn(move || talk(follower, &to_leader, false, stop)),
            ));
        }
        for round in 0..4 {
            let from = ROUNDS.load(Ordering::Relaxed);
            let what = format!("chat before kill {round}");
            wait::until_true(Duration::from_secs(120), &what, || {
                ROUNDS.load(Ordering::Relaxed) >= from + 400
            });
            site.kill_server();
            site.start_server().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        for (leader, follower) in threads {
            for (thread, leads) in [(leader, true), (follower, false)] {
                let (mut client, count) = thread.join().unwrap().unwrap();
                let kept = history(&mut client, None, 100).unwrap();
                let mut wanted = Vec::new();
                for n in 0..count {
                    wanted.push((leads, n.to_string()));
                    wanted.push((!leads, n.to_string()));
                }
                wanted.push((leads, "bye".into()));
                let got: Vec<(bool, String)> =
                    kept.iter().map(|k| (k.sent, k.body.clone())).collect();
                assert_eq!(got, wanted, "{}", client.jid);
                let mut ids: Vec<&String> = kept.iter().map(|k| &k.id).collect();
                ids.sort_unstable();
                ids.dedup();
                assert_eq!(ids.len(), kept.len(), "an id twice");
                client.close().unwrap();
            }
        }
    });
    // Nothing waits in an inbox.
    for account in &people {
        let mut client = site.login(Transport::Plain, account).unwrap();
        client.available().unwrap();
        let pong = client.request("get", "p", None, "<ping xmlns='urn:xmpp:ping'/>");
        pong.unwrap();
        client.patience = Duration::from_millis(1);
        assert!(
            client.element().is_err(),
            "{} has something pending",
            client.jid
        );
    }
}

#[test]
fn a_phone_that_was_away_has_what_it_missed_from_the_archive_once_and_in_order() {
    let (romeo, juliet) = (Account::new("romeo"), Account::new("juliet"));
    let site = site(&Plan::default(), &[romeo.clone(), juliet.clone()]).unwrap();
    let endpoint = site.endpoint(Transport::Plain);
    let mut phone = Client::login(&endpoint, &juliet, Some("phone")).unwrap();
    phone.available().unwrap();
    let mut sender = site.login(Transport::Plain, &romeo).unwrap();
    sender.chat("juliet@localhost", "seen").unwrap();
    let seen = phone
        .element_where("a message", |e| e.body().is_some())
        .unwrap();
    let id = seen.child("stanza-id").and_then(|i| i.attr("id")).unwrap();
    let id = id.to_owned();
    phone.ping().unwrap();
    phone.drop_connection();
    for n in 0..50 {
        sender.chat("juliet@localhost", &n.to_string()).unwrap();
    }
    sender.ping().unwrap();
    let mut phone = Client::login(&endpoint, &juliet, Some("phone")).unwrap();
    let kept = history(&mut phone, Some(id), 20).unwrap();
    let got: Vec<String> = kept.iter().map(|k| k.body.clone()).collect();
    let wanted: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    assert_eq!(got, wanted);
    // It says that it is there, and gets what is new, and nothing twice.
    phone.available().unwrap();
    sender.chat("juliet@localhost", "new").unwrap();
    assert_eq!(phone.next_body().unwrap(), "new");
    phone.ping().unwrap();
    phone.close().unwrap();
    // Nor does anything of it wait for another device.
    let mut desk = Client::login(&endpoint, &juliet, Some("desk")).unwrap();
    desk.available().unwrap();
    sender.chat("juliet@localhost", "last").unwrap();
    assert_eq!(desk.next_body().unwrap(), "last");
}

#[test]
fn two_devices_of_slixmpp_are_in_step() {
    let (desk, partner) = (Account::new("devices"), Account::new("partner"));
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let site = site(&plan, &[desk.clone(), partner.clone()]).unwrap();
    let endpoint = site.endpoint(Transport::StartTls);
    let mut other = Client::login(&endpoint, &partner, None).unwrap();
    other.available().unwrap();
    let ca = site.scratch("ca.pem");
    std::fs::write(&ca, other.certificate_pem().unwrap()).unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(here.join(".venv/bin/python"));
    command
        .arg(here.join("clients/slixmpp_history.py"))
        .args(["localhost", &endpoint.starttls.port().to_string()])
        .args(["devices@localhost", &desk.password, "partner@localhost"])
        .arg(&ca);
    let mut process = Proc::start("slixmpp", &mut command, &site.scratch("slixmpp.log")).unwrap();
    let status = wait::until(Duration::from_secs(120), || process.status());
    let log = process.log();
    assert!(status.is_some_and(|s| s.success()), "{log}");
    for line in [
        "COPIES True",
        "FEATURES True",
        "ARCHIVE True",
        "BACKWARDS True",
    ] {
        assert!(log.contains(line), "{line} is not in {log}");
    }
}
