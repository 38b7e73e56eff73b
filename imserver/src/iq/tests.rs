//! IQs and their answers, as rows of XML.

use super::*;
use xmpp::ns;

mod announced;
mod dispatch;
mod facts;
mod kept;
mod rosters;

pub(super) const OWN: Target = Target::Account {
    own: true,
    may_see: true,
};
const FRIEND: Target = Target::Account {
    own: false,
    may_see: true,
};
const STRANGER: Target = Target::Account {
    own: false,
    may_see: false,
};

/// A site whose one domain can be searched, and takes registrations.
static PEOPLE: std::sync::LazyLock<People> = std::sync::LazyLock::new(|| People {
    search_domains: vec!["example.org".into()],
    register_domains: vec!["example.org".into()],
    ..People::default()
});

/// Of its other domain.
pub(super) static CONTACTS: std::sync::LazyLock<Contacts> = std::sync::LazyLock::new(|| {
    let contact = |field, addresses: &[&str]| crate::settings::Contact {
        field,
        addresses: addresses.iter().map(|&a| a.to_owned()).collect(),
    };
    let contacts = vec![
        contact(
            "abuse-addresses",
            &["mailto:abuse@verona.example", "xmpp:a@verona.example"],
        ),
        contact("support-addresses", &["https://verona.example/?a=1&b=2"]),
    ];
    Contacts::from([("verona.example".to_owned(), contacts)])
});

static SERVICES: std::sync::LazyLock<Vec<ExternalService>> = std::sync::LazyLock::new(|| {
    let service = |kind: &str, port, transport, secret: Option<&str>| ExternalService {
        kind: kind.to_owned(),
        host: "turn.example.org".to_owned(),
        port,
        transport,
        label: None,
        secret: secret.map(|s| crate::event::Secret(s.to_owned())),
        credentials_s: 3_600,
    };
    vec![
        service("stun", 3478, "udp", None),
        service("turn", 3478, "udp", Some("north")),
        service("turn", 3479, "tcp", Some("south")),
    ]
});

pub(super) struct Asked {
    element: Element,
    from: Jid,
    to: Option<Jid>,
    target: Target,
}

impl Asked {
    pub(super) fn new(target: Target, xml: &str) -> Self {
        Self {
            element: Element::parse(Bytes::copy_from_slice(xml.as_bytes())).expect("well-formed"),
            from: Jid::parse("juliet@example.org/balcony").expect("an address"),
            to: match target {
                Target::Server => Some("example.org"),
                Target::Account { own: true, .. } => None,
                Target::Account { .. } => Some("romeo@example.org"),
            }
            .map(|to| Jid::parse(to).expect("an address")),
            target,
        }
    }

    pub(super) fn request(&self) -> Request<'_> {
        Request {
            element: &self.element,
            from: &self.from,
            to: self.to.as_ref(),
            target: self.target,
            context: Context {
                rights: crate::policy::Rights::NONE,
                services: &[],
                archive: true,
                archive_page_max: 50,
                archive_search: true,
                archive_prefs_jids_max: 3,
                vcard_bytes_max: 200,
                private_element_bytes_max: 100,
                blocklist_items_max: 3,
                uptime_s: 17,
                pubsub: super::pubsub::limits(&crate::settings::Settings::default()),
                now_unix_ms: 1_163_959_115_999,
                people: &PEOPLE,
                contacts: &CONTACTS,
                external_services: &SERVICES,
                ours: true,
                secure: true,
            },
        }
    }
}

pub(super) fn ask(target: Target, xml: &str) -> IqOutcome {
    dispatch(&Asked::new(target, xml).request())
}

fn reply(target: Target, xml: &str) -> Element {
    match ask(target, xml) {
        IqOutcome::Reply(bytes) => Element::parse(bytes).expect("well-formed"),
        other => panic!("{xml}: {other:?}"),
    }
}

fn condition(target: Target, xml: &str) -> Option<StanzaError> {
    match ask(target, xml) {
        IqOutcome::Error(condition, _) => Some(condition),
        _ => None,
    }
}
