//! The same scripts, and the same real clients, against Prosody: tells whether a test is wrong.

use anyhow::{Result, bail};
use isthmus_tests::client::{Endpoint, Transport};
use isthmus_tests::prosody::Prosody;
use isthmus_tests::scansion::{self, Disturbance, Script, Stage};
use isthmus_tests::xml::Xml;
use std::path::Path;

struct Theirs {
    name: &'static str,
    endpoint: Endpoint,
}

impl Stage for Theirs {
    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn disturb(&self, _what: Disturbance) -> Result<()> {
        bail!("only our own servers are disturbed")
    }

    fn differs<'s>(&self, script: &'s Script) -> Option<&'s str> {
        script.compat.as_deref()
    }

    /// Prosody answers a subscription request with the contact's bare JID being unavailable.
    fn is_noise(&self, element: &Xml) -> bool {
        element.name == "presence"
            && element.attr("type") == Some("unavailable")
            && !element.attr("from").unwrap_or_default().contains('/')
    }

    fn repeats_presence(&self) -> bool {
        true
    }

    fn name(&self) -> &str {
        self.name
    }
}

fn play(name: &'static str, transport: Transport) {
    let scripts = scansion::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap();
    let prosody = Prosody::start(&scansion::accounts(&scripts)).unwrap();
    let stage = Theirs {
        name,
        endpoint: prosody.endpoint(transport),
    };
    let outcomes = scansion::play_all(&scripts, &stage);
    scansion::report(&stage, &outcomes);
}

#[test]
fn real_clients_can_do_what_is_asked_of_them() {
    let accounts = crate::clients::accounts();
    let prosody = Prosody::start(&accounts).unwrap();
    for kind in crate::clients::Kind::ALL {
        for transport in [Transport::StartTls, Transport::DirectTls] {
            // COMPAT: xmpp.js 0.14 counts wrongly when <r/> comes in one segment with <enabled/>, as Prosody
            // sends it now and then; a second try tells this from a mistake of the test.
            let endpoint = prosody.endpoint(transport);
            crate::clients::chat_with(kind, &endpoint)
                .or_else(|_| crate::clients::chat_with(kind, &endpoint))
                .unwrap();
        }
    }
}

#[test]
fn over_plain_tcp() {
    play("prosody-plain", Transport::Plain);
}

#[test]
fn over_starttls() {
    play("prosody-starttls", Transport::StartTls);
}
