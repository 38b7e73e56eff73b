//! Isthmus: mux and imserver as two processes, set up by `imadmin init`, accounts by `imadmin user import`.

use super::{
    DOMAIN, Running, Server, Setup, answers, contacts, keys, rows, run, temporary, wait_until,
};
use crate::client::localpart;
use anyhow::{Context as _, bail};
use bytes::Bytes;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use store::{
    Append, Engine as _, RosterItem, Subscription, Write as StoreWrite, sqlite::SqliteEngine,
};
use xmpp::jid::BareJid;
use xmpp::scram::ScramHash;

/// Ports of a set-up, before the offset is added.
const PORTS: [u16; 10] = [
    5222, 5223, 5269, 5280, 5443, 15230, 15231, 15232, 15233, 15234,
];
/// Rows of one commit when the store is filled before the start.
const BATCH: u64 = 2_000;

/// Sets it up and starts both. `bin` is the directory of the binaries.
pub fn start(setup: &Setup, bin: &Path) -> anyhow::Result<Server> {
    for name in ["imserver", "mux", "imadmin"] {
        if !bin.join(name).exists() {
            bail!(
                "{} is not there: cargo build --release builds it",
                bin.join(name).display()
            );
        }
    }
    let dir = temporary(setup, "isthmus")?;
    let site = dir.path().join("site");
    let offset = free_offset()?;
    let imadmin = bin.join("imadmin");
    run(Command::new(&imadmin)
        .args([
            "init",
            "--plaintext",
            "--domain",
            DOMAIN,
            "--port-offset",
            &offset.to_string(),
            "--dir",
        ])
        .arg(&site)
        .args(setup.ldap.iter().flat_map(|ldap| &ldap.init_args)))?;
    let config = site.join("imserver.toml");
    set_archive(&config, setup.archive)?;
    // The mux lets 5,000 new clients a second in by default: a protection, not a speed.
    let mux_config = fs::read_to_string(site.join("mux.toml"))?;
    fs::write(
        site.join("mux.toml"),
        format!("{mux_config}\n[limits]\naccepts_per_s = 100000\n"),
    )?;
    if setup.contacts > 0 || setup.stored > 0 {
        fill(&site.join("data"), setup)?;
    }
    let (plain, direct) = (
        SocketAddr::from((Ipv4Addr::LOCALHOST, 5222 + offset)),
        SocketAddr::from((Ipv4Addr::LOCALHOST, 5223 + offset)),
    );
    let child = |name: &'static str, file: &str| -> anyhow::Result<(Running, PathBuf)> {
        let log = dir.path().join(format!("{name}.log"));
        let mut command = Command::new(bin.join(name));
        command.arg("--config").arg(site.join(file));
        Ok((Running::start(name, &mut command, setup.core, &log)?, log))
    };
    let (mut imserver, log) = child("imserver", "imserver.toml")?;
    let imadmin = |args: &[&str]| {
        let mut command = Command::new(&imadmin);
        command
            .arg("--config")
            .arg(site.join("admin.toml"))
            .args(args);
        run(&mut command)
    };
    wait_until(&mut imserver, &log, || imadmin(&["status"]).is_ok())?;
    if setup.ldap.is_none() {
        let accounts = dir.path().join("accounts");
        fs::write(&accounts, account_lines(setup))?;
        imadmin(&["user", "import", &accounts.display().to_string()])?;
    }
    let (mut mux, log) = child("mux", "mux.toml")?;
    wait_until(&mut mux, &log, || answers(plain))?;
    Ok(Server {
        name: "isthmus",
        version: version(),
        plain,
        direct,
        children: vec![mux, imserver],
        _dir: dir,
    })
}

/// The commit, if this is a checkout.
pub fn version() -> String {
    run(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"])).map_or_else(
        |_| env!("CARGO_PKG_VERSION").into(),
        |v| v.trim().to_owned(),
    )
}

fn set_archive(config: &Path, archive: bool) -> anyhow::Result<()> {
    let text = fs::read_to_string(config)?;
    let (before, after) = text
        .split_once("[archive]")
        .context("imserver.toml of `imadmin init` has no [archive]")?;
    let after = after.replacen("enabled = false", &format!("enabled = {archive}"), 1);
    fs::write(config, format!("{before}[archive]{after}"))?;
    Ok(())
}

fn account_lines(setup: &Setup) -> String {
    let secrets: Vec<String> = [ScramHash::Sha1, ScramHash::Sha256]
        .into_iter()
        .map(|hash| keys(hash).text().to_string())
        .collect();
    let secrets = secrets.join(" ");
    let mut text = String::new();
    for user in 0..setup.accounts {
        let _ = writeln!(text, "{}@{DOMAIN} {secrets}", localpart(user));
    }
    text
}

/// Rosters and old messages, written straight into the store while no server runs.
fn fill(data: &Path, setup: &Setup) -> anyhow::Result<()> {
    let engine = SqliteEngine::open(data)?;
    let mut writer = engine.writer()?;
    let jids: Vec<BareJid> = (0..setup.accounts)
        .map(|user| BareJid::parse(&format!("{}@{DOMAIN}", localpart(user))))
        .collect::<Result<_, _>>()
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    if setup.contacts > 0 {
        for (user, owner) in jids.iter().enumerate() {
            let writes: Vec<StoreWrite> = contacts(user, setup)
                .into_iter()
                .zip(1..)
                .map(|(contact, version)| StoreWrite::Roster {
                    owner: owner.clone(),
                    version,
                    put: Some(RosterItem {
                        jid: jids[contact].clone(),
                        name: None,
                        subscription: Subscription::Both,
                        ask: false,
                        approved: false,
                        groups: Vec::new(),
                        version,
                    }),
                    remove: None,
                })
                .collect();
            writer.commit(&writes)?;
        }
    }
    let payload = Bytes::from(format!(
        "<message from='u0@{DOMAIN}/b' to='u1@{DOMAIN}' type='chat'><body>{}</body></message>",
        "x".repeat(100)
    ));
    let mut number = 0;
    while number < setup.stored {
        crate::fleet::check_stop()?;
        let end = (number + BATCH).min(setup.stored);
        let writes: Vec<StoreWrite> = (number..end)
            .map(|n| {
                let (owner, peer) = (n as usize % jids.len(), (n as usize % jids.len()) ^ 1);
                StoreWrite::Append(Append {
                    owner: jids[owner].clone(),
                    peer: jids[peer.min(jids.len() - 1)].clone(),
                    origin: None,
                    archive: true,
                    pending: false,
                    time_ms: rows::FIRST_MS + n,
                    outgoing: (n as usize / jids.len()).is_multiple_of(2),
                    payload: payload.clone(),
                    text: None,
                })
            })
            .collect();
        writer.commit(&writes)?;
        number = end;
    }
    Ok(())
}

/// An offset whose ports are all free.
fn free_offset() -> anyhow::Result<u16> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).expect("the system has a random source");
    let first = u16::from_ne_bytes(random) % 175;
    (0..175)
        .map(|step| ((first + step) % 175 + 1) * 100)
        .find(|offset| {
            PORTS
                .iter()
                .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port + offset)).is_ok())
        })
        .context("no block of ports is free")
}
