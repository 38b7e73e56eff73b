//! Every script of `scripts/`, once per way to reach the servers.

use anyhow::{Context as _, Result};
use isthmus_tests::client::Endpoint;
use isthmus_tests::harness::{Plan, Site};
use isthmus_tests::proxy::Cut;
use isthmus_tests::scansion::{self, Disturbance, Script, Stage};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;

/// A site of ours, reached in one way.
struct Ours {
    name: &'static str,
    endpoint: Endpoint,
    site: Mutex<Site>,
    slow_client: Option<usize>,
}

impl Stage for Ours {
    fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    fn disturb(&self, what: Disturbance) -> Result<()> {
        let mut site = self.site.lock().unwrap();
        match what {
            Disturbance::KillServer => site.kill_server(),
            Disturbance::StartServer => {
                site.start_server()?;
                site.await_clients()?;
            }
            Disturbance::CutLink => site.proxy().cut(Cut::Silent),
            Disturbance::ResetLink => site.proxy().cut(Cut::Reset),
            Disturbance::RestoreLink => site.proxy().restore(),
        }
        Ok(())
    }

    fn differs<'s>(&self, _script: &'s Script) -> Option<&'s str> {
        None
    }

    fn slow_client(&self) -> Option<usize> {
        self.slow_client
    }

    fn name(&self) -> &str {
        self.name
    }
}

const ADMINISTRATOR: &str = "[[rule]]\nallow = \"admin\"\nusers = [\"adhoc-admin@localhost\"]\n";

const SERVICES: &str = "[[external_service]]\nkind = \"stun\"\nhost = \"turn.localhost\"\nport = 3478\n\
    [[external_service]]\nkind = \"turn\"\nhost = \"turn.localhost\"\nport = 3478\nsecret_file = \"turn.secret\"\n";

fn scripts() -> Vec<Script> {
    scansion::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")).unwrap()
}

/// With registration and an archive; all scripts register from one address.
pub(super) fn start(plan: &Plan, scripts: &[Script]) -> Result<Site> {
    let mut site = Site::init(plan)?;
    site.set("imserver.toml", "[[domain]]", "registration", "true")?;
    site.set("imserver.toml", "[[domain]]", "archive", "true")?;
    site.set("imserver.toml", "[[domain]]", "archive_search", "true")?;
    let addresses = "[\"mailto:abuse@localhost\", \"xmpp:abuse@localhost\"]";
    site.set("imserver.toml", "[[domain]]", "abuse_addresses", addresses)?;
    site.append("imserver.toml", SERVICES)?;
    let secret = site.path().join("turn.secret");
    std::fs::write(&secret, "north\n")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    let key = "registrations_per_address_hour_max";
    site.set("imserver.toml", "[limits]", key, "100")?;
    site.add_components(&scansion::components(scripts))?;
    site.start_server()?;
    if !plan.embedded {
        site.start_mux()?;
    }
    site.add_accounts(&scansion::accounts(scripts))?;
    site.await_clients()?;
    Ok(site)
}

fn play(name: &'static str, plan: Plan) {
    play_with(name, plan, scripts(), None);
}

fn play_with(name: &'static str, plan: Plan, scripts: Vec<Script>, slow_client: Option<usize>) {
    let mut site = start(&plan, &scripts).context(name).unwrap();
    // Scripts about administration have an administrator.
    let policy = site.path().join("policy.toml");
    let rules = std::fs::read_to_string(&policy).unwrap();
    std::fs::write(&policy, format!("{ADMINISTRATOR}{rules}")).unwrap();
    site.reload().unwrap();
    let endpoint = site.endpoint(scansion::transport_of(name));
    let stage = Ours {
        name,
        endpoint,
        site: Mutex::new(site),
        slow_client,
    };
    let outcomes = scansion::play_all(&scripts, &stage);
    scansion::report(&stage, &outcomes);
}

#[test]
fn over_plain_tcp() {
    play(
        "mux-plain",
        Plan {
            plaintext: true,
            proxied: true,
            ..Plan::default()
        },
    );
}

#[test]
fn over_starttls() {
    play(
        "mux-starttls",
        Plan {
            plaintext: false,
            proxied: true,
            ..Plan::default()
        },
    );
}

#[test]
fn over_direct_tls() {
    play(
        "mux-direct",
        Plan {
            plaintext: false,
            proxied: true,
            ..Plan::default()
        },
    );
}

/// As behind a reverse proxy: the listener has no TLS, and passwords are taken all the same.
#[test]
fn over_websocket_without_tls_of_its_own() {
    play(
        "mux-ws",
        Plan {
            plaintext: false,
            proxied: true,
            ..Plan::default()
        },
    );
}

#[test]
fn over_websocket_and_tls() {
    play(
        "mux-wss",
        Plan {
            plaintext: false,
            proxied: true,
            ..Plan::default()
        },
    );
}

#[test]
fn with_the_mux_embedded() {
    play(
        "embedded-starttls",
        Plan {
            embedded: true,
            plaintext: false,
            ..Plan::default()
        },
    );
}

/// No script depends on which of two clients' words comes first unless it waits for it.
#[cfg(feature = "full")]
mod with_a_slow_client {
    use super::{Plan, play_with, scripts};

    fn at(place: usize) {
        let mut scripts = scripts();
        scripts.retain(|script| script.clients.len() > place);
        let plan = Plan {
            plaintext: true,
            proxied: true,
            ..Plan::default()
        };
        play_with("mux-plain", plan, scripts, Some(place));
    }

    #[test]
    fn the_first() {
        at(0);
    }

    #[test]
    fn the_second() {
        at(1);
    }

    #[test]
    fn the_third() {
        at(2);
    }

    #[test]
    fn the_fourth() {
        at(3);
    }
}
