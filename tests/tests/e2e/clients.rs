//! Clients that people use, each in a chat over STARTTLS and over direct TLS, and who can over WebSocket.
//!
//! A client's own script (`clients/`) logs in, greets its partner, waits for an answer and leaves. The
//! partner is our raw client. What they need is installed by `install.sh`.

use anyhow::{Context as _, Result, ensure};
use isthmus_tests::client::{Account, Client, Endpoint, Transport};
use isthmus_tests::harness::{Plan, Proc, Site};
use isthmus_tests::wait;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A client of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Slixmpp,
    XmppJs,
    Profanity,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Slixmpp, Kind::XmppJs, Kind::Profanity];

    fn name(self) -> &'static str {
        match self {
            Kind::Slixmpp => "slixmpp",
            Kind::XmppJs => "xmpp.js",
            Kind::Profanity => "profanity",
        }
    }

    fn account(self) -> Account {
        Account::new(&self.name().replace('.', ""))
    }

    fn command(self) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let clients = here.join("clients");
        match self {
            Kind::Slixmpp => {
                let mut command = Command::new(here.join(".venv/bin/python"));
                command.arg(clients.join("slixmpp_chat.py"));
                command
            }
            Kind::XmppJs => {
                let mut command = Command::new("node");
                // Node 20 has the WebSocket of browsers behind this.
                command.arg("--experimental-websocket");
                command.arg(clients.join("xmppjs_chat.mjs"));
                command
            }
            Kind::Profanity => Command::new(clients.join("profanity_chat.sh")),
        }
    }
}

fn partner() -> Account {
    Account::new("partner")
}

/// Everybody in these chats.
pub fn accounts() -> Vec<Account> {
    let mut all: Vec<Account> = Kind::ALL.into_iter().map(Kind::account).collect();
    all.push(partner());
    all
}

/// One chat: the client greets, the partner answers.
pub fn chat_with(kind: Kind, endpoint: &Endpoint) -> Result<()> {
    chat_through(kind, endpoint, 0, || Ok(()))
}

/// The same, and so many times something happens, after which the client is still there.
fn chat_through(
    kind: Kind,
    endpoint: &Endpoint,
    times: usize,
    mut happens: impl FnMut() -> Result<()>,
) -> Result<()> {
    let mut partner = Client::login(endpoint, &partner(), None)?;
    let dir = tempfile::tempdir()?;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, partner.certificate_pem()?)?;
    partner.available()?;
    partner.patience = Duration::from_secs(60);
    let (port, mode) = match endpoint.transport {
        Transport::DirectTls => (endpoint.direct.port(), "direct"),
        Transport::WebSocketTls => (endpoint.wss.port(), "wss"),
        _ => (endpoint.starttls.port(), "starttls"),
    };
    let account = kind.account();
    let mut command = kind.command();
    command
        .args(["localhost", &port.to_string(), mode])
        .arg(format!("{}@{}", account.user, endpoint.domain))
        .args([&account.password, &partner.jid])
        .arg(&ca)
        .env("NODE_EXTRA_CA_CERTS", &ca);
    if times > 0 {
        command.arg((times + 1).to_string());
    }
    let mut process = Proc::start(kind.name(), &mut command, &dir.path().join("log"))?;
    let greeting = partner
        .element_where("the greeting", |e| {
            e.name == "message" && e.body().is_some()
        })
        .with_context(|| format!("{kind:?} over {mode}: {}", process.log()))?;
    ensure!(
        greeting.body() == Some(format!("hello from {} over {mode}", kind.name())),
        "{greeting}"
    );
    let from = greeting.attr("from").context("no from")?;
    let answer = format!("answer to {} over {mode}", kind.name());
    for _ in 0..times {
        happens()?;
        partner.chat(from, &answer)?;
        partner
            .element_where("that it is still there", |e| {
                e.body().is_some_and(|b| b.contains("still there"))
            })
            .with_context(|| format!("{kind:?} over {mode}: {}", process.log()))?;
    }
    partner.chat(from, &answer)?;
    let status = wait::until(Duration::from_secs(60), || process.status())
        .with_context(|| format!("{kind:?} over {mode} does not end: {}", process.log()))?;
    let log = process.log();
    ensure!(status.success(), "{kind:?} over {mode}: {log}");
    ensure!(
        log.contains(&format!("RECEIVED {answer}")),
        "{kind:?} over {mode}: {log}"
    );
    partner.close()
}

fn check(transport: Transport) {
    let site = Site::start(
        &Plan {
            plaintext: false,
            ..Plan::default()
        },
        &accounts(),
    )
    .unwrap();
    for kind in Kind::ALL {
        chat_with(kind, &site.endpoint(transport)).unwrap();
    }
}

#[test]
fn real_clients_chat_over_starttls() {
    check(Transport::StartTls);
}

#[test]
fn real_clients_chat_over_direct_tls() {
    check(Transport::DirectTls);
}

/// @xmpp/client, as web pages have it: it logs in, chats, and does not notice that the server is killed twice.
#[test]
fn a_web_client_chats_through_kills_of_the_server() {
    let plan = Plan {
        plaintext: false,
        ..Plan::default()
    };
    let mut site = Site::start(&plan, &accounts()).unwrap();
    let endpoint = site.endpoint(Transport::WebSocketTls);
    chat_through(Kind::XmppJs, &endpoint, 2, || {
        site.kill_server();
        site.start_server()
    })
    .unwrap();
}
