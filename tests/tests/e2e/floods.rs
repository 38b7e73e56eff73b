//! BAD_INPUTS 2, 4, 6, 10 and 11: what is right but cut anywhere, and what is right but too much of it. The one who sends it
//! gets answers or refusals; nobody else notices, and memory stays flat.

use super::bad_inputs::{bystander, offender};
use isthmus_tests::client::{Account, Client, Endpoint, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::wait;
use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn site(transport: Transport) -> (Site, Endpoint) {
    let plan = Plan {
        plaintext: transport == Transport::Plain,
        ..Plan::default()
    };
    let site = Site::start(&plan, &[offender(), bystander()]).unwrap();
    let endpoint = site.endpoint(transport);
    (site, endpoint)
}

/// The largest element after log-in, as `imserver.toml` says it.
const ELEMENT_BYTES_MAX: usize = 262_144;

/// BAD_INPUTS 2: characters of two, three and four bytes, cut at every byte by reads, and at whatever place our own limits cut.
#[test]
fn characters_survive_every_cut() {
    for transport in Transport::ALL {
        let (_site, endpoint) = site(transport);
        let mut client = Client::login(&endpoint, &offender(), None).unwrap();
        client.available().unwrap();
        let to = client.jid.clone();
        let text = "aé日🦀\u{FEFF}\u{10FFFF}\u{FFFD}z";
        let stanza = format!("<message to='{to}' id='é🦀'><body>{text}</body></message>");
        for fragments in [false, true] {
            client.send_slowly(&stanza, fragments).unwrap();
            assert_eq!(client.next_body().unwrap(), text, "{transport:?}");
        }

        // The longest element there may be: it goes out in parts, which must not show. One byte more is too much.
        let mut frame = format!("<message to='{to}'><body></body></message>").len();
        if transport.is_websocket() {
            frame += " xmlns='jabber:client'".len();
        }
        let room = ELEMENT_BYTES_MAX - frame;
        for shift in 0..4 {
            let long = "x".repeat(room % 4 + shift) + &"🦀".repeat(room / 4 - 1);
            client.chat_raw(&to, &long).unwrap();
            assert!(client.next_body().unwrap() == long, "{transport:?} {shift}");
        }
        let over = "x".repeat(room % 4 + 1) + &"🦀".repeat(room / 4);
        client.chat_raw(&to, &over).unwrap();
        assert_eq!(
            client.until_closed().unwrap().as_deref(),
            Some("policy-violation")
        );

        // A limit counts bytes and never cuts: a resource of 1,023 or 1,024 bytes in characters of two.
        let longest = "é".repeat(511) + "x";
        let client = Client::login(&endpoint, &offender(), Some(&longest)).unwrap();
        assert_eq!(client.jid.split_once('/').unwrap().1, longest);
        let too_long = Client::login(&endpoint, &offender(), Some(&"é".repeat(512)));
        assert!(too_long.is_err(), "{transport:?}");
    }
}

/// BAD_INPUTS 4: white space of somebody who does not log in ends soon.
#[test]
fn white_space_before_log_in_is_bounded() {
    for transport in Transport::ALL {
        let (_site, endpoint) = site(transport);
        let mut stranger = Client::open(&endpoint).unwrap();
        let spaces = " \n\t\r".repeat(4 * 1024);
        let begun = Instant::now();
        // Four megabytes; the mux may have closed before all are out.
        let _ = (0..256).try_for_each(|_| stranger.send_bytes(spaces.as_bytes()));
        let end = stranger.until_closed();
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{transport:?}: that was the end of the time to log in"
        );
        if let Ok(Some(condition)) = end {
            assert_eq!(condition, "policy-violation", "{transport:?}");
        }
        let mut witness = Client::login(&endpoint, &bystander(), None).unwrap();
        witness.ping().unwrap();
    }
}

/// BAD_INPUTS 4: white space for ever keeps a session alive and costs nothing.
#[test]
fn white_space_for_ever_costs_nothing() {
    for transport in Transport::ALL {
        let (mut site, endpoint) = site(transport);
        let mut client = Client::login(&endpoint, &offender(), None).unwrap();
        client.patience *= 4;
        client.ping().unwrap();
        let before = (site.mux().rss_kib(), site.server().rss_kib());
        let spaces = " \n\t\r".repeat(64 * 1024);
        // 64 MiB. What an allocator has had in use when everything was at its fullest it may keep: on a busy machine some MiB.
        for _ in 0..256 {
            client.send_bytes(spaces.as_bytes()).unwrap();
        }
        client.ping().unwrap();
        let after = (site.mux().rss_kib(), site.server().rss_kib());
        assert!(
            after.0 < before.0 + 24_576 && after.1 < before.1 + 24_576,
            "{transport:?}: KiB {before:?}, then {after:?}"
        );
    }
}

/// BAD_INPUTS 6: handshakes that are too long, and renegotiation.
#[test]
fn tls_is_not_a_way_in() {
    let (site, endpoint) = site(Transport::DirectTls);
    let mut witness = Client::login(&endpoint, &bystander(), None).unwrap();

    // A ClientHello that says it is 16 MB long, in records of 16 KB.
    let mut tcp = TcpStream::connect(site.address(5223)).unwrap();
    // Less than a handshake may take.
    tcp.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut record = vec![22, 3, 1, 0x40, 0];
    record.extend([1, 0xff, 0xff, 0xff]);
    record.resize(5 + 0x4000, 0);
    for _ in 0..16 {
        // It may be closed before all of this is sent.
        if tcp.write_all(&record).is_err() {
            break;
        }
        record[5..9].fill(0);
    }
    // What comes is an alert at most, and then the end: no wait for the rest.
    let ended = tcp.read_to_end(&mut Vec::new());
    assert!(
        !matches!(&ended, Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "it waits for more"
    );

    // Renegotiation (TLS 1.2): refused, however often it is asked for. `R` on a line of its own asks for one.
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect"])
        .arg(site.address(5223).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = openssl.stdin.take().unwrap();
    for _ in 0..50 {
        // It ends with the first refusal, and then nobody reads.
        if stdin
            .write_all(b"R\n")
            .and_then(|()| stdin.flush())
            .is_err()
        {
            break;
        }
    }
    let ended = wait::until(wait::PATIENCE, || openssl.try_wait().unwrap());
    if ended.is_none() {
        openssl.kill().unwrap();
    }
    let output = openssl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("RENEGOTIATING"), "it was not tried: {said}");
    assert!(
        said.to_lowercase().contains("no renegotiation")
            || said.to_lowercase().contains("no_renegotiation"),
        "{said}"
    );
    witness.ping().unwrap();
}

/// BAD_INPUTS 10: nothing answers an error, so nothing goes round: to oneself, to the server, to nobody, to one another.
#[test]
fn errors_and_messages_to_oneself_do_not_go_round() {
    for transport in Transport::ALL {
        let (_site, endpoint) = site(transport);
        let mut client = Client::login(&endpoint, &offender(), None).unwrap();
        client.available().unwrap();
        let (full, bare) = (client.jid.clone(), "offender@localhost".to_owned());
        let nobody = "nobody@localhost".to_owned();
        let error =
            "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        let mut text = String::new();
        for to in [
            &bare,
            &nobody,
            &format!("{nobody}/x"),
            &format!("{bare}/gone"),
            &"localhost".to_owned(),
        ] {
            for kind in ["message", "presence", "iq"] {
                let _ = write!(
                    text,
                    "<{kind} type='error' id='e' to='{to}'>{error}</{kind}>"
                );
            }
        }
        client.send(&text).unwrap();
        // Once to oneself is once back.
        client.chat(&full, "once").unwrap();
        assert_eq!(client.next_body().unwrap(), "once", "{transport:?}");
        client
            .send("<iq type='get' id='last'><ping xmlns='urn:xmpp:ping'/></iq>")
            .unwrap();
        let next = client.element().unwrap();
        assert_eq!(next.attr("id"), Some("last"), "{transport:?}: {next}");
    }
}

/// BAD_INPUTS 11: floods of subscriptions, directed presence and probes end in nothing worse than refusals.
fn presence_flood(transport: Transport, targets: usize, flips: usize) {
    let (mut site, endpoint) = site(transport);
    let mut witness = Client::login(&endpoint, &bystander(), None).unwrap();
    witness.patience *= 4;
    witness.available().unwrap();
    let mut client = Client::login(&endpoint, &offender(), None).unwrap();
    client.available().unwrap();
    client.patience *= 8;
    let before = site.server().rss_kib();
    let mut outcome = Ok(());
    for from in (0..targets).step_by(10_000) {
        let mut text = String::new();
        for n in from..targets.min(from + 10_000) {
            let _ = write!(
                text,
                "<presence to='nobody{n}@localhost/x'/><presence type='probe' to='nobody{n}@localhost'/>"
            );
        }
        outcome = outcome.and_then(|()| client.send(&text));
    }
    let flip = "<presence type='subscribe' to='bystander@localhost'/><presence type='unsubscribe' to='bystander@localhost'/>";
    // The server may end the session of one who overdoes it; it must not end anything else.
    let outcome = outcome
        .and_then(|()| client.send(&flip.repeat(flips)))
        .and_then(|()| client.ping());
    witness.ping().unwrap();
    let after = site.server().rss_kib();
    assert!(
        after < before + 64 * 1024,
        "memory grew from {before} to {after} KiB; offender: {outcome:?}"
    );
}

#[test]
fn presence_floods_over_plain_tcp() {
    presence_flood(Transport::Plain, 100_000, 1_000);
}

#[test]
fn presence_floods_over_starttls() {
    presence_flood(Transport::StartTls, 5_000, 200);
}

#[test]
fn presence_floods_over_direct_tls() {
    presence_flood(Transport::DirectTls, 5_000, 200);
}

/// BAD_INPUTS 11: a roster has an end; what is past it is refused, and what is in it stays usable.
#[test]
fn a_roster_has_an_end() {
    let mut site = Site::init(&Plan::default()).unwrap();
    site.set("imserver.toml", "[limits]", "roster_items_max", "50")
        .unwrap();
    site.set("imserver.toml", "[limits]", "roster_bytes_max", "65536")
        .unwrap();
    site.start_server().unwrap();
    site.start_mux().unwrap();
    site.add_accounts(&[offender(), Account::new("other")])
        .unwrap();
    site.await_clients().unwrap();
    let mut client = Client::login(&site.endpoint(Transport::Plain), &offender(), None).unwrap();
    let set = |client: &mut Client, n: usize, inner: &str| {
        let item = format!(
            "<query xmlns='jabber:iq:roster'><item jid='c{n}@localhost' name='n'{inner}/></query>"
        );
        client
            .request("set", &format!("r{n}"), None, &item)
            .unwrap()
    };
    for n in 0..50 {
        assert_eq!(set(&mut client, n, "").attr("type"), Some("result"), "{n}");
    }
    for n in 50..60 {
        let refused = set(&mut client, n, "");
        let error = refused.child("error").expect("a refusal");
        assert!(
            error.child("resource-constraint").is_some() || error.child("not-allowed").is_some(),
            "{refused}"
        );
    }
    // A subscription adds an item too.
    client
        .send("<presence type='subscribe' to='other@localhost'/>")
        .unwrap();
    let roster = client
        .request("get", "all", None, "<query xmlns='jabber:iq:roster'/>")
        .unwrap();
    assert_eq!(roster.child("query").unwrap().elements().count(), 50);
    // Changing and removing still works, and makes room.
    assert_eq!(
        set(&mut client, 7, " subscription='remove'").attr("type"),
        Some("result")
    );
    assert_eq!(set(&mut client, 99, "").attr("type"), Some("result"));
    // Bytes have an end too, however few the items are.
    let groups: String = (10..74)
        .map(|n| format!("<group>{n}{}</group>", "g".repeat(1000)))
        .collect();
    let item = format!(
        "<query xmlns='jabber:iq:roster'><item jid='c99@localhost'>{groups}</item></query>"
    );
    let refused = client.request("set", "long", None, &item).unwrap();
    let error = refused.child("error").expect("a refusal");
    assert!(error.child("resource-constraint").is_some(), "{refused}");
}
