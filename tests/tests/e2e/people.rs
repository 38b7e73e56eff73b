//! Searching for people, registering, changing the password: what is refused, bounded, and turned on without dropping anyone.

use isthmus_tests::client::{Account, Client, Transport};
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::xml::Xml;

/// The condition of the error, or none.
fn condition(answer: &Xml) -> Option<String> {
    let error = answer.child("error")?;
    error.elements().next().map(|c| c.name.clone())
}

fn registration(name: &str) -> String {
    format!(
        "<query xmlns='jabber:iq:register'><username>{name}</username><password>{name}-password</password></query>"
    )
}

/// Opens a stream and asks for an account.
fn register(site: &Site, name: &str) -> Option<String> {
    let mut client = Client::open(&site.endpoint(Transport::Plain)).unwrap();
    let answer = client
        .request("set", name, None, &registration(name))
        .unwrap();
    condition(&answer)
}

fn offers_registration(site: &Site, transport: Transport) -> bool {
    let client = Client::open(&site.endpoint(transport)).unwrap();
    client.features.child("register").is_some()
}

#[test]
fn registration_is_off_until_it_is_turned_on_and_bounded_then() {
    let mut site = Site::start(&Plan::default(), &[Account::new("romeo")]).unwrap();
    assert!(!offers_registration(&site, Transport::Plain));
    let mut stranger = Client::open(&site.endpoint(Transport::Plain)).unwrap();
    stranger
        .send(&format!(
            "<iq type='set' id='r'>{}</iq>",
            registration("nurse")
        ))
        .unwrap();
    let end = stranger.until_closed().unwrap();
    assert_eq!(end.as_deref(), Some("not-authorized"));

    for (section, key, value) in [
        ("[[domain]]", "registration", "true"),
        ("[limits]", "registrations_per_address_hour_max", "3"),
        ("[limits]", "registration_requests_max", "2"),
    ] {
        site.set("imserver.toml", section, key, value).unwrap();
    }
    let reserved = "[[rule]]\nallow = [\"login\", \"register\"]\neveryone = true\nexcept_users = [\"admin@localhost\"]\n";
    std::fs::write(site.path().join("policy.toml"), reserved).unwrap();
    site.reload().unwrap();

    assert!(offers_registration(&site, Transport::Plain));
    assert!(offers_registration(&site, Transport::StartTls));
    // A name that the policy keeps free is refused before anything is counted.
    assert_eq!(register(&site, "admin").as_deref(), Some("not-allowed"));
    assert_eq!(register(&site, "nurse"), None);
    site.login(Transport::Plain, &Account::new("nurse"))
        .unwrap();
    // What is taken counts too, or a stranger could ask for every name.
    assert_eq!(register(&site, "romeo").as_deref(), Some("conflict"));
    assert_eq!(register(&site, "peter"), None);
    assert_eq!(
        register(&site, "tybalt").as_deref(),
        Some("resource-constraint")
    );
    let accounts = site.imadmin_json(["user", "list"]).unwrap().to_string();
    assert!(
        accounts.contains("peter@localhost") && !accounts.contains("tybalt"),
        "{accounts}"
    );

    // So many requests on one stream, of any kind.
    let mut stranger = Client::open(&site.endpoint(Transport::Plain)).unwrap();
    for n in 0..2 {
        let query = "<query xmlns='jabber:iq:register'/>";
        stranger
            .request("get", &format!("f{n}"), None, query)
            .unwrap();
    }
    stranger
        .send("<iq type='get' id='f2'><query xmlns='jabber:iq:register'/></iq>")
        .unwrap();
    let end = stranger.until_closed().unwrap();
    assert_eq!(end.as_deref(), Some("policy-violation"));
}

#[test]
fn a_search_needs_the_right_and_says_if_there_is_more() {
    let people: Vec<Account> = (0..5)
        .map(|n| Account::new(&format!("person{n}")))
        .collect();
    let mut site = Site::start(&Plan::default(), &people).unwrap();
    site.set("imserver.toml", "[search]", "results_max", "2")
        .unwrap();
    let mut client = site.login(Transport::Plain, &people[0]).unwrap();
    let query = "<query xmlns='jabber:iq:search'><x xmlns='jabber:x:data' type='submit'><field var='any'><value>person*</value></field></x></query>";
    let mut search = |id: &str| client.request("set", id, Some("localhost"), query).unwrap();
    let items = |answer: &Xml| {
        let form = answer.child("query").and_then(|q| q.child("x")).unwrap();
        let items = form.elements().filter(|e| e.name == "item").count();
        let told = form.child("instructions").map(Xml::text);
        (items, told)
    };
    assert_eq!(items(&search("all")), (5, None));
    site.reload().unwrap();
    let (found, told) = items(&search("two"));
    assert_eq!(found, 2);
    assert!(told.unwrap().contains("there are more"));
    std::fs::write(
        site.path().join("policy.toml"),
        "[[rule]]\nallow = \"login\"\neveryone = true\n",
    )
    .unwrap();
    site.reload().unwrap();
    assert_eq!(condition(&search("no")).as_deref(), Some("not-allowed"));
}

/// Messages of an account that its owner has ended are not there for the next one of this name.
#[test]
fn what_an_ended_account_had_is_gone() {
    let (romeo, juliet) = (Account::new("romeo"), Account::new("juliet"));
    let mut site = Site::start(&Plan::default(), &[romeo.clone(), juliet.clone()]).unwrap();
    site.set("imserver.toml", "[[domain]]", "registration", "true")
        .unwrap();
    site.reload().unwrap();
    let mut r = site.login(Transport::Plain, &romeo).unwrap();
    r.chat("juliet@localhost", "Hist!").unwrap();
    r.ping().unwrap();
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    let remove = "<query xmlns='jabber:iq:register'><remove/></query>";
    let answer = j.request("set", "end", None, remove).unwrap();
    assert_eq!(condition(&answer), None);
    assert_eq!(j.until_closed().unwrap().as_deref(), Some("not-authorized"));
    assert!(site.login(Transport::Plain, &juliet).is_err());
    assert_eq!(register(&site, "juliet"), None);
    let mut j = site.login(Transport::Plain, &juliet).unwrap();
    j.available().unwrap();
    r.chat("juliet@localhost", "Are you there?").unwrap();
    assert_eq!(j.next_body().unwrap(), "Are you there?");
}
