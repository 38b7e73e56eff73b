//! 15,000 clients logged in at once through one link; each gets a message.

use isthmus_tests::client::{Account, Client, Endpoint, Sasl, Transport};
use isthmus_tests::harness::{Plan, Site, run};
use isthmus_tests::scram;
use std::time::{Duration, Instant};

const COUNT: usize = 15_000;
const THREADS: usize = 8;

fn log_in(site: &Site, people: &[Account], first: usize) -> Vec<Client> {
    // The accounts have no secret for SHA-512.
    let sasl = Sasl::Mechanism("SCRAM-SHA-256".into());
    people
        .iter()
        .enumerate()
        .map(|(n, person)| {
            // 750 from each of twenty addresses.
            let last = 1 + ((first + n) % 20) as u8;
            let endpoint = Endpoint {
                from: Some([127, 0, 0, last].into()),
                ..site.endpoint(Transport::Plain)
            };
            let mut client = Client::login_with(&endpoint, person, Some("x"), &sasl).unwrap();
            client.patience = Duration::from_secs(120);
            client
        })
        .collect()
}

#[test]
fn fifteen_thousand_clients_through_one_link() {
    let people: Vec<Account> = (0..COUNT)
        .map(|n| Account {
            user: format!("u{n}"),
            password: "password".into(),
        })
        .collect();
    let files = isthmus_tests::sys::raise_file_limit().unwrap();
    assert!(
        files > COUNT as u64 + 1000,
        "only {files} open files are allowed here (ulimit -Hn)"
    );
    let mut site = Site::start(&Plan::default(), &[]).unwrap();
    let file = site.scratch("people.txt");
    let lines: Vec<String> = people
        .iter()
        .map(|p| {
            scram::import_line(
                &format!("{}@localhost", p.user),
                &p.password,
                b"the same for all",
                4096,
            )
        })
        .collect();
    std::fs::write(&file, lines.join("\n") + "\n").unwrap();
    run(site.imadmin(["user", "import"]).arg(&file)).unwrap();
    let empty = (site.mux().rss_kib(), site.server().rss_kib());
    let begun = Instant::now();
    let per_thread = COUNT / THREADS;
    let mut groups: Vec<Vec<Client>> = std::thread::scope(|scope| {
        let handles: Vec<_> = people
            .chunks(per_thread)
            .enumerate()
            .map(|(n, part)| {
                let site = &site;
                scope.spawn(move || log_in(site, part, n * per_thread))
            })
            .collect();
        handles.into_iter().map(|h| h.join().unwrap()).collect()
    });
    let took = begun.elapsed();
    let full = (site.mux().rss_kib(), site.server().rss_kib());
    println!(
        "{COUNT} log-ins in {took:?} ({:.0}/s); KiB per session: mux {:.2}, imserver {:.2}",
        COUNT as f64 / took.as_secs_f64(),
        (full.0 - empty.0) as f64 / COUNT as f64,
        (full.1 - empty.1) as f64 / COUNT as f64
    );
    // Everybody writes to the next one, and everybody reads.
    std::thread::scope(|scope| {
        for (g, group) in groups.iter_mut().enumerate() {
            scope.spawn(move || {
                for (n, client) in group.iter_mut().enumerate() {
                    let number = g * per_thread + n;
                    client
                        .chat(
                            &format!("u{}@localhost/x", (number + 1) % COUNT),
                            &number.to_string(),
                        )
                        .unwrap();
                }
            });
        }
    });
    std::thread::scope(|scope| {
        for (g, group) in groups.iter_mut().enumerate() {
            scope.spawn(move || {
                for (n, client) in group.iter_mut().enumerate() {
                    let number = g * per_thread + n;
                    let wanted = (number + COUNT - 1) % COUNT;
                    assert_eq!(client.next_body().unwrap(), wanted.to_string());
                }
            });
        }
    });
}
