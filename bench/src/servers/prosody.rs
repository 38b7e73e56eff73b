//! Prosody from Debian: internal storage (archives on request in SQLite), hashed passwords, the modules that match what Isthmus does.

use super::{
    DOMAIN, Running, Server, Setup, answers, certificate, contacts, debian_version, free_port,
    keys, rows, temporary, wait_until,
};
use crate::client::localpart;
use anyhow::ensure;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use xmpp::scram::ScramHash;

/// Sets it up and starts it.
pub fn start(setup: &Setup) -> anyhow::Result<Server> {
    let dir = temporary(setup, "prosody")?;
    let path = dir.path().display();
    let (plain, direct) = (free_port()?, free_port()?);
    certificate(dir.path())?;
    let base = dir.path().join("data").join(encode(DOMAIN));
    accounts(setup, &base)?;
    let mam = if setup.archive { r#", "mam""# } else { "" };
    let sql = setup.archive && setup.archive_in_sql;
    let storage = if sql {
        r#"{ archive = "sql" }; sql = { driver = "SQLite3", database = "archive.sqlite" }"#
    } else {
        r#""internal""#
    };
    if setup.stored > 0 {
        ensure!(sql, "only an archive in SQLite can be filled before");
        rows::prosody(&dir.path().join("data").join("archive.sqlite"), setup)?;
    }
    let config = dir.path().join("prosody.cfg.lua");
    fs::write(
        &config,
        format!(
            r#"
run_as_root = true
data_path = "{path}/data"
pidfile = "{path}/prosody.pid"
log = {{ warn = "*console" }}
interfaces = {{ "127.0.0.1" }}
c2s_ports = {{ {} }}
c2s_direct_tls_ports = {{ {} }}
s2s_ports = {{ }}
certificates = "{path}"
ssl = {{ key = "{path}/key.pem"; certificate = "{path}/cert.pem" }}
c2s_direct_tls_ssl = {{ key = "{path}/key.pem"; certificate = "{path}/cert.pem" }}
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_hashed"
storage = {storage}
archive_expires_after = "never"
default_archive_policy = true
max_archive_query_results = 100
modules_enabled = {{ "roster", "saslauth", "tls", "disco", "ping", "version", "vcard", "smacks", "offline"{mam} }}
modules_disabled = {{ "s2s" }}
VirtualHost "{DOMAIN}"
"#,
            plain.port(),
            direct.port()
        ),
    )?;
    let log = dir.path().join("prosody.log");
    let mut command = Command::new("prosody");
    command.arg("-F").arg("--config").arg(&config);
    let mut running = Running::start("prosody", &mut command, setup.core, &log)?;
    wait_until(&mut running, &log, || answers(plain))?;
    Ok(Server {
        name: "prosody",
        version: debian_version("prosody"),
        plain,
        direct,
        children: vec![running],
        _dir: dir,
    })
}

fn accounts(setup: &Setup, base: &std::path::Path) -> anyhow::Result<()> {
    let keys = keys(ScramHash::Sha1);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let text = format!(
        "return {{\n[\"iteration_count\"] = {};\n[\"salt\"] = \"{}\";\n[\"stored_key\"] = \"{}\";\n[\"server_key\"] = \"{}\";\n}};\n",
        keys.iterations,
        String::from_utf8_lossy(&keys.salt),
        hex(&keys.stored_key),
        hex(&keys.server_key)
    );
    for folder in ["accounts", "roster"] {
        fs::create_dir_all(base.join(folder))?;
    }
    for user in 0..setup.accounts {
        let file = format!("{}.dat", encode(&localpart(user)));
        fs::write(base.join("accounts").join(&file), &text)?;
        if setup.contacts > 0 {
            let mut roster = "return {\n[false] = { [\"version\"] = 1; };\n".to_owned();
            for contact in contacts(user, setup) {
                let _ = writeln!(
                    roster,
                    "[\"{}@{DOMAIN}\"] = {{ [\"subscription\"] = \"both\"; [\"groups\"] = {{ }}; }};",
                    localpart(contact)
                );
            }
            roster.push_str("};\n");
            fs::write(base.join("roster").join(&file), roster)?;
        }
    }
    Ok(())
}

/// Prosody's file names: everything but letters and digits as %xx.
fn encode(name: &str) -> String {
    name.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                (b as char).to_string()
            } else {
                format!("%{b:02x}")
            }
        })
        .collect()
}
