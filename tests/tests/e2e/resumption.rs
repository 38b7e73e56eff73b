//! Streams that go on (XEP-0198 §5): a phone out of reach that comes back on another mux, killed muxes and servers in between.

use crate::recovery::{Namespace, chatters, login_inside};
use anyhow::{Context as _, Result};
use isthmus_tests::client::{Account, Client, Endpoint, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::wait;
use isthmus_tests::xml::Xml;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const NS_SM: &str = "urn:xmpp:sm:3";

/// Turns on stream management with resumption. The SM-ID.
fn enable(client: &mut Client) -> Result<String> {
    client.send(&format!("<enable xmlns='{NS_SM}' resume='true'/>"))?;
    let enabled = client.element_where("<enabled/>", |e| e.is(NS_SM, "enabled"))?;
    client.handled = 0;
    let id = enabled.attr("id").context("no SM-ID")?;
    Ok(id.to_owned())
}

/// Logs in and asks to go on with a session. The answer.
fn resume(endpoint: &Endpoint, account: &Account, id: &str, h: u32) -> Result<(Client, Xml)> {
    let mut client = Client::open(endpoint)?;
    client.authenticate(account, &Sasl::Best)?;
    client.send(&format!("<resume xmlns='{NS_SM}' previd='{id}' h='{h}'/>"))?;
    let answer = client.element()?;
    client.handled = h;
    client.patience = Duration::from_secs(30);
    Ok((client, answer))
}

fn two_muxes(people: &[Account]) -> Site {
    // Clients come from the other end of a cable, too.
    let plan = Plan {
        listen: Some("0.0.0.0".into()),
        ..Plan::default()
    };
    let mut site = Site::init(&plan).unwrap();
    site.init_second_mux("west").unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(people).unwrap();
    site.await_clients().unwrap();
    site.start_second_mux().unwrap();
    site
}

/// Another device of the account takes every message and acknowledges it: that takes nothing from the phone.
fn vanishes_and_comes_back(index: u8, second_mux: bool, kill: bool) {
    let people = chatters(2);
    let namespace = Namespace::new(index).unwrap();
    let mut site = two_muxes(&people);
    let mut phone = login_inside(&namespace, &site, &people[0]).unwrap();
    let id = enable(&mut phone).unwrap();
    phone.available().unwrap();
    let mut desk = site.login(Transport::Plain, &people[0]).unwrap();
    desk.available().unwrap();
    let mut sender = site.login(Transport::Plain, &people[1]).unwrap();
    sender.chat("chatter0@localhost", "seen").unwrap();
    assert_eq!(phone.next_body().unwrap(), "seen");
    assert_eq!(desk.next_body().unwrap(), "seen");
    phone.acknowledge().unwrap();

    namespace.unplug().unwrap();
    for n in 0..50 {
        sender.chat("chatter0@localhost", &n.to_string()).unwrap();
    }
    sender.ping().unwrap();
    for n in 0..50 {
        assert_eq!(desk.next_body().unwrap(), n.to_string());
    }
    desk.ping().unwrap();
    if kill {
        site.kill_server();
        site.start_server().unwrap();
        desk.ping().unwrap();
    }

    let endpoint = match second_mux {
        true => site.second_endpoint(Transport::Plain),
        false => site.endpoint(Transport::Plain),
    };
    let (mut back, answer) = resume(&endpoint, &people[0], &id, phone.handled).unwrap();
    assert!(answer.is(NS_SM, "resumed"), "{answer}");
    for n in 0..50 {
        assert_eq!(back.next_body().unwrap(), n.to_string(), "order");
    }
    sender.chat("chatter0@localhost", "the end").unwrap();
    assert_eq!(back.next_body().unwrap(), "the end", "50, not one twice");
    assert_eq!(desk.next_body().unwrap(), "the end");
    back.acknowledge().unwrap();
    wait::until_true(wait::PATIENCE, "nothing waits for anybody", || {
        let shown = site
            .imadmin_json(["user", "show", "chatter0@localhost"])
            .unwrap();
        shown.to_string().contains(r#"["messages waiting",0]"#)
    });
}

#[test]
fn a_phone_that_vanishes_goes_on_where_it_was() {
    vanishes_and_comes_back(51, false, false);
}

#[test]
fn a_phone_that_vanishes_goes_on_on_the_other_mux() {
    vanishes_and_comes_back(52, true, false);
}

#[test]
fn a_phone_that_vanishes_goes_on_on_the_other_mux_after_a_kill() {
    vanishes_and_comes_back(53, true, true);
}

/// A mux dies; its clients go on with the other, and nobody has seen them go. What they had sent and had no word of, they send again:
/// the server says what it has.
#[test]
fn clients_of_a_dead_mux_go_on_with_another() {
    let people = chatters(2);
    let mut site = two_muxes(&people);
    let mut romeo =
        Client::login(&site.second_endpoint(Transport::Plain), &people[1], None).unwrap();
    romeo.available().unwrap();
    let mut juliet =
        Client::login(&site.endpoint(Transport::Plain), &people[0], Some("x")).unwrap();
    let id = enable(&mut juliet).unwrap();
    juliet.available().unwrap();
    let to_romeo = romeo.jid.clone();
    // Directed presence: he would hear that she goes.
    juliet
        .send(&format!("<presence to='{to_romeo}'/>"))
        .unwrap();
    romeo
        .element_where("her presence", |e| {
            e.name == "presence" && e.attr("from") == Some(&juliet.jid)
        })
        .unwrap();
    for n in 0..20 {
        juliet.chat(&to_romeo, &format!("from juliet {n}")).unwrap();
        romeo.chat(&juliet.jid, &format!("from romeo {n}")).unwrap();
    }
    let mut read = 0;
    while read < 7 {
        assert_eq!(juliet.next_body().unwrap(), format!("from romeo {read}"));
        read += 1;
    }
    site.kill_mux();
    for n in 20..40 {
        romeo.chat(&juliet.jid, &format!("from romeo {n}")).unwrap();
    }
    let endpoint = site.second_endpoint(Transport::Plain);
    let (mut back, answer) = resume(&endpoint, &people[0], &id, juliet.handled).unwrap();
    assert!(answer.is(NS_SM, "resumed"), "{answer}");
    let taken: u32 = answer.attr("h").unwrap().parse().unwrap();
    // Two presences, then messages.
    for n in taken.max(2) - 2..20 {
        back.chat(&to_romeo, &format!("from juliet {n}")).unwrap();
    }
    for n in read..40 {
        assert_eq!(back.next_body().unwrap(), format!("from romeo {n}"));
    }
    for n in 0..20 {
        let next = romeo
            .element_where("a message, and no presence", |e| {
                assert_ne!(
                    e.attr("type"),
                    Some("unavailable"),
                    "nobody sees her go: {e}"
                );
                e.body().is_some()
            })
            .unwrap();
        assert_eq!(next.body().unwrap(), format!("from juliet {n}"));
    }
}

#[test]
fn who_does_not_come_back_in_time_is_gone() {
    let people = chatters(2);
    let mut site = two_muxes(&people);
    site.set("imserver.toml", "[session]", "resume_s", "1")
        .unwrap();
    site.reload().unwrap();
    let endpoint = site.endpoint(Transport::Plain);
    let mut romeo = Client::login(&endpoint, &people[1], None).unwrap();
    romeo.available().unwrap();
    let mut juliet = Client::login(&endpoint, &people[0], None).unwrap();
    let id = enable(&mut juliet).unwrap();
    juliet.available().unwrap();
    juliet
        .send(&format!("<presence to='{}'/>", romeo.jid))
        .unwrap();
    juliet.ping().unwrap();
    juliet.drop_connection();
    romeo
        .element_where("that she is gone", |e| {
            e.attr("type") == Some("unavailable")
        })
        .unwrap();
    let (mut back, answer) = resume(&endpoint, &people[0], &id, juliet.handled).unwrap();
    assert!(answer.is(NS_SM, "failed"), "{answer}");
    back.bind(None).unwrap();
}

/// Two connections want the same session at the same time: one has it in the end, and it gets everything once.
#[test]
fn of_two_at_once_one_goes_on() {
    let people = chatters(2);
    let site = two_muxes(&people);
    let endpoint = site.endpoint(Transport::Plain);
    let mut sender = Client::login(&endpoint, &people[1], None).unwrap();
    for round in 0..10 {
        let mut phone = Client::login(&endpoint, &people[0], Some("phone")).unwrap();
        let id = enable(&mut phone).unwrap();
        phone.available().unwrap();
        sender
            .chat("chatter0@localhost", &format!("round {round}"))
            .unwrap();
        sender.ping().unwrap();
        let mut both = [0, 1].map(|_| {
            let mut client = Client::open(&endpoint).unwrap();
            client.authenticate(&people[0], &Sasl::Best).unwrap();
            client
        });
        for client in &mut both {
            client
                .send(&format!("<resume xmlns='{NS_SM}' previd='{id}' h='1'/>"))
                .unwrap();
        }
        let [first, second] = &mut both;
        let answers = [first.element().unwrap(), second.element().unwrap()];
        let resumed = answers.iter().filter(|a| a.is(NS_SM, "resumed")).count();
        assert!(resumed >= 1, "{} {}", answers[0], answers[1]);
        let winner = if answers[1].is(NS_SM, "resumed") {
            second
        } else {
            first
        };
        assert_eq!(winner.next_body().unwrap(), format!("round {round}"));
        winner.handled = 2;
        winner.acknowledge().unwrap();
        winner.send("</stream:stream>").unwrap();
        winner.until_closed().unwrap();
    }
}

/// A real client whose connection is cut again and again: it resumes on either mux, also over a kill of the server, and has every
/// message once and in order.
#[test]
fn slixmpp_resumes_its_stream_every_time() {
    let people = chatters(2);
    let mut site = two_muxes(&people);
    let (first, second) = (
        site.endpoint(Transport::StartTls),
        site.second_endpoint(Transport::StartTls),
    );
    let other = Client::login(&first, &people[0], None).unwrap();
    let ca = site.scratch("ca.pem");
    std::fs::write(&ca, other.certificate_pem().unwrap()).unwrap();
    drop(other);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut slixmpp = Command::new(here.join(".venv/bin/python"))
        .arg(here.join("clients/slixmpp_resume.py"))
        .args(["localhost", &first.starttls.port().to_string()])
        .args(["chatter0@localhost", "chatter1@localhost", "-password"])
        .arg(second.starttls.port().to_string())
        .arg(&ca)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = slixmpp.stdin.take().unwrap();
    let mut lines = BufReader::new(slixmpp.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "READY");
    for round in 1..=4 {
        writeln!(orders, "cut").unwrap();
        assert_eq!(next(), format!("BACK {round}"));
        if round == 2 {
            site.kill_server();
            site.start_server().unwrap();
        }
    }
    drop(orders);
    let said = next();
    assert!(said.starts_with("GOT True BEGUN 1 RESUMED 4 "), "{said}");
    assert!(slixmpp.wait().unwrap().success());
}
